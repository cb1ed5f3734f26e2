//! The embedded hub: which pack holds which chunk, and who still needs it.
//!
//! A pack is dropped in two steps. Whoever finds a chunk pins its pack under the hub's lock, before any
//! metadata uses it; a pack is condemned under the same lock, only while nobody pins it, and from then
//! on it is not found any more. So a pin and a condemnation never pass each other.
//!
//! A pack that is being compacted is retired first: it is read and counted as before, but nothing new is found
//! in it, or it would never die. Chunks that come again meanwhile are stored once more.

use std::collections::{HashMap, HashSet};

use cairn_format::{ChunkId, ChunkPiece, ChunkPlace, Footer, IndexSlot, PackId, PackKind, PackSummary};

use crate::index::FingerprintTable;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its pack.
    pub pack: PackId,
    /// The frame's number in the pack.
    pub frame: u32,
    /// The chunk's number in the frame.
    pub slot: u32,
    /// Its length.
    pub len: u32,
    /// Its share of the frame's stored bytes.
    pub stored: u32,
    /// Where the chunk lies that it is stored as the differences from, where it is.
    pub base: Option<ChunkPlace>,
}

impl Located {
    /// The chunk `id` that lies there, whole.
    pub fn piece(&self, id: ChunkId) -> ChunkPiece {
        let Located { pack, frame, slot, len, stored, base } = *self;
        ChunkPiece { chunk: id, pack, frame, slot, offset: 0, chunk_len: len, stored, base }
    }

    /// Its place.
    pub fn place(&self) -> ChunkPlace {
        ChunkPlace { pack: self.pack, frame: self.frame, slot: self.slot }
    }
}

/// Packs that must stay because something is about to refer to them. Given back to the store when a
/// synced checkpoint counts those references, or when nothing came of them.
#[derive(Default, Debug)]
#[must_use = "a pin that is not released keeps its pack for as long as the store is open"]
pub struct Pins(HashSet<PackId>);

impl Pins {
    /// The packs.
    pub fn packs(&self) -> impl Iterator<Item = &PackId> {
        self.0.iter()
    }
}

struct Known {
    summary: PackSummary,
    /// Its number in the fingerprint table.
    number: u32,
    pins: u32,
    condemned: bool,
    retired: bool,
    /// Whether its chunks are not in the table, though it is there.
    lone: bool,
}

struct State {
    packs: HashMap<PackId, Known>,
    /// The packs by their numbers, counted from 1. Numbers are not used again.
    numbers: Vec<Option<PackId>>,
    table: FingerprintTable,
}

/// Who holds which chunk, in memory.
pub(crate) struct Hub(Mutex<State>);

/// A place where a chunk may be.
pub(crate) struct Candidate {
    pub(crate) pack: PackId,
    /// Its number in the pack's list of chunks.
    pub(crate) chunk: u32,
}

