//! Several threads on one volume, while it folds, writes checkpoints, and is mounted again: what each of them was told must
//! be so afterwards, and no two may be told what excludes each other.
//!
//! The rules are light ones, each checked by who works: a file that one thread writes is what it wrote; a counter that one
//! thread writes never runs backwards for anybody who reads it; each append is there once; a name is made, taken and moved
//! by one thread only.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use cairn_tests::content::Content;
use cairn_tests::dice::{Dice, data};
use cairn_tests::engine::Survival;
use cairn_tests::ops::UPKEEP;
use cairn_tests::tree::{list, read_all};
use cairn_tests::watchdog::watch;
use cairn_tests::world::{World, small};
use cairn_volume::{Allocate, Caller, Error, MakeOptions, RenameMode, SetAttr, Volume};
use fsck_cairn::{CheckOptions, Quiet, Severity};

const THREADS: usize = 4;
/// Operations of a thread between two mounts.
const TURNS: u64 = 150;
/// Bytes of an entry of the log that all append to.
const ENTRY: usize = 700;
/// Bytes of a thread's own part of the file that all write to; they meet within pages and chunks.
const SLOT: u64 = 1500;
const FILE: u64 = 60_000;

/// What all threads share, and what of it outlives a mount.
#[derive(Default)]
struct Shared {
    /// `st_ino` of what all share.
    log: u64,
    slots: u64,
    names: u64,
    moved: u64,
    /// As the kernel's lock of an inode, which appending takes.
    appending: Mutex<u64>,
    /// How often somebody was told that it made a name.
    made: Mutex<HashMap<Vec<u8>, u32>>,
    /// …that it moved it away.
    taken: Mutex<HashMap<Vec<u8>, u32>>,
    /// …that it removed it.
    removed: Mutex<HashMap<Vec<u8>, u32>>,
}

/// A thread's own things, which outlive a mount.
struct Worker {
    number: usize,
    dice: Dice,
    own: u64,
    content: Content,
    clone: u64,
    cloned: Content,
    /// Written to its slot, and appended.
    count: u64,
    appended: u64,
    /// The highest count that it saw in each slot.
    seen: [u64; THREADS],
    /// Names that it is going to try.
    next_name: u64,
}

impl Worker {
    fn new(number: usize, volume: &Volume, dice: Dice) -> Worker {
        let make = |name: &str| {
            let name = format!("{name} of {number}");
            volume.mknod(1, name.as_bytes(), 0o100_644, 0, 0, &Caller::default()).expect("a new name").ino
        };
        Worker {
            number,
            dice,
            own: make("own"),
            content: Content::default(),
            clone: make("clone"),
            cloned: Content::default(),
            count: 0,
            appended: 0,
            seen: [0; THREADS],
            next_name: 0,
        }
    }

    fn turn(&mut self, volume: &Volume, shared: &Shared) -> Result<(), Error> {
        let offset = self.dice.below(FILE);
        let len = self.dice.below(5_000);
        match self.dice.below(16) {
            0..=3 => {
                let bytes = data(self.dice.roll(), len as usize);
                volume.write(self.own, offset, &bytes, false)?;
                self.content.write(offset, &bytes);
            }
            4 => {
                let size = Some(offset);
                volume.setattr(self.own, &SetAttr { size, ..SetAttr::default() }, &Caller::default())?;
                self.content.truncate(offset);
            }
            5 => {
                volume.allocate(self.own, offset, len + 1, Allocate::Punch, false)?;
                self.content.zero(offset, len + 1);
            }
            6 => {
                let to = self.dice.below(FILE);
                let copied = volume.copy_range((self.own, offset), (self.clone, to), len, false)?;
                assert_eq!(copied, len.min(self.content.size.saturating_sub(offset)));
                if copied > 0 {
                    self.cloned.copy(to, &self.content, offset, copied);
                }
            }
            7 => {
                let read = volume.read(self.own, offset, len as u32)?;
                assert_eq!(read, self.content.read(offset, len as usize), "own file, at {offset}");
                let read = volume.read(self.clone, offset, len as u32)?;
                assert_eq!(read, self.cloned.read(offset, len as usize), "own clone, at {offset}");
            }
            8 | 9 => self.count_up(volume, shared)?,
            10 => self.look_at_counts(volume, shared)?,
            11 | 12 => self.append(volume, shared)?,
            13 | 14 => self.race_for_a_name(volume, shared)?,
            _ => volume.fsync(self.own, true)?,
        }
        Ok(())
    }

