//! Errors that nobody was waiting for: what `fsync` says of them, and to whom.

use std::io::ErrorKind;

use cairn_store::disk::{Access, Crash, Disk};
use cairn_tests::dice::noise;
use cairn_tests::engine::Survival;
use cairn_tests::logged::logged;
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, Error, MakeOptions, SetAttr, Volume};

use super::crash::consistent;
use super::order::{bytes_of, file, mount, put};

/// Damages the journalled bytes that begin with these.
fn damage(world: &World, bytes: &[u8]) {
    for path in world.disk.files().into_iter().filter(|path| path.ends_with(".seg")) {
        let segment = world.disk.open(&path, Access::Read).expect("a segment");
        let mut all = vec![0; segment.len().expect("len") as usize];
        segment.read_exact_at(&mut all, 0).expect("read");
        if let Some(at) = all.windows(64).position(|window| window == &bytes[..64]) {
            return world.disk.corrupt(&path, at as u64, 1).expect("corrupt");
        }
    }
    panic!("the bytes lie in no segment");
}

fn overwrite(volume: &Volume, ino: u64, bytes: &[u8]) {
    volume.write(ino, 0, bytes, false).expect("write");
}

/// A round of what a thread does elsewhere, whatever comes of it.
fn maintain(volume: &Volume) {
    let _ = volume.maintain();
}

fn open(volume: &Volume, ino: u64) -> u64 {
    volume.open(ino).expect("open");
    volume.handle(ino)
}

#[test]
fn each_handle_that_is_told_of_opens_hears_of_lost_bytes_once() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let (ino, other) = (file(&volume, b"f"), put(&volume, b"other", &noise(20, 3_000)));
    let (first, second) = (open(&volume, ino), open(&volume, ino));
    let told = |handle| volume.fsync_handle(ino, handle, false);
    for round in 0..3 {
        let bytes = noise(round, 3_000);
        overwrite(&volume, ino, &bytes);
        assert_eq!((told(first), told(second)), (Ok(()), Ok(())), "nobody knows yet");
        damage(&world, &bytes);
        // The background finds out, more than once.
        let (_, log) = logged(|| (0..3).for_each(|_| maintain(&volume)));
        let said = log.iter().filter(|line| line.contains("cannot be read")).count();
        assert_eq!(said, 1, "{log:?}");
        let unseen = open(&volume, ino);
        assert_eq!(told(first), Err(Error::Io), "round {round}");
        assert_eq!(told(first), Ok(()), "once");
        let seen = open(&volume, ino);
        assert_eq!((told(second), told(second)), (Err(Error::Io), Ok(())));
        assert_eq!((told(unseen), told(unseen)), (Err(Error::Io), Ok(())), "nobody had seen it yet");
        assert_eq!(told(seen), Ok(()), "opened when it was known");
        assert_eq!(volume.fsync_handle(other, open(&volume, other), false), Ok(()), "another file");
        assert_eq!(volume.read(ino, 0, 3_000), Err(Error::Io), "never other bytes");
        [unseen, seen].into_iter().for_each(|handle| volume.release_handle(handle));
    }
    assert!(!volume.is_read_only());
    overwrite(&volume, ino, &noise(9, 3_000));
    volume.close().expect("nothing is lost any more");
    consistent(&world).expect("fsck");
}

