//! Moving what is live out of some packs: whoever refers to a chunk there is found, in the order of files, the chunk is
//! read, checked and put into a new pack, and the file refers to that from then on.

use crate::sync::{Arc, PoisonError};
use std::collections::{HashMap, HashSet, VecDeque};

use cairn_codec::chunk_id;
use cairn_format::key::{self, Key, tag};
use cairn_format::{ChunkPiece, Compression, EXTENT_RANGE, Footer, PackId, PieceKind, decode_pieces};
use cairn_store::{DecodedFrame, Located, Pins, ReadError, SealedPack, stored_share};

use super::survey::{Census, number_of, starts_of};
use super::{GcStep, Run};
use crate::checkpoint::MaintainError;
use crate::core::Core;
use crate::fold::{Base, File, Mapped, Packer, Place, commit_batch, compression_of, with_packer};
use crate::journal::{JournalError, Need};
use crate::vfs::Error;

/// Extents looked at between two looks at whether to stop.
const PAGE: usize = 64;
/// Pieces that one batch changes at most, however often they share chunks; each takes some 360 bytes of memory.
pub(crate) const PIECES: usize = 44 << 10;
/// Decoded frames that are kept: neighbours in a file are neighbours in a pack, but for those that were found.
const FRAMES: usize = 32;

/// Moves chunks out of a group of packs.
pub(super) struct Mover<'a> {
    core: &'a Core,
    moved: MovedChunks,
    frames: VecDeque<((PackId, u32), Arc<DecodedFrame>)>,
    /// Packs that a chunk could not be read from.
    pub(super) unreadable: HashSet<PackId>,
    to: Vec<u8>,
}

/// What one new pack is made of.
#[derive(Default)]
struct Batch {
    mapped: Vec<Mapped>,
    pins: Pins,
}

