//! Every operation, against the model: results, errors, and whole trees, across folds and mounts.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use cairn_store::disk::Crash;
use cairn_tests::dice::{Dice, noise};
use cairn_tests::driver::Driver;
use cairn_tests::engine::Survival;
use cairn_tests::model::{Id, Model, ROOT};
use cairn_tests::ops::{Raw, Sizes};
use cairn_tests::watchdog::watch;
use cairn_tests::world::{SMALL_RECORD, World, small};
use cairn_volume::{Caller, Dedup, Error, OpenOptions, RenameMode, SetAttr, Volume};
use fsck_cairn::{CheckOptions, Quiet, Severity};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const SIZES: Sizes = Sizes { write: 20_000, file: 60_000, sparse: 3 << 20 };

/// A step of a case.
#[derive(Clone, Copy, Debug)]
enum Step {
    Do(Raw),
    /// Closed, and mounted again.
    Remount,
    /// The process died: mounted again with what is left of the engine.
    Killed(Survival),
    /// The process died; before it is mounted again it is mounted to be read only.
    Looked(Survival),
}

/// A case: how the volume is mounted, and what is done to it.
#[derive(Clone, Debug)]
struct Case {
    /// Opens are not told, as most kernels have it.
    forgets: bool,
    dedup: Dedup,
    steps: Vec<Step>,
}

impl Case {
    fn of(steps: Vec<Step>) -> Case {
        Case { forgets: false, dedup: Dedup::On, steps }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let raw = (any::<u8>(), any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>())
        .prop_map(|(kind, a, b, c, d)| Step::Do(Raw { kind, a, b, c, d }));
    let survival =
        prop_oneof![Just(Survival::All), (1usize..4).prop_map(Survival::Older), Just(Survival::None)].boxed();
    let step = prop_oneof![
        120 => raw,
        3 => Just(Step::Remount),
        3 => survival.clone().prop_map(Step::Killed),
        1 => survival.prop_map(Step::Looked),
    ];
    let dedup = prop_oneof![6 => Just(Dedup::On), 1 => Just(Dedup::Verify), 1 => Just(Dedup::Off)];
    let steps = prop::collection::vec(step, 1..100);
    (any::<bool>(), dedup, steps).prop_map(|(forgets, dedup, steps)| Case { forgets, dedup, steps })
}

/// The model of a volume that was just made.
pub(super) fn root_model(driver: &Driver) -> Model {
    let root = driver.volume.getattr(1).expect("the root");
    Model::new(root.uid, root.gid)
}

/// A machine with a volume, and how it is mounted.
struct Machine {
    world: World,
    forgets: bool,
    dedup: Dedup,
}

impl Machine {
    fn mount(&self, read_only: bool) -> Result<Arc<Volume>, String> {
        let options = OpenOptions {
            index_mem: 1 << 20,
            cache_size: 1 << 20,
            dedup: self.dedup,
            read_only,
            ..OpenOptions::default()
        };
        self.world.open_with(options).map_err(|e| e.to_string())
    }

    fn drive(&self, inos: HashMap<Id, u64>) -> Result<Driver, String> {
        let driver = Driver::new(self.mount(false)?, inos);
        Ok(if self.forgets { driver.forgetting() } else { driver })
    }

