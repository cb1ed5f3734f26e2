//! The files under `packs/`.

use cairn_format::PackId;

use super::PACKS_DIR;
use crate::StoreError;
use crate::disk::Disk;

/// The files under `packs/`.
#[derive(Default, Debug)]
pub struct PackListing {
    /// Sealed packs, with the lengths of their files.
    pub packs: Vec<(PackId, u64)>,
    /// Packs that were not sealed.
    pub unsealed: Vec<PackId>,
    /// Paths that cairn does not make.
    pub strange: Vec<String>,
}

/// Lists the files under `packs/`.
pub fn list_packs(disk: &dyn Disk) -> Result<PackListing, StoreError> {
    list_packs_in(disk, PACKS_DIR)
}

/// Lists the packs, or copies of packs, below a directory.
pub(crate) fn list_packs_in(disk: &dyn Disk, root: &str) -> Result<PackListing, StoreError> {
    let mut listing = PackListing::default();
    for dir in disk.list(root).map_err(StoreError::io(root))? {
        let path = format!("{root}/{}", dir.name);
        if !dir.is_dir {
            listing.strange.push(path);
            continue;
        }
        for file in disk.list(&path).map_err(StoreError::io(&path))? {
            let named =
                file.name.rsplit_once('.').and_then(|(stem, kind)| Some((PackId::parse(stem)?, kind)));
            match named {
                Some((pack, "pack")) if pack.directory() == dir.name => listing.packs.push((pack, file.len)),
                Some((pack, "new")) if pack.directory() == dir.name => listing.unsealed.push(pack),
                _ => listing.strange.push(format!("{path}/{}", file.name)),
            }
        }
    }
    Ok(listing)
}
