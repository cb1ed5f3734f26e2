//! The journal: segments of records. A record holds what one operation changes, and its file bytes.

use crate::namespace::{FILE_MAX, decode_pieces_from, encode_pieces_into};
use crate::wire::{Decoder, Encoder, FormatError};
use crate::{CheckpointRef, Domain, FORMAT_VERSION, Ino, Lsn, Piece, Seal, Uuid, View};

/// The length of a segment's header. Two copies stand at the segment's start.
pub const SEGMENT_HEADER_LEN: usize = 4096;
/// Where a segment's first record lies.
pub const SEGMENT_DATA_START: u32 = 2 * SEGMENT_HEADER_LEN as u32;
/// Records begin at multiples of this.
pub const RECORD_ALIGN: u32 = 8;
/// The length of a record's head.
pub const RECORD_HEAD_LEN: usize = 64;
/// Bytes of a payload to a checksum.
pub const PAYLOAD_BLOCK: usize = 4096;

const RECORD_SUM_AT: usize = 40;
/// Segments are not counted further.
const NUMBER_MAX: u64 = 1 << 48;
/// The longest run that one mutation maps: far more than a fold or a copy puts into one.
const MAP_MAX: u64 = 1 << 36;
const SEGMENT: &str = "journal segment header";
const RECORD: &str = "journal record";

/// What a segment's first 4 KiB say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The volume whose journal it is.
    pub volume: Uuid,
    /// The mount that filled it.
    pub epoch: u32,
    /// Its length in bytes.
    pub len: u32,
    /// Counts the journal's segments; a recycled file gets a new number.
    pub number: u64,
    /// The LSN of its first record.
    pub first: Lsn,
    /// The LSN of the record before that.
    pub continues: Lsn,
    /// The checkpoint that trimming relied on when this segment was begun.
    pub checkpoint: CheckpointRef,
    /// The lowest LSN that this checkpoint's state or replay needs.
    pub floor: Lsn,
}

impl SegmentHeader {
    const MAGIC: &[u8; 8] = b"CAIRNSEG";

    /// One copy's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the header's fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.u32("epoch", self.epoch);
        e.bytes("volume", &self.volume.0);
        e.u64("number", self.number);
        e.u64("first", self.first.0);
        e.u64("continues", self.continues.0);
        self.checkpoint.encode(e);
        e.u64("floor", self.floor.0);
        e.u32("segment_size", self.len);
        e.u8("parity_data", 0);
        e.u8("parity_extra", 0);
        e.zeros_to("zeros", SEGMENT_HEADER_LEN - 8);
        let sum = Self::seal(&self.volume).sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes one copy.
    pub fn decode(bytes: &[u8], volume: &Uuid) -> Result<Self, FormatError> {
        let mut d = Decoder::new(SEGMENT, bytes);
        d.magic(Self::MAGIC)?;
        d.version()?;
        let Some((body, sum)) = bytes.split_at_checked(SEGMENT_HEADER_LEN - 8) else {
            return Err(FormatError::Truncated {
                what: SEGMENT,
                field: "checksum",
                need: SEGMENT_HEADER_LEN as u64,
                have: bytes.len() as u64,
            });
        };
        if sum.len() < 8 || Self::seal(volume).sum(body).to_le_bytes() != sum[..8] {
            return Err(FormatError::BadChecksum { what: SEGMENT });
        }
        let epoch = d.u32("epoch")?;
        let header = SegmentHeader {
            epoch,
            volume: Uuid(d.array("volume")?),
            number: d.u64("number")?,
            first: Lsn(d.u64("first")?),
            continues: Lsn(d.u64("continues")?),
            checkpoint: CheckpointRef::decode(&mut d)?,
            floor: Lsn(d.u64("floor")?),
            len: d.u32("segment_size")?,
        };
        d.u8("parity_data")?;
        d.u8("parity_extra")?;
        let ordered = header.first.epoch() == epoch && header.continues < header.first;
        if !ordered || !header.first.is_of_a_record() {
            return Err(d.bad("first", header.first.0));
        }
        d.within("number", header.number, 0..=NUMBER_MAX)?;
        Ok(header)
    }

    fn seal(volume: &Uuid) -> Seal {
        Seal::new(Domain::Segment, &volume.0, 0)
    }
}

