//! The bytes on disk: written down once, read back, never panicking, and as `docs/FORMAT.md` says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cairn_format::key::Key;
use cairn_format::*;
use cairn_tests::hostile::spoil::{seal_last, set_sum};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const VOLUME: Uuid = Uuid(*b"volume of golden");
const STORE: Uuid = Uuid(*b"store of goldens");

/// A value of an on-disk type.
struct Sample {
    /// Its heading in `docs/FORMAT.md`; its file in `tests/golden`.
    name: &'static str,
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// That bytes decode to the sample's value; an error is any other outcome.
    decodes: fn(&[u8]) -> Result<(), String>,
    /// Makes checksums match again.
    reseal: fn(&mut Vec<u8>),
}

fn sample(
    name: &'static str,
    encode: impl Fn(&mut Encoder),
    decodes: fn(&[u8]) -> Result<(), String>,
    reseal: fn(&mut Vec<u8>),
) -> Sample {
    let mut tracing = Encoder::tracing();
    encode(&mut tracing);
    let mut e = Encoder::new();
    encode(&mut e);
    Sample { name, bytes: e.finish(), fields: tracing.into_trace(), decodes, reseal }
}

fn same<T: PartialEq + std::fmt::Debug>(found: Result<T, FormatError>, expected: T) -> Result<(), String> {
    match found {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => Err(format!("{found:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn pack() -> PackId {
    PackId::new(0x0102_0304_0506_0708, 3, 9)
}

fn checkpoint() -> CheckpointRef {
    CheckpointRef { lsn: Lsn(2 << 40 | 77), pack: PackId::new(0x1112_1314_1516_1718, 2, 5) }
}

fn volume_superblock() -> VolumeSuperblock {
    VolumeSuperblock {
        uuid: VOLUME,
        store: STORE,
        generation: 12,
        epoch: 4,
        state: VolumeState::Clean,
        checkpoint: checkpoint(),
        created: 1_700_000_000,
        geometry: Geometry {
            chunks: ChunkSizes { min: 8 << 10, avg: 32 << 10, max: 128 << 10 },
            frame: 256 << 10,
            compression: Compression::Zstd(3),
            parity: ParityGeometry { data: 16, parity: 2 },
            segment: 16 << 20,
            segments: 32,
        },
        label: "photos".into(),
        store_path: "/srv/store".into(),
    }
}

fn store_superblock() -> StoreSuperblock {
    StoreSuperblock {
        uuid: STORE,
        generation: 2,
        created: 1_700_000_000,
        pack_size: 64 << 20,
        chunk_key: *b"a key of thirty-two bytes, fixed",
    }
}

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        volume: VOLUME,
        epoch: 4,
        len: 16 << 20,
        number: 21,
        first: Lsn(4 << 40 | 1),
        continues: Lsn(3 << 40 | 500),
        checkpoint: checkpoint(),
        floor: Lsn(2 << 40 | 70),
    }
}

fn segment_parity() -> SegmentParity {
    SegmentParity {
        volume: VOLUME,
        number: 21,
        first: Lsn(4 << 40 | 1),
        last: Lsn(4 << 40 | 90),
        covered: 12_345_672,
        segment_len: 16 << 20,
        parity: ParityGeometry { data: 16, parity: 4 },
    }
}

fn payload() -> Vec<u8> {
    (0..5000u32).map(|i| i as u8).collect()
}

fn record() -> (RecordHead, Vec<Mutation>) {
    let mutations = vec![mutation_data()];
    let body_len = Mutation::encode_all(&mutations).len() as u32;
    let head = RecordHead {
        lsn: Lsn(4 << 40 | 2),
        segment: 21,
        synced: Lsn(4 << 40 | 1),
        body_len,
        payload_len: 5000,
        owed: 3,
        answer: Answer { request: 0x1234_5678, value: 17 },
    };
    (head, mutations)
}

fn mutation_data() -> Mutation {
    Mutation::Data { view: View(1), ino: Ino(17), offset: 1 << 20, len: 5000, payload_offset: 0 }
}

fn chunk_piece() -> Piece {
    let chunk = ChunkPiece {
        chunk: ChunkId([0xc4; 32]),
        pack: pack(),
        frame: 6,
        slot: 2,
        offset: 100,
        chunk_len: 30_000,
        stored: 12_000,
        base: None,
    };
    Piece { len: 29_000, kind: PieceKind::Chunk(chunk) }
}

fn differing_piece() -> Piece {
    let Piece { len, kind: PieceKind::Chunk(chunk) } = chunk_piece() else { panic!("it is one") };
    let base = ChunkPlace { pack: checkpoint().pack, frame: 9, slot: 0 };
    Piece { len, kind: PieceKind::Chunk(ChunkPiece { base: Some(base), ..chunk }) }
}

fn bases() -> BaseTable {
    let entry = |n: u8| BaseEntry { key: u64::from(n) << 40, chunk: ChunkId([n; 32]), len: 1 << 20 };
    BaseTable { store: STORE, entries: vec![entry(1), entry(2)] }
}

fn journal_piece() -> Piece {
    let at = JournalRef { lsn: Lsn(4 << 40 | 2), segment: 21, record_offset: 8_192, payload_offset: 40 };
    Piece { len: 4_960, kind: PieceKind::Journal(at) }
}

fn inode() -> Inode {
    let time = |secs, nanos| Timestamp { secs, nanos };
    Inode {
        mode: 0o100_644,
        uid: 1000,
        gid: 100,
        nlink: 2,
        rdev: 0x0801,
        generation: 4,
        size: 1 << 33,
        parent: Ino(0),
        atime: time(-5, 1),
        mtime: time(1_700_000_000, 999_999_999),
        ctime: time(1_700_000_001, 2),
        btime: time(0, 0),
        stored: 123_456,
    }
}

fn frame_head() -> FrameHead {
    let chunk = |n, len| ChunkEntry { id: ChunkId([n; 32]), len };
    FrameHead {
        codec: Codec::Zstd,
        plain_len: 300,
        stored_len: 11,
        bases: vec![ChunkId([9; 32])],
        chunks: vec![chunk(1, 100), chunk(2, 200)],
    }
}

const STORED: &[u8] = b"stored here";

fn footer() -> Footer {
    let frame = |offset, chunks| FrameEntry { offset, len: 115, plain_len: 300, chunks };
    let chunk = |n, len| ChunkEntry { id: ChunkId([n; 32]), len };
    Footer {
        pack: pack(),
        store: STORE,
        volume: VOLUME,
        kind: PackKind::Metadata,
        parity: ParityGeometry::new(16, 2),
        frames: vec![frame(256, 2), frame(371, 1)],
        chunks: vec![chunk(1, 100), chunk(2, 200), chunk(3, 300)],
        bases: vec![FrameBase { frame: 1, base: ChunkId([9; 32]) }],
        replaces: vec![Replaced { pack: checkpoint().pack, frame: 1, slot: 0, chunk: 2 }],
        checkpoint: Some(Checkpoint {
            kind: CheckpointKind::Delta,
            lsn: Lsn(3 << 40 | 9),
            previous: checkpoint(),
            floor: Lsn(3 << 40 | 4),
            parts: vec![PackId::new(0x0102_0304_0506_0708, 3, 8), pack()],
        }),
    }
}

fn layout() -> PackLayout {
    PackLayout { footer_offset: 486, footer_len: 420, parity: ParityGeometry::new(16, 2) }
}

const SUMS: [u64; 3] = [0x0123_4567_89ab_cdef, 2, 3];

fn sum_table() -> SumTable<'static> {
    SumTable { owner: b"owner of sectors", first: 40 }
}

