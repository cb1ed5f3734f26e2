//! Damage that was met, and its mending (`heal/`).

use std::io;

use cairn_format::{PackId, StoreSuperblock};

use super::Store;
use crate::heal::{Examined, Health, Mended};
use crate::replicas::{BadReplica, check_replicas};
use crate::twins::Place;
use crate::{ReadError, StoreError, pack_path};

impl Store {
    /// What was found to be damaged, and what becomes of it.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Looks through one of the packs that damage was met in, and writes back what can be restored. Whether there was one.
    pub fn mend_next(&self) -> Result<bool, StoreError> {
        let known = |pack: &PackId| self.hub.knows(pack);
        let Some((pack, mended)) = self.health.mend_next(&*self.disk, known) else { return Ok(false) };
        // Who has it open may have the one that was there before, or have seen less of it.
        self.open_packs.remove(0, &pack);
        match mended {
            // It was dropped meanwhile, and came back under the name of what took its place.
            Ok(true) if !self.hub.knows(&pack) => {
                let path = pack_path(&pack);
                match self.disk.remove(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path)(e)),
                    _ => Ok(true),
                }
            }
            Err(StoreError::Read(ReadError::Missing { .. })) if !self.hub.knows(&pack) => Ok(true),
            mended => mended.map(|_| true),
        }
    }

    /// Writes back what [`crate::heal::examine`] found to be damaged of a pack, as far as it can be restored.
    pub fn mend(&self, examined: &Examined) -> Result<Mended, StoreError> {
        let known = self.hub.knows(&examined.pack);
        if examined.missing && !known {
            // It was dropped, and its twin goes with it.
            return Ok(Mended::default());
        }
        let mended = self.health.write_back(&*self.disk, examined);
        // As after [`Store::mend_next`].
        self.open_packs.remove(0, &examined.pack);
        // Not one that was never known: files may lie in a pack whose footer could not be read.
        let written_anew = |mended: &Mended| mended.relocated || mended.copied;
        if mended.as_ref().is_ok_and(written_anew) && known && !self.hub.knows(&examined.pack) {
            // It was dropped meanwhile, and its copy took over the name.
            self.drop_pack(&examined.pack)?;
            if examined.place != Place::Pack {
                self.drop_twin(&examined.pack, examined.place)?;
            }
        }
        mended
    }

    /// Holds both replicas of the store's superblock against what was read of it; with `repair` one that cannot be used
    /// is written again.
    pub fn check_superblock(&self, repair: bool) -> Vec<BadReplica> {
        let usable = |bytes: &[u8]| StoreSuperblock::decode(bytes).map(drop);
        check_replicas(&*self.disk, usable, &self.superblock.encode(), repair)
    }
}
