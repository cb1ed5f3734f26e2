//! An engine that outlives a crash: as it was, as it was earlier, or not at all.
//!
//! With `CAIRN_ENGINE=redb` it is redb, in a file of the same disk, and whatever becomes of that. With `CAIRN_ENGINE=sled`, and the cargo feature `sled`, it is sled, in a directory of its own: as a kill would leave it,
//! or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cairn_format::CheckpointRef;
use cairn_store::disk::{Access, Disk, DiskFile, MemoryDisk, read_small};
use cairn_volume::EngineChoice;
use cairn_volume::engine::{Change, Checked, Engine, EngineError, MetaEngine, RedbEngine};
use tempfile::TempDir;

#[derive(Clone, Default)]
struct Version {
    values: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
    position: Option<CheckpointRef>,
}

/// All versions that an engine went through.
#[derive(Clone, Default)]
pub struct Versions(Arc<RwLock<Vec<Version>>>);

/// The engine of a [`World`](crate::world::World).
#[derive(Clone)]
pub enum Surviving {
    /// In memory, with all it went through.
    Versions(Versions),
    /// redb, on the disk of the volume; with what its file was when the volume was mounted before.
    Redb(Arc<Mutex<Vec<u8>>>),
    /// sled, in this directory.
    Sled(Arc<TempDir>),
}

/// The directory of redb's file on a disk in memory, and the file.
const REDB_DIR: &str = "engine";
const REDB_FILE: &str = "engine/namespace.redb";
const REDB_CACHE: usize = 1 << 20;

impl Default for Surviving {
    /// A new one, of the kind that the environment names.
    fn default() -> Surviving {
        match std::env::var("CAIRN_ENGINE").as_deref() {
            Err(_) | Ok("memory") => Surviving::Versions(Versions::default()),
            Ok("redb") => Surviving::Redb(Arc::default()),
            Ok("sled") if MetaEngine::Sled.is_built() => Surviving::Sled(Arc::new(new_dir())),
            Ok("sled") => panic!("CAIRN_ENGINE=sled takes --features sled"),
            Ok(other) => panic!("CAIRN_ENGINE={other}: memory, redb and sled are known"),
        }
    }
}

impl Surviving {
    /// What survives a crash. redb's file lies on the volume's disk: see [`Surviving::leave`].
    pub fn surviving(&self, survival: Survival) -> Surviving {
        match self {
            Surviving::Redb(before) => {
                let before = before.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Surviving::Redb(Arc::new(Mutex::new(before)))
            }
            Surviving::Versions(versions) => Surviving::Versions(versions.surviving(survival)),
            Surviving::Sled(dir) => {
                let left = new_dir();
                // There are no older ones: that is the same as none.
                if survival == Survival::All {
                    copy_tree(dir.path(), left.path()).expect("a temporary directory takes copies");
                }
                Surviving::Sled(Arc::new(left))
            }
        }
    }

    /// Changes a bit of one of its values; whether it could.
    pub fn rot(&self, pick: u64) -> bool {
        match self {
            Surviving::Versions(versions) => versions.rot(pick),
            // Their files rot under real mounts.
            Surviving::Redb(_) | Surviving::Sled(_) => false,
        }
    }

    /// Has the engine's file on a disk that a crash left be older, or none.
    pub fn leave(&self, survival: Survival, disk: &MemoryDisk) {
        let Surviving::Redb(before) = self else { return };
        match survival {
            Survival::All => {}
            Survival::Older(_) => {
                let before = before.lock().unwrap_or_else(PoisonError::into_inner);
                put_file(disk, REDB_FILE, Some(&before));
            }
            Survival::None => put_file(disk, REDB_FILE, None),
        }
    }

    /// The engine to open a volume on `disk` with.
    pub fn choice(&self, disk: &MemoryDisk) -> EngineChoice {
        match self {
            Surviving::Versions(versions) => versions.choice(),
            Surviving::Redb(before) => {
                *before.lock().unwrap_or_else(PoisonError::into_inner) =
                    read_small(disk, REDB_FILE, u64::MAX).unwrap_or_default();
                let disk = disk.clone();
                EngineChoice::By(Box::new(move |fresh| {
                    let file = redb_file(&disk, fresh)
                        .map_err(|error| EngineError::Failed { engine: "redb", reason: error.to_string() })?;
                    Ok(Arc::new(Checked::new(RedbEngine::on(file, REDB_CACHE)?)))
                }))
            }
            Surviving::Sled(dir) => EngineChoice::Sled(dir.path().join("engine")),
        }
    }
}

/// redb's file, as it is or a new one.
fn redb_file(disk: &MemoryDisk, fresh: bool) -> io::Result<Arc<dyn DiskFile>> {
    let unless = |kind| move |e: io::Error| if e.kind() == kind { Ok(()) } else { Err(e) };
    disk.create_dir(REDB_DIR).or_else(unless(io::ErrorKind::AlreadyExists))?;
    if fresh {
        disk.remove(REDB_FILE).or_else(unless(io::ErrorKind::NotFound))?;
    }
    match disk.open(REDB_FILE, Access::Write) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => disk.open(REDB_FILE, Access::CreateNew),
        found => found,
    }
}

/// Has a file hold other bytes, or be none. The directory is there where the file ever was.
fn put_file(disk: &MemoryDisk, path: &str, bytes: Option<&[u8]>) {
    let _ = disk.remove(path);
    if let Some(bytes) = bytes
        && let Ok(file) = disk.open(path, Access::CreateNew)
    {
        file.write_at(bytes, 0).expect("a disk in memory takes copies");
        file.sync().and_then(|()| disk.sync_dir(REDB_DIR)).expect("a disk in memory syncs");
    }
}

fn new_dir() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        let copied = match entry.file_type()?.is_dir() {
            true => fs::create_dir(&to).and_then(|()| copy_tree(&entry.path(), &to)),
            false => fs::copy(entry.path(), &to).map(drop),
        };
        // sled removes its old files whenever it likes.
        copied.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    }
    Ok(())
}

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

    fn rot(&self, pick: u64) -> bool {
        let mut versions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(values) = versions.last_mut().map(|version| Arc::make_mut(&mut version.values)) else {
            return false;
        };
        let one = pick as usize % values.len().max(1);
        match values.values_mut().nth(one) {
            Some(value) if !value.is_empty() => {
                let bit = (pick >> 32) as usize % (8 * value.len());
                value[bit / 8] ^= 1 << (bit % 8);
                true
            }
            _ => false,
        }
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
