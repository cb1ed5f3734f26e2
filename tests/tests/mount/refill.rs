//! `cairn repair`: what is lost beyond parity is had back from copies elsewhere, mounted or not, for good.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, Ran, run};
use serde_json::Value;

const MIB: usize = 1 << 20;
const MKFS: [&str; 4] = ["--journal-size", "32M", "--segment-size", "4M"];
const FILES: u64 = 6;

fn repair(path: &Path, arguments: &[&OsStr]) -> Ran {
    run("cairn", [OsStr::new("repair"), path.as_os_str()].into_iter().chain(arguments.iter().copied()))
}

fn report(ran: &Ran) -> Value {
    let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    assert_eq!(
        (document["message_type"].as_str(), document["schema_version"].as_u64()),
        (Some("repair"), Some(1))
    );
    document
}

fn field(document: &Value, name: &str) -> u64 {
    document[name].as_u64().unwrap_or_else(|| panic!("{name} in {document}"))
}

fn content(n: u64) -> Vec<u8> {
    noise(n, MIB + n as usize * 1000)
}

fn name(n: u64) -> String {
    if n.is_multiple_of(2) { format!("{n}") } else { format!("dir/{n}") }
}

/// Fills a volume, with the same files beside it.
fn filled() -> (Mounted, PathBuf) {
    let m = Mounted::with(&MKFS, &["gc=off", "cache_size=0"]);
    let copy = m.beside("copy");
    for dir in [m.path("dir"), copy.clone(), copy.join("dir")] {
        fs::create_dir(dir).expect("made");
    }
    for n in 0..FILES {
        let name = name(n);
        fs::write(m.path(&name), content(n)).expect("written");
        fs::write(copy.join(&name), content(n)).expect("written");
        if n % 3 == 2 {
            m.sync();
        }
    }
    (m, copy)
}

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

/// Has most of a pack be other bytes.
fn lose(pack: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(pack).expect("a pack");
    let len = file.metadata().expect("there").len() as usize;
    let mut bytes = vec![0; len * 3 / 4 - 100_000];
    file.read_exact_at(&mut bytes, 100_000).expect("within");
    bytes.iter_mut().for_each(|byte| *byte ^= 0xa5);
    file.write_all_at(&bytes, 100_000).expect("written");
    file.sync_all().expect("synced");
}

/// The files that cannot be read whole; the others are what they were.
fn unreadable(m: &Mounted) -> Vec<u64> {
    let is_lost = |n: &u64| match fs::read(m.path(name(*n))) {
        Ok(bytes) => {
            assert!(bytes == content(*n), "file {n} has other bytes");
            false
        }
        Err(_) => true,
    };
    (0..FILES).filter(is_lost).collect()
}

#[test]
fn what_a_mounted_volume_lost_is_had_back_from_a_directory_for_good() {
    let (m, copy) = filled();
    m.remount();
    lose(&packs(m.dir())[0]);
    let lost = unreadable(&m);
    assert!(!lost.is_empty());
    // The mount itself has nothing that it has not.
    let own = repair(m.at(), &["--json".as_ref(), "--from".as_ref(), m.at().as_os_str()]);
    assert_eq!(own.code, 3, "{own:?}");
    assert!(field(&report(&own), "chunks_lost") > 0 && field(&report(&own), "chunks_found") == 0, "{own:?}");
    // Some of it, and in other places: behind something else.
    let moved = m.beside("moved");
    fs::create_dir(&moved).expect("made");
    let first = [noise(1000, 777), content(lost[0])].concat();
    fs::write(moved.join("other name"), first).expect("written");
    let looked = repair(m.at(), &["-n".as_ref(), "--json".as_ref(), "--from".as_ref(), moved.as_os_str()]);
    let told = report(&looked);
    assert!(field(&told, "chunks_found") > 0 && told["dry_run"] == true, "{told}");
    assert_eq!((field(&told, "packs_written"), unreadable(&m) == lost), (0, true), "{told}");
    let some = repair(m.at(), &["--from".as_ref(), moved.as_os_str()]);
    // Its very first chunk is cut otherwise behind something else.
    assert!(some.code == 3 || lost.len() == 1, "{some:?}");
    assert!(some.out.contains("found") && some.out.contains("stored"), "{}", some.out);
    let all = repair(
        m.at(),
        &[
            "--json".as_ref(),
            "--errors-only".as_ref(),
            "--from".as_ref(),
            moved.as_os_str(),
            copy.as_os_str(),
        ],
    );
    assert_eq!(all.code, 0, "{all:?}");
    assert_eq!(report(&all)["files"].as_array().map(Vec::len), Some(0), "{all:?}");
    fs::remove_dir_all(&copy).expect("removed");
    fs::remove_dir_all(&moved).expect("removed");
    assert!(unreadable(&m).is_empty());
    let nothing = repair(m.at(), &[]).ok();
    assert!(nothing.contains("nothing is lost"), "{nothing}");
    run("cairn", [OsStr::new("gc"), m.at().as_os_str()]).ok();
    m.remount();
    assert!(unreadable(&m).is_empty());
    m.finish();
}

