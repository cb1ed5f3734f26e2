//! Repairing: steps over what a check found, each in a file of its own.
//!
//! A volume is examined, the steps are gone through in order, and where one changed more than the findings say the volume is
//! examined again: until nothing is left that any step can do something about. Packs that were gone through once are
//! not read again, unless they were written to.
//!
//! Architecture Invariant: a step that is killed leaves the volume as it was or as it wanted it, and the whole is simply run
//! again. So each writes what is new beside what is old, makes it certain, and has the superblock name it last; and copies
//! what it overwrites into `fsck-undo/` first. The engine is never asked.

mod caches;
mod checkpoint;
mod headers;
mod journal;
mod keeping;
mod leftovers;
mod namespace;
mod packs;
mod put_back;
mod replicas;
mod segments;
pub(crate) mod suspect;
mod twins;
mod undo;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_format::{CheckpointKind, CheckpointRef, PackId, VolumeState, VolumeSuperblock};
use cairn_store::disk::Disk;
use cairn_store::{PackReader, Store, read_replicas};
use cairn_volume::ENGINE_DIR;

use crate::examine::{Examined, Place, examine};
use crate::packs::Packs;
use crate::picture::{Picture, Treated, draw, outline};
use crate::progress::Progress;
use crate::report::{CheckTotals, Finding, Report, Severity};
use crate::{CheckError, Opened, open_dir, summary};
pub use put_back::{PutBack, undo, undo_dir};
pub use undo::UNDO_DIR;
use undo::Undo;

/// How much may be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Level {
    /// What loses nothing: `-p`.
    #[default]
    Safe,
    /// What loses something, too, but makes the volume usable: `-y`.
    All,
}

/// How a volume is repaired.
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    /// How much may be done.
    pub level: Level,
    /// Check a volume that says of itself that it is in order.
    pub force: bool,
    /// Have bytes that are lost read as zeros, which nobody can tell from zeros then.
    pub zero_fill: bool,
    /// As for a check.
    pub scratch: Option<PathBuf>,
    /// As for a check.
    pub picture: bool,
}

/// A volume under repair.
pub(crate) struct Site<'a> {
    volume: Arc<dyn Disk>,
    store: Arc<dyn Disk>,
    engine: Option<&'a Path>,
    options: &'a RepairOptions,
    progress: &'a dyn Progress,
    undo: Undo,
    /// Packs that were gone through.
    packs: Packs,
    /// Packs that were written to.
    treated: BTreeMap<PackId, Treated>,
    /// Whether what is journalled could not be folded: it is not tried again.
    unfoldable: bool,
}

impl Site<'_> {
    fn may_lose(&self) -> bool {
        self.options.level == Level::All
    }
}

/// Whether a step left the volume as it was found, but for what findings say was done about them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    AsFound,
    /// It has to be examined again.
    Changed,
}

