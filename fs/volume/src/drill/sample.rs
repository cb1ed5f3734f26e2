//! Which packs are drilled with: some of each kind, of all ages.

use cairn_format::{PACK_HEADER_LEN, PackHeader, PackId, PackKind};
use cairn_store::disk::{Access, Disk};
use cairn_store::pack_path;

use super::dice::Dice;

/// Packs of one kind that are taken at most.
const MOST: u64 = 32;

/// A pack that may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) pack: PackId,
    pub(super) len: u64,
    pub(super) metadata: bool,
}

/// Whether a pack is one of metadata, as its first bytes say; where those are damaged it counts as one of data.
pub(super) fn is_metadata(store: &dyn Disk, pack: PackId) -> bool {
    let read = || {
        let mut bytes = vec![0; PACK_HEADER_LEN];
        store.open(&pack_path(&pack), Access::Read)?.read_exact_at(&mut bytes, 0).map(|()| bytes)
    };
    let header = read().ok().and_then(|bytes| PackHeader::decode(&bytes, &pack).ok());
    header.is_some_and(|header| header.kind == PackKind::Metadata)
}

/// Packs of no more than `most` bytes: a quarter of that of metadata, the rest of data, but at least one of each kind there is.
pub(super) fn choose(mut all: Vec<Candidate>, most: u64, dice: &mut Dice) -> Vec<Candidate> {
    // By the epoch of the mount that wrote them, and their number in it: the oldest first.
    all.sort_by_key(|candidate| (candidate.pack.0[8..].to_vec(), candidate.pack));
    let (metadata, data): (Vec<_>, Vec<_>) = all.into_iter().partition(|candidate| candidate.metadata);
    let mut chosen = spread(&metadata, most / 4, dice);
    let taken: u64 = chosen.iter().map(|candidate| candidate.len).sum();
    chosen.extend(spread(&data, most.saturating_sub(taken), dice));
    chosen
}

/// The largest that leaves room for others, since what is promised grows with a pack; then smaller ones of all ages.
fn spread(all: &[Candidate], most: u64, dice: &mut Dice) -> Vec<Candidate> {
    let total: u64 = all.iter().map(|candidate| candidate.len).sum();
    let fits = all.iter().filter(|candidate| candidate.len <= most / 2).max_by_key(|candidate| candidate.len);
    let Some(first) = fits.or_else(|| all.iter().min_by_key(|candidate| candidate.len)) else {
        return Vec::new();
    };
    let mut chosen = vec![*first];
    let mut left = most.saturating_sub(first.len);
    let mean = (total / all.len() as u64).max(1);
    let ages = (most / mean).clamp(1, MOST).min(all.len() as u64) as usize;
    let of_age = |age: u64| &all[age as usize * all.len() / ages..(age as usize + 1) * all.len() / ages];
    // In any order: where the room ends, no age is to be left out for being the last.
    for age in dice.shuffled(ages as u64) {
        let fitting: Vec<_> =
            of_age(age).iter().filter(|c| c.len <= left && !chosen.contains(c)).copied().collect();
        if let Some(next) = fitting.get(dice.below(fitting.len() as u64) as usize) {
            left -= next.len;
            chosen.push(*next);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs(count: u32, len: impl Fn(u32) -> u64, metadata: bool) -> Vec<Candidate> {
        let session = u64::from(metadata) + 7;
        (0..count).map(|n| Candidate { pack: PackId::new(session, 1, n), len: len(n), metadata }).collect()
    }

    #[test]
    fn a_sample_has_both_kinds_and_all_ages_and_no_more_bytes_than_it_may() {
        let mut all = packs(400, |n| 1_000 + u64::from(n % 7) * 500, false);
        all.extend(packs(40, |_| 700, true));
        for seed in 0..50 {
            let chosen = choose(all.clone(), 60_000, &mut Dice::new(seed));
            assert!(chosen.iter().map(|c| c.len).sum::<u64>() <= 60_000);
            let numbers = |metadata: bool| -> Vec<u32> {
                let of_kind = chosen.iter().filter(|c| c.metadata == metadata);
                of_kind.map(|c| u32::from_be_bytes(c.pack.0[12..].try_into().unwrap())).collect()
            };
            for (numbers, count) in [(numbers(false), 400), (numbers(true), 40)] {
                for quarter in 0..4 {
                    let range = quarter * count / 4..(quarter + 1) * count / 4;
                    assert!(numbers.iter().any(|n| range.contains(n)), "seed {seed}: none of {range:?}");
                }
            }
            let mut different: Vec<_> = chosen.iter().map(|c| c.pack).collect();
            different.sort();
            different.dedup();
            assert_eq!(different.len(), chosen.len());
        }
    }

    #[test]
    fn there_is_one_of_each_kind_however_little_is_asked_for() {
        let mut all = packs(3, |_| 1 << 20, false);
        all.extend(packs(2, |n| 9_000 + u64::from(n), true));
        let chosen = choose(all, 1, &mut Dice::new(1));
        assert_eq!(
            chosen.iter().map(|c| (c.metadata, c.len)).collect::<Vec<_>>(),
            [(true, 9_000), (false, 1 << 20)]
        );
        assert_eq!(choose(Vec::new(), 1 << 30, &mut Dice::new(1)), []);
    }
}
