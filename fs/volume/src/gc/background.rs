//! Collecting by itself: when nothing was asked for some time and it is worth it, or when the disk is full and something
//! can be had back.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cairn_format::{PackId, PackRefs};

use super::{GcError, GcOptions, collect};
use crate::core::Core;

/// So long nothing was asked for before a run begins, and a run ends as soon as something is.
const QUIET: Duration = Duration::from_secs(5);
/// How often it looks whether something was.
const TICK: Duration = Duration::from_millis(500);
/// Packs less of which is live than this are worth it, in percent: to free a byte, three are written at the most.
const THRESHOLD: u8 = 75;
/// A run begins where what is dead in such packs is more than this share of all packs, in percent…
const WORTH_PERCENT: u64 = 10;
/// …and more than this.
const WORTH_LEAST: u64 = 64 << 20;
/// So many small packs are made one.
const MERGE: usize = 16;
/// On a full disk packs are compacted that are worth less.
const FULL_THRESHOLD: u8 = 91;
/// …and this much makes it worth it.
const FULL_LEAST: u64 = 4 << 20;
/// After a run that freed nothing, or failed, the next waits for so long.
const RETRY: Duration = Duration::from_secs(30);
/// How much nicer it is than folding.
const NICENESS: i32 = 10;

/// What the last checkpoint's counts say of garbage.
#[derive(Default)]
struct Counted {
    /// The share of each pack that is live, in percent. A chunk used twice counts twice: it may be less.
    live: HashMap<PackId, u8>,
    /// Packs too small to stay alone.
    small: usize,
    /// Dead bytes of all packs, of those that are worth it, and of those that are on a full disk.
    dead: u64,
    worth: u64,
    worth_if_full: u64,
    stored: u64,
}

#[derive(Default)]
struct Asked {
    /// A writer waits for room.
    room: bool,
    /// Not before this, for want of anything to gain, unless more is dead than was then.
    not_before: Option<(Instant, u64)>,
    counted: Counted,
}

/// Who collects garbage, and what there is to collect.
pub(crate) struct Collector {
    /// Whether it is done without being asked.
    by_itself: bool,
    /// Held by the run under way.
    turn: Mutex<()>,
    asked: Mutex<Asked>,
    changed: Condvar,
    /// Packs that could not be read whole: not tried again in this mount.
    unreadable: Mutex<HashSet<PackId>>,
    /// Whether the run under way is one that nobody asked for.
    own: AtomicBool,
    /// Those who wait for the run under way to end.
    waiting: AtomicU64,
}

impl Collector {
    pub(crate) fn new(by_itself: bool) -> Collector {
        Collector {
            by_itself,
            turn: Mutex::default(),
            asked: Mutex::default(),
            changed: Condvar::new(),
            unreadable: Mutex::default(),
            own: AtomicBool::new(false),
            waiting: AtomicU64::new(0),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        // Each change under it is one assignment.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to collect; none while another run is under way.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(crate::sync::TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(crate::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Has a run that nobody asked for end: somebody asks for one.
    pub(crate) fn give_way(&self) {
        if self.own.load(Ordering::Acquire) {
            self.interrupt();
        }
    }

    /// Waits for the run under way to end; one that nobody asked for does so at once, another once it is told.
    pub(crate) fn interrupt(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        {
            // Under the lock, so that its thread is not between looking whether it is to end and waiting.
            let _asked = self.asked();
            self.changed.notify_all();
        }
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn unreadable(&self) -> HashSet<PackId> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note_unreadable(&self, packs: &HashSet<PackId>) {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).extend(packs);
    }

    /// Has packs be tried again.
    pub(super) fn forget_unreadable(&self, packs: &HashSet<PackId>) {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).retain(|pack| !packs.contains(pack));
    }

    /// The share of each pack that is live as the last checkpoint counted, in percent.
    pub(super) fn counted(&self) -> Vec<(PackId, u8)> {
        self.asked().counted.live.iter().map(|(pack, percent)| (*pack, *percent)).collect()
    }

    /// Bytes of packs that nothing refers to, at least.
    pub(crate) fn reclaimable(&self) -> u64 {
        self.asked().counted.dead
    }

    /// A writer waits for room; whether there may be some soon.
    pub(crate) fn ask_for_room(&self) -> bool {
        let mut asked = self.asked();
        if self.by_itself && asked.may_gain() && !asked.room && asked.counted.worth_if_full >= FULL_LEAST {
            asked.room = true;
            self.changed.notify_all();
        }
        self.by_itself && asked.room
    }
}

impl Core {
    /// A checkpoint counted these references.
    pub(crate) fn count_garbage(&self, refs: &HashMap<PackId, PackRefs>) {
        let mut counted = Counted::default();
        let (pack_size, plain_limit) = (self.pack_size(), self.fold_start());
        let unreadable = self.collector.unreadable();
        for pack in self.store.data_summaries() {
            let used = refs.get(&pack.pack).map_or(0, |refs| refs.bytes).min(pack.plain_len);
            let part = |whole: u64| {
                (u128::from(whole) * u128::from(used) / u128::from(pack.plain_len.max(1))) as u64
            };
            let dead = pack.file_len - part(pack.file_len);
            let percent = part(100) as u8;
            counted.stored += pack.file_len;
            counted.dead += dead;
            // Those stay as they are.
            if unreadable.contains(&pack.pack) {
                continue;
            }
            counted.worth += if percent < THRESHOLD { dead } else { 0 };
            counted.worth_if_full += if percent < FULL_THRESHOLD { dead } else { 0 };
            counted.small += usize::from(super::choose::is_small(&pack, pack_size, plain_limit));
            counted.live.insert(pack.pack, percent);
        }
        self.space.note_packed(counted.stored);
        self.collector.asked().counted = counted;
    }

