//! Scrub: what parity reaches is on the disk again byte by byte, what it does not reach is named, and wherever a run is
//! cut the next goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cairn_format::{PackKind, PieceKind, SECTOR, ScrubOutcome, ScrubState};
use cairn_store::disk::{Access, Crash, Disk, read_small};
use cairn_store::{Store, StoreOptions, list_packs, pack_path};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::engine::Survival;
use cairn_tests::watchdog::watch;
use cairn_tests::world::{World, small};
use cairn_volume::{
    Caller, OpenOptions, PackId, ScrubError, ScrubOptions, ScrubReport, ScrubStep, ScrubStop, Uuid, Volume,
};

use super::crash::consistent;
use super::order::{at_every_cut, bytes_of, mount, put};

const FILES: u8 = 12;

fn content(n: u8) -> Vec<u8> {
    noise(n.into(), 20_000 + usize::from(n) * 137)
}

/// A volume of some packs, closed: files in the root, and one in a directory.
fn some_packs() -> World {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    for n in 0..FILES {
        put(&volume, &[b'a' + n], &content(n));
        if n % 3 == 2 {
            volume.sync().expect("sync");
        }
    }
    let dir = volume.mkdir(1, b"dir", 0o755, 0, &Caller::default()).expect("mkdir").ino;
    let file = volume.create(dir, b"deep", 0o644, 0, &Caller::default()).expect("create").ino;
    volume.write(file, 0, &content(99), false).expect("write");
    volume.release(file);
    volume.close().expect("close");
    world
}

fn whole(volume: &Volume, what: &str) {
    for n in 0..FILES {
        assert!(bytes_of(volume, &[b'a' + n]) == Some(Ok(content(n))), "{what}: file {n}");
    }
}

fn packs(world: &World) -> Vec<PackId> {
    let mut packs: Vec<_> = list_packs(&*world.store_disk())
        .expect("a listing")
        .packs
        .into_iter()
        .map(|(pack, _)| pack)
        .collect();
    packs.sort();
    packs
}

fn bytes_of_pack(world: &World, pack: &PackId) -> Vec<u8> {
    let file = world.store_disk().open(&pack_path(pack), Access::Read).expect("a pack");
    let mut bytes = vec![0; file.len().expect("a length") as usize];
    file.read_exact_at(&mut bytes, 0).expect("its bytes");
    bytes
}

fn spoil(world: &World, pack: &PackId, from: u64, len: usize) {
    let file = world.store_disk().open(&pack_path(pack), Access::Write).expect("a pack");
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, from).expect("within");
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    file.write_at(&bytes, from).expect("written");
}

fn state(world: &World) -> ScrubState {
    let disk = world.store_disk();
    let uuid = Store::superblock_of(&*disk).expect("a superblock").newest.uuid;
    ScrubState::decode(&read_small(&*disk, "scrub", 1 << 20).expect("a state"), &uuid).expect("whole")
}

fn one() -> ScrubOptions {
    ScrubOptions { note_every: 1, ..ScrubOptions::default() }
}

fn scrub(volume: &Volume, options: &ScrubOptions) -> ScrubReport {
    volume.scrub(options, &mut |_| true).expect("scrubbing")
}

/// Stops when so many packs were looked through.
fn scrub_some(volume: &Volume, packs: u64) -> ScrubReport {
    // Slowly, so that it is not over before whoever stops it hears of that.
    let options = ScrubOptions { rate: Some(4_000_000), ..one() };
    volume.scrub(&options, &mut |progress| progress.packs < packs).expect("scrubbing")
}

