//! Many files: fsck takes little memory for each, whatever it does.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cairn_format::key::Key;
use cairn_format::{
    CheckpointRef, DirEntry, FileKind, Ino, Inode, Lsn, OrderedEntry, PackId, Piece, Timestamp, View,
    decode_pieces, encode_pieces,
};
use cairn_store::disk::FileDisk;
use cairn_store::{Store, StoreOptions, write_replicas};
use cairn_volume::BaseWriter;

use crate::fixture::Fixture;

const PER_DIR: u64 = 1000;
const FIRST: u64 = 100;

fn inode(kind: FileKind, size: u64) -> Vec<u8> {
    let time = Timestamp::default();
    // Links and stored bytes are wrong: a repair has something to do for each.
    let inode = Inode {
        mode: kind.mode() | 0o644,
        uid: 0,
        gid: 0,
        nlink: 7,
        rdev: 0,
        generation: 1,
        size,
        parent: Ino(0),
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        stored: 0,
    };
    inode.encode()
}

/// Each name with what it leads to, in the order of keys: directory, name, inode, kind.
fn names(files: u64) -> impl Iterator<Item = (Ino, Vec<u8>, Ino, FileKind)> {
    let dirs = files.div_ceil(PER_DIR);
    let of_root = (0..dirs)
        .map(|dir| (Ino::ROOT, format!("d{dir:09}").into_bytes(), Ino(FIRST + dir), FileKind::Directory));
    let in_dirs = (0..files).map(move |file| {
        let dir = Ino(FIRST + file / PER_DIR);
        (dir, format!("f{file:09}").into_bytes(), Ino(FIRST + dirs + file), FileKind::Regular)
    });
    of_root.chain(in_dirs)
}

/// Has the volume hold so many files, all made of one chunk, and all counts wrong.
fn fill(volume: &Fixture, files: u64, piece: Piece) {
    let mut superblock = volume.superblock();
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(Arc::new(volume.store_disk()), options).unwrap();
    let lsn = Lsn(superblock.checkpoint.lsn.0 + 1000);
    let mut number = 0;
    let mut next = || {
        number += 1;
        PackId::new(7, 1, number)
    };
    let mut base =
        BaseWriter::new(&store, (superblock.uuid, superblock.geometry.parity), (lsn, lsn.next()), &mut next);
    let mut put = |key: Key, value: Vec<u8>| base.put(&key.encode(), &value).unwrap();
    for (dir, name, ino, kind) in names(files) {
        let entry = DirEntry { ino, view: View::LIVE, kind, cookie: ino.0 };
        put(Key::Name(dir, name, View::LIVE), entry.encode());
    }
    let dirs = files.div_ceil(PER_DIR);
    for file in 0..files {
        put(Key::Extent(Ino(FIRST + dirs + file), 0, View::LIVE), encode_pieces(&[piece]));
    }
    put(Key::Inode(Ino::ROOT, View::LIVE), inode(FileKind::Directory, 0));
    for (_, _, ino, kind) in names(files) {
        let size = if kind == FileKind::Regular { piece.len.into() } else { 0 };
        put(Key::Inode(ino, View::LIVE), inode(kind, size));
    }
    put(Key::NextInode, (FIRST + dirs + files).to_le_bytes().to_vec());
    for (dir, name, ino, kind) in names(files) {
        let entry = OrderedEntry { ino, view: View::LIVE, kind, name };
        put(Key::Order(dir, ino.0, View::LIVE), entry.encode());
    }
    let at: CheckpointRef = base.finish().unwrap();
    superblock.checkpoint = at;
    superblock.generation += 1;
    write_replicas(&FileDisk::open(&volume.dir()).unwrap(), &superblock.encode()).unwrap();
}

/// Runs fsck; gives its exit code, and the most memory it took, in bytes.
fn fsck(volume: &Fixture, args: &[&str]) -> (i32, u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fsck-cairn"))
        .args(args)
        .arg(volume.dir())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut most = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        most = most.max(peak.unwrap_or(0u64) << 10);
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code().unwrap(), most);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn memory_grows_little_with_the_number_of_files() {
    let files: u64 = std::env::var("CAIRN_FSCK_FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let volume = Fixture::filled();
    let mut piece = None;
    volume.rewrite_state(|records| {
        let value = records.iter().find(|(key, _)| key[0] == cairn_format::key::tag::EXTENT).unwrap().1;
        piece = decode_pieces(value).unwrap().first().copied();
    });
    fill(&volume, files, piece.unwrap());
    let limit = (64 << 20) + files * 250;
    for (args, code) in [(&["-n"][..], 4), (&["-y"], 1), (&["-f", "-n"], 0)] {
        let (found, most) = fsck(&volume, args);
        println!("{files} files, {args:?}: {} MiB", most >> 20);
        assert_eq!(found, code, "{args:?}");
        assert!(most < limit, "{args:?} took {most} bytes for {files} files");
    }
}