/// A request of the kernel's, and what it was answered: what a record says that concludes one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The request's number, unique among those of one mount; 0 where there was none.
    pub request: u64,
    /// What the answer is made from again: the new inode's number, or the count of bytes; 0 elsewhere.
    pub value: u64,
}

/// A record's first 64 bytes: how long it is, and where it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHead {
    /// Its number.
    pub lsn: Lsn,
    /// The segment it was written into.
    pub segment: u64,
    /// The highest LSN known to be synced when it was written.
    pub synced: Lsn,
    /// Bytes of mutations.
    pub body_len: u32,
    /// Bytes of payload.
    pub payload_len: u32,
    /// How many records before this one the oldest lies whose answer may not have been given yet: what is
    /// before that was answered. [`RecordHead::OWED_ALL`]: nothing is known of those before.
    pub owed: u32,
    /// The request that this record concludes.
    pub answer: Answer,
}

impl RecordHead {
    const MAGIC: &[u8; 4] = b"CREC";
    /// Any record before this one may have an answer that was not given.
    pub const OWED_ALL: u32 = u32::MAX;

    /// Whether a record may begin with these bytes.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(Self::MAGIC)
    }

    /// Where in `bytes`, whose first is at a multiple of [`RECORD_ALIGN`], records may begin.
    pub fn candidates(bytes: &[u8]) -> impl Iterator<Item = usize> {
        let places = bytes.chunks_exact(RECORD_ALIGN as usize).enumerate();
        // Arrays, of a length known here: one comparison of a word for each place, of which a segment has millions.
        places
            .filter(|(_, place)| place.first_chunk() == Some(Self::MAGIC))
            .map(|(n, _)| n * RECORD_ALIGN as usize)
    }

    /// Decodes a head, without its checksum being known yet: lengths are only bounds for what to read.
    pub fn peek(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut d = Decoder::new(RECORD, bytes);
        d.magic(Self::MAGIC)?;
        let owed = d.u32("owed")?;
        let (lsn, segment, synced) = (Lsn(d.u64("lsn")?), d.u64("segment")?, Lsn(d.u64("synced")?));
        let (body_len, payload_len) = (d.u32("body_len")?, d.u32("payload_len")?);
        d.u64("checksum")?;
        let answer = Answer { request: d.u64("request")?, value: d.u64("answer")? };
        Ok(RecordHead { lsn, segment, synced, body_len, payload_len, owed, answer })
    }

    /// Bytes from the record's start to its payload: head, mutations, payload checksums.
    pub fn prefix_len(&self) -> u64 {
        RECORD_HEAD_LEN as u64 + u64::from(self.body_len) + self.sums() * 8
    }

    /// Bytes of the whole record, without padding.
    pub fn record_len(&self) -> u64 {
        self.prefix_len() + u64::from(self.payload_len)
    }

    /// Payload checksums that it has.
    pub fn sums(&self) -> u64 {
        u64::from(self.payload_len).div_ceil(PAYLOAD_BLOCK as u64)
    }
}

/// A record, but for its payload's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where it belongs.
    pub head: RecordHead,
    /// What it changes.
    pub mutations: Vec<Mutation>,
    /// A checksum for each 4 KiB of payload.
    pub sums: Vec<u64>,
}

impl Record {
    /// The bytes before the payload. `body` is [`Mutation::encode_all`]'s, `sums` are [`payload_sums`]'s.
    pub fn encode_prefix(volume: &Uuid, head: &RecordHead, body: &[u8], sums: &[u64]) -> Vec<u8> {
        let mut e = Encoder::after(Vec::with_capacity(head.prefix_len() as usize));
        Self::encode_prefix_into(&mut e, volume, head, body, sums);
        e.finish()
    }

    /// Writes the fields before the payload.
    pub fn encode_prefix_into(e: &mut Encoder, volume: &Uuid, head: &RecordHead, body: &[u8], sums: &[u64]) {
        e.bytes("magic", RecordHead::MAGIC);
        e.u32("owed", head.owed);
        e.u64("lsn", head.lsn.0);
        e.u64("segment", head.segment);
        e.u64("synced", head.synced.0);
        e.u32("body_len", head.body_len);
        e.u32("payload_len", head.payload_len);
        e.u64("checksum", 0);
        e.u64("request", head.answer.request);
        e.u64("answer", head.answer.value);
        e.bytes("body", body);
        for sum in sums {
            e.u64("payload_sum", *sum);
        }
        let sum = Self::sum(volume, head.lsn, e.written());
        e.patch_u64(RECORD_SUM_AT, sum);
    }

