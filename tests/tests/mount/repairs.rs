//! `fsck.cairn` as a process: `-y` killed at random moments, over real files and damage of many kinds; what a large store
//! costs in memory, and the bar that people see meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cairn_format::{PACK_HEADER_LEN, PackHeader, PackId, PackKind, PieceKind, SECTOR};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::mounted::{Mounted, program, run};
use cairn_tests::processes::children_of;
use cairn_tests::reach::guaranteed_hole;
use cairn_tests::watchdog::watch;
use cairn_volume::OpenOptions;
use nix::unistd::Pid;
use rustix::io::Errno;

use crate::kills::from_environment;

const MKFS: [&str; 4] = ["--journal-size", "32M", "--segment-size", "2M"];
const PAGE: usize = 4096;
const MIB: u64 = 1 << 20;
/// Where this machine has files that people made.
const REAL: [&str; 3] = ["/usr/bin", "/usr/lib", "/usr/share"];
/// Longer ones are left out, so that there are many.
const LONGEST: u64 = 32 * MIB;

/// A file of the volume: where it came from, and the packs that it lies in.
struct Copied {
    from: PathBuf,
    packs: BTreeSet<PackId>,
}

/// Copies real files of so many bytes in all into the mount; gives each one's name there and where it is from.
fn copy_real(m: &Mounted, most: u64) -> BTreeMap<String, PathBuf> {
    let (mut copied, mut bytes) = (BTreeMap::new(), 0);
    let mut ahead: Vec<PathBuf> = REAL.iter().map(PathBuf::from).collect();
    while let Some(path) = ahead.pop() {
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&path).into_iter().flatten().flatten().collect();
            below.sort_by_key(fs::DirEntry::file_name);
            ahead.extend(below.into_iter().map(|entry| entry.path()));
        } else if about.is_file() && about.len() > 0 && about.len() <= LONGEST && bytes + about.len() <= most
        {
            let name = format!("{}/{}", copied.len() / 200, copied.len());
            let to = m.path(&name);
            fs::create_dir_all(to.parent().expect("in a directory")).expect("made");
            fs::copy(&path, &to).expect("copied");
            bytes += about.len();
            copied.insert(name, path);
        }
    }
    assert!(bytes > most / 2, "this machine has only {bytes} bytes of files in {REAL:?}");
    copied
}

/// The packs that each file lies in, asked of the volume while it is whole.
fn places(dir: &Path, copied: BTreeMap<String, PathBuf>) -> BTreeMap<String, Copied> {
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let volume = cairn_volume::open(dir, options).expect("whole");
    let find = |name: &str| {
        name.split('/')
            .fold(1, |at, part| volume.lookup(at, part.as_bytes()).expect("whole").expect("there").ino)
    };
    let placed = copied.into_iter().map(|(name, from)| {
        let extents = volume.extents(find(&name)).expect("whole");
        let packs = extents.into_iter().filter_map(|(_, _, kind)| match kind {
            PieceKind::Chunk(piece) => Some(piece.pack),
            _ => None,
        });
        let packs = packs.collect();
        (name, Copied { from, packs })
    });
    placed.collect()
}

/// A pack's file as it was.
struct Pack {
    path: PathBuf,
    header: PackHeader,
    len: u64,
}

fn packs(dir: &Path) -> Vec<Pack> {
    let dirs = fs::read_dir(dir.join("store/packs")).expect("packs").flatten();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.path()).expect("a directory").flatten());
    let packs = files.filter_map(|file| {
        let path = file.path();
        let pack = PackId::parse(path.file_stem()?.to_str()?)?;
        let mut bytes = vec![0; PACK_HEADER_LEN];
        File::open(&path).ok()?.read_exact_at(&mut bytes, 0).ok()?;
        let header = PackHeader::decode(&bytes, &pack).ok()?;
        Some(Pack { len: fs::metadata(&path).ok()?.len(), path, header })
    });
    let mut packs: Vec<_> = packs.collect();
    packs.sort_by_key(|pack| pack.header.pack);
    packs
}

impl Pack {
    fn overwrite(&self, at: u64, len: u64, dice: &mut Dice) {
        let len = len.min(self.len - at) as usize;
        let bytes = if dice.one_in(2) { vec![0; len] } else { noise(dice.roll(), len) };
        write(&self.path, at, &bytes);
    }

