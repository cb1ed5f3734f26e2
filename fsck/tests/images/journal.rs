//! Journals that lost something, and checkpoints that cannot be read: what can be had is had, and the rest is told.

use std::sync::Arc;

use cairn_format::{PackId, PackKind, SEGMENT_DATA_START};
use cairn_store::disk::{Access, Disk, MemoryDisk};
use cairn_store::{PackReader, Place, list_packs, pack_path};
use cairn_volume::{Caller, Volume};
use fsck_cairn::{Done, Level, Report, Severity};

use crate::fixture::{noise, rewrite_state};
use crate::memory::{checked, closed, filled, fsck, made, open, shown, store, undone};

/// The records of segments from number 2 on (mkfs wrote the first), in their order: path, and place.
fn records(disk: &MemoryDisk) -> Vec<(String, usize)> {
    let mut records = Vec::new();
    for path in disk.files().into_iter().filter(|path| path.starts_with("journal/")) {
        let file = disk.open(&path, Access::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let at = |at: &usize| bytes[*at..].starts_with(b"CREC");
        for at in (SEGMENT_DATA_START as usize..bytes.len() - 24).step_by(8).filter(at) {
            let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            records.push((number(at + 16), at, path.clone()));
        }
    }
    records.retain(|(segment, ..)| *segment >= 2);
    records.sort();
    records.into_iter().map(|(_, at, path)| (path, at)).collect()
}

/// A volume that was not unmounted, everything in its journal and synced.
pub(crate) fn crashed() -> MemoryDisk {
    let (disk, volume) = filled();
    volume.fsync(1, false).unwrap();
    drop(volume);
    disk
}

/// The same with a byte of a record in the midst of its journal flipped.
pub(crate) fn damaged() -> MemoryDisk {
    let disk = crashed();
    spoil_record(&disk, records(&disk).len() / 2);
    disk
}

/// Flips a byte of a record, counted from the journal's end.
pub(crate) fn spoil_record(disk: &MemoryDisk, from_end: usize) {
    let records = records(disk);
    let (path, at) = &records[records.len() - from_end];
    disk.corrupt(path, *at as u64 + 50, 1).unwrap();
}

fn left(report: &Report) -> Vec<&fsck_cairn::Finding> {
    report.findings.iter().filter(|f| f.severity == Severity::Damage && f.done.is_none()).collect()
}

fn dones(report: &Report, kind: &str) -> Vec<Done> {
    report.findings.iter().filter(|f| f.kind == kind).filter_map(|f| f.done).collect()
}

#[test]
fn a_journal_that_is_damaged_in_the_middle_is_given_up_behind_that_and_only_when_told() {
    let disk = damaged();
    assert!(open(&disk.fork()).is_err(), "a mount refuses");
    let asked = disk.fork();
    assert!(!fsck(&asked, Level::Safe).unwrap().is_clean());
    assert!(open(&asked).is_err());
    let report = fsck(&disk, Level::All).unwrap();
    let given_up: Vec<_> = report.findings.iter().filter(|f| f.kind == "journal").collect();
    assert!(given_up[0].what.contains("are lost"), "{given_up:#?}");
    assert!(checked(&disk).is_clean());
    // What came before the damage is there, whole.
    let shown = shown(&disk);
    let big = shown["/big"].content.as_ref().unwrap();
    assert!(big.len() >= 8 << 10 && noise(150_000, 1).starts_with(big));
    let kept = disk.files().into_iter().filter(|path| path.starts_with("fsck-undo/")).count();
    assert!(kept > 1, "what was overwritten was copied");
}

#[test]
fn what_parity_restores_of_the_journals_middle_is_written_back_and_nothing_is_given_up() {
    let (disk, volume) = filled();
    volume.fsync(1, false).unwrap();
    assert!(volume.protect_journal());
    drop(volume);
    let before = shown(&disk);
    // A sector with a record's head, and one with a payload; then all that a hole may take.
    let middle = records(&disk).into_iter().find(|(path, at)| {
        disk.files().contains(&path.replace(".seg", ".par")) && (24 << 10..30 << 10).contains(at)
    });
    let (path, at) = middle.unwrap();
    let sector = at as u64 / 4096 * 4096;
    for spoiled in
        [[sector..sector + 4096, sector + 8192..sector + 9000], [8192..16 << 10, 16 << 10..24 << 10]]
    {
        let disk = disk.fork();
        for range in spoiled {
            let file = disk.open(&path, Access::Write).unwrap();
            file.write_at(&vec![0xee; (range.end - range.start) as usize], range.start).unwrap();
        }
        let report = checked(&disk);
        let found = report.findings.iter().find(|f| f.kind == "journal-sector").unwrap();
        assert_eq!((found.severity, found.file.as_deref()), (Severity::Damage, Some(&path[..])));
        assert!(found.advice.is_some_and(|advice| advice.contains("fsck.cairn -p")), "{found:?}");
        assert!(!report.findings.iter().any(|f| f.kind == "journal"), "{:#?}", report.findings);
        let report = fsck(&disk, Level::Safe).unwrap();
        assert!(left(&report).is_empty(), "{:#?}", report.findings);
        assert!(dones(&report, "journal-sector").iter().all(|done| *done == Done::Rewritten));
        assert!(!report.findings.iter().any(|f| f.done == Some(Done::GivenUp)), "{:#?}", report.findings);
        assert!(checked(&disk).is_clean());
        assert_eq!(shown(&disk), before);
        let kept =
            disk.files().into_iter().any(|path| path.starts_with("fsck-undo/") && path.contains(".seg@"));
        assert!(kept, "what was overwritten was copied: {:?}", disk.files());
    }
}

#[test]
fn what_a_segments_parity_witnesses_is_damage_again_once_giving_it_up_is_undone() {
    let (disk, volume) = filled();
    volume.fsync(1, false).unwrap();
    assert!(volume.protect_journal());
    drop(volume);
    let is_protected = |path: &String| disk.files().contains(&path.replace(".seg", ".par"));
    let records = records(&disk);
    let (last, _) = records.iter().rfind(|(path, _)| is_protected(path)).unwrap();
    // With it goes what came behind, and all else that says that it was synced.
    let behind = records.iter().map(|(path, _)| path).filter(|path| !is_protected(path));
    let mut gone: Vec<_> = behind.chain([last]).collect();
    gone.sort();
    gone.dedup();
    gone.into_iter().for_each(|path| disk.remove(path).unwrap());
    let is_lost = |report: &Report| report.findings.iter().any(|finding| finding.kind == "journal");
    assert!(is_lost(&checked(&disk)) && open(&disk.fork()).is_err());
    fsck(&disk, Level::All).unwrap();
    assert!(!is_lost(&checked(&disk)) && open(&disk.fork()).is_ok());
    undone(&disk).unwrap();
    assert!(is_lost(&checked(&disk)) && open(&disk.fork()).is_err());
}

#[test]
fn journalled_bytes_that_are_lost_are_given_up_and_the_rest_of_the_volume_goes_on() {
    let disk = crashed();
    // The first long record: of /big.
    let records = records(&disk);
    let long = records.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[1].1 - pair[0].1 > 8 << 10);
    let (path, at) = &long.unwrap()[0];
    disk.corrupt(path, *at as u64 + 5000, 1).unwrap();
    let asked = disk.fork();
    assert!(!fsck(&asked, Level::Safe).unwrap().is_clean());
    let report = fsck(&disk, Level::All).unwrap();
    assert_eq!(dones(&report, "journalled-bytes"), [Done::GivenUp], "{:#?}", report.findings);
    let lost = left(&report);
    assert_eq!(lost.len(), 1, "{lost:#?}");
    assert_eq!(
        (lost[0].kind, &lost[0].paths[..], lost[0].offset),
        ("lost-bytes", &["/big".to_owned()][..], Some(0))
    );
    let len = lost[0].length.unwrap();
    assert_eq!(dones(&report, "unclean"), [Done::Folded], "{:#?}", report.findings);
    // It is unmounted in order now, all that is left is folded, and nothing of it is lost.
    let volume = open(&disk).unwrap();
    let big = volume.lookup(1, b"big").unwrap().unwrap().ino;
    assert!(volume.read(big, 0, 1).is_err());
    assert_eq!(volume.read(big, len, 150_000).unwrap(), noise(150_000, 1)[len as usize..]);
    let linked = volume.lookup(1, b"linked").unwrap().unwrap().ino;
    assert_eq!(volume.read(linked, 0, 16_000).unwrap(), b"again and again ".repeat(1000));
    // Written over it is as good as new.
    volume.write(big, 0, &noise(150_000, 1)[..len as usize], false).unwrap();
    volume.close().unwrap();
    assert!(checked(&disk).is_clean(), "{:#?}", checked(&disk).findings);
}

