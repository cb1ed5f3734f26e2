//! What cairn writes to disk: bytes <-> structs. `docs/FORMAT.md` draws every type byte for byte,
//! and a test holds it to this code.
//!
//! Architecture Invariant: this crate does no I/O, and every decoder takes hostile bytes: lengths,
//! counts and offsets are checked before anything is allocated, nothing panics.

mod across;
mod bases;
mod checksum;
mod frame;
mod ids;
mod journal;
pub mod key;
mod layout;
mod namespace;
mod pack;
mod parity;
mod planes;
mod scrub;
mod segment_parity;
mod snapshot;
mod superblock;
mod wire;

pub use across::{ACROSS_MAX, Across};
pub use bases::{BaseEntry, BaseTable};
pub use checksum::{Domain, Seal, bound_sum};
pub use frame::{ChunkEntry, Codec, FrameHead};
pub use ids::{CheckpointRef, ChunkId, Ino, JournalRef, Lsn, PackId, Uuid, View};
pub use journal::{
    Answer, Mutation, PAYLOAD_BLOCK, RECORD_ALIGN, RECORD_HEAD_LEN, Record, RecordHead, SEGMENT_DATA_START,
    SEGMENT_HEADER_LEN, SegmentHeader, payload_sums,
};
pub use layout::PackLayout;
pub use namespace::{
    ChunkPiece, ChunkPlace, DirEntry, EXTENT_RANGE, FILE_MAX, FileKind, Inode, MetaRecords, OrderedEntry,
    PackRefs, Piece, PieceKind, Timestamp, Totals, decode_pieces, encode_pieces, push_meta_record,
};
pub use pack::{
    Checkpoint, CheckpointKind, Footer, FrameBase, FrameEntry, PACK_HEADER_LEN, PACK_LEN_MAX, PackHeader,
    PackKind, Replaced, TRAILER_LEN, Trailer,
};
pub use parity::{SECTOR, Stripe, SumTable, sector_sum};
pub use planes::{BlockEntry, Element, PlanesHead, PlanesShape};
pub use scrub::{ScrubEntry, ScrubOutcome, ScrubState};
pub use segment_parity::{SEGMENT_PARITY_HEADER_LEN, SegmentParity};
pub use snapshot::{IndexSlot, IndexSnapshot, PackSummary};
pub use superblock::{
    ChunkSizes, Compression, Geometry, ParityGeometry, SUPERBLOCK_LEN, StoreSuperblock, VolumeState,
    VolumeSuperblock,
};
pub use wire::{Decoder, Encoder, Field, FormatError};

/// The version of everything this crate writes, and the only one it reads. 1 was that of no release: its checksums were
/// others; 2 neither: its records named no requests; 3 neither: its packs had no parity.
pub const FORMAT_VERSION: u32 = 4;
