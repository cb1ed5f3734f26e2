//! How often each symbol comes, in 4096ths: what a stream's coder and decoder agree on.

/// Frequencies add up to 2 to this.
pub(super) const PRECISION: u32 = 12;
const TOTAL: u32 = 1 << PRECISION;
const BITMAP: usize = 256 / 8;

/// So many times in 4096 each byte comes. Two of them at least come; all that come do so once at least.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frequencies([u16; 256]);

impl Frequencies {
    /// Of a run of bytes that has each so often. None where there are fewer than two different ones.
    ///
    /// The rule is part of the format, so that all encoders write the same: each byte that comes gets its share of 4096, rounded
    /// down, and 1 at least. What is missing then to 4096 goes, one each, to those that were rounded down by most (of equals to
    /// the lower byte); what is too much is taken, one at a time, from the largest (of equals from the lower byte).
    pub(super) fn of(counts: &[u32; 256]) -> Option<Frequencies> {
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        if counts.iter().filter(|count| **count > 0).count() < 2 {
            return None;
        }
        let mut frequencies = [0u16; 256];
        let mut rests: Vec<(u64, u8)> = Vec::with_capacity(256);
        for (symbol, count) in (0..=255u8).zip(counts).filter(|(_, count)| **count > 0) {
            let share = u64::from(*count) * u64::from(TOTAL);
            frequencies[usize::from(symbol)] = (share / total).max(1) as u16;
            if share >= total {
                rests.push((share % total, symbol));
            }
        }
        let sum: u32 = frequencies.iter().map(|f| u32::from(*f)).sum();
        let missing = TOTAL.saturating_sub(sum) as usize;
        rests.sort_unstable_by_key(|(rest, symbol)| (std::cmp::Reverse(*rest), *symbol));
        for (_, symbol) in rests.iter().take(missing) {
            frequencies[usize::from(*symbol)] += 1;
        }
        for _ in TOTAL..sum {
            let mut largest = 0;
            for symbol in 1..256 {
                if frequencies[symbol] > frequencies[largest] {
                    largest = symbol;
                }
            }
            frequencies[largest] -= 1;
        }
        Some(Frequencies(frequencies))
    }

    pub(super) fn into_inner(self) -> [u16; 256] {
        self.0
    }

    pub(super) fn get(&self, symbol: u8) -> u32 {
        self.0[usize::from(symbol)].into()
    }

    /// Bytes that [`write`](Self::write) appends for frequencies of so many symbols.
    pub(super) fn len_with(symbols: usize) -> usize {
        BITMAP + (symbols * PRECISION as usize).div_ceil(8)
    }

    /// A bit for each byte that comes (bit `symbol % 8` of byte `symbol / 8`), then the frequencies of those, 12 bits each,
    /// the low bits first.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let mut bitmap = [0; BITMAP];
        let present = (0..256).filter(|symbol| self.0[*symbol] > 0);
        present.clone().for_each(|symbol| bitmap[symbol / 8] |= 1 << (symbol % 8));
        to.extend(bitmap);
        let values: Vec<u16> = present.map(|symbol| self.0[symbol]).collect();
        for pair in values.chunks(2) {
            let bits = u32::from(pair[0]) | u32::from(*pair.get(1).unwrap_or(&0)) << PRECISION;
            to.extend(&bits.to_le_bytes()[..Self::len_with(pair.len()) - BITMAP]);
        }
    }

    /// Reads what [`write`](Self::write) wrote off the front of `bytes`; none where that cannot be.
    pub(super) fn read(bytes: &mut &[u8]) -> Option<Frequencies> {
        let (bitmap, rest) = bytes.split_first_chunk::<BITMAP>()?;
        let present: Vec<usize> = (0..256).filter(|s| bitmap[s / 8] & (1 << (s % 8)) != 0).collect();
        let (packed, rest) = rest.split_at_checked(Self::len_with(present.len()) - BITMAP)?;
        let mut frequencies = [0u16; 256];
        for (pair, packed) in present.chunks(2).zip(packed.chunks(3)) {
            let mut bits = [0; 4];
            bits[..packed.len()].copy_from_slice(packed);
            let bits = u32::from_le_bytes(bits);
            for (i, symbol) in pair.iter().enumerate() {
                frequencies[*symbol] = (bits >> (i as u32 * PRECISION) & (TOTAL - 1)) as u16;
                if frequencies[*symbol] == 0 {
                    return None;
                }
            }
            // What no frequency fills is zeros, so that one table has one form.
            if bits >> (pair.len() as u32 * PRECISION) != 0 {
                return None;
            }
        }
        let sum: u32 = frequencies.iter().map(|f| u32::from(*f)).sum();
        *bytes = rest;
        (sum == TOTAL).then_some(Frequencies(frequencies))
    }

    /// What bytes of these counts take, in 65,536ths of a bit; none where one comes that has no frequency.
    pub(super) fn cost(&self, counts: &[u32; 256]) -> Option<u64> {
        counts.iter().zip(&self.0).try_fold(0, |sum, (count, frequency)| match (count, frequency) {
            (0, _) => Some(sum),
            (_, 0) => None,
            _ => Some(sum + u64::from(*count) * (log2(TOTAL) - log2((*frequency).into()))),
        })
    }
}

