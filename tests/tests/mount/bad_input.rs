//! Bad input: the exit code, a sentence that names the file and says what to do, and nothing changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, Ran, SMALL, daemon_of, is_mounted, run};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// All files below a directory and their bytes; who may have looked at it (the lock, the log) left out.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("listed").path();
        match path.file_name().and_then(OsStr::to_str) {
            Some("lock" | "log") => {}
            _ if path.is_dir() => {
                found.insert(path.clone(), Vec::new());
                found.extend(snapshot(&path));
            }
            _ if path.is_file() => drop(found.insert(path.clone(), fs::read(&path).expect("a file"))),
            // A socket, say.
            _ => drop(found.insert(path, Vec::new())),
        }
    }
    found
}

/// Runs something that must leave `dir` as it is.
#[track_caller]
fn unchanged(dir: &Path, f: impl FnOnce() -> Ran) -> Ran {
    let before = snapshot(dir);
    let ran = f();
    assert!(snapshot(dir) == before, "{} changed something in {}", ran.line, dir.display());
    ran
}

/// Changes bytes of a file in place.
fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    File::options().write(true).open(path).expect("there").write_all_at(bytes, offset).expect("written");
}

fn flip(path: &Path, offset: u64) {
    let mut byte = [0];
    File::open(path).expect("there").read_exact_at(&mut byte, offset).expect("within the file");
    patch(path, offset, &[byte[0] ^ 1]);
}

fn mkfs(arguments: &[&str]) -> Ran {
    run("mkfs-cairn", arguments)
}

#[test]
fn what_is_no_volume_is_not_mounted() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let other = m.beside("other");
    fs::create_dir(&other).expect("a new name");
    let mount = |dir: &Path| run("cairn", ["mount", text(dir), text(m.at())]);
    unchanged(&other, || mount(&other)).refused(10, &[text(&other), "not a cairn volume", "mkfs.cairn"]);
    fs::write(other.join("letter"), "dear").expect("written");
    unchanged(&other, || mount(&other)).refused(10, &[text(&other), "not a cairn volume"]);
    fs::write(other.join("superblock"), vec![7; 4096]).expect("written");
    unchanged(&other, || mount(&other)).refused(10, &[text(&other), "not a cairn volume"]);
    assert!(!other.join("lock").exists(), "not even a lock's file is made");
    mount(&m.beside("none")).refused(10, &[text(&m.beside("none")), "does not exist", "mkfs.cairn"]);
    mount(&other.join("letter")).refused(10, &["letter", "not a directory"]);
    run("cairn", ["umount", text(&other)]).refused(1, &[text(&other), "not mounted"]);
    for verb in ["sync", "df", "info", "stats"] {
        run("cairn", [verb, text(&other)]).refused(10, &[text(&other), "not a cairn volume"]);
    }
    m.fsck();
}

#[test]
fn mkfs_replaces_an_unmounted_volume_and_nothing_else() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let (dir, other) = (text(m.dir()).to_owned(), m.beside("other"));
    fs::create_dir(&other).expect("a new name");
    fs::write(other.join("letter"), "dear").expect("written");
    for arguments in [&[text(&other)][..], &["-f", text(&other)]] {
        unchanged(&other, || mkfs(arguments)).refused(1, &[text(&other), "letter"]);
    }
    fs::write(other.join("superblock"), "not cairn's").expect("written");
    unchanged(&other, || mkfs(&["-f", text(&other)])).refused(1, &[text(&other)]);
    fs::remove_file(other.join("letter")).expect("there");
    unchanged(&other, || mkfs(&["-f", text(&other)])).refused(1, &[text(&other)]);
    unchanged(m.dir(), || mkfs(&[&dir])).refused(1, &[&dir, "-f"]);
    fs::write(m.dir().join("letter"), "dear").expect("written");
    unchanged(m.dir(), || mkfs(&["-f", &dir])).refused(1, &[&dir, "letter"]);
    fs::remove_file(m.dir().join("letter")).expect("there");
    m.mount();
    fs::write(m.path("f"), "kept").expect("written");
    mkfs(&["-f", &dir]).refused(1, &[&dir, text(m.at()), "unmount"]);
    assert_eq!(fs::read(m.path("f")).expect("there"), b"kept");
    m.remount();
    assert_eq!(fs::read(m.path("f")).expect("there"), b"kept");
    m.unmount();
    mkfs(&["-f", "-q", &dir]).ok();
    m.mount();
    assert_eq!(fs::read_dir(m.at()).expect("a directory").count(), 0, "replaced");
    mkfs(&[text(&m.beside("none/below"))]).refused(1, &["none/below"]);
    mkfs(&["--frame-size", "1", text(&m.beside("new"))]).refused(1, &["frame size"]);
    assert!(!m.beside("new").exists());
    m.finish();
}

