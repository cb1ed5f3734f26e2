//! Bytes that somebody made in order to do harm: what a fuzzer kept, and volumes spoilt by the thousand.
//!
//! `CAIRN_HOSTILE` is how many volumes are spoilt, `CAIRN_HOSTILE_FROM` the first one's seed: to see one again, set both.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_tests::containers::{self, Told};
use cairn_tests::hostile::choices::Choices;
use cairn_tests::hostile::images::Image;
use cairn_tests::hostile::{TARGETS, choices, exercise, run};
use cairn_tests::watchdog::hangs;
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, Error, MakeOptions, SeekTo, SetAttr};

/// Memory that no input may make anybody take.
const MEMORY_MAX: u64 = 512 << 20;
/// Addresses that a process which spoils volumes may have: what asks for gigabytes is refused them, and dies.
const ADDRESSES_MAX: u64 = 2 << 30;
/// Seconds of the processor's time that no input takes.
const SECONDS_MAX: u64 = 10;
/// Volumes, and inputs of each decoder, in a usual run.
const VOLUMES: u64 = 3000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A test of this program as a process of its own, so that what it takes of memory is its own.
fn alone(test: &str, from: u64, count: u64) {
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -v {}; exec \"$0\" \"$@\"", ADDRESSES_MAX >> 10))
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env("CAIRN_HOSTILE_FROM", from.to_string())
        .env("CAIRN_HOSTILE", count.to_string())
        // Each thread that ever allocated would reserve 64 MiB of addresses.
        .env("MALLOC_ARENA_MAX", "4")
        .output()
        .expect("a shell");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let tail: Vec<_> = err.lines().rev().take(40).collect();
    let tail: Vec<_> = tail.into_iter().rev().collect();
    assert!(output.status.success(), "{}\n{}\n{out}", output.status, tail.join("\n"));
    let peak = out.lines().find_map(|line| line.strip_prefix("peak ")?.parse::<u64>().ok());
    let peak = peak.expect("a peak was told");
    println!("{count} inputs from {from} on, {} MiB at the peak", peak >> 20);
    assert!(peak <= MEMORY_MAX, "{peak} bytes of memory at the peak");
}

/// The most memory this process ever had.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Seconds that this process had of the processors.
fn spent() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is mounted");
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) / 100
}

/// Ends the process when one input takes too long.
fn watch(current: &'static AtomicU64) {
    std::thread::spawn(move || {
        let mut seen = (u64::MAX, 0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = current.load(Ordering::Relaxed);
            if now != seen.0 {
                seen = (now, spent(), Instant::now());
            } else if spent() - seen.1 > SECONDS_MAX || seen.2.elapsed() > Duration::from_secs(120) {
                hangs(format_args!("input {now} takes more than {SECONDS_MAX} s"));
            }
        }
    });
}

/// Does `each` with all numbers asked for; a panic in any thread is told with the first number that met it.
fn all(each: impl Fn(u64)) {
    static CURRENT: AtomicU64 = AtomicU64::new(0);
    static PANICS: Mutex<BTreeMap<String, (u64, u64)>> = Mutex::new(BTreeMap::new());
    let from = number("CAIRN_HOSTILE_FROM").unwrap_or(0);
    let count = number("CAIRN_HOSTILE").unwrap_or(100);
    let chatty = count == 1;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if chatty {
            hook(panic);
        }
        let mut panics = PANICS.lock().unwrap_or_else(|e| e.into_inner());
        let first = panics.entry(panic.to_string()).or_insert((CURRENT.load(Ordering::Relaxed), 0));
        first.1 += 1;
    }));
    watch(&CURRENT);
    for n in from..from + count {
        CURRENT.store(n, Ordering::Relaxed);
        let _ = catch_unwind(AssertUnwindSafe(|| each(n)));
    }
    println!("\npeak {}", peak());
    let _ = std::panic::take_hook();
    let panics = PANICS.lock().unwrap_or_else(|e| e.into_inner());
    for (what, (n, times)) in panics.iter() {
        eprintln!("input {n}, and {} more: {what}", times - 1);
    }
    assert!(panics.is_empty(), "{} panics, see above", panics.len());
}

#[test]
#[ignore = "a part of another test, which runs it in a process of its own"]
fn volumes_alone() {
    all(|seed| run("volume", &choices::of_seed(seed)));
}

#[test]
fn no_spoilt_volume_makes_anybody_panic_hang_or_take_memory() {
    alone(
        "core::hostile::volumes_alone",
        number("CAIRN_HOSTILE_FROM").unwrap_or(0),
        number("CAIRN_HOSTILE").unwrap_or(VOLUMES),
    );
}

#[test]
#[ignore = "a part of another test, which runs it in a process of its own"]
fn decoders_alone() {
    all(|seed| {
        for (name, target) in TARGETS.iter().filter(|(name, _)| *name != "volume") {
            let _ = name;
            target(&choices::of_seed(seed));
        }
    });
}

