//! Filling a pack: chunks into frames, frames through the compressors on all cores, and in order into the
//! file. What is new is decided here: against the store, and against what this batch holds already.

use std::collections::{BTreeMap, HashMap};

use cairn_codec::Compressor;
use cairn_codec::tensor::{self, Batches, Run};
use cairn_format::{
    ChunkEntry, ChunkId, ChunkPiece, Codec, Compression, Element, PackId, PlanesHead, Replaced,
};
use cairn_store::{Located, PackWriter, Pins, SealedPack, StoreError};

use super::bases::{self, Keys, Known};
use super::tensors::RUN;
use super::{KIND, Place, lock};
use crate::checkpoint::MaintainError;
use crate::core::Core;
use crate::open::Dedup;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::mpsc::{Receiver, SyncSender, sync_channel};
use crate::sync::{Arc, Mutex, thread};

/// Frames that wait for a compressor or for the file, per compressor.
const QUEUE: usize = 4;
/// Chunks of a pack: its footer lists them all, and is read whole.
const CHUNKS_MAX: usize = 1 << 19;

/// Chunks on their way into one frame.
#[derive(Default)]
struct Frame {
    plain: Vec<u8>,
    chunks: Vec<ChunkEntry>,
    /// What the numbers are of the one chunk that it holds.
    element: Option<Element>,
    /// A chunk that this may be stored as the differences from.
    base: Option<FrameBase>,
}

/// What a frame may be stored as the differences from.
struct FrameBase {
    chunk: ChunkId,
    element: Element,
    plain: Vec<u8>,
}

impl FrameBase {
    fn run(&self) -> tensor::Base<'_> {
        tensor::Base { element: self.element, bytes: &self.plain }
    }
}

/// A part of a tensor, or of what repeats a pattern.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) element: Element,
    /// What its name, and where in it that is, are known by, where it is of a tensor.
    pub(super) name: Option<u64>,
}

/// A chunk that another may be stored as the differences from.
pub(crate) struct Base {
    pub(crate) place: Place,
    pub(crate) id: ChunkId,
    /// What its numbers are.
    pub(crate) element: Element,
    pub(crate) plain: Vec<u8>,
}

/// A chunk of the pack being filled: where, the number of it, and what its base is and where, if it comes to have one.
#[derive(Clone, Copy)]
struct Placed {
    place: Place,
    number: u32,
    base: Option<(ChunkId, Place)>,
}

struct Job {
    number: u32,
    compression: Compression,
    frame: Frame,
    /// What the run of numbers that it is was coded to, if somebody did that already.
    coded: Option<Option<Vec<u8>>>,
}

struct Coded {
    number: u32,
    codec: Codec,
    stored: Vec<u8>,
    plain_len: u32,
    chunks: Vec<ChunkEntry>,
    /// The chunk that it is the differences from.
    base: Option<ChunkId>,
}

/// Takes chunks, and knows which are new.
pub(crate) struct Packer<'a> {
    frame: Frame,
    /// How the frame being filled, and those behind it, are compressed.
    compression: Compression,
    frames: u32,
    chunks: u32,
    /// Chunks of the pack being filled: its own table, before any footer lists them.
    placed: HashMap<ChunkId, Placed>,
    /// What chunks of tensors are known by, with the frames that they are.
    known: Vec<(u32, Keys, Known)>,
    /// What they take the place of.
    replaces: Vec<Replaced>,
    jobs: SyncSender<Job>,
    /// Runs of numbers, where somebody codes these in batches.
    runs: Option<SyncSender<Job>>,
    /// Stored bytes so far.
    written: &'a AtomicU64,
    /// Plain bytes that wait for a batch.
    waiting: &'a AtomicU64,
    plain: u64,
    frame_size: usize,
    pack_size: u64,
    plain_limit: u64,
}

