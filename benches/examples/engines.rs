//! The namespace's own workload on both engines: a base, checkpoints behind it, changes, look-ups, directories, the scan a
//! mount makes, what it takes of disk and memory, and how a mount finds it after a clean end and after a kill.
//!
//! Usage: `engines [KEYS [ROUNDS]]`, by default 300000 and 3. Prints a table of medians; engines take turns. Each
//! measurement is a process of its own, so that its memory is its own. Keys are the namespace's; values are noise of the
//! lengths that inodes, names and extents have.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use cairn_format::key::Key;
use cairn_format::{CheckpointRef, Ino, Lsn, PackId, View};
use cairn_volume::engine::{Change, Engine, MetaEngine};
use nix::sys::signal::{Signal, raise};

/// What a mount gives its engine.
const CACHE: usize = 64 << 20;
const KEYS_PER_FILE: u64 = 4;
const FILES_PER_DIR: u64 = 100;
/// Files that a checkpoint brings or changes.
const DELTA: u64 = 5_000;
const CHURNS: u64 = 20;
const LOOKUPS: u64 = 100_000;
const LISTINGS: u64 = 2_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--measure", engine, dir, keys, phase] => measure(engine, Path::new(dir), keys, phase),
        [] => compare(300_000, 3),
        [keys] => keys.parse().map_err(Into::into).and_then(|keys| compare(keys, 3)),
        [keys, rounds] => numbers(keys, rounds).and_then(|(keys, rounds)| compare(keys, rounds)),
        _ => Err("Usage: engines [KEYS [ROUNDS]]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("engines: {error}");
            ExitCode::FAILURE
        }
    }
}

fn numbers(keys: &str, rounds: &str) -> Outcome<(u64, u32)> {
    Ok((keys.parse()?, rounds.parse()?))
}

