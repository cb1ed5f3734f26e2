//! Checkpoints: the namespace written down in metadata packs, whole (a base) or as what changed (a delta).
//!
//! The order that keeps data: the journal is synced up to the checkpoint's LSN before anything is written;
//! its packs are synced before the record that names them; that record is synced before the journal is
//! trimmed, superseded packs are dropped, or dead data packs are.

mod merge;
mod read;
mod write;

use std::collections::HashMap;

use cairn_format::key::Key;
use cairn_format::{CheckpointKind, CheckpointRef, Lsn, Mutation, PackId, PackRefs, Totals};
use cairn_store::{Pins, StoreError};

use crate::core::Core;
use crate::journal::{Journal, JournalError};
use crate::namespace::NamespaceError;
use crate::sync::PoisonError;
use merge::merge;
pub use read::{ChainEntry, ChainReadError, CheckpointChain, RecordCursor, load_chain};
pub(crate) use read::{FillError, fill_engine};
pub use write::BaseWriter;
use write::{Plan, write_checkpoint};

/// A base is written again when the deltas behind it have grown to this share of it, in percent…
const BASE_AGAIN_PERCENT: u64 = 50;
/// …and to at least this many bytes.
const BASE_AGAIN_LEAST: u64 = 1 << 20;

/// …or when there are so many packs that a mount would take long to read them.
const CHAIN_MAX: usize = 64;

/// Why folding or a checkpoint did not go on. What was acknowledged is in the journal still.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal takes no records.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The namespace cannot be read.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The metadata packs cannot be read.
    #[error(transparent)]
    Chain(#[from] ChainReadError),
    /// What room there is is kept for what frees some.
    #[error("no room on the disk for folding")]
    NoRoom,
    /// Bytes that were acknowledged cannot be read back.
    #[error("{0}")]
    Unfoldable(String),
}

impl MaintainError {
    /// Whether the disk below is full.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            MaintainError::Store(error) => error.is_full(),
            MaintainError::Journal(error) => matches!(error, JournalError::Full),
            MaintainError::NoRoom => true,
            _ => false,
        }
    }
}

/// The LSN that a freeze happened at, and the journal's floor then.
#[derive(Clone, Copy, Debug)]
struct Frozen {
    lsn: Lsn,
    floor: Lsn,
}

/// What checkpoints build on.
pub(crate) struct CheckpointState {
    /// The newest checkpoint.
    pub(crate) at: CheckpointRef,
    /// Its packs, and those of all it builds on.
    pub(crate) packs: Vec<PackId>,
    /// Bytes of the base, and of the deltas behind it.
    pub(crate) base_bytes: u64,
    pub(crate) delta_bytes: u64,
    /// How much of each data pack that state refers to.
    pub(crate) refs: HashMap<PackId, PackRefs>,
    /// What it adds up to.
    pub(crate) totals: Totals,
    /// Packs that folds found or made, until a checkpoint counts them: with the LSN of the fold's last record.
    pub(crate) pins: Vec<(Lsn, Pins)>,
    /// A frozen layer that a failed checkpoint left.
    frozen: Option<Frozen>,
}

impl CheckpointState {
    /// The state of a volume whose engine holds `at`.
    pub(crate) fn new(at: CheckpointRef, chain: &CheckpointChain, totals: Totals) -> CheckpointState {
        CheckpointState {
            at,
            packs: chain.packs(),
            base_bytes: chain.base_bytes,
            delta_bytes: chain.delta_bytes,
            refs: HashMap::new(),
            totals,
            pins: Vec::new(),
            frozen: None,
        }
    }
}