fn pack_header() -> PackHeader {
    PackHeader { pack: pack(), store: STORE, volume: VOLUME, kind: PackKind::Data, layout: layout() }
}

fn index() -> IndexSnapshot {
    let summary = |pack, kind| PackSummary {
        pack,
        volume: VOLUME,
        kind,
        file_len: 5_000,
        spare_len: 700,
        plain_len: 9_000,
        chunks: 3,
    };
    IndexSnapshot {
        store: STORE,
        packs: vec![summary(pack(), PackKind::Data), summary(checkpoint().pack, PackKind::Metadata)],
        slots: vec![IndexSlot { fingerprint: 0xfeed_f00d_dead_beef, pack: 1, chunk: 2 }],
    }
}

fn scrub_state() -> ScrubState {
    let entry = |pack, outcome, deep| ScrubEntry { pack, verified: 1_700_000_000, round: 6, outcome, deep };
    ScrubState {
        store: STORE,
        round: 7,
        unfinished: true,
        packs: vec![
            entry(pack(), ScrubOutcome::Whole, true),
            entry(checkpoint().pack, ScrubOutcome::Uncorrected, false),
        ],
    }
}

fn planes_head() -> PlanesHead {
    PlanesHead {
        element: Element::Bfloat,
        shape: PlanesShape::Palette(vec![1, 2, 3, 4]),
        shared: 1,
        tables: vec![9; 40],
        blocks: vec![BlockEntry { end: 40, sum: 0x0102_0304_0506_0708 }, BlockEntry { end: 90, sum: 17 }],
    }
}

