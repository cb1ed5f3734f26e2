//! Damage under an open volume: reads are right as far as parity reaches, what was damaged is written back, and what is
//! beyond is an error for just that, until the same bytes come again.

use std::ops::Range;
use std::sync::Arc;

use cairn_format::{
    FrameEntry, PackId, PackKind, PackLayout, ParityGeometry, PieceKind, StoreSuperblock, VolumeSuperblock,
};
use cairn_store::disk::{Access, Crash, Disk};
use cairn_store::heal::examine;
use cairn_store::{PackReader, list_packs, pack_path};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::engine::Survival;
use cairn_tests::watchdog::watch;
use cairn_tests::world::{World, small};
use cairn_volume::{
    Caller, Dedup, Error, HealMode, HealOutcome, HealPlace, MakeOptions, OpenOptions, ScrubOptions,
    Statistics, Volume, longest_hole,
};
use fsck_cairn::{Quiet, RepairOptions, repair};

/// Longer than a frame, shorter than a pack.
const LEN: usize = 50_000;
const FILES: u64 = 6;

fn options(heal: HealMode) -> OpenOptions {
    // Nothing decoded is kept: what is read comes from the disk.
    OpenOptions { index_mem: 1 << 18, cache_size: 0, heal, ..OpenOptions::default() }
}

/// A volume with some files, all folded, and the volume mounted.
fn filled(heal: HealMode) -> (World, Arc<Volume>) {
    let world = World::make(&small());
    let volume = world.open_with(options(heal)).expect("mount");
    for n in 0..FILES {
        write(&volume, n, &content(n));
    }
    volume.sync().expect("folds");
    (world, volume)
}

fn content(n: u64) -> Vec<u8> {
    noise(n + 1, LEN)
}

fn name(n: u64) -> Vec<u8> {
    format!("file {n}").into_bytes()
}

fn write(volume: &Volume, n: u64, bytes: &[u8]) -> u64 {
    let file = volume.create(1, &name(n), 0o644, 0, &Caller::default()).expect("create");
    for (i, part) in bytes.chunks(10_000).enumerate() {
        volume.write(file.ino, i as u64 * 10_000, part, false).expect("write");
    }
    volume.release(file.ino);
    file.ino
}

fn ino(volume: &Volume, n: u64) -> u64 {
    volume.lookup(1, &name(n)).expect("look-up").expect("is there").ino
}

fn all_is_right(volume: &Volume) {
    for n in 0..FILES {
        let read = volume.read(ino(volume, n), 0, LEN as u32).expect("a file");
        assert!(read == content(n), "file {n} has other bytes");
    }
}

/// Packs of a kind, with what their footers say.
fn packs(world: &World, kind: PackKind) -> Vec<(PackId, PackLayout, Vec<FrameEntry>)> {
    let disk = world.store_disk();
    let mut packs = list_packs(&*disk).expect("lists").packs;
    packs.sort();
    let read = |(pack, _): &(PackId, u64)| {
        let footer = PackReader::open(&*disk, *pack).and_then(|r| r.footer()).expect("whole");
        (footer.kind == kind).then(|| (*pack, footer.layout(), footer.frames))
    };
    packs.iter().filter_map(read).collect()
}

fn bytes_of(world: &World, pack: PackId) -> Vec<u8> {
    let file = world.store_disk().open(&pack_path(&pack), Access::Read).expect("is there");
    let mut bytes = vec![0; file.len().expect("has a length") as usize];
    file.read_exact_at(&mut bytes, 0).expect("reads");
    bytes
}

/// Makes bytes of a pack other ones.
fn spoil(world: &World, pack: PackId, at: Range<u64>) {
    let file = world.store_disk().open(&pack_path(&pack), Access::Write).expect("is there");
    let mut bytes = vec![0; (at.end - at.start) as usize];
    file.read_exact_at(&mut bytes, at.start).expect("reads");
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    file.write_at(&bytes, at.start).expect("writes");
}

