//! Opening a volume: superblock, journal, checkpoint, engine, replay; then the first record of a new epoch.

use std::io;
use std::path::{Path, PathBuf};

use cairn_format::key::{self, Key, tag};
use cairn_format::{
    CheckpointRef, FileKind, FormatError, Ino, Inode, Lsn, Mutation, PieceKind, Totals, Uuid, View,
    VolumeState, VolumeSuperblock,
};
use cairn_store::disk::{Disk, FileDisk};
use cairn_store::heal::{HealMode, HealOutcome, HealPlace};
use cairn_store::{
    AcrossDir, Pins, Store, StoreError, StoreOptions, across_dirs, read_replicas, write_replicas,
};

use crate::ahead::Ahead;
use crate::checkpoint::{
    CheckpointChain, CheckpointState, FillError, MaintainError, fill_engine, load_chain, load_counts,
};
use crate::core::{Core, InoBlock, Log, OVERLAY_LIMIT, PackNames, first_ino_block, reserve_inos};
use crate::engine::{Engine, MetaEngine};
use crate::errseq::Losses;
use crate::fold::{BASES_LIMIT, Bases, DirtySet};
use crate::gc::Collector;
use crate::handles::Handles;
use crate::heal::LastNamed;
use crate::journal::{Chain, ChainError, Collected, Journal, JournalShape, Resume, scan, scan_unrestored};
use crate::layout::{ENGINE_DIR, LockHolder, VolumeLock, lock_volume, store_disk};
use crate::locks::InodeLocks;
use crate::maintenance::{Maintainer, Signal, maintain};
use crate::namespace::{Namespace, NamespaceError};
use crate::rebuild::{EngineKeeper, unseal};
use crate::reserve::Reserve;
use crate::scrub::suspect_lost;
use crate::space::SpaceGauge;
use crate::statistics::Counters;
use crate::suspect::Suspect;
use crate::sync::atomic::{AtomicBool, AtomicU32};
use crate::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use crate::twins::TwinMaker;
use crate::volume::{Usage, Volume};

mod options;

pub use options::{Dedup, EngineChoice, EngineSource, Listener, OpenError, OpenOn, OpenOptions, Takeover};
pub(crate) use options::{Writing, metadata_parity};

/// The first inode number given out; those below are kept.
const FIRST_INO: u64 = 16;

/// What replay may bring into memory: writers waited long before there was so much.
const REPLAY_LIMIT: usize = 3 * OVERLAY_LIMIT;

/// Opens the volume in a directory.
pub fn open(dir: &Path, mut options: OpenOptions) -> Result<Arc<Volume>, OpenError> {
    let name = dir.display().to_string();
    let disk = open_dir(dir)?;
    // Before the lock's file is made: a directory that is no volume stays as it is.
    read_superblock(&disk, &name)?;
    let on_wait = options.on_wait.take();
    let tell = |text: &str| {
        if let Some(f) = &on_wait {
            f(text)
        }
    };
    let holder = match &options.mountpoint {
        Some(at) => LockHolder::Mount(at.clone()),
        None => LockHolder::Other("looking at it"),
    };
    let lock = match options.takeover.as_mut().and_then(|takeover| takeover.lock.take()) {
        Some(held) => VolumeLock::take_over(dir, held, &holder)?,
        None => lock_volume(dir, &holder, options.wait, &tell)?,
    };
    let failed = |error: io::Error| OpenError::Failed { dir: name.clone(), reason: error.to_string() };
    let superblock = read_superblock(&disk, &name)?;
    let store = store_disk(dir, &superblock.store_path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => OpenError::Damaged { dir: name.clone(), reason: e.to_string() },
        _ => failed(e),
    })?;
    let engine = match (options.read_only, options.meta_engine) {
        (true, _) => EngineChoice::Memory,
        (false, MetaEngine::Redb) => EngineChoice::Redb(dir.join(ENGINE_DIR)),
        (false, MetaEngine::Sled) => EngineChoice::Sled(dir.join(ENGINE_DIR)),
    };
    let mut session = [0; 8];
    getrandom::fill(&mut session).map_err(|e| failed(io::Error::other(e.to_string())))?;
    let on = OpenOn {
        disk: Arc::new(disk),
        store,
        engine,
        background: true,
        session: u64::from_le_bytes(session),
        options,
        name,
    };
    open_locked(on, Some((lock, dir.to_owned())))
}

