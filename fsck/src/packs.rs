//! The packs: every frame of every one read, checked, decoded, and each chunk hashed anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cairn_format::{
    ChunkEntry, ChunkId, Footer, FrameEntry, IndexSlot, PACK_HEADER_LEN, PackHeader, PackId, PackKind,
    StoreSuperblock, Uuid,
};
use cairn_page::PackState;
use cairn_store::disk::{Access, Disk};
use cairn_store::heal::{examine_at, examine_spare};
use cairn_store::{
    ACROSS_PATHS, PACKS_DIR, PackListing, PackReader, Place, ReadError, StoreError, TWINS_DIR, across_dirs,
    list_packs, list_place, pack_path,
};

use crate::CheckError;
use crate::index::{Index, check_slots};
use crate::progress::Progress;
use crate::replaces::check_replaces;
use crate::report::{CheckTotals, Finding, Findings, Severity};

/// What is said of damage that costs nothing yet.
const RESTORES: &str =
    "parity restores it: mounted reads are right, and fsck.cairn -p or cairn scrub writes it back";

const TWIN_RESTORES: &str =
    "mounted reads are right, and fsck.cairn -p or a mount writes the pack anew from it";
/// The kind of a finding: a pack that is missing, while its twin is not.
pub(crate) const ALONE: &str = "pack-missing";

/// What is known of a pack after it was read.
#[derive(Default)]
pub(crate) struct PackFacts {
    /// The volume that wrote it, and what it holds; none where no copy of its footer can be used.
    pub(crate) described: Option<(Uuid, PackKind)>,
    /// The frames that cannot be read, each with the reason.
    pub(crate) bad_frames: BTreeMap<u32, String>,
    /// Chunks, by frame and slot, whose bytes are not what their ids say.
    pub(crate) bad_chunks: BTreeSet<(u32, u32)>,
}

/// A pack that was gone through.
#[derive(Default)]
pub(crate) struct PackResult {
    pub(crate) facts: PackFacts,
    /// Whether only its twin is there.
    pub(crate) alone: bool,
    /// The length of its file then, and of its twins' together.
    len: u64,
    twin_len: u64,
    /// Whether it has one on the same disk.
    pub(crate) has_twin: bool,
    /// Whether something of it does not come back.
    lost: bool,
    findings: Vec<Finding>,
    /// Findings beyond [`FINDINGS_MAX`].
    left_out: u64,
    frames: u64,
    chunks: u64,
    plain_bytes: u64,
}

impl PackResult {
    /// The length of its file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What a map says of it.
    pub(crate) fn state(&self) -> PackState {
        match self.findings.iter().any(|finding| finding.severity == Severity::Damage) {
            _ if self.lost => PackState::Lost,
            true => PackState::Damaged,
            false => PackState::Whole,
        }
    }
}

/// Findings of one pack that are told one by one: a store that is lost as a whole has millions of chunks.
const FINDINGS_MAX: usize = 200;

/// All packs of a store.
pub(crate) type Packs = HashMap<PackId, PackResult>;

