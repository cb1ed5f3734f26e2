//! What is overwritten or taken away is copied, or moved, into `fsck-undo/TIME/` first: of the volume's directory, and of its
//! store's. `put_back.rs` puts it back; nothing else reads it.
//!
//! What a pack had in it before it was mended is kept for people only. Before anything else is touched it is written down what
//! there was (`before`), and at the end what the superblock says then (`after`): so it is known what to take away, and whether
//! anybody has written since.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_format::{PackId, VolumeSuperblock};
use cairn_store::disk::{Access, Disk, replace_small};
use cairn_store::{Place, list_packs, list_place, read_replicas};
use cairn_volume::journal::JOURNAL_DIR;

use crate::CheckError;

/// The directory of all that repairs overwrote or took away, in the volume's and in the store's.
pub const UNDO_DIR: &str = "fsck-undo";

const README: &str = "\
fsck.cairn put here what it overwrote in this directory, or took away from it. Nothing needs it: remove it when the volume
is as you want it.

  NAME            the whole file NAME, as it was; every / in its name is written as ,
  NAME@OFFSET     bytes that were in NAME at OFFSET
  before, after   what fsck.cairn --undo goes by, which puts it back
";

/// What there was before the repair changed anything that is put back.
pub(super) const BEFORE: &str = "before";
/// What the superblock says since the repair ended.
pub(super) const AFTER: &str = "after";
/// Why it cannot be put back.
pub(super) const INCOMPLETE: &str = "incomplete";

/// Bytes that are copied at a time.
const PART: u64 = 1 << 20;

/// Which directory a path is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Volume,
    Store,
}

/// Where this run keeps what was.
pub(crate) struct Undo {
    /// The volume's and the store's, each with its directory once there is one.
    sides: [(Arc<dyn Disk>, Option<String>); 2],
    /// Whether something is kept that can be put back.
    begun: bool,
}

impl Undo {
    pub(crate) fn new(volume: Arc<dyn Disk>, store: Arc<dyn Disk>) -> Undo {
        Undo { sides: [(volume, None), (store, None)], begun: false }
    }

    /// Whether something is kept that can be put back.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Writes down what there is, where that was not done yet: to be called before anything is made.
    pub(crate) fn prepare(&mut self) -> Result<(), CheckError> {
        self.begin().map_err(CheckError::io(UNDO_DIR))
    }

    /// Where files that somebody else removes from the store are to be moved.
    pub(crate) fn of_store(&mut self) -> Result<String, CheckError> {
        self.dir(Side::Store).map_err(CheckError::io(UNDO_DIR))
    }

    /// Notes that what is kept is not enough.
    pub(crate) fn is_incomplete(&mut self, why: &str) -> Result<(), CheckError> {
        self.note(INCOMPLETE, why).map_err(CheckError::io(UNDO_DIR))
    }

    /// Notes what the superblock says, where the repair is over.
    pub(crate) fn finish(&mut self) -> Result<(), CheckError> {
        let noted = |undo: &mut Undo| {
            let now = newest(&**undo.disk(Side::Volume))?;
            undo.note(AFTER, &format!("generation {}\n", now.generation))
        };
        if self.begun { noted(self).map_err(CheckError::io(UNDO_DIR)) } else { Ok(()) }
    }

    fn note(&mut self, name: &str, text: &str) -> io::Result<()> {
        let dir = self.dir(Side::Volume)?;
        replace_small(&**self.disk(Side::Volume), &format!("{dir}/{name}"), text.as_bytes())
    }

    /// Writes down what there is, once, before anything is changed that can be put back.
    fn begin(&mut self) -> io::Result<()> {
        if self.begun {
            return Ok(());
        }
        let (volume, store) = (self.disk(Side::Volume).clone(), self.disk(Side::Store).clone());
        let mut packs = list_packs(&*store).map_err(io::Error::other)?.packs;
        // One that only its second copy is left of was there before as well.
        for place in Place::all().filter(|place| *place != Place::Pack) {
            packs.extend(list_place(&*store, place).map_or(Vec::new(), |listing| listing.packs));
        }
        packs.sort_unstable();
        packs.dedup_by_key(|(pack, _)| *pack);
        let segments = match volume.list(JOURNAL_DIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed?,
        };
        let before = Before {
            generation: newest(&*volume)?.generation,
            store: self.dir(Side::Store)?,
            packs: packs.into_iter().map(|(pack, _)| pack).collect(),
            segments: segments.into_iter().map(|listed| listed.name).collect(),
        };
        self.note(BEFORE, &before.encode())?;
        self.begun = true;
        Ok(())
    }

    /// Copies a whole file, once.
    pub(crate) fn copy(&mut self, side: Side, path: &str) -> Result<(), CheckError> {
        let copied = |undo: &mut Undo| -> io::Result<()> {
            undo.begin()?;
            let file = undo.disk(side).open(path, Access::Read)?;
            let len = file.len()?;
            undo.write(side, &flat(path), path, 0, len)
        };
        copied(self).or_else(absent).map_err(CheckError::io(path))
    }

    /// Copies bytes of a file, as far as it goes.
    pub(crate) fn copy_part(&mut self, side: Side, path: &str, at: u64, len: u64) -> Result<(), CheckError> {
        let copied = |undo: &mut Undo| -> io::Result<()> {
            if side == Side::Volume {
                undo.begin()?;
            }
            let end = undo.disk(side).open(path, Access::Read)?.len()?.min(at + len);
            undo.write(side, &format!("{}@{at}", flat(path)), path, at, end.saturating_sub(at))
        };
        copied(self).or_else(absent).map_err(CheckError::io(path))
    }