/// Opens a volume on any disk.
pub fn open_on(on: OpenOn) -> Result<Arc<Volume>, OpenError> {
    open_locked(on, None)
}

fn open_dir(dir: &Path) -> Result<FileDisk, OpenError> {
    let name = || dir.display().to_string();
    FileDisk::open(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            OpenError::NotAVolume { dir: name(), reason: error.to_string() }
        }
        _ => OpenError::Failed { dir: name(), reason: error.to_string() },
    })
}

/// A volume's superblock, from the newest replica that is whole.
pub fn read_superblock(disk: &dyn Disk, name: &str) -> Result<VolumeSuperblock, OpenError> {
    let replicas = read_replicas(disk, VolumeSuperblock::decode, |s| s.generation)
        .map_err(|error| store_error(name, error))?;
    for (path, reason) in &replicas.damaged {
        tracing::warn!("{name}: {path} cannot be used, its replica can: {reason}");
    }
    Ok(replicas.newest)
}

fn store_error(name: &str, error: StoreError) -> OpenError {
    let dir = name.to_owned();
    match error {
        StoreError::Superblock { error: newer @ FormatError::NewerVersion { .. }, .. } => {
            OpenError::Newer { dir, reason: newer.to_string() }
        }
        StoreError::Superblock { error: FormatError::BadMagic { .. }, path } => {
            OpenError::NotAVolume { dir, reason: format!("its {path} is not one of cairn's") }
        }
        StoreError::Io { error, path } if error.kind() == io::ErrorKind::NotFound => {
            OpenError::NotAVolume { dir, reason: format!("it has no {path}") }
        }
        StoreError::Io { error, path } => OpenError::Failed { dir, reason: format!("{path}: {error}") },
        other => OpenError::Damaged { dir, reason: other.to_string() },
    }
}

/// What replay found, before anything was written.
struct Found {
    superblock: VolumeSuperblock,
    shape: JournalShape,
    chain: Chain,
    tip: CheckpointRef,
    floor: Lsn,
    checkpoints: CheckpointChain,
    store: Store,
}

fn find(on: &OpenOn) -> Result<Found, OpenError> {
    let name = &on.name;
    let damaged = |reason: String| OpenError::Damaged { dir: name.clone(), reason };
    let superblock = read_superblock(&*on.disk, name)?;
    let geometry = superblock.geometry;
    let shape =
        JournalShape { volume: superblock.uuid, segment: geometry.segment, segments: geometry.segments };
    let options = StoreOptions {
        index_mem: on.options.index_mem,
        cache_size: on.options.cache_size,
        read_only: on.options.read_only,
    };
    let store =
        Store::open_healing(on.store.clone(), options, on.options.heal).map_err(|e| {
            match store_error(name, e) {
                OpenError::NotAVolume { reason, .. } => damaged(format!("its store: {reason}")),
                other => other,
            }
        })?;
    if store.uuid() != superblock.store {
        return Err(damaged(format!("its store is {}, not {}", store.uuid(), superblock.store)));
    }
    let (mut chain, error) = match on.options.heal {
        HealMode::Off => scan_unrestored(&*on.disk, &shape),
        HealMode::On | HealMode::ReadOnly => scan(&*on.disk, &shape),
    };
    let tip = superblock.checkpoint.max(chain.checkpoint.0);
    let clean = superblock.state == VolumeState::Clean && superblock.checkpoint == tip;
    let mut useless = false;
    let strict = !on.options.read_only && !on.options.past_damage;
    match error {
        None => {}
        // A clean volume's checkpoint holds everything.
        Some(ChainError::Damaged { .. }) if clean => useless = true,
        Some(error) if on.options.read_only => {
            tracing::error!("{name}: what follows cannot be shown: {error}")
        }
        Some(ChainError::Io { path, reason }) => {
            return Err(OpenError::Failed { dir: name.clone(), reason: format!("{path}: {reason}") });
        }
        Some(error) if on.options.past_damage => {
            tracing::warn!("{name}: what follows is given up: {error}")
        }
        Some(error) => return Err(damaged(error.to_string())),
    }
    if chain.files == 0 && !on.options.past_damage {
        return Err(damaged("its journal has no segments".into()));
    }
    if let Some(tail) = &chain.tail {
        tracing::info!("{name}: the journal ends behind record {}: {tail}", chain.last);
    }
    let checkpoints = match load_chain(&store, superblock.uuid, tip) {
        Ok(checkpoints) => checkpoints,
        Err(error) => return Err(damaged(error.to_string())),
    };
    let floor = checkpoints.entries.last().map_or(Lsn::ZERO, |e| e.floor);
    // Everything from the floor on must be there, or the volume would be older than it was.
    let complete = clean || chain.reaches(tip, floor);
    let short = !clean && chain.last < tip.lsn && chain.last != Lsn::ZERO;
    if (!complete || short) && strict {
        return Err(damaged(format!(
            "its journal holds records {} to {}, the checkpoint at {} needs those from {floor} on",
            chain.continues, chain.last, tip.lsn
        )));
    }
    // What is whole stays until it is trimmed: the next mount wants to see where this one began.
    if superblock.state == VolumeState::Mounted && chain.last.epoch() < superblock.epoch && strict {
        let (last, epoch) = (chain.last, superblock.epoch);
        return Err(damaged(format!("its journal ends at {last}, the records of mount {epoch} are missing")));
    }
    if useless {
        chain.discard();
    } else if chain.continues > tip.lsn {
        // Mounted read-only, or past damage. Without those in between, these records would make a state that never was.
        tracing::error!(
            "{name}: records {} to {} follow upon some that are missing",
            chain.continues,
            chain.last
        );
        chain.discard();
    }
    let reached = chain.last.max(tip.lsn);
    if let Some(lsn) = sealed_beyond(&store, superblock.uuid, &checkpoints, reached)
        && strict
    {
        return Err(damaged(format!("its journal ends at {reached}, but a checkpoint of {lsn} was written")));
    }
    Ok(Found { superblock, shape, chain, tip, floor, checkpoints, store })
}

