//! The steps of coding a run, one by one, for a device that takes the heavy ones off the processor: taking elements apart, counting, and
//! coding symbols; and back. What is decided is decided here, for all of them alike: [`Encoder`](super::Encoder) and
//! [`Decoder`] go through the same steps.

use std::borrow::Cow;

use cairn_format::{BlockEntry, ChunkId, Element, PlanesHead, PlanesShape};

use super::block::{self, Piece, Pieces, Plane, SAMPLED, Shared, Way};
use super::frequencies::Frequencies;
use super::kernel::Kernel;
use super::rans::{Coder, Reader, STATES_LEN, Words};
use super::{Base, Decoder, Malformed, RunError, difference, integer, palette, period, planes};

/// How often each byte of a plane comes; none of what looks like noise.
pub type Counts = Option<[u32; 256]>;
/// A symbol's entry is what x is multiplied with to be divided by f; then f, what is added (from bit 12), and how far the product
/// is shifted (from bit 25). See `rans/mod.rs`.
pub type Steps = [[u32; 2]; 256];

/// What comes of a run before anything heavy is done.
pub enum Drafts<'p> {
    /// Nothing heavy is to be done: it repeats a pattern, or is stored otherwise.
    Coded(Option<Vec<u8>>),
    /// Blocks are to be coded: those of the run itself; where there is a base, those of its differences from that, too. See [`best`].
    Blocks(Vec<Draft<'p>>),
}

/// A run in blocks that are to be coded.
pub struct Draft<'p> {
    chunk: ChunkId,
    /// What the run's elements are.
    of: Element,
    shape: PlanesShape,
    /// What elements are that blocks are made of.
    element: Element,
    /// Bytes of each block but the last.
    step: usize,
    bytes: Cow<'p, [u8]>,
    /// What is left where the run ends within an element.
    tail: &'p [u8],
}

impl<'p> Draft<'p> {
    /// Of the run `plain`, as [`Encoder::encode`](super::Encoder::encode) takes it.
    pub fn of(
        kernel: Kernel,
        plain: &'p [u8],
        element: Element,
        chunk: &ChunkId,
        base: Option<Base<'_>>,
    ) -> Drafts<'p> {
        if let Some(pattern) = period::period(plain) {
            let shape = PlanesShape::Periodic(pattern.to_vec());
            let head = PlanesHead { element, shape, shared: 0, tables: Vec::new(), blocks: Vec::new() };
            return Drafts::Coded(best(plain.len(), [head.encode(chunk)]));
        }
        let width = element.width();
        if plain.len() < width {
            return Drafts::Coded(None);
        }
        let (whole, tail) = plain.split_at(plain.len() / width * width);
        let draft = |shape, bytes, parts: Element, step| Draft {
            chunk: *chunk,
            of: element,
            shape,
            element: parts,
            step,
            bytes,
            tail,
        };
        let palette = (width > 1 && element.is_number()).then(|| palette::palette(whole, width)).flatten();
        let step = element.block_len();
        let alone = match palette {
            Some((values, numbers)) => {
                draft(PlanesShape::Palette(values), Cow::Owned(numbers), Element::Byte, step / width)
            }
            None => draft(PlanesShape::Planes, Cow::Borrowed(whole), element, step),
        };
        let base = base.filter(|_| element.is_number());
        let near = base.and_then(|base| {
            let cast = base.cast(kernel, element, plain.len())?;
            let mut differences = vec![0; whole.len()];
            difference::subtract(kernel, element, whole, &cast[..whole.len()], &mut differences);
            let shape = PlanesShape::Differences(base.element);
            Some(draft(shape, Cow::Owned(differences), integer(element), step))
        });
        Drafts::Blocks([alone].into_iter().chain(near).collect())
    }

    /// The elements of each block, whole ones; their planes are to be coded.
    pub fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.step)
    }

    /// What these elements are.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Appends a block, all of it done by the processor.
    pub fn write(&self, plan: &Plan, number: usize, to: &mut Vec<u8>) {
        let kernel = Kernel::best();
        let plain = self.blocks().nth(number).unwrap_or_default();
        let mut planes = vec![0; plain.len()];
        planes::split(kernel, self.element, plain, &mut planes);
        let lengths = block::lengths(self.element.fields(), plain.len() / self.element.width());
        let planes = block::planes(&planes, &lengths);
        block::begin(plan.ways(number), &planes, to);
        block::stream(kernel, plan.ways(number), &planes, plan.shared(), &mut Words::default(), to);
    }

    /// Bytes of each block but the last.
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// How each plane of each block is stored, by how often its bytes come.
    pub fn plan(&self, counts: &[Vec<Counts>]) -> Plan {
        let planes = self.element.fields().len();
        let shared: Vec<Option<Shared>> = (0..planes)
            .map(|plane| {
                let mut total = [0; 256];
                for counts in counts.iter().filter_map(|block| block[plane].as_ref()) {
                    total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
                }
                Frequencies::of(&total).map(Shared::new)
            })
            .collect();
        let known = |counts: &[Counts]| {
            let known = counts.iter().zip(&shared);
            let known: Vec<_> = known
                .map(|(counts, shared)| Plane { counts: counts.as_ref(), shared: shared.as_ref() })
                .collect();
            block::ways(&known)
        };
        let blocks = counts.iter().map(|counts| known(counts)).collect();
        Plan { shared, blocks }
    }

    /// The run's bytes: `write` appends those of a block, by its number, but for what is left of the run.
    pub fn finish(&self, plan: &Plan, mut write: impl FnMut(usize, &mut Vec<u8>)) -> Vec<u8> {
        let mut head = PlanesHead {
            element: self.of,
            shape: self.shape.clone(),
            shared: 0,
            tables: Vec::new(),
            blocks: Vec::with_capacity(plan.blocks.len()),
        };
        for (plane, shared) in plan.shared.iter().enumerate() {
            if let Some(shared) = shared {
                head.shared |= 1 << plane;
                shared.frequencies().write(&mut head.tables);
            }
        }
        let mut blocks = Vec::with_capacity(self.bytes.len());
        for number in 0..plan.blocks.len() {
            let start = blocks.len();
            write(number, &mut blocks);
            if number + 1 == plan.blocks.len() {
                blocks.extend(self.tail);
            }
            let sum = PlanesHead::block_sum(&self.chunk, number as u32, &blocks[start..]);
            head.blocks.push(BlockEntry { end: blocks.len() as u32, sum });
        }
        let mut coded = head.encode(&self.chunk);
        coded.append(&mut blocks);
        coded
    }
}

