//! Refill: what parity cannot restore is stored anew from bytes that somebody else has. Any bytes will do whose hash is the
//! chunk's id, wherever they come from.
//!
//! A run goes through packs as a scrub does, and lists the chunks that cannot be read and that files need (`wanted.rs`). Its
//! caller looks for them ([`Seeker`], `seek.rs`) and offers what it found; what is offered counts only where its keyed hash
//! says so. It goes into new packs by the fold's own pipeline, and once they are certain every place of every file that named
//! the lost copy names the new one: a compare-and-swap, as in a fold. Then damaged packs that nobody needs the lost parts of
//! are emptied as compaction does, and die as any other pack.
//!
//! Nothing of this is on disk but new packs and records: a run that is cut is done again, and finds what the one before it
//! stored.
//!
//! Architecture Invariant: no file or directory outside the volume is opened here. Whoever asks reads those, with its own
//! rights and in its own namespace; and a daemon that read from its own mount could not be ended.

mod pack_file;
mod seek;
mod settle;
mod volume_source;
mod wanted;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use cairn_codec::chunk_id;
use cairn_format::{ChunkId, Compression, PackId};
use cairn_store::{Located, Pins, StoreError};

use crate::checkpoint::MaintainError;
use crate::core::Core;
use crate::fold::{Place, with_packer};
use crate::gc::{GcError, keep_pinned};
use crate::maintenance::checkpoint_now;
use crate::scrub::{Affected, LostPlaces, ScrubError, ScrubFile, ScrubOptions, ScrubReport, find_lost};
use crate::sync::{Mutex, MutexGuard, PoisonError};
pub use seek::{Finds, OpensCopies, Seeker, SourceFile};
pub use volume_source::VolumeSource;
pub use wanted::{Wanted, WantedChunk, WantedFile};

/// Chunks that are looked for at a time: each takes some 150 bytes of memory.
const MOST: usize = 300_000;
/// Bytes that wait to be put into a pack, at most.
const BATCH: u64 = 32 << 20;

/// How what is lost is looked for, and had back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefillOptions {
    /// Hold each chunk of all packs against its id, too.
    pub deep: bool,
    /// Look only at packs that the last scrub or run met damage in, and at missing ones.
    pub errors_only: bool,
    /// Packs that are gone through at a time.
    pub threads: usize,
    /// Whether to leave most of the disk's time to others while they ask for something.
    pub gentle: bool,
    /// Only look: nothing is changed.
    pub dry_run: bool,
    /// Chunks that are looked for at a time; where more are lost sources are gone through as often.
    pub most: usize,
}

