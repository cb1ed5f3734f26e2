//! Finding out where a pack's parts lie when what says so is damaged.

use cairn_format::{PACK_HEADER_LEN, PackHeader, PackId, PackLayout, SECTOR, TRAILER_LEN, Trailer};

use crate::disk::DiskFile;
use crate::twins::Others;

/// As [`find_layout`], and as another copy says where this one says nothing.
pub(super) fn find_any_layout(file: &dyn DiskFile, others: &Others<'_>, pack: &PackId) -> Option<PackLayout> {
    let elsewhere = || others.all().iter().find_map(|(_, file)| find_layout(&**file, pack));
    find_layout(file, pack).or_else(elsewhere)
}

/// Where a pack's parts lie: as its header says, its trailer, or the copy of that before the parity, which is looked for
/// at the beginning of each sector.
pub(super) fn find_layout(file: &dyn DiskFile, pack: &PackId) -> Option<PackLayout> {
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    let trailer_at = |at: u64| read(at, TRAILER_LEN).and_then(|bytes| Trailer::decode(&bytes, pack).ok());
    let len = file.len().ok()?;
    let by_header = read(0, PACK_HEADER_LEN).and_then(|bytes| PackHeader::decode(&bytes, pack).ok());
    if let Some(header) = by_header.filter(|header| may_be_left_of(&header.layout, len)) {
        return Some(header.layout);
    }
    let by_trailer = len.checked_sub(TRAILER_LEN as u64).and_then(trailer_at);
    if let Some(trailer) = by_trailer.filter(|trailer| may_be_left_of(&trailer.layout, len)) {
        return Some(trailer.layout);
    }
    (SECTOR..len)
        .step_by(SECTOR as usize)
        .filter_map(|at| Some((at, trailer_at(at)?.layout)))
        .find_map(|(at, layout)| (layout.parity_area().start == at).then_some(layout))
}

/// Whether so few bytes may be what is left of such a pack. Of less than a unit in 65 nothing comes back with any geometry; and whoever
/// says that a short file was a pack of a TiB would have all its sectors gone through.
fn may_be_left_of(layout: &PackLayout, len: u64) -> bool {
    const MOST: u64 = 66;
    const LEAST: u64 = 1 << 20;
    layout.file_len() <= len.max(LEAST).saturating_mul(MOST)
}
