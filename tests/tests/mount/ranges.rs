//! `fallocate` and `copy_file_range`: as on another filesystem, but without a byte being copied.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;

use cairn_tests::dice::{Dice, noise};
use cairn_tests::mounted::{Mounted, SmallDisk, run};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
const ZERO_INSIDE: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);
const MODES: [FallocateFlags; 5] =
    [FallocateFlags::empty(), FallocateFlags::KEEP_SIZE, PUNCH, FallocateFlags::ZERO_RANGE, ZERO_INSIDE];
/// A change of the second file, perhaps by what the first holds.
type Way = fn(&File, &File);

const NOBODY: u32 = 65534;

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).expect("there")
}

/// Copies as far as the source goes, in as many calls as it takes.
fn copy(from: &File, from_offset: u64, to: &File, to_offset: u64, len: u64) -> Result<u64, Errno> {
    let mut done = 0;
    while done < len {
        let (mut at, mut to_at) = (from_offset + done, to_offset + done);
        match copy_file_range(from, Some(&mut at), to, Some(&mut to_at), (len - done) as usize)? {
            0 => break,
            copied => done += copied as u64,
        }
    }
    Ok(done)
}

/// Runs of data, as SEEK_DATA and SEEK_HOLE tell them.
fn data_runs(file: &File) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    let mut at = 0;
    while let Ok(start) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(start)).expect("the end is a hole");
        runs.push((start, at));
    }
    runs
}

/// What random changes there are.
#[derive(Clone, Copy)]
struct Changes {
    modes: &'static [FallocateFlags],
    copies: bool,
    /// All offsets are multiples of this.
    unit: u64,
}

/// One random change of one of two files; what it answered.
fn change(dice: &mut Dice, files: &[File; 2], changes: Changes) -> String {
    const LONGEST: u64 = 2 << 20;
    let Changes { modes, copies, unit } = changes;
    let mut place = |n: u64| dice.below(n / unit) * unit;
    let (at, to) = (place(LONGEST), place(LONGEST));
    let len = place(LONGEST / 4) + unit;
    let file = &files[dice.below(2) as usize];
    let other = &files[dice.below(2) as usize];
    match dice.below(10) {
        0..=2 => {
            let bytes: Vec<u8> = noise(dice.roll(), len as usize).iter().map(|b| b | 1).collect();
            format!("write {at}+{len}: {:?}", file.write_all_at(&bytes, at).map_err(|e| e.kind()))
        }
        3 => format!("cut {at}: {:?}", file.set_len(at).map_err(|e| e.kind())),
        n if n >= 7 && copies => {
            format!("copy {at}+{len} to {to}: {:?}", copy(file, at, other, to, len))
        }
        _ => {
            let mode = modes[dice.below(modes.len() as u64) as usize];
            format!("{mode:?} {at}+{len}: {:?}", fallocate(file, mode, at, len))
        }
    }
}

/// Does the same to two files here and two on another filesystem, and has `compare` look at both.
fn twins(seed: u64, changes: Changes, compare: impl Fn(&str, &File, &File)) {
    let m = Mounted::new();
    fs::create_dir(m.beside("other")).expect("a new name");
    let make = |path: &Path| {
        File::create_new(path).expect("new");
        open(path)
    };
    let here = ["a", "b"].map(|name| make(&m.path(name)));
    let there = ["a", "b"].map(|name| make(&m.beside("other").join(name)));
    let mut dice = Dice::new(seed);
    for step in 0..250 {
        let mut same = dice.clone();
        let did = change(&mut dice, &here, changes);
        assert_eq!(did, change(&mut same, &there, changes), "step {step} of seed {seed}");
        if step % 60 == 59 {
            m.sync();
        }
        for (one, other) in here.iter().zip(&there) {
            compare(&format!("step {step} of seed {seed}, {did}"), one, other);
        }
    }
    drop(here);
    m.kill();
    m.take_away();
    m.mount();
    for (name, other) in ["a", "b"].iter().zip(&there) {
        compare("killed and mounted again", &open(&m.path(name)), other);
    }
    m.finish();
}

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().expect("open").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("all of it");
    bytes
}

#[test]
fn ranges_are_reserved_punched_zeroed_and_copied_as_on_another_filesystem() {
    for seed in [1, 2] {
        let changes = Changes { modes: &MODES, copies: true, unit: 1 };
        twins(seed, changes, |when, one, other| assert!(bytes(one) == bytes(other), "{when}"));
    }
}

