//! Runs of numbers, coded by the planes of their bytes.
//!
//! Weights of models look random but for their exponents, which take few values. A run (a chunk of a tensor, 1 MiB mostly) is cut
//! into blocks of 64 KiB, each of which can be decoded alone; the bytes of a block's elements are taken apart into `planes.rs`, and each plane
//! is stored as it is or coded with `rans.rs`, by frequencies that are the block's own or those of all blocks of the run. Before that
//! it is looked whether the run repeats a pattern (`period.rs`), or has few different elements (`palette.rs`). Where a run is known that this one
//! may be near to, the planes may be those of the differences from that (`difference.rs`).
//!
//! What is written depends on the bytes and the kind of elements alone: every rounding and every choice is part of the format
//! (docs/FORMAT.md), so that encoders on all devices write the same.
//!
//! Architecture Invariant: no I/O, no state but buffers. What is decoded may be anything: nothing is allocated or written beyond the length
//! that the caller asks for.

mod batches;
mod block;
mod cast;
mod difference;
pub mod files;
mod frequencies;
mod kernel;
mod palette;
pub mod parts;
mod period;
mod planes;
mod rans;
#[cfg(test)]
mod tests;

use std::ops::Range;

use cairn_format::{BlockEntry, ChunkId, Element, FormatError, PlanesHead, PlanesShape};

use block::Opened;
use frequencies::Frequencies;
use parts::{Draft, Drafts};
use rans::{Table, Words};

pub use batches::{Batches, Run};
pub use cast::{Base, base_len};
pub use kernel::Kernel;

/// Why bytes are no coded run, though their checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// Why a run cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Its head, or a checksum.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What the checksums are of.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// How far a run goes on with what its first `start` bytes repeat, and how long that is, if those repeat a pattern of up to 4096 bytes.
pub fn pattern(run: &[u8], start: usize) -> Option<(usize, usize)> {
    let period = period::period(run.get(..start)?)?.len();
    Some((period::repeats(run, period), period))
}

/// Codes runs. It keeps its buffers, so keep one to a thread.
pub struct Encoder {
    kernel: Kernel,
    planes: Vec<u8>,
    words: Words,
}

impl Encoder {
    /// One that computes with `kernel`.
    pub fn new(kernel: Kernel) -> Encoder {
        Encoder { kernel, planes: Vec::new(), words: Words::default() }
    }

    /// The run `plain`, which is `chunk`, coded as elements of this kind; what is left where it ends within one is stored as it is.
    /// With a `base`, a run of as many elements, by the differences from that where this takes less by a fiftieth of the run. None where nothing saves
    /// that much.
    pub fn encode(
        &mut self,
        plain: &[u8],
        element: Element,
        chunk: &ChunkId,
        base: Option<Base<'_>>,
    ) -> Option<Vec<u8>> {
        match Draft::of(self.kernel, plain, element, chunk, base) {
            Drafts::Coded(coded) => coded,
            Drafts::Blocks(drafts) => {
                parts::best(plain.len(), drafts.iter().map(|draft| self.encode_draft(draft)))
            }
        }
    }

    fn encode_draft(&mut self, draft: &Draft<'_>) -> Vec<u8> {
        self.split(draft);
        let fields = draft.element().fields();
        let bytes: usize = fields.iter().sum();
        let planes = self.planes.chunks(draft.step());
        let lengths = planes.clone().map(|part| block::lengths(fields, part.len() / bytes));
        let planes: Vec<Vec<&[u8]>> =
            planes.zip(lengths).map(|(part, lengths)| block::planes(part, &lengths)).collect();
        let counts: Vec<Vec<_>> =
            planes.iter().map(|block| block.iter().map(|plane| block::count(plane)).collect()).collect();
        let plan = draft.plan(&counts);
        draft.finish(&plan, |number, to| {
            block::begin(plan.ways(number), &planes[number], to);
            block::stream(
                self.kernel,
                plan.ways(number),
                &planes[number],
                plan.shared(),
                &mut self.words,
                to,
            );
        })
    }

    /// Takes elements apart, a block at a time.
    fn split(&mut self, draft: &Draft<'_>) {
        self.planes.resize(draft.blocks().map(<[u8]>::len).sum(), 0);
        for (plain, planes) in draft.blocks().zip(self.planes.chunks_mut(draft.step())) {
            planes::split(self.kernel, draft.element(), plain, planes);
        }
    }
}

