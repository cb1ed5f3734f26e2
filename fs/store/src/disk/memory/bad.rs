//! Ranges of a file that its medium does not give back.

use std::ops::Range;

/// Bytes of a file whose reads err.
#[derive(Clone, Debug, Default)]
pub(super) struct BadRanges(Vec<Bad>);

#[derive(Clone, Debug)]
struct Bad {
    range: Range<u64>,
    stays: bool,
}

impl BadRanges {
    pub(super) fn push(&mut self, range: Range<u64>, stays: bool) {
        self.0.push(Bad { range, stays });
    }

    /// Whether a read meets one.
    pub(super) fn touches(&self, offset: u64, len: u64) -> bool {
        self.0.iter().any(|bad| bad.range.start < offset.saturating_add(len) && offset < bad.range.end)
    }

    /// A disk puts what is written to a bad sector into another one, as long as it has some.
    pub(super) fn written(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let cut = |bad: Bad| -> Vec<Bad> {
            if bad.stays {
                return vec![bad];
            }
            let before = bad.range.start..bad.range.end.min(offset);
            let behind = bad.range.start.max(end)..bad.range.end;
            [before, behind]
                .into_iter()
                .filter(|range| !range.is_empty())
                .map(|range| Bad { range, stays: false })
                .collect()
        };
        self.0 = std::mem::take(&mut self.0).into_iter().flat_map(cut).collect();
    }
}
