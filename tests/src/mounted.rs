//! Real mounts for tests: a volume in a temporary directory, its daemon, and the programs under test.
//!
//! These tests need root and /dev/fuse; without them they fail, they do not skip.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{children_of, has_ended, parent_of, state_of};

/// No command of these tests takes so many seconds, unless it hangs: on the slowest machine yet, with others beside it, a build by cargo
/// took 150.
const COMMAND_LIMIT: u64 = 450;
/// No test has a mount for this long, unless it hangs: its daemon is killed then, so that what waits for it fails.
const MOUNT_LIMIT: Duration = Duration::from_secs(1200);
/// How many MiB of memory a process of tests takes at most, unless it keeps what it need not: its daemons are killed
/// then, since the kernel would end it without a word.
const MEMORY_LIMIT: u64 = 4096;
/// How long [`wait_until`] waits.
const WAIT_LIMIT: Duration = Duration::from_secs(180);

/// What `mkfs-cairn` is told where a test says nothing: a small journal, so that folds and checkpoints come often.
pub const SMALL: [&str; 4] = ["--journal-size", "64M", "--segment-size", "4M"];

/// After how many seconds a command counts as one that hangs. `CAIRN_TOOLS=full` has some that take long.
pub fn command_limit() -> u64 {
    if std::env::var_os("CAIRN_TOOLS").is_some_and(|v| v == "full") {
        4 * COMMAND_LIMIT
    } else {
        COMMAND_LIMIT
    }
}

/// The same for a mount.
fn mount_limit() -> Duration {
    MOUNT_LIMIT * u32::try_from(command_limit() / COMMAND_LIMIT).unwrap_or(1)
}

/// A program under test: `cairn`, `mkfs-cairn` or `fsck-cairn`, as built beside this test.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(build) {
        Ok(dir) => dir.join(name),
        Err(why) => panic!("the programs under test could not be built: {why}"),
    }
}

/// Cargo builds no other package's programs for a test, so this does. Gives their directory.
fn build() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    // target/PROFILE/deps/mount-HASH
    let dir = exe.parent().and_then(Path::parent).ok_or("this test lies in no target directory")?;
    let target = dir.parent().ok_or("this test lies in no target directory")?;
    let profile = match dir.file_name().and_then(OsStr::to_str) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => return Err(format!("{} names no profile", dir.display())),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", profile]).env("CARGO_TARGET_DIR", target);
    // With the features of the whole workspace's dependencies, as `cargo test --workspace` has built nearly all of it.
    cargo.args(["--workspace", "--bins"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if cfg!(feature = "sled") {
        cargo.args(["--features", "cairn/sled,fsck-cairn/sled"]);
    }
    let output = cargo.output().map_err(|e| format!("cargo: {e}"))?;
    match output.status.success() {
        true => Ok(dir.to_path_buf()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A command that ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What was run, for messages.
    pub line: String,
    /// Its exit code; 128 and the number for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Panics unless the command succeeded; gives its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}: {}{}", self.line, self.out, self.err);
        self.out
    }

    /// Panics unless the command failed with `code` and said all of `parts` on standard error, and nothing that only a
    /// programmer understands.
    #[track_caller]
    pub fn refused(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}: {}{}", self.line, self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "{}: '{part}' is not in: {}", self.line, self.err);
        }
        assert!(!self.err.contains("panicked") && !self.err.contains("Os {"), "{}: {}", self.line, self.err);
    }
}

/// Runs a program under test, or any other; one that hangs is ended and fails the test.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Ran {
    let program = match name {
        "cairn" | "mkfs-cairn" | "fsck-cairn" => program(name),
        other => other.into(),
    };
    let mut command = Command::new("timeout");
    command
        .args(["-k", "5"])
        .arg(command_limit().to_string())
        .arg(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8");
    let line = format!("{command:?}");
    let output = command.output().expect("timeout(1) of coreutils");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(255);
    assert!(code != 124, "{line} hangs: {}{}", text(&output.stdout), text(&output.stderr));
    Ran { line, code, out: text(&output.stdout), err: text(&output.stderr) }
}

/// Returns when `what` holds.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < WAIT_LIMIT, "waited {} s in vain until {what}", WAIT_LIMIT.as_secs());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether nobody has the volume in `dir`. Not told from processes: one that ended stays visible where PID 1 reaps none.
pub fn is_free(dir: &Path) -> bool {
    let Ok(file) = OpenOptions::new().read(true).write(true).open(dir.join("lock")) else { return true };
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
}

