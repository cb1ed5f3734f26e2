//! Between a supervisor and its worker: a message is one JSON document in one packet, descriptors go with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::detach::Status;
use crate::fuse::Offer;

/// The longest message.
const MAX_MESSAGE: usize = 64 << 10;
/// Descriptors that a message has at most.
const MAX_DESCRIPTORS: usize = 2;

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum News {
    /// How it goes, for whoever asked for the mount.
    Report(Status),
    /// It mounted. The descriptors that keep the mount and the volume go with it: the connection's and the lock's.
    Mounted(Mount),
    /// The mount is gone; the worker has this to do yet.
    Stopping(String),
    /// It makes way for another program, and is about to end.
    Replace(PathBuf),
    /// It goes on with a mount: from here on it answers, while it has yet to be ready for whoever waits for that.
    Answering,
}

/// A mount that outlives its worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// What the kernel offered.
    pub(crate) offer: Offer,
    /// The first worker's epoch.
    pub(crate) first_epoch: u32,
    /// The filesystem's device number.
    pub(crate) device: (u64, u64),
    /// Since when it is there, in seconds since 1970.
    pub(crate) since: u64,
}

/// What a worker is told when it starts. The descriptors of a mount go with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Charge {
    /// The supervisor's process.
    pub(crate) supervisor: u32,
    /// How many workers died before this one.
    pub(crate) restarts: u64,
    /// How many made way for another program.
    pub(crate) upgrades: u64,
    /// What became of the one before.
    pub(crate) before: Option<String>,
    /// The mount to go on with; none is there yet if `None`.
    pub(crate) mount: Option<Mount>,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// A worker's end.
static OURS: OnceLock<Channel> = OnceLock::new();

impl Channel {
    /// Both ends.
    pub(super) fn pair() -> io::Result<(Channel, Channel)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Channel(one), Channel(other)))
    }

    /// The one that this process was started with, as its standard output.
    pub(crate) fn of_worker() -> io::Result<&'static Channel> {
        let ours = Channel(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(OURS.get_or_init(|| ours))
    }

    /// The same, once it was asked for.
    pub(crate) fn ours() -> Option<&'static Channel> {
        OURS.get()
    }

    pub(super) fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// Tells the other end.
    pub(crate) fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// What the other end told next; `None` if there is nobody.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                // It died with something unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                result => break result?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let descriptors = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let message = serde_json::from_slice(&bytes[..received.bytes]);
        let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        Ok(Some((message.map_err(invalid)?, descriptors)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    #[test]
    fn messages_keep_their_bounds_and_bring_their_descriptors() {
        let (near, far) = Channel::pair().expect("sockets");
        let zeros = File::open("/dev/zero").expect("there");
        near.send(&"first", &[]).expect("sent");
        near.send(&"second", &[zeros.as_fd()]).expect("sent");
        let (first, none) = far.receive::<String>().expect("whole").expect("there");
        assert_eq!((first.as_str(), none.len()), ("first", 0));
        let (second, mut one) = far.receive::<String>().expect("whole").expect("there");
        assert_eq!((second.as_str(), one.len()), ("second", 1));
        let mut byte = [1];
        File::from(one.remove(0)).read_exact(&mut byte).expect("endless");
        assert_eq!(byte, [0]);
        drop(near);
        assert!(far.receive::<String>().expect("the end").is_none());
    }
}
