//! A disk that fails: each of its operations in turn, in each way it can. The caller is told, the volume stops taking
//! writes where its state would be in doubt and says so once, reads go on, and what was acknowledged is there when the
//! disk is well again.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_store::disk::{Crash, Failure};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::driver::Driver;
use cairn_tests::engine::Survival;
use cairn_tests::logged::logged;
use cairn_tests::model::{Body, Model};
use cairn_tests::mounted::wait_until;
use cairn_tests::ops::{Answer, Op, Raw};
use cairn_tests::tree;
use cairn_tests::world::{SMALL_RECORD, World, small};
use cairn_volume::{Caller, Error, MakeOptions, OpenError, ReadOnly};

use super::crash::{
    Counts, Past, SIZES, check, consistent, learnt, on_all_cores, random_crash, random_survival, same_holes,
};

/// What the journal logs when it stops.
const STOPPED: &str = "the volume takes no more writes";

#[derive(Clone, Copy, Debug)]
enum Step {
    Do(Raw),
    Remount,
}

/// Operations of all kinds, with folds, checkpoints, fsyncs and a remount among them.
fn workload(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let mut steps: Vec<Step> = (0..14 + dice.below(12)).map(|_| Step::Do(Raw::draw(&mut dice))).collect();
    let of_kind = |kind: u8, dice: &mut Dice| Step::Do(Raw { kind, ..Raw::draw(dice) });
    let mut put =
        |step: Step, dice: &mut Dice| steps.insert(dice.below(steps.len() as u64 + 1) as usize, step);
    const KINDS: [u8; 8] = [0, 110, 140, 235, 235, 242, 242, 250];
    for kind in KINDS {
        let step = of_kind(kind, &mut dice);
        put(step, &mut dice);
    }
    put(Step::Remount, &mut dice);
    steps
}

/// How one of the disk's operations fails.
#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: ErrorKind,
    failure: Failure,
    sticky: bool,
}

/// How any operation fails; and those that are no syncs, and syncs.
const ANY: &[Fault] = &[
    Fault { kind: ErrorKind::Other, failure: Failure::Nothing, sticky: false },
    Fault { kind: ErrorKind::StorageFull, failure: Failure::Nothing, sticky: false },
    Fault { kind: ErrorKind::Other, failure: Failure::Done, sticky: false },
    Fault { kind: ErrorKind::Other, failure: Failure::Nothing, sticky: true },
];
const CHANGE: &[Fault] = &[Fault { kind: ErrorKind::StorageFull, failure: Failure::Short, sticky: false }];
const SYNC: &[Fault] = &[
    Fault { kind: ErrorKind::Other, failure: Failure::Forgotten, sticky: false },
    Fault { kind: ErrorKind::Other, failure: Failure::Forgotten, sticky: true },
];

/// A workload under way.
struct Run<'a> {
    world: &'a World,
    sticky: bool,
    model: Model,
    driver: Option<Driver>,
    past: Past,
    /// Mounts that stopped taking writes.
    stopped: usize,
    /// Mounts that did not come to be.
    unmounted: usize,
}

impl<'a> Run<'a> {
    /// Does the workload until it ends, or there is no mount any more.
    fn new(world: &'a World, sticky: bool) -> Run<'a> {
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let model = Model::new(owner.0, owner.1);
        Run {
            world,
            sticky,
            past: Past { states: vec![model.clone()], ..Past::default() },
            model,
            driver: None,
            stopped: 0,
            unmounted: 0,
        }
    }

    /// Whether a fault may be why something failed that began when so many had been met.
    fn is_excused(&self, met: u64) -> bool {
        let now = self.world.disk.faults_hit();
        now > met || (self.sticky && now > 0)
    }

    fn mount(&mut self) -> Result<(), String> {
        let met = self.world.disk.faults_hit();
        let volume = match self.world.open() {
            Ok(volume) => volume,
            Err(OpenError::Failed { .. } | OpenError::Damaged { .. }) if self.is_excused(met) => {
                self.unmounted += 1;
                return Ok(());
            }
            Err(error) => return Err(format!("not mounted: {error}")),
        };
        let found = tree::of_volume(&volume).map_err(|e| format!("mounted again: {e}"))?;
        let last = self.past.states.last().cloned();
        let mut candidates = last.into_iter().chain(std::mem::take(&mut self.past.in_flight));
        let learnt = candidates.find_map(|m| learnt(&volume, &m.remounted(), &found));
        let (model, driver) = learnt.ok_or("mounted again: it is not what it was")?;
        self.past.states.push(model.clone());
        self.model = model;
        self.driver = Some(driver);
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.volume.is_read_only())
    }

