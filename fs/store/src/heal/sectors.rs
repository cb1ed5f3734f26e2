//! A pack as parity sees it: regions that have checksums, each whole, lost, or not known to be either.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use cairn_format::{PackId, PackLayout, SECTOR, SumTable, sector_sum};

use crate::disk::DiskFile;
use crate::twins::Others;

/// Bytes of a pack that one checksum speaks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Region {
    pub(super) range: Range<u64>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A sector of what is described, by its number.
    Sector(u64),
    /// A block of the first table of those sectors' checksums.
    Sums(usize),
    /// A sector of the parity area.
    Parity(u64),
}

/// What came of reading a region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// The bytes that were written there.
    Whole(Vec<u8>),
    /// Bytes of which nothing says what they should be: their checksum itself is lost.
    Unknown(Vec<u8>),
    /// Other bytes, or none.
    Lost,
}

/// A pack's file with its layout: reads regions and holds them against their checksums. What its other copies say counts
/// as much as what it says itself: nothing does without its checksum.
pub(super) struct Sectors<'a> {
    file: &'a dyn DiskFile,
    others: Others<'a>,
    pack: PackId,
    layout: PackLayout,
    /// Blocks of checksums that were asked for before: of the sectors described, and of the parity area.
    described: RefCell<HashMap<usize, Option<Vec<u64>>>>,
    parity: RefCell<HashMap<usize, Option<Vec<u64>>>>,
}

