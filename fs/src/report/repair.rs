//! What was had back from elsewhere.

use cairn_volume::{RefillProgress, RefillReport, RefillStep};
use serde::{Deserialize, Serialize};

use super::ScrubFileReport;

/// [`RefillProgress`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepairProgressReport {
    /// What it is doing: `scrubbing`, `listing`, `storing` or `emptying`.
    pub(crate) step: String,
    /// Bytes of the packs that it goes through.
    pub(crate) bytes_total: u64,
    /// How many of them were read.
    pub(crate) bytes: u64,
    /// Chunks that are lost, as far as known.
    pub(crate) chunks_lost: u64,
    /// How many of them were found.
    pub(crate) chunks_found: u64,
}

impl From<RefillProgress> for RepairProgressReport {
    fn from(progress: RefillProgress) -> RepairProgressReport {
        let RefillProgress { step, bytes_total, bytes, chunks_lost, chunks_found } = progress;
        let step = match step {
            RefillStep::Scrubbing => "scrubbing",
            RefillStep::Listing => "listing",
            RefillStep::Storing => "storing",
            RefillStep::Emptying => "emptying",
        };
        RepairProgressReport { step: step.to_string(), bytes_total, bytes, chunks_lost, chunks_found }
    }
}

/// [`RefillReport`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RepairRunReport {
    /// Whether nothing was changed.
    pub(crate) dry_run: bool,
    /// Sectors of 4 KiB that parity restored.
    pub(crate) sectors_corrected: u64,
    /// Packs that something could not be read of, or that were missing.
    pub(crate) packs_damaged: u64,
    /// Chunks that files need and that could not be read where they should be.
    pub(crate) chunks_lost: u64,
    /// Places in files that they are needed at.
    pub(crate) places_lost: u64,
    /// The bytes of those.
    pub(crate) bytes_lost: u64,
    /// The files.
    pub(crate) files_lost: u64,
    /// Of those chunks, what the store has in another place.
    pub(crate) chunks_known: u64,
    /// Of those chunks, what was found in what was given.
    pub(crate) chunks_found: u64,
    /// Chunks that were stored anew.
    pub(crate) chunks_stored: u64,
    /// Their bytes before they are compressed.
    pub(crate) bytes_stored: u64,
    /// Packs written.
    pub(crate) packs_written: u64,
    /// Places in files that can be read again.
    pub(crate) places_refilled: u64,
    /// Damaged or missing packs that nothing refers to any more.
    pub(crate) packs_dropped: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Files that something of is lost still.
    #[serde(default)]
    pub(crate) files: Vec<ScrubFileReport>,
    /// Whether there are more than are listed.
    pub(crate) more: bool,
}

impl RepairRunReport {
    /// Of a run that changed nothing, or (`false`) did.
    pub(crate) fn of(report: RefillReport, dry_run: bool) -> RepairRunReport {
        // Taken apart without `..`: a new field does not compile until it has a name here.
        let RefillReport {
            corrected,
            packs_damaged,
            chunks_lost,
            places_lost,
            bytes_lost,
            files_lost,
            chunks_known,
            chunks_found,
            chunks_stored,
            bytes_stored,
            packs_written,
            places_refilled,
            packs_dropped,
            files,
            more,
            took,
        } = report;
        RepairRunReport {
            dry_run,
            sectors_corrected: corrected,
            packs_damaged,
            chunks_lost,
            places_lost,
            bytes_lost,
            files_lost,
            chunks_known,
            chunks_found,
            chunks_stored,
            bytes_stored,
            packs_written,
            places_refilled,
            packs_dropped,
            seconds: took.as_secs_f64(),
            files: files.into_iter().map(ScrubFileReport::from).collect(),
            more,
        }
    }
}
