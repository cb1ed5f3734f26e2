//! Whole volumes: operations against folds, checkpoints, trims and a failing engine.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cairn_format::key::{self, Key, tag};
use cairn_format::{CheckpointRef, Ino, Lsn, Mutation, View};
use cairn_store::disk::Crash;

use super::machine::{Machine, Watch, Watched};
use crate::checkpoint::checkpoint;
use crate::engine::{Change, Engine, EngineError, MemoryEngine};
use crate::sync::{draw, explore, pause, thread};
use crate::{Caller, EngineChoice, Error, RenameMode, SetAttr, Volume};

const ROOT: u64 = 1;
const CALLER: Caller = Caller { uid: 0, gid: 0 };
/// More than any file here is long.
const ALL: u32 = 1 << 16;

fn make(volume: &Volume, name: &str, content: &[u8]) -> u64 {
    let ino = volume.mknod(ROOT, name.as_bytes(), 0o100644, 0, 0, &CALLER).expect("made").ino;
    volume.write(ino, 0, content, false).expect("written");
    ino
}

fn ino_of(volume: &Volume, name: &str) -> u64 {
    volume.lookup(ROOT, name.as_bytes()).expect("looked up").expect("it is there").ino
}

fn truncate(volume: &Volume, ino: u64, size: u64) {
    volume.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }, &CALLER).expect("truncated");
}

/// Bytes that are others for each seed, and that are cut into several chunks.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

type Threads = Vec<thread::JoinHandle<()>>;

fn join(threads: Threads) {
    threads.into_iter().for_each(|t| t.join().expect("no panic"));
}

fn spawn(volume: &Arc<Volume>, work: impl FnOnce(&Volume) + Send + 'static) -> thread::JoinHandle<()> {
    let volume = volume.clone();
    thread::spawn(move || work(&volume))
}

/// Writes a checkpoint, whatever waits to be folded.
fn checkpoint_now(volume: &Volume) {
    let core = volume.core();
    let mut maintainer = core.maintainer.lock().expect("whole");
    checkpoint(core, &mut maintainer.checkpoints).expect("written");
}

/// What a file may be changed by.
#[derive(Clone)]
enum Step {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl Step {
    fn on(&self, volume: &Volume, ino: u64) {
        match self {
            Step::Write(at, data) => volume.write(ino, *at, data, false).expect("written"),
            Step::Truncate(size) => truncate(volume, ino, *size),
        }
    }

    fn in_memory(&self, content: &mut Vec<u8>) {
        match self {
            Step::Write(at, data) => {
                let (at, end) = (*at as usize, *at as usize + data.len());
                content.resize(content.len().max(end), 0);
                content[at..end].copy_from_slice(data);
            }
            Step::Truncate(size) => content.resize(*size as usize, 0),
        }
    }
}

/// All that a file can be meanwhile, and in the end, where each thread's steps come in its order.
fn outcomes(content: &[u8], threads: &[Vec<Step>]) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
    fn go(
        content: &[u8],
        threads: &[Vec<Step>],
        at: &mut [usize],
        all: &mut BTreeSet<Vec<u8>>,
        last: &mut BTreeSet<Vec<u8>>,
    ) {
        all.insert(content.to_vec());
        let mut ended = true;
        for who in 0..threads.len() {
            let Some(step) = threads[who].get(at[who]) else { continue };
            ended = false;
            let mut next = content.to_vec();
            step.in_memory(&mut next);
            at[who] += 1;
            go(&next, threads, at, all, last);
            at[who] -= 1;
        }
        if ended {
            last.insert(content.to_vec());
        }
    }
    let (mut all, mut last) = Default::default();
    go(content, threads, &mut vec![0; threads.len()], &mut all, &mut last);
    (all, last)
}

