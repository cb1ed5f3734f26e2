use proptest::prelude::*;

use super::*;

fn safetensors(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn gguf() -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(2u64.to_le_bytes());
    bytes.extend(3u64.to_le_bytes());
    bytes.extend([string("general.name"), 8u32.to_le_bytes().to_vec(), string("small")].concat());
    bytes.extend(
        [string("general.alignment"), 4u32.to_le_bytes().to_vec(), 64u32.to_le_bytes().to_vec()].concat(),
    );
    let words =
        [9u32.to_le_bytes().to_vec(), 8u32.to_le_bytes().to_vec(), 2u64.to_le_bytes().to_vec()].concat();
    bytes.extend([string("tokens"), words, string("a"), string("b")].concat());
    for (name, dimensions, kind, offset) in [("w", &[64u64, 3][..], 8u32, 0u64), ("b", &[5][..], 0, 256)] {
        bytes.extend(string(name));
        bytes.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|dimension| bytes.extend(dimension.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
    }
    let data = bytes.len().next_multiple_of(64);
    bytes.resize(data + 256 + 20, 0);
    bytes
}

fn npy() -> Vec<u8> {
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }         \n";
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 48, 0);
    bytes
}

const JSON: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},
    "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"none":{"dtype":"F32","shape":[0],"data_offsets":[20,20]}}   "#;

fn tensors(bytes: &[u8]) -> Vec<(String, Element, u64, u64)> {
    match detect(bytes, bytes.len() as u64) {
        Detected::Tensors(file) => {
            file.tensors.into_iter().map(|t| (t.name, t.element, t.offset, t.len)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn tensors_are_where_headers_say() {
    let bytes = safetensors(JSON, 20);
    let data = bytes.len() as u64 - 20;
    let expected = [("a", Element::Single, data, 8), ("b", Element::Bfloat, data + 8, 12)];
    assert_eq!(tensors(&bytes), expected.map(|(n, e, o, l)| (n.to_string(), e, o, l)));

    let bytes = gguf();
    let data = bytes.len() as u64 - 276;
    let expected = [("w", Element::Q8_0, data, 6 * 34), ("b", Element::Single, data + 256, 20)];
    assert_eq!(tensors(&bytes), expected.map(|(n, e, o, l)| (n.to_string(), e, o, l)));

    let bytes = npy();
    assert_eq!(tensors(&bytes), [(String::new(), Element::Single, bytes.len() as u64 - 48, 48)]);
}

#[test]
fn a_header_that_is_not_all_there_says_how_far_it_may_go() {
    for bytes in [safetensors(JSON, 20), gguf(), npy()] {
        // As a reader does: more, until it is enough.
        let mut have = 1;
        loop {
            match detect(&bytes[..have], bytes.len() as u64) {
                Detected::Wants(more) => {
                    assert!(more > have as u64 && more <= bytes.len() as u64);
                    have = more as usize;
                }
                Detected::Tensors(_) => break,
                Detected::Nothing => panic!("{have} of {} bytes", bytes.len()),
            }
        }
    }
}

#[test]
fn what_cannot_be_is_an_ordinary_file() {
    let nothing = |json: &str, data| {
        let bytes = safetensors(json, data);
        assert_eq!(detect(&bytes, bytes.len() as u64), Detected::Nothing, "{json}");
    };
    // Longer than the file, of another length than its shape says, one in the other, a type that there is not, no object.
    nothing(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 7);
    nothing(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 20);
    nothing(
        r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[7,15]}}"#,
        20,
    );
    nothing(r#"{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}"#, 20);
    nothing(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#, 20);
    nothing(r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[18446744073709551615,7]}}"#, 20);
    nothing(r#"["a", "b", "c", "d"]    "#, 20);
    nothing("{}                         ", 20);
    for bytes in [&b""[..], b"a", b"GGUF", b"\x93NUMPX\x01\0", &[0xff; 100]] {
        assert_eq!(detect(bytes, bytes.len() as u64), Detected::Nothing);
    }
}

proptest! {
    #[test]
    fn any_header_is_something_or_nothing(
        which in 0usize..3,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        len in any::<u64>(),
        any: Vec<u8>,
    ) {
        let mut bytes = [safetensors(JSON, 20), gguf(), npy()][which].clone();
        edits.iter().for_each(|(at, to)| *at.get_mut(&mut bytes) = *to);
        for (bytes, len) in [(&bytes, bytes.len() as u64), (&bytes, len), (&any, any.len() as u64)] {
            match detect(bytes, len) {
                Detected::Nothing => {}
                Detected::Wants(more) => prop_assert!(more > bytes.len() as u64 && more <= len.min(LONGEST_HEADER)),
                Detected::Tensors(file) => {
                    let mut end = 0;
                    for tensor in file.tensors {
                        prop_assert!(tensor.len > 0 && tensor.offset >= end);
                        end = tensor.offset + tensor.len;
                        prop_assert!(end <= len);
                    }
                }
            }
        }
    }
}
