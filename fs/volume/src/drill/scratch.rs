//! The directory that packs are copied to and damaged in: a store of its own, which goes when the drill is over.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use cairn_format::{PackId, StoreSuperblock};
use cairn_store::disk::{Access, Disk, FileDisk};
use cairn_store::{PACKS_DIR, Place, TWINS_DIR, pack_path, write_replicas};

use super::DrillError;

/// Bytes that are copied at a time.
const STRIDE: usize = 1 << 20;

/// Copies as they were, and copies that are damaged.
pub(super) struct Scratch {
    dir: PathBuf,
    keep: bool,
    /// The packs as they were copied.
    pub(super) original: Arc<dyn Disk>,
    /// A store in which they are damaged, one at a time.
    pub(super) work: Arc<dyn Disk>,
}

/// What came of copying a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copied {
    /// It is there.
    Done,
    /// It was dropped since it was listed.
    Dropped,
    /// It cannot be read.
    Unreadable,
}

impl Scratch {
    /// A new directory in `below`, which only its owner may enter: it holds what the volume does.
    pub(super) fn make(below: &Path, keep: bool, store: &StoreSuperblock) -> Result<Scratch, DrillError> {
        let failed = |path: &Path, e: &dyn std::fmt::Display| {
            DrillError::Failed(format!("{}: {e}: name another directory with --scratch", path.display()))
        };
        let below = below.canonicalize().map_err(|e| failed(below, &e))?;
        let dir = (0..1000)
            .map(|number| below.join(format!("cairn-drill-{}-{number}", process::id())))
            .find_map(|dir| match DirBuilder::new().mode(0o700).create(&dir) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => None,
                made => Some(made.map(|()| dir)),
            })
            .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))
            .map_err(|e| failed(&below, &e))?;
        // From here on it is removed whatever happens.
        let disks = lay_out(&dir, store);
        match disks {
            Ok((original, work)) => Ok(Scratch { dir, keep, original, work }),
            Err(error) => {
                let _ = fs::remove_dir_all(&dir);
                Err(failed(&dir, &error))
            }
        }
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Copies a pack of a store; `go_on` is told of bytes, and `None` is that it said no.
    pub(super) fn copy(
        &self,
        store: &dyn Disk,
        pack: PackId,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Copied>, DrillError> {
        let path = pack_path(&pack);
        let from = match store.open(&path, Access::Read) {
            Ok(from) => from,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(Copied::Dropped)),
            Err(_) => return Ok(Some(Copied::Unreadable)),
        };
        let to = create(&*self.original, Place::Pack, pack).map_err(|e| self.failed(&path, &e))?;
        let mut bytes = vec![0; STRIDE];
        let mut at = 0;
        loop {
            let Ok(read) = from.read_at(&mut bytes, at) else {
                self.original.remove(&path).map_err(|e| self.failed(&path, &e))?;
                return Ok(Some(Copied::Unreadable));
            };
            if read == 0 {
                return Ok(Some(Copied::Done));
            }
            to.write_at(&bytes[..read], at).map_err(|e| self.failed(&path, &e))?;
            at += read as u64;
            if !go_on(read as u64) {
                return Ok(None);
            }
        }
    }

    /// Whether a store has a second copy of a pack that was copied, and it is whole.
    pub(super) fn has_twin(&self, store: &dyn Disk, pack: PackId) -> bool {
        let same = |place: Place| -> io::Result<bool> {
            let twin = store.open(&place.path(&pack), Access::Read)?;
            let original = self.original.open(&pack_path(&pack), Access::Read)?;
            let (mut of_twin, mut of_original) = (vec![0; STRIDE], vec![0; STRIDE]);
            let mut at = 0;
            loop {
                let read = original.read_at(&mut of_original, at)?;
                if twin.read_at(&mut of_twin, at)? != read || of_twin[..read] != of_original[..read] {
                    return Ok(false);
                }
                if read == 0 {
                    return Ok(true);
                }
                at += read as u64;
            }
        };
        // One that cannot be read is none.
        Place::all().filter(|place| *place != Place::Pack).any(|place| same(place).unwrap_or(false))
    }

    /// Puts a fresh copy of a pack into the store in which they are damaged.
    pub(super) fn freshen(&self, pack: PackId) -> Result<(), DrillError> {
        self.put(pack, Place::Pack)
    }

    /// Gives it its second copy there.
    pub(super) fn give_twin(&self, pack: PackId) -> Result<(), DrillError> {
        self.put(pack, Place::Twin)
    }

    /// Takes that away again.
    pub(super) fn take_twin(&self, pack: PackId) -> Result<(), DrillError> {
        let path = Place::Twin.path(&pack);
        self.work.remove(&path).map_err(|e| self.failed(&path, &e))
    }

    fn put(&self, pack: PackId, place: Place) -> Result<(), DrillError> {
        let copied = || -> io::Result<()> {
            let from = self.original.open(&pack_path(&pack), Access::Read)?;
            let to = create(&*self.work, place, pack)?;
            let mut bytes = vec![0; STRIDE];
            let mut at = 0;
            loop {
                match from.read_at(&mut bytes, at)? {
                    0 => return Ok(()),
                    read => {
                        to.write_at(&bytes[..read], at)?;
                        at += read as u64;
                    }
                }
            }
        };
        copied().map_err(|e| self.failed(&place.path(&pack), &e))
    }

    /// That something of its own went wrong.
    pub(super) fn failed(&self, what: &str, error: &dyn std::fmt::Display) -> DrillError {
        DrillError::Failed(format!("{}: {what}: {error}", self.dir.display()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!("{} is left over: {error}", self.dir.display());
        }
    }
}

fn lay_out(dir: &Path, store: &StoreSuperblock) -> io::Result<(Arc<dyn Disk>, Arc<dyn Disk>)> {
    let disk = |name: &str| -> io::Result<Arc<dyn Disk>> {
        let path = dir.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let disk = FileDisk::open(&path)?;
        disk.create_dir(PACKS_DIR)?;
        disk.create_dir(TWINS_DIR)?;
        Ok(Arc::new(disk))
    };
    let (original, work) = (disk("original")?, disk("damaged")?);
    write_replicas(&*work, &store.encode()).map_err(io::Error::other)?;
    Ok((original, work))
}

/// A file of a pack, new, in the place of one that is there.
fn create(disk: &dyn Disk, place: Place, pack: PackId) -> io::Result<Arc<dyn cairn_store::disk::DiskFile>> {
    match disk.create_dir(&format!("{}/{}", place.root(), pack.directory())) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let path = place.path(&pack);
    match disk.remove(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    disk.open(&path, Access::CreateNew)
}