    /// Checks and decodes the bytes before the payload, which must be as many as the head says.
    pub fn decode_prefix(volume: &Uuid, bytes: &[u8]) -> Result<Record, FormatError> {
        let head = RecordHead::peek(bytes)?;
        let mut d = Decoder::new(RECORD, bytes);
        let prefix = d.bytes("body", usize::try_from(head.prefix_len()).unwrap_or(usize::MAX))?;
        let stored = d_u64(&prefix[RECORD_SUM_AT..]);
        if Self::sum(volume, head.lsn, prefix) != stored {
            return Err(FormatError::BadChecksum { what: RECORD });
        }
        if !head.lsn.is_of_a_record() {
            return Err(d.bad("lsn", head.lsn.0));
        }
        d.within("segment", head.segment, 0..=NUMBER_MAX)?;
        let (body, sums) = prefix[RECORD_HEAD_LEN..].split_at(head.body_len as usize);
        let mutations = Mutation::decode_all(body)?;
        for mutation in &mutations {
            if let Mutation::Data { len, payload_offset, .. } = mutation {
                d.within(
                    "payload_offset",
                    u64::from(*payload_offset) + u64::from(*len),
                    0..=head.payload_len.into(),
                )?;
            }
        }
        Ok(Record { head, mutations, sums: sums.chunks_exact(8).map(d_u64).collect() })
    }

    fn sum(volume: &Uuid, lsn: Lsn, prefix: &[u8]) -> u64 {
        let after = RECORD_SUM_AT + 8;
        Seal::new(Domain::Record, &volume.0, lsn.0).sum_parts(&[&prefix[..RECORD_SUM_AT], &prefix[after..]])
    }
}

fn d_u64(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}

/// The checksums of a payload, one for each 4 KiB. The record's own checksum binds them to its LSN.
pub fn payload_sums(volume: &Uuid, payload: &[u8]) -> Vec<u64> {
    payload
        .chunks(PAYLOAD_BLOCK)
        .enumerate()
        .map(|(i, block)| Seal::new(Domain::Payload, &volume.0, i as u64).sum(block))
        .collect()
}

/// One change. Applying a record's mutations twice leaves what applying them once does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// A key has this value.
    Put {
        /// A namespace key, see [`crate::key`].
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// A key has no value.
    Delete {
        /// A namespace key.
        key: Vec<u8>,
    },
    /// A run of a file's bytes lies in this record's payload.
    Data {
        /// The file's view.
        view: View,
        /// The file.
        ino: Ino,
        /// The run's offset in the file.
        offset: u64,
        /// Its length.
        len: u32,
        /// Where it begins in the payload.
        payload_offset: u32,
    },
    /// A run of a file is a hole: everything that lay there is gone.
    Hole {
        /// The file's view.
        view: View,
        /// The file.
        ino: Ino,
        /// The run's offset in the file.
        offset: u64,
        /// Its length; offset and length may reach to 2^64 - 1 for "all that follows".
        len: u64,
    },
    /// A run of a file is made of these pieces: what a fold found for it.
    Map {
        /// The file's view.
        view: View,
        /// The file.
        ino: Ino,
        /// The run's offset in the file.
        offset: u64,
        /// The pieces, one after another.
        pieces: Vec<Piece>,
    },
    /// The first record of an epoch: all records after `continues` and before this one never were.
    Epoch {
        /// The last record that counts before this one.
        continues: Lsn,
    },
    /// A checkpoint is synced: replay may begin there.
    Checkpoint {
        /// The checkpoint.
        at: CheckpointRef,
        /// The lowest LSN that its state names or that comes after it.
        floor: Lsn,
    },
}

impl Mutation {
    /// Writes a record's body.
    pub fn encode_all(mutations: &[Mutation]) -> Vec<u8> {
        let mut e = Encoder::new();
        for mutation in mutations {
            mutation.encode_into(&mut e);
        }
        e.finish()
    }