#[test]
fn what_is_whole_is_read_and_stays_as_it_is() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    let before: Vec<_> = packs(&world).iter().map(|pack| bytes_of_pack(&world, pack)).collect();
    for options in [one(), ScrubOptions { deep: true, threads: 3, ..one() }] {
        let report = scrub(&volume, &options);
        assert_eq!((report.corrected, report.uncorrected, report.stopped), (0, 0, None), "{report:?}");
        assert_eq!((report.packs, report.checked), (packs(&world).len() as u64, report.total), "{report:?}");
        assert_eq!((report.packs_before, report.damage.len(), report.files.len()), (0, 0, 0), "{report:?}");
        assert_eq!(report.chunks > 0, options.deep, "{report:?}");
        assert!(report.values > 20 && report.bytes > 0 && report.bytes <= report.bytes_total, "{report:?}");
    }
    let after: Vec<_> = packs(&world).iter().map(|pack| bytes_of_pack(&world, pack)).collect();
    assert!(before == after);
    let state = state(&world);
    assert!(!state.unfinished && state.round == 2, "{state:?}");
    assert!(state.packs.iter().all(|entry| entry.outcome == ScrubOutcome::Whole && entry.deep));
    assert_eq!(state.packs.iter().map(|entry| entry.pack).collect::<Vec<_>>(), packs(&world));
}

#[test]
fn what_parity_reaches_is_on_the_disk_again_wherever_it_was() {
    let _watchdog = watch("scrubbing packs that rot", 10);
    let base = some_packs();
    let mut dice = Dice::new(5);
    for round in 0..60 {
        let world = base.fork();
        let volume = world.open().expect("mount");
        let packs = packs(&world);
        let before: Vec<_> = packs.iter().map(|pack| bytes_of_pack(&world, pack)).collect();
        // Some packs, each of which loses one sector anywhere.
        let mut hit = 0;
        for (pack, bytes) in packs.iter().zip(&before) {
            if dice.one_in(2) {
                continue;
            }
            let sector = dice.below((bytes.len() as u64).div_ceil(SECTOR)) * SECTOR;
            spoil(&world, pack, sector, (bytes.len() as u64 - sector).min(SECTOR) as usize);
            hit += 1;
        }
        let options = ScrubOptions { threads: 1 + round % 3, deep: round % 2 == 0, ..one() };
        let looked = scrub(&volume, &ScrubOptions { repair: false, ..options.clone() });
        assert_eq!((looked.packs_uncorrected, looked.corrected), (hit, 0), "{round}: {looked:?}");
        assert!(looked.files.is_empty(), "{round}: readers are answered from parity: {looked:?}");
        let report = scrub(&volume, &options);
        assert_eq!((report.packs_corrected, report.uncorrected), (hit, 0), "{round}: {report:?}");
        assert!(report.corrected >= hit, "{round}: {report:?}");
        let after: Vec<_> = packs.iter().map(|pack| bytes_of_pack(&world, pack)).collect();
        assert!(before == after, "{round}: other bytes");
        let errors = scrub(&volume, &ScrubOptions { errors_only: true, ..options.clone() });
        assert_eq!((errors.packs, errors.corrected), (hit, 0), "{round}: {errors:?}");
        assert_eq!(scrub(&volume, &ScrubOptions { errors_only: true, ..options }).packs, 0, "{round}");
        whole(&volume, "mended");
    }
}

