use proptest::prelude::*;

use super::*;
use containers::{Told, npz, onnx, pytorch};

// Tests of whole volumes make such files, too.
#[path = "../../../../../tests/src/containers.rs"]
#[expect(unreachable_pub, dead_code, reason = "it is public there, and some of it is used there only")]
mod containers;

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

/// What is found in a file of which these bytes are there.
fn found(bytes: &[u8]) -> Option<TensorFile> {
    find(bytes.len() as u64, &mut |at, len| {
        let from = (at as usize).min(bytes.len());
        Some(bytes[from..bytes.len().min(from + len as usize)].to_vec())
    })
}

fn tensors(bytes: &[u8]) -> Vec<(String, Element, u64, u64)> {
    let file = found(bytes).unwrap_or_else(|| panic!("nothing in {} bytes", bytes.len()));
    file.tensors.into_iter().map(|t| (t.name, t.element, t.offset, t.len)).collect()
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
    // Of another length than its shape says, one in the other, a type that there is not, no object.
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
    for bytes in [&b""[..], b"a", b"GGUF", b"\x93NUMPX\x01\0", &[0xff; 100], b"PK\x03\x04", b"\x08\x08"] {
        assert_eq!(found(bytes), None);
    }
    // A zip archive of other things, and of an array that is not stored as it is.
    let mut archive = Vec::new();
    containers::zip_entry(&mut archive, "META-INF/MANIFEST.MF", &[1; 100], Told::Before, 1);
    containers::zip_entry(
        &mut archive,
        "a.npy",
        &containers::npy(("a", "<f4", &[9], &[0; 36])),
        Told::Before,
        1,
    );
    assert_eq!(found(&archive), None);
    let mut archive = npz(&[("a", "<f4", &[9], &[0; 36])], Told::Before);
    archive[8] = 8;
    assert_eq!(found(&archive), None);
}

/// Bytes that hold what headers begin with, so that whoever looks for one in them is misled.
fn misleading(len: usize) -> Vec<u8> {
    b"PK\x03\x04PK\x07\x08\x08\x07PK\x01\x02".iter().copied().cycle().take(len).collect()
}

fn find_all_in_containers(told: Told) {
    let [a, b, c] = [40_000, 12, 70_002].map(misleading);
    let expected = |file: &[u8], tensors: &[(&str, Element, &[u8])]| {
        let found = tensors_with_bytes(file);
        let expected: Vec<_> = tensors.iter().map(|(n, e, b)| (n.to_string(), *e, b.to_vec())).collect();
        assert!(
            found == expected,
            "{told:?}: {:?}",
            found.iter().map(|t| (&t.0, t.1, t.2.len())).collect::<Vec<_>>()
        );
    };
    let arrays =
        [("a", "<f4", &[100, 100][..], &a[..]), ("b.c", "<f2", &[6], &b), ("d", "<c8", &[], &c[..8])];
    expected(
        &npz(&arrays, told),
        &[("a", Element::Single, &a), ("b.c", Element::Half, &b), ("d", Element::Single, &c[..8])],
    );
    let storages = [
        ("layer.weight", "FloatStorage", &[100, 100][..], &a[..]),
        ("layer.bias", "HalfStorage", &[6], &b),
        ("x", "BFloat16Storage", &[35_001], &c),
    ];
    expected(
        &pytorch(&storages, told),
        &[
            ("layer.weight", Element::Single, &a),
            ("layer.bias", Element::Half, &b),
            ("x", Element::Bfloat, &c),
        ],
    );
}

fn tensors_with_bytes(file: &[u8]) -> Vec<(String, Element, Vec<u8>)> {
    let bytes = |at: u64, len: u64| file[at as usize..][..len as usize].to_vec();
    tensors(file).into_iter().map(|(name, element, at, len)| (name, element, bytes(at, len))).collect()
}

#[test]
fn tensors_are_found_in_archives_however_those_say_how_long_things_are() {
    // One that says it nowhere is not read to its end: only its arrays know.
    [Told::Before, Told::BeforeInEight, Told::Behind, Told::BehindInEight]
        .into_iter()
        .for_each(find_all_in_containers);
    let a = misleading(40_000);
    let file = npz(&[("a", "<f4", &[100, 100], &a)], Told::NotYet);
    assert_eq!(tensors_with_bytes(&file), [("a".into(), Element::Single, a)]);
}

#[test]
fn tensors_are_found_in_a_model_of_onnx() {
    let [a, b] = [40_000, 24].map(misleading);
    let file =
        onnx(&[("w", "1", &[100, 100], &a), ("b", "10", &[3, 4], &b), ("in another file", "1", &[5], &[])]);
    assert_eq!(tensors_with_bytes(&file), [("w".into(), Element::Single, a), ("b".into(), Element::Half, b)]);
    // Of another length than its shape says.
    let file = onnx(&[("w", "1", &[100, 101], &misleading(40_000))]);
    assert_eq!(found(&file), None);
}

