//! Bit rot: bytes of a volume that nobody has mounted change, and what then is mounted, read and checked is what it was, or
//! says that it is not. What has to become of each fault is computed before it is made (`cairn_tests::rot`).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use cairn_format::{PackId, SECTOR, SEGMENT_HEADER_LEN, SegmentHeader};
use cairn_store::disk::{Access, Disk};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::driver::Driver;
use cairn_tests::engine::Survival;
use cairn_tests::model::Model;
use cairn_tests::ops::{Op, Raw, Sizes};
use cairn_tests::pristine::Pristine;
use cairn_tests::rot::{Fault, Guarantee, Layout, Part, Region, Verdict, mend_packs, read_file};
use cairn_tests::tree;
use cairn_tests::watchdog::watch;
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, Dedup, MakeOptions, OpenError, OpenOptions, Volume, read_superblock};
use fsck_cairn::{CheckError, CheckOptions, Finding, Quiet, Severity};

use super::model::root_model;

/// No write is more than one record, so that the model goes through every state.
const SIZES: Sizes = Sizes { write: 8_000, file: 40_000, sparse: 3 << 20 };
/// Names of a file that a finding gives at most.
const NAMES: usize = 4;
/// Faults made in one image, one at a time.
const FAULTS_TO_AN_IMAGE: u64 = 250;

/// A volume that nobody has mounted, and all that is known of it.
struct Image {
    world: World,
    older: World,
    layout: Layout,
    pristine: Pristine,
    /// The states that it went through since the last checkpoint of all.
    states: Vec<Model>,
}

/// What a volume went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// One mount, which did not end in order, and now and then no checkpoint yet.
    Young,
    /// Two, the second of which did not end in order.
    Killed,
    /// Two, and unmounted.
    Unmounted,
}

/// What a mount finds of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    /// All it was told.
    Whole,
    /// A bit of one value is another.
    Rotten(u64),
    /// Nothing.
    Gone,
}

fn read_only() -> OpenOptions {
    OpenOptions { index_mem: 1 << 18, cache_size: 1 << 20, read_only: true, ..OpenOptions::default() }
}

/// For writing. What is written again may be found among what rotted, unless that is looked at before it is trusted.
fn looks() -> OpenOptions {
    OpenOptions { read_only: false, dedup: Dedup::Verify, ..read_only() }
}

/// Does some operations; notes the states. With `calm` nothing of it is folded.
fn work(driver: &mut Driver, states: &mut Vec<Model>, dice: &mut Dice, operations: u64, calm: bool) {
    let mut model = states.last().expect("a state").clone();
    for _ in 0..operations {
        let op = Raw::draw(dice).resolve(&model, &SIZES);
        if calm && matches!(op, Op::Sync | Op::Upkeep(_)) {
            continue;
        }
        // What is open without a name is gone when the volume is looked at again.
        if matches!(op, Op::Open { .. } | Op::Create { .. }) && dice.one_in(2) {
            continue;
        }
        let next = model.next_id();
        let found = driver.apply(&op, next);
        assert_eq!(found, op.on_model(&mut model), "{op:?}");
        states.push(model.clone());
    }
}

impl Image {
    fn make(base: &World, seed: u64, life: Life) -> Image {
        let mut dice = Dice::new(seed);
        let world = base.fork();
        let mut driver = Driver::empty(world.open().expect("mounted"));
        let mut states = vec![root_model(&driver)];
        if life != Life::Young {
            work(&mut driver, &mut states, &mut dice, 150, false);
            driver.volume.close().expect("closed");
            let inos = driver.inos;
            drop(driver.volume);
            driver = Driver::new(world.open().expect("mounted"), inos);
            let state = states.last().expect("a state").remounted();
            states = vec![state];
            work(&mut driver, &mut states, &mut dice, 60, false);
        }
        let older = world.fork();
        work(&mut driver, &mut states, &mut dice, 60, life == Life::Young && seed.is_multiple_of(2));
        if seed % 5 > 2 {
            driver.volume.protect_journal();
        }
        match life {
            Life::Unmounted => driver.volume.close().expect("closed"),
            Life::Young | Life::Killed => witness(&mut driver, &mut states, &mut dice),
        }
        drop(driver.volume);
        Image::of(world.fork(), older, states)
    }

