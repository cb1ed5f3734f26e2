//! What is looked at before a mount detaches, so that the person who typed it gets a sentence.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use crate::control::Client;
use crate::failure::{self, Failure};
use crate::mountinfo::{self, Mount};
use crate::places::cannot_reach;
use crate::unmount::unmount;

const NO_FUSERMOUNT: &str = "fusermount3 is needed to mount without being root: install the package fuse3";

/// Resolves both and makes sure that, as far as can be told without the volume's lock, the one can be mounted at the
/// other. Returns them absolute and without links.
pub(crate) fn before_mount(dir: &Path, mountpoint: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    let dir = volume_directory(dir)?;
    clear_dead_mount(&dir)?;
    let mountpoint = mount_directory(mountpoint)?;
    not_nested(&dir, &mountpoint)?;
    not_mounted(&mounts()?, &dir, &mountpoint)?;
    fuse_there()?;
    fusermount_there()?;
    Ok((dir, mountpoint))
}

fn mounts() -> Result<Vec<Mount>, Failure> {
    mountinfo::read().map_err(|e| Failure::new(format!("/proc/self/mountinfo: {e}")))
}

/// A daemon that was killed leaves a mount that answers nothing. It can only have been this volume's, so it is taken away.
fn clear_dead_mount(dir: &Path) -> Result<(), Failure> {
    let mounts = mounts()?;
    let Some(mount) = mountinfo::of_volume(&mounts, dir) else { return Ok(()) };
    // Not `stat`: what that tells the kernel remembers.
    if statvfs(&mount.mountpoint).err() != Some(Errno::ENOTCONN) {
        return Ok(());
    }
    let at = mount.mountpoint.display();
    unmount(&mount.mountpoint, true).map_err(|e| {
        Failure::new(format!("{at} is a mount whose daemon has died, and could not be taken away ({e:?}): do it with `umount -l {at}`"))
    })?;
    eprintln!("cairn: took away {at}, a mount whose daemon had died");
    Ok(())
}

fn volume_directory(dir: &Path) -> Result<PathBuf, Failure> {
    let no_store = |message: String| Failure::no_store(message);
    let resolved = dir.canonicalize().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            no_store(format!("{0} does not exist: make a volume with `mkfs.cairn {0}`", dir.display()))
        }
        _ => Failure::new(cannot_reach(dir, &e)),
    })?;
    if !resolved.is_dir() {
        return Err(no_store(format!("{} is not a directory, so it is no cairn volume", dir.display())));
    }
    if resolved.to_str().is_none_or(|s| s.contains('\n')) {
        return Err(Failure::new(format!(
            "{}: a volume's path has to be UTF-8 on one line to be mounted: rename the directory",
            dir.display()
        )));
    }
    Ok(resolved)
}

fn mount_directory(mountpoint: &Path) -> Result<PathBuf, Failure> {
    let reached = mountpoint.canonicalize().and_then(|path| fs::metadata(&path).map(|found| (path, found)));
    let (path, found) = reached.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Failure::new(format!(
            "the mountpoint {0} does not exist: make it with `mkdir {0}`",
            mountpoint.display()
        )),
        _ => Failure::new(cannot_reach(mountpoint, &e)),
    })?;
    match found.is_dir() {
        true => Ok(path),
        false => Err(Failure::new(format!(
            "the mountpoint {} is not a directory: name an empty directory",
            mountpoint.display()
        ))),
    }
}

/// Under its own mount, the volume's daemon would wait for itself.
fn not_nested(dir: &Path, mountpoint: &Path) -> Result<(), Failure> {
    if dir.starts_with(mountpoint) {
        return Err(Failure::new(format!(
            "the volume {} would lie under its own mountpoint {}: name a mountpoint outside of it",
            dir.display(),
            mountpoint.display()
        )));
    }
    if mountpoint.starts_with(dir) {
        return Err(Failure::new(format!(
            "the mountpoint {} lies in the volume's own directory {}: name one outside of it",
            mountpoint.display(),
            dir.display()
        )));
    }
    Ok(())
}

fn not_mounted(mounts: &[Mount], dir: &Path, mountpoint: &Path) -> Result<(), Failure> {
    if let Some(mount) = mountinfo::of_volume(mounts, dir) {
        return Err(Failure::locked(format!(
            "{} is mounted at {at} already{}: use it there, or unmount it with `cairn umount {at}`",
            dir.display(),
            by_whom(dir),
            at = mount.mountpoint.display()
        )));
    }
    match mountinfo::at(mounts, mountpoint) {
        Some(mount) if mount.is_fuse() => Err(Failure::new(format!(
            "the mountpoint {} is busy: {} is mounted there; unmount it, or name another directory",
            mountpoint.display(),
            mount.source.display()
        ))),
        _ => Ok(()),
    }
}

