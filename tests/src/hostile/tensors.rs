//! Headers of files of tensors, and coded runs, whatever they say. Behind checksums that are right: nothing else comes that far.

use cairn_codec::tensor::files::{Detected, LONGEST_HEADER, TensorFile, detect, find};
use cairn_codec::tensor::{Base, Decoder, Encoder, Kernel, add_base, decode};
use cairn_format::{ChunkId, Element, PlanesHead};

use super::choices::Choices;
use crate::containers::{Told, npz, onnx, pickle, pytorch, zip_entry};

const CHUNK: ChunkId = ChunkId([0x5a; 32]);

/// What is detected lies in the file; what decodes is as long as was asked for, and the same with every kernel.
pub fn tensors(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.byte() {
        container @ 0x80.. => edited(container % 3, &mut choices),
        other => plain(other % 5, &mut choices),
    }
}

fn plain(which: u8, choices: &mut Choices<'_>) {
    match which {
        0 => {
            let file_len = choices.number();
            header(choices.rest(), file_len);
        }
        1 => {
            let rest = choices.rest();
            let json = [&(rest.len() as u64).to_le_bytes()[..], rest].concat();
            header(&json, json.len() as u64 + 100);
        }
        2 => {
            let bytes = [b"GGUF\x03\0\0\0", choices.rest()].concat();
            header(&bytes, bytes.len() as u64 + 100);
        }
        3 => {
            let elements: Vec<Element> = Element::all().collect();
            let element = choices.pick(&elements).copied().unwrap_or(Element::Byte);
            let near = Near::drawn(element, choices, 1000, None);
            if let Some(coded) = near.coded() {
                let decoded = decode(Kernel::best(), &coded, &CHUNK, near.base_bytes(), near.plain.len());
                assert!(decoded.is_ok_and(|decoded| decoded == near.plain), "what was coded is decoded");
            }
        }
        _ => sealed_run(choices),
    }
}

/// A run of numbers and, where there is one, another that it is near to: of the same elements, or cast from that.
struct Near {
    element: Element,
    plain: Vec<u8>,
    base: Option<(Element, Vec<u8>)>,
}

impl Near {
    /// Made of `bytes`, or of what is left of the input; the run is its base but for up to `most` bytes.
    fn drawn(element: Element, choices: &mut Choices<'_>, most: usize, bytes: Option<Vec<u8>>) -> Near {
        let casts: Vec<Element> = Element::all().filter(|base| element.casts_from(*base)).collect();
        let of = match choices.below(3) {
            0 => None,
            1 => Some(element),
            _ => choices.pick(&casts).copied(),
        };
        let changes = if of.is_some() { choices.bytes(most) } else { Vec::new() };
        let mut bytes = bytes.unwrap_or_else(|| choices.rest().to_vec());
        let Some(of) = of else { return Near { element, plain: bytes, base: None } };
        let mut plain = bytes.clone();
        if of != element {
            bytes.truncate(bytes.len() / of.width() * of.width());
            plain = vec![0; bytes.len() / of.width() * element.width()];
            let cast = add_base(Kernel::best(), element, &mut plain, Base { element: of, bytes: &bytes });
            assert!(cast, "{of:?} is cast to {element:?}");
        }
        plain.iter_mut().zip(changes).for_each(|(byte, change)| *byte ^= change);
        Near { element, plain, base: Some((of, bytes)) }
    }

    fn coded(&self) -> Option<Vec<u8>> {
        let base = self.base.as_ref().map(|(element, bytes)| Base { element: *element, bytes });
        Encoder::new(Kernel::best()).encode(&self.plain, self.element, &CHUNK, base)
    }

    fn base_bytes(&self) -> Option<&[u8]> {
        self.base.as_ref().map(|(_, bytes)| &bytes[..])
    }
}

fn header(bytes: &[u8], file_len: u64) {
    match detect(bytes, file_len) {
        Detected::Nothing => {}
        Detected::Wants(more) => {
            assert!(more > (bytes.len() as u64).min(file_len) && more <= file_len.min(LONGEST_HEADER));
        }
        Detected::Tensors(file) => in_order(&file),
    }
    whole(bytes, file_len);
}

/// Looks for tensors in a file that has these bytes.
fn whole(bytes: &[u8], file_len: u64) {
    let mut reads = 0;
    let found = find(file_len, &mut |at, len| {
        reads += 1;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(len as usize).min(bytes.len());
        Some(bytes[from..to].to_vec())
    });
    // Each byte could be a header of its own, and no more than that.
    assert!(reads <= 50 + bytes.len(), "{reads} reads of {} bytes", bytes.len());
    found.iter().for_each(in_order);
}

