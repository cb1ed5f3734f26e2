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
    limiter: Option<Limiter>,
}

/// Has whoever reads wait, so that all of them together read no more bytes a second than may be.
struct Limiter {
    bytes_per_second: u64,
    /// Before this nothing is read.
    not_before: Mutex<Instant>,
}

impl Limiter {
    fn new(bytes_per_second: u64, now: Instant) -> Limiter {
        Limiter { bytes_per_second: bytes_per_second.max(1), not_before: Mutex::new(now) }
    }

    /// How long whoever has read so many bytes waits from `now` on before it reads more.
    fn wait(&self, bytes: u64, now: Instant) -> Duration {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not read in time is not caught up with.
        *not_before = (*not_before).max(now) + takes;
        not_before.saturating_duration_since(now)
    }
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
            limiter: options.rate.map(|rate| Limiter::new(rate, Instant::now())),
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
                if let Some(limiter) = &self.limiter {
                    self.nap(limiter.wait(bytes, Instant::now()));
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64.
    fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (z ^ (z >> 27)) % below
        }
    }

    /// Threads that read and wait by a clock of the test's own; gives when each read was, in microseconds, and its bytes.
    fn reads(rate: u64, threads: usize, idle: bool, seed: u64) -> Vec<(u64, u64)> {
        let mut dice = dice(seed);
        let epoch = Instant::now();
        let limiter = Limiter::new(rate, epoch);
        let mut next = vec![0u64; threads];
        let mut reads = Vec::new();
        for n in 0..400 {
            let Some((thread, at)) = next.iter().copied().enumerate().min_by_key(|(_, at)| *at) else {
                break;
            };
            let bytes = 1 + dice(300_000);
            reads.push((at, bytes));
            let wait = limiter.wait(bytes, epoch + Duration::from_micros(at));
            // Reading takes time itself; and now and then something else holds all of them up.
            next[thread] = at + u64::try_from(wait.as_micros()).unwrap_or(u64::MAX) + dice(2_000);
            if idle && n % 100 == 99 {
                next.iter_mut().for_each(|at| *at += 20_000_000);
            }
        }
        reads
    }

    /// In any stretch of time, but for one read of each thread, which nobody could know beforehand.
    #[test]
    fn no_more_is_read_than_may_be_however_many_read_and_whatever_held_them_up() {
        for seed in 0..200 {
            let (rate, threads) = (10_000 + seed * 50_000, 1 + (seed % 4) as usize);
            let reads = reads(rate, threads, seed % 2 == 1, seed);
            for from in (0..reads.len()).step_by(37) {
                let mut bytes = 0;
                for (at, read) in &reads[from..] {
                    bytes += read;
                    let may = rate as f64 * (at - reads[from].0) as f64 / 1e6;
                    let most = may + 300_000.0 * (threads + 1) as f64 + 1.0;
                    assert!(bytes as f64 <= most, "seed {seed}: {bytes} bytes, {most} may be");
                }
            }
        }
    }

    /// But for what the clock is rounded by, and the time of the last read.
    #[test]
    fn all_that_may_be_is_read_where_the_disk_is_fast() {
        for seed in 0..20 {
            let (rate, threads) = (1_000_000, 2);
            let reads = reads(rate, threads, false, seed);
            let (last, _) = reads[reads.len() - 1];
            let bytes: u64 = reads.iter().map(|(_, bytes)| bytes).sum();
            assert!(
                bytes as f64 >= 0.9 * rate as f64 * last as f64 / 1e6,
                "seed {seed}: {bytes} in {last} us"
            );
        }
    }

    #[test]
    fn a_limit_of_nothing_is_the_least_that_there_is() {
        let now = Instant::now();
        assert_eq!(Limiter::new(0, now).wait(3, now), Duration::from_secs(3));
        assert_eq!(Limiter::new(1 << 60, now).wait(0, now), Duration::ZERO);
    }
}
