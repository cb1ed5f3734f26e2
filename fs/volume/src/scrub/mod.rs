//! Scrub: every byte of every pack is read from the disk and held against its checksum, what is damaged is written back
//! from parity, and what parity does not reach is named, with the files that it is lost to.
//!
//! Packs are looked through by threads (`workers.rs`, `look.rs`), the one first that was not for longest; when each was is
//! kept in the store (`book.rs`), so that a run that is cut goes on where it was. At the end come the journal's closed
//! segments, the engine's values, and, where something is lost, one walk over all extents (`affected.rs`).
//!
//! Architecture Invariant: a scrub decides nothing. What bytes should be, checksums say; what may be dropped is the
//! checkpoint's business.

mod affected;
mod book;
mod look;
mod select;
mod workers;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use cairn_format::{PackId, ScrubOutcome};
use cairn_store::disk::Access;
use cairn_store::heal::{HealMode, Margin};
use cairn_store::{BadReplica, PACKS_DIR, ReadError, Store, StoreError, list_packs};

use crate::checkpoint::MaintainError;
use crate::core::{Core, Log};
use crate::gc::each_page;
use crate::journal::{BadBytes, reread};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::vfs::Error;
pub(crate) use affected::{Affected, LostPlaces, find_some as find_affected, name_inodes};
use book::Book;
use look::{Looked, look};
use workers::Work;

pub(crate) use book::suspect_lost;
pub use book::{note_lost as note_lost_packs, state_of as scrub_state};

/// Bytes that are counted as one.
pub(crate) const SECTOR: u64 = cairn_format::SECTOR;
/// Places that a report names at most.
const DAMAGE_MAX: usize = 10_000;

/// How a volume is scrubbed.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrubOptions {
    /// Decode every frame, too, and hold every chunk against its id.
    pub deep: bool,
    /// Only packs that hold something of this file, or of the files below this directory: its path from the root.
    pub path: Option<Vec<u8>>,
    /// Only packs that damage was met in.
    pub errors_only: bool,
    /// So many bytes a second are read at most.
    pub rate: Option<u64>,
    /// Ends the run after this time, but not before one pack was looked through; the next goes on.
    pub max_duration: Option<Duration>,
    /// Whether what is damaged is written back, where the volume takes writes.
    pub repair: bool,
    /// Packs that are looked through at a time.
    pub threads: usize,
    /// Whether to leave most of the disk's time to others while they ask for something.
    pub gentle: bool,
    /// How far it is is written down after so many packs, or half a minute.
    pub note_every: usize,
    /// Whether the report says of every pack of the store what is known of it: some 70 bytes each.
    pub each_pack: bool,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        ScrubOptions {
            deep: false,
            path: None,
            errors_only: false,
            rate: None,
            max_duration: None,
            repair: true,
            threads: 1,
            gentle: false,
            note_every: 64,
            each_pack: false,
        }
    }
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScrubStep {
    /// It looks for the packs that it is about.
    #[default]
    Choosing,
    /// It goes through packs.
    Packs,
    /// It goes through the journal's closed segments.
    Journal,
    /// It goes through the engine's values.
    Engine,
    /// It looks for what files are called that something of is lost.
    Naming,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// What it is doing.
    pub step: ScrubStep,
    /// Packs that it is about, and how many of them it has looked through.
    pub packs_total: u64,
    /// See `packs_total`.
    pub packs: u64,
    /// Bytes of those packs, and how many were read.
    pub bytes_total: u64,
    /// See `bytes_total`.
    pub bytes: u64,
    /// Sectors that were written back.
    pub corrected: u64,
    /// Sectors that are damaged still.
    pub uncorrected: u64,
}

/// Why a run ended before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubStop {
    /// It was asked to.
    Asked,
    /// Its time was over.
    Time,
}

/// Bytes that are damaged still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubDamage {
    /// The file, from the volume's directory (of a store elsewhere: as if it were in it).
    pub file: String,
    /// The first of them.
    pub offset: u64,
    /// How many.
    pub len: u64,
    /// Why they are.
    pub reason: String,
}

