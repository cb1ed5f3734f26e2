//! PyTorch's files (torch.save since 1.6): a zip archive of `NAME/data.pkl`, a pickle that says what is in the others, and `NAME/data/0`,
//! and so on, numbers as they are. How long those are is told behind them, and by the pickle.

use super::pickle::{self, Pickle};
use super::view::View;
use super::zip::Entry;
use super::{LONGEST_HEADER, Stop, Tensor, TensorFile};

/// The most entries that are gone through.
const ENTRIES: usize = 1 << 17;

pub(super) fn parse(view: &mut View<'_>) -> Option<TensorFile> {
    let first = Entry::at(view, 0)?;
    let folder = first.name.strip_suffix(b"data.pkl").or_else(|| first.name.strip_suffix(b"version"))?;
    let folder = folder.to_vec();
    folder.ends_with(b"/").then_some(())?;
    let mut found: Option<(Pickle, Vec<u8>)> = None;
    let mut tensors = Vec::new();
    let mut next = 0;
    for _ in 0..ENTRIES {
        let Some(entry) = Entry::at(view, next) else { break };
        let name = entry.name.strip_prefix(&folder[..]);
        let end = match (name, &mut found) {
            (Some(b"data.pkl"), None) if entry.stored => {
                let (pickle, bytes) = read_pickle(view, entry.data)?;
                let end = entry.data + pickle.len as u64;
                found = Some((pickle, bytes));
                Some(end)
            }
            (Some(name), Some((pickle, bytes))) if entry.stored && name.starts_with(b"data/") => {
                let storage = pickle.storages.remove(&name[b"data/".len()..]);
                let told = entry.len.is_none_or(|told| storage.as_ref().is_none_or(|s| s.len == told));
                let len = entry.len.or(storage.as_ref().map(|s| s.len)).filter(|_| told);
                tensors.extend(storage.filter(|_| told).map(|storage| {
                    let name = storage.name.and_then(|name| bytes.get(name)).unwrap_or(name);
                    Tensor {
                        name: String::from_utf8_lossy(name).into(),
                        dtype: storage.dtype.into(),
                        element: storage.element,
                        shape: storage.shape,
                        offset: entry.data,
                        len: storage.len,
                    }
                }));
                len.and_then(|len| entry.data.checked_add(len))
            }
            _ => {
                let len = entry.len.or_else(|| entry.told_behind(view));
                len.and_then(|len| entry.data.checked_add(len))
            }
        };
        let Some(end) = end else { break };
        next = Entry::behind(view, end);
    }
    (!tensors.is_empty()).then_some(TensorFile { format: "PyTorch", tensors })
}

/// The pickle that begins there, and its bytes.
fn read_pickle(view: &mut View<'_>, at: u64) -> Option<(Pickle, Vec<u8>)> {
    let mut want = 4096;
    loop {
        let bytes = view.some(at, want);
        match pickle::read(bytes) {
            Ok(pickle) => return Some((pickle, bytes.to_vec())),
            Err(Stop::Wants(more)) if bytes.len() == want && more <= LONGEST_HEADER => {
                // Twice as much, so that a long one is not gone through again for each of its parts.
                want = (2 * want).max(more as usize).min(LONGEST_HEADER as usize);
            }
            Err(_) => return None,
        }
    }
}
