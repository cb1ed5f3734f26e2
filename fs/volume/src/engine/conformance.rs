//! What every engine does, run over each kind.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use cairn_format::{CheckpointRef, Lsn, PackId};
use proptest::prelude::*;

use super::*;

const CACHE: usize = 1 << 20;

fn redb(dir: &Path) -> Checked<RedbEngine> {
    Checked::new(RedbEngine::open(dir, CACHE).unwrap())
}

/// Runs a test over every kind of engine, each new and empty.
fn each_engine(test: impl Fn(&dyn Engine)) {
    let dir = tempfile::tempdir().unwrap();
    test(&MemoryEngine::new());
    test(&Checked::new(MemoryEngine::new()));
    test(&redb(dir.path()));
}

fn at(lsn: u64) -> CheckpointRef {
    CheckpointRef { lsn: Lsn(lsn), pack: PackId([lsn as u8; 16]) }
}

fn apply(engine: &dyn Engine, changes: &[(&str, Option<&str>)], lsn: u64) {
    let mut changes =
        changes.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.map(|v| v.as_bytes().to_vec())));
    engine.apply(&mut changes, at(lsn)).unwrap();
}

fn scan(engine: &dyn Engine, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let each = &mut |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    engine.scan(from, to, each).unwrap();
    found
}

fn keys(engine: &dyn Engine, from: &str, to: &str) -> Vec<String> {
    let text = |(key, _)| String::from_utf8(key).unwrap();
    scan(engine, from.as_bytes(), to.as_bytes()).into_iter().map(text).collect()
}

#[test]
fn a_new_engine_is_empty() {
    each_engine(|engine| {
        assert_eq!(engine.position().unwrap(), None);
        assert_eq!(engine.get(b"a").unwrap(), None);
        assert!(keys(engine, "", "~").is_empty());
    });
}

#[test]
fn changes_and_position_are_applied_together() {
    each_engine(|engine| {
        apply(engine, &[("b", Some("1")), ("a", Some("")), ("", Some("empty"))], 7);
        assert_eq!(engine.position().unwrap(), Some(at(7)));
        assert_eq!(engine.get(b"a").unwrap(), Some(vec![]));
        assert_eq!(engine.get(b"b").unwrap(), Some(b"1".to_vec()));
        assert_eq!(engine.get(b"").unwrap(), Some(b"empty".to_vec()));
        apply(engine, &[("b", Some("longer than before")), ("a", None), ("missing", None)], 9);
        assert_eq!(engine.position().unwrap(), Some(at(9)));
        assert_eq!(engine.get(b"a").unwrap(), None);
        assert_eq!(engine.get(b"b").unwrap(), Some(b"longer than before".to_vec()));
        apply(engine, &[], 10);
        assert_eq!(engine.position().unwrap(), Some(at(10)));
        apply(engine, &[], 0);
        assert_eq!(engine.position().unwrap(), Some(at(0)));
    });
}

#[test]
fn an_iterator_that_panics_changes_nothing() {
    each_engine(|engine| {
        apply(engine, &[("a", Some("1"))], 1);
        let panics = || {
            let mut changes = (0..9).map(|i| match i {
                8 => std::panic::resume_unwind(Box::new("the test's")),
                _ => (vec![i], Some(vec![i])),
            });
            engine.apply(&mut changes, at(2))
        };
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the test's"), "the panic is passed on");
        assert_eq!(scan(engine, &[], &[9]), []);
        assert_eq!(engine.position().unwrap(), Some(at(1)));
        apply(engine, &[("b", Some("2"))], 3);
        assert_eq!(keys(engine, "", "~"), ["a", "b"]);
    });
}

#[test]
fn scans_are_in_order_and_within_bounds() {
    each_engine(|engine| {
        apply(
            engine,
            &[("b", Some("")), ("c", Some("")), ("a", Some("")), ("bb", Some("")), ("b\0", Some(""))],
            1,
        );
        assert_eq!(keys(engine, "", "~"), ["a", "b", "b\0", "bb", "c"]);
        assert_eq!(keys(engine, "b", "c"), ["b", "b\0", "bb"]);
        assert_eq!(keys(engine, "b\0", "bb"), ["b\0"]);
        assert_eq!(keys(engine, "aa", "b"), [""; 0]);
        assert_eq!(keys(engine, "b", "b"), [""; 0]);
        assert_eq!(keys(engine, "c", "a"), [""; 0]);
        assert_eq!(keys(engine, "", ""), [""; 0]);
        assert_eq!(keys(engine, "d", "~"), [""; 0]);
    });
}

