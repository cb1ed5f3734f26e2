//! The engine on sled: a log-structured tree in a directory.
//!
//! sled has no snapshots, its flush waits for no disk, and files that a crash or a bad disk left it may open with keys
//! missing, if it does not panic (docs/adr/0006-engines.md). So little is asked of it:
//!
//! - It only ever opens what it closed: [`SledEngine::close`] leaves a seal, a checksum over all of its files, and an
//!   engine without one, or whose files are not those that were sealed, is an error. That makes durability nobody's
//!   business, and `apply` atomic across crashes: whatever one interrupts is filled anew.
//! - While `apply` runs it is noted what it overwrites, so that readers go on in the state they began with, and that
//!   an iterator that panics leaves nothing behind. From an engine's first `apply`, the only one that may be too large for
//!   that, nothing needs to be noted.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use ::sled::{Config, Db, Error};
use cairn_format::{CheckpointRef, Lsn, PackId};

use super::guarded::{Contained, Guarded};
use super::kind::{SLED_FILES, SLED_SEAL};
use super::{Change, Engine, EngineError, Visit};

const NAME: &str = "sled";
/// Keys that a scan takes at once: at first, and at most. Most scans end within a few.
const PAGE_FIRST: usize = 16;
const PAGE_MOST: usize = 512;
const SEAL_LEN: usize = 56;
const SEAL_CONTEXT: &str = "cairn 2026-11-21 the files of a sled engine";
/// How often, and how long each time, `close` waits for sled's threads to let go of its file.
const LET_GO: (u32, Duration) = (300, Duration::from_millis(10));

/// An engine in the directory `sled` of a directory.
pub struct SledEngine {
    guarded: Guarded<Error>,
    dir: PathBuf,
    /// `None` once it is closed.
    db: RwLock<Option<Contained<Db>>>,
    newest: RwLock<Arc<State>>,
    applying: Mutex<()>,
}

/// One state that the engine is or was in. While somebody holds it, all that was applied since can be undone in what
/// they read.
struct State {
    /// Without one the state is the empty one.
    position: Option<CheckpointRef>,
    /// What the keys, that the apply which leads away from it changed, were before. Noted before they are changed.
    overwritten: RwLock<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// Where that apply led. Set before anything changes behind it.
    next: OnceLock<Arc<State>>,
}

impl SledEngine {
    /// Opens the engine in `dir` as [`Engine::close`] left it, or makes an empty one where there is none. sled's cache
    /// takes up to `cache_bytes` bytes.
    pub fn open(dir: &Path, cache_bytes: usize) -> Result<Self, EngineError> {
        let guarded = Guarded::new(NAME);
        let files = dir.join(SLED_FILES);
        let (position, db) = guarded.call(|| {
            let position = unseal(dir)?;
            let config = Config::new().path(&files).cache_capacity(cache_bytes as u64).flush_every_ms(None);
            Ok((position, Contained::new(config.open()?)))
        })?;
        Ok(SledEngine {
            guarded,
            dir: dir.to_owned(),
            db: RwLock::new(Some(db)),
            newest: RwLock::new(Arc::new(State::at(position))),
            applying: Mutex::new(()),
        })
    }

    /// As if sled had failed.
    #[cfg(test)]
    pub(super) fn fail(&self, reason: &'static str) {
        let _ = self.call(|_| Err::<(), _>(Error::Unsupported(reason.into())));
    }

    fn newest(&self) -> Arc<State> {
        // Only a whole state is ever put in, so that a poisoned lock's is good.
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn call<T>(&self, call: impl FnOnce(&Db) -> Result<T, Error>) -> Result<T, EngineError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        match &*db {
            Some(db) => self.guarded.call(|| call(db)),
            None => Err(self.guarded.failure("it is closed".into())),
        }
    }

