//! NumPy's npy (numpy.lib.format): a header that is a Python dictionary of the type, the order and the shape, and one array.

use cairn_format::Element;

use super::{Stop, Tensor, TensorFile, bytes_of};

const MAGIC: &[u8] = b"\x93NUMPY";

pub(super) fn parse(start: &[u8]) -> Result<Option<TensorFile>, Stop> {
    let Some(rest) = start.strip_prefix(MAGIC) else {
        let may_become_one = !start.is_empty() && MAGIC.starts_with(start);
        return if may_become_one { Err(Stop::Wants(12)) } else { Ok(None) };
    };
    let [major, _, lengths @ ..] = rest else { return Err(Stop::Wants(12)) };
    let (len, data) = match (major, lengths) {
        (1, [a, b, ..]) => (u64::from(u16::from_le_bytes([*a, *b])), 10),
        (2 | 3, [a, b, c, d, ..]) => (u64::from(u32::from_le_bytes([*a, *b, *c, *d])), 12),
        (1..=3, _) => return Err(Stop::Wants(12)),
        _ => return Ok(None),
    };
    let end = data + len;
    let header = usize::try_from(end).ok().and_then(|end| start.get(data as usize..end));
    let header = std::str::from_utf8(header.ok_or(Stop::Wants(end))?).map_err(|_| Stop::Malformed)?;
    let dtype = quoted(header, "descr").ok_or(Stop::Malformed)?;
    let shape = shape(header).ok_or(Stop::Malformed)?;
    let (element, width) = element(dtype).ok_or(Stop::Malformed)?;
    let len = bytes_of(&shape, width).ok_or(Stop::Malformed)?;
    let tensor = Tensor { name: String::new(), dtype: dtype.into(), element, shape, offset: end, len };
    Ok(Some(TensorFile { format: "npy", tensors: vec![tensor] }))
}

/// What follows a key.
fn value<'h>(header: &'h str, key: &str) -> Option<&'h str> {
    let (_, behind) = header.split_once(&format!("'{key}'"))?;
    Some(behind.trim_start().strip_prefix(':')?.trim_start())
}

fn quoted<'h>(header: &'h str, key: &str) -> Option<&'h str> {
    value(header, key)?.strip_prefix('\'')?.split_once('\'').map(|(text, _)| text)
}

fn shape(header: &str) -> Option<Vec<u64>> {
    let (list, _) = value(header, "shape")?.strip_prefix('(')?.split_once(')')?;
    list.split(',')
        .map(str::trim)
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().ok())
        .collect()
}

/// As what a type is coded, and bytes of one. Big-endian numbers are none: their planes are not where they are looked for.
fn element(dtype: &str) -> Option<(Element, u64)> {
    let element = match dtype {
        "<f8" => Element::Double,
        "<f4" => Element::Single,
        "<f2" => Element::Half,
        "<i8" | "<u8" => Element::Long,
        "<i4" | "<u4" => Element::Word,
        "<i2" | "<u2" => Element::Short,
        "|i1" | "|u1" | "|b1" => Element::Byte,
        "<c8" => return Some((Element::Single, 8)),
        "<c16" => return Some((Element::Double, 16)),
        _ => return None,
    };
    Some((element, element.width() as u64))
}