#[test]
fn a_segment_that_is_gone_takes_what_came_behind_it() {
    let disk = crashed();
    let all = records(&disk);
    let (path, _) = &all[all.len() / 2];
    disk.remove(path).unwrap();
    assert!(open(&disk.fork()).is_err());
    let report = fsck(&disk, Level::All).unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(report.findings.iter().any(|f| f.done == Some(Done::GivenUp)), "{:#?}", report.findings);
    assert!(shown(&disk).contains_key("/big"));
}

#[test]
fn a_journal_that_is_gone_leaves_what_the_checkpoint_holds() {
    let (disk, volume) = filled();
    volume.sync().unwrap();
    volume.mkdir(1, b"later", 0o755, 0, &Caller { uid: 0, gid: 0 }).unwrap();
    volume.fsync(1, false).unwrap();
    drop(volume);
    for path in disk.files().into_iter().filter(|path| path.starts_with("journal/")) {
        disk.remove(&path).unwrap();
    }
    assert!(open(&disk.fork()).is_err());
    let report = fsck(&disk, Level::All).unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(dones(&report, "journal-missing").contains(&Done::GivenUp));
    let shown = shown(&disk);
    assert_eq!(shown["/big"].content, Some(noise(150_000, 1)));
    assert!(!shown.contains_key("/later"));
}