/// A sealed checkpoint beyond the journal's end. The journal is certain up to a checkpoint before that is sealed: its
/// end is missing then, which a power cut never does.
fn sealed_beyond(store: &Store, volume: Uuid, used: &CheckpointChain, reached: Lsn) -> Option<Lsn> {
    let used = used.packs();
    let sealed = store.metadata_packs(volume).into_iter().filter(|(pack, _)| !used.contains(pack));
    let checkpoint = |pack| store.reader(pack).and_then(|r| r.footer()).ok()?.checkpoint;
    sealed.filter_map(|(pack, _)| Some(checkpoint(pack)?.lsn)).filter(|lsn| *lsn > reached).max()
}

fn open_locked(on: OpenOn, place: Option<(VolumeLock, PathBuf)>) -> Result<Arc<Volume>, OpenError> {
    let name = on.name.clone();
    let Found { mut superblock, shape, mut chain, tip, floor, checkpoints, store } = find(&on)?;
    for path in chain.restored() {
        let what = "records of it are damaged, and were read by way of its parity".to_owned();
        tracing::warn!("{name}: {path}: {what}");
        store.health().tell_of(HealPlace::Segment(path.into()), 0, what, HealOutcome::Answered);
    }
    if !on.options.read_only && store.health().mode() == HealMode::On {
        chain.write_back(store.health());
    }
    let failed = |reason: String| OpenError::Failed { dir: name.clone(), reason };
    let damaged = |reason: String| OpenError::Damaged { dir: name.clone(), reason };
    let source = on.engine.source();
    let whole = place.as_ref().is_some_and(|(_, dir)| !on.options.read_only && unseal(&dir.join(ENGINE_DIR)));
    let engine = filled_engine(&source, &store, &checkpoints, whole).map_err(|e| match e {
        MaintainError::Chain(error) => damaged(error.to_string()),
        other => failed(other.to_string()),
    })?;
    let ns = Namespace::new(engine);
    let dirty = DirtySet::default();
    let mut pins = Pins::default();
    let since = on.options.takeover.as_ref().map_or(u32::MAX, |takeover| takeover.first_epoch);
    let mut answers = Collected::since(since);
    replay(&chain, &shape, (tip, floor), &ns, &dirty, &store, &mut pins, &mut answers)
        .map_err(|e| damaged(e.to_string()))?;
    if ns.overlay_bytes().0 > REPLAY_LIMIT {
        return Err(damaged("its journal holds more than a mount ever leaves in one".into()));
    }
    let continues = chain.last.max(tip.lsn);

    let next = match ns.get(&Key::NextInode).map_err(|e| failed(e.to_string()))? {
        Some(value) => value.try_into().map_or(0, u64::from_le_bytes),
        None => FIRST_INO,
    };
    if !(FIRST_INO..=Ino::MAX.0).contains(&next) {
        return Err(damaged(format!("the next inode would have number {next}, which none can have")));
    }
    let kept = Reserve::find(&*on.disk, &superblock.geometry);
    let least = u64::from(superblock.geometry.segment) * 3 / 2;
    if !on.options.read_only && on.disk.space().is_ok_and(|space| space.available < least) {
        kept.release(&*on.disk);
    }
    let mut inos = InoBlock { next, end: next };
    let mut epoch = superblock.epoch;
    let log = if on.options.read_only {
        Log::Reading(Box::new(chain), shape)
    } else {
        let highest = superblock.epoch.max(chain.highest_epoch).max(store.highest_epoch());
        epoch = highest.max(continues.epoch()).saturating_add(1);
        if epoch > Lsn::EPOCH_MAX {
            return Err(failed("it was mounted more often than its format can count".into()));
        }
        // Certain before the first record: no two mounts ever share an epoch.
        superblock.epoch = epoch;
        superblock.generation = superblock.generation.saturating_add(1);
        superblock.state = VolumeState::Mounting;
        superblock.checkpoint = tip;
        write_replicas(&*on.disk, &superblock.encode()).map_err(|e| failed(e.to_string()))?;
        inos = first_ino_block(next);
        let first = [reserve_inos(inos.end)];
        let resume = Resume { epoch, continues, checkpoint: tip, floor };
        let (journal, at) = Journal::resume(on.disk.clone(), shape, chain, &resume, &first, answers.finish())
            .map_err(|e| failed(e.to_string()))?;
        // From here on a journal without this epoch's records has lost them.
        superblock.generation = superblock.generation.saturating_add(1);
        superblock.state = VolumeState::Mounted;
        write_replicas(&*on.disk, &superblock.encode()).map_err(|e| failed(e.to_string()))?;
        ns.apply(&first, &at);
        Log::Writing(Box::new(journal))
    };
    let mut state = CheckpointState::new(tip, &checkpoints, Totals::default());
    state.pins.push((continues, pins));
    if !on.options.read_only {
        suspect_lost(&store);
    }
    let bases = store.load_bases(BASES_LIMIT).map_or_else(Bases::default, |table| Bases::of(&table));
    let core = Core {
        disk: on.disk,
        uuid: superblock.uuid,
        view: View::LIVE,
        geometry: superblock.geometry,
        store,
        log,
        ns,
        locks: InodeLocks::new(),
        handles: Handles::default(),
        dirty,
        losses: Losses::new(epoch),
        inos: Mutex::new(inos),
        packs: PackNames { session: on.session, epoch, next: AtomicU32::new(1) },
        gate: RwLock::default(),
        maintainer: Mutex::new(Maintainer::new(CheckpointState::new(tip, &checkpoints, Totals::default()))),
        signal: Signal::default(),
        engine: EngineKeeper::new(source, tip),
        totals: Mutex::default(),
        background: on.background && !on.options.read_only,
        space: SpaceGauge::default(),
        writing: Writing {
            compression: on.options.compression.unwrap_or(superblock.geometry.compression),
            dedup: on.options.dedup,
            tensors: on.options.tensors,
            tensor_delta: on.options.tensors && on.options.tensor_delta,
            parity: on.options.parity.unwrap_or(superblock.geometry.parity),
        },
        batches: on.options.batches.clone(),
        counters: Counters::default(),
        on_folded: OnceLock::new(),
        on_concluded: OnceLock::new(),
        kept,
        twins: TwinMaker::default(),
        collector: Collector::new(on.options.collect),
        bases,
        ahead: Ahead::new(on.options.cache_size),
        last_named: LastNamed::default(),
        scrubber: Default::default(),
        refiller: Default::default(),
        first_new: next,
        capabilities: AtomicBool::new(false),
        tree: Mutex::new(()),
        suspect: Suspect::default(),
    };
    load_counts(&core, &mut state).map_err(|e| failed(e.to_string()))?;
    core.settle_lone_twins(&state);
    core.want_twins(&state);
    *core.maintainer.lock().unwrap_or_else(PoisonError::into_inner) = Maintainer::new(state);
    drop_leftover_metadata(&core, &checkpoints);
    if core.journal().is_ok() {
        make_room(&core);
        make_root(&core, tip).map_err(|e| failed(e.to_string()))?;
        let orphans = orphans(&core);
        match on.options.takeover {
            // Programs have them open still.
            Some(_) => orphans.into_iter().for_each(|ino| core.handles.keep(ino)),
            None => remove_orphans(&core, &orphans),
        }
    }
    Ok(Volume::start(Arc::new(core), superblock, place))
}

