//! One data set, cut at several sizes side by side: what is alike, what frames make of the rest, what a read touches.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use cairn_codec::{Chunker, Compressor, chunk_id, decode};
use cairn_format::key::Key;
use cairn_format::{
    ChunkId, ChunkPiece, ChunkSizes, Compression, EXTENT_RANGE, Encoder, FrameHead, Ino, PackId, Piece,
    PieceKind, View, encode_pieces, push_meta_record,
};

/// Bytes of a file that are read at a time, at the least.
const WINDOW: usize = 4 << 20;
/// Reads begin at multiples of this…
const BLOCK: u64 = 4096;
/// …one in so many of them (a prime, so that it meets no structure of the files).
const SAMPLED: u64 = 61;
/// The lengths of those reads.
pub(crate) const READS: [u64; 2] = [4 << 10, 64 << 10];
/// The frame size that extents name frames of.
const EXTENT_FRAME: u32 = 256 << 10;
/// Plain bytes of a metadata frame, and how it is compressed: as checkpoints do.
const META_FRAME: usize = 256 << 10;
const META_COMPRESSION: Compression = Compression::Zstd(3);
const PACK: u64 = 64 << 20;
/// Plain bytes of frames that a pass over everything keeps: far less than a data set, as a cache is.
const PASS_CACHE: u32 = 16 << 20;

/// What came of a data set.
#[derive(Clone, Default)]
pub(crate) struct SetFigures {
    pub(crate) files: u64,
    /// Bytes that are in no hole.
    pub(crate) logical: u64,
    /// Bytes of files that are, whole, like one before.
    pub(crate) whole_file_duplicates: u64,
    pub(crate) chunks: Vec<ChunkFigures>,
}

/// What came of one chunk size.
#[derive(Clone, Default)]
pub(crate) struct ChunkFigures {
    pub(crate) avg: u32,
    pub(crate) unique: u64,
    pub(crate) chunks: u64,
    pub(crate) distinct: u64,
    /// The sum of the squares of all chunks' lengths: over `logical`, the chunk that a random byte is in.
    pub(crate) squares: f64,
    pub(crate) cut: Duration,
    pub(crate) hash: Duration,
    /// Bytes of the extents' keys and values, and of metadata frames made of them.
    pub(crate) extents: u64,
    pub(crate) extents_stored: u64,
    pub(crate) frames: Vec<FrameFigures>,
}

/// What came of one chunk size in frames of one size.
#[derive(Clone, Default)]
pub(crate) struct FrameFigures {
    pub(crate) size: u32,
    pub(crate) frames: u64,
    /// Stored bytes, with the frames' heads.
    pub(crate) stored: u64,
    pub(crate) encode: Duration,
    pub(crate) decode: Duration,
    /// One for each of [`READS`].
    pub(crate) reads: [ReadFigures; 2],
    /// Plain bytes decoded in one pass over all files in their order.
    pub(crate) pass: u64,
}

/// What reads at random places came to.
#[derive(Clone, Copy, Default)]
pub(crate) struct ReadFigures {
    pub(crate) reads: u64,
    pub(crate) wanted: u64,
    /// Frames decoded, their stored bytes with heads, and their plain bytes.
    pub(crate) frames: u64,
    pub(crate) stored: u64,
    pub(crate) plain: u64,
}

/// A data set as far as it was read.
pub(crate) struct Tally {
    cutters: Vec<Cutter>,
    figures: SetFigures,
    /// Names of more than one link, which are read once.
    inodes: HashSet<(u64, u64)>,
    whole_files: HashSet<u64>,
    file: blake3::Hasher,
    file_len: u64,
    /// Blocks of all files before this one.
    blocks: u64,
    window: usize,
}

impl Tally {
    pub(crate) fn new(chunks: &[ChunkSizes], frames: &[u32], level: i8) -> Tally {
        let most = chunks.iter().map(|c| c.max as usize).max().unwrap_or(0);
        Tally {
            cutters: chunks.iter().map(|c| Cutter::new(*c, frames, level)).collect(),
            figures: SetFigures::default(),
            inodes: HashSet::new(),
            whole_files: HashSet::new(),
            file: blake3::Hasher::new(),
            file_len: 0,
            blocks: 0,
            window: WINDOW.max(2 * most),
        }
    }

