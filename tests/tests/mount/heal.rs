//! Damage behind a mount's back: what programs read, what the mount tells, and what becomes of the files below.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, run, wait_until};
use rustix::io::Errno;
use serde_json::Value;

const LEN: usize = 3 << 20;

/// A mounted volume with a file of noise, which nothing has in a cache.
fn with_a_file() -> (Mounted, Vec<u8>) {
    let m = Mounted::new();
    fs::create_dir(m.path("photos")).expect("made");
    let bytes = noise(7, LEN);
    fs::write(m.path("photos/one"), &bytes).expect("written");
    m.sync();
    m.remount();
    (m, bytes)
}

pub(crate) fn stats(m: &Mounted) -> Value {
    let text = run("cairn", ["stats".as_ref(), "--json".as_ref(), m.dir().as_os_str()]).ok();
    serde_json::from_str(&text).expect("one JSON document")
}

/// The longest pack: what holds the file.
pub(crate) fn pack(dir: &Path) -> PathBuf {
    let files = |dir: &Path| fs::read_dir(dir).expect("lists").map(|e| e.expect("an entry").path()).collect();
    let dirs: Vec<PathBuf> = files(&dir.join("store/packs"));
    let packs = dirs.iter().flat_map(|dir| -> Vec<PathBuf> { files(dir) });
    packs.max_by_key(|path| fs::metadata(path).expect("there").len()).expect("a pack")
}

/// Makes bytes other ones.
pub(crate) fn flip(path: &Path, at: u64, len: usize) {
    let file = File::options().read(true).write(true).open(path).expect("there");
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).expect("reads");
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&bytes, at).expect("writes");
}

#[test]
fn what_rots_behind_a_mount_is_read_right_told_of_and_mended() {
    let (m, bytes) = with_a_file();
    let pack = pack(m.dir());
    let before = fs::read(&pack).expect("reads");
    flip(&pack, 1_000_000, 150_000);
    assert!(fs::read(m.path("photos/one")).expect("healed") == bytes);
    wait_until("it is mended", || {
        let stats = stats(&m);
        stats["heals_rewritten"].as_u64() > Some(0) && stats["packs_waiting"] == 0
    });
    assert!(fs::read(&pack).expect("reads") == before, "the file below is not what it was");

    let stats = stats(&m);
    assert!(stats["heals_answered"].as_u64() > Some(0) && stats["heals_lost"] == 0, "{stats}");
    assert_eq!(stats["heals_rewritten"], 1, "one run of bytes, one event: {stats}");
    let name = pack.file_stem().expect("has one").to_string_lossy().into_owned();
    let events = stats["heal_events"].as_array().expect("events");
    assert!(events.iter().any(|e| e["outcome"] == "answered" && e["pack"] == name.as_str()), "{stats}");
    assert!(events.iter().any(|e| e["outcome"] == "rewritten"), "{stats}");
    let hidden: Value = serde_json::from_slice(&fs::read(m.path(".stats")).expect("hidden")).expect("JSON");
    assert_eq!(hidden["heals_rewritten"], stats["heals_rewritten"]);
    let told = run("cairn", ["stats".as_ref(), m.dir().as_os_str()]).ok();
    assert!(told.contains("damage, the last of it\n") && told.contains("rewritten  pack "), "{told}");
    let log = fs::read_to_string(m.dir().join("log")).expect("a log");
    let line = log.lines().find(|line| line.contains("(/photos/one) is damaged at "));
    assert!(line.is_some_and(|line| line.contains(&name)), "{log}");
    m.finish();
}

#[test]
fn a_remount_says_what_is_done_about_damage() {
    let (m, bytes) = with_a_file();
    let pack = pack(m.dir());
    let config =
        || -> Value { serde_json::from_slice(&fs::read(m.path(".config")).expect("hidden")).expect("JSON") };
    assert_eq!(
        (&config()["options"]["heal"], &config()["options"]["parity"]),
        (&"on".into(), &"16+2".into())
    );
    m.try_mount(&["remount,heal=off"]).ok();
    assert_eq!(config()["options"]["heal"], "off");
    flip(&pack, 1_000_000, 1);
    let error = fs::read(m.path("photos/one")).expect_err("nothing mends it");
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    let log = fs::read_to_string(m.dir().join("log")).expect("a log");
    let line = log.lines().find(|line| line.contains("(/photos/one) cannot be read at "));
    assert!(line.is_some_and(|line| line.contains(", chunk ") && line.contains("pack ")), "{log}");

    m.try_mount(&["remount,heal=ro"]).ok();
    let damaged = fs::read(&pack).expect("reads");
    assert!(fs::read(m.path("photos/one")).expect("healed") == bytes);
    assert!(run("cairn", ["info".as_ref(), m.dir().as_os_str()]).ok().contains("healing        ro\n"));
    let waiting = stats(&m);
    assert!(waiting["packs_waiting"] == 1 && waiting["heals_rewritten"] == 0, "{waiting}");
    assert!(fs::read(&pack).expect("reads") == damaged, "nothing was to be written");
    m.try_mount(&["remount,heal=on"]).ok();
    wait_until("it is mended", || stats(&m)["packs_waiting"] == 0);
    assert!(fs::read(&pack).expect("reads") != damaged);

    m.try_mount(&["remount,parity=8+2"]).refused(2, &["parity", "remount"]);
    m.try_mount(&["remount,parity=16+2"]).ok();
    m.finish();
}

#[test]
fn people_are_told_what_parity_is_good_for() {
    let m = Mounted::new();
    fs::write(m.path("f"), noise(1, 100_000)).expect("written");
    m.sync();
    let info = run("cairn", ["info".as_ref(), m.dir().as_os_str()]).ok();
    assert!(info.contains("16+2: any 2 bad sectors of a pack; any hole up to 7.9 MiB"), "{info}");
    let why = run("cairn", ["why".as_ref(), m.path("f").as_os_str()]).ok();
    assert!(why.contains("margin         parity 16+2: any 2 bad sectors of each pack\n"), "{why}");
    m.unmount();
    m.try_mount(&["parity=none"]).ok();
    fs::write(m.path("g"), noise(2, 100_000)).expect("written");
    m.sync();
    let why = run("cairn", ["why".as_ref(), m.path("g").as_os_str()]).ok();
    assert!(why.contains("margin         none"), "{why}");
    m.unmount();
    m.try_mount(&["ro,parity=16+2"]).refused(2, &["parity", "'ro'"]);
    m.mount();
    m.finish();
}
