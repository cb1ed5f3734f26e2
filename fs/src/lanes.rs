//! Where requests run that may wait: for a group commit, a full journal, a cold disk.
//!
//! The threads that read requests from the kernel run most of them on the spot: no hand-over, no copy of what a `write`
//! carries. But a thread that waits reads no further request, and if all of them waited, `ls` would hang behind a full
//! journal. So only some of the readers may be inside such a request at a time; when those are taken, further ones go to
//! a few workers, and when the workers' queue is full as well, they run on the spot after all: the filesystem gets slower,
//! its memory does not grow.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Workers for what no reader may wait for. They mostly sleep.
const WORKERS: usize = 6;
/// Requests that wait for a worker. Each may hold a `write` of 1 MiB, so this bounds their memory.
const QUEUE: usize = 12;
/// Readers that never wait: one for look-ups, one for the look-up behind it.
const FREE_READERS: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// How many threads should read requests: one a core, at least two that may wait beside the two that may not, and no
/// more than eight, since each holds a request buffer.
pub(crate) fn readers() -> usize {
    thread::available_parallelism().map_or(4, NonZero::get).clamp(FREE_READERS + 2, 8)
}

/// The places where requests may wait.
pub(crate) struct Lanes {
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

impl Lanes {
    /// Lanes beside `readers` threads that read requests.
    pub(crate) fn new(readers: usize) -> std::io::Result<Lanes> {
        let (queue, jobs) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let workers = (0..WORKERS)
            .map(|i| {
                let jobs = jobs.clone();
                thread::Builder::new().name(format!("lane-{i}")).spawn(move || work(&jobs))
            })
            .collect::<Result<_, _>>()?;
        let free = Arc::new(AtomicUsize::new(readers.saturating_sub(FREE_READERS).max(1)));
        Ok(Lanes { free, queue: Some(queue), workers })
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

impl Drop for Lanes {
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

    #[test]
    fn a_reader_is_left_when_others_wait() {
        let lanes = Lanes::new(4).expect("threads");
        let (first, second) = (lanes.enter(), lanes.enter());
        assert!(first.is_some() && second.is_some());
        assert!(lanes.enter().is_none());
        drop(first);
        assert!(lanes.enter().is_some());
    }

    #[test]
    fn jobs_beyond_the_readers_run_on_workers_and_all_run_before_the_end() {
        let lanes = Lanes::new(4).expect("threads");
        let _leaves = (lanes.enter(), lanes.enter());
        let gate = Arc::new(Barrier::new(WORKERS + 1));
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..WORKERS {
            let (gate, done) = (gate.clone(), done.clone());
            lanes.run(move || {
                gate.wait();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        // Not reached if any of them had run here.
        gate.wait();
        drop(lanes);
        assert_eq!(done.load(Ordering::Relaxed), WORKERS);
    }

    #[test]
    fn a_full_queue_runs_the_job_on_the_spot() {
        let lanes = Lanes::new(4).expect("threads");
        let _leaves = (lanes.enter(), lanes.enter());
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().expect("not poisoned");
        let here = thread::current().id();
        let ran_here = Arc::new(AtomicUsize::new(0));
        for _ in 0..WORKERS + QUEUE + 4 {
            let (gate, ran_here) = (gate.clone(), ran_here.clone());
            lanes.run(move || match thread::current().id() == here {
                true => drop(ran_here.fetch_add(1, Ordering::Relaxed)),
                false => drop(gate.lock()),
            });
        }
        assert!(ran_here.load(Ordering::Relaxed) >= 4);
        drop(held);
    }
}
