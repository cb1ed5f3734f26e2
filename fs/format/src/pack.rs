//! Packs: a header, frames, and a footer that describes them all, twice.

use crate::wire::{Decoder, Encoder, FormatError};
use crate::{CheckpointRef, ChunkId, Domain, FORMAT_VERSION, Lsn, PackId, Seal, Uuid};

/// The length of a pack's header.
pub const PACK_HEADER_LEN: usize = 256;
/// The length of a pack's trailer.
pub const TRAILER_LEN: usize = 32;
/// The longest pack, in bytes: thousands of times what `mkfs` can ask for.
pub const PACK_LEN_MAX: u64 = 1 << 40;
/// The most plain bytes of a pack.
pub(crate) const PACK_PLAIN_MAX: u64 = 1 << 48;
/// The most plain bytes of a frame: one holds no more than `mkfs` can ask for, or a record of metadata more.
const FRAME_PLAIN_MAX: u32 = 32 << 20;
/// The most bytes of a frame in its pack, head and all.
const FRAME_MAX: u32 = 64 << 20;

/// What a pack holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PackKind {
    /// File bytes.
    Data,
    /// Parts of a checkpoint.
    Metadata,
}

impl PackKind {
    fn code(self) -> u8 {
        match self {
            PackKind::Data => 1,
            PackKind::Metadata => 2,
        }
    }

    fn decode(d: &mut Decoder<'_>) -> Result<PackKind, FormatError> {
        match d.u8("kind")? {
            1 => Ok(PackKind::Data),
            2 => Ok(PackKind::Metadata),
            other => Err(d.bad("kind", other.into())),
        }
    }
}

/// How a frame's bytes are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    fn code(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        }
    }

    fn decode(d: &mut Decoder<'_>) -> Result<Codec, FormatError> {
        match d.u8("codec")? {
            0 => Ok(Codec::Raw),
            1 => Ok(Codec::Zstd),
            other => Err(d.bad("codec", other.into())),
        }
    }
}

/// A pack's first 256 bytes, rewritten when it is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackHeader {
    /// The pack.
    pub pack: PackId,
    /// Its store.
    pub store: Uuid,
    /// The volume that wrote it.
    pub volume: Uuid,
    /// What it holds.
    pub kind: PackKind,
    /// Where the first copy of the footer begins.
    pub footer_offset: u64,
    /// The length of one copy of the footer.
    pub footer_len: u32,
}

const HEADER: &str = "pack header";
const FOOTER: &str = "pack footer";
const TRAILER: &str = "pack trailer";
const FRAME: &str = "frame";

fn seal(pack: &PackId, position: u64) -> Seal {
    Seal::new(Domain::Pack, &pack.0, position)
}

/// The bytes before the trailing checksum, if it holds.
fn sealed<'a>(what: &'static str, bytes: &'a [u8], seal: &Seal) -> Result<&'a [u8], FormatError> {
    match bytes.split_last_chunk::<8>() {
        Some((body, sum)) if seal.sum(body) == u64::from_le_bytes(*sum) => Ok(body),
        _ => Err(FormatError::BadChecksum { what }),
    }
}

// Positions that the parts of a pack are sealed to, so that one never passes for another.
const AT_HEADER: u64 = 0;
const AT_FOOTER: u64 = 1;
const AT_TRAILER: u64 = 2;

