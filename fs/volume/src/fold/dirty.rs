//! What has to be folded: runs of files whose bytes lie in the journal, or whose chunks no longer are what
//! chunking the file anew would give. Oldest first, since the oldest holds the journal's floor.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use cairn_format::{Ino, Lsn, Mutation, PieceKind, View};

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Runs are kept apart beyond this length, so that folding the front of a long stream lets the journal go.
const RANGE_MAX: u64 = 8 << 20;

/// No file reaches further.
const FILE_MAX: u64 = i64::MAX as u64;

/// A file of a view.
pub(crate) type File = (View, Ino);

#[derive(Clone, Copy, Debug)]
struct Range {
    end: u64,
    first: Lsn,
    since: Instant,
}

/// A run that a fold works on; the journal's floor stays below it until it is given back or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) file: File,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// No journalled byte of the run is older.
    pub(crate) first: Lsn,
}

#[derive(Default)]
struct State {
    files: HashMap<File, BTreeMap<u64, Range>>,
    order: BTreeSet<(Lsn, File, u64)>,
    taken: BTreeMap<(Lsn, File, u64), ()>,
    bytes: u64,
}

/// The runs that are to be folded.
#[derive(Default)]
pub(crate) struct DirtySet(Mutex<State>);

impl DirtySet {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a mutation of record `lsn` leaves to be folded; `floor` is where the journal begins that its state
    /// may name.
    pub(crate) fn note_mutation(&self, mutation: &Mutation, lsn: Lsn, floor: Lsn) {
        match mutation {
            Mutation::Data { view, ino, offset, len, .. } => {
                self.note((*view, *ino), *offset, offset + u64::from(*len), lsn);
            }
            // A chunk that a hole cuts short at its end or its start is no longer what chunking the file anew would give.
            Mutation::Hole { view, ino, offset, len } => {
                let file = (*view, *ino);
                if *offset > 0 {
                    self.note(file, offset - 1, *offset, lsn);
                }
                if let Some(end) = offset.checked_add(*len)
                    && end < FILE_MAX
                {
                    self.note(file, end, end + 1, lsn);
                }
            }
            // A copy of bytes that are not folded yet keeps them in the journal as the original does.
            Mutation::Map { view, ino, offset, pieces } => {
                let mut at = *offset;
                for piece in pieces {
                    let end = at + u64::from(piece.len);
                    if let PieceKind::Journal(place) = piece.kind
                        && place.lsn >= floor
                    {
                        self.note((*view, *ino), at, end, place.lsn);
                    }
                    at = end;
                }
            }
            _ => {}
        }
    }

    /// Adds a run. Parts of it that are dirty already have the older of both LSNs.
    pub(crate) fn note(&self, file: File, start: u64, end: u64, lsn: Lsn) {
        self.state().note(file, start, end, lsn, Instant::now());
    }

    /// Takes runs, oldest first, of about `most` bytes in all; only those older than `age`.
    pub(crate) fn take(&self, most: u64, age: Duration) -> Vec<Taken> {
        let mut state = self.state();
        let now = Instant::now();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < most
            && let Some(&(first, file, start)) = state.order.first()
        {
            let Some(range) = state.files.get(&file).and_then(|ranges| ranges.get(&start)).copied() else {
                break;
            };
            if now.saturating_duration_since(range.since) < age {
                break;
            }
            state.remove(file, start);
            state.taken.insert((first, file, start), ());
            bytes += range.end - start;
            taken.push(Taken { file, start, end: range.end, first });
        }
        taken
    }

    /// A run is folded, or there is nothing left of it to fold.
    pub(crate) fn done(&self, taken: &Taken) {
        self.state().taken.remove(&(taken.first, taken.file, taken.start));
    }

    /// A part of a run taken before has to be folded after all.
    pub(crate) fn put_back(&self, file: File, start: u64, end: u64, first: Lsn) {
        self.state().note(file, start, end, first, Instant::now());
    }

    /// The lowest LSN that may still be needed for its bytes.
    pub(crate) fn floor(&self) -> Option<Lsn> {
        let state = self.state();
        let waiting = state.order.first().map(|(lsn, ..)| *lsn);
        let taken = state.taken.first_key_value().map(|((lsn, ..), ())| *lsn);
        waiting.into_iter().chain(taken).min()
    }

    /// Forgets a file that is gone.
    pub(crate) fn forget(&self, file: File) {
        let mut state = self.state();
        let starts: Vec<_> = state.files.get(&file).map_or_else(Vec::new, |r| r.keys().copied().collect());
        starts.into_iter().for_each(|start| state.remove(file, start));
    }

