//! Packs: written once, under a name that is never used again, sealed, then only read.

mod parity;
mod reader;
mod run;
mod sums;
mod writer;

use cairn_format::PackId;

pub use parity::encode_columns;
pub use reader::{DecodedFrame, PackReader};
pub(crate) use run::{RunHead, StoredBlocks};
pub use writer::{PackWriter, SealedPack};

/// Where a sealed pack lies, relative to the store.
pub fn pack_path(pack: &PackId) -> String {
    format!("packs/{}/{pack}.pack", pack.directory())
}

/// Where a pack lies while it is written. What is left of one after a crash is removed at the next mount.
pub(crate) fn unsealed_path(pack: &PackId) -> String {
    format!("packs/{}/{pack}.new", pack.directory())
}
