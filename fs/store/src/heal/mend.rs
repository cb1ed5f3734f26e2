//! Writing back what is damaged of a pack, as far as it can be restored.

use std::io;
use std::ops::Range;

use cairn_format::{Footer, FrameHead, PackHeader, PackLayout, SECTOR, SumTable, Trailer, sector_sum};

use super::restore::Restorer;
use super::sectors::{Found, Sectors};
use super::{Examined, examine_at};
use crate::StoreError;
use crate::disk::{Access, Disk, DiskFile};
use crate::twins::{Others, copy, copy_pack, replace};

/// What is damaged of a pack is held in memory while it is written back. Where it is more than this, and another copy is whole,
/// that is copied instead.
const COPY_FROM: u64 = 4 << 20;

/// What became of a pack's damage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mended {
    /// What was restored and is on the disk again, in ascending order.
    pub restored: Vec<Range<u64>>,
    /// What could not be restored.
    pub lost: Vec<Range<u64>>,
    /// Whether the medium did not take it where it was, and the pack was written anew.
    pub relocated: bool,
    /// Whether it was written anew from another copy.
    pub copied: bool,
}

/// Writes what [`super::examine`] found to be damaged: only those bytes, then a sync, then they are read again past the page
/// cache. Where the medium refuses, the whole pack is written to another place, and takes over the name. What cannot be
/// restored stays as it is. May be cut at any point: what it writes are the bytes that belong there.
///
/// What is missing, or damaged in most of it, is written anew from another copy of the pack, if there is one.
pub fn mend(disk: &dyn Disk, examined: &Examined) -> Result<Mended, StoreError> {
    if examined.is_whole() {
        return Ok(Mended::default());
    }
    if (examined.missing || examined.damaged_bytes() > COPY_FROM)
        && let Some(mended) = copy_from_another(disk, examined)?
    {
        return Ok(mended);
    }
    let path = examined.place.path(&examined.pack);
    let mut mended = Mended::default();
    // What lies behind the parity is made from what lies before it, so that has to be right first.
    for part in [Plan::before as fn(&mut Plan, Sectors<'_>, &Examined), Plan::behind] {
        let file = disk.open(&path, Access::Write).map_err(StoreError::io(&path))?;
        let mut plan = Plan::default();
        let others = Others::beside(disk, examined.place, examined.pack);
        part(&mut plan, Sectors::new(&*file, others, examined.pack, examined.layout), examined);
        mended.apply(disk, &*file, plan, examined).map_err(StoreError::io(&path))?;
    }
    mended.restored.sort_by_key(|range| range.start);
    mended.lost.sort_by_key(|range| range.start);
    Ok(mended)
}

/// Writes a copy of a pack anew, from the best of its others. None where there is none, or where what is there is better than
/// a copy of what is damaged itself.
fn copy_from_another(disk: &dyn Disk, examined: &Examined) -> Result<Option<Mended>, StoreError> {
    let (pack, place) = (examined.pack, examined.place);
    let others = Others::beside(disk, place, pack);
    let mut best: Option<(crate::Place, &dyn DiskFile, Vec<Range<u64>>)> = None;
    for (other, file) in others.all() {
        let Ok(Some(found)) = examine_at(disk, *other, pack, &mut |_| true) else { continue };
        if best.as_ref().is_none_or(|(.., damaged)| found.damaged.len() < damaged.len()) {
            best = Some((*other, &**file, found.damaged));
        }
        if best.as_ref().is_some_and(|(.., damaged)| damaged.is_empty()) {
            break;
        }
    }
    let Some((_, file, damaged)) = best.filter(|(.., damaged)| damaged.is_empty() || examined.missing) else {
        return Ok(None);
    };
    let path = place.path(&pack);
    copy_pack(disk, file, &pack, place, examined.layout.file_len()).map_err(StoreError::io(&path))?;
    let mut mended = Mended { restored: examined.damaged.clone(), copied: true, ..Mended::default() };
    if !damaged.is_empty() {
        // What can be is restored by what the two have, now that there are two.
        let there = Examined { damaged, missing: false, wrong_len: None, ..examined.clone() };
        mended.lost = mend(disk, &there)?.lost;
    }
    Ok(Some(mended))
}

impl Mended {
    fn apply(
        &mut self,
        disk: &dyn Disk,
        file: &dyn DiskFile,
        plan: Plan,
        examined: &Examined,
    ) -> io::Result<()> {
        if let Err(error) = write(file, &plan.writes, examined) {
            let pack = examined.pack;
            tracing::warn!(
                "pack {pack}: the disk does not take what belongs there ({error}): it is written to another place"
            );
            relocate(disk, file, &plan.writes, examined)?;
            self.relocated = true;
        }
        self.restored.extend(plan.writes.into_iter().map(|(range, _)| range));
        self.lost.extend(plan.lost);
        Ok(())
    }
}

/// Writes, and makes sure that the medium gives back what was written.
fn write(file: &dyn DiskFile, writes: &[(Range<u64>, Vec<u8>)], examined: &Examined) -> io::Result<()> {
    if file.len()? > examined.layout.file_len() {
        file.set_len(examined.layout.file_len())?;
    } else if writes.is_empty() {
        return Ok(());
    }
    for (range, bytes) in writes {
        file.write_at(bytes, range.start)?;
    }
    file.sync()?;
    for (range, bytes) in writes {
        file.forget(range.clone());
        let mut back = vec![0; bytes.len()];
        file.read_exact_at(&mut back, range.start)?;
        if back != *bytes {
            return Err(io::Error::other("other bytes were read than were written"));
        }
    }
    Ok(())
}

/// Copies a pack under its unsealed name, with what was restored, and gives the copy the pack's name.
fn relocate(
    disk: &dyn Disk,
    from: &dyn DiskFile,
    writes: &[(Range<u64>, Vec<u8>)],
    examined: &Examined,
) -> io::Result<()> {
    replace(disk, &examined.pack, examined.place, |to| {
        copy(from, to, examined.layout.file_len())?;
        writes.iter().try_for_each(|(range, bytes)| to.write_at(bytes, range.start))
    })
}

/// What is to be written where, and what cannot be restored.
#[derive(Default)]
struct Plan {
    writes: Vec<(Range<u64>, Vec<u8>)>,
    lost: Vec<Range<u64>>,
}

impl Plan {
    /// What lies before the end of the parity.
    fn before(&mut self, sectors: Sectors<'_>, examined: &Examined) {
        if examined.layout.stripe().is_none() {
            return self.copies(&sectors, examined);
        }
        let Some(restorer) = Restorer::new(sectors) else { return };
        let layout = examined.layout;
        let damaged =
            examined.damaged.iter().filter(|range| range.start < layout.parity_sums().start).cloned();
        // Tables of checksums first: with those the others are known to be right, or are found out not to be.
        let (tables, mut sectors): (Vec<_>, Vec<_>) =
            damaged.partition(|range| layout.sums().contains(&range.start));
        for range in tables {
            if self.region(&restorer, range.clone()) {
                sectors.extend(newly_lost(&restorer, &layout, &range, &examined.damaged));
            }
        }
        for range in sectors {
            match range == layout.padding() {
                true => self.writes.push((range.clone(), vec![0; (range.end - range.start) as usize])),
                false => drop(self.region(&restorer, range)),
            }
        }
    }

    /// Restores a region, if that can be; whether it could.
    fn region(&mut self, restorer: &Restorer<'_>, range: Range<u64>) -> bool {
        let parity = restorer.sectors.layout().parity_area();
        let found = restorer.sectors.regions(range.clone()).next().map(|region| {
            match restorer.sectors.read(&region) {
                // Somebody else mended it since it was found; written once more it does no harm.
                whole @ Found::Whole(_) => whole,
                _ => restorer.restore(&region),
            }
        });
        match found {
            Some(Found::Whole(bytes)) => self.writes.push((range, bytes)),
            // Parity whose checksums are lost is computed and written with them.
            Some(Found::Unknown(_)) if parity.contains(&range.start) => return false,
            _ => {
                self.lost.push(range);
                return false;
            }
        }
        true
    }

    /// What lies behind the parity.
    fn behind(&mut self, sectors: Sectors<'_>, examined: &Examined) {
        let Some(restorer) = Restorer::new(sectors) else { return };
        let layout = examined.layout;
        for range in
            examined.damaged.iter().filter(|range| range.start >= layout.parity_sums().start).cloned()
        {
            let bytes = match range.start {
                at if at < layout.second_sums().start => self.parity_sums(&restorer, range.clone()),
                at if at < layout.second_footer().start => {
                    let back = layout.second_sums().start - layout.sums().start;
                    first_copy(&restorer, range.start - back..range.end - back)
                }
                at if at < layout.second_footer().end => footer_at(&restorer.sectors, layout.footer())
                    .map(|(_, bytes)| bytes)
                    .or_else(|| first_copy(&restorer, layout.footer())),
                _ => Some(Trailer { layout }.encode(&examined.pack)),
            };
            match bytes {
                Some(bytes) => self.writes.push((range, bytes)),
                None => self.lost.push(range),
            }
        }
    }

    /// A block of the parity's checksums, of parity that is computed anew: nothing says whether what is there is right. Where
    /// it is not it is written, too.
    fn parity_sums(&mut self, restorer: &Restorer<'_>, range: Range<u64>) -> Option<Vec<u8>> {
        let layout = restorer.sectors.layout();
        let pack = restorer.sectors.pack();
        let first = layout.parity_area().start / SECTOR;
        let number = ((range.start - layout.parity_sums().start) / SECTOR) as usize;
        let table = SumTable { owner: &pack.0, first };
        let is_whole = |bytes: &[u8]| table.decode_block(number, bytes).is_some();
        if let Some(bytes) = restorer.sectors.find_elsewhere(range, is_whole) {
            return Some(bytes);
        }
        let mut sums = Vec::new();
        let of_block = (0..layout.parity_sectors()).filter(|sector| SumTable::block_of(*sector).0 == number);
        for sector in of_block.map(|sector| first + sector) {
            let at = layout.sector(sector);
            let right = restorer.parity_from_data(&restorer.sectors.regions(at.clone()).next()?)?;
            if restorer.sectors.bytes(at.clone()).as_ref() != Some(&right) {
                self.writes.push((at, right.clone()));
            }
            sums.push(sector_sum(&pack.0, sector, &right));
        }
        Some(table.encode_block(number, &sums))
    }

    /// Without parity each copy of what describes the pack is made from the other; frames are in another copy of the pack, or
    /// nowhere.
    fn copies(&mut self, sectors: &Sectors<'_>, examined: &Examined) {
        let (layout, pack) = (examined.layout, examined.pack);
        let described =
            [layout.footer(), layout.second_footer()].into_iter().find_map(|at| footer_at(sectors, at));
        let trailer = layout.second_footer().end..layout.file_len();
        for range in &examined.damaged {
            let bytes = match &described {
                _ if *range == trailer => Some(Trailer { layout }.encode(&pack)),
                Some((_, bytes)) if *range == layout.footer() || *range == layout.second_footer() => {
                    Some(bytes.clone())
                }
                Some((footer, _)) if range.start == 0 => Some(header(footer, layout)),
                _ => sectors.find_elsewhere(range.clone(), |bytes| {
                    FrameHead::decode(bytes, &pack, range.start).is_ok()
                }),
            };
            match bytes {
                Some(bytes) => self.writes.push((range.clone(), bytes)),
                None => self.lost.push(range.clone()),
            }
        }
    }
}

/// Sectors of which nothing spoke before a block of their checksums was restored, and which are damaged.
fn newly_lost(
    restorer: &Restorer<'_>,
    layout: &PackLayout,
    block: &Range<u64>,
    known: &[Range<u64>],
) -> Vec<Range<u64>> {
    let number = ((block.start - layout.sums().start) / SECTOR) as usize;
    (0..layout.sectors())
        .filter(|sector| SumTable::block_of(*sector).0 == number)
        .flat_map(|sector| restorer.sectors.regions(layout.sector(sector)))
        .filter(|region| restorer.sectors.own(region) == Found::Lost)
        .map(|region| region.range)
        .filter(|range| known.binary_search_by_key(&range.start, |known| known.start).is_err())
        .collect()
}

/// The footer as it stands in one place of a pack, here or in another copy of that: its own checksum says whether it is whole,
/// whatever became of the others.
fn footer_at(sectors: &Sectors<'_>, at: Range<u64>) -> Option<(Footer, Vec<u8>)> {
    let decode = |bytes: &[u8]| Footer::decode(bytes, sectors.pack()).ok();
    let own = sectors.bytes(at.clone()).filter(|bytes| decode(bytes).is_some());
    let bytes = own.or_else(|| sectors.find_elsewhere(at, |bytes| decode(bytes).is_some()))?;
    Some((decode(&bytes)?, bytes))
}

/// Bytes before the parity that are whole.
fn first_copy(restorer: &Restorer<'_>, range: Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for region in restorer.sectors.regions(range.clone()) {
        let Found::Whole(found) = restorer.read(&region) else { return None };
        let from = range.start.saturating_sub(region.range.start) as usize;
        let to = (range.end.min(region.range.end) - region.range.start) as usize;
        bytes.extend_from_slice(found.get(from..to)?);
    }
    Some(bytes)
}

fn header(footer: &Footer, layout: PackLayout) -> Vec<u8> {
    let Footer { pack, store, volume, kind, .. } = *footer;
    PackHeader { pack, store, volume, kind, layout }.encode()
}
