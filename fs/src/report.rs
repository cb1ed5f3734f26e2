//! What a volume holds, did and why, as commands, `control.sock`, hidden files and attributes tell it.

use cairn_volume::{
    Compression, Dedup, Explanation, GcProgress, GcReport, GcStep, GcStop, HealEvent, HealMode, HealOutcome,
    ScrubDamage, ScrubFile, ScrubProgress, ScrubReport, ScrubStep, ScrubStop, Statistics, Usage, Volume,
    parity_name,
};
use serde::{Deserialize, Serialize};
use std::time::UNIX_EPOCH;

/// [`Usage`] with names that scripts may rely on. Bytes, but for `files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsageReport {
    /// Inodes.
    pub(crate) files: u64,
    /// Content of all files, holes left out.
    pub(crate) logical: u64,
    /// What is left of it when every chunk is counted once.
    pub(crate) unique: u64,
    /// What that takes in data packs, compressed.
    pub(crate) stored: u64,
    /// Of those, what nothing refers to any more; at least.
    pub(crate) reclaimable: u64,
    /// Metadata packs, engine and index.
    pub(crate) metadata: u64,
    /// What of all packs is there to mend the rest: parity, checksums, second copies.
    pub(crate) parity: u64,
    /// The journal's segments.
    pub(crate) journal: u64,
    /// What of the journal is not in packs yet.
    pub(crate) journal_used: u64,
}

impl From<Usage> for UsageReport {
    fn from(usage: Usage) -> UsageReport {
        UsageReport {
            files: usage.files,
            logical: usage.logical,
            unique: usage.unique,
            stored: usage.stored,
            reclaimable: usage.reclaimable,
            metadata: usage.metadata,
            parity: usage.parity,
            journal: usage.journal,
            journal_used: usage.journal_used,
        }
    }
}

/// [`Statistics`] with names that scripts may rely on: counts since the volume was opened, then how it stands. Bytes
/// are plain bytes unless the name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatsReport {
    /// Reads.
    pub(crate) reads: u64,
    /// Bytes that they gave.
    pub(crate) read_bytes: u64,
    /// Writes.
    pub(crate) writes: u64,
    /// Bytes that they brought.
    pub(crate) written_bytes: u64,
    /// Bytes that came by copy_file_range, without being written.
    pub(crate) copied_bytes: u64,
    /// fsyncs of files and directories.
    pub(crate) fsyncs: u64,
    /// Records that operations appended to the journal.
    pub(crate) records: u64,
    /// Operations that ended in an I/O error.
    pub(crate) io_errors: u64,
    /// Folded bytes that were not in the store yet.
    pub(crate) new_bytes: u64,
    /// Folded bytes that were in the store already.
    pub(crate) deduped_bytes: u64,
    /// Bytes of the data packs that folds wrote.
    pub(crate) stored_bytes: u64,
    /// Data packs that folds wrote.
    pub(crate) packs_written: u64,
    /// Checkpoints written.
    pub(crate) checkpoints: u64,
    /// Folds and checkpoints that failed and were, or will be, tried again.
    pub(crate) fold_errors: u64,
    /// How often the engine failed and was rebuilt.
    pub(crate) engine_rebuilds: u64,
    /// How often garbage was collected.
    pub(crate) gc_runs: u64,
    /// Bytes of the data packs that were written for it.
    pub(crate) compacted_bytes: u64,
    /// Data packs that were dropped.
    pub(crate) packs_dropped: u64,
    /// Their bytes.
    pub(crate) dropped_bytes: u64,
    /// Bytes that wait to be folded.
    pub(crate) backlog: u64,
    /// How long the oldest of them have waited.
    pub(crate) backlog_age_seconds: f64,
    /// Memory that the overlay takes.
    pub(crate) overlay: u64,
    /// The most memory that it may take.
    pub(crate) overlay_limit: u64,
    /// Bytes of the journal in use.
    pub(crate) journal_used: u64,
    /// The most bytes that the journal may take.
    pub(crate) journal_limit: u64,
    /// Look-ups in the cache of decoded frames that found theirs.
    pub(crate) cache_hits: u64,
    /// Those that had to read and decode one.
    pub(crate) cache_misses: u64,
    /// Chunks that the index knows.
    pub(crate) index_chunks: u64,
    /// Memory that it takes.
    pub(crate) index_mem: u64,
    /// Packs in the store.
    pub(crate) packs: u64,
    /// Reads of the store that were answered from parity.
    #[serde(default)]
    pub(crate) heals_answered: u64,
    /// Runs of damaged bytes that were written back.
    #[serde(default)]
    pub(crate) heals_rewritten: u64,
    /// Packs that were written to another place, since the disk did not take what belongs there.
    #[serde(default)]
    pub(crate) heals_relocated: u64,
    /// Reads of the store that parity could not answer.
    #[serde(default)]
    pub(crate) heals_lost: u64,
    /// Packs that wait to be mended.
    #[serde(default)]
    pub(crate) packs_waiting: u64,
}

