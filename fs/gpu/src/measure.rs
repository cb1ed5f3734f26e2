//! How fast a device codes runs, each byte of what it gives held against what the processor gave.

use std::time::{Duration, Instant};

use crate::device::{Bytes, Device, Lost, Slot};
use crate::{Coded, Run};

/// Plain bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Coded.
    pub encode: f64,
    /// Decoded.
    pub decode: f64,
}

/// What was measured on a device.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// From this machine's memory and back to it, with all that the processor does for that.
    pub host: Rate,
    /// What the kernels alone do; none where they take too little to be told.
    pub kernels: Option<Rate>,
    /// Bytes a second that are copied to it.
    pub copied_to: f64,
    /// And from it.
    pub copied_from: f64,
}

/// Why nothing was measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// The device went.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// What it wrote or read is not what the processor does: never seen, and the reason to look.
    #[error("the graphics processor gave other bytes than the processor, and must not be used")]
    Differs,
}

/// How often more kernels are run to be measured.
const REPEATS: u32 = 4;

fn per_second(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-9)
}

fn rate(bytes: usize, (encode, decode): (Duration, Duration)) -> Rate {
    Rate { encode: per_second(bytes, encode), decode: per_second(bytes, decode) }
}

impl Device {
    /// Codes the runs, which the processor codes to `expected`, and decodes them: the best of so many rounds.
    pub fn measure(
        &mut self,
        runs: &[Run<'_>],
        expected: &[Option<Vec<u8>>],
        rounds: usize,
    ) -> Result<Measured, MeasureError> {
        let plain = runs.iter().map(|run| run.plain.len()).sum();
        // Buffers are made, and pages touched, by a first round.
        self.code(runs, expected, 1)?;
        let once = self.code(runs, expected, rounds)?;
        // Kernels are run several times over: what that takes more is theirs.
        self.set_repeats(1 + REPEATS as usize);
        let repeated = self.code(runs, expected, rounds);
        self.set_repeats(1);
        let repeated = repeated?;
        let more = |often: Duration, once: Duration| often.checked_sub(once).map(|more| more / REPEATS);
        let kernels = more(repeated.0, once.0).zip(more(repeated.1, once.1));
        let (copied_to, copied_from) = self.copies(rounds)?;
        Ok(Measured {
            host: rate(plain, once),
            kernels: kernels.map(|times| rate(plain, times)),
            copied_to,
            copied_from,
        })
    }

    /// What coding and decoding take.
    fn code(
        &mut self,
        runs: &[Run<'_>],
        expected: &[Option<Vec<u8>>],
        rounds: usize,
    ) -> Result<(Duration, Duration), MeasureError> {
        let there: Vec<(&Run<'_>, Coded<'_>)> = runs
            .iter()
            .zip(expected)
            .filter_map(|(run, stored)| {
                let stored = stored.as_ref()?;
                let plain_len = run.plain.len();
                Some((
                    run,
                    Coded { stored, chunk: run.chunk, base: run.base.map(|base| base.bytes), plain_len },
                ))
            })
            .collect();
        let coded: Vec<Coded<'_>> = there.iter().map(|(_, coded)| *coded).collect();
        let mut best = (Duration::MAX, Duration::MAX);
        for _ in 0..rounds.max(1) {
            let since = Instant::now();
            let encoded = self.encode(runs)?;
            best.0 = best.0.min(since.elapsed());
            let since = Instant::now();
            let decoded = self.decode(&coded)?;
            best.1 = best.1.min(since.elapsed());
            let plain = there.iter().map(|(run, _)| Some(run.plain));
            if encoded != expected || !decoded.iter().map(|run| run.as_deref().ok()).eq(plain) {
                return Err(MeasureError::Differs);
            }
        }
        Ok(best)
    }

    /// Bytes a second to the device, and from it, of a batch.
    fn copies(&mut self, rounds: usize) -> Result<(f64, f64), Lost> {
        let batch = vec![0; self.batch()];
        let (mut to, mut from) = (Duration::MAX, Duration::MAX);
        for _ in 0..rounds.max(1) {
            let since = Instant::now();
            self.run(&[(Slot::Plain, Bytes::Pieces(&[&batch], batch.len()))], &[], &[], &[])?;
            to = to.min(since.elapsed());
            let since = Instant::now();
            self.run(&[], &[], &[], &[(Slot::Plain, batch.len())])?;
            from = from.min(since.elapsed());
        }
        Ok((per_second(batch.len(), to), per_second(batch.len(), from)))
    }
}