    /// Moves a file.
    pub(crate) fn take(&mut self, side: Side, path: &str) -> Result<(), CheckError> {
        let moved = |undo: &mut Undo| -> io::Result<()> {
            undo.begin()?;
            let to = format!("{}/{}", undo.dir(side)?, flat(path));
            let disk = undo.disk(side);
            disk.rename(path, &to)?;
            disk.sync_dir(parent(&to))?;
            disk.sync_dir(parent(path))
        };
        moved(self).or_else(absent).map_err(CheckError::io(path))
    }

    fn disk(&self, side: Side) -> &Arc<dyn Disk> {
        &self.sides[side as usize].0
    }

    fn write(&mut self, side: Side, name: &str, path: &str, at: u64, len: u64) -> io::Result<()> {
        let dir = self.dir(side)?;
        let disk = self.disk(side);
        let to = match disk.open(&format!("{dir}/{name}"), Access::CreateNew) {
            // What it was before this run is there already.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            opened => opened?,
        };
        let from = disk.open(path, Access::Read)?;
        let mut done = 0;
        while done < len {
            let mut part = vec![0; (len - done).min(PART) as usize];
            // What cannot be read is lost already: zeros stand for it.
            let _ = from.read_at(&mut part, at + done);
            to.write_at(&part, done)?;
            done += part.len() as u64;
        }
        to.sync()?;
        disk.sync_dir(&dir)
    }

    /// This run's directory; made when it is needed.
    fn dir(&mut self, side: Side) -> io::Result<String> {
        let (disk, dir) = &mut self.sides[side as usize];
        if let Some(dir) = dir {
            return Ok(dir.clone());
        }
        if make_dir(&**disk, UNDO_DIR)? {
            disk.sync_dir("")?;
        }
        let time = now();
        let mut made = format!("{UNDO_DIR}/{time}");
        let mut number = 2;
        while !make_dir(&**disk, &made)? {
            made = format!("{UNDO_DIR}/{time}-{number}");
            number += 1;
        }
        disk.sync_dir(UNDO_DIR)?;
        let readme = disk.open(&format!("{made}/README"), Access::CreateNew)?;
        readme.write_at(README.as_bytes(), 0).and_then(|()| readme.sync())?;
        disk.sync_dir(&made)?;
        Ok(dir.insert(made).clone())
    }
}

/// What there was before a repair.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Before {
    /// The newest superblock's.
    pub(super) generation: u64,
    /// The directory of the same repair in the store.
    pub(super) store: String,
    pub(super) packs: Vec<PackId>,
    /// Names in the journal's directory.
    pub(super) segments: Vec<String>,
}

impl Before {
    fn encode(&self) -> String {
        let mut text = format!("generation {}\nstore {}\n", self.generation, self.store);
        self.packs.iter().for_each(|pack| text += &format!("pack {pack}\n"));
        self.segments.iter().for_each(|name| text += &format!("segment {name}\n"));
        // A file that was cut says less than was written.
        text + "end\n"
    }

    /// None where it is not what [`Before::encode`] wrote.
    pub(super) fn decode(text: &str) -> Option<Before> {
        let mut before = Before::default();
        let mut lines = text.lines();
        for line in lines.by_ref().take_while(|line| *line != "end") {
            let (what, value) = line.split_once(' ')?;
            match what {
                "generation" => before.generation = value.parse().ok()?,
                "store" => before.store = value.to_owned(),
                "pack" => before.packs.push(PackId::parse(value)?),
                "segment" => before.segments.push(value.to_owned()),
                _ => return None,
            }
        }
        (text.ends_with("end\n") && !before.store.is_empty()).then_some(before)
    }
}

/// The newest superblock of a volume.
pub(super) fn newest(volume: &dyn Disk) -> io::Result<VolumeSuperblock> {
    let replicas = read_replicas(volume, VolumeSuperblock::decode, |s| s.generation);
    replicas.map(|replicas| replicas.newest).map_err(io::Error::other)
}

/// Whether the directory was made; it is there already otherwise.
pub(super) fn make_dir(disk: &dyn Disk, path: &str) -> io::Result<bool> {
    match disk.create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is not there needs no copy.
fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

pub(super) fn flat(path: &str) -> String {
    path.replace('/', ",")
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The time, as a name that sorts: `20261121-113052` in UTC.
fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// The date so many days behind 1970-01-01, as Howard Hinnant's `civil_from_days` has it.
fn date(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_was_is_read_as_it_was_written_and_a_part_of_it_is_not() {
        let before = Before {
            generation: 7,
            store: "fsck-undo/20261121-113052".into(),
            packs: vec![PackId([1; 16]), PackId([2; 16])],
            segments: vec!["a.seg".into()],
        };
        let text = before.encode();
        assert_eq!(Before::decode(&text), Some(before));
        (0..text.len()).for_each(|len| assert_eq!(Before::decode(&text[..len]), None, "{len} bytes"));
        assert_eq!(Before::decode("nonsense\nend\n"), None);
    }

    #[test]
    fn days_are_the_dates_that_they_are() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_778), (2026, 11, 21));
    }
}
