//! What every operation leans on: one volume's namespace, journal, store and locks, and the way an
//! operation's record goes.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cairn_codec::tensor::Batches;
use cairn_format::key::Key;
use cairn_format::{Answer, Geometry, Ino, JournalRef, Lsn, Mutation, PackId, Totals, Uuid, View};
use cairn_store::disk::Disk;
use cairn_store::heal::{HealMode, HealOutcome, HealPlace};
use cairn_store::{ReadError, Store};

use crate::ahead::Ahead;
use crate::errseq::Losses;
use crate::fold::{Bases, DirtySet};
use crate::gc::Collector;
use crate::handles::Handles;
use crate::heal::LastNamed;
use crate::journal::{Appended, Chain, Journal, JournalError, JournalShape, Need};
use crate::locks::InodeLocks;
use crate::maintenance::{Maintainer, Signal};
use crate::namespace::{FileRun, Namespace, NamespaceError};
use crate::open::Writing;
use crate::rebuild::EngineKeeper;
use crate::refill::Refiller;
use crate::request;
use crate::reserve::Reserve;
use crate::scrub::Scrubber;
use crate::space::SpaceGauge;
use crate::statistics::Counters;
use crate::suspect::Suspect;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use crate::twins::TwinMaker;
use crate::vfs::Error;

/// Inode numbers reserved at a time: the next block is synced before its first number is used.
const INO_BLOCK: u64 = 1 << 16;
/// Overlay layers may grow to this many bytes before writers wait; a checkpoint begins at half of it.
pub(crate) const OVERLAY_LIMIT: usize = 96 << 20;
/// How long a writer waits for the maintenance where there is nothing to be folded. (No time passes under a test's
/// scheduler.)
const STUCK: Duration = if cfg!(feature = "schedules") { Duration::MAX } else { Duration::from_millis(300) };
/// Keys read from the namespace at a time.
const PAGE: usize = 256;

/// The journal of a volume, or what can be read of it.
pub(crate) enum Log {
    /// Mounted for writing.
    Writing(Box<Journal>),
    /// Mounted read-only: as a scan found it.
    Reading(Box<Chain>, JournalShape),
}

impl Log {
    /// Reads journalled bytes, and checks them; where parity is what helped, the damaged file comes with it.
    fn read(&self, at: &JournalRef, out: &mut [u8], heal: bool) -> Result<Option<String>, JournalError> {
        match self {
            Log::Writing(journal) => journal.read_healing((at, 0), out, heal),
            Log::Reading(chain, shape) => chain.read_healing(shape, at, out, heal),
        }
    }
}

/// Somebody who is told of inodes, by `st_ino`. Locks are held meanwhile: it must not wait.
pub(crate) type FoldListener = Box<dyn Fn(u64) + Send + Sync>;

/// The names of the packs that a mount makes.
pub(crate) struct PackNames {
    pub(crate) session: u64,
    pub(crate) epoch: u32,
    pub(crate) next: AtomicU32,
}

impl PackNames {
    pub(crate) fn next(&self) -> PackId {
        PackId::new(self.session, self.epoch, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Inode numbers that may be given out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InoBlock {
    pub(crate) next: u64,
    pub(crate) end: u64,
}

/// One open volume.
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) uuid: Uuid,
    pub(crate) view: View,
    pub(crate) geometry: Geometry,
    pub(crate) store: Store,
    pub(crate) log: Log,
    pub(crate) ns: Namespace,
    pub(crate) locks: InodeLocks,
    pub(crate) handles: Handles,
    pub(crate) dirty: DirtySet,
    /// Files that have lost journalled bytes.
    pub(crate) losses: Losses,
    pub(crate) inos: Mutex<InoBlock>,
    pub(crate) packs: PackNames,
    /// Held shared from a record's append until it is applied; a freeze takes it alone, so that a frozen
    /// layer holds all records up to its LSN and none behind it.
    pub(crate) gate: RwLock<()>,
    /// Held by whoever folds or checkpoints. Never taken while an inode is locked.
    pub(crate) maintainer: Mutex<Maintainer>,
    pub(crate) signal: Signal,
    pub(crate) engine: EngineKeeper,
    /// What the last checkpoint's state adds up to.
    pub(crate) totals: Mutex<Totals>,
    /// Whether a thread does the maintenance; else callers do.
    pub(crate) background: bool,
    pub(crate) space: SpaceGauge,
    pub(crate) kept: Reserve,
    pub(crate) twins: TwinMaker,
    /// Who collects garbage, and what there is to collect.
    pub(crate) collector: Collector,
    /// What chunks of tensors are known by, that others may be differences from.
    pub(crate) bases: Bases,
    /// What is decoded before somebody asks for it.
    pub(crate) ahead: Ahead,
    /// The file that the log named last.
    pub(crate) last_named: LastNamed,
    /// Who scrubs.
    pub(crate) scrubber: Scrubber,
    /// Who has lost data back from elsewhere.
    pub(crate) refiller: Refiller,
    /// Inode numbers from here on were given out by this mount.
    pub(crate) first_new: u64,
    /// Whether this mount gave any file capabilities.
    pub(crate) capabilities: AtomicBool,
    /// How what is written from now on is stored, where its file says nothing else.
    pub(crate) writing: Writing,
    /// Who codes tensors elsewhere than on the processor.
    pub(crate) batches: Option<Arc<dyn Batches>>,
    pub(crate) counters: Counters,
    /// Told of files that take another amount of room since they were folded.
    pub(crate) on_folded: OnceLock<FoldListener>,
    /// Told of operations whose record is in the journal and that nobody was told of yet.
    pub(crate) on_concluded: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Serialises renames of directories, so that no two of them make a cycle.
    pub(crate) tree: Mutex<()>,
    /// Whether it was noted that something is wrong with the volume.
    pub(crate) suspect: Suspect,
}

/// From when on somebody waits for room, and how far the maintenance was then.
struct Waiting {
    since: Instant,
    progress: u64,
    rounds: u64,
}

impl Waiting {
    fn since_now(signal: &Signal) -> Waiting {
        Waiting { since: Instant::now(), progress: signal.progress(), rounds: signal.rounds() }
    }
}

impl Core {
    /// The journal, if the volume takes writes.
    pub(crate) fn journal(&self) -> Result<&Journal, Error> {
        match &self.log {
            Log::Writing(journal) => Ok(journal),
            Log::Reading(..) => Err(Error::ReadOnly),
        }
    }

