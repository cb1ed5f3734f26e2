//! Power loss on real filesystems: the volume lies on an XFS, or an ext4, whose power goes while programs write to the
//! mount, and again while the next mount recovers. Afterwards everything is there that was certain when it went.
//!
//! The filesystem below is seen to lose what nobody made certain, and the mount too: else nothing is proved.
//!
//! `CAIRN_POWER` is the number of cycles, half of them on each.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cairn_tests::cuttable::Cuttable;
use cairn_tests::dice::{Dice, data, noise};
use cairn_tests::mounted::{Daemon, Mounted, is_mounted};
use nix::libc::{O_DSYNC, O_SYNC};
use rustix::fs::copy_file_range;

use crate::kills::from_environment;
use crate::worker::{Content, Found, Step};

/// So short a journal that folds and checkpoints are under way whenever the power goes.
const MKFS: [&str; 4] = ["--journal-size", "4M", "--segment-size", "256K"];
/// After so many cycles what was written is removed, so that neither disk nor fsck's work grows on and on.
const CYCLES_OF_FILES: u64 = 12;
/// The disk below, in MiB: XFS takes no less than 300.
const DISK: u64 = 1024;
/// Bytes of a record that is appended.
const RECORD: usize = 2_000;

/// How far each walker has come, and how much of that is certain. There is one journal: whose `fsync` was answered
/// made certain what any of them had done before.
#[derive(Default)]
struct Progress {
    done: [AtomicUsize; WALKERS],
    certain: [AtomicUsize; WALKERS],
    /// Whether the power is about to go, or gone.
    cut: AtomicBool,
}

const WALKERS: usize = 2;

impl Progress {
    fn so_far(&self) -> [usize; WALKERS] {
        std::array::from_fn(|n| self.done[n].load(Ordering::Acquire))
    }

    fn is_certain(&self, so_far: [usize; WALKERS]) {
        for (n, count) in so_far.into_iter().enumerate() {
            self.certain[n].fetch_max(count, Ordering::AcqRel);
        }
    }

