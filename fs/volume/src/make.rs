//! Making a volume.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_format::{
    ACROSS_MAX, CheckpointRef, ChunkSizes, Compression, Geometry, ParityGeometry, StoreSuperblock, Uuid,
    VolumeState, VolumeSuperblock,
};
use cairn_store::disk::{Disk, FileDisk, replace_small};
use cairn_store::{Store, StoreError, dir_of, make_joined, write_across, write_replicas};

use crate::journal::{JOURNAL_DIR, make_segment};
use crate::layout::{
    ENGINE_DIR, LOCK_PATH, LockError, LockHolder, README, README_PATH, STORE_DIR, SUSPECT_PATH, lock_volume,
};
use crate::open::{EngineChoice, OpenError, OpenOn, OpenOptions, open, open_on};

/// Copies of the superblocks of volume and store in each directory that has second copies.
pub const ACROSS_SUPERBLOCK: &str = "superblock";
/// See [`ACROSS_SUPERBLOCK`].
pub const ACROSS_STORE_SUPERBLOCK: &str = "store.superblock";

/// Segments made at once; others follow when they are needed.
const FIRST_SEGMENTS: u32 = 4;
/// Names that a volume's directory may hold, and that replacing one removes.
const OWN_NAMES: [&str; 14] = [
    "superblock",
    "superblock.backup",
    "superblock.new",
    "superblock.backup.new",
    JOURNAL_DIR,
    ENGINE_DIR,
    STORE_DIR,
    LOCK_PATH,
    README_PATH,
    "control.sock",
    "log",
    "reserve",
    SUSPECT_PATH,
    "fsck-undo",
];

/// What a volume is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MakeOptions {
    /// A name for people, at most 64 bytes.
    pub label: String,
    /// Its identity; drawn if not given.
    pub uuid: Option<Uuid>,
    /// The shortest chunk.
    pub chunk_min: u32,
    /// The average asked of the chunker.
    pub chunk_avg: u32,
    /// The longest chunk.
    pub chunk_max: u32,
    /// Plain bytes of a frame.
    pub frame: u32,
    /// zstd's level; 0 stores raw.
    pub zstd_level: i32,
    /// Data units of a parity stripe.
    pub parity_data: u8,
    /// Parity units of a stripe; 0 with 0 data units is none.
    pub parity_extra: u8,
    /// Bytes of a journal segment.
    pub segment_size: u32,
    /// The most bytes that the journal takes.
    pub journal_size: u64,
    /// Bytes at which a pack is sealed.
    pub pack_size: u32,
    /// Directories, on other disks, that every pack is to have a second copy in.
    pub across: Vec<PathBuf>,
    /// Replace a volume that is there.
    pub force: bool,
}

impl Default for MakeOptions {
    fn default() -> Self {
        MakeOptions {
            label: String::new(),
            uuid: None,
            chunk_min: 4 << 10,
            chunk_avg: 16 << 10,
            chunk_max: 64 << 10,
            frame: 256 << 10,
            zstd_level: 3,
            parity_data: 16,
            parity_extra: 2,
            segment_size: 16 << 20,
            journal_size: 512 << 20,
            pack_size: 64 << 20,
            across: Vec::new(),
            force: false,
        }
    }
}

/// A volume that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The volume.
    pub uuid: Uuid,
    /// Its store.
    pub store_uuid: Uuid,
    /// What it is.
    pub options: MakeOptions,
}

/// Why a volume was not made. Nothing was changed, but for [`MakeError::Failed`].
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The directory holds other things.
    #[error("{dir} is not empty: it holds {found}. A volume is made in an empty directory")]
    NotEmpty {
        /// The directory.
        dir: String,
        /// One of the names in it.
        found: String,
    },
    /// There is a volume already.
    #[error("{dir} is a cairn volume already; -f replaces it, and everything in it is lost")]
    IsVolume {
        /// The directory.
        dir: String,
    },
    /// With -f: a volume, but with other things beside it.
    #[error("{dir} holds {found}, which is no part of a cairn volume; -f replaces a volume and nothing else")]
    Strange {
        /// The directory.
        dir: String,
        /// One of the names in it.
        found: String,
    },
    /// The volume there is in use.
    #[error("{0}; unmount it first")]
    Locked(#[from] LockError),
    /// A size or count that makes no sense.
    #[error("{0}")]
    Option(String),
    /// The disk below failed.
    #[error("{dir}: {reason}")]
    Failed {
        /// The directory.
        dir: String,
        /// What happened.
        reason: String,
    },
}

