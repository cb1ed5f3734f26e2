//! "The order of things" in ARCHITECTURE: a test for each sentence, cutting right there. What each breaks
//! on is written down in docs/TESTING.md.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use cairn_format::{CheckpointRef, ChunkId, Footer, Lsn, SEGMENT_DATA_START, SegmentHeader, Uuid};
use cairn_store::disk::{Access, Crash, Disk, Failure, MemoryDisk};
use cairn_store::{Store, StoreOptions};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::engine::Survival;
use cairn_tests::hooked::Hooked;
use cairn_tests::world::{World, small};
use cairn_volume::engine::{Change, Engine, EngineError, MemoryEngine, Visit};
use cairn_volume::journal::{JournalShape, scan};
use cairn_volume::{
    Caller, EngineChoice, Error, GcOptions, GcProgress, GcStep, MakeOptions, OpenError, OpenOn, OpenOptions,
    SetAttr, Volume, open_on,
};

use super::crash::consistent;

/// What can become of what was not synced: all of it, none of it, only the journal's, only the store's, only bytes, only
/// names.
pub(super) const FATES: [(Crash, Crash); 6] = [
    (Crash::KeepAll, Crash::KeepAll),
    (Crash::DropUnsynced, Crash::DropUnsynced),
    (Crash::KeepAll, Crash::DropUnsynced),
    (Crash::DropUnsynced, Crash::KeepAll),
    (Crash::DropNames, Crash::DropNames),
    (Crash::DropBytes, Crash::DropBytes),
];

/// Mounts a volume, prepares it, and lets the power go during each operation of the disk that `act` takes; what
/// is left of it, in each of [`FATES`] and some random ones, goes to `check` with whether `act` was over.
pub(super) fn at_every_cut(
    base: &World,
    prepare: impl Fn(&Volume),
    act: impl Fn(&Volume),
    check: impl Fn(&World, bool, &str),
) {
    for n in 0.. {
        let world = base.fork();
        let volume = world.open().expect("mount");
        prepare(&volume);
        world.disk.cut_at(world.disk.operations() + n);
        act(&volume);
        let over = !world.disk.is_cut();
        for (journal, store) in FATES {
            for survival in [Survival::All, Survival::None] {
                let what = format!("cut {n}: journal {journal:?}, store {store:?}, engine {survival:?}");
                check(&world.split_crash(journal, store, survival), over, &what);
            }
        }
        for seed in 0..6 {
            let what = format!("cut {n}: Random({seed})");
            check(&world.crash(Crash::Random(seed), Survival::All), over, &what);
        }
        if over {
            assert!(n > 2, "nothing was written: {n} operations");
            return;
        }
    }
}

pub(super) fn file(volume: &Volume, name: &[u8]) -> u64 {
    let attr = volume.create(1, name, 0o644, 0, &Caller::default()).expect("create");
    volume.release(attr.ino);
    attr.ino
}

pub(super) fn put(volume: &Volume, name: &[u8], bytes: &[u8]) -> u64 {
    let ino = file(volume, name);
    volume.write(ino, 0, bytes, false).expect("write");
    ino
}

pub(super) fn truncate(volume: &Volume, ino: u64, size: u64) -> Result<(), Error> {
    volume.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }, &Caller::default()).map(|_| ())
}

/// A file's bytes; `None` where there is no such name.
pub(super) fn bytes_of(volume: &Volume, name: &[u8]) -> Option<Result<Vec<u8>, Error>> {
    let attr = volume.lookup(1, name).expect("lookup")?;
    Some(volume.read(attr.ino, 0, attr.size as u32))
}

