//! Eight or sixteen lanes in a register.

#![expect(
    unsafe_code,
    reason = "vector registers are loaded, stored and gathered by pointers; the features are checked by hand"
)]

use std::arch::x86_64::*;

use super::super::kernel::Kind;
use super::{Coder, GROUP, LANES, LOW, PRECISION, Step, Table};

/// Codes `symbols`, whole groups of them, from the last to the first, into the words below `at`; gives where the first of these is.
/// There is a word for each symbol there, and 32 more.
pub(super) fn encode_groups(
    kind: Kind,
    coder: &Coder,
    symbols: &[u8],
    states: &mut [u32; LANES],
    words: &mut [u16],
    at: usize,
) -> usize {
    let groups = symbols.as_chunks().0;
    // Safety: `Kernel::available`, which alone makes these kinds, asked the processor for the features that the callee needs.
    match kind {
        Kind::Portable => coder.encode_groups(symbols, states, words, at),
        Kind::Avx2 => unsafe { encode_avx2(coder, groups, states, words, at) },
        Kind::Avx512 => unsafe { encode_avx512(coder, groups, states, words, at) },
    }
}

/// What is decoded of one stream, and from what.
pub(super) struct Lane<'l, 's> {
    pub(super) table: &'l Table,
    pub(super) symbols: &'l mut [u8],
    pub(super) states: &'l mut [u32; LANES],
    pub(super) words: &'l mut &'s [u8],
}

/// Decodes groups of symbols of each stream, as many of all, and takes the words that they need, as long as there are more
/// than enough of these; gives how many symbols of each that were. Two streams hide each other's waiting.
pub(super) fn decode_groups<const N: usize>(kind: Kind, streams: &mut [Lane<'_, '_>; N]) -> usize {
    // Safety: as above.
    let done = match kind {
        Kind::Portable => 0,
        Kind::Avx2 => unsafe { decode_avx2(streams) },
        Kind::Avx512 => unsafe { decode_avx512(streams) },
    };
    done * GROUP
}

/// There are 32 words below where those of a stream begin, and [`ENOUGH`] bytes before a group is decoded.
const ROOM: &str = "there is room for a register";

/// Bytes that a group may take, and a load of sixteen words more.
const ENOUGH: usize = 2 * GROUP + 32;

#[inline]
#[target_feature(enable = "avx512f")]
fn load_512(lanes: &[u32; 16]) -> __m512i {
    // Safety: the reference is to as many bytes as are read; the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_512(lanes: &mut [u32; 16], vector: __m512i) {
    // Safety: the reference is to as many bytes as are written, and unique; the instruction asks for no alignment.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_256(lanes: &[u32; 8]) -> __m256i {
    // Safety: as above.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_256(lanes: &mut [u32; 8], vector: __m256i) {
    // Safety: as above.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) }
}

/// The states of half of the lanes, and the other half.
fn halves<T>(states: &mut [T; LANES]) -> [&mut [T; 16]; 2] {
    match states.as_chunks_mut().0 {
        [low, high] => [low, high],
        _ => unreachable!("32 lanes are twice 16"),
    }
}

/// Symbols whose entries fit into registers.
const NEAR: usize = 32;

/// The entries of [`NEAR`] symbols that follow each other, in registers: taking them from there takes a fraction of what
/// fetching them from memory does. Exponents mostly lie so near to each other.
struct Near {
    /// The first of them, in every byte.
    first: __m512i,
    reciprocals: [__m512i; 2],
    fields: [__m512i; 2],
}