    fn begin(&self) {
        for count in self.done.iter().chain(&self.certain) {
            count.store(0, Ordering::Release);
        }
        self.cut.store(false, Ordering::Release);
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn unless_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// A program at work, which remembers what was certain.
trait Load: Send {
    /// Works until the first error, which it gives.
    fn work(&mut self, progress: &Progress) -> io::Error;
    /// Panics unless all that was certain is there, and the rest a state that was. Whether anything was lost of what
    /// was done and not certain.
    fn check(&mut self, progress: &Progress) -> bool;
}

/// Changes a directory at random, and has the directory, a file, or just what it writes made certain now and then.
struct Walker {
    number: usize,
    dir: PathBuf,
    dice: Dice,
    before: Content,
    now: Content,
    /// What was begun since `before`; all but perhaps the last was done.
    steps: Vec<Step>,
}

impl Walker {
    fn new(dir: PathBuf, number: usize, seed: u64) -> Walker {
        fs::create_dir(&dir).expect("a new name");
        let content = Content::new(if number == 0 { 1 << 20 } else { 60_000 });
        let dice = Dice::new(seed);
        Walker { number, dir, dice, before: content.clone(), now: content, steps: Vec::new() }
    }

    fn step(&mut self, progress: &Progress) -> io::Result<()> {
        let step = self.now.choose(&mut self.dice);
        self.steps.push(step.clone());
        let mut so_far = progress.so_far();
        let written_through = match &step {
            Step::Write(name, offset, data) if self.dice.one_in(6) => {
                let how = if self.dice.one_in(2) { O_SYNC } else { O_DSYNC };
                let file = File::options().write(true).custom_flags(how).open(self.dir.join(name))?;
                file.write_all_at(data, *offset)?;
                true
            }
            _ => self.now.perform(&self.dir, &step).map(|()| false)?,
        };
        self.now.apply(&step);
        progress.done[self.number].store(self.steps.len(), Ordering::Release);
        if written_through {
            so_far[self.number] = self.steps.len();
            progress.is_certain(so_far);
        } else if self.dice.one_in(10) {
            let so_far = progress.so_far();
            let files: Vec<_> = self.now.files().collect();
            match files.get(self.dice.below(2 * files.len() as u64) as usize) {
                Some(name) if self.dice.one_in(2) => File::open(self.dir.join(name))?.sync_data()?,
                Some(name) => sync(&self.dir.join(name))?,
                None => sync(&self.dir)?,
            }
            progress.is_certain(so_far);
        }
        Ok(())
    }

    /// How many steps what was found has seen, no fewer than `certain`.
    fn seen(&self, found: &Found, certain: usize) -> Result<(usize, Content), String> {
        let mut content = self.before.clone();
        let mut first = None;
        for count in 0..=self.steps.len() {
            if count >= certain {
                let Some(difference) = content.difference(found) else { return Ok((count, content)) };
                first.get_or_insert(difference);
                // A long write is several.
                if let Some(step @ (Step::Write(..) | Step::Copy(..))) = self.steps.get(count) {
                    let mut with_part = content.clone();
                    with_part.apply(&content.part_done(step, found));
                    if with_part.difference(found).is_none() {
                        return Ok((count, with_part));
                    }
                }
            }
            if let Some(step) = self.steps.get(count) {
                content.apply(step);
            }
        }
        Err(first.unwrap_or_default())
    }
}

impl Load for Walker {
    fn work(&mut self, progress: &Progress) -> io::Error {
        loop {
            if let Err(error) = self.step(progress) {
                return error;
            }
        }
    }

    fn check(&mut self, progress: &Progress) -> bool {
        let found = Found::read(&self.dir);
        let [done, certain] =
            [&progress.done, &progress.certain].map(|counts| counts[self.number].load(Ordering::Acquire));
        let (seen, content) = self.seen(&found, certain).unwrap_or_else(|what| {
            panic!(
                "{}: no state after {certain} to {} steps, {done} of them answered; after {certain}: {what}",
                self.dir.display(),
                self.steps.len()
            )
        });
        self.before = content.clone();
        self.now = content;
        self.steps.clear();
        seen < done
    }
}

/// Appends records to two files, each of which is certain when it was answered.
struct Appender {
    dir: PathBuf,
    /// Records that were answered, and the seed of the first.
    answered: [usize; 2],
    seed: u64,
}

const HOW: [(&str, i32); 2] = [("sync", O_SYNC), ("dsync", O_DSYNC)];

impl Appender {
    fn record(&self, file: usize, number: usize) -> Vec<u8> {
        noise(self.seed + file as u64 * 1_000_003 + number as u64, RECORD)
    }
}

impl Load for Appender {
    fn work(&mut self, progress: &Progress) -> io::Error {
        loop {
            for (file, (name, how)) in HOW.into_iter().enumerate() {
                let so_far = progress.so_far();
                let record = self.record(file, self.answered[file]);
                let opened =
                    File::options().create(true).append(true).custom_flags(how).open(self.dir.join(name));
                if let Err(error) = opened.and_then(|mut to| to.write_all(&record)) {
                    return error;
                }
                progress.is_certain(so_far);
                self.answered[file] += 1;
            }
        }
    }

    fn check(&mut self, _: &Progress) -> bool {
        for (file, (name, _)) in HOW.into_iter().enumerate() {
            let found =
                unless_there(fs::read(self.dir.join(name))).expect("it can be read").unwrap_or_default();
            let records: Vec<u8> = (0..=self.answered[file]).flat_map(|n| self.record(file, n)).collect();
            assert!(records.starts_with(&found), "{name}: other bytes than were appended");
            assert!(
                found.len() >= self.answered[file] * RECORD,
                "{name}: {} bytes of {} records that were certain",
                found.len(),
                self.answered[file]
            );
            // What was in flight is as good as answered; a part of it cannot be gone on with.
            self.answered[file] = found.len() / RECORD;
            if !found.len().is_multiple_of(RECORD) {
                let whole = File::options().write(true).open(self.dir.join(name));
                whole.and_then(|f| f.set_len((self.answered[file] * RECORD) as u64)).expect("cut to records");
            }
        }
        false
    }
}

/// Saves a file as editors do: aside, made certain, renamed over the old one, sometimes with its directory made certain.
struct Saver {
    dir: PathBuf,
    begun: u64,
    answered: u64,
    certain: u64,
}

fn version(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend(data(number.wrapping_mul(0x9e37_79b9), 1 + (number * 7_919 % 60_000) as usize));
    bytes
}

impl Saver {
    fn save(&mut self, progress: &Progress) -> io::Result<()> {
        self.begun += 1;
        let (aside, name) = (self.dir.join("aside"), self.dir.join("saved"));
        let mut file = File::create(&aside)?;
        file.write_all(&version(self.begun))?;
        file.sync_all()?;
        fs::rename(&aside, &name)?;
        self.answered = self.begun;
        if self.begun.is_multiple_of(2) {
            let so_far = progress.so_far();
            sync(&self.dir)?;
            progress.is_certain(so_far);
            self.certain = self.begun;
        }
        Ok(())
    }
}

impl Load for Saver {
    fn work(&mut self, progress: &Progress) -> io::Error {
        loop {
            if let Err(error) = self.save(progress) {
                return error;
            }
        }
    }

    fn check(&mut self, _: &Progress) -> bool {
        let found = unless_there(fs::read(self.dir.join("saved"))).expect("it can be read");
        let number = found.as_ref().map_or(0, |bytes| {
            let number = bytes.first_chunk().map(|head| u64::from_le_bytes(*head)).unwrap_or_default();
            assert!(*bytes == version(number), "version {number} of the saved file is not whole");
            number
        });
        assert!(
            (self.certain..=self.begun).contains(&number),
            "version {number} was found; {} was certain, {} begun",
            self.certain,
            self.begun
        );
        let lost = number < self.answered;
        (self.begun, self.answered, self.certain) = (number, number, number);
        lost
    }
}

/// Three files of the same bytes: nobody syncs the first, and the others refer to its chunks, one since a fold finds
/// them there already, one since it is a copy by reference.
struct Twins {
    dir: PathBuf,
    next: u64,
    certain: Vec<(String, u64)>,
}

impl Twins {
    fn bytes(number: u64) -> Vec<u8> {
        noise(number ^ 0x7317, 1 + (number * 104_729 % 200_000) as usize)
    }

    fn triple(&mut self, progress: &Progress) -> io::Result<()> {
        let number = self.next;
        self.next += 1;
        let bytes = Twins::bytes(number);
        let names = ["first", "same", "copy"].map(|kind| format!("{kind}{number}"));
        let path = |name: &String| self.dir.join(name);
        fs::write(path(&names[0]), &bytes)?;
        if number.is_multiple_of(3) {
            // By now it may be folded.
            thread::sleep(Duration::from_millis(20));
        }
        let so_far = progress.so_far();
        let mut same = File::create(path(&names[1]))?;
        same.write_all(&bytes)?;
        same.sync_all()?;
        progress.is_certain(so_far);
        self.certain.extend(names[..2].iter().map(|name| (name.clone(), number)));
        let copy = File::create(path(&names[2]))?;
        let source = File::open(path(&names[0]))?;
        let (mut from, mut to) = (0, 0);
        while to < bytes.len() as u64 {
            if copy_file_range(&source, Some(&mut from), &copy, Some(&mut to), bytes.len())? == 0 {
                return Err(io::Error::other("a copy ended early"));
            }
        }
        copy.sync_data()?;
        self.certain.push((names[2].clone(), number));
        if self.certain.len() > 12 {
            for (name, _) in self.certain.drain(..6) {
                fs::remove_file(self.dir.join(name))?;
            }
        }
        Ok(())
    }
}

impl Load for Twins {
    fn work(&mut self, progress: &Progress) -> io::Error {
        loop {
            if let Err(error) = self.triple(progress) {
                return error;
            }
        }
    }

    fn check(&mut self, _: &Progress) -> bool {
        for (name, number) in &self.certain {
            let found = fs::read(self.dir.join(name)).unwrap_or_else(|e| panic!("{name}, certain: {e}"));
            assert!(found == Twins::bytes(*number), "{name}, certain, is not what was written");
        }
        false
    }
}

/// Transactions of sqlite, certain when they were answered. In every other file it keeps a write-ahead log.
struct Database {
    path: PathBuf,
    wal: bool,
    answered: u64,
    shell: Option<(Child, ChildStdin, BufReader<std::process::ChildStdout>)>,
}

impl Database {
    fn new(path: PathBuf, wal: bool) -> Database {
        let mut database = Database { path, wal, answered: 0, shell: None };
        database.begin();
        let mode = if wal { "wal" } else { "delete" };
        let mut ask = |line: &str| database.ask(line).unwrap_or_else(|e| panic!("sqlite3, {line}: {e}"));
        assert_eq!(ask(&format!("PRAGMA journal_mode={mode};")), mode);
        for table in ["one", "other"] {
            ask(&format!("CREATE TABLE {table}(n INTEGER PRIMARY KEY, body BLOB); SELECT 'made';"));
        }
        database
    }

    /// Starts a shell: it reads statements, and answers each.
    fn begin(&mut self) {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "sqlite3", "-bail"]).arg(&self.path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("sqlite3");
        let to = child.stdin.take().expect("a pipe");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        self.shell = Some((child, to, from));
        // A rollback journal is removed to commit: EXTRA has the directory synced then, which FULL leaves to chance.
        let level = if self.wal { "FULL" } else { "EXTRA" };
        self.ask(&format!("PRAGMA synchronous={level}; SELECT 'ready';")).expect("sqlite3 begins");
    }

    fn ask(&mut self, line: &str) -> io::Result<String> {
        let (_, to, from) = self.shell.as_mut().expect("begun");
        writeln!(to, "{line}")?;
        let mut answer = String::new();
        match from.read_line(&mut answer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer.trim().to_owned()),
        }
    }

