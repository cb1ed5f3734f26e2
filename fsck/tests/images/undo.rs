//! Repairs that are undone: a check finds what it found before, another repair ends as the first did, and what was written
//! since is never lost.

use std::collections::HashSet;

use cairn_format::PackId;
use cairn_store::disk::{Crash, Disk, MemoryDisk};
use cairn_store::heal::{examine, mend};
use cairn_store::{PackListing, list_packs, list_twins};
use cairn_volume::Caller;
use fsck_cairn::{CheckError, Finding, Level, Severity, UNDO_DIR};

use crate::journal::{crashed, damaged, spoil_record};
use crate::memory::{checked, closed, fsck, open, shown, store, undone};
use crate::random::{Dice, spoil, spoil_files};

use crate::fixture::{rewrite_state, tree};

fn rounds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let first = number("CAIRN_FSCK_SEED").unwrap_or(1);
    first..first + number("CAIRN_FSCK_RANDOM").unwrap_or(60)
}

/// What a check finds, less what an undo does not put back: damage of packs that was mended, packs that were not finished,
/// a superblock's copy that was missing, caches, second copies of packs; and the note that it leaves.
fn found(disk: &MemoryDisk) -> Vec<String> {
    let left_out = [
        "pack",
        "pack-header",
        "footer",
        "footer-copy",
        "frame",
        "parity",
        "unsealed-pack",
        "suspect",
        "index",
        // Second copies are what they are.
        "pack-missing",
        "twin",
        "twin-missing",
    ];
    let missing = |f: &Finding| f.kind == "superblock-replica" && f.what.ends_with("entity not found");
    let counts = |f: &Finding| f.severity != Severity::Cache && !left_out.contains(&f.kind) && !missing(f);
    // Any of the directories that lie within each other may be named.
    let told = |f: &Finding| match f.kind {
        "cycle" => f.kind.to_owned(),
        _ => format!("{:?} {} {:?} {:?} {}", f.severity, f.kind, f.paths, f.inode, f.what),
    };
    let mut found: Vec<_> = checked(disk).findings.iter().filter(|f| counts(f)).map(told).collect();
    found.sort();
    found
}

/// Whether there is something that could be put back.
fn kept(disk: &MemoryDisk) -> bool {
    disk.files().iter().any(|path| path.starts_with(UNDO_DIR) && path.ends_with("/before"))
}

/// Mends all packs as far as that goes: that is not undone.
fn mended(disk: &MemoryDisk) {
    let store = store(disk);
    for (pack, _) in list_packs(&*store).unwrap().packs {
        if let Ok(Some(damage)) = examine(&*store, pack, &mut |_| true) {
            mend(&*store, &damage).unwrap();
        }
    }
}

/// Repairs and undoes; whether there was anything to be undone.
fn is_as_before(disk: &MemoryDisk, seed: u64) -> bool {
    let before = found(disk);
    let packs_of = |listing: PackListing| listing.packs.into_iter().map(|(pack, _)| pack);
    let packs_before: HashSet<_> = packs_of(list_packs(&*store(disk)).unwrap()).collect();
    let twins_before: HashSet<_> = packs_of(list_twins(&*store(disk)).unwrap()).collect();
    if fsck(disk, Level::All).is_err() {
        return false;
    }
    let usable = open(&disk.fork()).is_ok();
    let (found_then, shown_then) = (found(disk), usable.then(|| shown(disk)));
    match undone(disk) {
        Ok(done) => {
            let packs: HashSet<_> = packs_of(list_packs(&*store(disk)).unwrap()).collect();
            assert!(packs.is_superset(&packs_before), "{done:?}");
            // One that was written anew from its second copy stays, as what is mended does.
            let more: Vec<_> = packs.difference(&packs_before).collect();
            assert!(more.iter().all(|pack| twins_before.contains(pack)), "{done:?}: {more:?}");
        }
        Err(CheckError::NotUndone(why)) => {
            assert!(!kept(disk), "seed {seed}: {why}");
            return false;
        }
        Err(error) => panic!("seed {seed}: {error}"),
    }
    assert_eq!(found(disk), before, "seed {seed}");
    assert!(matches!(undone(disk), Err(CheckError::NotUndone(_))), "seed {seed}: undone twice");
    fsck(disk, Level::All).unwrap();
    assert_eq!(found(disk), found_then, "seed {seed}: repaired again");
    assert_eq!(usable.then(|| shown(disk)), shown_then, "seed {seed}: repaired again");
    true
}

#[test]
fn a_namespace_that_was_put_in_order_is_again_what_it_was() {
    let mut undone = 0;
    for seed in rounds() {
        let disk = closed();
        // With the checkpoint beyond the journal's end, and not.
        let ahead = if seed % 2 == 0 { 1000 } else { 0 };
        rewrite_state(&disk, store(&disk), ahead, |records| drop(spoil(records, &mut Dice(seed))));
        undone += u64::from(is_as_before(&disk, seed));
    }
    assert!(undone > 0, "nothing was ever undone");
}

#[test]
fn whatever_became_of_its_files_a_repair_is_undone_or_there_is_nothing_to_undo() {
    let crashed = crashed();
    let mut undone = 0;
    for seed in rounds() {
        let mut dice = Dice(seed);
        let disk = if dice.roll(2) == 0 { crashed.fork() } else { closed() };
        spoil_files(&disk, &mut dice);
        if disk.files().iter().all(|path| !["superblock", "superblock.backup"].contains(&path.as_str())) {
            continue;
        }
        mended(&disk);
        undone += u64::from(is_as_before(&disk, seed));
    }
    assert!(undone > 0, "nothing was ever undone");
}