impl Near {
    /// Those of the symbols that come most often; none where others come often, too.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn of(coder: &Coder) -> Option<Near> {
        // One group in eight holds another.
        const OTHERS: u32 = (1 << PRECISION) / (8 * GROUP as u32);
        let first = coder.nearest(NEAR, OTHERS)?;
        let entries = coder.symbols[first..].first_chunk::<NEAR>()?;
        let registers = |field: usize| -> [__m512i; 2] {
            let fields: [u32; NEAR] = std::array::from_fn(|symbol| entries[symbol][field]);
            let (low, high) = fields.split_at(16);
            [low, high].map(|half| load_512(half.first_chunk().expect(ROOM)))
        };
        let (reciprocals, fields) = (registers(0), registers(1));
        Some(Near { first: _mm512_set1_epi8((first as u8).cast_signed()), reciprocals, fields })
    }

    /// The symbols by their distance from the first, if all are near.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn all(&self, quads: [__m512i; 2]) -> Option<[__m512i; 2]> {
        let quads = quads.map(|quad| _mm512_sub_epi8(quad, self.first));
        let far = quads.map(|quad| _mm512_cmpge_epu8_mask(quad, _mm512_set1_epi8(NEAR as i8)));
        (far == [0, 0]).then_some(quads)
    }
}

/// What coding sixteen symbols takes: what their states are multiplied with, those of even lanes and those of odd ones in the
/// lower halves of 64 bits each, and the other fields of their entries.
struct Steps {
    even: __m512i,
    odd: __m512i,
    fields: __m512i,
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx2,popcnt")]
fn encode_avx512(
    coder: &Coder,
    groups: &[[u8; GROUP]],
    states: &mut [u32; LANES],
    words: &mut [u16],
    mut at: usize,
) -> usize {
    let byte = _mm512_set1_epi64(0xff);
    let [low, high] = halves(states);
    let mut x = [load_512(low), load_512(high)];
    let table: *const i64 = coder.symbols.as_ptr().cast();
    let near = Near::of(coder);
    for group in groups.iter().rev() {
        let (quads, _) = group.as_chunks::<64>();
        // Safety: each reference is to the 64 bytes that are read.
        let quads = [&quads[0], &quads[1]].map(|quad| unsafe { _mm512_loadu_si512(quad.as_ptr().cast()) });
        if let Some(near) = &near
            && let Some(quads) = near.all(quads)
        {
            for k in (0..4u32).rev() {
                let count = _mm_cvtsi32_si128((8 * k).cast_signed());
                for half in [1, 0] {
                    // What is above the lowest five bits is not looked at.
                    let symbols = _mm512_srl_epi32(quads[half], count);
                    let take = |of: [__m512i; 2]| _mm512_permutex2var_epi32(of[0], symbols, of[1]);
                    let even = take(near.reciprocals);
                    let steps = Steps { even, odd: _mm512_srli_epi64::<32>(even), fields: take(near.fields) };
                    (x[half], at) = encode_sixteen(x[half], steps, words, at);
                }
            }
            continue;
        }
        for k in (0..4u32).rev() {
            let [even, odd] = [8 * k, 8 * k + 32].map(|count| _mm_cvtsi32_si128(count.cast_signed()));
            for half in [1, 0] {
                // Entries are fetched whole, those of even lanes and those of odd ones: what is fetched is what takes the time.
                let [even, odd] =
                    [even, odd].map(|count| _mm512_and_si512(_mm512_srl_epi64(quads[half], count), byte));
                // Safety: indices are less than 256, and the table has that many entries of 8 bytes each.
                let [even, odd] =
                    [even, odd].map(|symbols| unsafe { _mm512_i64gather_epi64::<8>(symbols, table.cast()) });
                let fields = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64::<32>(even), odd);
                (x[half], at) = encode_sixteen(x[half], Steps { even, odd, fields }, words, at);
            }
        }
    }
    store_512(low, x[0]);
    store_512(high, x[1]);
    at
}