    fn end(&mut self) {
        if let Some((mut child, to, _)) = self.shell.take() {
            drop(to);
            child.wait().expect("a child");
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.end();
    }
}

impl Load for Database {
    fn work(&mut self, progress: &Progress) -> io::Error {
        loop {
            let number = self.answered + 1;
            let insert =
                |table| format!("INSERT INTO {table} VALUES({number}, randomblob({number} % 3000));");
            let line = format!("BEGIN; {} {} COMMIT; SELECT {number};", insert("one"), insert("other"));
            match self.ask(&line) {
                // Without a mount sqlite3 takes a directory that it cannot open for one that needs no sync, and says
                // that it committed.
                Ok(_) if progress.cut.load(Ordering::Acquire) => {}
                Ok(answer) if answer == number.to_string() => self.answered = number,
                Ok(answer) => return io::Error::other(answer),
                Err(error) => {
                    self.end();
                    return error;
                }
            }
        }
    }

    fn check(&mut self, _: &Progress) -> bool {
        self.end();
        self.begin();
        let ask = "PRAGMA integrity_check;";
        assert_eq!(self.ask(ask).expect("sqlite3 answers"), "ok");
        let counts = ["one", "other"].map(|table| {
            let line = format!("SELECT count(*), ifnull(max(n), 0) FROM {table};");
            self.ask(&line).expect("sqlite3 answers")
        });
        assert_eq!(counts[0], counts[1], "half a transaction");
        let (count, last) = counts[0].split_once('|').expect("two columns");
        let last: u64 = last.parse().expect("a number");
        assert!(
            count == last.to_string() && last >= self.answered,
            "{counts:?}, answered: {}",
            self.answered
        );
        self.answered = last;
        false
    }
}

const PERHAPS: &[u8] = b", perhaps";

/// What nobody makes certain, done right before the power goes: it has to be seen to be lost now and then.
struct Control {
    dir: PathBuf,
    strict: bool,
    /// Cycles in which it was done, those that lost the rename, and those that lost the append.
    done: u64,
    renames_lost: u64,
    appends_lost: u64,
}

impl Control {
    fn new(dir: PathBuf, strict: bool) -> Control {
        Control { dir, strict, done: 0, renames_lost: 0, appends_lost: 0 }
    }

