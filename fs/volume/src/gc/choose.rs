//! Which packs are compacted, and how many at a time.

use cairn_format::PackSummary;

use super::GcOptions;
use super::survey::Census;

/// A pack under this part of the usual length is small.
const SMALL: u64 = 4;
/// Chunks of packs that are compacted together, at most: their new places are remembered, 16 bytes each.
const GROUP_CHUNKS: u64 = 1 << 20;
/// Live bytes of such packs, at most: so much is written before any is freed.
const GROUP_BYTES: u64 = 1 << 30;

/// Whether a pack is so small that it is worth making one of several.
pub(super) fn is_small(pack: &PackSummary, pack_size: u64, plain_limit: u64) -> bool {
    small(pack.file_len.saturating_sub(pack.spare_len), pack.plain_len, pack_size, plain_limit)
}

/// What compresses well fills no pack: it is sealed for its plain bytes, and is not small for that. What protects it does
/// not make it larger.
fn small(own_len: u64, plain_len: u64, pack_size: u64, plain_limit: u64) -> bool {
    own_len < pack_size / SMALL && plain_len < plain_limit / SMALL
}

/// Packs to be compacted, those with the least to move last.
#[derive(Debug)]
pub(super) struct Victims(Vec<Census>);

/// Picks what is worth it. Packs of which nothing is live die by themselves.
pub(super) fn victims(
    mut census: Vec<Census>,
    options: &GcOptions,
    pack_size: u64,
    plain_limit: u64,
) -> Victims {
    census.retain(|pack| pack.live > 0);
    let dead = |pack: &Census| {
        u128::from(pack.live) * 100 < u128::from(pack.file_len) * u128::from(options.threshold)
    };
    let (mut chosen, rest): (Vec<_>, Vec<_>) = census.into_iter().partition(dead);
    let small: Vec<_> =
        rest.into_iter().filter(|p| small(p.own_len, p.plain_len, pack_size, plain_limit)).collect();
    // What is written anew anyhow takes small ones with it.
    let many = small.len() + chosen.len().min(1);
    if options.merge_small > 0 && many >= options.merge_small.max(2) {
        chosen.extend(small);
    }
    // The largest share last: what is freed first makes room for the others.
    let share = |pack: &Census| u128::from(pack.live) * 1_000_000 / u128::from(pack.file_len.max(1));
    chosen.sort_unstable_by_key(|pack| (std::cmp::Reverse(share(pack)), pack.pack));
    Victims(chosen)
}

impl Victims {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Live bytes of all of them.
    pub(super) fn live(&self) -> u64 {
        self.0.iter().map(|pack| pack.live).sum()
    }

    /// Takes the next that can be compacted together where there are `room` bytes; none where no pack fits.
    pub(super) fn next_group(&mut self, room: u64) -> Vec<Census> {
        let mut group = Vec::new();
        let (mut bytes, mut chunks) = (0, 0);
        // From the end: the one with the least to move comes first.
        let mut at = self.0.len();
        while at > 0 {
            at -= 1;
            let pack = self.0[at];
            let (with, of) = (bytes + takes(&pack), chunks + u64::from(pack.chunks));
            let beyond = with > GROUP_BYTES || of > GROUP_CHUNKS;
            if with > room || (beyond && !group.is_empty()) {
                continue;
            }
            (bytes, chunks) = (with, of);
            group.push(self.0.remove(at));
        }
        group
    }
}

