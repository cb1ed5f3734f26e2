//! Drills on small volumes in directories: what they say of them, and that nothing of them is changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_store::disk::MemoryDisk;
use tempfile::TempDir;

use super::round::{Bench, Outcome, Subject};
use super::scratch::Scratch;
use super::unreadable::BadDisk;
use super::*;
use crate::{Caller, MakeOptions, OpenOptions, make, open};

/// A volume with some files, unmounted, and a directory for copies beside it.
fn filled(parity: (u8, u8)) -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    let options = MakeOptions {
        chunk_min: 256,
        chunk_avg: 1024,
        chunk_max: 4096,
        frame: 8192,
        segment_size: 64 << 10,
        journal_size: 1 << 20,
        pack_size: 128 << 10,
        parity_data: parity.0,
        parity_extra: parity.1,
        ..MakeOptions::default()
    };
    make(&temp.path().join("v"), &options).unwrap();
    let volume = open(&temp.path().join("v"), OpenOptions::default()).unwrap();
    let mut dice = Dice::new(1);
    for name in ["one", "two", "three"] {
        let file = volume.create(1, name.as_bytes(), 0o644, 0, &Caller::default()).unwrap();
        for part in 0..16u64 {
            let bytes: Vec<u8> = (0..2048).flat_map(|_| dice.roll().to_le_bytes()).collect();
            volume.write(file.ino, part * 16384, &bytes, false).unwrap();
        }
        volume.release(file.ino);
    }
    volume.close().unwrap();
    fs::create_dir(temp.path().join("scratch")).unwrap();
    temp
}

fn options(temp: &TempDir) -> DrillOptions {
    DrillOptions { sample: 1 << 20, rounds: 2, seed: 5, scratch: temp.path().join("scratch"), keep: false }
}

/// Every file's bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    all
}

#[test]
fn what_is_promised_comes_back_nothing_of_the_volume_is_changed_and_nothing_stays() {
    let temp = filled((16, 2));
    let dir = temp.path().join("v");
    let before = contents(&dir);
    let report = drill(&dir, &options(&temp), &mut |_| true).unwrap();
    assert!(before == contents(&dir), "the volume is another");
    assert_eq!(fs::read_dir(temp.path().join("scratch")).unwrap().count(), 0, "copies are left over");
    assert_eq!((report.wrong(), report.broken(), report.unprotected()), (0, 0, 0), "{:#?}", report.whys);
    assert!(report.packs.iter().any(|pack| pack.metadata) && report.packs.iter().any(|pack| !pack.metadata));
    for line in &report.lines {
        assert_eq!((line.rounds, line.repaired + line.told), (2, 2), "{line:?}");
        let gone = matches!(line.damage, Damage::EmptyPack | Damage::MissingPack);
        match line.damage {
            Damage::MebibyteHole => assert_eq!(line.told, 2, "{line:?}"),
            // A pack of data that nothing shares has no second copy, one of metadata has.
            _ if gone => assert_eq!((line.told, line.promised), (1, 1), "{line:?}"),
            // Of four bad sectors three may be those that say where a pack's parts lie: that is not promised.
            _ => assert!(line.told <= 1, "{line:?}"),
        }
    }
    for margin in &report.margins {
        // Where the damage takes all that says where a small metadata pack's parts lie, nothing is measured.
        let measured = |range: &DrillRange| range.count > 0 || !margin.metadata;
        let (hole, sectors, column) = (&margin.hole_repaired, &margin.sectors_lost, &margin.column_lost);
        assert!(!measured(hole) || hole.least >= margin.hole_promised, "{margin:?}");
        assert!(!measured(sectors) || sectors.least > margin.sectors_promised, "{margin:?}");
        assert!(!measured(column) || column.least == margin.sectors_promised + 1, "{margin:?}");
    }
    assert_eq!(report.margins.iter().map(|m| m.metadata).collect::<Vec<_>>(), [false, true]);
    let again = drill(&dir, &options(&temp), &mut |_| true).unwrap();
    assert_eq!((again.packs, again.margins), (report.packs, report.margins), "the seed decides");
}

#[test]
fn without_parity_losses_are_told_and_no_byte_is_wrong() {
    let temp = filled((0, 0));
    let report = drill(&temp.path().join("v"), &options(&temp), &mut |_| true).unwrap();
    assert_eq!(report.unprotected(), report.packs.len() as u64);
    assert_eq!((report.wrong(), report.broken(), report.margins.len()), (0, 0, 0), "{:#?}", report.whys);
    let of = |damage: Damage| *report.lines.iter().find(|line| line.damage == damage).unwrap();
    // One may hit what is there twice without parity, too: a copy of the footer.
    assert!(of(Damage::GarbageSectors).told > 0);
    assert_eq!(of(Damage::Sums).rounds, 0, "there are none");
    assert!(report.lines.iter().all(|line| line.promised == 0));
}

#[test]
fn a_drill_may_be_stopped_anywhere_and_leaves_nothing() {
    let temp = filled((16, 2));
    let options = DrillOptions { rounds: 1, ..options(&temp) };
    let mut asked = 0;
    drill(&temp.path().join("v"), &options, &mut |_| {
        asked += 1;
        true
    })
    .unwrap();
    for at in (1..asked).step_by((asked / 12).max(1)) {
        let mut left = at;
        let stopped = drill(&temp.path().join("v"), &options, &mut |_| {
            left = left.saturating_sub(1);
            left > 0
        });
        assert!(matches!(stopped, Err(DrillError::Stopped)), "stopped at {at}: {stopped:?}");
        assert_eq!(fs::read_dir(temp.path().join("scratch")).unwrap().count(), 0, "stopped at {at}");
    }
}

