//! Refill: whatever of lost chunks is in what is looked through is back, byte for byte and for good; the rest stays an error,
//! and nothing ever reads as other bytes than it had.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use cairn_codec::{Chunker, chunk_id};
use cairn_format::{PackKind, PieceKind, Uuid};
use cairn_store::disk::{Access, Crash, Disk};
use cairn_store::{PackReader, Store, list_packs, pack_path};
use cairn_tests::dice::{Dice, noise};
use cairn_tests::engine::Survival;
use cairn_tests::watchdog::watch;
use cairn_tests::world::{World, small};
use cairn_volume::{
    Allocate, Caller, ChunkId, Error, Finds, GcOptions, MakeOptions, OpenOptions, PackId, Refill,
    RefillError, RefillOptions, RefillReport, Seeker, SetAttr, SourceFile, Volume, VolumeSource,
};

use super::crash::consistent;
use super::order::{bytes_of, mount, put};
use super::tensors::{safetensors, weights};

/// What is looked through.
enum Source {
    /// Files by path, without a slash at the front.
    Copy(BTreeMap<Vec<u8>, Vec<u8>>),
    /// A file that is named by itself.
    File(Vec<u8>),
    Volume(Arc<Volume>),
    /// A pack, as it was before.
    Pack(World, PackId),
}

struct InMemory<'a> {
    bytes: &'a [u8],
    /// What cannot be read.
    bad: Range<u64>,
}

impl SourceFile for InMemory<'_> {
    fn data(&mut self, from: u64) -> io::Result<Option<Range<u64>>> {
        let end = self.bytes.len() as u64;
        Ok((from < end).then_some(from..end))
    }

    fn read_at(&mut self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = (offset as usize).min(self.bytes.len());
        let mut len = out.len().min(self.bytes.len() - from);
        if self.bad.contains(&offset) {
            return Err(io::Error::other("bad"));
        }
        if offset < self.bad.start {
            len = len.min((self.bad.start - offset) as usize);
        }
        out[..len].copy_from_slice(&self.bytes[from..from + len]);
        Ok(len)
    }
}

fn whole(bytes: &[u8]) -> InMemory<'_> {
    InMemory { bytes, bad: u64::MAX..u64::MAX }
}

/// Offers what is found.
struct Offers<'a, 'v>(&'a mut Refill<'v>);

