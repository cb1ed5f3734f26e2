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
use std::time::{Duration, Instant};

use cairn_volume::Volume;

use super::convert::call;
use super::kernel::KernelCache;

/// What was not dealt with yet.
#[derive(Default)]
struct Waiting {
    /// Inodes that the kernel forgot.
    inos: Vec<u64>,
    /// Files whose pages it is to forget, and when; each at most once.
    stale: Vec<(u64, Instant)>,
    /// Files whose attributes it is to forget.
    folded: Vec<u64>,
    ended: bool,
}

/// The most files whose attributes wait to be forgotten. What comes beyond is told with the next change, or within
/// the hour.
const FOLDED_MAX: usize = 1 << 18;

/// What is to be done now.
struct Due {
    inos: Vec<u64>,
    stale: Vec<u64>,
    folded: Vec<u64>,
}

impl Waiting {
    /// What is to be done at `now`.
    fn take(&mut self, now: Instant) -> Due {
        let due = self.stale.extract_if(.., |(_, at)| *at <= now).map(|(ino, _)| ino).collect();
        Due { inos: std::mem::take(&mut self.inos), stale: due, folded: std::mem::take(&mut self.folded) }
    }

    /// How long nothing has to be done, if nothing comes.
    fn idle(&self, now: Instant) -> Duration {
        let next = self.stale.iter().map(|(_, at)| at.saturating_duration_since(now)).min();
        next.unwrap_or(Duration::from_secs(3600))
    }
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

    /// What is to be done, as soon as there is something; `None` at the end.
    fn take(&self) -> Option<Due> {
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            let due = waiting.take(now);
            if !due.inos.is_empty() || !due.stale.is_empty() || !due.folded.is_empty() {
                return Some(due);
            }
            if waiting.ended {
                return None;
            }
            let idle = waiting.idle(now);
            waiting = self.more.wait_timeout(waiting, idle).unwrap_or_else(PoisonError::into_inner).0;
        }
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
        let folds = queue.clone();
        // What `stat` said of the room it takes is over.
        volume.on_folded(move |ino| {
            let mut waiting = folds.lock();
            if waiting.folded.len() < FOLDED_MAX && waiting.folded.last() != Some(&ino) {
                waiting.folded.push(ino);
                folds.more.notify_one();
            }
        });
        let worker = {
            let queue = queue.clone();
            let work = move || {
                while let Some(due) = queue.take() {
                    due.stale.iter().for_each(|ino| cache.forget_pages(*ino));
                    due.folded.iter().for_each(|ino| cache.forget_attributes(*ino));
                    remove_unreachable(&volume, &cache, &due.inos);
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

    /// The kernel is to forget the pages of a file `after` some time. To be called once the read that brought them is
    /// answered.
    pub(super) fn drop_pages(&self, ino: u64, after: Duration) {
        let mut waiting = self.queue.lock();
        if waiting.stale.iter().all(|(other, _)| *other != ino) {
            waiting.stale.push((ino, Instant::now() + after));
            self.queue.more.notify_one();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::{Caller, Error, MakeOptions, OpenOptions, make, open};
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    #[test]
    fn what_the_kernel_has_again_stays_though_it_was_forgotten_once() {
        let dir = std::env::temp_dir().join(format!("cairn-forgets-{}", std::process::id()));
        let small = MakeOptions { journal_size: 64 << 20, segment_size: 4 << 20, ..MakeOptions::default() };
        make(&dir, &small).expect("a new volume");
        let volume = open(&dir, OpenOptions::default()).expect("a volume");
        volume.expect_forgets();
        let caller = Caller { uid: 0, gid: 0 };
        let ino = volume.mknod(1, b"f", 0o100_600, 0, 0, &caller).expect("made").ino;
        let cache = KernelCache::default();
        // It takes every message, so it knows every inode.
        cache.connect(File::create("/dev/null").expect("there").as_fd()).expect("a descriptor");
        remove_unreachable(&volume, &cache, &[ino]);
        assert_eq!(volume.getattr(ino).map(|a| a.nlink), Ok(1), "it has a name");
        volume.unlink(1, b"f").expect("there");
        remove_unreachable(&volume, &cache, &[ino]);
        assert_eq!(volume.getattr(ino).map(|a| a.nlink), Ok(0), "the kernel has it");
        volume.forget(&[ino]);
        assert_eq!(volume.getattr(ino), Err(Error::Stale));
        volume.close().expect("folds");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
