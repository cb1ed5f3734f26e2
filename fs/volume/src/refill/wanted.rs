//! What is looked for: the chunks that files need and that cannot be read, with the places in files that they belong to.

use std::collections::{HashMap, HashSet};

use cairn_codec::chunk_id;
use cairn_format::key::{self, Key, tag};
use cairn_format::{ChunkId, ChunkPiece, ChunkSizes, EXTENT_RANGE, Ino, PieceKind, View, decode_pieces};
use cairn_store::Pins;

use super::{Offered, Refill, RefillError, RefillStep, Tell};
use crate::gc::compression;
use crate::scrub::name_inodes;

/// Extents looked at between two looks at whether to stop.
const PAGE: usize = 256;
/// Places in files that are named for one chunk: it is looked for everywhere else, too.
const PLACES: u8 = 4;

/// Chunks that are looked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The key of their ids.
    pub key: [u8; 32],
    /// How files are cut into chunks.
    pub sizes: ChunkSizes,
    /// The files that need them.
    pub files: Vec<WantedFile>,
}

/// A file that needs chunks that are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedFile {
    /// What it is called, from the root: names in the volume that need not be UTF-8. None for a file without a name.
    pub paths: Vec<Vec<u8>>,
    /// The chunks.
    pub chunks: Vec<WantedChunk>,
}

/// A chunk that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedChunk {
    /// What its bytes hash to.
    pub id: ChunkId,
    /// How many those are.
    pub len: u32,
    /// Where in the file they begin, if all of them were there once.
    pub at: Option<u64>,
}

/// Where the list begins.
pub(super) fn first() -> Vec<u8> {
    key::all_tagged(tag::EXTENT).0
}

/// A list in the making.
#[derive(Default)]
struct List {
    files: Vec<(Ino, Vec<WantedChunk>)>,
    /// How often each was named.
    named: HashMap<ChunkId, u8>,
}

