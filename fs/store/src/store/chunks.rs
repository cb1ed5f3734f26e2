//! Where chunks lie: found by their ids in what packs list, and the chunks that others are the differences from.

use std::collections::HashMap;

use cairn_format::{
    BaseEntry, BaseTable, ChunkEntry, ChunkId, ChunkPiece, ChunkPlace, Footer, FrameEntry, FrameHead, PackId,
};

use super::{BASES_PATH, Store};
use crate::disk::replace_small;
use crate::sync::Arc;
use crate::{Located, Pins, ReadError, StoreError};

/// The most memory that packs' tables of chunks take, in bytes.
pub(super) const CHUNK_TABLES_BYTES: u64 = 24 << 20;

/// A pack's chunks and their places, in the order of its footer.
pub(super) struct ChunkTable {
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

impl Store {
    /// Looks a chunk up, for something new to refer to it, and pins the pack it is found in. A fingerprint counts only where the
    /// pack's own footer has the whole id; a pack that damage was met in does once somebody has looked what of it is lost.
    pub fn lookup_pin(&self, id: &ChunkId, pins: &mut Pins) -> Option<Located> {
        self.lookup_pin_where(id, pins, |_| true)
    }

    /// As [`Store::lookup_pin`], of the places that are `wanted` only.
    pub fn lookup_pin_where(
        &self,
        id: &ChunkId,
        pins: &mut Pins,
        wanted: impl Fn(&Located) -> bool,
    ) -> Option<Located> {
        let is_suspect = |at: &Located| {
            let packs = [Some(at.pack), at.base.map(|base| base.pack)];
            packs.iter().flatten().any(|pack| self.health.is_suspect(pack))
        };
        self.find(id, pins, |at| !is_suspect(at) && wanted(at))
    }

    pub(super) fn find(
        &self,
        id: &ChunkId,
        pins: &mut Pins,
        wanted: impl Fn(&Located) -> bool,
    ) -> Option<Located> {
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
pub(super) fn base_of(piece: &ChunkPiece, base: &ChunkEntry) -> Option<ChunkPiece> {
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
