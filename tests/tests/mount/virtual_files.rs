//! `/.stats`, `/.config` and the attributes `cairn.*`: what a mount tells of itself, and to whom.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, SMALL, run, wait_until};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;
use serde_json::Value;

use crate::errno;

const NOBODY: u32 = 65534;

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("readable");
    assert!(text.len().is_multiple_of(4096) && text.ends_with('\n'), "{} bytes", text.len());
    serde_json::from_str(&text).expect("one JSON document")
}

fn get(path: &Path, name: &str) -> Result<String, Errno> {
    let mut value = vec![0; 65536];
    let length = getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(String::from_utf8(value).expect("text"))
}

fn as_nobody<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    let f = || {
        // Of this thread alone, which ends.
        setfsgid(Gid::from_raw(NOBODY));
        setfsuid(Uid::from_raw(NOBODY));
        f()
    };
    thread::scope(|scope| scope.spawn(f).join()).expect("it ends")
}

#[test]
fn a_mount_tells_of_itself_in_files_that_are_not_listed() {
    for options in
        [&["allow_other,noexec,compress=zstd:9,dedup=verify"][..], &["allow_other", "x-cairn.count-opens"]]
    {
        let m = Mounted::with(&SMALL, options);
        let config = json(&m.path(".config"));
        assert_eq!(
            (config["message_type"].as_str(), config["schema_version"].as_u64()),
            (Some("config"), Some(1))
        );
        assert_eq!(config["dir"].as_str(), m.dir().to_str());
        assert_eq!(config["mountpoint"].as_str(), m.at().to_str());
        let first = options.len() == 1;
        assert_eq!(config["options"]["noexec"], first);
        assert_eq!(config["options"]["compress"].as_str(), Some(if first { "zstd:9" } else { "zstd:3" }));
        assert_eq!(config["options"]["dedup"].as_str(), Some(if first { "verify" } else { "on" }));
        assert_eq!(config["geometry"]["segment"].as_u64(), Some(4 << 20));
        assert_eq!(config["kernel"]["no_open"], first, "this kernel can do without");
        let stats = json(&m.path(".stats"));
        assert_eq!(
            (stats["message_type"].as_str(), stats["schema_version"].as_u64()),
            (Some("stats"), Some(1))
        );
        assert!(stats["usage"]["files"].is_u64() && stats["journal_limit"].is_u64());

        let names: Vec<_> = fs::read_dir(m.at()).expect("the root").collect();
        assert!(names.is_empty(), "{names:?}");
        assert!(
            !run("cp", ["-a".as_ref(), m.at().as_os_str(), m.beside("copy").as_os_str()])
                .err
                .contains("stats")
        );
        assert_eq!(fs::read_dir(m.beside("copy")).expect("copied").count(), 0);
        fs::remove_dir_all(m.beside("copy")).expect("there");
        let found = fs::metadata(m.path(".stats")).expect("found by name");
        assert_eq!((found.mode(), found.uid(), found.nlink()), (0o100_444, 0, 1));
        assert!(found.blocks() > 0);
        as_nobody(|| assert!(fs::read(m.path(".stats")).is_ok(), "everybody may read it"));
        m.finish();
    }
}

#[test]
fn each_read_finds_new_figures() {
    for options in [&[][..], &["x-cairn.count-opens"]] {
        let m = Mounted::with(&SMALL, options);
        // Held open by somebody the kernel keeps its page; each reads from the begin.
        let held = File::open(m.path(".stats")).expect("there");
        let seen = |held: &File| {
            let mut page = vec![0; 4096];
            held.read_exact_at(&mut page, 0).expect("a page");
            serde_json::from_slice::<Value>(&page).expect("JSON")["writes"].as_u64().expect("a number")
        };
        let writes = || json(&m.path(".stats"))["writes"].as_u64().expect("a number");
        let mut file = File::options().create_new(true).append(true).open(m.path("f")).expect("new");
        for _ in 0..3 {
            let before = writes();
            file.write_all(b"more").expect("written");
            wait_until("one more write is counted", || writes() > before);
            wait_until("and seen by who holds it open", || seen(&held) > before);
        }
        drop(held);
        // In small pieces it is one document too, unless the page goes just then.
        wait_until("pieces make one document", || {
            let mut pieces = Vec::new();
            let mut slow = File::open(m.path(".stats")).expect("there");
            let mut piece = [0; 100];
            while let Ok(length @ 1..) = slow.read(&mut piece) {
                pieces.extend_from_slice(&piece[..length]);
            }
            serde_json::from_slice::<Value>(&pieces).is_ok()
        });
        run("cp", [m.path(".config"), m.path("copied")]).ok();
        assert_eq!(json(&m.path("copied"))["message_type"], "config");
        drop(file);
        m.finish();
    }
}