#[test]
fn where_opens_are_not_told_every_fsync_fails_while_bytes_are_lost() {
    type Mend<'a> = (&'a str, &'a dyn Fn(&Volume, u64));
    let mend: [Mend<'_>; 3] = [
        ("written over", &|volume, ino| overwrite(volume, ino, &noise(9, 3_000))),
        ("cut off", &|volume, ino| {
            let empty = SetAttr { size: Some(0), ..SetAttr::default() };
            volume.setattr(ino, &empty, &Caller::default()).expect("truncate");
        }),
        ("removed", &|volume, ino| {
            volume.unlink(1, b"f").expect("unlink");
            volume.forget(&[ino]);
        }),
    ];
    for (what, mend) in mend {
        let world = World::make(&small());
        let volume = world.open().expect("mount");
        volume.expect_forgets();
        let (bytes, kept) = (noise(1, 3_000), noise(2, 3_000));
        let (ino, other) = (put(&volume, b"f", &bytes), put(&volume, b"other", &kept));
        volume.copy_range((ino, 0), (other, 3_000), 1_000, false).expect("copy");
        assert_eq!(volume.fsync(ino, false), Ok(()), "{what}");
        damage(&world, &bytes);
        assert!(volume.sync().is_err(), "{what}: not everything can be folded");
        for _ in 0..3 {
            assert_eq!(volume.fsync(ino, false), Err(Error::Io), "{what}");
            assert_eq!(volume.fsync(other, false), Err(Error::Io), "{what}: it has a copy of them");
        }
        assert_eq!(volume.fsync(1, false), Ok(()), "{what}: a directory");
        // Behind what is lost, too.
        volume.write(ino, 9_000, b"more", false).expect("write");
        assert_eq!(volume.fsync(ino, false), Err(Error::Io), "{what}");
        mend(&volume, ino);
        assert_eq!(volume.fsync(ino, false), Ok(()), "{what}");
        assert_eq!(volume.fsync(other, false), Err(Error::Io), "{what}: the copy is lost still");
        volume.unlink(1, b"other").expect("unlink");
        volume.forget(&[other]);
        volume.close().unwrap_or_else(|e| panic!("{what}: {e}"));
        consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

#[test]
fn a_read_that_finds_bytes_lost_is_told_to_fsync_as_well() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let bytes = noise(1, 3_000);
    let ino = put(&volume, b"f", &bytes);
    damage(&world, &bytes);
    assert_eq!(volume.read(ino, 0, 10), Err(Error::Io));
    assert_eq!(volume.fsync(ino, false), Err(Error::Io));
    // A disk that could not be read for a moment is no loss.
    let other = put(&volume, b"other", &noise(2, 3_000));
    world.disk.fail_read_at(world.disk.reads(), ErrorKind::Other);
    assert_eq!(volume.read(other, 0, 10).map(|found| found.len()), Ok(10));
    assert_eq!(volume.fsync(other, false), Ok(()));
}

#[test]
fn a_pack_that_cannot_be_written_is_no_error_of_fsync_since_the_journal_has_the_bytes() {
    let base = World::make(&small());
    let bytes = noise(1, 9_000);
    let mut failed = 0;
    for n in 0..40 {
        let world = base.fork();
        let volume = world.open().expect("mount");
        let ino = put(&volume, b"f", &bytes);
        volume.fsync(ino, false).expect("fsync");
        let handle = open(&volume, ino);
        world.disk.fail_at(world.disk.operations() + n, ErrorKind::Other, false);
        failed += u32::from(volume.maintain().is_err());
        if !volume.is_read_only() {
            assert_eq!(volume.fsync_handle(ino, handle, false), Ok(()), "operation {n}");
            assert_eq!(volume.fsync(ino, false), Ok(()), "operation {n}");
        }
        drop(volume);
        let volume = mount(&world.crash(Crash::DropUnsynced, Survival::None), "after it");
        assert_eq!(bytes_of(&volume, b"f"), Some(Ok(bytes.clone())), "operation {n}");
    }
    assert!(failed > 5, "{failed} folds failed");
}

#[test]
fn a_background_sync_that_fails_fails_every_fsync_of_every_handle_until_the_next_mount() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let (one, two) = (put(&volume, b"one", b"certain"), put(&volume, b"two", b"certain"));
    volume.fsync(1, false).expect("fsync");
    let handles = [(one, open(&volume, one)), (one, open(&volume, one)), (two, open(&volume, two))];
    volume.sync().expect("sync");
    file(&volume, b"three");
    // From here on no sync succeeds: a checkpoint is the first to find out.
    world.disk.fail_at(world.disk.operations(), ErrorKind::Other, true);
    let (_, log) = logged(|| (0..3).for_each(|_| maintain(&volume)));
    assert!(volume.is_read_only(), "{log:?}");
    for _ in 0..3 {
        for (ino, handle) in handles {
            assert_eq!(volume.fsync_handle(ino, handle, false), Err(Error::Io));
            assert_eq!(volume.fsync(ino, true), Err(Error::Io));
        }
    }
    let said = log.iter().filter(|line| line.contains("takes no more writes")).count();
    assert_eq!(said, 1, "{log:?}");
    assert_eq!(bytes_of(&volume, b"one"), Some(Ok(b"certain".to_vec())), "reads go on");
    drop(volume);
    let volume = mount(&world.healed(), "on a disk that is well again");
    assert_eq!(bytes_of(&volume, b"three"), Some(Ok(Vec::new())));
    assert_eq!(volume.fsync(one, false), Ok(()));
}

#[test]
fn regression_what_is_written_beside_a_rotten_chunk_is_folded_and_the_journal_goes_on() {
    // It was tried again for ever, and held the whole journal.
    let world = World::make(&MakeOptions { journal_size: 512 << 10, ..small() });
    let volume = world.open().expect("mount");
    let f = put(&volume, b"f", &noise(1, 30_000));
    volume.sync().expect("sync");
    volume.close().expect("close");
    drop(volume);
    for pack in world.packs() {
        let len = world.disk.open(&pack, Access::Read).and_then(|f| f.len()).expect("len");
        if len > 30_000 {
            for at in (0..29_000).step_by(256) {
                world.disk.corrupt(&pack, 400 + at, 1).expect("corrupt");
            }
        }
    }
    let volume = world.open().unwrap_or_else(|e| panic!("{e}"));
    volume.write(f, 30_000, &noise(2, 3_000), false).expect("write");
    volume.write(f, 10_000, &noise(3, 10_000), false).expect("write");
    let hot = file(&volume, b"hot");
    for round in 0..400u64 {
        let written = volume.write(hot, 0, &noise(round, 6_000), false);
        assert_eq!(written, Ok(()), "round {round}");
    }
    let holds = |volume: &Volume| {
        assert_eq!(volume.read(f, 30_000, 9_000), Ok(noise(2, 3_000)), "behind what is rotten");
        assert_eq!(volume.read(f, 10_000, 10_000), Ok(noise(3, 10_000)), "in its middle");
        assert_eq!(volume.read(f, 0, 4_000), Err(Error::Io), "what is rotten itself");
    };
    volume.sync().expect("sync");
    holds(&volume);
    assert_eq!(volume.fsync(f, false), Ok(()), "what was written is stored");
    volume.close().expect("close");
    holds(&mount(&world, "again"));
}
