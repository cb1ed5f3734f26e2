//! A block: the planes of up to 64 KiB, each in the way that takes the fewest bytes.
//!
//! A block is, for each plane, a byte that says how it is stored; then for each what it takes beside symbols; then one
//! stream of the symbols of those that are coded, if any are; and the bytes that are left where the run ends within an element.

use super::frequencies::{Frequencies, entropy};
use super::kernel::Kernel;
use super::rans::{Coder, Reader, STATES_LEN, Table, Words, Writer};
use super::{Malformed, planes};

/// How a plane's bytes are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// As they are.
    Raw,
    /// One byte: all are that.
    Constant,
    /// In the stream, with the frequencies of this plane in the run's head.
    Shared,
    /// Frequencies; in the stream.
    Own,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::Raw, Mode::Constant, Mode::Shared, Mode::Own];

    fn code(self) -> u8 {
        match self {
            Mode::Raw => 0,
            Mode::Constant => 1,
            Mode::Shared => 2,
            Mode::Own => 3,
        }
    }

    /// The way that takes the fewest bytes, as far as can be told beforehand, and how many that saves. The rule is part of the
    /// format, so that all encoders write the same: what saves less than a fortieth is not worth decoding; frequencies of a
    /// block's own have to save a 64th of what the shared ones give.
    fn for_plane(counts: Option<&[u32; 256]>, shared: Option<&Frequencies>) -> (Mode, u64) {
        let Some(counts) = counts else { return (Mode::Raw, 0) };
        let len: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let present = counts.iter().filter(|count| **count > 0).count();
        if present < 2 {
            return (Mode::Constant, 0);
        }
        let bytes = |cost: u64| cost.div_ceil(8 << 16);
        let shared = shared.and_then(|shared| shared.cost(counts)).map(bytes);
        let own = bytes(entropy(counts)) + Frequencies::len_with(present) as u64;
        let most = len - len / 40;
        match shared {
            Some(shared) if shared <= most && shared - shared / 64 <= own => (Mode::Shared, len - shared),
            _ if own <= most => (Mode::Own, len - own),
            _ => (Mode::Raw, 0),
        }
    }
}

/// Frequencies that the blocks of a run share, for one plane.
pub(super) struct Shared {
    frequencies: Frequencies,
    coder: Coder,
}

impl Shared {
    pub(super) fn new(frequencies: Frequencies) -> Shared {
        let coder = Coder::new(&frequencies);
        Shared { frequencies, coder }
    }

    pub(super) fn frequencies(&self) -> &Frequencies {
        &self.frequencies
    }
}

/// A plane of a block, and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Plane<'p> {
    /// Its bytes: one at least.
    pub(super) bytes: &'p [u8],
    /// How often each comes; not known of what looks like noise.
    pub(super) counts: Option<&'p [u32; 256]>,
    /// What the run's blocks share.
    pub(super) shared: Option<&'p Shared>,
}

/// Appends the block of `planes`, all of one length, and of `tail`.
pub(super) fn encode(
    kernel: Kernel,
    planes: &[Plane<'_>],
    tail: &[u8],
    scratch: &mut Words,
    to: &mut Vec<u8>,
) {
    let mut modes: Vec<(Mode, u64)> = planes
        .iter()
        .map(|plane| Mode::for_plane(plane.counts, plane.shared.map(Shared::frequencies)))
        .collect();
    // A stream's states have to be saved, too.
    if modes.iter().map(|(_, saved)| saved).sum::<u64>() <= STATES_LEN as u64 {
        modes.iter_mut().filter(|(mode, _)| *mode != Mode::Constant).for_each(|mode| *mode = (Mode::Raw, 0));
    }
    to.extend(modes.iter().map(|(mode, _)| mode.code()));
    let mut own = Vec::new();
    for (plane, (mode, _)) in planes.iter().zip(&modes) {
        match mode {
            Mode::Raw => to.extend(plane.bytes),
            Mode::Constant => to.extend(plane.bytes.first()),
            Mode::Shared => {}
            Mode::Own => own.extend(plane.counts.and_then(Frequencies::of).map(|frequencies| {
                frequencies.write(to);
                Coder::new(&frequencies)
            })),
        }
    }
    if modes.iter().any(|(mode, _)| matches!(mode, Mode::Shared | Mode::Own)) {
        let mut writer = Writer::new(kernel, scratch, planes.iter().map(|plane| plane.bytes.len()).sum());
        for (plane, (mode, _)) in planes.iter().zip(&modes).rev() {
            let own = if *mode == Mode::Own { own.pop() } else { None };
            let shared = plane.shared.filter(|_| *mode == Mode::Shared).map(|shared| &shared.coder);
            if let Some(coder) = own.as_ref().or(shared) {
                writer.prepend(coder, plane.bytes);
            }
        }
        writer.finish(to);
    }
    to.extend(tail);
}

/// A block whose planes that are not coded have been read.
pub(super) struct Opened<'b, 'p> {
    /// The others, in order: where each goes, and by which frequencies.
    coded: Vec<(&'p mut [u8], TableOf<'b>)>,
    stream: Option<Reader<'b>>,
}

enum TableOf<'b> {
    Shared(&'b Table),
    Own(Table),
}

impl TableOf<'_> {
    fn table(&self) -> &Table {
        match self {
            TableOf::Shared(table) => table,
            TableOf::Own(table) => table,
        }
    }
}

