//! The engine, compared with the checkpoint that it says it holds. Looked at in a copy: opening it may
//! write.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use cairn_format::key::Key;
use cairn_store::Store;
use cairn_store::disk::{Disk, FileDisk};
use cairn_volume::engine::{EngineError, MetaEngine};
use cairn_volume::{ChainReadError, CheckpointChain, ENGINE_DIR};

use crate::CheckError;
use crate::namespace::{Record, StateCursor, hex};
use crate::progress::Progress;
use crate::report::{CheckTotals, Finding, Findings};

const CACHE: usize = 32 << 20;
/// Differences that are told one by one.
const DIFFERENCES_MAX: u64 = 20;
/// Kept free where the engine is copied to.
const SPARE: u64 = 64 << 20;
/// Keys between two looks at whether to stop.
const PAUSE: u64 = 4096;
const REBUILD: &str =
    "delete the directory engine while the volume is not mounted: the next mount rebuilds it";

/// Compares the engine in `dir` with the newest checkpoint, if it stands there.
pub(crate) fn check_engine(
    dir: &Path,
    scratch: Option<&Path>,
    store: &Store,
    checkpoints: &CheckpointChain,
    totals: &mut CheckTotals,
    findings: &mut Findings,
    progress: &dyn Progress,
) -> Result<(), CheckError> {
    progress.step("engine");
    let info = |what: String| Finding::info("engine", what).file(ENGINE_DIR);
    let kind = MetaEngine::of_dir(dir).unwrap_or_default();
    if !kind.is_built() {
        findings.push(info(format!(
            "it is {kind}'s, which this build of fsck.cairn cannot read (it takes the cargo feature `{kind}`), and was \
             not checked; it is only a cache: a mount checks it, or rebuilds it"
        )));
        return Ok(());
    }
    if !kind.was_closed(dir) {
        findings.push(info(format!("{kind} was not closed: the next mount rebuilds it")));
        return Ok(());
    }
    let copy = match copied(dir, scratch) {
        Ok(Some(copy)) => copy,
        Ok(None) => {
            findings.push(info("there is no engine; the next mount rebuilds it".into()));
            return Ok(());
        }
        Err(reason) => {
            findings.push(info(format!("it was not compared with the checkpoint: {reason}")));
            return Ok(());
        }
    };
    let stands = kind.open(copy.path(), CACHE, false).and_then(|engine| Ok((engine.position()?, engine)));
    let (position, engine) = match stands {
        Ok(found) => found,
        Err(error) => {
            findings.push(unusable(&error));
            return Ok(());
        }
    };
    let newest = checkpoints.entries.last().map(|entry| entry.at);
    if position != newest {
        let known = checkpoints.entries.iter().any(|entry| Some(entry.at) == position);
        let what = match (position, known) {
            (None, _) => "it is empty; the next mount fills it".to_owned(),
            (Some(at), true) => {
                format!("it stands at the checkpoint at {}; the next mount brings it on", at.lsn)
            }
            (Some(at), false) => {
                format!(
                    "it stands at {}, which is none of the checkpoints; the next mount rebuilds it",
                    at.lsn
                )
            }
        };
        findings.push(info(what));
        return Ok(());
    }
    let mut comparison = match Comparison::new(store, checkpoints, findings, progress) {
        Ok(comparison) => comparison,
        // The walk through the namespace finds the same, and tells of it.
        Err(_) => return Ok(()),
    };
    let scanned = engine.scan(&[], &[0xff], &mut |key, value| comparison.key(key, value));
    let keys = comparison.finish(scanned.is_ok());
    totals.engine_records = keys;
    if let Err(error) = scanned {
        findings.push(unusable(&error));
    }
    if progress.is_cancelled() { Err(CheckError::Cancelled) } else { Ok(()) }
}

fn unusable(error: &EngineError) -> Finding {
    Finding::cache("engine", format!("it cannot be used: {error}")).file(ENGINE_DIR).advice(REBUILD)
}

