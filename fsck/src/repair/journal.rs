//! What a mount would do with a volume that was not unmounted in order: the journal is folded, files without a name go, and
//! the volume is marked clean. It is the mount's own code that does it.
//!
//! Where the journal lost records that were certain, a mount refuses. With `-y` those behind the damage are given up: the
//! volume goes on from the last record before it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use cairn_format::SEGMENT_DATA_START;
use cairn_store::REPLICA_PATHS;
use cairn_store::disk::Disk;
use cairn_volume::journal::JOURNAL_DIR;
use cairn_volume::{EngineChoice, OpenOn, OpenOptions, open_on};

use super::keeping::Keeping;
use super::undo::Side;
use super::{Outcome, Site, caches};
use crate::CheckError;
use crate::examine::Examined;
use crate::report::{Done, Finding, Severity};

/// Memory for finding duplicates, and for decoded frames: less than a mount takes.
const INDEX_MEM: u64 = 64 << 20;
const CACHE_SIZE: u64 = 16 << 20;

/// Findings of records that are missing.
const LOSSES: [&str; 4] = ["journal", "journal-missing", "journal-reach", "journal-record"];

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let open = |f: &&Finding| f.severity == Severity::Damage && f.done.is_none();
    let lost = found.findings.list.iter().filter(open).filter(|f| LOSSES.contains(&f.kind)).count();
    let other = found.findings.list.iter().filter(open).count() - lost;
    let orphans = found.findings.list.iter().any(|f| f.kind == "orphan" && f.severity == Severity::Info);
    let nothing_to_do = found.clean && lost == 0 && !orphans;
    // Without permission to lose anything, what is damaged stays as it is.
    let may = site.may_lose() || lost + other == 0;
    if site.unfoldable || nothing_to_do || !may || found.checkpoint_is_lost() {
        return Ok(Outcome::AsFound);
    }
    keep_what_is_folded(site, found, lost > 0)?;
    // What it may hold is not asked for.
    caches::remove_engine(site)?;
    let store: Arc<dyn Disk> = match site.undo.has_begun() {
        true => Arc::new(Keeping { below: site.store.clone(), dir: site.undo.of_store()? }),
        false => site.store.clone(),
    };
    match fold(site, store, lost > 0) {
        Ok(()) => {}
        Err(reason) => {
            site.unfoldable = true;
            let what = format!("what is journalled cannot be folded, and stays journalled: {reason}");
            found.findings.push(Finding::info("unfolded", what).file(JOURNAL_DIR));
            if lost == 0 {
                return Ok(Outcome::AsFound);
            }
        }
    }
    for finding in &mut found.findings.list {
        match finding.kind {
            kind if LOSSES.contains(&kind) && finding.severity == Severity::Damage => {
                finding.done(Done::GivenUp);
            }
            "orphan" if finding.severity == Severity::Info => finding.done(Done::Removed),
            "journal-tail" => finding.done(Done::Folded),
            _ => {}
        }
    }
    if !found.clean && lost == 0 && !site.unfoldable {
        let mut finding = Finding::info("unclean", "it was not unmounted in order");
        finding.done(Done::Folded);
        found.findings.push(finding);
    }
    Ok(Outcome::Changed)
}

/// Copies the superblocks and the journal, where records are given up or there is something to be put back: all of the segments
/// where the disk has room for twice as much, and their beginnings otherwise. A fold alone is what any mount does.
fn keep_what_is_folded(site: &mut Site<'_>, found: &Examined, lost: bool) -> Result<(), CheckError> {
    if !lost && !site.undo.has_begun() {
        return Ok(());
    }
    for path in REPLICA_PATHS {
        site.undo.copy(Side::Volume, path)?;
    }
    let segments = site.volume.list(JOURNAL_DIR).map_err(CheckError::io(JOURNAL_DIR))?;
    let bytes: u64 = segments.iter().map(|listed| listed.len).sum();
    let room = site.volume.space().map_or(0, |space| space.available);
    let segment = found.superblock.as_ref().map_or(0, |s| u64::from(s.geometry.segment));
    let whole = room / 2 > bytes + 2 * segment;
    for listed in &segments {
        let path = format!("{JOURNAL_DIR}/{}", listed.name);
        if whole {
            // Their parity, too: it says what was synced.
            site.undo.copy(Side::Volume, &path)?;
        } else if listed.name.ends_with(".seg") {
            site.undo.copy_part(Side::Volume, &path, 0, SEGMENT_DATA_START.into())?;
        }
    }
    match whole {
        true => Ok(()),
        false => site.undo.is_incomplete("the disk had no room for a copy of the journal"),
    }
}

/// Opens the volume, folds, and closes it.
fn fold(site: &Site<'_>, store: Arc<dyn Disk>, past_damage: bool) -> Result<(), String> {
    let engine = site.engine.map_or(EngineChoice::Memory, |dir| EngineChoice::Redb(dir.to_owned()));
    let on = OpenOn {
        disk: site.volume.clone(),
        store,
        engine,
        background: false,
        // Of the system's random numbers.
        session: RandomState::new().build_hasher().finish(),
        options: OpenOptions {
            past_damage,
            collect: false,
            index_mem: INDEX_MEM,
            cache_size: CACHE_SIZE,
            ..OpenOptions::default()
        },
        name: "the volume".into(),
    };
    let volume = open_on(on).map_err(|error| error.to_string())?;
    volume.sync().and_then(|()| volume.close()).map_err(|error| error.to_string())
}
