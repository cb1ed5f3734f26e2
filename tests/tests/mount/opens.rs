//! Files that are open: without a name, truncated, with the kernel's caches dropped; with opens told and untold.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, SMALL, wait_until};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;

const NOBODY: u32 = 65534;

/// With the kernel doing without telling of opens, and as with kernels that cannot.
fn told_and_untold(test: impl Fn(&Mounted)) {
    for options in [&["suid,allow_other"][..], &["suid,allow_other", "x-cairn.count-opens"]] {
        let m = Mounted::with(&SMALL, options);
        test(&m);
        m.finish();
    }
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).expect("there")
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "2").expect("root may");
}

/// The number of inodes once everything is folded.
fn files(m: &Mounted) -> u64 {
    m.sync();
    m.df("files")
}

/// Panics unless `file` holds `content` and takes more.
fn is_usable(mut file: &File, content: &[u8], when: &str) {
    let mut found = vec![0; content.len()];
    file.read_exact_at(&mut found, 0).unwrap_or_else(|e| panic!("{when}: {e}"));
    assert!(found == content, "{when}");
    file.write_all_at(b"more", content.len() as u64).unwrap_or_else(|e| panic!("{when}: {e}"));
    file.seek(std::io::SeekFrom::Start(content.len() as u64)).expect("a file");
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).expect("to its end");
    assert_eq!(tail, b"more", "{when}");
}

#[test]
fn an_open_file_without_a_name_stays_until_its_last_close() {
    told_and_untold(|m| {
        let content = noise(1, 300_000);
        let before = files(m);
        let names = ["opened", "replaced", "linked"];
        names.iter().for_each(|name| fs::write(m.path(name), &content).expect("written"));
        fs::write(m.path("new"), "new").expect("written");
        // Nothing is known of them any more; then they are opened, not created.
        m.remount();
        fs::hard_link(m.path("linked"), m.path("other")).expect("a new name");
        let held = names.map(|name| open(&m.path(name)));
        fs::remove_file(m.path("opened")).expect("there");
        fs::rename(m.path("new"), m.path("replaced")).expect("there");
        fs::remove_file(m.path("linked")).expect("there");
        drop_caches();
        fs::remove_file(m.path("other")).expect("there");
        for (name, file) in names.iter().zip(&held) {
            assert_eq!(file.metadata().expect("open").nlink(), 0, "{name}");
            is_usable(file, &content, name);
        }
        m.sync();
        drop_caches();
        for (name, file) in names.iter().zip(&held) {
            file.set_len(content.len() as u64).expect("open");
            is_usable(file, &content, name);
        }
        drop(held);
        fs::remove_file(m.path("replaced")).expect("there");
        wait_until("their inodes are gone", || files(m) == before);
    });
}

#[test]
fn a_file_that_is_created_closed_and_opened_again_stays_as_well() {
    told_and_untold(|m| {
        let content = noise(2, 100_000);
        fs::write(m.path("f"), &content).expect("written");
        let (first, second) = (open(&m.path("f")), open(&m.path("f")));
        fs::remove_file(m.path("f")).expect("there");
        drop(first);
        drop_caches();
        is_usable(&second, &content, "one of two is closed");
        // Its name may be taken at once.
        fs::write(m.path("f"), "another").expect("written");
        drop(second);
        assert_eq!(fs::read(m.path("f")).expect("there"), b"another");
    });
}

#[test]
fn many_open_files_give_their_room_back() {
    const FILES: u64 = 400;
    told_and_untold(|m| {
        let before = files(m);
        let held: Vec<_> = (0..FILES)
            .map(|n| {
                fs::write(m.path(n.to_string()), noise(n, 50_000)).expect("written");
                open(&m.path(n.to_string()))
            })
            .collect();
        let stored = {
            m.sync();
            m.df("stored")
        };
        (0..FILES).for_each(|n| fs::remove_file(m.path(n.to_string())).expect("there"));
        drop_caches();
        assert_eq!(files(m), before + FILES, "all are open still");
        held.iter().zip(0..).for_each(|(file, n)| is_usable(file, &noise(n, 50_000), "of many"));
        drop(held);
        wait_until("their inodes are gone", || files(m) == before);
        wait_until("their room is free", || {
            m.sync();
            m.df("stored") < stored / 2
        });
    });
}

