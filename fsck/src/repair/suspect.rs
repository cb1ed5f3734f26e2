//! The note by which a volume knows that something may be wrong with it: a mount that met damage writes it, and so does a
//! repair that left some. Without it, `-p` takes a volume that was unmounted in order for whole.

use std::io;

use cairn_store::Store;
use cairn_store::disk::{Disk, read_small, replace_small};
use cairn_volume::{SUSPECT_PATH, note_lost_packs};

use super::Site;
use crate::CheckError;
use crate::examine::{Examined, of_store};
use crate::packs::PackResult;
use crate::report::{Done, Finding, Findings};

/// What the note says, if there is one.
pub(crate) fn noted(disk: &dyn Disk) -> Option<String> {
    match read_small(disk, SUSPECT_PATH, 4096) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // One that cannot be read is one all the same.
        Err(error) => Some(error.to_string()),
    }
}

/// Tells of the note.
pub(crate) fn tell(disk: &dyn Disk, findings: &mut Findings) {
    if let Some(said) = noted(disk) {
        findings
            .push(Finding::info("suspect", format!("damage was noted before: {said}")).file(SUSPECT_PATH));
    }
}

/// Has mounts know the packs that something of is lost: what is written again with the same bytes is to be stored again.
pub(super) fn note_lost(site: &Site<'_>) -> Result<(), CheckError> {
    // Without a superblock nothing mounts it.
    let Ok(replicas) = Store::superblock_of(&*site.store) else { return Ok(()) };
    let has_lost = |result: &PackResult| !result.facts.bad_frames.is_empty();
    let lossy = site.packs.iter().filter(|(_, result)| has_lost(result)).map(|(pack, _)| *pack);
    note_lost_packs(&*site.store, replicas.newest.uuid, &lossy.collect::<Vec<_>>()).map_err(of_store)
}

/// Notes that damage is `left`, or that there is none any more.
pub(super) fn run(site: &Site<'_>, left: usize, found: &mut Examined) -> Result<(), CheckError> {
    let said = noted(&*site.volume);
    let io = CheckError::io(SUSPECT_PATH);
    match (left, said) {
        (0, None) => Ok(()),
        (0, Some(_)) => {
            site.volume.remove(SUSPECT_PATH).and_then(|()| site.volume.sync_dir("")).map_err(io)?;
            found
                .findings
                .list
                .iter_mut()
                .filter(|f| f.kind == "suspect")
                .for_each(|f| f.done(Done::Removed));
            Ok(())
        }
        // A mount's note says more.
        (_, Some(_)) => Ok(()),
        (left, None) => {
            let note = format!("fsck.cairn left {left} findings\n");
            replace_small(&*site.volume, SUSPECT_PATH, note.as_bytes()).map_err(io)
        }
    }
}
