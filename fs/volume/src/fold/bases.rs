//! Which chunk a new one of a tensor may be near to: that of the tensor of the same name, shape and type, in the same place; else one that looks
//! alike.
//!
//! What is known of a chunk is five numbers: one of its name, four of sixteen of its elements each, of which only the highest byte counts: training that goes on
//! changes these seldom. A table of bounded size leads from such numbers to chunks that are stored by themselves. It is a help and no more: what it says is looked up
//! in the store, and differences are kept only where they take less.

use std::collections::{HashMap, VecDeque};

use cairn_format::{BaseEntry, BaseTable, ChunkId, Element};

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Numbers that are known: five to a chunk, so those of 20 GiB of tensors, in 8 MiB.
pub(crate) const LIMIT: usize = 100_000;
/// Numbers that elements give.
const BANDS: usize = 4;
/// Elements of each.
const SAMPLES: usize = 16;

/// What a chunk of a tensor is known by.
pub(crate) type Keys = [u64; 1 + BANDS];

/// Chunks that others may be differences from.
#[derive(Default)]
pub(crate) struct Bases(Mutex<State>);

#[derive(Default)]
struct State {
    known: HashMap<u64, (ChunkId, u32)>,
    /// The oldest first.
    order: VecDeque<u64>,
    changed: bool,
}

impl Bases {
    /// As it was saved.
    pub(crate) fn of(table: &BaseTable) -> Bases {
        let bases = Bases::default();
        {
            let mut state = bases.state();
            table.entries.iter().for_each(|entry| state.put(entry.key, entry.chunk, entry.len));
            state.changed = false;
        }
        bases
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk as long that is known by one of these, by the first of them where it can be.
    pub(crate) fn find(&self, keys: &Keys, len: u32) -> Option<ChunkId> {
        let state = self.state();
        keys.iter().find_map(|key| state.known.get(key).filter(|(_, of)| *of == len).map(|(chunk, _)| *chunk))
    }

    /// A chunk that is stored by itself is known by these from now on.
    pub(crate) fn note(&self, keys: &Keys, chunk: ChunkId, len: u32) {
        let mut state = self.state();
        keys.iter().filter(|key| **key != 0).for_each(|key| state.put(*key, chunk, len));
    }

    /// What is to be saved; none where nothing changed since it was read.
    pub(crate) fn changed(&self) -> Option<Vec<BaseEntry>> {
        let mut state = self.state();
        if !std::mem::take(&mut state.changed) {
            return None;
        }
        let entry = |key: &u64| {
            state.known.get(key).map(|(chunk, len)| BaseEntry { key: *key, chunk: *chunk, len: *len })
        };
        Some(state.order.iter().filter_map(entry).collect())
    }
}

impl State {
    fn put(&mut self, key: u64, chunk: ChunkId, len: u32) {
        self.changed = true;
        if self.known.insert(key, (chunk, len)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > LIMIT {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// What the bytes of a chunk of a tensor are known by; `name` is what its name, shape, type and its place in it are.
pub(crate) fn keys(name: u64, plain: &[u8], element: Element) -> Keys {
    let width = element.width();
    let elements = plain.len() / width;
    let mut keys = [name; 1 + BANDS];
    for (band, key) in keys.iter_mut().skip(1).enumerate() {
        let at = |sample: usize| (sample * BANDS + band) * elements / (SAMPLES * BANDS);
        let highest = |sample: usize| plain.get(at(sample) * width + width - 1).copied().unwrap_or(0);
        let samples: [u8; SAMPLES] = std::array::from_fn(highest);
        // What is the same everywhere says nothing.
        let differ = samples.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let kind = mix(width as u64, plain.len() as u64 ^ (band as u64) << 56);
        let (words, _) = samples.as_chunks::<8>();
        let sum = words.iter().fold(kind, |sum, word| mix(sum, u64::from_le_bytes(*word)));
        *key = if differ < SAMPLES / 4 { 0 } else { sum | 1 };
    }
    keys
}

/// One number of two (the finisher of SplitMix64).
pub(crate) fn mix(one: u64, other: u64) -> u64 {
    let mut z = (one ^ other.rotate_left(29)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(seed: u32, len: usize) -> Vec<f32> {
        (0..len as u32).map(|n| (n.wrapping_mul(seed) % 1000) as f32 / 500.0 - 1.0).collect()
    }

    fn bytes(floats: &[f32]) -> Vec<u8> {
        floats.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_near_is_found_whatever_it_is_called_and_what_is_not_is_not() {
        let weights = floats(2_654_435_761, 100_000);
        let near: Vec<f32> = weights.iter().map(|x| x * 1.01).collect();
        let one = keys(7, &bytes(&weights), Element::Single);
        let bases = Bases::default();
        bases.note(&one, ChunkId([1; 32]), 400_000);
        let other = keys(8, &bytes(&near), Element::Single);
        assert_eq!(bases.find(&other, 400_000), Some(ChunkId([1; 32])));
        assert_eq!(bases.find(&other, 400_004), None);
        let far = keys(9, &bytes(&floats(40_503, 100_000)), Element::Single);
        assert_eq!(bases.find(&far, 400_000), None);
        // By its name first.
        bases.note(&far, ChunkId([2; 32]), 400_000);
        assert_eq!(bases.find(&keys(9, &bytes(&near), Element::Single), 400_000), Some(ChunkId([2; 32])));
        // What is the same everywhere is near to nothing.
        let zeros = keys(10, &[0; 400_000], Element::Single);
        assert_eq!(zeros[1..], [0; BANDS]);
        let saved = BaseTable { store: cairn_format::Uuid([0; 16]), entries: bases.changed().expect("some") };
        assert_eq!(Bases::of(&saved).find(&other, 400_000), Some(ChunkId([1; 32])));
        assert!(bases.changed().is_none() && Bases::of(&saved).changed().is_none());
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let bases = Bases::default();
        for n in 1..=LIMIT as u64 {
            bases.note(&[n, 0, 0, 0, 0], ChunkId([1; 32]), 1);
        }
        assert!(bases.find(&[1, 0, 0, 0, 0], 1).is_some());
        bases.note(&[u64::MAX, 0, 0, 0, 0], ChunkId([1; 32]), 1);
        assert!(bases.find(&[1, 0, 0, 0, 0], 1).is_none());
        assert!(bases.find(&[2, 0, 0, 0, 0], 1).is_some());
    }
}
