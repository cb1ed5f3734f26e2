//! Each defect and its repair: the check behind it finds nothing but what is lost, the volume is mounted, and what was not
//! affected is as it was.

use std::collections::BTreeMap;
use std::fs;

use cairn_format::key::Key;
use cairn_format::{
    ChunkId, DirEntry, FileKind, Ino, Inode, OrderedEntry, PackKind, PackRefs, Piece, PieceKind, Totals,
    View, decode_pieces, encode_pieces,
};
use fsck_cairn::{Done, Level, RepairOptions, Report, Severity, UNDO_DIR};

use crate::fixture::{Fixture, Records, Shown, flip, noise, rewrite_state};
use crate::memory::{checked, closed, fsck, shown, store};

const LIVE: View = View::LIVE;

type Tree = BTreeMap<String, Shown>;

type Change = fn(&mut Records);

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

fn dones(report: &Report, kind: &str) -> Vec<Done> {
    report.findings.iter().filter(|f| f.kind == kind).filter_map(|f| f.done).collect()
}

/// Repairs, and sees that everything is in order then.
fn repaired(volume: &Fixture, level: Level) -> Report {
    let report = volume.repair(level);
    assert!(report.is_clean() && report.corrected() > 0, "{:#?}", report.findings);
    assert!(volume.check().is_clean(), "{:#?}", volume.check().findings);
    // Nothing is left that another run would do.
    assert_eq!(volume.repair(level).corrected(), 0);
    report
}

/// What the state is repaired to when it is changed so, by `level`, and the finding that told of it. Without `level` being
/// enough nothing is changed.
fn mended(kind: &str, level: Level, done: Done, change: impl FnOnce(&mut Records)) -> (Tree, Tree) {
    let disk = closed();
    let before = shown(&disk);
    rewrite_state(&disk, store(&disk), 1000, change);
    if level == Level::All {
        let report = fsck(&disk, Level::Safe).unwrap();
        assert!(!report.is_clean(), "-p loses nothing: {:#?}", report.findings);
    }
    let report = fsck(&disk, level).unwrap();
    assert!(report.is_clean() && dones(&report, kind).contains(&done), "{:#?}", report.findings);
    assert!(checked(&disk).is_clean(), "{:#?}", checked(&disk).findings);
    // Nothing is left that another run would do.
    assert_eq!(fsck(&disk, level).unwrap().corrected(), 0);
    (before, shown(&disk))
}

/// That nothing differs but the paths that `differ`.
#[track_caller]
fn same_but(before: &Tree, after: &Tree, differ: &[&str]) {
    let paths: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let found: Vec<_> = paths.into_iter().filter(|path| before.get(*path) != after.get(*path)).collect();
    assert_eq!(found, differ.to_vec());
}

#[test]
fn counts_are_corrected_and_nothing_else_is() {
    let changes: [(&str, Change); 12] = [
        ("link-count", |records| {
            let big = entry(records, Ino::ROOT, "big").ino;
            inode(records, big, |inode| inode.nlink = 2);
        }),
        ("link-count", |records| {
            let sub = entry(records, Ino::ROOT, "sub").ino;
            inode(records, sub, |inode| inode.nlink = 2);
        }),
        ("parent", |records| {
            let sub = entry(records, Ino::ROOT, "sub").ino;
            inode(records, sub, |inode| inode.parent = Ino(77));
        }),
        ("stored", |records| {
            let big = entry(records, Ino::ROOT, "big").ino;
            inode(records, big, |inode| inode.stored += 1);
        }),
        ("stored-share", |records| {
            let big = entry(records, Ino::ROOT, "big").ino;
            pieces(records, big, |pieces| {
                let PieceKind::Chunk(chunk) = &mut pieces[2].kind else { panic!("it is folded") };
                chunk.stored += 5;
            });
        }),
        ("totals", |records| {
            let mut totals = Totals::decode(&records[&Key::Totals.encode()]).unwrap();
            totals.logical += 1;
            records.insert(Key::Totals.encode(), totals.encode());
        }),
        ("pack-count", |records| {
            let key =
                records.keys().find(|key| matches!(Key::decode(key), Some(Key::Pack(_)))).unwrap().clone();
            let refs = PackRefs::decode(&records[&key]).unwrap();
            records.insert(key, PackRefs { pieces: refs.pieces + 1, ..refs }.encode());
        }),
        ("pack-count", |records| {
            records.retain(|key, _| !matches!(Key::decode(key), Some(Key::Pack(_))));
        }),
        ("next-inode", |records| {
            records.insert(Key::NextInode.encode(), 5u64.to_le_bytes().to_vec());
        }),
        ("next-inode", |records| {
            records.insert(Key::NextInode.encode(), (1u64 << 50).to_le_bytes().to_vec());
        }),
        ("orphan", |records| {
            let big = entry(records, Ino::ROOT, "big").ino;
            records.insert(Key::Orphan(big, LIVE).encode(), Vec::new());
        }),
        ("orphan", |records| {
            records.insert(Key::Orphan(Ino(4711), LIVE).encode(), Vec::new());
        }),
    ];
    for (kind, change) in changes {
        let done = if kind == "orphan" { Done::Removed } else { Done::Corrected };
        let (before, after) = mended(kind, Level::Safe, done, change);
        assert_eq!(before, after, "{kind}");
    }
}

