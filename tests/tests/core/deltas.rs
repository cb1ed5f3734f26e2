//! Tensors that are stored as the differences from others: whatever becomes of those, what was written is what is read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use cairn_format::{ChunkPiece, ChunkPlace, Footer, PackKind, PieceKind};
use cairn_store::disk::{Access, Crash};
use cairn_store::{PackReader, list_packs, pack_path};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::engine::Survival;
use cairn_tests::world::{World, small};
use cairn_volume::{
    Caller, Dedup, Error, GcOptions, HealMode, MakeOptions, OpenOptions, ScrubOptions, SetAttr, Volume,
};
use fsck_cairn::{CheckOptions, Quiet};
use proptest::prelude::*;

use super::crash::consistent;
use super::tensors::{safetensors, weights};

fn world() -> World {
    World::make(&MakeOptions { journal_size: 16 << 20, segment_size: 1 << 20, pack_size: 4 << 20, ..small() })
}

fn open(world: &World, delta: bool) -> Arc<Volume> {
    open_with(world, delta, HealMode::On)
}

/// Nothing decoded stays but a little.
fn open_with(world: &World, delta: bool, heal: HealMode) -> Arc<Volume> {
    let options = OpenOptions {
        tensor_delta: delta,
        heal,
        collect: false,
        cache_size: 1 << 20,
        ..OpenOptions::default()
    };
    world.open_with(options).expect("mount")
}

/// Weights that went on being trained for a little: each number is another, by less than a fiftieth.
fn tuned(plain: &[u8], wide: bool, seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let width = if wide { 4 } else { 2 };
    let mut all = Vec::with_capacity(plain.len());
    for number in plain.chunks_exact(width) {
        let mut bytes = [0; 4];
        bytes[4 - width..].copy_from_slice(number);
        let factor = 1.0 + (dice.below(2000) as f32 - 1000.0) / 50_000.0;
        all.extend(&(f32::from_le_bytes(bytes) * factor).to_le_bytes()[4 - width..]);
    }
    all
}

type Tensors = Vec<(&'static str, bool, Vec<u8>)>;

fn base() -> Tensors {
    vec![
        ("a", false, weights(1, 1_500_000, false)),
        ("bias", true, weights(2, 3000, true)),
        ("b", true, weights(3, 700_000, true)),
    ]
}

fn fine_tune(of: &Tensors, seed: u64) -> Tensors {
    of.iter().map(|(name, wide, plain)| (*name, *wide, tuned(plain, *wide, seed))).collect()
}

/// The same numbers in as many bits as they had not: cast down to the nearest, or up.
fn cast(of: &Tensors) -> Tensors {
    let narrow = |number: &[u8; 4]| {
        let bits = u32::from_le_bytes(*number);
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).to_le_bytes()[..2].to_vec()
    };
    let widen = |number: &[u8; 2]| vec![0, 0, number[0], number[1]];
    let cast = |(name, wide, plain): &(&'static str, bool, Vec<u8>)| {
        let plain = match wide {
            true => plain.as_chunks().0.iter().flat_map(narrow).collect(),
            false => plain.as_chunks().0.iter().flat_map(widen).collect(),
        };
        (*name, !wide, plain)
    };
    of.iter().map(cast).collect()
}

fn put(volume: &Volume, name: &str, bytes: &[u8]) -> u64 {
    let ino = match volume.lookup(1, name.as_bytes()).expect("look-up") {
        Some(found) => found.ino,
        None => volume.create(1, name.as_bytes(), 0o644, 0, &Caller::default()).expect("create").ino,
    };
    for (n, part) in bytes.chunks(1 << 18).enumerate() {
        volume.write(ino, (n << 18) as u64, part, false).expect("write");
    }
    volume.release(ino);
    volume.sync().expect("sync");
    ino
}

