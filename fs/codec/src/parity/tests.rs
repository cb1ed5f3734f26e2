use proptest::prelude::*;
use proptest::sample::subsequence;
use reed_solomon_erasure::galois_8::{ReedSolomon, mul};

use super::*;

/// Lengths around the steps of kernels and the edges of blocks, and others.
fn lengths() -> impl Strategy<Value = usize> {
    let edges = [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 255, 4096, BLOCK, BLOCK + 129];
    prop_oneof![3 => prop::sample::select(edges.to_vec()), 1 => 0usize..600]
}

/// K and M. Most are small; the others find out whether many rows and many sources are put together right.
fn shapes() -> impl Strategy<Value = (usize, usize)> {
    let large = (1usize..=254).prop_flat_map(|data| (Just(data), 1..=(255 - data).min(40)));
    prop_oneof![8 => (1usize..=20, 1usize..=6), 1 => large]
}

/// Bytes that look random, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

fn data_shards(seed: u64, count: usize, length: usize) -> Vec<Vec<u8>> {
    (0..count as u64).map(|i| noise(seed << 8 | i, length)).collect()
}

/// The parity that the crate computes.
fn peer_parity(data: &[Vec<u8>], parity: usize, length: usize) -> Vec<Vec<u8>> {
    let mut shards = vec![vec![0; length]; parity];
    if length > 0 {
        let peer = ReedSolomon::new(data.len(), parity).expect("a shape that the crate takes");
        peer.encode_sep(data, &mut shards).expect("shards of one length");
    }
    shards
}

fn encoded(code: &ParityCode, data: &[Vec<u8>], length: usize) -> Vec<Vec<u8>> {
    // What was in the buffers does not matter.
    let mut parity = vec![vec![0xa5; length]; code.parity()];
    code.encode(data, &mut parity);
    parity
}

/// Every kernel that this machine has, by itself.
fn on_each_kernel(data: usize, parity: usize) -> impl Iterator<Item = ParityCode> {
    Kernel::available().map(move |k| ParityCode::new(data, parity).expect("a valid shape").with_kernel(k))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn parity_is_that_of_reed_solomon_erasure_with_every_kernel(
        (k, m) in shapes(), length in lengths(), seed: u64,
    ) {
        let data = data_shards(seed, k, length);
        let right = peer_parity(&data, m, length);
        for code in on_each_kernel(k, m) {
            prop_assert!(encoded(&code, &data, length) == right, "{}", code.kernel.name());
        }
    }

    #[test]
    fn adding_shards_one_by_one_in_any_order_gives_the_same_parity_as_encoding_them(
        (k, m) in shapes(), length in lengths(), seed: u64, first: prop::sample::Index,
    ) {
        let data = data_shards(seed, k, length);
        for code in on_each_kernel(k, m) {
            let mut parity = vec![vec![0; length]; m];
            for i in 0..k {
                let i = (i + first.index(k)) % k;
                code.add(i, &data[i], &mut parity);
            }
            prop_assert!(parity == encoded(&code, &data, length), "{}", code.kernel.name());
        }
    }

    #[test]
    fn any_shards_that_are_lost_up_to_m_are_restored_with_every_kernel(
        ((k, m), lost) in shapes().prop_flat_map(|(k, m)| {
            (Just((k, m)), subsequence((0..k + m).collect::<Vec<_>>(), 0..=m).prop_shuffle())
        }),
        length in lengths(),
        seed: u64,
    ) {
        let mut shards = data_shards(seed, k, length);
        shards.extend(peer_parity(&shards, m, length));
        for code in on_each_kernel(k, m) {
            let plan = code.plan(&lost).expect("no more than M are lost");
            prop_assert_eq!(plan.sources().len(), k);
            prop_assert!(plan.sources().iter().all(|source| !lost.contains(source)));
            prop_assert!(lost.iter().all(|shard| plan.lost().contains(shard)));
            let sources: Vec<&[u8]> = plan.sources().iter().map(|i| shards[*i].as_slice()).collect();
            let mut restored = vec![vec![0x5a; length]; plan.lost().len()];
            plan.restore(&sources, &mut restored);
            for (i, restored) in plan.lost().iter().zip(&restored) {
                prop_assert!(*restored == shards[*i], "shard {} with {}", i, code.kernel.name());
            }
        }
    }

    #[test]
    fn shards_that_end_early_count_as_continued_by_zeros(
        (k, m) in (1usize..=20, 1usize..=6),
        ends in prop::collection::vec(lengths(), 20),
        wanted in prop::collection::vec(lengths(), 6),
        seed: u64,
        present in 0usize..=20,
    ) {
        let length = BLOCK + 129;
        let mut short = data_shards(seed, k.min(present), length);
        short.iter_mut().zip(&ends).for_each(|(shard, end)| shard.truncate(*end));
        let mut full = short.clone();
        full.resize(k, Vec::new());
        full.iter_mut().for_each(|shard| shard.resize(length, 0));
        let right = peer_parity(&full, m, length);
        for code in on_each_kernel(k, m) {
            prop_assert!(encoded(&code, &short, length) == right, "encode, {}", code.kernel.name());
            let mut parity = vec![vec![0; length]; m];
            short.iter().enumerate().for_each(|(i, shard)| code.add(i, shard, &mut parity));
            prop_assert!(parity == right, "add, {}", code.kernel.name());

            // Of the lost ones beginnings of several lengths are wanted.
            let lost: Vec<usize> = (0..k.min(m)).collect();
            let plan = code.plan(&lost).expect("no more than M are lost");
            let source = |i: &usize| if *i < k { short.get(*i).cloned().unwrap_or_default() } else { right[i - k].clone() };
            let sources: Vec<Vec<u8>> = plan.sources().iter().map(source).collect();
            let mut restored: Vec<Vec<u8>> = wanted[..lost.len()].iter().map(|end| vec![0xff; *end]).collect();
            plan.restore(&sources, &mut restored);
            for (restored, full) in restored.iter().zip(&full) {
                prop_assert!(restored[..] == full[..restored.len()], "restore, {}", code.kernel.name());
            }
        }
    }

    #[test]
    fn there_is_no_plan_for_more_than_m_lost_shards_or_one_that_does_not_exist(
        (k, m, lost) in shapes().prop_flat_map(|(k, m)| {
            (Just(k), Just(m), subsequence((0..k + m).collect::<Vec<_>>(), m + 1..=k + m))
        }),
        beyond in 0usize..1000,
    ) {
        let code = ParityCode::new(k, m).expect("a valid shape");
        prop_assert!(code.plan(&lost).is_none());
        prop_assert!(code.plan(&[k + m + beyond]).is_none());
        // One that is told twice is lost once.
        let twice: Vec<usize> = lost[..m].iter().chain(&lost[..m]).copied().collect();
        prop_assert!(code.plan(&twice).is_some());
    }
}

