//! What a tree would take at best: each distinct chunk once, zstd level 3 over frames of 256 KiB in the order of the
//! files, and not a byte for names, attributes or finding things again.
//!
//! Usage: `ideal DIR`. Prints one JSON document; all sizes are bytes.
//!
//! Chunks are cut with the codec that cairn uses and mkfs.cairn's default sizes. A frame that zstd makes no shorter
//! counts as it is. Holes count nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;

use cairn_codec::{Chunker, Compressor, chunk_id};
use cairn_format::{ChunkId, ChunkSizes, Compression};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

const SIZES: ChunkSizes = ChunkSizes { min: 4 << 10, avg: 16 << 10, max: 64 << 10 };
const FRAME: usize = 256 << 10;
const LEVEL: i8 = 3;
/// Bytes of a file held at a time.
const WINDOW: usize = 4 << 20;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [dir] = arguments.as_slice() else {
        eprintln!("Usage: ideal DIR");
        return ExitCode::from(2);
    };
    let mut tally = Tally::new();
    if let Err(e) = tally.walk(Path::new(dir)) {
        eprintln!("ideal: {e}");
        return ExitCode::FAILURE;
    }
    tally.end_frame();
    println!(
        "{{\"message_type\":\"ideal\",\"schema_version\":1,\"files\":{},\"logical\":{},\"unique\":{},\"stored\":{}}}",
        tally.files, tally.logical, tally.unique, tally.stored
    );
    ExitCode::SUCCESS
}

/// What was seen so far.
struct Tally {
    chunker: Chunker,
    compressor: Compressor,
    /// Names of more than one link, which are read once.
    inodes: HashSet<(u64, u64)>,
    chunks: HashSet<ChunkId>,
    frame: Vec<u8>,
    files: u64,
    logical: u64,
    unique: u64,
    stored: u64,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            chunker: Chunker::new(SIZES),
            compressor: Compressor::new(Compression::Zstd(LEVEL)),
            inodes: HashSet::new(),
            chunks: HashSet::new(),
            frame: Vec::with_capacity(FRAME),
            files: 0,
            logical: 0,
            unique: 0,
            stored: 0,
        }
    }

    /// Every regular file below `dir`, by name. An error names what it happened to.
    fn walk(&mut self, dir: &Path) -> io::Result<()> {
        let named = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let mut names = fs::read_dir(dir)
            .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>())
            .map_err(|e| named(dir, e))?;
        names.sort_unstable();
        for path in names {
            let meta = fs::symlink_metadata(&path).map_err(|e| named(&path, e))?;
            if meta.is_dir() {
                self.walk(&path)?;
            } else if meta.is_file() && (meta.nlink() == 1 || self.inodes.insert((meta.dev(), meta.ino()))) {
                self.files += 1;
                self.file(&File::open(&path).map_err(|e| named(&path, e))?).map_err(|e| named(&path, e))?;
            }
        }
        Ok(())
    }

    /// Each run of data between holes.
    fn file(&mut self, file: &File) -> io::Result<()> {
        let mut at = 0;
        loop {
            let start = match lseek(file, at, Whence::SeekData) {
                Ok(start) => start,
                // Nothing but a hole up to the end.
                Err(Errno::ENXIO) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            at = lseek(file, start, Whence::SeekHole)?;
            // Offsets in a file are never negative.
            self.run(file, start.unsigned_abs(), at.unsigned_abs())?;
        }
    }

    fn run(&mut self, file: &File, start: u64, end: u64) -> io::Result<()> {
        let mut at = start;
        let mut window = Vec::new();
        while at < end {
            let len = usize::try_from(end - at).map_or(WINDOW, |left| left.min(WINDOW));
            window.resize(len, 0);
            file.read_exact_at(&mut window, at)?;
            let last = at + len as u64 == end;
            let mut cut = 0;
            // A cut is final only with more than the longest chunk behind it.
            while cut < len && (last || len - cut > self.chunker.max()) {
                let chunk = self.chunker.cut(&window[cut..]);
                self.chunk(&window[cut..cut + chunk]);
                cut += chunk;
            }
            at += cut as u64;
        }
        Ok(())
    }

    fn chunk(&mut self, plain: &[u8]) {
        self.logical += plain.len() as u64;
        if !self.chunks.insert(chunk_id(&[0; 32], plain)) {
            return;
        }
        self.unique += plain.len() as u64;
        if self.frame.len() + plain.len() > FRAME {
            self.end_frame();
        }
        self.frame.extend_from_slice(plain);
    }

    fn end_frame(&mut self) {
        self.stored += self.compressor.encode(&self.frame).1.len() as u64;
        self.frame.clear();
    }
}