    /// The whole slot is one write: whoever reads it sees one count all over.
    fn count_up(&mut self, volume: &Volume, shared: &Shared) -> Result<(), Error> {
        let bytes: Vec<u8> = (self.count + 1).to_le_bytes().repeat(SLOT as usize / 8);
        volume.write(shared.slots, self.number as u64 * SLOT, &bytes, false)?;
        self.count += 1;
        Ok(())
    }

    fn look_at_counts(&mut self, volume: &Volume, shared: &Shared) -> Result<(), Error> {
        self.seen[self.number] = self.count;
        for (slot, seen) in self.seen.iter_mut().enumerate() {
            let bytes = volume.read(shared.slots, slot as u64 * SLOT, SLOT as u32 / 8 * 8)?;
            let found: HashSet<[u8; 8]> =
                bytes.chunks_exact(8).map(|eight| eight.try_into().expect("eight")).collect();
            assert!(found.len() <= 1, "slot {slot} is of two writes");
            let count = found.into_iter().next().map_or(0, u64::from_le_bytes);
            assert!(count >= *seen, "slot {slot} ran backwards, from {seen} to {count}");
            if slot == self.number {
                assert_eq!(count, self.count, "a thread does not see what it wrote");
            }
            *seen = count;
        }
        Ok(())
    }

    fn append(&mut self, volume: &Volume, shared: &Shared) -> Result<(), Error> {
        let mut end = shared.appending.lock().expect("no panic");
        assert_eq!(volume.getattr(shared.log)?.size, *end, "the end that appending goes by");
        volume.write(shared.log, *end, &entry(self.number, self.appended), false)?;
        *end += ENTRY as u64;
        self.appended += 1;
        Ok(())
    }

    /// All threads go through the same names, to make, move away and remove each.
    fn race_for_a_name(&mut self, volume: &Volume, shared: &Shared) -> Result<(), Error> {
        let name = format!("name {}", self.next_name).into_bytes();
        self.next_name += 1;
        count(&shared.made, &name, volume.mkdir(shared.names, &name, 0o755, 0, &Caller::default()))?;
        match self.dice.below(4) {
            0 | 1 => {
                let moved = volume.rename(shared.names, &name, shared.moved, &name, RenameMode::NoReplace);
                count(&shared.taken, &name, moved)
            }
            2 => count(&shared.removed, &name, volume.rmdir(shared.names, &name)),
            _ => Ok(()),
        }
    }
}

