//! Garbage collection: packs that are partly dead, and small ones, are written anew without what is dead in them.
//!
//! A run looks through all extents to learn what of each pack is live (`survey.rs`), picks packs (`choose.rs`), and has
//! whoever refers to them refer to copies in new packs (`moving.rs`): by the fold's own pipeline and commit, so that a
//! new pack is certain before any record names it, and a place in a file changes only where it is still what it was.
//! Nothing is dropped here. The old packs die as any other does, when a synced checkpoint refers to them nowhere.
//!
//! Architecture Invariant: what the survey says decides what is worth doing, never what may be dropped.

mod background;
mod choose;
mod moving;
mod survey;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cairn_format::{PackId, PackSummary};

pub(crate) use background::{Collector, run};
use choose::{Victims, victims};
use moving::Mover;
pub(crate) use moving::{PIECES, compression, keep_pinned, no_room};
pub(crate) use survey::each_page;
use survey::{Census, survey, surveyable};

use crate::checkpoint::MaintainError;
use crate::core::Core;
use crate::maintenance::checkpoint_now;

/// Packs less of which is live than this, in percent, are compacted unless told otherwise: what is left takes at most a
/// tenth more than what is live.
const THRESHOLD: u8 = 91;
/// How often a group of packs is gone through for what came to refer to them meanwhile.
const ROUNDS: usize = 3;

/// How garbage is collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Packs of which less than this is live are compacted, in percent of their length.
    pub threshold: u8,
    /// So many small packs are made one; 0: none are.
    pub merge_small: usize,
    /// Look at all packs, also at those that seem to be live; else the checkpoint's counts are believed, which count a
    /// chunk as often as it is used.
    pub thorough: bool,
    /// Ends the run after this time; the next goes on.
    pub max_duration: Option<Duration>,
}

