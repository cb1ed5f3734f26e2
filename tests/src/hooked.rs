//! A disk on which a test has its say, before files are opened and before they are synced.

use std::io;
use std::sync::Arc;

use cairn_store::disk::{Access, Disk, DiskFile, Listed, Space};

/// Called before a file is opened: whether it may be.
pub type OnOpen = Box<dyn Fn(&str, Access) -> io::Result<()> + Send + Sync>;
/// Called before a file is synced.
pub type OnSync = Arc<dyn Fn() + Send + Sync>;

/// See the module.
pub struct Hooked {
    disk: Arc<dyn Disk>,
    on_open: OnOpen,
    on_sync: OnSync,
}

struct HookedFile(Arc<dyn DiskFile>, OnSync);

impl Hooked {
    /// Has `on_open` decide what is opened.
    pub fn on_open(
        disk: Arc<dyn Disk>,
        on_open: impl Fn(&str, Access) -> io::Result<()> + Send + Sync + 'static,
    ) -> Hooked {
        Hooked { disk, on_open: Box::new(on_open), on_sync: Arc::new(|| {}) }
    }

    /// Has `on_sync` called before each sync of a file.
    pub fn on_sync(disk: Arc<dyn Disk>, on_sync: impl Fn() + Send + Sync + 'static) -> Hooked {
        Hooked { disk, on_open: Box::new(|_, _| Ok(())), on_sync: Arc::new(on_sync) }
    }
}

impl Disk for Hooked {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        (self.on_open)(path, access)?;
        Ok(Arc::new(HookedFile(self.disk.open(path, access)?, self.on_sync.clone())))
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.disk.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        (self.1)();
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
