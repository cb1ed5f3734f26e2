//! Names: looking them up, making what they lead to, moving and removing them.

use std::collections::HashSet;

use cairn_format::key::Key;
use cairn_format::{DirEntry, FileKind, Ino, Inode, OrderedEntry};

use super::acl::{self, Acl};
use super::policy;
use super::{
    Attr, Caller, Change, Error, LINK_MAX, RenameMode, TARGET_MAX, Timestamp, check_name, now, split,
};
use crate::core::Core;
use crate::journal::Need;
use crate::request;
use crate::sync::PoisonError;

const S_ISGID: u32 = 0o2000;

/// What a new name leads to, beside its type.
enum Content<'a> {
    Nothing,
    Device(u32),
    Target(&'a [u8]),
}

/// Whether a name was an inode's last.
#[derive(Clone, Copy)]
enum Last {
    /// It has others.
    No,
    /// It was, but somebody may have it open.
    Kept,
    /// It was, and the inode is gone with it.
    Erased,
}

/// A name in a directory.
struct Place<'a> {
    dir: Ino,
    name: &'a [u8],
}

impl Change {
    fn link(&mut self, place: &Place<'_>, ino: Ino, kind: FileKind, cookie: u64) {
        let entry = DirEntry { ino, view: self.view, kind, cookie };
        let ordered = OrderedEntry { ino, view: self.view, kind, name: place.name.to_vec() };
        self.put(&Key::Name(place.dir, place.name.to_vec(), self.view), entry.encode());
        self.put(&Key::Order(place.dir, cookie, self.view), ordered.encode());
    }

    fn unlink(&mut self, place: &Place<'_>, entry: &DirEntry) {
        self.delete(&Key::Name(place.dir, place.name.to_vec(), self.view));
        self.delete(&Key::Order(place.dir, entry.cookie, self.view));
    }
}