#[test]
fn no_bytes_make_a_decoder_panic_hang_or_take_memory() {
    alone(
        "core::hostile::decoders_alone",
        number("CAIRN_HOSTILE_FROM").unwrap_or(0),
        number("CAIRN_HOSTILE").unwrap_or(VOLUMES) * 10,
    );
}

/// What fuzzers found or kept, in `tests/fuzz/corpus/TARGET/`.
#[test]
fn regression_everything_in_the_fuzzers_corpus_is_taken() {
    let corpus = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"));
    for (name, target) in TARGETS {
        let dir = corpus.join(name);
        let inputs = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        for input in inputs {
            let path = input.expect("a directory that can be read").path();
            println!("{}", path.display());
            target(&std::fs::read(&path).expect("a file that can be read"));
        }
    }
}

/// The bytes of a golden file.
fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    // Lines are "offset: bytes"; what is left out between them is zeros, and not missed.
    let lines = text.lines().filter_map(|line| Some(line.split_once(": ")?.1));
    let digits: Vec<u8> = lines.flat_map(str::bytes).filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| (digit as char).to_digit(16).expect("a digit") as u8;
    digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
}

/// What follows magic and version in a sealed block, as far as it says anything.
fn front(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().skip(12).take(188).copied().collect()
}

/// Healing goes through what a pack says that it holds, which may be a TiB in a file of some KiB.
#[test]
fn regression_a_short_pack_that_says_it_was_long_is_not_gone_through() {
    alone("core::hostile::volumes_alone", 8_269, 1);
}

/// A footer of megabytes, all of whose sectors have lost their checksums: which of them is wrong is tried, but not by copying
/// all others each time, nor without an end.
#[test]
fn regression_a_long_footer_is_not_copied_for_each_of_its_sectors() {
    alone("core::hostile::volumes_alone", 12_661, 1);
}

/// A superblock that asks for segments of a hundred megabytes: what is written of them is the disk's affair.
#[test]
fn regression_a_disk_in_memory_that_is_asked_for_long_segments_is_full() {
    alone("core::hostile::volumes_alone", 30_726, 1);
}

/// What the fuzzers begin with, made from golden bytes, a real volume and a few seeds.
#[test]
#[ignore = "writes files: CAIRN_SEEDS says into which directory"]
fn write_the_fuzzers_seeds() {
    let to = PathBuf::from(std::env::var_os("CAIRN_SEEDS").expect("a directory for the seeds"));
    let put = |target: &str, name: &str, which: u8, bytes: &[u8]| {
        std::fs::create_dir_all(to.join(target)).expect("a directory");
        std::fs::write(to.join(target).join(name), [&[which], bytes].concat()).expect("a file");
    };
    for (which, name) in [(1, "volume-superblock"), (2, "store-superblock")] {
        put("superblocks", name, which, &front(&golden(name)));
    }
    let index = golden("index-snapshot");
    put("superblocks", "index", 4, &index[12..index.len() - 8]);
    let footer = golden("footer");
    put("packs", "header", 1, &front(&golden("pack-header")));
    put("packs", "footer", 2, &footer[12..footer.len() - 8]);
    put("packs", "trailer", 3, &golden("trailer")[..16]);
    put("packs", "text", 4, &b"again and again ".repeat(20));
    put("packs", "frame", 5, &choices::of_seed(1));
    put("journal", "header", 1, &front(&golden("segment-header")));
    for kind in ["put", "delete", "data", "hole", "map", "epoch", "checkpoint"] {
        let bytes = golden(&format!("mutation-{kind}"));
        put("journal", kind, 2, &bytes);
        // Four small numbers before it: LSN, segment, what is synced, and a payload.
        put("journal", &format!("record-{kind}"), 3, &[&[6, 5, 6, 1, 6, 2, 0, 8][..], &bytes].concat());
    }
    let values =
        [(1, "inode"), (2, "directory-entry"), (3, "ordered-entry"), (4, "extent-chunk"), (4, "extent-hole")];
    for (which, name) in
        values.into_iter().chain([(4, "extent-journal"), (5, "pack-references"), (6, "totals")])
    {
        put("namespace", name, which, &golden(name));
    }
    put("namespace", "record", 7, &golden("metadata-record"));
    let image = Image::new(false);
    for (n, key) in image.records.keys().enumerate().step_by(5) {
        put("namespace", &format!("key-{n}"), 0, key);
    }
    let json = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    put("tensors", "safetensors", 1, json.as_bytes());
    put("tensors", "gguf", 2, &[&[1u64, 0, 1].map(u64::to_le_bytes).concat()[..], b"w\x01\0\0\0"].concat());
    for which in 0..3u8 {
        for told in 0..5u8 {
            put("tensors", &format!("container-{which}-{told}"), 0x80 + (which + 1) % 3, &[told, 1, 1, 0, 0]);
        }
    }
    put(
        "tensors",
        "zip",
        0,
        &[&[0, 12][..], &containers::npz(&[("a", "<f4", &[2], &[7; 8])], Told::Before)].concat(),
    );
    put("tensors", "onnx", 0, &[&[0, 12][..], &containers::onnx(&[("a", "1", &[2], &[7; 8])])].concat());
    for seed in 0..200 {
        let input = choices::of_seed(seed);
        put("tensors", &seed.to_string(), input[0], &input[1..]);
        put("volume", &seed.to_string(), input[0], &input[1..]);
        put("index", &seed.to_string(), input[0], &input[1..]);
    }
}

