//! Running a test under many schedules.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// All tests' schedules together, unless `CAIRN_SCHEDULES` says otherwise.
const USUAL: u64 = 50_000;
/// A schedule that takes longer hangs: it should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// A schedule of more steps goes round in circles.
const STEPS: usize = 100_000;
/// Frames are not optimised much here.
const STACK: usize = 1 << 20;

/// Runs `test` under `share` of every [`USUAL`] schedules: half of them drawn step by step, half with few changes of thread
/// at the worst places (PCT), which finds what takes a long wait of one thread. The schedule that fails is printed;
/// with that in `CAIRN_SCHEDULE`, or in the file that it names, this test runs under it alone.
///
/// Each schedule is one thread's work: tests share nothing but what is behind `std`'s locks.
pub fn explore(share: u64, test: impl Fn() + Send + Sync + Clone + 'static) {
    if let Ok(schedule) = std::env::var("CAIRN_SCHEDULE") {
        let schedule = std::fs::read_to_string(&schedule).unwrap_or(schedule);
        return run(ReplayScheduler::new_from_encoded(schedule.trim()), test);
    }
    let all = match std::env::var("CAIRN_SCHEDULES") {
        Ok(number) => number.parse().expect("CAIRN_SCHEDULES is a number"),
        Err(_) => USUAL,
    };
    let each = usize::try_from((share * all).div_ceil(USUAL * 4)).expect("a number of schedules").max(1);
    run(RandomScheduler::new(2 * each), test.clone());
    run(PctScheduler::new(2, each), test.clone());
    run(PctScheduler::new(3, each), test);
}

/// Runs what only prepares a test: under one schedule, the first.
pub fn once(prepare: impl Fn() + Send + Sync + 'static) {
    run(RandomScheduler::new_from_seed(0, 1), prepare);
}

fn run(scheduler: impl Scheduler + 'static, test: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    // Atomics are taken for sequentially consistent ones: docs/TESTING.md says what that leaves out.
    config.silence_warnings = true;
    let (ended, end) = channel::<()>();
    let begun = Arc::new(AtomicU64::new(0));
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let seen = begun.clone();
    let watch = move || {
        let mut last = 0;
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(PATIENCE) {
            let now = seen.load(Ordering::Relaxed);
            if now == last {
                eprintln!("{name} hangs: it waits for something that its scheduler does not know of");
                std::process::abort();
            }
            last = now;
        }
    };
    std::thread::spawn(watch);
    let counted = move || {
        begun.fetch_add(1, Ordering::Relaxed);
        test();
    };
    Runner::new(scheduler, config).run(counted);
    drop(ended);
}
