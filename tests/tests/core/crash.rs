//! Power cuts: random workloads, cut at any operation of the disk, recovered (and cut again meanwhile), and
//! what is found then held against the states that the model went through.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_store::disk::Crash;
use cairn_tests::dice::{Dice, noise};
use cairn_tests::driver::Driver;
use cairn_tests::engine::Survival;
use cairn_tests::model::{Body, Id, Model, ROOT};
use cairn_tests::ops::{Answer, Op, Raw, Sizes};
use cairn_tests::tree;
use cairn_tests::watchdog::watch;
use cairn_tests::world::{SMALL_RECORD, World, small};
use cairn_volume::{Caller, Error, MakeOptions, OpenError, RenameMode, SeekTo, Volume};
use fsck_cairn::{CheckOptions, Quiet, Severity};

pub(super) const SIZES: Sizes = Sizes { write: 12_000, file: 30_000, sparse: 3 << 20 };

/// What a run left: the states it went through, and which of them must have survived.
#[derive(Default)]
pub(super) struct Past {
    /// After each record of each acknowledged operation; the first is the volume's as it was made.
    pub(super) states: Vec<Model>,
    /// The last that an fsync was acknowledged behind.
    pub(super) certain: usize,
    /// States that the operation under way may have led to.
    pub(super) in_flight: Vec<Model>,
    /// Every inode number given out.
    pub(super) issued: HashSet<u64>,
    /// Whether the volume was closed.
    pub(super) closed: bool,
}

/// What a case did, for the counts that tell whether cases are worth running.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) cuts: AtomicU64,
    pub(super) again: AtomicU64,
    pub(super) lost_some: AtomicU64,
    pub(super) kept_all: AtomicU64,
}

/// A volume's files, and which inode is which, while nobody has it mounted.
#[derive(Clone)]
pub(super) struct Present {
    pub(super) model: Model,
    pub(super) inos: HashMap<Id, u64>,
}

impl Present {
    /// As `mkfs` leaves it.
    pub(super) fn new() -> Present {
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Present { model: Model::new(owner.0, owner.1), inos: HashMap::from([(ROOT, 1)]) }
    }
}

/// The operations of a workload, each in the state that those before it made.
pub(super) type Ops<'a> = &'a (dyn Fn(usize, &Model) -> Option<Op> + Sync);

/// Random ones.
fn drawn(raws: &[Raw]) -> impl Fn(usize, &Model) -> Option<Op> + Sync {
    move |i, model| raws.get(i).map(|raw| raw.resolve(model, &SIZES))
}

/// Does the workload until it ends or the power goes.
pub(super) fn live(world: &World, present: Present, ops: Ops<'_>, close: bool) -> Result<Past, String> {
    let mut past =
        Past { states: Vec::new(), certain: 0, in_flight: Vec::new(), issued: HashSet::new(), closed: false };
    let mut model = present.model;
    past.states.push(model.clone());
    let volume = match world.open() {
        Ok(volume) => volume,
        Err(_) if world.disk.is_cut() => return Ok(past),
        Err(error) => return Err(format!("the first mount: {error}")),
    };
    let mut driver = Driver::new(volume, present.inos);
    for i in 0.. {
        let Some(op) = ops(i, &model) else { break };
        let next = model.next_id();
        let found = driver.apply(&op, next);
        past.issued.extend(driver.inos.get(&next));
        let mut after = model.clone();
        let expected = op.on_model(&mut after);
        if found != expected {
            if !world.disk.is_cut() {
                return Err(format!("operation {i}, {op:?}: should be {expected:?}, is {found:?}"));
            }
            if !matches!(found, Answer::Failed(_)) {
                return Err(format!("operation {i}, {op:?}, without power: {found:?}"));
            }
            past.in_flight = op.steps(&model, SMALL_RECORD);
            past.in_flight.push(after);
            break;
        }
        past.states.extend(op.steps(&model, SMALL_RECORD));
        model = after;
        past.states.push(model.clone());
        if op.is_sync() && found == Answer::Done {
            past.certain = past.states.len() - 1;
        }
    }
    if close && !world.disk.is_cut() && driver.volume.close().is_ok() {
        past.certain = past.states.len() - 1;
        past.closed = true;
    }
    Ok(past)
}

pub(super) fn random_crash(dice: &mut Dice) -> Crash {
    match dice.below(8) {
        0 => Crash::KeepAll,
        1 => Crash::DropUnsynced,
        2 => Crash::DropNames,
        3 => Crash::DropBytes,
        _ => Crash::Random(dice.roll()),
    }
}