    fn close(&mut self) -> Result<(), String> {
        let met = self.world.disk.faults_hit();
        let stopped = self.is_stopped();
        let Some(driver) = self.driver.take() else { return Ok(()) };
        match driver.volume.close() {
            Ok(()) if stopped => return Err("a volume that stopped was closed in order".into()),
            Ok(()) => self.past.certain = self.past.states.len() - 1,
            Err(_) if stopped || self.is_excused(met) => {}
            Err(error) => return Err(format!("closing: {error}")),
        }
        self.stopped += usize::from(is_stopped_by_failure(&driver));
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Remount => {
                self.close()?;
                self.mount()
            }
            Step::Do(raw) => {
                let op = raw.resolve(&self.model, &SIZES);
                self.operate(&op).map_err(|e| format!("{op:?}: {e}"))
            }
        }
    }

    fn operate(&mut self, op: &Op) -> Result<(), String> {
        let (met, was_stopped) = (self.world.disk.faults_hit(), self.is_stopped());
        let Some(driver) = &mut self.driver else { return Ok(()) };
        let next = self.model.next_id();
        let found = driver.apply(op, next);
        self.past.issued.extend(driver.inos.get(&next));
        let mut after = self.model.clone();
        let expected = op.on_model(&mut after);
        let steps = op.steps(&self.model, SMALL_RECORD);
        let may_fail = was_stopped || self.is_stopped() || self.is_excused(met);
        let refused = matches!(found, Answer::Failed(Error::Io | Error::ReadOnly | Error::NoSpace));
        if found == expected {
            if was_stopped && changes(op) && !matches!(found, Answer::Failed(_)) {
                return Err(format!("a volume that stopped taking writes answers {found:?}"));
            }
            self.past.states.extend(steps);
            self.past.states.push(after.clone());
            self.model = after;
            if op.is_sync() && found == Answer::Done {
                self.past.certain = self.past.states.len() - 1;
            }
            return Ok(());
        }
        if !refused || !may_fail {
            return Err(format!("should be {expected:?}, is {found:?}"));
        }
        if was_stopped && reads(op) {
            return Err(format!("a volume that stopped taking writes still reads: {found:?}"));
        }
        self.after_failure(steps, after, was_stopped)
    }

    /// What failed changed nothing, or a long write's first records.
    fn after_failure(&mut self, steps: Vec<Model>, after: Model, was_stopped: bool) -> Result<(), String> {
        let Some(driver) = &self.driver else { return Ok(()) };
        let found = tree::of_volume(&driver.volume).map_err(|e| format!("after it failed: {e}"))?;
        let is = |m: &&Model| same(m, &found) && same_nameless(m, driver) && same_holes(m, driver);
        let state = std::iter::once(&self.model).chain(steps.iter().rev()).find(is);
        let state = state.ok_or("after it failed: neither what was nor a part of what was to be")?.clone();
        if !was_stopped && self.is_stopped() {
            self.past.in_flight = steps;
            self.past.in_flight.push(after);
        }
        self.past.states.push(state.clone());
        self.model = state;
        Ok(())
    }

    /// What can be said of the mount that the faults left.
    fn look_around(&mut self) -> Result<(), String> {
        let Some(driver) = &self.driver else { return Ok(()) };
        driver.compare(&self.model).map_err(|e| format!("what is read in the end: {e}"))?;
        let stopped = match driver.volume.read_only() {
            Some(ReadOnly::Stopped(reason)) => !reason.is_empty(),
            Some(ReadOnly::Asked) => return Err("nobody asked for a read-only mount".into()),
            None => false,
        };
        if stopped && driver.volume.fsync(1, false).is_ok() {
            // Only where there was nothing left to be made certain, which the crash behind this looks into.
            self.past.certain = self.past.states.len() - 1;
        }
        Ok(())
    }
}

fn is_stopped_by_failure(driver: &Driver) -> bool {
    match driver.volume.read_only() {
        Some(ReadOnly::Stopped(reason)) => reason != "the volume is closed",
        _ => false,
    }
}

fn same(model: &Model, found: &tree::Tree) -> bool {
    tree::difference(&tree::of_model(model), found).is_none()
}

/// Whether files that are open without a name hold what they do in the model.
fn same_nameless(model: &Model, driver: &Driver) -> bool {
    model.nodes().filter(|(_, node)| node.nlink == 0).all(|(id, node)| {
        let (Body::File(content), Some(ino)) = (&node.body, driver.inos.get(&id)) else { return true };
        let size = driver.volume.getattr(*ino).map(|attr| attr.size);
        size == Ok(content.size)
            && tree::read_all(&driver.volume, *ino, content.size).is_ok_and(|found| found == *content)
    })
}

