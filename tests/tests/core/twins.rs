//! Second copies of packs: a pack that is missing, emptied or garbled whole is read from its twin and written anew, a twin that
//! is missing or damaged is made from its pack, what is damaged in both comes from either, and nothing that was dropped comes
//! back by its twin.

use std::collections::BTreeMap;

use cairn_format::{PackId, PackKind};
use cairn_store::disk::{Access, Disk, MemoryDisk};
use cairn_store::{PackReader, Place, list_packs, list_place, list_twins};
use cairn_tests::dice::noise;
use cairn_tests::engine::Survival;
use cairn_tests::watchdog::watch;
use cairn_tests::world::{World, copy_file, small};
use cairn_volume::{HealMode, MakeOptions, OpenOptions, ScrubOptions, Volume};
use fsck_cairn::{Done, Level, Quiet, RepairOptions, Report, Restored, Severity};

use super::crash::consistent;
use super::order::{at_every_cut, bytes_of, mount, put};

/// What many files share, and what none do.
const SHARED: usize = 20_000;
const COPIES: u8 = 9;
const ALONE: u8 = 3;

fn content(n: u8) -> Vec<u8> {
    noise(n.into(), SHARED + usize::from(n) * 137)
}

fn fill(volume: &Volume) {
    for n in 0..COPIES {
        put(volume, &[b'a' + n], &content(0));
    }
    volume.sync().expect("folds");
    for n in 1..=ALONE {
        put(volume, &[b'A' + n], &content(n));
    }
    volume.sync().expect("folds");
}

/// A volume with packs that are shared and packs that are not, and all the twins that there are to be; closed.
fn filled() -> World {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    fill(&volume);
    volume.close().expect("close");
    world
}

fn whole(volume: &Volume, what: &str) {
    let is = |name: &[u8], n| assert!(bytes_of(volume, name) == Some(Ok(content(n))), "{what}: {name:?}");
    (0..COPIES).for_each(|n| is(&[b'a' + n], 0));
    (1..=ALONE).for_each(|n| is(&[b'A' + n], n));
}

fn read(world: &World, place: Place, pack: &PackId) -> Vec<u8> {
    let file = world.store_disk().open(&place.path(pack), Access::Read).expect("a pack");
    let mut bytes = vec![0; file.len().expect("a length") as usize];
    file.read_exact_at(&mut bytes, 0).expect("its bytes");
    bytes
}

fn is_there(world: &World, place: Place, pack: &PackId) -> bool {
    world.store_disk().open(&place.path(pack), Access::Read).is_ok()
}

fn write(world: &World, place: Place, pack: &PackId, bytes: &[u8]) {
    let disk = world.store_disk();
    let path = place.path(pack);
    let _ = disk.remove(&path);
    disk.open(&path, Access::CreateNew).and_then(|file| file.write_at(bytes, 0)).expect("written");
}

/// The packs that have a twin, with their bytes and kinds.
fn twins(world: &World) -> BTreeMap<PackId, (Vec<u8>, PackKind)> {
    let disk = world.store_disk();
    let twins = list_twins(&*disk).expect("a listing").packs.into_iter();
    let with_bytes = |(pack, _)| {
        let kind =
            PackReader::open_at(&*disk, Place::Twin, pack).and_then(|r| r.footer()).expect("whole").kind;
        (pack, (read(world, Place::Twin, &pack), kind))
    };
    twins.map(with_bytes).collect()
}

fn packs(world: &World) -> Vec<PackId> {
    list_packs(&*world.store_disk()).expect("a listing").packs.into_iter().map(|(pack, _)| pack).collect()
}

fn mended(volume: &Volume) {
    for _ in 0..20 {
        volume.maintain().expect("maintains");
        let stood = volume.statistics();
        if stood.packs_waiting == 0 && stood.twins_waiting == 0 {
            return;
        }
    }
    panic!("{:?}", volume.statistics());
}

/// What becomes of a copy's bytes; whether there are any.
type Fate = fn(&mut Vec<u8>) -> bool;

