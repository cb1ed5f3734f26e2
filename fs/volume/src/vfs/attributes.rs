//! Attributes: getattr, setattr, statfs.

use cairn_format::{FileKind, Ino, Inode};

use super::acl;
use super::{Attr, Caller, Change, Error, FILE_MAX, SetAttr, StatFs, TimeChange, now, split};
use crate::core::Core;
use crate::journal::Need;
use crate::request;

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// The block size that `statfs` counts in.
const BLOCK: u32 = 4096;

/// Clears the bits that let a file act for its owner, as a change by another must: set-user-id, and
/// set-group-id where the group may execute (elsewhere it once meant mandatory locking).
pub(super) fn clear_privileges(inode: &mut Inode) {
    inode.mode &= !S_ISUID;
    if inode.mode & S_IXGRP != 0 {
        inode.mode &= !S_ISGID;
    }
}

impl Core {
    pub(crate) fn getattr(&self, ino: u64) -> Result<Attr, Error> {
        let ino = split(ino)?;
        let _lock = self.locks.read(ino);
        self.attr_of(ino)
    }

    pub(crate) fn setattr(&self, ino: u64, set: &SetAttr, caller: &Caller) -> Result<Attr, Error> {
        if request::answered().is_some() {
            return self.getattr(ino);
        }
        let ino = split(ino)?;
        // Nothing here adds: it works when the volume is full.
        self.reserve(Need::Shrink, 1024)?;
        let _lock = self.locks.write(&[ino]);
        let mut inode = self.inode(ino)?;
        let mut change = Change::new(self);
        let time = now();
        let moment = |t: TimeChange| match t {
            TimeChange::Now => time,
            TimeChange::To(given) => given,
        };
        inode.ctime = time;
        if let Some(size) = set.size {
            self.resize(ino, &mut inode, size, &mut change)?;
            inode.mtime = time;
            if caller.uid != 0 {
                clear_privileges(&mut inode);
            }
            self.remove_capability(ino, &mut change)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            inode.uid = set.uid.unwrap_or(inode.uid);
            inode.gid = set.gid.unwrap_or(inode.gid);
            if inode.kind() != FileKind::Directory {
                clear_privileges(&mut inode);
                self.remove_capability(ino, &mut change)?;
            }
        }
        if let Some(mode) = set.mode {
            inode.mode = inode.kind().mode() | mode & 0o7777;
            self.chmod_acl(ino, inode.mode, &mut change)?;
        }
        inode.atime = set.atime.map_or(inode.atime, moment);
        inode.mtime = set.mtime.map_or(inode.mtime, moment);
        change.put_inode(ino, &inode);
        self.conclude(&change.mutations, &[], 0)?;
        self.attr(ino, &inode)
    }

    /// Changes a file's length: what is cut off becomes a hole, so that growing again brings nothing back.
    pub(super) fn resize(
        &self,
        ino: Ino,
        inode: &mut Inode,
        size: u64,
        change: &mut Change,
    ) -> Result<(), Error> {
        match inode.kind() {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid),
        }
        if size > FILE_MAX {
            return Err(Error::TooBig);
        }
        if size < inode.size {
            change.hole(ino, size, u64::MAX - size);
        }
        inode.size = size;
        Ok(())
    }

    fn chmod_acl(&self, ino: Ino, mode: u32, change: &mut Change) -> Result<(), Error> {
        let key = acl::access_key(ino, self.view);
        if let Some(value) = self.get(&key)?
            && let Some(acl) = acl::Acl::decode(&value)
        {
            change.put(&key, acl.with_mode(mode).encode());
        }
        Ok(())
    }

    pub(crate) fn statfs(&self) -> Result<StatFs, Error> {
        let space = self.disk.space().map_err(|e| {
            tracing::error!("statfs of the disk below: {e}");
            Error::Io
        })?;
        let files = self.totals().inodes;
        let used = { self.inos.lock().unwrap_or_else(crate::sync::PoisonError::into_inner).next };
        let block = u64::from(BLOCK);
        Ok(StatFs {
            block_size: BLOCK,
            blocks: space.total / block,
            free: space.free / block,
            available: space.available / block,
            files,
            files_free: Ino::MAX.0.saturating_sub(used),
        })
    }
}
