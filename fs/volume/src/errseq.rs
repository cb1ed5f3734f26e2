//! Bytes that were acknowledged and that the journal does not give back any more: which files have lost some, and who
//! was told. As Linux's `errseq_t`: an error has a number, a handle remembers how far it was told.
//!
//! Handles and errors are numbered by the same clock, so that a handle is its own memory until it is told something:
//! an error is news to it if its number is the higher one.

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use std::collections::{BTreeMap, HashMap};

use cairn_format::{Ino, Lsn, PieceKind};

use crate::core::Core;
use crate::fold::File;
use crate::namespace::{FileRun, Run};
use crate::vfs::Error;

/// The mount's epoch is above this bit in all numbers, so that those of the mounts before it are lower.
const EPOCH_SHIFT: u32 = 40;

/// What a file has lost.
#[derive(Default)]
struct Lost {
    /// The number of its newest error.
    last: u64,
    /// Whether any handle was told of that.
    seen: bool,
    /// The runs that could not be read.
    runs: BTreeMap<u64, Run>,
}

#[derive(Default)]
struct State {
    files: HashMap<Ino, Lost>,
    /// The last error that a handle was told of, of those that were told any.
    told: HashMap<u64, u64>,
}

/// The files that have lost bytes, and the handles that know.
pub(crate) struct Losses {
    clock: AtomicU64,
    /// How many files `state` has: mostly none, and nobody takes its lock.
    count: AtomicUsize,
    state: Mutex<State>,
}

impl Losses {
    pub(crate) fn new(epoch: u32) -> Losses {
        Losses {
            clock: AtomicU64::new(u64::from(epoch) << EPOCH_SHIFT),
            count: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    fn next(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// `None` where nothing is lost.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        // Nothing in here panics half way.
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (self.count.load(Ordering::Acquire) > 0).then(lock)
    }

    /// A number for a handle to `ino` that was just opened. What nobody was told yet it will be told, too.
    pub(crate) fn handle(&self, ino: Ino) -> u64 {
        let number = self.next();
        if let Some(mut state) = self.state() {
            let State { files, told } = &mut *state;
            if let Some(lost) = files.get(&ino).filter(|lost| !lost.seen) {
                told.insert(number, lost.last - 1);
            }
        }
        number
    }

    /// A handle is closed.
    pub(crate) fn release(&self, handle: u64) {
        if let Some(mut state) = self.state() {
            state.told.remove(&handle);
        }
    }

    /// A run of a file cannot be read. Whether that is news: another part of the same record is none.
    pub(crate) fn note(&self, ino: Ino, (at, run): FileRun) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = state.files.entry(ino).or_default();
        let known = lost.runs.values().any(|other| record(other) == record(&run));
        if lost.runs.get(&at).is_none_or(|other| other.len < run.len || record(other) != record(&run)) {
            lost.runs.insert(at, run);
        }
        if !known {
            lost.last = self.next();
            lost.seen = false;
        }
        self.count.store(state.files.len(), Ordering::Release);
        !known
    }

    /// Whether there is an error that this handle was not told of: it is now.
    pub(crate) fn tell(&self, ino: Ino, handle: u64) -> bool {
        let Some(mut state) = self.state() else { return false };
        let State { files, told } = &mut *state;
        let Some(lost) = files.get_mut(&ino) else { return false };
        if lost.last <= told.get(&handle).copied().unwrap_or(handle) {
            return false;
        }
        told.insert(handle, lost.last);
        lost.seen = true;
        true
    }

    /// The runs of a file that could not be read.
    fn runs(&self, ino: Ino) -> Vec<FileRun> {
        let Some(state) = self.state() else { return Vec::new() };
        let runs = |lost: &Lost| lost.runs.iter().map(|(at, run)| (*at, *run)).collect();
        state.files.get(&ino).map_or_else(Vec::new, runs)
    }

    /// The file is gone, or there is nothing wrong with it any more.
    pub(crate) fn forget(&self, ino: Ino) {
        if let Some(mut state) = self.state() {
            state.files.remove(&ino);
            self.count.store(state.files.len(), Ordering::Release);
        }
    }
}

fn record(run: &Run) -> Option<Lsn> {
    match &run.kind {
        PieceKind::Journal(place) => Some(place.lsn),
        _ => None,
    }
}

impl Core {
    /// Notes that journalled bytes of a file cannot be read, and says so in the log the first time. What lies in packs
    /// was certain once, and what became of it since is for whoever reads it.
    pub(crate) fn note_lost(&self, (_, ino): File, run: FileRun, why: &dyn std::fmt::Display) {
        let of_journal = matches!(run.1.kind, PieceKind::Journal(_));
        if !of_journal || self.losses.note(ino, run) {
            let chunk = match &run.1.kind {
                PieceKind::Chunk(piece) => format!(", chunk {}", piece.chunk),
                _ => String::new(),
            };
            let what = format!("{} cannot be read at {}{chunk}: {why}", self.called(ino), run.0);
            tracing::error!("{what}");
            if self.journal().is_ok() {
                self.suspect.note(&*self.disk, &what);
            }
        }
    }

