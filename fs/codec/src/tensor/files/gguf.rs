//! GGUF (github.com/ggml-org/ggml, docs/gguf.md), versions 2 and 3, little-endian: what is known of the model as keys and values, then a list
//! of tensors, then, aligned, their bytes.

use cairn_format::Element;

use super::{Stop, Tensor, TensorFile, bytes_of};

const ALIGNMENT_KEY: &[u8] = b"general.alignment";
/// An array in an array in an array: more there is not.
const DEEPEST: u32 = 3;

pub(super) fn parse(start: &[u8]) -> Result<Option<TensorFile>, Stop> {
    if !start.starts_with(b"GGUF") {
        return Ok(None);
    }
    let mut header = Header { bytes: start, at: 4 };
    if !(2..=3).contains(&header.u32()?) {
        return Ok(None);
    }
    let (tensors, pairs) = (header.u64()?, header.u64()?);
    let mut alignment = 32;
    for _ in 0..pairs {
        let is_alignment = header.string()? == ALIGNMENT_KEY;
        let kind = header.u32()?;
        match (is_alignment, kind) {
            (true, 4) => alignment = header.u32()?.into(),
            _ => header.skip_value(kind, 0)?,
        }
    }
    let mut found = Vec::new();
    for _ in 0..tensors {
        let name = String::from_utf8_lossy(header.string()?).into_owned();
        let dimensions = header.u32()?;
        if dimensions > 8 {
            return Err(Stop::Malformed);
        }
        let shape = (0..dimensions).map(|_| header.u64()).collect::<Result<Vec<_>, _>>()?;
        let (dtype, element, weights, bytes) = kind(header.u32()?).ok_or(Stop::Malformed)?;
        let count = bytes_of(&shape, 1).filter(|count| count % weights == 0).ok_or(Stop::Malformed)?;
        let len = bytes_of(&[count / weights], bytes).ok_or(Stop::Malformed)?;
        let offset = header.u64()?;
        found.push(Tensor { name, dtype: dtype.into(), element, shape, offset, len });
    }
    if !(1..=1 << 20).contains(&alignment) {
        return Err(Stop::Malformed);
    }
    let data = (header.at as u64).next_multiple_of(alignment);
    for tensor in &mut found {
        tensor.offset = tensor.offset.checked_add(data).ok_or(Stop::Malformed)?;
    }
    Ok(Some(TensorFile { format: "GGUF", tensors: found }))
}

/// A type's name, as what it is coded, how many weights are in a group, and bytes of one. Those of which the groups' fields are not known here are bytes.
fn kind(code: u32) -> Option<(&'static str, Element, u64, u64)> {
    let (name, element, weights) = match code {
        0 => ("F32", Element::Single, 1),
        1 => ("F16", Element::Half, 1),
        2 => ("Q4_0", Element::Q4_0, 32),
        3 => ("Q4_1", Element::Q4_1, 32),
        6 => ("Q5_0", Element::Q5_0, 32),
        7 => ("Q5_1", Element::Q5_1, 32),
        8 => ("Q8_0", Element::Q8_0, 32),
        10 => ("Q2_K", Element::Q2K, 256),
        11 => ("Q3_K", Element::Q3K, 256),
        12 => ("Q4_K", Element::Q4K, 256),
        13 => ("Q5_K", Element::Q5K, 256),
        14 => ("Q6_K", Element::Q6K, 256),
        // A scale of 16 bits and 32 numbers of 4, as in Q4_0.
        20 => ("IQ4_NL", Element::Q4_0, 32),
        24 => ("I8", Element::Byte, 1),
        25 => ("I16", Element::Short, 1),
        26 => ("I32", Element::Word, 1),
        27 => ("I64", Element::Long, 1),
        28 => ("F64", Element::Double, 1),
        30 => ("BF16", Element::Bfloat, 1),
        _ => return bytes(code).map(|(name, weights, len)| (name, Element::Byte, weights, len)),
    };
    Some((name, element, weights, element.width() as u64))
}

/// The name of a type that is stored as bytes, how many weights are in a group, and bytes of one.
fn bytes(code: u32) -> Option<(&'static str, u64, u64)> {
    Some(match code {
        9 => ("Q8_1", 32, 36),
        15 => ("Q8_K", 256, 292),
        16 => ("IQ2_XXS", 256, 66),
        17 => ("IQ2_XS", 256, 74),
        18 => ("IQ3_XXS", 256, 98),
        19 => ("IQ1_S", 256, 50),
        21 => ("IQ3_S", 256, 110),
        22 => ("IQ2_S", 256, 82),
        23 => ("IQ4_XS", 256, 136),
        29 => ("IQ1_M", 256, 56),
        34 => ("TQ1_0", 256, 54),
        35 => ("TQ2_0", 256, 66),
        39 => ("MXFP4", 32, 17),
        _ => return None,
    })
}

struct Header<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Header<'b> {
    fn take(&mut self, len: u64) -> Result<&'b [u8], Stop> {
        let end = (self.at as u64).checked_add(len).ok_or(Stop::Malformed)?;
        let taken = usize::try_from(end).ok().and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(Stop::Wants(end))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| Stop::Malformed)
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        self.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| Stop::Malformed)
    }

    fn string(&mut self) -> Result<&'b [u8], Stop> {
        let len = self.u64()?;
        self.take(len)
    }

    fn skip_value(&mut self, kind: u32, depth: u32) -> Result<(), Stop> {
        match (kind, fixed_len(kind)) {
            (_, Some(len)) => self.take(len).map(|_| ()),
            (8, _) => self.string().map(|_| ()),
            (9, _) if depth < DEEPEST => {
                let (kind, count) = (self.u32()?, self.u64()?);
                match fixed_len(kind) {
                    Some(len) => self.take(len.checked_mul(count).ok_or(Stop::Malformed)?).map(|_| ()),
                    // Each takes 8 bytes at least, so this ends with the header.
                    None => (0..count).try_for_each(|_| self.skip_value(kind, depth + 1)),
                }
            }
            _ => Err(Stop::Malformed),
        }
    }
}

fn fixed_len(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
