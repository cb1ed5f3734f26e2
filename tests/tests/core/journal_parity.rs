//! Parity of the journal's closed segments: what it reaches is as it was, in memory and on the disk; what it does not reach is
//! damage, and never a torn tail; and where it is missing, torn, damaged or another's, the journal is what it is without.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_format::{ParityGeometry, SECTOR, SegmentHeader, SegmentParity};
use cairn_store::disk::{Access, Disk};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::rot::read_file;
use cairn_tests::watchdog::watch;
use cairn_tests::world::{World, small};
use cairn_volume::{
    Caller, HealMode, HealOutcome, HealPlace, OpenError, OpenOptions, ScrubOptions, ScrubReport, Uuid, Volume,
};
use fsck_cairn::{CheckOptions, Done, Finding, Level, Quiet, RepairOptions, Severity, check, repair};

use super::crash::consistent;
use super::order::{FATES, at_every_cut, bytes_of, mount, put};

const VOLUME: Uuid = Uuid([0xca; 16]);
/// Bytes of a write: a record is shorter than what no parity here reaches.
const WRITE: usize = 8_000;
/// Files of one mount. They fill two segments, and begin a third.
const FILES: u8 = 20;

fn content(n: u8) -> Vec<u8> {
    noise(u64::from(n) + 100, WRITE)
}

fn name(n: u8) -> Vec<u8> {
    format!("file{n}").into_bytes()
}

fn options() -> OpenOptions {
    OpenOptions { index_mem: 1 << 18, cache_size: 1 << 20, ..OpenOptions::default() }
}

/// Writes files, so that none of it is known to be synced before all is; nothing is folded.
fn fill(volume: &Volume, first: u8) {
    for n in first..first + FILES {
        put(volume, &name(n), &content(n));
    }
    volume.fsync(1, false).expect("fsync");
}

/// A volume whose journal has closed segments of two mounts with parity, and the open one of a mount that was killed.
fn protected() -> World {
    let world = World::make(&small());
    for first in [0, FILES] {
        let volume = world.open().expect("mount");
        fill(&volume, first);
        assert!(volume.protect_journal());
        assert!(!volume.protect_journal(), "all have it");
    }
    let world = world.fork();
    assert!(parities(&world).len() >= 4, "{:?}", parities(&world));
    world
}

fn parities(world: &World) -> Vec<String> {
    let of_journal = |path: &String| path.starts_with("journal/") && path.ends_with(".par");
    world.disk.files().into_iter().filter(of_journal).collect()
}

/// The number of a segment; none where its file was never used.
fn number(world: &World, path: &str) -> Option<u64> {
    let bytes = read_file(&world.disk, path).expect("a segment");
    SegmentHeader::decode(&bytes, &VOLUME).ok().map(|header| header.number)
}

fn newest_segment(world: &World) -> String {
    let is_segment = |path: &String| path.starts_with("journal/") && path.ends_with(".seg");
    let segments = world.disk.files().into_iter().filter(is_segment);
    segments.max_by_key(|path| number(world, path)).expect("a segment")
}

fn segment_of(parity: &str) -> String {
    parity.replace(".par", ".seg")
}

fn header(world: &World, parity: &str) -> SegmentParity {
    let bytes = read_file(&world.disk, parity).expect("parity");
    SegmentParity::decode(&bytes, &VOLUME).expect("a whole header")
}

/// What is protected of closed segments, and what protects it.
fn closed_files(world: &World) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in parities(world) {
        let mut segment = read_file(&world.disk, &segment_of(&path)).unwrap_or_default();
        segment.truncate(header(world, &path).covered as usize);
        all.insert(segment_of(&path), segment);
        all.insert(path.clone(), read_file(&world.disk, &path).expect("parity"));
    }
    all
}

fn all_is_right(volume: &Volume, what: &str) {
    for n in 0..2 * FILES {
        assert!(bytes_of(volume, &name(n)) == Some(Ok(content(n))), "{what}: file {n}");
    }
}

fn write(world: &World, path: &str, at: u64, bytes: &[u8]) {
    world.disk.open(path, Access::Write).expect("a file").write_at(bytes, at).expect("written");
}

