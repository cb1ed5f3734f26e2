//! The overlay's extents of one file: runs that the journal, or a fold not yet checkpointed, knows of.

use std::collections::BTreeMap;

use cairn_format::{Piece, PieceKind};

/// A run of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) len: u64,
    pub(crate) kind: PieceKind,
}

impl Run {
    fn part(&self, from: u64, len: u64) -> Run {
        match self.kind {
            PieceKind::Hole => Run { len, kind: PieceKind::Hole },
            // Only holes are longer than 4 GiB.
            kind => {
                Run { len, kind: Piece { len: self.len as u32, kind }.part(from as u32, len as u32).kind }
            }
        }
    }

    /// Bytes on disk that it answers for.
    pub(crate) fn stored(&self) -> u64 {
        match self.kind {
            PieceKind::Hole => 0,
            kind => Piece { len: self.len as u32, kind }.stored(),
        }
    }
}

/// Runs by offset, without overlaps. Between them the map knows nothing: the layer below does.
/// An explicit hole is something else than that.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExtentMap {
    runs: BTreeMap<u64, Run>,
    stored: u64,
}

impl ExtentMap {
    /// Puts a run over whatever was there.
    pub(crate) fn set(&mut self, offset: u64, run: Run) {
        self.clear(offset, run.len);
        self.put(offset, run);
    }

    fn put(&mut self, offset: u64, run: Run) {
        self.stored += run.stored();
        self.runs.insert(offset, run);
    }

    fn take(&mut self, offset: u64) -> Option<Run> {
        let run = self.runs.remove(&offset)?;
        self.stored -= run.stored();
        Some(run)
    }

    fn clear(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        if let Some((&start, run)) = self.runs.range(..offset).next_back()
            && start + run.len > offset
            && let Some(run) = self.take(start)
        {
            self.put(start, run.part(0, offset - start));
            if start + run.len > end {
                self.put(end, run.part(end - start, start + run.len - end));
            }
        }
        while let Some((&start, _)) = self.runs.range(offset..end).next() {
            if let Some(run) = self.take(start)
                && start + run.len > end
            {
                self.put(end, run.part(end - start, start + run.len - end));
            }
        }
    }

    /// The runs within `offset..offset + len`, cut to it; gaps are left out.
    pub(crate) fn within(&self, offset: u64, len: u64) -> impl Iterator<Item = (u64, Run)> {
        let end = offset.saturating_add(len);
        let before =
            self.runs.range(..offset).next_back().filter(move |(start, run)| *start + run.len > offset);
        before.into_iter().chain(self.runs.range(offset..end)).map(move |(&start, run)| {
            let from = offset.max(start);
            let to = end.min(start + run.len);
            (from, run.part(from - start, to - from))
        })
    }

    /// All runs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Run)> {
        self.runs.iter().map(|(offset, run)| (*offset, run))
    }

    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// Bytes on disk that its runs answer for.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_format::{JournalRef, Lsn};
    use proptest::prelude::*;

    fn run(lsn: u64, len: u64) -> Run {
        let kind = match lsn % 3 {
            0 => PieceKind::Hole,
            _ => PieceKind::Journal(JournalRef {
                lsn: Lsn(lsn),
                segment: 1,
                record_offset: 0,
                payload_offset: 0,
            }),
        };
        Run { len, kind }
    }

    proptest! {
        #[test]
        fn the_map_is_an_array_of_bytes(sets in prop::collection::vec((0u64..200, 1u64..80), 1..40), from in 0u64..200, len in 0u64..200) {
            let mut map = ExtentMap::default();
            let mut model: Vec<Option<(u64, u64)>> = vec![None; 400];
            for (i, (offset, len)) in sets.into_iter().enumerate() {
                map.set(offset, run(i as u64 + 1, len));
                for at in offset..offset + len {
                    model[at as usize] = Some((i as u64 + 1, at - offset));
                }
            }
            let mut seen: Vec<Option<(u64, u64)>> = vec![None; 400];
            for (offset, piece) in map.within(from, len) {
                prop_assert!(offset >= from && offset + piece.len <= from + len);
                for at in 0..piece.len {
                    let place = &mut seen[(offset + at) as usize];
                    prop_assert!(place.is_none());
                    *place = Some(match piece.kind {
                        PieceKind::Journal(j) => (j.lsn.0, u64::from(j.payload_offset) + at),
                        _ => (0, 0),
                    });
                }
            }
            for at in 0..400 {
                let inside = (from..from + len).contains(&(at as u64));
                let expected = model[at].filter(|_| inside).map(|(lsn, byte)| if lsn % 3 == 0 { (0, 0) } else { (lsn, byte) });
                prop_assert_eq!(seen[at], expected);
            }
            prop_assert_eq!(map.stored(), map.iter().map(|(_, r)| r.stored()).sum::<u64>());
        }
    }
}