#[test]
fn every_kernel_multiplies_every_byte_with_every_factor() {
    let bytes: Vec<u8> = (0..=255).collect();
    for kernel in Kernel::available() {
        for factor in 0..=255 {
            let mut product = vec![0; 256];
            kernel.run(&[Term { source: &bytes, factors: [factor] }], &mut [&mut product[..]], false);
            let right: Vec<u8> = bytes.iter().map(|byte| mul(*byte, factor)).collect();
            assert_eq!(product, right, "{} times {factor}", kernel.name());
        }
    }
}

#[test]
fn only_shapes_that_the_field_has_room_for_are_codes() {
    assert!(ParityCode::new(0, 2).is_none());
    assert!(ParityCode::new(usize::MAX, 1).is_none());
    for data in 1..=300 {
        for parity in [0, 1, 254 - data.min(254), 255 - data.min(255), 256 - data.min(256)] {
            let code = ParityCode::new(data, parity);
            assert_eq!(code.is_some(), data + parity <= 255, "{data} + {parity}");
        }
    }
}

#[test]
fn a_code_without_parity_has_nothing_to_compute() {
    let code = ParityCode::new(3, 0).expect("a valid shape");
    code.encode(&data_shards(1, 3, 100), &mut Vec::<Vec<u8>>::new());
    assert!(code.plan(&[0]).is_none());
    let plan = code.plan(&[]).expect("nothing is lost");
    assert_eq!((plan.sources(), plan.lost()), (&[0, 1, 2][..], &[][..]));
    plan.restore(&data_shards(1, 3, 100), &mut Vec::<Vec<u8>>::new());
}

/// The bytes that are on disks: byte n of data shard i is n * 7 + i * 31 + 5 modulo 256.
#[test]
fn parity_of_known_bytes_is_what_it_always_was() {
    let data: Vec<Vec<u8>> =
        (0..16u32).map(|i| (0..8u32).map(|n| (n * 7 + i * 31 + 5) as u8).collect()).collect();
    let golden: [[u8; 8]; 4] = [
        [0x18, 0xa4, 0x3b, 0x3d, 0x30, 0x9e, 0x63, 0xad],
        [0x53, 0xa2, 0x1a, 0x13, 0xff, 0xf6, 0xfd, 0xee],
        [0x5f, 0x01, 0x79, 0x56, 0x8e, 0x88, 0xcb, 0x7a],
        [0x38, 0x35, 0x58, 0xaf, 0x3e, 0xe3, 0xd5, 0xc0],
    ];
    for parity in [2, 4] {
        assert_eq!(peer_parity(&data, parity, 8), golden[..parity]);
        for code in on_each_kernel(16, parity) {
            let found = encoded(&code, &data, 8);
            assert_eq!(found, golden[..parity], "16 + {parity} with {}", code.kernel.name());
        }
    }
}

#[test]
fn the_rows_that_the_documentation_tells_are_the_coefficients() {
    let code = ParityCode::new(16, 4).expect("a valid shape");
    let rows =
        code.rows.iter().map(|row| row.iter().map(|c| format!("{c:02x}")).collect::<Vec<_>>().join(" "));
    let source = include_str!("mod.rs");
    for row in rows {
        assert!(source.contains(&format!("//! {row}\n")), "not in the documentation: {row}");
    }
}
