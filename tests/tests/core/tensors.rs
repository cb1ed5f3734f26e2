//! Files that hold tensors: cut at these, stored by what their numbers are, and read back as any other.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use cairn_format::PieceKind;
use cairn_tests::containers::{Told, npy, npz, onnx, pytorch};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, GcOptions, MakeOptions, OpenOptions, Volume};
use proptest::prelude::*;

/// Small chunks elsewhere, so that many of them surround tensors.
fn world() -> World {
    World::make(&MakeOptions { journal_size: 16 << 20, segment_size: 1 << 20, pack_size: 4 << 20, ..small() })
}

fn open(world: &World, tensors: bool) -> Arc<Volume> {
    world.open_with(OpenOptions { tensors, collect: false, ..OpenOptions::default() }).expect("mount")
}

/// Weights, as bfloat16 or as binary32.
pub(super) fn weights(seed: u64, bytes: usize, wide: bool) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut plain = Vec::with_capacity(bytes + 4);
    while plain.len() < bytes {
        let sum: f32 = (0..4).map(|_| dice.below(1 << 16) as f32 / 65_536.0 - 0.5).sum();
        plain.extend(&(sum * 0.04).to_le_bytes()[if wide { 0 } else { 2 }..]);
    }
    plain.truncate(bytes);
    plain
}

/// A safetensors file; `note` is what its header says besides.
pub(super) fn safetensors(note: &str, tensors: &[(&str, bool, Vec<u8>)]) -> Vec<u8> {
    let mut header = format!("{{\"__metadata__\":{{\"note\":\"{note}\"}}");
    let mut at = 0;
    for (name, wide, bytes) in tensors {
        let (dtype, width) = if *wide { ("F32", 4) } else { ("BF16", 2) };
        let end = at + bytes.len();
        let elements = bytes.len() / width;
        header += &format!(
            ",\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":[{elements}],\"data_offsets\":[{at},{end}]}}"
        );
        at = end;
    }
    header.push('}');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    tensors.iter().for_each(|(_, _, bytes)| file.extend(bytes));
    file
}

fn checkpoint(note: &str) -> Vec<u8> {
    let tensors = [
        ("a", false, weights(1, (2 << 20) + 5000, false)),
        ("bias", true, weights(2, 3000, true)),
        ("b", true, weights(3, 700_000, true)),
    ];
    safetensors(note, &tensors)
}

fn create(volume: &Volume, name: &str) -> u64 {
    let ino = volume.create(1, name.as_bytes(), 0o644, 0, &Caller::default()).expect("create").ino;
    volume.release(ino);
    ino
}

fn write(volume: &Volume, ino: u64, at: usize, bytes: &[u8]) {
    for (n, part) in bytes.chunks(100_000).enumerate() {
        volume.write(ino, (at + n * 100_000) as u64, part, false).expect("write");
    }
}

#[track_caller]
fn reads_as(volume: &Volume, ino: u64, expected: &[u8]) {
    for (n, part) in expected.chunks(64 << 10).enumerate() {
        let read = volume.read(ino, (n << 16) as u64, part.len() as u32).expect("read");
        assert!(read == part, "other bytes from {} on", n << 16);
    }
    let size = volume.getattr(ino).expect("getattr").size;
    assert_eq!(size, expected.len() as u64);
}

/// Where a file's chunks begin.
fn cuts(volume: &Volume, ino: u64) -> Vec<u64> {
    let extents = volume.extents(ino).expect("extents").into_iter();
    let chunks = extents.filter_map(|(at, _, kind)| match kind {
        PieceKind::Chunk(piece) if piece.offset == 0 => Some(at),
        _ => None,
    });
    chunks.collect()
}

#[test]
fn tensors_take_less_and_read_as_they_were_written() {
    let stored = [true, false].map(|tensors| {
        let world = world();
        let volume = open(&world, tensors);
        let file = checkpoint("");
        let ino = create(&volume, "model.safetensors");
        write(&volume, ino, 0, &file);
        volume.sync().expect("sync");
        reads_as(&volume, ino, &file);
        drop(volume);
        let volume = open(&world, tensors);
        reads_as(&volume, ino, &file);
        let stored = volume.usage().stored;
        volume.close().expect("closed");
        stored
    });
    assert!(stored[0] * 100 < stored[1] * 85, "{stored:?}");
}

