//! The packs of a store, as cells of a map: in the order in which they were written, one a cell as long as there is room.

use serde::{Deserialize, Serialize};

/// What is known of a pack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum PackState {
    /// Every byte is as it was written.
    Whole,
    /// It was not looked at.
    Unseen,
    /// It was damaged, and is whole again.
    Healed,
    /// It is damaged, and nothing of it is lost.
    Damaged,
    /// Something of it is lost.
    Lost,
}

/// All of them, the worst last.
pub const STATES: [PackState; 5] =
    [PackState::Whole, PackState::Unseen, PackState::Healed, PackState::Damaged, PackState::Lost];

/// The ages that are told apart: looked at in this run, less than so many days ago, longer ago, never.
pub const AGES: usize = 8;
const DAY: u64 = 86_400;
const DAYS: [u64; 5] = [1, 7, 30, 90, 365];

/// Cells of a map at most: beyond that one stands for several packs.
const CELLS_MAX: usize = 4_000;
/// Packs that are listed one by one, because something is to be said of them.
const TOLD_MAX: usize = 1_000;

/// How much of a pack's parity its damage took, or would take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Margin {
    /// Units of data that parity was computed over.
    pub data: u8,
    /// Units of parity.
    pub parity: u8,
    /// Units that are damaged where most of them are; more than `parity`: something does not come back.
    pub used: u16,
}

/// A pack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pack {
    /// Its id.
    pub id: [u8; 16],
    /// Bytes of its file; 0 where that is missing.
    pub len: u64,
    /// What is known of it.
    pub state: PackState,
    /// Whether this run looked at it; else what is known is from the run before.
    pub seen: bool,
    /// When it was last looked through, in seconds since 1970.
    pub verified: Option<u64>,
    /// Sectors that were damaged and are right again.
    pub corrected: u64,
    /// Sectors that are damaged still.
    pub uncorrected: u64,
    /// How near it was, where it has parity and was damaged.
    pub margin: Option<Margin>,
}

impl Pack {
    /// Its id in hexadecimal, which is its file's name.
    pub fn name(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// When it was written, in the order of all packs of a volume: the mount's number, and its own within that.
    fn order(&self) -> (&[u8], &[u8]) {
        (&self.id[8..], &self.id[..8])
    }

    fn age(&self, now: u64) -> usize {
        match self.verified {
            _ if self.seen => 0,
            None => AGES - 1,
            // A clock that was set back is no reason to call it old.
            Some(verified) => {
                let days = now.saturating_sub(verified) / DAY;
                1 + DAYS.iter().filter(|most| days >= **most).count()
            }
        }
    }
}

/// Packs that were written one behind the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The id of the first of them.
    pub first: [u8; 16],
    /// How many there are in each state, as [`STATES`] lists them.
    pub states: [u64; STATES.len()],
    /// Their bytes.
    pub bytes: u64,
    /// When the one was looked through that was not for longest; none where one never was.
    pub verified: Option<u64>,
}

impl Cell {
    /// How many packs it stands for.
    pub fn packs(&self) -> u64 {
        self.states.iter().sum()
    }

    /// The state of the worst of them.
    pub fn worst(&self) -> PackState {
        let there = STATES.iter().zip(self.states).filter(|(_, count)| *count > 0);
        there.map(|(state, _)| *state).max().unwrap_or(PackState::Whole)
    }
}

/// All packs of a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// How many there are in each state, as [`STATES`] lists them.
    pub states: [u64; STATES.len()],
    /// How many of the damaged and lost ones are known from a run before, and were not looked at in this.
    pub known: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many were last looked through how long ago: see [`AGES`].
    pub ages: [u64; AGES],
    /// The packs, in the order in which they were written.
    #[serde(skip)]
    pub cells: Vec<Cell>,
    /// Those that something was wrong with, the worst first.
    #[serde(skip)]
    pub told: Vec<Pack>,
    /// How many of them `told` leaves out.
    pub untold: u64,
}