impl Default for GcOptions {
    fn default() -> Self {
        GcOptions { threshold: THRESHOLD, merge_small: 2, thorough: true, max_duration: None }
    }
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GcStep {
    /// It looks for what is live.
    #[default]
    Surveying,
    /// It copies what is live into new packs.
    Moving,
    /// A new pack is certain, and files are about to refer to it.
    Committing,
    /// It waits for the checkpoint that lets the old packs go.
    Checkpointing,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcProgress {
    /// What it is doing.
    pub step: GcStep,
    /// Live bytes of the packs chosen so far, and how many of them are moved.
    pub to_move: u64,
    /// See `to_move`.
    pub moved: u64,
    /// Packs dropped so far.
    pub packs_dropped: u64,
    /// Their bytes.
    pub bytes_dropped: u64,
}

/// Why a run ended before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcStop {
    /// It was asked to.
    Asked,
    /// Its time was over.
    Time,
    /// The disk has no room for what it would have to write before it frees any.
    NoRoom,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Packs that were dropped, those that had died by themselves included.
    pub packs_dropped: u64,
    /// Their bytes.
    pub bytes_dropped: u64,
    /// Packs that were compacted: those among the dropped whose live chunks were moved.
    pub packs_compacted: u64,
    /// Packs written in their place.
    pub packs_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Packs that could not be read whole; they stay as they are.
    pub packs_unreadable: u64,
    /// Bytes of data packs when it began.
    pub bytes_before: u64,
    /// Bytes of data packs when it ended.
    pub bytes_after: u64,
    /// Of the bytes of the packs that it looked at, what was live when it did.
    pub live_bytes: u64,
    /// Why it ended early; none where it is done.
    pub stopped: Option<GcStop>,
}

impl GcReport {
    /// Bytes that the disk has more for it.
    pub fn bytes_freed(&self) -> u64 {
        self.bytes_dropped.saturating_sub(self.bytes_written)
    }
}

/// Why garbage could not be collected. Nothing is lost by it, and the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// Another run is under way.
    #[error("garbage is being collected already")]
    Busy,
    /// The volume takes no writes.
    #[error("the volume takes no writes")]
    ReadOnly,
    /// Folding or a checkpoint failed.
    #[error(transparent)]
    Failed(#[from] MaintainError),
}

/// Called now and then, with no lock held; breaks to end the run.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(&GcProgress) -> ControlFlow<()>;

/// Collects garbage until there is none that is worth it, or it is stopped.
pub(crate) fn collect(core: &Core, options: &GcOptions, tell: Tell<'_>) -> Result<GcReport, GcError> {
    if core.is_stopped() {
        return Err(GcError::ReadOnly);
    }
    let Some(_turn) = core.collector.turn() else { return Err(GcError::Busy) };
    let before = (core.counters.packs_dropped.get(), core.counters.dropped_bytes.get());
    let progress = GcProgress::default();
    let report = GcReport { bytes_before: bytes_of_packs(core), ..GcReport::default() };
    let mut run = Run { core, options, tell, before, since: Instant::now(), progress, report };
    match run.collect() {
        Err(error) if error.is_full() => run.report.stopped = Some(GcStop::NoRoom),
        result => result?,
    }
    run.count_dropped();
    core.counters.gc_runs.add(1);
    run.report.packs_dropped = run.progress.packs_dropped;
    run.report.bytes_dropped = run.progress.bytes_dropped;
    run.report.bytes_after = bytes_of_packs(core);
    Ok(run.report)
}

/// Moves what is live out of packs of which something cannot be read and nobody needs it any more, so that they go: as a
/// run of collecting does, until `tell` breaks. One that somebody needs what cannot be read of stays.
pub(crate) fn empty(core: &Core, packs: &HashSet<PackId>, tell: Tell<'_>) -> Result<GcReport, GcError> {
    core.collector.give_way();
    let Some(_turn) = core.collector.turn() else { return Err(GcError::Busy) };
    core.collector.forget_unreadable(packs);
    let before = (core.counters.packs_dropped.get(), core.counters.dropped_bytes.get());
    let (options, progress, report) = (GcOptions::default(), GcProgress::default(), GcReport::default());
    let mut run = Run { core, options: &options, tell, before, since: Instant::now(), progress, report };
    let all = core.store.data_summaries().into_iter().filter(|pack| packs.contains(&pack.pack)).collect();
    let census = survey(core, all, &mut || run.told(GcStep::Surveying))?;
    for pack in census {
        if run.told(GcStep::Moving) {
            break;
        }
        core.make_room_to_compact(pack.live);
        match run.move_group(&[pack]) {
            Err(error) if error.is_full() => {
                run.report.stopped = Some(GcStop::NoRoom);
                break;
            }
            result => result?,
        }
    }
    run.count_dropped();
    run.report.packs_dropped = run.progress.packs_dropped;
    Ok(run.report)
}

/// Bytes of all data packs, what protects them included.
fn bytes_of_packs(core: &Core) -> u64 {
    core.store.data_summaries().iter().map(|pack| pack.file_len).sum()
}

/// A run under way.
struct Run<'a> {
    core: &'a Core,
    options: &'a GcOptions,
    tell: Tell<'a>,
    /// What had been dropped before it began.
    before: (u64, u64),
    since: Instant,
    progress: GcProgress,
    report: GcReport,
}

