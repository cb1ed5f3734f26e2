//! A store: its packs, what is known of them, and reading from them.

use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;

use cairn_format::{
    BaseEntry, BaseTable, ChunkEntry, ChunkId, ChunkPiece, ChunkPlace, Footer, FrameEntry, FrameHead,
    IndexSnapshot, PackId, PackKind, PackSummary, ParityGeometry, StoreSuperblock, Uuid,
};

use crate::across::{AcrossDir, across_dirs, place_of};
use crate::caches::ByteLru;
use crate::disk::{Disk, replace_small};
use crate::frames::{Frames, RunAt};
use crate::heal::{Examined, HealMode, Health, Mended, examine_at};
use crate::hub::{Hub, is_data};
use crate::pack::unsealed_path;
use crate::replicas::{BadReplica, check_replicas, read_replicas, write_replicas};
use crate::twins::{self, Place, TwinUsage, Twins, list_place};
use crate::{
    DecodedFrame, Located, PackReader, PackWriter, Pins, ReadError, SealedPack, StoreError, pack_path,
};

/// The directory that holds the packs.
pub const PACKS_DIR: &str = "packs";
/// The file of the index's snapshot.
pub const INDEX_PATH: &str = "index";
/// The file of what chunks of tensors are known by.
pub const BASES_PATH: &str = "bases";
/// Bytes of a pack in the index's snapshot, and of what stands before them.
const INDEX_PER_PACK: u64 = 64;
const OPEN_PACKS_BYTES: u64 = 8 << 20;
/// An open pack counts for at least this much, so that 512 files are open at the most.
const OPEN_PACK_LEAST: u64 = 16 << 10;
const CHUNK_TABLES_BYTES: u64 = 24 << 20;

/// How a store is used.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// The most memory the chunk index takes, in bytes.
    pub index_mem: u64,
    /// The most memory decoded frames take, in bytes.
    pub cache_size: u64,
    /// Nothing is written: leftovers of a crash stay.
    pub read_only: bool,
}

/// A pack that is open for reading, and where its frames are.
struct OpenPack {
    reader: PackReader,
    frames: Vec<FrameEntry>,
}

/// A pack's chunks and their places, in the order of its footer.
struct ChunkTable {
    pack: PackId,
    chunks: Vec<ListedChunk>,
    /// By frames.
    bases: HashMap<u32, ChunkId>,
}

/// A chunk of a pack, as [`Located`].
struct ListedChunk {
    id: ChunkId,
    frame: u32,
    slot: u32,
    len: u32,
    stored: u32,
}

/// A local store.
pub struct Store {
    disk: Arc<dyn Disk>,
    superblock: StoreSuperblock,
    hub: Hub,
    open_packs: ByteLru<PackId, Arc<OpenPack>>,
    chunk_tables: ByteLru<PackId, Arc<ChunkTable>>,
    frames: Frames,
    health: Arc<Health>,
    twins: Twins,
    twins_across: Twins,
    across: Vec<AcrossDir>,
    /// Directories of packs whose names are known to be certain.
    certain: Mutex<HashSet<String>>,
}

/// Where bytes came from that were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// From where they lie, as they were stored.
    Stored,
    /// From there, restored from parity: so it is said to the first whom a restored frame serves.
    Healed,
    /// From another place that the chunk lies in: its own cannot be read.
    Elsewhere,
}

/// Bytes that a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Plain bytes of the chunks in data packs.
    pub unique: u64,
    /// Bytes of data packs, without `spare`.
    pub data: u64,
    /// Bytes of metadata packs, without `spare`.
    pub metadata: u64,
    /// Bytes of both that are there to mend the others: parity, its checksums, second copies.
    pub spare: u64,
    /// Packs of both kinds.
    pub packs: u64,
    /// Fingerprints in the index.
    pub fingerprints: u64,
    /// Bytes of memory that the index takes.
    pub index_mem: u64,
}

/// The files under `packs/`.
#[derive(Default, Debug)]
pub struct PackListing {
    /// Sealed packs, with the lengths of their files.
    pub packs: Vec<(PackId, u64)>,
    /// Packs that were not sealed.
    pub unsealed: Vec<PackId>,
    /// Paths that cairn does not make.
    pub strange: Vec<String>,
}

/// Lists the files under `packs/`.
pub fn list_packs(disk: &dyn Disk) -> Result<PackListing, StoreError> {
    list_packs_in(disk, PACKS_DIR)
}

/// Lists the packs, or copies of packs, below a directory.
pub(crate) fn list_packs_in(disk: &dyn Disk, root: &str) -> Result<PackListing, StoreError> {
    let mut listing = PackListing::default();
    for dir in disk.list(root).map_err(StoreError::io(root))? {
        let path = format!("{root}/{}", dir.name);
        if !dir.is_dir {
            listing.strange.push(path);
            continue;
        }
        for file in disk.list(&path).map_err(StoreError::io(&path))? {
            let named =
                file.name.rsplit_once('.').and_then(|(stem, kind)| Some((PackId::parse(stem)?, kind)));
            match named {
                Some((pack, "pack")) if pack.directory() == dir.name => listing.packs.push((pack, file.len)),
                Some((pack, "new")) if pack.directory() == dir.name => listing.unsealed.push(pack),
                _ => listing.strange.push(format!("{path}/{}", file.name)),
            }
        }
    }
    Ok(listing)
}

impl Store {
    /// Lays out a new store in an empty directory.
    pub fn make(disk: &dyn Disk, superblock: &StoreSuperblock) -> Result<(), StoreError> {
        disk.create_dir(PACKS_DIR).map_err(StoreError::io(PACKS_DIR))?;
        disk.sync_dir("").map_err(StoreError::io("store"))?;
        write_replicas(disk, &superblock.encode())
    }

