//! The life of a mount: how it begins, what folds when, and how it ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_format::{VolumeState, VolumeSuperblock};
use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, SMALL, SmallDisk, is_free, is_mounted, program, run, wait_until};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use rustix::io::Errno;

/// What is written where a test needs something to fold.
const LENGTH: usize = 24 << 20;

fn is_clean(m: &Mounted) -> bool {
    let bytes = fs::read(m.dir().join("superblock")).expect("a superblock");
    VolumeSuperblock::decode(&bytes).expect("whole").state == VolumeState::Clean
}

#[test]
fn a_mount_answers_when_the_command_returns() {
    let m = Mounted::unmounted(&SMALL, &[]);
    for round in 0..4 {
        m.mount();
        File::create_new(m.path(format!("{round}"))).expect("at once");
        assert_eq!(fs::read_dir(m.at()).expect("a directory").count(), round + 1);
        m.unmount();
        assert!(is_clean(&m));
    }
    m.fsck();
}

#[test]
fn umount_returns_when_everything_is_folded() {
    let m = Mounted::new();
    fs::write(m.path("f"), noise(1, LENGTH)).expect("written");
    assert!(!is_clean(&m), "in use");
    m.unmount();
    assert!(is_clean(&m));
    assert_eq!((m.df("journal_used"), m.df("logical")), (0, LENGTH as u64));
    // By the volume's directory, too.
    m.mount();
    run("cairn", [OsStr::new("umount"), m.dir().as_os_str()]).ok();
    assert!(!is_mounted(m.at()) && is_free(m.dir()));
    run("cairn", [OsStr::new("umount"), m.at().as_os_str()]).refused(1, &["not mounted"]);
    m.fsck();
}

#[test]
fn the_next_mount_waits_for_a_daemon_that_folds_on() {
    let m = Mounted::new();
    for round in 0..3 {
        fs::write(m.path("f"), noise(round, LENGTH)).expect("written");
        m.unmount_plainly();
        m.mount();
        assert!(fs::read(m.path("f")).expect("there") == noise(round, LENGTH));
    }
    fs::write(m.path("g"), noise(9, LENGTH)).expect("written");
    m.unmount_plainly();
    m.fsck();
    m.mount();
    assert!(fs::read(m.path("g")).expect("there") == noise(9, LENGTH));
    m.finish();
}

#[test]
fn umount_of_a_mount_in_use_says_so_and_leaves_it() {
    let m = Mounted::new();
    let file = File::create_new(m.path("f")).expect("new");
    let at = m.at().to_str().expect("UTF-8");
    run("cairn", ["umount", at]).refused(1, &[at, "in use", "close"]);
    assert!(is_mounted(m.at()));
    drop(file);
    m.finish();
}

#[test]
fn sync_leaves_nothing_in_the_journal() {
    let m = Mounted::new();
    fs::write(m.path("f"), noise(1, LENGTH)).expect("written");
    fs::write(m.path("g"), "small").expect("written");
    m.sync();
    assert_eq!((m.df("journal_used"), m.df("logical")), (0, LENGTH as u64 + 5));
    assert!(m.df("stored") as usize > LENGTH && m.df("files") == 3);
    for path in [m.at().to_path_buf(), m.path("f"), m.dir().to_path_buf()] {
        run("cairn", [OsStr::new("sync"), path.as_os_str()]).ok();
        run("cairn", [OsStr::new("df"), path.as_os_str()]).ok();
    }
    m.kill();
    m.mount();
    assert!(fs::read(m.path("f")).expect("there") == noise(1, LENGTH));
    m.finish();
}

