//! The command line, as fsck(8) and people give it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

/// Check a cairn volume that is not mounted, and repair it where -p or -y says so.
///
/// Reads everything: superblocks, journal, each pack's every byte, the namespace, and the caches. Changes nothing unless it is
/// told to. Exit codes, which add up: 0 nothing is wrong, 1 something was corrected, 4 something is lost, 8 it could not be
/// checked, 16 wrong usage, 32 interrupted.
#[derive(Debug, Parser)]
#[command(name = "fsck.cairn", disable_version_flag = true)]
pub(crate) struct Args {
    /// The volume's directory.
    pub(crate) dir: PathBuf,
    /// Change nothing: what is done unless -p, -a or -y is given.
    #[arg(short = 'n', conflicts_with_all = ["preen", "yes", "zero_fill"])]
    pub(crate) no: bool,
    /// Repair what can be repaired without losing anything. A volume that was unmounted in order, and of which nobody noted
    /// damage, is not even checked, unless with -f.
    #[arg(short = 'p', visible_short_alias = 'a', conflicts_with_all = ["yes", "zero_fill"])]
    pub(crate) preen: bool,
    /// Repair everything that makes the volume usable, though it may mean to give up what cannot be had back: what that was
    /// is told.
    #[arg(short = 'y')]
    pub(crate) yes: bool,
    /// With -y: have bytes that are lost read as zeros instead of an error. Nobody can tell them from zeros afterwards.
    #[arg(long, requires = "yes")]
    pub(crate) zero_fill: bool,
    /// Put back what the newest repair kept in fsck-undo/, or the one of this TIME: the volume is what it was before it. Not
    /// where it was mounted for writing since.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        conflicts_with_all = ["no", "preen", "yes", "zero_fill", "force", "report"]
    )]
    pub(crate) undo: Option<String>,
    /// With -y: make the volume again in DIR, which is empty, from the directories that mkfs.cairn's --parity-across named: all
    /// of them. What was only in the journal is lost.
    #[arg(long, requires = "yes", value_name = "DIR,DIR", value_delimiter = ',')]
    pub(crate) from_twins: Vec<PathBuf>,
    /// Check even if the volume seems clean.
    #[arg(short = 'f')]
    pub(crate) force: bool,
    /// Tell each step, and what was gone through.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw what was found on one HTML page: a map of the packs, the files affected, margins, savings.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Show progress: to a file descriptor as e2fsck does, or with 0 (or -C alone) as a bar. The bar is shown on a
    /// terminal anyway.
    #[arg(short = 'C', value_name = "FD", require_equals = true)]
    pub(crate) progress: Option<u32>,
    /// Print the version.
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

impl Args {
    /// The command, with its version, which `-V` prints.
    pub(crate) fn definition() -> clap::Command {
        <Args as clap::CommandFactory>::command().version(env!("CARGO_PKG_VERSION"))
    }

    /// From the command line: `-C`, `-C3` and `-C 3` mean what they do to e2fsck.
    pub(crate) fn parse_from_os() -> Result<Args, clap::Error> {
        let matches = Args::definition().try_get_matches_from(spelt_out(std::env::args_os().collect()))?;
        <Args as clap::FromArgMatches>::from_arg_matches(&matches)
    }
}

/// `-C` and its number, if any, as one word that cannot be mistaken.
fn spelt_out(args: Vec<OsString>) -> Vec<OsString> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut out = Vec::with_capacity(args.len());
    let mut rest = args.into_iter().peekable();
    while let Some(arg) = rest.next() {
        match arg.to_str() {
            // What follows it is a number only if a directory can follow that.
            Some("-C") if rest.len() > 1 && rest.peek().and_then(|n| n.to_str()).is_some_and(is_number) => {
                let number = rest.next().unwrap_or_default();
                out.push(["-C=".into(), number].into_iter().collect());
            }
            Some("-C") => out.push("-C=0".into()),
            Some(text) if text.strip_prefix("-C").is_some_and(is_number) => {
                out.push(format!("-C={}", &text[2..]).into());
            }
            Some("--") => {
                out.push(arg);
                out.extend(rest);
                return out;
            }
            _ => out.push(arg),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelt(args: &str) -> String {
        let args = args.split(' ').map(OsString::from).collect();
        spelt_out(args).join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn progress_descriptors_are_read_as_e2fsck_reads_them() {
        assert_eq!(spelt("fsck -C dir"), "fsck -C=0 dir");
        assert_eq!(spelt("fsck -C0 -f dir"), "fsck -C=0 -f dir");
        assert_eq!(spelt("fsck -C 3 dir"), "fsck -C=3 dir");
        assert_eq!(spelt("fsck -C 3"), "fsck -C=0 3");
        assert_eq!(spelt("fsck -f -- -C"), "fsck -f -- -C");
    }
}
