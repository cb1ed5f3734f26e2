//! POSIX access control lists, set and read with the tools that people use.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use cairn_tests::mounted::{Mounted, Ran, SMALL, run};

fn setfacl(arguments: &[&str], path: &Path) -> Ran {
    run("setfacl", arguments.iter().map(OsStr::new).chain([path.as_os_str()]))
}

/// The entries of a path's lists, in one line, users by number.
fn acl(path: &Path) -> String {
    let text = run("getfacl", ["-cnpE".as_ref(), path.as_os_str()]).ok();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o7777
}

fn user_can(user: u32, script: &str, path: &Path) -> bool {
    let mut command = Command::new("sh");
    command.args([OsStr::new("-c"), OsStr::new(script), OsStr::new("sh"), path.as_os_str()]);
    command.uid(user).gid(user).current_dir("/").output().expect("a shell").status.success()
}

#[test]
fn lists_decide_and_go_with_the_mode() {
    let m = Mounted::with(&SMALL, &["allow_other"]);
    let path = m.path("f");
    fs::write(&path, "x").expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("its owner");
    assert!(!user_can(1001, "cat \"$1\"", &path));
    setfacl(&["-m", "u:1001:rw,g:1002:r"], &path).ok();
    assert_eq!(acl(&path), "user::rw- user:1001:rw- group::r-- group:1002:r-- mask::rw- other::---");
    assert_eq!(mode(&path), 0o660, "the mask shows in the group's bits");
    assert!(user_can(1001, "cat \"$1\" && echo >>\"$1\"", &path));
    assert!(user_can(1002, "cat \"$1\"", &path) && !user_can(1002, "echo >>\"$1\"", &path));
    assert!(!user_can(1003, "cat \"$1\"", &path));

    fs::set_permissions(&path, Permissions::from_mode(0o614)).expect("its owner");
    assert_eq!(acl(&path), "user::rw- user:1001:rw- group::r-- group:1002:r-- mask::--x other::r--");
    assert!(!user_can(1001, "cat \"$1\"", &path), "the mask takes it away");
    setfacl(&["-m", "m::r"], &path).ok();
    assert_eq!(mode(&path), 0o644);
    m.remount();
    assert_eq!(acl(&path), "user::rw- user:1001:rw- group::r-- group:1002:r-- mask::r-- other::r--");
    assert!(user_can(1001, "cat \"$1\"", &path) && !user_can(1001, "echo >>\"$1\"", &path));

    setfacl(&["-b"], &path).ok();
    assert_eq!((acl(&path).as_str(), mode(&path)), ("user::rw- group::r-- other::r--", 0o644));
    m.finish();
}

#[test]
fn default_lists_are_inherited() {
    let m = Mounted::with(&SMALL, &["allow_other"]);
    let dir = m.path("d");
    fs::create_dir(&dir).expect("a new name");
    setfacl(&["-d", "-m", "u::rwx,u:1001:rwx,g::r-x,o::-"], &dir).ok();
    run("sh", ["-c", &format!("umask 077; cd {}; touch f; mkdir s; mkfifo p; ln -s f l", dir.display())])
        .ok();
    let inherited = "user::rw- user:1001:rwx group::r-x mask::rw- other::---";
    assert_eq!(acl(&dir.join("f")), inherited, "the umask does not count");
    assert_eq!(acl(&dir.join("p")), inherited);
    assert_eq!(mode(&dir.join("f")), 0o660);
    let both = "user::rwx user:1001:rwx group::r-x mask::rwx other::--- default:user::rwx default:user:1001:rwx \
                default:group::r-x default:mask::rwx default:other::---";
    assert_eq!(acl(&dir.join("s")), both);
    m.remount();
    assert_eq!((acl(&dir.join("f")).as_str(), acl(&dir.join("s")).as_str()), (inherited, both));
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("its owner");
    assert!(user_can(1001, "cat \"$1/f\" && echo >>\"$1/f\"", &dir));
    let refused = setfacl(&["-d", "-m", "u:1001:r"], &dir.join("f"));
    assert_ne!(refused.code, 0, "a file has no default list");
    setfacl(&["-k"], &dir).ok();
    fs::write(dir.join("g"), "x").expect("written");
    assert!(!acl(&dir.join("g")).contains("1001"), "nothing to inherit any more");
    m.finish();
}

#[test]
fn cp_and_tar_carry_lists_along() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).expect("a new name");
    fs::write(m.path("d/f"), "x").expect("written");
    setfacl(&["-R", "-m", "u:1001:rwX,g:1002:rX"], &m.path("d")).ok();
    setfacl(&["-d", "-m", "u:1003:r"], &m.path("d")).ok();
    let script = format!(
        "cd {} && cp -a d copy && tar --acls -cf t.tar d && mkdir out && tar --acls -xpf t.tar -C out",
        m.at().display()
    );
    run("sh", ["-c", &script]).ok();
    for name in ["copy", "out/d"] {
        assert_eq!(acl(&m.path(name)), acl(&m.path("d")));
        assert_eq!(acl(&m.path(name).join("f")), acl(&m.path("d/f")));
    }
    m.finish();
}
