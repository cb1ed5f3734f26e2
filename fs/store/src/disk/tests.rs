//! What every disk does, and what the memory disk does when the power goes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::ErrorKind;

use proptest::prelude::*;

use super::*;

/// Runs a test over every kind of disk, each new and empty.
fn each_disk(test: impl Fn(&dyn Disk)) {
    let dir = tempfile::tempdir().unwrap();
    test(&FileDisk::open(dir.path()).unwrap());
    test(&MemoryDisk::new());
}

fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(path, Access::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

fn read(disk: &dyn Disk, path: &str) -> Vec<u8> {
    read_small(disk, path, 1 << 30).unwrap()
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    result.err().unwrap().kind()
}

fn names(disk: &dyn Disk, dir: &str) -> Vec<String> {
    disk.list(dir).unwrap().into_iter().map(|listed| listed.name).collect()
}

#[test]
fn bytes_are_read_where_they_were_written() {
    each_disk(|disk| {
        let file = write(disk, "a", b"hello");
        file.write_at(b"far", 9000).unwrap();
        assert_eq!(file.len().unwrap(), 9003);
        let mut buf = [1; 8];
        assert_eq!(file.read_at(&mut buf, 3).unwrap(), 8);
        assert_eq!(&buf, b"lo\0\0\0\0\0\0");
        assert_eq!(file.read_at(&mut buf, 9001).unwrap(), 2);
        assert_eq!(&buf[..2], b"ar");
        assert_eq!(file.read_at(&mut buf, 9003).unwrap(), 0);
        assert_eq!(file.read_at(&mut buf, 1 << 40).unwrap(), 0);
        assert_eq!(kind(file.read_exact_at(&mut buf, 9000)), ErrorKind::UnexpectedEof);
        file.write_at(b"", 1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 9003, "an empty write does not grow a file");
        file.sync().unwrap();
    });
}

#[test]
fn a_cut_file_grows_again_with_zeros() {
    each_disk(|disk| {
        let file = write(disk, "a", &[7; 10_000]);
        file.set_len(5000).unwrap();
        file.set_len(9000).unwrap();
        let bytes = read(disk, "a");
        assert_eq!(bytes.len(), 9000);
        assert!(bytes[..5000].iter().all(|b| *b == 7) && bytes[5000..].iter().all(|b| *b == 0));
    });
}

#[test]
fn opening_minds_the_access() {
    each_disk(|disk| {
        assert_eq!(kind(disk.open("a", Access::Read)), ErrorKind::NotFound);
        assert_eq!(kind(disk.open("a", Access::Write)), ErrorKind::NotFound);
        write(disk, "a", b"1");
        assert_eq!(kind(disk.open("a", Access::CreateNew)), ErrorKind::AlreadyExists);
        assert!(disk.open("a", Access::Read).unwrap().write_at(b"2", 0).is_err());
        disk.open("a", Access::Write).unwrap().write_at(b"2", 0).unwrap();
        assert_eq!(read(disk, "a"), b"2");
        disk.create_dir("d").unwrap();
        assert_eq!(kind(disk.open("d", Access::Read)), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.open("d", Access::Write)), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.open("a/b", Access::Read)), ErrorKind::NotADirectory);
    });
}

#[test]
fn directories_list_their_names_sorted() {
    each_disk(|disk| {
        disk.create_dir("d").unwrap();
        disk.create_dir("d/sub").unwrap();
        assert_eq!(kind(disk.create_dir("d")), ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.create_dir("x/y")), ErrorKind::NotFound);
        write(disk, "d/z", b"123");
        write(disk, "d/b", b"");
        let listed = |name: &str, is_dir, len| Listed { name: name.to_owned(), is_dir, len };
        let expected = [listed("b", false, 0), listed("sub", true, 0), listed("z", false, 3)];
        assert_eq!(disk.list("d").unwrap(), expected);
        assert_eq!(disk.list("").unwrap(), [listed("d", true, 0)]);
        assert_eq!(kind(disk.list("x")), ErrorKind::NotFound);
        assert_eq!(kind(disk.list("d/z")), ErrorKind::NotADirectory);
        disk.sync_dir("d/sub").unwrap();
        disk.sync_dir("").unwrap();
        assert_eq!(kind(disk.sync_dir("x")), ErrorKind::NotFound);
    });
}

