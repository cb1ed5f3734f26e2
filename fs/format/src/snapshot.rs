//! The chunk index on disk: a snapshot that saves reading every footer at the next mount.

use crate::pack::{PACK_LEN_MAX, PACK_PLAIN_MAX};
use crate::wire::{Decoder, Encoder, FormatError};
use crate::{Domain, FORMAT_VERSION, PackId, PackKind, Seal, Uuid};

/// What is known of a sealed pack without its footer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackSummary {
    /// The pack.
    pub pack: PackId,
    /// The volume that wrote it.
    pub volume: Uuid,
    /// What it holds.
    pub kind: PackKind,
    /// The length of its file.
    pub file_len: u64,
    /// Those of them that are there to mend the others: parity, checksums, second copies.
    pub spare_len: u64,
    /// Bytes of its frames once decoded.
    pub plain_len: u64,
    /// Its chunks.
    pub chunks: u32,
}

/// A slot of the chunk index: a fingerprint, and where the chunk may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IndexSlot {
    /// The first eight bytes of the chunk's id.
    pub fingerprint: u64,
    /// Which pack of the snapshot's list, counted from 1; 0 is an empty slot.
    pub pack: u32,
    /// Which chunk of that pack's footer.
    pub chunk: u32,
}

/// The chunk index as it was when a store was closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexSnapshot {
    /// The store.
    pub store: Uuid,
    /// The packs it knows.
    pub packs: Vec<PackSummary>,
    /// Fingerprints of the chunks of data packs; not all where memory was short.
    pub slots: Vec<IndexSlot>,
}

const INDEX: &str = "chunk index";
const PACK_LEN: usize = 16 + 16 + 1 + 8 + 8 + 8 + 4;
const SLOT_LEN: usize = 16;

impl IndexSnapshot {
    const MAGIC: &[u8; 8] = b"CAIRNIDX";

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let len = 48 + self.packs.len() * PACK_LEN + self.slots.len() * SLOT_LEN;
        let mut e = Encoder::after(Vec::with_capacity(len));
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.bytes("store", &self.store.0);
        e.u32("packs", self.packs.len() as u32);
        e.u32("slots", self.slots.len() as u32);
        for pack in &self.packs {
            e.bytes("pack.id", &pack.pack.0);
            e.bytes("pack.volume", &pack.volume.0);
            e.u8("pack.kind", matches!(pack.kind, PackKind::Metadata).into());
            e.u64("pack.file_len", pack.file_len);
            e.u64("pack.spare_len", pack.spare_len);
            e.u64("pack.plain_len", pack.plain_len);
            e.u32("pack.chunks", pack.chunks);
        }
        for slot in &self.slots {
            e.u64("slot.fingerprint", slot.fingerprint);
            e.u32("slot.pack", slot.pack);
            e.u32("slot.chunk", slot.chunk);
        }
        let sum = Self::seal(&self.store).sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes the file of `store`.
    pub fn decode(bytes: &[u8], store: &Uuid) -> Result<Self, FormatError> {
        let body = match bytes.split_last_chunk::<8>() {
            Some((body, sum)) if Self::seal(store).sum(body) == u64::from_le_bytes(*sum) => body,
            _ => return Err(FormatError::BadChecksum { what: INDEX }),
        };
        let mut d = Decoder::new(INDEX, body);
        d.magic(Self::MAGIC)?;
        d.version()?;
        let store = Uuid(d.array("store")?);
        let pack_count = d.count("packs", PACK_LEN)?;
        let slot_count = d.count("slots", SLOT_LEN)?;
        let mut packs = Vec::with_capacity(pack_count);
        for _ in 0..pack_count {
            let summary = PackSummary {
                pack: PackId(d.array("pack.id")?),
                volume: Uuid(d.array("pack.volume")?),
                kind: match d.u8("pack.kind")? {
                    0 => PackKind::Data,
                    1 => PackKind::Metadata,
                    other => return Err(d.bad("pack.kind", other.into())),
                },
                file_len: d.u64("pack.file_len")?,
                spare_len: d.u64("pack.spare_len")?,
                plain_len: d.u64("pack.plain_len")?,
                chunks: d.u32("pack.chunks")?,
            };
            // Whoever adds them up may do so.
            d.within("pack.file_len", summary.file_len, 0..=PACK_LEN_MAX)?;
            d.within("pack.spare_len", summary.spare_len, 0..=summary.file_len)?;
            d.within("pack.plain_len", summary.plain_len, 0..=PACK_PLAIN_MAX)?;
            packs.push(summary);
        }
        let mut slots = Vec::with_capacity(slot_count);
        for _ in 0..slot_count {
            let slot = IndexSlot {
                fingerprint: d.u64("slot.fingerprint")?,
                pack: d.u32("slot.pack")?,
                chunk: d.u32("slot.chunk")?,
            };
            d.within("slot.pack", slot.pack.into(), 0..=pack_count as u64)?;
            slots.push(slot);
        }
        d.end()?;
        Ok(IndexSnapshot { store, packs, slots })
    }

    fn seal(store: &Uuid) -> Seal {
        Seal::new(Domain::Index, &store.0, 0)
    }
}
