//! `--report`: that the page says what the JSON document of the same run does, whatever became of the volume.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use cairn_format::PackKind;
use cairn_page::Shown;
use serde_json::Value;

use crate::fixture::{Fixture, flip, noise, write};
use crate::wellformed::{Parsed, number, parse};

/// A run with a page.
struct Ran {
    code: i32,
    json: Value,
    err: String,
    page: Parsed,
}

fn fsck(args: &[&str], volume: &Fixture) -> Ran {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("page.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-cairn"));
    let output =
        command.args(args).arg("--json").arg("--report").arg(&path).arg(volume.dir()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let html = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{e}: {err}"));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "something is left beside the page");
    Ran {
        code: output.status.code().unwrap(),
        json: serde_json::from_slice(&output.stdout).unwrap(),
        err,
        page: parse(&html).unwrap(),
    }
}

impl Ran {
    /// The numbers of the page are those of the document.
    fn agrees(&self) {
        let totals = &self.json["totals"];
        for (id, field) in [
            ("inodes", "inodes"),
            ("files-gone-through", "files"),
            ("directories", "directories"),
            ("pack-bytes", "pack_bytes"),
            ("frames", "frames"),
            ("chunks", "chunks"),
            ("journal-records", "journal_records"),
            ("engine-records", "engine_records"),
        ] {
            assert_eq!(number(&self.page, id), totals[field].as_u64().unwrap(), "{id}");
        }
        let findings = self.json["findings"].as_array().unwrap();
        if findings.is_empty() {
            assert!(self.page.text.contains("Nothing was found."));
            return;
        }
        assert_eq!(number(&self.page, "findings-all"), findings.len() as u64);
        assert_eq!(number(&self.page, "findings-corrected"), self.json["corrected"].as_u64().unwrap());
    }

    fn packs(&self, state: &str) -> u64 {
        number(&self.page, &format!("packs-{state}"))
    }
}

#[test]
fn a_clean_volume_is_drawn_with_its_packs_and_what_they_save() {
    let volume = Fixture::filled();
    let ran = fsck(&["-n"], &volume);
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.agrees();
    let packs = ran.json["totals"]["packs"].as_u64().unwrap();
    assert_eq!((ran.packs("all"), ran.packs("whole")), (packs, packs));
    assert_eq!(number(&ran.page, "packs-bytes"), ran.json["totals"]["pack_bytes"].as_u64().unwrap());
    assert_eq!(number(&ran.page, "logical"), ran.json["totals"]["logical"].as_u64().unwrap());
    let parts = ["stored", "metadata", "parity"].map(|id| number(&ran.page, id));
    assert_eq!(parts.iter().sum::<u64>(), number(&ran.page, "packs-bytes"), "{parts:?}");
    for said in
        ["small", "16+2: any 2 bad sectors of a pack", "fsck.cairn -n", ran.json["volume"].as_str().unwrap()]
    {
        assert!(ran.page.text.contains(said), "{said} is not on the page");
    }
    assert!(ran.page.text.contains("in this run") && ran.page.text.contains("What to do next"));
}

#[test]
fn a_volume_that_is_not_gone_through_is_outlined() {
    let volume = Fixture::filled();
    let ran = fsck(&["-p"], &volume);
    assert_eq!((ran.code, ran.json["checked"].as_bool()), (0, Some(false)));
    assert!(ran.packs("all") > 0);
    assert_eq!(ran.packs("all"), ran.packs("unseen"));
    assert!(ran.page.text.contains("it was not gone through"));
}

