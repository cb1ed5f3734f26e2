//! What to do, in the words of docs/REPAIR.md.

use crate::{Page, Verdict};

/// What is to be done, one behind the other.
pub(crate) fn steps(page: &Page) -> &'static [&'static str] {
    match page.verdict {
        Verdict::Whole => &WHOLE,
        Verdict::Corrected => &CORRECTED,
        Verdict::NotLooked => &NOT_LOOKED,
        Verdict::Damaged if page.lost => &LOST,
        Verdict::Damaged => &DAMAGED,
    }
}

const WHOLE: [&str; 1] =
    ["Nothing. Keep a backup all the same: parity does not bring back a pack that is missing."];
const CORRECTED: [&str; 1] = [
    "Nothing is lost. A disk that needs it often wants replacing: copy the volume's directory to another one while \
     everything can be read.",
];
const NOT_LOOKED: [&str; 1] =
    ["Nothing, as far as the volume says of itself. `fsck.cairn -f -n DIR` looks in any case."];
const DAMAGED: [&str; 2] = [
    "Nothing of any file is known to be lost. `fsck.cairn -p DIR` repairs what loses nothing, with the volume unmounted; \
     `cairn scrub` writes back what parity restores, mounted or not.",
    "A disk that needs it often wants replacing: copy the volume's directory to another one while everything can be read.",
];
const LOST: [&str; 5] = [
    "Copy the volume's directory first, if there is room: `cp -a`.",
    "`fsck.cairn -n DIR` lists the files, with offset, length, chunk and pack. `cairn mount -o ro` shows what can be read.",
    "Have the pack or segment that is named back from a backup of the volume, if there is one: put into its place it is whole again.",
    "Else `fsck.cairn -y DIR`, then copy the listed files from wherever they are still; written over, they are whole.",
    "Look into `/lost+found`.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_is_what_the_document_says() {
        let document: Vec<_> = include_str!("../../../docs/REPAIR.md").split_whitespace().collect();
        let document = document.join(" ");
        for step in LOST.iter().chain(&DAMAGED[1..]) {
            assert!(document.contains(step), "docs/REPAIR.md does not say: {step}");
        }
    }
}