#[track_caller]
fn reads_as(volume: &Volume, name: &str, expected: &[u8]) {
    let ino = volume.lookup(1, name.as_bytes()).expect("look-up").expect("is there").ino;
    for (n, part) in expected.chunks(50_000).enumerate() {
        let read = volume.read(ino, n as u64 * 50_000, part.len() as u32).expect("read");
        assert!(read == part, "{name}: other bytes from {} on", n * 50_000);
    }
}

fn chunks(volume: &Volume, name: &str) -> Vec<(u64, ChunkPiece)> {
    let ino = volume.lookup(1, name.as_bytes()).expect("look-up").expect("is there").ino;
    let extents = volume.extents(ino).expect("extents").into_iter();
    let chunks = extents.filter_map(|(at, _, kind)| match kind {
        PieceKind::Chunk(piece) => Some((at, piece)),
        _ => None,
    });
    chunks.collect()
}

/// Chunks of a file that are differences.
fn differing(volume: &Volume, name: &str) -> usize {
    chunks(volume, name).iter().filter(|(_, piece)| piece.base.is_some()).count()
}

fn footers(world: &World) -> Vec<Footer> {
    let disk = world.store_disk();
    let packs = list_packs(&*disk).expect("lists").packs;
    let read = |(pack, _): &(cairn_format::PackId, u64)| {
        PackReader::open(&*disk, *pack).and_then(|reader| reader.footer()).expect("whole")
    };
    packs.iter().map(read).filter(|footer| footer.kind == PackKind::Data).collect()
}

/// No chunk that these files differ from is differences itself, and each is there. (What no file refers to any more may differ from what is gone.)
fn one_deep<'n>(world: &World, delta: bool, names: impl IntoIterator<Item = &'n str>) {
    let volume = open(world, delta);
    let by_pack: HashMap<_, _> = footers(world).into_iter().map(|footer| (footer.pack, footer)).collect();
    for name in names {
        for at in chunks(&volume, name).iter().filter_map(|(_, piece)| piece.base) {
            let footer = by_pack.get(&at.pack).unwrap_or_else(|| panic!("{name}: {} is not there", at.pack));
            assert!(
                (at.frame as usize) < footer.frames.len() && footer.base_of(at.frame).is_none(),
                "{name}: {at:?}"
            );
        }
    }
    volume.close().expect("closed");
}

fn gc(volume: &Volume) {
    let thorough = GcOptions { threshold: 100, ..GcOptions::default() };
    volume.gc(&thorough, &mut |_| ControlFlow::Continue(())).expect("gc");
}

fn place_bytes(world: &World, at: &ChunkPlace) -> (Footer, std::ops::Range<u64>) {
    let footer = PackReader::open(&*world.store_disk(), at.pack).and_then(|r| r.footer()).expect("whole");
    let frame = footer.frames[at.frame as usize];
    (footer, frame.offset..frame.offset + u64::from(frame.len))
}

fn spoil(world: &World, at: &ChunkPlace, range: std::ops::Range<u64>) {
    let file = world.store_disk().open(&pack_path(&at.pack), Access::Write).expect("is there");
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start).expect("reads");
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    file.write_at(&bytes, range.start).expect("writes");
}

#[test]
fn a_fine_tune_takes_less_beside_its_base_and_reads_as_it_was_written() {
    let (one, two) = (safetensors("", &base()), safetensors("step 2", &fine_tune(&base(), 5)));
    let stored = [true, false].map(|delta| {
        let world = world();
        let volume = open(&world, delta);
        put(&volume, "one", &one);
        let before = volume.usage().stored;
        put(&volume, "two", &two);
        let added = volume.usage().stored - before;
        assert_eq!(differing(&volume, "one"), 0);
        assert_eq!(differing(&volume, "two") > 2, delta);
        reads_as(&volume, "two", &two);
        reads_as(&volume, "one", &one);
        volume.close().expect("closed");
        drop(volume);
        consistent(&world).expect("fsck");
        one_deep(&world, delta, ["one", "two"]);
        reads_as(&open(&world, delta), "two", &two);
        added
    });
    assert!(stored[0] * 100 < stored[1] * 75, "{stored:?}");
}

