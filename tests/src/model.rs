//! The reference model: what right is. A POSIX tree in memory; clones are cheap and share everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_volume::{Allocate, Error, FileKind, RenameMode, Timestamp, XattrMode};

use crate::content::Content;

/// A file of the model, for as long as the model lives.
pub type Id = u64;
/// The root directory.
pub const ROOT: Id = 1;

/// What a node is.
#[derive(Clone, Debug)]
pub enum Body {
    /// A file.
    File(Content),
    /// A directory: its names, and the directory it lies in.
    Dir(BTreeMap<Vec<u8>, Id>, Id),
    /// A symbolic link.
    Link(Vec<u8>),
    /// A pipe or the like.
    Special(FileKind),
}

/// An inode.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub body: Body,
    /// Permission bits, 07777.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names, as `st_nlink` counts them.
    pub nlink: u32,
    /// Where a test set it and nothing changed it since.
    pub mtime: Option<Timestamp>,
    /// Where a test set it.
    pub atime: Option<Timestamp>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Open handles.
    pub opens: u32,
}

impl Node {
    /// Its type.
    pub fn kind(&self) -> FileKind {
        match &self.body {
            Body::File(_) => FileKind::Regular,
            Body::Dir(..) => FileKind::Directory,
            Body::Link(_) => FileKind::Symlink,
            Body::Special(kind) => *kind,
        }
    }
}

/// A filesystem.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: BTreeMap<Id, Arc<Node>>,
    next: Id,
}

/// The attributes that an operation changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length.
    pub size: Option<u64>,
    /// A time.
    pub atime: Option<Timestamp>,
    /// A time.
    pub mtime: Option<Timestamp>,
}

/// The longest file, as offsets are signed where the kernel counts them.
pub const FILE_MAX: u64 = i64::MAX as u64;

fn clear_privileges(node: &mut Node) {
    node.perm &= !0o4000;
    if node.perm & 0o010 != 0 {
        node.perm &= !0o2000;
    }
}

/// What a file may do was said of what it held, and of whose it was, before.
fn clear_capability(node: &mut Node) {
    node.xattrs.remove(&b"security.capability"[..]);
}

fn check_end(offset: u64, len: u64) -> Result<(), Error> {
    offset.checked_add(len).filter(|end| *end <= FILE_MAX).map(drop).ok_or(Error::TooBig)
}

fn check_name(name: &[u8]) -> Result<(), Error> {
    match name {
        _ if name.len() > 255 => Err(Error::NameTooLong),
        b"" | b"." | b".." => Err(Error::Invalid),
        _ if name.contains(&b'/') || name.contains(&0) => Err(Error::Invalid),
        _ => Ok(()),
    }
}

impl Model {
    /// What `mkfs` makes. Owner and mode of the root are given.
    pub fn new(uid: u32, gid: u32) -> Model {
        let root = Node {
            body: Body::Dir(BTreeMap::new(), ROOT),
            perm: 0o755,
            uid,
            gid,
            nlink: 2,
            mtime: None,
            atime: None,
            xattrs: BTreeMap::new(),
            opens: 0,
        };
        Model { nodes: BTreeMap::from([(ROOT, Arc::new(root))]), next: ROOT + 1 }
    }

