//! A cairn filesystem without a kernel: what the FUSE adapter, `mkfs`, `fsck` and tests drive.
//!
//! The way of a write: [`Volume::write`] -> journal (acknowledged) -> fold -> store. The way of a read:
//! [`Volume::read`] -> extents, the overlay's first -> journal or store, checked.
//!
//! Architecture Invariant: no FUSE and no errno here, and nothing asynchronous: threads, locks, channels.

mod ahead;
mod checkpoint;
mod core;
pub mod drill;
pub mod engine;
mod errseq;
mod explain;
mod fold;
mod gc;
mod handles;
mod heal;
pub mod journal;
mod layout;
mod locks;
mod maintenance;
mod make;
mod namespace;
mod open;
mod parity;
mod rebuild;
mod refill;
mod request;
mod reserve;
#[cfg(all(test, feature = "schedules"))]
mod schedules;
mod scrub;
mod space;
mod statistics;
mod suspect;
mod twins;
mod vfs;
mod volume;

#[doc(hidden)]
pub use cairn_store::sync;

pub use cairn_format::{
    ChunkId, ChunkSizes, Compression, FileKind, Geometry, PackId, ParityGeometry, ScrubOutcome, Timestamp,
    Uuid, VolumeState, VolumeSuperblock,
};
pub use cairn_store::AcrossDir;
pub use cairn_store::heal::{HealCounts, HealEvent, HealMode, HealOutcome, HealPlace, Margin};
pub use checkpoint::{
    BaseWriter, ChainEntry, ChainReadError, CheckpointChain, MaintainError, RecordCursor, load_chain,
};
pub use explain::{Explanation, PackShare, TensorShare};
pub use gc::{GcError, GcOptions, GcProgress, GcReport, GcStep, GcStop};
pub use layout::{
    CONTROL_SOCKET, ENGINE_DIR, LOCK_PATH, LockError, LockHolder, README_PATH, STORE_DIR, SUSPECT_PATH,
    VolumeLock, lock_volume, store_disk,
};
pub use make::{
    ACROSS_STORE_SUPERBLOCK, ACROSS_SUPERBLOCK, Made, MakeError, MakeOptions, lay_out_journal, make, make_on,
};
pub use open::{
    Dedup, EngineChoice, EngineSource, Listener, OpenError, OpenOn, OpenOptions, Takeover, across, open,
    open_on, pack_size, read_superblock, superblock, usage_offline,
};
pub use parity::{guarantee, guarantee_across, longest_hole, parity_name, parse_parity};
pub use refill::{
    Finds, OpensCopies, Refill, RefillError, RefillOptions, RefillProgress, RefillReport, RefillStep, Seeker,
    SourceFile, VolumeSource, Wanted, WantedChunk, WantedFile,
};
pub use request::Request;
pub use scrub::{
    ScrubDamage, ScrubError, ScrubFile, ScrubOptions, ScrubPack, ScrubProgress, ScrubReport, ScrubStep,
    ScrubStop, note_lost_packs, scrub_state,
};
pub use statistics::Statistics;
pub use vfs::{
    Allocate, Attr, Caller, DirItem, Error, RenameMode, SeekTo, SetAttr, StatFs, TimeChange, XattrMode,
};
pub use volume::{ReadOnly, Usage, Volume};