    fn prepare(&self) -> io::Result<()> {
        fs::create_dir(&self.dir)?;
        fs::write(self.dir.join("old"), b"content")?;
        sync(&self.dir.join("old"))?;
        fs::write(self.dir.join("log"), b"certain")?;
        sync(&self.dir.join("log"))?;
        sync(&self.dir)
    }

    fn act(&self) -> io::Result<()> {
        fs::rename(self.dir.join("old"), self.dir.join("new"))?;
        File::options().append(true).open(self.dir.join("log"))?.write_all(PERHAPS)
    }

    fn check(&mut self) {
        let there = ["old", "new"].map(|name| fs::read(self.dir.join(name)).is_ok_and(|b| b == b"content"));
        assert!(there[0] != there[1], "{}: a file has one name: {there:?}", self.dir.display());
        let log = fs::read(self.dir.join("log")).expect("certain");
        // ext4 may have made the file longer, and have zeros where the bytes would be. cairn may not.
        let zeros = !self.strict && log == [b"certain".as_slice(), &[0; PERHAPS.len()]].concat();
        let kept = log == [b"certain".as_slice(), PERHAPS].concat();
        assert!(kept || zeros || log == b"certain", "{}: {log:?}", self.dir.display());
        self.done += 1;
        self.renames_lost += u64::from(there[0]);
        self.appends_lost += u64::from(!kept);
        fs::remove_dir_all(&self.dir).expect("removed");
    }

