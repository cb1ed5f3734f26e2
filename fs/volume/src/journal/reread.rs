//! Reading closed segments again, to find what rots while nobody asks for it; what parity restores is written back.

use std::ops::Range;

use cairn_format::{RECORD_HEAD_LEN, SECTOR, SEGMENT_DATA_START};
use cairn_store::heal::Health;

use super::parity::Mended;
use super::replay::{check_payload, end_of};
use super::segment::{ReadAhead, SegmentFile};
use super::{Journal, JournalShape};

/// Bytes that are not what was written.
#[derive(Clone, Debug)]
pub(crate) struct BadBytes {
    pub(crate) path: String,
    pub(crate) offset: u64,
    /// How many, as far as is known.
    pub(crate) len: u64,
    pub(crate) reason: String,
}

/// What came of reading segments again.
#[derive(Default)]
pub(crate) struct Reread {
    /// Records that were held against their checksums.
    pub(crate) records: u64,
    /// Sectors that were written back.
    pub(crate) corrected: u64,
    /// What is damaged still.
    pub(crate) bad: Vec<BadBytes>,
}

impl Journal {
    /// Holds all segments but the one that is being filled against their checksums, while `go_on`; has what is damaged and comes
    /// back written back where there is a `health` to tell of it. What a checkpoint makes superfluous meanwhile counts as whole.
    pub(crate) fn reread(&self, health: Option<&Health>, go_on: &mut dyn FnMut() -> bool) -> Reread {
        let mut closed: Vec<u64> = self.log().live.iter().map(|segment| segment.number).collect();
        closed.pop();
        let mut all = Reread::default();
        for number in closed {
            let Some(before) = self.live_segment(number) else { continue };
            let mended = match health {
                Some(health) => self.mend_segment(number, health, go_on),
                None => None,
            };
            let Some(segment) = self.live_segment(number) else { continue };
            let mut found = Reread::default();
            match mended {
                Some(mended) => {
                    found.corrected += mended.restored.iter().map(sectors).sum::<u64>();
                    found.records(&segment, &self.shape, go_on);
                    found.lost(&segment, &mended);
                    if found.bad.is_empty() && self.renew_parity(number) {
                        found.corrected += 1;
                    }
                }
                None => found.segment(&before, &self.shape, go_on),
            }
            all.records += found.records;
            all.corrected += found.corrected;
            // One that is used again holds other records.
            if self.live_segment(number).is_some() {
                all.bad.append(&mut found.bad);
            }
        }
        all
    }
}

/// The same for segments that nobody writes to, of which nothing is written back.
pub(crate) fn reread(
    segments: &[SegmentFile],
    shape: &JournalShape,
    go_on: &mut dyn FnMut() -> bool,
) -> Reread {
    let mut all = Reread::default();
    for segment in segments {
        all.segment(segment, shape, go_on);
    }
    all
}

impl Reread {
    /// Looks through a segment and its parity, and writes nothing.
    fn segment(&mut self, segment: &SegmentFile, shape: &JournalShape, go_on: &mut dyn FnMut() -> bool) {
        let Some(parity) = &segment.parity else { return self.records(segment, shape, go_on) };
        let Some(examined) = parity.examine(&*segment.file, go_on) else { return };
        let reach = parity.reach(&*segment.file, &examined);
        for at in &reach.restored {
            self.bad(&segment.path, at, "damaged: parity restores it, nothing is written back here");
        }
        self.records(&SegmentFile { restored: true, ..segment.clone() }, shape, go_on);
        self.lost(segment, &reach);
        if !parity.is_whole() {
            let at = 0..parity.len();
            self.bad(parity.path(), &at, "damaged: it protects a segment, and nothing is written back here");
        }
    }

    fn bad(&mut self, path: &str, at: &Range<u64>, reason: &str) {
        let len = at.end - at.start;
        self.bad.push(BadBytes { path: path.into(), offset: at.start, len, reason: reason.into() });
    }

    /// What parity does not reach, where no record tells of it.
    fn lost(&mut self, segment: &SegmentFile, reach: &Mended) {
        if !self.bad.iter().any(|bad| bad.path == segment.path) {
            reach.lost.iter().for_each(|at| self.bad(&segment.path, at, "lost: parity does not reach"));
        }
    }

    /// Holds a segment's records against their checksums.
    fn records(&mut self, segment: &SegmentFile, shape: &JournalShape, go_on: &mut dyn FnMut() -> bool) {
        let source = segment.source();
        source.forget(0..shape.segment.into());
        let mut ahead = ReadAhead::new(&*source);
        let (mut offset, mut lsn) = (SEGMENT_DATA_START, segment.first);
        while lsn <= segment.last && go_on() {
            let at = |len| u64::from(offset)..u64::from(offset) + len;
            let hint = "`cairn sync` brings what can be read to packs";
            let record = match ahead.prefix(&shape.volume, offset, shape.segment) {
                Ok(record) if record.head.lsn == lsn => record,
                Ok(record) => {
                    let reason = format!("record {} is where {lsn} should be; {hint}", record.head.lsn);
                    return self.bad(&segment.path, &at(RECORD_HEAD_LEN as u64), &reason);
                }
                Err(reason) => {
                    let reason = format!("record {lsn}, and what follows it in this file: {reason}; {hint}");
                    return self.bad(&segment.path, &at(RECORD_HEAD_LEN as u64), &reason);
                }
            };
            if let Err(reason) = check_payload(&mut ahead, offset, &record, shape) {
                let reason = format!("record {lsn}: {reason}; {hint}");
                self.bad(&segment.path, &at(record.head.record_len()), &reason);
            }
            self.records += 1;
            offset = end_of(offset, &record);
            lsn = lsn.next();
        }
    }
}

/// Sectors that a range lies in.
fn sectors(at: &Range<u64>) -> u64 {
    at.end.div_ceil(SECTOR) - at.start / SECTOR
}
