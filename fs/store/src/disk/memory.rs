//! The disk that fails on demand: held in memory, and knowing what of it a power cut would spare.
//!
//! Every file and directory is kept twice, as programs see it and as it is certain to be found after
//! a power cut, with the changes that lie between the two. A sync moves the changes over; a crash
//! picks among them. A file's bytes and its names are certain independently of each other: synced
//! bytes under a name whose directory was not synced are gone.
//!
//! Lock order: the disk's state, then one file.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::{checked, split};
use super::{Access, Disk, DiskFile, Listed, Space};

mod bad;
mod crash;
mod faults;
mod pages;

use bad::BadRanges;
pub use crash::Crash;
pub use faults::Failure;
use faults::{Fate, Faults};
use pages::Pages;

/// The room of a disk that was not told its capacity.
const DEFAULT_CAPACITY: u64 = 1 << 40;
const ROOT: usize = 0;

/// A disk in memory that can lose power, err, run full and be damaged. Clones are handles to the
/// same disk.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    /// The root first. Directories cannot be removed, so that a number is good for ever.
    dirs: Vec<Dir>,
    capacity: u64,
    /// What the files that have a name or are open take.
    allocated: u64,
    faults: Faults,
}

#[derive(Default)]
struct Dir {
    current: Names,
    durable: Names,
    unsynced: Vec<NameChange>,
}

type Names = BTreeMap<String, Entry>;
type FileNode = Arc<Mutex<Node>>;

#[derive(Clone)]
enum Entry {
    File(FileNode),
    Dir(usize),
}

enum NameChange {
    Create {
        name: String,
        entry: Entry,
    },
    /// The half of a rename between directories that gives the new name.
    Arrive {
        name: String,
        entry: Entry,
    },
    Rename {
        from: String,
        to: String,
        entry: Entry,
    },
    Remove {
        name: String,
        entry: Entry,
    },
}

#[derive(Default)]
struct Node {
    current: Pages,
    durable: Pages,
    unsynced: Vec<Change>,
    bad: BadRanges,
    /// How many names it has now, and how many handles.
    names: u32,
    opens: u32,
}

enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

impl Change {
    fn apply(&self, content: &mut Pages) {
        match self {
            Change::Write { offset, bytes } => content.write(bytes, *offset),
            Change::SetLen(len) => content.set_len(*len),
        }
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    /// An empty disk of 1 TiB.
    pub fn new() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }

    /// An empty disk of `bytes` bytes. Files take whole pages of 4096; holes and names are free.
    pub fn with_capacity(bytes: u64) -> Self {
        Self::from_state(State {
            dirs: vec![Dir::default()],
            capacity: bytes,
            allocated: 0,
            faults: Faults::default(),
        })
    }

    /// Changes the capacity; to less than is in use, too.
    pub fn set_capacity(&self, bytes: u64) {
        lock(&self.state).capacity = bytes;
    }

    /// What a machine finds when it starts after the power went, now or at the cut: another disk, whose
    /// counts start at 0, with no cut and no fault ahead.
    pub fn crash(&self, crash: Crash) -> MemoryDisk {
        Self::from_state(crash::after(&lock(&self.state), crash))
    }

    /// A copy of what is visible now, all of it certain. Pages are shared until written to.
    pub fn fork(&self) -> MemoryDisk {
        self.crash(Crash::KeepAll)
    }

    /// Damages one byte on the medium: it is XORed with `xor`. No operation, and possible on a disk
    /// without power, as are the following three.
    pub fn corrupt(&self, path: &str, offset: u64, xor: u8) -> io::Result<()> {
        self.damage(path, |pages| {
            let mut byte = [0];
            if pages.read(&mut byte, offset) == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            pages.write(&[byte[0] ^ xor], offset);
            Ok(())
        })
    }

    /// Cuts or extends a file on the medium.
    pub fn truncate_file(&self, path: &str, len: u64) -> io::Result<()> {
        self.damage(path, |pages| {
            pages.set_len(len);
            Ok(())
        })
    }

    /// Has reads of these bytes of a file err, until they are written again, or, where the range `stays` bad, for ever.
    pub fn lose(&self, path: &str, range: Range<u64>, stays: bool) -> io::Result<()> {
        let node = lock(&self.state).file(checked(path)?)?;
        lock(&node).bad.push(range, stays);
        Ok(())
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        let state = lock(&self.state);
        let mut files = Vec::new();
        let mut ahead = vec![(String::new(), ROOT)];
        while let Some((prefix, dir)) = ahead.pop() {
            for (name, entry) in &state.dirs[dir].current {
                match entry {
                    Entry::File(_) => files.push(format!("{prefix}{name}")),
                    Entry::Dir(dir) => ahead.push((format!("{prefix}{name}/"), *dir)),
                }
            }
        }
        files.sort_unstable();
        files
    }