#[test]
fn signals_end_a_mount_in_order() {
    let m = Mounted::new();
    for (signal, seed) in [(Signal::SIGTERM, 1), (Signal::SIGINT, 2)] {
        fs::write(m.path("f"), noise(seed, LENGTH)).expect("written");
        m.signal(signal);
        m.wait_for_end();
        assert!(!is_mounted(m.at()), "{signal} unmounts");
        assert!(is_clean(&m), "{signal} folds everything");
        assert_eq!(m.df("journal_used"), 0);
        m.mount();
        assert!(fs::read(m.path("f")).expect("there") == noise(seed, LENGTH));
    }
    // A file that stays open does not keep the daemon for ever, nor lose what was written.
    let mut open = File::create_new(m.path("open")).expect("new");
    open.write_all(b"written").expect("written");
    m.signal(Signal::SIGTERM);
    m.wait_for_end();
    drop(open);
    assert!(!is_mounted(m.at()) && is_clean(&m));
    m.mount();
    assert_eq!(fs::read(m.path("open")).expect("there"), b"written");
    m.finish();
}

/// A filesystem's device number is free again when it is unmounted, and its daemon learns of that a little later.
#[test]
fn a_mount_that_ends_leaves_its_successor_alone() {
    let [one, other] = [(); 2].map(|()| Mounted::unmounted(&SMALL, &[]));
    for round in 0..3 {
        one.mount();
        one.signal(Signal::SIGSTOP);
        one.unmount_plainly();
        other.mount();
        one.signal(Signal::SIGCONT);
        one.wait_for_end();
        assert!(is_mounted(other.at()), "round {round}");
        fs::write(other.path("f"), "x").expect("mounted");
        other.unmount();
    }
}

#[test]
fn a_volume_that_stays_locked_is_given_up_after_a_minute() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let lock = File::options().write(true).truncate(true).open(m.dir().join("lock")).expect("a lock");
    let mut lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).expect("nobody has it");
    write!(*lock, "pid {}\nmount /nowhere\n", std::process::id()).expect("written");
    let pid = std::process::id().to_string();
    let dir = m.dir().to_str().expect("UTF-8");
    m.try_mount(&[]).refused(11, &["waiting up to 60 s", dir, &pid, "still folding"]);
    drop(lock);
    m.mount();
    m.finish();
}

/// A foreground mount, ended with the test.
struct Foreground(Child);

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn f_stays_in_the_foreground() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let mut command = Command::new(program("cairn"));
    command.args([OsStr::new("mount"), OsStr::new("-f"), m.dir().as_os_str(), m.at().as_os_str()]);
    let log = m.beside("stderr");
    command.stdin(Stdio::null()).stderr(File::create(&log).expect("a new name"));
    let mut running = Foreground(command.spawn().expect("starts"));
    wait_until("it is mounted", || is_mounted(m.at()) && fs::write(m.path("f"), "x").is_ok());
    assert!(running.0.try_wait().expect("a child").is_none(), "it stays");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.0.id() as i32), Signal::SIGINT)
        .expect("it runs");
    let status = running.0.wait().expect("a child");
    let said = fs::read_to_string(&log).expect("there");
    assert!(status.success(), "{status}: {said}");
    assert!(said.contains("mounted"), "it logs to standard error: {said}");
    assert!(!is_mounted(m.at()) && is_clean(&m));
    m.fsck();
}

#[test]
fn regression_a_mount_can_be_ended_in_order_from_the_moment_that_it_is_seen() {
    let m = Mounted::unmounted(&SMALL, &[]);
    for _ in 0..8 {
        let mut command = Command::new(program("cairn"));
        command.args([OsStr::new("mount"), OsStr::new("-f"), m.dir().as_os_str(), m.at().as_os_str()]);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut running = Foreground(command.spawn().expect("starts"));
        while !is_mounted(m.at()) {
            assert!(running.0.try_wait().expect("a child").is_none(), "it mounts");
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.0.id() as i32), Signal::SIGINT)
            .expect("it runs");
        let status = running.0.wait().expect("a child");
        assert!(status.success() && !is_mounted(m.at()) && is_clean(&m), "{status}");
    }
    m.fsck();
}

