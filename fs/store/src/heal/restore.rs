//! Bytes that are lost, computed again from the stripe they are part of.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use cairn_codec::parity::{ParityCode, RestorePlan};
use cairn_format::{Stripe, Trailer};

use super::sectors::{Found, Region, Sectors};

/// How often it is tried to restore a region with other shards, where the checksums of these are lost.
const ATTEMPTS: usize = 2_000;
/// …and with other regions of them: of these there are few where only parity is in doubt, and what is to be restored is little
/// where it is checksums.
const FINER_ATTEMPTS: usize = 100;

/// What counts as lost, though it may be right: whole shards, and regions, by where they begin.
#[derive(Clone, Copy, Default)]
struct Doubted<'d> {
    shards: &'d [usize],
    regions: &'d [u64],
}

/// Shards that were used on their word, and where those regions of them begin.
#[derive(Default)]
struct Unknown {
    shards: Vec<usize>,
    regions: Vec<u64>,
}

/// What one shard of the stripe has in a range of columns.
struct Part {
    bytes: Vec<u8>,
    /// Columns, counted from the range's first, that are lost.
    lost: Vec<Range<usize>>,
    /// Where regions begin of which nothing says that they are right.
    unknown: Vec<u64>,
}

/// Restores what is lost of a pack, as far as its parity reaches.
pub(super) struct Restorer<'a> {
    pub(super) sectors: Sectors<'a>,
    stripe: Stripe,
    code: ParityCode,
    /// One pattern of lost shards repeats from column to column.
    plans: RefCell<HashMap<Vec<usize>, Option<RestorePlan>>>,
    /// Blocks of checksums that could not be restored, by where they begin: many sectors ask for one.
    hopeless: RefCell<HashSet<u64>>,
}

