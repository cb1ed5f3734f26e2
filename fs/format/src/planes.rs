//! A run of bytes that is coded by planes: what stands before its blocks.

use crate::wire::{Decoder, Encoder, FormatError};
use crate::{ChunkId, Domain, Seal};

const PLANES: &str = "head of planes";

/// What the bytes of a run are, as far as coding them goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Element {
    /// One byte: 8-bit integers, 8-bit floats, anything.
    Byte,
    /// 16-bit integers.
    Short,
    /// 32-bit integers.
    Word,
    /// 64-bit integers.
    Long,
    /// IEEE 754 binary16.
    Half,
    /// bfloat16.
    Bfloat,
    /// IEEE 754 binary32.
    Single,
    /// IEEE 754 binary64.
    Double,
    /// GGUF's Q4_0, and so on: quantised weights in groups, behind or before what scales them.
    Q4_0,
    /// Q4_1.
    Q4_1,
    /// Q5_0.
    Q5_0,
    /// Q5_1.
    Q5_1,
    /// Q8_0.
    Q8_0,
    /// Q2_K.
    Q2K,
    /// Q3_K.
    Q3K,
    /// Q4_K.
    Q4K,
    /// Q5_K.
    Q5K,
    /// Q6_K.
    Q6K,
}

impl Element {
    /// All there are, by their codes.
    const CODES: [(u8, Element); 18] = [
        (0, Element::Byte),
        (1, Element::Short),
        (2, Element::Word),
        (3, Element::Long),
        (4, Element::Half),
        (5, Element::Bfloat),
        (6, Element::Single),
        (7, Element::Double),
        (16, Element::Q4_0),
        (17, Element::Q4_1),
        (18, Element::Q5_0),
        (19, Element::Q5_1),
        (20, Element::Q8_0),
        (21, Element::Q2K),
        (22, Element::Q3K),
        (23, Element::Q4K),
        (24, Element::Q5K),
        (25, Element::Q6K),
    ];

    /// All there are.
    pub fn all() -> impl Iterator<Item = Element> {
        Self::CODES.into_iter().map(|(_, element)| element)
    }

    /// How many bytes of an element go into each plane, in the order of these.
    pub fn fields(self) -> &'static [usize] {
        match self {
            Element::Byte => &[1],
            Element::Short | Element::Half | Element::Bfloat => &[1; 2],
            Element::Word | Element::Single => &[1; 4],
            Element::Long | Element::Double => &[1; 8],
            Element::Q4_0 => &[1, 1, 16],
            Element::Q4_1 => &[1, 1, 1, 1, 16],
            Element::Q5_0 => &[1, 1, 4, 16],
            Element::Q5_1 => &[1, 1, 1, 1, 4, 16],
            Element::Q8_0 => &[1, 1, 32],
            Element::Q2K => &[16, 64, 1, 1, 1, 1],
            Element::Q3K => &[32, 64, 12, 1, 1],
            Element::Q4K => &[1, 1, 1, 1, 12, 128],
            Element::Q5K => &[1, 1, 1, 1, 12, 32, 128],
            Element::Q6K => &[128, 64, 16, 1, 1],
        }
    }

    /// Bytes of one.
    pub fn width(self) -> usize {
        self.fields().iter().sum()
    }

    /// Whether it is one number.
    pub fn is_number(self) -> bool {
        self.code() < 16
    }

    /// Whether it is a floating-point number.
    pub fn is_float(self) -> bool {
        matches!(self, Element::Half | Element::Bfloat | Element::Single | Element::Double)
    }

    /// Whether elements of this kind may be predicted by others of `base`, cast: floats of 16 and of 32 bits.
    pub fn casts_from(self, base: Element) -> bool {
        let casts = |element| matches!(element, Element::Half | Element::Bfloat | Element::Single);
        self != base && casts(self) && casts(base)
    }

    /// The number that stands for it.
    pub fn code(self) -> u8 {
        // Every element is in the list: a test has it that way.
        Self::CODES.into_iter().find(|(_, element)| *element == self).map_or(u8::MAX, |(code, _)| code)
    }

    /// The one that a number stands for.
    pub fn of_code(code: u8) -> Option<Element> {
        Self::CODES.into_iter().find(|(known, _)| *known == code).map(|(_, element)| element)
    }

    /// No run of a tensor has more plain bytes than this.
    pub const LONGEST_RUN: usize = 1 << 20;

    /// Plain bytes of each run that a tensor is cut into but the last. One of 16-bit floats has as many elements as one of 32-bit ones, and so
    /// one of those for its base where it was cast from them.
    pub fn run_len(self) -> usize {
        match self.casts_from(Element::Single) {
            true => Self::LONGEST_RUN / Element::Single.width() * self.width(),
            false => Self::LONGEST_RUN / self.width() * self.width(),
        }
    }

    /// Plain bytes of each block of a run but the last: as many elements as 64 KiB hold.
    pub fn block_len(self) -> usize {
        (64 << 10) / self.width() * self.width()
    }
}

