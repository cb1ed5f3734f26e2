//! The namespace: checkpoint and journal merged, gone through in the order of the keys, with little memory
//! for each inode.

mod extents;
mod order;
mod overlay;
mod paths;
mod salvage;
mod state;
mod tree;

use std::collections::HashSet;
use std::sync::Arc;

use cairn_format::key::Key;
use cairn_format::{
    DirEntry, FormatError, Inode, OrderedEntry, PackId, PackKind, PackRefs, Totals, View, decode_pieces,
};
use cairn_store::disk::Disk;
use cairn_store::{ReadError, Store};
use cairn_volume::{ChainReadError, CheckpointChain};

use crate::CheckError;
use crate::footers::Footers;
use crate::journal::JournalState;
use crate::packs::{ALONE, Packs};
use crate::progress::Progress;
use crate::report::{CheckTotals, Finding, Findings, Severity};
pub(crate) use extents::{Counts, GIVEN_UP, PieceCheck, Wish, given_up};
pub(crate) use overlay::Overlay;
pub(crate) use salvage::{Gap, Skip, gaps};
pub(crate) use state::{Entry, Record, StateCursor, Walk, hex};
pub(crate) use tree::FIRST_INO;
use tree::Tree;

/// Keys between two looks at whether to stop.
const PAUSE: u64 = 4096;

/// What the namespace is read from.
pub(crate) struct Sources<'a> {
    pub(crate) store: &'a Store,
    pub(crate) store_disk: &'a Arc<dyn Disk>,
    pub(crate) checkpoints: &'a CheckpointChain,
    pub(crate) journal: &'a JournalState,
    pub(crate) packs: &'a Packs,
    /// Whether the volume was unmounted cleanly.
    pub(crate) clean: bool,
}

/// Both states, to be gone through as often as needed.
pub(crate) struct Names<'a> {
    pub(crate) store: &'a Store,
    pub(crate) checkpoints: &'a CheckpointChain,
    pub(crate) overlay: &'a Overlay,
    /// Frames of the checkpoints that are left out.
    pub(crate) skip: &'a Skip,
}

impl Names<'_> {
    pub(crate) fn walk(&self) -> Result<Walk<'_>, ChainReadError> {
        Walk::new(self.store, self.checkpoints, self.overlay, self.skip)
    }
}

/// Checks the namespace, adds what it holds to `totals`, and gives all findings the paths of their inodes.
pub(crate) fn check_namespace(
    sources: &Sources<'_>,
    totals: &mut CheckTotals,
    findings: &mut Findings,
    progress: &dyn Progress,
) -> Result<(), CheckError> {
    progress.step("namespace");
    let tip = sources.checkpoints.entries.last().map_or(cairn_format::CheckpointRef::NONE, |e| e.at);
    let mut overlay = Overlay::default();
    if !sources.clean {
        sources.journal.replay(tip, |mutation, at| overlay.apply(mutation, at));
    }
    let skip = Skip::new();
    let names =
        Names { store: sources.store, checkpoints: sources.checkpoints, overlay: &overlay, skip: &skip };
    let mut check = Check {
        tree: Tree::default(),
        counts: Counts::default(),
        counted: Totals::default(),
        pieces: PieceCheck {
            packs: sources.packs,
            footers: Footers::new(sources.store_disk.clone()),
            journal: sources.journal,
            alone: HashSet::new(),
        },
        clean: sources.clean,
        findings,
    };
    match check.all(&names, progress) {
        Ok(0) if sources.checkpoints.entries.is_empty() => {}
        Ok(_) => {
            check.finish(&names);
            forgive_lone_twins(sources, &check.pieces.alone, check.findings);
        }
        Err(Stop::Cancelled) => return Err(CheckError::Cancelled),
        Err(Stop::Unreadable(error)) => unreadable(&error, check.findings),
    }
    let Check { tree, .. } = check;
    totals.inodes = tree.totals.inodes;
    totals.files = tree.totals.files;
    totals.directories = tree.totals.directories;
    totals.logical = tree.totals.logical;
    // Where names cannot be read, that was found above; inodes go by their numbers then.
    let _ = paths::resolve(&mut findings.list, &names, &tree);
    Ok(())
}

/// A data pack that only its twin is left of, and that nothing refers to, was dropped: so is its twin.
fn forgive_lone_twins(sources: &Sources<'_>, used: &HashSet<PackId>, findings: &mut Findings) {
    let data = |pack: &PackId| {
        let described = sources.packs.get(pack).and_then(|result| result.facts.described);
        described.is_some_and(|(_, kind)| kind == PackKind::Data)
    };
    for finding in findings.list.iter_mut().filter(|finding| finding.kind == ALONE) {
        let pack = finding.pack.as_deref().and_then(PackId::parse);
        if pack.is_some_and(|pack| data(&pack) && !used.contains(&pack)) {
            dropped(finding);
        }
    }
}

/// A finding about what is left of a pack that was dropped.
pub(crate) fn dropped(finding: &mut Finding) {
    finding.severity = Severity::Info;
    finding.what = "the second copy of a pack that was dropped; the next mount removes it".into();
}

