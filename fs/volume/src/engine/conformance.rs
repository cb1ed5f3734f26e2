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
    #[cfg(feature = "sled")]
    test(&sled::open(dir.path()));
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

/// A scan that goes on while the engine does sees what it began with, however long it is.
#[test]
fn long_scans_see_one_state_while_others_come_and_go() {
    each_engine(|engine| {
        let key = |n: u32| n.to_be_bytes().to_vec();
        let value = |n: u32, round: u32| [n.to_le_bytes(), round.to_le_bytes()].concat();
        let even = (0..3000).step_by(2).map(|n| (key(n), Some(value(n, 0))));
        engine.apply(&mut { even }, at(1)).unwrap();
        let mut seen = Vec::new();
        let each = &mut |found: &[u8], stored: &[u8]| {
            seen.push((found.to_vec(), stored.to_vec()));
            if seen.len() % 100 == 0 {
                // Some go, some come, and some become others.
                let round = seen.len() as u32 / 100;
                let changes = (0..3000).filter(|n| n % 7 == round % 7);
                let mut changes = changes.map(|n| (key(n), (n % 3 > 0).then(|| value(n, round))));
                engine.apply(&mut changes, at(1 + u64::from(round))).unwrap();
            }
            ControlFlow::Continue(())
        };
        engine.scan(&[], &[255; 5], each).unwrap();
        let expected: Vec<_> = (0..3000).step_by(2).map(|n| (key(n), value(n, 0))).collect();
        assert!(seen == expected, "{} of {} keys", seen.len(), expected.len());
    });
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

#[cfg(feature = "sled")]
mod sled {
    use super::*;

    pub(super) fn open(dir: &Path) -> Checked<SledEngine> {
        Checked::new(SledEngine::open(dir, CACHE).unwrap())
    }

    fn failure(dir: &Path) -> String {
        match SledEngine::open(dir, CACHE) {
            Err(EngineError::Failed { engine: "sled", reason }) => reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was opened"),
        }
    }

    /// Writes a few hundred keys, again and again, and closes.
    fn closed(dir: &Path) {
        let engine = open(dir);
        for round in 0..4u64 {
            let mut changes = (0..500u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![round as u8; 300])));
            engine.apply(&mut changes, at(round)).unwrap();
        }
        engine.close();
    }

    fn files(dir: &Path) -> Vec<std::path::PathBuf> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
        }
        files.sort();
        files
    }

    #[test]
    fn what_was_closed_is_found_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut map = BTreeMap::new();
        for round in 0..5u64 {
            let engine = open(dir.path());
            assert_eq!(engine.position().unwrap(), round.checked_sub(1).map(at));
            assert!(!MetaEngine::Sled.was_closed(dir.path()));
            assert!(scan(&engine, &[], &[9]).into_iter().eq(map.clone()));
            let changes: Vec<_> = (0..6u8)
                .filter(|n| u64::from(*n) != round)
                .map(|n| (vec![n], Some(vec![n; round as usize])))
                .collect();
            for (key, value) in &changes {
                map.insert(key.clone(), value.clone().unwrap());
            }
            engine.apply(&mut changes.into_iter(), at(round)).unwrap();
            engine.close();
            engine.close();
            assert!(MetaEngine::Sled.was_closed(dir.path()));
            assert!(engine.get(b"a").is_err() && engine.apply(&mut std::iter::empty(), at(9)).is_err());
        }
    }

    #[test]
    fn what_was_not_closed_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        apply(&engine, &[("a", Some("1"))], 1);
        assert!(failure(dir.path()).contains("not closed"), "while it is open");
        drop(engine);
        assert!(failure(dir.path()).contains("not closed"), "after a crash");
        assert!(!MetaEngine::Sled.was_closed(dir.path()));
        // The way of all engines that fail.
        let fresh = MetaEngine::Sled.open(dir.path(), CACHE, true).unwrap();
        assert_eq!((fresh.position().unwrap(), fresh.get(b"a").unwrap()), (None, None));
    }

    /// A mount that rebuilds its engine has the old one open until its last reader is done.
    #[test]
    fn one_made_anew_beside_one_that_is_still_read_is_not_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        let old = open(dir.path());
        apply(&old, &[("a", Some("old"))], 1);
        let new = MetaEngine::Sled.open(dir.path(), CACHE, true).unwrap();
        apply(&*new, &[("a", Some("new"))], 2);
        assert_eq!(old.get(b"a").unwrap(), Some(b"old".to_vec()));
        apply(&*new, &[("b", Some("new"))], 3);
        new.close();
        drop(old);
        let found = open(dir.path());
        assert_eq!((found.position().unwrap(), keys(&found, "", "~").len()), (Some(at(3)), 2));
    }

    #[test]
    fn an_engine_that_failed_is_not_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = SledEngine::open(dir.path(), CACHE).unwrap();
        apply(&engine, &[("a", Some("1"))], 1);
        engine.fail("the test's");
        assert!(engine.get(b"a").is_err());
        engine.close();
        assert!(!MetaEngine::Sled.was_closed(dir.path()));
    }

    /// sled itself, given such files, panics or takes them as good: it never sees them.
    #[test]
    fn whatever_happens_to_its_files_is_noticed_before_sled_opens_them() {
        let (image, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        closed(image.path());
        let names: Vec<_> = files(image.path());
        assert!(names.len() >= 3, "{names:?}");
        for n in 0..400usize {
            let copy = dir.path().join(n.to_string());
            for name in &names {
                let to = copy.join(name.strip_prefix(image.path()).unwrap());
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(name, to).unwrap();
            }
            let victim = copy.join(names[n % names.len()].strip_prefix(image.path()).unwrap());
            let mut bytes = std::fs::read(&victim).unwrap();
            let at = bytes.len() * (n * 7919 % 400) / 400;
            match n / names.len() % 4 {
                0 => bytes[at] ^= 1 << (n % 8),
                1 => bytes.truncate(at),
                2 => bytes.extend([0; 3]),
                _ => std::fs::rename(&victim, copy.join("sled/other")).unwrap(),
            }
            if victim.exists() {
                std::fs::write(&victim, bytes).unwrap();
            }
            failure(&copy);
            let fresh = MetaEngine::Sled.open(&copy, CACHE, true).unwrap();
            assert_eq!(fresh.position().unwrap(), None);
            std::fs::remove_dir_all(&copy).unwrap();
        }
    }

    #[test]
    fn each_engine_takes_the_place_of_the_other() {
        let dir = tempfile::tempdir().unwrap();
        closed(dir.path());
        assert_eq!(MetaEngine::of_dir(dir.path()), Some(MetaEngine::Sled));
        let engine = MetaEngine::Redb.open(dir.path(), CACHE, false).unwrap();
        assert_eq!(engine.position().unwrap(), None);
        assert_eq!(files(dir.path()), [dir.path().join("namespace.redb")]);
        apply(&*engine, &[("a", Some("1"))], 1);
        drop(engine);
        let engine = MetaEngine::Sled.open(dir.path(), CACHE, false).unwrap();
        assert_eq!(engine.position().unwrap(), None);
        assert_eq!(MetaEngine::of_dir(dir.path()), Some(MetaEngine::Sled));
    }

    /// Readers that begin anywhere in a row of changes see one state each, and an iterator that panics is undone.
    #[test]
    fn readers_see_whole_applies_of_thousands_of_keys() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        let fill = |n: u64| {
            let mut changes = (0..2000u32).map(|key| {
                if n % 5 == 4 && key == 1900 {
                    std::panic::resume_unwind(Box::new("the test's"));
                }
                // Every other one goes in odd rounds, and comes back in even ones.
                let there = key % 2 == 0 || n.is_multiple_of(2);
                (key.to_be_bytes().to_vec(), there.then(|| n.to_le_bytes().to_vec()))
            });
            let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                engine.apply(&mut changes, at(n)).unwrap();
            }));
            assert_eq!(applied.is_err(), n % 5 == 4);
        };
        fill(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while engine.position().unwrap() != Some(at(30)) {
                        let found = scan(&engine, &[], &[255]);
                        let round = u64::from_le_bytes(found[0].1.clone().try_into().unwrap());
                        let expected = if round.is_multiple_of(2) { 2000 } else { 1000 };
                        assert_eq!(found.len(), expected, "round {round}");
                        assert!(found.iter().all(|(_, value)| *value == found[0].1) && round % 5 != 4);
                    }
                });
            }
            (1..=30).for_each(fill);
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn sled_is_a_map(batches in prop::collection::vec(batch(), 1..6), reversed: bool) {
            let dir = tempfile::tempdir().unwrap();
            check_against_a_map(&open(dir.path()), &batches, reversed);
        }
    }
}