fn across() -> Across {
    Across { store: STORE, number: 1, dirs: vec!["/mnt/b".into(), "/mnt/c".into()] }
}

fn seal_at(bytes: &mut [u8], at: usize, seal: &Seal, end: usize) {
    if let (true, Some(behind)) = (end <= bytes.len(), end.checked_sub(at + 8)) {
        let sum = seal.sum_parts(&[&bytes[..at], &bytes[at + 8..at + 8 + behind]]);
        set_sum(bytes, at, sum);
    }
}

fn unsealed(_: &mut Vec<u8>) {}

macro_rules! mutation {
    ($name:literal, $value:expr) => {
        sample(
            $name,
            |e| $value.encode_into(e),
            |bytes| same(Mutation::decode_all(bytes), vec![$value]),
            unsealed,
        )
    };
}

macro_rules! value {
    ($name:literal, $type:ty, $value:expr) => {
        sample($name, |e| $value.encode_into(e), |bytes| same(<$type>::decode(bytes), $value), unsealed)
    };
}

fn samples() -> Vec<Sample> {
    let entry = || DirEntry { ino: Ino(17), view: View(0), kind: FileKind::Symlink, cookie: 4 << 40 | 2 };
    let mut samples = vec![
        sample(
            "Volume superblock",
            |e| volume_superblock().encode_into(e),
            |bytes| same(VolumeSuperblock::decode(bytes), volume_superblock()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Superblock, &[0; 16], 0)),
        ),
        sample(
            "Store superblock",
            |e| store_superblock().encode_into(e),
            |bytes| same(StoreSuperblock::decode(bytes), store_superblock()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Superblock, &[0; 16], 0)),
        ),
        sample(
            "Segment header",
            |e| segment_header().encode_into(e),
            |bytes| same(SegmentHeader::decode(bytes, &VOLUME), segment_header()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Segment, &VOLUME.0, 0)),
        ),
        sample(
            "Segment parity",
            |e| segment_parity().encode_into(e),
            |bytes| same(SegmentParity::decode(bytes, &VOLUME), segment_parity()),
            |bytes| seal_last(bytes, &Seal::new(Domain::SegmentParity, &VOLUME.0, 0)),
        ),
        sample(
            "Record",
            |e| {
                let (head, mutations) = record();
                let sums = payload_sums(&VOLUME, &payload());
                Record::encode_prefix_into(e, &VOLUME, &head, &Mutation::encode_all(&mutations), &sums);
            },
            |bytes| {
                let (head, mutations) = record();
                let sums = payload_sums(&VOLUME, &payload());
                same(Record::decode_prefix(&VOLUME, bytes), Record { head, mutations, sums })
            },
            |bytes| {
                if let Ok(head) = RecordHead::peek(bytes) {
                    let seal = Seal::new(Domain::Record, &VOLUME.0, head.lsn.0);
                    seal_at(bytes, 40, &seal, usize::try_from(head.prefix_len()).unwrap_or(usize::MAX));
                }
            },
        ),
        mutation!("Mutation: Put", Mutation::Put { key: Key::Totals.encode(), value: b"value".to_vec() }),
        mutation!("Mutation: Delete", Mutation::Delete { key: Key::NextInode.encode() }),
        mutation!("Mutation: Data", mutation_data()),
        mutation!(
            "Mutation: Hole",
            Mutation::Hole { view: View(0), ino: Ino(17), offset: 4_096, len: u64::MAX - 4_096 }
        ),
        mutation!(
            "Mutation: Map",
            Mutation::Map {
                view: View(0),
                ino: Ino(17),
                offset: 7,
                pieces: vec![chunk_piece(), journal_piece()]
            }
        ),
        mutation!("Mutation: Epoch", Mutation::Epoch { continues: Lsn(3 << 40 | 500) }),
        mutation!(
            "Mutation: Checkpoint",
            Mutation::Checkpoint { at: checkpoint(), floor: Lsn(2 << 40 | 70) }
        ),
        value!("Inode", Inode, inode()),
        sample(
            "Directory entry",
            move |e| entry().encode_into(e),
            |bytes| {
                let expected =
                    DirEntry { ino: Ino(17), view: View(0), kind: FileKind::Symlink, cookie: 4 << 40 | 2 };
                same(DirEntry::decode(bytes), expected)
            },
            unsealed,
        ),
        value!(
            "Ordered entry",
            OrderedEntry,
            OrderedEntry { ino: Ino(17), view: View(0), kind: FileKind::Regular, name: b"caf\xe9".to_vec() }
        ),
        value!("Pack references", PackRefs, PackRefs { pieces: 3, bytes: 90_000 }),
        value!("Totals", Totals, Totals { inodes: 5, logical: 1 << 40 }),
        sample(
            "Pack header",
            |e| pack_header().encode_into(e),
            |bytes| same(PackHeader::decode(bytes, &pack()), pack_header()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Pack, &pack().0, 0)),
        ),
        sample(
            "Frame head",
            |e| frame_head().encode_into(e, &pack(), 256, STORED),
            |bytes| {
                let frame = [bytes, STORED].concat();
                same(FrameHead::decode(&frame, &pack(), 256).map(|(head, _)| head), frame_head())
            },
            |bytes| {
                let whole = [bytes, STORED].concat();
                if bytes.len() >= 32 {
                    let seal = Seal::new(Domain::Frame, &pack().0, 256);
                    let sum = seal.sum_parts(&[&whole[..24], &bytes[32..], STORED]);
                    set_sum(bytes, 24, sum);
                }
            },
        ),
        sample(
            "Footer",
            |e| footer().encode_into(e),
            |bytes| same(Footer::decode(bytes, &pack()), footer()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Pack, &pack().0, 1)),
        ),
        sample(
            "Trailer",
            |e| Trailer { layout: layout() }.encode_into(e, &pack()),
            |bytes| same(Trailer::decode(bytes, &pack()), Trailer { layout: layout() }),
            |bytes| seal_last(bytes, &Seal::new(Domain::Pack, &pack().0, 2)),
        ),
        sample(
            "Checksums of sectors",
            |e| sum_table().encode_into(e, &SUMS),
            |bytes| match sum_table().decode_block(0, bytes) {
                Some(sums) if sums == SUMS => Ok(()),
                other => Err(format!("{other:?}")),
            },
            |bytes| seal_last(bytes, &Seal::new(Domain::Sums, b"owner of sectors", 40)),
        ),
        sample(
            "Head of planes",
            |e| planes_head().encode_into(e, &ChunkId([7; 32])),
            |bytes| same(PlanesHead::decode(bytes, &ChunkId([7; 32])), planes_head()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Block, &[7; 16], 0)),
        ),
        sample(
            "Metadata record",
            |e| push_meta_record(e, &Key::Totals.encode(), Some(b"value")),
            |bytes| {
                let key = Key::Totals.encode();
                let records: Result<Vec<_>, _> = MetaRecords::new(bytes).collect();
                same(records, vec![(key.as_slice(), Some(&b"value"[..]))])
            },
            unsealed,
        ),
        sample(
            "Index snapshot",
            |e| index().encode_into(e),
            |bytes| same(IndexSnapshot::decode(bytes, &STORE), index()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Index, &STORE.0, 0)),
        ),
        sample(
            "Table of bases",
            |e| bases().encode_into(e),
            |bytes| same(BaseTable::decode(bytes, &STORE), bases()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Bases, &STORE.0, 0)),
        ),
        sample(
            "Scrub state",
            |e| scrub_state().encode_into(e),
            |bytes| same(ScrubState::decode(bytes, &STORE), scrub_state()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Scrub, &STORE.0, 0)),
        ),
        sample(
            "List of directories",
            |e| across().encode_into(e),
            |bytes| same(Across::decode(bytes), across()),
            |bytes| seal_last(bytes, &Seal::new(Domain::Across, &[0; 16], 0)),
        ),
    ];
    for (name, piece) in [
        ("Extent: hole", Piece { len: 4_096, kind: PieceKind::Hole }),
        ("Extent: chunk", chunk_piece()),
        ("Extent: chunk of differences", differing_piece()),
        ("Extent: journal", journal_piece()),
    ] {
        let decodes: fn(&[u8]) -> Result<(), String> = match piece.kind {
            PieceKind::Hole => {
                |bytes| same(decode_pieces(bytes), vec![Piece { len: 4_096, kind: PieceKind::Hole }])
            }
            PieceKind::Chunk(ChunkPiece { base: Some(_), .. }) => {
                |bytes| same(decode_pieces(bytes), vec![differing_piece()])
            }
            PieceKind::Chunk(_) => |bytes| same(decode_pieces(bytes), vec![chunk_piece()]),
            PieceKind::Journal(_) => |bytes| same(decode_pieces(bytes), vec![journal_piece()]),
        };
        // The trace of a mutation that holds the piece, without the mutation's own fields.
        let map = Mutation::Map { view: View(0), ino: Ino(1), offset: 0, pieces: vec![piece] };
        let mut e = Encoder::tracing();
        map.encode_into(&mut e);
        let start = e.len() - encode_pieces(&[piece]).len();
        let fields = e.into_trace().into_iter().filter(|f| f.offset >= start);
        let fields = fields.map(|f| Field { offset: f.offset - start, ..f }).collect();
        samples.push(Sample { name, bytes: encode_pieces(&[piece]), fields, decodes, reseal: unsealed });
    }
    samples
}

