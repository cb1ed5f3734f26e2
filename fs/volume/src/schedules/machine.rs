//! A machine to open a volume on, whose disks and engine let other threads go on in the middle of what they do.

use std::io;
use std::sync::Arc;

use cairn_format::{CheckpointRef, Uuid};
use cairn_store::disk::{Access, Crash, Disk, DiskFile, Listed, MemoryDisk, Space};

use crate::engine::{Change, Engine, EngineError, MemoryEngine, Visit};
use crate::sync::pause;
use crate::{EngineChoice, MakeOptions, OpenOn, OpenOptions, Volume, make_on, open_on};

/// A disk on which others get between a call and its work, and where a sync takes its time.
pub(super) struct Slow(pub(super) MemoryDisk);

struct SlowFile(Arc<dyn DiskFile>);

impl Disk for Slow {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        pause();
        Ok(Arc::new(SlowFile(self.0.open(path, access)?)))
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.0.create_dir(path)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.0.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        pause();
        self.0.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        pause();
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        pause();
        self.0.sync_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        pause();
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        pause();
        self.0.write_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        pause();
        self.0.sync()?;
        pause();
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        pause();
        self.0.set_len(len)
    }
}

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
