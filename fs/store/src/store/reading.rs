//! Reading chunks: from the cache, from where they lie, from anywhere else they lie.

use std::ops::Range;

use cairn_format::{ChunkEntry, ChunkPiece, ChunkPlace, FrameEntry, PackId, ParityGeometry};

use super::Store;
use super::chunks::base_of;
use crate::frames::RunAt;
use crate::sync::Arc;
use crate::{DecodedFrame, PackReader, Pins, ReadError};

/// The most memory that open packs take, in bytes.
pub(super) const OPEN_PACKS_BYTES: u64 = 8 << 20;
/// An open pack counts for at least this much, so that 512 files are open at the most.
const OPEN_PACK_LEAST: u64 = 16 << 10;

/// A pack that is open for reading, and where its frames are.
pub(super) struct OpenPack {
    reader: PackReader,
    frames: Vec<FrameEntry>,
}

/// Where bytes came from that were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// From where they lie, as they were stored.
    Stored,
    /// From there, restored from parity: so it is said to the first whom a restored frame serves.
    Healed,
    /// From another place that the chunk lies in: its own cannot be read.
    Elsewhere,
}

impl Store {
    /// Reads bytes of a chunk: `out.len()` of them, from `from` bytes behind the start of the piece. Where its frame cannot
    /// be read, from another place that the chunk lies in, if there is one.
    pub fn read(&self, piece: &ChunkPiece, from: u32, out: &mut [u8]) -> Result<Served, ReadError> {
        // Where that was found out before, it is not tried first.
        let is_lost = |at: ChunkPlace| self.health.is_lost(at.pack, at.frame);
        if piece.places().any(is_lost) && self.read_elsewhere(piece, from, out).is_some() {
            return Ok(Served::Elsewhere);
        }
        let error = match self.read_there(piece, from, out) {
            Ok(served) => return Ok(served),
            Err(error) => error,
        };
        match self.read_elsewhere(piece, from, out) {
            Some(there) => {
                let (chunk, here) = (piece.chunk, piece.pack);
                tracing::warn!("chunk {chunk} is read from pack {there}, not {here}: {error}");
                Ok(Served::Elsewhere)
            }
            None => Err(error),
        }
    }

    fn read_elsewhere(&self, piece: &ChunkPiece, from: u32, out: &mut [u8]) -> Option<PackId> {
        let other = self.elsewhere(piece)?;
        self.read_there(&other, from, out).ok().map(|_| other.pack)
    }

    /// Another place of a chunk.
    fn elsewhere(&self, piece: &ChunkPiece) -> Option<ChunkPiece> {
        let mut pins = Pins::default();
        let here = (piece.pack, piece.frame);
        let located = self.find(&piece.chunk, &mut pins, |found| (found.pack, found.frame) != here);
        // Readers do not pin: should it be dropped now, that is an error like any other.
        self.release(pins);
        let located = located.filter(|found| found.len == piece.chunk_len)?;
        let ChunkPlace { pack, frame, slot } = located.place();
        Some(ChunkPiece { pack, frame, slot, base: located.base, ..*piece })
    }

    /// As [`Store::read`], from this place only.
    pub fn read_there(&self, piece: &ChunkPiece, from: u32, out: &mut [u8]) -> Result<Served, ReadError> {
        let place = (piece.pack, piece.frame);
        let start = piece.offset as usize + from as usize;
        let frame = match self.frames.whole(place) {
            Some(frame) => frame,
            None => {
                let open = self.open_pack(piece.pack);
                if open.as_ref().is_ok_and(|open| self.read_of_run(open, piece, start, out)) {
                    return Ok(Served::Stored);
                }
                let (frame, stored) = self.load_frame(place, open)?;
                let frame = Arc::new(self.with_base(frame, piece)?);
                self.frames.note_whole(place, &frame, stored, true);
                frame
            }
        };
        let mismatch = |reason: String| ReadError::Mismatch { pack: piece.pack, reason };
        let Some((chunk, bytes)) = frame.chunk(piece.slot) else {
            return Err(mismatch(format!("frame {} has no slot {}", piece.frame, piece.slot)));
        };
        if chunk.id != piece.chunk || chunk.len != piece.chunk_len {
            return Err(mismatch(format!(
                "{} wanted in frame {} slot {}, {} is there",
                piece.chunk, piece.frame, piece.slot, chunk.id
            )));
        }
        match bytes.get(start..start + out.len()) {
            Some(part) => {
                out.copy_from_slice(part);
                Ok(if frame.take_healed() { Served::Healed } else { Served::Stored })
            }
            None => Err(mismatch(format!("{} bytes at {start} of a chunk of {}", out.len(), bytes.len()))),
        }
    }