#[test]
fn a_tensor_is_cut_from_where_it_begins_and_found_again_behind_another_header() {
    let world = world();
    let volume = open(&world, true);
    let file = checkpoint("");
    let ino = create(&volume, "one");
    write(&volume, ino, 0, &file);
    volume.sync().expect("sync");
    let data = file.len() as u64 - (2 << 20) - 5000 - 3000 - 700_000;
    let cuts = cuts(&volume, ino);
    for begin in [data, data + (1 << 20), data + (2 << 20), data + (2 << 20) + 5000 + 3000] {
        assert!(cuts.contains(&begin), "{begin} in {cuts:?}");
    }
    let before = volume.statistics().new_bytes;
    let other = checkpoint("another name for the same, which moves all that follows");
    let ino = create(&volume, "two");
    write(&volume, ino, 0, &other);
    volume.sync().expect("sync");
    let new = volume.statistics().new_bytes - before;
    assert!(new < 20_000, "{new} new bytes");
    reads_as(&volume, ino, &other);
}

/// The same tensors in files of several formats.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let (a, b, c) = (weights(8, 1_400_000, true), weights(9, 400, true), weights(10, 700_000, false));
    let of = |types: [&'static str; 3]| -> [(&'static str, &'static str, &'static [u64], &[u8]); 3] {
        [("a", types[0], &[350_000], &a), ("b", types[1], &[100], &b), ("c", types[2], &[350_000], &c)]
    };
    let numpy = of(["<f4", "<f4", "<f2"]);
    vec![
        (
            "safetensors",
            safetensors("", &[("a", true, a.clone()), ("b", true, b.clone()), ("c", false, c.clone())]),
        ),
        ("npy", npy(numpy[0])),
        ("npz", npz(&numpy, Told::BeforeInEight)),
        ("npz, streamed", npz(&numpy, Told::Behind)),
        ("PyTorch", pytorch(&of(["FloatStorage", "FloatStorage", "BFloat16Storage"]), Told::Behind)),
        ("ONNX", onnx(&of(["1", "1", "16"]))),
    ]
}

#[test]
fn tensors_are_the_same_chunks_in_files_of_any_format() {
    let world = world();
    let volume = open(&world, true);
    for (n, (format, file)) in files().iter().enumerate() {
        let before = volume.statistics().new_bytes;
        let ino = create(&volume, format);
        write(&volume, ino, 0, file);
        volume.sync().expect("sync");
        let new = volume.statistics().new_bytes - before;
        assert!(n == 0 || new < 20_000, "{format}: {new} new bytes");
        reads_as(&volume, ino, file);
    }
}

/// With folds between, as happens to what takes longer to write than a fold waits.
#[test]
fn a_file_of_tensors_that_grows_is_cut_as_if_it_had_been_written_at_once() {
    for (format, file) in files() {
        for step in [100_000, 333_333, 1_000_001] {
            let world = world();
            let volume = open(&world, true);
            let ino = create(&volume, "grown");
            for (n, part) in file.chunks(step).enumerate() {
                write(&volume, ino, n * step, part);
                volume.sync().expect("sync");
            }
            reads_as(&volume, ino, &file);
            let whole = create(&volume, "whole");
            write(&volume, whole, 0, &file);
            volume.sync().expect("sync");
            assert_eq!(cuts(&volume, ino), cuts(&volume, whole), "{format}, {step} bytes at a time");
        }
    }
}

/// NumPy writes the length of an array before it when the array is written.
#[test]
fn an_archive_whose_headers_are_written_last_is_cut_as_if_they_had_been_there() {
    let a = weights(11, 1_500_000, true);
    let tensors = [("a", "<f4", &[375_000][..], &a[..]), ("b", "<f4", &[375_000], &a)];
    let (early, file) = (npz(&tensors, Told::NotYet), npz(&tensors, Told::BeforeInEight));
    let world = world();
    let volume = open(&world, true);
    let ino = create(&volume, "numpy");
    write(&volume, ino, 0, &early[..1_300_000]);
    volume.sync().expect("sync");
    write(&volume, ino, 1_300_000, &file[1_300_000..]);
    write(&volume, ino, 0, &file[..100]);
    volume.sync().expect("sync");
    reads_as(&volume, ino, &file);
    let whole = create(&volume, "whole");
    write(&volume, whole, 0, &file);
    volume.sync().expect("sync");
    assert_eq!(cuts(&volume, ino), cuts(&volume, whole));
}