/// How a run is put together from what its blocks hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanesShape {
    /// Blocks hold the elements' planes.
    Planes,
    /// Blocks hold the planes of what each element is more than that in the same place of the frame's base, a run of as many: of such
    /// elements, which are cast where they are others.
    Differences(Element),
    /// Blocks hold numbers of these elements, a byte each.
    Palette(Vec<u8>),
    /// There are no blocks: the run repeats this, and may end within it.
    Periodic(Vec<u8>),
}

/// Where a block ends, and what its bytes are held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockEntry {
    /// Bytes of all blocks up to its end.
    pub end: u32,
    /// Checksum.
    pub sum: u64,
}

/// What stands before the blocks of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanesHead {
    /// What the run's elements are.
    pub element: Element,
    /// How it is put together.
    pub shape: PlanesShape,
    /// A bit for each plane whose blocks may share a table of frequencies.
    pub shared: u8,
    /// Those tables, in the order of planes.
    pub tables: Vec<u8>,
    /// The blocks.
    pub blocks: Vec<BlockEntry>,
}

impl PlanesHead {
    const MAGIC: &[u8; 4] = b"CPLN";
    /// Bytes up to where `head_len` ends.
    pub const START_LEN: usize = 12;
    /// The longest pattern of a run that repeats it.
    pub const LONGEST_PATTERN: usize = 4096;
    const PALETTE: usize = 256;

