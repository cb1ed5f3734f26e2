//! What of each pack is live: every extent is looked at, and the chunks it names are marked.

use std::collections::HashMap;

use cairn_format::key::{self, tag};
use cairn_format::{ChunkPlace, Footer, PackId, PackSummary, PieceKind, decode_pieces};
use cairn_store::stored_share;

use crate::checkpoint::MaintainError;
use crate::core::Core;

/// Memory that the marks of one survey take at most: those of some 500 GiB.
const MEMORY: u64 = 16 << 20;
/// Keys of the engine read at a time: it keeps nothing old for longer than that.
const PAGE: usize = 256;

/// What a pack is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) pack: PackId,
    /// The length of its file, that without what protects it, and that of its chunks once decoded.
    pub(super) file_len: u64,
    pub(super) own_len: u64,
    pub(super) plain_len: u64,
    /// Of the file's bytes, those that live chunks answer for.
    pub(super) live: u64,
    pub(super) chunks: u32,
}

/// A pack's chunks, by frame and slot, with a bit for each that is live.
struct Marks {
    starts: Vec<u32>,
    bits: Vec<u64>,
    /// Stored bytes of each frame.
    frames: Vec<u32>,
    /// Stored bytes of all chunks, and of those that are marked.
    share: u64,
    live: u64,
}

/// How many packs at the end of the list one survey has memory for; at least one.
pub(super) fn surveyable(packs: &[PackSummary], frame: u32) -> usize {
    let mut bytes = 0;
    let fits = |pack: &&PackSummary| {
        bytes += 256 + u64::from(pack.chunks) / 8 + 8 * (pack.plain_len / u64::from(frame.max(1)) + 1);
        bytes <= MEMORY
    };
    packs.iter().rev().take_while(fits).count().max(1)
}

/// Looks through all extents for what is live in `packs`, until `stopped`. A pack whose footer cannot be read is left
/// out: what is in it cannot be moved.
pub(super) fn survey(
    core: &Core,
    packs: Vec<PackSummary>,
    stopped: &mut dyn FnMut() -> bool,
) -> Result<Vec<Census>, MaintainError> {
    let mut marked = HashMap::with_capacity(packs.len());
    for pack in &packs {
        match core.store.reader(pack.pack).and_then(|reader| reader.footer()) {
            Ok(footer) => drop(marked.insert(pack.pack, Marks::of(&footer))),
            // Dropped since it was listed.
            Err(_) if !core.store.knows(&pack.pack) => {}
            Err(error) => tracing::error!("a pack is not looked at: {error}"),
        }
        if stopped() {
            return Ok(Vec::new());
        }
    }
    each_extent_page(core, |page| {
        for (_, value) in page {
            // One that cannot be decoded is said by whoever reads that file; nothing is dropped for what is said here.
            for piece in decode_pieces(value).unwrap_or_default() {
                let PieceKind::Chunk(chunk) = piece.kind else { continue };
                if let Some(marks) = marked.get_mut(&chunk.pack) {
                    marks.mark(&chunk.place(), Some(chunk.stored));
                }
                if let Some(base) = chunk.base
                    && let Some(marks) = marked.get_mut(&base.pack)
                {
                    marks.mark(&base, None);
                }
            }
        }
        stopped()
    })?;
    let census = |pack: PackSummary| {
        let marks = marked.get(&pack.pack)?;
        // In proportion: what describes a chunk goes with it.
        let live = u128::from(pack.file_len) * u128::from(marks.live) / u128::from(marks.share.max(1));
        Some(Census {
            pack: pack.pack,
            file_len: pack.file_len,
            own_len: pack.file_len.saturating_sub(pack.spare_len),
            plain_len: pack.plain_len,
            live: live.min(pack.file_len.into()) as u64,
            chunks: pack.chunks,
        })
    };
    Ok(packs.into_iter().filter_map(census).collect())
}

/// Calls `each` with all extents of the engine, some at a time, until it says true.
pub(super) fn each_extent_page(
    core: &Core,
    each: impl FnMut(&[(Vec<u8>, Vec<u8>)]) -> bool,
) -> Result<(), MaintainError> {
    let (from, to) = key::all_tagged(tag::EXTENT);
    each_page(core, &from, &to, each)
}

/// Calls `each` with all keys of the engine in `from..to`, some at a time, until it says true.
pub(crate) fn each_page(
    core: &Core,
    from: &[u8],
    to: &[u8],
    mut each: impl FnMut(&[(Vec<u8>, Vec<u8>)]) -> bool,
) -> Result<(), MaintainError> {
    let mut next = Some(from.to_vec());
    while let Some(from) = next {
        let (page, rest) = core.look(|ns| ns.engine_page(&from, to, PAGE))?;
        if each(&page) {
            break;
        }
        next = rest;
    }
    Ok(())
}

/// For each frame of a pack, the number of its first chunk.
pub(super) fn starts_of(footer: &Footer) -> Vec<u32> {
    let starts = footer.frames.iter().scan(0u32, |next, frame| {
        let start = *next;
        *next = next.saturating_add(frame.chunks);
        Some(start)
    });
    starts.chain([footer.chunks.len() as u32]).collect()
}

/// A chunk's number in its pack; none where there is no such place.
pub(super) fn number_of(starts: &[u32], frame: u32, slot: u32) -> Option<usize> {
    let (start, end) = (*starts.get(frame as usize)?, *starts.get(frame as usize + 1)?);
    start.checked_add(slot).filter(|number| *number < end).map(|number| number as usize)
}

impl Marks {
    fn of(footer: &Footer) -> Marks {
        let mut chunks = footer.chunks.iter();
        let shares = |frame: &cairn_format::FrameEntry| -> u64 {
            chunks.by_ref().take(frame.chunks as usize).map(|c| u64::from(stored_share(frame, c))).sum()
        };
        let share = footer.frames.iter().map(shares).sum();
        let bits = vec![0; footer.chunks.len().div_ceil(64)];
        let frames = footer.frames.iter().map(|frame| frame.len).collect();
        Marks { starts: starts_of(footer), bits, frames, share, live: 0 }
    }

    /// Marks a chunk that takes so many stored bytes; all of its frame, where nothing says.
    fn mark(&mut self, at: &ChunkPlace, stored: Option<u32>) {
        let Some(number) = number_of(&self.starts, at.frame, at.slot) else { return };
        let (word, bit) = (number / 64, 1u64 << (number % 64));
        if self.bits[word] & bit == 0 {
            self.bits[word] |= bit;
            let frame = self.frames.get(at.frame as usize).copied().unwrap_or(0);
            self.live += u64::from(stored.unwrap_or(frame));
        }
    }
}
