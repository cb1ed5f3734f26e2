//! The damages that a drill does: each the way a disk does it, and whether the volume's guarantee covers it.

use std::io;
use std::ops::Range;

use cairn_format::{PACK_HEADER_LEN, PackLayout, SECTOR, TRAILER_LEN};
use cairn_store::disk::DiskFile;

use super::dice::Dice;
use super::edit::{Edit, sector};
use crate::parity::longest_hole;

/// Bytes of a write that was lost, at most: a frame's.
const LOST_WRITE: u64 = 256 << 10;
/// Places that bits are flipped at, in each of some sectors.
const FLIPS: u64 = 200;

/// A way in which a pack is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damage {
    /// One bit of the file.
    BitFlip,
    /// Many bits of as many sectors as may go bad.
    ManyFlips,
    /// A sector of zeros.
    ZeroedSector,
    /// As many sectors of other bytes as may go bad.
    GarbageSectors,
    /// Two sectors, each in the other's place.
    SwappedSectors,
    /// A write that never came to the disk: what was there before.
    LostWrite,
    /// A sector that was written to another's place.
    MisdirectedWrite,
    /// Zeros from somewhere in the parity on.
    TornPack,
    /// The file ends somewhere in its parity, or behind it.
    ShortPack,
    /// A mebibyte of zeros.
    MebibyteHole,
    /// The longest hole that is promised to come back.
    LongestHole,
    /// The sector with the header.
    Header,
    /// The first copy of the footer.
    Footer,
    /// The second copy of the footer, and the trailer behind it.
    TrailerAndFooter,
    /// Header and trailer.
    HeaderAndTrailer,
    /// The first table of the sectors' checksums.
    Sums,
    /// The second table of the sectors' checksums.
    SecondSums,
    /// The checksums of the parity.
    ParitySums,
    /// Sectors whose reading is an error until they are written.
    UnreadableSectors,
    /// A sector that cannot be read, and takes no writes.
    DeadSector,
    /// A file of no bytes.
    EmptyPack,
    /// No file.
    MissingPack,
}

/// What a damage does to a pack, and what the guarantee says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// One behind another.
    pub edits: Vec<Edit>,
    /// Whether it is promised to be mended; else only that no other bytes are returned, and that the loss is told.
    pub promised: bool,
}

impl Damage {
    /// All of them.
    pub const ALL: [Damage; 22] = [
        Damage::BitFlip,
        Damage::ManyFlips,
        Damage::ZeroedSector,
        Damage::GarbageSectors,
        Damage::SwappedSectors,
        Damage::LostWrite,
        Damage::MisdirectedWrite,
        Damage::TornPack,
        Damage::ShortPack,
        Damage::MebibyteHole,
        Damage::LongestHole,
        Damage::Header,
        Damage::Footer,
        Damage::TrailerAndFooter,
        Damage::HeaderAndTrailer,
        Damage::Sums,
        Damage::SecondSums,
        Damage::ParitySums,
        Damage::UnreadableSectors,
        Damage::DeadSector,
        Damage::EmptyPack,
        Damage::MissingPack,
    ];

