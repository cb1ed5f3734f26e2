//! Extents: whether what they name is there, and what they add up to.

use std::collections::{HashMap, HashSet};

use cairn_format::{
    ChunkEntry, ChunkId, ChunkPiece, ChunkPlace, EXTENT_RANGE, Ino, PackId, PackKind, PackRefs, Piece,
    PieceKind, Totals,
};

use crate::footers::Footers;
use crate::journal::JournalState;
use crate::packs::{PackResult, Packs};
use crate::report::{Finding, Findings};

/// The pack that bytes lie in which a repair found to be lost: there is none of this name, and never will be.
pub(crate) const GIVEN_UP: PackId = PackId([0; 16]);

/// What to do about file bytes that are gone.
const RESTORE: &str = "copy the file back from a backup";

/// What the extents of the checkpoint's state add up to. Checkpoints keep these counts, the journal does not.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) refs: HashMap<PackId, PackRefs>,
    pub(crate) totals: Totals,
}

impl Counts {
    /// Counts an extent's pieces; gives the stored bytes that they answer for.
    pub(crate) fn add(&mut self, pieces: &[Piece]) -> u64 {
        let mut stored = 0;
        for piece in pieces {
            if piece.kind != PieceKind::Hole {
                self.totals.logical += u64::from(piece.len);
            }
            let PieceKind::Chunk(chunk) = piece.kind else { continue };
            stored += piece.stored();
            for place in chunk.places() {
                let refs = self.refs.entry(place.pack).or_default();
                refs.pieces += 1;
                refs.bytes += u64::from(piece.len);
            }
        }
        stored
    }

    /// Compares a pack's count, which is then done with.
    pub(crate) fn pack(&mut self, pack: PackId, says: PackRefs, findings: &mut Findings) {
        let counted = self.refs.remove(&pack).unwrap_or_default();
        if counted != says {
            let what = format!(
                "the checkpoint counts {} pieces and {} bytes in the pack, there are {} and {}",
                says.pieces, says.bytes, counted.pieces, counted.bytes
            );
            findings.push(Finding::damage("pack-count", what).pack(pack));
        }
    }

    /// The packs that the checkpoint does not count, though extents name them.
    pub(crate) fn finish(self, says: Totals, findings: &mut Findings) {
        let mut rest: Vec<_> = self.refs.into_iter().collect();
        rest.sort_unstable_by_key(|(pack, _)| *pack);
        for (pack, refs) in rest {
            let what = format!(
                "the checkpoint does not count the pack, though {} pieces with {} bytes lie in it",
                refs.pieces, refs.bytes
            );
            findings.push(Finding::damage("pack-count", what).pack(pack));
        }
        if says != self.totals {
            let what = format!(
                "the checkpoint counts {} inodes and {} bytes, there are {} and {}",
                says.inodes, says.logical, self.totals.inodes, self.totals.logical
            );
            findings.push(Finding::damage("totals", what));
        }
    }
}

/// What may become of bytes that are lost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish {
    /// Journalled ones may be given up: they are never looked for again, and reading them is an error.
    pub(crate) give_up: bool,
    /// All of them may read as zeros.
    pub(crate) zero: bool,
}

/// Bytes that are lost: reading them is an error for good.
pub(crate) fn given_up(len: u32) -> PieceKind {
    PieceKind::Chunk(ChunkPiece {
        chunk: ChunkId([0; 32]),
        pack: GIVEN_UP,
        frame: 0,
        slot: 0,
        offset: 0,
        chunk_len: len,
        stored: len,
        base: None,
    })
}

/// Looks at where extents lead.
pub(crate) struct PieceCheck<'a> {
    pub(crate) packs: &'a Packs,
    pub(crate) footers: Footers,
    pub(crate) journal: &'a JournalState,
    /// Packs that something lies in and that only their twins are left of.
    pub(crate) alone: HashSet<PackId>,
}