impl MakeError {
    /// The exit code of `mkfs.cairn`.
    pub fn exit_code(&self) -> i32 {
        match self {
            MakeError::Option(_) => 2,
            _ => 1,
        }
    }
}

impl MakeOptions {
    fn geometry(&self) -> Result<Geometry, MakeError> {
        let level = i8::try_from(self.zstd_level).ok().filter(|l| (-7..=22).contains(l));
        let level = level
            .ok_or_else(|| MakeError::Option(format!("zstd has levels -7 to 22, not {}", self.zstd_level)))?;
        let segments = self.journal_size / u64::from(self.segment_size.max(1));
        let geometry = Geometry {
            chunks: ChunkSizes { min: self.chunk_min, avg: self.chunk_avg, max: self.chunk_max },
            frame: self.frame,
            compression: if level == 0 { Compression::None } else { Compression::Zstd(level) },
            parity: ParityGeometry { data: self.parity_data, parity: self.parity_extra },
            segment: self.segment_size,
            segments: u32::try_from(segments).unwrap_or(u32::MAX),
        };
        geometry.check().map_err(|(field, value)| {
            MakeError::Option(format!(
                "a {} of {value} is not possible; {}",
                field.replace('_', " "),
                limits(field)
            ))
        })?;
        if self.label.len() > 64 || self.label.contains(['\0', '\n']) {
            return Err(MakeError::Option("a label has at most 64 bytes, in one line".into()));
        }
        Ok(geometry)
    }
}

/// What a field may be.
fn limits(field: &str) -> &'static str {
    match field {
        "chunk_min" => "it is even, and 64 bytes to 1 MiB",
        "chunk_avg" => "it is even, more than the minimum, and 256 bytes to 4 MiB",
        "chunk_max" => "it is even, more than the average, and 1 KiB to 16 MiB",
        "frame_size" => "it is 4 KiB to 16 MiB",
        "segment_size" => "it is a multiple of 4 KiB, and 64 KiB to 1 GiB",
        "segments" => "the journal has 4 to 65536 segments",
        _ => "1 to 128 data and 1 to 64 parity units, or 0+0",
    }
}

/// Makes a volume with a store of its own in a directory, which is created if need be.
pub fn make(dir: &Path, options: &MakeOptions) -> Result<Made, MakeError> {
    let name = dir.display().to_string();
    let failed = |reason: String| MakeError::Failed { dir: name.clone(), reason };
    options.geometry()?;
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e.to_string())),
        _ => {}
    }
    let found = names_in(dir).map_err(|e| failed(e.to_string()))?;
    let lock = if found.is_empty() {
        lock_volume(dir, &LockHolder::Other("making it"), false, &|_| {})?
    } else {
        check_replaceable(dir, &found, options.force)?;
        let lock = lock_volume(dir, &LockHolder::Other("replacing it"), false, &|_| {})?;
        clear(dir).map_err(|e| failed(e.to_string()))?;
        lock
    };
    let mut options = options.clone();
    let others = across(&mut options, dir)?;
    let disk = FileDisk::open(dir).map_err(|e| failed(e.to_string()))?;
    for sub in [STORE_DIR, JOURNAL_DIR, ENGINE_DIR] {
        disk.create_dir(sub).map_err(|e| failed(format!("{sub}: {e}")))?;
    }
    let store = FileDisk::open(&dir.join(STORE_DIR)).map_err(|e| failed(e.to_string()))?;
    let store = make_joined(Arc::new(store), others);
    let made = lay_out(&disk, &*store, &options, draw)?;
    // The directory's own name.
    if let Some(parent) = dir.canonicalize().ok().as_deref().and_then(Path::parent) {
        let _ = std::fs::File::open(parent).and_then(|parent| parent.sync_all());
    }
    // Given up, not only closed: a process that is being started beside this thread has a copy of the descriptor.
    lock.release();
    let volume = open(dir, OpenOptions::default()).map_err(|e| failed(e.to_string()))?;
    volume.close().map_err(|e| failed(e.to_string()))?;
    Ok(made)
}

