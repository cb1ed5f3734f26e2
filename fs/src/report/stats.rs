//! What a volume did, and what was healed.

use std::time::UNIX_EPOCH;

use cairn_volume::{HealEvent, HealOutcome, HealPlace, Statistics, Volume};
use serde::{Deserialize, Serialize};

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
    /// Bytes that were read of packs for who wanted bytes of chunks.
    #[serde(default)]
    pub(crate) chunk_bytes_read: u64,
    /// Bytes that were decoded of these.
    #[serde(default)]
    pub(crate) chunk_bytes_decoded: u64,
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
    /// Second copies of packs.
    #[serde(default)]
    pub(crate) twins: u64,
    /// Their bytes.
    #[serde(default)]
    pub(crate) twin_bytes: u64,
    /// Packs that are to have one and lack it.
    #[serde(default)]
    pub(crate) twins_waiting: u64,
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
    /// The pack's id, as in its file's name; empty where it is no pack.
    pub(crate) pack: String,
    /// The journal segment's file, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) segment: Option<String>,
    /// The first damaged byte in its file, as far as known.
    pub(crate) offset: u64,
    /// `answered` (from parity), `rewritten`, `relocated` (the pack was written to another place) or `lost`.
    pub(crate) outcome: String,
    /// What was wrong, or what was done.
    pub(crate) what: String,
}

impl From<HealEvent> for HealEventReport {
    fn from(event: HealEvent) -> HealEventReport {
        let HealEvent { at, place, offset, what, outcome } = event;
        let (pack, segment) = match place {
            HealPlace::Pack(pack) => (pack.to_string(), None),
            HealPlace::Segment(path) => (String::new(), Some(path)),
        };
        let outcome = match outcome {
            HealOutcome::Answered => "answered",
            HealOutcome::Rewritten => "rewritten",
            HealOutcome::Relocated => "relocated",
            HealOutcome::Lost => "lost",
        };
        HealEventReport {
            time: at.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()),
            pack,
            segment,
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
            chunk_bytes_read,
            chunk_bytes_decoded,
            index_chunks,
            index_mem,
            packs,
            heals_answered,
            heals_rewritten,
            heals_relocated,
            heals_lost,
            packs_waiting,
            twins,
            twin_bytes,
            twins_waiting,
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
            chunk_bytes_read,
            chunk_bytes_decoded,
            index_chunks,
            index_mem,
            packs,
            heals_answered,
            heals_rewritten,
            heals_relocated,
            heals_lost,
            packs_waiting,
            twins,
            twin_bytes,
            twins_waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_seconds() {
        let statistics =
            Statistics { backlog_age: std::time::Duration::from_millis(2500), ..Statistics::default() };
        assert_eq!(StatsReport::from(statistics).backlog_age_seconds, 2.5);
    }
}
