//! Cutting a dirty run into chunks: from the start of the chunk before it until a cut meets an old one
//! behind it, so that a file folded in pieces has the chunks it would have if it had been written in one go.

use cairn_codec::chunk_id;
use cairn_format::key::Key;
use cairn_format::{Inode, PieceKind};
use cairn_store::Pins;

use super::pipeline::{Packer, Part};
use super::tensors::{Cuts, FileCuts};
use super::{Mapped, Taken, read_run};
use crate::checkpoint::MaintainError;
use crate::core::Core;
use crate::namespace::{FileRun, NamespaceError, Run};
use crate::open::Dedup;

/// Bytes that are read ahead of the chunker at a time.
const WINDOW: u64 = 1 << 20;

/// How far a run was cut.
pub(super) enum Recut {
    /// All of it, and what had to follow: up to here.
    Done(u64),
    /// Up to here: the pack is full. A cut that met no old one yet goes on from there, behind the run's end too.
    Full(u64),
    /// Up to here: bytes moved, or cannot be read.
    Unreadable(u64),
}

/// The file's bytes from `start` on, as far as they were read, and the runs that they were read from.
struct Window {
    start: u64,
    /// What was read; the part before `head` is cut already.
    read: Vec<u8>,
    head: usize,
    runs: Vec<FileRun>,
    /// Whether a hole or the end of the file follows, or a chunk that cannot be read.
    ended: bool,
    /// Where that chunk ends.
    behind: Option<u64>,
}

/// Cuts the run into chunks, hands new ones to the packer, and lists all that change the file's extents. Up to `from`
/// the same batch has cut the file already: extents there are not what they will be.
pub(super) fn recut(
    core: &Core,
    run: &Taken,
    from: u64,
    cuts: &mut FileCuts,
    packer: &mut Packer<'_>,
    pins: &mut Pins,
    mapped: &mut Vec<Mapped>,
) -> Result<Recut, MaintainError> {
    let Some(size) = file_size(core, run)? else { return Ok(Recut::Done(from)) };
    let cuts = cuts.of(core, run, size)?;
    let end = run.end.min(size);
    let mut at = first_cut(core, run, run.start.min(size), cuts.reach() as u64)?.max(from);
    while at < end {
        // The next bytes that are no hole.
        let Some(begin) = next_data(core, run, at, end)? else { break };
        if begin >= end {
            break;
        }
        match cut_data(core, run, begin, end, size, cuts, packer, pins, mapped)? {
            Recut::Done(next) => at = next,
            stopped => return Ok(stopped),
        }
    }
    Ok(Recut::Done(at))
}

/// Cuts one run of data (up to a hole or the end of the file) from `begin` until everything before `end` is cut
/// and a cut meets an old one.
#[expect(clippy::too_many_arguments, reason = "one loop, its state is the caller's")]
fn cut_data(
    core: &Core,
    run: &Taken,
    begin: u64,
    end: u64,
    size: u64,
    cuts: &Cuts,
    packer: &mut Packer<'_>,
    pins: &mut Pins,
    mapped: &mut Vec<Mapped>,
) -> Result<Recut, MaintainError> {
    let mut window =
        Window { start: begin, read: Vec::new(), head: 0, runs: Vec::new(), ended: false, behind: None };
    loop {
        while !window.ended && window.bytes().len() <= cuts.longest() {
            if !window.extend(core, run, size)? {
                // What was cut so far stands.
                return Ok(Recut::Unreadable(window.start));
            }
        }
        if window.bytes().is_empty() {
            return Ok(Recut::Done(window.behind.unwrap_or(window.start)));
        }
        if window.start >= end && window.meets() {
            return Ok(Recut::Done(window.start));
        }
        if packer.is_full() {
            return Ok(Recut::Full(window.start));
        }
        let (mut len, mut element) = cuts.cut(window.start, window.bytes());
        // A pattern that goes on: so may the chunk.
        while len == window.bytes().len() && !window.ended {
            if !window.extend(core, run, size)? {
                return Ok(Recut::Unreadable(window.start));
            }
            (len, element) = cuts.cut(window.start, window.bytes());
        }
        let plain = &window.bytes()[..len];
        let id = chunk_id(core.store.chunk_key(), plain);
        let was = window.runs_of(len as u64);
        if !is_chunk(&was, &id, len) {
            let part = element.map(|element| Part { element, name: cuts.known_by(window.start) });
            let (place, base) = packer.place(core, &id, plain, part, dedup_of(core, &was), pins)?;
            mapped.push(Mapped {
                file: run.file,
                offset: window.start,
                len: len as u32,
                was,
                chunk: id,
                chunk_len: len as u32,
                from: 0,
                place,
                base,
                first: Some(run.first),
            });
        }
        window.advance(len);
    }
}

/// Whether what is stored already is believed to be. Bytes that a mount before this one left in the journal have outlived a crash there,
/// and it is let go once they are folded: the copy in a pack, which that mount's last fold may have written and nobody has read
/// since, is looked at before it is all that there is.
fn dedup_of(core: &Core, was: &[FileRun]) -> Dedup {
    let is_of_before = |(_, run): &FileRun| match &run.kind {
        PieceKind::Journal(at) => at.lsn.epoch() < core.packs.epoch,
        _ => false,
    };
    match core.writing.dedup {
        Dedup::On if was.iter().any(is_of_before) => Dedup::Verify,
        said => said,
    }
}

