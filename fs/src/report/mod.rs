//! What a volume holds, did and why, as commands, `control.sock`, hidden files and attributes tell it.

mod drill;
mod gc;
mod page;
mod repair;
mod scrub;
mod stats;
mod why;

use cairn_volume::{Compression, Dedup, HealMode, Usage};
use serde::{Deserialize, Serialize};

pub(crate) use drill::{DrillMarginReport, DrillRangeReport, DrillRunReport};
pub(crate) use gc::{GcProgressReport, GcRunReport};
pub(crate) use page::{About, scrub_page};
pub(crate) use repair::{RepairProgressReport, RepairRunReport};
pub(crate) use scrub::{ScrubFileReport, ScrubProgressReport, ScrubRunReport};
pub(crate) use stats::{HealEventReport, StatsReport, StatsTold};
pub(crate) use why::WhyReport;
#[cfg(test)]
pub(crate) use why::{PackReport, TensorReport};

/// [`Usage`] with names that scripts may rely on. Bytes, but for `files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsageReport {
    /// Inodes.
    pub(crate) files: u64,
    /// Content of all files, holes left out.
    pub(crate) logical: u64,
    /// What is left of it when every chunk is counted once.
    pub(crate) unique: u64,
    /// What that takes in data packs, compressed.
    pub(crate) stored: u64,
    /// Of those, what nothing refers to any more; at least.
    pub(crate) reclaimable: u64,
    /// Metadata packs, engine and index.
    pub(crate) metadata: u64,
    /// What of all packs is there to mend the rest of them: parity, checksums, footers' copies.
    pub(crate) parity: u64,
    /// Second copies of packs.
    #[serde(default)]
    pub(crate) twins: u64,
    /// The journal's segments.
    pub(crate) journal: u64,
    /// What of the journal is not in packs yet.
    pub(crate) journal_used: u64,
}

impl From<Usage> for UsageReport {
    fn from(usage: Usage) -> UsageReport {
        UsageReport {
            files: usage.files,
            logical: usage.logical,
            unique: usage.unique,
            stored: usage.stored,
            reclaimable: usage.reclaimable,
            metadata: usage.metadata,
            parity: usage.parity,
            twins: usage.twins,
            journal: usage.journal,
            journal_used: usage.journal_used,
        }
    }
}

/// As the mount option `compress=` and the attribute `cairn.compress` write it.
pub(crate) fn compression_name(compression: Compression) -> String {
    match compression {
        Compression::None => "off".to_string(),
        Compression::Zstd(level) => format!("zstd:{level}"),
    }
}

/// As the mount option `heal=` writes it.
pub(crate) fn heal_name(mode: HealMode) -> &'static str {
    match mode {
        HealMode::On => "on",
        HealMode::ReadOnly => "ro",
        HealMode::Off => "off",
    }
}

/// The inverse of [`heal_name`].
pub(crate) fn heal_mode(name: &str) -> Result<HealMode, String> {
    [HealMode::On, HealMode::ReadOnly, HealMode::Off]
        .into_iter()
        .find(|mode| heal_name(*mode) == name)
        .ok_or_else(|| "say heal=on, heal=ro or heal=off".to_string())
}

/// As the mount option `dedup=` writes it.
pub(crate) fn dedup_name(dedup: Dedup) -> &'static str {
    match dedup {
        Dedup::On => "on",
        Dedup::Off => "off",
        Dedup::Verify => "verify",
    }
}
