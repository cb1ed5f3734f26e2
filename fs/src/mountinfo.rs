//! What is mounted where: `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line of mountinfo, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Major and minor number of the filesystem's device: what tells two mounts at one place apart.
    pub(crate) device: (u64, u64),
    /// Where it is mounted.
    pub(crate) mountpoint: PathBuf,
    /// Its type, with the subtype: `ext4`, `fuse.cairn`.
    pub(crate) fstype: OsString,
    /// What is mounted: for a cairn volume its directory, absolute.
    pub(crate) source: PathBuf,
}

impl Mount {
    /// Whether a cairn daemon serves it.
    pub(crate) fn is_cairn(&self) -> bool {
        self.fstype == "fuse.cairn"
    }

    /// Whether some FUSE daemon serves it.
    pub(crate) fn is_fuse(&self) -> bool {
        self.fstype == "fuse" || self.fstype.as_bytes().starts_with(b"fuse.")
    }
}

/// Every mount of this namespace, in the order they were made.
pub(crate) fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The topmost mount at exactly `mountpoint`.
pub(crate) fn at<'a>(mounts: &'a [Mount], mountpoint: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|m| m.mountpoint == mountpoint)
}

/// Where the volume in `dir` is mounted.
pub(crate) fn of_volume<'a>(mounts: &'a [Mount], dir: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|m| m.is_cairn() && m.source == dir)
}

/// The mount that `path` (absolute, without links) lies in.
pub(crate) fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    // `max_by_key` takes the last of equals: the one mounted on top.
    mounts.iter().filter(|m| path.starts_with(&m.mountpoint)).max_by_key(|m| m.mountpoint.as_os_str().len())
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mountpoint options [optional fields] - fstype source super-options`; `None` for what does not
/// look like it.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let device = fields.nth(2)?;
    let mountpoint = fields.nth(1)?;
    fields.find(|f| *f == b"-")?;
    let fstype = fields.next()?;
    let source = fields.next()?;
    Some(Mount {
        device: parse_device(device)?,
        mountpoint: unescape(mountpoint).into(),
        fstype: unescape(fstype),
        source: unescape(source).into(),
    })
}

fn parse_device(field: &[u8]) -> Option<(u64, u64)> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match octal(rest) {
            Some(byte) => {
                plain.push(byte);
                rest = &rest[4..];
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

/// The byte that `\ooo` at the start of `text` stands for.
fn octal(text: &[u8]) -> Option<u8> {
    let [b'\\', digits @ ..] = text.get(..4)? else { return None };
    digits.iter().try_fold(0_u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        40 22 0:30 / /mnt rw - tmpfs none rw\n\
        41 40 0:52 / /mnt/my\\040cairn rw,nosuid master:3 propagate_from:2 - fuse.cairn /srv/a\\134b\\011c rw,user_id=0\n\
        42 40 0:53 / /mnt/other rw - fuse.sshfs joe@host: rw\n\
        nonsense\n\
        43 40 0:54 / /mnt/other rw - fuse.cairn /srv/v rw\n";

    #[test]
    fn a_line_is_read_with_its_escapes() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 5);
        assert_eq!(
            mounts[2],
            Mount {
                device: (0, 52),
                mountpoint: "/mnt/my cairn".into(),
                fstype: "fuse.cairn".into(),
                source: "/srv/a\\b\tc".into(),
            }
        );
        assert!(mounts[2].is_cairn() && mounts[3].is_fuse() && !mounts[3].is_cairn() && !mounts[1].is_fuse());
    }

    #[test]
    fn the_mount_on_top_is_found() {
        let mounts = parse(TEXT);
        assert_eq!(at(&mounts, Path::new("/mnt/other")).map(|m| m.device.1), Some(54));
        assert_eq!(at(&mounts, Path::new("/mnt/none")), None);
        assert_eq!(of_volume(&mounts, Path::new("/srv/v")).map(|m| m.device.1), Some(54));
        assert_eq!(of_volume(&mounts, Path::new("/dev/root")), None);
    }

    #[test]
    fn a_path_lies_in_the_longest_mount() {
        let mounts = parse(TEXT);
        let device = |path: &str| containing(&mounts, Path::new(path)).map(|m| m.device.1);
        assert_eq!(device("/mnt/other/deep/down"), Some(54));
        assert_eq!(device("/mnt/otherwise"), Some(30));
        assert_eq!(device("/home"), Some(0));
    }

    #[test]
    fn a_backslash_that_escapes_nothing_stays() {
        assert_eq!(unescape(b"a\\9b\\04"), OsString::from("a\\9b\\04"));
        assert_eq!(unescape(b"\\400"), OsString::from("\\400"));
    }
}
