//! A segment's file: making it, its header, reading journalled bytes back.

use std::io;
use std::time::Instant;

use cairn_format::{
    Domain, JournalRef, Lsn, PAYLOAD_BLOCK, RECORD_HEAD_LEN, Record, RecordHead, SEGMENT_DATA_START,
    SEGMENT_HEADER_LEN, Seal, SegmentHeader, Uuid,
};
use cairn_store::disk::{Access, Disk, DiskFile};

use super::parity::Sidecar;
use super::{JOURNAL_DIR, JournalError, JournalShape, blocks};
use crate::sync::Arc;

/// The longest record without its payload. An operation's takes kilobytes, those of folds and copies up to an eighth of
/// a segment, but no more than a few MiB.
pub(super) const PREFIX_MAX: u64 = 64 << 20;

/// A segment that holds records.
#[derive(Clone)]
pub(crate) struct SegmentFile {
    pub(crate) path: String,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) number: u64,
    pub(crate) first: Lsn,
    /// Its last record.
    pub(crate) last: Lsn,
    /// Where that ends.
    pub(crate) end: u32,
    /// Every record of it up to here was made certain by this mount.
    pub(crate) synced: Lsn,
    /// Since when nobody writes to it; none while somebody does.
    pub(crate) closed: Option<Instant>,
    /// Its parity, where it has some that is its own.
    pub(crate) parity: Option<Arc<Sidecar>>,
    /// It is read by way of its parity: what is damaged of it was not written back.
    pub(crate) restored: bool,
    /// It could not get parity, and is not to try again.
    pub(crate) unprotected: bool,
}

impl SegmentFile {
    /// One without records yet, which begins with record `first`.
    pub(crate) fn new(path: String, file: Arc<dyn DiskFile>, header: &SegmentHeader) -> SegmentFile {
        SegmentFile {
            path,
            file,
            number: header.number,
            first: header.first,
            last: header.continues,
            end: SEGMENT_DATA_START,
            synced: Lsn::ZERO,
            closed: None,
            parity: None,
            restored: false,
            unprotected: false,
        }
    }

    /// Where its bytes are read from.
    pub(crate) fn source(&self) -> Arc<dyn DiskFile> {
        match &self.parity {
            Some(parity) if self.restored => parity.view(self.file.clone()),
            _ => self.file.clone(),
        }
    }

    /// Reads journalled bytes, and checks them; those that fail once more by way of its parity, where it is to `heal`. Whether
    /// that was what helped.
    pub(crate) fn read(
        &self,
        shape: &JournalShape,
        (at, from): (&JournalRef, u32),
        out: &mut [u8],
        heal: bool,
    ) -> Result<bool, JournalError> {
        let plain = read_payload(&*self.source(), shape, at, from, out);
        match (&self.parity, plain) {
            (Some(parity), Err(error @ JournalError::Damaged { .. })) if heal && !self.restored => {
                let view = parity.view(self.file.clone());
                read_payload(&*view, shape, at, from, out).map_or(Err(error), |()| Ok(true))
            }
            (_, plain) => plain.map(|()| false),
        }
    }
}

/// Makes segment file number `n`: zeros over its whole length, synced, its name synced.
pub(crate) fn make_segment(disk: &dyn Disk, n: u32, len: u32) -> io::Result<(String, Arc<dyn DiskFile>)> {
    let path = format!("{JOURNAL_DIR}/{n:04x}.seg");
    let file = disk.open(&path, Access::CreateNew)?;
    let fill = || -> io::Result<()> {
        let zeros = vec![0; (1 << 20).min(len as usize)];
        let mut at = 0u64;
        while at < len.into() {
            let part = zeros.len().min((u64::from(len) - at) as usize);
            file.write_at(&zeros[..part], at)?;
            at += part as u64;
        }
        file.sync()?;
        disk.sync_dir(JOURNAL_DIR)
    };
    if let Err(error) = fill() {
        // Half a segment is of no use, and takes room that is short.
        let _ = disk.remove(&path);
        return Err(error);
    }
    Ok((path, file))
}

/// Writes to a segment what it holds, so that the next sync has something to make certain. What its file has behind `end`, the
/// segment's length, holds no records, however much it is.
pub(crate) fn write_again(file: &dyn DiskFile, end: u32) -> io::Result<()> {
    /// As much as a disk that cannot read a sector takes along with it.
    const PART: usize = 64 << 10;
    let mut bytes = vec![0; PART];
    let len = file.len()?.min(end.into());
    for at in (0..len).step_by(PART) {
        let part = &mut bytes[..PART.min((len - at) as usize)];
        // What cannot be read came from the disk. What was never used is on it already, as zeros.
        if file.read_exact_at(part, at).is_ok() && part.iter().any(|byte| *byte != 0) {
            file.write_at(part, at)?;
        }
    }
    Ok(())
}

/// Writes both copies of a header.
pub(crate) fn write_header(file: &dyn DiskFile, header: &SegmentHeader) -> io::Result<()> {
    let copy = header.encode();
    file.write_at(&[&copy[..], &copy[..]].concat(), 0)
}

