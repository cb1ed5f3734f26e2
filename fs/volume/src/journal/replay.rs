//! Finding out what a journal holds: which segments form the chain of records that count, where it ends,
//! and whether that end is a torn tail or damage.
//!
//! A record that does not decode ends the chain. If any record anywhere says that this LSN was synced, or a
//! later mount built on records behind it, something that was certain is gone: damage. Otherwise it is
//! what a power cut may leave of records that nobody was promised.

use std::collections::HashMap;
use std::time::Instant;

use cairn_format::{
    Answer, CheckpointRef, Lsn, Mutation, PAYLOAD_BLOCK, RECORD_ALIGN, Record, RecordHead,
    SEGMENT_DATA_START, SegmentHeader,
};
use cairn_store::disk::{Access, Disk, DiskFile};

use super::parity::{self, Sidecar, parity_path};
use super::segment::{ReadAhead, SegmentFile, check_blocks, read_header, read_prefix};
use super::{Appended, JOURNAL_DIR, JournalShape};
use crate::sync::Arc;

/// Files of segments are not numbered further: four times as many as a journal may have.
const FILES_MAX: u32 = 1 << 18;

/// A record on the way through a replay.
pub struct ScannedRecord<'a> {
    /// Where it is.
    pub at: Appended,
    /// What it changes.
    pub mutations: &'a [Mutation],
    /// Bytes of its payload.
    pub payload_len: u32,
    /// See [`RecordHead::owed`].
    pub owed: u32,
    /// The request it concludes.
    pub answer: Answer,
}

/// The journal cannot be replayed: something certain is missing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChainError {
    /// The disk below failed.
    #[error("{path}: {reason}")]
    Io {
        /// The file or directory.
        path: String,
        /// What the disk said.
        reason: String,
    },
    /// Records that were synced cannot be read.
    #[error("the journal is damaged behind record {last}: {reason}")]
    Damaged {
        /// The last good record before the damage.
        last: Lsn,
        /// What was found there.
        reason: String,
    },
}

/// What a journal holds.
#[derive(Default)]
pub struct Chain {
    /// The segments whose records count, in order.
    pub(crate) segments: Vec<SegmentFile>,
    /// Files that hold nothing that counts.
    pub(crate) unused: Vec<(String, Arc<dyn DiskFile>)>,
    /// Segment files there are; the next gets this number.
    pub files: u32,
    /// The highest segment number ever seen.
    pub highest_number: u64,
    /// The highest epoch seen.
    pub highest_epoch: u32,
    /// The newest checkpoint that a header or a record names, and its floor.
    pub checkpoint: (CheckpointRef, Lsn),
    /// The record before the first.
    pub continues: Lsn,
    /// The last record that counts.
    pub last: Lsn,
    /// The highest LSN that any record says is synced.
    pub synced: Lsn,
    /// What was found behind the last record, where that was not simply unused.
    pub tail: Option<String>,
    /// Segments whose headers cannot be read, each with the reason; their records say as much.
    pub bad_headers: Vec<(String, String)>,
    /// Files of parity that belong to no segment whose records count.
    pub strays: Vec<String>,
}

/// A segment that has a header, or what stands for it.
struct Found {
    path: String,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
    parity: Option<Arc<Sidecar>>,
}

/// How a journal is scanned.
#[derive(Clone, Copy)]
struct How {
    /// Opens segments for writing, and removes what is of no use.
    writes: bool,
    /// Has what is damaged restored from parity.
    restores: bool,
    /// From which record on, where that is not what a checkpoint needs.
    wanted: Option<Lsn>,
}

struct Walked {
    segment: SegmentFile,
    header: SegmentHeader,
    /// Why the walk ended.
    stop: String,
}

/// Reads the whole journal. `error` comes with what could be read, for fsck.
pub fn scan(disk: &dyn Disk, shape: &JournalShape) -> (Chain, Option<ChainError>) {
    scan_as(disk, shape, How { writes: true, restores: true, wanted: None })
}

/// As [`scan`], but what is damaged is not restored from parity.
pub(crate) fn scan_unrestored(disk: &dyn Disk, shape: &JournalShape) -> (Chain, Option<ChainError>) {
    scan_as(disk, shape, How { writes: true, restores: false, wanted: None })
}