#[test]
fn names_move_and_go_while_files_stay_open() {
    each_disk(|disk| {
        disk.create_dir("d").unwrap();
        let file = write(disk, "a", b"old");
        let replaced = write(disk, "b", b"replaced");
        disk.rename("a", "b").unwrap();
        assert_eq!(read(disk, "b"), b"old");
        disk.rename("b", "d/c").unwrap();
        assert_eq!((names(disk, ""), names(disk, "d")), (vec!["d".to_owned()], vec!["c".to_owned()]));
        disk.rename("d/c", "d/c").unwrap();
        disk.remove("d/c").unwrap();
        file.write_at(b"new", 0).unwrap();
        let mut buf = [0; 8];
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 3);
        assert_eq!(replaced.read_at(&mut buf, 0).unwrap(), 8);
        assert_eq!(kind(disk.remove("d/c")), ErrorKind::NotFound);
        assert_eq!(kind(disk.rename("a", "b")), ErrorKind::NotFound);
        assert_eq!(kind(disk.remove("d")), ErrorKind::IsADirectory);
    });
}

#[test]
fn paths_do_not_leave_the_root() {
    each_disk(|disk| {
        disk.create_dir("d").unwrap();
        for path in ["", "/", "/a", "a/", "..", "../a", "d/../a", "d//a", ".", "./a", "a\0b"] {
            assert_eq!(kind(disk.open(path, Access::CreateNew)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.create_dir(path)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.rename(path, "x")), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.remove(path)), ErrorKind::InvalidInput, "{path:?}");
        }
        for path in ["..", "/", "d/.."] {
            assert_eq!(kind(disk.list(path)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(disk.sync_dir(path)), ErrorKind::InvalidInput, "{path:?}");
        }
    });
}

#[test]
fn links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), b"x").unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("link")).unwrap();
    let disk = FileDisk::open(dir.path()).unwrap();
    for path in ["link", "out/secret"] {
        assert!(disk.open(path, Access::Read).is_err());
        assert!(disk.open(path, Access::Write).is_err());
    }
    assert!(disk.open("out/new", Access::CreateNew).is_err());
    assert!(disk.list("out").is_err());
    assert!(disk.remove("out/secret").is_err());
    assert!(outside.path().join("secret").exists());
}

#[test]
fn files_are_private_and_odd_names_unlisted() {
    use std::os::unix::{ffi::OsStrExt, fs::PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(dir.path()).unwrap();
    write(&disk, "a", b"");
    disk.create_dir("d").unwrap();
    std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
    assert_eq!(names(&disk, ""), ["a", "d"]);
    let mode = |name| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("a"), mode("d")), (0o600, 0o700));
}

#[test]
fn small_files_are_replaced() {
    each_disk(|disk| {
        disk.create_dir("d").unwrap();
        replace_small(disk, "d/a", b"one").unwrap();
        replace_small(disk, "d/a", b"three").unwrap();
        assert_eq!(read(disk, "d/a"), b"three");
        assert_eq!(names(disk, "d"), ["a"]);
        assert!(read_small(disk, "d/a", 4).is_err());
        let space = disk.space().unwrap();
        assert!(space.available <= space.free && space.free <= space.total && space.total > 0);
    });
}

#[test]
fn replacing_survives_a_cut_anywhere() {
    let disk = MemoryDisk::new();
    replace_small(&disk, "a", b"before").unwrap();
    for cut in 0.. {
        let disk = disk.fork();
        disk.cut_at(cut);
        let done = replace_small(&disk, "a", b"after").is_ok();
        for seed in 0..32 {
            let bytes = read(&disk.crash(Crash::Random(seed)), "a");
            assert!(bytes == b"after" || (!done && bytes == b"before"), "cut {cut}, seed {seed}: {bytes:?}");
        }
        if done {
            assert_eq!(cut, disk.operations(), "a missing file's removal counts as well");
            break;
        }
    }
}

