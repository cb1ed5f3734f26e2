//! What goes on behind the callers: folds, checkpoints, spare segments; and whoever waits for them.

use std::time::{Duration, Instant};

use cairn_format::Lsn;
use cairn_store::Pins;

use crate::checkpoint::{CheckpointState, MaintainError, checkpoint, drop_dead_packs};
use crate::core::{Core, OVERLAY_LIMIT};
use crate::fold::fold_batch;
use crate::journal::JournalError;
use crate::namespace::NamespaceError;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, thread};

/// Dirty runs are folded once they have been quiet for this long.
const QUIET: Duration = Duration::from_secs(5);
/// A checkpoint is written when something changed and this long has passed.
const CHECKPOINT_AGE: Duration = Duration::from_secs(30);
/// …or when this share of the journal's cap is in use, in percent.
const CHECKPOINT_PRESSURE: u64 = 40;
/// How often the maintenance looks around when nobody wakes it.
const TICK: Duration = Duration::from_millis(500);
/// Segments of the journal that stay closed for so long get parity: under load a checkpoint needs them no more before.
const PROTECT_AFTER: Duration = Duration::from_secs(5);
/// After a failure it waits this long before it tries again.
const RETRY: Duration = Duration::from_secs(1);

/// By how much folding is nicer than what answers requests.
const NICENESS: i32 = 5;

/// What folds and checkpoints go on from.
pub(crate) struct Maintainer {
    pub(crate) checkpoints: CheckpointState,
    last_checkpoint: Instant,
    /// The last failure that was logged: one that lasts is logged once.
    failure: Option<String>,
}

impl Maintainer {
    pub(crate) fn new(checkpoints: CheckpointState) -> Maintainer {
        Maintainer { checkpoints, last_checkpoint: Instant::now(), failure: None }
    }
}

#[derive(Default)]
struct Wanted {
    wake: bool,
    urgent: bool,
    stop: bool,
}

/// How the maintenance is woken, and how it tells of progress.
#[derive(Default)]
pub(crate) struct Signal {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    progress: AtomicU64,
    idle_or_failing: AtomicBool,
    rounds: AtomicU64,
}

impl Signal {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to do.
    pub(crate) fn wake(&self) {
        let mut wanted = self.wanted();
        if !wanted.wake {
            wanted.wake = true;
            self.changed.notify_all();
        }
    }

    /// Somebody waits for room.
    pub(crate) fn wake_urgently(&self) {
        let mut wanted = self.wanted();
        wanted.wake = true;
        wanted.urgent = true;
        self.changed.notify_all();
    }

    /// The maintenance is to end.
    pub(crate) fn stop(&self) {
        self.wanted().stop = true;
        self.changed.notify_all();
    }

    /// Whether it is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.wanted().stop
    }

    /// Something changed that somebody may wait for.
    pub(crate) fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts batches and checkpoints that changed something.
    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Acquire)
    }

    /// Counts rounds, whatever came of them.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }

    /// Whether the last maintenance found nothing to do, or failed.
    pub(crate) fn is_idle_or_failing(&self) -> bool {
        self.idle_or_failing.load(Ordering::Acquire)
    }
}

/// One round: a batch of folding and a checkpoint, as far as they are due (or `urgent`: now). Whether it changed
/// anything.
pub(crate) fn maintain(core: &Core, urgent: bool) -> Result<bool, MaintainError> {
    let mut maintainer = core.maintainer.lock().unwrap_or_else(PoisonError::into_inner);
    let generation = core.ns.generation();
    // Who waits for room while this goes on must not take the last round's end for this one's.
    core.signal.idle_or_failing.store(false, Ordering::Release);
    let result = round(core, &mut maintainer, urgent);
    if let Err(MaintainError::Namespace(NamespaceError::Engine(error))) = &result {
        // A checkpoint met it; the next finds another. What fails here is logged there.
        let _ = core.replace_engine(generation, error);
    }
    core.signal.idle_or_failing.store(!matches!(result, Ok(true)), Ordering::Release);
    if let Ok(true) = result {
        core.signal.note_progress();
    }
    core.signal.rounds.fetch_add(1, Ordering::AcqRel);
    core.counters.fold_errors.add(u64::from(result.is_err()));
    report(&mut maintainer, result.as_ref().err());
    if let Ok(journal) = core.journal() {
        journal.notify_room();
    }
    result
}