/// Ends the process when what should take no time hangs.
fn within_two_minutes(what: &str, work: impl FnOnce()) {
    let (done, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(Duration::from_secs(120)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                hangs(format_args!("{what} takes more than two minutes"));
            }
        });
        work();
        drop(done);
    });
}

#[test]
fn a_hole_as_long_as_a_file_can_be_holds_nobody_up() {
    let world = World::make(&small());
    let volume = world.open().expect("a new volume");
    let caller = Caller::default();
    let ino = volume.create(1, b"file", 0o644, 0, &caller).expect("a new name").ino;
    let resize = |size| volume.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }, &caller);
    let longest = i64::MAX as u64;
    within_two_minutes("looking through a hole", || {
        volume.write(ino, 0, b"front", false).expect("room");
        resize(longest).expect("as long as a file can be");
        assert_eq!(volume.seek(ino, 0, SeekTo::Data), Ok(0));
        assert_eq!(volume.seek(ino, 5, SeekTo::Hole), Ok(5));
        assert_eq!(volume.seek(ino, 5, SeekTo::Data), Err(Error::NoData));
        volume.write(ino, longest - 4, b"back", false).expect("room");
        assert_eq!(volume.seek(ino, 5, SeekTo::Data), Ok(longest - 4));
        // A run that is to be folded, and is a hole by then.
        resize(0).expect("a file");
        resize(longest).expect("as long as a file can be");
        volume.sync().expect("room");
        assert_eq!(volume.seek(ino, 0, SeekTo::Data), Err(Error::NoData));
        volume.write(ino, longest / 2, b"middle", false).expect("room");
        volume.sync().expect("room");
        assert_eq!(volume.seek(ino, 0, SeekTo::Data), Ok(longest / 2));
    });
    volume.close().expect("room");
}

#[test]
fn regression_files_of_a_volume_that_are_as_long_as_can_be_hold_nobody_up() {
    // Several mounts, so that there is a chain of checkpoints.
    let mounted_often = World::make(&small());
    for n in 0..5u8 {
        let volume = mounted_often.open().expect("a whole volume");
        let ino = volume.create(1, &[b'a' + n], 0o644, 0, &Caller::default()).expect("a new name").ino;
        volume.write(ino, 0, &[n; 100], false).expect("room");
        volume.close().expect("room");
    }
    for world in [Image::new(false).world, Image::new(true).world, mounted_often] {
        let files = world.disk.files();
        for kind in ["superblock", ".seg", ".pack", "index"] {
            assert!(files.iter().any(|path| path.contains(kind)), "{kind} in {files:?}");
        }
        for longer in files.chunks(1).chain([&files[..]]) {
            let world = world.fork();
            for path in longer {
                world.disk.truncate_file(path, i64::MAX as u64).expect("a file");
            }
            within_two_minutes(&format!("a volume of which {longer:?} are 8 EiB long"), || {
                exercise::all(&world, &mut Choices::new(&[]));
            });
        }
    }
}

#[test]
fn a_local_user_cannot_keep_a_mount_waiting_with_what_looks_like_records() {
    // A file whose bytes are heads of records, each of which says that it is as long as may be.
    let world = World::make(&MakeOptions { segment_size: 16 << 20, journal_size: 64 << 20, ..small() });
    let volume = world.open().expect("a new volume");
    let ino = volume.create(1, b"file", 0o644, 0, &Caller::default()).expect("a new name").ino;
    let mut head = Vec::new();
    for n in 0..320_000u64 {
        head.extend_from_slice(b"CREC\0\0\0\0");
        head.extend_from_slice(&(u64::MAX >> 2).to_le_bytes());
        head.extend_from_slice(&(n % 8).to_le_bytes());
        head.extend_from_slice(&u64::MAX.to_le_bytes());
        head.extend_from_slice(&8_000_000u32.to_le_bytes());
        // One byte more than whole words, so that some lie where records may.
        head.extend_from_slice(&[0; 5]);
    }
    volume.write(ino, 0, &head, false).expect("room");
    volume.fsync(ino, false).expect("a disk that works");
    drop(volume);
    // The record itself is torn: whoever looks for its end goes through what lies behind.
    let segments: Vec<_> = world.disk.files().into_iter().filter(|path| path.ends_with(".seg")).collect();
    for path in &segments {
        let _ = world.disk.corrupt(path, 8192 + 50, 1);
    }
    within_two_minutes("looking for what a journal says is synced", || {
        let _ = world.open().map(|volume| volume.close());
    });
}