/// Every way a crash can end that the tests look at.
fn crashes() -> impl Iterator<Item = Crash> {
    [Crash::KeepAll, Crash::DropUnsynced].into_iter().chain((0..200).map(Crash::Random))
}

#[test]
fn what_was_synced_survives() {
    let disk = MemoryDisk::new();
    disk.create_dir("d").unwrap();
    disk.sync_dir("").unwrap();
    let file = write(&disk, "d/a", &[1; 3000]);
    file.write_at(&[2; 3000], 2000).unwrap();
    file.set_len(4000).unwrap();
    file.sync().unwrap();
    disk.sync_dir("d").unwrap();
    write(&disk, "d/other", &[9; 3000]);
    for crash in crashes() {
        let mut expected = vec![1; 2000];
        expected.resize(4000, 2);
        assert_eq!(read(&disk.crash(crash), "d/a"), expected, "{crash:?}");
    }
}

#[test]
fn synced_bytes_go_with_an_unsynced_name() {
    let disk = MemoryDisk::new();
    write(&disk, "a", b"1").sync().unwrap();
    assert_eq!(disk.crash(Crash::KeepAll).files(), ["a"]);
    assert!(disk.crash(Crash::DropUnsynced).files().is_empty());

    disk.sync_dir("").unwrap();
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.crash(Crash::DropUnsynced).files(), ["a"]);
    assert_eq!(disk.crash(Crash::KeepAll).files(), ["b"]);
    let found = |seed| disk.crash(Crash::Random(seed)).files();
    assert!((0..100).any(|seed| found(seed) == ["a"]) && (0..100).any(|seed| found(seed) == ["b"]));
    assert!((0..100).all(|seed| found(seed).len() == 1), "a rename happens or not");

    disk.sync_dir("").unwrap();
    assert_eq!(disk.crash(Crash::DropUnsynced).files(), ["b"]);
    disk.remove("b").unwrap();
    assert_eq!(disk.crash(Crash::DropUnsynced).files(), ["b"]);
}

#[test]
fn a_rename_between_directories_may_end_in_between() {
    let disk = MemoryDisk::new();
    disk.create_dir("d").unwrap();
    write(&disk, "a", b"1").sync().unwrap();
    disk.sync_dir("").unwrap();
    disk.rename("a", "d/a").unwrap();
    let found: std::collections::BTreeSet<_> =
        (0..200).map(|seed| disk.crash(Crash::Random(seed)).files()).collect();
    let all: [Vec<&str>; 4] = [vec![], vec!["a"], vec!["a", "d/a"], vec!["d/a"]];
    assert!(found.iter().eq(all.iter()), "{found:?}");
}

#[test]
fn a_file_that_lost_its_name_to_an_unsynced_rename_comes_back() {
    let disk = MemoryDisk::new();
    write(&disk, "a", b"old").sync().unwrap();
    disk.sync_dir("").unwrap();
    write(&disk, "a.new", b"new").sync().unwrap();
    disk.rename("a.new", "a").unwrap();
    assert_eq!(read(&disk.crash(Crash::DropUnsynced), "a"), b"old");
    for seed in 0..100 {
        assert!([&b"old"[..], b"new"].contains(&&read(&disk.crash(Crash::Random(seed)), "a")[..]));
    }
}

#[test]
fn unsynced_writes_tear_at_sectors() {
    let disk = MemoryDisk::new();
    let file = write(&disk, "a", &[1; 16 << 10]);
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(&[2; 9000], 700).unwrap();
    let (mut kept, mut dropped, mut torn) = (0, 0, 0);
    for seed in 0..300 {
        let bytes = read(&disk.crash(Crash::Random(seed)), "a");
        assert_eq!(bytes.len(), 16 << 10);
        match bytes.iter().filter(|b| **b == 2).count() {
            0 => dropped += 1,
            9000 => kept += 1,
            _ => torn += 1,
        }
        for at in 1..bytes.len() {
            let edge = at % 512 == 0 || at == 700 || at == 9700;
            assert!(bytes[at] == bytes[at - 1] || edge, "seed {seed}: torn at {at}");
        }
    }
    assert!(kept > 20 && dropped > 20 && torn > 20, "{kept} kept, {dropped} dropped, {torn} torn");
}