#[test]
fn holes_are_where_another_filesystem_has_them() {
    // What it reserves or zeroes, ext4 may fill with zeros that count as data; and it copies holes as such.
    let changes = Changes { modes: &[PUNCH], copies: false, unit: 4096 };
    twins(3, changes, |when, one, other| assert_eq!(data_runs(one), data_runs(other), "{when}"));
}

#[test]
fn what_is_zeroed_is_a_hole_and_is_copied_as_one() {
    let m = Mounted::new();
    fs::write(m.path("f"), noise(1, 1 << 20)).expect("written");
    let (file, to) = (open(&m.path("f")), File::create_new(m.path("to")).expect("new"));
    fallocate(&file, ZERO_INSIDE, 100_000, 200_000).expect("zeroed");
    fallocate(&file, FallocateFlags::ZERO_RANGE, 1 << 20, 1 << 20).expect("zeroed behind the end");
    let runs = [(0, 100_000), (300_000, 1 << 20)];
    assert_eq!(data_runs(&file), runs);
    assert_eq!(copy(&file, 0, &to, 0, u64::MAX >> 2), Ok(2 << 20));
    assert_eq!(data_runs(&to), runs);
    m.sync();
    assert_eq!((data_runs(&file), data_runs(&to)), (runs.to_vec(), runs.to_vec()));
    drop((file, to));
    m.finish();
}

#[test]
fn modes_that_are_not_offered_are_refused_and_change_nothing() {
    let m = Mounted::new();
    fs::write(m.path("f"), noise(1, 1 << 20)).expect("written");
    let file = open(&m.path("f"));
    let before = (bytes(&file), file.metadata().expect("open").mtime_nsec());
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE, FallocateFlags::UNSHARE_RANGE]
    {
        assert_eq!(fallocate(&file, mode, 0, 4096), Err(Errno::OPNOTSUPP), "{mode:?}");
    }
    assert_eq!(fallocate(&file, FallocateFlags::empty(), 0, 0), Err(Errno::INVAL));
    assert!(before == (bytes(&file), file.metadata().expect("open").mtime_nsec()));
    // Those that are offered all work on the same mount afterwards: the kernel was not told "never".
    for mode in MODES {
        fallocate(&file, mode, 0, 2 << 20).unwrap_or_else(|e| panic!("{mode:?}: {e}"));
    }
    assert_eq!(file.metadata().expect("open").len(), 2 << 20);
    drop(file);
    m.finish();
}

#[test]
fn what_cannot_be_had_is_not_reserved() {
    let disk = SmallDisk::new(192);
    let m = Mounted::elsewhere(
        disk.path().join("volume"),
        &["--journal-size", "32M", "--segment-size", "4M"],
        &[],
    );
    m.mount();
    let file = File::create(m.path("f")).expect("new");
    assert_eq!(fallocate(&file, FallocateFlags::empty(), 0, 1 << 30), Err(Errno::NOSPC));
    assert_eq!(file.metadata().expect("open").len(), 0);
    fallocate(&file, FallocateFlags::empty(), 0, 16 << 20).expect("there is room");
    assert_eq!(file.metadata().expect("open").len(), 16 << 20);
    drop(file);
    m.finish();
}

#[test]
fn what_a_copy_cannot_be_is_refused_and_the_end_of_a_file_is_its_end() {
    let m = Mounted::new();
    let content = noise(1, 1 << 20);
    fs::write(m.path("f"), &content).expect("written");
    let (file, new) = (open(&m.path("f")), File::create_new(m.path("new")).expect("new"));
    let to = open(&m.path("new"));
    assert_eq!(copy(&file, 0, &file, 4096, 8192), Err(Errno::INVAL), "overlapping");
    assert_eq!(copy(&file, 0, &file, 8192, 8192), Ok(8192), "side by side");
    assert!(bytes(&file)[8192..16384] == content[..8192]);
    assert_eq!(copy(&file, 1 << 20, &to, 0, 4096), Ok(0), "from the end on");
    assert_eq!(copy(&file, 9 << 20, &to, 0, 4096), Ok(0), "from behind it");
    assert_eq!(copy(&file, (1 << 20) - 100, &to, 5000, 4096), Ok(100), "up to the end");
    assert_eq!(to.metadata().expect("open").len(), 5100);
    let tail = bytes(&to);
    assert!(tail[..5000].iter().all(|b| *b == 0) && tail[5000..] == content[(1 << 20) - 100..]);
    assert_eq!(copy(&file, 0, &to, 5100, 1 << 20), Ok(1 << 20), "appended");
    assert!(bytes(&to)[5100..] == bytes(&file)[..]);
    drop((file, new, to));
    m.finish();
}

