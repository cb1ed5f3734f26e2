//! Healing: what is damaged on the disk, found and computed again from parity.
//!
//! A reader is answered first, from what can be restored in memory (`frame`, `footer`). Writing it back is another
//! step ([`examine`] finds all that is wrong with a pack, [`mend`] writes what can be restored), done in the background, by
//! a scrub, or by fsck.
//!
//! Architecture Invariant: nothing here decides what bytes should be. Checksums do: what is restored counts only when it
//! matches the one that was made when it was written.

mod examine;
mod health;
mod hopeless;
mod locate;
mod margin;
mod mend;
mod restore;
mod sectors;
#[cfg(test)]
mod tests;

use cairn_format::{Footer, FrameEntry, FrameHead};

use crate::PackReader;
use crate::disk::Disk;
use crate::twins::Others;
use locate::find_any_layout;
use restore::Restorer;
use sectors::{Found, Region, Sectors};

pub use examine::{Examined, examine, examine_at, examine_spare};
pub use health::{HealCounts, HealEvent, HealMode, HealOutcome, HealPlace, Health};
pub use margin::{Margin, sectors};
pub use mend::{Mended, mend};

/// A frame's bytes as they were stored, head and all, where parity or another copy of the pack restores them.
pub(crate) fn frame(disk: Option<&dyn Disk>, reader: &PackReader, entry: &FrameEntry) -> Option<Vec<u8>> {
    let pack = reader.pack();
    let is_whole = |bytes: &[u8]| FrameHead::decode(bytes, &pack, entry.offset).is_ok();
    read(disk, reader, entry.offset..entry.offset + u64::from(entry.len), is_whole)
}

/// A pack's footer, where parity or another copy of the pack restores it.
pub(crate) fn footer(disk: Option<&dyn Disk>, reader: &PackReader) -> Option<Footer> {
    let layout = find_any_layout(reader.file(), &others(disk, reader), &reader.pack())?;
    let decode = |bytes: &[u8]| Footer::decode(bytes, &reader.pack()).ok();
    // What leads to a copy may be lost, and the copy whole.
    let second = raw(reader, layout.second_footer()).and_then(|bytes| decode(&bytes));
    let first = || decode(&read(disk, reader, layout.footer(), |bytes| decode(bytes).is_some())?);
    let of_others = || {
        let others = others(disk, reader);
        others.all().iter().find_map(|(_, file)| decode(&sectors::read(&**file, layout.second_footer())?))
    };
    second.or_else(first).or_else(of_others)
}

fn others<'a>(disk: Option<&'a dyn Disk>, reader: &PackReader) -> Others<'a> {
    match disk {
        Some(disk) => Others::beside(disk, reader.place(), reader.pack()),
        None => Others::none(reader.pack()),
    }
}

/// So many bytes are held against their checksum in all, while it is tried which sector is wrong. A block of checksums
/// that is lost leaves 512 sectors unknown: each of them is tried in a frame of 8 MiB, and in longer ones that somebody
/// made to keep us busy the first are.
const TRIED_MAX: u64 = 4 << 30;

/// Bytes of a pack that `is_whole` accepts.
fn read(
    disk: Option<&dyn Disk>,
    reader: &PackReader,
    range: std::ops::Range<u64>,
    is_whole: impl Fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let layout = find_any_layout(reader.file(), &others(disk, reader), &reader.pack())?;
    if range.end > layout.described() {
        return None;
    }
    // What lies around it in its sectors may be lost for good.
    if let Some(bytes) = raw(reader, range.clone()).filter(|bytes| is_whole(bytes)) {
        return Some(bytes);
    }
    let sectors = Sectors::new(reader.file(), others(disk, reader), reader.pack(), layout);
    if let Some(bytes) = sectors.find_elsewhere(range.clone(), &is_whole) {
        return Some(bytes);
    }
    let restorer = Restorer::new(sectors)?;
    let parts: Vec<(Region, Vec<u8>, bool)> = restorer
        .sectors
        .regions(range.clone())
        .map(|region| match restorer.read(&region) {
            Found::Whole(bytes) => Some((region, bytes, true)),
            Found::Unknown(bytes) => Some((region, bytes, false)),
            Found::Lost => None,
        })
        .collect::<Option<_>>()?;
    let first = parts.first()?.0.range.start;
    let within = (range.start - first) as usize..(range.end - first) as usize;
    let mut joined = parts.iter().map(|(_, bytes, _)| bytes.as_slice()).collect::<Vec<_>>().concat();
    if is_whole(joined.get(within.clone())?) {
        return Some(joined[within].to_vec());
    }
    // The checksums of some sectors are lost for good: whichever of those is wrong, the frame's own tells.
    let tries = usize::try_from(TRIED_MAX / (range.end - range.start).max(1)).unwrap_or(usize::MAX);
    parts.iter().filter(|(_, _, is_certain)| !is_certain).take(tries).find_map(|(region, bytes, _)| {
        let (Found::Whole(restored) | Found::Unknown(restored)) = restorer.restore(region) else {
            return None;
        };
        let at = (region.range.start - first) as usize;
        joined.get_mut(at..at + restored.len())?.copy_from_slice(&restored);
        let found = is_whole(&joined[within.clone()]).then(|| joined[within.clone()].to_vec());
        joined[at..at + bytes.len()].copy_from_slice(bytes);
        found
    })
}

/// Bytes as they are; none where they are not there, or cannot be read.
fn raw(reader: &PackReader, range: std::ops::Range<u64>) -> Option<Vec<u8>> {
    if reader.len().ok()? < range.end {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
    reader.file().read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes)
}
