//! What collecting garbage did.

use cairn_volume::{GcProgress, GcReport, GcStep, GcStop};
use serde::{Deserialize, Serialize};

/// [`GcProgress`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GcProgressReport {
    /// What it is doing: `surveying`, `moving`, `committing` or `checkpointing`.
    pub(crate) step: String,
    /// Live bytes of the packs chosen so far.
    pub(crate) to_move: u64,
    /// How many of them are moved.
    pub(crate) moved: u64,
    /// Packs dropped so far.
    pub(crate) packs_dropped: u64,
    /// Their bytes.
    pub(crate) bytes_dropped: u64,
}

impl From<GcProgress> for GcProgressReport {
    fn from(progress: GcProgress) -> GcProgressReport {
        let GcProgress { step, to_move, moved, packs_dropped, bytes_dropped } = progress;
        let step = match step {
            GcStep::Surveying => "surveying",
            GcStep::Moving => "moving",
            GcStep::Committing => "committing",
            GcStep::Checkpointing => "checkpointing",
        };
        GcProgressReport { step: step.to_string(), to_move, moved, packs_dropped, bytes_dropped }
    }
}

/// [`GcReport`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GcRunReport {
    /// Whether nothing is left that was worth it.
    pub(crate) finished: bool,
    /// Why it ended before that: `asked`, `time` or `no-room`.
    pub(crate) stopped: Option<String>,
    /// Packs that were dropped, those that died by themselves included.
    pub(crate) packs_dropped: u64,
    /// Those of them whose live chunks were moved first.
    pub(crate) packs_compacted: u64,
    /// Packs that were written for it.
    pub(crate) packs_written: u64,
    /// Packs that could not be read whole, and stay.
    pub(crate) packs_unreadable: u64,
    /// Bytes of data packs before.
    pub(crate) bytes_before: u64,
    /// The same afterwards.
    pub(crate) bytes_after: u64,
    /// Bytes of the packs that were dropped.
    pub(crate) bytes_dropped: u64,
    /// Bytes of those that were written.
    pub(crate) bytes_written: u64,
    /// The difference.
    pub(crate) bytes_freed: u64,
    /// What was live of the packs that were looked at.
    pub(crate) live_bytes: u64,
}

impl From<GcReport> for GcRunReport {
    fn from(report: GcReport) -> GcRunReport {
        let bytes_freed = report.bytes_freed();
        // Taken apart without `..`: a new field does not compile until it has a name here.
        let GcReport {
            packs_dropped,
            bytes_dropped,
            packs_compacted,
            packs_written,
            bytes_written,
            packs_unreadable,
            bytes_before,
            bytes_after,
            live_bytes,
            stopped,
        } = report;
        let stopped = stopped.map(|stop| match stop {
            GcStop::Asked => "asked",
            GcStop::Time => "time",
            GcStop::NoRoom => "no-room",
        });
        GcRunReport {
            finished: stopped.is_none(),
            stopped: stopped.map(str::to_string),
            packs_dropped,
            packs_compacted,
            packs_written,
            packs_unreadable,
            bytes_before,
            bytes_after,
            bytes_dropped,
            bytes_written,
            bytes_freed,
            live_bytes,
        }
    }
}
