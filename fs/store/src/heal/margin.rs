//! How near damage was to what parity does not reach.

use std::ops::Range;

use cairn_format::{PackLayout, ParityGeometry, SECTOR, Stripe};

use super::Examined;

/// How much of a pack's parity its damage takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Margin {
    /// The parity it carries.
    pub parity: ParityGeometry,
    /// Units that are damaged in the column where most of them are; more than there are units of parity: something of it does
    /// not come back.
    pub used: u16,
}

impl Examined {
    /// How much of the pack's parity its damage takes; none where it has no parity.
    pub fn margin(&self) -> Option<Margin> {
        let stripe = self.layout.stripe()?;
        let used = deepest(self.damaged.iter().flat_map(|range| within_units(&self.layout, &stripe, range)));
        Some(Margin { parity: self.layout.parity, used })
    }

    /// Sectors of 4 KiB that something is wrong with.
    pub fn damaged_sectors(&self) -> u64 {
        sectors(&self.damaged)
    }
}

/// The sectors that ranges, in ascending order, lie in.
pub fn sectors(ranges: &[Range<u64>]) -> u64 {
    let mut next = 0;
    let mut count = 0;
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        let (first, end) = ((range.start / SECTOR).max(next), range.end.div_ceil(SECTOR));
        count += end.saturating_sub(first);
        next = next.max(end);
    }
    count
}

/// What of a range lies in which columns, unit by unit.
fn within_units(
    layout: &PackLayout,
    stripe: &Stripe,
    range: &Range<u64>,
) -> impl Iterator<Item = Range<u64>> + use<> {
    let data = (0, 0..stripe.covered());
    let parity = layout.parity_unit(0).start;
    let parity = (parity, parity..parity + stripe.parity_len());
    let (unit, range) = (stripe.unit(), range.clone());
    [data, parity].into_iter().flat_map(move |(origin, area)| {
        let (start, end) = (range.start.max(area.start), range.end.min(area.end));
        let mut at = start.max(origin) - origin;
        let end = end.max(origin) - origin;
        std::iter::from_fn(move || {
            let stop = end.min((at / unit + 1) * unit);
            let part = (at < stop).then(|| at % unit..at % unit + (stop - at))?;
            at = stop;
            Some(part)
        })
    })
}

/// How many of some ranges meet where most of them do.
fn deepest(ranges: impl Iterator<Item = Range<u64>>) -> u16 {
    let mut edges: Vec<(u64, i32)> = ranges.flat_map(|range| [(range.start, 1), (range.end, -1)]).collect();
    // Where one ends another may begin: they do not meet.
    edges.sort_unstable();
    let (mut depth, mut most) = (0, 0);
    for (_, change) in edges {
        depth += change;
        most = most.max(depth);
    }
    u16::try_from(most).unwrap_or(u16::MAX)
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges")]
mod tests {
    use super::*;
    use cairn_format::PackId;
    use proptest::prelude::*;

    fn examined(parity: ParityGeometry, footer_offset: u64, damaged: Vec<Range<u64>>) -> Examined {
        let layout = PackLayout { footer_offset, footer_len: 333, parity };
        Examined {
            pack: PackId::new(1, 1, 1),
            place: crate::Place::Pack,
            layout,
            checked: 0,
            damaged,
            wrong_len: None,
            missing: false,
        }
    }

    #[test]
    fn a_sector_counts_once_however_many_ranges_lie_in_it() {
        assert_eq!(sectors(&[0..1, 5..10, 4000..4100, 8192..8193]), 3);
        assert_eq!(sectors(&[4095..4097]), 2);
        assert_eq!(sectors(&[]), 0);
    }

    #[test]
    fn what_lies_in_one_unit_takes_one_and_what_meets_takes_more() {
        let parity = ParityGeometry::new(4, 2);
        let stripe = examined(parity, 1 << 20, vec![]).layout.stripe().unwrap();
        let unit = stripe.unit();
        let used = |damaged| examined(parity, 1 << 20, damaged).margin().unwrap().used;
        assert_eq!(used(vec![]), 0);
        assert_eq!(used(vec![0..4096, 8192..12288]), 1);
        assert_eq!(used(vec![0..4096, unit..unit + 4096]), 2);
        assert_eq!(used(vec![0..4096, unit + 4096..unit + 8192]), 1);
        let first = examined(parity, 1 << 20, vec![]).layout.parity_unit(0).start;
        assert_eq!(used(vec![0..64, unit..unit + 64, first..first + 64]), 3);
        assert_eq!(examined(ParityGeometry::default(), 1 << 20, vec![0..9]).margin(), None);
    }

    proptest! {
        #[test]
        fn as_many_units_are_taken_as_counting_byte_by_byte_finds(
            data in 1u8..5, units in 1u8..4, len in 256u64..40_000, starts in prop::collection::vec(0u64..60_000, 0..12)
        ) {
            let mut damaged: Vec<_> = starts.iter().map(|at| at / 512 * 512..at / 512 * 512 + 512).collect();
            damaged.sort_by_key(|range| range.start);
            damaged.dedup();
            let examined = examined(ParityGeometry::new(data, units), len, damaged.clone());
            let (layout, stripe) = (examined.layout, examined.layout.stripe().unwrap());
            let all: Vec<_> = (0..data as usize).map(|n| stripe.data_unit(n)).chain((0..units as usize).map(|n| layout.parity_unit(n))).collect();
            let is_damaged = |at: u64| damaged.iter().any(|range| range.contains(&at));
            let depth = |column: u64| all.iter().filter(|unit| unit.start + column < unit.end && is_damaged(unit.start + column)).count();
            let most = (0..stripe.unit()).step_by(64).map(depth).max().unwrap_or(0);
            prop_assert_eq!(usize::from(examined.margin().unwrap().used), most);
        }
    }
}
