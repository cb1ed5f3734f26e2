//! A worker that dies, or makes way for another program, under programs that use its mount: they see nothing of it but that
//! some calls take longer. Each call is done once, however often it was asked.
//!
//! `CAIRN_TAKEOVERS` is the number of kills in the long test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cairn_tests::dice::{Dice, noise};
use cairn_tests::mounted::{
    Mounted, daemon_of, is_free, is_mounted, program, run, supervisor_of, wait_until,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{XattrFlags, copy_file_range, removexattr, setxattr};
use rustix::io::Errno;
use serde_json::Value;

use crate::kills::from_environment;

/// Programs at work in a mount, until they are told to end; each of their calls must succeed, once.
struct Load<'a> {
    at: &'a Path,
    ended: AtomicBool,
    steps: AtomicU64,
    /// The longest that one step took, in microseconds.
    longest: AtomicU64,
}

type Job = fn(&Load<'_>, &Path);

const JOBS: [(&str, Job); 8] = [
    ("names", names),
    ("more-names", names),
    ("appends", appends),
    ("overwrites", overwrites),
    ("attributes", attributes),
    ("copies", copies),
    ("nameless", nameless),
    ("listings", listings),
];

impl<'a> Load<'a> {
    fn new(at: &'a Path) -> Load<'a> {
        Load { at, ended: AtomicBool::new(false), steps: AtomicU64::new(0), longest: AtomicU64::new(0) }
    }

    /// Has all jobs work while `meanwhile` runs; fails if one of them does.
    fn during(&self, meanwhile: impl FnOnce()) {
        thread::scope(|scope| {
            for (name, job) in JOBS {
                let place = self.at.join(name);
                fs::create_dir_all(&place).expect("a directory");
                scope.spawn(move || job(self, &place));
            }
            // A failed job must not be waited for by one that goes on for ever.
            struct End<'a>(&'a AtomicBool);
            impl Drop for End<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Release);
                }
            }
            let _end = End(&self.ended);
            meanwhile();
        });
        let (steps, longest) = (self.steps.load(Ordering::Relaxed), self.longest.load(Ordering::Relaxed));
        eprintln!("{steps} steps, the longest took {} ms", longest / 1000);
    }

    /// Does `step` with 0, 1, … until the end; gives how often.
    fn steps(&self, mut step: impl FnMut(u64)) -> u64 {
        let mut n = 0;
        while !self.ended.load(Ordering::Acquire) {
            let since = Instant::now();
            step(n);
            n += 1;
            let took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.longest.fetch_max(took, Ordering::Relaxed);
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        n
    }
}

/// Whatever makes, moves or removes a name: done twice, each of these would fail.
fn names(load: &Load<'_>, at: &Path) {
    load.steps(|n| {
        let path = |name: &str| at.join(format!("{name}{n}"));
        fs::create_dir(path("dir")).expect("mkdir");
        File::create_new(path("dir").join("f")).expect("create").write_all(b"content").expect("write");
        fs::hard_link(path("dir").join("f"), path("link")).expect("link");
        symlink("f", path("dir").join("symlink")).expect("symlink");
        fs::rename(path("dir"), path("moved")).expect("rename");
        assert_eq!(fs::metadata(path("link")).expect("stat").nlink(), 2);
        fs::remove_file(path("moved").join("symlink")).expect("unlink");
        fs::rename(path("link"), path("moved").join("f2")).expect("rename");
        fs::remove_file(path("moved").join("f")).expect("unlink");
        assert_eq!(fs::read(path("moved").join("f2")).expect("read"), b"content");
        fs::remove_file(path("moved").join("f2")).expect("unlink");
        fs::remove_dir(path("moved")).expect("rmdir");
    });
    assert_eq!(fs::read_dir(at).expect("a directory").count(), 0);
}