    fn of(world: World, older: World, states: Vec<Model>) -> Image {
        let volume = world.fork().open_with(read_only()).expect("whole");
        let pristine = Pristine::of(&volume).expect("whole");
        let layout =
            Layout::of(&world.disk, world.store_disk(), pristine.extents().collect::<Vec<_>>().into_iter());
        Image { world, older, layout, pristine, states }
    }

    /// A fault of which it is said here what becomes of it, and by the layout.
    fn row(&self, expected: Guarantee, what: &str, fault: &Fault, engine: Engine) -> Result<(), String> {
        let verdict = self.layout.judge(fault, &self.layout.harmed(fault));
        if verdict.guarantee != expected {
            return Err(format!("{what}: {:?} by the layout", verdict.guarantee));
        }
        self.check(fault, &verdict, engine, &mut Dice::new(1)).map_err(|e| format!("{what}: {e}"))
    }

    fn check(&self, fault: &Fault, verdict: &Verdict, engine: Engine, dice: &mut Dice) -> Result<(), String> {
        let survival = if engine == Engine::Gone { Survival::None } else { Survival::All };
        let rotten = || {
            let mut world = self.world.fork();
            world.engine = world.engine.surviving(survival);
            if let Engine::Rotten(pick) = engine {
                world.engine.rot(pick);
            }
            fault.inflict_in_memory(&world.disk).map(|()| world).map_err(|e| format!("no such fault: {e}"))
        };
        let checked = rotten()?;
        self.check_fsck(&checked, verdict)?;
        self.check_mended(&checked, fault, verdict, dice.one_in(4))?;
        let world = rotten()?;
        match world.open_with(looks()) {
            Ok(volume) => {
                if verdict.refused || verdict.needs_engine && engine != Engine::Whole {
                    return Err("it can be mounted".into());
                }
                self.check_mounted(&volume, verdict)?;
                if verdict.guarantee == Guarantee::Within && dice.one_in(8) {
                    self.check_afterwards(&world, volume, verdict)?;
                }
                Ok(())
            }
            Err(error) => {
                if verdict.guarantee == Guarantee::Within {
                    return Err(format!("it is refused: {error}"));
                }
                let may = verdict.refused || verdict.needs_engine || verdict.may_need_engine;
                if !may && verdict.guarantee == Guarantee::Beyond {
                    return Err(format!("some of it can be read, but it is refused: {error}"));
                }
                check_sentence(&error, verdict)?;
                self.check_read_only(&rotten()?)
            }
        }
    }

    fn check_mounted(&self, volume: &Volume, verdict: &Verdict) -> Result<(), String> {
        match verdict.guarantee {
            Guarantee::Within | Guarantee::Beyond => {
                let found = self.pristine.compare(volume, verdict)?;
                match (verdict.guarantee, found.refused) {
                    (Guarantee::Beyond, 0) if verdict.loses_some() => Err("nothing is lost".into()),
                    _ => Ok(()),
                }
            }
            Guarantee::Unwitnessed => match tree::of_volume(volume) {
                Err(_) if verdict.loses_some() => Ok(()),
                _ => self.check_state(volume),
            },
        }
    }

    /// Mended while it is mounted, unmounted, and mounted again.
    fn check_afterwards(&self, world: &World, volume: Arc<Volume>, verdict: &Verdict) -> Result<(), String> {
        mend_packs(&*world.store_disk())?;
        self.check_mounted(&volume, verdict).map_err(|e| format!("mended: {e}"))?;
        volume.close().map_err(|e| format!("closing: {e}"))?;
        drop(volume);
        if verdict.unneeded.is_empty() {
            self.check_clean(world, true).map_err(|e| format!("unmounted: {e}"))?;
        }
        let volume = world.open_with(looks()).map_err(|e| format!("mounted again: {e}"))?;
        self.check_mounted(&volume, verdict).map_err(|e| format!("mounted again: {e}"))
    }

