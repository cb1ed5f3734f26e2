//! Elements taken apart into planes: all their lowest bytes, then all their second ones, and so on.
//!
//! Floats whose exponent lies across two bytes are turned left by one bit before that, so that the last plane is the exponent,
//! and the sign is the lowest bit: [`Element::Bfloat`], [`Element::Single`], [`Element::Double`] (of which that is the upper 8
//! of 11 bits). Of groups of quantised weights each field of several bytes is a plane, in the order of groups.

use cairn_format::Element;

use super::kernel::Kernel;

macro_rules! planes_of {
    ($int:ty, $split:ident, $join:ident) => {
        #[inline(always)]
        fn $split(plain: &[u8], planes: &mut [u8], turn: u32) {
            const WIDTH: usize = size_of::<$int>();
            let elements = plain.as_chunks::<WIDTH>().0;
            for (number, plane) in planes.chunks_exact_mut(elements.len().max(1)).enumerate() {
                for (byte, element) in plane.iter_mut().zip(elements) {
                    *byte = (<$int>::from_le_bytes(*element).rotate_left(turn) >> (8 * number)) as u8;
                }
            }
        }

        #[inline(always)]
        fn $join(planes: &[u8], plain: &mut [u8], turn: u32) {
            const WIDTH: usize = size_of::<$int>();
            let elements = plain.as_chunks_mut::<WIDTH>().0;
            let count = elements.len();
            let planes: [&[u8]; WIDTH] = std::array::from_fn(|number| &planes[number * count..][..count]);
            for (i, element) in elements.iter_mut().enumerate() {
                let bytes: [u8; WIDTH] = std::array::from_fn(|number| planes[number][i]);
                *element = <$int>::from_le_bytes(bytes).rotate_right(turn).to_le_bytes();
            }
        }
    };
}

planes_of!(u16, split_2, join_2);
planes_of!(u32, split_4, join_4);
planes_of!(u64, split_8, join_8);

#[inline(always)]
fn split_group(element: Element, plain: &[u8], mut planes: &mut [u8]) {
    let groups = plain.len() / element.width();
    let mut at = 0;
    for field in element.fields() {
        let Some(plane) = planes.split_off_mut(..groups * field) else { return };
        for (to, group) in plane.chunks_exact_mut(*field).zip(plain.chunks_exact(element.width())) {
            to.copy_from_slice(&group[at..at + field]);
        }
        at += field;
    }
}

#[inline(always)]
fn join_group(element: Element, mut planes: &[u8], plain: &mut [u8]) {
    let groups = plain.len() / element.width();
    let mut at = 0;
    for field in element.fields() {
        let Some(plane) = planes.split_off(..groups * field) else { return };
        for (from, group) in plane.chunks_exact(*field).zip(plain.chunks_exact_mut(element.width())) {
            group[at..at + field].copy_from_slice(from);
        }
        at += field;
    }
}

/// Sets `planes`, as long as `plain`, to the planes of `plain`, whole elements, one behind the other.
pub(super) fn split(kernel: Kernel, element: Element, plain: &[u8], planes: &mut [u8]) {
    debug_assert!(plain.len() == planes.len() && plain.len().is_multiple_of(element.width()));
    kernel.with_its_vectors(
        #[inline(always)]
        || match element {
            Element::Byte => planes.copy_from_slice(plain),
            Element::Short | Element::Half => split_2(plain, planes, 0),
            Element::Bfloat => split_2(plain, planes, 1),
            Element::Single => split_4(plain, planes, 1),
            Element::Word => split_4(plain, planes, 0),
            Element::Double => split_8(plain, planes, 1),
            Element::Long => split_8(plain, planes, 0),
            group => split_group(group, plain, planes),
        },
    );
}

/// The reverse.
pub(super) fn join(kernel: Kernel, element: Element, planes: &[u8], plain: &mut [u8]) {
    debug_assert!(plain.len() == planes.len() && plain.len().is_multiple_of(element.width()));
    kernel.with_its_vectors(
        #[inline(always)]
        || match element {
            Element::Byte => plain.copy_from_slice(planes),
            Element::Short | Element::Half => join_2(planes, plain, 0),
            Element::Bfloat => join_2(planes, plain, 1),
            Element::Single => join_4(planes, plain, 1),
            Element::Word => join_4(planes, plain, 0),
            Element::Double => join_8(planes, plain, 1),
            Element::Long => join_8(planes, plain, 0),
            group => join_group(group, planes, plain),
        },
    );
}

/// How often bytes come. Several tables, so that a byte that comes again at once does not wait for its own count.
pub(super) struct Counts([[u32; 256]; 8]);

impl Counts {
    pub(super) fn new() -> Counts {
        Counts([[0; 256]; 8])
    }

    /// Adds those of some more.
    #[inline]
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let word = u64::from_le_bytes(*word);
            for i in 0..8 {
                self.0[i][(word >> (8 * i)) as usize & 0xff] += 1;
            }
        }
        rest.iter().for_each(|byte| self.0[0][usize::from(*byte)] += 1);
    }

    pub(super) fn sum(&self) -> [u32; 256] {
        std::array::from_fn(|byte| self.0.iter().map(|table| table[byte]).sum())
    }
}

