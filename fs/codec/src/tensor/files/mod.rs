//! Files that hold tensors, known by their headers.
//!
//! Architecture Invariant: a header is anything. Nothing is allocated that its own bytes do not pay for, and what is malformed makes an
//! ordinary file, never an error.

mod gguf;
mod npy;
mod npz;
mod onnx;
mod pickle;
mod pytorch;
mod safetensors;
#[cfg(test)]
mod tests;
mod view;
mod zip;

use cairn_format::Element;

use view::View;

/// The longest header that is looked at.
pub const LONGEST_HEADER: u64 = 8 << 20;
/// What is looked at first.
const FIRST: u64 = 4096;
/// The most tensors of a file whose headers lie all over it.
const MOST_TENSORS: usize = 1 << 16;

/// A tensor in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    /// Its name; empty where the format gives none.
    pub name: String,
    /// What the format calls the type of its elements.
    pub dtype: String,
    /// As what they are coded.
    pub element: Element,
    /// Its dimensions, in the order in which the format has them.
    pub shape: Vec<u64>,
    /// Where in the file it begins.
    pub offset: u64,
    /// Bytes it takes.
    pub len: u64,
}

/// The tensors of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorFile {
    /// What the format is called.
    pub format: &'static str,
    /// In the order of their offsets; none reaches into the next. The last ones may lie behind the file's end: it may not be all there yet.
    pub tensors: Vec<Tensor>,
}

/// What a file's first bytes say of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Detected {
    /// It has no header of the known formats, or not a right one.
    Nothing,
    /// Its header may go on up to here: more than was given, and no more than [`LONGEST_HEADER`] or the file has. Twice as much where it
    /// can be, so that a header of many small parts is not gone through again for each.
    Wants(u64),
    /// It holds these.
    Tensors(TensorFile),
}

/// Looks for tensors in a file of `file_len` bytes. `read` gives so many of them from there on: fewer where no more are there, none where
/// they cannot be had. It is asked for some MiB at most, all in all.
///
/// A file that is not all there yet has the tensors of which that tells which are there, so that they are cut like in the whole one.
pub fn find(file_len: u64, read: &mut dyn FnMut(u64, u64) -> Option<Vec<u8>>) -> Option<TensorFile> {
    let mut want = FIRST.min(file_len);
    let start = loop {
        let start = read(0, want)?;
        match detect(&start, file_len) {
            Detected::Tensors(file) => return Some(file),
            Detected::Wants(more) if start.len() as u64 >= want => want = more,
            Detected::Wants(_) => return None,
            Detected::Nothing => break start,
        }
    };
    let parse = match start.first()? {
        b'P' => |view: &mut View<'_>| npz::parse(view).or_else(|| pytorch::parse(view)),
        8 => onnx::parse,
        _ => return None,
    };
    checked(parse(&mut View::new(start, read))?)
}

/// Looks at the first bytes of a file of `file_len` bytes: for those formats that have all their headers there.
pub fn detect(start: &[u8], file_len: u64) -> Detected {
    let start = &start[..start.len().min(usize::try_from(file_len).unwrap_or(usize::MAX))];
    let parsers: [Parser; 3] =
        [safetensors::parse, |start, _| gguf::parse(start), |start, _| npy::parse(start)];
    let most = file_len.min(LONGEST_HEADER);
    let mut wants = None;
    for parse in parsers {
        match parse(start, file_len) {
            Ok(Some(file)) => return checked(file).map_or(Detected::Nothing, Detected::Tensors),
            Err(Stop::Wants(len)) if len > start.len() as u64 && len <= most => {
                wants = Some(wants.map_or(len, |other: u64| other.min(len)));
            }
            Ok(None) | Err(_) => {}
        }
    }
    wants.map_or(Detected::Nothing, |len| Detected::Wants(len.max(2 * start.len() as u64).min(most)))
}

/// Looks at a file's first bytes; none where it is of another format.
type Parser = fn(&[u8], u64) -> Result<Option<TensorFile>, Stop>;

/// Why a parser went no further.
enum Stop {
    /// The header goes on up to here at least.
    Wants(u64),
    /// It cannot be.
    Malformed,
}

/// The file, if its tensors lie one behind the other.
fn checked(mut file: TensorFile) -> Option<TensorFile> {
    file.tensors.retain(|tensor| tensor.len > 0);
    file.tensors.sort_by_key(|tensor| tensor.offset);
    let mut end = 0;
    for tensor in &file.tensors {
        if tensor.offset < end {
            return None;
        }
        end = tensor.offset.checked_add(tensor.len)?;
    }
    (!file.tensors.is_empty()).then_some(file)
}

/// The bytes of so many elements in this shape; none where that is more than a file can have.
fn bytes_of(shape: &[u64], element: u64) -> Option<u64> {
    shape.iter().try_fold(element, |bytes, dimension| bytes.checked_mul(*dimension)).filter(|b| *b < 1 << 62)
}