    fn stored(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.call(|db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn store(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), EngineError> {
        self.call(|db| match value {
            Some(value) => db.insert(key, value).map(drop),
            None => db.remove(key).map(drop),
        })
    }

    /// The first keys in a range of a state, `most` or so of them, and the last one's key if there may be more.
    fn page(&self, state: &State, from: Bound<&[u8]>, to: &[u8], most: usize) -> Result<Page, EngineError> {
        let mut found = BTreeMap::new();
        self.call(|db| {
            for entry in db.range::<&[u8], _>((from, Bound::Excluded(to))).take(most) {
                let (key, value) = entry?;
                found.insert(key.to_vec(), value.to_vec());
            }
            Ok(())
        })?;
        let full = found.len() == most;
        let last = found.keys().next_back().filter(|_| full).cloned();
        let until = last.as_deref().map_or(Bound::Excluded(to), Bound::Included);
        state.restore(&mut found, (from, until));
        Ok((found, last))
    }

    /// Undoes what an apply did that does not go on. What was noted stays, for readers that found what is undone.
    fn undo(&self, state: &State) {
        let undone = match state.position {
            None => self.call(|db| db.clear()),
            Some(_) => {
                state.overwritten().iter().try_for_each(|(key, value)| self.store(key, value.as_deref()))
            }
        };
        // Where sled failed, it is not asked again: nobody sees what is left.
        drop(undone);
    }

    /// Seals the files that sled has let go of.
    fn seal(&self) -> io::Result<()> {
        let Some(position) = self.newest().position else { return Ok(()) };
        wait_until_released(&self.dir.join(SLED_FILES).join("db"))?;
        let seal = seal_of(&self.dir.join(SLED_FILES), position)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.dir.join(SLED_SEAL))?;
        // Not synced, and neither are the files: what a power cut takes of them shows.
        file.write_all(&seal)
    }
}

/// Keys with their values, and where to go on, if there may be more.
type Page = (BTreeMap<Vec<u8>, Vec<u8>>, Option<Vec<u8>>);

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let state = self.newest();
        // In this order: what changed the value that is found was noted before.
        let found = self.stored(key)?;
        Ok(state.before(key, found))
    }

    fn scan(&self, from: &[u8], to: &[u8], each: Visit<'_>) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        let state = self.newest();
        let (mut after, mut most): (Option<Vec<u8>>, _) = (None, PAGE_FIRST);
        loop {
            let bound = after.as_deref().map_or(Bound::Included(from), Bound::Excluded);
            let (page, last) = self.page(&state, bound, to, most)?;
            if page.iter().any(|(key, value)| each(key, value).is_break()) {
                return Ok(());
            }
            let Some(last) = last else { return Ok(()) };
            (after, most) = (Some(last), PAGE_MOST.min(most * 4));
        }
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = Change>, at: CheckpointRef) -> Result<(), EngineError> {
        let _one = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.newest();
        self.call(|_| Ok(()))?;
        let unfinished = Unfinished { engine: self, state: &state };
        for (key, value) in changes {
            if state.position.is_some() {
                let before = self.stored(&key)?;
                state.overwritten_mut().insert(key.clone(), before);
            }
            self.store(&key, value.as_deref())?;
        }
        std::mem::forget(unfinished);
        let next = Arc::new(State::at(Some(at)));
        // One thread applies, so that it cannot have been set.
        let _ = state.next.set(Arc::clone(&next));
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn position(&self) -> Result<Option<CheckpointRef>, EngineError> {
        self.call(|_| Ok(self.newest().position))
    }

    fn close(&self) {
        let _one = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = self.db.write().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let flushed = self.guarded.call(|| db.flush());
        drop(db);
        let sealed = flushed.map_err(|e| e.to_string()).and_then(|_| self.seal().map_err(|e| e.to_string()));
        if let Err(reason) = sealed {
            tracing::warn!("the next mount fills the sled engine anew: {reason}");
        }
    }
}

impl State {
    fn at(position: Option<CheckpointRef>) -> State {
        State { position, overwritten: RwLock::default(), next: OnceLock::new() }
    }

    fn overwritten(&self) -> RwLockReadGuard<'_, BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        self.overwritten.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn overwritten_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        self.overwritten.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// This state and those that followed.
    fn onwards(&self) -> impl Iterator<Item = &State> {
        std::iter::successors(Some(self), |state| state.next.get().map(|next| &**next))
    }

