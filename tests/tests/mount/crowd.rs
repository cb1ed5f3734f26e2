//! Many processes at once: in one directory, on one file, reading what is being folded, removing what others walk in.
//!
//! The other processes are this test program again ([`another_process`]). `CAIRN_CROWD` multiplies how long they go on.

#![expect(unsafe_code, reason = "mapping a file into memory is; see `mapped`")]

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::ptr;
use std::slice;
use std::time::{Duration, Instant};

use cairn_tests::dice::{Dice, data, noise};
use cairn_tests::mounted::{Mounted, run, wait_until};
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;
use rustix::fs::{Advice, fadvise, sendfile};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

use crate::kills::from_environment;

/// How many there are in one directory.
const CROWD: usize = 16;
/// Names that are there all the time.
const STABLE: usize = 400;
/// No process takes so long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// A journal so short that folds and checkpoints are always under way.
const BUSY: [&str; 4] = ["--journal-size", "8M", "--segment-size", "512K"];

fn times(count: usize) -> usize {
    count * from_environment("CAIRN_CROWD", 1) as usize
}

/// A command that has this program do one of [`another_process`]'s parts.
fn process(part: &str, number: usize, dir: &Path) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["crowd::another_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("CAIRN_PART", part).env("CAIRN_NUMBER", number.to_string()).env("CAIRN_IN", dir);
    command.stdout(Stdio::null()).stdin(Stdio::null());
    command
}

/// What a process of these tests does, in place of a test.
#[test]
#[ignore = "is run by other tests, as another process"]
fn another_process() {
    let Ok(part) = env::var("CAIRN_PART") else { return };
    let number = from_environment("CAIRN_NUMBER", 0) as usize;
    let dir = PathBuf::from(env::var_os("CAIRN_IN").expect("told where"));
    match part.as_str() {
        "mingle" => mingle(&dir, number),
        "hand" => be_a_hand(&dir),
        "read" => read_until_told(&dir, number),
        "count" => count_up(&dir, number),
        "litter" => litter(&dir, number),
        "walk" => walk_until_told(&dir),
        other => panic!("no part: {other}"),
    }
}

/// Processes at work. They are ended with the test, whatever happens.
struct Processes(Vec<Child>);

impl Processes {
    fn start(commands: impl IntoIterator<Item = Command>) -> Processes {
        Processes(commands.into_iter().map(|mut c| c.spawn().expect("this program")).collect())
    }

    /// Returns when all have ended, which they must without an error.
    #[track_caller]
    fn join(mut self) {
        let since = Instant::now();
        for (number, child) in self.0.iter_mut().enumerate() {
            let status = loop {
                if let Some(status) = child.try_wait().expect("a child") {
                    break status;
                }
                assert!(since.elapsed() < LIMIT * times(1) as u32, "process {number} hangs");
                std::thread::sleep(Duration::from_millis(5));
            };
            assert!(status.success(), "process {number}: {status}");
        }
    }

