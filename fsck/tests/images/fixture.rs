//! A small volume on a real disk, and ways to spoil it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cairn_format::{
    Checkpoint, CheckpointKind, CheckpointRef, Codec, Encoder, Footer, Lsn, PackId, PackKind,
    VolumeSuperblock, push_meta_record,
};
use cairn_store::disk::{Disk, FileDisk};
use cairn_store::{PackReader, Store, StoreOptions, list_packs, pack_path, write_replicas};
use cairn_volume::{
    Caller, FileKind, MakeOptions, OpenOptions, RecordCursor, Volume, XattrMode, load_chain, make, open,
    read_superblock,
};
use fsck_cairn::{
    CheckOptions, Finding, Level, Quiet, RepairOptions, Report, Severity, check_dir, repair_dir,
};
use tempfile::TempDir;

const CALLER: Caller = Caller { uid: 0, gid: 0 };

pub(crate) struct Fixture {
    temp: TempDir,
}

/// Paths below a directory, each with a file's bytes; directories before what is in them.
type Files = Vec<(PathBuf, Option<Vec<u8>>)>;

/// A key's value for each key.
pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

impl Fixture {
    /// An empty volume.
    pub(crate) fn empty() -> Fixture {
        Fixture::empty_with(MakeOptions::default())
    }

    fn empty_with(options: MakeOptions) -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        let options = MakeOptions {
            label: "small".into(),
            chunk_min: 256,
            chunk_avg: 1024,
            chunk_max: 4096,
            frame: 8192,
            segment_size: 64 << 10,
            journal_size: 1 << 20,
            pack_size: 64 << 10,
            ..options
        };
        make(&temp.path().join("v"), &options).unwrap();
        Fixture { temp }
    }

    /// A volume with some of everything, unmounted. Made once, and copied.
    pub(crate) fn filled() -> Fixture {
        static FILES: OnceLock<Files> = OnceLock::new();
        Fixture::of(FILES.get_or_init(|| Fixture::empty().fill()))
    }

    /// The same without parity: whatever is damaged of its packs is lost.
    pub(crate) fn filled_without_parity() -> Fixture {
        static FILES: OnceLock<Files> = OnceLock::new();
        let none = MakeOptions { parity_data: 0, parity_extra: 0, ..MakeOptions::default() };
        Fixture::of(FILES.get_or_init(|| Fixture::empty_with(none).fill()))
    }

    fn fill(&self) -> Files {
        let volume = self.open();
        fill(&volume);
        volume.close().unwrap();
        self.files()
    }

    /// Everything in its directory.
    fn files(&self) -> Files {
        let mut files = Files::new();
        let mut dirs = vec![self.dir()];
        while let Some(dir) = dirs.pop() {
            files.push((dir.strip_prefix(self.temp.path()).unwrap().to_owned(), None));
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    files.push((path.strip_prefix(self.temp.path()).unwrap().to_owned(), Some(bytes)));
                }
            }
        }
        files
    }

    fn of(files: &Files) -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            match bytes {
                None => fs::create_dir(temp.path().join(path)).unwrap(),
                Some(bytes) => fs::write(temp.path().join(path), bytes).unwrap(),
            }
        }
        Fixture { temp }
    }

    /// The same, not unmounted: all is in the journal, and synced up to the last names.
    pub(crate) fn crashed() -> Fixture {
        let fixture = Fixture::empty();
        let volume = fixture.open();
        fill(&volume);
        let file = volume.lookup(1, b"big").unwrap().unwrap();
        volume.fsync(file.ino, false).unwrap();
        volume.mkdir(1, b"later", 0o755, 0, &CALLER).unwrap();
        drop(volume);
        fixture
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.temp.path().join("v")
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir().join(below)
    }

    pub(crate) fn open(&self) -> Arc<Volume> {
        open(&self.dir(), OpenOptions::default()).unwrap()
    }

    pub(crate) fn check(&self) -> Report {
        check_dir(&self.dir(), &CheckOptions::default(), &Quiet, &|_| {}).unwrap()
    }

    /// Repairs it, though it may say of itself that it is in order.
    pub(crate) fn repair(&self, level: Level) -> Report {
        self.repair_with(&RepairOptions { level, force: true, ..RepairOptions::default() })
    }

    pub(crate) fn repair_with(&self, options: &RepairOptions) -> Report {
        repair_dir(&self.dir(), options, &Quiet, &|_| {}).unwrap()
    }

    /// All that a mount shows of it, by path.
    pub(crate) fn tree(&self) -> BTreeMap<String, Shown> {
        let volume = self.open();
        let tree = tree(&volume);
        volume.close().unwrap();
        tree
    }

    /// The one finding that is worse than information, of this kind, and that there is no other such kind.
    pub(crate) fn only(&self, kind: &str) -> Finding {
        let report = self.check();
        let bad: Vec<_> = report.findings.iter().filter(|f| f.severity != Severity::Info).collect();
        assert!(!bad.is_empty(), "nothing found");
        assert!(bad.iter().all(|f| f.kind == kind), "{bad:#?}");
        bad[0].clone()
    }

    pub(crate) fn superblock(&self) -> VolumeSuperblock {
        read_superblock(&FileDisk::open(&self.dir()).unwrap(), "v").unwrap()
    }

    pub(crate) fn store_disk(&self) -> FileDisk {
        FileDisk::open(&self.path("store")).unwrap()
    }

    /// The footers of the packs of a kind.
    pub(crate) fn footers(&self, kind: PackKind) -> Vec<Footer> {
        let disk = self.store_disk();
        let packs = list_packs(&disk).unwrap().packs.into_iter();
        let footers = packs.map(|(pack, _)| PackReader::open(&disk, pack).unwrap().footer().unwrap());
        footers.filter(|footer| footer.kind == kind).collect()
    }

    pub(crate) fn pack_path(&self, pack: &PackId) -> PathBuf {
        self.path("store").join(pack_path(pack))
    }

    /// Rewrites the newest checkpoint as `change` leaves it: packs and superblock whole, but the state wrong.
    pub(crate) fn rewrite_state(&self, change: impl FnOnce(&mut Records)) {
        let disk = FileDisk::open(&self.dir()).unwrap();
        rewrite_state(&disk, Arc::new(self.store_disk()), 1000, change);
    }

    /// Every file's bytes but the lock's, by path.
    pub(crate) fn bytes(&self) -> BTreeMap<PathBuf, blake3::Hash> {
        let mut all = BTreeMap::new();
        let mut dirs = vec![self.dir()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path != self.path("lock") {
                    let hash = blake3::hash(&fs::read(&path).unwrap());
                    all.insert(path, hash);
                }
            }
        }
        all
    }
}

