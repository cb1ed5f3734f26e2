//! Second copies of packs: what is damaged of one is written back, one that is missing is made, and one of a pack that was
//! dropped goes.

use cairn_format::PackId;
use cairn_store::heal::{examine_at, mend};
use cairn_store::{Place, StoreError};

use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::packs::ALONE;
use crate::report::{Done, Severity};

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let mut outcome = Outcome::AsFound;
    for finding in found.findings.list.iter_mut().filter(|finding| finding.done.is_none()) {
        let Some(pack) = finding.pack.as_deref().and_then(PackId::parse) else { continue };
        match (finding.kind, finding.severity) {
            ("twin" | "twin-missing", _) if write(site, pack, finding.kind == "twin-missing")? => {
                // It has to be read again.
                site.packs.remove(&pack);
                outcome = Outcome::Changed;
                finding.done(Done::Rewritten);
            }
            (ALONE, Severity::Info) => {
                remove(site, pack)?;
                finding.done(Done::Removed);
            }
            _ => {}
        }
    }
    Ok(outcome)
}

/// Has a pack's twins be what the pack is; whether they are then. What they were needs no copy: nothing in them is not in the
/// pack.
fn write(site: &Site<'_>, pack: PackId, missing: bool) -> Result<bool, CheckError> {
    let progress = site.progress;
    let mut whole = true;
    for place in Place::all().filter(|place| *place != Place::Pack) {
        let Ok(examined) = examine_at(&*site.store, place, pack, &mut |_| !progress.is_cancelled()) else {
            continue;
        };
        let examined = examined.ok_or(CheckError::Cancelled)?;
        // Not where none is to be, or its disk is not there.
        if examined.missing && !(missing && place == Place::Twin) {
            continue;
        }
        whole &= match mend(&*site.store, &examined) {
            Ok(mended) => mended.lost.is_empty(),
            // A volume without second copies is a volume; and another disk's failing is not this one's.
            Err(error) if error.is_full() || place != Place::Twin => false,
            Err(StoreError::Io { path, error }) => {
                return Err(CheckError::Io { path: format!("store/{path}"), error });
            }
            Err(error) => {
                let path = format!("store/{}", place.path(&pack));
                return Err(CheckError::Io { path, error: std::io::Error::other(error) });
            }
        };
    }
    Ok(whole)
}

fn remove(site: &mut Site<'_>, pack: PackId) -> Result<(), CheckError> {
    for place in Place::all().filter(|place| *place != Place::Pack) {
        let path = place.path(&pack);
        match site.store.remove(&path) {
            Err(error) if place == Place::Twin && error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CheckError::Io { path: format!("store/{path}"), error });
            }
            _ => {}
        }
    }
    site.packs.remove(&pack);
    Ok(())
}
