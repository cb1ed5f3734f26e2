//! How fast this processor codes runs of numbers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cairn_codec::tensor::{Encoder, Kernel, decode};
use cairn_format::{ChunkId, Element};

/// Bytes of a run, as a fold cuts tensors.
pub(crate) const RUN: usize = 1 << 20;
/// The chunk that all runs are taken for that are measured with.
pub(crate) const CHUNK: ChunkId = ChunkId([1; 32]);

/// Plain bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Rate {
    pub(crate) encode: f64,
    pub(crate) decode: f64,
}

/// Made-up weights, near to a normal distribution: bf16, or else fp32.
pub(crate) fn weights(element: Element, len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut weight = || {
        let mut sum = 0.0;
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            sum += (state >> 40) as f32 / (1 << 24) as f32;
        }
        ((sum - 2.0) * 0.02).to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(len + 4);
    while bytes.len() < len {
        match element {
            Element::Bfloat => bytes.extend(&weight()[2..]),
            _ => bytes.extend(weight()),
        }
    }
    bytes.truncate(len);
    bytes
}

/// What the processor does with runs of these elements on so many threads, the best of so many rounds; and what they are coded to.
pub(crate) fn processor(
    kernel: Kernel,
    threads: usize,
    rounds: usize,
    plain: &[u8],
    element: Element,
) -> (Rate, Vec<Option<Vec<u8>>>) {
    let runs: Vec<&[u8]> = plain.chunks(RUN).collect();
    let (mut coding, mut decoding) = (Duration::MAX, Duration::MAX);
    let mut coded = Vec::new();
    for _ in 0..rounds.max(1) {
        let (took, done) =
            on_threads(threads, &runs, |run| Encoder::new(kernel).encode(run, element, &CHUNK, None));
        coding = coding.min(took);
        coded = done;
        let pairs: Vec<_> = runs.iter().zip(&coded).collect();
        let (took, _) = on_threads(threads, &pairs, |(run, coded)| {
            coded.as_ref().and_then(|coded| decode(kernel, coded, &CHUNK, None, run.len()).ok())
        });
        decoding = decoding.min(took);
    }
    let per_second = |time: Duration| plain.len() as f64 / time.as_secs_f64().max(1e-9);
    (Rate { encode: per_second(coding), decode: per_second(decoding) }, coded)
}

/// Threads that can compute at once here.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn on_threads<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> (Duration, Vec<R>) {
    let since = Instant::now();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return done };
            done.push((number, work(item)));
        }
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(join).collect()
    });
    let time = since.elapsed();
    done.sort_by_key(|(number, _)| *number);
    (time, done.into_iter().map(|(_, done)| done).collect())
}