/// A segment's header, from the copy that its first record agrees with: a write of one may have been lost, or one may have
/// come here that belongs to another segment. `None` for a file that was never used.
pub(crate) fn read_header(
    file: &dyn DiskFile,
    shape: &JournalShape,
) -> io::Result<Option<Result<SegmentHeader, String>>> {
    let mut both = [0; 2 * SEGMENT_HEADER_LEN];
    let read = file.read_at(&mut both, 0)?;
    if read > 0 && both == [0; 2 * SEGMENT_HEADER_LEN] {
        return Ok(None);
    }
    let (first, second) = both.split_at(SEGMENT_HEADER_LEN);
    let (first, second) =
        (SegmentHeader::decode(first, &shape.volume), SegmentHeader::decode(second, &shape.volume));
    let whole = || first.iter().chain(&second);
    let Some(newest) = whole().max_by_key(|header| header.number) else {
        return Ok(Some(first.map_err(|error| error.to_string())));
    };
    let record = read_prefix(file, &shape.volume, SEGMENT_DATA_START, shape.segment);
    let number = record.map_or(newest.number, |record| record.head.segment);
    Ok(Some(match whole().find(|header| header.number == number) {
        Some(agrees) => Ok(*agrees),
        // The file was begun anew, and holds no record of that life yet. Where only one copy is whole it may be another
        // segment's: then what the records say counts, which in a file that was begun anew nobody needs any more.
        None if number < newest.number && whole().count() == 2 => Ok(*newest),
        None => Err(format!("it is that of segment {}, its records are those of {number}", newest.number)),
    }))
}

/// A segment's bytes, read ahead of whoever goes through its records: two reads for each of a million short ones would
/// take most of a mount's time.
pub(crate) struct ReadAhead<'a> {
    file: &'a dyn DiskFile,
    bytes: Vec<u8>,
    start: u64,
}

impl<'a> ReadAhead<'a> {
    /// So much is read where records are close to each other…
    const FAR: usize = 64 << 10;
    /// …and so much where long payloads lie between them.
    const NEAR: usize = 4 << 10;

    pub(crate) fn new(file: &'a dyn DiskFile) -> ReadAhead<'a> {
        ReadAhead { file, bytes: Vec::new(), start: 0 }
    }

    /// `len` bytes at `offset`.
    pub(crate) fn get(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + len as u64 > end {
            let close = offset >= self.start && offset < end + Self::FAR as u64;
            let ahead = if close { Self::FAR } else { Self::NEAR };
            self.start = offset;
            self.bytes.resize(ahead.max(len), 0);
            match self.file.read_at(&mut self.bytes, offset) {
                Ok(found) if found >= len => self.bytes.truncate(found),
                // What cannot be read may lie behind what is asked for.
                _ => {
                    self.bytes.truncate(len);
                    self.file.read_exact_at(&mut self.bytes, offset).inspect_err(|_| self.bytes.clear())?;
                }
            }
        }
        let at = (offset - self.start) as usize;
        Ok(&self.bytes[at..at + len])
    }

    /// Reads and checks a record's bytes before its payload, if one begins at `offset`.
    pub(crate) fn prefix(&mut self, volume: &Uuid, offset: u32, segment_len: u32) -> Result<Record, String> {
        let head = self.get(offset.into(), RECORD_HEAD_LEN).map_err(|e| e.to_string())?;
        let peeked = RecordHead::peek(head).map_err(|e| e.to_string())?;
        if u64::from(offset) + peeked.record_len() > segment_len.into() {
            return Err("it would pass the segment's end".into());
        }
        if peeked.prefix_len() > PREFIX_MAX {
            return Err("it says more than a record may".into());
        }
        let prefix = self.get(offset.into(), peeked.prefix_len() as usize).map_err(|e| e.to_string())?;
        Record::decode_prefix(volume, prefix).map_err(|e| e.to_string())
    }
}

/// As [`ReadAhead::prefix`], for one record alone.
pub(crate) fn read_prefix(
    file: &dyn DiskFile,
    volume: &Uuid,
    offset: u32,
    segment_len: u32,
) -> Result<Record, String> {
    // What was read before lies far off.
    ReadAhead { file, bytes: Vec::new(), start: u64::MAX }.prefix(volume, offset, segment_len)
}

/// Reads payload bytes that `at` names, `from` bytes further on, and checks the blocks they lie in.
pub(crate) fn read_payload(
    file: &dyn DiskFile,
    shape: &JournalShape,
    at: &JournalRef,
    from: u32,
    out: &mut [u8],
) -> Result<(), JournalError> {
    let damaged = |reason: String| JournalError::Damaged { lsn: at.lsn, segment: at.segment, reason };
    let record = read_prefix(file, &shape.volume, at.record_offset, shape.segment).map_err(damaged)?;
    if record.head.lsn != at.lsn || record.head.segment != at.segment {
        return Err(damaged(format!("record {} is there", record.head.lsn)));
    }
    let start = at.payload_offset.saturating_add(from);
    if u64::from(start) + out.len() as u64 > record.head.payload_len.into() {
        return Err(damaged(format!("its payload has {} bytes", record.head.payload_len)));
    }
    let (first, begin, end) = blocks(start, out.len(), record.head.payload_len);
    let mut bytes = vec![0; (end - begin) as usize];
    let payload_at = u64::from(at.record_offset) + record.head.prefix_len();
    file.read_exact_at(&mut bytes, payload_at + begin).map_err(|e| damaged(e.to_string()))?;
    check_blocks(&shape.volume, first, &bytes, &record.sums).map_err(damaged)?;
    let skip = u64::from(start) - begin;
    out.copy_from_slice(&bytes[skip as usize..skip as usize + out.len()]);
    Ok(())
}

/// That `bytes`, from payload block `first` on, match their checksums.
pub(crate) fn check_blocks(volume: &Uuid, first: usize, bytes: &[u8], sums: &[u64]) -> Result<(), String> {
    for (i, block) in bytes.chunks(PAYLOAD_BLOCK).enumerate() {
        let number = first + i;
        if sums.get(number) != Some(&Seal::new(Domain::Payload, &volume.0, number as u64).sum(block)) {
            return Err(format!(
                "bytes {}.. of its payload do not match their checksum",
                number * PAYLOAD_BLOCK
            ));
        }
    }
    Ok(())
}
