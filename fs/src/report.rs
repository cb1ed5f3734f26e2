//! What a volume holds, as `cairn df` and `control.sock` tell it.

use cairn_volume::Usage;
use serde::{Deserialize, Serialize};

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
    /// Metadata packs, engine and index.
    pub(crate) metadata: u64,
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
            metadata: usage.metadata,
            journal: usage.journal,
            journal_used: usage.journal_used,
        }
    }
}
