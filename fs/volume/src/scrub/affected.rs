//! Which files something of is lost, and where: by one walk over all extents, and, where there are some, one or two over
//! all names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use cairn_format::key::{self, Key, tag};
use cairn_format::{
    ChunkPiece, DirEntry, EXTENT_RANGE, Footer, Ino, Inode, PackId, PackKind, PieceKind, decode_pieces,
};

use super::ScrubFile;
use super::look::Looked;
use crate::checkpoint::MaintainError;
use crate::core::Core;
use crate::gc::each_page;
use crate::vfs::Error;

/// Places in files that are noted at most.
const RANGES_MAX: usize = 50_000;
/// Names of one inode that are told.
const NAMES_MAX: usize = 4;
/// Directories on the way up, in case there is no root at the end of it.
const DEPTH_MAX: usize = 4096;

/// Files that something of is lost.
pub(crate) struct Affected {
    pub(crate) files: Vec<ScrubFile>,
    /// Whether there are more.
    pub(crate) more: bool,
}

/// The frames of a pack that cannot be read; none: nothing of it can.
type Lost = Option<HashSet<u32>>;

/// What cannot be read of packs.
#[derive(Default)]
pub(crate) struct LostPlaces {
    packs: HashMap<PackId, Lost>,
    /// All packs that are damaged still, also those that nothing of is lost.
    pub(crate) damaged: HashSet<PackId>,
    /// Frames that can be read, and something in them is not what it should be.
    wrong: HashSet<(PackId, u32)>,
}

