//! Parity over shards of bytes: a systematic Reed-Solomon code over GF(2^8), which restores what is known to be lost.
//! It finds no errors: checksums have to say which shards are lost.
//!
//! Field: polynomials over the two-element field modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11D), bit k of a byte being the
//! coefficient of x^k; so addition and subtraction are exclusive or. Shard number n (data shards 0 to K - 1, then
//! parity shards K to K + M - 1) stands for the element whose byte is n. At each column there is one polynomial of a
//! degree less than K whose values at the elements of the data shards are their bytes; a parity shard's byte is its
//! value at that shard's element. So the byte of parity shard j is the sum over i of `coefficient(j, i)` times that of
//! data shard i, where
//!
//! ```text
//! coefficient(j, i) = product over m in 0..K, m != i, of ((K + j) - m) / (i - m)
//! ```
//!
//! with the field's operations on those numbers as elements. That is row K + j of the Vandermonde matrix (row r, column
//! c: r^c, 0^0 = 1) times the inverse of its top K rows: the matrix of the crate reed-solomon-erasure, which the tests
//! compare with. Any K shards determine the polynomial, hence all others, by the same formula with the numbers of those
//! K in place of 0..K. A row does not depend on M.
//!
//! With 16 data shards the first parity shards' rows are
//!
//! ```text
//! 21 b5 f6 85 df 02 b7 87 3e dd 4a a4 8d da 61 30
//! b5 21 85 f6 02 df 87 b7 dd 3e a4 4a da 8d 30 61
//! f6 85 21 b5 b7 87 df 02 4a a4 3e dd 61 30 8d da
//! 85 f6 b5 21 87 b7 02 df a4 4a dd 3e 30 61 da 8d
//! ```
//!
//! Architecture Invariant: no I/O, no checksums, and the same bytes whatever the processor.

mod field;
mod kernels;

#[cfg(test)]
mod tests;

pub use kernels::Kernel;

use field::interpolate;
use kernels::{ROWS, TERMS, Term};

/// The most shards, data and parity together.
const SHARDS: usize = 255;

/// Columns that go through all rows before the next do: a block of [`TERMS`] sources stays in the second-level cache.
const BLOCK: usize = 16 << 10;

/// A code of K data shards and M parity shards; any K of these restore the others.
#[derive(Clone, Debug)]
pub struct ParityCode {
    kernel: Kernel,
    data: usize,
    /// For each parity shard the coefficients of the data shards.
    rows: Vec<Vec<u8>>,
}

impl ParityCode {
    /// A code of `data` and `parity` shards. `None` with no data shards, or more than 255 together.
    pub fn new(data: usize, parity: usize) -> Option<ParityCode> {
        let total = data.checked_add(parity)?;
        if data == 0 || total > SHARDS {
            return None;
        }
        let sources: Vec<u8> = (0..data).map(element).collect();
        let rows = (data..total).map(|shard| interpolate(&sources, element(shard))).collect();
        Some(ParityCode { kernel: Kernel::best(), data, rows })
    }

    /// The same code, computed by `kernel`: for comparing kernels.
    pub fn with_kernel(self, kernel: Kernel) -> ParityCode {
        ParityCode { kernel, ..self }
    }

    /// How many data shards.
    pub fn data(&self) -> usize {
        self.data
    }

    /// How many parity shards.
    pub fn parity(&self) -> usize {
        self.rows.len()
    }

    /// What data shard `data` is multiplied with in parity shard `parity`; both count from zero, each among its own
    /// kind.
    pub fn coefficient(&self, parity: usize, data: usize) -> Option<u8> {
        self.rows.get(parity)?.get(data).copied()
    }

    /// Adds data shard `index` to the parity shards, which begin as zeros. A shard that is shorter than these counts as
    /// continued by zeros; it is never longer.
    pub fn add(&self, index: usize, shard: &[u8], parity: &mut [impl AsMut<[u8]>]) {
        debug_assert!(index < self.data && parity.len() == self.rows.len());
        debug_assert!(parity.iter_mut().all(|p| shard.len() <= p.as_mut().len()));
        let columns: Vec<&[u8]> =
            self.rows.iter().map(|row| row.get(index..=index).unwrap_or_default()).collect();
        combine(self.kernel, &columns, &[shard], parity, true);
    }

    /// Sets the parity shards to those of `data`. Data shards that are missing at the end, and the ends of those that
    /// are shorter than the parity shards, are zeros; none is longer.
    pub fn encode(&self, data: &[impl AsRef<[u8]>], parity: &mut [impl AsMut<[u8]>]) {
        debug_assert!(data.len() <= self.data && parity.len() == self.rows.len());
        let rows: Vec<&[u8]> = self.rows.iter().map(Vec::as_slice).collect();
        combine(self.kernel, &rows, data, parity, false);
    }