impl PackHeader {
    const MAGIC: &[u8; 8] = b"CAIRNPAK";

    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.u32("footer_len", self.footer_len);
        e.u64("footer_offset", self.footer_offset);
        e.bytes("pack", &self.pack.0);
        e.bytes("store", &self.store.0);
        e.bytes("volume", &self.volume.0);
        e.u8("kind", self.kind.code());
        e.zeros_to("zeros", PACK_HEADER_LEN - 8);
        let sum = seal(&self.pack, AT_HEADER).sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes the header of the pack that should be `pack`.
    pub fn decode(bytes: &[u8], pack: &PackId) -> Result<Self, FormatError> {
        let mut d = Decoder::new(HEADER, bytes);
        d.magic(Self::MAGIC)?;
        d.version()?;
        sealed(HEADER, bytes.get(..PACK_HEADER_LEN).unwrap_or_default(), &seal(pack, AT_HEADER))?;
        Ok(PackHeader {
            footer_len: d.u32("footer_len")?,
            footer_offset: d.u64("footer_offset")?,
            pack: PackId(d.array("pack")?),
            store: Uuid(d.array("store")?),
            volume: Uuid(d.array("volume")?),
            kind: PackKind::decode(&mut d)?,
        })
    }
}

/// A pack's last 32 bytes: where its second footer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Where the second copy of the footer begins.
    pub footer_offset: u64,
    /// The length of one copy of the footer.
    pub footer_len: u32,
}

impl Trailer {
    const MAGIC: &[u8; 8] = b"CAIRNEND";

    /// The trailer's bytes.
    pub fn encode(&self, pack: &PackId) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e, pack);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder, pack: &PackId) {
        e.u64("footer_offset", self.footer_offset);
        e.u32("footer_len", self.footer_len);
        e.u32("reserved", 0);
        e.bytes("magic", Self::MAGIC);
        let sum = seal(pack, AT_TRAILER).sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes the trailer of the pack that should be `pack`.
    pub fn decode(bytes: &[u8], pack: &PackId) -> Result<Self, FormatError> {
        let body = sealed(TRAILER, bytes, &seal(pack, AT_TRAILER))?;
        let mut d = Decoder::new(TRAILER, body);
        let trailer = Trailer { footer_offset: d.u64("footer_offset")?, footer_len: d.u32("footer_len")? };
        d.u32("reserved")?;
        d.magic(Self::MAGIC)?;
        d.end()?;
        Ok(trailer)
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
    /// Chunks whose bytes are needed to decode this frame: none yet.
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
    const CHUNK_LEN: usize = 36;
    const FIXED_LEN: usize = 32;
    const SUM_AT: usize = 24;

    /// Bytes of the head of a frame with so many chunks (and no bases).
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
        Ok((FrameHead { codec: codec?, plain_len, stored_len, bases, chunks }, stored))
    }

    fn sum(pack: &PackId, offset: u64, head: &[u8], stored: &[u8]) -> u64 {
        let after = Self::SUM_AT + 8;
        Seal::new(Domain::Frame, &pack.0, offset).sum_parts(&[&head[..Self::SUM_AT], &head[after..], stored])
    }
}

/// A frame as the footer lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameEntry {
    /// Where it begins in the pack.
    pub offset: u64,
    /// Its length in the pack, head and all.
    pub len: u32,
    /// Its bytes once decoded.
    pub plain_len: u32,
    /// Its chunks: the next so many in the footer's list.
    pub chunks: u32,
}

/// A chunk's place in a pack that this pack replaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// The pack replaced.
    pub pack: PackId,
    /// The frame there.
    pub frame: u32,
    /// The slot there.
    pub slot: u32,
    /// Which chunk of this pack's list it is.
    pub chunk: u32,
}

/// Whether a checkpoint is whole or a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointKind {
    /// All records of the state.
    Base,
    /// What changed since the checkpoint before.
    Delta,
}

/// What a metadata pack is part of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Whole or change.
    pub kind: CheckpointKind,
    /// The state holds every record up to here.
    pub lsn: Lsn,
    /// The checkpoint that a delta changes; none for a base.
    pub previous: CheckpointRef,
    /// The lowest LSN that the state names, or the one after `lsn`.
    pub floor: Lsn,
    /// All packs of the checkpoint, this one last; empty in a pack that is not the last.
    pub parts: Vec<PackId>,
}

