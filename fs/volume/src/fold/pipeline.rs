//! Filling a pack: chunks into frames, frames through the compressors on all cores, and in order into the
//! file. What is new is decided here: against the store, and against what this batch holds already.

use std::collections::{BTreeMap, HashMap};

use cairn_codec::Compressor;
use cairn_format::{ChunkEntry, ChunkId, ChunkPiece, Codec, Compression, Element, PackId, Replaced};
use cairn_store::{Located, PackWriter, Pins, SealedPack, StoreError};

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
}

struct Job {
    number: u32,
    compression: Compression,
    frame: Frame,
}

struct Coded {
    number: u32,
    codec: Codec,
    stored: Vec<u8>,
    plain_len: u32,
    chunks: Vec<ChunkEntry>,
}

/// Takes chunks, and knows which are new.
pub(crate) struct Packer<'a> {
    frame: Frame,
    /// How the frame being filled, and those behind it, are compressed.
    compression: Compression,
    frames: u32,
    chunks: u32,
    /// Chunks of the pack being filled: its own table, before any footer lists them. With the number of each.
    placed: HashMap<ChunkId, (Place, u32)>,
    /// What they take the place of.
    replaces: Vec<Replaced>,
    jobs: SyncSender<Job>,
    /// Stored bytes so far.
    written: &'a AtomicU64,
    plain: u64,
    frame_size: usize,
    pack_size: u64,
    plain_limit: u64,
}

impl Packer<'_> {
    /// Where a chunk is, or is going to be; part of a tensor of such elements.
    pub(super) fn place(
        &mut self,
        core: &Core,
        id: &ChunkId,
        plain: &[u8],
        element: Option<Element>,
        pins: &mut Pins,
    ) -> Result<Place, MaintainError> {
        let known = match core.writing.dedup {
            Dedup::Off => None,
            _ => {
                let here = self.placed.get(id).map(|(place, _)| *place);
                here.or_else(|| stored(core, id, plain, pins).map(Place::Found))
            }
        };
        if let Some(place) = known {
            core.counters.deduped_bytes.add(plain.len() as u64);
            return Ok(place);
        }
        core.counters.new_bytes.add(plain.len() as u64);
        Ok(self.add(id, plain, element))
    }

    /// Takes a chunk that lies elsewhere, in a pack that is to go; where it is going to be.
    pub(crate) fn take_over(
        &mut self,
        pack: PackId,
        frame: u32,
        slot: u32,
        id: &ChunkId,
        plain: &[u8],
        element: Option<Element>,
    ) -> Place {
        let here = self.placed.get(id).map(|(place, _)| *place);
        let place = here.unwrap_or_else(|| self.add(id, plain, element));
        // `add` put it there.
        let chunk = self.placed.get(id).map_or(0, |(_, number)| *number);
        self.replaces.push(Replaced { pack, frame, slot, chunk });
        place
    }

    /// Takes a chunk whatever is stored already: what is there of it cannot be used. Where it is going to be.
    pub(crate) fn store_anew(&mut self, id: &ChunkId, plain: &[u8]) -> Place {
        let here = self.placed.get(id).map(|(place, _)| *place);
        here.unwrap_or_else(|| self.add(id, plain, None))
    }

    /// A run of numbers gets a frame of its own.
    fn add(&mut self, id: &ChunkId, plain: &[u8], element: Option<Element>) -> Place {
        let full = element.is_some() || self.frame.plain.len() + plain.len() > self.frame_size;
        if !self.frame.chunks.is_empty() && full {
            self.send();
        }
        let place = Place::New { frame: self.frames, slot: self.frame.chunks.len() as u32 };
        self.frame.plain.extend_from_slice(plain);
        self.frame.chunks.push(ChunkEntry { id: *id, len: plain.len() as u32 });
        self.plain += plain.len() as u64;
        self.placed.insert(*id, (place, self.chunks));
        self.chunks += 1;
        if element.is_some() {
            self.frame.element = element;
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
        self.written.load(Ordering::Relaxed) >= self.pack_size
            || self.plain >= self.plain_limit
            || self.placed.len() >= CHUNKS_MAX
    }

    fn send(&mut self) {
        let frame = std::mem::take(&mut self.frame);
        // A compressor or the writer that ended early reports why at the end.
        let _ = self.jobs.send(Job { number: self.frames, compression: self.compression, frame });
        self.frames += 1;
    }
}

/// Where a chunk is stored already, if it is; its pack is pinned.
fn stored(core: &Core, id: &ChunkId, plain: &[u8], pins: &mut Pins) -> Option<Located> {
    let located = core.store.lookup_pin(id, pins).filter(|located| located.len as usize == plain.len())?;
    if core.writing.dedup == Dedup::Verify {
        let piece = ChunkPiece {
            chunk: *id,
            pack: located.pack,
            frame: located.frame,
            slot: located.slot,
            offset: 0,
            chunk_len: located.len,
            stored: located.stored,
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
    thread::scope(|scope| {
        for _ in 0..compressors {
            let (waiting, coded) = (waiting.clone(), coded.clone());
            scope.spawn(move || compress(&waiting, &coded));
        }
        drop((coded, waiting));
        let written_so_far = &written;
        let writer = scope.spawn(move || write(core, &in_order, written_so_far));
        let mut packer = Packer {
            frame: Frame::default(),
            compression: core.writing.compression,
            frames: 0,
            chunks: 0,
            placed: HashMap::new(),
            replaces: Vec::new(),
            jobs,
            written: &written,
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
                Ok(Some(pack.seal(None)?))
            }
            (Err(error), Ok(pack)) => {
                pack.into_iter().for_each(PackWriter::abandon);
                Err(error)
            }
            (_, Err(error)) => Err(error.into()),
        }
    })
}

fn compress(waiting: &Mutex<Receiver<Job>>, coded: &SyncSender<Coded>) {
    let mut last: Option<(Compression, Compressor)> = None;
    loop {
        let next = lock(waiting).recv();
        let Ok(Job { number, compression, frame }) = next else { return };
        let (_, compressor) = match &mut last {
            Some(kept) if kept.0 == compression => kept,
            _ => last.insert((compression, Compressor::new(compression))),
        };
        let (codec, stored) = match (frame.element, &frame.chunks[..]) {
            (Some(element), [chunk]) => compressor.encode_run(&frame.plain, element, &chunk.id),
            _ => compressor.encode(&frame.plain),
        };
        let plain_len = frame.plain.len() as u32;
        if coded.send(Coded { number, codec, stored, plain_len, chunks: frame.chunks }).is_err() {
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
    pack.append(frame.codec, &frame.stored, frame.plain_len, frame.chunks).map(|_| ())
}