/// Lines at the end of a file: none twice, none lost.
fn appends(load: &Load<'_>, at: &Path) {
    let path = at.join("log");
    let mut file = File::options().append(true).create(true).open(&path).expect("open");
    let before = file.metadata().expect("stat").len() / 16;
    let count = load.steps(|n| {
        // One write a line.
        let line = format!("{:015}\n", before + n);
        assert_eq!(file.write(line.as_bytes()).expect("write"), 16);
        if n % 64 == 0 {
            file.sync_data().expect("fdatasync");
        }
    });
    let text = fs::read_to_string(&path).expect("read");
    assert_eq!(text.len() as u64, (before + count) * 16);
    for (n, line) in text.lines().enumerate() {
        assert_eq!(line.parse(), Ok(n));
    }
}

/// Random writes, truncations and holes, compared with what they should leave.
fn overwrites(load: &Load<'_>, at: &Path) {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(at.join("f"));
    let (file, mut model, mut dice) = (file.expect("open"), Vec::new(), Dice::new(7));
    let compare = |model: &[u8]| {
        let mut found = Vec::new();
        let mut file = &file;
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut found)).expect("read");
        assert!(found == model, "another content");
    };
    load.steps(|n| {
        let offset = dice.below(1 << 20) as usize;
        match dice.below(8) {
            0 => {
                file.set_len(offset as u64).expect("truncate");
                model.resize(offset, 0);
            }
            _ => {
                let bytes = noise(n, 1 + dice.below(300_000) as usize);
                file.write_all_at(&bytes, offset as u64).expect("write");
                model.resize(model.len().max(offset + bytes.len()), 0);
                model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
        }
        if n % 16 == 0 {
            compare(&model);
        }
    });
    compare(&model);
}

/// Attributes that must not be there, or must.
fn attributes(load: &Load<'_>, at: &Path) {
    let path = at.join("f");
    fs::write(&path, b"x").expect("write");
    load.steps(|n| {
        let value = n.to_le_bytes();
        setxattr(&path, "user.n", &value, XattrFlags::CREATE).expect("new");
        setxattr(&path, "user.n", &value, XattrFlags::REPLACE).expect("there");
        removexattr(&path, "user.n").expect("there");
    });
}

/// Ranges copied without being read.
fn copies(load: &Load<'_>, at: &Path) {
    let bytes = noise(3, 3 << 20);
    fs::write(at.join("from"), &bytes).expect("write");
    let from = File::open(at.join("from")).expect("open");
    load.steps(|n| {
        let path = at.join(format!("to{n}"));
        let to = File::options().read(true).write(true).create_new(true).open(&path).expect("create");
        let (mut read, mut written) = (0, 0);
        while read < bytes.len() as u64 {
            let left = bytes.len() - read as usize;
            let copied = copy_file_range(&from, Some(&mut read), &to, Some(&mut written), left);
            assert!(copied.expect("copy_file_range") > 0);
        }
        assert!(fs::read(&path).expect("read") == bytes, "another content");
        fs::remove_file(&path).expect("unlink");
    });
}

/// Files that lost their names and are open.
fn nameless(load: &Load<'_>, at: &Path) {
    let mut open: Vec<(File, u64)> = Vec::new();
    load.steps(|n| {
        let path = at.join(format!("f{n}"));
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("create");
        file.write_all_at(&noise(n, 5000), 0).expect("write");
        fs::remove_file(&path).expect("unlink");
        open.push((file, n));
        if open.len() > 20 {
            open.remove(0);
        }
        let (file, seed) = &open[n as usize * 7 % open.len()];
        let mut found = vec![0; 5000];
        file.read_exact_at(&mut found, 0).expect("read");
        assert!(found == noise(*seed, 5000) && file.metadata().expect("stat").nlink() == 0);
        // To write to it, too.
        file.write_all_at(&found, 0).expect("write");
    });
}

/// A directory that nobody changes, listed: each name once.
fn listings(load: &Load<'_>, at: &Path) {
    const NAMES: usize = 400;
    for n in 0..NAMES {
        fs::write(at.join(format!("{n:04}")), b"").expect("create");
    }
    load.steps(|_| {
        let mut listed: Vec<_> =
            fs::read_dir(at).expect("a directory").map(|entry| entry.expect("listed").file_name()).collect();
        listed.sort();
        listed.dedup();
        assert_eq!(listed.len(), NAMES);
        // A listing is cached until something changes.
        File::create_new(at.join("x")).expect("create");
        fs::remove_file(at.join("x")).expect("unlink");
    });
}

