//! A disk some bytes of which cannot be read: what no user can do to a real one.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use cairn_store::disk::{Access, Disk, DiskFile, Listed, Space};

use super::edit::Edit;
use crate::sync::{Mutex, PoisonError};

/// A disk one file of which has bad places, until it is replaced.
pub(super) struct BadDisk {
    below: Arc<dyn Disk>,
    path: String,
    bad: Arc<Mutex<Vec<Bad>>>,
}

#[derive(Clone, Debug)]
struct Bad {
    range: Range<u64>,
    stays: bool,
}

impl BadDisk {
    /// The file at `path` has those places that the edits say.
    pub(super) fn new(below: Arc<dyn Disk>, path: String, edits: &[Edit]) -> BadDisk {
        let bad = edits.iter().filter_map(|edit| match edit {
            Edit::Unreadable { range, stays } => Some(Bad { range: range.clone(), stays: *stays }),
            _ => None,
        });
        BadDisk { below, path, bad: Arc::new(Mutex::new(bad.collect())) }
    }
}

impl Disk for BadDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let below = self.below.open(path, access)?;
        match path == self.path {
            true => Ok(Arc::new(BadFile { below, bad: self.bad.clone() })),
            false => Ok(below),
        }
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.below.create_dir(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.below.list(dir)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.rename(from, to)?;
        if to == self.path {
            // Another file, in other places of the medium.
            self.bad.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.below.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.below.sync_dir(dir)
    }

    fn space(&self) -> io::Result<Space> {
        self.below.space()
    }
}

struct BadFile {
    below: Arc<dyn DiskFile>,
    bad: Arc<Mutex<Vec<Bad>>>,
}

impl BadFile {
    /// An error like a medium's, where one of the bad places is met.
    fn meet(&self, offset: u64, len: u64, wanted: impl Fn(&Bad) -> bool) -> io::Result<()> {
        let bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        let touched =
            |bad: &Bad| bad.range.start < offset.saturating_add(len) && offset < bad.range.end && wanted(bad);
        match bad.iter().any(touched) {
            true => Err(io::Error::other("a sector that cannot be used, of the drill's")),
            false => Ok(()),
        }
    }
}

impl DiskFile for BadFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.meet(offset, buf.len() as u64, |_| true)?;
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.meet(offset, buf.len() as u64, |bad| bad.stays)?;
        self.below.write_at(buf, offset)?;
        let end = offset + buf.len() as u64;
        let parts = |bad: Bad| {
            let before = bad.range.start..bad.range.end.min(offset);
            let behind = bad.range.start.max(end)..bad.range.end;
            [before, behind]
                .into_iter()
                .filter(|r| !r.is_empty())
                .map(move |range| Bad { range, stays: false })
        };
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        let (stay, go): (Vec<Bad>, Vec<Bad>) = std::mem::take(&mut *bad).into_iter().partition(|b| b.stays);
        *bad = stay.into_iter().chain(go.into_iter().flat_map(parts)).collect();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.below.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.below.set_len(len)
    }

    fn forget(&self, range: Range<u64>) {
        self.below.forget(range);
    }
}
