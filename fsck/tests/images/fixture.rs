//! A small volume on a real disk, and ways to spoil it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_format::{
    Checkpoint, CheckpointKind, CheckpointRef, Codec, Encoder, Footer, Lsn, PackId, PackKind,
    VolumeSuperblock, push_meta_record,
};
use cairn_store::disk::FileDisk;
use cairn_store::{PackReader, Store, StoreOptions, list_packs, pack_path, write_replicas};
use cairn_volume::{
    Caller, MakeOptions, OpenOptions, RecordCursor, Volume, XattrMode, load_chain, make, open,
    read_superblock,
};
use fsck_cairn::{CheckOptions, Finding, Quiet, Report, Severity, check_dir};
use tempfile::TempDir;

const CALLER: Caller = Caller { uid: 0, gid: 0 };

pub(crate) struct Fixture {
    temp: TempDir,
}

/// A key's value for each key.
pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

impl Fixture {
    /// An empty volume.
    pub(crate) fn empty() -> Fixture {
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
            ..MakeOptions::default()
        };
        make(&temp.path().join("v"), &options).unwrap();
        Fixture { temp }
    }

    /// A volume with some of everything, unmounted.
    pub(crate) fn filled() -> Fixture {
        let fixture = Fixture::empty();
        let volume = fixture.open();
        fill(&volume);
        volume.close().unwrap();
        fixture
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
        let mut superblock = self.superblock();
        let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
        let store = Store::open(Arc::new(self.store_disk()), options).unwrap();
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
        let mut frame = Encoder::new();
        records.iter().for_each(|(key, value)| push_meta_record(&mut frame, key, Some(value)));
        let plain = frame.finish();
        let pack = PackId::new(7, 1, 1);
        let mut writer =
            store.begin_pack(pack, PackKind::Metadata, superblock.uuid, superblock.geometry.parity).unwrap();
        writer.append(Codec::Raw, &plain, plain.len() as u32, Vec::new()).unwrap();
        // Newer than the one that the journal names.
        let lsn = Lsn(superblock.checkpoint.lsn.0 + 1000);
        let previous = CheckpointRef::NONE;
        let kind = CheckpointKind::Base;
        writer.seal(Some(Checkpoint { kind, lsn, previous, floor: lsn.next(), parts: vec![pack] })).unwrap();
        superblock.checkpoint = CheckpointRef { lsn, pack };
        superblock.generation += 1;
        write_replicas(&FileDisk::open(&self.dir()).unwrap(), &superblock.encode()).unwrap();
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

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
    bytes
}

fn write(volume: &Volume, dir: u64, name: &[u8], data: &[u8]) -> u64 {
    let file = volume.create(dir, name, 0o644, 0, &CALLER).unwrap();
    for (i, part) in data.chunks(16 << 10).enumerate() {
        volume.write(file.ino, (i * (16 << 10)) as u64, part, false).unwrap();
    }
    volume.release(file.ino);
    file.ino
}

/// /big, /sub/deep/file (also /linked), /sub/sparse, /sub/to (a link), /empty/, /attributed
fn fill(volume: &Volume) {
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