#[test]
fn a_cast_of_a_model_takes_next_to_nothing_beside_it_and_the_other_way_round() {
    let models = [base(), cast(&base())];
    let mut tuned = models.clone().map(|model| fine_tune(&model, 9));
    tuned.reverse();
    // Of what had fewer bits the others are to be stored: those of "b", the second time.
    let most = [5, 15];
    for ((one, most), (two, tuned)) in models.iter().zip(most).zip(models.iter().rev().zip(&tuned)) {
        let [one, two, tuned] = [one, two, tuned].map(|model| safetensors("", model));
        let world = world();
        let volume = open(&world, true);
        put(&volume, "one", &one);
        let before = volume.usage().stored;
        put(&volume, "two", &two);
        let added = volume.usage().stored - before;
        assert!(added * 100 < two.len() as u64 * most, "{added} bytes of {}", two.len());
        assert!(differing(&volume, "two") > 3);
        let before = volume.usage().stored;
        put(&volume, "tuned", &tuned);
        let added = volume.usage().stored - before;
        assert!(added * 100 < tuned.len() as u64 * 62, "{added} bytes of {}", tuned.len());
        // Parts of it, too, with nothing decoded before.
        volume.close().expect("closed");
        drop(volume);
        consistent(&world).expect("fsck");
        one_deep(&world, true, ["one", "two", "tuned"]);
        let volume = open(&world, true);
        let mut dice = Dice::new(4);
        for (name, content) in [("two", &two), ("tuned", &tuned)] {
            let ino = volume.lookup(1, name.as_bytes()).expect("look-up").expect("is there").ino;
            for _ in 0..50 {
                let at = dice.below(content.len() as u64) as usize;
                let part = &content[at..content.len().min(at + 1 + dice.below(100_000) as usize)];
                assert!(
                    volume.read(ino, at as u64, part.len() as u32).expect("read") == part,
                    "{name} from {at} on"
                );
            }
        }
        // What they differ from is kept for them, and both are moved: something of each pack is dead.
        let pieces = |volume: &Volume, name| chunks(volume, name).into_iter().map(|(_, piece)| piece);
        let bases =
            |volume: &Volume| pieces(volume, "two").filter_map(|piece| piece.base).collect::<HashSet<_>>();
        let packs = |volume: &Volume| pieces(volume, "two").map(|piece| piece.pack).collect::<HashSet<_>>();
        let (differ, of_bases, of_two) = (differing(&volume, "two"), bases(&volume), packs(&volume));
        volume.unlink(1, b"one").expect("unlink");
        let two = &two[..two.len() - 1];
        let ino = volume.lookup(1, b"two").expect("look-up").expect("is there").ino;
        let cut = SetAttr { size: Some(two.len() as u64), ..SetAttr::default() };
        volume.setattr(ino, &cut, &Caller::default()).expect("cut");
        volume.sync().expect("sync");
        gc(&volume);
        volume.sync().expect("sync");
        gc(&volume);
        reads_as(&volume, "two", two);
        reads_as(&volume, "tuned", &tuned);
        assert!(differing(&volume, "two") >= differ - 1);
        assert!(bases(&volume).is_disjoint(&of_bases) && packs(&volume).is_disjoint(&of_two));
        volume.close().expect("closed");
        drop(volume);
        consistent(&world).expect("fsck");
        reads_as(&open(&world, true), "two", two);
    }
}

