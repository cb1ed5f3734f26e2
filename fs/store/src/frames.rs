//! What was decoded of packs, and reading of a run of numbers no more than is asked for.
//!
//! Architecture Invariant: bytes get in here checked, each block of a run by a checksum that is bound to the chunk and to the block's number. What
//! is not as it should be is left to who reads the whole frame: there it is restored, or told of.

use std::ops::Range;

use cairn_format::{ChunkEntry, FrameEntry, PackId};

use crate::caches::ByteLru;
use crate::pack::{RunHead, StoredBlocks};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{DecodedFrame, PackReader};

/// What of a frame is meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Whole,
    /// What stands before the blocks of a run.
    Head,
    Block(u32),
}

#[derive(Clone)]
enum Cached {
    Whole(Arc<DecodedFrame>),
    Head(Arc<RunHead>),
    Block(Arc<[u8]>),
}

/// A frame of a pack.
type Place = (PackId, u32);

/// Reads bytes of the chunk that a run is the differences from.
pub(crate) type ReadBase<'a> = &'a dyn Fn(&ChunkEntry, Range<usize>) -> Option<Vec<u8>>;

/// A chunk that may be a run of numbers: where it is, and what is needed to read it.
pub(crate) struct RunAt<'a> {
    pub(crate) place: Place,
    pub(crate) entry: &'a FrameEntry,
    pub(crate) reader: &'a PackReader,
    pub(crate) chunk: ChunkEntry,
    pub(crate) read_base: ReadBase<'a>,
}

impl RunAt<'_> {
    /// Decodes blocks into `plain`, their share of the run. Whether they are what belongs there.
    fn decode(&self, run: &RunHead, stored: &StoredBlocks, numbers: Range<usize>, plain: &mut [u8]) -> bool {
        let Some(base) = run.base() else { return stored.decode(run, numbers, None, plain) };
        let bytes = run.plain(numbers.start).start..run.plain(numbers.end - 1).end;
        let base = run.share_of_base(bytes).and_then(|share| (self.read_base)(&base, share));
        base.is_some_and(|base| stored.decode(run, numbers, Some(&base), plain))
    }
}

/// Frames, and blocks of such, that were decoded; with a limit in bytes.
pub(crate) struct Frames {
    parts: ByteLru<(Place, Part), Cached>,
    hits: AtomicU64,
    misses: AtomicU64,
    read: AtomicU64,
    decoded: AtomicU64,
}

impl Frames {
    /// One that holds up to `limit` bytes.
    pub(crate) fn new(limit: u64) -> Frames {
        let count = || AtomicU64::new(0);
        let parts = ByteLru::new(limit, 8);
        Frames { parts, hits: count(), misses: count(), read: count(), decoded: count() }
    }

