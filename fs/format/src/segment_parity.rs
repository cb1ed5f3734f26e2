//! What protects a segment of the journal that is closed: a file beside it with the checksums of its sectors, and parity.

use std::ops::Range;

use crate::journal::SEGMENT_DATA_START;
use crate::parity::{SECTOR, Stripe, SumTable};
use crate::superblock::ParityGeometry;
use crate::wire::{Decoder, Encoder, FormatError};
use crate::{Domain, FORMAT_VERSION, Lsn, Seal, Uuid};

/// The length of the header. One copy stands at the file's start, one at its end.
pub const SEGMENT_PARITY_HEADER_LEN: usize = SECTOR as usize;

const WHAT: &str = "segment parity header";

/// What the parity of a closed segment says of itself. Where its parts lie follows from it:
///
/// ```text
/// header | sums, sums of parity, zeros to a sector | parity unit 0 ... M-1 | sums, sums of parity, zeros | header
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentParity {
    /// The volume whose journal it is.
    pub volume: Uuid,
    /// The segment's number: a file that was used again since has another.
    pub number: u64,
    /// The segment's first record.
    pub first: Lsn,
    /// Its last. This and all before were synced when the file was made.
    pub last: Lsn,
    /// Bytes of the segment that are protected: up to the end of its last record.
    pub covered: u32,
    /// The segment's length.
    pub segment_len: u32,
    /// K and M.
    pub parity: ParityGeometry,
}

impl SegmentParity {
    const MAGIC: &[u8; 8] = b"CAIRNPAR";

    /// One copy of the header.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the header's fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.u32("covered", self.covered);
        e.bytes("volume", &self.volume.0);
        e.u64("number", self.number);
        e.u64("first", self.first.0);
        e.u64("last", self.last.0);
        e.u32("segment_size", self.segment_len);
        e.u8("parity_data", self.parity.data);
        e.u8("parity_extra", self.parity.parity);
        e.zeros_to("zeros", SEGMENT_PARITY_HEADER_LEN - 8);
        let sum = Self::seal(&self.volume).sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes one copy of a header.
    pub fn decode(bytes: &[u8], volume: &Uuid) -> Result<Self, FormatError> {
        let mut d = Decoder::new(WHAT, bytes);
        d.magic(Self::MAGIC)?;
        d.version()?;
        let whole = bytes.get(..SEGMENT_PARITY_HEADER_LEN).and_then(|bytes| bytes.split_last_chunk::<8>());
        match whole {
            Some((body, sum)) if Self::seal(volume).sum(body) == u64::from_le_bytes(*sum) => {}
            _ => return Err(FormatError::BadChecksum { what: WHAT }),
        }
        let covered = d.u32("covered")?;
        let header = SegmentParity {
            covered,
            volume: Uuid(d.array("volume")?),
            number: d.u64("number")?,
            first: Lsn(d.u64("first")?),
            last: Lsn(d.u64("last")?),
            segment_len: d.u32("segment_size")?,
            parity: ParityGeometry::decode(&mut d)?,
        };
        if header.parity.is_none() {
            return Err(d.bad("parity_extra", 0));
        }
        d.within("covered", covered.into(), u64::from(SEGMENT_DATA_START)..=header.segment_len.into())?;
        d.within("last", header.last.0, header.first.0..=u64::MAX)?;
        Ok(header)
    }

    fn seal(volume: &Uuid) -> Seal {
        Seal::new(Domain::SegmentParity, &volume.0, 0)
    }

    /// The stripe over the segment's bytes.
    pub fn stripe(&self) -> Stripe {
        Stripe::of_sectors(self.parity, self.covered.into())
    }

    /// Whose the checksums of the sectors are: the first half of the volume's UUID, and the segment's number.
    pub fn owner(&self) -> [u8; 16] {
        let mut owner = self.volume.0;
        owner[8..].copy_from_slice(&self.number.to_le_bytes());
        owner
    }

    /// Sectors of the segment that are protected; the last may be short. Those of the parity are counted on from there.
    pub fn sectors(&self) -> u64 {
        u64::from(self.covered).div_ceil(SECTOR)
    }

    /// Sectors of the parity.
    pub fn parity_sectors(&self) -> u64 {
        self.stripe().parity_len() / SECTOR
    }

    /// Bytes of one copy of the tables.
    fn tables_len(&self) -> u64 {
        let tables = SumTable::len_of(self.sectors()) + SumTable::len_of(self.parity_sectors());
        tables.next_multiple_of(SECTOR)
    }

    /// Where both copies of the table of the segment's sectors lie.
    pub fn sums(&self) -> [Range<u64>; 2] {
        let len = SumTable::len_of(self.sectors());
        [SECTOR, self.parity_end()].map(|start| start..start + len)
    }

    /// Where both copies of the table of the parity's sectors lie.
    pub fn parity_sums(&self) -> [Range<u64>; 2] {
        let len = SumTable::len_of(self.parity_sectors());
        self.sums().map(|sums| sums.end..sums.end + len)
    }

    /// Where a parity unit begins.
    pub fn parity_unit(&self, number: usize) -> u64 {
        SECTOR + self.tables_len() + number as u64 * self.stripe().unit()
    }

    fn parity_end(&self) -> u64 {
        self.parity_unit(self.parity.parity.into())
    }

    /// Where the second copy of the header begins.
    pub fn second_header(&self) -> u64 {
        self.parity_end() + self.tables_len()
    }

    /// Bytes of the file.
    pub fn file_len(&self) -> u64 {
        self.second_header() + SEGMENT_PARITY_HEADER_LEN as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_every_unit_is_made_of_whole_sectors() {
        for covered in [8_200, 65_536, 65_535, 16 << 20, (16 << 20) - 5] {
            for parity in
                [ParityGeometry::new(16, 4), ParityGeometry::new(1, 4), ParityGeometry::new(128, 64)]
            {
                let header = SegmentParity {
                    volume: Uuid([7; 16]),
                    number: 3,
                    first: Lsn::first_of(2),
                    last: Lsn::first_of(2),
                    covered,
                    segment_len: 16 << 20,
                    parity,
                };
                let (stripe, [sums, second]) = (header.stripe(), header.sums());
                assert!(stripe.unit().is_multiple_of(SECTOR) && stripe.filled() <= parity.data.into());
                assert_eq!(stripe.covered(), covered.into());
                assert_eq!(sums.end - sums.start, second.end - second.start);
                assert!(header.parity_sums()[0].end <= header.parity_unit(0));
                assert!(header.parity_sums()[1].end <= header.second_header());
                assert!(header.second_header().is_multiple_of(SECTOR));
                assert_eq!(header.parity_unit(0) + stripe.parity_len(), second.start);
                assert_eq!(SegmentParity::decode(&header.encode(), &header.volume).expect("whole"), header);
                assert!(SegmentParity::decode(&header.encode(), &Uuid([8; 16])).is_err());
            }
        }
    }
}
