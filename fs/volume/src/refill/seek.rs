//! Looking for chunks in bytes that somebody else has: where a file of the same name should have them, and wherever cutting it
//! as the volume cuts files gives them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::ops::{ControlFlow, Range};

use cairn_codec::{Chunker, chunk_id};
use cairn_format::{ChunkId, ChunkSizes};
use cairn_store::PackReader;

use super::{Wanted, WantedFile};
use crate::fold::{Cuts, RUN};

/// Bytes that are read at a time.
const WINDOW: u64 = 1 << 20;
/// Behind bytes that cannot be read it goes on at the next multiple of this.
const SKIP: u64 = 64 << 10;
/// Directories of a path that are left out at most, to find it in a copy of what lies below one of them.
const DEPTH: usize = 64;

/// A file that chunks are looked for in.
pub trait SourceFile {
    /// Where the next bytes at `from` or behind it begin, and where a hole or the end of the file follows; none where there
    /// are no more.
    fn data(&mut self, from: u64) -> io::Result<Option<Range<u64>>>;
    /// Reads up to `out.len()` bytes; fewer only at the end of the file.
    fn read_at(&mut self, out: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Opens the file of a copy that has a path, which has no slash at its front; none where there is no such file.
pub type OpensCopies<'a, 'f> = &'a mut dyn FnMut(&[u8]) -> Option<Box<dyn SourceFile + 'f>>;

/// Who is told of what is found.
pub trait Finds {
    /// The bytes of a chunk that is looked for.
    fn found(&mut self, plain: &[u8]) -> ControlFlow<()>;
    /// So many bytes were looked at.
    fn looked(&mut self, bytes: u64) -> ControlFlow<()>;
}

/// Looks for chunks. Each is found once.
pub struct Seeker {
    key: [u8; 32],
    chunker: Chunker,
    /// What is not found yet, with its length.
    left: HashMap<ChunkId, u32>,
    files: Vec<WantedFile>,
}

impl Seeker {
    /// For what a run asks for.
    pub fn new(wanted: Wanted) -> Seeker {
        let Wanted { key, sizes, files } = wanted;
        let left = files.iter().flat_map(|file| &file.chunks).map(|chunk| (chunk.id, chunk.len)).collect();
        Seeker { key, chunker: Chunker::new(checked(sizes)), left, files }
    }

    /// How many chunks are not found yet.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// Looks into the files of a copy that `open` finds by a path without a slash at its front: each chunk where it should
    /// be. The copy may be one of a directory in the volume: paths are tried from each of theirs on.
    pub fn in_copy<'f>(&mut self, open: OpensCopies<'_, 'f>, to: &mut dyn Finds) -> ControlFlow<()> {
        let files = std::mem::take(&mut self.files);
        let mut looked = ControlFlow::Continue(());
        for file in &files {
            if looked.is_break() || self.left.is_empty() {
                break;
            }
            for path in file.paths.iter().flat_map(|path| tails(path)) {
                if !file.chunks.iter().any(|chunk| self.left.contains_key(&chunk.id)) {
                    break;
                }
                if let Some(mut copy) = open(path) {
                    looked = self.in_place(file, &mut *copy, to);
                }
                if looked.is_break() {
                    break;
                }
            }
        }
        self.files = files;
        looked
    }

    /// Looks into one file as if it were a copy of any of those that need something.
    pub fn in_any_place(&mut self, copy: &mut dyn SourceFile, to: &mut dyn Finds) -> ControlFlow<()> {
        let files = std::mem::take(&mut self.files);
        let looked = files.iter().try_for_each(|file| self.in_place(file, copy, to));
        self.files = files;
        looked
    }

    fn in_place(
        &mut self,
        file: &WantedFile,
        copy: &mut dyn SourceFile,
        to: &mut dyn Finds,
    ) -> ControlFlow<()> {
        let most = self.chunker.max().max(RUN as usize);
        for chunk in file.chunks.iter().filter(|chunk| chunk.len as usize <= most) {
            let (Some(at), true) = (chunk.at, self.left.contains_key(&chunk.id)) else { continue };
            let mut plain = vec![0; chunk.len as usize];
            // What cannot be read there may be somewhere else.
            if copy.read_at(&mut plain, at).is_ok_and(|read| read == plain.len()) {
                to.looked(chunk.len.into())?;
                self.hold(&plain, to)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Goes through a file, cut as the volume cuts. What cannot be read of it is left out.
    pub fn through(&mut self, file: &mut dyn SourceFile, to: &mut dyn Finds) -> ControlFlow<()> {
        let cuts = self.cuts(file);
        let mut at = 0;
        while !self.left.is_empty()
            && let Ok(Some(data)) = file.data(at)
            && data.end > at
        {
            at = self.segment(file, &cuts, data, to)?;
        }
        ControlFlow::Continue(())
    }

    /// How a file is cut: where it holds tensors, at these. How long it is does not matter.
    fn cuts(&self, file: &mut dyn SourceFile) -> Cuts {
        let detected = Cuts::detect(self.chunker, u64::MAX, &mut |at, len| {
            let mut part = vec![0; len as usize];
            let got = file.read_at(&mut part, at).unwrap_or(0);
            part.truncate(got);
            Ok::<_, Infallible>(Some(part))
        });
        match detected {
            Ok(cuts) => cuts,
        }
    }

    /// Cuts bytes between holes; where to go on.
    fn segment(
        &mut self,
        file: &mut dyn SourceFile,
        cuts: &Cuts,
        data: Range<u64>,
        to: &mut dyn Finds,
    ) -> ControlFlow<(), u64> {
        let (mut read, mut end, mut next) = (data.start, data.end, data.end);
        let mut ahead: Vec<u8> = Vec::new();
        let mut head = 0;
        let mut want = cuts.longest();
        loop {
            while ahead.len() - head <= want && read < end {
                ahead.drain(..head);
                head = 0;
                let start = ahead.len();
                ahead.resize(start + WINDOW.min(end - read) as usize, 0);
                let got = file.read_at(&mut ahead[start..], read);
                ahead.truncate(start + *got.as_ref().unwrap_or(&0));
                match got {
                    Ok(0) => end = read,
                    Ok(got) => read += got as u64,
                    Err(_) => {
                        end = read;
                        next = (read / SKIP + 1) * SKIP;
                    }
                }
                to.looked((ahead.len() - start) as u64)?;
            }
            if head == ahead.len() || self.left.is_empty() {
                return ControlFlow::Continue(next);
            }
            let at = read - (ahead.len() - head) as u64;
            let (len, _) = cuts.cut(at, &ahead[head..]);
            // A pattern that goes on: so may the chunk.
            if len == ahead.len() - head && read < end {
                want = len;
                continue;
            }
            want = cuts.longest();
            self.hold(&ahead[head..head + len], to)?;
            head += len;
        }
    }

    /// Goes through a file whose name is a pack's, as one; whether it is. What cannot be used of it is left out.
    pub fn in_pack_file(
        &mut self,
        name: &str,
        file: std::fs::File,
        to: &mut dyn Finds,
    ) -> ControlFlow<(), bool> {
        match super::pack_file::open(name, file) {
            Some(Ok(pack)) => {
                self.in_pack(&pack, to)?;
                ControlFlow::Continue(true)
            }
            Some(Err(_)) => ControlFlow::Continue(true),
            None => ControlFlow::Continue(false),
        }
    }

    /// Goes through a pack: one of this store, or a copy of one. What parity restores counts.
    pub fn in_pack(&mut self, pack: &PackReader, to: &mut dyn Finds) -> ControlFlow<()> {
        let footer = pack.footer().ok().or_else(|| pack.restored_footer(None));
        for entry in footer.iter().flat_map(|footer| &footer.frames) {
            if self.left.is_empty() {
                break;
            }
            let frame = pack.frame(entry).ok().or_else(|| pack.restored_frame(None, entry));
            to.looked(entry.len.into())?;
            let Some(frame) = frame else { continue };
            for slot in 0..frame.chunks.len() as u32 {
                if let Some((_, plain)) =
                    frame.chunk(slot).filter(|(chunk, _)| self.left.contains_key(&chunk.id))
                {
                    self.hold(plain, to)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Tells of bytes that are a chunk that is looked for.
    fn hold(&mut self, plain: &[u8], to: &mut dyn Finds) -> ControlFlow<()> {
        let id = chunk_id(&self.key, plain);
        if self.left.get(&id).is_none_or(|len| *len as usize != plain.len()) {
            return ControlFlow::Continue(());
        }
        self.left.remove(&id);
        to.found(plain)
    }
}

/// Sizes that a chunker can work with, whoever says them.
fn checked(sizes: ChunkSizes) -> ChunkSizes {
    let min = sizes.min.clamp(64, 1 << 20);
    let avg = sizes.avg.clamp(256, 4 << 20).max(min);
    ChunkSizes { min, avg, max: sizes.max.clamp(1024, 16 << 20).max(avg) }
}

/// A path from the root, without its slash, and from each of its directories on.
fn tails(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    starts.take(DEPTH).map(|at| &path[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_tried_from_each_directory_on() {
        let tried: Vec<_> = tails(b"/a/bc/d").collect();
        assert_eq!(tried, [&b"a/bc/d"[..], b"bc/d", b"d"]);
        assert_eq!(tails(b"").count(), 0);
    }
}