pub(super) fn mount(world: &World, what: &str) -> Arc<Volume> {
    world.open().unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// A synced write or none: what every unsynced file may be.
fn whole_or_absent(volume: &Volume, name: &[u8], expected: &[u8], what: &str) -> bool {
    match bytes_of(volume, name) {
        None => false,
        Some(Ok(bytes)) if bytes.is_empty() => false,
        Some(found) => {
            assert_eq!(found.as_deref(), Ok(expected), "{what}");
            true
        }
    }
}

#[test]
fn a_folds_record_names_only_packs_that_are_sealed_and_synced() {
    let contents: Vec<_> = (0..3).map(|n| noise(n, 9_000)).collect();
    at_every_cut(
        &World::make(&small()),
        |volume| {
            for (n, bytes) in contents.iter().enumerate() {
                let ino = put(volume, &[b'a' + n as u8], &bytes[..5_000]);
                volume.write(ino, 5_000, &bytes[5_000..], false).expect("write");
            }
            volume.fsync(1, false).expect("fsync");
        },
        |volume| {
            let _ = volume.maintain();
        },
        |world, _, what| {
            let volume = mount(world, what);
            for (n, bytes) in contents.iter().enumerate() {
                let found = bytes_of(&volume, &[b'a' + n as u8]);
                assert_eq!(found, Some(Ok(bytes.clone())), "{what}");
            }
            volume.close().expect("close");
        },
    );
}

fn shape(options: &MakeOptions) -> JournalShape {
    let segments = (options.journal_size / u64::from(options.segment_size)) as u32;
    JournalShape { volume: Uuid([0xca; 16]), segment: options.segment_size, segments }
}

/// The highest LSN that a sealed metadata pack in the store says it holds.
fn newest_checkpoint(world: &World) -> Lsn {
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(world.store_disk(), options).expect("the store");
    let packs = store.metadata_packs(Uuid([0xca; 16]));
    let footers = packs.iter().map(|(pack, _)| store.reader(*pack).and_then(|r| r.footer()));
    let lsns = footers.filter_map(|footer| Some(footer.ok()?.checkpoint?.lsn));
    lsns.max().unwrap_or(Lsn::ZERO)
}

#[test]
fn a_checkpoint_is_sealed_only_when_the_journal_is_certain_up_to_it() {
    let options = small();
    let sealed = std::cell::Cell::new(0);
    at_every_cut(
        &World::make(&options),
        |volume| {
            put(volume, b"a", &noise(1, 3_000));
        },
        |volume| {
            let _ = volume.maintain();
        },
        |world, _, what| {
            let (chain, error) = scan(&world.disk, &shape(&options));
            assert!(error.is_none(), "{what}: {error:?}");
            let checkpoint = newest_checkpoint(world);
            assert!(
                checkpoint <= chain.last,
                "{what}: a checkpoint of {checkpoint}, the journal ends at {}",
                chain.last
            );
            sealed.set(sealed.get() + u32::from(checkpoint > chain.checkpoint.0.lsn));
            mount(world, what).close().expect("close");
        },
    );
    assert!(sealed.get() > 0, "no cut came between a checkpoint's seal and its record");
}

#[test]
fn the_journal_is_trimmed_only_when_the_checkpoint_is_certain() {
    // So short a journal that whatever is trimmed is written over at once.
    let options = MakeOptions { journal_size: 512 << 10, ..small() };
    let old: Vec<_> = (0..12).map(|n| noise(n, 8_000)).collect();
    at_every_cut(
        &World::make(&options),
        |volume| {
            for (n, bytes) in old.iter().enumerate() {
                put(volume, &[b'a' + n as u8], bytes);
            }
            volume.fsync(1, false).expect("fsync");
        },
        |volume| {
            let _ = volume.maintain();
            for n in 150..210 {
                let _ = volume
                    .create(1, &[n], 0o644, 0, &Caller::default())
                    .and_then(|attr| volume.write(attr.ino, 0, &noise(n.into(), 8_000), false));
            }
        },
        |world, _, what| {
            let volume = mount(world, what);
            for (n, bytes) in old.iter().enumerate() {
                assert_eq!(bytes_of(&volume, &[b'a' + n as u8]), Some(Ok(bytes.clone())), "{what}");
            }
            for n in 150..210u8 {
                whole_or_absent(&volume, &[n], &noise(n.into(), 8_000), what);
            }
        },
    );
}

#[test]
fn a_pack_is_dropped_only_when_the_checkpoint_that_finds_it_dead_is_certain() {
    let (kept, dead) = (noise(1, 20_000), noise(2, 20_000));
    let base = World::make(&small());
    let volume = base.open().expect("mount");
    for (name, bytes) in [(b"k", &kept), (b"d", &dead)] {
        put(&volume, name, bytes);
        // Each in packs of its own.
        volume.sync().expect("sync");
    }
    volume.close().expect("close");
    let before = base.packs();
    let dropped = std::cell::Cell::new(false);
    at_every_cut(
        &base,
        |volume| volume.unlink(1, b"d").expect("unlink"),
        |volume| {
            let _ = volume.maintain();
        },
        |world, over, what| {
            dropped.set(dropped.get() | (over && before.iter().any(|pack| !world.packs().contains(pack))));
            let volume = mount(world, what);
            assert_eq!(bytes_of(&volume, b"k"), Some(Ok(kept.clone())), "{what}");
            if let Some(found) = bytes_of(&volume, b"d") {
                assert_eq!(found, Ok(dead.clone()), "{what}");
            }
            volume.close().expect("close");
            consistent(&world.joined()).unwrap_or_else(|e| panic!("{what}: {e}"));
        },
    );
    assert!(dropped.get(), "the dead pack is dropped in the end");
}

#[test]
fn a_dedup_hit_keeps_a_pack_that_is_about_to_be_dropped() {
    let bytes = noise(3, 20_000);
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    put(&volume, b"first", &bytes);
    volume.sync().expect("sync");
    volume.unlink(1, b"first").expect("unlink");
    // A checkpoint that fails half way, and is tried again behind the fold: it knows that nothing refers to the
    // pack any more, and nothing of the file that came meanwhile.
    world.disk.set_capacity(0);
    let _ = volume.maintain();
    put_despite(&world, &volume, b"second", &bytes);
    volume.maintain().expect("maintain");
    assert_eq!(bytes_of(&volume, b"second"), Some(Ok(bytes.clone())));
    volume.fsync(1, false).expect("fsync");
    drop(volume);
    for (journal, store) in FATES {
        let after = world.split_crash(journal, store, Survival::None);
        let volume = mount(&after, "after it");
        assert_eq!(bytes_of(&volume, b"second"), Some(Ok(bytes.clone())), "{journal:?} {store:?}");
        volume.sync().expect("sync");
        assert_eq!(bytes_of(&volume, b"second"), Some(Ok(bytes.clone())), "{journal:?} {store:?}");
        volume.close().expect("close");
        consistent(&after.joined()).expect("fsck");
    }
}

fn put_despite(world: &World, volume: &Volume, name: &[u8], bytes: &[u8]) {
    world.disk.set_capacity(1 << 40);
    // The volume asks its disk for room now and then only.
    std::thread::sleep(std::time::Duration::from_millis(150));
    put(volume, name, bytes);
}

#[test]
fn truncating_down_and_up_again_never_brings_old_bytes_back() {
    type Stage = fn(&World, Arc<Volume>) -> (World, Arc<Volume>);
    fn nothing(world: &World, volume: Arc<Volume>) -> (World, Arc<Volume>) {
        (world.clone(), volume)
    }
    fn maintain(world: &World, volume: Arc<Volume>) -> (World, Arc<Volume>) {
        volume.maintain().expect("maintain");
        (world.clone(), volume)
    }
    fn sync(world: &World, volume: Arc<Volume>) -> (World, Arc<Volume>) {
        volume.sync().expect("sync");
        (world.clone(), volume)
    }
    fn remount(world: &World, volume: Arc<Volume>) -> (World, Arc<Volume>) {
        volume.close().expect("close");
        drop(volume);
        (world.clone(), world.open().expect("mount"))
    }
    fn crash(world: &World, volume: Arc<Volume>) -> (World, Arc<Volume>) {
        volume.fsync(1, false).expect("fsync");
        drop(volume);
        let world = world.crash(Crash::DropUnsynced, Survival::None);
        let volume = world.open().expect("mount");
        (world, volume)
    }
    const STAGES: [Stage; 5] = [nothing, maintain, sync, remount, crash];
    let base = World::make(&small());
    let old = noise(9, 12_000);
    for n in 0..STAGES.len().pow(3) {
        let stages = [STAGES[n % 5], STAGES[n / 5 % 5], STAGES[n / 25]];
        for cut in [0u64, 1, 3_000, 4_096, 11_999] {
            let world = base.fork();
            let volume = world.open().expect("mount");
            let ino = put(&volume, b"f", &old);
            let (world, volume) = stages[0](&world, volume);
            truncate(&volume, ino, cut).expect("truncate");
            let (world, volume) = stages[1](&world, volume);
            truncate(&volume, ino, 12_000).expect("truncate");
            let (_, volume) = stages[2](&world, volume);
            let mut expected = old[..cut as usize].to_vec();
            expected.resize(12_000, 0);
            assert!(bytes_of(&volume, b"f") == Some(Ok(expected)), "stages {n}, cut to {cut}");
        }
    }
}

#[test]
fn no_inode_number_and_no_epoch_is_given_out_twice() {
    let base = World::make(&small());
    let mut world = base.fork();
    let mut dice = Dice::new(5);
    let (mut issued, mut last_epoch) = (HashSet::new(), 0);
    for round in 0..300u64 {
        // The power goes at any place of a mount, or some time behind it.
        let at = if dice.one_in(3) { 40 + dice.below(400) } else { dice.below(40) };
        world.disk.cut_at(at);
        let opened = world.open();
        assert!(opened.is_ok() || world.disk.is_cut(), "round {round}: {:?}", opened.err());
        if let Ok(volume) = opened {
            let mut epochs = HashSet::new();
            for n in 0..5 {
                let made = volume.create(1, format!("{round}.{n}").as_bytes(), 0o644, 0, &Caller::default());
                let Ok(attr) = made else { break };
                assert!(issued.insert(attr.ino), "round {round}: {} a second time", attr.ino);
                epochs.insert(attr.generation);
            }
            for epoch in epochs {
                assert!(epoch > last_epoch, "round {round}: epoch {epoch} behind {last_epoch}");
                last_epoch = epoch;
            }
        }
        // What was made was never synced: mostly it is gone, its numbers are not free for that.
        let crash = if round % 3 == 0 { Crash::Random(round) } else { Crash::DropUnsynced };
        world = world.crash(crash, Survival::None);
    }
    assert!(issued.len() > 100, "{} numbers", issued.len());
}

#[test]
fn a_mount_is_certain_of_its_epoch_before_its_first_operation() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let first = file(&volume, b"first");
    let epoch = volume.getattr(first).expect("getattr").generation;
    // Nothing was synced but what the mount itself did.
    let after = world.crash(Crash::DropUnsynced, Survival::None);
    let (chain, error) = scan(&after.disk, &shape(&small()));
    assert!(error.is_none());
    assert_eq!(chain.last, Lsn::first_of(epoch), "the epoch's first record is certain, nothing else is");
    let volume = mount(&after, "after it");
    let second = file(&volume, b"second");
    assert!(volume.getattr(second).expect("getattr").generation > epoch);
    assert_ne!(first, second);
}

