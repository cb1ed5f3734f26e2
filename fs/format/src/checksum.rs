//! Checksums that know where the bytes belong.

/// What kind of place the bytes lie in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// A superblock of a volume or a store.
    Superblock,
    /// A journal segment's header.
    Segment,
    /// A journal record's head, mutations and payload checksums.
    Record,
    /// 4 KiB of a record's payload.
    Payload,
    /// A pack's header, footer or trailer.
    Pack,
    /// A frame in a pack.
    Frame,
    /// The chunk index's snapshot.
    Index,
}

/// The place that bytes are sealed to: 64-bit BLAKE3 checksums, keyed by domain, owner (a volume, store
/// or pack) and position, so that bytes which are whole but lie in the wrong place do not pass.
///
/// They stop rot and misdirected writes, not an attacker.
#[derive(Clone)]
pub struct Seal {
    key: [u8; 32],
}

impl Seal {
    /// For what lies at `position` (an LSN, a segment number, an offset) of `owner`.
    pub fn new(domain: Domain, owner: &[u8; 16], position: u64) -> Seal {
        let name: [u8; 8] = match domain {
            Domain::Superblock => *b"superblk",
            Domain::Segment => *b"segment ",
            Domain::Record => *b"record  ",
            Domain::Payload => *b"payload ",
            Domain::Pack => *b"pack    ",
            Domain::Frame => *b"frame   ",
            Domain::Index => *b"index   ",
        };
        let mut key = [0; 32];
        key[..8].copy_from_slice(&name);
        key[8..24].copy_from_slice(owner);
        key[24..].copy_from_slice(&position.to_le_bytes());
        Seal { key }
    }

    /// The checksum of `bytes` in this place.
    pub fn sum(&self, bytes: &[u8]) -> u64 {
        first_eight(&blake3::keyed_hash(&self.key, bytes))
    }

    /// The checksum of several runs of bytes, one after another.
    pub fn sum_parts(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in parts {
            hasher.update(part);
        }
        first_eight(&hasher.finalize())
    }
}

fn first_eight(hash: &blake3::Hash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}