    /// How often something was found, and how often it had to be read and decoded.
    pub(crate) fn uses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Bytes that were read of packs, and what was decoded of these.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.decoded.load(Ordering::Relaxed))
    }

    fn count(&self, read: usize, decoded: usize) {
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        self.decoded.fetch_add(decoded as u64, Ordering::Relaxed);
    }

    fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self, place: Place, part: Part) -> Option<Cached> {
        self.parts.get(hint(place, part), &(place, part))
    }

    fn put(&self, place: Place, part: Part, cached: Cached, size: usize) {
        self.parts.put(hint(place, part), (place, part), cached, size as u64);
    }

    /// A whole frame.
    pub(crate) fn whole(&self, place: Place) -> Option<Arc<DecodedFrame>> {
        match self.get(place, Part::Whole) {
            Some(Cached::Whole(frame)) => {
                self.hit();
                Some(frame)
            }
            _ => None,
        }
    }

    /// A whole frame that was read, of so many stored bytes; to be kept if it is likely to be wanted again.
    pub(crate) fn note_whole(&self, place: Place, frame: &Arc<DecodedFrame>, stored: u32, keep: bool) {
        self.miss();
        self.count(stored as usize, frame.plain.len());
        if keep {
            self.put(place, Part::Whole, Cached::Whole(frame.clone()), frame.size() as usize);
        }
    }

    /// Sets `out` to bytes of the chunk that a frame is, from `from` on, where it is a run of numbers, by way of the blocks that they
    /// lie in alone. False where it is something else, or not as it should be; `out` has any bytes then.
    pub(crate) fn read_of_run(&self, at: &RunAt<'_>, from: usize, out: &mut [u8]) -> bool {
        let (place, reader) = (at.place, at.reader);
        let Some(end) = from.checked_add(out.len()).filter(|end| *end <= at.chunk.len as usize) else {
            return false;
        };
        let Some(run) = self.run(at) else { return false };
        let Some(last) = run.blocks().checked_sub(1) else { return run.repeat(from, out) };
        // All but the last are equally long.
        let step = run.plain(0).len().max(1);
        let mut number = (from / step).min(last);
        while number <= last && run.plain(number).start < end {
            let asked = |at: Range<usize>| at.start.max(from)..at.end.min(end);
            if let Some(Cached::Block(block)) = self.get(place, Part::Block(number as u32)) {
                self.hit();
                copy(&block, run.plain(number).start, from, asked(run.plain(number)), out);
                number += 1;
                continue;
            }
            // Those behind it that are not there either are read with it.
            let wanted = (end - 1) / step;
            let lacks = |n: &usize| self.get(place, Part::Block(*n as u32)).is_none();
            let until = (number + 1..=wanted.min(last)).take_while(lacks).last().unwrap_or(number) + 1;
            let Some(stored) = reader.blocks(&run, number..until) else { return false };
            self.count(stored.len(), 0);
            if !self.decode((at, &run), &stored, number..until, from, out) {
                return false;
            }
            number = until;
        }
        true
    }

    /// Has the blocks that hold `bytes` of the chunk that a frame is be decoded, where it is a run of numbers. Whether it is one.
    pub(crate) fn decode_ahead(&self, at: &RunAt<'_>, bytes: Range<usize>) -> bool {
        let (place, reader) = (at.place, at.reader);
        let Some(run) = self.run(at) else { return false };
        let Some(last) = run.blocks().checked_sub(1).filter(|_| !bytes.is_empty()) else { return true };
        let step = run.plain(0).len().max(1);
        let (first, last) = ((bytes.start / step).min(last), ((bytes.end - 1) / step).min(last));
        let lacks = |n: &usize| self.get(place, Part::Block(*n as u32)).is_none();
        let missing: Vec<usize> = (first..=last).filter(lacks).collect();
        let (Some(from), Some(until)) = (missing.first(), missing.last()) else { return true };
        let Some(stored) = reader.blocks(&run, *from..until + 1) else { return true };
        self.count(stored.len(), 0);
        for number in missing {
            let mut block = vec![0; run.plain(number).len()];
            if !at.decode(&run, &stored, number..number + 1, &mut block) {
                break;
            }
            self.count(0, block.len());
            let size = block.len() + 64;
            self.put(place, Part::Block(number as u32), Cached::Block(block.into()), size);
        }
        true
    }

    /// Decodes blocks: those that are asked for in part are kept, since the rest of them may be next.
    fn decode(
        &self,
        (at, run): (&RunAt<'_>, &RunHead),
        stored: &StoredBlocks,
        numbers: Range<usize>,
        from: usize,
        out: &mut [u8],
    ) -> bool {
        let end = from + out.len();
        let is_whole = |n: usize| run.plain(n).start >= from && run.plain(n).end <= end;
        let mut number = numbers.start;
        while number < numbers.end {
            self.miss();
            if is_whole(number) {
                let until =
                    (number + 1..numbers.end).take_while(|n| is_whole(*n)).last().unwrap_or(number) + 1;
                let plain = run.plain(number).start..run.plain(until - 1).end;
                self.count(0, plain.len());
                let Some(out) = out.get_mut(plain.start - from..plain.end - from) else { return false };
                if !at.decode(run, stored, number..until, out) {
                    return false;
                }
                number = until;
                continue;
            }
            let plain = run.plain(number);
            let mut block = vec![0; plain.len()];
            self.count(0, block.len());
            if !at.decode(run, stored, number..number + 1, &mut block) {
                return false;
            }
            copy(&block, plain.start, from, plain.start.max(from)..plain.end.min(end), out);
            let size = block.len() + 64;
            self.put(at.place, Part::Block(number as u32), Cached::Block(block.into()), size);
            number += 1;
        }
        true
    }

    fn run(&self, at: &RunAt<'_>) -> Option<Arc<RunHead>> {
        if let Some(Cached::Head(run)) = self.get(at.place, Part::Head) {
            return run.is(&at.chunk).then_some(run);
        }
        let run = Arc::new(at.reader.run(at.entry, &at.chunk)?);
        self.count(run.read, 0);
        self.put(at.place, Part::Head, Cached::Head(run.clone()), run.size());
        Some(run)
    }
}

/// Copies bytes `at` of a run, of which `block` has those from `start` on, to `out`, which has those from `from` on. All lie in both.
fn copy(block: &[u8], start: usize, from: usize, at: Range<usize>, out: &mut [u8]) {
    out[at.start - from..at.end - from].copy_from_slice(&block[at.start - start..at.end - start]);
}

/// Parts of a frame are spread, too.
fn hint((pack, frame): Place, part: Part) -> usize {
    let part = match part {
        Part::Whole | Part::Head => 0,
        Part::Block(number) => number as usize,
    };
    (frame as usize ^ pack.0[15] as usize).wrapping_add(part)
}