impl Map {
    /// Draws packs; `now` is the end of the run.
    pub fn of(mut packs: Vec<Pack>, now: u64) -> Map {
        packs.sort_by(|a, b| a.order().cmp(&b.order()));
        let mut map = Map::default();
        let a_cell = packs.len().div_ceil(CELLS_MAX).max(1);
        for some in packs.chunks(a_cell) {
            let mut cell =
                Cell { first: some[0].id, states: [0; STATES.len()], bytes: 0, verified: Some(u64::MAX) };
            for pack in some {
                cell.states[pack.state as usize] += 1;
                cell.bytes = cell.bytes.saturating_add(pack.len);
                cell.verified = cell.verified.and_then(|oldest| Some(oldest.min(pack.verified?)));
                map.ages[pack.age(now)] += 1;
                map.known += u64::from(!pack.seen && pack.state >= PackState::Damaged);
            }
            map.states.iter_mut().zip(cell.states).for_each(|(all, here)| *all += here);
            map.bytes = map.bytes.saturating_add(cell.bytes);
            map.cells.push(cell);
        }
        packs.retain(|pack| pack.state > PackState::Unseen);
        packs.sort_by_key(|pack| std::cmp::Reverse((pack.state, pack.uncorrected, pack.corrected)));
        map.untold = packs.len().saturating_sub(TOLD_MAX) as u64;
        packs.truncate(TOLD_MAX);
        map.told = packs;
        map
    }

    /// How many packs there are.
    pub fn packs(&self) -> u64 {
        self.states.iter().sum()
    }

    /// How many there are in a state.
    pub fn count(&self, state: PackState) -> u64 {
        self.states[state as usize]
    }

    /// Packs that most cells stand for.
    pub(crate) fn packs_a_cell(&self) -> u64 {
        self.cells.first().map_or(1, Cell::packs)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn pack(number: u32, state: PackState) -> Pack {
        let mut id = [0x5a; 16];
        id[8..12].fill(0);
        id[12..].copy_from_slice(&number.to_be_bytes());
        Pack {
            id,
            len: 64 << 20,
            state,
            seen: state != PackState::Unseen,
            verified: None,
            corrected: 0,
            uncorrected: 0,
            margin: None,
        }
    }

    #[test]
    fn packs_are_in_the_order_in_which_they_were_written() {
        let map = Map::of([7, 3, 5].map(|number| pack(number, PackState::Whole)).to_vec(), 0);
        let numbers: Vec<u8> = map.cells.iter().map(|cell| cell.first[15]).collect();
        assert_eq!(numbers, [3, 5, 7]);
    }

    #[test]
    fn ages_have_bounds() {
        let aged = |days: u64| Pack { verified: Some((400 - days) * DAY), ..pack(1, PackState::Unseen) };
        let age = |pack: &Pack| pack.age(400 * DAY);
        assert_eq!(
            [0, 1, 6, 7, 29, 30, 89, 90, 364, 365].map(|days| age(&aged(days))),
            [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
        );
        assert_eq!(age(&Pack { verified: Some(500 * DAY), ..aged(0) }), 1);
        assert_eq!((age(&pack(1, PackState::Unseen)), age(&pack(1, PackState::Lost))), (7, 0));
    }

    proptest! {
        #[test]
        fn every_pack_is_counted_once_however_many_share_a_cell(
            states in prop::collection::vec(0..STATES.len(), 0..9_000)
        ) {
            let packs: Vec<_> = (0..).zip(&states).map(|(number, state)| pack(number, STATES[*state])).collect();
            let map = Map::of(packs, 0);
            prop_assert!(map.cells.len() <= CELLS_MAX);
            prop_assert_eq!(map.packs(), states.len() as u64);
            prop_assert_eq!(map.cells.iter().map(Cell::packs).sum::<u64>(), map.packs());
            prop_assert_eq!(map.ages.iter().sum::<u64>(), map.packs());
            for state in STATES {
                let wanted = states.iter().filter(|s| STATES[**s] == state).count() as u64;
                prop_assert_eq!(map.count(state), wanted);
                // The worst is seen however many others there are in its cell.
                if state == PackState::Lost {
                    prop_assert_eq!(map.cells.iter().any(|cell| cell.worst() == state), wanted > 0);
                }
            }
            let wrong: u64 = STATES.iter().filter(|s| **s > PackState::Unseen).map(|s| map.count(*s)).sum();
            prop_assert_eq!(map.told.len() as u64 + map.untold, wrong);
        }
    }
}
