//! `cairn gc`, collecting by itself, and a disk that is filled and half emptied again and again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use cairn_tests::dice::{Dice, noise};
use cairn_tests::mounted::{Mounted, Ran, SmallDisk, program, run, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::Errno;
use serde_json::Value;

const MIB: usize = 1 << 20;
const MKFS: [&str; 4] = ["--journal-size", "32M", "--segment-size", "4M"];

fn gc(path: &Path, arguments: &[&str]) -> Ran {
    let arguments = arguments.iter().map(OsStr::new);
    run("cairn", [OsStr::new("gc"), path.as_os_str()].into_iter().chain(arguments))
}

fn report(path: &Path, arguments: &[&str]) -> Value {
    let all: Vec<_> = arguments.iter().copied().chain(["--json"]).collect();
    let text = gc(path, &all).ok();
    let document: Value = serde_json::from_str(&text).expect("one JSON document");
    assert_eq!(
        (document["message_type"].as_str(), document["schema_version"].as_u64()),
        (Some("gc"), Some(1))
    );
    document
}

/// Files of a MiB, every second of which is deleted again.
fn half_deleted(m: &Mounted, count: u64) {
    for seed in 0..count {
        fs::write(m.path(seed.to_string()), noise(seed, MIB)).expect("written");
    }
    m.sync();
    for seed in (0..count).step_by(2) {
        fs::remove_file(m.path(seed.to_string())).expect("removed");
    }
    m.sync();
}

fn odd_ones_there(m: &Mounted, count: u64) {
    for seed in (1..count).step_by(2) {
        assert!(fs::read(m.path(seed.to_string())).expect("readable") == noise(seed, MIB), "file {seed}");
    }
}

#[test]
fn gc_gives_back_what_was_deleted_and_tells_what() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    half_deleted(&m, 24);
    let (stored, reclaimable) = (m.df("stored"), m.df("reclaimable"));
    // A report tells of files; `df` tells what protects them apart.
    let is_that = |said: u64, stored: u64| (stored..=stored + m.df("parity")).contains(&said);
    assert!(m.df("parity") < stored / 4);
    assert!(reclaimable > stored * 45 / 100, "{reclaimable} of {stored}");
    let done = report(m.at(), &[]);
    let field = |name: &str| done[name].as_u64().unwrap_or_else(|| panic!("{name} in {done}"));
    assert_eq!((done["finished"].as_bool(), done["stopped"].as_str()), (Some(true), None));
    assert!(is_that(field("bytes_after"), m.df("stored")), "{done} {}", m.df("stored"));
    assert_eq!(field("bytes_freed"), field("bytes_before") - field("bytes_after"));
    assert!(field("bytes_before") > stored && field("bytes_freed") > stored - m.df("stored"), "{done}");
    assert!(m.df("stored") < stored * 55 / 100 && m.df("reclaimable") < MIB as u64);
    odd_ones_there(&m, 24);
    let again = gc(m.at(), &[]).ok();
    assert!(again.contains("0 packs dropped, 0 written in the place of 0; 0 B freed"), "{again}");
    let stats = fs::read_to_string(m.path(".stats")).expect("figures");
    assert!(stats.contains("\"gc_runs\":2"), "{stats}");
    m.remount();
    odd_ones_there(&m, 24);
    m.finish();
}

#[test]
fn gc_works_on_a_volume_that_is_not_mounted() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    half_deleted(&m, 16);
    m.unmount();
    let none = report(m.dir(), &["--threshold", "1"]);
    assert_eq!(none["packs_dropped"].as_u64(), Some(0), "{none}");
    let late = report(m.dir(), &["--max-duration", "0s"]);
    assert_eq!((late["finished"].as_bool(), late["stopped"].as_str()), (Some(false), Some("time")), "{late}");
    let told = gc(m.dir(), &[]).ok();
    assert!(told.contains("dropped") && told.contains("MiB freed"), "{told}");
    m.fsck();
    m.mount();
    odd_ones_there(&m, 16);
    m.finish();
}

#[test]
fn gc_says_what_it_cannot_do() {
    let m = Mounted::unmounted(&MKFS, &[]);
    let empty = m.beside("empty");
    fs::create_dir(&empty).expect("a new name");
    gc(&empty, &[]).refused(10, &[empty.to_str().expect("UTF-8")]);
    for wrong in
        [["--threshold", "0"], ["--threshold", "101"], ["--max-duration", "soon"], ["--colour", "blue"]]
    {
        gc(m.dir(), &wrong).refused(2, &[wrong[0]]);
    }
    m.try_mount(&["ro"]).ok();
    gc(m.at(), &[]).refused(1, &["takes no writes"]);
    m.unmount();
    m.try_mount(&["gc=perhaps"]).refused(2, &["gc=perhaps"]);
}

