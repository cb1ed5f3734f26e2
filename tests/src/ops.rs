//! Operations: drawn as numbers, so that they shrink, and made concrete by the model they meet.

use std::ops::ControlFlow;

use cairn_volume::{
    Allocate, Caller, Error, FileKind, GcError, GcOptions, RenameMode, Timestamp, Volume, XattrMode,
};

use crate::dice::{Dice, data};
use crate::model::{Body, FILE_MAX, Id, Model, ROOT, Set};

/// An operation as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Picks the operation.
    pub kind: u8,
    /// Picks what it acts on, as do the others.
    pub a: u16,
    /// See `a`.
    pub b: u16,
    /// See `a`.
    pub c: u32,
    /// See `a`.
    pub d: u32,
}

impl Raw {
    /// One that a seed decides.
    pub fn draw(dice: &mut Dice) -> Raw {
        let (x, y) = (dice.roll(), dice.roll());
        Raw { kind: x as u8, a: (x >> 8) as u16, b: (x >> 24) as u16, c: y as u32, d: (y >> 32) as u32 }
    }
}

/// An operation on nodes of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the operations' arguments")]
pub enum Op {
    Create {
        dir: Id,
        name: Vec<u8>,
        mode: u32,
        umask: u32,
        owner: Caller,
    },
    Mkdir {
        dir: Id,
        name: Vec<u8>,
        mode: u32,
        umask: u32,
        owner: Caller,
    },
    Symlink {
        dir: Id,
        name: Vec<u8>,
        target: Vec<u8>,
    },
    Mknod {
        dir: Id,
        name: Vec<u8>,
    },
    Link {
        id: Id,
        dir: Id,
        name: Vec<u8>,
    },
    Unlink {
        dir: Id,
        name: Vec<u8>,
    },
    Rmdir {
        dir: Id,
        name: Vec<u8>,
    },
    Rename {
        from: Id,
        name: Vec<u8>,
        to: Id,
        new: Vec<u8>,
        mode: RenameMode,
    },
    Write {
        id: Id,
        offset: u64,
        len: usize,
        seed: u64,
        clear: bool,
    },
    Allocate {
        id: Id,
        offset: u64,
        len: u64,
        how: Allocate,
        clear: bool,
    },
    Copy {
        from: (Id, u64),
        to: (Id, u64),
        len: u64,
        clear: bool,
    },
    SetAttr {
        id: Id,
        set: Set,
        caller: u32,
    },
    SetXattr {
        id: Id,
        name: Vec<u8>,
        len: usize,
        seed: u64,
        mode: XattrMode,
    },
    RemoveXattr {
        id: Id,
        name: Vec<u8>,
    },
    Read {
        id: Id,
        offset: u64,
        len: u32,
    },
    Seek {
        id: Id,
        offset: u64,
    },
    List {
        id: Id,
    },
    Lookup {
        dir: Id,
        name: Vec<u8>,
    },
    /// With `O_TRUNC` the kernel opens, and then truncates for the caller.
    Open {
        id: Id,
        truncate: Option<u32>,
    },
    Release {
        id: Id,
    },
    Fsync {
        id: Id,
    },
    /// Everything is folded, a checkpoint written.
    Sync,
    /// What a volume does for itself, that nobody may see anything of.
    Upkeep(Upkeep),
}

/// Work in the background, as one call.
#[derive(Clone, Copy)]
pub struct Upkeep {
    /// What it is called.
    pub name: &'static str,
    /// Does it.
    pub on_volume: fn(&Volume) -> Result<(), Error>,
}

/// All of it: what is added here is drawn, too.
pub const UPKEEP: &[Upkeep] = &[
    // One round of folding and a checkpoint.
    Upkeep { name: "maintain", on_volume: |volume| volume.maintain().map(drop) },
    Upkeep { name: "collect", on_volume: collect },
    // Parity of closed segments, which last until a checkpoint.
    Upkeep { name: "protect", on_volume: protect },
];

fn protect(volume: &Volume) -> Result<(), Error> {
    volume.protect_journal();
    if volume.is_read_only() { Err(Error::Io) } else { Ok(()) }
}

