//! `cairn scrub --report`: the page of a mounted volume, whose daemon did the work, and of one that nobody has mounted.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cairn_tests::dice::noise;
use cairn_tests::mounted::{Mounted, Ran, run};
use serde_json::Value;

use crate::wellformed::{Parsed, number, parse};

const MKFS: [&str; 4] = ["--journal-size", "32M", "--segment-size", "4M"];
/// Names that a page must not obey, and how it shows them.
const HOSTILE: [(&[u8], &str); 5] = [
    (b"<script>alert(1)", "/<script>alert(1)"),
    (b"\"><img src=x>", "/\"><img src=x>"),
    ("a\u{202e}gpj.exe".as_bytes(), "/a\\u{202e}gpj.exe"),
    (b"two\nlines", "/two\\nlines"),
    (b"bytes \xff\xfe", "/bytes \\xff\\xfe"),
];

/// A scrub with a page.
struct Drawn {
    ran: Ran,
    json: Value,
    page: Parsed,
}

fn scrub(m: &Mounted, path: &Path, arguments: &[&str]) -> Drawn {
    let file = m.beside("page.html");
    let arguments = arguments.iter().map(OsStr::new);
    let all = [
        OsStr::new("scrub"),
        path.as_os_str(),
        OsStr::new("--json"),
        OsStr::new("--report"),
        file.as_os_str(),
    ];
    let ran = run("cairn", all.into_iter().chain(arguments));
    let html = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    let json = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    Drawn { json, page: parse(&html).expect("well-formed"), ran }
}

impl Drawn {
    fn field(&self, name: &str) -> u64 {
        self.json[name].as_u64().unwrap_or_else(|| panic!("{name} in {}", self.json))
    }

    fn packs(&self, state: &str) -> u64 {
        number(&self.page, &format!("packs-{state}"))
    }

    /// The numbers of the page are those of the document.
    fn agrees(&self) {
        for (id, field) in [
            ("looked-through", "packs"),
            ("sectors-checked", "sectors_checked"),
            ("sectors-corrected", "sectors_corrected"),
            ("sectors-uncorrected", "sectors_uncorrected"),
            ("sectors-total", "sectors_total"),
            ("packs-healed", "packs_corrected"),
            ("chunks", "chunks"),
            ("journal-records", "journal_records"),
            ("engine-values", "engine_values"),
        ] {
            assert_eq!(number(&self.page, id), self.field(field), "{id} in {}", self.json);
        }
        let all = ["whole", "unseen", "healed", "damaged", "lost"].map(|state| self.packs(state));
        assert_eq!(all.iter().sum::<u64>(), self.packs("all"), "{all:?}");
        assert_eq!(
            self.packs("damaged") + self.packs("lost"),
            self.field("packs_uncorrected"),
            "{}",
            self.json
        );
        assert!(!self.json.to_string().contains("shown"), "the document is as it was without a page");
    }
}

fn fill(m: &Mounted) {
    for (seed, (name, _)) in (100..).zip(HOSTILE) {
        fs::write(m.path(OsStr::from_bytes(name)), noise(seed, 1 << 20)).expect("written");
    }
    m.sync();
}

/// The packs' files, the largest first.
fn packs(dir: &Path) -> Vec<PathBuf> {
    let dirs = fs::read_dir(dir.join("store/packs")).expect("packs").flatten();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.path()).expect("a directory").flatten());
    let mut packs: Vec<_> = files.map(|file| file.path()).collect();
    packs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).expect("there").len()));
    packs
}

fn spoil(pack: &Path, from: u64, len: usize) {
    let file = File::options().write(true).open(pack).expect("a pack");
    file.write_all_at(&noise(from, len), from).expect("written");
    file.sync_all().expect("synced");
}

