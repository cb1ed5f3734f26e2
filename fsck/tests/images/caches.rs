//! Index and engine: what is wrong with them is told, and is no damage.

use std::fs;

use cairn_format::key::Key;
use cairn_format::{IndexSnapshot, Inode};
use cairn_format::{Ino, View};
use cairn_store::Store;
use cairn_volume::Caller;
use cairn_volume::engine::{Checked, Engine, RedbEngine};
use fsck_cairn::Severity;

use crate::fixture::Fixture;

#[test]
fn missing_caches_are_only_told_of() {
    let volume = Fixture::filled();
    fs::remove_file(volume.path("store/index")).unwrap();
    fs::remove_dir_all(volume.path("engine")).unwrap();
    let report = volume.check();
    assert!(report.findings.iter().all(|f| f.severity == Severity::Info));
    assert_eq!(report.findings.len(), 2, "{:#?}", report.findings);
}

#[test]
fn a_damaged_index_is_only_told_of() {
    let volume = Fixture::filled();
    crate::fixture::flip(&volume.path("store/index"), 70);
    let report = volume.check();
    assert_eq!(report.findings.len(), 1);
    assert_eq!((report.findings[0].kind, report.findings[0].severity), ("index", Severity::Info));
}

#[test]
fn a_wrong_slot_of_the_index_is_found() {
    let volume = Fixture::filled();
    let store = Store::superblock_of(&volume.store_disk()).unwrap().newest.uuid;
    let path = volume.path("store/index");
    let mut snapshot = IndexSnapshot::decode(&fs::read(&path).unwrap(), &store).unwrap();
    let slot = snapshot.slots.iter_mut().find(|slot| slot.pack != 0).unwrap();
    slot.fingerprint ^= 1;
    fs::write(&path, snapshot.encode()).unwrap();
    assert_eq!(volume.only("index-slot").severity, Severity::Cache);
}

#[test]
fn a_value_that_differs_in_the_engine_is_found_and_named() {
    let volume = Fixture::filled();
    let key = Key::Inode(Ino::ROOT, View::LIVE).encode();
    {
        let engine = Checked::new(RedbEngine::open(&volume.path("engine"), 1 << 20).unwrap());
        let at = engine.position().unwrap().unwrap();
        let mut inode = Inode::decode(&engine.get(&key).unwrap().unwrap()).unwrap();
        inode.uid += 1;
        engine.apply(&mut [(key, Some(inode.encode()))].into_iter(), at).unwrap();
    }
    let before = volume.bytes();
    let finding = volume.only("engine");
    assert_eq!(finding.severity, Severity::Cache);
    assert_eq!(finding.paths, ["/"]);
    assert_eq!(volume.bytes(), before);
}

#[test]
fn records_that_the_engine_lacks_or_has_too_many_are_found() {
    for (key, value) in
        [(Key::Inode(Ino::ROOT, View::LIVE), None), (Key::Orphan(Ino(99), View::LIVE), Some(Vec::new()))]
    {
        let volume = Fixture::filled();
        {
            let engine = Checked::new(RedbEngine::open(&volume.path("engine"), 1 << 20).unwrap());
            let at = engine.position().unwrap().unwrap();
            engine.apply(&mut [(key.encode(), value)].into_iter(), at).unwrap();
        }
        volume.only("engine");
    }
}

#[test]
fn an_engine_that_is_no_database_is_a_cache_to_throw_away() {
    let volume = Fixture::filled();
    fs::write(volume.path("engine/namespace.redb"), b"nothing of the kind".repeat(1000)).unwrap();
    assert_eq!(volume.only("engine").severity, Severity::Cache);
}

#[test]
fn regression_a_damaged_engine_is_rebuilt_by_the_mount_before_anybody_sees_it() {
    let volume = Fixture::filled();
    {
        let mounted = volume.open();
        let odd = Caller { uid: 4_000_000_007, gid: 0 };
        let ino = mounted.create(1, b"odd", 0o600, 0, &odd).unwrap().ino;
        mounted.release(ino);
        mounted.close().unwrap();
    }
    let path = volume.path("engine/namespace.redb");
    let whole = fs::read(&path).unwrap();
    // A file's inode, wherever its value lies: the library itself does not look at values.
    let uid = 4_000_000_007u32.to_le_bytes();
    let places: Vec<_> = whole.windows(4).enumerate().filter(|(_, w)| *w == uid).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    {
        let mut bytes = whole.clone();
        places.iter().for_each(|at| bytes[*at] ^= 0xff);
        fs::write(&path, bytes).unwrap();
        let mounted = volume.open();
        let mut names = 0;
        let listed = mounted.readdir(1, 0, &mut |item| {
            names += 1;
            assert!(mounted.getattr(item.ino).is_ok(), "{}", String::from_utf8_lossy(item.name));
            true
        });
        listed.unwrap();
        assert!(names > 3, "{names}");
        mounted.close().unwrap();
    }
    assert!(volume.check().findings.iter().all(|f| f.severity == Severity::Info));
}

/// What a volume that was mounted with sled holds in `engine/`, as far as a build without sled can make it up.
#[cfg(not(feature = "sled"))]
#[test]
fn an_engine_that_this_build_lacks_is_told_of_and_is_no_damage() {
    let volume = Fixture::filled();
    fs::remove_file(volume.path("engine/namespace.redb")).unwrap();
    fs::create_dir_all(volume.path("engine/sled/blobs")).unwrap();
    fs::write(volume.path("engine/sled/db"), [1; 4096]).unwrap();
    let report = volume.check();
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    assert_eq!((report.findings[0].kind, report.findings[0].severity), ("engine", Severity::Info));
    assert!(report.findings[0].what.contains("sled") && report.findings[0].what.contains("cache"));
    volume.open().close().unwrap();
    assert!(volume.path("engine/namespace.redb").exists() && !volume.path("engine/sled").exists());
}

#[cfg(feature = "sled")]
#[test]
fn a_sled_engine_is_compared_and_told_of() {
    use cairn_volume::engine::MetaEngine;
    use cairn_volume::{OpenOptions, open};

    let volume = Fixture::filled();
    let options = || OpenOptions { meta_engine: MetaEngine::Sled, ..OpenOptions::default() };
    open(&volume.dir(), options()).unwrap().close().unwrap();
    let before = volume.bytes();
    let report = volume.check();
    assert!(report.findings.is_empty() && report.totals.engine_records > 20, "{report:#?}");
    assert_eq!(volume.bytes(), before);
    // A value that is another, in an engine whose seal is right.
    let key = Key::Inode(Ino::ROOT, View::LIVE).encode();
    {
        let engine = MetaEngine::Sled.open(&volume.path("engine"), 1 << 20, false).unwrap();
        let at = engine.position().unwrap().unwrap();
        let mut inode = Inode::decode(&engine.get(&key).unwrap().unwrap()).unwrap();
        inode.uid += 1;
        engine.apply(&mut [(key, Some(inode.encode()))].into_iter(), at).unwrap();
        engine.close();
    }
    assert_eq!(volume.only("engine").severity, Severity::Cache);
    // Bytes that are others.
    crate::fixture::flip(&volume.path("engine/sled/db"), 7000);
    let finding = volume.only("engine");
    assert!(finding.severity == Severity::Cache && finding.what.contains("not those"), "{finding:?}");
    // Left by a crash.
    drop(open(&volume.dir(), options()).unwrap());
    let report = volume.check();
    assert!(report.findings.iter().all(|f| f.severity == Severity::Info), "{report:#?}");
    assert!(report.findings.iter().any(|f| f.what.contains("not closed")), "{report:#?}");
}
