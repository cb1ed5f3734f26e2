//! How a command fails: a sentence for the person, a code for the script.

use std::fmt;

/// Anything that has no code of its own.
pub(crate) const FAILED: i32 = 1;
/// Arguments or options that make no sense.
pub(crate) const USAGE: i32 = 2;
/// Somebody else holds the volume.
pub(crate) const LOCKED: i32 = 11;

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

    /// Exit code 11.
    pub(crate) fn locked(message: impl fmt::Display) -> Failure {
        Failure { code: LOCKED, message: message.to_string() }
    }
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