impl Default for RefillOptions {
    fn default() -> Self {
        RefillOptions {
            deep: false,
            errors_only: false,
            threads: 1,
            gentle: false,
            dry_run: false,
            most: MOST,
        }
    }
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefillStep {
    /// It goes through packs for what is damaged.
    #[default]
    Scrubbing,
    /// It looks for the files that need what is lost.
    Listing,
    /// It stores what was found, and has files name that.
    Storing,
    /// It moves what is whole out of packs that are damaged.
    Emptying,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefillProgress {
    /// What it is doing.
    pub step: RefillStep,
    /// Bytes of the packs that it goes through, and how many were read.
    pub bytes_total: u64,
    /// See `bytes_total`.
    pub bytes: u64,
    /// Chunks that are lost as far as known, and how many of them were found.
    pub chunks_lost: u64,
    /// See `chunks_lost`.
    pub chunks_found: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefillReport {
    /// Sectors of packs that parity restored.
    pub corrected: u64,
    /// Packs that something cannot be read of, or that are missing; when the run began.
    pub packs_damaged: u64,
    /// Chunks that files need and that cannot be read where they should be; the places in files that they are needed at, the
    /// bytes of those, and the files: when the run began.
    pub chunks_lost: u64,
    /// See `chunks_lost`.
    pub places_lost: u64,
    /// See `chunks_lost`.
    pub bytes_lost: u64,
    /// See `chunks_lost`.
    pub files_lost: u64,
    /// Of those chunks, what the store has in another place.
    pub chunks_known: u64,
    /// Of those chunks, what was offered.
    pub chunks_found: u64,
    /// Chunks that were stored anew, their bytes before they are compressed, and the packs written.
    pub chunks_stored: u64,
    /// See `chunks_stored`.
    pub bytes_stored: u64,
    /// See `chunks_stored`.
    pub packs_written: u64,
    /// Places in files that name a copy that can be read instead of a lost one.
    pub places_refilled: u64,
    /// Damaged or missing packs that nothing refers to any more.
    pub packs_dropped: u64,
    /// Files that something of is lost still.
    pub files: Vec<ScrubFile>,
    /// Whether there are more than `files` lists.
    pub more: bool,
    /// How long it took.
    pub took: Duration,
}

/// Why what is lost could not be had back. What was is, and the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum RefillError {
    /// Another run is under way.
    #[error("lost data is being looked for already")]
    Busy,
    /// The volume takes no writes.
    #[error("the volume takes no writes")]
    ReadOnly,
    /// It was asked to end, or the volume is being closed.
    #[error("it was stopped")]
    Stopped,
    /// Nothing more can be stored.
    #[error("the disk has no room for what was found: free some, and run it again")]
    NoRoom,
    /// It could not be found out what is damaged.
    #[error(transparent)]
    Scrub(#[from] ScrubError),
    /// Folding or a checkpoint failed.
    #[error(transparent)]
    Failed(MaintainError),
}

impl From<MaintainError> for RefillError {
    fn from(error: MaintainError) -> RefillError {
        match error.is_full() {
            true => RefillError::NoRoom,
            false => RefillError::Failed(error),
        }
    }
}

impl From<StoreError> for RefillError {
    fn from(error: StoreError) -> RefillError {
        MaintainError::from(error).into()
    }
}

/// Called now and then, with no lock held; says whether to go on.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(&RefillProgress) -> bool;

/// Who refills.
#[derive(Default)]
pub(crate) struct Refiller {
    /// Held by the run under way, also while its caller looks for something.
    turn: Mutex<()>,
    /// Held while that works on the volume.
    step: Mutex<()>,
}

impl Refiller {
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(crate::sync::TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(crate::sync::TryLockError::WouldBlock) => None,
        }
    }

    fn step(&self) -> MutexGuard<'_, ()> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is done to the volume any more by a run, which was told to end.
    pub(crate) fn wait(&self) {
        drop(self.step());
    }
}

/// A chunk on its way into a pack.
struct Offered {
    id: ChunkId,
    plain: Vec<u8>,
    compression: Compression,
}

/// A run under way.
pub struct Refill<'a> {
    core: &'a Core,
    options: RefillOptions,
    _turn: MutexGuard<'a, ()>,
    since: Instant,
    lost: LostPlaces,
    /// Where the list of what is lost goes on; none where it is at its end.
    cursor: Option<Vec<u8>>,
    /// What is looked for, with its length and a compression that a file of it asks for.
    wanted: HashMap<ChunkId, (u32, Compression)>,
    /// What was found and is in no pack yet, and its bytes.
    offered: Vec<Offered>,
    offered_bytes: u64,
    /// Where chunks lie from here on that files name as lost, and what keeps those packs.
    places: HashMap<ChunkId, Located>,
    pins: Pins,
    /// The file that was counted last.
    counted: Option<cairn_format::Ino>,
    report: RefillReport,
}

/// Goes through the packs, and begins a run.
pub(crate) fn begin<'a>(
    core: &'a Core,
    options: &RefillOptions,
    tell: Tell<'_>,
) -> Result<Refill<'a>, RefillError> {
    let Some(turn) = core.refiller.turn() else { return Err(RefillError::Busy) };
    let since = Instant::now();
    if !options.dry_run {
        if core.is_stopped() {
            return Err(RefillError::ReadOnly);
        }
        let _step = core.refiller.step();
        // Extents are gone through in the engine: it is to have all.
        checkpoint_now(core)?;
    }
    let scrub = ScrubOptions {
        deep: options.deep,
        errors_only: options.errors_only,
        threads: options.threads,
        gentle: options.gentle,
        repair: !options.dry_run,
        ..ScrubOptions::default()
    };
    let (found, lost) = find_lost(core, &scrub, &mut |at| {
        tell(&RefillProgress { bytes_total: at.bytes_total, bytes: at.bytes, ..RefillProgress::default() })
    })?;
    let ScrubReport { corrected, packs_uncorrected, stopped, .. } = found;
    if stopped.is_some() {
        return Err(RefillError::Stopped);
    }
    let cursor = (!lost.is_empty()).then(wanted::first);
    Ok(Refill {
        core,
        options: options.clone(),
        _turn: turn,
        since,
        lost,
        cursor,
        wanted: HashMap::new(),
        offered: Vec::new(),
        offered_bytes: 0,
        places: HashMap::new(),
        pins: Pins::default(),
        counted: None,
        report: RefillReport { corrected, packs_damaged: packs_uncorrected, ..RefillReport::default() },
    })
}