impl PieceCheck<'_> {
    /// Checks the pieces of one range; gives where in the file the last that is no hole ends.
    pub(crate) fn range(&mut self, ino: Ino, range: u64, pieces: &[Piece], findings: &mut Findings) -> u64 {
        let Some(start) = range.checked_mul(EXTENT_RANGE).filter(|start| *start <= i64::MAX as u64) else {
            let what = format!("bytes in range {range}, behind what a file can hold");
            findings.push(Finding::damage("extents", what).inode(ino));
            return 0;
        };
        let len: u64 = pieces.iter().map(|p| u64::from(p.len)).sum();
        if len > EXTENT_RANGE || pieces.is_empty() {
            let what = format!("an extent of {} pieces holds {len} bytes", pieces.len());
            findings.push(Finding::damage("extents", what).inode(ino).run(start, EXTENT_RANGE));
        }
        let mut at = start;
        let mut end = 0;
        for piece in pieces {
            let found = match &piece.kind {
                PieceKind::Hole => None,
                PieceKind::Journal(place) => {
                    let wrong = self.journal.check_payload(place, piece.len);
                    wrong.map(|what| Finding::damage("journalled-bytes", what).file("journal"))
                }
                PieceKind::Chunk(chunk) => self.chunk(chunk),
            };
            if let Some(finding) = found {
                findings.push(finding.inode(ino).run(at, piece.len.into()).advice(RESTORE));
            }
            at += u64::from(piece.len);
            if piece.kind != PieceKind::Hole {
                end = at;
            }
        }
        end
    }

    /// Where a piece's bytes should be said to be instead; nothing where that is as it should be, or not wished for.
    pub(crate) fn mended(&mut self, piece: &Piece, wish: Wish) -> Option<PieceKind> {
        let lost = || if wish.zero { PieceKind::Hole } else { given_up(piece.len) };
        match &piece.kind {
            PieceKind::Hole => None,
            PieceKind::Journal(place) => {
                let wrong =
                    (wish.zero || wish.give_up) && self.journal.check_payload(place, piece.len).is_some();
                wrong.then(lost)
            }
            PieceKind::Chunk(chunk) => match self.chunk(chunk)?.kind {
                "stored-share" => {
                    let (_, stored) = self.footers.chunk(chunk.pack, chunk.frame, chunk.slot).ok()?;
                    Some(PieceKind::Chunk(ChunkPiece { stored, ..*chunk }))
                }
                _ => wish.zero.then_some(PieceKind::Hole),
            },
        }
    }

    fn chunk(&mut self, piece: &ChunkPiece) -> Option<Finding> {
        let lost =
            |what: String| Some(Finding::damage("lost-bytes", what).chunk(piece.chunk).pack(piece.pack));
        if piece.pack == GIVEN_UP {
            return lost("its bytes were lost, and given up by a repair".into());
        }
        let (chunk, stored) = match self.lies_at(&piece.place()) {
            Ok(found) => found,
            Err(reason) => return lost(reason),
        };
        if (chunk.id, chunk.len) != (piece.chunk, piece.chunk_len) {
            return lost(format!("another chunk lies where it should, {} of {} bytes", chunk.id, chunk.len));
        }
        if let Some(what) = self.base(piece) {
            return lost(what);
        }
        if stored != piece.stored {
            let what =
                format!("its extent says that it takes {} stored bytes, it takes {stored}", piece.stored);
            return Some(Finding::damage("stored-share", what).chunk(piece.chunk).pack(piece.pack));
        }
        None
    }

    /// The chunk that lies in a place, with its share of the frame's stored bytes; or why it cannot be had.
    fn lies_at(&mut self, at: &ChunkPlace) -> Result<(ChunkEntry, u32), String> {
        let Some(PackResult { facts, alone, .. }) = self.packs.get(&at.pack) else {
            return Err("its pack is missing".into());
        };
        if *alone {
            self.alone.insert(at.pack);
        }
        match facts.described {
            None => return Err("its pack's footer cannot be read".into()),
            Some((_, PackKind::Metadata)) => return Err("its pack holds metadata".into()),
            Some((_, PackKind::Data)) => {}
        }
        if let Some(reason) = facts.bad_frames.get(&at.frame) {
            return Err(format!("its frame cannot be read: {reason}"));
        }
        if facts.bad_chunks.contains(&(at.frame, at.slot)) {
            return Err("its chunk is not what its id says".into());
        }
        self.footers.chunk(at.pack, at.frame, at.slot)
    }

    /// What is wrong with what a chunk is the differences from.
    fn base(&mut self, piece: &ChunkPiece) -> Option<String> {
        let named = self.footers.base(piece.pack, piece.frame);
        let (base, at) = match (named, &piece.base) {
            (None, None) => return None,
            (None, Some(_)) => return Some("its extent names a base, and it is none's differences".into()),
            (Some(base), None) => {
                return Some(format!(
                    "it is the differences from chunk {base}, and its extent names no place of that"
                ));
            }
            (Some(base), Some(at)) => (base, at),
        };
        let about = |what: String| {
            Some(format!("it is the differences from chunk {base} in pack {}: {what}", at.pack))
        };
        let (chunk, _) = match self.lies_at(at) {
            Ok(found) => found,
            Err(reason) => return about(reason),
        };
        // Elements that were cast are half as long, or twice: which they are, the frame says.
        let lengths = [piece.chunk_len, piece.chunk_len / 2, piece.chunk_len.saturating_mul(2)];
        if chunk.id != base || !lengths.contains(&chunk.len) {
            return about(format!("another chunk lies where it should, {} of {} bytes", chunk.id, chunk.len));
        }
        match self.footers.base(at.pack, at.frame) {
            Some(_) => about("that is differences itself".into()),
            None => None,
        }
    }
}