fn golden(name: &str) -> PathBuf {
    let file: String = name.to_lowercase().replace(": ", "-").replace(' ', "-");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{file}.hex"))
}

/// Sixteen bytes to a line; runs of lines of zeros are one `*`.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut zeros = false;
    for (i, line) in bytes.chunks(16).enumerate() {
        if line.len() == 16 && line.iter().all(|b| *b == 0) {
            if !zeros {
                text += "*\n";
            }
            zeros = true;
            continue;
        }
        zeros = false;
        text += &format!("{:04x}:", i * 16);
        line.iter().for_each(|byte| text += &format!(" {byte:02x}"));
        text.push('\n');
    }
    text + &format!("{:04x}\n", bytes.len())
}

#[test]
fn golden_bytes_are_what_they_were() {
    for sample in samples() {
        let (path, found) = (golden(sample.name), hex(&sample.bytes));
        if std::env::var_os("CAIRN_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("golden");
            std::fs::write(&path, &found).expect("golden");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            expected == found,
            "{}: not what volumes hold. Other bytes need another FORMAT_VERSION, and a reader of the old ones.\n{found}",
            path.display()
        );
    }
    let there = std::fs::read_dir(golden("x").parent().expect("a directory")).expect("golden").count();
    assert_eq!(there, samples().len() + 1, "a file for each sample, and that of the keys");
}

