//! What the footers say of chunks, in a cache of bounded size: extents ask for them file by file.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cairn_format::{ChunkEntry, ChunkId, Footer, FrameEntry, PackId};
use cairn_store::disk::Disk;
use cairn_store::{PackReader, stored_share};

const LIMIT: usize = 64 << 20;

struct Table {
    frames: Vec<FrameEntry>,
    /// For each frame, the number of its first chunk.
    starts: Vec<u32>,
    chunks: Vec<ChunkEntry>,
    /// By frames.
    bases: HashMap<u32, ChunkId>,
}

impl Table {
    fn new(footer: Footer) -> Table {
        let starts = footer.frames.iter().scan(0u32, |next, frame| {
            let start = *next;
            *next = next.saturating_add(frame.chunks);
            Some(start)
        });
        let bases = footer.bases.iter().map(|base| (base.frame, base.base)).collect();
        Table { starts: starts.collect(), frames: footer.frames, chunks: footer.chunks, bases }
    }

    fn bytes(&self) -> usize {
        self.chunks.len() * size_of::<ChunkEntry>() + self.frames.len() * 32 + self.bases.len() * 64 + 256
    }
}

/// Footers that were read, the oldest dropped first.
pub(crate) struct Footers {
    disk: Arc<dyn Disk>,
    tables: HashMap<PackId, Table>,
    order: VecDeque<PackId>,
    bytes: usize,
}

impl Footers {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Footers {
        Footers { disk, tables: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// The chunk in a slot of a frame, and its share of the frame's stored bytes; or what keeps it from
    /// being found.
    pub(crate) fn chunk(&mut self, pack: PackId, frame: u32, slot: u32) -> Result<(ChunkEntry, u32), String> {
        if !self.tables.contains_key(&pack) {
            self.load(pack)?;
        }
        let found = self.tables.get(&pack).and_then(|table| {
            let entry = table.frames.get(frame as usize)?;
            let first = *table.starts.get(frame as usize)? as usize;
            let chunk = table.chunks.get(first + slot as usize).filter(|_| slot < entry.chunks)?;
            Some((*chunk, stored_share(entry, chunk)))
        });
        found.ok_or_else(|| format!("its pack has no frame {frame} with a slot {slot}"))
    }

    /// The chunk that a frame is the differences from, where it is.
    pub(crate) fn base(&mut self, pack: PackId, frame: u32) -> Option<ChunkId> {
        if !self.tables.contains_key(&pack) {
            self.load(pack).ok()?;
        }
        self.tables.get(&pack)?.bases.get(&frame).copied()
    }

    fn load(&mut self, pack: PackId) -> Result<(), String> {
        let reader = PackReader::open_any(&*self.disk, pack).map_err(|e| e.to_string())?;
        let restored = |error| reader.restored_footer(Some(&*self.disk)).ok_or(error);
        let footer = reader.footer().or_else(restored).map_err(|e| e.to_string())?;
        let table = Table::new(footer);
        self.bytes += table.bytes();
        self.tables.insert(pack, table);
        self.order.push_back(pack);
        while self.bytes > LIMIT && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|pack| self.tables.remove(&pack));
            self.bytes -= oldest.map_or(0, |table| table.bytes());
        }
        Ok(())
    }
}
