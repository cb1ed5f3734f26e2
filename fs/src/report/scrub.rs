//! What a scrub found.

use cairn_page::{Map, Margin, Pack, PackState, Shown};
use cairn_volume::{
    ScrubDamage, ScrubFile, ScrubOutcome, ScrubPack, ScrubProgress, ScrubReport, ScrubStep, ScrubStop,
};
use serde::{Deserialize, Serialize};

use crate::control::now;

/// [`ScrubProgress`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScrubProgressReport {
    /// What it is doing: `choosing`, `packs`, `journal`, `engine` or `naming`.
    pub(crate) step: String,
    /// Packs that it is about.
    pub(crate) packs_total: u64,
    /// How many of them it has looked through.
    pub(crate) packs: u64,
    /// Bytes of those packs.
    pub(crate) bytes_total: u64,
    /// How many of them were read.
    pub(crate) bytes: u64,
    /// Sectors of 4 KiB that were written back.
    pub(crate) sectors_corrected: u64,
    /// Those that are damaged still.
    pub(crate) sectors_uncorrected: u64,
}

impl From<ScrubProgress> for ScrubProgressReport {
    fn from(progress: ScrubProgress) -> ScrubProgressReport {
        let ScrubProgress { step, packs_total, packs, bytes_total, bytes, corrected, uncorrected } = progress;
        let step = match step {
            ScrubStep::Choosing => "choosing",
            ScrubStep::Packs => "packs",
            ScrubStep::Journal => "journal",
            ScrubStep::Engine => "engine",
            ScrubStep::Naming => "naming",
        };
        ScrubProgressReport {
            step: step.to_string(),
            packs_total,
            packs,
            bytes_total,
            bytes,
            sectors_corrected: corrected,
            sectors_uncorrected: uncorrected,
        }
    }
}

/// Bytes that are damaged still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScrubDamageReport {
    /// The file, from the volume's directory.
    pub(crate) file: String,
    /// The first of them.
    pub(crate) offset: u64,
    /// How many.
    pub(crate) len: u64,
    /// Why they are.
    pub(crate) reason: String,
}

/// A file that bytes are lost of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScrubFileReport {
    /// Its inode.
    pub(crate) inode: u64,
    /// What it is called, from the volume's root; none where it has lost its name and is open still.
    pub(crate) paths: Vec<String>,
    /// Offset and length of what is lost: the first 100 places.
    pub(crate) ranges: Vec<(u64, u64)>,
    /// How many places there are beyond those.
    pub(crate) more_ranges: u64,
    /// What it is called, so that its bytes can be told: for pages.
    #[serde(skip)]
    pub(crate) shown: Vec<Shown>,
}

/// Places of one file that a [`ScrubFileReport`] names, and the longest path: each is a line of at most 64 KiB.
const SCRUB_RANGES: usize = 100;
const SCRUB_PATH: usize = 2_000;

impl From<ScrubFile> for ScrubFileReport {
    fn from(file: ScrubFile) -> ScrubFileReport {
        let ScrubFile { inode, paths, names, mut ranges } = file;
        let more_ranges = ranges.len().saturating_sub(SCRUB_RANGES) as u64;
        ranges.truncate(SCRUB_RANGES);
        let paths = paths.into_iter().map(|path| shortened(path, SCRUB_PATH)).collect();
        let shown = names.iter().map(|name| Shown::new(name).shortened(SCRUB_PATH)).collect();
        ScrubFileReport { inode, paths, ranges, more_ranges, shown }
    }
}

/// The end of a path that is longer than `most` characters.
fn shortened(path: String, most: usize) -> String {
    match path.char_indices().rev().nth(most) {
        Some((at, _)) => format!("…{}", &path[at..]),
        None => path,
    }
}

