//! Extents that are missing because a frame of the checkpoint cannot be read: what was there must not read as a hole.

use std::collections::{HashMap, HashSet};

use cairn_format::key::Key;
use cairn_format::{EXTENT_RANGE, Ino, Inode, Piece, PieceKind, View};

use crate::namespace::Gap;

/// Ranges of a file that are looked at: one that is longer than 64 GiB, and has more holes than that, is not brought into
/// memory range by range.
const RANGES_MAX: u64 = 1 << 16;

/// What is known of files whose extents may be missing.
#[derive(Default)]
pub(super) struct Missing {
    gaps: Vec<Gap>,
    /// Ranges that are there, of such files.
    there: HashSet<(u64, u64)>,
    /// And what they add up to in stored bytes.
    stored: HashMap<u64, u64>,
    /// Ranges that are not: inode, range, and how many bytes of it the file has.
    pub(super) lost: Vec<(Ino, u64, u32)>,
}

impl Missing {
    pub(super) fn new(gaps: &[Gap]) -> Missing {
        Missing { gaps: gaps.to_vec(), ..Missing::default() }
    }

    /// Notes an extent.
    pub(super) fn note(&mut self, ino: Ino, range: u64, pieces: &[Piece]) {
        if !self.gaps.iter().any(|gap| gap.touches(ino)) {
            return;
        }
        self.there.insert((ino.0, range));
        let chunks = pieces.iter().filter(|piece| matches!(piece.kind, PieceKind::Chunk(_)));
        *self.stored.entry(ino.0).or_default() += chunks.map(Piece::stored).sum::<u64>();
    }

    /// Settles which of a file's extents are missing, behind all of those that are there.
    pub(super) fn inode(&mut self, ino: Ino, inode: &Inode) {
        let touched = self.gaps.iter().any(|gap| gap.touches(ino));
        // Where as much is stored as should be nothing is missing: the rest are holes.
        if !touched || self.stored.get(&ino.0).copied().unwrap_or(0) == inode.stored {
            return;
        }
        for range in 0..inode.size.div_ceil(EXTENT_RANGE).min(RANGES_MAX) {
            let len = (inode.size - range * EXTENT_RANGE).min(EXTENT_RANGE) as u32;
            self.range(ino, range, len);
        }
    }

    /// Settles the same for files whose inodes are missing, too, as far as their last extent that is there.
    pub(super) fn settle(&mut self, has_inode: impl Fn(u64) -> bool) {
        let mut ends: HashMap<u64, u64> = HashMap::new();
        for (ino, range) in self.there.iter().filter(|(ino, _)| !has_inode(*ino)) {
            let end = ends.entry(*ino).or_default();
            *end = (*end).max(*range);
        }
        for (ino, end) in ends {
            (0..end.min(RANGES_MAX)).for_each(|range| self.range(Ino(ino), range, EXTENT_RANGE as u32));
        }
    }

    fn range(&mut self, ino: Ino, range: u64, len: u32) {
        let key = Key::Extent(ino, range, View::LIVE).encode();
        if !self.there.contains(&(ino.0, range)) && self.gaps.iter().any(|gap| gap.holds(&key)) {
            self.lost.push((ino, range, len));
        }
    }
}
