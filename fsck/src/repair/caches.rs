//! Index and engine where they are wrong: they are removed, and the next mount makes them anew.

use std::io;

use cairn_store::INDEX_PATH;

use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::report::{Done, Severity};

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let mut wrong: Vec<_> =
        found.findings.list.iter_mut().filter(|f| f.severity == Severity::Cache).collect();
    if wrong.iter().any(|finding| finding.kind == "index-slot") {
        match site.store.remove(INDEX_PATH) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CheckError::Io { path: "store/index".into(), error });
            }
            _ => {}
        }
    }
    if wrong.iter().any(|finding| finding.kind == "engine") {
        remove_engine(site)?;
    }
    wrong.iter_mut().for_each(|finding| finding.done(Done::Removed));
    Ok(Outcome::AsFound)
}

/// Removes all that lies in the engine's directory, and the directory.
pub(super) fn remove_engine(site: &Site<'_>) -> Result<(), CheckError> {
    let Some(dir) = site.engine else { return Ok(()) };
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CheckError::Io { path: dir.display().to_string(), error })
        }
        _ => Ok(()),
    }
}
