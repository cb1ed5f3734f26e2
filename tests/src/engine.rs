//! An engine that outlives a crash: as it was, as it was earlier, or not at all.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cairn_format::CheckpointRef;
use cairn_volume::EngineChoice;
use cairn_volume::engine::{Change, Checked, Engine, EngineError};

#[derive(Clone, Default)]
struct Version {
    values: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
    position: Option<CheckpointRef>,
}

/// All versions that an engine went through.
#[derive(Clone, Default)]
pub struct Versions(Arc<RwLock<Vec<Version>>>);

/// What a mount finds of the engine of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// All it was told, ahead of the truth perhaps.
    All,
    /// What it held so many batches before.
    Older(usize),
    /// Nothing.
    None,
}

impl Versions {
    fn current(&self) -> Version {
        self.0.read().unwrap_or_else(PoisonError::into_inner).last().cloned().unwrap_or_default()
    }

    /// What survives a crash.
    pub fn surviving(&self, survival: Survival) -> Versions {
        let versions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let kept = match survival {
            Survival::All => versions.len(),
            Survival::Older(n) => versions.len().saturating_sub(n),
            Survival::None => 0,
        };
        Versions(Arc::new(RwLock::new(versions[..kept].to_vec())))
    }

    /// The engine to open a volume with.
    pub fn choice(&self) -> EngineChoice {
        let current = Mutex::new(self.clone());
        EngineChoice::By(Box::new(move |fresh| {
            let versions = current.lock().unwrap_or_else(PoisonError::into_inner);
            if fresh {
                versions.0.write().unwrap_or_else(PoisonError::into_inner).clear();
            }
            Ok(Arc::new(Checked::new(VersionedEngine(versions.clone()))))
        }))
    }
}

struct VersionedEngine(Versions);

impl Engine for VersionedEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let versions = self.0.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(versions.last().and_then(|v| v.values.get(key).cloned()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        let version = self.0.current();
        for (key, value) in version.values.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if each(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = Change>, at: CheckpointRef) -> Result<(), EngineError> {
        let mut version = self.0.current();
        let values = Arc::make_mut(&mut version.values);
        for (key, value) in changes {
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
        }
        version.position = Some(at);
        self.0.0.write().unwrap_or_else(PoisonError::into_inner).push(version);
        Ok(())
    }

    fn position(&self) -> Result<Option<CheckpointRef>, EngineError> {
        Ok(self.0.current().position)
    }
}