/// Where records lie: the path of the segment's file, the record's LSN, its offset and its length.
fn records(disk: &MemoryDisk) -> Vec<(String, Lsn, u64, u64)> {
    let mut found = Vec::new();
    for path in disk.files().into_iter().filter(|p| p.ends_with(".seg")) {
        let file = disk.open(&path, Access::Read).expect("a segment");
        let mut bytes = vec![0; file.len().expect("len") as usize];
        file.read_exact_at(&mut bytes, 0).expect("read");
        let Ok(header) = SegmentHeader::decode(&bytes, &Uuid([0xca; 16])) else { continue };
        let (mut at, mut expected) = (SEGMENT_DATA_START as usize, header.first);
        while let Ok(head) = cairn_format::RecordHead::peek(&bytes[at.min(bytes.len())..]) {
            if head.lsn != expected || head.segment != header.number {
                break;
            }
            found.push((path.clone(), head.lsn, at as u64, head.record_len()));
            at += (head.record_len() as usize).next_multiple_of(8);
            expected = expected.next();
        }
    }
    found.sort_by_key(|record| record.1);
    found
}

#[test]
fn a_flipped_byte_in_a_synced_record_is_damage_and_never_an_older_volume() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    for n in 0..4u8 {
        put(&volume, &[b'a' + n], &noise(n.into(), 500));
    }
    volume.fsync(1, false).expect("fsync");
    // The mark behind the group commit says how far the disk is known to be whole.
    let synced = volume.create(1, b"z", 0o644, 0, &Caller::default()).map(|_| ());
    synced.expect("create");
    drop(volume);
    let image = world.crash(Crash::KeepAll, Survival::None);
    let all = records(&image.disk);
    let epoch = all.iter().map(|r| r.1.epoch()).max().expect("records");
    let of_epoch: Vec<_> = all.iter().filter(|r| r.1.epoch() == epoch).collect();
    assert!(of_epoch.len() >= 10, "{of_epoch:?}");
    // All but the mark and the last record were synced.
    for (path, lsn, at, len) in &of_epoch[..of_epoch.len() - 2] {
        for offset in [0, 8, 16, 24, 32, 40, 48, len / 2] {
            let damaged = image.fork();
            damaged.disk.corrupt(path, at + offset, 0x40).expect("corrupt");
            let what = format!("record {lsn}, byte {offset} of {len}");
            match damaged.open() {
                Err(OpenError::Damaged { .. }) => {}
                Err(other) => panic!("{what}: {other}"),
                // The payload's bytes are checked when they are read.
                Ok(volume) => check_damaged_reads(&volume, &what),
            }
            let options = OpenOptions { read_only: true, ..OpenOptions::default() };
            damaged.open_with(options).unwrap_or_else(|e| panic!("{what}: not even for reading: {e}"));
        }
    }
}

