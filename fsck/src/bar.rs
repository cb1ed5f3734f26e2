//! Progress for people, and for the program that runs us.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fsck_cairn::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bytes between two lines to a descriptor.
const LINE_EVERY: u64 = 16 << 20;

/// A bar on standard error where that is a terminal, and lines to a descriptor where one was named.
pub(crate) struct Bar {
    bar: ProgressBar,
    verbose: bool,
    lines: Option<Mutex<File>>,
    name: String,
    expected: AtomicU64,
    done: AtomicU64,
    told: AtomicU64,
    cancelled: Arc<AtomicBool>,
}

impl Bar {
    /// `descriptor` is that of -C; `cancelled` is set by a signal.
    pub(crate) fn new(
        name: String,
        verbose: bool,
        descriptor: Option<u32>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Bar, String> {
        let lines = match descriptor {
            None | Some(0) => None,
            Some(n) => {
                let opened = OpenOptions::new().append(true).open(format!("/proc/self/fd/{n}"));
                Some(Mutex::new(opened.map_err(|e| format!("-C{n}: {e}"))?))
            }
        };
        let shows = std::io::stderr().is_terminal() && lines.is_none();
        let target = if shows { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = "{msg:12} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        if shows {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let [expected, done, told] = Default::default();
        Ok(Bar { bar, verbose, lines, name, expected, done, told, cancelled })
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, done: u64) {
        if let Some(lines) = &self.lines {
            let mut to = lines.lock().unwrap_or_else(PoisonError::into_inner);
            // Who does not want to hear it any more may close it.
            let _ = writeln!(to, "1 {done} {} {}", self.expected.load(Ordering::Relaxed), self.name);
        }
    }
}

impl Progress for Bar {
    fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        if self.verbose {
            self.bar.suspend(|| eprintln!("checking {what}"));
        }
    }

    fn expect(&self, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc_length(bytes);
        self.line(self.done.load(Ordering::Relaxed));
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let told = self.told.load(Ordering::Relaxed);
        let ends = done == self.expected.load(Ordering::Relaxed);
        if (done >= told + LINE_EVERY || ends)
            && self.told.compare_exchange(told, done, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.line(done);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
