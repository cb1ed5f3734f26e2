//! The namespace, where what it says does not fit together. It is gone through three times: what there is (`survey`), what
//! has to change (`plan`), and then all of it is written down anew as it should be (`write`): a base, by the code that a mount
//! writes one with. Only when that is certain the superblock names it, so that until then nothing has changed.
//!
//! All this is read from metadata packs and the journal.

mod counts;
mod lost_found;
mod missing;
mod plan;
mod survey;
mod write;

use cairn_format::{CheckpointRef, Lsn, VolumeSuperblock};
use cairn_store::Store;
use cairn_volume::{ChainReadError, CheckpointChain};

use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::journal::JournalState;
use crate::namespace::{Gap, Names, Overlay, Skip};
use crate::report::{Done, Finding, Severity};
use plan::Plan;
use survey::Survey;

/// What is done about findings where nothing is lost by that.
const SAFE: [(&str, Done); 11] = [
    ("link-count", Done::Corrected),
    ("stored", Done::Corrected),
    ("stored-share", Done::Corrected),
    ("totals", Done::Corrected),
    ("pack-count", Done::Corrected),
    ("next-inode", Done::Corrected),
    ("order", Done::Corrected),
    ("name-kind", Done::Corrected),
    ("parent", Done::Corrected),
    ("beyond-end", Done::Corrected),
    ("orphan", Done::Removed),
];

/// And where something is, or may be.
const LOSING: [(&str, Done); 13] = [
    ("no-inode", Done::Removed),
    ("no-name", Done::Moved),
    ("no-directory", Done::Removed),
    ("directory-names", Done::Removed),
    ("cycle", Done::Moved),
    ("root", Done::Rebuilt),
    ("target", Done::Removed),
    ("xattr", Done::Removed),
    ("extents", Done::Removed),
    ("key", Done::Removed),
    ("value", Done::Removed),
    ("view", Done::Removed),
    ("name", Done::Removed),
];

/// What a namespace is mended on: the states that it is read from, and what names them.
pub(super) struct Ground<'a> {
    pub(super) superblock: &'a VolumeSuperblock,
    pub(super) store: &'a Store,
    /// The newest checkpoint that anything names: what is written has to be newer.
    pub(super) tip: CheckpointRef,
    /// The last record that is in it, or was.
    pub(super) reached: Lsn,
    /// The checkpoint that it is read from.
    pub(super) checkpoints: &'a CheckpointChain,
    pub(super) journal: &'a JournalState,
    pub(super) overlay: &'a Overlay,
    /// Frames of the checkpoint that cannot be read, and what is missing because of that.
    pub(super) skip: &'a Skip,
    pub(super) gaps: &'a [Gap],
    /// Whether anything may be lost by mending it.
    pub(super) may_lose: bool,
}

impl Ground<'_> {
    fn names(&self) -> Names<'_> {
        Names { store: self.store, checkpoints: self.checkpoints, overlay: self.overlay, skip: self.skip }
    }
}

/// What became of inodes.
pub(super) struct Mended {
    rebuilt: Vec<u64>,
    moved: Vec<u64>,
}

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let wanted = found.findings.list.iter().any(|finding| remedy(finding, site).is_some());
    let Examined { superblock, journal, store, checkpoints, .. } = &*found;
    let (Some(superblock), Some(journal), Some(store), Some(checkpoints)) =
        (superblock, journal, store, checkpoints)
    else {
        return Ok(Outcome::AsFound);
    };
    if !wanted || found.checkpoint_is_lost() || checkpoints.entries.is_empty() {
        return Ok(Outcome::AsFound);
    }
    let mut overlay = Overlay::default();
    if !found.clean {
        journal.replay(found.tip, |mutation, at| overlay.apply(mutation, at));
    }
    let reached = journal.chain.last.max(found.tip.lsn);
    let ground = Ground {
        superblock,
        store,
        tip: found.tip,
        reached,
        checkpoints,
        journal,
        overlay: &overlay,
        skip: &Skip::new(),
        gaps: &[],
        may_lose: site.may_lose(),
    };
    let mended = mend(site, &ground)?;
    for finding in &mut found.findings.list {
        let Some(mut done) = remedy(finding, site) else { continue };
        if let Some(ino) = finding.inode {
            if mended.rebuilt.contains(&ino) {
                done = Done::Rebuilt;
            } else if mended.moved.contains(&ino) {
                done = Done::Moved;
            }
        }
        finding.done(done);
    }
    Ok(Outcome::Changed)
}

/// What is done about a finding here.
fn remedy(finding: &Finding, site: &Site<'_>) -> Option<Done> {
    if finding.severity != Severity::Damage || finding.done.is_some() {
        return None;
    }
    let of =
        |table: &[(&str, Done)]| table.iter().find(|(kind, _)| *kind == finding.kind).map(|(_, done)| *done);
    let zero = site.options.zero_fill;
    match finding.kind {
        "lost-bytes" | "journalled-bytes" if zero => Some(Done::Zeroed),
        "journalled-bytes" if site.may_lose() => Some(Done::GivenUp),
        _ => of(&SAFE).or_else(|| if site.may_lose() { of(&LOSING) } else { None }),
    }
}

/// Writes the namespace down as it should be, and has the superblock name it.
pub(super) fn mend(site: &mut Site<'_>, ground: &Ground<'_>) -> Result<Mended, CheckError> {
    let mut survey = Survey::new(&ground.names(), ground.may_lose, ground.gaps).map_err(unreadable)?;
    let plan = Plan::new(&ground.names(), &mut survey, ground).map_err(unreadable)?;
    let (rebuilt, moved) = (plan.rebuilt(), plan.moved());
    write::write(site, ground, &plan, &mut survey)?;
    Ok(Mended { rebuilt, moved })
}

/// It could be read a moment ago, by the check.
pub(super) fn unreadable(error: ChainReadError) -> CheckError {
    CheckError::Io { path: "store".into(), error: std::io::Error::other(error.to_string()) }
}