/// Whether it changes nothing.
fn reads(op: &Op) -> bool {
    matches!(
        op,
        Op::Read { .. }
            | Op::Seek { .. }
            | Op::List { .. }
            | Op::Lookup { .. }
            | Op::Open { truncate: None, .. }
            | Op::Release { .. }
    )
}

/// Whether it changes what the volume holds when it succeeds.
fn changes(op: &Op) -> bool {
    match op {
        Op::Fsync { .. } | Op::Sync | Op::Upkeep(_) => false,
        // Of nothing, or from behind the end.
        Op::Write { len, .. } => *len > 0,
        Op::Copy { .. } => false,
        _ => !reads(op),
    }
}

/// One workload on a disk that was told how to fail.
fn go(world: &World, steps: &[Step], sticky: bool, dice: &mut Dice, counts: &Counts) -> Result<(), String> {
    let (ran, log) = logged(|| {
        let mut run = Run::new(world, sticky);
        run.mount()?;
        for (i, step) in steps.iter().enumerate() {
            run.step(step).map_err(|e| format!("step {i}: {e}"))?;
            if run.driver.is_none() {
                break;
            }
        }
        run.look_around()?;
        if dice.one_in(2) {
            run.close()?;
        } else if let Some(driver) = run.driver.take() {
            run.stopped += usize::from(is_stopped_by_failure(&driver));
        }
        Ok::<_, String>(run)
    });
    let run = ran?;
    let said = log.iter().filter(|line| line.starts_with(STOPPED)).count();
    if said < run.stopped || said > run.stopped + run.unmounted {
        return Err(format!("{} mounts stopped taking writes, the log says so {said} times", run.stopped));
    }
    counts.cuts.fetch_add(1, Ordering::Relaxed);
    recovered(world, run, dice, counts)
}

/// The disk is well again; the process, and now and then the machine, begins anew.
fn recovered(world: &World, run: Run<'_>, dice: &mut Dice, counts: &Counts) -> Result<(), String> {
    if dice.one_in(2) {
        // What the process wrote is there, on the disk or not.
        world.disk.heal();
        let mut again = Run { driver: None, sticky: false, ..run };
        again.mount().map_err(|e| format!("on a disk that is well again: {e}"))?;
        let Some(driver) = again.driver.take() else { return Err("no mount".into()) };
        driver.volume.fsync(1, false).map_err(|e| format!("on a disk that is well again: {e}"))?;
        drop(driver);
        let past = Past { states: vec![again.model], issued: again.past.issued, ..Past::default() };
        let after = world.crash(Crash::DropUnsynced, random_survival(dice));
        return check(after, &past, false, dice, counts)
            .map_err(|e| format!("without power after that: {e}"));
    }
    let crash = if dice.one_in(2) { Crash::KeepAll } else { random_crash(dice) };
    let after = world.crash(crash, if dice.one_in(4) { Survival::None } else { Survival::All });
    check(after, &run.past, crash == Crash::KeepAll, dice, counts).map_err(|e| format!("{crash:?}: {e}"))
}

fn workloads() -> u64 {
    std::env::var("CAIRN_ERRORS").ok().and_then(|n| n.parse().ok()).unwrap_or(50)
}

fn bases() -> [World; 2] {
    [World::make(&small()), World::make(&MakeOptions { journal_size: 512 << 10, ..small() })]
}

/// Of each operation of the disk that a workload takes when nothing fails, whether it is a sync; and its reads.
fn length(base: &World, steps: &[Step]) -> Result<(Vec<bool>, u64), String> {
    let world = base.fork();
    let mut run = Run::new(&world, false);
    run.mount()?;
    steps.iter().try_for_each(|step| run.step(step))?;
    run.look_around()?;
    run.close()?;
    Ok((world.disk.syncs(), world.disk.reads()))
}

fn shown(steps: &[Step]) -> String {
    let mut model = Model::new(0, 0);
    let mut text = String::new();
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Do(raw) => {
                let op = raw.resolve(&model, &SIZES);
                op.on_model(&mut model);
                text += &format!("\n  {i}: {op:?}");
            }
            Step::Remount => {
                model = model.remounted();
                text += &format!("\n  {i}: remount");
            }
        }
    }
    text
}