impl<'a> Restorer<'a> {
    /// None where the pack has no parity.
    pub(super) fn new(sectors: Sectors<'a>) -> Option<Restorer<'a>> {
        let stripe = sectors.layout().stripe()?;
        let geometry = stripe.geometry();
        let code = ParityCode::new(geometry.data.into(), geometry.parity.into())?;
        Some(Restorer { sectors, stripe, code, plans: RefCell::default(), hopeless: RefCell::default() })
    }

    /// A region's bytes: as they are where they are whole, and else restored. Where nothing says whether they are right
    /// they are `Unknown`, and whoever asks must find out.
    pub(super) fn read(&self, region: &Region) -> Found {
        let found = self.sectors.read(region);
        if matches!(found, Found::Whole(_)) {
            return found;
        }
        // The checksums are covered by parity themselves. Without them nothing would tell what was restored from what is wrong.
        let known = self.sectors.missing_sums(region).is_none_or(|sums| self.restores_sums(&sums));
        match found {
            Found::Unknown(bytes) if known => match self.sectors.check(region, bytes) {
                Found::Lost => self.restore(region),
                found => found,
            },
            Found::Unknown(bytes) => Found::Unknown(bytes),
            _ => self.restore(region),
        }
    }

    fn restores_sums(&self, sums: &Region) -> bool {
        if self.hopeless.borrow().contains(&sums.range.start) {
            return false;
        }
        let restored = matches!(self.restore(sums), Found::Whole(_));
        if !restored {
            self.hopeless.borrow_mut().insert(sums.range.start);
        }
        restored
    }

    /// A region's bytes, from another copy of the pack, or computed from the other units.
    pub(super) fn restore(&self, region: &Region) -> Found {
        if let Some(bytes) = self.sectors.elsewhere(region) {
            self.sectors.learn(region, &bytes);
            return Found::Whole(bytes);
        }
        // Shards whose own checksums are lost are taken at their word, and only if that fails not: some of them, then more.
        let mut unknown = Unknown::default();
        let first = self.attempt(region, Doubted::default(), &mut unknown);
        if !matches!(first, Found::Lost) || unknown.shards.is_empty() {
            return first;
        }
        let most = self.code.parity().saturating_sub(1);
        let coarse = Doubts::new(unknown.shards.clone(), most);
        let found = self.doubting(coarse, ATTEMPTS, |chosen| {
            self.attempt(region, Doubted { shards: chosen, regions: &[] }, &mut Unknown::default())
        });
        if !matches!(found, Found::Lost) {
            return found;
        }
        // One shard may be wrong in some columns and another in others.
        let data_is_known = unknown.shards.iter().all(|shard| *shard >= self.code.data());
        if !data_is_known && !self.sectors.layout().sums().contains(&region.range.start) {
            return Found::Lost;
        }
        // What is damaged the likeliest first: parity, whose checksums are there once.
        unknown.regions.reverse();
        let finer = Doubts::new((0..unknown.regions.len()).collect(), 2 * self.code.parity());
        self.doubting(finer, FINER_ATTEMPTS, |chosen| {
            let regions: Vec<u64> = chosen.iter().map(|number| unknown.regions[*number]).collect();
            self.attempt(region, Doubted { shards: &[], regions: &regions }, &mut Unknown::default())
        })
    }

    /// The first attempt that succeeds.
    fn doubting(&self, mut doubts: Doubts, most: usize, attempt: impl Fn(&[usize]) -> Found) -> Found {
        std::iter::from_fn(|| doubts.next())
            .take(most)
            .map(|chosen| attempt(&chosen))
            .find(|found| !matches!(found, Found::Lost))
            .unwrap_or(Found::Lost)
    }

    /// A region of the parity, computed from data alone; none where some of that is lost, or not known to be right.
    pub(super) fn parity_from_data(&self, region: &Region) -> Option<Vec<u8>> {
        let parity: Vec<usize> = (self.code.data()..self.code.data() + self.code.parity()).collect();
        let mut unknown = Unknown::default();
        match self.attempt(region, Doubted { shards: &parity, regions: &[] }, &mut unknown) {
            Found::Whole(bytes) | Found::Unknown(bytes) => unknown.shards.is_empty().then_some(bytes),
            Found::Lost => None,
        }
    }

    /// One attempt, in which what is `doubted` counts as lost; `unknown` gets what was used on its word.
    fn attempt(&self, region: &Region, doubted: Doubted<'_>, unknown: &mut Unknown) -> Found {
        let mut bytes = Vec::with_capacity((region.range.end - region.range.start) as usize);
        let mut at = region.range.start;
        while at < region.range.end {
            let (shard, part) = self.shard_at(at);
            let end = part.end.min(region.range.end);
            match shard {
                None => bytes.extend(self.head(at - part.start, end - at)),
                Some(shard) => {
                    match self.restore_columns(shard, at - part.start..end - part.start, doubted, unknown) {
                        Some(restored) => bytes.extend(restored),
                        None => return Found::Lost,
                    }
                }
            }
            at = end;
        }
        let found = self.sectors.check(region, bytes);
        if let Found::Whole(bytes) = &found {
            self.sectors.learn(region, bytes);
        }
        found
    }

    /// The shard that a byte of the stripe belongs to, and where that lies; no shard for what stands before the parity.
    fn shard_at(&self, at: u64) -> (Option<usize>, Range<u64>) {
        let layout = self.sectors.layout();
        if at < self.stripe.covered() {
            let number = (at / self.stripe.unit()) as usize;
            return (Some(number), self.stripe.data_unit(number));
        }
        let (start, first) = (layout.parity_area().start, layout.parity_unit(0).start);
        if at < first {
            return (None, start..first);
        }
        let number = ((at - first) / self.stripe.unit()) as usize;
        (Some(self.code.data() + number), layout.parity_unit(number))
    }

    /// What stands before the parity.
    fn head(&self, from: u64, len: u64) -> Vec<u8> {
        let layout = *self.sectors.layout();
        let mut head = Trailer { layout }.encode(self.sectors.pack());
        head.resize((layout.parity_unit(0).start - layout.parity_area().start) as usize, 0);
        head.into_iter().skip(from as usize).take(len as usize).collect()
    }

    /// Where a shard lies in the file.
    fn shard(&self, number: usize) -> Range<u64> {
        match number.checked_sub(self.code.data()) {
            None => self.stripe.data_unit(number),
            Some(parity) => self.sectors.layout().parity_unit(parity),
        }
    }

    /// A range of a shard's columns, from the other shards; none where more are lost than there are parity units.
    fn restore_columns(
        &self,
        wanted: usize,
        columns: Range<u64>,
        doubted: Doubted<'_>,
        unknown: &mut Unknown,
    ) -> Option<Vec<u8>> {
        let len = (columns.end - columns.start) as usize;
        let all = self.code.data() + self.code.parity();
        let parts: Vec<Part> = (0..all)
            .map(|number| match number == wanted || doubted.shards.contains(&number) {
                true => {
                    Part { bytes: Vec::new(), lost: std::iter::once(0..len).collect(), unknown: Vec::new() }
                }
                false => self.part(number, &columns, doubted.regions),
            })
            .collect();
        for (number, part) in parts.iter().enumerate().filter(|(_, part)| !part.unknown.is_empty()) {
            if !unknown.shards.contains(&number) {
                unknown.shards.push(number);
            }
            let new: Vec<u64> =
                part.unknown.iter().copied().filter(|at| !unknown.regions.contains(at)).collect();
            unknown.regions.extend(new);
        }
        let mut restored = vec![0; len];
        let mut edges: Vec<usize> =
            parts.iter().flat_map(|p| p.lost.iter().flat_map(|r| [r.start, r.end])).collect();
        edges.sort_unstable();
        edges.dedup();
        for pair in edges.windows(2) {
            let run = pair[0]..pair[1];
            let lost: Vec<usize> = (0..all)
                .filter(|n| parts[*n].lost.iter().any(|r| r.start <= run.start && run.end <= r.end))
                .collect();
            let mut plans = self.plans.borrow_mut();
            let plan = plans.entry(lost).or_insert_with_key(|lost| self.code.plan(lost)).as_ref()?;
            let sources: Vec<&[u8]> = plan.sources().iter().map(|n| slice(&parts[*n].bytes, &run)).collect();
            // The others that are lost are not asked for: they get no room.
            let mut outputs: Vec<&mut [u8]> = plan.lost().iter().map(|_| Default::default()).collect();
            let at = plan.lost().iter().position(|n| *n == wanted)?;
            outputs[at] = &mut restored[run];
            plan.restore(&sources, &mut outputs);
        }
        Some(restored)
    }

    /// What a shard has in a range of columns. Behind the end of what is covered there are zeros.
    fn part(&self, number: usize, columns: &Range<u64>, doubted: &[u64]) -> Part {
        let there = self.shard(number);
        let clip = |column: u64| (there.start + column).min(there.end);
        let (start, end) = (clip(columns.start), clip(columns.end));
        let mut part = Part { bytes: vec![0; (end - start) as usize], lost: Vec::new(), unknown: Vec::new() };
        for region in self.sectors.regions(start..end) {
            let (from, to) = (region.range.start.max(start), region.range.end.min(end));
            let at = (from - start) as usize..(to - start) as usize;
            let found = match doubted.contains(&region.range.start) {
                true => Found::Lost,
                false => self.sectors.read(&region),
            };
            if matches!(found, Found::Unknown(_)) {
                part.unknown.push(region.range.start);
            }
            match found {
                Found::Whole(bytes) | Found::Unknown(bytes) => {
                    let inner = (from - region.range.start) as usize..(to - region.range.start) as usize;
                    part.bytes[at].copy_from_slice(&bytes[inner]);
                }
                Found::Lost => part.lost.push(at),
            }
        }
        part
    }
}

/// All ways to doubt some of several shards: each alone, then pairs, up to `most` at a time.
struct Doubts {
    among: Vec<usize>,
    most: usize,
    /// The positions of those doubted now, ascending.
    chosen: Vec<usize>,
}

impl Doubts {
    fn new(among: Vec<usize>, most: usize) -> Doubts {
        Doubts { most: most.min(among.len()), among, chosen: Vec::new() }
    }

    fn next(&mut self) -> Option<Vec<usize>> {
        let (len, all) = (self.chosen.len(), self.among.len());
        match (0..len).rev().find(|i| self.chosen[*i] + len - i < all) {
            Some(i) => {
                let from = self.chosen[i] + 1;
                self.chosen.splice(i.., from..from + len - i);
            }
            None if len < self.most => self.chosen = (0..=len).collect(),
            None => return None,
        }
        Some(self.chosen.iter().map(|i| self.among[*i]).collect())
    }
}

/// A run of a shard's bytes; what it lacks at its end are zeros.
fn slice<'b>(bytes: &'b [u8], run: &Range<usize>) -> &'b [u8] {
    let end = run.end.min(bytes.len());
    &bytes[run.start.min(end)..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_doubted_alone_and_then_each_pair() {
        let mut doubts = Doubts::new(vec![3, 5, 9], 2);
        let all: Vec<_> = std::iter::from_fn(|| doubts.next()).collect();
        assert_eq!(all, [vec![3], vec![5], vec![9], vec![3, 5], vec![3, 9], vec![5, 9]]);
        assert_eq!(Doubts::new(Vec::new(), 2).next(), None);
        assert_eq!(Doubts::new(vec![1], 0).next(), None);
    }
}
