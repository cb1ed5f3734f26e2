//! Reading a run of numbers in part: only the blocks that are asked for.

use std::ops::Range;

use cairn_codec::tensor::{Decoder, Kernel};
use cairn_format::{ChunkEntry, ChunkId, FrameEntry, FrameHead, PlanesHead};

use super::PackReader;

/// What is read first of a frame: mostly all that stands before its blocks.
const START_LEN: usize = 4096;
/// A head that is longer is none: eight planes' frequencies, the longest pattern, and the blocks of 16 MiB.
const LONGEST_HEAD: u32 = 64 << 10;
/// What has no more bytes is read whole.
const ONE_BLOCK: u32 = 64 << 10;

/// A run of numbers in a frame of its own: what stands before its blocks, checked.
pub(crate) struct RunHead {
    chunk: ChunkEntry,
    decoder: Decoder,
    /// The chunk that it is the differences from.
    base: Option<ChunkId>,
    /// Where the blocks begin in the pack, and how many bytes there may be of them.
    blocks_at: u64,
    blocks_len: u32,
    /// What was read of the pack to know this.
    pub(crate) read: usize,
}

impl RunHead {
    /// Bytes of memory it takes.
    pub(crate) fn size(&self) -> usize {
        self.decoder.size() + size_of::<RunHead>()
    }

    /// The chunk that it is the differences from, where it is.
    pub(crate) fn base(&self) -> Option<ChunkEntry> {
        let len = self.decoder.share_of_base(0..self.chunk.len as usize)?.len();
        Some(ChunkEntry { id: self.base?, len: u32::try_from(len).ok()? })
    }

    /// Which bytes of that some of this one's are decoded with.
    pub(crate) fn share_of_base(&self, plain: Range<usize>) -> Option<Range<usize>> {
        self.decoder.share_of_base(plain)
    }

    /// Whether it is this chunk.
    pub(crate) fn is(&self, chunk: &ChunkEntry) -> bool {
        self.chunk == *chunk
    }

    /// How many blocks there are.
    pub(crate) fn blocks(&self) -> usize {
        self.decoder.blocks()
    }

    /// Which of the run's plain bytes a block holds.
    pub(crate) fn plain(&self, number: usize) -> Range<usize> {
        self.decoder.plain(number)
    }

    /// Sets `plain` to the run's bytes from `from` on, where that takes no blocks. Whether it does.
    pub(crate) fn repeat(&self, from: usize, plain: &mut [u8]) -> bool {
        self.decoder.repeat(from, plain)
    }
}

/// Bytes of blocks that follow each other, not checked yet.
pub(crate) struct StoredBlocks {
    from: u32,
    bytes: Vec<u8>,
}

impl StoredBlocks {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Checks and decodes some of them into `plain`, their share of the run, with that of the base where it has one. Whether they are what belongs
    /// there.
    pub(crate) fn decode(
        &self,
        run: &RunHead,
        numbers: Range<usize>,
        base: Option<&[u8]>,
        plain: &mut [u8],
    ) -> bool {
        let Some(at) = stored(&run.decoder, &numbers) else { return false };
        let within = |at: u32| at.checked_sub(self.from).map(|at| at as usize);
        let bytes = within(at.start).zip(within(at.end)).and_then(|(start, end)| self.bytes.get(start..end));
        bytes.is_some_and(|bytes| run.decoder.decode_blocks(numbers, bytes, base, plain).is_ok())
    }
}

impl PackReader {
    /// How a frame is stored, as its first bytes say, which are not checked: for people.
    pub(crate) fn stored_as(&self, entry: &FrameEntry) -> Option<&'static str> {
        FrameHead::stored_as(&self.read(entry.offset, 128.min(entry.len as usize)).ok()?)
    }

    /// What stands before the blocks of a frame, if it is the one chunk given as a run of numbers, of several blocks. None where it
    /// is something else, or not as it should be: who reads all of it finds out what.
    pub(crate) fn run(&self, entry: &FrameEntry, chunk: &ChunkEntry) -> Option<RunHead> {
        if entry.chunks != 1 || entry.plain_len != chunk.len || chunk.len <= ONE_BLOCK {
            return None;
        }
        let mut start = self.read(entry.offset, START_LEN.min(entry.len as usize)).ok()?;
        let (head_at, base) = FrameHead::start_of_run(&start, entry.len, chunk)?;
        let head_len = PlanesHead::len_of(start.get(head_at as usize..)?).ok()?;
        let head_end =
            head_at.checked_add(head_len).filter(|end| *end <= entry.len && head_len <= LONGEST_HEAD)?;
        if let Some(missing) = (head_end as usize).checked_sub(start.len()) {
            start.extend(self.read(entry.offset + start.len() as u64, missing).ok()?);
        }
        let head = start.get(head_at as usize..head_end as usize)?;
        let decoder = Decoder::new(Kernel::best(), head, &chunk.id, chunk.len as usize).ok()?;
        let blocks_at = entry.offset.checked_add(head_end.into())?;
        let blocks_len = entry.len - head_end;
        let fits = decoder.of_base().is_some() == base.is_some();
        let read = start.len();
        fits.then_some(RunHead { chunk: *chunk, decoder, base, blocks_at, blocks_len, read })
    }

    /// Bytes of a run's blocks, not checked; none where they cannot be read.
    pub(crate) fn blocks(&self, run: &RunHead, numbers: Range<usize>) -> Option<StoredBlocks> {
        let at = stored(&run.decoder, &numbers)?;
        // What is read is allocated for: no more than the frame has.
        if at.end > run.blocks_len {
            return None;
        }
        let bytes = self.read(run.blocks_at + u64::from(at.start), (at.end - at.start) as usize).ok()?;
        Some(StoredBlocks { from: at.start, bytes })
    }
}

/// Where blocks lie behind the head.
fn stored(decoder: &Decoder, numbers: &Range<usize>) -> Option<Range<u32>> {
    let last = numbers.end.checked_sub(1).filter(|last| *last >= numbers.start)?;
    Some(decoder.stored(numbers.start)?.start..decoder.stored(last)?.end)
}
