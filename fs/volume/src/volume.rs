//! A volume, open: its operations, and its end.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_format::{Compression, Geometry, ParityGeometry, PieceKind, Uuid, VolumeState, VolumeSuperblock};
use cairn_store::heal::{HealEvent, HealMode};
use cairn_store::{check_replicas, write_replicas};

use crate::core::{Core, Log};
use crate::explain::Explanation;
use crate::gc::{GcError, GcOptions, GcProgress, GcReport, collect};
use crate::layout::{ENGINE_DIR, VolumeLock};
use crate::maintenance::{fold_all, maintain, run};
use crate::open::Dedup;
use crate::refill::{Refill, RefillError, RefillOptions, RefillProgress};
use crate::request::{self, Request};
use crate::scrub::{ScrubError, ScrubOptions, ScrubProgress, ScrubReport, note_lost_packs};
use crate::statistics::Statistics;
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{Arc, Mutex, PoisonError};
use crate::vfs::{Allocate, Attr, Caller, DirItem, Error, RenameMode, SeekTo, SetAttr, StatFs, XattrMode};

/// What a volume takes up, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Inodes, directories and all.
    pub files: u64,
    /// Bytes of all files, holes left out, as of the last checkpoint.
    pub logical: u64,
    /// Plain bytes in data packs: each chunk once.
    pub unique: u64,
    /// Bytes of data packs, without what is in `parity`.
    pub stored: u64,
    /// Of those, bytes that nothing refers to any more, as of the last checkpoint; at least.
    pub reclaimable: u64,
    /// Bytes of metadata packs, engine and index, without what is in `parity`.
    pub metadata: u64,
    /// Bytes that are there to mend others: parity, its checksums, second copies, of packs and of the journal's segments.
    pub parity: u64,
    /// Bytes of second copies of packs.
    pub twins: u64,
    /// Bytes of the journal's segments.
    pub journal: u64,
    /// Bytes written but not folded yet.
    pub journal_used: u64,
}

/// Why a volume takes no writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOnly {
    /// It was opened so.
    Asked,
    /// It stopped after this error.
    Stopped(String),
}

/// An open volume. All operations may be called from any thread. Inode numbers are those of `st_ino`;
/// the root directory is 1.
pub struct Volume {
    core: Arc<Core>,
    superblock: Mutex<VolumeSuperblock>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    dir: Option<PathBuf>,
    lock: Mutex<Option<VolumeLock>>,
}

impl Volume {
    pub(crate) fn start(
        core: Arc<Core>,
        superblock: VolumeSuperblock,
        place: Option<(VolumeLock, PathBuf)>,
    ) -> Arc<Volume> {
        let mut threads = Vec::new();
        if core.background {
            let all = [
                ("cairn-fold", run as fn(&Arc<Core>)),
                ("cairn-gc", crate::gc::run),
                ("cairn-mend", crate::heal::run),
                ("cairn-ahead-1", crate::ahead::run),
                ("cairn-ahead-2", crate::ahead::run),
            ];
            for (name, run) in all {
                let core_of_thread = core.clone();
                let thread = Builder::new().name(name.into()).spawn(move || run(&core_of_thread));
                match (thread, core.journal()) {
                    (Ok(thread), _) => threads.push(thread),
                    (Err(error), Ok(journal)) => {
                        journal.stop_because(format!("no thread for {name}: {error}"))
                    }
                    (Err(_), Err(_)) => {}
                }
            }
        }
        let (lock, dir) = place.unzip();
        Arc::new(Volume {
            core,
            superblock: Mutex::new(superblock),
            threads: Mutex::new(threads),
            dir,
            lock: Mutex::new(lock),
        })
    }

