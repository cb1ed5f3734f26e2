//! What protects the bytes of a file: one stripe of parity over all of them, and a checksum for each sector.
//!
//! The file is cut into K units of one length, the last of which may end early or be missing; M parity units of that length are
//! computed over them. A column is the same byte of every unit: as long as no more than M units have lost a column, it comes
//! back. Units are as long as they can be, so that what is lost in one run lies in as few units as possible: any run of M
//! units comes back.
//!
//! Parity says nothing of where the damage is. The checksums do: one for each 4 KiB of the file, in a table whose blocks are
//! checked by themselves.

use std::ops::Range;

use crate::superblock::ParityGeometry;
use crate::wire::Encoder;
use crate::{Domain, Seal};

/// Bytes that have a checksum of their own; what a disk loses at a time is not longer.
pub const SECTOR: u64 = 4096;
/// Units are multiples of this, so that vectors of bytes do not straddle them.
const UNIT_GRAIN: u64 = 64;
/// Sectors' checksums in a block of the table, which with the block's own fill a sector.
const SUMS_PER_BLOCK: usize = SECTOR as usize / 8 - 1;

/// K data units over the first bytes of a file, and M parity units of the same length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stripe {
    geometry: ParityGeometry,
    covered: u64,
    unit: u64,
}

impl Stripe {
    /// Over the first `covered` bytes of a file; `geometry` has at least one data unit.
    pub fn new(geometry: ParityGeometry, covered: u64) -> Stripe {
        let even = covered.div_ceil(u64::from(geometry.data.max(1)));
        // Never shorter than a sector, or one that is lost would be missing in a column twice.
        let unit = even.next_multiple_of(UNIT_GRAIN).max(SECTOR);
        Stripe { geometry, covered, unit }
    }

    /// The same in units of whole sectors, so that a sector lies in one unit.
    pub fn of_sectors(geometry: ParityGeometry, covered: u64) -> Stripe {
        let even = covered.div_ceil(u64::from(geometry.data.max(1)));
        Stripe { geometry, covered, unit: even.next_multiple_of(SECTOR).max(SECTOR) }
    }

    /// K and M.
    pub fn geometry(&self) -> ParityGeometry {
        self.geometry
    }

    /// Bytes of the file that parity was computed over, from its first on.
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// Bytes of a unit.
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// How many data units hold bytes; the others are zeros.
    pub fn filled(&self) -> usize {
        self.covered.div_ceil(self.unit) as usize
    }

    /// Where a data unit lies in the file; what it lacks of a unit's length are zeros.
    pub fn data_unit(&self, number: usize) -> Range<u64> {
        let start = (number as u64 * self.unit).min(self.covered);
        start..(start + self.unit).min(self.covered)
    }

    /// Bytes of all parity units.
    pub fn parity_len(&self) -> u64 {
        self.unit * u64::from(self.geometry.parity)
    }
}

/// The checksum of a sector of `owner`: of those of its bytes that the file's table speaks for.
pub fn sector_sum(owner: &[u8; 16], number: u64, bytes: &[u8]) -> u64 {
    Seal::new(Domain::Sector, owner, number).sum(bytes)
}

/// A table of sectors' checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SumTable<'a> {
    /// Whose sectors they are.
    pub owner: &'a [u8; 16],
    /// The number of the first of them.
    pub first: u64,
}

