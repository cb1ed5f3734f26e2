//! What there is in a namespace, inode by inode: enough to tell what has to change.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use cairn_format::key::Key;
use cairn_format::{
    DirEntry, EXTENT_RANGE, FileKind, Ino, Inode, Lsn, OrderedEntry, PieceKind, View, decode_pieces,
};
use cairn_volume::ChainReadError;

use super::missing::Missing;
use crate::namespace::{FIRST_INO, Gap, Names};

/// What was seen of an inode.
mod seen {
    pub(super) const INODE: u8 = 1;
    pub(super) const EXTENTS: u8 = 2;
    pub(super) const TARGET: u8 = 4;
    pub(super) const ORPHAN: u8 = 8;
    /// There is none, but enough is left to make one.
    pub(super) const REBUILT: u8 = 16;
    /// There is one, but nothing that makes it worth keeping.
    pub(super) const GONE: u8 = 32;
}

/// What is kept of an inode: 24 bytes.
#[derive(Default)]
pub(super) struct Node {
    /// Where its last bytes that are no hole end; of a symbolic link: its length.
    pub(super) end: u64,
    /// Stored bytes of its extents.
    pub(super) stored: u64,
    pub(super) names: u32,
    seen: u8,
    /// The upper four bits of its mode; 0 where it has none.
    kind: u8,
    /// Its link count, as far as that goes.
    links: u16,
}

/// What is kept of a directory beside that.
#[derive(Default)]
pub(super) struct Dir {
    /// The directory that its inode says it lies in.
    pub(super) claimed: u64,
    /// The one that names it; 0 where none does.
    pub(super) parent: u64,
    /// A hash of each name's entry, less one of each entry of its order: 0 where both are the same.
    order: u64,
    /// Names that lie in it.
    children: u32,
    pub(super) subdirectories: u32,
    /// Where the look for cycles stands: it was seen from the directory with this number.
    pub(super) visited: u64,
}

/// Extents that make no sense, of a file that is so long.
#[derive(Default)]
pub(super) struct Senseless {
    ranges: Vec<u64>,
    size: u64,
}

/// All inodes and directories.
pub(super) struct Survey {
    nodes: HashMap<u64, Node>,
    pub(super) dirs: HashMap<u64, Dir>,
    senseless: HashMap<u64, Senseless>,
    highest: u64,
    next_ino: u64,
    /// The lowest LSN that an extent names, if any does.
    pub(super) lowest: Option<Lsn>,
    pub(super) missing: Missing,
    /// Whether anything may be lost: what is missing is made up for, or given up.
    pub(super) may_lose: bool,
}

fn code(kind: FileKind) -> u8 {
    (kind.mode() >> 12) as u8
}

fn entry_hash(ino: Ino, kind: FileKind, cookie: u64, name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(ino.0);
    hasher.write_u8(code(kind));
    hasher.write_u64(cookie);
    hasher.write(name);
    hasher.finish()
}

impl Survey {
    /// Goes through all keys.
    pub(super) fn new(names: &Names<'_>, may_lose: bool, gaps: &[Gap]) -> Result<Survey, ChainReadError> {
        let mut survey = Survey {
            nodes: HashMap::new(),
            dirs: HashMap::new(),
            senseless: HashMap::new(),
            highest: 0,
            next_ino: 0,
            lowest: None,
            missing: Missing::new(gaps),
            may_lose,
        };
        let mut walk = names.walk()?;
        while let Some(entry) = walk.next()? {
            if let (Some(key), Some(value)) = (live(&entry.key), entry.now()) {
                survey.key(&key, value);
            }
        }
        let Survey { missing, nodes, .. } = &mut survey;
        missing.settle(|ino| nodes.get(&ino).is_some_and(|node| node.seen & seen::INODE != 0));
        survey.settle();
        Ok(survey)
    }