/// Runs all phases for both engines, in turns, and prints the medians.
fn compare(keys: u64, rounds: u32) -> Outcome<()> {
    let mut figures: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    let mut order = Vec::new();
    for _ in 0..rounds {
        for engine in ["redb", "sled"] {
            let dir = tempfile::tempdir()?;
            for phase in ["fill", "clean", "kill", "killed"] {
                let place = dir.path().to_string_lossy().into_owned();
                let output = Command::new(std::env::current_exe()?)
                    .args(["--measure", engine, &place, &keys.to_string(), phase])
                    .output()?;
                // The phase `kill` ends by a signal.
                if !output.status.success() && phase != "kill" {
                    return Err(
                        format!("{engine} {phase}: {}", String::from_utf8_lossy(&output.stderr)).into()
                    );
                }
                for line in String::from_utf8_lossy(&output.stdout).lines() {
                    let (name, figure) = line.split_once('\t').ok_or("a line without a tab")?;
                    if !order.iter().any(|known| known == name) {
                        order.push(name.to_owned());
                    }
                    figures.entry((name.to_owned(), engine.to_owned())).or_default().push(figure.parse()?);
                }
            }
        }
    }
    println!("| {keys} keys, medians of {rounds} | redb | sled | sled / redb |\n| --- | --- | --- | --- |");
    for name in order {
        let mut median = |engine: &str| {
            let figures = figures.entry((name.clone(), engine.to_owned())).or_default();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let (redb, sled) = (median("redb"), median("sled"));
        println!("| {name} | {redb:.1} | {sled:.1} | {:.2} |", sled / redb);
    }
    Ok(())
}

fn measure(engine: &str, dir: &Path, keys: &str, phase: &str) -> Outcome<()> {
    let kind: MetaEngine = engine.parse()?;
    let files = keys.parse::<u64>()? / KEYS_PER_FILE;
    match phase {
        "fill" => fill_and_use(kind, dir, files),
        "clean" => {
            let engine = timed("open after a clean end, ms", 1e3, || Ok(kind.open(dir, CACHE, false)?))?;
            timed("verify all of it, ms", 1e3, || verify(&*engine, files))?;
            report("resident after that, MiB", resident()?);
            engine.close();
            Ok(())
        }
        "kill" => {
            let engine = kind.open(dir, CACHE, false)?;
            engine.apply(&mut churn(files, 77), at(900))?;
            raise(Signal::SIGKILL)?;
            Err("still alive".into())
        }
        "killed" => timed("open after a kill, filled anew if need be, ms", 1e3, || {
            let engine = match kind.open(dir, CACHE, false) {
                Ok(engine) => engine,
                Err(_) => {
                    let engine = kind.open(dir, CACHE, true)?;
                    engine.apply(&mut (0..files).flat_map(|file| records(file, 0)), at(1))?;
                    engine
                }
            };
            verify(&*engine, files)
        }),
        other => Err(format!("no phase {other}").into()),
    }
}

fn fill_and_use(kind: MetaEngine, dir: &Path, files: u64) -> Outcome<()> {
    let engine: Arc<dyn Engine> = kind.open(dir, CACHE, false)?;
    timed("fill: half as a base, ms", 1e3, || {
        Ok(engine.apply(&mut (0..files / 2).flat_map(|file| records(file, 0)), at(1))?)
    })?;
    timed("fill: half in checkpoints, ms", 1e3, || {
        for (n, from) in (files / 2..files).step_by(DELTA as usize).enumerate() {
            let new = from..(from + DELTA).min(files);
            engine.apply(&mut new.flat_map(|file| records(file, 0)), at(2 + n as u64))?;
        }
        Ok(())
    })?;
    report("resident after it, MiB", resident()?);
    report("on disk after it, MiB", disk_bytes(dir)? / f64::from(1 << 20));
    timed("20 checkpoints of 10,000 changes, ms", 1e3, || {
        for round in 0..CHURNS {
            engine.apply(&mut churn(files, round), at(500 + round))?;
        }
        Ok(())
    })?;
    report("on disk after them, MiB", disk_bytes(dir)? / f64::from(1 << 20));
    let mut random = Random(1);
    timed("look up an inode, us", 1e6 / LOOKUPS as f64, || {
        for _ in 0..LOOKUPS {
            let ino = Ino(16 + random.below(files));
            engine.get(&Key::Inode(ino, View::LIVE).encode())?.ok_or("an inode is missing")?;
        }
        Ok(())
    })?;
    timed("list a directory of 100, us", 1e6 / LISTINGS as f64, || {
        for _ in 0..LISTINGS {
            let dir = Ino((1 << 40) | random.below(files / FILES_PER_DIR));
            let (from, to) = (Key::Order(dir, 0, View::LIVE), Key::Order(Ino(dir.0 + 1), 0, View::LIVE));
            let mut names = 0;
            engine.scan(&from.encode(), &to.encode(), &mut |_, _| {
                names += 1;
                ControlFlow::Continue(())
            })?;
            if names != FILES_PER_DIR {
                return Err(format!("{names} names in a directory").into());
            }
        }
        Ok(())
    })?;
    timed("close, ms", 1e3, || {
        engine.close();
        drop(engine);
        Ok(())
    })?;
    report("on disk when closed, MiB", disk_bytes(dir)? / f64::from(1 << 20));
    Ok(())
}

fn verify(engine: &dyn Engine, files: u64) -> Outcome<()> {
    let mut keys = 0;
    engine.scan(&[], &[0xff], &mut |_, _| {
        keys += 1;
        ControlFlow::Continue(())
    })?;
    match keys == files * KEYS_PER_FILE {
        true => Ok(()),
        false => Err(format!("{keys} keys").into()),
    }
}

/// What a file adds to the namespace.
fn records(file: u64, round: u64) -> impl Iterator<Item = Change> {
    let (ino, dir) = (Ino(16 + file), Ino((1 << 40) | (file / FILES_PER_DIR)));
    let value = move |n: u64, len: usize| Some(noise(file * 8 + n + (round << 48), len));
    let name = format!("a-name-{file:08}.txt").into_bytes();
    // Lengths: docs/FORMAT.md. Most files have one to three chunks in their first range.
    let pieces = 1 + file as usize % 3;
    [
        (Key::Inode(ino, View::LIVE).encode(), value(0, 104)),
        (Key::Name(dir, name.clone(), View::LIVE).encode(), value(1, 17)),
        (Key::Order(dir, 3 + file, View::LIVE).encode(), value(2, 12 + name.len())),
        (Key::Extent(ino, 0, View::LIVE).encode(), value(3, 1 + 77 * pieces)),
    ]
    .into_iter()
}

/// Files written again: their inodes and extents.
fn churn(files: u64, round: u64) -> impl Iterator<Item = Change> {
    let mut random = Random(round + 1);
    let chosen: std::collections::BTreeSet<_> = (0..DELTA).map(|_| random.below(files)).collect();
    chosen.into_iter().flat_map(move |file| records(file, round + 1).step_by(3))
}

fn at(lsn: u64) -> CheckpointRef {
    CheckpointRef { lsn: Lsn(lsn), pack: PackId([7; 16]) }
}

/// xorshift*: the same in each run.
struct Random(u64);

impl Random {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.roll().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn timed<T>(what: &str, scale: f64, act: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let since = Instant::now();
    let done = act()?;
    report(what, since.elapsed().as_secs_f64() * scale);
    Ok(done)
}

fn report(what: &str, figure: f64) {
    println!("{what}\t{figure}");
}

/// MiB of memory that this process has.
fn resident() -> Outcome<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn disk_bytes(dir: &Path) -> Outcome<f64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0.0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => disk_bytes(&entry.path())?,
            false => (entry.metadata()?.blocks() * 512) as f64,
        };
    }
    Ok(bytes)
}