impl Core {
    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>, Error> {
        let parent = split(parent)?;
        let entry = {
            let _lock = self.locks.read(parent);
            match name {
                b"." => None,
                b".." => Some(self.directory(parent)?.parent),
                _ if name.len() > cairn_format::key::NAME_MAX => return Err(Error::NameTooLong),
                _ => match self.entry(parent, name)? {
                    Some(entry) => Some(entry.ino),
                    None => {
                        self.directory(parent)?;
                        return Ok(None);
                    }
                },
            }
        };
        let ino = entry.unwrap_or(parent);
        let _lock = self.locks.read(ino);
        match self.attr_of(ino) {
            Ok(attr) => Ok(Some(attr)),
            // Removed between the two locks.
            Err(Error::Stale) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn readlink(&self, ino: u64) -> Result<Vec<u8>, Error> {
        let ino = split(ino)?;
        let _lock = self.locks.read(ino);
        let target = self.get(&Key::Target(ino, self.view))?.ok_or(Error::Invalid)?;
        if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
            tracing::error!("inode {ino} is a symbolic link with a target that none can have");
            return Err(Error::Io);
        }
        Ok(target)
    }

    pub(crate) fn mknod(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
        caller: &Caller,
    ) -> Result<Attr, Error> {
        match FileKind::from_mode(mode) {
            None | Some(FileKind::Directory | FileKind::Symlink) => Err(Error::Invalid),
            Some(FileKind::CharDevice | FileKind::BlockDevice) => {
                self.make(parent, name, mode, umask, Content::Device(rdev), caller, false)
            }
            Some(_) => self.make(parent, name, mode, umask, Content::Nothing, caller, false),
        }
    }

    pub(crate) fn create(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        caller: &Caller,
    ) -> Result<Attr, Error> {
        let mode = FileKind::Regular.mode() | mode & 0o7777;
        self.make(parent, name, mode, umask, Content::Nothing, caller, true)
    }

    pub(crate) fn mkdir(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        caller: &Caller,
    ) -> Result<Attr, Error> {
        let mode = FileKind::Directory.mode() | mode & 0o7777;
        self.make(parent, name, mode, umask, Content::Nothing, caller, false)
    }

    pub(crate) fn symlink(
        &self,
        parent: u64,
        name: &[u8],
        target: &[u8],
        caller: &Caller,
    ) -> Result<Attr, Error> {
        if target.len() > TARGET_MAX {
            return Err(Error::NameTooLong);
        }
        if target.is_empty() || target.contains(&0) {
            return Err(Error::Invalid);
        }
        let mode = FileKind::Symlink.mode() | 0o777;
        self.make(parent, name, mode, 0, Content::Target(target), caller, false)
    }

    #[expect(clippy::too_many_arguments, reason = "what mknod(2) takes")]
    fn make(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        content: Content<'_>,
        caller: &Caller,
        opens: bool,
    ) -> Result<Attr, Error> {
        if let Some(made) = request::answered() {
            return self.answer_again(made, opens);
        }
        let dir = split(parent)?;
        check_name(name)?;
        self.reserve(Need::Grow, 8192)?;
        let ino = self.new_ino()?;
        let _lock = self.locks.write(&[dir]);
        let mut parent = self.directory(dir)?;
        if parent.nlink == 0 {
            return Err(Error::NotFound);
        }
        if self.entry(dir, name)?.is_some() {
            return Err(Error::Exists);
        }
        let time = now();
        let journal = self.journal()?;
        let mut inode = self.new_inode(mode, caller, time);
        let mut change = Change::new(self);
        self.inherit(dir, &parent, ino, &mut inode, umask, &mut change)?;
        match content {
            Content::Nothing => {}
            Content::Device(rdev) => inode.rdev = rdev,
            Content::Target(target) => {
                inode.size = target.len() as u64;
                change.put(&Key::Target(ino, self.view), target.to_vec());
            }
        }
        if inode.kind() == FileKind::Directory {
            if parent.nlink >= LINK_MAX {
                return Err(Error::TooManyLinks);
            }
            inode.nlink = 2;
            inode.parent = dir;
            parent.nlink += 1;
        }
        touch(&mut parent, time);
        // Under the directory's lock no other name here can get the LSN that comes next.
        let cookie = journal.last().next().0;
        change.link(&Place { dir, name }, ino, inode.kind(), cookie);
        change.put_inode(ino, &inode);
        change.put_inode(dir, &parent);
        if opens {
            self.handles.open(ino);
        }
        if let Err(error) = self.conclude(&change.mutations, &[], ino.0) {
            if opens {
                self.handles.close(ino);
            }
            return Err(error);
        }
        self.attr(ino, &inode)
    }

    /// An inode with one name and nothing in it.
    fn new_inode(&self, mode: u32, caller: &Caller, time: Timestamp) -> Inode {
        Inode {
            mode,
            uid: caller.uid,
            gid: caller.gid,
            nlink: 1,
            rdev: 0,
            generation: self.packs.epoch,
            size: 0,
            parent: Ino(0),
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            stored: 0,
        }
    }

    /// The answer to a request that made a name before this process was there.
    fn answer_again(&self, made: u64, opens: bool) -> Result<Attr, Error> {
        let ino = split(made)?;
        let _lock = self.locks.read(ino);
        let attr = self.attr_of(ino)?;
        if opens {
            self.handles.open(ino);
        }
        Ok(attr)
    }

    /// What a new inode has from its directory: the group of a set-group-id one, default ACLs, how it is compressed.
    fn inherit(
        &self,
        dir: Ino,
        parent: &Inode,
        ino: Ino,
        inode: &mut Inode,
        umask: u32,
        change: &mut Change,
    ) -> Result<(), Error> {
        if parent.mode & S_ISGID != 0 {
            inode.gid = parent.gid;
            if inode.kind() == FileKind::Directory {
                inode.mode |= S_ISGID;
            }
        }
        if inode.kind() == FileKind::Symlink {
            return Ok(());
        }
        if matches!(inode.kind(), FileKind::Regular | FileKind::Directory)
            && let Some(value) = self.get(&policy::key(dir, self.view))?
        {
            change.put(&policy::key(ino, self.view), value);
        }
        let default = self.get(&acl::default_key(dir, self.view))?;
        match default.as_deref().and_then(Acl::decode) {
            None => inode.mode &= !(umask & 0o777),
            Some(list) => {
                if inode.kind() == FileKind::Directory {
                    change.put(&acl::default_key(ino, self.view), list.encode());
                }
                let (access, mode) = list.inherited(inode.mode);
                inode.mode = mode;
                if !access.is_mode() {
                    change.put(&acl::access_key(ino, self.view), access.encode());
                }
            }
        }
        Ok(())
    }

    pub(crate) fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr, Error> {
        if let Some(linked) = request::answered() {
            return self.answer_again(linked, false);
        }
        let (ino, dir) = (split(ino)?, split(parent)?);
        check_name(name)?;
        self.reserve(Need::Grow, 4096)?;
        let _lock = self.locks.write(&[ino, dir]);
        let mut parent = self.directory(dir)?;
        let mut inode = self.inode(ino)?;
        if inode.kind() == FileKind::Directory {
            return Err(Error::NotPermitted);
        }
        if parent.nlink == 0 || inode.nlink == 0 {
            return Err(Error::NotFound);
        }
        if inode.nlink >= LINK_MAX {
            return Err(Error::TooManyLinks);
        }
        if self.entry(dir, name)?.is_some() {
            return Err(Error::Exists);
        }
        let time = now();
        let mut change = Change::new(self);
        inode.nlink += 1;
        inode.ctime = time;
        touch(&mut parent, time);
        change.link(&Place { dir, name }, ino, inode.kind(), self.journal()?.last().next().0);
        change.put_inode(ino, &inode);
        change.put_inode(dir, &parent);
        self.conclude(&change.mutations, &[], ino.0)?;
        self.attr(ino, &inode)
    }

    pub(crate) fn unlink(&self, parent: u64, name: &[u8]) -> Result<(), Error> {
        self.remove(split(parent)?, name, false)
    }

    pub(crate) fn rmdir(&self, parent: u64, name: &[u8]) -> Result<(), Error> {
        self.remove(split(parent)?, name, true)
    }

    fn remove(&self, dir: Ino, name: &[u8], directories: bool) -> Result<(), Error> {
        if request::answered().is_some() {
            return Ok(());
        }
        match name {
            b"." => return Err(Error::Invalid),
            b".." => return Err(Error::NotEmpty),
            name => check_name(name)?,
        }
        self.reserve(Need::Shrink, 8192)?;
        let place = Place { dir, name };
        loop {
            let entry = {
                let _lock = self.locks.read(dir);
                self.entry(dir, name)?.ok_or(Error::NotFound)?
            };
            let _lock = self.locks.write(&[dir, entry.ino]);
            if self.entry(dir, name)? != Some(entry) {
                continue;
            }
            match (entry.kind, directories) {
                (FileKind::Directory, false) => return Err(Error::IsDirectory),
                (FileKind::Directory, true) if !self.is_empty(entry.ino)? => return Err(Error::NotEmpty),
                (FileKind::Directory, true) | (_, false) => {}
                (_, true) => return Err(Error::NotDirectory),
            }
            let mut parent = self.directory(dir)?;
            let time = now();
            let mut change = Change::new(self);
            change.unlink(&place, &entry);
            let last = self.drop_link(&entry, &mut parent, time, &mut change)?;
            touch(&mut parent, time);
            change.put_inode(dir, &parent);
            self.conclude(&change.mutations, &[], 0)?;
            self.lost_name(entry.ino, last);
            return Ok(());
        }
    }

    /// One name less for what `entry` leads to; what becomes of that.
    fn drop_link(
        &self,
        entry: &DirEntry,
        parent: &mut Inode,
        time: Timestamp,
        change: &mut Change,
    ) -> Result<Last, Error> {
        let mut inode = self.inode(entry.ino)?;
        inode.ctime = time;
        if entry.kind == FileKind::Directory {
            inode.nlink = 0;
            parent.nlink = parent.nlink.saturating_sub(1);
        } else {
            inode.nlink = inode.nlink.saturating_sub(1);
        }
        if inode.nlink > 0 {
            change.put_inode(entry.ino, &inode);
            return Ok(Last::No);
        }
        if self.handles.keep_if_reachable(entry.ino) {
            change.put(&Key::Orphan(entry.ino, self.view), Vec::new());
            change.put_inode(entry.ino, &inode);
            return Ok(Last::Kept);
        }
        self.erase(entry.ino, &inode, change)?;
        Ok(Last::Erased)
    }

    /// A name was removed; the caller holds the inode's lock still.
    fn lost_name(&self, ino: Ino, last: Last) {
        match last {
            Last::No | Last::Kept => {}
            Last::Erased => self.dirty.forget((self.view, ino)),
        }
    }

    pub(crate) fn rename(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), Error> {
        if request::answered().is_some() {
            return Ok(());
        }
        let from = Place { dir: split(parent)?, name };
        let to = Place { dir: split(new_parent)?, name: new_name };
        check_name(name)?;
        check_name(new_name)?;
        self.reserve(if mode == RenameMode::Replace { Need::Shrink } else { Need::Grow }, 16384)?;
        let whiteout = match mode {
            RenameMode::Whiteout { owner, .. } => Some((self.new_ino()?, owner)),
            _ => None,
        };
        loop {
            let look = |place: &Place<'_>| -> Result<Option<DirEntry>, Error> {
                let _lock = self.locks.read(place.dir);
                self.entry(place.dir, place.name)
            };
            let source = look(&from)?.ok_or(Error::NotFound)?;
            let target = look(&to)?;
            let moves_directory = [Some(source), target.filter(|_| mode == RenameMode::Exchange)]
                .iter()
                .flatten()
                .any(|e| e.kind == FileKind::Directory);
            // Only such renames change who is whose ancestor.
            let _tree = (moves_directory && from.dir != to.dir)
                .then(|| self.tree.lock().unwrap_or_else(PoisonError::into_inner));
            if _tree.is_some() {
                self.refuse_cycle(source.ino, to.dir)?;
                if let (Some(target), RenameMode::Exchange) = (target, mode) {
                    self.refuse_cycle(target.ino, from.dir)?;
                }
            }
            let target_ino = target.map_or(source.ino, |t| t.ino);
            let _lock = self.locks.write(&[from.dir, to.dir, source.ino, target_ino]);
            let unchanged =
                self.entry(from.dir, name)? == Some(source) && self.entry(to.dir, new_name)? == target;
            if unchanged {
                return self.rename_locked(&from, &to, source, target, mode, whiteout);
            }
        }
    }

