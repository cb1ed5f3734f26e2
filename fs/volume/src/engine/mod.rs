//! The engine: an ordered key-value library that caches the namespace for fast look-ups.
//!
//! Architecture Invariant: an engine is never the truth. It may be deleted at any time, and one that
//! errs, panics, holds a damaged value or stands ahead of the newest checkpoint is rebuilt from the
//! metadata packs. Nobody waits for its commits.

use std::ops::ControlFlow;

use cairn_format::CheckpointRef;

mod checked;
#[cfg(test)]
mod conformance;
mod guarded;
mod kind;
mod memory;
mod redb;
#[cfg(feature = "sled")]
mod sled;

pub use checked::Checked;
pub use kind::MetaEngine;
pub use memory::MemoryEngine;
pub use redb::RedbEngine;
#[cfg(feature = "sled")]
pub use sled::SledEngine;

/// A change to one key: its new value, or `None` for its removal.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Why an engine cannot be used any further: it has to be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The library returned an error or panicked.
    #[error("the {engine} engine failed: {reason}")]
    Failed {
        /// Which library.
        engine: &'static str,
        /// What it said.
        reason: String,
    },
    /// A value does not match its checksum.
    #[error("the engine holds a damaged value of {len} bytes under key {key}")]
    Damaged {
        /// The key, in hexadecimal.
        key: String,
        /// The value's length.
        len: usize,
    },
}

/// Called with keys and values until it breaks.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// What the namespace needs of a key-value library. One thread applies; any number read.
pub trait Engine: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;
    /// Calls `each` with the keys in `from..to` in ascending order until it breaks.
    fn scan(&self, from: &[u8], to: &[u8], each: Visit<'_>) -> Result<(), EngineError>;
    /// Applies all changes and moves to `at`, together or not at all. The changes may come in any order,
    /// each key at most once.
    fn apply(&self, changes: &mut dyn Iterator<Item = Change>, at: CheckpointRef) -> Result<(), EngineError>;
    /// The checkpoint whose state the engine holds; `None` while it is empty.
    fn position(&self) -> Result<Option<CheckpointRef>, EngineError>;
    /// Lets go of the library, when nobody applies any more: an engine that has to leave something behind
    /// for the next mount does it here. What is read afterwards may fail.
    fn close(&self) {}
}