    /// Whether this link is the first to its file.
    pub(crate) fn first_link(&mut self, dev: u64, ino: u64) -> bool {
        self.inodes.insert((dev, ino))
    }

    pub(crate) fn begin_file(&mut self) {
        self.figures.files += 1;
        self.file.reset();
        self.file_len = 0;
    }

    /// A run of the file's data; `read` fills a buffer from an offset in the file.
    pub(crate) fn run(
        &mut self,
        start: u64,
        end: u64,
        read: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.cutters.iter_mut().for_each(|c| c.at = start);
        let mut window = Window { start, bytes: Vec::new() };
        let mut at = start;
        while at < end {
            let kept = self.cutters.iter().map(|c| c.at).min().unwrap_or(at);
            window.bytes.drain(..(kept - window.start) as usize);
            window.start = kept;
            let had = window.bytes.len();
            let len = (end - at).min(self.window as u64) as usize;
            window.bytes.resize(had + len, 0);
            read(at, &mut window.bytes[had..])?;
            self.file.update(&window.bytes[had..]);
            at += len as u64;
            let place = FilePlace { file: self.figures.files, blocks: self.blocks, run_end: end };
            for cutter in &mut self.cutters {
                cutter.feed(&window, at == end, &place)?;
            }
        }
        self.file_len += end - start;
        Ok(())
    }

    pub(crate) fn end_file(&mut self) -> io::Result<()> {
        let whole = ChunkId(*self.file.finalize().as_bytes()).fingerprint();
        self.figures.logical += self.file_len;
        self.blocks += self.file_len.div_ceil(BLOCK);
        if !self.whole_files.insert(whole) {
            self.figures.whole_file_duplicates += self.file_len;
        }
        self.cutters.iter_mut().for_each(|c| c.extents.end_range());
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<SetFigures> {
        for cutter in self.cutters {
            self.figures.chunks.push(cutter.finish()?);
        }
        Ok(self.figures)
    }
}

/// Bytes of a file that some chunker still wants.
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// Where a chunk lies.
struct FilePlace {
    file: u64,
    blocks: u64,
    run_end: u64,
}

/// One chunk size.
struct Cutter {
    chunker: Chunker,
    at: u64,
    cuts: Vec<usize>,
    /// Which of the distinct chunks a fingerprint is.
    known: HashMap<u64, u32>,
    /// The frame of each distinct chunk, for each frame size.
    placed: Vec<u32>,
    framers: Vec<Framer>,
    compressor: Compressor,
    reads: Vec<Reads>,
    extents: Extents,
    figures: ChunkFigures,
}

impl Cutter {
    fn new(sizes: ChunkSizes, frames: &[u32], level: i8) -> Cutter {
        Cutter {
            chunker: Chunker::new(sizes),
            at: 0,
            cuts: Vec::new(),
            known: HashMap::new(),
            placed: Vec::new(),
            framers: frames.iter().map(|size| Framer::new(*size)).collect(),
            compressor: Compressor::new(Compression::Zstd(level)),
            reads: READS.iter().map(|len| Reads::new(*len)).collect(),
            extents: Extents::new(frames),
            figures: ChunkFigures { avg: sizes.avg, ..ChunkFigures::default() },
        }
    }

    /// Cuts what can be cut for good. Only with more than the longest chunk behind it, a cut is.
    fn feed(&mut self, window: &Window, last: bool, place: &FilePlace) -> io::Result<()> {
        let bytes = &window.bytes[(self.at - window.start) as usize..];
        let mut cuts = std::mem::take(&mut self.cuts);
        cuts.clear();
        let began = Instant::now();
        let mut at = 0;
        while at < bytes.len() && (last || bytes.len() - at > self.chunker.max()) {
            at += self.chunker.cut(&bytes[at..]);
            cuts.push(at);
        }
        let cut = Instant::now();
        let mut from = 0;
        let ids: Vec<_> = cuts
            .iter()
            .map(|to| chunk_id(&[0; 32], &bytes[std::mem::replace(&mut from, *to)..*to]))
            .collect();
        self.figures.cut += cut - began;
        self.figures.hash += cut.elapsed();

        let mut from = 0;
        for (to, id) in cuts.iter().zip(&ids) {
            self.chunk(&bytes[from..*to], *id, place)?;
            from = *to;
        }
        self.cuts = cuts;
        Ok(())
    }