/// Whatever is not live goes, and small packs become one.
fn collect(volume: &Volume) -> Result<(), Error> {
    match volume.gc(&GcOptions::default(), &mut |_| ControlFlow::Continue(())) {
        Ok(_) | Err(GcError::Busy) => Ok(()),
        Err(GcError::ReadOnly) => Err(Error::ReadOnly),
        Err(GcError::Failed(_)) => Err(Error::Io),
    }
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Upkeep {
    fn eq(&self, other: &Upkeep) -> bool {
        self.name == other.name
    }
}

impl Eq for Upkeep {}

/// How large what a workload writes is.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The longest write.
    pub write: u64,
    /// Files reach to about here, now and then.
    pub file: u64,
    /// …and, seldom, to here.
    pub sparse: u64,
}

fn name(n: u64) -> Vec<u8> {
    match n % 16 {
        15 if n % 240 == 15 => vec![b'n'; 256],
        15 if n % 240 == 31 => [&b""[..], b".", b"..", b"a/b", b"a\0b"][(n / 240 % 5) as usize].to_vec(),
        14 => vec![0xff, b'a' + (n / 16 % 3) as u8],
        13 => vec![b'l'; 255],
        n => vec![b'a' + n as u8],
    }
}

fn xattr(n: u32) -> Vec<u8> {
    let names: [&[u8]; 5] =
        [b"user.one", b"user.two", b"trusted.three", b"security.four", b"security.capability"];
    names[n as usize % 5].to_vec()
}