/// A field of what `cairn info` says of the mount.
#[track_caller]
fn info(m: &Mounted, field: &str) -> u64 {
    let text = run("cairn", ["info".as_ref(), "--json".as_ref(), m.dir().as_os_str()]).ok();
    let document: Value = serde_json::from_str(&text).expect("one JSON document");
    document["mount"][field].as_u64().unwrap_or_else(|| panic!("{field} is no number in {text}"))
}

/// Returns when something is asked of the worker and answered.
fn wait_for_answer(m: &Mounted, n: u64) {
    assert_eq!(crate::errno(fs::metadata(m.path(format!("nothing{n}")))), Errno::NOENT);
}

#[test]
fn nobody_sees_that_workers_are_killed_and_nothing_is_done_twice() {
    let kills = from_environment("CAIRN_TAKEOVERS", 20);
    let seed = from_environment("CAIRN_SEED", u64::from(std::process::id()));
    eprintln!("CAIRN_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut m = Mounted::new();
    let load_on = m.at().to_path_buf();
    Load::new(&load_on).during(|| {
        let mut last = None;
        for n in 0..kills {
            // Two of three also while they begin; the third lives for a while.
            if n % 3 == 2 {
                wait_for_answer(&m, n);
                thread::sleep(Duration::from_millis(300 + dice.below(600)));
            } else {
                thread::sleep(Duration::from_millis(dice.below(400)));
            }
            if n % 5 == 4 {
                // Checkpoints trim what could be needed. Fails if it is killed.
                run("cairn", ["sync".as_ref(), m.dir().as_os_str()]);
            }
            last = Some(m.kill_worker(last));
            if n % 50 == 49 {
                m.be_patient();
            }
        }
        wait_for_answer(&m, kills);
        thread::sleep(Duration::from_millis(300));
    });
    assert_eq!(info(&m, "restarts"), kills);
    m.sync();
    m.finish();
}

#[test]
fn what_was_done_and_not_answered_is_answered_and_not_done_again() {
    let deaths = from_environment("CAIRN_TAKEOVERS", 20).div_ceil(2);
    // Each worker dies of the first call that it finished after half a second, before its caller knows.
    let mut m =
        Mounted::with(&["--journal-size", "32M", "--segment-size", "1M"], &["x-cairn.die-unanswered"]);
    let load_on = m.at().to_path_buf();
    Load::new(&load_on).during(|| {
        let mut seen = 0;
        while seen < deaths {
            wait_until("another died", || {
                thread::sleep(Duration::from_millis(50));
                info(&m, "restarts") > seen
            });
            seen = info(&m, "restarts");
            m.be_patient();
        }
    });
    // Nothing is finished any more that could kill it.
    m.finish();
}

#[test]
fn another_program_goes_on_under_load() {
    let mut m = Mounted::new();
    let rounds = from_environment("CAIRN_TAKEOVERS", 20).div_ceil(4);
    let (supervisor, mut pid) = (info(&m, "supervisor"), info(&m, "pid"));
    let load_on = m.at().to_path_buf();
    Load::new(&load_on).during(|| {
        for n in 0..rounds {
            let binary = program("cairn");
            let words = ["upgrade".as_ref(), "--json".as_ref(), "--binary".as_ref(), binary.as_os_str()];
            let text = run("cairn", words.into_iter().chain([m.at().as_os_str()])).ok();
            let told: Value = serde_json::from_str(&text).expect("one JSON document");
            assert_eq!(told["from_pid"].as_u64(), Some(pid), "{text}");
            pid = told["to_pid"].as_u64().expect("a number");
            assert_eq!((info(&m, "pid"), info(&m, "upgrades")), (pid, n + 1));
            m.be_patient();
        }
    });
    assert_eq!((info(&m, "supervisor"), info(&m, "restarts")), (supervisor, 0));
    // One whose file is gone by the time that it is needed again is followed by the supervisor's own.
    let other = m.beside("other");
    fs::copy(program("cairn"), &other).expect("copied");
    let words = [OsStr::new("upgrade"), m.at().as_os_str(), OsStr::new("--binary"), other.as_os_str()];
    run("cairn", words).ok();
    fs::remove_file(&other).expect("there");
    m.kill_worker(None);
    wait_for_answer(&m, 0);
    assert_eq!(info(&m, "restarts"), 1);
    m.finish();
}

#[test]
fn a_program_that_is_not_cairn_is_refused_and_one_that_does_not_work_is_taken_back() {
    let m = Mounted::new();
    fs::write(m.path("f"), b"there").expect("written");
    let upgrade = |to: &Path| {
        run("cairn", ["upgrade".as_ref(), m.at().as_os_str(), OsStr::new("--binary"), to.as_os_str()])
    };
    upgrade(Path::new("/bin/true")).refused(1, &["/bin/true", "is not cairn"]);
    upgrade(Path::new("/nowhere")).refused(1, &["/nowhere"]);
    // One that says that it is cairn, and ends.
    let fake = m.beside("fake");
    fs::write(&fake, "#!/bin/sh\n[ \"$1\" = --version ] && echo cairn 9 || exit 3\n").expect("written");
    run("chmod", ["+x".as_ref(), fake.as_os_str()]).ok();
    upgrade(&fake).refused(1, &["fake", "could not go on", "the program before it does"]);
    assert_eq!(fs::read(m.path("f")).expect("there"), b"there");
    assert_eq!((info(&m, "upgrades"), info(&m, "restarts")), (0, 0));
    m.finish();
    let m = Mounted::with(&cairn_tests::mounted::SMALL, &["supervise=off"]);
    let refused = run("cairn", [OsStr::new("upgrade"), m.at().as_os_str()]);
    refused.refused(1, &["no supervisor", "supervise=off"]);
    assert!(supervisor_of(daemon_of(m.dir()).expect("a daemon")).is_none());
    m.finish();
}

#[test]
fn a_worker_goes_on_without_its_supervisor() {
    let m = Mounted::new();
    let worker = daemon_of(m.dir()).expect("a daemon");
    let supervisor = supervisor_of(worker).expect("it has one");
    kill(supervisor, Signal::SIGKILL).expect("it runs");
    let log = || fs::read_to_string(m.dir().join("log")).expect("a log");
    wait_until("the worker noticed", || log().contains("the supervisor is gone"));
    fs::write(m.path("f"), b"there").expect("written");
    assert_eq!(daemon_of(m.dir()), Some(worker));
    // From here on it is as without one.
    kill(worker, Signal::SIGKILL).expect("it runs");
    m.wait_for_end();
    assert_eq!(crate::errno(fs::read(m.path("g"))), Errno::NOTCONN);
    m.mount();
    assert_eq!(fs::read(m.path("f")).expect("there"), b"there");
    m.finish();
}

#[test]
fn a_mount_whose_workers_all_die_is_unmounted() {
    let m = Mounted::new();
    fs::write(m.path("f"), b"there").expect("written");
    let open = File::open(m.path("f")).expect("there");
    m.sync();
    let supervisor = supervisor_of(daemon_of(m.dir()).expect("a daemon")).expect("it has one");
    // What no worker can begin without.
    let aside = m.beside("aside");
    for name in ["superblock", "superblock.backup"] {
        fs::create_dir_all(&aside).expect("a directory");
        fs::rename(m.dir().join(name), aside.join(name)).expect("there");
    }
    m.kill_worker(None);
    wait_until("it is unmounted", || !is_mounted(m.at()));
    m.wait_for_end();
    let mut byte = [0];
    assert!(open.read_at(&mut byte, 1 << 20).is_err(), "its connection is cut");
    let log = fs::read_to_string(m.dir().join("log")).expect("a log");
    let said = log.lines().rfind(|line| line.contains("is unmounted, since")).expect("why");
    assert!(said.contains("fsck.cairn -n") && said.contains("exited with code 10"), "{said}");
    wait_until("the supervisor ended", || !runs(supervisor));
    for name in ["superblock", "superblock.backup"] {
        fs::rename(aside.join(name), m.dir().join(name)).expect("there");
    }
    m.mount();
    assert_eq!(fs::read(m.path("f")).expect("there"), b"there");
    m.finish();
}

/// Whether a process is there that is more than a number nobody has reaped.
fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
}

