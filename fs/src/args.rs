//! The command line, defined once.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::{failure, graphics, options, size};

/// A filesystem that deduplicates, compresses and checks what it stores.
///
/// Make a volume with mkfs.cairn, mount it with `cairn mount`, check it with fsck.cairn.
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    arg_required_else_help = true,
    after_help = format!("Exit codes: {}.", failure::exit_codes())
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What `cairn` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Mount the volume in DIR at MOUNTPOINT; returns when it can be used.
    Mount(MountArgs),
    /// Unmount; returns when everything is folded and the volume is free.
    Umount(UmountArgs),
    /// Wait until everything written so far is folded: deduplicated, compressed and in packs.
    Sync(SyncArgs),
    /// Tell how much a volume holds and what that takes.
    Df(DfArgs),
    /// Tell what a volume is, and who has it mounted, how.
    Info(InfoArgs),
    /// Tell what a mounted volume did so far, or does.
    Stats(StatsArgs),
    /// Tell what files take, and why: what they share with others, where they lie.
    Why(WhyArgs),
    /// Give back the room of what was deleted: rewrite packs that are partly dead, and make small ones one.
    Gc(GcArgs),
    /// Read everything, write back what is damaged, and name what is lost.
    Scrub(ScrubArgs),
    /// Damage copies of some of a volume's packs, repair them, and tell how much it survives. The volume is only read.
    Drill(DrillArgs),
    /// Have back what is lost beyond parity, from copies that are somewhere else.
    Repair(RepairArgs),
    /// Have another build of cairn go on with a mount that is in use.
    Upgrade(UpgradeArgs),
    /// Measure what this machine does for a volume.
    Bench(BenchArgs),
}

/// Arguments of `cairn mount`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MountArgs {
    /// The volume's directory, made by mkfs.cairn.
    pub(crate) dir: PathBuf,
    /// The directory to mount it at.
    pub(crate) mountpoint: PathBuf,
    /// Mount options: see [`options::OPTIONS`].
    #[arg(short = 'o', value_name = "OPTIONS", help = options::help(), allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
    /// What caches the namespace: redb or, where it was built in, sled; the same as -o meta_engine=ENGINE.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) meta_engine: Option<String>,
    /// Stay in the foreground and log to standard error.
    #[arg(short = 'f', long)]
    pub(crate) foreground: bool,
    /// Ignore mount options that are not known.
    #[arg(short = 's')]
    pub(crate) sloppy: bool,
    /// This process is the daemon: tell how the mount went on standard output.
    #[arg(long, hide = true)]
    pub(crate) report_on_stdout: bool,
    /// This process is a worker: standard output leads to its supervisor.
    #[arg(long, hide = true)]
    pub(crate) worker: bool,
}

/// Arguments of `cairn bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// How fast tensors are coded and decoded, by the processor and by a graphics processor, and which of them a mount uses.
    #[arg(long, required = true)]
    pub(crate) codec: bool,
    /// What mounts are told: off, auto or on, which takes a driver that computes on the processor, too.
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = graphics::parse)]
    pub(crate) gpu: graphics::Wanted,
    /// So many MiB of each kind of number.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) mib: u16,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cairn umount`.
#[derive(Args, Debug)]
pub(crate) struct UmountArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
}

/// Arguments of `cairn sync`.
#[derive(Args, Debug)]
pub(crate) struct SyncArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
}

/// Arguments of `cairn df`.
#[derive(Args, Debug)]
pub(crate) struct DfArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cairn info`.
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cairn stats`.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
    /// Print one JSON document, with --interval one a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on, and tell every so many seconds what was done in them.
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval)]
    pub(crate) interval: Option<Duration>,
    /// So many times, instead of until it is interrupted.
    #[arg(long, value_name = "N", requires = "interval")]
    pub(crate) count: Option<u64>,
}

/// Arguments of `cairn why`.
#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// Files in a mounted volume. Whoever may read one may ask.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Print one JSON document a line, for each path.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cairn gc`.
#[derive(Args, Debug)]
pub(crate) struct GcArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
    /// Rewrite packs of which less than so many percent is used; 91 unless given.
    #[arg(long, value_name = "PCT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) threshold: Option<u8>,
    /// End after this time, as in 90s, 10m or 2h; the next run goes on.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) max_duration: Option<Duration>,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cairn scrub`.