/// Rewrites the newest checkpoint as `change` leaves it, as one that is so many records newer than any that the journal
/// names.
pub(crate) fn rewrite_state(
    disk: &dyn Disk,
    store: Arc<dyn Disk>,
    ahead: u64,
    change: impl FnOnce(&mut Records),
) {
    let mut superblock = read_superblock(disk, "v").unwrap();
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
    let store = Store::open(store, options).unwrap();
    let chain = load_chain(&store, superblock.uuid, superblock.checkpoint).unwrap();
    let mut records = Records::new();
    for entry in &chain.entries {
        let mut cursor = RecordCursor::new(&store, entry.parts.clone());
        while let Some((key, value)) = cursor.next().unwrap() {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
    }
    change(&mut records);
    let pack = PackId::new(7, 1, 1);
    // What is damaged of it is lost.
    let none = cairn_format::ParityGeometry::default();
    let mut writer = store.begin_pack(pack, PackKind::Metadata, superblock.uuid, none).unwrap();
    // In several frames, as the base of a large volume.
    for some in records.iter().collect::<Vec<_>>().chunks(3) {
        let mut frame = Encoder::new();
        some.iter().for_each(|(key, value)| push_meta_record(&mut frame, key, Some(value)));
        let plain = frame.finish();
        writer.append(Codec::Raw, &plain, plain.len() as u32, Vec::new()).unwrap();
    }
    let lsn = Lsn(superblock.checkpoint.lsn.0 + ahead);
    let previous = CheckpointRef::NONE;
    let kind = CheckpointKind::Base;
    writer.seal(Some(Checkpoint { kind, lsn, previous, floor: lsn.next(), parts: vec![pack] })).unwrap();
    superblock.checkpoint = CheckpointRef { lsn, pack };
    superblock.generation += 1;
    write_replicas(disk, &superblock.encode()).unwrap();
}

/// What a mount shows of an inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shown {
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) size: u64,
    /// A file's bytes or a link's target; none where they cannot be read.
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) xattrs: Vec<u8>,
}

