//! Names and what they lead to: making, linking, moving, removing and listing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cairn_tests::mounted::{Mounted, run};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use rustix::io::Errno;

use crate::errno;

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> std::io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, flags)?)
}

fn names_in(dir: &Path) -> BTreeSet<OsString> {
    let names: Vec<_> =
        fs::read_dir(dir).expect("a directory").map(|e| e.expect("listed").file_name()).collect();
    let set: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(set.len(), names.len(), "no name is listed twice");
    set
}

#[test]
fn a_name_is_made_only_once() {
    let m = Mounted::new();
    let file = m.path("file");
    assert_eq!(errno(File::open(&file)), Errno::NOENT);
    File::create_new(&file).expect("a new name");
    assert_eq!(errno(File::create_new(&file)), Errno::EXIST);
    symlink("nowhere", m.path("dangling")).expect("a new name");
    assert_eq!(errno(File::create_new(m.path("dangling"))), Errno::EXIST);
    assert_eq!(errno(fs::create_dir(&file)), Errno::EXIST);
    assert_eq!(errno(symlink("x", &file)), Errno::EXIST);
    assert_eq!(errno(File::create(m.path("file/below"))), Errno::NOTDIR);
    assert_eq!(errno(File::create(m.path("none/below"))), Errno::NOENT);
    let winners: usize = thread::scope(|scope| {
        let racers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| File::create_new(m.path("raced")).is_ok())).collect();
        racers.into_iter().map(|r| usize::from(r.join().expect("no panic"))).sum()
    });
    assert_eq!(winners, 1);
    m.finish();
}

/// As overlay filesystems rename: the old name says from then on that a lower layer's is gone.
#[test]
fn a_rename_can_leave_a_whiteout() {
    let m = Mounted::new();
    let [a, b, sub] = ["a", "b", "sub"].map(|name| m.path(name));
    let is_whiteout = |path: &Path| {
        let found = fs::symlink_metadata(path).expect("there");
        found.file_type().is_char_device() && found.rdev() == 0 && found.nlink() == 1
    };
    fs::write(&a, "a").expect("written");
    fs::write(&b, "b").expect("written");
    let refused = RenameFlags::WHITEOUT | RenameFlags::NOREPLACE;
    assert_eq!(errno(rename_with(&a, &b, refused)), Errno::EXIST);
    assert_eq!(errno(rename_with(&a, &b, RenameFlags::WHITEOUT | RenameFlags::EXCHANGE)), Errno::INVAL);
    rename_with(&a, &b, RenameFlags::WHITEOUT).expect("over another");
    assert!(is_whiteout(&a));
    assert_eq!(fs::read_to_string(&b).expect("there"), "a");
    fs::create_dir(&sub).expect("a new name");
    rename_with(&b, &sub.join("b"), RenameFlags::WHITEOUT).expect("into another directory");
    rename_with(&sub, &m.path("moved"), RenameFlags::WHITEOUT).expect("a directory");
    m.remount();
    assert!([&a, &b, &sub].into_iter().all(|path| is_whiteout(path)));
    assert_eq!(fs::read_to_string(m.path("moved/b")).expect("there"), "a");
    fs::remove_file(&a).expect("a whiteout can be removed");
    m.finish();
}

#[test]
fn a_rename_replaces_refuses_or_exchanges() {
    let m = Mounted::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| m.path(name));
    let read = |path: &Path| fs::read_to_string(path).expect("there");
    fs::write(&a, "a").expect("written");
    fs::write(&b, "b").expect("written");
    assert_eq!(errno(rename_with(&a, &b, RenameFlags::NOREPLACE)), Errno::EXIST);
    rename_with(&a, &c, RenameFlags::NOREPLACE).expect("the name is free");
    rename_with(&b, &c, RenameFlags::EXCHANGE).expect("both are there");
    assert_eq!((read(&b), read(&c)), ("a".into(), "b".into()));
    assert_eq!(errno(rename_with(&b, &m.path("none"), RenameFlags::EXCHANGE)), Errno::NOENT);
    fs::rename(&b, &c).expect("replaces");
    assert_eq!((read(&c), b.exists()), ("a".into(), false));

    fs::create_dir_all(m.path("d/sub")).expect("new names");
    rename_with(&c, &m.path("d"), RenameFlags::EXCHANGE).expect("a file and a directory");
    assert!(c.join("sub").is_dir() && m.path("d").is_file());
    assert_eq!(errno(fs::rename(&c, m.path("d"))), Errno::NOTDIR);
    assert_eq!(errno(fs::rename(m.path("d"), &c)), Errno::ISDIR);
    fs::create_dir(m.path("empty")).expect("a new name");
    assert_eq!(errno(fs::rename(m.path("empty"), &c)), Errno::NOTEMPTY);
    fs::rename(&c, m.path("empty")).expect("an empty directory is replaced");
    assert_eq!(errno(fs::rename(m.path("empty"), m.path("empty/sub/below"))), Errno::INVAL);
    assert_eq!(errno(fs::rename(m.path("none"), m.path("other"))), Errno::NOENT);
    m.remount();
    assert_eq!(names_in(m.at()), ["d", "empty"].map(OsString::from).into());
    m.finish();
}

