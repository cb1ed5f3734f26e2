//! How a store stands: what was healed for readers, what waits to be written back, what is lost.

use std::collections::{BTreeSet, VecDeque};
use std::time::SystemTime;

use cairn_format::{Footer, FrameEntry, PackId};

use super::{Examined, Mended, examine, mend};
use crate::disk::Disk;
use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::{DecodedFrame, PackReader, ReadError, StoreError};

/// Events that are kept to be told; older ones are only counted.
const EVENTS: usize = 256;

/// What is done about damage that a reader meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HealMode {
    /// The reader is answered from parity, and what was damaged is written back.
    #[default]
    On,
    /// The reader is answered from parity; nothing is written.
    ReadOnly,
    /// The reader gets an error.
    Off,
}

/// What became of damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HealOutcome {
    /// A reader was answered from parity.
    Answered,
    /// The damaged bytes are on the disk again.
    Rewritten,
    /// The medium refused them, and the pack was written to another place.
    Relocated,
    /// Parity did not reach.
    Lost,
}

/// Something that was healed, or could not be.
#[derive(Clone, Debug)]
pub struct HealEvent {
    /// When.
    pub at: SystemTime,
    /// The pack.
    pub pack: PackId,
    /// The first damaged byte in its file, as far as known.
    pub offset: u64,
    /// What was wrong, or what was done.
    pub what: String,
    /// What became of it.
    pub outcome: HealOutcome,
}

/// Counts since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HealCounts {
    /// Reads that were answered from parity.
    pub answered: u64,
    /// Runs of bytes that were written back.
    pub rewritten: u64,
    /// Packs that were written to another place.
    pub relocated: u64,
    /// Reads that parity could not answer.
    pub lost: u64,
    /// Packs that wait to be mended.
    pub waiting: u64,
}

/// What a store's readers share about damage.
pub struct Health {
    mode: AtomicU8,
    /// Key of the chunks' ids, which what is healed is held against.
    chunk_key: [u8; 32],
    /// Packs that somebody met damage in.
    waiting: Mutex<BTreeSet<PackId>>,
    events: Mutex<VecDeque<HealEvent>>,
    /// Held by whoever writes to a pack.
    mending: Mutex<()>,
    answered: AtomicU64,
    rewritten: AtomicU64,
    relocated: AtomicU64,
    lost: AtomicU64,
}