/// The volume's metadata packs, the newest last.
fn metadata(disk: &MemoryDisk) -> Vec<PackId> {
    let below = store(disk);
    let mut packs: Vec<_> = list_packs(&*below).unwrap().packs.into_iter().map(|(pack, _)| pack).collect();
    let checkpoint = |pack: &PackId| {
        let footer = PackReader::open(&*below, *pack).unwrap().footer().unwrap();
        (footer.kind == PackKind::Metadata).then(|| footer.checkpoint.unwrap().lsn)
    };
    packs.retain(|pack| checkpoint(pack).is_some());
    packs.sort_by_key(|pack| checkpoint(pack));
    packs
}

/// A volume with a base and a checkpoint behind it.
fn with_two_checkpoints() -> (MemoryDisk, Arc<Volume>) {
    let (disk, volume) = filled();
    volume.sync().unwrap();
    let dir = volume.mkdir(1, b"later", 0o755, 0, &Caller { uid: 0, gid: 0 }).unwrap().ino;
    let file = volume.create(dir, b"file", 0o644, 0, &Caller { uid: 0, gid: 0 }).unwrap().ino;
    volume.write(file, 0, &noise(9_000, 8), false).unwrap();
    volume.sync().unwrap();
    (disk, volume)
}

/// Removes a pack, with its second copy.
fn remove_pack(disk: &MemoryDisk, pack: &PackId) {
    for place in [Place::Pack, Place::Twin] {
        let _ = disk.remove(&format!("store/{}", place.path(pack)));
    }
}

#[test]
fn a_checkpoint_that_is_lost_is_had_back_from_the_one_before_it_and_the_journal() {
    let (disk, volume) = with_two_checkpoints();
    volume.close().unwrap();
    let before = shown(&disk);
    let packs = metadata(&disk);
    assert!(packs.len() > 1, "{packs:?}");
    let newest = packs.last().unwrap();
    remove_pack(&disk, newest);
    assert!(open(&disk.fork()).is_err());
    assert!(!fsck(&disk.fork(), Level::Safe).unwrap().is_clean());
    let report = fsck(&disk, Level::All).unwrap();
    assert_eq!(dones(&report, "checkpoint"), [Done::FellBack], "{:#?}", report.findings);
    assert!(report.findings.iter().any(|f| f.what.ends_with("nothing is lost")), "{:#?}", report.findings);
    assert!(report.is_clean() && checked(&disk).is_clean());
    assert_eq!(shown(&disk), before);
}

#[test]
fn without_the_journal_an_older_checkpoint_is_taken_and_what_is_lost_is_said() {
    let (disk, volume) = with_two_checkpoints();
    volume.close().unwrap();
    let newest = *metadata(&disk).last().unwrap();
    remove_pack(&disk, &newest);
    for path in disk.files().into_iter().filter(|path| path.starts_with("journal/")) {
        disk.remove(&path).unwrap();
    }
    let report = fsck(&disk, Level::All).unwrap();
    let told = report.findings.iter().find(|f| f.kind == "checkpoint").unwrap();
    assert!(told.done == Some(Done::FellBack) && told.what.ends_with("is lost"), "{told:#?}");
    assert!(report.is_clean() && checked(&disk).is_clean(), "{:#?}", checked(&disk).findings);
    let shown = shown(&disk);
    assert_eq!(shown["/big"].content, Some(noise(150_000, 1)));
    assert!(!shown.contains_key("/later"));
}