/// ` by process N`, if its daemon says so.
fn by_whom(dir: &Path) -> String {
    let info = Client::connect(dir).ok().flatten().and_then(|mut daemon| daemon.call("info").ok());
    match info.and_then(|answer| answer["info"]["pid"].as_u64()) {
        Some(pid) => format!(" by process {pid}"),
        None => String::new(),
    }
}

/// Whoever is not root mounts by way of `fusermount3`.
fn fusermount_there() -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/bin", "/usr/bin", "/sbin"].map(PathBuf::from);
    let there = || std::env::split_paths(&path).chain(usual).any(|dir| dir.join("fusermount3").exists());
    match nix::unistd::geteuid().is_root() || there() {
        true => Ok(()),
        false => Err(Failure::new(NO_FUSERMOUNT)),
    }
}

fn fuse_there() -> Result<(), Failure> {
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(e) => Err(fuse_missing(&e)),
    }
}

fn fuse_missing(error: &io::Error) -> Failure {
    Failure::new(match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            "/dev/fuse is not there: load the kernel's module with `modprobe fuse` as root (in a container, pass the device in: `--device /dev/fuse`)".to_string()
        }
        Some(Errno::EACCES | Errno::EPERM) => {
            "/dev/fuse: permission denied: mount as root, or have root give you access to it".to_string()
        }
        _ => format!("/dev/fuse: {error}"),
    })
}

/// A sentence for a mount that the kernel, or `fusermount3`, refused.
pub(crate) fn mount_refused(mountpoint: &Path, error: &io::Error) -> Failure {
    let said = error.to_string();
    let root = nix::unistd::geteuid().is_root();
    let why = if said.contains("user_allow_other") {
        "allow_other is not permitted to users: have root add the line user_allow_other to /etc/fuse.conf, or leave the option out".to_string()
    } else if error.kind() == io::ErrorKind::NotFound && !root {
        NO_FUSERMOUNT.to_string()
    } else if root
        && (said.contains("EPERM")
            || said.contains("Operation not permitted")
            || error.kind() == io::ErrorKind::NotFound)
    {
        "this process may not mount, though it is root: a container needs the capability SYS_ADMIN for it"
            .to_string()
    } else if said.contains("EBUSY") {
        "the mountpoint is busy: unmount what is there, or name another directory".to_string()
    } else {
        said.trim().to_string()
    };
    Failure { code: failure::FAILED, message: format!("cannot mount at {}: {why}", mountpoint.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_not_mounted_over_or_into_itself() {
        let nested = |dir: &str, at: &str| not_nested(Path::new(dir), Path::new(at)).is_err();
        assert!(nested("/a", "/a") && nested("/a/b", "/a") && nested("/a", "/a/b"));
        assert!(!nested("/a", "/ab") && !nested("/a/b", "/a/c"));
    }

    #[test]
    fn what_is_mounted_already_is_named() {
        let mounts = [Mount {
            device: (0, 1),
            mountpoint: "/mnt".into(),
            fstype: "fuse.cairn".into(),
            source: "/srv/v".into(),
        }];
        let again = not_mounted(&mounts, Path::new("/srv/v"), Path::new("/other")).expect_err("mounted");
        assert!(again.code == failure::LOCKED && again.message.contains("/mnt"), "{again}");
        let busy = not_mounted(&mounts, Path::new("/srv/w"), Path::new("/mnt")).expect_err("busy");
        assert!(busy.message.contains("/srv/v"), "{busy}");
        not_mounted(&mounts, Path::new("/srv/w"), Path::new("/other")).expect("free");
    }

    #[test]
    fn what_is_not_there_is_said_with_what_to_do() {
        let missing = volume_directory(Path::new("/nowhere/at/all")).expect_err("missing");
        assert!(missing.code == failure::NO_STORE && missing.message.contains("mkfs.cairn"), "{missing}");
        let file = mount_directory(Path::new("/proc/self/status")).expect_err("a file");
        assert!(file.message.contains("not a directory"), "{file}");
        let missing = mount_directory(Path::new("/nowhere/at/all")).expect_err("missing");
        assert!(missing.message.contains("mkdir"), "{missing}");
    }
}
