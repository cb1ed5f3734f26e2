//! Putting back what a repair kept: the volume is then what it was before the repair, as far as a check sees.
//!
//! What is not put back: damage of packs that was mended, packs that were not finished, a copy of a superblock that was missing,
//! and caches, which are made anew.
//!
//! Architecture Invariant: until both replicas of the superblock are what they were, the repaired state counts, and afterwards the
//! state before; a mount sees one of both, or is refused. So this may be killed anywhere, and is run again. Nothing is removed but
//! caches: what the repair made is moved to the directory that what it kept is in.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_format::{PackId, PackKind, VolumeSuperblock};
use cairn_store::disk::{Access, Disk, read_small, replace_small};
use cairn_store::{INDEX_PATH, PACKS_DIR, PackReader, Place, REPLICA_PATHS, list_packs, pack_path};
use cairn_volume::journal::JOURNAL_DIR;
use cairn_volume::{ENGINE_DIR, SUSPECT_PATH};

use super::undo::{AFTER, BEFORE, Before, INCOMPLETE, UNDO_DIR, flat, newest, parent};
use crate::{CheckError, Opened, open_dir};

/// That it was begun to put this back.
const UNDOING: &str = "undoing";
/// That it was put back.
const UNDONE: &str = "undone";
/// Before the names of what the repair made.
const MADE: &str = "made,";
/// The longest list of packs that is read: millions of them.
const LIST_MAX: u64 = 256 << 20;
/// Bytes that are copied at a time.
const PART: u64 = 1 << 20;

/// What was put back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PutBack {
    /// Of which repair: the name of its directory.
    pub time: String,
    /// Files, from the volume's directory, that are as they were.
    pub put_back: Vec<String>,
    /// Files that the repair made, and that were moved into its directory.
    pub moved_away: Vec<String>,
}

/// A repair that is to be undone.
struct Kept {
    volume: Arc<dyn Disk>,
    store: Arc<dyn Disk>,
    /// Its directories.
    dir: String,
    before: Before,
    /// What it kept, in the volume's directory and in the store's.
    names: Vec<String>,
    store_names: Vec<String>,
    done: PutBack,
}

/// A step, and what it is about.
type Step = fn(&mut Kept) -> io::Result<()>;

/// Undoes the newest repair of the volume in a directory, or that of a `time`, under its lock.
pub fn undo_dir(dir: &Path, time: Option<&str>, on_wait: &dyn Fn(&str)) -> Result<PutBack, CheckError> {
    match open_dir(dir, "undoing a repair of it", on_wait)? {
        Ok(Opened { disk, store, _lock }) => undo(disk, store, Some(&dir.join(ENGINE_DIR)), time),
        Err(_) => Err(refused("the volume's superblocks or its store cannot be read")),
    }
}

/// Undoes a repair of a volume on any disk, which nobody may have open.
pub fn undo(
    volume: Arc<dyn Disk>,
    store: Arc<dyn Disk>,
    engine: Option<&Path>,
    time: Option<&str>,
) -> Result<PutBack, CheckError> {
    let time = match time {
        Some(time) if !is_a_name(time) => return Err(refused(&format!("'{time}' is no directory's name"))),
        Some(time) => time.to_owned(),
        None => newest_kept(&*volume)?,
    };
    let mut kept = Kept::find(volume, store, time)?;
    kept.check()?;
    kept.note(UNDOING).map_err(CheckError::io(UNDO_DIR))?;
    remove_caches(&*kept.store, engine)?;
    let steps: [(&str, Step); 5] = [
        (PACKS_DIR, Kept::put_packs),
        (JOURNAL_DIR, Kept::put_journal),
        ("superblock", Kept::put_superblocks),
        (PACKS_DIR, Kept::take_packs),
        (SUSPECT_PATH, Kept::suspect),
    ];
    for (path, step) in steps {
        step(&mut kept).map_err(CheckError::io(path))?;
    }
    kept.note(UNDONE).map_err(CheckError::io(UNDO_DIR))?;
    Ok(kept.done)
}

fn refused(why: &str) -> CheckError {
    CheckError::NotUndone(why.to_owned())
}

fn is_a_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit() || b == b'-')
}

/// The newest repair that kept what can be put back, and was not undone.
fn newest_kept(volume: &dyn Disk) -> Result<String, CheckError> {
    let listed = match volume.list(UNDO_DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(CheckError::io(UNDO_DIR))?,
    };
    let has =
        |name: &str, file: &str| volume.open(&format!("{UNDO_DIR}/{name}/{file}"), Access::Read).is_ok();
    let kept = listed.into_iter().rev().map(|listed| listed.name);
    let mut kept = kept.filter(|name| is_a_name(name) && has(name, BEFORE) && !has(name, UNDONE));
    kept.next().ok_or_else(|| {
        refused(
            "fsck-undo/ has nothing of a repair that was not undone already (what a mended pack had in it is not put back)",
        )
    })
}