#[test]
fn what_is_folded_is_what_was_there_whoever_writes_and_truncates_meanwhile() {
    let before = bytes(1, 3000);
    let content = before.clone();
    let machine = Machine::with(move |volume| {
        make(volume, "f", &content);
    });
    let threads = vec![
        vec![Step::Write(700, bytes(2, 900)), Step::Truncate(1000), Step::Write(2000, bytes(3, 100))],
        vec![Step::Truncate(2500)],
    ];
    let (all, last) = outcomes(&before, &threads);
    explore(3000, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open();
        let ino = ino_of(&volume, "f");
        let writers = threads
            .clone()
            .into_iter()
            .map(|steps| spawn(&volume, move |volume| steps.iter().for_each(|step| step.on(volume, ino))));
        let mut running: Threads = writers.collect();
        running.push(spawn(&volume, |volume| {
            volume.maintain().expect("folded");
            volume.maintain().expect("folded");
        }));
        for _ in 0..2 {
            assert!(all.contains(&volume.read(ino, 0, ALL).expect("read")), "a state that never was");
        }
        join(running);
        let content = volume.read(ino, 0, ALL).expect("read");
        assert!(last.contains(&content), "a state that nobody left");
        volume.fsync(ino, false).expect("synced");
        let crashed = machine.crash(Crash::DropUnsynced);
        volume.sync().expect("folded");
        assert_eq!(volume.read(ino, 0, ALL).expect("read"), content, "folded");
        drop(volume);
        for machine in [crashed, machine.crash(Crash::DropUnsynced)] {
            let volume = machine.open();
            assert_eq!(volume.read(ino, 0, ALL).expect("read"), content, "after a power cut");
        }
    });
}

#[test]
fn a_reader_gets_the_same_bytes_wherever_they_are_moved() {
    let machine = Machine::with(|volume| {
        make(volume, "folded", &bytes(1, 2000));
        volume.sync().expect("folded");
        make(volume, "dirty", &bytes(2, 2000));
    });
    explore(3000, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open();
        let inos = [ino_of(&volume, "folded"), ino_of(&volume, "dirty")];
        let threads = vec![
            spawn(&volume, |volume| {
                checkpoint_now(volume);
                volume.sync().expect("folded");
            }),
            // Goes round in the journal, so that trimmed segments are used again.
            spawn(&volume, |volume| {
                let ino = make(volume, "other", &bytes(3, 100));
                (0..3)
                    .for_each(|n| volume.write(ino, n * 8000, &bytes(n + 4, 8000), false).expect("written"));
                volume.maintain().expect("folded");
                (0..3)
                    .for_each(|n| volume.write(ino, n * 8000, &bytes(n + 9, 8000), false).expect("written"));
            }),
        ];
        for _ in 0..3 {
            for (n, ino) in inos.iter().enumerate() {
                let read = volume.read(*ino, 0, ALL).expect("a file that nobody changes can be read");
                assert!(read == bytes(n as u64 + 1, 2000), "other bytes than were written");
            }
        }
        join(threads);
    });
}

#[test]
fn a_copy_keeps_what_it_names_whatever_becomes_of_its_source() {
    let machine = Machine::with(|volume| {
        make(volume, "from", &bytes(1, 2000));
        make(volume, "to", &[]);
    });
    explore(2000, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open();
        let (from, to) = (ino_of(&volume, "from"), ino_of(&volume, "to"));
        let threads = vec![
            spawn(&volume, move |volume| {
                assert_eq!(volume.copy_range((from, 0), (to, 0), 2000, false), Ok(2000));
            }),
            spawn(&volume, |volume| {
                volume.maintain().expect("folded");
                checkpoint_now(volume);
                volume.maintain().expect("folded");
            }),
            spawn(&volume, move |volume| volume.write(from, 0, &bytes(2, 2000), false).expect("written")),
        ];
        join(threads);
        let copied = volume.read(to, 0, ALL).expect("read");
        assert!(copied == bytes(1, 2000) || copied == bytes(2, 2000), "half of each");
        volume.write(from, 0, &bytes(3, 2000), false).expect("written");
        volume.sync().expect("folded");
        volume.write(from, 0, &bytes(4, 20_000), false).expect("written");
        volume.sync().expect("folded");
        assert!(volume.read(to, 0, ALL).expect("read") == copied, "folded");
        drop(volume);
        let volume = machine.crash(Crash::DropUnsynced).open();
        assert!(volume.read(to, 0, ALL).expect("read") == copied, "after a power cut");
    });
}