fn spoil_sectors(world: &World, dice: &mut Dice, path: &str, first: u64, count: u64) -> String {
    let len = world.disk.open(path, Access::Read).and_then(|file| file.len()).expect("a file");
    let at = (first * SECTOR).min(len)..((first + count) * SECTOR).min(len);
    let bytes = (at.end - at.start) as usize;
    let how = dice.below(5);
    match how {
        0 => write(world, path, at.start, &vec![0; bytes]),
        1 => write(world, path, at.start, &noise(dice.roll(), bytes)),
        2 => world.disk.lose(path, at.clone(), false).expect("a file"),
        3 => {
            for sector in at.clone().step_by(SECTOR as usize) {
                let bit = sector + dice.below((at.end - sector).min(SECTOR));
                world.disk.corrupt(path, bit, 1 << dice.below(8)).expect("a file");
            }
        }
        // What belongs into another segment, or another place of this.
        _ => {
            let segments: Vec<String> = parities(world).iter().map(|path| segment_of(path)).collect();
            let from = &segments[dice.below(segments.len() as u64) as usize];
            let source = read_file(&world.disk, from).unwrap_or_else(|_| vec![0xee; 1 << 16]);
            let start = (dice.below(16 - count.min(15)) * SECTOR) as usize;
            let end = (start + bytes).min(source.len());
            write(world, path, at.start, &source[start..end]);
        }
    }
    format!("{path} sectors {first}+{count} ({how})")
}

fn scrub(volume: &Volume) -> ScrubReport {
    volume.scrub(&ScrubOptions::default(), &mut |_| true).expect("scrubbing")
}

fn checked(world: &World) -> Vec<Finding> {
    check(&world.disk, world.store_disk(), None, &CheckOptions::default(), &Quiet).expect("fsck").findings
}

/// That what is spoiled of a volume comes back: for readers, for whoever only looks, and on the disk.
fn comes_back(spoiled: &World, before: &BTreeMap<String, Vec<u8>>, what: &str) {
    let look = spoiled.fork();
    let read_only = OpenOptions { read_only: true, ..options() };
    let operations = look.disk.operations();
    let volume = look.open_with(read_only).unwrap_or_else(|e| panic!("{what}: read-only: {e}"));
    all_is_right(&volume, what);
    assert_eq!(look.disk.operations(), operations, "{what}: a mount that only reads has written");
    drop(volume);

    let world = spoiled.fork();
    let volume = mount(&world, what);
    all_is_right(&volume, what);
    // What neither of its headers says anything of is made again.
    volume.protect_journal();
    let report = scrub(&volume);
    assert_eq!(report.uncorrected, 0, "{what}: {report:?}");
    for (path, bytes) in before {
        let found = read_file(&world.disk, path).map(|found| found.get(..bytes.len()) == Some(&bytes[..]));
        assert!(matches!(found, Ok(true)), "{what}: {path} is another on the disk: {found:?}");
    }
    all_is_right(&volume, what);
    drop(volume);
    consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));

    let world = spoiled.fork();
    let found = checked(&world);
    assert!(found.iter().any(|f| f.kind.starts_with("journal-")), "{what}: nothing was found: {found:?}");
    let safe = RepairOptions { level: Level::Safe, force: true, ..RepairOptions::default() };
    let disk = Arc::new(world.disk.clone());
    let report = repair(disk, world.store_disk(), None, &safe, &Quiet).expect("fsck -p");
    let left = report.findings.iter().find(|f| f.severity == Severity::Damage && f.done.is_none());
    assert!(left.is_none(), "{what}: {left:?}");
    assert!(!report.findings.iter().any(|f| f.done == Some(Done::GivenUp)), "{what}: {:?}", report.findings);
    consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
    all_is_right(&mount(&world, what), what);
}