    /// Waits until an operation that appends about `len` bytes may begin. To be called with no lock held:
    /// making room takes locks.
    pub(crate) fn reserve(&self, need: Need, len: u64) -> Result<(), Error> {
        let journal = self.journal()?;
        let mut waiting: Option<Waiting> = None;
        loop {
            let seen = journal.room_notices();
            // Before it is looked whether there is room: on a busy machine room may be made, and taken by others, before
            // this thread comes to its next line.
            let now = Waiting::since_now(&self.signal);
            if journal.stopped().is_some() {
                return Err(Error::ReadOnly);
            }
            if journal.has_room(len + 512, need, self.journal_may_grow(need))
                && self.overlay_has_room()
                && self.disk_has_room(need, len)
            {
                return Ok(());
            }
            let waiting = match &mut waiting {
                Some(waiting) if waiting.progress == now.progress => waiting,
                other => other.insert(now),
            };
            if self.background {
                self.signal.wake_urgently();
                journal.wait_room(seen, Duration::from_millis(50));
            } else {
                let _ = crate::maintenance::maintain(self, true);
            }
            self.space.refresh();
            if self.signal.progress() != waiting.progress {
                continue;
            }
            // Nothing was folded and nothing is left to fold, or folding fails: there is no room to wait for, unless packs
            // can be compacted.
            let collecting =
                !self.disk_has_room(need, len) && self.background && self.collector.ask_for_room();
            let idle = self.signal.is_idle_or_failing() && !collecting;
            // A round that began since then, not one that was over before: the thread may be late.
            let looked = self.signal.rounds() >= waiting.rounds + 2;
            if idle && (!self.background || (looked && waiting.since.elapsed() > STUCK)) {
                // What protects segments takes room that is worth more now.
                if !self.disk_has_room(need, len) && journal.give_up_parity() {
                    self.space.refresh();
                    continue;
                }
                // What was kept for this makes another segment.
                if need == Need::Shrink && self.kept.release(&*self.disk) {
                    self.space.refresh();
                    continue;
                }
                return Err(Error::NoSpace);
            }
        }
    }

    /// Reads journalled bytes, and checks them.
    pub(crate) fn read_journalled(&self, at: &JournalRef, out: &mut [u8]) -> Result<(), JournalError> {
        let health = self.store.health();
        if let Some(path) = self.log.read(at, out, health.mode() != HealMode::Off)? {
            let what = format!("record {} in segment {} is damaged", at.lsn, at.segment);
            tracing::warn!("answered from parity: {path}: {what}");
            let place = HealPlace::Segment(path);
            health.tell_of(place, at.record_offset.into(), what, HealOutcome::Answered);
            if self.background {
                self.signal.wake();
            }
        }
        Ok(())
    }

    /// Whether the volume takes no writes, or none any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.journal().map_or(true, |journal| journal.stopped().is_some())
    }

    /// Whether an operation that adds would have to wait for the journal or the overlay.
    pub(crate) fn is_pressed(&self) -> bool {
        let full = |journal: &Journal| !journal.has_room(0, Need::Grow, true) || !self.overlay_has_room();
        self.journal().is_ok_and(full)
    }

    fn overlay_has_room(&self) -> bool {
        let (active, frozen) = self.ns.overlay_bytes();
        active + frozen < OVERLAY_LIMIT
    }

