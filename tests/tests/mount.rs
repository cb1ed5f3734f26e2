//! Real mounts through /dev/fuse, as root: what programs see of cairn, what survives its daemon, and what is refused.
//!
//! How long the random tests take: `CAIRN_KILLS` (rounds) and `CAIRN_KILL_SECONDS` (of load, in each of two tests);
//! `CAIRN_TOOL_KILLS` (rounds for each tool); `CAIRN_POWER` (power cuts); `CAIRN_CROWD` (times as long); `CAIRN_FAULTS` (a
//! hundredth of it, of rot); `CAIRN_ROT` (packs damaged under readers and scrubs); `CAIRN_HEAL_KILLS` (of daemons that mend);
//! `CAIRN_FSCK_MIB` and `CAIRN_FSCK_PROCESS_KILLS` (over how much a repair is killed, and how often); `CAIRN_BIG` (MiB that fsck
//! goes through on a terminal); `CAIRN_MANY` is how many files "many" are; `CAIRN_SPACE_CYCLES` and `CAIRN_SPACE_MIB` are how
//! often a disk of which size is filled.

#[path = "mount/acls.rs"]
mod acls;
#[path = "mount/bad_disk.rs"]
mod bad_disk;
#[path = "mount/bad_input.rs"]
mod bad_input;
#[path = "mount/commands.rs"]
mod commands;
#[path = "mount/content.rs"]
mod content;
#[path = "mount/crowd.rs"]
mod crowd;
#[path = "mount/drill.rs"]
mod drill;
#[cfg(feature = "sled")]
#[path = "mount/sled.rs"]
mod engines;
#[path = "mount/errseq.rs"]
mod errseq;
#[path = "mount/faults.rs"]
mod faults;
#[path = "mount/full.rs"]
mod full;
#[path = "mount/gc.rs"]
mod gc;
#[path = "mount/handles.rs"]
mod handles;
#[path = "mount/heal.rs"]
mod heal;
#[path = "mount/hostile.rs"]
mod hostile;
#[path = "mount/kills.rs"]
mod kills;
#[path = "mount/lifecycle.rs"]
mod lifecycle;
#[path = "mount/many.rs"]
mod many;
#[path = "mount/mapping.rs"]
mod mapping;
#[path = "mount/metrics.rs"]
mod metrics;
#[path = "mount/names.rs"]
mod names;
#[path = "mount/opens.rs"]
mod opens;
#[path = "mount/owners.rs"]
mod owners;
#[path = "mount/power.rs"]
mod power;
#[path = "mount/ranges.rs"]
mod ranges;
#[path = "mount/refill.rs"]
mod refill;
#[path = "mount/repairs.rs"]
mod repairs;
#[path = "mount/report.rs"]
mod report;
#[path = "mount/rot.rs"]
mod rot;
#[path = "mount/scrub.rs"]
mod scrub;
#[path = "mount/semantics.rs"]
mod semantics;
#[path = "mount/sparse.rs"]
mod sparse;
#[path = "mount/takeover.rs"]
mod takeover;
#[path = "mount/tools/mod.rs"]
mod tools;
#[path = "mount/trees.rs"]
mod trees;
#[path = "mount/twins.rs"]
mod twins;
#[path = "mount/virtual_files.rs"]
mod virtual_files;
#[path = "../../fs/page/tests/pages/wellformed.rs"]
mod wellformed;
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