impl Refill<'_> {
    /// Lists chunks that are lost, from where it was on.
    pub(super) fn list(&mut self, tell: Tell<'_>) -> Result<Wanted, RefillError> {
        let core = self.core;
        let mut list = List::default();
        let (_, to) = key::all_tagged(tag::EXTENT);
        while let Some(from) = self.cursor.take() {
            self.told(RefillStep::Listing, tell)?;
            let (page, rest) = core
                .look(|ns| ns.engine_page(&from, &to, PAGE))
                .map_err(crate::checkpoint::MaintainError::from)?;
            let mut page = page.into_iter();
            for (key, value) in page.by_ref() {
                self.extent(&key, &value, &mut list)?;
                if self.wanted.len() >= self.options.most.max(1) {
                    break;
                }
            }
            self.cursor = page.next().map(|(key, _)| key).or(rest);
            if self.wanted.len() >= self.options.most.max(1) {
                break;
            }
        }
        if self.cursor.is_none() {
            self.overlay(&mut list)?;
        }
        let inos: HashSet<Ino> = list.files.iter().map(|(ino, _)| *ino).collect();
        let mut names = name_inodes(core, &inos)?;
        let files = list.files.into_iter().map(|(ino, chunks)| {
            let mut paths = names.remove(&ino).unwrap_or_default();
            paths.retain(|path| path.first() == Some(&b'/'));
            WantedFile { paths, chunks }
        });
        let sizes = core.geometry.chunks;
        Ok(Wanted { key: *core.store.chunk_key(), sizes, files: files.collect() })
    }

    /// A range of a file, if it needs anything that is lost.
    fn extent(&mut self, key: &[u8], value: &[u8], list: &mut List) -> Result<(), RefillError> {
        let Some(Key::Extent(ino, range, view)) = Key::decode(key) else { return Ok(()) };
        let is_lost = |kind: &PieceKind| matches!(kind, PieceKind::Chunk(at) if self.lost.contains(at));
        // One that cannot be decoded is said by whoever reads that file.
        match decode_pieces(value).unwrap_or_default().iter().any(|piece| is_lost(&piece.kind)) {
            true => self.range(view, ino, range * EXTENT_RANGE, EXTENT_RANGE, list),
            false => Ok(()),
        }
    }

    /// What was written or copied since the last checkpoint.
    fn overlay(&mut self, list: &mut List) -> Result<(), RefillError> {
        let mut hits = Vec::new();
        self.core.ns.each_run_of_overlay(|ino, offset, run| {
            if matches!(run.kind, PieceKind::Chunk(at) if self.lost.contains(&at)) {
                hits.push((ino, offset, run.len));
            }
        });
        hits.into_iter().try_for_each(|(ino, offset, len)| self.range(self.core.view, ino, offset, len, list))
    }

    /// What of a part of a file is lost, as the file is now.
    fn range(
        &mut self,
        view: View,
        ino: Ino,
        offset: u64,
        len: u64,
        list: &mut List,
    ) -> Result<(), RefillError> {
        let runs = self.core.look(|ns| ns.runs(view, ino, offset, len));
        for (at, run) in runs.map_err(crate::checkpoint::MaintainError::from)? {
            let PieceKind::Chunk(piece) = run.kind else { continue };
            if !self.lost.contains(&piece) {
                continue;
            }
            self.count(ino, run.len);
            if !self.places.contains_key(&piece.chunk) && !self.wanted.contains_key(&piece.chunk) {
                self.report.chunks_lost += 1;
                let compression = compression(self.core, (view, ino))?;
                if self.find_here(&piece, compression)? {
                    self.report.chunks_known += 1;
                    continue;
                }
                self.wanted.insert(piece.chunk, (piece.chunk_len, compression));
            }
            if self.wanted.contains_key(&piece.chunk) {
                list.name(ino, at, &piece);
            }
        }
        Ok(())
    }

    fn count(&mut self, ino: Ino, len: u64) {
        self.report.places_lost += 1;
        self.report.bytes_lost += len;
        // Extents come in the order of files.
        if self.counted != Some(ino) {
            self.counted = Some(ino);
            self.report.files_lost += 1;
        }
    }

    /// Whether the store has the chunk all the same: in another place, from where files are to name it; or in a frame that
    /// other chunks are wrong of.
    fn find_here(
        &mut self,
        piece: &ChunkPiece,
        compression: cairn_format::Compression,
    ) -> Result<bool, RefillError> {
        let core = self.core;
        let key = core.store.chunk_key();
        let read = |at: &ChunkPiece| {
            let frame = core.store.frame_of(at).ok()?;
            let (_, plain) = frame.chunk(at.slot)?;
            (plain.len() == piece.chunk_len as usize && chunk_id(key, plain) == piece.chunk)
                .then(|| plain.to_vec())
        };
        let mut pins = Pins::default();
        let lost = &self.lost;
        let other = core.store.lookup_pin_where(&piece.chunk, &mut pins, |at| {
            at.len == piece.chunk_len && !lost.contains(&at.piece(piece.chunk))
        });
        let other = other.filter(|at| read(&at.piece(piece.chunk)).is_some());
        if let Some(at) = other
            && core.store.pin_live(&at.pack, &mut self.pins)
        {
            core.store.release(pins);
            self.places.insert(piece.chunk, at);
            return Ok(true);
        }
        core.store.release(pins);
        let whole = match lost.is_wrong(piece) {
            true => read(piece),
            false => None,
        };
        match whole {
            Some(plain) => self.take(Offered { id: piece.chunk, plain, compression }).map(|()| true),
            None => Ok(false),
        }
    }
}

impl List {
    /// Notes a place in a file that a chunk belongs to.
    fn name(&mut self, ino: Ino, offset: u64, piece: &ChunkPiece) {
        let at = offset.checked_sub(piece.offset.into());
        let chunk = WantedChunk { id: piece.chunk, len: piece.chunk_len, at };
        if self.files.last().is_none_or(|(last, _)| *last != ino) {
            self.files.push((ino, Vec::new()));
        }
        let Some((_, chunks)) = self.files.last_mut() else { return };
        // Parts of one chunk follow each other.
        if chunks.last() == Some(&chunk) {
            return;
        }
        let named = self.named.entry(piece.chunk).or_insert(0);
        if *named < PLACES {
            *named += 1;
            chunks.push(chunk);
        }
    }
}