    /// What mending leaves on the disk, and what it says is lost.
    fn check_mended(
        &self,
        world: &World,
        fault: &Fault,
        verdict: &Verdict,
        checks: bool,
    ) -> Result<(), String> {
        if verdict.packs.is_empty() {
            return Ok(());
        }
        let lost = mend_packs(&*world.store_disk())?;
        self.layout.check_mended(fault, verdict, &lost, &world.disk)?;
        match checks && verdict.guarantee == Guarantee::Within && verdict.unneeded.is_empty() {
            true => self.check_clean(world, false).map_err(|e| format!("mended: {e}")),
            false => Ok(()),
        }
    }

    /// That fsck finds nothing wrong with packs that were mended; with superblocks neither, where a mount had its turn.
    fn check_clean(&self, world: &World, was_mounted: bool) -> Result<(), String> {
        let options = CheckOptions::default();
        let report = fsck_cairn::check(&world.disk, world.store_disk(), None, &options, &Quiet)
            .map_err(|e| format!("fsck: {e}"))?;
        let is_damage =
            |f: &&Finding| f.severity == Severity::Damage && (was_mounted || f.kind != "superblock-replica");
        match report.findings.iter().find(is_damage) {
            Some(finding) => Err(format!("fsck still finds {finding:?}")),
            None => Ok(()),
        }
    }

    /// That it is in one of the states that it went through.
    fn check_state(&self, volume: &Volume) -> Result<(), String> {
        let found = tree::of_volume(volume)?;
        let is = |model: &&Model| tree::difference(&tree::of_model(&model.remounted()), &found).is_none();
        match self.states.iter().rev().find(is) {
            Some(_) => Ok(()),
            None => {
                let last = self.states.last().map(|model| tree::of_model(&model.remounted()));
                let difference = last.and_then(|last| tree::difference(&last, &found));
                Err(format!("it is in a state that it never was in; the last was another: {difference:?}"))
            }
        }
    }

    /// What cannot be mounted for writing may be to be read: then it shows nothing that never was.
    fn check_read_only(&self, world: &World) -> Result<(), String> {
        let Ok(volume) = world.open_with(read_only()) else { return Ok(()) };
        match tree::of_volume(&volume) {
            Ok(_) => self.check_state(&volume).map_err(|e| format!("mounted read-only: {e}")),
            // An error of reading is what it is for.
            Err(_) => Ok(()),
        }
    }

    fn check_fsck(&self, world: &World, verdict: &Verdict) -> Result<(), String> {
        let options = CheckOptions::default();
        let report = match fsck_cairn::check(&world.disk, world.store_disk(), None, &options, &Quiet) {
            Ok(report) => report,
            // No superblock has the magic left.
            Err(CheckError::NotAVolume(_)) if verdict.named.contains("superblock") => return Ok(()),
            Err(error) => return Err(format!("fsck: {error}")),
        };
        let damage: Vec<&Finding> =
            report.findings.iter().filter(|f| f.severity == Severity::Damage).collect();
        let is_named =
            |pack: &PackId| damage.iter().any(|f| f.pack.as_deref() == Some(pack.to_string().as_str()));
        let gone = |pack: &PackId| verdict.named.iter().any(|file| file.contains(&pack.to_string()));
        if let Some(pack) = verdict.packs.keys().find(|pack| !is_named(pack) && !gone(pack)) {
            return Err(format!("fsck does not find the damage of pack {pack}: {:?}", report.findings));
        }
        match verdict.guarantee {
            // It looks at what lies there, and at what parity makes of that only in its own findings.
            Guarantee::Within if !verdict.packs.is_empty() || !verdict.unneeded.is_empty() => Ok(()),
            Guarantee::Within => {
                let lost = damage.iter().find(|f| !f.paths.is_empty());
                lost.map_or(Ok(()), |finding| Err(format!("fsck takes this for lost: {finding:?}")))
            }
            Guarantee::Beyond => {
                let names = |file: &String| {
                    damage.iter().any(|f| {
                        f.file.as_ref().is_some_and(|f| f.starts_with(file.as_str()))
                            || f.pack.as_ref().is_some_and(|pack| file.contains(pack.as_str()))
                    })
                };
                // Of several, one may hide what is behind it.
                if !verdict.named.iter().any(names) {
                    return Err(format!("fsck names none of {:?}: {:?}", verdict.named, report.findings));
                }
                // Of a file with many names it gives some.
                let is_listed = |path: &&str| {
                    damage.iter().any(|f| f.paths.len() == NAMES || f.paths.iter().any(|p| p == path))
                };
                let is_hidden = verdict.refused || verdict.needs_engine || verdict.may_need_engine;
                match self.pristine.lost(verdict).find(|path| !is_hidden && !is_listed(path)) {
                    Some(path) => Err(format!("fsck does not name {path}: {:?}", report.findings)),
                    None => Ok(()),
                }
            }
            Guarantee::Unwitnessed => Ok(()),
        }
    }
}

