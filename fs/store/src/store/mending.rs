//! Damage that was met, and its mending (`heal/`).

use std::io;
use std::ops::Range;

use cairn_format::{FrameEntry, PackId, StoreSuperblock};

use super::Store;
use crate::heal::{Examined, Health, Mended};
use crate::replicas::{BadReplica, check_replicas};
use crate::twins::Place;
use crate::{PackReader, ReadError, StoreError, pack_path};

impl Store {
    /// What was found to be damaged, and what becomes of it.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Looks through one of the packs that damage was met in, and writes back what can be restored. Whether there was one.
    pub fn mend_next(&self) -> Result<bool, StoreError> {
        let known = |pack: &PackId| self.hub.knows(pack);
        let note = |pack: PackId, mended: &Mended| self.find_lost(pack, &mended.lost);
        let Some((pack, mended)) = self.health.mend_next(&*self.disk, known, note) else { return Ok(false) };
        // Who has it open may have the one that was there before, or have seen less of it.
        self.open_packs.remove(0, &pack);
        match mended {
            // It was dropped meanwhile, and came back under the name of what took its place.
            Ok(mended) if (mended.relocated || mended.copied) && !self.hub.knows(&pack) => {
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

    /// Finds the frames that lie in what is lost of a pack, and cannot be read.
    fn find_lost(&self, pack: PackId, lost: &[Range<u64>]) {
        if lost.is_empty() {
            return;
        }
        // Past whoever heals: it was tried just now. Without a footer nobody finds anything in it.
        let opened = PackReader::open(&*self.disk, pack).and_then(|reader| Ok((reader.footer()?, reader)));
        let Ok((footer, reader)) = opened else { return };
        let touches = |entry: &FrameEntry| {
            let end = entry.offset + u64::from(entry.len);
            lost.iter().any(|range| range.start < end && range.end > entry.offset)
        };
        for (number, entry) in (0u32..).zip(&footer.frames) {
            if touches(entry) && reader.frame(entry).is_err() {
                self.health.note_lost(pack, number);
            }
        }
    }

    /// Somebody looked through a pack, and found that these frames of it cannot be read or are not what they should be; or
    /// that nothing can, where there are none. Nothing new is found there from now on.
    pub fn note_lost<'f>(&self, pack: PackId, frames: Option<impl IntoIterator<Item = &'f u32>>) {
        match frames {
            Some(frames) => frames.into_iter().for_each(|frame| {
                self.health.note_lost(pack, *frame);
            }),
            None => {
                self.open_packs.remove(0, &pack);
                self.chunk_tables.remove(0, &pack);
            }
        }
    }

    /// Has whoever mends look through a pack: something of it was lost when it was last looked through. Until that is over nothing
    /// new is found in it.
    pub fn suspect(&self, pack: &PackId) {
        if self.hub.knows(pack) {
            self.health.suspect(*pack);
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
        if let Ok(mended) = &mended
            && examined.place == Place::Pack
        {
            self.find_lost(examined.pack, &mended.lost);
        }
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
