//! A checkpoint that cannot be read: the newest state that can be had without it. An older checkpoint with the journal behind
//! it may be as new as what is lost, if no segment was used again since. What cannot be had is lost, and told.
//!
//! And the other way round: a checkpoint that is there, though the journal that would name it is not. Each was sealed only once
//! the journal was certain up to it, and what it says it says without the journal.

use cairn_format::{CheckpointRef, Lsn, VolumeSuperblock};
use cairn_store::Store;
use cairn_volume::journal::scan_read_only_from;
use cairn_volume::{CheckpointChain, load_chain};

use super::namespace::{Ground, mend, unreadable};
use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::journal::JournalState;
use crate::namespace::{Overlay, Skip, gaps};
use crate::report::{Done, Finding};

/// A state that can be had.
struct Candidate {
    at: CheckpointRef,
    checkpoints: CheckpointChain,
    journal: JournalState,
    /// Whether the journal's records follow upon the checkpoint.
    connected: bool,
    /// Frames of its base that cannot be read.
    skip: Skip,
}

impl Candidate {
    /// Up to where it goes.
    fn reaches(&self) -> Lsn {
        if self.connected { self.journal.chain.last.max(self.at.lsn) } else { self.at.lsn }
    }
}

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let unnamed = found.findings.list.iter().any(is_unnamed);
    let lost = found.checkpoint_is_lost();
    let Examined { superblock, journal, store, .. } = &*found;
    if !lost && !unnamed {
        return Ok(Outcome::AsFound);
    }
    let (Some(superblock), Some(journal), Some(store)) = (superblock, journal, store) else {
        return Ok(Outcome::AsFound);
    };
    if !site.may_lose() {
        return Ok(Outcome::AsFound);
    }
    let Some(best) = best(site, superblock, journal, store) else { return Ok(Outcome::AsFound) };
    let base = best.checkpoints.entries.first().map_or(&[][..], |entry| &entry.parts);
    let gaps = gaps(store, base, &best.skip).map_err(unreadable)?;
    let mut overlay = Overlay::default();
    if best.connected {
        best.journal.replay(best.at, |mutation, at| overlay.apply(mutation, at));
    }
    let wanted = journal.chain.last.max(found.tip.lsn);
    if !lost && best.reaches() <= wanted {
        return Ok(Outcome::AsFound);
    }
    let ground = Ground {
        superblock,
        store,
        tip: found.tip,
        reached: wanted.max(best.reaches()),
        checkpoints: &best.checkpoints,
        journal: &best.journal,
        overlay: &overlay,
        skip: &best.skip,
        gaps: &gaps,
        // What does not fit together then is found, told and mended in the next round.
        may_lose: false,
    };
    mend(site, &ground)?;
    for finding in &mut found.findings.list {
        if is_unnamed(finding) {
            finding.what += "; that is what the volume is now";
            finding.done(Done::Rebuilt);
        } else if finding.kind == "checkpoint" {
            tell(finding, &best, wanted);
        }
    }
    Ok(Outcome::Changed)
}

/// Whether it tells of a checkpoint beyond the journal's end.
fn is_unnamed(finding: &Finding) -> bool {
    finding.kind == "journal-missing" && finding.pack.is_some()
}

fn tell(finding: &mut Finding, best: &Candidate, wanted: Lsn) {
    let reached = best.reaches();
    if !best.skip.is_empty() {
        finding.what += &format!(
            "; without {} of its frames: names, inodes, attributes and extents in them are lost, but for what else tells of them",
            best.skip.len()
        );
    }
    finding.what += &match reached >= wanted {
        true => format!(
            "; the checkpoint at {} and the journal behind it hold the same: nothing is lost",
            best.at.lsn
        ),
        false => format!(
            "; the volume is what it was at {reached}: all that was done between that and {wanted} is lost"
        ),
    };
    finding.done(Done::FellBack);
}

/// The candidate that goes furthest.
fn best(
    site: &Site<'_>,
    superblock: &VolumeSuperblock,
    journal: &JournalState,
    store: &Store,
) -> Option<Candidate> {
    let packs = store.metadata_packs(superblock.uuid).into_iter().map(|(pack, _)| pack);
    let ends = packs.filter_map(|pack| {
        let checkpoint = store.reader(pack).and_then(|r| r.footer()).ok()?.checkpoint?;
        (checkpoint.parts.last() == Some(&pack)).then_some(CheckpointRef { lsn: checkpoint.lsn, pack })
    });
    // Without any checkpoint a journal that holds all there ever was is enough.
    let candidates = ends.chain([CheckpointRef::NONE]).filter_map(|at| {
        let checkpoints = load_chain(store, superblock.uuid, at).ok()?;
        let skip = bad_frames(site, &checkpoints)?;
        let floor = checkpoints.entries.last().map_or(Lsn::ZERO, |entry| entry.floor);
        let (chain, _) = scan_read_only_from(&*site.volume, &journal.shape, floor.min(at.lsn));
        let connected = chain.continues <= at.lsn && chain.last > at.lsn;
        let journal = JournalState { chain, shape: journal.shape, damage: Vec::new(), records: 0, bytes: 0 };
        let usable = at != CheckpointRef::NONE || (connected && journal.chain.continues == Lsn::ZERO);
        usable.then_some(Candidate { at, checkpoints, journal, connected, skip })
    });
    // A state that was, rather than a newer one with holes.
    candidates.max_by_key(|candidate| (candidate.skip.is_empty(), candidate.reaches()))
}

/// The frames of a chain that cannot be read; none where those are not the base's alone: without a frame of a delta what is
/// older would pass for what is newer.
fn bad_frames(site: &Site<'_>, checkpoints: &CheckpointChain) -> Option<Skip> {
    let mut skip = Skip::new();
    for (number, entry) in checkpoints.entries.iter().enumerate() {
        for pack in &entry.parts {
            let bad = &site.packs.get(pack)?.facts.bad_frames;
            if number > 0 && !bad.is_empty() {
                return None;
            }
            skip.extend(bad.keys().map(|frame| (*pack, *frame)));
        }
    }
    Some(skip)
}
