//! Garbage collection: whatever happens meanwhile, files hold what was written to them, and what is dead goes.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cairn_format::{Codec, PackId, PackKind, PieceKind};
use cairn_store::disk::Crash;
use cairn_store::{Store, StoreOptions, stored_share};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::driver::Driver;
use cairn_tests::engine::Survival;
use cairn_tests::model::Model;
use cairn_tests::ops::{Raw, Sizes};
use cairn_tests::tree;
use cairn_tests::world::{World, small};
use cairn_volume::{
    Allocate, Caller, Error, FileKind, GcError, GcOptions, GcProgress, GcReport, GcStep, GcStop, MakeOptions,
    OpenOptions, SetAttr, Volume,
};

use super::crash::{consistent, on_all_cores};
use super::model::root_model;
use super::order::{at_every_cut, bytes_of, mount, put};

/// Bytes by which packs may exceed what is live and a tenth more: one that is small, alone.
const SLACK: u64 = 8 << 10;

fn gc(volume: &Volume) -> GcReport {
    gc_with(volume, |_| {})
}

/// Collects to the end; `step` is called between the steps.
fn gc_with(volume: &Volume, mut step: impl FnMut(&GcProgress)) -> GcReport {
    let mut tell = |progress: &GcProgress| {
        step(progress);
        ControlFlow::Continue(())
    };
    volume.gc(&GcOptions::default(), &mut tell).expect("collecting")
}

/// Data packs as they are on the disk, and what of them is live.
#[derive(Debug, Default)]
struct Room {
    packs: HashSet<PackId>,
    bytes: u64,
    live: u64,
}

impl Room {
    fn is_tidy(&self) -> bool {
        self.bytes <= self.live + self.live / 10 + SLACK
    }
}

/// All inodes of a volume that have names.
fn files(volume: &Volume) -> Vec<u64> {
    let mut files = Vec::new();
    let mut ahead = vec![1];
    let mut seen = HashSet::new();
    while let Some(dir) = ahead.pop() {
        for item in tree::list(volume, dir).expect("a listing").into_iter().skip(2) {
            match item.kind {
                FileKind::Directory => ahead.push(item.ino),
                FileKind::Regular if seen.insert(item.ino) => files.push(item.ino),
                _ => {}
            }
        }
    }
    files
}

/// Counts by itself: from the files' extents and the packs' footers.
fn room(world: &World, volume: &Volume) -> Room {
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(world.store_disk(), options).expect("the store");
    let mut live: HashMap<PackId, HashMap<(u32, u32), u64>> = HashMap::new();
    for ino in files(volume) {
        for (_, _, kind) in volume.extents(ino).expect("extents") {
            if let PieceKind::Chunk(at) = kind {
                live.entry(at.pack).or_default().insert((at.frame, at.slot), at.stored.into());
            }
        }
    }
    let mut room = Room::default();
    for pack in store.data_summaries() {
        let footer = store.reader(pack.pack).and_then(|r| r.footer()).expect("a footer");
        assert_eq!(footer.kind, PackKind::Data);
        let mut chunks = footer.chunks.iter();
        let share = |f: &cairn_format::FrameEntry| -> u64 {
            chunks.by_ref().take(f.chunks as usize).map(|c| u64::from(stored_share(f, c))).sum()
        };
        let whole: u64 = footer.frames.iter().map(share).sum();
        let used: u64 = live.get(&pack.pack).map_or(0, |chunks| chunks.values().sum());
        room.packs.insert(pack.pack);
        room.bytes += pack.file_len;
        room.live += pack.file_len * used / whole.max(1);
    }
    room
}

const FILES: u8 = 24;

fn content(n: u8) -> Vec<u8> {
    noise(n.into(), 9_000 + usize::from(n) * 37)
}

/// A volume of some packs half of which is dead, closed.
fn half_dead() -> World {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    for n in 0..FILES {
        put(&volume, &[b'a' + n], &content(n));
        if n % 6 == 5 {
            volume.sync().expect("sync");
        }
    }
    for n in (0..FILES).step_by(2) {
        volume.unlink(1, &[b'a' + n]).expect("unlink");
    }
    volume.close().expect("close");
    world
}

fn check_half_dead(volume: &Volume, what: &str) {
    for n in (1..FILES).step_by(2) {
        assert!(bytes_of(volume, &[b'a' + n]) == Some(Ok(content(n))), "{what}: file {n}");
    }
}