#[test]
fn what_parity_does_not_reach_is_named_with_path_and_range() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(world.store_disk(), options).expect("the store");
    let data: Vec<PackId> = store.data_summaries().into_iter().map(|summary| summary.pack).collect();
    assert!(data.len() > 3, "{data:?}");
    let mut names: BTreeMap<String, u64> = (0..FILES)
        .map(|n| {
            let name = [b'a' + n];
            let ino = volume.lookup(1, &name).expect("a look-up").expect("there").ino;
            (format!("/{}", char::from(name[0])), ino)
        })
        .collect();
    let dir = volume.lookup(1, b"dir").expect("a look-up").expect("there").ino;
    let deep = volume.lookup(dir, b"deep").expect("a look-up").expect("there").ino;
    names.insert("/dir/deep".into(), deep);
    for pack in &data {
        let world = world.fork();
        let volume = world.open().expect("mount");
        let footer = store.reader(*pack).and_then(|reader| reader.footer()).expect("a footer");
        assert_eq!(footer.kind, PackKind::Data);
        // All but the first frame, from the first sector that it has nothing of.
        let first = &footer.frames[0];
        let from = (first.offset + u64::from(first.len)).next_multiple_of(SECTOR);
        let to = footer.layout().footer();
        spoil(&world, pack, from, (to.start - from) as usize);
        let lost = |frame: u32| {
            let entry = &footer.frames[frame as usize];
            entry.offset + u64::from(entry.len) > from
        };
        let mut expected: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for (name, ino) in &names {
            for (offset, len, kind) in volume.extents(*ino).expect("extents") {
                if let PieceKind::Chunk(at) = kind
                    && at.pack == *pack
                    && lost(at.frame)
                {
                    expected.entry(name.clone()).or_default().extend(offset..offset + len);
                }
            }
        }
        let report = scrub(&volume, &one());
        assert!(report.uncorrected > 0 && report.packs_uncorrected == 1 && !report.more, "{report:?}");
        let path = format!("store/{}", pack_path(pack));
        assert!(report.damage.iter().all(|damage| damage.file == path), "{report:?}");
        let found: BTreeMap<String, BTreeSet<u64>> = report
            .files
            .iter()
            .map(|file| {
                let bytes = file.ranges.iter().flat_map(|(offset, len)| *offset..offset + len);
                (file.paths.join(" "), bytes.collect())
            })
            .collect();
        assert!(!expected.is_empty(), "nothing lies in pack {pack}");
        let told = |named: &BTreeMap<String, BTreeSet<u64>>| -> Vec<(String, usize, Option<u64>)> {
            named.iter().map(|(name, at)| (name.clone(), at.len(), at.first().copied())).collect()
        };
        assert!(found == expected, "{:?} instead of {:?}", told(&found), told(&expected));
        let entry = state(&world).packs.into_iter().find(|entry| entry.pack == *pack).expect("an entry");
        assert_eq!(entry.outcome, ScrubOutcome::Uncorrected);
    }
}

#[test]
fn a_pack_that_is_missing_is_told_with_the_files_in_it() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    let ino = volume.lookup(1, b"a").expect("a look-up").expect("there").ino;
    let PieceKind::Chunk(at) = volume.extents(ino).expect("extents")[0].2 else { panic!("not folded") };
    world.store_disk().remove(&pack_path(&at.pack)).expect("there");
    for path in [None, Some(b"/a".to_vec())] {
        let report = scrub(&volume, &ScrubOptions { path, ..one() });
        assert!(report.damage.iter().any(|damage| damage.reason.contains("missing")), "{report:?}");
        assert!(report.files.iter().any(|file| file.paths == ["/a"]), "{report:?}");
    }
}

#[test]
fn regression_a_pack_that_was_missing_before_the_mount_is_told_with_the_files_in_it() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    let ino = volume.lookup(1, b"a").expect("a look-up").expect("there").ino;
    let PieceKind::Chunk(at) = volume.extents(ino).expect("extents")[0].2 else { panic!("not folded") };
    volume.close().expect("close");
    world.store_disk().remove(&pack_path(&at.pack)).expect("there");
    let volume = world.open().expect("mount");
    let report = scrub(&volume, &one());
    assert!(report.damage.iter().any(|damage| damage.reason.contains("missing")), "{report:?}");
    assert!(report.files.iter().any(|file| file.paths == ["/a"]), "{report:?}");
}

#[test]
fn a_run_that_is_stopped_after_any_pack_is_gone_on_with() {
    let base = some_packs();
    let all = packs(&base).len() as u64;
    for stop in 1..all {
        let world = base.fork();
        let volume = world.open().expect("mount");
        let report = scrub_some(&volume, stop);
        if report.stopped.is_none() {
            // On a busy machine it was over all the same.
            assert_eq!(report.packs, report.packs_total);
            continue;
        }
        assert_eq!(report.stopped, Some(ScrubStop::Asked), "{report:?}");
        let noted = state(&world);
        assert!(noted.unfinished && noted.packs.len() as u64 == report.packs, "{noted:?}");
        // A process later.
        drop(volume);
        let volume = world.crash(Crash::DropUnsynced, Survival::All).open().expect("mount");
        let again = scrub(&volume, &one());
        assert_eq!((again.packs_before, again.stopped), (report.packs, None), "{again:?}");
        assert!(again.packs + again.packs_before >= all && again.packs < all, "{again:?}");
        let next = scrub(&volume, &one());
        assert_eq!((next.packs_before, next.packs), (0, again.packs + again.packs_before), "{next:?}");
    }
}

