//! What the man page says beyond the definition of the arguments.

use std::path::Path;

use cairn_manual::{Page, Section, generate};
use clap::CommandFactory;

use crate::args::Args;

/// Writes the man page and completions below `share`.
pub(crate) fn write(share: &Path) -> Result<(), String> {
    let sections = vec![
        Section::new("EXIT STATUS").item("0", "made").item("1", "not made").item("2", "wrong usage"),
        Section::new("EXAMPLES")
            .text("A volume with a name:")
            .example("mkfs.cairn -L photos /srv/photos")
            .text("One for data that hardly compresses, with a smaller journal:")
            .example("mkfs.cairn --compress none --journal-size 128M /srv/films"),
        Section::new("SEE ALSO").text("cairn(8), fsck.cairn(8), mkfs(8)"),
    ];
    generate(share, &[Page { command: Args::command(), sections }], &[Args::command()])
}