/// An engine that holds the newest checkpoint. What it holds already is used where it is one of the
/// chain's; one that errs, or stands anywhere else, is made anew. Unless it is known to be `whole`, all of it is looked
/// through.
fn filled_engine(
    source: &EngineSource,
    store: &Store,
    checkpoints: &CheckpointChain,
    whole: bool,
) -> Result<Arc<dyn Engine>, MaintainError> {
    let reuse = || -> Result<Option<Arc<dyn Engine>>, String> {
        let engine = source(false).map_err(|e| e.to_string())?;
        let stands = engine.position().map_err(|e| e.to_string())?;
        let known = checkpoints.entries.iter().any(|e| Some(e.at) == stands);
        if stands.is_some() && !known {
            return Err("it does not stand at any of the volume's checkpoints".into());
        }
        if known && !whole {
            verify_engine(&*engine)?;
        }
        fill_engine(store, checkpoints, &*engine).map_err(|e| e.to_string())?;
        Ok(Some(engine))
    };
    match reuse() {
        Ok(Some(engine)) => return Ok(engine),
        Ok(None) => {}
        Err(reason) => tracing::warn!("the engine is rebuilt from the metadata packs: {reason}"),
    }
    new_engine(source, store, checkpoints)
}

/// An engine made anew, filled with the newest checkpoint.
pub(crate) fn new_engine(
    source: &EngineSource,
    store: &Store,
    checkpoints: &CheckpointChain,
) -> Result<Arc<dyn Engine>, MaintainError> {
    let engine = source(true).map_err(NamespaceError::from)?;
    match fill_engine(store, checkpoints, &*engine) {
        Ok(()) => Ok(engine),
        Err(FillError::Engine(error)) => Err(NamespaceError::from(error).into()),
        Err(FillError::Chain(error)) => Err(error.into()),
    }
}

