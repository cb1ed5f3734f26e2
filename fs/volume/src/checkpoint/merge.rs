//! What a frozen overlay changes in the engine's state: keys as they are, extents merged with what they
//! cover, and the counts that follow from both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use cairn_format::key::Key;
use cairn_format::{
    EXTENT_RANGE, Ino, Inode, PackId, PackRefs, Piece, PieceKind, Totals, View, decode_pieces, encode_pieces,
};

use crate::engine::Engine;
use crate::namespace::{ExtentMap, NamespaceError, Overlay};

/// A hole over more ranges than this is merged into those that exist only.
const HOLE_RANGES: u64 = 4;

/// What a checkpoint changes.
pub(super) struct Merged {
    /// New values by key.
    pub(super) changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// New counts of the packs whose counts changed.
    pub(super) refs: HashMap<PackId, PackRefs>,
    /// What the new state adds up to.
    pub(super) totals: Totals,
}

struct Merger<'a> {
    engine: &'a dyn Engine,
    before: &'a HashMap<PackId, PackRefs>,
    merged: Merged,
    /// By how much each file's stored bytes changed.
    stored: HashMap<(Ino, View), i64>,
}

/// Merges `overlay` with the state of `engine`, which counts `refs` and `totals`.
pub(super) fn merge(
    engine: &dyn Engine,
    overlay: &Overlay,
    refs: &HashMap<PackId, PackRefs>,
    totals: Totals,
) -> Result<Merged, NamespaceError> {
    let merged = Merged { changes: BTreeMap::new(), refs: HashMap::new(), totals };
    let mut merger = Merger { engine, before: refs, merged, stored: HashMap::new() };
    for ((view, ino), extents) in overlay.all_extents() {
        merger.extents(*view, *ino, extents)?;
    }
    for (key, value) in overlay.keys() {
        merger.key(key, value.as_deref())?;
    }
    merger.remaining_stored()?;
    merger.counts();
    Ok(merger.merged)
}

