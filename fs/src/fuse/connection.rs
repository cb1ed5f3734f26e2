//! The connection to the kernel that a mount is, and how a session is begun on one.
//!
//! The process that mounts agrees with the kernel on everything (INIT) and keeps a record of that ([`Offer`]). From then on
//! each process that answers, also this first one, begins a session on the same descriptor: `fuser` wants an INIT, so it is
//! given the kernel's of that time, through a socket that lies where the connection is put a moment later.

use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fuser::{Config, Filesystem, InitFlags, KernelConfig, Request, Session};
use serde::{Deserialize, Serialize};

use super::adapter;

/// `FUSE_INIT` of the protocol.
const INIT: u32 = 26;
/// The request's head, and what the kernel says of itself.
const INIT_LEN: usize = 40 + 64;

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

    /// A session of `filesystem` on it, and a peer to be kept until that is begun.
    pub(super) fn begin<F: Filesystem>(
        &self,
        filesystem: F,
        seat: Seat,
        config: Config,
    ) -> io::Result<Session<F>> {
        let (near, mut far) = UnixStream::pair()?;
        far.write_all(&self.offer.request())?;
        nix::unistd::dup2_stdin(&near)?;
        let session = Session::from_fd(filesystem, seat.0, config.acl, config)?;
        nix::unistd::dup2_stdin(&self.device)?;
        Ok(session)
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