/// The process that has the volume in `dir`, if it is a `cairn` that does.
pub fn daemon_of(dir: &Path) -> Option<Pid> {
    if is_free(dir) {
        return None;
    }
    let text = fs::read_to_string(dir.join("lock")).ok()?;
    let pid: i32 = text.lines().next()?.strip_prefix("pid ")?.parse().ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let named = arguments
        .split(|b| *b == 0)
        .any(|word| Path::new(OsStr::new(&*String::from_utf8_lossy(word))) == dir);
    named.then(|| Pid::from_raw(pid))
}

/// The process that follows the daemon with another when it dies, if it has one.
pub fn supervisor_of(daemon: Pid) -> Option<Pid> {
    let parent = parent_of(daemon)?;
    let words = |pid: Pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_worker = words(daemon).split(|b| *b == 0).any(|word| word == b"--worker");
    let is_cairn = words(parent).split(|b| *b == 0).any(|word| word == b"mount");
    (is_worker && is_cairn).then_some(parent)
}

/// Whether a filesystem is mounted at `path` itself.
pub fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
}

/// The processes of a mount: who would follow the daemon with another comes first.
#[derive(Clone, Debug)]
pub struct Daemon(Vec<Pid>);

impl Daemon {
    fn of(dir: &Path) -> Option<Daemon> {
        let pid = daemon_of(dir)?;
        Some(Daemon(supervisor_of(pid).into_iter().chain([pid]).collect()))
    }

    /// Kills them, as a crash would, and returns when they have let go of everything.
    #[track_caller]
    pub fn kill(self) {
        self.send_kill();
        wait_until("the daemon ended", || self.has_ended());
    }

    /// Every kill of a whole mount comes through here. One that ended on its own in between is as good.
    fn send_kill(&self) {
        for pid in &self.0 {
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }

    /// Whether all of them are gone.
    pub fn has_ended(&self) -> bool {
        self.0.iter().all(|pid| has_ended(*pid))
    }
}

/// A mount that is being made.
pub struct Mounting(Child);

impl Mounting {
    /// Whether it goes on, as it does once it is mounted.
    #[track_caller]
    pub fn is_at_work(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }

    /// Kills it, wherever it is; gives whether it was still at work.
    #[track_caller]
    pub fn kill(mut self) -> bool {
        let at_work = self.is_at_work();
        if at_work {
            let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process's number"));
            // Stopped, it starts no other.
            kill(pid, Signal::SIGSTOP).expect("a child");
            wait_until("it stopped", || has_ended(pid) || state_of(pid) == Some('T'));
            Daemon([pid].into_iter().chain(children_of(pid)).collect()).kill();
            self.0.wait().expect("a child");
        }
        at_work
    }
}

/// A volume and its mountpoint, in a directory that goes when this does. A failed test leaves no mount and no daemon.
pub struct Mounted {
    root: TempDir,
    dir: PathBuf,
    at: PathBuf,
    options: Vec<String>,
    _watchdog: Sender<()>,
}

impl Mounted {
    /// A new volume, mounted with default options.
    #[track_caller]
    pub fn new() -> Mounted {
        Mounted::with(&SMALL, &[])
    }

    /// A new volume, mounted: what `mkfs-cairn` and `-o` get.
    #[track_caller]
    pub fn with(mkfs: &[&str], options: &[&str]) -> Mounted {
        let mounted = Mounted::unmounted(mkfs, options);
        mounted.mount();
        mounted
    }

    /// A new volume, not mounted.
    #[track_caller]
    pub fn unmounted(mkfs: &[&str], options: &[&str]) -> Mounted {
        let root = TempDir::new().expect("a temporary directory");
        let dir = root.path().canonicalize().expect("just made").join("volume");
        Mounted::in_dir(root, dir, mkfs, options)
    }

    /// A new volume in a directory of the caller's, not mounted.
    #[track_caller]
    pub fn elsewhere(dir: PathBuf, mkfs: &[&str], options: &[&str]) -> Mounted {
        Mounted::in_dir(TempDir::new().expect("a temporary directory"), dir, mkfs, options)
    }

