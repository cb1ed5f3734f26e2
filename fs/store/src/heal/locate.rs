//! Finding out where a pack's parts lie when what says so is damaged.

use cairn_format::{PACK_HEADER_LEN, PackHeader, PackId, PackLayout, SECTOR, TRAILER_LEN, Trailer};

use crate::disk::DiskFile;

/// Where a pack's parts lie: as its header says, its trailer, or the copy of that before the parity, which is looked for
/// at the beginning of each sector.
pub(super) fn find_layout(file: &dyn DiskFile, pack: &PackId) -> Option<PackLayout> {
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    let trailer_at = |at: u64| read(at, TRAILER_LEN).and_then(|bytes| Trailer::decode(&bytes, pack).ok());
    if let Some(header) = read(0, PACK_HEADER_LEN).and_then(|bytes| PackHeader::decode(&bytes, pack).ok()) {
        return Some(header.layout);
    }
    let len = file.len().ok()?;
    if let Some(trailer) = len.checked_sub(TRAILER_LEN as u64).and_then(trailer_at) {
        return Some(trailer.layout);
    }
    (SECTOR..len)
        .step_by(SECTOR as usize)
        .filter_map(|at| Some((at, trailer_at(at)?.layout)))
        .find_map(|(at, layout)| (layout.parity_area().start == at).then_some(layout))
}
