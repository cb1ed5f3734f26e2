//! People's tools on a mount with default options, and the same with the daemon killed under them.
//!
//! A tool is a script here with three stages: `prepare` what is needed beside the mount, `work` on the mount, noting what
//! was acknowledged, and `verify` that everything acknowledged is there, finishing by the tool's own means what was
//! interrupted. `run.sh` runs them. Nothing in them works around the filesystem.
//!
//! `CAIRN_TOOL_KILLS` is the number of rounds with a kill; `CAIRN_TOOLS=full` has cargo build the whole project.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cairn_tests::dice::Dice;
use cairn_tests::mounted::{Mounted, command_limit, run};
use cairn_tests::processes::waits_of;
use nix::unistd::Pid;

use crate::kills::from_environment;

/// One tool at work in a directory of its own.
pub(crate) struct Work {
    tool: &'static str,
    at: PathBuf,
    beside: PathBuf,
}

impl Work {
    /// A tool, prepared, with directories named after `round`.
    #[track_caller]
    pub(crate) fn prepare(m: &Mounted, tool: &'static str, round: u64) -> Work {
        let (at, beside) = (m.path(format!("{tool}{round}")), m.beside(&format!("{tool}{round}")));
        for dir in [&at, &beside] {
            fs::create_dir(dir).expect("a new name");
        }
        File::create_new(beside.join("acks")).expect("a new name");
        let work = Work { tool, at, beside };
        work.stage("prepare");
        work
    }

    /// The words of a command for env(1) that runs a stage.
    fn words(&self, stage: &str) -> Vec<OsString> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mount/tools");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is a member of a workspace");
        let variable = |name: &str, value: &Path| [name.as_ref(), value.as_os_str()].join("=".as_ref());
        vec![
            variable("AT", &self.at),
            variable("BESIDE", &self.beside),
            variable("ACKS", &self.beside.join("acks")),
            variable("REPO", sources),
            "bash".into(),
            scripts.join("run.sh").into(),
            self.tool.into(),
            stage.into(),
        ]
    }

    #[track_caller]
    pub(crate) fn stage(&self, stage: &str) {
        let since = Instant::now();
        let said = run("env", self.words(stage)).ok();
        eprint!("{}, {stage}: {:.1} s\n{said}", self.tool, since.elapsed().as_secs_f64());
    }

    /// Begins to work; what it says goes to a file.
    pub(crate) fn start(&self) -> Child {
        let log = File::create(self.log()).expect("a new name");
        let mut command = Command::new("timeout");
        command.args(["-k", "5"]).arg(command_limit().to_string()).arg("env").args(self.words("work"));
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a descriptor")).stdout(log);
        command.spawn().expect("timeout(1) of coreutils")
    }

    /// How much was acknowledged so far.
    pub(crate) fn acks(&self) -> usize {
        fs::read_to_string(self.beside.join("acks")).map_or(0, |acks| acks.lines().count())
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.beside.join("log")
    }

    /// Makes room for the next.
    pub(crate) fn remove(self) {
        for dir in [&self.at, &self.beside] {
            run("rm", ["-rf".as_ref(), "--one-file-system".as_ref(), dir.as_os_str()]).ok();
        }
    }
}

/// The whole work; it is verified at once, and again when nothing comes from a cache.
fn works(tool: &'static str) {
    let m = Mounted::new();
    let work = Work::prepare(&m, tool, 0);
    work.stage("work");
    work.stage("verify");
    m.remount();
    work.stage("verify");
    m.finish();
}

