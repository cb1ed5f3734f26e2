//! Rot: what a disk does to bytes that nobody writes, and what of it a volume has to survive.
//!
//! The injector knows the layout of what it spoils, and says beforehand what becomes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use cairn_format::{
    ChunkPlace, Lsn, PACK_HEADER_LEN, PAYLOAD_BLOCK, PackHeader, PackId, PackKind, PackLayout, PieceKind,
    RECORD_ALIGN, RECORD_HEAD_LEN, Record, RecordHead, SECTOR, SEGMENT_DATA_START, SEGMENT_HEADER_LEN,
    SegmentHeader, StoreSuperblock, TRAILER_LEN, Uuid, VolumeState, VolumeSuperblock,
};
use cairn_store::disk::{Access, Disk, MemoryDisk};
use cairn_store::heal::{examine, examine_at, mend};
use cairn_store::{PackReader, Place, REPLICA_PATHS, Store, StoreOptions, list_packs, list_twins, pack_path};
use cairn_volume::journal::{JOURNAL_DIR, JournalShape, scan_read_only};
use cairn_volume::{ENGINE_DIR, load_chain, read_superblock};

use crate::dice::{Dice, noise};
use crate::reach::{Reach, guaranteed_hole};
use crate::segment_reach::{Protected, witness};

/// What is promised of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// Nothing is lost: what was spoiled is there twice, can be derived, or is needed by nobody; of a pack, parity reaches
    /// it, and it has to be found mended on the disk, too.
    Within,
    /// Something is lost: it is named, and whoever asks for it is told so. Of a pack this may be what nobody asks for, its
    /// parity say.
    Beyond,
    /// The newest records, with all that says of them that they were synced: no different from the tail that a power cut
    /// tears. A state that the volume was in, but for what is lost beside it.
    Unwitnessed,
}

/// What some bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One of two.
    Superblock,
    /// One of the two copies of a segment's header, by the segment's number.
    SegmentHeader(u64),
    /// A record but for its payload, and whether it is its segment's first.
    Record(u64, Lsn, bool),
    /// A block of a record's payload.
    Payload(Lsn, u32),
    /// A pack's header.
    PackHeader(PackId),
    /// A frame.
    Frame(PackId, u32),
    /// The footer that the header leads to, or (1) the trailer.
    Footer(PackId, u8),
    /// What leads to the second footer.
    Trailer(PackId),
    /// Checksums of sectors, and parity.
    Spare(PackId),
    /// The chunk index.
    Index,
    /// A file of the engine's.
    Engine,
    /// A pack's second copy.
    Twin(PackId),
    /// Nothing that counts.
    Free,
}

/// Some bytes of a file.
#[derive(Clone, Debug)]
pub struct Region {
    /// The file.
    pub path: String,
    /// Its bytes.
    pub at: Range<u64>,
    /// What they are.
    pub part: Part,
}

/// One thing that happens to a file.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Bytes are others.
    Write(String, u64, Vec<u8>),
    /// The file ends here.
    Truncate(String, u64),
    /// The file is gone.
    Remove(String),
    /// Reading these bytes is an error, until they are written, or even then.
    Lose(String, Range<u64>, bool),
}

impl Edit {
    /// The file.
    pub fn path(&self) -> &str {
        let (Edit::Write(path, ..) | Edit::Truncate(path, _) | Edit::Remove(path) | Edit::Lose(path, ..)) =
            self;
        path
    }

    /// Has it happen to bytes of the file's, which were `before`. What cannot be read is another byte here.
    fn apply(&self, before: &[u8], bytes: &mut Option<Vec<u8>>) {
        let Some(file) = bytes else { return };
        match self {
            Edit::Write(_, offset, new) => {
                let at = *offset as usize;
                file.resize(file.len().max(at + new.len()), 0);
                file[at..at + new.len()].copy_from_slice(new);
            }
            Edit::Truncate(_, len) => file.resize(*len as usize, 0),
            Edit::Lose(_, range, _) => {
                let lost = file.iter_mut().zip(before).take(range.end as usize).skip(range.start as usize);
                lost.for_each(|(byte, before)| *byte = !before);
            }
            Edit::Remove(_) => *bytes = None,
        }
    }
}

/// What happens to a disk.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it is, for people.
    pub what: String,
    /// What becomes of which file.
    pub edits: Vec<Edit>,
}

impl Fault {
    /// Edits, under a name.
    pub fn of(what: String, edits: Vec<Edit>) -> Fault {
        Fault { what, edits }
    }

    /// Does it, to the disk that the volume's directory lies on.
    pub fn inflict(&self, disk: &dyn Disk) -> io::Result<()> {
        self.edits.iter().try_for_each(|edit| {
            let inflicted = match edit {
                Edit::Write(path, offset, bytes) => {
                    disk.open(path, Access::Write).and_then(|file| file.write_at(bytes, *offset))
                }
                Edit::Truncate(path, len) => {
                    disk.open(path, Access::Write).and_then(|file| file.set_len(*len))
                }
                Edit::Remove(path) => disk.remove(path),
                Edit::Lose(..) => Err(io::ErrorKind::Unsupported.into()),
            };
            inflicted.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", edit.path())))
        })
    }

    /// The same, to a disk in memory, whose sectors can go bad.
    pub fn inflict_in_memory(&self, disk: &MemoryDisk) -> io::Result<()> {
        self.edits.iter().try_for_each(|edit| match edit {
            Edit::Lose(path, range, stays) => disk.lose(path, range.clone(), *stays),
            edit => Fault { what: String::new(), edits: vec![edit.clone()] }.inflict(disk),
        })
    }

    /// This, and then another; nothing more happens to a file that is gone.
    pub fn and(mut self, other: Fault) -> Fault {
        for edit in other.edits {
            if matches!(edit, Edit::Remove(_)) {
                self.edits.retain(|before| before.path() != edit.path());
            }
            if !self.edits.iter().any(|e| matches!(e, Edit::Remove(_)) && e.path() == edit.path()) {
                self.edits.push(edit);
            }
        }
        // What is written would be there again.
        self.edits.sort_by_key(|edit| matches!(edit, Edit::Lose(..)));
        Fault::of(format!("{}; {}", self.what, other.what), self.edits)
    }
}

