//! What files become once they are folded: the chunks depend on the content, not on how it came.

use std::sync::Arc;

use cairn_format::{ChunkId, IndexSnapshot, PieceKind};
use cairn_store::Store;
use cairn_store::disk::{read_small, replace_small};
use cairn_tests::dice::noise;
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, MakeOptions, SetAttr, Volume};
use proptest::prelude::*;

/// Where the files of the property begin: at the front, and so that chunks cross the border of two ranges of
/// extents.
const BASES: [u64; 2] = [0, (1 << 20) - 15_000];

#[derive(Clone, Debug)]
enum Step {
    Write(u16, u16, u8),
    Truncate(u16),
    Fold,
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u16..30_000, 1u16..9_000, any::<u8>()).prop_map(|(at, len, seed)| Step::Write(at, len, seed)),
        1 => (0u16..35_000).prop_map(Step::Truncate),
        2 => Just(Step::Fold),
        1 => Just(Step::Sync),
    ];
    prop::collection::vec(step, 1..25)
}

fn volume() -> (World, Arc<Volume>) {
    // Each world's store draws the same chunk key.
    let world = World::make(&MakeOptions { journal_size: 4 << 20, ..small() });
    let volume = world.open().expect("mount");
    (world, volume)
}

fn file(volume: &Volume, name: &[u8]) -> u64 {
    volume.create(1, name, 0o644, 0, &Caller::default()).expect("create").ino
}

fn truncate(volume: &Volume, ino: u64, size: u64) {
    let set = SetAttr { size: Some(size), ..SetAttr::default() };
    volume.setattr(ino, &set, &Caller::default()).expect("truncate");
}

/// A folded file's chunks, and its holes.
fn chunks(volume: &Volume, ino: u64) -> Vec<(u64, u64, Option<ChunkId>)> {
    let extents = volume.extents(ino).expect("extents");
    let chunk = |(at, len, kind): (u64, u64, PieceKind)| match kind {
        PieceKind::Hole => (at, len, None),
        PieceKind::Chunk(piece) => {
            assert_eq!((piece.offset, u64::from(piece.chunk_len)), (0, len), "at {at}: part of a chunk only");
            (at, len, Some(piece.chunk))
        }
        PieceKind::Journal(_) => panic!("not folded at {at}"),
    };
    extents.into_iter().map(chunk).collect()
}

fn folded_in_pieces_is_folded_in_one(base: u64, steps: &[Step]) {
    let (_world, pieces) = volume();
    let ino = file(&pieces, b"pieces");
    for step in steps {
        match step {
            Step::Write(at, len, seed) => {
                // Few contents, so that what is written again is often what was there.
                let bytes = noise(u64::from(*seed % 4), 40_000);
                let from = *at as usize;
                let bytes = if seed % 2 == 0 { &bytes[from..] } else { &bytes[..] };
                let len = (*len as usize).min(bytes.len());
                pieces.write(ino, base + u64::from(*at), &bytes[..len], false).expect("write");
            }
            Step::Truncate(size) => truncate(&pieces, ino, base + u64::from(*size)),
            Step::Fold => drop(pieces.maintain().expect("maintain")),
            Step::Sync => pieces.sync().expect("sync"),
        }
    }
    pieces.sync().expect("sync");
    let found = chunks(&pieces, ino);

    let (_world, whole) = volume();
    let ino_whole = file(&whole, b"whole");
    truncate(&whole, ino_whole, pieces.getattr(ino).expect("getattr").size);
    // Front to back, all that is no hole.
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (at, len, chunk) in &found {
        match runs.last_mut() {
            _ if chunk.is_none() => {}
            Some((from, so_far)) if *from + *so_far == *at => *so_far += len,
            _ => runs.push((*at, *len)),
        }
    }
    for (at, len) in runs {
        let bytes = pieces.read(ino, at, len as u32).expect("read");
        whole.write(ino_whole, at, &bytes, false).expect("write");
    }
    whole.sync().expect("sync");
    assert_eq!(found, chunks(&whole, ino_whole));
}