/// [`StatsReport`], and what was healed last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatsTold {
    #[serde(flatten)]
    pub(crate) stats: StatsReport,
    /// The last 32, the oldest first.
    #[serde(default)]
    pub(crate) heal_events: Vec<HealEventReport>,
}

/// Events that are told of: an answer is one line, of bounded length.
const EVENTS: usize = 32;

/// [`HealEvent`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HealEventReport {
    /// Seconds since 1970.
    pub(crate) time: f64,
    /// The pack's id, as in its file's name.
    pub(crate) pack: String,
    /// The first damaged byte in its file, as far as known.
    pub(crate) offset: u64,
    /// `answered` (from parity), `rewritten`, `relocated` (the pack was written to another place) or `lost`.
    pub(crate) outcome: String,
    /// What was wrong, or what was done.
    pub(crate) what: String,
}

impl From<HealEvent> for HealEventReport {
    fn from(event: HealEvent) -> HealEventReport {
        let HealEvent { at, pack, offset, what, outcome } = event;
        let outcome = match outcome {
            HealOutcome::Answered => "answered",
            HealOutcome::Rewritten => "rewritten",
            HealOutcome::Relocated => "relocated",
            HealOutcome::Lost => "lost",
        };
        HealEventReport {
            time: at.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()),
            pack: pack.to_string(),
            offset,
            outcome: outcome.to_string(),
            what,
        }
    }
}

impl StatsTold {
    /// Of a volume, now.
    pub(crate) fn of(volume: &Volume) -> StatsTold {
        let events = volume.heal_events();
        let newest = events.len().saturating_sub(EVENTS);
        StatsTold {
            stats: volume.statistics().into(),
            heal_events: events.into_iter().skip(newest).map(Into::into).collect(),
        }
    }
}

impl From<Statistics> for StatsReport {
    fn from(statistics: Statistics) -> StatsReport {
        // Taken apart without `..`: a new field does not compile until it has a name here.
        let Statistics {
            reads,
            read_bytes,
            writes,
            written_bytes,
            copied_bytes,
            fsyncs,
            records,
            io_errors,
            new_bytes,
            deduped_bytes,
            stored_bytes,
            packs_written,
            checkpoints,
            fold_errors,
            engine_rebuilds,
            gc_runs,
            compacted_bytes,
            packs_dropped,
            dropped_bytes,
            backlog,
            backlog_age,
            overlay,
            overlay_limit,
            journal_used,
            journal_limit,
            cache_hits,
            cache_misses,
            index_chunks,
            index_mem,
            packs,
            heals_answered,
            heals_rewritten,
            heals_relocated,
            heals_lost,
            packs_waiting,
        } = statistics;
        StatsReport {
            reads,
            read_bytes,
            writes,
            written_bytes,
            copied_bytes,
            fsyncs,
            records,
            io_errors,
            new_bytes,
            deduped_bytes,
            stored_bytes,
            packs_written,
            checkpoints,
            fold_errors,
            engine_rebuilds,
            gc_runs,
            compacted_bytes,
            packs_dropped,
            dropped_bytes,
            backlog,
            backlog_age_seconds: backlog_age.as_secs_f64(),
            overlay,
            overlay_limit,
            journal_used,
            journal_limit,
            cache_hits,
            cache_misses,
            index_chunks,
            index_mem,
            packs,
            heals_answered,
            heals_rewritten,
            heals_relocated,
            heals_lost,
            packs_waiting,
        }
    }
}

/// [`GcProgress`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GcProgressReport {
    /// What it is doing: `surveying`, `moving`, `committing` or `checkpointing`.
    pub(crate) step: String,
    /// Live bytes of the packs chosen so far.
    pub(crate) to_move: u64,
    /// How many of them are moved.
    pub(crate) moved: u64,
    /// Packs dropped so far.
    pub(crate) packs_dropped: u64,
    /// Their bytes.
    pub(crate) bytes_dropped: u64,
}

