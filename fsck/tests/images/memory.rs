//! A small volume in memory, whose disk can be killed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};

use cairn_store::disk::{Access, Disk, DiskFile, Listed, MemoryDisk, Space};
use cairn_volume::{EngineChoice, MakeOptions, OpenError, OpenOn, OpenOptions, Volume, make_on, open_on};
use fsck_cairn::{
    CheckError, CheckOptions, Level, PutBack, Quiet, RepairOptions, Report, check, repair, undo,
};

use crate::fixture::{Shown, fill, tree};

/// A directory of another disk, so that all operations of a volume are counted in one place.
struct Below(MemoryDisk);

impl Below {
    fn path(path: &str) -> String {
        if path.is_empty() { "store".into() } else { format!("store/{path}") }
    }
}

impl Disk for Below {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(&Below::path(path), access)
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.0.create_dir(&Below::path(path))
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.0.list(&Below::path(dir))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(&Below::path(from), &Below::path(to))
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(&Below::path(path))
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(&Below::path(dir))
    }
    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }
}

pub(crate) fn store(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(Below(disk.clone()))
}

pub(crate) fn open(disk: &MemoryDisk) -> Result<Arc<Volume>, OpenError> {
    open_on(OpenOn {
        disk: Arc::new(disk.clone()),
        store: store(disk),
        engine: EngineChoice::Memory,
        background: false,
        session: 2,
        options: OpenOptions::default(),
        name: "memory".into(),
    })
}

/// A volume with some of everything, still open.
pub(crate) fn filled() -> (MemoryDisk, Arc<Volume>) {
    let disk = made();
    let volume = open(&disk).unwrap();
    fill(&volume);
    (disk, volume)
}

/// The same, unmounted.
pub(crate) fn closed() -> MemoryDisk {
    static DISK: OnceLock<MemoryDisk> = OnceLock::new();
    let closed = DISK.get_or_init(|| {
        let (disk, volume) = filled();
        volume.close().unwrap();
        disk
    });
    closed.fork()
}

/// An empty volume.
pub(crate) fn made() -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_dir("store").unwrap();
    let options = MakeOptions {
        chunk_min: 256,
        chunk_avg: 1024,
        chunk_max: 4096,
        frame: 8192,
        segment_size: 64 << 10,
        journal_size: 1 << 20,
        pack_size: 64 << 10,
        ..MakeOptions::default()
    };
    let draw = |bytes: &mut [u8]| {
        bytes.fill(7);
        Ok(())
    };
    make_on(Arc::new(disk.clone()), store(&disk), &options, draw).unwrap();
    disk
}

pub(crate) fn fsck(disk: &MemoryDisk, level: Level) -> Result<Report, CheckError> {
    let options = RepairOptions { level, force: true, ..RepairOptions::default() };
    repair(Arc::new(disk.clone()), store(disk), None, &options, &Quiet)
}

pub(crate) fn undone(disk: &MemoryDisk) -> Result<PutBack, CheckError> {
    undo(Arc::new(disk.clone()), store(disk), None, None)
}

pub(crate) fn checked(disk: &MemoryDisk) -> Report {
    check(disk, store(disk), None, &CheckOptions::default(), &Quiet).unwrap()
}

/// What a mount shows, less what times and numbers of packs decide.
pub(crate) fn shown(disk: &MemoryDisk) -> BTreeMap<String, Shown> {
    let volume = open(&disk.fork()).unwrap();
    tree(&volume)
}