fn cases(default: u32) -> u32 {
    std::env::var("CAIRN_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default) / 10
}

#[test]
fn a_file_folded_in_pieces_has_the_chunks_of_one_written_in_one_go() {
    let config =
        ProptestConfig { cases: cases(2_500), failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(base in prop::sample::select(&BASES[..]), steps in steps())| {
        folded_in_pieces_is_folded_in_one(base, &steps);
    });
}

#[test]
fn regression_runs_close_to_each_other_are_cut_as_one() {
    // Folding the second began within the chunk that folding the first had made of its bytes.
    let steps = [
        Step::Write(17_671, 7_310, 0),
        Step::Fold,
        Step::Write(16_352, 3_162, 41),
        Step::Write(19_515, 1, 0),
    ];
    folded_in_pieces_is_folded_in_one(0, &steps);
}

#[test]
fn a_cut_that_a_full_pack_ends_goes_on_until_it_meets_the_old_ones() {
    let world = World::make(&MakeOptions { journal_size: 512 << 10, pack_size: 1 << 20, ..small() });
    let volume = world.open().expect("mount");
    // A batch ends at a quarter of the journal: near the end of what is written, or a few chunks behind it.
    let limit = 128 << 10;
    for (n, len) in (limit - 2_500..limit).step_by(60).enumerate() {
        let name = n.to_string();
        let ino = file(&volume, name.as_bytes());
        for at in (0..200_000).step_by(8_000) {
            volume.write(ino, at, &noise(at + n as u64 * 1_000, 8_000), false).expect("write");
        }
        volume.sync().expect("sync");
        for (i, part) in noise(n as u64 + 7_000_000, len).chunks(8_000).enumerate() {
            volume.write(ino, 10_000 + i as u64 * 8_000, part, false).expect("write");
        }
        volume.sync().expect("sync");
        // Whole chunks only, each where cutting from the front would put it.
        let found = chunks(&volume, ino);
        let ends = |list: &[(u64, u64, Option<ChunkId>)]| list.iter().map(|c| c.0 + c.1).collect::<Vec<_>>();
        let bytes = volume.read(ino, 0, 200_000).expect("read");
        let sizes = cairn_format::ChunkSizes { min: 256, avg: 1024, max: 4096 };
        let (chunker, mut at, mut expected) = (cairn_codec::Chunker::new(sizes), 0, Vec::new());
        while at < bytes.len() {
            at += chunker.cut(&bytes[at..]);
            expected.push(at as u64);
        }
        assert_eq!(ends(&found), expected, "{len} bytes in the middle");
    }
}

#[test]
fn a_dedup_hit_counts_only_where_a_footer_confirms_the_whole_id() {
    let (world, volume) = volume();
    // Chunks of one length, so that nothing but their ids tells them apart.
    let blocks = |from: u8| -> Vec<u8> { (from..from + 40).flat_map(|n| [n; 4096]).collect() };
    let (kept, other) = (blocks(1), blocks(101));
    volume.write(file(&volume, b"a"), 0, &kept, false).expect("write");
    volume.close().expect("close");
    drop(volume);
    // An index that is whole, and wrong: every fingerprint leads to some other chunk.
    let store = world.store_disk();
    let superblock = Store::superblock_of(&*store).expect("superblock").newest;
    let bytes = read_small(&*store, "index", 1 << 20).expect("index");
    let mut index = IndexSnapshot::decode(&bytes, &superblock.uuid).expect("index");
    let chunks = index.slots.len() as u32;
    assert!(chunks > 20, "{chunks} chunks");
    index.slots.iter_mut().for_each(|slot| slot.chunk = (slot.chunk + 1) % chunks);
    replace_small(&*store, "index", &index.encode()).expect("index");
    let volume = world.open().expect("mount");
    for (name, bytes) in [(b"b", &kept), (b"c", &other)] {
        let ino = file(&volume, name);
        volume.write(ino, 0, bytes, false).expect("write");
        volume.sync().expect("sync");
        assert!(volume.read(ino, 0, 163_840).as_ref() == Ok(bytes), "other bytes than were written");
    }
    assert_eq!(volume.usage().unique, 3 * 163_840, "stored again rather than taken for what it is not");
    volume.close().expect("close");
    let found = super::crash::consistent(&world).expect_err("slots that fit no footer");
    assert!(found.contains("index-slot"), "{found}");
}

#[test]
fn the_same_content_is_stored_once() {
    let (_world, volume) = volume();
    let bytes = noise(1, 300_000);
    for (n, name) in [b"a", b"b", b"c"].into_iter().enumerate() {
        let ino = file(&volume, name);
        volume.write(ino, 0, &bytes, false).expect("write");
        // The first two in one batch: the second is found in the pack being filled.
        if n > 0 {
            volume.sync().expect("sync");
        }
    }
    assert_eq!(volume.usage().unique, 300_000);
    assert_eq!(volume.usage().logical, 900_000);
}

#[test]
fn the_same_content_is_found_again_after_a_mount_with_and_without_the_index() {
    for index in [true, false] {
        let (world, volume) = volume();
        let bytes = noise(1, 100_000);
        volume.write(file(&volume, b"a"), 0, &bytes, false).expect("write");
        volume.close().expect("close");
        drop(volume);
        if !index {
            world.store_disk().remove("index").expect("there is one");
        }
        let volume = world.open().expect("mount");
        volume.write(file(&volume, b"b"), 0, &bytes, false).expect("write");
        volume.sync().expect("sync");
        assert_eq!(volume.usage().unique, 100_000, "index kept: {index}");
    }
}

#[test]
fn a_byte_inserted_at_the_front_adds_little() {
    let (_world, volume) = volume();
    let bytes = noise(1, 2 << 20);
    volume.write(file(&volume, b"a"), 0, &bytes, false).expect("write");
    volume.sync().expect("sync");
    let ino = file(&volume, b"b");
    volume.write(ino, 0, b"x", false).expect("write");
    volume.write(ino, 1, &bytes, false).expect("write");
    volume.sync().expect("sync");
    let added = volume.usage().unique - (2 << 20);
    assert!((1..20_000).contains(&added), "{added} bytes added");
}

#[test]
fn packs_that_died_whole_are_dropped_and_what_they_held_is_stored_again() {
    let (world, volume) = volume();
    let bytes = noise(1, 200_000);
    volume.write(file(&volume, b"a"), 0, &bytes, false).expect("write");
    volume.sync().expect("sync");
    volume.release(volume.lookup(1, b"a").expect("lookup").expect("there").ino);
    volume.unlink(1, b"a").expect("unlink");
    volume.sync().expect("sync");
    assert_eq!((volume.usage().unique, volume.usage().logical), (0, 0));
    let ino = file(&volume, b"b");
    volume.write(ino, 0, &bytes, false).expect("write");
    volume.sync().expect("sync");
    assert_eq!(volume.usage().unique, 200_000);
    assert_eq!(volume.read(ino, 0, 200_000), Ok(bytes));
    volume.close().expect("close");
    super::crash::consistent(&world).expect("fsck");
}