    /// Panics unless it bit.
    fn bit(&self, where_: &str) {
        let Control { done, renames_lost, appends_lost, .. } = self;
        eprintln!("{where_}: of {done}, {renames_lost} renames and {appends_lost} appends were lost");
        assert!(*renames_lost > 0 && *appends_lost > 0, "{where_}: nothing is lost: no power was cut");
    }
}

/// The daemon and the disk under it, ended in that order whatever happens.
struct Bench {
    m: Mounted,
    daemon: Option<Daemon>,
    disk: Cuttable,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A disk without power does not tell who has the volume.
        if let Some(daemon) = self.daemon.take().filter(|daemon| !daemon.has_ended()) {
            daemon.kill();
        }
    }
}

impl Bench {
    fn new(kind: &'static str) -> Bench {
        let disk = Cuttable::new(kind, DISK);
        let m = Mounted::elsewhere(disk.path().join("volume"), &MKFS, &[]);
        let mut bench = Bench { m, daemon: None, disk };
        bench.mount();
        bench
    }

    fn mount(&mut self) {
        self.m.mount();
        self.daemon = Some(self.m.daemon());
    }

    /// Cuts the power, ends the daemon, and gives the power back.
    fn cut(&mut self) {
        self.disk.cut();
        self.daemon.take().expect("it is mounted").kill();
    }

    fn replug(&self) {
        if is_mounted(self.m.at()) {
            self.m.take_away();
        }
        self.disk.replug();
    }

    /// Has the power go again, `after` the next mount has begun; gives whether that was before it was mounted.
    fn cut_recovery(&self, after: Duration) -> bool {
        let mut mounting = self.m.begin_to_mount();
        thread::sleep(after);
        // Before the cut: that may end it at once.
        let recovering = mounting.is_at_work() && !is_mounted(self.m.at());
        self.disk.cut();
        mounting.kill();
        self.replug();
        recovering
    }
}

fn loads(m: &Mounted, era: u64, dice: &mut Dice) -> Vec<Box<dyn Load>> {
    let root = m.path(format!("era{era}"));
    fs::create_dir(&root).expect("a new name");
    let mut loads: Vec<Box<dyn Load>> = Vec::new();
    for number in 0..WALKERS {
        loads.push(Box::new(Walker::new(root.join(format!("walker{number}")), number, dice.roll())));
    }
    let dir = |name: &str| {
        let dir = root.join(name);
        fs::create_dir(&dir).expect("a new name");
        dir
    };
    let seed = dice.roll() >> 1;
    loads.push(Box::new(Appender { dir: dir("appender"), answered: [0; 2], seed }));
    loads.push(Box::new(Saver { dir: dir("saver"), begun: 0, answered: 0, certain: 0 }));
    loads.push(Box::new(Twins { dir: dir("twins"), next: era << 32, certain: Vec::new() }));
    loads.push(Box::new(Database::new(root.join("database"), era.is_multiple_of(2))));
    sync(m.at()).expect("all that is certain");
    loads
}

