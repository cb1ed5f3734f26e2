//! Going through a whole pack, past the page cache, for all that is wrong with it.

use std::ops::Range;

use cairn_format::{Footer, FrameHead, PackHeader, PackId, PackLayout, TRAILER_LEN, Trailer};

use super::locate::{find_any_layout, find_layout};
use super::sectors::{Region, Sectors};
use crate::disk::{Disk, DiskFile};
use crate::twins::{Others, Place};
use crate::{PackReader, ReadError};

/// Read at a time: little enough that the kernel reads ahead while it is looked through.
const STRIDE: u64 = 256 << 10;

/// What was found in a pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Examined {
    /// The pack.
    pub pack: PackId,
    /// Which of its copies.
    pub place: Place,
    /// Where its parts lie.
    pub layout: PackLayout,
    /// Bytes that were held against their checksums.
    pub checked: u64,
    /// What is damaged, in ascending order: each a run of bytes that one checksum speaks for.
    pub damaged: Vec<Range<u64>>,
    /// The length of its file, where that is wrong.
    pub wrong_len: Option<u64>,
    /// Whether there is no such file, or none that can be opened: another copy says what it is to be.
    pub missing: bool,
}

impl Examined {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.wrong_len.is_none()
    }

    /// Bytes that are damaged.
    pub fn damaged_bytes(&self) -> u64 {
        self.damaged.iter().map(|range| range.end - range.start).sum()
    }
}

