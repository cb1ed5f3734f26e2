//! The journal: appending, group commit, trimming, reading back, waiting for room.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_format::{CheckpointRef, JournalRef, Lsn, Mutation, ParityGeometry, Uuid};
use cairn_store::disk::{Crash, Disk, MemoryDisk};

use crate::journal::{
    Appended, JOURNAL_DIR, Journal, JournalError, JournalShape, Need, Resume, make_segment, scan,
};
use crate::sync::{Slow, draw, explore, pause, thread};

const SHAPE: JournalShape = JournalShape { volume: Uuid([7; 16]), segment: 16 << 10, segments: 8 };

/// A disk with `segments` segments that nothing is in yet.
fn blank(segments: u32) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_dir(JOURNAL_DIR).expect("made");
    disk.sync_dir("").expect("synced");
    (0..segments).for_each(|n| drop(make_segment(&disk, n, SHAPE.segment).expect("made")));
    disk
}

fn journal(disk: &MemoryDisk) -> Journal {
    let (chain, error) = scan(disk, &SHAPE);
    assert!(error.is_none(), "{error:?}");
    let resume = Resume { epoch: 1, continues: Lsn::ZERO, checkpoint: CheckpointRef::NONE, floor: Lsn::ZERO };
    Journal::resume(Arc::new(Slow(disk.clone())), SHAPE, chain, &resume, &[], []).expect("a new journal").0
}

/// A record that nobody else appends.
fn record(who: u8, n: u8) -> ([Mutation; 1], Vec<u8>) {
    ([Mutation::Put { key: vec![who, n], value: vec![who; 3] }], vec![who << 4 | n; 600])
}

/// The records that a machine finds which starts now, by their keys.
fn found(disk: &MemoryDisk, crash: Crash) -> BTreeMap<Vec<u8>, Appended> {
    let (chain, error) = scan(&disk.crash(crash), &SHAPE);
    assert!(error.is_none(), "{error:?}");
    let mut found = BTreeMap::new();
    let mut last = Lsn::ZERO;
    let each = |record: &crate::journal::ScannedRecord<'_>| {
        assert!(record.at.lsn > last, "in order");
        last = record.at.lsn;
        if let [Mutation::Put { key, .. }] = record.mutations {
            assert!(found.insert(key.clone(), record.at).is_none(), "{key:?} is there twice");
        }
    };
    chain.records(&SHAPE, each).expect("readable");
    found
}

fn read_back(journal: &Journal, at: &Appended, who: u8, n: u8) -> Result<(), JournalError> {
    let place = JournalRef { lsn: at.lsn, segment: at.segment, record_offset: at.offset, payload_offset: 0 };
    let mut bytes = vec![0; 600];
    journal.read(&place, 0, &mut bytes)?;
    assert_eq!(bytes, record(who, n).1, "other bytes than were written");
    Ok(())
}

#[test]
fn what_a_sync_acknowledged_survives_and_every_record_is_there_once() {
    let blank = blank(2);
    explore(4000, move || {
        let disk = blank.fork();
        let journal = Arc::new(journal(&disk));
        let threads: Vec<_> = (1..=3u8)
            .map(|who| {
                let (journal, disk) = (journal.clone(), disk.clone());
                thread::spawn(move || {
                    let append = |n| {
                        let (mutations, payload) = record(who, n);
                        journal.append(&mutations, &payload).expect("there is room")
                    };
                    let ats = [append(0), append(1)];
                    match who {
                        1 => journal.sync_all().expect("synced"),
                        _ => journal.sync(ats[1].lsn).expect("synced"),
                    }
                    let found = found(&disk, Crash::DropUnsynced);
                    (0..2).for_each(|n| {
                        assert_eq!(found.get(&vec![who, n]), Some(&ats[usize::from(n)]), "lost");
                        read_back(&journal, &ats[usize::from(n)], who, n).expect("readable");
                    });
                    ats
                })
            })
            .collect();
        let mut ats: Vec<_> = threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect();
        assert_eq!(found(&disk, Crash::KeepAll).len(), 6);
        ats.sort_by_key(|at| (at.segment, at.offset));
        assert!(ats.windows(2).all(|pair| pair[0].lsn < pair[1].lsn), "numbered as they lie");
    });
}

