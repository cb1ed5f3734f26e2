//! Where files are cut into chunks, what chunks are called, and how frames of them become stored bytes.
//!
//! Architecture Invariant: no I/O here, and no state but compression contexts: the same bytes give the
//! same chunks, ids and frames on every machine.

mod chunker;
mod compress;

pub use chunker::{Chunker, chunk_id};
pub use compress::{Compressor, DecodeError, decode};
