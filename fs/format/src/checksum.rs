//! Checksums that know where the bytes belong.

use twox_hash::XxHash3_64;

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
    /// A block of a run that is coded by planes, or what stands before these.
    Block,
    /// 4 KiB of a file that parity protects.
    Sector,
    /// A block of a table of such checksums.
    Sums,
    /// The chunk index's snapshot.
    Index,
    /// How far scrubs of a store are.
    Scrub,
    /// What chunks of tensors are known by.
    Bases,
    /// The header of a closed segment's parity.
    SegmentParity,
    /// Which directories have second copies.
    Across,
}

/// The place that bytes are sealed to: 64-bit XXH3 checksums, seeded by domain, owner (a volume, store
/// or pack) and position, so that bytes which are whole but lie in the wrong place do not pass.
///
/// They stop rot and misdirected writes, not an attacker.
#[derive(Clone)]
pub struct Seal {
    seed: u64,
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
            Domain::Block => *b"block   ",
            Domain::Sector => *b"sector  ",
            Domain::Sums => *b"sums    ",
            Domain::Index => *b"index   ",
            Domain::Scrub => *b"scrub   ",
            Domain::Bases => *b"bases   ",
            Domain::SegmentParity => *b"segpar  ",
            Domain::Across => *b"across  ",
        };
        let mut key = [0; 32];
        key[..8].copy_from_slice(&name);
        key[8..24].copy_from_slice(owner);
        key[24..].copy_from_slice(&position.to_le_bytes());
        Seal { seed: XxHash3_64::oneshot(&key) }
    }

    /// The checksum of `bytes` in this place.
    pub fn sum(&self, bytes: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(self.seed, bytes)
    }

    /// The checksum of several runs of bytes: that of each is the next one's seed, so that where one ends counts.
    pub fn sum_parts(&self, parts: &[&[u8]]) -> u64 {
        parts.iter().fold(self.seed, |seed, part| XxHash3_64::oneshot_with_seed(seed, part))
    }
}

/// The checksum of bytes that belong to others: of a value, to its key.
pub fn bound_sum(to: &[u8], bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(to), bytes)
}