/// What bytes of these counts would take with frequencies that are just theirs, in 65,536ths of a bit.
pub(super) fn entropy(counts: &[u32; 256]) -> u64 {
    let total: u32 = counts.iter().sum();
    let own: u64 = counts.iter().filter(|count| **count > 0).map(|c| u64::from(*c) * log2(*c)).sum();
    (u64::from(total) * if total > 0 { log2(total) } else { 0 }).saturating_sub(own)
}

/// Binary logarithms of 1 + i / 256, in 65,536ths, rounded down.
static FRACTIONS: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        // A number in [1, 2), in 2^-31sts; it is squared for each bit, and halved where that makes it 2 or more.
        let mut number = (256 + i as u64) << 23;
        let (mut bit, mut log) = (1u32 << 15, 0u32);
        while bit > 0 {
            number = (number * number) >> 31;
            if number >= 1 << 32 {
                number >>= 1;
                log |= bit;
            }
            bit >>= 1;
        }
        table[i] = log as u16;
        i += 1;
    }
    table
};

/// The binary logarithm of a number that is not 0, in 65,536ths, of its first nine bits: what decides how something is coded has to be
/// the same everywhere.
fn log2(number: u32) -> u64 {
    let exponent = number.ilog2();
    let first = (u64::from(number) << 8 >> exponent) as usize & 0xff;
    u64::from(exponent) << 16 | u64::from(FRACTIONS[first])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts() -> impl Strategy<Value = [u32; 256]> {
        let few = prop::collection::vec((any::<u8>(), 1u32..1 << 20), 2..12);
        let many = prop::collection::vec((any::<u8>(), 1u32..40), 200..600);
        let skewed = (any::<u8>(), any::<u8>(), 1u32..4).prop_map(|(a, b, n)| vec![(a, 1 << 24), (b, n)]);
        prop_oneof![few, many, skewed].prop_map(|pairs| {
            let mut counts = [0; 256];
            pairs.into_iter().for_each(|(symbol, count)| counts[usize::from(symbol)] += count);
            counts
        })
    }

    proptest! {
        #[test]
        fn frequencies_add_up_and_leave_nobody_out(counts in counts()) {
            let Some(f) = Frequencies::of(&counts) else {
                prop_assert!(counts.iter().filter(|c| **c > 0).count() < 2);
                return Ok(());
            };
            prop_assert_eq!((0..=255).map(|s| f.get(s)).sum::<u32>(), TOTAL);
            for symbol in 0..=255u8 {
                prop_assert_eq!(f.get(symbol) > 0, counts[usize::from(symbol)] > 0);
                prop_assert!(f.get(symbol) < TOTAL);
            }
        }

        #[test]
        fn frequencies_are_read_as_they_were_written(counts in counts(), behind: Vec<u8>) {
            let Some(f) = Frequencies::of(&counts) else { return Ok(()) };
            let mut bytes = Vec::new();
            f.write(&mut bytes);
            let present = counts.iter().filter(|count| **count > 0).count();
            prop_assert_eq!(bytes.len(), Frequencies::len_with(present));
            bytes.extend(&behind);
            let mut rest = &bytes[..];
            prop_assert_eq!(Frequencies::read(&mut rest), Some(f));
            prop_assert_eq!(rest, &behind[..]);
        }

        #[test]
        fn what_is_read_has_one_form(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut rest = &bytes[..];
            if let Some(f) = Frequencies::read(&mut rest) {
                let mut again = Vec::new();
                f.write(&mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
            }
        }

        #[test]
        fn costs_are_near_what_theory_says(counts in counts()) {
            let Some(f) = Frequencies::of(&counts) else { return Ok(()) };
            let total: f64 = counts.iter().map(|c| f64::from(*c)).sum();
            let bits = |c: u32| if c > 0 { f64::from(c) * (total / f64::from(c)).log2() } else { 0.0 };
            let exact: f64 = counts.iter().map(|c| bits(*c)).sum();
            let near = |cost: u64| (cost as f64 / 65_536.0 - exact).abs() < total * 0.01 + 1.0;
            prop_assert!(near(entropy(&counts)), "{} for {exact}", entropy(&counts) as f64 / 65_536.0);
            // Rounding frequencies costs something, too; never wins.
            let cost = f.cost(&counts).expect("each has a frequency") as f64 / 65_536.0;
            prop_assert!(cost > exact - total * 0.01 - 1.0);
        }
    }
}
