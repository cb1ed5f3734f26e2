//! A drill: what the volume's parity promises, tried on copies of its own packs.
//!
//! Some packs are copied past the volume (`sample.rs`, `scratch.rs`) and damaged in every way that a disk does it
//! (`damage.rs`, `edit.rs`, `unreadable.rs`); each is read and mended by the code that a mount reads and mends with, and held
//! against what it was (`round.rs`). Then the damage grows until something is lost (`margin.rs`).
//!
//! Architecture Invariant: the volume is only read. No lock is taken and no daemon asked: packs never change, and one that is
//! dropped meanwhile is left out.

mod damage;
mod dice;
mod edit;
mod margin;
mod round;
mod sample;
mod scratch;
#[cfg(test)]
mod tests;
mod unreadable;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cairn_format::{PackId, ParityGeometry};
use cairn_store::disk::{Access, Disk};
use cairn_store::heal::{examine, mend};
use cairn_store::{PackReader, Store, list_packs, pack_path};

pub use damage::{Damage, Planned, leads_there, promised_hole};
pub use dice::Dice;
pub use edit::{Edit, sector};
pub use margin::DrillMargin;

use crate::layout::{STORE_DIR, store_disk};
use crate::open::{OpenError, superblock};
use crate::parity::guarantee;
use edit::leave_nothing;
use round::{Bench, Outcome, Subject};
use sample::Candidate;
use scratch::{Copied, Scratch};

/// How often damage is chosen anew that changed nothing: zeros where there were zeros.
const TRIES: usize = 50;
/// Reasons that are kept.
const WHYS: usize = 20;

/// How a drill is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillOptions {
    /// Bytes of packs that are copied, at most; but at least a pack of each kind.
    pub sample: u64,
    /// How often each damage is done, and each margin measured.
    pub rounds: u64,
    /// What chance goes by.
    pub seed: u64,
    /// Where the copies are made, in a directory of their own.
    pub scratch: PathBuf,
    /// Whether they stay.
    pub keep: bool,
}

/// What a drill is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillStep {
    /// It copies packs.
    Copying,
    /// It does what is promised to be mended.
    Damaging,
    /// It does more than that.
    Measuring,
}

/// How far a drill is: bytes of a step, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillProgress {
    /// What it is doing.
    pub step: DrillStep,
    /// How much of that is done.
    pub done: u64,
    /// How much there is.
    pub of: u64,
}

/// The least, the middle and the most of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrillRange {
    /// How many there are; where there are none the others say nothing.
    pub count: u64,
    /// The least.
    pub least: u64,
    /// As many are below it as above.
    pub median: u64,
    /// The most.
    pub most: u64,
}

impl DrillRange {
    fn of(mut numbers: Vec<u64>) -> DrillRange {
        numbers.sort_unstable();
        let (Some(least), Some(most)) = (numbers.first(), numbers.last()) else {
            return DrillRange::default();
        };
        DrillRange {
            count: numbers.len() as u64,
            least: *least,
            median: numbers[numbers.len() / 2],
            most: *most,
        }
    }
}

/// What became of one damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillLine {
    /// Which.
    pub damage: Damage,
    /// How often it was done.
    pub rounds: u64,
    /// How often it was promised to be mended.
    pub promised: u64,
    /// How often the pack was what it had been afterwards.
    pub repaired: u64,
    /// How often something was lost, and told.
    pub told: u64,
    /// How often other bytes were returned or written, or damage was passed over.
    pub wrong: u64,
    /// How often what is promised was not mended.
    pub broken: u64,
    /// How long finding and mending it took, on average.
    pub took: Duration,
}

impl DrillLine {
    fn of(damage: Damage) -> DrillLine {
        let took = Duration::ZERO;
        DrillLine { damage, rounds: 0, promised: 0, repaired: 0, told: 0, wrong: 0, broken: 0, took }
    }

    /// Counts a round; gives what is to be said of it where it is not as promised.
    fn note(&mut self, outcome: &Outcome, promised: bool) -> Option<String> {
        self.rounds += 1;
        self.promised += u64::from(promised);
        self.broken += u64::from(promised && *outcome != Outcome::Repaired);
        match outcome {
            Outcome::Repaired => self.repaired += 1,
            Outcome::Told => self.told += 1,
            Outcome::Wrong(_) => self.wrong += 1,
        }
        match outcome {
            Outcome::Repaired => None,
            Outcome::Told => promised.then(|| "it did not come back".to_string()),
            Outcome::Wrong(what) => Some(what.clone()),
        }
    }
}