pub(super) fn random_survival(dice: &mut Dice) -> Survival {
    match dice.below(4) {
        0 => Survival::None,
        1 => Survival::Older(1 + dice.below(3) as usize),
        _ => Survival::All,
    }
}

/// Mounts what a crash left, the power going again meanwhile, now and then.
fn recover(
    mut world: World,
    mut kept_all: bool,
    dice: &mut Dice,
    counts: &Counts,
) -> Result<(World, Arc<Volume>, bool), String> {
    for _ in 0..4 {
        if !dice.one_in(3) {
            break;
        }
        counts.again.fetch_add(1, Ordering::Relaxed);
        world = world.joined();
        world.disk.cut_at(world.disk.operations() + dice.below(40));
        match world.open() {
            Ok(volume) => {
                // Whether these come before the cut or behind it is the same to who comes after.
                let _ = volume.maintain();
                let _ = volume.close();
            }
            Err(_) if world.disk.is_cut() => {}
            Err(error) => return Err(format!("a mount that was to be cut off: {error}")),
        }
        let crash = random_crash(dice);
        kept_all &= crash == Crash::KeepAll;
        world = world.crash(crash, random_survival(dice));
    }
    match world.open() {
        Ok(volume) => Ok((world, volume, kept_all)),
        Err(error @ OpenError::Damaged { .. }) => Err(format!("a power cut taken for damage: {error}")),
        Err(error) => Err(format!("not mounted after a power cut: {error}")),
    }
}

/// One workload, one cut.
fn cut(base: &World, raws: &[Raw], at: u64, seed: u64, counts: &Counts) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let world = base.fork();
    world.disk.cut_at(at);
    let past = live(&world, Present::new(), &drawn(raws), true)?;
    crashed(world, &past, &mut dice, counts)
}

/// What is left of a world, and that it is what it may be.
pub(super) fn crashed(world: World, past: &Past, dice: &mut Dice, counts: &Counts) -> Result<(), String> {
    counts.cuts.fetch_add(1, Ordering::Relaxed);
    let crash = random_crash(dice);
    let survival = random_survival(dice);
    let about = format!("{crash:?}, engine {survival:?}");
    let (after, about) = match dice.below(8) {
        0 => (world.split_crash(Crash::KeepAll, Crash::DropUnsynced, survival), "packs dropped".to_owned()),
        1 => (world.split_crash(Crash::DropUnsynced, Crash::KeepAll, survival), "journal dropped".to_owned()),
        _ => (world.crash(crash, survival), about),
    };
    let kept_all = !about.contains("dropped") && crash == Crash::KeepAll;
    let found = check(after, past, kept_all, dice, counts);
    found.map_err(|e| format!("{about}: {e}"))
}

/// Mounts what a crash left, and finds which of the states that it may be it is.
pub(super) fn survive(
    world: World,
    past: &Past,
    kept_all: bool,
    dice: &mut Dice,
    counts: &Counts,
) -> Result<(World, Model, Driver), String> {
    if dice.one_in(4) {
        consistent(&world).map_err(|e| format!("before recovery: {e}"))?;
    }
    let (world, volume, kept_all) = recover(world, kept_all, dice, counts)?;
    let found = tree::of_volume(&volume).map_err(|e| format!("after recovery: {e}"))?;
    let last = past.states.len() - 1;
    let first = if kept_all { last } else { past.certain };
    let allowed = past.in_flight.iter().rev().chain(past.states[first..].iter().rev());
    let mut closest = None;
    let mut matching = None;
    for model in allowed {
        match tree::difference(&tree::of_model(model), &found) {
            None => match learnt(&volume, &model.remounted(), &found) {
                None => closest = closest.or(Some("other holes".into())),
                learnt => {
                    matching = learnt;
                    break;
                }
            },
            Some(difference) => closest = closest.or(Some(difference)),
        }
    }
    let Some((model, driver)) = matching else {
        return Err(format!(
            "no state from {first} (certain) to {last} is what was found; against the last: {}",
            closest.unwrap_or_default()
        ));
    };
    counts.kept_all.fetch_add(u64::from(kept_all), Ordering::Relaxed);
    let gone = tree::difference(&tree::of_model(&past.states[last]), &found).is_some();
    counts.lost_some.fetch_add(u64::from(gone), Ordering::Relaxed);
    Ok((world, model, driver))
}