    #[track_caller]
    fn in_dir(root: TempDir, dir: PathBuf, mkfs: &[&str], options: &[&str]) -> Mounted {
        assert!(
            nix::unistd::geteuid().is_root(),
            "tests that mount need root: run them as root, as scripts/test does"
        );
        assert!(
            Path::new("/dev/fuse").exists(),
            "tests that mount need /dev/fuse: run `modprobe fuse` as root, or give the container the device"
        );
        // Other users get as far as the mount.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("its owner");
        let at = root.path().canonicalize().expect("just made").join("mnt");
        fs::create_dir(&at).expect("a new name");
        let arguments = mkfs.iter().map(OsStr::new).chain([OsStr::new("-q"), dir.as_os_str()]);
        run("mkfs-cairn", arguments).ok();
        let _watchdog = watch(dir.clone());
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        Mounted { root, dir, at, options, _watchdog }
    }

    /// Has the time that it may be mounted begin anew: for tests of many rounds.
    pub fn be_patient(&mut self) {
        self._watchdog = watch(self.dir.clone());
    }

    /// The volume's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// A directory beside both, for what a test needs.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().expect("there").join(name)
    }

    /// A path in the mount.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.at.join(name)
    }

    /// Runs `cairn mount` with these options in place of the volume's own.
    #[track_caller]
    pub fn try_mount(&self, options: &[&str]) -> Ran {
        let options = options.iter().flat_map(|o| [OsStr::new("-o"), OsStr::new(*o)]);
        let places = [self.dir.as_os_str(), self.at.as_os_str()];
        run("cairn", [OsStr::new("mount")].into_iter().chain(options).chain(places))
    }

    /// Mounts.
    #[track_caller]
    pub fn mount(&self) {
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        self.try_mount(&options).ok();
        assert!(is_mounted(&self.at), "{} is mounted", self.at.display());
    }

    /// Runs `cairn umount`, for what it says. A test beside this one that starts a program has copies of all files that
    /// are open here, for the moment until the program is in its place: that is waited for.
    #[track_caller]
    pub fn try_unmount(&self) -> Ran {
        let mut ran = None;
        wait_until("nobody uses the mount", || {
            let said = run("cairn", [OsStr::new("umount"), self.at.as_os_str()]);
            let busy = said.code != 0 && said.err.contains("is in use");
            ran = Some(said);
            !busy
        });
        ran.expect("waited for")
    }

    /// Unmounts with `cairn umount`, after which nobody has the volume.
    #[track_caller]
    pub fn unmount(&self) {
        self.try_unmount().ok();
        assert!(!is_mounted(&self.at), "{} is unmounted", self.at.display());
        assert!(is_free(&self.dir), "the daemon has let go of {}", self.dir.display());
    }

    /// Unmounts and mounts: nothing that was seen comes from a cache.
    #[track_caller]
    pub fn remount(&self) {
        self.unmount();
        self.mount();
    }

    /// Unmounts as umount(8) does: the daemon may fold on.
    #[track_caller]
    pub fn unmount_plainly(&self) {
        wait_until("nobody uses the mount", || match umount2(&self.at, MntFlags::empty()) {
            Err(Errno::EBUSY) => false,
            result => {
                result.expect("it is mounted");
                true
            }
        });
    }

    /// Waits until everything is folded.
    #[track_caller]
    pub fn sync(&self) {
        run("cairn", [OsStr::new("sync"), self.at.as_os_str()]).ok();
    }

    /// A field of `cairn df --json`.
    #[track_caller]
    pub fn df(&self, field: &str) -> u64 {
        let text = run("cairn", [OsStr::new("df"), OsStr::new("--json"), self.dir.as_os_str()]).ok();
        let document: Value = serde_json::from_str(&text).expect("one JSON document");
        document[field].as_u64().unwrap_or_else(|| panic!("{field} is no number in {text}"))
    }

    /// Sends a signal to the daemon.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = daemon_of(&self.dir).expect("a daemon has the volume");
        kill(pid, signal).expect("it runs");
    }

    /// Returns when nobody has the volume.
    #[track_caller]
    pub fn wait_for_end(&self) {
        wait_until("the daemon ended", || is_free(&self.dir));
    }

    /// The processes that have the volume, to be killed at a moment when its directory may no longer tell them.
    #[track_caller]
    pub fn daemon(&self) -> Daemon {
        Daemon::of(&self.dir).expect("a daemon has the volume")
    }

    /// Kills the daemon and its supervisor, as a crash of the machine would. The mount stays, dead.
    #[track_caller]
    pub fn kill(&self) {
        self.daemon().kill();
        self.wait_for_end();
    }

    /// Begins to mount, for a kill half way.
    #[track_caller]
    pub fn begin_to_mount(&self) -> Mounting {
        let mut command = Command::new(program("cairn"));
        command.args(["mount", "-f"]).args(self.options.iter().flat_map(|o| ["-o", o])).arg(&self.dir);
        command.arg(&self.at).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Mounting(command.spawn().expect("cairn, as built"))
    }

    /// Kills the daemon alone, unless it is `last`, which was killed already; gives which one it was.
    #[track_caller]
    pub fn kill_worker(&self, last: Option<Pid>) -> Pid {
        let mut found = None;
        wait_until("there is a worker", || {
            found = daemon_of(&self.dir).filter(|pid| Some(*pid) != last);
            found.is_some()
        });
        let pid = found.expect("waited for");
        // One that a supervisor gave up, or that a test ends, would be a bug of its own.
        kill(pid, Signal::SIGKILL).expect("it runs");
        pid
    }

    /// Takes a dead mount out of the tree.
    #[track_caller]
    pub fn take_away(&self) {
        umount2(&self.at, MntFlags::MNT_DETACH).expect("a mount, dead or not");
    }

    /// Panics unless fsck finds nothing. To be called while it is not mounted; waits for a daemon that folds.
    #[track_caller]
    pub fn fsck(&self) {
        run("fsck-cairn", [OsStr::new("-n"), self.dir.as_os_str()]).ok();
    }

    /// Unmounts, and panics unless fsck finds nothing.
    #[track_caller]
    pub fn finish(self) {
        self.unmount();
        self.fsck();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(daemon) = Daemon::of(&self.dir) {
            daemon.send_kill();
        }
        for _ in 0..8 {
            match umount2(&self.at, MntFlags::MNT_DETACH) {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        if thread::panicking()
            && let Ok(log) = fs::read_to_string(self.dir.join("log"))
        {
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            eprintln!("the end of {}/log:\n{}", self.dir.display(), tail.join("\n"));
        }
    }
}

impl Default for Mounted {
    fn default() -> Mounted {
        Mounted::new()
    }
}

/// Kills the daemon of a test that hangs, or takes too much memory. Ends when the sender is dropped.
fn watch(dir: PathBuf) -> Sender<()> {
    let (keep, gone) = channel();
    thread::spawn(move || {
        let since = Instant::now();
        while gone.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            let why = match (since.elapsed(), memory()) {
                (long, _) if long > mount_limit() => format!("was mounted for {} s", long.as_secs()),
                (_, much) if much > MEMORY_LIMIT => format!("has tests that take {much} MiB of memory"),
                _ => continue,
            };
            eprintln!("{} {why}: its daemon is killed", dir.display());
            if let Some(daemon) = Daemon::of(&dir) {
                daemon.send_kill();
            }
            return;
        }
    });
    keep
}

/// How many MiB of memory this process has.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    resident.and_then(|kib| kib.parse::<u64>().ok()).expect("every process that runs has memory") >> 10
}

/// A small ext4 in a file, for disks that are full. Unmounted when it goes.
pub struct SmallDisk {
    root: TempDir,
}

impl SmallDisk {
    /// An empty one of so many MiB.
    #[track_caller]
    pub fn new(mib: u64) -> SmallDisk {
        let root = TempDir::new().expect("a temporary directory");
        let image = root.path().join("image");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("a sparse file");
        // -m 0: nothing is kept back for root, whom these tests run as.
        run(
            "mkfs.ext4",
            [OsStr::new("-q"), OsStr::new("-F"), OsStr::new("-m"), OsStr::new("0"), image.as_os_str()],
        )
        .ok();
        fs::create_dir(root.path().join("disk")).expect("a new name");
        let disk = SmallDisk { root };
        run("mount", [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), disk.path().as_os_str()]).ok();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.root.path().canonicalize().expect("there").join("disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a daemon that was just killed may not have let go yet.
        if let Err(error) = umount2(&self.path(), MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
    }
}
