//! Room for the worst day: a file of zeros beside the journal, given up when the disk is full though cairn did not fill
//! it, so that checkpoints can be written, deleting and unmounting work, and a pack can be compacted. Made again when
//! there is room.

use std::io;

use cairn_format::Geometry;
use cairn_store::disk::{Access, Disk};

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The file, in the volume's directory.
pub(crate) const PATH: &str = "reserve";
/// It is made only where the disk has so many times its length free…
const PLENTY: u64 = 16;
/// …and again, once it was given up, where it has this many times as much.
const AGAIN: u64 = 2;

/// The reserve of a volume that is mounted for writing.
pub(crate) struct Reserve {
    /// The least that is of use.
    least: u64,
    /// Its length, 0 where there is none.
    kept: Mutex<u64>,
    /// The length of the one that was given up, and not made again yet.
    spent: AtomicU64,
}

impl Reserve {
    /// What the mount before left. It is at least as long as a segment and a half: a mount on a full disk takes a segment
    /// of its own.
    pub(crate) fn find(disk: &dyn Disk, geometry: &Geometry) -> Reserve {
        let least = u64::from(geometry.segment) * 3 / 2;
        let found = disk.open(PATH, Access::Read).and_then(|file| file.len()).unwrap_or(0);
        let kept = if found >= least { found } else { 0 };
        Reserve { least, kept: Mutex::new(kept), spent: AtomicU64::new(0) }
    }

    fn kept(&self) -> MutexGuard<'_, u64> {
        // A panic while it was held leaves it as wrong as a crash would, which the next release or making finds.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the disk's room that are there only because it was given up: not for folding.
    pub(crate) fn spent(&self) -> u64 {
        self.spent.load(Ordering::Acquire)
    }

    /// Bytes that giving it up frees.
    pub(crate) fn bytes(&self) -> u64 {
        *self.kept()
    }

    /// Gives it up; whether there was any.
    pub(crate) fn release(&self, disk: &dyn Disk) -> bool {
        let mut kept = self.kept();
        if *kept == 0 {
            return false;
        }
        self.spent.store(std::mem::take(&mut *kept), Ordering::Release);
        match disk.remove(PATH) {
            Ok(()) => {
                tracing::warn!("the disk is full: the room that was kept for this is used now");
                true
            }
            Err(error) => {
                tracing::warn!("the disk is full, and the room kept for this cannot be had: {PATH}: {error}");
                false
            }
        }
    }

    /// Makes it where there is none and `available` bytes are plenty: with room for `compaction`, if that many are.
    pub(crate) fn make(&self, disk: &dyn Disk, available: u64, compaction: u64) {
        let mut kept = self.kept();
        if *kept > 0 {
            return;
        }
        let times = if self.spent() > 0 { AGAIN } else { PLENTY };
        let lengths = [self.least + compaction, self.least];
        let Some(len) = lengths.into_iter().find(|len| available >= len * times) else { return };
        match self.fill(disk, len) {
            Ok(()) => {
                *kept = len;
                self.spent.store(0, Ordering::Release);
            }
            Err(error) => {
                tracing::debug!("{PATH}: {error}");
                // Half of it is of no use.
                let _ = disk.remove(PATH);
            }
        }
    }

    /// Zeros that are written, since only those are certain to have their room.
    fn fill(&self, disk: &dyn Disk, len: u64) -> io::Result<()> {
        match disk.remove(PATH) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = disk.open(PATH, Access::CreateNew)?;
        let zeros = vec![0; (1 << 20).min(len as usize)];
        let mut at = 0;
        while at < len {
            let part = zeros.len().min((len - at) as usize);
            file.write_at(&zeros[..part], at)?;
            at += part as u64;
        }
        // Filesystems that allocate late find out now.
        file.sync()
    }
}