#[test]
fn scans_stop_when_told_to() {
    each_engine(|engine| {
        apply(engine, &[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))], 1);
        let mut calls = 0;
        let each = &mut |key: &[u8], _: &[u8]| {
            calls += 1;
            if key == b"b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        engine.scan(b"a", b"z", each).unwrap();
        assert_eq!(calls, 2);
    });
}

#[test]
fn a_scan_sees_one_state_and_may_use_the_engine() {
    each_engine(|engine| {
        apply(engine, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))], 1);
        let mut seen = String::new();
        let each = &mut |key: &[u8], value: &[u8]| {
            if key == b"a" {
                apply(engine, &[("b", Some("2")), ("c", None), ("d", Some("2"))], 2);
                assert_eq!(engine.get(b"b").unwrap(), Some(b"2".to_vec()));
            }
            seen.push_str(&String::from_utf8([key, value].concat()).unwrap());
            ControlFlow::Continue(())
        };
        engine.scan(b"a", b"z", each).unwrap();
        assert_eq!(seen, "a1b1c1");
        assert_eq!(keys(engine, "a", "z"), ["a", "b", "d"]);
    });
}

#[test]
fn readers_see_whole_applies() {
    each_engine(|engine| {
        let keys: Vec<Vec<u8>> = (0..50u8).map(|i| vec![i]).collect();
        let fill = |n: u64| {
            let mut changes = keys.iter().map(|key| (key.clone(), Some(n.to_le_bytes().to_vec())));
            engine.apply(&mut changes, at(n)).unwrap();
        };
        fill(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while engine.position().unwrap() != Some(at(20)) {
                        let found = scan(engine, &[], &[255]);
                        assert!(found.len() == 50 && found.iter().all(|(_, value)| *value == found[0].1));
                    }
                });
            }
            (1..=20).for_each(fill);
        });
    });
}

#[test]
fn large_values_fit() {
    each_engine(|engine| {
        let value = vec![5; 1 << 20];
        engine.apply(&mut [(vec![1; 700], Some(value.clone()))].into_iter(), at(1)).unwrap();
        assert_eq!(engine.get(&[1; 700]).unwrap(), Some(value));
    });
}

#[test]
fn redb_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = redb(dir.path());
    apply(&first, &[("a", Some("1")), ("b", Some("2"))], 3);
    assert!(matches!(RedbEngine::open(dir.path(), CACHE), Err(EngineError::Failed { engine: "redb", .. })));
    drop(first);
    let second = redb(dir.path());
    assert_eq!(second.position().unwrap(), Some(at(3)));
    assert_eq!(keys(&second, "", "~"), ["a", "b"]);
}

#[test]
fn redb_killed_is_found_at_its_last_apply() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = redb(dir.path());
    apply(&engine, &[("a", Some("1"))], 1);
    apply(&engine, &[("b", Some("2"))], 2);
    // What is in the file while the engine is open is what a killed process leaves.
    std::fs::copy(dir.path().join("namespace.redb"), copy.path().join("namespace.redb")).unwrap();
    apply(&engine, &[("c", Some("3"))], 3);
    let found = redb(copy.path());
    assert_eq!(found.position().unwrap(), Some(at(2)));
    assert_eq!(keys(&found, "", "~"), ["a", "b"]);
}

#[test]
fn what_redb_cannot_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(RedbEngine::open(&dir.path().join("missing"), CACHE).is_err());
    for bytes in [&b"not a database"[..], &[0; 8192]] {
        std::fs::write(dir.path().join("namespace.redb"), bytes).unwrap();
        assert!(matches!(RedbEngine::open(dir.path(), CACHE), Err(EngineError::Failed { .. })));
    }
}

