//! Everything that is known of a volume that nobody has mounted: a check is this and no more, a repair goes on from it.
//!
//! Architecture Invariant: nothing here opens a file of a volume for writing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_format::{CheckpointRef, Lsn, PackId, PackKind, StoreSuperblock, VolumeState, VolumeSuperblock};
use cairn_store::disk::Disk;
use cairn_store::{Store, StoreError, StoreOptions};
use cairn_volume::journal::JournalShape;
use cairn_volume::{CheckpointChain, load_chain};

use crate::index::Index;
use crate::journal::{JournalState, check_journal};
use crate::namespace::{Sources, check_namespace, dropped, unreadable};
use crate::packs::{ALONE, Packs, check_packs};
use crate::progress::Progress;
use crate::repair::suspect;
use crate::report::{CheckTotals, Finding, Findings, Severity};
use crate::{CheckError, engine, superblocks};

/// Where a volume lies.
pub(crate) struct Place<'a> {
    /// Its directory.
    pub(crate) volume: &'a dyn Disk,
    /// Its store's.
    pub(crate) store: &'a Arc<dyn Disk>,
    /// Its engine's, where it has one.
    pub(crate) engine: Option<&'a Path>,
    /// Where the engine is copied to, to be compared.
    pub(crate) scratch: Option<&'a Path>,
}

/// What is known of a volume. What is none was not come to: a finding says why.
#[derive(Default)]
pub(crate) struct Examined {
    pub(crate) superblock: Option<VolumeSuperblock>,
    pub(crate) store_superblock: Option<StoreSuperblock>,
    pub(crate) journal: Option<JournalState>,
    /// Knows the packs, and takes little memory.
    pub(crate) store: Option<Store>,
    /// The newest checkpoint that anything names.
    pub(crate) tip: CheckpointRef,
    /// What leads there; none where it cannot be read.
    pub(crate) checkpoints: Option<CheckpointChain>,
    /// Whether the volume was unmounted in order: its checkpoint holds everything.
    pub(crate) clean: bool,
    pub(crate) totals: CheckTotals,
    pub(crate) findings: Findings,
}

/// Goes through all of a volume but the packs that are `known`.
pub(crate) fn examine(
    place: &Place<'_>,
    known: &mut Packs,
    progress: &dyn Progress,
) -> Result<Examined, CheckError> {
    let mut all = Examined::default();
    all.go_through(place, known, progress)?;
    Ok(all)
}

impl Examined {
    /// Whether the newest checkpoint cannot be read, or not all of it.
    pub(crate) fn checkpoint_is_lost(&self) -> bool {
        self.checkpoints.is_none() || self.findings.list.iter().any(|finding| finding.kind == "checkpoint")
    }

    fn go_through(
        &mut self,
        place: &Place<'_>,
        known: &mut Packs,
        progress: &dyn Progress,
    ) -> Result<(), CheckError> {
        progress.step("superblocks");
        let Examined { findings, totals, .. } = self;
        let Some(superblock) = superblocks::volume_superblock(place.volume, findings)? else { return Ok(()) };
        let superblock = self.superblock.insert(superblock);
        suspect::tell(place.volume, findings);
        let Some(of_store) = superblocks::store_superblock(&**place.store, findings)? else { return Ok(()) };
        let of_store = self.store_superblock.insert(of_store);
        if of_store.uuid != superblock.store {
            let what = format!(
                "the store is {}, the volume's is {}; nothing else was checked",
                of_store.uuid, superblock.store
            );
            findings.push(Finding::damage("store", what).advice("put the volume's own store in its place"));
            return Ok(());
        }
        let geometry = superblock.geometry;
        let shape =
            JournalShape { volume: superblock.uuid, segment: geometry.segment, segments: geometry.segments };
        let before = findings.list.len();
        let journal = self.journal.insert(check_journal(place.volume, shape, findings, progress)?);
        let tip = superblock.checkpoint.max(journal.chain.checkpoint.0);
        let clean = superblock.state == VolumeState::Clean && superblock.checkpoint == tip;
        (self.tip, self.clean) = (tip, clean);
        if superblock.state == VolumeState::Mounted && journal.chain.last.epoch() < superblock.epoch {
            let what = format!(
                "the journal ends at {}, the records of mount {} are missing: what it wrote last is lost",
                journal.chain.last, superblock.epoch
            );
            findings.push(Finding::damage("journal-missing", what).file("journal"));
        }
        if clean {
            forgive_journal(&mut findings.list[before..]);
        }
        (totals.journal_records, totals.journal_bytes) = (journal.records, journal.bytes);
        let index = Index::load(&**place.store, &of_store.uuid, findings)?;
        check_packs(place.store, of_store, &index, known, totals, findings, progress)?;
        drop(index);

        progress.step("checkpoints");
        let store = self.store.insert(open_store(place.store)?);
        let checkpoints = match load_chain(store, superblock.uuid, tip) {
            Ok(checkpoints) => self.checkpoints.insert(checkpoints),
            Err(error) => {
                unreadable(&error, findings);
                return Ok(());
            }
        };
        forgive_leftovers(superblock, checkpoints, known, findings);
        note_missing_twins(superblock, checkpoints, known, findings);
        check_reach(journal, checkpoints, tip, clean, findings);
        check_beyond(store, superblock, checkpoints, journal.chain.last.max(tip.lsn), findings);
        if let Some(dir) = place.engine {
            engine::check_engine(dir, place.scratch, store, checkpoints, totals, findings, progress)?;
        }
        let sources = Sources { store, store_disk: place.store, checkpoints, journal, packs: known, clean };
        check_namespace(&sources, totals, findings, progress)
    }
}