impl Health {
    pub(crate) fn new(chunk_key: [u8; 32]) -> Health {
        Health {
            mode: AtomicU8::new(HealMode::default() as u8),
            chunk_key,
            waiting: Mutex::default(),
            events: Mutex::default(),
            mending: Mutex::default(),
            answered: AtomicU64::new(0),
            rewritten: AtomicU64::new(0),
            relocated: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// What is done about damage.
    pub fn mode(&self) -> HealMode {
        match self.mode.load(Ordering::Relaxed) {
            m if m == HealMode::On as u8 => HealMode::On,
            m if m == HealMode::ReadOnly as u8 => HealMode::ReadOnly,
            _ => HealMode::Off,
        }
    }

    /// Has something else be done about it from now on.
    pub fn set_mode(&self, mode: HealMode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// What happened so far.
    pub fn counts(&self) -> HealCounts {
        HealCounts {
            answered: self.answered.load(Ordering::Relaxed),
            rewritten: self.rewritten.load(Ordering::Relaxed),
            relocated: self.relocated.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            waiting: self.waiting().len() as u64,
        }
    }

    /// The newest events, the oldest of them first.
    pub fn events(&self) -> Vec<HealEvent> {
        self.told().iter().cloned().collect()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<PackId>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, VecDeque<HealEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, pack: PackId, offset: u64, what: String, outcome: HealOutcome) {
        let (count, by) = match outcome {
            HealOutcome::Answered => (&self.answered, 1),
            HealOutcome::Lost => (&self.lost, 1),
            HealOutcome::Relocated => (&self.relocated, 1),
            HealOutcome::Rewritten => (&self.rewritten, 1),
        };
        count.fetch_add(by, Ordering::Relaxed);
        let mut told = self.told();
        if told.len() == EVENTS {
            told.pop_front();
        }
        told.push_back(HealEvent { at: SystemTime::now(), pack, offset, what, outcome });
    }

    /// A frame that could not be read for `error`, from parity.
    pub(crate) fn frame(
        &self,
        reader: &PackReader,
        entry: &FrameEntry,
        error: ReadError,
    ) -> Result<DecodedFrame, ReadError> {
        if self.mode() == HealMode::Off || matches!(error, ReadError::Missing { .. }) {
            return Err(error);
        }
        let healed = super::frame(reader, entry).and_then(|bytes| reader.decode(entry, &bytes).ok());
        self.answer(reader.pack(), entry.offset, error, healed.filter(|frame| self.is_right(frame)))
    }

    /// A footer that could not be read for `error`, from parity.
    pub(crate) fn footer(&self, reader: &PackReader, error: ReadError) -> Result<Footer, ReadError> {
        if self.mode() == HealMode::Off || matches!(error, ReadError::Missing { .. }) {
            return Err(error);
        }
        self.answer(reader.pack(), 0, error, super::footer(reader))
    }

    fn answer<T>(
        &self,
        pack: PackId,
        offset: u64,
        error: ReadError,
        healed: Option<T>,
    ) -> Result<T, ReadError> {
        // Not only what a reader met: what can still be mended is, before there is more.
        if self.mode() == HealMode::On {
            self.waiting().insert(pack);
        }
        match healed {
            Some(healed) => {
                tracing::warn!("answered from parity: {error}");
                self.tell(pack, offset, error.to_string(), HealOutcome::Answered);
                Ok(healed)
            }
            None => {
                self.tell(pack, offset, error.to_string(), HealOutcome::Lost);
                Err(error)
            }
        }
    }

    /// Whether the bytes of all chunks are those that their ids were made of.
    fn is_right(&self, frame: &DecodedFrame) -> bool {
        (0..frame.chunks.len() as u32).all(|slot| {
            frame
                .chunk(slot)
                .is_some_and(|(chunk, bytes)| cairn_codec::chunk_id(&self.chunk_key, bytes) == chunk.id)
        })
    }

    /// Notes that something is wrong with a pack, to be looked at by [`Health::mend_next`].
    pub(crate) fn suspect(&self, pack: PackId) {
        self.waiting().insert(pack);
    }

    /// Looks through one of the packs that damage was met in, and writes back what can be restored; which it was, or none
    /// where none waits. One that cannot be worked on waits no longer: it is met again.
    pub(crate) fn mend_next(&self, disk: &dyn Disk) -> Option<(PackId, Result<bool, StoreError>)> {
        let pack = self.waiting().pop_first()?;
        Some((pack, self.mend(disk, pack)))
    }

    /// Whether the pack was written to another place: who has it open reads the old one.
    fn mend(&self, disk: &dyn Disk, pack: PackId) -> Result<bool, StoreError> {
        let Some(examined) = examine(disk, pack, &mut |_| true)? else { return Ok(false) };
        if examined.is_whole() {
            return Ok(false);
        }
        self.write_back(disk, &examined).map(|mended| mended.relocated)
    }

    /// Writes back what can be restored of a pack, and tells of it.
    pub(crate) fn write_back(&self, disk: &dyn Disk, examined: &Examined) -> Result<Mended, StoreError> {
        let pack = examined.pack;
        // Two that write the same pack to another place would be in each other's way.
        let _turn = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
        let mended = mend(disk, examined)?;
        let outcome = if mended.relocated { HealOutcome::Relocated } else { HealOutcome::Rewritten };
        for range in &mended.restored {
            let what = format!("{} bytes at {} written back", range.end - range.start, range.start);
            tracing::warn!("pack {pack}: {what}");
            self.tell(pack, range.start, what, outcome);
        }
        for range in &mended.lost {
            tracing::error!(
                "pack {pack}: {} bytes at {} are lost: parity does not reach",
                range.end - range.start,
                range.start
            );
        }
        self.waiting().remove(&pack);
        Ok(mended)
    }

    /// The packs that damage was met in and that nobody has looked through since.
    pub fn waiting_packs(&self) -> Vec<PackId> {
        self.waiting().iter().copied().collect()
    }
}