    /// How to restore the shards of which the numbers (data first, then parity) are in `lost`. `None` where these are
    /// more than M, or one is no shard's number.
    pub fn plan(&self, lost: &[usize]) -> Option<RestorePlan> {
        let mut lost = lost.to_vec();
        lost.sort_unstable();
        lost.dedup();
        let total = self.data + self.rows.len();
        if lost.len() > self.rows.len() || lost.last().is_some_and(|last| *last >= total) {
            return None;
        }
        let left = (0..total).filter(|shard| lost.binary_search(shard).is_err());
        let sources: Vec<usize> = left.take(self.data).collect();
        let elements: Vec<u8> = sources.iter().copied().map(element).collect();
        let rows = lost.iter().map(|shard| interpolate(&elements, element(*shard))).collect();
        Some(RestorePlan { kernel: self.kernel, sources, lost, rows })
    }
}

/// The element that a shard stands for. Shards are less than [`SHARDS`].
fn element(shard: usize) -> u8 {
    shard as u8
}

/// How one set of lost shards is restored. Worth keeping while the same ones are lost.
#[derive(Clone, Debug)]
pub struct RestorePlan {
    kernel: Kernel,
    sources: Vec<usize>,
    lost: Vec<usize>,
    /// For each lost shard the coefficients of the sources.
    rows: Vec<Vec<u8>>,
}

impl RestorePlan {
    /// The numbers of the K shards that it reads, ascending: data shards before parity.
    pub fn sources(&self) -> &[usize] {
        &self.sources
    }

    /// The numbers of the shards that it restores, ascending, each once.
    pub fn lost(&self) -> &[usize] {
        &self.lost
    }

    /// Sets `restored` to the lost shards, in the order of [`lost`](RestorePlan::lost), from `sources` in that of
    /// [`sources`](RestorePlan::sources). Sources that are missing at the end, empty or shorter than what is restored
    /// count as continued by zeros. Where less of a shard is wanted, its buffer may be shorter, or empty.
    pub fn restore(&self, sources: &[impl AsRef<[u8]>], restored: &mut [impl AsMut<[u8]>]) {
        debug_assert!(sources.len() <= self.sources.len() && restored.len() <= self.lost.len());
        let rows: Vec<&[u8]> = self.rows.iter().map(Vec::as_slice).collect();
        combine(self.kernel, &rows, sources, restored, false);
    }
}

/// Sets each output (adds to it, if `add`) to the sum of the sources multiplied with the coefficients in its row.
fn combine(
    kernel: Kernel,
    rows: &[&[u8]],
    sources: &[impl AsRef<[u8]>],
    outputs: &mut [impl AsMut<[u8]>],
    add: bool,
) {
    let sources: Vec<&[u8]> = sources.iter().map(AsRef::as_ref).collect();
    let mut outputs: Vec<(&[u8], &mut [u8])> =
        rows.iter().copied().zip(outputs.iter_mut().map(AsMut::as_mut)).collect();
    // The longest first, so that those that reach into a block are the first ones.
    outputs.sort_by_key(|(_, output)| std::cmp::Reverse(output.len()));
    let mut start = 0;
    while outputs.first().is_some_and(|(_, output)| start < output.len()) {
        // A block ends where a slice does: within it all that take part have all columns.
        let lengths = sources.iter().map(|s| s.len()).chain(outputs.iter().map(|(_, o)| o.len()));
        let end = lengths.filter(|length| *length > start).fold(start + BLOCK, usize::min);
        let present = outputs.partition_point(|(_, output)| output.len() >= end);
        for group in outputs[..present].chunks_mut(ROWS) {
            let group_block = match group.len() {
                1 => block::<1>,
                2 => block::<2>,
                3 => block::<3>,
                _ => block::<ROWS>,
            };
            group_block(kernel, &sources, group, start..end, add);
        }
        start = end;
    }
}

/// The columns `columns` of R outputs, which all have them. A source has all of them or none.
fn block<const R: usize>(
    kernel: Kernel,
    sources: &[&[u8]],
    group: &mut [(&[u8], &mut [u8])],
    columns: std::ops::Range<usize>,
    mut add: bool,
) {
    let rows: [&[u8]; R] = std::array::from_fn(|row| group[row].0);
    let mut outputs = group.iter_mut().map(|(_, output)| &mut output[columns.clone()]);
    let mut outputs: [&mut [u8]; R] = std::array::from_fn(|_| outputs.next().unwrap_or_default());
    let mut terms = [Term { source: &[], factors: [0; R] }; TERMS];
    let mut count = 0;
    for (i, source) in sources.iter().enumerate() {
        // Beyond the last coefficient there is no shard.
        let (Some(source), true) = (source.get(columns.clone()), rows.iter().all(|row| i < row.len())) else {
            continue;
        };
        if count == TERMS {
            kernel.run(&terms, &mut outputs, add);
            (count, add) = (0, true);
        }
        terms[count] = Term { source, factors: rows.map(|row| row[i]) };
        count += 1;
    }
    kernel.run(&terms[..count], &mut outputs, add);
}
