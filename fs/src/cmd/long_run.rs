//! What long runs over a volume share, whoever does them: a bar, and how they are done where nobody has the volume mounted.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_volume::{OpenOptions, Volume};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::SIGINT;

use crate::failure::{self, Failure};

/// Has `work` done with a volume that nobody has mounted, which is closed in order afterwards. SIGINT ends the run: `work` is
/// given what says so. `interrupted` is what the person is told then.
pub(super) fn here<T>(
    dir: &Path,
    read_only: bool,
    interrupted: &str,
    work: impl FnOnce(&Volume, &dyn Fn() -> bool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGINT, asked.clone()).map_err(Failure::new)?;
    let options = OpenOptions {
        wait: true,
        on_wait: Some(Box::new(|why| eprintln!("cairn: {why}"))),
        collect: false,
        read_only,
        ..OpenOptions::default()
    };
    let volume = cairn_volume::open(dir, options)?;
    let done = work(&volume, &|| asked.load(Ordering::Relaxed));
    volume.close().map_err(|e| {
        Failure::new(format!(
            "{} could not be closed: {e}; the next mount goes on from its journal",
            dir.display()
        ))
    })?;
    let done = done?;
    match asked.load(Ordering::Relaxed) {
        true => Err(Failure { code: failure::INTERRUPTED, message: interrupted.into() }),
        false => Ok(done),
    }
}

/// Why a run ended before everything was done, as a sentence behind others.
pub(super) fn ended(stopped: Option<&str>) -> &'static str {
    match stopped {
        Some("time") => " The time is over; the next run goes on.",
        Some("asked") => " It was stopped; the next run goes on.",
        _ => "",
    }
}

/// How far a run is, on standard error where that is a terminal.
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(super) fn new(shown: bool) -> Bar {
        if !shown || !stderr().is_terminal() {
            return Bar(None);
        }
        let bar = ProgressBar::new(0);
        let style = "{msg:14} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar(Some(bar))
    }

    /// What is being done, and how many bytes of how many are.
    pub(super) fn show(&self, step: &str, done: u64, of: u64) {
        if let Some(bar) = &self.0 {
            bar.set_message(step.to_string());
            bar.set_length(of);
            bar.set_position(done.min(of));
        }
    }

    /// What is being done, where nobody knows how much that will be.
    pub(super) fn tell(&self, what: &str) {
        if let Some(bar) = &self.0 {
            if bar.length() != Some(1) {
                bar.set_length(1);
                bar.set_style(
                    ProgressStyle::with_template("{spinner} {msg}").unwrap_or(ProgressStyle::default_bar()),
                );
            }
            bar.set_message(what.to_string());
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
