//! NumPy's npz (numpy.savez): a zip archive of npy files. What numpy.savez_compressed wrote is deflated, and no tensor.

use super::view::View;
use super::zip::Entry;
use super::{MOST_TENSORS, Stop, Tensor, TensorFile, npy};

/// The longest header of an array that is looked at.
const LONGEST: usize = 64 << 10;

pub(super) fn parse(view: &mut View<'_>) -> Option<TensorFile> {
    let mut tensors = Vec::new();
    let mut at = 0;
    while let Some(entry) = Entry::at(view, at)
        && let Some(name) = entry.name.strip_suffix(b".npy")
        && tensors.len() < MOST_TENSORS
    {
        let array = if entry.stored { array(view, entry.data) } else { None };
        // What an array's own header says is known before the archive's is written.
        let end = array.as_ref().and_then(|array| array.offset.checked_add(array.len));
        let told = entry.len.and_then(|len| entry.data.checked_add(len));
        let Some(end) = told.or(end).filter(|told| end.is_none_or(|end| end == *told)) else { break };
        tensors.extend(array.map(|array| Tensor { name: String::from_utf8_lossy(name).into(), ..array }));
        at = Entry::behind(view, end);
    }
    (!tensors.is_empty()).then_some(TensorFile { format: "npz", tensors })
}

/// The array that begins there.
fn array(view: &mut View<'_>, at: u64) -> Option<Tensor> {
    let mut want = 256;
    loop {
        match npy::parse(view.some(at, want)) {
            Ok(file) => {
                let tensor = file?.tensors.pop()?;
                return Some(Tensor { offset: tensor.offset.checked_add(at)?, ..tensor });
            }
            Err(Stop::Wants(more)) if more as usize > want && more <= LONGEST as u64 => want = more as usize,
            Err(_) => return None,
        }
    }
}
