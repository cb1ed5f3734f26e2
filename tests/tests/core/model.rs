//! Every operation, against the model: results, errors, and whole trees, across folds and mounts.

use cairn_tests::dice::Dice;
use cairn_tests::driver::Driver;
use cairn_tests::engine::Survival;
use cairn_tests::model::{Model, ROOT};
use cairn_tests::ops::{Raw, Sizes};
use cairn_tests::world::{World, small};
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
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let raw = (any::<u8>(), any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>())
        .prop_map(|(kind, a, b, c, d)| Step::Do(Raw { kind, a, b, c, d }));
    let survival =
        prop_oneof![Just(Survival::All), (1usize..4).prop_map(Survival::Older), Just(Survival::None)];
    let step = prop_oneof![
        40 => raw,
        1 => Just(Step::Remount),
        1 => survival.prop_map(Step::Killed),
    ];
    prop::collection::vec(step, 1..60)
}

/// The model of a volume that was just made.
pub(super) fn root_model(driver: &Driver) -> Model {
    let root = driver.volume.getattr(1).expect("the root");
    Model::new(root.uid, root.gid)
}

fn run(base: &World, steps: &[Step]) -> Result<(), String> {
    let mut world = base.fork();
    let mut driver = Driver::empty(world.open().map_err(|e| e.to_string())?);
    let mut model = root_model(&driver);
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Do(raw) => {
                let op = raw.resolve(&model, &SIZES);
                let next = model.next_id();
                let found = driver.apply(&op, next);
                let expected = op.on_model(&mut model);
                if found != expected {
                    return Err(format!("step {i}: {op:?}: should be {expected:?}, is {found:?}"));
                }
            }
            Step::Remount | Step::Killed(_) => {
                let before = driver.compare(&model).map_err(|e| format!("step {i}, before it: {e}"))?;
                let Driver { volume, inos } = driver;
                if let Step::Killed(survival) = step {
                    world.engine = world.engine.surviving(*survival);
                } else {
                    volume.close().map_err(|e| format!("step {i}: close: {e}"))?;
                }
                drop(volume);
                model = model.remounted();
                let volume = world.open().map_err(|e| format!("step {i}: {e}"))?;
                driver = Driver::new(volume, inos);
                let after = driver.compare(&model).map_err(|e| format!("step {i}, after it: {e}"))?;
                if before != after {
                    return Err(format!("step {i}: times, numbers or the like changed by a mount"));
                }
            }
        }
    }
    driver.compare(&model)?;
    let model = model.remounted();
    driver.volume.close().map_err(|e| format!("close: {e}"))?;
    let driver = Driver::new(world.open().map_err(|e| e.to_string())?, driver.inos);
    driver.compare(&model).map_err(|e| format!("after the last mount: {e}"))?;
    driver.volume.sync().map_err(|e| format!("sync: {e}"))?;
    let (counted, there) = (driver.volume.usage().files, model.nodes().count() as u64);
    if counted != there {
        return Err(format!("{counted} inodes are counted, there are {there}"));
    }
    driver.volume.close().map_err(|e| format!("close: {e}"))
}

fn cases(default: u32) -> u32 {
    std::env::var("CAIRN_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn a_volume_is_what_the_model_is() {
    let base = World::make(&small());
    let config = Config {
        cases: cases(2_500),
        failure_persistence: None,
        max_shrink_iters: 3_000,
        ..Config::default()
    };
    let outcome =
        TestRunner::new(config).run(&steps(), |steps| run(&base, &steps).map_err(TestCaseError::fail));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn a_long_workload_on_a_short_journal_is_what_the_model_is() {
    let base = World::make(&cairn_volume::MakeOptions { journal_size: 512 << 10, ..small() });
    for seed in 0..u64::from(cases(2_500)).div_ceil(250) {
        let mut dice = Dice::new(seed);
        let mut step = || match dice.below(150) {
            0 => Step::Remount,
            1 => Step::Killed(Survival::None),
            _ => Step::Do(Raw::draw(&mut dice)),
        };
        let steps: Vec<_> = (0..600).map(|_| step()).collect();
        if let Err(error) = run(&base, &steps) {
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
        let name = format!("{op:?}").split([' ', '{']).next().unwrap_or_default().to_owned();
        let failed = matches!(op.on_model(&mut model), cairn_tests::ops::Answer::Failed(_));
        let count = kinds.entry(name).or_default();
        count.0 += 1;
        count.1 += u32::from(!failed);
    }
    assert_eq!(kinds.len(), 23, "{kinds:?}");
    assert!(kinds.values().all(|(all, good)| good * 5 > *all), "{kinds:?}");
    assert!(model.names(ROOT).is_ok());
}
