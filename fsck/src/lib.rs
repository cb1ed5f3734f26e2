//! `fsck.cairn`: checks a volume that nobody has mounted, and changes nothing.
//!
//! A check goes the way of the data backwards: superblocks, journal, packs (every byte of them), the
//! chain of checkpoints, the engine, and then the namespace as it is at the journal's end.
//!
//! Architecture Invariant: nothing here opens a file of a volume for writing.

mod engine;
mod footers;
mod index;
mod journal;
mod namespace;
mod packs;
mod progress;
mod replaces;
mod report;
mod superblocks;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_format::{CheckpointRef, Lsn, PackKind, VolumeState, VolumeSuperblock};
use cairn_store::disk::{Disk, FileDisk};
use cairn_store::{Store, StoreError, StoreOptions};
use cairn_volume::journal::JournalShape;
use cairn_volume::{CheckpointChain, ENGINE_DIR, LockError, LockHolder, load_chain, lock_volume, store_disk};

pub use progress::{Progress, Quiet};
pub use report::{CheckTotals, Finding, Report, Severity};

use index::Index;
use journal::{JournalState, check_journal};
use namespace::{Sources, check_namespace, unreadable};
use packs::{Packs, check_packs};
use report::Findings;

/// How a check is done.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Where the engine is copied to, to be compared; the system's temporary directories if not given.
    pub scratch: Option<PathBuf>,
}

/// Why a volume could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is none.
    #[error("not a cairn volume: {0}. Make one with mkfs.cairn")]
    NotAVolume(String),
    /// A newer cairn made it.
    #[error("it needs a newer cairn: {0}. Nothing was checked; install a newer version")]
    Newer(String),
    /// Somebody has it.
    #[error("{0}. Unmount it first")]
    Locked(#[from] LockError),
    /// The disk below failed, or does not allow it.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory, relative to the volume's.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// It was told to stop.
    #[error("stopped before everything was checked")]
    Cancelled,
}

impl CheckError {
    fn io(path: impl Into<String>) -> impl FnOnce(io::Error) -> CheckError {
        let path = path.into();
        move |error| CheckError::Io { path, error }
    }
}

/// Checks the volume in a directory, under its lock; `on_wait` is told when somebody still folds in it.
pub fn check_dir(
    dir: &Path,
    options: &CheckOptions,
    progress: &dyn Progress,
    on_wait: &dyn Fn(&str),
) -> Result<Report, CheckError> {
    let disk = FileDisk::open(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => CheckError::NotAVolume(error.to_string()),
        _ => CheckError::Io { path: dir.display().to_string(), error },
    })?;
    // Before the lock's file is made: a directory that is no volume stays as it is.
    let mut findings = Findings::default();
    let Some(superblock) = superblocks::volume_superblock(&disk, &mut findings)? else {
        return Ok(summary(None, CheckTotals::default(), findings));
    };
    let _lock = lock_volume(dir, &LockHolder::Other("checking it"), true, on_wait)?;
    let store = match store_disk(dir, &superblock.store_path) {
        Ok(store) => store,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!("the store, which holds all files, is not there: {error}");
            findings.push(Finding::damage("store", what).advice("put the store's directory back"));
            return Ok(summary(Some(&superblock), CheckTotals::default(), findings));
        }
        Err(error) => return Err(CheckError::Io { path: dir.display().to_string(), error }),
    };
    check(&disk, store, Some(&dir.join(ENGINE_DIR)), options, progress)
}

/// Checks a volume on any disk, which nobody may have open.
pub fn check(
    volume: &dyn Disk,
    store: Arc<dyn Disk>,
    engine_dir: Option<&Path>,
    options: &CheckOptions,
    progress: &dyn Progress,
) -> Result<Report, CheckError> {
    progress.step("superblocks");
    let mut findings = Findings::default();
    let mut totals = CheckTotals::default();
    let Some(superblock) = superblocks::volume_superblock(volume, &mut findings)? else {
        return Ok(summary(None, totals, findings));
    };
    let Some(store_superblock) = superblocks::store_superblock(&*store, &mut findings)? else {
        return Ok(summary(Some(&superblock), totals, findings));
    };
    if store_superblock.uuid != superblock.store {
        let what = format!(
            "the store is {}, the volume's is {}; nothing else was checked",
            store_superblock.uuid, superblock.store
        );
        findings.push(Finding::damage("store", what).advice("put the volume's own store in its place"));
        return Ok(summary(Some(&superblock), totals, findings));
    }
    let geometry = superblock.geometry;
    let shape =
        JournalShape { volume: superblock.uuid, segment: geometry.segment, segments: geometry.segments };
    let before = findings.list.len();
    let journal = check_journal(volume, shape, &mut findings, progress)?;
    let tip = superblock.checkpoint.max(journal.chain.checkpoint.0);
    let clean = superblock.state == VolumeState::Clean && superblock.checkpoint == tip;
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
    let index = Index::load(&*store, &store_superblock.uuid, &mut findings)?;
    let packs = check_packs(&store, &store_superblock, &index, &mut totals, &mut findings, progress)?;
    drop(index);

    progress.step("checkpoints");
    let options_of_store = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 20, read_only: true };
    let opened = Store::open(store.clone(), options_of_store).map_err(|error| match error {
        StoreError::Io { path, error } => CheckError::Io { path: format!("store/{path}"), error },
        error => CheckError::Io { path: "store".into(), error: io::Error::other(error) },
    })?;
    let checkpoints = match load_chain(&opened, superblock.uuid, tip) {
        Ok(checkpoints) => checkpoints,
        Err(error) => {
            unreadable(&error, &mut findings);
            return Ok(summary(Some(&superblock), totals, findings));
        }
    };
    forgive_leftovers(&superblock, &checkpoints, &packs, &mut findings);
    check_reach(&journal, &checkpoints, tip, clean, &mut findings);
    if let Some(dir) = engine_dir {
        let scratch = options.scratch.as_deref();
        engine::check_engine(dir, scratch, &opened, &checkpoints, &mut totals, &mut findings, progress)?;
    }
    let sources = Sources {
        store: &opened,
        store_disk: &store,
        checkpoints: &checkpoints,
        journal: &journal,
        packs: &packs,
        clean,
    };
    check_namespace(&sources, &mut totals, &mut findings, progress)?;
    Ok(summary(Some(&superblock), totals, findings))
}

fn summary(superblock: Option<&VolumeSuperblock>, totals: CheckTotals, findings: Findings) -> Report {
    Report {
        volume: superblock.map(|s| s.uuid.to_string()),
        label: superblock.map(|s| s.label.clone()).unwrap_or_default(),
        totals,
        findings: findings.finish(),
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
        .filter(|(pack, facts)| {
            facts.described == Some((superblock.uuid, PackKind::Metadata)) && !needed.contains(pack)
        })
        .map(|(pack, _)| pack.to_string())
        .collect();
    for finding in &mut findings.list {
        if finding.severity == Severity::Damage
            && finding.pack.as_ref().is_some_and(|p| leftovers.contains(p))
        {
            finding.severity = Severity::Info;
            finding.what.push_str(" (nothing needs this pack; the next mount removes it)");
        }
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
