//! A segment's file: making it, its header, reading journalled bytes back.

use std::io;
use std::sync::Arc;

use cairn_format::{
    Domain, JournalRef, Lsn, PAYLOAD_BLOCK, RECORD_HEAD_LEN, Record, RecordHead, SEGMENT_DATA_START,
    SEGMENT_HEADER_LEN, Seal, SegmentHeader, Uuid,
};
use cairn_store::disk::{Access, Disk, DiskFile};

use super::{JOURNAL_DIR, JournalError, JournalShape, blocks};

/// A segment that holds records.
#[derive(Clone)]
pub(crate) struct SegmentFile {
    pub(crate) path: String,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) number: u64,
    pub(crate) first: Lsn,
    /// Its last record.
    pub(crate) last: Lsn,
    /// Every record of it up to here was made certain by this mount.
    pub(crate) synced: Lsn,
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

/// Writes to a segment what it holds, so that the next sync has something to make certain.
pub(crate) fn write_again(file: &dyn DiskFile, len: u32) -> io::Result<()> {
    let mut bytes = vec![0; (1 << 20).min(len as usize)];
    let mut at = 0u64;
    // What was cut off a file held nothing that counts, or was missed before.
    let len = file.len()?.min(len.into());
    while at < len {
        let part = bytes.len().min((len - at) as usize);
        file.read_exact_at(&mut bytes[..part], at)?;
        // What was never used is on the disk already, where it lies among zeros.
        if bytes[..part].iter().any(|byte| *byte != 0) {
            file.write_at(&bytes[..part], at)?;
        }
        at += part as u64;
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
    let mut both = vec![0; 2 * SEGMENT_HEADER_LEN];
    let read = file.read_at(&mut both, 0)?;
    if read > 0 && both.iter().all(|b| *b == 0) {
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
        // The file was begun anew, and holds no record of that life yet.
        None if number < newest.number => Ok(*newest),
        None => Err(format!("it is that of segment {}, its records are those of {number}", newest.number)),
    }))
}

/// Reads and checks a record's bytes before its payload, if one begins at `offset`.
pub(crate) fn read_prefix(
    file: &dyn DiskFile,
    volume: &Uuid,
    offset: u32,
    segment_len: u32,
) -> Result<Record, String> {
    let mut head = [0; RECORD_HEAD_LEN];
    file.read_exact_at(&mut head, offset.into()).map_err(|e| e.to_string())?;
    let peeked = RecordHead::peek(&head).map_err(|e| e.to_string())?;
    if u64::from(offset) + peeked.record_len() > segment_len.into() {
        return Err("it would pass the segment's end".into());
    }
    let mut prefix = vec![0; peeked.prefix_len() as usize];
    file.read_exact_at(&mut prefix, offset.into()).map_err(|e| e.to_string())?;
    Record::decode_prefix(volume, &prefix).map_err(|e| e.to_string())
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