#[test]
fn records_that_were_given_up_are_there_again() {
    assert!(is_as_before(&damaged(), 0));
}

/// A fold drops packs that nothing refers to any more, and that what was before it does.
#[test]
fn packs_that_a_fold_dropped_are_there_again() {
    let disk = closed();
    let volume = open(&disk).unwrap();
    volume.unlink(1, b"big").unwrap();
    for n in 0..40u64 {
        volume.mkdir(1, format!("last {n}").as_bytes(), 0o755, 0, &Caller::default()).unwrap();
    }
    volume.fsync(1, false).unwrap();
    drop(volume);
    spoil_record(&disk, 10);
    let packs = |disk: &MemoryDisk| -> HashSet<PackId> {
        list_packs(&*store(disk)).unwrap().packs.into_iter().map(|(pack, _)| pack).collect()
    };
    let repaired = disk.fork();
    fsck(&repaired, Level::All).unwrap();
    assert!(packs(&disk).difference(&packs(&repaired)).count() > 0, "nothing was dropped");
    assert!(is_as_before(&disk, 0));
}

#[test]
fn an_undo_that_is_ended_at_any_write_is_run_again() {
    for spoilt in [damaged(), {
        let disk = closed();
        rewrite_state(&disk, store(&disk), 1000, |records| drop(spoil(records, &mut Dice(4))));
        disk
    }] {
        let before = found(&spoilt);
        fsck(&spoilt, Level::All).unwrap();
        let repaired = shown(&spoilt);
        let whole = spoilt.fork();
        undone(&whole).unwrap();
        let most = std::env::var("CAIRN_FSCK_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(16u64);
        let step = (whole.operations().div_ceil(most.max(1)) as usize).max(1);
        for at in (0..whole.operations()).step_by(step) {
            for crash in [Crash::KeepAll, Crash::DropUnsynced, Crash::Random(at)] {
                let disk = spoilt.fork();
                if crash == Crash::KeepAll {
                    disk.kill_at(at)
                } else {
                    disk.cut_at(at)
                }
                // Where the last write is beside the point, it may end in order.
                let _ = undone(&disk);
                let disk = disk.crash(crash);
                // Nobody sees anything but one of both states, and a repair ends as it did, too.
                let seen = || open(&disk.fork()).is_ok_and(|volume| tree(&volume) != repaired);
                assert!(found(&disk) == before || !seen(), "ended at {at} with {crash:?}");
                let other = disk.fork();
                fsck(&other, Level::All).unwrap();
                assert_eq!(shown(&other), repaired, "ended at {at} with {crash:?}, and repaired");
                let again = undone(&disk);
                let done = disk.files().iter().any(|path| path.ends_with("/undone"));
                assert!(again.is_ok() || done, "ended at {at} with {crash:?}: {again:?}");
                assert_eq!(found(&disk), before, "ended at {at} with {crash:?}");
                fsck(&disk, Level::All).unwrap();
                assert_eq!(shown(&disk), repaired, "ended at {at} with {crash:?}");
            }
        }
    }
}

#[test]
fn what_was_written_since_is_not_lost_to_an_undo() {
    let disk = damaged();
    fsck(&disk, Level::All).unwrap();
    open(&disk).unwrap().close().unwrap();
    let since = shown(&disk);
    let refused = undone(&disk).expect_err("it was mounted for writing");
    assert!(refused.to_string().contains("mounted for writing"), "{refused}");
    assert_eq!(shown(&disk), since);
    assert!(checked(&disk).is_clean());
}

#[test]
fn a_repair_without_room_for_the_journal_says_that_it_cannot_be_undone() {
    let disk = damaged();
    let space = disk.space().unwrap();
    disk.set_capacity(space.total - space.available + (400 << 10));
    fsck(&disk, Level::All).unwrap();
    let refused = undone(&disk).expect_err("not all is there");
    assert!(refused.to_string().contains("room"), "{refused}");
    assert!(checked(&disk).is_clean());
}

#[test]
fn a_repair_that_was_killed_is_run_again_before_anything_is_undone() {
    let whole = damaged();
    fsck(&whole, Level::All).unwrap();
    let disk = damaged();
    disk.kill_at(whole.operations() * 3 / 4);
    assert!(fsck(&disk, Level::All).is_err());
    let disk = disk.crash(Crash::KeepAll);
    let left = found(&disk);
    let refused = undone(&disk).expect_err("it did not come to its end");
    assert!(refused.to_string().contains("run it again"), "{refused}");
    assert_eq!(found(&disk), left);
    fsck(&disk, Level::All).unwrap();
    assert!(checked(&disk).is_clean());
}

#[test]
fn repairs_are_undone_one_after_another() {
    let disk = damaged();
    disk.corrupt("superblock", 200, 1).unwrap();
    let at_first = found(&disk);
    fsck(&disk, Level::Safe).unwrap();
    let then = found(&disk);
    assert_ne!(then, at_first, "the superblock is whole");
    fsck(&disk, Level::All).unwrap();
    assert!(checked(&disk).is_clean());
    undone(&disk).unwrap();
    assert_eq!(found(&disk), then);
    undone(&disk).unwrap();
    assert_eq!(found(&disk), at_first);
    assert!(matches!(undone(&disk), Err(CheckError::NotUndone(_))));
    fsck(&disk, Level::All).unwrap();
    assert!(checked(&disk).is_clean());
    undone(&disk).unwrap();
    assert_eq!(found(&disk), at_first);
}
