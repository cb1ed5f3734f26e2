//! Who codes runs elsewhere than on the processor.

use cairn_format::{ChunkId, Element};

use super::Base;

/// A run that is to be coded, as [`Encoder::encode`](super::Encoder::encode) takes it.
#[derive(Clone, Copy)]
pub struct Run<'r> {
    /// Its bytes.
    pub plain: &'r [u8],
    /// What they are.
    pub element: Element,
    /// The chunk that they are.
    pub chunk: ChunkId,
    /// A run that this one may be near to.
    pub base: Option<Base<'r>>,
}

/// Codes many runs at once, to the bytes that an [`Encoder`](super::Encoder) gives.
pub trait Batches: Send + Sync {
    /// Plain bytes that are worth giving it at once; 0 where it does nothing, any more.
    fn batch(&self) -> usize;

    /// Runs that are worth giving it: fewer are coded sooner by the processor.
    fn fewest(&self) -> usize;

    /// The runs, coded, or none of those that are not worth it. None at all where the processor is to do it.
    fn encode(&self, runs: &[Run<'_>]) -> Option<Vec<Option<Vec<u8>>>>;
}
