//! Computing a pack's parity from what was written of it.

use std::io;
use std::ops::Range;

use cairn_codec::parity::ParityCode;
use cairn_format::{PackId, PackLayout, SECTOR, Stripe, SumTable};

use crate::disk::DiskFile;
use crate::pack::sums::SectorSums;

/// Columns that are computed at a time. M + 1 times as many bytes of memory are all it takes, and they stay in the
/// processor's cache.
const COLUMNS: u64 = 32 << 10;

/// Reads what parity covers back from `file`, a range of columns after another, and writes the parity area: `head`, zeros,
/// parity units. Gives the table of its sectors' checksums.
pub(super) fn write_parity(
    file: &dyn DiskFile,
    pack: &PackId,
    layout: &PackLayout,
    head: &[u8],
) -> io::Result<Vec<u8>> {
    let Some(stripe) = layout.stripe() else { return Ok(Vec::new()) };
    let area = layout.parity_area();
    let mut start = vec![0; (layout.parity_unit(0).start - area.start) as usize];
    start[..head.len()].copy_from_slice(head);
    file.write_at(&start, area.start)?;
    encode(file, &stripe, |columns, number, bytes| {
        file.write_at(bytes, layout.parity_unit(number).start + columns.start)
    })?;
    sum_up(file, pack, area)
}

/// Computes parity, and has `keep` take it: for a range of columns the bytes of each parity unit, by its number.
pub(crate) fn encode(
    file: &dyn DiskFile,
    stripe: &Stripe,
    mut keep: impl FnMut(Range<u64>, usize, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (data, units) = (stripe.geometry().data.into(), stripe.geometry().parity.into());
    let code = ParityCode::new(data, units).ok_or(io::ErrorKind::InvalidInput)?;
    let widest = COLUMNS.min(stripe.unit()) as usize;
    let mut buffer = vec![0; widest];
    let mut parity = vec![0; widest * units];
    for from in (0..stripe.unit()).step_by(widest) {
        let columns = from..(from + widest as u64).min(stripe.unit());
        let len = (columns.end - columns.start) as usize;
        parity.fill(0);
        let mut parts: Vec<&mut [u8]> =
            parity.chunks_exact_mut(widest).map(|unit| &mut unit[..len]).collect();
        for number in 0..stripe.filled() {
            let there = stripe.data_unit(number);
            let start = (there.start + from).min(there.end);
            let part = &mut buffer[..(start + len as u64).min(there.end).saturating_sub(start) as usize];
            file.read_exact_at(part, start)?;
            code.add(number, part, &mut parts);
        }
        for (number, part) in parts.into_iter().enumerate() {
            keep(columns.clone(), number, part)?;
        }
    }
    Ok(())
}

fn sum_up(file: &dyn DiskFile, pack: &PackId, area: Range<u64>) -> io::Result<Vec<u8>> {
    let first = area.start / SECTOR;
    let mut sums = SectorSums::new(pack, first);
    let mut buffer = vec![0; COLUMNS as usize];
    for start in area.clone().step_by(COLUMNS as usize) {
        let part = &mut buffer[..COLUMNS.min(area.end - start) as usize];
        file.read_exact_at(part, start)?;
        sums.take(part);
    }
    Ok(SumTable { owner: &pack.0, first }.encode(&sums.finish()))
}
