//! The namespace as a checkpoint holds it, and as the journal leaves it: keys in order, one at a time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, btree_map};
use std::iter::Peekable;

use cairn_format::key::{Key, tag};
use cairn_format::{FormatError, PackId, decode_pieces, encode_pieces};
use cairn_store::Store;
use cairn_volume::{ChainReadError, CheckpointChain, RecordCursor};

use super::overlay::{Overlay, Pending};
use super::salvage::Skip;

/// A key and its value.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// One checkpoint of the chain on its way through the merge.
struct Layer<'a> {
    cursor: RecordCursor<'a>,
    /// Its last pack, for errors.
    pack: PackId,
    /// The record that is next, less its key.
    value: Option<Vec<u8>>,
}

/// A checkpoint's state: base and deltas merged, a frame of each in memory.
pub(crate) struct StateCursor<'a> {
    /// The oldest first.
    layers: Vec<Layer<'a>>,
    /// The layers' next keys: the smallest on top, the newest of equal ones.
    heads: BinaryHeap<Reverse<(Vec<u8>, Reverse<usize>)>>,
}

impl<'a> StateCursor<'a> {
    pub(crate) fn new(store: &'a Store, chain: &CheckpointChain) -> Result<Self, ChainReadError> {
        StateCursor::without(store, chain, &Skip::new())
    }

    /// The same without some frames.
    pub(crate) fn without(
        store: &'a Store,
        chain: &CheckpointChain,
        skip: &Skip,
    ) -> Result<Self, ChainReadError> {
        let layers = chain.entries.iter().map(|entry| Layer {
            cursor: RecordCursor::without(store, entry.parts.clone(), skip.clone()),
            pack: entry.at.pack,
            value: None,
        });
        let mut state = StateCursor { layers: layers.collect(), heads: BinaryHeap::new() };
        for number in 0..state.layers.len() {
            state.advance(number, &[])?;
        }
        Ok(state)
    }

    /// Moves a layer behind `last`.
    fn advance(&mut self, number: usize, last: &[u8]) -> Result<(), ChainReadError> {
        let layer = &mut self.layers[number];
        let Some((key, value)) = layer.cursor.next()? else { return Ok(()) };
        if key.as_slice() <= last {
            let reason = format!("its record {} is out of order", hex(&key));
            return Err(ChainReadError::Wrong { pack: layer.pack, reason });
        }
        layer.value = value;
        self.heads.push(Reverse((key, Reverse(number))));
        Ok(())
    }

    /// The next key, with its newest value.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ChainReadError> {
        while let Some(Reverse((key, Reverse(newest)))) = self.heads.pop() {
            let value = self.layers[newest].value.take();
            self.advance(newest, &key)?;
            while let Some(Reverse((other, Reverse(older)))) = self.heads.peek()
                && *other == key
            {
                let older = *older;
                self.heads.pop();
                self.advance(older, &key)?;
            }
            if let Some(value) = value {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }
}

/// A key with its value in the checkpoint's state and at the journal's end.
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    /// In the checkpoint.
    pub(crate) old: Option<Vec<u8>>,
    /// What the journal makes of it, where it says anything.
    changed: Option<Option<Vec<u8>>>,
}

impl Entry {
    /// At the journal's end.
    pub(crate) fn now(&self) -> Option<&[u8]> {
        self.changed.as_ref().unwrap_or(&self.old).as_deref()
    }
}

/// Goes through both states together.
pub(crate) struct Walk<'a> {
    state: StateCursor<'a>,
    ahead: Option<Record>,
    overlay: &'a Overlay,
    pending: Peekable<btree_map::Iter<'a, Vec<u8>, Pending>>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        store: &'a Store,
        chain: &CheckpointChain,
        overlay: &'a Overlay,
        skip: &Skip,
    ) -> Result<Self, ChainReadError> {
        let mut state = StateCursor::without(store, chain, skip)?;
        let ahead = state.next()?;
        Ok(Walk { state, ahead, overlay, pending: overlay.keys.iter().peekable() })
    }

    /// The next key.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, ChainReadError> {
        let from_overlay = match (&self.ahead, self.pending.peek()) {
            (None, None) => return Ok(None),
            (Some((key, _)), Some((changed, _))) => *changed <= key,
            (ahead, _) => ahead.is_none(),
        };
        if !from_overlay {
            let (key, old) = self.pull()?.unzip();
            let key = key.unwrap_or_default();
            let changed = self.overlaid(&key, old.as_deref());
            return Ok(Some(Entry { key, old, changed }));
        }
        // Peeked above.
        let Some((key, pending)) = self.pending.next() else { return Ok(None) };
        let same = self.ahead.as_ref().is_some_and(|(ahead, _)| ahead == key);
        let old = if same { self.pull()?.map(|(_, value)| value) } else { None };
        let changed = match pending {
            Pending::Put(value) => Some(Some(value.clone())),
            Pending::Deleted => Some(None),
            Pending::Extents => self.overlaid(key, old.as_deref()),
        };
        Ok(Some(Entry { key: key.clone(), old, changed }))
    }

    fn pull(&mut self) -> Result<Option<Record>, ChainReadError> {
        let next = self.state.next()?;
        Ok(std::mem::replace(&mut self.ahead, next))
    }

    /// An extent with the journal's runs over it; nothing where there are none.
    fn overlaid(&self, key: &[u8], old: Option<&[u8]>) -> Option<Option<Vec<u8>>> {
        if key.first() != Some(&tag::EXTENT) {
            return None;
        }
        let Some(Key::Extent(ino, range, view)) = Key::decode(key) else { return None };
        let runs = self.overlay.runs.get(&(ino, view))?;
        // A value that makes no sense stays, to be found by who looks at it.
        let old: Result<_, FormatError> = old.map_or(Ok(Vec::new()), decode_pieces);
        let pieces = runs.over(&old.ok()?, range);
        Some((!pieces.is_empty()).then(|| encode_pieces(&pieces)))
    }
}

/// Bytes as people can read them in a report.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