#[test]
fn a_base_is_known_by_its_name_or_by_its_numbers_and_after_a_remount_too() {
    let one = base();
    let world = world();
    let volume = open(&world, true);
    put(&volume, "one", &safetensors("", &one));
    volume.close().expect("closed");
    drop(volume);
    let volume = open(&world, true);
    let mut renamed = fine_tune(&one, 6);
    renamed[0].0 = "layers.0.a";
    renamed[2].0 = "layers.0.b";
    let renamed = safetensors("", &renamed);
    put(&volume, "renamed", &renamed);
    assert!(differing(&volume, "renamed") >= 3, "{:?}", chunks(&volume, "renamed"));
    reads_as(&volume, "renamed", &renamed);
    // What is told of it.
    let ino = volume.lookup(1, b"renamed").expect("look-up").expect("there").ino;
    let told = volume.explain(ino, Duration::from_secs(60)).expect("explains");
    assert_eq!(told.tensors[0].codecs, ["differences"], "{told:?}");
    let base = told.tensors[0].base.expect("a base");
    assert!(chunks(&volume, "one").iter().any(|(_, piece)| piece.chunk == base));
    // Others of the same length are no bases.
    let other = safetensors("", &[("c", false, weights(77, 1_500_000, false))]);
    put(&volume, "other", &other);
    assert_eq!(differing(&volume, "other"), 0);
    volume.close().expect("closed");
    drop(volume);
    // Without the table, which may be deleted, they are stored by themselves.
    world.store_disk().remove("bases").expect("was there");
    let volume = open(&world, true);
    let late = safetensors("", &fine_tune(&one, 7));
    put(&volume, "late", &late);
    assert_eq!(differing(&volume, "late"), 0);
    reads_as(&volume, "late", &late);
    reads_as(&volume, "renamed", &renamed);
    volume.close().expect("closed");
    consistent(&world).expect("fsck");
}

#[test]
fn a_base_stays_for_as_long_as_anything_differs_from_it_and_is_compacted_under_it() {
    let (one, two) = (safetensors("", &base()), safetensors("", &fine_tune(&base(), 5)));
    let three = safetensors("", &cast(&base()));
    let world = world();
    let volume = open(&world, true);
    put(&volume, "dies", &noise(1, 3 << 20));
    put(&volume, "one", &one);
    put(&volume, "dies too", &noise(2, 3 << 20));
    put(&volume, "two", &two);
    put(&volume, "three", &three);
    assert!(differing(&volume, "two") > 2 && differing(&volume, "three") > 2);
    let of_base: HashSet<_> = chunks(&volume, "two").iter().filter_map(|(_, piece)| piece.base).collect();
    for name in ["one", "dies", "dies too"] {
        volume.unlink(1, name.as_bytes()).expect("unlink");
    }
    volume.sync().expect("sync");
    for round in 0..3 {
        gc(&volume);
        reads_as(&volume, "two", &two);
        reads_as(&volume, "three", &three);
        for name in ["two", "three"] {
            assert!(differing(&volume, name) > 2, "round {round}: {name} stays differences");
        }
        consistent(&world.fork().crash(Crash::KeepAll, Survival::All)).expect("fsck");
        // More of what shares packs goes.
        if round == 1 {
            volume.unlink(1, b"three").expect("unlink");
            put(&volume, "three", &three);
        }
    }
    let now: HashSet<_> = chunks(&volume, "two").iter().filter_map(|(_, piece)| piece.base).collect();
    assert!(now.is_disjoint(&of_base), "bases were moved");
    one_deep(&world.fork().crash(Crash::KeepAll, Survival::All), true, ["two", "three"]);
    // The last that differs goes, and its base with it.
    volume.unlink(1, b"two").expect("unlink");
    volume.unlink(1, b"three").expect("unlink");
    volume.sync().expect("sync");
    gc(&volume);
    volume.sync().expect("sync");
    assert!(footers(&world).is_empty(), "{} packs are left", footers(&world).len());
    volume.close().expect("closed");
    consistent(&world).expect("fsck");
}

