//! Between the command that a person typed and the daemon it leaves behind.
//!
//! The daemon is this program started anew, not a fork: a process that has threads must not fork and go on. Its standard
//! output is a pipe to the command, which ends when a line says how the mount went.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::args::MountArgs;
use crate::failure::Failure;
use crate::graphics;
use crate::notify;
use crate::supervise::channel::{Channel, News};
use crate::supervise::describe;

/// What the daemon tells the command that started it, a line each; a worker tells its supervisor the same.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Status {
    /// It goes on, but this may take a while.
    Waiting(String),
    /// The mount answers.
    Ready,
    /// There will be no mount.
    Failed { code: i32, message: String },
}

/// Whom the process that mounts tells how it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The command that started this daemon, at the other end of standard output.
    Command,
    /// The person at the terminal, or systemd.
    Terminal,
    /// The supervisor that started this worker, and passes it on.
    Supervisor {
        /// To a command: there is no terminal to log to.
        detached: bool,
    },
}

impl Report {
    /// Whether this process has no terminal.
    pub(crate) fn is_detached(self) -> bool {
        match self {
            Report::Command => true,
            Report::Terminal => false,
            Report::Supervisor { detached } => detached,
        }
    }

    /// Something takes long.
    pub(crate) fn waiting(self, why: &str) {
        match self {
            // A command that was interrupted is noticed by `ready`.
            Report::Command => drop(send(&Status::Waiting(why.to_string()))),
            // Where the log goes, too.
            Report::Terminal => {
                tracing::warn!("{why}");
                notify::status(why);
            }
            Report::Supervisor { detached } => {
                if !detached {
                    tracing::warn!("{why}");
                }
                let _ = tell_supervisor(Status::Waiting(why.to_string()));
            }
        }
    }

    /// The mount answers. An error means that nobody is left who wants it.
    pub(crate) fn ready(self, mountpoint: &Path) -> io::Result<()> {
        match self {
            Report::Command => send(&Status::Ready)?,
            Report::Terminal => notify::ready(&format!("mounted at {}", mountpoint.display())),
            Report::Supervisor { .. } => tell_supervisor(Status::Ready)?,
        }
        Ok(())
    }

    /// The mount is gone, and the daemon has `why` to go on for a while.
    pub(crate) fn stopping(self, why: &str) {
        if self == Report::Terminal {
            notify::stopping(why);
        }
    }

    /// There is no mount. `false` if nobody was told.
    pub(crate) fn failed(self, failure: &Failure) -> bool {
        let status = Status::Failed { code: failure.code, message: failure.message.clone() };
        match self {
            Report::Command => send(&status).is_ok(),
            Report::Supervisor { detached: true } => tell_supervisor(status).is_ok(),
            Report::Supervisor { detached: false } | Report::Terminal => false,
        }
    }
}

fn tell_supervisor(status: Status) -> io::Result<()> {
    match Channel::ours() {
        Some(supervisor) => supervisor.send(&News::Report(status), &[]),
        None => Err(io::ErrorKind::NotConnected.into()),
    }
}

fn send(status: &Status) -> io::Result<()> {
    let mut line = serde_json::to_string(status)?;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// Starts the daemon and returns when the mount answers, or with the daemon's reason why it does not.
pub(crate) fn start(args: &MountArgs, dir: &Path, mountpoint: &Path) -> Result<(), Failure> {
    let mut command = Command::new(this_program());
    command.arg0("cairn").args(["mount", "--report-on-stdout"]).envs(graphics::DRIVERS_KEEP_NOTHING);
    for list in &args.options {
        command.args(["-o", list]);
    }
    if args.sloppy {
        command.arg("-s");
    }
    command.arg("--").arg(dir).arg(mountpoint).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut daemon = command.spawn().map_err(|e| Failure::new(format!("cannot start the daemon: {e}")))?;
    follow(&mut daemon, dir)
}

/// Still there under another name if the program was replaced while it runs.
pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}

fn follow(daemon: &mut Child, dir: &Path) -> Result<(), Failure> {
    if let Some(out) = daemon.stdout.take() {
        for line in BufReader::new(out).lines() {
            let status = line.and_then(|line| serde_json::from_str(&line).map_err(io::Error::from));
            match status.map_err(|e| Failure::new(format!("the daemon's report is not readable: {e}")))? {
                Status::Waiting(why) => eprintln!("cairn: {why}"),
                Status::Ready => return Ok(()),
                Status::Failed { code, message } => return Err(Failure { code, message }),
            }
        }
    }
    let how = match daemon.wait() {
        Ok(status) => describe(status),
        Err(e) => e.to_string(),
    };
    Err(Failure::new(format!("the daemon {how} before the mount answered: see {}/log", dir.display())))
}
