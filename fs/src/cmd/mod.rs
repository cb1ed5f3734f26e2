//! The verbs, a file each.

pub(crate) mod bench;
pub(crate) mod df;
pub(crate) mod drill;
pub(crate) mod gc;
pub(crate) mod info;
mod long_run;
pub(crate) mod mount;
pub(crate) mod remount;
pub(crate) mod repair;
pub(crate) mod scrub;
pub(crate) mod stats;
pub(crate) mod sync;
pub(crate) mod umount;
pub(crate) mod upgrade;
pub(crate) mod why;
