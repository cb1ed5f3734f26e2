//! How fast parity is computed and lost data restored: each kernel of `cairn_codec::parity` that this processor has
//! and, with the feature `peers`, reed-solomon-erasure (its loop in Rust, and its `simd-accel`) and reed-solomon-simd.
//!
//! Usage: `parity [ROUNDS]`, 15 if not told. Prints one line for each task and size of a unit: gigabytes of data in a
//! second of one processor's time, medians. Everyone has a turn in each round, so that what else the machine does falls
//! on all alike; the ratios are what to look at. One stripe of 16 units is computed over and over: with 4 KiB it stays
//! in the caches of a core, with 4 MiB it comes from memory.

use std::process::ExitCode;

use cairn_codec::parity::{Kernel, ParityCode};
use rustix::time::{ClockId, clock_gettime};

const DATA: usize = 16;

/// So much data goes by in one turn, unless one stripe is more.
const TURN: usize = 16 << 20;

/// What is measured: computing so many parity shards, or restoring so many data shards.
#[derive(Clone, Copy)]
enum Task {
    Encode(usize),
    Restore(usize),
}

impl Task {
    fn name(self) -> String {
        match self {
            Task::Encode(parity) => format!("encode {DATA}+{parity}"),
            Task::Restore(lost) => format!("restore {lost} of {DATA}"),
        }
    }

    /// Parity shards of the code: data is restored from a code of two.
    fn parity(self) -> usize {
        match self {
            Task::Encode(parity) => parity,
            Task::Restore(_) => 2,
        }
    }
}

/// One who does a task: each call goes through one stripe.
struct Contestant {
    name: String,
    stripe: Box<dyn FnMut()>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = match arguments.as_slice() {
        [] => Some(15),
        [rounds] => rounds.parse().ok().filter(|rounds| *rounds > 0),
        _ => None,
    };
    let Some(rounds) = rounds else {
        eprintln!("Usage: parity [ROUNDS]");
        return ExitCode::from(2);
    };
    for task in [Task::Encode(2), Task::Encode(4), Task::Restore(1), Task::Restore(2)] {
        for unit in [4 << 10, 64 << 10, 4 << 20] {
            let shards = shards(task.parity(), unit);
            let mut contestants: Vec<Contestant> =
                Kernel::available().map(|k| ours(k, task, &shards)).collect();
            contestants.extend(peers(task, &shards));
            println!(
                "{:<15} units of {:>4} KiB: {}",
                task.name(),
                unit >> 10,
                rates(contestants, unit, rounds)
            );
        }
    }
    ExitCode::SUCCESS
}

/// Runs everybody in turn, and says how many gigabytes of data each did in a second.
fn rates(mut contestants: Vec<Contestant>, unit: usize, rounds: usize) -> String {
    let stripes = (TURN / (DATA * unit)).max(1);
    let mut seconds = vec![Vec::new(); contestants.len()];
    // The first round is not counted.
    for round in 0..=rounds {
        for (contestant, seconds) in contestants.iter_mut().zip(&mut seconds) {
            let began = processor_seconds();
            (0..stripes).for_each(|_| (contestant.stripe)());
            if round > 0 {
                seconds.push(processor_seconds() - began);
            }
        }
    }
    let rates = contestants.iter().zip(&mut seconds).map(|(contestant, seconds)| {
        seconds.sort_by(f64::total_cmp);
        let rate = (stripes * DATA * unit) as f64 / seconds[rounds / 2] / 1e9;
        format!("{} {rate:.2}", contestant.name)
    });
    rates.collect::<Vec<_>>().join(", ")
}

/// Seconds that a processor worked for this thread: what others take from it does not count.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Data and parity shards of `unit` bytes each.
fn shards(parity: usize, unit: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let mut shards: Vec<Vec<u8>> = (0..DATA).map(|_| (0..unit).map(|_| byte()).collect()).collect();
    let mut computed = vec![vec![0; unit]; parity];
    code(parity).encode(&shards, &mut computed);
    shards.append(&mut computed);
    shards
}

fn code(parity: usize) -> ParityCode {
    ParityCode::new(DATA, parity).expect("the field has room for so few")
}

fn ours(kernel: Kernel, task: Task, shards: &[Vec<u8>]) -> Contestant {
    let code = code(task.parity()).with_kernel(kernel);
    let shards = shards.to_vec();
    let unit = shards[0].len();
    let stripe: Box<dyn FnMut()> = match task {
        Task::Encode(parity) => {
            let mut computed = vec![vec![0; unit]; parity];
            Box::new(move || code.encode(&shards[..DATA], &mut computed))
        }
        Task::Restore(lost) => {
            let plan = code.plan(&(0..lost).collect::<Vec<_>>()).expect("two can be restored");
            let mut restored = vec![vec![0; unit]; lost];
            Box::new(move || {
                let sources: Vec<&[u8]> = plan.sources().iter().map(|i| shards[*i].as_slice()).collect();
                plan.restore(&sources, &mut restored);
            })
        }
    };
    Contestant { name: kernel.name().into(), stripe }
}