/// What describes a pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Footer {
    /// The pack.
    pub pack: PackId,
    /// Its store.
    pub store: Uuid,
    /// The volume that wrote it.
    pub volume: Uuid,
    /// What it holds.
    pub kind: PackKind,
    /// Its frames, in the order of their offsets.
    pub frames: Vec<FrameEntry>,
    /// The chunks of all frames, frame after frame.
    pub chunks: Vec<ChunkEntry>,
    /// What it replaces, where it is one that compaction made: chunks of other packs, each with its own.
    pub replaces: Vec<Replaced>,
    /// The checkpoint that a metadata pack is part of.
    pub checkpoint: Option<Checkpoint>,
}

/// Sections behind the footer's fixed fields. One with an unknown tag is skipped where the tag is
/// even and refused where it is odd, so that parity and checksums of columns can come later.
mod section {
    pub(super) const FRAMES: u32 = 1;
    pub(super) const CHUNKS: u32 = 3;
    pub(super) const REPLACES: u32 = 5;
    pub(super) const CHECKPOINT: u32 = 7;
}

impl Footer {
    const MAGIC: &[u8; 8] = b"CAIRNFTR";

    /// One copy's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.u8("kind", self.kind.code());
        e.u8("parity_data", 0);
        e.u8("parity_extra", 0);
        e.u8("reserved", 0);
        e.bytes("pack", &self.pack.0);
        e.bytes("store", &self.store.0);
        e.bytes("volume", &self.volume.0);

        e.u32("frames.tag", section::FRAMES);
        e.u32("frames.len", (4 + self.frames.len() * 20) as u32);
        e.u32("frames.count", self.frames.len() as u32);
        for frame in &self.frames {
            e.u64("frame.offset", frame.offset);
            e.u32("frame.len", frame.len);
            e.u32("frame.plain_len", frame.plain_len);
            e.u32("frame.chunks", frame.chunks);
        }
        e.u32("chunks.tag", section::CHUNKS);
        e.u32("chunks.len", (4 + self.chunks.len() * FrameHead::CHUNK_LEN) as u32);
        e.u32("chunks.count", self.chunks.len() as u32);
        for chunk in &self.chunks {
            e.bytes("chunk.id", &chunk.id.0);
            e.u32("chunk.len", chunk.len);
        }
        if !self.replaces.is_empty() {
            e.u32("replaces.tag", section::REPLACES);
            e.u32("replaces.len", (4 + self.replaces.len() * 28) as u32);
            e.u32("replaces.count", self.replaces.len() as u32);
            for replaced in &self.replaces {
                e.bytes("replaced.pack", &replaced.pack.0);
                e.u32("replaced.frame", replaced.frame);
                e.u32("replaced.slot", replaced.slot);
                e.u32("replaced.chunk", replaced.chunk);
            }
        }
        if let Some(checkpoint) = &self.checkpoint {
            e.u32("checkpoint.tag", section::CHECKPOINT);
            e.u32("checkpoint.len", (48 + checkpoint.parts.len() * 16) as u32);
            e.u32("checkpoint.kind", matches!(checkpoint.kind, CheckpointKind::Delta).into());
            e.u64("checkpoint.state", checkpoint.lsn.0);
            checkpoint.previous.encode(e);
            e.u64("checkpoint.floor", checkpoint.floor.0);
            e.u32("checkpoint.parts", checkpoint.parts.len() as u32);
            for part in &checkpoint.parts {
                e.bytes("part", &part.0);
            }
        }
        let sum = seal(&self.pack, AT_FOOTER).sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes one copy of the footer of the pack that should be `pack`.
    pub fn decode(bytes: &[u8], pack: &PackId) -> Result<Footer, FormatError> {
        let mut d = Decoder::new(FOOTER, sealed(FOOTER, bytes, &seal(pack, AT_FOOTER))?);
        d.magic(Self::MAGIC)?;
        d.version()?;
        let kind = PackKind::decode(&mut d)?;
        d.bytes("parity", 3)?;
        let mut footer = Footer {
            pack: PackId(d.array("pack")?),
            store: Uuid(d.array("store")?),
            volume: Uuid(d.array("volume")?),
            kind,
            frames: Vec::new(),
            chunks: Vec::new(),
            replaces: Vec::new(),
            checkpoint: None,
        };
        while d.left() > 0 {
            let tag = d.u32("section.tag")?;
            let len = d.u32("section.len")? as usize;
            let mut section = Decoder::new(FOOTER, d.bytes("section", len)?);
            footer.decode_section(tag, &mut section)?;
        }
        footer.check(&d)?;
        Ok(footer)
    }

