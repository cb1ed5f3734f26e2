//! What a volume is opened with, and why it is not.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use cairn_codec::tensor::Batches;
use cairn_format::{Compression, ParityGeometry};
use cairn_store::disk::Disk;
use cairn_store::heal::HealMode;

use crate::engine::{Checked, Engine, EngineError, MemoryEngine, MetaEngine};
use crate::layout::LockError;
use crate::sync::Arc;

/// The engine's cache, by default.
const ENGINE_CACHE: usize = 64 << 20;

/// Somebody who is told what is being waited for.
pub type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// How a volume is opened.
pub struct OpenOptions {
    /// Nothing on the disk is changed; operations that would are refused.
    pub read_only: bool,
    /// The most memory the chunk index takes, in bytes.
    pub index_mem: u64,
    /// The most memory decoded frames take, in bytes.
    pub cache_size: u64,
    /// Wait up to a minute for a lock whose holder is still folding.
    pub wait: bool,
    /// Told when it has to wait.
    pub on_wait: Option<Listener>,
    /// Where it is going to be mounted, for those who find it locked.
    pub mountpoint: Option<PathBuf>,
    /// How new data is compressed; `None`: as mkfs chose.
    pub compression: Option<Compression>,
    /// Whether new data is looked for among what is stored.
    pub dedup: Dedup,
    /// Whether tensors in files are looked for, and coded by what their numbers are.
    pub tensors: bool,
    /// Whether a tensor may be stored as the differences from one that is stored already.
    pub tensor_delta: bool,
    /// Who codes tensors elsewhere than on the processor.
    pub batches: Option<Arc<dyn Batches>>,
    /// The library that caches the namespace. Where another did so far, its files go.
    pub meta_engine: MetaEngine,
    /// Whether garbage is collected by itself, when nothing else is asked for.
    pub collect: bool,
    /// What is done about damage that parity can mend. Nothing is written to a volume that is opened read-only.
    pub heal: HealMode,
    /// The parity that new packs get; `None`: as mkfs chose.
    pub parity: Option<ParityGeometry>,
    /// Another process served this mount and died, or made way: its place is taken.
    pub takeover: Option<Takeover>,
    /// What the journal should hold and does not is given up: the volume goes on from the last record that follows upon
    /// the others. For who repairs it, and has said so.
    pub past_damage: bool,
}

/// What a process needs to take another's place at a mount that goes on.
#[derive(Debug)]
pub struct Takeover {
    /// The epoch of the first process at this mount: requests that records of it and of later ones conclude are the
    /// mount's, and not concluded again.
    pub first_epoch: u32,
    /// A descriptor that holds the volume's lock ever since; `None` where there is no lock.
    pub lock: Option<OwnedFd>,
}

/// Whether new data is looked for among what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dedup {
    /// A chunk whose id is there already is not stored again.
    #[default]
    On,
    /// As [`Dedup::On`], once the stored chunk was read back and compared.
    Verify,
    /// Everything is stored as it comes.
    Off,
}

/// How new data is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing {
    pub(crate) compression: Compression,
    pub(crate) dedup: Dedup,
    /// Whether tensors are looked for.
    pub(crate) tensors: bool,
    /// Whether they may be stored as differences.
    pub(crate) tensor_delta: bool,
    /// What data packs get.
    pub(crate) parity: ParityGeometry,
}

/// Parity units that metadata packs have at least, where there is parity: a file's bytes lie in one place, and what says where
/// they lie in few.
const METADATA_PARITY: u8 = 4;

impl Writing {
    /// What metadata packs get.
    pub(crate) fn metadata_parity(&self) -> ParityGeometry {
        metadata_parity(self.parity)
    }
}

/// The parity of metadata packs, where data packs have `parity`.
pub(crate) fn metadata_parity(parity: ParityGeometry) -> ParityGeometry {
    match parity.is_none() {
        true => parity,
        false => ParityGeometry { parity: parity.parity.max(METADATA_PARITY), ..parity },
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            read_only: false,
            index_mem: 128 << 20,
            cache_size: 128 << 20,
            wait: false,
            on_wait: None,
            mountpoint: None,
            compression: None,
            dedup: Dedup::On,
            tensors: true,
            tensor_delta: true,
            batches: None,
            meta_engine: MetaEngine::default(),
            collect: true,
            heal: HealMode::default(),
            parity: None,
            takeover: None,
            past_damage: false,
        }
    }
}

/// Why a volume was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("{dir} is not a cairn volume: {reason}. Make one with: mkfs.cairn {dir}")]
    NotAVolume {
        /// The directory.
        dir: String,
        /// What is missing.
        reason: String,
    },
    /// A newer cairn made it.
    #[error("{dir} needs a newer cairn: {reason}. Nothing was changed; install a newer version")]
    Newer {
        /// The directory.
        dir: String,
        /// What is newer.
        reason: String,
    },
    /// Somebody has it.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// Something that was certain cannot be read.
    #[error(
        "{dir} is damaged: {reason}. Nothing was changed. `fsck.cairn -n {dir}` tells what is affected; `cairn mount -o ro` shows what can be read"
    )]
    Damaged {
        /// The directory.
        dir: String,
        /// What cannot be read.
        reason: String,
    },
    /// The disk below failed, or does not allow it.
    #[error("{dir} cannot be opened: {reason}")]
    Failed {
        /// The directory.
        dir: String,
        /// What happened.
        reason: String,
    },
}

impl OpenError {
    /// The exit code of `cairn`.
    pub fn exit_code(&self) -> i32 {
        match self {
            OpenError::NotAVolume { .. } => 10,
            OpenError::Locked(LockError::Held { .. }) => 11,
            _ => 1,
        }
    }
}

/// Makes an engine: given true an empty one, else it opens what is there.
pub type EngineSource = Box<dyn Fn(bool) -> Result<Arc<dyn Engine>, EngineError> + Send + Sync>;

/// Which engine serves look-ups, and how it is made.
pub enum EngineChoice {
    /// redb, in this directory.
    Redb(PathBuf),
    /// sled, in this directory; an error in builds without the cargo feature `sled`.
    Sled(PathBuf),
    /// In memory; filled at each mount.
    Memory,
    /// By a function.
    By(EngineSource),
}

impl EngineChoice {
    pub(super) fn source(self) -> EngineSource {
        match self {
            EngineChoice::By(source) => source,
            EngineChoice::Memory => Box::new(|_| Ok(Arc::new(Checked::new(MemoryEngine::default())))),
            EngineChoice::Redb(dir) => {
                Box::new(move |fresh| MetaEngine::Redb.open(&dir, ENGINE_CACHE, fresh))
            }
            EngineChoice::Sled(dir) => {
                Box::new(move |fresh| MetaEngine::Sled.open(&dir, ENGINE_CACHE, fresh))
            }
        }
    }
}

/// A volume on any disk: for tests, and beneath [`crate::open`].
pub struct OpenOn {
    /// The volume's directory.
    pub disk: Arc<dyn Disk>,
    /// Its store's.
    pub store: Arc<dyn Disk>,
    /// The engine.
    pub engine: EngineChoice,
    /// Whether a thread folds; else callers do, when they need room or say so.
    pub background: bool,
    /// A number that no other mount has.
    pub session: u64,
    /// Memory and the like; what concerns locks is not looked at.
    pub options: OpenOptions,
    /// What the volume is called in errors.
    pub name: String,
}
