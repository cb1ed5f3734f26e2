//! Computing a pack's parity from what was written of it.

use std::io;
use std::ops::Range;

use cairn_codec::parity::ParityCode;
use cairn_format::{PackId, PackLayout, SECTOR, Stripe, SumTable};

use crate::disk::DiskFile;
use crate::pack::sums::SectorSums;

/// Columns that are computed at a time: what is read for them stays in the processor's cache.
const COLUMNS: u64 = 32 << 10;
/// Parity that is kept in memory until it is written.
const BUFFER: u64 = 4 << 20;

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
    let units = usize::from(stripe.geometry().parity);
    let start = (layout.parity_unit(0).start - area.start) as usize;
    let group = (BUFFER / units as u64 / COLUMNS * COLUMNS).max(COLUMNS).min(stripe.unit());
    for from in (0..stripe.unit()).step_by(group as usize) {
        let width = group.min(stripe.unit() - from) as usize;
        let mut buffer = vec![0; start + units * width];
        buffer[..head.len()].copy_from_slice(head);
        encode_columns(file, &stripe, from..from + width as u64, &mut buffer[start..])?;
        if width as u64 == stripe.unit() {
            file.write_at(&buffer, area.start)?;
            continue;
        }
        if from == 0 {
            file.write_at(&buffer[..start], area.start)?;
        }
        for (number, part) in buffer[start..].chunks_exact(width).enumerate() {
            file.write_at(part, layout.parity_unit(number).start + from)?;
        }
    }
    sum_up(file, pack, area)
}

/// Computes a range of columns of all parity units over the first bytes of a file, into `parity`: zeros, as many for each
/// unit.
pub fn encode_columns(
    file: &dyn DiskFile,
    stripe: &Stripe,
    columns: Range<u64>,
    parity: &mut [u8],
) -> io::Result<()> {
    let (data, units) = (stripe.geometry().data.into(), stripe.geometry().parity.into());
    let code = ParityCode::new(data, units).ok_or(io::ErrorKind::InvalidInput)?;
    let width = (columns.end - columns.start) as usize;
    let mut buffer = vec![0; COLUMNS.min(width as u64) as usize];
    for at in (0..width).step_by(buffer.len().max(1)) {
        let len = buffer.len().min(width - at);
        let mut parts: Vec<&mut [u8]> =
            parity.chunks_exact_mut(width).map(|unit| &mut unit[at..at + len]).collect();
        for number in 0..stripe.filled() {
            let there = stripe.data_unit(number);
            let start = (there.start + columns.start + at as u64).min(there.end);
            let part = &mut buffer[..len.min((there.end - start) as usize)];
            file.read_exact_at(part, start)?;
            code.add(number, part, &mut parts);
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
