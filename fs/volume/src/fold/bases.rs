//! Which chunk a new one of a tensor may be near to: that of the tensor of the same name, shape and type, in the same place, or of floats of another
//! type, which are cast; else one that looks alike.
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

/// A chunk that others may be differences from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) chunk: ChunkId,
    pub(crate) len: u32,
}

/// Chunks that others may be differences from.
#[derive(Default)]
pub(crate) struct Bases(Mutex<State>);

#[derive(Default)]
struct State {
    known: HashMap<u64, Known>,
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
            for BaseEntry { key, chunk, len } in &table.entries {
                state.put(*key, Known { chunk: *chunk, len: *len });
            }
            state.changed = false;
        }
        bases
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk that may have as many elements as one of `len` bytes of this kind, known by one of these, by the first of them where it can be.
    pub(crate) fn find(&self, keys: &Keys, len: usize, element: Element) -> Option<Known> {
        let state = self.state();
        let as_many = |known: &&Known| {
            let known = known.len as usize;
            known == len
                || (known == 2 * len && element.casts_from(Element::Single))
                || (2 * known == len && element == Element::Single)
        };
        keys.iter().find_map(|key| state.known.get(key).filter(as_many).copied())
    }

    /// A chunk that is stored by itself is known by these from now on.
    pub(crate) fn note(&self, keys: &Keys, chunk: Known) {
        let mut state = self.state();
        keys.iter().filter(|key| **key != 0).for_each(|key| state.put(*key, chunk));
    }

    /// What is to be saved; none where nothing changed since it was read.
    pub(crate) fn changed(&self) -> Option<Vec<BaseEntry>> {
        let mut state = self.state();
        if !std::mem::take(&mut state.changed) {
            return None;
        }
        let entry = |key: &u64| {
            let Known { chunk, len } = *state.known.get(key)?;
            Some(BaseEntry { key: *key, chunk, len })
        };
        Some(state.order.iter().filter_map(entry).collect())
    }
}

impl State {
    fn put(&mut self, key: u64, chunk: Known) {
        self.changed = true;
        if self.known.insert(key, chunk).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > LIMIT {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// What the bytes of a chunk of a tensor are known by; `name` is what its name, shape, kind and its place in it are.
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
        let chunk = |n| Known { chunk: ChunkId([n; 32]), len: 400_000 };
        bases.note(&one, chunk(1));
        let other = keys(8, &bytes(&near), Element::Single);
        assert_eq!(bases.find(&other, 400_000, Element::Single), Some(chunk(1)));
        assert_eq!(bases.find(&other, 400_004, Element::Single), None);
        let far = keys(9, &bytes(&floats(40_503, 100_000)), Element::Single);
        assert_eq!(bases.find(&far, 400_000, Element::Single), None);
        // By its name first.
        bases.note(&far, chunk(2));
        assert_eq!(
            bases.find(&keys(9, &bytes(&near), Element::Single), 400_000, Element::Single),
            Some(chunk(2))
        );
        // What is cast has as many elements.
        assert_eq!(bases.find(&far, 200_000, Element::Bfloat), Some(chunk(2)));
        assert_eq!(bases.find(&far, 800_000, Element::Single), Some(chunk(2)));
        assert_eq!(bases.find(&far, 800_000, Element::Bfloat), None);
        assert_eq!(bases.find(&far, 200_000, Element::Short), None);
        // What is the same everywhere is near to nothing.
        let zeros = keys(10, &[0; 400_000], Element::Single);
        assert_eq!(zeros[1..], [0; BANDS]);
        let saved = BaseTable { store: cairn_format::Uuid([0; 16]), entries: bases.changed().expect("some") };
        assert_eq!(Bases::of(&saved).find(&other, 400_000, Element::Single), Some(chunk(1)));
        assert!(bases.changed().is_none() && Bases::of(&saved).changed().is_none());
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let bases = Bases::default();
        let chunk = Known { chunk: ChunkId([1; 32]), len: 1 };
        for n in 1..=LIMIT as u64 {
            bases.note(&[n, 0, 0, 0, 0], chunk);
        }
        let find = |n| bases.find(&[n, 0, 0, 0, 0], 1, Element::Byte);
        assert!(find(1).is_some());
        bases.note(&[u64::MAX, 0, 0, 0, 0], chunk);
        assert!(find(1).is_none());
        assert!(find(2).is_some());
    }
}
