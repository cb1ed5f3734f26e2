//! Why a file takes what it takes: its chunks, what it shares with others, where it lies.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cairn_codec::tensor::files::Tensor;
use cairn_format::key::{self, Key, tag};
use cairn_format::{
    ChunkId, Compression, FileKind, Ino, PackId, ParityGeometry, Piece, PieceKind, decode_pieces,
};

use crate::core::Core;
use crate::fold::tensors_of;
use crate::namespace::FileRun;
use crate::vfs::{Error, Policy};

/// What a file is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Its length in bytes.
    pub size: u64,
    /// Bytes of it that are holes.
    pub holes: u64,
    /// Bytes that lie in the journal, not folded yet.
    pub journalled: u64,
    /// Bytes that lie in chunks.
    pub chunked: u64,
    /// Pieces of chunks that they are made of.
    pub pieces: u64,
    /// Distinct chunks among those.
    pub chunks: u64,
    /// Plain bytes of the distinct chunks, each counted once and as far as the file uses it.
    pub unique: u64,
    /// Stored bytes that its pieces answer for.
    pub stored: u64,
    /// Bytes in chunks that other files have, too.
    pub shared: u64,
    /// Files that have some of its chunks, itself left out.
    pub sharers: u64,
    /// Whether all extents of the volume were looked at: if not, there may be more sharers.
    pub complete: bool,
    /// The packs it lies in, the one with most of it first.
    pub packs: Vec<PackShare>,
    /// How what is folded from now on is compressed.
    pub compression: Option<Compression>,
    /// The tensors in it, by their places; the first 200.
    pub tensors: Vec<TensorShare>,
    /// How many there are.
    pub tensor_count: u64,
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShare {
    /// Its name; empty where the format gives none.
    pub name: String,
    /// What the format calls the type of its elements.
    pub dtype: String,
    /// Its dimensions, in the order in which the format has them.
    pub shape: Vec<u64>,
    /// Where in the file it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Stored bytes that its pieces answer for.
    pub stored: u64,
    /// Pieces of it that are differences from chunks of other tensors.
    pub differences: u64,
    /// The first of those chunks.
    pub base: Option<ChunkId>,
    /// How its chunks are stored, each way once: `planes`, `palette`, `pattern`, `differences`, `zstd`, `raw`, or `journal` for what is not folded
    /// yet. Of the first chunks only, where time ran out.
    pub codecs: Vec<&'static str>,
}

/// What a pack holds of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackShare {
    /// The pack.
    pub pack: PackId,
    /// Bytes of the file in it.
    pub bytes: u64,
    /// The parity it carries; none where that cannot be read, or was not looked at: of the first 64 packs it is.
    pub parity: Option<ParityGeometry>,
    /// When it was last scrubbed, in seconds since 1970, where that is known.
    pub verified: Option<u64>,
    /// How many more copies of it there are.
    pub copies: usize,
}

/// Packs whose parity is looked at.
const PARITY_OF: usize = 64;

/// Tensors that are told of.
const TENSORS: usize = 200;

/// How the files of a volume use some chunks.
struct Sharing {
    by_chunk: HashMap<ChunkId, bool>,
    sharers: HashSet<Ino>,
    complete: bool,
}

impl Core {
    pub(crate) fn explain(&self, ino: u64, patience: Duration) -> Result<Explanation, Error> {
        let until = Instant::now() + patience;
        let ino = self.number(ino)?;
        let (size, runs, compression) = {
            let _lock = self.locks.read(ino);
            let inode = self.inode(ino)?;
            if inode.kind() != FileKind::Regular {
                return Err(Error::Invalid);
            }
            let runs = self.runs(ino, 0, inode.size)?;
            let said = self.get(&Policy::key(ino, self.view))?;
            (inode.size, runs, said.and_then(|value| Policy::decode(&value)))
        };
        let mut explanation = Explanation { size, ..Explanation::default() };
        explanation.compression = Some(compression.map_or(self.writing.compression, |p| p.compression));
        let used = explanation.add_runs(&runs);
        for share in explanation.packs.iter_mut().take(PARITY_OF) {
            share.parity = self.store.parity_of(share.pack);
        }
        for share in &mut explanation.packs {
            share.copies = self.store.twins_of(&share.pack).len();
        }
        let packs: Vec<PackId> = explanation.packs.iter().map(|share| share.pack).collect();
        let verified = crate::scrub::verified(&self.store, &packs);
        explanation.packs.iter_mut().zip(verified).for_each(|(share, when)| share.verified = when);
        let sharing = self.sharing(ino, used.keys().copied(), until)?;
        explanation.shared = runs.iter().map(|(_, run)| shared_bytes(run, &sharing)).sum();
        explanation.sharers = sharing.sharers.len() as u64;
        explanation.complete = sharing.complete;
        let tensors = self.checked(tensors_of(self, (self.view, ino), size))?;
        explanation.tensor_count = tensors.len() as u64;
        explanation.tensors = self.tensor_shares(&tensors[..tensors.len().min(TENSORS)], &runs, until);
        Ok(explanation)
    }

