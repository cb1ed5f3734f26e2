//! The namespace: two layers of overlay over an engine, read as one.

mod extent_map;
mod overlay;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use cairn_format::key::{self, Key, tag};
use cairn_format::{
    ChunkId, EXTENT_RANGE, FormatError, Ino, Mutation, Piece, PieceKind, View, decode_pieces,
};

pub(crate) use extent_map::{ExtentMap, Run};
pub(crate) use overlay::Overlay;

use crate::engine::{Engine, EngineError};
use crate::journal::Appended;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The namespace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The engine has to be rebuilt.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A value makes no sense.
    #[error("the namespace is damaged: {0}")]
    Format(#[from] FormatError),
}

#[derive(Default)]
struct Layers {
    /// What changed since the last freeze.
    active: Overlay,
    /// What a checkpoint is writing down.
    frozen: Option<Arc<Overlay>>,
}

/// The namespace of a volume.
///
/// A reader holds its inode's lock, so the keys it reads do not change under it; layers may move beneath
/// (active to frozen, frozen to engine), always downwards, so a reader goes through them from the top.
pub(crate) struct Namespace {
    layers: RwLock<Layers>,
    engine: RwLock<Arc<dyn Engine>>,
    /// How many engines there were before.
    generation: AtomicU64,
}

/// Keys with their values, in order, and the key to go on with, if there are more.
pub(crate) type Page = (Vec<(Vec<u8>, Vec<u8>)>, Option<Vec<u8>>);

/// A run of a file: its offset, and where its bytes are.
pub(crate) type FileRun = (u64, Run);

impl Namespace {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Namespace {
        Namespace { layers: RwLock::default(), engine: RwLock::new(engine), generation: AtomicU64::new(0) }
    }

    fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn layers_mut(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine that serves look-ups now.
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells engines apart, without keeping one.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts a rebuilt engine in place.
    pub(crate) fn replace_engine(&self, engine: Arc<dyn Engine>) {
        let old =
            std::mem::replace(&mut *self.engine.write().unwrap_or_else(PoisonError::into_inner), engine);
        self.generation.fetch_add(1, Ordering::AcqRel);
        drop(old);
    }

    /// Applies a record.
    pub(crate) fn apply(&self, mutations: &[Mutation], at: &Appended) {
        let mut layers = self.layers_mut();
        mutations.iter().for_each(|m| layers.active.apply(m, at));
    }

    /// Freezes the active layer; there must be no frozen one. Gives it.
    pub(crate) fn freeze(&self) -> Arc<Overlay> {
        let mut layers = self.layers_mut();
        let frozen = Arc::new(std::mem::take(&mut layers.active));
        layers.frozen = Some(frozen.clone());
        frozen
    }

    /// The frozen layer that a failed checkpoint left, to be tried again.
    pub(crate) fn frozen(&self) -> Option<Arc<Overlay>> {
        self.layers().frozen.clone()
    }

    /// Drops the frozen layer: the engine holds it.
    pub(crate) fn thaw(&self) {
        self.layers_mut().frozen = None;
    }

    /// Bytes of memory that the layers take, active and frozen.
    pub(crate) fn overlay_bytes(&self) -> (usize, usize) {
        let layers = self.layers();
        (layers.active.bytes(), layers.frozen.as_ref().map_or(0, |f| f.bytes()))
    }

    /// Whether nothing changed since the last freeze.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.layers().active.is_empty()
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, NamespaceError> {
        Ok(self.find(key)?.0)
    }

    /// The value of a key, and whether it is the engine's: that of the last checkpoint.
    pub(crate) fn find(&self, key: &Key) -> Result<(Option<Vec<u8>>, bool), NamespaceError> {
        let key = key.encode();
        {
            let layers = self.layers();
            if let Some(found) = layers.active.get(&key) {
                return Ok((found.clone(), false));
            }
            if let Some(found) = layers.frozen.as_ref().and_then(|f| f.get(&key)) {
                return Ok((found.clone(), false));
            }
        }
        Ok((self.engine().get(&key)?, true))
    }

    /// The first keys in `from..to`, at most about `most` of them, and where to go on, if anywhere.
    pub(crate) fn page(&self, from: &[u8], to: &[u8], most: usize) -> Result<Page, NamespaceError> {
        let mut merged: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        let mut bound = to.to_vec();
        {
            // Each layer may end the page early; what lies behind its end is not known to be complete.
            let layers = self.layers();
            let frozen = layers.frozen.as_deref();
            for layer in frozen.into_iter().chain([&layers.active]) {
                for (taken, (key, value)) in layer.range(from, to).enumerate() {
                    if taken == most {
                        bound = bound.min(key.clone());
                        break;
                    }
                    merged.insert(key.clone(), value.clone());
                }
            }
        }
        merged.split_off(&bound);
        let mut below = Vec::new();
        self.engine().scan(from, &bound, &mut |key, value| {
            below.push((key.to_vec(), value.to_vec()));
            if below.len() > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if below.len() > most
            && let Some((key, _)) = below.pop()
        {
            merged.split_off(&key);
            bound = key;
        }
        for (key, value) in below {
            merged.entry(key).or_insert(Some(value));
        }
        let page = merged.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Ok((page, (bound.as_slice() < to).then_some(bound)))
    }

    /// As [`Namespace::page`], of the engine's keys alone: those of the last checkpoint.
    pub(crate) fn engine_page(&self, from: &[u8], to: &[u8], most: usize) -> Result<Page, NamespaceError> {
        let mut page = Vec::with_capacity(most);
        let mut next = None;
        self.engine().scan(from, to, &mut |key, value| {
            if page.len() == most {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            page.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok((page, next))
    }

    /// The runs that make up `offset..offset + len` of a file, all of it: what no layer knows is a hole.
    pub(crate) fn runs(
        &self,
        view: View,
        ino: Ino,
        offset: u64,
        len: u64,
    ) -> Result<Vec<FileRun>, NamespaceError> {
        let mut known = Vec::new();
        if len == 0 {
            return Ok(known);
        }
        {
            let layers = self.layers();
            let active = layers.active.extents(view, ino);
            let frozen = layers.frozen.as_ref().and_then(|f| f.extents(view, ino));
            match (active, frozen) {
                (None, None) => {}
                (Some(only), None) | (None, Some(only)) => known.extend(only.within(offset, len)),
                (Some(above), Some(below)) => {
                    let over: Vec<_> = above.within(offset, len).collect();
                    for (gap, gap_len) in gaps(&over, offset, len) {
                        known.extend(below.within(gap, gap_len));
                    }
                    known.extend(over);
                    known.sort_by_key(|(at, _)| *at);
                }
            }
        }
        let gaps: Vec<_> = gaps(&known, offset, len).collect();
        if !gaps.is_empty() {
            let engine = self.engine();
            for (gap, gap_len) in gaps {
                engine_runs(&*engine, view, ino, gap, gap_len, &mut known)?;
            }
            known.sort_by_key(|(at, _)| *at);
        }
        Ok(join(known))
    }

    /// From where on, at `from` or behind it, any layer says that a file has bytes; a layer above may say that they are
    /// gone. None where there are only holes.
    pub(crate) fn next_bytes(&self, view: View, ino: Ino, from: u64) -> Result<Option<u64>, NamespaceError> {
        let mut next: Option<u64> = None;
        let mut found = |at: u64| next = Some(next.map_or(at, |next| next.min(at)));
        {
            let layers = self.layers();
            for layer in layers.frozen.as_deref().into_iter().chain([&layers.active]) {
                let runs = layer.extents(view, ino).into_iter().flat_map(|e| e.within(from, u64::MAX - from));
                runs.filter(|(_, run)| run.kind != PieceKind::Hole).take(1).for_each(|(at, _)| found(at));
            }
        }
        let (_, end) = key::all_of(tag::EXTENT, ino);
        let begin = Key::Extent(ino, from / EXTENT_RANGE, view).encode();
        self.engine().scan(&begin, &end, &mut |key, _| match Key::decode(key) {
            Some(Key::Extent(_, range, of)) if of == view => {
                found(from.max(range * EXTENT_RANGE));
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        Ok(next)
    }

    /// Calls `each` with the chunks that the layers' extents name, and whose they are.
    pub(crate) fn each_chunk_of_overlay(&self, mut each: impl FnMut(Ino, ChunkId)) {
        let layers = self.layers();
        for layer in layers.frozen.as_deref().into_iter().chain([&layers.active]) {
            for ((_, ino), extents) in layer.all_extents() {
                for (_, run) in extents.iter() {
                    if let PieceKind::Chunk(at) = run.kind {
                        each(*ino, at.chunk);
                    }
                }
            }
        }
    }

    /// Calls `each` with all runs that the layers' extents name: whose they are, and where in the file.
    pub(crate) fn each_run_of_overlay(&self, mut each: impl FnMut(Ino, u64, &Run)) {
        let layers = self.layers();
        for layer in layers.frozen.as_deref().into_iter().chain([&layers.active]) {
            for ((_, ino), extents) in layer.all_extents() {
                extents.iter().for_each(|(offset, run)| each(*ino, offset, run));
            }
        }
    }

    /// What the layers answer for of a file's stored bytes, beyond what its inode in the engine says.
    pub(crate) fn overlay_stored(&self, view: View, ino: Ino) -> u64 {
        let layers = self.layers();
        let of = |layer: &Overlay| layer.extents(view, ino).map_or(0, ExtentMap::stored);
        of(&layers.active) + layers.frozen.as_deref().map_or(0, of)
    }
}

/// What `runs` (in order, within `offset..offset + len`) leave out.
fn gaps(runs: &[FileRun], offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = offset;
    let ends =
        runs.iter().map(|(start, run)| (*start, start + run.len)).chain([(offset + len, offset + len)]);
    ends.filter_map(move |(start, end)| {
        let gap = (at, start.saturating_sub(at));
        at = end;
        (gap.1 > 0).then_some(gap)
    })
}

/// The runs that an engine has for `offset..offset + len` of a file; holes where it has none.
fn engine_runs(
    engine: &dyn Engine,
    view: View,
    ino: Ino,
    offset: u64,
    len: u64,
    out: &mut Vec<FileRun>,
) -> Result<(), NamespaceError> {
    let end = offset + len;
    let from = Key::Extent(ino, offset / EXTENT_RANGE, view).encode();
    let to = Key::Extent(ino, (end - 1) / EXTENT_RANGE + 1, view).encode();
    let mut values = Vec::new();
    engine.scan(&from, &to, &mut |key, value| {
        values.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    let mut at = offset;
    for (key, value) in values {
        let Some(Key::Extent(_, range, of)) = Key::decode(&key) else { continue };
        if of != view {
            continue;
        }
        let mut start = range * EXTENT_RANGE;
        if start > at {
            out.push((at, Run { len: start.min(end) - at, kind: PieceKind::Hole }));
            at = start.min(end);
        }
        for piece in decode_pieces(&value)? {
            let stop = start + u64::from(piece.len);
            let (from, to) = (start.max(offset), stop.min(end));
            if from < to {
                let part = piece.part((from - start) as u32, (to - from) as u32);
                out.push((from, Run { len: part.len.into(), kind: part.kind }));
                at = to;
            }
            start = stop;
        }
    }
    if at < end {
        out.push((at, Run { len: end - at, kind: PieceKind::Hole }));
    }
    Ok(())
}

/// Runs that go on in the same place, made one.
fn join(runs: Vec<FileRun>) -> Vec<FileRun> {
    let mut joined: Vec<FileRun> = Vec::with_capacity(runs.len());
    for (at, run) in runs {
        if let Some((start, last)) = joined.last_mut()
            && *start + last.len == at
        {
            let same = match (last.kind, run.kind) {
                (PieceKind::Hole, PieceKind::Hole) => true,
                (PieceKind::Hole, _) | (_, PieceKind::Hole) => false,
                (kind, next) => {
                    let piece = Piece { len: last.len as u32, kind };
                    piece.continues_in(&Piece { len: run.len as u32, kind: next })
                }
            };
            if same {
                last.len += run.len;
                continue;
            }
        }
        joined.push((at, run));
    }
    joined
}
