//! Extended attributes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cairn_tests::dice::noise;
use cairn_tests::mounted::Mounted;
use rustix::fs::{XattrFlags, getxattr, lgetxattr, listxattr, lsetxattr, removexattr, setxattr};
use rustix::io::Errno;

fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65536];
    let length = getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn list(path: &Path) -> BTreeSet<String> {
    let mut names = vec![0; 65536];
    let length = listxattr(path, &mut names[..]).expect("listed");
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8(name.to_vec()).expect("UTF-8")).collect()
}

#[test]
fn attributes_are_made_replaced_listed_and_removed() {
    let m = Mounted::new();
    let path = m.path("f");
    fs::write(&path, "x").expect("written");
    let set = |name: &str, value: &[u8], flags| setxattr(&path, name, value, flags);
    assert_eq!(list(&path), BTreeSet::new());
    assert_eq!(set("user.a", b"1", XattrFlags::REPLACE), Err(Errno::NODATA));
    set("user.a", b"1", XattrFlags::CREATE).expect("new");
    assert_eq!(set("user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    set("user.a", b"3", XattrFlags::REPLACE).expect("there");
    set("user.empty", b"", XattrFlags::empty()).expect("new");
    set("trusted.root", &[0, 255, 10], XattrFlags::empty()).expect("root may");
    set("security.label", b"s", XattrFlags::empty()).expect("root may");
    let long = format!("user.{}", "n".repeat(250));
    set(&long, b"long name", XattrFlags::empty()).expect("255 bytes");
    assert_eq!(set(&format!("{long}n"), b"", XattrFlags::empty()), Err(Errno::RANGE));
    assert_eq!(set("nonsense.a", b"", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
    assert_eq!(get(&path, "user.none"), Err(Errno::NODATA));
    assert_eq!(removexattr(&path, "user.none"), Err(Errno::NODATA));
    assert_eq!(getxattr(&path, "trusted.root", &mut [0; 2][..]), Err(Errno::RANGE));
    assert_eq!(listxattr(&path, &mut [0; 3][..]), Err(Errno::RANGE));
    let names = ["user.a", "user.empty", "trusted.root", "security.label", &long];
    for mounted_again in [false, true] {
        assert_eq!(list(&path), names.map(str::to_owned).into(), "mounted again: {mounted_again}");
        assert_eq!(get(&path, "user.a").as_deref(), Ok(&b"3"[..]));
        assert_eq!(get(&path, "user.empty").as_deref(), Ok(&b""[..]));
        assert_eq!(get(&path, "trusted.root").as_deref(), Ok(&[0, 255, 10][..]));
        if !mounted_again {
            m.remount();
        }
    }
    for name in names {
        removexattr(&path, name).expect("there");
    }
    assert_eq!(list(&path), BTreeSet::new());
    m.finish();
}

#[test]
fn values_have_up_to_64_kibibytes() {
    let m = Mounted::new();
    let path = m.path("f");
    fs::write(&path, "x").expect("written");
    let value = noise(1, 65536);
    setxattr(&path, "user.big", &value, XattrFlags::empty()).expect("64 KiB");
    let refused = setxattr(&path, "user.bigger", &noise(1, 65537), XattrFlags::empty()).expect_err("too big");
    assert!([Errno::TOOBIG, Errno::NOSPC, Errno::RANGE].contains(&refused), "{refused:?}");
    for number in 0..200 {
        setxattr(&path, format!("user.{number:03}"), &value[..number * 10], XattrFlags::empty())
            .expect("many");
    }
    m.remount();
    assert!(get(&path, "user.big").as_ref() == Ok(&value));
    assert_eq!(list(&path).len(), 201);
    assert!(get(&path, "user.199").as_deref() == Ok(&value[..1990]));
    // They go with their file.
    fs::remove_file(&path).expect("there");
    fs::write(&path, "y").expect("written");
    assert_eq!(list(&path), BTreeSet::new());
    m.finish();
}

#[test]
fn links_and_directories_have_attributes_too() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).expect("a new name");
    setxattr(m.path("d"), "user.of", b"a directory", XattrFlags::empty()).expect("new");
    symlink("nowhere", m.path("l")).expect("a new name");
    lsetxattr(m.path("l"), "trusted.of", b"a link", XattrFlags::empty()).expect("root may");
    let refused = lsetxattr(m.path("l"), "user.of", b"a link", XattrFlags::empty());
    assert_eq!(refused, Err(Errno::PERM), "as on every Linux filesystem");
    fs::write(m.path("f"), "x").expect("written");
    setxattr(m.path("f"), "user.kept", b"1", XattrFlags::empty()).expect("new");
    fs::rename(m.path("f"), m.path("g")).expect("a free name");
    m.remount();
    assert_eq!(get(&m.path("d"), "user.of").as_deref(), Ok(&b"a directory"[..]));
    assert_eq!(get(&m.path("g"), "user.kept").as_deref(), Ok(&b"1"[..]));
    let mut value = [0; 16];
    let length = lgetxattr(m.path("l"), "trusted.of", &mut value[..]).expect("there");
    assert_eq!(&value[..length], b"a link");
    m.finish();
}
