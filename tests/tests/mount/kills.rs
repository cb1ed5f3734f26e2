//! `kill -9` of the daemon at random moments: what was acknowledged is there after the next mount.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_tests::dice::Dice;
use cairn_tests::mounted::{Mounted, SMALL, is_mounted, run};

use crate::tools::Work;
use crate::worker::Worker;

const WORKERS: u64 = 3;

/// A number that the environment may set.
pub(crate) fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// How many kills each of three tests makes.
fn kills() -> u64 {
    from_environment("CAIRN_KILLS", 30).div_ceil(3)
}

/// Dice for a test, by a seed that is told.
fn dice() -> Dice {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let seed = from_environment("CAIRN_SEED", clock);
    eprintln!("CAIRN_SEED={seed}");
    Dice::new(seed)
}

fn workers(m: &Mounted, dice: &mut Dice) -> Vec<Worker> {
    (0..WORKERS).map(|n| Worker::new(m.path(format!("worker{n}")), dice.roll())).collect()
}

/// Has all workers work until the daemon is killed, after `load`. `meanwhile` goes on until it is told of the kill.
fn work_until_killed(
    m: &Mounted,
    workers: &mut [Worker],
    load: Duration,
    meanwhile: impl Fn(&AtomicBool) + Sync,
) {
    let killed = AtomicBool::new(false);
    thread::scope(|scope| {
        let at_work: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                let killed = &killed;
                scope.spawn(move || {
                    let (step, error) = worker.work(usize::MAX).expect("only an error ends it");
                    assert!(killed.load(Ordering::Acquire), "{step} failed before the kill: {error}");
                })
            })
            .collect();
        scope.spawn(|| meanwhile(&killed));
        thread::sleep(load);
        killed.store(true, Ordering::Release);
        m.kill();
        for worker in at_work {
            worker.join().expect("every step until the kill was answered");
        }
    });
}

/// Kills daemons while they replay what the one before them left; how many were at it.
fn kill_in_replay(m: &Mounted, dice: &mut Dice) -> u64 {
    let mut killed = 0;
    for _ in 0..1 + dice.below(4) {
        let mounting = m.begin_to_mount();
        thread::sleep(Duration::from_micros(dice.below(50_000)));
        let replaying = !is_mounted(m.at());
        killed += u64::from(mounting.kill() && replaying);
        if is_mounted(m.at()) {
            m.take_away();
        }
    }
    killed
}

/// Rounds of load, each ended by a kill; `syncing`: folds and checkpoints are asked for all the time.
fn survive_kills(mkfs: &[&str], syncing: bool) {
    let most = 1000 * from_environment("CAIRN_KILL_SECONDS", kills().div_ceil(2)) / kills();
    let mut dice = dice();
    let mut m = Mounted::with(mkfs, &[]);
    let mut workers = workers(&m, &mut dice);
    let mut in_replay = 0;
    for round in 0..kills() {
        m.be_patient();
        let load = Duration::from_millis(1 + dice.below(2 * most));
        work_until_killed(&m, &mut workers, load, |killed| {
            while syncing && !killed.load(Ordering::Acquire) {
                // Fails when its daemon is killed.
                run("cairn", ["sync".as_ref(), m.dir().as_os_str()]);
            }
        });
        // Mounting takes a dead mount away by itself.
        if round % 2 == 0 {
            m.take_away();
            m.fsck();
        }
        if round % 3 == 1 {
            in_replay += kill_in_replay(&m, &mut dice);
        }
        m.mount();
        workers.iter_mut().for_each(Worker::check);
    }
    eprintln!("{} kills, and {in_replay} of daemons that had not mounted yet", kills());
    assert!(in_replay > 0, "no daemon was killed before it had mounted");
    m.unmount();
    m.fsck();
    fs::remove_dir_all(m.dir().join("engine")).expect("an engine");
    fs::remove_file(m.dir().join("store/index")).expect("an index");
    m.mount();
    workers.iter_mut().for_each(Worker::check);
    m.finish();
}

#[test]
fn what_was_acknowledged_survives_kills() {
    survive_kills(&["--journal-size", "64M", "--segment-size", "4M"], false);
}

#[test]
fn what_was_acknowledged_survives_kills_while_folds_and_checkpoints_never_rest() {
    survive_kills(&["--journal-size", "4M", "--segment-size", "256K"], true);
}

#[test]
fn what_many_processes_were_told_survives_kills_and_kills_in_replay() {
    let mut dice = dice();
    let mut m = Mounted::with(&["--journal-size", "8M", "--segment-size", "512K"], &[]);
    let mut workers = workers(&m, &mut dice);
    let mut in_replay = 0;
    for round in 0..kills() {
        m.be_patient();
        let tools = Work::prepare(&m, "mixed", round);
        let at_work = Mutex::new(tools.start());
        let ended = || at_work.lock().expect("nobody panics with it").try_wait().expect("a child");
        let load = Duration::from_millis(100 + dice.below(1_000));
        work_until_killed(&m, &mut workers, load, |killed| {
            while ended().is_none() {
                thread::sleep(Duration::from_millis(5));
            }
            let said = || fs::read_to_string(tools.log()).unwrap_or_default();
            assert!(killed.load(Ordering::Acquire), "a tool failed before the kill: {}", said());
        });
        eprintln!("round {round}, killed after {} ms: {} acknowledgements", load.as_millis(), tools.acks());
        m.take_away();
        if round % 2 == 0 {
            in_replay += kill_in_replay(&m, &mut dice);
        }
        m.fsck();
        m.mount();
        workers.iter_mut().for_each(Worker::check);
        tools.stage("readable");
        tools.stage("verify");
        tools.remove();
    }
    eprintln!("{} kills, and {in_replay} of daemons that had not mounted yet", kills());
    assert!(in_replay > 0, "no daemon was killed before it had mounted");
    m.unmount();
    m.fsck();
    m.mount();
    workers.iter_mut().for_each(Worker::check);
    m.finish();
}

#[test]
fn regression_a_daemon_that_is_killed_the_moment_it_mounts_waits_for_no_answer_of_its_own() {
    let mut dice = dice();
    let m = Mounted::unmounted(&SMALL, &[]);
    for _ in 0..8 * kills() {
        let mounting = m.begin_to_mount();
        while !is_mounted(m.at()) {
            std::hint::spin_loop();
        }
        thread::sleep(Duration::from_micros(dice.below(8_000)));
        // Its end is waited for.
        m.kill();
        mounting.kill();
        m.take_away();
    }
    m.mount();
    m.finish();
}

#[test]
fn a_file_open_without_a_name_is_gone_after_a_kill() {
    let m = Mounted::new();
    let bytes = cairn_tests::dice::noise(1, 4 << 20);
    fs::write(m.path("f"), &bytes).expect("written");
    let file = fs::File::open(m.path("f")).expect("there");
    fs::remove_file(m.path("f")).expect("there");
    m.kill();
    drop(file);
    m.mount();
    assert_eq!(fs::read_dir(m.at()).expect("a directory").count(), 0);
    m.sync();
    assert_eq!((m.df("logical"), m.df("files")), (0, 1), "nothing is left of it but the root");
    m.finish();
}