#[test]
fn the_power_may_go_at_any_moment_of_a_run_that_mends() {
    let _watchdog = watch("scrubbing over power cuts", 15);
    let base = some_packs();
    let damaged: Vec<PackId> = packs(&base).into_iter().step_by(2).collect();
    damaged.iter().for_each(|pack| spoil(&base, pack, 5_000, 3_000));
    at_every_cut(
        &base,
        |_| {},
        |volume| drop(volume.scrub(&one(), &mut |_| true)),
        |world, over, what| {
            let volume = mount(world, what);
            let report = scrub(&volume, &one());
            let all = packs(world).len() as u64;
            assert_eq!((report.uncorrected, report.stopped), (0, None), "{what}: {report:?}");
            assert_eq!(report.packs + report.packs_before, all, "{what}: {report:?}");
            assert!(!over || report.packs_before == 0, "{what}: {report:?}");
            // What was certain of the first run is not done again, what was not is.
            let entries = state(world).packs;
            assert_eq!(entries.len() as u64, all, "{what}");
            assert!(entries.iter().all(|entry| entry.outcome != ScrubOutcome::Uncorrected), "{what}");
            let second = scrub(&volume, &one());
            assert_eq!((second.corrected, second.packs), (0, all), "{what}: {second:?}");
            whole(&volume, what);
            volume.close().expect("close");
            consistent(world).unwrap_or_else(|e| panic!("{what}: {e}"));
        },
    );
}

#[test]
fn a_run_without_time_looks_through_one_pack_the_oldest_first() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    let options = ScrubOptions { max_duration: Some(Duration::ZERO), ..one() };
    let all = packs(&world).len() as u64;
    let mut seen = 0;
    for run in 0..all {
        let report = scrub(&volume, &options);
        assert_eq!((report.packs, report.packs_before), (1, seen), "run {run}: {report:?}");
        seen += report.packs;
        assert_eq!(state(&world).packs.len() as u64, seen, "run {run}");
    }
    assert!(!state(&world).unfinished);
}

#[test]
fn only_what_a_path_is_stored_in_is_looked_at() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    let of = |path: &[u8]| scrub(&volume, &ScrubOptions { path: Some(path.to_vec()), ..one() });
    let ino = volume.lookup(1, b"a").expect("a look-up").expect("there").ino;
    let expected: BTreeSet<PackId> = volume
        .extents(ino)
        .expect("extents")
        .into_iter()
        .filter_map(|(_, _, kind)| match kind {
            PieceKind::Chunk(at) => Some(at.pack),
            _ => None,
        })
        .collect();
    let report = of(b"/a");
    assert_eq!((report.packs, report.packs_total), (expected.len() as u64, expected.len() as u64));
    let noted: BTreeSet<PackId> = state(&world).packs.iter().map(|entry| entry.pack).collect();
    assert_eq!(noted, expected);
    let (below, data) = (of(b"dir/").packs, of(b"/").packs);
    assert!(below > 0 && below < data && data < packs(&world).len() as u64, "{below} {data}");
    let refused = |path: &[u8]| {
        let options = ScrubOptions { path: Some(path.to_vec()), ..one() };
        volume.scrub(&options, &mut |_| true).expect_err("no such path")
    };
    for none in [&b"/b/c"[..], b"no", b"dir/no"] {
        assert!(matches!(refused(none), ScrubError::NoSuchPath(_)));
    }
}

#[test]
fn superblocks_that_are_damaged_are_written_again_from_the_others() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    for path in ["superblock.backup", "store/superblock", "store/superblock.backup"] {
        let file = world.disk.open(path, Access::Write).expect("there");
        let mut before = vec![0; file.len().expect("a length") as usize];
        file.read_exact_at(&mut before, 0).expect("its bytes");
        file.write_at(b"rot", 40).expect("written");
        assert_eq!(scrub(&volume, &ScrubOptions { repair: false, ..one() }).uncorrected, 1, "{path}");
        let report = scrub(&volume, &one());
        assert_eq!((report.corrected, report.uncorrected), (1, 0), "{path}: {report:?}");
        let after = read_small(&world.disk, path, 1 << 16).expect("there");
        assert!(before == after, "{path}");
    }
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}

