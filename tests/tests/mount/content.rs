//! File bytes: written, appended, cut, read back; before and after they are folded, and after a mount.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::thread;

use cairn_tests::dice::{Dice, noise};
use cairn_tests::mounted::{Mounted, SMALL, run};
use rustix::fs::OFlags;

#[test]
fn appended_bytes_go_to_the_end_whoever_appends() {
    const RECORD: usize = 64;
    let m = Mounted::new();
    let append = || File::options().append(true).create(true).open(m.path("log")).expect("opens");
    let mut first = append();
    let mut second = append();
    first.write_all(b"one ").expect("appended");
    second.write_all(b"two ").expect("appended");
    first.seek(SeekFrom::Start(0)).expect("seeks");
    first.write_all(b"three").expect("appended");
    assert_eq!(fs::read(m.path("log")).expect("there"), b"one two three");
    first.set_len(0).expect("cut");
    thread::scope(|scope| {
        for who in 0..4u8 {
            let mut file = append();
            scope.spawn(move || (0..100).for_each(|_| file.write_all(&[who; RECORD]).expect("appended")));
        }
    });
    let log = fs::read(m.path("log")).expect("there");
    assert_eq!(log.len(), 4 * 100 * RECORD);
    let whole = |who: u8| log.chunks(RECORD).filter(|r| r.iter().all(|b| *b == who)).count();
    assert_eq!([0, 1, 2, 3].map(whole), [100; 4], "no record is torn or lost");
    drop((first, second));
    m.finish();
}

#[test]
fn what_is_cut_off_never_comes_back() {
    let m = Mounted::new();
    for (name, folded) in [("journalled", false), ("folded", true)] {
        let bytes = noise(1, 700_001);
        fs::write(m.path(name), &bytes).expect("written");
        if folded {
            m.sync();
        }
        let file = File::options().read(true).write(true).open(m.path(name)).expect("there");
        for size in [500_003, 600_000, 123_457, 700_001] {
            file.set_len(size).expect("resized");
        }
        let expected = [&bytes[..123_457], &vec![0; 700_001 - 123_457]].concat();
        assert_eq!(fs::read(m.path(name)).expect("there"), expected, "{name}");
        file.write_all_at(b"end", 699_999).expect("written");
        assert_eq!(file.metadata().expect("open").len(), 700_002);
    }
    m.remount();
    for name in ["journalled", "folded"] {
        let found = fs::read(m.path(name)).expect("there");
        assert_eq!(found[..123_457], noise(1, 700_001)[..123_457], "{name}");
        assert!(found[123_457..699_999].iter().all(|b| *b == 0) && found.ends_with(b"end"), "{name}");
    }
    // O_TRUNC, on a file that is open elsewhere.
    let reader = File::open(m.path("folded")).expect("there");
    File::create(m.path("folded")).expect("there").write_all(b"new").expect("written");
    assert_eq!(std::io::read_to_string(reader).expect("open"), "new");
    m.finish();
}

#[test]
fn random_reads_writes_and_cuts_agree_with_memory() {
    const LIMIT: u64 = 3 << 20;
    let m = Mounted::new();
    let path = m.path("file");
    for seed in 0..2 {
        let mut dice = Dice::new(seed);
        let mut memory = Vec::new();
        let open = || {
            File::options().read(true).write(true).create(true).truncate(false).open(&path).expect("opens")
        };
        let mut file = open();
        file.set_len(0).expect("cut");
        for step in 0..400 {
            let offset = dice.below(LIMIT);
            let len = if dice.one_in(2) { dice.below(600) } else { dice.below(300_000) };
            match dice.below(20) {
                0..10 => {
                    let bytes = cairn_tests::dice::data(dice.roll(), len as usize);
                    file.write_all_at(&bytes, offset).expect("written");
                    let end = offset as usize + bytes.len();
                    if !bytes.is_empty() && memory.len() < end {
                        memory.resize(end, 0);
                    }
                    if !bytes.is_empty() {
                        memory[offset as usize..end].copy_from_slice(&bytes);
                    }
                }
                10..12 => {
                    file.set_len(offset).expect("resized");
                    memory.resize(offset as usize, 0);
                }
                12..18 => {
                    let mut out = vec![0; len as usize];
                    let count = file.read_at(&mut out, offset).expect("read");
                    let from = memory.len().min(offset as usize);
                    let expected = &memory[from..memory.len().min(from + len as usize)];
                    assert!(out[..count] == *expected, "seed {seed}, step {step}: {len} bytes at {offset}");
                }
                18 if step % 3 == 0 => m.sync(),
                _ => {
                    drop(file);
                    file = open();
                }
            }
            assert_eq!(file.metadata().expect("open").len(), memory.len() as u64, "seed {seed}, step {step}");
        }
        drop(file);
        assert!(fs::read(&path).expect("there") == memory, "seed {seed}");
        m.remount();
        assert!(fs::read(&path).expect("there") == memory, "seed {seed}, mounted again");
    }
    m.finish();
}