/// Codes one symbol of each of sixteen lanes; gives their new states, and where the first of the words is.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx2,popcnt")]
fn encode_sixteen(x: __m512i, steps: Steps, words: &mut [u16], at: usize) -> (__m512i, usize) {
    let iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let Steps { even, odd, fields } = steps;
    let frequencies = _mm512_and_si512(fields, _mm512_set1_epi32(0xfff));
    // States and what is compared with them are less than 2^31.
    let full = _mm512_cmpge_epi32_mask(x, _mm512_slli_epi32::<19>(frequencies));
    let written = full.count_ones() as usize;
    // The words that are written, to the end of the register; what is before them is written over later.
    let compressed = _mm512_maskz_compress_epi32(full, x);
    let turned =
        _mm512_permutexvar_epi32(_mm512_add_epi32(iota, _mm512_set1_epi32(written as i32)), compressed);
    let out: &mut [u16; 16] = words[..at].last_chunk_mut().expect(ROOM);
    // Safety: the reference is to the 32 bytes that are written.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(turned)) }
    let state = _mm512_mask_srli_epi32::<16>(x, full, x);
    // Reciprocals are what multiplication takes of 64 bits, the lower half.
    let even = _mm512_srli_epi64::<32>(_mm512_mul_epu32(state, even));
    let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(state), odd);
    let product = _mm512_mask_blend_epi32(0xaaaa, even, odd);
    let quotient = _mm512_srlv_epi32(product, _mm512_srli_epi32::<{ Step::SHIFT_AT }>(fields));
    let bias = _mm512_and_si512(_mm512_srli_epi32::<{ Step::BIAS_AT }>(fields), _mm512_set1_epi32(0x1fff));
    let others = _mm512_sub_epi32(_mm512_set1_epi32(1 << PRECISION), frequencies);
    let grown = _mm512_mullo_epi32(quotient, others);
    (_mm512_add_epi32(_mm512_add_epi32(state, bias), grown), at - written)
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx2,popcnt")]
fn decode_avx512<const N: usize>(streams: &mut [Lane<'_, '_>; N]) -> usize {
    let mut x = streams.each_mut().map(|stream| halves(stream.states).map(|half| load_512(half)));
    let slots = streams.each_ref().map(|stream| stream.table.slots.as_ptr().cast::<u8>());
    let groups = streams.iter().map(|stream| stream.symbols.len() / GROUP).min().unwrap_or(0);
    for done in 0..groups {
        let windows = streams.each_ref().map(|stream| stream.words.first_chunk::<ENOUGH>());
        if windows.iter().any(Option::is_none) {
            store_states_512(streams, x);
            return done;
        }
        let windows = windows.map(|window| window.expect(ROOM));
        let mut taken = [0; N];
        let mut quads = [[_mm512_setzero_si512(); 2]; N];
        for k in 0..4u32 {
            let count = _mm_cvtsi32_si128((8 * k).cast_signed());
            for half in [0, 1] {
                for n in 0..N {
                    let index = _mm512_and_si512(x[n][half], _mm512_set1_epi32((1 << PRECISION) - 1));
                    // Safety: indices are less than 4096, and the table has that many entries of 4 bytes each.
                    let slot = unsafe { _mm512_i32gather_epi32::<4>(index, slots[n].cast()) };
                    let symbol = _mm512_and_si512(slot, _mm512_set1_epi32(0xff));
                    quads[n][half] = _mm512_or_si512(quads[n][half], _mm512_sll_epi32(symbol, count));
                    let frequency = _mm512_and_si512(_mm512_srli_epi32::<8>(slot), _mm512_set1_epi32(0xfff));
                    let kept = _mm512_mullo_epi32(frequency, _mm512_srli_epi32::<PRECISION>(x[n][half]));
                    let state = _mm512_add_epi32(kept, _mm512_srli_epi32::<20>(slot));
                    let wanting = _mm512_cmplt_epi32_mask(state, _mm512_set1_epi32(LOW as i32));
                    let next: &[u8; 32] = windows[n][taken[n]..].first_chunk().expect(ROOM);
                    // Safety: the reference is to the 32 bytes that are read.
                    let next = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(next.as_ptr().cast()) });
                    let next = _mm512_maskz_expand_epi32(wanting, next);
                    let refilled = _mm512_or_si512(_mm512_slli_epi32::<16>(state), next);
                    x[n][half] = _mm512_mask_mov_epi32(state, wanting, refilled);
                    taken[n] += 2 * wanting.count_ones() as usize;
                }
            }
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            let group = &mut stream.symbols.as_chunks_mut::<GROUP>().0[done];
            for (out, quad) in group.as_chunks_mut::<64>().0.iter_mut().zip(quads[n]) {
                // Safety: the reference is to the 64 bytes that are written.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), quad) }
            }
            *stream.words = &stream.words[taken[n]..];
        }
    }
    store_states_512(streams, x);
    groups
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_states_512<const N: usize>(streams: &mut [Lane<'_, '_>; N], x: [[__m512i; 2]; N]) {
    for (stream, x) in streams.iter_mut().zip(x) {
        halves(stream.states).into_iter().zip(x).for_each(|(half, x)| store_512(half, x));
    }
}

