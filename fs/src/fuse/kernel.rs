//! What the kernel remembers of inodes: asking about it, and having it forgotten.
//!
//! `fuser`'s own notifier keeps to itself whether the kernel knew the inode, so the one message that is needed is written
//! here.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::{io, iter};

use nix::errno::Errno;
use tracing::debug;

/// `FUSE_NOTIFY_INVAL_INODE` of the protocol.
const INVAL_INODE: i32 = 2;
/// `FUSE_NOTIFY_RESEND`.
const RESEND: i32 = 7;
/// Length, code and unique number.
const HEAD: usize = 16;
/// Length, code and unique number; inode, offset and length.
const MESSAGE: usize = 16 + 24;

/// The kernel's cache of one mount.
#[derive(Default)]
pub(super) struct KernelCache(OnceLock<OwnedFd>);

impl KernelCache {
    /// From here on messages go to `device`.
    pub(super) fn connect(&self, device: BorrowedFd<'_>) -> io::Result<()> {
        let device = device.try_clone_to_owned()?;
        // Empty until now, so this sets it.
        let _ = self.0.set(device);
        Ok(())
    }

    /// Has all requests sent again that were read and not answered.
    pub(super) fn resend(&self) -> io::Result<()> {
        let Some(device) = self.0.get() else { return Ok(()) };
        nix::unistd::write(device, &head(HEAD, RESEND))?;
        Ok(())
    }

    /// Has the attributes of an inode asked for again. Waits for nobody who waits for an answer.
    pub(super) fn forget_attributes(&self, ino: u64) {
        // A negative offset: attributes only, no pages. Whoever has no inode remembers no attributes.
        let _ = self.invalidate(ino, -1);
    }

    /// Has the attributes and the pages of a file asked for again. Waits for reads of the file that are under way: not to
    /// be called before they are answered.
    pub(super) fn forget_pages(&self, ino: u64) {
        let _ = self.invalidate(ino, 0);
    }

    /// Whether the kernel has this inode, so that somebody may have it open. May wait until one that is on its way out is
    /// gone.
    pub(super) fn knows(&self, ino: u64) -> bool {
        // Attributes asked for once too often are the price of the answer.
        self.invalidate(ino, -1) != Err(Errno::ENOENT)
    }

    fn invalidate(&self, ino: u64, offset: i64) -> Result<(), Errno> {
        // Before the first request there is nothing to be forgotten.
        let Some(device) = self.0.get() else { return Ok(()) };
        let sent = nix::unistd::write(device, &message(ino, offset));
        match sent {
            Ok(_) => Ok(()),
            Err(error) => {
                debug!(ino, "the kernel was told to forget: {error}");
                Err(error)
            }
        }
    }
}

/// A message's first bytes; nobody waits for an answer, so it has no number.
fn head(len: usize, code: i32) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    bytes[4..8].copy_from_slice(&code.to_ne_bytes());
    bytes
}

/// Length 0: up to the end.
fn message(ino: u64, offset: i64) -> [u8; MESSAGE] {
    let mut bytes = [0; MESSAGE];
    let parts: [&[u8]; 4] =
        [&head(MESSAGE, INVAL_INODE), &ino.to_ne_bytes(), &offset.to_ne_bytes(), &0_i64.to_ne_bytes()];
    iter::zip(&mut bytes, parts.into_iter().flatten()).for_each(|(to, byte)| *to = *byte);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_protocols_layout() {
        let bytes = message(0x0102, -1);
        assert_eq!(bytes[..4], 40_u32.to_ne_bytes());
        assert_eq!(bytes[4..8], 2_i32.to_ne_bytes());
        assert_eq!(bytes[8..16], [0; 8]);
        assert_eq!(bytes[16..24], 0x0102_u64.to_ne_bytes());
        assert_eq!(bytes[24..32], [0xff; 8]);
        assert_eq!(bytes[32..], [0; 8]);
    }
}
