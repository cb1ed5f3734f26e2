//! Volumes to be spoilt: one that was unmounted, one that crashed; and their files as bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, LazyLock};

use cairn_format::{CheckpointRef, Footer, PackId, VolumeSuperblock};
use cairn_store::disk::{Access, Disk, DiskFile, read_small};
use cairn_store::{PackReader, Store, StoreOptions, list_packs, pack_path};
use cairn_volume::{Caller, RecordCursor, Volume, XattrMode, load_chain, read_superblock};

use crate::dice::noise;
use crate::world::{World, small};

const CALLER: Caller = Caller { uid: 0, gid: 0 };

/// Keys and their values, as a checkpoint holds them.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A volume, and what was read of it before it was spoilt.
#[derive(Clone)]
pub struct Image {
    /// The disk: the volume at its root, its store in `store/`.
    pub world: World,
    /// Its superblock.
    pub superblock: VolumeSuperblock,
    /// What its newest checkpoint holds.
    pub records: Arc<Records>,
    /// What describes its packs.
    pub footers: Arc<Vec<Footer>>,
}

/// A volume with some of everything, unmounted.
static CLEAN: LazyLock<Image> = LazyLock::new(|| {
    let world = World::make(&small());
    let volume = world.open().expect("a new volume");
    fill(&volume);
    volume.sync().expect("room");
    more(&volume);
    volume.close().expect("room");
    Image::of(world)
});

/// The same, not unmounted: the last operations are in the journal only.
static CRASHED: LazyLock<Image> = LazyLock::new(|| {
    let world = World::make(&small());
    let volume = world.open().expect("a new volume");
    fill(&volume);
    volume.sync().expect("room");
    more(&volume);
    volume.fsync(1, false).expect("a disk that works");
    volume.mkdir(1, b"unsynced", 0o700, 0, &CALLER).expect("room");
    drop(volume);
    Image::of(world)
});

fn write(volume: &Volume, dir: u64, name: &[u8], data: &[u8]) -> u64 {
    let ino = volume.create(dir, name, 0o644, 0, &CALLER).expect("a new name").ino;
    for (i, part) in data.chunks(8000).enumerate() {
        volume.write(ino, i as u64 * 8000, part, false).expect("room");
    }
    volume.release(ino);
    ino
}

fn dir(volume: &Volume, parent: u64, name: &[u8]) -> u64 {
    volume.mkdir(parent, name, 0o755, 0, &CALLER).expect("a new name").ino
}

fn fill(volume: &Volume) {
    write(volume, 1, b"big", &noise(1, 60_000));
    let sub = dir(volume, 1, b"sub");
    let deep = dir(volume, sub, b"deep");
    let file = write(volume, deep, b"file", &b"again and again ".repeat(1500));
    volume.link(file, 1, b"linked").expect("a new name");
    let sparse = write(volume, sub, b"sparse", b"front");
    volume.write(sparse, 3 << 20, b"back", false).expect("room");
    volume.symlink(sub, b"to", b"deep/file", &CALLER).expect("a new name");
    volume.mknod(sub, b"pipe", 0o010_644, 0, 0, &CALLER).expect("a new name");
    dir(volume, 1, b"empty");
    volume.setxattr(file, b"user.colour", b"blue", XattrMode::Set).expect("room");
    volume.setxattr(sub, b"cairn.compress", b"zstd:9", XattrMode::Set).expect("room");
}

fn more(volume: &Volume) {
    let again = dir(volume, 1, b"again");
    write(volume, again, b"copy", &noise(1, 30_000));
    let text = write(volume, again, b"text", &b"and again ".repeat(900));
    volume
        .setattr(text, &cairn_volume::SetAttr { size: Some(2000), ..Default::default() }, &CALLER)
        .expect("room");
    let open = volume.create(again, b"nameless", 0o600, 0, &CALLER).expect("a new name").ino;
    volume.write(open, 0, b"kept while it is open", false).expect("room");
    volume.unlink(again, b"nameless").expect("a name");
    volume.rename(1, b"empty", again, b"moved", cairn_volume::RenameMode::Replace).expect("a name");
}

impl Image {
    /// A copy of one of the two.
    pub fn new(crashed: bool) -> Image {
        let image = if crashed { &CRASHED } else { &CLEAN };
        Image { world: image.world.fork(), ..Image::clone(image) }
    }

    fn of(world: World) -> Image {
        let superblock = read_superblock(&world.disk, "the image").expect("a whole volume");
        let disk = world.store_disk();
        let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: true };
        let store = Store::open(disk.clone(), options).expect("a whole store");
        let mut records = Records::new();
        let chain = load_chain(&store, superblock.uuid, newest(&store, &superblock)).expect("a whole chain");
        for entry in &chain.entries {
            let mut cursor = RecordCursor::new(&store, entry.parts.clone());
            while let Some((key, value)) = cursor.next().expect("whole packs") {
                match value {
                    Some(value) => records.insert(key, value),
                    None => records.remove(&key),
                };
            }
        }
        let packs = list_packs(&*disk).expect("a disk that works").packs;
        let footer =
            |pack| PackReader::open(&*disk, pack).and_then(|reader| reader.footer()).expect("a whole pack");
        let footers = packs.into_iter().map(|(pack, _)| footer(pack)).collect();
        Image { world, superblock, records: Arc::new(records), footers: Arc::new(footers) }
    }

    /// A file's bytes; nothing where there is none.
    pub fn read(&self, path: &str) -> Vec<u8> {
        read_small(&self.world.disk, path, 64 << 20).unwrap_or_default()
    }

    /// Puts a file in place of what has the name, if anything.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let put = || -> io::Result<()> {
            let disk = &self.world.disk;
            let _ = disk.remove(path);
            for (end, _) in path.match_indices('/') {
                let _ = disk.create_dir(&path[..end]);
            }
            let file: Arc<dyn DiskFile> = disk.open(path, Access::CreateNew)?;
            file.write_at(bytes, 0)
        };
        // A directory has the name: as hostile as what was to be there.
        let _ = put();
    }

    /// Where a pack lies.
    pub fn pack_path(pack: &PackId) -> String {
        format!("store/{}", pack_path(pack))
    }
}

/// The newest checkpoint that was sealed.
fn newest(store: &Store, superblock: &VolumeSuperblock) -> CheckpointRef {
    let sealed = store.metadata_packs(superblock.uuid).into_iter().filter_map(|(pack, _)| {
        let checkpoint = store.reader(pack).and_then(|reader| reader.footer()).ok()?.checkpoint?;
        (checkpoint.parts.last() == Some(&pack)).then_some(CheckpointRef { lsn: checkpoint.lsn, pack })
    });
    sealed.max().unwrap_or(superblock.checkpoint)
}
