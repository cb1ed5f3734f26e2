//! Names, inodes and what hangs on them: whether they agree with each other, all ways.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use cairn_format::{DirEntry, FileKind, Ino, Inode, OrderedEntry, View};

use crate::report::{CheckTotals, Finding, Findings};

/// The first inode number that is given out.
pub(crate) const FIRST_INO: u64 = 16;

/// What was seen of an inode.
mod seen {
    pub(super) const INODE: u8 = 1;
    pub(super) const EXTENTS: u8 = 2;
    pub(super) const TARGET: u8 = 4;
    pub(super) const ORPHAN: u8 = 8;
    pub(super) const UNLINKED: u8 = 16;
}

/// What is kept of an inode, named or not, until all keys were seen: 24 bytes.
#[derive(Default)]
pub(super) struct Node {
    /// Where its last bytes that are no hole end; of a symbolic link: its length.
    pub(super) end: u64,
    /// Stored bytes of its extents in the checkpoint's state.
    pub(super) stored: u64,
    names: u32,
    seen: u8,
    /// The upper four bits of its mode; of its first name's, until its inode is seen; 0 before both.
    kind: u8,
}

/// What is kept of a directory beside that.
#[derive(Default)]
pub(super) struct Dir {
    /// The directory that names it; 0 where none does.
    pub(super) parent: u64,
    /// A hash of each name's entry, less one of each entry of its order: 0 where both are the same.
    order: u64,
    subdirectories: u32,
    names: u32,
    /// Where the look for cycles stands: it was seen from the directory with this number.
    visited: u64,
}

/// All inodes and directories.
#[derive(Default)]
pub(crate) struct Tree {
    nodes: HashMap<u64, Node>,
    pub(super) dirs: HashMap<u64, Dir>,
    highest: u64,
    next_ino: Option<u64>,
    pub(crate) totals: CheckTotals,
}

fn code(kind: FileKind) -> u8 {
    (kind.mode() >> 12) as u8
}

fn word(kind: u8) -> &'static str {
    match FileKind::from_mode(u32::from(kind) << 12) {
        Some(FileKind::Regular) => "a file",
        Some(FileKind::Directory) => "a directory",
        Some(FileKind::Symlink) => "a symbolic link",
        Some(FileKind::Fifo) => "a named pipe",
        Some(FileKind::Socket) => "a socket",
        Some(FileKind::CharDevice | FileKind::BlockDevice) => "a device",
        None => "nothing",
    }
}

/// What an entry of a directory, found by name or by order, comes to.
fn entry_hash(ino: Ino, kind: FileKind, cookie: u64, name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(ino.0);
    hasher.write_u8(code(kind));
    hasher.write_u64(cookie);
    hasher.write(name);
    hasher.finish()
}

