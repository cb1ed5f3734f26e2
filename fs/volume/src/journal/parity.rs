//! Parity of closed segments: a file beside the segment's own, from which sectors of it come back that rot, or that cannot
//! be read.
//!
//! Such a file is a help and no more. It is made behind everyone's back, of a segment that nobody writes to any more and that
//! is synced; where it is missing, torn, damaged, or that of an earlier life of its segment's file, the journal is what it
//! would be without. What it restores counts only where it matches the checksum of its sector, and a record only where it
//! matches its own.
//!
//! It also is a witness: it is made only once its segment is synced, so what it says was there is never a torn tail.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use cairn_codec::parity::{ParityCode, RestorePlan};
use cairn_format::{
    ParityGeometry, SECTOR, SEGMENT_DATA_START, SEGMENT_HEADER_LEN, SEGMENT_PARITY_HEADER_LEN, SegmentHeader,
    SegmentParity, SumTable, Uuid, sector_sum,
};
use cairn_store::disk::{Access, Disk, DiskFile};
use cairn_store::encode_columns;

use super::segment::{SegmentFile, read_prefix};
use super::{JOURNAL_DIR, JournalShape};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parity that is kept in memory until it is written.
const BUFFER: u64 = 4 << 20;
/// Bytes of a segment that are read at a time.
const STEP: u64 = 1 << 20;
const ENDING: &str = ".par";

/// Where the parity of a segment lies, by the path of the segment's file.
pub(crate) fn parity_path(segment: &str) -> String {
    format!("{}{ENDING}", segment.strip_suffix(".seg").unwrap_or(segment))
}

/// The paths of all files in the journal's directory that are called like parity.
pub(super) fn all_paths(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let listed = disk.list(JOURNAL_DIR)?;
    let named = listed.into_iter().filter(|listed| listed.name.ends_with(ENDING) && !listed.is_dir);
    Ok(named.map(|listed| format!("{JOURNAL_DIR}/{}", listed.name)).collect())
}

/// Bytes that the parity of a segment takes that is full.
pub(crate) fn parity_len(shape: &JournalShape, parity: ParityGeometry) -> u64 {
    let first = cairn_format::Lsn::ZERO;
    SegmentParity {
        volume: shape.volume,
        number: 0,
        first,
        last: first,
        covered: shape.segment,
        segment_len: shape.segment,
        parity,
    }
    .file_len()
}

/// The parity of a segment.
pub(crate) struct Sidecar {
    path: String,
    file: Arc<dyn DiskFile>,
    header: SegmentParity,
    code: ParityCode,
    /// Blocks of checksums that were asked for before: of the segment's sectors, and of the parity's.
    blocks: Mutex<Blocks>,
}

/// Blocks of checksums by which table they are of, the parity's or the segment's, and their number; none where neither copy
/// can be had.
type Blocks = HashMap<(bool, usize), Option<Vec<u64>>>;

/// What is wrong with a segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Examined {
    /// Sectors that are not what was written, by their numbers.
    pub(crate) damaged: Vec<u64>,
    /// Whether its file is too short.
    pub(crate) short: bool,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mended {
    /// Bytes that are right again.
    pub(crate) restored: Vec<Range<u64>>,
    /// Bytes that parity does not reach, or that the medium did not take.
    pub(crate) lost: Vec<Range<u64>>,
}

impl Sidecar {
    /// The parity in a file, if it can be used: if one of its headers says what it is of.
    pub(super) fn load(disk: &dyn Disk, path: &str, shape: &JournalShape) -> Option<Sidecar> {
        let file = disk.open(path, Access::Read).ok()?;
        let len = file.len().ok()?;
        let last = len.checked_sub(SEGMENT_PARITY_HEADER_LEN as u64)?;
        let header = [0, last].into_iter().find_map(|at| read_header(&*file, at, &shape.volume))?;
        if header.segment_len != shape.segment {
            return None;
        }
        Sidecar::of(path.to_owned(), file, header)
    }

    fn of(path: String, file: Arc<dyn DiskFile>, header: SegmentParity) -> Option<Sidecar> {
        let code = ParityCode::new(header.parity.data.into(), header.parity.parity.into())?;
        Some(Sidecar { path, file, header, code, blocks: Mutex::default() })
    }

