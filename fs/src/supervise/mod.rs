//! The supervisor: a small process beside a mount's worker that keeps the connection to the kernel and the volume's lock, so
//! that both outlive the worker. A worker that dies, or makes way for another program, is followed by one that goes on
//! where it stopped; programs see that some calls take longer.
//!
//! It has no threads, touches no byte of the volume, and speaks to the worker by one socket ([`channel`]).

pub(crate) mod channel;
mod signals;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::{debug, error, warn};

use crate::args::MountArgs;
use crate::daemon::{self, Plan};
use crate::detach::{Report, Status};
use crate::failure::Failure;
use crate::graphics;
use crate::logging::Log;
use crate::notify;
use channel::{Channel, Charge, Mount, News};
use signals::Watch;

/// So many workers in a row that end before they answer anything are enough.
const STILLBORN_MAX: u32 = 3;
/// A worker that dies sooner after it began to answer may well die of what it is asked.
const SHORT_LIFE: Duration = Duration::from_millis(250);
/// So many such in a row are enough.
const SHORT_LIVES_MAX: u32 = 10;
/// The longest time between a worker's death and the next.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The program that this process is, whatever became of its file.
const OWN: &str = "/proc/self/exe";

/// What outlives a worker.
struct Kept {
    mount: Mount,
    device: OwnedFd,
    lock: OwnedFd,
}

/// A worker's life, when it is over.
struct Life {
    status: ExitStatus,
    /// When it began to answer.
    answering: Option<Instant>,
    /// It said that the mount is gone.
    stopping: bool,
    /// It made way for this program.
    replaced_by: Option<PathBuf>,
    /// It told the command that asked for the mount why there is none.
    excused: bool,
}

/// Deaths in a row.
#[derive(Default)]
struct Streak {
    stillborn: u32,
    short: u32,
}

impl Streak {
    /// One more death; how long to wait before the next worker, or `None` if that makes no sense.
    fn add(&mut self, answered_for: Option<Duration>) -> Option<Duration> {
        match answered_for {
            None => self.stillborn += 1,
            Some(time) if time < SHORT_LIFE => (self.stillborn, self.short) = (0, self.short + 1),
            Some(_) => *self = Streak::default(),
        }
        if self.stillborn >= STILLBORN_MAX || self.short >= SHORT_LIVES_MAX {
            return None;
        }
        let doublings = (self.stillborn + self.short).saturating_sub(2);
        Some(match self.stillborn + self.short {
            0..=2 => Duration::ZERO,
            _ => (Duration::from_millis(100) * 2_u32.pow(doublings)).min(LONGEST_DELAY),
        })
    }
}

/// A mount's supervisor.
struct Supervisor<'a> {
    arguments: Vec<OsString>,
    plan: &'a Plan,
    report: Report,
    log: &'a Log,
    watch: Watch,
    kept: Option<Kept>,
    program: PathBuf,
    /// The one that worked before `program`.
    fallback: Option<PathBuf>,
    restarts: u64,
    upgrades: u64,
    before: Option<String>,
    streak: Streak,
    /// Somebody asked for the end of the mount.
    ending: Option<Signal>,
    announced: bool,
}

/// Mounts by a worker, and sees to it that there is one until the mount ends.
pub(crate) fn run(args: &MountArgs, plan: &Plan, log: &Log, report: Report) -> Result<(), Failure> {
    let cannot = |e: io::Error| Failure::new(format!("the mount cannot be supervised: {e}"));
    let mut supervisor = Supervisor {
        arguments: arguments(args, plan),
        plan,
        report,
        log,
        watch: Watch::new().map_err(cannot)?,
        kept: None,
        program: OWN.into(),
        fallback: None,
        restarts: 0,
        upgrades: 0,
        before: None,
        streak: Streak::default(),
        ending: None,
        announced: false,
    };
    if let Err(e) = nix::sys::prctl::set_dumpable(false) {
        debug!("prctl(PR_SET_DUMPABLE): {e}");
    }
    loop {
        let life = supervisor.one_worker();
        if let Some(result) = supervisor.judge(life) {
            return result;
        }
    }
}

/// What a worker is started with.
fn arguments(args: &MountArgs, plan: &Plan) -> Vec<OsString> {
    let mut all: Vec<OsString> = ["mount", "--worker"].map(Into::into).into();
    all.extend(args.foreground.then(|| "-f".into()));
    all.extend(args.sloppy.then(|| "-s".into()));
    all.extend(args.options.iter().flat_map(|list| ["-o".into(), list.into()]));
    all.extend(["--".into(), plan.dir.clone().into(), plan.mountpoint.clone().into()]);
    all
}

