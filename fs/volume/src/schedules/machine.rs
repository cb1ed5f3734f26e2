//! A machine to open a volume on, whose disks and engine let other threads go on in the middle of what they do.

use std::sync::Arc;

use cairn_format::key::Key;
use cairn_format::{CheckpointRef, Mutation, Uuid};
use cairn_store::disk::{Crash, MemoryDisk};

use crate::engine::{Change, Engine, EngineError, MemoryEngine, Visit};
use crate::journal::{JournalShape, ScannedRecord, scan_read_only};
use crate::sync::{Slow, pause};
use crate::{EngineChoice, MakeOptions, OpenOn, OpenOptions, Volume, make_on, open_on};

/// An engine that others get in the way of, and whose calls can be watched and failed.
pub(super) struct Watched<W>(pub(super) MemoryEngine, pub(super) W);

/// Sees each call of an engine before it is done; may fail it.
pub(super) trait Watch: Send + Sync {
    /// A look-up.
    fn read(&self) -> Result<(), EngineError> {
        Ok(())
    }
    /// A checkpoint's changes.
    fn apply(&self, _changes: &[Change], _at: CheckpointRef) -> Result<(), EngineError> {
        Ok(())
    }
}

impl<W: Watch> Engine for Watched<W> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        pause();
        self.1.read()?;
        self.0.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], each: Visit<'_>) -> Result<(), EngineError> {
        pause();
        self.1.read()?;
        self.0.scan(from, to, each)
    }
    fn apply(&self, changes: &mut dyn Iterator<Item = Change>, at: CheckpointRef) -> Result<(), EngineError> {
        let changes: Vec<_> = changes.collect();
        pause();
        self.1.apply(&changes, at)?;
        self.0.apply(&mut changes.into_iter(), at)
    }
    fn position(&self) -> Result<Option<CheckpointRef>, EngineError> {
        self.0.position()
    }
}

struct Unwatched;

impl Watch for Unwatched {}

/// A machine with a volume on it.
#[derive(Clone)]
pub(super) struct Machine {
    disk: MemoryDisk,
    store: MemoryDisk,
}

impl Machine {
    /// With a new volume, on which `prepare` was called. Made under one schedule of its own.
    pub(super) fn with(prepare: impl Fn(&Volume) + Send + Sync + 'static) -> Machine {
        let machine = Machine { disk: MemoryDisk::new(), store: MemoryDisk::new() };
        let made = machine.clone();
        crate::sync::once(move || {
            let mut n = 0u8;
            let draw = |bytes: &mut [u8]| {
                for byte in bytes {
                    n = n.wrapping_mul(31).wrapping_add(7);
                    *byte = n;
                }
                Ok(())
            };
            let options = MakeOptions {
                chunk_min: 64,
                chunk_avg: 256,
                chunk_max: 1024,
                frame: 4096,
                segment_size: 64 << 10,
                journal_size: 512 << 10,
                pack_size: 64 << 10,
                zstd_level: 0,
                parity_data: 0,
                parity_extra: 0,
                uuid: Some(Uuid([0xca; 16])),
                ..MakeOptions::default()
            };
            make_on(Arc::new(made.disk.clone()), Arc::new(made.store.clone()), &options, draw).expect("mkfs");
            let volume = made.open();
            prepare(&volume);
            volume.fsync(1, false).expect("synced");
        });
        machine.crash(Crash::KeepAll)
    }

    /// The machine as it starts again after its power went: for a schedule to work on, too.
    pub(super) fn crash(&self, crash: Crash) -> Machine {
        Machine { disk: self.disk.crash(crash), store: self.store.crash(crash) }
    }

    /// The first inode number that is not reserved, as the next mount finds it in the journal.
    pub(super) fn reserved(&self) -> u64 {
        let superblock = crate::read_superblock(&self.disk, "the test's disk").expect("a superblock");
        let shape = JournalShape {
            volume: superblock.uuid,
            segment: superblock.geometry.segment,
            segments: superblock.geometry.segments,
        };
        let (chain, error) = scan_read_only(&self.disk, &shape);
        assert!(error.is_none(), "{error:?}");
        let mut reserved = 0;
        let each = |record: &ScannedRecord<'_>| {
            for mutation in record.mutations {
                if let Mutation::Put { key, value } = mutation
                    && *key == Key::NextInode.encode()
                {
                    reserved = u64::from_le_bytes(value[..].try_into().expect("a number"));
                }
            }
        };
        chain.records(&shape, each).expect("readable");
        reserved
    }

    /// The volume, opened with an engine that is filled anew.
    pub(super) fn open(&self) -> Arc<Volume> {
        self.open_with(
            false,
            EngineChoice::By(Box::new(|_| Ok(Arc::new(Watched(MemoryEngine::new(), Unwatched))))),
        )
    }

    /// The volume with a thread that folds.
    pub(super) fn open_in_background(&self) -> Arc<Volume> {
        self.open_with(true, EngineChoice::Memory)
    }

    /// The volume with this engine.
    pub(super) fn open_on(&self, engine: EngineChoice) -> Arc<Volume> {
        self.open_with(false, engine)
    }

    fn open_with(&self, background: bool, engine: EngineChoice) -> Arc<Volume> {
        let on = OpenOn {
            disk: Arc::new(Slow(self.disk.clone())),
            store: Arc::new(Slow(self.store.clone())),
            engine,
            background,
            session: 7,
            options: OpenOptions { index_mem: 1 << 16, cache_size: 64 << 10, ..OpenOptions::default() },
            name: "the test's disk".into(),
        };
        open_on(on).expect("a volume that can be opened")
    }
}