impl Hub {
    pub(crate) fn new(index_mem: u64) -> Hub {
        let table = FingerprintTable::new(index_mem);
        Hub(Mutex::new(State { packs: HashMap::new(), numbers: Vec::new(), table }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that panics runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a pack known; its chunks are found from now on.
    pub(crate) fn publish(&self, footer: &Footer, file_len: u64, pins: Option<&mut Pins>) {
        let mut state = self.state();
        let number = state.add(summary_of(footer, file_len));
        if let Some(pins) = pins {
            state.pin(&footer.pack, pins);
        }
        for (i, chunk) in footer.chunks.iter().enumerate() {
            state.insert(IndexSlot { fingerprint: chunk.id.fingerprint(), pack: number, chunk: i as u32 });
        }
    }

    /// Makes known what a snapshot says of a pack, and gives the number that its slots get.
    pub(crate) fn restore(&self, summary: PackSummary) -> u32 {
        self.state().add(summary)
    }

    /// Makes known a pack that nothing new is found in: only its twin is there.
    pub(crate) fn restore_lone(&self, footer: &Footer, file_len: u64) {
        let mut state = self.state();
        state.add(summary_of(footer, file_len));
        if let Some(known) = state.packs.get_mut(&footer.pack) {
            known.lone = true;
        }
    }

    /// Adds slots of packs made known before.
    pub(crate) fn restore_slots(&self, slots: impl Iterator<Item = IndexSlot>) {
        let mut state = self.state();
        slots.for_each(|slot| state.insert(slot));
    }

    /// Where a chunk may be; the packs of all candidates are pinned.
    pub(crate) fn candidates(&self, id: &ChunkId, pins: &mut Pins) -> Vec<Candidate> {
        let mut state = self.state();
        let found: Vec<_> = state
            .table
            .find(id.fingerprint())
            .filter_map(|slot| {
                let pack = (*state.numbers.get(slot.pack as usize - 1)?)?;
                let known = state.packs.get(&pack)?;
                (!known.condemned && !known.retired).then_some(Candidate { pack, chunk: slot.chunk })
            })
            .collect();
        for candidate in &found {
            state.pin(&candidate.pack, pins);
        }
        found
    }

    /// Pins a pack, if it is known.
    pub(crate) fn pin(&self, pack: &PackId, pins: &mut Pins) {
        self.state().pin(pack, pins);
    }

    /// Pins a pack that somebody is about to refer to; not one that is unknown, or on its way out. Whether it did.
    pub(crate) fn pin_live(&self, pack: &PackId, pins: &mut Pins) -> bool {
        let mut state = self.state();
        let live = state.packs.get(pack).is_some_and(|known| !known.condemned);
        if live {
            state.pin(pack, pins);
        }
        live
    }

    /// Has nothing new be found in a pack, or (`false`) has it found again.
    pub(crate) fn retire(&self, pack: &PackId, retired: bool) {
        if let Some(known) = self.state().packs.get_mut(pack) {
            known.retired = retired;
        }
    }

    /// Gives pins back.
    pub(crate) fn release(&self, packs: impl IntoIterator<Item = PackId>) {
        let mut state = self.state();
        for pack in packs {
            if let Some(known) = state.packs.get_mut(&pack) {
                known.pins = known.pins.saturating_sub(1);
            }
        }
    }

    /// Takes a pack out of the index if nobody pins it: nothing finds it any more.
    pub(crate) fn condemn(&self, pack: &PackId) -> bool {
        match self.state().packs.get_mut(pack) {
            Some(known) if known.pins == 0 => {
                known.condemned = true;
                true
            }
            _ => false,
        }
    }

    /// Whether a pack is there, as far as this store knows.
    pub(crate) fn knows(&self, pack: &PackId) -> bool {
        self.state().packs.contains_key(pack)
    }

    /// Forgets a pack.
    pub(crate) fn forget(&self, pack: &PackId) {
        let mut state = self.state();
        if let Some(known) = state.packs.remove(pack) {
            state.numbers[known.number as usize - 1] = None;
        }
    }

    /// What is known of each pack.
    pub(crate) fn summaries(&self) -> Vec<PackSummary> {
        self.state().packs.values().map(|known| known.summary).collect()
    }

    /// The packs, and the slots with numbers counted by that list.
    pub(crate) fn snapshot(&self) -> (Vec<PackSummary>, Vec<IndexSlot>) {
        let state = self.state();
        let mut packs = Vec::with_capacity(state.packs.len());
        let mut renumbered = vec![0; state.numbers.len()];
        for known in state.packs.values().filter(|known| !known.condemned && !known.lone) {
            packs.push(known.summary);
            renumbered[known.number as usize - 1] = packs.len() as u32;
        }
        let slots = state
            .table
            .iter()
            .filter_map(|slot| match renumbered[slot.pack as usize - 1] {
                0 => None,
                pack => Some(IndexSlot { pack, ..*slot }),
            })
            .collect();
        (packs, slots)
    }

    /// Fingerprints it holds, and the bytes they take.
    pub(crate) fn index_size(&self) -> (usize, u64) {
        let state = self.state();
        (state.table.len(), state.table.bytes())
    }
}

impl State {
    fn add(&mut self, summary: PackSummary) -> u32 {
        self.numbers.push(Some(summary.pack));
        let number = self.numbers.len() as u32;
        self.packs.insert(
            summary.pack,
            Known { summary, number, pins: 0, condemned: false, retired: false, lone: false },
        );
        number
    }

    fn insert(&mut self, slot: IndexSlot) {
        let State { numbers, table, .. } = self;
        let live = |number: u32| numbers.get(number as usize - 1).is_some_and(Option::is_some);
        table.insert(slot, &live);
    }

    fn pin(&mut self, pack: &PackId, pins: &mut Pins) {
        if let Some(known) = self.packs.get_mut(pack)
            && pins.0.insert(*pack)
        {
            known.pins += 1;
        }
    }
}

/// What a hub knows of a pack.
pub(crate) fn summary_of(footer: &Footer, file_len: u64) -> PackSummary {
    PackSummary {
        pack: footer.pack,
        volume: footer.volume,
        kind: footer.kind,
        file_len,
        spare_len: file_len.saturating_sub(footer.layout().described()),
        plain_len: footer.frames.iter().map(|f| u64::from(f.plain_len)).sum(),
        chunks: footer.chunks.len() as u32,
    }
}

/// Whether a summary is of a data pack.
pub(crate) fn is_data(summary: &PackSummary) -> bool {
    summary.kind == PackKind::Data
}