#[test]
fn every_failure_of_the_disk_is_told_and_what_was_acknowledged_stays() {
    let (bases, counts, operations) = (bases(), Counts::default(), AtomicU64::new(0));
    on_all_cores(workloads(), |n| {
        let (base, steps) = (&bases[n as usize % 2], workload(n));
        let (syncs, _) = length(base, &steps).map_err(|e| format!("{e}{}", shown(&steps)))?;
        operations.fetch_add(syncs.len() as u64, Ordering::Relaxed);
        for (at, is_sync) in (0u64..).zip(&syncs) {
            let more = if *is_sync { SYNC } else { CHANGE };
            for (i, fault) in ANY.iter().chain(more).enumerate() {
                let world = base.fork();
                world.disk.fail(at, fault.kind, fault.failure, fault.sticky);
                let mut dice = Dice::new(n << 32 | at << 4 | i as u64);
                go(&world, &steps, fault.sticky, &mut dice, &counts)
                    .map_err(|e| format!("{fault:?} at {at} of {}: {e}{}", syncs.len(), shown(&steps)))?;
            }
        }
        Ok(())
    });
    let (runs, operations) = (counts.cuts.into_inner(), operations.into_inner());
    println!("{runs} runs, each failing one of {operations} operations");
    assert!(runs >= operations * ANY.len() as u64);
}

#[test]
fn every_failure_of_a_read_is_told_or_mended_and_changes_nothing() {
    let (bases, counts) = (bases(), Counts::default());
    on_all_cores(workloads(), |n| {
        let (base, steps) = (&bases[n as usize % 2], workload(n ^ 0x4ead));
        let (_, end) = length(base, &steps).map_err(|e| format!("{e}{}", shown(&steps)))?;
        for at in 0..end {
            let world = base.fork();
            world.disk.fail_read_at(at, ErrorKind::Other);
            let mut dice = Dice::new(n << 32 | at);
            go(&world, &steps, false, &mut dice, &counts)
                .map_err(|e| format!("read {at} of {end}: {e}{}", shown(&steps)))?;
        }
        Ok(())
    });
    println!("{} runs, each failing one read", counts.cuts.into_inner());
}

#[test]
fn a_disk_that_others_fill_while_it_folds_takes_writes_again_once_there_is_room() {
    let base = World::make(&MakeOptions { journal_size: 512 << 10, ..small() });
    let full = AtomicU64::new(0);
    on_all_cores(40, |n| {
        let world = base.fork();
        let volume = world.open().map_err(|e| e.to_string())?;
        let caller = Caller::default();
        let put = |name: &str, bytes: &[u8]| -> Result<(), Error> {
            let attr = volume.create(1, name.as_bytes(), 0o644, 0, &caller)?;
            volume.release(attr.ino);
            volume.write(attr.ino, 0, bytes, false)
        };
        put("before", &noise(n, 60_000)).map_err(|e| e.to_string())?;
        world.disk.fill_at(world.disk.operations() + n);
        full.fetch_add(u64::from(volume.maintain().is_err()), Ordering::Relaxed);
        // Whatever is asked for now is done, or refused for want of room.
        let mut acknowledged = Vec::new();
        for i in 0..12u64 {
            match put(&format!("{i}"), &noise(100 + i, 30_000)) {
                Ok(()) => acknowledged.push(i),
                Err(Error::NoSpace) => {}
                Err(error) => return Err(format!("on a full disk: {error}")),
            }
        }
        if volume.is_read_only() {
            return Err("a full disk is no reason to stop".into());
        }
        world.disk.set_capacity(1 << 40);
        // The volume asks its disk for room now and then only.
        wait_until("it takes writes again", || match put("behind", &noise(n + 50, 30_000)) {
            Err(Error::Exists) => {
                let attr = volume.lookup(1, b"behind").expect("lookup").expect("it was made");
                volume.write(attr.ino, 0, &noise(n + 50, 30_000), false).is_ok()
            }
            done => done.is_ok(),
        });
        volume.sync().map_err(|e| format!("with room again: {e}"))?;
        let holds = |name: &str, bytes: &[u8]| {
            let attr = volume.lookup(1, name.as_bytes()).ok().flatten();
            attr.is_some_and(|attr| volume.read(attr.ino, 0, 100_000).as_deref() == Ok(bytes))
        };
        let whole = acknowledged.iter().all(|i| holds(&format!("{i}"), &noise(100 + i, 30_000)));
        if !whole || !holds("before", &noise(n, 60_000)) || !holds("behind", &noise(n + 50, 30_000)) {
            return Err("something that was acknowledged is not there".into());
        }
        volume.close().map_err(|e| format!("closing: {e}"))?;
        consistent(&world)
    });
    assert!(full.into_inner() >= 5, "hardly a fold met the full disk");
}
