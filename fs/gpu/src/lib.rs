//! Runs of numbers, coded and decoded on a graphics processor by way of Vulkan: to the bytes that `cairn_codec::tensor` writes.
//!
//! What is heavy is done there, for all blocks of a batch at once: elements are taken apart into planes (`kernels/split.wgsl`), the bytes of each are
//! counted (`count.wgsl`), and symbols are coded (`encode.wgsl`); or decoded (`decode.wgsl`) and put together (`join.wgsl`). What is decided, frequencies and how each plane is
//! stored, is decided by the codec's own code on the processor, and so are heads and checksums made; it looks for patterns, palettes and differences, too.
//! Each kernel names its twin in the codec.
//!
//! Whatever goes wrong with a device is a [`Lost`]: whoever asked for something does it without one then, and has the same bytes.
//!
//! Architecture Invariant: `device.rs` alone names wgpu, and nothing but package `cairn`, behind its feature `gpu`, depends on this crate.

mod decode;
mod device;
mod encode;
pub mod measure;
mod plan;

pub use cairn_codec::tensor::Run;
pub use device::{Choice, Device, Lost, NoDevice};

use cairn_format::ChunkId;

/// A run that is to be decoded.
#[derive(Clone, Copy)]
pub struct Coded<'r> {
    /// All its bytes, the head first.
    pub stored: &'r [u8],
    /// The chunk that it is.
    pub chunk: ChunkId,
    /// What it may differ from.
    pub base: Option<&'r [u8]>,
    /// Bytes that it is decoded to.
    pub plain_len: usize,
}
