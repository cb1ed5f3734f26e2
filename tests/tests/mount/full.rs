//! A disk that is full: `ENOSPC` at `write`, deleting still works, and nothing is lost.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, SmallDisk, wait_until};
use rustix::io::Errno;

use crate::worker::Worker;

const FILE: usize = 1 << 20;
const MKFS: [&str; 4] = ["--journal-size", "32M", "--segment-size", "4M"];

fn write(path: &Path, seed: u64) -> io::Result<()> {
    File::create(path)?.write_all(&noise(seed, FILE))
}

/// Writes files until one is refused, which must be for want of room; how many there are.
fn fill(m: &Mounted, from: u64) -> u64 {
    for seed in from..from + 1000 {
        if let Err(error) = write(&m.path(seed.to_string()), seed) {
            assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC), "after {seed} files: {error}");
            // The part of it that was acknowledged is there.
            match fs::read(m.path(seed.to_string())) {
                Ok(found) => assert!(noise(seed, FILE).starts_with(&found), "a part of file {seed}"),
                Err(error) => assert_eq!(Errno::from_io_error(&error), Some(Errno::NOENT)),
            }
            return seed;
        }
    }
    panic!("a small disk takes a GiB of noise");
}

fn all_there(m: &Mounted, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let found = fs::read(m.path(seed.to_string())).unwrap_or_else(|e| panic!("file {seed}: {e}"));
        assert!(found == noise(seed, FILE), "file {seed} is not what was written");
    }
}

#[test]
fn a_full_disk_is_enospc_at_write_and_deleting_makes_room() {
    let disk = SmallDisk::new(192);
    let m = Mounted::elsewhere(disk.path().join("volume"), &MKFS, &[]);
    m.mount();
    let count = fill(&m, 0);
    assert!(count > 30, "only {count} MiB fit on 192 MiB");
    all_there(&m, 0..count);
    // Full for the next one too, and at once.
    assert_eq!(crate::errno(write(&m.path("late"), 5000)), Errno::NOSPC);
    // What adds nothing works all the same.
    fs::set_permissions(m.path("0"), fs::Permissions::from_mode(0o600)).expect("chmod on a full disk");
    for seed in (0..count).step_by(2) {
        fs::remove_file(m.path(seed.to_string())).unwrap_or_else(|e| panic!("removing file {seed}: {e}"));
    }
    fs::remove_file(m.path(count.to_string()))
        .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
        .expect("removed");
    all_there(&m, (1..count).step_by(2));
    m.remount();
    all_there(&m, (1..count).step_by(2));
    m.unmount();
    m.fsck();
    // A pack goes when nothing in it is used: with the rest of the files all do.
    m.mount();
    for seed in (1..count).step_by(2) {
        fs::remove_file(m.path(seed.to_string())).expect("there");
    }
    m.sync();
    let again = fill(&m, 10_000) - 10_000;
    assert!(again > count / 2, "{count} files fit at first, {again} after all were removed");
    all_there(&m, 10_000..10_000 + again);
    m.remount();
    all_there(&m, 10_000..10_000 + again);
    m.finish();
    drop(disk);
}

#[test]
fn regression_the_journal_leaves_a_small_disk_to_the_files() {
    let disk = SmallDisk::new(192);
    // The defaults: a journal of up to 512 MiB, 64 of them made at once.
    let m = Mounted::elsewhere(disk.path().join("volume"), &[], &[]);
    m.mount();
    let count = fill(&m, 0);
    // An eighth of the files is parity.
    assert!(count > 60, "only {count} MiB fit beside the journal");
    all_there(&m, 0..count);
    m.finish();
    drop(disk);
}