/// Makes a volume on any disks, which must be empty, and its root directory. `draw` fills bytes that nobody can guess.
pub fn make_on(
    disk: Arc<dyn Disk>,
    store: Arc<dyn Disk>,
    options: &MakeOptions,
    draw: impl FnMut(&mut [u8]) -> io::Result<()>,
) -> Result<Made, MakeError> {
    let failed = |reason: String| MakeError::Failed { dir: "the disk".into(), reason };
    disk.create_dir(JOURNAL_DIR).map_err(|e| failed(e.to_string()))?;
    let made = lay_out(&*disk, &*store, options, draw)?;
    let on = OpenOn {
        disk,
        store,
        engine: EngineChoice::Memory,
        background: false,
        session: 1,
        options: OpenOptions::default(),
        name: "the disk".into(),
    };
    let opened = open_on(on).map_err(|e: OpenError| failed(e.to_string()))?;
    opened.close().map_err(|e| failed(e.to_string()))?;
    Ok(made)
}

/// Makes an empty journal, and the page for people.
pub fn lay_out_journal(disk: &dyn Disk, geometry: &Geometry) -> io::Result<()> {
    match disk.create_dir(JOURNAL_DIR) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    // What a run that was killed left.
    for old in disk.list(JOURNAL_DIR)? {
        disk.remove(&format!("{JOURNAL_DIR}/{}", old.name))?;
    }
    for n in 0..FIRST_SEGMENTS {
        make_segment(disk, n, geometry.segment)?;
    }
    replace_small(disk, README_PATH, README.as_bytes())
}

/// Writes what a volume and its store are into one of the directories on other disks, so that nothing else is needed to make
/// them again.
pub(crate) fn copy_superblocks(
    store: &dyn Disk,
    number: u16,
    of_volume: &VolumeSuperblock,
    of_store: &StoreSuperblock,
) -> io::Result<()> {
    let path = |name: &str| format!("{}/{name}", dir_of(number));
    replace_small(store, &path(ACROSS_STORE_SUPERBLOCK), &of_store.encode())?;
    replace_small(store, &path(ACROSS_SUPERBLOCK), &of_volume.encode())
}

