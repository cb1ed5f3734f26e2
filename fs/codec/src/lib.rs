//! Where files are cut into chunks, what chunks are called, how frames of them become stored bytes, and the parity that restores
//! what a disk loses of these.
//!
//! Architecture Invariant: no I/O here, and no state but compression contexts: the same bytes give the
//! same chunks, ids and frames on every machine.

mod chunker;
mod compress;
pub mod parity;
pub mod tensor;

pub use chunker::{Chunker, chunk_id};
pub use compress::{Compressor, DecodeError, decode, decode_without_base};
