//! ONNX (github.com/onnx/onnx, onnx/onnx.proto): a model as Protocol Buffers. Its graph's initializers are tensors, which have their bytes in
//! the field `raw_data`, or as packed floats. Those that are kept in other files are not found: what lies there only this file says.
//!
//! Protocol Buffers have no magic number. What is taken for a model begins with its version, has no fields but a model's, of their kinds, and
//! has tensors that are just as long as their shapes say.

use cairn_format::Element;

use super::view::View;
use super::{MOST_TENSORS, Tensor, TensorFile, bytes_of};

/// The longest name of a tensor that is looked at.
const LONGEST_NAME: u64 = 4096;
/// The most dimensions.
const DIMENSIONS: usize = 16;

/// A field: its number, and what it is.
struct Field {
    number: u64,
    value: Value,
}

/// What a field is, as far as the encoding tells.
enum Value {
    Number(u64),
    /// Of 4 or 8 bytes.
    Fixed,
    /// From here to there in the file.
    Bytes(u64, u64),
}

/// Why a message is gone through no further.
enum Stop {
    /// There are no more bytes: the file may still be being written.
    Ended,
    Malformed,
}

pub(super) fn parse(view: &mut View<'_>) -> Option<TensorFile> {
    let mut at = 0;
    // The version of the format: no model was ever without.
    match field(view, &mut at, u64::MAX).ok()? {
        Field { number: 1, value: Value::Number(1..=100) } => {}
        _ => return None,
    }
    loop {
        match field(view, &mut at, u64::MAX).ok()? {
            Field { number: 7, value: Value::Bytes(from, to) } => return graph(view, from, to),
            // Who made it, of which version; what it is for; operators, notes, functions.
            Field { number: 2 | 3 | 4 | 6 | 8 | 14 | 25 | 26, value: Value::Bytes(..) }
            | Field { number: 5, value: Value::Number(_) } => {}
            _ => return None,
        }
    }
}

fn graph(view: &mut View<'_>, mut at: u64, end: u64) -> Option<TensorFile> {
    let mut tensors = Vec::new();
    while at < end && tensors.len() < MOST_TENSORS {
        let next = match field(view, &mut at, end) {
            // Nodes and inputs, and what else a graph has.
            Ok(Field { number: 1 | 2 | 10..=16, value: Value::Bytes(..) }) => Ok(None),
            Ok(Field { number: 5, value: Value::Bytes(from, to) }) => tensor(view, from, to),
            Ok(_) => Err(Stop::Malformed),
            Err(stop) => Err(stop),
        };
        match next {
            Ok(tensor) => tensors.extend(tensor),
            Err(Stop::Ended) => break,
            Err(Stop::Malformed) => return None,
        }
    }
    (!tensors.is_empty()).then_some(TensorFile { format: "ONNX", tensors })
}

/// A tensor, if its bytes are in this file as they are.
fn tensor(view: &mut View<'_>, mut at: u64, end: u64) -> Result<Option<Tensor>, Stop> {
    let (mut shape, mut kind, mut name, mut raw) = (Vec::new(), 0, String::new(), None);
    while at < end {
        match field(view, &mut at, end)? {
            Field { number: 1, value: Value::Number(dimension) } => shape.push(dimension),
            Field { number: 1, value: Value::Bytes(mut from, to) } => {
                while from < to && shape.len() <= DIMENSIONS {
                    shape.push(number(view, &mut from, to)?);
                }
            }
            Field { number: 2, value: Value::Number(code) } => kind = code,
            Field { number: 8, value: Value::Bytes(from, to) } if to - from <= LONGEST_NAME => {
                let bytes = view.exact(from, (to - from) as usize).ok_or(Stop::Ended)?;
                name = String::from_utf8_lossy(bytes).into_owned();
            }
            // Packed floats and doubles lie there like raw ones.
            Field { number: 4 | 9 | 10, value: Value::Bytes(from, to) } => raw = Some((from, to - from)),
            _ => {}
        }
        if shape.len() > DIMENSIONS {
            return Err(Stop::Malformed);
        }
    }
    let Some((offset, len)) = raw.filter(|(_, len)| *len > 0) else { return Ok(None) };
    let (dtype, element, bits) = element(kind).ok_or(Stop::Malformed)?;
    let count = bytes_of(&shape, bits).ok_or(Stop::Malformed)?;
    if count.div_ceil(8) != len {
        return Err(Stop::Malformed);
    }
    Ok(Some(Tensor { name, dtype: dtype.into(), element, shape, offset, len }))
}

/// The next field of a message that ends there.
fn field(view: &mut View<'_>, at: &mut u64, end: u64) -> Result<Field, Stop> {
    let key = number(view, at, end)?;
    let (number_of_it, kind) = (key >> 3, key & 7);
    let fixed = |at: &mut u64, len| {
        *at = at.checked_add(len).filter(|at| *at <= end).ok_or(Stop::Malformed)?;
        Ok(Value::Fixed)
    };
    let value = match kind {
        0 => Value::Number(number(view, at, end)?),
        1 => fixed(at, 8)?,
        5 => fixed(at, 4)?,
        2 => {
            let len = number(view, at, end)?;
            let from = *at;
            *at = at.checked_add(len).filter(|at| *at <= end).ok_or(Stop::Malformed)?;
            Value::Bytes(from, *at)
        }
        _ => return Err(Stop::Malformed),
    };
    Ok(Field { number: number_of_it, value })
}

/// A number of seven bits a byte, the low ones first.
fn number(view: &mut View<'_>, at: &mut u64, end: u64) -> Result<u64, Stop> {
    const LONGEST: u64 = 10;
    let most = end.saturating_sub(*at).min(LONGEST);
    let bytes = view.some(*at, most as usize);
    let mut number = 0u64;
    for (i, byte) in bytes.iter().enumerate() {
        number |= u64::from(byte & 0x7f).checked_shl(7 * i as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            *at += i as u64 + 1;
            return Ok(number);
        }
    }
    if bytes.len() as u64 == most { Err(Stop::Malformed) } else { Err(Stop::Ended) }
}

/// What a type is called, as what its numbers are coded, and bits of each.
fn element(code: u64) -> Option<(&'static str, Element, u64)> {
    Some(match code {
        1 => ("FLOAT", Element::Single, 32),
        2 => ("UINT8", Element::Byte, 8),
        3 => ("INT8", Element::Byte, 8),
        4 => ("UINT16", Element::Short, 16),
        5 => ("INT16", Element::Short, 16),
        6 => ("INT32", Element::Word, 32),
        7 => ("INT64", Element::Long, 64),
        9 => ("BOOL", Element::Byte, 8),
        10 => ("FLOAT16", Element::Half, 16),
        11 => ("DOUBLE", Element::Double, 64),
        12 => ("UINT32", Element::Word, 32),
        13 => ("UINT64", Element::Long, 64),
        14 => ("COMPLEX64", Element::Single, 64),
        15 => ("COMPLEX128", Element::Double, 128),
        16 => ("BFLOAT16", Element::Bfloat, 16),
        17 => ("FLOAT8E4M3FN", Element::Byte, 8),
        18 => ("FLOAT8E4M3FNUZ", Element::Byte, 8),
        19 => ("FLOAT8E5M2", Element::Byte, 8),
        20 => ("FLOAT8E5M2FNUZ", Element::Byte, 8),
        21 => ("UINT4", Element::Byte, 4),
        22 => ("INT4", Element::Byte, 4),
        23 => ("FLOAT4E2M1", Element::Byte, 4),
        _ => return None,
    })
}