/// What a fault does, and what has to be done about it.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What is promised.
    pub guarantee: Guarantee,
    /// It cannot be mounted for writing.
    pub refused: bool,
    /// It cannot be mounted, unless an engine holds the namespace.
    pub needs_engine: bool,
    /// …or perhaps it can: what describes the sectors of its packs is lost.
    pub may_need_engine: bool,
    frames: BTreeMap<(PackId, u32), Loss>,
    payload: BTreeSet<(Lsn, u32)>,
    /// The files that fsck has to name.
    pub named: BTreeSet<String>,
    /// The packs that are damaged in any way, and whether parity reaches all that is.
    pub packs: BTreeMap<PackId, bool>,
    /// Packs that are gone and had nothing that anybody sees; a checkpoint may lead there under what the journal holds.
    pub unneeded: BTreeSet<PackId>,
}

/// Whether bytes are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// They are there.
    No,
    /// Nothing says what they should be but they themselves: they are right, or refused.
    Perhaps,
    /// They are refused.
    Yes,
}

impl Verdict {
    fn new() -> Verdict {
        Verdict {
            guarantee: Guarantee::Within,
            refused: false,
            needs_engine: false,
            may_need_engine: false,
            frames: BTreeMap::new(),
            payload: BTreeSet::new(),
            named: BTreeSet::new(),
            packs: BTreeMap::new(),
            unneeded: BTreeSet::new(),
        }
    }

    /// Whether any bytes of files are.
    pub fn loses_some(&self) -> bool {
        self.frames.values().any(|loss| *loss == Loss::Yes) || !self.payload.is_empty()
    }

    /// Whether bytes that lie there are lost.
    pub fn loses(&self, kind: &PieceKind, len: u64) -> Loss {
        match kind {
            PieceKind::Hole => Loss::No,
            PieceKind::Chunk(piece) => {
                let of = |at: ChunkPlace| self.frames.get(&(at.pack, at.frame)).copied();
                piece.places().filter_map(of).max().unwrap_or(Loss::No)
            }
            PieceKind::Journal(at) => {
                let lost =
                    payload_blocks(at.payload_offset, len).any(|b| self.payload.contains(&(at.lsn, b)));
                if lost { Loss::Yes } else { Loss::No }
            }
        }
    }
}

fn payload_blocks(offset: u32, len: u64) -> impl Iterator<Item = u32> {
    let block = PAYLOAD_BLOCK as u64;
    (u64::from(offset) / block..(u64::from(offset) + len).div_ceil(block)).map(|b| b as u32)
}

/// Where everything lies.
pub struct Layout {
    /// Each file's bytes.
    pub files: BTreeMap<String, Arc<Vec<u8>>>,
    /// All bytes of all files, but those between regions that nobody reads.
    pub regions: Vec<Region>,
    clean: bool,
    /// Records that count, and what each says is synced.
    records: BTreeMap<Lsn, Lsn>,
    /// Packs of the newest checkpoint.
    meta: BTreeSet<PackId>,
    frames: BTreeSet<(PackId, u32)>,
    payload: BTreeSet<(Lsn, u32)>,
    packs: BTreeMap<PackId, PackLayout>,
    volume: Uuid,
    /// Segments with parity.
    protected: Vec<Protected>,
    /// Packs that are there twice.
    twins: BTreeSet<PackId>,
}

