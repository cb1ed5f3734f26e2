//! The shortest way through everything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cairn_tests::world::{World, small};
use cairn_volume::Caller;

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