/// Has records that matter little follow those that do, synced one by one, so that one bad sector does not hit all that say
/// what was synced.
fn witness(driver: &mut Driver, states: &mut Vec<Model>, dice: &mut Dice) {
    let mut model = states.last().expect("a state").clone();
    let root = cairn_tests::model::ROOT;
    let name = b"witness".to_vec();
    let create = Op::Create { dir: root, name, mode: 0o600, umask: 0, owner: Default::default() };
    let id = model.next_id();
    let mut ops = vec![create, Op::Release { id }];
    for n in 0..5 {
        let seed = dice.roll() | 7;
        ops.push(Op::Write { id, offset: n * 8192, len: 8192, seed, clear: false });
        ops.push(Op::Fsync { id });
    }
    for op in ops {
        let next = model.next_id();
        let found = driver.apply(&op, next);
        assert_eq!(found, op.on_model(&mut model), "{op:?}");
        states.push(model.clone());
    }
}

/// A refusal says what is wrong, and where.
fn check_sentence(error: &OpenError, verdict: &Verdict) -> Result<(), String> {
    let text = error.to_string();
    let places = verdict.named.iter().map(|file| match file.strip_suffix(".pack") {
        Some(path) => path.rsplit('/').next().unwrap_or(path),
        None => file.rsplit('/').next().unwrap_or(file),
    });
    let named = places.clone().any(|place| text.contains(place));
    match verdict.guarantee {
        Guarantee::Beyond if !named => Err(format!("the refusal names none of {:?}: {text}", verdict.named)),
        _ => Ok(()),
    }
}

/// What was done and seen.
#[derive(Default)]
struct Counts {
    by_guarantee: Mutex<BTreeMap<Guarantee, u64>>,
    refused: AtomicU64,
}

fn one(image: &Image, seed: u64, counts: &Counts) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let fault = image.layout.draw(&mut dice, &image.older.disk, true);
    let harmed: Vec<&Region> = image.layout.harmed(&fault);
    let verdict = image.layout.judge(&fault, &harmed);
    *counts.by_guarantee.lock().expect("no panic").entry(verdict.guarantee).or_default() += 1;
    counts.refused.fetch_add(u64::from(verdict.refused), Ordering::Relaxed);
    let engine = match dice.below(6) {
        0 => Engine::Rotten(dice.roll()),
        1 | 2 => Engine::Whole,
        _ => Engine::Gone,
    };
    let checked = catch_unwind(AssertUnwindSafe(|| image.check(&fault, &verdict, engine, &mut dice)));
    let checked = checked.unwrap_or_else(|_| Err("it panics".into()));
    checked.map_err(|error| {
        let parts: Vec<_> = harmed.iter().take(8).map(|r| format!("{:?}", r.part)).collect();
        let more = if harmed.len() > 8 { " and more" } else { "" };
        let parts = format!("{}{more}", parts.join(", "));
        format!("fault {seed}: {}: {:?}, harms {parts}: {error}", fault.what, verdict.guarantee)
    })
}

