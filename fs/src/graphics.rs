//! Whether tensors are coded on a graphics processor: what was asked for, and what there is.

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

/// What is said where a graphics processor cannot be used since this was built without.
pub(crate) const WITHOUT: &str = "this cairn was built without it: build one that has it with \
     cargo build --release --features gpu -p cairn";

#[cfg(feature = "gpu")]
pub(crate) use device::open;

#[cfg(feature = "gpu")]
mod device {
    use cairn_gpu::{Choice, Device};

    use super::Wanted;

    /// A device of that kind, or why there is none.
    pub(crate) fn open(wanted: Wanted) -> Result<Device, String> {
        let choice = match wanted {
            Wanted::Off => return Err("it was not asked for".to_string()),
            Wanted::Auto => Choice::Hardware,
            Wanted::On => Choice::Any,
        };
        Device::open(choice).map_err(|error| error.to_string())
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
