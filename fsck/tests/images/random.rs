//! States of the namespace with several things wrong at once, as they come: after a repair all is in order but bytes that are
//! lost, it is mounted, and what was not touched is as it was.

use std::collections::HashSet;

use cairn_format::key::Key;
use cairn_format::{DirEntry, Ino, Inode, OrderedEntry, View};
use cairn_store::disk::{Access, Disk, MemoryDisk};
use fsck_cairn::{Level, Severity};

use crate::fixture::{Records, rewrite_state};
use crate::memory::{checked, closed, filled, fsck, open, shown, store};

/// Numbers as they come, the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

/// The inodes that a record is about.
fn about(key: &[u8], value: &[u8]) -> Vec<u64> {
    let mut inos = Vec::new();
    match Key::decode(key) {
        Some(Key::Name(dir, ..)) => {
            inos.push(dir.0);
            inos.extend(DirEntry::decode(value).map(|entry| entry.ino.0));
        }
        Some(Key::Order(dir, ..)) => {
            inos.push(dir.0);
            inos.extend(OrderedEntry::decode(value).map(|entry| entry.ino.0));
        }
        Some(Key::Extent(ino, ..) | Key::Inode(ino, _) | Key::Target(ino, _) | Key::Orphan(ino, _)) => {
            inos.push(ino.0);
            inos.extend(Inode::decode(value).map(|inode| inode.parent.0));
        }
        Some(Key::Xattr(ino, ..)) => inos.push(ino.0),
        _ => {}
    }
    inos
}

/// The same key of another inode, or with another number.
fn another(key: &[u8], inos: &[u64], dice: &mut Dice) -> Option<Vec<u8>> {
    let ino = Ino(inos[dice.roll(inos.len())]);
    let number = dice.roll(9) as u64;
    let view = View(if dice.roll(20) == 0 { 3 } else { 0 });
    Some(
        match Key::decode(key)? {
            Key::Name(_, name, _) => {
                Key::Name(ino, [&name[..name.len().min(200)], &[b'a' + number as u8]].concat(), view)
            }
            Key::Extent(..) => Key::Extent(ino, number, view),
            Key::Inode(..) => Key::Inode(ino, view),
            Key::Target(..) => Key::Target(ino, view),
            Key::Order(_, cookie, _) => Key::Order(ino, cookie + number, view),
            Key::Orphan(..) => Key::Orphan(ino, view),
            Key::Xattr(_, name, _) => Key::Xattr(ino, name, view),
            other => other,
        }
        .encode(),
    )
}

/// Does a few things to a state; gives the inodes that they are about.
pub(crate) fn spoil(records: &mut Records, dice: &mut Dice) -> HashSet<u64> {
    let mut touched = HashSet::new();
    let mut inos: Vec<u64> = records.iter().flat_map(|(key, value)| about(key, value)).collect();
    inos.extend([4711, 1 << 40]);
    for _ in 0..=dice.roll(6) {
        let keys: Vec<_> = records.keys().cloned().collect();
        let (key, other) = (keys[dice.roll(keys.len())].clone(), keys[dice.roll(keys.len())].clone());
        let value = records[&key].clone();
        touched.extend(about(&key, &value));
        touched.extend(about(&other, &records[&other]));
        match dice.roll(6) {
            0 => drop(records.remove(&key)),
            1 => {
                if let Some(new) = another(&key, &inos, dice) {
                    touched.extend(about(&new, &value));
                    if let Some(old) = records.insert(new.clone(), value) {
                        touched.extend(about(&new, &old));
                    }
                }
            }
            2 => {
                let all: Vec<_> = keys.iter().filter(|k| k[0] == key[0]).collect();
                let same = all[dice.roll(all.len())];
                touched.extend(about(same, &records[same]));
                let from = records[same].clone();
                touched.extend(about(&key, &from));
                records.insert(key, from);
            }
            3 => {
                let mut value = value;
                if !value.is_empty() {
                    let at = dice.roll(value.len());
                    value[at] ^= 1 << dice.roll(8);
                }
                touched.extend(about(&key, &value));
                records.insert(key, value);
            }
            4 => {
                let value = value[..dice.roll(value.len() + 1)].to_vec();
                records.insert(key, value);
            }
            _ => {
                let from = records[&other].clone();
                touched.extend(about(&key, &from));
                records.insert(key, from);
            }
        }
    }
    touched
}

