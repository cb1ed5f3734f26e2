//! What becomes of a file's bytes.

use std::io;
use std::ops::Range;

use cairn_format::SECTOR;
use cairn_store::disk::DiskFile;

/// Bytes that are changed at a time.
const STRIDE: u64 = 1 << 20;

/// One thing that happens to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// One bit is the other.
    Flip {
        /// The byte.
        at: u64,
        /// The bit of it, 0 to 7.
        bit: u8,
    },
    /// Nothing but zeros.
    Zeros(Range<u64>),
    /// Every byte is another.
    Garbage(Range<u64>),
    /// Other bytes.
    Bytes(u64, Vec<u8>),
    /// The file ends there.
    Cut(u64),
    /// The file is gone.
    Remove,
    /// Reading these bytes is an error: until they are written, or, where it `stays` so, even then.
    Unreadable {
        /// The bytes.
        range: Range<u64>,
        /// Whether writing does not help.
        stays: bool,
    },
}

/// Whether nothing is left of a pack.
pub(super) fn leave_nothing(edits: &[Edit]) -> bool {
    edits.iter().any(|edit| matches!(edit, Edit::Remove | Edit::Cut(0)))
}

impl Edit {
    /// The bytes that it is about, of a file of `len` bytes.
    pub fn range(&self, len: u64) -> Range<u64> {
        match self {
            Edit::Flip { at, .. } => *at..at + 1,
            Edit::Zeros(range) | Edit::Garbage(range) | Edit::Unreadable { range, .. } => range.clone(),
            Edit::Bytes(at, bytes) => *at..at + bytes.len() as u64,
            Edit::Cut(to) => (*to).min(len)..len,
            Edit::Remove => 0..len,
        }
    }

    /// Does it to bytes that lie at `start` of the file. What has no bytes, or none that can be read, stays.
    pub fn apply(&self, start: u64, bytes: &mut [u8]) {
        let end = start + bytes.len() as u64;
        let range = self.range(end);
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from >= to {
            return;
        }
        let part = &mut bytes[(from - start) as usize..(to - start) as usize];
        match self {
            Edit::Flip { bit, .. } => part[0] ^= 1 << (bit % 8),
            Edit::Zeros(_) => part.fill(0),
            Edit::Garbage(_) => {
                part.iter_mut().zip(from..).for_each(|(byte, at)| *byte ^= other(at));
            }
            Edit::Bytes(at, new) => {
                part.copy_from_slice(&new[(from - at) as usize..(to - at) as usize]);
            }
            Edit::Cut(_) | Edit::Remove | Edit::Unreadable { .. } => {}
        }
    }

    /// As [`Edit::apply`], with zeros for what is gone, or cannot be read: what a repair may leave there.
    pub(super) fn leave(&self, start: u64, bytes: &mut [u8]) {
        match self {
            Edit::Cut(to) => Edit::Zeros(*to..u64::MAX).apply(start, bytes),
            Edit::Remove => bytes.fill(0),
            Edit::Unreadable { range, .. } => Edit::Zeros(range.clone()).apply(start, bytes),
            edit => edit.apply(start, bytes),
        }
    }

    /// Does it to a file that is there, and says whether that changed it; what makes it go, or be read with an error, is for
    /// others to do.
    pub(super) fn inflict(&self, file: &dyn DiskFile) -> io::Result<bool> {
        let len = file.len()?;
        match self {
            Edit::Cut(to) => return file.set_len(*to).map(|()| *to != len),
            Edit::Remove | Edit::Unreadable { .. } => return Ok(true),
            _ => {}
        }
        let range = self.range(len);
        let (mut at, mut changed) = (range.start, false);
        while at < range.end {
            let mut bytes = vec![0; STRIDE.min(range.end - at) as usize];
            file.read_exact_at(&mut bytes, at)?;
            let before = bytes.clone();
            self.apply(at, &mut bytes);
            if bytes != before {
                file.write_at(&bytes, at)?;
                changed = true;
            }
            at += bytes.len() as u64;
        }
        Ok(changed)
    }
}

/// What garbage has in it at a place: never 0, so that each byte is another.
fn other(at: u64) -> u8 {
    let mixed = (at ^ (at / SECTOR) << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8 | 1
}

/// The bytes of a sector of a file; the last one may be short.
pub fn sector(number: u64, len: u64) -> Range<u64> {
    number * SECTOR..((number + 1) * SECTOR).min(len)
}
