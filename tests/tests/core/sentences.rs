//! More of "The order of things" in ARCHITECTURE: sentences that need no cut at a place of their own. Which test belongs to
//! which sentence: docs/TESTING.md.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_format::Uuid;
use cairn_store::disk::{Access, Crash, Disk, MemoryDisk};
use cairn_store::{Store, StoreOptions};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::engine::Survival;
use cairn_tests::hooked::Hooked;
use cairn_tests::tree::of_volume;
use cairn_tests::world::{World, small};
use cairn_volume::{
    Allocate, Caller, EngineChoice, Error, MakeOptions, OpenError, OpenOn, OpenOptions, RenameMode, Volume,
    open_on,
};

use super::order::{bytes_of, file, mount, put, truncate};

/// One of those who compete for few names in the root.
fn compete(volume: &Volume, dice: &mut Dice) {
    let [one, other] = [0; 2].map(|_| [b'a' + dice.below(5) as u8]);
    let found = || volume.lookup(1, &one).ok().flatten().map_or(0, |attr| attr.ino);
    // Most are refused, for what somebody else has done.
    let _: Result<(), Error> = match dice.below(9) {
        0 | 1 => volume.create(1, &one, 0o644, 0, &Caller::default()).map(|attr| volume.release(attr.ino)),
        2 => volume.mkdir(1, &one, 0o755, 0, &Caller::default()).map(|_| ()),
        3 => volume.rename(1, &one, 1, &other, RenameMode::Replace),
        4 => volume.rename(1, &one, 1, &other, RenameMode::Exchange),
        5 => volume.unlink(1, &one).or_else(|_| volume.rmdir(1, &one)),
        6 => volume.write(found(), dice.below(3_000), &noise(dice.roll(), 1_500), false),
        7 => truncate(volume, found(), dice.below(4_000)),
        _ => volume.link(found(), 1, &other).map(|_| ()),
    };
}

#[test]
fn what_racing_operations_left_is_what_replay_leaves() {
    let base = World::make(&MakeOptions { journal_size: 4 << 20, ..small() });
    for round in 0..40 {
        let world = base.fork();
        let volume = world.open().expect("mount");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let volume = &volume;
                scope.spawn(move || {
                    let mut dice = Dice::new(round * 4 + thread);
                    (0..150).for_each(|_| compete(volume, &mut dice));
                });
            }
        });
        let left = of_volume(&volume).expect("tree");
        drop(volume);
        let volume = mount(&world.crash(Crash::KeepAll, Survival::None), "after it");
        assert!(of_volume(&volume).expect("tree") == left, "round {round}");
    }
}

#[test]
fn an_fsync_seals_no_pack() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let before = world.packs();
    for n in 0..20u8 {
        let ino = put(&volume, &[b'a' + n], &noise(n.into(), 9_000));
        volume.fsync(ino, n % 2 == 0).expect("fsync");
        volume.fsync(1, false).expect("fsync");
    }
    assert_eq!(world.packs(), before);
}

fn data_packs(world: &World) -> Vec<u64> {
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(world.store_disk(), options).expect("the store");
    let lengths =
        store.data_summaries().into_iter().map(|known| store.reader(known.pack).and_then(|r| r.len()));
    lengths.map(|length| length.expect("a pack")).collect()
}

#[test]
fn a_pack_is_sealed_by_its_size_and_by_a_quarter_of_the_journal_in_plain_bytes() {
    let sizes = MakeOptions { journal_size: 2 << 20, ..small() };
    // Frames that are on their way when it is full go into it as well.
    let most = 3 * u64::from(sizes.pack_size);
    let long = noise(1, 700_000);
    let counted: Vec<u8> =
        (0..).flat_map(|n: u32| format!("line {n:09}\n").into_bytes()).take(1_300_000).collect();
    for (bytes, least) in [(long, 700_000 / most as usize), (counted, 3)] {
        let world = World::make(&sizes);
        let volume = world.open().expect("mount");
        put(&volume, b"f", &bytes);
        volume.sync().expect("sync");
        volume.close().expect("close");
        let packs = data_packs(&world);
        assert!(packs.len() >= least, "{packs:?}");
        assert!(packs.iter().all(|len| *len < most), "{packs:?}");
    }
}

#[test]
fn a_volume_closed_in_order_that_lost_its_checkpoint_is_damaged() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    put(&volume, b"a", &noise(1, 10_000));
    volume.close().expect("close");
    drop(volume);
    let image = world.crash(Crash::DropUnsynced, Survival::All);
    mount(&image.fork(), "undamaged");
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(image.store_disk(), options).expect("the store");
    let packs = store.metadata_packs(Uuid([0xca; 16]));
    assert!(!packs.is_empty());
    for survival in [Survival::All, Survival::None] {
        for (pack, _) in &packs {
            let damaged = image.crash(Crash::KeepAll, survival);
            damaged.remove_pack(pack);
            let error = damaged.open().map(|_| ()).expect_err("a checkpoint's pack is gone");
            assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        }
    }
}

