//! What the journal holds behind the checkpoint, in memory: as much as a mount would hold of it.

use std::collections::{BTreeMap, HashMap};

use cairn_format::key::Key;
use cairn_format::{EXTENT_RANGE, Ino, JournalRef, Mutation, Piece, PieceKind, View};
use cairn_volume::journal::Appended;

/// What the journal says of a key.
pub(crate) enum Pending {
    Put(Vec<u8>),
    Deleted,
    /// An extent's: runs that lie over whatever the checkpoint has.
    Extents,
}

/// All that the journal changes in a checkpoint's state.
#[derive(Default)]
pub(crate) struct Overlay {
    pub(crate) keys: BTreeMap<Vec<u8>, Pending>,
    pub(crate) runs: HashMap<(Ino, View), Runs>,
}

impl Overlay {
    /// Applies a mutation of the record at `at`.
    pub(crate) fn apply(&mut self, mutation: &Mutation, at: &Appended) {
        match mutation {
            Mutation::Put { key, value } => {
                self.keys.insert(key.clone(), Pending::Put(value.clone()));
            }
            Mutation::Delete { key } => {
                self.keys.insert(key.clone(), Pending::Deleted);
            }
            Mutation::Data { view, ino, offset, len, payload_offset } => {
                let place = JournalRef {
                    lsn: at.lsn,
                    segment: at.segment,
                    record_offset: at.offset,
                    // One that would overflow names bytes that no payload has, cut or not.
                    payload_offset: (*payload_offset).min(u32::MAX - len),
                };
                self.set(*view, *ino, *offset, (*len).into(), PieceKind::Journal(place));
            }
            Mutation::Hole { view, ino, offset, len } => {
                self.runs.entry((*ino, *view)).or_default().set(*offset, *len, PieceKind::Hole);
            }
            Mutation::Map { view, ino, offset, pieces } => {
                let mut start = *offset;
                for piece in pieces {
                    self.set(*view, *ino, start, piece.len.into(), piece.kind);
                    start += u64::from(piece.len);
                }
            }
            Mutation::Epoch { .. } | Mutation::Checkpoint { .. } => {}
        }
    }

    fn set(&mut self, view: View, ino: Ino, offset: u64, len: u64, kind: PieceKind) {
        self.runs.entry((ino, view)).or_default().set(offset, len, kind);
        for range in offset / EXTENT_RANGE..=(offset + (len - 1)) / EXTENT_RANGE {
            self.keys.insert(Key::Extent(ino, range, view).encode(), Pending::Extents);
        }
    }
}

/// Runs of a file by offset, without overlaps: lengths, and where the bytes are.
#[derive(Default)]
pub(crate) struct Runs(BTreeMap<u64, (u64, PieceKind)>);

impl Runs {
    /// Puts a run over what was there.
    fn set(&mut self, offset: u64, len: u64, kind: PieceKind) {
        let end = offset.saturating_add(len);
        if let Some((&start, &(old, below))) = self.0.range(..offset).next_back()
            && start + old > offset
        {
            self.0.insert(start, (offset - start, below));
            self.keep_behind(start, old, below, end);
        }
        while let Some((&start, &(old, below))) = self.0.range(offset..end).next() {
            self.0.remove(&start);
            self.keep_behind(start, old, below, end);
        }
        self.0.insert(offset, (len, kind));
    }

    fn keep_behind(&mut self, start: u64, len: u64, kind: PieceKind, end: u64) {
        if start + len > end {
            self.0.insert(end, (start + len - end, behind(kind, end - start)));
        }
    }

    /// A range's pieces with these runs over them; no hole at their end.
    pub(crate) fn over(&self, old: &[Piece], range: u64) -> Vec<Piece> {
        let start = range.saturating_mul(EXTENT_RANGE);
        let end = start.saturating_add(EXTENT_RANGE);
        let mut merged = Runs::default();
        let mut at = start;
        for piece in old {
            merged.set(at, piece.len.into(), piece.kind);
            at += u64::from(piece.len);
        }
        let before = self.0.range(..start).next_back();
        for (&from, &(len, kind)) in before.into_iter().chain(self.0.range(start..end)) {
            let (first, last) = (from.max(start), (from + len).min(end));
            if first < last {
                merged.set(first, last - first, behind(kind, first - from));
            }
        }
        merged.pieces(start)
    }

    fn pieces(&self, start: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = start;
        for (&offset, &(len, kind)) in &self.0 {
            if kind == PieceKind::Hole {
                continue;
            }
            if offset > at {
                pieces.push(Piece { len: (offset - at) as u32, kind: PieceKind::Hole });
            }
            // All within one range, or the value's own lengths.
            pieces.push(Piece { len: len as u32, kind });
            at = offset + len;
        }
        pieces
    }
}

/// Where the bytes behind the first `from` of a run are. Only holes are longer than 4 GiB.
fn behind(kind: PieceKind, from: u64) -> PieceKind {
    match kind {
        PieceKind::Hole => kind,
        _ => Piece { len: 0, kind }.part(from as u32, 0).kind,
    }
}
