//! The overlay: what the journal holds and the metadata packs don't yet, in memory. File bytes stay in the
//! journal. Rebuilt by replay.

use std::collections::{BTreeMap, HashMap, HashSet};

use cairn_format::{EXTENT_RANGE, Ino, JournalRef, Mutation, PieceKind, View};

use super::extent_map::{ExtentMap, Run};
use crate::journal::Appended;

/// What a range of a file that was touched costs when a checkpoint merges it: its new value, whole.
const RANGE_COST: usize = 2048;
const RUN_COST: usize = 96;
const KEY_COST: usize = 96;

/// One layer of changes over those below.
#[derive(Default)]
pub(crate) struct Overlay {
    keys: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    extents: HashMap<(View, Ino), ExtentMap>,
    touched: HashSet<(Ino, u64)>,
    key_bytes: usize,
    runs: usize,
}

impl Overlay {
    /// Applies one mutation of the record at `at`. Doing so twice leaves what doing it once does.
    pub(crate) fn apply(&mut self, mutation: &Mutation, at: &Appended) {
        match mutation {
            Mutation::Put { key, value } => self.set_key(key, Some(value.clone())),
            Mutation::Delete { key } => self.set_key(key, None),
            Mutation::Data { view, ino, offset, len, payload_offset } => {
                let place = JournalRef {
                    lsn: at.lsn,
                    segment: at.segment,
                    record_offset: at.offset,
                    payload_offset: *payload_offset,
                };
                self.set_run(
                    *view,
                    *ino,
                    *offset,
                    Run { len: (*len).into(), kind: PieceKind::Journal(place) },
                );
            }
            Mutation::Hole { view, ino, offset, len } => {
                self.set_run(*view, *ino, *offset, Run { len: *len, kind: PieceKind::Hole });
            }
            Mutation::Map { view, ino, offset, pieces } => {
                let mut start = *offset;
                for piece in pieces {
                    self.set_run(*view, *ino, start, Run { len: piece.len.into(), kind: piece.kind });
                    start += u64::from(piece.len);
                }
            }
            Mutation::Epoch { .. } | Mutation::Checkpoint { .. } => {}
        }
    }

    fn set_key(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        let len = value.as_ref().map_or(0, Vec::len);
        match self.keys.get_mut(key) {
            Some(old) => {
                self.key_bytes = self.key_bytes + len - old.as_ref().map_or(0, Vec::len);
                *old = value;
            }
            None => {
                self.key_bytes += key.len() + len + KEY_COST;
                self.keys.insert(key.to_vec(), value);
            }
        }
    }

    fn set_run(&mut self, view: View, ino: Ino, offset: u64, run: Run) {
        // A hole to the end of all things clears ranges that were never there, too: only its first counts.
        let last = if run.len > 1 << 32 { offset } else { offset + run.len - 1 };
        for range in offset / EXTENT_RANGE..=last / EXTENT_RANGE {
            self.touched.insert((ino, range));
        }
        let map = self.extents.entry((view, ino)).or_default();
        self.runs -= map.len();
        map.set(offset, run);
        self.runs += map.len();
    }

    /// What this layer says of a key: a value, its absence, or nothing.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.keys.get(key)
    }

    /// The keys in `from..to`.
    pub(crate) fn range(&self, from: &[u8], to: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Option<Vec<u8>>)> {
        use std::ops::Bound::{Excluded, Included};
        let bounds = (Included(from), Excluded(to));
        // BTreeMap panics on a range that ends before it begins.
        let sane = from < to;
        sane.then(|| self.keys.range::<[u8], _>(bounds)).into_iter().flatten()
    }

    /// All keys.
    pub(crate) fn keys(&self) -> &BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        &self.keys
    }

    /// What this layer knows of a file's extents.
    pub(crate) fn extents(&self, view: View, ino: Ino) -> Option<&ExtentMap> {
        self.extents.get(&(view, ino))
    }

    /// The extents of all files.
    pub(crate) fn all_extents(&self) -> &HashMap<(View, Ino), ExtentMap> {
        &self.extents
    }

    /// Whether it holds no change.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.extents.is_empty()
    }

    /// About how many bytes of memory it takes, those of the checkpoint that will merge it included.
    pub(crate) fn bytes(&self) -> usize {
        self.key_bytes + self.runs * RUN_COST + self.touched.len() * RANGE_COST
    }
}