/// Goes through all an engine holds: each value against its checksum, and inodes against their number, so that
/// damage is found by the mount rather than by whoever looks a file up. About 0.3 us a key.
fn verify_engine(engine: &dyn Engine) -> Result<(), String> {
    let mut inodes = 0;
    let all = engine.scan(&[], &[0xff], &mut |key, _| {
        inodes += u64::from(key.first() == Some(&tag::INODE));
        std::ops::ControlFlow::Continue(())
    });
    all.map_err(|e| e.to_string())?;
    let totals = engine.get(&Key::Totals.encode()).map_err(|e| e.to_string())?;
    let counted = totals.map(|value| Totals::decode(&value)).transpose().map_err(|e| e.to_string())?;
    match counted.unwrap_or_default().inodes {
        counted if counted == inodes => Ok(()),
        counted => Err(format!("it holds {inodes} inodes of {counted}")),
    }
}

/// Brings the overlay to where the journal ends, and notes what has to be folded, and what may not be answered.
#[expect(clippy::too_many_arguments, reason = "what a volume is made of, before there is one")]
fn replay(
    chain: &Chain,
    shape: &JournalShape,
    (tip, floor): (CheckpointRef, Lsn),
    ns: &Namespace,
    dirty: &DirtySet,
    store: &Store,
    pins: &mut Pins,
    answers: &mut Collected,
) -> Result<(), ChainError> {
    chain.records(shape, |record| {
        let lsn = record.at.lsn;
        answers.add(lsn, record.owed, record.answer);
        for mutation in record.mutations {
            // A run in a record before the checkpoint may be named by its state still, but for those below its
            // floor; the fold finds out.
            if lsn >= floor {
                dirty.note_mutation(mutation, lsn, floor);
            }
            if let Mutation::Map { pieces, .. } = mutation {
                // Until a checkpoint counts these references, nothing else keeps the packs.
                for piece in pieces {
                    if let PieceKind::Chunk(chunk) = piece.kind {
                        chunk.places().for_each(|place| store.pin(&place.pack, pins));
                    }
                }
            }
        }
        if lsn > tip.lsn {
            for mutation in record.mutations {
                // No mount leaves so much; who opens it hears of that afterwards.
                if ns.overlay_bytes().0 <= REPLAY_LIMIT {
                    ns.apply(std::slice::from_ref(mutation), &record.at);
                }
            }
        }
    })
}

