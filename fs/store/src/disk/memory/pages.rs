//! A file's bytes as pages that copies share until one of them is written to, with holes.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes to a page: what a file's room is counted in.
pub(super) const PAGE: u64 = 4096;

type Page = Arc<[u8; PAGE as usize]>;

/// Bytes from 0 to a length. Architecture Invariant: what a page holds past the length is zero, so
/// that growing shows zeros.
#[derive(Clone, Default)]
pub(super) struct Pages {
    pages: BTreeMap<u64, Page>,
    len: u64,
}

impl Pages {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes of room it takes: holes take none.
    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// The bytes of room that writing `len` bytes at `offset` would add.
    pub(super) fn room_for(&self, offset: u64, len: u64) -> u64 {
        let Some(numbers) = numbers(offset, len) else { return 0 };
        let all = numbers.end() - numbers.start() + 1;
        (all - self.pages.range(numbers).count() as u64) * PAGE
    }

    /// Fills `buf` from `offset` on; returns how much of it lies before the end.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let filled = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        each_page(offset, filled, |number, within, part| match self.pages.get(&number) {
            Some(page) => buf[part].copy_from_slice(&page[within]),
            None => buf[part].fill(0),
        });
        filled
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        each_page(offset, bytes.len(), |number, within, part| {
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[within].copy_from_slice(&bytes[part]);
        });
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            let kept = (len % PAGE) as usize;
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                Arc::make_mut(page)[kept..].fill(0);
            }
        }
        self.len = len;
    }

    /// Takes over from `other` the pages that hold `len` bytes at `offset`, as they are there.
    pub(super) fn share(&mut self, other: &Pages, offset: u64, len: u64) {
        for number in numbers(offset, len).into_iter().flatten() {
            match other.pages.get(&number) {
                Some(page) => self.pages.insert(number, Arc::clone(page)),
                None => self.pages.remove(&number),
            };
        }
    }
}

/// The numbers of the pages that hold `len` bytes at `offset`.
fn numbers(offset: u64, len: u64) -> Option<std::ops::RangeInclusive<u64>> {
    (len > 0).then(|| offset / PAGE..=(offset + len - 1) / PAGE)
}

/// Calls `each` with the number of every page that holds some of `len` bytes at `offset`, where in
/// the page they lie, and which of the `len` bytes they are.
fn each_page(
    offset: u64,
    len: usize,
    mut each: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let start = (at % PAGE) as usize;
        let count = (PAGE as usize - start).min(len - done);
        each(at / PAGE, start..start + count, done..done + count);
        done += count;
    }
}