/// Holds every byte of a pack against its checksum. `each` is told of bytes that were read, and says whether to go on;
/// `None` where it was told to stop. An error where the pack is missing, or where nothing says any more where its parts lie,
/// and no other copy helps.
pub fn examine(
    disk: &dyn Disk,
    pack: PackId,
    each: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Examined>, ReadError> {
    examine_at(disk, Place::Pack, pack, each)
}

/// As [`examine`], of the copy of a pack that lies at a place.
pub fn examine_at(
    disk: &dyn Disk,
    place: Place,
    pack: PackId,
    each: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Examined>, ReadError> {
    go_through(disk, place, pack, |_| 0, each)
}

/// As [`examine`], but only what is there to mend the rest: for who reads header, frames and footers anyway.
pub fn examine_spare(
    disk: &dyn Disk,
    pack: PackId,
    each: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Examined>, ReadError> {
    go_through(disk, Place::Pack, pack, PackLayout::described, each)
}

/// From the byte on that `from` says.
fn go_through(
    disk: &dyn Disk,
    place: Place,
    pack: PackId,
    from: fn(&PackLayout) -> u64,
    each: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Examined>, ReadError> {
    let others = Others::beside(disk, place, pack);
    let reader = match PackReader::open_at(disk, place, pack) {
        Ok(reader) => reader,
        Err(error) => return missing(place, pack, &others).ok_or(error).map(Some),
    };
    let file = reader.file();
    let len = file.len().map_err(|e| ReadError::io(pack, 0, e))?;
    let layout = find_any_layout(file, &others, &pack).ok_or_else(|| {
        ReadError::damaged(pack, 0, "neither its header nor any copy of its trailer can be read")
    })?;
    let from = from(&layout);
    // What the page cache holds may be better, or worse, than what is on the disk.
    file.forget(from.min(len)..len);
    let expected = layout.file_len();
    let wrong_len = (len != expected).then_some(len);
    let (damaged, missing) = (Vec::new(), false);
    let mut examined = Examined { pack, place, layout, checked: 0, damaged, wrong_len, missing };
    let sectors = Sectors::new(file, others, pack, layout);
    let went_on = match layout.stripe() {
        Some(_) => examined.by_sectors(&sectors, from, each),
        None => from > 0 || examined.by_frames(&reader, each),
    };
    if !went_on {
        return Ok(None);
    }
    examined.padding(&sectors);
    examined.tail(&sectors, each);
    examined.damaged.sort_by_key(|range| range.start);
    Ok(Some(examined))
}

/// A copy that there is no file of: all of it is damaged, if another says what it was.
fn missing(place: Place, pack: PackId, others: &Others<'_>) -> Option<Examined> {
    let layout = others.all().iter().find_map(|(_, file)| find_layout(&**file, &pack))?;
    let damaged = std::iter::once(0..layout.file_len()).collect();
    Some(Examined { pack, place, layout, checked: 0, damaged, wrong_len: None, missing: true })
}

impl Examined {
    fn by_sectors(&mut self, sectors: &Sectors<'_>, from: u64, each: &mut dyn FnMut(u64) -> bool) -> bool {
        let covered = from..self.layout.sums().end;
        for area in [covered, self.layout.parity_area()] {
            for start in area.clone().step_by(STRIDE as usize) {
                let run = start..(start + STRIDE).min(area.end);
                if !self.run(sectors, run, each) {
                    return false;
                }
            }
        }
        true
    }

    /// Regions that begin in `run`: from one read where that works, and else one by one.
    fn run(&mut self, sectors: &Sectors<'_>, run: Range<u64>, each: &mut dyn FnMut(u64) -> bool) -> bool {
        let regions: Vec<Region> =
            sectors.regions(run.clone()).filter(|region| region.range.start >= run.start).collect();
        let (Some(first), Some(last)) = (regions.first(), regions.last()) else { return true };
        let (start, end) = (first.range.start, last.range.end);
        let whole = sectors.bytes(start..end);
        for region in &regions {
            let matches = match &whole {
                Some(bytes) => {
                    let at = (region.range.start - start) as usize..(region.range.end - start) as usize;
                    sectors.matches(region, &bytes[at])
                }
                None => match sectors.bytes(region.range.clone()) {
                    Some(bytes) => sectors.matches(region, &bytes),
                    None => Some(false),
                },
            };
            // What nothing speaks for any more is found out by whoever mends its checksums.
            if matches == Some(false) {
                self.damaged.push(region.range.clone());
            }
        }
        self.checked += end - start;
        each(end - start)
    }

    /// A pack without parity has no checksums but those of its frames.
    fn by_frames(&mut self, reader: &PackReader, each: &mut dyn FnMut(u64) -> bool) -> bool {
        let file = reader.file();
        let header = read(file, 0..cairn_format::PACK_HEADER_LEN as u64);
        if header.is_none_or(|bytes| PackHeader::decode(&bytes, &self.pack).is_err()) {
            self.damaged.push(0..cairn_format::PACK_HEADER_LEN as u64);
        }
        let at = self.layout.footer();
        let first = read(file, at.clone()).and_then(|bytes| Footer::decode(&bytes, &self.pack).ok());
        let footer = match first {
            Some(footer) => Some(footer),
            None => {
                self.damaged.push(at);
                read(file, self.layout.second_footer())
                    .and_then(|bytes| Footer::decode(&bytes, &self.pack).ok())
            }
        };
        for frame in footer.iter().flat_map(|footer| &footer.frames) {
            let range = frame.offset..frame.offset + u64::from(frame.len);
            let bytes = reader.raw_frame(frame).ok();
            if bytes.is_none_or(|bytes| FrameHead::decode(&bytes, &self.pack, frame.offset).is_err()) {
                self.damaged.push(range);
            }
            self.checked += u64::from(frame.len);
            if !each(frame.len.into()) {
                return false;
            }
        }
        true
    }

    /// Nothing is lost there, but it is to be as it was.
    fn padding(&mut self, sectors: &Sectors<'_>) {
        let at = self.layout.padding();
        if !at.is_empty() && !sectors.bytes(at.clone()).is_some_and(|bytes| bytes.iter().all(|b| *b == 0)) {
            self.damaged.push(at);
        }
    }

    /// What stands behind the parity, each part with its own checksum.
    fn tail(&mut self, sectors: &Sectors<'_>, each: &mut dyn FnMut(u64) -> bool) {
        let layout = self.layout;
        let start = layout.parity_sums().start;
        self.damaged.extend(sectors.damaged_tables());
        let footer = layout.second_footer();
        let whole = |bytes: Vec<u8>| Footer::decode(&bytes, &self.pack).is_ok();
        if !sectors.bytes(footer.clone()).is_some_and(whole) {
            self.damaged.push(footer.clone());
        }
        let trailer = footer.end..footer.end + TRAILER_LEN as u64;
        let whole = |bytes: Vec<u8>| Trailer::decode(&bytes, &self.pack).is_ok();
        if !sectors.bytes(trailer.clone()).is_some_and(whole) {
            self.damaged.push(trailer);
        }
        self.checked += layout.file_len() - start;
        // There is nothing behind this to stop before.
        let _ = each(layout.file_len() - start);
    }
}

fn read(file: &dyn DiskFile, range: Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes)
}
