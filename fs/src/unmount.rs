//! Taking a mount away.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// Why a mount could not be taken away.
#[derive(Debug)]
pub(crate) enum UnmountError {
    /// Files are open there, or somebody's working directory is.
    Busy,
    /// Nothing is mounted there (any more).
    NotMounted,
    /// Anything else, as a sentence.
    Other(String),
}

/// Unmounts `mountpoint`; `lazy` takes it out of the tree at once and leaves open files to their users.
///
/// Whoever may not unmount goes through `fusermount3`, as the mount did.
pub(crate) fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), UnmountError> {
    let lazily = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(mountpoint, MntFlags::UMOUNT_NOFOLLOW | lazily) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(UnmountError::Busy),
        Err(Errno::EINVAL | Errno::ENOENT) => Err(UnmountError::NotMounted),
        Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => by_fusermount(mountpoint, lazy),
        Err(e) => Err(UnmountError::Other(e.desc().to_string())),
    }
}

fn by_fusermount(mountpoint: &Path, lazy: bool) -> Result<(), UnmountError> {
    let how = if lazy { "-uz" } else { "-u" };
    let output = Command::new("fusermount3")
        .args([OsStr::new(how), OsStr::new("--"), mountpoint.as_os_str()])
        .env("LC_ALL", "C")
        .output()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => UnmountError::Other(
                "fusermount3 is needed to unmount without being root: install the package fuse3".to_string(),
            ),
            _ => UnmountError::Other(format!("fusermount3: {e}")),
        })?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    match output.status.success() {
        true => Ok(()),
        false if said.contains("busy") => Err(UnmountError::Busy),
        false if said.contains("not found in") || said.contains("not mounted") => {
            Err(UnmountError::NotMounted)
        }
        false => Err(UnmountError::Other(said)),
    }
}