#[test]
fn golden_bytes_decode_to_what_was_encoded() {
    for sample in samples() {
        (sample.decodes)(&sample.bytes).unwrap_or_else(|e| panic!("{}: {e}", sample.name));
        let mut resealed = sample.bytes.clone();
        (sample.reseal)(&mut resealed);
        assert_eq!(resealed, sample.bytes, "{}: the test's own checksums", sample.name);
    }
}

fn keys() -> Vec<Key> {
    vec![
        Key::Name(Ino(1), b"hello".to_vec(), View(0)),
        Key::Extent(Ino(17), 3, View(0)),
        Key::Inode(Ino(17), View(2)),
        Key::Target(Ino(18), View(0)),
        Key::NextInode,
        Key::Totals,
        Key::Order(Ino(1), 4 << 40 | 2, View(0)),
        Key::Pack(pack()),
        Key::Orphan(Ino(19), View(0)),
        Key::Xattr(Ino(17), b"user.one".to_vec(), View(0)),
    ]
}

#[test]
fn golden_keys_are_what_they_were() {
    let text: String = keys().iter().map(|key| format!("{key:?}\n{}", hex(&key.encode()))).collect();
    if std::env::var_os("CAIRN_BLESS").is_some() {
        std::fs::write(golden("keys"), &text).expect("golden");
    }
    assert_eq!(text, std::fs::read_to_string(golden("keys")).unwrap_or_default());
    keys().iter().for_each(|key| assert_eq!(Key::decode(&key.encode()).as_ref(), Some(key)));
    // FORMAT.md shows the same keys, in the same order.
    let document = document();
    for key in keys() {
        let bytes: String = key.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(document.contains(&format!("`{bytes}`")), "FORMAT.md does not show {key:?}: {bytes}");
    }
}

