//! A frame: chunks that are compressed together, behind a head that says which.

use crate::wire::{Decoder, Encoder, FormatError};
use crate::{ChunkId, Domain, PackId, PlanesHead, Seal};

const FRAME: &str = "frame";

/// How a frame's bytes are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
    /// The one chunk of the frame as a run of numbers, by planes: a [`PlanesHead`](crate::PlanesHead), and its blocks.
    Planes,
}

impl Codec {
    fn code(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Zstd => 1,
            Codec::Planes => 2,
        }
    }

    fn decode(d: &mut Decoder<'_>) -> Result<Codec, FormatError> {
        match d.u8("codec")? {
            0 => Ok(Codec::Raw),
            1 => Ok(Codec::Zstd),
            2 => Ok(Codec::Planes),
            other => Err(d.bad("codec", other.into())),
        }
    }
}

/// What stands before a frame's stored bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameHead {
    /// How the bytes are stored.
    pub codec: Codec,
    /// Bytes once decoded: the sum of the chunks' lengths, or a metadata frame's records.
    pub plain_len: u32,
    /// Stored bytes behind the head.
    pub stored_len: u32,
    /// Chunks whose bytes are needed to decode this frame: the one that a run of differences is from.
    pub bases: Vec<ChunkId>,
    /// The chunks, in the order of their bytes; a metadata frame has none.
    pub chunks: Vec<ChunkEntry>,
}

/// A chunk as frames and footers list it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkEntry {
    /// The chunk.
    pub id: ChunkId,
    /// Its length.
    pub len: u32,
}

impl FrameHead {
    const MAGIC: &[u8; 4] = b"CFRM";
    pub(crate) const CHUNK_LEN: usize = 36;
    const FIXED_LEN: usize = 32;
    const SUM_AT: usize = 24;

    /// Bytes of the head of a frame with so many chunks, bases left out.
    pub fn len_with(chunks: usize) -> usize {
        Self::FIXED_LEN + chunks * Self::CHUNK_LEN
    }