#[test]
fn the_page_of_a_mounted_volume_says_what_the_daemon_did_and_what_is_saved() {
    // The mount itself writes nothing back, or it may be before the scrub.
    let m = Mounted::with(&MKFS, &["gc=off", "heal=ro"]);
    fill(&m);
    fs::copy(m.path("two\nlines"), m.path("again")).expect("copied");
    m.sync();
    spoil(&packs(m.dir())[0], 300_000, 9_000);
    let looked = scrub(&m, m.at(), &[]);
    assert_eq!(
        (looked.ran.code, looked.packs("damaged"), looked.packs("lost")),
        (3, 1, 0),
        "{:?}",
        looked.ran
    );
    looked.agrees();
    assert!(looked.page.text.contains("1 of 2"), "the margin");
    assert!(looked.page.text.contains("fsck.cairn -p DIR"), "what to do next");
    m.unmount();
    let healed = scrub(&m, m.dir(), &["--deep"]);
    assert_eq!((healed.ran.code, healed.packs("healed")), (0, 1), "{:?}", healed.ran);
    healed.agrees();
    assert!(healed.page.text.contains("written again") && healed.page.text.contains("cairn scrub --deep"));
    m.mount();
    let clean = scrub(&m, m.at(), &[]);
    assert_eq!((clean.ran.code, clean.packs("whole")), (0, clean.packs("all")), "{:?}", clean.ran);
    clean.agrees();
    for id in ["logical", "unique", "stored", "parity"] {
        assert_eq!(number(&clean.page, id), m.df(id), "{id}");
    }
    let cut = scrub(&m, m.at(), &["--max-duration", "0s"]);
    assert_eq!((cut.packs("whole"), cut.packs("unseen")), (1, cut.packs("all") - 1), "{:?}", cut.ran);
    assert!(cut.page.text.contains("its time was over"));
    m.finish();
}

#[test]
fn every_file_that_lost_bytes_is_on_the_page_mounted_or_not() {
    let m = Mounted::with(&MKFS, &["gc=off"]);
    fill(&m);
    m.unmount();
    let pack = &packs(m.dir())[0];
    let len = fs::metadata(pack).expect("there").len();
    spoil(pack, 100_000, usize::try_from(len).expect("small") * 3 / 4 - 100_000);
    let alone = scrub(&m, m.dir(), &[]);
    m.mount();
    let served = scrub(&m, m.at(), &[]);
    for drawn in [&alone, &served] {
        assert_eq!((drawn.ran.code, drawn.packs("lost")), (3, 1), "{:?}", drawn.ran);
        drawn.agrees();
        let files = drawn.json["files"].as_array().expect("a list");
        assert!(files.len() >= 3, "{files:?}");
        assert_eq!(number(&drawn.page, "files-listed"), files.len() as u64);
        let names: Vec<_> = HOSTILE
            .iter()
            .filter(|(name, _)| {
                let replaced = format!("/{}", String::from_utf8_lossy(name));
                files.iter().any(|file| file["paths"][0] == replaced)
            })
            .collect();
        assert_eq!(names.len(), files.len());
        for (_, shown) in names {
            assert!(drawn.page.text.contains(shown), "{shown} is not on the page");
        }
        assert!(!drawn.page.elements.iter().any(|(name, _)| name == "script" || name == "img"));
        assert!(drawn.page.text.contains("Look into /lost+found."), "what to do next");
    }
    m.unmount();
}

#[test]
fn a_page_that_cannot_be_written_is_said_before_anything_is_looked_at() {
    let m = Mounted::with(&MKFS, &[]);
    fs::write(m.path("one"), noise(1, 1 << 20)).expect("written");
    m.sync();
    for at in [m.at(), m.dir()] {
        for (wrong, why) in [(m.dir().to_path_buf(), "a directory"), ("/dev/null".into(), "no regular file")]
        {
            let wrong = wrong.as_os_str();
            let all = [OsStr::new("scrub"), at.as_os_str(), OsStr::new("--report"), wrong];
            run("cairn", all).refused(1, &[why, "--report", wrong.to_str().expect("UTF-8")]);
        }
    }
    assert!(!m.dir().join("store/scrub").exists(), "it was scrubbed all the same");
    m.finish();
}
