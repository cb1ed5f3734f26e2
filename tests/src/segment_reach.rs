//! What the parity of a journal's closed segment reaches, computed from the bytes before a fault and after it.

use std::collections::HashMap;
use std::ops::Range;

use cairn_format::{
    Lsn, RECORD_HEAD_LEN, Record, RecordHead, SECTOR, SEGMENT_DATA_START, SEGMENT_HEADER_LEN,
    SEGMENT_PARITY_HEADER_LEN, SegmentHeader, SegmentParity, SumTable, Uuid,
};

/// A segment with its parity.
pub struct Protected {
    /// The segment's file.
    pub segment: String,
    /// Its parity's.
    pub parity: String,
    header: SegmentParity,
}

/// What somebody finds who looks for the parity in such bytes.
pub fn header_in(bytes: &[u8], volume: &Uuid) -> Option<SegmentParity> {
    let last = bytes.len().checked_sub(SEGMENT_PARITY_HEADER_LEN)?;
    [0, last].into_iter().find_map(|at| SegmentParity::decode(&bytes[at..], volume).ok())
}

/// The last record that parity says was synced, if it is any.
pub fn witness(bytes: Option<&[u8]>, volume: &Uuid) -> Lsn {
    bytes.and_then(|bytes| header_in(bytes, volume)).map_or(Lsn::ZERO, |header| header.last)
}

impl Protected {
    /// That of a parity's whole file.
    pub fn of(parity: &str, bytes: &[u8], volume: &Uuid) -> Option<Protected> {
        let header = header_in(bytes, volume)?;
        let segment = parity.strip_suffix(".par").map(|name| format!("{name}.seg"))?;
        Some(Protected { segment, parity: parity.to_owned(), header })
    }

    /// The bytes of the segment that are lost, though parity is there for them: each file's bytes before and after. None where it
    /// is not used.
    pub fn lost(&self, segment: [&[u8]; 2], parity: [&[u8]; 2]) -> Option<Vec<Range<u64>>> {
        let header = &self.header;
        if header_in(parity[1], &header.volume).as_ref() != Some(header) || !self.speaks_for(segment[1]) {
            return None;
        }
        let rows = header.stripe().unit() / SECTOR;
        let (data, units) = (u64::from(header.parity.data), u64::from(header.parity.parity));
        // A sector that is another than it was, and whether anything says so.
        let bad = |number: u64| -> Option<bool> {
            let (of_parity, nth) = match number.checked_sub(header.sectors()) {
                Some(nth) => (true, nth),
                None => (false, number),
            };
            let (at, bytes) = match of_parity {
                true => {
                    (header.parity_unit(0) + nth * SECTOR..header.parity_unit(0) + (nth + 1) * SECTOR, parity)
                }
                false => (nth * SECTOR..((nth + 1) * SECTOR).min(header.covered.into()), segment),
            };
            if is_same(bytes, at) {
                return None;
            }
            let copies = if of_parity { header.parity_sums() } else { header.sums() };
            let sectors = if of_parity { header.parity_sectors() } else { header.sectors() };
            let block = SumTable::block(sectors, SumTable::block_of(nth).0);
            Some(copies.iter().any(|copy| is_same(parity, copy.start + block.start..copy.start + block.end)))
        };
        // By rows: how many are known to be lost, and whether there are some that nothing says it of.
        let mut by_row: HashMap<u64, (u64, bool)> = HashMap::new();
        let all_data = (0..data * rows).filter(|number| *number < header.sectors());
        let all_parity = (0..units * rows).map(|nth| header.sectors() + nth);
        for number in all_data.chain(all_parity) {
            let row = match number.checked_sub(header.sectors()) {
                Some(nth) => nth % rows,
                None => number % rows,
            };
            if let Some(known) = bad(number) {
                let (lost, silent) = by_row.entry(row).or_default();
                *lost += u64::from(known);
                *silent |= !known;
            }
        }
        let is_lost = |number: &u64| {
            bad(*number).is_some_and(|known| {
                let (lost, silent) = by_row[&(number % rows)];
                !known || silent || lost > units
            })
        };
        let range = |number: u64| number * SECTOR..((number + 1) * SECTOR).min(header.covered.into());
        Some((0..header.sectors()).filter(is_lost).map(range).collect())
    }

    /// Whether the segment's file may be the one that the parity is of.
    fn speaks_for(&self, segment: &[u8]) -> bool {
        let volume = &self.header.volume;
        let header = |at: usize| {
            let copy = segment.get(at..at + SEGMENT_HEADER_LEN)?;
            Some(SegmentHeader::decode(copy, volume).ok()?.number)
        };
        let record = || {
            let bytes = segment.get(SEGMENT_DATA_START as usize..)?;
            let head = RecordHead::peek(bytes.get(..RECORD_HEAD_LEN)?).ok()?;
            let prefix = bytes.get(..head.prefix_len() as usize)?;
            Some(Record::decode_prefix(volume, prefix).ok()?.head.segment)
        };
        let said = [header(0), header(SEGMENT_HEADER_LEN), record()];
        let mut numbers = said.into_iter().flatten();
        let number = self.header.number;
        numbers.clone().any(|n| n == number) || numbers.all(|n| n <= number)
    }
}

/// Whether bytes are the same before and after, and there.
fn is_same([before, after]: [&[u8]; 2], at: Range<u64>) -> bool {
    let at = at.start as usize..at.end as usize;
    before.get(at.clone()).is_some_and(|before| after.get(at) == Some(before))
}
