//! Where requests run that may wait: for a group commit, a full journal, a cold disk.
//!
//! The threads that read requests from the kernel run most of them on the spot: no hand-over, no copy of what a `write`
//! carries. But a thread that waits reads no further request, and if all of them waited, `ls` would hang behind a full
//! journal. So only some of the readers may be inside such a request at a time; when those are taken, further ones go to
//! a few workers, and when the workers' queue is full as well, they run on the spot after all: the filesystem gets slower,
//! its memory does not grow.
//!
//! Changes of names have a lane of their own: for as long as one of them is not answered, the kernel keeps the directory
//! locked and lists nothing in it, so it must not queue behind somebody's cold reads or `fsync`s.

use std::num::NonZero;

use cairn_volume::sync::atomic::{AtomicUsize, Ordering};
use cairn_volume::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use cairn_volume::sync::thread::{self, JoinHandle};
use cairn_volume::sync::{Arc, Mutex, PoisonError};

#[cfg(all(test, feature = "schedules"))]
mod schedules;

/// Readers that never wait: one for look-ups, one for the look-up behind it.
const FREE_READERS: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// How many threads should read requests: one a core, at least two more than may change names or never wait, and no more
/// than eight, since each holds a request buffer.
pub(crate) fn readers() -> usize {
    thread::available_parallelism().map_or(4, NonZero::get).clamp(FREE_READERS + Width::NAMES.readers + 2, 8)
}

/// How much may wait in a lane.
#[derive(Clone, Copy)]
pub(crate) struct Width {
    /// Readers that may be in it at a time.
    readers: usize,
    /// Workers for what no reader may wait for. They mostly sleep.
    workers: usize,
    /// Requests that wait for a worker.
    queue: usize,
}

impl Width {
    /// For changes of names and attributes, which carry little.
    const NAMES: Width = Width { readers: 2, workers: 2, queue: 64 };

    /// For reads, writes and `fsync` beside `readers` threads: all of them that are neither free nor in the lane for
    /// names. A `write` in the queue holds up to 1 MiB, so the queue bounds their memory.
    fn data(readers: usize) -> Width {
        let readers = readers.saturating_sub(FREE_READERS + Width::NAMES.readers).max(1);
        Width { readers, workers: 6, queue: 12 }
    }
}

/// The lanes beside the threads that read requests.
pub(crate) struct Lanes {
    /// Changes of names and attributes.
    pub(crate) names: Lane,
    /// Reads, writes, `fsync`.
    pub(crate) data: Lane,
}

impl Lanes {
    /// Lanes beside `readers` threads.
    pub(crate) fn new(readers: usize) -> std::io::Result<Lanes> {
        Ok(Lanes { names: Lane::new("names", Width::NAMES)?, data: Lane::new("data", Width::data(readers))? })
    }
}

/// Places where requests of one kind may wait.
pub(crate) struct Lane {
    /// Readers that may still enter a request that can wait.
    free: Arc<AtomicUsize>,
    /// To the workers; `None` once they are told to end.
    queue: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
}

/// A reader's leave to wait; given back when dropped.
pub(crate) struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Lane {
    fn new(name: &str, width: Width) -> std::io::Result<Lane> {
        let (queue, jobs) = sync_channel(width.queue);
        let jobs = Arc::new(Mutex::new(jobs));
        let workers = (0..width.workers)
            .map(|i| {
                let jobs = jobs.clone();
                thread::Builder::new().name(format!("{name}-{i}")).spawn(move || work(&jobs))
            })
            .collect::<Result<_, _>>()?;
        Ok(Lane { free: Arc::new(AtomicUsize::new(width.readers)), queue: Some(queue), workers })
    }

    /// Leave for the calling reader to wait, if not too many do.
    pub(crate) fn enter(&self) -> Option<Leave> {
        self.free
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| free.checked_sub(1))
            .ok()
            .map(|_| Leave(self.free.clone()))
    }

    /// Runs `job` here if this reader may wait, on a worker otherwise.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        match self.enter() {
            Some(_leave) => job(),
            None => self.hand_over(Box::new(job)),
        }
    }

    /// Has a worker run `job`, or runs it here when all of them have enough to do.
    pub(crate) fn hand_over(&self, job: Job) {
        let refused = match &self.queue {
            Some(queue) => queue.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = refused {
            job();
        }
    }
}

impl Drop for Lane {
    /// Returns when every job has run.
    fn drop(&mut self) {
        self.queue = None;
        for worker in self.workers.drain(..) {
            // A job catches its own panics; one that came through was logged by the panic hook.
            let _ = worker.join();
        }
    }
}

/// A worker's life: until the queue is closed and empty.
fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while waiting: the others wait for the lock instead, which wakes one at a time as well.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    const WIDTH: Width = Width { readers: 2, workers: 3, queue: 5 };

    #[test]
    fn a_reader_is_left_when_others_wait() {
        let lane = Lane::new("test", WIDTH).expect("threads");
        let (first, second) = (lane.enter(), lane.enter());
        assert!(first.is_some() && second.is_some());
        assert!(lane.enter().is_none());
        drop(first);
        assert!(lane.enter().is_some());
    }

    #[test]
    fn jobs_beyond_the_readers_run_on_workers_and_all_run_before_the_end() {
        let lane = Lane::new("test", WIDTH).expect("threads");
        let _leaves = (lane.enter(), lane.enter());
        let gate = Arc::new(Barrier::new(WIDTH.workers + 1));
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..WIDTH.workers {
            let (gate, done) = (gate.clone(), done.clone());
            lane.run(move || {
                gate.wait();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        // Not reached if any of them had run here.
        gate.wait();
        drop(lane);
        assert_eq!(done.load(Ordering::Relaxed), WIDTH.workers);
    }

    #[test]
    fn a_full_queue_runs_the_job_on_the_spot() {
        let lane = Lane::new("test", WIDTH).expect("threads");
        let _leaves = (lane.enter(), lane.enter());
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().expect("not poisoned");
        let here = thread::current().id();
        let ran_here = Arc::new(AtomicUsize::new(0));
        for _ in 0..WIDTH.workers + WIDTH.queue + 4 {
            let (gate, ran_here) = (gate.clone(), ran_here.clone());
            lane.run(move || match thread::current().id() == here {
                true => drop(ran_here.fetch_add(1, Ordering::Relaxed)),
                false => drop(gate.lock()),
            });
        }
        assert!(ran_here.load(Ordering::Relaxed) >= 4);
        drop(held);
    }

    #[test]
    fn some_readers_always_stay_free() {
        for all in 6..=8 {
            assert_eq!(Width::data(all).readers + Width::NAMES.readers + FREE_READERS, all);
        }
        assert!((6..=8).contains(&readers()));
    }
}