#[test]
fn a_write_under_way_at_the_cut_may_land() {
    let disk = MemoryDisk::new();
    let file = write(&disk, "a", &[1; 4096]);
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    disk.cut_at(disk.operations());
    assert!(!disk.is_cut());
    assert_eq!(file.write_at(&[2; 4096], 0).unwrap_err().to_string(), "power cut");
    assert!(disk.is_cut());
    assert!(file.read_at(&mut [0], 0).is_err() && file.len().is_err() && file.sync().is_err());
    assert!(disk.open("a", Access::Read).is_err() && disk.list("").is_err() && disk.space().is_err());
    assert!(disk.sync_dir("").is_err() && disk.remove("a").is_err());

    let twos = |crash| read(&disk.crash(crash), "a").iter().filter(|b| **b == 2).count();
    assert_eq!((twos(Crash::KeepAll), twos(Crash::DropUnsynced)), (0, 0));
    let landed: Vec<_> = (0..300).map(|seed| twos(Crash::Random(seed))).collect();
    assert!(landed.contains(&0) && landed.contains(&4096) && landed.iter().any(|n| !matches!(n, 0 | 4096)));

    let after = disk.crash(Crash::Random(1));
    assert_eq!((after.operations(), after.is_cut()), (0, false));
    after.open("a", Access::Write).unwrap().write_at(&[3], 0).unwrap();
}

#[test]
fn crashes_of_one_seed_are_the_same() {
    let disk = MemoryDisk::new();
    for name in ["a", "b", "c"] {
        write(&disk, name, &[1; 5000]).write_at(&[2; 5000], 3000).unwrap();
    }
    for seed in 0..50 {
        let found = || {
            let disk = disk.crash(Crash::Random(seed));
            disk.files().into_iter().map(|path| (read(&disk, &path), path)).collect::<Vec<_>>()
        };
        assert_eq!(found(), found());
    }
}

#[test]
fn faults_come_once_or_stay() {
    let disk = MemoryDisk::new();
    let file = write(&disk, "a", b"1");
    disk.fail_at(disk.operations(), ErrorKind::StorageFull, false);
    assert_eq!(kind(file.write_at(b"2", 0)), ErrorKind::StorageFull);
    assert_eq!(read(&disk, "a"), b"1");
    file.write_at(b"2", 0).unwrap();
    disk.fail_at(disk.operations() + 1, ErrorKind::Other, true);
    file.sync().unwrap();
    file.write_at(b"3", 0).unwrap_err();
    file.write_at(b"3", 0).unwrap();
    assert!(file.sync().is_err() && disk.sync_dir("").is_err() && file.sync().is_err());
    assert!(!disk.is_cut());
    disk.fork().sync_dir("").unwrap();
}

#[test]
fn a_full_disk_refuses_and_frees() {
    let disk = MemoryDisk::with_capacity(3 * 4096);
    let file = write(&disk, "a", &[1; 8192]);
    file.set_len(1 << 30).unwrap();
    assert_eq!(disk.space().unwrap(), Space { total: 3 * 4096, free: 4096, available: 4096 });
    assert_eq!(kind(file.write_at(&[1; 4097], 1 << 20)), ErrorKind::StorageFull);
    file.write_at(&[1; 4096], 1 << 20).unwrap();
    file.write_at(&[2; 8192], 0).unwrap();
    assert_eq!(kind(write(&disk, "b", b"").write_at(b"1", 0)), ErrorKind::StorageFull);
    file.set_len(0).unwrap();
    assert_eq!(disk.space().unwrap().free, 3 * 4096);
    file.write_at(&[1; 8192], 0).unwrap();
    disk.remove("a").unwrap();
    assert_eq!(disk.space().unwrap().free, 4096, "still open");
    drop(file);
    assert_eq!(disk.space().unwrap().free, 3 * 4096);
    disk.set_capacity(0);
    assert_eq!(kind(disk.open("b", Access::Write).unwrap().write_at(b"1", 0)), ErrorKind::StorageFull);
}

