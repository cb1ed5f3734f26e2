//! Attributes and permissions: modes, owners, times, and other users.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use cairn_tests::mounted::{Mounted, SMALL};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use rustix::io::Errno;

use crate::errno;

const NOBODY: u32 = 65534;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its owner");
}

/// Whether a shell of the user nobody can do this with `$1`.
fn nobody_can(script: &str, path: &Path) -> bool {
    let mut command = Command::new("sh");
    command.args([OsStr::new("-c"), OsStr::new(script), OsStr::new("sh"), path.as_os_str()]);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    command.output().expect("a shell").status.success()
}

fn set_times(path: &Path, atime: (i64, i64), mtime: (i64, i64)) {
    let spec = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("its owner");
}

#[test]
fn modes_and_owners_are_kept() {
    let m = Mounted::with(&SMALL, &["suid"]);
    fs::write(m.path("f"), "x").expect("written");
    fs::create_dir(m.path("d")).expect("a new name");
    symlink("f", m.path("l")).expect("a new name");
    for bits in [0o0, 0o777, 0o4755, 0o2755, 0o1777, 0o7777, 0o640] {
        chmod(&m.path("f"), bits);
        chmod(&m.path("d"), bits);
        assert_eq!((mode(&m.path("f")), mode(&m.path("d"))), (bits, bits));
    }
    chown(m.path("f"), Some(12345), Some(4_000_000_000)).expect("root may");
    chown(m.path("d"), Some(7), None).expect("root may");
    lchown(m.path("l"), Some(8), Some(9)).expect("root may");
    m.remount();
    let of = |name: &str| fs::symlink_metadata(m.path(name)).map(|a| (a.uid(), a.gid())).expect("there");
    assert_eq!((of("f"), of("d"), of("l")), ((12345, 4_000_000_000), (7, 0), (8, 9)));
    assert_eq!((mode(&m.path("f")), mode(&m.path("d"))), (0o640, 0o640));
    m.finish();
}

#[test]
fn times_are_kept_to_the_nanosecond_from_long_ago_to_far_ahead() {
    let times: [(i64, i64); 12] = [
        (0, 0),
        (-1, 5),
        (-2, 800_000_000),
        (-2_208_988_800, 999_999_999),
        (2_147_483_648, 1),
        (4_102_444_800, 123_456_789),
        (17_179_869_184, 999_999_999),
        (1_700_000_000, 42),
        // What is nearest to the ends the kernel makes a whole second.
        (i64::MIN, 0),
        (i64::MIN + 1, 999_999_999),
        (i64::MAX - 1, 999_999_999),
        (i64::MAX, 0),
    ];
    let m = Mounted::new();
    for (number, time) in times.iter().enumerate() {
        fs::write(m.path(number.to_string()), "x").expect("written");
        set_times(&m.path(number.to_string()), *time, times[times.len() - 1 - number]);
    }
    symlink("nowhere", m.path("l")).expect("a new name");
    set_times(&m.path("l"), times[1], times[5]);
    for mounted_again in [false, true] {
        for (number, time) in times.iter().enumerate() {
            let about = fs::metadata(m.path(number.to_string())).expect("there");
            assert_eq!((about.atime(), about.atime_nsec()), *time, "mounted again: {mounted_again}");
            assert_eq!((about.mtime(), about.mtime_nsec()), times[times.len() - 1 - number]);
        }
        let about = fs::symlink_metadata(m.path("l")).expect("there");
        assert_eq!((about.atime(), about.atime_nsec(), about.mtime()), (-1, 5, times[5].0));
        if !mounted_again {
            m.remount();
        }
    }
    let before = fs::metadata(m.path("1")).expect("there");
    set_times(&m.path("1"), (0, UTIME_OMIT), (0, UTIME_NOW));
    let after = fs::metadata(m.path("1")).expect("there");
    assert_eq!((after.atime(), after.atime_nsec()), (before.atime(), before.atime_nsec()));
    assert!(after.mtime() > 1_700_000_000 && after.ctime() >= before.ctime());
    m.finish();
}

#[test]
fn a_change_moves_the_times_it_should() {
    let m = Mounted::new();
    let old = (1_000_000_000, 0);
    let reset = |name: &str| set_times(&m.path(name), old, old);
    let mtime = |name: &str| fs::metadata(m.path(name)).expect("there").mtime();
    fs::create_dir(m.path("d")).expect("a new name");
    reset("d");
    fs::write(m.path("d/f"), "1").expect("written");
    assert!(mtime("d") > old.0, "a new name changes its directory");
    reset("d/f");
    reset("d");
    fs::write(m.path("d/f"), "22").expect("written");
    assert!(mtime("d/f") > old.0 && mtime("d") == old.0, "a write changes the file alone");
    reset("d/f");
    chmod(&m.path("d/f"), 0o600);
    assert_eq!(mtime("d/f"), old.0, "chmod changes no mtime");
    fs::read(m.path("d/f")).expect("there");
    File::options().write(true).open(m.path("d/f")).and_then(|f| f.set_len(1)).expect("there");
    assert!(mtime("d/f") > old.0, "so does truncating");
    fs::rename(m.path("d/f"), m.path("g")).expect("a free name");
    assert!(mtime("d") > old.0);
    m.finish();
}

