//! Closed segments of the journal that are damaged: what their parity restores is written back.

use super::undo::Side;
use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::journal::SECTOR_KIND;
use crate::report::{Done, Severity};

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let Some(journal) = &found.journal else { return Ok(Outcome::AsFound) };
    let mut outcome = Outcome::AsFound;
    for damage in journal.damage.iter().filter(|damage| damage.short || !damage.restorable.is_empty()) {
        for range in &damage.restorable {
            site.undo.copy_part(Side::Volume, &damage.path, range.start, range.end - range.start)?;
        }
        journal.chain.mend(&*site.volume, damage).map_err(CheckError::io(&damage.path))?;
        // What the disk did not take is found again.
        outcome = Outcome::Changed;
        let of_segment = |f: &&mut crate::Finding| {
            f.kind == SECTOR_KIND && f.severity == Severity::Damage && f.file.as_deref() == Some(&damage.path)
        };
        found.findings.list.iter_mut().filter(of_segment).for_each(|finding| finding.done(Done::Rewritten));
    }
    Ok(outcome)
}