/// Notes that metadata packs cannot be read.
pub(crate) fn unreadable(error: &ChainReadError, findings: &mut Findings) {
    let what = format!("{error}; what lies behind it was not checked");
    let finding = Finding::damage("checkpoint", what);
    let (ChainReadError::Wrong { pack, .. }
    | ChainReadError::Read(
        ReadError::Missing { pack }
        | ReadError::Io { pack, .. }
        | ReadError::Damaged { pack, .. }
        | ReadError::Mismatch { pack, .. },
    )) = error;
    findings.push(finding.pack(*pack).advice("restore the volume, or the pack named, from a backup"));
}

enum Stop {
    Cancelled,
    Unreadable(ChainReadError),
}

struct Check<'a> {
    tree: Tree,
    counts: Counts,
    /// What the checkpoint says that it adds up to.
    counted: Totals,
    pieces: PieceCheck<'a>,
    clean: bool,
    findings: &'a mut Findings,
}

impl Check<'_> {
    /// Goes through all keys; gives how many there are.
    fn all(&mut self, names: &Names<'_>, progress: &dyn Progress) -> Result<u64, Stop> {
        let mut keys = 0u64;
        let mut walk = names.walk().map_err(Stop::Unreadable)?;
        while let Some(entry) = walk.next().map_err(Stop::Unreadable)? {
            keys += 1;
            if keys.is_multiple_of(PAUSE) && progress.is_cancelled() {
                return Err(Stop::Cancelled);
            }
            let Some(key) = Key::decode(&entry.key) else {
                let what = format!("the key {} is none of the namespace's", hex(&entry.key));
                self.findings.push(Finding::damage("key", what));
                continue;
            };
            if let Err(error) = self.key(&key, &entry) {
                let finding =
                    Finding::damage("value", format!("the value of {key:?} makes no sense: {error}"));
                self.findings.push(match key {
                    Key::Inode(ino, _) | Key::Extent(ino, ..) | Key::Name(ino, ..) => finding.inode(ino),
                    _ => finding,
                });
            }
        }
        Ok(keys)
    }

    fn key(&mut self, key: &Key, entry: &Entry) -> Result<(), FormatError> {
        if let Key::Name(_, _, view)
        | Key::Extent(_, _, view)
        | Key::Inode(_, view)
        | Key::Target(_, view)
        | Key::Order(_, _, view)
        | Key::Orphan(_, view)
        | Key::Xattr(_, _, view) = key
            && *view != View::LIVE
        {
            let what = format!("{key:?} is of a view that does not exist");
            self.findings.push(Finding::damage("view", what));
            return Ok(());
        }
        self.at_checkpoint(key, entry)?;
        let Some(value) = entry.now() else { return Ok(()) };
        let Check { tree, pieces, findings, .. } = self;
        match key {
            Key::Name(dir, name, _) => tree.name(*dir, name, &DirEntry::decode(value)?, findings),
            Key::Extent(ino, range, _) => {
                let decoded = decode_pieces(value)?;
                let bytes = decoded.iter().filter(|p| p.kind != cairn_format::PieceKind::Hole);
                tree.totals.logical += bytes.map(|p| u64::from(p.len)).sum::<u64>();
                let end = pieces.range(*ino, *range, &decoded, findings);
                tree.extent(*ino, end);
            }
            Key::Inode(ino, _) => tree.inode(*ino, &Inode::decode(value)?, findings),
            Key::Target(ino, _) => tree.target(*ino, value, findings),
            Key::NextInode => match <[u8; 8]>::try_from(value) {
                Ok(bytes) => tree.next_ino(u64::from_le_bytes(bytes)),
                Err(_) => findings.push(Finding::damage("next-inode", "it is not 8 bytes long")),
            },
            Key::Order(dir, cookie, _) => tree.ordered(*dir, *cookie, &OrderedEntry::decode(value)?),
            Key::Orphan(ino, _) => tree.orphan(*ino, self.clean, findings),
            Key::Xattr(ino, ..) => tree.xattr(*ino, findings),
            Key::Totals | Key::Pack(_) => {}
        }
        Ok(())
    }

    /// The counts, which are right at checkpoints only.
    fn at_checkpoint(&mut self, key: &Key, entry: &Entry) -> Result<(), FormatError> {
        let Some(value) = entry.old.as_deref() else { return Ok(()) };
        match key {
            Key::Extent(ino, ..) => {
                let stored = self.counts.add(&decode_pieces(value)?);
                if stored > 0 {
                    self.tree.node(*ino).stored += stored;
                }
            }
            Key::Inode(ino, _) => {
                self.counts.totals.inodes += 1;
                let says = Inode::decode(value)?.stored;
                let counted = self.tree.node(*ino).stored;
                if says != counted {
                    let what =
                        format!("its inode says that it takes {says} stored bytes, it takes {counted}");
                    self.findings.push(Finding::damage("stored", what).inode(*ino));
                }
            }
            Key::Pack(pack) => self.counts.pack(*pack, PackRefs::decode(value)?, self.findings),
            Key::Totals => self.counted = Totals::decode(value)?,
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, names: &Names<'_>) {
        self.tree.finish(self.findings);
        std::mem::take(&mut self.counts).finish(self.counted, self.findings);
        let dirs = self.tree.out_of_order();
        if !dirs.is_empty()
            && let Err(error) = order::compare(&dirs, names, self.findings)
        {
            unreadable(&error, self.findings);
        }
    }
}