/// As [`scan`], but opens nothing for writing and removes nothing: what it gives cannot be resumed.
pub fn scan_read_only(disk: &dyn Disk, shape: &JournalShape) -> (Chain, Option<ChainError>) {
    scan_as(disk, shape, How { writes: false, restores: true, wanted: None })
}

/// As [`scan_read_only`], but with what lies from `floor` on, though a checkpoint made it superfluous: as far as its segments
/// were not used again since.
pub fn scan_read_only_from(disk: &dyn Disk, shape: &JournalShape, floor: Lsn) -> (Chain, Option<ChainError>) {
    scan_as(disk, shape, How { writes: false, restores: true, wanted: Some(floor) })
}

fn scan_as(disk: &dyn Disk, shape: &JournalShape, how: How) -> (Chain, Option<ChainError>) {
    let mut chain = Chain::default();
    let error = scan_into(disk, shape, &mut chain, how).err();
    // What nobody could use is not kept, either.
    let used = |path: &String| {
        chain.segments.iter().any(|s| s.parity.as_ref().is_some_and(|parity| parity.path() == path))
    };
    chain.strays =
        parity::all_paths(disk).unwrap_or_default().into_iter().filter(|path| !used(path)).collect();
    (chain, error)
}

/// The parity that there is, by the path of the segment's file that it lies beside. Each that is whole says up to where the
/// journal was synced, be its segment's file what it may.
fn all_parity(
    disk: &dyn Disk,
    shape: &JournalShape,
    chain: &mut Chain,
) -> Result<HashMap<String, Arc<Sidecar>>, std::io::Error> {
    let paths = parity::all_paths(disk)?.into_iter();
    let all: HashMap<_, _> =
        paths.filter_map(|path| Some((path.clone(), Arc::new(Sidecar::load(disk, &path, shape)?)))).collect();
    chain.synced = all.values().map(|parity| parity.header().last).max().unwrap_or(Lsn::ZERO);
    Ok(all)
}

fn scan_into(disk: &dyn Disk, shape: &JournalShape, chain: &mut Chain, how: How) -> Result<(), ChainError> {
    let io = |path: &str| {
        let path = path.to_owned();
        move |e: std::io::Error| ChainError::Io { path, reason: e.to_string() }
    };
    let mut found = Vec::new();
    let mut suspects = Vec::new();
    let parity = all_parity(disk, shape, chain).map_err(io(JOURNAL_DIR))?;
    for listed in disk.list(JOURNAL_DIR).map_err(io(JOURNAL_DIR))? {
        let number = listed.name.strip_suffix(".seg").and_then(|n| u32::from_str_radix(n, 16).ok());
        let Some(n) = number.filter(|n| *n < FILES_MAX) else { continue };
        chain.files = chain.files.max(n + 1);
        let path = format!("{JOURNAL_DIR}/{}", listed.name);
        let access = if how.writes { Access::Write } else { Access::Read };
        let file = disk.open(&path, access).or_else(|_| disk.open(&path, Access::Read)).map_err(io(&path))?;
        let short = listed.len < shape.segment.into();
        let own = parity.get(&parity_path(&path)).filter(|parity| parity.speaks_for(&*file, shape)).cloned();
        let mut header = read_header(&*file, shape);
        if let Some(parity) = own.as_ref().filter(|_| how.restores)
            && let Ok(Some(Ok(restored))) = read_header(&*parity.view(file.clone()), shape)
            && restored.number == parity.header().number
        {
            header = Ok(Some(Ok(restored)));
        }
        match header.map_err(io(&path))? {
            // A power cut while a segment was made leaves a short file that nothing is in.
            None if short => suspects.push((path, file, own, "it is too short".to_owned())),
            None => chain.unused.push((path, file)),
            Some(Ok(header)) => found.push(Found { path, file, header, parity: own }),
            Some(Err(reason)) => suspects.push((path, file, own, reason)),
        }
    }
    for (path, file, parity, reason) in suspects {
        match read_prefix(&*file, &shape.volume, SEGMENT_DATA_START, shape.segment) {
            // Its first record is whole and says all that a header would: the header was lost later, or
            // never came to the disk.
            Ok(record) => {
                let header = header_from(&record, shape);
                chain.bad_headers.push((path.clone(), reason));
                found.push(Found { path, file, header, parity });
            }
            // A header torn while it was written, before any record.
            Err(_) if file.len().is_ok_and(|len| len >= shape.segment.into()) => {
                chain.unused.push((path, file))
            }
            Err(_) if how.writes => {
                // It would be too short to use again; made anew when needed.
                let _ = disk.remove(&path);
            }
            Err(_) => {}
        }
    }
    found.sort_by_key(|f| f.header.number);
    found.iter().for_each(|f| chain.note_header(&f.header));
    // Segments that a checkpoint made superfluous and nobody used again since: a later one begins below what anybody
    // needs. A journal holds many of them, so they are not gone through.
    let floor = how.wanted.unwrap_or(chain.checkpoint.1);
    let first = found.iter().rposition(|f| f.header.continues < floor).unwrap_or(0);
    chain.unused.extend(found.drain(..first).map(|f| (f.path, f.file)));
    let mut walked: Vec<_> = found.into_iter().map(|f| walk(f, shape, chain, how.restores)).collect();
    // The same, as their records tell.
    let floor = how.wanted.unwrap_or(chain.checkpoint.1);
    for old in walked.extract_if(.., |w| w.segment.last < floor) {
        chain.unused.push((old.segment.path, old.segment.file));
    }
    link(walked, chain, shape)
}