    /// The store's superblock, and what is wrong with its replicas.
    pub fn superblock_of(disk: &dyn Disk) -> Result<crate::Replicas<StoreSuperblock>, StoreError> {
        read_replicas(disk, StoreSuperblock::decode, |s| s.generation)
    }

    /// Opens a store: knows its packs afterwards, from the snapshot of the index where that is whole, else
    /// from their footers.
    pub fn open(disk: Arc<dyn Disk>, options: StoreOptions) -> Result<Store, StoreError> {
        Store::open_healing(disk, options, HealMode::default())
    }

    /// As [`Store::open`]; `heal` says what is done about damage from the first byte on: a replica of the superblock that
    /// cannot be used is written again, too. A store that is opened read-only is not written to for that either.
    pub fn open_healing(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        heal: HealMode,
    ) -> Result<Store, StoreError> {
        let replicas = Self::superblock_of(&*disk)?;
        for (path, reason) in &replicas.damaged {
            tracing::warn!("the store's {path} cannot be used, its replica can: {reason}");
        }
        let chunk_key = replicas.newest.chunk_key;
        // Without its list a store is as one that has no other directories.
        let across = across_dirs(&*disk, replicas.newest.uuid).unwrap_or_else(|error| {
            tracing::error!("the directories that have second copies are not known: {error}");
            Vec::new()
        });
        let store = Store {
            disk,
            superblock: replicas.newest,
            hub: Hub::new(options.index_mem),
            open_packs: ByteLru::new(OPEN_PACKS_BYTES, 1),
            chunk_tables: ByteLru::new(CHUNK_TABLES_BYTES, 1),
            frames: Frames::new(options.cache_size),
            health: Arc::new(Health::new(chunk_key)),
            twins: Twins::default(),
            twins_across: Twins::default(),
            across,
            certain: Mutex::default(),
        };
        store.health.set_mode(match heal {
            HealMode::On if options.read_only => HealMode::ReadOnly,
            heal => heal,
        });
        if !replicas.damaged.is_empty() && store.health.mode() == HealMode::On {
            // What fails of it is logged: one replica is enough to go on.
            store.check_superblock(true);
        }
        store.load_hub(options.read_only, options.index_mem)?;
        Ok(store)
    }

    fn load_hub(&self, read_only: bool, index_mem: u64) -> Result<(), StoreError> {
        let listing = list_packs(&*self.disk)?;
        for pack in listing.unsealed.iter().filter(|_| !read_only) {
            let path = unsealed_path(pack);
            self.disk.remove(&path).map_err(StoreError::io(path))?;
        }
        let mut unknown: HashSet<PackId> = listing.packs.iter().map(|(pack, _)| *pack).collect();
        // What this mount would save, and no more: one that was saved with more memory is made anew.
        let longest = index_mem + (unknown.len() as u64 + 1) * INDEX_PER_PACK;
        match self.load_snapshot(&mut unknown, longest) {
            Ok(()) => {}
            Err(reason) => tracing::info!("the chunk index is rebuilt from the packs' footers: {reason}"),
        }
        // In the order they were made, so that a chunk is found in its oldest pack first.
        let mut unknown: Vec<_> = unknown.into_iter().collect();
        unknown.sort();
        for pack in unknown {
            match self.reader(pack).and_then(|r| Ok((r.footer()?, r.len()?))) {
                Ok((footer, len)) => self.hub.publish(&footer, len, None),
                // Reads from it fail one by one, with the path in the log; fsck names them all.
                Err(error) => tracing::error!("its chunks are not used for new files: {error}"),
            }
        }
        self.load_twins(&listing, read_only)
    }

    /// Finds the twins that there are. One whose pack is missing makes that known: whether anything refers to it, and it is
    /// to be written anew, is for others to say. Until then nothing new is found in it.
    fn load_twins(&self, packs: &PackListing, read_only: bool) -> Result<(), StoreError> {
        for (number, dir) in (1u16..).zip(&self.across) {
            match &dir.missing {
                None => self.load_place(Place::Across(number), packs, read_only)?,
                Some(why) => tracing::error!(
                    "second copies in {} can neither be made nor used, what is written is there once: {why}",
                    dir.path
                ),
            }
        }
        self.load_place(Place::Twin, packs, read_only)
    }

    fn load_place(&self, place: Place, packs: &PackListing, read_only: bool) -> Result<(), StoreError> {
        let listing = match list_place(&*self.disk, place) {
            Ok(listing) => listing,
            Err(error) => {
                tracing::error!("second copies of packs are not used: {error}");
                return Ok(());
            }
        };
        if !read_only {
            twins::remove_unsealed(&*self.disk, place, &listing.unsealed)?;
        }
        self.twins_at(place).found(&listing.packs);
        for (pack, _) in twins::lone(&listing, packs) {
            if self.hub.knows(&pack) {
                continue;
            }
            match self.reader(pack).and_then(|reader| Ok((reader.footer()?, reader.len()?))) {
                Ok((footer, len)) => self.hub.restore_lone(&footer, len),
                Err(error) => tracing::error!("it is missing, and its second copy is of no use: {error}"),
            }
        }
        Ok(())
    }

    fn twins_at(&self, place: Place) -> &Twins {
        match place {
            Place::Across(_) => &self.twins_across,
            Place::Pack | Place::Twin => &self.twins,
        }
    }

    /// Where a pack has its twin on another disk, where that is there.
    fn across_of(&self, pack: &PackId) -> Option<Place> {
        let place = place_of(pack, self.across.len())?;
        let Place::Across(number) = place else { return None };
        let dir = self.across.get(usize::from(number).checked_sub(1)?)?;
        dir.missing.is_none().then_some(place)
    }