#[test]
fn many_readers_at_once_get_whole_documents() {
    let m = Mounted::new();
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| (0..100).for_each(|_| drop(json(&m.path(".stats")))));
        }
    });
    m.finish();
}

#[test]
fn nobody_changes_what_the_mount_tells() {
    let m = Mounted::new();
    let hidden = m.path(".stats");
    fs::write(m.path("f"), "x").expect("written");
    assert_eq!(errno(fs::remove_file(&hidden)), Errno::PERM);
    assert_eq!(errno(fs::rename(&hidden, m.path("g"))), Errno::PERM);
    assert_eq!(errno(fs::rename(m.path("f"), &hidden)), Errno::PERM);
    assert_eq!(errno(fs::hard_link(&hidden, m.path("g"))), Errno::PERM);
    assert_eq!(errno(fs::hard_link(m.path("f"), &hidden)), Errno::EXIST);
    assert_eq!(errno(fs::create_dir(&hidden)), Errno::EXIST);
    assert_eq!(errno(File::create_new(&hidden)), Errno::EXIST);
    assert_eq!(errno(File::create(&hidden)), Errno::PERM, "cut by root");
    assert_eq!(errno(fs::set_permissions(&hidden, Permissions::from_mode(0o666))), Errno::PERM);
    let file = OpenOptions::new().write(true).open(&hidden).expect("root may open anything");
    assert_eq!(errno((&file).write(b"x")), Errno::PERM);
    assert_eq!(setxattr(&hidden, "user.a", b"b", XattrFlags::empty()), Err(Errno::PERM));
    assert_eq!(get(&hidden, "user.a"), Err(Errno::NODATA));
    as_nobody(|| assert!(OpenOptions::new().write(true).open(&hidden).is_err()));
    // Only in the root.
    fs::create_dir(m.path("d")).expect("a new name");
    fs::write(m.path("d/.stats"), "mine").expect("written");
    fs::rename(m.path("d/.stats"), m.path("d/.config")).expect("there");
    assert_eq!(fs::read(m.path("d/.config")).expect("there"), b"mine");
    drop(file);
    json(&hidden);
    m.finish();
}

#[test]
fn a_read_only_mount_tells_of_itself_too() {
    let m = Mounted::new();
    fs::write(m.path("f"), noise(1, 100_000)).expect("written");
    m.unmount();
    m.try_mount(&["ro"]).ok();
    assert_eq!(json(&m.path(".config"))["options"]["ro"], true);
    assert!(json(&m.path(".stats"))["packs"].as_u64() > Some(0));
    assert!(get(&m.path("f"), "cairn.why").is_ok());
    m.finish();
}

