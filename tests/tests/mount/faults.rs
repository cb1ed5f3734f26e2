//! Damage that comes while readers, scrubs and whoever mends it are at work, and these killed while they are.
//!
//! All of it stays within what parity restores: a pack is damaged again only once it is what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cairn_format::{
    PACK_HEADER_LEN, PackHeader, PackId, PackKind, SECTOR, SUPERBLOCK_LEN, ScrubState, StoreSuperblock,
};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::mounted::{Mounted, program, run, wait_until};
use cairn_tests::reach::guaranteed_hole;
use cairn_tests::watchdog::watch;
use rustix::fs::{Advice, fadvise};
use rustix::mm::ProtFlags;
use serde_json::Value;

use crate::heal::{flip, stats};
use crate::kills::from_environment;
use crate::mapping::with_mapped;

const MKFS: [&str; 4] = ["--journal-size", "16M", "--segment-size", "1M"];
/// What is decoded stays for a moment only, and packs stay as they are.
const OPTIONS: [&str; 2] = ["cache_size=1M", "gc=off"];
const FILES: u64 = 16;
const LEN: usize = 400_000;
const MAPPED: usize = 1 << 20;
/// Packs are damaged so often before a mount may take its time anew.
const AT_ONCE: u64 = 100;

/// Files of noise, in some packs.
fn fill(m: &Mounted, files: u64, len: usize, packs_of: u64) {
    for n in 0..files {
        fs::write(m.path(format!("file {n}")), noise(n, len)).expect("written");
        if n % packs_of == packs_of - 1 {
            m.sync();
        }
    }
    m.sync();
}

/// Opens a file of which the kernel has nothing.
fn open_afresh(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(file)
}

/// Reads a part of one of the files, or all of it; panics where it has other bytes.
fn read_some(m: &Mounted, dice: &mut Dice, files: u64, len: usize) -> io::Result<()> {
    let n = dice.below(files);
    let from = dice.below(len as u64) as usize;
    let to = if dice.one_in(2) { len } else { (from + 1 + dice.below(9000) as usize).min(len) };
    let mut bytes = vec![0; to - from];
    open_afresh(&m.path(format!("file {n}")))?.read_exact_at(&mut bytes, from as u64)?;
    assert!(bytes == noise(n, len)[from..to], "WRONG BYTES in file {n} at {from}..{to}");
    Ok(())
}

fn all_is_right(m: &Mounted, files: u64, len: usize) {
    for n in 0..files {
        let path = m.path(format!("file {n}"));
        drop(open_afresh(&path).expect("there"));
        assert!(fs::read(path).expect("readable") == noise(n, len), "WRONG BYTES in file {n}");
    }
}

fn scrub(path: &Path, arguments: &[&str]) -> Value {
    let arguments = [OsStr::new("scrub"), OsStr::new("--json"), path.as_os_str()]
        .into_iter()
        .chain(arguments.iter().map(OsStr::new));
    serde_json::from_str(&run("cairn", arguments).ok()).expect("one JSON document")
}