/// What may happen to a copy of a pack.
const FATES: [(&str, Fate); 5] = [
    ("missing", |_| false),
    ("emptied", |bytes| {
        bytes.clear();
        true
    }),
    ("garbled whole", |bytes| {
        *bytes = noise(77, bytes.len());
        true
    }),
    ("cut in half", |bytes| {
        bytes.truncate(bytes.len() / 2);
        true
    }),
    ("zeroed in its first half", |bytes| {
        let half = bytes.len() / 2;
        bytes[..half].fill(0);
        true
    }),
];

fn inflict(world: &World, place: Place, pack: &PackId, fate: Fate) {
    let mut bytes = read(world, place, pack);
    match fate(&mut bytes) {
        true => write(world, place, pack, &bytes),
        false => world.store_disk().remove(&place.path(pack)).expect("there"),
    }
}

fn fsck(world: &World, level: Option<Level>) -> Report {
    let (disk, store) = (std::sync::Arc::new(world.disk.clone()), world.store_disk());
    let report = match level {
        None => fsck_cairn::check(&*disk, store, None, &Default::default(), &Quiet),
        Some(level) => {
            let options = RepairOptions { level, force: true, ..RepairOptions::default() };
            fsck_cairn::repair(disk, store, None, &options, &Quiet)
        }
    };
    report.expect("fsck")
}

#[test]
fn metadata_and_what_is_shared_have_a_second_copy_and_the_rest_has_none() {
    let world = filled();
    let (twins, packs) = (twins(&world), packs(&world));
    let kinds = |kind| twins.values().filter(|(_, found)| *found == kind).count();
    assert!(kinds(PackKind::Metadata) > 0 && kinds(PackKind::Data) > 0, "{}", twins.len());
    let alone: Vec<_> = packs.iter().filter(|pack| !twins.contains_key(pack)).collect();
    assert!(!alone.is_empty(), "all packs have one");
    for pack in alone {
        let kind =
            PackReader::open(&*world.store_disk(), *pack).and_then(|r| r.footer()).expect("whole").kind;
        assert_eq!(kind, PackKind::Data, "metadata without a second copy");
    }
    for (pack, (bytes, _)) in &twins {
        assert!(read(&world, Place::Pack, pack) == *bytes, "{pack}");
    }
    let stood = world.open().expect("mount").statistics();
    let bytes: u64 = twins.values().map(|(bytes, _)| bytes.len() as u64).sum();
    assert_eq!((stood.twins, stood.twin_bytes, stood.twins_waiting), (twins.len() as u64, bytes, 0));
    let report = fsck(&world, None);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.totals.twins, report.totals.twin_bytes), (twins.len() as u64, bytes));
}

#[test]
fn without_parity_nothing_is_there_twice() {
    let world = World::make(&MakeOptions { parity_data: 0, parity_extra: 0, ..small() });
    let volume = world.open().expect("mount");
    fill(&volume);
    mended(&volume);
    volume.close().expect("close");
    assert!(twins(&world).is_empty());
    assert!(fsck(&world, None).findings.is_empty());
}

#[test]
fn a_pack_that_is_lost_whole_reads_right_by_its_twin_and_is_as_it_was_afterwards() {
    let _watchdog = watch("packs lost whole", 10);
    let base = filled();
    let mut back = 0;
    for (pack, (bytes, kind)) in &twins(&base) {
        for (fate, inflict_it) in FATES {
            for survival in [Survival::All, Survival::None] {
                let what = format!("{kind:?} {pack}, {fate}, engine {survival:?}");
                let mut world = base.fork();
                world.engine = world.engine.surviving(survival);
                inflict(&world, Place::Pack, pack, inflict_it);
                let shown = world.fork();
                let options = OpenOptions { read_only: true, index_mem: 1 << 18, ..OpenOptions::default() };
                whole(&shown.open_with(options).unwrap_or_else(|e| panic!("{what}: {e}")), &what);
                let volume = mount(&world, &what);
                whole(&volume, &what);
                mended(&volume);
                whole(&volume, &what);
                let report = volume.scrub(&ScrubOptions::default(), &mut |_| true).expect("scrubs");
                assert_eq!(report.uncorrected, 0, "{what}: {report:?}");
                // A checkpoint may have taken its place meanwhile: then both are gone.
                let dropped = *kind == PackKind::Metadata && !is_there(&world, Place::Twin, pack);
                back += u64::from(!dropped);
                assert_eq!(is_there(&world, Place::Pack, pack), !dropped, "{what}: it is not back");
                assert!(dropped || read(&world, Place::Pack, pack) == *bytes, "{what}: it is another");
                volume.close().expect("close");
                consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
                whole(&mount(&world, &what), &what);
            }
        }
    }
    assert!(back > FATES.len() as u64 * 4, "few came back: {back}");
}

