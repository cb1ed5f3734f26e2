//! Streams of symbols in a fraction of a byte each: range variants of asymmetric numeral systems (J. Duda, "Asymmetric numeral
//! systems", arXiv:1311.2540; interleaved as in F. Giesen, "Interleaved entropy coders", arXiv:1402.3392).
//!
//! There are 32 lanes, each with a state x in [2^15, 2^31). With f of 4096 the frequency of a symbol and s the sum of those
//! of the symbols before it, coding the symbol makes x into (x / f) * 4096 + s + x mod f; before that, where x >= f * 2^19, its
//! low 16 bits are written out and x is shifted by 16. Decoding is the reverse: the symbol is the one whose frequencies hold x mod 4096, x
//! becomes f * (x / 4096) + x mod 4096 - s, and where that is less than 2^15 16 bits are read into it from below.
//!
//! Symbol number 128 * g + 4 * lane + k is lane's. Decoding goes up by g, then k, then lane, so that each lane gives
//! whole words of four; where symbols end within a group of 128 those that are not there are left out. Encoding goes down. Several runs of
//! symbols, each with frequencies of its own, follow each other in one stream, since a stream's states take 128 bytes: it is
//! the 32 states (u32, little-endian) that encoding ended with, which began as 2^15 each, and the words of 16 bits in the order
//! in which decoding takes them.
//!
//! Architecture Invariant: every kernel writes and reads the same bytes, and no stream makes one read or write outside of what it
//! was given.

#[cfg(target_arch = "x86_64")]
mod x86;

use super::Malformed;
use super::frequencies::{Frequencies, PRECISION};
use super::kernel::{Kernel, Kind};

const LANES: usize = 32;
/// Symbols of a group: each lane's four.
const GROUP: usize = 4 * LANES;
/// States are this at least, and less than 2^16 times it.
const LOW: u32 = 1 << 15;
/// Bytes of a stream before its words.
pub(super) const STATES_LEN: usize = 4 * LANES;

/// Frequencies as a coder uses them.
pub(super) struct Coder {
    /// For each symbol what x is multiplied with to be divided by f, and [`Step`]'s fields.
    symbols: Box<[[u32; 2]; 256]>,
}

/// What coding one symbol takes.
#[derive(Clone, Copy)]
struct Step {
    reciprocal: u32,
    /// f.
    frequency: u32,
    /// What is added to x + (x / f) * (4096 - f).
    bias: u32,
    shift: u32,
}

impl Step {
    const BIAS_AT: u32 = 12;
    const SHIFT_AT: u32 = 25;

    /// Division by f is a multiplication with 2^(31 + b) / f, rounded up, where 2^b is the first power of 2 that is not less than
    /// f: that is too much by less than f / 2^(31 + b), times x < f * 2^19 less than 1 / f, and so exact. For f = 1 the
    /// product is x - 1, and the bias makes up for it.
    fn new(frequency: u32, start: u32) -> Step {
        if frequency <= 1 {
            return Step { reciprocal: u32::MAX, frequency, bias: start + (1 << PRECISION) - 1, shift: 0 };
        }
        let power = frequency.next_power_of_two().ilog2();
        let reciprocal = (1u64 << (31 + power)).div_ceil(frequency.into()) as u32;
        Step { reciprocal, frequency, bias: start, shift: power - 1 }
    }

    fn pack(self) -> [u32; 2] {
        [self.reciprocal, self.frequency | self.bias << Self::BIAS_AT | self.shift << Self::SHIFT_AT]
    }

    fn unpack([reciprocal, fields]: [u32; 2]) -> Step {
        Step {
            reciprocal,
            frequency: fields & 0xfff,
            bias: fields >> Self::BIAS_AT & 0x1fff,
            shift: fields >> Self::SHIFT_AT,
        }
    }

    #[inline(always)]
    fn apply(self, x: u32) -> u32 {
        let product = u64::from(x) * u64::from(self.reciprocal);
        let quotient = (product >> 32) as u32 >> self.shift;
        x + self.bias + quotient * ((1 << PRECISION) - self.frequency)
    }
}

impl Coder {
    pub(super) fn new(frequencies: &Frequencies) -> Coder {
        let mut symbols = Box::new([[0; 2]; 256]);
        let mut start = 0;
        for (symbol, step) in (0..=255).zip(symbols.iter_mut()) {
            let frequency = frequencies.get(symbol);
            *step = Step::new(frequency, start).pack();
            start += frequency;
        }
        Coder { symbols }
    }

