//! Whatever hangs fails.

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
            eprintln!("{what} hangs: it has not ended after {minutes} minutes");
            std::process::abort();
        }
    });
    Watchdog(sender)
}