#[test]
fn what_differs_is_found_again_and_copied_with_its_base() {
    let (one, two) = (safetensors("", &base()), safetensors("", &fine_tune(&base(), 5)));
    let world = world();
    let volume = open(&world, true);
    put(&volume, "one", &one);
    let from = put(&volume, "two", &two);
    let new = volume.statistics().new_bytes;
    put(&volume, "again", &two);
    assert!(volume.statistics().new_bytes - new < 100_000);
    assert_eq!(differing(&volume, "again"), differing(&volume, "two"));
    let copy = volume.create(1, b"copy", 0o644, 0, &Caller::default()).expect("create").ino;
    volume.copy_range((from, 0), (copy, 0), two.len() as u64, false).expect("copies");
    for name in ["one", "two", "again"] {
        volume.unlink(1, name.as_bytes()).expect("unlink");
    }
    volume.sync().expect("sync");
    gc(&volume);
    reads_as(&volume, "copy", &two);
    volume.close().expect("closed");
    drop(volume);
    consistent(&world).expect("fsck");
    reads_as(&open(&world, true), "copy", &two);
}

/// One chunk may be there by itself and as differences: a file that names no base must not come to lie where there are differences.
#[test]
fn regression_who_names_no_base_is_not_moved_to_differences() {
    let (one, two) = (safetensors("", &base()), safetensors("", &fine_tune(&base(), 5)));
    let world = world();
    let volume = open(&world, true);
    put(&volume, "one", &one);
    put(&volume, "b", &two);
    volume.close().expect("closed");
    drop(volume);
    let options =
        OpenOptions { tensor_delta: false, dedup: Dedup::Off, collect: false, ..OpenOptions::default() };
    let volume = world.open_with(options).expect("mount");
    put(&volume, "c", &two);
    assert!(differing(&volume, "b") > 2 && differing(&volume, "c") == 0);
    let two = &two[..two.len() - 1];
    for name in ["b", "c"] {
        let ino = volume.lookup(1, name.as_bytes()).expect("look-up").expect("is there").ino;
        let cut = SetAttr { size: Some(two.len() as u64), ..SetAttr::default() };
        volume.setattr(ino, &cut, &Caller::default()).expect("cut");
    }
    volume.unlink(1, b"one").expect("unlink");
    volume.sync().expect("sync");
    gc(&volume);
    for name in ["b", "c"] {
        reads_as(&volume, name, two);
    }
    volume.close().expect("closed");
    drop(volume);
    consistent(&world).expect("fsck");
}

/// Each part of a file, as it reads: right, or an I/O error.
fn lost(volume: &Volume, name: &str, expected: &[u8]) -> u64 {
    let ino = volume.lookup(1, name.as_bytes()).expect("look-up").expect("is there").ino;
    let mut bytes = 0;
    for (n, part) in expected.chunks(9_999).enumerate() {
        match volume.read(ino, n as u64 * 9_999, part.len() as u32) {
            Ok(read) => assert!(read == part, "{name}: wrong bytes from {} on", n * 9_999),
            Err(Error::Io) => bytes += part.len() as u64,
            Err(other) => panic!("{other:?}"),
        }
    }
    bytes
}