#[test]
fn a_sync_that_fails_is_nobodys_success() {
    let blank = blank(2);
    explore(3000, move || {
        let disk = blank.fork();
        let journal = Arc::new(journal(&disk));
        disk.fail_at(disk.operations() + draw(8) as u64, io::ErrorKind::Other, draw(2) == 0);
        let failed = Arc::new(Mutex::new(false));
        let threads: Vec<_> = (1..=3u8)
            .map(|who| {
                let (journal, disk, failed) = (journal.clone(), disk.clone(), failed.clone());
                thread::spawn(move || {
                    for n in 0..2 {
                        let (mutations, payload) = record(who, n);
                        let over = *failed.lock().expect("whole");
                        let synced = journal.append(&mutations, &payload).and_then(|at| journal.sync(at.lsn));
                        match synced {
                            Ok(()) => {
                                assert!(!over, "acknowledged behind a failure");
                                assert!(
                                    found(&disk, Crash::DropUnsynced).contains_key(&vec![who, n]),
                                    "lost"
                                );
                            }
                            Err(_) => *failed.lock().expect("whole") = true,
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
    });
}

/// Records with their numbers, and the floor of the last trim.
type Known = (Vec<(Appended, u8)>, Lsn);

#[test]
fn a_trim_takes_what_is_below_its_floor_and_nothing_else() {
    let blank = blank(2);
    explore(3000, move || {
        let disk = blank.fork();
        let journal = Arc::new(journal(&disk));
        // What was appended, and from where on it is needed.
        let known: Arc<Mutex<Known>> = Arc::default();
        let (writer, trimmer, protector) = (journal.clone(), journal.clone(), journal.clone());
        let (written, trimmed) = (known.clone(), known.clone());
        let threads = [
            thread::spawn(move || {
                for n in 0..16 {
                    let (mutations, payload) = record(1, n);
                    let at = writer.append(&mutations, &payload).expect("there is room");
                    written.lock().expect("whole").0.push((at, n));
                    if n % 8 == 7 {
                        writer.sync(at.lsn).expect("synced");
                    }
                }
            }),
            thread::spawn(move || {
                for n in 0..2 {
                    let last = trimmed.lock().expect("whole").0.last().copied();
                    let Some((Appended { lsn, .. }, _)) = last else { continue };
                    // As a checkpoint does it.
                    trimmer.sync(lsn).expect("synced");
                    let at = CheckpointRef { lsn, ..CheckpointRef::NONE };
                    let record = Mutation::Checkpoint { at, floor: lsn };
                    let appended = trimmer.append(&[record], &[]).expect("there is room");
                    trimmer.sync(appended.lsn).expect("synced");
                    trimmed.lock().expect("whole").1 = lsn;
                    trimmer.trim(at, lsn);
                    if n == 0 {
                        trimmer.prepare_spare();
                    }
                }
            }),
            // Closed segments get parity meanwhile, which goes before they are used again.
            thread::spawn(move || {
                for _ in 0..3 {
                    protector.protect_next(ParityGeometry::new(4, 2), Duration::ZERO, u64::MAX);
                    pause();
                }
            }),
        ];
        for _ in 0..4 {
            let (all, floor) = known.lock().expect("whole").clone();
            let Some((at, n)) = (!all.is_empty()).then(|| all[draw(all.len())]) else {
                pause();
                continue;
            };
            let read = read_back(&journal, &at, 1, n);
            let floor = floor.max(known.lock().expect("whole").1);
            assert!(read.is_ok() || at.lsn < floor, "{} is needed from {floor} on: {read:?}", at.lsn);
        }
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
        journal.sync_all().expect("synced");
        let (all, floor) = known.lock().expect("whole").clone();
        let found = found(&disk, Crash::DropUnsynced);
        let (chain, _) = scan(&disk.crash(Crash::DropUnsynced), &SHAPE);
        assert_eq!(chain.strays, Vec::<String>::new(), "parity of what is not in use");
        for (at, n) in all.iter().filter(|(at, _)| at.lsn >= floor) {
            assert_eq!(found.get(&vec![1, *n]), Some(at), "lost, floor {floor}");
            read_back(&journal, at, 1, *n).expect("readable");
        }
    });
}

#[test]
fn whoever_waits_for_room_is_woken_when_there_is_some() {
    let blank = blank(4);
    explore(1000, move || {
        let disk = blank.fork();
        let journal = Arc::new(journal(&disk));
        let has_room = |journal: &Journal| journal.has_room(4096, Need::Grow, false);
        let mut last = Lsn::ZERO;
        for n in 0.. {
            if !has_room(&journal) {
                break;
            }
            let (mutations, payload) = record(0, n);
            last = journal.append(&mutations, &payload).expect("there is room").lsn;
        }
        let writers: Vec<_> = (1..=3u8)
            .map(|who| {
                let journal = journal.clone();
                thread::spawn(move || {
                    loop {
                        let seen = journal.room_notices();
                        if has_room(&journal) {
                            break;
                        }
                        journal.wait_room(seen, Duration::MAX);
                    }
                    let (mutations, payload) = record(who, 0);
                    journal.append(&mutations, &payload).expect("there is room");
                })
            })
            .collect();
        // Once: nobody is told again.
        journal.trim(CheckpointRef { lsn: last, ..CheckpointRef::NONE }, last);
        writers.into_iter().for_each(|t| t.join().expect("no panic"));
    });
}