/// The header of the segment that begins with `record`. What trimming relied on, other headers and records say.
fn header_from(record: &Record, shape: &JournalShape) -> SegmentHeader {
    let continues = record.mutations.iter().find_map(|m| match m {
        Mutation::Epoch { continues } if *continues < record.head.lsn => Some(*continues),
        _ => None,
    });
    SegmentHeader {
        volume: shape.volume,
        epoch: record.head.lsn.epoch(),
        len: shape.segment,
        number: record.head.segment,
        first: record.head.lsn,
        continues: continues.unwrap_or(Lsn(record.head.lsn.0 - 1)),
        checkpoint: CheckpointRef::NONE,
        floor: Lsn::ZERO,
    }
}

/// Follows a segment's records for as long as they are whole and in order; where those that its parity knows of are not, once
/// more with what that restores.
fn walk(found: Found, shape: &JournalShape, chain: &mut Chain, restores: bool) -> Walked {
    let Found { path, file, header, parity } = found;
    let mut segment = SegmentFile::new(path, file, &header);
    segment.parity = parity.filter(|parity| parity.header().number == header.number);
    // Whoever finds it closed it, or will not write to it.
    segment.closed = Some(Instant::now());
    let mut stop = walk_segment(&mut segment, &header, shape, chain);
    if let Some(parity) = segment.parity.clone().filter(|_| restores)
        && segment.last < parity.header().last
    {
        let mut again = SegmentFile { restored: true, last: header.continues, ..segment.clone() };
        let stop_again = walk_segment(&mut again, &header, shape, chain);
        if again.last > segment.last {
            (segment, stop) = (again, stop_again);
        }
    }
    let source = segment.source();
    chain.synced = chain.synced.max(synced_behind(&segment, &*source, shape));
    Walked { segment, header, stop }
}

/// Notes how far a segment's records are whole and in order, and gives why they end there.
fn walk_segment(
    segment: &mut SegmentFile,
    header: &SegmentHeader,
    shape: &JournalShape,
    chain: &mut Chain,
) -> String {
    let mut end = SEGMENT_DATA_START;
    let mut expected = header.first;
    let source = segment.source();
    let mut ahead = ReadAhead::new(&*source);
    let stop = loop {
        let record = match ahead.prefix(&shape.volume, end, shape.segment) {
            Ok(record) => record,
            Err(reason) => break reason,
        };
        if record.head.lsn != expected || record.head.segment != header.number {
            break format!("record {} of segment {} lies there", record.head.lsn, record.head.segment);
        }
        chain.synced = chain.synced.max(record.head.synced);
        for mutation in &record.mutations {
            // Appended only once the checkpoint was certain, so it counts even in a tail that does not.
            if let Mutation::Checkpoint { at, floor } = mutation
                && *at > chain.checkpoint.0
            {
                chain.checkpoint = (*at, *floor);
            }
        }
        segment.last = expected;
        expected = expected.next();
        end = end_of(end, &record);
    };
    segment.end = end;
    stop
}