#[test]
fn with_healing_off_a_missing_pack_is_missing() {
    let base = filled();
    let mut met = 0;
    for (pack, _) in twins(&base).iter().filter(|(_, (_, kind))| *kind == PackKind::Data) {
        let world = base.fork();
        inflict(&world, Place::Pack, pack, FATES[0].1);
        let options = OpenOptions { heal: HealMode::Off, index_mem: 1 << 18, ..OpenOptions::default() };
        let volume = world.open_with(options).expect("mount");
        met += u64::from((0..COPIES).any(|n| matches!(bytes_of(&volume, &[b'a' + n]), Some(Err(_)))));
        volume.maintain().expect("maintains");
        assert!(!is_there(&world, Place::Pack, pack), "it was written anew");
    }
    assert!(met > 0, "nothing was missed");
}

#[test]
fn a_twin_that_is_lost_or_damaged_is_made_from_its_pack() {
    let _watchdog = watch("twins lost", 10);
    let base = filled();
    for (pack, (bytes, kind)) in &twins(&base) {
        for (number, (fate, inflict_it)) in FATES.into_iter().enumerate() {
            let what = format!("the twin of {kind:?} {pack}, {fate}");
            let world = base.fork();
            inflict(&world, Place::Twin, pack, inflict_it);
            // Some by a scrub, some by fsck.
            if number % 2 == 0 {
                let volume = mount(&world, &what);
                mended(&volume);
                let report = volume.scrub(&ScrubOptions::default(), &mut |_| true).expect("scrubs");
                assert_eq!(report.uncorrected, 0, "{what}: {report:?}");
                assert_eq!(report.corrected > 0, number > 0, "{what}: {report:?}");
                whole(&volume, &what);
                volume.close().expect("close");
            } else {
                let found = fsck(&world, None);
                let named = found.findings.iter().filter(|f| f.severity == Severity::Damage);
                let of_pack = Some(pack.to_string());
                assert!(named.clone().count() > 0, "{what}: {:?}", found.findings);
                assert!(named.into_iter().all(|f| f.kind == "twin" && f.pack == of_pack), "{what}");
                let repaired = fsck(&world, Some(Level::Safe));
                assert!(repaired.is_clean() && repaired.corrected() > 0, "{what}: {:?}", repaired.findings);
            }
            assert!(read(&world, Place::Twin, pack) == *bytes, "{what}: it is not what it was");
            assert!(read(&world, Place::Pack, pack) == *bytes, "{what}: its pack is another");
            consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    }
}

#[test]
fn what_is_damaged_in_both_copies_comes_from_whichever_has_it() {
    let base = filled();
    for (pack, (bytes, kind)) in &twins(&base) {
        // In stripes of sectors, in turns: no unit of either is whole, and parity alone reaches nothing.
        for stripe in [4096, 4 * 4096] {
            let what = format!("{kind:?} {pack}, every other {stripe} bytes");
            let world = base.fork();
            let spoilt = |odd: usize| -> Vec<u8> {
                let other = |at: usize| if at / stripe % 2 == odd { 0x5a } else { 0 };
                bytes.iter().enumerate().map(|(at, byte)| byte ^ other(at)).collect()
            };
            write(&world, Place::Pack, pack, &spoilt(0));
            write(&world, Place::Twin, pack, &spoilt(1));
            let volume = mount(&world, &what);
            whole(&volume, &what);
            let report = volume.scrub(&ScrubOptions::default(), &mut |_| true).expect("scrubs");
            assert_eq!(report.uncorrected, 0, "{what}: {report:?}");
            assert!(read(&world, Place::Pack, pack) == *bytes, "{what}: the pack");
            assert!(read(&world, Place::Twin, pack) == *bytes, "{what}: the twin");
            volume.close().expect("close");
            consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    }
}

#[test]
fn fsck_p_writes_a_missing_pack_anew_and_finds_nothing_the_second_time() {
    let base = filled();
    for (pack, (bytes, kind)) in &twins(&base) {
        for (fate, inflict_it) in FATES {
            let what = format!("{kind:?} {pack}, {fate}");
            let world = base.fork();
            inflict(&world, Place::Pack, pack, inflict_it);
            let found = fsck(&world, None);
            assert!(!found.is_clean(), "{what}");
            assert!(found.findings.iter().all(|f| f.paths.is_empty()), "{what}: {:?}", found.findings);
            let repaired = fsck(&world, Some(Level::Safe));
            assert!(repaired.is_clean(), "{what}: {:?}", repaired.findings);
            assert!(repaired.findings.iter().any(|f| f.done == Some(Done::Rewritten)), "{what}");
            assert!(read(&world, Place::Pack, pack) == *bytes, "{what}: it is not what it was");
            let again = fsck(&world, Some(Level::Safe));
            assert!(again.findings.is_empty(), "{what}: {:?}", again.findings);
            whole(&mount(&world, &what), &what);
        }
    }
}

#[test]
fn nothing_that_was_dropped_comes_back_by_its_twin() {
    let world = filled();
    let before = twins(&world);
    let volume = world.open().expect("mount");
    for n in 0..COPIES {
        volume.unlink(1, &[b'a' + n]).expect("unlink");
    }
    // Bases supersede what there is of metadata.
    for n in 0..70u8 {
        put(&volume, &[b'z', n + 128], b"something");
        volume.sync().expect("folds");
    }
    mended(&volume);
    volume.close().expect("close");
    let dropped: Vec<_> = before.keys().filter(|pack| !is_there(&world, Place::Pack, pack)).collect();
    let kinds: Vec<_> = dropped.iter().map(|pack| before[pack].1).collect();
    assert!(kinds.contains(&PackKind::Data) && kinds.contains(&PackKind::Metadata), "{kinds:?}");
    for pack in dropped {
        assert!(!is_there(&world, Place::Twin, pack), "its twin is left");
        // As a power cut may leave it.
        let left = world.fork();
        write(&left, Place::Twin, pack, &before[pack].0);
        consistent(&left).expect("it is no damage");
        let by_fsck = left.fork();
        let repaired = fsck(&by_fsck, Some(Level::Safe));
        assert!(repaired.is_clean() && repaired.corrected() == 1, "{:?}", repaired.findings);
        for (world, mounted) in [(left, true), (by_fsck, false)] {
            let volume = world.open().expect("mount");
            volume.maintain().expect("maintains");
            volume.close().expect("close");
            for place in Place::all() {
                assert!(!is_there(&world, place, pack), "{:?} {place:?}, mounted: {mounted}", before[pack].1);
            }
        }
    }
}

#[test]
fn the_power_may_go_at_any_moment_while_twins_are_made_and_packs_come_back_from_them() {
    let _watchdog = watch("twins over power cuts", 20);
    // One pack of each kind lacks its file, one its twin.
    let base = filled();
    let all = twins(&base);
    for kind in [PackKind::Metadata, PackKind::Data] {
        let mut of_kind = all.iter().filter(|(_, (_, found))| *found == kind).map(|(pack, _)| pack);
        inflict(&base, Place::Pack, of_kind.next().expect("one"), FATES[0].1);
        if let Some(other) = of_kind.next() {
            inflict(&base, Place::Twin, other, FATES[0].1);
        }
    }
    at_every_cut(
        &base,
        |_| {},
        |volume| {
            put_if_it_can(volume);
            let _ = volume.maintain();
            let _ = volume.close();
        },
        |world, _, what| {
            let volume = mount(world, what);
            whole(&volume, what);
            mended(&volume);
            whole(&volume, what);
            volume.close().expect("close");
            consistent(world).unwrap_or_else(|e| panic!("{what}: {e}"));
            let disk = world.store_disk();
            let unfinished =
                |listing: cairn_store::PackListing| listing.unsealed.len() + listing.strange.len();
            assert_eq!(unfinished(list_twins(&*disk).expect("a listing")), 0, "{what}");
        },
    );
}

fn put_if_it_can(volume: &Volume) {
    if let Ok(file) = volume.create(1, b"new", 0o644, 0, &Default::default()) {
        let _ = volume.write(file.ino, 0, b"something new", false);
        volume.release(file.ino);
    }
    let _ = volume.sync();
}

#[test]
fn a_thread_makes_them_without_being_asked() {
    let _watchdog = watch("twins in the background", 5);
    let world = World::make(&small());
    let volume = world.open_in_background().expect("mount");
    fill(&volume);
    while volume.statistics().twins_waiting > 0 || volume.statistics().twins < 2 {
        std::thread::yield_now();
    }
    volume.close().expect("close");
    assert!(twins(&world).values().any(|(_, kind)| *kind == PackKind::Data));
}

#[test]
fn where_there_is_no_room_there_is_no_second_copy_and_everything_else_goes_on() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    fill(&volume);
    let before = volume.statistics().twins;
    world.disk.set_capacity(1 << 20);
    std::thread::sleep(std::time::Duration::from_millis(150));
    volume.maintain().expect("maintains");
    let stood = volume.statistics();
    assert!(stood.twins_waiting > 0 && stood.twins == before, "{stood:?}");
    whole(&volume, "without room");
    volume.unlink(1, b"a").expect("deleting goes on");
    world.disk.set_capacity(1 << 40);
    std::thread::sleep(std::time::Duration::from_millis(150));
    volume.sync().expect("folds");
    mended(&volume);
    assert!(volume.statistics().twins > before);
    volume.close().expect("close");
}

/// A volume of which everything is once more in two other directories, closed.
fn spread() -> World {
    let world = World::make(&across());
    let volume = world.open().expect("mount");
    fill(&volume);
    volume.close().expect("close");
    world
}

fn across() -> MakeOptions {
    MakeOptions { across: vec!["/mnt/b".into(), "/mnt/c".into()], ..small() }
}

fn below(world: &World, dir: &str) -> Vec<String> {
    world.disk.files().into_iter().filter(|file| file.starts_with(dir)).collect()
}

fn lose(world: &World, dir: &str) {
    below(world, dir).iter().for_each(|file| world.disk.remove(file).expect("there"));
}

/// The machine with a new first disk: only the other directories are left. They are made a volume again.
fn restored(world: &World) -> (World, Restored) {
    let disk = MemoryDisk::new();
    disk.create_dir("store").expect("an empty disk");
    for file in below(world, "store/across/") {
        copy_file(&world.disk, &disk, &file).expect("copied");
    }
    let new = World::on_disk(disk.fork());
    let dirs: Vec<String> = across().across.iter().map(|dir| dir.display().to_string()).collect();
    let restored = fsck_cairn::restore(&new.disk, &new.store_disk(), &dirs, &Quiet).expect("restores");
    (new, restored)
}

#[test]
fn across_directories_every_pack_is_there_once_more() {
    let world = spread();
    let disk = world.store_disk();
    let mut there: Vec<PackId> = Vec::new();
    for number in [1, 2] {
        let listed = list_place(&*disk, Place::Across(number)).expect("a listing").packs;
        assert!(!listed.is_empty(), "nothing is in directory {number}");
        for (pack, _) in listed {
            let copy = read(&world, Place::Across(number), &pack);
            assert!(copy == read(&world, Place::Pack, &pack), "{pack} in directory {number}");
            there.push(pack);
        }
    }
    there.sort();
    let mut all = packs(&world);
    all.sort();
    assert_eq!(there, all);
    let report = fsck(&world, None);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn across_directories_any_pack_may_be_missing() {
    let _watchdog = watch("packs lost across", 10);
    let base = spread();
    for pack in packs(&base) {
        for survival in [Survival::All, Survival::None] {
            let what = format!("{pack}, engine {survival:?}");
            let mut world = base.fork();
            world.engine = world.engine.surviving(survival);
            let before = read(&world, Place::Pack, &pack);
            world.remove_pack(&pack);
            let checked = world.fork();
            let volume = mount(&world, &what);
            whole(&volume, &what);
            mended(&volume);
            whole(&volume, &what);
            volume.close().expect("close");
            consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
            let repaired = fsck(&checked, Some(Level::Safe));
            assert!(repaired.is_clean(), "{what}: {:?}", repaired.findings);
            assert!(read(&checked, Place::Pack, &pack) == before, "{what}: it is another");
        }
    }
}

#[test]
fn a_directory_that_is_lost_costs_nothing_and_another_in_its_place_is_left_alone() {
    let base = spread();
    for number in [1u16, 2] {
        for wrong in [false, true] {
            let what = format!("directory {number}, another there: {wrong}");
            let world = base.fork();
            let dir = format!("store/across/{number}");
            lose(&world, &format!("{dir}/"));
            if wrong {
                // What the other directory of the same volume says.
                let other = format!("store/across/{}/across.id", 3 - number);
                let id = cairn_store::disk::read_small(&world.disk, &other, 4096).expect("there");
                let file = world.disk.open(&format!("{dir}/across.id"), Access::CreateNew).expect("new");
                file.write_at(&id, 0).expect("written");
            }
            let before = below(&world, &dir);
            let report = fsck(&world, None);
            assert!(report.is_clean(), "{what}: {:?}", report.findings);
            assert!(report.findings.iter().any(|f| f.kind == "across"), "{what}: {:?}", report.findings);
            let volume = mount(&world, &what);
            whole(&volume, &what);
            put(&volume, b"new", b"goes on");
            volume.sync().expect("goes on");
            assert!(volume.statistics().twins_waiting > 0, "{what}");
            volume.close().expect("close");
            assert_eq!(below(&world, &dir), before, "{what}: something was written there");
            consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
            whole(&mount(&world, &what), &what);
        }
    }
}

#[test]
fn a_directory_that_fails_keeps_nothing_from_going_on() {
    let base = spread();
    let world = base.fork();
    let volume = world.open().expect("mount");
    lose(&world, "store/across/1/");
    lose(&world, "store/across/2/");
    for dir in ["store/across/1/packs", "store/across/2/packs"] {
        // A file where the directory of packs was.
        let _ = world.disk.rename(dir, &format!("{dir}.gone"));
    }
    for n in 0..COPIES {
        volume.unlink(1, &[b'a' + n]).expect("unlink");
    }
    put(&volume, b"new", &content(50));
    volume.sync().expect("folds, and drops packs");
    volume.sync().expect("folds, and drops packs");
    assert!(bytes_of(&volume, b"new") == Some(Ok(content(50))));
    volume.close().expect("close");
}

#[test]
fn a_volume_whose_directory_is_lost_is_had_back_from_the_others() {
    let world = spread();
    let (new, restored) = restored(&world);
    assert_eq!((restored.packs, restored.damaged), (packs(&world).len() as u64, 0));
    consistent(&new).expect("restored");
    let volume = new.open().expect("mount");
    whole(&volume, "restored");
    // It is a volume like any other, with both its directories.
    put(&volume, b"new", b"goes on");
    volume.sync().expect("folds");
    mended(&volume);
    volume.close().expect("close");
    consistent(&new).expect("used");
}

#[test]
fn what_a_checkpoint_held_outlives_the_first_disk_whenever_that_goes() {
    let _watchdog = watch("the loss of the first disk", 20);
    let base = spread();
    at_every_cut(
        &base,
        |volume| {
            put(volume, b"later", &content(60));
            volume.sync().expect("folds");
        },
        |volume| {
            put_if_it_can(volume);
            let _ = volume.unlink(1, b"a");
            let _ = volume.sync();
        },
        |world, over, what| {
            let (new, restored) = restored(world);
            assert_eq!(restored.damaged, 0, "{what}");
            let repaired = fsck(&new, Some(Level::All));
            assert!(repaired.is_clean(), "{what}: {:?}", repaired.findings);
            let volume = mount(&new, what);
            (1..=ALONE).for_each(|n| {
                assert!(bytes_of(&volume, &[b'A' + n]) == Some(Ok(content(n))), "{what}: {n}");
            });
            assert!(bytes_of(&volume, b"later") == Some(Ok(content(60))), "{what}: it was checkpointed");
            if over {
                assert!(bytes_of(&volume, b"new") == Some(Ok(b"something new".to_vec())), "{what}");
            }
            volume.close().expect("close");
        },
    );
}
