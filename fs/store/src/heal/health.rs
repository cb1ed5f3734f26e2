//! How a store stands: what was healed for readers, what waits to be written back, what is lost.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::SystemTime;

use cairn_format::{Footer, FrameEntry, PackId};

use super::hopeless::{Hopeless, Part};
use super::{Examined, Mended, examine, mend};
use crate::disk::Disk;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::{DecodedFrame, PackReader, Place, ReadError, StoreError};

/// Events that are kept to be told; older ones are only counted.
const EVENTS: usize = 256;
/// Frames that are remembered to be lost; of more, some are forgotten, and are met again.
const LOST: usize = 1 << 16;

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

/// What damage was met in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HealPlace {
    /// A pack.
    Pack(PackId),
    /// A segment of a journal: the path of its file in the volume's directory.
    Segment(String),
}

/// Something that was healed, or could not be.
#[derive(Clone, Debug)]
pub struct HealEvent {
    /// When.
    pub at: SystemTime,
    /// The pack or segment.
    pub place: HealPlace,
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
    /// Packs that wait to be mended, and the one that is being mended.
    pub waiting: u64,
}

/// What a store's readers share about damage.
pub struct Health {
    mode: AtomicU8,
    /// Key of the chunks' ids, which what is healed is held against.
    chunk_key: [u8; 32],
    /// Packs that somebody met damage in.
    waiting: Mutex<BTreeSet<PackId>>,
    /// Told when another waits, and when whoever waits for that is to look up.
    changed: Condvar,
    /// The pack that is being mended, locked while that begins.
    mending: Mutex<Option<PackId>>,
    /// Frames that could not be read when they were last tried.
    known_lost: Mutex<BTreeSet<(PackId, u32)>>,
    /// Whether there are any: nearly always not, and every read asks.
    any_lost: AtomicBool,
    hopeless: Hopeless,
    events: Mutex<VecDeque<HealEvent>>,
    /// Held by whoever writes to a pack.
    writing: Mutex<()>,
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
            changed: Condvar::new(),
            mending: Mutex::default(),
            known_lost: Mutex::default(),
            any_lost: AtomicBool::new(false),
            hopeless: Hopeless::default(),
            events: Mutex::default(),
            writing: Mutex::default(),
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
        self.wake();
    }

    /// Waits until a pack waits to be mended and may be, or there is something `else_to_do` (`true`), or until `ended` says so
    /// (`false`); both are asked again whenever [`Health::wake`] is called.
    pub fn wait_for_work(&self, ended: impl Fn() -> bool, else_to_do: impl Fn() -> bool) -> bool {
        let mut waiting = self.waiting();
        loop {
            if ended() {
                return false;
            }
            if (self.mode() == HealMode::On && !waiting.is_empty()) || else_to_do() {
                return true;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has whoever waits for damage look up.
    pub fn wake(&self) {
        // Under the lock, so that nobody is between looking and waiting.
        let _waiting = self.waiting();
        self.changed.notify_all();
    }

    /// What happened so far.
    pub fn counts(&self) -> HealCounts {
        let mending = u64::from(self.mending().is_some());
        HealCounts {
            answered: self.answered.load(Ordering::Relaxed),
            rewritten: self.rewritten.load(Ordering::Relaxed),
            relocated: self.relocated.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            waiting: self.waiting().len() as u64 + mending,
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
        self.tell_of(HealPlace::Pack(pack), offset, what, outcome);
    }

    /// Counts, and keeps to be told, what became of damage that somebody else deals with.
    pub fn tell_of(&self, place: HealPlace, offset: u64, what: String, outcome: HealOutcome) {
        let (count, by) = match outcome {
            HealOutcome::Answered => (&self.answered, 1),
            HealOutcome::Lost => (&self.lost, 1),
            HealOutcome::Relocated => (&self.relocated, 1),
            HealOutcome::Rewritten => (&self.rewritten, 1),
        };
        count.fetch_add(by, Ordering::Relaxed);
        let mut told = self.told();
        let again = |told: &HealEvent| (&told.place, told.offset, told.outcome) == (&place, offset, outcome);
        if outcome == HealOutcome::Lost && told.iter().any(again) {
            // Whoever reads it again and again is not to push out what else there is to tell.
            return;
        }
        if told.len() == EVENTS {
            told.pop_front();
        }
        told.push_back(HealEvent { at: SystemTime::now(), place, offset, what, outcome });
    }

    /// A frame that could not be read for `error`, from parity, or from another copy on the disk.
    pub(crate) fn frame(
        &self,
        disk: &dyn Disk,
        reader: &PackReader,
        entry: &FrameEntry,
        error: ReadError,
    ) -> Result<DecodedFrame, ReadError> {
        if self.mode() == HealMode::Off || matches!(error, ReadError::Missing { .. }) {
            return Err(error);
        }
        let healed = self.hopeless.attempt(reader.pack(), Part::Frame(entry.offset), || {
            let bytes = super::frame(Some(disk), reader, entry)?;
            reader.decode(entry, &bytes).ok().filter(|frame| self.is_right(frame))
        });
        self.answer(reader.pack(), entry.offset, error, healed.map(DecodedFrame::healed))
    }

    /// As [`Health::frame`], a footer.
    pub(crate) fn footer(
        &self,
        disk: &dyn Disk,
        reader: &PackReader,
        error: ReadError,
    ) -> Result<Footer, ReadError> {
        if self.mode() == HealMode::Off || matches!(error, ReadError::Missing { .. }) {
            return Err(error);
        }
        let healed = self.hopeless.attempt(reader.pack(), Part::Footer, || super::footer(Some(disk), reader));
        self.answer(reader.pack(), 0, error, healed)
    }

    /// A pack that could not be opened, from another copy.
    pub(crate) fn pack(
        &self,
        disk: &dyn Disk,
        pack: PackId,
        error: ReadError,
    ) -> Result<PackReader, ReadError> {
        if self.mode() == HealMode::Off {
            return Err(error);
        }
        match PackReader::open_any(disk, pack) {
            Ok(found) => self.answer(pack, 0, error, Some(found)),
            // Dropped, most likely.
            Err(_) => Err(error),
        }
    }

    fn answer<T>(
        &self,
        pack: PackId,
        offset: u64,
        error: ReadError,
        healed: Option<T>,
    ) -> Result<T, ReadError> {
        match healed {
            Some(healed) => {
                tracing::warn!("answered from parity, or a second copy: {error}");
                self.suspect(pack);
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
        // One without its base has its frame's checksum, and those of its blocks.
        frame.base.is_some()
            || (0..frame.chunks.len() as u32).all(|slot| {
                frame
                    .chunk(slot)
                    .is_some_and(|(chunk, bytes)| cairn_codec::chunk_id(&self.chunk_key, bytes) == chunk.id)
            })
    }

    /// Notes that something is wrong with a pack, to be looked at by [`Health::mend_next`].
    pub(crate) fn suspect(&self, pack: PackId) {
        // Where nothing is written now it may be later.
        if self.mode() != HealMode::Off && self.waiting().insert(pack) {
            self.wake();
        }
    }

    fn known_lost(&self) -> MutexGuard<'_, BTreeSet<(PackId, u32)>> {
        self.known_lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a frame could not be read when it was last tried.
    pub(crate) fn is_lost(&self, pack: PackId, frame: u32) -> bool {
        self.any_lost.load(Ordering::Acquire) && self.known_lost().contains(&(pack, frame))
    }

    /// A frame was read, or could not be, parity or not.
    pub(crate) fn note_frame(&self, pack: PackId, frame: u32, lost: bool) {
        if !lost && !self.any_lost.load(Ordering::Acquire) {
            return;
        }
        if !lost {
            self.known_lost().remove(&(pack, frame));
        } else if self.note_lost(pack, frame) {
            // Not only what a reader met: what can still be mended is, before there is more. Once: what is lost stays so.
            self.suspect(pack);
        }
    }

    /// A frame cannot be read, as somebody found who looked through its pack; whether that was not known.
    pub(crate) fn note_lost(&self, pack: PackId, frame: u32) -> bool {
        let mut known = self.known_lost();
        let is_new = known.insert((pack, frame));
        self.any_lost.store(true, Ordering::Release);
        while known.len() > LOST {
            known.pop_first();
        }
        is_new
    }

    /// The packs that frames are lost of, as far as that is known.
    pub fn packs_with_losses(&self) -> Vec<PackId> {
        let mut packs: Vec<PackId> = self.known_lost().iter().map(|(pack, _)| *pack).collect();
        packs.dedup();
        packs
    }

    /// Whether damage was met in a pack, and nobody has looked through it since: which of its frames are lost is not known.
    pub(crate) fn is_suspect(&self, pack: &PackId) -> bool {
        // One lock after the other: who mends holds the second while it takes the first.
        let is_waiting = self.waiting().contains(pack);
        is_waiting || *self.mending() == Some(*pack)
    }

    /// A pack is gone, or whole again.
    fn forget_lost(&self, pack: PackId) {
        self.known_lost().retain(|(of, _)| *of != pack);
        self.hopeless.forget(pack);
    }

    /// Runs `remove`, which takes a pack away. Whether the pack is being mended, and may come back by that.
    pub(crate) fn while_none_begins<T>(&self, pack: PackId, remove: impl FnOnce() -> T) -> (T, bool) {
        let mending = self.mending();
        let removed = remove();
        self.forget_lost(pack);
        self.waiting().remove(&pack);
        (removed, *mending == Some(pack))
    }

    fn mending(&self) -> MutexGuard<'_, Option<PackId>> {
        self.mending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks through one of the packs that damage was met in, and writes back what can be restored; which it was, or none
    /// where none waits. One that cannot be worked on waits no longer: it is met again. `note` hears of it while the pack is
    /// suspect still.
    pub(crate) fn mend_next(
        &self,
        disk: &dyn Disk,
        is_known: impl Fn(&PackId) -> bool,
        note: impl FnOnce(PackId, &Mended),
    ) -> Option<(PackId, Result<Mended, StoreError>)> {
        let pack = {
            let mut mending = self.mending();
            let pack = self.waiting().pop_first()?;
            *mending = Some(pack);
            pack
        };
        let mended = self.mend(disk, pack, is_known(&pack));
        if let Ok(mended) = &mended {
            note(pack, mended);
        }
        *self.mending() = None;
        Some((pack, mended))
    }

    fn mend(&self, disk: &dyn Disk, pack: PackId, known: bool) -> Result<Mended, StoreError> {
        let Some(examined) = examine(disk, pack, &mut |_| true)? else { return Ok(Mended::default()) };
        if examined.missing && !known {
            // It was dropped, and its twin goes next.
            return Ok(Mended::default());
        }
        if examined.is_whole() {
            self.forget_lost(pack);
            return Ok(Mended::default());
        }
        self.write_back(disk, &examined)
    }

    /// Writes back what can be restored of a pack, and tells of it.
    pub(crate) fn write_back(&self, disk: &dyn Disk, examined: &Examined) -> Result<Mended, StoreError> {
        let (pack, of) =
            (examined.pack, if examined.place == Place::Pack { "pack" } else { "the twin of pack" });
        // Two that write the same pack to another place would be in each other's way.
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mended = mend(disk, examined)?;
        for range in runs(&mended.restored) {
            let what = format!("{} bytes at {} written back", range.end - range.start, range.start);
            tracing::warn!("{of} {pack}: {what}");
            self.tell(pack, range.start, what, HealOutcome::Rewritten);
        }
        if mended.relocated {
            self.tell(pack, 0, "the pack was written to another place".into(), HealOutcome::Relocated);
        }
        if mended.relocated || !mended.restored.is_empty() {
            // Also its twin: what was beyond parity may be within now.
            self.hopeless.forget(pack);
        }
        if examined.place != Place::Pack {
            return Ok(mended);
        }
        if mended.lost.is_empty() {
            self.forget_lost(pack);
        }
        for range in runs(&mended.lost) {
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

/// Ranges in ascending order, those that touch as one.
fn runs(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => runs.push(range.clone()),
        }
    }
    runs
}