/// Writes a checkpoint if anything changed since the last; whether it did.
pub(crate) fn checkpoint(core: &Core, state: &mut CheckpointState) -> Result<bool, MaintainError> {
    let Ok(journal) = core.journal() else { return Ok(false) };
    let (frozen, overlay) = match (state.frozen, core.ns.frozen()) {
        (Some(frozen), Some(overlay)) => (frozen, overlay),
        _ if core.ns.is_unchanged() && !keeps_too_much(core, state.at, journal) => return Ok(false),
        _ => {
            let _gate = core.gate.write().unwrap_or_else(PoisonError::into_inner);
            let lsn = journal.last();
            let floor = core.dirty.floor().unwrap_or(lsn.next()).min(lsn.next());
            let frozen = Frozen { lsn, floor };
            state.frozen = Some(frozen);
            (frozen, core.ns.freeze())
        }
    };
    journal.sync(frozen.lsn)?;
    let mut truth = core.engine.truth();
    let engine = core.ns.engine();
    let merged = merge(&*engine, &overlay, &state.refs, state.totals)?;
    let base_due = state.base_bytes == 0
        || state.packs.len() >= CHAIN_MAX
        || state.delta_bytes >= BASE_AGAIN_LEAST.max(state.base_bytes * BASE_AGAIN_PERCENT / 100);
    let plan = Plan {
        kind: if base_due { CheckpointKind::Base } else { CheckpointKind::Delta },
        lsn: frozen.lsn,
        floor: frozen.floor,
        previous: if base_due { CheckpointRef::NONE } else { state.at },
    };
    let written = write_checkpoint(core, &*engine, &plan, &merged.changes)?;
    engine.apply(&mut merged.changes.into_iter(), written.at).map_err(NamespaceError::from)?;
    truth.advance(written.at);
    drop(truth);
    // The counts go with the engine, so that a checkpoint that fails behind here can be tried again.
    for (pack, refs) in merged.refs {
        if refs.pieces == 0 {
            state.refs.remove(&pack)
        } else {
            state.refs.insert(pack, refs)
        };
    }
    state.totals = merged.totals;
    core.set_totals(state.totals);
    // Whatever is dropped or trimmed from here on is so in reliance on this record.
    let record = Mutation::Checkpoint { at: written.at, floor: frozen.floor };
    let appended = journal.append(&[record], &[])?;
    journal.sync(appended.lsn)?;
    core.ns.thaw();
    core.make_twins_across();
    journal.trim(written.at, frozen.floor);

    let superseded = if base_due { std::mem::take(&mut state.packs) } else { Vec::new() };
    state.frozen = None;
    state.at = written.at;
    state.packs.extend(written.packs);
    if base_due {
        (state.base_bytes, state.delta_bytes) = (written.bytes, 0);
    } else {
        state.delta_bytes += written.bytes;
    }
    core.counters.checkpoints.add(1);
    drop_packs(core, state, &superseded);
    Ok(true)
}

/// Whether the journal could go that only the floor of the last checkpoint, `at`, keeps. What was folded since may have changed
/// nothing: bytes that were cut off before they were folded. Without another checkpoint, though nothing is in it, a journal
/// that is full of such stays full, since what would change something waits for room.
fn keeps_too_much(core: &Core, at: CheckpointRef, journal: &Journal) -> bool {
    let changed = at.lsn.next();
    journal.would_trim(core.dirty.floor().map_or(changed, |dirty| dirty.min(changed)))
}

/// Drops data packs that the newest checkpoint does not refer to and nobody is about to: those that could not be removed
/// before, where no checkpoint comes because nothing changes.
pub(crate) fn drop_dead_packs(core: &Core, state: &mut CheckpointState) {
    drop_packs(core, state, &[]);
}

/// Drops metadata packs that a newer base supersedes, and data packs that the checkpoint just synced does
/// not refer to and nobody is about to.
fn drop_packs(core: &Core, state: &mut CheckpointState, superseded: &[PackId]) {
    let counted = state.at.lsn;
    for (lsn, pins) in std::mem::take(&mut state.pins) {
        if lsn <= counted { core.store.release(pins) } else { state.pins.push((lsn, pins)) }
    }
    let dead: Vec<_> = core
        .store
        .data_summaries()
        .into_iter()
        .filter(|pack| !state.refs.contains_key(&pack.pack) && core.store.condemn(&pack.pack))
        .collect();
    for pack in superseded.iter().chain(dead.iter().map(|pack| &pack.pack)) {
        if let Err(error) = core.store.drop_pack(pack) {
            // It is found again by the next checkpoint, or the next mount, and dropped then.
            tracing::warn!("a pack that nothing refers to could not be removed: {error}");
        }
    }
    for pack in dead.iter().filter(|pack| !core.store.knows(&pack.pack)) {
        core.counters.packs_dropped.add(1);
        core.counters.dropped_bytes.add(pack.file_len);
    }
    core.count_garbage(&state.refs);
    core.want_twins(state);
}

/// Loads what the engine's state says of packs and totals.
pub(crate) fn load_counts(core: &Core, state: &mut CheckpointState) -> Result<(), NamespaceError> {
    let engine = core.ns.engine();
    let (from, to) = cairn_format::key::all_tagged(cairn_format::key::tag::PACK);
    let mut refs = Vec::new();
    engine.scan(&from, &to, &mut |key, value| {
        refs.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    })?;
    for (key, value) in refs {
        if let Some(Key::Pack(pack)) = Key::decode(&key) {
            state.refs.insert(pack, PackRefs::decode(&value)?);
        }
    }
    if let Some(value) = engine.get(&Key::Totals.encode())? {
        state.totals = Totals::decode(&value)?;
    }
    core.set_totals(state.totals);
    core.count_garbage(&state.refs);
    Ok(())
}