    /// The directories on other disks that every pack is to have a twin in.
    pub fn across(&self) -> &[AcrossDir] {
        &self.across
    }

    /// Packs that are known though their files are not there: their twins are.
    pub fn lone_twins(&self) -> Result<Vec<PackId>, StoreError> {
        let there: HashSet<PackId> =
            list_packs(&*self.disk)?.packs.into_iter().map(|(pack, _)| pack).collect();
        let known = self.hub.summaries().into_iter().map(|summary| summary.pack);
        Ok(known.filter(|pack| !there.contains(pack)).collect())
    }

    /// Has a pack that is known by its twin alone be written anew, by whoever mends.
    pub fn restore_from_twin(&self, pack: &PackId) {
        self.health.suspect(*pack);
    }

    /// From now on these packs are to have a twin, and whoever mends makes those that are missing. What has one keeps it. Where
    /// there are directories on other disks all packs are to have one there.
    pub fn want_twins(&self, packs: impl Iterator<Item = PackId>) {
        let here = self.twins.want(packs);
        if self.want_across() || here {
            self.health.wake();
        }
    }

    /// Has all packs be wanted on the other disks: data first, so that no metadata is there without it.
    fn want_across(&self) -> bool {
        if self.across.is_empty() {
            return false;
        }
        let mut all = self.hub.summaries();
        all.sort_by_key(|summary| (!is_data(summary), summary.pack));
        let all = all.into_iter().map(|summary| summary.pack);
        self.twins_across.want(all.filter(|pack| self.across_of(pack).is_some()))
    }

    /// Makes all twins on the other disks, as far as that goes now; an error tells that it did not go all the way.
    pub fn make_across(&self) -> Result<(), StoreError> {
        if !self.want_across() {
            return Ok(());
        }
        while let Some(made) = self.make_next_across() {
            made?;
        }
        Ok(())
    }

    /// Whether a twin is to be made.
    pub fn has_twins_to_make(&self) -> bool {
        self.twins.is_ready() || self.twins_across.is_ready()
    }

    /// What there is of twins: on the same disk, and on others.
    pub fn twin_usage(&self) -> (TwinUsage, TwinUsage) {
        let mut across = self.twins_across.usage();
        if self.across.iter().any(|dir| dir.missing.is_some()) {
            let lacks = |pack: &PackSummary| self.across_of(&pack.pack).is_none();
            across.waiting += self.hub.summaries().iter().filter(|pack| lacks(pack)).count() as u64;
        }
        (self.twins.usage(), across)
    }

    /// The places of a pack's twins, with their lengths.
    pub fn twins_of(&self, pack: &PackId) -> Vec<(Place, u64)> {
        let across = self.across_of(pack).map(|place| (place, self.twins_across.len(pack)));
        let both = [Some((Place::Twin, self.twins.len(pack))), across];
        both.into_iter().flatten().filter(|(_, len)| *len > 0).collect()
    }

    /// The lengths of a pack's twins together.
    pub fn twin_len(&self, pack: &PackId) -> u64 {
        self.twins_of(pack).iter().map(|(_, len)| len).sum()
    }

    /// Makes a twin that is wanted, if there is `room` on the store's disk for its bytes, and gives how many they are; none where
    /// none is to be made.
    pub fn make_next_twin(&self, room: impl Fn(u64) -> bool) -> Option<Result<u64, StoreError>> {
        let Some(pack) = self.twins.next() else { return self.make_next_across() };
        Some(self.make_twin(pack, Place::Twin, room))
    }

    fn make_next_across(&self) -> Option<Result<u64, StoreError>> {
        let pack = self.twins_across.next()?;
        let Some(place) = self.across_of(&pack) else { return Some(Ok(0)) };
        let made = self.make_twin(pack, place, |_| true);
        // A pack that cannot be read, or is gone, is no fault of that disk's; any other is met by the next as well. And no
        // metadata is to be there without its data.
        if matches!(made, Err(StoreError::Io { .. })) {
            self.twins_across.pause();
        }
        Some(made)
    }

    fn make_twin(&self, pack: PackId, place: Place, room: impl Fn(u64) -> bool) -> Result<u64, StoreError> {
        let set = self.twins_at(place);
        let _turn = set.turn();
        if !self.hub.knows(&pack) || set.has(&pack) {
            return Ok(0);
        }
        let path = place.path(&pack);
        // Not what is in it already when its pack is missing, and is written anew from that.
        let reader = PackReader::open(&*self.disk, pack)?;
        let len = reader.len()?;
        if !room(len) {
            let error = io::Error::from(io::ErrorKind::StorageFull);
            return Err(StoreError::Io { path, error });
        }
        twins::copy_pack(&*self.disk, reader.file(), &pack, place, len).map_err(StoreError::io(&path))?;
        // What counts as a second copy was read from the medium once.
        if let Some(examined) = examine_at(&*self.disk, place, pack, &mut |_| true)?
            && !examined.is_whole()
        {
            self.health.suspect(pack);
            self.health.write_back(&*self.disk, &examined)?;
        }
        set.made(pack, len);
        if !self.hub.knows(&pack) {
            // It was dropped meanwhile.
            self.drop_twin(&pack, place)?;
        }
        Ok(len)
    }