/// Counts what was done; that another was first is in order.
fn count<T>(list: &Mutex<HashMap<Vec<u8>, u32>>, name: &[u8], result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Ok(_) => *list.lock().expect("no panic").entry(name.to_vec()).or_default() += 1,
        Err(Error::Exists | Error::NotFound) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn entry(number: usize, count: u64) -> Vec<u8> {
    let mut bytes = data((number as u64) << 32 | count, ENTRY);
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    bytes[8..16].copy_from_slice(&count.to_le_bytes());
    bytes
}

/// What must hold when nobody works.
fn check(volume: &Volume, shared: &Shared, workers: &[Worker]) {
    let whole = |ino: u64| {
        let size = volume.getattr(ino).expect("there").size;
        read_all(volume, ino, size).expect("read")
    };
    for worker in workers {
        assert_eq!(whole(worker.own).difference(&worker.content), None, "own of {}", worker.number);
        assert_eq!(whole(worker.clone).difference(&worker.cloned), None, "clone of {}", worker.number);
        let slot = volume.read(shared.slots, worker.number as u64 * SLOT, 8).expect("read");
        let count = slot.try_into().map_or(0, u64::from_le_bytes);
        assert_eq!(count, worker.count, "slot of {}", worker.number);
    }
    let log = whole(shared.log);
    assert_eq!(log.size, workers.iter().map(|w| w.appended).sum::<u64>() * ENTRY as u64);
    let mut next = [0u64; THREADS];
    for at in (0..log.size).step_by(ENTRY) {
        let found = log.read(at, ENTRY);
        let number = u64::from_le_bytes(found[..8].try_into().expect("eight")) as usize;
        assert!(found == entry(number, next[number]), "entry at {at} is not {number}'s {}", next[number]);
        next[number] += 1;
    }
    let listed = |dir: u64| -> HashSet<Vec<u8>> {
        let all = list(volume, dir).expect("listed");
        let names: Vec<_> = all.into_iter().skip(2).map(|item| item.name).collect();
        let distinct: HashSet<_> = names.iter().cloned().collect();
        assert_eq!(distinct.len(), names.len(), "a name is listed twice");
        distinct
    };
    let (names, moved) = (listed(shared.names), listed(shared.moved));
    let [made, taken, removed] =
        [&shared.made, &shared.taken, &shared.removed].map(|list| list.lock().expect("no panic"));
    let times = |list: &HashMap<Vec<u8>, u32>, name: &Vec<u8>| list.get(name).copied().unwrap_or(0);
    for name in made.keys().chain(&names).chain(&moved) {
        let there = (u32::from(names.contains(name)), u32::from(moved.contains(name)));
        let (made, taken, removed) = (times(&made, name), times(&taken, name), times(&removed, name));
        let told = format!("{name:?}: made {made} times, moved {taken}, removed {removed}: {there:?}");
        assert!(taken == there.1 && made == removed + there.0 + there.1, "{told}");
    }
    for (dir, names) in [(shared.names, &names), (shared.moved, &moved)] {
        let nlink = volume.getattr(dir).expect("there").nlink as usize;
        assert_eq!(nlink, 2 + names.len(), "links of a directory of directories");
    }
}

/// The volume works for itself until it is told to stop, as it would in the background and as if told to by a person.
fn keep_up(volume: &Volume, stop: &AtomicBool, dice: &mut Dice, done: &AtomicU64) {
    while !stop.load(Ordering::Acquire) {
        match dice.below(4) {
            0 => volume.sync().expect("everything can be folded"),
            _ => {
                let upkeep = UPKEEP[dice.below(UPKEEP.len() as u64) as usize];
                (upkeep.on_volume)(volume).unwrap_or_else(|e| panic!("{upkeep:?}: {e}"));
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
    }
}

/// One mount's work, and its end: in order, or not.
fn work(volume: &Arc<Volume>, shared: &Shared, workers: &mut [Worker], dice: &mut Dice, done: &AtomicU64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| keep_up(volume, &stop, dice, done));
        let working: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                scope.spawn(|| {
                    for turn in 0..TURNS {
                        let number = worker.number;
                        worker
                            .turn(volume, shared)
                            .unwrap_or_else(|e| panic!("thread {number}, turn {turn}: {e}"));
                    }
                })
            })
            .collect();
        let ended: Vec<_> = working.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::Release);
        ended.into_iter().for_each(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    });
}

fn round(base: &World, seed: u64, done: &AtomicU64) {
    let mut dice = Dice::new(seed);
    let mut world = base.fork();
    let mut volume = world.open_in_background().expect("mounted");
    let owner = Caller::default();
    let dir = |name: &[u8]| volume.mkdir(1, name, 0o755, 0, &owner).expect("a new name").ino;
    let file = |name: &[u8]| volume.mknod(1, name, 0o100_644, 0, 0, &owner).expect("a new name").ino;
    let shared = Shared {
        log: file(b"log"),
        slots: file(b"slots"),
        names: dir(b"names"),
        moved: dir(b"moved"),
        ..Shared::default()
    };
    let mut workers: Vec<_> = (0..THREADS).map(|n| Worker::new(n, &volume, Dice::new(dice.roll()))).collect();
    for _ in 0..3 {
        work(&volume, &shared, &mut workers, &mut dice, done);
        check(&volume, &shared, &workers);
        if dice.one_in(2) {
            volume.close().expect("closed");
        } else {
            world.engine = world.engine.surviving(Survival::Older(dice.below(3) as usize));
        }
        drop(volume);
        volume = world.open_in_background().expect("mounted again");
        check(&volume, &shared, &workers);
    }
    volume.close().expect("closed");
    drop(volume);
    let report = fsck_cairn::check(&world.disk, world.store_disk(), None, &CheckOptions::default(), &Quiet)
        .expect("it can be checked");
    let wrong = report.findings.iter().find(|f| f.severity > Severity::Info);
    assert!(wrong.is_none(), "fsck: {wrong:?}");
}

#[test]
fn threads_are_told_nothing_that_excludes_each_other_while_the_volume_folds() {
    let cases = std::env::var("CAIRN_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000u64);
    let _watchdog = watch("the test of threads on one volume", 15 + cases / 5_000);
    let bases = [World::make(&small()), World::make(&MakeOptions { journal_size: 512 << 10, ..small() })];
    let done = AtomicU64::new(0);
    let rounds = cases.div_ceil(50);
    for seed in 0..rounds {
        round(&bases[seed as usize % 2], seed, &done);
    }
    let done = done.into_inner();
    assert!(done > rounds, "{done} folds and checkpoints in {rounds} rounds");
}
