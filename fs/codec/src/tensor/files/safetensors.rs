//! safetensors (github.com/huggingface/safetensors): the length of a header (8 bytes, little-endian), the header, a JSON object of
//! name -> type, shape, and where the tensor lies behind the header.

use std::fmt;

use cairn_format::Element;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{LONGEST_HEADER, Stop, Tensor, TensorFile, bytes_of};

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

pub(super) fn parse(start: &[u8], file_len: u64) -> Result<Option<TensorFile>, Stop> {
    let Some((len, rest)) = start.split_first_chunk::<8>() else {
        return if start.is_empty() { Ok(None) } else { Err(Stop::Wants(8)) };
    };
    let len = u64::from_le_bytes(*len);
    // An object that names no tensor is shorter.
    if !(16..=LONGEST_HEADER - 8).contains(&len) || len > file_len.saturating_sub(8) {
        return Ok(None);
    }
    if rest.first().is_some_and(|first| *first != b'{') {
        return Ok(None);
    }
    let header = rest.get(..len as usize).ok_or(Stop::Wants(8 + len))?;
    let entries = Entries::read(header).ok_or(Stop::Malformed)?;
    let data = 8 + len;
    let tensors = entries.0.into_iter().map(|(name, entry)| {
        let (element, bits) = element(&entry.dtype)?;
        let [from, to] = entry.data_offsets;
        let shaped = bytes_of(&entry.shape, bits)?.div_ceil(8);
        let bytes = to.checked_sub(from).filter(|bytes| *bytes == shaped)?;
        let offset = data.checked_add(from)?;
        Some(Tensor { name, dtype: entry.dtype, element, shape: entry.shape, offset, len: bytes })
    });
    let tensors = tensors.collect::<Option<Vec<_>>>().ok_or(Stop::Malformed)?;
    Ok(Some(TensorFile { format: "safetensors", tensors }))
}

/// As what a type is coded, and bits of one.
fn element(dtype: &str) -> Option<(Element, u64)> {
    let element = match dtype {
        "F64" => Element::Double,
        "F32" => Element::Single,
        "F16" => Element::Half,
        "BF16" => Element::Bfloat,
        "I64" | "U64" => Element::Long,
        "I32" | "U32" => Element::Word,
        "I16" | "U16" => Element::Short,
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => {
            Element::Byte
        }
        "C64" => return Some((Element::Single, 64)),
        "F6_E2M3" | "F6_E3M2" => return Some((Element::Byte, 6)),
        "F4" => return Some((Element::Byte, 4)),
        _ => return None,
    };
    Some((element, 8 * element.width() as u64))
}

/// The header's entries, without what it says of the file itself.
struct Entries(Vec<(String, Entry)>);

impl Entries {
    fn read(header: &[u8]) -> Option<Entries> {
        let mut json = serde_json::Deserializer::from_slice(header);
        let entries = json.deserialize_map(EntriesVisitor).ok()?;
        // Blanks may follow, so that tensors are aligned.
        json.end().ok().map(|()| entries)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(Entries(entries))
    }
}
