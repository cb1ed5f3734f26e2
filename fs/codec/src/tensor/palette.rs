//! Runs of few different elements: what was quantised once, and is stored as floats again.

/// The most elements of a palette: a byte has to do for their numbers.
const MOST: usize = 256;
/// Places of the table that elements are looked up in: four for each.
const PLACES: usize = 4 * MOST;

/// The elements of a run, each once, in the order of their bytes as a little-endian number, and the number of each element of the run
/// in that list. None where these are more than 256, or half of the run.
pub(super) fn palette(plain: &[u8], width: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let count = plain.len() / width.max(1);
    let most = MOST.min(count / 2);
    let mut seen = Seen { places: [(0, 0); PLACES], values: Vec::with_capacity(MOST) };
    let mut numbers = Vec::with_capacity(count);
    for element in plain.chunks_exact(width) {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(element);
        numbers.push(seen.number(u64::from_le_bytes(bytes), most)?);
    }
    let mut order: Vec<u8> = (0..=255).take(seen.values.len()).collect();
    order.sort_unstable_by_key(|number| seen.values[usize::from(*number)]);
    let mut rank = [0; MOST];
    (0..=255u8).zip(&order).for_each(|(new, old)| rank[usize::from(*old)] = new);
    numbers.iter_mut().for_each(|number| *number = rank[usize::from(*number)]);
    let values = order.iter().map(|number| seen.values[usize::from(*number)].to_le_bytes());
    Some((values.flat_map(|value| value.into_iter().take(width)).collect(), numbers))
}

/// Elements in the order in which they came first.
struct Seen {
    values: Vec<u64>,
    /// Where they are looked up: each with its number, and one more, so that 0 is nothing.
    places: [(u64, u16); PLACES],
}

impl Seen {
    /// An element's number; none where it is one more than there may be.
    fn number(&mut self, value: u64, most: usize) -> Option<u8> {
        // Fibonacci hashing (Knuth): the product's high bits depend on all of the value's.
        let mut place = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as usize;
        loop {
            match self.places[place] {
                (_, 0) if self.values.len() >= most => return None,
                (_, 0) => {
                    self.values.push(value);
                    self.places[place] = (value, self.values.len() as u16);
                    return Some((self.values.len() - 1) as u8);
                }
                (there, number) if there == value => return Some((number - 1) as u8),
                _ => place = (place + 1) % PLACES,
            }
        }
    }
}

/// Sets `plain` to the elements that `indices` name; false where one names none.
pub(super) fn look_up(values: &[u8], width: usize, indices: &[u8], plain: &mut [u8]) -> bool {
    plain.chunks_exact_mut(width).zip(indices).all(|(element, index)| {
        let value = values.chunks_exact(width).nth(usize::from(*index));
        value.inspect(|value| element.copy_from_slice(value)).is_some()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_palette_has_each_element_once_in_order_and_gives_the_run_back(
            values in prop::collection::vec(any::<u64>(), 1..300),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..2000),
            width in prop::sample::select(vec![2usize, 4, 8]),
        ) {
            let element = |i: &prop::sample::Index| values[i.index(values.len())].to_le_bytes()[..width].to_vec();
            let elements: Vec<Vec<u8>> = picks.iter().map(element).collect();
            let different: BTreeSet<Vec<u8>> =
                elements.iter().map(|element| element.iter().rev().copied().collect()).collect();
            let plain = elements.concat();
            let Some((values, numbers)) = palette(&plain, width) else {
                prop_assert!(different.len() > 256.min(elements.len() / 2));
                return Ok(());
            };
            prop_assert!(different.len() <= 256.min(elements.len() / 2));
            let expected: Vec<u8> =
                different.iter().flat_map(|element| element.iter().rev().copied().collect::<Vec<_>>()).collect();
            prop_assert_eq!(&values, &expected);
            let mut again = vec![0; plain.len()];
            prop_assert!(look_up(&values, width, &numbers, &mut again));
            prop_assert_eq!(again, plain);
        }
    }
}
