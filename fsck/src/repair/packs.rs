//! Packs that are damaged: what parity restores of them is written back, and so is what is there twice.

use std::collections::BTreeSet;
use std::ops::Range;

use cairn_format::PackId;
use cairn_store::heal::{Examined as Damage, examine, mend};
use cairn_store::{StoreError, pack_path};

use super::undo::Side;
use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::packs::ALONE;
use crate::report::{Done, Severity};

/// Findings that are bytes of a pack which are not what was written.
const DAMAGE: [&str; 7] = ["pack", "pack-header", "footer", "footer-copy", "frame", "parity", ALONE];

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let named = |finding: &&mut crate::Finding| {
        let damage = finding.severity == Severity::Damage || finding.kind != ALONE;
        DAMAGE.contains(&finding.kind) && finding.done.is_none() && damage
    };
    let damaged: BTreeSet<PackId> = found
        .findings
        .list
        .iter_mut()
        .filter(named)
        .filter_map(|finding| PackId::parse(finding.pack.as_deref()?))
        .collect();
    let mut outcome = Outcome::AsFound;
    for pack in damaged {
        let Some(whole) = repair(site, pack)? else { continue };
        // It has to be read again, and what is left of its damage is found again.
        site.packs.remove(&pack);
        outcome = Outcome::Changed;
        let name = pack.to_string();
        for finding in found.findings.list.iter_mut().filter(named) {
            if whole && finding.pack.as_ref() == Some(&name) {
                finding.done(Done::Rewritten);
            }
        }
    }
    Ok(outcome)
}

/// Mends a pack as far as that goes; whether it is whole then, or nothing where nothing could be done.
fn repair(site: &mut Site<'_>, pack: PackId) -> Result<Option<bool>, CheckError> {
    let store = site.store.clone();
    let progress = site.progress;
    // One that is missing, or of which nothing says where its parts lie, is beyond this.
    let Ok(examined) = examine(&*store, pack, &mut |_| !progress.is_cancelled()) else { return Ok(None) };
    let damage: Damage = examined.ok_or(CheckError::Cancelled)?;
    if damage.is_whole() {
        return Ok(None);
    }
    let path = pack_path(&pack);
    let damaged = if damage.missing { Vec::new() } else { joined(&damage.damaged) };
    for range in damaged {
        site.undo.copy_part(Side::Store, &path, range.start, range.end - range.start)?;
    }
    let mended = mend(&*store, &damage).map_err(|error| match error {
        StoreError::Io { path, error } => CheckError::Io { path: format!("store/{path}"), error },
        error => CheckError::Io { path: format!("store/{path}"), error: std::io::Error::other(error) },
    })?;
    site.treated.entry(pack).or_default().note(&damage, &mended);
    let changed =
        !mended.restored.is_empty() || damage.wrong_len.is_some_and(|len| len > damage.layout.file_len());
    Ok(changed.then_some(mended.lost.is_empty()))
}

/// Ranges in ascending order, those that touch as one: of a hole each sector is one, and what is put aside is a file with
/// two syncs.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range.clone()),
        }
    }
    joined
}