#[test]
fn a_damaged_base_is_restored_for_what_differs_from_it_and_lost_with_it() {
    let (one, two) = (safetensors("", &base()), safetensors("", &fine_tune(&base(), 5)));
    let bystander = safetensors("", &[("x", true, weights(50, 500_000, true))]);
    let made = world();
    let volume = open(&made, true);
    put(&volume, "bystander", &bystander);
    put(&volume, "one", &one);
    put(&volume, "two", &two);
    let (_, piece) = *chunks(&volume, "two").iter().find(|(_, piece)| piece.base.is_some()).expect("one");
    volume.close().expect("closed");
    drop(volume);
    let at = piece.base.expect("it is");

    // Within parity.
    let world = made.fork();
    let (footer, frame) = place_bytes(&world, &at);
    // In what is stored as it is of some block.
    let middle = frame.start + (frame.end - frame.start) / 2 + 4_000;
    spoil(&world, &at, middle..middle + 1);
    let volume = open_with(&world, true, HealMode::ReadOnly);
    assert_eq!(lost(&volume, "two", &two), 0);
    assert!(volume.statistics().heals_answered > 0);
    drop(volume);

    // Beyond it: a block is lost of both, and nothing of anything else.
    let world = made.fork();
    spoil(&world, &at, footer.layout().parity_area());
    spoil(&world, &at, middle..middle + 1);
    let volume = open(&world, true);
    for (name, content) in [("one", &one), ("two", &two)] {
        let lost = lost(&volume, name, content);
        assert!((1..=(64 << 10) + 2 * 9_999).contains(&lost), "{name}: {lost} bytes");
    }
    assert_eq!(lost(&volume, "bystander", &bystander), 0);
    let report = volume.scrub(&ScrubOptions::default(), &mut |_| true).expect("scrubs");
    let named: BTreeSet<_> = report.files.iter().flat_map(|file| file.paths.clone()).collect();
    assert_eq!(named, BTreeSet::from(["/one".to_owned(), "/two".to_owned()]));
    drop(volume);
    let report = fsck_cairn::check(&world.disk, world.store_disk(), None, &CheckOptions::default(), &Quiet);
    let findings = report.expect("fsck").findings;
    let told = |text: &str| findings.iter().any(|finding| format!("{finding:?}").contains(text));
    assert!(told("it is the differences from chunk"), "{findings:?}");

    // The whole pack is gone.
    let world = made.fork();
    world.store_disk().remove(&pack_path(&at.pack)).expect("removed");
    let volume = open(&world, true);
    assert!(lost(&volume, "two", &two) > 0);
    drop(volume);
    let report = fsck_cairn::check(&world.disk, world.store_disk(), None, &CheckOptions::default(), &Quiet);
    let findings = report.expect("fsck").findings;
    let told = |text: &str| findings.iter().any(|finding| format!("{finding:?}").contains(text));
    assert!(told("its pack is missing"), "{findings:?}");

    // Written once more it is there again: what is lost is no base, and no duplicate is found of what differs from it.
    let world = made.fork();
    spoil(&world, &at, footer.layout().parity_area());
    spoil(&world, &at, middle..middle + 1);
    let volume = open(&world, true);
    assert!(lost(&volume, "two", &two) > 0);
    put(&volume, "again", &two);
    assert_eq!(lost(&volume, "again", &two), 0);
    assert_eq!(lost(&volume, "two", &two), 0, "read from where it is whole");
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64),
    Patch(usize, usize, usize),
    Unlink(usize),
    Copy(usize, usize),
    Fold,
    Sync,
    Gc,
    Remount(bool),
    Crash(u64),
}

const NAMES: [&str; 4] = ["w", "x", "y", "z"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let file = 0..NAMES.len();
    let step = prop_oneof![
        5 => (file.clone(), 0u64..8).prop_map(|(file, seed)| Step::Write(file, seed)),
        2 => (file.clone(), 0usize..400_000, 1usize..100_000).prop_map(|(f, at, len)| Step::Patch(f, at, len)),
        1 => file.clone().prop_map(Step::Unlink),
        1 => (file.clone(), file).prop_map(|(from, to)| Step::Copy(from, to)),
        2 => Just(Step::Fold),
        2 => Just(Step::Sync),
        2 => Just(Step::Gc),
        1 => any::<bool>().prop_map(Step::Remount),
        2 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..24)
}

