//! Pieces that stand alone: locks of inodes, handles, the dirty set.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_format::{Ino, Lsn, View};

use crate::fold::DirtySet;
use crate::handles::Handles;
use crate::locks::InodeLocks;
use crate::sync::{draw, explore, pause, thread};

#[test]
fn operations_on_several_inodes_exclude_each_other_and_never_wait_in_a_circle() {
    explore(3000, || {
        let locks = Arc::new(InodeLocks::new());
        // Who is in: a writer counts for many readers.
        const WRITER: u32 = 1000;
        let inside: Arc<[AtomicU32; 6]> = Arc::default();
        let threads: Vec<_> = (0..4)
            .map(|who| {
                let (locks, inside) = (locks.clone(), inside.clone());
                thread::spawn(move || {
                    for _ in 0..2 {
                        if who == 0 {
                            let ino = draw(6);
                            let _lock = locks.read(Ino(ino as u64));
                            assert!(inside[ino].fetch_add(1, Ordering::Relaxed) < WRITER);
                            pause();
                            inside[ino].fetch_sub(1, Ordering::Relaxed);
                            continue;
                        }
                        let mut inos: Vec<_> = (0..1 + draw(3)).map(|_| draw(6)).collect();
                        let _lock = locks.write(&inos.iter().map(|i| Ino(*i as u64)).collect::<Vec<_>>());
                        inos.sort_unstable();
                        inos.dedup();
                        for ino in &inos {
                            assert_eq!(inside[*ino].fetch_add(WRITER, Ordering::Relaxed), 0, "not alone");
                        }
                        pause();
                        for ino in inos {
                            inside[ino].fetch_sub(WRITER, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
    });
}

#[test]
fn a_nameless_inode_is_given_up_once_and_by_nobody_who_is_late() {
    const INO: Ino = Ino(7);
    explore(2000, || {
        let handles = Arc::new(Handles::default());
        let removed = Arc::new(AtomicU32::new(0));
        handles.open(INO);
        handles.open(INO);
        let closers: Vec<_> = (0..2)
            .map(|_| {
                let (handles, removed) = (handles.clone(), removed.clone());
                thread::spawn(move || {
                    if handles.close(INO) {
                        let taken = handles.take_unused(&[INO]).len() as u32;
                        removed.fetch_add(taken, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        // As it loses its last name: at once, where nobody has it open.
        if !handles.keep_if_reachable(INO) {
            removed.fetch_add(1, Ordering::Relaxed);
        }
        closers.into_iter().for_each(|t| t.join().expect("no panic"));
        assert_eq!(removed.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn the_floor_never_passes_what_waits_or_is_worked_on() {
    explore(2000, || {
        let dirty = Arc::new(DirtySet::default());
        // What the floor must not pass: entered once it was noted, crossed out before it is done.
        let needed: Arc<Mutex<BTreeSet<Lsn>>> = Arc::default();
        let next = Arc::new(Mutex::new(0));
        let writers = (0..2u64).map(|who| {
            let (dirty, needed, next) = (dirty.clone(), needed.clone(), next.clone());
            thread::spawn(move || {
                for n in 0..4 {
                    let lsn = {
                        let mut next = next.lock().expect("whole");
                        *next += 1;
                        Lsn(*next)
                    };
                    // Apart, so that each is a run of its own.
                    dirty.note((View::LIVE, Ino(who + 1)), n * 100, n * 100 + 10, lsn);
                    needed.lock().expect("whole").insert(lsn);
                }
            })
        });
        let folder = {
            let (dirty, needed) = (dirty.clone(), needed.clone());
            thread::spawn(move || {
                for round in 0..4 {
                    let taken = dirty.take(if round == 3 { u64::MAX } else { 15 }, Duration::ZERO);
                    for run in taken {
                        if draw(2) == 0 {
                            dirty.put_back(run.file, run.start, run.end, run.first);
                        } else {
                            needed.lock().expect("whole").remove(&run.first);
                        }
                        dirty.done(&run);
                    }
                }
            })
        };
        let threads: Vec<_> = writers.chain([folder]).collect();
        for _ in 0..8 {
            let floor = dirty.floor();
            let oldest = needed.lock().expect("whole").first().copied();
            assert!(
                oldest.is_none_or(|oldest| floor.is_some_and(|floor| floor <= oldest)),
                "{floor:?} {oldest:?}"
            );
        }
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
        let floor = dirty.floor();
        assert_eq!(floor, needed.lock().expect("whole").first().copied());
    });
}