/// Decodes the blocks of a run.
pub struct Decoder {
    kernel: Kernel,
    chunk: ChunkId,
    plain_len: usize,
    head: PlanesHead,
    tables: Vec<Option<Table>>,
}

impl Decoder {
    /// For the run `chunk` of `plain_len` bytes, which has this head.
    pub fn new(kernel: Kernel, head: &[u8], chunk: &ChunkId, plain_len: usize) -> Result<Decoder, RunError> {
        let head = PlanesHead::decode(head, chunk)?;
        let mut rest = &head.tables[..];
        let tables = (0..8)
            .map(|plane| match head.shared & (1 << plane) {
                0 => Ok(None),
                _ => match Frequencies::read(&mut rest) {
                    Some(frequencies) => Ok(Some(Table::new(&frequencies))),
                    None => Err(Malformed("frequencies that cannot be")),
                },
            })
            .collect::<Result<Vec<_>, _>>()?;
        if !rest.is_empty() {
            return Err(Malformed("there is more than the tables of frequencies").into());
        }
        let decoder = Decoder { kernel, chunk: *chunk, plain_len, head, tables };
        let whole = plain_len / decoder.head.element.width() * decoder.head.element.width();
        let blocks = match decoder.head.shape {
            PlanesShape::Periodic(_) => 0,
            // What is left where a run ends within an element is part of its last block.
            _ if whole == 0 => return Err(Malformed("a run is shorter than its elements").into()),
            _ => whole.div_ceil(decoder.head.element.block_len()),
        };
        if decoder.of_base().is_some_and(|base| base_len(plain_len, decoder.head.element, base).is_none()) {
            return Err(Malformed(
                "a run differs from one of other elements, and ends within one of its own",
            )
            .into());
        }
        match decoder.head.blocks.len() == blocks {
            true => Ok(decoder),
            false => Err(Malformed("a run has another number of blocks than its length asks for").into()),
        }
    }

    /// How many blocks there are: none where the head says everything.
    pub fn blocks(&self) -> usize {
        self.head.blocks.len()
    }

    /// Where a block's bytes lie behind the head.
    pub fn stored(&self, number: usize) -> Option<Range<u32>> {
        let end = self.head.blocks.get(number)?.end;
        let start = number.checked_sub(1).and_then(|before| self.head.blocks.get(before));
        Some(start.map_or(0, |before| before.end)..end)
    }

    /// Which of the run's plain bytes a block holds.
    pub fn plain(&self, number: usize) -> Range<usize> {
        let step = self.head.element.block_len();
        let end = if number + 1 < self.blocks() { (number + 1) * step } else { self.plain_len };
        (number * step).min(end)..end
    }

    /// What the elements are of the run's base, where blocks are decoded with the help of one.
    pub fn of_base(&self) -> Option<Element> {
        match self.head.shape {
            PlanesShape::Differences(base) => Some(base),
            _ => None,
        }
    }

    /// Which of the base's bytes those of these elements of the run are decoded with, if any are.
    pub fn share_of_base(&self, plain: Range<usize>) -> Option<Range<usize>> {
        let (of, base) = (self.head.element, self.of_base()?);
        Some(base_len(plain.start, of, base)?..base_len(plain.end, of, base)?)
    }

    /// That this is as much of a base as so many of the run's bytes take.
    fn check_base(&self, base: Option<&[u8]>, len: usize) -> Result<(), Malformed> {
        match self.share_of_base(0..len) {
            Some(share) if base.is_none_or(|base| base.len() != share.len()) => {
                Err(Malformed("the run that this one differs from is not there, or of another length"))
            }
            _ => Ok(()),
        }
    }

    /// Bytes of memory that it takes.
    pub fn size(&self) -> usize {
        let tables = self.tables.iter().flatten().count() * (size_of::<u32>() << frequencies::PRECISION);
        size_of::<Self>() + tables + self.head.blocks.len() * size_of::<BlockEntry>()
    }

    /// Sets `plain` to the bytes of a run without blocks from `from` on, as long as it reaches. Whether it is one.
    pub fn repeat(&self, from: usize, plain: &mut [u8]) -> bool {
        match &self.head.shape {
            PlanesShape::Periodic(pattern) if from.saturating_add(plain.len()) <= self.plain_len => {
                let mut turned = pattern.clone();
                turned.rotate_left(from % pattern.len());
                period::repeat(&turned, plain);
                true
            }
            _ => false,
        }
    }

