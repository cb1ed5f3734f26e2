//! Does operations to a volume, as the model names them.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_volume::{Caller, Error, FileKind, SeekTo, SetAttr, TimeChange, Volume};

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
}

impl Driver {
    /// A volume whose inodes are known.
    pub fn new(volume: Arc<Volume>, inos: HashMap<Id, u64>) -> Driver {
        Driver { volume, inos }
    }

    /// A volume without files.
    pub fn empty(volume: Arc<Volume>) -> Driver {
        Driver { volume, inos: HashMap::from([(ROOT, 1)]) }
    }

    /// Learns from two trees that are the same which inode is which node.
    pub fn learn(volume: Arc<Volume>, model: &Tree, found: &Tree) -> Driver {
        let inos = model.iter().filter_map(|(path, e)| Some((e.ino, found.get(path)?.ino))).collect();
        Driver { volume, inos }
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
            Op::Create { dir, name, mode, uid, gid } => {
                let caller = Caller { uid: *uid, gid: *gid };
                let attr = volume.create(self.ino(*dir), name, *mode, 0, &caller)?;
                self.made(attr, next)
            }
            Op::Mkdir { dir, name, mode, uid, gid } => {
                let caller = Caller { uid: *uid, gid: *gid };
                let attr = volume.mkdir(self.ino(*dir), name, *mode, 0, &caller)?;
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
                volume.rename(self.ino(*from), name, self.ino(*to), new, *mode)?;
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
            Op::Seek { id, offset } => {
                self.seek(self.ino(*id), *offset)?;
                Answer::Done
            }
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
            Op::Open { id } => {
                volume.open(self.ino(*id))?;
                Answer::Done
            }
            Op::Release { id } => {
                volume.release(self.ino(*id));
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
            Op::Maintain => {
                volume.maintain()?;
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

    /// What `seek` calls a hole reads as zeros; what it skips as holes is none of data.
    fn seek(&self, ino: u64, offset: u64) -> Result<(), Error> {
        let size = self.volume.getattr(ino)?.size;
        let data = self.volume.seek(ino, offset, SeekTo::Data);
        let hole = self.volume.seek(ino, offset, SeekTo::Hole);
        if offset >= size {
            assert_eq!((data, hole), (Err(Error::NoData), Err(Error::NoData)), "behind the end at {size}");
            return Ok(());
        }
        let hole = hole?;
        let data = match data {
            Ok(at) => at,
            Err(Error::NoData) => size,
            Err(error) => return Err(error),
        };
        assert!(data >= offset && hole >= offset && data <= size && hole <= size);
        assert!((data == offset) != (hole == offset), "{offset} is data or a hole: {data} {hole}");
        if data > offset {
            let len = (data - offset).min(1 << 20) as u32;
            let bytes = self.volume.read(ino, offset, len)?;
            assert!(bytes.iter().all(|b| *b == 0), "a hole reads as zeros");
        }
        Ok(())
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
