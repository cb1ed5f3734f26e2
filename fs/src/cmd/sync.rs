//! `cairn sync`.

use std::fs::File;
use std::path::Path;

use crate::args::SyncArgs;
use crate::control::Client;
use crate::failure::Failure;
use crate::places;

/// Returns when everything written before is folded and checkpointed.
pub(crate) fn run(args: &SyncArgs) -> Result<(), Failure> {
    let place = places::find(&args.path)?;
    if let Some(mountpoint) = &place.mountpoint {
        flush_pages(mountpoint)?;
    }
    match Client::connect(&place.dir)? {
        Some(mut daemon) => daemon.call("sync").map(drop),
        None => Err(places::not_mounted(&place.dir, "there is nothing to sync, and nobody to do it")),
    }
}

/// What programs wrote into mapped files is still the kernel's.
fn flush_pages(mountpoint: &Path) -> Result<(), Failure> {
    let failure = |e: std::io::Error| Failure::new(places::cannot_reach(mountpoint, &e));
    let root = File::open(mountpoint).map_err(failure)?;
    nix::unistd::syncfs(&root).map_err(|e| failure(e.into()))
}