    /// Checks and decodes blocks that follow each other: `stored` are their bytes, `plain` is as long as their share of the run;
    /// with the help of their [share of the base](Self::share_of_base) where there is one.
    pub fn decode_blocks(
        &self,
        numbers: Range<usize>,
        stored: &[u8],
        base: Option<&[u8]>,
        plain: &mut [u8],
    ) -> Result<(), RunError> {
        self.check_base(base, plain.len())?;
        self.put_blocks(numbers, stored, base, plain)
    }

    /// As [`decode_blocks`](Self::decode_blocks); without a base, what differs from it stays the difference.
    fn put_blocks(
        &self,
        numbers: Range<usize>,
        stored: &[u8],
        base: Option<&[u8]>,
        plain: &mut [u8],
    ) -> Result<(), RunError> {
        let stored_from = self.stored(numbers.start).map_or(0, |from| from.start);
        let plain_from = self.plain(numbers.start).start;
        let mut planes: [Vec<u8>; 2] = Default::default();
        let mut rest = plain;
        for first in numbers.clone().step_by(2) {
            let two = first..(first + 2).min(numbers.end);
            let mut blocks = Vec::with_capacity(2);
            for (number, planes) in two.zip(&mut planes) {
                let (from, place) = (self.stored(number).unwrap_or_default(), self.plain(number));
                let from = from.start.saturating_sub(stored_from)..from.end.saturating_sub(stored_from);
                let stored = stored.get(from.start as usize..from.end as usize).unwrap_or_default();
                let share = self.share_of_base(place.start - plain_from..place.end - plain_from);
                let base = base.zip(share).and_then(|(base, share)| base.get(share));
                let plain = rest.split_off_mut(..place.len()).unwrap_or_default();
                blocks.push(Block { number, stored, base, plain, planes });
            }
            match &mut blocks[..] {
                [one, two] => self.open(one)?.finish_both(self.open(two)?)?,
                [one] => self.open(one)?.finish()?,
                _ => {}
            }
            for block in blocks {
                self.put_together(block.planes, block.base, block.plain)?;
            }
        }
        match rest.is_empty() {
            true => Ok(()),
            false => Err(Malformed("blocks have another length than what they are decoded into").into()),
        }
    }

    /// Decodes the whole run, of which these are all bytes behind the head.
    pub fn decode(&self, stored: &[u8], base: Option<&[u8]>) -> Result<Vec<u8>, RunError> {
        self.check_base(base, self.plain_len)?;
        self.decode_all(stored, base)
    }

    fn decode_all(&self, stored: &[u8], base: Option<&[u8]>) -> Result<Vec<u8>, RunError> {
        let mut plain = vec![0; self.plain_len];
        if self.head.blocks.last().map_or(0, |block| block.end as usize) != stored.len() {
            return Err(Malformed("a run has another length than its blocks").into());
        }
        if !self.repeat(0, &mut plain) {
            self.put_blocks(0..self.blocks(), stored, base, &mut plain)?;
        }
        Ok(plain)
    }