#[test]
fn a_file_may_begin_behind_five_gibibytes() {
    const FAR: u64 = (5 << 30) + 3;
    let m = Mounted::new();
    let file = File::options().read(true).write(true).create_new(true).open(m.path("far")).expect("new");
    file.write_all_at(b"far away", FAR).expect("written");
    file.set_len(6 << 30).expect("grown");
    file.write_all_at(b"end", (6 << 30) - 3).expect("written");
    let check = |file: &File| {
        let mut out = [1; 12];
        file.read_exact_at(&mut out, FAR - 2).expect("within the file");
        assert_eq!(&out, b"\0\0far away\0\0");
        file.read_exact_at(&mut out[..3], (6 << 30) - 3).expect("within the file");
        assert_eq!(&out[..3], b"end");
        assert_eq!(file.read_at(&mut out, 6 << 30).expect("at the end"), 0);
        let about = file.metadata().expect("open");
        assert_eq!(about.len(), 6 << 30);
        assert!((1..10_000).contains(&about.blocks()), "{} blocks", about.blocks());
    };
    check(&file);
    m.sync();
    check(&file);
    drop(file);
    m.remount();
    check(&File::open(m.path("far")).expect("there"));
    m.finish();
}

#[test]
fn every_way_to_ask_for_certainty_is_answered() {
    let m = Mounted::new();
    let mut file = File::create_new(m.path("f")).expect("new");
    file.write_all(b"data").expect("written");
    file.sync_data().expect("fdatasync");
    file.sync_all().expect("fsync");
    File::open(m.at()).expect("a directory").sync_all().expect("fsyncdir");
    rustix::fs::syncfs(&file).expect("syncfs");
    let flags = (OFlags::SYNC | OFlags::APPEND).bits() as i32;
    let mut certain = File::options().append(true).custom_flags(flags).open(m.path("f")).expect("there");
    certain.write_all(b" and more").expect("written and synced");
    fs::create_dir(m.path("d")).expect("a new name");
    fs::remove_dir(m.path("d")).expect("empty");
    drop((file, certain));
    m.kill();
    m.mount();
    assert_eq!(fs::read(m.path("f")).expect("there"), b"data and more");
    m.finish();
}

#[test]
fn direct_reads_and_writes_work() {
    let m = Mounted::new();
    let bytes = noise(3, 1 << 20);
    let flags = OFlags::DIRECT.bits() as i32;
    let open = || {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags)
            .open(m.path("f"))
    };
    open().expect("opens").write_all_at(&bytes, 0).expect("written");
    assert!(fs::read(m.path("f")).expect("there") == bytes);
    m.remount();
    let mut out = Vec::new();
    open().expect("opens").read_to_end(&mut out).expect("read");
    assert!(out == bytes);
    m.finish();
}

#[test]
fn programs_that_lean_on_much_of_posix_work() {
    let m = Mounted::with(&SMALL, &[]);
    let at = m.at().to_str().expect("UTF-8");
    let script = format!(
        "set -e; cd {at}
         mkdir src && cd src && seq 1 20000 >numbers && cp numbers copy && cmp numbers copy
         sed -i s/7/seven/g copy && ! cmp -s numbers copy && sort -R numbers | sort -n | cmp - numbers
         tar cf ../t.tar . && mkdir ../out && tar xf ../t.tar -C ../out && diff -r . ../out
         flock numbers true && ln -s numbers link && test link -ef numbers
         split -b 1000 numbers part. && cat part.* | cmp - numbers && find . -name 'part.*' -delete
         mv numbers moved && mv moved ../ && test -s ../moved && cd .. && rm -r src out"
    );
    run("sh", ["-c", &script]).ok();
    m.finish();
}

#[test]
fn statfs_tells_the_room_below() {
    let m = Mounted::new();
    let (mine, below) =
        (rustix::fs::statvfs(m.at()).expect("mounted"), rustix::fs::statvfs(m.dir()).expect("there"));
    assert!(mine.f_blocks >= mine.f_bfree && mine.f_bfree >= mine.f_bavail && mine.f_bavail > 0);
    assert_eq!(mine.f_blocks * mine.f_frsize / (1 << 20), below.f_blocks * below.f_frsize / (1 << 20));
    assert_eq!((mine.f_namemax, mine.f_bsize), (255, 4096));
    assert!(mine.f_files > 0 && mine.f_ffree > 0);
    run("df", [m.at()]).ok();
    m.finish();
}
