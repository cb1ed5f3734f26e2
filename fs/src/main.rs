//! `cairn`: mounts a volume and looks after it. `mount.cairn` is the same program under another name.
//!
//! A command's way: [`args`] says what may be typed, [`cmd`] has a file for each verb, [`daemon`] is a mount's life,
//! [`fuse`] answers the kernel.

mod args;
mod checks;
mod cmd;
mod control;
mod daemon;
mod detach;
mod failure;
mod fuse;
mod graphics;
mod hidden;
mod lanes;
mod logging;
mod manual;
mod measure;
mod metrics;
mod mountinfo;
mod notify;
mod options;
mod output;
mod places;
mod report;
mod size;
mod sources;
mod supervise;
mod unmount;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use args::{Cli, HelperArgs, Verb};
use clap::{CommandFactory, Parser};
use failure::{Failure, USAGE};

// mount(8)'s exit bits.
const MOUNT_USAGE: u8 = 1;
const MOUNT_FAILED: u8 = 32;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.first().and_then(|name| Path::new(name).file_name()) {
        Some(name) if name == "mount.cairn" || name == "mount.fuse.cairn" => mount_helper(arguments),
        _ => cairn(arguments),
    }
}

fn cairn(arguments: Vec<OsString>) -> ExitCode {
    if let Some(share) = cairn_manual::wanted(&arguments) {
        return finish("cairn", manual::write(&share).map_err(Failure::new), |_| 1);
    }
    let cli = match Cli::try_parse_from(with_verb(arguments)) {
        Ok(cli) => cli,
        Err(e) => return ExitCode::from(usage(&e, USAGE as u8)),
    };
    let result = match &cli.verb {
        Verb::Mount(args) => cmd::mount::run(args),
        Verb::Umount(args) => cmd::umount::run(args),
        Verb::Sync(args) => cmd::sync::run(args),
        Verb::Df(args) => cmd::df::run(args),
        Verb::Info(args) => cmd::info::run(args),
        Verb::Stats(args) => cmd::stats::run(args),
        Verb::Why(args) => cmd::why::run(args),
        Verb::Gc(args) => cmd::gc::run(args),
        Verb::Scrub(args) => cmd::scrub::run(args),
        Verb::Drill(args) => cmd::drill::run(args),
        Verb::Repair(args) => cmd::repair::run(args),
        Verb::Upgrade(args) => cmd::upgrade::run(args),
        Verb::Bench(args) => cmd::bench::run(args),
    };
    finish("cairn", result, |code| u8::try_from(code).unwrap_or(1))
}

fn mount_helper(arguments: Vec<OsString>) -> ExitCode {
    let args = match HelperArgs::try_parse_from(arguments) {
        Ok(args) => args,
        Err(e) => return ExitCode::from(usage(&e, MOUNT_USAGE)),
    };
    finish("mount.cairn", cmd::mount::run_helper(args), |code| match code {
        USAGE => MOUNT_USAGE,
        _ => MOUNT_FAILED,
    })
}

/// Prints help, a version, or what is wrong with the arguments.
fn usage(error: &clap::Error, code: u8) -> u8 {
    // A closed terminal cannot be told.
    let _ = error.print();
    if error.use_stderr() { code } else { 0 }
}

fn finish(name: &str, result: Result<(), Failure>, code: impl Fn(i32) -> u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{name}: {failure}");
            ExitCode::from(code(failure.code))
        }
    }
}

/// `cairn SRC DIR -o OPTS` is how mount(8) calls it for the type `fuse.cairn`: the verb `mount` goes without saying.
fn with_verb(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_verb =
        |word: &OsStr| word == "help" || Cli::command().get_subcommands().any(|verb| word == verb.get_name());
    let bare = match arguments.get(1) {
        Some(first) => arguments.len() > 2 && !first.as_encoded_bytes().starts_with(b"-") && !is_verb(first),
        None => false,
    };
    if bare {
        arguments.insert(1, "mount".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_mount_needs_no_verb() {
        assert_eq!(with_verb(words("cairn /v /mnt -o ro")), words("cairn mount /v /mnt -o ro"));
        for line in
            ["cairn", "cairn df", "cairn umount /mnt", "cairn --help", "cairn help df", "cairn nonsense"]
        {
            assert_eq!(with_verb(words(line)), words(line));
        }
    }
}
