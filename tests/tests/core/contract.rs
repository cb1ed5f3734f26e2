//! What `fsync` promises, sentence by sentence, asserted by hand: what must be there after the power was cut at each
//! operation of the disk. And what it does not promise, which has to be seen lost.

use std::cell::{Cell, RefCell};

use cairn_tests::dice::noise;
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, Error, FileKind, RenameMode, Volume};

use super::order::{at_every_cut, bytes_of, file, mount, put};

/// What is at a name of the root, if anything.
fn kind_of(volume: &Volume, name: &[u8]) -> Option<FileKind> {
    volume.lookup(1, name).expect("lookup").map(|attr| attr.kind)
}

fn bytes(volume: &Volume, name: &[u8]) -> Option<Vec<u8>> {
    bytes_of(volume, name).map(|found| found.expect("readable"))
}

fn rename(volume: &Volume, from: &[u8], to: &[u8]) -> Result<(), Error> {
    volume.rename(1, from, 1, to, RenameMode::Replace)
}

fn create(volume: &Volume, name: &[u8]) -> Result<u64, Error> {
    let attr = volume.create(1, name, 0o644, 0, &Caller::default())?;
    volume.release(attr.ino);
    Ok(attr.ino)
}

/// The kernel makes each `O_SYNC` or `O_DSYNC` write a write and an fsync.
fn synced_writes_survive(data_only: bool) {
    let content = noise(1, 20_000);
    let certain = Cell::new(0);
    at_every_cut(
        &World::make(&small()),
        |volume| {
            certain.set(0);
            file(volume, b"f");
            volume.fsync(1, false).expect("fsync");
        },
        |volume| {
            let Ok(Some(attr)) = volume.lookup(1, b"f") else { return };
            for part in [1, 700, 5_000, 5_001, 14_000, 20_000] {
                let bytes = &content[certain.get()..part];
                let written = volume.write(attr.ino, certain.get() as u64, bytes, false);
                if written.and_then(|()| volume.fsync(attr.ino, data_only)).is_err() {
                    return;
                }
                certain.set(part);
            }
        },
        |world, _, what| {
            let volume = mount(world, what);
            let found = bytes(&volume, b"f").unwrap_or_else(|| panic!("{what}: the file is gone"));
            assert!(found.len() >= certain.get(), "{what}: {} of {} bytes", found.len(), certain.get());
            assert!(found == content[..found.len()], "{what}: other bytes");
        },
    );
}

#[test]
fn an_o_sync_write_survives_a_power_cut() {
    synced_writes_survive(false);
}

#[test]
fn an_o_dsync_write_that_grows_the_file_survives_a_power_cut_with_its_length() {
    synced_writes_survive(true);
}

#[test]
fn an_fsync_of_a_directory_makes_its_names_certain() {
    let done = Cell::new(0);
    let certain = Cell::new(false);
    at_every_cut(
        &World::make(&small()),
        |volume| {
            (done.set(0), certain.set(false));
            put(volume, b"renamed", b"one");
            put(volume, b"removed", b"two");
            put(volume, b"linked", b"three");
            volume.fsync(1, false).expect("fsync");
        },
        |volume| {
            let caller = Caller::default();
            let linked = volume.lookup(1, b"linked").ok().flatten().map_or(0, |attr| attr.ino);
            let acts: [&dyn Fn() -> Result<(), Error>; 6] = [
                &|| create(volume, b"made").map(drop),
                &|| rename(volume, b"renamed", b"new name"),
                &|| volume.unlink(1, b"removed"),
                &|| volume.link(linked, 1, b"second name").map(drop),
                &|| volume.mkdir(1, b"directory", 0o755, 0, &caller).map(drop),
                &|| volume.symlink(1, b"symlink", b"target", &caller).map(drop),
            ];
            for act in acts {
                if act().is_err() {
                    return;
                }
                done.set(done.get() + 1);
            }
            certain.set(volume.fsync(1, false).is_ok());
        },
        |world, _, what| {
            let volume = mount(world, what);
            let there = [
                kind_of(&volume, b"made") == Some(FileKind::Regular),
                bytes(&volume, b"new name") == Some(b"one".to_vec()),
                bytes(&volume, b"removed").is_none(),
                bytes(&volume, b"second name") == Some(b"three".to_vec()),
                kind_of(&volume, b"directory") == Some(FileKind::Directory),
                kind_of(&volume, b"symlink") == Some(FileKind::Symlink),
            ];
            assert!(there.windows(2).all(|w| w[0] || !w[1]), "{what}: not in their order: {there:?}");
            assert!(there.iter().filter(|done| **done).count() <= done.get() + 1, "{what}: {there:?}");
            assert!(!certain.get() || there.iter().all(|done| *done), "{what}: lost: {there:?}");
            assert!(there[1] != bytes(&volume, b"renamed").is_some(), "{what}: renamed, or not");
        },
    );
}

