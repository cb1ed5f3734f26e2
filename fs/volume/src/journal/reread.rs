//! Reading the records of closed segments again, to find what rots while nobody asks for it.

use cairn_format::{RECORD_HEAD_LEN, SEGMENT_DATA_START};

use super::replay::{check_payload, end_of};
use super::segment::{ReadAhead, SegmentFile};
use super::{Journal, JournalShape};

/// A record that is not what was written.
#[derive(Clone, Debug)]
pub(crate) struct BadRecord {
    pub(crate) path: String,
    pub(crate) offset: u32,
    /// Bytes of it, as far as is known.
    pub(crate) len: u64,
    pub(crate) reason: String,
}

impl Journal {
    /// Holds the records of all segments but the one that is being filled against their checksums, while `go_on`: how many
    /// there are, and those that do not match. What a checkpoint makes superfluous meanwhile counts as whole.
    pub(crate) fn reread(&self, go_on: &mut dyn FnMut() -> bool) -> (u64, Vec<BadRecord>) {
        let mut closed: Vec<SegmentFile> = self.log().live.iter().cloned().collect();
        closed.pop();
        let (mut records, mut bad) = (0, Vec::new());
        for segment in closed {
            let (read, found) = reread(std::slice::from_ref(&segment), &self.shape, go_on);
            records += read;
            // One that is used again holds other records.
            if self.log().live.iter().any(|live| live.number == segment.number) {
                bad.extend(found);
            }
        }
        (records, bad)
    }
}

/// The same for segments that nobody writes to.
pub(crate) fn reread(
    segments: &[SegmentFile],
    shape: &JournalShape,
    go_on: &mut dyn FnMut() -> bool,
) -> (u64, Vec<BadRecord>) {
    let (mut records, mut bad) = (0, Vec::new());
    for segment in segments {
        segment.file.forget(0..shape.segment.into());
        let mut ahead = ReadAhead::new(&*segment.file);
        let (mut offset, mut lsn) = (SEGMENT_DATA_START, segment.first);
        while lsn <= segment.last {
            if !go_on() {
                return (records, bad);
            }
            let place = |len, reason| BadRecord { path: segment.path.clone(), offset, len, reason };
            let record = match ahead.prefix(&shape.volume, offset, shape.segment) {
                Ok(record) if record.head.lsn == lsn => record,
                Ok(record) => {
                    let reason = format!("record {} is where {lsn} should be", record.head.lsn);
                    bad.push(place(RECORD_HEAD_LEN as u64, reason));
                    break;
                }
                Err(reason) => {
                    let reason = format!("record {lsn}, and what follows it in this file: {reason}");
                    bad.push(place(RECORD_HEAD_LEN as u64, reason));
                    break;
                }
            };
            if let Err(reason) = check_payload(&mut ahead, offset, &record, shape) {
                bad.push(place(record.head.record_len(), format!("record {lsn}: {reason}")));
            }
            records += 1;
            offset = end_of(offset, &record);
            lsn = lsn.next();
        }
    }
    (records, bad)
}