    /// As far as parity restores it for sure.
    fn damage(&self, dice: &mut Dice) {
        let hole = 1 + dice.below(guaranteed_hole(&self.header.layout) / SECTOR);
        self.overwrite(dice.below(self.len / SECTOR) * SECTOR, hole * SECTOR, dice);
    }

    /// Beyond that.
    fn ruin(&self, dice: &mut Dice) {
        match dice.below(4) {
            0 => fs::remove_file(&self.path).expect("there"),
            1 => File::options()
                .write(true)
                .open(&self.path)
                .and_then(|f| f.set_len(self.len / 2))
                .expect("cut"),
            2 => {
                // All three places that say where its parts lie.
                let layout = self.header.layout;
                for at in [0, layout.parity_area().start, layout.second_footer().end] {
                    self.overwrite(at, SECTOR, dice);
                }
            }
            _ => self.overwrite(self.len / 5, self.len / 2, dice),
        }
    }
}

fn write(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.write_all_at(bytes, at).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Damages a volume in every way that costs no more than file bytes of the packs that are `ruined`.
fn damage(dir: &Path, packs: &[Pack], ruined: &BTreeSet<PackId>, dice: &mut Dice) {
    for pack in packs.iter().filter(|pack| !ruined.contains(&pack.header.pack)) {
        // Metadata that a repair wrote anew may have gone.
        if pack.path.exists() && dice.below(3) > 0 {
            pack.damage(dice);
        }
    }
    let replica = ["superblock", "superblock.backup"][dice.below(2) as usize];
    write(&dir.join(replica), 0, &noise(dice.roll(), PAGE));
    let replica = dir.join("store").join(["superblock", "superblock.backup"][dice.below(2) as usize]);
    fs::remove_file(replica).expect("there");
    for cache in ["store/index", "engine/namespace.redb"] {
        if dir.join(cache).exists() {
            write(&dir.join(cache), 5000, &noise(dice.roll(), 3 * PAGE));
        }
    }
    let files = fs::read_dir(dir.join("journal")).expect("a journal").flatten();
    for segment in files.filter(|file| file.path().extension().is_some_and(|kind| kind == "seg")) {
        // One of both copies of its header.
        write(&segment.path(), dice.below(2) * 4096, &noise(dice.roll(), 512));
    }
    let unsealed = packs[0].path.with_extension("new");
    fs::write(unsealed, noise(dice.roll(), 10_000)).expect("written");
}

fn begin_repair(dir: &Path) -> Child {
    let mut command = Command::new(program("fsck-cairn"));
    command.arg("-y").arg(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("fsck-cairn, as built")
}

/// What was put aside by all repairs: it grows once one of them writes.
fn put_aside(dir: &Path) -> usize {
    let count = |dir: PathBuf| {
        let runs = fs::read_dir(dir).into_iter().flatten().flatten();
        runs.map(|run| fs::read_dir(run.path()).map_or(0, Iterator::count)).sum::<usize>()
    };
    count(dir.join("fsck-undo")) + count(dir.join("store/fsck-undo"))
}

/// When a repair was killed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Killed {
    Looking,
    Writing,
    Never,
}

/// Repairs, and kills that: at any time up to `most`, or some time after it began to write.
fn kill_repair(dir: &Path, most: Duration, dice: &mut Dice) -> Killed {
    let before = put_aside(dir);
    let mut child = begin_repair(dir);
    let mut until = Instant::now() + most.mul_f64(dice.below(1000) as f64 / 1000.0);
    let mut waits_for_writes = !dice.one_in(4);
    let ended = |child: &mut Child| child.try_wait().expect("a child").is_some();
    while !ended(&mut child) {
        if waits_for_writes && put_aside(dir) > before {
            waits_for_writes = false;
            until = Instant::now() + most.mul_f64(dice.below(1000) as f64 / 2000.0);
        }
        if !waits_for_writes && Instant::now() >= until {
            child.kill().expect("a child");
            child.wait().expect("a child");
            return if put_aside(dir) > before { Killed::Writing } else { Killed::Looking };
        }
        thread::sleep(Duration::from_millis(1));
    }
    Killed::Never
}

/// Every page of every file is what it was; where something of the file lies in a pack that is ruined it may be an error.
/// Gives how many pages were.
fn check(m: &Mounted, files: &BTreeMap<String, Copied>, ruined: &BTreeSet<PackId>) -> u64 {
    let mut refused = 0;
    for (name, Copied { from, packs }) in files {
        let may_err = !packs.is_disjoint(ruined);
        let expected = fs::read(from).expect("it was read before");
        let file = File::open(m.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let len = file.metadata().expect("there").size();
        assert_eq!(len, expected.len() as u64, "the length of {name}");
        let mut found = vec![0; expected.len()];
        if !may_err {
            file.read_exact_at(&mut found, 0).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(found == expected, "WRONG BYTES in {name}");
            continue;
        }
        for (n, page) in expected.chunks(PAGE).enumerate() {
            match file.read_exact_at(&mut found[..page.len()], (n * PAGE) as u64) {
                Ok(()) => assert!(found[..page.len()] == *page, "WRONG BYTES in {name}, page {n}"),
                Err(error) => refused += u64::from(is_io_error(name, n, &error)),
            }
        }
    }
    refused
}

fn is_io_error(name: &str, page: usize, error: &io::Error) -> bool {
    assert_eq!(Errno::from_io_error(error), Some(Errno::IO), "{name}, page {page}");
    true
}

/// `CAIRN_FSCK_MIB`: of so many MiB of real files. `CAIRN_FSCK_PROCESS_KILLS`: how often it is killed.
#[test]
fn a_repair_that_is_killed_again_and_again_ends_where_one_that_was_not_ends() {
    let mib = from_environment("CAIRN_FSCK_MIB", 32);
    let kills = from_environment("CAIRN_FSCK_PROCESS_KILLS", 4);
    let _watchdog = watch("the test of repairs that are killed", 4 + kills / 2 + mib / 100);
    let mut dice = Dice::new(from_environment("CAIRN_SEED", 3));
    let mut m = Mounted::with(&MKFS, &["gc=off"]);
    let mut copied = BTreeMap::new();
    // In some packs, however little it is.
    for (name, from) in copy_real(&m, mib * MIB) {
        if copied.len() % 400 == 399 {
            m.sync();
        }
        copied.insert(name, from);
    }
    m.sync();
    m.be_patient();
    m.kill();
    m.take_away();
    let dir = m.dir().to_path_buf();
    let files = places(&dir, copied);
    let packs = packs(&dir);
    let of_files: Vec<&Pack> = packs.iter().filter(|pack| pack.header.kind == PackKind::Data).collect();
    let ruined: BTreeSet<PackId> =
        of_files.iter().step_by(of_files.len().div_ceil(3)).map(|pack| pack.header.pack).collect();
    let other = files.values().filter(|file| file.packs.is_disjoint(&ruined)).count();
    eprintln!(
        "{} files, {other} of them in none of the {} ruined packs of {}",
        files.len(),
        ruined.len(),
        packs.len()
    );

    // How long one takes that is not killed, and what it leaves.
    damage(&dir, &packs, &BTreeSet::new(), &mut dice);
    let since = Instant::now();
    let ran = run("fsck-cairn", ["-y".as_ref(), dir.as_os_str()]);
    let whole = since.elapsed();
    assert_eq!(ran.code, 1, "nothing was beyond parity: {ran:?}");
    m.fsck();

    for pack in of_files.iter().filter(|pack| ruined.contains(&pack.header.pack)) {
        pack.ruin(&mut dice);
    }
    damage(&dir, &packs, &ruined, &mut dice);
    let mut counts = BTreeMap::<Killed, u64>::new();
    let mut done = 0;
    while done < kills {
        m.be_patient();
        let killed = kill_repair(&dir, whole, &mut dice);
        *counts.entry(killed).or_default() += 1;
        done += u64::from(killed != Killed::Never);
        if killed == Killed::Never {
            damage(&dir, &packs, &ruined, &mut dice);
        }
    }
    eprintln!("{} ms when it is not killed; killed: {counts:?}", whole.as_millis());
    let ran = run("fsck-cairn", ["-y".as_ref(), dir.as_os_str()]);
    assert!(ran.code & !5 == 0, "{ran:?}");
    // What is lost stays lost, and is told; nothing else is wrong.
    let again = run("fsck-cairn", ["-y".as_ref(), dir.as_os_str()]);
    assert!(again.code & !4 == 0, "there was something left to repair: {again:?}");
    m.be_patient();
    m.mount();
    let refused = check(&m, &files, &ruined);
    eprintln!("{refused} pages are lost");
    m.unmount();
    let last = run("fsck-cairn", ["-n".as_ref(), dir.as_os_str()]);
    assert_eq!(last.code, again.code, "{last:?}");
}

/// How a check of a large store went.
struct Seen {
    code: i32,
    /// At the peak, in KiB.
    memory: u64,
    /// What the bar told was done, in the order it did.
    done: Vec<f64>,
    took: Duration,
    text: String,
}

/// Runs fsck on a terminal.
fn on_a_terminal(dir: &Path, arguments: &str) -> Seen {
    let line = format!("exec {} {arguments} {}", program("fsck-cairn").display(), dir.display());
    let since = Instant::now();
    let mut script = Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).env("TERM", "xterm").env("COLUMNS", "120");
    let mut child = script.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("script(1)");
    let mut out = child.stdout.take().expect("piped");
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        io::Read::read_to_end(&mut out, &mut text).map(|_| text)
    });
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process's number"));
    let mut memory = 0;
    let status = loop {
        memory = children_of(pid).into_iter().filter_map(peak).max().unwrap_or(0).max(memory);
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let text = reader.join().expect("no panic").expect("read");
    let text = String::from_utf8_lossy(&text).into_owned();
    let done = text.split(['\r', '\n']).filter_map(told).collect();
    Seen { code: status.code().expect("no signal"), memory, done, took: since.elapsed(), text }
}

