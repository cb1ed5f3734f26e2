//! Whatever hangs fails.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Ends the process, with a sentence, unless it is dropped in time.
#[must_use = "it watches for as long as it is there"]
pub struct Watchdog(#[expect(dead_code, reason = "dropping it is what counts")] Sender<()>);

/// Gives `what` so many minutes.
pub fn watch(what: &'static str, minutes: u64) -> Watchdog {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        if receiver.recv_timeout(Duration::from_secs(60 * minutes)) == Err(RecvTimeoutError::Timeout) {
            hangs(format_args!("{what} has not ended after {minutes} minutes"));
        }
    });
    Watchdog(sender)
}

/// Ends the process: `what` has taken so long that it hangs.
pub fn hangs(what: impl Display) -> ! {
    // Past what keeps a test's output until the test has ended, which this one does not.
    let _ = writeln!(io::stderr(), "{what}: it hangs");
    std::process::abort();
}