fn faults() -> u64 {
    std::env::var("CAIRN_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

/// The number of the first volume: `CAIRN_SEED`, so that a long run makes others.
fn first_seed() -> u64 {
    std::env::var("CAIRN_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn what_rots_is_named_or_costs_nothing_and_never_gives_a_wrong_byte() {
    let _watchdog = watch("the test of bit rot", 20 + faults() / 1000);
    let base = World::make(&small());
    let counts = Counts::default();
    let failures = Mutex::new(Vec::new());
    let images = faults().div_ceil(FAULTS_TO_AN_IMAGE);
    let (first, next) = (first_seed(), AtomicU64::new(0));
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let seed = first + number;
                    if number >= images || failures.lock().expect("no panic").len() > 20 {
                        return;
                    }
                    let life = [Life::Young, Life::Killed, Life::Unmounted][seed as usize % 3];
                    let image = Image::make(&base, seed, life);
                    for n in 0..FAULTS_TO_AN_IMAGE {
                        if let Err(error) = one(&image, seed * FAULTS_TO_AN_IMAGE + n, &counts) {
                            failures.lock().expect("no panic").push(error);
                        }
                    }
                }
            });
        }
    });
    let (made, by) = (images * FAULTS_TO_AN_IMAGE, counts.by_guarantee.into_inner().expect("no panic"));
    println!("{made} faults: {by:?}");
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{} faults went wrong:\n{}", failures.len(), failures.join("\n"));
    for guarantee in [Guarantee::Within, Guarantee::Beyond] {
        let count = by.get(&guarantee).copied().unwrap_or(0);
        assert!(count * 5 >= made, "only {count} of {made} faults are {guarantee:?}");
    }
}

/// A volume with packs of some mebibytes, so that holes have room in them.
fn large() -> Image {
    let options = MakeOptions { pack_size: 16 << 20, ..MakeOptions::default() };
    let world = World::make(&MakeOptions { uuid: small().uuid, ..options });
    let volume = world.open().expect("mounted");
    for (name, len) in [(&b"large"[..], 12 << 20), (b"little", 100_000)] {
        let ino = volume.create(1, name, 0o644, 0, &Caller::default()).expect("a new name").ino;
        for at in (0..len).step_by(100_000) {
            volume.write(ino, at, &noise(at ^ len, 100_000), false).expect("written");
        }
    }
    volume.close().expect("closed");
    drop(volume);
    Image::of(world.fork(), world.fork(), Vec::new())
}

