//! fsck on small volumes with one defect each: what it says, and that it changes nothing.

#![expect(clippy::unwrap_used, reason = "tests end at the first surprise")]

mod caches;
mod command;
mod fixture;
mod namespace;
mod store;
