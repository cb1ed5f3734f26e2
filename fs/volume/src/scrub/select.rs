//! The packs that a file lies in, or the files below a directory.

use std::collections::HashSet;

use cairn_format::{FileKind, PackId, PieceKind};

use super::ScrubError;
use crate::core::Core;
use crate::vfs::Error;

/// Bytes of a file whose places are read at a time.
const PART: u64 = 1 << 30;

/// The packs that hold something of the file at `path`, or of the files below that directory, until `stopped`. What is not
/// folded yet lies in none.
pub(super) fn packs_below(
    core: &Core,
    path: &[u8],
    stopped: &mut dyn FnMut() -> bool,
) -> Result<HashSet<PackId>, ScrubError> {
    let mut packs = HashSet::new();
    let mut ahead = vec![resolve(core, path)?];
    while let Some(ino) = ahead.pop() {
        if stopped() {
            break;
        }
        let attr = match core.getattr(ino) {
            // Removed meanwhile.
            Err(Error::Stale | Error::NotFound) => continue,
            found => found.map_err(ScrubError::Namespace)?,
        };
        match attr.kind {
            FileKind::Directory => core
                .readdir(ino, 0, &mut |item| {
                    if item.name != b"." && item.name != b".." && holds_packs(item.kind) {
                        ahead.push(item.ino);
                    }
                    true
                })
                .map_err(ScrubError::Namespace)?,
            FileKind::Regular => add(core, ino, attr.size, &mut packs).map_err(ScrubError::Namespace)?,
            _ => {}
        }
    }
    Ok(packs)
}

fn holds_packs(kind: FileKind) -> bool {
    matches!(kind, FileKind::Directory | FileKind::Regular)
}

fn resolve(core: &Core, path: &[u8]) -> Result<u64, ScrubError> {
    let mut at = 1;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        let none = || ScrubError::NoSuchPath(String::from_utf8_lossy(path).into_owned());
        at = match core.lookup(at, name) {
            Ok(Some(attr)) => attr.ino,
            Ok(None) | Err(Error::NotDirectory | Error::NotFound | Error::NameTooLong) => return Err(none()),
            Err(error) => return Err(ScrubError::Namespace(error)),
        };
    }
    Ok(at)
}

fn add(core: &Core, ino: u64, size: u64, packs: &mut HashSet<PackId>) -> Result<(), Error> {
    let ino = core.number(ino)?;
    for from in (0..size).step_by(PART as usize) {
        for (_, run) in core.runs(ino, from, PART.min(size - from))? {
            if let PieceKind::Chunk(at) = run.kind {
                packs.extend(at.places().map(|place| place.pack));
            }
        }
    }
    Ok(())
}