/// One line for each kind of fault: what it is, and what becomes of it.
#[test]
fn what_survives_and_what_does_not() {
    use Guarantee::{Beyond, Unwitnessed, Within};
    let image = large();
    let (l, dice) = (&image.layout, &mut Dice::new(1));
    let length = |pack: &PackId| l.len_of(*pack);
    let packs = l.packs();
    let pack =
        packs.iter().copied().filter(|pack| l.is_used(pack)).max_by_key(length).expect("one with files");
    let little = packs.iter().copied().min_by_key(length).expect("a pack");
    let sectors = l.len_of(pack) / SECTOR;
    let within = l.hole_within(pack) / SECTOR;
    let (mib, old) = ((1 << 20) / SECTOR, read_file(&image.world.disk, "superblock").expect("there"));
    let tables = |dice: &mut Dice, picks: &[usize]| l.tables(dice, pack, |part| picks.contains(&part));
    let none = || Fault::of("nothing".into(), Vec::new());
    let (store, volume) =
        (["store/superblock", "store/superblock.backup"], ["superblock", "superblock.backup"]);
    assert!(within > mib, "a hole of 1 MiB has to have room: {within} sectors");
    let rows = [
        (Within, "a bit", l.spread_flips(dice, 1), Engine::Whole),
        (Within, "10 bits, spread", l.spread_flips(dice, 10), Engine::Whole),
        (Beyond, "10,000 bits, spread", l.spread_flips(dice, 10_000), Engine::Whole),
        (Within, "a sector of zeros", l.hole(pack, 5, 1), Engine::Whole),
        (Within, "a sector of garbage", l.garbage(dice, pack, 6), Engine::Whole),
        (Within, "sectors swapped in a pack", l.swapped(dice, pack, pack), Engine::Whole),
        (Within, "sectors swapped between packs", l.swapped(dice, pack, little), Engine::Whole),
        (Within, "a torn pack", l.torn(pack, 50, 100, &old), Engine::Whole),
        (Beyond, "a pack torn in half", l.torn(pack, sectors / 2, sectors, &[]), Engine::Whole),
        (Within, "a pack cut short by 1 MiB", l.cut_short(pack, l.len_of(pack) - (1 << 20)), Engine::Whole),
        (Beyond, "a pack cut in half", l.cut_short(pack, l.len_of(pack) / 2), Engine::Whole),
        (Beyond, "an empty pack", l.cut_short(pack, 0), Engine::Whole),
        (Within, "a hole of 1 MiB", l.hole(pack, 777, mib), Engine::Whole),
        (Within, "a hole of the guaranteed size", l.hole(pack, 333, within), Engine::Whole),
        (Within, "the same at the beginning", l.hole(pack, 0, within), Engine::Whole),
        (Beyond, "a hole half as long again", l.hole(pack, 333, within * 3 / 2), Engine::Whole),
        (Within, "all before the parity's sums: two tables", tables(dice, &[0, 1, 2]), Engine::Whole),
        (Within, "all behind the parity", tables(dice, &[4, 5, 6, 7]), Engine::Whole),
        (
            Within,
            "both copies of the footer and of the checksums",
            tables(dice, &[1, 2, 5, 6]),
            Engine::Whole,
        ),
        (Beyond, "all three places that say where things lie", tables(dice, &[0, 3, 7]), Engine::Whole),
        (Beyond, "a missing pack", l.missing(pack), Engine::Whole),
        (Within, "sectors that err", l.unreadable(pack, 9, 3, false), Engine::Whole),
        (Within, "sectors that err for ever", l.unreadable(pack, 9, 3, true), Engine::Whole),
        (Within, "one superblock of the store", l.gone(store[0]), Engine::Whole),
        (Within, "one superblock of the volume", l.gone(volume[1]), Engine::Whole),
        (Within, "one of each, and the index", l.gone(store[1]).and(l.gone(volume[0])), Engine::Gone),
        (Beyond, "both superblocks of the store", l.gone(store[0]).and(l.gone(store[1])), Engine::Whole),
        (Within, "the index", l.gone("store/index"), Engine::Whole),
        (Within, "the engine", none(), Engine::Gone),
        (Within, "a value in the engine", none(), Engine::Rotten(12_345)),
    ];
    let mut failures = Vec::new();
    for (expected, what, fault, engine) in rows {
        failures.extend(image.row(expected, what, &fault, engine).err());
    }

    let image = Image::make(&World::make(&small()), 1, Life::Killed);
    let l = &image.layout;
    let mut records: Vec<&Region> = l.regions.iter().filter(|r| matches!(r.part, Part::Record(..))).collect();
    records.sort_by_key(|r| match r.part {
        Part::Record(_, lsn, _) => Some(lsn),
        _ => None,
    });
    let free = l.regions.iter().rfind(|r| r.part == Part::Free).expect("room");
    let segment = l.regions.iter().find(|r| matches!(r.part, Part::SegmentHeader(_))).expect("a segment");
    let rows = [
        (Beyond, "the journal's middle", l.bit_of(dice, records[records.len() / 2])),
        (Unwitnessed, "its newest record", l.bit_of(dice, records[records.len() - 1])),
        (Within, "behind its end", l.bit_of(dice, free)),
        (Within, "one header of a segment", l.bit_of(dice, segment)),
        (Within, "a superblock as it was", l.stale(volume[0], &image.older.disk)),
    ];
    for (expected, what, fault) in rows {
        failures.extend(image.row(expected, what, &fault, Engine::Gone).err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A volume with two files, of which `b` was made in the journal's newest segment and `a` in one before it, behind what is
/// folded; gives the world and the segments in order.
fn long_journal(base: &World, folded: bool) -> (World, Vec<String>) {
    let world = base.fork();
    let volume = world.open().expect("mounted");
    let owner = Caller::default();
    let make = |name: &[u8]| volume.create(1, name, 0o644, 0, &owner).expect("a new name").ino;
    if folded {
        make(b"old");
        volume.sync().expect("folded");
    }
    for (name, writes) in [(&b"a"[..], 7), (b"b", 2)] {
        let ino = make(name);
        for n in 0..writes {
            volume.write(ino, n * 8000, &noise(n, 8000), false).expect("written");
        }
    }
    volume.fsync(1, false).expect("synced");
    drop(volume);
    let mut segments: Vec<_> = world
        .disk
        .files()
        .into_iter()
        .filter(|path| path.ends_with(".seg"))
        .filter_map(|path| Some((header(&world, &path)?.number, path)))
        .collect();
    segments.sort();
    (world, segments.into_iter().map(|(_, path)| path).collect())
}

fn header(world: &World, path: &str) -> Option<SegmentHeader> {
    let volume = read_superblock(&world.disk, "the volume").expect("whole").uuid;
    SegmentHeader::decode(&read_file(&world.disk, path).expect("there")[..SEGMENT_HEADER_LEN], &volume).ok()
}

fn names(world: &World, options: OpenOptions) -> Vec<Vec<u8>> {
    let volume = world.open_with(options).expect("mounted");
    tree::list(&volume, 1).expect("listed").into_iter().skip(2).map(|item| item.name).collect()
}

/// A mount that is refused to write shows the state before the damage, not one with what came behind it on top.
#[test]
fn regression_records_behind_a_gap_are_not_applied_by_a_read_only_mount() {
    let (world, segments) = long_journal(&World::make(&small()), true);
    let file = world.disk.open(&segments[segments.len() - 2], Access::Write).expect("there");
    file.write_at(&[0; 12 << 10], 0).expect("spoiled");
    assert!(matches!(world.open(), Err(OpenError::Damaged { .. })));
    assert!(!names(&world, read_only()).contains(&b"b".to_vec()), "what came behind the gap");
}

/// Before the first checkpoint of a mount the journal is all there is.
#[test]
fn a_journal_without_its_beginning_is_refused() {
    let (world, segments) = long_journal(&World::make(&small()), false);
    assert_eq!(names(&world.fork(), read_only()), [b"a", b"b"]);
    world.disk.remove(&segments[0]).expect("there");
    assert!(matches!(world.open(), Err(OpenError::Damaged { .. })));
    assert!(names(&world, read_only()).is_empty());
    let report = fsck_cairn::check(&world.disk, world.store_disk(), None, &CheckOptions::default(), &Quiet)
        .expect("checked");
    assert!(report.findings.iter().any(|f| f.severity == Severity::Damage), "{:?}", report.findings);
}

/// A lost write leaves an older copy, a misdirected one another segment's, both with a checksum that fits.
#[test]
fn regression_a_segment_is_what_its_records_say_whatever_one_copy_of_its_header_says() {
    let (base, segments) = long_journal(&World::make(&small()), false);
    let path = segments[0].clone();
    let whole = header(&base, &path).expect("whole");
    let half = SEGMENT_HEADER_LEN as u64;
    let is_whole = |world: &World, what: String| {
        let volume = world.open().unwrap_or_else(|e| panic!("{what}: {e}"));
        let ino = volume.lookup(1, b"a").expect("read").expect("there").ino;
        assert_eq!(volume.read(ino, 8000, 8000).expect("read"), noise(1, 8000), "{what}");
    };
    for (number, places) in [(0, vec![0]), (0, vec![half]), (0, vec![0, half]), (9, vec![0]), (9, vec![half])]
    {
        let world = base.fork();
        let other = SegmentHeader { number, ..whole }.encode();
        for at in &places {
            world.disk.open(&path, Access::Write).expect("there").write_at(&other, *at).expect("spoiled");
        }
        is_whole(&world, format!("number {number} at {places:?}"));
    }
    // The other copy is gone as well.
    for (number, at) in [(0, 0), (0, half), (9, 0), (9, half)] {
        let world = base.fork();
        let other = SegmentHeader { number, ..whole }.encode();
        world.disk.open(&path, Access::Write).expect("there").write_at(&other, at).expect("spoiled");
        world.disk.corrupt(&path, half - at + 100, 1).expect("spoiled");
        let volume = world.open().unwrap_or_else(|e| panic!("number {number} at {at} alone: {e}"));
        let ino = volume.lookup(1, b"a").expect("read").expect("there").ino;
        assert_eq!(
            volume.read(ino, 8000, 8000).expect("read"),
            noise(1, 8000),
            "number {number} at {at} alone"
        );
    }
}

/// A bit of the version is not a version.
#[test]
fn regression_a_superblock_whose_version_rotted_is_not_a_newer_one() {
    let world = World::make(&small());
    for path in ["superblock", "store/superblock.backup"] {
        for bit in 0..32 {
            let world = world.fork();
            world.disk.corrupt(path, 8 + bit / 8, 1 << (bit % 8)).expect("spoiled");
            world.open().unwrap_or_else(|e| panic!("bit {bit} of {path}: {e}"));
        }
    }
}