    /// A word that stays, for scripts, and what it is, for people.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Damage::BitFlip => ("bit-flip", "a bit flipped"),
            Damage::ManyFlips => ("many-flips", "many bits flipped"),
            Damage::ZeroedSector => ("zeroed-sector", "a sector zeroed"),
            Damage::GarbageSectors => ("garbage-sectors", "sectors overwritten"),
            Damage::SwappedSectors => ("swapped-sectors", "two sectors swapped"),
            Damage::LostWrite => ("lost-write", "a write lost"),
            Damage::MisdirectedWrite => ("misdirected-write", "a write misdirected"),
            Damage::TornPack => ("torn-pack", "torn in its parity"),
            Damage::ShortPack => ("short-pack", "cut short in its parity"),
            Damage::MebibyteHole => ("mebibyte-hole", "a hole of 1 MiB"),
            Damage::LongestHole => ("longest-hole", "the longest hole promised"),
            Damage::Header => ("header", "header gone"),
            Damage::Footer => ("footer", "footer gone"),
            Damage::TrailerAndFooter => ("trailer-and-footer", "second footer, trailer gone"),
            Damage::HeaderAndTrailer => ("header-and-trailer", "header and trailer gone"),
            Damage::Sums => ("sums", "checksums gone"),
            Damage::SecondSums => ("second-sums", "checksums' copy gone"),
            Damage::ParitySums => ("parity-sums", "parity's checksums gone"),
            Damage::UnreadableSectors => ("unreadable-sectors", "sectors unreadable"),
            Damage::DeadSector => ("dead-sector", "a sector dead for good"),
            Damage::EmptyPack => ("empty-pack", "emptied"),
            Damage::MissingPack => ("missing-pack", "missing"),
        }
    }

    /// What it does to a pack that lies like this in `file`, chosen by `dice`; none where the pack has no such part.
    pub fn plan(
        self,
        layout: &PackLayout,
        file: &dyn DiskFile,
        dice: &mut Dice,
    ) -> io::Result<Option<Planned>> {
        let pack = Pack { layout, len: layout.file_len() };
        let planned = match self {
            Damage::SwappedSectors | Damage::MisdirectedWrite => {
                let others = pack.moved(self == Damage::SwappedSectors, file, dice)?;
                others.map(|edits| pack.of_sectors(2, edits))
            }
            _ => pack.plan(self, dice),
        };
        let planned = planned.filter(|planned| !planned.edits.is_empty());
        Ok(planned.map(|planned| Planned {
            promised: planned.promised && leads_there(layout, &planned.edits),
            ..planned
        }))
    }
}

/// Whether something is left that says where the pack's parts lie: its header, its trailer, or the copy of that before the
/// parity. Parity may reach further than that, and is no use then.
pub fn leads_there(layout: &PackLayout, edits: &[Edit]) -> bool {
    let (len, copy) = (layout.file_len(), layout.parity_area().start);
    let trailer = TRAILER_LEN as u64;
    let places = [0..PACK_HEADER_LEN as u64, copy..copy + trailer, len - trailer..len];
    places.into_iter().any(|place| {
        let hit = |edit: &Edit| {
            let range = edit.range(len);
            range.start < place.end && place.start < range.end
        };
        !edits.iter().any(hit)
    })
}

/// The pack that is to be damaged.
struct Pack<'a> {
    layout: &'a PackLayout,
    len: u64,
}

