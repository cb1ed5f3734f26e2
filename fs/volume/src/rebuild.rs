//! An engine that failed is rebuilt from the metadata packs by whoever meets the failure first; the others wait, and then
//! look again. A look-up may hold inodes' locks meanwhile: nothing here waits for any.

use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

use cairn_format::CheckpointRef;

use crate::checkpoint::{MaintainError, load_chain};
use crate::core::Core;
use crate::engine::{Change, Checked, Engine, EngineError, MemoryEngine, Visit};
use crate::namespace::NamespaceError;
use crate::open::{EngineSource, new_engine};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a rebuild failed, the next is not tried before this.
const RETRY: Duration = Duration::from_secs(2);
/// Bytes of metadata packs whose engine may be kept in memory where the disk has no room for one: they hold about eight
/// times as much.
const IN_MEMORY_MAX: u64 = 8 << 20;

/// How engines are made, and what one has to hold.
pub(crate) struct EngineKeeper {
    source: EngineSource,
    truth: Mutex<Truth>,
}

/// The checkpoint whose state the engine holds. Locked while that changes.
pub(crate) struct Truth {
    at: CheckpointRef,
    failed: Option<Instant>,
    closed: bool,
}

impl EngineKeeper {
    /// For an engine from `source` that stands at `at`.
    pub(crate) fn new(source: EngineSource, at: CheckpointRef) -> EngineKeeper {
        EngineKeeper { source, truth: Mutex::new(Truth { at, failed: None, closed: false }) }
    }

    /// To be held from reading the engine's state for a checkpoint until that is applied.
    pub(crate) fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Truth {
    /// The engine holds this checkpoint from here on.
    pub(crate) fn advance(&mut self, at: CheckpointRef) {
        self.at = at;
    }
}

impl Core {
    /// Puts a new engine in the place of the one of this generation, unless somebody else has.
    pub(crate) fn replace_engine(&self, failed: u64, why: &dyn Display) -> Result<(), MaintainError> {
        let mut truth = self.engine.truth();
        if truth.closed {
            return Err(MaintainError::Unfoldable("the volume is closed".into()));
        }
        if self.ns.generation() != failed {
            return Ok(());
        }
        if truth.failed.is_some_and(|at| at.elapsed() < RETRY) {
            return Err(MaintainError::Unfoldable("the engine could not be rebuilt a moment ago".into()));
        }
        tracing::warn!("the engine is rebuilt from the metadata packs: {why}");
        self.counters.engine_rebuilds.add(1);
        // The old one is let go of first, and its room on the disk with it. Who looks meanwhile comes to wait here.
        self.ns.replace_engine(Arc::new(Closed));
        match self.rebuilt(truth.at) {
            Ok(engine) => {
                truth.failed = None;
                self.ns.replace_engine(engine);
                Ok(())
            }
            Err(error) => {
                tracing::error!("the engine could not be rebuilt: {error}");
                truth.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    fn rebuilt(&self, at: CheckpointRef) -> Result<Arc<dyn Engine>, MaintainError> {
        let checkpoints = load_chain(&self.store, self.uuid, at)?;
        let first = match new_engine(&self.engine.source, &self.store, &checkpoints) {
            Err(MaintainError::Namespace(NamespaceError::Engine(error))) => error,
            result => return result,
        };
        // A full disk, most likely.
        if self.kept.release(&*self.disk)
            && let Ok(engine) = new_engine(&self.engine.source, &self.store, &checkpoints)
        {
            return Ok(engine);
        }
        if checkpoints.base_bytes + checkpoints.delta_bytes > IN_MEMORY_MAX {
            return Err(NamespaceError::from(first).into());
        }
        tracing::warn!("the engine is kept in memory until the next mount: {first}");
        let memory: EngineSource = Box::new(|_| Ok(Arc::new(Checked::new(MemoryEngine::new()))));
        new_engine(&memory, &self.store, &checkpoints)
    }
}

impl Core {
    /// Lets go of the engine: look-ups fail from here on. One whose files are in `dir` is sealed.
    pub(crate) fn close_engine(&self, dir: Option<&Path>) {
        self.engine.truth().closed = true;
        // Closing changes its files; one that somebody still reads from cannot be dropped.
        self.ns.engine().close();
        self.ns.replace_engine(Arc::new(Closed));
        if let Some(dir) = dir {
            seal(dir);
        }
    }
}

/// What is left of an engine when its volume is closed.
struct Closed;

impl Closed {
    fn error() -> EngineError {
        EngineError::Failed { engine: "closed", reason: "the volume is closed".into() }
    }
}

impl Engine for Closed {
    fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Err(Closed::error())
    }

    fn scan(&self, _from: &[u8], _to: &[u8], _each: Visit<'_>) -> Result<(), EngineError> {
        Err(Closed::error())
    }

    fn apply(
        &self,
        _changes: &mut dyn Iterator<Item = Change>,
        _at: CheckpointRef,
    ) -> Result<(), EngineError> {
        Err(Closed::error())
    }

    fn position(&self) -> Result<Option<CheckpointRef>, EngineError> {
        Err(Closed::error())
    }
}

/// The file beside an engine that says it is whole: a hash of all its files, made when it was closed.
const SEAL: &str = "sum";
const BUFFER: usize = 1 << 20;

/// Takes the seal off the engine in `dir`; whether its files are what they were when it was put on. A value's checksum
/// shows that it is damaged, and nothing shows that one is missing: but this, or going through all of them.
pub(crate) fn unseal(dir: &Path) -> bool {
    let path = dir.join(SEAL);
    let Ok(said) = std::fs::read(&path) else { return false };
    // Whatever goes wrong from here on, the engine is looked through.
    std::fs::remove_file(&path).is_ok() && hash_of(dir).is_ok_and(|hash| hash.as_bytes()[..] == said[..])
}

/// Seals the engine in `dir`, which nobody has open.
fn seal(dir: &Path) {
    let sealed = hash_of(dir).and_then(|hash| std::fs::write(dir.join(SEAL), hash.as_bytes()));
    if let Err(error) = sealed {
        tracing::info!("the next mount goes through the whole engine: {error}");
    }
}

fn hash_of(dir: &Path) -> std::io::Result<blake3::Hash> {
    use std::io::Read;
    let mut hasher = blake3::Hasher::new();
    let mut waiting = vec![dir.to_owned()];
    let mut buffer = vec![0; BUFFER];
    while let Some(dir) = waiting.pop() {
        let mut entries = std::fs::read_dir(&dir)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_name() == SEAL {
                continue;
            }
            hasher.update(entry.file_name().as_encoded_bytes()).update(&[0]);
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
                continue;
            }
            let mut file = std::fs::File::open(entry.path())?;
            hasher.update(&file.metadata()?.len().to_le_bytes());
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    n => drop(hasher.update(&buffer[..n])),
                }
            }
        }
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_once_and_only_for_the_same_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("sub/engine");
        std::fs::create_dir(dir.path().join("sub")).expect("made");
        std::fs::write(&file, b"values").expect("written");
        assert!(!unseal(dir.path()), "there is none");
        seal(dir.path());
        assert!(unseal(dir.path()));
        assert!(!unseal(dir.path()), "it was taken off");
        seal(dir.path());
        std::fs::write(&file, b"velues").expect("written");
        assert!(!unseal(dir.path()), "a byte changed");
        seal(dir.path());
        std::fs::write(dir.path().join("more"), b"").expect("written");
        assert!(!unseal(dir.path()), "a file came");
    }
}