    /// Bytes of runs that wait, and how long the oldest has waited.
    pub(crate) fn backlog(&self) -> (u64, Duration) {
        let state = self.state();
        let oldest =
            state.order.first().and_then(|(_, file, start)| state.files.get(file)?.get(start).copied());
        (state.bytes, oldest.map_or(Duration::ZERO, |range| range.since.elapsed()))
    }
}

impl State {
    fn note(&mut self, file: File, start: u64, end: u64, lsn: Lsn, since: Instant) {
        let mut at = start;
        while at < end {
            let ranges = self.files.entry(file).or_default();
            let before = ranges.range(..=at).next_back().map(|(s, r)| (*s, *r));
            if let Some((from, range)) = before
                && range.end > at
            {
                if range.first > lsn {
                    self.age(file, from, range, lsn);
                }
                at = range.end;
                continue;
            }
            let stop = ranges.range(at..end).next().map_or(end, |(s, _)| *s);
            match before {
                Some((from, range)) if range.end == at && at - from < RANGE_MAX && range.first <= lsn => {
                    ranges.insert(from, Range { end: stop, ..range });
                }
                _ => {
                    ranges.insert(at, Range { end: stop, first: lsn, since });
                    self.order.insert((lsn, file, at));
                }
            }
            self.bytes += stop - at;
            at = stop;
        }
    }

    /// Has a run be as old as `lsn`.
    fn age(&mut self, file: File, start: u64, range: Range, lsn: Lsn) {
        self.order.remove(&(range.first, file, start));
        self.order.insert((lsn, file, start));
        if let Some(range) = self.files.get_mut(&file).and_then(|ranges| ranges.get_mut(&start)) {
            range.first = lsn;
        }
    }

    fn remove(&mut self, file: File, start: u64) {
        let Some(ranges) = self.files.get_mut(&file) else { return };
        if let Some(range) = ranges.remove(&start) {
            self.bytes -= range.end - start;
            self.order.remove(&(range.first, file, start));
        }
        if ranges.is_empty() {
            self.files.remove(&file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: File = (View::LIVE, Ino(7));

    #[test]
    fn the_floor_is_the_oldest_that_waits_or_is_worked_on() {
        let dirty = DirtySet::default();
        assert_eq!(dirty.floor(), None);
        dirty.note(FILE, 0, 100, Lsn(5));
        dirty.note(FILE, 200, 300, Lsn(6));
        dirty.note(FILE, 50, 250, Lsn(9));
        assert_eq!(dirty.backlog().0, 300);
        let first = dirty.take(1, Duration::ZERO);
        assert_eq!(
            first,
            [Taken { file: FILE, start: 0, end: 200, first: Lsn(5) }],
            "a run grows at its end"
        );
        assert_eq!(dirty.floor(), Some(Lsn(5)));
        dirty.note(FILE, 0, 100, Lsn(11));
        dirty.done(&first[0]);
        assert_eq!(dirty.floor(), Some(Lsn(6)));
        let rest = dirty.take(1000, Duration::ZERO);
        assert_eq!(rest.len(), 2);
        dirty.put_back(FILE, 220, 230, Lsn(6));
        rest.iter().for_each(|t| dirty.done(t));
        assert_eq!(dirty.floor(), Some(Lsn(6)));
        dirty.forget(FILE);
        assert_eq!((dirty.floor(), dirty.backlog().0), (None, 0));
    }

    #[test]
    fn a_copy_of_older_bytes_makes_a_dirty_run_older() {
        let dirty = DirtySet::default();
        dirty.note(FILE, 0, 100, Lsn(9));
        dirty.note(FILE, 50, 60, Lsn(3));
        assert_eq!(dirty.floor(), Some(Lsn(3)));
        let taken = dirty.take(1000, Duration::ZERO);
        assert_eq!(taken, [Taken { file: FILE, start: 0, end: 100, first: Lsn(3) }]);
        dirty.done(&taken[0]);
        assert_eq!(dirty.floor(), None);
    }

    #[test]
    fn a_long_stream_is_many_runs() {
        let dirty = DirtySet::default();
        (0..64u64).for_each(|i| dirty.note(FILE, i << 20, (i + 1) << 20, Lsn(i + 1)));
        let taken = dirty.take(1, Duration::ZERO);
        assert!(taken[0].end <= 9 << 20, "{taken:?}");
        dirty.done(&taken[0]);
        assert!(dirty.floor() > Some(Lsn(7)));
    }
}