#[test]
fn a_volume_without_any_checkpoint_is_had_back_from_a_journal_that_holds_all_there_ever_was() {
    let disk = made();
    let packs = metadata(&disk);
    let volume = open(&disk).unwrap();
    volume.create(1, b"file", 0o644, 0, &Caller { uid: 0, gid: 0 }).unwrap();
    volume.close().unwrap();
    for pack in metadata(&disk).iter().chain(&packs) {
        remove_pack(&disk, pack);
    }
    assert!(open(&disk.fork()).is_err());
    let report = fsck(&disk, Level::All).unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(shown(&disk).contains_key("/file"));
}

#[test]
fn where_nothing_can_be_had_nothing_is_changed() {
    let (disk, volume) = filled();
    volume.close().unwrap();
    for pack in metadata(&disk) {
        remove_pack(&disk, &pack);
    }
    for path in disk.files().into_iter().filter(|path| path.starts_with("journal/")) {
        disk.remove(&path).unwrap();
    }
    let before = disk.files();
    let report = fsck(&disk, Level::All).unwrap();
    assert!(!report.is_clean() && report.corrected() == 0, "{:#?}", report.findings);
    let after: Vec<_> = disk.files().into_iter().filter(|path| path != "suspect").collect();
    assert_eq!(after, before);
}

#[test]
fn without_a_part_of_the_checkpoint_the_rest_is_there_and_no_byte_is_wrong() {
    let disk = closed();
    rewrite_state(&disk, store(&disk), 1000, |_| {});
    for pack in metadata(&disk).iter().filter(|pack| **pack != PackId::new(7, 1, 1)) {
        remove_pack(&disk, pack);
    }
    // Nor is any of it in the journal.
    for path in disk.files().into_iter().filter(|path| path.starts_with("journal/")) {
        disk.open(&path, Access::Write).unwrap().write_at(&[0; 64 << 10], 0).unwrap();
    }
    let before = shown(&disk);
    let path = format!("store/{}", pack_path(&PackId::new(7, 1, 1)));
    let footer = PackReader::open(&*store(&disk), PackId::new(7, 1, 1)).unwrap().footer().unwrap();
    assert!(footer.frames.len() > 5);
    for (number, frame) in footer.frames.iter().enumerate() {
        let disk = disk.fork();
        // One frame, and every third time the next one, too.
        let last = if number % 3 == 0 { footer.frames.get(number + 1) } else { None };
        for frame in [frame].into_iter().chain(last) {
            disk.corrupt(&path, frame.offset + u64::from(frame.len) - 1, 1).unwrap();
        }
        assert!(!fsck(&disk, Level::Safe).unwrap().is_clean());
        let report = fsck(&disk, Level::All).unwrap();
        assert_eq!(dones(&report, "checkpoint"), [Done::FellBack], "{:#?}", report.findings);
        assert!(left(&report).iter().all(|f| f.kind == "lost-bytes"), "{number}: {:#?}", left(&report));
        let again = checked(&disk);
        assert!(left(&again).iter().all(|f| f.kind == "lost-bytes"), "{number}: {:#?}", left(&again));
        let after = shown(&disk);
        for (path, is) in after.iter().filter(|(_, is)| is.mode & 0o170_000 == 0o100_000) {
            let was = match before.get(path) {
                Some(was) => was.content == is.content,
                None => before.values().any(|was| was.content == is.content),
            };
            assert!(is.content.is_none() || was, "{number}: {path} is not what it was");
        }
        // What is not there any more, or cannot be read, is told.
        for (path, was) in &before {
            let whole = after.get(path).is_some_and(|is| is.content == was.content);
            let told = report.findings.iter().any(|f| {
                f.paths.contains(path)
                    || path.starts_with(&format!("{}/", f.paths.first().map_or("?", |p| p)))
            });
            let moved = after.iter().any(|(path, is)| {
                path.starts_with("/lost+found/") && is.content == was.content && is.mode == was.mode
            });
            assert!(whole || told || moved, "{number}: {path} is gone and nobody was told");
        }
    }
}
