//! Telling how far a check is, and being told to stop.

/// Who watches a check.
pub trait Progress: Sync {
    /// A step begins.
    fn step(&self, _what: &str) {}
    /// So many bytes will be read, beyond those told before.
    fn expect(&self, _bytes: u64) {}
    /// So many of them were.
    fn advance(&self, _bytes: u64) {}
    /// Whether to stop.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
pub struct Quiet;

impl Progress for Quiet {}