#[test]
fn a_directory_and_its_order_are_made_to_agree() {
    let changes: [Change; 4] = [
        |records| {
            let cookie = entry(records, Ino::ROOT, "big").cookie;
            records.remove(&Key::Order(Ino::ROOT, cookie, LIVE).encode());
        },
        |records| {
            let place = Key::Name(Ino::ROOT, b"big".to_vec(), LIVE).encode();
            let mut big = DirEntry::decode(&records[&place]).unwrap();
            big.cookie += 1_000_000;
            records.insert(place, big.encode());
        },
        // A name that was lost, of a file and of a directory, but for the order's.
        |records| {
            records.remove(&Key::Name(Ino::ROOT, b"big".to_vec(), LIVE).encode());
        },
        |records| {
            records.remove(&Key::Name(Ino::ROOT, b"sub".to_vec(), LIVE).encode());
        },
    ];
    for change in changes {
        let (before, after) = mended("order", Level::Safe, Done::Corrected, change);
        assert_eq!(before, after);
    }
}

#[test]
fn two_names_in_one_place_of_the_order_get_one_each() {
    let (before, after) = mended("order", Level::Safe, Done::Corrected, |records| {
        let (big, linked) = (entry(records, Ino::ROOT, "big"), entry(records, Ino::ROOT, "linked"));
        records.remove(&Key::Order(Ino::ROOT, linked.cookie, LIVE).encode());
        let both = DirEntry { cookie: big.cookie, ..linked };
        records.insert(Key::Name(Ino::ROOT, b"linked".to_vec(), LIVE).encode(), both.encode());
    });
    assert_eq!(before, after);
}

#[test]
fn a_place_behind_all_others_leaves_room_for_lost_and_found() {
    let (before, after) = mended("no-name", Level::All, Done::Moved, |records| {
        for (name, cookie) in [("big", u64::MAX), ("empty", i64::MAX as u64)] {
            let found = entry(records, Ino::ROOT, name);
            records.remove(&Key::Order(Ino::ROOT, found.cookie, LIVE).encode());
            let placed = DirEntry { cookie, ..found };
            records.insert(Key::Name(Ino::ROOT, name.into(), LIVE).encode(), placed.encode());
        }
        let attributed = entry(records, Ino::ROOT, "attributed");
        records.remove(&Key::Name(Ino::ROOT, b"attributed".to_vec(), LIVE).encode());
        records.remove(&Key::Order(Ino::ROOT, attributed.cookie, LIVE).encode());
    });
    assert_eq!((&before["/big"], &before["/empty"]), (&after["/big"], &after["/empty"]));
    assert!(after.keys().any(|path| path.starts_with("/lost+found/#")));
}

#[test]
fn what_the_order_lists_and_nothing_names_goes_where_nothing_lacks_a_name() {
    let (before, after) = mended("order", Level::Safe, Done::Corrected, |records| {
        let big = entry(records, Ino::ROOT, "big");
        let ordered = OrderedEntry { ino: big.ino, view: LIVE, kind: big.kind, name: b"huge".to_vec() };
        records.insert(Key::Order(Ino::ROOT, big.cookie + 9, LIVE).encode(), ordered.encode());
    });
    assert_eq!(before, after);
}

