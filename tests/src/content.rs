//! A file's bytes as the model holds them: pages, those of zeros left out.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page.
pub const PAGE: usize = 4096;
const ZEROS: [u8; PAGE] = [0; PAGE];

/// A file's bytes. Clones share pages. Two are equal that read the same, wherever their holes are.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Its length.
    pub size: u64,
    pages: BTreeMap<u64, Arc<Vec<u8>>>,
    spans: Spans,
}

impl PartialEq for Content {
    fn eq(&self, other: &Content) -> bool {
        self.size == other.size && self.pages == other.pages
    }
}

impl Eq for Content {}

/// Which bytes were written and are no hole: runs that do not touch, from start to end.
#[derive(Clone, Debug, Default)]
struct Spans(BTreeMap<u64, u64>);

impl Spans {
    fn add(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start, end);
        while let Some((from, to)) = self.0.range(..=end).next_back().map(|(a, b)| (*a, *b)) {
            if to < start {
                break;
            }
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }

    fn remove(&mut self, start: u64, end: u64) {
        while let Some((from, to)) = self.0.range(..end).next_back().map(|(a, b)| (*a, *b)) {
            if to <= start {
                break;
            }
            self.0.remove(&from);
            if to > end {
                self.0.insert(end, to);
            }
            if from < start {
                self.0.insert(from, start);
                break;
            }
        }
    }

    /// Those that overlap a range, cut to it.
    fn within(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let first = self.0.range(..=start).next_back().map_or(start, |(from, _)| *from);
        let cut = self.0.range(first..end).map(|(a, b)| ((*a).max(start), (*b).min(end)));
        cut.filter(|(a, b)| a < b).collect()
    }
}

impl Content {
    /// The content that begins with `bytes`.
    pub fn of(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(0, bytes);
        content
    }

    /// Writes bytes; what lies between the old end and `offset` reads as zeros.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.size = self.size.max(offset + bytes.len() as u64);
        self.spans.add(offset, offset + bytes.len() as u64);
        self.fill(offset, bytes);
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let place = offset + at as u64;
            let (page, from) = (place / PAGE as u64, (place % PAGE as u64) as usize);
            let len = (PAGE - from).min(bytes.len() - at);
            self.change(page, |old| old[from..from + len].copy_from_slice(&bytes[at..at + len]));
            at += len;
        }
    }

    fn change(&mut self, page: u64, with: impl FnOnce(&mut [u8])) {
        let mut bytes = self.pages.remove(&page).unwrap_or_else(|| Arc::new(vec![0; PAGE]));
        let mine = Arc::make_mut(&mut bytes);
        with(mine);
        if mine[..] != ZEROS[..] {
            self.pages.insert(page, bytes);
        }
    }

    /// Cuts or extends; what is cut off never comes back.
    pub fn truncate(&mut self, size: u64) {
        if size < self.size {
            self.spans.remove(size, u64::MAX);
            self.pages.split_off(&size.div_ceil(PAGE as u64));
            let from = (size % PAGE as u64) as usize;
            if from > 0 {
                let last = size / PAGE as u64;
                if self.pages.contains_key(&last) {
                    self.change(last, |page| page[from..].fill(0));
                }
            }
        }
        self.size = size;
    }

    /// Makes a range a hole, as far as the file reaches.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        if offset < end {
            self.fill(offset, &vec![0; (end - offset) as usize]);
            self.spans.remove(offset, end);
        }
    }

    /// Has `len` bytes at `to` be what `other` has at `from`, holes too; `other` reaches that far.
    pub fn copy(&mut self, to: u64, other: &Content, from: u64, len: u64) {
        self.write(to, &other.read(from, len as usize));
        self.spans.remove(to, to + len);
        for (start, end) in other.spans.within(from, from + len) {
            self.spans.add(start - from + to, end - from + to);
        }
    }

    /// The next byte from `offset` on that was written; none behind it.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        self.spans.within(offset, self.size).first().map(|(start, _)| *start)
    }

    /// The next byte from `offset` on that lies in a hole; the file's end counts as one.
    pub fn next_hole(&self, offset: u64) -> u64 {
        let first = self.spans.within(offset, self.size).first().copied();
        first.filter(|(start, _)| *start == offset).map_or(offset, |(_, end)| end)
    }

    /// Reads up to `len` bytes; fewer only at the end.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let len = self.size.saturating_sub(offset).min(len as u64) as usize;
        let mut out = vec![0; len];
        let mut at = 0;
        while at < len {
            let place = offset + at as u64;
            let (page, from) = (place / PAGE as u64, (place % PAGE as u64) as usize);
            let part = (PAGE - from).min(len - at);
            if let Some(bytes) = self.pages.get(&page) {
                out[at..at + part].copy_from_slice(&bytes[from..from + part]);
            }
            at += part;
        }
        out
    }

    /// The first offset at which two contents differ.
    pub fn difference(&self, other: &Content) -> Option<u64> {
        if self == other {
            return None;
        }
        let pages = self.pages.keys().chain(other.pages.keys()).copied();
        let mut pages: Vec<_> = pages.collect();
        pages.sort_unstable();
        for page in pages {
            let of = |c: &Content| c.pages.get(&page).map_or_else(|| vec![0; PAGE], |p| p.to_vec());
            let (a, b) = (of(self), of(other));
            if let Some(at) = (0..PAGE).find(|i| a[*i] != b[*i]) {
                return Some(page * PAGE as u64 + at as u64);
            }
        }
        Some(self.size.min(other.size))
    }
}