#[test]
fn a_record_of_the_journal_that_rots_while_mounted_is_told() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    // More than a segment, none of it folded.
    let file = volume.create(1, b"new", 0o644, 0, &Caller::default()).expect("create").ino;
    for n in 0..20u64 {
        volume.write(file, n * 8_000, &noise(n, 8_000), false).expect("write");
    }
    volume.fsync(file, false).expect("fsync");
    let report = scrub(&volume, &one());
    assert!(report.uncorrected == 0 && report.records > 4, "{report:?}");
    let segment = world.disk.open("journal/0000.seg", Access::Write).expect("a segment");
    segment.write_at(&[0xee; 16], 40_000).expect("written");
    let report = scrub(&volume, &one());
    assert!(report.uncorrected > 0, "{report:?}");
    assert!(report.damage.iter().all(|damage| damage.file == "journal/0000.seg"), "{report:?}");
}

#[test]
fn nothing_is_written_where_nothing_may_be() {
    let world = some_packs();
    let pack = packs(&world)[0];
    spoil(&world, &pack, 5_000, 100);
    let damaged = bytes_of_pack(&world, &pack);
    let before = world.disk.operations();
    let read_only = OpenOptions { read_only: true, ..OpenOptions::default() };
    let volume = world.open_with(read_only).expect("mount");
    let report = scrub(&volume, &one());
    assert_eq!((report.corrected, report.uncorrected), (0, 1), "{report:?}");
    assert!(bytes_of_pack(&world, &pack) == damaged);
    assert_eq!(world.disk.operations(), before, "something was written");
}

#[test]
fn two_runs_do_not_go_on_at_a_time() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    let mut refused = false;
    let asked = volume.clone();
    volume
        .scrub(&one(), &mut |progress| {
            if progress.step == ScrubStep::Packs {
                refused |= matches!(asked.scrub(&one(), &mut |_| true), Err(ScrubError::Busy));
            }
            true
        })
        .expect("scrubbing");
    assert!(refused);
}

#[test]
fn a_state_that_cannot_be_read_is_forgotten_and_one_of_another_store_too() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    scrub_some(&volume, 2);
    let file = world.store_disk().open("scrub", Access::Write).expect("a state");
    file.write_at(&[0xff], 40).expect("written");
    assert_eq!(scrub(&volume, &one()).packs_before, 0);
    let other = ScrubState { store: Uuid([1; 16]), round: 3, unfinished: true, packs: Vec::new() };
    let bytes = other.encode();
    file.set_len(0).expect("cut");
    world.store_disk().remove("scrub").expect("there");
    let file = world.store_disk().open("scrub", Access::CreateNew).expect("new");
    file.write_at(&bytes, 0).expect("written");
    let report = scrub(&volume, &one());
    assert_eq!((report.packs_before, report.stopped), (0, None));
    assert_eq!(state(&world).round, 1);
}

/// Bytes that a thread may read at most before it is looked at how many it was.
fn read_at_once(world: &World) -> u64 {
    list_packs(&*world.store_disk())
        .expect("a listing")
        .packs
        .iter()
        .map(|(_, len)| *len)
        .max()
        .expect("some")
}

/// What a run with a limit reads in the time that it says it took, whatever that was: not more than the limit, but for what
/// each thread had begun to read.
#[test]
fn a_scrub_with_a_rate_reads_no_more_in_its_time_than_that() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    let all = scrub(&volume, &one());
    for threads in [1, 3] {
        let rate = 2 * all.bytes;
        let report = scrub(&volume, &ScrubOptions { rate: Some(rate), threads, ..one() });
        assert_eq!((report.bytes, report.stopped), (all.bytes, None), "{report:?}");
        let most = rate as f64 * report.took.as_secs_f64() + (threads as u64 * read_at_once(&world)) as f64;
        assert!(report.bytes as f64 <= most, "{most} may be: {report:?}");
    }
}

