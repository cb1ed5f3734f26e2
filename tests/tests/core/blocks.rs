//! Reading of tensors: no more than the blocks that are asked for, each checked, whatever became of the others.

use std::ops::Range;
use std::sync::Arc;

use cairn_format::{ChunkPiece, FrameHead, PackLayout, PieceKind, PlanesHead};
use cairn_store::disk::Access;
use cairn_store::{PackReader, pack_path};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, Error, HealMode, MakeOptions, OpenOptions, Volume};
use proptest::prelude::*;

use super::tensors::weights;

const BLOCK: u64 = 64 << 10;

fn world() -> World {
    World::make(&MakeOptions { journal_size: 16 << 20, segment_size: 1 << 20, pack_size: 4 << 20, ..small() })
}

/// A volume mounted: nothing of what is decoded stays but a block, where `cache` is nothing.
fn open(world: &World, cache: u64, heal: HealMode) -> Arc<Volume> {
    let options = OpenOptions { cache_size: cache, heal, collect: false, ..OpenOptions::default() };
    world.open_with(options).expect("mount")
}

/// A safetensors file of one tensor, of elements of so many bytes.
fn file_of(dtype: &str, width: usize, data: &[u8]) -> Vec<u8> {
    let (elements, end) = (data.len() / width, data.len());
    let header =
        format!("{{\"t\":{{\"dtype\":\"{dtype}\",\"shape\":[{elements}],\"data_offsets\":[0,{end}]}}}}");
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Writes a file and has it folded.
fn store(volume: &Volume, name: &str, bytes: &[u8]) -> u64 {
    let ino = volume.create(1, name.as_bytes(), 0o644, 0, &Caller::default()).expect("create").ino;
    for (n, part) in bytes.chunks(1 << 18).enumerate() {
        volume.write(ino, (n << 18) as u64, part, false).expect("write");
    }
    volume.release(ino);
    volume.sync().expect("sync");
    ino
}

/// The chunks of a file.
fn chunks(volume: &Volume, ino: u64) -> Vec<(u64, ChunkPiece)> {
    let extents = volume.extents(ino).expect("extents").into_iter();
    let chunks = extents.filter_map(|(at, _, kind)| match kind {
        PieceKind::Chunk(piece) => Some((at, piece)),
        _ => None,
    });
    chunks.collect()
}

/// The bytes of a chunk's frame in its pack.
fn frame_of(world: &World, piece: &ChunkPiece) -> (PackLayout, Range<u64>) {
    let footer = PackReader::open(&*world.store_disk(), piece.pack).and_then(|r| r.footer()).expect("whole");
    let frame = footer.frames[piece.frame as usize];
    (footer.layout(), frame.offset..frame.offset + u64::from(frame.len))
}

fn spoil(world: &World, piece: &ChunkPiece, at: Range<u64>) {
    let file = world.store_disk().open(&pack_path(&piece.pack), Access::Write).expect("is there");
    let mut bytes = vec![0; (at.end - at.start) as usize];
    file.read_exact_at(&mut bytes, at.start).expect("reads");
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    file.write_at(&bytes, at.start).expect("writes");
}

/// What was read of packs, and decoded, by `work`.
fn cost(volume: &Volume, work: impl FnOnce()) -> (u64, u64) {
    let before = volume.statistics();
    work();
    let after = volume.statistics();
    (after.chunk_bytes_read - before.chunk_bytes_read, after.chunk_bytes_decoded - before.chunk_bytes_decoded)
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Weights,
    Noise,
    One,
    Few,
    Pattern,
}

fn contents() -> impl Strategy<Value = Content> {
    use Content::{Few, Noise, One, Pattern, Weights};
    prop_oneof![4 => Just(Weights), 1 => Just(Noise), 1 => Just(One), 1 => Just(Few), 1 => Just(Pattern)]
}

fn bytes_of(content: Content, width: usize, len: usize, seed: u64) -> Vec<u8> {
    match content {
        Content::Weights => weights(seed, len, width >= 4),
        Content::Noise => noise(seed, len),
        Content::One => vec![seed as u8; len],
        Content::Few => noise(seed, len / width).iter().flat_map(|b| vec![b % 7; width]).collect(),
        Content::Pattern => noise(seed, 1000).into_iter().cycle().take(len).collect(),
    }
}

const DTYPES: [(&str, usize); 14] = [
    ("F64", 8),
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
    ("I64", 8),
    ("U64", 8),
    ("I32", 4),
    ("U32", 4),
    ("I16", 2),
    ("I8", 1),
    ("U8", 1),
    ("BOOL", 1),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_range_of_a_tensor_reads_as_it_was_written(
        (dtype, width) in prop::sample::select(&DTYPES[..]),
        content in contents(),
        elements in 5_000usize..400_000,
        seed: u64,
        cached: bool,
        // Places near where blocks and chunks meet, and anywhere.
        reads in prop::collection::vec((any::<prop::sample::Index>(), 0u64..24, -3i64..4, 1u32..200_000, any::<bool>()), 1..24),
    ) {
        let data = bytes_of(content, width, elements.min((3 << 20) / width) * width, seed);
        let file = file_of(dtype, width, &data);
        let world = world();
        let ino = store(&open(&world, 1 << 20, HealMode::On), "t", &file);
        let volume = open(&world, if cached { 8 << 20 } else { 0 }, HealMode::On);
        let begin = file.len() - data.len();
        for (anywhere, block, off, len, near) in reads {
            let at = match near {
                true => ((begin as u64 + block * BLOCK) as i64 + off).max(0) as usize % file.len(),
                false => anywhere.index(file.len()),
            };
            let read = volume.read(ino, at as u64, len).expect("reads");
            let expected = &file[at..(at + len as usize).min(file.len())];
            prop_assert!(read == expected, "{len} bytes at {at} of {}", file.len());
        }
        prop_assert_eq!(volume.statistics().heals_answered, 0, "nothing was damaged");
    }
}

/// `CAIRN_SHOW=1` with `--nocapture` prints what reads of several lengths cost.
#[test]
fn a_read_fetches_and_decodes_the_blocks_it_touches_and_no_others() {
    let file = file_of("F32", 4, &weights(9, 12 << 20, true));
    let world = world();
    let ino = store(&open(&world, 1 << 20, HealMode::On), "t", &file);
    let mut dice = Dice::new(1);
    for (len, reads) in [(4u64 << 10, 24), (64 << 10, 12), (1 << 20, 6)] {
        let mut total = (0, 0);
        for _ in 0..reads {
            // As after a mount: nothing is known of any frame.
            let volume = open(&world, 16 << 20, HealMode::On);
            let at = dice.below(file.len() as u64 - len);
            let cost = cost(&volume, || {
                let read = volume.read(ino, at, len as u32).expect("reads");
                assert!(read == file[at as usize..(at + len) as usize]);
            });
            total = (total.0 + cost.0, total.1 + cost.1);
            // The blocks that the range touches, and what stands before those of the chunks that it touches; behind the header is
            // less than a block, that is cut by content.
            let (blocks, chunks) = (len.div_ceil(BLOCK) + 1, len.div_ceil(1 << 20) + 1);
            assert!(cost.1 <= (blocks + 1) * BLOCK, "{len} at {at}: {cost:?}");
            assert!(cost.0 <= (blocks + 1) * BLOCK + chunks * 8192, "{len} at {at}: {cost:?}");
        }
        let asked = (len * reads) as f64;
        if std::env::var_os("CAIRN_SHOW").is_some() {
            let (read, decoded) = (total.0 as f64 / asked, total.1 as f64 / asked);
            println!("reads of {} KiB: {read:.2} bytes read for each, {decoded:.2} decoded", len >> 10);
        }
    }
}

#[test]
fn reading_on_decodes_nothing_twice() {
    let file = file_of("BF16", 2, &weights(9, 3 << 20, false));
    let world = world();
    let ino = store(&open(&world, 1 << 20, HealMode::On), "t", &file);
    let volume = open(&world, 4 << 20, HealMode::On);
    let (_, decoded) = cost(&volume, || {
        for (n, part) in file.chunks(10_000).enumerate() {
            assert!(volume.read(ino, n as u64 * 10_000, part.len() as u32).expect("reads") == part);
        }
    });
    assert!(decoded < file.len() as u64 + 2 * BLOCK, "{decoded} bytes of {}", file.len());
}

#[test]
fn who_reads_in_order_finds_what_comes_next_decoded_and_who_does_not_pays_nothing() {
    let file = file_of("F32", 4, &weights(9, 9 << 20, true));
    let world = world();
    let ino = store(&open(&world, 1 << 20, HealMode::On), "t", &file);
    let volume = open(&world, 128 << 20, HealMode::On);
    let read = |at: u64, len: u64| {
        cost(&volume, || {
            let read = volume.read(ino, at, len as u32).expect("reads");
            assert!(read == file[at as usize..(at + len) as usize]);
        })
    };
    let ahead = || {
        cost(&volume, || {
            volume.maintain().expect("maintains");
        })
    };
    // Short reads, here and there and one after the other; a long one; another elsewhere.
    for n in 0..40 {
        read(n * 4096, 4096);
        read((6 << 20) + n * 50_000, 4096);
    }
    read(5 << 20, 128 << 10);
    read(1 << 20, 128 << 10);
    assert_eq!(ahead(), (0, 0));
    // One that goes on.
    read((1 << 20) + (128 << 10), 128 << 10);
    let (_, decoded) = ahead();
    assert!((2_900_000..=4 << 20).contains(&decoded), "{decoded}");
    for n in 2..32 {
        assert_eq!(read((1 << 20) + n * (128 << 10), 128 << 10), (0, 0), "read number {n}");
    }
    assert!(ahead().1 <= 4 << 20, "no more than a window, and not what is behind the end");
    read(7 << 20, 128 << 10);
    read((7 << 20) + (128 << 10), 128 << 10);
    ahead();
}

/// Each range of a file, in pieces of odd length: what reading it gives, right bytes or an I/O error.
fn read_all(volume: &Volume, ino: u64, file: &[u8]) -> Vec<(Range<u64>, bool)> {
    const STEP: usize = 9_999;
    let read = |n: usize| {
        let at = n * STEP..((n + 1) * STEP).min(file.len());
        let right = match volume.read(ino, at.start as u64, at.len() as u32) {
            Ok(read) => {
                assert!(read == file[at.clone()], "wrong bytes from {} on", at.start);
                true
            }
            Err(Error::Io) => false,
            Err(other) => panic!("{other:?}"),
        };
        (at.start as u64..at.end as u64, right)
    };
    (0..file.len().div_ceil(STEP)).map(read).collect()
}

#[test]
fn a_damaged_block_is_answered_from_parity_and_the_others_without() {
    let file = file_of("F32", 4, &weights(3, 1 << 20, true));
    let world = world();
    let ino = store(&open(&world, 1 << 20, HealMode::ReadOnly), "t", &file);
    let volume = open(&world, 0, HealMode::ReadOnly);
    let (at, piece) = *chunks(&volume, ino).last().expect("a chunk");
    let (_, frame) = frame_of(&world, &piece);
    let middle = frame.start + (frame.end - frame.start) / 2;
    spoil(&world, &piece, middle..middle + 1);
    // What lies elsewhere does not notice.
    let first = volume.read(ino, at, 4096).expect("reads");
    assert!(first == file[at as usize..at as usize + 4096]);
    assert_eq!(volume.statistics().heals_answered, 0);
    assert!(read_all(&volume, ino, &file).iter().all(|(_, right)| *right));
    assert!(volume.statistics().heals_answered > 0);
}

#[test]
fn beyond_parity_no_more_than_the_damaged_block_is_lost_and_nothing_wrong_is_read() {
    let file = file_of("F32", 4, &weights(4, 1 << 20, true));
    for n in 0..16 {
        let world = world();
        let ino = store(&open(&world, 1 << 20, HealMode::On), "t", &file);
        let volume = open(&world, 0, HealMode::On);
        let (at, piece) = *chunks(&volume, ino).last().expect("a chunk");
        let (layout, frame) = frame_of(&world, &piece);
        spoil(&world, &piece, layout.parity_area());
        // Anywhere in blocks: what is stored as it is, and what is coded, which shows damage by itself mostly.
        let place = frame.start + 4096 + (frame.end - frame.start - 8192) * n / 17 + n * 2_999 % 40_000;
        spoil(&world, &piece, place..place + 1);
        let lost: Vec<_> = read_all(&volume, ino, &file).into_iter().filter(|(_, right)| !right).collect();
        let bytes: u64 = lost.iter().map(|(range, _)| range.end - range.start).sum();
        assert!(bytes > 0, "damage at {place} is found");
        assert!(bytes <= BLOCK + 2 * 9_999, "{bytes} bytes from {at} on are lost to one byte at {place}");
        assert!(lost.windows(2).all(|pair| pair[0].0.end == pair[1].0.start), "one run: {lost:?}");
    }
}

#[test]
fn whole_blocks_in_the_wrong_place_are_not_taken_for_others() {
    // Every block takes the same room: noise, and a byte that is the same everywhere.
    let data: Vec<u8> = noise(5, 1 << 19).into_iter().flat_map(|byte| [byte, 0x12]).collect();
    let file = file_of("U16", 2, &data);
    let world = world();
    let ino = store(&open(&world, 1 << 20, HealMode::Off), "t", &file);
    let volume = open(&world, 0, HealMode::Off);
    let (_, piece) = *chunks(&volume, ino).last().expect("a chunk");
    let (_, frame) = frame_of(&world, &piece);
    let pack = world.store_disk().open(&pack_path(&piece.pack), Access::Write).expect("is there");
    let mut bytes = vec![0; (frame.end - frame.start) as usize];
    pack.read_exact_at(&mut bytes, frame.start).expect("reads");
    let head_at = FrameHead::len_with(1);
    let head_len = PlanesHead::len_of(&bytes[head_at..]).expect("a head") as usize;
    let head = PlanesHead::decode(&bytes[head_at..head_at + head_len], &piece.chunk).expect("a head");
    let block = |number: usize| {
        let (from, to) = (head.blocks[number - 1].end, head.blocks[number].end);
        head_at + head_len + from as usize..head_at + head_len + to as usize
    };
    assert_eq!(block(3).len(), block(5).len());
    for (from, to) in [(3, 5), (5, 3)] {
        pack.write_at(&bytes[block(from)], frame.start + block(to).start as u64).expect("writes");
    }
    let lost: u64 = read_all(&volume, ino, &file)
        .into_iter()
        .filter(|(_, right)| !right)
        .map(|(range, _)| range.end - range.start)
        .sum();
    assert!((2 * BLOCK..2 * BLOCK + 4 * 9_999).contains(&lost), "{lost}");
}

#[test]
fn why_names_tensors_what_they_take_and_how_they_are_stored() {
    let parts = [
        ("a", true, weights(1, 1_500_000, true)),
        ("small", false, weights(2, 2_000, false)),
        ("zeros", true, vec![0; 400_000]),
        ("noise", false, noise(3, 300_000)),
    ];
    let file = super::tensors::safetensors("", &parts);
    let world = world();
    let volume = open(&world, 1 << 20, HealMode::On);
    let ino = store(&volume, "t", &file);
    let patience = std::time::Duration::from_secs(60);
    let told = volume.explain(ino, patience).expect("explains");
    assert_eq!(told.tensor_count, 4);
    let names: Vec<_> = told.tensors.iter().map(|t| (t.name.as_str(), t.dtype.as_str(), t.len)).collect();
    let expected = [
        ("a", "F32", 1_500_000),
        ("small", "BF16", 2_000),
        ("zeros", "F32", 400_000),
        ("noise", "BF16", 300_000),
    ];
    assert_eq!(names, expected);
    assert_eq!(told.tensors.iter().map(|t| t.codecs.clone()).collect::<Vec<_>>()[..1], [vec!["planes"]]);
    assert_eq!(told.tensors[2].codecs, ["pattern"]);
    assert_eq!(told.tensors[3].codecs, ["raw"]);
    assert_eq!(told.tensors[0].shape, [375_000]);
    assert!(told.tensors[2].stored < 1000 && told.tensors[0].stored < 1_400_000, "{told:?}");
    assert!(told.tensors[3].stored >= 300_000);
    let other = store(&volume, "u", &noise(1, 100_000));
    assert!(volume.explain(other, patience).expect("explains").tensors.is_empty());
}
