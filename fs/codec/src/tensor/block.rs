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

    pub(super) fn coder(&self) -> &Coder {
        &self.coder
    }
}

/// What is known of a plane when it is decided how it is stored.
#[derive(Clone, Copy)]
pub(super) struct Plane<'p> {
    /// How often each byte comes; not known of what looks like noise.
    pub(super) counts: Option<&'p [u32; 256]>,
    /// What the run's blocks share.
    pub(super) shared: Option<&'p Shared>,
}

/// How a plane is stored, where that was decided.
pub(super) enum Way {
    /// As it is.
    Raw,
    /// As the one byte that there is.
    Constant,
    /// By the run's frequencies.
    Shared,
    /// By these.
    Own(Box<Frequencies>),
}

impl Way {
    fn mode(&self) -> Mode {
        match self {
            Way::Raw => Mode::Raw,
            Way::Constant => Mode::Constant,
            Way::Shared => Mode::Shared,
            Way::Own(_) => Mode::Own,
        }
    }

    pub(super) fn is_coded(&self) -> bool {
        matches!(self, Way::Shared | Way::Own(_))
    }
}

/// How each plane of a block is stored.
pub(super) fn ways(planes: &[Plane<'_>]) -> Vec<Way> {
    let modes: Vec<(Mode, u64)> = planes
        .iter()
        .map(|plane| Mode::for_plane(plane.counts, plane.shared.map(Shared::frequencies)))
        .collect();
    // A stream's states have to be saved, too.
    let coded = modes.iter().map(|(_, saved)| saved).sum::<u64>() > STATES_LEN as u64;
    let way = |(plane, (mode, _)): (&Plane<'_>, &(Mode, u64))| match mode {
        Mode::Constant => Way::Constant,
        Mode::Shared if coded => Way::Shared,
        Mode::Own if coded => {
            plane.counts.and_then(Frequencies::of).map_or(Way::Raw, |own| Way::Own(Box::new(own)))
        }
        _ => Way::Raw,
    };
    planes.iter().zip(&modes).map(way).collect()
}

/// Appends the block of planes, which are stored in these ways: all of it that stands before its stream. The bytes of those that are coded
/// are not asked for, and one of those that are constant.
pub(super) fn begin(ways: &[Way], planes: &[&[u8]], to: &mut Vec<u8>) {
    to.extend(ways.iter().map(|way| way.mode().code()));
    for (plane, way) in planes.iter().zip(ways) {
        match way {
            Way::Raw => to.extend(*plane),
            Way::Constant => to.extend(plane.first()),
            Way::Shared => {}
            Way::Own(frequencies) => frequencies.write(to),
        }
    }
}

/// Appends the stream of those planes that are coded.
pub(super) fn stream(
    kernel: Kernel,
    ways: &[Way],
    planes: &[&[u8]],
    shared: &[Option<Shared>],
    scratch: &mut Words,
    to: &mut Vec<u8>,
) {
    if !ways.iter().any(Way::is_coded) {
        return;
    }
    let mut writer = Writer::new(kernel, scratch, planes.iter().map(|plane| plane.len()).sum());
    for ((plane, way), shared) in planes.iter().zip(ways).zip(shared).rev() {
        match (way, shared) {
            (Way::Own(frequencies), _) => writer.prepend(&Coder::new(frequencies), plane),
            (Way::Shared, Some(shared)) => writer.prepend(&shared.coder, plane),
            _ => {}
        }
    }
    writer.finish(to);
}

/// How a plane of a block is stored, and what stands in the block for that.
pub(super) enum Piece<'b> {
    Raw(&'b [u8]),
    Constant(u8),
    Shared,
    Own(Box<Frequencies>),
}

impl Piece<'_> {
    pub(super) fn is_coded(&self) -> bool {
        matches!(self, Piece::Shared | Piece::Own(_))
    }
}

/// A block's parts.
pub(super) struct Pieces<'b> {
    pub(super) planes: Vec<Piece<'b>>,
    /// Of all planes that are coded; empty where none is.
    pub(super) stream: &'b [u8],
    pub(super) tail: &'b [u8],
}