    /// What somebody asked of the volume, as a number that changes with it.
    pub(crate) fn activity(&self) -> u64 {
        let c = &self.counters;
        [&c.reads, &c.writes, &c.records, &c.fsyncs].iter().map(|count| count.get()).sum()
    }
}

impl Asked {
    /// Whether a run may gain what the last one could not.
    fn may_gain(&self) -> bool {
        let more = |then: u64| self.counted.worth_if_full >= then + FULL_LEAST;
        self.not_before.is_none_or(|(at, then)| Instant::now() >= at || more(then))
    }
}

impl Counted {
    fn is_worth_it(&self) -> bool {
        (self.worth > WORTH_LEAST && self.worth > self.stored / 100 * WORTH_PERCENT) || self.small >= MERGE
    }
}

/// The collector's thread.
pub(crate) fn run(core: &Arc<Core>) {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!("collecting has the priority of everything else: {error}");
    }
    let (mut activity, mut since) = (core.activity(), Instant::now());
    loop {
        let room = {
            let asked = core.collector.asked();
            let idle = |asked: &mut Asked| !asked.room && !core.signal.is_stopping();
            let waited = core.collector.changed.wait_timeout_while(asked, TICK, idle);
            waited.unwrap_or_else(PoisonError::into_inner).0.room
        };
        if core.is_stopped() || core.signal.is_stopping() {
            return;
        }
        if std::mem::replace(&mut activity, core.activity()) != activity {
            since = Instant::now();
        }
        if room {
            once(core, &GcOptions { threshold: FULL_THRESHOLD, ..sparing() }, |_| false);
            core.collector.asked().room = false;
            // Those who wait look again.
            core.signal.note_progress();
        } else if since.elapsed() >= QUIET && core.dirty.backlog().0 == 0 && is_worth_it(core) {
            once(core, &sparing(), |core| core.activity() != activity);
        }
    }
}

fn is_worth_it(core: &Core) -> bool {
    let asked = core.collector.asked();
    asked.may_gain() && asked.counted.is_worth_it()
}

/// What is done without being asked goes by the checkpoint's counts.
fn sparing() -> GcOptions {
    GcOptions { threshold: THRESHOLD, merge_small: MERGE, thorough: false, max_duration: None }
}

/// One run, until somebody else wants to collect or `stop` says so.
fn once(core: &Core, options: &GcOptions, stop: impl Fn(&Core) -> bool) {
    let mut tell = |_: &super::GcProgress| {
        let ends = stop(core) || core.collector.waiting.load(Ordering::Acquire) > 0;
        if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    // A panic is a bug in here; nothing that was acknowledged hangs on it.
    let run = || collect(core, options, &mut tell);
    core.collector.own.store(true, Ordering::Release);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    core.collector.own.store(false, Ordering::Release);
    let gained = match ended {
        Ok(Ok(report)) => {
            let (dropped, written) = (report.bytes_dropped, report.bytes_written);
            tracing::info!(dropped, written, "garbage was collected");
            dropped > written
        }
        Ok(Err(GcError::Busy)) => true,
        Ok(Err(error)) => {
            tracing::warn!("garbage could not be collected: {error}");
            false
        }
        Err(_) => {
            tracing::error!("collecting garbage panicked; it is not tried again for a while");
            false
        }
    };
    let mut asked = core.collector.asked();
    asked.not_before = (!gained).then(|| (Instant::now() + RETRY, asked.counted.worth_if_full));
}
