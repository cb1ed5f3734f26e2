//! Committing a batch: for each chunk, if its run is still what it was when it was read, the file's extents
//! name the chunk from here on.

use cairn_format::{ChunkEntry, ChunkPiece, ChunkPlace, Footer, Mutation, PackId, Piece, PieceKind};
use cairn_store::stored_share;

use super::{File, Mapped, Place};
use crate::checkpoint::MaintainError;
use crate::core::Core;
use crate::journal::JournalError;
use crate::vfs::st_ino;

/// Bytes of a piece in a record.
const PIECE_BYTES: usize = 112;
/// The longest record a fold appends, where the segments allow it.
const RECORD_MAX: usize = 256 << 10;

/// Appends the records of a batch; gives how many chunks they name. `footer` is the new pack's. Before each record of so
/// many bytes `wait` may wait, with no lock held, or say that there is no room.
pub(crate) fn commit_batch(
    core: &Core,
    mapped: Vec<Mapped>,
    footer: Option<&Footer>,
    wait: &dyn Fn(u64) -> Result<(), MaintainError>,
) -> Result<usize, MaintainError> {
    let journal = core.journal().map_err(|_| JournalError::Stopped("read-only".into()))?;
    let most = (RECORD_MAX.min(journal.record_max() as usize / 2) / PIECE_BYTES).max(1);
    let shares = footer.map(Shares::of);
    if let Err(error) = make_certain(core, &mapped) {
        mapped.iter().for_each(|left| put_back(core, left));
        return Err(error);
    }
    let mut committed = 0;
    let mut rest = mapped.as_slice();
    while let Some(first) = rest.first() {
        let of_file = rest.iter().take(most).take_while(|m| m.file == first.file).count();
        let (part, behind) = rest.split_at(of_file);
        rest = behind;
        let waited = wait((part.len() * PIECE_BYTES) as u64);
        match waited.and_then(|()| commit_file(core, first.file, part, shares.as_ref())) {
            Ok(count) => committed += count,
            Err(error) => {
                // What is not named stays dirty; the chunks already stored are found when it is folded again.
                for left in part.iter().chain(rest) {
                    put_back(core, left);
                }
                return Err(error);
            }
        }
    }
    Ok(committed)
}

/// Makes the packs certain that chunks were found in.
fn make_certain(core: &Core, mapped: &[Mapped]) -> Result<(), MaintainError> {
    let mut last = None;
    let packs = mapped.iter().flat_map(|chunk| {
        let place = [Some(&chunk.place), chunk.base.as_ref()].into_iter().flatten();
        place.flat_map(|place| match place {
            Place::Found(at) => [Some(at.pack), at.base.map(|base| base.pack)],
            Place::New { .. } => [None, None],
        })
    });
    for pack in packs.flatten() {
        if last != Some(pack) {
            core.store.make_certain(&pack)?;
            last = Some(pack);
        }
    }
    Ok(())
}

/// The new pack, and the stored bytes that each of its chunks takes.
struct Shares {
    pack: PackId,
    frames: Vec<Vec<u32>>,
    /// Those that are differences from a base.
    differ: Vec<bool>,
}

impl Shares {
    fn of(footer: &Footer) -> Shares {
        let mut chunks = footer.chunks.iter();
        let share = |frame: &cairn_format::FrameEntry| -> Vec<u32> {
            chunks.by_ref().take(frame.chunks as usize).map(|c: &ChunkEntry| stored_share(frame, c)).collect()
        };
        let frames: Vec<_> = footer.frames.iter().map(share).collect();
        let differ = (0..frames.len() as u32).map(|frame| footer.base_of(frame).is_some()).collect();
        Shares { pack: footer.pack, frames, differ }
    }

    fn of_chunk(&self, frame: u32, slot: u32) -> Option<u32> {
        self.frames.get(frame as usize)?.get(slot as usize).copied()
    }
}

fn commit_file(
    core: &Core,
    file: File,
    part: &[Mapped],
    shares: Option<&Shares>,
) -> Result<usize, MaintainError> {
    let (view, ino) = file;
    let _lock = core.locks.write(&[ino]);
    let mut mutations: Vec<Mutation> = Vec::new();
    let mut end = None;
    let mut count = 0;
    for chunk in part {
        let unchanged =
            core.look(|ns| ns.runs(view, ino, chunk.offset, chunk.len.into())).map(|now| now == chunk.was);
        let piece = match unchanged.map_err(MaintainError::from)? {
            true => piece(chunk, shares),
            false => None,
        };
        let Some(piece) = piece else {
            put_back(core, chunk);
            continue;
        };
        count += 1;
        match mutations.last_mut() {
            Some(Mutation::Map { pieces, .. }) if end == Some(chunk.offset) => pieces.push(piece),
            _ => mutations.push(Mutation::Map { view, ino, offset: chunk.offset, pieces: vec![piece] }),
        }
        end = Some(chunk.offset + u64::from(chunk.len));
    }
    if !mutations.is_empty() {
        append(core, &mutations)?;
        if let Some(tell) = core.on_folded.get() {
            tell(st_ino(view, ino));
        }
    }
    Ok(count)
}

fn append(core: &Core, mutations: &[Mutation]) -> Result<(), MaintainError> {
    let journal = core.journal().map_err(|_| JournalError::Stopped("read-only".into()))?;
    let gate = core.gate.read().unwrap_or_else(crate::sync::PoisonError::into_inner);
    let at = journal.append(mutations, &[])?;
    core.ns.apply(mutations, &at);
    drop(gate);
    Ok(())
}

fn piece(mapped: &Mapped, shares: Option<&Shares>) -> Option<Piece> {
    let resolve = |place: Place| match place {
        Place::Found(at) => Some(at.place()),
        Place::New { frame, slot } => shares.map(|new| ChunkPlace { pack: new.pack, frame, slot }),
    };
    let (pack, frame, slot, stored, base) = match mapped.place {
        Place::Found(at) => {
            let base = match mapped.base {
                Some(base) => Some(resolve(base)?),
                None => at.base,
            };
            (at.pack, at.frame, at.slot, at.stored, base)
        }
        Place::New { frame, slot } => {
            let shares = shares?;
            let differs = shares.differ.get(frame as usize).copied().unwrap_or(false);
            let base = match differs {
                true => Some(resolve(mapped.base?)?),
                false => None,
            };
            (shares.pack, frame, slot, shares.of_chunk(frame, slot)?, base)
        }
    };
    let piece = ChunkPiece {
        chunk: mapped.chunk,
        pack,
        frame,
        slot,
        offset: mapped.from,
        chunk_len: mapped.chunk_len,
        stored,
        base,
    };
    Some(Piece { len: mapped.len, kind: PieceKind::Chunk(piece) })
}

fn put_back(core: &Core, mapped: &Mapped) {
    if let Some(first) = mapped.first {
        core.dirty.put_back(mapped.file, mapped.offset, mapped.offset + u64::from(mapped.len), first);
    }
}
