//! The values that follow from others, counted while a namespace is written: link counts, parents, lengths, stored bytes, and
//! what it all adds up to. In the order of the keys names and extents come before inodes, and those before the sums.

use cairn_format::key::Key;
use cairn_format::{
    DirEntry, EXTENT_RANGE, FileKind, Ino, Inode, Piece, PieceKind, decode_pieces, encode_pieces,
};

use super::survey::Survey;
use crate::namespace::{Counts, PieceCheck, Wish, given_up};

/// What is counted so far.
pub(super) struct Recount<'a> {
    pub(super) survey: &'a mut Survey,
    pub(super) counts: Counts,
    pub(super) pieces: PieceCheck<'a>,
    pub(super) wish: Wish,
}

impl Recount<'_> {
    /// What a key's value has to be; none where the key has to go. Those of the sums are left out.
    pub(super) fn value(&mut self, key: Option<&Key>, value: Vec<u8>) -> Option<Vec<u8>> {
        match key {
            Some(Key::Name(dir, ..)) => {
                self.name(*dir, &value);
                Some(value)
            }
            Some(Key::Extent(ino, range, _)) => self.extent(*ino, *range, value),
            Some(Key::Inode(ino, _)) => Some(self.inode(*ino, &value).unwrap_or(value)),
            Some(Key::NextInode | Key::Totals | Key::Pack(_)) => None,
            _ => Some(value),
        }
    }

    fn name(&mut self, dir: Ino, value: &[u8]) {
        let Ok(entry) = DirEntry::decode(value) else { return };
        self.survey.node(entry.ino).names += 1;
        if entry.kind == FileKind::Directory {
            self.survey.dirs.entry(entry.ino.0).or_default().parent = dir.0;
            self.survey.dirs.entry(dir.0).or_default().subdirectories += 1;
        }
    }

    fn extent(&mut self, ino: Ino, range: u64, value: Vec<u8>) -> Option<Vec<u8>> {
        let Ok(mut pieces) = decode_pieces(&value) else {
            if !self.survey.may_lose {
                return Some(value);
            }
            let len = self.survey.senseless(ino, range) as u32;
            if len == 0 || self.wish.zero {
                return None;
            }
            return self.counted(ino, range, vec![Piece { len, kind: given_up(len) }]);
        };
        for piece in &mut pieces {
            if let Some(kind) = self.pieces.mended(piece, self.wish) {
                piece.kind = kind;
            }
        }
        while self.wish.zero && pieces.last().is_some_and(|piece| piece.kind == PieceKind::Hole) {
            pieces.pop();
        }
        if pieces.is_empty() && self.survey.may_lose {
            return None;
        }
        self.counted(ino, range, pieces)
    }

    fn counted(&mut self, ino: Ino, range: u64, pieces: Vec<Piece>) -> Option<Vec<u8>> {
        let stored = self.counts.add(&pieces);
        let node = self.survey.node(ino);
        node.stored += stored;
        let mut at = range * EXTENT_RANGE;
        for piece in &pieces {
            at += u64::from(piece.len);
            if piece.kind != PieceKind::Hole {
                node.end = node.end.max(at);
            }
        }
        Some(encode_pieces(&pieces))
    }

    fn inode(&mut self, ino: Ino, value: &[u8]) -> Option<Vec<u8>> {
        self.counts.totals.inodes += 1;
        let mut inode = Inode::decode(value).ok()?;
        let (root, orphan) = (ino == Ino::ROOT, self.survey.is_orphan(ino));
        let (parent, subdirectories) =
            self.survey.dirs.get(&ino.0).map_or((0, 0), |dir| (dir.parent, dir.subdirectories));
        let node = self.survey.node(ino);
        let named = node.names > 0 || root;
        match inode.kind() {
            FileKind::Directory => {
                inode.parent = match () {
                    () if root => Ino::ROOT,
                    // Of several it lies where it says itself, until all but one go.
                    () if node.names == 1 => Ino(parent),
                    () => inode.parent,
                };
                if named {
                    inode.nlink = subdirectories.saturating_add(2);
                }
            }
            kind => {
                inode.parent = Ino(0);
                if named {
                    inode.nlink = node.names;
                }
                match kind {
                    FileKind::Regular => inode.size = inode.size.max(node.end),
                    FileKind::Symlink if node.end > 0 => inode.size = node.end,
                    _ => {}
                }
            }
        }
        if !named && orphan {
            inode.nlink = 0;
        }
        inode.stored = node.stored;
        Some(inode.encode())
    }
}
