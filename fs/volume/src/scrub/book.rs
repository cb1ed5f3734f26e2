//! When each pack was last looked through, as the store remembers it.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_format::{PackId, ScrubEntry, ScrubOutcome, ScrubState, Uuid};
use cairn_store::disk::{Disk, read_small, replace_small};
use cairn_store::{Store, StoreError};

use super::look::Looked;

/// The file, in the store's directory.
const PATH: &str = "scrub";
/// The longest that is read: two million packs are 64 TiB and more.
const LONGEST: u64 = 64 << 20;
/// How often it is written at least, while packs are looked through.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(30);
/// A round that was not ended goes on, but for packs that were looked through longer ago than this.
const ROUND_MOST: u64 = 30 * 86_400;

/// What is known of packs.
pub(super) struct Book {
    store: Uuid,
    round: u32,
    unfinished: bool,
    entries: HashMap<PackId, ScrubEntry>,
}

impl Book {
    /// What the last scrub left; nothing where that cannot be read, which only forgets.
    pub(super) fn load(store: &Store) -> Book {
        Book::of(state_of(store.disk().as_ref(), store.uuid()))
    }

    fn of(state: ScrubState) -> Book {
        let entries = state.packs.into_iter().map(|entry| (entry.pack, entry)).collect();
        Book { store: state.store, round: state.round, unfinished: state.unfinished, entries }
    }

    /// Forgets packs that are not there any more.
    pub(super) fn keep(&mut self, listed: &[(PackId, u64)]) {
        let there: HashSet<PackId> = listed.iter().map(|(pack, _)| *pack).collect();
        self.entries.retain(|pack, _| there.contains(pack));
    }

    /// When a pack was last looked through.
    pub(super) fn verified(&self, pack: &PackId) -> Option<u64> {
        self.entries.get(pack).and_then(ScrubEntry::verified_at)
    }

    /// The packs that something of was lost or damaged when they were last looked through, and is still for all that is known.
    pub(super) fn damaged(&self) -> impl Iterator<Item = &PackId> {
        self.entries.values().filter(|entry| is_damaged(entry.outcome)).map(|entry| &entry.pack)
    }

    /// What came of it then.
    pub(super) fn outcome(&self, pack: &PackId) -> Option<ScrubOutcome> {
        self.entries.get(pack).map(|entry| entry.outcome)
    }

    /// Whether something was wrong with a pack when it was last looked through.
    pub(super) fn met_damage(&self, pack: &PackId) -> bool {
        self.entries.get(pack).is_some_and(|entry| entry.outcome != ScrubOutcome::Whole)
    }

    /// Goes on with the round that was not ended, or begins one: the packs that are left to be looked through in it.
    pub(super) fn begin_round(&mut self, listed: &[(PackId, u64)], deep: bool) -> Vec<(PackId, u64)> {
        let now = now();
        let is_done = |pack: &PackId| {
            self.entries.get(pack).is_some_and(|entry| {
                let recent = now.checked_sub(entry.verified).is_some_and(|age| age <= ROUND_MOST);
                self.unfinished && entry.round == self.round && recent && (entry.deep || !deep)
            })
        };
        let left: Vec<_> = listed.iter().filter(|(pack, _)| !is_done(pack)).copied().collect();
        if self.unfinished && !left.is_empty() {
            return left;
        }
        self.round = self.round.wrapping_add(1);
        self.unfinished = true;
        listed.to_vec()
    }

    /// All packs were looked through.
    pub(super) fn end_round(&mut self) {
        self.unfinished = false;
    }

    /// Those that were never looked through come first, the largest of them before the others; then those that were
    /// longest ago.
    pub(super) fn oldest_first(&self, mut packs: Vec<(PackId, u64)>) -> Vec<(PackId, u64)> {
        packs.sort_by_key(|(pack, len)| (self.verified(pack).unwrap_or(0), Reverse(*len), *pack));
        packs
    }

    /// Notes what came of looking through a pack.
    pub(super) fn note(&mut self, looked: &Looked, deep: bool) {
        let entry = ScrubEntry {
            pack: looked.pack,
            verified: now(),
            round: self.round,
            outcome: looked.outcome(),
            deep,
        };
        self.entries.insert(looked.pack, entry);
    }

    /// Notes that something of a pack is lost, which no scrub found; whether that was not known.
    fn lose(&mut self, pack: PackId) -> bool {
        let never = ScrubEntry { pack, verified: 0, round: 0, outcome: ScrubOutcome::Whole, deep: false };
        let entry = self.entries.entry(pack).or_insert(never);
        let is_new = !is_damaged(entry.outcome);
        if is_new {
            entry.outcome = ScrubOutcome::Uncorrected;
        }
        is_new
    }

    /// Writes it down.
    pub(super) fn save(&self, store: &dyn Disk) -> Result<(), StoreError> {
        let mut packs: Vec<_> = self.entries.values().copied().collect();
        packs.sort_by_key(|entry| entry.pack);
        let state = ScrubState { store: self.store, round: self.round, unfinished: self.unfinished, packs };
        replace_small(store, PATH, &state.encode())
            .map_err(|error| StoreError::Io { path: PATH.into(), error })
    }
}

/// Has the next mounts know that something of these packs is lost, as if a scrub had found it; one looks through them all the same.
pub fn note_lost(store: &dyn Disk, uuid: Uuid, packs: &[PackId]) -> Result<(), StoreError> {
    if packs.is_empty() {
        return Ok(());
    }
    let mut book = Book::of(state_of(store, uuid));
    let new = packs.iter().filter(|pack| book.lose(**pack)).count();
    if new > 0 { book.save(store) } else { Ok(()) }
}

/// Has whoever mends look through the packs that something of is lost, as far as scrubs and mounts of before know: until it has, nothing new is
/// found in them.
pub(crate) fn suspect_lost(store: &Store) {
    Book::load(store).damaged().for_each(|pack| store.suspect(pack));
}

fn is_damaged(outcome: ScrubOutcome) -> bool {
    matches!(outcome, ScrubOutcome::Uncorrected | ScrubOutcome::Damaged)
}

/// What the last scrub of a store left; nothing where that cannot be read.
pub fn state_of(store: &dyn Disk, uuid: Uuid) -> ScrubState {
    let read = read_small(store, PATH, LONGEST)
        .map_err(|e| (e.kind() != std::io::ErrorKind::NotFound).then(|| e.to_string()));
    let state = read.and_then(|bytes| ScrubState::decode(&bytes, &uuid).map_err(|e| Some(e.to_string())));
    state.unwrap_or_else(|reason| {
        if let Some(reason) = reason {
            tracing::warn!("when packs were last scrubbed is forgotten, {PATH} cannot be used: {reason}");
        }
        ScrubState { store: uuid, round: 0, unfinished: false, packs: Vec::new() }
    })
}

fn now() -> u64 {
    // A clock that stands before 1970 makes every pack one that was never looked through.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