/// Makes one frame of a pack unreadable, beyond what parity mends.
fn lose(world: &World, (pack, layout, frames): &(PackId, PackLayout, Vec<FrameEntry>), frame: usize) {
    spoil(world, *pack, layout.parity_area());
    let middle = frames[frame].offset + u64::from(frames[frame].len) / 2;
    spoil(world, *pack, middle..middle + 1);
}

/// Runs what threads do elsewhere, until nothing waits to be mended.
fn mend(volume: &Volume) -> Statistics {
    for _ in 0..20 {
        if volume.statistics().packs_waiting == 0 {
            break;
        }
        volume.maintain().expect("maintains");
    }
    volume.statistics()
}

/// Ranges of a file that lie in one frame of a pack.
fn in_frame(volume: &Volume, ino: u64, pack: PackId, frame: u32) -> Vec<Range<u64>> {
    let extents = volume.extents(ino).expect("extents");
    let there = |kind: &PieceKind| matches!(kind, PieceKind::Chunk(p) if p.pack == pack && p.frame == frame);
    extents.iter().filter(|(.., kind)| there(kind)).map(|(at, len, _)| *at..at + len).collect()
}

/// Whether something of a file lies in a pack.
fn lies_in(volume: &Volume, ino: u64, pack: PackId) -> bool {
    let there = |kind: &PieceKind| matches!(kind, PieceKind::Chunk(p) if p.pack == pack);
    volume.extents(ino).expect("extents").iter().any(|(.., kind)| there(kind))
}

/// A frame of a pack in which a file lies that lies in others of it, too, and another file only in others.
struct Shared {
    pack: usize,
    frame: usize,
    here: u64,
    beside: u64,
}

/// Looked for, since where a pack ends depends on how fast its frames are compressed.
fn shared_frame(volume: &Volume, packs: &[(PackId, PackLayout, Vec<FrameEntry>)]) -> Shared {
    let lies = |n: u64, pack: PackId, frame| !in_frame(volume, ino(volume, n), pack, frame).is_empty();
    for (pack, (id, _, frames)) in packs.iter().enumerate() {
        for frame in 0..frames.len() as u32 {
            let others = |n| (0..frames.len() as u32).any(|other| other != frame && lies(n, *id, other));
            let here = (0..FILES).find(|n| lies(*n, *id, frame) && others(*n));
            let beside = (0..FILES).find(|n| !lies(*n, *id, frame) && others(*n));
            if let (Some(here), Some(beside)) = (here, beside) {
                return Shared { pack, frame: frame as usize, here, beside };
            }
        }
    }
    panic!("no pack holds two files in frames of their own");
}

#[test]
fn what_is_damaged_within_the_guarantee_reads_right_and_is_as_it_was_afterwards() {
    let _watch = watch("heal", 5);
    for seed in 0..24 {
        let mut dice = Dice::new(seed);
        let (world, volume) = filled(HealMode::On);
        let data = packs(&world, PackKind::Data);
        let (pack, layout, _) = &data[dice.below(data.len() as u64) as usize];
        let before = bytes_of(&world, *pack);
        // Any two sectors, or one run of bytes, somewhere in the frames.
        let end = layout.footer_offset;
        if dice.below(2) == 0 {
            for _ in 0..2 {
                let at = 256 + dice.below(end - 257);
                spoil(&world, *pack, at..at + 1);
            }
        } else {
            let unit = layout.stripe().expect("has parity").unit();
            let hole = dice.below(2 * unit - 2 * 4096) + 1;
            let at = 256 + dice.below(end.saturating_sub(hole + 256).max(1));
            spoil(&world, *pack, at..(at + hole).min(end));
        }
        assert!(bytes_of(&world, *pack) != before, "seed {seed}");

        all_is_right(&volume);
        let met = volume.statistics();
        assert!(met.heals_answered > 0 && met.packs_waiting == 1 && met.heals_lost == 0, "{met:?}");
        let mended = mend(&volume);
        assert!(bytes_of(&world, *pack) == before, "seed {seed}: the pack is not what it was");
        assert!(mended.heals_rewritten > 0 && mended.packs_waiting == 0, "{mended:?}");
        let told = volume.heal_events();
        assert!(told.iter().all(|event| event.place == HealPlace::Pack(*pack)), "{told:?}");
        for outcome in [HealOutcome::Answered, HealOutcome::Rewritten] {
            assert!(told.iter().any(|event| event.outcome == outcome), "{told:?}");
        }
        // Nothing is left to be answered from parity.
        all_is_right(&volume);
        assert_eq!(volume.statistics().heals_answered, mended.heals_answered);
        volume.close().expect("close");
    }
}

