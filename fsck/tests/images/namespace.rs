//! States of the namespace that no operation leaves, each written down as a checkpoint.

use cairn_format::key::Key;
use cairn_format::{
    ChunkId, DirEntry, FileKind, Ino, Inode, PackRefs, Piece, PieceKind, Totals, View, decode_pieces,
    encode_pieces,
};
use cairn_volume::Caller;
use fsck_cairn::{Level, Severity};

use crate::fixture::{Fixture, Records};

const LIVE: View = View::LIVE;

fn entry(records: &Records, dir: Ino, name: &str) -> DirEntry {
    DirEntry::decode(&records[&Key::Name(dir, name.into(), LIVE).encode()]).unwrap()
}

fn inode(records: &mut Records, ino: Ino, change: impl FnOnce(&mut Inode)) {
    let key = Key::Inode(ino, LIVE).encode();
    let mut inode = Inode::decode(&records[&key]).unwrap();
    change(&mut inode);
    records.insert(key, inode.encode());
}

fn pieces(records: &mut Records, ino: Ino, change: impl FnOnce(&mut Vec<Piece>)) {
    let key = Key::Extent(ino, 0, LIVE).encode();
    let mut pieces = decode_pieces(&records[&key]).unwrap();
    change(&mut pieces);
    records.insert(key, encode_pieces(&pieces));
}

/// What is found when the state is changed so.
fn spoilt(kind: &str, change: impl FnOnce(&mut Records)) -> fsck_cairn::Finding {
    let volume = Fixture::filled();
    volume.rewrite_state(change);
    volume.only(kind)
}

#[test]
fn a_state_written_down_again_is_clean() {
    let volume = Fixture::filled();
    volume.rewrite_state(|_| {});
    assert!(volume.check().is_clean(), "{:#?}", volume.check().findings);
}

#[test]
fn wrong_link_counts() {
    let finding = spoilt("link-count", |records| {
        let big = entry(records, Ino::ROOT, "big").ino;
        inode(records, big, |inode| inode.nlink = 2);
    });
    assert_eq!(finding.paths, ["/big"]);
    let finding = spoilt("link-count", |records| {
        let sub = entry(records, Ino::ROOT, "sub").ino;
        inode(records, sub, |inode| inode.nlink = 2);
    });
    assert_eq!(finding.paths, ["/sub"]);
}

#[test]
fn a_name_without_its_place_in_the_order() {
    let finding = spoilt("order", |records| {
        let cookie = entry(records, Ino::ROOT, "big").cookie;
        records.remove(&Key::Order(Ino::ROOT, cookie, LIVE).encode());
    });
    assert_eq!(finding.paths, ["/big"]);
}

#[test]
fn a_place_in_the_order_that_says_something_else() {
    spoilt("order", |records| {
        let place = Key::Name(Ino::ROOT, b"big".to_vec(), LIVE).encode();
        let mut big = DirEntry::decode(&records[&place]).unwrap();
        big.cookie += 1_000_000;
        records.insert(place, big.encode());
    });
}

#[test]
fn a_name_without_an_inode() {
    let volume = Fixture::filled();
    volume.rewrite_state(|records| {
        let empty = entry(records, Ino::ROOT, "empty").ino;
        records.remove(&Key::Inode(empty, LIVE).encode());
    });
    let report = volume.check();
    let finding = report.findings.iter().find(|f| f.kind == "no-inode").unwrap();
    assert_eq!(finding.paths, ["/empty"]);
    // The checkpoint's own count of inodes is off by one, too.
    assert!(report.findings.iter().any(|f| f.kind == "totals"));
}

#[test]
fn an_inode_without_a_name() {
    spoilt("no-name", |records| {
        let DirEntry { ino, cookie, .. } = entry(records, Ino::ROOT, "attributed");
        records.remove(&Key::Name(Ino::ROOT, b"attributed".to_vec(), LIVE).encode());
        records.remove(&Key::Order(Ino::ROOT, cookie, LIVE).encode());
        assert!(records.contains_key(&Key::Inode(ino, LIVE).encode()));
    });
}

#[test]
fn a_directory_within_itself() {
    let volume = Fixture::filled();
    volume.rewrite_state(|records| {
        // /sub is moved into /sub/deep.
        let sub = entry(records, Ino::ROOT, "sub");
        let deep = entry(records, sub.ino, "deep").ino;
        for key in [Key::Name(Ino::ROOT, b"sub".to_vec(), LIVE), Key::Order(Ino::ROOT, sub.cookie, LIVE)] {
            let value = records.remove(&key.encode()).unwrap();
            let moved = match key {
                Key::Name(_, name, view) => Key::Name(deep, name, view),
                _ => Key::Order(deep, sub.cookie, LIVE),
            };
            records.insert(moved.encode(), value);
        }
        inode(records, Ino::ROOT, |inode| inode.nlink -= 1);
        inode(records, deep, |inode| inode.nlink += 1);
        inode(records, sub.ino, |inode| inode.parent = deep);
    });
    volume.only("cycle");
}

#[test]
fn a_directory_with_two_names_or_a_wrong_parent() {
    spoilt("parent", |records| {
        let sub = entry(records, Ino::ROOT, "sub").ino;
        inode(records, sub, |inode| inode.parent = Ino(77));
    });
    let volume = Fixture::filled();
    volume.rewrite_state(|records| {
        let empty = entry(records, Ino::ROOT, "empty");
        let again = DirEntry { cookie: empty.cookie + 1_000_000, ..empty };
        records.insert(Key::Name(Ino::ROOT, b"twice".to_vec(), LIVE).encode(), again.encode());
    });
    assert!(volume.check().findings.iter().any(|f| f.kind == "directory-names"));
}