/// Bytes that all lie in a window of 32 from `least` on: there are so few pairs of them that each pair is counted as one.
pub(super) struct Narrow<'p> {
    bytes: &'p [u8],
    least: u8,
}

/// Log2 of the window's width.
const WINDOW: u32 = 5;

impl<'p> Narrow<'p> {
    /// These bytes, if they are such.
    pub(super) fn of(bytes: &'p [u8]) -> Option<Narrow<'p>> {
        let is_narrow = |(least, most): (u8, u8)| (most - least < 1 << WINDOW).then_some(least);
        // Most of those that are not are known by their first.
        let first = &bytes[..bytes.len().min(256)];
        first.first().and_then(|_| is_narrow(ends(first)))?;
        is_narrow(ends(bytes)).map(|least| Narrow { bytes, least })
    }

    /// How often each comes.
    pub(super) fn count(&self) -> [u32; 256] {
        let mut counts = [0; 256];
        let least = u64::from_le_bytes([self.least; 8]);
        // No counter comes to 2^16: it counts one pair of four in so many.
        for part in self.bytes.chunks(256 << 10) {
            let mut pairs = [[0u16; 1 << (2 * WINDOW)]; 4];
            let (words, rest) = part.as_chunks::<8>();
            for word in words {
                // No byte is less than the least: none borrows of the next.
                let word = u64::from_le_bytes(*word) - least;
                let word = word & 0x001f_001f_001f_001f | word >> (8 - WINDOW) & 0x03e0_03e0_03e0_03e0;
                for (i, pairs) in pairs.iter_mut().enumerate() {
                    pairs[(word >> (16 * i)) as usize & ((1 << (2 * WINDOW)) - 1)] += 1;
                }
            }
            rest.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
            let pairs: [u32; 1 << (2 * WINDOW)] =
                std::array::from_fn(|pair| pairs.iter().map(|table| u32::from(table[pair])).sum());
            for (second, row) in pairs.as_chunks::<{ 1 << WINDOW }>().0.iter().enumerate() {
                let to = &mut counts[usize::from(self.least)..];
                to.iter_mut().zip(row).for_each(|(count, pairs)| *count += pairs);
                if let Some(count) = to.get_mut(second) {
                    *count += row.iter().sum::<u32>();
                }
            }
        }
        counts
    }
}

/// The least and the most of some bytes.
fn ends(bytes: &[u8]) -> (u8, u8) {
    bytes.iter().fold((255, 0), |(least, most), byte| (least.min(*byte), most.max(*byte)))
}

/// How often each byte comes.
pub(super) fn count(bytes: &[u8]) -> [u32; 256] {
    let mut counts = Counts::new();
    counts.add(bytes);
    counts.sum()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn elements() -> impl Strategy<Value = Element> {
        prop::sample::select(Element::all().collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn planes_are_joined_to_what_they_were_split_from(bytes in prop::collection::vec(any::<u8>(), 0..700), element in elements()) {
            let plain = &bytes[..bytes.len() / element.width() * element.width()];
            let expected = {
                let mut planes = vec![0; plain.len()];
                split(Kernel::PORTABLE, element, plain, &mut planes);
                planes
            };
            for kernel in Kernel::available() {
                let mut planes = vec![0xa5; plain.len()];
                split(kernel, element, plain, &mut planes);
                prop_assert_eq!(&planes, &expected);
                let mut joined = vec![0xa5; plain.len()];
                join(kernel, element, &planes, &mut joined);
                prop_assert_eq!(&joined[..], plain);
            }
        }

        #[test]
        fn every_byte_counts(bytes: Vec<u8>) {
            let counts = count(&bytes);
            for byte in 0..=255u8 {
                let there = bytes.iter().filter(|other| **other == byte).count() as u32;
                prop_assert_eq!(counts[usize::from(byte)], there);
            }
        }

        #[test]
        fn pairs_of_few_bytes_are_counted_as_bytes_are(
            few in prop::collection::vec(0u8..33, 0..2000),
            least: u8,
            outside in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut bytes: Vec<u8> = few.iter().map(|byte| byte.saturating_add(least)).collect();
            if let (Some((at, byte)), false) = (outside, bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let (min, max) = (bytes.iter().min(), bytes.iter().max());
            let is_narrow = min.zip(max).is_none_or(|(min, max)| max - min < 32);
            let narrow = Narrow::of(&bytes);
            prop_assert_eq!(narrow.is_some(), is_narrow && !bytes.is_empty());
            if let Some(narrow) = narrow {
                prop_assert_eq!(narrow.count(), count(&bytes));
            }
        }
    }

    #[test]
    fn the_last_plane_of_floats_is_their_exponent() {
        let numbers = [1.0f32, -1.0, 0.5, -3.0e38];
        let plain: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut planes = vec![0; 16];
        split(Kernel::best(), Element::Single, &plain, &mut planes);
        assert_eq!(planes[12..], numbers.map(|x| (x.to_bits() >> 23) as u8));
        // The lowest bit of the lowest plane is the sign.
        assert_eq!([0, 1, 0, 1], std::array::from_fn(|i| planes[i] & 1));
    }
}
