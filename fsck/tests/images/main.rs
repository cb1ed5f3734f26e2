//! fsck on small volumes with one defect each: what it says, that a check changes nothing, and what a repair makes of it.

#![expect(clippy::unwrap_used, reason = "tests end at the first surprise")]

mod caches;
mod command;
mod fixture;
mod journal;
mod killed;
mod many;
mod memory;
mod namespace;
mod page;
mod random;
mod repair;
mod store;
mod undo;
#[path = "../../../fs/page/tests/pages/wellformed.rs"]
mod wellformed;
