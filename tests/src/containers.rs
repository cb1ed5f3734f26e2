//! Files that hold tensors among other things, as the programs that write them do: zip archives of arrays, PyTorch's, ONNX's.

/// A tensor: its name, what its format calls its type, its dimensions and its bytes.
pub type Tensor<'t> = (&'t str, &'t str, &'t [u64], &'t [u8]);

/// How an entry of a zip archive says how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// In its header.
    Before,
    /// There, in 8 bytes.
    BeforeInEight,
    /// Behind its bytes.
    Behind,
    /// There, in 8 bytes.
    BehindInEight,
    /// Nowhere yet: what writes it comes back to its header when it is done.
    NotYet,
}

impl Told {
    /// All there are.
    pub const ALL: [Told; 5] =
        [Told::Before, Told::BeforeInEight, Told::Behind, Told::BehindInEight, Told::NotYet];
}

/// Appends an entry whose bytes are stored as they are, and begin at a multiple of `align`.
pub fn zip_entry(to: &mut Vec<u8>, name: &str, bytes: &[u8], told: Told, align: usize) {
    let len = bytes.len() as u64;
    let (short, mut extra) = match told {
        Told::Before => (len as u32, Vec::new()),
        Told::BeforeInEight => (u32::MAX, zip64(len)),
        Told::NotYet => (u32::MAX, zip64(0)),
        Told::Behind | Told::BehindInEight => (0, Vec::new()),
    };
    if align > 1 {
        let start = to.len() + 30 + name.len() + extra.len() + 4;
        let padding = start.next_multiple_of(align) - start;
        extra.extend(b"FB");
        extra.extend((padding as u16).to_le_bytes());
        extra.extend(vec![b'Z'; padding]);
    }
    let behind = matches!(told, Told::Behind | Told::BehindInEight);
    to.extend(b"PK\x03\x04\x14\0");
    to.extend([if behind { 8 } else { 0 }, 0]);
    // Stored; no time, no checksum.
    to.extend([0; 10]);
    to.extend(short.to_le_bytes());
    to.extend(short.to_le_bytes());
    to.extend((name.len() as u16).to_le_bytes());
    to.extend((extra.len() as u16).to_le_bytes());
    to.extend(name.as_bytes());
    to.extend(extra);
    to.extend(bytes);
    match told {
        Told::Behind => {
            to.extend(b"PK\x07\x08\0\0\0\0");
            to.extend((len as u32).to_le_bytes());
            to.extend((len as u32).to_le_bytes());
        }
        Told::BehindInEight => {
            to.extend(b"PK\x07\x08\0\0\0\0");
            to.extend(len.to_le_bytes());
            to.extend(len.to_le_bytes());
        }
        _ => {}
    }
}

fn zip64(len: u64) -> Vec<u8> {
    [&[1u8, 0, 16, 0][..], &len.to_le_bytes(), &len.to_le_bytes()].concat()
}

/// What stands for the directory at an archive's end: nobody here looks at it.
fn zip_end(to: &mut Vec<u8>) {
    to.extend(b"PK\x01\x02");
    to.extend([0; 60]);
}

/// What numpy.save writes.
pub fn npy((_, dtype, shape, bytes): Tensor<'_>) -> Vec<u8> {
    let shape: String = shape.iter().map(|dimension| format!("{dimension},")).collect();
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut npy = b"\x93NUMPY\x01\0".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    npy.extend(bytes);
    npy
}