fn cases() -> u32 {
    std::env::var("CAIRN_DELTAS").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Versions of a model, written over each other, copied, patched, removed, collected, with mounts and crashes in between.
    #[test]
    fn whatever_becomes_of_bases_files_hold_what_was_written(steps in steps()) {
        let one: Tensors = vec![("a", true, weights(4, 300_000, true)), ("b", false, weights(5, 120_000, false))];
        let version = |seed| match seed {
            0 => safetensors("", &one),
            5 => safetensors("", &cast(&one)),
            6.. => safetensors("", &cast(&fine_tune(&one, seed - 5))),
            seed => safetensors("", &fine_tune(&one, seed)),
        };
        let mut world = world();
        let mut volume = open(&world, true);
        let mut expected: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for step in &steps {
            match step {
                Step::Write(file, seed) => {
                    let bytes = version(*seed);
                    put(&volume, NAMES[*file], &bytes);
                    expected.insert(NAMES[*file], bytes);
                }
                Step::Patch(file, at, len) => {
                    let Some(bytes) = expected.get_mut(NAMES[*file]) else { continue };
                    let end = (at + len).min(bytes.len());
                    let Some(part) = bytes.get_mut(*at..end) else { continue };
                    part.iter_mut().step_by(3).for_each(|byte| *byte ^= 1);
                    let part = part.to_vec();
                    let ino = volume.lookup(1, NAMES[*file].as_bytes()).expect("look-up").expect("there").ino;
                    volume.write(ino, *at as u64, &part, false).expect("write");
                }
                Step::Unlink(file) => {
                    if expected.remove(NAMES[*file]).is_some() {
                        volume.unlink(1, NAMES[*file].as_bytes()).expect("unlink");
                    }
                }
                Step::Copy(from, to) if from != to => {
                    let Some(bytes) = expected.get(NAMES[*from]).cloned() else { continue };
                    if expected.remove(NAMES[*to]).is_some() {
                        volume.unlink(1, NAMES[*to].as_bytes()).expect("unlink");
                    }
                    let source = volume.lookup(1, NAMES[*from].as_bytes()).expect("look-up").expect("there").ino;
                    let to_ino = volume.create(1, NAMES[*to].as_bytes(), 0o644, 0, &Caller::default()).expect("create").ino;
                    volume.copy_range((source, 0), (to_ino, 0), bytes.len() as u64, false).expect("copies");
                    volume.release(to_ino);
                    expected.insert(NAMES[*to], bytes);
                }
                Step::Copy(..) => {}
                Step::Fold => drop(volume.maintain().expect("maintain")),
                Step::Sync => volume.sync().expect("sync"),
                Step::Gc => gc(&volume),
                Step::Remount(delta) => {
                    volume.close().expect("closed");
                    drop(volume);
                    if let Err(wrong) = consistent(&world) {
                        prop_assert!(false, "{}", wrong);
                    }
                    volume = open(&world, *delta);
                }
                Step::Crash(seed) => {
                    // What is certain is there, whatever of the rest is.
                    volume.fsync(1, false).expect("fsync");
                    let crash = if seed % 2 == 0 { Crash::DropUnsynced } else { Crash::Random(*seed) };
                    let after = world.crash(crash, if seed % 3 == 0 { Survival::None } else { Survival::All });
                    drop(volume);
                    world = after;
                    volume = open(&world, true);
                }
            }
            for (name, bytes) in &expected {
                reads_as(&volume, name, bytes);
            }
        }
        volume.close().expect("closed");
        drop(volume);
        if let Err(wrong) = consistent(&world) {
            prop_assert!(false, "{}", wrong);
        }
        one_deep(&world, true, expected.keys().copied());
    }
}