    fn key(&mut self, key: &Key, value: &[u8]) {
        match key {
            Key::Name(dir, name, _) => {
                if let Ok(entry) = DirEntry::decode(value) {
                    let hash = entry_hash(entry.ino, entry.kind, entry.cookie, name);
                    let dir = self.dirs.entry(dir.0).or_default();
                    dir.children += 1;
                    dir.order = dir.order.wrapping_add(hash);
                    self.nodes.entry(entry.ino.0).or_default();
                }
            }
            Key::Extent(ino, range, _) => self.extent(*ino, *range, value),
            Key::Inode(ino, _) => self.inode(*ino, value),
            Key::Target(ino, _) if !value.is_empty() => {
                let node = self.nodes.entry(ino.0).or_default();
                node.seen |= seen::TARGET;
                if node.seen & seen::INODE == 0 || node.kind == code(FileKind::Symlink) {
                    node.end = value.len() as u64;
                }
            }
            Key::NextInode => {
                self.next_ino = <[u8; 8]>::try_from(value).map_or(0, u64::from_le_bytes);
            }
            Key::Order(dir, cookie, _) => {
                let hash = match OrderedEntry::decode(value) {
                    Ok(entry) => entry_hash(entry.ino, entry.kind, *cookie, &entry.name),
                    // Of no entry: the order is not what the names say.
                    Err(_) => 1,
                };
                let dir = self.dirs.entry(dir.0).or_default();
                dir.order = dir.order.wrapping_sub(hash);
            }
            Key::Orphan(ino, _) => self.nodes.entry(ino.0).or_default().seen |= seen::ORPHAN,
            _ => {}
        }
    }

    fn extent(&mut self, ino: Ino, range: u64, value: &[u8]) {
        let node = self.nodes.entry(ino.0).or_default();
        node.seen |= seen::EXTENTS;
        match decode_pieces(value) {
            Ok(pieces) => {
                self.missing.note(ino, range, &pieces);
                let mut at = range * EXTENT_RANGE;
                for piece in &pieces {
                    at += u64::from(piece.len);
                    if piece.kind != PieceKind::Hole {
                        node.end = node.end.max(at);
                    }
                    if let PieceKind::Journal(place) = piece.kind {
                        self.lowest = Some(self.lowest.map_or(place.lsn, |lowest| lowest.min(place.lsn)));
                    }
                }
            }
            Err(_) => self.senseless.entry(ino.0).or_default().ranges.push(range),
        }
    }

    fn inode(&mut self, ino: Ino, value: &[u8]) {
        let Ok(inode) = Inode::decode(value) else { return };
        let kind = inode.kind();
        self.highest = self.highest.max(ino.0);
        let node = self.nodes.entry(ino.0).or_default();
        node.seen |= seen::INODE;
        node.kind = code(kind);
        node.links = u16::try_from(inode.nlink).unwrap_or(u16::MAX);
        if kind == FileKind::Directory {
            self.dirs.entry(ino.0).or_default().claimed = inode.parent.0;
        }
        if kind == FileKind::Regular {
            self.missing.inode(ino, &inode);
        }
        if let Some(senseless) = self.senseless.get_mut(&ino.0) {
            senseless.size = inode.size;
        }
    }

    /// Settles what is there, what is made again from what is left of it, and what goes.
    fn settle(&mut self) {
        if !self.may_lose {
            return;
        }
        self.nodes.entry(Ino::ROOT.0).or_default();
        let has_children = |dir: u64| self.dirs.get(&dir).is_some_and(|dir| dir.children > 0);
        // What lies in a directory that is gone needs it, whether anything names it or not.
        let nameless: Vec<u64> = self
            .dirs
            .keys()
            .copied()
            .filter(|dir| has_children(*dir) && !self.nodes.contains_key(dir))
            .collect();
        for dir in nameless {
            self.nodes.entry(dir).or_default();
        }
        for (ino, node) in &mut self.nodes {
            let was = node.seen;
            let has = |what: u8| was & what != 0;
            if has(seen::INODE) {
                let is_link = node.kind == code(FileKind::Symlink);
                if (is_link && !has(seen::TARGET))
                    || (*ino == Ino::ROOT.0 && node.kind != code(FileKind::Directory))
                {
                    node.seen |= seen::GONE;
                }
                if *ino != Ino::ROOT.0 {
                    continue;
                }
            }
            if has(seen::INODE) && node.seen & seen::GONE == 0 {
                continue;
            }
            let children = self.dirs.get(ino).is_some_and(|dir| dir.children > 0);
            let kind = match () {
                () if *ino == Ino::ROOT.0 || children => FileKind::Directory,
                () if has(seen::EXTENTS) => FileKind::Regular,
                () if has(seen::TARGET) => FileKind::Symlink,
                () => continue,
            };
            node.kind = code(kind);
            node.seen = node.seen & !seen::GONE | seen::REBUILT;
            self.highest = self.highest.max(*ino);
            if kind == FileKind::Directory {
                self.dirs.entry(*ino).or_default();
            }
        }
    }