#[test]
fn a_file_tells_what_it_is_made_of() {
    let m = Mounted::with(&SMALL, &["allow_other"]);
    let (f, twin) = (m.path("f"), m.path("twin"));
    let content = noise(1, 1 << 20);
    fs::write(&f, &content).expect("written");
    fs::write(&twin, [content.clone(), content.clone()].concat()).expect("written");
    let number = |path: &Path, name: &str| get(path, name).expect("told").parse::<f64>().expect("a number");
    let why =
        |path: &Path| serde_json::from_str::<Value>(&get(path, "cairn.why").expect("told")).expect("JSON");
    assert_eq!(why(&f)["journalled"].as_u64(), Some(1 << 20), "not folded yet");
    m.sync();
    let told = why(&f);
    assert_eq!((told["message_type"].as_str(), told["schema_version"].as_u64()), (Some("why"), Some(1)));
    assert_eq!(told["size"].as_u64(), Some(1 << 20));
    assert_eq!((told["sharers"].as_u64(), told["complete"].as_bool()), (Some(1), Some(true)));
    assert!(told["shared"].as_u64() > Some(900_000), "{told}");
    for (name, field) in [("stored", "stored"), ("chunks", "chunks"), ("shared", "shared")] {
        assert_eq!(Some(number(&f, &format!("cairn.{name}"))), told[field].as_f64(), "{name}");
    }
    assert!((0.9..1.1).contains(&number(&f, "cairn.ratio")), "noise does not shrink");

    // Nothing copies them along, since nothing sees them.
    assert_eq!(listxattr(&f, &mut Vec::<u8>::new()), Ok(0));
    let dump = run("getfattr", ["-d".as_ref(), "-m".as_ref(), "-".as_ref(), f.as_os_str()]).ok();
    assert!(!dump.contains("cairn"), "{dump}");
    let flags = |flags: &str, to: &str| {
        let to = m.path(to);
        [OsStr::new(flags), f.as_os_str(), to.as_os_str()].map(OsStr::to_os_string)
    };
    run("cp", flags("-a", "cp")).ok();
    run("rsync", flags("-aX", "rsync")).ok();
    for copy in ["cp", "rsync"] {
        assert_eq!(get(&m.path(copy), "cairn.why").map(drop), Ok(()), "{copy}");
    }

    // Nobody sets them; what does not exist is not there.
    for name in ["cairn.why", "cairn.stored", "cairn.ratio", "cairn.chunks", "cairn.shared"] {
        assert_eq!(setxattr(&f, name, b"1", XattrFlags::empty()), Err(Errno::PERM), "{name}");
        assert_eq!(removexattr(&f, name), Err(Errno::PERM), "{name}");
        assert_eq!(get(m.at(), name), Err(Errno::NODATA), "{name} of a directory");
    }
    assert_eq!(get(&f, "cairn.nonsense"), Err(Errno::NODATA));
    assert_eq!(setxattr(&f, "cairn.nonsense", b"1", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
    fs::write(m.path("empty"), "").expect("written");
    assert_eq!(get(&m.path("empty"), "cairn.stored").as_deref(), Ok("0"));
    assert_eq!(get(&m.path("empty"), "cairn.ratio"), Err(Errno::NODATA));

    // Who may not read a file is not told of it.
    fs::set_permissions(&f, Permissions::from_mode(0o600)).expect("its owner");
    as_nobody(|| {
        assert_eq!(get(&f, "cairn.why"), Err(Errno::ACCESS));
        assert_eq!(get(&f, "cairn.stored"), Err(Errno::ACCESS));
        assert!(get(&twin, "cairn.why").is_ok());
    });
    m.finish();
}

#[test]
fn a_policy_is_set_inherited_and_not_listed() {
    let m = Mounted::new();
    let dir = m.path("d");
    fs::create_dir(&dir).expect("a new name");
    setxattr(&dir, "cairn.compress", b"off", XattrFlags::empty()).expect("a policy");
    fs::write(dir.join("f"), vec![b'a'; 1 << 20]).expect("written");
    fs::write(m.path("f"), vec![b'b'; 1 << 20]).expect("written");
    assert_eq!(get(&dir.join("f"), "cairn.compress").as_deref(), Ok("off"));
    assert_eq!(setxattr(&dir, "cairn.compress", b"best", XattrFlags::empty()), Err(Errno::INVAL));
    m.sync();
    let stored = |path: &Path| get(path, "cairn.stored").expect("told").parse::<u64>().expect("a number");
    assert!(stored(&m.path("f")) < stored(&dir.join("f")), "one of them is compressed");
    assert_eq!(listxattr(&dir, &mut Vec::<u8>::new()), Ok(0));
    m.finish();
}