#[test]
fn links_are_counted() {
    let m = Mounted::new();
    let links = |name: &str| fs::metadata(m.path(name)).expect("there").nlink();
    fs::create_dir_all(m.path("one/deep")).expect("new names");
    fs::create_dir(m.path("two")).expect("a new name");
    fs::write(m.path("one/file"), "shared").expect("written");
    fs::hard_link(m.path("one/file"), m.path("two/file")).expect("a new name");
    let number = |name: &str| fs::metadata(m.path(name)).expect("there").ino();
    assert_eq!((links("one/file"), links("two/file"), number("one/file")), (2, 2, number("two/file")));
    assert_eq!((links(""), links("one"), links("two")), (4, 3, 2));
    assert_eq!(errno(fs::hard_link(m.path("one"), m.path("dir"))), Errno::PERM);
    // Two names of one file: nothing happens.
    fs::rename(m.path("one/file"), m.path("two/file")).expect("nothing to do");
    assert_eq!(links("one/file"), 2);

    fs::rename(m.path("one/deep"), m.path("two/deep")).expect("a free name");
    assert_eq!((links("one"), links("two")), (2, 3));
    let parent = fs::metadata(m.path("two/deep/..")).expect("there").ino();
    assert_eq!(parent, number("two"));
    m.remount();
    assert_eq!((links(""), links("one"), links("two"), links("two/file")), (4, 2, 3, 2));
    assert_eq!(number("one/file"), number("two/file"));
    fs::remove_file(m.path("one/file")).expect("there");
    assert_eq!(links("two/file"), 1);
    assert_eq!(fs::read(m.path("two/file")).expect("still there"), b"shared");
    m.finish();
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let m = Mounted::new();
    let mut file = File::options().read(true).write(true).create_new(true).open(m.path("f")).expect("new");
    file.write_all(b"before").expect("written");
    fs::remove_file(m.path("f")).expect("there");
    fs::write(m.path("f"), "another").expect("the name is free");
    file.write_all(b" and after").expect("still open");
    m.sync();
    let mut read = String::new();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).expect("seekable");
    file.read_to_string(&mut read).expect("still there");
    assert_eq!(read, "before and after");
    assert_eq!(file.metadata().expect("open").nlink(), 0);
    file.set_len(3).expect("still open");
    assert_eq!(file.metadata().expect("open").len(), 3);
    // Replaced by a rename while open.
    let replaced = File::open(m.path("f")).expect("there");
    fs::write(m.path("g"), "new").expect("written");
    fs::rename(m.path("g"), m.path("f")).expect("replaces");
    assert_eq!(std::io::read_to_string(&replaced).expect("open"), "another");
    drop((file, replaced));
    assert_eq!(fs::read(m.path("f")).expect("there"), b"new");
    m.finish();
}

#[test]
fn directories_go_only_when_they_are_empty() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("d/sub")).expect("new names");
    assert_eq!(errno(fs::remove_dir(m.path("d"))), Errno::NOTEMPTY);
    assert_eq!(errno(fs::remove_file(m.path("d"))), Errno::ISDIR);
    fs::write(m.path("f"), "").expect("written");
    assert_eq!(errno(fs::remove_dir(m.path("f"))), Errno::NOTDIR);
    let open = File::open(m.path("d/sub")).expect("a directory");
    fs::remove_dir(m.path("d/sub")).expect("empty");
    fs::remove_dir(m.path("d")).expect("empty now");
    let late =
        rustix::fs::openat(&open, "x", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, Mode::RWXU);
    assert_eq!(late.expect_err("the directory is gone"), Errno::NOENT);
    drop(open);
    assert_eq!(fs::metadata(m.at()).expect("mounted").nlink(), 2);
    m.finish();
}