#[test]
fn a_hole_as_long_as_is_promised_comes_back_wherever_it_begins() {
    let (world, volume) = filled(HealMode::On);
    volume.close().expect("close");
    let disk = world.store_disk();
    for (pack, layout, _) in
        packs(&world, PackKind::Data).into_iter().chain(packs(&world, PackKind::Metadata))
    {
        let before = bytes_of(&world, pack);
        let covered = layout.stripe().expect("has parity").covered();
        let hole = longest_hole(layout.parity, covered);
        let end = layout.parity_area().end;
        for start in (0..end.saturating_sub(hole)).step_by(1_777) {
            spoil(&world, pack, start..start + hole);
            let examined = examine(&*disk, pack, &mut |_| true).expect("is found").expect("nobody stops it");
            let mended = cairn_store::heal::mend(&*disk, &examined).expect("writes");
            assert_eq!(mended.lost, [], "{hole} bytes at {start} of {covered}");
            assert!(bytes_of(&world, pack) == before, "{hole} bytes at {start} of {covered}");
        }
    }
}

#[test]
fn a_thread_mends_without_being_asked() {
    let _watch = watch("heal in the background", 5);
    let (world, volume) = filled(HealMode::On);
    volume.close().expect("close");
    let (pack, _, frames) = packs(&world, PackKind::Data).remove(0);
    let before = bytes_of(&world, pack);
    let volume = world.open_in_background().expect("mount");
    spoil(&world, pack, frames[0].offset..frames[0].offset + 1);
    all_is_right(&volume);
    while bytes_of(&world, pack) != before {
        std::thread::yield_now();
    }
    volume.close().expect("close");
}

#[test]
fn what_waits_is_mended_before_an_unmount() {
    let (world, volume) = filled(HealMode::On);
    let (pack, _, frames) = packs(&world, PackKind::Data).remove(0);
    let before = bytes_of(&world, pack);
    spoil(&world, pack, frames[0].offset..frames[0].offset + 1);
    all_is_right(&volume);
    assert!(bytes_of(&world, pack) != before, "nobody mended it yet");
    volume.close().expect("close");
    assert!(bytes_of(&world, pack) == before, "mended");
}

#[test]
fn with_heal_ro_reads_are_right_and_nothing_is_written() {
    let (world, volume) = filled(HealMode::ReadOnly);
    let (pack, _, frames) = packs(&world, PackKind::Data).remove(0);
    let before = bytes_of(&world, pack);
    spoil(&world, pack, frames[0].offset..frames[0].offset + 1);
    let damaged = bytes_of(&world, pack);
    all_is_right(&volume);
    volume.maintain().expect("maintains");
    let stood = volume.statistics();
    assert!(stood.heals_answered > 0 && stood.heals_rewritten == 0 && stood.packs_waiting == 1, "{stood:?}");
    assert!(bytes_of(&world, pack) == damaged, "nothing was to be written");
    // Told otherwise, it is mended.
    volume.set_heal_mode(HealMode::On);
    assert_eq!(mend(&volume).packs_waiting, 0);
    assert!(bytes_of(&world, pack) == before);
    volume.close().expect("close");
}

