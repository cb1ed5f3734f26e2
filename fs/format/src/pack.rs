//! Packs: a header, frames, a footer that describes them all, parity, and the footer once more.

use crate::frame::ChunkEntry;
use crate::layout::PackLayout;
use crate::superblock::ParityGeometry;
use crate::wire::{Decoder, Encoder, FormatError};
use crate::{CheckpointRef, ChunkId, Domain, FORMAT_VERSION, FrameHead, Lsn, PackId, Seal, Uuid};

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

/// A pack's first 256 bytes.
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
    /// Where what lies.
    pub layout: PackLayout,
}

const HEADER: &str = "pack header";
const FOOTER: &str = "pack footer";
const TRAILER: &str = "pack trailer";

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
        e.u32("footer_len", self.layout.footer_len);
        e.u64("footer_offset", self.layout.footer_offset);
        e.bytes("pack", &self.pack.0);
        e.bytes("store", &self.store.0);
        e.bytes("volume", &self.volume.0);
        e.u8("kind", self.kind.code());
        e.u8("parity_data", self.layout.parity.data);
        e.u8("parity_extra", self.layout.parity.parity);
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
        let footer_len = d.u32("footer_len")?;
        let footer_offset = d.u64("footer_offset")?;
        Ok(PackHeader {
            pack: PackId(d.array("pack")?),
            store: Uuid(d.array("store")?),
            volume: Uuid(d.array("volume")?),
            kind: PackKind::decode(&mut d)?,
            layout: PackLayout::decode(footer_offset, footer_len, &mut d)?,
        })
    }
}

/// Where a pack's parts lie, said once more before its parity and in its last bytes: the header may be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Where what lies.
    pub layout: PackLayout,
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
        e.u64("footer_offset", self.layout.footer_offset);
        e.u32("footer_len", self.layout.footer_len);
        e.u8("parity_data", self.layout.parity.data);
        e.u8("parity_extra", self.layout.parity.parity);
        e.u16("reserved", 0);
        e.bytes("magic", Self::MAGIC);
        let sum = seal(pack, AT_TRAILER).sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes the trailer of the pack that should be `pack`.
    pub fn decode(bytes: &[u8], pack: &PackId) -> Result<Self, FormatError> {
        let body = sealed(TRAILER, bytes, &seal(pack, AT_TRAILER))?;
        let mut d = Decoder::new(TRAILER, body);
        let (footer_offset, footer_len) = (d.u64("footer_offset")?, d.u32("footer_len")?);
        let layout = PackLayout::decode(footer_offset, footer_len, &mut d)?;
        d.u16("reserved")?;
        d.magic(Self::MAGIC)?;
        d.end()?;
        Ok(Trailer { layout })
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

/// A frame that is differences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameBase {
    /// The frame's number.
    pub frame: u32,
    /// The chunk that it differs from.
    pub base: ChunkId,
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
    /// The parity it carries.
    pub parity: ParityGeometry,
    /// Its frames, in the order of their offsets.
    pub frames: Vec<FrameEntry>,
    /// The chunks of all frames, frame after frame.
    pub chunks: Vec<ChunkEntry>,
    /// The frames that are differences, and what from: each has one chunk.
    pub bases: Vec<FrameBase>,
    /// What it replaces, where it is one that compaction made: chunks of other packs, each with its own.
    pub replaces: Vec<Replaced>,
    /// The checkpoint that a metadata pack is part of.
    pub checkpoint: Option<Checkpoint>,
}

/// Sections behind the footer's fixed fields. One with an unknown tag is skipped where the tag is
/// even and refused where it is odd.
mod section {
    pub(super) const FRAMES: u32 = 1;
    pub(super) const CHUNKS: u32 = 3;
    pub(super) const REPLACES: u32 = 5;
    pub(super) const CHECKPOINT: u32 = 7;
    pub(super) const BASES: u32 = 9;
}

impl Footer {
    /// The chunk that a frame differs from, where it is differences.
    pub fn base_of(&self, frame: u32) -> Option<ChunkId> {
        let at = self.bases.binary_search_by_key(&frame, |base| base.frame).ok()?;
        self.bases.get(at).map(|base| base.base)
    }

