//! Directories on other disks that have a second copy of every pack.
//!
//! The store's disk has them below `across/`, by their numbers, as if they were its own: what reads, heals and checks packs
//! needs to know no other disk. One that is not there, or is another than it was, refuses everything, and the store goes on
//! without it.
//!
//! Architecture Invariant: nothing is written into a directory that does not say of itself that it is this store's.

use std::io;
use std::sync::Arc;

use cairn_format::{Across, Uuid};

use crate::StoreError;
use crate::disk::{Access, Disk, DiskFile, Listed, Space, read_small, replace_small};
use crate::twins::Place;

/// The list of directories, in the store, twice.
pub const ACROSS_PATHS: [&str; 2] = ["across.list", "across.list.backup"];
/// The same, in each of them, with its number.
pub const ACROSS_ID: &str = "across.id";
/// The longest such file.
const LONGEST: u64 = 64 << 10;

/// A disk, with others below `across/`.
struct Joined {
    main: Arc<dyn Disk>,
    /// By their numbers, from 1; or why they are not there.
    others: Vec<Result<Arc<dyn Disk>, String>>,
}

/// A store's disk with the directories that its list names, which `open` opens by their paths.
pub fn join_across(main: Arc<dyn Disk>, open: impl Fn(&str) -> io::Result<Arc<dyn Disk>>) -> Arc<dyn Disk> {
    let Ok(Some(list)) = read_across(&*main) else { return main };
    let others = list.dirs.iter().map(|dir| open(dir).map_err(|error| error.to_string())).collect();
    Arc::new(Joined { main, others })
}

/// The list of a store's directories; none where it has none. An error where both copies of it cannot be used.
pub fn read_across(disk: &dyn Disk) -> Result<Option<Across>, StoreError> {
    let mut missing = 0;
    let mut reason = String::new();
    for path in ACROSS_PATHS {
        match read_small(disk, path, LONGEST).map(|bytes| Across::decode(&bytes)) {
            Ok(Ok(list)) => return Ok(Some(list)),
            Ok(Err(error)) => reason = error.to_string(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing += 1,
            Err(error) => reason = error.to_string(),
        }
    }
    match missing == ACROSS_PATHS.len() {
        true => Ok(None),
        false => Err(StoreError::io(ACROSS_PATHS[0])(io::Error::other(reason))),
    }
}

/// Has a store have second copies in these directories, and each of them say so of itself. They have to be its own, or empty:
/// that is for whoever calls to see to. `disk` has them below `across/`, see [`make_joined`].
pub fn write_across(disk: &dyn Disk, store: Uuid, dirs: &[String]) -> Result<(), StoreError> {
    let list = |number| Across { store, number, dirs: dirs.to_vec() };
    for number in 1..=dirs.len() as u16 {
        let path = format!("{}/{ACROSS_ID}", dir_of(number));
        replace_small(disk, &path, &list(number).encode()).map_err(StoreError::io(path))?;
    }
    // Last: before that the store has none.
    for path in ACROSS_PATHS {
        replace_small(disk, path, &list(0).encode()).map_err(StoreError::io(path))?;
    }
    Ok(())
}

/// A disk with others below `across/`, which no list names yet.
pub fn make_joined(main: Arc<dyn Disk>, others: Vec<Arc<dyn Disk>>) -> Arc<dyn Disk> {
    Arc::new(Joined { main, others: others.into_iter().map(Ok).collect() })
}

/// Where a directory lies, by its number, relative to the store.
pub fn dir_of(number: u16) -> String {
    format!("across/{number}")
}

/// A directory that is to have second copies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcrossDir {
    /// Its path, as it was said.
    pub path: String,
    /// Why nothing is written into it; none where it is as it should be.
    pub missing: Option<String>,
}

/// A store's directories, by their numbers from 1, and which of them are as they should be.
pub fn across_dirs(disk: &dyn Disk, store: Uuid) -> Result<Vec<AcrossDir>, StoreError> {
    let Some(list) = read_across(disk)? else { return Ok(Vec::new()) };
    let numbered = list.dirs.into_iter().zip(1u16..);
    let look = |(path, number): (String, u16)| {
        let missing = identify(disk, store, number).err();
        AcrossDir { path, missing }
    };
    Ok(numbered.map(look).collect())
}

/// That a directory says of itself what it is.
fn identify(disk: &dyn Disk, store: Uuid, number: u16) -> Result<(), String> {
    let bytes = match read_small(disk, &format!("{}/{ACROSS_ID}", dir_of(number)), LONGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("it has no {ACROSS_ID}: its disk is not mounted there, or another is"));
        }
        Err(error) => return Err(error.to_string()),
    };
    let says = Across::decode(&bytes).map_err(|error| format!("its {ACROSS_ID}: {error}"))?;
    match (says.store == store, says.number == number) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("it is directory {}, not {number}", says.number)),
        (false, _) => Err(format!("it belongs to store {}", says.store)),
    }
}

/// The place of a pack's second copy where a store has so many directories; none where it has none.
pub(crate) fn place_of(pack: &cairn_format::PackId, dirs: usize) -> Option<Place> {
    let count = u16::try_from(dirs).ok().filter(|count| *count > 0)?;
    Some(Place::Across(1 + u16::from(pack.0[15]) % count))
}

impl Joined {
    fn route<'a>(&self, path: &'a str) -> io::Result<(&dyn Disk, &'a str)> {
        let Some(below) = path.strip_prefix("across/") else { return Ok((&*self.main, path)) };
        let (number, rest) = below.split_once('/').unwrap_or((below, ""));
        let other = number.parse::<usize>().ok().and_then(|number| self.others.get(number.checked_sub(1)?));
        match other {
            Some(Ok(disk)) => Ok((&**disk, rest)),
            Some(Err(reason)) => Err(io::Error::new(io::ErrorKind::NotConnected, reason.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Disk for Joined {
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let (disk, path) = self.route(path)?;
        disk.open(path, access)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let (disk, path) = self.route(path)?;
        disk.create_dir(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        let (disk, dir) = self.route(dir)?;
        disk.list(dir)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let ((disk, from), (other, to)) = (self.route(from)?, self.route(to)?);
        match std::ptr::addr_eq(disk, other) {
            true => disk.rename(from, to),
            false => Err(io::ErrorKind::CrossesDevices.into()),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let (disk, path) = self.route(path)?;
        disk.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let (disk, dir) = self.route(dir)?;
        disk.sync_dir(dir)
    }

    fn space(&self) -> io::Result<Space> {
        self.main.space()
    }
}