impl<'a> Mover<'a> {
    pub(super) fn new(core: &'a Core, group: &[Census]) -> Result<Mover<'a>, MaintainError> {
        let mut moved = MovedChunks::default();
        for pack in group {
            match core.store.reader(pack.pack).and_then(|reader| reader.footer()) {
                Ok(footer) => moved.add(&footer),
                // It died by itself.
                Err(_) if !core.store.knows(&pack.pack) => {}
                Err(error) => return Err(cairn_store::StoreError::from(error).into()),
            }
        }
        let (_, to) = key::all_tagged(tag::EXTENT);
        Ok(Mover { core, moved, frames: VecDeque::new(), unreadable: HashSet::new(), to })
    }

    /// Goes through all extents once, a new pack at a time; whether any file was changed.
    pub(super) fn pass(&mut self, run: &mut Run<'_>) -> Result<bool, MaintainError> {
        let (from, _) = key::all_tagged(tag::EXTENT);
        let mut next = Some(from);
        let mut changed = false;
        while next.is_some() && !run.told(GcStep::Moving) {
            changed |= self.batch(&mut next, run)?;
        }
        Ok(changed)
    }

    /// Fills one pack and has files refer to it; whether any was changed.
    fn batch(&mut self, next: &mut Option<Vec<u8>>, run: &mut Run<'_>) -> Result<bool, MaintainError> {
        let core = self.core;
        let mut batch = Batch::default();
        let sealed = with_packer(core, |packer| self.fill(packer, &mut batch, next, run))?;
        // What was read may have changed since; nobody refers to the new pack yet.
        run.told(GcStep::Committing);
        let Batch { mapped, mut pins } = batch;
        if let Some(sealed) = &sealed {
            core.store.publish(sealed, Some(&mut pins));
            self.moved.settle(sealed);
            core.space.claim_less(sealed.file_len);
            core.counters.compacted_bytes.add(sealed.file_len);
            run.report.packs_written += 1;
            run.report.bytes_written += sealed.file_len;
            run.progress.moved += sealed.file_len;
        }
        let wait = |bytes| core.reserve(Need::Shrink, bytes).map_err(no_room);
        let committed = commit_batch(core, mapped, sealed.as_ref().map(|s| &s.footer), &wait);
        keep_pinned(core, pins)?;
        Ok(committed? > 0)
    }

    /// Puts chunks into the pack until it is full, no extent is left, or the run is to stop.
    fn fill(
        &mut self,
        packer: &mut Packer<'_>,
        batch: &mut Batch,
        next: &mut Option<Vec<u8>>,
        run: &mut Run<'_>,
    ) -> Result<(), MaintainError> {
        while let Some(from) = next.take() {
            let (page, rest) = self.core.look(|ns| ns.engine_page(&from, &self.to, PAGE))?;
            for (key, value) in page {
                if packer.is_full() || batch.mapped.len() >= PIECES {
                    *next = Some(key);
                    return Ok(());
                }
                self.extent(&key, &value, packer, batch)?;
            }
            *next = rest;
            if run.told(GcStep::Moving) {
                break;
            }
        }
        Ok(())
    }

    /// One range of a file, if it refers to any of the packs.
    fn extent(
        &mut self,
        key: &[u8],
        value: &[u8],
        packer: &mut Packer<'_>,
        batch: &mut Batch,
    ) -> Result<(), MaintainError> {
        let Some(Key::Extent(ino, range, view)) = Key::decode(key) else { return Ok(()) };
        let Ok(pieces) = decode_pieces(value) else { return Ok(()) };
        if !pieces.iter().any(|piece| self.is_to_move(&piece.kind)) {
            return Ok(());
        }
        let file: File = (view, ino);
        let compression = compression(self.core, file)?;
        // What is above the engine counts: it may be something else by now.
        let runs = {
            let _lock = self.core.locks.read(ino);
            self.core.look(|ns| ns.runs(view, ino, range * EXTENT_RANGE, EXTENT_RANGE))?
        };
        packer.compress_with(compression);
        for (offset, run) in runs {
            let PieceKind::Chunk(piece) = run.kind else { continue };
            if !self.is_to_move(&run.kind) {
                continue;
            }
            let Some((place, base)) = self.places(&piece, packer, &mut batch.pins) else { continue };
            batch.mapped.push(Mapped {
                file,
                offset,
                // No run in a range is longer than it.
                len: run.len as u32,
                was: vec![(offset, run)],
                chunk: piece.chunk,
                chunk_len: piece.chunk_len,
                from: piece.offset,
                place,
                base,
                first: None,
            });
        }
        Ok(())
    }

    fn is_to_move(&self, kind: &PieceKind) -> bool {
        matches!(kind, PieceKind::Chunk(piece) if piece.places().any(|place| self.is_dying(&place.pack)))
    }

    fn is_dying(&self, pack: &PackId) -> bool {
        self.moved.packs.contains_key(pack) && !self.unreadable.contains(pack)
    }

    /// Where a chunk is from here on, and its base. Each of them may stay where it is.
    fn places(
        &mut self,
        piece: &ChunkPiece,
        packer: &mut Packer<'_>,
        pins: &mut Pins,
    ) -> Option<(Place, Option<Place>)> {
        let base = match piece.base {
            None => None,
            Some(_) => {
                let base = self.core.store.base_piece(piece)?;
                let place = match self.is_dying(&base.pack) {
                    true => self.place(&base, None, packer, pins)?,
                    false => stays(&base),
                };
                Some((base, place))
            }
        };
        let at = base.as_ref().map(|(_, place)| *place);
        match self.is_dying(&piece.pack) {
            false => Some((stays(piece), at)),
            true => {
                let place = self.place(piece, base, packer, pins)?;
                let differs = match place {
                    Place::New { .. } => true,
                    Place::Found(_) => self.moved.differs(piece),
                };
                Some((place, at.filter(|_| differs)))
            }
        }
    }

    /// Where a chunk is from here on: moved before, or now, with its base where it has one.
    fn place(
        &mut self,
        piece: &ChunkPiece,
        base: Option<(ChunkPiece, Place)>,
        packer: &mut Packer<'_>,
        pins: &mut Pins,
    ) -> Option<Place> {
        match self.moved.get(piece) {
            Some(place @ Place::New { .. }) => return Some(place),
            // Its new pack may have died since: then it is moved once more.
            Some(place @ Place::Found(at)) if self.core.store.pin_live(&at.pack, pins) => return Some(place),
            _ => {}
        }
        match self.read(piece) {
            Ok(frame) => {
                let (_, plain) = frame.chunk(piece.slot)?;
                let base = base.zip(frame.of_base()).and_then(|((base, place), element)| {
                    let frame = self.read(&base).ok()?;
                    let (_, plain) = frame.chunk(base.slot)?;
                    Some(Base { place, id: base.chunk, element, plain: plain.to_vec() })
                });
                let numbers = (frame.element, base);
                let place =
                    packer.take_over(piece.pack, piece.frame, piece.slot, &piece.chunk, plain, numbers);
                self.moved.note(piece, &place);
                Some(place)
            }
            // Nobody refers to it any more.
            Err(_) if !self.core.store.knows(&piece.pack) => None,
            Err(error) => {
                tracing::error!("a pack stays as it is, what is in it cannot be moved: {error}");
                self.unreadable.insert(piece.pack);
                None
            }
        }
    }

    /// The frame that holds a chunk, which is what its id says.
    fn read(&mut self, piece: &ChunkPiece) -> Result<Arc<DecodedFrame>, ReadError> {
        let at = (piece.pack, piece.frame);
        let frame = match self.frames.iter().find(|(kept, _)| *kept == at) {
            Some((_, frame)) => frame.clone(),
            None => {
                let frame = self.core.store.frame_of(piece)?;
                self.frames.truncate(FRAMES - 1);
                self.frames.push_front((at, frame.clone()));
                frame
            }
        };
        let whole = frame.chunk(piece.slot).is_some_and(|(entry, plain)| {
            entry.id == piece.chunk
                && entry.len == piece.chunk_len
                && chunk_id(self.core.store.chunk_key(), plain) == piece.chunk
        });
        match whole {
            true => Ok(frame),
            false => Err(ReadError::Mismatch {
                pack: piece.pack,
                reason: format!("{} is not in frame {} slot {}", piece.chunk, piece.frame, piece.slot),
            }),
        }
    }
}

/// How what a file refers to is compressed when it moves. A mount that compresses nothing is no reason to take more room
/// for what is there.
pub(crate) fn compression(core: &Core, file: File) -> Result<Compression, MaintainError> {
    let said = compression_of(core, file)?;
    let mounts = said == Compression::None && core.writing.compression == Compression::None;
    Ok(if mounts { core.geometry.compression } else { said })
}

/// Keeps packs until a checkpoint holds all records so far, and counts what they refer to.
pub(crate) fn keep_pinned(core: &Core, pins: Pins) -> Result<(), MaintainError> {
    let journal = core.journal().map_err(|_| JournalError::Stopped("read-only".into()))?;
    let mut maintainer = core.maintainer.lock().unwrap_or_else(PoisonError::into_inner);
    maintainer.checkpoints.pins.push((journal.last(), pins));
    Ok(())
}

pub(crate) fn no_room(error: Error) -> MaintainError {
    match error {
        Error::NoSpace => MaintainError::NoRoom,
        other => JournalError::Stopped(other.to_string()).into(),
    }
}

/// Where the chunks of the packs that are emptied lie now, those that were moved.
#[derive(Default)]
struct MovedChunks {
    packs: HashMap<PackId, PackChunks>,
    /// The packs made so far.
    made: Vec<PackId>,
}

struct PackChunks {
    starts: Vec<u32>,
    places: Vec<NewPlace>,
}

/// A chunk's new place. `made` counts the packs made, from 1; 0 is nowhere, one more than there are is the pack that is
/// being filled.
#[derive(Clone, Copy, Default)]
struct NewPlace {
    made: u32,
    frame: u32,
    slot: u32,
    /// With the bit [`DIFFERS`].
    stored: u32,
}

/// It is the differences from a base there. No chunk takes so many stored bytes.
const DIFFERS: u32 = 1 << 31;

/// The place that a chunk has.
fn stays(piece: &ChunkPiece) -> Place {
    let ChunkPiece { pack, frame, slot, chunk_len, stored, .. } = *piece;
    Place::Found(Located { pack, frame, slot, len: chunk_len, stored, base: None })
}

impl MovedChunks {
    fn add(&mut self, footer: &Footer) {
        let places = vec![NewPlace::default(); footer.chunks.len()];
        self.packs.insert(footer.pack, PackChunks { starts: starts_of(footer), places });
    }