/// Every place that a file names is counted, so that no pack goes that something differs from: held against footers.
#[test]
fn bases_are_named_in_footers_as_extents_name_their_places() {
    let world = world();
    let volume = open(&world, true);
    put(&volume, "one", &safetensors("", &base()));
    put(&volume, "two", &safetensors("", &fine_tune(&base(), 5)));
    let pieces = chunks(&volume, "two");
    volume.close().expect("closed");
    let by_pack: HashMap<_, _> = footers(&world).into_iter().map(|footer| (footer.pack, footer)).collect();
    let chunk_at = |at: &ChunkPlace| {
        let footer = &by_pack[&at.pack];
        let before: u32 = footer.frames[..at.frame as usize].iter().map(|frame| frame.chunks).sum();
        footer.chunks[(before + at.slot) as usize]
    };
    for (_, piece) in &pieces {
        let named = by_pack[&piece.pack].base_of(piece.frame);
        assert_eq!(named, piece.base.map(|at| chunk_at(&at).id));
        assert_eq!(chunk_at(&piece.place()).id, piece.chunk);
    }
    assert!(pieces.iter().any(|(_, piece)| piece.base.is_some()));
    // Who decodes all of it finds nothing wrong, whether the index knows the bases or not.
    for index_mem in [1 << 20, 1 << 10] {
        let options = OpenOptions { index_mem, collect: false, ..OpenOptions::default() };
        let volume = world.open_with(options).expect("mount");
        let deep = ScrubOptions { deep: true, ..ScrubOptions::default() };
        let report = volume.scrub(&deep, &mut |_| true).expect("scrubs");
        assert_eq!((report.uncorrected, report.files.len()), (0, 0), "{report:?}");
        volume.close().expect("closed");
    }
}

/// A small volume with a base that has no file of its own any more, and what differs from it, beside what is dead; closed.
fn orphaned_base() -> (World, Vec<u8>) {
    let small_base: Tensors =
        vec![("a", true, weights(4, 60_000, true)), ("b", false, weights(5, 40_000, false))];
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let two = safetensors("", &fine_tune(&small_base, 3));
    put(&volume, "dead", &noise(1, 30_000));
    put(&volume, "one", &safetensors("", &small_base));
    put(&volume, "dead too", &noise(2, 30_000));
    put(&volume, "two", &two);
    assert_eq!(differing(&volume, "two"), 2);
    for name in ["dead", "one", "dead too"] {
        volume.unlink(1, name.as_bytes()).expect("unlink");
    }
    volume.close().expect("close");
    (world, two)
}

#[test]
fn the_power_may_go_at_any_moment_while_a_base_is_moved() {
    let (base, two) = orphaned_base();
    let moved = std::cell::Cell::new(0);
    super::order::at_every_cut(
        &base,
        |_| {},
        |volume| {
            let thorough = GcOptions { threshold: 100, ..GcOptions::default() };
            let _ = volume.gc(&thorough, &mut |_| ControlFlow::Continue(()));
        },
        |world, over, what| {
            let volume = super::order::mount(world, what);
            reads_as(&volume, "two", &two);
            if over {
                moved.set(moved.get() + differing(&volume, "two"));
            }
            gc(&volume);
            reads_as(&volume, "two", &two);
            volume.close().expect("close");
            consistent(world).unwrap_or_else(|e| panic!("{what}: {e}"));
        },
    );
    assert!(moved.get() > 0, "they stay differences");
}

#[test]
fn the_power_may_go_at_any_moment_while_differences_are_folded() {
    let (base, two) = orphaned_base();
    let three =
        fine_tune(&vec![("a", true, weights(4, 60_000, true)), ("b", false, weights(5, 40_000, false))], 9);
    let three = safetensors("", &three);
    let ino = std::cell::Cell::new(0);
    super::order::at_every_cut(
        &base,
        |volume| {
            let file = volume.create(1, b"three", 0o644, 0, &Caller::default()).expect("create").ino;
            for (n, part) in three.chunks(8_000).enumerate() {
                volume.write(file, n as u64 * 8_000, part, false).expect("write");
            }
            volume.fsync(file, false).expect("fsync");
            ino.set(file);
        },
        |volume| {
            let _ = volume.sync();
            let _ = volume.unlink(1, b"two");
            let _ = volume.sync();
        },
        |world, over, what| {
            let volume = super::order::mount(world, what);
            reads_as(&volume, "three", &three);
            if over {
                assert_eq!(differing(&volume, "three"), 2, "{what}");
            } else if volume.lookup(1, b"two").expect("look-up").is_some() {
                reads_as(&volume, "two", &two);
            }
            volume.close().expect("close");
            consistent(world).unwrap_or_else(|e| panic!("{what}: {e}"));
        },
    );
}