/// How work ends whose mount was killed: it finds that out by itself. What of it does not, tells what it waits for before it is
/// ended for that.
fn finds_out(tool: &str, child: &mut Child) -> ExitStatus {
    let killed = Instant::now();
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if !told && killed.elapsed() > Duration::from_secs(command_limit() * 2 / 3) {
            told = true;
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process's number"));
            eprintln!("{tool} has not found out that its mount is dead:\n{}", waits_of(pid));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Work that a kill of the daemon ends, again and again: nothing acknowledged is lost, and it can be gone on with.
fn survives_kills(tool: &'static str, longest: Duration) {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let seed = from_environment("CAIRN_SEED", clock);
    eprintln!("CAIRN_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut m = Mounted::new();
    for round in 0..from_environment("CAIRN_TOOL_KILLS", 1) {
        let work = Work::prepare(&m, tool, round);
        let after = Duration::from_millis(1 + dice.below(longest.as_millis() as u64));
        let mut child = work.start();
        thread::sleep(after);
        let ended = child.try_wait().expect("a child");
        let log = || fs::read_to_string(work.log()).unwrap_or_default();
        assert!(ended.is_none_or(|status| status.success()), "{tool} failed before the kill: {}", log());
        m.kill();
        let status = finds_out(tool, &mut child);
        assert!(status.code() != Some(124), "{tool} hangs on a dead mount: {}", log());
        let acks = fs::read_to_string(work.beside.join("acks")).expect("written by work");
        eprintln!(
            "{tool}, round {round}: killed after {:.1} s{}; acknowledged: {} lines, the last {:?}",
            after.as_secs_f64(),
            if ended.is_some() { ", when it was done" } else { "" },
            acks.lines().count(),
            acks.lines().last().unwrap_or_default()
        );
        m.take_away();
        m.fsck();
        m.mount();
        work.stage("readable");
        work.stage("verify");
        if round % 2 == 1 {
            // Once more from the packs, and without the engine and the index.
            m.unmount();
            fs::remove_dir_all(m.dir().join("engine")).expect("an engine");
            fs::remove_file(m.dir().join("store/index")).expect("an index");
            m.mount();
            work.stage("verify");
        }
        work.remove();
        m.be_patient();
    }
    m.finish();
}

/// Both tests of each tool; kills come within so many milliseconds, which is about how long it works on two idle cores.
macro_rules! tools {
    ($($tool:ident $longest:expr;)*) => {$(
        mod $tool {
            use std::time::Duration;

            #[test]
            fn works_on_a_mount() {
                super::works(stringify!($tool));
            }

            #[test]
            fn loses_nothing_acknowledged_when_the_daemon_is_killed() {
                super::survives_kills(stringify!($tool), Duration::from_millis($longest));
            }
        }
    )*};
}

tools! {
    git 2_500;
    cargo 15_000;
    sqlite 1_800;
    tar 1_500;
    rsync 4_000;
    cp 2_500;
    dd 1_000;
    fio 3_500;
    npm 6_000;
    python 8_000;
    ext4 2_000;
    save 600;
}

/// The whole work, with the worker killed under it so often (a fifth of `CAIRN_TAKEOVERS`): it sees nothing of that.
fn goes_on(tool: &'static str) {
    let mut m = Mounted::new();
    let work = Work::prepare(&m, tool, 0);
    let mut child = work.start();
    let mut dice = Dice::new(from_environment("CAIRN_SEED", u64::from(std::process::id())));
    let most = from_environment("CAIRN_TAKEOVERS", 20).div_ceil(5);
    let (mut kills, mut last) = (0, None);
    let status = loop {
        if kills == most {
            break child.wait().expect("a child");
        }
        // Those that never answer, or not for long, are given up.
        rustix::fs::statvfs(m.at()).expect("answered");
        thread::sleep(Duration::from_millis(300 + dice.below(400)));
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        last = Some(m.kill_worker(last));
        kills += 1;
        m.be_patient();
    };
    let log = fs::read_to_string(work.log()).unwrap_or_default();
    assert!(status.success(), "{tool} failed after {kills} kills: {log}");
    eprintln!("{tool} went on through {kills} kills");
    work.stage("verify");
    m.remount();
    work.stage("verify");
    m.finish();
}

/// One test a tool.
macro_rules! goes_on {
    ($($name:ident $tool:literal;)*) => {$(
        #[test]
        fn $name() {
            goes_on($tool);
        }
    )*};
}

goes_on! {
    git_goes_on_when_workers_are_killed "git";
    sqlite_goes_on_when_workers_are_killed "sqlite";
    fio_goes_on_when_workers_are_killed "fio";
    mappings_locks_and_appends_go_on_when_workers_are_killed "programs";
}

#[test]
fn mappings_locks_and_appends_of_several_processes_work_on_a_mount() {
    works("programs");
}