/// A pack that was drilled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillPack {
    /// Its name.
    pub pack: PackId,
    /// Whether it is one of metadata.
    pub metadata: bool,
    /// Bytes of its file.
    pub len: u64,
    /// Its parity.
    pub parity: ParityGeometry,
}

/// What a drill saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillReport {
    /// What chance went by.
    pub seed: u64,
    /// What is promised of the volume, in words.
    pub guarantee: String,
    /// The packs that were drilled with.
    pub packs: Vec<DrillPack>,
    /// Packs that the store has.
    pub packs_total: u64,
    /// Packs that were damaged on the volume itself.
    pub damaged: Vec<PackId>,
    /// What became of each damage.
    pub lines: Vec<DrillLine>,
    /// How much more than what is promised was survived: by the largest pack of each kind.
    pub margins: Vec<DrillMargin>,
    /// What went wrong, if anything did.
    pub whys: Vec<String>,
    /// The copies, where they were kept.
    pub kept: Option<PathBuf>,
    /// How long all of it took.
    pub took: Duration,
}

impl DrillReport {
    /// Rounds in which other bytes were returned.
    pub fn wrong(&self) -> u64 {
        let margins: u64 = self.margins.iter().map(|margin| margin.wrong).sum();
        self.lines.iter().map(|line| line.wrong).sum::<u64>() + margins
    }

    /// Rounds in which what is promised did not come back.
    pub fn broken(&self) -> u64 {
        let margins: u64 = self.margins.iter().map(|margin| margin.broken).sum();
        self.lines.iter().map(|line| line.broken).sum::<u64>() + margins
    }

    /// Packs that nothing can mend.
    pub fn unprotected(&self) -> u64 {
        self.packs.iter().filter(|pack| pack.parity.is_none()).count() as u64
    }
}

/// Why a drill could not be done.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// It was told to stop.
    #[error("interrupted")]
    Stopped,
    /// There is no volume that can be read.
    #[error(transparent)]
    Volume(#[from] OpenError),
    /// What, and what to do.
    #[error("{0}")]
    Failed(String),
}

/// Drills the volume in a directory, mounted or not. `tell` is told how far it is, and says whether to go on; the copies are
/// gone when this returns, unless they are to stay.
pub fn drill(
    dir: &Path,
    options: &DrillOptions,
    tell: &mut dyn FnMut(&DrillProgress) -> bool,
) -> Result<DrillReport, DrillError> {
    let since = Instant::now();
    let volume = superblock(dir)?;
    let failed = |e: &dyn std::fmt::Display| DrillError::Failed(format!("{}: {e}", dir.display()));
    let store = store_disk(dir, &volume.store_path).map_err(|e| failed(&e))?;
    let store_superblock = Store::superblock_of(&*store).map_err(|e| failed(&e))?.newest;
    outside(&options.scratch, dir, &volume.store_path)?;
    let mut dice = Dice::new(options.seed);
    let listing = list_packs(&*store).map_err(|e| failed(&e))?;
    let mut all = Vec::with_capacity(listing.packs.len());
    for (pack, len) in listing.packs {
        if !tell(&DrillProgress { step: DrillStep::Copying, done: 0, of: 0 }) {
            return Err(DrillError::Stopped);
        }
        all.push(Candidate { pack, len, metadata: sample::is_metadata(&*store, pack) });
    }
    let packs_total = all.len() as u64;
    let chosen = sample::choose(all, options.sample, &mut dice);
    let scratch = Scratch::make(&options.scratch, options.keep, &store_superblock)?;
    let mut run =
        Run { scratch: &scratch, options, subjects: Vec::new(), damaged: Vec::new(), whys: Vec::new(), dice };
    run.copy(&*store, &chosen, tell)?;
    if run.subjects.is_empty() {
        return Err(failed(&match run.damaged.is_empty() {
            true => "there are no packs yet: write something, `cairn sync`, and drill again".to_string(),
            false => {
                format!("all {} packs that were tried are damaged: see `cairn scrub`", run.damaged.len())
            }
        }));
    }
    let mut bench = Bench::new(&scratch);
    let lines = run.damage(&mut bench, tell)?;
    let margins = run.measure(&mut bench, tell)?;
    let Run { subjects, damaged, mut whys, .. } = run;
    whys.truncate(WHYS);
    let packs = subjects.iter().map(|subject| DrillPack {
        pack: subject.pack,
        metadata: subject.metadata,
        len: subject.len(),
        parity: subject.layout.parity,
    });
    Ok(DrillReport {
        seed: options.seed,
        guarantee: guarantee(volume.geometry.parity, store_superblock.pack_size.into()),
        packs: packs.collect(),
        packs_total,
        damaged,
        lines,
        margins,
        whys,
        kept: options.keep.then(|| scratch.dir().to_path_buf()),
        took: since.elapsed(),
    })
}