/// All of a volume, by path.
pub(crate) fn tree(volume: &Volume) -> BTreeMap<String, Shown> {
    let mut all = BTreeMap::new();
    let mut ahead = vec![(String::new(), 1)];
    while let Some((path, ino)) = ahead.pop() {
        let attr = volume.getattr(ino).unwrap();
        let content = match attr.kind {
            FileKind::Regular => volume.read(ino, 0, 8 << 20).ok(),
            FileKind::Symlink => volume.readlink(ino).ok(),
            _ => Some(Vec::new()),
        };
        let xattrs = volume.listxattr(ino).unwrap();
        let (mode, nlink, size) = (attr.kind.mode() | u32::from(attr.perm), attr.nlink, attr.size);
        let shown = Shown { mode, nlink, size, content, xattrs };
        assert!(all.len() < 10_000, "it goes round in circles");
        if attr.kind == FileKind::Directory {
            let mut names = Vec::new();
            let list = &mut |item: &cairn_volume::DirItem<'_>| {
                names.push(item.name.to_vec());
                true
            };
            volume.readdir(ino, 0, list).unwrap();
            for name in names.iter().filter(|name| ![&b"."[..], b".."].contains(&name.as_slice())) {
                let found = volume.lookup(ino, name).unwrap().expect("what is listed is there");
                ahead.push((format!("{path}/{}", String::from_utf8_lossy(name)), found.ino));
            }
        }
        all.insert(if path.is_empty() { "/".into() } else { path }, shown);
    }
    all
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
    bytes
}

/// Makes a file of the bytes.
pub(crate) fn write(volume: &Volume, dir: u64, name: &[u8], data: &[u8]) -> u64 {
    let file = volume.create(dir, name, 0o644, 0, &CALLER).unwrap();
    for (i, part) in data.chunks(16 << 10).enumerate() {
        volume.write(file.ino, (i * (16 << 10)) as u64, part, false).unwrap();
    }
    volume.release(file.ino);
    file.ino
}

/// /big, /sub/deep/file (also /linked), /sub/sparse, /sub/to (a link), /empty/, /attributed
pub(crate) fn fill(volume: &Volume) {
    write(volume, 1, b"big", &noise(150_000, 1));
    let sub = volume.mkdir(1, b"sub", 0o755, 0, &CALLER).unwrap().ino;
    let deep = volume.mkdir(sub, b"deep", 0o755, 0, &CALLER).unwrap().ino;
    let file = write(volume, deep, b"file", &b"again and again ".repeat(1000));
    volume.link(file, 1, b"linked").unwrap();
    let sparse = write(volume, sub, b"sparse", b"front");
    volume.write(sparse, 5 << 20, b"back", false).unwrap();
    volume.symlink(sub, b"to", b"deep/file", &CALLER).unwrap();
    volume.mkdir(1, b"empty", 0o755, 0, &CALLER).unwrap();
    let attributed = write(volume, 1, b"attributed", b"short");
    volume.setxattr(attributed, b"user.colour", b"blue", XattrMode::Set).unwrap();
    let gone = write(volume, 1, b"gone", &noise(20_000, 2));
    volume.unlink(1, b"gone").unwrap();
    assert!(volume.getattr(gone).is_err());
}

/// Flips one bit of a file.
pub(crate) fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}