/// A step: does what it can about some findings, and notes in them what it did.
type Step = fn(&mut Site<'_>, &mut Examined) -> Result<Outcome, CheckError>;

/// The steps, each building on those before it.
const STEPS: [(&str, Step); 10] = [
    ("repairing superblocks", replicas::run),
    ("removing what is left over", leftovers::run),
    ("repairing packs", packs::run),
    ("making second copies", twins::run),
    ("repairing caches", caches::run),
    ("repairing segments", segments::run),
    ("repairing segment headers", headers::run),
    ("finding a checkpoint", checkpoint::run),
    ("repairing the namespace", namespace::run),
    ("folding the journal", journal::run),
];

/// A volume is examined so often at most: each time some step did what it can do once.
const ROUNDS: usize = 12;

/// Repairs the volume in a directory, under its lock; `on_wait` is told when somebody still folds in it.
pub fn repair_dir(
    dir: &Path,
    options: &RepairOptions,
    progress: &dyn Progress,
    on_wait: &dyn Fn(&str),
) -> Result<Report, CheckError> {
    match open_dir(dir, "repairing it", on_wait)? {
        Ok(Opened { disk, store, _lock }) => {
            repair(disk, store, Some(&dir.join(ENGINE_DIR)), options, progress)
        }
        Err(report) => Ok(report),
    }
}

/// Repairs a volume on any disk, which nobody may have open.
pub fn repair(
    volume: Arc<dyn Disk>,
    store: Arc<dyn Disk>,
    engine: Option<&Path>,
    options: &RepairOptions,
    progress: &dyn Progress,
) -> Result<Report, CheckError> {
    if options.level == Level::Safe
        && !options.force
        && let Some(superblock) = says_it_is_in_order(&*volume, &*store)
    {
        let report = summary(Some(&superblock), CheckTotals::default(), Vec::new());
        let picture = options.picture.then(|| outline(&superblock, &*store));
        return Ok(Report { checked: false, picture, ..report });
    }
    let undo = Undo::new(volume.clone(), store.clone());
    let (packs, treated) = Default::default();
    let mut site = Site { volume, store, engine, options, progress, undo, packs, treated, unfoldable: false };
    let mut done: Vec<Finding> = Vec::new();
    for round in 1.. {
        let mut found = site.examine()?;
        let changed = round < ROUNDS && go_through_steps(&mut site, &mut found)? == Outcome::Changed;
        if !changed {
            let left =
                found.findings.list.iter().filter(|f| f.severity == Severity::Damage && f.done.is_none());
            let left = left.count();
            suspect::run(&site, left, &mut found)?;
            suspect::note_lost(&site)?;
            site.undo.finish()?;
            let picture = options.picture.then(|| site.draw(&found));
            let findings = found.findings.finish_after(done);
            let report = summary(found.superblock.as_ref(), found.totals, findings);
            return Ok(Report { picture, ..report });
        }
        done.extend(found.findings.list.into_iter().filter(|finding| finding.done.is_some()));
    }
    Err(CheckError::Cancelled)
}

fn go_through_steps(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    for (what, step) in STEPS {
        if site.progress.is_cancelled() {
            return Err(CheckError::Cancelled);
        }
        site.progress.step(what);
        if step(site, found)? == Outcome::Changed {
            return Ok(Outcome::Changed);
        }
    }
    Ok(Outcome::AsFound)
}

impl Site<'_> {
    fn examine(&mut self) -> Result<Examined, CheckError> {
        let scratch = self.options.scratch.as_deref();
        let place = Place { volume: &*self.volume, store: &self.store, engine: self.engine, scratch };
        examine(&place, &mut self.packs, self.progress)
    }

    fn draw(&self, found: &Examined) -> Picture {
        draw(found, &self.packs, &self.treated, &*self.store, self.progress)
    }
}

/// The superblock of a volume that was unmounted in order, with all replicas whole, of which no mount and no check noted
/// that anything was wrong.
fn says_it_is_in_order(volume: &dyn Disk, store: &dyn Disk) -> Option<VolumeSuperblock> {
    let replicas = read_replicas(volume, VolumeSuperblock::decode, |s| s.generation).ok()?;
    let whole = replicas.damaged.is_empty() && replicas.newest.state == VolumeState::Clean;
    let store_is_whole = || Store::superblock_of(store).is_ok_and(|replicas| replicas.damaged.is_empty());
    let there = || is_there(store, replicas.newest.checkpoint);
    (whole && store_is_whole() && suspect::noted(volume).is_none() && there()).then_some(replicas.newest)
}

/// Whether a checkpoint's packs are there, and those of all it builds on, as far as their footers tell.
fn is_there(store: &dyn Disk, tip: CheckpointRef) -> bool {
    let mut at = tip;
    while at != CheckpointRef::NONE {
        let footer = PackReader::open(store, at.pack).and_then(|reader| reader.footer());
        let Some(checkpoint) = footer.ok().and_then(|footer| footer.checkpoint) else { return false };
        let all = checkpoint.parts.iter().all(|part| PackReader::open(store, *part).is_ok());
        let previous = match checkpoint.kind {
            CheckpointKind::Base => CheckpointRef::NONE,
            CheckpointKind::Delta => checkpoint.previous,
        };
        // A delta's predecessor is older, and there is one: else this is no chain.
        let ends = checkpoint.kind == CheckpointKind::Base;
        if !all
            || checkpoint.lsn != at.lsn
            || (!ends && (previous.lsn >= at.lsn || previous == CheckpointRef::NONE))
        {
            return false;
        }
        at = previous;
    }
    true
}