/// The directories that are to have second copies: made if need be, and empty. Gives them with their disks.
fn across(options: &mut MakeOptions, volume: &Path) -> Result<Vec<Arc<dyn Disk>>, MakeError> {
    let volume = volume.canonicalize().unwrap_or_else(|_| volume.to_owned());
    let mut disks: Vec<Arc<dyn Disk>> = Vec::new();
    if options.across.len() > ACROSS_MAX {
        return Err(MakeError::Option(format!("there are {ACROSS_MAX} directories across at most")));
    }
    let mut known: Vec<PathBuf> = vec![volume];
    for dir in &mut options.across {
        let name = dir.display().to_string();
        let failed = |e: io::Error| MakeError::Failed { dir: name.clone(), reason: e.to_string() };
        match std::fs::create_dir(&*dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        *dir = dir.canonicalize().map_err(failed)?;
        if known.iter().any(|other| dir.starts_with(other) || other.starts_with(&*dir)) {
            let why =
                format!("{name}: directories across do not lie within each other, or within the volume's");
            return Err(MakeError::Option(why));
        }
        // A filesystem that was just made has one name.
        if let Some(found) = names_in(dir).map_err(failed)?.into_iter().find(|name| name != "lost+found") {
            return Err(MakeError::NotEmpty { dir: name, found });
        }
        disks.push(Arc::new(FileDisk::open(dir).map_err(failed)?));
        known.push(dir.clone());
    }
    Ok(disks)
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// That the directory holds a volume and nothing else, and that it may go.
fn check_replaceable(dir: &Path, found: &[String], force: bool) -> Result<(), MakeError> {
    let name = dir.display().to_string();
    // A volume that a newer cairn made, or whose superblock is damaged, is one all the same.
    let is_volume = ["superblock", "superblock.backup"].iter().any(|replica| {
        let mut magic = [0; 8];
        let read =
            std::fs::File::open(dir.join(replica)).and_then(|mut f| io::Read::read_exact(&mut f, &mut magic));
        read.is_ok() && &magic == b"CAIRNVOL"
    });
    let strange = found.iter().find(|found| !OWN_NAMES.contains(&found.as_str()) && !is_old_log(found));
    match (is_volume, force, strange) {
        (false, _, _) => Err(MakeError::NotEmpty { dir: name, found: found[0].clone() }),
        (true, _, Some(found)) => Err(MakeError::Strange { dir: name, found: found.clone() }),
        (true, false, None) => Err(MakeError::IsVolume { dir: name }),
        (true, true, None) => Ok(()),
    }
}

fn is_old_log(name: &str) -> bool {
    name == "log.1"
}

/// Removes a volume, its superblocks first: what is left of it half way is none.
fn clear(dir: &Path) -> io::Result<()> {
    let mut names = names_in(dir)?;
    names.sort_by_key(|name| !name.starts_with("superblock"));
    for name in names {
        if name == LOCK_PATH {
            continue;
        }
        let path = dir.join(&name);
        let is_dir = std::fs::symlink_metadata(&path)?.is_dir();
        if is_dir { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
    }
    Ok(())
}

fn draw(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(|e| io::Error::other(e.to_string()))
}

fn lay_out(
    disk: &dyn Disk,
    store: &dyn Disk,
    options: &MakeOptions,
    mut draw: impl FnMut(&mut [u8]) -> io::Result<()>,
) -> Result<Made, MakeError> {
    let io = |e: io::Error| MakeError::Failed { dir: "the volume".into(), reason: e.to_string() };
    let store_error = |e: StoreError| MakeError::Failed { dir: "the volume".into(), reason: e.to_string() };
    let geometry = options.geometry()?;
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let mut uuid = || -> io::Result<Uuid> {
        let mut bytes = [0; 16];
        draw(&mut bytes)?;
        // RFC 9562, version 4: random.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Uuid(bytes))
    };
    let volume_uuid = match options.uuid {
        Some(uuid) => uuid,
        None => uuid().map_err(io)?,
    };
    let store_uuid = uuid().map_err(io)?;
    let mut chunk_key = [0; 32];
    draw(&mut chunk_key).map_err(io)?;
    let store_superblock =
        StoreSuperblock { uuid: store_uuid, generation: 1, created, pack_size: options.pack_size, chunk_key };
    Store::make(store, &store_superblock).map_err(store_error)?;
    lay_out_journal(disk, &geometry).map_err(io)?;
    let superblock = VolumeSuperblock {
        uuid: volume_uuid,
        store: store_uuid,
        generation: 1,
        epoch: 0,
        state: VolumeState::Clean,
        checkpoint: CheckpointRef::NONE,
        created,
        geometry,
        label: options.label.clone(),
        store_path: String::new(),
    };
    if !options.across.is_empty() {
        let dirs: Vec<String> = options.across.iter().map(|dir| dir.display().to_string()).collect();
        write_across(store, store_uuid, &dirs).map_err(store_error)?;
        for number in 1..=dirs.len() as u16 {
            copy_superblocks(store, number, &superblock, &store_superblock).map_err(io)?;
        }
    }
    // Last: without it there is no volume.
    write_replicas(disk, &superblock.encode()).map_err(store_error)?;
    Ok(Made { uuid: volume_uuid, store_uuid, options: options.clone() })
}