    /// That `dir` does not lie in the directory `moved`. The caller holds the tree's lock.
    fn refuse_cycle(&self, moved: Ino, dir: Ino) -> Result<(), Error> {
        let mut at = dir;
        let mut passed = HashSet::new();
        loop {
            if at == moved {
                return Err(Error::Invalid);
            }
            if at == Ino::ROOT {
                return Ok(());
            }
            if !passed.insert(at) {
                tracing::error!("directory {at} lies within itself");
                return Err(Error::Io);
            }
            let _lock = self.locks.read(at);
            at = match self.directory(at) {
                Ok(found) => found.parent,
                // It was removed, and the one that held it then, too: nothing is moved there.
                Err(Error::Stale) if at != dir => return Ok(()),
                Err(error) => return Err(error),
            };
        }
    }

    fn rename_locked(
        &self,
        from: &Place<'_>,
        to: &Place<'_>,
        source: DirEntry,
        target: Option<DirEntry>,
        mode: RenameMode,
        whiteout: Option<(Ino, Caller)>,
    ) -> Result<(), Error> {
        let mut from_dir = self.directory(from.dir)?;
        let same_dir = from.dir == to.dir;
        let mut to_dir = if same_dir { from_dir.clone() } else { self.directory(to.dir)? };
        if to_dir.nlink == 0 {
            return Err(Error::NotFound);
        }
        let mut change = Change::new(self);
        let time = now();
        let mut lost = None;
        match (mode, target) {
            (RenameMode::NoReplace | RenameMode::Whiteout { replace: false, .. }, Some(_)) => {
                return Err(Error::Exists);
            }
            (RenameMode::Exchange, None) => return Err(Error::NotFound),
            (RenameMode::Exchange, Some(target)) => {
                // Each name keeps its place in its directory's order.
                change.link(from, target.ino, target.kind, source.cookie);
                change.link(to, source.ino, source.kind, target.cookie);
                if target.ino != source.ino {
                    self.moved(
                        target.ino,
                        target.kind,
                        &mut to_dir,
                        &mut from_dir,
                        from.dir,
                        same_dir,
                        time,
                        &mut change,
                    )?;
                    self.moved(
                        source.ino,
                        source.kind,
                        &mut from_dir,
                        &mut to_dir,
                        to.dir,
                        same_dir,
                        time,
                        &mut change,
                    )?;
                }
            }
            // Two names of one inode: POSIX wants nothing done.
            (_, Some(target)) if target.ino == source.ino => return Ok(()),
            (_, target) => {
                if let Some(target) = target {
                    match (source.kind == FileKind::Directory, target.kind == FileKind::Directory) {
                        (true, false) => return Err(Error::NotDirectory),
                        (false, true) => return Err(Error::IsDirectory),
                        (true, true) if !self.is_empty(target.ino)? => return Err(Error::NotEmpty),
                        _ => {}
                    }
                    change.unlink(to, &target);
                    lost = Some((target.ino, self.drop_link(&target, &mut to_dir, time, &mut change)?));
                    if same_dir {
                        from_dir.nlink = to_dir.nlink;
                    }
                }
                match whiteout {
                    None => change.unlink(from, &source),
                    // In the place of the name before it: one record gives but one new cookie.
                    Some((ino, owner)) => {
                        self.put_whiteout(ino, &owner, from.dir, &from_dir, time, &mut change)?;
                        change.link(from, ino, FileKind::CharDevice, source.cookie);
                    }
                }
                change.link(to, source.ino, source.kind, self.journal()?.last().next().0);
                self.moved(
                    source.ino,
                    source.kind,
                    &mut from_dir,
                    &mut to_dir,
                    to.dir,
                    same_dir,
                    time,
                    &mut change,
                )?;
            }
        }
        touch(&mut from_dir, time);
        change.put_inode(from.dir, &from_dir);
        if !same_dir {
            touch(&mut to_dir, time);
            change.put_inode(to.dir, &to_dir);
        }
        self.conclude(&change.mutations, &[], 0)?;
        if let Some((ino, last)) = lost {
            self.lost_name(ino, last);
        }
        Ok(())
    }

