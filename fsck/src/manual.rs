//! What the man page says beyond the definition of the arguments.

use std::path::Path;

use cairn_manual::{Page, Section, generate};

use crate::cli::Args;
use crate::exit;

/// Writes the man page and completions below `share`.
pub(crate) fn write(share: &Path) -> Result<(), String> {
    let codes = [
        (exit::CLEAN, "nothing is lost"),
        (exit::UNCORRECTED, "something is"),
        (exit::OPERATIONAL, "it could not be checked: it is mounted, or is no volume"),
        (exit::USAGE, "wrong usage"),
        (exit::CANCELLED, "interrupted"),
    ];
    let sections = vec![
        Section::new("EXIT STATUS")
            .text("Those of fsck(8):")
            .items(codes.map(|(code, meaning)| (code.to_string(), meaning.to_string()))),
        Section::new("EXAMPLES").example("cairn umount /mnt/photos\nfsck.cairn -n /srv/photos"),
        Section::new("SEE ALSO").text("cairn(8), mkfs.cairn(8), fsck(8)"),
    ];
    generate(share, &[Page { command: Args::definition(), sections }], &[Args::definition()])
}
