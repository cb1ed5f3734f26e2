//! Locks, and handles that outlive the kernel's cache: as on a filesystem in the kernel.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, run, wait_until};
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;

/// Another process tries flock, a lock of its own and one of an open file description, on the first ten bytes; those are
/// the three answers. (Perl is in Debian's base; `s s x4 q q l x4` is `struct flock`.)
const TRY: &str = r#"
open(my $f, "+<", $ARGV[0]) or die $!;
sub range { pack("s s x4 q q l x4", $_[0], 0, 0, 10, 0) }
my @got = (flock($f, 2 | 4), map { my $got = fcntl($f, $_, range(1)); fcntl($f, $_, range(2)); $got } 6, 37);
print join " ", map { $_ ? "free" : "busy" } @got;
"#;

fn tried(path: &Path) -> String {
    run("perl", ["-e".as_ref(), TRY.as_ref(), path.as_os_str()]).ok()
}

fn lock(kind: libc::c_int, from: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: from,
        l_len: len,
        l_pid: 0,
    }
}

#[test]
fn locks_of_all_three_kinds_keep_other_processes_out() {
    let m = Mounted::new();
    let path = m.path("f");
    fs::write(&path, noise(1, 100)).expect("written");
    let open = || File::options().read(true).write(true).open(&path).expect("there");
    assert_eq!(tried(&path), "free free free");

    let held = Flock::lock(open(), FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e).expect("free");
    assert_eq!(tried(&path), "busy free free");
    drop(held);
    assert_eq!(tried(&path), "free free free");

    let mine = open();
    fcntl(&mine, FcntlArg::F_SETLK(&lock(libc::F_WRLCK, 5, 1))).expect("free");
    assert_eq!(tried(&path), "free busy busy");
    fcntl(&mine, FcntlArg::F_SETLK(&lock(libc::F_UNLCK, 5, 1))).expect("held");
    fcntl(&mine, FcntlArg::F_SETLK(&lock(libc::F_WRLCK, 10, 5))).expect("free");
    assert_eq!(tried(&path), "free free free", "another range");

    let (one, other) = (open(), open());
    fcntl(&one, FcntlArg::F_OFD_SETLK(&lock(libc::F_WRLCK, 0, 10))).expect("free");
    assert_eq!(tried(&path), "free busy busy");
    // It belongs to the open file, not to the process.
    assert!(fcntl(&other, FcntlArg::F_OFD_SETLK(&lock(libc::F_RDLCK, 0, 10))).is_err());
    drop(one);
    // A process that another test begins just now has all that is open here until it runs its program.
    let shared = lock(libc::F_RDLCK, 0, 10);
    wait_until("it is free again", || fcntl(&other, FcntlArg::F_OFD_SETLK(&shared)).is_ok());
    assert_eq!(tried(&path), "free busy busy", "a shared one keeps writers out as well");
    drop((mine, other));
    wait_until("all are free again", || tried(&path) == "free free free");
    m.finish();
}

/// Takes handles of files, drops the caches, opens them by their handles (what is in the first comes out), and removes
/// the first, whose handle is stale then.
const HANDLES: &str = r#"
my ($dir, @paths) = @ARGV;
my ($name, $open) = (`uname -m` =~ /x86_64/) ? (303, 304) : (264, 265);
opendir(my $d, $dir) or die $!;
my $at = fileno($d);
sub drop_caches { open(my $f, ">", "/proc/sys/vm/drop_caches") or die $!; print $f "2" or die $!; close $f }
my @handles = map {
    my ($path, $handle, $mount) = ($_, pack("l l x128", 128, 0), pack("l", 0));
    syscall($name, -100, $path, $handle, $mount, 0) == 0 or die "name_to_handle_at $path: $!";
    $handle
} @paths;
for my $i (0 .. $#paths) {
    drop_caches();
    my $fd = syscall($open, $at, $handles[$i], 0);
    $fd >= 0 or die "open_by_handle_at $paths[$i]: $!";
    if ($i == 0) { open(my $f, "<&=", $fd) or die $!; print <$f> }
}
unlink($paths[0]) or die $!;
drop_caches();
print syscall($open, $at, $handles[0], 0) >= 0 ? " opens" : " " . ($!{ESTALE} ? "stale" : "$!");
"#;

/// The first path is a directory in the mount.
fn opened_by_handle(paths: &[PathBuf]) -> String {
    let arguments = ["-MErrno", "-e", HANDLES].map(OsStr::new).into_iter();
    run("perl", arguments.chain(paths.iter().map(|path| path.as_os_str()))).ok()
}

#[test]
fn a_handle_outlives_the_kernels_cache_but_not_its_file() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("d/e")).expect("new names");
    fs::write(m.path("d/f"), "content").expect("written");
    fs::write(m.path("d/e/g"), "more").expect("written");
    m.remount();
    let paths = [m.at().to_path_buf(), m.path("d/f"), m.path("d"), m.path("d/e"), m.path("d/e/g")];
    assert_eq!(opened_by_handle(&paths), "content stale");
    m.finish();
}

/// A number that is used again names another file: the generation tells them apart.
#[test]
fn a_handle_never_opens_a_later_file() {
    let m = Mounted::new();
    for round in 0..5 {
        fs::write(m.path("f"), format!("{round}")).expect("written");
        let paths = [m.at().to_path_buf(), m.path("f")];
        assert_eq!(opened_by_handle(&paths), format!("{round} stale"));
        m.remount();
    }
    m.finish();
}
