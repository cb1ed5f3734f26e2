//! What the man page says beyond the definition of the arguments.

use std::path::Path;

use cairn_manual::{Page, Section, generate};

use crate::cli::Args;
use crate::exit;

/// Writes the man page and completions below `share`.
pub(crate) fn write(share: &Path) -> Result<(), String> {
    let codes = [
        (exit::CLEAN, "nothing is wrong"),
        (exit::CORRECTED, "something was, and is corrected"),
        (exit::UNCORRECTED, "something is lost, or was not corrected"),
        (exit::OPERATIONAL, "it could not be checked: it is mounted, or is no volume"),
        (exit::USAGE, "wrong usage"),
        (exit::CANCELLED, "interrupted"),
    ];
    let repairs = [
        (
            "-p",
            "superblocks and footers from their other copy; packs that were not finished; a wrong index or engine; link \
             counts, orders, lengths and sums; what a mount does after a crash",
        ),
        (
            "-y",
            "names that lead nowhere go, what lost its name comes to lost+found as #NUMBER, directories that lie within \
             themselves too; inodes that are lost are made again from what is left of them; records behind damage in the \
             journal are given up; an older checkpoint is taken where the newest cannot be read",
        ),
        ("--zero-fill", "lost bytes become zeros; reading them is an error otherwise, and stays one"),
    ];
    let words = [
        ("rewritten", "from a copy that is whole"),
        ("corrected", "counted anew, or made to say what the rest says"),
        ("removed", "a cache, something left over, or what led nowhere"),
        ("rebuilt", "from what is left of it"),
        ("moved", "to lost+found"),
        ("folded", "as a mount does"),
        ("given-up", "lost for good: the volume goes on without it"),
        ("fell-back", "to an older checkpoint"),
        ("zeroed", "reads as zeros from now on"),
    ];
    let owned = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
    let sections = vec![
        Section::new("REPAIR")
            .text(
                "What is overwritten or taken away is copied to fsck-undo/TIME in the volume's directory, and in its \
                 store's, first. A run that was killed is simply run again. A volume that is mounted is refused: cairn scrub \
                 checks it meanwhile.",
            )
            .items(repairs.map(owned)),
        Section::new("UNDO")
            .text(
                "With --undo the volume becomes what it was before its last repair, as far as a check sees, from what that kept; \
                 what the repair made is moved to fsck-undo/TIME. Several repairs are undone one after another, the newest \
                 first. It is refused where the volume was mounted for writing since, where the repair did not come to its end, \
                 and where the disk had no room for a copy of the journal. Killed, it is run again.",
            )
            .text(
                "Not put back is what nobody wants back: damage of packs that was mended from parity, packs that were not finished, \
                 a copy of a superblock that was missing; nor the index and the engine, which the next mount makes. What was \
                 folded before anything was wrong stays folded.",
            ),
        Section::new("JSON")
            .text(
                "One document: dir, volume (its UUID), label, totals, checked, corrected (how many findings something was \
                 done about), result (clean, corrected or damaged), seconds, and findings. Each has severity (damage, cache \
                 or info), kind (a word that stays), what, advice, and where it applies paths, inode, offset, length, chunk, \
                 pack, file and file_offset. done is null, or what was done about it:",
            )
            .items(words.map(owned)),
        Section::new("REPORT").text(
            "With --report one HTML page is written that needs no other file: a map of the packs, the files affected, \
             findings by kind, how much of the parity was needed, what is saved, and what to do next. It takes the place of FILE \
             only when it is whole, and only of a regular file; it is written also where something is left. One that cannot be \
             written adds 8 to the exit status. A run that is interrupted writes none.",
        ),
        Section::new("EXIT STATUS")
            .text("Those of fsck(8), which add up:")
            .items(codes.map(|(code, meaning)| (code.to_string(), meaning.to_string()))),
        Section::new("EXAMPLES").example("cairn umount /mnt/photos\nfsck.cairn -n /srv/photos --report photos.html\nfsck.cairn -y /srv/photos\nfsck.cairn --undo /srv/photos"),
        Section::new("SEE ALSO").text("cairn(8), mkfs.cairn(8), fsck(8)"),
    ];
    generate(share, &[Page { command: Args::definition(), sections }], &[Args::definition()])
}
