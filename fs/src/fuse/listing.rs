//! Listing a directory together with what `stat` tells of each name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cairn_volume::{Attr, DirItem, FileKind, Volume};
use fuser::{Errno, FileAttr, Generation, INodeNo, ReplyDirectoryPlus};

use super::convert::{TTL, call, file_attr, file_type, generation, no_such_name};

/// The most names looked up for one reply of readdirplus before they are put into it.
pub(super) const LISTING_BATCH: usize = 64;

/// The names after cookie `after`, at most [`LISTING_BATCH`], each with what `stat` tells of it.
///
/// Attributes are fetched after the listing, not from inside it, where the volume may hold locks.
pub(super) fn list(volume: &Volume, ino: u64, after: u64) -> Result<Vec<Listed>, Errno> {
    let mut names = Vec::with_capacity(LISTING_BATCH);
    call("readdirplus", ino, || {
        volume.readdir(ino, after, &mut |item: &DirItem<'_>| {
            names.push(Listed::new(item));
            names.len() < LISTING_BATCH
        })
    })?;
    for listed in &mut names {
        listed.attr = call("readdirplus", listed.ino, || volume.getattr(listed.ino));
    }
    Ok(names)
}

/// A name in a directory and what it leads to.
pub(super) struct Listed {
    name: Vec<u8>,
    ino: u64,
    kind: FileKind,
    pub(super) cookie: u64,
    attr: Result<Attr, Errno>,
}

impl Listed {
    fn new(item: &DirItem<'_>) -> Listed {
        Listed {
            name: item.name.to_vec(),
            ino: item.ino,
            kind: item.kind,
            cookie: item.cookie,
            attr: Err(Errno::EIO),
        }
    }

    /// Puts it into `reply`; `true` if that was full.
    pub(super) fn add_to(&self, reply: &mut ReplyDirectoryPlus) -> bool {
        let name = OsStr::from_bytes(&self.name);
        match &self.attr {
            Ok(attr) => {
                reply.add(INodeNo(self.ino), self.cookie, name, &TTL, &file_attr(attr), generation(attr))
            }
            // Gone between the listing and the look: not in the directory any more.
            Err(e) if [Errno::ESTALE.code(), Errno::ENOENT.code()].contains(&e.code()) => false,
            // Damaged: the name is listed all the same, with nothing that the kernel may remember. Whoever looks at it
            // gets the error then.
            Err(_) => {
                let attr = FileAttr { ino: INodeNo(self.ino), kind: file_type(self.kind), ..no_such_name() };
                reply.add(INodeNo(self.ino), self.cookie, name, &Duration::ZERO, &attr, Generation(0))
            }
        }
    }
}