#[test]
fn a_newer_format_is_left_alone() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let older = fs::read(m.dir().join("superblock")).expect("there");
    for name in ["superblock", "superblock.backup"] {
        patch(&m.dir().join(name), 8, &(cairn_format::FORMAT_VERSION + 1).to_le_bytes());
    }
    for options in [&[][..], &["ro"]] {
        unchanged(m.dir(), || m.try_mount(options)).refused(1, &[text(m.dir()), "newer"]);
    }
    // One replica that a newer version wrote is enough.
    fs::write(m.dir().join("superblock"), older).expect("written");
    unchanged(m.dir(), || m.try_mount(&[])).refused(1, &[text(m.dir()), "newer"]);
    assert!(!is_mounted(m.at()));
}

#[test]
fn a_mounted_volume_is_not_mounted_again() {
    let m = Mounted::new();
    let second = m.beside("second");
    fs::create_dir(&second).expect("a new name");
    let pid = daemon_of(m.dir()).expect("a daemon").to_string();
    for at in [text(&second), text(m.at())] {
        run("cairn", ["mount", text(m.dir()), at])
            .refused(11, &[text(m.dir()), text(m.at()), &pid, "cairn umount"]);
    }
    let other = Mounted::unmounted(&SMALL, &[]);
    run("cairn", ["mount", text(other.dir()), text(m.at())])
        .refused(1, &[text(m.at()), "busy", text(m.dir())]);
    let fsck = run("fsck-cairn", ["-n", text(m.dir())]);
    assert!(
        fsck.code == 8 || fsck.code == 0 && fsck.out.is_empty(),
        "fsck of a mounted volume: {}",
        fsck.err
    );
    fs::write(m.path("f"), "x").expect("still works");
    m.finish();
}

#[test]
fn mountpoints_are_directories_outside_the_volume() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let mount = |at: &Path| run("cairn", ["mount", text(m.dir()), text(at)]);
    let none = m.beside("none");
    unchanged(m.dir(), || mount(&none)).refused(1, &[text(&none), "does not exist", "mkdir"]);
    let file = m.beside("file");
    fs::write(&file, "x").expect("written");
    unchanged(m.dir(), || mount(&file)).refused(1, &[text(&file), "not a directory"]);
    for inside in
        [m.dir().to_path_buf(), m.dir().join("store"), m.dir().parent().expect("has one").to_path_buf()]
    {
        unchanged(m.dir(), || mount(&inside)).refused(1, &[text(&inside), "mountpoint"]);
    }
    m.fsck();
}

#[test]
fn unknown_words_are_wrong_usage() {
    let m = Mounted::unmounted(&SMALL, &[]);
    let (dir, at) = (text(m.dir()), text(m.at()));
    unchanged(m.dir(), || m.try_mount(&["no_such_option"])).refused(2, &["no_such_option", "-s"]);
    m.try_mount(&["noatime,cache_size=much"]).refused(2, &["cache_size=much"]);
    run("cairn", ["mount", "-s", "-o", "no_such_option", dir, at]).ok();
    m.unmount();
    run("cairn", ["frobnicate"]).refused(2, &["frobnicate"]);
    run("cairn", ["mount", dir]).refused(2, &[]);
    run("cairn", ["mount", "--no-such", dir, at]).refused(2, &["--no-such"]);
    run::<&str>("cairn", []).refused(2, &["Usage"]);
    mkfs(&["--no-such", dir]).refused(2, &["--no-such"]);
    mkfs(&["--compress", "lz4", dir]).refused(2, &["lz4", "zstd"]);
    run("cairn", ["--help"]).ok();
    run("cairn", ["--version"]).ok();
    m.fsck();
}

#[test]
fn one_damaged_superblock_is_enough_and_two_are_too_many() {
    let m = Mounted::new();
    fs::write(m.path("f"), "kept").expect("written");
    m.unmount();
    let replicas = ["superblock", "superblock.backup"].map(|name| m.dir().join(name));
    let cut =
        |path: &Path| File::options().write(true).open(path).and_then(|f| f.set_len(100)).expect("there");
    for (number, path) in replicas.iter().enumerate() {
        if number == 0 {
            cut(path)
        } else {
            flip(path, 200)
        }
        m.mount();
        assert_eq!(fs::read(m.path("f")).expect("there"), b"kept");
        m.unmount();
        let log = fs::read_to_string(m.dir().join("log")).expect("a log");
        let name = path.file_name().and_then(OsStr::to_str).expect("UTF-8");
        assert!(log.lines().any(|l| l.contains("WARN") && l.contains(name)), "no warning of {name}: {log}");
        assert_eq!(fs::metadata(path).expect("there").len(), 4096, "the mount wrote both anew");
    }
    let whole = replicas.each_ref().map(|path| fs::read(path).expect("there"));
    flip(&replicas[0], 200);
    cut(&replicas[1]);
    for options in [&[][..], &["ro"]] {
        unchanged(m.dir(), || m.try_mount(options)).refused(1, &[text(m.dir()), "superblock", "damaged"]);
    }
    for (path, bytes) in replicas.iter().zip(whole) {
        fs::write(path, bytes).expect("written");
    }
    m.mount();
    assert_eq!(fs::read(m.path("f")).expect("there"), b"kept");
    m.finish();
}