    fn from_state(state: State) -> Self {
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Changes a file as seen and as certain alike. What of it was unsynced becomes certain first.
    fn damage(&self, path: &str, change: impl FnOnce(&mut Pages) -> io::Result<()>) -> io::Result<()> {
        let mut state = lock(&self.state);
        let node = state.file(checked(path)?)?;
        let mut node = lock(&node);
        let before = node.current.allocated();
        change(&mut node.current)?;
        node.durable = node.current.clone();
        node.unsynced.clear();
        state.allocated = state.allocated - before + node.current.allocated();
        Ok(())
    }

    /// Counts a handle to `node`.
    fn handle(&self, node: FileNode, writable: bool) -> Arc<dyn DiskFile> {
        lock(&node).opens += 1;
        Arc::new(MemoryFile { state: Arc::clone(&self.state), node, writable })
    }
}

impl State {
    /// Counts a mutating operation and settles how it ends.
    fn begin(&mut self, is_sync: bool) -> io::Result<Fate> {
        let full = self.faults.is_full_from_here();
        if full {
            self.capacity = 0;
        }
        self.faults.begin(is_sync)
    }

    /// The number of a directory.
    fn dir(&self, path: &str) -> io::Result<usize> {
        if path.is_empty() {
            return Ok(ROOT);
        }
        checked(path)?.split('/').try_fold(ROOT, |dir, name| match self.dirs[dir].current.get(name) {
            Some(Entry::Dir(next)) => Ok(*next),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn file(&self, path: &str) -> io::Result<FileNode> {
        let (dir, name) = split(path);
        match self.dirs[self.dir(dir)?].current.get(name) {
            Some(Entry::File(node)) => Ok(Arc::clone(node)),
            Some(Entry::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn creation(&self, path: &str, entry: Entry) -> io::Result<Vec<(usize, NameChange)>> {
        let (dir, name) = split(path);
        let dir = self.dir(dir)?;
        if self.dirs[dir].current.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(vec![(dir, NameChange::Create { name: name.to_owned(), entry })])
    }

    /// A rename within a directory happens or not; between two, either half may come without the other.
    fn renaming(&self, from: &str, to: &str) -> io::Result<Vec<(usize, NameChange)>> {
        let entry = Entry::File(self.file(from)?);
        let ((from_dir, from), (to_dir, to)) = (split(from), split(to));
        let (from_dir, to_dir) = (self.dir(from_dir)?, self.dir(to_dir)?);
        if let Some(Entry::Dir(_)) = self.dirs[to_dir].current.get(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        if from_dir == to_dir {
            return Ok(vec![(from_dir, NameChange::Rename { from, to, entry })]);
        }
        // The arrival first: with the removal first, the file would be without a name in between.
        Ok(vec![
            (to_dir, NameChange::Arrive { name: to, entry: entry.clone() }),
            (from_dir, NameChange::Remove { name: from, entry }),
        ])
    }

    fn removal(&self, path: &str) -> io::Result<Vec<(usize, NameChange)>> {
        let entry = Entry::File(self.file(path)?);
        let (dir, name) = split(path);
        Ok(vec![(self.dir(dir)?, NameChange::Remove { name: name.to_owned(), entry })])
    }

    /// Carries out an operation on names, or leaves it in flight.
    fn settle(&mut self, fate: Fate, changes: io::Result<Vec<(usize, NameChange)>>) -> io::Result<()> {
        match fate {
            Fate::Done | Fate::Lies | Fate::Fails(Failure::Done, _) => {}
            Fate::Fails(_, kind) => return Err(injected(kind)),
            Fate::InFlight => {
                for (dir, change) in changes.into_iter().flatten() {
                    self.dirs[dir].unsynced.push(change);
                }
                return Err(power_cut());
            }
        }
        for (dir, change) in changes? {
            if let NameChange::Create { entry: Entry::File(node), .. }
            | NameChange::Arrive { entry: Entry::File(node), .. } = &change
            {
                lock(node).names += 1;
            }
            let dir = &mut self.dirs[dir];
            let unnamed = change.apply(&mut dir.current);
            dir.unsynced.push(change);
            if let Some(Entry::File(node)) = unnamed {
                lock(&node).names -= 1;
                self.release(&node);
            }
        }
        fate.outcome()
    }

    /// Gives back the room of a file that nobody can reach any more.
    fn release(&mut self, node: &FileNode) {
        let node = lock(node);
        if node.names == 0 && node.opens == 0 {
            self.allocated -= node.current.allocated();
        }
    }
}

impl Entry {
    fn is(&self, other: &Entry) -> bool {
        match (self, other) {
            (Entry::File(a), Entry::File(b)) => Arc::ptr_eq(a, b),
            (Entry::Dir(a), Entry::Dir(b)) => a == b,
            _ => false,
        }
    }
}

impl NameChange {
    /// Makes the change where it still applies: its old name means what it meant then, its new name is
    /// free if it has to be. Returns what lost its name.
    fn apply(&self, names: &mut Names) -> Option<Entry> {
        let means = |names: &Names, name: &str, entry: &Entry| names.get(name).is_some_and(|e| e.is(entry));
        match self {
            NameChange::Create { name, entry } => {
                names.entry(name.clone()).or_insert_with(|| entry.clone());
                None
            }
            NameChange::Arrive { name, entry } => names.insert(name.clone(), entry.clone()),
            NameChange::Rename { from, to, entry } if means(names, from, entry) => {
                names.remove(from);
                names.insert(to.clone(), entry.clone())
            }
            NameChange::Remove { name, entry } if means(names, name, entry) => names.remove(name),
            NameChange::Rename { .. } | NameChange::Remove { .. } => None,
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let path = checked(path)?;
        let mut state = lock(&self.state);
        if access != Access::CreateNew {
            state.faults.begin_read()?;
            return Ok(self.handle(state.file(path)?, access == Access::Write));
        }
        let fate = state.begin(false)?;
        let node = FileNode::default();
        let changes = state.creation(path, Entry::File(Arc::clone(&node)));
        state.settle(fate, changes)?;
        Ok(self.handle(node, true))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let path = checked(path)?;
        let mut state = lock(&self.state);
        let fate = state.begin(false)?;
        let number = state.dirs.len();
        state.dirs.push(Dir::default());
        let changes = state.creation(path, Entry::Dir(number));
        state.settle(fate, changes)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        let mut state = lock(&self.state);
        state.faults.begin_read()?;
        let listed = |(name, entry): (&String, &Entry)| match entry {
            Entry::File(node) => Listed { name: name.clone(), is_dir: false, len: lock(node).current.len() },
            Entry::Dir(_) => Listed { name: name.clone(), is_dir: true, len: 0 },
        };
        Ok(state.dirs[state.dir(dir)?].current.iter().map(listed).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (checked(from)?, checked(to)?);
        let mut state = lock(&self.state);
        let fate = state.begin(false)?;
        let changes = state.renaming(from, to);
        state.settle(fate, changes)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = checked(path)?;
        let mut state = lock(&self.state);
        let fate = state.begin(false)?;
        let changes = state.removal(path);
        state.settle(fate, changes)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        let fate = state.begin(true)?;
        if !fate.is_done() {
            return fate.outcome();
        }
        let number = state.dir(dir)?;
        let Dir { durable, unsynced, .. } = &mut state.dirs[number];
        for change in unsynced.drain(..) {
            change.apply(durable);
        }
        fate.outcome()
    }

    fn space(&self) -> io::Result<Space> {
        let mut state = lock(&self.state);
        state.faults.begin_read()?;
        let free = state.capacity.saturating_sub(state.allocated);
        Ok(Space { total: state.capacity, free, available: free })
    }
}

/// A handle to a file, which lives on without a name.
struct MemoryFile {
    state: Arc<Mutex<State>>,
    node: FileNode,
    writable: bool,
}

impl MemoryFile {
    /// Carries out a change of the bytes, or leaves it in flight.
    fn change(&self, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading"));
        }
        let mut state = lock(&self.state);
        let fate = state.begin(false)?;
        let mut node = lock(&self.node);
        let change = match (fate, change) {
            (Fate::InFlight, change) => {
                node.unsynced.push(change);
                return Err(power_cut());
            }
            (Fate::Done | Fate::Lies | Fate::Fails(Failure::Done, _), change) => change,
            (Fate::Fails(Failure::Short, _), Change::Write { offset, mut bytes }) => {
                bytes.truncate(bytes.len() / 2);
                Change::Write { offset, bytes }
            }
            (Fate::Fails(_, kind), _) => return Err(injected(kind)),
        };
        let before = node.current.allocated();
        match &change {
            Change::Write { offset, bytes } => {
                let room = node.current.room_for(*offset, bytes.len() as u64);
                if room > 0 && room > state.capacity.saturating_sub(state.allocated) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                node.current.write(bytes, *offset);
                node.bad.written(*offset, bytes.len() as u64);
            }
            Change::SetLen(len) => node.current.set_len(*len),
        }
        state.allocated = state.allocated - before + node.current.allocated();
        node.unsynced.push(change);
        fate.outcome()
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        lock(&self.state).faults.begin_read()?;
        let node = lock(&self.node);
        let read = node.current.read(buf, offset);
        match node.bad.touches(offset, read as u64) {
            true => Err(io::Error::other("injected bad sector")),
            false => Ok(read),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.change(Change::Write { offset, bytes: buf.to_vec() })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        match state.begin(true)? {
            fate if fate.is_done() => {
                lock(&self.node).make_durable();
                fate.outcome()
            }
            fate => {
                if let Fate::Fails(Failure::Forgotten, _) = fate {
                    lock(&self.node).unsynced.clear();
                }
                fate.outcome()
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        lock(&self.state).faults.begin_read()?;
        Ok(lock(&self.node).current.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len))
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        lock(&self.node).opens -= 1;
        state.release(&self.node);
    }
}

impl Node {
    /// Only the pages that changed are handled. They are taken as they are now: what later changes did
    /// to a page is in it already, and to do it once more changes nothing.
    fn make_durable(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write { offset, bytes } => {
                    self.durable.share(&self.current, offset, bytes.len() as u64)
                }
                Change::SetLen(len) => self.durable.set_len(len),
            }
        }
        self.durable.set_len(self.current.len());
    }
}

fn power_cut() -> io::Error {
    io::Error::other("power cut")
}

fn injected(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "injected fault")
}

/// A thread that panicked has left nothing half done that a test would mind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