#[test]
fn a_header_that_changes_moves_the_cuts_of_what_is_written_after_it() {
    let world = world();
    let volume = open(&world, true);
    let ino = create(&volume, "model");
    // Noise first, then a model over it, its header last.
    write(&volume, ino, 0, &noise(3, 1_500_000));
    volume.sync().expect("sync");
    let file = checkpoint("");
    write(&volume, ino, 2000, &file[2000..]);
    write(&volume, ino, 0, &file[..2000]);
    volume.sync().expect("sync");
    reads_as(&volume, ino, &file);
    let whole = create(&volume, "whole");
    write(&volume, whole, 0, &file);
    volume.sync().expect("sync");
    assert_eq!(cuts(&volume, ino), cuts(&volume, whole));
}

#[test]
fn compaction_keeps_what_tensors_are_stored_as() {
    let file = checkpoint("");
    let alone = {
        let world = world();
        let volume = open(&world, true);
        let ino = create(&volume, "model");
        write(&volume, ino, 0, &file);
        volume.sync().expect("sync");
        volume.usage().stored
    };
    let world = world();
    let volume = open(&world, true);
    let ino = create(&volume, "model");
    write(&volume, ino, 0, &file);
    // What shares its packs, and goes.
    let other = create(&volume, "other");
    write(&volume, other, 0, &noise(5, 3 << 20));
    volume.sync().expect("sync");
    let before = volume.usage().stored;
    volume.unlink(1, b"other").expect("unlink");
    volume.sync().expect("sync");
    let thorough = GcOptions { threshold: 100, ..GcOptions::default() };
    volume.gc(&thorough, &mut |_| ControlFlow::Continue(())).expect("gc");
    let after = volume.usage().stored;
    assert!(after + (5 << 19) < before, "{before} to {after}");
    assert!(after < alone + alone / 50, "{after} instead of {alone}");
    reads_as(&volume, ino, &file);
}

/// Chunks outside tensors are of the usual size, 64 KiB at most.
fn usual() -> World {
    World::make(&MakeOptions { journal_size: 64 << 20, segment_size: 4 << 20, ..MakeOptions::default() })
}

/// What a file's chunks take, as they are stored.
fn stored(volume: &Volume, ino: u64) -> (usize, u64) {
    let extents = volume.extents(ino).expect("extents").into_iter();
    let chunks = extents.filter_map(|(_, _, kind)| match kind {
        PieceKind::Chunk(piece) => Some((piece.chunk, u64::from(piece.stored))),
        _ => None,
    });
    let chunks: HashMap<_, _> = chunks.collect();
    (chunks.len(), chunks.values().sum())
}

fn repeated(pattern: &[u8], len: usize) -> Vec<u8> {
    pattern.iter().copied().cycle().take(len).collect()
}

#[test]
fn a_pattern_in_any_file_takes_what_the_pattern_takes() {
    let world = usual();
    let volume = open(&world, true);
    for (n, period) in [1, 2, 3, 48, 100].into_iter().enumerate() {
        let file = repeated(&noise(n as u64, period), 1 << 20);
        let ino = create(&volume, &format!("{period}"));
        write(&volume, ino, 0, &file);
        volume.sync().expect("sync");
        reads_as(&volume, ino, &file);
        let (chunks, stored) = stored(&volume, ino);
        assert!(chunks <= 2 && stored < 400, "{period}: {chunks} chunks, {stored} bytes");
    }
    // As long ones, too: what is whole of them is one chunk.
    let file = repeated(&noise(9, 4096), 10 << 20);
    let ino = create(&volume, "long");
    write(&volume, ino, 0, &file);
    volume.sync().expect("sync");
    reads_as(&volume, ino, &file);
    let (chunks, stored) = stored(&volume, ino);
    assert!(chunks <= 2 && stored < 10_000, "{chunks} chunks, {stored} bytes");
}

/// Wherever it begins, and however much of it was read at once.
#[test]
fn a_pattern_is_cut_at_multiples_of_its_length() {
    let world = usual();
    let volume = open(&world, true);
    let step = (1 << 20) / 100 * 100;
    for (n, (before, hole)) in [(100_001, false), (1_000_003, false), (500_001, true)].into_iter().enumerate()
    {
        let first = if hole { vec![0; before] } else { noise(n as u64, before) };
        let file = [first, repeated(&noise(7, 100), 5 << 20)].concat();
        let ino = create(&volume, &format!("{before}"));
        let from = if hole { before } else { 0 };
        write(&volume, ino, from, &file[from..]);
        volume.sync().expect("sync");
        reads_as(&volume, ino, &file);
        let within: Vec<u64> =
            cuts(&volume, ino).into_iter().filter(|cut| *cut > before as u64 + (64 << 10)).collect();
        assert!(within.len() >= 4 && within.iter().all(|cut| cut.is_multiple_of(step)), "{within:?}");
    }
}

