//! One round: a pack is damaged, read as a mount reads it, mended as a mount mends it, and held against what it was.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_format::{FrameEntry, PackId, PackLayout};
use cairn_store::disk::{Access, Disk};
use cairn_store::heal::{HealMode, examine, mend};
use cairn_store::{DecodedFrame, PackReader, Store, StoreOptions, pack_path};

use super::DrillError;
use super::dice::Dice;
use super::edit::{Edit, leave_nothing};
use super::scratch::Scratch;
use super::unreadable::BadDisk;

/// Damaged frames that are read, and others beside them.
const FRAMES_HIT: usize = 6;
const FRAMES_BESIDE: u64 = 2;
/// Bytes that are compared at a time.
const STRIDE: u64 = 1 << 20;

/// A pack that is drilled with: a whole copy of it is in the scratch directory.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) pack: PackId,
    pub(super) metadata: bool,
    pub(super) layout: PackLayout,
    pub(super) frames: Vec<FrameEntry>,
    /// Whether the volume has a second copy of it.
    pub(super) twin: bool,
}

impl Subject {
    pub(super) fn len(&self) -> u64 {
        self.layout.file_len()
    }
}

/// What became of a damaged pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Every frame could be read meanwhile, and it is what it was, byte for byte.
    Repaired,
    /// Something is lost, and whoever asks is told so.
    Told,
    /// Other bytes were returned, or written, or left without a word.
    Wrong(String),
}

/// What came of a round.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) outcome: Outcome,
    /// How long finding and mending took.
    pub(super) took: Duration,
}

/// What came of reading frames.
struct Read {
    lost: bool,
    wrong: Option<String>,
}

