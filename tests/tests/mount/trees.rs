//! Real trees: copied in with `cp -a`, they come back the same after a mount, and after losing the caches.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cairn_tests::mounted::{Mounted, SMALL, run};

/// Trees of real files that a Debian has: some thousand files in all.
fn real_trees() -> Vec<PathBuf> {
    let candidates = ["/usr/share/perl", "/usr/share/perl5", "/usr/share/zoneinfo", "/usr/include"];
    let found: Vec<_> = candidates.map(PathBuf::from).into_iter().filter(|p| p.is_dir()).take(3).collect();
    assert!(!found.is_empty(), "no tree to copy: none of {candidates:?} is there");
    found
}

/// One of each thing that a real tree may lack.
fn plant(dir: &Path) {
    let script = r#"
        set -e; mkdir "$1"; cd "$1"
        mkdir a a/b empty; echo linked >a/one; ln a/one a/b/two; ln a/one three
        ln -s a/one link; ln -s /nowhere/at/all dangling; ln -s a dirlink
        truncate -s 50M sparse; printf data | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
        truncate -s 1M hole; : >nothing
        mkfifo -m 640 fifo; perl -MSocket -e 'socket(S,PF_UNIX,SOCK_STREAM,0);bind(S,sockaddr_un("socket"))'
        mknod null c 1 3
        cp /bin/true setuid; chmod 4755 setuid; cp /bin/true setgid; chmod 2711 setgid; mkdir sticky; chmod 1777 sticky
        echo x >"$(printf 'not utf-8 \377\376')"; echo x >"$(printf 'new\nline')"; echo x >"$(printf 'x%.0s' $(seq 255))"
        echo x >attributes; setfattr -n user.colour -v blue attributes; setfattr -n trusted.t -v 0x00ff attributes
        setfattr -n user.on.a.directory -v yes a; setfattr -h -n trusted.on.a.link -v yes link
        echo x >acl; setfacl -m u:1001:rw,g:1002:r acl; mkdir acls; setfacl -d -m u:1001:rwx acls
        echo x >old; touch -d '1955-11-05 06:15:00.123456789' old; echo x >late; touch -d '2106-02-07 06:28:16.5' late
        echo x >owned; chown 4000000:4000001 owned; chown -h 5:6 dangling; chmod 000 nothing
        touch -d '2001-02-03 04:05:06.789' a/b a empty
    "#;
    run("sh", ["-c".as_ref(), script.as_ref(), OsStr::new("sh"), dir.as_os_str()]).ok();
}

/// Panics if rsync finds any difference, in either direction.
#[track_caller]
fn same(one: &Path, other: &Path) {
    let slashed = |path: &Path| path.join("");
    for (from, to) in [(one, other), (other, one)] {
        let options = ["-aHAXn", "--checksum", "--delete", "--itemize-changes"].map(OsStr::new);
        let (from, to) = (slashed(from), slashed(to));
        let found = run("rsync", options.into_iter().chain([from.as_os_str(), to.as_os_str()])).ok();
        assert_eq!(found, "", "{} and {} differ", from.display(), to.display());
    }
}

#[test]
fn copied_trees_are_the_same_after_a_mount_and_without_the_caches() {
    let m = Mounted::with(&SMALL, &["suid,dev"]);
    let planted = m.beside("planted");
    plant(&planted);
    let mut pairs: Vec<(PathBuf, PathBuf)> = Vec::new();
    for tree in real_trees().into_iter().chain([planted]) {
        let copy = m.path(tree.file_name().expect("a name"));
        run("cp", [OsStr::new("-a"), tree.as_os_str(), copy.as_os_str()]).ok();
        pairs.push((tree, copy));
    }
    let all_the_same = || pairs.iter().for_each(|(tree, copy)| same(tree, copy));
    all_the_same();
    m.remount();
    all_the_same();
    m.unmount();
    m.fsck();
    fs::remove_dir_all(m.dir().join("engine")).expect("an engine");
    fs::remove_file(m.dir().join("store/index")).expect("an index");
    m.mount();
    all_the_same();
    m.unmount();
    m.fsck();
    // Neither caches nor anything that needs a write: read-only.
    m.try_mount(&["ro,suid,dev"]).ok();
    all_the_same();
    m.finish();
}

#[test]
fn a_second_copy_takes_next_to_nothing() {
    let m = Mounted::new();
    let trees = real_trees();
    let copy = |name: &str| {
        fs::create_dir(m.path(name)).expect("a new name");
        for tree in &trees {
            run("cp", ["-a".as_ref(), tree.as_os_str(), m.path(name).as_os_str()]).ok();
        }
        m.sync();
        (m.df("logical"), m.df("stored"))
    };
    let (logical, stored) = copy("first");
    let (twice, stored_twice) = copy("second");
    assert_eq!(twice, 2 * logical, "every byte is counted");
    assert!(stored > 0 && stored_twice - stored <= stored / 50, "{stored} bytes, then {stored_twice}");
    // What nothing refers to any more goes.
    for name in ["first", "second"] {
        run("rm", ["-r".as_ref(), m.path(name).as_os_str()]).ok();
    }
    m.sync();
    assert_eq!((m.df("logical"), m.df("files")), (0, 1));
    assert!(m.df("stored") < stored / 50, "{} of {stored} bytes are left", m.df("stored"));
    m.finish();
}

#[test]
fn a_volume_is_its_owners_alone() {
    let m = Mounted::new();
    fs::write(m.path("f"), vec![7; 100_000]).expect("written");
    m.sync();
    for name in ["journal", "store/packs", "engine", "control.sock", "log"] {
        let path = m.dir().join(name);
        let mode = fs::metadata(&path).expect("part of a volume").permissions().mode();
        let files =
            fs::read_dir(&path).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or(vec![path]);
        for file in files.iter().filter(|f| !f.is_dir()) {
            let mode = fs::metadata(file).expect("there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is for its owner only, not {mode:o}", file.display());
        }
        assert_eq!(mode & 0o022, 0, "nobody else writes to {name}");
    }
    m.finish();
}