/// Reads all packs that are not among `known` yet, on all cores; `known` is what there is behind that.
pub(crate) fn check_packs(
    disk: &Arc<dyn Disk>,
    superblock: &StoreSuperblock,
    index: &Index,
    known: &mut Packs,
    totals: &mut CheckTotals,
    findings: &mut Findings,
    progress: &dyn Progress,
) -> Result<(), CheckError> {
    progress.step("packs");
    let listing = match list_packs(&**disk) {
        Ok(listing) => listing,
        Err(StoreError::Io { path, error }) => return Err(CheckError::Io { path, error }),
        Err(error) => {
            return Err(CheckError::Io { path: PACKS_DIR.into(), error: std::io::Error::other(error) });
        }
    };
    note_leftovers(&listing, Place::Pack, findings);
    let twins = list_copies(&**disk, superblock, findings)?;
    let mut listing = listing;
    let packs: HashSet<PackId> = listing.packs.iter().map(|(pack, _)| *pack).collect();
    // Those that only their twins are there of are gone through by these.
    let alone = twins.iter().filter(|(pack, _)| !packs.contains(pack));
    listing.packs.extend(alone.map(|(pack, copies)| (*pack, copies.first().map_or(0, |(_, len)| *len))));
    let twin_len = |pack: &PackId| twins.get(pack).into_iter().flatten().map(|(_, len)| len).sum::<u64>();
    totals.twins = twins.values().map(|copies| copies.len() as u64).sum();
    totals.twin_bytes = twins.keys().map(twin_len).sum();
    totals.packs = listing.packs.len() as u64;
    totals.pack_bytes = listing.packs.iter().map(|(_, len)| len).sum();
    let there: HashSet<PackId> = listing.packs.iter().map(|(pack, _)| *pack).collect();
    known.retain(|pack, _| there.contains(pack));
    let is_known = |(pack, len): &(PackId, u64)| {
        known.get(pack).is_some_and(|result| (result.len, result.twin_len) == (*len, twin_len(pack)))
    };
    let ahead: Vec<_> = listing.packs.iter().filter(|listed| !is_known(listed)).collect();
    let both = |(pack, len): &&(PackId, u64)| len + twin_len(pack);
    progress.expect(ahead.iter().map(both).sum());
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(ahead.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((pack, len)) = ahead.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if progress.is_cancelled() {
                        return;
                    }
                    let mut check = PackCheck::new(*pack, *len, superblock, progress);
                    check.result.alone = !packs.contains(pack);
                    check.run(&**disk, index.slots_of(pack), &there);
                    for (place, len) in twins.get(pack).into_iter().flatten() {
                        check.twin(&**disk, *place, *len);
                    }
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((*pack, check.result));
                }
            });
        }
    });
    if progress.is_cancelled() {
        return Err(CheckError::Cancelled);
    }
    known.extend(results.into_inner().unwrap_or_else(PoisonError::into_inner));
    let mut results: Vec<_> = known.iter().collect();
    results.sort_by_key(|(pack, _)| **pack);
    for (pack, result) in results {
        totals.frames += result.frames;
        totals.chunks += result.chunks;
        totals.plain_bytes += result.plain_bytes;
        result.findings.iter().for_each(|finding| findings.push(finding.clone()));
        if result.left_out > 0 {
            let what = format!("{} more findings in the pack are not listed", result.left_out);
            findings
                .push(Finding::damage("more", what).pack(*pack).file(format!("store/{}", pack_path(pack))));
        }
    }
    // They are those of the index, which may be another the next time.
    known.values_mut().for_each(|result| result.findings.retain(|finding| finding.kind != "index-slot"));
    Ok(())
}

/// The copies of packs beside those where they were written, with their lengths.
fn list_copies(
    disk: &dyn Disk,
    superblock: &StoreSuperblock,
    findings: &mut Findings,
) -> Result<BTreeMap<PackId, Vec<(Place, u64)>>, CheckError> {
    let io = |error: StoreError| match error {
        StoreError::Io { path, error } => CheckError::Io { path, error },
        error => CheckError::Io { path: TWINS_DIR.into(), error: std::io::Error::other(error) },
    };
    let dirs = match across_dirs(disk, superblock.uuid) {
        Ok(dirs) => dirs,
        Err(error) => {
            let what = format!("the directories that have second copies are not known: {error}");
            findings.push(Finding::damage("across", what).file(format!("store/{}", ACROSS_PATHS[0])));
            Vec::new()
        }
    };
    let mut places = vec![Place::Twin];
    for (number, dir) in (1..).zip(dirs) {
        match dir.missing {
            None => places.push(Place::Across(number)),
            Some(why) => {
                let what = format!("second copies in {} are not looked at: {why}", dir.path);
                findings.push(Finding::info("across", what).advice("mount the disk that belongs there"));
            }
        }
    }
    let mut copies: BTreeMap<PackId, Vec<(Place, u64)>> = BTreeMap::new();
    for place in places {
        let listing = list_place(disk, place).map_err(io)?;
        note_leftovers(&listing, place, findings);
        for (pack, len) in listing.packs {
            copies.entry(pack).or_default().push((place, len));
        }
    }
    Ok(copies)
}

fn note_leftovers(listing: &PackListing, place: Place, findings: &mut Findings) {
    for pack in &listing.unsealed {
        let what = "a pack that was not finished when its mount ended; the next mount removes it";
        let file = format!("store/{}/{}/{pack}.new", place.root(), pack.directory());
        findings.push(Finding::info("unsealed-pack", what).file(file));
    }
    for path in &listing.strange {
        findings.push(
            Finding::info("strange-file", "cairn makes no such file here").file(format!("store/{path}")),
        );
    }
}