#[test]
fn a_name_says_what_its_inode_is() {
    let (before, after) = mended("name-kind", Level::Safe, Done::Corrected, |records| {
        let key = Key::Name(Ino::ROOT, b"big".to_vec(), LIVE).encode();
        let wrong = DirEntry { kind: FileKind::Fifo, ..entry(records, Ino::ROOT, "big") };
        records.insert(key, wrong.encode());
    });
    assert_eq!(before, after);
}

#[test]
fn a_file_is_as_long_as_its_bytes_reach() {
    let (before, after) = mended("beyond-end", Level::Safe, Done::Corrected, |records| {
        let big = entry(records, Ino::ROOT, "big").ino;
        inode(records, big, |inode| inode.size -= 1);
    });
    assert_eq!(before, after);
}

#[test]
fn a_name_without_an_inode_goes_and_nothing_else_does() {
    let (before, after) = mended("no-inode", Level::All, Done::Removed, |records| {
        let empty = entry(records, Ino::ROOT, "empty").ino;
        records.remove(&Key::Inode(empty, LIVE).encode());
    });
    same_but(&before, &after, &["/", "/empty"]);
    assert_eq!(before["/"].nlink, after["/"].nlink + 1);
}

#[test]
fn an_inode_that_is_lost_is_made_again_from_what_is_left() {
    let lost = |path: &'static [&'static str]| {
        move |records: &mut Records| {
            let last = path.iter().fold(Ino::ROOT, |dir, name| entry(records, dir, name).ino);
            records.remove(&Key::Inode(last, LIVE).encode());
        }
    };
    let (before, after) = mended("no-inode", Level::All, Done::Rebuilt, lost(&["big"]));
    same_but(&before, &after, &["/big"]);
    assert_eq!((&before["/big"].content, after["/big"].mode), (&after["/big"].content, 0o100_600));
    let (before, after) = mended("no-inode", Level::All, Done::Rebuilt, lost(&["linked"]));
    same_but(&before, &after, &["/linked", "/sub/deep/file"]);
    assert_eq!(after["/linked"].nlink, 2);
    let (before, after) = mended("no-directory", Level::All, Done::Rebuilt, lost(&["sub"]));
    same_but(&before, &after, &["/sub"]);
    assert_eq!(after["/sub"].mode, 0o040_700);
    let (before, after) = mended("no-inode", Level::All, Done::Rebuilt, lost(&["sub", "to"]));
    same_but(&before, &after, &[] as &[&str]);
    let (before, after) = mended("root", Level::All, Done::Rebuilt, lost(&[]));
    same_but(&before, &after, &[] as &[&str]);
}

#[test]
fn an_inode_without_a_name_comes_to_lost_and_found() {
    let volume = Fixture::filled();
    let before = volume.tree();
    let mut ino = Ino(0);
    volume.rewrite_state(|records| {
        for (dir, name) in [(Ino::ROOT, "attributed"), (Ino::ROOT, "sub")] {
            let found = entry(records, dir, name);
            records.remove(&Key::Name(dir, name.into(), LIVE).encode());
            records.remove(&Key::Order(dir, found.cookie, LIVE).encode());
            ino = found.ino;
        }
    });
    let report = repaired(&volume, Level::All);
    assert_eq!(dones(&report, "no-name"), [Done::Moved, Done::Moved]);
    let after = volume.tree();
    assert_eq!(after["/lost+found"].mode, 0o040_700);
    assert_eq!(after[&format!("/lost+found/#{ino}/deep/file")], before["/sub/deep/file"]);
    let moved: Vec<_> = after.iter().filter(|(path, _)| path.starts_with("/lost+found/")).collect();
    assert!(moved.iter().any(|(_, shown)| **shown == before["/attributed"]));
    assert_eq!(after["/big"], before["/big"]);
    // And the next ones come to the same place.
    volume.rewrite_state(|records| {
        let big = entry(records, Ino::ROOT, "big");
        records.remove(&Key::Name(Ino::ROOT, b"big".to_vec(), LIVE).encode());
        records.remove(&Key::Order(Ino::ROOT, big.cookie, LIVE).encode());
        ino = big.ino;
    });
    repaired(&volume, Level::All);
    assert_eq!(volume.tree()[&format!("/lost+found/#{ino}")], before["/big"]);
}

