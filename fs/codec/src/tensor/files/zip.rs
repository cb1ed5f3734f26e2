//! Zip archives (APPNOTE.TXT), from the front: an entry's header, its bytes, the next one's. The directory at their end is not looked at:
//! one that is still being written has none, and a tensor is to be cut the same way then and later.

use super::view::View;

/// What an entry's header begins with.
const LOCAL: &[u8; 4] = b"PK\x03\x04";
/// What follows an entry whose header was written before its length was known.
const DESCRIPTOR: &[u8; 4] = b"PK\x07\x08";
/// Bytes of a header before its name.
const HEADER: usize = 30;
const ENCRYPTED: u16 = 1;
/// The extra field that has lengths of 8 bytes.
const ZIP64: u16 = 1;

/// An entry of an archive.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// Whether its bytes are stored as they are.
    pub(super) stored: bool,
    /// Bytes it takes; none where they are not known yet, or told behind them.
    pub(super) len: Option<u64>,
    /// Where they begin.
    pub(super) data: u64,
}

impl Entry {
    /// The one whose header is there.
    pub(super) fn at(view: &mut View<'_>, at: u64) -> Option<Entry> {
        let header: [u8; HEADER] = view.exact(at, HEADER)?.try_into().ok()?;
        let short = |i: usize| u16::from_le_bytes([header[i], header[i + 1]]);
        if !header.starts_with(LOCAL) || short(6) & ENCRYPTED != 0 {
            return None;
        }
        let long = u32::from_le_bytes([header[18], header[19], header[20], header[21]]);
        let (name, extra) = (usize::from(short(26)), usize::from(short(28)));
        let behind = view.exact(at + HEADER as u64, name + extra)?;
        let (name, extra) = behind.split_at(name);
        let len = if long == u32::MAX { zip64_len(extra)? } else { long.into() };
        let data = at + (HEADER + behind.len()) as u64;
        Some(Entry { name: name.to_vec(), stored: short(8) == 0, len: (len > 0).then_some(len), data })
    }

    /// Where the next one's header is, if this one's bytes end there.
    pub(super) fn behind(view: &mut View<'_>, end: u64) -> u64 {
        let follows = view.some(end, 28);
        match follows.strip_prefix(DESCRIPTOR) {
            // A checksum and two lengths, of 4 bytes or of 8.
            Some(rest) if rest.get(12..14) == Some(b"PK") => end + 16,
            Some(_) => end.saturating_add(24),
            None => end,
        }
    }

    /// Bytes of a short one whose length is told behind it.
    pub(super) fn told_behind(&self, view: &mut View<'_>) -> Option<u64> {
        const LONGEST: usize = 4096;
        let bytes = view.some(self.data, LONGEST);
        let ends = |at: usize| {
            let descriptor = bytes[at..].strip_prefix(DESCRIPTOR)?;
            Some(u32::from_le_bytes(*descriptor.get(4..)?.first_chunk()?) as usize == at)
        };
        (0..bytes.len()).find(|at| ends(*at) == Some(true)).map(|at| at as u64)
    }
}

/// The stored length that an entry's extra fields tell.
fn zip64_len(mut extra: &[u8]) -> Option<u64> {
    while let [a, b, c, d, rest @ ..] = extra {
        let (field, len) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
        if field == ZIP64 {
            // Behind the length of what was compressed.
            return rest.get(8..).and_then(<[u8]>::first_chunk).map(|len| u64::from_le_bytes(*len));
        }
        extra = rest.get(len..)?;
    }
    None
}