/// Nothing is written into the volume, nor into its store.
fn outside(scratch: &Path, dir: &Path, store: &str) -> Result<(), DrillError> {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let store = if store.is_empty() { dir.join(STORE_DIR) } else { PathBuf::from(store) };
    let at = resolved(scratch);
    match [dir, &store].into_iter().any(|path| at.starts_with(resolved(path))) {
        true => Err(DrillError::Failed(format!(
            "{} lies in the volume: name a directory outside of it with --scratch",
            scratch.display()
        ))),
        false => Ok(()),
    }
}

/// A drill under way.
struct Run<'a> {
    scratch: &'a Scratch,
    options: &'a DrillOptions,
    subjects: Vec<Subject>,
    damaged: Vec<PackId>,
    whys: Vec<String>,
    dice: Dice,
}

impl Run<'_> {
    /// Copies the packs of the sample, and makes whole what is damaged already.
    fn copy(
        &mut self,
        store: &dyn Disk,
        chosen: &[Candidate],
        tell: &mut dyn FnMut(&DrillProgress) -> bool,
    ) -> Result<(), DrillError> {
        let of: u64 = chosen.iter().map(|candidate| candidate.len).sum();
        self.room(chosen, of)?;
        let mut done = 0;
        for candidate in chosen {
            let mut go_on = |bytes: u64| {
                done += bytes;
                tell(&DrillProgress { step: DrillStep::Copying, done, of })
            };
            match self.scratch.copy(store, candidate.pack, &mut go_on)? {
                None => return Err(DrillError::Stopped),
                Some(Copied::Dropped) => {}
                Some(Copied::Unreadable) => self.damaged.push(candidate.pack),
                Some(Copied::Done) => self.take(store, candidate, &mut |_| go_on(0))?,
            }
        }
        Ok(())
    }

    /// Room for the copies, for the one that is damaged, and for the place that it may be moved to.
    fn room(&self, chosen: &[Candidate], bytes: u64) -> Result<(), DrillError> {
        let largest = chosen.iter().map(|candidate| candidate.len).max().unwrap_or(0);
        let wanted = bytes + 2 * largest + (1 << 20);
        let space = self.scratch.original.space().map_err(|e| self.scratch.failed("its room", &e))?;
        if space.available < wanted {
            return Err(DrillError::Failed(format!(
                "{} has room for {} MiB, and the drill needs {}: name another directory with --scratch, or a smaller --sample",
                self.options.scratch.display(),
                space.available >> 20,
                (wanted >> 20) + 1
            )));
        }
        Ok(())
    }

    /// Makes a pack that was copied one to drill with: it has to be whole.
    fn take(
        &mut self,
        store: &dyn Disk,
        candidate: &Candidate,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), DrillError> {
        let (pack, disk) = (candidate.pack, &*self.scratch.original);
        let subject = match examine(disk, pack, go_on) {
            Ok(None) => return Err(DrillError::Stopped),
            Ok(Some(examined)) => {
                let whole = examined.is_whole();
                if !whole {
                    self.damaged.push(pack);
                }
                let mended = whole || mend(disk, &examined).is_ok_and(|mended| mended.lost.is_empty());
                let footer = PackReader::open(disk, pack).and_then(|reader| reader.footer());
                match footer {
                    Ok(footer) if mended => Some(Subject {
                        pack,
                        metadata: candidate.metadata,
                        layout: examined.layout,
                        frames: footer.frames,
                        twin: self.scratch.has_twin(store, pack),
                    }),
                    _ => None,
                }
            }
            Err(_) => {
                self.damaged.push(pack);
                None
            }
        };
        self.subjects.extend(subject);
        Ok(())
    }

    /// Does each damage as often as it is to be done.
    fn damage(
        &mut self,
        bench: &mut Bench<'_>,
        tell: &mut dyn FnMut(&DrillProgress) -> bool,
    ) -> Result<Vec<DrillLine>, DrillError> {
        let mut plan = Vec::new();
        for (number, damage) in Damage::ALL.into_iter().enumerate() {
            for round in 0..self.options.rounds {
                plan.push((damage, self.draw((number as u64 + round) % 2 == 1)));
            }
        }
        let of = plan.iter().map(|(_, subject)| self.subjects[*subject].len()).sum();
        let mut done = 0;
        let mut lines: Vec<(DrillLine, Duration)> =
            Damage::ALL.map(|d| (DrillLine::of(d), Duration::ZERO)).to_vec();
        for (number, (damage, subject)) in plan.into_iter().enumerate() {
            let subject = self.subjects[subject].clone();
            let progress = DrillProgress { step: DrillStep::Damaging, done, of };
            let (line, took) = &mut lines[number / self.options.rounds as usize];
            *took += self.round(bench, (&subject, damage), line, &mut |_| tell(&progress))?;
            done += subject.len();
        }
        Ok(lines
            .into_iter()
            .map(|(line, took)| DrillLine { took: margin::mean(took, line.rounds), ..line })
            .collect())
    }

    /// A pack of a kind, or of the other where there is none.
    fn draw(&mut self, metadata: bool) -> usize {
        let of_kind: Vec<usize> =
            (0..self.subjects.len()).filter(|n| self.subjects[*n].metadata == metadata).collect();
        match of_kind.len() {
            0 => self.dice.below(self.subjects.len() as u64) as usize,
            some => of_kind[self.dice.below(some as u64) as usize],
        }
    }

    /// Does one damage once, and notes in `line` what became of it; gives how long finding and mending took.
    fn round(
        &mut self,
        bench: &mut Bench<'_>,
        (subject, damage): (&Subject, Damage),
        line: &mut DrillLine,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Duration, DrillError> {
        let path = pack_path(&subject.pack);
        let file =
            self.scratch.original.open(&path, Access::Read).map_err(|e| self.scratch.failed(&path, &e))?;
        for _ in 0..TRIES {
            if !go_on(0) {
                return Err(DrillError::Stopped);
            }
            let planned = damage.plan(&subject.layout, &*file, &mut self.dice);
            let Some(planned) = planned.map_err(|e| self.scratch.failed(&path, &e))? else { break };
            let Some(round) = bench.round(subject, &planned.edits, &mut self.dice, go_on)? else { continue };
            let promised = planned.promised || subject.twin && leave_nothing(&planned.edits);
            let why = line.note(&round.outcome, promised);
            self.whys.extend(why.map(|why| format!("pack {}, {}: {why}", subject.pack, damage.names().1)));
            return Ok(round.took);
        }
        Ok(Duration::ZERO)
    }

    /// How much the largest pack of each kind survives.
    fn measure(
        &mut self,
        bench: &mut Bench<'_>,
        tell: &mut dyn FnMut(&DrillProgress) -> bool,
    ) -> Result<Vec<DrillMargin>, DrillError> {
        let of_kind = |metadata: bool| {
            let protected =
                self.subjects.iter().filter(|s| s.metadata == metadata && !s.layout.parity.is_none());
            protected.max_by_key(|subject| subject.len()).cloned()
        };
        let largest: Vec<Subject> = [false, true].into_iter().filter_map(of_kind).collect();
        let of = largest.iter().map(|subject| subject.len() * self.options.rounds).sum();
        let mut done = 0;
        let mut go_on = |bytes: u64| {
            done += bytes;
            tell(&DrillProgress { step: DrillStep::Measuring, done, of })
        };
        let (runs, mut margins) = (self.options.rounds, Vec::new());
        for subject in &largest {
            margins.push(margin::measure(bench, subject, runs, &mut self.dice, &mut self.whys, &mut go_on)?);
        }
        Ok(margins)
    }
}
