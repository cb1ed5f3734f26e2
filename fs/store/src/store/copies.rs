//! Second copies of packs: found, wanted, made, dropped; beside the packs and on other disks (`twins.rs`, `across.rs`).

use std::collections::HashSet;
use std::io;

use cairn_format::{PackId, PackSummary};

use super::{PackListing, Store, list_packs};
use crate::across::{AcrossDir, place_of};
use crate::heal::examine_at;
use crate::hub::is_data;
use crate::twins::{self, Place, TwinUsage, Twins, list_place};
use crate::{PackReader, StoreError};

impl Store {
    /// Finds the twins that there are. One whose pack is missing makes that known: whether anything refers to it, and it is
    /// to be written anew, is for others to say. Until then nothing new is found in it.
    pub(super) fn load_twins(&self, packs: &PackListing, read_only: bool) -> Result<(), StoreError> {
        for (number, dir) in (1u16..).zip(&self.across) {
            match &dir.missing {
                None => self.load_place(Place::Across(number), packs, read_only)?,
                Some(why) => tracing::error!(
                    "second copies in {} can neither be made nor used, what is written is there once: {why}",
                    dir.path
                ),
            }
        }
        self.load_place(Place::Twin, packs, read_only)
    }

    fn load_place(&self, place: Place, packs: &PackListing, read_only: bool) -> Result<(), StoreError> {
        let listing = match list_place(&*self.disk, place) {
            Ok(listing) => listing,
            Err(error) => {
                tracing::error!("second copies of packs are not used: {error}");
                return Ok(());
            }
        };
        if !read_only {
            twins::remove_unsealed(&*self.disk, place, &listing.unsealed)?;
        }
        self.twins_at(place).found(&listing.packs);
        for (pack, _) in twins::lone(&listing, packs) {
            if self.hub.knows(&pack) {
                continue;
            }
            match self.reader(pack).and_then(|reader| Ok((reader.footer()?, reader.len()?))) {
                Ok((footer, len)) => self.hub.restore_lone(&footer, len),
                Err(error) => tracing::error!("it is missing, and its second copy is of no use: {error}"),
            }
        }
        Ok(())
    }

    fn twins_at(&self, place: Place) -> &Twins {
        match place {
            Place::Across(_) => &self.twins_across,
            Place::Pack | Place::Twin => &self.twins,
        }
    }

    /// Where a pack has its twin on another disk, where that is there.
    fn across_of(&self, pack: &PackId) -> Option<Place> {
        let place = place_of(pack, self.across.len())?;
        let Place::Across(number) = place else { return None };
        let dir = self.across.get(usize::from(number).checked_sub(1)?)?;
        dir.missing.is_none().then_some(place)
    }

    /// The directories on other disks that every pack is to have a twin in.
    pub fn across(&self) -> &[AcrossDir] {
        &self.across
    }

    /// Packs that are known though their files are not there: their twins are.
    pub fn lone_twins(&self) -> Result<Vec<PackId>, StoreError> {
        let there: HashSet<PackId> =
            list_packs(&*self.disk)?.packs.into_iter().map(|(pack, _)| pack).collect();
        let known = self.hub.summaries().into_iter().map(|summary| summary.pack);
        Ok(known.filter(|pack| !there.contains(pack)).collect())
    }

    /// Has a pack that is known by its twin alone be written anew, by whoever mends.
    pub fn restore_from_twin(&self, pack: &PackId) {
        self.health.suspect(*pack);
    }

    /// From now on these packs are to have a twin, and whoever mends makes those that are missing. What has one keeps it. Where
    /// there are directories on other disks all packs are to have one there.
    pub fn want_twins(&self, packs: impl Iterator<Item = PackId>) {
        let here = self.twins.want(packs);
        if self.want_across() || here {
            self.health.wake();
        }
    }

    /// Has all packs be wanted on the other disks: data first, so that no metadata is there without it.
    fn want_across(&self) -> bool {
        if self.across.is_empty() {
            return false;
        }
        let mut all = self.hub.summaries();
        all.sort_by_key(|summary| (!is_data(summary), summary.pack));
        let all = all.into_iter().map(|summary| summary.pack);
        self.twins_across.want(all.filter(|pack| self.across_of(pack).is_some()))
    }

    /// Makes all twins on the other disks, as far as that goes now; an error tells that it did not go all the way.
    pub fn make_across(&self) -> Result<(), StoreError> {
        if !self.want_across() {
            return Ok(());
        }
        while let Some(made) = self.make_next_across() {
            made?;
        }
        Ok(())
    }

