//! A volume on a device that fails: some of a pack can neither be read nor be written where it lies.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cairn_format::PackKind;
use cairn_tests::dice::noise;
use cairn_tests::failing::FailingDisk;
use cairn_tests::mounted::{Mounted, run, wait_until};
use cairn_tests::pristine::Pristine;
use cairn_tests::rot::{Guarantee, Layout};
use cairn_volume::OpenOptions;
use rustix::mm::ProtFlags;
use serde_json::Value;

use crate::faults::{header, packs};
use crate::heal::{pack, stats};
use crate::mapping::with_mapped;
use crate::rot::{disks, read_all};

const MKFS: [&str; 4] = ["--journal-size", "16M", "--segment-size", "1M"];
/// Nothing decoded stays in memory for long.
const OPTIONS: [&str; 2] = ["cache_size=1M", "gc=off"];
const LEN: usize = 10 << 20;
const MIB: u64 = 1 << 20;
/// Less than parity restores of a pack that holds as much of the file as this asks for.
const LOST: u64 = MIB / 8;
const LEAST: u64 = 3 * MIB;

/// A mounted volume with a file of noise, which nothing has in a cache, on a disk that can fail.
fn with_a_file() -> (FailingDisk, Mounted, Vec<u8>, PathBuf) {
    let disk = FailingDisk::new(400);
    let m = Mounted::elsewhere(disk.path().join("volume"), &MKFS, &OPTIONS);
    m.mount();
    let bytes = noise(11, LEN);
    fs::write(m.path("film"), &bytes).expect("written");
    m.sync();
    m.remount();
    let pack = pack(m.dir());
    let len = fs::metadata(&pack).expect("there").len();
    assert!(len > LEAST, "the longest pack has {len} bytes");
    (disk, m, bytes, pack)
}

fn name_of(pack: &Path) -> String {
    pack.file_stem().expect("has one").to_string_lossy().into_owned()
}

fn log(m: &Mounted) -> String {
    fs::read_to_string(m.dir().join("log")).expect("a log")
}

fn scrub(path: &Path) -> Value {
    let text = run("cairn", ["scrub".as_ref(), "--json".as_ref(), path.as_os_str()]).ok();
    serde_json::from_str(&text).expect("one JSON document")
}

/// `meet` meets the damage, and has to get the bytes that it is given.
fn is_moved(meet: fn(&Mounted, &[u8])) {
    let (mut disk, m, bytes, pack) = with_a_file();
    let before = fs::read(&pack).expect("reads");
    disk.lose(&pack, MIB..MIB + LOST);
    disk.fail();
    fs::read(&pack).expect_err("the device fails");
    meet(&m, &bytes);
    wait_until("the pack is moved", || {
        let stats = stats(&m);
        stats["heals_relocated"] == 1 && stats["packs_waiting"] == 0
    });
    assert!(!disk.is_where_it_fails(&pack), "it still lies where the device fails");
    assert!(fs::read(&pack).expect("reads") == before, "it is another");
    let told = stats(&m);
    assert_eq!(told["heals_lost"], 0, "{told}");
    let events = told["heal_events"].as_array().expect("events");
    let moved = |e: &Value| e["outcome"] == "relocated" && e["pack"] == name_of(&pack).as_str();
    assert!(events.iter().any(moved), "{told}");
    let line = format!("pack {}: the disk does not take what belongs there", name_of(&pack));
    assert!(log(&m).contains(&line), "{}", log(&m));

    // Nobody who reads it now meets what is bad.
    m.try_mount(&["remount"]).ok();
    let answered = stats(&m)["heals_answered"].clone();
    let file = File::open(m.path("film")).expect("there");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("forgotten");
    drop(file);
    assert!(fs::read(m.path("film")).expect("reads") == bytes);
    assert_eq!(stats(&m)["heals_answered"], answered);
    m.remount();
    assert!(fs::read(m.path("film")).expect("reads") == bytes);
    assert_eq!(stats(&m)["heals_answered"], 0);
    m.finish();
}

#[test]
fn a_pack_that_the_device_does_not_give_back_is_read_right_and_moved() {
    is_moved(|m, bytes| assert!(fs::read(m.path("film")).expect("healed") == bytes));
}

/// Not the signal that a page without bytes is.
#[test]
fn a_mapping_of_what_the_device_does_not_give_back_reads_right() {
    is_moved(|m, bytes| {
        let file = File::open(m.path("film")).expect("there");
        with_mapped(&file, bytes.len(), ProtFlags::READ, |mapped| assert!(*mapped == bytes[..]));
    });
}

#[test]
fn a_scrub_under_a_mount_moves_what_the_device_does_not_give_back() {
    is_moved(|m, _| {
        let told = scrub(m.at());
        assert_eq!(
            (&told["packs_relocated"], &told["sectors_uncorrected"]),
            (&1.into(), &0.into()),
            "{told}"
        );
    });
}

