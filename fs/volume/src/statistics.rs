//! What a volume did and how it stands, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::core::{Core, Log, OVERLAY_LIMIT};

/// Counts since the volume was opened. Nothing waits on them, so that they are exact only while nothing goes on.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) reads: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) writes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) copied_bytes: Counter,
    pub(crate) fsyncs: Counter,
    pub(crate) records: Counter,
    pub(crate) io_errors: Counter,
    pub(crate) new_bytes: Counter,
    pub(crate) deduped_bytes: Counter,
    pub(crate) stored_bytes: Counter,
    pub(crate) packs_written: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) fold_errors: Counter,
    pub(crate) engine_rebuilds: Counter,
    pub(crate) gc_runs: Counter,
    pub(crate) compacted_bytes: Counter,
    pub(crate) packs_dropped: Counter,
    pub(crate) dropped_bytes: Counter,
}

/// One count.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a volume did since it was opened, and how it stands. Bytes are plain bytes unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Reads.
    pub reads: u64,
    /// Bytes that they gave.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes that they brought.
    pub written_bytes: u64,
    /// Bytes that came by copy_file_range, without being written.
    pub copied_bytes: u64,
    /// fsyncs of files and directories.
    pub fsyncs: u64,
    /// Records that operations appended to the journal.
    pub records: u64,
    /// Operations that ended in an I/O error.
    pub io_errors: u64,
    /// Folded bytes that were not in the store yet.
    pub new_bytes: u64,
    /// Folded bytes that were in the store already.
    pub deduped_bytes: u64,
    /// Bytes of the data packs that folds wrote.
    pub stored_bytes: u64,
    /// Data packs that folds wrote.
    pub packs_written: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Folds and checkpoints that failed and were, or will be, tried again.
    pub fold_errors: u64,
    /// How often the engine failed and was rebuilt.
    pub engine_rebuilds: u64,
    /// How often garbage was collected.
    pub gc_runs: u64,
    /// Bytes of the data packs that were written for it.
    pub compacted_bytes: u64,
    /// Data packs that were dropped.
    pub packs_dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,

    /// Bytes that wait to be folded.
    pub backlog: u64,
    /// How long the oldest of them have waited.
    pub backlog_age: Duration,
    /// Memory that the overlay takes, in bytes.
    pub overlay: u64,
    /// The most memory that it may take.
    pub overlay_limit: u64,
    /// Bytes of the journal in use.
    pub journal_used: u64,
    /// The most bytes that the journal may take.
    pub journal_limit: u64,
    /// Look-ups in the cache of decoded frames that found theirs.
    pub cache_hits: u64,
    /// Those that had to read and decode one.
    pub cache_misses: u64,
    /// Bytes that were read of packs for who wanted bytes of chunks.
    pub chunk_bytes_read: u64,
    /// Bytes that were decoded of these.
    pub chunk_bytes_decoded: u64,
    /// Chunks that the index knows.
    pub index_chunks: u64,
    /// Memory that it takes, in bytes.
    pub index_mem: u64,
    /// Packs in the store.
    pub packs: u64,

    /// Reads of the store that were answered from parity.
    pub heals_answered: u64,
    /// Runs of damaged bytes that were written back.
    pub heals_rewritten: u64,
    /// Packs that were written to another place, since the disk did not take what belongs there.
    pub heals_relocated: u64,
    /// Reads of the store that parity could not answer.
    pub heals_lost: u64,
    /// Packs that wait to be mended.
    pub packs_waiting: u64,

    /// Second copies of packs.
    pub twins: u64,
    /// Their bytes.
    pub twin_bytes: u64,
    /// Packs that are to have one and lack it.
    pub twins_waiting: u64,
}

impl Core {
    pub(crate) fn statistics(&self) -> Statistics {
        let c = &self.counters;
        let (backlog, backlog_age) = self.dirty.backlog();
        let (active, frozen) = self.ns.overlay_bytes();
        let store = self.store.usage();
        let (cache_hits, cache_misses) = self.store.cache_use();
        let (chunk_bytes_read, chunk_bytes_decoded) = self.store.read_use();
        let healed = self.store.health().counts();
        let (here, across) = self.store.twin_usage();
        let journal_used = match &self.log {
            Log::Writing(journal) => journal.usage().0,
            Log::Reading(..) => 0,
        };
        Statistics {
            reads: c.reads.get(),
            read_bytes: c.read_bytes.get(),
            writes: c.writes.get(),
            written_bytes: c.written_bytes.get(),
            copied_bytes: c.copied_bytes.get(),
            fsyncs: c.fsyncs.get(),
            records: c.records.get(),
            io_errors: c.io_errors.get(),
            new_bytes: c.new_bytes.get(),
            deduped_bytes: c.deduped_bytes.get(),
            stored_bytes: c.stored_bytes.get(),
            packs_written: c.packs_written.get(),
            checkpoints: c.checkpoints.get(),
            fold_errors: c.fold_errors.get(),
            engine_rebuilds: c.engine_rebuilds.get(),
            gc_runs: c.gc_runs.get(),
            compacted_bytes: c.compacted_bytes.get(),
            packs_dropped: c.packs_dropped.get(),
            dropped_bytes: c.dropped_bytes.get(),
            backlog,
            backlog_age,
            overlay: (active + frozen) as u64,
            overlay_limit: OVERLAY_LIMIT as u64,
            journal_used,
            journal_limit: u64::from(self.geometry.segment) * u64::from(self.geometry.segments),
            cache_hits,
            cache_misses,
            chunk_bytes_read,
            chunk_bytes_decoded,
            index_chunks: store.fingerprints,
            index_mem: store.index_mem,
            packs: store.packs,
            heals_answered: healed.answered,
            heals_rewritten: healed.rewritten,
            heals_relocated: healed.relocated,
            heals_lost: healed.lost,
            packs_waiting: healed.waiting,
            twins: here.twins + across.twins,
            twin_bytes: here.bytes + across.bytes,
            twins_waiting: here.waiting + across.waiting,
        }
    }
}
