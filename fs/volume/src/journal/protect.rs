//! Giving segments parity, and mending them by it: what goes on behind the callers, and what a mount, a scrub and fsck do.

use std::io;
use std::ops::Range;
use std::time::Duration;

use cairn_format::ParityGeometry;
use cairn_store::disk::{Access, Disk};
use cairn_store::heal::{HealOutcome, HealPlace, Health};

use super::parity::{self, Examined, Mended, Sidecar, parity_len};
use super::segment::SegmentFile;
use super::{Chain, JOURNAL_DIR, Journal};
use crate::sync::{Arc, MutexGuard, PoisonError};

/// What is wrong with a segment that has parity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentDamage {
    /// Its file.
    pub path: String,
    /// Bytes that parity restores.
    pub restorable: Vec<Range<u64>>,
    /// Bytes that it does not reach.
    pub lost: Vec<Range<u64>>,
    /// Whether its file is too short, though all that was cut off comes back.
    pub short: bool,
    /// Its parity's file, where that is damaged itself: it is no loss, and is made again.
    pub parity: Option<String>,
}

impl Journal {
    pub(super) fn tending(&self) -> MutexGuard<'_, ()> {
        // It guards nothing that a panic could leave half done: a segment's parity says of itself whether it is whole.
        self.tending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_damaged(&self, number: u64) {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// Removes parity that belongs to none of the segments in use. The caller makes that certain.
    pub(super) fn remove_strays(&self) {
        let kept: Vec<String> =
            self.log().live.iter().filter_map(|s| Some(s.parity.as_ref()?.path().into())).collect();
        // Where they cannot be listed there is more trouble than this.
        for path in parity::all_paths(&*self.disk).unwrap_or_default() {
            if !kept.contains(&path) {
                self.remove_parity(&path);
            }
        }
    }

    fn remove_parity(&self, path: &str) {
        if let Err(error) = parity::remove(&*self.disk, path) {
            // What segment it was of, it says itself.
            tracing::warn!("{path} is of no use any more, and could not be removed: {error}");
        }
    }

    /// Removes the parity of segments that are not in use any more, for certain.
    pub(super) fn remove_parity_of(&self, segments: &[SegmentFile]) {
        let mut paths = segments.iter().filter_map(|segment| segment.parity.as_ref()).peekable();
        if paths.peek().is_none() {
            return;
        }
        paths.for_each(|parity| self.remove_parity(parity.path()));
        if let Err(error) = self.disk.sync_dir(JOURNAL_DIR) {
            tracing::warn!(
                "{JOURNAL_DIR} could not be synced: parity that was removed may be there again: {error}"
            );
        }
    }

    /// Bytes of the parity of segments.
    pub(crate) fn parity_bytes(&self) -> u64 {
        self.log().live.iter().filter_map(|segment| Some(segment.parity.as_ref()?.len())).sum()
    }

    /// Gives parity to the oldest segment that has none, was closed `age` ago or longer, and is synced; whether there was one.
    /// `room` is what the disk has to spare.
    pub(crate) fn protect_next(&self, geometry: ParityGeometry, age: Duration, room: u64) -> bool {
        if geometry.is_none() || parity_len(&self.shape, geometry) > room {
            return false;
        }
        let _tending = self.tending();
        let due = |segment: &&SegmentFile| {
            segment.parity.is_none()
                && !segment.unprotected
                && segment.synced >= segment.last
                && segment.closed.is_some_and(|at| at.elapsed() >= age)
        };
        let segment = {
            let log = self.log();
            if log.stopped.is_some() {
                return false;
            }
            let open = log.live.back().map(|segment| segment.number);
            match log.live.iter().filter(|segment| Some(segment.number) != open).find(due) {
                Some(segment) => segment.clone(),
                None => return false,
            }
        };
        // Nobody uses it again meanwhile: that takes the same lock.
        let made = Sidecar::make(&*self.disk, &segment, &self.shape, geometry);
        let mut log = self.log();
        if let Some(live) = log.live.iter_mut().find(|live| live.number == segment.number) {
            match made {
                Ok(parity) => live.parity = Some(Arc::new(parity)),
                Err(error) => {
                    live.unprotected = true;
                    tracing::warn!("{} goes without parity: {error}", segment.path);
                }
            }
        }
        true
    }

    /// Gives up all parity, for room; whether there was any.
    pub(crate) fn give_up_parity(&self) -> bool {
        let _tending = self.tending();
        let given: Vec<SegmentFile> = {
            let mut log = self.log();
            let mut given = Vec::new();
            // Those that are read by way of it need it.
            for live in log.live.iter_mut().filter(|live| live.parity.is_some() && !live.restored) {
                given.push(live.clone());
                (live.parity, live.unprotected) = (None, true);
            }
            given
        };
        self.remove_parity_of(&given);
        !given.is_empty()
    }

    /// Mends the segments that damage was met in; whether there were any.
    pub(crate) fn mend(&self, health: &Health) -> bool {
        let waiting = std::mem::take(&mut *self.damaged.lock().unwrap_or_else(PoisonError::into_inner));
        let any = !waiting.is_empty();
        for number in waiting {
            self.mend_segment(number, health, &mut || true);
        }
        any
    }

    /// Looks through a segment, if it is in use and has parity, and writes back what comes back; none where it was stopped, or
    /// there was nothing to look at.
    pub(super) fn mend_segment(
        &self,
        number: u64,
        health: &Health,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Mended> {
        let _tending = self.tending();
        let segment = self.live_segment(number)?;
        let parity = segment.parity.as_ref()?;
        let examined = parity.examine(&*segment.file, go_on)?;
        let mended = write_back(&segment, parity, &examined, health);
        if let Some(live) = self.log().live.iter_mut().find(|live| live.number == number) {
            // What the disk did not take is not tried again with every read.
            live.restored = !mended.lost.is_empty();
        }
        Some(mended)
    }

    /// Makes the parity of a segment again, where its file is not what was written; whether it was not.
    pub(super) fn renew_parity(&self, number: u64) -> bool {
        let _tending = self.tending();
        let Some(segment) = self.live_segment(number) else { return false };
        let Some(parity) = segment.parity.as_ref().filter(|parity| !parity.is_whole()) else { return false };
        let made = Sidecar::make(&*self.disk, &segment, &self.shape, parity.header().parity);
        if let Some(live) = self.log().live.iter_mut().find(|live| live.number == number) {
            match made {
                Ok(parity) => live.parity = Some(Arc::new(parity)),
                Err(error) => {
                    (live.parity, live.unprotected) = (None, true);
                    tracing::warn!("{} goes without parity: {error}", segment.path);
                }
            }
        }
        true
    }
}

/// Writes back what comes back of a segment, and tells of it.
fn write_back(segment: &SegmentFile, parity: &Sidecar, examined: &Examined, health: &Health) -> Mended {
    let path = &segment.path;
    if examined.damaged.is_empty() && !examined.short {
        return Mended::default();
    }
    let mended = parity.write_back(&*segment.file, examined).unwrap_or_else(|error| {
        tracing::error!("{path}: what is damaged was not written back: {error}");
        let Mended { mut restored, mut lost } = parity.reach(&*segment.file, examined);
        lost.append(&mut restored);
        Mended { restored, lost }
    });
    for range in &mended.restored {
        let what = format!("{} bytes at {} written back", range.end - range.start, range.start);
        tracing::warn!("{path}, segment {}: {what}", segment.number);
        health.tell_of(HealPlace::Segment(path.clone()), range.start, what, HealOutcome::Rewritten);
    }
    for range in &mended.lost {
        let bytes = range.end - range.start;
        let at = range.start;
        tracing::error!("{path}, segment {}: {bytes} bytes at {at} are damaged still", segment.number);
    }
    mended
}

impl Chain {
    /// The segments of which something was restored from parity, in memory.
    pub(crate) fn restored(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter(|segment| segment.restored).map(|segment| &segment.path[..])
    }

    /// Writes back what was restored from parity, and tells of it. What the disk does not take is restored whenever it is read.
    pub(crate) fn write_back(&mut self, health: &Health) {
        for segment in self.segments.iter_mut().filter(|segment| segment.restored) {
            let Some(parity) = segment.parity.clone() else { continue };
            let Some(examined) = parity.examine(&*segment.file, &mut || true) else { continue };
            segment.restored = !write_back(segment, &parity, &examined, health).lost.is_empty();
        }
    }

    /// What is wrong with segments that have parity, and what would become of it; none where `go_on` ended it.
    pub fn examine(&self, go_on: &mut dyn FnMut() -> bool) -> Option<Vec<SegmentDamage>> {
        let mut found = Vec::new();
        for segment in &self.segments {
            let Some(parity) = &segment.parity else { continue };
            let examined = parity.examine(&*segment.file, go_on)?;
            let Mended { restored, lost } = parity.reach(&*segment.file, &examined);
            let damage = SegmentDamage {
                path: segment.path.clone(),
                restorable: restored,
                short: examined.short && lost.is_empty(),
                lost,
                parity: (!parity.is_whole()).then(|| parity.path().to_owned()),
            };
            if !damage.is_none() {
                found.push(damage);
            }
        }
        Some(found)
    }

    /// Writes back what comes back of a segment; whether all is right again.
    pub fn mend(&self, disk: &dyn Disk, damage: &SegmentDamage) -> io::Result<bool> {
        let segment = self.segments.iter().find(|segment| segment.path == damage.path);
        let parity = segment.and_then(|segment| segment.parity.as_ref()).ok_or(io::ErrorKind::NotFound)?;
        let file = disk.open(&damage.path, Access::Write)?;
        let examined = parity.examine(&*file, &mut || true).unwrap_or_default();
        Ok(parity.write_back(&*file, &examined)?.lost.is_empty())
    }
}

impl SegmentDamage {
    fn is_none(&self) -> bool {
        self.restorable.is_empty() && self.lost.is_empty() && !self.short && self.parity.is_none()
    }
}