#[test]
fn nobody_else_gets_the_volume_between_two_workers() {
    let m = Mounted::new();
    fs::write(m.path("f"), b"there").expect("written");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                assert!(!is_free(m.dir()), "the lock is held by somebody all the time");
            }
        });
        let mut last = None;
        // More in a row than may die before they answer, each killed as soon as it answered.
        for n in 0..6 {
            last = Some(m.kill_worker(last));
            wait_for_answer(&m, n);
        }
        run("cairn", [OsStr::new("upgrade"), m.at().as_os_str()]).ok();
        over.store(true, Ordering::Release);
    });
    m.finish();
}

#[test]
fn a_mount_that_is_told_to_end_while_a_worker_begins_ends() {
    let m = Mounted::new();
    let bytes = noise(1, 3 << 20);
    fs::write(m.path("f"), &bytes).expect("written");
    let supervisor = supervisor_of(daemon_of(m.dir()).expect("a daemon")).expect("it has one");
    m.kill_worker(None);
    kill(supervisor, Signal::SIGTERM).expect("it runs");
    m.wait_for_end();
    wait_until("it is unmounted", || !is_mounted(m.at()));
    m.fsck();
    m.mount();
    assert!(fs::read(m.path("f")).expect("there") == bytes);
    m.finish();
}