fn mutated(sample: &Sample, changes: &[(u16, u8)], cut: Option<u16>, tail: &[u8]) -> Vec<u8> {
    let mut bytes = sample.bytes.clone();
    for (at, to) in changes {
        // Zeros fill most of the large types: changes are to meet fields.
        let reach = bytes.len().min(
            sample.fields.iter().filter(|f| f.name != "zeros").map(|f| f.offset + f.size).max().unwrap_or(1),
        );
        let at = *at as usize % reach;
        bytes[at] = *to;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut as usize % (bytes.len() + 1));
    }
    bytes.extend_from_slice(tail);
    bytes
}

#[test]
fn decoders_take_any_bytes_without_a_panic_and_nothing_mutated_for_the_original() {
    let samples = samples();
    let strategy = (
        prop::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        prop::option::of(any::<u16>()),
        prop::collection::vec(any::<u8>(), 0..40),
        any::<bool>(),
    );
    let cases = std::env::var("CAIRN_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_500);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |(changes, cut, tail, reseal)| {
        for sample in &samples {
            let mut bytes = mutated(sample, &changes, cut, &tail);
            if reseal {
                (sample.reseal)(&mut bytes);
            }
            let found = (sample.decodes)(&bytes);
            if bytes != sample.bytes && found.is_ok() && !ignores(sample, &bytes) {
                return Err(TestCaseError::fail(format!(
                    "{}: changed bytes decode to the same",
                    sample.name
                )));
            }
            let _ = (sample.decodes)(&tail);
        }
        let _ = Key::decode(&tail);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Whether bytes differ from the sample only where the format says that nobody looks.
fn ignores(sample: &Sample, bytes: &[u8]) -> bool {
    const NOBODY_LOOKS: [&str; 4] = ["zeros", "reserved", "reserved2", "checksum"];
    // A segment's parity has a file of its own.
    let unused = |field: &Field| sample.name == "Segment header" && field.name.starts_with("parity_");
    // These are read as so many bytes, and may be asked to look at more.
    let fixed = ["Segment header", "Segment parity", "Record", "Pack header"].contains(&sample.name);
    (bytes.len() == sample.bytes.len() || fixed && bytes.len() > sample.bytes.len())
        && sample.fields.iter().all(|field| {
            let at = field.offset..field.offset + field.size;
            NOBODY_LOOKS.contains(&field.name) || unused(field) || bytes[at.clone()] == sample.bytes[at]
        })
}

#[test]
fn bytes_in_another_place_do_not_pass_for_those_that_belong_there() {
    let other = PackId::new(1, 1, 1);
    let head = frame_head().encode(&pack(), 256, STORED);
    let frame = [&head[..], STORED].concat();
    let bad = |e: FormatError| assert!(matches!(e, FormatError::BadChecksum { .. }), "{e}");
    bad(FrameHead::decode(&frame, &pack(), 512).expect_err("another offset"));
    bad(FrameHead::decode(&frame, &other, 256).expect_err("another pack"));
    bad(Footer::decode(&footer().encode(), &other).expect_err("another pack"));
    bad(PackHeader::decode(&pack_header().encode(), &other).expect_err("another pack"));
    bad(SegmentHeader::decode(&segment_header().encode(), &STORE).expect_err("another volume"));
    bad(SegmentParity::decode(&segment_parity().encode(), &STORE).expect_err("another volume"));
    bad(IndexSnapshot::decode(&index().encode(), &VOLUME).expect_err("another store"));
    bad(ScrubState::decode(&scrub_state().encode(), &VOLUME).expect_err("another store"));
    bad(PlanesHead::decode(&planes_head().encode(&ChunkId([7; 32])), &ChunkId([8; 32]))
        .expect_err("another run"));
    let (head, mutations) = record();
    let sums = payload_sums(&VOLUME, &payload());
    let prefix = Record::encode_prefix(&VOLUME, &head, &Mutation::encode_all(&mutations), &sums);
    bad(Record::decode_prefix(&STORE, &prefix).expect_err("another volume"));
    // Two blocks of a payload that changed places.
    assert_ne!(payload_sums(&VOLUME, &[1; 8_192])[0], payload_sums(&VOLUME, &[1; 8_192])[1]);
}

#[test]
fn heads_of_differences_name_the_elements_of_a_base_that_are_others_and_can_be_cast() {
    for element in Element::all().filter(|element| element.is_number()) {
        for base in Element::all() {
            let shape = PlanesShape::Differences(base);
            let head = PlanesHead { element, shape, ..planes_head() };
            let bytes = head.encode(&ChunkId([7; 32]));
            let found = PlanesHead::decode(&bytes, &ChunkId([7; 32]));
            match element == base || element.casts_from(base) {
                true => assert_eq!(found, Ok(head)),
                false => assert!(found.is_err(), "{element:?} of {base:?}"),
            }
        }
    }
}

#[test]
fn sections_that_this_version_does_not_know_are_skipped_where_even_and_refused_where_odd() {
    for (tag, known) in [(8u32, true), (1_000, true), (9, false), (1_001, false)] {
        let mut bytes = footer().encode();
        bytes.truncate(bytes.len() - 8);
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&3u32.to_le_bytes());
        bytes.extend_from_slice(b"new");
        bytes.extend_from_slice(&[0; 8]);
        seal_last(&mut bytes, &Seal::new(Domain::Pack, &pack().0, 1));
        let found = Footer::decode(&bytes, &pack());
        assert_eq!(found.as_ref().ok(), known.then(footer).as_ref(), "tag {tag}: {found:?}");
    }
}

#[test]
fn a_newer_version_is_named_as_such_and_a_damaged_one_is_not() {
    let mut newer = volume_superblock().encode();
    let seal = Seal::new(Domain::Superblock, &[0; 16], 0);
    newer[8] = FORMAT_VERSION as u8 + 1;
    seal_last(&mut newer, &seal);
    let error = VolumeSuperblock::decode(&newer).expect_err("newer");
    assert!(matches!(error, FormatError::NewerVersion { .. }), "{error}");
    let mut older = newer.clone();
    older[8] = 1;
    seal_last(&mut older, &seal);
    let error = VolumeSuperblock::decode(&older).expect_err("older");
    assert!(matches!(error, FormatError::OlderVersion { .. }), "{error}");
    // One bit away from this version.
    newer[8] = FORMAT_VERSION as u8 ^ 0x80;
    let error = VolumeSuperblock::decode(&newer).expect_err("damaged");
    assert!(matches!(error, FormatError::BadChecksum { .. }), "{error}");
}

fn document() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMAT.md");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A row of a table `| offset | size | field | … |`.
#[derive(Debug)]
struct Row {
    offset: String,
    size: String,
    field: String,
}

/// The tables of FORMAT.md, by the heading above them.
fn tables(document: &str) -> BTreeMap<String, Vec<Row>> {
    let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let (mut heading, mut inside) = (String::new(), false);
    for line in document.lines() {
        if let Some(title) = line.strip_prefix('#') {
            heading = title.trim_start_matches('#').trim().to_owned();
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        inside &= cells.len() > 4;
        if let ["", "offset", "size", "field", ..] = cells[..] {
            inside = true;
        } else if inside && !cells[1].starts_with('-') {
            let [offset, size, field] = [1, 2, 3].map(|i| cells[i].trim_matches('`').to_owned());
            tables.entry(heading.clone()).or_default().push(Row { offset, size, field });
        }
    }
    tables
}

/// That a table says of a type what its encoder did. A field behind one of variable length, or in a list, has
/// `…` for its offset; one of variable length has `n` for its size.
fn compare(sample: &Sample, rows: &[Row]) -> Result<(), String> {
    let mut first: Vec<&Field> = Vec::new();
    let mut sizes: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for field in &sample.fields {
        if !first.iter().any(|f| f.name == field.name) {
            first.push(field);
        }
        sizes.entry(field.name).or_default().insert(field.size);
    }
    let names: Vec<_> = first.iter().map(|f| f.name).collect();
    let said: Vec<_> = rows.iter().map(|row| row.field.as_str()).collect();
    if names != said {
        return Err(format!("fields are {names:?}, the table has {said:?}"));
    }
    let mut fixed = true;
    for (field, row) in first.iter().zip(rows) {
        // Some lie at a fixed place again behind what varies, and may say so.
        if row.offset != field.offset.to_string() && (fixed || row.offset != "…") {
            return Err(format!("{} lies at {}, the table says {}", field.name, field.offset, row.offset));
        }
        let size = if row.size == "n" { "n".into() } else { field.size.to_string() };
        if row.size != size || (row.size != "n" && sizes[field.name].len() != 1) {
            return Err(format!(
                "{} takes {:?} bytes, the table says {}",
                field.name, sizes[field.name], row.size
            ));
        }
        let repeated = sample.fields.iter().filter(|f| f.name == field.name).count() > 1;
        fixed &= row.size != "n" && !repeated;
    }
    Ok(())
}

#[test]
fn format_md_says_what_the_code_writes() {
    let tables = tables(&document());
    let samples = samples();
    for sample in &samples {
        // What a mutation maps is told where extents are.
        let rows =
            tables.get(sample.name).unwrap_or_else(|| panic!("FORMAT.md has no table of {}", sample.name));
        let sample = match sample.name {
            "Mutation: Map" => &Sample { fields: sample.fields[..5].to_vec(), bytes: Vec::new(), ..*sample },
            _ => sample,
        };
        compare(sample, rows).unwrap_or_else(|e| panic!("FORMAT.md, {}: {e}", sample.name));
    }
    let known: BTreeSet<_> = samples.iter().map(|s| s.name).collect();
    for heading in tables.keys() {
        assert!(known.contains(heading.as_str()), "FORMAT.md describes {heading}, which no sample is of");
    }
}

#[test]
fn regression_a_kind_has_no_bits_that_nobody_looks_at() {
    let entry = cairn_format::DirEntry {
        ino: cairn_format::Ino(7),
        view: cairn_format::View::LIVE,
        kind: cairn_format::FileKind::Regular,
        cookie: 3,
    };
    let mut bytes = entry.encode();
    // The kind stands behind inode number and view.
    bytes[10] |= 0x10;
    assert!(cairn_format::DirEntry::decode(&bytes).is_err());
}
