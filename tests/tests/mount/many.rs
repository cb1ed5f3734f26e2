//! Many files, and many in one directory. How many: `CAIRN_MANY` (a million takes minutes).

use std::fs::{self, File};

use cairn_tests::mounted::{Mounted, daemon_of};

fn many() -> usize {
    std::env::var("CAIRN_MANY").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

/// The daemon's highest resident memory so far, in KiB.
fn highest_memory(m: &Mounted) -> u64 {
    let pid = daemon_of(m.dir()).expect("a daemon has the volume");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn make(m: &Mounted, in_each: usize) {
    for i in 0..many() {
        let dir = m.path(format!("d{}", i / in_each));
        if i % in_each == 0 {
            fs::create_dir(&dir).expect("a new name");
        }
        File::create_new(dir.join(format!("f{i}"))).expect("a new name");
    }
}

fn check(m: Mounted, in_each: usize) {
    m.sync();
    assert!(highest_memory(&m) < 600 << 10, "{} KiB", highest_memory(&m));
    m.remount();
    assert_eq!(m.df("files"), (many() + many().div_ceil(in_each) + 1) as u64, "and the root");
    for d in 0..many().div_ceil(in_each) {
        let mut names: Vec<_> = fs::read_dir(m.path(format!("d{d}")))
            .expect("a directory")
            .map(|entry| entry.expect("listed").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        let mut expected: Vec<_> =
            (d * in_each..many().min((d + 1) * in_each)).map(|i| format!("f{i}")).collect();
        expected.sort();
        assert!(names == expected, "{} names in d{d}", names.len());
    }
    assert!(highest_memory(&m) < 600 << 10, "{} KiB", highest_memory(&m));
    m.finish();
}

#[test]
fn many_files_are_all_there_after_a_mount_in_bounded_memory() {
    let m = Mounted::with(&[], &[]);
    make(&m, 1000);
    check(m, 1000);
}

#[test]
fn a_directory_of_many_names_lists_each_once() {
    let m = Mounted::with(&[], &[]);
    make(&m, many());
    check(m, many());
}