    /// The inode of a whiteout in `dir`.
    fn put_whiteout(
        &self,
        ino: Ino,
        owner: &Caller,
        dir: Ino,
        parent: &Inode,
        time: Timestamp,
        change: &mut Change,
    ) -> Result<(), Error> {
        let mut inode = self.new_inode(FileKind::CharDevice.mode(), owner, time);
        self.inherit(dir, parent, ino, &mut inode, 0, change)?;
        change.put_inode(ino, &inode);
        Ok(())
    }

    /// An inode got into another directory: its ctime, and for a directory its `..` and both link counts.
    #[expect(clippy::too_many_arguments, reason = "both directories are being changed by the caller")]
    fn moved(
        &self,
        ino: Ino,
        kind: FileKind,
        left: &mut Inode,
        entered: &mut Inode,
        entered_ino: Ino,
        same_dir: bool,
        time: Timestamp,
        change: &mut Change,
    ) -> Result<(), Error> {
        let mut inode = self.inode(ino)?;
        inode.ctime = time;
        if kind == FileKind::Directory {
            inode.parent = entered_ino;
            if !same_dir {
                if entered.nlink >= LINK_MAX {
                    return Err(Error::TooManyLinks);
                }
                left.nlink = left.nlink.saturating_sub(1);
                entered.nlink += 1;
            }
        }
        change.put_inode(ino, &inode);
        Ok(())
    }
}

fn touch(dir: &mut Inode, time: Timestamp) {
    dir.mtime = time;
    dir.ctime = time;
}
