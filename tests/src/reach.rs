//! What parity reaches of a damaged pack, computed from its layout and its bytes alone: nothing here asks the code that
//! heals.
//!
//! A region is what one checksum speaks for. One that has a wrong byte is lost as a whole, and with it its bytes' columns in
//! the units it lies in. A column that has lost more than M units does not come back, and neither does any region with a byte
//! of it.

use std::ops::Range;

use cairn_format::{PACK_HEADER_LEN, PackLayout, SECTOR, TRAILER_LEN};

/// A pack before and after something happened to it.
pub struct Reach<'a> {
    layout: PackLayout,
    before: &'a [u8],
    after: &'a [u8],
    /// Columns that do not come back, in ascending order.
    gone: Vec<Range<u64>>,
    found: bool,
    silent: bool,
}

impl<'a> Reach<'a> {
    /// Of a pack whose bytes are others now.
    pub fn of(layout: &PackLayout, before: &'a [u8], after: &'a [u8]) -> Reach<'a> {
        let mut reach =
            Reach { layout: *layout, before, after, gone: Vec::new(), found: false, silent: false };
        reach.found = reach.layout_is_found();
        reach.gone = reach.columns_gone();
        reach.silent = reach.is_silent();
        reach
    }

    /// Whether all of it comes back.
    pub fn is_within(&self) -> bool {
        self.found && self.layout.stripe().is_some() && self.gone.is_empty()
    }

    /// Whether nothing says of some sectors, or of parity, whether they are right: then what is beyond the guarantee may come
    /// back all the same.
    pub fn silent(&self) -> bool {
        self.found && self.silent
    }

    /// Whether a frame and a copy of what describes it are as they were.
    pub fn has_frame(&self, frame: &Range<u64>) -> bool {
        self.has_footer() && self.is_same(frame)
    }

    /// Whether a copy of what describes frames is as it was.
    pub fn has_footer(&self) -> bool {
        let copies = [self.layout.footer(), self.layout.second_footer()];
        self.found && copies.iter().any(|at| self.is_same(at))
    }

    /// Whether anything says where the pack's parts lie.
    pub fn is_found(&self) -> bool {
        self.found
    }

    /// Whether a frame can be read.
    pub fn reads_frame(&self, frame: Range<u64>) -> bool {
        self.describes() && (self.is_same(&frame) || self.comes_back(frame))
    }

    /// Whether some copy of what describes it can be read.
    fn describes(&self) -> bool {
        let copies = [self.layout.footer(), self.layout.second_footer()];
        self.found && (copies.iter().any(|at| self.is_same(at)) || self.comes_back(self.layout.footer()))
    }

    /// Whether what lies in the range and the regions that it touches can be restored, where it is damaged.
    pub fn comes_back(&self, range: Range<u64>) -> bool {
        let touched = |region: &Range<u64>| region.start < range.end && range.start < region.end;
        self.found
            && self.regions().filter(touched).all(|region| {
                let is_gone = |(_, columns): (usize, Range<u64>)| self.gone.iter().any(|g| meet(g, &columns));
                self.is_same(&region) || !self.shards_of(&region).any(is_gone)
            })
    }

    fn is_same(&self, at: &Range<u64>) -> bool {
        let at = at.start as usize..at.end as usize;
        self.after.get(at.clone()).is_some_and(|after| after == &self.before[at])
    }

    /// Header, the trailer in the last bytes that there are, or its copy before the parity.
    fn layout_is_found(&self) -> bool {
        let trailer = &self.before[self.before.len() - TRAILER_LEN..];
        let area = self.layout.parity_area();
        self.is_same(&(0..PACK_HEADER_LEN as u64))
            || self.after.ends_with(trailer)
            || !area.is_empty() && self.is_same(&(area.start..area.start + TRAILER_LEN as u64))
    }

    /// All regions that parity can restore, its own too.
    pub fn regions(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let layout = &self.layout;
        let described = (0..layout.sectors()).map(|n| layout.sector(n));
        let sums = blocks(layout.sums());
        let first = layout.parity_area().start / SECTOR;
        let parity = (first..first + layout.parity_sectors()).map(|n| layout.sector(n));
        let some = layout.stripe().is_some();
        described.chain(sums).chain(parity).filter(move |_| some)
    }

    /// What stands behind the parity, each part with its own checksum.
    pub fn behind(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let layout = &self.layout;
        let footer = layout.second_footer();
        let trailer = footer.end..layout.file_len();
        blocks(layout.parity_sums()).chain(blocks(layout.second_sums())).chain([
            layout.footer(),
            footer,
            trailer,
        ])
    }

    /// The units that a region lies in, and its columns there.
    fn shards_of(&self, region: &Range<u64>) -> impl Iterator<Item = (usize, Range<u64>)> + use<> {
        let stripe = self.layout.stripe();
        let (layout, region) = (self.layout, region.clone());
        let data =
            stripe.iter().flat_map(|s| (0..s.filled()).map(|n| (n, s.data_unit(n)))).collect::<Vec<_>>();
        let parity = (0..usize::from(layout.parity.parity))
            .map(move |n| (usize::from(layout.parity.data) + n, layout.parity_unit(n)));
        data.into_iter().chain(parity).filter_map(move |(number, unit)| {
            let (start, end) = (region.start.max(unit.start), region.end.min(unit.end));
            (start < end).then(|| (number, start - unit.start..end - unit.start))
        })
    }

    fn columns_gone(&self) -> Vec<Range<u64>> {
        let mut edges = Vec::new();
        for region in self.regions().filter(|region| !self.is_same(region)) {
            for (_, columns) in self.shards_of(&region) {
                edges.extend([(columns.start, 1i32), (columns.end, -1)]);
            }
        }
        // Where one ends and another begins it is one less before it is one more.
        edges.sort_unstable();
        let (mut lost, mut gone) = (0, Vec::new());
        for (n, (at, change)) in edges.iter().enumerate() {
            lost += change;
            let next = edges.get(n + 1).map_or(*at, |(next, _)| *next);
            if lost > i32::from(self.layout.parity.parity) && next > *at {
                gone.push(*at..next);
            }
        }
        gone
    }

    fn is_silent(&self) -> bool {
        let second = self.layout.second_sums().start;
        let start = self.layout.sums().start;
        let parity = !self.is_same(&self.layout.parity_sums());
        parity
            || blocks(self.layout.sums()).any(|block| {
                let other = second + block.start - start..second + block.end - start;
                !self.is_same(&block) && !self.is_same(&other) && !self.comes_back(block)
            })
    }
}

/// Blocks of a table of checksums.
fn blocks(table: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    table.clone().step_by(SECTOR as usize).map(move |start| start..(start + SECTOR).min(table.end))
}

fn meet(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// A hole that comes back wherever it begins, in whole sectors: as long as M units, but for the sectors at its ends that are
/// lost with it.
pub fn guaranteed_hole(layout: &PackLayout) -> u64 {
    let units = layout.stripe().map_or(0, |stripe| stripe.parity_len());
    (units / SECTOR).saturating_sub(2).max(1) * SECTOR
}
