//! The superblocks of volume and store, in both replicas.

use std::io;

use cairn_format::{FormatError, StoreSuperblock, VolumeSuperblock};
use cairn_store::disk::Disk;
use cairn_store::{Replicas, Store, StoreError, read_replicas};

use crate::CheckError;
use crate::report::{Finding, Findings};

/// The volume's superblock; none where both replicas are damaged, which is a finding.
pub(crate) fn volume_superblock(
    disk: &dyn Disk,
    findings: &mut Findings,
) -> Result<Option<VolumeSuperblock>, CheckError> {
    match read_replicas(disk, VolumeSuperblock::decode, |s| s.generation) {
        Ok(replicas) => Ok(Some(newest("", replicas, findings))),
        Err(StoreError::Superblock { path, error: FormatError::BadMagic { .. } }) => {
            Err(CheckError::NotAVolume(format!("its {path} is not one of cairn's")))
        }
        Err(StoreError::Io { path, error }) if error.kind() == io::ErrorKind::NotFound => {
            Err(CheckError::NotAVolume(format!("it has no {path}")))
        }
        Err(error) => none("", error, findings),
    }
}

/// The store's superblock; none where both replicas are damaged or missing, which is a finding.
pub(crate) fn store_superblock(
    disk: &dyn Disk,
    findings: &mut Findings,
) -> Result<Option<StoreSuperblock>, CheckError> {
    match Store::superblock_of(disk) {
        Ok(replicas) => Ok(Some(newest("store/", replicas, findings))),
        Err(error) => none("store/", error, findings),
    }
}

fn newest<T>(place: &str, replicas: Replicas<T>, findings: &mut Findings) -> T {
    for (path, reason) in replicas.damaged {
        let what = format!("this copy of the superblock cannot be used, the other can: {reason}");
        let finding = Finding::damage("superblock-replica", what).file(format!("{place}{path}"));
        findings.push(finding.advice("copy the good superblock over it while the volume is not mounted"));
    }
    replicas.newest
}

fn none<T>(place: &str, error: StoreError, findings: &mut Findings) -> Result<Option<T>, CheckError> {
    match error {
        StoreError::Superblock { error: newer @ FormatError::NewerVersion { .. }, .. } => {
            Err(CheckError::Newer(newer.to_string()))
        }
        // One that is longer than any superblock is damaged; that is the error without a kind.
        StoreError::Io { path, error }
            if ![io::ErrorKind::NotFound, io::ErrorKind::Other].contains(&error.kind()) =>
        {
            Err(CheckError::Io { path: format!("{place}{path}"), error })
        }
        error => {
            let what = format!("no copy of the superblock can be used: {error}; nothing else was checked");
            let finding = Finding::damage("superblock", what).file(format!("{place}superblock"));
            findings
                .push(finding.advice("restore superblock or superblock.backup from a copy of the volume"));
            Ok(None)
        }
    }
}