#[test]
fn a_read_only_mount_heals_what_it_shows_and_writes_nothing() {
    let (world, volume) = filled(HealMode::On);
    volume.close().expect("close");
    let (pack, _, frames) = packs(&world, PackKind::Data).remove(0);
    spoil(&world, pack, frames[0].offset..frames[0].offset + 1);
    let damaged = bytes_of(&world, pack);
    let volume = world.open_with(OpenOptions { read_only: true, ..options(HealMode::On) }).expect("mount");
    all_is_right(&volume);
    volume.set_heal_mode(HealMode::On);
    let _ = volume.maintain();
    volume.close().expect("close");
    assert!(bytes_of(&world, pack) == damaged);
}

/// Reads all; exactly what lies in a frame fails, with an I/O error.
fn only_a_frame_is_lost(volume: &Volume, pack: PackId, frame: u32) {
    let mut lost = 0;
    for n in 0..FILES {
        let (ino, content) = (ino(volume, n), content(n));
        let gone = in_frame(volume, ino, pack, frame);
        for (at, len, _) in volume.extents(ino).expect("extents") {
            let read = volume.read(ino, at, len as u32);
            match gone.contains(&(at..at + len)) {
                true => assert!(matches!(read, Err(Error::Io)), "file {n} at {at}: {read:?}"),
                false => {
                    assert!(read.expect("in another frame") == content[at as usize..(at + len) as usize])
                }
            }
        }
        lost += gone.len();
    }
    assert!(lost > 0, "some file lies in it");
}

#[test]
fn with_heal_off_what_is_damaged_is_an_error_for_exactly_the_frame() {
    let (world, volume) = filled(HealMode::Off);
    let (pack, _, frames) = packs(&world, PackKind::Data).remove(1);
    spoil(&world, pack, frames[2].offset + 50..frames[2].offset + 51);
    let damaged = bytes_of(&world, pack);
    only_a_frame_is_lost(&volume, pack, 2);
    volume.maintain().expect("maintains");
    let stood = volume.statistics();
    assert_eq!((stood.heals_answered, stood.heals_rewritten, stood.packs_waiting), (0, 0, 0));
    assert!(bytes_of(&world, pack) == damaged);
    volume.close().expect("close");
}

#[test]
fn what_is_beyond_the_guarantee_is_an_error_for_exactly_the_frame() {
    let (world, volume) = filled(HealMode::On);
    let all = packs(&world, PackKind::Data);
    lose(&world, &all[1], 2);
    let pack = all[1].0;
    only_a_frame_is_lost(&volume, pack, 2);
    let lost = mend(&volume);
    assert!(lost.heals_lost > 0, "{lost:?}");
    // Parity is computed anew from what is there only where all of that is whole: never over what is lost.
    only_a_frame_is_lost(&volume, pack, 2);
    let again = volume.statistics();
    assert_eq!(again.packs_waiting, 0, "what was looked through and is lost does not wait again");
    let events = volume.heal_events();
    let told = events.iter().filter(|event| event.outcome == HealOutcome::Lost).count();
    assert_eq!(told, 1, "told once, however often it is read: {events:?}");
    volume.close().expect("close");
}

/// Programs ask for a page at a time, and then again.
#[test]
fn what_cannot_be_restored_is_not_tried_again_at_once() {
    let (world, volume) = filled(HealMode::On);
    let all = packs(&world, PackKind::Data);
    lose(&world, &all[1], 2);
    let lost = (0..FILES)
        .find_map(|n| Some((ino(&volume, n), in_frame(&volume, ino(&volume, n), all[1].0, 2).pop()?)))
        .expect("some file lies in it");
    let reads_of_one = || {
        let before = world.disk.reads();
        let read = volume.read(lost.0, lost.1.start, 1);
        assert!(matches!(read, Err(Error::Io)), "{read:?}");
        world.disk.reads() - before
    };
    let first = reads_of_one();
    let hundred: u64 = (0..100).map(|_| reads_of_one()).sum();
    // As stored it is read each time, and from parity where the test was kept waiting.
    assert!(hundred < 100 * first / 2, "{first} reads of the disk at first, {hundred} by the next hundred");
    volume.close().expect("close");
}

