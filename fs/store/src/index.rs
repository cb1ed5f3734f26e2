//! The chunk index: a table of fingerprints, bounded, in memory. A hit says where a chunk may be; the
//! pack's footer confirms it. What is forgotten for want of memory dedups less, and nothing else.
//!
//! Two-choice hashing with one move (a cuckoo table's first step): it fills to 70% before it doubles, and at its limit to
//! 93% with one chunk in a hundred forgotten (`scripts/measure-chunks`).

use cairn_format::IndexSlot;

const BUCKET: usize = 4;
const SLOT_BYTES: usize = size_of::<IndexSlot>();
const FIRST_BUCKETS: usize = 256;

/// Fingerprints in buckets of four slots (a cache line); each has two buckets it may be in.
pub struct FingerprintTable {
    slots: Vec<IndexSlot>,
    used: usize,
    most_buckets: usize,
}

impl FingerprintTable {
    /// A table that takes at most `limit` bytes.
    pub fn new(limit: u64) -> FingerprintTable {
        let fit = (limit as usize / (SLOT_BYTES * BUCKET)).max(1);
        let most_buckets = 1 << fit.ilog2();
        let buckets = FIRST_BUCKETS.min(most_buckets);
        FingerprintTable { slots: vec![IndexSlot::default(); buckets * BUCKET], used: 0, most_buckets }
    }

    /// Slots in use.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        (self.slots.len() * SLOT_BYTES) as u64
    }

    /// The slots with this fingerprint.
    pub fn find(&self, fingerprint: u64) -> impl Iterator<Item = IndexSlot> {
        let [first, second] = self.buckets_of(fingerprint);
        let second = if second == first { &[] } else { self.bucket(second) };
        self.bucket(first)
            .iter()
            .chain(second)
            .filter(move |slot| slot.pack != 0 && slot.fingerprint == fingerprint)
            .copied()
    }

    /// All slots in use.
    pub fn iter(&self) -> impl Iterator<Item = &IndexSlot> {
        self.slots.iter().filter(|slot| slot.pack != 0)
    }

    /// Adds a slot. `is_live` tells whether a pack's number still means something: slots of packs that
    /// are gone are taken first. A full table at its limit forgets one of the slots in the way.
    pub fn insert(&mut self, slot: IndexSlot, is_live: &dyn Fn(u32) -> bool) {
        loop {
            let buckets = self.buckets_of(slot.fingerprint);
            let places = || buckets.iter().flat_map(|b| b * BUCKET..(b + 1) * BUCKET);
            if places().any(|i| self.slots[i] == slot) {
                return;
            }
            // The emptier of both, so that neither fills up long before the other.
            let emptier =
                buckets.into_iter().max_by_key(|b| self.bucket(*b).iter().filter(|s| s.pack == 0).count());
            if let Some(i) = emptier.and_then(|bucket| self.empty_place(bucket)) {
                self.slots[i] = slot;
                self.used += 1;
                return;
            }
            if let Some(i) = places().find(|i| !is_live(self.slots[*i].pack)) {
                self.slots[i] = slot;
                return;
            }
            // One in the way goes to its other bucket.
            let movable = places().find_map(|i| Some((i, self.other_place(i)?)));
            if let Some((from, to)) = movable {
                self.slots[to] = std::mem::replace(&mut self.slots[from], slot);
                self.used += 1;
                return;
            }
            if self.slots.len() / BUCKET >= self.most_buckets {
                // Any will do; the fingerprint's upper bits are as good as dice.
                let i = buckets[0] * BUCKET + (slot.fingerprint >> 62) as usize;
                self.slots[i] = slot;
                return;
            }
            self.grow(is_live);
        }
    }

    fn empty_place(&self, bucket: usize) -> Option<usize> {
        (bucket * BUCKET..(bucket + 1) * BUCKET).find(|i| self.slots[*i].pack == 0)
    }

    /// An empty place for the slot at `i` in the other of the buckets it may be in.
    fn other_place(&self, i: usize) -> Option<usize> {
        let [first, second] = self.buckets_of(self.slots[i].fingerprint);
        let other = if i / BUCKET == first { second } else { first };
        self.empty_place(other)
    }

    fn grow(&mut self, is_live: &dyn Fn(u32) -> bool) {
        let bigger = vec![IndexSlot::default(); self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, bigger);
        self.used = 0;
        for slot in old {
            if slot.pack != 0 && is_live(slot.pack) {
                self.insert(slot, is_live);
            }
        }
    }

    fn buckets_of(&self, fingerprint: u64) -> [usize; 2] {
        let mask = self.slots.len() / BUCKET - 1;
        [fingerprint as usize & mask, (fingerprint >> 31) as usize & mask]
    }

    fn bucket(&self, number: usize) -> &[IndexSlot] {
        &self.slots[number * BUCKET..(number + 1) * BUCKET]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u64) -> IndexSlot {
        // Any mixing that spreads: fingerprints are the bytes of a hash.
        let fingerprint =
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n.rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        IndexSlot { fingerprint, pack: (n % 7 + 1) as u32, chunk: n as u32 }
    }

    #[test]
    fn everything_is_found_while_memory_lasts() {
        let mut table = FingerprintTable::new(16 << 20);
        (0..100_000).for_each(|n| table.insert(slot(n), &|_| true));
        assert!((0..100_000).all(|n| table.find(slot(n).fingerprint).any(|s| s == slot(n))));
        assert_eq!(table.len(), 100_000);
    }

    #[test]
    fn the_table_keeps_its_limit_and_most_of_what_fits() {
        let limit = 1 << 20;
        let mut table = FingerprintTable::new(limit);
        (0..200_000).for_each(|n| table.insert(slot(n), &|_| true));
        assert!(table.bytes() <= limit);
        let found = (0..200_000).filter(|n| table.find(slot(*n).fingerprint).any(|s| s == slot(*n))).count();
        assert!(found > 65_000, "{found} of 65,536 slots used");
    }

    #[test]
    fn a_table_is_more_than_half_full_before_it_grows() {
        let mut table = FingerprintTable::new(16 << 20);
        let mut least = f64::MAX;
        for n in 0..300_000 {
            let (len, bytes) = (table.len(), table.bytes());
            table.insert(slot(n), &|_| true);
            if table.bytes() > bytes {
                least = least.min((len * SLOT_BYTES) as f64 / bytes as f64);
            }
        }
        assert!(least > 0.6, "it grew at {least}");
    }

    #[test]
    fn slots_of_dead_packs_are_taken_again() {
        let mut table = FingerprintTable::new(1 << 14);
        (0..5_000).for_each(|n| table.insert(IndexSlot { pack: 1, ..slot(n) }, &|_| true));
        let live = |pack| pack == 2;
        (5_000..5_600).for_each(|n| table.insert(IndexSlot { pack: 2, ..slot(n) }, &live));
        let found = (5_000..5_600).filter(|n| table.find(slot(*n).fingerprint).next().is_some()).count();
        assert!(found > 560, "{found} of 600");
    }
}
