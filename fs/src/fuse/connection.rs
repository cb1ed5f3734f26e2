//! The connection to the kernel that a mount is, and how a session is begun on one.
//!
//! The process that mounts agrees with the kernel on everything (INIT) and keeps a record of that ([`Offer`]). From then on
//! each process that answers, also this first one, begins a session on the same descriptor: `fuser` wants an INIT, so it is
//! given the kernel's of that time, through a socket that lies where the connection is put a moment later.
//!
//! In between each reader is sent as much as the kernel may send, so that its buffer has its pages: the kernel copies into
//! pages that are there whatever happens to the process, but a process that is killed gets no more pages, and the caller of
//! the request that was being copied gets an I/O error.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use fuser::{BackgroundSession, Config, Filesystem, InitFlags, KernelConfig, Request, Session};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use super::adapter;

/// `FUSE_INIT` of the protocol.
const INIT: u32 = 26;
/// The request's head, and what the kernel says of itself.
const INIT_LEN: usize = 40 + 64;

/// `FUSE_WRITE`.
const WRITE: u32 = 16;
/// The request's head, and what a `write` says before its data.
const WRITE_HEAD: usize = 40 + 40;
/// Data of the longest request.
const FILLER: u32 = adapter::MAX_WRITE;
/// What a filler writes to. No inode has this number.
pub(super) const NO_INODE: u64 = u64::MAX;

/// What the kernel offered when the mount was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    major: u32,
    minor: u32,
    max_readahead: u32,
    features: u64,
}

impl Offer {
    /// Whether the kernel sends requests again whose reader died (since 6.9).
    pub(crate) fn can_resend(&self) -> bool {
        self.features & InitFlags::FUSE_HAS_RESEND.bits() != 0
    }

    /// The INIT request that offers the same.
    fn request(&self) -> [u8; INIT_LEN] {
        let features = self.features | InitFlags::FUSE_INIT_EXT.bits();
        let words = [
            INIT_LEN as u32,
            INIT,
            // A number that fits both halves; node, user, group and process are nobody's.
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            self.major,
            self.minor,
            self.max_readahead,
            features as u32,
            (features >> 32) as u32,
        ];
        let mut bytes = [0; INIT_LEN];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&u32::to_ne_bytes(word));
        }
        bytes
    }
}

/// A mount's connection.
pub(crate) struct Connection {
    /// `/dev/fuse`, connected.
    pub(crate) device: OwnedFd,
    /// What was agreed on.
    pub(crate) offer: Offer,
}

impl Connection {
    /// Mounts, and agrees with the kernel on everything. Nothing is answered yet.
    pub(super) fn new(mountpoint: &Path, config: &Config) -> io::Result<Connection> {
        let offer = Arc::default();
        // Dropped it would unmount whatever is at the mountpoint by that time.
        let session = ManuallyDrop::new(Session::new(Greeter(Arc::clone(&offer)), mountpoint, config)?);
        let device = session.as_fd().try_clone_to_owned()?;
        let offer = offer.lock().unwrap_or_else(PoisonError::into_inner).take();
        offer
            .map(|offer| Connection { device, offer })
            .ok_or_else(|| io::Error::other("the kernel said nothing of itself"))
    }

    /// A session of `filesystem` on it, whose `readers` meet at `gate`. `before` is called when they are there and have
    /// read nothing of the kernel's yet.
    pub(super) fn begin<F: Filesystem>(
        &self,
        filesystem: F,
        seat: Seat,
        (config, readers): (Config, usize),
        gate: &Gate,
        before: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<BackgroundSession> {
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Only root may have so much; others get what they may.
        let _ = set_socket_send_buffer_size_force(&far, 4 * FILLER as usize)
            .or_else(|_| set_socket_send_buffer_size(&far, 4 * FILLER as usize));
        rustix::io::write(&far, &self.offer.request())?;
        nix::unistd::dup2_stdin(&near)?;
        let session = Session::from_fd(filesystem, seat.0, config.acl, config)?.spawn()?;
        for _ in 0..readers {
            send_filler(&far)?;
        }
        gate.wait_for(readers)?;
        before()?;
        nix::unistd::dup2_stdin(&self.device)?;
        gate.open();
        Ok(session)
    }
}

/// Sends a reader what fills its buffer, as far as the system lets.
fn send_filler(far: &OwnedFd) -> io::Result<()> {
    let mut len = FILLER;
    loop {
        match rustix::io::write(far, &filler(len)) {
            Ok(_) => return Ok(()),
            Err(Errno::MSGSIZE | Errno::NOBUFS | Errno::NOMEM) if len > 4096 => len /= 2,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A `write` of so many zeros to what is no inode.
fn filler(len: u32) -> Vec<u8> {
    let total = WRITE_HEAD as u32 + len;
    let mut bytes = vec![0; total as usize];
    for (at, word) in [(0, total), (4, WRITE), (8, 1), (16, u32::MAX), (20, u32::MAX), (56, len)] {
        bytes[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
    }
    bytes
}

/// Where readers wait for each other before they read what the kernel has to say.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    /// How long all of them may take to come.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A reader is there; returns when the gate is open.
    pub(super) fn pass(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        self.changed.notify_all();
        while !state.1 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_for(&self, readers: usize) -> io::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, Self::PATIENCE, |state| state.0 < readers);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.0 {
            there if there >= readers => Ok(()),
            there => Err(io::Error::other(format!("only {there} of {readers} readers began to read"))),
        }
    }

    fn open(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }
}

/// Agrees with the kernel, and notes on what.
struct Greeter(Arc<Mutex<Option<Offer>>>);

impl Filesystem for Greeter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        adapter::agree(config);
        let readahead = config.set_max_readahead(u32::MAX).err().unwrap_or(u32::MAX);
        let abi = config.kernel_abi();
        let offer = Offer {
            major: abi.0,
            minor: abi.1,
            max_readahead: readahead,
            features: config.capabilities().bits(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(offer);
        Ok(())
    }
}

/// The descriptor that a session reads from: standard input's, the one whose place can be taken while somebody else owns
/// it.
pub(crate) struct Seat(OwnedFd);

impl Seat {
    /// To be called before there is a second thread, which might get the number instead.
    pub(crate) fn take() -> io::Result<Seat> {
        // Closed already: as good.
        let _ = nix::unistd::close(0);
        let seat = OwnedFd::from(File::open("/dev/null")?);
        match seat.as_raw_fd() {
            0 => Ok(Seat(seat)),
            other => Err(io::Error::other(format!("standard input came back as descriptor {other}"))),
        }
    }
}

/// From here on nothing that this process answers reaches the kernel: it is for the next one to answer.
pub(super) fn leave_seat() -> io::Result<()> {
    // It cannot be read, so that whoever reads requests ends.
    let nowhere = File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nowhere)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filler_is_a_write_to_no_inode() {
        let bytes = filler(1000);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"));
        assert_eq!((word(0), word(4), word(56), bytes.len()), (1080, 16, 1000, 1080));
        assert_eq!(bytes[16..24], NO_INODE.to_ne_bytes());
    }

    #[test]
    fn an_offer_is_made_again_as_the_kernel_made_it() {
        let offer = Offer { major: 7, minor: 45, max_readahead: 131_072, features: 1 << 39 | 5 };
        let bytes = offer.request();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"));
        assert_eq!((word(0), word(4)), (104, 26));
        assert_eq!((word(40), word(44), word(48)), (7, 45, 131_072));
        assert_eq!((word(52), word(56)), (1 << 30 | 5, 1 << 7));
        assert!(bytes[60..].iter().all(|b| *b == 0));
        assert!(offer.can_resend());
    }
}