impl Packer<'_> {
    /// Where a chunk is, or is going to be, and its base, if it comes to have one; a part of a tensor, where it is. One that is stored
    /// already is what `dedup` says of that.
    pub(super) fn place(
        &mut self,
        core: &Core,
        id: &ChunkId,
        plain: &[u8],
        part: Option<Part>,
        dedup: Dedup,
        pins: &mut Pins,
    ) -> Result<(Place, Option<Place>), MaintainError> {
        let differs = part.filter(|part| core.writing.tensor_delta && part.element.is_number());
        let keys =
            differs.and_then(|part| Some((bases::keys(part.name?, plain, part.element), part.element)));
        let known = match dedup {
            Dedup::Off => None,
            _ => {
                let here = self.placed.get(id).map(|placed| (placed.place, placed.base.map(|(_, at)| at)));
                here.or_else(|| stored(core, id, plain, dedup, pins).map(|found| (Place::Found(found), None)))
            }
        };
        if let Some(known) = known {
            core.counters.deduped_bytes.add(plain.len() as u64);
            if let (Some((keys, _)), Place::Found(Located { base: None, len, .. })) = (keys, known.0) {
                core.bases.note(&keys, Known { chunk: *id, len });
            }
            return Ok(known);
        }
        core.counters.new_bytes.add(plain.len() as u64);
        let base = keys.and_then(|(keys, element)| near(core, &keys, id, plain.len(), element, pins));
        let at = base.as_ref().map(|base| base.place);
        let place = self.add(id, plain, part.map(|part| part.element), base);
        if let (Some((keys, _)), Place::New { frame, .. }) = (keys, place) {
            self.known.push((frame, keys, Known { chunk: *id, len: plain.len() as u32 }));
        }
        Ok((place, at))
    }

    /// Takes a chunk that lies elsewhere, in a pack that is to go; where it is going to be.
    pub(crate) fn take_over(
        &mut self,
        pack: PackId,
        frame: u32,
        slot: u32,
        id: &ChunkId,
        plain: &[u8],
        (element, base): (Option<Element>, Option<Base>),
    ) -> Place {
        // One that may become differences from something else is of no use: who refers to this chunk names its base, or none.
        let of_base = base.as_ref().map(|base| base.id);
        let is_alike = |placed: &&Placed| placed.base.is_none_or(|(id, _)| Some(id) == of_base);
        let here = self.placed.get(id).filter(is_alike).map(|placed| placed.place);
        let place = here.unwrap_or_else(|| self.add(id, plain, element, base));
        // `add` put it there.
        let chunk = self.placed.get(id).map_or(0, |placed| placed.number);
        self.replaces.push(Replaced { pack, frame, slot, chunk });
        place
    }

    /// Takes a chunk whatever is stored already: what is there of it cannot be used. Where it is going to be.
    pub(crate) fn store_anew(&mut self, id: &ChunkId, plain: &[u8]) -> Place {
        let here = self.placed.get(id).map(|placed| placed.place);
        here.unwrap_or_else(|| self.add(id, plain, None, None))
    }

    /// A run of numbers gets a frame of its own.
    fn add(&mut self, id: &ChunkId, plain: &[u8], element: Option<Element>, base: Option<Base>) -> Place {
        let full = element.is_some() || self.frame.plain.len() + plain.len() > self.frame_size;
        if !self.frame.chunks.is_empty() && full {
            self.send();
        }
        let place = Place::New { frame: self.frames, slot: self.frame.chunks.len() as u32 };
        self.frame.plain.extend_from_slice(plain);
        self.frame.chunks.push(ChunkEntry { id: *id, len: plain.len() as u32 });
        self.plain += plain.len() as u64;
        let base_place = base.as_ref().map(|base| (base.id, base.place));
        self.placed.insert(*id, Placed { place, number: self.chunks, base: base_place });
        self.chunks += 1;
        if element.is_some() {
            self.frame.element = element;
            self.frame.base =
                base.map(|base| FrameBase { chunk: base.id, element: base.element, plain: base.plain });
            self.send();
        }
        place
    }

    /// What comes from here on is compressed like this.
    pub(crate) fn compress_with(&mut self, compression: Compression) {
        if self.compression != compression {
            if !self.frame.chunks.is_empty() {
                self.send();
            }
            self.compression = compression;
        }
    }

    /// Whether the pack has all it should hold.
    pub(crate) fn is_full(&self) -> bool {
        self.written.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed) >= self.pack_size
            || self.plain >= self.plain_limit
            || self.placed.len() >= CHUNKS_MAX
    }

    fn send(&mut self) {
        let frame = std::mem::take(&mut self.frame);
        let is_run = frame.element.is_some() && self.compression != Compression::None;
        let len = frame.plain.len() as u64;
        let job = Job { number: self.frames, compression: self.compression, frame, coded: None };
        self.frames += 1;
        // A compressor or the writer that ended early reports why at the end.
        let _ = match self.runs.as_ref().filter(|_| is_run) {
            Some(runs) => {
                self.waiting.fetch_add(len, Ordering::Relaxed);
                runs.send(job)
            }
            None => self.jobs.send(job),
        };
    }
}

