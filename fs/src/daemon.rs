//! The life of a mount: open, mount, answer, and when it is unmounted, fold what is left and close.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use cairn_volume::{Takeover, Volume};
use nix::sys::stat::{Mode, umask};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{debug, error, info, warn};

use crate::checks;
use crate::control::{self, Connections, Info, Server};
use crate::detach::Report;
use crate::failure::Failure;
use crate::fuse::{self, Begin, Connection, Seat};
use crate::logging::{self, Log};
use crate::metrics;
use crate::mountinfo::{self, Mount};
use crate::options::MountOptions;
use crate::supervise::channel::{Channel, Charge, Mount as Kept, News};
use crate::unmount::{UnmountError, unmount};

/// How long open files may hold up a daemon that was told to end.
const GRACE: Duration = Duration::from_secs(10);
/// Requests to end that come so soon one after another are one.
const ONCE: Duration = Duration::from_secs(1);
/// What a daemon does when its mount is gone.
const FOLDING: &str = "folding what is still in the journal";
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

/// What this process is to a mount that may outlive it.
pub(crate) struct Post {
    /// What the supervisor said.
    pub(crate) charge: Charge,
    /// The mount to go on with: its connection, and the volume's lock.
    pub(crate) mount: Option<(OwnedFd, OwnedFd)>,
}