impl SumTable<'_> {
    /// Bytes of a table of so many sectors.
    pub fn len_of(sectors: u64) -> u64 {
        8 * (sectors + sectors.div_ceil(SUMS_PER_BLOCK as u64))
    }

    /// The table's bytes: blocks of checksums, each with one of its own.
    pub fn encode(&self, sums: &[u64]) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e, sums);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder, sums: &[u64]) {
        for (number, block) in sums.chunks(SUMS_PER_BLOCK).enumerate() {
            self.encode_block_into(e, number, block);
        }
    }

    /// The bytes of one block, by its number.
    pub fn encode_block(&self, number: usize, sums: &[u64]) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_block_into(&mut e, number, sums);
        e.finish()
    }

    fn encode_block_into(&self, e: &mut Encoder, number: usize, sums: &[u64]) {
        let before = e.len();
        sums.iter().for_each(|sum| e.u64("sum", *sum));
        let sum = self.seal(number).sum(&e.written()[before..]);
        e.u64("block_sum", sum);
    }

    /// The block that speaks for a sector, counted from the table's first, and which of the block's sums is the sector's.
    pub fn block_of(sector: u64) -> (usize, usize) {
        (sector as usize / SUMS_PER_BLOCK, sector as usize % SUMS_PER_BLOCK)
    }

    /// Where a block lies in a table of so many sectors.
    pub fn block(sectors: u64, number: usize) -> Range<u64> {
        let start = (number as u64 * SECTOR).min(Self::len_of(sectors));
        start..(start + SECTOR).min(Self::len_of(sectors))
    }

    /// The checksums of one block, by its number; none where it does not match its own.
    pub fn decode_block(&self, number: usize, bytes: &[u8]) -> Option<Vec<u64>> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        if body.is_empty()
            || !body.len().is_multiple_of(8)
            || self.seal(number).sum(body) != u64::from_le_bytes(*sum)
        {
            return None;
        }
        Some(body.chunks_exact(8).filter_map(|sum| Some(u64::from_le_bytes(sum.try_into().ok()?))).collect())
    }

    fn seal(&self, block: usize) -> Seal {
        // Tables of one file begin at different sectors.
        Seal::new(Domain::Sums, self.owner, self.first + (block * SUMS_PER_BLOCK) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: ParityGeometry = ParityGeometry { data: 16, parity: 2 };

    #[test]
    fn units_cover_every_byte_once_and_none_is_shorter_than_a_sector() {
        for covered in [1, 63, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20, (64 << 20) + 17] {
            let stripe = Stripe::new(WIDE, covered);
            let mut next = 0;
            for number in 0..stripe.filled() {
                let unit = stripe.data_unit(number);
                assert_eq!(unit.start, next);
                assert!(!unit.is_empty());
                next = unit.end;
            }
            assert_eq!(next, covered);
            assert!(stripe.filled() <= 16 && stripe.unit() >= SECTOR);
            assert!(stripe.data_unit(16).is_empty(), "nothing lies behind the last unit");
        }
    }

    #[test]
    fn what_parity_takes_does_not_depend_on_the_length() {
        for covered in [1 << 20, 3 << 20, 64 << 20, 1 << 30] {
            let share = Stripe::new(WIDE, covered).parity_len() as f64 / covered as f64;
            assert!((0.125..0.1252).contains(&share), "{share} of {covered}");
        }
    }

    #[test]
    fn a_block_that_is_not_whole_says_nothing_and_the_others_speak_still() {
        let table = SumTable { owner: &[7; 16], first: 3 };
        let sums: Vec<u64> = (0..1_200).map(|n| n * n).collect();
        let mut bytes = table.encode(&sums);
        assert_eq!(bytes.len() as u64, SumTable::len_of(1_200));
        bytes[5_000] ^= 1;
        let block = |number| {
            let at = SumTable::block(1_200, number);
            table.decode_block(number, &bytes[at.start as usize..at.end as usize])
        };
        assert_eq!(
            [block(0), block(1), block(2)],
            [Some(sums[..511].to_vec()), None, Some(sums[1_022..].to_vec())]
        );
        assert_eq!(block(3), None, "there is none");
        assert_eq!((SumTable::block_of(510), SumTable::block_of(511)), ((0, 510), (1, 0)));
        let elsewhere = SumTable { first: 4, ..table };
        assert_eq!(elsewhere.decode_block(0, &bytes[..4096]), None);
    }
}