#[test]
fn files_without_a_name_go_once_they_are_closed_though_their_worker_died() {
    nameless_files_go(&[]);
}

#[test]
fn they_do_where_opens_are_told_as_well() {
    nameless_files_go(&["x-cairn.count-opens"]);
}

fn nameless_files_go(options: &[&str]) {
    let m = Mounted::with(&cairn_tests::mounted::SMALL, options);
    fs::write(m.path("f"), noise(1, 4 << 20)).expect("written");
    let file = File::open(m.path("f")).expect("there");
    fs::remove_file(m.path("f")).expect("there");
    m.sync();
    m.kill_worker(None);
    let mut found = vec![0; 4 << 20];
    file.read_exact_at(&mut found, 0).expect("read");
    assert!(found == noise(1, 4 << 20));
    m.sync();
    assert_eq!(m.df("files"), 2, "the root, and it");
    drop(file);
    wait_until("it is gone", || {
        m.sync();
        m.df("files") == 1
    });
    // Forgotten while nobody was there to hear it.
    fs::write(m.path("g"), b"x").expect("written");
    let file = File::open(m.path("g")).expect("there");
    fs::remove_file(m.path("g")).expect("there");
    let worker = daemon_of(m.dir()).expect("a daemon");
    kill(worker, Signal::SIGSTOP).expect("it runs");
    drop(file);
    kill(worker, Signal::SIGKILL).expect("it runs");
    wait_until("it is gone", || {
        run("cairn", [OsStr::new("sync"), m.dir().as_os_str()]);
        daemon_of(m.dir()) != Some(worker) && m.df("files") == 1
    });
    m.finish();
}

#[test]
fn a_connection_that_is_cut_while_no_worker_is_there_leaves_no_mount() {
    let m = Mounted::new();
    let supervisor = supervisor_of(daemon_of(m.dir()).expect("a daemon")).expect("it has one");
    let device = fs::metadata(m.at()).expect("mounted").dev();
    // The supervisor must not start another before that.
    kill(supervisor, Signal::SIGSTOP).expect("it runs");
    m.kill_worker(None);
    // What the kernel shows of its connections, wherever else the system has that or has not. An anonymous device: its
    // minor number is the connection's name.
    let connections = m.beside("connections");
    fs::create_dir(&connections).expect("a new name");
    mount(Some("none"), &connections, Some("fusectl"), MsFlags::empty(), None::<&str>).expect("root may");
    let cut = fs::write(connections.join(nix::sys::stat::minor(device).to_string()).join("abort"), "1");
    umount2(&connections, MntFlags::MNT_DETACH).expect("it is mounted");
    cut.expect("root may");
    kill(supervisor, Signal::SIGCONT).expect("it is there");
    wait_until("the supervisor ended", || !runs(supervisor));
    assert!(!is_mounted(m.at()) && is_free(m.dir()));
    m.mount();
    m.finish();
}