/// …and a run whose time is over has read no more than that either, and the runs behind it read the rest.
#[test]
fn a_scrub_whose_time_is_over_ends_with_a_part_and_others_do_the_rest() {
    let world = some_packs();
    let volume = world.open().expect("mount");
    let total = packs(&world).len() as u64;
    let rate = scrub(&volume, &one()).bytes / 2;
    let hurried = ScrubOptions { rate: Some(rate), max_duration: Some(Duration::from_millis(100)), ..one() };
    let first = scrub(&volume, &hurried);
    assert_eq!(first.stopped, Some(ScrubStop::Time), "{first:?}");
    assert!(0 < first.packs && first.packs < total, "{first:?}");
    let most = rate as f64 * first.took.as_secs_f64() + read_at_once(&world) as f64;
    assert!(first.bytes as f64 <= most, "{most} may be: {first:?}");
    assert!(read_at_once(&world) < first.bytes_total / 3, "packs are so large that this says nothing");
    let (mut seen, mut last) = (first.packs, first);
    for _ in 0..total {
        if last.stopped.is_none() {
            break;
        }
        last = scrub(&volume, &ScrubOptions { rate: None, ..hurried.clone() });
        assert_eq!(last.packs_before, seen, "{last:?}");
        assert!(last.packs > 0, "{last:?}");
        seen += last.packs;
    }
    assert_eq!((last.stopped, seen), (None, total), "{last:?}");
}

#[test]
fn a_report_says_of_every_pack_what_became_of_it() {
    let base = some_packs();
    let mut dice = Dice::new(11);
    for round in 0..12 {
        let world = base.fork();
        let volume = world.open().expect("mount");
        let all = packs(&world);
        let (mut damaged, mut lost) = (BTreeSet::new(), BTreeSet::new());
        for pack in &all {
            let len = bytes_of_pack(&world, pack).len();
            match dice.below(6) {
                0 => drop(damaged.insert(*pack)),
                1 => drop(lost.insert(*pack)),
                _ => continue,
            }
            let part = if lost.contains(pack) { len * 2 / 3 } else { 1 };
            spoil(&world, pack, 300.min(len as u64 / 4), part);
        }
        let stop = if round % 3 == 0 { 1 + dice.below(all.len() as u64) } else { u64::MAX };
        let options = ScrubOptions { each_pack: true, rate: (stop < u64::MAX).then_some(4_000_000), ..one() };
        let report = volume.scrub(&options, &mut |progress| progress.packs < stop).expect("scrubbing");
        let told: Vec<_> = report.each_pack.iter().map(|pack| pack.pack).collect();
        assert_eq!(told, all, "round {round}");
        let seen = report.each_pack.iter().filter(|pack| pack.seen);
        let sums = seen.fold((0, 0, 0), |(n, corrected, left), pack| {
            assert!(pack.verified.is_some() && pack.outcome.is_some(), "{pack:?}");
            let outcome = pack.outcome.expect("was asserted");
            let hit = damaged.contains(&pack.pack) || lost.contains(&pack.pack);
            assert_eq!(outcome != ScrubOutcome::Whole, hit, "{pack:?}");
            // A small pack of metadata survives what is asked here of all.
            let reached = pack.margin.is_none_or(|margin| margin.used <= u16::from(margin.parity.parity));
            assert_eq!(outcome == ScrubOutcome::Uncorrected, !reached, "{pack:?}");
            assert!(reached || lost.contains(&pack.pack), "{pack:?}");
            (n + 1, corrected + pack.corrected, left + pack.uncorrected)
        });
        assert_eq!(sums, (report.packs, report.corrected, report.uncorrected), "round {round}: {report:?}");
        assert!(report.each_pack.iter().all(|pack| pack.len > 0 && (pack.seen || pack.outcome.is_none())));
        assert!(scrub(&volume, &one()).each_pack.is_empty(), "nobody asked");
    }
    let world = base.fork();
    let volume = world.open().expect("mount");
    let gone = packs(&world)[1];
    world.store_disk().remove(&pack_path(&gone)).expect("removed");
    let report = scrub(&volume, &ScrubOptions { each_pack: true, ..one() });
    let told = report.each_pack.iter().find(|pack| pack.pack == gone).expect("told of");
    assert_eq!((told.len, told.outcome, told.seen), (0, Some(ScrubOutcome::Uncorrected), true));
}