/// What is kept of a run of `plain_len` bytes that was coded by itself, and perhaps by its differences from a base: these where they take less by a
/// fiftieth of the run; nothing where what is kept would not save that much.
pub fn best(plain_len: usize, coded: impl IntoIterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let (mut coded, fiftieth) = (coded.into_iter(), plain_len.div_ceil(50));
    let alone = coded.next()?;
    let most = alone.len().min(plain_len).saturating_sub(fiftieth);
    let coded = coded.next().filter(|near| near.len() <= most).unwrap_or(alone);
    (coded.len() + fiftieth <= plain_len).then_some(coded)
}

/// Counts as they are used, of those of all bytes of a plane and those of its sample: the first 64 of each 512.
pub fn counts(all: &[u32; 256], sample: &[u32; 256]) -> Counts {
    let len: u64 = all.iter().map(|count| u64::from(*count)).sum();
    (len < SAMPLED as u64 || !block::sample_is_noise(sample)).then_some(*all)
}

/// How the planes of a run's blocks are stored.
pub struct Plan {
    shared: Vec<Option<Shared>>,
    blocks: Vec<Vec<Way>>,
}

/// How a plane is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// As it is.
    Raw,
    /// As the one byte that there is.
    Constant,
    /// In the block's stream, by the run's steps for this plane.
    Shared,
    /// In the block's stream, by steps of its own.
    Own,
}

impl Plan {
    pub(super) fn ways(&self, block: usize) -> &[Way] {
        &self.blocks[block]
    }

