//! Reading checkpoints back: the chain from the newest to its base, and their records in order.

use std::collections::HashSet;

use cairn_format::{CheckpointKind, CheckpointRef, FormatError, FrameEntry, Lsn, MetaRecords, PackId, Uuid};
use cairn_store::{PackReader, ReadError, Store};

use crate::engine::{Change, Engine, EngineError};

/// A checkpoint, or one that it builds on, cannot be read: the volume would be older than it was.
#[derive(Debug, thiserror::Error)]
pub enum ChainReadError {
    /// A pack of it cannot be read.
    #[error("the namespace's checkpoint cannot be read: {0}")]
    Read(#[from] ReadError),
    /// A pack does not hold what it should.
    #[error("pack {pack} is not what the namespace's checkpoint says: {reason}")]
    Wrong {
        /// The pack.
        pack: PackId,
        /// What does not fit.
        reason: String,
    },
}

/// One checkpoint of a chain.
#[derive(Clone, Debug)]
pub struct ChainEntry {
    /// The checkpoint.
    pub at: CheckpointRef,
    /// Its packs, in the order of their records.
    pub parts: Vec<PackId>,
    /// The lowest LSN that its state names, or the one after its own.
    pub floor: Lsn,
}

/// A base and the deltas behind it, oldest first.
#[derive(Clone, Debug, Default)]
pub struct CheckpointChain {
    /// The checkpoints.
    pub entries: Vec<ChainEntry>,
    /// Bytes of the base's packs.
    pub base_bytes: u64,
    /// Bytes of the deltas' packs.
    pub delta_bytes: u64,
}

impl CheckpointChain {
    /// All packs of the chain.
    pub fn packs(&self) -> Vec<PackId> {
        self.entries.iter().flat_map(|e| e.parts.iter().copied()).collect()
    }
}

/// Finds the checkpoints that `tip` is made of. No chain for a volume without any.
pub fn load_chain(
    store: &Store,
    volume: Uuid,
    tip: CheckpointRef,
) -> Result<CheckpointChain, ChainReadError> {
    let mut chain = CheckpointChain::default();
    let mut seen = HashSet::new();
    let mut next = tip;
    while next != CheckpointRef::NONE {
        let wrong = |reason: String| ChainReadError::Wrong { pack: next.pack, reason };
        let footer = store.reader(next.pack)?.footer()?;
        if footer.volume != volume {
            return Err(wrong(format!("it belongs to volume {}", footer.volume)));
        }
        let Some(checkpoint) = footer.checkpoint else { return Err(wrong("it is part of none".into())) };
        if checkpoint.lsn != next.lsn || checkpoint.parts.last() != Some(&next.pack) {
            return Err(wrong(format!("it ends none at {}", next.lsn)));
        }
        let mut bytes = 0;
        for part in &checkpoint.parts {
            if !seen.insert(*part) {
                return Err(wrong(format!("pack {part} is part of the chain twice")));
            }
            bytes += store.reader(*part)?.len()?;
        }
        chain.entries.push(ChainEntry { at: next, parts: checkpoint.parts, floor: checkpoint.floor });
        match checkpoint.kind {
            CheckpointKind::Base => {
                chain.base_bytes = bytes;
                next = CheckpointRef::NONE;
            }
            CheckpointKind::Delta
                if checkpoint.previous.lsn < next.lsn && checkpoint.previous != CheckpointRef::NONE =>
            {
                chain.delta_bytes += bytes;
                next = checkpoint.previous;
            }
            CheckpointKind::Delta => return Err(wrong("its predecessor is not older".into())),
        }
    }
    chain.entries.reverse();
    Ok(chain)
}

/// Goes through a checkpoint's records in ascending order of their keys, one frame in memory at a time.
pub struct RecordCursor<'a> {
    store: &'a Store,
    parts: std::vec::IntoIter<PackId>,
    /// Frames that are left out.
    skip: HashSet<(PackId, u32)>,
    pack: Option<(PackId, PackReader, std::vec::IntoIter<FrameEntry>)>,
    records: std::vec::IntoIter<Change>,
}

impl<'a> RecordCursor<'a> {
    /// Over a checkpoint's packs.
    pub fn new(store: &'a Store, parts: Vec<PackId>) -> Self {
        RecordCursor::without(store, parts, HashSet::new())
    }

    /// The same without some frames, by pack and number: what else there is of a checkpoint that cannot be read whole.
    pub fn without(store: &'a Store, parts: Vec<PackId>, skip: HashSet<(PackId, u32)>) -> Self {
        RecordCursor { store, parts: parts.into_iter(), skip, pack: None, records: Vec::new().into_iter() }
    }

    fn load(&mut self) -> Result<bool, ChainReadError> {
        loop {
            if let Some((pack, reader, frames)) = &mut self.pack
                && let Some(entry) = frames.next()
            {
                let frame = reader.frame(&entry)?;
                let wrong = |e: FormatError| ChainReadError::Wrong { pack: *pack, reason: e.to_string() };
                let owned = |(key, value): (&[u8], Option<&[u8]>)| (key.to_vec(), value.map(<[u8]>::to_vec));
                let records: Result<Vec<_>, _> =
                    MetaRecords::new(&frame.plain).map(|r| r.map(owned)).collect();
                self.records = records.map_err(wrong)?.into_iter();
                return Ok(true);
            }
            let Some(pack) = self.parts.next() else { return Ok(false) };
            let reader = self.store.reader(pack)?;
            let frames = reader.footer()?.frames.into_iter().enumerate();
            let kept = frames.filter(|(number, _)| !self.skip.contains(&(pack, *number as u32)));
            let kept: Vec<_> = kept.map(|(_, entry)| entry).collect();
            self.pack = Some((pack, reader, kept.into_iter()));
        }
    }

    /// The next record: a key with its value, or with its removal. Not `Iterator`: an error ends it.
    #[expect(clippy::should_implement_trait, reason = "it returns errors")]
    pub fn next(&mut self) -> Result<Option<Change>, ChainReadError> {
        loop {
            if let Some(record) = self.records.next() {
                return Ok(Some(record));
            }
            if !self.load()? {
                return Ok(None);
            }
        }
    }
}

/// Where an engine stands that is being filled: at no checkpoint that can be.
const NOWHERE: CheckpointRef = CheckpointRef { lsn: Lsn(u64::MAX), pack: PackId([0xff; 16]) };

/// Brings an engine to the chain's newest checkpoint: from where it stands, if that is in the chain. The engine must be
/// empty otherwise.
pub(crate) fn fill_engine(
    store: &Store,
    chain: &CheckpointChain,
    engine: &dyn Engine,
) -> Result<(), FillError> {
    let stands = engine.position()?;
    let done = chain.entries.iter().position(|e| Some(e.at) == stands).map_or(0, |i| i + 1);
    for entry in &chain.entries[done..] {
        let mut cursor = RecordCursor::new(store, entry.parts.clone());
        let mut failed = None;
        let mut records = std::iter::from_fn(|| match cursor.next() {
            Ok(record) => record,
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        // Until all of it is in, the engine stands nowhere: half a checkpoint is never taken for a whole one.
        engine.apply(&mut records, NOWHERE)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        engine.apply(&mut std::iter::empty(), entry.at)?;
    }
    Ok(())
}

/// Why an engine could not be filled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FillError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Chain(#[from] ChainReadError),
}