/// A chunk that this one may be near to, which is stored by itself; its pack is pinned.
fn near(
    core: &Core,
    keys: &Keys,
    id: &ChunkId,
    len: usize,
    element: Element,
    pins: &mut Pins,
) -> Option<Base> {
    let base = core.bases.find(keys, len, element).filter(|base| base.chunk != *id)?;
    let alone = |found: &Located| found.base.is_none() && found.len == base.len;
    let found = core.store.lookup_pin_where(&base.chunk, pins, alone)?;
    // From there only: it is what the file is going to name.
    let frame = core.store.frame_of(&found.piece(base.chunk)).ok()?;
    let (chunk, plain) = frame.chunk(found.slot).filter(|(chunk, _)| chunk.id == base.chunk)?;
    // What nothing was found in may be of this kind, too.
    let of_base = frame.element.unwrap_or(element);
    let as_many = tensor::base_len(len, element, of_base) == Some(chunk.len as usize);
    let place = Place::Found(found);
    as_many.then(|| Base { place, id: base.chunk, element: of_base, plain: plain.to_vec() })
}

/// Where a chunk is stored already, if it is; its pack is pinned.
fn stored(core: &Core, id: &ChunkId, plain: &[u8], dedup: Dedup, pins: &mut Pins) -> Option<Located> {
    let located = core.store.lookup_pin(id, pins).filter(|located| located.len as usize == plain.len())?;
    if dedup == Dedup::Verify {
        let piece = ChunkPiece {
            chunk: *id,
            pack: located.pack,
            frame: located.frame,
            slot: located.slot,
            offset: 0,
            chunk_len: located.len,
            stored: located.stored,
            base: located.base,
        };
        let mut there = vec![0; plain.len()];
        // From there only: it is what the file is going to name.
        match core.store.read_there(&piece, 0, &mut there) {
            Ok(_) if there == plain => {}
            Ok(_) => {
                tracing::error!(
                    "chunk {id} in pack {} holds other bytes than its id says: it is stored anew",
                    located.pack
                );
                return None;
            }
            Err(error) => {
                tracing::error!("chunk {id} is stored anew, its stored copy cannot be read: {error}");
                return None;
            }
        }
    }
    Some(located)
}

/// Runs `fill` with a packer. The pack it filled, sealed and synced; none where nothing was new.
pub(crate) fn with_packer(
    core: &Core,
    fill: impl FnOnce(&mut Packer<'_>) -> Result<(), MaintainError>,
) -> Result<Option<SealedPack>, MaintainError> {
    let compressors = match core.background {
        true => thread::available_parallelism().map_or(2, usize::from),
        false => 1,
    };
    let written = AtomicU64::new(0);
    let (jobs, waiting) = sync_channel(compressors * QUEUE);
    let (coded, in_order) = sync_channel(compressors * QUEUE);
    let waiting = Arc::new(Mutex::new(waiting));
    let batched = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..compressors {
            let (waiting, coded) = (waiting.clone(), coded.clone());
            scope.spawn(move || compress(&waiting, &coded));
        }
        drop((coded, waiting));
        let batches = core.batches.as_deref().filter(|batches| batches.batch() > 0);
        let runs = batches.map(|batches| {
            let (runs, waiting) = sync_channel(batches.batch() / RUN as usize);
            let (jobs, batched) = (jobs.clone(), &batched);
            scope.spawn(move || batch(batches, &waiting, &jobs, batched));
            runs
        });
        let written_so_far = &written;
        let writer = scope.spawn(move || write(core, &in_order, written_so_far));
        let mut packer = Packer {
            frame: Frame::default(),
            compression: core.writing.compression,
            frames: 0,
            chunks: 0,
            placed: HashMap::new(),
            known: Vec::new(),
            replaces: Vec::new(),
            jobs,
            runs,
            written: &written,
            waiting: &batched,
            plain: 0,
            frame_size: core.geometry.frame as usize,
            pack_size: core.pack_size(),
            plain_limit: core.fold_start(),
        };
        let filled = fill(&mut packer);
        if filled.is_ok() && !packer.frame.chunks.is_empty() {
            packer.send();
        }
        let replaces = std::mem::take(&mut packer.replaces);
        let known = std::mem::take(&mut packer.known);
        // Closes the queue: compressors end, and then the writer.
        drop(packer);
        let pack = match writer.join() {
            Ok(pack) => pack,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (filled, pack) {
            (Ok(()), Ok(None)) => Ok(None),
            (Ok(()), Ok(Some(mut pack))) => {
                pack.replace(replaces);
                let sealed = pack.seal(None)?;
                let alone = known.iter().filter(|(frame, ..)| sealed.footer.base_of(*frame).is_none());
                alone.for_each(|(_, keys, chunk)| core.bases.note(keys, *chunk));
                Ok(Some(sealed))
            }
            (Err(error), Ok(pack)) => {
                pack.into_iter().for_each(PackWriter::abandon);
                Err(error)
            }
            (_, Err(error)) => Err(error.into()),
        }
    })
}

