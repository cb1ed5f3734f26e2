//! The operations of the filesystem.
//!
//! Architecture Invariant: nothing here sees a pack. An operation locks inodes, reads keys, builds a list
//! of mutations, and commits it as one record.

mod acl;
mod attributes;
mod data;
mod directory;
mod names;
mod policy;
mod ranges;
mod types;
mod xattrs;

use std::time::{SystemTime, UNIX_EPOCH};

use cairn_format::key::{self, Key};
use cairn_format::{DirEntry, FileKind, Ino, Inode, Mutation, Timestamp, View};

pub use types::{
    Allocate, Attr, Caller, DirItem, Error, RenameMode, SeekTo, SetAttr, StatFs, TimeChange, XattrMode,
};

pub(crate) use policy::Policy;

use crate::core::Core;

/// The most names an inode may have.
const LINK_MAX: u32 = 1 << 31;
/// The longest target of a symbolic link.
const TARGET_MAX: usize = 4095;
pub(crate) use cairn_format::FILE_MAX;

const VIEW_SHIFT: u32 = 48;

/// `st_ino` taken apart. Numbers of other views than the live one do not exist yet.
fn split(ino: u64) -> Result<Ino, Error> {
    match (ino >> VIEW_SHIFT, ino & Ino::MAX.0) {
        (0, number) if number != 0 => Ok(Ino(number)),
        _ => Err(Error::Stale),
    }
}

/// The inverse of [`split`].
pub(crate) fn st_ino(view: View, ino: Ino) -> u64 {
    u64::from(view.0) << VIEW_SHIFT | ino.0
}

pub(crate) fn now() -> Timestamp {
    // A clock before 1970 counts as 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { secs: since.as_secs() as i64, nanos: since.subsec_nanos() }
}

fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > key::NAME_MAX {
        return Err(Error::NameTooLong);
    }
    if key::is_name(name) { Ok(()) } else { Err(Error::Invalid) }
}

/// The mutations of one operation.
struct Change {
    view: View,
    mutations: Vec<Mutation>,
}

impl Change {
    fn new(core: &Core) -> Change {
        Change { view: core.view, mutations: Vec::with_capacity(6) }
    }

    fn put(&mut self, key: &Key, value: Vec<u8>) {
        self.mutations.push(Mutation::Put { key: key.encode(), value });
    }

    fn delete(&mut self, key: &Key) {
        self.mutations.push(Mutation::Delete { key: key.encode() });
    }

    fn put_inode(&mut self, ino: Ino, inode: &Inode) {
        self.put(&Key::Inode(ino, self.view), inode.encode());
    }

    fn hole(&mut self, ino: Ino, offset: u64, len: u64) {
        self.mutations.push(Mutation::Hole { view: self.view, ino, offset, len });
    }
}

impl Core {
    /// The number behind `st_ino`.
    pub(crate) fn number(&self, ino: u64) -> Result<Ino, Error> {
        split(ino)
    }

    /// An inode that must be there.
    pub(crate) fn inode(&self, ino: Ino) -> Result<Inode, Error> {
        match self.get(&Key::Inode(ino, self.view))? {
            Some(value) => self.checked(Inode::decode(&value).map_err(Into::into)),
            None => Err(Error::Stale),
        }
    }

    /// A directory that must be there.
    fn directory(&self, ino: Ino) -> Result<Inode, Error> {
        let inode = self.inode(ino)?;
        if inode.kind() == FileKind::Directory { Ok(inode) } else { Err(Error::NotDirectory) }
    }

    /// What a name leads to.
    fn entry(&self, dir: Ino, name: &[u8]) -> Result<Option<DirEntry>, Error> {
        match self.get(&Key::Name(dir, name.to_vec(), self.view))? {
            Some(value) => self.checked(DirEntry::decode(&value).map_err(Into::into)).map(Some),
            None => Ok(None),
        }
    }

    /// What `stat` tells of an inode that must be there.
    fn attr_of(&self, ino: Ino) -> Result<Attr, Error> {
        // First, since a checkpoint moves bytes from here to there: they may be counted twice for a moment, never not at all.
        let above = self.ns.overlay_stored(self.view, ino);
        let (value, counted) = self.checked(self.look(|ns| ns.find(&Key::Inode(ino, self.view))))?;
        let Some(value) = value else { return Err(Error::Stale) };
        let inode = self.checked(Inode::decode(&value).map_err(Into::into))?;
        if counted && inode.kind() == FileKind::Regular {
            let stored = self.not_nothing(ino, &inode, inode.stored.saturating_add(above))?;
            return Ok(self.attr_with(ino, &inode, stored));
        }
        self.attr(ino, &inode)
    }

    /// What `stat` tells of an inode that was just changed.
    fn attr(&self, ino: Ino, inode: &Inode) -> Result<Attr, Error> {
        let stored = match inode.kind() {
            FileKind::Regular if inode.size > 0 => self.not_nothing(ino, inode, self.stored(ino)?)?,
            _ => 0,
        };
        Ok(self.attr_with(ino, inode, stored))
    }

    fn attr_with(&self, ino: Ino, inode: &Inode, stored: u64) -> Attr {
        Attr {
            ino: st_ino(self.view, ino),
            generation: inode.generation,
            kind: inode.kind(),
            perm: (inode.mode & 0o7777) as u16,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            size: inode.size,
            blocks: stored.div_ceil(512),
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            btime: inode.btime,
        }
    }

    /// `stored`, unless that is nothing though there are bytes: a checkpoint does not count what waits in the journal to
    /// be folded. A file without blocks is one hole to programs, `tar -S` packs no byte of it.
    fn not_nothing(&self, ino: Ino, inode: &Inode, stored: u64) -> Result<u64, Error> {
        if stored > 0 || inode.size == 0 {
            return Ok(stored);
        }
        let runs = self.checked(self.look(|ns| ns.runs(self.view, ino, 0, inode.size)))?;
        Ok(runs.iter().map(|(_, run)| run.stored()).sum())
    }

    /// Bytes on disk that a file answers for: what the last checkpoint counted, and what came since.
    fn stored(&self, ino: Ino) -> Result<u64, Error> {
        // In this order, as in `attr_of`.
        let above = self.ns.overlay_stored(self.view, ino);
        let key = Key::Inode(ino, self.view).encode();
        let counted = self.look(|ns| Ok(ns.engine().get(&key)?));
        let counted = match self.checked(counted)? {
            Some(value) => self.checked(Inode::decode(&value).map_err(Into::into))?.stored,
            None => 0,
        };
        Ok(counted.saturating_add(above))
    }
}
