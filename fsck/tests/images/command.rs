//! The command: its exit codes and what it prints.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cairn_format::key::Key;
use cairn_format::{Domain, Seal};

use crate::fixture::{Fixture, flip};

fn fsck(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fsck-cairn")).args(args).arg(dir).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_clean_volume_is_0_and_one_line() {
    let volume = Fixture::filled();
    for args in [&[][..], &["-n"], &["-f", "-n"], &["-C0"], &["-C"]] {
        let output = fsck(args, &volume.dir());
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(out(&output).contains(": clean, 4 files, "), "{}", out(&output));
        assert_eq!(out(&output).lines().count(), 1);
        assert_eq!(err(&output), "");
    }
    assert!(out(&fsck(&["-v"], &volume.dir())).contains("9 inodes: 4 files"));
}

#[test]
fn damage_is_4_and_names_the_file() {
    let volume = Fixture::filled_without_parity();
    let pack = volume.footers(cairn_format::PackKind::Data).remove(0);
    flip(&volume.pack_path(&pack.pack), pack.frames[0].offset + 40);
    let output = fsck(&[], &volume.dir());
    assert_eq!(code(&output), 4);
    assert!(
        out(&output).lines().any(|l| l.starts_with('/') && l.contains("(chunk ") && l.contains(", pack "))
    );
    assert!(out(&output).trim_end().ends_with("findings left"), "{}", out(&output));
    let json: serde_json::Value = serde_json::from_slice(&fsck(&["--json"], &volume.dir()).stdout).unwrap();
    assert_eq!(json["schema_version"], 2);
    assert_eq!(json["result"], "damaged");
    assert_eq!(json["findings"][0]["severity"], "damage");
}

#[test]
fn what_is_no_volume_is_8_and_stays_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let output = fsck(&[], temp.path());
    assert_eq!(code(&output), 8);
    assert!(err(&output).contains("not a cairn volume"), "{}", err(&output));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    assert_eq!(code(&fsck(&[], &temp.path().join("none"))), 8);
}

#[test]
fn a_newer_format_is_8() {
    let volume = Fixture::filled();
    let path = volume.path("superblock");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] += 1;
    fs::write(&path, resealed(bytes.clone())).unwrap();
    let output = fsck(&[], &volume.dir());
    assert_eq!(code(&output), 8);
    assert!(err(&output).contains("newer"), "{}", err(&output));
    // A version that rotted is not a newer one: the other replica is whole.
    bytes[8] ^= 0x80;
    fs::write(&path, bytes).unwrap();
    let output = fsck(&[], &volume.dir());
    assert_eq!(code(&output), 4, "{}", err(&output));
}

/// A superblock with the checksum that its bytes take.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.len() - 8;
    let sum = Seal::new(Domain::Superblock, &[0; 16], 0).sum(&bytes[..at]);
    bytes[at..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn a_mounted_volume_is_8_and_says_so() {
    let volume = Fixture::filled();
    let mounted = volume.open();
    // The lock's holder is no mount that people see, so that fsck waits: what it says then is enough.
    let mut child = Command::new(env!("CARGO_BIN_EXE_fsck-cairn"))
        .arg(volume.dir())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    mounted.close().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0);
    assert!(err(&output).contains("waiting"), "{}", err(&output));
}

#[test]
fn wrong_usage_is_16() {
    let volume = Fixture::filled();
    for args in
        [&["-n", "-p"][..], &["-y", "-p"], &["-n", "-y"], &["--zero-fill"], &["--nonsense"], &["-C77"]]
    {
        let output = fsck(args, &volume.dir());
        assert_eq!(code(&output), 16, "{args:?}");
        assert!(!err(&output).is_empty());
    }
    let version = Command::new(env!("CARGO_BIN_EXE_fsck-cairn")).arg("-V").output().unwrap();
    assert_eq!(code(&version), 0);
}