/// Begins a scrub, to be killed.
fn begin_scrub(path: &Path, rate: &str) -> Child {
    let mut command = Command::new(program("cairn"));
    command.arg("scrub").arg(path).args(["--rate", rate]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("cairn, as built")
}

/// A pack's header, where that can be read.
pub(crate) fn header(path: &Path) -> Option<PackHeader> {
    let pack = PackId::parse(path.file_stem()?.to_str()?)?;
    let mut bytes = vec![0; PACK_HEADER_LEN];
    File::open(path).ok()?.read_exact_at(&mut bytes, 0).ok()?;
    PackHeader::decode(&bytes, &pack).ok()
}

/// The packs' files.
pub(crate) fn packs(dir: &Path) -> Vec<PathBuf> {
    let dirs = fs::read_dir(dir.join("store/packs")).expect("packs").flatten();
    let files = dirs.filter_map(|dir| Some(fs::read_dir(dir.path()).ok()?.flatten()));
    let mut packs: Vec<_> = files.flatten().map(|file| file.path()).collect();
    packs.retain(|path| path.extension().is_some_and(|kind| kind == "pack"));
    packs.sort();
    packs
}

/// Damages packs, and knows what they were.
struct Rot {
    dir: PathBuf,
    dice: Dice,
    whole: BTreeMap<PathBuf, Vec<u8>>,
}

impl Rot {
    /// Of packs that nobody has damaged yet.
    fn of(dir: &Path, seed: u64) -> Rot {
        let mut rot = Rot { dir: dir.to_path_buf(), dice: Dice::new(seed), whole: BTreeMap::new() };
        rot.look();
        rot
    }

    /// Gets to know packs that are new.
    fn look(&mut self) {
        for path in packs(&self.dir) {
            // One that is dropped this moment is none.
            if !self.whole.contains_key(&path)
                && let Ok(bytes) = fs::read(&path)
            {
                self.whole.insert(path, bytes);
            }
        }
    }

    /// Damages a pack, as far as parity restores that for sure, if it is whole; whether it was.
    fn damage(&mut self, path: &Path) -> bool {
        let before = &self.whole[path];
        if fs::read(path).ok().as_ref() != Some(before) {
            return false;
        }
        let Some(layout) = header(path).map(|header| header.layout) else { return false };
        let len = before.len() as u64;
        let hole = 1 + self.dice.below(guaranteed_hole(&layout) / SECTOR);
        let from = self.dice.below(len / SECTOR) * SECTOR;
        let to = (from + hole * SECTOR).min(len);
        let bytes: Vec<u8> = before[from as usize..to as usize].iter().map(|byte| !byte).collect();
        let file = File::options().write(true).open(path);
        file.and_then(|file| file.write_all_at(&bytes, from)).is_ok()
    }

    fn one(&mut self) -> bool {
        self.look();
        let paths: Vec<PathBuf> = self.whole.keys().cloned().collect();
        let path = &paths[self.dice.below(paths.len() as u64) as usize];
        self.damage(path)
    }

    fn all(&mut self) -> usize {
        self.look();
        let paths: Vec<PathBuf> = self.whole.keys().cloned().collect();
        paths.iter().filter(|path| self.damage(path)).count()
    }

    /// The packs that are there, and not what they were.
    fn damaged(&self) -> BTreeSet<&Path> {
        let is = |(path, before): &(&PathBuf, &Vec<u8>)| fs::read(path).is_ok_and(|bytes| bytes != **before);
        self.whole.iter().filter(is).map(|(path, _)| path.as_path()).collect()
    }
}

/// Reads a file through mappings, and writes it, until `ended`; nothing of it is seen but what was written.
fn use_mappings(m: &Mounted, seed: u64, ended: &AtomicBool) {
    let (mut dice, mut bytes) = (Dice::new(seed), noise(1000, MAPPED));
    fs::write(m.path("mapped"), &bytes).expect("written");
    while !ended.load(Ordering::Acquire) {
        m.sync();
        drop(open_afresh(&m.path("mapped")).expect("there"));
        let file = File::options().read(true).write(true).open(m.path("mapped")).expect("there");
        with_mapped(&file, MAPPED, ProtFlags::READ | ProtFlags::WRITE, |mapped| {
            for _ in 0..40 {
                let at = dice.below(MAPPED as u64) as usize;
                assert_eq!(mapped[at], bytes[at], "WRONG BYTE mapped at {at}");
                mapped[at] = !bytes[at];
                bytes[at] = mapped[at];
            }
            assert!(*mapped == bytes[..], "WRONG BYTES mapped");
        });
        let file = open_afresh(&m.path("mapped")).expect("there");
        with_mapped(&file, MAPPED, ProtFlags::READ, |mapped| {
            assert!(*mapped == bytes[..], "WRONG BYTES mapped anew");
        });
    }
}

/// Ends the others, also where it panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Damages packs so often while readers, mappings and scrubs are at work; gives how many scrubs.
fn damage_at_work(m: &Mounted, rot: &mut Rot, times: u64) -> u64 {
    let ended = &AtomicBool::new(false);
    let mut scrubs = 0;
    thread::scope(|scope| {
        for seed in [rot.dice.roll(), rot.dice.roll()] {
            scope.spawn(move || {
                let _ends = Ends(ended);
                let mut dice = Dice::new(seed);
                while !ended.load(Ordering::Acquire) {
                    read_some(m, &mut dice, FILES, LEN).expect("within the guarantee");
                }
            });
        }
        let seed = rot.dice.roll();
        scope.spawn(move || {
            let _ends = Ends(ended);
            use_mappings(m, seed, ended);
        });
        scope.spawn(move || {
            let _ends = Ends(ended);
            let mut damaged = 0;
            while damaged < times && !ended.load(Ordering::Acquire) {
                damaged += u64::from(rot.one());
                thread::sleep(Duration::from_millis(rot.dice.below(10)));
            }
        });
        let _ends = Ends(ended);
        while !ended.load(Ordering::Acquire) {
            let told = scrub(m.at(), &[]);
            assert_eq!(told["sectors_uncorrected"], 0, "{told}");
            scrubs += 1;
        }
    });
    scrubs
}

/// `CAIRN_ROT`: how often a pack is damaged.
#[test]
fn damage_that_comes_while_readers_mappings_and_scrubs_are_at_work_costs_nothing() {
    let times = from_environment("CAIRN_ROT", 60);
    let _watchdog = watch("the test of damage under scrubs", 3 + times / 50);
    let mut m = Mounted::with(&MKFS, &OPTIONS);
    fill(&m, FILES, LEN, 4);
    let mut rot = Rot::of(m.dir(), from_environment("CAIRN_SEED", 1));
    let mut scrubs = 0;
    for round in 0..times.div_ceil(AT_ONCE) {
        m.be_patient();
        scrubs += damage_at_work(&m, &mut rot, AT_ONCE.min(times - round * AT_ONCE));
    }
    let told = scrub(m.at(), &[]);
    assert_eq!(told["sectors_uncorrected"], 0, "{told}");
    assert!(rot.damaged().is_empty(), "scrubbed, and other bytes than there were: {:?}", rot.damaged());
    let told = stats(&m);
    assert_eq!((&told["heals_lost"], &told["io_errors"]), (&0.into(), &0.into()), "{told}");
    assert!(told["heals_rewritten"].as_u64() > Some(0), "{told}");
    eprintln!("{times} times damaged under {scrubs} scrubs: {} answered", told["heals_answered"]);
    all_is_right(&m, FILES, LEN);
    m.remount();
    all_is_right(&m, FILES, LEN);
    m.finish();
}

/// `CAIRN_HEAL_KILLS`: how often.
#[test]
fn a_daemon_that_is_killed_while_it_writes_back_leaves_nothing_that_the_next_does_not_mend() {
    let kills = from_environment("CAIRN_HEAL_KILLS", 6);
    let _watchdog = watch("the test of kills while packs are mended", 3 + kills / 10);
    let mut m = Mounted::with(&MKFS, &OPTIONS);
    fill(&m, FILES, LEN, 2);
    m.unmount();
    let mut rot = Rot::of(m.dir(), from_environment("CAIRN_SEED", 2));
    let mut at_work = 0;
    for round in 0..kills {
        m.be_patient();
        rot.all();
        let damaged = rot.damaged().len();
        m.mount();
        let killed = AtomicBool::new(false);
        thread::scope(|scope| {
            for seed in 0..2 {
                let (m, killed) = (&m, &killed);
                scope.spawn(move || {
                    let mut dice = Dice::new(round << 8 | seed);
                    while let Ok(()) = read_some(m, &mut dice, FILES, LEN) {}
                    assert!(killed.load(Ordering::Acquire), "an error before the kill");
                });
            }
            thread::sleep(Duration::from_millis(rot.dice.below(500)));
            killed.store(true, Ordering::Release);
            m.kill();
        });
        m.take_away();
        let left = rot.damaged().len();
        at_work += u64::from(0 < left && left < damaged);
        eprintln!("round {round}: {damaged} packs damaged, {left} when it was killed");
    }
    eprintln!("{kills} kills, {at_work} of them with some packs mended and some not");
    m.mount();
    all_is_right(&m, FILES, LEN);
    let told = scrub(m.at(), &[]);
    assert_eq!(told["sectors_uncorrected"], 0, "{told}");
    assert!(rot.damaged().is_empty(), "mended, and other bytes than there were: {:?}", rot.damaged());
    m.remount();
    all_is_right(&m, FILES, LEN);
    m.finish();
}

/// Small packs, so many that what was looked through is written down before all were.
const PACKS: u64 = 90;

/// What a scrub wrote down that has not come to its end.
fn book(dir: &Path) -> Option<BTreeSet<PackId>> {
    let bytes = fs::read(dir.join("store/scrub")).ok()?;
    let superblock = fs::read(dir.join("store/superblock")).expect("there");
    let store = StoreSuperblock::decode(&superblock[..SUPERBLOCK_LEN]).expect("whole").uuid;
    let state = ScrubState::decode(&bytes, &store).expect("whole");
    let seen = state.packs.iter().filter(|entry| entry.round == state.round).map(|entry| entry.pack);
    state.unfinished.then(|| seen.collect())
}

/// A scrub that is killed, mounted or not, and the one that follows: it looks at what is not written down, and at nothing
/// else, which is seen by what it leaves damaged.
fn goes_on(mounted: bool) {
    let m = Mounted::with(&MKFS, &OPTIONS);
    fill(&m, PACKS, 60_000, 1);
    if !mounted {
        m.unmount();
    }
    let place = if mounted { m.at() } else { m.dir() };
    // One that came to its end before it was killed is followed by another.
    let seen = (0..10).find_map(|_| {
        let mut child = begin_scrub(place, "2");
        let mut has_ended = || child.try_wait().expect("a child").is_some();
        wait_until("something is written down", || book(m.dir()).is_some() || has_ended());
        if mounted {
            m.kill();
            m.take_away();
            m.mount();
        } else {
            child.kill().expect("a child");
        }
        child.wait().expect("a child");
        book(m.dir())
    });
    let seen = seen.expect("a scrub that is killed half way");
    // Nobody but a scrub looks at parity of a pack that is whole otherwise.
    let mut rotten = BTreeMap::new();
    for path in packs(m.dir()) {
        let header = header(&path).expect("whole");
        if header.kind == PackKind::Data {
            rotten.insert(header.pack, (path.clone(), fs::read(&path).expect("there")));
            flip(&path, header.layout.parity_unit(0).start + 100, 50);
        }
    }
    let told = scrub(place, &[]);
    assert_eq!((&told["finished"], &told["sectors_uncorrected"]), (&true.into(), &0.into()), "{told}");
    assert_eq!(told["packs_before"], seen.len(), "{told}");
    let is_whole = |path: &Path, before: &[u8]| fs::read(path).expect("there") == before;
    let left: BTreeSet<PackId> =
        rotten.iter().filter(|(_, (path, before))| !is_whole(path, before)).map(|(pack, _)| *pack).collect();
    let passed: BTreeSet<PackId> = seen.into_iter().filter(|pack| rotten.contains_key(pack)).collect();
    assert!(!passed.is_empty() && passed.len() < rotten.len(), "{} of {}", passed.len(), rotten.len());
    assert_eq!(left, passed, "it looked at others than those that were not written down");
    scrub(place, &[]);
    assert!(rotten.values().all(|(path, before)| is_whole(path, before)));
    if !mounted {
        m.mount();
    }
    all_is_right(&m, PACKS, 60_000);
    m.finish();
}

#[test]
fn a_scrub_whose_daemon_is_killed_goes_on_where_it_was() {
    goes_on(true);
}

#[test]
fn a_scrub_of_an_unmounted_volume_that_is_killed_goes_on_where_it_was() {
    goes_on(false);
}
