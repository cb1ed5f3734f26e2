//! Whether tensors are coded on a graphics processor: what was asked for, and what there is.

use std::sync::Arc;

use cairn_codec::tensor::Batches;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// No.
    Off,
    /// Where there is one, and it is faster than the processor.
    #[default]
    Auto,
    /// In any case, by a driver that computes on the processor if there is no other.
    On,
}

/// Reads it. One that this build does not have is refused.
pub(crate) fn parse(value: &str) -> Result<Wanted, String> {
    match value {
        "off" => Ok(Wanted::Off),
        "auto" => Ok(Wanted::Auto),
        "on" if cfg!(feature = "gpu") => Ok(Wanted::On),
        "on" => Err(WITHOUT.to_string()),
        _ => Err("say gpu=off, gpu=auto or gpu=on".to_string()),
    }
}

/// What a daemon is started with. Drivers keep compiled kernels in files in somebody's home, which may be on the very mount that it is to
/// answer: it would wait for itself.
pub(crate) const DRIVERS_KEEP_NOTHING: [(&str, &str); 2] =
    [("MESA_SHADER_CACHE_DISABLE", "true"), ("__GL_SHADER_DISK_CACHE", "0")];

/// What is said where a graphics processor cannot be used since this was built without.
pub(crate) const WITHOUT: &str = "this cairn was built without it: build one that has it with \
     cargo build --release --features gpu -p cairn";

/// Who codes the tensors of a mount in batches, if anybody may.
pub(crate) fn batches(wanted: Wanted) -> Option<Arc<dyn Batches>> {
    #[cfg(feature = "gpu")]
    return (wanted != Wanted::Off).then(|| Arc::new(device::Graphics::new(wanted)) as Arc<dyn Batches>);
    #[cfg(not(feature = "gpu"))]
    {
        let _ = wanted;
        None
    }
}

#[cfg(feature = "gpu")]
pub(crate) use device::open;

#[cfg(feature = "gpu")]
mod device {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use cairn_codec::tensor::{Batches, Kernel, Run};
    use cairn_format::Element;
    use cairn_gpu::{Choice, Device};
    use tracing::{error, info, warn};

    use super::Wanted;
    use crate::measure::{CHUNK, RUN, cores, processor, weights};

    /// Plain bytes of a batch, until the device says how many it takes.
    const BATCH: usize = 32 << 20;
    /// Runs that it is asked for at least: each round to a device takes a while, however little there is to do.
    const FEWEST: usize = 8;

    /// A device of that kind, or why there is none.
    pub(crate) fn open(wanted: Wanted) -> Result<Device, String> {
        let choice = match wanted {
            Wanted::Off => return Err("it was not asked for".to_string()),
            Wanted::Auto => Choice::Hardware,
            Wanted::On => Choice::Any,
        };
        Device::open(choice).map_err(|error| error.to_string())
    }

    /// A device that is opened, and measured, when it is needed first; and not used any more once something is wrong with it.
    pub(super) struct Graphics {
        wanted: Wanted,
        state: Mutex<State>,
        off: AtomicBool,
    }

    enum State {
        Unopened,
        Open(Box<Device>),
        Off,
    }

    impl Graphics {
        pub(super) fn new(wanted: Wanted) -> Graphics {
            Graphics { wanted, state: Mutex::new(State::Unopened), off: AtomicBool::new(false) }
        }

        /// The device, if it is to be used; what is decided is said once.
        fn open(&self) -> State {
            let mut device = match (open(self.wanted), self.wanted) {
                (Ok(device), _) => device,
                (Err(reason), Wanted::On) => {
                    warn!("tensors are coded by the processor: {reason}");
                    return State::Off;
                }
                (Err(reason), _) => {
                    info!("tensors are coded by the processor: {reason}");
                    return State::Off;
                }
            };
            let name = format!("{} ({})", device.name(), device.driver());
            match calibrate(&mut device) {
                Ok((it, processor)) if it > processor || self.wanted == Wanted::On => {
                    info!("tensors are coded by {name}: {it:.0} MB/s, the processor {processor:.0} MB/s");
                    State::Open(Box::new(device))
                }
                Ok((it, processor)) => {
                    info!("tensors are coded by the processor: {processor:.0} MB/s, {name} {it:.0} MB/s");
                    State::Off
                }
                Err(reason) => {
                    error!("tensors are coded by the processor: {reason}");
                    State::Off
                }
            }
        }
    }