#[test]
fn damaged_headers_and_footers_are_met_by_a_mount_and_mended() {
    for (which, spoilt) in [("header", 0), ("first footer", 1), ("second footer", 2), ("trailer", 3)] {
        for kind in [PackKind::Data, PackKind::Metadata] {
            let (world, volume) = filled(HealMode::On);
            volume.close().expect("close");
            let (pack, layout, _) = packs(&world, kind).remove(0);
            let before = bytes_of(&world, pack);
            let at =
                [0, layout.footer().start, layout.second_footer().start, before.len() as u64 - 9][spoilt];
            spoil(&world, pack, at..at + 1);
            // As after a crash: with no index that knows the packs, and no engine.
            world.store_disk().remove("index").expect("closing wrote one");
            let world = world.crash(Crash::KeepAll, Survival::None);
            let volume = world.open_with(options(HealMode::On)).unwrap_or_else(|e| panic!("{which}: {e}"));
            all_is_right(&volume);
            let stood = mend(&volume);
            // Who finds what he needs in the second copy does not look at the first.
            if spoilt >= 2 {
                assert!(bytes_of(&world, pack) == before, "{which} of {kind:?}: {stood:?}");
            }
            volume.close().expect("close");
        }
    }
}

#[test]
fn metadata_packs_have_more_parity_and_a_mount_reads_them_healed() {
    let (world, volume) = filled(HealMode::On);
    volume.close().expect("close");
    let metadata = packs(&world, PackKind::Metadata);
    for (pack, layout, _) in &metadata {
        assert_eq!(layout.parity, ParityGeometry::new(16, 4), "{pack}");
    }
    for (pack, layout, _) in &packs(&world, PackKind::Data) {
        assert_eq!(layout.parity, ParityGeometry::new(16, 2), "{pack}");
    }
    let (pack, layout, frames) = &metadata[0];
    let before = bytes_of(&world, *pack);
    spoil(&world, *pack, frames[0].offset + 40..layout.footer_offset);
    let world = world.crash(Crash::KeepAll, Survival::None);
    let refused = world.fork().open_with(options(HealMode::Off));
    assert!(refused.is_err(), "what nothing may mend");
    let volume = world.open_with(options(HealMode::On)).expect("mounts");
    assert!(volume.statistics().heals_answered > 0);
    all_is_right(&volume);
    mend(&volume);
    // A checkpoint may have taken its place meanwhile.
    if world.packs().iter().any(|path| path.ends_with(&pack_path(pack))) {
        assert!(bytes_of(&world, *pack) == before);
    }
    volume.close().expect("close");
}

#[test]
fn new_packs_get_the_parity_that_the_mount_says_and_none_where_it_says_none() {
    let world = World::make(&MakeOptions { parity_data: 4, parity_extra: 1, ..small() });
    for (n, parity, metadata) in [
        (0, None, ParityGeometry::new(4, 4)),
        (1, Some(ParityGeometry::new(3, 5)), ParityGeometry::new(3, 5)),
        (2, Some(ParityGeometry::default()), ParityGeometry::default()),
    ] {
        let seen: Vec<PackId> = list_packs(&*world.store_disk()).unwrap().packs.iter().map(|p| p.0).collect();
        let volume = world.open_with(OpenOptions { parity, ..options(HealMode::On) }).expect("mount");
        assert_eq!(volume.new_parity(), (parity.unwrap_or(ParityGeometry::new(4, 1)), metadata));
        write(&volume, n, &content(n));
        volume.close().expect("close");
        let new = |kind| packs(&world, kind).into_iter().filter(|(pack, ..)| !seen.contains(pack));
        assert!(new(PackKind::Data).count() > 0 && new(PackKind::Metadata).count() > 0);
        assert!(new(PackKind::Data).all(|(_, l, _)| l.parity == parity.unwrap_or(ParityGeometry::new(4, 1))));
        assert!(new(PackKind::Metadata).all(|(_, layout, _)| layout.parity == metadata));
    }
}

