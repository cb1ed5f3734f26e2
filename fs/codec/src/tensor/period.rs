//! Runs that repeat a pattern.

use cairn_format::PlanesHead;

/// Bytes within which each pattern that is looked for comes twice.
const BOTH: usize = 2 * PlanesHead::LONGEST_PATTERN;

/// The shortest pattern that `bytes` repeat, with nothing else behind it, if they do so at least twice.
pub(super) fn period(bytes: &[u8]) -> Option<&[u8]> {
    let longest = PlanesHead::LONGEST_PATTERN.min(bytes.len() / 2);
    // What repeats begins again with what it begins with: of most runs nothing more is looked at.
    let begins_again = |start: &[u8; 16]| (1..=longest).any(|period| bytes[period..].starts_with(start));
    if bytes.len() > BOTH && !bytes.first_chunk().is_some_and(begins_again) {
        return None;
    }
    // A longer part that repeats a pattern, repeats one that this one's pattern repeats (Fine and Wilf), so it is this one's.
    let period = shortest(&bytes[..bytes.len().min(BOTH)]);
    (period <= longest && period > 0 && repeats(bytes, period) == bytes.len()).then(|| &bytes[..period])
}

/// How far `bytes` repeat their first `period` ones.
pub(super) fn repeats(bytes: &[u8], period: usize) -> usize {
    const STEP: usize = 4096;
    let (ahead, behind) = (bytes.get(period..).unwrap_or_default(), bytes);
    let pairs = ahead.chunks(STEP).zip(behind.chunks(STEP));
    let same = pairs.take_while(|(ahead, behind)| behind.starts_with(ahead)).count() * STEP;
    let same = same.min(ahead.len());
    let more = ahead[same..].iter().zip(&behind[same..]).take_while(|(a, b)| a == b).count();
    (period + same + more).min(bytes.len())
}

/// By how much bytes are to be moved to fit themselves (Knuth, Morris and Pratt): as many as they are where nothing else does.
fn shortest(bytes: &[u8]) -> usize {
    // For each beginning: how long the longest one is that it ends with, too.
    let mut ends: Vec<u16> = vec![0; bytes.len()];
    for at in 1..bytes.len() {
        let mut len = usize::from(ends[at - 1]);
        while len > 0 && bytes[at] != bytes[len] {
            len = usize::from(ends[len - 1]);
        }
        ends[at] = (len + usize::from(bytes[at] == bytes[len])) as u16;
    }
    bytes.len() - usize::from(ends.last().copied().unwrap_or(0))
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
            // Of few different bytes, too, so that patterns have patterns.
            pattern in prop_oneof![
                prop::collection::vec(any::<u8>(), 1..300),
                prop::collection::vec(0u8..2, 1..40),
                prop::collection::vec(0u8..2, 4000..4200),
            ],
            len in prop_oneof![0usize..40, 0usize..3000, 8000usize..20_000],
            flip in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = vec![0; len];
            repeat(&pattern, &mut bytes);
            if let Some(at) = flip.filter(|_| len > 0) {
                bytes[at.index(len)] ^= 1;
            }
            let naive = (1..=(len / 2).min(4096)).find(|p| (*p..len).all(|i| bytes[i] == bytes[i - p]));
            let found = period(&bytes);
            prop_assert_eq!(found.map(<[u8]>::len), naive);
            if let Some(found) = found {
                let mut again = vec![0; len];
                repeat(found, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn a_pattern_goes_on_up_to_what_is_not_in_it(
            pattern in prop::collection::vec(any::<u8>(), 1..300),
            len in 0usize..20_000,
            flip: prop::sample::Index,
        ) {
            let mut bytes = vec![0; len];
            repeat(&pattern, &mut bytes);
            prop_assert_eq!(repeats(&bytes, pattern.len()), len);
            if len > pattern.len() {
                let at = pattern.len() + flip.index(len - pattern.len());
                bytes[at] ^= 1;
                prop_assert_eq!(repeats(&bytes, pattern.len()), at);
            }
        }
    }
}
