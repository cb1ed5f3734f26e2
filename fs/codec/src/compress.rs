//! Frames: zstd where it pays, the bytes themselves where it does not; of tensors the planes of their numbers.

use std::cell::RefCell;

use cairn_format::{ChunkEntry, ChunkId, Codec, Compression, Element, PlanesHead};

use crate::tensor::{self, Base, Kernel};

/// Compresses frames; holds a context that is dear to make, so keep one to a thread.
pub struct Compressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// None where nothing is to be compressed.
    planes: Option<tensor::Encoder>,
}

impl Compressor {
    /// One for `compression`.
    pub fn new(compression: Compression) -> Compressor {
        let zstd = match compression {
            Compression::None => None,
            // An error means that a context could not be had: frames are then stored raw, and right.
            Compression::Zstd(level) => zstd::bulk::Compressor::new(level.into()).ok(),
        };
        let planes = (compression != Compression::None).then(|| tensor::Encoder::new(Kernel::best()));
        Compressor { zstd, planes }
    }

    /// The stored bytes of a frame that is the run `chunk` of elements of this kind. What is coded by planes was decoded again, and
    /// compared. With a `base`, a chunk of as many elements, they may be the differences from that: [`PlanesHead::is_differences`] tells.
    pub fn encode_run(
        &mut self,
        plain: &[u8],
        element: Element,
        chunk: &ChunkId,
        base: Option<Base<'_>>,
    ) -> (Codec, Vec<u8>) {
        let coded = self.planes.as_mut().and_then(|planes| planes.encode(plain, element, chunk, base));
        self.keep_run(plain, element, chunk, base, coded)
    }

    /// As [`encode_run`](Self::encode_run), of what somebody else coded just as an encoder would.
    pub fn keep_run(
        &mut self,
        plain: &[u8],
        element: Element,
        chunk: &ChunkId,
        base: Option<Base<'_>>,
        coded: Option<Vec<u8>>,
    ) -> (Codec, Vec<u8>) {
        let bytes = base.map(|base| base.bytes);
        let decodes = |coded: &Vec<u8>| {
            tensor::decode(Kernel::best(), coded, chunk, bytes, plain.len()).is_ok_and(|again| again == plain)
        };
        match coded.filter(decodes) {
            // Floats have nothing that zstd would find.
            Some(coded) if element.is_float() => (Codec::Planes, coded),
            Some(coded) => match self.encode(plain) {
                (Codec::Zstd, smaller) if smaller.len() < coded.len() + spared(&coded, plain) => {
                    (Codec::Zstd, smaller)
                }
                _ => (Codec::Planes, coded),
            },
            None => self.encode(plain),
        }
    }

    /// The stored bytes of a frame. Raw unless compression saves at least a sixteenth of it: less is
    /// not worth decoding at each read.
    pub fn encode(&mut self, plain: &[u8]) -> (Codec, Vec<u8>) {
        if let Some(zstd) = &mut self.zstd
            && let Ok(stored) = zstd.compress(plain)
            && stored.len() + plain.len() / 16 <= plain.len()
            && !plain.is_empty()
        {
            return (Codec::Zstd, stored);
        }
        (Codec::Raw, plain.to_vec())
    }
}

/// What differences have to save beyond what the run takes alone.
fn spared(coded: &[u8], plain: &[u8]) -> usize {
    if PlanesHead::is_differences(coded) { plain.len().div_ceil(50) } else { 0 }
}

/// Stored bytes that passed their checksum but do not decode: what wrote them was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stored_len} stored bytes do not decode to {plain_len}: {reason}")]
pub struct DecodeError {
    stored_len: usize,
    plain_len: usize,
    reason: String,
}

/// The plain bytes of a frame of these chunks, exactly `plain_len` of them: no more is ever allocated or produced. Differences from a base are an
/// error.
pub fn decode(
    codec: Codec,
    stored: &[u8],
    plain_len: usize,
    chunks: &[ChunkEntry],
) -> Result<Vec<u8>, DecodeError> {
    match decode_without_base(codec, stored, plain_len, chunks)? {
        (plain, None) => Ok(plain),
        (_, Some(_)) => {
            let reason = "it is the differences from another chunk".into();
            Err(DecodeError { stored_len: stored.len(), plain_len, reason })
        }
    }
}

/// As [`decode`]; of a frame that is differences from a base these, which [`tensor::add_base`] makes the plain bytes. What that base's elements are comes with it.
pub fn decode_without_base(
    codec: Codec,
    stored: &[u8],
    plain_len: usize,
    chunks: &[ChunkEntry],
) -> Result<(Vec<u8>, Option<Element>), DecodeError> {
    thread_local! {
        static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let error = |reason: String| DecodeError { stored_len: stored.len(), plain_len, reason };
    let mut of_base = None;
    let plain = match codec {
        Codec::Raw => stored.to_vec(),
        Codec::Zstd => ZSTD.with_borrow_mut(|context| {
            let zstd = match context {
                Some(zstd) => zstd,
                None => context.insert(zstd::bulk::Decompressor::new().map_err(|e| error(e.to_string()))?),
            };
            zstd.decompress(stored, plain_len).map_err(|e| error(e.to_string()))
        })?,
        Codec::Planes => match chunks {
            [chunk] => {
                let decoded = tensor::decode_without_base(Kernel::best(), stored, &chunk.id, plain_len);
                let (plain, differs_from) = decoded.map_err(|e| error(e.to_string()))?;
                of_base = differs_from;
                plain
            }
            _ => return Err(error(format!("it is a run of numbers, and holds {} chunks", chunks.len()))),
        },
    };
    if plain.len() != plain_len {
        return Err(error(format!("it holds {} bytes", plain.len())));
    }
    Ok((plain, of_base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_decode_to_what_was_encoded(plain: Vec<u8>, level in -7i8..=19) {
            for compression in [Compression::None, Compression::Zstd(level)] {
                let (codec, stored) = Compressor::new(compression).encode(&plain);
                prop_assert_eq!(decode(codec, &stored, plain.len(), &[]).unwrap(), plain.clone());
            }
        }

        #[test]
        fn hostile_bytes_never_give_more_than_was_allowed(stored: Vec<u8>, len in 0usize..10_000) {
            if let Ok(plain) = decode(Codec::Zstd, &stored, len, &[]) {
                prop_assert_eq!(plain.len(), len);
            }
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let (codec, stored) = Compressor::new(Compression::Zstd(3)).encode(&vec![0; 64 << 20]);
        assert_eq!(codec, Codec::Zstd);
        assert!(decode(codec, &stored, 256 << 10, &[]).is_err());
    }

    #[test]
    fn what_does_not_compress_is_stored_raw() {
        let mut noise = vec![0; 256 << 10];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(Compressor::new(Compression::Zstd(3)).encode(&noise).0, Codec::Raw);
    }
}
