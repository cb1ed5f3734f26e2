//! `cairn umount`.

use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::UmountArgs;
use crate::control::Client;
use crate::failure::Failure;
use crate::places;
use crate::report::UsageReport;
use crate::size;
use crate::unmount::{UnmountError, unmount};

/// A wait shorter than this needs no words.
const PATIENCE: Duration = Duration::from_secs(2);

/// Unmounts, and returns when everything is folded and the volume's lock is free.
pub(crate) fn run(args: &UmountArgs) -> Result<(), Failure> {
    let place = places::find_named(&args.path)?;
    // Before the unmount: the connection's end is how the daemon's end is noticed.
    let mut daemon = Client::connect(&place.dir)?;
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
        Some(mut daemon) => wait(&mut daemon, &place.dir, backlog),
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