/// Else what is written into many zeros, of an image of a disk, has all that follow cut anew.
#[test]
fn a_write_into_a_pattern_has_little_of_it_cut_anew() {
    let world = usual();
    let volume = open(&world, true);
    let mut file = repeated(&noise(1, 3), 12 << 20);
    let ino = create(&volume, "image");
    write(&volume, ino, 0, &file);
    volume.sync().expect("sync");
    let before = cuts(&volume, ino);
    let at = (5 << 20) + 12_345;
    file[at..at + 4096].copy_from_slice(&noise(2, 4096));
    volume.write(ino, at as u64, &noise(2, 4096), false).expect("write");
    volume.sync().expect("sync");
    reads_as(&volume, ino, &file);
    let after = cuts(&volume, ino);
    let (from, to) = (at as u64 - (2 << 20), at as u64 + (2 << 20));
    let elsewhere =
        |cuts: &[u64]| cuts.iter().copied().filter(|cut| !(from..to).contains(cut)).collect::<Vec<_>>();
    assert_eq!(elsewhere(&before), elsewhere(&after));
    // As if it had been written so.
    let whole = create(&volume, "whole");
    write(&volume, whole, 0, &file);
    volume.sync().expect("sync");
    assert_eq!(after, cuts(&volume, whole));
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Fold,
    Sync,
    Remount(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..420_000, 1usize..150_000).prop_map(|(at, len)| Step::Write(at, len)),
        1 => (0usize..3_000, 1usize..3_000).prop_map(|(at, len)| Step::Write(at, len)),
        2 => Just(Step::Fold),
        1 => Just(Step::Sync),
        1 => any::<bool>().prop_map(Step::Remount),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// In pieces, out of order, over what was there, with a header that comes last or changes, and mounts that look for none.
    #[test]
    fn whatever_order_a_file_is_written_in_it_reads_as_it_should(steps in steps(), garbled: bool) {
        let world = world();
        let mut volume = open(&world, true);
        let tensors = [("a", true, weights(4, 300_000, true)), ("b", false, weights(5, 120_000, false))];
        let file = safetensors("", &tensors);
        let ino = create(&volume, "model");
        let mut expected = vec![0u8; 0];
        for (n, step) in steps.iter().enumerate() {
            match step {
                Step::Write(at, len) => {
                    let end = (at + len).min(file.len());
                    let Some(part) = file.get(*at..end) else { continue };
                    let mut part = part.to_vec();
                    if garbled && n % 5 == 4 {
                        part.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x11);
                    }
                    volume.write(ino, *at as u64, &part, false).expect("write");
                    expected.resize(expected.len().max(end), 0);
                    expected[*at..end].copy_from_slice(&part);
                }
                Step::Fold => drop(volume.maintain().expect("maintain")),
                Step::Sync => volume.sync().expect("sync"),
                Step::Remount(tensors) => {
                    volume.close().expect("closed");
                    drop(volume);
                    volume = open(&world, *tensors);
                }
            }
            reads_as(&volume, ino, &expected);
        }
        // Written once more, whole: as if it had never been anything else.
        write(&volume, ino, 0, &file);
        volume.sync().expect("sync");
        reads_as(&volume, ino, &file);
    }

    /// Behind a header that stays, a file folded in pieces has the chunks that it would have if it had been written in one go.
    #[test]
    fn what_is_written_over_is_cut_as_if_it_had_always_been_so(
        changes in prop::collection::vec((500usize..2_300_000, 1usize..40_000, any::<bool>()), 1..8),
    ) {
        let tensors = [("a", true, weights(6, 1_500_000, true)), ("b", false, weights(7, 800_000, false))];
        let mut file = safetensors("", &tensors);
        let world = world();
        let volume = open(&world, true);
        let ino = create(&volume, "pieces");
        write(&volume, ino, 0, &file);
        volume.sync().expect("sync");
        for (n, (at, len, fold)) in changes.into_iter().enumerate() {
            let end = (at + len).min(file.len());
            let Some(part) = file.get_mut(at..end) else { continue };
            part.copy_from_slice(&noise(n as u64, end - at));
            volume.write(ino, at as u64, part, false).expect("write");
            if fold {
                volume.sync().expect("sync");
            }
        }
        volume.sync().expect("sync");
        reads_as(&volume, ino, &file);
        let other = create(&volume, "whole");
        write(&volume, other, 0, &file);
        volume.sync().expect("sync");
        prop_assert_eq!(cuts(&volume, ino), cuts(&volume, other));
    }
}