/// A copy of the engine, which goes when it is dropped; none where there is no engine.
fn copied(dir: &Path, scratch: Option<&Path>) -> Result<Option<tempfile::TempDir>, String> {
    let named = |path: &Path, e: io::Error| format!("{}: {e}", path.display());
    let disk = match FileDisk::open(dir) {
        Ok(disk) => disk,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(named(dir, e)),
    };
    let mut files = Vec::new();
    let mut dirs = Vec::new();
    list(&disk, "", (&mut files, &mut dirs)).map_err(|e| named(dir, e))?;
    if files.is_empty() {
        return Ok(None);
    }
    let need = files.iter().map(|(_, len)| len).sum::<u64>() + SPARE;
    let places = match scratch {
        Some(place) => vec![place.to_owned()],
        None => vec![std::env::temp_dir(), PathBuf::from("/var/tmp")],
    };
    let has_room = |place: &PathBuf| {
        FileDisk::open(place).and_then(|disk| disk.space()).is_ok_and(|space| space.available >= need)
    };
    let Some(place) = places.iter().find(|place| has_room(place)) else {
        return Err(format!("no room for a copy of {need} bytes in {}", places[0].display()));
    };
    let copy =
        tempfile::Builder::new().prefix("fsck-cairn-").tempdir_in(place).map_err(|e| named(place, e))?;
    for name in dirs {
        std::fs::create_dir(copy.path().join(&name)).map_err(|e| named(&copy.path().join(&name), e))?;
    }
    for (name, _) in files {
        std::fs::copy(dir.join(&name), copy.path().join(&name)).map_err(|e| named(&dir.join(&name), e))?;
    }
    Ok(Some(copy))
}

/// The files, with their lengths, and the directories below `at`, each behind the one it is in.
fn list(disk: &FileDisk, at: &str, out: (&mut Vec<(String, u64)>, &mut Vec<String>)) -> io::Result<()> {
    let (files, dirs) = out;
    for listed in disk.list(at)? {
        let path = if at.is_empty() { listed.name } else { format!("{at}/{}", listed.name) };
        if listed.is_dir {
            dirs.push(path.clone());
            list(disk, &path, (files, dirs))?;
        } else {
            files.push((path, listed.len));
        }
    }
    Ok(())
}

/// The checkpoint's state, on its way beside the engine's.
struct Comparison<'a> {
    state: StateCursor<'a>,
    ahead: Option<Record>,
    unreadable: bool,
    keys: u64,
    differences: u64,
    findings: &'a mut Findings,
    progress: &'a dyn Progress,
}

impl<'a> Comparison<'a> {
    fn new(
        store: &'a Store,
        checkpoints: &CheckpointChain,
        findings: &'a mut Findings,
        progress: &'a dyn Progress,
    ) -> Result<Self, ChainReadError> {
        let mut state = StateCursor::new(store, checkpoints)?;
        let ahead = state.next()?;
        Ok(Comparison { state, ahead, unreadable: false, keys: 0, differences: 0, findings, progress })
    }

    fn next(&mut self) -> Option<Record> {
        let next = self.state.next().unwrap_or_else(|_| {
            self.unreadable = true;
            None
        });
        std::mem::replace(&mut self.ahead, next)
    }

    fn key(&mut self, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        self.keys += 1;
        while self.ahead.as_ref().is_some_and(|(ahead, _)| ahead.as_slice() < key) {
            if let Some((missing, _)) = self.next() {
                self.differs(&missing, "it lacks");
            }
        }
        match self.ahead.as_ref().filter(|(ahead, _)| ahead == key) {
            None if self.unreadable => return ControlFlow::Break(()),
            None => self.differs(key, "the checkpoint lacks"),
            Some((_, expected)) => {
                if expected != value {
                    self.differs(key, "it has another value than the checkpoint for");
                }
                self.next();
            }
        }
        let stops = self.keys.is_multiple_of(PAUSE) && self.progress.is_cancelled();
        if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Tells of what is left in the checkpoint if the engine's end was reached; gives the keys compared.
    fn finish(mut self, reached_end: bool) -> u64 {
        if reached_end && !self.unreadable && !self.progress.is_cancelled() {
            while let Some((missing, _)) = self.next() {
                self.differs(&missing, "it lacks");
            }
        }
        if self.differences > DIFFERENCES_MAX {
            let what = format!("it differs from the checkpoint in {} records altogether", self.differences);
            self.findings.push(Finding::cache("engine", what).file(ENGINE_DIR).advice(REBUILD));
        }
        self.keys
    }

    fn differs(&mut self, key: &[u8], how: &str) {
        self.differences += 1;
        if self.differences > DIFFERENCES_MAX {
            return;
        }
        let decoded = Key::decode(key);
        let what = match &decoded {
            Some(key) => format!("{how} {key:?}"),
            None => format!("{how} the key {}", hex(key)),
        };
        let finding = Finding::cache("engine", what).file(ENGINE_DIR).advice(REBUILD);
        self.findings.push(match decoded {
            Some(
                Key::Inode(ino, _)
                | Key::Extent(ino, ..)
                | Key::Target(ino, _)
                | Key::Xattr(ino, ..)
                | Key::Name(ino, ..)
                | Key::Order(ino, ..)
                | Key::Orphan(ino, _),
            ) => finding.inode(ino),
            _ => finding,
        });
    }
}