/// Reads a whole file.
pub fn read_file(disk: &dyn Disk, path: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Access::Read)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Layout {
    /// The layout of the volume on `disk`, whose store is `store/`, which `as_disk` is; `pieces` are those of all files.
    pub fn of<'a>(
        disk: &dyn Disk,
        as_disk: Arc<dyn Disk>,
        pieces: impl Iterator<Item = &'a (u64, u64, PieceKind)>,
    ) -> Layout {
        let superblock = read_superblock(disk, "the volume").expect("a whole superblock");
        let shape = JournalShape {
            volume: superblock.uuid,
            segment: superblock.geometry.segment,
            segments: superblock.geometry.segments,
        };
        let mut layout = Layout {
            files: BTreeMap::new(),
            regions: Vec::new(),
            clean: superblock.state == VolumeState::Clean,
            records: BTreeMap::new(),
            meta: BTreeSet::new(),
            frames: BTreeSet::new(),
            payload: BTreeSet::new(),
            packs: BTreeMap::new(),
            volume: superblock.uuid,
            protected: Vec::new(),
            twins: BTreeSet::new(),
        };
        for (_, len, kind) in pieces {
            match kind {
                PieceKind::Hole => {}
                PieceKind::Chunk(piece) => drop(layout.frames.insert((piece.pack, piece.frame))),
                PieceKind::Journal(at) => {
                    layout.payload.extend(payload_blocks(at.payload_offset, *len).map(|b| (at.lsn, b)));
                }
            }
        }
        layout.superblocks(disk);
        layout.journal(disk, &shape);
        layout.store(disk, as_disk, &superblock, &shape);
        layout
    }

    fn file(&mut self, disk: &dyn Disk, path: &str) -> Arc<Vec<u8>> {
        let bytes = Arc::new(read_file(disk, path).expect("a file of the volume"));
        self.files.insert(path.to_owned(), bytes.clone());
        bytes
    }

    fn region(&mut self, path: &str, at: Range<u64>, part: Part) {
        if !at.is_empty() {
            self.regions.push(Region { path: path.to_owned(), at, part });
        }
    }

    fn superblocks(&mut self, disk: &dyn Disk) {
        for dir in ["", "store/"] {
            for name in REPLICA_PATHS {
                let path = format!("{dir}{name}");
                let len = self.file(disk, &path).len() as u64;
                self.region(&path, 0..len, Part::Superblock);
            }
        }
    }

    fn journal(&mut self, disk: &dyn Disk, shape: &JournalShape) {
        let (chain, error) = scan_read_only(disk, shape);
        assert!(error.is_none(), "a whole journal: {error:?}");
        let mut counting: HashMap<u64, Vec<(u32, Lsn)>> = HashMap::new();
        chain
            .records(shape, |record| {
                counting.entry(record.at.segment).or_default().push((record.at.offset, record.at.lsn));
            })
            .expect("a whole journal");
        for listed in disk.list(JOURNAL_DIR).expect("a journal") {
            let path = format!("{JOURNAL_DIR}/{}", listed.name);
            let bytes = self.file(disk, &path);
            if path.ends_with(".par") {
                self.protected.extend(Protected::of(&path, &bytes, &shape.volume));
                self.region(&path, 0..bytes.len() as u64, Part::Free);
                continue;
            }
            let number = SegmentHeader::decode(&bytes[..SEGMENT_HEADER_LEN], &shape.volume).map(|h| h.number);
            let records = number.ok().and_then(|number| Some((number, counting.get(&number)?)));
            match records {
                Some((number, records)) if !self.clean => {
                    self.segment(&path, &bytes, &shape.volume, number, records);
                }
                _ => self.region(&path, 0..bytes.len() as u64, Part::Free),
            }
        }
    }

    fn segment(&mut self, path: &str, bytes: &[u8], volume: &Uuid, number: u64, records: &[(u32, Lsn)]) {
        let half = SEGMENT_HEADER_LEN as u64;
        self.region(path, 0..half, Part::SegmentHeader(number));
        self.region(path, half..2 * half, Part::SegmentHeader(number));
        let mut end = u64::from(SEGMENT_DATA_START);
        for (n, (offset, lsn)) in records.iter().enumerate() {
            let at = *offset as usize;
            let head = RecordHead::peek(&bytes[at..at + RECORD_HEAD_LEN]).expect("a whole record");
            let payload = u64::from(*offset) + head.prefix_len();
            Record::decode_prefix(volume, &bytes[at..payload as usize]).expect("a whole record");
            self.records.insert(*lsn, head.synced);
            self.region(path, at as u64..payload, Part::Record(number, *lsn, n == 0));
            end = u64::from(*offset) + head.record_len();
            for block in 0..head.sums() {
                let from = payload + block * PAYLOAD_BLOCK as u64;
                let to = (from + PAYLOAD_BLOCK as u64).min(end);
                self.region(path, from..to, Part::Payload(*lsn, block as u32));
            }
            end = end.next_multiple_of(RECORD_ALIGN.into());
        }
        self.region(path, end..bytes.len() as u64, Part::Free);
    }

    fn store(
        &mut self,
        disk: &dyn Disk,
        store: Arc<dyn Disk>,
        superblock: &VolumeSuperblock,
        shape: &JournalShape,
    ) {
        let (chain, _) = scan_read_only(disk, shape);
        let tip = superblock.checkpoint.max(chain.checkpoint.0);
        let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
        let opened = Store::open(store.clone(), options).expect("a whole store");
        let checkpoints = load_chain(&opened, superblock.uuid, tip).expect("whole checkpoints");
        self.meta = checkpoints.packs().into_iter().collect();
        for (pack, len) in list_packs(&*store).expect("packs").packs {
            let path = format!("store/{}", pack_path(&pack));
            let bytes = self.file(disk, &path);
            let header = PackHeader::decode(&bytes[..PACK_HEADER_LEN], &pack).expect("a whole pack");
            let footer = PackReader::open(&*store, pack).and_then(|r| r.footer()).expect("a whole pack");
            assert_eq!(footer.kind == PackKind::Metadata, header.kind == PackKind::Metadata);
            self.region(&path, 0..PACK_HEADER_LEN as u64, Part::PackHeader(pack));
            for (n, frame) in footer.frames.iter().enumerate() {
                let to = frame.offset + u64::from(frame.len);
                self.region(&path, frame.offset..to, Part::Frame(pack, n as u32));
            }
            self.region(&path, header.layout.footer(), Part::Footer(pack, 0));
            let trailer = len - TRAILER_LEN as u64;
            self.packs.insert(pack, header.layout);
            self.region(
                &path,
                header.layout.described()..header.layout.second_footer().start,
                Part::Spare(pack),
            );
            self.region(&path, header.layout.second_footer(), Part::Footer(pack, 1));
            self.region(&path, trailer..len, Part::Trailer(pack));
        }
        for (pack, len) in list_twins(&*store).expect("twins").packs {
            let path = twin_of(&pack);
            assert!(self.file(disk, &path) == self.files[&self.path_of(&pack)], "a twin is another");
            self.region(&path, 0..len, Part::Twin(pack));
            self.twins.insert(pack);
        }
        if disk.open("store/index", Access::Read).is_ok() {
            let len = self.file(disk, "store/index").len() as u64;
            self.region("store/index", 0..len, Part::Index);
        }
        // An engine in memory has none.
        for listed in disk.list(ENGINE_DIR).into_iter().flatten().filter(|listed| !listed.is_dir) {
            let path = format!("{ENGINE_DIR}/{}", listed.name);
            let len = self.file(disk, &path).len() as u64;
            self.region(&path, 0..len, Part::Engine);
        }
    }

    /// The bytes of a file after a fault; nothing where it is gone.
    fn after(&self, fault: &Fault, path: &str) -> Option<Vec<u8>> {
        let before = &self.files[path];
        let mut bytes = Some(before.to_vec());
        fault.edits.iter().filter(|edit| edit.path() == path).for_each(|edit| edit.apply(before, &mut bytes));
        bytes
    }

    /// The regions that a fault changes a byte of, or takes one from. None: nothing was changed.
    pub fn harmed(&self, fault: &Fault) -> Vec<&Region> {
        let paths: BTreeSet<&str> = fault.edits.iter().map(Edit::path).collect();
        let mut harmed = Vec::new();
        for path in paths {
            let (before, after) = (&self.files[path], self.after(fault, path));
            let part = |bytes: &[u8], at: &Range<u64>| {
                let end = (at.end as usize).min(bytes.len());
                bytes[(at.start as usize).min(end)..end].to_vec()
            };
            let changed = |region: &&Region| match &after {
                None => true,
                Some(after) => part(before, &region.at) != part(after, &region.at),
            };
            harmed.extend(self.regions.iter().filter(|r| r.path == path).filter(changed));
        }
        harmed
    }

    /// What has to become of a fault that does so much harm.
    pub fn judge(&self, fault: &Fault, harmed: &[&Region]) -> Verdict {
        let mut verdict = Verdict::new();
        self.judge_superblocks(fault, &mut verdict);
        self.judge_packs(fault, harmed, &mut verdict);
        self.judge_journal(&self.beyond_parity(fault, harmed), self.parity_witness(fault), &mut verdict);
        verdict
    }

    /// Of what is harmed, all but what the parity of a segment reaches.
    fn beyond_parity<'r>(&self, fault: &Fault, harmed: &[&'r Region]) -> Vec<&'r Region> {
        let mut left = harmed.to_vec();
        for protected in &self.protected {
            let after = [&protected.segment, &protected.parity].map(|path| self.after(fault, path));
            let [Some(segment), Some(parity)] = &after else { continue };
            let before = [&protected.segment, &protected.parity].map(|path| &self.files[path][..]);
            let Some(lost) = protected.lost([before[0], segment], [before[1], parity]) else { continue };
            left.retain(|region| {
                let touches = |lost: &Range<u64>| lost.start < region.at.end && region.at.start < lost.end;
                region.path != protected.segment || region.part == Part::Free || lost.iter().any(touches)
            });
        }
        left
    }

    /// The last record that some parity says was synced.
    fn parity_witness(&self, fault: &Fault) -> Lsn {
        if self.clean {
            return Lsn::ZERO;
        }
        let said =
            |protected: &Protected| witness(self.after(fault, &protected.parity).as_deref(), &self.volume);
        self.protected.iter().map(said).max().unwrap_or(Lsn::ZERO)
    }

    fn judge_superblocks(&self, fault: &Fault, verdict: &mut Verdict) {
        for dir in ["", "store/"] {
            let bad = |name: &&str| match self.after(fault, &format!("{dir}{name}")) {
                None => true,
                // An older one that is whole will do: the journal says what came since.
                Some(bytes) if dir.is_empty() => VolumeSuperblock::decode(&bytes).is_err(),
                Some(bytes) => StoreSuperblock::decode(&bytes).is_err(),
            };
            if REPLICA_PATHS.iter().all(bad) {
                verdict.guarantee = Guarantee::Beyond;
                verdict.refused = true;
                verdict.named.insert(format!("{dir}superblock"));
            }
        }
    }

    fn judge_packs(&self, fault: &Fault, harmed: &[&Region], verdict: &mut Verdict) {
        let packs: BTreeSet<PackId> = harmed
            .iter()
            .filter_map(|r| match r.part {
                Part::PackHeader(p) | Part::Frame(p, _) | Part::Footer(p, _) => Some(p),
                Part::Trailer(p) | Part::Spare(p) => Some(p),
                _ => None,
            })
            .collect();
        // A twin that is gone is no damage: it is made again. One that is damaged is to be found.
        let twins = harmed.iter().filter_map(|r| match r.part {
            Part::Twin(pack) => self.after(fault, &r.path).map(|_| pack),
            _ => None,
        });
        verdict.packs.extend(twins.map(|pack| (pack, true)));
        for pack in packs {
            let path = self.path_of(&pack);
            let after = self.together(fault, &pack);
            if after.is_none() && !self.is_used(&pack) && !self.meta.contains(&pack) {
                verdict.unneeded.insert(pack);
                continue;
            }
            let reach = after.as_ref().map(|after| self.reach(&pack, after));
            let within = reach.as_ref().is_some_and(Reach::is_within);
            verdict.packs.insert(pack, within);
            if within {
                continue;
            }
            verdict.guarantee = Guarantee::Beyond;
            verdict.named.insert(path.clone());
            let copies = [Some(path), self.twins.contains(&pack).then(|| twin_of(&pack))];
            let copies: Vec<_> = copies.into_iter().flatten().filter_map(|p| self.after(fault, &p)).collect();
            // A frame has a checksum of its own: it need not be in a sector that is whole.
            let is_somewhere = |at: &Range<u64>| {
                let at = at.start as usize..at.end as usize;
                copies
                    .iter()
                    .any(|copy| copy.get(at.clone()) == Some(&self.files[&self.path_of(&pack)][at.clone()]))
            };
            let loss = |frame: &Region| match &reach {
                Some(reach) if reach.has_frame(&frame.at) => Loss::No,
                Some(reach) if reach.has_footer() && is_somewhere(&frame.at) => Loss::No,
                Some(reach) if reach.silent() => Loss::Perhaps,
                Some(reach) if reach.reads_frame(frame.at.clone()) => Loss::No,
                _ => Loss::Yes,
            };
            for region in &self.regions {
                match region.part {
                    Part::Frame(p, _) if p == pack && self.meta.contains(&pack) => {
                        verdict.needs_engine |= loss(region) == Loss::Yes;
                        verdict.may_need_engine |= loss(region) == Loss::Perhaps;
                    }
                    Part::Frame(p, n) if p == pack && self.frames.contains(&(p, n)) => {
                        verdict.frames.insert((p, n), loss(region));
                    }
                    _ => {}
                }
            }
        }
    }

    /// What there is of a pack by its file and by its twin: each region from the one that has it whole.
    fn together(&self, fault: &Fault, pack: &PackId) -> Option<Vec<u8>> {
        let own = self.after(fault, &self.path_of(pack));
        if !self.twins.contains(pack) {
            return own;
        }
        let twin = self.after(fault, &twin_of(pack));
        let (Some(own), Some(twin)) = (&own, &twin) else { return own.or(twin) };
        let before = &self.files[&self.path_of(pack)];
        let layout = &self.packs[pack];
        let mut both = own.clone();
        let reach = Reach::of(layout, before, own);
        for region in reach.regions().chain(reach.behind()) {
            let at = region.start as usize..region.end as usize;
            if own.get(at.clone()) != before.get(at.clone()) && twin.get(at.clone()) == before.get(at.clone())
            {
                both.resize(both.len().max(at.end), 0);
                both[at.clone()].copy_from_slice(&twin[at]);
            }
        }
        Some(both)
    }

    /// What parity reaches of a pack whose bytes are others.
    fn reach<'a>(&'a self, pack: &PackId, after: &'a [u8]) -> Reach<'a> {
        Reach::of(&self.packs[pack], &self.files[&self.path_of(pack)], after)
    }

    fn path_of(&self, pack: &PackId) -> String {
        format!("store/{}", pack_path(pack))
    }

    /// That the damaged packs are as a mending has to leave them that says what is `lost`: what parity reaches is as it was,
    /// and the rest is as the fault left it, or as it was.
    pub fn check_mended(
        &self,
        fault: &Fault,
        verdict: &Verdict,
        lost: &BTreeSet<PackId>,
        disk: &dyn Disk,
    ) -> Result<(), String> {
        for (pack, within) in &verdict.packs {
            let path = self.path_of(pack);
            let Some(after) = self.together(fault, pack) else { continue };
            let reach = self.reach(pack, &after);
            match (within, lost.contains(pack)) {
                (true, true) => return Err(format!("some of {path} is said to be lost")),
                (false, false) if !reach.silent() => {
                    return Err(format!("of {path} nothing is said to be lost"));
                }
                (_, false) => {
                    self.check_whole(&path, disk)?;
                    if self.twins.contains(pack) && self.after(fault, &twin_of(pack)).is_some() {
                        self.check_whole(&twin_of(pack), disk)?;
                    }
                }
                (false, true) => self.check_partly_mended(fault, &path, &reach, &after, disk)?,
            }
        }
        Ok(())
    }

    /// That a file's bytes are what they were.
    pub fn check_whole(&self, path: &str, disk: &dyn Disk) -> Result<(), String> {
        let found = read_file(disk, path).map_err(|e| format!("{path} after mending: {e}"))?;
        let before = &self.files[path];
        let first = before.iter().zip(&found).position(|(a, b)| a != b);
        match found == **before {
            true => Ok(()),
            false => {
                let lens = (before.len(), found.len());
                Err(format!("{path} is mended, and is another: {lens:?}, from {first:?} on"))
            }
        }
    }

    fn check_partly_mended(
        &self,
        fault: &Fault,
        path: &str,
        reach: &Reach<'_>,
        after: &[u8],
        disk: &dyn Disk,
    ) -> Result<(), String> {
        let before = &self.files[path];
        let file = match disk.open(path, Access::Read) {
            // It was gone, and its second copy says nothing of where its parts lie.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !reach.is_found() => return Ok(()),
            file => file.map_err(|e| format!("{path}: {e}"))?,
        };
        // What errs has no bytes.
        let errs = fault.edits.iter().any(|edit| matches!(edit, Edit::Lose(p, ..) if p == path));
        let own = self.after(fault, path);
        for region in reach.regions() {
            let at = region.start as usize..region.end as usize;
            let mut found = vec![0; at.len()];
            let read = file.read_exact_at(&mut found, region.start).is_ok();
            let right = read && found == before[at.clone()];
            let allowed = || {
                let left = after.get(at.start..).unwrap_or_default();
                // What its twin has counts only where a checksum says so.
                let own = own.as_ref().and_then(|own| own.get(at.start..)).unwrap_or_default();
                // A file that was cut off is longer where what lies behind was written.
                found.iter().enumerate().all(|(n, byte)| {
                    *byte == before[at.start + n]
                        || [left, own].iter().any(|left| *byte == left.get(n).copied().unwrap_or(0))
                })
            };
            let comes_back = reach.comes_back(region.clone()) && !reach.silent();
            match (right, comes_back) {
                (true, _) => {}
                (false, true) => return Err(format!("{path}: {region:?} is not mended")),
                (false, false) if errs || !read || allowed() => {}
                _ => return Err(format!("{path}: WRONG BYTES were written into {region:?}")),
            }
        }
        Ok(())
    }

    fn judge_journal(&self, harmed: &[&Region], said: Lsn, verdict: &mut Verdict) {
        let mut headers: HashMap<u64, u32> = HashMap::new();
        let (mut gone, mut headless): (BTreeSet<Lsn>, BTreeSet<u64>) = Default::default();
        for region in harmed {
            match region.part {
                Part::SegmentHeader(number) => *headers.entry(number).or_default() += 1,
                Part::Record(number, lsn, first) => {
                    gone.insert(lsn);
                    if first {
                        headless.insert(number);
                    }
                }
                _ => {}
            }
        }
        // Without its header and its first record nobody knows what a segment's other records are.
        headless.retain(|number| headers.get(number) == Some(&2));
        for region in &self.regions {
            if let Part::Record(number, lsn, _) = region.part
                && headless.contains(&number)
            {
                gone.insert(lsn);
            }
        }
        let left = self.records.iter().filter(|(lsn, _)| !gone.contains(lsn));
        let witnessed = left.map(|(_, synced)| *synced).max().unwrap_or(Lsn::ZERO).max(said);
        let mut unwitnessed = false;
        if let Some(lsn) = gone.first() {
            unwitnessed = *lsn > witnessed;
            if !unwitnessed {
                verdict.guarantee = Guarantee::Beyond;
                verdict.refused = true;
                verdict.named.insert(JOURNAL_DIR.into());
            }
        }
        for region in harmed {
            let Part::Payload(lsn, block) = region.part else { continue };
            if lsn > witnessed {
                unwitnessed = true;
            } else if self.payload.contains(&(lsn, block)) {
                verdict.payload.insert((lsn, block));
                verdict.guarantee = Guarantee::Beyond;
                verdict.named.insert(JOURNAL_DIR.into());
            }
        }
        if unwitnessed && !verdict.refused {
            verdict.guarantee = Guarantee::Unwitnessed;
        }
    }

    /// A fault. `older` is the disk as it was earlier; whether sectors can be made to err is said by `may_err`.
    pub fn draw(&self, dice: &mut Dice, older: &dyn Disk, may_err: bool) -> Fault {
        loop {
            let fault = match dice.below(16) {
                0..=2 => self.anywhere(dice, older),
                3..=11 => (0..1 + dice.below(3)).fold(self.of_pack(dice, older, may_err), |fault, _| {
                    fault.and(self.of_pack(dice, older, may_err))
                }),
                _ => self.of_pack(dice, older, may_err),
            };
            // What happens to a pack alone costs nothing where it is there twice. (What happens to one copy is drawn above.)
            let fault = self.to_twins(fault);
            if !self.harmed(&fault).is_empty() {
                return fault;
            }
        }
    }

    /// The same to the second copies of packs, too.
    fn to_twins(&self, mut fault: Fault) -> Fault {
        let twin = |path: &str| {
            let path = path.replacen("store/packs/", "store/twins/", 1);
            (path.starts_with("store/twins/") && self.files.contains_key(&path)).then_some(path)
        };
        let hit: BTreeSet<String> = fault.edits.iter().map(|edit| edit.path().to_owned()).collect();
        let both: Vec<Edit> = fault
            .edits
            .iter()
            .filter_map(|edit| {
                let path = twin(edit.path()).filter(|path| !hit.contains(path))?;
                Some(match edit.clone() {
                    Edit::Write(_, at, bytes) => Edit::Write(path, at, bytes),
                    Edit::Truncate(_, len) => Edit::Truncate(path, len),
                    Edit::Remove(_) => Edit::Remove(path),
                    Edit::Lose(_, at, stays) => Edit::Lose(path, at, stays),
                })
            })
            .collect();
        if !both.is_empty() {
            fault.what += ", and the same to its second copy";
            fault.edits.extend(both);
            // What is written would be there again.
            fault.edits.sort_by_key(|edit| matches!(edit, Edit::Lose(..)));
        }
        fault
    }

    /// In one place, or in both copies of something, of any file.
    fn anywhere(&self, dice: &mut Dice, older: &dyn Disk) -> Fault {
        let kinds: [fn(&Layout, &Region) -> bool; 12] = [
            |_, r| r.part == Part::Superblock,
            |_, r| matches!(r.part, Part::SegmentHeader(_)),
            |_, r| matches!(r.part, Part::Record(..)),
            |_, r| matches!(r.part, Part::Payload(..)),
            |_, r| r.part == Part::Free,
            |_, r| matches!(r.part, Part::PackHeader(_) | Part::Footer(..) | Part::Trailer(_)),
            |_, r| matches!(r.part, Part::Spare(_)),
            |l, r| matches!(r.part, Part::Frame(p, _) if !l.meta.contains(&p)),
            |l, r| matches!(r.part, Part::Frame(p, _) if l.meta.contains(&p)),
            |_, r| r.part == Part::Index,
            |_, r| r.part == Part::Engine,
            |_, r| matches!(r.part, Part::Twin(_)),
        ];
        loop {
            let kind = kinds[dice.below(kinds.len() as u64) as usize];
            let some: Vec<&Region> = self.regions.iter().filter(|r| kind(self, r)).collect();
            let Some(region) = some.get(dice.below(some.len() as u64) as usize) else { continue };
            return match dice.below(8) {
                0 => self.twice(dice, region, older),
                _ => self.once(dice, region, older),
            };
        }
    }

    /// Something that happens to packs, of any size.
    fn of_pack(&self, dice: &mut Dice, older: &dyn Disk, may_err: bool) -> Fault {
        let pack = self.pack(dice);
        let sectors = self.files[&self.path_of(&pack)].len() as u64 / SECTOR;
        let few = 1 + dice.below(4);
        match dice.below(10) {
            0 => {
                let most = [1, 16, 64, 400, 2000][dice.below(5) as usize];
                let bits = 1 + dice.below(most);
                self.spread_flips(dice, bits)
            }
            1 => {
                (1..few).fold(self.bad_sector(dice, pack), |fault, _| fault.and(self.bad_sector(dice, pack)))
            }
            2 => self.swapped(dice, pack, pack),
            3 => {
                let other = self.pack(dice);
                self.swapped(dice, pack, other)
            }
            4 => {
                let (from, count) = (dice.below(sectors + 1), 1 + dice.below(sectors));
                self.torn(pack, from, count, &self.before(older, pack))
            }
            5 => self.cut_short(pack, dice.below(self.files[&self.path_of(&pack)].len() as u64)),
            6 | 7 => {
                let hole = self.hole_within(pack) / SECTOR + dice.below(4).min(1) * dice.below(sectors + 1);
                self.hole(pack, dice.below(sectors + 1), hole)
            }
            8 if may_err => {
                let stays = dice.one_in(3);
                self.unreadable(pack, dice.below(sectors + 1), few, stays)
            }
            8 => self.hole(pack, dice.below(sectors + 1), few),
            _ if dice.one_in(2) => self.missing(pack),
            _ => {
                let parts = dice.roll() & dice.roll();
                self.tables(dice, pack, |part| parts >> part & 1 == 1)
            }
        }
    }

    fn pack(&self, dice: &mut Dice) -> PackId {
        let packs = self.packs();
        packs[dice.below(packs.len() as u64) as usize]
    }

    /// All packs.
    pub fn packs(&self) -> Vec<PackId> {
        self.packs.keys().copied().collect()
    }

    /// Whether files lie in it.
    pub fn is_used(&self, pack: &PackId) -> bool {
        self.frames.iter().any(|(used, _)| used == pack)
    }

    /// How long a pack's file is.
    pub fn len_of(&self, pack: PackId) -> u64 {
        self.files[&self.path_of(&pack)].len() as u64
    }

    /// Bytes of a hole that comes back wherever it begins.
    pub fn hole_within(&self, pack: PackId) -> u64 {
        guaranteed_hole(&self.packs[&pack])
    }

    fn before(&self, older: &dyn Disk, pack: PackId) -> Vec<u8> {
        read_file(older, &self.path_of(&pack)).unwrap_or_default()
    }

    /// Flips so many bits, each of any byte of any pack.
    pub fn spread_flips(&self, dice: &mut Dice, bits: u64) -> Fault {
        let packs: Vec<String> = self.packs.keys().map(|pack| self.path_of(pack)).collect();
        let all: u64 = packs.iter().map(|path| self.files[path].len() as u64).sum();
        let mut changed: BTreeMap<(&str, u64), u8> = BTreeMap::new();
        for _ in 0..bits {
            let mut at = dice.below(all);
            for path in &packs {
                let len = self.files[path].len() as u64;
                if at < len {
                    *changed.entry((path, at)).or_insert(self.files[path][at as usize]) ^= 1 << dice.below(8);
                    break;
                }
                at -= len;
            }
        }
        let edit = |((path, at), byte): ((&str, u64), u8)| Edit::Write(path.to_owned(), at, vec![byte]);
        let edits = changed.into_iter().map(edit).collect();
        Fault::of(format!("{bits} bits, spread over all packs"), edits)
    }

    /// The bytes of a run of sectors, of which the last may be short.
    fn sectors(&self, pack: PackId, from: u64, count: u64) -> Range<u64> {
        let len = self.len_of(pack);
        (from * SECTOR).min(len)..((from + count) * SECTOR).min(len)
    }

    fn write(&self, what: &str, pack: PackId, at: u64, bytes: Vec<u8>) -> Fault {
        let path = self.path_of(&pack);
        let what = format!("{what} {path} at {at}..{}", at + bytes.len() as u64);
        Fault::of(what, vec![Edit::Write(path, at, bytes)])
    }

    /// A sector of zeros, or of garbage.
    fn bad_sector(&self, dice: &mut Dice, pack: PackId) -> Fault {
        let at = self.sectors(pack, dice.below(self.len_of(pack).div_ceil(SECTOR)), 1);
        match dice.one_in(2) {
            true => self.hole(pack, at.start / SECTOR, 1),
            false => self.garbage(dice, pack, at.start / SECTOR),
        }
    }

    /// A sector of garbage.
    pub fn garbage(&self, dice: &mut Dice, pack: PackId, sector: u64) -> Fault {
        let at = self.sectors(pack, sector, 1);
        self.write("garbage in", pack, at.start, noise(dice.roll(), (at.end - at.start) as usize))
    }

    /// Two sectors that have changed places.
    pub fn swapped(&self, dice: &mut Dice, one: PackId, other: PackId) -> Fault {
        let whole = |pack: PackId| (self.len_of(pack) / SECTOR).max(1);
        let (a, b) = (dice.below(whole(one)), dice.below(whole(other)));
        let (from, to) = (self.sectors(one, a, 1), self.sectors(other, b, 1));
        let len = (from.end - from.start).min(to.end - to.start) as usize;
        let bytes = |pack: PackId, at: &Range<u64>| {
            self.files[&self.path_of(&pack)][at.start as usize..at.start as usize + len].to_vec()
        };
        let first = self.write("another sector in", one, from.start, bytes(other, &to));
        first.and(self.write("another sector in", other, to.start, bytes(one, &from)))
    }

    /// A run of sectors that never arrived: what was there before is, or zeros.
    pub fn torn(&self, pack: PackId, from: u64, count: u64, before: &[u8]) -> Fault {
        let at = self.sectors(pack, from, count);
        let end = (at.end as usize).min(before.len());
        let mut bytes = before[(at.start as usize).min(end)..end].to_vec();
        bytes.resize((at.end - at.start) as usize, 0);
        self.write("sectors that never arrived in", pack, at.start, bytes)
    }

    /// A pack that ends early.
    pub fn cut_short(&self, pack: PackId, len: u64) -> Fault {
        let path = self.path_of(&pack);
        Fault::of(format!("{path} ends at {len}"), vec![Edit::Truncate(path, len)])
    }

    /// A run of sectors of zeros.
    pub fn hole(&self, pack: PackId, from: u64, count: u64) -> Fault {
        let at = self.sectors(pack, from, count);
        self.write("zeros in", pack, at.start, vec![0; (at.end - at.start) as usize])
    }

    /// A run of sectors that cannot be read.
    pub fn unreadable(&self, pack: PackId, from: u64, count: u64, stays: bool) -> Fault {
        let (path, at) = (self.path_of(&pack), self.sectors(pack, from, count));
        let what = format!("{path} errs at {at:?}{}", if stays { ", for ever" } else { "" });
        Fault::of(what, vec![Edit::Lose(path, at, stays)])
    }

    /// A pack that is not there.
    pub fn missing(&self, pack: PackId) -> Fault {
        self.gone(&self.path_of(&pack))
    }

    /// A bit in each part of [`Layout::TABLES`] that is picked by its number.
    pub fn tables(&self, dice: &mut Dice, pack: PackId, picks: impl Fn(usize) -> bool) -> Fault {
        let layout = &self.packs[&pack];
        let head = layout.parity_area().start;
        let parts: [Range<u64>; Layout::TABLES.len()] = [
            0..PACK_HEADER_LEN as u64,
            layout.footer(),
            layout.sums(),
            head..head + TRAILER_LEN as u64,
            layout.parity_sums(),
            layout.second_sums(),
            layout.second_footer(),
            layout.second_footer().end..layout.file_len(),
        ];
        let mut fault = Fault::of("tables".into(), Vec::new());
        for (n, part) in parts.into_iter().enumerate().filter(|(n, part)| !part.is_empty() && picks(*n)) {
            let at = part.start + dice.below(part.end - part.start);
            let byte = self.files[&self.path_of(&pack)][at as usize] ^ 1 << dice.below(8);
            fault = fault.and(self.write(Layout::TABLES[n], pack, at, vec![byte]));
        }
        fault
    }

    /// What says of a pack what its other parts are.
    pub const TABLES: [&str; 8] = [
        "the header of",
        "the footer of",
        "the checksums of",
        "the middle trailer of",
        "the checksums of the parity of",
        "the second checksums of",
        "the second footer of",
        "the trailer of",
    ];

    /// A bit of a region of a file.
    pub fn bit_of(&self, dice: &mut Dice, region: &Region) -> Fault {
        let at = region.at.start + dice.below(region.at.end - region.at.start);
        let byte = self.files[&region.path][at as usize] ^ 1 << dice.below(8);
        let what = format!("a bit of {} ({:?}) at {at}", region.path, region.part);
        Fault::of(what, vec![Edit::Write(region.path.clone(), at, vec![byte])])
    }

    /// A file that is not there.
    pub fn gone(&self, path: &str) -> Fault {
        Fault::of(format!("{path} is gone"), vec![Edit::Remove(path.to_owned())])
    }

    /// A file as it was.
    pub fn stale(&self, path: &str, older: &dyn Disk) -> Fault {
        let bytes = read_file(older, path).unwrap_or_default();
        Fault::of(format!("{path} as it was"), vec![Edit::Write(path.to_owned(), 0, bytes)])
    }

    /// The same kind of thing to both copies of something.
    fn twice(&self, dice: &mut Dice, region: &Region, older: &dyn Disk) -> Fault {
        let twin = |other: &&Region| match (region.part, other.part) {
            (Part::Superblock, Part::Superblock) => {
                let dir = |r: &Region| r.path.starts_with("store/");
                dir(region) == dir(other) && region.path != other.path
            }
            (Part::SegmentHeader(a), Part::SegmentHeader(b)) => a == b && region.at != other.at,
            (Part::PackHeader(a) | Part::Footer(a, 0), Part::Trailer(b) | Part::Footer(b, 1)) => a == b,
            (Part::Trailer(a) | Part::Footer(a, 1), Part::PackHeader(b) | Part::Footer(b, 0)) => a == b,
            (Part::Twin(a), Part::Frame(b, _) | Part::Spare(b)) => a == b,
            (Part::Frame(a, _) | Part::Spare(a), Part::Twin(b)) => a == b,
            _ => false,
        };
        let mut fault = self.once(dice, region, older);
        let twins: Vec<_> = self.regions.iter().filter(twin).collect();
        if let Some(other) = twins.get(dice.below(twins.len() as u64) as usize) {
            // Within the region, so that the first is not undone.
            let second = self.flips(dice, other, false);
            fault.what = format!("{}, and {}", fault.what, second.what);
            let short = |edit: &Edit| !matches!(edit, Edit::Write(..)) && edit.path() == other.path;
            if !fault.edits.iter().any(short) {
                fault.edits.extend(second.edits);
            }
        }
        fault
    }

    fn once(&self, dice: &mut Dice, region: &Region, older: &dyn Disk) -> Fault {
        let path = &region.path;
        let at = region.at.start + dice.below(region.at.end - region.at.start);
        let len = self.files[path].len() as u64;
        let size = if dice.one_in(2) { 512 } else { 4096 };
        let sector = at / size * size..(at / size * size + size).min(len);
        let place = format!("{path} ({:?}) at {}..{}", region.part, sector.start, sector.end);
        let write = |what: String, bytes: Vec<u8>| {
            let edits = vec![Edit::Write(path.clone(), sector.start, bytes)];
            Fault { what: format!("{what} {place}"), edits }
        };
        let count = (sector.end - sector.start) as usize;
        match dice.below(20) {
            0..=7 => {
                let anywhere = dice.one_in(4);
                self.flips(dice, region, anywhere)
            }
            8..=10 => write("zeros in".into(), vec![0; count]),
            11..=13 => write("garbage in".into(), noise(dice.roll(), count)),
            14 => Fault {
                what: format!("{path} ends at {at} ({:?})", region.part),
                edits: vec![Edit::Truncate(path.clone(), at)],
            },
            15 => Fault { what: format!("{path} is gone"), edits: vec![Edit::Remove(path.clone())] },
            16 if !dice.one_in(3) => self.another(dice, region),
            16 | 17 => {
                // What belongs elsewhere, mostly to a file of the same kind.
                let of_kind = |p: &&String| dice_kind(p) == dice_kind(path);
                let others: Vec<&String> = match dice.one_in(4) {
                    true => self.files.keys().collect(),
                    false => self.files.keys().filter(of_kind).collect(),
                };
                let from = others[dice.below(others.len() as u64) as usize];
                let source = &self.files[from];
                let sectors = (source.len() as u64).div_ceil(size);
                let start = (dice.below(sectors) * size) as usize;
                let mut bytes = source[start..(start + count).min(source.len())].to_vec();
                bytes.resize(count, 0);
                write(format!("what belongs into {from} at {start} in"), bytes)
            }
            _ => {
                let before = read_file(older, path).unwrap_or_default();
                let range = sector.start as usize..(sector.end as usize).min(before.len());
                let mut bytes = before.get(range).unwrap_or_default().to_vec();
                // Room that a file takes was another's, or nobody's.
                bytes.resize(count, 0);
                write("an older version of".into(), bytes)
            }
        }
    }

    /// The bytes of another region of the kind, from its beginning, so that all but its place may fit.
    fn another(&self, dice: &mut Dice, region: &Region) -> Fault {
        let kind = |r: &Region| std::mem::discriminant(&r.part);
        let others: Vec<_> = self.regions.iter().filter(|r| kind(r) == kind(region)).collect();
        let other = others[dice.below(others.len() as u64) as usize];
        let len = (other.at.end - other.at.start).min(region.at.end - region.at.start);
        let source = &self.files[&other.path];
        let bytes = source[other.at.start as usize..(other.at.start + len) as usize].to_vec();
        let what = format!("{:?} of {} in the place of {:?}", other.part, other.path, region.part);
        Fault { what, edits: vec![Edit::Write(region.path.clone(), region.at.start, bytes)] }
    }

    /// One to 10,000 bits, of the region or of all its file.
    fn flips(&self, dice: &mut Dice, region: &Region, anywhere: bool) -> Fault {
        let path = &region.path;
        let at = if anywhere { 0..self.files[path].len() as u64 } else { region.at.clone() };
        let mut bytes = self.files[path][at.start as usize..at.end as usize].to_vec();
        let most = [1, 1, 2, 64, 10_000][dice.below(5) as usize];
        let bits = 1 + dice.below(most);
        for _ in 0..bits {
            let bit = dice.below(8 * bytes.len() as u64);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let what = format!("{bits} bits of {path} ({:?}) within {}..{}", region.part, at.start, at.end);
        Fault { what, edits: vec![Edit::Write(path.clone(), at.start, bytes)] }
    }
}

