//! Does operations to a volume, as the model names them.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_volume::{Caller, Error, FileKind, RenameMode, SeekTo, SetAttr, TimeChange, Volume};

use crate::dice::data;
use crate::model::{Id, Model, ROOT};
use crate::ops::{Answer, Op};
use crate::tree::{self, Listed, Tree};

/// A mounted volume, and which of its inodes are which of the model's nodes.
pub struct Driver {
    /// The volume.
    pub volume: Arc<Volume>,
    /// `st_ino` by node.
    pub inos: HashMap<Id, u64>,
    /// Opens are not told, but what nobody can reach any more is: as most kernels have it.
    forgets: bool,
}

impl Driver {
    /// A volume whose inodes are known.
    pub fn new(volume: Arc<Volume>, inos: HashMap<Id, u64>) -> Driver {
        Driver { volume, inos, forgets: false }
    }

    /// A volume without files.
    pub fn empty(volume: Arc<Volume>) -> Driver {
        Driver::new(volume, HashMap::from([(ROOT, 1)]))
    }

    /// Learns from two trees that are the same which inode is which node.
    pub fn learn(volume: Arc<Volume>, model: &Tree, found: &Tree) -> Driver {
        let inos = model.iter().filter_map(|(path, e)| Some((e.ino, found.get(path)?.ino))).collect();
        Driver { volume, inos, forgets: false }
    }

    /// From here on opens are not told. To be called before the first operation.
    pub fn forgetting(mut self) -> Driver {
        self.volume.expect_forgets();
        self.forgets = true;
        self
    }

    /// As the kernel, forgets a node that is none of the model's any more; those that still have a name it may forget at
    /// any time.
    pub fn settle(&self, model: &Model) {
        if !self.forgets {
            return;
        }
        let unreachable =
            |id: &Id| model.node(*id).map_or(true, |n| n.nlink > 0 && n.opens == 0 && id.is_multiple_of(3));
        let inos: Vec<u64> =
            self.inos.iter().filter(|(id, _)| unreachable(id)).map(|(_, ino)| *ino).collect();
        self.volume.forget(&inos);
    }

    fn ino(&self, id: Id) -> u64 {
        // A node that never came to be: no inode has this number.
        self.inos.get(&id).copied().unwrap_or((1 << 48) - 1)
    }

