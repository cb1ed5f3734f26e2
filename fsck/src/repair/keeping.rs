//! A store whose packs are moved out of the way where they would be removed: so that what a fold drops can be put back.

use std::io;
use std::sync::Arc;

use cairn_store::PACKS_DIR;
use cairn_store::disk::{Access, Disk, DiskFile, Listed, Space};

use super::undo::flat;

/// Moves packs to `dir` that somebody removes.
pub(super) struct Keeping {
    pub(super) below: Arc<dyn Disk>,
    pub(super) dir: String,
}

impl Disk for Keeping {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.below.open(path, access)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.below.create_dir(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.below.list(dir)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match path.starts_with(PACKS_DIR) && path.ends_with(".pack") {
            true => self.below.rename(path, &format!("{}/{}", self.dir, flat(path))),
            false => self.below.remove(path),
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        // What was moved has to be certain here before it is gone there.
        self.below.sync_dir(&self.dir)?;
        self.below.sync_dir(dir)
    }

    fn space(&self) -> io::Result<Space> {
        self.below.space()
    }
}