/// Where a pack's twin lies.
fn twin_of(pack: &PackId) -> String {
    format!("store/{}", Place::Twin.path(pack))
}

/// Files of a kind.
fn dice_kind(path: &str) -> u8 {
    match path {
        _ if path.starts_with(JOURNAL_DIR) => 0,
        _ if path.ends_with(".pack") => 1,
        _ if path.ends_with("index") => 2,
        _ => 3,
    }
}

/// Has every pack of a store looked through, as a scrub does, and what is damaged of it written back as far as parity
/// reaches; gives those of which something is lost.
pub fn mend_packs(store: &dyn Disk) -> Result<BTreeSet<PackId>, String> {
    let packs = list_packs(store).map_err(|e| format!("packs: {e}"))?.packs;
    let twins = list_twins(store).map_err(|e| format!("twins: {e}"))?.packs;
    let twins: BTreeSet<PackId> = twins.into_iter().map(|(pack, _)| pack).collect();
    let all: BTreeSet<PackId> =
        packs.into_iter().map(|(pack, _)| pack).chain(twins.iter().copied()).collect();
    let mut lost = BTreeSet::new();
    for pack in all {
        let examined = match examine(store, pack, &mut |_| true) {
            Ok(Some(examined)) => examined,
            Ok(None) => return Err(format!("{pack}: nobody stopped it")),
            // Nothing says where its parts lie.
            Err(_) => {
                lost.insert(pack);
                continue;
            }
        };
        if !examined.is_whole()
            && !mend(store, &examined).map_err(|e| format!("mending: {e}"))?.lost.is_empty()
        {
            lost.insert(pack);
        }
        if twins.contains(&pack)
            && let Ok(Some(examined)) = examine_at(store, Place::Twin, pack, &mut |_| true)
        {
            mend(store, &examined).map_err(|e| format!("mending a twin: {e}"))?;
        }
    }
    Ok(lost)
}