fn check_damaged_reads(volume: &Volume, what: &str) {
    let results: Vec<_> = (0..4u8).map(|n| bytes_of(volume, &[b'a' + n])).collect();
    let failed = results.iter().filter(|r| **r == Some(Err(Error::Io))).count();
    for (n, result) in results.iter().enumerate() {
        match result {
            Some(Err(Error::Io)) => {}
            other => assert_eq!(*other, Some(Ok(noise(n as u64, 500))), "{what}"),
        }
    }
    assert_eq!(failed, 1, "{what}: one file is unreadable, and says so");
}

#[test]
fn a_flipped_byte_behind_what_was_synced_is_a_torn_tail() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    put(&volume, b"certain", b"certain");
    volume.fsync(1, false).expect("fsync");
    let before = records(&world.disk).len();
    for n in 0..4u8 {
        put(&volume, &[b'a' + n], &noise(n.into(), 500));
    }
    drop(volume);
    let image = world.crash(Crash::KeepAll, Survival::None);
    let all = records(&image.disk);
    for (path, lsn, at, len) in &all[before..] {
        for offset in [0, 9, 17, 33, 41, 50, len - 1] {
            let torn = image.fork();
            torn.disk.corrupt(path, at + offset, 0x10).expect("corrupt");
            let what = format!("record {lsn}, byte {offset} of {len}");
            let volume = mount(&torn, &what);
            assert_eq!(bytes_of(&volume, b"certain"), Some(Ok(b"certain".to_vec())), "{what}");
            let there: Vec<_> = (0..4u8)
                .map(|n| whole_or_absent(&volume, &[b'a' + n], &noise(n.into(), 500), &what))
                .collect();
            assert!(there.windows(2).all(|w| w[0] || !w[1]), "{what}: a prefix: {there:?}");
            assert!(!there[3], "{what}: what came behind it never was");
            // …and never comes back: a later mount does not read on into the tail that this one cut off.
            put(&volume, b"new", b"new");
            drop(volume);
            let volume = mount(&torn, &what);
            assert_eq!(bytes_of(&volume, b"new"), Some(Ok(b"new".to_vec())), "{what}");
            let again: Vec<_> =
                (0..4u8).map(|n| bytes_of(&volume, &[b'a' + n]).is_some_and(|b| b != Ok(vec![]))).collect();
            assert_eq!(there, again, "{what}");
            volume.close().expect("close");
            consistent(&torn).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    }
}