impl Supervisor<'_> {
    /// Starts a worker and attends to it until it ends.
    fn one_worker(&mut self) -> io::Result<Life> {
        let (ours, theirs) = Channel::pair()?;
        let mut worker = Command::new(&self.program)
            .arg0("cairn")
            .args(&self.arguments)
            .envs(graphics::DRIVERS_KEEP_NOTHING)
            // What a terminal sends goes to the supervisor alone, which passes it on.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::from(theirs.into_descriptor()))
            .spawn()?;
        let charge = Charge {
            supervisor: std::process::id(),
            restarts: self.restarts,
            upgrades: self.upgrades,
            before: self.before.take(),
            mount: self.kept.as_ref().map(|kept| kept.mount.clone()),
        };
        let descriptors: Vec<_> =
            self.kept.iter().flat_map(|kept| [kept.device.as_fd(), kept.lock.as_fd()]).collect();
        // One that is dead already is attended to all the same.
        let _ = ours.send(&charge, &descriptors);
        self.attend(&mut worker, ours)
    }

    fn attend(&mut self, worker: &mut Child, channel: Channel) -> io::Result<Life> {
        let pid = Pid::from_raw(i32::try_from(worker.id()).unwrap_or(i32::MAX));
        let mut channel = Some(channel);
        let (mut answering, mut stopping, mut replaced_by, mut excused) = (None, false, None, false);
        loop {
            if let Some(signal) = self.watch.asked() {
                self.ending = Some(signal);
                // Ended already: as good.
                let _ = kill(pid, signal);
            }
            let ended = worker.try_wait()?;
            while let Some(news) = channel.as_ref().filter(|c| is_readable(c)).map(Channel::receive::<News>) {
                let (news, descriptors) = match news {
                    Ok(Some(news)) => news,
                    // Of another version, which may have more to say than this one knows.
                    Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                        debug!("the worker said something else: {e}");
                        continue;
                    }
                    Ok(None) | Err(_) => {
                        channel = None;
                        break;
                    }
                };
                match news {
                    News::Answering => answering = Some(Instant::now()),
                    News::Report(Status::Ready) => {
                        answering.get_or_insert_with(Instant::now);
                        self.is_ready(pid)?;
                    }
                    News::Report(status) => {
                        excused |= matches!(status, Status::Failed { .. });
                        self.pass_on(status);
                    }
                    News::Mounted(mount) => {
                        answering.get_or_insert_with(Instant::now);
                        self.keep(mount, descriptors);
                    }
                    News::Stopping(why) => {
                        stopping = true;
                        // The disk below is the worker's alone from here on, so that it is free as soon as that ends.
                        self.kept = None;
                        self.report.stopping(&why);
                    }
                    News::Replace(program) => replaced_by = Some(program),
                }
            }
            if let Some(status) = ended {
                return Ok(Life { status, answering, stopping, replaced_by, excused });
            }
            self.watch.wait(channel.as_ref().map(AsFd::as_fd))?;
        }
    }

    /// A worker is all that a mount wants.
    fn is_ready(&mut self, worker: Pid) -> io::Result<()> {
        self.fallback = None;
        if let Some(signal) = self.ending {
            let _ = kill(worker, signal);
        }
        if !self.announced {
            self.announced = true;
            if let Err(e) = self.report.ready(&self.plan.mountpoint) {
                warn!("the command that asked for the mount is gone ({e})");
                self.ending = Some(Signal::SIGTERM);
                let _ = kill(worker, Signal::SIGTERM);
            }
            daemon::forget_terminal(self.report, None);
        } else if self.report == Report::Terminal {
            let (at, restarts, upgrades) = (self.plan.mountpoint.display(), self.restarts, self.upgrades);
            notify::status(&format!("mounted at {at}; {restarts} workers died, {upgrades} were replaced"));
        }
        Ok(())
    }

    fn pass_on(&self, status: Status) {
        match status {
            Status::Waiting(why) if !self.announced => self.report.waiting(&why),
            Status::Failed { code, message } if !self.announced => {
                // In the foreground the worker says so itself.
                let _ = self.report.failed(&Failure { code, message });
            }
            Status::Waiting(_) | Status::Failed { .. } | Status::Ready => {}
        }
    }

    fn keep(&mut self, mount: Mount, descriptors: Vec<OwnedFd>) {
        let mut descriptors = descriptors.into_iter();
        self.kept = match (descriptors.next(), descriptors.next()) {
            (Some(device), Some(lock)) => Some(Kept { mount, device, lock }),
            _ => None,
        };
    }

    /// What follows from the end of a worker; `None`: the next one.
    fn judge(&mut self, life: io::Result<Life>) -> Option<Result<(), Failure>> {
        let life = match life {
            Ok(life) => life,
            // Another program cannot even be started.
            Err(e) if self.fallback.is_some() => {
                self.fall_back(&e.to_string());
                return None;
            }
            Err(e) if self.program.as_os_str() != OWN => {
                self.before =
                    Some(format!("was {}, which is not there any more ({e})", self.program.display()));
                self.program = OWN.into();
                return None;
            }
            Err(e) => return Some(self.give_up(&format!("a worker cannot be started: {e}"))),
        };
        let how = describe(life.status);
        let Some(kept) = &self.kept else { return Some(self.end_as(&life, &how)) };
        if is_dead(&kept.device) {
            // The connection was cut: what may be left of the mount answers nothing.
            daemon::take_away_lazily(self.plan, kept.mount.device);
            return Some(self.end_as(&life, &how));
        }
        if let Some(program) = life.replaced_by {
            self.upgrades += 1;
            self.before = Some(format!("made way for {}", program.display()));
            self.fallback = Some(std::mem::replace(&mut self.program, program));
            return None;
        }
        if self.fallback.is_some() {
            self.fall_back(&how);
            return None;
        }
        self.restarts += 1;
        self.before = Some(how.clone());
        match self.streak.add(life.answering.map(|at| at.elapsed())) {
            Some(delay) => {
                self.watch.sleep(delay);
                None
            }
            None => Some(self.give_up(&format!("the last worker {how}"))),
        }
    }

    /// The program that the worker made way for does not work: the one before does.
    fn fall_back(&mut self, why: &str) {
        if let Some(program) = self.fallback.take() {
            let failed = std::mem::replace(&mut self.program, program);
            self.upgrades -= 1;
            self.before =
                Some(format!("was {}, which {why}: the program before it goes on", failed.display()));
        }
    }

    /// The mount is gone, or never was: this process ends as its worker did.
    fn end_as(&self, life: &Life, how: &str) -> Result<(), Failure> {
        match life.status.code() {
            Some(0) => Ok(()),
            // It said why: on standard error, to the log, or to the command.
            Some(code) if life.excused || self.announced || self.report == Report::Terminal => {
                std::process::exit(code)
            }
            _ => {
                let dir = self.plan.dir.display();
                Err(Failure::new(match life.stopping {
                    true => format!(
                        "the daemon {how} before everything was folded into {dir}; what was written is in its journal, and the next mount goes on"
                    ),
                    false => format!("the daemon {how}: see {dir}/log"),
                }))
            }
        }
    }

    /// No worker can be had: those who wait for the mount get errors instead.
    fn give_up(&mut self, why: &str) -> Result<(), Failure> {
        let (dir, at) = (self.plan.dir.display(), self.plan.mountpoint.display());
        if self.report == Report::Command {
            // Without it there is nobody left to tell.
            let _ = self.log.attach(&self.plan.dir);
        }
        let message = format!(
            "{at} is unmounted, since no daemon can be kept running for it ({why}): look for the reason above, run `fsck.cairn -n {dir}`, and mount it again"
        );
        error!("{message}");
        if let Some(kept) = self.kept.take() {
            daemon::take_away_lazily(self.plan, kept.mount.device);
        }
        Err(Failure::new(message))
    }
}

