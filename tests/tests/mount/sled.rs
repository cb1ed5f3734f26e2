//! sled as the engine, and one engine in the place of the other: whatever becomes of its files, the tree is the same.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_tests::dice::Dice;
use cairn_tests::mounted::{Mounted, SMALL};

use crate::worker::Worker;

const REBUILT: &str = "the engine is rebuilt";

/// Everything below a directory that is not one.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("its entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// How often the log says that an engine was rebuilt.
fn rebuilt(m: &Mounted) -> usize {
    fs::read_to_string(m.dir().join("log")).expect("a log").matches(REBUILT).count()
}

fn mount_with(m: &Mounted, engine: &str) {
    m.try_mount(&[&format!("meta_engine={engine}")]).ok();
}

#[test]
fn a_volume_goes_from_engine_to_engine_and_through_kills() {
    let m = Mounted::with(&SMALL, &["meta_engine=sled"]);
    let mut worker = Worker::new(m.path("worker"), 1);
    assert!(worker.work(300).is_none());
    m.sync();
    assert!(worker.work(100).is_none());
    m.kill();
    m.take_away();
    m.fsck();
    m.mount();
    worker.check();
    assert_eq!(rebuilt(&m), 1, "a killed sled is not opened");
    m.remount();
    worker.check();
    assert_eq!(rebuilt(&m), 1, "one that was closed is");
    m.unmount();
    m.fsck();
    assert!(m.dir().join("engine/sled.seal").exists());

    mount_with(&m, "redb");
    worker.check();
    assert_eq!(files(&m.dir().join("engine")), [m.dir().join("engine/namespace.redb")]);
    m.sync();
    m.kill();
    mount_with(&m, "sled");
    worker.check();
    assert!(!m.dir().join("engine/namespace.redb").exists());
    m.finish();
}

#[test]
fn a_sled_whose_files_are_spoilt_is_rebuilt() {
    let m = Mounted::with(&SMALL, &["meta_engine=sled"]);
    let mut worker = Worker::new(m.path("worker"), 3);
    for round in 0..12u64 {
        assert!(worker.work(60).is_none());
        m.unmount();
        let before = rebuilt(&m);
        let mut dice = Dice::new(round);
        let mut files = files(&m.dir().join("engine"));
        // Not sled's: without it the engine is gone through, and found whole.
        files.retain(|path| path.file_name() != Some("sum".as_ref()));
        let victim = &files[round as usize % files.len()];
        let mut bytes = fs::read(victim).expect("an engine's file");
        let at = dice.below(bytes.len() as u64) as usize;
        match dice.below(3) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << dice.below(8),
            _ => bytes[at..].iter_mut().take(4096).for_each(|b| *b = dice.roll() as u8),
        }
        if dice.one_in(4) { fs::remove_file(victim) } else { fs::write(victim, bytes) }.expect("root may");
        m.mount();
        worker.check();
        assert_eq!(rebuilt(&m), before + 1, "round {round}: {}", victim.display());
    }
    m.unmount();
    fs::write(m.dir().join("engine/sled.seal"), [0; 56]).expect("root may");
    // Only a cache: fsck says so, and that nothing is lost.
    m.fsck();
    m.mount();
    worker.check();
    m.finish();
}