#[test]
fn a_file_that_is_written_aside_synced_and_renamed_is_the_old_one_or_the_new_one() {
    let (old, new) = (noise(1, 9_000), noise(2, 7_000));
    let (renamed, certain) = (Cell::new(false), Cell::new(false));
    let (seen_old, seen_new) = (Cell::new(0), Cell::new(0));
    at_every_cut(
        &World::make(&small()),
        |volume| {
            (renamed.set(false), certain.set(false));
            put(volume, b"f", &old);
            volume.fsync(1, false).expect("fsync");
        },
        |volume| {
            let save = || -> Result<(), Error> {
                let ino = create(volume, b"f.tmp")?;
                volume.write(ino, 0, &new, false)?;
                volume.fsync(ino, false)?;
                rename(volume, b"f.tmp", b"f")?;
                renamed.set(true);
                volume.fsync(1, false)?;
                certain.set(true);
                Ok(())
            };
            let _ = save();
        },
        |world, _, what| {
            let volume = mount(world, what);
            let found = bytes(&volume, b"f").unwrap_or_else(|| panic!("{what}: neither old nor new"));
            assert!(found == old || found == new, "{what}: {} bytes of something else", found.len());
            assert!(found == new || !certain.get(), "{what}: the old one after the directory's fsync");
            if found == new {
                assert_eq!(bytes(&volume, b"f.tmp"), None, "{what}: both names");
                seen_new.set(seen_new.get() + 1);
            } else if renamed.get() {
                seen_old.set(seen_old.get() + 1);
            }
        },
    );
    // Control: without the directory's fsync the rename is lost now and then, with its record.
    assert!(seen_old.get() > 0, "no rename without the directory's fsync was ever lost");
    assert!(seen_new.get() > 0);
}

#[test]
fn control_an_append_that_nobody_synced_is_lost_in_some_cut() {
    let (kept, lost) = (Cell::new(0), Cell::new(0));
    let appended = Cell::new(false);
    at_every_cut(
        &World::make(&small()),
        |volume| {
            appended.set(false);
            put(volume, b"f", b"certain");
            volume.fsync(1, false).expect("fsync");
        },
        |volume| {
            let Ok(Some(attr)) = volume.lookup(1, b"f") else { return };
            appended.set(volume.write(attr.ino, 7, b", perhaps", false).is_ok());
            // Something for the cuts that follow.
            let _ = create(volume, b"g").and_then(|_| create(volume, b"h"));
        },
        |world, _, what| {
            let found = bytes(&mount(world, what), b"f").unwrap_or_else(|| panic!("{what}: gone"));
            match &found[..] {
                b"certain" => lost.set(lost.get() + u32::from(appended.get())),
                b"certain, perhaps" => kept.set(kept.get() + 1),
                other => panic!("{what}: {other:?}"),
            }
        },
    );
    assert!(lost.get() > 0 && kept.get() > 0, "{} lost, {} kept", lost.get(), kept.get());
}

/// Two files of the same bytes, the first never synced; what is folded when differs.
fn a_duplicate_survives(second: impl Fn(&Volume, u64, &[u8]) -> Result<u64, Error>) {
    let content = noise(5, 12_000);
    let certain = Cell::new(false);
    at_every_cut(
        &World::make(&small()),
        |_| certain.set(false),
        |volume| {
            let write = || -> Result<(), Error> {
                let first = create(volume, b"first")?;
                volume.write(first, 0, &content, false)?;
                let ino = second(volume, first, &content)?;
                volume.fsync(ino, true)?;
                certain.set(true);
                // Nothing of the first was promised; it may go.
                volume.unlink(1, b"first")?;
                volume.sync()
            };
            let _ = write();
        },
        |world, _, what| {
            let volume = mount(world, what);
            let found = bytes(&volume, b"second");
            assert!(!certain.get() || found.as_deref() == Some(&content[..]), "{what}: lost");
            // Life goes on, and takes nothing away.
            volume.sync().unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(bytes(&volume, b"second"), found, "{what}: folded again");
        },
    );
}