/// Removes metadata packs that a crash left between their seal and their use, or their disuse and removal.
fn drop_leftover_metadata(core: &Core, checkpoints: &CheckpointChain) {
    if core.journal().is_err() {
        return;
    }
    let used = checkpoints.packs();
    for (pack, _) in core.store.metadata_packs(core.uuid) {
        if !used.contains(&pack)
            && let Err(error) = core.store.drop_pack(&pack)
        {
            tracing::warn!("a superseded metadata pack could not be removed: {error}");
        }
    }
}

/// A mount takes a segment of its own, and replay fills the overlay: what mounts before it left is folded before anybody
/// waits for room. Where that fails, the volume is mounted all the same.
fn make_room(core: &Core) {
    while core.is_pressed() && matches!(maintain(core, true), Ok(true)) {}
}

/// A new volume gets its root directory.
fn make_root(core: &Core, tip: CheckpointRef) -> Result<(), crate::Error> {
    let key = Key::Inode(Ino::ROOT, core.view);
    if core.get(&key)?.is_some() || tip != CheckpointRef::NONE {
        return Ok(());
    }
    let time = crate::vfs::now();
    let root = Inode {
        mode: FileKind::Directory.mode() | 0o755,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        nlink: 2,
        rdev: 0,
        generation: core.packs.epoch,
        size: 0,
        parent: Ino::ROOT,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        stored: 0,
    };
    core.commit(&[Mutation::Put { key: key.encode(), value: root.encode() }], &[]).map(|_| ())
}

/// Files that were open without a name when the last mount ended.
fn orphans(core: &Core) -> Vec<Ino> {
    let (from, to) = key::all_tagged(tag::ORPHAN);
    let mut orphans = Vec::new();
    let listed = core.for_each(&from, &to, |key, _| {
        if let Some(Key::Orphan(ino, view)) = Key::decode(key)
            && view == core.view
        {
            orphans.push(ino);
        }
        std::ops::ControlFlow::Continue(())
    });
    if let Err(error) = listed {
        tracing::warn!("orphans stay until the next mount: {error}");
    }
    orphans
}

fn remove_orphans(core: &Core, orphans: &[Ino]) {
    for some in orphans.chunks(64) {
        if let Err(error) = core.remove_orphans(some) {
            tracing::warn!("{} inodes without a name stay until the next mount: {error}", some.len());
        }
    }
}

/// The superblock of the volume in a directory, mounted or not: it is replaced whole, so no lock is needed.
pub fn superblock(dir: &Path) -> Result<VolumeSuperblock, OpenError> {
    read_superblock(&open_dir(dir)?, &dir.display().to_string())
}

/// Stored bytes at which packs of the volume in a directory are sealed, mounted or not.
pub fn pack_size(dir: &Path) -> Result<u64, OpenError> {
    let name = dir.display().to_string();
    let store = store_disk(dir, &superblock(dir)?.store_path)
        .map_err(|e| OpenError::Failed { dir: name.clone(), reason: e.to_string() })?;
    let found = Store::superblock_of(&*store).map_err(|error| store_error(&name, error))?;
    Ok(found.newest.pack_size.into())
}

/// The directories on other disks that packs of the volume in a directory have second copies in, mounted or not.
pub fn across(dir: &Path) -> Result<Vec<AcrossDir>, OpenError> {
    let name = dir.display().to_string();
    let superblock = superblock(dir)?;
    let store = store_disk(dir, &superblock.store_path)
        .map_err(|e| OpenError::Failed { dir: name.clone(), reason: e.to_string() })?;
    across_dirs(&*store, superblock.store).map_err(|error| store_error(&name, error))
}

/// What a volume that nobody has mounted takes up.
pub fn usage_offline(dir: &Path) -> Result<Usage, OpenError> {
    let options =
        OpenOptions { read_only: true, index_mem: 1 << 16, cache_size: 1 << 20, ..OpenOptions::default() };
    Ok(open(dir, options)?.usage())
}