    /// Drops all twins of a pack.
    fn drop_twins(&self, pack: &PackId) -> Result<(), StoreError> {
        if self.twins.has(pack) {
            self.drop_twin(pack, Place::Twin)?;
        }
        if let Some(place) = place_of(pack, self.across.len()).filter(|_| self.twins_across.has(pack))
            && let Err(error) = self.drop_twin(pack, place)
        {
            // That disk's failing is to keep nothing here. It is found there by the next mount that finds the disk.
            tracing::warn!("the second copy of a pack that nothing refers to could not be removed: {error}");
            self.twins_across.forget(pack);
        }
        Ok(())
    }

    fn drop_twin(&self, pack: &PackId, place: Place) -> Result<(), StoreError> {
        let path = place.path(pack);
        match self.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path)(e)),
            _ => {
                self.twins_at(place).forget(pack);
                Ok(())
            }
        }
    }

    /// Restores the packs that are still there, and takes them out of `unknown`.
    fn load_snapshot(&self, unknown: &mut HashSet<PackId>, longest: u64) -> Result<(), String> {
        let bytes = crate::disk::read_small(&*self.disk, INDEX_PATH, longest)
            .map_err(|e| format!("{INDEX_PATH}: {e}"))?;
        let snapshot = IndexSnapshot::decode(&bytes, &self.superblock.uuid).map_err(|e| e.to_string())?;
        drop(bytes);
        let numbers: Vec<u32> = snapshot
            .packs
            .iter()
            .map(|summary| if unknown.remove(&summary.pack) { self.hub.restore(*summary) } else { 0 })
            .collect();
        self.hub.restore_slots(snapshot.slots.into_iter().filter_map(|mut slot| {
            slot.pack = *numbers.get((slot.pack as usize).checked_sub(1)?)?;
            (slot.pack != 0).then_some(slot)
        }));
        Ok(())
    }

    /// Writes the index's snapshot, to be called when nothing changes any more. Without it the next mount
    /// reads all footers.
    pub fn save_index(&self) -> Result<(), StoreError> {
        let (packs, slots) = self.hub.snapshot();
        let snapshot = IndexSnapshot { store: self.superblock.uuid, packs, slots };
        replace_small(&*self.disk, INDEX_PATH, &snapshot.encode()).map_err(StoreError::io(INDEX_PATH))
    }

    /// The store's identity.
    pub fn uuid(&self) -> Uuid {
        self.superblock.uuid
    }

    /// Its superblock.
    pub fn superblock(&self) -> &StoreSuperblock {
        &self.superblock
    }

    /// The key of its chunk ids.
    pub fn chunk_key(&self) -> &[u8; 32] {
        &self.superblock.chunk_key
    }

    /// Stored bytes at which a pack is sealed.
    pub fn pack_size(&self) -> u64 {
        self.superblock.pack_size.into()
    }

    /// The disk it lies on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Begins a pack, under a name that was never used.
    pub fn begin_pack(
        &self,
        pack: PackId,
        kind: PackKind,
        volume: Uuid,
        parity: ParityGeometry,
    ) -> Result<PackWriter, StoreError> {
        self.make_dir(pack)?;
        PackWriter::begin(self.disk.clone(), pack, kind, self.superblock.uuid, volume, parity)
    }

    /// Makes a pack's directory, and makes that certain. One that is there may be what another is making, or what a
    /// mount left that could not: it counts only once it was synced here.
    fn make_dir(&self, pack: PackId) -> Result<(), StoreError> {
        let name = pack.directory();
        if self.certain().contains(&name) {
            return Ok(());
        }
        let dir = format!("{PACKS_DIR}/{name}");
        match self.disk.create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::io(dir)(e)),
            _ => self.disk.sync_dir(PACKS_DIR).map_err(StoreError::io(PACKS_DIR)),
        }
    }

    /// Makes a sealed pack known: its chunks are found from now on. With `pins` it stays pinned.
    pub fn publish(&self, sealed: &SealedPack, pins: Option<&mut Pins>) {
        self.certain().insert(sealed.footer.pack.directory());
        self.hub.publish(&sealed.footer, sealed.file_len, pins);
    }

    /// Makes the name of a pack that was found certain. Who sealed it may have been killed before it did: it was there
    /// for whoever listed the packs, and a power cut would have taken it. To be called before anything refers to it.
    pub fn make_certain(&self, pack: &PackId) -> Result<(), StoreError> {
        let name = pack.directory();
        if self.certain().contains(&name) {
            return Ok(());
        }
        let dir = format!("{PACKS_DIR}/{name}");
        self.disk.sync_dir(&dir).map_err(StoreError::io(dir))?;
        self.disk.sync_dir(PACKS_DIR).map_err(StoreError::io(PACKS_DIR))?;
        self.certain().insert(name);
        Ok(())
    }

    fn certain(&self) -> MutexGuard<'_, HashSet<String>> {
        self.certain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a chunk up, and pins the pack it is found in. A fingerprint counts only where the pack's own
    /// footer has the whole id.
    pub fn lookup_pin(&self, id: &ChunkId, pins: &mut Pins) -> Option<Located> {
        self.find(id, pins, |_| true)
    }

    /// As [`Store::lookup_pin`], of the places that are `wanted` only.
    pub fn lookup_pin_where(
        &self,
        id: &ChunkId,
        pins: &mut Pins,
        wanted: impl Fn(&Located) -> bool,
    ) -> Option<Located> {
        self.find(id, pins, wanted)
    }

    fn find(&self, id: &ChunkId, pins: &mut Pins, wanted: impl Fn(&Located) -> bool) -> Option<Located> {
        self.find_stored(id, pins, &|table, listed, pins| {
            let mut located = table.located(listed);
            if let Some(base) = table.bases.get(&listed.frame) {
                // It is of no use without its base.
                let alone = |table: &ChunkTable, listed: &ListedChunk, _: &mut Pins| {
                    (!table.bases.contains_key(&listed.frame)).then(|| table.located(listed))
                };
                located.base = Some(self.find_stored(base, pins, &alone)?.place());
            }
            wanted(&located).then_some(located)
        })
    }

    /// A chunk that is listed in a pack that is not on its way out, and that `take` takes.
    fn find_stored(
        &self,
        id: &ChunkId,
        pins: &mut Pins,
        take: &dyn Fn(&ChunkTable, &ListedChunk, &mut Pins) -> Option<Located>,
    ) -> Option<Located> {
        let candidates = self.hub.candidates(id, pins);
        candidates.into_iter().find_map(|candidate| match self.chunk_table(candidate.pack) {
            Ok(table) => {
                let listed = table.chunks.get(candidate.chunk as usize)?;
                // What equals a chunk that is lost is the chance to have it again.
                let lost = self.health.is_lost(candidate.pack, listed.frame);
                if listed.id == *id && !lost { take(&table, listed, pins) } else { None }
            }
            Err(error) => {
                tracing::warn!("a chunk is stored again, its pack's footer cannot be read: {error}");
                None
            }
        })
    }

    /// Pins a pack that a replayed record refers to.
    pub fn pin(&self, pack: &PackId, pins: &mut Pins) {
        self.hub.pin(pack, pins);
    }

    /// Pins a pack that somebody is about to refer to; not one that is gone, or about to be dropped. Whether it did.
    pub fn pin_live(&self, pack: &PackId, pins: &mut Pins) -> bool {
        self.hub.pin_live(pack, pins)
    }

    /// Has nothing new be found in a pack that is to die, or (`false`) has it found again.
    pub fn retire(&self, pack: &PackId, retired: bool) {
        self.hub.retire(pack, retired);
    }

    /// Gives pins back: what they kept is counted in a synced checkpoint, or never came to be.
    pub fn release(&self, pins: Pins) {
        self.hub.release(pins.packs().copied());
    }

    /// Takes a pack out of the index if nobody pins it. After that nothing new comes to refer to it.
    pub fn condemn(&self, pack: &PackId) -> bool {
        self.hub.condemn(pack)
    }

    /// Removes a pack that nothing refers to any more: a condemned one, or one of metadata.
    ///
    /// Its twin goes first, so that it is not what is left after a crash. (A power cut may have it so all the same: what is
    /// known by its twin alone is dropped by the same rules.)
    pub fn drop_pack(&self, pack: &PackId) -> Result<(), StoreError> {
        self.drop_twins(pack)?;
        let path = pack_path(pack);
        let (removed, mending) = self.health.while_none_begins(*pack, || self.disk.remove(&path));
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(path)(e)),
            _ => {}
        }
        self.hub.forget(pack);
        // One may have been made meanwhile, by somebody for whom it was known still.
        self.drop_twins(pack)?;
        if mending {
            // Who mends it may have given it its name again meanwhile; from here on it is not known, and goes there.
            let _ = self.disk.remove(&path);
        }
        self.open_packs.remove(0, pack);
        self.chunk_tables.remove(0, pack);
        Ok(())
    }

    /// Whether a pack is there and was not dropped.
    pub fn knows(&self, pack: &PackId) -> bool {
        self.hub.knows(pack)
    }

    /// What the hub knows of each data pack.
    pub fn data_summaries(&self) -> Vec<PackSummary> {
        self.hub.summaries().into_iter().filter(is_data).collect()
    }

    /// The metadata packs of a volume that the hub knows.
    pub fn metadata_packs(&self, volume: Uuid) -> Vec<(PackId, u64)> {
        let of_volume = |s: &&cairn_format::PackSummary| !is_data(s) && s.volume == volume;
        self.hub.summaries().iter().filter(of_volume).map(|s| (s.pack, s.file_len)).collect()
    }

    /// The highest epoch in a pack's name.
    pub fn highest_epoch(&self) -> u32 {
        self.hub.summaries().iter().map(|s| s.pack.epoch()).max().unwrap_or(0)
    }

    /// What the store holds.
    pub fn usage(&self) -> StoreUsage {
        let (fingerprints, index_mem) = self.hub.index_size();
        let mut usage = StoreUsage { fingerprints: fingerprints as u64, index_mem, ..StoreUsage::default() };
        for summary in self.hub.summaries() {
            usage.packs += 1;
            usage.spare = usage.spare.saturating_add(summary.spare_len);
            let own = summary.file_len.saturating_sub(summary.spare_len);
            if is_data(&summary) {
                // What a snapshot of the index says of a pack was not compared with it.
                usage.unique = usage.unique.saturating_add(summary.plain_len);
                usage.data = usage.data.saturating_add(own);
            } else {
                usage.metadata = usage.metadata.saturating_add(own);
            }
        }
        usage
    }

    /// How often a frame, or a block of one, was found in the cache, and how often it had to be read and decoded.
    pub fn cache_use(&self) -> (u64, u64) {
        self.frames.uses()
    }

    /// Bytes that were read of packs for who wants bytes of chunks, and what was decoded of these.
    pub fn read_use(&self) -> (u64, u64) {
        self.frames.bytes()
    }

    /// The chunk that a frame is the differences from, as its pack's footer says; none where it is none, or that cannot be read.
    pub fn base_of(&self, pack: PackId, frame: u32) -> Option<ChunkId> {
        self.chunk_table(pack).ok()?.bases.get(&frame).copied()
    }

    /// The chunk that a piece's chunk is the differences from, whole, as both packs' footers say; none where it is none, or those cannot be read.
    pub fn base_piece(&self, piece: &ChunkPiece) -> Option<ChunkPiece> {
        let (at, id) = (piece.base?, self.base_of(piece.pack, piece.frame)?);
        let table = self.chunk_table(at.pack).ok()?;
        let place = |listed: &ListedChunk| (listed.frame, listed.slot);
        let listed = table.chunks.binary_search_by_key(&(at.frame, at.slot), place).ok()?;
        let len = table.chunks.get(listed).filter(|listed| listed.id == id)?.len;
        base_of(piece, &ChunkEntry { id, len })
    }

    /// The table of bases that was saved; none where that cannot be used.
    pub fn load_bases(&self, most: usize) -> Option<BaseTable> {
        let longest = BaseTable::FIXED_LEN + most * BaseTable::ENTRY_LEN;
        let bytes = crate::disk::read_small(&*self.disk, BASES_PATH, longest as u64).ok()?;
        match BaseTable::decode(&bytes, &self.superblock.uuid) {
            Ok(table) => Some(table),
            Err(error) => {
                tracing::info!("tensors stored so far are not known as bases: {BASES_PATH}: {error}");
                None
            }
        }
    }

    /// Saves it.
    pub fn save_bases(&self, entries: Vec<BaseEntry>) -> Result<(), StoreError> {
        let table = BaseTable { store: self.superblock.uuid, entries };
        replace_small(&*self.disk, BASES_PATH, &table.encode()).map_err(StoreError::io(BASES_PATH))
    }

    /// Opens a pack past the caches. What cannot be read of it is answered from parity, where [`Store::health`] has it so.
    pub fn reader(&self, pack: PackId) -> Result<PackReader, ReadError> {
        let opened = PackReader::open(&*self.disk, pack);
        let opened = opened.or_else(|error| self.health.pack(&*self.disk, pack, error))?;
        Ok(opened.healed_by(self.health.clone(), self.disk.clone()))
    }

    /// The parity that a pack carries, as its header or its trailer says.
    pub fn parity_of(&self, pack: PackId) -> Option<ParityGeometry> {
        let reader = self.reader(pack).ok()?;
        let layout = reader.layout_by_header().or_else(|_| reader.layout_by_trailer());
        layout.ok().map(|layout| layout.parity)
    }

    /// What was found to be damaged, and what becomes of it.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Looks through one of the packs that damage was met in, and writes back what can be restored. Whether there was one.
    pub fn mend_next(&self) -> Result<bool, StoreError> {
        let known = |pack: &PackId| self.hub.knows(pack);
        let Some((pack, mended)) = self.health.mend_next(&*self.disk, known) else { return Ok(false) };
        // Who has it open may have the one that was there before, or have seen less of it.
        self.open_packs.remove(0, &pack);
        match mended {
            // It was dropped meanwhile, and came back under the name of what took its place.
            Ok(true) if !self.hub.knows(&pack) => {
                let path = pack_path(&pack);
                match self.disk.remove(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path)(e)),
                    _ => Ok(true),
                }
            }
            Err(StoreError::Read(ReadError::Missing { .. })) if !self.hub.knows(&pack) => Ok(true),
            mended => mended.map(|_| true),
        }
    }

    /// Writes back what [`crate::heal::examine`] found to be damaged of a pack, as far as it can be restored.
    pub fn mend(&self, examined: &Examined) -> Result<Mended, StoreError> {
        let known = self.hub.knows(&examined.pack);
        if examined.missing && !known {
            // It was dropped, and its twin goes with it.
            return Ok(Mended::default());
        }
        let mended = self.health.write_back(&*self.disk, examined);
        // As after [`Store::mend_next`].
        self.open_packs.remove(0, &examined.pack);
        // Not one that was never known: files may lie in a pack whose footer could not be read.
        let written_anew = |mended: &Mended| mended.relocated || mended.copied;
        if mended.as_ref().is_ok_and(written_anew) && known && !self.hub.knows(&examined.pack) {
            // It was dropped meanwhile, and its copy took over the name.
            self.drop_pack(&examined.pack)?;
            if examined.place != Place::Pack {
                self.drop_twin(&examined.pack, examined.place)?;
            }
        }
        mended
    }

    /// Holds both replicas of the store's superblock against what was read of it; with `repair` one that cannot be used
    /// is written again.
    pub fn check_superblock(&self, repair: bool) -> Vec<BadReplica> {
        let usable = |bytes: &[u8]| StoreSuperblock::decode(bytes).map(drop);
        check_replicas(&*self.disk, usable, &self.superblock.encode(), repair)
    }

    /// Reads bytes of a chunk: `out.len()` of them, from `from` bytes behind the start of the piece. Where its frame cannot
    /// be read, from another place that the chunk lies in, if there is one.
    pub fn read(&self, piece: &ChunkPiece, from: u32, out: &mut [u8]) -> Result<Served, ReadError> {
        // Where that was found out before, it is not tried first.
        let is_lost = |at: ChunkPlace| self.health.is_lost(at.pack, at.frame);
        if piece.places().any(is_lost) && self.read_elsewhere(piece, from, out).is_some() {
            return Ok(Served::Elsewhere);
        }
        let error = match self.read_there(piece, from, out) {
            Ok(served) => return Ok(served),
            Err(error) => error,
        };
        match self.read_elsewhere(piece, from, out) {
            Some(there) => {
                let (chunk, here) = (piece.chunk, piece.pack);
                tracing::warn!("chunk {chunk} is read from pack {there}, not {here}: {error}");
                Ok(Served::Elsewhere)
            }
            None => Err(error),
        }
    }

    fn read_elsewhere(&self, piece: &ChunkPiece, from: u32, out: &mut [u8]) -> Option<PackId> {
        let other = self.elsewhere(piece)?;
        self.read_there(&other, from, out).ok().map(|_| other.pack)
    }

    /// Another place of a chunk.
    fn elsewhere(&self, piece: &ChunkPiece) -> Option<ChunkPiece> {
        let mut pins = Pins::default();
        let here = (piece.pack, piece.frame);
        let located = self.find(&piece.chunk, &mut pins, |found| (found.pack, found.frame) != here);
        // Readers do not pin: should it be dropped now, that is an error like any other.
        self.release(pins);
        let located = located.filter(|found| found.len == piece.chunk_len)?;
        let ChunkPlace { pack, frame, slot } = located.place();
        Some(ChunkPiece { pack, frame, slot, base: located.base, ..*piece })
    }

    /// As [`Store::read`], from this place only.
    pub fn read_there(&self, piece: &ChunkPiece, from: u32, out: &mut [u8]) -> Result<Served, ReadError> {
        let place = (piece.pack, piece.frame);
        let start = piece.offset as usize + from as usize;
        let frame = match self.frames.whole(place) {
            Some(frame) => frame,
            None => {
                let open = self.open_pack(piece.pack);
                if open.as_ref().is_ok_and(|open| self.read_of_run(open, piece, start, out)) {
                    return Ok(Served::Stored);
                }
                let (frame, stored) = self.load_frame(place, open)?;
                let frame = Arc::new(self.with_base(frame, piece)?);
                self.frames.note_whole(place, &frame, stored, true);
                frame
            }
        };
        let mismatch = |reason: String| ReadError::Mismatch { pack: piece.pack, reason };
        let Some((chunk, bytes)) = frame.chunk(piece.slot) else {
            return Err(mismatch(format!("frame {} has no slot {}", piece.frame, piece.slot)));
        };
        if chunk.id != piece.chunk || chunk.len != piece.chunk_len {
            return Err(mismatch(format!(
                "{} wanted in frame {} slot {}, {} is there",
                piece.chunk, piece.frame, piece.slot, chunk.id
            )));
        }
        match bytes.get(start..start + out.len()) {
            Some(part) => {
                out.copy_from_slice(part);
                Ok(if frame.take_healed() { Served::Healed } else { Served::Stored })
            }
            None => Err(mismatch(format!("{} bytes at {start} of a chunk of {}", out.len(), bytes.len()))),
        }
    }

    /// Calls `with` with a chunk that is the only one of its frame, and so may be a run of numbers. What it gives; false where it is another.
    fn with_run(&self, open: &OpenPack, piece: &ChunkPiece, with: impl FnOnce(&RunAt<'_>) -> bool) -> bool {
        let Some(entry) = open.frames.get(piece.frame as usize).filter(|_| piece.slot == 0) else {
            return false;
        };
        let read_base = |base: &ChunkEntry, bytes: Range<usize>| {
            let base = base_of(piece, base)?;
            let mut out = vec![0; bytes.len()];
            // Within a chunk, which is no longer than that.
            self.read(&base, bytes.start as u32, &mut out).ok()?;
            Some(out)
        };
        let chunk = ChunkEntry { id: piece.chunk, len: piece.chunk_len };
        let place = (piece.pack, piece.frame);
        with(&RunAt { place, entry, reader: &open.reader, chunk, read_base: &read_base })
    }

    /// Bytes of a chunk that is a run of numbers, where they can be had without the rest of it; whether they could.
    fn read_of_run(&self, open: &OpenPack, piece: &ChunkPiece, from: usize, out: &mut [u8]) -> bool {
        self.with_run(open, piece, |at| self.frames.read_of_run(at, from, out))
    }

    /// A frame, with what it is the differences from added, if it is: the piece says where that is.
    fn with_base(&self, frame: DecodedFrame, piece: &ChunkPiece) -> Result<DecodedFrame, ReadError> {
        let Some(id) = frame.base.filter(|_| !frame.is_whole()) else { return Ok(frame) };
        let mismatch = |reason: &str| {
            let reason = format!("frame {} differs from chunk {id}, {reason}", piece.frame);
            ReadError::Mismatch { pack: piece.pack, reason }
        };
        let len = frame.base_len().ok_or_else(|| mismatch("of which it cannot be"))?;
        let base = ChunkEntry { id, len: len as u32 };
        let base = base_of(piece, &base).ok_or_else(|| mismatch("and nothing says where that is"))?;
        let mut bytes = vec![0; base.chunk_len as usize];
        self.read(&base, 0, &mut bytes)?;
        frame.with_base(&bytes).ok_or_else(|| mismatch("which has another length"))
    }

    /// How a frame is stored, for people: `raw`, `zstd`, or as a run of numbers `planes`, `palette`, `pattern` or `differences`. None where
    /// that cannot be read.
    pub fn stored_as(&self, pack: PackId, frame: u32) -> Option<&'static str> {
        let open = self.open_pack(pack).ok()?;
        open.reader.stored_as(open.frames.get(frame as usize)?)
    }

    /// Has the blocks of a run of numbers that hold the first `len` bytes of a piece be in the cache; whether it is one. Errors are for who
    /// reads it.
    pub fn decode_ahead(&self, piece: &ChunkPiece, len: u32) -> bool {
        let Ok(open) = self.open_pack(piece.pack) else { return false };
        let bytes = piece.offset as usize..piece.offset as usize + len as usize;
        self.with_run(&open, piece, |at| self.frames.decode_ahead(at, bytes))
    }

    /// A frame, checked and decoded, past the cache: what is read once is not to displace what is read often. One of differences stays so.
    pub fn frame_once(&self, pack: PackId, number: u32) -> Result<Arc<DecodedFrame>, ReadError> {
        match self.frames.whole((pack, number)) {
            Some(frame) => Ok(frame),
            None => {
                let (frame, stored) = self.load_frame((pack, number), self.open_pack(pack))?;
                let frame = Arc::new(frame);
                self.frames.note_whole((pack, number), &frame, stored, false);
                Ok(frame)
            }
        }
    }

    /// The same of the frame that a piece's chunk lies in, with its base.
    pub fn frame_of(&self, piece: &ChunkPiece) -> Result<Arc<DecodedFrame>, ReadError> {
        let place = (piece.pack, piece.frame);
        match self.frames.whole(place) {
            Some(frame) => Ok(frame),
            None => {
                let (frame, stored) = self.load_frame(place, self.open_pack(piece.pack))?;
                let frame = Arc::new(self.with_base(frame, piece)?);
                self.frames.note_whole(place, &frame, stored, false);
                Ok(frame)
            }
        }
    }

    /// A frame of differences with its base added, wherever that is; none where it cannot be had. Any other as it is.
    pub fn with_base_found(&self, frame: DecodedFrame) -> Option<DecodedFrame> {
        let Some(id) = frame.base.filter(|_| !frame.is_whole()) else { return Some(frame) };
        let mut pins = Pins::default();
        let found = self.find(&id, &mut pins, |found| found.base.is_none());
        // As a reader.
        self.release(pins);
        let found = found.filter(|found| Some(found.len as usize) == frame.base_len())?;
        let piece = found.piece(id);
        let mut bytes = vec![0; found.len as usize];
        self.read(&piece, 0, &mut bytes).ok()?;
        frame.with_base(&bytes)
    }

    fn load_frame(
        &self,
        (pack, number): (PackId, u32),
        open: Result<Arc<OpenPack>, ReadError>,
    ) -> Result<(DecodedFrame, u32), ReadError> {
        let loaded = open.and_then(|open| match open.frames.get(number as usize) {
            Some(entry) => open.reader.frame(entry).map(|frame| (frame, entry.len)),
            None => {
                Err(ReadError::Mismatch { pack, reason: format!("frame {number} of {}", open.frames.len()) })
            }
        });
        // One that is not there any more was dropped, most likely; and nobody finds what a footer does not list.
        if !matches!(loaded, Err(ReadError::Mismatch { .. } | ReadError::Missing { .. })) {
            self.health.note_frame(pack, number, loaded.is_err());
        }
        loaded
    }

    fn open_pack(&self, pack: PackId) -> Result<Arc<OpenPack>, ReadError> {
        if let Some(open) = self.open_packs.get(0, &pack) {
            return Ok(open);
        }
        let reader = self.reader(pack)?;
        let footer = reader.footer()?;
        let size = (footer.frames.len() * size_of::<FrameEntry>()) as u64;
        let open = Arc::new(OpenPack { reader, frames: footer.frames });
        self.open_packs.put(0, pack, open.clone(), size.max(OPEN_PACK_LEAST));
        // One that was dropped meanwhile would keep its room on the disk for as long as it is in the cache.
        if !self.hub.knows(&pack) {
            self.open_packs.remove(0, &pack);
        }
        Ok(open)
    }

    fn chunk_table(&self, pack: PackId) -> Result<Arc<ChunkTable>, ReadError> {
        if let Some(table) = self.chunk_tables.get(0, &pack) {
            return Ok(table);
        }
        let footer = self.reader(pack)?.footer()?;
        let table = Arc::new(ChunkTable::of(&footer));
        let size = table.chunks.len() * size_of::<ListedChunk>() + table.bases.len() * 64;
        let size = size as u64;
        self.chunk_tables.put(0, pack, table.clone(), size);
        Ok(table)
    }
}