/// Bytes that change under redb come out as an error or as what was stored, not as other values and
/// not as a panic.
#[test]
fn damage_under_redb_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let value = |i: u32| i.to_le_bytes().repeat(25);
    let mut changes = (0..500u32).map(|i| (i.to_be_bytes().to_vec(), Some(value(i))));
    let engine = redb(dir.path());
    engine.apply(&mut changes, at(1)).unwrap();
    drop(engine);
    let file = dir.path().join("namespace.redb");
    let image = std::fs::read(&file).unwrap();
    let mut noticed = 0;
    for damaged in (0..image.len()).step_by(image.len() / 100 + 1) {
        let mut bytes = image.clone();
        let end = (damaged + 16).min(bytes.len());
        bytes[damaged..end].fill(0xa5);
        std::fs::write(&file, &bytes).unwrap();
        let Ok(engine) = RedbEngine::open(dir.path(), CACHE) else {
            noticed += 1;
            continue;
        };
        let engine = Checked::new(engine);
        for i in 0..500 {
            match engine.get(&u32::to_be_bytes(i)) {
                Ok(Some(found)) => assert_eq!(found, value(i)),
                // A damaged key hides its value: the engine's own checksums see to that, on check.
                Ok(None) => {}
                Err(_) => noticed += 1,
            }
        }
        let each = &mut |_: &[u8], _: &[u8]| ControlFlow::Continue(());
        let _ = engine.scan(&[], &[255; 8], each);
    }
    assert!(noticed > 0);
}

#[test]
fn a_value_that_does_not_match_is_damaged() {
    let engine = Checked::new(MemoryEngine::new());
    apply(&engine, &[("a", Some("1")), ("b", Some("value")), ("c", Some("3"))], 1);
    let stored = engine.inner().get(b"b").unwrap().unwrap();
    let mut flipped = stored.clone();
    flipped[10] ^= 1;
    let moved = engine.inner().get(b"a").unwrap().unwrap();
    let cases =
        [(flipped, 5), (moved, 1), (stored[..12].to_vec(), 4), (stored[..3].to_vec(), 0), (vec![], 0)];
    for (bytes, len) in cases {
        engine.inner().apply(&mut [(b"b".to_vec(), Some(bytes))].into_iter(), at(2)).unwrap();
        let expected =
            |e: &EngineError| matches!(e, EngineError::Damaged { key, len: l } if key == "62" && *l == len);
        assert!(expected(&engine.get(b"b").unwrap_err()));
        let mut seen = Vec::new();
        let each = &mut |key: &[u8], _: &[u8]| {
            seen.push(key.to_vec());
            ControlFlow::Continue(())
        };
        assert!(expected(&engine.scan(b"a", b"z", each).unwrap_err()));
        assert_eq!(seen, [b"a"]);
    }
}

type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Few enough keys that batches meet.
fn batch() -> impl Strategy<Value = Batch> {
    let key = prop::collection::vec(0..4u8, 0..4);
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..200));
    prop::collection::btree_map(key, value, 0..12)
}

fn check_against_a_map(engine: &dyn Engine, batches: &[Batch], reversed: bool) {
    let mut map = BTreeMap::new();
    for (lsn, batch) in batches.iter().enumerate() {
        let changes = batch.clone().into_iter();
        let applied = match reversed {
            true => engine.apply(&mut changes.rev(), at(lsn as u64)),
            false => engine.apply(&mut { changes }, at(lsn as u64)),
        };
        applied.unwrap();
        for (key, value) in batch {
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
            assert_eq!(engine.get(key).unwrap(), *value);
        }
        assert_eq!(engine.position().unwrap(), Some(at(lsn as u64)));
        for (from, to) in [(&[][..], &[9][..]), (&[1], &[2, 3]), (&[0, 0], &[3, 1, 1])] {
            let range =
                map.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
            assert!(scan(engine, from, to).iter().map(|(k, v)| (k, v)).eq(range));
        }
    }
}

proptest! {
    #[test]
    fn memory_is_a_map(batches in prop::collection::vec(batch(), 1..8), reversed: bool) {
        check_against_a_map(&MemoryEngine::new(), &batches, reversed);
        check_against_a_map(&Checked::new(MemoryEngine::new()), &batches, reversed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Fewer: each commit waits for the disk.
    #[test]
    fn redb_is_a_map(batches in prop::collection::vec(batch(), 1..6), reversed: bool) {
        let dir = tempfile::tempdir().unwrap();
        check_against_a_map(&redb(dir.path()), &batches, reversed);
    }
}
