//! The names that everything else is called by.

use std::fmt;

use crate::{Decoder, Encoder, FormatError};

/// A 128-bit identity: of a volume, or of a store.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    /// The usual form, 8-4-4-4-12 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A chunk's identity: the keyed BLAKE3-256 of its plain bytes, under its store's key.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The first eight bytes: what the chunk index keeps of an id.
    pub fn fingerprint(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    /// The first eight digits: enough to tell chunks apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A pack's identity, unique for good: a mount's random number, its epoch, and a count.
///
/// In bytes (and as a file name, 32 hexadecimal digits) all three are big-endian, so that a mount's
/// packs sort in the order they were made.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub [u8; 16]);

impl PackId {
    /// The `number`th pack of the mount that drew `session` and holds `epoch`.
    pub fn new(session: u64, epoch: u32, number: u32) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&session.to_be_bytes());
        id[8..12].copy_from_slice(&epoch.to_be_bytes());
        id[12..].copy_from_slice(&number.to_be_bytes());
        PackId(id)
    }

    /// The epoch of the mount that wrote it.
    pub fn epoch(&self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// The directory under `packs/` that holds it: its last byte, so that a mount's packs spread.
    pub fn directory(&self) -> String {
        format!("{:02x}", self.0[15])
    }

    /// The inverse of [`Display`](fmt::Display): exactly 32 lowercase hexadecimal digits.
    pub fn parse(name: &str) -> Option<PackId> {
        let digits = name.as_bytes();
        if digits.len() != 32 {
            return None;
        }
        let value = |d: u8| match d {
            b'0'..=b'9' => Some(d - b'0'),
            b'a'..=b'f' => Some(d - b'a' + 10),
            _ => None,
        };
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(PackId(id))
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A journal record's number. The upper 24 bits are the epoch, the lower 40 count its records
/// from 1, so that LSNs order everything and none is given out twice.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before every record.
    pub const ZERO: Lsn = Lsn(0);
    const COUNT_BITS: u32 = 40;
    /// The last epoch: an LSN is positive as a directory's cookie.
    pub const EPOCH_MAX: u32 = (1 << 23) - 1;

    /// The first record of `epoch`.
    pub fn first_of(epoch: u32) -> Lsn {
        Lsn(u64::from(epoch) << Self::COUNT_BITS | 1)
    }

    /// The epoch whose mount wrote the record.
    pub fn epoch(self) -> u32 {
        (self.0 >> Self::COUNT_BITS) as u32
    }

    /// The record after this one in the same epoch.
    pub fn next(self) -> Lsn {
        // Those of records never come near the end; what else an LSN is read from may say anything.
        Lsn(self.0.saturating_add(1))
    }

    /// Whether a record can have it.
    pub(crate) fn is_of_a_record(self) -> bool {
        self != Lsn::ZERO && self.epoch() <= Self::EPOCH_MAX
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.0 & ((1 << Self::COUNT_BITS) - 1))
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An inode's number within its view: 48 bits, never given out twice.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory, as FUSE numbers it.
    pub const ROOT: Ino = Ino(1);
    /// The highest number that fits beside a view in `st_ino`.
    pub const MAX: Ino = Ino((1 << 48) - 1);
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A version of the namespace: the upper 16 bits of `st_ino`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct View(pub u16);

impl View {
    /// The live volume.
    pub const LIVE: View = View(0);
}

/// A synced checkpoint: the LSN it holds the namespace up to, and the last of its metadata packs.
/// All zero where there is none yet.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CheckpointRef {
    /// Every record up to here is in it.
    pub lsn: Lsn,
    /// The pack whose footer lists all of the checkpoint's packs.
    pub pack: PackId,
}

impl CheckpointRef {
    /// Before the first checkpoint.
    pub const NONE: CheckpointRef = CheckpointRef { lsn: Lsn::ZERO, pack: PackId([0; 16]) };

    pub(crate) fn encode(&self, e: &mut Encoder) {
        e.u64("checkpoint.lsn", self.lsn.0);
        e.bytes("checkpoint.pack", &self.pack.0);
    }

    pub(crate) fn decode(d: &mut Decoder<'_>) -> Result<Self, FormatError> {
        Ok(CheckpointRef { lsn: Lsn(d.u64("checkpoint.lsn")?), pack: PackId(d.array("checkpoint.pack")?) })
    }
}

/// Where journalled file bytes lie: a record, and the bytes of its payload from `payload_offset`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct JournalRef {
    /// The record.
    pub lsn: Lsn,
    /// The number of the segment that holds it.
    pub segment: u64,
    /// The record's position in the segment's file.
    pub record_offset: u32,
    /// The first byte meant, counted from the start of the record's payload.
    pub payload_offset: u32,
}