fn is_in_order_afterwards(seed: u64) {
    let disk = closed();
    let before = shown(&disk);
    let paths = {
        let volume = open(&disk.fork()).unwrap();
        let ino = |path: &str| {
            let mut at = 1;
            let mut all = vec![1];
            for name in path.split('/').filter(|name| !name.is_empty()) {
                at = volume.lookup(at, name.as_bytes()).unwrap().unwrap().ino;
                all.push(at);
            }
            all
        };
        before.keys().map(|path| (path.clone(), ino(path))).collect::<Vec<_>>()
    };
    let mut touched = HashSet::new();
    rewrite_state(&disk, store(&disk), 1000, |records| touched = spoil(records, &mut Dice(seed)));
    // What -p does is never worse than nothing.
    if seed.is_multiple_of(3) {
        fsck(&disk, Level::Safe).unwrap();
    }
    let report = fsck(&disk, Level::All).unwrap();
    let left: Vec<_> =
        report.findings.iter().filter(|f| f.severity == Severity::Damage && f.done.is_none()).collect();
    assert!(left.iter().all(|f| f.kind == "lost-bytes"), "seed {seed}: {left:#?}");
    let again = checked(&disk);
    let bad = again.findings.iter().filter(|f| f.severity == Severity::Damage);
    assert!(bad.clone().all(|f| f.kind == "lost-bytes"), "seed {seed}: {:#?}", bad.collect::<Vec<_>>());
    let second = fsck(&disk, Level::All).unwrap();
    assert_eq!(second.corrected(), 0, "seed {seed}: {:#?}", second.findings);
    let after = shown(&disk);
    for (path, way) in paths {
        if way.iter().any(|ino| *ino != 1 && touched.contains(ino))
            || (touched.contains(&1) && way.len() == 2)
        {
            continue;
        }
        let (was, is) = (&before[&path], after.get(&path));
        let same =
            is.is_some_and(|is| is.content == was.content && is.mode == was.mode && is.size == was.size);
        assert!(same || path == "/", "seed {seed}: {path} was not touched");
    }
}

#[test]
fn whatever_is_wrong_with_a_namespace_is_put_in_order() {
    let rounds: u64 = std::env::var("CAIRN_FSCK_RANDOM").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let first: u64 = std::env::var("CAIRN_FSCK_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    (first..first + rounds).for_each(is_in_order_afterwards);
}

/// What is left behind, less what is lost for good.
fn is_in_order(disk: &MemoryDisk, seed: u64) {
    let report = match fsck(disk, Level::All) {
        Ok(report) => report,
        Err(error) => panic!("seed {seed}: {error}"),
    };
    let left = report.findings.iter().filter(|f| f.severity == Severity::Damage && f.done.is_none());
    let left: Vec<_> = left.collect();
    // Frames that are damaged stay so; a footer without a copy too; what cannot be had cannot.
    let lost = [
        "lost-bytes",
        "frame",
        "footer",
        "footer-copy",
        "pack",
        "pack-header",
        "chunk",
        "parity",
        "superblock",
        "checkpoint",
        "journal-missing",
    ];
    assert!(left.iter().all(|f| lost.contains(&f.kind)), "seed {seed}: {left:#?}");
    let hopeless = left.iter().any(|f| ["superblock", "checkpoint"].contains(&f.kind));
    if !hopeless {
        let opened = open(&disk.fork());
        assert!(opened.is_ok(), "seed {seed}: {:?}; {left:#?}", opened.err());
        let again = fsck(disk, Level::All).unwrap();
        let more: Vec<_> = again.findings.iter().filter(|f| f.done.is_some()).collect();
        assert!(more.is_empty(), "seed {seed}: {more:#?}");
    }
}

/// Does a few things to files: bits, lengths, zeros, names.
pub(crate) fn spoil_files(disk: &MemoryDisk, dice: &mut Dice) {
    for _ in 0..=dice.roll(5) {
        let files: Vec<_> = disk.files().into_iter().filter(|path| !path.ends_with("README")).collect();
        let path = &files[dice.roll(files.len())];
        let len = disk.open(path, Access::Read).unwrap().len().unwrap();
        match dice.roll(8) {
            0 => disk.remove(path).unwrap(),
            1 => disk.truncate_file(path, dice.roll(len as usize + 1) as u64).unwrap(),
            2 if len > 0 => {
                let zeros = vec![0; dice.roll(8192)];
                disk.open(path, Access::Write)
                    .unwrap()
                    .write_at(&zeros, dice.roll(len as usize) as u64)
                    .unwrap();
            }
            _ if len > 0 => disk.corrupt(path, dice.roll(len as usize) as u64, 1 << dice.roll(8)).unwrap(),
            _ => {}
        }
    }
}

#[test]
fn whatever_became_of_its_files_a_volume_is_mounted_again_or_nothing_of_it_can_be_had() {
    let rounds: u64 = std::env::var("CAIRN_FSCK_RANDOM").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let first: u64 = std::env::var("CAIRN_FSCK_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let crashed = {
        let (disk, volume) = filled();
        volume.fsync(1, false).unwrap();
        drop(volume);
        disk
    };
    for seed in first..first + rounds {
        let mut dice = Dice(seed);
        let disk = if dice.roll(2) == 0 { crashed.fork() } else { closed() };
        let before = shown(&disk);
        spoil_files(&disk, &mut dice);
        if disk.files().iter().all(|path| !["superblock", "superblock.backup"].contains(&path.as_str())) {
            continue;
        }
        is_in_order(&disk, seed);
        // Where it can be mounted, no file holds anything else than at some time.
        let Ok(volume) = open(&disk.fork()) else { continue };
        for (path, is) in crate::fixture::tree(&volume) {
            let (Some(was), Some(content)) =
                (before.get(&path).and_then(|was| was.content.as_ref()), &is.content)
            else {
                continue;
            };
            let at_some_time = content.iter().zip(was).all(|(is, was)| is == was);
            assert!(at_some_time, "seed {seed}: {path} is not what it was");
        }
    }
}