#[test]
fn what_is_lost_of_a_volume_that_nobody_has_mounted_is_had_back_from_a_file_another_volume_or_a_copy_of_a_pack()
 {
    let (m, copy) = filled();
    m.unmount();
    let all = packs(m.dir());
    let backup = m.beside("backup");
    fs::create_dir(&backup).expect("made");
    let second = backup.join(all[1].file_name().expect("a name"));
    fs::copy(&all[1], &second).expect("copied");
    fs::remove_file(&all[0]).expect("removed");
    lose(&all[1]);
    m.mount();
    let lost = unreadable(&m);
    assert!(lost.len() > 2, "{lost:?}");
    m.unmount();
    // A copy of one pack, in no directory of any store.
    let packed = repair(m.dir(), &["--json".as_ref(), "--from".as_ref(), backup.as_os_str()]);
    assert_eq!(packed.code, 3, "{packed:?}");
    assert!(field(&report(&packed), "chunks_stored") > 0, "{packed:?}");
    m.mount();
    let rest = unreadable(&m);
    assert!(!rest.is_empty() && rest.len() < lost.len(), "{rest:?} of {lost:?}");
    m.unmount();
    // One file by its name, and another volume with the others, mounted nowhere.
    let other = Mounted::with(&MKFS, &[]);
    fs::create_dir(other.path("dir")).expect("made");
    for n in &rest[1..] {
        fs::write(other.path(name(*n)), content(*n)).expect("written");
    }
    other.unmount();
    let first = copy.join(name(rest[0]));
    let done =
        repair(m.dir(), &["--json".as_ref(), "--from".as_ref(), first.as_os_str(), other.dir().as_os_str()]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(field(&report(&done), "chunks_found") > 0, "{done:?}");
    m.fsck();
    m.mount();
    assert!(unreadable(&m).is_empty());
    m.finish();
}

#[test]
fn what_makes_no_sense_is_refused_and_what_cannot_be_read_is_told() {
    let (m, copy) = filled();
    let gone = m.beside("no such thing");
    repair(m.at(), &["--from".as_ref(), gone.as_os_str()]).refused(1, &["does not exist"]);
    repair(m.at(), &["--from".as_ref(), "/dev/null".as_ref()])
        .refused(2, &["neither a file nor a directory"]);
    repair(m.at(), &["--from".as_ref()]).refused(2, &["--from"]);
    repair(&copy, &[]).refused(10, &[]);
    m.remount();
    lose(&packs(m.dir())[0]);
    // Links lead nowhere, and what is no file is not waited for.
    let odd = m.beside("odd");
    fs::create_dir(&odd).expect("made");
    std::os::unix::fs::symlink(&copy, odd.join("dir")).expect("linked");
    std::os::unix::fs::symlink(copy.join("0"), odd.join("0")).expect("linked");
    run("mkfifo", [odd.join("2")]).ok();
    File::create(odd.join("empty")).expect("made");
    let none = repair(m.at(), &["--json".as_ref(), "--from".as_ref(), odd.as_os_str()]);
    assert_eq!((none.code, field(&report(&none), "chunks_found")), (3, 0), "{none:?}");
    assert!(!none.err.contains("panicked"), "{}", none.err);
    repair(m.at(), &["--from".as_ref(), copy.as_os_str()]).ok();
    m.finish();
}