    fn decode_section(&mut self, tag: u32, d: &mut Decoder<'_>) -> Result<(), FormatError> {
        match tag {
            section::FRAMES => {
                for _ in 0..d.count("frames.count", 20)? {
                    self.frames.push(FrameEntry {
                        offset: d.u64("frame.offset")?,
                        len: d.u32("frame.len")?,
                        plain_len: d.u32("frame.plain_len")?,
                        chunks: d.u32("frame.chunks")?,
                    });
                }
            }
            section::CHUNKS => {
                for _ in 0..d.count("chunks.count", FrameHead::CHUNK_LEN)? {
                    self.chunks
                        .push(ChunkEntry { id: ChunkId(d.array("chunk.id")?), len: d.u32("chunk.len")? });
                }
            }
            section::REPLACES => {
                for _ in 0..d.count("replaces.count", 28)? {
                    self.replaces.push(Replaced {
                        pack: PackId(d.array("replaced.pack")?),
                        frame: d.u32("replaced.frame")?,
                        slot: d.u32("replaced.slot")?,
                        chunk: d.u32("replaced.chunk")?,
                    });
                }
            }
            section::CHECKPOINT => {
                let kind = match d.u32("checkpoint.kind")? {
                    0 => CheckpointKind::Base,
                    1 => CheckpointKind::Delta,
                    other => return Err(d.bad("checkpoint.kind", other.into())),
                };
                let mut checkpoint = Checkpoint {
                    kind,
                    lsn: Lsn(d.u64("checkpoint.state")?),
                    previous: CheckpointRef::decode(d)?,
                    floor: Lsn(d.u64("checkpoint.floor")?),
                    parts: Vec::new(),
                };
                for _ in 0..d.count("checkpoint.parts", 16)? {
                    checkpoint.parts.push(PackId(d.array("part")?));
                }
                self.checkpoint = Some(checkpoint);
            }
            unknown if unknown % 2 == 1 => return Err(d.bad("section.tag", unknown.into())),
            _ => return Ok(()),
        }
        d.end()
    }

    /// That the lists fit each other.
    fn check(&self, d: &Decoder<'_>) -> Result<(), FormatError> {
        let chunks: u64 = self.frames.iter().map(|f| u64::from(f.chunks)).sum();
        if chunks != self.chunks.len() as u64 {
            return Err(d.bad("chunks.count", self.chunks.len() as u64));
        }
        let mut end = PACK_HEADER_LEN as u64;
        for frame in &self.frames {
            if frame.offset < end {
                return Err(d.bad("frame.offset", frame.offset));
            }
            d.within("frame.len", frame.len.into(), 0..=FRAME_MAX.into())?;
            d.within("frame.plain_len", frame.plain_len.into(), 0..=FRAME_PLAIN_MAX.into())?;
            end = frame
                .offset
                .checked_add(frame.len.into())
                .ok_or_else(|| d.bad("frame.offset", frame.offset))?;
        }
        match self.replaces.iter().find(|r| r.chunk as usize >= self.chunks.len()) {
            Some(replaced) => Err(d.bad("replaced.chunk", replaced.chunk.into())),
            None => Ok(()),
        }
    }
}
