//! Repairs that are killed, or lose their power, at any of their writes: the volume is never worse than it was, and another
//! run ends as the first would have.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cairn_format::key::Key;
use cairn_format::{DirEntry, Ino, Inode, PackKind, SEGMENT_DATA_START, View};
use cairn_store::disk::{Access, Crash, Disk, DiskFile, Listed, MemoryDisk, Space};
use cairn_store::{PackReader, list_packs, pack_path};
use cairn_volume::{EngineChoice, MakeOptions, OpenError, OpenOn, OpenOptions, Volume, make_on, open_on};
use fsck_cairn::{CheckOptions, Level, Quiet, RepairOptions, Report, check, repair};

use crate::fixture::{Shown, fill, rewrite_state, tree};

/// A directory of another disk, so that all operations of a volume are counted in one place.
struct Below(MemoryDisk);

impl Below {
    fn path(path: &str) -> String {
        if path.is_empty() { "store".into() } else { format!("store/{path}") }
    }
}

impl Disk for Below {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(&Below::path(path), access)
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.0.create_dir(&Below::path(path))
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.0.list(&Below::path(dir))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(&Below::path(from), &Below::path(to))
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(&Below::path(path))
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(&Below::path(dir))
    }
    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }
}

fn store(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(Below(disk.clone()))
}

fn open(disk: &MemoryDisk) -> Result<Arc<Volume>, OpenError> {
    open_on(OpenOn {
        disk: Arc::new(disk.clone()),
        store: store(disk),
        engine: EngineChoice::Memory,
        background: false,
        session: 2,
        options: OpenOptions::default(),
        name: "memory".into(),
    })
}

/// A volume with some of everything, still open.
fn filled() -> (MemoryDisk, Arc<Volume>) {
    let disk = MemoryDisk::new();
    disk.create_dir("store").unwrap();
    let options = MakeOptions {
        chunk_min: 256,
        chunk_avg: 1024,
        chunk_max: 4096,
        frame: 8192,
        segment_size: 64 << 10,
        journal_size: 1 << 20,
        pack_size: 64 << 10,
        ..MakeOptions::default()
    };
    let draw = |bytes: &mut [u8]| {
        bytes.fill(7);
        Ok(())
    };
    make_on(Arc::new(disk.clone()), store(&disk), &options, draw).unwrap();
    let volume = open(&disk).unwrap();
    fill(&volume);
    (disk, volume)
}

fn fsck(disk: &MemoryDisk, level: Level) -> Result<Report, fsck_cairn::CheckError> {
    let options = RepairOptions { level, force: true, ..RepairOptions::default() };
    repair(Arc::new(disk.clone()), store(disk), None, &options, &Quiet)
}

fn checked(disk: &MemoryDisk) -> Report {
    check(disk, store(disk), None, &CheckOptions::default(), &Quiet).unwrap()
}

/// What a mount shows, less what times and numbers of packs decide.
fn shown(disk: &MemoryDisk) -> BTreeMap<String, Shown> {
    let volume = open(&disk.fork()).unwrap();
    tree(&volume)
}

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

fn entry(records: &crate::fixture::Records, dir: Ino, name: &str) -> DirEntry {
    DirEntry::decode(&records[&Key::Name(dir, name.into(), View::LIVE).encode()]).unwrap()
}

/// Wrong counts, a name that leads nowhere, an inode without a name, a directory within itself.
fn spoil(records: &mut crate::fixture::Records) {
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

/// A volume that was not unmounted, with a byte of a synced record in the midst of its journal flipped.
fn damaged_journal() -> MemoryDisk {
    let (disk, volume) = filled();
    volume.fsync(1, false).unwrap();
    drop(volume);
    let mut records = Vec::new();
    for path in disk.files().into_iter().filter(|path| path.starts_with("journal/")) {
        let file = disk.open(&path, Access::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let at = |at: &usize| bytes[*at..].starts_with(b"CREC");
        for at in (SEGMENT_DATA_START as usize..bytes.len() - 24).step_by(8).filter(at) {
            let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            records.push((number(at + 16), at, path.clone()));
        }
    }
    // By segment, and place in it: the middle one of the last mount's.
    records.retain(|(segment, ..)| *segment >= 2);
    records.sort();
    let (_, at, path) = &records[records.len() / 2];
    disk.corrupt(path, *at as u64 + 50, 1).unwrap();
    disk
}

#[test]
fn a_journal_that_is_damaged_in_the_middle_is_given_up_behind_that_and_only_when_told() {
    let disk = damaged_journal();
    assert!(open(&disk.fork()).is_err(), "a mount refuses");
    let asked = disk.fork();
    assert!(!fsck(&asked, Level::Safe).unwrap().is_clean());
    assert!(open(&asked).is_err());
    let report = fsck(&disk, Level::All).unwrap();
    let given_up: Vec<_> = report.findings.iter().filter(|f| f.kind == "journal").collect();
    assert!(given_up[0].what.contains("are lost"), "{given_up:#?}");
    assert!(checked(&disk).is_clean());
    // What came before the damage is there, whole.
    let shown = shown(&disk);
    let big = shown["/big"].content.as_ref().unwrap();
    assert!(big.len() >= 8 << 10 && crate::fixture::noise(150_000, 1).starts_with(big));
    let kept = disk.files().into_iter().filter(|path| path.starts_with("fsck-undo/")).count();
    assert!(kept > 1, "what was overwritten was copied");
}

#[test]
fn giving_up_records_may_be_ended_at_any_write() {
    end_at_any_write(&damaged_journal(), Level::All);
}
