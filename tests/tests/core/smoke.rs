//! The shortest way through everything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cairn_tests::dice::noise;
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, MakeOptions};

#[test]
fn what_was_written_is_there_after_a_mount() {
    let world = World::make(&small());
    let volume = world.open().expect("first mount");
    let file = volume.create(1, b"hello", 0o644, 0, &Caller::default()).expect("create");
    volume.write(file.ino, 0, b"hello, world", false).expect("write");
    assert_eq!(volume.read(file.ino, 0, 100).expect("read"), b"hello, world");
    volume.release(file.ino);
    volume.sync().expect("sync");
    assert_eq!(volume.read(file.ino, 7, 100).expect("read"), b"world");
    volume.close().expect("close");
    drop(volume);
    let volume = world.open().expect("second mount");
    let again = volume.lookup(1, b"hello").expect("lookup").expect("is there");
    assert_eq!(again.ino, file.ino);
    assert_eq!(volume.read(file.ino, 0, 100).expect("read"), b"hello, world");
    volume.close().expect("close");
}

/// Else `tar -S`, which goes by it, packs no byte of the file.
#[test]
fn a_file_with_bytes_takes_room_at_every_moment() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    // A file to look at; 0 ends.
    let watched = AtomicU64::new(1);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            loop {
                let ino = watched.load(Ordering::Acquire);
                if ino == 0 {
                    return;
                }
                let attr = volume.getattr(ino).expect("it is open");
                assert!(attr.size == 0 || attr.blocks > 0, "{} bytes take no block", attr.size);
            }
        });
        for n in 0..1500u32 {
            let file = volume.create(1, b"file", 0o644, 0, &Caller::default()).expect("create");
            watched.store(file.ino, Ordering::Release);
            volume.write(file.ino, 0, &n.to_le_bytes().repeat(500), false).expect("write");
            volume.sync().expect("sync");
            volume.unlink(1, b"file").expect("unlink");
            if watcher.is_finished() {
                break;
            }
        }
        watched.store(0, Ordering::Release);
        watcher.join().expect("every look found room taken");
    });
    volume.close().expect("close");
}

/// The same where a checkpoint comes before the fold, since the journal is nearly full.
#[test]
fn files_that_wait_to_be_folded_take_room() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let mut files = Vec::new();
    for n in 0..120u64 {
        let file = volume.create(1, n.to_string().as_bytes(), 0o644, 0, &Caller::default()).expect("create");
        volume.write(file.ino, 0, &noise(n, 12_000), false).expect("write");
        files.push(file.ino);
        if n % 20 == 0 {
            volume.maintain().expect("a batch, and a checkpoint perhaps");
        }
        for ino in &files {
            assert!(
                volume.getattr(*ino).expect("it is open").blocks > 0,
                "after file {n}, file {ino} takes none"
            );
        }
    }
    volume.sync().expect("sync");
    for ino in &files {
        let blocks = volume.getattr(*ino).expect("it is open").blocks;
        assert!((23..40).contains(&blocks), "12,000 bytes of noise take {blocks} blocks");
    }
    volume.close().expect("close");
}

#[test]
fn a_mount_reads_a_journal_of_short_records_in_large_steps() {
    let world = World::make(&MakeOptions { segment_size: 1 << 20, journal_size: 8 << 20, ..small() });
    let volume = world.open().expect("mount");
    let ino = volume.create(1, b"log", 0o644, 0, &Caller::default()).expect("create").ino;
    const RECORDS: u64 = 5_000;
    for n in 0..RECORDS {
        volume.write(ino, n * 2, b"x\n", false).expect("write");
    }
    drop(volume);
    // As it was when the process died: all of it is gone through.
    let world = world.fork();
    let volume = world.open().expect("mount");
    let reads = world.disk.reads();
    assert!(reads < RECORDS / 10, "{reads} reads for {RECORDS} records");
    assert_eq!(volume.getattr(ino).expect("the file").size, RECORDS * 2);
}
