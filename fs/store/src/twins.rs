//! Second copies of packs: byte for byte the same, under the same name, in another place.
//!
//! A twin says nothing that its pack does not: it is made from the pack, held against the pack's checksums, and dropped with
//! it. Which packs are to have one is not decided here.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;

use cairn_format::{ACROSS_MAX, PackId};

use crate::StoreError;
use crate::across::dir_of;
use crate::disk::{Access, Disk, DiskFile};
use crate::store::{PACKS_DIR, PackListing, list_packs_in};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The directory of twins beside the packs.
pub const TWINS_DIR: &str = "twins";

/// Copied at a time.
const STRIDE: u64 = 1 << 20;

/// Where a copy of a pack lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// Where it was written.
    Pack,
    /// Its twin beside it, on the same disk.
    Twin,
    /// Its twin in another directory, by that one's number.
    Across(u16),
}

impl Place {
    /// All that there may be, in the order in which they are asked.
    pub fn all() -> impl Iterator<Item = Place> {
        let across = (1..=ACROSS_MAX as u16).map(Place::Across);
        [Place::Pack, Place::Twin].into_iter().chain(across)
    }

    /// The directory that the directories of packs lie in, relative to the store.
    pub fn root(self) -> Cow<'static, str> {
        match self {
            Place::Pack => PACKS_DIR.into(),
            Place::Twin => TWINS_DIR.into(),
            Place::Across(number) => format!("{}/{PACKS_DIR}", dir_of(number)).into(),
        }
    }

    /// The directory that holds that one.
    fn parent(self) -> String {
        match self {
            Place::Pack | Place::Twin => String::new(),
            Place::Across(number) => dir_of(number),
        }
    }

    /// The directory that a pack lies in.
    pub(crate) fn dir(self, pack: &PackId) -> String {
        format!("{}/{}", self.root(), pack.directory())
    }

    /// Where a pack lies, relative to the store.
    pub fn path(self, pack: &PackId) -> String {
        format!("{}/{pack}.pack", self.dir(pack))
    }

    /// Where it lies while it is written.
    pub(crate) fn unsealed_path(self, pack: &PackId) -> String {
        format!("{}/{pack}.new", self.dir(pack))
    }
}

/// Lists the twins that lie beside the packs; there may be no directory of them.
pub fn list_twins(disk: &dyn Disk) -> Result<PackListing, StoreError> {
    list_place(disk, Place::Twin)
}

/// Lists the packs, or copies of packs, at a place; there may be no directory of them.
pub fn list_place(disk: &dyn Disk, place: Place) -> Result<PackListing, StoreError> {
    match list_packs_in(disk, &place.root()) {
        Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            Ok(PackListing::default())
        }
        listed => listed,
    }
}

/// What a store has of twins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TwinUsage {
    /// Twins.
    pub twins: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that are to have one and have none.
    pub waiting: u64,
}

#[derive(Default)]
struct State {
    /// What there is, with the lengths of the files.
    there: HashMap<PackId, u64>,
    /// Packs that are to have one and have none.
    lacking: BTreeSet<PackId>,
    /// Those that one is to be made of now, in this order: not, where that failed, until somebody says again what is to have
    /// one.
    ready: VecDeque<PackId>,
}

/// Which packs have a twin, and which are to have one.
#[derive(Default)]
pub(crate) struct Twins {
    state: Mutex<State>,
    /// Held by whoever makes one.
    making: Mutex<()>,
}

impl Twins {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These were found on the disk.
    pub(crate) fn found(&self, twins: &[(PackId, u64)]) {
        self.state().there.extend(twins.iter().copied());
    }

    /// From now on these are to have one, and no others; whether there is anything to do.
    pub(crate) fn want(&self, packs: impl Iterator<Item = PackId>) -> bool {
        let mut state = self.state();
        state.ready = packs.filter(|pack| !state.there.contains_key(pack)).collect();
        state.lacking = state.ready.iter().copied().collect();
        !state.ready.is_empty()
    }

    /// Nothing more is made until somebody says again what is to have one.
    pub(crate) fn pause(&self) {
        self.state().ready.clear();
    }

    /// Whether one is to be made.
    pub(crate) fn is_ready(&self) -> bool {
        !self.state().ready.is_empty()
    }

    /// The pack whose twin is to be made next.
    pub(crate) fn next(&self) -> Option<PackId> {
        self.state().ready.pop_front()
    }

    /// Who makes one waits here for who makes another.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pack has one now.
    pub(crate) fn made(&self, pack: PackId, len: u64) {
        let mut state = self.state();
        state.lacking.remove(&pack);
        state.there.insert(pack, len);
    }

    /// A pack has none, and is to have none.
    pub(crate) fn forget(&self, pack: &PackId) {
        let mut state = self.state();
        state.lacking.remove(pack);
        state.there.remove(pack);
    }

    /// Whether a pack has one.
    pub(crate) fn has(&self, pack: &PackId) -> bool {
        self.state().there.contains_key(pack)
    }

