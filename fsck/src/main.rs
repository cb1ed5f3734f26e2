//! `fsck.cairn`: reads the arguments, checks or repairs, tells what was found and done.

mod bar;
mod cli;
mod manual;
mod output;
mod page;
mod undone;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bar::Bar;
use cli::Args;
use fsck_cairn::{
    CheckError, CheckOptions, Level, RepairOptions, Report, Restored, check_dir, repair_dir, restore_dir,
    undo_dir,
};

/// The exit codes of fsck(8), which add up.
mod exit {
    pub(crate) const CLEAN: u8 = 0;
    pub(crate) const CORRECTED: u8 = 1;
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
    let dir = args.dir.display().to_string();
    let place = args.report.as_deref().map(cairn_page::Place::new).transpose();
    let place = place.map_err(|why| (exit::OPERATIONAL, why))?;
    let picture = place.is_some();
    let cancelled = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, cancelled.clone())
            .map_err(|e| (exit::OPERATIONAL, format!("signals cannot be caught: {e}")))?;
    }
    let bar = Bar::new(dir.clone(), args.verbose, args.progress, cancelled).map_err(|e| (exit::USAGE, e))?;
    let since = Instant::now();
    let tell = |text: &str| eprintln!("fsck.cairn: {text}");
    if let Some(time) = &args.undo {
        let time = Some(time.as_str()).filter(|time| !time.is_empty());
        let done = undo_dir(&args.dir, time, &tell);
        bar.finish();
        let done = done.map_err(|error| (exit::OPERATIONAL, format!("{dir}: {error}")))?;
        let text = if args.json { undone::json(&dir, &done) } else { Ok(undone::text(&dir, &done)) };
        print(&text.map_err(|e| (exit::OPERATIONAL, e))?)?;
        return Ok(exit::CLEAN);
    }
    if !args.from_twins.is_empty() {
        let restored = restore_dir(&args.dir, &args.from_twins, &bar);
        let Restored { packs, damaged, checkpoint, .. } =
            restored.map_err(|error| (exit::OPERATIONAL, format!("{dir}: {error}")))?;
        let lost = if damaged > 0 { format!(", {damaged} of them damaged") } else { String::new() };
        tell(&format!("{packs} packs restored{lost}; the volume is what it was at {}", checkpoint.lsn));
    }
    let checked = match level(args) {
        None => check_dir(&args.dir, &CheckOptions { scratch: None, picture }, &bar, &tell),
        Some(level) => {
            let options = RepairOptions {
                level,
                force: args.force || !args.from_twins.is_empty(),
                zero_fill: args.zero_fill,
                scratch: None,
                picture,
            };
            repair_dir(&args.dir, &options, &bar, &tell)
        }
    };
    bar.finish();
    let report = checked.map_err(|error| match error {
        CheckError::Cancelled => (exit::CANCELLED, format!("{dir}: {error}")),
        error => (exit::OPERATIONAL, format!("{dir}: {error}")),
    })?;
    let took = since.elapsed();
    let drawn = place.map_or(Ok(()), |place| {
        place.put(&cairn_page::render(&page::page(command(args), &args.dir, &report, took)))
    });
    let text = if args.json {
        output::json(&dir, &report, took).map_err(|e| (exit::OPERATIONAL, e))?
    } else {
        output::text(&dir, &report, took, args.verbose)
    };
    print(&text)?;
    // The codes add up: what was found is told, whatever became of the page.
    drawn.map_err(|why| (code(&report) | exit::OPERATIONAL, why)).map(|()| code(&report))
}

/// The command with what decides what it does.
fn command(args: &Args) -> String {
    let given = [
        ("-n", args.no || level(args).is_none()),
        ("-f", args.force),
        ("-p", args.preen),
        ("-y", args.yes),
        ("--zero-fill", args.zero_fill),
    ];
    let given: Vec<_> = given.iter().filter(|(_, given)| *given).map(|(option, _)| *option).collect();
    format!("fsck.cairn {}", given.join(" "))
}

fn print(text: &str) -> Result<(), (u8, String)> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // It is done, whether or not somebody reads about it.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err((exit::OPERATIONAL, format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// How much may be repaired; none where nothing is to be changed. (`-n` says what is so anyway.)
fn level(args: &Args) -> Option<Level> {
    match (args.preen, args.yes, args.no) {
        (_, true, _) => Some(Level::All),
        (true, false, _) => Some(Level::Safe),
        (false, false, _) => None,
    }
}

fn code(report: &Report) -> u8 {
    let corrected = if report.corrected() > 0 { exit::CORRECTED } else { exit::CLEAN };
    let left = if report.is_clean() { exit::CLEAN } else { exit::UNCORRECTED };
    corrected | left
}