/// Logs a failure when it begins, and that it is over.
fn report(maintainer: &mut Maintainer, error: Option<&MaintainError>) {
    let failure = error.map(ToString::to_string);
    if failure == maintainer.failure {
        return;
    }
    match (&failure, error) {
        (Some(failure), Some(error)) if error.is_full() => {
            tracing::warn!("folding waits for room on the disk: {failure}");
        }
        (Some(failure), _) => tracing::error!("folding failed, it is tried again: {failure}"),
        (None, _) => tracing::info!("folding goes on"),
    }
    maintainer.failure = failure;
}

fn round(core: &Core, maintainer: &mut Maintainer, urgent: bool) -> Result<bool, MaintainError> {
    let Ok(journal) = core.journal() else { return Ok(false) };
    if journal.stopped().is_some() {
        return Ok(false);
    }
    if core.has_room_for_spares() {
        journal.prepare_spare();
        core.keep_reserve();
    }
    let (backlog, oldest) = core.dirty.backlog();
    let mut folded = Ok(false);
    let pressed = urgent || backlog > core.fold_start() || journal.pressure() >= CHECKPOINT_PRESSURE;
    if backlog > 0 && (pressed || oldest >= QUIET) {
        let age = if pressed { Duration::ZERO } else { QUIET };
        folded = fold_some(core, &mut maintainer.checkpoints.pins, age);
        // On a full disk a checkpoint may make room all the same.
        if folded.as_ref().is_err_and(|error| !error.is_full()) {
            return folded;
        }
    }
    let (active, frozen) = core.ns.overlay_bytes();
    let due = frozen > 0
        || active > OVERLAY_LIMIT / 2
        || journal.pressure() >= CHECKPOINT_PRESSURE
        || maintainer.last_checkpoint.elapsed() >= CHECKPOINT_AGE
        || (urgent && core.dirty.backlog().0 == 0);
    let written = due && write_checkpoint(core, maintainer)?;
    folded.map(|folded| folded || written)
}

/// Folds a batch; whether that changed anything.
fn fold_some(core: &Core, pins: &mut Vec<(Lsn, Pins)>, age: Duration) -> Result<bool, MaintainError> {
    if !core.has_room_to_fold() {
        return Err(MaintainError::NoRoom);
    }
    Ok(fold_batch(core, pins, age)?.chunks > 0)
}

fn write_checkpoint(core: &Core, maintainer: &mut Maintainer) -> Result<bool, MaintainError> {
    let mut written = checkpoint(core, &mut maintainer.checkpoints);
    if written.as_ref().is_err_and(MaintainError::is_full) && core.kept.release(&*core.disk) {
        written = checkpoint(core, &mut maintainer.checkpoints);
    }
    let written = written?;
    maintainer.last_checkpoint = Instant::now();
    core.space.refresh();
    if written {
        // It may have made room, whatever else the round came to.
        core.signal.note_progress();
    }
    Ok(written)
}

/// Writes a checkpoint that holds everything so far, if anything changed; packs that are dead then are dropped.
pub(crate) fn checkpoint_now(core: &Core) -> Result<(), MaintainError> {
    let journal = core.journal().map_err(|_| JournalError::Stopped("read-only".into()))?;
    let mut maintainer = core.maintainer.lock().unwrap_or_else(PoisonError::into_inner);
    // One that failed before goes first; it knows nothing of what came since.
    if core.ns.frozen().is_some() {
        write_checkpoint(core, &mut maintainer)?;
    }
    if !write_checkpoint(core, &mut maintainer)? {
        drop_dead_packs(core, &mut maintainer.checkpoints);
    }
    drop(maintainer);
    core.signal.note_progress();
    journal.notify_room();
    Ok(())
}