    /// The end of a mount, and the next, which changes nothing that anybody can see.
    fn again(&mut self, driver: Driver, model: &mut Model, step: &Step) -> Result<Driver, String> {
        let before = driver.compare(model).map_err(|e| format!("before it: {e}"))?;
        let Driver { volume, inos, .. } = driver;
        match step {
            Step::Killed(survival) | Step::Looked(survival) => {
                self.world.engine = self.world.engine.surviving(*survival);
            }
            Step::Remount | Step::Do(_) => volume.close().map_err(|e| format!("close: {e}"))?,
        }
        drop(volume);
        *model = model.remounted();
        if let Step::Looked(_) = step {
            let looked = Driver::new(self.mount(true)?, inos.clone());
            let found = looked.compare(model).map_err(|e| format!("mounted read-only: {e}"))?;
            if before != found {
                return Err("times, numbers or the like are others to read".into());
            }
        }
        let driver = self.drive(inos)?;
        let after = driver.compare(model).map_err(|e| format!("after it: {e}"))?;
        if before != after {
            return Err("times, numbers or the like changed by a mount".into());
        }
        Ok(driver)
    }
}

fn run(base: &World, case: &Case) -> Result<(), String> {
    let mut machine = Machine { world: base.fork(), forgets: case.forgets, dedup: case.dedup };
    let mut driver = machine.drive(HashMap::from([(ROOT, 1)]))?;
    let mut model = root_model(&driver);
    for (i, step) in case.steps.iter().enumerate() {
        let Step::Do(raw) = step else {
            driver =
                machine.again(driver, &mut model, step).map_err(|e| format!("step {i}: {step:?}: {e}"))?;
            continue;
        };
        let op = raw.resolve(&model, &SIZES);
        let next = model.next_id();
        let found = driver.apply(&op, next);
        let expected = op.on_model(&mut model);
        if found != expected {
            return Err(format!("step {i}: {op:?}: should be {expected:?}, is {found:?}"));
        }
        driver.settle(&model);
    }
    let driver = machine.again(driver, &mut model, &Step::Remount).map_err(|e| format!("at the end: {e}"))?;
    driver.volume.sync().map_err(|e| format!("sync: {e}"))?;
    let (counted, there) = (driver.volume.usage().files, model.nodes().count() as u64);
    if counted != there {
        return Err(format!("{counted} inodes are counted, there are {there}"));
    }
    driver.volume.close().map_err(|e| format!("close: {e}"))?;
    // Not after each: it takes as long as the case did.
    if case.steps.len().is_multiple_of(8) { fsck_is_clean(&machine.world) } else { Ok(()) }
}

/// That fsck finds nothing wrong with a volume that nobody has mounted.
fn fsck_is_clean(world: &World) -> Result<(), String> {
    let report = fsck_cairn::check(&world.disk, world.store_disk(), None, &CheckOptions::default(), &Quiet)
        .map_err(|e| format!("fsck: {e}"))?;
    let wrong = report.findings.iter().find(|f| f.severity > Severity::Info);
    wrong.map_or(Ok(()), |finding| Err(format!("fsck: {finding:?}")))
}

fn case_count() -> u32 {
    std::env::var("CAIRN_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

/// Calls `part` on each core with its share of `cases`.
fn on_all_cores(cases: u32, part: impl Fn(u32) + Sync) {
    let cores = thread::available_parallelism().map_or(1, |n| n.get() as u32);
    thread::scope(|scope| {
        let parts: Vec<_> = (0..cores).map(|_| scope.spawn(|| part(cases.div_ceil(cores)))).collect();
        // The first panic with its own words.
        let failed = parts.into_iter().filter_map(|part| part.join().err()).next();
        if let Some(panic) = failed {
            std::panic::resume_unwind(panic);
        }
    });
}

/// 50 steps a case on average.
#[test]
fn a_volume_is_what_the_model_is() {
    let _watchdog = watch("the test of the model", 30 + u64::from(case_count()) / 2_000);
    let base = World::make(&small());
    on_all_cores(case_count(), |count| {
        let config =
            Config { cases: count, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
        let outcome =
            TestRunner::new(config).run(&cases(), |case| run(&base, &case).map_err(TestCaseError::fail));
        if let Err(error) = outcome {
            panic!("{error}");
        }
    });
}

#[test]
fn a_long_workload_on_a_short_journal_is_what_the_model_is() {
    let base = World::make(&cairn_volume::MakeOptions { journal_size: 512 << 10, ..small() });
    for seed in 0..u64::from(case_count()).div_ceil(250) {
        let mut dice = Dice::new(seed);
        let mut step = || match dice.below(150) {
            0 => Step::Remount,
            1 => Step::Killed(Survival::None),
            _ => Step::Do(Raw::draw(&mut dice)),
        };
        let steps: Vec<_> = (0..600).map(|_| step()).collect();
        if let Err(error) = run(&base, &Case { forgets: seed % 2 == 1, ..Case::of(steps) }) {
            panic!("seed {seed}: {error}");
        }
    }
}

#[test]
fn the_operations_drawn_are_of_every_kind_and_mostly_succeed() {
    let mut model = Model::new(0, 0);
    let mut dice = Dice::new(1);
    let mut kinds = std::collections::BTreeMap::<String, (u32, u32)>::new();
    for _ in 0..20_000 {
        let op = Raw::draw(&mut dice).resolve(&model, &SIZES);
        let name = format!("{op:?}").split([' ', '{', '(']).next().unwrap_or_default().to_owned();
        let failed = matches!(op.on_model(&mut model), cairn_tests::ops::Answer::Failed(_));
        let count = kinds.entry(name).or_default();
        count.0 += 1;
        count.1 += u32::from(!failed);
    }
    assert_eq!(kinds.len(), 23, "{kinds:?}");
    assert!(kinds.values().all(|(all, good)| good * 5 > *all), "{kinds:?}");
    assert!(model.names(ROOT).is_ok());
}

/// Where a directory is moved is found out by going up from there, and who is removed has nobody above it any more.
#[test]
fn regression_nothing_is_moved_into_a_directory_that_was_removed_with_those_above_it() {
    let world = World::make(&small());
    let volume = world.open().expect("a new volume");
    let made = |parent, name: &str| {
        volume.mkdir(parent, name.as_bytes(), 0o755, 0, &Caller::default()).expect("a new name").ino
    };
    let above = made(1, "above");
    let removed = made(above, "removed");
    made(1, "moved");
    volume.open(removed).expect("held");
    volume.rmdir(above, b"removed").expect("it is empty");
    volume.rmdir(1, b"above").expect("it is empty");
    let rename = || volume.rename(1, b"moved", removed, b"there", RenameMode::Replace);
    assert_eq!(rename(), Err(Error::NotFound));
    volume.release(removed);
    assert_eq!(rename(), Err(Error::Stale));
}

/// What is folded of bytes that were cut off since is nothing, and changes nothing: their journal goes all the same.
#[test]
fn regression_a_journal_full_of_what_was_cut_off_takes_writes_again() {
    let world = World::make(&cairn_volume::MakeOptions { journal_size: 512 << 10, ..small() });
    let volume = world.open().expect("a new volume");
    let caller = Caller::default();
    let made = |name: &[u8]| volume.mknod(1, name, 0o100_644, 0, 0, &caller).expect("a new name").ino;
    let files: Vec<u64> = (0..7).map(|n| made(&[b'a' + n])).collect();
    let other = made(b"other");
    let bytes = noise(1, SMALL_RECORD);
    for round in 0..4 {
        // More than one batch of folding takes, and as much as goes in before anything has to be.
        for &ino in &files {
            for n in 0..4 {
                let written = volume.write(ino, n * SMALL_RECORD as u64, &bytes, false);
                written.unwrap_or_else(|e| panic!("round {round}, record {n}: {e}"));
            }
        }
        for &ino in &files {
            volume.setattr(ino, &SetAttr { size: Some(0), ..SetAttr::default() }, &caller).expect("cut off");
        }
        for _ in 0..4 {
            volume.maintain().expect("maintains");
        }
        assert_eq!(volume.usage().journal_used, 0, "nothing is to be folded");
        let used = volume.statistics().journal_used;
        assert!(used <= 64 << 10, "{used} bytes of the journal are in use");
        // And nobody misses what went once something else lies there.
        for n in 0..24 {
            volume.write(other, n * SMALL_RECORD as u64, &bytes, false).expect("there is room");
        }
        let again = world.fork().crash(Crash::KeepAll, Survival::None);
        fsck_is_clean(&again).expect("nothing is wrong");
        let after = again.open().unwrap_or_else(|e| panic!("round {round}: {e}"));
        let size = |ino| after.getattr(ino).expect("there").size;
        assert_eq!(files.iter().map(|ino| size(*ino)).sum::<u64>(), 0);
        assert_eq!(size(other), 24 * SMALL_RECORD as u64);
    }
    volume.close().expect("closed");
}
