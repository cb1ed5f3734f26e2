//! A file that somebody else opened, as the disk that a pack lies on: a copy of a pack need not lie where a store's does.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cairn_format::PackId;
use cairn_store::disk::{Access, Disk, DiskFile, Listed, Space};
use cairn_store::{PackReader, ReadError};

/// The pack that a file is by its name, `ID.pack`; none where it is no pack by that.
pub(super) fn open(name: &str, file: File) -> Option<Result<PackReader, ReadError>> {
    let pack = PackId::parse(name.strip_suffix(".pack")?)?;
    Some(PackReader::open(&OneFile(Arc::new(Opened(file))), pack))
}

struct OneFile(Arc<Opened>);

struct Opened(File);

fn no<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Disk for OneFile {
    fn open(&self, _: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        match access {
            Access::Read => Ok(self.0.clone()),
            Access::Write | Access::CreateNew => no(),
        }
    }
    fn create_dir(&self, _: &str) -> io::Result<()> {
        no()
    }
    fn list(&self, _: &str) -> io::Result<Vec<Listed>> {
        no()
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        no()
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        no()
    }
    fn sync_dir(&self, _: &str) -> io::Result<()> {
        no()
    }
    fn space(&self) -> io::Result<Space> {
        no()
    }
}

impl DiskFile for Opened {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buf.len() {
            match self.0.read_at(&mut buf[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        no()
    }
    fn sync(&self) -> io::Result<()> {
        no()
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        no()
    }
}
