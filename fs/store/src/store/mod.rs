//! A store: its packs, what is known of them, and reading from them.

mod chunks;
mod copies;
mod listing;
mod mending;
mod opening;
mod reading;

use std::collections::HashSet;
use std::io;

use cairn_format::{PackId, PackKind, PackSummary, ParityGeometry, StoreSuperblock, Uuid};

use crate::across::AcrossDir;
use crate::caches::ByteLru;
use crate::disk::Disk;
use crate::frames::Frames;
use crate::heal::Health;
use crate::hub::{Hub, is_data};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::twins::Twins;
use crate::{PackWriter, Pins, SealedPack, StoreError, pack_path};

use chunks::ChunkTable;
use reading::OpenPack;

pub use chunks::stored_share;
pub(crate) use listing::list_packs_in;
pub use listing::{PackListing, list_packs};
pub use reading::Served;

/// The directory that holds the packs.
pub const PACKS_DIR: &str = "packs";
/// The file of the index's snapshot.
pub const INDEX_PATH: &str = "index";
/// The file of what chunks of tensors are known by.
pub const BASES_PATH: &str = "bases";

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

impl Store {
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
}