    /// Panics if one has ended.
    #[track_caller]
    fn all_at_work(&mut self) {
        for (number, child) in self.0.iter_mut().enumerate() {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "process {number} ended early: {ended:?}");
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// The names in a directory, in the order in which they are listed.
fn listing(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    entries.map(|entry| entry.expect("listed").file_name().into_string().expect("UTF-8")).collect()
}

/// The names in a directory of which none comes a second time.
fn listed(dir: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for name in listing(dir) {
        assert!(names.insert(name.clone()), "{name} is listed twice");
    }
    names
}

fn is_there(dir: &Path, name: &str) -> bool {
    dir.join(name).symlink_metadata().is_ok()
}

fn how_they_differ(found: &[String], expected: &[String]) -> String {
    let count = |names: &[String], name: &String| names.iter().filter(|n| *n == name).count();
    let all: BTreeSet<_> = found.iter().chain(expected).collect();
    let differing = all.into_iter().filter(|name| count(found, name) != count(expected, name));
    let told =
        differing.map(|name| format!("{name} {} times, not {}", count(found, name), count(expected, name)));
    told.collect::<Vec<_>>().join("; ")
}

/// One of a crowd in `dir/all`: makes, renames, links and unlinks names of its own, and now and then looks around; competes
/// for names that all want; appends to a file that all append to. Says beside it what it has in the end.
fn mingle(dir: &Path, number: usize) {
    let all = dir.join("all");
    let mut dice = Dice::new(number as u64);
    let mut own: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mine = format!("{number:02}-");
    let stables: &BTreeSet<_> = &(0..STABLE).map(|n| format!("stable{n}")).collect();
    let mut won = Vec::new();
    let mut shared = File::options().append(true).open(all.join("log")).expect("made before");
    for step in 0..times(250) {
        let [name, other] = [0; 2].map(|_| format!("{mine}{}", dice.below(60)));
        match dice.below(12) {
            0..4 if !own.contains_key(&name) => {
                let content = format!("{number} {step}").into_bytes();
                File::create_new(all.join(&name))
                    .and_then(|mut f| f.write_all(&content))
                    .expect("a new name");
                own.insert(name, content);
            }
            4..6 if own.contains_key(&name) && name != other => {
                fs::rename(all.join(&name), all.join(&other)).expect("its own");
                // Two names of one file stay two names.
                if own.get(&other) != own.get(&name) {
                    let content = own.remove(&name).expect("just looked");
                    own.insert(other, content);
                }
            }
            6 if own.contains_key(&name) && !own.contains_key(&other) => {
                fs::hard_link(all.join(&name), all.join(&other)).expect("its own");
                own.insert(other, own[&name].clone());
            }
            7..9 if own.contains_key(&name) => {
                fs::remove_file(all.join(&name)).expect("its own");
                own.remove(&name);
            }
            9 => {
                let prize = format!("prize{}", dice.below(times(60) as u64));
                match File::create_new(all.join(&prize)) {
                    Ok(_) => won.push(prize),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{prize}"),
                }
                // One file under one of many names: who finds it renames it.
                let [from, to] = [0; 2].map(|_| format!("ball{}", dice.below(4)));
                match fs::rename(all.join(&from), all.join(&to)) {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{from}"),
                }
            }
            10 => shared.write_all(format!("{number:02} {step:06}\n").as_bytes()).expect("appended"),
            11 if step % 4 == 0 => {
                // A name of somebody else that goes and comes meanwhile may be listed at both its places; what does not
                // change is listed once.
                let mut names = listing(&all);
                names.retain(|name| name.starts_with(&mine) || name.starts_with("stable"));
                names.sort();
                let expected: Vec<_> = own.keys().chain(stables).cloned().collect();
                assert!(names == expected, "{number}: {}", how_they_differ(&names, &expected));
            }
            _ => {
                if let Some((name, content)) = own.iter().nth(dice.below(own.len() as u64) as usize) {
                    assert_eq!(fs::read(all.join(name)).expect("its own"), *content);
                }
            }
        }
    }
    let lines: String = own.keys().chain(&won).map(|name| format!("{name}\n")).collect();
    fs::write(dir.join(format!("has{number}")), lines).expect("told");
}

#[test]
fn sixteen_processes_in_a_directory_lose_no_name_and_list_each_once() {
    let m = Mounted::with(&BUSY, &[]);
    let all = m.path("all");
    fs::create_dir(&all).expect("a new name");
    for name in (0..STABLE).map(|n| format!("stable{n}")).chain(["log".into(), "ball0".into()]) {
        File::create_new(all.join(name)).expect("a new name");
    }
    Processes::start((0..CROWD).map(|number| process("mingle", number, m.at()))).join();
    let check = || {
        let names = listed(&all);
        let has: Vec<_> = (0..CROWD)
            .map(|number| fs::read_to_string(m.path(format!("has{number}"))).expect("told"))
            .collect();
        let (mut expected, mut count) = (BTreeSet::new(), 0);
        for name in has.iter().flat_map(|has| has.lines()) {
            assert!(expected.insert(name.to_owned()), "{name} was made twice");
        }
        expected.extend((0..STABLE).map(|n| format!("stable{n}")).chain(["log".to_owned()]));
        for name in &names {
            match name.starts_with("ball") {
                true => count += 1,
                false => assert!(expected.contains(name), "{name} was never made, or was removed"),
            }
        }
        assert_eq!((names.len(), count), (expected.len() + 1, 1), "none is missing, and one is the ball");
        let log = fs::read_to_string(all.join("log")).expect("lines");
        let mut last = BTreeMap::new();
        for line in log.lines() {
            let (who, step) = line.split_once(' ').expect("two words");
            assert!(line.len() == 9, "'{line}' is not whole");
            let before = last.insert(who.to_owned(), step.to_owned());
            assert!(
                before.is_none_or(|before| before.as_str() < step),
                "{who} {step} came too late, or twice"
            );
        }
        assert_eq!(last.len(), CROWD, "all have appended");
        log.len()
    };
    let length = check();
    m.remount();
    assert_eq!(check(), length);
    m.finish();
}

fn hash(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{} {:016x}", bytes.len(), hasher.finish())
}

/// Calls `f` with the whole of a file, mapped shared.
fn mapped<T>(file: &File, f: impl FnOnce(&mut [u8]) -> T) -> T {
    let length = file.metadata().expect("open").len() as usize;
    if length == 0 {
        return f(&mut []);
    }
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice, as long as the file, which nobody cuts meanwhile: who
    // does is told to between two calls. It is unmapped only after `f` is done with it.
    unsafe {
        let start = mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0).expect("maps");
        let result = f(slice::from_raw_parts_mut(start.cast(), length));
        msync(start, length, MsyncFlags::SYNC).expect("synced");
        munmap(start, length).expect("mapped");
        result
    }
}

/// Does to a file what it is told, line by line, through one handle that it keeps, and answers each line.
fn be_a_hand(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("made before");
    let mut append = File::options().append(true).open(path).expect("made before");
    println!();
    for line in io::stdin().lines() {
        let line = line.expect("UTF-8");
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| -> u64 { words[at].parse().expect("a number") };
        let mut answer = String::new();
        match words[0] {
            "write" => file.write_all_at(&noise(number(1), number(3) as usize), number(2)).expect("written"),
            "append" => append.write_all(&noise(number(1), number(2) as usize)).expect("appended"),
            "cut" => file.set_len(number(1)).expect("cut"),
            "map" => mapped(&file, |bytes| {
                let (from, to) = (number(2) as usize, (number(2) + number(3)) as usize);
                bytes[from..to].copy_from_slice(&noise(number(1), to - from));
            }),
            "look" => {
                let mut bytes = vec![0; file.metadata().expect("open").len() as usize];
                file.read_exact_at(&mut bytes, 0).expect("as long as it says");
                answer = hash(&bytes);
            }
            "lookmapped" => answer = mapped(&file, |bytes| hash(bytes)),
            other => panic!("no word: {other}"),
        }
        println!("=>{answer}");
    }
}

/// Another process that has a file open.
struct Hand(Child, ChildStdin, BufReader<ChildStdout>);

impl Hand {
    fn new(number: usize, path: &Path) -> Hand {
        let mut command = process("hand", number, path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program");
        let to = child.stdin.take().expect("a pipe");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        Hand(child, to, from)
    }

    fn tell(&mut self, line: &str) -> String {
        writeln!(self.1, "{line}").expect("it listens");
        loop {
            let mut answer = String::new();
            assert!(self.2.read_line(&mut answer).expect("UTF-8") > 0, "{line}: no answer");
            // The test harness of that process says a few things, too.
            if let Some(answer) = answer.strip_prefix("=>") {
                return answer.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn two_processes_with_one_file_open_see_each_others_writes_cuts_and_mappings_at_once() {
    let m = Mounted::with(&BUSY, &[]);
    let path = m.path("f");
    File::create_new(&path).expect("a new name");
    let mut hands = [0, 1].map(|number| Hand::new(number, &path));
    let mut dice = Dice::new(3);
    let mut model: Vec<u8> = Vec::new();
    for step in 0..times(400) as u64 {
        let (at, length) = (dice.below(300_000), 1 + dice.below(30_000));
        let end = (at + length) as usize;
        let line = match dice.below(6) {
            0 | 1 => {
                model.resize(model.len().max(end), 0);
                model[at as usize..end].copy_from_slice(&noise(step, length as usize));
                format!("write {step} {at} {length}")
            }
            2 => {
                model.extend(noise(step, length as usize));
                format!("append {step} {length}")
            }
            3 => {
                model.resize(at as usize, 0);
                format!("cut {at}")
            }
            _ if end <= model.len() => {
                model[at as usize..end].copy_from_slice(&noise(step, length as usize));
                format!("map {step} {at} {length}")
            }
            _ => continue,
        };
        let one = dice.below(2) as usize;
        hands[one].tell(&line);
        let look = if dice.one_in(3) { "lookmapped" } else { "look" };
        assert_eq!(hands[1 - one].tell(look), hash(&model), "step {step}: {line}, by {look}");
        if step % 100 == 50 {
            m.sync();
        }
        model.truncate(400_000);
        if model.len() == 400_000 {
            hands[one].tell("cut 400000");
        }
    }
    drop(hands);
    assert!(fs::read(&path).expect("there") == model);
    m.remount();
    assert!(fs::read(&path).expect("there") == model, "mounted again");
    m.finish();
}

/// The bytes of a file, by its name.
fn content(name: &str) -> Vec<u8> {
    let number: u64 = name.parse().expect("a number");
    data(number.wrapping_mul(0x9e37_79b9), 1 + (number * 104_729 % 400_000) as usize)
}

fn stop(dir: &Path) -> bool {
    is_there(dir, "stop")
}

/// Reads whatever is in `dir/files`, in its own way, never from a cache, until there is a file `stop`.
fn read_until_told(dir: &Path, number: usize) {
    let (mut dice, mut count) = (Dice::new(number as u64), 0);
    while !stop(dir) {
        let names: Vec<_> = listed(&dir.join("files")).into_iter().collect();
        let Some(name) = names.get(dice.below(names.len() as u64) as usize) else { continue };
        // It may go at any time; what was opened stays.
        let Ok(mut file) = File::options().read(true).write(true).open(dir.join("files").join(name)) else {
            continue;
        };
        fadvise(&file, 0, None, Advice::DontNeed).expect("dropped");
        let expected = content(name);
        let found = match number % 3 {
            0 => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).expect("readable");
                bytes
            }
            1 => mapped(&file, |bytes| bytes.to_vec()),
            _ => sent(&file, expected.len()),
        };
        assert!(found == expected, "{name} is not what was written, by way {}", number % 3);
        count += 1;
    }
    assert!(count > 0, "reader {number} read nothing");
}

/// A file's bytes, by sendfile(2) through a pipe.
fn sent(file: &File, length: usize) -> Vec<u8> {
    let (mut out, to) = io::pipe().expect("a pipe");
    let mut bytes = vec![0; length];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let to = to;
            let mut left = length;
            while left > 0 {
                let count = sendfile(&to, file, None, left).expect("sent");
                assert!(count > 0, "{left} bytes too few");
                left -= count;
            }
        });
        out.read_exact(&mut bytes).expect("all of it");
    });
    bytes
}