#[test]
fn a_checkpoint_or_a_segment_that_trimming_relied_on_is_never_missed_silently() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    put(&volume, b"a", &noise(1, 10_000));
    volume.sync().expect("sync");
    put(&volume, b"b", b"behind the checkpoint");
    volume.fsync(1, false).expect("fsync");
    drop(volume);
    let image = world.crash(Crash::KeepAll, Survival::None);
    mount(&image.fork(), "undamaged");
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(image.store_disk(), options).expect("the store");
    for (pack, _) in store.metadata_packs(Uuid([0xca; 16])) {
        let damaged = image.fork();
        damaged.remove_pack(&pack);
        let error = damaged.open().map(|_| ()).expect_err("a checkpoint's pack is gone");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
    for survival in [Survival::All, Survival::None] {
        let damaged = image.crash(Crash::KeepAll, survival);
        for path in damaged.disk.files().into_iter().filter(|p| p.ends_with(".seg")) {
            damaged.disk.remove(&path).expect("remove");
        }
        let error = damaged.open().map(|_| ()).expect_err("the journal is gone");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
    // Any one segment that holds records behind the checkpoint.
    let newest = records(&image.disk).into_iter().max_by_key(|r| r.1).expect("records").0;
    let damaged = image.fork();
    damaged.disk.remove(&newest).expect("remove");
    let error = damaged.open().map(|_| ()).expect_err("the newest segment is gone");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn regression_the_only_segment_of_a_mount_is_missed_without_a_checkpoint_too() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    put(&volume, b"a", b"certain");
    volume.fsync(1, false).expect("fsync");
    drop(volume);
    let image = world.crash(Crash::KeepAll, Survival::None);
    mount(&image.fork(), "undamaged");
    let newest = records(&image.disk).into_iter().max_by_key(|r| r.1).expect("records").0;
    image.disk.remove(&newest).expect("remove");
    let error = image.open().map(|_| ()).expect_err("its records are gone");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn an_engine_ahead_of_the_truth_or_of_another_is_discarded() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    put(&volume, b"a", b"certain");
    volume.sync().expect("sync");
    drop(volume);
    let image = world.crash(Crash::DropUnsynced, Survival::All);
    // The same volume goes another way, and its engine with it.
    let other = image.fork();
    let volume = other.open().expect("mount");
    put(&volume, b"b", b"elsewhere");
    volume.unlink(1, b"a").expect("unlink");
    volume.close().expect("close");
    let mut ahead = image.fork();
    ahead.engine = other.engine.surviving(Survival::All);
    let volume = mount(&ahead, "an engine ahead");
    assert_eq!(bytes_of(&volume, b"a"), Some(Ok(b"certain".to_vec())));
    assert_eq!(bytes_of(&volume, b"b"), None);
    volume.close().expect("close");
}

#[test]
fn an_fsync_that_fails_is_an_error_once_and_for_all() {
    for sticky in [false, true] {
        let world = World::make(&small());
        let volume = world.open().expect("mount");
        let ino = put(&volume, b"a", b"certain");
        volume.fsync(ino, false).expect("fsync");
        volume.write(ino, 0, b"perhaps", false).expect("write");
        world.disk.fail_at(world.disk.operations(), ErrorKind::Other, sticky);
        assert_eq!(volume.fsync(ino, false), Err(Error::Io), "sticky: {sticky}");
        for _ in 0..3 {
            assert_eq!(volume.fsync(ino, false), Err(Error::Io), "never a success later");
        }
        assert!(volume.is_read_only());
        assert_eq!(volume.write(ino, 0, b"refused", false), Err(Error::ReadOnly));
        assert_eq!(volume.unlink(1, b"a"), Err(Error::ReadOnly));
        assert!(volume.sync().is_err() && volume.close().is_err());
        drop(volume);
        for crash in [Crash::KeepAll, Crash::DropUnsynced] {
            let volume = mount(&world.crash(crash, Survival::All), "after it");
            let bytes = bytes_of(&volume, b"a").expect("there").expect("readable");
            assert!(bytes == b"certain" || bytes == b"perhaps", "{bytes:?}");
        }
    }
}

#[test]
fn regression_a_mount_that_a_failing_disk_ends_says_so_and_does_not_hang() {
    // The journal stopped itself under a lock that it held.
    let world = World::make(&small());
    put(&world.open().expect("mount"), b"a", b"bytes");
    let mut failed = 0;
    for at in 0..40 {
        let world = world.fork();
        world.disk.fail_at(at, ErrorKind::Other, true);
        let (done, ended) = std::sync::mpsc::channel();
        let mounting = world.clone();
        std::thread::spawn(move || {
            let _ = done.send(mounting.open().map(|_| ()));
        });
        // Not a measurement: only that it ends at all.
        let outcome = ended.recv_timeout(std::time::Duration::from_secs(60)).expect("it ends");
        if let Err(error) = outcome {
            assert!(matches!(error, OpenError::Failed { .. }), "{error}");
            failed += 1;
        }
        assert_eq!(bytes_of(&mount(&world.fork(), "after it"), b"a"), Some(Ok(b"bytes".to_vec())));
    }
    assert!(failed >= 15, "{failed} mounts failed");
}

#[test]
fn a_pack_that_a_killed_mount_sealed_is_certain_before_anything_refers_to_it() {
    let base = World::make(&small());
    let bytes = noise(4, 9_000);
    for n in 0.. {
        let world = base.fork();
        let volume = world.open().expect("mount");
        put(&volume, b"first", &bytes);
        volume.fsync(1, false).expect("fsync");
        // The machine goes on: what was sealed and not synced is there, and its chunks are found.
        world.disk.kill_at(world.disk.operations() + n);
        let _ = volume.maintain();
        let over = !world.disk.is_cut();
        drop(volume);
        let world = world.healed();
        let volume = mount(&world, "after the kill");
        put(&volume, b"second", &bytes);
        volume.maintain().expect("maintain");
        volume.fsync(1, false).expect("fsync");
        drop(volume);
        for survival in [Survival::All, Survival::None] {
            let volume = mount(&world.crash(Crash::DropUnsynced, survival), "without power");
            for name in [&b"first"[..], b"second"] {
                assert_eq!(bytes_of(&volume, name), Some(Ok(bytes.clone())), "killed at {n}");
            }
        }
        if over {
            assert!(n > 10, "{n} operations");
            return;
        }
    }
}

#[test]
fn records_whose_sync_failed_are_written_again_by_the_next_mount() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    put(&volume, b"a", b"acknowledged");
    // Linux takes pages for clean that it could not write: what is read is not what is on the disk, and stays so.
    world.disk.fail(world.disk.operations(), ErrorKind::Other, Failure::Forgotten, false);
    assert_eq!(volume.fsync(1, false), Err(Error::Io));
    drop(volume);
    let volume = mount(&world, "the disk is well again");
    assert_eq!(bytes_of(&volume, b"a"), Some(Ok(b"acknowledged".to_vec())));
    put(&volume, b"b", b"certain");
    volume.fsync(1, false).expect("fsync");
    drop(volume);
    let volume = mount(&world.crash(Crash::DropUnsynced, Survival::None), "without power");
    assert_eq!(bytes_of(&volume, b"a"), Some(Ok(b"acknowledged".to_vec())));
    assert_eq!(bytes_of(&volume, b"b"), Some(Ok(b"certain".to_vec())));
}

#[test]
fn replaying_twice_leaves_what_replaying_once_does() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let ino = put(&volume, b"a", &noise(1, 9_000));
    volume.maintain().expect("maintain");
    truncate(&volume, ino, 4_000).expect("truncate");
    volume.write(ino, 6_000, &noise(2, 3_000), false).expect("write");
    volume.rename(1, b"a", 1, b"b", cairn_volume::RenameMode::Replace).expect("rename");
    put(&volume, b"a", b"anew");
    let tree = cairn_tests::tree::of_volume(&volume).expect("tree");
    drop(volume);
    for round in 0..6 {
        // The clone of a disk is the disk: each mount replays what the ones before it replayed, and adds an epoch.
        let volume = mount(&world, "again");
        let again = cairn_tests::tree::of_volume(&volume).expect("tree");
        assert!(tree == again, "mount {round}");
    }
}

#[test]
fn regression_a_journal_full_of_mounts_that_came_to_nothing_still_mounts_and_stays_short() {
    let options = MakeOptions { journal_size: 512 << 10, ..small() };
    let world = World::make(&options);
    for round in 0..40u8 {
        let volume = world.open().unwrap_or_else(|e| panic!("mount {round}: {e}"));
        if round % 4 == 0 {
            put(&volume, &[b'a' + round], &noise(round.into(), 6_000));
        }
        let journal = volume.usage().journal;
        assert!(journal <= options.journal_size, "mount {round}: {journal} bytes");
    }
    let volume = world.open().expect("mount");
    for round in (0..40u8).step_by(4) {
        assert_eq!(bytes_of(&volume, &[b'a' + round]), Some(Ok(noise(round.into(), 6_000))));
    }
    volume.close().expect("close");
}

