//! `cairn umount`.

use std::io::{IsTerminal, Write, stderr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::args::UmountArgs;
use crate::control::{Client, Info};
use crate::failure::Failure;
use crate::places;
use crate::report::UsageReport;
use crate::size;
use crate::unmount::{UnmountError, unmount};

/// A wait shorter than this needs no words.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the daemon's processes may take to end, once the volume is closed.
const LAST_MOMENT: Duration = Duration::from_secs(5);

/// Unmounts, and returns when everything is folded, the volume's lock is free, and its processes are gone.
pub(crate) fn run(args: &UmountArgs) -> Result<(), Failure> {
    let place = places::find_named(&args.path)?;
    // Before the unmount: the connection's end is how the daemon's end is noticed.
    let mut daemon = Client::connect(&place.dir)?;
    let processes = daemon.as_mut().map(Processes::of).unwrap_or_default();
    let backlog = daemon
        .as_mut()
        .and_then(|d| d.ask::<UsageReport>("usage", "usage").ok())
        .map_or(0, |u| u.journal_used);
    match (&place.mountpoint, &daemon) {
        (Some(mountpoint), _) => take_away(mountpoint)?,
        // Unmounted by somebody else; the daemon folds on.
        (None, Some(_)) => {}
        (None, None) => return Err(Failure::new(format!("{} is not mounted", args.path.display()))),
    }
    match daemon {
        Some(mut daemon) => {
            let closed = wait(&mut daemon, &place.dir, backlog);
            drop(daemon);
            processes.wait();
            closed
        }
        None => {
            eprintln!(
                "cairn: the daemon of {} was not running: the next mount goes on from its journal",
                place.dir.display()
            );
            Ok(())
        }
    }
}

fn take_away(mountpoint: &Path) -> Result<(), Failure> {
    let at = mountpoint.display();
    match unmount(mountpoint, false) {
        // Gone in the meantime: what was asked for.
        Ok(()) | Err(UnmountError::NotMounted) => Ok(()),
        Err(UnmountError::Busy) => Err(Failure::new(format!(
            "{at} is in use: close what is open there (`fuser -vm {at}` lists it) and leave the directory, then try again"
        ))),
        Err(UnmountError::Other(why)) => Err(Failure::new(format!("{at} could not be unmounted: {why}"))),
    }
}

/// Waits for the daemon's end, and on a terminal says so if that takes long.
fn wait(daemon: &mut Client, dir: &Path, backlog: u64) -> Result<(), Failure> {
    let (done, ended) = channel::<()>();
    let what = format!("folding {} of the journal of {}", size::human(backlog), dir.display());
    let progress = stderr().is_terminal().then(|| thread::spawn(move || show_progress(&what, &ended)));
    let result = daemon.wait_for_end();
    drop(done);
    if let Some(progress) = progress {
        // It only prints; there is nothing to do about a panic in it.
        let _ = progress.join();
    }
    result
}

/// The processes that have the volume's files open. They end a moment after the volume is closed, and who unmounts the disk below
/// next would find it in use.
#[derive(Default)]
struct Processes(Vec<OwnedFd>);

impl Processes {
    fn of(daemon: &mut Client) -> Processes {
        let Ok(info) = daemon.ask::<Info>("info", "info") else { return Processes::default() };
        // In another namespace, or behind one, its numbers would be those of other processes.
        if daemon.process() != Some(info.pid) {
            return Processes::default();
        }
        let pids = [Some(info.pid), info.supervisor].into_iter().flatten();
        let pids = pids.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Processes(pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect())
    }

    /// Returns when they have ended, which they are about to.
    fn wait(&self) {
        let until = Instant::now() + LAST_MOMENT;
        for process in &self.0 {
            let left = until.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            // One that takes longer is not waited for: everything is on the disk.
            let _ = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], left);
        }
    }
}

/// Keeps one line up to date until `ended` is closed.
fn show_progress(what: &str, ended: &Receiver<()>) {
    let start = Instant::now();
    let mut pause = PATIENCE;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(pause) {
        // A terminal that is gone need not be told.
        let _ = write!(stderr(), "\rcairn: {what}: {} s", start.elapsed().as_secs());
        pause = Duration::from_secs(1);
    }
    if start.elapsed() >= PATIENCE {
        let _ = writeln!(stderr());
    }
}