/// The model with the inodes it has in the volume, if the volume is that, holes and all.
pub(super) fn learnt(volume: &Arc<Volume>, model: &Model, found: &tree::Tree) -> Option<(Model, Driver)> {
    let expected = tree::of_model(model);
    if tree::difference(&expected, found).is_some() {
        return None;
    }
    let driver = Driver::learn(volume.clone(), &expected, found);
    same_holes(model, &driver).then(|| (model.clone(), driver))
}

/// Whether all files have their holes where the model has them.
pub(super) fn same_holes(model: &Model, driver: &Driver) -> bool {
    let volume = &driver.volume;
    model.nodes().all(|(id, node)| {
        let (Body::File(content), Some(ino)) = (&node.body, driver.inos.get(&id)) else { return true };
        let mut at = 0;
        while at < content.size {
            let (data, hole) = (content.next_data(at), content.next_hole(at));
            if volume.seek(*ino, at, SeekTo::Data) != data.ok_or(Error::NoData)
                || volume.seek(*ino, at, SeekTo::Hole) != Ok(hole)
            {
                return false;
            }
            at = hole.max(data.unwrap_or(content.size));
        }
        true
    })
}

/// That what a crash left is one of the states it may be, and a volume that can be worked with.
pub(super) fn check(
    world: World,
    past: &Past,
    kept_all: bool,
    dice: &mut Dice,
    counts: &Counts,
) -> Result<(), String> {
    let (world, mut model, mut driver) = survive(world, past, kept_all, dice, counts)?;
    // Life goes on.
    for i in 0..dice.below(12) {
        let op = Raw::draw(dice).resolve(&model, &SIZES);
        let next = model.next_id();
        let found = driver.apply(&op, next);
        let expected = op.on_model(&mut model);
        if found != expected {
            return Err(format!(
                "after recovery, operation {i}, {op:?}: should be {expected:?}, is {found:?}"
            ));
        }
        if let Some(ino) = driver.inos.get(&next)
            && past.issued.contains(ino)
        {
            return Err(format!("inode number {ino} was given out before the crash already"));
        }
    }
    driver.compare(&model).map_err(|e| format!("going on after recovery: {e}"))?;
    driver.volume.close().map_err(|e| format!("closing after recovery: {e}"))?;
    if dice.one_in(2) {
        consistent(&world)?;
    }
    if dice.one_in(4) {
        let again = Driver::new(world.open().map_err(|e| e.to_string())?, driver.inos);
        again.compare(&model.remounted()).map_err(|e| format!("the mount after that: {e}"))?;
    }
    Ok(())
}

/// That fsck finds nothing wrong with a volume that nobody has mounted.
pub(super) fn consistent(world: &World) -> Result<(), String> {
    let report = fsck_cairn::check(&world.disk, world.store_disk(), None, &CheckOptions::default(), &Quiet)
        .map_err(|e| format!("fsck: {e}"))?;
    let wrong = report.findings.iter().find(|f| f.severity > Severity::Info);
    wrong.map_or(Ok(()), |finding| Err(format!("fsck: {finding:?}")))
}

/// How many operations of the disk a workload takes.
fn length(base: &World, raws: &[Raw]) -> Result<u64, String> {
    let world = base.fork();
    let past = live(&world, Present::new(), &drawn(raws), true)?;
    if !past.closed {
        return Err("not closed without a cut".into());
    }
    Ok(world.disk.operations())
}

pub(super) fn workload(seed: u64, most: u64) -> Vec<Raw> {
    let mut dice = Dice::new(seed);
    let len = 1 + dice.below(most);
    (0..len).map(|_| Raw::draw(&mut dice)).collect()
}

/// Runs `cases` on all cores; the first failure ends it.
pub(super) fn on_all_cores(cases: u64, case: impl Fn(u64) -> Result<(), String> + Sync) {
    let next = AtomicU64::new(0);
    let case = |n| {
        let _watchdog = watch("a case on a disk that fails", 10);
        case(n)
    };
    let failure = std::sync::Mutex::new(None);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= cases {
                        return;
                    }
                    if let Err(error) = case(n) {
                        next.store(cases, Ordering::Relaxed);
                        failure.lock().expect("nothing panics under it").get_or_insert((n, error));
                    }
                }
            });
        }
    });
    if let Some((n, error)) = failure.into_inner().expect("nothing panics under it") {
        panic!("case {n}: {error}");
    }
}