    /// What each symbol takes.
    pub(super) fn steps(&self) -> &[[u32; 2]; 256] {
        &self.symbols
    }

    pub(super) fn into_steps(self) -> Box<[[u32; 2]; 256]> {
        self.symbols
    }

    /// The first of `width` symbols that follow each other and are coded most often, unless `others` of 4096 are coded by others, or more.
    #[cfg(target_arch = "x86_64")]
    fn nearest(&self, width: usize, others: u32) -> Option<usize> {
        let frequency = |symbol: usize| Step::unpack(self.symbols[symbol]).frequency;
        let (mut sum, mut most) = (0, (0, 0));
        for symbol in 0..self.symbols.len() {
            sum += frequency(symbol);
            if symbol >= width {
                sum -= frequency(symbol - width);
            }
            most = most.max((sum, (symbol + 1).saturating_sub(width)));
        }
        (most.0 + others > 1 << PRECISION).then_some(most.1)
    }

    fn encode_groups(
        &self,
        symbols: &[u8],
        states: &mut [u32; LANES],
        words: &mut [u16],
        mut at: usize,
    ) -> usize {
        for group in symbols.as_chunks::<GROUP>().0.iter().rev() {
            for k in (0..4).rev() {
                for lane in (0..LANES).rev() {
                    at = self.encode_one(group[4 * lane + k], &mut states[lane], words, at);
                }
            }
        }
        at
    }

    #[inline(always)]
    fn encode_one(&self, symbol: u8, state: &mut u32, words: &mut [u16], at: usize) -> usize {
        let step = Step::unpack(self.symbols[usize::from(symbol)]);
        let full = *state >= step.frequency << 19;
        // Written in any case, and kept where it counts: which it is cannot be foretold.
        let next = at - 1;
        words[next] = *state as u16;
        let x = if full { *state >> 16 } else { *state };
        *state = step.apply(x);
        if full { next } else { at }
    }
}

/// A stream that is being made, from its end.
pub(super) struct Writer<'w> {
    kernel: Kernel,
    states: [u32; LANES],
    words: &'w mut [u16],
    /// Where the first of the words is that were written.
    at: usize,
}

impl<'w> Writer<'w> {
    /// One of `symbols` symbols at most.
    pub(super) fn new(kernel: Kernel, scratch: &'w mut Words, symbols: usize) -> Writer<'w> {
        let words = scratch.for_symbols(symbols);
        Writer { kernel, states: [LOW; LANES], at: words.len(), words }
    }

    /// Puts `symbols`, each of which has a frequency, before what is there.
    pub(super) fn prepend(&mut self, coder: &Coder, symbols: &[u8]) {
        let (whole, tail) = symbols.split_at(symbols.len() / GROUP * GROUP);
        for k in (0..4).rev() {
            for (lane, state) in self.states.iter_mut().enumerate().rev() {
                if let Some(symbol) = tail.get(4 * lane + k) {
                    self.at = coder.encode_one(*symbol, state, self.words, self.at);
                }
            }
        }
        self.at = match self.kernel.kind() {
            Kind::Portable => coder.encode_groups(whole, &mut self.states, self.words, self.at),
            #[cfg(target_arch = "x86_64")]
            kind => x86::encode_groups(kind, coder, whole, &mut self.states, self.words, self.at),
        };
    }

    /// Appends the stream.
    pub(super) fn finish(self, to: &mut Vec<u8>) {
        to.extend(self.states.iter().flat_map(|state| state.to_le_bytes()));
        to.extend(self.words[self.at..].iter().flat_map(|word| word.to_le_bytes()));
    }
}

/// Room for the words of a stream while it is made, from its end.
#[derive(Default)]
pub(super) struct Words(Vec<u16>);

impl Words {
    /// Words that a kernel may write below the last one that counts.
    const SLACK: usize = 32;

    fn for_symbols(&mut self, symbols: usize) -> &mut [u16] {
        // A symbol writes one word at most.
        let len = symbols + Self::SLACK;
        if self.0.len() < len {
            self.0.resize(len, 0);
        }
        &mut self.0[..len]
    }
}

/// Frequencies as a decoder uses them: for each x mod 4096 the symbol, its frequency (from bit 8), and x mod 4096 - s (from bit 20).
pub(super) struct Table {
    slots: Box<[u32; 1 << PRECISION]>,
}

impl Table {
    pub(super) fn new(frequencies: &Frequencies) -> Table {
        let mut slots = Box::new([0; 1 << PRECISION]);
        let mut start = 0;
        for symbol in 0..=255 {
            let frequency = frequencies.get(symbol);
            let end = start + frequency as usize;
            for (bias, slot) in (0u32..).zip(&mut slots[start..end]) {
                *slot = u32::from(symbol) | frequency << 8 | bias << 20;
            }
            start = end;
        }
        Table { slots }
    }