#[test]
fn what_is_half_dead_takes_half_the_room_afterwards() {
    let world = half_dead();
    let volume = world.open().expect("mount");
    let before = room(&world, &volume);
    assert!(before.bytes > before.live * 18 / 10, "{before:?}");
    let report = gc(&volume);
    check_half_dead(&volume, "afterwards");
    let after = room(&world, &volume);
    assert!(after.is_tidy() && after.packs.is_disjoint(&before.packs), "{after:?}");
    assert_eq!((report.bytes_before, report.bytes_after), (before.bytes, after.bytes));
    assert_eq!(report.bytes_freed(), before.bytes - after.bytes);
    assert_eq!(report.packs_compacted, before.packs.len() as u64);
    assert_eq!(report.stopped, None);
    assert!(report.live_bytes.abs_diff(before.live) <= before.packs.len() as u64, "{report:?} {before:?}");
    let again = gc(&volume);
    assert_eq!((again.packs_written, again.packs_dropped), (0, 0), "nothing is left to be done");
    volume.close().expect("close");
    consistent(&world).expect("fsck");
    check_half_dead(&world.open().expect("mount"), "after a remount");
}

#[test]
fn the_power_may_go_at_any_moment_of_a_run_and_again_during_recovery() {
    let turn = Cell::new(0u64);
    at_every_cut(
        &half_dead(),
        |_| {},
        |volume| {
            let _ = volume.gc(&GcOptions::default(), &mut |_| ControlFlow::Continue(()));
        },
        |world, _, what| {
            turn.set(turn.get() + 1);
            let world = world.joined();
            world.disk.cut_at(turn.get() * 7 % 120);
            if let Ok(volume) = world.open() {
                let _ = volume.gc(&GcOptions::default(), &mut |_| ControlFlow::Continue(()));
            }
            let world = match turn.get() % 3 {
                0 => world.crash(Crash::DropUnsynced, Survival::None),
                1 => world.crash(Crash::KeepAll, Survival::All),
                _ => world.crash(Crash::Random(turn.get()), Survival::All),
            };
            let volume = mount(&world, what);
            check_half_dead(&volume, what);
            gc(&volume);
            check_half_dead(&volume, what);
            let room = room(&world, &volume);
            assert!(room.is_tidy(), "{what}: {room:?}");
            volume.close().expect("close");
            consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
        },
    );
}