/// A name that no codec shortens.
fn long_name(n: u64) -> Vec<u8> {
    noise(n, 120).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

#[test]
fn a_checkpoint_of_several_packs_counts_only_whole() {
    const NAMES: u64 = 900;
    let base = World::make(&MakeOptions { journal_size: 4 << 20, ..small() });
    let volume = base.open().expect("mount");
    for n in 0..NAMES {
        file(&volume, &long_name(n));
    }
    volume.fsync(1, false).expect("fsync");
    drop(volume);
    let (mut most, mut n) = (0, 0);
    loop {
        let world = base.fork();
        let before = world.packs().len();
        let volume = world.open().expect("mount");
        world.disk.cut_at(world.disk.operations() + n);
        let _ = volume.maintain();
        let over = !world.disk.is_cut();
        most = most.max(world.packs().len() - before);
        for crash in [Crash::KeepAll, Crash::DropUnsynced, Crash::Random(n)] {
            let volume = mount(&world.crash(crash, Survival::None), &format!("cut {n}, {crash:?}"));
            let mut names = 0;
            let listed = volume.readdir(1, 0, &mut |_| {
                names += 1;
                true
            });
            assert!(listed.is_ok() && names == NAMES + 2, "cut {n}, {crash:?}: {names} names, {listed:?}");
        }
        if over {
            break;
        }
        n += 1;
    }
    assert!(most >= 3, "{most} packs were a checkpoint");
}

/// All files of a disk whose paths begin so.
fn files(disk: &MemoryDisk, begin: &str) -> BTreeMap<String, Vec<u8>> {
    let paths = disk.files().into_iter().filter(|path| path.starts_with(begin));
    paths
        .map(|path| {
            let file = disk.open(&path, Access::Read).expect("listed");
            let mut bytes = vec![0; file.len().expect("len") as usize];
            file.read_exact_at(&mut bytes, 0).expect("read");
            (path, bytes)
        })
        .collect()
}

/// Puts files in place of what is there.
fn replace(disk: &MemoryDisk, with: &BTreeMap<String, Vec<u8>>) {
    for (path, bytes) in with {
        let _ = disk.remove(path);
        disk.open(path, Access::CreateNew).and_then(|file| file.write_at(bytes, 0)).expect("written");
    }
}

fn epoch_of(volume: &Volume) -> u32 {
    let _ = volume.unlink(1, b"the epoch's");
    let made = volume.create(1, b"the epoch's", 0o644, 0, &Caller::default()).expect("create");
    made.generation
}

#[test]
fn the_epoch_is_above_all_that_superblock_segments_and_packs_name() {
    let early = World::make(&small());
    put(&mount(&early, "first"), b"a", &noise(1, 10_000));
    let later = early.fork();
    for round in 0..5u8 {
        let volume = mount(&later, "again");
        put(&volume, &[b'b' + round], &noise(round.into(), 10_000));
        volume.sync().expect("sync");
    }
    let last = {
        let volume = mount(&later, "last");
        epoch_of(&volume)
    };
    // An old superblock says less than the segments.
    let old = later.fork();
    replace(&old.disk, &files(&early.disk, "superblock"));
    assert!(epoch_of(&mount(&old, "an old superblock")) > last);
    // Neither superblock nor segments know of the packs of another life.
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let packs = Store::open(later.store_disk(), options).expect("the store").data_summaries();
    let packs: Vec<_> = packs.into_iter().map(|known| known.pack).collect();
    let named = packs.iter().map(|pack| pack.epoch()).max().expect("packs");
    for pack in packs {
        let path = format!("store/{}", cairn_store::pack_path(&pack));
        if let Some((dir, _)) = path.rsplit_once('/') {
            let _ = early.disk.create_dir(dir);
        }
        replace(&early.disk, &files(&later.disk, &path));
    }
    assert!(epoch_of(&mount(&early, "packs of later mounts")) > named);
}

#[test]
fn numbers_of_a_block_that_was_begun_unsynced_are_not_given_out_again() {
    const BLOCK: u64 = 1 << 16;
    let world = World::make(&MakeOptions { journal_size: 64 << 20, segment_size: 1 << 20, ..small() });
    let volume = world.open().expect("mount");
    let first = file(&volume, b"first");
    let mut last = first;
    // The numbers reserved by the mount itself run out.
    for n in 0..BLOCK {
        last = file(&volume, format!("{n}").as_bytes());
    }
    assert!(last >= first + BLOCK, "{first} to {last}");
    drop(volume);
    let volume = mount(&world.crash(Crash::DropUnsynced, Survival::None), "after it");
    let next = file(&volume, b"next");
    assert!(next > last, "{next} behind {last}");
}

#[test]
fn an_append_changes_no_length_of_a_segment() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..300 {
        let _ = volume.unlink(1, b"f");
        put(&volume, b"f", &noise(n, 3_000));
        for (path, bytes) in files(&world.disk, "journal/") {
            let whole = *known.entry(path.clone()).or_insert(small().segment_size as usize);
            assert_eq!(bytes.len(), whole, "{path} after write {n}");
        }
    }
    assert!(known.len() > 2, "{known:?}");
}