fn is_readable(channel: &Channel) -> bool {
    polled(channel, PollFlags::POLLIN, PollFlags::POLLIN | PollFlags::POLLHUP)
}

/// Whether the kernel has ended the connection: there is nothing to be answered any more.
fn is_dead(device: &OwnedFd) -> bool {
    polled(device, PollFlags::empty(), PollFlags::POLLERR)
}

fn polled(at: &impl AsFd, asked: PollFlags, wanted: PollFlags) -> bool {
    let mut polled = [PollFd::new(at.as_fd(), asked)];
    loop {
        match poll(&mut polled, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            _ => return polled[0].revents().is_some_and(|events| events.intersects(wanted)),
        }
    }
}

/// How a process ended, as the end of a sentence.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, code) => format!("exited with code {}", code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_never_answer_are_given_up_soon() {
        let mut streak = Streak::default();
        assert_eq!(streak.add(None), Some(Duration::ZERO));
        assert_eq!(streak.add(None), Some(Duration::ZERO));
        assert_eq!(streak.add(None), None);
    }

    #[test]
    fn those_that_die_at_once_are_waited_for_longer_and_longer() {
        let mut streak = Streak::default();
        let delays: Vec<_> = (0..SHORT_LIVES_MAX).map(|_| streak.add(Some(Duration::ZERO))).collect();
        assert!(delays[..9].is_sorted() && delays[8] > Some(Duration::from_secs(4)), "{delays:?}");
        assert_eq!(delays[9], None);
    }

    #[test]
    fn a_long_life_makes_up_for_the_ones_before() {
        let mut streak = Streak::default();
        for _ in 0..50 {
            assert_eq!(streak.add(None), Some(Duration::ZERO));
            assert_eq!(streak.add(Some(SHORT_LIFE)), Some(Duration::ZERO));
        }
    }
}
