//! A file's bytes as the model holds them: pages, those of zeros left out.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// A file's bytes. Clones share pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Its length.
    pub size: u64,
    pages: BTreeMap<u64, Arc<Vec<u8>>>,
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
        let mut bytes = self.pages.remove(&page).map_or_else(|| vec![0; PAGE], |p| p.to_vec());
        with(&mut bytes);
        if bytes.iter().any(|b| *b != 0) {
            self.pages.insert(page, Arc::new(bytes));
        }
    }

    /// Cuts or extends; what is cut off never comes back.
    pub fn truncate(&mut self, size: u64) {
        if size < self.size {
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

    /// Has a range read as zeros, as far as the file reaches.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let end = (offset + len).min(self.size);
        let zeros = end.saturating_sub(offset) as usize;
        let size = self.size;
        self.write(offset.min(end), &vec![0; zeros]);
        self.size = size;
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