#[test]
fn what_is_corrected_is_1_and_what_is_left_4_and_both_add_up() {
    let volume = Fixture::filled_without_parity();
    assert!(out(&fsck(&["-p"], &volume.dir())).contains("clean: it was unmounted in order"));
    flip(&volume.path("superblock"), 200);
    let output = fsck(&["-p"], &volume.dir());
    assert_eq!(code(&output), 1, "{}", out(&output));
    assert!(out(&output).contains("WRITTEN AGAIN") && out(&output).contains(": 1 finding corrected, clean"));
    assert_eq!(code(&fsck(&["-f", "-a"], &volume.dir())), 0);
    // Lost bytes stay lost, unless somebody wants zeros.
    let pack = volume.footers(cairn_format::PackKind::Data).remove(0);
    flip(&volume.pack_path(&pack.pack), pack.frames[0].offset + 40);
    flip(&volume.path("superblock.backup"), 200);
    let output = fsck(&["-y", "--json"], &volume.dir());
    assert_eq!(code(&output), 5, "{}", out(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["result"], &json["checked"], &json["corrected"]),
        (&"damaged".into(), &true.into(), &1.into())
    );
    assert_eq!(json["findings"][0]["done"], "rewritten");
    assert_eq!(code(&fsck(&["-n"], &volume.dir())), 4);
    // The frame itself is damaged still, though nothing names it any more: the next fold or collection is rid of it.
    let output = fsck(&["-y", "--zero-fill"], &volume.dir());
    assert!(out(&output).contains("ZEROED"), "{}", out(&output));
}

#[test]
fn a_repair_is_undone_by_undo_and_only_once() {
    let volume = Fixture::filled();
    volume.rewrite_state(|records| {
        records.retain(|key, _| !matches!(Key::decode(key), Some(Key::Pack(_))));
    });
    let before = out(&fsck(&["-n"], &volume.dir()));
    assert_eq!(code(&fsck(&["--undo"], &volume.dir())), 8, "nothing was repaired yet");
    assert_eq!(code(&fsck(&["-y"], &volume.dir())), 1);
    for wrong in [&["--undo", "-y"][..], &["--undo", "-n"], &["--undo=../.."], &["--undo=20010101-000000"]] {
        let refused = fsck(wrong, &volume.dir());
        assert!([8, 16].contains(&code(&refused)), "{wrong:?}: {}", err(&refused));
    }
    assert_eq!(code(&fsck(&["-n"], &volume.dir())), 0, "what was refused changed nothing");
    let undone = fsck(&["--undo", "--json"], &volume.dir());
    assert_eq!(code(&undone), 0, "{}", err(&undone));
    let json: serde_json::Value = serde_json::from_slice(&undone.stdout).unwrap();
    assert_eq!(
        (json["message_type"].as_str(), json["schema_version"].as_u64()),
        (Some("fsck-undo"), Some(1))
    );
    assert!(json["put_back"].as_array().is_some_and(|files| files.contains(&"superblock".into())), "{json}");
    let after = out(&fsck(&["-n"], &volume.dir()));
    let damage = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.starts_with("note:") && !line.contains("/v: "))
            .map(str::to_owned)
            .collect()
    };
    let lines =
        |text: &str| damage(text).into_iter().filter(|line| !line.contains("suspect")).collect::<Vec<_>>();
    assert_eq!(lines(&after), lines(&before));
    let again = fsck(&["--undo"], &volume.dir());
    assert!(code(&again) == 8 && err(&again).contains("nothing was put back"), "{}", err(&again));
    assert_eq!(code(&fsck(&["-y"], &volume.dir())), 1);
    let text = out(&fsck(&["--undo"], &volume.dir()));
    assert!(text.contains("was undone") && text.contains("superblock"), "{text}");
    // And it is a volume that is used like any other.
    assert_eq!(code(&fsck(&["-y"], &volume.dir())), 1);
    volume.open().close().unwrap();
    let late = fsck(&["--undo"], &volume.dir());
    assert!(code(&late) == 8 && err(&late).contains("mounted for writing"), "{}", err(&late));
    assert_eq!(code(&fsck(&["-n"], &volume.dir())), 0);
}