/// Links where mount(8) looks for helpers: made if they are not there, and then removed again. One test at a time has
/// them.
struct Helper(Vec<PathBuf>, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Helper {
    fn install() -> Helper {
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = ["/sbin/mount.cairn", "/sbin/mount.fuse.cairn"].map(PathBuf::from);
        let new: Vec<_> = paths.into_iter().filter(|path| fs::symlink_metadata(path).is_err()).collect();
        new.iter().for_each(|path| symlink(program("cairn"), path).expect("root may"));
        Helper(new, one)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        for path in &self.0 {
            // A link that stays is harmless, and replaced by scripts/install.
            let _ = fs::remove_file(path);
        }
    }
}

#[test]
fn mount_t_cairn_and_fstab_work() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let _helper = Helper::install();
    let (dir, at) = (m.dir().to_str().expect("UTF-8"), m.at().to_str().expect("UTF-8"));
    run("mount", ["-t", "cairn", dir, at, "-o", "noatime,noexec,nofail,x-test.a=b"]).ok();
    fs::write(m.path("f"), "x").expect("mounted");
    let line = run("findmnt", ["-n", "-o", "FSTYPE,SOURCE,OPTIONS", at]).ok();
    for part in ["fuse.cairn", dir, "noexec", "nosuid", "nodev"] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    run("umount", [at]).ok();
    let fstab = m.beside("fstab");
    fs::write(&fstab, format!("{dir} {at} cairn ro,noauto,_netdev 0 0\n")).expect("written");
    run("mount", ["-T", fstab.to_str().expect("UTF-8"), at]).ok();
    assert_eq!(fs::read(m.path("f")).expect("there"), b"x");
    assert!(fs::write(m.path("g"), "x").is_err(), "read-only");
    m.unmount();
    // How mount(8) calls it for fuse.cairn, without a verb.
    run("cairn", [dir, at, "-o", "noatime"]).ok();
    assert_eq!(fs::read(m.path("f")).expect("there"), b"x");
    run("umount", [at]).ok();
    let refused = run("mount", ["-t", "cairn", dir, at, "-o", "no_such_option"]);
    assert!(refused.code != 0 && refused.err.contains("no_such_option"), "{}: {}", refused.code, refused.err);
    run("mount", ["-s", "-t", "cairn", dir, at, "-o", "no_such_option"]).ok();
    m.finish();
}

#[test]
fn mount_o_remount_changes_what_the_kernel_does_and_nothing_else() {
    let m = Mounted::with(&SMALL, &["cache_size=64M,compress=zstd:5"]);
    let _helper = Helper::install();
    let at = m.at().to_str().expect("UTF-8");
    let options = || run("findmnt", ["-n", "-o", "OPTIONS", at]).ok();
    let remount = |options: &str| run("mount", ["-o", &format!("remount,{options}"), at]);
    fs::write(m.path("f"), "x").expect("written");
    remount("ro").ok();
    assert_eq!(crate::errno(fs::write(m.path("f"), "y")), Errno::ROFS);
    assert_eq!(fs::read(m.path("f")).expect("there"), b"x");
    remount("rw").ok();
    fs::write(m.path("f"), "z").expect("written");
    remount("noexec,noatime").ok();
    for part in ["rw", "noexec", "noatime", "nosuid", "nodev"] {
        assert!(options().contains(part), "{part} is not in: {}", options());
    }
    fs::write(m.path("script"), "#!/bin/sh\n").expect("written");
    fs::set_permissions(m.path("script"), fs::Permissions::from_mode(0o755)).expect("its owner");
    assert!(Command::new(m.path("script")).status().is_err(), "noexec");
    remount("exec,suid").ok();
    assert!(!options().contains("noexec") && !options().contains("nosuid"), "{}", options());
    assert!(Command::new(m.path("script")).status().is_ok_and(|status| status.success()));
    remount("noatime").ok();
    assert!(!options().contains("nosuid"), "what is not named stays: {}", options());
    // fstab does not name what is off by default, so that says nothing.
    remount("nosuid").ok();
    let fstab = m.beside("fstab");
    fs::write(&fstab, format!("{} {at} cairn noauto 0 0\n", m.dir().display())).expect("written");
    run("mount", ["-T", fstab.to_str().expect("UTF-8"), "-o", "remount,noexec", at]).ok();
    for part in ["noexec", "nosuid", "nodev"] {
        assert!(options().contains(part), "{part} is not in: {}", options());
    }
    // What is so already may be said, as fstab does; what is not cannot be had.
    remount("ro,cache_size=64M,compress=zstd:5").ok();
    remount("rw").ok();
    for other in ["cache_size=65M", "compress=off", "dedup=off", "index_mem=1G", "allow_other"] {
        let name = other.split('=').next().expect("a name");
        remount(other).refused(1, &[name, "cannot be changed by a remount", "cairn umount"]);
    }
    remount("colour=blue").refused(1, &["colour=blue"]);
    let open = File::options().write(true).open(m.path("f")).expect("there");
    remount("ro").refused(32, &["open for writing"]);
    drop(open);
    let elsewhere = run("cairn", ["mount", "-o", "remount,ro", "/", at]);
    elsewhere.refused(1, &["not /"]);
    run(
        "cairn",
        ["mount".as_ref(), "-o".as_ref(), "remount,ro".as_ref(), m.dir().as_os_str(), m.dir().as_os_str()],
    )
    .refused(1, &["not a mounted cairn volume"]);
    m.unmount();
    m.try_mount(&["ro"]).ok();
    remount("rw").refused(32, &["was mounted read-only", "mount it again"]);
    remount("noexec").ok();
    assert!(options().contains("noexec") && options().contains("ro"), "{}", options());
    m.finish();
}

