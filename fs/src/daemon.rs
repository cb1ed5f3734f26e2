//! The life of a mount: open, mount, answer, and when it is unmounted, fold what is left and close.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use cairn_volume::Volume;
use nix::sys::stat::{Mode, major, minor, umask};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{debug, error, info, warn};

use crate::checks;
use crate::control::{self, Connections, Info, Server};
use crate::detach::Report;
use crate::failure::Failure;
use crate::fuse;
use crate::logging::{self, Log};
use crate::metrics;
use crate::mountinfo::{self, Mount};
use crate::options::MountOptions;
use crate::unmount::{UnmountError, unmount};

/// How long open files may hold up a daemon that was told to end.
const GRACE: Duration = Duration::from_secs(10);
/// The kernel reads this far ahead of a sequential reader: some frames at once, which are decoded on several cores.
const READ_AHEAD_KIB: u32 = 1024;

/// What to mount, all of it checked.
pub(crate) struct Plan {
    /// The volume's directory, absolute.
    pub(crate) dir: PathBuf,
    /// Where, absolute.
    pub(crate) mountpoint: PathBuf,
    /// How.
    pub(crate) options: MountOptions,
}

/// What ends a mount.
enum Event {
    /// Somebody asked the daemon to end.
    Stop(&'static str),
    /// The kernel will send nothing more.
    Unmounted,
}

/// Mounts, answers until it is unmounted, and closes the volume.
pub(crate) fn run(plan: &Plan, log: &Log, report: Report) -> Result<(), Failure> {
    // What the daemon writes (packs, journal, log) is the owner's alone.
    umask(Mode::from_bits_truncate(0o077));
    let volume = open(plan, report)?;
    let log_file = match report {
        Report::ToCommand => {
            log.attach(&plan.dir).inspect_err(|e| warn!("{}/log: {e}", plan.dir.display())).ok()
        }
        Report::ToTerminal => None,
    };
    logging::log_panics();
    let connections = Arc::new(Connections::default());
    let (events, inbox) = channel();
    let metrics = plan.options.metrics.map(|at| metrics::serve(at, volume.clone())).transpose();
    let (server, served) = match metrics {
        Ok(metrics) => {
            let server = listen(plan, &volume, metrics, &connections, &events);
            (server, serve(plan, &volume, &events, &inbox, report, log_file))
        }
        Err(e) => (None, Err(e)),
    };
    info!("folding what is still in the journal");
    report.stopping("folding what is still in the journal");
    let closed = volume.close().map_err(|e| e.to_string());
    match &closed {
        Ok(()) => info!("the volume is closed"),
        Err(e) => error!("the volume could not be closed: {e}; the next mount goes on from its journal"),
    }
    if let Some(server) = server {
        server.remove();
    }
    connections.announce(closed.clone());
    served?;
    closed.map_err(|e| {
        Failure::new(format!(
            "not everything could be folded into {}: {e}; what was written is in its journal, and the next mount goes on",
            plan.dir.display()
        ))
    })
}

fn open(plan: &Plan, report: Report) -> Result<Arc<Volume>, Failure> {
    let mut options = plan.options.to_open();
    options.wait = true;
    options.on_wait = Some(Box::new(move |why| report.waiting(why)));
    options.mountpoint = Some(plan.mountpoint.clone());
    Ok(cairn_volume::open(&plan.dir, options)?)
}

/// Starts `control.sock`. Without it (a directory that cannot be written, say) the mount works all the same.
fn listen(
    plan: &Plan,
    volume: &Arc<Volume>,
    metrics: Option<SocketAddr>,
    connections: &Arc<Connections>,
    events: &Sender<Event>,
) -> Option<Server> {
    let info = Info {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        dir: plan.dir.clone(),
        mountpoint: plan.mountpoint.clone(),
        uuid: volume.uuid().to_string(),
        label: volume.label(),
        options: plan.options.given.clone(),
        since: control::now(),
        read_only: false,
        read_only_because: None,
        // What is only looked at is not to be changed, and the engine's files would be.
        engine: match plan.options.read_only {
            true => "memory".to_string(),
            false => plan.options.to_open().meta_engine.to_string(),
        },
        metrics,
    };
    let events = events.clone();
    // Nobody listens only when the daemon is ending already.
    let stop = Box::new(move || drop(events.send(Event::Stop("control.sock"))));
    Server::start(volume.clone(), info, connections.clone(), stop)
        .inspect_err(|e| {
            warn!(
                "{}/control.sock: {e}: cairn umount and cairn sync cannot reach this mount",
                plan.dir.display()
            )
        })
        .ok()
}

/// Mounts and answers until the mount is gone.
fn serve(
    plan: &Plan,
    volume: &Arc<Volume>,
    events: &Sender<Event>,
    inbox: &Receiver<Event>,
    report: Report,
    log_file: Option<File>,
) -> Result<(), Failure> {
    // The plan's directory was checked to be UTF-8.
    let source = plan.dir.to_string_lossy();
    let mounted = fuse::mount(volume.clone(), &plan.mountpoint, &source, &plan.options)
        .map_err(|e| checks::mount_refused(&plan.mountpoint, &e))?;
    let gone = events.clone();
    let watch = move || {
        mounted.wait();
        // Nobody listens only when the daemon is ending already.
        let _ = gone.send(Event::Unmounted);
    };
    thread::Builder::new()
        .name("unmounted".into())
        .spawn(watch)
        .map_err(|e| Failure::new(format!("cannot start a thread: {e}")))?;
    let device = match fs::metadata(&plan.mountpoint) {
        Ok(found) => (major(found.dev()), minor(found.dev())),
        Err(e) => {
            let _ = unmount(&plan.mountpoint, true);
            return Err(Failure::new(format!(
                "{} was mounted but does not answer: {e}",
                plan.mountpoint.display()
            )));
        }
    };
    watch_signals(events, report).unwrap_or_else(|e| warn!("signals will end the daemon at once: {e}"));
    harden();
    read_ahead(device);
    info!(dir = %plan.dir.display(), mountpoint = %plan.mountpoint.display(), "mounted");
    match report.ready(&plan.mountpoint) {
        Ok(()) => forget_terminal(report, log_file),
        Err(e) => {
            warn!("the command that asked for the mount is gone ({e})");
            let _ = events.send(Event::Stop("a command that was interrupted"));
        }
    }
    wait(plan, inbox, device);
    Ok(())
}

/// Returns when the mount is gone, or must wait no longer for those who use it.
fn wait(plan: &Plan, inbox: &Receiver<Event>, device: (u64, u64)) {
    let mut deadline: Option<Instant> = None;
    loop {
        let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        match inbox.recv_timeout(left) {
            Ok(Event::Unmounted) => {
                info!("unmounted");
                // If the connection was cut instead, a dead mount is there still.
                return take_away(plan, device);
            }
            Ok(Event::Stop(who)) if deadline.is_none() => {
                info!("{who} asks the daemon to end");
                take_away(plan, device);
                deadline = Some(Instant::now() + GRACE);
            }
            Ok(Event::Stop(_)) | Err(RecvTimeoutError::Timeout) => {
                return warn!("files are still open: whoever uses them gets errors from here on");
            }
            // This daemon holds a sender itself.
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Unmounts wherever this filesystem (and nothing on top of it) is mounted; lazily, if it is in use.
fn take_away(plan: &Plan, device: (u64, u64)) {
    let mounts = mountinfo::read().unwrap_or_default();
    // The device's number alone does not tell: once this filesystem is gone, another volume's may get it.
    let ours = |m: &Mount| m.device == device && m.is_cairn() && m.source == plan.dir;
    let on_top = |at: &PathBuf| mountinfo::at(&mounts, at).is_some_and(ours);
    let places = mounts.iter().rev().filter(|m| ours(m)).map(|m| &m.mountpoint);
    for mountpoint in places.filter(|at| on_top(at)) {
        let result = unmount(mountpoint, false).or_else(|error| match error {
            UnmountError::Busy => {
                let message = format!(
                    "{} is in use: it is taken out of the tree now, and open files have {} s to be closed",
                    mountpoint.display(),
                    GRACE.as_secs()
                );
                warn!("{message}");
                unmount(mountpoint, true)
            }
            other => Err(other),
        });
        if let Err(UnmountError::Busy | UnmountError::Other(_)) = result {
            error!(
                "{} could not be unmounted ({result:?}): do it with `umount -l {}`",
                mountpoint.display(),
                plan.mountpoint.display()
            );
        }
    }
}

/// Has the usual signals end the mount in order. A terminal that is closed ends only what runs in it.
fn watch_signals(events: &Sender<Event>, report: Report) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let events = events.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let who = match signal {
                SIGHUP if report == Report::ToCommand => continue,
                SIGHUP => "SIGHUP",
                SIGINT => "SIGINT",
                _ => "SIGTERM",
            };
            // Nobody listens only when the daemon is ending already.
            let _ = events.send(Event::Stop(who));
        }
    })?;
    Ok(())
}

