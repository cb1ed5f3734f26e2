//! Bit rot: bytes of a volume that nobody has mounted change, and what then is mounted, read and checked is what it was, or
//! says that it is not. What has to become of each fault is computed before it is made (`cairn_tests::rot`).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cairn_format::{SEGMENT_HEADER_LEN, SegmentHeader};
use cairn_store::disk::{Access, Disk};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::driver::Driver;
use cairn_tests::engine::Survival;
use cairn_tests::model::Model;
use cairn_tests::ops::{Op, Raw, Sizes};
use cairn_tests::pristine::Pristine;
use cairn_tests::rot::{Fault, Guarantee, Layout, Region, Verdict, read_file};
use cairn_tests::tree;
use cairn_tests::watchdog::watch;
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, Dedup, OpenError, OpenOptions, Volume, read_superblock};
use fsck_cairn::{CheckError, CheckOptions, Finding, Quiet, Severity};

use super::model::root_model;

/// No write is more than one record, so that the model goes through every state.
const SIZES: Sizes = Sizes { write: 8_000, file: 40_000, sparse: 3 << 20 };
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

fn read_only() -> OpenOptions {
    OpenOptions { index_mem: 1 << 18, cache_size: 1 << 20, read_only: true, ..OpenOptions::default() }
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
        match life {
            Life::Unmounted => driver.volume.close().expect("closed"),
            Life::Young | Life::Killed => witness(&mut driver, &mut states, &mut dice),
        }
        drop(driver.volume);
        let world = world.fork();
        let volume = world.fork().open_with(read_only()).expect("whole");
        let pristine = Pristine::of(&volume).expect("whole");
        let layout =
            Layout::of(&world.disk, world.store_disk(), pristine.extents().collect::<Vec<_>>().into_iter());
        Image { world, older, layout, pristine, states }
    }

    fn check(&self, fault: &Fault, verdict: &Verdict, dice: &mut Dice) -> Result<(), String> {
        let survival = if dice.one_in(2) { Survival::All } else { Survival::None };
        let rots = (survival == Survival::All && dice.one_in(3)).then(|| dice.roll());
        let rotten = || {
            let mut world = self.world.fork();
            world.engine = world.engine.surviving(survival);
            if let Some(pick) = rots {
                world.engine.rot(pick);
            }
            fault.inflict(&world.disk).map(|()| world).map_err(|e| format!("no such fault: {e}"))
        };
        self.check_fsck(&rotten()?, verdict)?;
        let world = rotten()?;
        // What is written again may be found among what rotted, unless that is looked at before it is trusted.
        let looks = || OpenOptions { read_only: false, dedup: Dedup::Verify, ..read_only() };
        match world.open_with(looks()) {
            Ok(volume) => {
                let has_engine = survival == Survival::All && rots.is_none();
                if verdict.refused || verdict.needs_engine && !has_engine {
                    return Err("it can be mounted".into());
                }
                self.check_mounted(&volume, verdict)?;
                if verdict.guarantee == Guarantee::Within && dice.one_in(8) {
                    volume.close().map_err(|e| format!("closing: {e}"))?;
                    drop(volume);
                    let volume = world.open_with(looks()).map_err(|e| format!("mounted again: {e}"))?;
                    self.check_mounted(&volume, verdict).map_err(|e| format!("mounted again: {e}"))?;
                }
                Ok(())
            }
            Err(error) => {
                if verdict.guarantee == Guarantee::Within {
                    return Err(format!("it is refused: {error}"));
                }
                if !verdict.refused && !verdict.needs_engine && verdict.guarantee == Guarantee::Beyond {
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
                    (Guarantee::Beyond, 0) if !verdict.needs_engine => Err("nothing is lost".into()),
                    _ => Ok(()),
                }
            }
            Guarantee::Unwitnessed => match tree::of_volume(volume) {
                Err(_) if verdict.loses_some() => Ok(()),
                _ => self.check_state(volume),
            },
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
        match verdict.guarantee {
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
                match verdict.named.iter().any(names) {
                    true => Ok(()),
                    false => Err(format!("fsck names none of {:?}: {:?}", verdict.named, report.findings)),
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
    let fault = image.layout.draw(&mut dice, &image.older.disk);
    let harmed: Vec<&Region> = image.layout.harmed(&fault);
    let verdict = image.layout.judge(&fault, &harmed);
    *counts.by_guarantee.lock().expect("no panic").entry(verdict.guarantee).or_default() += 1;
    counts.refused.fetch_add(u64::from(verdict.refused), Ordering::Relaxed);
    let checked = catch_unwind(AssertUnwindSafe(|| image.check(&fault, &verdict, &mut dice)));
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

#[test]
fn what_rots_is_named_or_costs_nothing_and_never_gives_a_wrong_byte() {
    let _watchdog = watch("the test of bit rot", 20 + faults() / 1000);
    let base = World::make(&small());
    let counts = Counts::default();
    let failures = Mutex::new(Vec::new());
    let images = faults().div_ceil(FAULTS_TO_AN_IMAGE);
    let next = AtomicU64::new(0);
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= images || failures.lock().expect("no panic").len() > 20 {
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
