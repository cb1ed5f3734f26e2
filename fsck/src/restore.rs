//! A volume whose directory is lost, made again from the directories on other disks that have second copies of all its packs.
//!
//! What is there is what checkpoints held: what was only in the journal is lost. It is written into an empty directory, the
//! volume's superblock last: what was killed is simply run again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_format::{
    Across, CheckpointRef, FormatError, PackId, StoreSuperblock, VolumeState, VolumeSuperblock,
};
use cairn_store::disk::{Disk, FileDisk, read_small};
use cairn_store::heal::{examine, mend};
use cairn_store::{
    ACROSS_ID, PACKS_DIR, Place, Store, StoreError, dir_of, list_place, make_joined, write_across,
    write_replicas,
};
use cairn_volume::{
    ACROSS_STORE_SUPERBLOCK, ACROSS_SUPERBLOCK, ENGINE_DIR, LOCK_PATH, LockHolder, README_PATH, STORE_DIR,
    lay_out_journal, load_chain, lock_volume,
};

use crate::CheckError;
use crate::examine::open_store;
use crate::progress::Progress;

/// The longest of the small files that are read.
const SMALL: u64 = 64 << 10;

/// What was had back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that something is lost of.
    pub damaged: u64,
    /// The checkpoint that the volume stands at now; none where no whole one was found.
    pub checkpoint: CheckpointRef,
}

/// Makes the volume of which `from` have the second copies again in `dir`, which has to be empty, or not to be there. All of the
/// volume's directories are needed.
pub fn restore_dir(dir: &Path, from: &[PathBuf], progress: &dyn Progress) -> Result<Restored, CheckError> {
    let at = |path: &Path| CheckError::io(path.display().to_string());
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(dir)(error)),
        _ => {}
    }
    for entry in std::fs::read_dir(dir).map_err(at(dir))? {
        let name = entry.map_err(at(dir))?.file_name();
        let begun = [STORE_DIR, "journal", ENGINE_DIR, README_PATH, LOCK_PATH, "lost+found"];
        if !begun.iter().any(|begun| name == *begun) {
            let why = format!(
                "it is not empty: it holds {}. A volume is restored into an empty directory",
                name.display()
            );
            return Err(at(dir)(io::Error::other(why)));
        }
    }
    let _lock = lock_volume(dir, &LockHolder::Other("restoring it"), false, &|_| {})?;
    let mut numbered = Vec::new();
    for path in from {
        let path = std::fs::canonicalize(path).map_err(at(path))?;
        let disk = FileDisk::open(&path).map_err(at(&path))?;
        let says = read_id(&disk, ACROSS_ID).map_err(at(&path))?;
        numbered.push((says.number, path.display().to_string(), Arc::new(disk) as Arc<dyn Disk>));
    }
    numbered.sort_by_key(|(number, ..)| *number);
    let dirs: Vec<String> = numbered.iter().map(|(_, path, _)| path.clone()).collect();
    let disk = FileDisk::open(dir).map_err(at(dir))?;
    for sub in [STORE_DIR, ENGINE_DIR] {
        make_dir(&disk, sub)?;
    }
    disk.sync_dir("").map_err(CheckError::io(""))?;
    let main = FileDisk::open(&dir.join(STORE_DIR)).map_err(at(dir))?;
    let store = make_joined(Arc::new(main), numbered.into_iter().map(|(.., disk)| disk).collect());
    restore(&disk, &store, &dirs, progress)
}

/// The same on any disks: `store` has the directories below `across/`, by their numbers, and is empty otherwise but for what a run
/// before this one left.
pub fn restore(
    volume: &dyn Disk,
    store: &Arc<dyn Disk>,
    dirs: &[String],
    progress: &dyn Progress,
) -> Result<Restored, CheckError> {
    let (of_volume, of_store) = identify(&**store, dirs)?;
    progress.step("restoring packs");
    make_dir(&**store, PACKS_DIR)?;
    let mut restored = copy_packs(&**store, dirs.len() as u16, progress)?;
    write_replicas(&**store, &of_store.encode()).map_err(store_error)?;
    write_across(&**store, of_store.uuid, dirs).map_err(store_error)?;
    restored.checkpoint = newest(store, &of_volume)?;
    let epoch = open_store(store)?.highest_epoch().max(of_volume.epoch);
    let superblock = VolumeSuperblock {
        generation: of_volume.generation.saturating_add(1),
        epoch,
        state: VolumeState::Clean,
        checkpoint: restored.checkpoint,
        store_path: String::new(),
        ..of_volume
    };
    lay_out_journal(volume, &superblock.geometry).map_err(CheckError::io("journal"))?;
    // Last: without it there is no volume, and another run begins where this one was.
    write_replicas(volume, &superblock.encode()).map_err(store_error)?;
    Ok(restored)
}