#[test]
fn symbolic_links_hold_up_to_4095_bytes() {
    let m = Mounted::new();
    let lengths = [1, 2, 59, 60, 255, 256, 1000, 4094, 4095];
    let target = |length: usize| "abc/".repeat(1024)[..length].to_owned();
    for length in lengths {
        symlink(target(length), m.path(format!("l{length}"))).expect("fits");
    }
    assert_eq!(errno(symlink(target(4096), m.path("long"))), Errno::NAMETOOLONG);
    symlink(OsStr::from_bytes(b"\xff\xfe not UTF-8 \n"), m.path("bytes")).expect("any bytes but NUL");
    for mounted_again in [false, true] {
        for length in lengths {
            let path = m.path(format!("l{length}"));
            let found = fs::read_link(&path).expect("a link");
            assert_eq!(found.as_os_str(), &*target(length), "mounted again: {mounted_again}");
            assert_eq!(fs::symlink_metadata(&path).expect("there").len(), length as u64);
        }
        assert_eq!(
            fs::read_link(m.path("bytes")).expect("a link").as_os_str().as_bytes(),
            b"\xff\xfe not UTF-8 \n"
        );
        if !mounted_again {
            m.remount();
        }
    }
    symlink("loop", m.path("loop")).expect("fits");
    assert_eq!(errno(fs::metadata(m.path("loop"))), Errno::LOOP);
    m.finish();
}

