//! A machine with one disk and a volume on it, that can lose power.

use std::io;
use std::sync::Arc;

use cairn_store::Place;
use cairn_store::disk::{Access, Crash, Disk, DiskFile, Listed, MemoryDisk, Space};
use cairn_volume::{MakeOptions, OpenError, OpenOn, OpenOptions, PackId, Uuid, Volume, make_on, open_on};

use crate::engine::{Survival, Surviving};

/// A directory of a disk, as a disk.
pub struct Below {
    disk: MemoryDisk,
    dir: &'static str,
}

impl Below {
    /// The directory `dir` of `disk`.
    pub fn new(disk: &MemoryDisk, dir: &'static str) -> Below {
        Below { disk: disk.clone(), dir }
    }

    fn at(&self, path: &str) -> String {
        if path.is_empty() { self.dir.to_owned() } else { format!("{}/{path}", self.dir) }
    }
}

impl Disk for Below {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.at(path), access)
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(&self.at(path))
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.disk.list(&self.at(dir))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.at(from), &self.at(to))
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(&self.at(path))
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(&self.at(dir))
    }
    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

/// Sizes at which much happens in little time.
pub fn small() -> MakeOptions {
    MakeOptions {
        chunk_min: 256,
        chunk_avg: 1024,
        chunk_max: 4096,
        frame: 8192,
        segment_size: 64 << 10,
        journal_size: 1 << 20,
        pack_size: 64 << 10,
        uuid: Some(Uuid([0xca; 16])),
        ..MakeOptions::default()
    }
}

/// Bytes of the longest record of file data with [`small`]'s segments.
pub const SMALL_RECORD: usize = (64 << 10) / 4 / 2;

/// The store's directory on the disk.
pub const STORE: &str = "store";

/// A disk, and what is left of an engine.
#[derive(Clone)]
pub struct World {
    /// The disk.
    pub disk: MemoryDisk,
    /// The disk whose `store/` is the store: the same one, but for what [`World::split_crash`] leaves.
    pub store: MemoryDisk,
    split: bool,
    /// The engine.
    pub engine: Surviving,
}

impl World {
    /// A machine with a new volume.
    pub fn make(options: &MakeOptions) -> World {
        let disk = MemoryDisk::new();
        disk.create_dir(STORE).expect("an empty disk");
        if !options.across.is_empty() {
            // On other disks elsewhere; here they are where the store sees them.
            disk.create_dir(&format!("{STORE}/across")).expect("an empty disk");
            for number in 1..=options.across.len() as u16 {
                disk.create_dir(&format!("{STORE}/{}", cairn_store::dir_of(number))).expect("an empty disk");
            }
        }
        let store = Arc::new(Below::new(&disk, STORE));
        let mut n = 0u8;
        let draw = |bytes: &mut [u8]| {
            for byte in bytes {
                n = n.wrapping_mul(31).wrapping_add(7);
                *byte = n;
            }
            Ok(())
        };
        make_on(Arc::new(disk.clone()), store, options, draw).expect("mkfs");
        World::on(disk.fork(), Surviving::default())
    }

    /// The same machine, with redb on its disk.
    pub fn with_redb(self) -> World {
        World { engine: Surviving::Redb(Arc::default()), ..self }
    }

    /// A machine with this disk, and nothing of an engine.
    pub fn on_disk(disk: MemoryDisk) -> World {
        World::on(disk, Surviving::default())
    }

    fn on(disk: MemoryDisk, engine: Surviving) -> World {
        World { store: disk.clone(), split: false, disk, engine }
    }

    /// A copy that shares nothing that changes.
    pub fn fork(&self) -> World {
        World::on(self.disk.fork(), self.engine.surviving(Survival::All))
    }

    /// The store, as a disk.
    pub fn store_disk(&self) -> Arc<dyn Disk> {
        Arc::new(Below::new(&self.store, STORE))
    }

    /// Mounts the volume.
    pub fn open(&self) -> Result<Arc<Volume>, OpenError> {
        self.open_with(OpenOptions { index_mem: 1 << 20, cache_size: 1 << 20, ..OpenOptions::default() })
    }

    /// Mounts the volume as told.
    pub fn open_with(&self, options: OpenOptions) -> Result<Arc<Volume>, OpenError> {
        self.open_as(options, false)
    }

    /// Mounts the volume with a thread that folds.
    pub fn open_in_background(&self) -> Result<Arc<Volume>, OpenError> {
        self.open_as(OpenOptions::default(), true)
    }

    fn open_as(&self, options: OpenOptions, background: bool) -> Result<Arc<Volume>, OpenError> {
        open_on(OpenOn {
            disk: Arc::new(self.disk.clone()),
            store: self.store_disk(),
            engine: self.engine.choice(&self.disk),
            background,
            session: 7,
            options,
            name: "the test's disk".into(),
        })
    }

    /// The same disk, with what is not certain on it, once it is well again.
    pub fn healed(&self) -> World {
        self.disk.heal();
        self.clone()
    }

    /// What a machine finds when it starts again.
    pub fn crash(&self, crash: Crash, survival: Survival) -> World {
        let disk = self.disk.crash(crash);
        self.engine.leave(survival, &disk);
        World::on(disk, self.engine.surviving(survival))
    }

    /// As [`World::crash`], but what becomes of the journal is another thing than what becomes of the packs:
    /// the worst that can happen to an order between the two.
    pub fn split_crash(&self, journal: Crash, store: Crash, survival: Survival) -> World {
        let (disk, store) = (self.disk.crash(journal), self.disk.crash(store));
        self.engine.leave(survival, &disk);
        World { disk, store, split: true, engine: self.engine.surviving(survival) }
    }

    /// The same, on one disk again, so that one cut ends it all.
    pub fn joined(&self) -> World {
        if !self.split {
            return self.clone();
        }
        let disk = MemoryDisk::new();
        let copy = |from: &MemoryDisk, path: &str| {
            copy_file(from, &disk, path).expect("disks in memory take copies");
        };
        for path in self.disk.files().iter().filter(|path| !path.starts_with("store/")) {
            copy(&self.disk, path);
        }
        for path in self.store.files().iter().filter(|path| path.starts_with("store/")) {
            copy(&self.store, path);
        }
        World::on(disk.fork(), self.engine.clone())
    }

    /// Removes a pack, and its second copy if it has one.
    pub fn remove_pack(&self, pack: &PackId) {
        self.store_disk().remove(&Place::Pack.path(pack)).expect("a pack");
        let _ = self.store_disk().remove(&Place::Twin.path(pack));
    }

    /// The paths of sealed packs.
    pub fn packs(&self) -> Vec<String> {
        self.store.files().into_iter().filter(|f| f.ends_with(".pack") && f.contains("/packs/")).collect()
    }
}

/// Copies a file to another disk, and makes the directories that it lies in.
pub fn copy_file(from: &MemoryDisk, to: &MemoryDisk, path: &str) -> io::Result<()> {
    for (end, _) in path.match_indices('/') {
        match to.create_dir(&path[..end]) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let source = from.open(path, Access::Read)?;
    let mut bytes = vec![0; source.len()? as usize];
    source.read_exact_at(&mut bytes, 0)?;
    to.open(path, Access::CreateNew)?.write_at(&bytes, 0)
}