#[test]
fn others_get_in_only_when_allowed_and_then_by_permission() {
    let m = Mounted::with(&SMALL, &["allow_other"]);
    let file = m.path("f");
    fs::write(&file, "x").expect("written");
    chmod(&file, 0o600);
    assert!(!nobody_can("cat \"$1\"", &file) && !nobody_can("echo >\"$1\"", &file));
    chmod(&file, 0o644);
    assert!(nobody_can("cat \"$1\"", &file) && !nobody_can("echo >\"$1\"", &file));
    chmod(&file, 0o666);
    assert!(nobody_can("echo >>\"$1\"", &file) && !nobody_can("chmod 600 \"$1\"", &file));
    assert!(!nobody_can("touch \"$1/new\"", m.at()));
    let open = m.path("open");
    fs::create_dir(&open).expect("a new name");
    chmod(&open, 0o1777);
    assert!(nobody_can("mkdir \"$1/d\" && touch \"$1/n\" && ln -s x \"$1/l\"", &open));
    let about = fs::metadata(open.join("n")).expect("there");
    assert_eq!((about.uid(), about.gid()), (NOBODY, NOBODY));
    fs::write(open.join("roots"), "x").expect("written");
    assert!(!nobody_can("rm -f \"$1/roots\"", &open), "a sticky directory");
    assert!(nobody_can("rm \"$1/n\"", &open));
    chmod(&open, 0o700);
    assert!(!nobody_can("ls \"$1\"", &open) && !nobody_can("cat \"$1/roots\"", &open));
    m.unmount();
    m.try_mount(&[]).ok();
    chmod(m.at(), 0o755);
    assert!(!nobody_can("cat \"$1\"", &file), "without allow_other nobody else gets in");
    m.finish();
}

#[test]
fn what_lets_a_file_act_for_its_owner_goes_when_others_change_it() {
    let m = Mounted::with(&SMALL, &["allow_other", "suid"]);
    let file = m.path("f");
    for (script, left) in [("echo >>\"$1\"", 0o777), (": >\"$1\"", 0o777), ("truncate -s 9 \"$1\"", 0o777)] {
        fs::write(&file, "#!/bin/sh").expect("written");
        chmod(&file, 0o6777);
        assert!(nobody_can(script, &file), "{script}");
        assert_eq!(mode(&file), left, "after {script}");
    }
    chmod(&file, 0o6755);
    chown(&file, Some(1), Some(1)).expect("root may");
    assert_eq!(mode(&file), 0o755, "after chown");
    m.finish();
}

#[test]
fn a_set_group_id_directory_hands_its_group_down() {
    let m = Mounted::new();
    let dir = m.path("shared");
    fs::create_dir(&dir).expect("a new name");
    chown(&dir, None, Some(4321)).expect("root may");
    chmod(&dir, 0o2775);
    fs::write(dir.join("f"), "x").expect("written");
    fs::create_dir(dir.join("d")).expect("a new name");
    symlink("x", dir.join("l")).expect("a new name");
    let about = |name: &str| fs::symlink_metadata(dir.join(name)).expect("there");
    assert_eq!([about("f").gid(), about("d").gid(), about("l").gid()], [4321; 3]);
    assert_eq!((about("d").mode() & 0o2000, about("f").mode() & 0o2000), (0o2000, 0));
    m.finish();
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let m = Mounted::new();
    fs::write(m.path("f"), "kept").expect("written");
    m.unmount();
    m.try_mount(&["ro"]).ok();
    assert_eq!(fs::read(m.path("f")).expect("there"), b"kept");
    assert_eq!(errno(fs::write(m.path("f"), "x")), Errno::ROFS);
    assert_eq!(errno(fs::write(m.path("g"), "x")), Errno::ROFS);
    assert_eq!(errno(fs::remove_file(m.path("f"))), Errno::ROFS);
    assert_eq!(errno(fs::set_permissions(m.path("f"), Permissions::from_mode(0o600))), Errno::ROFS);
    assert_eq!(errno(fs::rename(m.path("f"), m.path("g"))), Errno::ROFS);
    assert_eq!(fs::read_dir(m.at()).expect("a directory").count(), 1);
    m.finish();
}