#[test]
fn a_journal_that_cannot_be_folded_has_room_for_deletions_kept() {
    let world = World::make(&small());
    let volume = open_on(OpenOn {
        disk: Arc::new(world.disk.clone()),
        store: Arc::new(Hooked::on_open(world.store_disk(), |_, access| match access {
            Access::CreateNew => Err(std::io::Error::other("it was told to")),
            _ => Ok(()),
        })),
        engine: EngineChoice::Memory,
        background: false,
        session: 5,
        options: OpenOptions::default(),
        name: "volume".into(),
    })
    .expect("mount");
    let ino = file(&volume, b"f");
    for n in 0..20u8 {
        file(&volume, &[b'a', n + 1]);
    }
    let mut at = 0;
    while volume.write(ino, at, &noise(at, 500), false).is_ok() {
        at += 500;
    }
    assert!(at > 100_000, "the journal took {at} bytes");
    for n in 0..20u8 {
        volume.unlink(1, &[b'a', n + 1]).expect("there is room to delete");
    }
    truncate(&volume, ino, 10).expect("there is room to truncate");
}

/// The disk with the contents of two files in each other's place.
fn swapped(image: &World, one: &str, other: &str) -> World {
    let world = image.fork();
    let mut both = files(&image.disk, one);
    both.extend(files(&image.disk, other));
    let (a, b) = (both[one].clone(), both[other].clone());
    replace(&world.disk, &BTreeMap::from([(one.to_owned(), b), (other.to_owned(), a)]));
    world
}

#[test]
fn whole_packs_and_segments_in_each_others_place_are_never_taken_for_what_was_there() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    // A chunk each, of the same length: nothing but the place tells them apart.
    let contents = [1, 2].map(|seed| noise(seed, 200));
    for (name, bytes) in [b"a", b"b"].into_iter().zip(&contents) {
        put(&volume, name, bytes);
        volume.sync().expect("sync");
    }
    // Some segments of records behind the checkpoint.
    for n in 0..20u8 {
        put(&volume, &[b'c' + n], &noise(n.into(), 10_000));
    }
    volume.fsync(1, false).expect("fsync");
    drop(volume);
    let image = world.crash(Crash::KeepAll, Survival::None);
    let paths = image.disk.files();
    let mut refused = 0;
    for kind in [".pack", ".seg"] {
        let of_kind: Vec<_> = paths.iter().filter(|path| path.ends_with(kind)).collect();
        for (i, one) in of_kind.iter().enumerate() {
            for other in &of_kind[i + 1..] {
                let damaged = swapped(&image, one, other);
                let volume = match damaged.open() {
                    Ok(volume) => volume,
                    Err(error) => {
                        assert!(matches!(error, OpenError::Damaged { .. }), "{one}, {other}: {error}");
                        refused += 1;
                        continue;
                    }
                };
                let late = (0..20u8).map(|n| (vec![b'c' + n], noise(n.into(), 10_000)));
                let early = [b"a", b"b"].into_iter().map(|name| name.to_vec()).zip(contents.clone());
                for (name, bytes) in early.chain(late) {
                    match bytes_of(&volume, &name) {
                        Some(Err(Error::Io)) => refused += 1,
                        found => assert!(found == Some(Ok(bytes)), "{one}, {other}: {name:?}"),
                    }
                }
            }
        }
    }
    assert!(refused > 0, "nothing was in the wrong place");
}

#[test]
fn bytes_on_both_sides_of_a_ranges_border_stay_where_they_are() {
    const RANGE: usize = 1 << 20;
    let world = World::make(&MakeOptions { journal_size: 8 << 20, ..small() });
    let mut volume: Arc<Volume> = world.open().expect("mount");
    let mut expected = noise(1, 2 * RANGE + 50_000);
    let ino = put(&volume, b"f", &expected);
    let chunk = noise(77, 1_000);
    let source = put(&volume, b"chunk", &chunk);
    volume.sync().expect("sync");
    let mut dice = Dice::new(5);
    for round in 0..24u64 {
        let border = RANGE * (1 + round as usize % 2);
        let (before, len) = (dice.below(6_000) as usize, 1 + dice.below(12_000) as usize);
        let at = border - before;
        if round % 4 == 3 {
            // Part of a chunk, named as it is: nothing is folded for it.
            let at = border - 100;
            assert_eq!(volume.copy_range((source, 50), (ino, at as u64), 300, false), Ok(300));
            expected[at..at + 300].copy_from_slice(&chunk[50..350]);
        } else if round % 5 == 4 {
            volume.allocate(ino, at as u64, len as u64, Allocate::Punch, false).expect("punch");
            expected[at..at + len].fill(0);
        } else {
            let bytes = noise(round, len);
            volume.write(ino, at as u64, &bytes, false).expect("write");
            expected[at..at + len].copy_from_slice(&bytes);
        }
        match round % 3 {
            0 => volume.sync().expect("sync"),
            1 => drop(volume.maintain().expect("maintain")),
            _ => {
                volume.fsync(ino, false).expect("fsync");
                drop(volume);
                volume = world.open().expect("mount");
            }
        }
        assert!(bytes_of(&volume, b"f") == Some(Ok(expected.clone())), "round {round}");
    }
    volume.close().expect("close");
}