    /// All inodes, those without a name included.
    pub fn nodes(&self) -> impl Iterator<Item = (Id, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, &**node))
    }

    /// An inode.
    pub fn node(&self, id: Id) -> Result<&Node, Error> {
        self.nodes.get(&id).map(|n| &**n).ok_or(Error::Stale)
    }

    fn node_mut(&mut self, id: Id) -> Result<&mut Node, Error> {
        self.nodes.get_mut(&id).map(Arc::make_mut).ok_or(Error::Stale)
    }

    /// The names in a directory.
    pub fn names(&self, dir: Id) -> Result<&BTreeMap<Vec<u8>, Id>, Error> {
        match &self.node(dir)?.body {
            Body::Dir(names, _) => Ok(names),
            _ => Err(Error::NotDirectory),
        }
    }

    /// The directory that a directory lies in, or last lay in.
    pub fn parent(&self, dir: Id) -> Option<Id> {
        match self.node(dir).map(|n| &n.body) {
            Ok(Body::Dir(_, parent)) => Some(*parent),
            _ => None,
        }
    }

    /// What the next node made will be called.
    pub fn next_id(&self) -> Id {
        self.next
    }

    /// The node under a name.
    pub fn lookup(&self, dir: Id, name: &[u8]) -> Result<Option<Id>, Error> {
        Ok(self.names(dir)?.get(name).copied())
    }

    fn set_name(&mut self, dir: Id, name: &[u8], to: Option<Id>) -> Result<(), Error> {
        let node = self.node_mut(dir)?;
        node.mtime = None;
        if let Body::Dir(names, _) = &mut node.body {
            match to {
                Some(id) => names.insert(name.to_vec(), id),
                None => names.remove(name),
            };
        }
        Ok(())
    }

    /// Makes a node.
    pub fn make(
        &mut self,
        dir: Id,
        name: &[u8],
        body: Body,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> Result<Id, Error> {
        check_name(name)?;
        let names = self.names(dir)?;
        let parent = self.node(dir)?;
        if parent.nlink == 0 {
            return Err(Error::NotFound);
        }
        if names.contains_key(name) {
            return Err(Error::Exists);
        }
        let inherits = parent.perm & 0o2000 != 0;
        let gid = if inherits { parent.gid } else { gid };
        let is_dir = matches!(body, Body::Dir(..));
        let mut perm = (mode & 0o7777) as u16;
        if is_dir && inherits {
            perm |= 0o2000;
        }
        let body = if is_dir { Body::Dir(BTreeMap::new(), dir) } else { body };
        let nlink = if is_dir { 2 } else { 1 };
        let node =
            Node { body, perm, uid, gid, nlink, mtime: None, atime: None, xattrs: BTreeMap::new(), opens: 0 };
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Arc::new(node));
        self.set_name(dir, name, Some(id))?;
        if is_dir {
            self.node_mut(dir)?.nlink += 1;
        }
        Ok(id)
    }

    /// Gives a node another name.
    pub fn link(&mut self, id: Id, dir: Id, name: &[u8]) -> Result<(), Error> {
        check_name(name)?;
        let names = self.names(dir)?;
        let node = self.node(id)?;
        if node.kind() == FileKind::Directory {
            return Err(Error::NotPermitted);
        }
        if self.node(dir)?.nlink == 0 || node.nlink == 0 {
            return Err(Error::NotFound);
        }
        if names.contains_key(name) {
            return Err(Error::Exists);
        }
        self.node_mut(id)?.nlink += 1;
        self.set_name(dir, name, Some(id))
    }

    /// Removes a name.
    pub fn remove(&mut self, dir: Id, name: &[u8], directory: bool) -> Result<(), Error> {
        match name {
            b".." => return Err(Error::NotEmpty),
            name => check_name(name)?,
        }
        // A directory without the name says so before it says that it is none.
        let names = match &self.nodes.get(&dir).map(|n| &n.body) {
            Some(Body::Dir(names, _)) => names,
            _ => return Err(Error::NotFound),
        };
        let id = *names.get(name).ok_or(Error::NotFound)?;
        let is_dir = matches!(self.node(id)?.body, Body::Dir(..));
        match (is_dir, directory) {
            (true, false) => return Err(Error::IsDirectory),
            (true, true) if !self.names(id)?.is_empty() => return Err(Error::NotEmpty),
            (false, true) => return Err(Error::NotDirectory),
            _ => {}
        }
        self.set_name(dir, name, None)?;
        self.drop_link(id, dir)
    }

    fn drop_link(&mut self, id: Id, dir: Id) -> Result<(), Error> {
        let node = self.node_mut(id)?;
        if matches!(node.body, Body::Dir(..)) {
            node.nlink = 0;
            self.node_mut(dir)?.nlink -= 1;
        } else {
            node.nlink -= 1;
        }
        self.forget_if_gone(id);
        Ok(())
    }

    fn forget_if_gone(&mut self, id: Id) {
        if self.nodes.get(&id).is_some_and(|n| n.nlink == 0 && n.opens == 0) {
            self.nodes.remove(&id);
        }
    }

    fn lies_in(&self, dir: Id, ancestor: Id) -> bool {
        let mut at = dir;
        loop {
            if at == ancestor {
                return true;
            }
            match self.nodes.get(&at).map(|n| &n.body) {
                Some(Body::Dir(_, parent)) if *parent != at => at = *parent,
                _ => return false,
            }
        }
    }

    /// Moves a name.
    pub fn rename(&mut self, from: (Id, &[u8]), to: (Id, &[u8]), mode: RenameMode) -> Result<(), Error> {
        check_name(from.1)?;
        check_name(to.1)?;
        let entry = |m: &Model, (dir, name): (Id, &[u8])| match m.nodes.get(&dir).map(|n| &n.body) {
            Some(Body::Dir(names, _)) => names.get(name).copied(),
            _ => None,
        };
        let source = entry(self, from).ok_or(Error::NotFound)?;
        let target = entry(self, to);
        let is_dir = |m: &Model, id: Id| m.nodes.get(&id).is_some_and(|n| n.kind() == FileKind::Directory);
        if from.0 != to.0 {
            if is_dir(self, source) && self.lies_in(to.0, source) {
                return Err(Error::Invalid);
            }
            if mode == RenameMode::Exchange
                && target.is_some_and(|t| is_dir(self, t) && self.lies_in(from.0, t))
            {
                return Err(Error::Invalid);
            }
        }
        self.names(to.0)?;
        if self.node(to.0)?.nlink == 0 {
            return Err(Error::NotFound);
        }
        match (mode, target) {
            (RenameMode::NoReplace | RenameMode::Whiteout { replace: false, .. }, Some(_)) => {
                return Err(Error::Exists);
            }
            (RenameMode::Exchange, None) => return Err(Error::NotFound),
            (RenameMode::Exchange, Some(target)) => {
                self.set_name(from.0, from.1, Some(target))?;
                self.set_name(to.0, to.1, Some(source))?;
                if source != target {
                    self.moved(target, to.0, from.0)?;
                    self.moved(source, from.0, to.0)?;
                }
            }
            (_, Some(target)) if target == source => {}
            (_, target) => {
                if let Some(target) = target {
                    match (is_dir(self, source), is_dir(self, target)) {
                        (true, false) => return Err(Error::NotDirectory),
                        (false, true) => return Err(Error::IsDirectory),
                        (true, true) if !self.names(target)?.is_empty() => return Err(Error::NotEmpty),
                        _ => {}
                    }
                    self.drop_link(target, to.0)?;
                }
                self.set_name(from.0, from.1, None)?;
                self.set_name(to.0, to.1, Some(source))?;
                self.moved(source, from.0, to.0)?;
                if let RenameMode::Whiteout { owner, .. } = mode {
                    let device = Body::Special(FileKind::CharDevice);
                    self.make(from.0, from.1, device, 0, (owner.uid, owner.gid))?;
                }
            }
        }
        Ok(())
    }

    fn moved(&mut self, id: Id, from: Id, to: Id) -> Result<(), Error> {
        let mut is_dir = false;
        if let Body::Dir(_, parent) = &mut self.node_mut(id)?.body {
            *parent = to;
            is_dir = true;
        }
        if is_dir && from != to {
            self.node_mut(from)?.nlink -= 1;
            self.node_mut(to)?.nlink += 1;
        }
        Ok(())
    }

    /// The bytes of a file.
    pub fn content(&self, id: Id) -> Result<&Content, Error> {
        match &self.node(id)?.body {
            Body::File(content) => Ok(content),
            _ => Err(Error::Invalid),
        }
    }

    /// Writes.
    pub fn write(&mut self, id: Id, offset: u64, bytes: &[u8], clear: bool) -> Result<(), Error> {
        check_end(offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let node = self.node_mut(id)?;
        let Body::File(content) = &mut node.body else { return Err(Error::Invalid) };
        content.write(offset, bytes);
        node.mtime = None;
        clear_capability(node);
        if clear {
            clear_privileges(node);
        }
        Ok(())
    }

    /// A file's node, to be changed.
    fn file_mut(&mut self, id: Id, clear: bool) -> Result<&mut Content, Error> {
        let node = self.node_mut(id)?;
        match node.body {
            Body::File(_) => {}
            Body::Dir(..) => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid),
        }
        node.mtime = None;
        clear_capability(node);
        if clear {
            clear_privileges(node);
        }
        match &mut node.body {
            Body::File(content) => Ok(content),
            _ => Err(Error::Invalid),
        }
    }

    /// Makes room, or a hole.
    pub fn allocate(
        &mut self,
        id: Id,
        offset: u64,
        len: u64,
        how: Allocate,
        clear: bool,
    ) -> Result<(), Error> {
        if len == 0 {
            return Err(Error::Invalid);
        }
        check_end(offset, len)?;
        let content = self.file_mut(id, clear)?;
        let size = content.size;
        if !matches!(how, Allocate::Reserve | Allocate::ReserveKeepSize) {
            content.zero(offset, len);
        }
        if matches!(how, Allocate::Reserve | Allocate::Zero) {
            content.truncate(size.max(offset + len));
        }
        Ok(())
    }

    /// Copies a range; gives how much of it there was.
    pub fn copy(&mut self, from: (Id, u64), to: (Id, u64), len: u64, clear: bool) -> Result<u64, Error> {
        let source = match &self.node(from.0)?.body {
            Body::File(content) => content.clone(),
            Body::Dir(..) => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid),
        };
        let len = len.min(source.size.saturating_sub(from.1));
        if len == 0 {
            return Ok(0);
        }
        check_end(to.1, len)?;
        if from.0 == to.0 && from.1 < to.1 + len && to.1 < from.1 + len {
            return Err(Error::Invalid);
        }
        self.file_mut(to.0, clear)?.copy(to.1, &source, from.1, len);
        Ok(len)
    }

    /// Changes attributes.
    pub fn setattr(&mut self, id: Id, set: &Set, caller: u32) -> Result<(), Error> {
        let kind = self.node(id)?.kind();
        if set.size.is_some() {
            match kind {
                FileKind::Regular => {}
                FileKind::Directory => return Err(Error::IsDirectory),
                _ => return Err(Error::Invalid),
            }
        }
        if set.size.is_some_and(|size| size > FILE_MAX) {
            return Err(Error::TooBig);
        }
        let node = self.node_mut(id)?;
        if let (Some(size), Body::File(content)) = (set.size, &mut node.body) {
            content.truncate(size);
            node.mtime = None;
            clear_capability(node);
            if caller != 0 {
                clear_privileges(node);
            }
        }
        if set.uid.is_some() || set.gid.is_some() {
            node.uid = set.uid.unwrap_or(node.uid);
            node.gid = set.gid.unwrap_or(node.gid);
            if kind != FileKind::Directory {
                clear_privileges(node);
                clear_capability(node);
            }
        }
        if let Some(mode) = set.mode {
            node.perm = (mode & 0o7777) as u16;
        }
        node.atime = set.atime.or(node.atime);
        node.mtime = set.mtime.or(node.mtime);
        Ok(())
    }

    /// Sets an extended attribute.
    pub fn setxattr(&mut self, id: Id, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Error> {
        let node = self.node_mut(id)?;
        match (mode, node.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Error::Exists),
            (XattrMode::Replace, false) => return Err(Error::NoAttribute),
            _ => {}
        }
        node.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    /// Removes an extended attribute.
    pub fn removexattr(&mut self, id: Id, name: &[u8]) -> Result<(), Error> {
        self.node_mut(id)?.xattrs.remove(name).map(|_| ()).ok_or(Error::NoAttribute)
    }

    /// One more handle.
    pub fn open(&mut self, id: Id) -> Result<(), Error> {
        self.node_mut(id)?.opens += 1;
        Ok(())
    }

    /// One handle less.
    pub fn release(&mut self, id: Id) {
        if let Ok(node) = self.node_mut(id) {
            node.opens = node.opens.saturating_sub(1);
        }
        self.forget_if_gone(id);
    }

    /// What a mount finds that comes after this one: nothing is open, what had no name is gone.
    pub fn remounted(&self) -> Model {
        let mut model = self.clone();
        let open: Vec<Id> = model.nodes().filter(|(_, n)| n.opens > 0).map(|(id, _)| id).collect();
        for id in open {
            if let Ok(node) = model.node_mut(id) {
                node.opens = 0;
            }
            model.forget_if_gone(id);
        }
        model
    }
}