    /// Calls `with` with a chunk that is the only one of its frame, and so may be a run of numbers. What it gives; false where it is another.
    fn with_run(&self, open: &OpenPack, piece: &ChunkPiece, with: impl FnOnce(&RunAt<'_>) -> bool) -> bool {
        let Some(entry) = open.frames.get(piece.frame as usize).filter(|_| piece.slot == 0) else {
            return false;
        };
        let read_base = |base: &ChunkEntry, bytes: Range<usize>| {
            let base = base_of(piece, base)?;
            let mut out = vec![0; bytes.len()];
            // Within a chunk, which is no longer than that.
            self.read(&base, bytes.start as u32, &mut out).ok()?;
            Some(out)
        };
        let chunk = ChunkEntry { id: piece.chunk, len: piece.chunk_len };
        let place = (piece.pack, piece.frame);
        with(&RunAt { place, entry, reader: &open.reader, chunk, read_base: &read_base })
    }

    /// Bytes of a chunk that is a run of numbers, where they can be had without the rest of it; whether they could.
    fn read_of_run(&self, open: &OpenPack, piece: &ChunkPiece, from: usize, out: &mut [u8]) -> bool {
        self.with_run(open, piece, |at| self.frames.read_of_run(at, from, out))
    }

    /// A frame, with what it is the differences from added, if it is: the piece says where that is.
    pub(super) fn with_base(
        &self,
        frame: DecodedFrame,
        piece: &ChunkPiece,
    ) -> Result<DecodedFrame, ReadError> {
        let Some(id) = frame.base.filter(|_| !frame.is_whole()) else { return Ok(frame) };
        let mismatch = |reason: &str| {
            let reason = format!("frame {} differs from chunk {id}, {reason}", piece.frame);
            ReadError::Mismatch { pack: piece.pack, reason }
        };
        let len = frame.base_len().ok_or_else(|| mismatch("of which it cannot be"))?;
        let base = ChunkEntry { id, len: len as u32 };
        let base = base_of(piece, &base).ok_or_else(|| mismatch("and nothing says where that is"))?;
        let mut bytes = vec![0; base.chunk_len as usize];
        self.read(&base, 0, &mut bytes)?;
        frame.with_base(&bytes).ok_or_else(|| mismatch("which has another length"))
    }

    /// How a frame is stored, for people: `raw`, `zstd`, or as a run of numbers `planes`, `palette`, `pattern` or `differences`. None where
    /// that cannot be read.
    pub fn stored_as(&self, pack: PackId, frame: u32) -> Option<&'static str> {
        let open = self.open_pack(pack).ok()?;
        open.reader.stored_as(open.frames.get(frame as usize)?)
    }

    /// Has the blocks of a run of numbers that hold the first `len` bytes of a piece be in the cache; whether it is one. Errors are for who
    /// reads it.
    pub fn decode_ahead(&self, piece: &ChunkPiece, len: u32) -> bool {
        let Ok(open) = self.open_pack(piece.pack) else { return false };
        let bytes = piece.offset as usize..piece.offset as usize + len as usize;
        self.with_run(&open, piece, |at| self.frames.decode_ahead(at, bytes))
    }

    /// A frame, checked and decoded, past the cache: what is read once is not to displace what is read often. One of differences stays so.
    pub fn frame_once(&self, pack: PackId, number: u32) -> Result<Arc<DecodedFrame>, ReadError> {
        match self.frames.whole((pack, number)) {
            Some(frame) => Ok(frame),
            None => {
                let (frame, stored) = self.load_frame((pack, number), self.open_pack(pack))?;
                let frame = Arc::new(frame);
                self.frames.note_whole((pack, number), &frame, stored, false);
                Ok(frame)
            }
        }
    }