/// What ends a mount, or this process's part in it.
enum Event {
    /// Somebody asked the daemon to end.
    Stop(&'static str),
    /// The kernel will send nothing more.
    Unmounted,
    /// Another program is to go on.
    Replace(PathBuf),
}

/// How [`wait`] ended.
enum End {
    Unmounted,
    Replaced(PathBuf),
}

/// Mounts, or goes on with a mount, answers until it is unmounted, and closes the volume.
pub(crate) fn run(plan: &Plan, log: &Log, report: Report, mut post: Option<Post>) -> Result<(), Failure> {
    // What the daemon writes (packs, journal, log) is the owner's alone.
    umask(Mode::from_bits_truncate(0o077));
    let seat = Seat::take().map_err(|e| Failure::new(format!("no place for the kernel's requests: {e}")))?;
    let going_on = post.as_mut().and_then(|post| post.mount.take().zip(post.charge.mount.clone()));
    let (takeover, going_on) = match going_on {
        Some(((device, lock), kept)) => {
            let takeover = Takeover { first_epoch: kept.first_epoch, lock: Some(lock) };
            (Some(takeover), Some((Connection { device, offer: kept.offer }, kept)))
        }
        None => (None, None),
    };
    let volume = open(plan, report, takeover)?;
    let log_file = match report.is_detached() {
        true => log.attach(&plan.dir).inspect_err(|e| warn!("{}/log: {e}", plan.dir.display())).ok(),
        false => None,
    };
    logging::log_panics();
    let connections = Arc::new(Connections::default());
    let (events, inbox) = channel();
    let charge = post.map(|post| post.charge);
    if let Some(before) = charge.as_ref().and_then(|charge| charge.before.as_deref()) {
        warn!("the worker before this one {before}; this one, process {}, goes on", std::process::id());
    }
    let metrics = plan.options.metrics.map(|at| metrics::serve(at, volume.clone())).transpose();
    let metrics = match metrics {
        // A mount that people use does not end for want of figures.
        Err(e) if going_on.is_some() => {
            warn!("{e}");
            Ok(None)
        }
        metrics => metrics,
    };
    let (server, served) = match metrics {
        Ok(metrics) => {
            let server = listen(plan, &volume, metrics, &connections, &events, charge.as_ref());
            let serving = Serving { plan, volume: &volume, events: &events, report };
            (server, serving.serve(&inbox, seat, going_on, log_file))
        }
        Err(e) => (None, Err(e)),
    };
    let served = match served {
        Ok(End::Replaced(program)) => return make_way(&volume, program),
        Ok(End::Unmounted) => Ok(()),
        Err(e) => Err(e),
    };
    info!("{FOLDING}");
    report.stopping(FOLDING);
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

/// Leaves the mount to the next worker, and the volume as that can open it soonest.
fn make_way(volume: &Volume, program: PathBuf) -> Result<(), Failure> {
    info!("making way for {}", program.display());
    // Before anything that could fail: from here on the end of this process is no accident.
    let told = Channel::ours().map(|channel| channel.send(&News::Replace(program), &[]));
    if let Some(Err(e)) = told {
        warn!("the supervisor is gone ({e})");
    }
    volume.expect_successor();
    match fuse::make_way() {
        Ok(()) => match volume.close_for_now() {
            Ok(()) => info!("the volume is closed for the next worker"),
            Err(e) => warn!("the volume could not be closed: {e}; the next worker goes on from its journal"),
        },
        // Like this process's death, after which the journal has everything.
        Err(e) => warn!("requests take too long to be waited for ({e}); the next worker does them again"),
    }
    // Threads that still wait for the kernel are not waited for.
    std::process::exit(0)
}

fn open(plan: &Plan, report: Report, takeover: Option<Takeover>) -> Result<Arc<Volume>, Failure> {
    let mut options = plan.options.to_open();
    options.takeover = takeover;
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
    charge: Option<&Charge>,
) -> Option<Server> {
    let info = Info {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        dir: plan.dir.clone(),
        mountpoint: plan.mountpoint.clone(),
        uuid: volume.uuid().to_string(),
        label: volume.label(),
        options: plan.options.given.clone(),
        since: charge.and_then(|charge| charge.mount.as_ref()).map_or_else(control::now, |mount| mount.since),
        read_only: false,
        read_only_because: None,
        // What is only looked at is not to be changed, and the engine's files would be.
        heal: crate::report::heal_name(plan.options.heal.unwrap_or_default()).to_string(),
        engine: match plan.options.read_only {
            true => "memory".to_string(),
            false => plan.options.to_open().meta_engine.to_string(),
        },
        metrics,
        supervisor: charge.map(|charge| charge.supervisor),
        restarts: charge.map_or(0, |charge| charge.restarts),
        upgrades: charge.map_or(0, |charge| charge.upgrades),
    };
    let (stopping, replacing) = (events.clone(), events.clone());
    // Nobody listens only when the daemon is ending already.
    let stop = Box::new(move || drop(stopping.send(Event::Stop("control.sock"))));
    let replace = Box::new(move |program| drop(replacing.send(Event::Replace(program))));
    Server::start(volume.clone(), info, connections.clone(), stop, replace)
        .inspect_err(|e| {
            warn!(
                "{}/control.sock: {e}: cairn umount and cairn sync cannot reach this mount",
                plan.dir.display()
            )
        })
        .ok()
}

/// What answering takes.
struct Serving<'a> {
    plan: &'a Plan,
    volume: &'a Arc<Volume>,
    events: &'a Sender<Event>,
    report: Report,
}

impl Serving<'_> {
    /// Mounts, or goes on with a mount, and answers until it is gone or somebody else's to answer.
    fn serve(
        &self,
        inbox: &Receiver<Event>,
        seat: Seat,
        going_on: Option<(Connection, Kept)>,
        log_file: Option<File>,
    ) -> Result<End, Failure> {
        let (plan, report) = (self.plan, self.report);
        // Before anybody can see the mount, and end it.
        watch_signals(self.events, report)
            .unwrap_or_else(|e| warn!("signals will end the daemon at once: {e}"));
        let device = match going_on {
            Some((connection, kept)) => {
                // Not only once it is ready: a worker that answered has begun, however soon it was killed.
                if let Some(supervisor) = Channel::ours() {
                    let _ = supervisor.send(&News::Answering, &[]);
                }
                self.answer(&connection, seat, Begin::TakingOver)?;
                kept.device
            }
            None => self.mount(seat)?,
        };
        watch_supervisor();
        if plan.options.die_unanswered {
            die_unanswered(self.volume);
        }
        harden();
        read_ahead(device);
        info!(dir = %plan.dir.display(), mountpoint = %plan.mountpoint.display(), "mounted");
        match report.ready(&plan.mountpoint) {
            Ok(()) => forget_terminal(report, log_file),
            Err(e) if Channel::ours().is_some() => warn!("the supervisor is gone ({e})"),
            Err(e) => {
                warn!("the command that asked for the mount is gone ({e})");
                let _ = self.events.send(Event::Stop("a command that was interrupted"));
            }
        }
        let end = wait(plan, inbox, device);
        if let (End::Unmounted, Some(supervisor)) = (&end, Channel::ours()) {
            // Gone: then it need not know.
            let _ = supervisor.send(&News::Stopping(FOLDING.to_string()), &[]);
        }
        Ok(end)
    }