#[test]
fn a_failing_operation_leaves_the_disk_as_it_was_told_to() {
    let with = |failure, sticky| {
        let disk = MemoryDisk::new();
        let file = write(&disk, "a", b"");
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        disk.fail(disk.operations(), ErrorKind::Other, failure, sticky);
        (disk, file)
    };
    for (failure, left) in [(Failure::Nothing, 0), (Failure::Short, 4), (Failure::Done, 8)] {
        let (disk, file) = with(failure, false);
        assert_eq!(kind(file.write_at(b"12345678", 0)), ErrorKind::Other, "{failure:?}");
        assert_eq!(disk.faults_hit(), 1);
        assert_eq!(read(&disk, "a"), b"12345678"[..left], "{failure:?}");
        file.write_at(b"12345678", 0).unwrap();
        let (disk, _file) = with(failure, false);
        assert_eq!(kind(disk.rename("a", "b")), ErrorKind::Other);
        assert_eq!(disk.files(), [if failure == Failure::Done { "b" } else { "a" }]);
    }
    for sticky in [false, true] {
        let (disk, file) = with(Failure::Forgotten, sticky);
        disk.fail(disk.operations() + 1, ErrorKind::Other, Failure::Forgotten, sticky);
        file.write_at(b"12345678", 0).unwrap_err();
        disk.heal();
        file.write_at(b"12345678", 0).unwrap();
        disk.fail(disk.operations(), ErrorKind::Other, Failure::Forgotten, sticky);
        file.sync().unwrap_err();
        assert_eq!(file.sync().is_err(), sticky, "the next one succeeds");
        assert_eq!(read(&disk, "a"), b"12345678");
        for crash in [Crash::DropUnsynced, Crash::DropNames, Crash::Random(7)] {
            assert!(!read(&disk.crash(crash), "a").starts_with(b"1234"), "and makes nothing certain");
        }
    }
}

#[test]
fn reads_fail_by_their_own_number() {
    let disk = MemoryDisk::new();
    let file = write(&disk, "a", b"abc");
    disk.fail_read_at(disk.reads() + 1, ErrorKind::Other);
    let before = disk.operations();
    assert_eq!(file.len().unwrap(), 3);
    assert_eq!(kind(file.read_at(&mut [0], 0)), ErrorKind::Other);
    assert_eq!(file.read_at(&mut [0], 0).unwrap(), 1);
    assert_eq!(disk.operations(), before);
}

#[test]
fn a_killed_process_leaves_a_disk_with_power() {
    let disk = MemoryDisk::new();
    let file = write(&disk, "a", b"abc");
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(b"xyz", 0).unwrap();
    disk.kill_at(disk.operations());
    assert!(file.write_at(b"123", 0).is_err() && disk.open("a", Access::Read).is_err() && disk.is_cut());
    disk.heal();
    assert_eq!(read(&disk, "a"), b"xyz");
    assert_eq!(read(&disk.crash(Crash::DropUnsynced), "a"), b"abc");
    disk.lie();
    file.sync().unwrap();
    assert_eq!(read(&disk.crash(Crash::DropUnsynced), "a"), b"abc", "it lied");
}

#[test]
fn bytes_and_names_are_lost_apart() {
    let disk = MemoryDisk::new();
    let file = write(&disk, "a", b"abc");
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(b"xyz", 0).unwrap();
    disk.rename("a", "b").unwrap();
    assert_eq!(read(&disk.crash(Crash::DropNames), "a"), b"xyz");
    assert_eq!(read(&disk.crash(Crash::DropBytes), "b"), b"abc");
}

#[test]
fn a_disk_that_others_fill_is_full_until_it_is_not() {
    let disk = MemoryDisk::with_capacity(1 << 20);
    let file = write(&disk, "a", b"");
    disk.fill_at(disk.operations() + 1);
    file.write_at(&[1; 4096], 0).unwrap();
    assert_eq!(kind(file.write_at(&[1; 4096], 4096)), ErrorKind::StorageFull);
    disk.set_capacity(1 << 20);
    file.write_at(&[1; 4096], 4096).unwrap();
}