/// Folds everything that was acknowledged before the call, and writes a checkpoint that holds it.
pub(crate) fn fold_all(core: &Core) -> Result<(), MaintainError> {
    let journal = match core.journal() {
        Ok(journal) => journal,
        Err(_) => return Ok(()),
    };
    let target = journal.last();
    let mut without_progress = 0;
    while core.dirty.floor().is_some_and(|floor| floor <= target) {
        let mut maintainer = core.maintainer.lock().unwrap_or_else(PoisonError::into_inner);
        // Who waits for room meanwhile must not take the thread's last round, which found nothing to do, for this.
        core.signal.idle_or_failing.store(false, Ordering::Release);
        let before = core.dirty.floor();
        let folded = fold_some(core, &mut maintainer.checkpoints.pins, Duration::ZERO)?;
        if journal.pressure() >= CHECKPOINT_PRESSURE || core.ns.overlay_bytes().0 > OVERLAY_LIMIT / 2 {
            write_checkpoint(core, &mut maintainer)?;
        }
        drop(maintainer);
        core.signal.note_progress();
        journal.notify_room();
        // Runs that come back again and again cannot be folded: their bytes cannot be read.
        let progress = folded || core.dirty.floor() != before;
        without_progress = if progress { 0 } else { without_progress + 1 };
        if without_progress > 3 {
            let reason = "some files cannot be folded, the log says which and why".to_owned();
            return Err(MaintainError::Unfoldable(reason));
        }
    }
    let mut maintainer = core.maintainer.lock().unwrap_or_else(PoisonError::into_inner);
    core.signal.idle_or_failing.store(false, Ordering::Release);
    write_checkpoint(core, &mut maintainer)?;
    journal.notify_room();
    // The checkpoint's own record came behind what it holds; the journal keeps it until the next.
    Ok(())
}

/// The maintenance's thread.
pub(crate) fn run(core: &Arc<Core>) {
    // Those it starts are as nice. It does what nobody waits for: whoever writes comes first until the journal is full,
    // and then waits for this and takes no time.
    // (A test's scheduler runs it on the test's own thread.)
    if !cfg!(feature = "schedules")
        && let Err(error) = rustix::process::nice(NICENESS)
    {
        tracing::debug!("folding has the priority of everything else: {error}");
    }
    loop {
        let urgent = {
            let wanted = core.signal.wanted();
            let idle = |w: &mut Wanted| !w.wake && !w.urgent && !w.stop;
            let (mut wanted, _) = core
                .signal
                .changed
                .wait_timeout_while(wanted, TICK, idle)
                .unwrap_or_else(PoisonError::into_inner);
            if wanted.stop {
                return;
            }
            wanted.wake = false;
            std::mem::take(&mut wanted.urgent)
        };
        let mut urgent = urgent;
        let mut calm = false;
        loop {
            // A panic is a bug in here; what was acknowledged is in the journal, and the volume stops taking
            // writes rather than going on from a state that nobody thought of.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| maintain(core, urgent)));
            match outcome {
                Ok(Ok(true)) if !core.signal.wanted().stop => urgent = false,
                Ok(Ok(changed)) => {
                    calm = !changed;
                    break;
                }
                Ok(Err(_)) => {
                    thread::sleep(if urgent { TICK } else { RETRY });
                    break;
                }
                Err(_) => {
                    if let Ok(journal) = core.journal() {
                        journal.stop_because("the maintenance panicked".into());
                    }
                    return;
                }
            }
        }
        let tend = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tend_journal(core)));
        if calm && tend().is_err() {
            if let Ok(journal) = core.journal() {
                journal.stop_because("the maintenance panicked".into());
            }
            return;
        }
    }
}

/// Mends what is damaged of the journal's closed segments, and protects one, while nothing else is to do.
fn tend_journal(core: &Core) {
    // No time passes under a test's scheduler.
    if cfg!(feature = "schedules") {
        return;
    }
    core.mend_journal();
    let pressed = core.journal().is_ok_and(|journal| journal.pressure() >= CHECKPOINT_PRESSURE);
    if !pressed && !core.signal.wanted().urgent {
        core.protect_journal(PROTECT_AFTER);
    }
}