#[test]
fn readers_see_every_byte_while_folds_checkpoints_and_drops_go_on() {
    let m = Mounted::with(&BUSY, &["cache_size=1M"]);
    fs::create_dir(m.path("files")).expect("a new name");
    let mut dice = Dice::new(7);
    let write = |number: u64| {
        let aside = m.path("aside");
        fs::write(&aside, content(&number.to_string())).expect("written");
        fs::rename(&aside, m.path(format!("files/{number}"))).expect("renamed");
    };
    (0..20).for_each(write);
    let mut readers = Processes::start((0..6).map(|number| process("read", number, m.at())));
    for round in 0..times(30) as u64 {
        for number in 0..6 {
            write(20 + round * 6 + number);
        }
        let names: Vec<_> = listed(&m.path("files")).into_iter().collect();
        for _ in 0..6 {
            // The same one may be drawn twice.
            let _ = fs::remove_file(m.path("files").join(&names[dice.below(names.len() as u64) as usize]));
        }
        maintain(&m, round);
        readers.all_at_work();
    }
    File::create_new(m.path("stop")).expect("a new name");
    readers.join();
    m.finish();
}

/// What moves bytes about under readers, in turns.
fn maintain(m: &Mounted, round: u64) {
    if round.is_multiple_of(2) {
        // All is folded, a checkpoint is written, what is dead is dropped.
        m.sync();
    }
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Adds one to a counter, by reading and writing it.
fn add_one(file: &File) {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0).expect("a counter");
    file.write_all_at(&(u64::from_le_bytes(bytes) + 1).to_le_bytes(), 0).expect("written");
}