/// Has runs of numbers coded, as many at once as there are, and hands them on to the compressors: to be decoded and compared, or to be coded
/// there, where they are too few or nobody does it any more.
fn batch(batches: &dyn Batches, waiting: &Receiver<Job>, jobs: &SyncSender<Job>, batched: &AtomicU64) {
    while let Ok(first) = waiting.recv() {
        let mut len = first.frame.plain.len();
        let mut batch = vec![first];
        while len < batches.batch()
            && let Ok(next) = waiting.try_recv()
        {
            len += next.frame.plain.len();
            batch.push(next);
        }
        let runs: Vec<Run<'_>> = batch.iter().filter_map(run_of).collect();
        let enough = batch.len() >= batches.fewest() && runs.len() == batch.len();
        let coded = if enough { batches.encode(&runs) } else { None };
        let coded = coded.filter(|coded| coded.len() == batch.len());
        for (job, coded) in batch.iter_mut().zip(coded.into_iter().flatten()) {
            job.coded = Some(coded);
        }
        batched.fetch_sub(len as u64, Ordering::Relaxed);
        for job in batch {
            let _ = jobs.send(job);
        }
    }
}

fn run_of(job: &Job) -> Option<Run<'_>> {
    let (element, [chunk]) = (job.frame.element?, &job.frame.chunks[..]) else { return None };
    let base = job.frame.base.as_ref().map(FrameBase::run);
    Some(Run { plain: &job.frame.plain, element, chunk: chunk.id, base })
}

fn compress(waiting: &Mutex<Receiver<Job>>, coded: &SyncSender<Coded>) {
    let mut last: Option<(Compression, Compressor)> = None;
    loop {
        let next = lock(waiting).recv();
        let Ok(Job { number, compression, frame, coded: done }) = next else { return };
        let (_, compressor) = match &mut last {
            Some(kept) if kept.0 == compression => kept,
            _ => last.insert((compression, Compressor::new(compression))),
        };
        let (codec, stored) = match (frame.element, &frame.chunks[..]) {
            (Some(element), [chunk]) => {
                let base = frame.base.as_ref().map(FrameBase::run);
                match done {
                    Some(done) => compressor.keep_run(&frame.plain, element, &chunk.id, base, done),
                    None => compressor.encode_run(&frame.plain, element, &chunk.id, base),
                }
            }
            _ => compressor.encode(&frame.plain),
        };
        let plain_len = frame.plain.len() as u32;
        let differs = codec == Codec::Planes && PlanesHead::is_differences(&stored);
        let base = frame.base.filter(|_| differs).map(|base| base.chunk);
        if coded.send(Coded { number, codec, stored, plain_len, chunks: frame.chunks, base }).is_err() {
            return;
        }
    }
}

/// Appends frames in the order of their numbers. After an error it takes the rest and drops it, so that
/// nobody waits for a queue that is not emptied.
fn write(
    core: &Core,
    frames: &Receiver<Coded>,
    written: &AtomicU64,
) -> Result<Option<PackWriter>, StoreError> {
    let mut early: BTreeMap<u32, Coded> = BTreeMap::new();
    let mut pack: Option<PackWriter> = None;
    let mut result = Ok(());
    let mut next = 0;
    for frame in frames {
        early.insert(frame.number, frame);
        while let Some(frame) = early.remove(&next) {
            next += 1;
            if result.is_ok() {
                result = append(core, &mut pack, frame);
                written.store(pack.as_ref().map_or(0, PackWriter::len), Ordering::Relaxed);
            }
        }
    }
    match result {
        Ok(()) => Ok(pack),
        Err(error) => {
            pack.into_iter().for_each(PackWriter::abandon);
            Err(error)
        }
    }
}

fn append(core: &Core, pack: &mut Option<PackWriter>, frame: Coded) -> Result<(), StoreError> {
    let pack = match pack {
        Some(pack) => pack,
        None => {
            pack.insert(core.store.begin_pack(core.packs.next(), KIND, core.uuid, core.writing.parity)?)
        }
    };
    pack.append_from(frame.base, frame.codec, &frame.stored, frame.plain_len, frame.chunks).map(|_| ())
}
