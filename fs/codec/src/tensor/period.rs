//! Runs that repeat a pattern.

use cairn_format::PlanesHead;

/// The shortest pattern that `bytes` repeat, with nothing else behind it, if they do so at least twice.
pub(super) fn period(bytes: &[u8]) -> Option<&[u8]> {
    let longest = PlanesHead::LONGEST_PATTERN.min(bytes.len() / 2);
    // What repeats begins again with what it begins with.
    let start = bytes.first_chunk::<16>();
    (1..=longest)
        .filter(|period| start.is_none_or(|start| bytes[*period..].starts_with(start)))
        .find(|period| bytes[*period..] == bytes[..bytes.len() - period])
        .map(|period| &bytes[..period])
}

/// Fills `bytes` with it.
pub(super) fn repeat(pattern: &[u8], bytes: &mut [u8]) {
    bytes.chunks_mut(pattern.len().max(1)).for_each(|part| part.copy_from_slice(&pattern[..part.len()]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_repeats_is_found_by_its_shortest_pattern(
            pattern in prop::collection::vec(any::<u8>(), 1..300),
            len in 0usize..3000,
            flip in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = vec![0; len];
            repeat(&pattern, &mut bytes);
            if let Some(at) = flip.filter(|_| len > 0) {
                bytes[at.index(len)] ^= 1;
            }
            let naive = (1..=len / 2).find(|p| (*p..len).all(|i| bytes[i] == bytes[i - p]));
            let found = period(&bytes);
            prop_assert_eq!(found.map(<[u8]>::len), naive);
            if let Some(found) = found {
                let mut again = vec![0; len];
                repeat(found, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
