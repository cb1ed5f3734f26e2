//! What chunks of tensors are known by, so that later ones may be stored as the differences from them: a cache.

use crate::wire::{Decoder, Encoder, FormatError};
use crate::{ChunkId, Domain, FORMAT_VERSION, Seal, Uuid};

/// A number that a chunk is known by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BaseEntry {
    /// The number.
    pub key: u64,
    /// The chunk.
    pub chunk: ChunkId,
    /// Its length.
    pub len: u32,
}

/// Chunks of a store by such numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseTable {
    /// The store.
    pub store: Uuid,
    /// The oldest first.
    pub entries: Vec<BaseEntry>,
}

const BASES: &str = "table of bases";

impl BaseTable {
    const MAGIC: &[u8; 8] = b"CAIRNBAS";
    /// Bytes of an entry.
    pub const ENTRY_LEN: usize = 8 + 32 + 4;
    /// Bytes of the rest.
    pub const FIXED_LEN: usize = 8 + 4 + 16 + 4 + 8;

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let len = Self::FIXED_LEN + self.entries.len() * Self::ENTRY_LEN;
        let mut e = Encoder::after(Vec::with_capacity(len));
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.bytes("store", &self.store.0);
        e.u32("entries", self.entries.len() as u32);
        for entry in &self.entries {
            e.u64("entry.key", entry.key);
            e.bytes("entry.chunk", &entry.chunk.0);
            e.u32("entry.len", entry.len);
        }
        let sum = Self::seal(&self.store).sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes the file of `store`.
    pub fn decode(bytes: &[u8], store: &Uuid) -> Result<Self, FormatError> {
        let body = match bytes.split_last_chunk::<8>() {
            Some((body, sum)) if Self::seal(store).sum(body) == u64::from_le_bytes(*sum) => body,
            _ => return Err(FormatError::BadChecksum { what: BASES }),
        };
        let mut d = Decoder::new(BASES, body);
        d.magic(Self::MAGIC)?;
        d.version()?;
        let store = Uuid(d.array("store")?);
        let count = d.count("entries", Self::ENTRY_LEN)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let key = d.u64("entry.key")?;
            let chunk = ChunkId(d.array("entry.chunk")?);
            entries.push(BaseEntry { key, chunk, len: d.u32("entry.len")? });
        }
        d.end()?;
        Ok(BaseTable { store, entries })
    }

    fn seal(store: &Uuid) -> Seal {
        Seal::new(Domain::Bases, &store.0, 0)
    }
}