    /// What it was made of.
    pub(super) fn frequencies(&self) -> [u16; 256] {
        let mut frequencies = [0; 256];
        let mut at = 0;
        while let Some(slot) = self.slots.get(at) {
            let frequency = slot >> 8 & 0xfff;
            frequencies[*slot as usize & 0xff] = frequency as u16;
            at += frequency.max(1) as usize;
        }
        frequencies
    }

    #[inline(always)]
    fn decode_group(
        &self,
        group: &mut [u8],
        states: &mut [u32; LANES],
        words: &mut &[u8],
    ) -> Result<(), Malformed> {
        for k in 0..4 {
            for (lane, state) in states.iter_mut().enumerate() {
                let Some(symbol) = group.get_mut(4 * lane + k) else { break };
                let slot = self.slots[(*state & ((1 << PRECISION) - 1)) as usize];
                *symbol = slot as u8;
                *state = (slot >> 8 & 0xfff) * (*state >> PRECISION) + (slot >> 20);
                if *state < LOW {
                    let (word, rest) = words.split_first_chunk().ok_or(Malformed("a stream is cut short"))?;
                    *state = *state << 16 | u32::from(u16::from_le_bytes(*word));
                    *words = rest;
                }
            }
        }
        Ok(())
    }
}

/// A stream that is being read.
pub(super) struct Reader<'s> {
    kernel: Kernel,
    states: [u32; LANES],
    words: &'s [u8],
}

impl<'s> Reader<'s> {
    /// Over a stream, and nothing behind it.
    pub(super) fn new(kernel: Kernel, stream: &'s [u8]) -> Result<Reader<'s>, Malformed> {
        let (states, words) =
            stream.split_first_chunk::<STATES_LEN>().ok_or(Malformed("a stream is cut short"))?;
        let states: [u32; LANES] = std::array::from_fn(|lane| {
            u32::from_le_bytes(std::array::from_fn(|byte| states[4 * lane + byte]))
        });
        match states.iter().all(|x| (LOW..LOW << 16).contains(x)) {
            true => Ok(Reader { kernel, states, words }),
            false => Err(Malformed("a stream begins with a state that none has")),
        }
    }

    /// Takes as many symbols as there is room for.
    pub(super) fn take(&mut self, table: &Table, symbols: &mut [u8]) -> Result<(), Malformed> {
        let done = match self.kernel.kind() {
            Kind::Portable => 0,
            #[cfg(target_arch = "x86_64")]
            kind => x86::decode_groups(kind, &mut [self.lane(table, symbols)]),
        };
        symbols[done..]
            .chunks_mut(GROUP)
            .try_for_each(|group| table.decode_group(group, &mut self.states, &mut self.words))
    }

    /// Takes of two streams at once: one computes while the other waits for its table.
    pub(super) fn take_both(
        readers: [&mut Reader<'s>; 2],
        tables: [&Table; 2],
        symbols: [&mut [u8]; 2],
    ) -> Result<(), Malformed> {
        let ([first, second], [one, other]) = (readers, symbols);
        let done = match first.kernel.kind() {
            Kind::Portable => 0,
            #[cfg(target_arch = "x86_64")]
            kind => {
                x86::decode_groups(kind, &mut [first.lane(tables[0], one), second.lane(tables[1], other)])
            }
        };
        first.take(tables[0], &mut one[done..])?;
        second.take(tables[1], &mut other[done..])
    }

    #[cfg(target_arch = "x86_64")]
    fn lane<'l>(&'l mut self, table: &'l Table, symbols: &'l mut [u8]) -> x86::Lane<'l, 's> {
        x86::Lane { table, symbols, states: &mut self.states, words: &mut self.words }
    }

    /// That all of it was taken.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        match self.words.is_empty() && self.states.iter().all(|x| *x == LOW) {
            true => Ok(()),
            false => Err(Malformed("a stream does not end where its symbols do")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(symbols: &[u8]) -> [u32; 256] {
        let mut counts = [0; 256];
        symbols.iter().for_each(|symbol| counts[usize::from(*symbol)] += 1);
        counts
    }

    /// Symbols of all kinds of distributions, of lengths around those of groups; some near to each other, but for
    /// one in 1500.
    fn symbols() -> impl Strategy<Value = Vec<u8>> {
        let len = prop_oneof![0usize..300, 3_900usize..4_300, Just(128), Just(256)];
        let width = prop_oneof![Just(256), Just(32), 1u16..40];
        (len, 0u32..9, any::<u64>(), any::<u8>(), width).prop_map(|(len, skew, seed, at, width)| {
            let mut state = seed | 1;
            let mut noise = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as u8
            };
            let mut any = || (0..skew).fold(255, |least, _| least.min(noise()));
            let near = |symbol: u8| (u16::from(symbol) % width) as u8;
            let symbol = |n| match n % 3000 {
                700 => any(),
                // The nearest that is not near.
                2200 => width as u8,
                _ => near(any()),
            };
            (0..len).map(symbol).map(|symbol| symbol.wrapping_add(at)).collect()
        })
    }

    fn encoded(kernel: Kernel, runs: &[(Frequencies, &[u8])]) -> Vec<u8> {
        let mut scratch = Words::default();
        let mut writer =
            Writer::new(kernel, &mut scratch, runs.iter().map(|(_, symbols)| symbols.len()).sum());
        runs.iter().rev().for_each(|(f, symbols)| writer.prepend(&Coder::new(f), symbols));
        let mut stream = Vec::new();
        writer.finish(&mut stream);
        stream
    }

    fn decoded(
        kernel: Kernel,
        runs: &[(Frequencies, &[u8])],
        stream: &[u8],
    ) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut reader = Reader::new(kernel, stream)?;
        let take = |(f, symbols): &(Frequencies, &[u8])| {
            let mut decoded = vec![0xa5; symbols.len()];
            reader.take(&Table::new(f), &mut decoded).map(|()| decoded)
        };
        let all = runs.iter().map(take).collect::<Result<_, _>>()?;
        reader.finish().map(|()| all)
    }