/// Who found out that something is lost, before the same bytes come again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Met {
    Nobody,
    /// A reader, a scrub, in this mount.
    Read,
    Scrubbed,
    /// The same in a mount before; where `true`, whoever mends has looked through the pack since.
    ReadBefore(bool),
    ScrubbedBefore(bool),
    /// `fsck.cairn -p`, since the mount before.
    Checked(bool),
}

#[test]
fn bytes_that_come_again_once_their_stored_copy_is_lost_are_stored_anew_and_serve_both_files() {
    use Met::*;
    let all =
        [Read, Scrubbed, ReadBefore(false), ReadBefore(true), ScrubbedBefore(false), ScrubbedBefore(true)];
    let unverified = all.into_iter().chain([Checked(false), Checked(true)]).map(|met| (Dedup::On, met));
    for (dedup, met) in unverified.chain([(Dedup::Verify, Read), (Dedup::Verify, Nobody)]) {
        let (world, volume) = filled(HealMode::On);
        let all = packs(&world, PackKind::Data);
        let chosen = shared_frame(&volume, &all);
        let (pack, frame, n) = (all[chosen.pack].0, chosen.frame, chosen.here);
        volume.close().expect("close");
        lose(&world, &all[chosen.pack], frame);
        let mount = || world.open_with(OpenOptions { dedup, ..options(HealMode::On) }).expect("mount");
        let mut volume = mount();
        let old = ino(&volume, n);
        match met {
            Read | ReadBefore(_) => assert!(matches!(volume.read(old, 0, LEN as u32), Err(Error::Io))),
            Scrubbed | ScrubbedBefore(_) => {
                let report = volume.scrub(&ScrubOptions::default(), &mut |_| true).expect("scrubs");
                assert!(report.files.iter().any(|file| file.inode == old), "{report:?}");
            }
            Nobody | Checked(_) => {}
        }
        if let ReadBefore(mended) | ScrubbedBefore(mended) | Checked(mended) = met {
            volume.close().expect("close");
            drop(volume);
            if let Checked(_) = met {
                let safe = RepairOptions { force: true, ..RepairOptions::default() };
                let disk = Arc::new(world.disk.clone());
                repair(disk, world.store_disk(), None, &safe, &Quiet).expect("fsck -p");
            }
            volume = mount();
            if mended {
                mend(&volume);
            }
        }
        write(&volume, 100, &content(n));
        volume.sync().expect("folds");
        let new = ino(&volume, 100);
        assert_eq!(
            in_frame(&volume, new, pack, frame as u32),
            [],
            "nothing names what is lost anew: {met:?}"
        );
        let both_are_right = |volume: &Volume, when| {
            for ino in [new, old] {
                let read = volume.read(ino, 0, LEN as u32);
                assert!(read.is_ok_and(|read| read == content(n)), "{when}: inode {ino}, {dedup:?}, {met:?}");
            }
        };
        both_are_right(&volume, "at once");
        // What else lies in the pack can be read, and nothing of it is stored twice once that is known.
        mend(&volume);
        write(&volume, 102, &content(chosen.beside));
        volume.sync().expect("folds");
        assert!(lies_in(&volume, ino(&volume, 102), pack), "{met:?}");
        volume.close().expect("close");
        drop(volume);
        let volume = mount();
        both_are_right(&volume, "after a mount");
        // Another comes to lie where it can be read, too.
        write(&volume, 101, &content(n));
        volume.sync().expect("folds");
        let read = volume.read(ino(&volume, 101), 0, LEN as u32);
        assert!(read.is_ok_and(|read| read == content(n)));
        volume.close().expect("close");
    }
}