    /// Whether a twin is to be made.
    pub fn has_twins_to_make(&self) -> bool {
        self.twins.is_ready() || self.twins_across.is_ready()
    }

    /// What there is of twins: on the same disk, and on others.
    pub fn twin_usage(&self) -> (TwinUsage, TwinUsage) {
        let mut across = self.twins_across.usage();
        if self.across.iter().any(|dir| dir.missing.is_some()) {
            let lacks = |pack: &PackSummary| self.across_of(&pack.pack).is_none();
            across.waiting += self.hub.summaries().iter().filter(|pack| lacks(pack)).count() as u64;
        }
        (self.twins.usage(), across)
    }

    /// The places of a pack's twins, with their lengths.
    pub fn twins_of(&self, pack: &PackId) -> Vec<(Place, u64)> {
        let across = self.across_of(pack).map(|place| (place, self.twins_across.len(pack)));
        let both = [Some((Place::Twin, self.twins.len(pack))), across];
        both.into_iter().flatten().filter(|(_, len)| *len > 0).collect()
    }

    /// The lengths of a pack's twins together.
    pub fn twin_len(&self, pack: &PackId) -> u64 {
        self.twins_of(pack).iter().map(|(_, len)| len).sum()
    }

    /// Makes a twin that is wanted, if there is `room` on the store's disk for its bytes, and gives how many they are; none where
    /// none is to be made.
    pub fn make_next_twin(&self, room: impl Fn(u64) -> bool) -> Option<Result<u64, StoreError>> {
        let Some(pack) = self.twins.next() else { return self.make_next_across() };
        Some(self.make_twin(pack, Place::Twin, room))
    }

    fn make_next_across(&self) -> Option<Result<u64, StoreError>> {
        let pack = self.twins_across.next()?;
        let Some(place) = self.across_of(&pack) else { return Some(Ok(0)) };
        let made = self.make_twin(pack, place, |_| true);
        // A pack that cannot be read, or is gone, is no fault of that disk's; any other is met by the next as well. And no
        // metadata is to be there without its data.
        if matches!(made, Err(StoreError::Io { .. })) {
            self.twins_across.pause();
        }
        Some(made)
    }

    fn make_twin(&self, pack: PackId, place: Place, room: impl Fn(u64) -> bool) -> Result<u64, StoreError> {
        let set = self.twins_at(place);
        let _turn = set.turn();
        if !self.hub.knows(&pack) || set.has(&pack) {
            return Ok(0);
        }
        let path = place.path(&pack);
        // Not what is in it already when its pack is missing, and is written anew from that.
        let reader = PackReader::open(&*self.disk, pack)?;
        let len = reader.len()?;
        if !room(len) {
            let error = io::Error::from(io::ErrorKind::StorageFull);
            return Err(StoreError::Io { path, error });
        }
        twins::copy_pack(&*self.disk, reader.file(), &pack, place, len).map_err(StoreError::io(&path))?;
        // What counts as a second copy was read from the medium once.
        if let Some(examined) = examine_at(&*self.disk, place, pack, &mut |_| true)?
            && !examined.is_whole()
        {
            self.health.suspect(pack);
            self.health.write_back(&*self.disk, &examined)?;
        }
        set.made(pack, len);
        if !self.hub.knows(&pack) {
            // It was dropped meanwhile.
            self.drop_twin(&pack, place)?;
        }
        Ok(len)
    }

    /// Drops all twins of a pack.
    pub(super) fn drop_twins(&self, pack: &PackId) -> Result<(), StoreError> {
        if self.twins.has(pack) {
            self.drop_twin(pack, Place::Twin)?;
        }
        if let Some(place) = place_of(pack, self.across.len()).filter(|_| self.twins_across.has(pack))
            && let Err(error) = self.drop_twin(pack, place)
        {
            // That disk's failing is to keep nothing here. It is found there by the next mount that finds the disk.
            tracing::warn!("the second copy of a pack that nothing refers to could not be removed: {error}");
            self.twins_across.forget(pack);
        }
        Ok(())
    }

    pub(super) fn drop_twin(&self, pack: &PackId, place: Place) -> Result<(), StoreError> {
        let path = place.path(pack);
        match self.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path)(e)),
            _ => {
                self.twins_at(place).forget(pack);
                Ok(())
            }
        }
    }
}
