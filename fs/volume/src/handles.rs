//! Which inodes are open: the only state kept per inode, and only while it is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_format::Ino;

/// Counts of open handles.
#[derive(Default)]
pub(crate) struct Handles(Mutex<HashMap<Ino, u32>>);

impl Handles {
    fn counts(&self) -> MutexGuard<'_, HashMap<Ino, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more handle.
    pub(crate) fn open(&self, ino: Ino) {
        *self.counts().entry(ino).or_default() += 1;
    }

    /// One handle less; whether it was the last.
    pub(crate) fn close(&self, ino: Ino) -> bool {
        let mut counts = self.counts();
        match counts.get_mut(&ino) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => {
                counts.remove(&ino);
                true
            }
        }
    }

    /// Whether anybody has it open.
    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.counts().contains_key(&ino)
    }
}