impl Refill<'_> {
    /// What is to be looked for next; none where there is nothing more. What was offered before is settled first: files name
    /// it. What the store has in another place, or in memory, is not asked for.
    pub fn next(&mut self, tell: Tell<'_>) -> Result<Option<Wanted>, RefillError> {
        let core = self.core;
        let _step = core.refiller.step();
        self.go_on()?;
        loop {
            self.settle(tell)?;
            self.wanted.clear();
            if self.cursor.is_none() {
                return Ok(None);
            }
            let wanted = self.list(tell)?;
            if !wanted.files.is_empty() {
                return Ok(Some(wanted));
            }
        }
    }

    /// Takes a chunk's bytes, if they are those of one that is looked for; whether they are.
    pub fn offer(&mut self, plain: &[u8]) -> Result<bool, RefillError> {
        let id = chunk_id(self.core.store.chunk_key(), plain);
        let Some((_, compression)) = self.wanted.get(&id).filter(|(len, _)| *len as usize == plain.len())
        else {
            return Ok(false);
        };
        let compression = *compression;
        self.wanted.remove(&id);
        self.report.chunks_found += 1;
        self.take(Offered { id, plain: plain.to_vec(), compression })?;
        Ok(true)
    }

    fn take(&mut self, offered: Offered) -> Result<(), RefillError> {
        if self.options.dry_run {
            // Where it would be.
            let nowhere =
                Located { pack: PackId::default(), frame: 0, slot: 0, len: 0, stored: 0, base: None };
            self.places.insert(offered.id, nowhere);
            return Ok(());
        }
        self.offered_bytes += offered.plain.len() as u64;
        self.offered.push(offered);
        let core = self.core;
        match self.offered_bytes >= BATCH.min(core.pack_size()).min(core.fold_start()) {
            true => self.store(),
            false => Ok(()),
        }
    }

    /// Puts what was found into a new pack, sealed and synced.
    fn store(&mut self) -> Result<(), RefillError> {
        let (core, offered) = (self.core, std::mem::take(&mut self.offered));
        self.offered_bytes = 0;
        if offered.is_empty() {
            return Ok(());
        }
        self.go_on()?;
        if !core.has_room_to_fold() {
            return Err(RefillError::NoRoom);
        }
        let mut places = Vec::with_capacity(offered.len());
        let sealed = with_packer(core, |packer| {
            for Offered { id, plain, compression } in &offered {
                packer.compress_with(*compression);
                places.push((*id, packer.store_anew(id, plain)));
            }
            Ok(())
        })?;
        let Some(sealed) = sealed else { return Ok(()) };
        core.store.publish(&sealed, Some(&mut self.pins));
        core.counters.packs_written.add(1);
        core.counters.stored_bytes.add(sealed.file_len);
        self.report.packs_written += 1;
        self.report.chunks_stored += offered.len() as u64;
        self.report.bytes_stored += offered.iter().map(|offered| offered.plain.len() as u64).sum::<u64>();
        for (id, place) in places {
            if let Place::New { frame, slot } = place
                && let Some(located) = settle::located(&sealed.footer, frame, slot)
            {
                self.places.insert(id, located);
            }
        }
        Ok(())
    }

    /// Ends the run: packs that nobody needs what is lost of go, and what is lost still is named. Nothing may be looked for
    /// any more, or it counts as lost.
    pub fn finish(mut self, tell: Tell<'_>) -> Result<RefillReport, RefillError> {
        let core = self.core;
        let _step = core.refiller.step();
        self.go_on()?;
        self.settle(tell)?;
        let still = self.still_lost()?;
        if !self.options.dry_run {
            self.empty(&still.1, tell)?;
        }
        let Affected { files, more } = still.0;
        self.report.files = files;
        self.report.more = more;
        self.report.took = self.since.elapsed();
        Ok(std::mem::take(&mut self.report))
    }

    /// Moves what is whole out of damaged packs that nobody needs the rest of, so that they go.
    fn empty(&mut self, needed: &HashSet<PackId>, tell: Tell<'_>) -> Result<(), RefillError> {
        let core = self.core;
        let ahead: HashSet<PackId> =
            self.lost.damaged.iter().filter(|pack| !needed.contains(pack)).copied().collect();
        if ahead.is_empty() {
            return Ok(());
        }
        let progress = self.progress(RefillStep::Emptying);
        let emptied = crate::gc::empty(core, &ahead, &mut |_| match tell(&progress) {
            true => std::ops::ControlFlow::Continue(()),
            false => std::ops::ControlFlow::Break(()),
        });
        match emptied {
            // They are as they were: `cairn gc` empties them, too.
            Ok(_) | Err(GcError::Busy) => {}
            Err(GcError::ReadOnly) => return Err(RefillError::ReadOnly),
            Err(GcError::Failed(error)) => return Err(error.into()),
        }
        self.report.packs_dropped = settle::drop_forgotten(core, &ahead)?;
        Ok(())
    }

    fn progress(&self, step: RefillStep) -> RefillProgress {
        RefillProgress {
            step,
            chunks_lost: self.report.chunks_lost,
            chunks_found: self.report.chunks_known + self.report.chunks_found,
            ..RefillProgress::default()
        }
    }

    /// Whether the volume is not being closed.
    fn go_on(&self) -> Result<(), RefillError> {
        if self.core.signal.is_stopping() {
            return Err(RefillError::Stopped);
        }
        match !self.options.dry_run && self.core.is_stopped() {
            true => Err(RefillError::ReadOnly),
            false => Ok(()),
        }
    }

    /// Tells how far it is.
    fn told(&self, step: RefillStep, tell: Tell<'_>) -> Result<(), RefillError> {
        self.go_on()?;
        match tell(&self.progress(step)) {
            true => Ok(()),
            false => Err(RefillError::Stopped),
        }
    }
}

impl Drop for Refill<'_> {
    /// Records may name packs that no checkpoint has counted yet.
    fn drop(&mut self) {
        let pins = std::mem::take(&mut self.pins);
        // Where the volume takes no writes no checkpoint drops anything, either.
        let _ = keep_pinned(self.core, pins);
    }
}
