//! How small and how fast tensors are coded: `tensors [--json] [--speed] [--passes=N] [--kernel=NAME] FILE…`, files of any format that tensors are
//! found in. With each kernel that the processor has unless one is named, on one thread; in the thread's own time of the processor, the
//! best of N (7). And, without --speed, what reads of some lengths fetch for each byte that is asked for: the blocks that hold it, and their head.

use std::collections::BTreeMap;
use std::fs;
use std::process::exit;

use cairn_codec::Compressor;
use cairn_codec::tensor::files::find;
use cairn_codec::tensor::{Decoder, Encoder, Kernel, decode};
use cairn_format::{ChunkId, Compression, Element, PlanesHead};
use rustix::time::{ClockId, clock_gettime};

const CHUNK: ChunkId = ChunkId([1; 32]);
const READS: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];

/// Runs of one type of a file's tensors, as a fold would cut them.
struct Runs<'f> {
    dtype: String,
    element: Element,
    runs: Vec<&'f [u8]>,
}

/// What is asked for.
struct How {
    json: bool,
    /// Nothing but sizes and speeds.
    speed: bool,
    passes: u32,
    kernel: Option<String>,
}

struct Figures {
    plain: usize,
    coded: usize,
    encoding: f64,
    decoding: f64,
}

fn main() {
    let (mut how, mut files) = (How { json: false, speed: false, passes: 7, kernel: None }, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            _ if argument == "--json" => how.json = true,
            _ if argument == "--speed" => how.speed = true,
            Some(("--passes", n)) => how.passes = n.parse().unwrap_or_else(|_| usage()),
            Some(("--kernel", name)) => how.kernel = Some(name.to_string()),
            _ if argument.starts_with('-') => usage(),
            _ => files.push(argument),
        }
    }
    if files.is_empty() {
        usage();
    }
    for file in files {
        let bytes = fs::read(&file).unwrap_or_else(|error| {
            eprintln!("{file}: {error}");
            exit(1);
        });
        let Some(types) = runs(&bytes) else {
            eprintln!("{file}: no tensors are found in it");
            exit(1);
        };
        for runs in types {
            let asked = |kernel: &Kernel| how.kernel.as_deref().is_none_or(|name| name == kernel.name());
            Kernel::available().filter(asked).for_each(|kernel| tell(&how, &file, &runs, kernel));
        }
    }
}

fn usage() -> ! {
    eprintln!("usage: tensors [--json] [--speed] [--passes=N] [--kernel=NAME] FILE...");
    exit(2);
}

fn runs(bytes: &[u8]) -> Option<Vec<Runs<'_>>> {
    let file = find(bytes.len() as u64, &mut |at, len| {
        let from = (at as usize).min(bytes.len());
        Some(bytes[from..bytes.len().min(from + len as usize)].to_vec())
    })?;
    let mut types: BTreeMap<String, Runs<'_>> = BTreeMap::new();
    for tensor in &file.tensors {
        let of = types.entry(tensor.dtype.clone()).or_insert_with(|| Runs {
            dtype: tensor.dtype.clone(),
            element: tensor.element,
            runs: Vec::new(),
        });
        of.runs
            .extend(bytes[tensor.offset as usize..][..tensor.len as usize].chunks(tensor.element.run_len()));
    }
    Some(types.into_values().collect())
}

