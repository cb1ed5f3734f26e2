//! Segments of the journal of which one header copy cannot be used: the other is written in its place, where the records agree
//! with it.

use cairn_format::{
    RECORD_HEAD_LEN, RecordHead, SEGMENT_DATA_START, SEGMENT_HEADER_LEN, SegmentHeader, Uuid,
};
use cairn_store::disk::{Access, DiskFile};

use super::undo::Side;
use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::report::Done;

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let Some(volume) = found.superblock.as_ref().map(|s| s.uuid) else { return Ok(Outcome::AsFound) };
    for finding in found.findings.list.iter_mut().filter(|f| f.kind == "journal-header-copy") {
        let Some((path, bad)) = finding.file.clone().zip(finding.file_offset) else { continue };
        let io = || CheckError::io(&path);
        let file = site.volume.open(&path, Access::Write).map_err(io())?;
        let other = SEGMENT_HEADER_LEN as u64 - bad.min(SEGMENT_HEADER_LEN as u64);
        if let Some(good) = usable(&*file, other, &volume) {
            site.undo.copy_part(Side::Volume, &path, bad, SEGMENT_HEADER_LEN as u64)?;
            file.write_at(&good, bad).and_then(|()| file.sync()).map_err(io())?;
            finding.done(Done::Rewritten);
        }
    }
    Ok(Outcome::AsFound)
}

/// A header's bytes, if it is whole and no record of another segment lies behind it.
fn usable(file: &dyn DiskFile, at: u64, volume: &Uuid) -> Option<Vec<u8>> {
    let mut bytes = vec![0; SEGMENT_HEADER_LEN];
    file.read_exact_at(&mut bytes, at).ok()?;
    let header = SegmentHeader::decode(&bytes, volume).ok()?;
    let mut head = vec![0; RECORD_HEAD_LEN];
    file.read_exact_at(&mut head, SEGMENT_DATA_START.into()).ok()?;
    match RecordHead::peek(&head) {
        Ok(record) if RecordHead::begins(&head) && record.segment != header.number => None,
        _ => Some(bytes),
    }
}
