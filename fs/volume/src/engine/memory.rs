//! The engine that holds everything in memory: for tests, and for mounts that must not write.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, PoisonError, RwLock};

use cairn_format::CheckpointRef;

use super::{Change, Engine, EngineError};

/// An engine in memory, empty at first.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    /// A scan holds the version it began with, lock released, so that what it calls may use the engine.
    /// Only a change during a scan copies.
    version: RwLock<Arc<Version>>,
}

#[derive(Clone, Debug, Default)]
struct Version {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    position: Option<CheckpointRef>,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    fn version(&self) -> Arc<Version> {
        // Nothing below panics while it writes, so that a poisoned lock's version is whole.
        Arc::clone(&self.version.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.version.read().unwrap_or_else(PoisonError::into_inner).values.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        // The map panics on a range that ends before it begins.
        if from >= to {
            return Ok(());
        }
        let version = self.version();
        for (key, value) in version.values.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if each(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = Change>, at: CheckpointRef) -> Result<(), EngineError> {
        // Collected before the lock is taken: the iterator may read from the engine, or panic.
        let changes: Vec<Change> = changes.collect();
        let mut version = self.version.write().unwrap_or_else(PoisonError::into_inner);
        let version = Arc::make_mut(&mut version);
        for (key, value) in changes {
            match value {
                Some(value) => version.values.insert(key, value),
                None => version.values.remove(&key),
            };
        }
        version.position = Some(at);
        Ok(())
    }

    fn position(&self) -> Result<Option<CheckpointRef>, EngineError> {
        Ok(self.version.read().unwrap_or_else(PoisonError::into_inner).position)
    }
}
