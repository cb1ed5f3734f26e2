//! The multiplications, for what the processor has. Every kernel computes the same bytes.

use super::field;

/// So many outputs at most are computed in one pass over the sources.
pub(super) const ROWS: usize = 4;

/// So many sources at most in one pass: their tables and lines stay in the first-level cache.
pub(super) const TERMS: usize = 16;

/// One source of a pass, and what it is multiplied with for each output.
#[derive(Clone, Copy)]
pub(super) struct Term<'a, const R: usize> {
    pub(super) source: &'a [u8],
    pub(super) factors: [u8; R],
}

/// A way to multiply, which this processor has. All give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Kind);

// Architecture Invariant: a kind of the processor's own is only made in `available`, after asking for it. `run` relies
// on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    GfniAvx2,
    #[cfg(target_arch = "x86_64")]
    GfniAvx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Kernel {
    /// All that this processor has, the fastest first, the portable one last.
    pub fn available() -> impl Iterator<Item = Kernel> {
        #[cfg(target_arch = "x86_64")]
        let own = {
            let avx2 = is_x86_feature_detected!("avx2");
            let gfni = is_x86_feature_detected!("gfni");
            let avx512 = is_x86_feature_detected!("avx512f");
            [(Kind::GfniAvx512, gfni && avx512), (Kind::GfniAvx2, gfni && avx2), (Kind::Avx2, avx2)]
        };
        #[cfg(target_arch = "aarch64")]
        let own = [(Kind::Neon, std::arch::is_aarch64_feature_detected!("neon"))];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let own: [(Kind, bool); 0] = [];
        let own = own.into_iter().filter(|(_, detected)| *detected).map(|(kind, _)| kind);
        own.chain([Kind::Portable]).map(Kernel)
    }

    /// The fastest.
    pub fn best() -> Kernel {
        Kernel::available().next().unwrap_or(Kernel(Kind::Portable))
    }

    /// What it is called in figures.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::GfniAvx2 => "gfni-avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::GfniAvx512 => "gfni-avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    /// Sets each output to the sum of the sources, each multiplied with its factor for that output; adds the sum if
    /// `add`. All slices have one length (what exceeds the shortest is left alone), and there are at most [`TERMS`]
    /// terms.
    pub(super) fn run<const R: usize>(self, terms: &[Term<'_, R>], outputs: &mut [&mut [u8]; R], add: bool) {
        let lengths = terms.iter().map(|term| term.source.len()).chain(outputs.iter().map(|o| o.len()));
        let length = lengths.min().unwrap_or(0);
        debug_assert!(terms.len() <= TERMS);
        let done = match self.0 {
            Kind::Portable => 0,
            #[cfg(target_arch = "x86_64")]
            kind => x86::run(kind, terms, outputs, length, add),
            #[cfg(target_arch = "aarch64")]
            kind => arm::run(kind, terms, outputs, length, add),
        };
        portable(terms, outputs, done..length, add);
    }
}

/// Bytes that [`portable`] computes together: a compiler keeps the sums of them in vector registers, whichever the
/// target has.
const LANES: usize = 64;

/// The columns `columns` of all outputs. The source is doubled seven times, and those doubles are summed that the
/// factors have bits for.
fn portable<const R: usize>(
    terms: &[Term<'_, R>],
    outputs: &mut [&mut [u8]; R],
    columns: std::ops::Range<usize>,
    add: bool,
) {
    for start in columns.clone().step_by(LANES) {
        let part = start..columns.end.min(start + LANES);
        let mut sums = [[0; LANES]; R];
        if add {
            for (sum, output) in sums.iter_mut().zip(outputs.iter()) {
                sum[..part.len()].copy_from_slice(&output[part.clone()]);
            }
        }
        for term in terms {
            let mut bytes = [0; LANES];
            bytes[..part.len()].copy_from_slice(&term.source[part.clone()]);
            add_products(bytes, &term.factors, &mut sums);
        }
        for (sum, output) in sums.iter().zip(outputs.iter_mut()) {
            output[part.clone()].copy_from_slice(&sum[..part.len()]);
        }
    }
}

#[inline(always)]
fn add_products<const R: usize>(mut bytes: [u8; LANES], factors: &[u8; R], sums: &mut [[u8; LANES]; R]) {
    for bit in 0..8 {
        for (factor, sum) in factors.iter().zip(sums.iter_mut()) {
            let mask = 0u8.wrapping_sub((factor >> bit) & 1);
            for (sum, byte) in sum.iter_mut().zip(&bytes) {
                *sum ^= byte & mask;
            }
        }
        bytes = bytes.map(field::double);
    }
}

/// Products of each element with the sixteen that have only low bits, and the sixteen that have only high ones.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static NIBBLES: [[[u8; 16]; 2]; 256] = {
    let mut tables = [[[0; 16]; 2]; 256];
    let mut i = 0;
    while i < 256 * 16 {
        let (element, nibble) = (i / 16, i % 16);
        tables[element][0][nibble] = field::multiply(element as u8, nibble as u8);
        tables[element][1][nibble] = field::multiply(element as u8, (nibble as u8) << 4);
        i += 1;
    }
    tables
};

/// A kernel: for each step of columns, sums for all outputs are kept in registers while the sources go by. It computes
/// a multiple of its step of columns, no more than `length`, which no slice is shorter than, and returns how many.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernel {
    ($name:ident: $features:literal, $vectors:literal vectors $vector:ident of $width:literal bytes,
     $zero:expr, $xor:ident, $load:ident, $store:ident, $table:ty = $look_up:expr, $multiply:ident) => {
        #[target_feature(enable = $features)]
        fn $name<const R: usize>(
            terms: &[Term<'_, R>],
            outputs: &mut [&mut [u8]; R],
            length: usize,
            add: bool,
        ) -> usize {
            const WIDTH: usize = $width;
            const STEP: usize = WIDTH * $vectors;
            #[inline]
            #[target_feature(enable = $features)]
            fn load(bytes: &[u8; WIDTH]) -> $vector {
                // Safety: the reference is to as many bytes as are read; the instruction asks for no alignment.
                unsafe { $load(bytes.as_ptr().cast()) }
            }
            #[inline]
            #[target_feature(enable = $features)]
            fn store(bytes: &mut [u8; WIDTH], vector: $vector) {
                // Safety: the reference is to as many bytes as are written, and unique; the instruction asks for no
                // alignment.
                unsafe { $store(bytes.as_mut_ptr().cast(), vector) }
            }
            let look_up: fn(u8) -> $table = $look_up;
            let mut prepared: [(&[[u8; STEP]], [$table; R]); TERMS] = [(&[], [look_up(0); R]); TERMS];
            for (prepared, term) in prepared.iter_mut().zip(terms) {
                *prepared = (term.source[..length].as_chunks().0, term.factors.map(look_up));
            }
            let prepared = &prepared[..terms.len()];
            let mut outputs = outputs.each_mut().map(|output| output[..length].as_chunks_mut::<STEP>().0);
            for at in 0..length / STEP {
                let mut sums = [[$zero; $vectors]; R];
                if add {
                    for (sums, output) in sums.iter_mut().zip(&outputs) {
                        for (sum, bytes) in sums.iter_mut().zip(output[at].as_chunks().0) {
                            *sum = load(bytes);
                        }
                    }
                }
                for (source, tables) in prepared {
                    for (lane, bytes) in source[at].as_chunks().0.iter().enumerate() {
                        let vector = load(bytes);
                        for (sums, table) in sums.iter_mut().zip(tables) {
                            sums[lane] = $xor(sums[lane], $multiply(vector, *table));
                        }
                    }
                }
                for (sums, output) in sums.iter().zip(&mut outputs) {
                    for (sum, bytes) in sums.iter().zip(output[at].as_chunks_mut().0) {
                        store(bytes, *sum);
                    }
                }
            }
            length / STEP * STEP
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![expect(
        unsafe_code,
        reason = "vector registers are loaded and stored by pointers; the features are checked by hand"
    )]

    use std::arch::x86_64::*;

    use super::{Kind, NIBBLES, TERMS, Term, field};

    /// Multiplication with each element as a matrix of bits: row k, byte 7 - k of the number, says which bits of the
    /// operand are summed to bit k of the product. (The instruction that multiplies by itself does so modulo another
    /// polynomial.)
    static MATRICES: [u64; 256] = {
        let mut matrices = [0; 256];
        let mut i = 0;
        while i < 256 * 64 {
            let (element, row, column) = (i / 64, i / 8 % 8, i % 8);
            let product = field::multiply(element as u8, 1 << column);
            matrices[element] |= (((product >> row) & 1) as u64) << ((7 - row) * 8 + column);
            i += 1;
        }
        matrices
    };

    pub(super) fn run<const R: usize>(
        kind: Kind,
        terms: &[Term<'_, R>],
        outputs: &mut [&mut [u8]; R],
        length: usize,
        add: bool,
    ) -> usize {
        // Safety: `Kernel::available`, which alone makes these kinds, asked the processor for the features that the
        // callee needs.
        match kind {
            Kind::Portable => 0,
            Kind::Avx2 => unsafe { avx2(terms, outputs, length, add) },
            Kind::GfniAvx2 => unsafe { gfni_avx2(terms, outputs, length, add) },
            Kind::GfniAvx512 => unsafe { gfni_avx512(terms, outputs, length, add) },
        }
    }

    kernel! {
        avx2: "avx2", 2 vectors __m256i of 32 bytes,
        _mm256_setzero_si256(), _mm256_xor_si256, _mm256_loadu_si256, _mm256_storeu_si256,
        &'static [[u8; 16]; 2] = |factor| &NIBBLES[usize::from(factor)], shuffle
    }
    kernel! {
        gfni_avx2: "gfni,avx2", 2 vectors __m256i of 32 bytes,
        _mm256_setzero_si256(), _mm256_xor_si256, _mm256_loadu_si256, _mm256_storeu_si256,
        u64 = |factor| MATRICES[usize::from(factor)], affine_256
    }
    kernel! {
        gfni_avx512: "gfni,avx512f", 2 vectors __m512i of 64 bytes,
        _mm512_setzero_si512(), _mm512_xor_si512, _mm512_loadu_si512, _mm512_storeu_si512,
        u64 = |factor| MATRICES[usize::from(factor)], affine_512
    }

    /// Looks up the products of the low halves of the bytes, and of the high ones, and sums them.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn shuffle(bytes: __m256i, table: &[[u8; 16]; 2]) -> __m256i {
        // Safety: each reference is to the sixteen bytes that are read; the instruction asks for no alignment.
        let [low, high] = table.each_ref().map(|half| unsafe { _mm_loadu_si128(half.as_ptr().cast()) });
        let [low, high] = [_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high)];
        let mask = _mm256_set1_epi8(0x0f);
        let lows = _mm256_shuffle_epi8(low, _mm256_and_si256(bytes, mask));
        let highs = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), mask));
        _mm256_xor_si256(lows, highs)
    }

    #[inline]
    #[target_feature(enable = "gfni,avx2")]
    fn affine_256(bytes: __m256i, matrix: u64) -> __m256i {
        _mm256_gf2p8affine_epi64_epi8::<0>(bytes, _mm256_set1_epi64x(matrix.cast_signed()))
    }

    #[inline]
    #[target_feature(enable = "gfni,avx512f")]
    fn affine_512(bytes: __m512i, matrix: u64) -> __m512i {
        _mm512_gf2p8affine_epi64_epi8::<0>(bytes, _mm512_set1_epi64(matrix.cast_signed()))
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    #![expect(
        unsafe_code,
        reason = "vector registers are loaded and stored by pointers; the feature is checked by hand"
    )]

    use std::arch::aarch64::*;

    use super::{Kind, NIBBLES, TERMS, Term};

    pub(super) fn run<const R: usize>(
        kind: Kind,
        terms: &[Term<'_, R>],
        outputs: &mut [&mut [u8]; R],
        length: usize,
        add: bool,
    ) -> usize {
        match kind {
            Kind::Portable => 0,
            // Safety: `Kernel::available`, which alone makes this kind, asked the processor for the feature that the
            // callee needs.
            Kind::Neon => unsafe { neon(terms, outputs, length, add) },
        }
    }

    kernel! {
        neon: "neon", 4 vectors uint8x16_t of 16 bytes,
        vdupq_n_u8(0), veorq_u8, vld1q_u8, vst1q_u8,
        &'static [[u8; 16]; 2] = |factor| &NIBBLES[usize::from(factor)], look_up_halves
    }

    /// Looks up the products of the low halves of the bytes, and of the high ones, and sums them.
    #[inline]
    #[target_feature(enable = "neon")]
    fn look_up_halves(bytes: uint8x16_t, table: &[[u8; 16]; 2]) -> uint8x16_t {
        // Safety: each reference is to the sixteen bytes that are read; the instruction asks for no alignment.
        let [low, high] = table.each_ref().map(|half| unsafe { vld1q_u8(half.as_ptr()) });
        let lows = vqtbl1q_u8(low, vandq_u8(bytes, vdupq_n_u8(0x0f)));
        veorq_u8(lows, vqtbl1q_u8(high, vshrq_n_u8::<4>(bytes)))
    }
}
