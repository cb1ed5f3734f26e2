//! `mkfs.cairn`: makes a volume in a directory. What is refused, and why, the volume crate knows; this reads the arguments
//! and tells what was made.

mod args;
mod manual;
mod report;

use std::io::Write;
use std::process::ExitCode;

use args::Args;
use clap::Parser;
use report::Report;

fn main() -> ExitCode {
    if let Some(share) = cairn_manual::wanted(&std::env::args_os().collect::<Vec<_>>()) {
        return finish(manual::write(&share));
    }
    // Wrong usage ends here, with 2.
    let args = Args::parse();
    finish(make(&args))
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("mkfs.cairn: {why}");
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args) -> Result<(), String> {
    let made = cairn_volume::make(&args.dir, &args.to_options()).map_err(|e| e.to_string())?;
    let report = Report::new(&args.dir, &made);
    let text = match (args.quiet, args.json) {
        (true, false) => return Ok(()),
        (_, true) => report.json()?,
        (false, false) => report.text(),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The volume is made, whether or not somebody reads about it.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("standard output: {e}")),
        _ => Ok(()),
    }
}
