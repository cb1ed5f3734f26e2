//! The end of inodes that lost their last name while opens are not told.
//!
//! The kernel says when it has forgotten an inode, but on a queue of its own: by the time that is read, the same inode may
//! have been looked up and opened once more. What counts is whether the kernel has it *now*: without a name and unknown to
//! the kernel, nobody can reach it ever again.
//!
//! This runs on a thread of its own, not in the lanes. Asking may wait for an inode on its way out, and so for reads of it
//! to be answered, which the lanes must go on doing; and what comes in while it waits is dealt with in one go.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use cairn_volume::Volume;

use super::convert::call;
use super::kernel::KernelCache;

/// Inodes that the kernel forgot and that were not dealt with yet.
#[derive(Default)]
struct Waiting {
    inos: Vec<u64>,
    ended: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whole between operations.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that wait, as soon as some do; `None` at the end.
    fn take(&self) -> Option<Vec<u64>> {
        let idle = |waiting: &mut Waiting| waiting.inos.is_empty() && !waiting.ended;
        let mut waiting = self.more.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let inos = std::mem::take(&mut waiting.inos);
        (!inos.is_empty()).then_some(inos)
    }
}

/// Where inodes go that the kernel forgot.
pub(super) struct Forgets {
    queue: Arc<Queue>,
    worker: Option<JoinHandle<()>>,
}

impl Forgets {
    /// Has those removed that have no name and that the kernel does not know any more.
    pub(super) fn new(volume: Arc<Volume>, cache: Arc<KernelCache>) -> io::Result<Forgets> {
        let queue = Arc::new(Queue::default());
        let worker = {
            let queue = queue.clone();
            let work = move || {
                while let Some(inos) = queue.take() {
                    remove_unreachable(&volume, &cache, &inos);
                }
            };
            thread::Builder::new().name("forgets".into()).spawn(work)?
        };
        Ok(Forgets { queue, worker: Some(worker) })
    }

    /// The kernel forgot this one. Never waits.
    pub(super) fn add(&self, ino: u64) {
        self.queue.lock().inos.push(ino);
        self.queue.more.notify_one();
    }
}

impl Drop for Forgets {
    /// Returns when all were dealt with.
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.more.notify_one();
        if let Some(worker) = self.worker.take() {
            // Its calls catch their panics.
            let _ = worker.join();
        }
    }
}

fn remove_unreachable(volume: &Volume, cache: &KernelCache, inos: &[u64]) {
    // What fails is logged, and goes at the next mount.
    let _ = call("forget", 0, || {
        let mut nameless = volume.nameless(inos);
        nameless.retain(|ino| !cache.knows(*ino));
        volume.forget(&nameless);
        Ok(())
    });
}
