//! `cairn scrub`: damage behind a mount's back, runs that are cut, volumes that nobody has mounted.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, Ran, program, run, wait_until};
use serde_json::Value;

const MIB: usize = 1 << 20;
const MKFS: [&str; 4] = ["--journal-size", "32M", "--segment-size", "4M"];
const FILES: u64 = 12;

fn scrub(path: &Path, arguments: &[&str]) -> Ran {
    let arguments = arguments.iter().map(OsStr::new);
    run("cairn", [OsStr::new("scrub"), path.as_os_str()].into_iter().chain(arguments))
}

fn document(text: &str) -> Value {
    let document: Value = serde_json::from_str(text).expect("one JSON document");
    assert_eq!(
        (document["message_type"].as_str(), document["schema_version"].as_u64()),
        (Some("scrub"), Some(1))
    );
    document
}

fn report(path: &Path, arguments: &[&str]) -> Value {
    let all: Vec<_> = arguments.iter().copied().chain(["--json"]).collect();
    document(&scrub(path, &all).ok())
}

fn field(document: &Value, name: &str) -> u64 {
    document[name].as_u64().unwrap_or_else(|| panic!("{name} in {document}"))
}

fn fill(m: &Mounted) {
    for seed in 0..FILES {
        fs::write(m.path(seed.to_string()), noise(seed, MIB)).expect("written");
        if seed % 3 == 2 {
            m.sync();
        }
    }
}

fn all_there(m: &Mounted) {
    for seed in 0..FILES {
        assert!(fs::read(m.path(seed.to_string())).expect("readable") == noise(seed, MIB), "file {seed}");
    }
}

/// The packs' files, the largest first.
fn packs(dir: &Path) -> Vec<PathBuf> {
    let dirs = fs::read_dir(dir.join("store/packs")).expect("packs").flatten();
    let mut packs: Vec<_> = dirs
        .flat_map(|dir| fs::read_dir(dir.path()).expect("a directory").flatten())
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "pack"))
        .collect();
    packs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).expect("there").len()));
    packs
}

fn spoil(pack: &Path, from: u64, len: usize) {
    let file = OpenOptions::new().read(true).write(true).open(pack).expect("a pack");
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, from).expect("within");
    bytes.iter_mut().for_each(|byte| *byte ^= 0xa5);
    file.write_all_at(&bytes, from).expect("written");
    file.sync_all().expect("synced");
}

#[test]
fn damage_behind_a_mounts_back_is_corrected_and_the_next_scrub_is_clean() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    fill(&m);
    let all = packs(m.dir());
    let before: Vec<_> = all.iter().map(|pack| fs::read(pack).expect("a pack")).collect();
    for pack in &all[..2] {
        spoil(pack, 300_000, 9_000);
    }
    let told = report(m.at(), &["--deep"]);
    assert_eq!((told["finished"].as_bool(), field(&told, "sectors_uncorrected")), (Some(true), 0), "{told}");
    assert!(field(&told, "packs_corrected") >= 1 && field(&told, "chunks") > 0, "{told}");
    let after: Vec<_> = all.iter().map(|pack| fs::read(pack).expect("a pack")).collect();
    assert!(before == after, "other bytes than there were");
    let again = report(m.at(), &[]);
    assert_eq!((field(&again, "sectors_corrected"), field(&again, "packs_before")), (0, 0), "{again}");
    assert_eq!(field(&again, "sectors_checked"), field(&again, "sectors_total"), "{again}");
    let text = scrub(m.at(), &["--errors-only"]).ok();
    assert!(text.contains("sectors of 4 KiB") && text.contains("uncorrected"), "{text}");
    all_there(&m);
    m.remount();
    all_there(&m);
    m.finish();
}