    /// What is beneath it.
    #[cfg(all(test, feature = "schedules"))]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// What a name leads to; `None` where there is no such name.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>, Error> {
        self.core.lookup(parent, name)
    }

    /// An inode's attributes.
    pub fn getattr(&self, ino: u64) -> Result<Attr, Error> {
        self.core.getattr(ino)
    }

    /// Changes attributes; gives the new ones.
    pub fn setattr(&self, ino: u64, change: &SetAttr, caller: &Caller) -> Result<Attr, Error> {
        self.core.setattr(ino, change, caller)
    }

    /// A symbolic link's target.
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>, Error> {
        self.core.readlink(ino)
    }

    /// Makes a file, pipe, socket or device node; `mode` is type and permissions.
    pub fn mknod(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
        caller: &Caller,
    ) -> Result<Attr, Error> {
        self.core.mknod(parent, name, mode, umask, rdev, caller)
    }

    /// Makes a directory.
    pub fn mkdir(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        caller: &Caller,
    ) -> Result<Attr, Error> {
        self.core.mkdir(parent, name, mode, umask, caller)
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, parent: u64, name: &[u8], target: &[u8], caller: &Caller) -> Result<Attr, Error> {
        self.core.symlink(parent, name, target, caller)
    }

    /// Gives an inode another name.
    pub fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr, Error> {
        self.core.link(ino, parent, name)
    }

    /// Removes a name that is not a directory's. Who has the file open keeps it.
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<(), Error> {
        self.core.unlink(parent, name)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<(), Error> {
        self.core.rmdir(parent, name)
    }

    /// Moves a name; what has the new one already fares as `mode` says.
    pub fn rename(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), Error> {
        self.core.rename(parent, name, new_parent, new_name, mode)
    }

    /// Makes a file and opens it.
    pub fn create(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        caller: &Caller,
    ) -> Result<Attr, Error> {
        self.core.create(parent, name, mode, umask, caller)
    }

    /// Opens a file or directory: it stays until it is released as often, without a name too.
    pub fn open(&self, ino: u64) -> Result<(), Error> {
        self.core.open(ino)
    }

    /// Closes what [`Volume::open`] or [`Volume::create`] opened.
    pub fn release(&self, ino: u64) {
        self.core.release(ino);
    }

    /// Has `told` called with the `st_ino` of each file whose `st_blocks` changed since it was folded, while locks are
    /// held: it must not wait, nor call the volume. Only the first that is given counts.
    pub fn on_folded(&self, told: impl Fn(u64) + Send + Sync + 'static) {
        let _ = self.core.on_folded.set(Box::new(told));
    }

    /// Has `told` called whenever an operation is in the journal and its caller does not know yet: for tests of what
    /// happens then. Only the first that is given counts.
    pub fn on_concluded(&self, told: impl Fn() + Send + Sync + 'static) {
        let _ = self.core.on_concluded.set(Box::new(told));
    }

    /// From here on not every open is told, but [`Volume::forget`] is called for what nobody can reach any more: what
    /// loses its last name stays until then. To be called before the first operation.
    pub fn expect_forgets(&self) {
        self.core.handles.expect_forgets();
    }

    /// A request of the kernel's that changes something. `repeated`: it was asked before, of a process that died before it
    /// answered; what that had done is not done again. To be called as soon as the request is there.
    pub fn request(&self, number: u64, repeated: bool) -> Request {
        let answered = match self.core.journal() {
            Ok(journal) if repeated => journal.answers().recorded(number),
            Ok(journal) => {
                journal.answers().note_other();
                None
            }
            Err(_) => None,
        };
        Request { number, answered }
    }

    /// Runs `f`, which calls one operation on behalf of `request`, and answers it.
    pub fn on_behalf_of<T>(&self, request: Request, f: impl FnOnce() -> T) -> T {
        let (done, concluded) = request::on_behalf_of(request, f);
        if let Ok(journal) = self.core.journal()
            && (concluded || request.is_concluded())
        {
            journal.answers().settle(request.number);
        }
        done
    }

    /// From here on answers may not reach whoever asked: a successor will be asked again. To be called before that is so.
    pub fn expect_successor(&self) {
        if let Ok(journal) = self.core.journal() {
            journal.answers().keep_all();
        }
    }

    /// This mount's number in the volume's life.
    pub fn epoch(&self) -> u32 {
        self.core.packs.epoch
    }

    /// Another descriptor that holds the volume's lock; `None` where there is no lock.
    pub fn copy_lock(&self) -> std::io::Result<Option<OwnedFd>> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.as_ref().map(VolumeLock::copy).transpose()
    }

    /// All that have lost their last name and stay until nobody uses them.
    pub fn all_nameless(&self) -> Vec<u64> {
        self.core.all_nameless()
    }

    /// Those of `inos` that have lost their last name and stay until nobody uses them.
    pub fn nameless(&self, inos: &[u64]) -> Vec<u64> {
        self.core.nameless(inos)
    }

    /// Nobody can reach these inodes any more but by their names.
    pub fn forget(&self, inos: &[u64]) {
        self.core.forget(inos);
    }

    /// Reads up to `len` bytes; fewer only at the file's end.
    pub fn read(&self, ino: u64, offset: u64, len: u32) -> Result<Vec<u8>, Error> {
        self.core.read(ino, offset, len)
    }

    /// Writes all of `data`; with `clear_privileges` the file loses its set-user-id bit and the like. What was
    /// acknowledged survives the death of this process, and after [`Volume::fsync`] a power cut.
    pub fn write(&self, ino: u64, offset: u64, data: &[u8], clear_privileges: bool) -> Result<(), Error> {
        self.core.write(ino, offset, data, clear_privileges)
    }

    /// Makes what was acknowledged certain: of this file or directory, and of all others. An error for as long as bytes
    /// of this file that were acknowledged are lost.
    pub fn fsync(&self, ino: u64, _data_only: bool) -> Result<(), Error> {
        self.core.fsync(ino)
    }

    /// A number for the handle that [`Volume::open`] or [`Volume::create`] just opened: through it
    /// [`Volume::fsync_handle`] tells of what was lost once, and it is to be given back when the handle is closed.
    pub fn handle(&self, ino: u64) -> u64 {
        self.core.number(ino).map_or(0, |ino| self.core.losses.handle(ino))
    }

    /// The handle of this number is closed; [`Volume::release`] is called as well.
    pub fn release_handle(&self, handle: u64) {
        self.core.losses.release(handle);
    }

    /// As [`Volume::fsync`], but each handle is told of lost bytes once.
    pub fn fsync_handle(&self, ino: u64, handle: u64, _data_only: bool) -> Result<(), Error> {
        self.core.fsync_handle(ino, handle)
    }

    /// Makes room in a file, or a hole; `clear_privileges` as for [`Volume::write`].
    pub fn allocate(
        &self,
        ino: u64,
        offset: u64,
        len: u64,
        how: Allocate,
        clear_privileges: bool,
    ) -> Result<(), Error> {
        self.core.allocate(ino, offset, len, how, clear_privileges)
    }

    /// Has `len` bytes of one file, from an offset on, be those of another (or of the same, where the ranges do not
    /// overlap), without copying any: gives how many bytes that were, fewer than asked at the source's end or where
    /// it would take long.
    pub fn copy_range(
        &self,
        from: (u64, u64),
        to: (u64, u64),
        len: u64,
        clear_privileges: bool,
    ) -> Result<u64, Error> {
        self.core.copy_range(from, to, len, clear_privileges)
    }

    /// What a file is made of and what it shares with others. Looking for those goes through all extents of the
    /// volume, for `patience` at most.
    pub fn explain(&self, ino: u64, patience: Duration) -> Result<Explanation, Error> {
        self.core.explain(ino, patience)
    }

    /// What was done since the volume was opened, and how it stands.
    pub fn statistics(&self) -> Statistics {
        self.core.statistics()
    }

    /// What was healed since the volume was opened, and what could not be: the newest of it, the oldest first.
    pub fn heal_events(&self) -> Vec<HealEvent> {
        self.core.store.health().events()
    }

    /// What is done about damage.
    pub fn heal_mode(&self) -> HealMode {
        self.core.store.health().mode()
    }

    /// Has something else be done about damage from now on. Nothing is written to a volume that was opened read-only.
    pub fn set_heal_mode(&self, mode: HealMode) {
        let reads_only = self.core.journal().is_err();
        self.core.store.health().set_mode(match mode {
            HealMode::On if reads_only => HealMode::ReadOnly,
            mode => mode,
        });
    }

    /// The parity that new data packs get, and new metadata packs.
    pub fn new_parity(&self) -> (ParityGeometry, ParityGeometry) {
        (self.core.writing.parity, self.core.writing.metadata_parity())
    }

    /// What mkfs chose.
    pub fn geometry(&self) -> Geometry {
        self.core.geometry
    }

    /// How new data is stored, where its file says nothing else.
    pub fn writes(&self) -> (Compression, Dedup) {
        (self.core.writing.compression, self.core.writing.dedup)
    }

    /// The next data, or the next hole.
    pub fn seek(&self, ino: u64, offset: u64, to: SeekTo) -> Result<u64, Error> {
        self.core.seek(ino, offset, to)
    }

    /// What a file's bytes are made of: offset, length and place of each run, holes included.
    pub fn extents(&self, ino: u64) -> Result<Vec<(u64, u64, PieceKind)>, Error> {
        self.core.extents(ino)
    }

    /// Calls `each` with the names behind cookie `after` (0: all, `.` and `..` first) until it says false.
    pub fn readdir(
        &self,
        ino: u64,
        after: u64,
        each: &mut dyn FnMut(&DirItem<'_>) -> bool,
    ) -> Result<(), Error> {
        self.core.readdir(ino, after, each)
    }

    /// The room on the filesystem below: what is physically so.
    pub fn statfs(&self) -> Result<StatFs, Error> {
        self.core.statfs()
    }

    /// Sets an extended attribute.
    pub fn setxattr(&self, ino: u64, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Error> {
        self.core.setxattr(ino, name, value, mode)
    }

    /// An extended attribute's value.
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, Error> {
        self.core.getxattr(ino, name)
    }

    /// The names of all extended attributes, each with a NUL behind it.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<u8>, Error> {
        self.core.listxattr(ino)
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: u64, name: &[u8]) -> Result<(), Error> {
        self.core.removexattr(ino, name)
    }

    /// Returns when everything acknowledged so far is folded, and a checkpoint holds it.
    pub fn sync(&self) -> Result<(), Error> {
        self.fold_all()
    }

    fn fold_all(&self) -> Result<(), Error> {
        fold_all(&self.core).map_err(|error| {
            tracing::error!("not everything could be folded: {error}");
            if error.is_full() { Error::NoSpace } else { Error::Io }
        })
    }

    /// Compacts packs that are partly dead, and small ones, and drops what nothing refers to. What was written but is not
    /// folded is not looked at: [`Volume::sync`] first. `progress` is called now and then, with no lock held, and ends
    /// the run by breaking; what was done is done, and the next run goes on. Other operations go on meanwhile.
    pub fn gc(
        &self,
        options: &GcOptions,
        progress: &mut dyn FnMut(&GcProgress) -> ControlFlow<()>,
    ) -> Result<GcReport, GcError> {
        self.core.collector.give_way();
        collect(&self.core, options, progress)
    }

    /// Reads packs from the disk and holds all of them against their checksums, the one first that was not for longest;
    /// writes back what is damaged, and names what cannot be. `progress` is called now and then, with no lock held, and says
    /// whether to go on; the next run goes on where one was stopped, or killed. Other operations go on meanwhile.
    pub fn scrub(
        &self,
        options: &ScrubOptions,
        progress: &mut dyn FnMut(&ScrubProgress) -> bool,
    ) -> Result<ScrubReport, ScrubError> {
        let superblocks = |repair| {
            let superblock = self.superblock.lock().unwrap_or_else(PoisonError::into_inner);
            let usable = |bytes: &[u8]| VolumeSuperblock::decode(bytes).map(drop);
            check_replicas(&*self.core.disk, usable, &superblock.encode(), repair)
        };
        crate::scrub::scrub(&self.core, options, &superblocks, progress)
    }

    /// Gives the journal's closed segments parity at once, those that are synced, where the disk has room; whether any got it.
    /// Otherwise they get it when they have been closed for a while.
    pub fn protect_journal(&self) -> bool {
        let mut any = false;
        while self.core.protect_journal(Duration::ZERO) {
            any = true;
        }
        any
    }

    /// Begins to have lost data back from elsewhere: goes through the packs for what cannot be read, and writes back what
    /// parity restores. Then [`Refill::next`] says what is looked for, [`Refill::offer`] takes what was found, and
    /// [`Refill::finish`] ends it. `progress` as for [`Volume::scrub`].
    pub fn refill(
        &self,
        options: &RefillOptions,
        progress: &mut dyn FnMut(&RefillProgress) -> bool,
    ) -> Result<Refill<'_>, RefillError> {
        crate::refill::begin(&self.core, options, progress)
    }

    /// One round of what a thread does elsewhere: for volumes opened without one.
    pub fn maintain(&self) -> Result<bool, Error> {
        // First, or a checkpoint leaves none that it is for.
        let _ = !self.core.background && self.protect_journal();
        let maintained = maintain(&self.core, true);
        let mended = !self.core.background && (self.core.mend_all() | self.core.make_twins(u64::MAX));
        if !self.core.background {
            self.core.decode_all_ahead();
        }
        match maintained {
            Ok(changed) => Ok(changed || mended),
            Err(error) if error.is_full() => Err(Error::NoSpace),
            Err(_) => Err(Error::Io),
        }
    }

    /// What the volume takes up.
    pub fn usage(&self) -> Usage {
        let totals = self.core.totals();
        let store = self.core.store.usage();
        let (journal_used, journal) = match &self.core.log {
            Log::Writing(journal) => (self.core.dirty.backlog().0, journal.usage().1),
            Log::Reading(chain, shape) => {
                (self.core.dirty.backlog().0, u64::from(chain.files) * u64::from(shape.segment))
            }
        };
        let protecting = self.core.journal().map_or(0, |journal| journal.parity_bytes());
        let caches = self.dir.as_ref().map_or(0, |dir| {
            blocks_below(&dir.join(ENGINE_DIR)) + blocks_below(&dir.join(crate::STORE_DIR).join("index"))
        });
        Usage {
            files: totals.inodes,
            logical: totals.logical,
            unique: store.unique,
            stored: store.data,
            reclaimable: self.core.collector.reclaimable(),
            metadata: store.metadata + caches,
            parity: store.spare + protecting,
            twins: self.core.store.twin_usage().0.bytes + self.core.store.twin_usage().1.bytes,
            journal,
            journal_used,
        }
    }

    /// The volume's identity.
    pub fn uuid(&self) -> Uuid {
        self.core.uuid
    }

    /// The volume's label.
    pub fn label(&self) -> String {
        self.superblock.lock().unwrap_or_else(PoisonError::into_inner).label.clone()
    }

    /// Whether it takes no writes: opened so, or stopped after an error.
    pub fn is_read_only(&self) -> bool {
        self.core.journal().map_or(true, |journal| journal.stopped().is_some())
    }

    /// Why it takes no writes; `None` while it does.
    pub fn read_only(&self) -> Option<ReadOnly> {
        match self.core.journal() {
            Ok(journal) => journal.stopped().map(ReadOnly::Stopped),
            Err(_) => Some(ReadOnly::Asked),
        }
    }

    /// Folds everything, marks the volume clean, and lets go of it. Operations fail from here on. Where not
    /// everything can be folded, nothing is lost: the next mount replays the journal.
    pub fn close(&self) -> Result<(), Error> {
        self.end_threads();
        self.core.mend_little();
        let closed = self.close_for_now();
        if let Some(lock) = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take() {
            lock.release();
        }
        closed
    }

    /// As [`Volume::close`], but whoever has a copy of the lock ([`Volume::copy_lock`]) keeps the volume.
    pub fn close_for_now(&self) -> Result<(), Error> {
        self.end_threads();
        let closed = match self.core.journal() {
            Ok(journal) if journal.stopped().is_none() => self.close_clean(),
            Ok(_) => Err(Error::Io),
            Err(_) => Ok(()),
        };
        if let Ok(journal) = self.core.journal()
            && journal.stopped().is_none()
        {
            journal.close();
        }
        let engine = self.dir.as_ref().map(|dir| dir.join(ENGINE_DIR));
        let sealed = closed.is_ok() && self.core.journal().is_ok();
        self.core.close_engine(engine.as_deref().filter(|_| sealed));
        closed
    }

    /// Has what goes on in the background end, and a run of collecting that somebody asked for.
    fn end_threads(&self) {
        self.core.signal.stop();
        self.core.collector.interrupt();
        self.core.store.health().wake();
        self.core.ahead.wake();
        self.core.scrubber.wait();
        self.core.refiller.wait();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A panic in it was caught and logged there.
            let _ = thread.join();
        }
    }

    fn close_clean(&self) -> Result<(), Error> {
        self.fold_all()?;
        self.core.make_twins_before_closing();
        let at = {
            let maintainer = self.core.maintainer.lock().unwrap_or_else(PoisonError::into_inner);
            maintainer.checkpoints.at
        };
        let failed = |error: cairn_store::StoreError| {
            tracing::error!("the volume is not marked clean, the next mount replays its journal: {error}");
            Error::Io
        };
        if let Some(entries) = self.core.bases.changed()
            && let Err(error) = self.core.store.save_bases(entries)
        {
            tracing::warn!("tensors that were written are not known as bases after this mount: {error}");
        }
        let store = &self.core.store;
        let lossy = store.health().packs_with_losses();
        if let Err(error) = note_lost_packs(store.disk().as_ref(), store.uuid(), &lossy) {
            tracing::warn!("the next mount does not know which packs something of is lost: {error}");
        }
        if let Err(error) = self.core.store.save_index() {
            tracing::warn!("the next mount reads all packs' footers: {error}");
        }
        let mut superblock = self.superblock.lock().unwrap_or_else(PoisonError::into_inner);
        superblock.state = VolumeState::Clean;
        superblock.checkpoint = at;
        superblock.generation = superblock.generation.saturating_add(1);
        self.core.copy_superblocks(&superblock);
        write_replicas(&*self.core.disk, &superblock.encode()).map_err(failed)
    }
}

impl Drop for Volume {
    /// A volume dropped without [`Volume::close`] is left as a crash would leave it.
    fn drop(&mut self) {
        self.end_threads();
    }
}

/// Bytes that a file, or the files of a directory, take on the disk.
fn blocks_below(path: &Path) -> u64 {
    // Not what a link leads to: no circles.
    let Ok(found) = std::fs::symlink_metadata(path) else { return 0 };
    match std::fs::read_dir(path) {
        Ok(entries) if found.is_dir() => entries.flatten().map(|entry| blocks_below(&entry.path())).sum(),
        _ => found.blocks() * 512,
    }
}