impl<'b, 'p> Opened<'b, 'p> {
    /// Of a block, whose planes are of these lengths and go to `planes`, one behind the other; what is left of the run to `tail`.
    pub(super) fn open(
        kernel: Kernel,
        block: &'b [u8],
        tables: &'b [Option<Table>],
        mut planes: &'p mut [u8],
        lengths: &[usize],
        tail: &mut [u8],
    ) -> Result<Opened<'b, 'p>, Malformed> {
        let cut = || Malformed("a block is cut short");
        let (modes, mut rest) = block.split_at_checked(lengths.len()).ok_or_else(cut)?;
        let mut coded = Vec::new();
        for (number, (code, len)) in modes.iter().zip(lengths).enumerate() {
            let plane =
                planes.split_off_mut(..*len).ok_or(Malformed("a block has more planes than bytes"))?;
            let mode = Mode::ALL.into_iter().find(|mode| mode.code() == *code);
            match mode.ok_or(Malformed("a plane is stored in a way that there is not"))? {
                Mode::Raw => plane.copy_from_slice(rest.split_off(..*len).ok_or_else(cut)?),
                Mode::Constant => plane.fill(*rest.split_off_first().ok_or_else(cut)?),
                Mode::Shared => {
                    let table = tables.get(number).and_then(Option::as_ref);
                    let table = table.ok_or(Malformed("a plane shares frequencies that there are not"))?;
                    coded.push((plane, TableOf::Shared(table)));
                }
                Mode::Own => {
                    let frequencies = Frequencies::read(&mut rest);
                    let frequencies = frequencies.ok_or(Malformed("frequencies that cannot be"))?;
                    coded.push((plane, TableOf::Own(Table::new(&frequencies))));
                }
            }
        }
        let (stream, last) =
            rest.len().checked_sub(tail.len()).map(|len| rest.split_at(len)).ok_or_else(cut)?;
        tail.copy_from_slice(last);
        let stream = match (coded.is_empty(), stream.is_empty()) {
            (true, true) => None,
            (true, false) => return Err(Malformed("there is more than a block")),
            _ => Some(Reader::new(kernel, stream)?),
        };
        Ok(Opened { coded, stream })
    }

    /// Reads what is coded.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        let Some(mut stream) = self.stream else { return Ok(()) };
        for (plane, table) in self.coded {
            stream.take(table.table(), plane)?;
        }
        stream.finish()
    }

    /// Reads what is coded of two blocks, at once as far as they are alike.
    pub(super) fn finish_both(self, other: Opened<'b, '_>) -> Result<(), Malformed> {
        let (mut left, mut right) = (self, other);
        let both = left.coded.len().min(right.coded.len());
        if let (Some(one), Some(two)) = (&mut left.stream, &mut right.stream) {
            for ((plane, table), (plane2, table2)) in left.coded.drain(..both).zip(right.coded.drain(..both))
            {
                Reader::take_both([one, two], [table.table(), table2.table()], [plane, plane2])?;
            }
        }
        left.finish()?;
        right.finish()
    }
}

/// The lengths of the planes of so many elements of fields as long as these.
pub(super) fn lengths(fields: &[usize], elements: usize) -> Vec<usize> {
    fields.iter().map(|field| field * elements).collect()
}

/// Planes one by one, and how often each byte comes in each, unless that looks like noise.
pub(super) fn count<'p>(mut planes: &'p [u8], lengths: &[usize]) -> Vec<(&'p [u8], Option<[u32; 256]>)> {
    let counted = |plane: &'p [u8]| (plane, (!is_noise(plane)).then(|| planes::count(plane)));
    lengths.iter().filter_map(|len| planes.split_off(..*len)).map(counted).collect()
}

/// Whether a sample of a plane takes 7.75 bits a byte: that is part of the format, too. Of bytes that take 8 it is that many, less a tenth for what
/// so few of them cannot show.
fn is_noise(plane: &[u8]) -> bool {
    const PART: usize = 64;
    const EVERY: usize = 512;
    const LEAST: usize = 16 << 10;
    if plane.len() < LEAST {
        return false;
    }
    let mut counts = planes::Counts::new();
    let mut taken = 0;
    for part in plane.chunks(EVERY).map(|part| &part[..part.len().min(PART)]) {
        counts.add(part);
        taken += part.len() as u64;
    }
    entropy(&counts.sum()) >= taken * (31 << 14)
}
