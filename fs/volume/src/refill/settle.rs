//! Having files name the copies that can be read, and packs that nothing names any more go.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use cairn_format::key::{self, Key, tag};
use cairn_format::{EXTENT_RANGE, Footer, Ino, PackId, PieceKind, View, decode_pieces};
use cairn_store::{Located, stored_share};

use super::{Refill, RefillError, RefillStep, Tell};
use crate::checkpoint::MaintainError;
use crate::core::Core;
use crate::fold::{Mapped, Place, commit_batch};
use crate::gc::{PIECES, keep_pinned, no_room};
use crate::journal::Need;
use crate::maintenance::checkpoint_now;
use crate::scrub::{Affected, find_affected};
use crate::sync::PoisonError;

/// Extents looked at between two looks at whether to stop.
const PAGE: usize = 64;
/// How often files are gone through for what was copied meanwhile.
const ROUNDS: usize = 3;

/// Where a chunk of a new pack lies.
pub(super) fn located(footer: &Footer, frame: u32, slot: u32) -> Option<Located> {
    let entry = footer.frames.get(frame as usize)?;
    let before: usize = footer.frames.iter().take(frame as usize).map(|f| f.chunks as usize).sum();
    let chunk = footer.chunks.get(before + slot as usize)?;
    let stored = stored_share(entry, chunk);
    Some(Located { pack: footer.pack, frame, slot, len: chunk.len, stored, base: None })
}

impl Refill<'_> {
    /// Stores what waits, and has files name all that is known to be elsewhere now.
    pub(super) fn settle(&mut self, tell: Tell<'_>) -> Result<(), RefillError> {
        self.store()?;
        if self.places.is_empty() || self.options.dry_run {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            let refilled = self.pass(tell)?;
            self.report.places_refilled += refilled as u64;
            if refilled == 0 {
                break;
            }
            checkpoint_now(self.core)?;
        }
        keep_pinned(self.core, std::mem::take(&mut self.pins))?;
        checkpoint_now(self.core)?;
        self.places = HashMap::new();
        Ok(())
    }

    /// Goes through all extents once; how many places name another copy now.
    fn pass(&mut self, tell: Tell<'_>) -> Result<usize, RefillError> {
        let core = self.core;
        let (from, to) = key::all_tagged(tag::EXTENT);
        let (mut next, mut refilled, mut mapped) = (Some(from), 0, Vec::new());
        while let Some(from) = next {
            self.told(RefillStep::Storing, tell)?;
            let (page, rest) =
                core.look(|ns| ns.engine_page(&from, &to, PAGE)).map_err(MaintainError::from)?;
            for (key, value) in page {
                let Some(Key::Extent(ino, range, view)) = Key::decode(&key) else { continue };
                let pieces = decode_pieces(&value).unwrap_or_default();
                if pieces.iter().any(|piece| self.place(&piece.kind).is_some()) {
                    self.map(view, ino, range * EXTENT_RANGE, EXTENT_RANGE, &mut mapped)?;
                }
                if mapped.len() >= PIECES {
                    refilled += self.commit(std::mem::take(&mut mapped))?;
                }
            }
            next = rest;
        }
        refilled += self.commit(mapped)?;
        let mut above = Vec::new();
        core.ns.each_run_of_overlay(|ino, offset, run| {
            if self.place(&run.kind).is_some() {
                above.push((ino, offset, run.len));
            }
        });
        let mut mapped = Vec::new();
        for (ino, offset, len) in above {
            self.map(core.view, ino, offset, len, &mut mapped)?;
        }
        Ok(refilled + self.commit(mapped)?)
    }

    /// The copy that is to be named instead of a lost one.
    fn place(&self, kind: &PieceKind) -> Option<Located> {
        match kind {
            PieceKind::Chunk(at) if self.lost.contains(at) => {
                self.places.get(&at.chunk).filter(|place| place.len == at.chunk_len).copied()
            }
            _ => None,
        }
    }

    /// What of a part of a file is to name another copy.
    fn map(
        &self,
        view: View,
        ino: Ino,
        offset: u64,
        len: u64,
        mapped: &mut Vec<Mapped>,
    ) -> Result<(), RefillError> {
        let core = self.core;
        // What is above the engine counts: it may be something else by now.
        let runs = {
            let _lock = core.locks.read(ino);
            core.look(|ns| ns.runs(view, ino, offset, len)).map_err(MaintainError::from)?
        };
        for (offset, run) in runs {
            let (PieceKind::Chunk(piece), Some(place)) = (run.kind, self.place(&run.kind)) else { continue };
            mapped.push(Mapped {
                file: (view, ino),
                offset,
                // A run of a chunk is no longer than that.
                len: run.len as u32,
                was: vec![(offset, run)],
                chunk: piece.chunk,
                chunk_len: piece.chunk_len,
                from: piece.offset,
                place: Place::Found(place),
                base: None,
                first: None,
            });
        }
        Ok(())
    }

    fn commit(&self, mapped: Vec<Mapped>) -> Result<usize, RefillError> {
        let wait = |bytes| self.core.reserve(Need::Shrink, bytes).map_err(no_room);
        Ok(commit_batch(self.core, mapped, None, &wait)?)
    }

    /// The files that something of is lost still, and the packs that something lost should be in.
    pub(super) fn still_lost(&self) -> Result<(Affected, HashSet<PackId>), RefillError> {
        let needed = RefCell::new(HashSet::new());
        let affected = find_affected(self.core, &self.lost, &|at| {
            let found = self.options.dry_run && self.places.contains_key(&at.chunk);
            if !found {
                needed.borrow_mut().extend(at.places().map(|place| place.pack));
            }
            !found
        })?;
        Ok((affected, needed.into_inner()))
    }
}

/// Removes the files of damaged packs that no checkpoint refers to and that the store never came to know, because their
/// footers could not be read: no checkpoint does, or counts them. How many of `packs` are gone.
pub(super) fn drop_forgotten(core: &Core, packs: &HashSet<PackId>) -> Result<u64, RefillError> {
    checkpoint_now(core)?;
    let maintainer = core.maintainer.lock().unwrap_or_else(PoisonError::into_inner);
    let state = &maintainer.checkpoints;
    let mut gone = 0;
    for pack in packs.iter().filter(|pack| !state.refs.contains_key(*pack) && !state.packs.contains(*pack)) {
        // Nothing new can be found in one that is not known, so that nothing came to refer to it since.
        if core.store.knows(pack) {
            continue;
        }
        core.store.drop_pack(pack)?;
        gone += 1;
    }
    Ok(gone)
}