#[test]
fn a_directory_within_itself_comes_to_lost_and_found() {
    let (before, after) = mended("cycle", Level::All, Done::Moved, |records| {
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
    let found = after.iter().find(|(path, _)| path.ends_with("/deep/file")).unwrap();
    assert!(found.0.starts_with("/lost+found/#"), "{}", found.0);
    assert_eq!(*found.1, before["/sub/deep/file"]);
}

#[test]
fn a_directory_keeps_the_one_of_its_names_that_it_says_itself() {
    let (before, after) = mended("directory-names", Level::All, Done::Removed, |records| {
        let sub = entry(records, Ino::ROOT, "sub");
        let empty = entry(records, Ino::ROOT, "empty").ino;
        // Before the right one, in the order of the keys.
        for (dir, name) in [(Ino::ROOT, "aaa"), (empty, "twice")] {
            let again = DirEntry { cookie: sub.cookie + 1_000_000, ..sub };
            let ordered = OrderedEntry { ino: sub.ino, view: LIVE, kind: sub.kind, name: name.into() };
            records.insert(Key::Name(dir, name.into(), LIVE).encode(), again.encode());
            records.insert(Key::Order(dir, again.cookie, LIVE).encode(), ordered.encode());
        }
    });
    // Both of the root's are where it says; the first stays.
    assert_eq!(after["/aaa/deep/file"], before["/sub/deep/file"]);
    assert!(!after.contains_key("/sub") && !after.contains_key("/empty/twice"));
}

#[test]
fn what_belongs_to_nothing_goes() {
    let changes: [(&str, Change); 6] = [
        ("xattr", |records| {
            records.insert(Key::Xattr(Ino(4711), b"user.x".to_vec(), LIVE).encode(), b"y".to_vec());
        }),
        ("target", |records| {
            let big = entry(records, Ino::ROOT, "big").ino;
            records.insert(Key::Target(big, LIVE).encode(), b"y".to_vec());
        }),
        ("extents", |records| {
            let big = entry(records, Ino::ROOT, "big").ino;
            let empty = entry(records, Ino::ROOT, "empty").ino;
            let value = records[&Key::Extent(big, 0, LIVE).encode()].clone();
            records.insert(Key::Extent(empty, 0, LIVE).encode(), value);
        }),
        ("key", |records| {
            records.insert(b"Zebra".to_vec(), Vec::new());
        }),
        ("key", |records| {
            records.insert(b"M\x01\x07".to_vec(), Vec::new());
        }),
        ("view", |records| {
            records.insert(Key::Orphan(Ino(3), View(9)).encode(), Vec::new());
        }),
    ];
    for (kind, change) in changes {
        let (before, after) = mended(kind, Level::All, Done::Removed, change);
        assert_eq!(before, after, "{kind}");
    }
    // A link that leads nowhere goes with its name.
    let (before, after) = mended("target", Level::All, Done::Removed, |records| {
        let sub = entry(records, Ino::ROOT, "sub").ino;
        let to = entry(records, sub, "to").ino;
        records.remove(&Key::Target(to, LIVE).encode());
    });
    same_but(&before, &after, &["/sub/to"]);
}

#[test]
fn file_bytes_of_no_inode_come_to_lost_and_found() {
    let volume = Fixture::filled();
    let before = volume.tree();
    volume.rewrite_state(|records| {
        let big = entry(records, Ino::ROOT, "big");
        for key in [
            Key::Name(Ino::ROOT, b"big".to_vec(), LIVE),
            Key::Order(Ino::ROOT, big.cookie, LIVE),
            Key::Inode(big.ino, LIVE),
        ] {
            records.remove(&key.encode());
        }
    });
    repaired(&volume, Level::All);
    let after = volume.tree();
    let found = after.iter().find(|(path, _)| path.starts_with("/lost+found/#")).unwrap();
    assert_eq!(found.1.content, before["/big"].content);
}

#[test]
fn bytes_that_are_lost_stay_an_error_or_become_zeros_by_explicit_wish() {
    let spoilt = || {
        let volume = Fixture::filled();
        volume.rewrite_state(|records| {
            let big = entry(records, Ino::ROOT, "big").ino;
            pieces(records, big, |pieces| {
                let PieceKind::Chunk(chunk) = &mut pieces[3].kind else { panic!("it is folded") };
                chunk.chunk = ChunkId([9; 32]);
            });
        });
        volume
    };
    let volume = spoilt();
    let before = volume.bytes();
    let report = volume.repair(Level::All);
    let lost: Vec<_> = report.findings.iter().filter(|f| f.severity == Severity::Damage).collect();
    assert_eq!(lost.len(), 1, "{lost:#?}");
    assert_eq!(
        (lost[0].kind, lost[0].done, &lost[0].paths[..]),
        ("lost-bytes", None, &["/big".to_owned()][..])
    );
    let mut after = volume.bytes();
    assert!(after.remove(&volume.path("suspect")).is_some(), "-p looks closer the next time");
    // The state that was written here had no second copy.
    let twins = volume.path("store/twins");
    after.retain(|path, _| before.contains_key(path) || !path.starts_with(&twins));
    assert_eq!(after, before);
    let (offset, len) = (lost[0].offset.unwrap(), lost[0].length.unwrap());
    {
        let mounted = volume.open();
        let big = mounted.lookup(1, b"big").unwrap().unwrap().ino;
        assert!(mounted.read(big, offset, 1).is_err());
        assert_eq!(mounted.read(big, 0, offset as u32).unwrap(), noise(150_000, 1)[..offset as usize]);
        mounted.close().unwrap();
    }
    let options = RepairOptions { level: Level::All, zero_fill: true, ..RepairOptions::default() };
    let report = volume.repair_with(&options);
    assert_eq!(dones(&report, "lost-bytes"), [Done::Zeroed], "{:#?}", report.findings);
    assert!(report.is_clean() && volume.check().is_clean());
    let mut wanted = noise(150_000, 1);
    wanted[offset as usize..(offset + len) as usize].fill(0);
    assert_eq!(volume.tree()["/big"].content.as_ref(), Some(&wanted));
    assert!(!volume.path("suspect").exists());
}

#[test]
fn an_extent_that_makes_no_sense_is_an_error_where_it_was() {
    let volume = Fixture::filled();
    let before = volume.tree();
    volume.rewrite_state(|records| {
        let big = entry(records, Ino::ROOT, "big").ino;
        records.insert(Key::Extent(big, 0, LIVE).encode(), vec![1, 2, 3]);
    });
    let report = volume.repair(Level::All);
    assert_eq!(dones(&report, "value"), [Done::Removed], "{:#?}", report.findings);
    let left: Vec<_> =
        report.findings.iter().filter(|f| f.severity == Severity::Damage && f.done.is_none()).collect();
    assert_eq!(left.len(), 1, "{left:#?}");
    assert_eq!((left[0].kind, left[0].offset, left[0].length), ("lost-bytes", Some(0), Some(150_000)));
    let after = volume.tree();
    same_but(&before, &after, &["/big"]);
    assert_eq!((after["/big"].size, &after["/big"].content), (150_000, &None));
}

#[test]
fn copies_of_superblocks_footers_and_headers_are_written_again() {
    for place in ["superblock", "superblock.backup", "store/superblock", "store/superblock.backup"] {
        let volume = Fixture::filled();
        let whole = fs::read(volume.path(place)).unwrap();
        flip(&volume.path(place), 200);
        let report = repaired(&volume, Level::Safe);
        assert_eq!(dones(&report, "superblock-replica"), [Done::Rewritten]);
        assert_eq!(fs::read(volume.path(place)).unwrap(), whole);
        fs::remove_file(volume.path(place)).unwrap();
        repaired(&volume, Level::Safe);
        assert_eq!(fs::read(volume.path(place)).unwrap(), whole);
    }
    for kind in [PackKind::Data, PackKind::Metadata] {
        let volume = Fixture::filled();
        let path = volume.pack_path(&volume.footers(kind).remove(0).pack);
        let whole = fs::read(&path).unwrap();
        let len = whole.len() as u64;
        for at in [len - 1, len - cairn_format::TRAILER_LEN as u64 - 9, 3] {
            flip(&path, at);
            let report = repaired(&volume, Level::Safe);
            assert_eq!(dones(&report, "footer-copy"), [Done::Rewritten]);
            assert_eq!(fs::read(&path).unwrap(), whole, "{at}");
        }
        fs::File::options().write(true).open(&path).unwrap().set_len(len - 7).unwrap();
        repaired(&volume, Level::Safe);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn caches_and_leftovers_go() {
    let volume = Fixture::filled();
    let before = volume.tree();
    let pack = volume.footers(PackKind::Data)[0].pack;
    fs::write(volume.path("store/packs").join(pack.directory()).join(format!("{pack}.new")), b"half")
        .unwrap();
    fs::write(volume.path("engine/namespace.redb"), b"nothing of the kind".repeat(1000)).unwrap();
    let report = repaired(&volume, Level::Safe);
    assert_eq!(dones(&report, "engine"), [Done::Removed]);
    assert_eq!(dones(&report, "unsealed-pack"), [Done::Removed]);
    assert_eq!(volume.tree(), before);
}

#[test]
fn a_volume_without_engine_index_and_one_superblock_comes_back_whole() {
    let volume = Fixture::filled();
    let before = volume.tree();
    fs::remove_dir_all(volume.path("engine")).unwrap();
    fs::remove_file(volume.path("store/index")).unwrap();
    fs::remove_file(volume.path("superblock")).unwrap();
    repaired(&volume, Level::Safe);
    assert_eq!(volume.tree(), before);
    assert_eq!(volume.check().findings, []);
}

#[test]
fn a_volume_that_was_not_unmounted_is_folded_as_a_mount_would() {
    let volume = Fixture::crashed();
    let report = repaired(&volume, Level::Safe);
    assert_eq!(dones(&report, "unclean"), [Done::Folded], "{:#?}", report.findings);
    let tree = volume.tree();
    assert_eq!(tree["/big"].content, Some(noise(150_000, 1)));
    assert!(tree.contains_key("/later"));
    assert!(!volume.path(UNDO_DIR).exists(), "nothing was overwritten that a mount does not");
}

#[test]
fn what_is_in_order_by_its_own_word_is_not_gone_through_by_p_unless_forced() {
    let volume = Fixture::filled_without_parity();
    let options = RepairOptions::default();
    let report = volume.repair_with(&options);
    assert!(!report.checked && report.is_clean() && report.findings.is_empty());
    // Damage that nobody noted is not looked for…
    let pack = volume.footers(PackKind::Data).remove(0);
    flip(&volume.pack_path(&pack.pack), pack.frames[0].offset + 40);
    assert!(!volume.repair_with(&options).checked);
    // …until a mount meets it…
    {
        let mounted = volume.open();
        let tree = crate::fixture::tree(&mounted);
        assert!(tree.values().any(|shown| shown.content.is_none()));
        mounted.close().unwrap();
    }
    let noted = volume.repair_with(&options);
    assert!(noted.checked && !noted.is_clean());
    fs::remove_file(volume.path("suspect")).unwrap();
    // …or a check does that was asked for: what was noted is, and so is what -f asks for.
    let forced = volume.repair(Level::Safe);
    assert!(forced.checked && !forced.is_clean());
    let noted = volume.repair_with(&options);
    assert!(noted.checked && !noted.is_clean());
    assert!(noted.findings.iter().any(|f| f.kind == "suspect"));
    flip(&volume.pack_path(&pack.pack), pack.frames[0].offset + 40);
    assert!(volume.repair_with(&options).is_clean());
    assert!(!volume.repair_with(&options).checked);
}

#[test]
fn what_parity_reaches_is_restored_by_p_to_the_byte() {
    let volume = Fixture::filled();
    let packs = || {
        let footers = [PackKind::Data, PackKind::Metadata].map(|kind| volume.footers(kind).remove(0));
        footers.map(|footer| (volume.pack_path(&footer.pack), footer))
    };
    let before = packs().map(|(path, _)| fs::read(path).unwrap());
    for (path, footer) in packs() {
        let len = fs::metadata(&path).unwrap().len();
        // A frame, and what lies in the last sector. (A small pack's header lies in the sector of its frames.)
        flip(&path, footer.frames[0].offset + 40);
        flip(&path, len - 4);
    }
    let damaged = volume.check();
    assert!(damaged.findings.iter().filter(|f| f.kind == "frame").count() >= 2, "{:#?}", damaged.findings);
    assert!(
        damaged.findings.iter().all(|f| f.kind != "lost-bytes" && f.paths.is_empty()),
        "nothing is lost yet"
    );
    let report = volume.repair(Level::Safe);
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(dones(&report, "frame").iter().all(|done| *done == Done::Rewritten));
    assert_eq!(packs().map(|(path, _)| fs::read(path).unwrap()), before);
    assert!(volume.check().findings.is_empty());
    assert!(volume.path("store").join(UNDO_DIR).exists(), "what was there is kept");
}