    /// The value that a key has in this state: now, or in a later one, it was `found`.
    fn before(&self, key: &[u8], found: Option<Vec<u8>>) -> Option<Vec<u8>> {
        for state in self.onwards() {
            // Nothing has a value in the empty state.
            state.position?;
            if let Some(before) = state.overwritten().get(key) {
                return before.clone();
            }
        }
        found
    }

    /// As [`State::before`], for all keys of a range.
    fn restore(&self, found: &mut BTreeMap<Vec<u8>, Vec<u8>>, range: (Bound<&[u8]>, Bound<&[u8]>)) {
        let states: Vec<_> = self.onwards().collect();
        for state in states.into_iter().rev() {
            if state.position.is_none() {
                found.clear();
            }
            for (key, before) in state.overwritten().range::<[u8], _>(range) {
                match before {
                    Some(value) => found.insert(key.clone(), value.clone()),
                    None => found.remove(key),
                };
            }
        }
    }
}

/// An apply on its way; dropped where the changes' iterator panics, or sled fails.
struct Unfinished<'a> {
    engine: &'a SledEngine,
    state: &'a State,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.engine.undo(self.state);
    }
}

/// Breaks the seal, if it is that of the files there; gives the position it names. Where there is neither seal nor file
/// a directory is made for them.
fn unseal(dir: &Path) -> io::Result<Option<CheckpointRef>> {
    let (files, path) = (dir.join(SLED_FILES), dir.join(SLED_SEAL));
    let position = match std::fs::symlink_metadata(&files) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).create(&files)?;
            None
        }
        Err(error) => return Err(error),
        Ok(_) => {
            let mut seal = Vec::new();
            match File::open(&path) {
                Ok(file) => file.take(SEAL_LEN as u64 + 1).read_to_end(&mut seal)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(io::Error::other("it was not closed"));
                }
                Err(e) => return Err(e),
            };
            Some(sealed_position(&files, &seal)?)
        }
    };
    // Before anything is written: from here on they are other files.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(position),
    }
}

/// The position in a seal, if it is that of these files.
fn sealed_position(files: &Path, seal: &[u8]) -> io::Result<CheckpointRef> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its files are not those that it closed");
    let (lsn, rest) = seal.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (pack, _) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
    let position = CheckpointRef { lsn: Lsn(u64::from_le_bytes(*lsn)), pack: PackId(*pack) };
    match seal_of(files, position)? == seal {
        true => Ok(position),
        false => Err(damaged()),
    }
}

/// The LSN, little-endian, the pack's id, and a BLAKE3-256 of both and of the names, lengths and bytes of all files.
fn seal_of(files: &Path, position: CheckpointRef) -> io::Result<[u8; SEAL_LEN]> {
    let mut seal = [0; SEAL_LEN];
    seal[..8].copy_from_slice(&position.lsn.0.to_le_bytes());
    seal[8..24].copy_from_slice(&position.pack.0);
    let mut hasher = blake3::Hasher::new_derive_key(SEAL_CONTEXT);
    hasher.update(&seal[..24]);
    let mut paths = Vec::new();
    list(files, &mut paths)?;
    paths.sort();
    let mut buffer = vec![0; 1 << 20];
    for path in paths {
        let name = path.strip_prefix(files).unwrap_or(&path).as_os_str().as_bytes();
        let mut file = File::open(&path)?;
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        hasher.update(&file.metadata()?.len().to_le_bytes());
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            };
        }
    }
    seal[24..].copy_from_slice(hasher.finalize().as_bytes());
    Ok(seal)
}

/// The files below a directory. sled makes no links: who follows none is led nowhere.
fn list(dir: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        match (kind.is_dir(), kind.is_file()) {
            (true, _) => list(&entry.path(), paths)?,
            (_, true) => paths.push(entry.path()),
            _ => return Err(io::Error::other(format!("{} is not a file", entry.path().display()))),
        }
    }
    Ok(())
}

/// Returns when none of sled's threads has its file open any more: they hold a lock on it.
fn wait_until_released(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let (times, pause) = LET_GO;
    for _ in 0..times {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(pause),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other("its threads do not let go of its files"))
}
