//! Laying a store out, and opening it: what is known of its packs comes from the index's snapshot, or from their footers.

use std::collections::HashSet;

use cairn_format::{IndexSnapshot, PackId, StoreSuperblock};

use super::chunks::CHUNK_TABLES_BYTES;
use super::reading::OPEN_PACKS_BYTES;
use super::{INDEX_PATH, PACKS_DIR, Store, StoreOptions, list_packs};
use crate::StoreError;
use crate::across::across_dirs;
use crate::caches::ByteLru;
use crate::disk::{Disk, replace_small};
use crate::frames::Frames;
use crate::heal::{HealMode, Health};
use crate::hub::Hub;
use crate::pack::unsealed_path;
use crate::replicas::{read_replicas, write_replicas};
use crate::sync::{Arc, Mutex};
use crate::twins::Twins;

/// Bytes of a pack in the index's snapshot, and of what stands before them.
const INDEX_PER_PACK: u64 = 64;

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
}
