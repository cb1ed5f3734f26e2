//! How fast a device and the processor code the same runs, each byte of the one held against the other's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cairn_codec::tensor::{Encoder, Kernel, decode};
use cairn_format::{ChunkId, Element};

use crate::device::{Bytes, Device, Lost, Slot};
use crate::{Coded, Run};

/// Plain bytes a second, both ways.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Coded.
    pub encode: f64,
    /// Decoded.
    pub decode: f64,
}

/// What was measured on a device.
#[derive(Clone, Copy, Debug)]
pub struct OnDevice {
    /// From this machine's memory and back to it, all that the processor does for it included.
    pub host: Rate,
    /// What the kernels alone take; none where that is too little to be told.
    pub kernels: Option<Rate>,
    /// Bytes a second that can be copied to it, and from it.
    pub copies: (f64, f64),
}

/// Why nothing was measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// The device went.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// What it wrote or read is not what the processor does: never seen, and the reason to look.
    #[error("the graphics processor gave other bytes than the processor: it must not be used")]
    Differs,
}

/// Bytes of a run that are measured with.
const RUN: usize = 1 << 20;

/// Some weights, normally distributed as far as that matters, of such elements: bf16, or else fp32.
pub fn weights(element: Element, len: usize) -> Vec<u8> {
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

fn runs(plain: &[u8], element: Element) -> Vec<Run<'_>> {
    let run = |plain| Run { plain, element, chunk: ChunkId([1; 32]), base: None };
    plain.chunks(RUN).map(run).collect()
}

/// What the processor does with these elements, on so many threads; and what they are coded to.
pub fn processor(
    kernel: Kernel,
    threads: usize,
    plain: &[u8],
    element: Element,
) -> (Rate, Vec<Option<Vec<u8>>>) {
    let runs = runs(plain, element);
    let (coding, coded) = on_threads(threads, &runs, |run| {
        Encoder::new(kernel).encode(run.plain, run.element, &run.chunk, None)
    });
    let pairs: Vec<_> = runs.iter().zip(&coded).collect();
    let (decoding, _) = on_threads(threads, &pairs, |(run, coded)| {
        coded.as_ref().and_then(|coded| decode(kernel, coded, &run.chunk, None, run.plain.len()).ok())
    });
    (rate(plain.len(), coding, decoding), coded)
}

fn rate(bytes: usize, encode: Duration, decode: Duration) -> Rate {
    Rate { encode: per_second(bytes, encode), decode: per_second(bytes, decode) }
}

fn per_second(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-9)
}

fn on_threads<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> (Duration, Vec<R>) {
    let since = Instant::now();
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            while let number = next.fetch_add(1, Ordering::Relaxed)
                && let Some(item) = items.get(number)
            {
                done.push((number, work(item)));
            }
            done
        };
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    let time = since.elapsed();
    done.sort_by_key(|(number, _)| *number);
    (time, done.into_iter().map(|(_, done)| done).collect())
}

/// What a device does with these, which the processor codes to `expected`: the best of so many rounds.
pub fn device(
    device: &mut Device,
    plain: &[u8],
    element: Element,
    expected: &[Option<Vec<u8>>],
    rounds: usize,
) -> Result<OnDevice, MeasureError> {
    let runs = runs(plain, element);
    let coded: Vec<(Run<'_>, &Vec<u8>)> =
        runs.iter().zip(expected).filter_map(|(run, coded)| Some((*run, coded.as_ref()?))).collect();
    let coded: Vec<Coded<'_>> = coded
        .into_iter()
        .map(|(run, stored)| Coded { stored, chunk: run.chunk, base: None, plain_len: run.plain.len() })
        .collect();
    // Buffers are made, and pages touched, by a first round.
    let once = |device: &mut Device| -> Result<(Duration, Duration), MeasureError> {
        let since = Instant::now();
        let encoded = device.encode(&runs)?;
        let coding = since.elapsed();
        let since = Instant::now();
        let decoded = device.decode(&coded)?;
        let decoding = since.elapsed();
        let there = runs.iter().zip(expected).filter(|(_, coded)| coded.is_some());
        let same = decoded.iter().map(|run| run.as_deref().ok()).eq(there.map(|(run, _)| Some(run.plain)));
        if same && encoded == expected { Ok((coding, decoding)) } else { Err(MeasureError::Differs) }
    };
    once(device)?;
    let best = |device: &mut Device| -> Result<(Duration, Duration), MeasureError> {
        let mut best = (Duration::MAX, Duration::MAX);
        for _ in 0..rounds.max(1) {
            let (coding, decoding) = once(device)?;
            best = (best.0.min(coding), best.1.min(decoding));
        }
        Ok(best)
    };
    let plainly = best(device)?;
    // Kernels are run several times over: what each time more takes is theirs.
    device.set_repeats(1 + REPEATS);
    let repeated = best(device);
    device.set_repeats(1);
    let repeated = repeated?;
    let more = |often: Duration, once: Duration| often.checked_sub(once).map(|more| more / REPEATS as u32);
    let kernels = more(repeated.0, plainly.0).zip(more(repeated.1, plainly.1));
    Ok(OnDevice {
        host: rate(plain.len(), plainly.0, plainly.1),
        kernels: kernels.map(|(coding, decoding)| rate(plain.len(), coding, decoding)),
        copies: device.copies(plain, rounds)?,
    })
}

/// How often more kernels are run to be measured.
const REPEATS: usize = 4;

/// Whether the device is the faster one at coding on this machine, by a quick look: the processor has all its cores for it.
pub fn is_faster(device: &mut Device) -> Result<bool, MeasureError> {
    let plain = weights(Element::Bfloat, device.batch());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (processor, expected) = processor(Kernel::best(), threads, &plain, Element::Bfloat);
    let runs = runs(&plain, Element::Bfloat);
    let mut best = Duration::MAX;
    for _ in 0..2 {
        let since = Instant::now();
        let coded = device.encode(&runs)?;
        best = best.min(since.elapsed());
        if coded != expected {
            return Err(MeasureError::Differs);
        }
    }
    Ok(per_second(plain.len(), best) > processor.encode)
}

impl Device {
    /// Bytes a second to the device, and from it, of a batch.
    fn copies(&mut self, plain: &[u8], rounds: usize) -> Result<(f64, f64), Lost> {
        let plain = &plain[..plain.len().min(self.batch())];
        let (mut up, mut down) = (Duration::MAX, Duration::MAX);
        for _ in 0..rounds.max(1) {
            let since = Instant::now();
            self.run(&[(Slot::Plain, Bytes::Pieces(&[plain], plain.len()))], &[], &[], &[])?;
            up = up.min(since.elapsed());
            let since = Instant::now();
            self.run(&[], &[], &[], &[(Slot::Plain, plain.len())])?;
            down = down.min(since.elapsed());
        }
        Ok((per_second(plain.len(), up), per_second(plain.len(), down)))
    }
}