/// What checkpoints gave to the engine: up to where each is said to reach, and the keys that this test put.
#[derive(Default)]
struct Applied(Mutex<Vec<Reached>>);

type Reached = (Lsn, Vec<Vec<u8>>);

/// A record's number, and the key that it puts.
type Record = (Lsn, Vec<u8>);

impl Watch for Arc<Applied> {
    fn apply(&self, changes: &[Change], at: CheckpointRef) -> Result<(), EngineError> {
        let keys = changes.iter().map(|(key, _)| key.clone()).filter(|key| key.first() == Some(&tag::XATTR));
        self.0.lock().expect("whole").push((at.lsn, keys.collect()));
        Ok(())
    }
}

#[test]
fn a_checkpoint_holds_every_record_up_to_its_lsn_and_none_behind_it() {
    let machine = Machine::with(|_| {});
    explore(2500, move || {
        let machine = machine.crash(Crash::KeepAll);
        let applied = Arc::new(Applied::default());
        let watch = applied.clone();
        let engine: crate::open::EngineSource =
            Box::new(move |_| Ok(Arc::new(Watched(MemoryEngine::new(), watch.clone()))));
        let volume = machine.open_on(EngineChoice::By(engine));
        applied.0.lock().expect("whole").clear();
        let records: Arc<Mutex<Vec<Record>>> = Arc::default();
        let mut threads: Threads = (0..2u8)
            .map(|who| {
                let records = records.clone();
                spawn(&volume, move |volume| {
                    for n in 0..3u8 {
                        let key = Key::Xattr(Ino(100 + u64::from(who)), vec![b'a' + n], View::LIVE).encode();
                        let put = Mutation::Put { key: key.clone(), value: vec![n] };
                        let at = volume.core().commit(&[put], &[]).expect("room");
                        records.lock().expect("whole").push((at.lsn, key));
                    }
                })
            })
            .collect();
        threads.extend((0..2).map(|_| {
            spawn(&volume, |volume| {
                volume.maintain().expect("written");
            })
        }));
        join(threads);
        volume.maintain().expect("written");
        let records = records.lock().expect("whole").clone();
        let mut reached = Lsn::ZERO;
        for (lsn, keys) in applied.0.lock().expect("whole").iter() {
            let expected: BTreeSet<_> =
                records.iter().filter(|(at, _)| *at > reached && at <= lsn).map(|(_, key)| key).collect();
            assert_eq!(keys.iter().collect::<BTreeSet<_>>(), expected, "behind {reached}, up to {lsn}");
            reached = *lsn;
        }
        assert!(records.iter().all(|(lsn, _)| *lsn <= reached), "the last holds all");
    });
}

#[test]
fn a_file_that_shares_chunks_keeps_them_when_the_other_goes() {
    let machine = Machine::with(|volume| {
        make(volume, "first", &bytes(1, 2000));
        volume.sync().expect("folded");
        make(volume, "second", &bytes(1, 2000));
    });
    explore(2500, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open();
        let second = ino_of(&volume, "second");
        let threads = vec![
            spawn(&volume, |volume| volume.unlink(ROOT, b"first").expect("removed")),
            spawn(&volume, |volume| {
                volume.maintain().expect("folded");
            }),
            spawn(&volume, |volume| volume.sync().expect("folded")),
            spawn(&volume, |volume| {
                make(volume, "third", &bytes(1, 2000));
            }),
        ];
        assert!(volume.read(second, 0, ALL).expect("read") == bytes(1, 2000));
        join(threads);
        volume.sync().expect("folded");
        let third = ino_of(&volume, "third");
        let content = |volume: &Volume| {
            for ino in [second, third] {
                assert!(volume.read(ino, 0, ALL).expect("read") == bytes(1, 2000));
            }
        };
        content(&volume);
        drop(volume);
        content(&machine.crash(Crash::DropUnsynced).open());
    });
}