#[test]
fn a_mount_whose_daemon_died_is_taken_away_by_the_next() {
    let m = Mounted::new();
    fs::write(m.path("f"), "kept").expect("written");
    m.kill();
    assert!(fs::read(m.path("f")).is_err() && is_mounted(m.at()), "a dead mount");
    m.mount();
    assert_eq!(fs::read(m.path("f")).expect("there"), b"kept");
    m.kill();
    run("cairn", [OsStr::new("umount"), m.at().as_os_str()]).ok();
    assert!(!is_mounted(m.at()));
    m.mount();
    m.finish();
}

#[test]
fn an_idle_mount_folds_by_itself() {
    let m = Mounted::new();
    fs::write(m.path("f"), noise(1, 1 << 20)).expect("written");
    wait_until("the quiet file is folded", || m.df("journal_used") == 0);
    assert!(fs::read(m.path("f")).expect("there") == noise(1, 1 << 20));
    m.finish();
}

#[test]
fn the_disk_below_is_in_use_no_more_when_umount_returns() {
    let disk = SmallDisk::new(64);
    let m = Mounted::elsewhere(disk.path().join("volume"), &SMALL, &[]);
    for round in 0..20 {
        m.mount();
        fs::write(m.path("f"), noise(round, 10_000)).expect("written");
        m.unmount();
        // What is not in use could be unmounted, and is only marked by the first such call.
        let used = umount2(&disk.path(), MntFlags::MNT_EXPIRE);
        assert_eq!(used, Err(nix::errno::Errno::EAGAIN), "round {round}");
    }
    m.fsck();
}

#[test]
fn volumes_lie_anywhere_and_mount_anywhere() {
    // A long path: a socket's address has 108 bytes.
    let deep = tempfile::tempdir().expect("a directory");
    let dir = deep.path().canonicalize().expect("there").join("with space").join("d".repeat(150));
    fs::create_dir_all(&dir).expect("new names");
    let m = Mounted::elsewhere(dir.join("volume"), &SMALL, &[]);
    m.mount();
    fs::write(m.path("f"), "x").expect("written");
    m.sync();
    // A volume on another one.
    let inner = Mounted::elsewhere(m.path("inner"), &SMALL, &[]);
    inner.mount();
    fs::write(inner.path("g"), noise(1, 1 << 20)).expect("written");
    inner.remount();
    assert!(fs::read(inner.path("g")).expect("there") == noise(1, 1 << 20));
    inner.finish();
    // Named by a relative path.
    let parent = dir.as_path();
    m.unmount();
    let relative = |at: &Path| {
        Command::new(program("cairn"))
            .current_dir(parent)
            .args(["mount", "volume"])
            .arg(at)
            .output()
            .expect("runs")
    };
    let output = relative(m.at());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(m.path("f")).expect("there"), b"x");
    m.finish();
}