/// Index and engine are of the state that the repair made.
fn remove_caches(store: &dyn Disk, engine: Option<&Path>) -> Result<(), CheckError> {
    match store.remove(INDEX_PATH) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(CheckError::Io { path: "store/index".into(), error });
        }
        _ => {}
    }
    match engine.map(std::fs::remove_dir_all) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            Err(CheckError::Io { path: ENGINE_DIR.into(), error })
        }
        _ => Ok(()),
    }
}

impl Kept {
    fn find(volume: Arc<dyn Disk>, store: Arc<dyn Disk>, time: String) -> Result<Kept, CheckError> {
        let dir = format!("{UNDO_DIR}/{time}");
        let text = read_small(&*volume, &format!("{dir}/{BEFORE}"), LIST_MAX);
        let before = text.ok().and_then(|bytes| Before::decode(std::str::from_utf8(&bytes).ok()?));
        let Some(before) = before else {
            return Err(refused(&format!(
                "{dir} has nothing that can be, or does not tell what there was before"
            )));
        };
        let names = |disk: &dyn Disk, dir: &str| -> io::Result<Vec<String>> {
            Ok(disk
                .list(dir)?
                .into_iter()
                .filter(|listed| !listed.is_dir)
                .map(|listed| listed.name)
                .collect())
        };
        let store_names =
            names(&*store, &before.store).map_err(CheckError::io(format!("store/{}", before.store)))?;
        let names = names(&*volume, &dir).map_err(CheckError::io(&*dir))?;
        let done = PutBack { time, ..PutBack::default() };
        Ok(Kept { volume, store, dir, before, names, store_names, done })
    }