#[test]
fn every_affected_path_is_on_the_page_hostile_ones_too() {
    let names: [&[u8]; 6] = [
        b"<script>alert(1)",
        b"\"><img src=x onerror=alert(1)>",
        "invoice\u{202e}gpj.exe".as_bytes(),
        b"two\nlines",
        b"not UTF-8 \xff\xfe",
        b"&amp; ' \\xff",
    ];
    let volume = Fixture::filled_without_parity();
    let opened = volume.open();
    let inodes: Vec<_> =
        names.iter().zip(10..).map(|(name, seed)| write(&opened, 1, name, &noise(9_000, seed))).collect();
    opened.close().unwrap();
    for footer in volume.footers(PackKind::Data) {
        for frame in &footer.frames {
            flip(&volume.pack_path(&footer.pack), frame.offset + 40);
        }
    }
    let ran = fsck(&["-n"], &volume);
    assert_eq!(ran.code, 4, "{}", ran.err);
    ran.agrees();
    assert!(ran.packs("lost") > 0 && ran.packs("all") == ran.packs("lost") + ran.packs("whole"));
    let findings = ran.json["findings"].as_array().unwrap();
    let affected: BTreeSet<u64> = findings.iter().filter_map(|f| f["inode"].as_u64()).collect();
    assert!(inodes.iter().all(|ino| affected.contains(ino)), "{findings:?}");
    let plain = |path: &&str| path.chars().all(|c| c.is_ascii_alphanumeric() || c == '/');
    let paths =
        findings.iter().flat_map(|f| f["paths"].as_array().unwrap()).map(|path| path.as_str().unwrap());
    for path in paths.filter(plain) {
        assert!(ran.page.text.contains(path), "{path} is not on the page");
    }
    for name in names {
        let shown = Shown::new(&[b"/", name].concat());
        assert!(ran.page.text.contains(shown.as_str()), "{shown} is not on the page");
    }
    assert!(!ran.page.elements.iter().any(|(name, _)| name == "script" || name == "img"));
    assert!(ran.page.text.contains("Look into /lost+found."), "what to do next");
}

#[test]
fn damage_that_parity_reaches_is_drawn_as_that_and_then_as_healed_with_its_margin() {
    let volume = Fixture::filled();
    let data = volume.footers(PackKind::Data).remove(0);
    flip(&volume.pack_path(&data.pack), data.frames[0].offset + 40);
    let looked = fsck(&["-n"], &volume);
    assert_eq!((looked.code, looked.packs("damaged"), looked.packs("lost")), (4, 1, 0), "{}", looked.err);
    looked.agrees();
    assert!(looked.page.text.contains("1 of 2"), "the margin");
    assert!(looked.page.text.contains("fsck.cairn -p DIR"), "what to do next");
    let repaired = fsck(&["-f", "-p"], &volume);
    assert_eq!((repaired.code, repaired.packs("healed"), repaired.packs("damaged")), (1, 1, 0));
    repaired.agrees();
    assert!(repaired.page.text.contains("1 of 2") && repaired.page.text.contains("written again"));
    let clean = fsck(&["-n"], &volume);
    assert_eq!((clean.code, clean.packs("whole")), (0, clean.packs("all")));
}

#[test]
fn a_missing_pack_and_a_lost_superblock_are_on_the_page() {
    let volume = Fixture::filled();
    let data = volume.footers(PackKind::Data).remove(0);
    fs::remove_file(volume.pack_path(&data.pack)).unwrap();
    let ran = fsck(&["-n"], &volume);
    assert_eq!((ran.code, ran.packs("lost")), (4, 1), "{}", ran.err);
    assert!(ran.page.text.contains(&data.pack.to_string()) && ran.page.text.contains("missing"));
    for replica in ["superblock", "superblock.backup"] {
        flip(&volume.path(replica), 200);
    }
    let ran = fsck(&["-y"], &volume);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.page.text.contains("They were not come to") && ran.page.text.contains("cannot be read"));
}

#[test]
fn a_page_replaces_nothing_but_a_regular_file_and_the_code_still_says_what_was_found() {
    let volume = Fixture::filled_without_parity();
    let temp = tempfile::tempdir().unwrap();
    let before = volume.bytes();
    let run = |path: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-cairn"));
        let output = command.args(["-f", "-p", "--report"]).arg(path).arg(volume.dir()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let link = temp.path().join("link");
    symlink("elsewhere", &link).unwrap();
    for path in [temp.path(), &link, Path::new("/dev/null"), &temp.path().join("none/page.html")] {
        let (code, err) = run(path);
        assert_eq!(code, 8, "{err}");
        assert!(err.contains(path.to_str().unwrap()) && err.contains("--report"), "{err}");
    }
    assert!(volume.bytes() == before, "it looked all the same");
    // A second one takes the place of the first.
    let page = temp.path().join("page.html");
    fs::write(&page, "the one before").unwrap();
    flip(&volume.path("superblock"), 200);
    assert_eq!(run(&page), (1, String::new()));
    assert!(fs::read_to_string(&page).unwrap().starts_with("<!DOCTYPE html>"));
}