/// A store as it is read here: in little memory, and nothing is changed by that.
pub(crate) fn open_store(disk: &Arc<dyn Disk>) -> Result<Store, CheckError> {
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 20, read_only: true };
    Store::open(disk.clone(), options).map_err(of_store)
}

/// What the store could not do, with its path as a volume has it.
pub(crate) fn of_store(error: StoreError) -> CheckError {
    match error {
        StoreError::Io { path, error } => CheckError::Io { path: format!("store/{path}"), error },
        error => CheckError::Io { path: "store".into(), error: io::Error::other(error) },
    }
}

/// Damage to the journal of a volume that was unmounted cleanly costs nothing.
fn forgive_journal(findings: &mut [Finding]) {
    for finding in
        findings.iter_mut().filter(|f| f.severity == Severity::Damage && f.kind != "journal-missing")
    {
        finding.severity = Severity::Info;
        finding
            .what
            .push_str(" (nothing is lost: the volume was unmounted, and its checkpoint holds everything)");
        finding.advice = None;
    }
}

/// Damage to metadata packs that no checkpoint needs any more is none.
fn forgive_leftovers(
    superblock: &VolumeSuperblock,
    checkpoints: &CheckpointChain,
    packs: &Packs,
    findings: &mut Findings,
) {
    let needed = checkpoints.packs();
    let leftovers: Vec<String> = packs
        .iter()
        .filter(|(pack, result)| {
            result.facts.described == Some((superblock.uuid, PackKind::Metadata)) && !needed.contains(pack)
        })
        .map(|(pack, _)| pack.to_string())
        .collect();
    for finding in &mut findings.list {
        if finding.severity == Severity::Damage
            && finding.pack.as_ref().is_some_and(|p| leftovers.contains(p))
        {
            if finding.kind == ALONE {
                dropped(finding);
                continue;
            }
            finding.severity = Severity::Info;
            finding.what.push_str(" (nothing needs this pack; the next mount removes it)");
        }
    }
}

/// Metadata packs that have no twin yet: a mount that was killed did not come to making it.
fn note_missing_twins(
    superblock: &VolumeSuperblock,
    checkpoints: &CheckpointChain,
    packs: &Packs,
    findings: &mut Findings,
) {
    if superblock.geometry.parity.is_none() {
        return;
    }
    let whole = |pack: &PackId| packs.get(pack).is_some_and(|result| !result.has_twin && !result.alone);
    for pack in checkpoints.packs().into_iter().filter(whole) {
        let what = "metadata that has no second copy yet; the next mount makes it";
        let file = format!("store/{}", cairn_store::Place::Twin.path(&pack));
        findings.push(Finding::info("twin-missing", what).pack(pack).file(file));
    }
}

/// That the journal reaches back to the checkpoint, or the volume would be older than it was.
fn check_reach(
    journal: &JournalState,
    checkpoints: &CheckpointChain,
    tip: CheckpointRef,
    clean: bool,
    findings: &mut Findings,
) {
    let chain = &journal.chain;
    let floor = checkpoints.entries.last().map_or(Lsn::ZERO, |e| e.floor);
    // As the mount decides it.
    let complete = clean || chain.reaches(tip, floor);
    let short = !clean && chain.last < tip.lsn && chain.last != Lsn::ZERO;
    if !complete || short {
        let what = format!(
            "it holds records {} to {}, the checkpoint at {} needs those from {floor} on",
            chain.continues, chain.last, tip.lsn
        );
        findings.push(Finding::damage("journal-reach", what).file("journal"));
    }
}

/// That there is no checkpoint beyond the journal's end: the journal is certain up to a checkpoint before that is sealed.
/// As the mount decides it.
fn check_beyond(
    store: &Store,
    superblock: &VolumeSuperblock,
    checkpoints: &CheckpointChain,
    reached: Lsn,
    findings: &mut Findings,
) {
    let used = checkpoints.packs();
    let sealed = store.metadata_packs(superblock.uuid).into_iter().map(|(pack, _)| pack);
    for pack in sealed.filter(|pack| !used.contains(pack)) {
        if let Some(lsn) = sealed_at(store, pack).filter(|lsn| *lsn > reached) {
            let what =
                format!("it ends at {reached}, but a checkpoint of {lsn} was written: its end is missing");
            findings.push(Finding::damage("journal-missing", what).file("journal").pack(pack));
        }
    }
}

/// The LSN of the checkpoint that a pack is part of.
fn sealed_at(store: &Store, pack: PackId) -> Option<Lsn> {
    Some(store.reader(pack).and_then(|r| r.footer()).ok()?.checkpoint?.lsn)
}