const COUNTS: usize = 60;

/// Adds to a counter under each kind of lock.
fn count_up(dir: &Path, _: usize) {
    let open = |name| File::options().read(true).write(true).open(dir.join(name)).expect("made before");
    let [ranges, files] = ["posix", "ofd"].map(open);
    for _ in 0..times(COUNTS) {
        let whole = Flock::lock(open("flock"), FlockArg::LockExclusive).map_err(|(_, e)| e).expect("locked");
        add_one(&whole);
        drop(whole);
        fcntl(&ranges, FcntlArg::F_SETLKW(&whole_file(libc::F_WRLCK))).expect("locked");
        add_one(&ranges);
        fcntl(&ranges, FcntlArg::F_SETLK(&whole_file(libc::F_UNLCK))).expect("locked before");
        fcntl(&files, FcntlArg::F_OFD_SETLKW(&whole_file(libc::F_WRLCK))).expect("locked");
        add_one(&files);
        fcntl(&files, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK))).expect("locked before");
    }
}

#[test]
fn what_is_done_under_a_lock_is_done_by_one_process_at_a_time() {
    const PROCESSES: usize = 8;
    let m = Mounted::with(&BUSY, &[]);
    let names = ["flock", "posix", "ofd"];
    names.iter().for_each(|name| fs::write(m.path(name), 0u64.to_le_bytes()).expect("written"));
    Processes::start((0..PROCESSES).map(|number| process("count", number, m.at()))).join();
    for name in names {
        let bytes = fs::read(m.path(name)).expect("there");
        let expected = (PROCESSES * times(COUNTS)) as u64;
        assert_eq!(bytes, expected.to_le_bytes(), "{name}: not {expected}");
    }
    m.finish();
}