    /// The same of the frame that a piece's chunk lies in, with its base.
    pub fn frame_of(&self, piece: &ChunkPiece) -> Result<Arc<DecodedFrame>, ReadError> {
        let place = (piece.pack, piece.frame);
        match self.frames.whole(place) {
            Some(frame) => Ok(frame),
            None => {
                let (frame, stored) = self.load_frame(place, self.open_pack(piece.pack))?;
                let frame = Arc::new(self.with_base(frame, piece)?);
                self.frames.note_whole(place, &frame, stored, false);
                Ok(frame)
            }
        }
    }

    /// A frame of differences with its base added, wherever that is; none where it cannot be had. Any other as it is.
    pub fn with_base_found(&self, frame: DecodedFrame) -> Option<DecodedFrame> {
        let Some(id) = frame.base.filter(|_| !frame.is_whole()) else { return Some(frame) };
        let mut pins = Pins::default();
        let found = self.find(&id, &mut pins, |found| found.base.is_none());
        // As a reader.
        self.release(pins);
        let found = found.filter(|found| Some(found.len as usize) == frame.base_len())?;
        let piece = found.piece(id);
        let mut bytes = vec![0; found.len as usize];
        self.read(&piece, 0, &mut bytes).ok()?;
        frame.with_base(&bytes)
    }

    fn load_frame(
        &self,
        (pack, number): (PackId, u32),
        open: Result<Arc<OpenPack>, ReadError>,
    ) -> Result<(DecodedFrame, u32), ReadError> {
        let loaded = open.and_then(|open| match open.frames.get(number as usize) {
            Some(entry) => open.reader.frame(entry).map(|frame| (frame, entry.len)),
            None => {
                Err(ReadError::Mismatch { pack, reason: format!("frame {number} of {}", open.frames.len()) })
            }
        });
        // One that is not there any more was dropped, most likely; and nobody finds what a footer does not list.
        if !matches!(loaded, Err(ReadError::Mismatch { .. } | ReadError::Missing { .. })) {
            self.health.note_frame(pack, number, loaded.is_err());
        }
        loaded
    }

    fn open_pack(&self, pack: PackId) -> Result<Arc<OpenPack>, ReadError> {
        if let Some(open) = self.open_packs.get(0, &pack) {
            return Ok(open);
        }
        let reader = self.reader(pack)?;
        let footer = reader.footer()?;
        let size = (footer.frames.len() * size_of::<FrameEntry>()) as u64;
        let open = Arc::new(OpenPack { reader, frames: footer.frames });
        self.open_packs.put(0, pack, open.clone(), size.max(OPEN_PACK_LEAST));
        // One that was dropped meanwhile would keep its room on the disk for as long as it is in the cache.
        if !self.hub.knows(&pack) {
            self.open_packs.remove(0, &pack);
        }
        Ok(open)
    }

    /// Opens a pack past the caches. What cannot be read of it is answered from parity, where [`Store::health`] has it so.
    pub fn reader(&self, pack: PackId) -> Result<PackReader, ReadError> {
        let opened = PackReader::open(&*self.disk, pack);
        let opened = opened.or_else(|error| self.health.pack(&*self.disk, pack, error))?;
        Ok(opened.healed_by(self.health.clone(), self.disk.clone()))
    }

    /// The parity that a pack carries, as its header or its trailer says.
    pub fn parity_of(&self, pack: PackId) -> Option<ParityGeometry> {
        let reader = self.reader(pack).ok()?;
        let layout = reader.layout_by_header().or_else(|_| reader.layout_by_trailer());
        layout.ok().map(|layout| layout.parity)
    }

    /// How often a frame, or a block of one, was found in the cache, and how often it had to be read and decoded.
    pub fn cache_use(&self) -> (u64, u64) {
        self.frames.uses()
    }

    /// Bytes that were read of packs for who wants bytes of chunks, and what was decoded of these.
    pub fn read_use(&self) -> (u64, u64) {
        self.frames.bytes()
    }
}