#[test]
fn a_name_of_another_kind() {
    let volume = Fixture::filled();
    volume.rewrite_state(|records| {
        let key = Key::Name(Ino::ROOT, b"big".to_vec(), LIVE).encode();
        let wrong = DirEntry { kind: FileKind::Fifo, ..entry(records, Ino::ROOT, "big") };
        records.insert(key, wrong.encode());
    });
    assert!(volume.check().findings.iter().any(|f| f.kind == "name-kind" && f.paths == ["/big"]));
}

#[test]
fn links_attributes_and_orphans_that_belong_to_nothing() {
    spoilt("target", |records| {
        let sub = entry(records, Ino::ROOT, "sub").ino;
        let to = entry(records, sub, "to").ino;
        records.remove(&Key::Target(to, LIVE).encode());
    });
    spoilt("xattr", |records| {
        records.insert(Key::Xattr(Ino(4711), b"user.x".to_vec(), LIVE).encode(), b"y".to_vec());
    });
    spoilt("orphan", |records| {
        records.insert(Key::Orphan(Ino(4711), LIVE).encode(), Vec::new());
    });
    spoilt("orphan", |records| {
        let big = entry(records, Ino::ROOT, "big").ino;
        records.insert(Key::Orphan(big, LIVE).encode(), Vec::new());
    });
}

#[test]
fn regression_a_mount_removes_what_has_no_name_and_nothing_that_has_one() {
    // No operation leaves these to be removed: a file that has its name, and one that is not there.
    let left: [fn(&Records) -> Ino; 2] = [|records| entry(records, Ino::ROOT, "big").ino, |_| Ino(4711)];
    for left in left {
        let volume = Fixture::filled();
        let before = volume.tree();
        let mounted = volume.open();
        let nameless = mounted.create(1, b"nameless", 0o644, 0, &Caller::default()).unwrap().ino;
        mounted.unlink(1, b"nameless").unwrap();
        mounted.close().unwrap();
        drop(mounted);
        volume.rewrite_state(|records| {
            assert!(records.contains_key(&Key::Orphan(Ino(nameless), LIVE).encode()));
            records.insert(Key::Orphan(left(records), LIVE).encode(), Vec::new());
        });
        assert_eq!(volume.tree(), before);
        let report = volume.check();
        let found: Vec<_> = report.findings.iter().map(|f| (f.kind, f.severity)).collect();
        assert_eq!(found, [("orphan", Severity::Damage)], "{:#?}", report.findings);
        assert!(volume.repair(Level::Safe).is_clean());
        assert!(volume.check().is_clean());
        assert_eq!(volume.tree(), before);
    }
}

#[test]
fn bytes_behind_the_end() {
    let finding = spoilt("beyond-end", |records| {
        let big = entry(records, Ino::ROOT, "big").ino;
        inode(records, big, |inode| inode.size -= 1);
    });
    assert_eq!(finding.paths, ["/big"]);
}

#[test]
fn an_extent_that_names_another_chunk() {
    let finding = spoilt("lost-bytes", |records| {
        let big = entry(records, Ino::ROOT, "big").ino;
        pieces(records, big, |pieces| {
            let PieceKind::Chunk(chunk) = &mut pieces[3].kind else { panic!("it is folded") };
            chunk.chunk = ChunkId([9; 32]);
        });
    });
    assert_eq!(finding.paths, ["/big"]);
    assert!(finding.offset > Some(0));
}

#[test]
fn an_extent_that_names_a_slot_that_is_not_there() {
    spoilt("lost-bytes", |records| {
        let big = entry(records, Ino::ROOT, "big").ino;
        pieces(records, big, |pieces| {
            let PieceKind::Chunk(chunk) = &mut pieces[0].kind else { panic!("it is folded") };
            chunk.slot = 4000;
        });
    });
}

#[test]
fn counts_that_do_not_add_up() {
    spoilt("stored", |records| {
        let big = entry(records, Ino::ROOT, "big").ino;
        inode(records, big, |inode| inode.stored += 1);
    });
    spoilt("totals", |records| {
        let mut totals = Totals::decode(&records[&Key::Totals.encode()]).unwrap();
        totals.logical += 1;
        records.insert(Key::Totals.encode(), totals.encode());
    });
    spoilt("pack-count", |records| {
        let key = records.keys().find(|key| matches!(Key::decode(key), Some(Key::Pack(_)))).unwrap().clone();
        let refs = PackRefs::decode(&records[&key]).unwrap();
        records.insert(key, PackRefs { pieces: refs.pieces + 1, ..refs }.encode());
    });
    spoilt("pack-count", |records| {
        records.retain(|key, _| !matches!(Key::decode(key), Some(Key::Pack(_))));
    });
    spoilt("next-inode", |records| {
        records.insert(Key::NextInode.encode(), 5u64.to_le_bytes().to_vec());
    });
}

#[test]
fn keys_and_values_that_make_no_sense() {
    spoilt("key", |records| {
        records.insert(b"Zebra".to_vec(), Vec::new());
    });
    spoilt("value", |records| {
        records.insert(Key::Order(Ino(4711), 1, LIVE).encode(), vec![1, 2, 3]);
    });
    spoilt("view", |records| {
        records.insert(Key::Orphan(Ino(3), View(9)).encode(), Vec::new());
    });
}