/// The check of one pack.
struct PackCheck<'a> {
    pack: PackId,
    len: u64,
    store: &'a StoreSuperblock,
    progress: &'a dyn Progress,
    result: PackResult,
}

impl<'a> PackCheck<'a> {
    fn new(pack: PackId, len: u64, store: &'a StoreSuperblock, progress: &'a dyn Progress) -> Self {
        PackCheck { pack, len, store, progress, result: PackResult { len, ..PackResult::default() } }
    }

    fn run(&mut self, disk: &dyn Disk, slots: &[IndexSlot], there: &HashSet<PackId>) {
        let reader = match PackReader::open_any(disk, self.pack) {
            Ok(reader) => reader,
            Err(error) => return self.loss("pack", 0, error.to_string()),
        };
        match self.result.alone {
            true => self.damage(
                ALONE,
                0,
                format!("the pack is missing; its second copy is there: {TWIN_RESTORES}"),
            ),
            false => self.spare(disk),
        }
        if let Some(footer) = self.footer(disk, &reader) {
            self.result.facts.described = Some((footer.volume, footer.kind));
            let wrong = check_slots(self.pack, &footer, slots);
            self.result.findings.extend(wrong);
            for what in check_replaces(disk, &footer, there) {
                self.damage("replaced", 0, what);
            }
            self.frames(disk, &reader, &footer);
        }
    }

    fn damage(&mut self, kind: &'static str, offset: u64, what: String) {
        if self.result.findings.len() >= FINDINGS_MAX {
            self.result.left_out += 1;
            return;
        }
        let finding = Finding::damage(kind, what).pack(self.pack).at(offset);
        self.result.findings.push(finding.file(format!("store/{}", pack_path(&self.pack))));
    }

    /// Damage that something does not come back from.
    fn loss(&mut self, kind: &'static str, offset: u64, what: String) {
        self.result.lost = true;
        self.damage(kind, offset, what);
    }

    /// The footer, where one copy is whole; says so where the other is not.
    fn footer(&mut self, disk: &dyn Disk, reader: &PackReader) -> Option<Footer> {
        let footer = match (reader.footer_by_header(), reader.footer_by_trailer()) {
            (Ok(first), Ok(second)) => {
                if first != second {
                    self.damage("footer", 0, "the two copies of its footer are not the same".into());
                }
                second
            }
            (Ok(whole), Err(error)) => {
                self.damage(
                    "footer-copy",
                    place(&error),
                    format!("{}; the other copy is whole", reason(&error)),
                );
                whole
            }
            (Err(error), Ok(whole)) => {
                self.damage(
                    "footer-copy",
                    place(&error),
                    format!("{}; the other copy is whole", reason(&error)),
                );
                whole
            }
            (Err(first), Err(second)) => {
                let what =
                    format!("no copy of its footer can be used: {}; {}", reason(&first), reason(&second));
                let Some(restored) = reader.restored_footer(Some(disk)) else {
                    self.loss("footer", place(&second), what);
                    return None;
                };
                self.damage("footer", place(&second), format!("{what}; {RESTORES}"));
                restored
            }
        };
        if footer.store != self.store.uuid {
            self.damage("footer", 0, format!("it belongs to store {}", footer.store));
        }
        self.header(disk, &footer);
        Some(footer)
    }

    /// Parity, and the checksums that go with it. (What is wrong with the rest is found by whoever reads that.)
    fn spare(&mut self, disk: &dyn Disk) {
        let progress = self.progress;
        let Ok(Some(examined)) = examine_spare(disk, self.pack, &mut |_| !progress.is_cancelled()) else {
            return;
        };
        let layout = examined.layout;
        let spare = layout.described()..layout.second_footer().start;
        let bad: Vec<_> = examined.damaged.iter().filter(|range| spare.contains(&range.start)).collect();
        if let Some(first) = bad.first() {
            let bytes: u64 = bad.iter().map(|range| range.end - range.start).sum();
            self.damage("parity", first.start, format!("{bytes} bytes of its parity are damaged"));
        }
    }