/// The highest LSN that whole records behind the end of a walk say is synced. They do not count themselves, but what
/// they say was so: it is how damage within a segment is told from a torn tail.
fn synced_behind(segment: &SegmentFile, source: &dyn DiskFile, shape: &JournalShape) -> Lsn {
    const STEP: usize = 1 << 20;
    let (mut synced, end) = (Lsn::ZERO, segment.end);
    // What looks like records may overlap: all of them together are not read more often than a few times.
    let mut left = u64::from(shape.segment) * 4;
    let mut part = vec![0; STEP.min(shape.segment.saturating_sub(end) as usize)];
    for start in (end..shape.segment).step_by(STEP) {
        // What cannot be read says nothing.
        let Ok(len) = source.read_at(&mut part, start.into()) else { continue };
        for at in RecordHead::candidates(&part[..len]) {
            // Those of the file's earlier lives have other numbers.
            let Ok(head) = RecordHead::peek(&part[at..len]) else { continue };
            let here = head.segment == segment.number && head.lsn > segment.last;
            if !here || head.synced <= synced || head.prefix_len() > left {
                continue;
            }
            left -= head.prefix_len();
            if read_prefix(source, &shape.volume, start + at as u32, shape.segment).is_ok() {
                synced = head.synced;
            }
        }
    }
    synced
}

/// That all of a record's payload is what was written.
pub(super) fn check_payload(
    ahead: &mut ReadAhead<'_>,
    offset: u32,
    record: &Record,
    shape: &JournalShape,
) -> Result<(), String> {
    const BLOCKS: usize = 256;
    let start = u64::from(offset) + record.head.prefix_len();
    let len = record.head.payload_len as usize;
    for first in (0..record.sums.len()).step_by(BLOCKS) {
        let at = first * PAYLOAD_BLOCK;
        let part = (len - at).min(BLOCKS * PAYLOAD_BLOCK);
        let part = ahead.get(start + at as u64, part).map_err(|e| e.to_string())?;
        check_blocks(&shape.volume, first, part, &record.sums)?;
    }
    Ok(())
}

pub(super) fn end_of(offset: u32, record: &Record) -> u32 {
    // A record that decoded lies within its segment.
    (u64::from(offset) + record.head.record_len()).next_multiple_of(RECORD_ALIGN.into()) as u32
}

/// Links segments: each continues where another ended; what a later mount did not continue is dropped.
fn link(walked: Vec<Walked>, chain: &mut Chain, shape: &JournalShape) -> Result<(), ChainError> {
    let mut linked: Vec<Walked> = Vec::new();
    let mut dropped = Vec::new();
    for next in walked {
        let continues = next.header.continues;
        // A mount that went on from an earlier record: all behind that never was.
        while linked.last().is_some_and(|prev| prev.header.first > continues) {
            dropped.extend(linked.pop());
        }
        if let Some(prev) = linked.last_mut()
            && continues < prev.segment.last
        {
            prev.segment.last = continues;
        }
        linked.push(next);
    }
    let gap = linked.windows(2).position(|pair| pair[0].segment.last != pair[1].header.continues);
    let mut error = None;
    if let Some(at) = gap {
        let (prev, next) = (&linked[at], &linked[at + 1]);
        let missing = prev.segment.last.next();
        if missing <= chain.synced || next.header.epoch != prev.header.epoch {
            error = Some((prev.segment.last, format!("{}; record {} is missing", prev.stop, missing)));
        }
        chain.tail = Some(prev.stop.clone());
        dropped.extend(linked.drain(at + 1..));
    }
    chain.unused.extend(dropped.into_iter().map(|w| (w.segment.path, w.segment.file)));
    chain.continues = linked.first().map_or(Lsn::ZERO, |w| w.header.continues);
    let mut stop = None;
    for walked in linked {
        stop = Some(walked.stop);
        chain.segments.push(walked.segment);
    }
    chain.last = chain.segments.last().map_or(Lsn::ZERO, |s| s.last);
    // The epoch's own last record was synced if any record says so.
    if error.is_none() && chain.synced > chain.last {
        error = Some((chain.last, stop.unwrap_or_else(|| "no segment holds records".into())));
    }
    match error {
        Some((last, reason)) => Err(ChainError::Damaged { last, reason }),
        None => chain.cut_torn_payload(shape),
    }
}

impl Chain {
    fn note_header(&mut self, header: &SegmentHeader) {
        self.highest_number = self.highest_number.max(header.number);
        self.highest_epoch = self.highest_epoch.max(header.epoch);
        // Whatever trimming relied on was certain before this header was written.
        if header.checkpoint > self.checkpoint.0 {
            self.checkpoint = (header.checkpoint, header.floor);
        }
    }