#[test]
fn damage_touches_only_its_disk() {
    let disk = MemoryDisk::new();
    write(&disk, "a", b"abc");
    let fork = disk.fork();
    fork.corrupt("a", 1, 0xff).unwrap();
    fork.crash(Crash::DropUnsynced).truncate_file("a", 1).unwrap();
    assert_eq!(read(&fork.crash(Crash::DropUnsynced), "a"), [b'a', b'b' ^ 0xff, b'c']);
    assert_eq!(read(&disk, "a"), b"abc");
    fork.truncate_file("a", 1).unwrap();
    assert_eq!(read(&fork, "a"), b"a");
    assert_eq!(kind(fork.corrupt("a", 1, 1)), ErrorKind::UnexpectedEof);
    assert_eq!(kind(fork.corrupt("x", 1, 1)), ErrorKind::NotFound);
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, u8, usize),
    SetLen(u64),
    Sync,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..20_000u64, any::<u8>(), 0..9000usize).prop_map(|(at, byte, len)| Op::Write(at, byte, len)),
        2 => (0..25_000u64).prop_map(Op::SetLen),
        1 => Just(Op::Sync),
    ]
}

proptest! {
    /// Both kinds of disk hold what a vector of bytes would, and a crash finds what was last synced.
    #[test]
    fn files_are_vectors_of_bytes(ops in prop::collection::vec(op(), 0..40)) {
        let memory = MemoryDisk::new();
        let dir = tempfile::tempdir().unwrap();
        let real = FileDisk::open(dir.path()).unwrap();
        let files = [write(&memory, "a", b""), write(&real, "a", b"")];
        memory.sync_dir("").unwrap();
        let (mut bytes, mut synced) = (Vec::new(), Vec::new());
        for op in ops {
            for file in &files {
                match op {
                    Op::Write(at, byte, len) => file.write_at(&vec![byte; len], at).unwrap(),
                    Op::SetLen(len) => file.set_len(len).unwrap(),
                    // The real one's syncs are slow and cannot be told from the outside.
                    Op::Sync => {}
                }
            }
            match op {
                Op::Write(at, byte, len) if len > 0 => {
                    let (start, end) = (at as usize, at as usize + len);
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[start..end].fill(byte);
                }
                Op::Write(..) => {}
                Op::SetLen(len) => bytes.resize(len as usize, 0),
                Op::Sync => {
                    files[0].sync().unwrap();
                    synced.clone_from(&bytes);
                }
            }
        }
        prop_assert_eq!(&read(&memory, "a"), &bytes);
        prop_assert_eq!(&read(&real, "a"), &bytes);
        prop_assert_eq!(&read(&memory.crash(Crash::KeepAll), "a"), &bytes);
        prop_assert_eq!(&read(&memory.crash(Crash::DropUnsynced), "a"), &synced);
    }
}

#[test]
fn a_bad_range_errs_until_it_is_written_and_stays_with_the_file() {
    let disk = MemoryDisk::new();
    write(&disk, "a", &[7; 20_000]);
    disk.lose("a", 5_000..9_000, false).unwrap();
    disk.lose("a", 12_000..12_001, true).unwrap();
    let disk = disk.fork();
    let file = disk.open("a", Access::Write).unwrap();
    let is_bad = |range: std::ops::Range<u64>| {
        file.read_at(&mut vec![0; (range.end - range.start) as usize], range.start).is_err()
    };
    assert_eq!([0..5_000, 4_999..5_001, 8_999..9_000, 9_000..12_000].map(is_bad), [false, true, true, false]);
    file.write_at(&[8; 3_000], 6_000).unwrap();
    assert_eq!([5_000..6_000, 6_000..9_000].map(is_bad), [true, false]);
    file.write_at(&[8; 3_000], 12_000).unwrap();
    assert!(is_bad(12_000..15_000));
}
