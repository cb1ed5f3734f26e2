//! What threads share: `std::sync` and `std::thread`. With the feature `schedules`, which only tests ask for, it is shuttle's
//! in their place, whose every lock, wait and atomic is a point where a test's scheduler may let another thread go on.
//!
//! Whatever one thread does for another goes through here: what goes by `std` cannot be interrupted in such a test, and a
//! wait there hangs it. Not through here go the disk and the engines, which are libraries beneath a trait, and counts that
//! nothing depends on.

#[cfg(not(feature = "schedules"))]
pub use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        TryLockError, atomic, mpsc,
    },
    thread,
};

#[cfg(feature = "schedules")]
pub use shuttle::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
    atomic, mpsc,
};
/// Nothing waits for one: it is set or it is not.
#[cfg(feature = "schedules")]
pub use std::sync::OnceLock;

/// Threads that a scheduler runs one at a time. A sleep is over at once; a wait with a time-out lasts until it is notified.
#[cfg(feature = "schedules")]
pub mod thread {
    pub use shuttle::thread::*;

    /// Two, wherever the test runs.
    pub fn available_parallelism() -> std::io::Result<std::num::NonZero<usize>> {
        Ok(std::num::NonZero::<usize>::MIN.saturating_add(1))
    }
}

#[cfg(feature = "schedules")]
mod explore;
#[cfg(feature = "schedules")]
pub use explore::{explore, once};
#[cfg(feature = "schedules")]
mod slow;
#[cfg(feature = "schedules")]
pub use slow::Slow;
/// A number below `end` that belongs to the schedule: it is the same when that is run again.
#[cfg(feature = "schedules")]
pub fn draw(end: usize) -> usize {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..end)
}

/// A point where a test's scheduler may let another thread go on.
#[cfg(feature = "schedules")]
pub fn pause() {
    thread::sleep(std::time::Duration::ZERO);
}