/// Fails from some look-up or change on, once.
struct Failing {
    left: AtomicUsize,
    failed: AtomicBool,
}

impl Failing {
    fn count(&self) -> Result<(), EngineError> {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left > 0 {
            return Ok(());
        }
        self.failed.store(true, Ordering::Relaxed);
        Err(EngineError::Failed { engine: "a test's", reason: "it was told to".into() })
    }
}

impl Watch for Arc<Failing> {
    fn read(&self) -> Result<(), EngineError> {
        self.count()
    }
    fn apply(&self, _changes: &[Change], _at: CheckpointRef) -> Result<(), EngineError> {
        self.count()
    }
}

#[test]
fn nobody_notices_an_engine_that_fails_but_by_waiting() {
    let machine = Machine::with(|volume| {
        make(volume, "f", &bytes(1, 1000));
        volume.sync().expect("folded");
        make(volume, "g", &bytes(2, 1000));
    });
    explore(2500, move || {
        let machine = machine.crash(Crash::KeepAll);
        // The first is good for as long as it takes to mount, and a little longer.
        let failing =
            Arc::new(Failing { left: AtomicUsize::new(usize::MAX), failed: AtomicBool::new(false) });
        let first = Mutex::new(Some(failing.clone()));
        let engine: crate::open::EngineSource = Box::new(move |_| {
            let first = first.lock().expect("whole").take();
            Ok(match first {
                Some(failing) => Arc::new(Watched(MemoryEngine::new(), failing)) as Arc<dyn Engine>,
                None => Arc::new(MemoryEngine::new()),
            })
        });
        let volume = machine.open_on(EngineChoice::By(engine));
        failing.left.store(draw(12), Ordering::Relaxed);
        let look = |volume: &Volume| {
            for (name, seed) in [("f", 1), ("g", 2)] {
                let ino = ino_of(volume, name);
                assert!(volume.read(ino, 0, ALL).expect("read") == bytes(seed, 1000));
            }
        };
        let threads = vec![
            spawn(&volume, look),
            spawn(&volume, look),
            spawn(&volume, |volume| {
                make(volume, "h", &bytes(3, 1000));
            }),
            // One that meets the failure gives up; what it did not do is done by the next.
            spawn(&volume, |volume| {
                let _ = volume.maintain();
            }),
        ];
        join(threads);
        look(&volume);
        volume.sync().or_else(|_| volume.sync()).expect("folded");
        look(&volume);
        let rebuilds = volume.statistics().engine_rebuilds;
        assert_eq!(rebuilds, u64::from(failing.failed.load(Ordering::Relaxed)), "once for all");
        drop(volume);
        look(&machine.crash(Crash::DropUnsynced).open());
    });
}

/// Inodes that are kept without a name.
fn orphans(volume: &Volume) -> usize {
    let (from, to) = key::all_tagged(tag::ORPHAN);
    let mut orphans = 0;
    let count = |_: &[u8], _: &[u8]| {
        orphans += 1;
        ControlFlow::Continue(())
    };
    volume.core().for_each(&from, &to, count).expect("listed");
    orphans
}

#[test]
fn a_file_is_there_while_it_is_open_and_gone_with_its_last_handle() {
    let machine = Machine::with(|volume| {
        make(volume, "f", &bytes(1, 1000));
    });
    explore(3000, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open();
        let ino = ino_of(&volume, "f");
        volume.open(ino).expect("opened");
        let threads = vec![
            spawn(&volume, |volume| volume.unlink(ROOT, b"f").expect("removed")),
            spawn(&volume, move |volume| {
                assert!(volume.read(ino, 0, ALL).expect("it is open") == bytes(1, 1000));
                volume.release(ino);
            }),
            // Somebody else, who may come too late.
            spawn(&volume, move |volume| match volume.open(ino) {
                Ok(()) => {
                    assert!(volume.read(ino, 0, ALL).expect("it is open") == bytes(1, 1000));
                    volume.release(ino);
                }
                Err(error) => assert_eq!(error, Error::Stale),
            }),
        ];
        join(threads);
        assert_eq!(volume.getattr(ino).map(|a| a.nlink), Err(Error::Stale), "nobody has it open");
        assert_eq!(orphans(&volume), 0);
        volume.sync().expect("folded");
    });
}

