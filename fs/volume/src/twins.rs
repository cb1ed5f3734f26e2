//! Second copies of packs, as far as it is a volume's: which packs are to have one, and making them behind the callers' backs.
//!
//! A pack that is missing is beyond its own parity. So what costs little to have twice, and much to lose, is there twice:
//! metadata packs, and packs whose chunks many places share.

use cairn_format::{PackId, VolumeSuperblock};
use cairn_store::{StoreError, TwinUsage};

use crate::checkpoint::CheckpointState;
use crate::core::Core;
use crate::sync::{Mutex, PoisonError};

/// A data pack has a twin where it is referred to so many times as often as it has chunks: then its twin takes at most such a
/// part of what would be lost with it.
pub(crate) const SHARED: u64 = 8;
/// Before a volume is closed so many bytes of twins are made; what is left the next mount makes.
const BEFORE_CLOSING: u64 = 256 << 20;

/// What is remembered of making twins.
#[derive(Default)]
pub(crate) struct TwinMaker {
    /// The last failure that was logged: one that lasts is logged once.
    failure: Mutex<Option<String>>,
}

impl Core {
    /// Says which packs are to have a twin, as of a checkpoint.
    pub(crate) fn want_twins(&self, state: &CheckpointState) {
        if self.writing.parity.is_none() || self.journal().is_err() {
            return;
        }
        let pieces = |pack: &PackId| state.refs.get(pack).map_or(0, |refs| refs.pieces);
        let summaries = self.store.data_summaries().into_iter();
        let shared = summaries
            .filter(|pack| pieces(&pack.pack) >= SHARED * u64::from(pack.chunks.max(1)))
            .map(|pack| pack.pack);
        // Metadata first: it is little.
        self.store.want_twins(state.packs.iter().copied().chain(shared));
    }

    /// Makes a twin that is wanted; its length, or none where none was made: none is wanted, or that failed, and is tried
    /// again when the next checkpoint says that it is wanted still.
    pub(crate) fn make_twin(&self) -> Option<u64> {
        if self.is_stopped() {
            return None;
        }
        // What waits to be folded, and what deleting takes, comes first.
        let made = self.store.make_next_twin(|len| self.room() > len)?;
        self.space.refresh();
        self.report_twin(made.as_ref().err());
        Some(made.unwrap_or(0))
    }

    /// Makes what twins are wanted, `most` bytes of them; whether there were any.
    pub(crate) fn make_twins(&self, most: u64) -> bool {
        let mut bytes = 0;
        let mut any = false;
        while bytes <= most
            && let Some(len) = self.make_twin()
        {
            bytes += len;
            any = true;
        }
        any
    }

    /// Makes twins before the volume is closed, metadata's first.
    pub(crate) fn make_twins_before_closing(&self) {
        self.make_twins(BEFORE_CLOSING);
        match self.store.twin_usage() {
            (TwinUsage { waiting: 0, .. }, TwinUsage { waiting: 0, .. }) => {}
            (here, across) => {
                let waiting = here.waiting + across.waiting;
                tracing::warn!("{waiting} packs lack their second copy still: the next mount makes it");
            }
        }
    }

    /// Sees to it that what a checkpoint holds is on the other disks, too, before the journal lets go of it. Where one of them
    /// fails the volume goes on without: what is written is there once then.
    pub(crate) fn make_twins_across(&self) {
        let made = self.store.make_across();
        if !self.store.across().is_empty() {
            self.report_twin(made.as_ref().err());
        }
    }

    /// Writes down on the other disks what the volume is.
    pub(crate) fn copy_superblocks(&self, superblock: &VolumeSuperblock) {
        for (number, dir) in (1u16..).zip(self.store.across()).filter(|(_, dir)| dir.missing.is_none()) {
            let copied = crate::make::copy_superblocks(
                &**self.store.disk(),
                number,
                superblock,
                self.store.superblock(),
            );
            if let Err(error) = copied {
                tracing::warn!("{}: what the volume is could not be written down there: {error}", dir.path);
            }
        }
    }

    /// Logs a failure when it begins, and that it is over.
    fn report_twin(&self, error: Option<&StoreError>) {
        let mut failure = self.twins.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*failure, error) {
            (None, None) | (Some(_), Some(_)) => return,
            (Some(_), None) => tracing::info!("second copies of packs are made again"),
            (None, Some(error)) if error.is_full() => {
                tracing::warn!("no room on the disk for second copies of packs: {error}");
            }
            (None, Some(error)) => {
                tracing::error!("a second copy of a pack could not be made, it is tried again: {error}");
            }
        }
        *failure = error.map(ToString::to_string);
    }

    /// Decides about packs whose files are gone and whose twins are not: those that something refers to are written anew, the
    /// others were dropped, and are so once more.
    pub(crate) fn settle_lone_twins(&self, state: &CheckpointState) {
        if self.journal().is_err() {
            return;
        }
        let lone = match self.store.lone_twins() {
            Ok(lone) => lone,
            Err(error) => return tracing::error!("second copies of packs are not looked at: {error}"),
        };
        for pack in lone {
            let used = state.packs.contains(&pack) || state.refs.contains_key(&pack);
            if used || !self.store.condemn(&pack) {
                self.store.restore_from_twin(&pack);
            } else if let Err(error) = self.store.drop_pack(&pack) {
                tracing::warn!(
                    "the second copy of a pack that nothing refers to could not be removed: {error}"
                );
            }
        }
    }
}