impl From<GcProgress> for GcProgressReport {
    fn from(progress: GcProgress) -> GcProgressReport {
        let GcProgress { step, to_move, moved, packs_dropped, bytes_dropped } = progress;
        let step = match step {
            GcStep::Surveying => "surveying",
            GcStep::Moving => "moving",
            GcStep::Committing => "committing",
            GcStep::Checkpointing => "checkpointing",
        };
        GcProgressReport { step: step.to_string(), to_move, moved, packs_dropped, bytes_dropped }
    }
}

/// [`GcReport`] with names that scripts may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GcRunReport {
    /// Whether nothing is left that was worth it.
    pub(crate) finished: bool,
    /// Why it ended before that: `asked`, `time` or `no-room`.
    pub(crate) stopped: Option<String>,
    /// Packs that were dropped, those that died by themselves included.
    pub(crate) packs_dropped: u64,
    /// Those of them whose live chunks were moved first.
    pub(crate) packs_compacted: u64,
    /// Packs that were written for it.
    pub(crate) packs_written: u64,
    /// Packs that could not be read whole, and stay.
    pub(crate) packs_unreadable: u64,
    /// Bytes of data packs before.
    pub(crate) bytes_before: u64,
    /// The same afterwards.
    pub(crate) bytes_after: u64,
    /// Bytes of the packs that were dropped.
    pub(crate) bytes_dropped: u64,
    /// Bytes of those that were written.
    pub(crate) bytes_written: u64,
    /// The difference.
    pub(crate) bytes_freed: u64,
    /// What was live of the packs that were looked at.
    pub(crate) live_bytes: u64,
}

impl From<GcReport> for GcRunReport {
    fn from(report: GcReport) -> GcRunReport {
        let bytes_freed = report.bytes_freed();
        // Taken apart without `..`: a new field does not compile until it has a name here.
        let GcReport {
            packs_dropped,
            bytes_dropped,
            packs_compacted,
            packs_written,
            bytes_written,
            packs_unreadable,
            bytes_before,
            bytes_after,
            live_bytes,
            stopped,
        } = report;
        let stopped = stopped.map(|stop| match stop {
            GcStop::Asked => "asked",
            GcStop::Time => "time",
            GcStop::NoRoom => "no-room",
        });
        GcRunReport {
            finished: stopped.is_none(),
            stopped: stopped.map(str::to_string),
            packs_dropped,
            packs_compacted,
            packs_written,
            packs_unreadable,
            bytes_before,
            bytes_after,
            bytes_dropped,
            bytes_written,
            bytes_freed,
            live_bytes,
        }
    }
}

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
}

/// Places of one file that a [`ScrubFileReport`] names, and the longest path: each is a line of at most 64 KiB.
const SCRUB_RANGES: usize = 100;
const SCRUB_PATH: usize = 2_000;

impl From<ScrubFile> for ScrubFileReport {
    fn from(file: ScrubFile) -> ScrubFileReport {
        let ScrubFile { inode, paths, mut ranges } = file;
        let more_ranges = ranges.len().saturating_sub(SCRUB_RANGES) as u64;
        ranges.truncate(SCRUB_RANGES);
        let paths = paths.into_iter().map(|path| shortened(path, SCRUB_PATH)).collect();
        ScrubFileReport { inode, paths, ranges, more_ranges }
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
            took,
            stopped,
        } = report;
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
        }
    }
}

/// Packs that a [`WhyReport`] names at most.
const WHY_PACKS: usize = 64;

/// [`Explanation`] with names that scripts may rely on: why a file takes what it takes. Bytes, but for `pieces`,
/// `chunks`, `sharers` and `pack_count`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WhyReport {
    /// Its length.
    pub(crate) size: u64,
    /// Bytes of it that are holes.
    pub(crate) holes: u64,
    /// Bytes that lie in the journal, not folded yet.
    pub(crate) journalled: u64,
    /// Bytes that lie in chunks.
    pub(crate) chunked: u64,
    /// Pieces of chunks that they are made of.
    pub(crate) pieces: u64,
    /// Distinct chunks among those.
    pub(crate) chunks: u64,
    /// Plain bytes of the distinct chunks, each counted once and as far as the file uses it.
    pub(crate) unique: u64,
    /// Stored bytes that its pieces answer for.
    pub(crate) stored: u64,
    /// Bytes in chunks that other files have, too.
    pub(crate) shared: u64,
    /// Files that have some of its chunks, itself left out.
    pub(crate) sharers: u64,
    /// Whether everything was looked at: if not, there may be more sharers.
    pub(crate) complete: bool,
    /// How what is folded from now on is compressed: `off` or `zstd:LEVEL`.
    pub(crate) compression: Option<String>,
    /// Its bytes that are no holes, over `stored`; none where nothing is stored.
    pub(crate) ratio: Option<f64>,
    /// How many packs it lies in.
    pub(crate) pack_count: u64,
    /// The 64 with most of it.
    pub(crate) packs: Vec<PackReport>,
}