    fn said(&self, name: &str) -> Option<String> {
        let bytes = read_small(&*self.volume, &format!("{}/{name}", self.dir), 4096).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    fn note(&self, name: &str) -> io::Result<()> {
        replace_small(&*self.volume, &format!("{}/{name}", self.dir), b"")
    }

    /// That all is there, and that nobody has written since.
    fn check(&self) -> Result<(), CheckError> {
        if self.said(UNDONE).is_some() {
            return Err(refused(&format!("that was done already: {} says so", self.dir)));
        }
        if let Some(why) = self.said(INCOMPLETE) {
            return Err(refused(&format!("what {} has is not all that was there: {why}", self.dir)));
        }
        let after: Option<u64> =
            self.said(AFTER).and_then(|said| said.strip_prefix("generation ")?.parse().ok());
        let Some(after) = after else {
            return Err(refused(
                "that repair did not come to its end: run it again; what the next one keeps is what this one left",
            ));
        };
        let now = newest(&*self.volume).map_err(CheckError::io("superblock"))?.generation;
        let begun = self.said(UNDOING).is_some();
        if now != after && !(begun && now == self.before.generation) {
            return Err(refused(
                "the volume was mounted for writing, or repaired, since: what was written then would be lost",
            ));
        }
        for pack in &self.before.packs {
            let path = pack_path(pack);
            let has_copy = Place::all().any(|place| self.store.open(&place.path(pack), Access::Read).is_ok());
            let there = has_copy || self.store_names.contains(&flat(&path));
            if !there {
                return Err(refused(&format!("store/{path} was there before, and is gone")));
            }
        }
        Ok(())
    }

    /// Packs that the repair moved away: who reads the repaired state does not mind them.
    fn put_packs(&mut self) -> io::Result<()> {
        for name in self.store_names.clone() {
            let path = name.replace(',', "/");
            if !path.starts_with(PACKS_DIR) || !path.ends_with(".pack") {
                continue;
            }
            if self.store.open(&path, Access::Read).is_ok() {
                continue;
            }
            // Under a name that the next mount removes, should this end here.
            let new = path.replace(".pack", ".new");
            copy(&*self.store, &format!("{}/{name}", self.before.store), &new)?;
            self.store.rename(&new, &path)?;
            self.store.sync_dir(parent(&path))?;
            self.done.put_back.push(format!("store/{path}"));
        }
        Ok(())
    }

    /// Segments as they were, if they were kept; those that were not there are moved away.
    fn put_journal(&mut self) -> io::Result<()> {
        let is_of_journal = |name: &&String| name.starts_with("journal,");
        let (parts, whole): (Vec<_>, Vec<_>) =
            self.names.iter().filter(is_of_journal).cloned().partition(|name| name.contains('@'));
        for name in &whole {
            let path = name.replace(',', "/");
            self.replace(name, &path)?;
        }
        for name in &parts {
            let Some((path, at)) =
                name.split_once('@').and_then(|(p, at)| Some((p, at.parse::<u64>().ok()?)))
            else {
                continue;
            };
            let path = path.replace(',', "/");
            let bytes = read_small(&*self.volume, &format!("{}/{name}", self.dir), LIST_MAX)?;
            let file = self.volume.open(&path, Access::Write)?;
            file.write_at(&bytes, at).and_then(|()| file.sync())?;
            self.done.put_back.push(path);
        }
        if whole.is_empty() {
            return Ok(());
        }
        for listed in self.volume.list(JOURNAL_DIR)? {
            if !self.before.segments.contains(&listed.name) {
                self.take(&format!("{JOURNAL_DIR}/{}", listed.name))?;
            }
        }
        self.volume.sync_dir(JOURNAL_DIR)
    }

    /// The store's, and then the volume's: with the second of those the state before counts.
    fn put_superblocks(&mut self) -> io::Result<()> {
        for path in REPLICA_PATHS {
            if self.store_names.iter().any(|name| name == path) {
                let bytes = read_small(&*self.store, &format!("{}/{path}", self.before.store), LIST_MAX)?;
                replace_small(&*self.store, path, &bytes)?;
                self.done.put_back.push(format!("store/{path}"));
            }
        }
        let usable = |path: &&str| {
            let bytes = read_small(&*self.volume, &format!("{}/{path}", self.dir), LIST_MAX);
            bytes.is_ok_and(|bytes| VolumeSuperblock::decode(&bytes).is_ok())
        };
        let good = REPLICA_PATHS.into_iter().find(usable);
        for path in REPLICA_PATHS {
            if self.names.iter().any(|name| name == path) {
                self.replace(path, path)?;
            } else if let (true, Some(good)) = (self.is_newer(path), good) {
                // It was missing, and what is there now would count.
                self.replace(good, path)?;
            }
        }
        Ok(())
    }

    /// Whether a replica of the superblock is of the repair.
    fn is_newer(&self, path: &str) -> bool {
        let now = read_small(&*self.volume, path, LIST_MAX).ok();
        let now = now.and_then(|bytes| VolumeSuperblock::decode(&bytes).ok());
        now.is_some_and(|now| now.generation > self.before.generation)
    }

    /// Packs that were not there before: those of metadata first, so that none is left that leads to data which is gone.
    fn take_packs(&mut self) -> io::Result<()> {
        let packs = list_packs(&*self.store).map_err(io::Error::other)?.packs.into_iter();
        let before: HashSet<&PackId> = self.before.packs.iter().collect();
        let made = packs.map(|(pack, _)| pack).filter(|pack| !before.contains(pack));
        let is_data = |pack: &PackId| {
            let footer = PackReader::open(&*self.store, *pack).and_then(|reader| reader.footer());
            footer.is_ok_and(|footer| footer.kind == PackKind::Data)
        };
        let (data, metadata): (Vec<_>, Vec<_>) = made.partition(is_data);
        for pack in metadata.into_iter().chain(data) {
            let path = pack_path(&pack);
            for place in Place::all().filter(|place| *place != Place::Pack) {
                // It is not to be what is left: a checkpoint beyond the journal's end would be damage.
                if self.store.remove(&place.path(&pack)).is_ok() {
                    self.store.sync_dir(parent(&place.path(&pack)))?;
                }
            }
            self.store.rename(&path, &format!("{}/{MADE}{}", self.before.store, flat(&path)))?;
            self.store.sync_dir(&self.before.store)?;
            self.store.sync_dir(parent(&path))?;
            self.done.moved_away.push(format!("store/{path}"));
        }
        Ok(())
    }

    /// Whatever the repair was for is wrong again.
    fn suspect(&mut self) -> io::Result<()> {
        match super::suspect::noted(&*self.volume) {
            Some(_) => Ok(()),
            None => {
                replace_small(&*self.volume, SUSPECT_PATH, b"fsck.cairn put back what was before a repair\n")
            }
        }
    }

    /// Moves a file of the volume's directory away.
    fn take(&mut self, path: &str) -> io::Result<()> {
        self.volume.rename(path, &format!("{}/{MADE}{}", self.dir, flat(path)))?;
        self.volume.sync_dir(&self.dir)?;
        self.volume.sync_dir(parent(path))?;
        self.done.moved_away.push(path.to_owned());
        Ok(())
    }

    /// Has a file be what was kept of it: a copy takes over the name.
    fn replace(&mut self, name: &str, path: &str) -> io::Result<()> {
        let (from, copied) = (format!("{}/{name}", self.dir), format!("{}/copy", self.dir));
        copy(&*self.volume, &from, &copied)?;
        self.volume.rename(&copied, path)?;
        self.volume.sync_dir(parent(path))?;
        self.done.put_back.push(path.to_owned());
        Ok(())
    }
}

/// Copies a file to a name whose file goes.
fn copy(disk: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
    match disk.remove(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let from = disk.open(from, Access::Read)?;
    let to = disk.open(to, Access::CreateNew)?;
    let (len, mut at) = (from.len()?, 0);
    while at < len {
        let mut bytes = vec![0; PART.min(len - at) as usize];
        from.read_exact_at(&mut bytes, at)?;
        to.write_at(&bytes, at)?;
        at += bytes.len() as u64;
    }
    to.sync()
}