/// Bytes that what is live of a pack may take anew: frames are cut otherwise, and its checkpoint needs some.
fn takes(pack: &Census) -> u64 {
    pack.live + pack.live / 16 + (64 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_format::PackId;
    use proptest::prelude::*;

    const SIZE: u64 = 64 << 20;
    const PLAIN: u64 = 128 << 20;

    fn pack(n: u32, file_len: u64, live: u64) -> Census {
        let (own_len, plain_len) = (file_len * 7 / 8, file_len * 2);
        Census { pack: PackId::new(1, 1, n), file_len, own_len, plain_len, live, chunks: 1000 }
    }

    fn numbers(mut victims: Victims, room: u64) -> Vec<u32> {
        let group = victims.next_group(room);
        group
            .iter()
            .map(|p| u32::from_be_bytes([p.pack.0[12], p.pack.0[13], p.pack.0[14], p.pack.0[15]]))
            .collect()
    }

    #[test]
    fn packs_under_the_threshold_go_the_deadest_first() {
        let census =
            vec![pack(1, SIZE, SIZE / 2), pack(2, SIZE, SIZE), pack(3, SIZE, SIZE / 4), pack(4, SIZE, 0)];
        let chosen = victims(census, &GcOptions::default(), SIZE, PLAIN);
        assert_eq!(chosen.live(), SIZE / 2 + SIZE / 4);
        assert_eq!(numbers(chosen, 1 << 40), [3, 1]);
    }

    #[test]
    fn one_small_pack_alone_is_left_alone() {
        let small = pack(1, 1 << 20, 1 << 20);
        let options = GcOptions::default();
        assert!(victims(vec![small, pack(2, SIZE, SIZE)], &options, SIZE, PLAIN).is_empty());
        let two = vec![small, pack(2, 1 << 20, 1 << 20)];
        assert_eq!(victims(two.clone(), &options, SIZE, PLAIN).0.len(), 2);
        assert!(
            victims(two.clone(), &GcOptions { merge_small: 0, ..options.clone() }, SIZE, PLAIN).is_empty()
        );
        assert!(victims(two, &GcOptions { merge_small: 3, ..options }, SIZE, PLAIN).is_empty());
    }

    #[test]
    fn a_pack_that_is_full_of_what_compresses_well_is_not_small() {
        let full = |n| Census { plain_len: PLAIN, ..pack(n, 4 << 20, 4 << 20) };
        assert!(victims(vec![full(1), full(2)], &GcOptions::default(), SIZE, PLAIN).is_empty());
    }

    #[test]
    fn where_room_is_scarce_what_fits_goes_first() {
        let census = vec![pack(1, SIZE, SIZE / 4), pack(2, SIZE, SIZE / 2), pack(3, 8 << 20, 5 << 20)];
        let mut chosen = victims(census, &GcOptions::default(), SIZE, PLAIN);
        let group = chosen.next_group(8 << 20);
        assert_eq!(group.iter().map(|p| p.live).collect::<Vec<_>>(), [5 << 20]);
        assert!(chosen.next_group(8 << 20).is_empty() && !chosen.is_empty());
        assert_eq!(chosen.next_group(SIZE).len(), 2);
    }

    proptest! {
        #[test]
        fn what_is_left_is_within_the_threshold_and_groups_hold_each_victim_once(
            packs in prop::collection::vec((1u64..64 << 20, 0u8..=100), 0..60),
            threshold in 1u8..=100,
            room in 64u64 << 20..1 << 32,
        ) {
            let census: Vec<_> = packs.iter().zip(0..).map(|((len, live), n)| pack(n, *len, len * u64::from(*live) / 100)).collect();
            let options = GcOptions { threshold, ..GcOptions::default() };
            let mut chosen = victims(census.clone(), &options, SIZE, PLAIN);
            let names: Vec<_> = chosen.0.iter().map(|p| p.pack).collect();
            for pack in census.iter().filter(|p| p.live > 0 && !names.contains(&p.pack)) {
                prop_assert!(pack.live * 100 >= pack.file_len * u64::from(threshold));
            }
            let mut seen = Vec::new();
            while !chosen.is_empty() {
                let group = chosen.next_group(room);
                if group.is_empty() {
                    break;
                }
                prop_assert!(group.iter().map(takes).sum::<u64>() <= room);
                seen.extend(group.iter().map(|p| p.pack));
            }
            seen.extend(chosen.0.iter().map(|p| p.pack));
            seen.sort();
            let mut names = names;
            names.sort();
            prop_assert_eq!(seen, names);
        }
    }
}