    /// The length of a pack's twin; 0 where it has none.
    pub(crate) fn len(&self, pack: &PackId) -> u64 {
        self.state().there.get(pack).copied().unwrap_or(0)
    }

    pub(crate) fn usage(&self) -> TwinUsage {
        let state = self.state();
        TwinUsage {
            twins: state.there.len() as u64,
            bytes: state.there.values().sum(),
            waiting: state.lacking.len() as u64,
        }
    }
}

/// Copies a pack's file to another place: written under another name, synced, renamed, its directory synced. What of `from`
/// cannot be read is zeros in the copy.
pub(crate) fn copy_pack(
    disk: &dyn Disk,
    from: &dyn DiskFile,
    pack: &PackId,
    to: Place,
    len: u64,
) -> io::Result<()> {
    make_dirs(disk, to, pack)?;
    replace(disk, pack, to, |file| copy(from, file, len))
}

/// Writes a pack's file at a place beside what is there, and has it take over the name.
pub(crate) fn replace(
    disk: &dyn Disk,
    pack: &PackId,
    place: Place,
    write: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<()> {
    let new = place.unsealed_path(pack);
    match disk.remove(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = disk.open(&new, Access::CreateNew)?;
    if let Err(error) = write(&*file).and_then(|()| file.sync()) {
        // The next mount removes it otherwise.
        let _ = disk.remove(&new);
        return Err(error);
    }
    disk.rename(&new, &place.path(pack))?;
    disk.sync_dir(&place.dir(pack))
}

/// Makes the directory that a pack lies in, and makes that certain.
fn make_dirs(disk: &dyn Disk, place: Place, pack: &PackId) -> io::Result<()> {
    let root = place.root().into_owned();
    for (dir, parent) in [(root.clone(), place.parent()), (place.dir(pack), root)] {
        match disk.create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            // One that is there may be what a mount left that was killed: it counts once it was synced.
            _ => disk.sync_dir(&parent)?,
        }
    }
    Ok(())
}

/// Copies what can be read; of the rest only that it is there: it is lost, or written next.
pub(crate) fn copy(from: &dyn DiskFile, to: &dyn DiskFile, len: u64) -> io::Result<()> {
    const SECTOR: u64 = cairn_format::SECTOR;
    for start in (0..len).step_by(STRIDE as usize) {
        let mut bytes = vec![0; STRIDE.min(len - start) as usize];
        if from.read_exact_at(&mut bytes, start).is_err() {
            for (number, sector) in bytes.chunks_mut(SECTOR as usize).enumerate() {
                // The last one may end early.
                let there = from.read_at(sector, start + number as u64 * SECTOR).unwrap_or(0);
                sector[there..].fill(0);
            }
        }
        to.write_at(&bytes, start)?;
    }
    Ok(())
}

/// The other copies of a pack, opened when they are asked for: of most packs nobody ever asks.
pub(crate) struct Others<'a> {
    disk: Option<(&'a dyn Disk, Place)>,
    pack: PackId,
    opened: std::cell::OnceCell<Vec<(Place, std::sync::Arc<dyn DiskFile>)>>,
}

impl<'a> Others<'a> {
    /// Those beside the one at `place`.
    pub(crate) fn beside(disk: &'a dyn Disk, place: Place, pack: PackId) -> Others<'a> {
        Others { disk: Some((disk, place)), pack, opened: std::cell::OnceCell::new() }
    }

    /// A pack that stands alone.
    pub(crate) fn none(pack: PackId) -> Others<'a> {
        Others { disk: None, pack, opened: std::cell::OnceCell::new() }
    }

    /// Those that there are.
    pub(crate) fn all(&self) -> &[(Place, std::sync::Arc<dyn DiskFile>)] {
        self.opened.get_or_init(|| {
            let Some((disk, own)) = self.disk else { return Vec::new() };
            let others = Place::all().filter(|place| *place != own);
            others
                .filter_map(|place| Some((place, disk.open(&place.path(&self.pack), Access::Read).ok()?)))
                .collect()
        })
    }
}

/// Removes the twins that were not finished when their mount ended, of these.
pub(crate) fn remove_unsealed(disk: &dyn Disk, place: Place, unsealed: &[PackId]) -> Result<(), StoreError> {
    for pack in unsealed {
        let path = place.unsealed_path(pack);
        disk.remove(&path).map_err(StoreError::io(path))?;
    }
    Ok(())
}

/// The twins of packs that are not there.
pub(crate) fn lone(twins: &PackListing, packs: &PackListing) -> Vec<(PackId, u64)> {
    let there: HashSet<PackId> = packs.packs.iter().map(|(pack, _)| *pack).collect();
    twins.packs.iter().filter(|(pack, _)| !there.contains(pack)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::pack_path;

    #[test]
    fn the_pack_is_where_packs_are() {
        let pack = PackId::new(1, 2, 3);
        assert_eq!(Place::Pack.path(&pack), pack_path(&pack));
    }
}
