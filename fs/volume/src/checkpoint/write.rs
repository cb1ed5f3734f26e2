//! Writing a checkpoint's records into metadata packs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use cairn_codec::Compressor;
use cairn_format::{
    Checkpoint, CheckpointKind, CheckpointRef, Compression, Encoder, Lsn, PackId, PackKind, ParityGeometry,
    Uuid, push_meta_record,
};
use cairn_store::{PackWriter, Store, StoreError};

use super::MaintainError;
use crate::core::Core;
use crate::engine::Engine;
use crate::namespace::NamespaceError;
use crate::open::metadata_parity;

/// Plain bytes of a metadata frame.
const FRAME: usize = 256 << 10;
/// Metadata is always compressed: it is small, and shrinks to a third.
const COMPRESSION: Compression = Compression::Zstd(3);

/// The checkpoint to write.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) kind: CheckpointKind,
    pub(super) lsn: Lsn,
    pub(super) floor: Lsn,
    pub(super) previous: CheckpointRef,
}

/// A checkpoint that is written and synced.
pub(super) struct Written {
    pub(super) at: CheckpointRef,
    pub(super) packs: Vec<PackId>,
    pub(super) bytes: u64,
}

/// Writes `changes` (a delta), or the engine's whole state with `changes` over it (a base).
pub(super) fn write_checkpoint(
    core: &Core,
    engine: &dyn Engine,
    plan: &Plan,
    changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>,
) -> Result<Written, MaintainError> {
    let mut names = || core.packs.next();
    let mut writer =
        RecordWriter::new(&core.store, (core.uuid, core.writing.metadata_parity()), &mut names, *plan);
    match plan.kind {
        CheckpointKind::Delta => {
            for (key, value) in changes {
                writer.push(key, value.as_deref())?;
            }
        }
        CheckpointKind::Base => write_base(engine, changes, &mut writer)?,
    }
    Ok(writer.finish()?)
}

fn write_base(
    engine: &dyn Engine,
    changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    writer: &mut RecordWriter<'_>,
) -> Result<(), MaintainError> {
    let mut over = changes.iter().peekable();
    let mut result = Ok(());
    let mut each = |key: &[u8], value: &[u8]| -> Result<(), StoreError> {
        while let Some((changed, new)) = over.next_if(|(changed, _)| changed.as_slice() < key) {
            writer.put(changed, new.as_deref())?;
        }
        match over.next_if(|(changed, _)| changed.as_slice() == key) {
            Some((_, new)) => writer.put(key, new.as_deref()),
            None => writer.put(key, Some(value)),
        }
    };
    // Every key begins with a tag, an ASCII letter.
    let all = engine.scan(&[], &[0xff], &mut |key, value| {
        result = each(key, value);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    all.map_err(NamespaceError::from)?;
    result?;
    for (key, new) in over {
        writer.put(key, new.as_deref())?;
    }
    Ok(())
}

/// Writes a checkpoint from records that somebody else has, in ascending order of their keys: as a mount writes one, for
/// who repairs a volume that nobody has mounted. It is certain when it is finished, and nothing refers to it then.
pub struct BaseWriter<'a>(RecordWriter<'a>);

impl<'a> BaseWriter<'a> {
    /// Begins a base at `lsn` in packs that `names` gives names to, which nobody had before. `floor` is the lowest LSN
    /// that its records name, or the one behind `lsn`; `parity` what data packs of the volume have.
    pub fn new(
        store: &'a Store,
        (volume, parity): (Uuid, ParityGeometry),
        (lsn, floor): (Lsn, Lsn),
        names: &'a mut dyn FnMut() -> PackId,
    ) -> BaseWriter<'a> {
        let plan = Plan { kind: CheckpointKind::Base, lsn, floor, previous: CheckpointRef::NONE };
        BaseWriter(RecordWriter::new(store, (volume, metadata_parity(parity)), names, plan))
    }

    /// The next record.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.push(key, Some(value))
    }

    /// Seals its packs, and syncs them; gives what leads to them.
    pub fn finish(self) -> Result<CheckpointRef, StoreError> {
        self.0.finish().map(|written| written.at)
    }
}

/// Collects records into frames, and frames into packs.
struct RecordWriter<'a> {
    store: &'a Store,
    volume: Uuid,
    parity: ParityGeometry,
    names: &'a mut dyn FnMut() -> PackId,
    plan: Plan,
    compressor: Compressor,
    frame: Encoder,
    open: Option<PackWriter>,
    sealed: Vec<PackId>,
    bytes: u64,
}

impl<'a> RecordWriter<'a> {
    fn new(
        store: &'a Store,
        (volume, parity): (Uuid, ParityGeometry),
        names: &'a mut dyn FnMut() -> PackId,
        plan: Plan,
    ) -> Self {
        RecordWriter {
            store,
            volume,
            parity,
            names,
            plan,
            compressor: Compressor::new(COMPRESSION),
            frame: Encoder::new(),
            open: None,
            sealed: Vec::new(),
            bytes: 0,
        }
    }

    /// A record of a base: a key without a value has none.
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        match value {
            Some(value) => self.push(key, Some(value)),
            None => Ok(()),
        }
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        push_meta_record(&mut self.frame, key, value);
        if self.frame.len() >= FRAME {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let plain = std::mem::take(&mut self.frame).finish();
        let full = self.open.as_ref().is_some_and(|pack| pack.len() >= self.store.pack_size());
        if full && let Some(pack) = self.open.take() {
            self.seal(pack, Vec::new())?;
        }
        let mut pack = match self.open.take() {
            Some(pack) => pack,
            None => self.store.begin_pack((self.names)(), PackKind::Metadata, self.volume, self.parity)?,
        };
        let (codec, stored) = self.compressor.encode(&plain);
        let appended = pack.append(codec, &stored, plain.len() as u32, Vec::new());
        self.open = Some(pack);
        appended.map(|_| ())
    }

    fn seal(&mut self, pack: PackWriter, parts: Vec<PackId>) -> Result<(), StoreError> {
        let Plan { kind, lsn, floor, previous } = self.plan;
        let sealed = pack.seal(Some(Checkpoint { kind, lsn, previous, floor, parts }))?;
        self.bytes += sealed.file_len;
        self.sealed.push(sealed.footer.pack);
        self.store.publish(&sealed, None);
        Ok(())
    }

    fn finish(mut self) -> Result<Written, StoreError> {
        if !self.frame.is_empty() || self.open.is_none() {
            self.flush()?;
        }
        let mut parts = self.sealed.clone();
        // `flush` left a pack open.
        if let Some(pack) = self.open.take() {
            parts.push(pack.pack());
            self.seal(pack, parts)?;
        }
        let pack = self.sealed.last().copied().unwrap_or_default();
        Ok(Written {
            at: CheckpointRef { lsn: self.plan.lsn, pack },
            packs: self.sealed.clone(),
            bytes: self.bytes,
        })
    }
}

impl Drop for RecordWriter<'_> {
    /// What was begun and came to nothing is removed: a full disk needs the room.
    fn drop(&mut self) {
        if let Some(pack) = self.open.take() {
            pack.abandon();
        }
    }
}
