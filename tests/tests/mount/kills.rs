//! `kill -9` of the daemon at random moments: what was acknowledged is there after the next mount.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_tests::dice::Dice;
use cairn_tests::mounted::{Mounted, run};

use crate::worker::Worker;

const WORKERS: u64 = 3;

/// A number that the environment may set.
pub(crate) fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// Rounds of load, each ended by a kill; `syncing`: folds and checkpoints are asked for all the time.
fn survive_kills(mkfs: &[&str], syncing: bool) {
    let (kills, seconds) = (from_environment("CAIRN_KILLS", 8), from_environment("CAIRN_KILL_SECONDS", 20));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let seed = from_environment("CAIRN_SEED", clock);
    eprintln!("CAIRN_SEED={seed}");
    let mut dice = Dice::new(seed);
    let m = Mounted::with(mkfs, &[]);
    let mut workers: Vec<_> =
        (0..WORKERS).map(|n| Worker::new(m.path(format!("worker{n}")), seed.wrapping_add(n))).collect();
    for round in 0..kills {
        // Two tests share the seconds.
        let load = Duration::from_millis(1 + dice.below(1000 * seconds / kills.max(1)));
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
            let syncer = syncing.then(|| {
                scope.spawn(|| {
                    while !killed.load(Ordering::Acquire) {
                        // Fails when its daemon is killed.
                        run("cairn", ["sync".as_ref(), m.dir().as_os_str()]);
                    }
                })
            });
            thread::sleep(load);
            killed.store(true, Ordering::Release);
            m.kill();
            for worker in at_work {
                worker.join().expect("every step until the kill was answered");
            }
            if let Some(syncer) = syncer {
                syncer.join().expect("no panic");
            }
        });
        // Mounting takes a dead mount away by itself.
        if round % 2 == 0 {
            m.take_away();
            m.fsck();
        }
        m.mount();
        workers.iter_mut().for_each(Worker::check);
    }
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
    survive_kills(&["--journal-size", "16M", "--segment-size", "1M"], true);
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