/// Panics unless the error says that others were there first.
fn was_removed(error: &io::Error) {
    let expected = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty);
    assert!(expected, "{error}");
}

/// Makes directories and files all over `dir/tree`, which somebody else removes all the time.
fn litter(dir: &Path, number: usize) {
    let mut dice = Dice::new(number as u64);
    let tree = dir.join("tree");
    let mut done = 0;
    for step in 0..times(600) {
        let mut at = tree.clone();
        for _ in 0..dice.below(4) {
            at.push(format!("d{}", dice.below(3)));
        }
        let name = at.join(format!("f{number}-{}", dice.below(10)));
        let result = match dice.below(6) {
            0 | 1 => fs::create_dir_all(&at).or_else(|error| match error.kind() {
                // It is there for one call, and gone for the next.
                ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            }),
            2 => fs::rename(&at, tree.join(format!("d{}", dice.below(3)))).or_else(|error| {
                // Into itself, or over what is no directory or is not empty.
                let odd = matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotADirectory);
                if odd || error.raw_os_error() == Some(libc::EBUSY) { Ok(()) } else { Err(error) }
            }),
            _ => File::create(&name).and_then(|mut file| {
                file.write_all(&noise(step as u64, 5_000))?;
                // Also when its name, and its directory, are gone.
                let mut found = Vec::new();
                File::open(&name)?.read_to_end(&mut found)?;
                assert!(found.is_empty() || found.len() <= 5_000, "{} bytes", found.len());
                Ok(())
            }),
        };
        match result {
            Ok(()) => done += 1,
            Err(error) => was_removed(&error),
        }
    }
    assert!(done > 0, "{number} made nothing");
}

/// Walks through `dir/tree` again and again and reads what is in it, until there is a file `stop`.
fn walk_until_told(dir: &Path) {
    while !stop(dir) {
        let mut left = vec![dir.join("tree")];
        while let Some(at) = left.pop() {
            let entries = match fs::read_dir(&at) {
                Ok(entries) => entries,
                Err(error) => {
                    was_removed(&error);
                    continue;
                }
            };
            for entry in entries {
                // A directory that was removed while it is open has nothing more to list.
                let Ok(entry) = entry.inspect_err(was_removed) else { break };
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => left.push(entry.path()),
                    Ok(_) => drop(fs::read(entry.path()).inspect_err(was_removed)),
                    Err(error) => was_removed(&error),
                }
            }
        }
    }
}

#[test]
fn a_tree_can_be_removed_while_others_walk_and_write_in_it() {
    let m = Mounted::with(&BUSY, &[]);
    let tree = m.path("tree");
    fs::create_dir(&tree).expect("a new name");
    let walkers = Processes::start((0..2).map(|number| process("walk", number, m.at())));
    let mut litterers = Processes::start((0..3).map(|number| process("litter", number, m.at())));
    let mut removed = 0;
    while litterers.0.iter_mut().any(|child| matches!(child.try_wait(), Ok(None))) {
        match fs::remove_dir_all(&tree) {
            Ok(()) => removed += 1,
            Err(error) => was_removed(&error),
        }
        let _ = fs::create_dir(&tree);
    }
    litterers.join();
    File::create_new(m.path("stop")).expect("a new name");
    walkers.join();
    assert!(removed > 0, "it was never removed as a whole");
    // It may have gone between two of them.
    let _ = fs::create_dir(&tree);
    run("rm", [OsStr::new("-r"), tree.as_os_str(), m.path("stop").as_os_str()]).ok();
    // The kernel may tell a little later what it has forgotten.
    wait_until("nothing is left but the root", || {
        m.sync();
        (m.df("files"), m.df("logical")) == (1, 0)
    });
    m.finish();
}