#[test]
fn what_cannot_be_drilled_is_refused_with_what_to_do() {
    let temp = filled((16, 2));
    let dir = temp.path().join("v");
    let said = |options: &DrillOptions| match drill(&dir, options, &mut |_| true) {
        Err(DrillError::Failed(why)) => why,
        other => panic!("{other:?}"),
    };
    let inside = DrillOptions { scratch: dir.join("store"), ..options(&temp) };
    assert!(said(&inside).contains("--scratch"));
    let missing = DrillOptions { scratch: temp.path().join("no/such"), ..options(&temp) };
    assert!(said(&missing).contains("no/such"));
    fs::remove_dir_all(dir.join("store/packs")).unwrap();
    fs::create_dir(dir.join("store/packs")).unwrap();
    assert!(said(&options(&temp)).contains("cairn sync"));
}

#[test]
fn a_pack_that_is_damaged_already_is_told_and_drilled_with_as_far_as_it_can_be_mended() {
    let temp = filled((16, 2));
    let dir = temp.path().join("v");
    let mut packs: Vec<_> = contents(&dir.join("store/packs")).into_iter().collect();
    packs.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
    let spoil = |(path, bytes): &(PathBuf, Vec<u8>), bytes_of: std::ops::Range<usize>| {
        let mut bytes = bytes.clone();
        bytes[bytes_of].fill(0x77);
        fs::write(path, bytes).unwrap();
    };
    spoil(&packs[0], 10_000..10_100);
    let len = packs[1].1.len();
    spoil(&packs[1], 0..len);
    let before = contents(&dir);
    let all = DrillOptions { sample: 64 << 20, rounds: 1, ..options(&temp) };
    let report = drill(&dir, &all, &mut |_| true).unwrap();
    assert!(before == contents(&dir), "the volume is another");
    assert_eq!(report.damaged.len(), 2);
    assert_eq!(report.damaged.iter().filter(|d| report.packs.iter().any(|p| p.pack == **d)).count(), 1);
    assert_eq!((report.wrong(), report.broken()), (0, 0), "{:#?}", report.whys);
}

/// A drill that passes a wrong byte over would promise anything.
#[test]
fn a_repair_that_makes_other_bytes_is_told_to_be_wrong() {
    let temp = filled((16, 2));
    let dir = temp.path().join("v");
    let store = store_disk(&dir, "").unwrap();
    let superblock = Store::superblock_of(&*store).unwrap().newest;
    let scratch = Scratch::make(&temp.path().join("scratch"), false, &superblock).unwrap();
    let (pack, _) = *list_packs(&*store).unwrap().packs.iter().max_by_key(|(_, len)| *len).unwrap();
    scratch.copy(&*store, pack, &mut |_| true).unwrap();
    let footer = PackReader::open(&*scratch.original, pack).unwrap().footer().unwrap();
    let subject =
        Subject { pack, metadata: false, layout: footer.layout(), frames: footer.frames, twin: false };
    let edits = [Edit::Zeros(20_000..24_000)];
    let outcome = || {
        let mut bench = Bench::new(&scratch);
        bench.round(&subject, &edits, &mut Dice::new(1), &mut |_| true).unwrap().unwrap().outcome
    };
    assert_eq!(outcome(), Outcome::Repaired);
    // What is mended there is what the checksums say, and not what is taken for the original.
    let path = pack_path(&pack);
    let file = scratch.original.open(&path, Access::Write).unwrap();
    Edit::Flip { at: subject.layout.parity_unit(1).start, bit: 3 }.inflict(&*file).unwrap();
    assert!(matches!(outcome(), Outcome::Wrong(_)), "{:?}", outcome());
}

#[test]
fn bad_sectors_cannot_be_read_until_they_are_written_and_dead_ones_not_even_then() {
    let below: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let file = below.open("f", Access::CreateNew).unwrap();
    file.write_at(&[7; 20_000], 0).unwrap();
    let edits =
        [(4096..8192, false), (12_288..16_384, true)].map(|(range, stays)| Edit::Unreadable { range, stays });
    let disk = BadDisk::new(below.clone(), "f".into(), &edits);
    let file = disk.open("f", Access::Write).unwrap();
    let reads = |at: u64| file.read_exact_at(&mut [0; 100], at).is_ok();
    assert!(reads(0) && reads(8192) && reads(16_384));
    assert!(!reads(4000) && !reads(5000) && !reads(8191) && !reads(13_000));
    file.write_at(&[1; 1000], 4096).unwrap();
    assert!(reads(4096) && reads(4500) && !reads(5090));
    assert!(file.write_at(&[1; 10], 13_000).is_err() && !reads(13_000));
    // Another file in its place lies elsewhere.
    let other = below.open("g", Access::CreateNew).unwrap();
    other.write_at(&[2; 20_000], 0).unwrap();
    disk.rename("g", "f").unwrap();
    assert!(disk.open("f", Access::Read).unwrap().read_exact_at(&mut [0; 20_000], 0).is_ok());
}