/// Whether the runs are this very chunk, whole.
fn is_chunk(was: &[FileRun], id: &cairn_format::ChunkId, len: usize) -> bool {
    matches!(was, [(_, Run { kind: PieceKind::Chunk(piece), .. })]
        if piece.chunk == *id && piece.offset == 0 && piece.chunk_len as usize == len)
}

impl Window {
    /// The bytes that are not cut yet.
    fn bytes(&self) -> &[u8] {
        &self.read[self.head..]
    }

    /// Reads on. False where the bytes cannot be had now.
    fn extend(&mut self, core: &Core, run: &Taken, size: u64) -> Result<bool, MaintainError> {
        let at = self.start + self.bytes().len() as u64;
        self.read.drain(..self.head);
        self.head = 0;
        let len = WINDOW.min(size.saturating_sub(at));
        if len == 0 {
            self.ended = true;
            return Ok(true);
        }
        for next in runs(core, run, at, len)? {
            if next.1.kind == PieceKind::Hole {
                self.ended = true;
                return Ok(true);
            }
            // What fails once may not the second time.
            match read_run(core, &next).or_else(|_| read_run(core, &next)) {
                Ok(Some(bytes)) => {
                    self.read.extend_from_slice(&bytes);
                    self.runs.push(next);
                }
                Ok(None) if !is_still_said(core, run, &next)? => return Ok(false),
                unreadable => {
                    let error = unreadable.err().unwrap_or_else(|| "its pack is missing".into());
                    core.note_lost(run.file, next, &format_args!("folding: {error}"));
                    // What is in a pack already need not be folded: what surrounds it is cut without it.
                    if let PieceKind::Chunk(_) = next.1.kind {
                        (self.ended, self.behind) = (true, Some(next.0 + next.1.len));
                        return Ok(true);
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The runs that the first `len` bytes were read from, joined where they go on in the same place.
    fn runs_of(&self, len: u64) -> Vec<FileRun> {
        let end = self.start + len;
        let mut of: Vec<FileRun> = Vec::new();
        for (at, run) in &self.runs {
            let (from, to) = ((*at).max(self.start), (at + run.len).min(end));
            if from >= to {
                continue;
            }
            let piece = super::piece_of(&(*at, *run)).part((from - at) as u32, (to - from) as u32);
            let part = Run { len: piece.len.into(), kind: piece.kind };
            match of.last_mut() {
                Some(last) if super::piece_of(last).continues_in(&piece) => last.1.len += part.len,
                _ => of.push((from, part)),
            }
        }
        of
    }

    fn advance(&mut self, len: usize) {
        self.head += len;
        self.start += len as u64;
        let start = self.start;
        self.runs.retain(|(at, run)| at + run.len > start);
    }

    /// Whether an old chunk begins right here.
    fn meets(&self) -> bool {
        let here = self.runs.iter().find(|(at, run)| *at <= self.start && at + run.len > self.start);
        match here {
            Some((at, Run { kind: PieceKind::Chunk(piece), .. })) => {
                u64::from(piece.offset) + (self.start - at) == 0
            }
            // What is not folded yet is dirty by itself, and cut when its turn comes.
            Some((_, Run { kind: PieceKind::Journal(_), .. })) => true,
            _ => true,
        }
    }
}

fn file_size(core: &Core, run: &Taken) -> Result<Option<u64>, NamespaceError> {
    let _lock = core.locks.read(run.file.1);
    let value = core.look(|ns| ns.get(&Key::Inode(run.file.1, run.file.0)))?;
    Ok(value.map(|value| Inode::decode(&value)).transpose()?.map(|inode| inode.size))
}

fn runs(core: &Core, run: &Taken, at: u64, len: u64) -> Result<Vec<FileRun>, NamespaceError> {
    let _lock = core.locks.read(run.file.1);
    core.look(|ns| ns.runs(run.file.0, run.file.1, at, len))
}

/// Where cutting begins: at the start of the chunk that holds the byte before the run. That byte's chunk may
/// have ended for want of bytes behind it, and its last cut saw the first byte of what has changed.
fn first_cut(core: &Core, run: &Taken, start: u64, longest: u64) -> Result<u64, NamespaceError> {
    if start == 0 {
        return Ok(0);
    }
    // A chunk is at most this long, so all that is left of it is in reach.
    let reach = start.min(longest.max(core.geometry.chunks.max.into()));
    let before = runs(core, run, start - reach, reach)?;
    Ok(match before.last() {
        // `runs` joins what goes on in the same place: the last run is the chunk as far as it is left.
        Some((at, Run { kind: PieceKind::Chunk(_), .. })) => *at,
        _ => start,
    })
}

/// Whether the file still says of a run of a chunk that it lies where it was not found: then it did not move, its pack is
/// missing.
fn is_still_said(core: &Core, run: &Taken, looked: &FileRun) -> Result<bool, NamespaceError> {
    let is_chunk = matches!(looked.1.kind, PieceKind::Chunk(_));
    Ok(is_chunk && runs(core, run, looked.0, looked.1.len)? == [*looked])
}

/// The next byte from `at` on, before `end`, that is in no hole.
fn next_data(core: &Core, run: &Taken, at: u64, end: u64) -> Result<Option<u64>, NamespaceError> {
    const STEP: u64 = 256 << 20;
    let mut from = at;
    while from < end {
        let len = STEP.min(end - from);
        for (begin, next) in runs(core, run, from, len)? {
            if next.kind != PieceKind::Hole {
                return Ok(Some(begin.max(at)));
            }
        }
        from += len;
    }
    Ok(None)
}