    /// Writes one mutation's fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        match self {
            Mutation::Put { key, value } => {
                e.u8("tag", 1);
                e.u16("key_len", key.len() as u16);
                e.u32("value_len", value.len() as u32);
                e.bytes("key", key);
                e.bytes("value", value);
            }
            Mutation::Delete { key } => {
                e.u8("tag", 2);
                e.u16("key_len", key.len() as u16);
                e.bytes("key", key);
            }
            Mutation::Data { view, ino, offset, len, payload_offset } => {
                run(e, 3, *view, *ino, *offset);
                e.u32("len", *len);
                e.u32("payload_offset", *payload_offset);
            }
            Mutation::Hole { view, ino, offset, len } => {
                run(e, 4, *view, *ino, *offset);
                e.u64("len", *len);
            }
            Mutation::Map { view, ino, offset, pieces } => {
                run(e, 5, *view, *ino, *offset);
                encode_pieces_into(e, pieces);
            }
            Mutation::Epoch { continues } => {
                e.u8("tag", 6);
                e.u64("continues", continues.0);
            }
            Mutation::Checkpoint { at, floor } => {
                e.u8("tag", 7);
                at.encode(e);
                e.u64("floor", floor.0);
            }
        }
    }

    /// Decodes a record's body.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Mutation>, FormatError> {
        let mut d = Decoder::new(RECORD, body);
        let mut mutations = Vec::new();
        while d.left() > 0 {
            mutations.push(Self::decode(&mut d)?);
        }
        Ok(mutations)
    }

    fn decode(d: &mut Decoder<'_>) -> Result<Mutation, FormatError> {
        Ok(match d.u8("tag")? {
            1 => {
                let key_len = d.u16("key_len")?.into();
                let value_len = d.u32("value_len")? as usize;
                Mutation::Put {
                    key: d.bytes("key", key_len)?.to_vec(),
                    value: d.bytes("value", value_len)?.to_vec(),
                }
            }
            2 => {
                let key_len = d.u16("key_len")?.into();
                Mutation::Delete { key: d.bytes("key", key_len)?.to_vec() }
            }
            3 => {
                let (view, ino, offset) = take_run(d)?;
                let len = d.u32("len")?;
                ends(d, offset, len.into(), FILE_MAX)?;
                let payload_offset = d.u32("payload_offset")?;
                if payload_offset.checked_add(len).is_none() {
                    return Err(d.bad("payload_offset", payload_offset.into()));
                }
                Mutation::Data { view, ino, offset, len, payload_offset }
            }
            4 => {
                let (view, ino, offset) = take_run(d)?;
                let len = d.u64("len")?;
                ends(d, offset, len, u64::MAX)?;
                Mutation::Hole { view, ino, offset, len }
            }
            5 => {
                let (view, ino, offset) = take_run(d)?;
                let pieces = decode_pieces_from(d)?;
                let len = pieces.iter().map(|p| u64::from(p.len)).sum();
                d.within("len", len, 1..=MAP_MAX)?;
                ends(d, offset, len, FILE_MAX)?;
                Mutation::Map { view, ino, offset, pieces }
            }
            6 => Mutation::Epoch { continues: Lsn(d.u64("continues")?) },
            7 => Mutation::Checkpoint { at: CheckpointRef::decode(d)?, floor: Lsn(d.u64("floor")?) },
            other => return Err(d.bad("tag", other.into())),
        })
    }
}

fn run(e: &mut Encoder, tag: u8, view: View, ino: Ino, offset: u64) {
    e.u8("tag", tag);
    e.u16("view", view.0);
    e.u64("ino", ino.0);
    e.u64("offset", offset);
}

fn take_run(d: &mut Decoder<'_>) -> Result<(View, Ino, u64), FormatError> {
    let (view, ino) = (View(d.u16("view")?), d.u64("ino")?);
    d.within("ino", ino, 1..=Ino::MAX.0)?;
    Ok((view, Ino(ino), d.u64("offset")?))
}

/// That a run does not pass `most`.
fn ends(d: &Decoder<'_>, offset: u64, len: u64, most: u64) -> Result<(), FormatError> {
    match offset.checked_add(len) {
        Some(end) if len > 0 && end <= most => Ok(()),
        _ => Err(d.bad("len", len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_begin_where_the_magic_is_aligned_and_has_all_of_a_place() {
        let mut bytes = vec![b'C'; 76];
        for at in [0, 13, 20, 40, 64, 72] {
            bytes[at..at + 4].copy_from_slice(RecordHead::MAGIC);
        }
        // A head is longer than the four bytes behind 72.
        assert_eq!(RecordHead::candidates(&bytes).collect::<Vec<_>>(), [0, 40, 64]);
        assert_eq!(RecordHead::candidates(b"CREC").count(), 0);
    }
}