#[test]
fn a_directory_that_was_removed_while_open_is_empty() {
    told_and_untold(|m| {
        fs::create_dir(m.path("d")).expect("a new name");
        let before = files(m);
        let dir = File::open(m.path("d")).expect("there");
        fs::remove_dir(m.path("d")).expect("empty");
        drop_caches();
        assert_eq!(dir.metadata().expect("open").nlink(), 0);
        let names: Vec<_> =
            Dir::read_from(&dir).expect("open").map(|e| e.map(|e| e.file_name().to_owned())).collect();
        assert!(
            names.iter().all(|name| name.as_ref().is_ok_and(|n| n.to_bytes().starts_with(b"."))),
            "{names:?}"
        );
        let made = openat(&dir, "new", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600));
        assert_eq!(made.map(drop), Err(Errno::NOENT));
        drop(dir);
        wait_until("it is gone", || files(m) < before);
    });
}

/// What the kernel says it forgot may be old news: the same file was looked up and opened since.
#[test]
fn dropped_caches_take_no_open_file_away() {
    let m = Mounted::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop_caches();
            }
        });
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let m = &m;
                scope.spawn(move || {
                    for round in 0..400 {
                        let path = m.path(format!("{worker}"));
                        let content = noise(round, 5000);
                        fs::write(&path, &content).expect("written");
                        fs::hard_link(&path, m.path(format!("{worker}-other"))).expect("a new name");
                        let file = open(&path);
                        fs::remove_file(m.path(format!("{worker}-other"))).expect("there");
                        fs::remove_file(&path).expect("there");
                        is_usable(&file, &content, "caches are dropped all the time");
                        is_usable(&file, &content, "and once more");
                    }
                })
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    wait_until("nothing is left", || files(&m) == 1);
    m.finish();
}

#[test]
fn open_files_without_a_name_are_gone_after_a_kill() {
    let m = Mounted::new();
    let before = files(&m);
    let held: Vec<_> = (0..50)
        .map(|n| {
            fs::write(m.path(n.to_string()), noise(n, 10_000)).expect("written");
            let file = open(&m.path(n.to_string()));
            fs::remove_file(m.path(n.to_string())).expect("there");
            file
        })
        .collect();
    m.sync();
    m.kill();
    drop(held);
    m.take_away();
    m.fsck();
    m.mount();
    assert_eq!(files(&m), before);
    m.finish();
}

#[test]
fn opening_truncates_and_takes_another_users_privileges_away() {
    told_and_untold(|m| {
        let path = m.path("f");
        for create in [false, true] {
            fs::write(&path, noise(1, 100_000)).expect("written");
            m.remount();
            let file =
                OpenOptions::new().write(true).truncate(true).create(create).open(&path).expect("there");
            assert_eq!(file.metadata().expect("open").len(), 0, "create: {create}");
            (&file).write_all(b"short").expect("written");
            drop(file);
            assert_eq!(fs::read(&path).expect("there"), b"short");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o6777)).expect("its owner");
        let mode = || fs::metadata(&path).expect("there").mode() & 0o7777;
        drop(File::create(&path).expect("there"));
        assert_eq!(mode(), 0o6777, "by root");
        thread::scope(|scope| {
            scope.spawn(|| {
                setfsgid(Gid::from_raw(NOBODY));
                setfsuid(Uid::from_raw(NOBODY));
                drop(OpenOptions::new().write(true).truncate(true).open(&path).expect("may write"));
            });
        });
        assert_eq!(mode(), 0o777, "by nobody");
    });
}

#[test]
fn direct_and_cached_views_of_an_open_file_agree() {
    told_and_untold(|m| {
        let content = noise(3, 64 << 10);
        fs::write(m.path("f"), &content).expect("written");
        let cached = open(&m.path("f"));
        let direct = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(m.path("f"))
            .expect("O_DIRECT");
        let mut found = vec![0; 4096];
        cached.read_exact_at(&mut found, 0).expect("read");
        direct.write_all_at(&content[4096..8192], 0).expect("written");
        cached.read_exact_at(&mut found, 0).expect("read");
        assert!(found == content[4096..8192], "what went past the cache is seen through it");
        cached.write_all_at(&content[..4096], 0).expect("written");
        direct.read_exact_at(&mut found, 0).expect("read");
        assert!(found == content[..4096], "and the other way round");
    });
}
