//! Checksums of a pack's sectors, made while its bytes go by.

use cairn_format::{PackId, SECTOR, sector_sum};

/// Takes the bytes of a file in their order and keeps a checksum for each sector.
pub(super) struct SectorSums {
    owner: [u8; 16],
    /// Number of the next sector that is complete.
    next: u64,
    /// Bytes of the sector that is not complete yet.
    open: Vec<u8>,
    sums: Vec<u64>,
}

impl SectorSums {
    /// Begins with sector number `first` of a pack.
    pub(super) fn new(pack: &PackId, first: u64) -> SectorSums {
        SectorSums { owner: pack.0, next: first, open: Vec::with_capacity(SECTOR as usize), sums: Vec::new() }
    }

    /// The bytes that come next.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let missing = SECTOR as usize - self.open.len();
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            bytes = rest;
            if part.len() == SECTOR as usize {
                self.push(part);
                continue;
            }
            self.open.extend_from_slice(part);
            if self.open.len() == SECTOR as usize {
                self.close();
            }
        }
    }

    /// The checksums, also of a last sector that is short.
    pub(super) fn finish(mut self) -> Vec<u64> {
        if !self.open.is_empty() {
            self.close();
        }
        self.sums
    }

    fn close(&mut self) {
        let sector = std::mem::take(&mut self.open);
        self.push(&sector);
        self.open = sector;
        self.open.clear();
    }

    fn push(&mut self, sector: &[u8]) {
        self.sums.push(sector_sum(&self.owner, self.next, sector));
        self.next += 1;
    }
}
