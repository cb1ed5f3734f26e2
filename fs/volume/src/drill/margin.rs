//! Beyond the guarantee: how much more comes back, and that what does not is told.

use std::time::Duration;

use super::damage::{leads_there, promised_hole};
use super::dice::Dice;
use super::edit::{Edit, sector};
use super::round::{Bench, Outcome, Subject};
use super::{DrillError, DrillRange};
use cairn_format::SECTOR;

/// What more and more damage did to a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrillMargin {
    /// Whether it is a pack of metadata.
    pub metadata: bool,
    /// Bytes of its file.
    pub len: u64,
    /// How often each was measured.
    pub runs: u64,
    /// The longest hole that is promised to come back.
    pub hole_promised: u64,
    /// The longest that did, from any one place.
    pub hole_repaired: DrillRange,
    /// The shortest that did not; of those places from which one was met.
    pub hole_lost: DrillRange,
    /// Bad sectors that are promised to be survived.
    pub sectors_promised: u64,
    /// How many it took, anywhere, until something was lost.
    pub sectors_lost: DrillRange,
    /// How many of them it took in one column.
    pub column_lost: DrillRange,
    /// Packs that were mended, or told to be lost, for this.
    pub rounds: u64,
    /// Rounds in which other bytes were returned.
    pub wrong: u64,
    /// Runs in which what is promised did not come back.
    pub broken: u64,
}

/// One measurement: growing damage, from what is promised on.
struct Ladder<'a, 'b> {
    bench: &'a mut Bench<'b>,
    subject: &'a Subject,
    margin: &'a mut DrillMargin,
    whys: &'a mut Vec<String>,
}

/// Measures how much a pack survives, `runs` times; `tell` is told of bytes that were done.
pub(super) fn measure(
    bench: &mut Bench<'_>,
    subject: &Subject,
    runs: u64,
    dice: &mut Dice,
    whys: &mut Vec<String>,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<DrillMargin, DrillError> {
    let mut margin = DrillMargin {
        metadata: subject.metadata,
        len: subject.len(),
        runs,
        hole_promised: promised_hole(&subject.layout),
        sectors_promised: subject.layout.parity.parity.into(),
        ..DrillMargin::default()
    };
    let (mut repaired, mut lost) = (Vec::new(), Vec::new());
    let (mut anywhere, mut column) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let mut ladder = Ladder { bench, subject, margin: &mut margin, whys };
        let hole = ladder.hole(dice, &mut |_| go_on(0))?;
        repaired.extend(hole.0);
        lost.extend(hole.1);
        anywhere.extend(ladder.sectors(dice, &mut |_| go_on(0))?);
        column.extend(ladder.column(dice, &mut |_| go_on(0))?);
        if !go_on(subject.len()) {
            return Err(DrillError::Stopped);
        }
    }
    margin.hole_repaired = DrillRange::of(repaired);
    margin.hole_lost = DrillRange::of(lost);
    margin.sectors_lost = DrillRange::of(anywhere);
    margin.column_lost = DrillRange::of(column);
    Ok(margin)
}

impl Ladder<'_, '_> {
    /// Whether the pack comes back from this.
    fn survives(
        &mut self,
        edits: &[Edit],
        dice: &mut Dice,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, DrillError> {
        if !go_on(0) {
            return Err(DrillError::Stopped);
        }
        let Some(round) = self.bench.round(self.subject, edits, dice, go_on)? else { return Ok(true) };
        self.margin.rounds += 1;
        if let Outcome::Wrong(why) = &round.outcome {
            self.margin.wrong += 1;
            self.whys.push(format!("pack {}, beyond the guarantee: {why}", self.subject.pack));
        }
        Ok(round.outcome == Outcome::Repaired)
    }

    /// The most of `promised..=most` that is survived, and the least that is not: doubled steps, then halved ones. The
    /// more there is the more is lost, so that both lie beside each other.
    fn climb(
        &mut self,
        (promised, most, step): (u64, u64, u64),
        edits: impl Fn(u64) -> Vec<Edit>,
        dice: &mut Dice,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(Option<u64>, Option<u64>), DrillError> {
        if promised > 0 && !self.survives(&edits(promised), dice, go_on)? {
            if !leads_there(&self.subject.layout, &edits(promised)) {
                // That was not promised, and says nothing of what parity reaches.
                return Ok((None, None));
            }
            self.margin.broken += 1;
            self.whys.push(format!("pack {}: what is promised did not come back", self.subject.pack));
            return Ok((None, Some(promised)));
        }
        let (mut good, mut bad, mut stride) = (promised, None, step);
        while bad.is_none() && good < most {
            let next = (good + stride).min(most);
            match self.survives(&edits(next), dice, go_on)? {
                true => (good, stride) = (next, stride * 2),
                false => bad = Some(next),
            }
        }
        while let Some(lost) = bad.filter(|lost| lost - good > step) {
            let middle = good + (lost - good) / 2 / step * step;
            let middle = middle.max(good + step);
            match self.survives(&edits(middle), dice, go_on)? {
                true => good = middle,
                false => bad = Some(middle),
            }
        }
        Ok((Some(good), bad))
    }

    /// A hole that grows from one place on.
    fn hole(
        &mut self,
        dice: &mut Dice,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(Option<u64>, Option<u64>), DrillError> {
        let (len, promised) = (self.subject.len(), self.margin.hole_promised);
        let start = dice.below(len.saturating_sub(promised) + 1);
        let hole = |bytes: u64| vec![Edit::Zeros(start..start + bytes)];
        self.climb((promised, len - start, SECTOR), hole, dice, go_on)
    }

    /// Bad sectors anywhere, one after another.
    fn sectors(
        &mut self,
        dice: &mut Dice,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<u64>, DrillError> {
        let len = self.subject.len();
        let order = dice.shuffled(len.div_ceil(SECTOR));
        let bad = |count: u64| {
            let some = order.iter().take(count as usize);
            some.map(|number| Edit::Garbage(sector(*number, len))).collect()
        };
        let climbed = self.climb((self.margin.sectors_promised, order.len() as u64, 1), bad, dice, go_on)?;
        Ok(climbed.1)
    }

    /// Bad sectors that all have a byte of one column.
    fn column(
        &mut self,
        dice: &mut Dice,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<u64>, DrillError> {
        let (len, layout) = (self.subject.len(), self.subject.layout);
        let Some(stripe) = layout.stripe() else { return Ok(None) };
        let column = dice.below(stripe.unit());
        let data = (0..stripe.filled()).map(|n| stripe.data_unit(n));
        let parity = (0..usize::from(layout.parity.parity)).map(|n| layout.parity_unit(n));
        let mut places: Vec<u64> = data
            .chain(parity)
            .map(|unit| (unit, column))
            .filter(|(u, c)| u.start + c < u.end)
            .map(|(u, c)| u.start + c)
            .collect();
        let order = dice.shuffled(places.len() as u64);
        places = order.into_iter().map(|at| places[at as usize]).collect();
        let bad = |count: u64| {
            let some = places.iter().take(count as usize);
            some.map(|at| Edit::Garbage(sector(at / SECTOR, len))).collect()
        };
        let most = places.len() as u64;
        let promised = self.margin.sectors_promised.min(most);
        Ok(self.climb((promised, most, 1), bad, dice, go_on)?.1)
    }
}

/// How long a mean of so many took.
pub(super) fn mean(total: Duration, count: u64) -> Duration {
    total / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}