    /// Does `op`; what it makes will be `next` in the model.
    pub fn apply(&mut self, op: &Op, next: Id) -> Answer {
        match self.try_apply(op, next) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(error),
        }
    }

    fn made(&mut self, attr: cairn_volume::Attr, next: Id) -> Answer {
        self.inos.insert(next, attr.ino);
        Answer::Made(attr.kind)
    }

    fn try_apply(&mut self, op: &Op, next: Id) -> Result<Answer, Error> {
        let volume = self.volume.clone();
        Ok(match op {
            Op::Create { dir, name, mode, umask, owner } => {
                let attr = match self.forgets {
                    false => volume.create(self.ino(*dir), name, *mode, *umask, owner)?,
                    true => {
                        let mode = FileKind::Regular.mode() | mode;
                        volume.mknod(self.ino(*dir), name, mode, *umask, 0, owner)?
                    }
                };
                self.made(attr, next)
            }
            Op::Mkdir { dir, name, mode, umask, owner } => {
                let attr = volume.mkdir(self.ino(*dir), name, *mode, *umask, owner)?;
                self.made(attr, next)
            }
            Op::Symlink { dir, name, target } => {
                let attr = volume.symlink(self.ino(*dir), name, target, &Caller::default())?;
                self.made(attr, next)
            }
            Op::Mknod { dir, name } => {
                let mode = FileKind::Fifo.mode() | 0o600;
                let attr = volume.mknod(self.ino(*dir), name, mode, 0, 0, &Caller::default())?;
                self.made(attr, next)
            }
            Op::Link { id, dir, name } => {
                volume.link(self.ino(*id), self.ino(*dir), name)?;
                Answer::Done
            }
            Op::Unlink { dir, name } => {
                volume.unlink(self.ino(*dir), name)?;
                Answer::Done
            }
            Op::Rmdir { dir, name } => {
                volume.rmdir(self.ino(*dir), name)?;
                Answer::Done
            }
            Op::Rename { from, name, to, new, mode } => {
                let (from, to) = (self.ino(*from), self.ino(*to));
                volume.rename(from, name, to, new, *mode)?;
                // A whiteout is a node of its own; none is made where both names were one file's.
                if let RenameMode::Whiteout { .. } = mode
                    && let Some(attr) = volume.lookup(from, name)?
                    && self.inos.values().all(|known| *known != attr.ino)
                {
                    self.inos.insert(next, attr.ino);
                }
                Answer::Done
            }
            Op::Write { id, offset, len, seed, clear } => {
                volume.write(self.ino(*id), *offset, &data(*seed, *len), *clear)?;
                Answer::Done
            }
            Op::Allocate { id, offset, len, how, clear } => {
                volume.allocate(self.ino(*id), *offset, *len, *how, *clear)?;
                Answer::Done
            }
            Op::Copy { from, to, len, clear } => {
                let (from, to) = ((self.ino(from.0), from.1), (self.ino(to.0), to.1));
                Answer::Copied(volume.copy_range(from, to, *len, *clear)?)
            }
            Op::SetAttr { id, set, caller } => {
                let change = SetAttr {
                    mode: set.mode,
                    uid: set.uid,
                    gid: set.gid,
                    size: set.size,
                    atime: set.atime.map(TimeChange::To),
                    mtime: set.mtime.map(TimeChange::To),
                };
                volume.setattr(self.ino(*id), &change, &Caller { uid: *caller, gid: *caller })?;
                Answer::Done
            }
            Op::SetXattr { id, name, len, seed, mode } => {
                volume.setxattr(self.ino(*id), name, &data(*seed, *len), *mode)?;
                Answer::Done
            }
            Op::RemoveXattr { id, name } => {
                volume.removexattr(self.ino(*id), name)?;
                Answer::Done
            }
            Op::Read { id, offset, len } => {
                let attr = volume.getattr(self.ino(*id))?;
                match attr.kind {
                    FileKind::Regular => Answer::Bytes(volume.read(attr.ino, *offset, *len)?),
                    _ => Answer::Done,
                }
            }
            Op::Seek { id, offset } => self.seek(self.ino(*id), *offset)?,
            Op::List { id } => {
                let all = tree::list(&volume, self.ino(*id))?;
                self.check_resumption(self.ino(*id), &all)?;
                let mut names: Vec<_> = all.into_iter().skip(2).map(|item| item.name).collect();
                names.sort();
                Answer::Names(names)
            }
            Op::Lookup { dir, name } => {
                Answer::Found(volume.lookup(self.ino(*dir), name)?.map(|attr| attr.kind))
            }
            Op::Open { id, truncate } => {
                match self.forgets {
                    false => volume.open(self.ino(*id))?,
                    true => drop(volume.getattr(self.ino(*id))?),
                }
                if let Some(uid) = truncate {
                    let empty = SetAttr { size: Some(0), ..SetAttr::default() };
                    volume.setattr(self.ino(*id), &empty, &Caller { uid: *uid, gid: *uid })?;
                }
                Answer::Done
            }
            Op::Release { id } => {
                if !self.forgets {
                    volume.release(self.ino(*id));
                }
                Answer::Done
            }
            Op::Fsync { id } => {
                volume.fsync(self.ino(*id), false)?;
                Answer::Done
            }
            Op::Sync => {
                volume.sync()?;
                Answer::Done
            }
            Op::Upkeep(upkeep) => {
                (upkeep.on_volume)(&volume)?;
                Answer::Done
            }
        })
    }

    /// A listing that goes on behind any cookie is the rest of the whole.
    fn check_resumption(&self, dir: u64, all: &[Listed]) -> Result<(), Error> {
        for (i, item) in all.iter().enumerate() {
            let mut rest = Vec::new();
            self.volume.readdir(dir, item.cookie, &mut |item| {
                rest.push(item.cookie);
                true
            })?;
            let expected: Vec<_> = all[i + 1..].iter().map(|item| item.cookie).collect();
            assert_eq!(rest, expected, "directory {dir} behind cookie {}", item.cookie);
        }
        Ok(())
    }

    /// The next data and the next hole.
    fn seek(&self, ino: u64, offset: u64) -> Result<Answer, Error> {
        if self.volume.getattr(ino)?.kind != FileKind::Regular {
            return Ok(Answer::Done);
        }
        let hole = self.volume.seek(ino, offset, SeekTo::Hole);
        match self.volume.seek(ino, offset, SeekTo::Data) {
            Ok(data) => Ok(Answer::Places(Some(data), hole?)),
            Err(Error::NoData) => Ok(Answer::Places(None, hole?)),
            Err(error) => Err(error),
        }
    }

    /// That the volume is what the model is; which inodes are which.
    pub fn compare(&self, model: &Model) -> Result<Tree, String> {
        let found = tree::of_volume(&self.volume)?;
        let expected = tree::of_model(model);
        if let Some(difference) = tree::difference(&expected, &found) {
            return Err(difference);
        }
        for (path, e) in &expected {
            if self.ino(e.ino) != found[path].ino {
                return Err(format!("{path:?} was inode {}, is {}", self.ino(e.ino), found[path].ino));
            }
        }
        Ok(found)
    }
}
