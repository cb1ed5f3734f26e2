//! `cairn mount`, and `mount.cairn` for mount(8).

use crate::args::{HelperArgs, MountArgs};
use crate::checks;
use crate::cmd::remount;
use crate::daemon::{self, Plan, Post};
use crate::detach::{self, Report};
use crate::failure::Failure;
use crate::logging::Log;
use crate::options::MountOptions;
use crate::supervise;
use crate::supervise::channel::{Channel, Charge};

/// Mounts. Returns when the mount answers, or with `-f` when it is unmounted.
pub(crate) fn run(args: &MountArgs) -> Result<(), Failure> {
    let args = &as_options(args);
    let options = MountOptions::parse(&args.options, args.sloppy, nix::unistd::geteuid().is_root())?;
    if options.remount {
        return remount::run(args, &options, false);
    }
    if args.worker {
        return be_worker(args, options);
    }
    if args.report_on_stdout {
        return be_daemon(args, options);
    }
    let (dir, mountpoint) = checks::before_mount(&args.dir, &args.mountpoint)?;
    if args.foreground {
        let log = Log::to_standard_error(options.log_format.unwrap_or_default());
        return keep(args, &Plan { dir, mountpoint, options }, &log, Report::Terminal);
    }
    detach::start(args, &dir, &mountpoint)
}

/// What has an argument and a mount option of its own, as the option: that is what a daemon is passed.
fn as_options(args: &MountArgs) -> MountArgs {
    let mut args = args.clone();
    let engine = args.meta_engine.take().map(|engine| format!("meta_engine={engine}"));
    args.options.extend(engine);
    args
}

/// This process was started by [`detach::start`], which checked both directories.
fn be_daemon(args: &MountArgs, options: MountOptions) -> Result<(), Failure> {
    nix::unistd::setsid().map_err(|e| Failure::new(format!("cannot detach from the terminal: {e}")))?;
    let log = Log::pending(options.log_format.unwrap_or_default());
    let plan = Plan { dir: args.dir.clone(), mountpoint: args.mountpoint.clone(), options };
    match keep(args, &plan, &log, Report::Command) {
        // The command prints it; should it be gone, or the mount have been there already, this process does.
        Err(failure) if Report::Command.failed(&failure) => std::process::exit(failure.code),
        result => result,
    }
}

/// Mounts, under a supervisor unless told otherwise.
fn keep(args: &MountArgs, plan: &Plan, log: &Log, report: Report) -> Result<(), Failure> {
    match plan.options.supervise.unwrap_or(true) {
        true => supervise::run(args, plan, log, report),
        false => daemon::run(plan, log, report, None),
    }
}

/// This process was started by a supervisor.
fn be_worker(args: &MountArgs, options: MountOptions) -> Result<(), Failure> {
    let gone = |e: std::io::Error| Failure::new(format!("a worker needs a supervisor: {e}"));
    let supervisor = Channel::of_worker().map_err(gone)?;
    let Some((charge, descriptors)) = supervisor.receive::<Charge>().map_err(gone)? else {
        return Err(Failure::new("the supervisor ended before its worker began"));
    };
    let mut descriptors = descriptors.into_iter();
    let post = Post { charge, mount: descriptors.next().zip(descriptors.next()) };
    let format = options.log_format.unwrap_or_default();
    let log = match args.foreground {
        true => Log::to_standard_error(format),
        false => Log::pending(format),
    };
    let report = Report::Supervisor { detached: !args.foreground };
    let plan = Plan { dir: args.dir.clone(), mountpoint: args.mountpoint.clone(), options };
    match daemon::run(&plan, &log, report, Some(post)) {
        Err(failure) if report.failed(&failure) => std::process::exit(failure.code),
        result => result,
    }
}

/// Mounts as mount(8) asks.
pub(crate) fn run_helper(args: HelperArgs) -> Result<(), Failure> {
    if let Some(namespace) = args.namespace {
        return Err(Failure::usage(format!(
            "-N {namespace}: mounting in another namespace is not supported: run mount in it, with nsenter(1)"
        )));
    }
    if let Some(fstype) = args.fstype.filter(|t| t != "cairn" && t != "fuse.cairn") {
        return Err(Failure::usage(format!("-t {fstype}: this mounts cairn volumes only")));
    }
    let (fake, verbose) = (args.fake, args.verbose);
    let args = MountArgs {
        dir: args.spec,
        mountpoint: args.dir,
        options: args.options,
        meta_engine: None,
        foreground: false,
        sloppy: args.sloppy,
        report_on_stdout: false,
        worker: false,
    };
    if fake {
        let options = MountOptions::parse(&args.options, args.sloppy, nix::unistd::geteuid().is_root())?;
        if options.remount {
            return remount::run(&args, &options, true);
        }
        return checks::before_mount(&args.dir, &args.mountpoint).map(drop);
    }
    run(&args)?;
    if verbose {
        println!("mount.cairn: {} mounted on {}", args.dir.display(), args.mountpoint.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    #[test]
    fn the_engine_may_be_an_argument_or_an_option() {
        let line = ["cairn", "mount", "--meta-engine=redb", "/v", "/mnt", "-o", "ro"];
        let Ok(Cli { verb: Verb::Mount(args) }) = Cli::try_parse_from(line) else { panic!("not a mount") };
        // The last one holds; the daemon is passed options only.
        assert_eq!(as_options(&args).options, ["ro", "meta_engine=redb"]);
        let failure =
            run(&MountArgs { meta_engine: Some("nonsense".into()), ..args }).expect_err("no engine");
        assert!(failure.code == 2 && failure.message.contains("nonsense"), "{failure}");
    }
}