    /// Whether it holds all records that the checkpoint at `tip` needs, from `floor` on: or the volume would be older than
    /// it was.
    pub fn reaches(&self, tip: CheckpointRef, floor: Lsn) -> bool {
        match tip {
            // All there ever were.
            CheckpointRef::NONE => self.continues == Lsn::ZERO,
            tip => self.last <= tip.lsn || self.continues < floor,
        }
    }

    /// Forgets all records: a checkpoint holds everything, and what comes next continues that.
    pub(crate) fn discard(&mut self) {
        (self.continues, self.last) = (Lsn::ZERO, Lsn::ZERO);
        self.unused.extend(self.segments.drain(..).map(|s| (s.path, s.file)));
    }

    /// Drops the tail from the first unsynced record whose payload is not whole. (Damaged payloads of
    /// synced records are found when they are read.)
    fn cut_torn_payload(&mut self, shape: &JournalShape) -> Result<(), ChainError> {
        let mut torn = None;
        let synced = self.synced;
        self.walk_records(shape, synced, |ahead, _, offset, record| {
            if let Err(reason) = check_payload(ahead, offset, record, shape) {
                torn = Some((record.head.lsn, reason));
            }
            torn.is_none()
        })?;
        let Some((lsn, reason)) = torn else { return Ok(()) };
        while self.segments.last().is_some_and(|s| s.first >= lsn && s.number > 0) && self.segments.len() > 1
        {
            if let Some(segment) = self.segments.pop() {
                self.unused.push((segment.path, segment.file));
            }
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.last = Lsn(lsn.0 - 1).max(Lsn(segment.first.0 - 1));
            self.last = segment.last;
        }
        self.tail = Some(reason);
        Ok(())
    }

    /// Calls `each` with the records behind `after` that count, in order, until it says false.
    fn walk_records(
        &self,
        shape: &JournalShape,
        after: Lsn,
        mut each: impl FnMut(&mut ReadAhead<'_>, &SegmentFile, u32, &Record) -> bool,
    ) -> Result<(), ChainError> {
        for segment in self.segments.iter().filter(|s| s.last > after) {
            let mut offset = SEGMENT_DATA_START;
            let mut lsn = segment.first;
            let source = segment.source();
            let mut ahead = ReadAhead::new(&*source);
            while lsn <= segment.last {
                let record = ahead
                    .prefix(&shape.volume, offset, shape.segment)
                    .map_err(|reason| ChainError::Damaged { last: Lsn(lsn.0 - 1), reason })?;
                if lsn > after && !each(&mut ahead, segment, offset, &record) {
                    return Ok(());
                }
                offset = end_of(offset, &record);
                lsn = lsn.next();
            }
        }
        Ok(())
    }

    /// Calls `each` with every record that counts, in order.
    pub fn records(
        &self,
        shape: &JournalShape,
        mut each: impl FnMut(&ScannedRecord<'_>),
    ) -> Result<(), ChainError> {
        self.walk_records(shape, Lsn::ZERO, |_, segment, offset, record| {
            each(&ScannedRecord {
                at: Appended { lsn: record.head.lsn, segment: segment.number, offset },
                mutations: &record.mutations,
                payload_len: record.head.payload_len,
                owed: record.head.owed,
                answer: record.head.answer,
            });
            true
        })
    }

    /// Reads journalled bytes of a chain that nobody has resumed.
    pub fn read(
        &self,
        shape: &JournalShape,
        at: &cairn_format::JournalRef,
        out: &mut [u8],
    ) -> Result<(), super::JournalError> {
        self.read_healing(shape, at, out, true).map(|_| ())
    }

    /// The same, from parity only where it is to `heal`: then the file that is damaged comes with it.
    pub(crate) fn read_healing(
        &self,
        shape: &JournalShape,
        at: &cairn_format::JournalRef,
        out: &mut [u8],
        heal: bool,
    ) -> Result<Option<String>, super::JournalError> {
        match self.segments.iter().find(|s| s.number == at.segment) {
            Some(segment) => {
                let restored = segment.read(shape, (at, 0), out, heal)?;
                Ok(restored.then(|| segment.path.clone()))
            }
            None => Err(super::JournalError::Gone(at.segment)),
        }
    }

    /// Bytes of segments that hold records that count.
    pub fn used(&self, shape: &JournalShape) -> u64 {
        self.segments.len() as u64 * u64::from(shape.segment)
    }
}