fn tell(how: &How, file: &str, runs: &Runs<'_>, kernel: Kernel) {
    let figures = measure(runs, runs.element, kernel, how.passes);
    let share = |coded: usize| 100.0 * coded as f64 / figures.plain as f64;
    // A type of a few bytes may take less than the clock tells.
    let speed = |seconds: f64| figures.plain as f64 / 1e6 / seconds.max(1e-9);
    let (dtype, name, size) = (&runs.dtype, kernel.name(), share(figures.coded));
    let (encoded, decoded) = (speed(figures.encoding), speed(figures.decoding));
    match how.json {
        true => print!(
            "{{\"file\":{file:?},\"dtype\":{dtype:?},\"kernel\":{name:?},\"plain\":{},\"size\":{size:.4},\
             \"encoded\":{encoded:.1},\"decoded\":{decoded:.1}",
            figures.plain
        ),
        false => print!(
            "{dtype:8} {name:9} {size:6.2}%  coded at {encoded:5.0} MB/s, decoded at {decoded:5.0} MB/s"
        ),
    }
    if !how.speed {
        let fetched = READS.map(|len| amplification(runs, len));
        let (bytes, kept) = (share(measure(runs, Element::Byte, kernel, 1).coded), share(kept(runs)));
        let [few, some, many] = fetched;
        match how.json {
            true => {
                print!(
                    ",\"as_bytes\":{bytes:.4},\"kept\":{kept:.4},\"fetched\":[{few:.3},{some:.3},{many:.3}]"
                );
            }
            false => {
                print!(
                    "; as bytes {bytes:.2}%, kept {kept:.2}%; reads of 4 KiB, 64 KiB, 1 MiB fetch {few:.2}, {some:.2}, {many:.2} times that"
                );
            }
        }
    }
    println!("{}", if how.json { "}" } else { "" });
}

fn measure(runs: &Runs<'_>, element: Element, kernel: Kernel, passes: u32) -> Figures {
    let mut encoder = Encoder::new(kernel);
    let coded: Vec<_> = runs.runs.iter().map(|run| encoder.encode(run, element, &CHUNK, None)).collect();
    let stored = runs.runs.iter().zip(&coded).map(|(run, coded)| coded.as_ref().map_or(run.len(), Vec::len));
    let mut figures = Figures {
        plain: runs.runs.iter().map(|run| run.len()).sum(),
        coded: stored.sum(),
        encoding: f64::MAX,
        decoding: f64::MAX,
    };
    for _ in 0..passes {
        // As in a fold, what is coded is let go of before long.
        let since = processor_seconds();
        for run in &runs.runs {
            std::hint::black_box(encoder.encode(run, element, &CHUNK, None));
        }
        figures.encoding = figures.encoding.min(processor_seconds() - since);
        let since = processor_seconds();
        for (run, coded) in runs.runs.iter().zip(&coded) {
            if let Some(coded) = coded {
                let decoded = decode(kernel, coded, &CHUNK, None, run.len()).expect("what was coded");
                std::hint::black_box(&decoded);
            }
        }
        figures.decoding = figures.decoding.min(processor_seconds() - since);
    }
    figures
}

/// Bytes that a fold keeps: where zstd does better, or nothing does anything, that.
fn kept(runs: &Runs<'_>) -> usize {
    let mut compressor = Compressor::new(Compression::Zstd(3));
    runs.runs.iter().map(|run| compressor.encode_run(run, runs.element, &CHUNK, None).1.len()).sum()
}

/// Bytes fetched for each that is asked for, by reads of this length at its multiples.
fn amplification(runs: &Runs<'_>, len: u64) -> f64 {
    let mut encoder = Encoder::new(Kernel::best());
    let (mut asked, mut fetched) = (0u64, 0u64);
    for run in &runs.runs {
        let len = len.min(run.len() as u64);
        let Some(coded) = encoder.encode(run, runs.element, &CHUNK, None) else {
            let reads = run.len() as u64 / len;
            (asked, fetched) = (asked + reads * len, fetched + reads * len);
            continue;
        };
        let head_len = PlanesHead::len_of(&coded).expect("a head") as usize;
        let decoder = Decoder::new(Kernel::best(), &coded[..head_len], &CHUNK, run.len()).expect("a head");
        for read in 0..run.len() as u64 / len {
            let (from, to) = ((read * len) as usize, ((read + 1) * len) as usize);
            let touched = (0..decoder.blocks()).filter(|n| {
                let plain = decoder.plain(*n);
                plain.start < to && plain.end > from
            });
            let stored =
                touched.filter_map(|n| decoder.stored(n)).map(|stored| u64::from(stored.end - stored.start));
            (asked, fetched) = (asked + len, fetched + head_len as u64 + stored.sum::<u64>());
        }
    }
    if asked > 0 { fetched as f64 / asked as f64 } else { f64::NAN }
}

fn processor_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}
