//! All that a volume shows, noted down, to be looked for again where some of it may be lost.

use std::collections::BTreeMap;

use cairn_volume::{Attr, Error, FileKind, Volume};

use crate::rot::{Loss, Verdict};
use crate::tree::{Listed, list};

/// An extent: offset, length and place.
pub type Extent = (u64, u64, cairn_format::PieceKind);

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// An inode.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    attr: Attr,
    listed: Vec<Listed>,
    xattrs: Xattrs,
    target: Vec<u8>,
    extents: Vec<Extent>,
    bytes: Vec<Vec<u8>>,
}

/// A volume as it was.
#[derive(Clone, Debug, Default)]
pub struct Pristine {
    inodes: BTreeMap<u64, Seen>,
}

/// What a look at a volume found of what it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Extents that were read, and were what they had been.
    pub whole: u64,
    /// Extents that are lost, and said so.
    pub refused: u64,
}

/// Room depends on what is folded.
fn without_blocks(attr: Attr) -> Attr {
    Attr { blocks: 0, ..attr }
}

impl Pristine {
    /// All of a volume.
    pub fn of(volume: &Volume) -> Result<Pristine, Error> {
        let mut pristine = Pristine::default();
        let mut ahead = vec![(String::new(), 1)];
        while let Some((path, ino)) = ahead.pop() {
            if pristine.inodes.contains_key(&ino) {
                continue;
            }
            let seen = seen(volume, path.clone(), ino)?;
            for item in seen.listed.iter().skip(2) {
                ahead.push((format!("{path}/{}", String::from_utf8_lossy(&item.name)), item.ino));
            }
            pristine.inodes.insert(ino, seen);
        }
        Ok(pristine)
    }

    /// The extents of all files.
    pub fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.inodes.values().flat_map(|seen| &seen.extents)
    }

    /// Each file's path, bytes and places, by the first of its names that was found.
    pub fn files(&self) -> impl Iterator<Item = (&str, Vec<u8>, Vec<Extent>)> {
        let files = self.inodes.values().filter(|seen| seen.attr.kind == FileKind::Regular);
        files.map(|seen| (seen.path.as_str(), seen.bytes.concat(), seen.extents.clone()))
    }

    /// Paths of the files of which something is lost for sure.
    pub fn lost<'a>(&'a self, verdict: &'a Verdict) -> impl Iterator<Item = &'a str> {
        let loses =
            |seen: &&Seen| seen.extents.iter().any(|(_, len, kind)| verdict.loses(kind, *len) == Loss::Yes);
        self.inodes.values().filter(loses).map(|seen| seen.path.as_str())
    }

    /// Bytes of all files.
    pub fn len(&self) -> u64 {
        self.extents().map(|(_, len, _)| len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// That a volume is as it was, but for what is lost: reading that is an I/O error, and nothing else is.
    pub fn compare(&self, volume: &Volume, verdict: &Verdict) -> Result<Found, String> {
        let mut found = Found::default();
        for (ino, seen) in &self.inodes {
            seen.compare(volume, *ino, verdict, &mut found).map_err(|e| format!("{}/: {e}", seen.path))?;
        }
        Ok(found)
    }
}

fn xattrs(volume: &Volume, ino: u64) -> Result<Xattrs, Error> {
    let names = volume.listxattr(ino)?;
    let names = names.split(|b| *b == 0).filter(|name| !name.is_empty());
    names.map(|name| Ok((name.to_vec(), volume.getxattr(ino, name)?))).collect()
}

fn seen(volume: &Volume, path: String, ino: u64) -> Result<Seen, Error> {
    let attr = volume.getattr(ino)?;
    let mut seen = Seen {
        path,
        attr: without_blocks(attr),
        listed: Vec::new(),
        xattrs: xattrs(volume, ino)?,
        target: Vec::new(),
        extents: Vec::new(),
        bytes: Vec::new(),
    };
    match attr.kind {
        FileKind::Directory => seen.listed = list(volume, ino)?,
        FileKind::Symlink => seen.target = volume.readlink(ino)?,
        FileKind::Regular => {
            seen.extents = volume.extents(ino)?;
            for (at, len, _) in &seen.extents {
                seen.bytes.push(volume.read(ino, *at, *len as u32)?);
            }
        }
        _ => {}
    }
    Ok(seen)
}

impl Seen {
    fn compare(&self, volume: &Volume, ino: u64, verdict: &Verdict, found: &mut Found) -> Result<(), String> {
        let attr = volume.getattr(ino).map_err(|e| format!("stat: {e}"))?;
        if without_blocks(attr) != self.attr {
            return Err(format!("was {:?}, is {attr:?}", self.attr));
        }
        if xattrs(volume, ino).map_err(|e| format!("attributes: {e}"))? != self.xattrs {
            return Err("its attributes are others".into());
        }
        match attr.kind {
            FileKind::Directory => {
                let listed = list(volume, ino).map_err(|e| format!("listing: {e}"))?;
                if listed != self.listed {
                    return Err(format!("held {:?}, holds {listed:?}", self.listed));
                }
            }
            FileKind::Symlink => {
                let target = volume.readlink(ino).map_err(|e| format!("readlink: {e}"))?;
                (target == self.target).then_some(()).ok_or("it leads elsewhere")?;
            }
            _ => {}
        }
        for ((at, len, kind), bytes) in self.extents.iter().zip(&self.bytes) {
            match (volume.read(ino, *at, *len as u32), verdict.loses(kind, *len)) {
                (Ok(read), Loss::No | Loss::Perhaps) if read == *bytes => found.whole += 1,
                (Err(Error::Io), Loss::Perhaps | Loss::Yes) => found.refused += 1,
                (Ok(read), Loss::Yes) if read == *bytes => {
                    return Err(format!("{len} bytes at {at} were to be lost: {kind:?}"));
                }
                (Ok(_), lost) => return Err(format!("WRONG BYTES at {at}, lost: {lost:?}: {kind:?}")),
                (Err(error), lost) => {
                    return Err(format!("{len} bytes at {at}, lost: {lost:?}: {error}: {kind:?}"));
                }
            }
        }
        Ok(())
    }
}