#[test]
fn an_fsync_covers_chunks_that_another_files_unsynced_write_brought() {
    // Both in the journal.
    a_duplicate_survives(|volume, _, content| {
        let ino = create(volume, b"second")?;
        volume.write(ino, 0, content, false)?;
        Ok(ino)
    });
    // The first folded already: the second's chunks are found in its pack.
    a_duplicate_survives(|volume, _, content| {
        volume.maintain()?;
        let ino = create(volume, b"second")?;
        volume.write(ino, 0, content, false)?;
        volume.maintain()?;
        Ok(ino)
    });
    // Folded together, right before the fsync.
    a_duplicate_survives(|volume, _, content| {
        let ino = create(volume, b"second")?;
        volume.write(ino, 0, content, false)?;
        volume.maintain()?;
        Ok(ino)
    });
}

#[test]
fn an_fsync_covers_ranges_copied_from_another_files_unsynced_write() {
    for folded in [false, true] {
        a_duplicate_survives(|volume, first, content| {
            if folded {
                volume.maintain()?;
            }
            let ino = create(volume, b"second")?;
            volume.copy_range((first, 0), (ino, 0), content.len() as u64, false)?;
            Ok(ino)
        });
    }
}

#[test]
fn a_databases_rollback_journal_brings_back_the_state_before_or_leaves_the_one_behind() {
    let (before, page) = (noise(1, 12_288), noise(2, 4_096));
    let after = [&before[..4_096], &page[..], &before[8_192..]].concat();
    let committed = Cell::new(false);
    let seen = RefCell::new([0; 2]);
    at_every_cut(
        &World::make(&small()),
        |volume| {
            committed.set(false);
            put(volume, b"db", &before);
            volume.sync().expect("sync");
        },
        |volume| {
            let commit = || -> Result<(), Error> {
                let db = volume.lookup(1, b"db")?.map_or(0, |attr| attr.ino);
                let journal = create(volume, b"db-journal")?;
                volume.write(journal, 0, &before[4_096..8_192], false)?;
                volume.fsync(journal, true)?;
                volume.fsync(1, false)?;
                volume.write(db, 4_096, &page, false)?;
                volume.fsync(db, true)?;
                volume.unlink(1, b"db-journal")?;
                volume.fsync(1, false)?;
                committed.set(true);
                Ok(())
            };
            let _ = commit();
        },
        |world, _, what| {
            let volume = mount(world, what);
            let mut db = bytes(&volume, b"db").unwrap_or_else(|| panic!("{what}: no database"));
            assert_eq!(db.len(), 12_288, "{what}");
            match bytes(&volume, b"db-journal") {
                // A hot journal is rolled back; one that is not whole was not synced, and the database is as it was.
                Some(old) if old.len() == 4_096 => db[4_096..8_192].copy_from_slice(&old),
                Some(_) => assert!(db == before, "{what}: changed before its journal was certain"),
                None => {}
            }
            assert!(db == before || db == after, "{what}: half a transaction");
            assert!(db == after || !committed.get(), "{what}: a commit is lost");
            seen.borrow_mut()[usize::from(db == after)] += 1;
        },
    );
    assert!(seen.borrow().iter().all(|seen| *seen > 0), "{seen:?}");
}

#[test]
fn a_log_that_is_synced_by_every_append_loses_none_that_was_acknowledged() {
    let acknowledged = Cell::new(0usize);
    let entry = |n: usize| format!("entry {n:05}\n").into_bytes();
    at_every_cut(
        &World::make(&small()),
        |volume| {
            acknowledged.set(0);
            put(volume, b"log", b"");
            volume.fsync(1, false).expect("fsync");
        },
        |volume| {
            let Ok(Some(attr)) = volume.lookup(1, b"log") else { return };
            for n in 0..12 {
                let appended = volume.write(attr.ino, n as u64 * 12, &entry(n), false);
                // Folds come in between, as they like.
                let folded = if n % 5 == 4 { volume.maintain().map(drop) } else { Ok(()) };
                if appended.and(folded).and_then(|()| volume.fsync(attr.ino, true)).is_err() {
                    return;
                }
                acknowledged.set(n + 1);
            }
        },
        |world, _, what| {
            let found = bytes(&mount(world, what), b"log").unwrap_or_else(|| panic!("{what}: no log"));
            let whole: Vec<u8> = (0..found.len() / 12).flat_map(entry).collect();
            assert!(found == whole, "{what}: entries are whole, and in their order");
            assert!(found.len() / 12 >= acknowledged.get(), "{what}: {} bytes", found.len());
        },
    );
}
