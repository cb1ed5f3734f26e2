//! How small and how fast runs of fp32 and bf16 are coded: `tensors FILE.safetensors`, a model of fp32. With each kernel that the
//! processor has, on one thread; in the thread's own time of the processor, the best of seven.

use std::fs;

use cairn_codec::tensor::{Encoder, Kernel, decode};
use cairn_format::{ChunkId, Element};

const RUN: usize = 1 << 20;
const CHUNK: ChunkId = ChunkId([1; 32]);

fn main() {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: tensors FILE.safetensors");
        std::process::exit(2);
    };
    let bytes = fs::read(file).expect("the file");
    let header = u64::from_le_bytes(*bytes.first_chunk().expect("a header")) as usize;
    let single = bytes[8 + header..].to_vec();
    let bfloat: Vec<u8> = single.as_chunks().0.iter().flat_map(|x| rounded(*x).to_le_bytes()).collect();
    for (name, plain, element) in [("fp32", &single, Element::Single), ("bf16", &bfloat, Element::Bfloat)] {
        Kernel::available().for_each(|kernel| measure(name, plain, element, kernel));
    }
}

/// A float's upper half, rounded to even.
fn rounded(x: [u8; 4]) -> u16 {
    let bits = u32::from_le_bytes(x);
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn measure(name: &str, plain: &[u8], element: Element, kernel: Kernel) {
    let mut encoder = Encoder::new(kernel);
    let (mut encoding, mut decoding) = (f64::MAX, f64::MAX);
    let mut size = 0;
    for _ in 0..7 {
        let since = processor_seconds();
        let coded: Vec<_> = plain.chunks(RUN).map(|run| encoder.encode(run, element, &CHUNK, None)).collect();
        encoding = encoding.min(processor_seconds() - since);
        let since = processor_seconds();
        for (run, coded) in plain.chunks(RUN).zip(&coded) {
            if let Some(coded) = coded {
                let decoded = decode(kernel, coded, &CHUNK, None, run.len()).expect("what was coded");
                std::hint::black_box(&decoded);
            }
        }
        decoding = decoding.min(processor_seconds() - since);
        let stored = plain.chunks(RUN).zip(&coded).map(|(run, c)| c.as_ref().map_or(run.len(), Vec::len));
        size = stored.sum::<usize>();
    }
    let (share, speed) = (100.0 * size as f64 / plain.len() as f64, |s: f64| plain.len() as f64 / 1e6 / s);
    let (encoding, decoding) = (speed(encoding), speed(decoding));
    println!(
        "{name} {:9} {share:6.2}%  coded at {encoding:5.0} MB/s, decoded at {decoding:5.0} MB/s",
        kernel.name()
    );
}

fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux's");
    let nanoseconds = stat.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    nanoseconds.expect("a number") / 1e9
}