/// Gives up what a daemon that handles other people's bytes does not need: core dumps and debuggers, which would see
/// them, and new privileges. Without root those are what `fusermount3` unmounts with, so they are kept.
fn harden() {
    if let Err(e) = nix::sys::prctl::set_dumpable(false) {
        debug!("prctl(PR_SET_DUMPABLE): {e}");
    }
    if nix::unistd::geteuid().is_root()
        && let Err(e) = nix::sys::prctl::set_no_new_privs()
    {
        debug!("prctl(PR_SET_NO_NEW_PRIVS): {e}");
    }
}

/// Only root may; without it the kernel's 128 KiB stay.
fn read_ahead((major, minor): (u64, u64)) {
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(e) = fs::write(&path, READ_AHEAD_KIB.to_string()) {
        debug!("{path}: {e}");
    }
}

/// Lets go of the terminal: standard output to nowhere, standard error (a panic's last words) to the log.
fn forget_terminal(report: Report, log_file: Option<File>) {
    if report == Report::ToTerminal {
        return;
    }
    let redirect = || -> io::Result<()> {
        let nowhere = File::options().read(true).write(true).open("/dev/null")?;
        nix::unistd::dup2_stdout(&nowhere)?;
        nix::unistd::dup2_stderr(log_file.as_ref().unwrap_or(&nowhere))?;
        Ok(())
    };
    redirect().unwrap_or_else(|e| warn!("the terminal is still held: {e}"));
}