impl LostPlaces {
    /// What is lost of packs that are damaged. From now on the store knows it as well: who writes the same bytes again is to have
    /// them stored.
    pub(super) fn of(core: &Core, damaged: &HashMap<PackId, Looked>) -> LostPlaces {
        let packs: HashMap<PackId, Lost> =
            damaged.values().filter_map(|looked| Some((looked.pack, lost_of(core, looked)?))).collect();
        for (pack, lost) in &packs {
            core.store.note_lost(*pack, lost.as_ref());
        }
        let wrong = damaged.values().flat_map(|l| l.wrong_frames.iter().map(|frame| (l.pack, *frame)));
        LostPlaces { packs, damaged: damaged.keys().copied().collect(), wrong: wrong.collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// Whether a chunk cannot be read from there.
    pub(crate) fn contains(&self, at: &ChunkPiece) -> bool {
        at.places().any(|place| self.has(&place.pack, place.frame))
    }

    pub(crate) fn has(&self, pack: &PackId, frame: u32) -> bool {
        match self.packs.get(pack) {
            Some(Some(frames)) => frames.contains(&frame),
            Some(None) => true,
            None => false,
        }
    }

    /// Whether the frame can be read all the same: it is only that not all in it is what it should be.
    pub(crate) fn is_wrong(&self, at: &ChunkPiece) -> bool {
        self.wrong.contains(&(at.pack, at.frame))
    }
}

/// The files that something of is lost.
pub(crate) fn find(core: &Core, lost: &LostPlaces) -> Result<Affected, MaintainError> {
    find_some(core, lost, &|_| true)
}

/// As [`find`], of the lost chunks that are `wanted` only.
pub(crate) fn find_some(
    core: &Core,
    lost: &LostPlaces,
    wanted: &dyn Fn(&ChunkPiece) -> bool,
) -> Result<Affected, MaintainError> {
    let is_lost = |at: &ChunkPiece| lost.contains(at) && wanted(at);
    let mut hits = Hits::default();
    if !lost.is_empty() {
        let (from, to) = key::all_tagged(tag::EXTENT);
        each_page(core, &from, &to, |page| {
            page.iter().for_each(|(key, value)| hits.look_at(core, key, value, &is_lost));
            hits.more
        })?;
        core.ns.each_run_of_overlay(|ino, offset, run| {
            if let PieceKind::Chunk(at) = run.kind
                && is_lost(&at)
            {
                hits.add(ino, offset, run.len);
            }
        });
    }
    let mut files = Vec::new();
    for (ino, ranges) in hits.still_there(core, &is_lost)? {
        files.push(ScrubFile { inode: ino.0, paths: Vec::new(), names: Vec::new(), ranges });
    }
    name(core, &mut files)?;
    Ok(Affected { files, more: hits.more })
}

/// The frames that cannot be read any more, by trying; nothing where that is none.
fn lost_of(core: &Core, looked: &Looked) -> Option<Lost> {
    let read = core.store.reader(looked.pack).and_then(|reader| Ok((reader.footer()?, reader)));
    let (footer, reader): (Footer, _) = match read {
        Ok(found) => found,
        Err(_) => return Some(None),
    };
    // The engine has what metadata packs hold, and the next base brings it to another.
    if footer.kind == PackKind::Metadata {
        return None;
    }
    let touches =
        |from: u64, to: u64| looked.left.iter().any(|left| left.at.start < to && left.at.end > from);
    // Where more is damaged than was listed, anything may be.
    let all = looked.left.is_empty() || looked.left.len() >= super::look::LEFT_MAX;
    let mut frames: HashSet<u32> = looked.wrong_frames.iter().copied().collect();
    for (number, entry) in footer.frames.iter().enumerate() {
        if (all || touches(entry.offset, entry.offset + u64::from(entry.len))) && reader.frame(entry).is_err()
        {
            frames.insert(number as u32);
        }
    }
    (!frames.is_empty()).then_some(Some(frames))
}

/// Places in files.
#[derive(Default)]
struct Hits {
    ranges: BTreeMap<(Ino, u64), u64>,
    more: bool,
}

impl Hits {
    fn add(&mut self, ino: Ino, offset: u64, len: u64) {
        if self.ranges.len() < RANGES_MAX {
            self.ranges.insert((ino, offset), len);
        } else {
            self.more = true;
        }
    }

    fn look_at(&mut self, core: &Core, key: &[u8], value: &[u8], is_lost: &dyn Fn(&ChunkPiece) -> bool) {
        let Some(Key::Extent(ino, range, view)) = Key::decode(key) else { return };
        if view != core.view {
            return;
        }
        let mut offset = range * EXTENT_RANGE;
        // One that cannot be decoded is said by whoever reads that file.
        for piece in decode_pieces(value).unwrap_or_default() {
            if let PieceKind::Chunk(at) = piece.kind
                && is_lost(&at)
            {
                self.add(ino, offset, piece.len.into());
            }
            offset += u64::from(piece.len);
        }
    }

    /// What of it the files hold now: the engine's extents are those of the last checkpoint.
    fn still_there(
        &self,
        core: &Core,
        is_lost: &dyn Fn(&ChunkPiece) -> bool,
    ) -> Result<BTreeMap<Ino, Vec<(u64, u64)>>, MaintainError> {
        let mut files: BTreeMap<Ino, Vec<(u64, u64)>> = BTreeMap::new();
        for ((ino, offset), len) in &self.ranges {
            for (at, run) in core.look(|ns| ns.runs(core.view, *ino, *offset, *len))? {
                let PieceKind::Chunk(chunk) = run.kind else { continue };
                if !is_lost(&chunk) {
                    continue;
                }
                let ranges = files.entry(*ino).or_default();
                match ranges.last_mut() {
                    Some((start, len)) if *start + *len >= at => *len = (*len).max(at + run.len - *start),
                    _ => ranges.push((at, run.len)),
                }
            }
        }
        Ok(files)
    }
}

type Named = HashMap<Ino, Vec<(Ino, Vec<u8>)>>;

/// Finds out what files are called.
fn name(core: &Core, files: &mut [ScrubFile]) -> Result<(), MaintainError> {
    let mut named = name_inodes(core, &files.iter().map(|file| Ino(file.inode)).collect())?;
    for file in files {
        file.names = named.remove(&Ino(file.inode)).unwrap_or_default();
        file.names.sort();
        file.paths = file.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    }
    Ok(())
}

/// What inodes are called, from the root: some of their names, where there are many.
pub(crate) fn name_inodes(
    core: &Core,
    inos: &HashSet<Ino>,
) -> Result<HashMap<Ino, Vec<Vec<u8>>>, MaintainError> {
    if inos.is_empty() {
        return Ok(HashMap::new());
    }
    let named = names_of(core, inos, NAMES_MAX)?;
    let mut above = HashSet::new();
    for (dir, _) in named.values().flatten() {
        let mut at = *dir;
        while at != Ino::ROOT && at.0 != 0 && above.insert(at) {
            let found = core.look(|ns| ns.get(&Key::Inode(at, core.view)))?;
            at = found.and_then(|value| Inode::decode(&value).ok()).map_or(Ino(0), |inode| inode.parent);
        }
    }
    let dirs = if above.is_empty() { Named::new() } else { names_of(core, &above, 1)? };
    let paths = |names: &Vec<(Ino, Vec<u8>)>| names.iter().map(|at| path(at, &dirs)).collect();
    Ok(named.iter().map(|(ino, names)| (*ino, paths(names))).collect())
}

fn names_of(core: &Core, wanted: &HashSet<Ino>, most: usize) -> Result<Named, MaintainError> {
    let mut named = Named::new();
    let (from, to) = key::all_tagged(tag::NAME);
    let walked = core.for_each(&from, &to, |key, value| {
        if let (Some(Key::Name(dir, name, view)), Ok(entry)) = (Key::decode(key), DirEntry::decode(value))
            && view == core.view
            && wanted.contains(&entry.ino)
        {
            let found = named.entry(entry.ino).or_default();
            if found.len() < most {
                found.push((dir, name));
            }
        }
        ControlFlow::Continue(())
    });
    // The error itself is in the log.
    walked.map_err(|_: Error| MaintainError::Unfoldable("the names of files cannot be read".into()))?;
    Ok(named)
}

/// A path from the root; from `…` where there is no way up.
fn path(at: &(Ino, Vec<u8>), dirs: &Named) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = vec![&at.1];
    let mut dir = at.0;
    while dir != Ino::ROOT {
        match dirs.get(&dir).and_then(|names| names.first()) {
            Some((parent, name)) if parts.len() < DEPTH_MAX => {
                parts.push(name);
                dir = *parent;
            }
            _ => {
                parts.push("…".as_bytes());
                parts.reverse();
                return parts.join(&b'/');
            }
        }
    }
    parts.push(b"");
    parts.reverse();
    parts.join(&b'/')
}