    /// Appends an operation's record and applies it. The caller holds the locks of all inodes whose keys
    /// it read, and reserved room before.
    pub(crate) fn commit(&self, mutations: &[Mutation], payload: &[u8]) -> Result<Appended, Error> {
        self.commit_answer(mutations, payload, Answer::default())
    }

    /// The same for a record that concludes what the caller was asked for: `value` is what the answer is made from
    /// again, should this process die before it gave it.
    pub(crate) fn conclude(
        &self,
        mutations: &[Mutation],
        payload: &[u8],
        value: u64,
    ) -> Result<Appended, Error> {
        let at = self.commit_answer(mutations, payload, request::conclude(value))?;
        if let Some(tell) = self.on_concluded.get() {
            tell();
        }
        Ok(at)
    }

    fn commit_answer(
        &self,
        mutations: &[Mutation],
        payload: &[u8],
        answer: Answer,
    ) -> Result<Appended, Error> {
        let journal = self.journal()?;
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let at = journal.append_answer(mutations, payload, answer).map_err(journal_error)?;
        mutations.iter().for_each(|m| self.dirty.note_mutation(m, at.lsn, Lsn::ZERO));
        self.ns.apply(mutations, &at);
        drop(gate);
        self.counters.records.add(1);
        if self.background && self.dirty.backlog().0 > self.fold_start() {
            self.signal.wake();
        }
        Ok(at)
    }

    /// What the last checkpoint's state adds up to.
    pub(crate) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A checkpoint adds up to this.
    pub(crate) fn set_totals(&self, totals: Totals) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }

    /// Bytes to be folded at which folding begins without waiting for quiet.
    pub(crate) fn fold_start(&self) -> u64 {
        u64::from(self.geometry.segment) * u64::from(self.geometry.segments) / 4
    }

    /// A number that no inode ever had. To be called with no lock held.
    pub(crate) fn new_ino(&self) -> Result<Ino, Error> {
        let mut block = self.inos.lock().unwrap_or_else(PoisonError::into_inner);
        if block.next == block.end {
            if block.end + INO_BLOCK > Ino::MAX.0 {
                return Err(Error::NoSpace);
            }
            let end = block.end + INO_BLOCK;
            let at = self.commit(&[reserve_inos(end)], &[])?;
            self.journal()?.sync(at.lsn).map_err(journal_error)?;
            block.end = end;
        }
        block.next += 1;
        Ok(Ino(block.next - 1))
    }

    /// Reads from the namespace. An engine that fails is rebuilt, and asked again.
    pub(crate) fn look<T>(
        &self,
        read: impl Fn(&Namespace) -> Result<T, NamespaceError>,
    ) -> Result<T, NamespaceError> {
        let generation = self.ns.generation();
        match read(&self.ns) {
            Err(NamespaceError::Engine(error)) => match self.replace_engine(generation, &error) {
                Ok(()) => read(&self.ns),
                Err(_) => Err(error.into()),
            },
            result => result,
        }
    }

    /// What was read of the namespace, or an I/O error.
    pub(crate) fn checked<T>(&self, result: Result<T, NamespaceError>) -> Result<T, Error> {
        result.map_err(|error| {
            tracing::error!("{error}");
            self.counters.io_errors.add(1);
            Error::Io
        })
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        self.checked(self.look(|ns| ns.get(key)))
    }

    /// The runs of a part of a file.
    pub(crate) fn runs(&self, ino: Ino, offset: u64, len: u64) -> Result<Vec<FileRun>, Error> {
        self.checked(self.look(|ns| ns.runs(self.view, ino, offset, len)))
    }

    /// Calls `each` with all keys in `from..to` and their values, until it breaks.
    pub(crate) fn for_each(
        &self,
        from: &[u8],
        to: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut next = Some(from.to_vec());
        while let Some(from) = next {
            let (page, rest) = self.checked(self.look(|ns| ns.page(&from, to, PAGE)))?;
            for (key, value) in &page {
                if each(key, value).is_break() {
                    return Ok(());
                }
            }
            next = rest;
        }
        Ok(())
    }
}

/// The reservation of all inode numbers below `end`.
pub(crate) fn reserve_inos(end: u64) -> Mutation {
    Mutation::Put { key: Key::NextInode.encode(), value: end.to_le_bytes().to_vec() }
}

/// The numbers that the first record of a mount reserves.
pub(crate) fn first_ino_block(next: u64) -> InoBlock {
    InoBlock { next, end: (next + INO_BLOCK).min(Ino::MAX.0) }
}

/// What an operation answers where the journal did not take its record.
pub(crate) fn journal_error(error: JournalError) -> Error {
    match error {
        JournalError::Full => Error::NoSpace,
        // The journal logged the reason when it stopped.
        JournalError::Stopped(_) => Error::Io,
        JournalError::Gone(_) | JournalError::Damaged { .. } => Error::Io,
    }
}

/// What went wrong when a file's bytes were read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BytesError {
    #[error(transparent)]
    Chunk(#[from] ReadError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}
