//! Bytes of a file whose headers lie all over it, read a window at a time.

use std::ops::Range;

/// Bytes that are read for one header and what follows it, where nothing says that more are wanted.
const LEAST: u64 = 512;
/// The most that is read ahead of what goes through a file byte after byte.
const MOST: u64 = 64 << 10;
/// Bytes that are read of one file.
const BYTES: u64 = 16 << 20;
/// How often something is read of one file.
const READS: u32 = 16 << 10;

/// Reads bytes of a file: so many from there on; fewer where there are no more, none where they cannot be had.
pub(super) type Read<'r> = &'r mut dyn FnMut(u64, u64) -> Option<Vec<u8>>;

/// A file, of which parts are looked at. All in all so much is read of it and no more: what asks for more is answered like one that
/// meets the file's end.
pub(super) struct View<'r> {
    read: Read<'r>,
    window: Vec<u8>,
    /// Where that lies.
    at: u64,
    /// Whether there is nothing behind it.
    ended: bool,
    /// Bytes and reads that are left.
    left: (u64, u32),
}

impl<'r> View<'r> {
    /// Of a file that begins like this.
    pub(super) fn new(start: Vec<u8>, read: Read<'r>) -> View<'r> {
        View { read, window: start, at: 0, ended: false, left: (BYTES, READS) }
    }

    /// Up to `len` bytes from `at` on, fewer where there are no more.
    pub(super) fn some(&mut self, at: u64, len: usize) -> &[u8] {
        if self.inside(at, len).is_none() && !(self.ended && self.holds(at)) {
            self.fill(at, len as u64);
        }
        let from = usize::try_from(at.saturating_sub(self.at)).unwrap_or(usize::MAX).min(self.window.len());
        let to = from.saturating_add(len).min(self.window.len());
        &self.window[from..to]
    }

    /// Just so many.
    pub(super) fn exact(&mut self, at: u64, len: usize) -> Option<&[u8]> {
        Some(self.some(at, len)).filter(|bytes| bytes.len() == len)
    }

    /// Where in the window these are, if all of them are in it.
    fn inside(&self, at: u64, len: usize) -> Option<Range<usize>> {
        let from = usize::try_from(at.checked_sub(self.at)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.window.len()).then_some(from..to)
    }

    fn holds(&self, at: u64) -> bool {
        self.inside(at, 0).is_some()
    }

    fn fill(&mut self, at: u64, len: u64) {
        // Whoever goes on where the window ends will go on from there, too.
        let ahead = if self.holds(at) { (2 * self.window.len() as u64).clamp(LEAST, MOST) } else { LEAST };
        let (bytes, reads) = self.left;
        let ask = len.max(ahead);
        let read = if ask <= bytes && reads > 0 && at.checked_add(ask).is_some() {
            self.left = (bytes - ask, reads - 1);
            (self.read)(at, ask)
        } else {
            None
        };
        self.window = read.unwrap_or_default();
        self.window.truncate(ask as usize);
        self.ended = (self.window.len() as u64) < ask;
        self.at = at;
    }
}