    /// Whether bytes that a file has lost are still what it should hold there: they are not once they are written over,
    /// cut off, or can be read after all.
    fn still_lost(&self, ino: Ino) -> bool {
        let runs = self.losses.runs(ino);
        let lost = runs.iter().any(|(at, run)| self.cannot_read(ino, *at, run.len));
        if !lost && !runs.is_empty() {
            self.losses.forget(ino);
        }
        lost
    }

    fn cannot_read(&self, ino: Ino, at: u64, len: u64) -> bool {
        let runs = {
            let _lock = self.locks.read(ino);
            let Ok(inode) = self.inode(ino) else { return false };
            self.runs(ino, at, len.min(inode.size.saturating_sub(at)))
        };
        let readable = |runs: Vec<FileRun>| {
            runs.iter().filter(|(_, run)| matches!(run.kind, PieceKind::Journal(_))).all(|run| {
                let mut bytes = vec![0; run.1.len as usize];
                self.read_runs(std::slice::from_ref(run), run.0, &mut bytes).is_ok()
            })
        };
        !runs.is_ok_and(readable)
    }

    /// As [`Core::fsync`], through a handle that [`Losses::handle`] numbered: it is told of each error once.
    pub(crate) fn fsync_handle(&self, ino: u64, handle: u64) -> Result<(), Error> {
        self.make_certain()?;
        match self.number(ino) {
            Ok(ino) if self.losses.tell(ino, handle) => Err(Error::Io),
            _ => Ok(()),
        }
    }

    /// Everything acknowledged so far survives a power cut when this returns: one journal orders it all, so
    /// what one file needs cannot be had without the rest. An error where bytes of this file are lost, for as long
    /// as they are.
    pub(crate) fn fsync(&self, ino: u64) -> Result<(), Error> {
        self.make_certain()?;
        match self.number(ino) {
            Ok(ino) if self.still_lost(ino) => Err(Error::Io),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_format::JournalRef;

    use super::*;

    const INO: Ino = Ino(7);

    fn run(at: u64, lsn: u64) -> FileRun {
        let place = JournalRef { lsn: Lsn(lsn), segment: 1, record_offset: 0, payload_offset: at as u32 };
        (at, Run { len: 10, kind: PieceKind::Journal(place) })
    }

    #[test]
    fn each_handle_is_told_of_each_error_once() {
        let losses = Losses::new(3);
        let (first, second) = (losses.handle(INO), losses.handle(INO));
        assert!(!losses.tell(INO, first));
        assert!(losses.note(INO, run(0, 1)));
        assert!(!losses.note(INO, run(0, 1)), "the same again");
        assert!(!losses.note(INO, run(5, 1)), "another part of it");
        let unseen = losses.handle(INO);
        assert!(losses.tell(INO, first) && !losses.tell(INO, first));
        let seen = losses.handle(INO);
        assert!(losses.tell(INO, second) && !losses.tell(INO, second));
        assert!(losses.tell(INO, unseen) && !losses.tell(INO, unseen), "nobody knew when it was opened");
        assert!(!losses.tell(INO, seen), "somebody knew when it was opened");
        assert!(!losses.tell(Ino(8), first), "another file");
        assert!(losses.note(INO, run(0, 2)), "other bytes at the same place");
        for handle in [first, second, unseen, seen] {
            assert!(losses.tell(INO, handle) && !losses.tell(INO, handle));
        }
        losses.forget(INO);
        assert!(losses.note(INO, run(0, 2)), "an inode's end is the end of its errors");
    }

    #[test]
    fn a_handle_from_an_earlier_mount_is_told_of_what_a_later_one_finds() {
        let before = Losses::new(3);
        let handle = (0..100).map(|_| before.handle(INO)).last().expect("some");
        let after = Losses::new(4);
        after.note(INO, run(0, 1));
        assert!(after.tell(INO, handle) && !after.tell(INO, handle));
    }
}
