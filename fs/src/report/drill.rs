//! What a drill saw.

use cairn_volume::drill::{DrillLine, DrillMargin, DrillPack, DrillRange, DrillReport};
use cairn_volume::parity_name;
use serde::Serialize;

/// [`DrillLine`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DrillLineReport {
    /// The damage, in a word that stays.
    pub(crate) damage: &'static str,
    /// The same for people.
    pub(crate) what: &'static str,
    /// How often it was done.
    pub(crate) rounds: u64,
    /// How often it was promised to be mended.
    pub(crate) promised: u64,
    /// How often it was.
    pub(crate) repaired: u64,
    /// How often something was lost, and told.
    pub(crate) told: u64,
    /// How often other bytes were returned: must be 0.
    pub(crate) wrong: u64,
    /// How often it was promised to be mended, and was not.
    pub(crate) broken: u64,
    /// How long finding and mending it took, on average.
    pub(crate) seconds: f64,
}

/// [`DrillRange`]; `null` where there are no numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DrillRangeReport {
    /// The least.
    pub(crate) least: u64,
    /// The middle.
    pub(crate) median: u64,
    /// The most.
    pub(crate) most: u64,
}

impl DrillRangeReport {
    fn of(range: DrillRange) -> Option<DrillRangeReport> {
        let DrillRange { count, least, median, most } = range;
        (count > 0).then_some(DrillRangeReport { least, median, most })
    }
}

/// [`DrillMargin`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DrillMarginReport {
    /// `data` or `metadata`.
    pub(crate) kind: &'static str,
    /// Bytes of the pack.
    pub(crate) len: u64,
    /// How often each was measured.
    pub(crate) runs: u64,
    /// The longest hole that is promised to come back.
    pub(crate) hole_promised: u64,
    /// The longest that did, from each place that was tried.
    pub(crate) hole_repaired: Option<DrillRangeReport>,
    /// The shortest that did not.
    pub(crate) hole_lost: Option<DrillRangeReport>,
    /// Bad sectors that are promised to be survived.
    pub(crate) sectors_promised: u64,
    /// How many it took until something was lost.
    pub(crate) sectors_lost: Option<DrillRangeReport>,
    /// How many it took where all meet in one column.
    pub(crate) column_lost: Option<DrillRangeReport>,
    /// Rounds that this took.
    pub(crate) rounds: u64,
    /// Rounds in which other bytes were returned: must be 0.
    pub(crate) wrong: u64,
    /// Runs in which what is promised did not come back.
    pub(crate) broken: u64,
}

/// A pack that was drilled with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DrillPackReport {
    /// Its name.
    pub(crate) pack: String,
    /// `data` or `metadata`.
    pub(crate) kind: &'static str,
    /// Bytes of its file.
    pub(crate) len: u64,
    /// Its parity: K+M, or none.
    pub(crate) parity: String,
}

/// [`DrillReport`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DrillRunReport {
    /// Whether all that is promised came back, and something is.
    pub(crate) kept: bool,
    /// What chance went by.
    pub(crate) seed: u64,
    /// What is promised, in words.
    pub(crate) guarantee: String,
    /// The packs that were drilled with.
    pub(crate) packs: Vec<DrillPackReport>,
    /// Packs that the store has.
    pub(crate) packs_total: u64,
    /// Packs that were damaged on the volume itself.
    pub(crate) packs_damaged: Vec<String>,
    /// Packs that have no parity.
    pub(crate) packs_unprotected: u64,
    /// What became of each damage.
    pub(crate) damages: Vec<DrillLineReport>,
    /// How much more than that was survived.
    pub(crate) margins: Vec<DrillMarginReport>,
    /// Rounds in which other bytes were returned: must be 0.
    pub(crate) wrong: u64,
    /// Rounds in which what is promised did not come back.
    pub(crate) broken: u64,
    /// What went wrong, if anything did.
    pub(crate) reasons: Vec<String>,
    /// Where the copies are, if they were kept.
    pub(crate) copies: Option<String>,
    /// How long it took.
    pub(crate) seconds: f64,
}

fn kind(metadata: bool) -> &'static str {
    if metadata { "metadata" } else { "data" }
}

impl From<DrillReport> for DrillRunReport {
    fn from(report: DrillReport) -> DrillRunReport {
        let (wrong, broken, unprotected) = (report.wrong(), report.broken(), report.unprotected());
        // Taken apart without `..`: a new field does not compile until it has a name here.
        let DrillReport { seed, guarantee, packs, packs_total, damaged, lines, margins, whys, kept, took } =
            report;
        let pack = |pack: DrillPack| DrillPackReport {
            pack: pack.pack.to_string(),
            kind: kind(pack.metadata),
            len: pack.len,
            parity: parity_name(pack.parity),
        };
        DrillRunReport {
            kept: wrong == 0 && broken == 0 && unprotected == 0,
            seed,
            guarantee,
            packs: packs.into_iter().map(pack).collect(),
            packs_total,
            packs_damaged: damaged.iter().map(ToString::to_string).collect(),
            packs_unprotected: unprotected,
            damages: lines.into_iter().map(DrillLineReport::from).collect(),
            margins: margins.into_iter().map(DrillMarginReport::from).collect(),
            wrong,
            broken,
            reasons: whys,
            copies: kept.map(|path| path.display().to_string()),
            seconds: took.as_secs_f64(),
        }
    }
}

impl From<DrillLine> for DrillLineReport {
    fn from(line: DrillLine) -> DrillLineReport {
        let DrillLine { damage, rounds, promised, repaired, told, wrong, broken, took } = line;
        let (damage, what) = damage.names();
        let seconds = took.as_secs_f64();
        DrillLineReport { damage, what, rounds, promised, repaired, told, wrong, broken, seconds }
    }
}

impl From<DrillMargin> for DrillMarginReport {
    fn from(margin: DrillMargin) -> DrillMarginReport {
        let DrillMargin {
            metadata,
            len,
            runs,
            hole_promised,
            hole_repaired,
            hole_lost,
            sectors_promised,
            sectors_lost,
            column_lost,
            rounds,
            wrong,
            broken,
        } = margin;
        DrillMarginReport {
            kind: kind(metadata),
            len,
            runs,
            hole_promised,
            hole_repaired: DrillRangeReport::of(hole_repaired),
            hole_lost: DrillRangeReport::of(hole_lost),
            sectors_promised,
            sectors_lost: DrillRangeReport::of(sectors_lost),
            column_lost: DrillRangeReport::of(column_lost),
            rounds,
            wrong,
            broken,
        }
    }
}