#[test]
fn inode_numbers_are_given_out_once_and_reserved_for_good_before() {
    let machine = Machine::with(|_| {});
    explore(2000, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open();
        {
            let mut block = volume.core().inos.lock().expect("whole");
            block.next = block.end - 1 - draw(3) as u64;
        }
        let given: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
        let threads = (0..3)
            .map(|_| {
                let (given, machine) = (given.clone(), machine.clone());
                spawn(&volume, move |volume| {
                    for _ in 0..2 {
                        let Ino(ino) = volume.core().new_ino().expect("there are some");
                        let crashed = machine.crash(Crash::DropUnsynced);
                        assert!(given.lock().expect("whole").insert(ino), "{ino} twice");
                        assert!(crashed.reserved() > ino, "{ino} is given out again after a power cut");
                    }
                })
            })
            .collect();
        join(threads);
    });
}

#[test]
fn renames_of_directories_make_no_circle_and_nobody_waits_for_ever() {
    let machine = Machine::with(|volume| {
        for name in [b"a", b"b"] {
            let dir = volume.mkdir(ROOT, name, 0o755, 0, &CALLER).expect("made").ino;
            volume.mkdir(dir, b"below", 0o755, 0, &CALLER).expect("made");
        }
    });
    explore(2000, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open();
        let (a, b) = (ino_of(&volume, "a"), ino_of(&volume, "b"));
        let below = |dir| volume.lookup(dir, b"below").expect("looked up").expect("there").ino;
        let (below_a, below_b) = (below(a), below(b));
        let rename = move |volume: &Volume, name: &[u8], to: u64| match volume.rename(
            ROOT,
            name,
            to,
            b"moved",
            RenameMode::Replace,
        ) {
            Ok(()) | Err(Error::Invalid | Error::NotFound | Error::Stale) => {}
            Err(other) => panic!("{other}"),
        };
        let threads = vec![
            spawn(&volume, move |volume| rename(volume, b"a", below_b)),
            spawn(&volume, move |volume| rename(volume, b"b", below_a)),
            spawn(&volume, move |volume| {
                let _ = volume.rename(a, b"below", b, b"below", RenameMode::Exchange);
            }),
            spawn(&volume, move |volume| {
                let _ = volume.rmdir(b, b"below");
            }),
        ];
        join(threads);
        // Each directory is reached from the root, once.
        let mut seen = BTreeSet::new();
        let mut waiting = vec![(ROOT, 2)];
        while let Some((dir, nlink)) = waiting.pop() {
            assert!(seen.insert(dir), "{dir} has two names");
            let mut subdirs = Vec::new();
            let each = &mut |item: &crate::DirItem<'_>| {
                if item.name != b"." && item.name != b".." {
                    subdirs.push(item.ino);
                }
                true
            };
            volume.readdir(dir, 0, each).expect("listed");
            assert_eq!(volume.getattr(dir).expect("there").nlink, nlink + subdirs.len() as u32);
            waiting.extend(subdirs.into_iter().map(|ino| (ino, 2)));
        }
        for ino in [a, b] {
            assert!(seen.contains(&ino), "{ino} is out of reach");
        }
    });
}

type Move = fn(&Volume) -> Result<(), Error>;