    fn at(&mut self, pack: &PackId, frame: u32, slot: u32) -> Option<&mut NewPlace> {
        let chunks = self.packs.get_mut(pack)?;
        chunks.places.get_mut(number_of(&chunks.starts, frame, slot)?)
    }

    fn get(&mut self, piece: &ChunkPiece) -> Option<Place> {
        let NewPlace { made, frame, slot, stored } = *self.at(&piece.pack, piece.frame, piece.slot)?;
        match (made, self.made.get((made as usize).checked_sub(1)?)) {
            (_, Some(pack)) => Some(Place::Found(Located {
                pack: *pack,
                frame,
                slot,
                len: piece.chunk_len,
                stored: stored & !DIFFERS,
                base: None,
            })),
            (_, None) => Some(Place::New { frame, slot }),
        }
    }

    /// Whether a chunk that was moved to a pack that is made is the differences from its base there.
    fn differs(&mut self, piece: &ChunkPiece) -> bool {
        self.at(&piece.pack, piece.frame, piece.slot).is_some_and(|at| at.stored & DIFFERS != 0)
    }

    /// A chunk is in the pack that is being filled.
    fn note(&mut self, piece: &ChunkPiece, place: &Place) {
        let made = self.made.len() as u32 + 1;
        if let (Place::New { frame, slot }, Some(at)) =
            (*place, self.at(&piece.pack, piece.frame, piece.slot))
        {
            *at = NewPlace { made, frame, slot, stored: 0 };
        }
    }

    /// The pack that was being filled is one of those made.
    fn settle(&mut self, sealed: &SealedPack) {
        let footer = &sealed.footer;
        let starts = starts_of(footer);
        self.made.push(footer.pack);
        for replaced in &footer.replaces {
            let frame = starts.partition_point(|start| *start <= replaced.chunk).saturating_sub(1);
            let stored = footer
                .frames
                .get(frame)
                .zip(footer.chunks.get(replaced.chunk as usize))
                .map_or(0, |(entry, chunk)| stored_share(entry, chunk));
            if let Some(at) = self.at(&replaced.pack, replaced.frame, replaced.slot) {
                let differs = if footer.base_of(frame as u32).is_some() { DIFFERS } else { 0 };
                at.stored = stored & !DIFFERS | differs;
            }
        }
    }
}