#[test]
fn what_is_lost_is_told_with_path_and_range_and_exit_code_3() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    fill(&m);
    fs::create_dir(m.path("dir")).expect("made");
    fs::write(m.path("dir/one"), noise(77, MIB)).expect("written");
    m.sync();
    m.unmount();
    let largest = &packs(m.dir())[0];
    let len = usize::try_from(fs::metadata(largest).expect("there").len()).expect("small");
    spoil(largest, 100_000, len * 3 / 4 - 100_000);
    let failed = scrub(m.dir(), &["--json"]);
    assert_eq!(failed.code, 3, "{failed:?}");
    assert!(failed.err.contains("damaged still") && failed.err.contains("lost bytes"), "{}", failed.err);
    let told = document(&failed.out);
    assert!(field(&told, "sectors_uncorrected") > 0, "{told}");
    let files = told["files"].as_array().expect("a list");
    assert!(!files.is_empty(), "{told}");
    m.mount();
    for file in files {
        let path = file["paths"][0].as_str().expect("a name").trim_start_matches('/').to_string();
        let range = &file["ranges"][0];
        let (at, len) = (range[0].as_u64().expect("an offset"), range[1].as_u64().expect("a length"));
        let mut bytes = vec![0; usize::try_from(len).expect("small")];
        let opened = File::open(m.path(&path)).expect("there");
        assert!(opened.read_exact_at(&mut bytes, at).is_err(), "{path} at {at} can be read");
    }
    // The daemon tells the same, a line each.
    let mounted = scrub(m.at(), &["--json"]);
    assert_eq!(mounted.code, 3, "{mounted:?}");
    let told = document(&mounted.out);
    assert_eq!(told["files"].as_array().map(Vec::len), Some(files.len()), "{told}");
    m.unmount();
}

#[test]
fn a_run_that_is_cut_is_gone_on_with_mounted_or_not() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    fill(&m);
    let late = report(m.at(), &["--max-duration", "0s"]);
    assert_eq!((late["stopped"].as_str(), field(&late, "packs")), (Some("time"), 1), "{late}");
    // A client that is killed while the daemon reads slowly.
    let mut client = Command::new(program("cairn"));
    client.arg("scrub").arg(m.at()).args(["--rate", "1"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = client.spawn().expect("cairn");
    std::thread::sleep(std::time::Duration::from_millis(300));
    client.kill().expect("a child");
    client.wait().expect("it ends");
    wait_until("the run that nobody listens to ended", || scrub(m.at(), &["--max-duration", "0s"]).code == 0);
    m.unmount();
    let rest = report(m.dir(), &[]);
    assert_eq!(rest["finished"].as_bool(), Some(true), "{rest}");
    assert!(field(&rest, "packs_before") >= 2, "{rest}");
    assert_eq!(field(&rest, "packs"), field(&rest, "packs_total"), "{rest}");
    let all = report(m.dir(), &[]);
    assert_eq!(field(&all, "packs_before"), 0, "{all}");
    m.mount();
    all_there(&m);
    m.finish();
}

#[test]
fn scrub_works_on_a_volume_that_is_not_mounted_and_says_what_it_cannot_do() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    fill(&m);
    m.unmount();
    let pack = &packs(m.dir())[0];
    let before = fs::read(pack).expect("a pack");
    spoil(pack, 200_000, 100);
    let looked = scrub(m.dir(), &["--no-repair"]);
    assert_eq!(looked.code, 3, "{looked:?}");
    assert!(fs::read(pack).expect("a pack") != before);
    let told = report(m.dir(), &["--path", "/0"]);
    assert!(field(&told, "packs_total") < packs(m.dir()).len() as u64, "{told}");
    let told = report(m.dir(), &["--deep"]);
    assert_eq!(field(&told, "sectors_uncorrected"), 0, "{told}");
    assert!(fs::read(pack).expect("a pack") == before);
    scrub(m.dir(), &["--path", "/no/such"]).refused(1, &["no/such"]);
    let empty = m.beside("empty");
    fs::create_dir(&empty).expect("a new name");
    scrub(&empty, &[]).refused(10, &[empty.to_str().expect("UTF-8")]);
    for wrong in [["--rate", "0"], ["--max-duration", "soon"], ["--colour", "blue"]] {
        scrub(m.dir(), &wrong).refused(2, &[wrong[0]]);
    }
    m.mount();
    all_there(&m);
    m.finish();
}
