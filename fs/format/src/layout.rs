//! Where the parts of a pack lie.

use std::ops::Range;

use crate::pack::{PACK_HEADER_LEN, PACK_LEN_MAX, TRAILER_LEN};
use crate::parity::{SECTOR, Stripe, SumTable};
use crate::superblock::ParityGeometry;
use crate::wire::{Decoder, FormatError};

/// The longest copy of a footer. A fold ends a pack before its chunks need half of it.
const FOOTER_MAX: u32 = 64 << 20;
/// What stands before the parity: the trailer's bytes, and zeros.
const PARITY_HEAD_LEN: u64 = 64;

/// Where the parts of a pack lie. Everything follows from where the footer is, how long it is, and the geometry:
///
/// ```text
/// header, frames, footer, sums | zeros to a sector | trailer, zeros, parity | sums of parity, sums, footer, trailer
/// '---- what parity covers ---'
/// ```
///
/// Without parity there is nothing between the two footers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackLayout {
    /// Where the first copy of the footer begins: behind the last frame.
    pub footer_offset: u64,
    /// Bytes of one copy of the footer.
    pub footer_len: u32,
    /// The parity it carries.
    pub parity: ParityGeometry,
}

impl PackLayout {
    /// From what a header or a trailer says, if a pack can be like that.
    pub(crate) fn decode(
        footer_offset: u64,
        footer_len: u32,
        d: &mut Decoder<'_>,
    ) -> Result<PackLayout, FormatError> {
        let parity = ParityGeometry::decode(d)?;
        d.within("footer_offset", footer_offset, PACK_HEADER_LEN as u64..=PACK_LEN_MAX)?;
        d.within("footer_len", footer_len.into(), 0..=FOOTER_MAX.into())?;
        let layout = PackLayout { footer_offset, footer_len, parity };
        // No sum above overflows: M is at most 64, and both lengths were found to be sane.
        d.within("footer_offset", layout.file_len(), 0..=PACK_LEN_MAX)?;
        Ok(layout)
    }

    /// Where the first footer ends: what lies before has checksums in `sums`.
    pub fn described(&self) -> u64 {
        self.footer_offset + u64::from(self.footer_len)
    }

    /// Sectors of what is described; the last may be short.
    pub fn sectors(&self) -> u64 {
        self.described().div_ceil(SECTOR)
    }

    /// The stripe, where there is parity.
    pub fn stripe(&self) -> Option<Stripe> {
        (!self.parity.is_none())
            .then(|| Stripe::new(self.parity, self.described() + SumTable::len_of(self.sectors())))
    }

    /// The first copy of the sectors' checksums.
    pub fn sums(&self) -> Range<u64> {
        let len = self.stripe().map_or(0, |_| SumTable::len_of(self.sectors()));
        self.described()..self.described() + len
    }

    /// Zeros between what parity covers and the next sector.
    pub fn padding(&self) -> Range<u64> {
        self.sums().end..self.parity_area().start
    }

    /// The trailer's copy before the parity, the zeros behind it, and the parity: whole sectors but the last, with
    /// checksums in `parity_sums`.
    pub fn parity_area(&self) -> Range<u64> {
        match self.stripe() {
            Some(stripe) => {
                let start = stripe.covered().next_multiple_of(SECTOR);
                start..start + PARITY_HEAD_LEN + stripe.parity_len()
            }
            None => self.described()..self.described(),
        }
    }

    /// One parity unit.
    pub fn parity_unit(&self, number: usize) -> Range<u64> {
        let unit = self.stripe().map_or(0, |stripe| stripe.unit());
        let start = self.parity_area().start + PARITY_HEAD_LEN + number as u64 * unit;
        start..start + unit
    }

    /// Sectors of the parity area; the last may be short.
    pub fn parity_sectors(&self) -> u64 {
        let area = self.parity_area();
        (area.end - area.start).div_ceil(SECTOR)
    }

    /// The checksums of the parity area's sectors.
    pub fn parity_sums(&self) -> Range<u64> {
        let start = self.parity_area().end;
        start..start + SumTable::len_of(self.parity_sectors())
    }

    /// The second copy of the sectors' checksums.
    pub fn second_sums(&self) -> Range<u64> {
        let (start, first) = (self.parity_sums().end, self.sums());
        start..start + (first.end - first.start)
    }

    /// The first copy of the footer.
    pub fn footer(&self) -> Range<u64> {
        self.footer_offset..self.described()
    }

    /// The second copy of the footer.
    pub fn second_footer(&self) -> Range<u64> {
        let start = self.second_sums().end;
        start..start + u64::from(self.footer_len)
    }

    /// Bytes of the whole pack.
    pub fn file_len(&self) -> u64 {
        self.second_footer().end + TRAILER_LEN as u64
    }

    /// The bytes of a sector that have a checksum: of what is described, or of the parity area.
    pub fn sector(&self, number: u64) -> Range<u64> {
        let area = self.parity_area();
        let start = number * SECTOR;
        let end = if start < area.start { self.described() } else { area.end };
        start..(start + SECTOR).min(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_parity_begins_at_a_sector() {
        for parity in [ParityGeometry::new(16, 2), ParityGeometry::new(1, 3), ParityGeometry::default()] {
            for footer_offset in [256, 4_000, 4_096, 70_000, 64 << 20] {
                let layout = PackLayout { footer_offset, footer_len: 333, parity };
                let (sums, area) = (layout.sums(), layout.parity_area());
                assert_eq!(sums.start, footer_offset + 333);
                assert!(area.start - sums.end < SECTOR);
                if !parity.is_none() {
                    assert!(area.start.is_multiple_of(SECTOR));
                    assert_eq!(layout.stripe().unwrap().covered(), sums.end);
                    assert_eq!(layout.parity_unit(parity.parity as usize - 1).end, area.end);
                }
                assert_eq!(layout.parity_sums().start, area.end);
                assert_eq!(layout.second_footer().end + 32, layout.file_len());
                assert_eq!(layout.sector(layout.sectors() - 1).end, layout.described());
            }
        }
    }

    #[test]
    fn sixteen_and_two_add_less_than_thirteen_percent_to_what_is_longer_than_four_mebibytes() {
        for bytes in [4 << 20, 64 << 20, 1 << 30] {
            let layout = |parity| PackLayout { footer_offset: bytes, footer_len: 40_000, parity }.file_len();
            let (with, without) = (layout(ParityGeometry::new(16, 2)), layout(ParityGeometry::default()));
            assert!((with - without) as f64 / (without as f64) < 0.13, "{with} {without}");
        }
    }
}