#[test]
fn a_full_disk_is_told_at_write_and_deleting_makes_room_again() {
    let world = World::make(&MakeOptions { journal_size: 2 << 20, ..small() });
    let volume = world.open().expect("mount");
    world.disk.set_capacity(40 << 20);
    let mut written = 0u64;
    let refused = loop {
        let attr = match volume.create(1, format!("{written}").as_bytes(), 0o644, 0, &Caller::default()) {
            Ok(attr) => attr,
            Err(error) => break error,
        };
        volume.release(attr.ino);
        match volume.write(attr.ino, 0, &noise(written, 64 << 10), false) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "a disk of 40 MiB takes 64 MiB of noise");
    };
    assert_eq!(refused, Error::NoSpace);
    assert!(written > 50, "{written} files fit");
    for n in 0..written {
        assert!(bytes_of(&volume, format!("{n}").as_bytes()) == Some(Ok(noise(n, 64 << 10))), "file {n}");
    }
    for n in 0..written / 2 {
        volume.unlink(1, format!("{n}").as_bytes()).expect("deleting works on a full disk");
    }
    volume.sync().expect("folding goes on in what is kept free for it");
    for n in 0..20 {
        put(&volume, format!("new {n}").as_bytes(), &noise(n, 64 << 10));
    }
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}

#[test]
fn a_huge_truncation_is_one_record() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let ino = file(&volume, b"huge");
    truncate(&volume, ino, 1 << 50).expect("truncate");
    volume.write(ino, 1 << 49, b"far", false).expect("write");
    let before = world.disk.operations();
    truncate(&volume, ino, 10).expect("truncate");
    truncate(&volume, ino, 1 << 50).expect("truncate");
    volume.unlink(1, b"huge").expect("unlink");
    assert_eq!(world.disk.operations() - before, 3, "a write to the journal each");
    volume.close().expect("close");
}

#[test]
fn a_fold_replaces_only_what_is_still_what_it_read() {
    // One folds while the other overwrites: what was written last must win, every time.
    let world = World::make(&MakeOptions { journal_size: 4 << 20, ..small() });
    let volume = world.open().expect("mount");
    let ino = file(&volume, b"f");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                volume.maintain().expect("maintain");
            }
        });
        let mut model = vec![0; 40_000];
        for round in 0..3_000u64 {
            let at = (round * 7_919 % 36_000) as usize;
            let bytes = noise(round, 1 + (round * 31 % 4_000) as usize);
            volume.write(ino, at as u64, &bytes, false).expect("write");
            model[at..at + bytes.len()].copy_from_slice(&bytes);
            if round % 10 == 9 {
                let size = volume.getattr(ino).expect("getattr").size as usize;
                let read = volume.read(ino, 0, 40_000).expect("read");
                if let Some(wrong) = (0..size).find(|i| read[*i] != model[*i]) {
                    done.store(true, std::sync::atomic::Ordering::Relaxed);
                    panic!("round {round}: byte {wrong} is not what was written last");
                }
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    volume.close().expect("close");
}

#[test]
fn the_journal_stays_under_its_cap_whatever_is_written_where() {
    let options = MakeOptions { journal_size: 512 << 10, ..small() };
    let world = World::make(&options);
    let volume = world.open().expect("mount");
    let cold = put(&volume, b"cold", &noise(1, 3_000));
    let hot = file(&volume, b"hot");
    for round in 0..2_000u64 {
        volume.write(hot, round % 5 * 1_000, &noise(round, 6_000), false).expect("write");
        assert!(volume.usage().journal <= options.journal_size);
    }
    assert_eq!(volume.read(cold, 0, 3_000), Ok(noise(1, 3_000)));
    volume.close().expect("close");
}

/// An engine that errs from when it is told to.
struct Breakable {
    inner: MemoryEngine,
    broken: Arc<AtomicBool>,
}

impl Breakable {
    fn check(&self) -> Result<(), EngineError> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(EngineError::Failed { engine: "breakable", reason: "it was told to".into() }),
            false => Ok(()),
        }
    }
}

impl Engine for Breakable {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.check()?;
        self.inner.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], each: Visit<'_>) -> Result<(), EngineError> {
        self.check()?;
        self.inner.scan(from, to, each)
    }
    fn apply(&self, changes: &mut dyn Iterator<Item = Change>, at: CheckpointRef) -> Result<(), EngineError> {
        self.check()?;
        self.inner.apply(changes, at)
    }
    fn position(&self) -> Result<Option<CheckpointRef>, EngineError> {
        self.inner.position()
    }
}

/// A mount with engines from `source`, and the names of 40 files that are synced there, the `i`th holding `noise(i, 3000)`.
fn forty_files(
    world: &World,
    source: impl Fn(bool) -> Result<Arc<dyn Engine>, EngineError> + Send + Sync + 'static,
    background: bool,
) -> (Arc<Volume>, Vec<Vec<u8>>) {
    let volume = open_on(OpenOn {
        disk: Arc::new(world.disk.clone()),
        store: world.store_disk(),
        engine: EngineChoice::By(Box::new(source)),
        background,
        session: 5,
        options: OpenOptions::default(),
        name: "volume".into(),
    })
    .expect("mount");
    let names: Vec<Vec<u8>> = (0..40).map(|i| format!("n{i}").into_bytes()).collect();
    for (i, name) in names.iter().enumerate() {
        put(&volume, name, &noise(i as u64, 3_000));
    }
    volume.sync().expect("sync");
    (volume, names)
}