    /// Checks a block, and reads all of it but what is coded.
    fn open<'o>(&'o self, block: &'o mut Block<'_>) -> Result<Opened<'o, 'o>, RunError> {
        let Block { number, stored, plain, planes, .. } = block;
        self.check(*number, stored)?;
        if plain.len() != self.plain(*number).len() {
            return Err(Malformed("a block has another length than what it is decoded into").into());
        }
        let width = self.head.element.width();
        let elements = plain.len() / width;
        let (_, tail) = plain.split_at_mut(elements * width);
        let fields = match self.head.shape {
            PlanesShape::Palette(_) => &[1][..],
            _ => self.head.element.fields(),
        };
        let lengths = block::lengths(fields, elements);
        planes.resize(lengths.iter().sum(), 0);
        Ok(Opened::open(self.kernel, stored, &self.tables, planes, &lengths, tail)?)
    }

    /// That these are the block's bytes.
    fn check(&self, number: usize, stored: &[u8]) -> Result<(), RunError> {
        let entry = self.head.blocks.get(number).ok_or(Malformed("there is no such block"))?;
        match PlanesHead::block_sum(&self.chunk, number as u32, stored) == entry.sum {
            true => Ok(()),
            false => Err(FormatError::BadChecksum { what: "block of planes" }.into()),
        }
    }

    /// A block's elements, of its planes.
    fn put_together(&self, planes: &[u8], base: Option<&[u8]>, plain: &mut [u8]) -> Result<(), RunError> {
        let element = self.head.element;
        let whole = plain.len() / element.width() * element.width();
        let plain = &mut plain[..whole];
        match &self.head.shape {
            PlanesShape::Palette(_) => self.complete(planes, base, plain),
            PlanesShape::Differences(of_base) => {
                planes::join(self.kernel, integer(element), planes, plain);
                self.add(*of_base, base, plain)
            }
            PlanesShape::Planes | PlanesShape::Periodic(_) => {
                planes::join(self.kernel, element, planes, plain);
                Ok(())
            }
        }
    }

    /// The run's elements of those that a block is made of.
    fn complete(&self, elements: &[u8], base: Option<&[u8]>, plain: &mut [u8]) -> Result<(), RunError> {
        match &self.head.shape {
            PlanesShape::Palette(values) => {
                match palette::look_up(values, self.head.element.width(), elements, plain) {
                    true => Ok(()),
                    false => Err(Malformed("an element is not in the palette").into()),
                }
            }
            _ if elements.len() != plain.len() => {
                Err(Malformed("a block has another length than what it is decoded into").into())
            }
            shape => {
                plain.copy_from_slice(elements);
                match shape {
                    PlanesShape::Differences(of_base) => self.add(*of_base, base, plain),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Adds the base to differences; without one they stay that.
    fn add(&self, of_base: Element, base: Option<&[u8]>, plain: &mut [u8]) -> Result<(), RunError> {
        let Some(bytes) = base else { return Ok(()) };
        match add_whole(self.kernel, self.head.element, plain, Base { element: of_base, bytes }) {
            true => Ok(()),
            false => Err(Malformed("a block's share of the base has another length than it").into()),
        }
    }
}

/// A block that is decoded: what is stored, what of the base lies there, where it goes, and room for its planes.
struct Block<'b> {
    number: usize,
    stored: &'b [u8],
    base: Option<&'b [u8]>,
    plain: &'b mut [u8],
    planes: &'b mut Vec<u8>,
}

/// Decodes a whole run of `plain_len` bytes, head and all.
pub fn decode(
    kernel: Kernel,
    coded: &[u8],
    chunk: &ChunkId,
    base: Option<&[u8]>,
    plain_len: usize,
) -> Result<Vec<u8>, RunError> {
    let head_len = PlanesHead::len_of(coded)? as usize;
    let (head, blocks) = coded.split_at_checked(head_len).ok_or(Malformed("a run is cut short"))?;
    Decoder::new(kernel, head, chunk, plain_len)?.decode(blocks, base)
}

/// Decodes a whole run as [`decode`] does; one of differences only as far as that goes without its base: [`add_base`] does the rest. What
/// that base's elements are comes with it.
pub fn decode_without_base(
    kernel: Kernel,
    coded: &[u8],
    chunk: &ChunkId,
    plain_len: usize,
) -> Result<(Vec<u8>, Option<Element>), RunError> {
    let head_len = PlanesHead::len_of(coded)? as usize;
    let (head, blocks) = coded.split_at_checked(head_len).ok_or(Malformed("a run is cut short"))?;
    let decoder = Decoder::new(kernel, head, chunk, plain_len)?;
    Ok((decoder.decode_all(blocks, None)?, decoder.of_base()))
}

/// Makes the differences of a run of elements of this kind the run, with the run that they are from. False where that has not as many.
pub fn add_base(kernel: Kernel, element: Element, differences: &mut [u8], base: Base<'_>) -> bool {
    let all = base_len(differences.len(), element, base.element).is_some_and(|len| len == base.bytes.len());
    let whole = differences.len() / element.width() * element.width();
    all && element.is_number() && add_whole(kernel, element, &mut differences[..whole], base)
}

/// The same of whole elements: the base may go on behind as many.
fn add_whole(kernel: Kernel, element: Element, differences: &mut [u8], base: Base<'_>) -> bool {
    let len = base_len(differences.len(), element, base.element);
    let share = len.and_then(|len| Some(Base { bytes: base.bytes.get(..len)?, ..base }));
    match share.and_then(|base| base.cast(kernel, element, differences.len())) {
        Some(base) => {
            difference::add(kernel, element, differences, &base);
            true
        }
        None => false,
    }
}

/// The integers as long as an element.
fn integer(element: Element) -> Element {
    match element.width() {
        1 => Element::Byte,
        2 => Element::Short,
        4 => Element::Word,
        _ => Element::Long,
    }
}
