//! The real disk: a directory of a filesystem below.
//!
//! Architecture Invariant: every path is resolved by `openat2` beneath the root directory's
//! descriptor, through no symbolic link; the root's own path is used once, to open it. Whoever can
//! write into the store can thus not make us write anywhere else.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, PosixFadviseAdvice, ResolveFlag, openat2, posix_fadvise, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use super::{Access, Disk, DiskFile, Listed, Space};

/// A directory tree of the filesystem below.
#[derive(Debug)]
pub struct FileDisk {
    root: OwnedFd,
}

impl FileDisk {
    /// Opens the directory that becomes the tree's root. Symbolic links on the way to it are followed.
    pub fn open(root: &Path) -> io::Result<FileDisk> {
        let root = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(root)?;
        Ok(FileDisk { root: root.into() })
    }

    fn resolve(&self, path: &str, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let beneath = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(beneath);
        uninterrupted(|| openat2(&self.root, path, how))
    }

    fn directory(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { checked(path)? };
        self.resolve(path, flags | OFlag::O_DIRECTORY, Mode::empty())
    }

    /// The directory that holds a name, good for the `*at` calls only, and the name in it.
    fn parent<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let (dir, name) = split(checked(path)?);
        Ok((self.directory(dir, OFlag::O_PATH)?, name))
    }
}

impl Disk for FileDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let (flags, mode) = match access {
            Access::Read => (OFlag::O_RDONLY, Mode::empty()),
            Access::Write => (OFlag::O_RDWR, Mode::empty()),
            Access::CreateNew => {
                (OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL, Mode::from_bits_truncate(0o600))
            }
        };
        // A pipe in a file's place does not keep us waiting for its other end.
        let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = File::from(self.resolve(checked(path)?, flags, mode)?);
        match file.metadata()?.file_type() {
            kind if kind.is_file() => Ok(Arc::new(RealFile { file })),
            kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not a file"))),
        }
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        uninterrupted(|| mkdirat(&dir, name, Mode::from_bits_truncate(0o700)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        let dir = self.directory(dir, OFlag::O_RDONLY)?;
        let mut listed = Vec::new();
        // The magic link leads to the very directory that `dir` has open, whatever became of its name.
        for entry in fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let about = match entry.metadata() {
                Ok(about) => about,
                // Removed since it was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let is_dir = about.is_dir();
            listed.push(Listed { name, is_dir, len: if is_dir { 0 } else { about.len() } });
        }
        listed.sort_unstable();
        Ok(listed)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        uninterrupted(|| renameat(&from_dir, from_name, &to_dir, to_name))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        uninterrupted(|| unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let dir = self.directory(dir, OFlag::O_RDONLY)?;
        uninterrupted(|| fsync(&dir))
    }

    fn space(&self) -> io::Result<Space> {
        let about = uninterrupted(|| fstatvfs(self.root.as_fd()))?;
        let block = about.fragment_size();
        let bytes = |blocks: u64| blocks.saturating_mul(block);
        Ok(Space {
            total: bytes(about.blocks()),
            free: bytes(about.blocks_free()),
            available: bytes(about.blocks_available()),
        })
    }
}

/// An open file of the filesystem below. The standard library retries its calls where a signal
/// interrupts them, except for the read.
#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read_at(&mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn forget(&self, range: std::ops::Range<u64>) {
        let (offset, len) = (range.start as i64, (range.end - range.start) as i64);
        // A filesystem without a page cache has nothing to forget.
        let _ = posix_fadvise(&self.file, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

/// Repeats a call that a signal, or for `openat2` a rename in its way, cut short.
fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            result => return Ok(result?),
        }
    }
}

/// The path, if it names something beneath the root in the one way we write it.
pub(super) fn checked(path: &str) -> io::Result<&str> {
    if path.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains('\0')) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path:?} is no path within the disk"),
        ));
    }
    Ok(path)
}

/// A path's directory ("" is the root) and its name in there.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
