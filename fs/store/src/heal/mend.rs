//! Writing back what is damaged of a pack, as far as it can be restored.

use std::io;
use std::ops::Range;

use cairn_format::{Footer, PackHeader, PackLayout, SECTOR, SumTable, Trailer, sector_sum};

use super::Examined;
use super::restore::Restorer;
use super::sectors::{Found, Sectors};
use crate::StoreError;
use crate::disk::{Access, Disk, DiskFile};
use crate::pack::{pack_path, unsealed_path};
use crate::store::PACKS_DIR;

/// Copied at a time when a pack is moved to another place.
const STRIDE: u64 = 1 << 20;

/// What became of a pack's damage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mended {
    /// What was restored and is on the disk again, in ascending order.
    pub restored: Vec<Range<u64>>,
    /// What could not be restored.
    pub lost: Vec<Range<u64>>,
    /// Whether the medium did not take it where it was, and the pack was written anew.
    pub relocated: bool,
}

/// Writes what [`super::examine`] found to be damaged: only those bytes, then a sync, then they are read again past the page
/// cache. Where the medium refuses, the whole pack is written to another place, and takes over the name. What cannot be
/// restored stays as it is. May be cut at any point: what it writes are the bytes that belong there.
pub fn mend(disk: &dyn Disk, examined: &Examined) -> Result<Mended, StoreError> {
    let path = pack_path(&examined.pack);
    let mut mended = Mended::default();
    // What lies behind the parity is made from what lies before it, so that has to be right first.
    for part in [Plan::before as fn(&mut Plan, &dyn DiskFile, &Examined), Plan::behind] {
        let file = disk.open(&path, Access::Write).map_err(StoreError::io(&path))?;
        let mut plan = Plan::default();
        part(&mut plan, &*file, examined);
        mended.apply(disk, &*file, plan, examined).map_err(StoreError::io(&path))?;
    }
    mended.restored.sort_by_key(|range| range.start);
    mended.lost.sort_by_key(|range| range.start);
    Ok(mended)
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
    let new = unsealed_path(&examined.pack);
    match disk.remove(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let to = disk.open(&new, Access::CreateNew)?;
    let copied = copy(from, &*to, examined.layout.file_len()).and_then(|()| {
        writes.iter().try_for_each(|(range, bytes)| to.write_at(bytes, range.start))?;
        to.sync()
    });
    if let Err(error) = copied {
        // The next mount removes it otherwise.
        let _ = disk.remove(&new);
        return Err(error);
    }
    disk.rename(&new, &pack_path(&examined.pack))?;
    disk.sync_dir(&format!("{PACKS_DIR}/{}", examined.pack.directory()))
}

/// Copies what can be read; of the rest only that it is there: it is lost, or written next.
fn copy(from: &dyn DiskFile, to: &dyn DiskFile, len: u64) -> io::Result<()> {
    for start in (0..len).step_by(STRIDE as usize) {
        let mut bytes = vec![0; STRIDE.min(len - start) as usize];
        if from.read_exact_at(&mut bytes, start).is_err() {
            for (number, sector) in bytes.chunks_mut(SECTOR as usize).enumerate() {
                // The last one may end early.
                let there = from.read_at(sector, start + number as u64 * SECTOR).unwrap_or(0);
                sector[there..].fill(0);
            }
        }
        to.write_at(&bytes, start)?;
    }
    Ok(())
}

/// What is to be written where, and what cannot be restored.
#[derive(Default)]
struct Plan {
    writes: Vec<(Range<u64>, Vec<u8>)>,
    lost: Vec<Range<u64>>,
}

impl Plan {
    /// What lies before the end of the parity.
    fn before(&mut self, file: &dyn DiskFile, examined: &Examined) {
        let Some(restorer) = Restorer::new(Sectors::new(file, examined.pack, examined.layout)) else {
            return self.copies(file, examined);
        };
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
    fn behind(&mut self, file: &dyn DiskFile, examined: &Examined) {
        let Some(restorer) = Restorer::new(Sectors::new(file, examined.pack, examined.layout)) else {
            return;
        };
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
                at if at < layout.second_footer().end => first_copy(&restorer, layout.footer()),
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
        Some(SumTable { owner: &pack.0, first }.encode_block(number, &sums))
    }

    /// Without parity each copy of what describes the pack is made from the other.
    fn copies(&mut self, file: &dyn DiskFile, examined: &Examined) {
        let (layout, pack) = (examined.layout, examined.pack);
        let described = [layout.footer(), layout.second_footer()].into_iter().find_map(|at| {
            let bytes = read(file, at)?;
            Footer::decode(&bytes, &pack).ok().map(|footer| (footer, bytes))
        });
        let trailer = layout.second_footer().end..layout.file_len();
        for range in &examined.damaged {
            let bytes = match &described {
                _ if *range == trailer => Some(Trailer { layout }.encode(&pack)),
                Some((_, bytes)) if *range == layout.footer() || *range == layout.second_footer() => {
                    Some(bytes.clone())
                }
                Some((footer, _)) if range.start == 0 => Some(header(footer, layout)),
                _ => None,
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
        .filter(|region| restorer.sectors.read(region) == Found::Lost)
        .map(|region| region.range)
        .filter(|range| known.binary_search_by_key(&range.start, |known| known.start).is_err())
        .collect()
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

fn read(file: &dyn DiskFile, range: Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes)
}