#[test]
fn a_client_that_is_interrupted_stops_the_run_and_the_next_goes_on() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    half_deleted(&m, 64);
    for _ in 0..5 {
        let mut client = Command::new(program("cairn"));
        client.arg("gc").arg(m.at()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = client.spawn().expect("cairn");
        let pid = Pid::from_raw(i32::try_from(client.id()).expect("a pid"));
        std::thread::sleep(std::time::Duration::from_millis(30));
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGINT);
        client.wait().expect("it ends");
        odd_ones_there(&m, 64);
    }
    // The run that nobody listens to ends by itself; until then there is no other.
    wait_until("a run goes to its end", || gc(m.at(), &["--json"]).code == 0);
    assert!(m.df("stored") < 36 * MIB as u64, "{}", m.df("stored"));
    odd_ones_there(&m, 64);
    m.finish();
}

#[test]
fn what_is_dead_goes_by_itself_when_nobody_asks_for_anything() {
    const COUNT: u64 = 180;
    let m = Mounted::with(&MKFS, &[]);
    half_deleted(&m, COUNT);
    assert!(m.df("reclaimable") > 64 << 20, "{}", m.df("reclaimable"));
    wait_until("it is collected", || {
        // Asking the volume's files would be work that it waits for to end.
        std::thread::sleep(std::time::Duration::from_millis(200));
        m.df("reclaimable") < 10 << 20
    });
    odd_ones_there(&m, COUNT);
    m.finish();
}

/// What a disk holds: the seed and the length of each file, by its number.
#[derive(Default)]
struct Disk {
    files: BTreeMap<u64, usize>,
    next: u64,
}

impl Disk {
    /// Writes files until one is refused, which must be for want of room; bytes written.
    fn fill(&mut self, m: &Mounted, dice: &mut Dice) -> u64 {
        let mut written = 0;
        loop {
            let (seed, len) = (self.next, (64 << 10) + dice.below(4 << 20) as usize);
            self.next += 1;
            let path = m.path(seed.to_string());
            match File::create(&path).and_then(|mut file| file.write_all(&noise(seed, len))) {
                Ok(()) => {
                    self.files.insert(seed, len);
                    written += len as u64;
                }
                Err(error) => {
                    assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC), "file {seed}: {error}");
                    let removed = fs::remove_file(&path);
                    assert!(removed.is_ok() || removed.is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
                    return written;
                }
            }
        }
    }

    /// Deletes every second file, so to speak; bytes deleted.
    fn delete_half(&mut self, m: &Mounted, dice: &mut Dice) -> u64 {
        let mut deleted = 0;
        self.files.retain(|seed, len| {
            let goes = dice.one_in(2);
            if goes {
                fs::remove_file(m.path(seed.to_string())).expect("deleting works on a full disk");
                deleted += *len as u64;
            }
            !goes
        });
        deleted
    }

    fn verify(&self, m: &Mounted) {
        for (seed, len) in &self.files {
            let found = fs::read(m.path(seed.to_string())).unwrap_or_else(|e| panic!("file {seed}: {e}"));
            assert!(found == noise(*seed, *len), "file {seed} is not what was written");
        }
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|len| *len as u64).sum()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn a_disk_that_is_filled_and_half_emptied_again_and_again_is_never_stuck() {
    let cycles = number("CAIRN_SPACE_CYCLES", 3);
    let disk = SmallDisk::new(number("CAIRN_SPACE_MIB", 512));
    let mut m = Mounted::elsewhere(disk.path().join("volume"), &MKFS, &[]);
    m.mount();
    let mut dice = Dice::new(2);
    let mut held = Disk::default();
    let first = held.fill(&m, &mut dice);
    println!("{} MiB fit at first", first >> 20);
    for cycle in 0..cycles {
        m.be_patient();
        let deleted = held.delete_half(&m, &mut dice);
        // One time it is asked for, the other time it has to come by itself.
        let asked = cycle % 2 == 1;
        if asked {
            gc(m.at(), &[]).ok();
        }
        let written = held.fill(&m, &mut dice);
        assert!(
            written > deleted * 6 / 10,
            "cycle {cycle}: {written} bytes fit after {deleted} were deleted"
        );
        held.verify(&m);
        if cycle % 4 == 2 {
            m.remount();
            held.verify(&m);
        }
        m.sync();
        let done = report(m.at(), &[]);
        let (stored, live) = (m.df("stored"), held.bytes());
        println!(
            "cycle {cycle}: {} MiB deleted, {} written, {}; then packs of {} MiB hold {} MiB, {} freed",
            deleted >> 20,
            written >> 20,
            if asked { "asked" } else { "by itself" },
            stored >> 20,
            live >> 20,
            done["bytes_freed"].as_u64().unwrap_or(0) >> 20,
        );
        assert!(stored <= live + live / 10, "cycle {cycle}: {stored} bytes of packs for {live} of files");
    }
    m.remount();
    held.verify(&m);
    m.finish();
    drop(disk);
}