/// What a pack holds of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackReport {
    /// The pack's id, as in its file's name.
    pub(crate) pack: String,
    /// Bytes of the file in it.
    pub(crate) bytes: u64,
    /// The parity it carries, as in `16+2`, or `none`; `null` where that cannot be read.
    #[serde(default)]
    pub(crate) parity: Option<String>,
    /// When it was last scrubbed, in seconds since 1970; none where that is not known.
    #[serde(default)]
    pub(crate) verified: Option<u64>,
}

impl From<Explanation> for WhyReport {
    fn from(explanation: Explanation) -> WhyReport {
        // Taken apart without `..`: a new field does not compile until it has a name here.
        let Explanation {
            size,
            holes,
            journalled,
            chunked,
            pieces,
            chunks,
            unique,
            stored,
            shared,
            sharers,
            complete,
            packs,
            compression,
        } = explanation;
        WhyReport {
            size,
            holes,
            journalled,
            chunked,
            pieces,
            chunks,
            unique,
            stored,
            shared,
            sharers,
            complete,
            compression: compression.map(compression_name),
            ratio: (stored > 0).then(|| (journalled + chunked) as f64 / stored as f64),
            pack_count: packs.len() as u64,
            packs: packs
                .iter()
                .take(WHY_PACKS)
                .map(|share| PackReport {
                    pack: share.pack.to_string(),
                    bytes: share.bytes,
                    parity: share.parity.map(parity_name),
                    verified: share.verified,
                })
                .collect(),
        }
    }
}

/// As the mount option `compress=` and the attribute `cairn.compress` write it.
pub(crate) fn compression_name(compression: Compression) -> String {
    match compression {
        Compression::None => "off".to_string(),
        Compression::Zstd(level) => format!("zstd:{level}"),
    }
}

/// As the mount option `heal=` writes it.
pub(crate) fn heal_name(mode: HealMode) -> &'static str {
    match mode {
        HealMode::On => "on",
        HealMode::ReadOnly => "ro",
        HealMode::Off => "off",
    }
}

/// The inverse of [`heal_name`].
pub(crate) fn heal_mode(name: &str) -> Result<HealMode, String> {
    [HealMode::On, HealMode::ReadOnly, HealMode::Off]
        .into_iter()
        .find(|mode| heal_name(*mode) == name)
        .ok_or_else(|| "say heal=on, heal=ro or heal=off".to_string())
}

/// As the mount option `dedup=` writes it.
pub(crate) fn dedup_name(dedup: Dedup) -> &'static str {
    match dedup {
        Dedup::On => "on",
        Dedup::Off => "off",
        Dedup::Verify => "verify",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::{PackId, PackShare};

    #[test]
    fn a_file_in_many_packs_names_the_largest_shares_and_counts_all() {
        let share = |n: u32| PackShare {
            pack: PackId::new(1, 2, n),
            bytes: u64::from(1000 - n),
            parity: None,
            verified: None,
        };
        let explanation = Explanation {
            size: 4000,
            journalled: 1000,
            chunked: 2000,
            stored: 1500,
            packs: (0..100).map(share).collect(),
            compression: Some(Compression::Zstd(9)),
            ..Explanation::default()
        };
        let report = WhyReport::from(explanation);
        assert_eq!((report.pack_count, report.packs.len()), (100, WHY_PACKS));
        assert_eq!(report.packs[0].bytes, 1000);
        assert_eq!(report.ratio, Some(2.0));
        assert_eq!(report.compression.as_deref(), Some("zstd:9"));
        assert_eq!(WhyReport::from(Explanation::default()).ratio, None);
    }

    #[test]
    fn an_age_is_told_in_seconds() {
        let statistics =
            Statistics { backlog_age: std::time::Duration::from_millis(2500), ..Statistics::default() };
        assert_eq!(StatsReport::from(statistics).backlog_age_seconds, 2.5);
    }
}