/// [`ScrubReport`] with names that scripts may rely on. Sectors are of 4 KiB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScrubRunReport {
    /// Whether all that was asked for was looked at.
    pub(crate) finished: bool,
    /// Why it ended before that: `asked` or `time`.
    pub(crate) stopped: Option<String>,
    /// Packs that were looked through.
    pub(crate) packs: u64,
    /// Packs that it was about.
    pub(crate) packs_total: u64,
    /// Packs that a run before it, which did not come to its end, had looked through already.
    pub(crate) packs_before: u64,
    /// Packs that were damaged and are whole again.
    pub(crate) packs_corrected: u64,
    /// Packs that are damaged still.
    pub(crate) packs_uncorrected: u64,
    /// Packs that had to be written to another place.
    pub(crate) packs_relocated: u64,
    /// Bytes that were held against their checksums.
    pub(crate) bytes: u64,
    /// Bytes of the packs that it was about.
    pub(crate) bytes_total: u64,
    /// Sectors that were looked at.
    pub(crate) sectors_checked: u64,
    /// Sectors that were damaged and are right again.
    pub(crate) sectors_corrected: u64,
    /// Sectors that are damaged still.
    pub(crate) sectors_uncorrected: u64,
    /// Sectors that it was about.
    pub(crate) sectors_total: u64,
    /// Chunks that were held against their ids.
    pub(crate) chunks: u64,
    /// Records of the journal that were held against their checksums.
    pub(crate) journal_records: u64,
    /// Values of the engine that were.
    pub(crate) engine_values: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// What is damaged still.
    #[serde(default)]
    pub(crate) damage: Vec<ScrubDamageReport>,
    /// Files that something of is lost.
    #[serde(default)]
    pub(crate) files: Vec<ScrubFileReport>,
    /// Whether there is more than is listed.
    pub(crate) more: bool,
    /// The packs, for pages, where that was asked for.
    #[serde(skip)]
    pub(crate) map: Option<Map>,
}

impl From<ScrubReport> for ScrubRunReport {
    fn from(report: ScrubReport) -> ScrubRunReport {
        // Taken apart without `..`: a new field does not compile until it has a name here.
        let ScrubReport {
            packs,
            packs_total,
            packs_before,
            packs_corrected,
            packs_uncorrected,
            packs_relocated,
            bytes,
            bytes_total,
            checked,
            corrected,
            uncorrected,
            total,
            chunks,
            records,
            values,
            damage,
            files,
            more,
            each_pack,
            took,
            stopped,
        } = report;
        let map = (!each_pack.is_empty()).then(|| Map::of(each_pack.iter().map(drawn).collect(), now()));
        let stopped = stopped.map(|stop| match stop {
            ScrubStop::Asked => "asked",
            ScrubStop::Time => "time",
        });
        ScrubRunReport {
            finished: stopped.is_none(),
            stopped: stopped.map(str::to_string),
            packs,
            packs_total,
            packs_before,
            packs_corrected,
            packs_uncorrected,
            packs_relocated,
            bytes,
            bytes_total,
            sectors_checked: checked,
            sectors_corrected: corrected,
            sectors_uncorrected: uncorrected,
            sectors_total: total,
            chunks,
            journal_records: records,
            engine_values: values,
            seconds: took.as_secs_f64(),
            damage: damage
                .into_iter()
                .map(|ScrubDamage { file, offset, len, reason }| ScrubDamageReport {
                    file,
                    offset,
                    len,
                    reason,
                })
                .collect(),
            files: files.into_iter().map(ScrubFileReport::from).collect(),
            more,
            map,
        }
    }
}

/// A pack as a map has it.
fn drawn(pack: &ScrubPack) -> Pack {
    let state = match (pack.outcome, pack.seen) {
        (Some(ScrubOutcome::Uncorrected), _) => PackState::Lost,
        (Some(ScrubOutcome::Damaged), _) => PackState::Damaged,
        (Some(ScrubOutcome::Corrected), true) => PackState::Healed,
        (Some(ScrubOutcome::Whole), true) => PackState::Whole,
        _ => PackState::Unseen,
    };
    Pack {
        id: pack.pack.0,
        len: pack.len,
        state,
        seen: pack.seen,
        verified: pack.verified,
        corrected: pack.corrected,
        uncorrected: pack.uncorrected,
        margin: pack.margin.map(|margin| Margin {
            data: margin.parity.data,
            parity: margin.parity.parity,
            used: margin.used,
        }),
    }
}
