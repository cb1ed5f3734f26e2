//! The threads that look through packs: as many as are told, no faster than they may, and not in others' way.

use std::time::{Duration, Instant};

use cairn_format::PackId;

use super::look::{Looked, look};
use super::{ScrubError, ScrubOptions};
use crate::core::Core;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::mpsc::{RecvTimeoutError, Sender, channel};
use crate::sync::{Mutex, PoisonError, thread};

/// How often whoever waits is told how far it is.
const TICK: Duration = Duration::from_millis(100);
/// A thread that waits looks so often whether it is to end.
const NAP: Duration = Duration::from_millis(20);
/// While somebody asks for something, for the time that a read takes nothing is read so many times as long: a quarter of
/// the disk's time is taken…
const YIELD: u32 = 3;
/// …and at least, and at most, for so long.
const YIELD_LEAST: Duration = Duration::from_millis(2);
const YIELD_MOST: Duration = Duration::from_millis(250);

/// Packs to be looked through.
pub(super) struct Work<'a> {
    core: &'a Core,
    options: &'a ScrubOptions,
    repair: bool,
    ahead: &'a [(PackId, u64)],
    next: AtomicUsize,
    /// Bytes that were read, packs that were looked through, and those that were dropped before they could be.
    bytes: AtomicU64,
    done: AtomicU64,
    gone: AtomicU64,
    stopped: AtomicBool,
    /// Ends then, once one pack was looked through.
    until: Option<Instant>,
    /// Before this nothing is read, so that it is not more than may be.
    not_before: Mutex<Instant>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        core: &'a Core,
        options: &'a ScrubOptions,
        repair: bool,
        ahead: &'a [(PackId, u64)],
        until: Option<Instant>,
    ) -> Work<'a> {
        Work {
            core,
            options,
            repair,
            ahead,
            next: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            done: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            until,
            not_before: Mutex::new(Instant::now()),
        }
    }

    /// Bytes that were read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Packs that were dropped before they could be looked through.
    pub(super) fn gone(&self) -> u64 {
        self.gone.load(Ordering::Relaxed)
    }

    /// Has it end.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
            || (self.done.load(Ordering::Relaxed) > 0
                && self.until.is_some_and(|until| Instant::now() >= until))
    }

    /// Looks through all packs; `each` is called with what came of each, and now and then without.
    pub(super) fn run(&self, each: &mut dyn FnMut(Option<Looked>)) -> Result<(), ScrubError> {
        thread::scope(|scope| {
            let (to, from) = channel();
            let threads = self.options.threads.clamp(1, self.ahead.len().max(1));
            let started: Vec<_> = (0..threads)
                .map(|_| {
                    let to = to.clone();
                    scope.spawn(move || self.work(&to))
                })
                .collect();
            drop(to);
            loop {
                match from.recv_timeout(TICK) {
                    Ok(looked) => each(Some(looked)),
                    Err(RecvTimeoutError::Timeout) => each(None),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            let whole = started.into_iter().all(|thread| thread.join().is_ok());
            whole.then_some(()).ok_or_else(|| ScrubError::Thread("looking through a pack panicked".into()))
        })
    }

    fn work(&self, to: &Sender<Looked>) {
        while !self.is_stopped() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((pack, _)) = self.ahead.get(number) else { return };
            let mut since = Instant::now();
            let mut activity = self.core.activity();
            let mut go_on = |bytes| {
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.wait_for_rate(bytes);
                let asked = std::mem::replace(&mut activity, self.core.activity()) != activity;
                if self.options.gentle && asked {
                    self.nap((since.elapsed() * YIELD).clamp(YIELD_LEAST, YIELD_MOST));
                }
                since = Instant::now();
                !self.is_stopped()
            };
            let way = (self.repair, self.options.deep);
            match look(&self.core.store, *pack, way, &mut go_on) {
                Some(looked) => {
                    self.done.fetch_add(1, Ordering::Relaxed);
                    if to.send(looked).is_err() {
                        return;
                    }
                }
                None if self.is_stopped() => return,
                None => drop(self.gone.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    fn wait_for_rate(&self, bytes: u64) {
        let Some(rate) = self.options.rate else { return };
        let until = {
            let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
            let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            // What was not read in time is not caught up with.
            *not_before = (*not_before).max(Instant::now()) + takes;
            *not_before
        };
        self.nap(until.saturating_duration_since(Instant::now()));
    }

    fn nap(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() {
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return,
                left => thread::sleep(left.min(NAP)),
            }
        }
    }
}