#[test]
fn regression_what_a_crash_left_in_the_journal_is_not_folded_onto_a_copy_that_cannot_be_read() {
    for dedup in [Dedup::On, Dedup::Verify] {
        let (world, volume) = filled(HealMode::On);
        let all = packs(&world, PackKind::Data);
        let chosen = shared_frame(&volume, &all);
        let (pack, frame, n) = (all[chosen.pack].0, chosen.frame, chosen.here);
        let new = write(&volume, 100, &content(n));
        volume.fsync(new, false).expect("syncs");
        let world = world.crash(Crash::DropUnsynced, Survival::None);
        lose(&world, &all[chosen.pack], frame);
        let mount = || world.open_with(OpenOptions { dedup, ..options(HealMode::On) }).expect("mount");
        let again = mount();
        again.sync().expect("folds");
        assert_eq!(in_frame(&again, new, pack, frame as u32), [], "{dedup:?}");
        let both_are_right = |volume: &Volume| {
            for ino in [new, ino(volume, n)] {
                let read = volume.read(ino, 0, LEN as u32);
                assert!(read.is_ok_and(|read| read == content(n)), "inode {ino}, {dedup:?}");
            }
        };
        both_are_right(&again);
        again.close().expect("close");
        drop(again);
        both_are_right(&mount());
    }
}

#[test]
fn a_pack_that_is_dropped_while_it_waits_to_be_mended_stays_gone() {
    let (world, volume) = filled(HealMode::On);
    let (pack, _, frames) = packs(&world, PackKind::Data).remove(0);
    spoil(&world, pack, frames[0].offset..frames[0].offset + 1);
    all_is_right(&volume);
    assert_eq!(volume.statistics().packs_waiting, 1);
    for n in 0..FILES {
        volume.unlink(1, &name(n)).expect("unlink");
    }
    volume.sync().expect("folds");
    volume.sync().expect("folds");
    assert_eq!(volume.statistics().packs_waiting, 0);
    volume.maintain().expect("maintains");
    assert!(!world.packs().iter().any(|path| path.ends_with(&pack_path(&pack))));
    volume.close().expect("close");
}

/// Whoever mounts to write, and only who may heal.
#[test]
fn a_mount_for_writing_writes_a_superblock_again_that_cannot_be_used() {
    let (world, volume) = filled(HealMode::On);
    volume.close().expect("closed");
    drop(volume);
    let replicas = ["superblock", "superblock.backup", "store/superblock", "store/superblock.backup"];
    let read = |world: &World, path: &str| cairn_tests::rot::read_file(&world.disk, path).ok();
    let usable = |world: &World, path: &str| {
        let bytes = read(world, path);
        bytes.is_some_and(|bytes| match path.starts_with("store/") {
            true => StoreSuperblock::decode(&bytes).is_ok(),
            false => VolumeSuperblock::decode(&bytes).is_ok(),
        })
    };
    for (n, path) in replicas.into_iter().enumerate() {
        for gone in [false, true] {
            let spoilt = world.fork();
            match gone {
                true => spoilt.disk.remove(path).expect("there"),
                false => spoilt.disk.corrupt(path, 100 + n as u64, 4).expect("there"),
            }
            let after = |options| {
                let world = spoilt.fork();
                let volume = world.open_with(options).unwrap_or_else(|e| panic!("{path}, gone {gone}: {e}"));
                volume.close().expect("closed");
                drop(volume);
                world
            };
            let looked = after(OpenOptions { read_only: true, ..options(HealMode::On) });
            assert_eq!(read(&looked, path), read(&spoilt, path), "{path}: written by who only reads");
            // The volume's own says who mounted it last: every mount writes it.
            let looked = after(options(HealMode::ReadOnly));
            assert_eq!(usable(&looked, path), !path.starts_with("store/"), "{path}: heal=ro");
            let mended = after(options(HealMode::On));
            assert!(usable(&mended, path), "{path}, gone {gone}: still cannot be used");
            if path.starts_with("store/") {
                assert_eq!(read(&mended, path), read(&world, path), "{path}: not what it was");
            }
        }
    }
}