#[test]
fn an_engine_that_fails_while_mounted_is_rebuilt_and_nobody_sees_an_error() {
    let world = World::make(&small());
    // Each engine made is the test's to break.
    let made: Arc<Mutex<Vec<Arc<AtomicBool>>>> = Arc::default();
    let engines = made.clone();
    let source = move |_fresh: bool| -> Result<Arc<dyn Engine>, EngineError> {
        let broken = Arc::new(AtomicBool::new(false));
        engines.lock().expect("not poisoned").push(broken.clone());
        Ok(Arc::new(Breakable { inner: MemoryEngine::new(), broken }))
    };
    let (volume, names) = forty_files(&world, source, true);
    for round in 0..20u64 {
        made.lock().expect("not poisoned").last().expect("one").store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for worker in 0..4u64 {
                let (volume, names) = (&volume, &names);
                scope.spawn(move || {
                    for (i, name) in names.iter().enumerate() {
                        match (worker + round + i as u64) % 4 {
                            0 => assert_eq!(bytes_of(volume, name), Some(Ok(noise(i as u64, 3000)))),
                            1 => assert!(volume.lookup(1, name).expect("looked up").is_some()),
                            2 => drop(put(volume, format!("w{worker}-{round}-{i}").as_bytes(), name)),
                            _ => {
                                let mut count = 0;
                                let listed = volume.readdir(1, 0, &mut |_| {
                                    count += 1;
                                    true
                                });
                                assert!(listed.is_ok() && count >= names.len(), "{listed:?}");
                            }
                        }
                    }
                });
            }
        });
        volume.sync().expect("sync");
    }
    assert!(volume.statistics().engine_rebuilds >= 10, "{:?}", volume.statistics());
    assert_eq!(volume.statistics().io_errors, 0);
    volume.close().expect("close");
    assert_eq!(volume.lookup(1, &names[0]), Err(Error::Io), "a closed volume answers nothing");
}

#[test]
fn an_engine_without_room_is_made_in_what_was_kept_for_it_or_kept_in_memory() {
    // How often there is no room for one, and how often one is asked for then.
    for (refusals, asked) in [(0, 1), (1, 2), (2, 2)] {
        let world = World::make(&small());
        let (refuse, made) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let broken = Arc::new(AtomicBool::new(false));
        let (refused, count, first) = (refuse.clone(), made.clone(), broken.clone());
        let source = move |_fresh: bool| -> Result<Arc<dyn Engine>, EngineError> {
            if refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
                return Err(EngineError::Failed { engine: "breakable", reason: "no room".into() });
            }
            // Only the mount's own is the test's to break.
            let broken = match count.fetch_add(1, Ordering::SeqCst) {
                0 => first.clone(),
                _ => Arc::default(),
            };
            Ok(Arc::new(Breakable { inner: MemoryEngine::new(), broken }))
        };
        let (volume, names) = forty_files(&world, source, false);
        volume.maintain().expect("maintain");
        assert_eq!(made.load(Ordering::SeqCst), 1, "the mount's own");
        let is_kept = || world.disk.open("reserve", Access::Read).is_ok();
        assert!(is_kept(), "room is kept");

        refuse.store(refusals, Ordering::SeqCst);
        broken.store(true, Ordering::SeqCst);
        let all_there = |volume: &Volume| {
            for (i, name) in names.iter().enumerate() {
                assert_eq!(bytes_of(volume, name), Some(Ok(noise(i as u64, 3_000))), "{refusals} refusals");
            }
        };
        all_there(&volume);
        assert_eq!(made.load(Ordering::SeqCst), 1 + asked, "{refusals} refusals");
        assert_eq!(is_kept(), refusals == 0, "the room goes to who needs it, after {refusals} refusals");

        // Wherever it is, it takes what comes.
        put(&volume, b"later", &noise(99, 3_000));
        volume.sync().expect("sync");
        volume.maintain().expect("maintain");
        assert!(is_kept(), "there is plenty of room: it is kept again");
        volume.close().expect("close");
        assert_eq!((volume.statistics().engine_rebuilds, volume.statistics().io_errors), (1, 0));
        let volume = world.open().expect("mount again");
        all_there(&volume);
        assert_eq!(bytes_of(&volume, b"later"), Some(Ok(noise(99, 3_000))));
        volume.close().expect("close");
        consistent(&world).expect("fsck");
    }
}

/// What is to be done once.
type Once = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

#[test]
fn regression_a_fold_that_takes_long_is_no_full_disk() {
    // Whoever waited took the idleness before the fold for the fold's end.
    let world = World::make(&small());
    let volume = open_on(OpenOn {
        disk: Arc::new(world.disk.clone()),
        store: Arc::new(Hooked::on_sync(world.store_disk(), || {
            std::thread::sleep(std::time::Duration::from_millis(450));
        })),
        engine: EngineChoice::Memory,
        background: true,
        session: 5,
        options: OpenOptions::default(),
        name: "volume".into(),
    })
    .expect("mount");
    let ino = put(&volume, b"a", b"");
    // Idle once, so that there is an idleness to be mistaken.
    volume.sync().expect("sync");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    for i in 0..12 {
        volume.write(ino, i * 100_000, &noise(i, 100_000), false).expect("a disk with room takes it");
    }
    volume.close().expect("close");
}

#[test]
fn what_a_fold_gives_back_holds_the_journal_for_its_oldest_byte() {
    // Two runs of a file, the one in front the younger; a chunk across both is cut, and is not what it was when its
    // pack is sealed. What is given back holds bytes of the older run.
    for seed in 0..12 {
        let world = World::make(&small());
        let during: Once = Arc::default();
        let act = during.clone();
        let volume = open_on(OpenOn {
            disk: Arc::new(world.disk.clone()),
            store: Arc::new(Hooked::on_sync(world.store_disk(), move || {
                let act = act.lock().expect("not poisoned").take();
                act.into_iter().for_each(|act| act());
            })),
            engine: EngineChoice::Memory,
            background: false,
            session: 5,
            options: OpenOptions::default(),
            name: "volume".into(),
        })
        .expect("mount");
        let mut expected = noise(seed, 6_000);
        let ino = file(&volume, b"f");
        volume.write(ino, 2_000, &expected[2_000..], false).expect("write");
        // Most of the journal lies in between, and nothing of it is left to be folded: a checkpoint is due right behind
        // the fold, and could trim one without the other.
        put(&volume, b"between", &noise(100, 450_000));
        volume.unlink(1, b"between").expect("unlink");
        volume.write(ino, 0, &expected[..2_000], false).expect("write");
        expected[1_990..2_000].fill(7);
        let (writer, bytes) = (volume.clone(), expected[1_990..2_000].to_vec());
        *during.lock().expect("not poisoned") = Some(Box::new(move || {
            writer.write(ino, 1_990, &bytes, false).expect("write");
        }));
        let before = volume.statistics().checkpoints;
        volume.maintain().expect("maintain");
        assert!(during.lock().expect("not poisoned").is_none(), "a pack was sealed");
        assert!(volume.statistics().checkpoints > before, "a checkpoint came right behind it");
        assert!(bytes_of(&volume, b"f") == Some(Ok(expected.clone())), "seed {seed}");
        volume.fsync(1, false).expect("fsync");
        drop(volume);
        let after = mount(&world.crash(Crash::DropUnsynced, Survival::None), "after it");
        assert!(bytes_of(&after, b"f") == Some(Ok(expected)), "seed {seed}, after a cut");
        after.close().expect("close");
    }
}