    /// Mounts and answers; gives the filesystem's device number.
    fn mount(&self, seat: Seat) -> Result<(u64, u64), Failure> {
        let plan = self.plan;
        // The plan's directory was checked to be UTF-8.
        let connection = fuse::mount(&plan.mountpoint, &plan.dir.to_string_lossy(), &plan.options)
            .map_err(|e| checks::mount_refused(&plan.mountpoint, &e))?;
        self.answer(&connection, seat, Begin::Anew).inspect_err(|_| drop(unmount(&plan.mountpoint, true)))?;
        let device = device_of(plan).map_err(|e| {
            let _ = unmount(&plan.mountpoint, true);
            Failure::new(format!("{} was mounted, and is not there: {e}", plan.mountpoint.display()))
        })?;
        if let Some(supervisor) = Channel::ours() {
            self.entrust(supervisor, &connection, device);
        }
        Ok(device)
    }

    /// Gives the supervisor what keeps the mount and the volume when this process dies.
    fn entrust(&self, supervisor: &Channel, connection: &Connection, device: (u64, u64)) {
        if !connection.offer.can_resend() {
            return warn!(
                "this kernel cannot ask again what a dead process was asked (Linux 6.9 and later can):                  if this process dies, the mount dies with it"
            );
        }
        let mount =
            Kept { offer: connection.offer, first_epoch: self.volume.epoch(), device, since: control::now() };
        let entrusted = self.volume.copy_lock().and_then(|lock| {
            let lock = lock.ok_or_else(|| io::Error::other("the volume has no lock"))?;
            supervisor.send(&News::Mounted(mount), &[connection.device.as_fd(), lock.as_fd()])
        });
        if let Err(e) = entrusted {
            warn!("if this process dies, the mount dies with it: {e}");
        }
    }

    fn answer(&self, connection: &Connection, seat: Seat, begin: Begin) -> Result<(), Failure> {
        let plan = self.plan;
        let source = plan.dir.to_string_lossy();
        let place = (plan.mountpoint.as_path(), &*source);
        let mounted = fuse::answer(self.volume.clone(), connection, seat, place, &plan.options, begin)
            .map_err(|e| Failure::new(format!("{} cannot be answered: {e}", plan.mountpoint.display())))?;
        let gone = self.events.clone();
        let watch = move || {
            mounted.wait();
            // Nobody listens only when the daemon is ending already.
            let _ = gone.send(Event::Unmounted);
        };
        thread::Builder::new()
            .name("unmounted".into())
            .spawn(watch)
            .map(drop)
            .map_err(|e| Failure::new(format!("cannot start a thread: {e}")))
    }
}

