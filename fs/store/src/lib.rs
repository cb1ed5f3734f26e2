//! The chunk store: packs on a disk, an index that finds chunks in them, and caches of what was read.
//!
//! Architecture Invariant: the store never sees a path of the filesystem, nor an inode. It is told which
//! packs are referred to; it decides nothing about what a file is.

mod across;
mod caches;
pub mod disk;
mod error;
mod frames;
pub mod heal;
mod hub;
mod index;
mod pack;
mod replicas;
#[cfg(all(test, feature = "schedules"))]
mod schedules;
mod store;
#[doc(hidden)]
pub mod sync;
mod twins;

pub use across::{
    ACROSS_ID, ACROSS_PATHS, AcrossDir, across_dirs, dir_of, join_across, make_joined, read_across,
    write_across,
};
pub use error::{ReadError, StoreError};
pub use hub::{Located, Pins};
pub use pack::{DecodedFrame, PackReader, PackWriter, SealedPack, encode_columns, pack_path};
pub use replicas::{BadReplica, REPLICA_PATHS, Replicas, check_replicas, read_replicas, write_replicas};
pub use store::{
    BASES_PATH, INDEX_PATH, PACKS_DIR, PackListing, Served, Store, StoreOptions, StoreUsage, list_packs,
    stored_share,
};

pub use twins::{Place, TWINS_DIR, TwinUsage, list_place, list_twins};

/// For tests that hold the index's table against a map.
#[doc(hidden)]
pub mod testing {
    pub use crate::index::FingerprintTable;
}
