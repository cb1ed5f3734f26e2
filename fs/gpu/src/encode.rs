//! Coding a batch: blocks are taken apart and counted on the device; what is stored how is decided here, by the codec; then the
//! device codes, and what it gives is put together here.

use cairn_codec::tensor::parts::{self, Counts, Draft, Drafts, Plan, STATES, Stored};
use cairn_codec::tensor::{Encoder, Kernel as Processor};

use crate::Run;
use crate::device::{Bytes, Device, Dispatch, Kernel, Lost, Slot};
use crate::plan::{BLOCK_WORDS, BLOCKS, Laid, PLANES, SHARE, batches, kind, on_all_cores};

impl Device {
    /// The runs coded, or none where it is not worth it: just as the codec does it.
    pub fn encode(&mut self, runs: &[Run<'_>]) -> Result<Vec<Option<Vec<u8>>>, Lost> {
        let processor = Processor::best();
        // What the processor does for a batch it does just before: drafts hold copies, mostly of a part of the run.
        let mut coded = Vec::with_capacity(runs.len());
        let plain = |runs: &[Run<'_>]| runs.iter().map(|run| run.plain.len()).sum::<usize>();
        let most = self.batch();
        for runs in batches(runs, |runs| plain(runs) <= most && runs.len() <= BLOCKS) {
            let drafts: Vec<Drafts<'_>> =
                on_all_cores(runs, |run| Draft::of(processor, run.plain, run.element, &run.chunk, run.base));
            let blocks: Vec<&Draft<'_>> = drafts.iter().flat_map(in_blocks).collect();
            let mut done = Vec::with_capacity(blocks.len());
            for batch in batches(&blocks, |batch| weight(batch) <= most && count(batch) <= BLOCKS) {
                match weight(batch) <= most && count(batch) <= BLOCKS {
                    true => done.extend(self.encode_batch(batch)?.into_iter().map(Some)),
                    // One alone that is too large.
                    false => done.extend(batch.iter().map(|_| None)),
                }
            }
            let mut done = done.into_iter();
            for (run, drafts) in runs.iter().zip(drafts) {
                let drafts = match drafts {
                    Drafts::Coded(there) => {
                        coded.push(there);
                        continue;
                    }
                    Drafts::Blocks(drafts) => drafts,
                };
                let of_run: Option<Vec<Vec<u8>>> = done.by_ref().take(drafts.len()).collect();
                coded.push(match of_run {
                    Some(of_run) => parts::best(run.plain.len(), of_run),
                    None => {
                        self.redo(1);
                        Encoder::new(processor).encode(run.plain, run.element, &run.chunk, run.base)
                    }
                });
            }
        }
        Ok(coded)
    }

    fn encode_batch(&mut self, drafts: &[&Draft<'_>]) -> Result<Vec<Vec<u8>>, Lost> {
        let layout = Layout::of(drafts);
        let counts = self.count(drafts, &layout)?;
        let counted: Vec<_> = drafts.iter().zip(&counts).collect();
        let plans: Vec<Plan> = on_all_cores(&counted, |(draft, counts)| draft.plan(counts));
        let work = Work::of(&layout, &plans, &counts);
        let coded = self.code_blocks(&work)?;
        self.redo(work.blocks.iter().filter(|block| block.stream(&coded).is_none()).count());
        let mut rest = &work.blocks[..];
        let of_run = |(draft, plan)| (draft, plan, rest.split_off(..Plan::blocks(plan)).unwrap_or_default());
        let runs: Vec<(&&Draft<'_>, &Plan, &[Made])> = drafts.iter().zip(&plans).map(of_run).collect();
        Ok(on_all_cores(&runs, |(draft, plan, blocks)| {
            draft.finish(plan, |number, to| match blocks[number].stream(&coded) {
                Some(stream) => plan.write(number, &blocks[number].planes(&coded), stream, to),
                None => draft.write(plan, number, to),
            })
        }))
    }

    /// Takes the blocks apart, and counts.
    fn count(&mut self, drafts: &[&Draft<'_>], layout: &Layout) -> Result<Vec<Vec<Vec<Counts>>>, Lost> {
        let plain: Vec<&[u8]> = drafts.iter().flat_map(|draft| draft.blocks()).collect();
        let bytes = self.run(
            &[
                (Slot::Blocks, Bytes::Words(&layout.blocks)),
                (Slot::Plain, Bytes::Pieces(&plain, layout.plain.bytes())),
            ],
            &[(Slot::Planes, layout.planes.bytes()), (Slot::Counts, 1024 * layout.count)],
            &[
                Dispatch {
                    kernel: Kernel::Split,
                    slots: &[Slot::Kinds, Slot::Blocks, Slot::Plain, Slot::Planes],
                    groups: (SHARE, plain.len()),
                },
                Dispatch {
                    kernel: Kernel::Count,
                    slots: &[Slot::Kinds, Slot::Blocks, Slot::Planes, Slot::Counts],
                    groups: (PLANES, plain.len()),
                },
            ],
            &[(Slot::Counts, 1024 * layout.count)],
        )?;
        let mut tables = bytes.chunks_exact(1024).map(counts);
        let mut of = |draft: &&Draft<'_>| {
            let planes = draft.element().fields().len();
            draft.blocks().map(|_| tables.by_ref().take(planes).collect()).collect()
        };
        Ok(drafts.iter().map(&mut of).collect())
    }

    /// Codes, and gives what lies in the slot of that name.
    fn code_blocks(&mut self, work: &Work) -> Result<Vec<u8>, Lost> {
        let len = work.coded.bytes();
        if len == 0 {
            return Ok(Vec::new());
        }
        self.run(
            &[
                (Slot::Streams, Bytes::Words(&work.streams)),
                (Slot::Runs, Bytes::Words(&work.runs)),
                (Slot::Steps, Bytes::Words(&work.steps)),
                (Slot::Copies, Bytes::Words(&work.copies)),
            ],
            &[(Slot::Coded, len)],
            &[
                Dispatch {
                    kernel: Kernel::Keep,
                    slots: &[Slot::Copies, Slot::Planes, Slot::Coded],
                    groups: (work.copies.len() / 3, 1),
                },
                Dispatch {
                    kernel: Kernel::Encode,
                    slots: &[Slot::Streams, Slot::Runs, Slot::Steps, Slot::Planes, Slot::Coded],
                    groups: (work.streams.len() / 4, 1),
                },
            ],
            &[(Slot::Coded, len)],
        )
    }
}

fn in_blocks<'d, 'p>(drafts: &'d Drafts<'p>) -> &'d [Draft<'p>] {
    match drafts {
        Drafts::Coded(_) => &[],
        Drafts::Blocks(drafts) => drafts,
    }
}

fn weight(drafts: &[&Draft<'_>]) -> usize {
    drafts.iter().flat_map(|draft| draft.blocks()).map(<[u8]>::len).sum()
}

fn count(drafts: &[&Draft<'_>]) -> usize {
    drafts.iter().map(|draft| draft.blocks().count()).sum()
}

/// Counts as the kernel gives them.
fn counts(bytes: &[u8]) -> Counts {
    let (mut all, mut sample) = ([0; 256], [0; 256]);
    for ((word, all), sample) in bytes.as_chunks().0.iter().zip(&mut all).zip(&mut sample) {
        let word = u32::from_le_bytes(*word);
        (*all, *sample) = (word & 0x1_ffff, word >> 17);
    }
    parts::counts(&all, &sample)
}

/// Where the blocks of a batch, and their planes, lie on the device.
struct Layout {
    /// As kernels read them.
    blocks: Vec<u32>,
    plain: Laid,
    planes: Laid,
    /// Of each block where its planes begin, and how long they are in bytes.
    places: Vec<Vec<(u32, usize)>>,
    /// How many planes there are.
    count: usize,
}

impl Layout {
    fn of(drafts: &[&Draft<'_>]) -> Layout {
        let (plain, planes) = (Laid::default(), Laid::default());
        let mut layout = Layout { blocks: Vec::new(), plain, planes, places: Vec::new(), count: 0 };
        for draft in drafts {
            let element = draft.element();
            for block in draft.blocks() {
                let elements = block.len() / element.width();
                let plain = layout.plain.take(block.len());
                let place = |field: &usize| (layout.planes.take(field * elements), field * elements);
                let places: Vec<_> = element.fields().iter().map(place).collect();
                let planes = places.first().map_or(0, |(at, _)| *at);
                let words: [u32; BLOCK_WORDS] =
                    [plain, planes, elements as u32, kind(element), layout.count as u32];
                layout.blocks.extend(words);
                layout.count += places.len();
                layout.places.push(places);
            }
        }
        layout
    }
}

/// What of a block is read back: bytes of what the device made.
struct Made {
    /// Of each plane what stands before the stream: all of it, or one byte that is known already, or nothing.
    planes: Vec<PlaneMade>,
    /// Where the stream's words are counted, and how many bytes there are for them.
    stream: Option<(usize, usize)>,
}

enum PlaneMade {
    At(usize, usize),
    Constant([u8; 1]),
    Coded,
}

impl Made {
    fn planes<'c>(&'c self, coded: &'c [u8]) -> Vec<&'c [u8]> {
        let bytes = |plane: &'c PlaneMade| match plane {
            PlaneMade::At(at, len) => coded.get(*at..at + len).unwrap_or_default(),
            PlaneMade::Constant(byte) => byte,
            PlaneMade::Coded => &[],
        };
        self.planes.iter().map(bytes).collect()
    }

    /// The states and the words of the stream; none where there was no room for these.
    fn stream<'c>(&self, coded: &'c [u8]) -> Option<[&'c [u8]; 2]> {
        let Some((at, room)) = self.stream else { return Some([&[], &[]]) };
        let words = 2 * u32::from_le_bytes(*coded.get(at..)?.first_chunk()?) as usize;
        let (states, place) = coded.get(at + 4..at + 4 + STATES + room)?.split_at(STATES);
        Some([states, place.get(place.len().checked_sub(words)?..)?])
    }
}

/// What is to be coded, as kernels read it.
#[derive(Default)]
struct Work {
    streams: Vec<u32>,
    runs: Vec<u32>,
    steps: Vec<u32>,
    copies: Vec<u32>,
    coded: Laid,
    blocks: Vec<Made>,
}

impl Work {
    fn of(layout: &Layout, plans: &[Plan], counts: &[Vec<Vec<Counts>>]) -> Work {
        let mut work = Work::default();
        let mut places = layout.places.iter();
        for (plan, counts) in plans.iter().zip(counts) {
            // Where the steps are that the blocks of a run share, once one needs them.
            let mut shared = [None; PLANES];
            for ((number, counts), places) in counts.iter().enumerate().zip(places.by_ref()) {
                let made = work.block(plan, number, counts, places, &mut shared);
                work.blocks.push(made);
            }
        }
        work
    }

    fn block(
        &mut self,
        plan: &Plan,
        number: usize,
        counts: &[Counts],
        places: &[(u32, usize)],
        shared: &mut [Option<u32>; PLANES],
    ) -> Made {
        let first = self.runs.len() as u32 / 3;
        let mut planes = Vec::with_capacity(places.len());
        for (plane, ((from, len), stored)) in places.iter().zip(plan.stored(number)).enumerate() {
            let steps = match stored {
                Stored::Raw => {
                    let to = self.coded.take(*len);
                    self.copies.extend([*from, to, len.div_ceil(4) as u32]);
                    planes.push(PlaneMade::At(4 * to as usize, *len));
                    continue;
                }
                Stored::Constant => {
                    let counts = counts.get(plane).and_then(Option::as_ref);
                    let byte = counts.and_then(|counts| (0..=255).zip(counts).find(|(_, count)| **count > 0));
                    planes.push(PlaneMade::Constant([byte.map_or(0, |(byte, _)| byte)]));
                    continue;
                }
                Stored::Shared => *shared[plane].get_or_insert_with(|| self.add(plan.shared_steps(plane))),
                Stored::Own => self.add(plan.own_steps(number, plane).as_deref()),
            };
            self.runs.extend([*from, *len as u32, steps]);
            planes.push(PlaneMade::Coded);
        }
        let count = self.runs.len() as u32 / 3 - first;
        let stream = (count > 0).then(|| {
            let room = plan.room(number, counts).next_multiple_of(4);
            let at = self.coded.take(4 + STATES + room);
            self.streams.extend([first, count, at, room as u32 / 4]);
            (4 * at as usize, room)
        });
        Made { planes, stream }
    }

    /// The number of a table.
    fn add(&mut self, steps: Option<&parts::Steps>) -> u32 {
        let number = self.steps.len() as u32 / 512;
        // Plans have steps for what they say is coded.
        self.steps.extend(steps.into_iter().flatten().flatten());
        number
    }
}
