//! From what a person names (a mountpoint, something in it, or the volume's directory) to the volume.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::failure::Failure;
use crate::mountinfo::{self, Mount};

/// A volume that was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Where it is mounted, if it is.
    pub(crate) mountpoint: Option<PathBuf>,
}

/// Finds the volume that `path` lies in, or whose directory it is. It need not be one: that shows when it is used.
pub(crate) fn find(path: &Path) -> Result<Place, Failure> {
    resolve(path, mountinfo::containing)
}

/// Like [`find`], but a mount has to be named itself, not something in it.
pub(crate) fn find_named(path: &Path) -> Result<Place, Failure> {
    resolve(path, mountinfo::at)
}

/// `look` finds the mount for a path that is resolved.
fn resolve(path: &Path, look: for<'a> fn(&'a [Mount], &Path) -> Option<&'a Mount>) -> Result<Place, Failure> {
    let mounts = mountinfo::read().map_err(|e| Failure::new(format!("/proc/self/mountinfo: {e}")))?;
    // First without touching what may be a mount whose daemon is dead.
    if let Some(place) = untouched(path).and_then(|path| mounted_at(&mounts, &path)) {
        return Ok(place);
    }
    let path = path.canonicalize().map_err(|e| Failure::new(cannot_reach(path, &e)))?;
    let found = look(&mounts, &path);
    Ok(choose(&mounts, path, found))
}

/// A volume's directory comes before what it lies in: a volume may be kept on another one.
fn choose(mounts: &[Mount], path: PathBuf, found: Option<&Mount>) -> Place {
    match mountinfo::of_volume(mounts, &path).or(found.filter(|m| m.is_cairn())) {
        Some(mount) => place(mount),
        None => Place { dir: path, mountpoint: None },
    }
}

fn mounted_at(mounts: &[Mount], path: &Path) -> Option<Place> {
    mountinfo::at(mounts, path).filter(|m| m.is_cairn()).map(place)
}

fn place(mount: &Mount) -> Place {
    Place { dir: mount.source.clone(), mountpoint: Some(mount.mountpoint.clone()) }
}

/// `path` in full, its links resolved but for the last component's.
fn untouched(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.to_path_buf())
        .map(|parent| if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent })?
        .canonicalize()
        .ok()
        .map(|parent| parent.join(path.file_name().unwrap_or_default()))
}

/// That nobody has the volume in `dir` mounted, with `hint` behind it; or that there is none.
pub(crate) fn not_mounted(dir: &Path, hint: &str) -> Failure {
    match cairn_volume::superblock(dir) {
        Ok(_) => Failure::new(format!("{} is not mounted: {hint}", dir.display())),
        Err(e) => e.into(),
    }
}

/// Why `path` could not be resolved, and what to do.
pub(crate) fn cannot_reach(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => format!("{path} does not exist"),
        Some(Errno::EACCES | Errno::EPERM) => {
            format!("{path}: permission denied: run this as a user who may enter it")
        }
        Some(Errno::ENOTCONN) => {
            format!(
                "{path} is a mount whose daemon has died: take it away with `umount {path}`, then try again"
            )
        }
        _ => format!("{path}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(mountpoint: &str, fstype: &str, source: &str) -> Mount {
        Mount { device: (0, 9), mountpoint: mountpoint.into(), fstype: fstype.into(), source: source.into() }
    }

    #[test]
    fn a_volume_is_found_by_its_mount_by_what_is_in_it_and_by_its_directory() {
        let mounts = [
            mount("/", "ext4", "/dev/sda"),
            mount("/mnt/c", "fuse.cairn", "/srv/v"),
            mount("/mnt/c/sub", "tmpfs", "none"),
        ];
        let mounted = Place { dir: "/srv/v".into(), mountpoint: Some("/mnt/c".into()) };
        let choose =
            |path: &str| choose(&mounts, path.into(), mountinfo::containing(&mounts, Path::new(path)));
        assert_eq!(mounted_at(&mounts, Path::new("/mnt/c")), Some(mounted.clone()));
        assert_eq!(choose("/mnt/c/deep"), mounted);
        assert_eq!(choose("/srv/v"), mounted);
        assert_eq!(choose("/mnt/c/sub/x").mountpoint, None);
        assert_eq!(choose("/srv/other"), Place { dir: "/srv/other".into(), mountpoint: None });
    }

    #[test]
    fn the_last_component_is_left_alone() {
        assert_eq!(untouched(Path::new("/tmp/../nowhere")), Some("/nowhere".into()));
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(untouched(Path::new("x")), Some(here.join("x")));
        assert_eq!(untouched(Path::new("/")), None);
    }
}