#[test]
fn a_name_is_moved_or_removed_once() {
    let machine = Machine::with(|volume| {
        make(volume, "f", &bytes(1, 100));
        make(volume, "g", &bytes(2, 100));
    });
    explore(1500, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open();
        let (f, g) = (ino_of(&volume, "f"), ino_of(&volume, "g"));
        let won = Arc::new(AtomicUsize::new(0));
        let moves: [Move; 3] = [
            |volume| volume.rename(ROOT, b"f", ROOT, b"moved", RenameMode::Replace),
            |volume| volume.rename(ROOT, b"f", ROOT, b"g", RenameMode::Replace),
            |volume| volume.unlink(ROOT, b"f"),
        ];
        let threads = moves.map(|work| {
            let won = won.clone();
            spawn(&volume, move |volume| match work(volume) {
                Ok(()) => {
                    won.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => assert_eq!(error, Error::NotFound),
            })
        });
        join(threads.into());
        assert_eq!(won.load(Ordering::Relaxed), 1);
        let of = |name: &[u8]| volume.lookup(ROOT, name).expect("looked up").map(|attr| attr.ino);
        assert_eq!(of(b"f"), None);
        match (of(b"moved"), of(b"g")) {
            (Some(moved), Some(other)) => assert_eq!((moved, other), (f, g)),
            (None, Some(only)) if only == f => assert_eq!(volume.getattr(g).map(|_| ()), Err(Error::Stale)),
            (None, Some(only)) => {
                assert_eq!((only, volume.getattr(f).map(|_| ())), (g, Err(Error::Stale)));
            }
            names => panic!("{names:?}"),
        }
    });
}

#[test]
fn whoever_waits_for_room_gets_it_from_the_maintenance() {
    let machine = Machine::with(|_| {});
    explore(1000, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open_in_background();
        let threads = (0..2u64)
            .map(|who| {
                spawn(&volume, move |volume| {
                    let ino = make(volume, ["a", "b"][who as usize], &[]);
                    // More than the journal holds, in both together.
                    for n in 0..30u64 {
                        volume.write(ino, n % 3 * 8000, &bytes(who * 100 + n, 8000), false).expect("written");
                    }
                })
            })
            .collect();
        join(threads);
        for (name, who) in [("a", 0), ("b", 100)] {
            let read = volume.read(ino_of(&volume, name), 0, ALL).expect("read");
            assert!(read == (27..30).flat_map(|n| bytes(who + n, 8000)).collect::<Vec<_>>(), "{name}");
        }
        volume.close().expect("closed");
        pause();
        let volume = machine.crash(Crash::DropUnsynced).open();
        assert_eq!(volume.read(ino_of(&volume, "a"), 0, ALL).expect("read").len(), 24_000);
    });
}

#[test]
fn regression_closing_wakes_every_thread_of_the_volume() {
    let machine = Machine::with(|_| {});
    explore(1000, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open_in_background();
        // None of its threads has anything to do but to end: each is somewhere on the way to its wait.
        volume.close().expect("closed");
    });
}

#[test]
fn what_is_acknowledged_while_the_volume_is_closed_is_there_at_the_next_mount() {
    let machine = Machine::with(|volume| {
        make(volume, "f", &bytes(1, 1000));
    });
    explore(1500, move || {
        let machine = machine.crash(Crash::KeepAll);
        let volume = machine.open();
        let ino = ino_of(&volume, "f");
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let threads = vec![
            spawn(&volume, move |volume| {
                for n in 1..4 {
                    let done = volume.write(ino, n * 1000, &bytes(1, 1000), false);
                    if done.and_then(|()| volume.fsync(ino, false)).is_err() {
                        break;
                    }
                    count.store(n as usize, Ordering::Relaxed);
                }
            }),
            spawn(&volume, |volume| volume.close().expect("closed")),
            spawn(&volume, move |volume| {
                let _ = volume.read(ino, 0, ALL);
                let _ = volume.lookup(ROOT, b"f");
            }),
        ];
        join(threads);
        drop(volume);
        let volume = machine.crash(Crash::DropUnsynced).open();
        let read = volume.read(ino, 0, ALL).expect("read");
        assert!(read.len() >= 1000 + 1000 * written.load(Ordering::Relaxed), "lost");
        assert!(read.chunks(1000).all(|part| part == bytes(1, 1000)));
    });
}
