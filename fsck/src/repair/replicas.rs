//! Superblocks of which one replica is damaged: the other is written in its place.

use std::io;

use cairn_store::disk::{Disk, replace_small};

use super::undo::Side;
use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::report::{Done, Finding};

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let volume = found.superblock.as_ref().map(|s| s.encode());
    let store = found.store_superblock.as_ref().map(|s| s.encode());
    let wrong = found.findings.list.iter_mut().filter(|f| f.kind == "superblock-replica");
    for finding in wrong {
        let Some(file) = finding.file.clone() else { continue };
        let (side, path, bytes) = match file.strip_prefix("store/") {
            Some(path) => (Side::Store, path, &store),
            None => (Side::Volume, file.as_str(), &volume),
        };
        if let Some(bytes) = bytes {
            site.undo.copy(side, path)?;
            let disk: &dyn Disk = if side == Side::Store { &*site.store } else { &*site.volume };
            write(disk, path, bytes, finding).map_err(CheckError::io(&file))?;
        }
    }
    Ok(Outcome::AsFound)
}

fn write(disk: &dyn Disk, path: &str, bytes: &[u8], finding: &mut Finding) -> io::Result<()> {
    replace_small(disk, path, bytes)?;
    finding.done(Done::Rewritten);
    Ok(())
}