#[test]
fn pipes_sockets_and_devices_are_what_they_are() {
    let m = Mounted::with(&cairn_tests::mounted::SMALL, &["dev"]);
    mknodat(CWD, m.path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a new name");
    let (zero, odd) = (makedev(1, 5), makedev(259, 0xabcde));
    mknodat(CWD, m.path("zero"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), zero)
        .expect("a new name");
    mknodat(CWD, m.path("disk"), FileType::BlockDevice, Mode::from_raw_mode(0o600), odd).expect("a new name");
    mknodat(CWD, m.path("plain"), FileType::RegularFile, Mode::from_raw_mode(0o600), 0).expect("a new name");
    let listener = UnixListener::bind(m.path("socket")).expect("a new name");

    let writer = thread::spawn({
        let fifo = m.path("fifo");
        move || fs::write(fifo, "through the pipe")
    });
    assert_eq!(fs::read_to_string(m.path("fifo")).expect("a pipe"), "through the pipe");
    writer.join().expect("no panic").expect("written");
    UnixStream::connect(m.path("socket")).expect("somebody listens").write_all(b"hi").expect("connected");
    drop(listener);
    m.remount();
    let about = |name: &str| fs::symlink_metadata(m.path(name)).expect("there");
    assert!(about("fifo").file_type().is_fifo() && about("socket").file_type().is_socket());
    assert!(about("zero").file_type().is_char_device() && about("zero").rdev() == zero);
    assert!(about("disk").file_type().is_block_device() && about("disk").rdev() == odd);
    assert!(about("plain").is_file() && about("plain").len() == 0);
    let mut zeros = [1; 8];
    File::open(m.path("zero"))
        .expect("devices are honoured with -o dev")
        .read_exact(&mut zeros)
        .expect("endless");
    assert_eq!(zeros, [0; 8]);
    m.unmount();
    m.try_mount(&[]).ok();
    assert_eq!(errno(File::open(m.path("zero"))), Errno::ACCESS, "and not without");
    m.finish();
}

#[test]
fn names_are_bytes_up_to_255_of_them() {
    let m = Mounted::new();
    let mut names: BTreeSet<OsString> = BTreeSet::new();
    let every_byte: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
    for part in
        [&every_byte[..], b"\xff", b"\xc3\x28", b" ", b"\n", b"-rf", b"a\\b", &[b'x'; 255], &[0xfe; 255]]
    {
        names.insert(OsString::from_vec(part.to_vec()));
    }
    for name in &names {
        fs::write(m.path(name), name.as_bytes()).expect("a name");
    }
    for wrong in [vec![b'x'; 256], vec![0xff; 300]] {
        let path = m.path(OsStr::from_bytes(&wrong));
        assert_eq!(errno(File::create(&path)), Errno::NAMETOOLONG);
        assert_eq!(errno(fs::metadata(&path)), Errno::NAMETOOLONG);
        assert_eq!(errno(fs::create_dir(&path)), Errno::NAMETOOLONG);
        assert_eq!(errno(fs::rename(m.path("-rf"), &path)), Errno::NAMETOOLONG);
        assert_eq!(errno(fs::hard_link(m.path("-rf"), &path)), Errno::NAMETOOLONG);
    }
    m.remount();
    assert_eq!(names_in(m.at()), names);
    for name in &names {
        assert_eq!(fs::read(m.path(name)).expect("there"), name.as_bytes());
        fs::remove_file(m.path(name)).expect("there");
    }
    assert_eq!(names_in(m.at()), BTreeSet::new());
    m.finish();
}

/// The kernel kept listings, and went on in one that was completed from what had been read before.
#[test]
fn regression_a_listing_shows_no_name_that_was_removed_before_it_began() {
    let m = Mounted::new();
    // Long names, so that a listing takes some calls.
    let name = |n: usize| format!("{n:04}{}", "x".repeat(200));
    (0..1_000).for_each(|n| drop(File::create_new(m.path(name(n))).expect("a new name")));
    let mut before = fs::read_dir(m.at()).expect("a directory");
    assert!(before.by_ref().take(700).all(|entry| entry.is_ok()));
    fs::remove_file(m.path(name(500))).expect("there");
    fs::write(m.path("new"), b"").expect("a new name");
    let mut after = fs::read_dir(m.at()).expect("a directory");
    let first = after.next().expect("many names").expect("listed").file_name();
    assert!(before.count() >= 300, "whoever began before goes on");
    let rest = after.map(|entry| entry.expect("listed").file_name());
    let mut listed: Vec<_> =
        [first].into_iter().chain(rest).map(|n| n.into_string().expect("UTF-8")).collect();
    listed.sort();
    let expected: Vec<_> = (0..1_000).filter(|n| *n != 500).map(name).chain(["new".to_owned()]).collect();
    assert!(listed == expected, "{} names, not {}", listed.len(), expected.len());
    m.finish();
}

#[test]
fn a_listing_misses_and_repeats_nothing_while_others_are_removed() {
    const COUNT: usize = 5000;
    let m = Mounted::new();
    let dir = m.path("many");
    fs::create_dir(&dir).expect("a new name");
    for number in 0..COUNT {
        File::create_new(dir.join(format!("{number:05}"))).expect("a new name");
    }
    let kept: BTreeSet<OsString> = (1..COUNT).step_by(2).map(|n| format!("{n:05}").into()).collect();
    let removed = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..COUNT).step_by(2) {
                fs::remove_file(dir.join(format!("{number:05}"))).expect("there");
            }
            removed.store(true, Ordering::Release);
        });
        loop {
            let last = removed.load(Ordering::Acquire);
            let listed = names_in(&dir);
            assert!(listed.is_superset(&kept), "names that nobody removed are listed");
            if last {
                assert_eq!(listed, kept);
                break;
            }
        }
    });
    // Removing as one reads, as `rm -r` does.
    for entry in fs::read_dir(&dir).expect("a directory") {
        fs::remove_file(entry.expect("listed").path()).expect("there");
    }
    fs::remove_dir(&dir).expect("empty");
    m.finish();
}

#[test]
fn deep_trees_and_rm_are_no_trouble() {
    let m = Mounted::new();
    let deep = m.path(vec!["d"; 300].join("/"));
    fs::create_dir_all(&deep).expect("new names");
    fs::write(deep.join("file"), "deep").expect("written");
    m.remount();
    assert_eq!(fs::read(deep.join("file")).expect("there"), b"deep");
    run("rm", [OsStr::new("-r"), m.path("d").as_os_str()]).ok();
    assert_eq!(names_in(m.at()), BTreeSet::new());
    m.finish();
}
