//! The disk: what the journal and local packs are written through, and where faults are injected.
//!
//! What is assumed of it: a synced write is there after a power cut; a write that was not synced may
//! be there whole, in part (at any 512-byte boundary) or not at all; a created, renamed or removed
//! name is certain only once its directory was synced. Reads may return anything: what is read is
//! checked by whoever reads it.

use std::io;
use std::sync::Arc;

mod file;
mod memory;
#[cfg(test)]
mod tests;

pub use file::FileDisk;
pub use memory::{Crash, Failure, MemoryDisk};

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet (`AlreadyExists` otherwise), for reading and writing.
    CreateNew,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listed {
    /// The name, without its directory. Names that are not UTF-8 are not listed: cairn makes none.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The file's length in bytes; 0 for a directory.
    pub len: u64,
}

/// What a filesystem says of its room, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// All there is.
    pub total: u64,
    /// Free, the part kept for root included.
    pub free: u64,
    /// Free for us.
    pub available: u64,
}

/// A directory tree. Paths are relative to its root, separated by `/`; none may leave it.
pub trait Disk: Send + Sync {
    /// Opens or creates a file.
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory; `AlreadyExists` where the name is taken. Certain after [`Disk::sync_dir`] of its parent.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// The names in a directory ("" is the root), sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>>;
    /// Renames a file, replacing what had the name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file's name; who has it open can go on.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a directory certain.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// The room on the filesystem below.
    fn space(&self) -> io::Result<Space>;
}

/// An open file. All offsets are absolute; there is no cursor.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes; fewer only at the file's end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf`, growing the file where needed.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file's bytes and its length certain (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it by a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Has reads of a range go to the medium itself, where what was written there is synced. A wish: where it cannot be
    /// had they go the usual way.
    fn forget(&self, _range: std::ops::Range<u64>) {}

    /// Reads exactly `buf.len()` bytes; `UnexpectedEof` where the file is shorter.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buf, offset)? {
            n if n == buf.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The whole of a small file; an error where it is longer than `limit` bytes.
pub fn read_small(disk: &dyn Disk, path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Access::Read)?;
    let len = file.len()?;
    if len > limit {
        return Err(io::Error::other(format!("{path} is {len} bytes long, at most {limit} expected")));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces a small file so that after a power cut either the old bytes are there or the new:
/// written beside it, synced, renamed over it, its directory synced.
pub fn replace_small(disk: &dyn Disk, path: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = format!("{path}.new");
    match disk.remove(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = disk.open(&beside, Access::CreateNew)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&beside, path)?;
    disk.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))
}
