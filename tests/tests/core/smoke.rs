//! The shortest way through everything.

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
