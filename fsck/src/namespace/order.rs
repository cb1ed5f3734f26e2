//! Directories whose names and whose order do not agree: which names they are.

use std::collections::{BTreeMap, HashSet};

use cairn_format::key::{Key, tag};
use cairn_format::{DirEntry, FileKind, Ino, OrderedEntry};
use cairn_volume::ChainReadError;

use super::Names;
use crate::report::{Finding, Findings};

type Place = (u64, u64);
type Leads = (Ino, FileKind, Vec<u8>);

/// Goes through the names of `dirs` once more, and tells of each that has no entry in the order, or the
/// other way round.
pub(super) fn compare(
    dirs: &[u64],
    names: &Names<'_>,
    findings: &mut Findings,
) -> Result<(), ChainReadError> {
    let dirs: HashSet<u64> = dirs.iter().copied().collect();
    let mut by_name: BTreeMap<Place, Vec<Leads>> = BTreeMap::new();
    let mut walk = names.walk()?;
    while let Some(entry) = walk.next()? {
        if entry.key.first() > Some(&tag::ORDER) {
            break;
        }
        let Some(value) = entry.now() else { continue };
        match Key::decode(&entry.key) {
            Some(Key::Name(dir, name, _)) if dirs.contains(&dir.0) => {
                if let Ok(found) = DirEntry::decode(value) {
                    let leads = (found.ino, found.kind, name);
                    by_name.entry((dir.0, found.cookie)).or_default().push(leads);
                }
            }
            Some(Key::Order(dir, cookie, _)) if dirs.contains(&dir.0) => {
                let Ok(found) = OrderedEntry::decode(value) else { continue };
                let same = by_name.get_mut(&(dir.0, cookie));
                let leads = (found.ino, found.kind, found.name);
                let known = same.and_then(|all| {
                    let at = all.iter().position(|one| *one == leads)?;
                    Some(all.swap_remove(at))
                });
                if known.is_none() {
                    let what = format!(
                        "directory {dir} lists it as {:?}, but has no such name for it",
                        String::from_utf8_lossy(&leads.2)
                    );
                    findings.push(Finding::damage("order", what).inode(leads.0));
                }
            }
            _ => {}
        }
    }
    for ((dir, _), left) in by_name {
        for (ino, _, name) in left {
            let name = String::from_utf8_lossy(&name);
            let what = format!("directory {dir} has the name {name:?} for it, but does not list it");
            findings.push(Finding::damage("order", what).inode(ino));
        }
    }
    Ok(())
}