fn rounds() -> u64 {
    std::env::var("CAIRN_JOURNAL_PARITY").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

#[test]
fn any_two_bad_sectors_of_a_closed_segment_and_its_parity_come_back() {
    let base = protected();
    let (before, all) = (closed_files(&base), parities(&base));
    let _watchdog = watch("two bad sectors", 10 + rounds() / 50);
    for seed in 0..rounds() {
        let (world, mut dice) = (base.fork(), Dice::new(seed));
        let parity = &all[dice.below(all.len() as u64) as usize];
        let (mut what, mut drawn) = (format!("seed {seed}:"), Vec::new());
        while drawn.len() < 2 {
            let (segment, header) = (segment_of(parity), header(&base, parity));
            let (path, sectors) = match dice.one_in(5) {
                true => (parity, header.file_len() / SECTOR),
                false => (&segment, header.sectors()),
            };
            let sector = dice.below(sectors);
            if drawn.contains(&(path.clone(), sector)) {
                continue;
            }
            drawn.push((path.clone(), sector));
            what += &spoil_sectors(&world, &mut dice, path, sector, 1);
        }
        if is_spoiled(&world, &before) {
            comes_back(&world, &before, &what);
        }
    }
}

#[test]
fn a_hole_as_long_as_all_parity_units_comes_back_wherever_it_begins() {
    let base = protected();
    let before = closed_files(&base);
    let _watchdog = watch("holes", 10);
    let all = parities(&base);
    for (n, parity) in all.iter().enumerate() {
        let header = header(&base, parity);
        let sectors = header.stripe().unit() / SECTOR * u64::from(header.parity.parity);
        let (step, mut dice) = (all.len() as u64, Dice::new(n as u64));
        for first in (n as u64..header.sectors()).step_by(step as usize) {
            let world = base.fork();
            let what = spoil_sectors(&world, &mut dice, &segment_of(parity), first, sectors);
            if is_spoiled(&world, &before) {
                comes_back(&world, &before, &what);
            }
        }
    }
    // A file that is too short has lost its end in one run.
    for parity in parities(&base) {
        let (world, header) = (base.fork(), header(&base, &parity));
        let lost = header.stripe().unit() * u64::from(header.parity.parity);
        let len = u64::from(header.covered).saturating_sub(lost).next_multiple_of(SECTOR);
        world.disk.truncate_file(&segment_of(&parity), len).expect("a file");
        comes_back(&world, &before, &format!("{parity}: its segment ends at {len}"));
    }
}

/// Whether anything that is protected, or protects, is another than it was.
fn is_spoiled(world: &World, before: &BTreeMap<String, Vec<u8>>) -> bool {
    before.iter().any(|(path, bytes)| {
        let found = read_file(&world.disk, path);
        found.map_or(true, |found| found.get(..bytes.len()) != Some(&bytes[..]))
    })
}

#[test]
fn what_parity_does_not_reach_is_damage_and_no_byte_is_another() {
    let base = protected();
    for (n, parity) in parities(&base).into_iter().enumerate() {
        let (header, mut dice) = (header(&base, &parity), Dice::new(n as u64));
        let beyond = u64::from(header.parity.parity) + 1;
        for first in (0..header.sectors().saturating_sub(beyond)).step_by(3) {
            let world = base.fork();
            let at = first * SECTOR;
            let bytes = noise(dice.roll(), (beyond * SECTOR) as usize);
            write(&world, &segment_of(&parity), at, &bytes);
            let what = format!("{parity}, sectors {first}+{beyond}");
            match world.open() {
                Err(OpenError::Damaged { .. }) => {}
                Err(error) => panic!("{what}: {error}"),
                Ok(_) => panic!("{what}: mounted"),
            }
            let read_only = OpenOptions { read_only: true, ..options() };
            if let Ok(volume) = world.open_with(read_only) {
                for n in 0..2 * FILES {
                    match bytes_of(&volume, &name(n)) {
                        None | Some(Err(_)) => {}
                        // A file is made before it is written.
                        Some(Ok(bytes)) => {
                            assert!(bytes.is_empty() || bytes == content(n), "{what}: WRONG BYTES")
                        }
                    }
                }
            }
            let found = checked(&world);
            assert!(found.iter().any(|f| f.severity == Severity::Damage), "{what}: {found:?}");
            nothing_else_is_written(&world, &base, &segment_of(&parity), &what);
        }
    }
}

/// That `fsck -p` leaves each sector of a segment as it was, or as it found it.
fn nothing_else_is_written(world: &World, base: &World, segment: &str, what: &str) {
    let bytes = |world: &World| read_file(&world.disk, segment).expect("a segment");
    let (right, spoiled) = (bytes(base), bytes(world));
    let safe = RepairOptions { level: Level::Safe, force: true, ..RepairOptions::default() };
    repair(Arc::new(world.disk.clone()), world.store_disk(), None, &safe, &Quiet).expect("fsck -p");
    for (n, sector) in bytes(world).chunks(SECTOR as usize).enumerate() {
        let at = n * SECTOR as usize..n * SECTOR as usize + sector.len();
        assert!(sector == &right[at.clone()] || sector == &spoiled[at], "{what}: WRONG BYTES in sector {n}");
    }
}

#[test]
fn parity_that_nothing_speaks_for_gives_no_bytes_that_a_checksum_refuses() {
    let base = protected();
    let parity = parities(&base).into_iter().max_by_key(|path| header(&base, path).covered).expect("parity");
    let header = header(&base, &parity);
    let world = base.fork();
    for table in header.parity_sums() {
        write(&world, &parity, table.start, &noise(1, (table.end - table.start) as usize));
    }
    write(&world, &parity, header.parity_unit(0), &noise(2, header.stripe().unit() as usize));
    write(&world, &segment_of(&parity), 3 * SECTOR, &noise(3, 2 * SECTOR as usize));
    let read_only = OpenOptions { read_only: true, ..options() };
    if let Ok(volume) = world.open_with(read_only) {
        for n in 0..2 * FILES {
            if let Some(Ok(bytes)) = bytes_of(&volume, &name(n)) {
                assert!(bytes.is_empty() || bytes == content(n), "WRONG BYTES");
            }
        }
    }
    nothing_else_is_written(&world, &base, &segment_of(&parity), "parity in doubt");
}

/// One mount, killed: nothing but its parity, and what is in the last segment, tells that the closed ones were synced.
fn unwitnessed() -> World {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    fill(&volume, 0);
    assert!(volume.protect_journal());
    drop(volume);
    let world = world.fork();
    world.disk.remove(&newest_segment(&world)).expect("the segment that was being filled");
    world
}

#[test]
fn the_end_of_a_segment_that_was_closed_is_never_a_torn_tail() {
    let base = unwitnessed();
    let parity = newest_segment(&base).replace(".seg", ".par");
    let header = header(&base, &parity);
    let from = (header.sectors() - 6) * SECTOR;
    let zeros = vec![0; (u64::from(header.covered) - from) as usize];
    let spoil = |world: &World, gone: bool| match gone {
        true => world.disk.remove(&segment_of(&parity)).expect("a segment"),
        false => write(world, &segment_of(&parity), from, &zeros),
    };
    for gone in [false, true] {
        let world = base.fork();
        spoil(&world, gone);
        assert!(matches!(world.open(), Err(OpenError::Damaged { .. })), "gone: {gone}");
        let found = checked(&world);
        assert!(found.iter().any(|f| f.severity == Severity::Damage && f.kind == "journal"), "{found:?}");
        // With nothing that says so it is what a power cut leaves.
        let world = base.fork();
        spoil(&world, gone);
        parities(&world).iter().for_each(|path| world.disk.remove(path).expect("parity"));
        drop(mount(&world, "nothing tells of it"));
    }
}

#[test]
fn what_is_given_up_is_not_held_against_the_volume_by_parity_that_knew_of_it() {
    let world = unwitnessed();
    world.disk.remove(&newest_segment(&world)).expect("a segment");
    let all = RepairOptions { level: Level::All, force: true, ..RepairOptions::default() };
    let report =
        repair(Arc::new(world.disk.clone()), world.store_disk(), None, &all, &Quiet).expect("fsck -y");
    assert!(report.findings.iter().any(|f| f.done == Some(Done::GivenUp)), "{:?}", report.findings);
    consistent(&world).expect("fsck");
    let volume = mount(&world, "given up");
    volume.close().expect("close");
    assert!(parities(&world).is_empty());
}

#[test]
fn parity_of_another_segment_or_of_an_earlier_life_is_nobodys() {
    let base = protected();
    let all = parities(&base);
    for (from, to) in [(0, 1), (1, 0), (2, 1), (0, 3)] {
        let world = base.fork();
        let bytes = read_file(&base.disk, &all[from]).expect("parity");
        world.disk.remove(&all[to]).expect("parity");
        world.disk.open(&all[to], Access::CreateNew).expect("new").write_at(&bytes, 0).expect("written");
        let what = format!("{} as {}", all[from], all[to]);
        let read_only = OpenOptions { read_only: true, ..options() };
        all_is_right(&world.open_with(read_only).expect("mount"), &what);
        let volume = mount(&world, &what);
        all_is_right(&volume, &what);
        assert!(!parities(&world).contains(&all[to]), "{what}: it was not removed");
        assert!(volume.protect_journal());
        assert_eq!(scrub(&volume).uncorrected, 0, "{what}");
    }
    // The segments' files are used again, with what was said of their earlier lives beside them; and one header is lost.
    let world = base.fork();
    let volume = mount(&world, "first");
    let old: Vec<_> = all.iter().map(|path| (path, read_file(&world.disk, path).expect("parity"))).collect();
    volume.sync().expect("sync");
    let left = parities(&world);
    assert!(left.len() < all.len(), "what is not needed any more keeps its parity: {left:?}");
    for n in 2..12 {
        fill(&volume, n * FILES);
    }
    drop(volume);
    let world = world.fork();
    for (path, bytes) in old.iter().filter(|(path, _)| !left.contains(path)) {
        world.disk.open(path, Access::CreateNew).expect("new").write_at(bytes, 0).expect("written");
        write(&world, &segment_of(path), 100, b"rot");
    }
    let volume = mount(&world, "stale parity");
    for n in 0..12 * FILES {
        assert!(bytes_of(&volume, &name(n)) == Some(Ok(content(n))), "file {n}");
    }
}

#[test]
fn wherever_the_power_goes_while_parity_is_made_the_journal_is_whole() {
    let base = {
        let world = World::make(&small());
        fill(&world.open().expect("mount"), 0);
        world.fork()
    };
    let whole = |volume: &Volume, what: &str| {
        for n in 0..FILES {
            assert!(bytes_of(volume, &name(n)) == Some(Ok(content(n))), "{what}: file {n}");
        }
    };
    let _watchdog = watch("cuts", 10);
    at_every_cut(
        &base,
        |_| {},
        |volume| {
            volume.protect_journal();
        },
        |world, _, what| {
            consistent(world).unwrap_or_else(|e| panic!("{what}: {e}"));
            let volume = mount(world, what);
            whole(&volume, what);
            volume.protect_journal();
            assert_eq!(scrub(&volume).uncorrected, 0, "{what}");
            volume.close().expect("close");
            consistent(world).unwrap_or_else(|e| panic!("{what}: {e}"));
        },
    );
    // While it is removed, and the segments are used again.
    at_every_cut(
        &base,
        |volume| assert!(volume.protect_journal()),
        |volume| {
            let _ = volume.sync();
            for n in 0..12 {
                let Ok(attr) = volume.create(1, &[b'b', b'0' + n], 0o644, 0, &Caller::default()) else {
                    return;
                };
                let _ = volume.write(attr.ino, 0, &content(n), false);
            }
        },
        |world, _, what| {
            let volume = mount(world, what);
            whole(&volume, what);
        },
    );
    assert!(FATES.len() > 2);
}

#[test]
fn a_segment_that_rots_while_mounted_is_read_right_and_mended() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    fill(&volume, 0);
    assert!(volume.protect_journal());
    let before = closed_files(&world);
    let parity = parities(&world).swap_remove(0);
    let at = u64::from(header(&world, &parity).covered) - 3 * SECTOR;
    write(&world, &segment_of(&parity), at, &noise(1, SECTOR as usize));
    for n in 0..FILES {
        assert!(bytes_of(&volume, &name(n)) == Some(Ok(content(n))), "file {n}");
    }
    let met = volume.statistics();
    assert!(met.heals_answered > 0, "{met:?}");
    // Nobody asked for more than that yet.
    assert!(closed_files(&world) != before);
    volume.set_heal_mode(HealMode::ReadOnly);
    assert!(!mends(&volume, &world, &before));
    volume.set_heal_mode(HealMode::On);
    assert!(mends(&volume, &world, &before));
    let told = volume.heal_events();
    let place = HealPlace::Segment(segment_of(&parity));
    for outcome in [HealOutcome::Answered, HealOutcome::Rewritten] {
        assert!(told.iter().any(|event| event.outcome == outcome && event.place == place), "{told:?}");
    }
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}