    fn chunk(&mut self, plain: &[u8], id: ChunkId, place: &FilePlace) -> io::Result<()> {
        let (start, len) = (self.at, plain.len() as u64);
        self.at += len;
        self.figures.chunks += 1;
        self.figures.squares += (len as f64).powi(2);
        let next = self.known.len() as u32;
        let number = *self.known.entry(id.fingerprint()).or_insert(next);
        if number == next {
            self.figures.unique += len;
            for framer in &mut self.framers {
                self.placed.push(framer.push(plain, &mut self.compressor)?);
            }
        }
        let of = number as usize * self.framers.len();
        let frames = &self.placed[of..of + self.framers.len()];
        for reads in &mut self.reads {
            reads.chunk(start, start + len, frames, place);
        }
        for (framer, frame) in self.framers.iter_mut().zip(frames) {
            framer.pass.read(*frame);
        }
        self.extents.chunk(start, len as u32, id, frames, place);
        Ok(())
    }

    fn finish(mut self) -> io::Result<ChunkFigures> {
        self.figures.distinct = self.known.len() as u64;
        (self.figures.extents, self.figures.extents_stored) = self.extents.finish();
        for (i, mut framer) in self.framers.into_iter().enumerate() {
            framer.end(&mut self.compressor)?;
            for (figures, reads) in framer.figures.reads.iter_mut().zip(&self.reads) {
                *figures = reads.figures(i, &framer.frames);
            }
            framer.figures.pass = framer.pass.decoded(&framer.frames);
            self.figures.frames.push(framer.figures);
        }
        Ok(self.figures)
    }
}

/// One frame size: fills frames as a fold does, with whole chunks in the order they come.
struct Framer {
    plain: Vec<u8>,
    chunks: usize,
    /// Stored length with its head and plain length of each frame.
    frames: Vec<(u32, u32)>,
    pass: Pass,
    figures: FrameFigures,
}

impl Framer {
    fn new(size: u32) -> Framer {
        let figures = FrameFigures { size, ..FrameFigures::default() };
        Framer { plain: Vec::new(), chunks: 0, frames: Vec::new(), pass: Pass::new(size), figures }
    }

    /// The frame that the chunk comes to lie in.
    fn push(&mut self, plain: &[u8], compressor: &mut Compressor) -> io::Result<u32> {
        if self.chunks > 0 && self.plain.len() + plain.len() > self.figures.size as usize {
            self.end(compressor)?;
        }
        self.plain.extend_from_slice(plain);
        self.chunks += 1;
        Ok(self.frames.len() as u32)
    }

    fn end(&mut self, compressor: &mut Compressor) -> io::Result<()> {
        if self.chunks == 0 {
            return Ok(());
        }
        let began = Instant::now();
        let (codec, stored) = compressor.encode(&self.plain);
        let encoded = Instant::now();
        let plain = decode(codec, &stored, self.plain.len(), &[]).map_err(io::Error::other)?;
        self.figures.decode += encoded.elapsed();
        self.figures.encode += encoded - began;
        if plain != self.plain {
            return Err(io::Error::other("a frame did not decode to what was encoded"));
        }
        let len = FrameHead::len_with(self.chunks) + stored.len();
        self.frames.push((len as u32, self.plain.len() as u32));
        self.figures.frames += 1;
        self.figures.stored += len as u64;
        self.plain.clear();
        self.chunks = 0;
        Ok(())
    }
}

/// A pass over everything, with the frames used last in memory.
struct Pass {
    kept: usize,
    /// When each frame in memory was used last.
    used: HashMap<u32, u64>,
    /// All uses since, so that the oldest is found; of a frame used again only the last counts.
    order: VecDeque<(u32, u64)>,
    now: u64,
    /// How often each frame was decoded.
    decoded: Vec<u32>,
}

impl Pass {
    fn new(frame: u32) -> Pass {
        let kept = (PASS_CACHE / frame).max(1) as usize;
        Pass { kept, used: HashMap::new(), order: VecDeque::new(), now: 0, decoded: Vec::new() }
    }

