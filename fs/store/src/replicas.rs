//! Superblocks lie in two files each, so that one of them may be lost.

use std::io;

use cairn_format::{FormatError, SUPERBLOCK_LEN};

use crate::StoreError;
use crate::disk::{Access, Disk, read_small, replace_small};

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

/// A replica that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadReplica {
    /// Its file.
    pub path: &'static str,
    /// Why.
    pub reason: String,
    /// Whether it was written again.
    pub corrected: bool,
}

/// Reads each replica past the page cache. With `repair` one that is not `usable` is replaced by `right`, which is what the
/// caller knows the superblock to be; one of a newer format never is.
pub fn check_replicas(
    disk: &dyn Disk,
    usable: impl Fn(&[u8]) -> Result<(), FormatError>,
    right: &[u8],
    repair: bool,
) -> Vec<BadReplica> {
    let read = |path| {
        disk.open(path, Access::Read)?.forget(0..SUPERBLOCK_LEN as u64);
        read_small(disk, path, SUPERBLOCK_LEN as u64)
    };
    let mut bad = Vec::new();
    for path in REPLICA_PATHS {
        let (reason, newer) = match read(path).map(|bytes| usable(&bytes)) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => (error.to_string(), matches!(error, FormatError::NewerVersion { .. })),
            Err(error) => (error.to_string(), false),
        };
        let corrected = repair
            && !newer
            && match replace_small(disk, path, right) {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!("{path} cannot be written again: {error}");
                    false
                }
            };
        bad.push(BadReplica { path, reason, corrected });
    }
    bad
}
