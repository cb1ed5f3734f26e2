//! Decoding a batch: heads, checksums and how each plane is stored are read here, by the codec; the device decodes and puts elements together.

use cairn_codec::tensor::parts::{BlockOf, PlaneOf};
use cairn_codec::tensor::{self, Decoder, Kernel as Processor, RunError};
use cairn_format::PlanesHead;

use crate::Coded;
use crate::device::{Bytes, Device, Dispatch, Kernel, Lost, Slot};
use crate::plan::{BLOCKS, Laid, PLANES, SHARE, batches, kind, on_all_cores};

impl Device {
    /// The runs decoded, as the codec does it: it says, too, what is wrong with one.
    pub fn decode(&mut self, runs: &[Coded<'_>]) -> Result<Vec<Result<Vec<u8>, RunError>>, Lost> {
        let mut decoded = Vec::with_capacity(runs.len());
        let most = self.batch();
        let weight =
            |runs: &[Coded<'_>]| runs.iter().map(|run| run.plain_len.max(run.stored.len())).sum::<usize>();
        let blocks = |runs: &[Coded<'_>]| runs.iter().map(|run| run.plain_len / LEAST + 1).sum::<usize>();
        let fits = |runs: &[Coded<'_>]| weight(runs) <= most && blocks(runs) <= BLOCKS;
        for batch in batches(runs, fits) {
            if fits(batch) {
                decoded.extend(self.decode_batch(batch)?);
            } else {
                // One alone that is too large.
                self.redo(batch.len());
                decoded.extend(batch.iter().map(here));
            }
        }
        Ok(decoded)
    }

    fn decode_batch(&mut self, runs: &[Coded<'_>]) -> Result<Vec<Result<Vec<u8>, RunError>>, Lost> {
        let opened: Vec<Option<Opened<'_>>> = on_all_cores(runs, Opened::of);
        let mut work = Work::default();
        opened.iter().flatten().for_each(|run| work.run(run));
        let bytes = self.put_together(&work)?;
        let (plain, status) = bytes.split_at_checked(work.plain.bytes()).unwrap_or_default();
        let mut rest = &work.made[..];
        let mut parts: Vec<(&Coded<'_>, Option<&Opened<'_>>, &[Made])> = Vec::with_capacity(runs.len());
        for (run, opened) in runs.iter().zip(&opened) {
            let blocks = opened.as_ref().map_or(0, |opened| opened.blocks.len());
            parts.push((run, opened.as_ref(), rest.split_off(..blocks).unwrap_or_default()));
        }
        let finished = on_all_cores(&parts, |(run, opened, made)| {
            let right = opened.filter(|_| made.iter().all(|made| made.is_right(status)));
            right.and_then(|opened| opened.finish(run, made, plain))
        });
        self.redo(
            parts.iter().zip(&finished).filter(|((_, opened, _), f)| opened.is_some() && f.is_none()).count(),
        );
        // What is wrong is found again, and named.
        let decoded = runs.iter().zip(finished).map(|(run, plain)| plain.map_or_else(|| here(run), Ok));
        Ok(decoded.collect())
    }

    fn put_together(&mut self, work: &Work<'_>) -> Result<Vec<u8>, Lost> {
        let blocks = work.made.len();
        if blocks == 0 {
            return Ok(Vec::new());
        }
        // Two more bytes may be read than there are.
        let stored = work.stored.bytes() + 4;
        let streams = work.streams.len() / 4;
        self.run(
            &[
                (Slot::Blocks, Bytes::Words(&work.blocks)),
                (Slot::Streams, Bytes::Words(&work.streams)),
                (Slot::Runs, Bytes::Words(&work.runs)),
                (Slot::Tables, Bytes::Words(&work.tables)),
                (Slot::Pieces, Bytes::Words(&work.pieces)),
                (Slot::Stored, Bytes::Pieces(&work.bytes, work.stored.bytes())),
            ],
            &[
                (Slot::Stored, stored),
                (Slot::Planes, work.planes.bytes()),
                (Slot::Plain, work.plain.bytes()),
                (Slot::Status, 4 * streams),
            ],
            &[
                Dispatch {
                    kernel: Kernel::Spread,
                    slots: &[Slot::Pieces, Slot::Stored, Slot::Planes],
                    groups: (work.pieces.len() / 4, 1),
                },
                Dispatch {
                    kernel: Kernel::Decode,
                    slots: &[
                        Slot::Streams,
                        Slot::Runs,
                        Slot::Tables,
                        Slot::Stored,
                        Slot::Planes,
                        Slot::Status,
                    ],
                    groups: (streams, 1),
                },
                Dispatch {
                    kernel: Kernel::Join,
                    slots: &[Slot::Kinds, Slot::Blocks, Slot::Planes, Slot::Plain],
                    groups: (SHARE, blocks),
                },
            ],
            &[(Slot::Plain, work.plain.bytes()), (Slot::Status, 4 * streams)],
        )
    }
}

/// Plain bytes that a block of a run holds at least, but for the last: that of a palette of the longest elements holds as much as others, and
/// elements of groups leave less than one of theirs out.
const LEAST: usize = (64 << 10) - 256;

/// Without the device.
fn here(run: &Coded<'_>) -> Result<Vec<u8>, RunError> {
    tensor::decode(Processor::best(), run.stored, &run.chunk, run.base, run.plain_len)
}

/// A run whose head and blocks are right as far as can be seen.
struct Opened<'r> {
    decoder: Decoder,
    /// All of them.
    stored: &'r [u8],
    /// Each, and where in `stored` it begins.
    blocks: Vec<(BlockOf<'r>, usize)>,
}

impl<'r> Opened<'r> {
    /// None where there are no blocks, or something is wrong.
    fn of(run: &Coded<'r>) -> Option<Opened<'r>> {
        let head = PlanesHead::len_of(run.stored).ok()? as usize;
        let (head, stored) = run.stored.split_at_checked(head)?;
        let decoder = Decoder::new(Processor::best(), head, &run.chunk, run.plain_len).ok()?;
        let share = decoder.share_of_base(0..run.plain_len);
        if share.is_some_and(|share| run.base.is_none_or(|base| base.len() != share.len())) {
            return None;
        }
        let end = decoder.stored(decoder.blocks().checked_sub(1)?)?.end;
        let block = |number| {
            let place = decoder.stored(number)?;
            let bytes = stored.get(place.start as usize..place.end as usize)?;
            Some((decoder.parts(number, bytes).ok()?, place.start as usize))
        };
        let blocks = (0..decoder.blocks()).map(block).collect::<Option<Vec<_>>>()?;
        (end as usize == stored.len()).then_some(Opened { decoder, stored, blocks })
    }

    fn finish(&self, run: &Coded<'_>, made: &[Made], plain: &[u8]) -> Option<Vec<u8>> {
        let mut decoded = vec![0; run.plain_len];
        for (number, ((block, _), made)) in self.blocks.iter().zip(made).enumerate() {
            let elements = plain.get(made.plain..)?.get(..made.len)?;
            let place = self.decoder.plain(number);
            let share = self.decoder.share_of_base(place.clone());
            let base = run.base.zip(share).and_then(|(base, share)| base.get(share));
            let to = decoded.get_mut(place)?;
            self.decoder.finish_block(elements, block.tail, base, to).ok()?;
        }
        Some(decoded)
    }
}

/// Where a block's elements lie in what the device made.
struct Made {
    plain: usize,
    len: usize,
    /// The number of its stream.
    stream: Option<usize>,
}

impl Made {
    fn is_right(&self, status: &[u8]) -> bool {
        self.stream.is_none_or(|stream| status.get(4 * stream..).is_some_and(|s| s.starts_with(&[0; 4])))
    }
}

/// What is to be decoded, as kernels read it.
#[derive(Default)]
struct Work<'r> {
    blocks: Vec<u32>,
    streams: Vec<u32>,
    runs: Vec<u32>,
    tables: Vec<u32>,
    pieces: Vec<u32>,
    bytes: Vec<&'r [u8]>,
    stored: Laid,
    planes: Laid,
    plain: Laid,
    made: Vec<Made>,
}

impl<'r> Work<'r> {
    fn run(&mut self, run: &Opened<'r>) {
        let start = 4 * self.stored.take(run.stored.len()) as usize;
        self.bytes.push(run.stored);
        let mut shared = [None; PLANES];
        for (number, (block, at)) in run.blocks.iter().enumerate() {
            self.block(run, number, block, start + at, &mut shared);
        }
    }

    fn block(
        &mut self,
        run: &Opened<'r>,
        number: usize,
        block: &BlockOf<'r>,
        at: usize,
        shared: &mut [Option<u32>; PLANES],
    ) {
        let (element, elements) = (run.decoder.element(), run.decoder.elements(number));
        let first = self.runs.len() as u32 / 3;
        // Behind the bytes that say how planes are stored comes what each takes but for symbols.
        let mut source = at + block.planes.len();
        let mut begin = None;
        for (number, (field, plane)) in element.fields().iter().zip(&block.planes).enumerate() {
            let len = field * elements;
            let to = self.planes.take(len);
            begin = begin.or(Some(to));
            let table = match plane {
                PlaneOf::Raw(bytes) => {
                    self.pieces.extend([source as u32, to, len as u32, u32::MAX]);
                    source += bytes.len();
                    continue;
                }
                PlaneOf::Constant(byte) => {
                    self.pieces.extend([0, to, len as u32, (*byte).into()]);
                    source += 1;
                    continue;
                }
                PlaneOf::Shared => *shared[number].get_or_insert_with(|| {
                    self.add(&run.decoder.shared_frequencies(number).unwrap_or([0; 256]))
                }),
                PlaneOf::Own { frequencies, len } => {
                    source += len;
                    self.add(frequencies)
                }
            };
            self.runs.extend([to, len as u32, table]);
        }
        let count = self.runs.len() as u32 / 3 - first;
        let stream = (count > 0).then(|| {
            self.streams.extend([first, count, source as u32, block.stream.len() as u32]);
            self.streams.len() / 4 - 1
        });
        let len = elements * element.width();
        let plain = self.plain.take(len);
        self.blocks.extend([plain, begin.unwrap_or(0), elements as u32, kind(element), 0]);
        self.made.push(Made { plain: 4 * plain as usize, len, stream });
    }

    /// The number of a table.
    fn add(&mut self, frequencies: &[u16; 256]) -> u32 {
        let number = self.tables.len() as u32 / 256;
        let mut start = 0;
        self.tables.extend(frequencies.iter().map(|frequency| {
            let entry = u32::from(*frequency) | start << 16;
            start += u32::from(*frequency);
            entry
        }));
        number
    }
}
