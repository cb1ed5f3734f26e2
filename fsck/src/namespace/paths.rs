//! Finding out what affected inodes are called: the names of the namespace, gone through once more.

use std::collections::{HashMap, HashSet};

use cairn_format::key::{Key, tag};
use cairn_format::{DirEntry, FileKind, Ino};
use cairn_volume::ChainReadError;

use super::Names;
use super::tree::Tree;
use crate::report::Finding;

/// Names of one inode that are told.
const NAMES_MAX: usize = 4;
/// Directories on the way up, in case there is no root at the end of it.
const DEPTH_MAX: usize = 4096;

type Named = HashMap<u64, Vec<(u64, Vec<u8>)>>;

/// Fills in the paths of all findings that name an inode.
pub(super) fn resolve(
    findings: &mut [Finding],
    names: &Names<'_>,
    tree: &Tree,
) -> Result<(), ChainReadError> {
    let wanted: HashSet<u64> = findings.iter().filter_map(|f| f.inode).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let named = names_of(&wanted, names)?;
    let mut above = HashSet::new();
    for (dir, _) in named.values().flatten() {
        let mut at = *dir;
        while at != Ino::ROOT.0 && at != 0 && above.insert(at) {
            at = tree.dirs.get(&at).map_or(0, |dir| dir.parent);
        }
    }
    let mut dirs = Named::new();
    if !above.is_empty() {
        dirs = names_of(&above, names)?;
    }
    let mut paths: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    for ino in wanted {
        let mut all: Vec<Vec<u8>> = named.get(&ino).into_iter().flatten().map(|at| path(at, &dirs)).collect();
        if ino == Ino::ROOT.0 {
            all.push("/".into());
        }
        all.sort();
        paths.insert(ino, all);
    }
    for finding in findings {
        if let Some(found) = finding.inode.and_then(|ino| paths.get(&ino)) {
            finding.paths = found.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
            finding.names.clone_from(found);
        }
    }
    Ok(())
}

fn names_of(wanted: &HashSet<u64>, names: &Names<'_>) -> Result<Named, ChainReadError> {
    let mut named = Named::new();
    let mut walk = names.walk()?;
    while let Some(entry) = walk.next()? {
        if entry.key.first() != Some(&tag::NAME) {
            break;
        }
        let (Some(Key::Name(dir, name, _)), Some(value)) = (Key::decode(&entry.key), entry.now()) else {
            continue;
        };
        let Ok(leads) = DirEntry::decode(value) else { continue };
        if wanted.contains(&leads.ino.0) {
            let found = named.entry(leads.ino.0).or_default();
            let most = if leads.kind == FileKind::Directory { 1 } else { NAMES_MAX };
            if found.len() < most {
                found.push((dir.0, name));
            }
        }
    }
    Ok(named)
}

/// A path from the root; from `…` where there is no way up.
fn path(at: &(u64, Vec<u8>), dirs: &Named) -> Vec<u8> {
    let mut parts = vec![at.1.as_slice()];
    let mut dir = at.0;
    while dir != Ino::ROOT.0 && parts.len() < DEPTH_MAX {
        let Some((parent, name)) = dirs.get(&dir).and_then(|names| names.first()) else {
            parts.push("…".as_bytes());
            parts.reverse();
            return parts.join(&b'/');
        };
        parts.push(name);
        dir = *parent;
    }
    parts.push(b"");
    parts.reverse();
    parts.join(&b'/')
}
