//! The note that something is wrong with a volume. It outlives the mount that met it, which may end in order: `fsck.cairn -p`
//! looks closer then, and removes the note when nothing is wrong any more.

use cairn_store::disk::{Disk, replace_small};

use crate::layout::SUSPECT_PATH;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Whether this mount made the note.
#[derive(Default)]
pub(crate) struct Suspect(AtomicBool);

impl Suspect {
    /// Notes what is wrong, the first time. Where that is not possible it is in the log all the same.
    pub(crate) fn note(&self, disk: &dyn Disk, what: &str) {
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = replace_small(disk, SUSPECT_PATH, format!("{what}\n").as_bytes()) {
            tracing::warn!(
                "{SUSPECT_PATH}, by which fsck.cairn -p would look closer, was not written: {error}"
            );
        }
    }
}
