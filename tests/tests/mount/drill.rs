//! `cairn drill`: on a volume that is mounted and in use, on one that is not, interrupted, and where there is nothing to keep.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, Ran, program, run, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const MIB: usize = 1 << 20;
const MKFS: [&str; 4] = ["--journal-size", "32M", "--segment-size", "4M"];

/// Runs it with copies in a directory of this test's, which is given back, too.
fn drill(m: &Mounted, path: &Path, arguments: &[&str]) -> (Ran, PathBuf) {
    let scratch = m.beside("scratch");
    fs::create_dir_all(&scratch).expect("beside the volume");
    let given = [OsStr::new("--scratch"), scratch.as_os_str(), OsStr::new("--rounds"), OsStr::new("1")];
    let arguments = arguments.iter().map(OsStr::new).chain(given);
    (run("cairn", [OsStr::new("drill"), path.as_os_str()].into_iter().chain(arguments)), scratch)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).expect("a directory").next().is_none()
}

fn document(text: &str) -> Value {
    let document: Value = serde_json::from_str(text).expect("one JSON document");
    assert_eq!(
        (document["message_type"].as_str(), document["schema_version"].as_u64()),
        (Some("drill"), Some(1))
    );
    document
}

fn number(document: &Value, name: &str) -> u64 {
    document[name].as_u64().unwrap_or_else(|| panic!("{name} in {document}"))
}

/// Every file of a directory but sockets, with its bytes and when it was last written.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("listed").path();
        let about = fs::symlink_metadata(&path).expect("there");
        if about.is_dir() {
            all.extend(contents(&path));
        } else if about.is_file() {
            let bytes = fs::read(&path).expect("readable");
            all.insert(path, (bytes, about.modified().expect("a time")));
        }
    }
    all
}

fn fill(m: &Mounted) {
    for seed in 0..6 {
        fs::write(m.path(seed.to_string()), noise(seed, MIB)).expect("written");
    }
    m.sync();
}

#[test]
fn a_drill_keeps_the_promise_changes_nothing_and_cleans_up_mounted_or_not() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    fill(&m);
    // What the mount itself writes in between, its log say, is none of the drill's.
    let packs = contents(&m.dir().join("store/packs"));
    let (ran, scratch) = drill(&m, m.at(), &["--seed", "7", "--json"]);
    let mounted = document(&ran.ok());
    assert!(is_empty(&scratch));
    assert!(packs == contents(&m.dir().join("store/packs")), "packs are not what they were");
    assert_eq!((mounted["kept"].as_bool(), number(&mounted, "wrong")), (Some(true), 0), "{mounted}");
    assert_eq!(mounted["margins"].as_array().map(Vec::len), Some(2), "{mounted}");
    m.unmount();

    let before = contents(m.dir());
    let (ran, scratch) = drill(&m, m.dir(), &["--seed", "7"]);
    let text = ran.ok();
    for part in
        ["promised: 16+2", "The promise was kept", "the longest hole promised", "not promised", "seed 7"]
    {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert!(is_empty(&scratch));
    assert!(before == contents(m.dir()), "the volume is not what it was");

    let (ran, scratch) = drill(&m, m.dir(), &["--keep", "--json"]);
    let kept = document(&ran.ok());
    let copies = Path::new(kept["copies"].as_str().expect("a path"));
    assert!(copies.starts_with(&scratch) && copies.join("original/packs").is_dir(), "{kept}");
    m.mount();
    fs::write(m.path("more"), b"more").expect("written");
    m.finish();
}

#[test]
fn a_drill_that_is_interrupted_leaves_no_copies() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    fill(&m);
    let scratch = m.beside("scratch");
    fs::create_dir(&scratch).expect("a new name");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut command = Command::new(program("cairn"));
        command.arg("drill").arg(m.at()).arg("--scratch").arg(&scratch).args(["--rounds", "10000"]);
        let mut drill = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("cairn");
        wait_until("it has made copies", || {
            !is_empty(&scratch) || drill.try_wait().expect("a child").is_some()
        });
        let pid = Pid::from_raw(i32::try_from(drill.id()).expect("a process's number"));
        kill(pid, signal).expect("it runs");
        let ended = drill.wait_with_output().expect("a child");
        assert_eq!(ended.status.code(), Some(130), "{ended:?}");
        assert!(is_empty(&scratch), "copies are left over");
    }
    m.finish();
}

#[test]
fn without_parity_losses_are_told_with_exit_code_3_and_what_cannot_be_done_is_refused() {
    let m = Mounted::with(&[&MKFS[..], &["--parity", "none"]].concat(), &["gc=off"]);
    let (ran, _) = drill(&m, m.at(), &[]);
    let empty = ran.code == 0;
    assert!(!empty, "{ran:?}");
    fill(&m);
    let (ran, scratch) = drill(&m, m.at(), &["--json"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("no parity"), "{}", ran.err);
    let told = document(&ran.out);
    assert_eq!((told["kept"].as_bool(), number(&told, "wrong")), (Some(false), 0), "{told}");
    let lines = told["damages"].as_array().expect("a list");
    assert!(lines.iter().any(|line| line["told"].as_u64() > Some(0) && line["damage"] == "garbage-sectors"));
    assert!(is_empty(&scratch));

    let inside = ["drill", "--scratch"].map(OsStr::new);
    for below in [m.at().to_path_buf(), m.dir().join("store")] {
        run("cairn", inside.iter().copied().chain([below.as_os_str(), m.at().as_os_str()]))
            .refused(1, &["--scratch"]);
    }
    let (ran, _) = drill(&m, &m.beside("scratch"), &[]);
    ran.refused(10, &["scratch"]);
    for wrong in [["--sample", "much"], ["--rounds", "0"], ["--seed", "x"]] {
        let arguments = ["drill", wrong[0], wrong[1]].map(OsStr::new);
        run("cairn", arguments.into_iter().chain([m.at().as_os_str()])).refused(2, &[wrong[0]]);
    }
    m.finish();
}