    /// Makes that of a segment that is closed and synced; certain when this returns. What is left where it fails is of no
    /// use to anybody, and taken for nothing.
    pub(super) fn make(
        disk: &dyn Disk,
        segment: &SegmentFile,
        shape: &JournalShape,
        parity: ParityGeometry,
    ) -> io::Result<Sidecar> {
        let path = parity_path(&segment.path);
        remove(disk, &path)?;
        let header = SegmentParity {
            volume: shape.volume,
            number: segment.number,
            first: segment.first,
            last: segment.last,
            covered: segment.end,
            segment_len: shape.segment,
            parity,
        };
        let file = disk.open(&path, Access::CreateNew)?;
        let made = write(&*segment.file, &*file, &header).and_then(|()| disk.sync_dir(JOURNAL_DIR));
        if let Err(error) = made {
            // Half of it is of no use, and takes room that may be short.
            let _ = disk.remove(&path);
            return Err(error);
        }
        Sidecar::of(path, file, header).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn header(&self) -> &SegmentParity {
        &self.header
    }

    /// Bytes of its file.
    pub(super) fn len(&self) -> u64 {
        self.header.file_len()
    }

    /// Whether it is that of what a segment's file holds now, or held before it was damaged: not that of an earlier life. It is
    /// removed, for certain, before its segment is used again, so anything that speaks for it is enough.
    pub(super) fn speaks_for(&self, segment: &dyn DiskFile, shape: &JournalShape) -> bool {
        let copy = |at| {
            let mut copy = vec![0; SEGMENT_HEADER_LEN];
            segment.read_exact_at(&mut copy, at).ok()?;
            SegmentHeader::decode(&copy, &shape.volume).ok().map(|header| header.number)
        };
        let record = read_prefix(segment, &shape.volume, SEGMENT_DATA_START, shape.segment);
        let said = [copy(0), copy(SEGMENT_HEADER_LEN as u64), record.ok().map(|record| record.head.segment)];
        let mut numbers = said.into_iter().flatten();
        let number = self.header.number;
        numbers.clone().any(|n| n == number) || numbers.all(|n| n <= number)
    }

    /// The bytes of a sector of the segment that are protected; of the parity's sectors, which are counted on, where they lie
    /// in the parity's file.
    fn sector(&self, number: u64) -> Range<u64> {
        let of_segment = self.header.sectors();
        match number.checked_sub(of_segment) {
            None => number * SECTOR..((number + 1) * SECTOR).min(self.header.covered.into()),
            Some(number) => {
                let start = self.header.parity_unit(0) + number * SECTOR;
                start..start + SECTOR
            }
        }
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sector's checksum, where either copy of it can be had.
    fn sum_of(&self, number: u64) -> Option<u64> {
        let first = self.header.sectors();
        let of_parity = number >= first;
        let (sectors, nth) = match of_parity {
            true => (self.header.parity_sectors(), number - first),
            false => (first, number),
        };
        let (block, of) = SumTable::block_of(nth);
        if let Some(known) = self.blocks().get(&(of_parity, block)) {
            return known.as_ref().and_then(|sums| sums.get(of).copied());
        }
        let copies = if of_parity { self.header.parity_sums() } else { self.header.sums() };
        let owner = self.header.owner();
        let table = SumTable { owner: &owner, first: if of_parity { first } else { 0 } };
        let at = SumTable::block(sectors, block);
        let read = |copy: Range<u64>| {
            let bytes = raw(&*self.file, copy.start + at.start..copy.start + at.end)?;
            table.decode_block(block, &bytes)
        };
        let found = copies.into_iter().find_map(read);
        let sum = found.as_ref().and_then(|sums| sums.get(of).copied());
        self.blocks().insert((of_parity, block), found);
        sum
    }

    /// Whether a sector's bytes are what they were, where anything says so.
    fn matches(&self, number: u64, bytes: &[u8]) -> Option<bool> {
        Some(self.sum_of(number)? == sector_sum(&self.header.owner(), number, bytes))
    }

    /// A sector that is what it was, or of which nothing says otherwise.
    fn usable(&self, segment: &dyn DiskFile, number: u64) -> Option<Vec<u8>> {
        let file = if number < self.header.sectors() { segment } else { &*self.file };
        let bytes = raw(file, self.sector(number))?;
        (self.matches(number, &bytes) != Some(false)).then_some(bytes)
    }

    /// A sector of the segment, computed from the others; none where too many of those are lost.
    fn restore(&self, segment: &dyn DiskFile, number: u64, plans: &mut Plans) -> Option<Vec<u8>> {
        let rows = self.header.stripe().unit() / SECTOR;
        let (wanted, row) = ((number / rows) as usize, number % rows);
        let data = self.code.data();
        let mut lost = vec![wanted];
        let mut parts: Vec<Vec<u8>> = Vec::with_capacity(data + self.code.parity());
        for shard in 0..data + self.code.parity() {
            let at = match shard.checked_sub(data) {
                None => shard as u64 * rows + row,
                Some(unit) => self.header.sectors() + unit as u64 * rows + row,
            };
            // Behind the end of what is protected there are zeros.
            let beyond = shard < data && at >= self.header.sectors();
            parts.push(match shard {
                _ if shard == wanted || beyond => Vec::new(),
                _ => self.usable(segment, at).unwrap_or_else(|| {
                    lost.push(shard);
                    Vec::new()
                }),
            });
        }
        lost.sort_unstable();
        let plan = plans.entry(lost).or_insert_with_key(|lost| self.code.plan(lost)).as_ref()?;
        let sources: Vec<&[u8]> = plan.sources().iter().map(|shard| &parts[*shard][..]).collect();
        let at = self.sector(number);
        let mut restored = vec![0; (at.end - at.start) as usize];
        // The others that are lost are not asked for: they get no room.
        let mut outputs: Vec<&mut [u8]> = plan.lost().iter().map(|_| Default::default()).collect();
        *outputs.get_mut(plan.lost().iter().position(|shard| *shard == wanted)?)? = &mut restored;
        plan.restore(&sources, &mut outputs);
        (self.matches(number, &restored) == Some(true)).then_some(restored)
    }

    /// The segment as it was, as far as it comes back: what is damaged is restored in memory whenever it is read.
    pub(super) fn view(self: &Arc<Sidecar>, segment: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(View { sidecar: self.clone(), segment, plans: Mutex::default() })
    }

    /// Holds all of the segment that is protected against its checksums, past the page cache, while `go_on`: none where it was
    /// stopped.
    pub(crate) fn examine(
        &self,
        segment: &dyn DiskFile,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Examined> {
        segment.forget(0..self.header.segment_len.into());
        let short = segment.len().map_or(true, |len| len < self.header.segment_len.into());
        let mut examined = Examined { damaged: Vec::new(), short };
        let of_step = STEP / SECTOR;
        for first in (0..self.header.sectors()).step_by(of_step as usize) {
            if !go_on() {
                return None;
            }
            let end = (first + of_step).min(self.header.sectors());
            let all = self.sector(first).start..self.sector(end - 1).end;
            let bytes = raw(segment, all.clone());
            for number in first..end {
                let at = self.sector(number);
                let whole = match &bytes {
                    Some(bytes) => {
                        let part = &bytes[(at.start - all.start) as usize..(at.end - all.start) as usize];
                        self.matches(number, part)
                    }
                    // One of them cannot be read.
                    None => raw(segment, at).map_or(Some(false), |part| self.matches(number, &part)),
                };
                if whole == Some(false) {
                    examined.damaged.push(number);
                }
            }
        }
        Some(examined)
    }

    /// Whether all of its own file is what was written.
    pub(crate) fn is_whole(&self) -> bool {
        let header = &self.header;
        let headers = [0, header.second_header()];
        self.file.forget(0..header.file_len());
        // What is remembered may have been read before it rotted.
        self.blocks().clear();
        let owner = header.owner();
        let tables = [
            (header.sums(), 0, header.sectors()),
            (header.parity_sums(), header.sectors(), header.parity_sectors()),
        ];
        let table_is_whole = |start: u64, first: u64, sectors: u64| {
            let table = SumTable { owner: &owner, first };
            let blocks = (0..).map(|n| (n, SumTable::block(sectors, n))).take_while(|(_, at)| !at.is_empty());
            blocks.into_iter().all(|(n, at)| {
                let bytes = raw(&*self.file, start + at.start..start + at.end);
                bytes.is_some_and(|bytes| table.decode_block(n, &bytes).is_some())
            })
        };
        let parity = header.sectors()..header.sectors() + header.parity_sectors();
        let zeros = header.parity_sums().map(|table| table.end..table.end.next_multiple_of(SECTOR));
        zeros.into_iter().all(|at| raw(&*self.file, at).is_some_and(|bytes| bytes.iter().all(|b| *b == 0)))
            && headers.into_iter().all(|at| read_header(&*self.file, at, &header.volume) == Some(*header))
            && self.file.len().is_ok_and(|len| len == header.file_len())
            && tables.into_iter().all(|(copies, first, sectors)| {
                copies.into_iter().all(|copy| table_is_whole(copy.start, first, sectors))
            })
            && parity.into_iter().all(|number| {
                let bytes = raw(&*self.file, self.sector(number));
                bytes.is_some_and(|bytes| self.matches(number, &bytes) == Some(true))
            })
    }

    /// Which of what is damaged comes back, and which does not.
    pub(crate) fn reach(&self, segment: &dyn DiskFile, examined: &Examined) -> Mended {
        let (restored, lost) = self.restore_all(segment, examined);
        Mended { restored: self.runs(restored.iter().map(|(number, _)| *number)), lost: self.runs(lost) }
    }

    /// Writes what comes back in its place, makes it certain, and reads it again.
    pub(crate) fn write_back(&self, segment: &dyn DiskFile, examined: &Examined) -> io::Result<Mended> {
        let (restored, mut lost) = self.restore_all(segment, examined);
        for (number, bytes) in &restored {
            let at = self.sector(*number);
            // Nothing that counts, but of a sector that cannot be read only all can be written.
            let rest = at.end..at.end.next_multiple_of(SECTOR).min(self.header.segment_len.into());
            let rest =
                raw(segment, rest.clone()).unwrap_or_else(|| vec![0; (rest.end - rest.start) as usize]);
            segment.write_at(&[&bytes[..], &rest].concat(), at.start)?;
        }
        if examined.short && lost.is_empty() {
            segment.set_len(self.header.segment_len.into())?;
        }
        segment.sync()?;
        segment.forget(0..self.header.segment_len.into());
        let (right, wrong): (Vec<_>, Vec<_>) = restored.into_iter().partition(|(number, bytes)| {
            raw(segment, self.sector(*number)).is_some_and(|found| found == *bytes)
        });
        lost.extend(wrong.into_iter().map(|(number, _)| number));
        lost.sort_unstable();
        Ok(Mended { restored: self.runs(right.iter().map(|(number, _)| *number)), lost: self.runs(lost) })
    }

    /// The damaged sectors that come back, with their bytes, and those that do not. All before anything is written: they
    /// are computed from each other.
    fn restore_all(&self, segment: &dyn DiskFile, examined: &Examined) -> (Vec<(u64, Vec<u8>)>, Vec<u64>) {
        let (mut restored, mut lost, mut plans) = (Vec::new(), Vec::new(), Plans::new());
        for number in &examined.damaged {
            match self.restore(segment, *number, &mut plans) {
                Some(bytes) => restored.push((*number, bytes)),
                None => lost.push(*number),
            }
        }
        (restored, lost)
    }

    /// The bytes of sectors, those that touch as one.
    fn runs(&self, sectors: impl IntoIterator<Item = u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for at in sectors.into_iter().map(|number| self.sector(number)) {
            match runs.last_mut() {
                Some(last) if last.end == at.start => last.end = at.end,
                _ => runs.push(at),
            }
        }
        runs
    }
}

/// How shards come back, by those that are lost: one pattern repeats from row to row.
type Plans = HashMap<Vec<usize>, Option<RestorePlan>>;

/// Removes a file that may not be there.
pub(super) fn remove(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes as they are; none where they are not there, or cannot be read.
fn raw(file: &dyn DiskFile, range: Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes)
}

fn read_header(file: &dyn DiskFile, at: u64, volume: &Uuid) -> Option<SegmentParity> {
    let bytes = raw(file, at..at + SEGMENT_PARITY_HEADER_LEN as u64)?;
    SegmentParity::decode(&bytes, volume).ok()
}

/// Writes the parity of `segment`, and syncs it.
fn write(segment: &dyn DiskFile, file: &dyn DiskFile, header: &SegmentParity) -> io::Result<()> {
    let owner = header.owner();
    let sums = sector_sums(segment, header)?;
    let parity_sums = write_parity(segment, file, header)?;
    let mut tables = SumTable { owner: &owner, first: 0 }.encode(&sums);
    tables.extend(SumTable { owner: &owner, first: header.sectors() }.encode(&parity_sums));
    tables.resize((header.parity_unit(0) - SECTOR) as usize, 0);
    let head = header.encode();
    file.write_at(&[&tables[..], &head].concat(), header.sums()[1].start)?;
    file.write_at(&[&head, &tables[..]].concat(), 0)?;
    file.sync()
}

fn sector_sums(segment: &dyn DiskFile, header: &SegmentParity) -> io::Result<Vec<u64>> {
    let (owner, covered) = (header.owner(), u64::from(header.covered));
    let mut sums = Vec::with_capacity(header.sectors() as usize);
    let mut buffer = vec![0; STEP.min(covered) as usize];
    for start in (0..covered).step_by(STEP as usize) {
        let part = &mut buffer[..STEP.min(covered - start) as usize];
        segment.read_exact_at(part, start)?;
        let sectors = part.chunks(SECTOR as usize).zip(start / SECTOR..);
        sums.extend(sectors.map(|(bytes, number)| sector_sum(&owner, number, bytes)));
    }
    Ok(sums)
}

/// Writes the parity units, a range of columns after another; gives the checksums of their sectors.
fn write_parity(segment: &dyn DiskFile, file: &dyn DiskFile, header: &SegmentParity) -> io::Result<Vec<u64>> {
    let (stripe, owner) = (header.stripe(), header.owner());
    let units = usize::from(header.parity.parity);
    let rows = stripe.unit() / SECTOR;
    let mut sums = vec![0; header.parity_sectors() as usize];
    let group = (BUFFER / units as u64 / SECTOR * SECTOR).max(SECTOR).min(stripe.unit());
    for from in (0..stripe.unit()).step_by(group as usize) {
        let width = group.min(stripe.unit() - from);
        let mut parity = vec![0; units * width as usize];
        encode_columns(segment, &stripe, from..from + width, &mut parity)?;
        for (unit, part) in parity.chunks_exact(width as usize).enumerate() {
            file.write_at(part, header.parity_unit(unit) + from)?;
            let first = unit as u64 * rows + from / SECTOR;
            for (number, sector) in (first..).zip(part.chunks(SECTOR as usize)) {
                sums[number as usize] = sector_sum(&owner, header.sectors() + number, sector);
            }
        }
    }
    Ok(sums)
}

/// A segment whose damaged sectors are restored whenever they are read.
struct View {
    sidecar: Arc<Sidecar>,
    segment: Arc<dyn DiskFile>,
    plans: Mutex<Plans>,
}

impl View {
    /// A sector of the segment: as it was, or, where it does not come back, as it is.
    fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        let at = self.sidecar.sector(number);
        let bytes = raw(&*self.segment, at);
        if let Some(bytes) = &bytes
            && self.sidecar.matches(number, bytes) != Some(false)
        {
            return Ok(bytes.clone());
        }
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let restored = self.sidecar.restore(&*self.segment, number, &mut plans);
        restored.or(bytes).ok_or_else(|| io::Error::other("it cannot be read, and parity does not reach"))
    }
}

impl DiskFile for View {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let covered = u64::from(self.sidecar.header.covered);
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            if at >= covered {
                // Nothing that counts.
                let rest = self.segment.read_at(&mut buf[done..], at);
                return if done > 0 { Ok(done + rest.unwrap_or(0)) } else { rest };
            }
            let number = at / SECTOR;
            let bytes = match self.read(number) {
                Ok(bytes) => bytes,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            };
            let part = &bytes[(at - number * SECTOR) as usize..];
            let len = part.len().min(buf.len() - done);
            buf[done..done + len].copy_from_slice(&part[..len]);
            done += len;
        }
        Ok(done)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.sidecar.header.segment_len.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn forget(&self, range: Range<u64>) {
        self.segment.forget(range);
    }
}
