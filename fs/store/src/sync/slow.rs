//! A disk in memory whose operations take time.

use std::io;
use std::sync::Arc;

use super::pause;
use crate::disk::{Access, Disk, DiskFile, Listed, MemoryDisk, Space};

/// A disk on which others get between a call and its work, and where a sync takes its time.
pub struct Slow(pub MemoryDisk);

struct SlowFile(Arc<dyn DiskFile>);

impl Disk for Slow {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        pause();
        Ok(Arc::new(SlowFile(self.0.open(path, access)?)))
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.0.create_dir(path)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.0.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        pause();
        self.0.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        pause();
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        pause();
        self.0.sync_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        pause();
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        pause();
        self.0.write_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        pause();
        self.0.sync()?;
        pause();
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        pause();
        self.0.set_len(len)
    }
}