impl ChunkTable {
    fn of(footer: &Footer) -> ChunkTable {
        let mut listed = footer.chunks.iter();
        let mut chunks = Vec::with_capacity(footer.chunks.len());
        for (number, frame) in footer.frames.iter().enumerate() {
            for (slot, chunk) in listed.by_ref().take(frame.chunks as usize).enumerate() {
                chunks.push(ListedChunk {
                    id: chunk.id,
                    frame: number as u32,
                    slot: slot as u32,
                    len: chunk.len,
                    stored: stored_share(frame, chunk),
                });
            }
        }
        let bases = footer.bases.iter().map(|base| (base.frame, base.base)).collect();
        ChunkTable { pack: footer.pack, chunks, bases }
    }

    /// Where a chunk is; its base is left out.
    fn located(&self, listed: &ListedChunk) -> Located {
        let ListedChunk { frame, slot, len, stored, .. } = *listed;
        Located { pack: self.pack, frame, slot, len, stored, base: None }
    }
}

/// The chunk that a piece's chunk is the differences from, whole.
fn base_of(piece: &ChunkPiece, base: &ChunkEntry) -> Option<ChunkPiece> {
    let ChunkPlace { pack, frame, slot } = piece.base?;
    Some(ChunkPiece {
        chunk: base.id,
        chunk_len: base.len,
        pack,
        frame,
        slot,
        offset: 0,
        base: None,
        stored: piece.stored,
    })
}

/// A chunk's share of its frame's stored bytes, its entry in the frame's head included; at least 1.
pub fn stored_share(frame: &FrameEntry, chunk: &ChunkEntry) -> u32 {
    let head = FrameHead::len_with(frame.chunks as usize) as u64;
    let stored = u64::from(frame.len).saturating_sub(head);
    let share = (stored * u64::from(chunk.len)).div_ceil(u64::from(frame.plain_len.max(1)));
    share.clamp(1, u32::MAX.into()) as u32
}