    fn read(&mut self, frame: u32) {
        self.now += 1;
        if self.order.back().is_some_and(|(last, _)| *last == frame) {
            return;
        }
        if self.used.insert(frame, self.now).is_none() {
            let least = frame as usize + 1;
            if self.decoded.len() < least {
                self.decoded.resize(least, 0);
            }
            self.decoded[frame as usize] += 1;
        }
        self.order.push_back((frame, self.now));
        while self.used.len() > self.kept
            && let Some((frame, when)) = self.order.pop_front()
        {
            if self.used.get(&frame) == Some(&when) {
                self.used.remove(&frame);
            }
        }
        // Without this a few frames in turn would fill memory with their uses.
        if self.order.len() > 16 * self.kept {
            self.order.retain(|(frame, when)| self.used.get(frame) == Some(when));
        }
    }

    fn decoded(&self, frames: &[(u32, u32)]) -> u64 {
        self.decoded.iter().zip(frames).map(|(times, (_, plain))| u64::from(*times) * u64::from(*plain)).sum()
    }
}

/// Reads of one length, each from a cold cache.
struct Reads {
    len: u64,
    /// Reads that go on behind the last chunk.
    open: Vec<OpenRead>,
    count: u64,
    wanted: u64,
    /// How often each frame is decoded, for each frame size.
    touched: Vec<HashMap<u32, u32>>,
}

struct OpenRead {
    end: u64,
    /// Frames it has touched, of each frame size.
    frames: Vec<(usize, u32)>,
}

impl Reads {
    fn new(len: u64) -> Reads {
        Reads { len, open: Vec::new(), count: 0, wanted: 0, touched: Vec::new() }
    }

    fn chunk(&mut self, start: u64, end: u64, frames: &[u32], place: &FilePlace) {
        let first = start.div_ceil(BLOCK);
        let begins = (first..end.div_ceil(BLOCK)).filter(|b| (place.blocks + b).is_multiple_of(SAMPLED));
        for begin in begins.map(|b| b * BLOCK) {
            let end = (begin + self.len).min(place.run_end);
            self.count += 1;
            self.wanted += end - begin;
            self.open.push(OpenRead { end, frames: Vec::new() });
        }
        self.touched.resize_with(frames.len(), HashMap::new);
        for read in &mut self.open {
            for touch in frames.iter().copied().enumerate() {
                if !read.frames.contains(&touch) {
                    read.frames.push(touch);
                    *self.touched[touch.0].entry(touch.1).or_insert(0) += 1;
                }
            }
        }
        self.open.retain(|read| read.end > end);
    }

    /// For the frame size `i`, whose frames are so long, stored and plain.
    fn figures(&self, i: usize, frames: &[(u32, u32)]) -> ReadFigures {
        let mut figures = ReadFigures { reads: self.count, wanted: self.wanted, ..ReadFigures::default() };
        for (frame, times) in self.touched.get(i).into_iter().flatten() {
            // A chunk's frame is ended by now.
            let (stored, plain) = frames[*frame as usize];
            figures.frames += u64::from(*times);
            figures.stored += u64::from(stored) * u64::from(*times);
            figures.plain += u64::from(plain) * u64::from(*times);
        }
        figures
    }
}

/// The extents' records, as a checkpoint writes them.
struct Extents {
    /// Which of the frame sizes they name frames of.
    framer: usize,
    file: u64,
    range: u64,
    /// Up to where in the file pieces are listed.
    at: u64,
    pieces: Vec<Piece>,
    records: Encoder,
    compressor: Compressor,
    plain: u64,
    stored: u64,
    /// The last frame named, and how many chunks of it were.
    frame: u32,
    slot: u32,
}

impl Extents {
    fn new(frames: &[u32]) -> Extents {
        Extents {
            framer: frames.iter().position(|size| *size == EXTENT_FRAME).unwrap_or(0),
            file: 0,
            range: 0,
            at: 0,
            pieces: Vec::new(),
            records: Encoder::new(),
            compressor: Compressor::new(META_COMPRESSION),
            plain: 0,
            stored: 0,
            frame: u32::MAX,
            slot: 0,
        }
    }

