//! Room for the worst day: a file of zeros beside the journal, given up when the disk is full though cairn did not fill
//! it, so that checkpoints can be written, and deleting and unmounting work. Made again when there is room.

use std::io;

use cairn_format::Geometry;
use cairn_store::disk::{Access, Disk};

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The file, in the volume's directory.
pub(crate) const PATH: &str = "reserve";
/// It is made only where the disk has so many times its length free.
const PLENTY: u64 = 16;

/// The reserve of a volume that is mounted for writing.
pub(crate) struct Reserve {
    len: u64,
    kept: Mutex<bool>,
    /// Whether it was given up, and there is none again yet.
    spent: AtomicBool,
}

impl Reserve {
    /// What the mount before left. It is as long as a segment and a half: a mount on a full disk takes a segment of its
    /// own.
    pub(crate) fn find(disk: &dyn Disk, geometry: &Geometry) -> Reserve {
        let len = u64::from(geometry.segment) * 3 / 2;
        let whole = disk.open(PATH, Access::Read).and_then(|file| file.len()).is_ok_and(|found| found >= len);
        Reserve { len, kept: Mutex::new(whole), spent: AtomicBool::new(false) }
    }

    fn kept(&self) -> MutexGuard<'_, bool> {
        // A panic while it was held leaves it as wrong as a crash would, which the next release or making finds.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the disk's room that are there only because it was given up: not for folding.
    pub(crate) fn spent(&self) -> u64 {
        if self.spent.load(Ordering::Acquire) { self.len } else { 0 }
    }

    /// Bytes that giving it up frees.
    pub(crate) fn bytes(&self) -> u64 {
        if *self.kept() { self.len } else { 0 }
    }

    /// Gives it up; whether there was any.
    pub(crate) fn release(&self, disk: &dyn Disk) -> bool {
        let mut kept = self.kept();
        if !*kept {
            return false;
        }
        *kept = false;
        self.spent.store(true, Ordering::Release);
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

    /// Makes it where there is none and `available` bytes are plenty.
    pub(crate) fn make(&self, disk: &dyn Disk, available: u64) {
        let mut kept = self.kept();
        if *kept || available < self.len * PLENTY {
            return;
        }
        match self.fill(disk) {
            Ok(()) => {
                *kept = true;
                self.spent.store(false, Ordering::Release);
            }
            Err(error) => {
                tracing::debug!("{PATH}: {error}");
                // Half of it is of no use.
                let _ = disk.remove(PATH);
            }
        }
    }

    /// Zeros that are written, since only those are certain to have their room.
    fn fill(&self, disk: &dyn Disk) -> io::Result<()> {
        match disk.remove(PATH) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = disk.open(PATH, Access::CreateNew)?;
        let zeros = vec![0; (1 << 20).min(self.len as usize)];
        let mut at = 0;
        while at < self.len {
            let part = zeros.len().min((self.len - at) as usize);
            file.write_at(&zeros[..part], at)?;
            at += part as u64;
        }
        // Filesystems that allocate late find out now.
        file.sync()
    }
}
