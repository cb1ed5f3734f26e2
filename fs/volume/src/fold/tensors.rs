//! Where a file's chunks end that holds tensors: at these, and within them at fixed distances from their beginnings, so that one that comes again
//! in another file, or behind a header that changed, has the same chunks.

use cairn_codec::Chunker;
use cairn_codec::tensor::files::{Detected, Tensor, TensorFile, detect};
use cairn_format::{Element, PieceKind};

use super::{Taken, read_run};
use crate::core::Core;
use crate::namespace::NamespaceError;

/// Plain bytes of a chunk of a tensor, as far as whole elements go into them.
pub(crate) const RUN: u64 = 1 << 20;
/// A tensor that is shorter is not worth a chunk and a frame of its own.
const LEAST: u64 = 32 << 10;
/// A file that is shorter has none.
const SMALLEST_FILE: u64 = 64 << 10;
/// What is looked at first.
const FIRST: u64 = 4096;

/// How a file is cut.
pub(crate) struct Cuts {
    chunker: Chunker,
    /// By where they begin.
    tensors: Vec<Span>,
}

/// A tensor that is cut by itself.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
    element: Element,
}

impl Cuts {
    /// Of the file that a run belongs to, by its first bytes as they are now.
    pub(super) fn of(core: &Core, run: &Taken, size: u64) -> Result<Cuts, NamespaceError> {
        let chunker = Chunker::new(core.geometry.chunks);
        if !core.writing.tensors || size < SMALLEST_FILE {
            return Ok(Cuts { chunker, tensors: Vec::new() });
        }
        Cuts::detect(chunker, size, &mut |len| read_start(core, run, len))
    }

    /// Of a file of `size` bytes, the first of which `read` gives: so many, or none.
    pub(crate) fn detect<E>(
        chunker: Chunker,
        size: u64,
        read: &mut dyn FnMut(u64) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Cuts, E> {
        let mut want = FIRST.min(size);
        let tensors = loop {
            let Some(start) = read(want)? else { break Vec::new() };
            match detect(&start, size) {
                Detected::Nothing => break Vec::new(),
                Detected::Wants(more) => want = more,
                Detected::Tensors(file) => break spans(&file),
            }
        };
        Ok(Cuts { chunker, tensors })
    }

    /// No chunk is longer than this.
    pub(crate) fn longest(&self) -> usize {
        match self.tensors.is_empty() {
            true => self.chunker.max(),
            false => self.chunker.max().max(RUN as usize),
        }
    }

    /// The length of the chunk that begins at `at`, and what its numbers are, if it is part of a tensor. `run` is what lies there: all
    /// up to the end of the file or a hole, or more than [`longest`](Self::longest).
    pub(crate) fn cut(&self, at: u64, run: &[u8]) -> (usize, Option<Element>) {
        let next = self.tensors.partition_point(|span| span.end <= at);
        match self.tensors.get(next) {
            Some(span) if span.start <= at => {
                let width = span.element.width() as u64;
                let step = RUN / width * width;
                let end = (span.start + ((at - span.start) / step + 1) * step).min(span.end);
                let element = (at - span.start).is_multiple_of(width).then_some(span.element);
                (run.len().min((end - at) as usize), element)
            }
            Some(span) => {
                let before = run.len().min(usize::try_from(span.start - at).unwrap_or(usize::MAX));
                (self.chunker.cut(&run[..before]), None)
            }
            None => (self.chunker.cut(run), None),
        }
    }
}

fn spans(file: &TensorFile) -> Vec<Span> {
    let span = |tensor: &Tensor| Span {
        start: tensor.offset,
        end: tensor.offset + tensor.len,
        element: tensor.element,
    };
    file.tensors.iter().filter(|tensor| tensor.len >= LEAST).map(span).collect()
}

/// The first bytes of a file; none where some are not there, or cannot be read now.
fn read_start(core: &Core, run: &Taken, len: u64) -> Result<Option<Vec<u8>>, NamespaceError> {
    let runs = {
        let _lock = core.locks.read(run.file.1);
        core.look(|ns| ns.runs(run.file.0, run.file.1, 0, len))?
    };
    let mut start = Vec::with_capacity(len as usize);
    for next in runs {
        if next.1.kind == PieceKind::Hole {
            return Ok(None);
        }
        match read_run(core, &next) {
            Ok(Some(bytes)) => start.extend(bytes),
            // Whoever folds or reads it says what is wrong.
            Ok(None) | Err(_) => return Ok(None),
        }
    }
    Ok((start.len() as u64 == len).then_some(start))
}