#[derive(Args, Debug)]
pub(crate) struct ScrubArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
    /// Decode everything, too, and hold each chunk against its id.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Only what this file, or the files below this directory, are stored in: a path from the volume's root, or one
    /// where it is mounted.
    #[arg(long = "path", value_name = "PATH")]
    pub(crate) only: Option<PathBuf>,
    /// Only packs that damage was met in before.
    #[arg(long)]
    pub(crate) errors_only: bool,
    /// Read so many megabytes a second at most.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// End after this time, as in 90s, 10m or 2h, once one pack was looked through; the next run goes on.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) max_duration: Option<Duration>,
    /// Only look: what is damaged stays as it is.
    #[arg(long)]
    pub(crate) no_repair: bool,
    /// Draw what was found on one HTML page: a map of the packs, the files affected, margins, savings.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cairn drill`.
#[derive(Args, Debug)]
pub(crate) struct DrillArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
    /// Copy so many bytes of packs at most, as in 1G, but at least one pack of each kind; 256M unless given.
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "256M", hide_default_value = true)]
    pub(crate) sample: u64,
    /// Do each damage so often; 3 times unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) rounds: Option<u64>,
    /// What chance goes by: the same packs are damaged in the same way again. Drawn, and told, unless given.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Make the copies in a new directory in DIR; in the system's temporary directory unless given.
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// Leave the copies where they are.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cairn repair`.
#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
    /// Where to look: files, directories with all that is below them, volumes, copies of this volume's packs. Without
    /// it only the store itself is looked through for other copies.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) from: Vec<PathBuf>,
    /// Only look: tell what would be had back, and change nothing.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Hold each chunk of all packs against its id, too.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Only packs that the last scrub or repair met damage in, and missing ones; else all are read.
    #[arg(long)]
    pub(crate) errors_only: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cairn upgrade`.
#[derive(Args, Debug)]
pub(crate) struct UpgradeArgs {
    /// Where the volume is mounted, or its directory.
    pub(crate) path: PathBuf,
    /// The program that goes on; the one that this command is unless given.
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A number of seconds, minutes, hours or days.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => 0,
    };
    match number.parse::<u32>() {
        Ok(number) if seconds > 0 => Ok(Duration::from_secs(u64::from(number) * seconds)),
        _ => Err("write a number of seconds, or one with m, h or d, as in 10m".to_string()),
    }
}

/// A tenth of a second to a day.
fn parse_interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write a number of seconds, from 0.1 to 86400".to_string()),
    }
}

/// Mount a cairn volume, as mount(8) asks for it.
///
/// This is how `mount -t cairn` and lines in /etc/fstab reach cairn; by hand, `cairn mount` is the same.
#[derive(Debug, Parser)]
#[command(name = "mount.cairn", version)]
pub(crate) struct HelperArgs {
    /// The volume's directory, made by mkfs.cairn.
    pub(crate) spec: PathBuf,
    /// The directory to mount it at.
    pub(crate) dir: PathBuf,
    /// Mount options, as for `cairn mount`.
    #[arg(short = 'o', value_name = "OPTIONS", allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
    /// Ignore mount options that are not known.
    #[arg(short = 's')]
    pub(crate) sloppy: bool,
    /// Check everything, but do not mount.
    #[arg(short = 'f')]
    pub(crate) fake: bool,
    /// Do not write /etc/mtab (cairn never does).
    #[arg(short = 'n')]
    pub(crate) no_mtab: bool,
    /// Say what is done.
    #[arg(short = 'v')]
    pub(crate) verbose: bool,
    /// Mount in another namespace: not supported.
    #[arg(short = 'N', value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The type that was asked for: cairn or fuse.cairn.
    #[arg(short = 't', value_name = "TYPE")]
    pub(crate) fstype: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
        HelperArgs::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("2h"), parse_duration("7200s"));
        for wrong in ["", "m", "ten", "1.5h", "10 m", "-1", "99999999999"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts_options_may_stand_anywhere() {
        let cli = Cli::try_parse_from(["cairn", "mount", "-o", "ro", "/a", "/b", "-o", "noatime,exec", "-f"]);
        let Ok(Cli { verb: Verb::Mount(args) }) = cli else { panic!("not a mount: {cli:?}") };
        assert_eq!(args.options, ["ro", "noatime,exec"]);
        assert!(args.foreground && !args.sloppy);
    }

    #[test]
    fn the_helper_takes_what_mount_passes() {
        let args =
            HelperArgs::try_parse_from(["mount.cairn", "/a", "/b", "-sfnv", "-o", "rw,x-y=1", "-t", "cairn"]);
        let args = args.expect("mount(8)'s syntax");
        assert!(args.sloppy && args.fake && args.no_mtab && args.verbose && args.namespace.is_none());
        assert_eq!(args.options, ["rw,x-y=1"]);
    }
}
