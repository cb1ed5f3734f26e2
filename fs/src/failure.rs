//! How a command fails: a sentence for the person, a code for the script.

use std::fmt;

/// Anything that has no code of its own.
pub(crate) const FAILED: i32 = 1;
/// Arguments or options that make no sense.
pub(crate) const USAGE: i32 = 2;
/// Some of several things could be done, others not.
pub(crate) const PARTIAL: i32 = 3;
/// There is no volume.
pub(crate) const NO_STORE: i32 = 10;
/// Somebody else holds the volume.
pub(crate) const LOCKED: i32 = 11;

/// The person had enough of it.
pub(crate) const INTERRUPTED: i32 = 130;

/// What `cairn` exits with.
pub(crate) const EXIT_CODES: &[(i32, &str)] = &[
    (0, "done"),
    (FAILED, "failed"),
    (USAGE, "wrong usage"),
    (
        PARTIAL,
        "done for some of several paths, failed for others, or scrubbed, repaired or drilled and something is lost",
    ),
    (NO_STORE, "no volume there"),
    (LOCKED, "the volume is held by somebody else"),
    (INTERRUPTED, "interrupted by SIGINT, as the shell tells it"),
];

/// [`EXIT_CODES`] as a sentence.
pub(crate) fn exit_codes() -> String {
    let all: Vec<_> = EXIT_CODES.iter().map(|(code, meaning)| format!("{code} {meaning}")).collect();
    all.join(", ")
}

/// Why a command could not do what it was asked: `cairn`'s exit code and one sentence that names the file and says what
/// to do.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What `cairn` exits with.
    pub(crate) code: i32,
    /// What it prints.
    pub(crate) message: String,
}

impl Failure {
    /// Exit code 1.
    pub(crate) fn new(message: impl fmt::Display) -> Failure {
        Failure { code: FAILED, message: message.to_string() }
    }

    /// Exit code 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Failure {
        Failure { code: USAGE, message: message.to_string() }
    }

    /// Exit code 10.
    pub(crate) fn no_store(message: impl fmt::Display) -> Failure {
        Failure { code: NO_STORE, message: message.to_string() }
    }

    /// Exit code 11.
    pub(crate) fn locked(message: impl fmt::Display) -> Failure {
        Failure { code: LOCKED, message: message.to_string() }
    }
}

/// Of `tried` things these failed: as one, whose code is 3 where others did not, and else that of the first.
pub(crate) fn all_of(mut failures: Vec<Failure>, tried: usize) -> Result<(), Failure> {
    let Some(last) = failures.pop() else { return Ok(()) };
    let code = match failures.len() + 1 < tried {
        true => PARTIAL,
        false => failures.first().unwrap_or(&last).code,
    };
    // The caller prints the last one, as that of any command.
    for failure in failures {
        eprintln!("cairn: {failure}");
    }
    Err(Failure { code, message: last.message })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<cairn_volume::OpenError> for Failure {
    fn from(error: cairn_volume::OpenError) -> Failure {
        Failure { code: error.exit_code(), message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_the_same_codes() {
        let row = format!("| `cairn` | {} |\n", exit_codes());
        assert!(include_str!("../../README.md").contains(&row), "README should have the row {row}");
    }

    #[test]
    fn some_failures_of_several_are_partial() {
        let of = |failed, tried| {
            let failures = (0..failed).map(|_| Failure::no_store("none")).collect();
            all_of(failures, tried).map_err(|failure| failure.code)
        };
        assert_eq!(of(0, 3), Ok(()));
        assert_eq!(of(1, 3), Err(PARTIAL));
        assert_eq!(of(3, 3), Err(NO_STORE));
        assert_eq!(of(1, 1), Err(NO_STORE));
    }
}
