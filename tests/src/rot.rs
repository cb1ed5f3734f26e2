//! Rot: what a disk does to bytes that nobody writes, and what of it a volume has to survive.
//!
//! The injector knows the layout of what it spoils, and says beforehand what becomes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use cairn_format::{
    Lsn, PACK_HEADER_LEN, PAYLOAD_BLOCK, PackHeader, PackId, PackKind, PieceKind, RECORD_ALIGN,
    RECORD_HEAD_LEN, Record, RecordHead, SEGMENT_DATA_START, SEGMENT_HEADER_LEN, SegmentHeader,
    StoreSuperblock, TRAILER_LEN, Uuid, VolumeState, VolumeSuperblock,
};
use cairn_store::disk::{Access, Disk};
use cairn_store::{PackReader, REPLICA_PATHS, Store, StoreOptions, list_packs, pack_path};
use cairn_volume::journal::{JOURNAL_DIR, JournalShape, scan_read_only};
use cairn_volume::{ENGINE_DIR, load_chain, read_superblock};

use crate::dice::{Dice, noise};

/// What is promised of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// Nothing is lost: what was spoiled is there twice, can be derived, or is needed by nobody. (What parity can mend
    /// belongs here once there is parity: then it has to be found mended on the disk, too.)
    Within,
    /// Something is lost: it is named, and whoever asks for it is told so.
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
    /// The chunk index.
    Index,
    /// A file of the engine's.
    Engine,
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
}

impl Edit {
    /// The file.
    pub fn path(&self) -> &str {
        let (Edit::Write(path, ..) | Edit::Truncate(path, _) | Edit::Remove(path)) = self;
        path
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
    /// Does it, to the disk that the volume's directory lies on.
    pub fn inflict(&self, disk: &dyn Disk) -> io::Result<()> {
        for edit in &self.edits {
            match edit {
                Edit::Write(path, offset, bytes) => {
                    disk.open(path, Access::Write)?.write_at(bytes, *offset)?
                }
                Edit::Truncate(path, len) => disk.open(path, Access::Write)?.set_len(*len)?,
                Edit::Remove(path) => disk.remove(path)?,
            }
        }
        Ok(())
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
    frames: BTreeSet<(PackId, u32)>,
    payload: BTreeSet<(Lsn, u32)>,
    /// The files that fsck has to name.
    pub named: BTreeSet<String>,
}

impl Verdict {
    /// Whether any bytes are.
    pub fn loses_some(&self) -> bool {
        !self.frames.is_empty() || !self.payload.is_empty()
    }

    /// Whether bytes that lie there are lost.
    pub fn loses(&self, kind: &PieceKind, len: u64) -> bool {
        match kind {
            PieceKind::Hole => false,
            PieceKind::Chunk(piece) => self.frames.contains(&(piece.pack, piece.frame)),
            PieceKind::Journal(at) => {
                payload_blocks(at.payload_offset, len).any(|b| self.payload.contains(&(at.lsn, b)))
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
            self.region(&path, header.layout.second_footer(), Part::Footer(pack, 1));
            self.region(&path, trailer..len, Part::Trailer(pack));
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
        let mut bytes = self.files[path].to_vec();
        for edit in fault.edits.iter().filter(|edit| edit.path() == path) {
            match edit {
                Edit::Write(_, offset, new) => {
                    let at = *offset as usize;
                    bytes[at..at + new.len()].copy_from_slice(new);
                }
                Edit::Truncate(_, len) => bytes.truncate(*len as usize),
                Edit::Remove(_) => return None,
            }
        }
        Some(bytes)
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
        let mut verdict = Verdict {
            guarantee: Guarantee::Within,
            refused: false,
            needs_engine: false,
            frames: BTreeSet::new(),
            payload: BTreeSet::new(),
            named: BTreeSet::new(),
        };
        self.judge_superblocks(fault, &mut verdict);
        self.judge_packs(harmed, &mut verdict);
        self.judge_journal(harmed, &mut verdict);
        verdict
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

    fn judge_packs(&self, harmed: &[&Region], verdict: &mut Verdict) {
        let bad = |part: Part| harmed.iter().any(|r| r.part == part);
        let packs: BTreeSet<PackId> = harmed
            .iter()
            .filter_map(|r| match r.part {
                Part::PackHeader(p) | Part::Frame(p, _) | Part::Footer(p, _) | Part::Trailer(p) => Some(p),
                _ => None,
            })
            .collect();
        for pack in packs {
            let first = bad(Part::PackHeader(pack)) || bad(Part::Footer(pack, 0));
            let second = bad(Part::Trailer(pack)) || bad(Part::Footer(pack, 1));
            let lost = |r: &Region| match r.part {
                Part::Frame(p, n) if p == pack && (first && second || bad(r.part)) => Some((p, n)),
                _ => None,
            };
            let lost: Vec<_> = self.regions.iter().filter_map(lost).collect();
            if self.meta.contains(&pack) {
                verdict.needs_engine |= !lost.is_empty();
            } else {
                verdict.frames.extend(lost.into_iter().filter(|frame| self.frames.contains(frame)));
            }
            if verdict.needs_engine || verdict.frames.iter().any(|(p, _)| *p == pack) {
                verdict.guarantee = Guarantee::Beyond;
                verdict.named.insert(format!("store/{}", pack_path(&pack)));
            }
        }
    }

    fn judge_journal(&self, harmed: &[&Region], verdict: &mut Verdict) {
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
        let witnessed = left.map(|(_, synced)| *synced).max().unwrap_or(Lsn::ZERO);
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

    /// A fault. `older` is the disk as it was earlier.
    pub fn draw(&self, dice: &mut Dice, older: &dyn Disk) -> Fault {
        let kinds: [fn(&Layout, &Region) -> bool; 10] = [
            |_, r| r.part == Part::Superblock,
            |_, r| matches!(r.part, Part::SegmentHeader(_)),
            |_, r| matches!(r.part, Part::Record(..)),
            |_, r| matches!(r.part, Part::Payload(..)),
            |_, r| r.part == Part::Free,
            |_, r| matches!(r.part, Part::PackHeader(_) | Part::Footer(..) | Part::Trailer(_)),
            |l, r| matches!(r.part, Part::Frame(p, _) if !l.meta.contains(&p)),
            |l, r| matches!(r.part, Part::Frame(p, _) if l.meta.contains(&p)),
            |_, r| r.part == Part::Index,
            |_, r| r.part == Part::Engine,
        ];
        loop {
            let kind = kinds[dice.below(kinds.len() as u64) as usize];
            let some: Vec<&Region> = self.regions.iter().filter(|r| kind(self, r)).collect();
            let Some(region) = some.get(dice.below(some.len() as u64) as usize) else { continue };
            let fault = match dice.below(8) {
                0 => self.twice(dice, region, older),
                _ => self.once(dice, region, older),
            };
            if !self.harmed(&fault).is_empty() {
                return fault;
            }
        }
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

/// Files of a kind.
fn dice_kind(path: &str) -> u8 {
    match path {
        _ if path.starts_with(JOURNAL_DIR) => 0,
        _ if path.ends_with(".pack") => 1,
        _ if path.ends_with("index") => 2,
        _ => 3,
    }
}
