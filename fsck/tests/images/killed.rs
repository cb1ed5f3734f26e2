//! Repairs that are killed, or lose their power, at any of their writes: the volume is never worse than it was, and another
//! run ends as the first would have.

use cairn_format::key::Key;
use cairn_format::{DirEntry, Ino, Inode, PackKind, View};
use cairn_store::disk::{Crash, MemoryDisk};
use cairn_store::{PackReader, list_packs, pack_path};
use fsck_cairn::Level;

use crate::fixture::{Records, rewrite_state};
use crate::journal::damaged;
use crate::memory::{checked, filled, fsck, open, shown, store};

/// Points at which a repair is ended, of those there are: all where the environment says so.
fn points(operations: u64) -> impl Iterator<Item = u64> {
    let most: u64 = std::env::var("CAIRN_FSCK_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    (0..operations).step_by((operations.div_ceil(most.max(1)) as usize).max(1))
}

/// Ends a repair at many of its writes, in several ways, and has another run follow.
fn end_at_any_write(spoilt: &MemoryDisk, level: Level) {
    let whole = spoilt.fork();
    let report = fsck(&whole, level).unwrap();
    assert!(report.is_clean() && report.corrected() > 0, "{:#?}", report.findings);
    assert!(checked(&whole).is_clean(), "{:#?}", checked(&whole).findings);
    let wanted = shown(&whole);
    let could_be_mounted = open(&spoilt.fork()).is_ok();
    assert!(whole.operations() > 15, "{} operations", whole.operations());
    println!("{} operations", whole.operations());
    for at in points(whole.operations()) {
        for crash in [Crash::KeepAll, Crash::DropUnsynced, Crash::Random(at)] {
            let disk = spoilt.fork();
            if crash == Crash::KeepAll {
                disk.kill_at(at)
            } else {
                disk.cut_at(at)
            }
            // Where the last write is beside the point, it may end in order.
            let _ = fsck(&disk, level);
            let disk = disk.crash(crash);
            if could_be_mounted {
                assert!(open(&disk.fork()).is_ok(), "ended at {at} with {crash:?} it cannot be mounted");
            }
            let again = fsck(&disk, level).unwrap();
            assert!(again.is_clean(), "ended at {at} with {crash:?}: {:#?}", again.findings);
            assert!(
                checked(&disk).is_clean(),
                "ended at {at} with {crash:?}: {:#?}",
                checked(&disk).findings
            );
            assert_eq!(shown(&disk), wanted, "ended at {at} with {crash:?}");
        }
    }
}

fn entry(records: &Records, dir: Ino, name: &str) -> DirEntry {
    DirEntry::decode(&records[&Key::Name(dir, name.into(), View::LIVE).encode()]).unwrap()
}

/// Wrong counts, a name that leads nowhere, an inode without a name, a directory within itself.
fn spoil(records: &mut Records) {
    let (empty, sub) = (entry(records, Ino::ROOT, "empty").ino, entry(records, Ino::ROOT, "sub"));
    let deep = entry(records, sub.ino, "deep").ino;
    records.remove(&Key::Inode(empty, View::LIVE).encode());
    let attributed = entry(records, Ino::ROOT, "attributed");
    records.remove(&Key::Name(Ino::ROOT, b"attributed".to_vec(), View::LIVE).encode());
    records.remove(&Key::Order(Ino::ROOT, attributed.cookie, View::LIVE).encode());
    for key in
        [Key::Name(Ino::ROOT, b"sub".to_vec(), View::LIVE), Key::Order(Ino::ROOT, sub.cookie, View::LIVE)]
    {
        let value = records.remove(&key.encode()).unwrap();
        let moved = match key {
            Key::Name(_, name, view) => Key::Name(deep, name, view),
            _ => Key::Order(deep, sub.cookie, View::LIVE),
        };
        records.insert(moved.encode(), value);
    }
    let big = Key::Inode(entry(records, Ino::ROOT, "big").ino, View::LIVE).encode();
    let mut inode = Inode::decode(&records[&big]).unwrap();
    inode.nlink = 7;
    records.insert(big, inode.encode());
}

#[test]
fn a_repair_of_the_namespace_may_be_ended_at_any_write() {
    // With the checkpoint's LSN beyond the journal's end, and (0) not.
    for ahead in [1000, 0] {
        let (disk, volume) = filled();
        volume.close().unwrap();
        rewrite_state(&disk, store(&disk), ahead, spoil);
        end_at_any_write(&disk, Level::All);
    }
}

#[test]
fn a_repair_of_copies_may_be_ended_at_any_write() {
    let (disk, volume) = filled();
    volume.close().unwrap();
    disk.corrupt("superblock", 200, 1).unwrap();
    disk.corrupt("store/superblock.backup", 200, 1).unwrap();
    let below = store(&disk);
    let packs = list_packs(&*below).unwrap().packs;
    let data = packs
        .iter()
        .find(|(pack, _)| PackReader::open(&*below, *pack).unwrap().footer().unwrap().kind == PackKind::Data);
    let (pack, len) = data.unwrap();
    disk.corrupt(&format!("store/{}", pack_path(pack)), len - 3, 1).unwrap();
    end_at_any_write(&disk, Level::Safe);
}

#[test]
fn folding_what_a_crash_left_may_be_ended_at_any_write() {
    let (disk, volume) = filled();
    volume.fsync(1, false).unwrap();
    drop(volume);
    end_at_any_write(&disk, Level::Safe);
}

#[test]
fn giving_up_records_may_be_ended_at_any_write() {
    end_at_any_write(&damaged(), Level::All);
}
