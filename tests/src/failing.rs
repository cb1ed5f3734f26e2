//! A filesystem in the kernel on a disk that fails: XFS on a loop device whose last blocks can be taken away. Reading them
//! is an I/O error then, and so is writing them.
//!
//! The device's file lies in memory. Its blocks are taken away by making it shorter and sealing it against growth: what lies
//! behind its end the loop driver cannot read, and cannot write. Bytes of a file get there by `reflink`: they are written
//! into a file that has the device's last blocks already, and then these blocks take the place of those that the file had.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, PosixFadviseAdvice, SealFlag, fcntl, posix_fadvise};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tempfile::TempDir;

use crate::mounted::run;

/// Bytes at the device's end that can go bad.
const TAIL: u64 = 16 << 20;
/// What fiemap counts in.
const SECTOR: u64 = 512;
/// What can be put elsewhere.
const BLOCK: u64 = 4096;

/// An extent of a file: where in the file, and where on the device.
type Extent = (Range<u64>, Range<u64>);

/// A disk some of whose blocks can go bad. Unmounted when it goes.
pub struct FailingDisk {
    root: TempDir,
    image: File,
    /// The bytes of `filler` that have the device's last blocks, and where on the device these begin.
    tail: Range<u64>,
    device: u64,
    /// What lies there. Open, so that nobody else gets these blocks when a file is moved.
    lost: Vec<File>,
}

impl FailingDisk {
    /// An empty one of so many MiB; XFS wants 300.
    #[track_caller]
    pub fn new(mib: u64) -> FailingDisk {
        let root = TempDir::new().expect("a temporary directory");
        let name = CString::new("disk").expect("no zeros");
        let image = memfd_create(name.as_c_str(), MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC);
        let image = File::from(image.expect("a file in memory"));
        image.set_len(mib << 20).expect("a sparse file");
        let at = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
        let device = run("losetup", ["-f", "--show", &at]).ok().trim().to_owned();
        let made = run("mkfs.xfs", ["-q", "-f", "-m", "reflink=1", &device]);
        fs::create_dir(root.path().join("disk")).expect("a new name");
        let mut disk = FailingDisk { root, image, tail: 0..0, device: 0, lost: Vec::new() };
        let nothing: Option<&str> = None;
        let mounted = mount(Some(device.as_str()), &disk.path(), Some("xfs"), MsFlags::empty(), nothing);
        // From here on it is detached by itself when it is unmounted.
        run("losetup", ["-d", &device]);
        made.ok();
        mounted.unwrap_or_else(|e| panic!("{device} cannot be mounted: {e}"));
        disk.take_tail();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.root.path().canonicalize().expect("there").join("disk")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Has `filler` take all there is, and give back all but the last.
    fn take_tail(&mut self) {
        let filler = self.filler();
        File::create(&filler).expect("a new name");
        let space = nix::sys::statvfs::statvfs(&self.path()).expect("mounted");
        let free = space.blocks_available() * space.fragment_size();
        edit(&filler, &[&format!("falloc 0 {}", free - (4 << 20))]);
        let (bytes, blocks) = extents(&filler).into_iter().max_by_key(|(_, at)| at.end).expect("some");
        assert!(bytes.end - bytes.start >= TAIL, "the last free blocks are too few: {bytes:?}");
        self.tail = bytes.end - TAIL..bytes.end;
        self.device = blocks.end - TAIL;
        let behind = fs::metadata(&filler).expect("there").len() - bytes.end;
        edit(&filler, &[&format!("fpunch 0 {}", self.tail.start)]);
        if behind > 0 {
            edit(&filler, &[&format!("fpunch {} {behind}", bytes.end)]);
        }
    }

    /// Puts some bytes of a file, whole blocks, where they will go bad.
    #[track_caller]
    pub fn lose(&mut self, path: &Path, range: Range<u64>) {
        let (filler, len) = (self.filler(), range.end - range.start);
        assert!(range.start.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK), "{range:?} are not blocks");
        assert!(self.tail.start + len <= self.tail.end, "no more blocks can go bad");
        let file = File::open(path).expect("there");
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, range.start).expect("read");
        let from = self.tail.start;
        let writer = File::options().write(true).open(&filler).expect("there");
        writer.write_all_at(&bytes, from).and_then(|()| writer.sync_all()).expect("written");
        let reflink = format!("reflink {} {from} {} {len}", filler.display(), range.start);
        edit(path, &[&reflink]);
        // Where two files have a block, writing one of them takes another block.
        edit(&filler, &[&format!("fpunch {from} {len}")]);
        self.tail.start += len;
        assert!(self.is_where_it_fails(path), "{} does not lie there", path.display());
        self.lost.push(file);
    }

    /// The blocks go bad, and nothing of them is in the page cache.
    #[track_caller]
    pub fn fail(&self) {
        for file in &self.lost {
            file.sync_all().expect("synced");
        }
        self.image.set_len(self.device).expect("shorter");
        fcntl(&self.image, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).expect("sealed");
        for file in &self.lost {
            posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("forgotten");
        }
    }

    /// Whether something of a file lies in the blocks that can go bad.
    #[track_caller]
    pub fn is_where_it_fails(&self, path: &Path) -> bool {
        extents(path).iter().any(|(_, at)| at.end > self.device)
    }
}

/// Has xfs_io do something to a file.
#[track_caller]
fn edit(path: &Path, commands: &[&str]) {
    let commands = commands.iter().chain(&["fsync"]).flat_map(|c| [OsStr::new("-c"), OsStr::new(*c)]);
    let ran = run("xfs_io", commands.chain([path.as_os_str()]));
    // It says so only.
    assert!(ran.code == 0 && ran.err.is_empty(), "{}: {}", ran.line, ran.err);
}

/// Where a file lies.
#[track_caller]
fn extents(path: &Path) -> Vec<Extent> {
    let arguments = ["-r", "-c", "fiemap"].map(OsStr::new);
    let text = run("xfs_io", arguments.into_iter().chain([path.as_os_str()])).ok();
    // 0: [0..2047]: 137648..139695
    text.lines()
        .filter_map(|line| {
            let (bytes, blocks) = line.split_once(": [")?.1.split_once("]: ")?;
            Some((numbers(bytes)?, numbers(blocks)?))
        })
        .collect()
}

fn numbers(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.trim().split_once("..")?;
    Some(first.parse::<u64>().ok()? * SECTOR..(last.parse::<u64>().ok()? + 1) * SECTOR)
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        self.lost.clear();
        // Lazily: where a test fails a daemon may be there still. The device goes when the last has let go.
        if let Err(error) = umount2(&self.path(), MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
    }
}