    const MAGIC: &[u8; 8] = b"CAIRNFTR";
    const FIXED_LEN: usize = 64;
    const FRAME_LEN: usize = 20;
    const REPLACED_LEN: usize = 28;
    const CHECKPOINT_LEN: usize = 48;
    const BASE_LEN: usize = 36;

    /// Where the parts lie of the pack that it describes.
    pub fn layout(&self) -> PackLayout {
        let last = self.frames.last();
        let footer_offset = last.map_or(PACK_HEADER_LEN as u64, |f| f.offset + u64::from(f.len));
        PackLayout { footer_offset, footer_len: self.encoded_len() as u32, parity: self.parity }
    }

    /// Bytes of one copy.
    pub fn encoded_len(&self) -> usize {
        let list = |count: usize, each: usize| 12 + count * each;
        let replaces =
            if self.replaces.is_empty() { 0 } else { list(self.replaces.len(), Self::REPLACED_LEN) };
        let checkpoint =
            self.checkpoint.as_ref().map_or(0, |c| 8 + Self::CHECKPOINT_LEN + c.parts.len() * 16);
        let bases = if self.bases.is_empty() { 0 } else { list(self.bases.len(), Self::BASE_LEN) };
        let frames = list(self.frames.len(), Self::FRAME_LEN);
        let chunks = list(self.chunks.len(), FrameHead::CHUNK_LEN);
        Self::FIXED_LEN + frames + chunks + bases + replaces + checkpoint + 8
    }

    /// One copy's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::after(Vec::with_capacity(self.encoded_len()));
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.u8("kind", self.kind.code());
        e.u8("parity_data", self.parity.data);
        e.u8("parity_extra", self.parity.parity);
        e.u8("reserved", 0);
        e.bytes("pack", &self.pack.0);
        e.bytes("store", &self.store.0);
        e.bytes("volume", &self.volume.0);

        e.u32("frames.tag", section::FRAMES);
        e.u32("frames.len", (4 + self.frames.len() * Self::FRAME_LEN) as u32);
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
        if !self.bases.is_empty() {
            e.u32("bases.tag", section::BASES);
            e.u32("bases.len", (4 + self.bases.len() * Self::BASE_LEN) as u32);
            e.u32("bases.count", self.bases.len() as u32);
            for base in &self.bases {
                e.u32("base.frame", base.frame);
                e.bytes("base.chunk", &base.base.0);
            }
        }
        if !self.replaces.is_empty() {
            e.u32("replaces.tag", section::REPLACES);
            e.u32("replaces.len", (4 + self.replaces.len() * Self::REPLACED_LEN) as u32);
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
            e.u32("checkpoint.len", (Self::CHECKPOINT_LEN + checkpoint.parts.len() * 16) as u32);
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
        let parity = ParityGeometry::decode(&mut d)?;
        d.u8("reserved")?;
        let mut footer = Footer {
            pack: PackId(d.array("pack")?),
            store: Uuid(d.array("store")?),
            volume: Uuid(d.array("volume")?),
            kind,
            parity,
            frames: Vec::new(),
            chunks: Vec::new(),
            bases: Vec::new(),
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
                for _ in 0..d.count("frames.count", Self::FRAME_LEN)? {
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
            section::BASES => {
                for _ in 0..d.count("bases.count", Self::BASE_LEN)? {
                    let frame = d.u32("base.frame")?;
                    self.bases.push(FrameBase { frame, base: ChunkId(d.array("base.chunk")?) });
                }
            }
            section::REPLACES => {
                for _ in 0..d.count("replaces.count", Self::REPLACED_LEN)? {
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
        let mut next = 0;
        for base in &self.bases {
            // In order, and of frames that are there and have one chunk.
            let fits = self.frames.get(base.frame as usize).is_some_and(|frame| frame.chunks == 1);
            if base.frame < next || !fits {
                return Err(d.bad("base.frame", base.frame.into()));
            }
            next = base.frame.saturating_add(1);
        }
        match self.replaces.iter().find(|r| r.chunk as usize >= self.chunks.len()) {
            Some(replaced) => Err(d.bad("replaced.chunk", replaced.chunk.into())),
            None => Ok(()),
        }
    }
}
