//! Real mounts through /dev/fuse, as root: what programs see of cairn, what survives its daemon, and what is refused.
//!
//! How long the random tests take: `CAIRN_KILLS` (rounds) and `CAIRN_KILL_SECONDS` (of load, in all).

#[path = "mount/acls.rs"]
mod acls;
#[path = "mount/bad_input.rs"]
mod bad_input;
#[path = "mount/content.rs"]
mod content;
#[cfg(feature = "sled")]
#[path = "mount/sled.rs"]
mod engines;
#[path = "mount/full.rs"]
mod full;
#[path = "mount/kills.rs"]
mod kills;
#[path = "mount/lifecycle.rs"]
mod lifecycle;
#[path = "mount/mapping.rs"]
mod mapping;
#[path = "mount/names.rs"]
mod names;
#[path = "mount/owners.rs"]
mod owners;
#[path = "mount/sparse.rs"]
mod sparse;
#[path = "mount/trees.rs"]
mod trees;
#[path = "mount/worker.rs"]
mod worker;
#[path = "mount/xattrs.rs"]
mod xattrs;

use std::fmt::Debug;
use std::io;

use rustix::io::Errno;

/// The error of an operation that must fail.
#[track_caller]
fn errno<T: Debug>(result: io::Result<T>) -> Errno {
    let error = result.expect_err("this must be refused");
    Errno::from_io_error(&error).unwrap_or_else(|| panic!("no error of the system: {error}"))
}