impl Raw {
    /// What this is in the state of `model`.
    pub fn resolve(&self, model: &Model, sizes: &Sizes) -> Op {
        let Raw { kind, a, b, c, d } = *self;
        let pick = |ids: &[Id], n: u16| ids.get(n as usize % ids.len().max(1)).copied().unwrap_or(ROOT);
        let of = |want: FileKind| -> Vec<Id> {
            model.nodes().filter(|(_, n)| n.kind() == want).map(|(id, _)| id).collect()
        };
        let dir = |n: u16| pick(&of(FileKind::Directory), n);
        let any: Vec<Id> = model.nodes().map(|(id, _)| id).collect();
        // Mostly files; now and then something else, to be refused.
        let file = |n: u16| if n % 64 == 63 { pick(&any, n / 64) } else { pick(&of(FileKind::Regular), n) };
        // A name that is there, or mostly so.
        let there = |dir: Id, n: u32| -> Vec<u8> {
            let names: Vec<_> = model.names(dir).map(|n| n.keys().cloned().collect()).unwrap_or_default();
            match names.len() as u32 {
                0 => name(n.into()),
                _ if n % 16 == 15 => name((n / 16).into()),
                len => names[(n % len) as usize].clone(),
            }
        };
        let size_of = |id: Id| model.content(id).map_or(0, |c| c.size);
        let (uid, gid) = (c % 3, d % 3);
        let offset = |id: Id| match d % 8 {
            0 | 1 => size_of(id),
            2 => u64::from(c) % (size_of(id) + 1),
            3 if d % 64 == 3 => u64::from(c) % sizes.sparse,
            // As far as a file can reach, so that no byte can be written there.
            4 if d % 128 == 4 => FILE_MAX,
            3 | 4 => (u64::from(c) % sizes.file) & !4095,
            _ => u64::from(c) % sizes.file,
        };
        let time = |n: u32| Some(Timestamp { secs: i64::from(n as i32) * 5, nanos: n % 1_000_000_000 });
        let owner = Caller { uid, gid };
        let umask = [0, 0o022, 0o077, 0o777][(c / 16 % 4) as usize];
        match kind {
            0..=24 => {
                let mode = if c % 16 == 3 { 0o6775 } else { 0o644 };
                Op::Create { dir: dir(a), name: name(b.into()), mode, umask, owner }
            }
            25..=34 => {
                let mode = if c % 8 == 3 { 0o2775 } else { 0o755 };
                Op::Mkdir { dir: dir(a), name: name(b.into()), mode, umask, owner }
            }
            35..=39 => {
                Op::Symlink { dir: dir(a), name: name(b.into()), target: vec![b't'; 1 + d as usize % 300] }
            }
            40..=42 => Op::Mknod { dir: dir(a), name: name(b.into()) },
            43..=50 => Op::Link { id: file(a), dir: dir(b), name: name(c.into()) },
            51..=66 => {
                let dir = dir(a);
                Op::Unlink { dir, name: there(dir, c) }
            }
            67..=71 => {
                let empty = |id: Id| model.names(id).is_ok_and(|names| names.is_empty());
                let places: Vec<(Id, Vec<u8>)> = of(FileKind::Directory)
                    .into_iter()
                    .flat_map(|dir| model.names(dir).into_iter().flatten().map(move |(n, id)| (dir, n, *id)))
                    .filter(|(_, _, id)| empty(*id))
                    .map(|(dir, name, _)| (dir, name.clone()))
                    .collect();
                match places.get(c as usize % places.len().max(1)) {
                    Some((dir, name)) if d % 4 > 0 => Op::Rmdir { dir: *dir, name: name.clone() },
                    _ => Op::Rmdir { dir: dir(a), name: there(dir(a), c) },
                }
            }
            72..=89 => {
                let (from, to) = (dir(a), dir(b));
                let mode = match d % 6 {
                    0 => RenameMode::NoReplace,
                    1 => RenameMode::Exchange,
                    2 if c % 4 == 0 => RenameMode::Whiteout { replace: c % 3 > 0, owner },
                    _ => RenameMode::Replace,
                };
                let new = if d % 4 < 2 { there(to, d / 8) } else { name((d / 8).into()) };
                Op::Rename { from, name: there(from, c), to, new, mode }
            }
            90..=96 => {
                let id = file(a);
                let how = [
                    Allocate::Reserve,
                    Allocate::ReserveKeepSize,
                    Allocate::Zero,
                    Allocate::ZeroKeepSize,
                    Allocate::Punch,
                    Allocate::Punch,
                ];
                let how = how[b as usize % how.len()];
                let len = match b % 16 {
                    5 => 1 + u64::from(c) % sizes.sparse,
                    6 if c % 8 == 0 => 0,
                    _ => 1 + u64::from(c) % sizes.write,
                };
                Op::Allocate { id, offset: offset(id), len, how, clear: d % 16 == 9 }
            }
            97..=106 => {
                // One in four within a file.
                let (from, to) = (file(a), file(if b % 4 == 1 { a } else { b }));
                let start = match c % 4 {
                    0 => 0,
                    1 => u64::from(c) % sizes.file,
                    _ => u64::from(c) % (size_of(from) + 1),
                };
                let len = if c % 8 == 7 { sizes.file * 2 } else { u64::from(c) % sizes.write };
                Op::Copy { from: (from, start), to: (to, offset(to)), len, clear: d % 16 == 9 }
            }
            107..=144 => {
                let id = file(a);
                let len = match b % 8 {
                    0 => 1,
                    1 | 2 => u64::from(b) % 600,
                    3 => sizes.write,
                    _ => u64::from(b) * 7 % sizes.write,
                };
                Op::Write { id, offset: offset(id), len: len as usize, seed: d.into(), clear: d % 32 == 9 }
            }
            145..=164 => {
                let id = file(a);
                let size = match b % 8 {
                    0 => 0,
                    1..=4 => u64::from(c) % (size_of(id) + 1),
                    5 if b % 64 == 5 => u64::from(c) % sizes.sparse,
                    _ => u64::from(c) % sizes.file,
                };
                Op::SetAttr { id, set: Set { size: Some(size), ..Set::default() }, caller: d % 2 }
            }
            165..=174 => {
                let set = match b % 5 {
                    4 => Set {
                        mode: Some(c & 0o7777),
                        uid: Some(c % 5),
                        gid: Some(d % 5),
                        size: (d % 4 == 1).then_some(u64::from(c) % sizes.file),
                        atime: time(c),
                        mtime: (d % 3 == 1).then_some(time(d)).flatten(),
                    },
                    0 => Set { mode: Some(c & 0o7777), ..Set::default() },
                    1 => Set { uid: Some(c % 5), ..Set::default() },
                    2 => Set { gid: Some(c % 5), mode: Some(d & 0o777), ..Set::default() },
                    _ => Set { mtime: time(c), atime: time(d), ..Set::default() },
                };
                Op::SetAttr { id: pick(&any, a), set, caller: 0 }
            }
            175..=184 => {
                let mode = match b % 4 {
                    0 => XattrMode::Create,
                    1 => XattrMode::Replace,
                    _ => XattrMode::Set,
                };
                let len = if c % 8 == 7 { 3000 } else { c as usize % 100 };
                Op::SetXattr { id: pick(&any, a), name: xattr(d), len, seed: c.into(), mode }
            }
            185..=189 => {
                let some = model.nodes().filter(|(_, n)| !n.xattrs.is_empty());
                let some: Vec<_> = some.map(|(id, n)| (id, n.xattrs.keys().next().cloned())).collect();
                match some.get(a as usize % some.len().max(1)) {
                    Some((id, Some(name))) if b % 4 > 0 => Op::RemoveXattr { id: *id, name: name.clone() },
                    _ => Op::RemoveXattr { id: pick(&any, a), name: xattr(d) },
                }
            }
            190..=205 => {
                let id = file(a);
                Op::Read { id, offset: offset(id), len: c % 30_000 }
            }
            206..=209 => {
                let id = file(a);
                Op::Seek { id, offset: offset(id) }
            }
            210..=213 if b % 8 == 7 => Op::List { id: pick(&any, a) },
            210..=213 => Op::List { id: dir(a) },
            214..=217 => {
                let dir = dir(a);
                Op::Lookup { dir, name: there(dir, c) }
            }
            218..=223 => {
                let truncate = (b % 3 == 1).then_some(c % 2);
                Op::Open { id: if truncate.is_some() { file(a) } else { pick(&any, a) }, truncate }
            }
            224..=229 => {
                let open: Vec<Id> = model.nodes().filter(|(_, n)| n.opens > 0).map(|(id, _)| id).collect();
                match open.is_empty() {
                    true => Op::List { id: ROOT },
                    false => Op::Release { id: pick(&open, a) },
                }
            }
            230..=241 => Op::Fsync { id: file(a) },
            242..=249 => Op::Upkeep(UPKEEP[a as usize % UPKEEP.len()]),
            _ => Op::Sync,
        }
    }
}