    /// What tensors take, in the order of their places, as the runs of their file are.
    fn tensor_shares(&self, tensors: &[Tensor], runs: &[FileRun], until: Instant) -> Vec<TensorShare> {
        let mut known: HashMap<(PackId, u32), &'static str> = HashMap::new();
        let share = |tensor: &Tensor| {
            let end = tensor.offset + tensor.len;
            let mut share = TensorShare {
                name: tensor.name.clone(),
                dtype: tensor.dtype.clone(),
                shape: tensor.shape.clone(),
                offset: tensor.offset,
                len: tensor.len,
                stored: 0,
                differences: 0,
                base: None,
                codecs: Vec::new(),
            };
            let first = runs.partition_point(|(at, run)| at + run.len <= tensor.offset);
            for (at, run) in runs[first..].iter().take_while(|(at, _)| *at < end) {
                let (from, to) = ((*at).max(tensor.offset), (at + run.len).min(end));
                let part = Piece { len: (to - from).min(u32::MAX.into()) as u32, kind: run.kind };
                share.stored += part.stored();
                if let PieceKind::Chunk(piece) = run.kind
                    && piece.base.is_some()
                {
                    share.differences += 1;
                    share.base = share.base.or_else(|| self.store.base_of(piece.pack, piece.frame));
                }
                let codec = match run.kind {
                    PieceKind::Hole => None,
                    PieceKind::Journal(_) => Some("journal"),
                    PieceKind::Chunk(piece) => match known.get(&(piece.pack, piece.frame)) {
                        Some(codec) => Some(*codec),
                        None if Instant::now() > until => None,
                        None => self.store.stored_as(piece.pack, piece.frame).inspect(|codec| {
                            known.insert((piece.pack, piece.frame), codec);
                        }),
                    },
                };
                if let Some(codec) = codec.filter(|codec| !share.codecs.contains(codec)) {
                    share.codecs.push(codec);
                }
            }
            share
        };
        tensors.iter().map(share).collect()
    }

    /// Looks for other files that have some of `chunks`.
    fn sharing(
        &self,
        ino: Ino,
        chunks: impl Iterator<Item = ChunkId>,
        until: Instant,
    ) -> Result<Sharing, Error> {
        let by_chunk: HashMap<_, _> = chunks.map(|chunk| (chunk, false)).collect();
        let mut sharing = Sharing { by_chunk, sharers: HashSet::new(), complete: true };
        if sharing.by_chunk.is_empty() {
            return Ok(sharing);
        }
        self.ns.each_chunk_of_overlay(|other, chunk| {
            if other != ino {
                sharing.note(other, &chunk);
            }
        });
        let (from, to) = key::all_tagged(tag::EXTENT);
        let mut seen = 0u32;
        let engine = self.ns.engine();
        let scanned = engine.scan(&from, &to, &mut |key, value| {
            seen = seen.wrapping_add(1);
            if seen.is_multiple_of(1024) && Instant::now() > until {
                sharing.complete = false;
                return ControlFlow::Break(());
            }
            let Some(Key::Extent(other, _, _)) = Key::decode(key) else { return ControlFlow::Continue(()) };
            if other != ino {
                // What cannot be decoded is said by whoever reads that file.
                for piece in decode_pieces(value).unwrap_or_default() {
                    if let PieceKind::Chunk(at) = piece.kind {
                        sharing.note(other, &at.chunk);
                    }
                }
            }
            ControlFlow::Continue(())
        });
        self.checked(scanned.map_err(Into::into))?;
        Ok(sharing)
    }
}

impl Sharing {
    fn note(&mut self, other: Ino, chunk: &ChunkId) {
        if let Some(shared) = self.by_chunk.get_mut(chunk) {
            *shared = true;
            self.sharers.insert(other);
        }
    }
}

fn shared_bytes(run: &crate::namespace::Run, sharing: &Sharing) -> u64 {
    match run.kind {
        PieceKind::Chunk(at) if sharing.by_chunk.get(&at.chunk) == Some(&true) => run.len,
        _ => 0,
    }
}

impl Explanation {
    /// Adds up the runs; gives how many bytes of each chunk they use.
    fn add_runs(&mut self, runs: &[FileRun]) -> HashMap<ChunkId, u64> {
        let mut used: HashMap<ChunkId, u64> = HashMap::new();
        let mut packs: HashMap<PackId, u64> = HashMap::new();
        for (_, run) in runs {
            match run.kind {
                PieceKind::Hole => self.holes += run.len,
                PieceKind::Journal(_) => {
                    self.journalled += run.len;
                    self.stored += run.len;
                }
                PieceKind::Chunk(at) => {
                    self.chunked += run.len;
                    self.pieces += 1;
                    // Pieces of chunks are never longer than a chunk can be.
                    self.stored += cairn_format::Piece { len: run.len as u32, kind: run.kind }.stored();
                    at.places().for_each(|place| *packs.entry(place.pack).or_default() += run.len);
                    let most = used.entry(at.chunk).or_default();
                    *most = (*most).max(run.len);
                }
            }
        }
        self.chunks = used.len() as u64;
        self.unique = used.values().sum();
        let share = |(pack, bytes)| PackShare { pack, bytes, parity: None, verified: None, copies: 0 };
        self.packs = packs.into_iter().map(share).collect();
        self.packs.sort_by_key(|share| (std::cmp::Reverse(share.bytes), share.pack));
        used
    }
}
