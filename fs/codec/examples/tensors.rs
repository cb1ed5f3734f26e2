//! How small and how fast a file of fp32 is, as it is and cast to bf16 and fp16: `tensors FILE.safetensors`.

use cairn_codec::tensor::{Encoder, Kernel, decode};
use cairn_format::{ChunkId, Element};

const RUN: usize = 1 << 20;
const CHUNK: ChunkId = ChunkId([1; 32]);

fn main() {
    let file = std::env::args().nth(1).expect("a file");
    let bytes = std::fs::read(file).expect("the file");
    let header = u64::from_le_bytes(*bytes.first_chunk().expect("a header")) as usize;
    let single = bytes[8 + header..].to_vec();
    let bfloat: Vec<u8> = single
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|x| {
            let bits = u32::from_le_bytes(*x);
            let rounded = bits + 0x7fff + (bits >> 16 & 1);
            ((rounded >> 16) as u16).to_le_bytes()
        })
        .collect();
    for (name, plain, element) in [("fp32", &single, Element::Single), ("bf16", &bfloat, Element::Bfloat)] {
        for kernel in Kernel::available() {
            let mut encoder = Encoder::new(kernel);
            let mut best = [f64::MAX; 2];
            let mut coded = Vec::new();
            for _ in 0..7 {
                let since = processor();
                coded = plain.chunks(RUN).map(|run| encoder.encode(run, element, &CHUNK, None)).collect();
                best[0] = best[0].min(processor() - since);
                let since = processor();
                for (run, coded) in plain.chunks(RUN).zip(&coded) {
                    if let Some(coded) = coded {
                        let back = decode(kernel, coded, &CHUNK, None, run.len()).expect("what was encoded");
                        std::hint::black_box(&back);
                    }
                }
                best[1] = best[1].min(processor() - since);
            }
            let size: usize = plain
                .chunks(RUN)
                .zip(&coded)
                .map(|(run, coded)| coded.as_ref().map_or(run.len(), Vec::len))
                .sum();
            let speed = |seconds: f64| plain.len() as f64 / 1e6 / seconds;
            println!(
                "{name} {:9} {:6.2}%  encode {:5.0} MB/s  decode {:5.0} MB/s",
                kernel.name(),
                100.0 * size as f64 / plain.len() as f64,
                speed(best[0]),
                speed(best[1])
            );
        }
    }
}

/// Seconds of the processor's time that this thread had.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().expect("a number").parse::<f64>().expect("a number") / 1e9
}
