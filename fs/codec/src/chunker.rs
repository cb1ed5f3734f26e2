//! Content-defined chunking: FastCDC (Xia et al., 2020), whose cuts follow the content, so that what is
//! inserted in front of data does not move the cuts behind it.

use cairn_format::{ChunkId, ChunkSizes};
use fastcdc::v2020;

/// Cuts runs of bytes into chunks.
///
/// A cut depends on the bytes from the cut before up to and including the first byte behind it, and
/// on nothing else. So after a change cutting goes on from the chunk that holds the byte before the
/// change, and ends where a new cut meets an old one behind it.
#[derive(Clone, Copy, Debug)]
pub struct Chunker {
    sizes: ChunkSizes,
    mask_small: u64,
    mask_large: u64,
}

impl Chunker {
    /// For sizes that [`cairn_format::Geometry::check`] let pass.
    pub fn new(sizes: ChunkSizes) -> Chunker {
        let (mask_small, mask_large) = v2020::select_masks(sizes.avg as usize, v2020::Normalization::Level1);
        Chunker { sizes, mask_small, mask_large }
    }

    /// No chunk is longer than this.
    pub fn max(&self) -> usize {
        self.sizes.max as usize
    }

    /// The length of the chunk at the start of `run`, which must hold either all bytes up to the end
    /// of the file (or the next hole), or more than [`Chunker::max`] of them. 0 only for an empty run.
    pub fn cut(&self, run: &[u8]) -> usize {
        let ChunkSizes { min, avg, max } = self.sizes;
        let (_, len) = v2020::cut(
            run,
            min as usize,
            avg as usize,
            max as usize,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
        );
        len
    }
}

/// A chunk's id under its store's key: BLAKE3-256, keyed, so that ids tell nothing to who lacks the key.
pub fn chunk_id(key: &[u8; 32], plain: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(key, plain).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZES: ChunkSizes = ChunkSizes { min: 64, avg: 256, max: 1024 };

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(bytes: &[u8]) -> Vec<usize> {
        let chunker = Chunker::new(SIZES);
        let mut ends = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            at += chunker.cut(&bytes[at..]);
            ends.push(at);
        }
        ends
    }

    #[test]
    fn golden_boundaries() {
        let bytes = noise(7, 1 << 20);
        let chunker = Chunker::new(ChunkSizes { min: 8 << 10, avg: 32 << 10, max: 128 << 10 });
        let mut at = 0;
        let mut ends = Vec::new();
        while at < bytes.len() {
            at += chunker.cut(&bytes[at..]);
            ends.push(at);
        }
        // Written down once. Other boundaries would end the dedup with everything stored before: that
        // needs a new chunker id in the superblock.
        assert_eq!(ends[..6], GOLDEN);
    }

    const GOLDEN: [usize; 6] = [42775, 107831, 189515, 238422, 267971, 302523];

    proptest! {
        #[test]
        fn cutting_a_window_gives_the_cuts_of_the_whole(seed: u64, len in 0usize..20_000) {
            let bytes = noise(seed, len);
            let chunker = Chunker::new(SIZES);
            let mut at = 0;
            let mut ends = Vec::new();
            while at < bytes.len() {
                let window = bytes.len().min(at + chunker.max() + 1);
                at += chunker.cut(&bytes[at..window]);
                ends.push(at);
            }
            prop_assert_eq!(ends, cuts(&bytes));
        }

        #[test]
        fn cuts_meet_again_behind_a_change(seed: u64, at in 1usize..20_000, with in 0usize..300) {
            let before = noise(seed, 20_000);
            let mut after = before.clone();
            let end = (at + with).min(after.len());
            after[at..end].copy_from_slice(&noise(!seed, end - at));
            let (old, new) = (cuts(&before), cuts(&after));
            // Everything up to the chunk that holds the byte before the change stays.
            let kept = |ends: &[usize]| ends.iter().copied().filter(|e| *e < at).collect::<Vec<_>>();
            prop_assert_eq!(kept(&old), kept(&new));
            // Once a cut behind the change is common, all later ones are.
            if let Some(meet) = new.iter().find(|e| **e >= end && old.contains(e)) {
                let tail = |ends: &[usize]| ends.iter().copied().filter(|e| e > meet).collect::<Vec<_>>();
                prop_assert_eq!(tail(&old), tail(&new));
            }
        }
    }
}