/// A file that bytes are lost of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubFile {
    /// Its inode.
    pub inode: u64,
    /// What it is called, from the root; not all names, where there are many. Bytes that are not UTF-8 are replaced.
    pub paths: Vec<String>,
    /// The same, byte for byte.
    pub names: Vec<Vec<u8>>,
    /// Offset and length of what is lost.
    pub ranges: Vec<(u64, u64)>,
}

/// What is known of a pack at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubPack {
    /// The pack.
    pub pack: PackId,
    /// Bytes of its file; 0 where that is missing.
    pub len: u64,
    /// Whether this run looked through it.
    pub seen: bool,
    /// What came of looking through it, in this run or the last that did; none where no run did.
    pub outcome: Option<ScrubOutcome>,
    /// When that was, in seconds since 1970.
    pub verified: Option<u64>,
    /// Sectors that were damaged and are right again.
    pub corrected: u64,
    /// Sectors that are damaged still.
    pub uncorrected: u64,
    /// How much of its parity its damage took, or would take.
    pub margin: Option<Margin>,
}

impl ScrubPack {
    /// What a look through it says.
    fn of(looked: &Looked) -> ScrubPack {
        ScrubPack {
            pack: looked.pack,
            len: 0,
            seen: true,
            outcome: Some(looked.outcome()),
            verified: None,
            corrected: looked.corrected,
            uncorrected: looked.uncorrected,
            margin: looked.margin,
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Packs that were looked through.
    pub packs: u64,
    /// Packs that it was about.
    pub packs_total: u64,
    /// Packs that a run before it, which did not come to its end, had looked through already.
    pub packs_before: u64,
    /// Packs that were damaged and are whole again.
    pub packs_corrected: u64,
    /// Packs that are damaged still.
    pub packs_uncorrected: u64,
    /// Packs that the medium did not take the bytes of, and that were written to another place.
    pub packs_relocated: u64,
    /// Bytes that were held against their checksums.
    pub bytes: u64,
    /// Bytes of the packs that it was about.
    pub bytes_total: u64,
    /// Sectors of those that were looked through.
    pub checked: u64,
    /// Sectors that were damaged and are right again, in packs, superblocks and the journal.
    pub corrected: u64,
    /// Sectors that are damaged still, in packs, superblocks and the journal.
    pub uncorrected: u64,
    /// Sectors that it was about.
    pub total: u64,
    /// Chunks that were held against their ids.
    pub chunks: u64,
    /// Records of the journal that were held against their checksums.
    pub records: u64,
    /// Values of the engine that were.
    pub values: u64,
    /// What is damaged still, as far as it is listed.
    pub damage: Vec<ScrubDamage>,
    /// Files that something of is lost.
    pub files: Vec<ScrubFile>,
    /// Whether there is more than `damage` and `files` list.
    pub more: bool,
    /// Every pack of the store, where [`ScrubOptions::each_pack`] is set.
    pub each_pack: Vec<ScrubPack>,
    /// How long it took.
    pub took: Duration,
    /// Why it ended early; none where it is done.
    pub stopped: Option<ScrubStop>,
}

/// Why a volume could not be scrubbed.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// Another run is under way.
    #[error("the volume is being scrubbed already")]
    Busy,
    /// There is no such path in the volume.
    #[error("the volume has no {0}")]
    NoSuchPath(String),
    /// The packs could not be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The namespace cannot be read.
    #[error("the namespace cannot be read: {0:?}")]
    Namespace(Error),
    /// It cannot be looked for what files are affected.
    #[error(transparent)]
    Failed(#[from] MaintainError),
    /// No thread, or one that panicked.
    #[error("{0}")]
    Thread(String),
}

/// Called now and then, with no lock held; says whether to go on.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(&ScrubProgress) -> bool;

/// Who scrubs.
#[derive(Default)]
pub(crate) struct Scrubber(Mutex<()>);

impl Scrubber {
    /// The turn to scrub; none while another run is under way.
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.0.try_lock() {
            Ok(turn) => Some(turn),
            Err(crate::sync::TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(crate::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Waits for the run under way to end, which was told to.
    pub(crate) fn wait(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Goes through the packs, until all are, or it is stopped. `superblocks` holds the volume's superblock against its replicas.
pub(crate) fn scrub(
    core: &Core,
    options: &ScrubOptions,
    superblocks: &dyn Fn(bool) -> Vec<BadReplica>,
    tell: Tell<'_>,
) -> Result<ScrubReport, ScrubError> {
    let Some(_turn) = core.scrubber.turn() else { return Err(ScrubError::Busy) };
    let mut run = Run::new(core, options, tell);
    let (since, repair) = (run.since, run.repair);
    run.superblocks(superblocks(repair), "");
    run.superblocks(core.store.check_superblock(repair), "store/");
    run.packs()?;
    if !run.is_partial() {
        run.journal();
        run.engine()?;
    }
    run.names()?;
    run.report.took = since.elapsed();
    Ok(run.report)
}

/// Goes through packs as a scrub does, through all of them or those that damage was met in, however far the round under way
/// is; and gives what cannot be read of them when what can be restored is.
pub(crate) fn find_lost(
    core: &Core,
    options: &ScrubOptions,
    tell: Tell<'_>,
) -> Result<(ScrubReport, LostPlaces), ScrubError> {
    let Some(_turn) = core.scrubber.turn() else { return Err(ScrubError::Busy) };
    let mut run = Run { every: true, ..Run::new(core, options, tell) };
    run.packs()?;
    run.report.took = run.since.elapsed();
    let lost = LostPlaces::of(core, &run.lost);
    Ok((run.report, lost))
}

/// Packs that the last checkpoint refers to, and that have no file.
pub(crate) fn missing_packs(core: &Core) -> Result<Vec<PackId>, StoreError> {
    let referred = || -> Vec<PackId> {
        let maintainer = core.maintainer.lock().unwrap_or_else(PoisonError::into_inner);
        maintainer.checkpoints.refs.keys().copied().collect()
    };
    let there: HashSet<PackId> =
        list_packs(core.store.disk().as_ref())?.packs.into_iter().map(|(pack, _)| pack).collect();
    let is_gone = |pack: &PackId| matches!(core.store.reader(*pack), Err(ReadError::Missing { .. }));
    let gone: Vec<PackId> =
        referred().into_iter().filter(|pack| !there.contains(pack) && is_gone(pack)).collect();
    if gone.is_empty() {
        return Ok(gone);
    }
    // One that was dropped meanwhile is not referred to any more.
    let still: HashSet<PackId> = referred().into_iter().collect();
    Ok(gone.into_iter().filter(|pack| still.contains(pack)).collect())
}

/// When each pack of some was last looked through, in seconds since 1970, where that is known.
pub(crate) fn verified(store: &Store, packs: &[PackId]) -> Vec<Option<u64>> {
    let book = Book::load(store);
    packs.iter().map(|pack| book.verified(pack)).collect()
}

/// A run under way.
struct Run<'a> {
    core: &'a Core,
    options: &'a ScrubOptions,
    tell: Tell<'a>,
    repair: bool,
    since: Instant,
    progress: ScrubProgress,
    report: ScrubReport,
    /// Whether those are gone through, too, that were in this round.
    every: bool,
    /// Packs that are damaged still.
    lost: HashMap<PackId, Looked>,
    /// Packs that were looked through, or are missing, where every one is to be told of.
    seen: HashMap<PackId, ScrubPack>,
}

impl<'a> Run<'a> {
    fn new(core: &'a Core, options: &'a ScrubOptions, tell: Tell<'a>) -> Run<'a> {
        let repair = options.repair && !core.is_stopped() && core.store.health().mode() == HealMode::On;
        let (progress, report) = (ScrubProgress::default(), ScrubReport::default());
        let since = Instant::now();
        let (lost, seen) = Default::default();
        Run { core, options, tell, repair, since, progress, report, every: false, lost, seen }
    }

    /// Whether it is about some of the packs only.
    fn is_partial(&self) -> bool {
        self.options.path.is_some() || self.options.errors_only
    }

    fn superblocks(&mut self, bad: Vec<BadReplica>, place: &str) {
        for BadReplica { path, reason, corrected } in bad {
            if corrected {
                tracing::warn!("{place}{path} was written again from what is known: {reason}");
                self.report.corrected += 1;
            } else {
                self.damaged(format!("{place}{path}"), 0, cairn_format::SUPERBLOCK_LEN as u64, reason);
            }
        }
    }

    /// Counts bytes that stay damaged, and lists them.
    fn damaged(&mut self, file: String, offset: u64, len: u64, reason: String) {
        self.report.uncorrected += (offset + len).div_ceil(SECTOR).saturating_sub(offset / SECTOR).max(1);
        self.list(file, offset, len, reason);
    }

    fn list(&mut self, file: String, offset: u64, len: u64, reason: String) {
        match self.report.damage.len() < DAMAGE_MAX {
            true => self.report.damage.push(ScrubDamage { file, offset, len, reason }),
            false => self.report.more = true,
        }
    }

    fn packs(&mut self) -> Result<(), ScrubError> {
        let chosen = match &self.options.path {
            Some(path) => Some(select::packs_below(self.core, path, &mut || self.told(ScrubStep::Choosing))?),
            None => None,
        };
        if self.told(ScrubStep::Choosing) {
            return Ok(());
        }
        let mut listed = list_packs(self.core.store.disk().as_ref())?.packs;
        // What is read of a pack is its twin, too.
        listed.iter_mut().for_each(|(pack, len)| *len += self.core.store.twin_len(pack));
        let mut book = Book::load(&self.core.store);
        book.keep(&listed);
        let waiting = self.core.store.health().waiting_packs();
        let ahead = match &chosen {
            _ if self.options.errors_only => {
                let wanted = |pack: &PackId| {
                    (book.met_damage(pack) || waiting.contains(pack))
                        && chosen.as_ref().is_none_or(|chosen| chosen.contains(pack))
                };
                listed.iter().filter(|(pack, _)| wanted(pack)).copied().collect()
            }
            Some(chosen) => listed.iter().filter(|(pack, _)| chosen.contains(pack)).copied().collect(),
            None if self.every => listed.clone(),
            None => book.begin_round(&listed, self.options.deep),
        };
        if !self.is_partial() && !self.every {
            self.report.packs_before = (listed.len() - ahead.len()) as u64;
        }
        let ahead = book.oldest_first(ahead);
        self.report.packs_total = ahead.len() as u64;
        self.report.bytes_total = ahead.iter().map(|(_, len)| len).sum();
        let sectors = |(pack, len): &(PackId, u64)| {
            let twins = self.core.store.twins_of(pack);
            let own = len.saturating_sub(twins.iter().map(|(_, len)| len).sum());
            own.div_ceil(SECTOR) + twins.iter().map(|(_, len)| len.div_ceil(SECTOR)).sum::<u64>()
        };
        self.report.total = ahead.iter().map(sectors).sum();
        self.progress.packs_total = self.report.packs_total;
        self.progress.bytes_total = self.report.bytes_total;
        self.go_through(&mut book, &ahead)?;
        if self.report.stopped.is_none() {
            self.missing(chosen.as_ref())?;
            if !self.is_partial() {
                book.end_round();
            }
        }
        self.save(&mut book);
        if self.options.each_pack {
            self.tell_each_pack(&listed, &book);
        }
        Ok(())
    }

    /// What is known of every pack, of those too that are missing.
    fn tell_each_pack(&mut self, listed: &[(PackId, u64)], book: &Book) {
        for (pack, len) in listed {
            // One that was dropped meanwhile is gone.
            if !self.seen.contains_key(pack) && is_there(self.core, pack) {
                let known = ScrubPack {
                    seen: false,
                    outcome: book.outcome(pack),
                    ..ScrubPack::of(&Looked::of(*pack))
                };
                self.seen.insert(*pack, known);
            }
            if let Some(known) = self.seen.get_mut(pack) {
                (known.len, known.verified) = (*len, book.verified(pack));
            }
        }
        self.report.each_pack = self.seen.drain().map(|(_, pack)| pack).collect();
        self.report.each_pack.sort_by_key(|pack| pack.pack);
    }

    /// Notes what came of a pack, where that is to be told.
    fn see(&mut self, looked: &Looked) {
        if self.options.each_pack {
            self.seen.insert(looked.pack, ScrubPack::of(looked));
        }
    }

    fn go_through(&mut self, book: &mut Book, ahead: &[(PackId, u64)]) -> Result<(), ScrubError> {
        // One that no clock can tell never comes.
        let until = self.options.max_duration.and_then(|most| self.since.checked_add(most));
        let work = Work::new(self.core, self.options, self.repair, ahead, until);
        let mut unsaved = 0;
        let mut saved = Instant::now();
        work.run(&mut |looked| {
            if let Some(looked) = looked {
                book.note(&looked, self.options.deep);
                self.count(looked);
                unsaved += 1;
            }
            if unsaved >= self.options.note_every || (unsaved > 0 && saved.elapsed() >= book::SAVE_EVERY) {
                self.save(book);
                (unsaved, saved) = (0, Instant::now());
            }
            self.progress.bytes = work.bytes();
            self.progress.packs = self.report.packs;
            self.told(ScrubStep::Packs);
            if self.is_cut() {
                work.stop();
            }
        })?;
        // The last packs may have come to their end all the same; whoever asked it to end is asked again.
        if self.report.packs + work.gone() == ahead.len() as u64 {
            self.report.stopped = None;
        }
        Ok(())
    }

    /// Whether more than the clock ends it.
    fn is_cut(&self) -> bool {
        self.report.stopped == Some(ScrubStop::Asked)
    }

    /// Without this the next run begins where this one did.
    fn save(&self, book: &mut Book) {
        if self.core.is_stopped() || !self.options.repair {
            return;
        }
        if let Err(error) = book.save(self.core.store.disk().as_ref()) {
            tracing::warn!("how far the scrub is cannot be written down: {error}");
        }
    }

    fn count(&mut self, looked: Looked) {
        self.see(&looked);
        let report = &mut self.report;
        report.packs += 1;
        report.bytes += looked.bytes;
        report.checked += looked.checked;
        report.corrected += looked.corrected;
        report.uncorrected += looked.uncorrected;
        report.chunks += looked.chunks;
        report.packs_relocated += u64::from(looked.relocated);
        if looked.is_uncorrected() {
            report.packs_uncorrected += 1;
            for range in &looked.left {
                let file = path_of(&looked.pack);
                self.list(file, range.at.start, range.at.end - range.at.start, range.reason.clone());
            }
            self.lost.insert(looked.pack, looked);
        } else if looked.corrected > 0 {
            report.packs_corrected += 1;
        }
        self.progress.corrected = self.report.corrected;
        self.progress.uncorrected = self.report.uncorrected;
    }

    /// Packs that are known, or that files refer to, and that have no file.
    fn missing(&mut self, chosen: Option<&HashSet<PackId>>) -> Result<(), ScrubError> {
        if self.options.errors_only && !self.every {
            return Ok(());
        }
        let store = &self.core.store;
        let known = store.data_summaries().into_iter().map(|s| (s.pack, s.file_len));
        let known: HashMap<PackId, u64> = known.chain(store.metadata_packs(self.core.uuid)).collect();
        let there: HashSet<PackId> =
            list_packs(store.disk().as_ref())?.packs.into_iter().map(|(pack, _)| pack).collect();
        let wanted: Vec<PackId> = match chosen {
            Some(chosen) => chosen.iter().copied().collect(),
            None => {
                // The store knows of none that was gone when it was opened.
                let unknown = missing_packs(self.core)?.into_iter().filter(|pack| !known.contains_key(pack));
                known.keys().copied().chain(unknown).collect()
            }
        };
        for pack in wanted.into_iter().filter(|pack| !there.contains(pack)) {
            if known.contains_key(&pack) && is_dropped(store, pack) {
                continue;
            }
            // Its twin may be there.
            let found = look(&self.core.store, pack, (self.repair, self.options.deep), &mut |_| true);
            if let Some(looked) = found {
                self.report.packs_total += 1;
                self.report.total += looked.checked;
                self.count(looked);
                continue;
            }
            self.report.packs_uncorrected += 1;
            let len = known.get(&pack).copied().unwrap_or(1);
            self.damaged(path_of(&pack), 0, len, "the file is missing".into());
            let lost = Looked::lost(pack);
            self.see(&lost);
            self.lost.insert(pack, lost);
        }
        Ok(())
    }

    fn journal(&mut self) {
        if self.told(ScrubStep::Journal) {
            return;
        }
        let core = self.core;
        let health = self.repair.then(|| core.store.health());
        let mut go_on = || !self.told(ScrubStep::Journal);
        let found = match &core.log {
            Log::Writing(journal) => journal.reread(health, &mut go_on),
            Log::Reading(chain, shape) => reread(&chain.segments, shape, &mut go_on),
        };
        self.report.records = found.records;
        self.report.corrected += found.corrected;
        for BadBytes { path, offset, len, reason } in found.bad {
            self.damaged(path, offset, len, reason);
        }
    }

    /// An engine that fails is made anew by whoever looks.
    fn engine(&mut self) -> Result<(), ScrubError> {
        if self.told(ScrubStep::Engine) {
            return Ok(());
        }
        let core = self.core;
        each_page(core, &[], &[0xff], |page| {
            self.report.values += page.len() as u64;
            self.told(ScrubStep::Engine)
        })?;
        Ok(())
    }

    /// Names what is lost, however the run ended.
    fn names(&mut self) -> Result<(), ScrubError> {
        if self.lost.is_empty() {
            return Ok(());
        }
        self.told(ScrubStep::Naming);
        let lost = LostPlaces::of(self.core, &self.lost);
        let Affected { files, more } = affected::find(self.core, &lost)?;
        self.report.files = files;
        self.report.more |= more;
        Ok(())
    }

    /// Tells how far it is; whether to stop.
    fn told(&mut self, step: ScrubStep) -> bool {
        self.progress.step = step;
        let late = self.options.max_duration.is_some_and(|most| self.since.elapsed() >= most);
        // A run that looked at nothing would be followed by one that does not, either.
        let late = late && (self.report.packs > 0 || step != ScrubStep::Choosing);
        let asked = !(self.tell)(&self.progress) || self.core.signal.is_stopping();
        if asked {
            self.report.stopped = Some(ScrubStop::Asked);
        } else if late && self.report.stopped.is_none() {
            self.report.stopped = Some(ScrubStop::Time);
        }
        self.report.stopped.is_some()
    }
}

fn is_there(core: &Core, pack: &PackId) -> bool {
    core.store.disk().open(&cairn_store::pack_path(pack), Access::Read).is_ok()
}

/// Whether a pack that is not there is one that was dropped just now, or is about to be forgotten.
fn is_dropped(store: &Store, pack: PackId) -> bool {
    (0..20).any(|_| {
        let dropped = !store.knows(&pack) || store.reader(pack).is_ok();
        if !dropped {
            std::thread::sleep(Duration::from_millis(10));
        }
        dropped
    })
}

fn path_of(pack: &PackId) -> String {
    format!("store/{PACKS_DIR}/{}/{pack}.pack", pack.directory())
}
