//! Second copies through a mount: of packs on the same disk, and of everything on another, which goes, comes back, and is all
//! that is left.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, SmallDisk, run, wait_until};

const FILE: usize = 300_000;
const FILES: u64 = 12;

fn write(path: &Path, seed: u64) {
    let mut file = File::create(path).expect("a new name");
    file.write_all(&noise(seed, FILE)).expect("written");
    file.sync_all().expect("synced");
}

fn all_there(m: &Mounted, count: u64) {
    for seed in 0..count {
        let found = fs::read(m.path(seed.to_string())).unwrap_or_else(|e| panic!("file {seed}: {e}"));
        assert!(found == noise(seed, FILE), "file {seed} is not what was written");
    }
}

fn told(m: &Mounted, field: &str) -> u64 {
    let ran = run("cairn", [OsStr::new("stats"), OsStr::new("--json"), m.at().as_os_str()]).ok();
    let document: serde_json::Value = serde_json::from_str(&ran).expect("a document");
    document[field].as_u64().unwrap_or_else(|| panic!("{field} of {document}"))
}

fn info(m: &Mounted) -> String {
    run("cairn", [OsStr::new("info"), m.dir().as_os_str()]).ok()
}

/// All packs below a directory, by their names.
fn packs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(packs(&path)),
            path if path.extension() == Some(OsStr::new("pack")) => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

#[test]
fn any_metadata_pack_may_be_gone_and_is_there_again() {
    let m = Mounted::with(&["--journal-size", "16M", "--segment-size", "2M"], &[]);
    (0..FILES).for_each(|seed| write(&m.path(seed.to_string()), seed));
    m.sync();
    wait_until("they have second copies", || told(&m, "twins") > 0 && told(&m, "twins_waiting") == 0);
    m.unmount();
    let twins = packs(&m.dir().join("store/twins"));
    assert!(!twins.is_empty(), "nothing is there twice");
    for twin in &twins {
        let pack = PathBuf::from(twin.display().to_string().replacen("/store/twins/", "/store/packs/", 1));
        let before = fs::read(&pack).expect("a pack");
        fs::remove_file(&pack).expect("there");
        // The engine is no help.
        fs::remove_dir_all(m.dir().join("engine")).expect("there");
        fs::create_dir(m.dir().join("engine")).expect("a new name");
        m.mount();
        all_there(&m, FILES);
        wait_until("it is mended", || told(&m, "packs_waiting") == 0);
        assert!(fs::read(&pack).expect("there again") == before, "{}", pack.display());
        m.unmount();
        m.fsck();
    }
}

#[test]
fn a_second_disk_may_go_and_come_back_and_the_first_may_be_lost() {
    let disk = SmallDisk::new(64);
    let copies = disk.path().join("copies");
    let across = copies.display().to_string();
    let mkfs = ["--journal-size", "16M", "--segment-size", "2M", "--parity-across", &across];
    let m = Mounted::with(&mkfs, &[]);
    (0..FILES).for_each(|seed| write(&m.path(seed.to_string()), seed));
    m.sync();
    wait_until("all is there twice", || told(&m, "twins_waiting") == 0);
    let there = packs(&m.dir().join("store/packs")).len();
    assert_eq!(packs(&copies.join("packs")).len(), there);
    assert!(info(&m).contains(&format!("every pack once more in {across}:")), "{}", info(&m));

    // Without it, before a mount: nothing is written where it was.
    m.unmount();
    let image = disk.path().with_file_name("image");
    run("umount", [disk.path().as_os_str()]).ok();
    m.mount();
    all_there(&m, FILES);
    write(&m.path(FILES.to_string()), FILES);
    m.sync();
    assert!(told(&m, "twins_waiting") > 0 && info(&m).contains("NOT THERE"), "{}", info(&m));
    assert!(!copies.exists(), "something was written where the disk was mounted");
    m.unmount();
    m.fsck();

    // Back, and gone once more while it is mounted: whoever has it open has it still.
    run("mount", [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), disk.path().as_os_str()]).ok();
    m.mount();
    wait_until("what came meanwhile is there twice", || told(&m, "twins_waiting") == 0);
    run("umount", [OsStr::new("-l"), disk.path().as_os_str()]).ok();
    write(&m.path((FILES + 1).to_string()), FILES + 1);
    m.sync();
    all_there(&m, FILES + 2);
    assert!(!copies.exists(), "something was written where the disk was mounted");
    m.unmount();

    // The first disk is lost, and nothing was said of that.
    run("mount", [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), disk.path().as_os_str()]).ok();
    fs::remove_dir_all(m.dir()).expect("there");
    let wrong = Command::new(cairn_tests::mounted::program("fsck-cairn"))
        .args(["-y", "--from-twins"])
        .args([&m.beside("nowhere"), m.dir()])
        .output()
        .expect("runs");
    assert_eq!(wrong.status.code(), Some(8), "{wrong:?}");
    let restored = Command::new(cairn_tests::mounted::program("fsck-cairn"))
        .args(["-y", "--from-twins"])
        .args([copies.as_path(), m.dir()])
        .output()
        .expect("runs");
    assert!(matches!(restored.status.code(), Some(0 | 1)), "{restored:?}");
    m.mount();
    all_there(&m, FILES + 2);
    write(&m.path((FILES + 2).to_string()), FILES + 2);
    m.sync();
    wait_until("it has both again", || told(&m, "twins_waiting") == 0);
    all_there(&m, FILES + 3);
    m.finish();
}
