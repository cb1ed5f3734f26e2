//! What a process without threads waits for: its child's end, a request to end, a message.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use signal_hook::{flag, low_level::pipe};

/// Whatever happens is looked for as often, should a signal be missed.
const LOOK: u16 = 1000;
/// Those that ask for the end of the mount.
const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Signals that came, and a pipe that is readable once one did.
pub(super) struct Watch {
    awake: UnixStream,
    came: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Watch {
    pub(super) fn new() -> io::Result<Watch> {
        let (awake, wake) = UnixStream::pair()?;
        awake.set_nonblocking(true)?;
        let mut came = Vec::new();
        for signal in ENDING {
            let flag = Arc::new(AtomicBool::new(false));
            flag::register(signal as i32, flag.clone())?;
            came.push((signal, flag));
        }
        for signal in ENDING.into_iter().chain([Signal::SIGCHLD]) {
            pipe::register(signal as i32, wake.try_clone()?)?;
        }
        Ok(Watch { awake, came })
    }

    /// A signal that asks for the end and was not given before.
    pub(super) fn asked(&self) -> Option<Signal> {
        let came = self.came.iter().find(|(_, flag)| flag.swap(false, Ordering::Relaxed));
        came.map(|(signal, _)| *signal)
    }

    /// Returns when a signal came, or `other` is readable, or after a while.
    pub(super) fn wait(&self, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.wait_for(other, PollTimeout::from(LOOK))
    }

    fn wait_for(&self, other: Option<BorrowedFd<'_>>, timeout: PollTimeout) -> io::Result<()> {
        let all = [Some(self.awake.as_fd()), other];
        let mut polled: Vec<_> =
            all.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut bytes = [0; 64];
        // Empty, or as good as: what came is in the flags.
        while matches!((&self.awake).read(&mut bytes), Ok(n) if n == bytes.len()) {}
        Ok(())
    }

    /// Waits for `time`, or until the end is asked for.
    pub(super) fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        let asked = || self.came.iter().any(|(_, flag)| flag.load(Ordering::Relaxed));
        while Instant::now() < until && !asked() {
            let _ = self.wait_for(None, PollTimeout::from(20_u8));
        }
    }
}
