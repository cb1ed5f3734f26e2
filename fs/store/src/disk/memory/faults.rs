//! What goes wrong, and when: operations are counted, and some of them fail.

use std::collections::BTreeMap;
use std::io;

use super::{MemoryDisk, injected, lock, power_cut};

/// How an operation that fails leaves the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Nothing was done.
    Nothing,
    /// A write stopped half way: the front half of its bytes is there. Of other operations nothing was done.
    Short,
    /// All of it was done, and it errs all the same.
    Done,
    /// Of a sync: nothing became certain, and the system forgets that it had anything to write, as Linux does. What
    /// was written can be read until the power goes, and no later sync makes it certain. Of others nothing was done.
    Forgotten,
}

/// Whether an operation is carried out, fails, or the power goes while it is under way: its change may
/// then be found after the crash, though nobody has seen it done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    InFlight,
    Fails(Failure, io::ErrorKind),
    /// Of syncs: nothing is done, and the caller told otherwise.
    Lies,
}

impl Fate {
    /// Whether what a sync does is done.
    pub(super) fn is_done(self) -> bool {
        matches!(self, Fate::Done | Fate::Fails(Failure::Done, _))
    }

    /// What the caller is told.
    pub(super) fn outcome(self) -> io::Result<()> {
        match self {
            Fate::Done | Fate::Lies => Ok(()),
            Fate::InFlight => Err(power_cut()),
            Fate::Fails(_, kind) => Err(injected(kind)),
        }
    }
}

#[derive(Clone, Copy)]
struct Fault {
    kind: io::ErrorKind,
    failure: Failure,
    sticky: bool,
}

/// The counts, and what is to fail.
#[derive(Default)]
pub(super) struct Faults {
    operations: u64,
    /// Whether each of them was a sync.
    syncs: Vec<bool>,
    reads: u64,
    cut_at: Option<u64>,
    kill_at: Option<u64>,
    full_at: Option<u64>,
    cut: bool,
    ahead: BTreeMap<u64, Fault>,
    reads_ahead: BTreeMap<u64, io::ErrorKind>,
    syncs_fail: Option<Fault>,
    syncs_lie: bool,
    hit: u64,
}

impl Faults {
    fn powered(&self) -> io::Result<()> {
        if self.cut { Err(power_cut()) } else { Ok(()) }
    }

    /// Whether the disk is full from the next operation on, for the first time.
    pub(super) fn is_full_from_here(&mut self) -> bool {
        self.full_at.take_if(|at| *at <= self.operations).is_some()
    }

    /// Counts a mutating operation and settles how it ends.
    pub(super) fn begin(&mut self, is_sync: bool) -> io::Result<Fate> {
        self.powered()?;
        let number = self.operations;
        self.operations += 1;
        self.syncs.push(is_sync);
        if self.kill_at.is_some_and(|at| at <= number) {
            self.cut = true;
            return Err(power_cut());
        }
        if self.cut_at.is_some_and(|at| at <= number) {
            self.cut = true;
            return Ok(Fate::InFlight);
        }
        if let Some(fault) = self.ahead.remove(&number) {
            if fault.sticky {
                self.syncs_fail = Some(fault);
            }
            self.hit += 1;
            return Ok(Fate::Fails(fault.failure, fault.kind));
        }
        match self.syncs_fail {
            Some(fault) if is_sync => Ok(Fate::Fails(fault.failure, fault.kind)),
            _ if is_sync && self.syncs_lie => Ok(Fate::Lies),
            _ => Ok(Fate::Done),
        }
    }

    /// Counts an operation that changes nothing, and settles whether it fails.
    pub(super) fn begin_read(&mut self) -> io::Result<()> {
        self.powered()?;
        let number = self.reads;
        self.reads += 1;
        match self.reads_ahead.remove(&number) {
            Some(kind) => {
                self.hit += 1;
                Err(injected(kind))
            }
            None => Ok(()),
        }
    }
}

impl MemoryDisk {
    /// How many mutating operations were begun: creating opens, `create_dir`, `rename`, `remove`,
    /// `sync_dir`, `write_at`, `set_len` and `sync`. They are numbered from 0, so that this is the next
    /// one's number.
    pub fn operations(&self) -> u64 {
        lock(&self.state).faults.operations
    }

    /// Of each of those whether it was a `sync` or `sync_dir`.
    pub fn syncs(&self) -> Vec<bool> {
        lock(&self.state).faults.syncs.clone()
    }

    /// How many other operations were begun: opens, `list`, `space`, `read_at` and `len`. Numbered likewise.
    pub fn reads(&self) -> u64 {
        lock(&self.state).faults.reads
    }

    /// Lets the power go during operation number `operation`, or the next one where it is over. That
    /// operation is left in flight: a crash may find it done, in part (a write) or not. It and every
    /// later operation fail, reads too.
    pub fn cut_at(&self, operation: u64) {
        lock(&self.state).faults.cut_at = Some(operation);
    }

    /// Whether the power is gone, or whoever used it killed.
    pub fn is_cut(&self) -> bool {
        lock(&self.state).faults.cut
    }

    /// Ends whoever uses the disk before operation number `operation`, or before the next one where it is over: that
    /// one and all later ones fail and do nothing, until [`MemoryDisk::heal`]. The disk has its power all the while: what
    /// was not synced can be read, and is not certain.
    pub fn kill_at(&self, operation: u64) {
        lock(&self.state).faults.kill_at = Some(operation);
    }

    /// Makes operation number `operation` err with `kind`, having done nothing. Where it is `sticky`, so
    /// does every later `sync` and `sync_dir`.
    pub fn fail_at(&self, operation: u64, kind: io::ErrorKind, sticky: bool) {
        self.fail(operation, kind, Failure::Nothing, sticky);
    }

    /// As [`MemoryDisk::fail_at`], but leaving the disk as `failure` says.
    pub fn fail(&self, operation: u64, kind: io::ErrorKind, failure: Failure, sticky: bool) {
        lock(&self.state).faults.ahead.insert(operation, Fault { kind, failure, sticky });
    }

    /// Makes number `read` of the operations that [`MemoryDisk::reads`] counts err with `kind`.
    pub fn fail_read_at(&self, read: u64, kind: io::ErrorKind) {
        lock(&self.state).faults.reads_ahead.insert(read, kind);
    }

    /// Has the disk be full, as if others had filled it, from operation number `operation` until
    /// [`MemoryDisk::set_capacity`] is called.
    pub fn fill_at(&self, operation: u64) {
        lock(&self.state).faults.full_at = Some(operation);
    }

    /// From here on a sync answers that all is certain, and does nothing: a disk that lies, for tests of tests.
    pub fn lie(&self) {
        lock(&self.state).faults.syncs_lie = true;
    }

    /// How many operations failed that were made to, those after a sticky failure not counted.
    pub fn faults_hit(&self) -> u64 {
        lock(&self.state).faults.hit
    }

    /// Takes away every fault, cut and kill, those ahead too: the same disk, with what is not certain on it still not
    /// certain.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        let faults = &mut state.faults;
        let syncs = std::mem::take(&mut faults.syncs);
        *faults = Faults { operations: faults.operations, reads: faults.reads, syncs, ..Faults::default() };
    }
}
