//! What is left after the power went.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::faults::Faults;
use super::pages::Pages;
use super::{Change, Dir, Entry, FileNode, Names, Node, ROOT, State, lock};

/// What becomes of the changes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// All that was done is there, as when only the process was killed. What was in flight is not.
    KeepAll,
    /// Nothing that was not synced is there.
    DropUnsynced,
    /// All bytes are there that were written, what was in flight too, and no change of names that was not synced.
    DropNames,
    /// All changes of names are there, in flight too, and no bytes that were not synced: files without content.
    DropBytes,
    /// Every change is there or not, and a write may be there in part: some of its sectors of 512 or
    /// 4096 bytes. The same seed picks the same of the same changes.
    Random(u64),
}

/// The disk as it is found after a crash.
pub(super) fn after(before: &State, crash: Crash) -> State {
    let mut survey = Survey {
        before,
        crash,
        dice: Dice::new(match crash {
            Crash::Random(seed) => seed,
            _ => 0,
        }),
        dirs: vec![Dir::default()],
        files: HashMap::new(),
        allocated: 0,
    };
    survey.dir(ROOT, ROOT);
    State {
        dirs: survey.dirs,
        capacity: before.capacity,
        allocated: survey.allocated,
        faults: Faults::default(),
    }
}

struct Survey<'a> {
    before: &'a State,
    crash: Crash,
    dice: Dice,
    dirs: Vec<Dir>,
    /// What the files found so far have become: one may have two names, after half a rename.
    files: HashMap<*const Mutex<Node>, FileNode>,
    allocated: u64,
}

impl Survey<'_> {
    /// Fills the new directory `to` with what is left of `from`.
    fn dir(&mut self, from: usize, to: usize) {
        for (name, entry) in self.names(&self.before.dirs[from]) {
            let entry = match entry {
                Entry::File(node) => Entry::File(self.file(&node)),
                Entry::Dir(from) => {
                    let to = self.dirs.len();
                    self.dirs.push(Dir::default());
                    self.dir(from, to);
                    Entry::Dir(to)
                }
            };
            self.dirs[to].durable.insert(name, entry);
        }
        self.dirs[to].current = self.dirs[to].durable.clone();
    }

    fn names(&mut self, dir: &Dir) -> Names {
        match self.crash {
            Crash::KeepAll => dir.current.clone(),
            Crash::DropUnsynced | Crash::DropNames => dir.durable.clone(),
            Crash::DropBytes => {
                let mut names = dir.durable.clone();
                dir.unsynced.iter().for_each(|change| drop(change.apply(&mut names)));
                names
            }
            Crash::Random(_) => {
                let mut names = dir.durable.clone();
                for change in &dir.unsynced {
                    if self.dice.outcome() == Outcome::Kept {
                        change.apply(&mut names);
                    }
                }
                names
            }
        }
    }

    fn file(&mut self, node: &FileNode) -> FileNode {
        if let Some(found) = self.files.get(&Arc::as_ptr(node)) {
            lock(found).names += 1;
            return Arc::clone(found);
        }
        let (content, bad) = {
            let node = lock(node);
            let content = match self.crash {
                Crash::KeepAll => node.current.clone(),
                Crash::DropUnsynced | Crash::DropBytes => node.durable.clone(),
                Crash::DropNames => {
                    let mut content = node.durable.clone();
                    node.unsynced.iter().for_each(|change| change.apply(&mut content));
                    content
                }
                Crash::Random(_) => self.content(&node),
            };
            (content, node.bad.clone())
        };
        self.allocated += content.allocated();
        let found = Node { current: content.clone(), durable: content, bad, names: 1, ..Node::default() };
        let found = Arc::new(Mutex::new(found));
        self.files.insert(Arc::as_ptr(node), Arc::clone(&found));
        found
    }

    fn content(&mut self, node: &Node) -> Pages {
        let mut content = node.durable.clone();
        for change in &node.unsynced {
            match (self.dice.outcome(), change) {
                (Outcome::Dropped, _) | (Outcome::Torn, Change::SetLen(_)) => {}
                (Outcome::Kept, change) => change.apply(&mut content),
                (Outcome::Torn, Change::Write { offset, bytes }) => self.tear(&mut content, *offset, bytes),
            }
        }
        content
    }

    /// Writes a random part of the sectors. The length may have got ahead of the bytes: zeros, then.
    fn tear(&mut self, content: &mut Pages, offset: u64, bytes: &[u8]) {
        let sector = if self.dice.coin() { 512 } else { 4096 };
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let next = ((at / sector + 1) * sector).min(end);
            if self.dice.coin() {
                content.write(&bytes[(at - offset) as usize..(next - offset) as usize], at);
            }
            at = next;
        }
        if self.dice.coin() && end > content.len() {
            content.set_len(end);
        }
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Kept,
    Dropped,
    Torn,
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice {
    state: u64,
    /// How many changes of 16 are kept. It differs from crash to crash: of a long list of changes all
    /// but one are then kept as well as all but one lost.
    kept: u64,
}

impl Dice {
    fn new(seed: u64) -> Self {
        let mut dice = Dice { state: seed, kept: 0 };
        dice.kept = [1, 5, 10, 15][(dice.next() % 4) as usize];
        dice
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    fn outcome(&mut self) -> Outcome {
        match self.next() >> 60 {
            roll if roll < self.kept => Outcome::Kept,
            roll if roll % 2 == 0 => Outcome::Dropped,
            _ => Outcome::Torn,
        }
    }
}
