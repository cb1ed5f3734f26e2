//! Filesystems in the kernel whose power can be cut: XFS or ext4 on a loop device. What they were told to make certain is
//! there afterwards, by their log; of the rest, whatever had not reached the device is not.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::mounted::{run, wait_until};

/// A filesystem whose power can be cut. Unmounted when it goes.
pub struct Cuttable {
    root: TempDir,
    kind: &'static str,
    device: String,
}

impl Cuttable {
    /// An empty one of so many MiB: `xfs` or `ext4`.
    #[track_caller]
    pub fn new(kind: &'static str, mib: u64) -> Cuttable {
        let root = TempDir::new().expect("a temporary directory");
        let image = root.path().join("image");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("a sparse file");
        let force = if kind == "xfs" { "-f" } else { "-F" };
        run(&format!("mkfs.{kind}"), [OsStr::new("-q"), OsStr::new(force), image.as_os_str()]).ok();
        fs::create_dir(root.path().join("disk")).expect("a new name");
        let device = run("losetup", [OsStr::new("-f"), OsStr::new("--show"), image.as_os_str()]).ok();
        let disk = Cuttable { root, kind, device: device.trim().to_owned() };
        disk.plug_in();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.root.path().canonicalize().expect("there").join("disk")
    }

    /// Cuts the power: from here on nothing reaches the device.
    #[track_caller]
    pub fn cut(&self) {
        let disk = self.path();
        // Without -f: its log is not written out first.
        run("xfs_io", ["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), disk.as_os_str()]).ok();
    }

    /// The power is back: mounts it anew, and it replays its log. Nobody may use it any more.
    #[track_caller]
    pub fn replug(&self) {
        // Not lazily: while the old mount lives, a new one would be the same again. A process that was killed lets go soon.
        let mut last = None;
        wait_until("nobody uses the disk whose power was cut", || {
            last = umount2(&self.path(), MntFlags::empty()).err();
            last != Some(Errno::EBUSY)
        });
        assert_eq!(last, None, "{} is unmounted", self.path().display());
        self.plug_in();
    }

    #[track_caller]
    fn plug_in(&self) {
        let nothing: Option<&str> = None;
        mount(Some(self.device.as_str()), &self.path(), Some(self.kind), MsFlags::empty(), nothing)
            .unwrap_or_else(|e| panic!("{} ({}) cannot be mounted: {e}", self.device, self.kind));
    }
}

impl Drop for Cuttable {
    fn drop(&mut self) {
        // Lazily: where a test fails a daemon may be there still. The device goes when the last has let go.
        if let Err(error) = umount2(&self.path(), MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
        run("losetup", ["-d", &self.device]);
    }
}
