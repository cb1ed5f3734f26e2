//! `fsck.cairn`: checks a volume that nobody has mounted, and repairs it where that is asked for.
//!
//! A check goes the way of the data backwards: superblocks, journal, packs (every byte of them), the
//! chain of checkpoints, the engine, and then the namespace as it is at the journal's end.
//!
//! Architecture Invariant: nothing but `repair/` and `restore.rs` opens a file of a volume for writing.

mod engine;
mod examine;
mod footers;
mod index;
mod journal;
mod namespace;
mod packs;
mod picture;
mod progress;
mod repair;
mod replaces;
mod report;
mod restore;
mod superblocks;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_format::VolumeSuperblock;
use cairn_store::disk::{Disk, FileDisk};
use cairn_volume::{ENGINE_DIR, LockError, LockHolder, VolumeLock, lock_volume, store_disk};

pub use picture::Picture;
pub use progress::{Progress, Quiet};
pub use repair::{Level, PutBack, RepairOptions, UNDO_DIR, repair, repair_dir, undo, undo_dir};
pub use report::{CheckTotals, Done, Finding, Report, Severity};
pub use restore::{Restored, restore, restore_dir};

use examine::{Place, examine};
use packs::Packs;
use picture::draw;
use report::Findings;

/// How a check is done.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Where the engine is copied to, to be compared; the system's temporary directories if not given.
    pub scratch: Option<PathBuf>,
    /// Whether the report is to have what a page shows.
    pub picture: bool,
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
    #[error("{0}. Unmount it first; `cairn scrub` checks one that is mounted")]
    Locked(#[from] LockError),
    /// The disk below failed, or does not allow it.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory, relative to the volume's.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// What a repair kept is not put back.
    #[error("nothing was put back: {0}")]
    NotUndone(String),
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

/// A volume in a directory, and its lock.
struct Opened {
    disk: Arc<FileDisk>,
    store: Arc<dyn Disk>,
    _lock: VolumeLock,
}

/// Takes a volume's lock; a report where there is nothing that could be looked at.
fn open_dir(
    dir: &Path,
    holder: &'static str,
    on_wait: &dyn Fn(&str),
) -> Result<Result<Opened, Report>, CheckError> {
    let disk = FileDisk::open(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => CheckError::NotAVolume(error.to_string()),
        _ => CheckError::Io { path: dir.display().to_string(), error },
    })?;
    // Before the lock's file is made: a directory that is no volume stays as it is.
    let mut findings = Findings::default();
    let Some(superblock) = superblocks::volume_superblock(&disk, &mut findings)? else {
        return Ok(Err(summary(None, CheckTotals::default(), findings.finish())));
    };
    let lock = lock_volume(dir, &LockHolder::Other(holder), true, on_wait)?;
    match store_disk(dir, &superblock.store_path) {
        Ok(store) => Ok(Ok(Opened { disk: Arc::new(disk), store, _lock: lock })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!("the store, which holds all files, is not there: {error}");
            findings.push(Finding::damage("store", what).advice("put the store's directory back"));
            Ok(Err(summary(Some(&superblock), CheckTotals::default(), findings.finish())))
        }
        Err(error) => Err(CheckError::Io { path: dir.display().to_string(), error }),
    }
}

/// Checks the volume in a directory, under its lock; `on_wait` is told when somebody still folds in it.
pub fn check_dir(
    dir: &Path,
    options: &CheckOptions,
    progress: &dyn Progress,
    on_wait: &dyn Fn(&str),
) -> Result<Report, CheckError> {
    match open_dir(dir, "checking it", on_wait)? {
        Ok(Opened { disk, store, _lock }) => {
            check(&*disk, store, Some(&dir.join(ENGINE_DIR)), options, progress)
        }
        Err(report) => Ok(report),
    }
}

/// Checks a volume on any disk, which nobody may have open.
pub fn check(
    volume: &dyn Disk,
    store: Arc<dyn Disk>,
    engine_dir: Option<&Path>,
    options: &CheckOptions,
    progress: &dyn Progress,
) -> Result<Report, CheckError> {
    let place = Place { volume, store: &store, engine: engine_dir, scratch: options.scratch.as_deref() };
    let mut packs = Packs::new();
    let found = examine(&place, &mut packs, progress)?;
    let picture = options.picture.then(|| draw(&found, &packs, &BTreeMap::new(), &*store, progress));
    if progress.is_cancelled() {
        return Err(CheckError::Cancelled);
    }
    let report = summary(found.superblock.as_ref(), found.totals, found.findings.finish());
    Ok(Report { picture, ..report })
}

fn summary(superblock: Option<&VolumeSuperblock>, totals: CheckTotals, findings: Vec<Finding>) -> Report {
    Report {
        volume: superblock.map(|s| s.uuid.to_string()),
        label: superblock.map(|s| s.label.clone()).unwrap_or_default(),
        totals,
        findings,
        checked: true,
        picture: None,
    }
}