/// The file and the offset at which `bytes` lie in the volume's journal.
fn in_journal(m: &Mounted, bytes: &[u8]) -> (PathBuf, u64) {
    for entry in fs::read_dir(m.dir().join("journal")).expect("a journal") {
        let path = entry.expect("listed").path();
        let segment = fs::read(&path).expect("a segment");
        if let Some(at) = segment.windows(bytes.len()).position(|w| w == bytes) {
            return (path, at as u64);
        }
    }
    panic!("these bytes are not in the journal");
}

/// A volume whose daemon was killed: `before`, `f` and `after` were written, and all of it synced.
fn crashed() -> Mounted {
    let m = Mounted::new();
    for (name, seed) in [("before", 1), ("f", 2), ("after", 3)] {
        fs::write(m.path(name), noise(seed, 8192)).expect("written");
        File::open(m.path(name)).and_then(|f| f.sync_all()).expect("synced");
    }
    m.kill();
    m.take_away();
    m
}

#[test]
fn a_damaged_journal_is_not_mounted_for_writing() {
    let m = crashed();
    let (segment, at) = in_journal(&m, &noise(2, 8192)[..64]);
    // The last of the payload's checksums, which the record's own covers.
    flip(&segment, at - 1);
    unchanged(m.dir(), || m.try_mount(&[]))
        .refused(1, &[text(m.dir()), "damaged", "journal", "fsck.cairn", "ro"]);
    assert!(!is_mounted(m.at()));
    // What lies before the damage can be read.
    m.try_mount(&["ro"]).ok();
    assert!(fs::read(m.path("before")).expect("there") == noise(1, 8192));
    m.unmount();
    flip(&segment, at - 1);
    m.mount();
    assert!(fs::read(m.path("after")).expect("there") == noise(3, 8192), "nothing was changed");
    m.finish();
}

#[test]
fn damaged_bytes_are_an_error_and_never_wrong() {
    let m = crashed();
    let (segment, at) = in_journal(&m, &noise(2, 8192)[..64]);
    flip(&segment, at + 5000);
    m.try_mount(&["ro"]).ok();
    assert_eq!(crate::errno(fs::read(m.path("f"))), rustix::io::Errno::IO);
    assert!(fs::read(m.path("after")).expect("there") == noise(3, 8192));
    m.unmount();
    flip(&segment, at + 5000);
    m.mount();
    m.sync();
    m.unmount();
    // A flipped byte in every pack: what it holds is an error, or another copy is read.
    let packs: Vec<_> =
        snapshot(&m.dir().join("store/packs")).into_iter().filter(|(p, _)| p.is_file()).collect();
    let data = packs.iter().max_by_key(|(_, bytes)| bytes.len()).expect("a pack");
    flip(&data.0, data.1.len() as u64 / 3);
    let mounted = m.try_mount(&["ro"]);
    if mounted.code == 0 {
        for (name, seed) in [("before", 1), ("f", 2), ("after", 3)] {
            if let Ok(found) = fs::read(m.path(name)) {
                assert!(found == noise(seed, 8192), "{name} reads as something else");
            }
        }
        m.unmount();
    }
}

#[test]
fn a_torn_tail_is_no_damage() {
    let m = Mounted::new();
    fs::write(m.path("synced"), noise(1, 8192)).expect("written");
    File::open(m.path("synced")).and_then(|f| f.sync_all()).expect("synced");
    fs::write(m.path("torn"), noise(2, 8192)).expect("written");
    m.kill();
    m.take_away();
    let (segment, at) = in_journal(&m, &noise(2, 8192)[..64]);
    flip(&segment, at - 1);
    m.mount();
    assert!(fs::read(m.path("synced")).expect("there") == noise(1, 8192));
    // Its name came first; its bytes nobody was promised.
    assert_eq!(fs::read(m.path("torn")).expect("there"), b"");
    m.finish();
}

#[test]
fn a_lost_journal_or_store_is_damage() {
    let m = crashed();
    let away = m.beside("away");
    for name in ["journal", "store"] {
        fs::rename(m.dir().join(name), &away).expect("there");
        m.try_mount(&[]).refused(1, &[text(m.dir()), name]);
        assert!(!is_mounted(m.at()));
        // Whatever was made there is not more than an empty directory.
        let _ = fs::remove_dir(m.dir().join(name));
        fs::rename(&away, m.dir().join(name)).expect("free again");
    }
    m.mount();
    assert!(fs::read(m.path("after")).expect("there") == noise(3, 8192));
    m.finish();
}