/// Returns when the mount is gone, or must wait no longer for those who use it, or another program is to go on.
fn wait(plan: &Plan, inbox: &Receiver<Event>, device: (u64, u64)) -> End {
    let mut stopping: Option<Instant> = None;
    loop {
        let left = stopping.map_or(Duration::MAX, |since| GRACE.saturating_sub(since.elapsed()));
        match inbox.recv_timeout(left) {
            Ok(Event::Unmounted) => {
                info!("unmounted");
                // If the connection was cut instead, a dead mount is there still.
                take_away(plan, device);
                return End::Unmounted;
            }
            Ok(Event::Replace(program)) if stopping.is_none() => return End::Replaced(program),
            // There is nothing to go on with.
            Ok(Event::Replace(_)) => {}
            Ok(Event::Stop(who)) if stopping.is_none() => {
                info!("{who} asks the daemon to end");
                take_away(plan, device);
                stopping = Some(Instant::now());
            }
            // To all of a group, and passed on by the supervisor as well: asked once.
            Ok(Event::Stop(_)) if stopping.is_some_and(|since| since.elapsed() < ONCE) => {}
            Ok(Event::Stop(_)) | Err(RecvTimeoutError::Timeout) => {
                warn!("files are still open: whoever uses them gets errors from here on");
                return End::Unmounted;
            }
            // This daemon holds a sender itself.
            Err(RecvTimeoutError::Disconnected) => return End::Unmounted,
        }
    }
}

/// Takes a mount out of the tree that nobody will answer any more.
pub(crate) fn take_away_lazily(plan: &Plan, device: (u64, u64)) {
    for mountpoint in places(plan, device) {
        if let Err(UnmountError::Busy | UnmountError::Other(_)) = unmount(&mountpoint, true) {
            error!("{0} could not be unmounted: do it with `umount -l {0}`", mountpoint.display());
        }
    }
}

/// The device number of what was just mounted. Nobody asks the filesystem itself: killed before it was answered, this process would wait for
/// itself, and not even a kill ends what waits in the kernel for an answer.
fn device_of(plan: &Plan) -> io::Result<(u64, u64)> {
    let mounts = mountinfo::read()?;
    let ours = |m: &&Mount| m.is_cairn() && m.source == plan.dir && m.mountpoint == plan.mountpoint;
    let found = mounts.iter().rev().find(ours);
    found.map(|m| m.device).ok_or_else(|| io::Error::other("the table of mounts does not list it"))
}

/// Wherever this filesystem (and nothing on top of it) is mounted, the latest first.
fn places(plan: &Plan, device: (u64, u64)) -> Vec<PathBuf> {
    let mounts = mountinfo::read().unwrap_or_default();
    // The device's number alone does not tell: once this filesystem is gone, another volume's may get it.
    let ours = |m: &Mount| m.device == device && m.is_cairn() && m.source == plan.dir;
    let on_top = |at: &PathBuf| mountinfo::at(&mounts, at).is_some_and(ours);
    let places = mounts.iter().rev().filter(|m| ours(m)).map(|m| &m.mountpoint);
    places.filter(|at| on_top(at)).cloned().collect()
}

/// Unmounts wherever this filesystem (and nothing on top of it) is mounted; lazily, if it is in use.
fn take_away(plan: &Plan, device: (u64, u64)) {
    for mountpoint in places(plan, device) {
        let result = unmount(&mountpoint, false).or_else(|error| match error {
            UnmountError::Busy => {
                let message = format!(
                    "{} is in use: it is taken out of the tree now, and open files have {} s to be closed",
                    mountpoint.display(),
                    GRACE.as_secs()
                );
                warn!("{message}");
                unmount(&mountpoint, true)
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
                SIGHUP if report.is_detached() => continue,
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

/// Has this process die as by the out-of-memory killer, where that is hardest to make good.
fn die_unanswered(volume: &Volume) {
    let since = Instant::now();
    volume.on_concluded(move || {
        if since.elapsed() > Duration::from_millis(500) {
            // It does not return.
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        }
    });
}

/// Says so when the supervisor is gone: this worker goes on, but nobody follows it.
fn watch_supervisor() {
    let Some(supervisor) = Channel::ours() else { return };
    let watch = || {
        // It has nothing more to say.
        let _ = supervisor.receive::<serde_json::Value>();
        warn!("the supervisor is gone: this process goes on, but if it dies, the mount dies with it");
    };
    if let Err(e) = thread::Builder::new().name("supervisor".into()).spawn(watch) {
        debug!("cannot start a thread: {e}");
    }
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
pub(crate) fn forget_terminal(report: Report, log_file: Option<File>) {
    if !report.is_detached() {
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
