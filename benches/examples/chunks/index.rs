//! How full the chunk index gets before it grows: seen on a real one.

use std::io;
use std::sync::Arc;

use cairn_codec::chunk_id;
use cairn_format::{ChunkEntry, Footer, FrameEntry, IndexSlot, PackId, PackKind, StoreSuperblock, Uuid};
use cairn_store::disk::{Disk, MemoryDisk};
use cairn_store::{SealedPack, Store, StoreOptions, StoreUsage};

/// The index's limit here: 2 Mi slots, which it reaches from 1,024 by doubling.
const LIMIT: u64 = 32 << 20;
/// Few, so that the moment of growing is seen closely.
const CHUNKS_A_PACK: u64 = 1 << 10;
/// A table at its limit counts as full when it has forgotten one in so many chunks.
const FORGOTTEN: u64 = 100;

/// Used slots to all slots.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Right before the table last grew.
    pub(crate) growing: f64,
    /// At the limit, with one in [`FORGOTTEN`] forgotten.
    pub(crate) full: f64,
}

impl Load {
    /// Memory for a chunk in a table that is full at its limit.
    pub(crate) fn bytes_a_chunk(&self) -> f64 {
        size_of::<IndexSlot>() as f64 / self.full
    }
}

/// Publishes packs with chunks of no content until the index is at its limit and full.
pub(crate) fn load() -> io::Result<Load> {
    let store =
        empty_store().map_err(|e| io::Error::other(format!("the index could not be measured: {e}")))?;
    let of = |usage: &StoreUsage| {
        usage.fingerprints as f64 * size_of::<IndexSlot>() as f64 / usage.index_mem as f64
    };
    let mut load = Load { growing: 0.0, full: 0.0 };
    let mut last = store.usage();
    let mut published = 0;
    for number in 1.. {
        store.publish(&pack(number), None);
        published += CHUNKS_A_PACK;
        let now = store.usage();
        if now.index_mem > last.index_mem {
            load.growing = of(&last);
        }
        if published - now.fingerprints > published / FORGOTTEN {
            load.full = of(&now);
            break;
        }
        last = now;
    }
    Ok(load)
}

fn empty_store() -> Result<Store, cairn_store::StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let superblock = StoreSuperblock {
        uuid: Uuid([1; 16]),
        generation: 1,
        created: 0,
        pack_size: 64 << 20,
        chunk_key: [0; 32],
    };
    Store::make(&*disk, &superblock)?;
    Store::open(disk, StoreOptions { index_mem: LIMIT, cache_size: 0, read_only: false })
}

fn pack(number: u32) -> SealedPack {
    let entry = |n: u64| ChunkEntry { id: chunk_id(&[0; 32], &n.to_le_bytes()), len: 1 };
    let chunks: Vec<_> = (0..CHUNKS_A_PACK).map(|n| entry(u64::from(number) * CHUNKS_A_PACK + n)).collect();
    let count = chunks.len() as u32;
    let footer = Footer {
        parity: cairn_format::ParityGeometry::default(),
        pack: PackId::new(1, 1, number),
        store: Uuid([1; 16]),
        volume: Uuid([2; 16]),
        kind: PackKind::Data,
        frames: vec![FrameEntry { offset: 256, len: 1, plain_len: count, chunks: count }],
        chunks,
        bases: Vec::new(),
        replaces: Vec::new(),
        checkpoint: None,
    };
    SealedPack { footer, file_len: 1 }
}
