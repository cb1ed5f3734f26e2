//! Where a file's chunks end that holds tensors: at these, and within them at fixed distances from their beginnings, so that one that comes again
//! in another file, or behind a header that changed, has the same chunks. And where they end in any file that repeats a pattern.

use cairn_codec::Chunker;
use cairn_codec::tensor::files::{Tensor, TensorFile, find};
use cairn_codec::tensor::pattern;
use cairn_format::{Compression, Element, PieceKind};

use super::bases::mix;
use super::{File, Taken, read_run};
use crate::core::Core;
use crate::namespace::NamespaceError;

/// Plain bytes of a chunk of a tensor, at most, and of one that repeats a pattern.
pub(crate) const RUN: u64 = Element::LONGEST_RUN as u64;
/// A tensor that is shorter is not worth a chunk and a frame of its own.
const LEAST: u64 = 32 << 10;
/// A file that is shorter has none.
const SMALLEST_FILE: u64 = 64 << 10;

/// How a file is cut.
pub(crate) struct Cuts {
    chunker: Chunker,
    /// By where they begin.
    tensors: Vec<Span>,
    /// Whether what repeats a pattern is cut by that.
    patterns: bool,
}

/// A tensor that is cut by itself.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
    element: Element,
    /// What its name, shape and type are known by; floats of 16 and of 32 bits are of one type.
    name: u64,
}

/// How the file is cut that a batch is at. Its headers are looked at once, however many runs of it there are: that costs milliseconds where
/// somebody made it so.
#[derive(Default)]
pub(super) struct FileCuts(Option<(File, Cuts)>);

impl FileCuts {
    /// Of the file that a run belongs to, by its headers as they are now, or were when the batch met the file.
    pub(super) fn of(&mut self, core: &Core, run: &Taken, size: u64) -> Result<&Cuts, NamespaceError> {
        let (_, cuts) = match self.0.take() {
            Some(known) if known.0 == run.file => self.0.insert(known),
            _ => self.0.insert((run.file, Cuts::of(core, run, size)?)),
        };
        Ok(cuts)
    }
}

impl Cuts {
    fn of(core: &Core, run: &Taken, size: u64) -> Result<Cuts, NamespaceError> {
        let chunker = Chunker::new(core.geometry.chunks);
        if !core.writing.tensors || size < SMALLEST_FILE {
            return Ok(Cuts { chunker, tensors: Vec::new(), patterns: false });
        }
        let cuts = Cuts::detect(chunker, size, &mut |at, len| {
            read_part(core, run.file, at, len.min(size.saturating_sub(at)))
        })?;
        // As it is, it takes what its chunk takes.
        Ok(Cuts { patterns: core.writing.compression != Compression::None, ..cuts })
    }