/// Cut points of a run, all tests' together: `CAIRN_CUTS`.
pub(super) fn cuts() -> u64 {
    std::env::var("CAIRN_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000)
}

pub(super) fn bases() -> [World; 2] {
    [World::make(&small()), World::make(&MakeOptions { journal_size: 512 << 10, ..small() })]
}

pub(super) fn shown(raws: &[Raw]) -> String {
    let mut model = Model::new(0, 0);
    let mut text = String::new();
    for (i, raw) in raws.iter().enumerate() {
        let op: Op = raw.resolve(&model, &SIZES);
        op.on_model(&mut model);
        text += &format!("\n  {i}: {op:?}");
    }
    text
}

#[test]
fn every_cut_of_short_workloads_leaves_a_state_that_was() {
    let bases = bases();
    let counts = Counts::default();
    let wanted = cuts() / 10;
    on_all_cores(wanted / 55, |n| {
        let base = &bases[n as usize % 2];
        let raws = workload(n, 8);
        let end = length(base, &raws)?;
        for at in 0..=end {
            cut(base, &raws, at, n << 32 | at, &counts)
                .map_err(|e| format!("cut at {at} of {end}: {e}{}", shown(&raws)))?;
        }
        Ok(())
    });
    report("short", &counts, wanted / 2);
}

#[test]
fn random_cuts_of_long_workloads_leave_a_state_that_was() {
    let bases = bases();
    let counts = Counts::default();
    let wanted = cuts() / 10;
    on_all_cores(wanted / 10, |n| {
        let base = &bases[n as usize % 2];
        let raws = workload(!n, 80);
        let end = length(base, &raws)?;
        let mut dice = Dice::new(n);
        for _ in 0..10 {
            let (at, seed) = (dice.below(end + 1), dice.roll());
            cut(base, &raws, at, seed, &counts)
                .map_err(|e| format!("cut at {at} of {end}, seed {seed}: {e}{}", shown(&raws)))?;
        }
        Ok(())
    });
    report("long", &counts, wanted * 9 / 10);
}

#[test]
fn a_volume_that_loses_power_again_and_again_goes_on_from_a_state_that_was() {
    let bases = bases();
    let counts = Counts::default();
    let wanted = cuts() / 20;
    on_all_cores((wanted / 40).max(1), |n| {
        let mut dice = Dice::new(n ^ 0xa9a1);
        let mut world = bases[n as usize % 2].fork();
        let mut present = Present::new();
        for round in 0..40 {
            let raws: Vec<_> = (0..60).map(|_| Raw::draw(&mut dice)).collect();
            world = world.joined();
            let end = world.disk.operations() + dice.below(400);
            world.disk.cut_at(end);
            let at = |e: String| format!("round {round}: {e}");
            // Now and then the process is killed and the machine goes on.
            let killed = dice.one_in(4);
            if killed {
                world.disk.heal();
                world.disk.kill_at(end);
            }
            let past = live(&world, present, &drawn(&raws), true).map_err(at)?;
            counts.cuts.fetch_add(1, Ordering::Relaxed);
            let crash = if killed { Crash::KeepAll } else { random_crash(&mut dice) };
            let after = match killed {
                true => world.healed(),
                false => world.crash(crash, random_survival(&mut dice)),
            };
            let kept_all = crash == Crash::KeepAll;
            let (now, model, driver) = survive(after, &past, kept_all, &mut dice, &counts).map_err(at)?;
            if dice.one_in(4) {
                driver.volume.close().map_err(|e| at(e.to_string()))?;
            }
            (world, present) = (now, Present { model, inos: driver.inos });
        }
        Ok(())
    });
    report("again and again", &counts, wanted * 9 / 10);
}

#[test]
fn regression_a_segment_that_a_killed_mount_was_making_is_certain_before_records_lie_in_it() {
    let base = World::make(&small());
    // A mount that is killed at its nth operation, so often that segments have to be made.
    for nth in 1..60 {
        let mut world = base.fork();
        for _ in 0..8 {
            world.disk.kill_at(world.disk.operations() + nth);
            drop(world.open());
            world = world.healed();
        }
        let volume = world.open().unwrap_or_else(|e| panic!("killed at {nth}: {e}"));
        volume.mkdir(1, b"kept", 0o755, 0, &Caller::default()).expect("room");
        volume.fsync(1, false).expect("synced");
        drop(volume);
        let world = world.crash(Crash::DropUnsynced, Survival::None);
        let volume = world.open().unwrap_or_else(|e| panic!("killed at {nth}, and the power went: {e}"));
        assert!(volume.lookup(1, b"kept").expect("whole").is_some(), "killed at {nth}");
    }
}

/// What one of many writers knows: its file's length, of which so much is certain.
#[derive(Clone, Copy, Default)]
struct Appended {
    written: u64,
    certain: u64,
}

/// Appends to a file of its own, with other changes around it, until the power goes.
fn append_until_cut(volume: &Volume, writer: u8) -> Appended {
    let mut appended = Appended::default();
    let mut go_on = || -> Result<(), Error> {
        let caller = Caller::default();
        let ino = volume.create(1, &[writer], 0o644, 0, &caller)?.ino;
        for n in 0.. {
            let bytes = noise(writer.into(), 100_000 + 1_000 * n as usize);
            let part = &bytes[appended.written as usize..][..700 + n as usize * 13 % 2_000];
            volume.write(ino, appended.written, part, false)?;
            appended.written += part.len() as u64;
            let beside = [b'x', writer];
            match n % 4 {
                0 => drop(volume.create(1, &beside, 0o644, 0, &caller).map(|attr| volume.release(attr.ino))?),
                1 => volume.rename(1, &beside, 1, &[b'y', writer], RenameMode::Replace)?,
                2 => {
                    volume.fsync(ino, false)?;
                    appended.certain = appended.written;
                }
                _ => volume.unlink(1, &[b'y', writer])?,
            }
            if appended.written > 90_000 {
                break;
            }
        }
        Ok(())
    };
    let _ = go_on();
    appended
}

#[test]
fn what_many_threads_made_certain_survives_a_power_cut() {
    let base = World::make(&MakeOptions { journal_size: 512 << 10, ..small() });
    let rounds = (cuts() / 1_250).max(8);
    let mut lost_some = 0;
    for round in 0..rounds {
        let mut dice = Dice::new(round);
        let world = base.fork();
        let volume = world.open_in_background().expect("mount");
        world.disk.cut_at(20 + dice.below(800));
        let writers: Vec<Appended> = std::thread::scope(|scope| {
            let writers = (0..4u8).map(|n| {
                scope.spawn({
                    let volume = &volume;
                    move || append_until_cut(volume, b'a' + n)
                })
            });
            let writers: Vec<_> = writers.collect();
            writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
        });
        drop(volume);
        let crash = random_crash(&mut dice);
        let after = world.crash(crash, random_survival(&mut dice));
        let volume = after.open().unwrap_or_else(|e| panic!("round {round}: {e}"));
        for (n, writer) in (b'a'..).zip(&writers) {
            let attr = volume.lookup(1, &[n]).expect("lookup");
            let size = attr.map_or(0, |attr| attr.size);
            assert!(size >= writer.certain, "round {round}, {crash:?}: {size} of {} bytes", writer.certain);
            lost_some += u32::from(size < writer.written);
            if let Some(attr) = attr {
                let bytes = volume.read(attr.ino, 0, size as u32).expect("read");
                assert!(bytes == noise(n.into(), size as usize), "round {round}, {crash:?}: other bytes");
            }
        }
        volume.close().expect("close");
        consistent(&after).unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
    assert!(u64::from(lost_some) * 4 > rounds, "{lost_some} files lost something in {rounds} rounds");
}

/// Prints what was done. Cases in which nothing was at stake would prove nothing.
fn report(what: &str, counts: &Counts, least: u64) {
    let [cuts, again, lost, kept] = told(what, counts, least);
    assert!(again * 5 > cuts && lost * 50 > cuts && kept * 20 > cuts);
}

/// As [`report`]; gives cuts, those in recoveries, and how many lost something and kept all.
pub(super) fn told(what: &str, counts: &Counts, least: u64) -> [u64; 4] {
    let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let (cuts, again) = (of(&counts.cuts), of(&counts.again));
    let (lost, kept) = (of(&counts.lost_some), of(&counts.kept_all));
    println!(
        "{what}: {cuts} cuts, {again} more in recoveries; {lost} lost something unsynced, {kept} kept all"
    );
    assert!(cuts >= least, "{cuts} cuts, wanted {least}");
    [cuts, again, lost, kept]
}

#[test]
fn control_a_disk_that_lies_about_syncs_is_found_out() {
    let (bases, counts, found_out) = (bases(), Counts::default(), AtomicU64::new(0));
    on_all_cores(20, |n| {
        let world = bases[n as usize % 2].fork();
        world.disk.lie();
        let past = live(&world, Present::new(), &drawn(&workload(n ^ 0x11e, 20)), true)?;
        let after = world.crash(Crash::DropUnsynced, Survival::None);
        let lost = check(after, &past, false, &mut Dice::new(n), &counts).is_err();
        found_out.fetch_add(u64::from(lost), Ordering::Relaxed);
        Ok(())
    });
    assert!(found_out.into_inner() >= 10, "it was believed");
}
