//! `fsck.cairn`: reads the arguments, checks, tells what was found.

mod bar;
mod cli;
mod manual;
mod output;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bar::Bar;
use cli::Args;
use fsck_cairn::{CheckError, CheckOptions, check_dir};

/// The exit codes of fsck(8).
mod exit {
    pub(crate) const CLEAN: u8 = 0;
    pub(crate) const UNCORRECTED: u8 = 4;
    pub(crate) const OPERATIONAL: u8 = 8;
    pub(crate) const USAGE: u8 = 16;
    pub(crate) const CANCELLED: u8 = 32;
}

fn main() -> ExitCode {
    if let Some(share) = cairn_manual::wanted(&std::env::args_os().collect::<Vec<_>>()) {
        return match manual::write(&share) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("fsck.cairn: {why}");
                ExitCode::from(exit::OPERATIONAL)
            }
        };
    }
    let args = match Args::parse_from_os() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { exit::USAGE } else { exit::CLEAN };
            // Where it cannot be printed, the code says it.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    ExitCode::from(match run(&args) {
        Ok(code) => code,
        Err((code, why)) => {
            eprintln!("fsck.cairn: {why}");
            code
        }
    })
}

fn run(args: &Args) -> Result<u8, (u8, String)> {
    if args.preen || args.yes {
        let why = "this version only checks: repairing (-p, -a, -y) is not built yet; use -n";
        return Err((exit::USAGE, why.into()));
    }
    // A check is always full, and never changes anything.
    let _ = (args.force, args.no);
    let dir = args.dir.display().to_string();
    let cancelled = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, cancelled.clone())
            .map_err(|e| (exit::OPERATIONAL, format!("signals cannot be caught: {e}")))?;
    }
    let bar = Bar::new(dir.clone(), args.verbose, args.progress, cancelled).map_err(|e| (exit::USAGE, e))?;
    let since = Instant::now();
    let tell = |text: &str| eprintln!("fsck.cairn: {text}");
    let checked = check_dir(&args.dir, &CheckOptions::default(), &bar, &tell);
    bar.finish();
    let report = checked.map_err(|error| match error {
        CheckError::Cancelled => (exit::CANCELLED, format!("{dir}: {error}")),
        error => (exit::OPERATIONAL, format!("{dir}: {error}")),
    })?;
    let took = since.elapsed();
    let text = if args.json {
        output::json(&dir, &report, took).map_err(|e| (exit::OPERATIONAL, e))?
    } else {
        output::text(&dir, &report, took, args.verbose)
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // It is checked, whether or not somebody reads about it.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err((exit::OPERATIONAL, format!("standard output: {e}")));
        }
        _ => {}
    }
    Ok(if report.is_clean() { exit::CLEAN } else { exit::UNCORRECTED })
}