#[test]
fn a_copy_of_what_was_just_written_outlives_its_source() {
    let m = Mounted::new();
    let content = noise(5, 24 << 20);
    fs::write(m.path("source"), &content).expect("written");
    let to = File::create_new(m.path("copy")).expect("new");
    assert_eq!(copy(&open(&m.path("source")), 0, &to, 0, 24 << 20), Ok(24 << 20));
    drop(to);
    fs::remove_file(m.path("source")).expect("there");
    // Neither was folded: the bytes lie in the journal still.
    m.kill();
    m.take_away();
    m.mount();
    assert!(fs::read(m.path("copy")).expect("there") == content, "after the kill");
    m.sync();
    assert!(fs::read(m.path("copy")).expect("there") == content, "folded");
    m.remount();
    assert!(fs::read(m.path("copy")).expect("there") == content, "mounted again");
    m.finish();
}

#[test]
fn a_copy_of_a_gib_takes_no_room_and_survives_a_kill() {
    const LENGTH: u64 = 1 << 30;
    const BLOCK: usize = 64 << 10;
    let m = Mounted::new();
    let source = File::create_new(m.path("source")).expect("new");
    // No two blocks alike, but each shrinks.
    for block in 0..LENGTH / BLOCK as u64 {
        source.write_all_at(&noise(block, 4096).repeat(BLOCK / 4096), block * BLOCK as u64).expect("written");
    }
    drop(source);
    m.sync();
    let takes = || m.df("stored") + m.df("journal_used") + m.df("metadata");
    let before = takes();
    run("cp", ["--reflink=auto".as_ref(), m.path("source").as_os_str(), m.path("cp").as_os_str()]).ok();
    let to = File::create_new(m.path("copy")).expect("new");
    assert_eq!(copy(&open(&m.path("source")), 0, &to, 0, LENGTH), Ok(LENGTH));
    drop(to);
    m.kill();
    m.take_away();
    m.mount();
    m.sync();
    let grown = takes().saturating_sub(before);
    assert!(grown < LENGTH / 64, "two copies of {LENGTH} bytes take {grown} more");
    for name in ["copy", "cp"] {
        run("cmp", [m.path("source"), m.path(name)]).ok();
    }
    m.finish();
}

#[test]
fn another_users_change_of_a_range_takes_privileges_away_and_stat_says_so() {
    let m = Mounted::with(&cairn_tests::mounted::SMALL, &["suid,allow_other"]);
    fs::write(m.path("source"), noise(1, 1 << 16)).expect("written");
    let ways: [(&str, Way); 5] = [
        ("copied to", |from, to| assert_eq!(copy(from, 0, to, 0, 4096), Ok(4096))),
        ("punched", |_, to| fallocate(to, PUNCH, 0, 4096).expect("punched")),
        ("zeroed", |_, to| fallocate(to, FallocateFlags::ZERO_RANGE, 0, 4096).expect("zeroed")),
        ("reserved", |_, to| fallocate(to, FallocateFlags::empty(), 0, 1 << 20).expect("reserved")),
        ("cut", |_, to| to.set_len(10).expect("cut")),
    ];
    for (name, way) in ways {
        let path = m.path(name);
        fs::write(&path, noise(2, 1 << 16)).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o6777)).expect("its owner");
        let mode = || fs::metadata(&path).expect("there").mode() & 0o7777;
        let (from, to) = (open(&m.path("source")), open(&path));
        way(&from, &to);
        assert_eq!(mode(), 0o6777, "{name} by root");
        thread::scope(|scope| {
            scope.spawn(|| {
                // Of this thread alone, which ends.
                setfsgid(Gid::from_raw(NOBODY));
                setfsuid(Uid::from_raw(NOBODY));
                way(&from, &to);
            });
        });
        assert_eq!(mode(), 0o777, "{name} by nobody");
        drop((from, to));
    }
    m.finish();
}