fn in_order(file: &TensorFile) {
    let mut end = 0;
    for tensor in &file.tensors {
        assert!(tensor.len > 0 && tensor.offset >= end, "in order");
        end = tensor.offset + tensor.len;
    }
}

/// A file that holds tensors among other things, edited; or a pickle of these bytes in one.
fn edited(which: u8, choices: &mut Choices<'_>) {
    let told = choices.pick(&Told::ALL).copied().unwrap_or(Told::Before);
    let (a, b) = ([1u8; 24], [2u8; 10]);
    let mut file = match which {
        0 => npz(&[("a", "<f4", &[2, 3], &a), ("b", "<f2", &[5], &b)], told),
        1 if choices.one_in(2) => {
            let mut pickled = match choices.one_in(2) {
                true => pickle(&[("a", "FloatStorage", &[2, 3], &a), ("b", "HalfStorage", &[5], &b)]),
                false => Vec::new(),
            };
            let len = pickled.len();
            choices.edit(&mut pickled, 0, len);
            let mut file = Vec::new();
            pickled.extend(choices.rest());
            zip_entry(&mut file, "a/data.pkl", &pickled, told, 1);
            zip_entry(&mut file, "a/data/0", &a, told, 1);
            zip_entry(&mut file, "a/data/1", &b, told, 1);
            file
        }
        1 => pytorch(&[("a", "FloatStorage", &[2, 3], &a), ("b", "HalfStorage", &[5], &b)], told),
        _ => onnx(&[("a", "1", &[2, 3], &a), ("b", "10", &[5], &b)]),
    };
    let len = file.len();
    choices.edit(&mut file, 0, len);
    file.extend(choices.rest());
    whole(&file, file.len() as u64);
}

/// A run as an encoder makes it, edited, with checksums that are right again.
fn sealed_run(choices: &mut Choices<'_>) {
    let elements: Vec<Element> = Element::all().collect();
    let element = choices.pick(&elements).copied().unwrap_or(Element::Byte);
    let few = 1 + choices.byte() % 40;
    let bytes = (0..3_000u32).map(|i| (i.wrapping_mul(i) >> 5) as u8 % few).collect();
    let near = Near::drawn(element, choices, 16, Some(bytes));
    let Some(coded) = near.coded() else { return };
    let Ok(head_len) = PlanesHead::len_of(&coded) else { return };
    let (head, blocks) = coded.split_at(head_len as usize);
    let (mut head, mut blocks) = (head.to_vec(), blocks.to_vec());
    if choices.one_in(2) {
        let end = head.len() - 8;
        choices.edit(&mut head, 4, end);
    }
    let len = blocks.len();
    choices.edit(&mut blocks, 0, len);
    let plain_len = if choices.one_in(4) { choices.below(1 << 16) } else { near.plain.len() };
    // The head's own checksum would keep what was edited out: what it says is sealed anew.
    let Ok(mut said) = unsealed(head) else { return };
    let mut start = 0;
    for (number, block) in (0u32..).zip(&mut said.blocks) {
        let stored = blocks.get(start..block.end as usize).unwrap_or_default();
        block.sum = PlanesHead::block_sum(&CHUNK, number, stored);
        start = block.end as usize;
    }
    let head = said.encode(&CHUNK);
    let decoded = Kernel::available().map(|kernel| {
        let decoder = Decoder::new(kernel, &head, &CHUNK, plain_len).ok()?;
        decoder.decode(&blocks, near.base_bytes().or(Some(&near.plain))).ok()
    });
    let decoded: Vec<_> = decoded.collect();
    assert!(decoded.windows(2).all(|pair| pair[0] == pair[1]), "kernels differ");
    assert!(decoded.iter().flatten().all(|bytes| bytes.len() == plain_len), "another length");
}

/// Decodes a head whatever its checksum.
fn unsealed(mut head: Vec<u8>) -> Result<PlanesHead, cairn_format::FormatError> {
    let owner: [u8; 16] = std::array::from_fn(|i| CHUNK.0[i]);
    let seal = cairn_format::Seal::new(cairn_format::Domain::Block, &owner, 0);
    super::spoil::seal_last(&mut head, &seal);
    PlanesHead::decode(&head, &CHUNK)
}
