//! What parity costs and what healing takes, on a disk.
//!
//! Usage: `healing DIR MIB [ROUNDS]`, 5 rounds if not told. DIR must be empty. In each round, in turn:
//!
//! - MIB mebibytes of data that does not compress much are written into a volume without parity and one with 16+2, and
//!   folded: processor time of all threads, and bytes of the packs;
//! - the packs are read, as `cat` reads them and as a scrub does, both past the page cache;
//! - a sector is spoilt, and its frame read from the page cache, with healing and, whole, without.
//!
//! Prints medians; ratios within one run are what to look at.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use cairn_format::{PackId, PackKind};
use cairn_store::disk::FileDisk;
use cairn_store::heal::examine;
use cairn_store::{Store, StoreOptions, list_packs};
use cairn_volume::{Caller, MakeOptions, OpenOptions, make, open};
use rustix::time::{ClockId, clock_gettime};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &String| text.parse::<u64>().ok().filter(|n| *n > 0);
    let parsed = match arguments.as_slice() {
        [dir, mib] => number(mib).map(|mib| (dir, mib, 5)),
        [dir, mib, rounds] => number(mib).zip(number(rounds)).map(|(mib, rounds)| (dir, mib, rounds)),
        _ => None,
    };
    let Some((dir, mib, rounds)) = parsed else {
        eprintln!("Usage: healing DIR MIB [ROUNDS]");
        return ExitCode::from(2);
    };
    match measure(Path::new(dir), mib, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("healing: {dir}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

#[derive(Default)]
struct Figures {
    plain: Vec<f64>,
    coded: Vec<f64>,
    added: Vec<f64>,
    cat: Vec<f64>,
    scrub: Vec<f64>,
    whole: Vec<f64>,
    healed: Vec<f64>,
}

fn measure(dir: &Path, mib: u64, rounds: u64) -> io::Result<()> {
    let mut figures = Figures::default();
    for round in 0..rounds {
        let (at, plain) = ingest(&dir.join("plain"), mib, round, (0, 0))?;
        let bare = pack_bytes(&at)?;
        fs::remove_dir_all(&at)?;
        let (at, coded) = ingest(&dir.join("coded"), mib, round, (16, 2))?;
        figures.plain.push(plain);
        figures.coded.push(coded);
        figures.added.push(100.0 * (pack_bytes(&at)? as f64 / bare as f64 - 1.0));
        read_all(&at, &mut figures)?;
        heal(&at, &mut figures)?;
        fs::remove_dir_all(&at)?;
    }
    let share = 100.0 * (median(&figures.coded) / median(&figures.plain) - 1.0);
    println!("{mib} MiB, medians of {rounds} rounds");
    println!(
        "ingest, processor     {:8.3} s without parity, {:.3} s with 16+2: {share:+.1}%",
        median(&figures.plain),
        median(&figures.coded)
    );
    println!("bytes that 16+2 adds  {:8.2} %", median(&figures.added));
    let (cat, scrub) = (median(&figures.cat), median(&figures.scrub));
    println!(
        "read past the cache   {cat:8.0} MB/s as cat, {scrub:.0} MB/s as scrub: {:.0}%",
        100.0 * scrub / cat
    );
    println!(
        "a frame, cached       {:8.3} ms whole, {:.3} ms with a sector healed",
        median(&figures.whole),
        median(&figures.healed)
    );
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Bytes of which about half can be compressed away, different in each round and each mebibyte.
fn content(round: u64, number: u64) -> Vec<u8> {
    let mut state = (round << 32 | number) * 2 + 1;
    let mut bytes = Vec::with_capacity(1 << 20);
    while bytes.len() < 1 << 20 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let word = (state ^ state >> 29).to_le_bytes();
        bytes.extend_from_slice(&word);
        bytes.extend(word.map(|byte| byte & 0x0f));
    }
    bytes
}

/// Makes a volume and writes into it; where it is, and the seconds of the processor that this took.
fn ingest(dir: &Path, mib: u64, round: u64, parity: (u8, u8)) -> io::Result<(PathBuf, f64)> {
    let options = MakeOptions { parity_data: parity.0, parity_extra: parity.1, ..MakeOptions::default() };
    make(dir, &options).map_err(other)?;
    let data: Vec<Vec<u8>> = (0..mib.min(64)).map(|number| content(round, number)).collect();
    let before = processor();
    let volume = open(dir, OpenOptions::default()).map_err(other)?;
    let caller = Caller { uid: 0, gid: 0 };
    let file = volume.create(1, b"data", 0o644, 0, &caller).map_err(other)?;
    for number in 0..mib {
        let mut part = data[(number % data.len() as u64) as usize].clone();
        // Never the same chunk again.
        part.chunks_mut(4096)
            .for_each(|page| page[..8].copy_from_slice(&(number << 32 | round).to_le_bytes()));
        volume.write(file.ino, number << 20, &part, false).map_err(other)?;
    }
    volume.sync().map_err(other)?;
    volume.close().map_err(other)?;
    Ok((dir.to_path_buf(), processor() - before))
}

/// Seconds of the processor that all threads of this process took.
fn processor() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Packs, with the lengths of their files.
type Packs = Vec<(PackId, u64)>;

fn packs(volume: &Path) -> io::Result<(Arc<FileDisk>, Packs)> {
    let disk = Arc::new(FileDisk::open(&volume.join("store"))?);
    let listing = list_packs(&*disk).map_err(other)?;
    Ok((disk, listing.packs))
}

fn pack_bytes(volume: &Path) -> io::Result<u64> {
    Ok(packs(volume)?.1.iter().map(|(_, len)| len).sum())
}

fn file_of(volume: &Path, pack: &PackId) -> PathBuf {
    volume.join("store").join(cairn_store::pack_path(pack))
}

/// Megabytes a second, as they are and held against their checksums. Each twice, in turn: what lies below may have a cache of
/// its own, which the first time fills.
fn read_all(volume: &Path, figures: &mut Figures) -> io::Result<()> {
    let (disk, packs) = packs(volume)?;
    let bytes: u64 = packs.iter().map(|(_, len)| len).sum();
    let rate = |began: Instant| bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    for counts in [false, true] {
        for (pack, _) in &packs {
            forget(&file_of(volume, pack))?;
        }
        let began = Instant::now();
        cat(volume, &packs)?;
        let cat = rate(began);
        let began = Instant::now();
        for (pack, _) in &packs {
            let examined = examine(&*disk, *pack, &mut |_| true).map_err(other)?;
            if !examined.is_some_and(|examined| examined.is_whole()) {
                return Err(other(format!("{pack} is not whole")));
            }
        }
        if counts {
            figures.cat.push(cat);
            figures.scrub.push(rate(began));
        }
    }
    Ok(())
}

fn cat(volume: &Path, packs: &[(PackId, u64)]) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    for (pack, _) in packs {
        let mut file = File::open(file_of(volume, pack))?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

fn forget(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

/// Milliseconds to read a frame in the middle of a pack, whole and with a sector of it spoilt.
fn heal(volume: &Path, figures: &mut Figures) -> io::Result<()> {
    let (disk, _) = packs(volume)?;
    let options = StoreOptions { index_mem: 1 << 20, cache_size: 0, read_only: true };
    let store = Store::open(disk, options).map_err(other)?;
    let data = store.data_summaries();
    let Some(pack) = data.iter().filter(|pack| pack.kind == PackKind::Data).max_by_key(|pack| pack.file_len)
    else {
        return Err(other("no packs"));
    };
    let footer = store.reader(pack.pack).and_then(|reader| reader.footer()).map_err(other)?;
    let Some(frame) = footer.frames.get(footer.frames.len() / 2) else { return Err(other("no frames")) };
    let path = file_of(volume, &pack.pack);
    // All of it in the page cache.
    fs::read(&path)?;
    let time = || -> io::Result<f64> {
        let began = Instant::now();
        store.reader(pack.pack).and_then(|reader| reader.frame(frame)).map_err(other)?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    };
    time()?;
    figures.whole.push(time()?);
    spoil(&path, frame.offset + 5_000..frame.offset + 5_512)?;
    figures.healed.push(time()?);
    Ok(())
}

fn spoil(path: &Path, range: Range<u64>) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all_at(&vec![0xa5; (range.end - range.start) as usize], range.start)?;
    file.flush()
}
