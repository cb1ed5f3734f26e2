//! The engine on redb: a copy-on-write B+tree in one file. What redb does is done inside [`Guarded`].

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use ::redb::{
    Builder, Database, Durability, Error, ReadOnlyTable, ReadableDatabase, StorageBackend, TableDefinition,
    WriteTransaction,
};
use cairn_format::{CheckpointRef, Lsn, PackId};
use cairn_store::disk::DiskFile;

use super::guarded::{Contained, Guarded};
use super::{Change, Engine, EngineError};

const NAME: &str = "redb";
pub(crate) const FILE: &str = "namespace.redb";
const VALUES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("values");
/// One row: the LSN, little-endian, and the pack's id.
const POSITION: TableDefinition<'_, (), &[u8; 24]> = TableDefinition::new("position");

/// An engine in the file `namespace.redb` of a directory.
pub struct RedbEngine {
    guarded: Guarded<Error>,
    /// Opening a transaction and a table costs more than a look-up: readers share the newest state's.
    /// Before `db`, so that it is dropped first.
    newest: RwLock<Arc<State>>,
    db: Contained<Database>,
}

/// A file of a disk, as redb sees it.
struct OnDisk(Arc<dyn DiskFile>);

impl fmt::Debug for OnDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file of a disk")
    }
}

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(data, offset)
    }
}

/// One committed state. The pages it needs are not reused as long as it is held.
struct State {
    values: Contained<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    position: Option<CheckpointRef>,
}

impl RedbEngine {
    /// Opens the engine in `dir`, or makes an empty one; after a crash it is at the last `apply` that
    /// returned, or the one under way. It keeps up to `cache_bytes` bytes of pages in memory.
    pub fn open(dir: &Path, cache_bytes: usize) -> Result<Self, EngineError> {
        Self::with(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(dir.join(FILE))?;
            Ok(Builder::new().set_cache_size(cache_bytes).create_file(file)?)
        })
    }

    /// As [`RedbEngine::open`], in a file of any disk: one that fails, say.
    pub fn on(file: Arc<dyn DiskFile>, cache_bytes: usize) -> Result<Self, EngineError> {
        Self::with(|| Ok(Builder::new().set_cache_size(cache_bytes).create_with_backend(OnDisk(file))?))
    }

    fn with(open: impl FnOnce() -> Result<Database, Error>) -> Result<Self, EngineError> {
        let guarded = Guarded::new(NAME);
        let (db, newest) = guarded.call(|| {
            let db = Contained::new(open()?);
            let newest = match State::newest(&db) {
                Err(Error::TableDoesNotExist(_)) => {
                    let mut write = begin_write(&db)?;
                    write.open_table(VALUES)?;
                    write.open_table(POSITION)?;
                    write.take().commit()?;
                    State::newest(&db)?
                }
                newest => newest?,
            };
            Ok((db, newest))
        })?;
        Ok(RedbEngine { guarded, newest: RwLock::new(Arc::new(newest)), db })
    }

    fn newest(&self) -> Arc<State> {
        // Only a whole state is ever put in, so that a poisoned lock's is good.
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine for RedbEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let state = self.newest();
        self.guarded.call(|| Ok(state.values.get(key)?.map(|value| value.value().to_vec())))
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
        let state = self.newest();
        let mut range = self.guarded.call(|| Ok(state.values.range(from..to)?))?;
        // `each` is called outside the guard: its panics are not redb's.
        while let Some(entry) = self.guarded.call(|| Ok(range.next().transpose()?))? {
            let (key, value) = self.guarded.call(|| Ok((entry.0.value(), entry.1.value())))?;
            if each(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = Change>, at: CheckpointRef) -> Result<(), EngineError> {
        let mut write = self.guarded.call(|| begin_write(&self.db))?;
        {
            let mut values = self.guarded.call(|| Ok(Contained::new(write.open_table(VALUES)?)))?;
            // The iterator is asked outside the guard, as `each` above. Where it panics, the
            // transaction is dropped and with it what it holds.
            for (key, value) in changes {
                self.guarded.call(|| {
                    match &value {
                        Some(value) => values.insert(&key[..], &value[..])?,
                        None => values.remove(&key[..])?,
                    };
                    Ok(())
                })?;
            }
        }
        let newest = self.guarded.call(|| {
            let mut bytes = [0; 24];
            bytes[..8].copy_from_slice(&at.lsn.0.to_le_bytes());
            bytes[8..].copy_from_slice(&at.pack.0);
            write.open_table(POSITION)?.insert((), &bytes)?;
            write.take().commit()?;
            State::newest(&self.db)
        })?;
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(newest);
        Ok(())
    }

    fn position(&self) -> Result<Option<CheckpointRef>, EngineError> {
        self.guarded.call(|| Ok(self.newest().position))
    }
}

impl State {
    fn newest(db: &Database) -> Result<State, Error> {
        let read = db.begin_read()?;
        let position = read.open_table(POSITION)?.get(())?.map(|row| {
            let bytes = row.value();
            let (mut lsn, mut pack) = ([0; 8], [0; 16]);
            lsn.copy_from_slice(&bytes[..8]);
            pack.copy_from_slice(&bytes[8..]);
            CheckpointRef { lsn: Lsn(u64::from_le_bytes(lsn)), pack: PackId(pack) }
        });
        Ok(State { values: Contained::new(read.open_table(VALUES)?), position })
    }
}

/// A transaction whose commit is durable and leaves the free pages' map behind, so that opening after
/// a crash need not walk the tree to find it.
fn begin_write(db: &Database) -> Result<Contained<WriteTransaction>, Error> {
    let mut write = Contained::new(db.begin_write()?);
    write.set_durability(Durability::Immediate)?;
    write.set_quick_repair(true);
    Ok(write)
}
