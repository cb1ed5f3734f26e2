//! The fold: journalled bytes become chunks, packs and extents, behind the callers' backs.
//!
//! A batch takes dirty runs, oldest first, and fills one pack. Only once that pack is sealed and synced are
//! records appended that refer to it, and each of those counts only where the run it was made from is
//! still what it was: a compare-and-swap for every chunk.
//!
//! Compaction (`gc/`) fills packs and commits them the same way: it is this pipeline's second producer.

mod bases;
mod commit;
mod dirty;
mod pipeline;
mod recut;
mod tensors;

use std::time::Duration;

use cairn_format::{Compression, Lsn, PackKind, Piece};
use cairn_store::{Located, Pins};

pub(crate) use dirty::{DirtySet, File, Taken};

use crate::checkpoint::MaintainError;
use crate::core::Core;
use crate::namespace::FileRun;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::vfs::Policy;
pub(crate) use bases::{Bases, LIMIT as BASES_LIMIT};
pub(crate) use commit::commit_batch;
pub(crate) use pipeline::{Base, Packer, with_packer};
use recut::{Recut, recut};
use tensors::FileCuts;
pub(crate) use tensors::{Cuts, RUN, tensors_of};

/// A run of a file, and the chunk that its bytes are from here on.
pub(crate) struct Mapped {
    pub(crate) file: File,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    /// The run as it was read: it is replaced only while it is still that.
    pub(crate) was: Vec<FileRun>,
    pub(crate) chunk: cairn_format::ChunkId,
    /// The chunk's length, and where in it the run begins.
    pub(crate) chunk_len: u32,
    pub(crate) from: u32,
    pub(crate) place: Place,
    /// Where the chunk is that it is the differences from: of a new one where it is, if it comes to be stored so; of one that was there instead of where
    /// that says. None: there is none, or where that says.
    pub(crate) base: Option<Place>,
    /// No journalled byte of the run is older; none where it has none, and nothing has to be done where it changed.
    pub(crate) first: Option<Lsn>,
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In a pack that was there.
    Found(Located),
    /// In the pack being filled: frame and slot.
    New {
        /// The frame's number.
        frame: u32,
        /// The chunk's number in it.
        slot: u32,
    },
}

/// What a batch did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Folded {
    /// Chunks that were committed.
    pub(crate) chunks: usize,
}

/// Folds runs older than `age`, oldest first: as many as fill a pack.
pub(crate) fn fold_batch(
    core: &Core,
    pins_of: &mut Vec<(Lsn, Pins)>,
    age: Duration,
) -> Result<Folded, MaintainError> {
    let Ok(journal) = core.journal() else { return Ok(Folded::default()) };
    let most = core.fold_start();
    let taken = core.dirty.take(most, age);
    if taken.is_empty() {
        return Ok(Folded::default());
    }
    let mut pins = Pins::default();
    let result = fold_taken(core, &taken, &mut pins);
    let folded = match result {
        Ok(chunks) => Ok(Folded { chunks }),
        Err(error) => {
            for run in &taken {
                core.dirty.put_back(run.file, run.start, run.end, run.first);
            }
            Err(error)
        }
    };
    taken.iter().for_each(|run| core.dirty.done(run));
    // Records of this batch have LSNs up to here; a checkpoint that holds them counts their references.
    pins_of.push((journal.last(), pins));
    folded
}

fn fold_taken(core: &Core, taken: &[Taken], pins: &mut Pins) -> Result<usize, MaintainError> {
    let mut mapped = Vec::new();
    let sealed = with_packer(core, |packer| {
        let mut reached: Option<(File, u64)> = None;
        let mut cuts = FileCuts::default();
        for run in joined(taken) {
            // A full pack ends the batch; what is left of it goes into the next.
            if packer.is_full() {
                core.dirty.put_back(run.file, run.start, run.end, run.first);
                continue;
            }
            let from = reached.filter(|(file, _)| *file == run.file).map_or(0, |(_, at)| at);
            packer.compress_with(compression_of(core, run.file)?);
            match recut(core, &run, from, &mut cuts, packer, pins, &mut mapped)? {
                Recut::Done(at) => reached = Some((run.file, at)),
                Recut::Full(at) => core.dirty.put_back(run.file, at, run.end.max(at + 1), run.first),
                Recut::Unreadable(at) => core.dirty.put_back(run.file, at, run.end, run.first),
            }
        }
        Ok(())
    })?;
    if let Some(sealed) = &sealed {
        core.counters.packs_written.add(1);
        core.counters.stored_bytes.add(sealed.file_len);
        core.store.publish(sealed, Some(pins));
    }
    commit_batch(core, mapped, sealed.as_ref().map(|s| &s.footer), &|_| Ok(()))
}

/// How a file's new chunks are compressed.
pub(crate) fn compression_of(core: &Core, (view, ino): File) -> Result<Compression, MaintainError> {
    let _lock = core.locks.read(ino);
    let said = core.look(|ns| ns.get(&Policy::key(ino, view))).map_err(MaintainError::from)?;
    let policy = said.and_then(|value| Policy::decode(&value));
    Ok(policy.map_or(core.writing.compression, |policy| policy.compression))
}

/// Runs of a file that follow each other, made one; in the order in which their files were written first. All runs of
/// a file get the oldest LSN of any: cutting one may take in journalled bytes of the next.
fn joined(taken: &[Taken]) -> Vec<Taken> {
    let mut files = std::collections::HashMap::new();
    for run in taken {
        let next = files.len();
        let (_, first) = files.entry(run.file).or_insert((next, run.first));
        *first = run.first.min(*first);
    }
    let mut sorted = taken.to_vec();
    sorted.iter_mut().for_each(|run| run.first = files[&run.file].1);
    sorted.sort_by_key(|run| (files[&run.file].0, run.start));
    let mut joined: Vec<Taken> = Vec::with_capacity(sorted.len());
    for run in sorted {
        match joined.last_mut() {
            Some(last) if last.file == run.file && last.end == run.start => {
                last.end = run.end;
            }
            _ => joined.push(run),
        }
    }
    joined
}

/// A run's bytes, read without any lock: they cannot go away, since the journal's floor is held by what was
/// taken, and packs by what refers to them. `None` where that was no longer so, and they moved.
fn read_run(core: &Core, run: &FileRun) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = vec![0; run.1.len as usize];
    match core.read_runs(std::slice::from_ref(run), run.0, &mut bytes) {
        Ok(_) => Ok(Some(bytes)),
        Err((_, error)) if error.may_have_moved() && !still_there(core, run) => Ok(None),
        Err((_, error)) => Err(error.to_string()),
    }
}

/// Whether the place of a run's bytes is one that can be looked at again.
fn still_there(core: &Core, run: &FileRun) -> bool {
    match run.1.kind {
        cairn_format::PieceKind::Chunk(piece) => {
            piece.places().all(|place| core.store.reader(place.pack).is_ok())
        }
        _ => true,
    }
}

/// The bytes of runs as pieces. Runs of bytes are never longer than a piece can be.
fn piece_of(run: &FileRun) -> Piece {
    Piece { len: run.1.len.min(u32::MAX.into()) as u32, kind: run.1.kind }
}

/// The kind of the packs that folds make.
const KIND: PackKind = PackKind::Data;

/// Locks a mutex whose data stays in order whatever panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