impl Tree {
    pub(super) fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.entry(ino.0).or_default()
    }

    fn dir(&mut self, ino: Ino) -> &mut Dir {
        self.dirs.entry(ino.0).or_default()
    }

    /// An inode's node, if the inode itself was seen: right only behind all inodes.
    fn existing(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino.0).filter(|node| node.seen & seen::INODE != 0)
    }

    pub(super) fn name(&mut self, dir: Ino, name: &[u8], entry: &DirEntry, findings: &mut Findings) {
        if entry.view != View::LIVE || !cairn_format::key::is_name(name) {
            let what =
                format!("{:?} in directory {dir} is no name that can be", String::from_utf8_lossy(name));
            findings.push(Finding::damage("name", what).inode(entry.ino));
        }
        let node = self.node(entry.ino);
        node.names += 1;
        if node.kind == 0 {
            node.kind = code(entry.kind);
        } else if node.kind != code(entry.kind) {
            let what = format!("one name says it is {}, another {}", word(node.kind), word(code(entry.kind)));
            findings.push(Finding::damage("name-kind", what).inode(entry.ino));
        }
        if entry.kind == FileKind::Directory {
            let child = self.dir(entry.ino);
            if child.parent != 0 {
                let what = format!("the directory has two names, in directories {} and {dir}", child.parent);
                findings.push(Finding::damage("directory-names", what).inode(entry.ino));
            }
            child.parent = dir.0;
            self.dir(dir).subdirectories += 1;
        }
        let hash = entry_hash(entry.ino, entry.kind, entry.cookie, name);
        let dir = self.dir(dir);
        dir.names += 1;
        dir.order = dir.order.wrapping_add(hash);
    }

    pub(super) fn ordered(&mut self, dir: Ino, cookie: u64, entry: &OrderedEntry) {
        let hash = entry_hash(entry.ino, entry.kind, cookie, &entry.name);
        let dir = self.dir(dir);
        dir.order = dir.order.wrapping_sub(hash);
    }

    /// Notes a file's extents; `end` is where the last bytes that are no hole end.
    pub(super) fn extent(&mut self, ino: Ino, end: u64) {
        let node = self.node(ino);
        node.seen |= seen::EXTENTS;
        node.end = node.end.max(end);
    }

    pub(super) fn inode(&mut self, ino: Ino, inode: &Inode, findings: &mut Findings) {
        let mut wrong =
            |kind: &'static str, what: String| findings.push(Finding::damage(kind, what).inode(ino));
        let kind = inode.kind();
        self.highest = self.highest.max(ino.0);
        self.totals.inodes += 1;
        self.totals.files += u64::from(kind == FileKind::Regular);
        self.totals.directories += u64::from(kind == FileKind::Directory);
        let (parent, subdirectories) =
            self.dirs.get(&ino.0).map_or((0, 0), |dir| (dir.parent, dir.subdirectories));
        let node = self.node(ino);
        node.seen |= seen::INODE;
        if node.kind != 0 && node.kind != code(kind) {
            wrong(
                "name-kind",
                format!("its name says it is {}, its inode {}", word(node.kind), word(code(kind))),
            );
        }
        node.kind = code(kind);
        if inode.nlink == 0 {
            node.seen |= seen::UNLINKED;
        }
        let root = ino == Ino::ROOT;
        let expected = match kind {
            FileKind::Directory if node.names > 0 || root => subdirectories.saturating_add(2),
            FileKind::Directory => 0,
            _ => node.names,
        };
        if node.names == 0 && !root && inode.nlink > 0 {
            wrong("no-name", format!("its link count is {}, but no directory names it", inode.nlink));
        } else if inode.nlink != expected {
            wrong("link-count", format!("its link count is {}, it should be {expected}", inode.nlink));
        }
        let should_lie_in = match kind {
            FileKind::Directory if root => Some(Ino::ROOT.0),
            FileKind::Directory => (node.names > 0).then_some(parent),
            _ => Some(0),
        };
        if should_lie_in.is_some_and(|should| should != inode.parent.0) {
            let says = inode.parent;
            wrong("parent", format!("its inode says that it lies in directory {says}, it lies in {parent}"));
        }
        if node.seen & seen::EXTENTS != 0 && kind != FileKind::Regular {
            wrong("extents", format!("it is {}, but has file bytes", word(code(kind))));
        } else if node.end > inode.size {
            let (end, size) = (node.end, inode.size);
            wrong("beyond-end", format!("it is {size} bytes long, but has bytes up to {end}"));
        }
        if kind == FileKind::Symlink {
            node.end = inode.size;
        }
    }

    pub(super) fn target(&mut self, ino: Ino, target: &[u8], findings: &mut Findings) {
        let mut wrong = |what: &str| findings.push(Finding::damage("target", what).inode(ino));
        match self.existing(ino) {
            Some(node) if node.kind == code(FileKind::Symlink) => {
                node.seen |= seen::TARGET;
                if node.end != target.len() as u64 || target.is_empty() {
                    wrong("its target is not as long as its inode says");
                }
            }
            Some(_) => wrong("it is no symbolic link, but has a target"),
            None => wrong("a symbolic link's target, but there is no such inode"),
        }
    }

    pub(super) fn xattr(&mut self, ino: Ino, findings: &mut Findings) {
        if self.existing(ino).is_none() {
            findings.push(
                Finding::damage("xattr", "an extended attribute, but there is no such inode").inode(ino),
            );
        }
    }

    pub(super) fn orphan(&mut self, ino: Ino, clean: bool, findings: &mut Findings) {
        let finding = match self.existing(ino) {
            None => Finding::damage("orphan", "it is to be removed, but there is no such inode"),
            Some(node) if node.seen & seen::UNLINKED == 0 => {
                Finding::damage("orphan", "it is to be removed, but its link count is not 0")
            }
            Some(node) => {
                node.seen |= seen::ORPHAN;
                let when = if clean { "" } else { " when the volume was not unmounted cleanly" };
                Finding::info(
                    "orphan",
                    format!("it was open without a name{when}; the next mount removes it"),
                )
            }
        };
        findings.push(finding.inode(ino));
    }

    pub(super) fn next_ino(&mut self, next: u64) {
        self.next_ino = Some(next);
    }

    /// Directories whose names and whose order are not the same.
    pub(super) fn out_of_order(&self) -> Vec<u64> {
        let mut dirs: Vec<_> = self.dirs.iter().filter(|(_, d)| d.order != 0).map(|(ino, _)| *ino).collect();
        dirs.sort_unstable();
        dirs
    }

    /// What can be told only behind the last key.
    pub(super) fn finish(&mut self, findings: &mut Findings) {
        let root = self.nodes.get(&Ino::ROOT.0).filter(|node| node.seen & seen::INODE != 0);
        if root.is_none_or(|node| node.kind != code(FileKind::Directory)) {
            findings.push(Finding::damage("root", "there is no root directory").inode(Ino::ROOT));
        }
        if let Some(next) = self.next_ino.filter(|next| !(FIRST_INO..=Ino::MAX.0).contains(next)) {
            let what = format!("the next inode would have number {next}, which none can have");
            findings.push(Finding::damage("next-inode", what));
        } else if self.next_ino.is_none_or(|next| next <= self.highest) {
            let what = format!(
                "inode numbers below {} are reserved, but inode {} is there",
                self.next_ino.unwrap_or(0),
                self.highest
            );
            findings.push(Finding::damage("next-inode", what));
        }
        let mut wrong: Vec<(u64, &'static str, String)> = Vec::new();
        for (ino, node) in &self.nodes {
            let has = |what: u8| node.seen & what != 0;
            if !has(seen::INODE) {
                if node.names > 0 {
                    wrong.push((*ino, "no-inode", "it has a name, but there is no such inode".into()));
                }
                if has(seen::EXTENTS) {
                    wrong.push((*ino, "extents", "file bytes, but there is no such inode".into()));
                }
                continue;
            }
            if node.kind == code(FileKind::Symlink) && !has(seen::TARGET) {
                wrong.push((*ino, "target", "a symbolic link without a target".into()));
            }
            if has(seen::UNLINKED) && !has(seen::ORPHAN) {
                let what = "its link count is 0, but it is not marked to be removed";
                wrong.push((*ino, "orphan", what.into()));
            }
        }
        for (ino, dir) in self.dirs.iter().filter(|(_, dir)| dir.names > 0) {
            let node = self.nodes.get(ino).filter(|node| node.seen & seen::INODE != 0);
            if node.is_none_or(|node| node.kind != code(FileKind::Directory)) {
                let what = format!("{} names lie in it, but it is no directory", dir.names);
                wrong.push((*ino, "no-directory", what));
            }
        }
        self.cycles(&mut wrong);
        wrong.sort_unstable();
        for (ino, kind, what) in wrong {
            findings.push(Finding::damage(kind, what).inode(Ino(ino)));
        }
    }

    /// Directories that name each other in a circle. Each has one parent at most, so that a way up either
    /// ends, or meets one taken before, or itself.
    fn cycles(&mut self, wrong: &mut Vec<(u64, &'static str, String)>) {
        let all: Vec<u64> = self.dirs.keys().copied().collect();
        for from in all {
            let mut at = from;
            while at != 0
                && at != Ino::ROOT.0
                && let Some(dir) = self.dirs.get_mut(&at)
            {
                if dir.visited != 0 {
                    if dir.visited == from {
                        wrong.push((at, "cycle", "the directory lies within itself".into()));
                    }
                    break;
                }
                dir.visited = from;
                at = dir.parent;
            }
        }
    }
}