/// KiB that a process had at its peak.
fn peak(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes that a bar says are done: `packs [==>  ] 1.50 MiB of 3.00 MiB, 200.00 MiB/s, 3s left`.
fn told(bar: &str) -> Option<f64> {
    let (done, _) = bar.split_once("] ")?.1.split_once(" of ")?;
    let (number, unit) = done.split_once(' ')?;
    let unit = ["B", "KiB", "MiB", "GiB", "TiB"].iter().position(|name| *name == unit)?;
    Some(number.parse::<f64>().ok()? * 1024f64.powi(unit as i32))
}

impl Seen {
    /// Whatever the store's length.
    fn check(&self, what: &str, code: i32) {
        let mib = self.memory / 1024;
        println!(
            "{what}: {} s, {mib} MiB at the peak, {} places of the bar",
            self.took.as_secs(),
            self.done.len()
        );
        assert_eq!(self.code, code, "{what}: {}", self.text);
        assert!(mib < 400, "{what}: {mib} MiB");
        assert!(self.done.is_sorted(), "{what}: the bar goes back: {:?}", self.done);
        assert!(self.done.len() > 2, "{what}: the bar was drawn {} times", self.done.len());
    }
}

/// `CAIRN_BIG`: of so many MiB.
#[test]
fn fsck_of_a_large_store_takes_little_memory_and_its_bar_moves() {
    let mib = from_environment("CAIRN_BIG", 64);
    let _watchdog = watch("the test of a large store", 4 + mib / 100);
    let mut m =
        Mounted::with(&["--journal-size", "128M", "--segment-size", "4M", "--compress", "none"], &["gc=off"]);
    for n in 0..mib.div_ceil(32) {
        // Every fifth is there already.
        let seed = if n % 5 == 4 { n / 5 } else { n };
        fs::write(m.path(n.to_string()), noise(seed, 32 << 20)).expect("written");
        m.be_patient();
    }
    m.unmount();
    let dir = m.dir().to_path_buf();
    on_a_terminal(&dir, "-n").check("whole, -n", 0);
    let mut dice = Dice::new(7);
    let packs = packs(&dir);
    for pack in packs.iter().step_by(7) {
        pack.damage(&mut dice);
    }
    m.be_patient();
    on_a_terminal(&dir, "-n").check("damaged, -n", 4);
    on_a_terminal(&dir, "-p -f").check("damaged, -p", 1);
    // A hole is put aside as one piece: each costs two syncs.
    let pieces = put_aside(&dir);
    assert!(
        pieces <= 6 * packs.len() + 12,
        "{pieces} files were put aside for holes in {} packs",
        packs.len()
    );
    let longest = packs.iter().max_by_key(|pack| pack.len).expect("a pack");
    longest.overwrite(longest.len / 5, longest.len / 2, &mut dice);
    for pack in packs.iter().step_by(11).filter(|pack| pack.header.pack != longest.header.pack) {
        pack.damage(&mut dice);
    }
    m.be_patient();
    on_a_terminal(&dir, "-y").check("beyond parity, -y", if packs.len() > 1 { 5 } else { 4 });
}