/// What numpy.savez writes.
pub fn npz(tensors: &[Tensor<'_>], told: Told) -> Vec<u8> {
    let mut file = Vec::new();
    for tensor in tensors {
        zip_entry(&mut file, &format!("{}.npy", tensor.0), &npy(*tensor), told, 1);
    }
    zip_end(&mut file);
    file
}

/// What torch.save writes of a dictionary of tensors; their types are its storages'.
pub fn pytorch(tensors: &[Tensor<'_>], told: Told) -> Vec<u8> {
    let mut file = Vec::new();
    zip_entry(&mut file, "model/data.pkl", &pickle(tensors), told, 64);
    zip_entry(&mut file, "model/byteorder", b"little", told, 64);
    for (key, (_, _, _, bytes)) in tensors.iter().enumerate() {
        zip_entry(&mut file, &format!("model/data/{key}"), bytes, told, 64);
    }
    zip_entry(&mut file, "model/version", b"3\n", told, 64);
    zip_end(&mut file);
    file
}

/// The pickle of such a dictionary.
pub fn pickle(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let mut p = Pickler { bytes: b"\x80\x02".to_vec(), kept: 0 };
    p.global("collections", "OrderedDict");
    p.bytes.extend(b")R");
    p.keep();
    p.bytes.push(b'(');
    for (key, (name, kind, shape, _)) in tensors.iter().enumerate() {
        p.text(name);
        p.global("torch._utils", "_rebuild_tensor_v2");
        p.bytes.extend(b"((");
        p.text("storage");
        p.global("torch", kind);
        p.text(&key.to_string());
        p.text("cpu");
        p.number(shape.iter().product());
        p.bytes.push(b't');
        p.keep();
        p.bytes.extend(b"QK\0");
        for dimensions in [shape, shape] {
            p.bytes.push(b'(');
            dimensions.iter().for_each(|dimension| p.number(*dimension));
            p.bytes.push(b't');
            p.keep();
        }
        p.bytes.push(0x89);
        p.global("collections", "OrderedDict");
        p.bytes.extend(b")Rt");
        p.keep();
        p.bytes.push(b'R');
        p.keep();
    }
    p.bytes.extend(b"u.");
    p.bytes
}

struct Pickler {
    bytes: Vec<u8>,
    kept: u32,
}

impl Pickler {
    fn keep(&mut self) {
        match u8::try_from(self.kept) {
            Ok(short) => self.bytes.extend([b'q', short]),
            Err(_) => self.bytes.extend([&b"r"[..], &self.kept.to_le_bytes()].concat()),
        }
        self.kept += 1;
    }

    fn text(&mut self, text: &str) {
        self.bytes.push(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
        self.keep();
    }

    fn global(&mut self, module: &str, name: &str) {
        self.bytes.extend(format!("c{module}\n{name}\n").as_bytes());
        self.keep();
    }

    fn number(&mut self, number: u64) {
        match number {
            0..=0xff => self.bytes.extend([b'K', number as u8]),
            0x100..=0xffff => self.bytes.extend([&b"M"[..], &(number as u16).to_le_bytes()].concat()),
            0x1_0000..=0x7fff_ffff => self.bytes.extend([&b"J"[..], &(number as u32).to_le_bytes()].concat()),
            _ => self.bytes.extend([&b"\x8a\x08"[..], &number.to_le_bytes()].concat()),
        }
    }
}

/// A model of ONNX's whose graph has some nodes, and these initializers; their types are its numbers for them.
pub fn onnx(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let mut graph = Vec::new();
    for node in 0..200 {
        let name = format!("node-{node}");
        field(&mut graph, 1, &[&[0x1a, name.len() as u8][..], name.as_bytes()].concat());
    }
    field(&mut graph, 2, b"main");
    for (name, kind, shape, bytes) in tensors {
        let mut tensor = Vec::new();
        for dimension in *shape {
            tensor.push(8);
            varint(&mut tensor, *dimension);
        }
        tensor.push(16);
        varint(&mut tensor, kind.parse().expect("a number"));
        field(&mut tensor, 8, name.as_bytes());
        field(&mut tensor, 9, bytes);
        field(&mut graph, 5, &tensor);
    }
    field(&mut graph, 11, b"\x0a\x05input");
    let mut model = vec![8, 8];
    field(&mut model, 2, b"a program");
    field(&mut model, 7, &graph);
    field(&mut model, 8, &[16, 17]);
    model
}

fn field(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    to.push(number << 3 | 2);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}