    /// The head's bytes, sealed together with the stored bytes behind it to their place.
    pub fn encode(&self, pack: &PackId, offset: u64, stored: &[u8]) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e, pack, offset, stored);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder, pack: &PackId, offset: u64, stored: &[u8]) {
        e.bytes("magic", Self::MAGIC);
        e.u8("codec", self.codec.code());
        e.u8("bases", self.bases.len() as u8);
        e.u16("reserved", 0);
        e.u32("plain_len", self.plain_len);
        e.u32("stored_len", self.stored_len);
        e.u32("chunks", self.chunks.len() as u32);
        e.u32("reserved2", 0);
        e.u64("checksum", 0);
        for base in &self.bases {
            e.bytes("base", &base.0);
        }
        for chunk in &self.chunks {
            e.bytes("chunk.id", &chunk.id.0);
            e.u32("chunk.len", chunk.len);
        }
        let sum = Self::sum(pack, offset, e.written(), stored);
        e.patch_u64(Self::SUM_AT, sum);
    }

    /// How a frame is stored, by its first bytes, which are not checked: for people.
    pub fn stored_as(start: &[u8]) -> Option<&'static str> {
        let mut d = Decoder::new(FRAME, start);
        d.magic(Self::MAGIC).ok()?;
        let codec = Codec::decode(&mut d).ok()?;
        let bases = usize::from(d.u8("bases").ok()?);
        let head_len = Self::FIXED_LEN + bases * 32 + Self::CHUNK_LEN;
        match codec {
            Codec::Raw => Some("raw"),
            Codec::Zstd => Some("zstd"),
            Codec::Planes => PlanesHead::shape_of(start.get(head_len..)?),
        }
    }

    /// Where the stored bytes begin of a frame of `frame_len` bytes that is this chunk by planes, by its first bytes, which are not
    /// checked: what follows has checksums of its own, that are bound to the chunk. With the base of its differences, if it has one.
    pub fn start_of_run(start: &[u8], frame_len: u32, chunk: &ChunkEntry) -> Option<(u32, Option<ChunkId>)> {
        let mut d = Decoder::new(FRAME, start);
        d.magic(Self::MAGIC).ok()?;
        let codec = Codec::decode(&mut d).ok()?;
        let bases = u32::from(d.u8("bases").ok()?);
        d.u16("reserved").ok()?;
        let plain_len = d.u32("plain_len").ok()?;
        let stored_len = d.u32("stored_len").ok()?;
        let chunks = d.u32("chunks").ok()?;
        d.bytes("reserved2, checksum", 12).ok()?;
        let base = match bases {
            0 => None,
            1 => Some(ChunkId(d.array("base").ok()?)),
            _ => return None,
        };
        let listed = ChunkEntry { id: ChunkId(d.array("chunk.id").ok()?), len: d.u32("chunk.len").ok()? };
        let head_len = (Self::FIXED_LEN + Self::CHUNK_LEN) as u32 + bases * 32;
        let fits = head_len.checked_add(stored_len) == Some(frame_len) && plain_len == chunk.len;
        (codec == Codec::Planes && chunks == 1 && listed == *chunk && fits).then_some((head_len, base))
    }

    /// Checks a whole frame (head and stored bytes) read from `offset` of `pack`; gives the head and the
    /// stored bytes.
    pub fn decode<'a>(
        frame: &'a [u8],
        pack: &PackId,
        offset: u64,
    ) -> Result<(FrameHead, &'a [u8]), FormatError> {
        let mut d = Decoder::new(FRAME, frame);
        d.magic(Self::MAGIC)?;
        let codec = Codec::decode(&mut d);
        let base_count = d.u8("bases")?;
        d.u16("reserved")?;
        let plain_len = d.u32("plain_len")?;
        let stored_len = d.u32("stored_len")?;
        let chunk_count = d.u32("chunks")?;
        d.u32("reserved2")?;
        let sum = d.u64("checksum")?;
        let head_len = Self::FIXED_LEN as u64
            + u64::from(base_count) * 32
            + u64::from(chunk_count) * Self::CHUNK_LEN as u64;
        let whole = head_len + u64::from(stored_len);
        if whole != frame.len() as u64 {
            return Err(FormatError::Truncated {
                what: FRAME,
                field: "stored bytes",
                need: whole,
                have: frame.len() as u64,
            });
        }
        // Both lengths fit: `whole` is the length of a slice.
        let (head_bytes, stored) = frame.split_at(head_len as usize);
        if Self::sum(pack, offset, head_bytes, stored) != sum {
            return Err(FormatError::BadChecksum { what: FRAME });
        }
        let mut bases = Vec::with_capacity(base_count.into());
        for _ in 0..base_count {
            bases.push(ChunkId(d.array("base")?));
        }
        let mut chunks = Vec::with_capacity(chunk_count as usize);
        let mut plain = 0u64;
        for _ in 0..chunk_count {
            let chunk = ChunkEntry { id: ChunkId(d.array("chunk.id")?), len: d.u32("chunk.len")? };
            plain += u64::from(chunk.len);
            chunks.push(chunk);
        }
        if chunk_count > 0 && plain != plain_len.into() {
            return Err(d.bad("plain_len", plain_len.into()));
        }
        if codec == Ok(Codec::Planes) && chunk_count != 1 {
            return Err(d.bad("chunks", chunk_count.into()));
        }
        if codec == Ok(Codec::Planes) && base_count > 1 {
            return Err(d.bad("bases", base_count.into()));
        }
        Ok((FrameHead { codec: codec?, plain_len, stored_len, bases, chunks }, stored))
    }

    fn sum(pack: &PackId, offset: u64, head: &[u8], stored: &[u8]) -> u64 {
        let after = Self::SUM_AT + 8;
        Seal::new(Domain::Frame, &pack.0, offset).sum_parts(&[&head[..Self::SUM_AT], &head[after..], stored])
    }
}