impl<'a> Sectors<'a> {
    pub(super) fn new(
        file: &'a dyn DiskFile,
        others: Others<'a>,
        pack: PackId,
        layout: PackLayout,
    ) -> Sectors<'a> {
        Sectors { file, others, pack, layout, described: RefCell::default(), parity: RefCell::default() }
    }

    pub(super) fn layout(&self) -> &PackLayout {
        &self.layout
    }

    pub(super) fn pack(&self) -> &PackId {
        &self.pack
    }

    /// The region that byte `at` lies in; none between the areas, and behind them.
    fn region_at(&self, at: u64) -> Option<Region> {
        let (described, sums, area) =
            (self.layout.described(), self.layout.sums(), self.layout.parity_area());
        if at < described {
            let number = at / SECTOR;
            return Some(Region { range: self.layout.sector(number), kind: Kind::Sector(number) });
        }
        if sums.contains(&at) {
            let number = ((at - sums.start) / SECTOR) as usize;
            return Some(self.sum_region(number));
        }
        area.contains(&at).then(|| {
            let number = at / SECTOR;
            Region { range: self.layout.sector(number), kind: Kind::Parity(number) }
        })
    }

    /// The regions that have a byte in `range`, in their order.
    pub(super) fn regions(&self, range: Range<u64>) -> impl Iterator<Item = Region> {
        let mut next = range.start;
        std::iter::from_fn(move || {
            let region = (next < range.end).then(|| self.region_at(next)).flatten()?;
            next = region.range.end;
            Some(region)
        })
    }

    /// Reads a region: from this file, or from another copy where this one's is not whole.
    pub(super) fn read(&self, region: &Region) -> Found {
        match self.own(region) {
            whole @ Found::Whole(_) => whole,
            found => self.elsewhere(region).map_or(found, Found::Whole),
        }
    }

    /// Reads a region of this file.
    pub(super) fn own(&self, region: &Region) -> Found {
        match self.bytes(region.range.clone()) {
            Some(bytes) => self.check(region, bytes),
            None => Found::Lost,
        }
    }

    /// A region's bytes from another copy, where they are whole there.
    pub(super) fn elsewhere(&self, region: &Region) -> Option<Vec<u8>> {
        self.find_elsewhere(region.range.clone(), |bytes| self.matches(region, bytes) == Some(true))
    }

    /// Bytes of another copy that are whole there, as `is_whole` says.
    pub(super) fn find_elsewhere(
        &self,
        range: Range<u64>,
        is_whole: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let others = self.others.all().iter();
        others.filter_map(|(_, file)| read(&**file, range.clone())).find(|bytes| is_whole(bytes))
    }

    /// Holds a region's bytes against what is known of them.
    pub(super) fn check(&self, region: &Region, bytes: Vec<u8>) -> Found {
        match self.matches(region, &bytes) {
            Some(true) => Found::Whole(bytes),
            Some(false) => Found::Lost,
            None => Found::Unknown(bytes),
        }
    }

    /// Whether a region's bytes are those that were written there, where anything says so.
    pub(super) fn matches(&self, region: &Region, bytes: &[u8]) -> Option<bool> {
        let (number, sum) = match region.kind {
            Kind::Sums(number) => {
                let table = SumTable { owner: &self.pack.0, first: 0 };
                return Some(table.decode_block(number, bytes).is_some());
            }
            Kind::Sector(number) => (number, self.sum_of(number)),
            Kind::Parity(number) => (number, self.parity_sum_of(number)),
        };
        Some(sum? == sector_sum(&self.pack.0, number, bytes))
    }

    /// Bytes as they are; none where they cannot be read.
    pub(super) fn bytes(&self, range: Range<u64>) -> Option<Vec<u8>> {
        read(self.file, range)
    }

    /// The checksum of a sector that is described, by either copy of its table.
    fn sum_of(&self, sector: u64) -> Option<u64> {
        let (number, of) = SumTable::block_of(sector);
        if let Some(block) = self.described.borrow().get(&number) {
            return block.as_ref().and_then(|sums| sums.get(of).copied());
        }
        let sectors = self.layout.sectors();
        let block = [self.layout.sums(), self.layout.second_sums()]
            .into_iter()
            .find_map(|table| self.block_anywhere(table, 0, sectors, number));
        let sum = block.as_ref().and_then(|sums| sums.get(of).copied());
        self.described.borrow_mut().insert(number, block);
        sum
    }

    /// Says what a block of checksums holds that was restored.
    pub(super) fn learn(&self, region: &Region, bytes: &[u8]) {
        if let Kind::Sums(number) = region.kind {
            let block = SumTable { owner: &self.pack.0, first: 0 }.decode_block(number, bytes);
            self.described.borrow_mut().insert(number, block);
        }
    }

    /// The block of the first table that speaks for a region, where neither copy of it could be read.
    pub(super) fn missing_sums(&self, region: &Region) -> Option<Region> {
        let Kind::Sector(sector) = region.kind else { return None };
        if self.layout.stripe().is_none() || self.sum_of(sector).is_some() {
            return None;
        }
        Some(self.sum_region(SumTable::block_of(sector).0))
    }

    fn sum_region(&self, number: usize) -> Region {
        let (start, block) = (self.layout.sums().start, SumTable::block(self.layout.sectors(), number));
        Region { range: start + block.start..start + block.end, kind: Kind::Sums(number) }
    }

    fn parity_sum_of(&self, sector: u64) -> Option<u64> {
        let first = self.layout.parity_area().start / SECTOR;
        let (number, of) = SumTable::block_of(sector - first);
        let mut blocks = self.parity.borrow_mut();
        let block = blocks.entry(number).or_insert_with(|| {
            self.block_anywhere(self.layout.parity_sums(), first, self.layout.parity_sectors(), number)
        });
        block.as_ref().and_then(|sums| sums.get(of).copied())
    }

    /// Blocks behind the parity that do not match their checksums: of the parity's sums, and of the second table.
    pub(super) fn damaged_tables(&self) -> Vec<Range<u64>> {
        let first = self.layout.parity_area().start / SECTOR;
        let tables = [
            (self.layout.parity_sums(), first, self.layout.parity_sectors()),
            (self.layout.second_sums(), 0, self.layout.sectors()),
        ];
        let mut damaged = Vec::new();
        for (table, first, sectors) in tables.into_iter().filter(|(table, ..)| !table.is_empty()) {
            for number in 0.. {
                let block = SumTable::block(sectors, number);
                if block.is_empty() {
                    break;
                }
                if self.block(table.clone(), first, sectors, number).is_none() {
                    damaged.push(table.start + block.start..table.start + block.end);
                }
            }
        }
        damaged
    }

    /// As [`Sectors::block`], from any copy.
    fn block_anywhere(&self, table: Range<u64>, first: u64, sectors: u64, number: usize) -> Option<Vec<u64>> {
        let own = self.block(table.clone(), first, sectors, number);
        own.or_else(|| {
            let block = SumTable::block(sectors, number);
            let of_pack = SumTable { owner: &self.pack.0, first };
            let at = table.start + block.start..table.start + block.end;
            let bytes = self.find_elsewhere(at, |bytes| of_pack.decode_block(number, bytes).is_some())?;
            of_pack.decode_block(number, &bytes)
        })
    }

    /// A block of a table that lies in `table` and speaks for `sectors` from number `first` on.
    fn block(&self, table: Range<u64>, first: u64, sectors: u64, number: usize) -> Option<Vec<u64>> {
        let block = SumTable::block(sectors, number);
        let bytes = self.bytes(table.start + block.start..table.start + block.end)?;
        SumTable { owner: &self.pack.0, first }.decode_block(number, &bytes)
    }
}

/// Bytes as they are; none where they are not there, or cannot be read.
pub(super) fn read(file: &dyn DiskFile, range: Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes)
}