    /// A chunk in a file: one piece, or one in each range that it reaches into.
    fn chunk(&mut self, start: u64, len: u32, id: ChunkId, frames: &[u32], place: &FilePlace) {
        let frame = frames.get(self.framer).copied().unwrap_or(0);
        self.slot = if frame == self.frame { self.slot + 1 } else { 0 };
        self.frame = frame;
        // Frames of one size fill packs one after another.
        let frames_a_pack = (PACK / u64::from(EXTENT_FRAME)) as u32;
        let whole = ChunkPiece {
            chunk: id,
            pack: PackId::new(0x9e37_79b9_7f4a_7c15, 1, frame / frames_a_pack),
            frame: frame % frames_a_pack,
            slot: self.slot,
            offset: 0,
            chunk_len: len,
            stored: len / 3,
            base: None,
        };
        let mut at = start;
        while at < start + u64::from(len) {
            let range = at / EXTENT_RANGE;
            let end = ((range + 1) * EXTENT_RANGE).min(start + u64::from(len));
            if (self.file, self.range) != (place.file, range) {
                self.end_range();
                (self.file, self.range, self.at) = (place.file, range, range * EXTENT_RANGE);
            }
            if at > self.at {
                self.pieces.push(Piece { len: (at - self.at) as u32, kind: PieceKind::Hole });
            }
            let kind = PieceKind::Chunk(ChunkPiece { offset: (at - start) as u32, ..whole });
            self.pieces.push(Piece { len: (end - at) as u32, kind });
            (at, self.at) = (end, end);
        }
    }

    fn end_range(&mut self) {
        if self.pieces.is_empty() {
            return;
        }
        let key = Key::Extent(Ino(self.file), self.range, View::default()).encode();
        let value = encode_pieces(&self.pieces);
        self.pieces.clear();
        self.plain += (key.len() + value.len()) as u64;
        push_meta_record(&mut self.records, &key, Some(&value));
        if self.records.len() >= META_FRAME {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        let plain = std::mem::take(&mut self.records).finish();
        self.stored += (FrameHead::len_with(0) + self.compressor.encode(&plain).1.len()) as u64;
    }

    /// Bytes of keys and values, and of the frames of them.
    fn finish(mut self) -> (u64, u64) {
        self.end_range();
        self.end_frame();
        (self.plain, self.stored)
    }
}

impl SetFigures {
    /// Both sets' figures, each measured alone.
    pub(crate) fn add(&mut self, other: &SetFigures) {
        self.files += other.files;
        self.logical += other.logical;
        self.whole_file_duplicates += other.whole_file_duplicates;
        self.chunks.resize(other.chunks.len(), ChunkFigures::default());
        for (to, from) in self.chunks.iter_mut().zip(&other.chunks) {
            to.add(from);
        }
    }
}

impl ChunkFigures {
    fn add(&mut self, other: &ChunkFigures) {
        self.avg = other.avg;
        self.unique += other.unique;
        self.chunks += other.chunks;
        self.distinct += other.distinct;
        self.squares += other.squares;
        self.cut += other.cut;
        self.hash += other.hash;
        self.extents += other.extents;
        self.extents_stored += other.extents_stored;
        self.frames.resize(other.frames.len(), FrameFigures::default());
        for (to, from) in self.frames.iter_mut().zip(&other.frames) {
            to.add(from);
        }
    }
}

impl FrameFigures {
    fn add(&mut self, other: &FrameFigures) {
        self.size = other.size;
        self.frames += other.frames;
        self.stored += other.stored;
        self.encode += other.encode;
        self.decode += other.decode;
        self.pass += other.pass;
        for (to, from) in self.reads.iter_mut().zip(&other.reads) {
            to.reads += from.reads;
            to.wanted += from.wanted;
            to.frames += from.frames;
            to.stored += from.stored;
            to.plain += from.plain;
        }
    }
}