    fn with_frequencies(runs: &[Vec<u8>]) -> Vec<(Frequencies, &[u8])> {
        runs.iter().filter_map(|symbols| Some((Frequencies::of(&counts(symbols))?, &symbols[..]))).collect()
    }

    proptest! {
        #[test]
        fn every_kernel_writes_and_reads_the_same_stream(runs in prop::collection::vec(symbols(), 1..4)) {
            let runs = with_frequencies(&runs);
            let stream = encoded(Kernel::PORTABLE, &runs);
            // Each lane holds 16 bits more than it has to, in a state of 32; what else is there are rounded frequencies.
            let cost: u64 = runs.iter().map(|(f, symbols)| f.cost(&counts(symbols)).expect("all have one")).sum();
            let bytes = cost.div_ceil(8 << 16) as usize;
            prop_assert!(stream.len() <= bytes + bytes / 100 + STATES_LEN, "{} for {bytes}", stream.len());
            for kernel in Kernel::available() {
                prop_assert_eq!(&encoded(kernel, &runs), &stream, "{}", kernel.name());
                let decoded = decoded(kernel, &runs, &stream).unwrap();
                prop_assert!(decoded.iter().eq(runs.iter().map(|(_, symbols)| symbols)), "{}", kernel.name());
            }
        }

        #[test]
        fn every_kernel_says_the_same_of_a_stream_that_is_not_one(
            runs in prop::collection::vec(symbols(), 1..3),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
            more in prop::collection::vec(any::<u8>(), 0..3),
        ) {
            let runs = with_frequencies(&runs);
            let mut stream = encoded(Kernel::best(), &runs);
            let whole = stream.clone();
            flips.iter().for_each(|(at, bits)| *at.get_mut(&mut stream) ^= bits);
            stream.extend(more);
            cut.inspect(|at| stream.truncate(at.index(stream.len())));
            let results: Vec<_> = Kernel::available().map(|kernel| decoded(kernel, &runs, &stream)).collect();
            prop_assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
            // One form: whatever decodes to these symbols is what they are encoded to.
            if results[0].as_ref().is_ok_and(|decoded| decoded.iter().eq(runs.iter().map(|(_, symbols)| symbols))) {
                prop_assert_eq!(stream, whole);
            }
        }
    }

    #[test]
    fn division_by_multiplication_is_exact() {
        for frequency in 1..1u32 << PRECISION {
            let step = Step::new(frequency, 0);
            let quotients = (0..1 << 19).step_by(12_347).chain([(1 << 19) - 1]);
            for x in quotients.flat_map(|q| [q * frequency, q * frequency + frequency - 1]).filter(|x| *x > 0)
            {
                let expected = ((x / frequency) << PRECISION) + x % frequency;
                assert_eq!(step.apply(x), expected, "{x} / {frequency}");
            }
        }
    }
}