/// Has all of them work until the power goes, after `load`; what comes last is `act`.
fn work_until_the_power_goes(
    bench: &mut Bench,
    loads: &mut [Box<dyn Load>],
    progress: &Progress,
    load: Duration,
    act: impl FnOnce(),
) {
    thread::scope(|scope| {
        for load in loads {
            scope.spawn(move || {
                let error = load.work(progress);
                let cut = progress.cut.load(Ordering::Acquire);
                assert!(cut, "an operation failed before the power went: {error}");
            });
        }
        thread::sleep(load);
        act();
        progress.cut.store(true, Ordering::Release);
        bench.cut();
    });
}

/// Cycles of load, a power cut, and perhaps more of them in recovery, on one volume.
fn survive_power_cuts(kind: &'static str) {
    let cycles = from_environment("CAIRN_POWER", 100).div_ceil(2);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let seed = from_environment("CAIRN_SEED", clock);
    eprintln!("CAIRN_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut bench = Bench::new(kind);
    let mut below = Control::new(bench.disk.path().join("control"), false);
    let mut above = Control::new(bench.m.path("control"), true);
    let progress = Progress::default();
    let mut at_work = loads(&bench.m, 0, &mut dice);
    let (mut lost, mut in_recovery) = (0, 0);
    // What a recovery takes differs tenfold between machines: the moments of the cuts are drawn from about as long.
    let mut recovery = Duration::from_millis(20);
    let since = Instant::now();
    for cycle in 0..cycles {
        bench.m.be_patient();
        progress.begin();
        [&below, &above].iter().for_each(|control| control.prepare().expect("there is room"));
        let load = Duration::from_millis(5 + dice.below(100));
        // Without anybody who syncs it is certain that what is not synced is lost, not likely only.
        let quiet = cycle % 5 == 4;
        let working = if quiet { &mut [][..] } else { &mut at_work[..] };
        work_until_the_power_goes(&mut bench, working, &progress, load, || {
            [&below, &above].iter().for_each(|control| control.act().expect("the power is there"));
        });
        bench.replug();
        if cycle % 3 == 0 {
            for _ in 0..1 + dice.below(3) {
                let in_time =
                    bench.cut_recovery(Duration::from_micros(dice.below(recovery.as_micros() as u64)));
                in_recovery += u64::from(in_time);
                let scaled = if in_time { recovery * 3 / 2 } else { recovery / 2 };
                recovery = scaled.clamp(Duration::from_micros(100), Duration::from_millis(40));
            }
        }
        bench.m.fsck();
        bench.mount();
        [&mut below, &mut above].into_iter().for_each(Control::check);
        for load in &mut at_work {
            lost += u64::from(load.check(&progress));
        }
        if cycle % CYCLES_OF_FILES == CYCLES_OF_FILES - 1 {
            let era = cycle / CYCLES_OF_FILES;
            at_work.clear();
            fs::remove_dir_all(bench.m.path(format!("era{era}"))).expect("removed");
            bench.m.sync();
            at_work = loads(&bench.m, era + 1, &mut dice);
        }
    }
    let seconds = since.elapsed().as_secs_f64();
    eprintln!(
        "{kind}: {cycles} cycles and {in_recovery} more cuts in recovery in {seconds:.1} s; {lost} times something \
         was lost that was not certain"
    );
    below.bit(kind);
    above.bit("cairn");
    assert!(lost > 0 && in_recovery > 0, "the power went at no interesting moment");
    drop(at_work);
    bench.daemon = None;
    bench.m.unmount();
    bench.m.fsck();
}

#[test]
fn what_was_certain_survives_power_cuts_on_xfs() {
    survive_power_cuts("xfs");
}

#[test]
fn what_was_certain_survives_power_cuts_on_ext4() {
    survive_power_cuts("ext4");
}