impl Finds for Offers<'_, '_> {
    fn found(&mut self, plain: &[u8]) -> ControlFlow<()> {
        // A disk that ended takes nothing more.
        match self.0.offer(plain) {
            Ok(taken) => {
                assert!(taken, "what is looked for is taken");
                ControlFlow::Continue(())
            }
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn looked(&mut self, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

fn look(source: &Source, seeker: &mut Seeker, to: &mut dyn Finds) -> ControlFlow<()> {
    match source {
        Source::Copy(files) => {
            let mut open = |path: &[u8]| -> Option<Box<dyn SourceFile + '_>> {
                files.get(path).map(|bytes| Box::new(whole(bytes)) as _)
            };
            seeker.in_copy(&mut open, to)?;
            files.values().try_for_each(|bytes| seeker.through(&mut whole(bytes), to))
        }
        Source::File(bytes) => {
            seeker.in_any_place(&mut whole(bytes), to)?;
            seeker.through(&mut whole(bytes), to)
        }
        Source::Volume(volume) => {
            let mut open = |path: &[u8]| -> Option<Box<dyn SourceFile>> {
                VolumeSource::open(volume, path).map(|file| Box::new(file) as _)
            };
            seeker.in_copy(&mut open, to)?;
            VolumeSource::each(volume, &mut |mut file| seeker.through(&mut file, to))
        }
        Source::Pack(world, pack) => {
            let reader = PackReader::open(&*world.store_disk(), *pack).expect("there");
            seeker.in_pack(&reader, to)
        }
    }
}

fn refill(volume: &Volume, sources: &[Source], options: &RefillOptions) -> Option<RefillReport> {
    refill_while(volume, sources, options, &mut || ())
}

/// `between` is called when it is known what is looked for, and nothing is found yet. None where the disk ended.
fn refill_while(
    volume: &Volume,
    sources: &[Source],
    options: &RefillOptions,
    between: &mut dyn FnMut(),
) -> Option<RefillReport> {
    let mut refill = volume.refill(options, &mut |_| true).ok()?;
    while let Some(wanted) = refill.next(&mut |_| true).ok()? {
        between();
        let mut seeker = Seeker::new(wanted);
        for source in sources {
            if look(source, &mut seeker, &mut Offers(&mut refill)).is_break() {
                return None;
            }
        }
    }
    refill.finish(&mut |_| true).ok()
}

/// A file of the volume as it was.
#[derive(Clone)]
struct Was {
    path: Vec<u8>,
    bytes: Vec<u8>,
    /// Its pieces: place in the file, length, and the chunk with where in it the piece begins.
    pieces: Vec<(u64, u64, ChunkId, u64)>,
}

/// A volume with a random tree, closed, and what is in it.
struct Tree {
    world: World,
    files: Vec<Was>,
    /// Files before parts of them became holes.
    old: BTreeMap<Vec<u8>, Vec<u8>>,
    /// All chunks of its packs.
    chunks: HashMap<ChunkId, Vec<u8>>,
}

fn ino(volume: &Volume, path: &[u8]) -> u64 {
    path.split(|byte| *byte == b'/')
        .fold(1, |dir, name| volume.lookup(dir, name).expect("a look-up").expect("is there").ino)
}

fn write(volume: &Volume, ino: u64, from: u64, bytes: &[u8]) {
    for (n, part) in bytes.chunks(8000).enumerate() {
        volume.write(ino, from + n as u64 * 8000, part, false).expect("write");
    }
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = [&b"stone "[..], b"heap ", b"way ", b"weather ", b"outlasts ", b"marks\n"];
    let mut dice = Dice::new(seed);
    let mut bytes = Vec::new();
    while bytes.len() < len {
        bytes.extend_from_slice(words[dice.below(6) as usize]);
    }
    bytes.truncate(len);
    bytes
}

impl Tree {
    fn grow(dice: &mut Dice) -> Tree {
        let world = World::make(&MakeOptions { frame: 4096 << dice.below(2), ..small() });
        let volume = world.open().expect("mount");
        let who = Caller::default();
        let dir = volume.mkdir(1, b"dir", 0o755, 0, &who).expect("mkdir").ino;
        let deep = volume.mkdir(dir, b"d\xffep", 0o755, 0, &who).expect("mkdir").ino;
        let dirs = [(1, &b""[..]), (dir, b"dir/"), (deep, b"dir/d\xffep/")];
        let mut paths: Vec<Vec<u8>> = Vec::new();
        let mut old = BTreeMap::new();
        for n in 0..4 + dice.below(5) {
            let (dir, prefix) = dirs[dice.below(3) as usize];
            let name = format!("file {n}").into_bytes();
            let file = volume.create(dir, &name, 0o644, 0, &who).expect("create").ino;
            volume.release(file);
            let len = 1 + dice.below(40_000) as usize;
            let bytes = if dice.one_in(3) { text(dice.roll(), len) } else { noise(dice.below(6), len) };
            write(&volume, file, 0, &bytes);
            paths.push([prefix, &name].concat());
            if dice.one_in(3) {
                volume.sync().expect("sync");
            }
            match dice.below(7) {
                // Parts of chunks that are all there in an older copy.
                0 | 1 => {
                    volume.sync().expect("sync");
                    let from = dice.below(len as u64);
                    volume
                        .allocate(file, from, 1 + dice.below(3000), Allocate::Punch, false)
                        .expect("a hole");
                    old.insert([prefix, &name[..]].concat(), bytes.clone());
                }
                // Parts of old chunks, and holes.
                2 => write(
                    &volume,
                    file,
                    dice.below(len as u64),
                    &noise(dice.roll(), 1 + dice.below(3000) as usize),
                ),
                3 => write(&volume, file, len as u64 + dice.below(9000), b"behind a hole"),
                4 => {
                    let size = Some(dice.below(len as u64) + 1);
                    volume.setattr(file, &SetAttr { size, ..SetAttr::default() }, &who).expect("cut");
                }
                5 => drop(volume.link(file, 1, format!("link {n}").as_bytes()).expect("link")),
                _ => {}
            }
        }
        volume.close().expect("close");
        let volume = world.open().expect("mount");
        let files = paths.into_iter().map(|path| was(&volume, path)).collect();
        volume.close().expect("close");
        let chunks = packs(&world, PackKind::Data).iter().flat_map(|pack| chunks_of(&world, *pack)).collect();
        Tree { world, files, old, chunks }
    }
}

fn was(volume: &Volume, path: Vec<u8>) -> Was {
    let ino = ino(volume, &path);
    let size = volume.getattr(ino).expect("attributes").size;
    let bytes = volume.read(ino, 0, size as u32).expect("reads");
    let mut pieces = Vec::new();
    for (at, len, kind) in volume.extents(ino).expect("extents") {
        if let PieceKind::Chunk(piece) = kind {
            pieces.push((at, len, piece.chunk, piece.offset.into()));
        }
    }
    Was { path, bytes, pieces }
}

fn packs(world: &World, kind: PackKind) -> Vec<PackId> {
    let disk = world.store_disk();
    let mut packs: Vec<_> =
        list_packs(&*disk).expect("lists").packs.into_iter().map(|(pack, _)| pack).collect();
    packs.sort();
    packs.retain(|pack| {
        PackReader::open(&*disk, *pack)
            .and_then(|reader| reader.footer())
            .is_ok_and(|footer| footer.kind == kind)
    });
    packs
}

fn chunks_of(world: &World, pack: PackId) -> Vec<(ChunkId, Vec<u8>)> {
    let reader = PackReader::open(&*world.store_disk(), pack).expect("there");
    let mut chunks = Vec::new();
    for entry in reader.footer().expect("whole").frames {
        let frame = reader.frame(&entry).expect("whole");
        for slot in 0..frame.chunks.len() as u32 {
            let (chunk, bytes) = frame.chunk(slot).expect("there");
            chunks.push((chunk.id, bytes.to_vec()));
        }
    }
    chunks
}

fn spoil(disk: &dyn Disk, pack: PackId, at: Range<u64>) {
    let file = disk.open(&pack_path(&pack), Access::Write).expect("is there");
    let mut bytes = vec![0; (at.end - at.start) as usize];
    file.read_exact_at(&mut bytes, at.start).expect("reads");
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    file.write_at(&bytes, at.start).expect("writes");
}

/// Damages a pack beyond what parity restores.
fn damage(world: &World, pack: PackId, dice: &mut Dice) {
    let disk = world.store_disk();
    let footer = PackReader::open(&*disk, pack).and_then(|reader| reader.footer()).expect("whole");
    match dice.below(4) {
        0 => disk.remove(&pack_path(&pack)).expect("removed"),
        // Nothing of it can be used.
        1 => {
            let len = footer.layout().file_len();
            spoil(&*disk, pack, 0..len);
        }
        _ => {
            spoil(&*disk, pack, footer.layout().parity_area());
            let all = dice.one_in(3);
            for frame in &footer.frames {
                if all || dice.one_in(2) {
                    let middle = frame.offset + u64::from(frame.len) / 2;
                    spoil(&*disk, pack, middle..middle + 1);
                }
            }
        }
    }
}

/// Which pieces of files cannot be read; that all others are what they were.
fn unreadable(volume: &Volume, files: &[Was], what: &str) -> HashSet<(usize, usize)> {
    let mut lost = HashSet::new();
    for (n, file) in files.iter().enumerate() {
        let ino = ino(volume, &file.path);
        for (m, (at, len, ..)) in file.pieces.iter().enumerate() {
            let expected = &file.bytes[*at as usize..(at + len) as usize];
            match volume.read(ino, *at, *len as u32) {
                Ok(bytes) => assert!(bytes == expected, "{what}: other bytes at {at} of {:?}", file.path),
                Err(Error::Io) => drop(lost.insert((n, m))),
                Err(error) => panic!("{what}: {error:?}"),
            }
        }
    }
    lost
}

/// Chunks as the volume cuts bytes.
fn cut<'a>(bytes: &'a [u8], key: &[u8; 32]) -> Vec<(ChunkId, &'a [u8])> {
    let options = small();
    let sizes =
        cairn_volume::ChunkSizes { min: options.chunk_min, avg: options.chunk_avg, max: options.chunk_max };
    let chunker = Chunker::new(sizes);
    let (mut at, mut chunks) = (0, Vec::new());
    while at < bytes.len() {
        let len = chunker.cut(&bytes[at..]);
        chunks.push((chunk_id(key, &bytes[at..at + len]), &bytes[at..at + len]));
        at += len;
    }
    chunks
}

fn key(world: &World) -> [u8; 32] {
    Store::superblock_of(&*world.store_disk()).expect("a superblock").newest.chunk_key
}

/// The chunks that sources hold: cut anywhere, or in the place that a lost piece of a file says.
fn held(tree: &Tree, lost: &HashSet<(usize, usize)>, sources: &[Source], key: &[u8; 32]) -> HashSet<ChunkId> {
    let mut held = HashSet::new();
    let mut in_place = |bytes: &[u8], file: &Was, m: usize| {
        let (at, _, id, from) = file.pieces[m];
        let whole = &tree.chunks[&id];
        if let Some(start) = at.checked_sub(from)
            && bytes.get(start as usize..start as usize + whole.len()) == Some(whole)
        {
            held.insert(id);
        }
    };
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut packed = HashSet::new();
    for source in sources {
        match source {
            Source::Copy(files) => {
                for (path, bytes) in files {
                    for (n, m) in lost {
                        let file = &tree.files[*n];
                        if file.path == *path || file.path.ends_with(&[b"/", &path[..]].concat()) {
                            in_place(bytes, file, *m);
                        }
                    }
                    all.push(bytes.clone());
                }
            }
            Source::File(bytes) => {
                lost.iter().for_each(|(n, m)| in_place(bytes, &tree.files[*n], *m));
                all.push(bytes.clone());
            }
            Source::Volume(volume) => {
                for name in [&b"a"[..], b"b"] {
                    if let Some(Ok(bytes)) = bytes_of(volume, name) {
                        all.push(bytes);
                    }
                }
            }
            Source::Pack(world, pack) => packed.extend(chunks_of(world, *pack).into_iter().map(|(id, _)| id)),
        }
    }
    held.extend(packed);
    held.extend(all.iter().flat_map(|bytes| cut(bytes, key)).map(|(id, _)| id));
    held
}

/// Some of what may be looked through.
fn sources(tree: &Tree, dice: &mut Dice) -> Vec<Source> {
    let mut sources = Vec::new();
    for _ in 0..1 + dice.below(3) {
        sources.push(match dice.below(8) {
            // A copy of some of the files; now and then of a directory only, or spoilt.
            0 | 1 => {
                let (some, below, spoilt) = (dice.one_in(2), dice.one_in(3), dice.one_in(3));
                let mut files = BTreeMap::new();
                for file in tree.files.iter() {
                    let path = match file.path.strip_prefix(b"dir/") {
                        Some(inside) if below => inside.to_vec(),
                        _ => file.path.clone(),
                    };
                    let mut bytes = file.bytes.clone();
                    if spoilt {
                        let at = dice.below(bytes.len() as u64) as usize;
                        bytes[at] ^= 1;
                    }
                    if !some || dice.one_in(2) {
                        files.insert(path, bytes);
                    }
                }
                Source::Copy(files)
            }
            // As they were before, and longer: nothing of it ends where files do.
            6 => {
                let longer = |bytes: &Vec<u8>, n| [&bytes[..], &noise(n, 5000)[..]].concat();
                let mut files: BTreeMap<_, _> =
                    tree.files.iter().map(|file| (file.path.clone(), longer(&file.bytes, 5))).collect();
                files.extend(tree.old.iter().map(|(path, bytes)| (path.clone(), longer(bytes, 6))));
                Source::Copy(files)
            }
            // Under other names, with something in front.
            2 => {
                let shifted = tree.files.iter().enumerate().map(|(n, file)| {
                    let prefix = noise(n as u64, 1 + dice.below(20) as usize);
                    (format!("old/{n}").into_bytes(), [prefix, file.bytes.clone()].concat())
                });
                Source::Copy(shifted.collect())
            }
            // Halves, one behind another.
            3 => Source::File(
                tree.files.iter().flat_map(|file| file.bytes[file.bytes.len() / 2..].to_vec()).collect(),
            ),
            4 => Source::File(noise(dice.roll(), 30_000)),
            5 => {
                let world =
                    World::make(&MakeOptions { uuid: Some(Uuid([7; 16])), chunk_avg: 2048, ..small() });
                let volume = world.open().expect("mount");
                let file = &tree.files[dice.below(tree.files.len() as u64) as usize];
                write(&volume, put(&volume, b"a", b""), 0, &file.bytes);
                write(&volume, put(&volume, b"b", b""), 0, &noise(77, 5000));
                volume.close().expect("close");
                let options = OpenOptions { read_only: dice.one_in(2), ..OpenOptions::default() };
                Source::Volume(world.open_with(options).expect("mount"))
            }
            _ => {
                let all = packs(&tree.world, PackKind::Data);
                Source::Pack(tree.world.fork(), all[dice.below(all.len() as u64) as usize])
            }
        });
    }
    sources
}

fn uncached() -> OpenOptions {
    OpenOptions { index_mem: 1 << 20, cache_size: 0, ..OpenOptions::default() }
}

fn case(seed: u64, counts: &mut [u64; 4]) {
    let mut dice = Dice::new(seed);
    let dice = &mut dice;
    let tree = Tree::grow(dice);
    let key = key(&tree.world);
    let world = tree.world.fork();
    let every = dice.one_in(3);
    // Packs of files only: what metadata packs lose has nothing to do with this.
    for pack in packs(&world, PackKind::Data) {
        if every || dice.one_in(2) {
            damage(&world, pack, dice);
        }
    }
    if dice.one_in(2) {
        // What is known of packs is read from their footers then.
        world.store_disk().remove("index").expect("there");
    }
    let what = format!("seed {seed}");
    let volume = world.open_with(uncached()).expect("mount");
    let lost = unreadable(&volume, &tree.files, &what);
    let sources = sources(&tree, dice);
    let held = held(&tree, &lost, &sources, &key);
    let still: HashSet<_> =
        lost.iter().filter(|(n, m)| !held.contains(&tree.files[*n].pieces[*m].2)).copied().collect();
    let options = RefillOptions {
        most: [1, 3, 1000][dice.below(3) as usize],
        deep: dice.one_in(3),
        threads: 1 + dice.below(2) as usize,
        ..RefillOptions::default()
    };
    if dice.one_in(2) {
        let before = world.disk.operations();
        let report = refill(&volume, &sources, &RefillOptions { dry_run: true, ..options.clone() });
        told(&report.expect("looks"), &tree, &lost, &still, &format!("{what}: looking only"));
        assert_eq!(world.disk.operations(), before, "{what}: looking writes nothing");
    }
    let report = refill(&volume, &sources, &options).unwrap_or_else(|| panic!("{what}: fails"));
    told(&report, &tree, &lost, &still, &what);
    assert_eq!(unreadable(&volume, &tree.files, &what), still, "{what}: what is back");
    volume
        .gc(&GcOptions { threshold: 100, ..GcOptions::default() }, &mut |_| ControlFlow::Continue(()))
        .expect("gc");
    volume.close().expect("close");
    let volume = world.open_with(uncached()).expect("mount");
    let what = format!("{what}: after a mount");
    assert_eq!(unreadable(&volume, &tree.files, &what), still, "{what}");
    volume.close().expect("close");
    if still.is_empty() {
        consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
        counts[0] += u64::from(!lost.is_empty());
    }
    counts[1] += u64::from(!still.is_empty() && still != lost);
    counts[2] += u64::from(!lost.is_empty() && still == lost);
    counts[3] += report.places_refilled;
}

/// That a report says what was lost, and what is.
fn told(
    report: &RefillReport,
    tree: &Tree,
    lost: &HashSet<(usize, usize)>,
    still: &HashSet<(usize, usize)>,
    what: &str,
) {
    let id = |(n, m): &(usize, usize)| tree.files[*n].pieces[*m].2;
    let chunks = |of: &HashSet<(usize, usize)>| of.iter().map(id).collect::<HashSet<_>>().len() as u64;
    assert_eq!(report.chunks_known + report.chunks_found, chunks(lost) - chunks(still), "{what}: {report:?}");
    let bytes =
        |of: &HashSet<(usize, usize)>| of.iter().map(|(n, m)| tree.files[*n].pieces[*m].1).sum::<u64>();
    let named: BTreeSet<(u64, u64)> = report
        .files
        .iter()
        .flat_map(|file| {
            file.ranges.iter().flat_map(|(at, len)| (*at..at + len).map(|byte| (file.inode, byte)))
        })
        .collect();
    assert_eq!(named.len() as u64, bytes(still), "{what}: {report:?}");
    let paths: BTreeSet<String> = report.files.iter().flat_map(|file| file.paths.clone()).collect();
    for (n, _) in still {
        let path = format!("/{}", String::from_utf8_lossy(&tree.files[*n].path));
        assert!(paths.contains(&path), "{what}: {path} is not among {paths:?}");
    }
    assert!(!report.more, "{what}");
}

#[test]
fn what_sources_hold_of_what_is_lost_is_back_for_good_and_the_rest_is_an_error() {
    let cases = std::env::var("CAIRN_REFILL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let first = std::env::var("CAIRN_REFILL_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut counts = [0; 4];
    for seed in first..first + cases {
        let _watchdog = watch("a volume that is refilled", 10);
        case(seed, &mut counts);
    }
    println!("all back, some, none; places: {counts:?}");
    if cases >= 60 {
        assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
    }
}

/// Some files in one pack, and one that is theirs and is beyond parity.
fn beyond_parity(files: u8) -> (World, Vec<Was>) {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    for n in 0..files {
        put(&volume, &[b'a' + n], &noise(n.into(), 9000));
    }
    volume.close().expect("close");
    let volume = world.open().expect("mount");
    let files = (0..files).map(|n| was(&volume, vec![b'a' + n])).collect();
    volume.close().expect("close");
    for pack in packs(&world, PackKind::Data) {
        let disk = world.store_disk();
        let footer = PackReader::open(&*disk, pack).and_then(|reader| reader.footer()).expect("whole");
        spoil(&*disk, pack, footer.layout().parity_area());
        for frame in footer.frames.iter().step_by(2) {
            let middle = frame.offset + u64::from(frame.len) / 2;
            spoil(&*disk, pack, middle..middle + 1);
        }
    }
    (world, files)
}

fn copies(files: &[Was]) -> Vec<Source> {
    vec![Source::Copy(files.iter().map(|file| (file.path.clone(), file.bytes.clone())).collect())]
}

#[test]
fn a_run_that_loses_its_power_anywhere_is_run_again() {
    let (base, files) = beyond_parity(3);
    let options = RefillOptions { most: 4, ..RefillOptions::default() };
    for cut in 0.. {
        let _watchdog = watch("a run whose power is cut", 10);
        let world = base.fork();
        let volume = world.open_with(uncached()).expect("mount");
        world.disk.cut_at(world.disk.operations() + cut);
        let done = refill(&volume, &copies(&files), &options).is_some();
        let over = !world.disk.is_cut();
        assert!(done || !over, "cut {cut}");
        let other =
            [Crash::KeepAll, Crash::DropNames, Crash::DropBytes, Crash::Random(cut)][cut as usize % 4];
        for fate in [Crash::DropUnsynced, other] {
            let what = format!("cut {cut}, {fate:?}");
            let survival = if cut % 2 == 0 { Survival::All } else { Survival::None };
            let world = world.crash(fate, survival);
            let volume = mount(&world, &what);
            let lost = unreadable(&volume, &files, &what);
            assert!(!done || lost.is_empty(), "{what}: what was had back is lost");
            let report =
                refill(&volume, &copies(&files), &options).unwrap_or_else(|| panic!("{what}: fails"));
            assert_eq!((report.files.len(), report.more), (0, false), "{what}: {report:?}");
            volume.close().expect("close");
            let volume = world.open_with(uncached()).expect("mount");
            assert!(unreadable(&volume, &files, &what).is_empty(), "{what}");
            volume.close().expect("close");
            consistent(&world).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        if over {
            assert!(cut > 10, "{cut} operations");
            return;
        }
    }
}

#[test]
fn what_changes_while_it_is_looked_for_stays_as_it_was_changed() {
    let (base, files) = beyond_parity(6);
    let world = base.fork();
    let volume = world.open_with(uncached()).expect("mount");
    let who = Caller::default();
    let mut now: BTreeMap<Vec<u8>, Vec<u8>> =
        files.iter().map(|file| (file.path.clone(), file.bytes.clone())).collect();
    let report = refill_while(&volume, &copies(&files), &RefillOptions::default(), &mut || {
        let at = |name: &[u8]| ino(&volume, name);
        volume.write(at(b"a"), 100, &[1; 5000], false).expect("write");
        now.get_mut(&b"a"[..]).expect("there")[100..5100].fill(1);
        volume.setattr(at(b"b"), &SetAttr { size: Some(3000), ..SetAttr::default() }, &who).expect("cut");
        now.get_mut(&b"b"[..]).expect("there").truncate(3000);
        volume.unlink(1, b"c").expect("unlink");
        let gone = now.remove(&b"c"[..]);
        assert!(gone.is_some());
        // What is lost is copied by reference before it is back.
        let copy = put(&volume, b"copy", b"");
        let len = volume.copy_range((at(b"d"), 0), (copy, 0), 9000, false).expect("copies");
        let bytes = now[&b"d"[..]][..len as usize].to_vec();
        now.insert(b"copy".to_vec(), bytes);
        volume.write(at(b"e"), 20_000, b"behind", false).expect("write");
        let e = now.get_mut(&b"e"[..]).expect("there");
        e.resize(20_000, 0);
        e.extend_from_slice(b"behind");
    });
    let report = report.expect("refills");
    assert_eq!((report.files.len(), report.more), (0, false), "{report:?}");
    let same = |volume: &Volume, when: &str| {
        for (name, bytes) in &now {
            assert!(
                bytes_of(volume, name) == Some(Ok(bytes.clone())),
                "{when}: {}",
                String::from_utf8_lossy(name)
            );
        }
        assert!(bytes_of(volume, b"c").is_none(), "{when}");
    };
    same(&volume, "at once");
    volume.close().expect("close");
    consistent(&world).unwrap_or_else(|e| panic!("{e}"));
    same(&world.open_with(uncached()).expect("mount"), "after a mount");
}

#[test]
fn what_was_written_again_is_what_other_files_name_from_then_on_without_any_source() {
    let (world, files) = beyond_parity(3);
    let volume = world.open_with(uncached()).expect("mount");
    assert!(!unreadable(&volume, &files, "before").is_empty());
    // What was met to be lost is stored anew.
    for (n, file) in files.iter().enumerate() {
        put(&volume, format!("again {n}").as_bytes(), &file.bytes);
    }
    volume.sync().expect("folds");
    let report = refill(&volume, &[], &RefillOptions::default()).expect("refills");
    assert!(report.chunks_known > 0 && report.chunks_known == report.chunks_lost, "{report:?}");
    assert_eq!((report.chunks_found, report.files.len()), (0, 0), "{report:?}");
    for n in 0..files.len() {
        volume.unlink(1, format!("again {n}").as_bytes()).expect("unlink");
    }
    volume.sync().expect("folds");
    volume.close().expect("close");
    consistent(&world).unwrap_or_else(|e| panic!("{e}"));
    let volume = world.open_with(uncached()).expect("mount");
    assert!(unreadable(&volume, &files, "after").is_empty());
}

#[test]
fn what_cannot_be_read_of_a_source_is_left_out_and_what_lies_behind_is_found() {
    let (world, files) = beyond_parity(3);
    let volume = world.open_with(uncached()).expect("mount");
    let long: Vec<u8> =
        [noise(50, 150_000), files.iter().flat_map(|file| file.bytes.clone()).collect()].concat();
    let mut refill = volume.refill(&RefillOptions::default(), &mut |_| true).expect("begins");
    let wanted = refill.next(&mut |_| true).expect("lists").expect("something is lost");
    let mut seeker = Seeker::new(wanted);
    let all = seeker.left();
    let looked = seeker.through(&mut InMemory { bytes: &long, bad: 100..70_000 }, &mut Offers(&mut refill));
    assert!(looked.is_continue());
    // The first may be cut otherwise behind what is in front of it.
    assert!(all > 8 && seeker.left() < all / 2, "{} of {all} were not found", seeker.left());
    drop(refill);
    assert!(matches!(volume.refill(&RefillOptions::default(), &mut |_| true).map(drop), Ok(())));
}

#[test]
fn one_run_at_a_time_and_none_in_a_volume_that_takes_no_writes() {
    let (world, files) = beyond_parity(2);
    let volume = world.open_with(uncached()).expect("mount");
    let first = volume.refill(&RefillOptions::default(), &mut |_| true).expect("begins");
    assert!(matches!(
        volume.refill(&RefillOptions::default(), &mut |_| true).map(drop),
        Err(RefillError::Busy)
    ));
    drop(first);
    volume.close().expect("close");
    let volume = world.open_with(OpenOptions { read_only: true, ..uncached() }).expect("mount");
    assert!(matches!(
        volume.refill(&RefillOptions::default(), &mut |_| true).map(drop),
        Err(RefillError::ReadOnly)
    ));
    let looking = RefillOptions { dry_run: true, ..RefillOptions::default() };
    let report = refill(&volume, &copies(&files), &looking).expect("looks");
    assert!(report.chunks_found > 0 && report.chunks_found == report.chunks_lost, "{report:?}");
    assert!(!unreadable(&volume, &files, "looking").is_empty(), "looking changes nothing");
}

#[test]
fn a_chunk_that_a_file_uses_the_end_of_is_found_where_all_of_it_was() {
    let world = World::make(&small());
    let volume = world.open().expect("mount");
    let bytes = noise(3, 9000);
    let file = put(&volume, b"a", &bytes);
    volume.sync().expect("folds");
    let (at, len, _) = *volume.extents(file).expect("extents").last().expect("it has some");
    assert!(at > 0 && len > 100, "{len} at {at}");
    volume.allocate(file, at, 50, Allocate::Punch, false).expect("a hole");
    volume.close().expect("close");
    let volume = world.open().expect("mount");
    let files = vec![was(&volume, b"a".to_vec())];
    volume.close().expect("close");
    for pack in packs(&world, PackKind::Data) {
        world.store_disk().remove(&pack_path(&pack)).expect("there");
    }
    // It goes on behind the chunk, which is cut from it nowhere.
    let source = Source::Copy(BTreeMap::from([(b"a".to_vec(), [bytes, noise(4, 5000)].concat())]));
    let volume = world.open_with(uncached()).expect("mount");
    let report = refill(&volume, &[source], &RefillOptions::default()).expect("refills");
    assert_eq!((report.files.len(), report.chunks_lost), (0, report.chunks_found), "{report:?}");
    assert!(unreadable(&volume, &files, "after").is_empty());
}

/// Tensors are cut from where they begin: a copy in another file, behind another header and under another name, has the same chunks.
#[test]
fn tensors_are_had_back_from_any_file_that_holds_them() {
    let tensors = [("a", true, weights(1, 1_300_000, true)), ("b", false, weights(2, 300_000, false))];
    let sizes = MakeOptions { journal_size: 16 << 20, segment_size: 1 << 20, pack_size: 4 << 20, ..small() };
    let world = World::make(&sizes);
    let volume = world.open().expect("mount");
    let file = safetensors("", &tensors);
    let ino = volume.create(1, b"model", 0o644, 0, &Caller::default()).expect("create").ino;
    file.chunks(100_000).enumerate().for_each(|(n, part)| {
        volume.write(ino, n as u64 * 100_000, part, false).expect("write");
    });
    volume.sync().expect("sync");
    volume.close().expect("closed");
    drop(volume);
    let disk = world.store_disk();
    for (pack, _) in list_packs(&*disk).expect("a listing").packs {
        let footer = PackReader::open(&*disk, pack).and_then(|reader| reader.footer());
        if footer.expect("whole").kind == PackKind::Data {
            disk.remove(&pack_path(&pack)).expect("removed");
        }
    }
    let volume = world.open().expect("mount");
    let other = safetensors("another header, so that everything lies elsewhere", &tensors);
    let copies = BTreeMap::from([(b"elsewhere/other".to_vec(), other)]);
    refill(&volume, &[Source::Copy(copies)], &RefillOptions::default()).expect("a disk without faults");
    let data = file.len() - 1_600_000;
    for (n, part) in file[data..].chunks(64 << 10).enumerate() {
        let read = volume.read(ino, (data + (n << 16)) as u64, part.len() as u32).expect("had back");
        assert!(read == part, "other bytes from {} on", data + (n << 16));
    }
}

#[test]
fn a_lost_base_is_had_back_for_its_file_and_for_what_differs_from_it() {
    let tensors = [("a", true, weights(1, 1_300_000, true))];
    let near: Vec<u8> = tensors[0]
        .2
        .chunks_exact(4)
        .flat_map(|number| {
            let number = f32::from_le_bytes(number.try_into().expect("four"));
            (number * 1.001).to_le_bytes()
        })
        .collect();
    let sizes = MakeOptions { journal_size: 16 << 20, segment_size: 1 << 20, pack_size: 4 << 20, ..small() };
    let world = World::make(&sizes);
    let volume = world.open().expect("mount");
    let (one, two) = (safetensors("", &tensors), safetensors("", &[("a", true, near)]));
    let mut inos = Vec::new();
    for (name, file) in [("one", &one), ("two", &two)] {
        let ino = volume.create(1, name.as_bytes(), 0o644, 0, &Caller::default()).expect("create").ino;
        file.chunks(100_000).enumerate().for_each(|(n, part)| {
            volume.write(ino, n as u64 * 100_000, part, false).expect("write");
        });
        volume.sync().expect("sync");
        inos.push(ino);
    }
    let extents = volume.extents(inos[1]).expect("extents");
    let base = extents.iter().find_map(|(_, _, kind)| match kind {
        PieceKind::Chunk(piece) => piece.base,
        _ => None,
    });
    let base = base.expect("it differs");
    volume.close().expect("closed");
    drop(volume);
    world.store_disk().remove(&pack_path(&base.pack)).expect("removed");
    let volume = world.open().expect("mount");
    assert!(volume.read(inos[1], 600_000, 4096).is_err());
    let copies = BTreeMap::from([(b"one".to_vec(), one.clone()), (b"two".to_vec(), two.clone())]);
    refill(&volume, &[Source::Copy(copies)], &RefillOptions::default()).expect("a disk without faults");
    for (ino, file) in inos.iter().zip([&one, &two]) {
        for (n, part) in file.chunks(64 << 10).enumerate() {
            let read = volume.read(*ino, (n << 16) as u64, part.len() as u32).expect("had back");
            assert!(read == part, "other bytes from {} on", n << 16);
        }
    }
    volume.close().expect("closed");
    super::crash::consistent(&world).expect("fsck");
}
