//! What room there is on the disk, and for whom: what was acknowledged and waits to be folded comes first, then
//! checkpoints, deleting and compacting, then new data.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_format::{Geometry, ParityGeometry};
use cairn_store::disk::{Disk, Space};

use crate::core::Core;
use crate::journal::Need;

/// Kept free on the disk for checkpoints, so that deleting works when the volume is full.
const DISK_RESERVE: u64 = 24 << 20;
/// A disk is to have room for so many packs: on a small one they are shorter, or there would be no room to compact one.
const PACKS_OF_DISK: u64 = 32;
/// …but not shorter than this.
const PACK_LEAST: u64 = 1 << 20;
/// Frames that are on their way when a pack is found to be full.
const FRAMES_BEYOND: u64 = 16;

/// The disk's bytes, asked for at most every so often.
#[derive(Default)]
pub(crate) struct SpaceGauge {
    asked: Mutex<Option<Instant>>,
    available: AtomicU64,
    total: AtomicU64,
    /// Bytes that a compaction under way is still going to write.
    claimed: AtomicU64,
    /// Bytes of data packs, as of the last checkpoint.
    packed: AtomicU64,
}

impl SpaceGauge {
    const VALID: Duration = Duration::from_millis(100);

    fn ask(&self, disk: &dyn Disk) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|at| at.elapsed() > Self::VALID) {
            *asked = Some(Instant::now());
            // Where the disk does not say, writes go on until it refuses.
            let space =
                disk.space().unwrap_or(Space { total: u64::MAX, free: u64::MAX, available: u64::MAX });
            self.available.store(space.available, Ordering::Relaxed);
            self.total.store(space.total, Ordering::Relaxed);
        }
    }

    fn available(&self, disk: &dyn Disk) -> u64 {
        self.ask(disk);
        self.available.load(Ordering::Relaxed)
    }

    fn total(&self, disk: &dyn Disk) -> u64 {
        self.ask(disk);
        self.total.load(Ordering::Relaxed)
    }

    /// Forgets what was asked.
    pub(crate) fn refresh(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// There are so many bytes of data packs.
    pub(crate) fn note_packed(&self, bytes: u64) {
        self.packed.store(bytes, Ordering::Relaxed);
    }

    /// A compaction is going to write so much, from now on.
    pub(crate) fn claim(&self, bytes: u64) {
        self.claimed.store(bytes, Ordering::Relaxed);
    }

    /// It wrote some of it.
    pub(crate) fn claim_less(&self, bytes: u64) {
        let less = |claimed: u64| Some(claimed.saturating_sub(bytes));
        // The closure always gives a value.
        let _ = self.claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// Stored bytes at which packs are sealed on a disk of `total` bytes, in a store that says `said`.
pub(crate) fn pack_size_on(total: u64, said: u64) -> u64 {
    said.min((total / PACKS_OF_DISK).max(PACK_LEAST))
}

/// What compacting a pack that was sealed at `pack` bytes takes, at most.
pub(crate) fn compaction_of(pack: u64, geometry: &Geometry, parity: ParityGeometry) -> u64 {
    protected(pack + FRAMES_BEYOND * u64::from(geometry.frame), parity)
}

/// Bytes that `plain` ones take in packs, parity and all.
fn protected(plain: u64, parity: ParityGeometry) -> u64 {
    match parity.data {
        0 => plain,
        k => plain + plain * u64::from(parity.parity) / u64::from(k),
    }
}

impl Core {
    /// Stored bytes at which packs are sealed.
    pub(crate) fn pack_size(&self) -> u64 {
        pack_size_on(self.space.total(&*self.disk), self.store.pack_size())
    }

    /// Room that is kept for compacting: where nothing else is free, packs that are partly dead still make room.
    /// No more than there is to compact.
    pub(crate) fn compaction_room(&self) -> u64 {
        compaction_of(self.pack_size(), &self.geometry, self.writing.parity)
            .min(self.space.packed.load(Ordering::Relaxed))
    }

    /// Whether what waits to be folded, and `len` bytes more, will find room on the disk.
    pub(crate) fn disk_has_room(&self, need: Need, len: u64) -> bool {
        need != Need::Grow || self.available() >= self.reserved(len)
    }

    /// Bytes of new data that the disk has room for, beside all that waits to be folded.
    pub(crate) fn room(&self) -> u64 {
        self.available().saturating_sub(self.reserved(0))
    }

    /// Bytes that compacting may take now: half of what is there for new data, or what is kept for it.
    pub(crate) fn room_to_compact(&self) -> u64 {
        let most = self.available().saturating_sub(self.promised(0) + DISK_RESERVE);
        (self.room() / 2).max(most.min(self.compaction_room()))
    }

    /// Sees to it that `len` bytes are free for compacting, if need be by giving up the reserve: that is what it is for.
    pub(crate) fn make_room_to_compact(&self, len: u64) {
        if self.space.available(&*self.disk) < len + self.promised(0) && self.kept.release(&*self.disk) {
            self.space.refresh();
        }
    }

    /// Bytes that the disk has free, or has for us.
    fn available(&self) -> u64 {
        self.space.available(&*self.disk).saturating_add(self.kept.bytes())
    }

    /// Sees to it that there is a reserve, where the disk has room for one.
    pub(crate) fn keep_reserve(&self) {
        let spare = self.space.available(&*self.disk).saturating_sub(self.reserved(0));
        self.kept.make(
            &*self.disk,
            spare,
            compaction_of(self.pack_size(), &self.geometry, self.writing.parity),
        );
    }

    /// What has to stay free: for what waits to be folded and `len` bytes more, for the checkpoints of what is in memory;
    /// for deleting and for compacting.
    fn reserved(&self, len: u64) -> u64 {
        let compacting = self.compaction_room().max(self.space.claimed.load(Ordering::Relaxed));
        self.promised(len) + DISK_RESERVE + compacting
    }

    /// What was acknowledged, and `len` bytes more, take once it is folded, parity and all, and checkpointed.
    fn promised(&self, len: u64) -> u64 {
        let coded = protected(self.dirty.backlog().0 + len, self.writing.parity);
        let (active, frozen) = self.ns.overlay_bytes();
        coded + 2 * (active + frozen) as u64
    }

    /// Whether the journal may grow: a segment takes little of what is free. On a small disk folding sooner
    /// beats a long journal.
    pub(crate) fn has_room_for_spares(&self) -> bool {
        let kept = DISK_RESERVE + self.compaction_room();
        self.space.available(&*self.disk) > kept + 16 * u64::from(self.geometry.segment)
    }

    /// Whether the journal may grow for this. What frees room may take nearly the last of it.
    pub(crate) fn journal_may_grow(&self, need: Need) -> bool {
        let segment = u64::from(self.geometry.segment);
        self.has_room_for_spares()
            || (need == Need::Shrink && self.space.available(&*self.disk) > segment + segment / 4)
    }

    /// Whether the disk has room for a batch of folding, which must not take what is kept for deleting.
    pub(crate) fn has_room_to_fold(&self) -> bool {
        let batch = self.dirty.backlog().0.min(self.fold_start());
        let kept = self.kept.spent().min(DISK_RESERVE + self.compaction_room());
        // Where nothing was given up, what is there is for folding, and folding finds out whether it is enough.
        kept == 0 || self.space.available(&*self.disk) > batch + kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_has_room_to_compact_any_of_its_packs() {
        assert_eq!(pack_size_on(1 << 40, 64 << 20), 64 << 20);
        assert_eq!(pack_size_on(512 << 20, 64 << 20), 16 << 20);
        assert_eq!(pack_size_on(0, 64 << 20), 1 << 20);
        assert_eq!(pack_size_on(0, 64 << 10), 64 << 10);
    }
}