/// What an operation answers, as far as the model knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "results as they are")]
pub enum Answer {
    Done,
    Made(FileKind),
    Bytes(Vec<u8>),
    Names(Vec<Vec<u8>>),
    Copied(u64),
    Found(Option<FileKind>),
    /// The next data, if there is any, and the next hole.
    Places(Option<u64>, u64),
    Failed(Error),
}

impl Op {
    /// Does it to the model.
    pub fn on_model(&self, model: &mut Model) -> Answer {
        let result = match self {
            Op::Create { dir, name, mode, umask, owner } => {
                let (mode, owner) = (mode & !umask, (owner.uid, owner.gid));
                let made = model.make(*dir, name, Body::File(Default::default()), mode, owner);
                made.and_then(|id| model.open(id)).map(|()| Answer::Made(FileKind::Regular))
            }
            Op::Mkdir { dir, name, mode, umask, owner } => model
                .make(*dir, name, Body::Dir(Default::default(), *dir), mode & !umask, (owner.uid, owner.gid))
                .map(|_| Answer::Made(FileKind::Directory)),
            Op::Symlink { dir, name, target } => model
                .make(*dir, name, Body::Link(target.clone()), 0o777, (0, 0))
                .map(|_| Answer::Made(FileKind::Symlink)),
            Op::Mknod { dir, name } => model
                .make(*dir, name, Body::Special(FileKind::Fifo), 0o600, (0, 0))
                .map(|_| Answer::Made(FileKind::Fifo)),
            Op::Link { id, dir, name } => model.link(*id, *dir, name).map(|()| Answer::Done),
            Op::Unlink { dir, name } => model.remove(*dir, name, false).map(|()| Answer::Done),
            Op::Rmdir { dir, name } => model.remove(*dir, name, true).map(|()| Answer::Done),
            Op::Rename { from, name, to, new, mode } => {
                model.rename((*from, name), (*to, new), *mode).map(|()| Answer::Done)
            }
            Op::Write { id, offset, len, seed, clear } => {
                model.write(*id, *offset, &data(*seed, *len), *clear).map(|()| Answer::Done)
            }
            Op::Allocate { id, offset, len, how, clear } => {
                model.allocate(*id, *offset, *len, *how, *clear).map(|()| Answer::Done)
            }
            Op::Copy { from, to, len, clear } => model.copy(*from, *to, *len, *clear).map(Answer::Copied),
            Op::SetAttr { id, set, caller } => model.setattr(*id, set, *caller).map(|()| Answer::Done),
            Op::SetXattr { id, name, len, seed, mode } => {
                model.setxattr(*id, name, &data(*seed, *len), *mode).map(|()| Answer::Done)
            }
            Op::RemoveXattr { id, name } => model.removexattr(*id, name).map(|()| Answer::Done),
            Op::Read { id, offset, len } => match &model.node(*id).map(|n| &n.body) {
                Ok(Body::File(content)) => Ok(Answer::Bytes(content.read(*offset, *len as usize))),
                Ok(_) => Ok(Answer::Done),
                Err(error) => Err(*error),
            },
            Op::List { id } => model.names(*id).map(|n| Answer::Names(n.keys().cloned().collect())),
            Op::Lookup { dir, name } if name.len() > 255 => model.node(*dir).and(Err(Error::NameTooLong)),
            Op::Lookup { dir, name } if name == b"." => {
                Ok(Answer::Found(model.node(*dir).ok().map(|n| n.kind())))
            }
            Op::Lookup { dir, name } => model.lookup(*dir, name).map(|found| {
                let found = if name == b".." { model.parent(*dir) } else { found };
                Answer::Found(found.and_then(|id| model.node(id).ok()).map(|n| n.kind()))
            }),
            Op::Open { id, truncate } => model
                .open(*id)
                .and_then(|()| {
                    let set = Set { size: Some(0), ..Set::default() };
                    truncate.map_or(Ok(()), |caller| model.setattr(*id, &set, caller))
                })
                .map(|()| Answer::Done),
            Op::Release { id } => {
                model.release(*id);
                Ok(Answer::Done)
            }
            Op::Seek { id, offset } => match &model.node(*id).map(|n| &n.body) {
                Ok(Body::File(content)) if *offset >= content.size => Err(Error::NoData),
                Ok(Body::File(content)) => {
                    Ok(Answer::Places(content.next_data(*offset), content.next_hole(*offset)))
                }
                Ok(_) => Ok(Answer::Done),
                Err(error) => Err(*error),
            },
            Op::Fsync { .. } | Op::Sync | Op::Upkeep(_) => Ok(Answer::Done),
        };
        result.unwrap_or_else(Answer::Failed)
    }

    /// The states that a crash in the middle of this may leave, the last but one to the one before it:
    /// a long write is several records.
    pub fn steps(&self, model: &Model, record: usize) -> Vec<Model> {
        let Op::Write { id, offset, len, seed, clear } = self else { return Vec::new() };
        let bytes = data(*seed, *len);
        let mut now = model.clone();
        let mut steps = Vec::new();
        for (i, part) in bytes.chunks(record).enumerate() {
            if now.write(*id, offset + (i * record) as u64, part, *clear).is_err() {
                break;
            }
            steps.push(now.clone());
        }
        steps.pop();
        steps
    }

    /// Whether it makes everything before it certain.
    pub fn is_sync(&self) -> bool {
        matches!(self, Op::Fsync { .. } | Op::Sync)
    }
}