    /// Of a file of `size` bytes. `read` gives so many of them from there on: fewer where no more are there, none where they cannot be had.
    pub(crate) fn detect<E>(
        chunker: Chunker,
        size: u64,
        read: &mut dyn FnMut(u64, u64) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Cuts, E> {
        let mut failed = None;
        let found = find(size, &mut |at, len| match read(at, len) {
            Ok(bytes) => bytes,
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        match failed {
            Some(error) => Err(error),
            None => {
                Ok(Cuts { chunker, tensors: found.as_ref().map(spans).unwrap_or_default(), patterns: true })
            }
        }
    }

    /// No chunk is longer than this, but where a pattern goes on: then [`cut`](Self::cut) takes all that is there.
    pub(crate) fn longest(&self) -> usize {
        match self.tensors.is_empty() {
            true => self.chunker.max(),
            false => self.chunker.max().max(RUN as usize),
        }
    }

    /// No chunk is longer than this.
    pub(crate) fn reach(&self) -> usize {
        self.longest().max(RUN as usize)
    }

    /// What the chunk that begins at `at` is known by, if it is part of a tensor: its name, shape and type, and where in it that is.
    pub(super) fn known_by(&self, at: u64) -> Option<u64> {
        let next = self.tensors.partition_point(|span| span.end <= at);
        let span = self.tensors.get(next).filter(|span| span.start <= at)?;
        Some(mix(span.name, (at - span.start) / span.element.width() as u64) | 1)
    }

    /// The length of the chunk that begins at `at`, and what its numbers are, if it is part of a tensor or repeats a pattern. `run` is what
    /// lies there: all up to the end of the file or a hole, or more than [`longest`](Self::longest), and more where all of that is one chunk.
    pub(crate) fn cut(&self, at: u64, run: &[u8]) -> (usize, Option<Element>) {
        let next = self.tensors.partition_point(|span| span.end <= at);
        match self.tensors.get(next) {
            Some(span) if span.start <= at => {
                let (width, step) = (span.element.width() as u64, span.element.run_len() as u64);
                let end = (span.start + ((at - span.start) / step + 1) * step).min(span.end);
                let element = (at - span.start).is_multiple_of(width).then_some(span.element);
                (run.len().min((end - at) as usize), element)
            }
            Some(span) => {
                let before = run.len().min(usize::try_from(span.start - at).unwrap_or(usize::MAX));
                self.cut_other(at, &run[..before])
            }
            None => self.cut_other(at, run),
        }
    }

    /// What is no tensor: by its content. A chunk of many that repeat a pattern has no end in that, wherever it began, and each would have
    /// another phase: they end at multiples of the pattern's length from the file's beginning instead, as far apart as those of tensors.
    fn cut_other(&self, at: u64, run: &[u8]) -> (usize, Option<Element>) {
        let (len, longest) = (self.chunker.cut(run), self.chunker.max());
        if !self.patterns || len < longest || longest as u64 >= RUN {
            return (len, None);
        }
        let Some((goes_on, period)) = pattern(run, longest) else { return (len, None) };
        let step = RUN / period as u64 * period as u64;
        let len = goes_on.min((step - at % step) as usize);
        (len, (len as u64 >= LEAST).then_some(Element::Byte))
    }
}

/// The tensors of a file, as its headers say now.
pub(crate) fn tensors_of(core: &Core, file: File, size: u64) -> Result<Vec<Tensor>, NamespaceError> {
    if size < SMALLEST_FILE {
        return Ok(Vec::new());
    }
    let mut failed = None;
    let found = find(size, &mut |at, len| {
        let read = read_part(core, file, at, len.min(size.saturating_sub(at)));
        read.unwrap_or_else(|error| {
            failed = Some(error);
            None
        })
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(found.map_or_else(Vec::new, |file| file.tensors)),
    }
}

fn spans(file: &TensorFile) -> Vec<Span> {
    let span = |tensor: &Tensor| Span {
        start: tensor.offset,
        end: tensor.offset + tensor.len,
        element: tensor.element,
        name: {
            let is_cast = tensor.element == Element::Single || tensor.element.casts_from(Element::Single);
            let kind = if is_cast { "float" } else { &tensor.dtype };
            let said = format!("{}\0{kind}\0{:?}", tensor.name, tensor.shape);
            cairn_codec::chunk_id(&[0; 32], said.as_bytes()).fingerprint()
        },
    };
    file.tensors.iter().filter(|tensor| tensor.len >= LEAST).map(span).collect()
}

/// Bytes of a file, as far as they are there, and can be read now.
fn read_part(core: &Core, (view, ino): File, at: u64, len: u64) -> Result<Option<Vec<u8>>, NamespaceError> {
    let runs = {
        let _lock = core.locks.read(ino);
        core.look(|ns| ns.runs(view, ino, at, len))?
    };
    let mut part = Vec::with_capacity(len as usize);
    for next in runs {
        if next.1.kind == PieceKind::Hole {
            break;
        }
        match read_run(core, &next) {
            Ok(Some(bytes)) => part.extend(bytes),
            // Whoever folds or reads it says what is wrong.
            Ok(None) | Err(_) => break,
        }
    }
    Ok(Some(part))
}