impl<'b> Pieces<'b> {
    /// Of a block, whose planes are of these lengths, and which holds so much of what is left of the run.
    pub(super) fn read(block: &'b [u8], lengths: &[usize], tail: usize) -> Result<Pieces<'b>, Malformed> {
        let cut = || Malformed("a block is cut short");
        let (modes, mut rest) = block.split_at_checked(lengths.len()).ok_or_else(cut)?;
        let mut planes = Vec::with_capacity(lengths.len());
        for (code, len) in modes.iter().zip(lengths) {
            let mode = Mode::ALL.into_iter().find(|mode| mode.code() == *code);
            planes.push(match mode.ok_or(Malformed("a plane is stored in a way that there is not"))? {
                Mode::Raw => Piece::Raw(rest.split_off(..*len).ok_or_else(cut)?),
                Mode::Constant => Piece::Constant(*rest.split_off_first().ok_or_else(cut)?),
                Mode::Shared => Piece::Shared,
                Mode::Own => {
                    let frequencies = Frequencies::read(&mut rest);
                    Piece::Own(Box::new(frequencies.ok_or(Malformed("frequencies that cannot be"))?))
                }
            });
        }
        let (stream, tail) = rest.len().checked_sub(tail).map(|len| rest.split_at(len)).ok_or_else(cut)?;
        let coded = planes.iter().any(Piece::is_coded);
        match coded || stream.is_empty() {
            true => Ok(Pieces { planes, stream, tail }),
            false => Err(Malformed("there is more than a block")),
        }
    }
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
        let pieces = Pieces::read(block, lengths, tail.len())?;
        let mut coded = Vec::new();
        for (number, (piece, len)) in pieces.planes.into_iter().zip(lengths).enumerate() {
            let plane =
                planes.split_off_mut(..*len).ok_or(Malformed("a block has more planes than bytes"))?;
            match piece {
                Piece::Raw(bytes) => plane.copy_from_slice(bytes),
                Piece::Constant(byte) => plane.fill(byte),
                Piece::Shared => {
                    let table = tables.get(number).and_then(Option::as_ref);
                    let table = table.ok_or(Malformed("a plane shares frequencies that there are not"))?;
                    coded.push((plane, TableOf::Shared(table)));
                }
                Piece::Own(frequencies) => coded.push((plane, TableOf::Own(Table::new(&frequencies)))),
            }
        }
        tail.copy_from_slice(pieces.tail);
        let stream = match coded.is_empty() {
            true => None,
            false => Some(Reader::new(kernel, pieces.stream)?),
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

/// Planes one by one.
pub(super) fn planes<'p>(mut planes: &'p [u8], lengths: &[usize]) -> Vec<&'p [u8]> {
    lengths.iter().filter_map(|len| planes.split_off(..*len)).collect()
}

/// How often each byte comes, unless that looks like noise.
pub(super) fn count(plane: &[u8]) -> Option<[u32; 256]> {
    match planes::Narrow::of(plane) {
        // Bytes of 32 kinds take 5 bits at the most.
        Some(narrow) => Some(narrow.count()),
        None => (!is_noise(plane)).then(|| planes::count(plane)),
    }
}

/// Bytes of a plane that is looked at by a sample before it is counted: so many, or more.
pub(super) const SAMPLED: usize = 16 << 10;

/// Whether a sample of a plane takes 7.75 bits a byte: that is part of the format, too. Of bytes that take 8 it is that many, less a tenth for what
/// so few of them cannot show.
fn is_noise(plane: &[u8]) -> bool {
    const PART: usize = 64;
    const EVERY: usize = 512;
    if plane.len() < SAMPLED {
        return false;
    }
    let mut counts = planes::Counts::new();
    for part in plane.chunks(EVERY).map(|part| &part[..part.len().min(PART)]) {
        counts.add(part);
    }
    sample_is_noise(&counts.sum())
}

/// Whether a sample with these counts is.
pub(super) fn sample_is_noise(counts: &[u32; 256]) -> bool {
    let taken: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    entropy(counts) >= taken * (31 << 14)
}