#[test]
fn shapes_and_types_are_those_of_the_pickle() {
    let bytes = misleading(4 * 3 * 70_000);
    let storages =
        [("w", "FloatStorage", &[3, 70_000][..], &bytes[..]), ("n", "IntStorage", &[], &bytes[..4])];
    let file = found(&pytorch(&storages, Told::Behind)).expect("a file of tensors");
    let told: Vec<_> = file.tensors.iter().map(|t| (&t.name[..], &t.dtype[..], &t.shape[..])).collect();
    assert_eq!(told, [("w", "FloatStorage", &[3, 70_000][..]), ("n", "IntStorage", &[])]);
    assert_eq!(file.format, "PyTorch");
}

#[test]
fn a_pickle_that_would_run_something_is_read_as_data() {
    // os.system("touch ..."): its result is nothing, and what follows is read.
    let tensors = [("w", "FloatStorage", &[2][..], &[0; 8][..])];
    let evil = b"\x80\x02cposix\nsystem\nX\x05\0\0\0touch\x85R0";
    let pickled = [&evil[..], &containers::pickle(&tensors)[2..]].concat();
    let mut file = Vec::new();
    containers::zip_entry(&mut file, "model/data.pkl", &pickled, Told::Behind, 64);
    containers::zip_entry(&mut file, "model/data/0", &[0; 8], Told::Behind, 64);
    assert_eq!(tensors_with_bytes(&file), [("w".to_string(), Element::Single, vec![0; 8])]);
    // A pickle in a pickle, without its end, is none.
    let mut file = Vec::new();
    containers::zip_entry(&mut file, "model/data.pkl", &evil[..], Told::Before, 64);
    containers::zip_entry(&mut file, "model/data/0", &[0; 8], Told::Before, 64);
    assert_eq!(found(&file), None);
}

/// One of each format.
fn files() -> [Vec<u8>; 6] {
    let [a, b] = [9_000, 24].map(misleading);
    let arrays = [("a", "<f4", &[9, 250][..], &a[..]), ("b", "<f8", &[3], &b)];
    let storages = [("a", "FloatStorage", &[9, 250][..], &a[..]), ("b", "DoubleStorage", &[3], &b)];
    let initializers = [("a", "1", &[9, 250][..], &a[..]), ("b", "11", &[3], &b)];
    [
        safetensors(JSON, 20),
        gguf(),
        npy(),
        npz(&arrays, Told::BeforeInEight),
        pytorch(&storages, Told::Behind),
        onnx(&initializers),
    ]
}

#[test]
fn a_file_that_is_still_being_written_has_what_the_whole_one_has() {
    for whole in files() {
        let all = tensors(&whole);
        let mut most = 0;
        for there in 1..whole.len() {
            let some = found(&whole[..there]).map(|_| tensors(&whole[..there])).unwrap_or_default();
            assert_eq!(some[..], all[..some.len()], "{there} of {} bytes", whole.len());
            assert!(some.len() >= most, "fewer in {there} of {} bytes", whole.len());
            most = some.len();
        }
        // The last one is known before it is there.
        assert_eq!(most, all.len());
    }
}

#[test]
fn looking_for_tensors_reads_little() {
    let mut hostile = files().to_vec();
    // Archives of nothing but headers, a pickle without end, a graph of empty nodes.
    let mut headers = Vec::new();
    (0..70_000).for_each(|n| containers::zip_entry(&mut headers, &format!("{n}.npy"), b"", Told::Before, 1));
    hostile.push(headers);
    let mut pickle = Vec::new();
    containers::zip_entry(&mut pickle, "a/data.pkl", &vec![b'N'; 20 << 20], Told::Behind, 1);
    hostile.push(pickle);
    hostile.push([&[8, 8, 0x3a, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &[10, 0].repeat(10 << 20)].concat());
    for file in hostile {
        let (mut bytes, mut reads) = (0, 0);
        let _ = find(file.len() as u64, &mut |at, len| {
            (bytes, reads) = (bytes + len, reads + 1);
            let from = (at as usize).min(file.len());
            Some(file[from..file.len().min(from + len as usize)].to_vec())
        });
        assert!(bytes <= 40 << 20 && reads <= 20_000, "{bytes} bytes in {reads} reads");
    }
}

proptest! {
    #[test]
    fn any_header_is_something_or_nothing(
        which in 0usize..6,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        len in any::<u64>(),
        any: Vec<u8>,
    ) {
        let mut bytes = files()[which].clone();
        edits.iter().for_each(|(at, to)| *at.get_mut(&mut bytes) = *to);
        for (bytes, len) in [(&bytes, bytes.len() as u64), (&bytes, len), (&any, any.len() as u64)] {
            match detect(bytes, len) {
                Detected::Nothing => {}
                Detected::Wants(more) => prop_assert!(more > bytes.len() as u64 && more <= len.min(LONGEST_HEADER)),
                Detected::Tensors(file) => prop_assert!(in_order(&file)),
            }
            prop_assert!(found(bytes).is_none_or(|file| in_order(&file)));
        }
    }
}

fn in_order(file: &TensorFile) -> bool {
    let mut end = 0;
    file.tensors.iter().all(|tensor| {
        let behind = tensor.len > 0 && tensor.offset >= end;
        end = tensor.offset + tensor.len;
        behind
    })
}
