//! Superblocks lie in two files each, so that one of them may be lost.

use std::io;

use cairn_format::{FormatError, SUPERBLOCK_LEN};

use crate::StoreError;
use crate::disk::{Disk, read_small, replace_small};

/// The files of a superblock's replicas, in the order they are written.
pub const REPLICA_PATHS: [&str; 2] = ["superblock", "superblock.backup"];

/// What the replicas of a superblock hold.
pub struct Replicas<T> {
    /// The newest intact one.
    pub newest: T,
    /// The replicas that cannot be used, each with the reason.
    pub damaged: Vec<(&'static str, String)>,
}

/// Reads all replicas; an error only where none can be used. A replica of a newer format is an error
/// at once: an older one beside it must not be taken for the truth.
pub fn read_replicas<T>(
    disk: &dyn Disk,
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
    generation: impl Fn(&T) -> u64,
) -> Result<Replicas<T>, StoreError> {
    let mut newest: Option<T> = None;
    let mut damaged = Vec::new();
    let mut first_error = None;
    for path in REPLICA_PATHS {
        let error = match read_small(disk, path, SUPERBLOCK_LEN as u64) {
            Ok(bytes) => match decode(&bytes) {
                Ok(found) => {
                    if newest.as_ref().is_none_or(|n| generation(n) < generation(&found)) {
                        newest = Some(found);
                    }
                    continue;
                }
                Err(error @ FormatError::NewerVersion { .. }) => {
                    return Err(StoreError::Superblock { path: path.into(), error });
                }
                Err(error) => StoreError::Superblock { path: path.into(), error },
            },
            Err(error) => StoreError::Io { path: path.into(), error },
        };
        damaged.push((path, error.to_string()));
        // Damage says more than absence: a directory without any superblock is another thing.
        let absent =
            matches!(&error, StoreError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound);
        if first_error.is_none() || !absent {
            first_error = Some(error);
        }
    }
    match (newest, first_error) {
        (Some(newest), _) => Ok(Replicas { newest, damaged }),
        (None, Some(error)) => Err(error),
        // Every replica that is not the newest left an error.
        (None, None) => {
            Err(StoreError::Io { path: REPLICA_PATHS[0].into(), error: io::ErrorKind::NotFound.into() })
        }
    }
}

/// Rewrites the replicas one after another: at each moment one is whole.
pub fn write_replicas(disk: &dyn Disk, bytes: &[u8]) -> Result<(), StoreError> {
    REPLICA_PATHS.iter().try_for_each(|path| replace_small(disk, path, bytes).map_err(StoreError::io(*path)))
}
