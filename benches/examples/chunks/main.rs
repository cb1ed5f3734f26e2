//! What each chunk size and frame size finds, takes and costs on real data in several versions.
//!
//! Usage: `chunks [OPTION]... NAME=DIR...`; see `--help`. `scripts/measure-chunks` gathers data for it.
//!
//! Files are streamed once, through all chunk sizes side by side. What stays in memory is some 40 bytes for each
//! distinct chunk of each size, and a frame for each pair of sizes; the data sets follow one another.

mod index;
mod report;
mod tally;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;

use cairn_format::{ChunkSizes, Compression, Geometry, ParityGeometry};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use tally::Tally;

const USAGE: &str = "\
Usage: chunks [OPTION]... NAME=DIR...

Measures each data set NAME: all files below DIR, in the order of their names, as one filesystem would hold them.
Prints tables; speeds are ratios within the run.

  --chunks=KIB,...  averages asked of the chunker (default 4,8,16,32,64,128,256); least and most are a quarter and
                    four times that
  --frames=KIB,...  plain bytes of a frame (default 16,64,256,1024)
  --level=N         zstd's level, -7 to 22 (default 3)
  --json=FILE       write all figures there, too";

/// What is measured.
struct Options {
    chunks: Vec<ChunkSizes>,
    frames: Vec<u32>,
    level: i8,
    json: Option<OsString>,
    sets: Vec<(String, OsString)>,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.iter().any(|a| a == "--help" || a == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match options(&arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("chunks: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = measure(&options) {
        eprintln!("chunks: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn options(arguments: &[OsString]) -> Result<Options, String> {
    let mut options =
        Options { chunks: Vec::new(), frames: Vec::new(), level: 3, json: None, sets: Vec::new() };
    let (mut chunks, mut frames) = (vec![4, 8, 16, 32, 64, 128, 256], vec![16, 64, 256, 1024]);
    for argument in arguments {
        let bytes = argument.as_bytes();
        let Some(at) = bytes.iter().position(|b| *b == b'=') else {
            return Err(format!("'{}' is no NAME=DIR; see --help", argument.display()));
        };
        let (name, value) = (String::from_utf8_lossy(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..]));
        match &*name {
            "--chunks" => chunks = numbers(argument, value)?,
            "--frames" => frames = numbers(argument, value)?,
            "--level" => {
                let level = value.to_str().and_then(|v| v.parse().ok()).filter(|l| (-7..=22).contains(l));
                options.level = level.ok_or("--level is a number from -7 to 22")?;
            }
            "--json" => options.json = Some(value.to_owned()),
            option if option.starts_with('-') => return Err(format!("there is no {option}; see --help")),
            set if !set.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) => {
                return Err(format!(
                    "a data set's name is letters, digits, '-', '_' and '.', and '{set}' is not"
                ));
            }
            set => options.sets.push((set.to_owned(), value.to_owned())),
        }
    }
    if options.sets.is_empty() {
        return Err("name a data set as NAME=DIR; see --help".to_owned());
    }
    for frame in frames {
        options.frames.push(frame << 10);
        for avg in &chunks {
            checked(sizes(avg << 10), frame << 10)?;
        }
    }
    options.chunks = chunks.into_iter().map(|avg| sizes(avg << 10)).collect();
    Ok(options)
}

fn numbers(argument: &OsStr, value: &OsStr) -> Result<Vec<u32>, String> {
    let parse = |text: &str| text.parse().ok().filter(|kib| (1..=16 << 10).contains(kib));
    let list = value.to_str().and_then(|v| v.split(',').map(parse).collect());
    list.ok_or_else(|| format!("'{}' is no list of sizes in KiB, as in 4,8,16", argument.display()))
}

fn sizes(avg: u32) -> ChunkSizes {
    ChunkSizes { min: avg / 4, avg, max: avg * 4 }
}

/// Refuses what no volume could have.
fn checked(chunks: ChunkSizes, frame: u32) -> Result<(), String> {
    let parity = ParityGeometry::default();
    let compression = Compression::None;
    let geometry = Geometry { chunks, frame, compression, parity, segment: 16 << 20, segments: 32 };
    geometry.check().map_err(|(field, value)| format!("no volume has a {field} of {value} bytes"))
}

fn measure(options: &Options) -> io::Result<()> {
    let load = index::load()?;
    let mut sets = Vec::new();
    for (name, dir) in &options.sets {
        eprintln!("{name}");
        let mut tally = Tally::new(&options.chunks, &options.frames, options.level);
        walk(Path::new(dir), &mut tally)?;
        let figures = tally.finish()?;
        if figures.logical == 0 {
            return Err(io::Error::other(format!("{}: there is not a byte in its files", dir.display())));
        }
        sets.push((name.clone(), figures));
    }
    let report = report::Report { load, level: options.level, sets };
    print!("{}", report.tables());
    if let Some(path) = &options.json {
        fs::write(path, report.json()).map_err(|e| named(Path::new(path), e))?;
    }
    Ok(())
}

fn named(path: &Path, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

/// Every regular file below `dir`, by name; of several hard links the first.
fn walk(dir: &Path, tally: &mut Tally) -> io::Result<()> {
    let mut names = fs::read_dir(dir)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>())
        .map_err(|e| named(dir, e))?;
    names.sort_unstable();
    for path in names {
        let meta = fs::symlink_metadata(&path).map_err(|e| named(&path, e))?;
        if meta.is_dir() {
            walk(&path, tally)?;
        } else if meta.is_file() && (meta.nlink() == 1 || tally.first_link(meta.dev(), meta.ino())) {
            let file = File::open(&path).map_err(|e| named(&path, e))?;
            read(&file, tally).map_err(|e| named(&path, e))?;
        }
    }
    Ok(())
}

/// Each run of data between holes.
fn read(file: &File, tally: &mut Tally) -> io::Result<()> {
    tally.begin_file();
    let mut at = 0;
    loop {
        let start = match lseek(file, at, Whence::SeekData) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::ENXIO) => break,
            Err(e) => return Err(e.into()),
        };
        at = lseek(file, start, Whence::SeekHole)?;
        // Offsets in a file are never negative.
        let (start, end) = (start.unsigned_abs(), at.unsigned_abs());
        tally.run(start, end, &mut |at, bytes| file.read_exact_at(bytes, at))?;
    }
    tally.end_file()
}
