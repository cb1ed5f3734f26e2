//! Packs that were not finished when their mount ended: the next mount would remove them.

use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::report::Done;

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    for finding in found.findings.list.iter_mut().filter(|f| f.kind == "unsealed-pack") {
        let Some(path) = finding.file.as_deref().and_then(|file| file.strip_prefix("store/")) else {
            continue;
        };
        match site.store.remove(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CheckError::Io { path: format!("store/{path}"), error });
            }
            _ => finding.done(Done::Removed),
        }
    }
    Ok(Outcome::AsFound)
}