/// A name, and what is in the file.
type Named = (Vec<u8>, Vec<u8>);

/// A volume of four packs, half of each dead, closed; and what is left in them.
fn half_dead() -> (World, Vec<Named>) {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let files: Vec<_> =
        (0..16u8).map(|n| (vec![b'a' + n], noise(u64::from(n) + 50, 11_000 + usize::from(n)))).collect();
    for four in files.chunks(4) {
        for (name, bytes) in four {
            put(&volume, name, bytes);
        }
        volume.sync().expect("sync");
    }
    let (dead, kept): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, _)| name[0] % 2 == 0);
    dead.iter().for_each(|(name, _)| volume.unlink(1, name).expect("unlink"));
    volume.close().expect("close");
    (world, kept)
}

fn compact(volume: &Volume) {
    // Where the power goes it fails; what is left then is looked at.
    let _ = volume.gc(&GcOptions::default(), &mut |_| std::ops::ControlFlow::Continue(()));
}

#[test]
fn a_compactions_record_names_only_packs_that_are_sealed_and_synced() {
    let (base, kept) = half_dead();
    at_every_cut(
        &base,
        |_| {},
        compact,
        |world, _, what| {
            let volume = mount(world, what);
            for (name, bytes) in &kept {
                assert!(bytes_of(&volume, name).as_ref() == Some(&Ok(bytes.clone())), "{what}: {name:?}");
            }
        },
    );
}

#[test]
fn a_pack_that_was_compacted_goes_only_when_what_refers_to_its_successor_is_certain() {
    let (base, kept) = half_dead();
    let before = base.packs();
    let gone = std::cell::Cell::new(0);
    at_every_cut(
        &base,
        |_| {},
        compact,
        |world, over, what| {
            let packs = world.packs();
            let old = before.iter().filter(|pack| packs.contains(pack)).count();
            gone.set(gone.get() + u32::from(over && old < before.len()));
            // Before anything is mended: what a mount sees finds all it refers to.
            consistent(&world.joined()).unwrap_or_else(|e| panic!("{what}: {e}"));
            let volume = mount(world, what);
            for (name, bytes) in &kept {
                assert!(bytes_of(&volume, name).as_ref() == Some(&Ok(bytes.clone())), "{what}: {name:?}");
            }
            volume.close().expect("close");
        },
    );
    assert!(gone.get() > 0, "the old packs go in the end");
}

/// All chunks of a pack: which frame and slot, and the id.
fn chunks_of(footer: &Footer) -> Vec<(u32, u32, ChunkId)> {
    let mut chunks = footer.chunks.iter();
    let frame = |(number, frame): (usize, &cairn_format::FrameEntry)| -> Vec<_> {
        let of_frame = chunks.by_ref().take(frame.chunks as usize).zip(0..);
        of_frame.map(|(chunk, slot)| (number as u32, slot, chunk.id)).collect()
    };
    footer.frames.iter().enumerate().flat_map(frame).collect()
}

fn data_footers(world: &World) -> Vec<Footer> {
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(world.store_disk(), options).expect("the store");
    let footer = |pack| store.reader(pack).and_then(|reader| reader.footer()).expect("a footer");
    store.data_summaries().into_iter().map(|summary| footer(summary.pack)).collect()
}

#[test]
fn a_packs_footer_lists_what_it_replaces_and_that_is_the_same() {
    let (world, _) = half_dead();
    let old = data_footers(&world);
    assert!(old.iter().all(|footer| footer.replaces.is_empty()), "a fold replaces nothing");
    let volume = world.open().expect("mount");
    compact(&volume);
    volume.close().expect("close");
    let new = data_footers(&world);
    assert!(!new.is_empty());
    for footer in &new {
        let of_new = chunks_of(footer);
        let mut listed: Vec<_> = footer.replaces.iter().map(|replaced| replaced.chunk).collect();
        listed.sort_unstable();
        assert!(listed.into_iter().eq(0..of_new.len() as u32), "each of its chunks comes from somewhere");
        for replaced in &footer.replaces {
            let from = old.iter().find(|footer| footer.pack == replaced.pack).expect("one of the old packs");
            let (.., id) = of_new[replaced.chunk as usize];
            assert!(chunks_of(from).contains(&(replaced.frame, replaced.slot, id)), "{replaced:?}");
        }
    }
}

#[test]
fn a_new_pack_stays_though_a_checkpoint_that_knows_nothing_of_it_comes_behind_it() {
    let (world, kept) = half_dead();
    let volume = world.open().expect("mount");
    let mut failed = 0;
    let mut tell = |progress: &GcProgress| {
        if progress.step == GcStep::Committing && failed == 0 {
            // A checkpoint that fails half way is gone on with, as of here, when files refer to the new pack.
            file(&volume, b"meanwhile");
            world.disk.set_capacity(0);
            failed += u32::from(volume.maintain().is_err());
            world.disk.set_capacity(1 << 40);
            std::thread::sleep(std::time::Duration::from_millis(150));
        }
        std::ops::ControlFlow::Continue(())
    };
    volume.gc(&GcOptions::default(), &mut tell).expect("collecting");
    assert_eq!(failed, 1, "a checkpoint failed in between");
    for (name, bytes) in &kept {
        assert!(bytes_of(&volume, name).as_ref() == Some(&Ok(bytes.clone())), "{name:?}");
    }
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}