impl Run<'_> {
    fn collect(&mut self) -> Result<(), MaintainError> {
        // What was deleted is counted, and packs that died whole go.
        self.checkpoint()?;
        let mut ahead = match self.options.thorough {
            true => self.core.store.data_summaries(),
            false => suspects(self.core, self.options),
        };
        let unreadable = self.core.collector.unreadable();
        ahead.retain(|pack| !unreadable.contains(&pack.pack));
        ahead.sort_unstable_by_key(|pack| pack.pack);
        while !ahead.is_empty() && !self.told(GcStep::Surveying) {
            let some = ahead.split_off(ahead.len() - surveyable(&ahead, self.core.geometry.frame));
            let census = survey(self.core, some, &mut || self.told(GcStep::Surveying))?;
            if self.report.stopped.is_some() {
                break;
            }
            self.report.live_bytes += census.iter().map(|pack| pack.live).sum::<u64>();
            let chosen = victims(census, self.options, self.core.pack_size(), self.core.fold_start());
            self.progress.to_move += chosen.live();
            self.compact(chosen)?;
        }
        Ok(())
    }

    /// Moves what is live out of the packs chosen, as many at a time as the disk has room for.
    fn compact(&mut self, mut chosen: Victims) -> Result<(), MaintainError> {
        while !chosen.is_empty() && !self.told(GcStep::Moving) {
            let group = chosen.next_group(self.core.room_to_compact());
            if group.is_empty() {
                self.report.stopped = Some(GcStop::NoRoom);
                break;
            }
            let live: u64 = group.iter().map(|pack| pack.live).sum();
            self.core.make_room_to_compact(live);
            let moved = self.progress.moved;
            self.move_group(&group)?;
            self.progress.moved = moved + live;
        }
        Ok(())
    }

    fn move_group(&mut self, group: &[Census]) -> Result<(), MaintainError> {
        let claimed = group.iter().map(|pack| pack.live).sum();
        let _group = Retired::new(self.core, group, claimed);
        // Folds that found a chunk in one of them before are counted now, so that the engine knows of all but what is
        // copied from here on.
        self.checkpoint()?;
        let mut mover = Mover::new(self.core, group)?;
        for _ in 0..ROUNDS {
            let moved = mover.pass(self)?;
            self.told(GcStep::Checkpointing);
            self.checkpoint()?;
            let alive = group.iter().filter(|pack| self.core.store.knows(&pack.pack)).count();
            if alive == 0 || !moved || self.report.stopped.is_some() {
                break;
            }
        }
        let alive = group.iter().filter(|pack| self.core.store.knows(&pack.pack)).count();
        self.report.packs_compacted += (group.len() - alive) as u64;
        self.report.packs_unreadable += mover.unreadable.len() as u64;
        self.core.collector.note_unreadable(&mover.unreadable);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), MaintainError> {
        checkpoint_now(self.core)?;
        self.count_dropped();
        Ok(())
    }

    fn count_dropped(&mut self) {
        let counters = &self.core.counters;
        self.progress.packs_dropped = counters.packs_dropped.get() - self.before.0;
        self.progress.bytes_dropped = counters.dropped_bytes.get() - self.before.1;
    }

    /// Tells how far it is; whether to stop.
    fn told(&mut self, step: GcStep) -> bool {
        self.progress.step = step;
        let late = self.options.max_duration.is_some_and(|most| self.since.elapsed() >= most);
        let asked = (self.tell)(&self.progress).is_break() || self.core.signal.is_stopping();
        let stop = if asked { Some(GcStop::Asked) } else { late.then_some(GcStop::Time) };
        self.report.stopped = self.report.stopped.or(stop);
        self.report.stopped.is_some()
    }
}

/// Packs that are being compacted: nothing new is found in them until this goes, or they would never die.
///
/// A chunk that comes again meanwhile is stored once more, unless its copy is in a new pack already. The other way, to
/// offer what is found nowhere else, would have folds refer to a pack for as long as it is being emptied.
struct Retired<'a>(&'a Core, Vec<PackId>);

impl<'a> Retired<'a> {
    fn new(core: &'a Core, group: &[Census], claimed: u64) -> Retired<'a> {
        let packs: Vec<_> = group.iter().map(|pack| pack.pack).collect();
        packs.iter().for_each(|pack| core.store.retire(pack, true));
        core.space.claim(claimed);
        Retired(core, packs)
    }
}

impl Drop for Retired<'_> {
    fn drop(&mut self) {
        self.0.space.claim(0);
        // Those that are still there are as good as any.
        self.1.iter().for_each(|pack| self.0.store.retire(pack, false));
    }
}

/// Packs that may be worth it, as far as the last checkpoint's counts tell.
fn suspects(core: &Core, options: &GcOptions) -> Vec<PackSummary> {
    let counted = core.collector.counted();
    let small = |pack: &&PackSummary| choose::is_small(pack, core.pack_size(), core.fold_start());
    let packs = core.store.data_summaries();
    let many = options.merge_small > 0 && packs.iter().filter(small).count() >= options.merge_small;
    let dead: HashSet<PackId> =
        counted.iter().filter(|(_, percent)| *percent < options.threshold).map(|(pack, _)| *pack).collect();
    packs.into_iter().filter(|pack| dead.contains(&pack.pack) || (many && small(&pack))).collect()
}