impl Merger<'_> {
    fn extents(&mut self, view: View, ino: Ino, extents: &ExtentMap) -> Result<(), NamespaceError> {
        for range in self.ranges_of(view, ino, extents)? {
            let key = Key::Extent(ino, range, view).encode();
            let old_value = self.engine.get(&key)?;
            let old = old_value.as_deref().map_or(Ok(Vec::new()), decode_pieces)?;
            let new = overlaid(&old, extents, range * EXTENT_RANGE);
            self.count(view, ino, &old, -1);
            self.count(view, ino, &new, 1);
            if !new.is_empty() {
                self.merged.changes.insert(key, Some(encode_pieces(&new)));
            } else if old_value.is_some() {
                self.merged.changes.insert(key, None);
            }
        }
        Ok(())
    }

    /// The ranges whose values the runs may change.
    fn ranges_of(&self, view: View, ino: Ino, extents: &ExtentMap) -> Result<BTreeSet<u64>, NamespaceError> {
        let mut ranges = BTreeSet::new();
        for (offset, run) in extents.iter() {
            let (first, last) = (offset / EXTENT_RANGE, (offset + (run.len - 1)) / EXTENT_RANGE);
            if run.kind != PieceKind::Hole || last - first < HOLE_RANGES {
                ranges.extend(first..=last);
                continue;
            }
            let (from, to) =
                (Key::Extent(ino, first, view).encode(), Key::Extent(ino, last + 1, view).encode());
            self.engine.scan(&from, &to, &mut |key, _| {
                if let Some(Key::Extent(_, range, of)) = Key::decode(key)
                    && of == view
                {
                    ranges.insert(range);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(ranges)
    }

    fn count(&mut self, view: View, ino: Ino, pieces: &[Piece], sign: i64) {
        for piece in pieces {
            let signed = |n: u64| sign * n as i64;
            let add = |to: &mut u64, n: i64| *to = to.saturating_add_signed(n);
            if piece.kind != PieceKind::Hole {
                add(&mut self.merged.totals.logical, signed(piece.len.into()));
            }
            let PieceKind::Chunk(chunk) = piece.kind else { continue };
            *self.stored.entry((ino, view)).or_default() += signed(piece.stored());
            for place in chunk.places() {
                let before = self.before.get(&place.pack).copied().unwrap_or_default();
                let refs = self.merged.refs.entry(place.pack).or_insert(before);
                add(&mut refs.pieces, signed(1));
                add(&mut refs.bytes, signed(piece.len.into()));
            }
        }
    }

    fn key(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), NamespaceError> {
        let Some(Key::Inode(ino, view)) = Key::decode(key) else {
            self.merged.changes.insert(key.to_vec(), value.map(<[u8]>::to_vec));
            return Ok(());
        };
        let old = self.engine.get(key)?;
        let existed = i64::from(old.is_some());
        let exists = i64::from(value.is_some());
        self.merged.totals.inodes = self.merged.totals.inodes.saturating_add_signed(exists - existed);
        let change = self.stored.remove(&(ino, view)).unwrap_or(0);
        let new = match value {
            None => None,
            Some(value) => {
                let counted = old.as_deref().map_or(Ok(0), |old| Inode::decode(old).map(|i| i.stored))?;
                let mut inode = Inode::decode(value)?;
                inode.stored = counted.saturating_add_signed(change);
                Some(inode.encode())
            }
        };
        self.merged.changes.insert(key.to_vec(), new);
        Ok(())
    }

    /// Files whose extents changed but whose inodes did not otherwise.
    fn remaining_stored(&mut self) -> Result<(), NamespaceError> {
        for ((ino, view), change) in std::mem::take(&mut self.stored) {
            let key = Key::Inode(ino, view).encode();
            if change != 0
                && let Some(value) = self.engine.get(&key)?
            {
                let mut inode = Inode::decode(&value)?;
                inode.stored = inode.stored.saturating_add_signed(change);
                self.merged.changes.insert(key, Some(inode.encode()));
            }
        }
        Ok(())
    }

    fn counts(&mut self) {
        for (pack, refs) in &self.merged.refs {
            let value = (refs.pieces > 0).then(|| refs.encode());
            self.merged.changes.insert(Key::Pack(*pack).encode(), value);
        }
        self.merged.changes.insert(Key::Totals.encode(), Some(self.merged.totals.encode()));
    }
}

/// One range's pieces with the overlay's runs over them. Holes at the end are left out: absence is one.
fn overlaid(old: &[Piece], extents: &ExtentMap, start: u64) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut push = |piece: Piece| {
        if piece.len == 0 {
            return;
        }
        match pieces.last_mut() {
            Some(last) if last.continues_in(&piece) => last.len += piece.len,
            _ => pieces.push(piece),
        }
    };
    let mut at = 0u32;
    let end = EXTENT_RANGE as u32;
    let over: Vec<_> = extents.within(start, EXTENT_RANGE).collect();
    for (offset, run) in over {
        let from = (offset - start) as u32;
        part_of(old, at, from, &mut push);
        push(Piece { len: run.len as u32, kind: run.kind });
        at = from + run.len as u32;
    }
    part_of(old, at, end, &mut push);
    while pieces.last().is_some_and(|p| p.kind == PieceKind::Hole) {
        pieces.pop();
    }
    pieces
}

/// The bytes `from..to` of a range, as its old pieces say.
fn part_of(old: &[Piece], from: u32, to: u32, push: &mut impl FnMut(Piece)) {
    let mut start = 0u32;
    let mut at = from;
    for piece in old {
        let stop = start.saturating_add(piece.len);
        let (begin, end) = (start.max(at), stop.min(to));
        if begin < end {
            push(piece.part(begin - start, end - begin));
            at = end;
        }
        start = stop;
    }
    if at < to {
        push(Piece { len: to - at, kind: PieceKind::Hole });
    }
}