/// What the directories say that they have copies of: all have to say the same, and none may be missing.
fn identify(store: &dyn Disk, dirs: &[String]) -> Result<(VolumeSuperblock, StoreSuperblock), CheckError> {
    let mut newest: Option<(VolumeSuperblock, StoreSuperblock)> = None;
    for (dir, number) in dirs.iter().zip(1u16..) {
        let io = || CheckError::io(dir.clone());
        let wrong = |why: String| io()(io::Error::other(why));
        let file = |name: &str| format!("{}/{name}", dir_of(number));
        let says = read_id(store, &file(ACROSS_ID)).map_err(io())?;
        if (says.number, says.dirs.len()) != (number, dirs.len()) {
            return Err(wrong(format!(
                "it is directory {} of {} of its volume: all of them are needed, once: {}",
                says.number,
                says.dirs.len(),
                says.dirs.join(", ")
            )));
        }
        let bytes = read_small(store, &file(ACROSS_SUPERBLOCK), SMALL).map_err(io())?;
        let of_volume = VolumeSuperblock::decode(&bytes).map_err(|error| wrong(error.to_string()))?;
        let bytes = read_small(store, &file(ACROSS_STORE_SUPERBLOCK), SMALL).map_err(io())?;
        let of_store = StoreSuperblock::decode(&bytes).map_err(|error| wrong(error.to_string()))?;
        if of_store.uuid != says.store || of_volume.store != says.store {
            return Err(wrong("its superblocks are not of the store that it says it belongs to".into()));
        }
        match &newest {
            Some((known, _)) if known.store != of_volume.store => {
                return Err(wrong("it has copies of another store than the first".into()));
            }
            Some((known, _)) if known.generation >= of_volume.generation => {}
            _ => newest = Some((of_volume, of_store)),
        }
    }
    newest.ok_or_else(|| CheckError::NotAVolume("no directory was named that has copies of it".into()))
}

fn read_id(disk: &dyn Disk, path: &str) -> io::Result<Across> {
    let bytes = read_small(disk, path, SMALL)?;
    Across::decode(&bytes).map_err(|error: FormatError| io::Error::other(format!("{path}: {error}")))
}

/// Writes every pack that a directory has a copy of, as far as it is not there already, and has parity mend what it can.
fn copy_packs(store: &dyn Disk, dirs: u16, progress: &dyn Progress) -> Result<Restored, CheckError> {
    let mut all: Vec<(PackId, u64)> = Vec::new();
    for number in 1..=dirs {
        all.extend(list_place(store, Place::Across(number)).map_err(store_error)?.packs);
    }
    progress.expect(all.iter().map(|(_, len)| len).sum());
    let mut restored = Restored::default();
    for (pack, len) in all {
        if progress.is_cancelled() {
            return Err(CheckError::Cancelled);
        }
        restored.packs += 1;
        restored.bytes += len;
        let whole = match examine(store, pack, &mut |_| true) {
            Ok(Some(examined)) => mend(store, &examined).map_err(store_error)?.lost.is_empty(),
            // Nothing says where its parts lie.
            Ok(None) | Err(_) => false,
        };
        restored.damaged += u64::from(!whole);
        progress.advance(len);
    }
    Ok(restored)
}

/// The newest checkpoint that all packs of are there.
fn newest(store: &Arc<dyn Disk>, superblock: &VolumeSuperblock) -> Result<CheckpointRef, CheckError> {
    let opened: Store = open_store(store)?;
    let packs = opened.metadata_packs(superblock.uuid).into_iter().map(|(pack, _)| pack);
    let ends = packs.filter_map(|pack| {
        let checkpoint = opened.reader(pack).and_then(|reader| reader.footer()).ok()?.checkpoint?;
        (checkpoint.parts.last() == Some(&pack)).then_some(CheckpointRef { lsn: checkpoint.lsn, pack })
    });
    let whole = ends.filter(|at| load_chain(&opened, superblock.uuid, *at).is_ok());
    Ok(whole.max().unwrap_or(CheckpointRef::NONE))
}

fn make_dir(disk: &dyn Disk, path: &str) -> Result<(), CheckError> {
    match disk.create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(CheckError::io(path)(error)),
        _ => Ok(()),
    }
}

fn store_error(error: StoreError) -> CheckError {
    match error {
        StoreError::Io { path, error } => CheckError::Io { path, error },
        error => CheckError::Io { path: STORE_DIR.into(), error: io::Error::other(error) },
    }
}
