//! Runs of few different elements: what was quantised once, and is stored as floats again.

use std::collections::HashMap;

/// The most elements of a palette: a byte has to do for their numbers.
const MOST: usize = 256;

/// The elements of a run, each once, in the order of their bytes as a little-endian number, and the number of each element of the run
/// in that list. None where these are more than 256, or half of the run.
pub(super) fn palette(plain: &[u8], width: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let count = plain.len() / width.max(1);
    let value = |element: &[u8]| {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(element);
        u64::from_le_bytes(bytes)
    };
    let mut numbers: HashMap<u64, u8> = HashMap::new();
    let most = MOST.min(count / 2);
    for element in plain.chunks_exact(width) {
        numbers.entry(value(element)).or_insert(0);
        if numbers.len() > most {
            return None;
        }
    }
    let mut values: Vec<u64> = numbers.keys().copied().collect();
    values.sort_unstable();
    (0..=255u8).zip(&values).for_each(|(number, value)| {
        numbers.insert(*value, number);
    });
    let indices = plain.chunks_exact(width).map(|element| numbers[&value(element)]).collect();
    Some((values.iter().flat_map(|value| value.to_le_bytes()[..width].to_vec()).collect(), indices))
}

/// Sets `plain` to the elements that `indices` name; false where one names none.
pub(super) fn look_up(values: &[u8], width: usize, indices: &[u8], plain: &mut [u8]) -> bool {
    plain.chunks_exact_mut(width).zip(indices).all(|(element, index)| {
        let value = values.chunks_exact(width).nth(usize::from(*index));
        value.inspect(|value| element.copy_from_slice(value)).is_some()
    })
}