#[cfg(not(feature = "peers"))]
fn peers(_: Task, _: &[Vec<u8>]) -> Vec<Contestant> {
    Vec::new()
}

#[cfg(feature = "peers")]
fn peers(task: Task, shards: &[Vec<u8>]) -> Vec<Contestant> {
    peers::all(task, shards)
}

#[cfg(feature = "peers")]
mod peers {
    use std::sync::LazyLock;

    use reed_solomon_erasure::{Field, ReedSolomon, galois_8};
    use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

    use super::{Contestant, DATA, Task};

    pub(super) fn all(task: Task, shards: &[Vec<u8>]) -> Vec<Contestant> {
        vec![
            Contestant { name: "erasure".into(), stripe: erasure::<Plain>(task, shards.to_vec()) },
            Contestant {
                name: "erasure-simd-accel".into(),
                stripe: erasure::<galois_8::Field>(task, shards.to_vec()),
            },
            Contestant { name: "reed-solomon-simd".into(), stripe: simd(task, shards.to_vec()) },
        ]
    }

    /// The crate's field without its `simd-accel`, as it computes where that is not asked for: a look-up for each byte.
    struct Plain;

    static PRODUCTS: LazyLock<Vec<[u8; 256]>> =
        LazyLock::new(|| (0..=255).map(|a| std::array::from_fn(|b| galois_8::mul(a, b as u8))).collect());

    impl Field for Plain {
        const ORDER: usize = 256;
        type Elem = u8;

        fn add(a: u8, b: u8) -> u8 {
            galois_8::add(a, b)
        }

        fn mul(a: u8, b: u8) -> u8 {
            galois_8::mul(a, b)
        }

        fn div(a: u8, b: u8) -> u8 {
            galois_8::div(a, b)
        }

        fn exp(a: u8, n: usize) -> u8 {
            galois_8::exp(a, n)
        }

        fn zero() -> u8 {
            0
        }

        fn one() -> u8 {
            1
        }

        fn nth_internal(n: usize) -> u8 {
            n as u8
        }

        fn mul_slice(factor: u8, input: &[u8], output: &mut [u8]) {
            let products = &PRODUCTS[usize::from(factor)];
            output.iter_mut().zip(input).for_each(|(output, byte)| *output = products[usize::from(*byte)]);
        }

        fn mul_slice_add(factor: u8, input: &[u8], output: &mut [u8]) {
            let products = &PRODUCTS[usize::from(factor)];
            output.iter_mut().zip(input).for_each(|(output, byte)| *output ^= products[usize::from(*byte)]);
        }
    }

    fn erasure<F: Field<Elem = u8> + 'static>(task: Task, mut shards: Vec<Vec<u8>>) -> Box<dyn FnMut()> {
        let code = ReedSolomon::<F>::new(DATA, task.parity()).expect("the field has room for so few");
        match task {
            Task::Encode(_) => {
                let right = shards.split_off(DATA);
                let mut computed = vec![vec![0; right[0].len()]; right.len()];
                code.encode_sep(&shards, &mut computed).expect("shards of one length");
                assert!(computed == right, "it computes another code");
                Box::new(move || code.encode_sep(&shards, &mut computed).expect("shards of one length"))
            }
            Task::Restore(lost) => {
                let mut shards: Vec<(Vec<u8>, bool)> = shards.into_iter().map(|s| (s, true)).collect();
                Box::new(move || {
                    shards[..lost].iter_mut().for_each(|(_, present)| *present = false);
                    code.reconstruct_data(&mut shards).expect("two can be restored");
                })
            }
        }
    }

    fn simd(task: Task, shards: Vec<Vec<u8>>) -> Box<dyn FnMut()> {
        let unit = shards[0].len();
        let encode = move |encoder: &mut ReedSolomonEncoder, shards: &[Vec<u8>]| {
            shards[..DATA]
                .iter()
                .for_each(|shard| encoder.add_original_shard(shard).expect("of the length told"));
            let parity = encoder.encode().expect("all shards are there");
            parity.recovery_iter().map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let mut encoder = ReedSolomonEncoder::new(DATA, task.parity(), unit).expect("a shape that it takes");
        let Task::Restore(lost) = task else {
            return Box::new(move || drop(std::hint::black_box(encode(&mut encoder, &shards))));
        };
        let parity = encode(&mut encoder, &shards);
        let mut decoder = ReedSolomonDecoder::new(DATA, task.parity(), unit).expect("a shape that it takes");
        Box::new(move || {
            for (i, shard) in shards[..DATA].iter().enumerate().skip(lost) {
                decoder.add_original_shard(i, shard).expect("of the length told");
            }
            for (i, shard) in parity.iter().enumerate().take(lost) {
                decoder.add_recovery_shard(i, shard).expect("of the length told");
            }
            let restored = decoder.decode().expect("two can be restored");
            let restored: Vec<Vec<u8>> = restored.restored_original_iter().map(|(_, s)| s.to_vec()).collect();
            std::hint::black_box(restored);
        })
    }
}