impl Pack<'_> {
    fn plan(&self, damage: Damage, dice: &mut Dice) -> Option<Planned> {
        let zeros = |range: Range<u64>| vec![Edit::Zeros(range)];
        let layout = self.layout;
        let trailer = layout.second_footer().end..self.len;
        Some(match damage {
            Damage::BitFlip => self.of_sectors(1, vec![self.flip(0..self.len, dice)]),
            Damage::ManyFlips => {
                let sectors = self.sectors(self.bad_sectors(), dice);
                let flips = |range: Range<u64>| -> Vec<Edit> {
                    let places = dice.some_below(range.end - range.start, FLIPS).into_iter();
                    places.map(|at| Edit::Flip { at: range.start + at, bit: at as u8 % 8 }).collect()
                };
                self.of_sectors(self.bad_sectors(), sectors.into_iter().flat_map(flips).collect())
            }
            Damage::ZeroedSector => {
                self.of_sectors(1, self.sectors(1, dice).into_iter().map(Edit::Zeros).collect())
            }
            Damage::GarbageSectors => {
                let sectors = self.sectors(self.bad_sectors(), dice);
                self.of_sectors(self.bad_sectors(), sectors.into_iter().map(Edit::Garbage).collect())
            }
            Damage::LostWrite => self.hole(LOST_WRITE.min(self.hole_len()), dice),
            Damage::MebibyteHole => self.hole((1 << 20).min(self.len), dice),
            Damage::LongestHole => self.hole(self.hole_len(), dice),
            Damage::TornPack => self.tail(zeros(self.behind_data(dice)..self.len)),
            Damage::ShortPack => self.tail(vec![Edit::Cut(self.behind_data(dice))]),
            Damage::Header => self.of_sectors(1, zeros(sector(0, self.len))),
            Damage::Footer => self.run(layout.footer()),
            Damage::TrailerAndFooter => self.tail(zeros(layout.second_footer().start..self.len)),
            Damage::HeaderAndTrailer => {
                // What stands before the parity tells where all is, and there has to be some.
                self.of_sectors(1, vec![Edit::Zeros(sector(0, self.len)), Edit::Zeros(trailer)])
            }
            Damage::Sums if !layout.sums().is_empty() => self.run(layout.sums()),
            Damage::SecondSums if !layout.second_sums().is_empty() => self.tail(zeros(layout.second_sums())),
            Damage::ParitySums if !layout.parity_sums().is_empty() => self.tail(zeros(layout.parity_sums())),
            Damage::UnreadableSectors => {
                let edit = |range| Edit::Unreadable { range, stays: false };
                let sectors = self.sectors(self.bad_sectors(), dice);
                self.of_sectors(self.bad_sectors(), sectors.into_iter().map(edit).collect())
            }
            Damage::DeadSector => {
                let edit = |range| Edit::Unreadable { range, stays: true };
                self.of_sectors(1, self.sectors(1, dice).into_iter().map(edit).collect())
            }
            Damage::EmptyPack => Planned { edits: vec![Edit::Cut(0)], promised: false },
            Damage::MissingPack => Planned { edits: vec![Edit::Remove], promised: false },
            _ => return None,
        })
    }

    fn parity_units(&self) -> u64 {
        self.layout.parity.parity.into()
    }

    /// How many bad sectors are promised to be survived; one where nothing is, so that there is something to see.
    fn bad_sectors(&self) -> u64 {
        self.parity_units().max(1)
    }

    /// The longest hole that is promised to come back; a sector where none is.
    fn hole_len(&self) -> u64 {
        promised_hole(self.layout).max(1).min(self.len)
    }

    /// Any sectors of the file.
    fn sectors(&self, count: u64, dice: &mut Dice) -> Vec<Range<u64>> {
        let all = self.len.div_ceil(SECTOR);
        dice.some_below(all, count).into_iter().map(|number| sector(number, self.len)).collect()
    }

    fn flip(&self, range: Range<u64>, dice: &mut Dice) -> Edit {
        Edit::Flip { at: range.start + dice.below(range.end - range.start), bit: dice.below(8) as u8 }
    }

    /// What lies behind all data: somewhere in there.
    fn behind_data(&self, dice: &mut Dice) -> u64 {
        let start = self.layout.parity_area().start;
        start + dice.below(self.len - start)
    }

    fn of_sectors(&self, bad: u64, edits: Vec<Edit>) -> Planned {
        Planned { edits, promised: bad <= self.parity_units() }
    }

    /// A part that is gone.
    fn run(&self, range: Range<u64>) -> Planned {
        let promised = range.end - range.start <= promised_hole(self.layout);
        Planned { edits: vec![Edit::Zeros(range)], promised }
    }

    /// Of what lies behind the data: all of it can be made from that.
    fn tail(&self, edits: Vec<Edit>) -> Planned {
        Planned { edits, promised: self.parity_units() > 0 }
    }

    fn hole(&self, len: u64, dice: &mut Dice) -> Planned {
        let start = dice.below(self.len - len + 1);
        self.run(start..start + len)
    }

    /// The bytes of one sector in the place of another, and, if they are `swapped`, the other way round.
    fn moved(&self, swapped: bool, file: &dyn DiskFile, dice: &mut Dice) -> io::Result<Option<Vec<Edit>>> {
        let whole = self.len / SECTOR;
        let [a, b] = dice.some_below(whole, 2)[..] else { return Ok(None) };
        let read = |number: u64| {
            let mut bytes = vec![0; SECTOR as usize];
            file.read_exact_at(&mut bytes, number * SECTOR).map(|()| bytes)
        };
        let arrived = Edit::Bytes(b * SECTOR, read(a)?);
        // Where it should have been written there is what was there before.
        let left = match swapped {
            true => Edit::Bytes(a * SECTOR, read(b)?),
            false => Edit::Zeros(sector(a, self.len)),
        };
        Ok(Some(vec![arrived, left]))
    }
}

/// The longest hole of a pack that is promised to come back.
pub fn promised_hole(layout: &PackLayout) -> u64 {
    layout.stripe().map_or(0, |stripe| longest_hole(layout.parity, stripe.covered()))
}