    /// MB/s that a device codes, and all cores of the processor.
    fn calibrate(device: &mut Device) -> Result<(f64, f64), String> {
        let plain = weights(Element::Bfloat, device.batch());
        let (rate, expected) = processor(Kernel::best(), cores(), 2, &plain, Element::Bfloat);
        let run = |plain| Run { plain, element: Element::Bfloat, chunk: CHUNK, base: None };
        let runs: Vec<Run<'_>> = plain.chunks(RUN).map(run).collect();
        let mut best = Duration::MAX;
        for _ in 0..2 {
            let since = Instant::now();
            let coded = device.encode(&runs).map_err(|lost| lost.to_string())?;
            best = best.min(since.elapsed());
            if coded != expected {
                return Err(format!("{} ({}) gives wrong bytes", device.name(), device.driver()));
            }
        }
        let mega = |rate: f64| rate / 1e6;
        Ok((mega(plain.len() as f64 / best.as_secs_f64().max(1e-9)), mega(rate.encode)))
    }

    impl Batches for Graphics {
        fn batch(&self) -> usize {
            if self.off.load(Ordering::Relaxed) { 0 } else { BATCH }
        }

        fn fewest(&self) -> usize {
            FEWEST
        }

        fn encode(&self, runs: &[Run<'_>]) -> Option<Vec<Option<Vec<u8>>>> {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*state, State::Unopened) {
                *state = self.open();
            }
            let coded = match &mut *state {
                State::Open(device) => device.encode(runs),
                _ => {
                    self.off.store(true, Ordering::Relaxed);
                    return None;
                }
            };
            match coded {
                Ok(coded) => Some(coded),
                Err(lost) => {
                    warn!("{lost}: tensors are coded by the processor from here on, to the same bytes");
                    *state = State::Off;
                    self.off.store(true, Ordering::Relaxed);
                    None
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use cairn_codec::tensor::Encoder;

        #[test]
        fn what_a_device_no_longer_does_the_processor_is_to_do() {
            // Lavapipe will do; where there is no driver at all nothing is coded, and that is right, too.
            let graphics = Graphics::new(Wanted::On);
            let plain = weights(Element::Single, 3 << 20);
            let run = |plain| Run { plain, element: Element::Single, chunk: CHUNK, base: None };
            let runs: Vec<Run<'_>> = plain.chunks(RUN).map(run).collect();
            let Some(coded) = graphics.encode(&runs) else {
                assert_eq!(graphics.batch(), 0);
                return;
            };
            let alone = |run: &Run<'_>| {
                Encoder::new(Kernel::best()).encode(run.plain, run.element, &run.chunk, run.base)
            };
            assert!(coded == runs.iter().map(alone).collect::<Vec<_>>());
            match &*graphics.state.lock().expect("nobody panicked") {
                State::Open(device) => device.destroyer()(),
                _ => panic!("it coded, and is not open"),
            }
            assert!(graphics.encode(&runs).is_none() && graphics.batch() == 0);
            assert!(graphics.encode(&runs).is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_built_in_is_refused_with_how_to_get_it() {
        assert_eq!((parse("off"), parse("auto")), (Ok(Wanted::Off), Ok(Wanted::Auto)));
        assert!(parse("").is_err_and(|e| e.contains("gpu=auto")));
        match parse("on") {
            Ok(wanted) => assert!(cfg!(feature = "gpu") && wanted == Wanted::On),
            Err(e) => assert!(!cfg!(feature = "gpu") && e.contains("--features gpu"), "{e}"),
        }
    }
}