    /// The head's bytes, sealed to the chunk that the run is.
    pub fn encode(&self, chunk: &ChunkId) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e, chunk);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder, chunk: &ChunkId) {
        let of_base = self.of_base();
        let (shape, values) = match &self.shape {
            PlanesShape::Planes => (0, &[][..]),
            PlanesShape::Differences(_) => (3, of_base.as_slice()),
            PlanesShape::Palette(values) => (1, &values[..]),
            PlanesShape::Periodic(pattern) => (2, &pattern[..]),
        };
        e.bytes("magic", Self::MAGIC);
        e.u8("element", self.element.code());
        e.u8("shape", shape);
        e.u8("shared", self.shared);
        e.u8("reserved", 0);
        e.u32("head_len", self.encoded_len() as u32);
        e.u16("values_len", values.len() as u16);
        e.u16("tables_len", self.tables.len() as u16);
        e.u32("blocks", self.blocks.len() as u32);
        e.bytes("values", values);
        e.bytes("tables", &self.tables);
        for block in &self.blocks {
            e.u32("block.end", block.end);
            e.u64("block.sum", block.sum);
        }
        let sum = Self::seal(chunk).sum(e.written());
        e.u64("checksum", sum);
    }

    fn encoded_len(&self) -> usize {
        let values = match &self.shape {
            PlanesShape::Planes => 0,
            PlanesShape::Differences(_) => self.of_base().as_slice().len(),
            PlanesShape::Palette(values) | PlanesShape::Periodic(values) => values.len(),
        };
        Self::START_LEN + 8 + values + self.tables.len() + self.blocks.len() * 12 + 8
    }

    /// What stands for the base's elements, where they are others.
    fn of_base(&self) -> Option<u8> {
        match self.shape {
            PlanesShape::Differences(base) if base != self.element => Some(base.code()),
            _ => None,
        }
    }

    /// How long a head is, by its first [`START_LEN`](Self::START_LEN) bytes.
    pub fn len_of(start: &[u8]) -> Result<u32, FormatError> {
        let mut d = Decoder::new(PLANES, start);
        d.magic(Self::MAGIC)?;
        d.u32("element, shape, shared, reserved")?;
        d.u32("head_len")
    }

    /// How a run is put together, by its first bytes, which are not checked: for people.
    pub(crate) fn shape_of(start: &[u8]) -> Option<&'static str> {
        let mut d = Decoder::new(PLANES, start);
        d.magic(Self::MAGIC).ok()?;
        d.u8("element").ok()?;
        match d.u8("shape").ok()? {
            0 => Some("planes"),
            1 => Some("palette"),
            2 => Some("pattern"),
            3 => Some("differences"),
            _ => None,
        }
    }

    /// Whether a run that was coded is differences from a base.
    pub fn is_differences(coded: &[u8]) -> bool {
        Self::shape_of(coded) == Some("differences")
    }

    /// What the elements of a run are, by its first bytes, of which nothing else is checked.
    pub fn element_of(start: &[u8]) -> Option<Element> {
        let mut d = Decoder::new(PLANES, start);
        d.magic(Self::MAGIC).ok()?;
        Element::of_code(d.u8("element").ok()?)
    }

    /// Checks and decodes a whole head, of a run that is `chunk`.
    pub fn decode(bytes: &[u8], chunk: &ChunkId) -> Result<PlanesHead, FormatError> {
        let mut d = Decoder::new(PLANES, bytes);
        d.magic(Self::MAGIC)?;
        match bytes.split_last_chunk::<8>() {
            Some((body, sum)) if Self::seal(chunk).sum(body) == u64::from_le_bytes(*sum) => {}
            _ => return Err(FormatError::BadChecksum { what: PLANES }),
        }
        let code = d.u8("element")?;
        let element = Element::of_code(code).ok_or_else(|| d.bad("element", code.into()))?;
        let shape = d.u8("shape")?;
        let shared = d.u8("shared")?;
        let reserved = d.u8("reserved")?;
        d.within("reserved", reserved.into(), 0..=0)?;
        let head_len = u64::from(d.u32("head_len")?);
        d.within("head_len", head_len, bytes.len() as u64..=bytes.len() as u64)?;
        let values_len = usize::from(d.u16("values_len")?);
        let tables_len = usize::from(d.u16("tables_len")?);
        let count = d.u32("blocks")? as usize;
        let values = d.bytes("values", values_len)?.to_vec();
        let shape = match shape {
            0 if values.is_empty() => PlanesShape::Planes,
            3 if values.is_empty() && element.is_number() => PlanesShape::Differences(element),
            3 => match values[..] {
                [code] => match Element::of_code(code).filter(|base| element.casts_from(*base)) {
                    Some(base) => PlanesShape::Differences(base),
                    None => return Err(d.bad("values", code.into())),
                },
                _ => return Err(d.bad("values_len", values_len as u64)),
            },
            1 if element.is_number()
                && values_len % element.width() == 0
                && (1..=Self::PALETTE).contains(&(values_len / element.width())) =>
            {
                PlanesShape::Palette(values)
            }
            2 if (1..=Self::LONGEST_PATTERN).contains(&values_len) => PlanesShape::Periodic(values),
            other => return Err(d.bad("shape", other.into())),
        };
        let tables = d.bytes("tables", tables_len)?.to_vec();
        let need = count as u64 * 12 + 8;
        if need != d.left() as u64 {
            let have = d.left() as u64;
            return Err(FormatError::Truncated { what: PLANES, field: "blocks", need, have });
        }
        let mut blocks = Vec::with_capacity(count);
        let mut last = 0;
        for _ in 0..count {
            let block = BlockEntry { end: d.u32("block.end")?, sum: d.u64("block.sum")? };
            last = d.within("block.end", block.end.into(), last..=u32::MAX.into())?;
            blocks.push(block);
        }
        Ok(PlanesHead { element, shape, shared, tables, blocks })
    }

    /// The checksum of a block's bytes.
    pub fn block_sum(chunk: &ChunkId, number: u32, bytes: &[u8]) -> u64 {
        Seal::new(Domain::Block, &owner(chunk), u64::from(number) + 1).sum(bytes)
    }

    fn seal(chunk: &ChunkId) -> Seal {
        Seal::new(Domain::Block, &owner(chunk), 0)
    }
}

/// The half of a chunk's id that checksums know it by.
fn owner(chunk: &ChunkId) -> [u8; 16] {
    std::array::from_fn(|i| chunk.0[i])
}