/// With the volume unmounted; `mend` says what it did.
fn is_moved_unmounted(mend: fn(&Mounted)) {
    let (mut disk, m, bytes, pack) = with_a_file();
    m.unmount();
    let before = fs::read(&pack).expect("reads");
    disk.lose(&pack, 2 * MIB..2 * MIB + LOST);
    disk.fail();
    let found = run("fsck-cairn", ["-n".as_ref(), m.dir().as_os_str()]);
    assert!(found.code == 4 && found.out.contains(&name_of(&pack)), "{found:?}");
    mend(&m);
    assert!(!disk.is_where_it_fails(&pack), "it still lies where the device fails");
    assert!(fs::read(&pack).expect("reads") == before, "it is another");
    m.fsck();
    m.mount();
    assert!(fs::read(m.path("film")).expect("reads") == bytes);
    m.finish();
}

#[test]
fn fsck_moves_what_the_device_does_not_give_back() {
    is_moved_unmounted(|m| {
        let ran = run("fsck-cairn", ["-p", "-f"].map(AsRef::as_ref).into_iter().chain([m.dir().as_os_str()]));
        assert_eq!(ran.code, 1, "{ran:?}");
    });
}

#[test]
fn a_scrub_moves_what_the_device_does_not_give_back() {
    is_moved_unmounted(|m| {
        let told = scrub(m.dir());
        assert_eq!(
            (&told["packs_relocated"], &told["sectors_uncorrected"]),
            (&1.into(), &0.into()),
            "{told}"
        );
    });
}

/// A mount reads them all.
#[test]
fn metadata_that_the_device_does_not_give_back_is_mounted_and_moved() {
    let (mut disk, m, bytes, _) = with_a_file();
    m.unmount();
    let metadata: Vec<PathBuf> = packs(m.dir())
        .into_iter()
        .filter(|path| header(path).is_some_and(|header| header.kind == PackKind::Metadata))
        .collect();
    for (n, pack) in metadata.iter().enumerate() {
        // The header of one, frames of another.
        let block = n as u64 % 2 * 4096;
        disk.lose(pack, block..block + 4096);
    }
    disk.fail();
    m.mount();
    assert!(fs::read(m.path("film")).expect("reads") == bytes);
    wait_until("they are moved", || stats(&m)["packs_waiting"] == 0);
    let told = scrub(m.at());
    assert_eq!(told["sectors_uncorrected"], 0, "{told}");
    let still = metadata.iter().filter(|pack| pack.exists() && disk.is_where_it_fails(pack)).count();
    assert_eq!(still, 0, "of {} metadata packs", metadata.len());
    m.finish();
}

/// One replica of each superblock, the index, the engine.
#[test]
fn what_a_mount_can_do_without_may_lie_where_the_device_fails() {
    let (mut disk, m, bytes, _) = with_a_file();
    m.unmount();
    let spare = ["superblock", "store/superblock.backup", "store/index", "engine/namespace.redb"];
    let mut lost = Vec::new();
    for path in spare.map(|path| m.dir().join(path)) {
        let blocks = fs::metadata(&path).map_or(0, |about| about.len() / 4096).min(16);
        if blocks > 0 {
            disk.lose(&path, 0..blocks * 4096);
            lost.push(path);
        }
    }
    assert!(lost.len() >= 3, "only {lost:?} have blocks of their own");
    disk.fail();
    m.mount();
    assert!(fs::read(m.path("film")).expect("reads") == bytes);
    fs::write(m.path("more"), noise(12, LEN / 4)).expect("writes");
    m.sync();
    m.remount();
    assert!(fs::read(m.path("more")).expect("reads") == noise(12, LEN / 4));
    m.unmount();
    m.fsck();
    for path in lost {
        assert!(!disk.is_where_it_fails(&path), "{} lies there still", path.display());
    }
}

/// By the layout, which says what of the files lies in columns of the stripe that do not come back.
#[test]
fn beyond_parity_a_failing_device_costs_what_lies_there_and_nothing_else() {
    let (mut disk, m, _, path) = with_a_file();
    m.unmount();
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let volume = cairn_volume::open(m.dir(), options).expect("whole");
    let pristine = Pristine::of(&volume).expect("whole");
    drop(volume);
    let (below, store) = disks(m.dir());
    let layout = Layout::of(&below, store, pristine.extents());
    let files: BTreeMap<_, _> = pristine.files().map(|(p, b, e)| (p.to_owned(), (b, e))).collect();
    let pack = layout.packs().into_iter().max_by_key(|pack| layout.len_of(*pack)).expect("a pack");
    let hole = 2 * layout.hole_within(pack);
    let fault = layout.unreadable(pack, MIB / 4096, hole / 4096, true);
    let verdict = layout.judge(&fault, &layout.harmed(&fault));
    assert_eq!(verdict.guarantee, Guarantee::Beyond);

    disk.lose(&path, MIB..MIB + hole);
    m.mount();
    disk.fail();
    let refused = read_all(m.at(), &files, &verdict).unwrap_or_else(|e| panic!("{e}"));
    assert!(refused > 0, "nothing is lost");
    wait_until("nothing waits", || stats(&m)["packs_waiting"] == 0);
    let told = stats(&m);
    assert!(told["heals_lost"].as_u64() > Some(0), "{told}");
    m.remount();
    assert_eq!(read_all(m.at(), &files, &verdict), Ok(refused), "moved or not, the same is lost");
    m.unmount();
    let found = run("fsck-cairn", ["-n".as_ref(), m.dir().as_os_str()]);
    assert!(found.code == 4 && found.out.contains(&name_of(&path)), "{found:?}");
}