    /// A twin of the pack: that it is, byte for byte, what the pack is to be.
    fn twin(&mut self, disk: &dyn Disk, place: Place, len: u64) {
        self.result.twin_len += len;
        self.result.has_twin |= place == Place::Twin;
        let progress = self.progress;
        let mut go_on = |bytes| {
            progress.advance(bytes);
            !progress.is_cancelled()
        };
        let (at, what) = match examine_at(disk, place, self.pack, &mut go_on) {
            Ok(Some(examined)) if !examined.is_whole() => {
                let first = examined.damaged.first().map_or(examined.layout.file_len(), |range| range.start);
                (first, format!("{} bytes of the pack's second copy are damaged", examined.damaged_bytes()))
            }
            Err(error) => (0, format!("the pack's second copy cannot be used: {error}")),
            _ => return,
        };
        self.damage("twin", at, what);
        if let Some(finding) = self.result.findings.last_mut().filter(|finding| finding.kind == "twin") {
            finding.file = Some(format!("store/{}", place.path(&self.pack)));
        }
    }

    /// That the header says what the footer does. (One that does not decode was found with the first copy.)
    fn header(&mut self, disk: &dyn Disk, footer: &Footer) {
        let mut bytes = vec![0; PACK_HEADER_LEN];
        let read =
            disk.open(&pack_path(&self.pack), Access::Read).and_then(|f| f.read_exact_at(&mut bytes, 0));
        let Ok(header) =
            read.map_err(drop).and_then(|()| PackHeader::decode(&bytes, &self.pack).map_err(drop))
        else {
            return;
        };
        if (header.store, header.volume, header.kind) != (footer.store, footer.volume, footer.kind)
            || footer.pack != self.pack
        {
            self.damage("pack-header", 0, "its header and its footer are not of the same pack".into());
        }
    }

    fn frames(&mut self, disk: &dyn Disk, reader: &PackReader, footer: &Footer) {
        let mut chunks = footer.chunks.as_slice();
        let mut told = 0;
        for (number, entry) in footer.frames.iter().enumerate() {
            let base = footer.base_of(number as u32);
            if self.progress.is_cancelled() {
                return;
            }
            // The footer's decoder saw to it that the counts add up.
            let (listed, rest) = chunks.split_at((entry.chunks as usize).min(chunks.len()));
            chunks = rest;
            self.frame((disk, reader), (number as u32, entry), listed, base);
            self.progress.advance(entry.len.into());
            told += u64::from(entry.len);
        }
        self.progress.advance(self.len.saturating_sub(told));
    }

    fn frame(
        &mut self,
        (disk, reader): (&dyn Disk, &PackReader),
        (number, entry): (u32, &FrameEntry),
        listed: &[ChunkEntry],
        base: Option<ChunkId>,
    ) {
        let frame = match reader.frame(entry) {
            Ok(frame) => frame,
            Err(error) => {
                let reason = reason(&error);
                let Some(restored) = reader.restored_frame(Some(disk), entry) else {
                    self.loss("frame", entry.offset, format!("frame {number}: {reason}"));
                    self.result.facts.bad_frames.insert(number, reason);
                    return;
                };
                self.damage("frame", entry.offset, format!("frame {number}: {reason}; {RESTORES}"));
                restored
            }
        };
        self.result.frames += 1;
        self.result.plain_bytes += frame.plain.len() as u64;
        if frame.chunks != listed || frame.base != base {
            let what = "its chunks are not those that the footer lists".to_owned();
            self.loss("frame", entry.offset, format!("frame {number}: {what}"));
            self.result.facts.bad_frames.insert(number, what);
            return;
        }
        for slot in 0..listed.len() as u32 {
            self.result.chunks += 1;
            // Differences were decoded, and have checksums down to their blocks; what they are from lies in another pack.
            if !frame.is_whole() {
                continue;
            }
            let whole = frame.chunk(slot).is_some_and(|(chunk, bytes)| {
                cairn_codec::chunk_id(&self.store.chunk_key, bytes) == chunk.id
            });
            if !whole {
                let what = "its bytes are not those that its id stands for";
                self.loss("chunk", entry.offset, format!("frame {number}, slot {slot}: {what}"));
                self.result.facts.bad_chunks.insert((number, slot));
            }
        }
    }
}

fn reason(error: &ReadError) -> String {
    match error {
        ReadError::Damaged { reason, .. } => reason.clone(),
        ReadError::Io { error, .. } => format!("it cannot be read: {error}"),
        other => other.to_string(),
    }
}

fn place(error: &ReadError) -> u64 {
    match error {
        ReadError::Damaged { offset, .. } | ReadError::Io { offset, .. } => *offset,
        _ => 0,
    }
}