#[test]
fn a_disk_that_others_fill_loses_nothing() {
    let disk = SmallDisk::new(192);
    let m = Mounted::elsewhere(disk.path().join("volume"), &MKFS, &[]);
    m.mount();
    for seed in 0..20 {
        write(&m.path(seed.to_string()), seed).expect("there is room");
    }
    let filler = disk.path().join("filler");
    let mut other = File::create(&filler).expect("a new name");
    while other.write_all(&[7; 1 << 16]).is_ok() {}
    // Half of what was written is still in the journal, most likely.
    assert_eq!(
        crate::errno((100..200).try_for_each(|seed| write(&m.path(seed.to_string()), seed))),
        Errno::NOSPC
    );
    all_there(&m, 0..20);
    fs::remove_file(m.path("0")).expect("deleting works");
    // Whatever that cannot fold says so, and keeps it.
    m.signal(nix::sys::signal::Signal::SIGTERM);
    m.wait_for_end();
    drop(other);
    fs::remove_file(&filler).expect("there");
    m.mount();
    all_there(&m, 1..20);
    assert!(!m.path("0").exists(), "what was deleted stays so");
    write(&m.path("new"), 1).expect("there is room again");
    m.finish();
    drop(disk);
}

#[test]
fn a_step_on_a_full_disk_is_done_or_refused_for_want_of_room() {
    let disk = SmallDisk::new(96);
    let m = Mounted::elsewhere(disk.path().join("volume"), &MKFS, &[]);
    m.mount();
    let mut worker = Worker::new(m.path("worker"), 1);
    let ballast = fill(&m, 0);
    let mut refused = 0;
    for _ in 0..60 {
        if let Some((step, error)) = worker.work(20) {
            assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC), "{step}: {error}");
            refused += 1;
        }
        worker.check();
    }
    assert!(refused > 10, "a full disk refused {refused} steps");
    all_there(&m, 0..ballast);
    m.remount();
    worker.check();
    all_there(&m, 0..ballast);
    m.finish();
    drop(disk);
}

/// Small files: metadata fills the journal and the disk, not data.
#[test]
fn many_names_on_a_full_disk_are_enospc_too() {
    let disk = SmallDisk::new(96);
    let m = Mounted::elsewhere(
        disk.path().join("volume"),
        &["--journal-size", "16M", "--segment-size", "1M"],
        &[],
    );
    m.mount();
    let mut ballast = 0;
    while write(&m.path(ballast.to_string()), ballast).is_ok() {
        ballast += 1;
    }
    fs::create_dir(m.path("names"))
        .map_or_else(|e| assert_eq!(Errno::from_io_error(&e), Some(Errno::NOSPC)), drop);
    let mut made = 0;
    let refused = loop {
        match File::create_new(m.path(format!("names-{made:06}-{}", "x".repeat(200)))) {
            Ok(_) if made < 20_000 => made += 1,
            Ok(_) => break None,
            Err(error) => break Errno::from_io_error(&error),
        }
    };
    assert!(refused.is_none() || refused == Some(Errno::NOSPC), "{refused:?}");
    all_there(&m, 0..ballast);
    for number in 0..made {
        fs::remove_file(m.path(format!("names-{number:06}-{}", "x".repeat(200)))).expect("deleting works");
    }
    for seed in 0..ballast {
        fs::remove_file(m.path(seed.to_string())).expect("deleting works");
    }
    m.sync();
    write(&m.path("again"), 1).expect("there is room again");
    m.finish();
    drop(disk);
}

#[test]
fn on_a_disk_that_others_filled_to_the_last_byte_deleting_and_unmounting_work() {
    let disk = SmallDisk::new(256);
    let m = Mounted::elsewhere(disk.path().join("volume"), &MKFS, &[]);
    m.mount();
    for seed in 0..20 {
        write(&m.path(seed.to_string()), seed).expect("there is room");
    }
    m.sync();
    wait_until("room is kept for a full disk", || m.dir().join("reserve").exists());
    let mut other = File::create(disk.path().join("filler")).expect("a new name");
    for size in [1 << 16, 4096, 512, 1] {
        while other.write_all(&vec![7; size]).is_ok() {}
    }
    for seed in 0..20 {
        fs::remove_file(m.path(seed.to_string())).expect("deleting works");
    }
    m.sync();
    wait_until("what was deleted makes room", || write(&m.path("new"), 1).is_ok());
    m.remount();
    all_there(&m, 0..0);
    assert!(fs::read(m.path("new")).expect("there") == noise(1, FILE));
    m.finish();
    drop((other, disk));
}