#[test]
fn an_error_of_the_disk_during_a_run_loses_nothing() {
    let base = half_dead();
    let mut failed = 0;
    for n in 0.. {
        for (kind, sticky) in
            [(ErrorKind::Other, false), (ErrorKind::StorageFull, false), (ErrorKind::Other, true)]
        {
            let what = format!("{kind:?} at {n}, sticky: {sticky}");
            let world = base.fork();
            let volume = world.open().expect("mount");
            let before = world.disk.operations();
            world.disk.fail_at(before + n, kind, sticky);
            let result = volume.gc(&GcOptions::default(), &mut |_| ControlFlow::Continue(()));
            check_half_dead(&volume, &what);
            if before + n >= world.disk.operations() {
                result.unwrap_or_else(|e| panic!("{what}, after the end: {e}"));
                assert!(failed > 30, "{failed} failures");
                return;
            }
            failed += u32::from(result.is_err());
            if kind == ErrorKind::StorageFull
                && let Ok(report) = result
            {
                assert!(report.stopped.is_none_or(|stop| stop == GcStop::NoRoom), "{what}: {report:?}");
            }
            // What was written for nothing goes at once, not at the next mount.
            assert!(
                !world.disk.files().iter().any(|file| file.ends_with(".new")),
                "{what}: {:?}",
                world.disk.files()
            );
            if !sticky && !volume.is_read_only() {
                gc(&volume);
                assert!(room(&world, &volume).is_tidy(), "{what}");
            }
            drop(volume);
            let world = world.crash(Crash::DropUnsynced, Survival::None);
            let volume = mount(&world, &what);
            check_half_dead(&volume, &what);
            gc(&volume);
            assert!(room(&world, &volume).is_tidy(), "{what}");
            volume.close().expect("close");
            consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    }
}

#[test]
fn files_that_change_while_they_are_moved_keep_their_changes() {
    // Whatever is done to a file between any two steps of a run.
    type Change = fn(&Volume, u64);
    const CHANGES: [Change; 5] = [
        |volume, ino| volume.write(ino, 700, b"written meanwhile", false).expect("write"),
        |volume, ino| {
            let caller = Caller::default();
            let size = Some(5_000);
            volume
                .setattr(ino, &SetAttr { size, ..SetAttr::default() }, &caller)
                .map(drop)
                .expect("truncate");
        },
        |volume, ino| volume.allocate(ino, 100, 6_000, Allocate::Punch, false).expect("punch"),
        |volume, ino| assert_eq!(volume.copy_range((ino, 4_096), (ino, 0), 4_000, false), Ok(4_000)),
        |volume, ino| {
            volume.write(ino, 700, b"written meanwhile", false).expect("write");
            volume.sync().expect("sync");
        },
    ];
    let base = half_dead();
    let seen = |steps: &mut Vec<GcStep>, step: GcStep| steps.push(step);
    let mut steps = Vec::new();
    gc_with(&base.fork().open().expect("mount"), |progress| seen(&mut steps, progress.step));
    assert!(steps.contains(&GcStep::Committing) && steps.contains(&GcStep::Checkpointing), "{steps:?}");
    for (c, change) in CHANGES.iter().enumerate() {
        for at in 0..steps.len() {
            let world = base.fork();
            let volume = world.open().expect("mount");
            let ino = volume.lookup(1, b"d").expect("lookup").expect("there").ino;
            let mut expected = None;
            let mut step = 0;
            gc_with(&volume, |_| {
                if step == at {
                    change(&volume, ino);
                    expected = bytes_of(&volume, b"d");
                }
                step += 1;
            });
            // How many steps there are hangs on how far the pack was written when it was asked whether it is full.
            if expected.is_none() {
                assert!(step <= at && at > steps.len() / 2, "{step} steps, there were {}", steps.len());
                continue;
            }
            assert!(bytes_of(&volume, b"d") == expected, "change {c} at step {at}");
            for n in (1..FILES).step_by(2).filter(|n| *n != 3) {
                assert!(
                    bytes_of(&volume, &[b'a' + n]) == Some(Ok(content(n))),
                    "change {c} at step {at}: {n}"
                );
            }
            volume.close().expect("close");
            consistent(&world).unwrap_or_else(|e| panic!("change {c} at step {at}: {e}"));
            let volume = world.open().expect("mount");
            assert!(bytes_of(&volume, b"d") == expected, "change {c} at step {at}, after a remount");
        }
    }
}

#[test]
fn what_comes_again_or_is_copied_during_a_run_keeps_no_pack_for_good() {
    for at in 0..20 {
        let world = half_dead();
        let volume = world.open().expect("mount");
        let before = room(&world, &volume).packs;
        let mut step = 0;
        gc_with(&volume, |_| {
            if step == at {
                // The same chunks as those of a file that is being moved, and of one that is dead.
                put(&volume, b"again", &content(5));
                put(&volume, b"dead", &content(4));
                let from = volume.lookup(1, b"h").expect("lookup").expect("there").ino;
                let to = put(&volume, b"copy", b"");
                volume.copy_range((from, 0), (to, 0), 100_000, false).expect("copy");
                if at % 2 == 0 {
                    volume.sync().expect("sync");
                }
            }
            step += 1;
        });
        if step <= at {
            break;
        }
        volume.sync().expect("sync");
        gc(&volume);
        for (name, n) in [(b"again".as_slice(), 5), (b"dead", 4), (b"copy", 7)] {
            assert!(bytes_of(&volume, name) == Some(Ok(content(n))), "at step {at}: {n}");
        }
        check_half_dead(&volume, "afterwards");
        let after = room(&world, &volume);
        assert!(after.packs.is_disjoint(&before), "at step {at}");
        volume.close().expect("close");
        consistent(&world).unwrap_or_else(|e| panic!("at step {at}: {e}"));
    }
}

#[test]
fn what_comes_again_and_again_keeps_no_pack_alive() {
    let world = half_dead();
    let volume = world.open().expect("mount");
    let before = room(&world, &volume).packs;
    let mut step = 0u16;
    let report = gc_with(&volume, |_| {
        // At each step a file that is in one of the packs that are to go.
        step += 1;
        put(&volume, format!("again{step}").as_bytes(), &content(5));
        volume.sync().expect("sync");
    });
    assert!(step > 10 && report.packs_compacted == before.len() as u64, "{step} steps: {report:?}");
    assert!(room(&world, &volume).packs.is_disjoint(&before));
    for n in 1..=step {
        assert!(bytes_of(&volume, format!("again{n}").as_bytes()) == Some(Ok(content(5))), "again{n}");
    }
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}

#[test]
fn what_was_moved_may_die_before_the_run_ends() {
    let base = half_dead();
    let volume = base.open().expect("mount");
    let from = volume.lookup(1, b"b").expect("lookup").expect("there").ino;
    let last = put(&volume, b"last", b"");
    volume.copy_range((from, 0), (last, 0), 100_000, false).expect("copy");
    volume.close().expect("close");
    for at in 0..30 {
        let world = base.fork();
        let volume = world.open().expect("mount");
        let mut step = 0;
        gc_with(&volume, |_| {
            if step == at {
                // All but one that has the same chunks as the first that is moved.
                for n in (1..FILES).step_by(2) {
                    volume.unlink(1, &[b'a' + n]).expect("unlink");
                }
            }
            if step >= at {
                // What nobody refers to goes.
                put(&volume, format!("other{step}").as_bytes(), &noise(step, 100));
                volume.sync().expect("sync");
            }
            step += 1;
        });
        if step <= at {
            break;
        }
        assert!(bytes_of(&volume, b"last") == Some(Ok(content(1))), "at step {at}");
        volume.sync().expect("sync");
        gc(&volume);
        assert!(room(&world, &volume).is_tidy(), "at step {at}");
        volume.close().expect("close");
        consistent(&world).unwrap_or_else(|e| panic!("at step {at}: {e}"));
        let volume = world.open().expect("mount");
        assert!(bytes_of(&volume, b"last") == Some(Ok(content(1))), "at step {at}");
    }
}

#[test]
fn a_chunk_is_moved_once_however_many_files_have_it() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    for n in 0..4u8 {
        put(&volume, &[b'x', b'0' + n], &noise(100 + u64::from(n), 12_000));
    }
    let ino = put(&volume, b"first", &noise(7, 40_000));
    for n in 0..30u8 {
        let copy = put(&volume, &[b'c', b'A' + n], b"");
        volume.copy_range((ino, 0), (copy, 0), 40_000, false).expect("copy");
    }
    volume.sync().expect("sync");
    (0..4u8).for_each(|n| volume.unlink(1, &[b'x', b'0' + n]).expect("unlink"));
    let report = gc(&volume);
    assert!(report.packs_compacted > 0 && report.bytes_written < 60_000, "{report:?}");
    assert!(room(&world, &volume).is_tidy());
    for n in 0..30u8 {
        assert!(bytes_of(&volume, &[b'c', b'A' + n]) == Some(Ok(noise(7, 40_000))));
    }
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}