/// For each set of lanes the places in a register of eight to which the words of these go, in order: up to its end.
static TO_THE_END: [[u32; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut at = 8 - (mask as u32).count_ones() as usize;
        let mut lane = 0;
        while lane < 8 {
            if mask & (1 << lane) != 0 {
                table[mask][at] = lane;
                at += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// For each set of lanes the place among the words that follow of that which each of these takes.
static IN_TURN: [[u32; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut lane = 0;
        let mut next = 0;
        while lane < 8 {
            table[mask][lane] = next;
            if mask & (1 << lane) != 0 {
                next += 1;
            }
            // Lanes behind the last that takes one must not ask for a ninth.
            if next > 7 {
                next = 7;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

#[target_feature(enable = "avx2,popcnt")]
fn encode_avx2(
    coder: &Coder,
    groups: &[[u8; GROUP]],
    states: &mut [u32; LANES],
    words: &mut [u16],
    mut at: usize,
) -> usize {
    let byte = _mm256_set1_epi64x(0xff);
    let lanes = states.as_chunks_mut::<8>().0;
    let mut x: [__m256i; 4] = std::array::from_fn(|part| load_256(&lanes[part]));
    let table: *const i64 = coder.symbols.as_ptr().cast();
    for group in groups.iter().rev() {
        let (parts, _) = group.as_chunks::<32>();
        for k in (0..4u32).rev() {
            let [even, odd] = [8 * k, 8 * k + 32].map(|count| _mm_cvtsi32_si128(count.cast_signed()));
            for part in [3, 2, 1, 0] {
                // Safety: the reference is to the 32 bytes that are read.
                let quad = unsafe { _mm256_loadu_si256(parts[part].as_ptr().cast()) };
                // As above.
                let [even, odd] =
                    [even, odd].map(|count| _mm256_and_si256(_mm256_srl_epi64(quad, count), byte));
                // Safety: indices are less than 256, and the table has that many entries of 8 bytes each.
                let [even, odd] =
                    [even, odd].map(|symbols| unsafe { _mm256_i64gather_epi64::<8>(table, symbols) });
                let fields = _mm256_blend_epi32::<0xaa>(_mm256_srli_epi64::<32>(even), odd);
                let frequencies = _mm256_and_si256(fields, _mm256_set1_epi32(0xfff));
                // x >= f * 2^19; both are less than 2^31, and x is not 0.
                let least = _mm256_sub_epi32(_mm256_slli_epi32::<19>(frequencies), _mm256_set1_epi32(1));
                let full = _mm256_cmpgt_epi32(x[part], least);
                let mask = _mm256_movemask_ps(_mm256_castsi256_ps(full)) as usize;
                let ordered = _mm256_permutevar8x32_epi32(x[part], load_256(&TO_THE_END[mask]));
                let shorts = _mm256_and_si256(ordered, _mm256_set1_epi32(0xffff));
                let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(shorts, shorts));
                let out: &mut [u16; 8] = words[..at].last_chunk_mut().expect(ROOM);
                // Safety: the reference is to the 16 bytes that are written.
                unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_castsi256_si128(packed)) }
                at -= mask.count_ones() as usize;
                let state = _mm256_blendv_epi8(x[part], _mm256_srli_epi32::<16>(x[part]), full);
                let even = _mm256_srli_epi64::<32>(_mm256_mul_epu32(state, even));
                let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(state), odd);
                let product = _mm256_blend_epi32::<0xaa>(even, odd);
                let quotient =
                    _mm256_srlv_epi32(product, _mm256_srli_epi32::<{ Step::SHIFT_AT as i32 }>(fields));
                let bias = _mm256_and_si256(
                    _mm256_srli_epi32::<{ Step::BIAS_AT as i32 }>(fields),
                    _mm256_set1_epi32(0x1fff),
                );
                let others = _mm256_sub_epi32(_mm256_set1_epi32(1 << PRECISION), frequencies);
                let grown = _mm256_mullo_epi32(quotient, others);
                x[part] = _mm256_add_epi32(_mm256_add_epi32(state, bias), grown);
            }
        }
    }
    lanes.iter_mut().zip(x).for_each(|(lanes, x)| store_256(lanes, x));
    at
}

#[target_feature(enable = "avx2,popcnt")]
fn decode_avx2<const N: usize>(streams: &mut [Lane<'_, '_>; N]) -> usize {
    let parts = |states: &[u32; LANES]| -> [__m256i; 4] {
        let lanes = states.as_chunks::<8>().0;
        std::array::from_fn(|part| load_256(&lanes[part]))
    };
    let mut x = streams.each_ref().map(|stream| parts(stream.states));
    let slots = streams.each_ref().map(|stream| stream.table.slots.as_ptr().cast::<i32>());
    let groups = streams.iter().map(|stream| stream.symbols.len() / GROUP).min().unwrap_or(0);
    for done in 0..groups {
        let windows = streams.each_ref().map(|stream| stream.words.first_chunk::<ENOUGH>());
        if windows.iter().any(Option::is_none) {
            store_states_256(streams, x);
            return done;
        }
        let windows = windows.map(|window| window.expect(ROOM));
        let mut taken = [0; N];
        let mut quads = [[_mm256_setzero_si256(); 4]; N];
        for k in 0..4u32 {
            let count = _mm_cvtsi32_si128((8 * k).cast_signed());
            for part in 0..4 {
                for n in 0..N {
                    let index = _mm256_and_si256(x[n][part], _mm256_set1_epi32((1 << PRECISION) - 1));
                    // Safety: indices are less than 4096, and the table has that many entries of 4 bytes each.
                    let slot = unsafe { _mm256_i32gather_epi32::<4>(slots[n], index) };
                    let symbol = _mm256_and_si256(slot, _mm256_set1_epi32(0xff));
                    quads[n][part] = _mm256_or_si256(quads[n][part], _mm256_sll_epi32(symbol, count));
                    let frequency = _mm256_and_si256(_mm256_srli_epi32::<8>(slot), _mm256_set1_epi32(0xfff));
                    let high = _mm256_srli_epi32::<{ PRECISION as i32 }>(x[n][part]);
                    let state =
                        _mm256_add_epi32(_mm256_mullo_epi32(frequency, high), _mm256_srli_epi32::<20>(slot));
                    let wanting = _mm256_cmpgt_epi32(_mm256_set1_epi32(LOW as i32), state);
                    let mask = _mm256_movemask_ps(_mm256_castsi256_ps(wanting)) as usize;
                    let next: &[u8; 16] = windows[n][taken[n]..].first_chunk().expect(ROOM);
                    // Safety: the reference is to the 16 bytes that are read.
                    let next = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(next.as_ptr().cast()) });
                    let next = _mm256_permutevar8x32_epi32(next, load_256(&IN_TURN[mask]));
                    let refilled = _mm256_or_si256(_mm256_slli_epi32::<16>(state), next);
                    x[n][part] = _mm256_blendv_epi8(state, refilled, wanting);
                    taken[n] += 2 * mask.count_ones() as usize;
                }
            }
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            let group = &mut stream.symbols.as_chunks_mut::<GROUP>().0[done];
            for (out, quad) in group.as_chunks_mut::<32>().0.iter_mut().zip(quads[n]) {
                // Safety: the reference is to the 32 bytes that are written.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), quad) }
            }
            *stream.words = &stream.words[taken[n]..];
        }
    }
    store_states_256(streams, x);
    groups
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_states_256<const N: usize>(streams: &mut [Lane<'_, '_>; N], x: [[__m256i; 4]; N]) {
    for (stream, x) in streams.iter_mut().zip(x) {
        stream.states.as_chunks_mut().0.iter_mut().zip(x).for_each(|(lanes, x)| store_256(lanes, x));
    }
}