    pub(super) fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.entry(ino.0).or_default()
    }

    /// What an inode is, if there is one, or will be.
    pub(super) fn kind(&self, ino: Ino) -> Option<FileKind> {
        let node = self.nodes.get(&ino.0)?;
        let there = node.seen & (seen::INODE | seen::REBUILT) != 0 && node.seen & seen::GONE == 0;
        if there { FileKind::from_mode(u32::from(node.kind) << 12) } else { None }
    }

    pub(super) fn is_directory(&self, ino: Ino) -> bool {
        self.kind(ino) == Some(FileKind::Directory)
    }

    pub(super) fn is_orphan(&self, ino: Ino) -> bool {
        self.nodes.get(&ino.0).is_some_and(|node| node.seen & seen::ORPHAN != 0)
    }

    pub(super) fn names(&self, ino: Ino) -> u32 {
        self.nodes.get(&ino.0).map_or(0, |node| node.names)
    }

    /// Whether its link count says that it has a name more than were found.
    pub(super) fn lacks_a_name(&self, ino: Ino) -> bool {
        self.nodes.get(&ino.0).is_some_and(|node| {
            node.seen & seen::ORPHAN == 0
                && match node.kind == code(FileKind::Directory) {
                    true => node.names == 0,
                    false => node.names < node.links.into(),
                }
        })
    }

    /// Inodes to be made again, in order.
    pub(super) fn rebuilt(&self) -> Vec<Ino> {
        self.all(|_, node| node.seen & seen::REBUILT != 0)
    }

    /// Inodes that no name leads to, though they are not on their way out.
    pub(super) fn nameless(&self) -> Vec<Ino> {
        self.all(|ino, node| {
            node.names == 0 && ino != Ino::ROOT && node.seen & seen::ORPHAN == 0 && self.kind(ino).is_some()
        })
    }

    fn all(&self, wanted: impl Fn(Ino, &Node) -> bool) -> Vec<Ino> {
        let mut all: Vec<Ino> = self
            .nodes
            .iter()
            .map(|(ino, node)| (Ino(*ino), node))
            .filter(|(ino, node)| wanted(*ino, node))
            .map(|(ino, _)| ino)
            .collect();
        all.sort_unstable();
        all
    }

    /// Directories whose names and whose order are not the same.
    pub(super) fn out_of_order(&self) -> impl Iterator<Item = u64> {
        self.dirs.iter().filter(|(_, dir)| dir.order != 0).map(|(ino, _)| *ino)
    }

    /// A number that no inode has, nor had.
    pub(super) fn take_ino(&mut self) -> Option<Ino> {
        let ino = self.next_ino();
        self.next_ino = ino + 1;
        (ino <= Ino::MAX.0).then_some(Ino(ino))
    }

    /// The first number that no inode has, nor had.
    pub(super) fn next_ino(&self) -> u64 {
        let said = if self.next_ino <= Ino::MAX.0 { self.next_ino } else { 0 };
        said.max(self.highest + 1).max(FIRST_INO)
    }

    /// An inode that is made up.
    pub(super) fn make(&mut self, ino: Ino, kind: FileKind) {
        self.node(ino).seen |= seen::REBUILT;
        self.node(ino).kind = code(kind);
        if kind == FileKind::Directory {
            self.dirs.entry(ino.0).or_default();
        }
    }

    /// How long a range is that made no sense, as far as its file's length tells.
    pub(super) fn senseless(&self, ino: Ino, range: u64) -> u64 {
        let Some(senseless) = self.senseless.get(&ino.0) else { return 0 };
        let start = range.saturating_mul(EXTENT_RANGE);
        if senseless.ranges.contains(&range) {
            senseless.size.saturating_sub(start).min(EXTENT_RANGE)
        } else {
            0
        }
    }

    /// Forgets what is counted anew while the namespace is written.
    pub(super) fn count_anew(&mut self) {
        for node in self.nodes.values_mut() {
            (node.names, node.stored) = (0, 0);
            if node.kind != code(FileKind::Symlink) {
                node.end = 0;
            }
        }
        for dir in self.dirs.values_mut() {
            (dir.parent, dir.subdirectories) = (0, 0);
        }
    }
}

/// A key, if it is one of the live view's.
pub(super) fn live(key: &[u8]) -> Option<Key> {
    let key = Key::decode(key)?;
    let view = match &key {
        Key::Name(_, _, view)
        | Key::Extent(_, _, view)
        | Key::Inode(_, view)
        | Key::Target(_, view)
        | Key::Order(_, _, view)
        | Key::Orphan(_, view)
        | Key::Xattr(_, _, view) => *view,
        Key::NextInode | Key::Totals | Key::Pack(_) => View::LIVE,
    };
    (view == View::LIVE).then_some(key)
}