/// Where rounds are done.
pub(super) struct Bench<'a> {
    scratch: &'a Scratch,
    /// The pack of which the copy that is damaged is known to be whole.
    whole: Option<PackId>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(scratch: &'a Scratch) -> Bench<'a> {
        Bench { scratch, whole: None }
    }

    /// Does one; none where the edits changed nothing. `go_on` is told of bytes that were looked through.
    ///
    /// The pack has its second copy, if it has one, only where the edits leave nothing of the pack itself: else it would be that
    /// copy that is measured, and not parity.
    pub(super) fn round(
        &mut self,
        subject: &Subject,
        edits: &[Edit],
        dice: &mut Dice,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Round>, DrillError> {
        if !(subject.twin && leave_nothing(edits)) {
            return self.round_alone(subject, edits, dice, go_on);
        }
        self.scratch.give_twin(subject.pack)?;
        let round = self.round_alone(subject, edits, dice, go_on);
        self.scratch.take_twin(subject.pack)?;
        round
    }

    fn round_alone(
        &mut self,
        subject: &Subject,
        edits: &[Edit],
        dice: &mut Dice,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Round>, DrillError> {
        if self.whole != Some(subject.pack) {
            self.scratch.freshen(subject.pack)?;
        }
        self.whole = Some(subject.pack);
        if !self.inflict(subject, edits)? {
            return Ok(None);
        }
        self.whole = None;
        let disk: Arc<dyn Disk> =
            Arc::new(BadDisk::new(self.scratch.work.clone(), pack_path(&subject.pack), edits));
        let frames = frames_about(subject, edits, dice);
        let before = self.read(&disk, subject, &frames)?;
        let since = Instant::now();
        let mended = match examine(&*disk, subject.pack, go_on) {
            Ok(None) => return Err(DrillError::Stopped),
            Ok(Some(examined)) => mend(&*disk, &examined).map(|mended| mended.lost).ok(),
            // Nothing can be had of it, and that is said.
            Err(_) => None,
        };
        let took = since.elapsed();
        let told = mended.is_none_or(|lost| !lost.is_empty());
        let after = self.compare(&disk, subject, edits)?;
        let outcome = match (before.wrong, after) {
            (Some(wrong), _) | (None, Compared::Invented(wrong)) => Outcome::Wrong(wrong),
            (None, Compared::Same) if !before.lost => Outcome::Repaired,
            (None, Compared::Same) => Outcome::Told,
            (None, Compared::Damaged(at)) if !told => {
                Outcome::Wrong(format!("byte {at} is another, and nothing was said of it"))
            }
            (None, Compared::Damaged(_)) => match self.read(&disk, subject, &frames)?.wrong {
                Some(wrong) => Outcome::Wrong(wrong),
                None => Outcome::Told,
            },
        };
        self.whole = (outcome == Outcome::Repaired).then_some(subject.pack);
        Ok(Some(Round { outcome, took }))
    }

    /// Whether anything is changed.
    fn inflict(&self, subject: &Subject, edits: &[Edit]) -> Result<bool, DrillError> {
        let (work, path) = (&self.scratch.work, pack_path(&subject.pack));
        let mut changed = false;
        for edit in edits {
            let done = match edit {
                Edit::Remove => work.remove(&path).map(|()| true),
                edit => work.open(&path, Access::Write).and_then(|file| edit.inflict(&*file)),
            };
            changed |= done.map_err(|e| self.scratch.failed(&path, &e))?;
        }
        Ok(changed)
    }

    /// Reads frames as a mount does that writes nothing, and holds them against the original's.
    fn read(&self, disk: &Arc<dyn Disk>, subject: &Subject, frames: &[usize]) -> Result<Read, DrillError> {
        let options = StoreOptions { index_mem: 1 << 16, cache_size: 0, read_only: true };
        let store = Store::open_healing(disk.clone(), options, HealMode::ReadOnly)
            .map_err(|e| self.scratch.failed("the copied store", &e))?;
        let original = PackReader::open(&*self.scratch.original, subject.pack);
        let original = original.map_err(|e| self.scratch.failed("the copies", &e))?;
        let mut read = Read { lost: false, wrong: None };
        for number in frames {
            let entry = &subject.frames[*number];
            let right = original.frame(entry).map_err(|e| self.scratch.failed("the copies", &e))?;
            match store.frame_once(subject.pack, *number as u32) {
                Ok(found) if same(&found, &right) => {}
                Ok(_) => read.wrong = Some(format!("the frame at {} was read as other bytes", entry.offset)),
                Err(_) => read.lost = true,
            }
        }
        Ok(read)
    }

    fn compare(
        &self,
        disk: &Arc<dyn Disk>,
        subject: &Subject,
        edits: &[Edit],
    ) -> Result<Compared, DrillError> {
        let path = pack_path(&subject.pack);
        let failed = |e: std::io::Error| self.scratch.failed(&path, &e);
        let original = self.scratch.original.open(&path, Access::Read).map_err(failed)?;
        let Ok(found) = disk.open(&path, Access::Read) else { return Ok(Compared::Damaged(0)) };
        let len = subject.len();
        let mut first = (found.len().map_err(failed)? != len).then_some(len);
        for start in (0..len).step_by(STRIDE as usize) {
            let mut was = vec![0; STRIDE.min(len - start) as usize];
            original.read_exact_at(&mut was, start).map_err(failed)?;
            let mut is = vec![0; was.len()];
            if found.read_at(&mut is, start).is_err() {
                // Damaged, and whoever reads it is told so.
                first = first.or(Some(start));
                continue;
            }
            if is == was {
                continue;
            }
            let mut left = was.clone();
            edits.iter().for_each(|edit| edit.leave(start, &mut left));
            if let Some(at) = (0..is.len()).find(|at| is[*at] != was[*at] && is[*at] != left[*at]) {
                let at = start + at as u64;
                return Ok(Compared::Invented(format!(
                    "byte {at} is neither what it was nor what it became"
                )));
            }
            let other = (0..is.len()).find(|at| is[*at] != was[*at]);
            first = first.or(other.map(|at| start + at as u64));
        }
        Ok(first.map_or(Compared::Same, Compared::Damaged))
    }
}

/// A pack beside what it was.
enum Compared {
    Same,
    /// From this byte on something is not as it was.
    Damaged(u64),
    /// A byte that a repair made up.
    Invented(String),
}

fn same(one: &DecodedFrame, other: &DecodedFrame) -> bool {
    one.plain == other.plain && one.chunks == other.chunks
}

/// Some frames that are hit, and some that need not be.
fn frames_about(subject: &Subject, edits: &[Edit], dice: &mut Dice) -> Vec<usize> {
    let ranges: Vec<Range<u64>> = edits.iter().map(|edit| edit.range(subject.len())).collect();
    let is_hit = |frame: &FrameEntry| {
        let end = frame.offset + u64::from(frame.len);
        ranges.iter().any(|range| range.start < end && frame.offset < range.end)
    };
    let mut hit: Vec<usize> = (0..subject.frames.len()).filter(|n| is_hit(&subject.frames[*n])).collect();
    while hit.len() > FRAMES_HIT {
        hit.swap_remove(dice.below(hit.len() as u64) as usize);
    }
    let beside = dice.some_below(subject.frames.len() as u64, FRAMES_BESIDE);
    hit.extend(beside.into_iter().map(|number| number as usize));
    hit
}