#[test]
fn by_themselves_segments_get_parity_after_a_while_and_what_rots_is_mended() {
    let _watchdog = watch("a segment that waits for its parity", 3);
    let wait = |what: &dyn Fn() -> bool| {
        while !what() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    let world = World::make(&small());
    let volume = world.open_in_background().expect("mount");
    fill(&volume, 0);
    wait(&|| parities(&world).len() >= 3);
    let before = closed_files(&world);
    let spoil = parities(&world).into_iter().max_by_key(|path| header(&world, path).covered).expect("parity");
    write(&world, &segment_of(&spoil), 6 * SECTOR, &noise(1, SECTOR as usize));
    write(&world, &segment_of(&spoil), 9 * SECTOR, &noise(1, SECTOR as usize));
    for n in 0..FILES {
        assert!(bytes_of(&volume, &name(n)) == Some(Ok(content(n))), "file {n}");
    }
    // Or it was folded meanwhile, and nobody needs it.
    wait(&|| !is_spoiled(&world, &before) || !parities(&world).contains(&spoil));
    for n in 0..FILES {
        assert!(bytes_of(&volume, &name(n)) == Some(Ok(content(n))), "file {n}");
    }
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}

/// What is read from parity is mended by a scrub as by the thread; whether the disk has the bytes that it had.
fn mends(volume: &Volume, world: &World, before: &BTreeMap<String, Vec<u8>>) -> bool {
    scrub(volume);
    closed_files(world) == *before
}

#[test]
fn what_the_disk_does_not_take_back_is_read_by_way_of_parity() {
    let world = protected();
    let parity = parities(&world).swap_remove(1);
    world.disk.lose(&segment_of(&parity), 5 * SECTOR..7 * SECTOR, true).expect("a file");
    let volume = mount(&world, "for ever");
    all_is_right(&volume, "for ever");
    volume.sync().expect("sync");
    all_is_right(&volume, "folded");
    volume.close().expect("close");
}

#[test]
fn healing_switched_off_and_no_parity_leave_damage_what_it_is() {
    let world = protected();
    let parity = parities(&world).swap_remove(1);
    let segment = segment_of(&parity);
    write(&world, &segment, 2 * SECTOR, &noise(3, SECTOR as usize));
    let damaged = read_file(&world.disk, &segment).expect("a segment");
    let off = OpenOptions { heal: HealMode::Off, ..options() };
    assert!(matches!(world.fork().open_with(off), Err(OpenError::Damaged { .. })));
    let ro = OpenOptions { heal: HealMode::ReadOnly, ..options() };
    let volume = world.open_with(ro).expect("mount");
    all_is_right(&volume, "heal=ro");
    assert!(read_file(&world.disk, &segment).expect("a segment") == damaged, "it was written to");
    drop(volume);

    let world = World::make(&small());
    let none = OpenOptions { parity: Some(ParityGeometry::default()), ..options() };
    let volume = world.open_with(none).expect("mount");
    fill(&volume, 0);
    assert!(!volume.protect_journal());
    volume.maintain().expect("maintenance");
    assert!(parities(&world).is_empty());
}

#[test]
fn damaged_parity_is_no_damage_and_is_made_again() {
    let base = protected();
    let before = closed_files(&base);
    for (n, path) in parities(&base).into_iter().enumerate() {
        let world = base.fork();
        let len = read_file(&world.disk, &path).expect("parity").len();
        let file = world.disk.open(&path, Access::Write).expect("parity");
        match n % 4 {
            0 => file.set_len(0).expect("cut"),
            1 => file.write_at(&noise(7, len), 0).expect("written"),
            2 => file.write_at(&noise(7, len / 2), len as u64 / 4).expect("written"),
            _ => file.set_len(len as u64 / 2).expect("cut"),
        }
        assert!(checked(&world).iter().all(|f| f.severity != Severity::Damage), "{path}");
        let volume = mount(&world, &path);
        all_is_right(&volume, &path);
        volume.protect_journal();
        assert_eq!(scrub(&volume).uncorrected, 0, "{path}");
        let after = closed_files(&world);
        let again = |(path, bytes): (&String, &Vec<u8>)| after.get(path) == Some(bytes);
        assert!(before.iter().all(again), "{path}: it was not made again");
    }
}

#[test]
fn a_disk_that_is_nearly_full_has_no_room_for_it_and_gives_what_there_is_up() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    fill(&volume, 0);
    let used: u64 =
        world.disk.files().iter().map(|p| read_file(&world.disk, p).expect("a file").len() as u64).sum();
    world.disk.set_capacity(used + (1 << 20));
    std::thread::sleep(std::time::Duration::from_millis(120));
    assert!(!volume.protect_journal(), "on a full disk");
    assert!(parities(&world).is_empty());
    world.disk.set_capacity(u64::MAX);
    std::thread::sleep(std::time::Duration::from_millis(120));
    assert!(volume.protect_journal());
    assert!(!parities(&world).is_empty());
    // What waits to be folded has no room: a writer is refused, but not for the sake of parity.
    world.disk.set_capacity(used + (1 << 20));
    std::thread::sleep(std::time::Duration::from_millis(120));
    let mut ended = false;
    for n in 0..200u8 {
        let made = volume.create(1, format!("c{n}").as_bytes(), 0o644, 0, &Caller::default());
        ended |= made.and_then(|attr| volume.write(attr.ino, 0, &content(n), false)).is_err();
        if ended {
            break;
        }
    }
    assert!(ended && parities(&world).is_empty(), "{:?}", parities(&world));
}