#[test]
fn small_packs_are_made_one_and_then_left_alone() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    for n in 0..20u8 {
        put(&volume, &[n + 1], &noise(n.into(), 3_000));
        volume.sync().expect("sync");
    }
    let before = room(&world, &volume);
    assert_eq!(before.packs.len(), 20);
    let kept = GcOptions { merge_small: 0, ..GcOptions::default() };
    let report = volume.gc(&kept, &mut |_| ControlFlow::Continue(())).expect("collecting");
    assert_eq!((report.packs_dropped, report.packs_written), (0, 0));
    let report = gc(&volume);
    assert_eq!(report.packs_dropped, 20);
    let after = room(&world, &volume);
    assert!(after.packs.len() <= 2 && after.is_tidy(), "{after:?}");
    assert_eq!(gc(&volume).packs_dropped, 0);
    for n in 0..20u8 {
        assert_eq!(bytes_of(&volume, &[n + 1]), Some(Ok(noise(n.into(), 3_000))));
    }
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}

#[test]
fn a_run_that_is_stopped_is_gone_on_with() {
    for after in 0..30 {
        let world = half_dead();
        let volume = world.open().expect("mount");
        let mut steps = 0;
        let mut tell = |_: &GcProgress| {
            steps += 1;
            if steps > after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let report = volume.gc(&GcOptions::default(), &mut tell).expect("collecting");
        assert_eq!(report.stopped, (steps > after).then_some(GcStop::Asked), "after {after} steps");
        check_half_dead(&volume, "stopped");
        // What is still in an old pack is found there again.
        let new = volume.statistics().new_bytes;
        put(&volume, b"again", &content(5));
        volume.sync().expect("sync");
        assert_eq!(volume.statistics().new_bytes, new, "after {after} steps");
        let none = GcOptions { max_duration: Some(Duration::ZERO), ..GcOptions::default() };
        let report = volume.gc(&none, &mut |_| ControlFlow::Continue(())).expect("collecting");
        assert_eq!((report.stopped, report.packs_written), (Some(GcStop::Time), 0));
        gc(&volume);
        assert!(room(&world, &volume).is_tidy(), "after {after} steps");
        check_half_dead(&volume, "gone on");
    }
}

/// Spoils a frame in the middle of a pack, and all of its parity.
fn beyond_repair(world: &World, pack: PackId) {
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(world.store_disk(), options).expect("the store");
    let layout = store.reader(pack).and_then(|r| r.footer()).expect("a footer").layout();
    let path = format!("store/{}", cairn_store::pack_path(&pack));
    for at in layout.parity_area().step_by(1 << 12).chain([14_000]) {
        world.disk.corrupt(&path, at, 0x10).expect("there");
    }
}

#[test]
fn a_pack_that_cannot_be_read_stays_and_the_others_go() {
    let world = half_dead();
    for pack in room(&world, &world.open().expect("mount")).packs {
        beyond_repair(&world, pack);
    }
    // All data packs are damaged now, and the metadata, which is small, is not.
    let volume = world.open().expect("mount");
    let before = room(&world, &volume);
    let report = gc(&volume);
    assert_eq!(report.packs_unreadable as usize, before.packs.len(), "{report:?}");
    assert!(before.packs.is_subset(&room(&world, &volume).packs));
    let readable = |n: u8| bytes_of(&volume, &[b'a' + n]) == Some(Ok(content(n)));
    let count = (1..FILES).step_by(2).filter(|n| readable(*n)).count();
    assert!(count > 0 && count < 12, "{count} of 12 files are whole");
    for n in (1..FILES).step_by(2) {
        assert!(readable(n) || bytes_of(&volume, &[b'a' + n]) == Some(Err(Error::Io)), "file {n}");
    }
    assert_eq!(gc(&volume).packs_unreadable, 0, "they are not tried again");
}

#[test]
fn a_chunk_whose_bytes_are_not_what_its_id_says_is_not_taken_over() {
    let world = half_dead();
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(world.store_disk(), options).expect("the store");
    let victim = store.data_summaries().into_iter().map(|pack| pack.pack).min().expect("packs");
    let reader = store.reader(victim).expect("there");
    let footer = reader.footer().expect("a footer");
    // The same pack once more, every checksum right, a bit of every chunk not.
    let mut writer =
        store.begin_pack(victim, PackKind::Data, footer.volume, footer.parity).expect("a name beside it");
    for entry in &footer.frames {
        let frame = reader.frame(entry).expect("a frame");
        let mut plain = frame.plain.clone();
        plain.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
        writer.append(Codec::Raw, &plain, entry.plain_len, frame.chunks.clone()).expect("written");
    }
    writer.seal(None).expect("sealed");
    drop((reader, store));
    let volume = world.open().expect("mount");
    let report = gc(&volume);
    assert_eq!(report.packs_unreadable, 1, "{report:?}");
    let packs = room(&world, &volume).packs;
    assert!(packs.contains(&victim), "what may be healed is kept");
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(world.store_disk(), options).expect("the store");
    for pack in packs.into_iter().filter(|pack| *pack != victim) {
        let reader = store.reader(pack).expect("there");
        for entry in &reader.footer().expect("a footer").frames {
            let frame = reader.frame(entry).expect("a frame");
            for slot in 0..entry.chunks {
                let (chunk, plain) = frame.chunk(slot).expect("there");
                assert_eq!(cairn_codec::chunk_id(store.chunk_key(), plain), chunk.id);
            }
        }
    }
}

#[test]
fn only_one_run_goes_on_at_a_time_and_none_where_nothing_is_written() {
    let world = half_dead();
    let volume = world.open().expect("mount");
    let mut asked = 0;
    gc_with(&volume, |_| {
        let second = volume.gc(&GcOptions::default(), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(second, Err(GcError::Busy)), "{second:?}");
        asked += 1;
    });
    assert!(asked > 0);
    volume.close().expect("close");
    let closed = volume.gc(&GcOptions::default(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(closed, Err(GcError::ReadOnly)), "{closed:?}");
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let volume = world.open_with(options).expect("mount");
    let reading = volume.gc(&GcOptions::default(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(reading, Err(GcError::ReadOnly)), "{reading:?}");
}

#[test]
fn a_disk_without_room_for_all_is_compacted_as_far_as_there_is() {
    // So much is kept for deleting and compacting.
    let kept = (24 << 20) + (64 << 10) + 16 * 8192;
    let world = half_dead();
    let volume = world.open().expect("mount");
    let packs = room(&world, &volume);
    let used: u64 = 2 << 20;
    world.disk.set_capacity(kept + used);
    std::thread::sleep(Duration::from_millis(150));
    let report = gc(&volume);
    assert!(report.stopped.is_none() || report.stopped == Some(GcStop::NoRoom), "{report:?}");
    assert!(report.packs_compacted > 0, "{report:?}");
    assert!(room(&world, &volume).bytes < packs.bytes);
    check_half_dead(&volume, "in little room");
    // None at all.
    world.disk.set_capacity(0);
    std::thread::sleep(Duration::from_millis(150));
    let _ = volume.gc(&GcOptions::default(), &mut |_| ControlFlow::Continue(()));
    check_half_dead(&volume, "without room");
    world.disk.set_capacity(1 << 40);
    std::thread::sleep(Duration::from_millis(150));
    gc(&volume);
    assert!(room(&world, &volume).is_tidy());
    check_half_dead(&volume, "with room again");
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}

const SIZES: Sizes = Sizes { write: 12_000, file: 30_000, sparse: 3 << 20 };

/// What a case of the property did.
#[derive(Default)]
struct Done {
    runs: AtomicU64,
    compacted: AtomicU64,
}

/// Random operations, collecting in between with more of them between its steps, folds, remounts and crashes.
fn life(base: &World, seed: u64, done: &Done) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let mut world = base.fork();
    let mut driver = Driver::empty(world.open().map_err(|e| e.to_string())?);
    let mut model = root_model(&driver);
    fn step(dice: &mut Dice, driver: &mut Driver, model: &mut Model) -> Result<(), String> {
        let op = Raw::draw(dice).resolve(model, &SIZES);
        let next = model.next_id();
        let found = driver.apply(&op, next);
        let expected = op.on_model(model);
        match found == expected {
            true => Ok(()),
            false => Err(format!("{op:?}: should be {expected:?}, is {found:?}")),
        }
    }
    for round in 0..12 {
        for _ in 0..dice.below(25) {
            step(&mut dice, &mut driver, &mut model)?;
        }
        match dice.below(4) {
            0 => driver.volume.sync().map_err(|e| e.to_string())?,
            1 => drop(driver.volume.maintain().map_err(|e| e.to_string())?),
            _ => {}
        }
        let options = GcOptions {
            threshold: [50, 91, 100][dice.below(3) as usize],
            merge_small: [0, 2, 8][dice.below(3) as usize],
            thorough: !dice.one_in(3),
            max_duration: None,
        };
        let volume = driver.volume.clone();
        let (busy, stop) = (dice.one_in(2), dice.below(60));
        let (mut result, mut steps) = (Ok(()), 0);
        let mut tell = |_: &GcProgress| {
            steps += 1;
            if busy && result.is_ok() && dice.one_in(3) {
                result = step(&mut dice, &mut driver, &mut model);
                if dice.one_in(8) {
                    let _ = volume.maintain();
                }
            }
            if steps > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let report = volume.gc(&options, &mut tell).map_err(|e| format!("round {round}: {e}"))?;
        result.map_err(|e| format!("round {round}, meanwhile: {e}"))?;
        done.runs.fetch_add(1, Ordering::Relaxed);
        done.compacted.fetch_add(report.packs_compacted, Ordering::Relaxed);
        drop(volume);
        let found = driver.compare(&model).map_err(|e| format!("round {round}: {e}"))?;
        if dice.one_in(3) {
            let killed = dice.one_in(2);
            if killed {
                driver.volume.fsync(1, false).map_err(|e| e.to_string())?;
            } else {
                driver.volume.close().map_err(|e| e.to_string())?;
                consistent(&world).map_err(|e| format!("round {round}: {e}"))?;
            }
            let Driver { volume, .. } = driver;
            drop(volume);
            let fate = if dice.one_in(2) { Crash::KeepAll } else { Crash::DropUnsynced };
            world = world.crash(fate, if dice.one_in(2) { Survival::All } else { Survival::None });
            model = model.remounted();
            let volume = world.open().map_err(|e| format!("round {round}: {e}"))?;
            driver = Driver::learn(volume, &tree::of_model(&model), &found);
            driver.compare(&model).map_err(|e| format!("round {round}, mounted again: {e}"))?;
        }
    }
    // Nobody has anything open any more; what is dead is all found.
    driver.volume.close().map_err(|e| e.to_string())?;
    let volume = world.open().map_err(|e| e.to_string())?;
    volume.sync().map_err(|e| e.to_string())?;
    gc(&volume);
    volume.sync().map_err(|e| e.to_string())?;
    let room = room(&world, &volume);
    if !room.is_tidy() {
        return Err(format!("after all that, {room:?}"));
    }
    let driver = Driver::new(volume, driver.inos);
    driver.compare(&model.remounted()).map_err(|e| format!("in the end: {e}"))?;
    driver.volume.close().map_err(|e| e.to_string())?;
    consistent(&world)
}

#[test]
fn whatever_is_done_files_stay_what_they_are_and_what_is_dead_goes() {
    let cases = std::env::var("CAIRN_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000u64) / 250;
    // Of fewer lives it is chance how much there is to compact.
    let cases = cases.max(80);
    let bases = [World::make(&small()), World::make(&MakeOptions { journal_size: 512 << 10, ..small() })];
    let done = Done::default();
    on_all_cores(cases, |seed| life(&bases[seed as usize % 2], seed, &done));
    let (runs, compacted) = (done.runs.into_inner(), done.compacted.into_inner());
    println!("{runs} runs compacted {compacted} packs");
    // Runs with nothing to do would prove nothing.
    assert!(compacted * 2 > runs, "{runs} runs, {compacted} packs");
}

#[test]
fn collecting_goes_on_among_writers_readers_and_folds() {
    const WRITERS: u64 = 3;
    let world = World::make(&MakeOptions { journal_size: 4 << 20, ..small() });
    let volume = world.open_in_background().expect("mount");
    let over = AtomicBool::new(false);
    let compacted = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let volume = &volume;
                scope.spawn(move || {
                    let mut dice = Dice::new(writer);
                    let mut has: HashMap<Vec<u8>, u64> = HashMap::new();
                    for _ in 0..250 {
                        let name = vec![b'a' + writer as u8, b'0' + dice.below(40) as u8];
                        match has.remove(&name) {
                            Some(seed) => {
                                let expected = Some(Ok(noise(seed, 7_000)));
                                assert!(bytes_of(volume, &name) == expected, "writer {writer}");
                                volume.unlink(1, &name).expect("unlink");
                            }
                            None => {
                                // Few contents: most of them are there already, or were.
                                let seed = dice.below(60);
                                put(volume, &name, &noise(seed, 7_000));
                                has.insert(name, seed);
                            }
                        }
                        if dice.one_in(40) {
                            volume.sync().expect("sync");
                        }
                    }
                    for (name, seed) in &has {
                        assert!(bytes_of(volume, name) == Some(Ok(noise(*seed, 7_000))), "writer {writer}");
                    }
                    has
                })
            })
            .collect();
        let collector = scope.spawn(|| {
            let mut compacted = 0;
            while !over.load(Ordering::Relaxed) {
                match volume.gc(&GcOptions::default(), &mut |_| ControlFlow::Continue(())) {
                    Ok(report) => compacted += report.packs_compacted,
                    Err(GcError::Busy) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            compacted
        });
        let all: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        over.store(true, Ordering::Relaxed);
        let compacted = collector.join().expect("collecting");
        volume.sync().expect("sync");
        gc(&volume);
        assert!(room(&world, &volume).is_tidy(), "{:?}", room(&world, &volume));
        for (name, seed) in all.into_iter().flat_map(|has| has.expect("a writer")) {
            assert!(bytes_of(&volume, &name) == Some(Ok(noise(seed, 7_000))));
        }
        compacted
    });
    assert!(compacted > 5, "{compacted} packs");
    volume.close().expect("close");
    consistent(&world).expect("fsck");
}