    pub(super) fn shared(&self) -> &[Option<Shared>] {
        &self.shared
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// How a block's planes are stored.
    pub fn stored(&self, block: usize) -> impl Iterator<Item = Stored> {
        self.blocks[block].iter().map(|way| match way {
            Way::Raw => Stored::Raw,
            Way::Constant => Stored::Constant,
            Way::Shared => Stored::Shared,
            Way::Own(_) => Stored::Own,
        })
    }

    /// The run's steps for a plane, where it has some.
    pub fn shared_steps(&self, plane: usize) -> Option<&Steps> {
        self.shared.get(plane)?.as_ref().map(|shared| shared.coder().steps())
    }

    /// A plane's own steps, where it has some.
    pub fn own_steps(&self, block: usize, plane: usize) -> Option<Box<Steps>> {
        match self.blocks.get(block)?.get(plane)? {
            Way::Own(frequencies) => Some(Coder::new(frequencies).into_steps()),
            _ => None,
        }
    }

    /// What the words of a block's stream take, and hardly ever more, in bytes: some room is left for rounding.
    pub fn room(&self, block: usize, counts: &[Counts]) -> usize {
        let cost = |((way, counts), shared): ((&Way, &Counts), &Option<Shared>)| {
            let counts = counts.as_ref()?;
            let frequencies = match way {
                Way::Shared => shared.as_ref()?.frequencies(),
                Way::Own(frequencies) => frequencies,
                _ => return None,
            };
            let bytes = frequencies.cost(counts)?.div_ceil(8 << 16) as usize;
            Some(bytes + bytes / 64 + 64)
        };
        self.blocks[block].iter().zip(counts).zip(&self.shared).filter_map(cost).sum()
    }

    /// Appends a block, of which these are the planes, those that are coded left empty and one byte of those that are constant, and these
    /// the states and words of its stream.
    pub fn write(&self, block: usize, planes: &[&[u8]], stream: [&[u8]; 2], to: &mut Vec<u8>) {
        block::begin(&self.blocks[block], planes, to);
        stream.iter().for_each(|part| to.extend(*part));
    }
}

/// A plane of a block that is to be decoded.
pub enum PlaneOf<'b> {
    /// It is these bytes.
    Raw(&'b [u8]),
    /// All of it is this byte.
    Constant(u8),
    /// It is in the stream, by the run's frequencies.
    Shared,
    /// It is in the stream, by frequencies of its own.
    Own {
        /// Of each symbol.
        frequencies: Box<[u16; 256]>,
        /// Bytes that they take in the block.
        len: usize,
    },
}

/// A block that is to be decoded.
pub struct BlockOf<'b> {
    /// Its planes, in order.
    pub planes: Vec<PlaneOf<'b>>,
    /// States that a coder has, and words, of those that are coded; empty where none is.
    pub stream: &'b [u8],
    /// What is left of the run.
    pub tail: &'b [u8],
}

impl Decoder {
    /// What the elements are that blocks are made of.
    pub fn element(&self) -> Element {
        match self.head.shape {
            PlanesShape::Palette(_) => Element::Byte,
            PlanesShape::Differences(_) => integer(self.head.element),
            _ => self.head.element,
        }
    }

    /// How many of these a block has.
    pub fn elements(&self, number: usize) -> usize {
        self.plain(number).len() / self.head.element.width()
    }

    /// Checks a block's bytes, and takes them apart.
    pub fn parts<'b>(&self, number: usize, stored: &'b [u8]) -> Result<BlockOf<'b>, RunError> {
        self.check(number, stored)?;
        let lengths = block::lengths(self.element().fields(), self.elements(number));
        let tail = self.plain(number).len() % self.head.element.width();
        let pieces = Pieces::read(stored, &lengths, tail)?;
        if !pieces.stream.is_empty() || pieces.planes.iter().any(Piece::is_coded) {
            Reader::new(self.kernel, pieces.stream)?;
        }
        let plane = |(number, piece): (usize, Piece<'b>)| match piece {
            Piece::Raw(bytes) => Ok(PlaneOf::Raw(bytes)),
            Piece::Constant(byte) => Ok(PlaneOf::Constant(byte)),
            Piece::Shared if self.tables[number].is_none() => {
                Err(Malformed("a plane shares frequencies that there are not"))
            }
            Piece::Shared => Ok(PlaneOf::Shared),
            Piece::Own(frequencies) => {
                let frequencies = Box::new(frequencies.into_inner());
                let present = frequencies.iter().filter(|frequency| **frequency > 0).count();
                Ok(PlaneOf::Own { frequencies, len: Frequencies::len_with(present) })
            }
        };
        let planes = pieces.planes.into_iter().enumerate().map(plane).collect::<Result<_, _>>()?;
        Ok(BlockOf { planes, stream: pieces.stream, tail: pieces.tail })
    }

    /// The frequencies that blocks share for a plane.
    pub fn shared_frequencies(&self, plane: usize) -> Option<[u16; 256]> {
        self.tables.get(plane)?.as_ref().map(super::rans::Table::frequencies)
    }

    /// A block's plain bytes, of its elements, and of what is left of the run.
    pub fn finish_block(
        &self,
        elements: &[u8],
        tail: &[u8],
        base: Option<&[u8]>,
        plain: &mut [u8],
    ) -> Result<(), RunError> {
        let cut = Malformed("a block has another length than what it is decoded into");
        let (whole, last) = plain.split_at_mut_checked(plain.len().saturating_sub(tail.len())).ok_or(cut)?;
        if last.len() != tail.len() {
            return Err(cut.into());
        }
        last.copy_from_slice(tail);
        self.complete(elements, base, whole)
    }
}

/// Bytes of a stream before its words.
pub const STATES: usize = STATES_LEN;
