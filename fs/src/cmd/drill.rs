//! `cairn drill`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_volume::drill::{self, DrillError, DrillOptions, DrillProgress, DrillStep};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::long_run::Bar;
use crate::args::DrillArgs;
use crate::failure::{self, Failure};
use crate::output::{count, duration, print, print_json};
use crate::places::{self, Place};
use crate::report::{DrillMarginReport, DrillRangeReport, DrillRunReport};
use crate::size::human;

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// How often each damage is done.
const ROUNDS: u64 = 3;

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    dir: String,
    #[serde(flatten)]
    run: &'a DrillRunReport,
}

/// Drills a volume, mounted or not: here, in this process, since it is only read.
pub(crate) fn run(args: &DrillArgs) -> Result<(), Failure> {
    let place = places::find(&args.path)?;
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    not_in_the_mount(&place, &scratch)?;
    let options = DrillOptions {
        sample: args.sample,
        rounds: args.rounds.unwrap_or(ROUNDS),
        seed: args.seed.unwrap_or_else(seed),
        scratch,
        keep: args.keep,
    };
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, asked.clone()).map_err(Failure::new)?;
    }
    let bar = Bar::new(!args.json);
    let done = drill::drill(&place.dir, &options, &mut |progress| {
        show(&bar, progress);
        !asked.load(Ordering::Relaxed)
    });
    bar.finish();
    let run = DrillRunReport::from(done.map_err(failed)?);
    let dir = place.dir.display().to_string();
    match args.json {
        true => print_json(&Document { message_type: "drill", schema_version: SCHEMA, dir, run: &run })?,
        false => print(&sentences(&dir, &run))?,
    }
    verdict(&place.dir, &run)
}

/// What is written into the mount is written into the volume.
fn not_in_the_mount(place: &Place, scratch: &Path) -> Result<(), Failure> {
    let Some(at) = &place.mountpoint else { return Ok(()) };
    let full: PathBuf = scratch.canonicalize().unwrap_or_else(|_| scratch.to_path_buf());
    match full.starts_with(at) {
        true => Err(Failure::new(format!(
            "{} lies in the volume itself: name a directory outside of it with --scratch",
            scratch.display()
        ))),
        false => Ok(()),
    }
}

/// Another one each time.
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_micros() as u64 ^ u64::from(std::process::id())) % 1_000_000_000
}

fn failed(error: DrillError) -> Failure {
    match error {
        DrillError::Stopped => {
            Failure { code: failure::INTERRUPTED, message: "interrupted: the volume is as it was".into() }
        }
        DrillError::Volume(error) => error.into(),
        DrillError::Failed(message) => Failure::new(message),
    }
}

fn show(bar: &Bar, progress: &DrillProgress) {
    let step = match progress.step {
        DrillStep::Copying => "copying",
        DrillStep::Damaging => "damaging",
        DrillStep::Measuring => "measuring",
    };
    bar.show(step, progress.done, progress.of);
}

/// What a drill that did not go as promised exits with.
fn verdict(dir: &Path, run: &DrillRunReport) -> Result<(), Failure> {
    if run.kept {
        return Ok(());
    }
    let dir = dir.display();
    let lost = |message: String| Err(Failure { code: failure::PARTIAL, message });
    if run.wrong > 0 || run.broken > 0 {
        return lost(format!(
            "{dir}: the promise was not kept: {} wrong bytes, {} did not come back: this is a bug, please report it with the seed {}",
            count(run.wrong, "round had", "rounds had"),
            count(run.broken, "round", "rounds"),
            run.seed,
        ));
    }
    lost(format!(
        "{dir}: {} no parity: what is damaged of them is found and told, and stays lost; new packs get parity with the mount option parity=16+2",
        count(run.packs_unprotected, "pack has", "packs have"),
    ))
}

fn sentences(dir: &str, run: &DrillRunReport) -> String {
    let bytes: u64 = run.packs.iter().map(|pack| pack.len).sum();
    let metadata = run.packs.iter().filter(|pack| pack.kind == "metadata").count();
    let mut told = format!(
        "{dir}: drilled with copies of {} of {} ({metadata} of metadata), {}, in {}; seed {}\npromised: {}\n\n",
        run.packs.len(),
        count(run.packs_total, "pack", "packs"),
        human(bytes),
        duration(run.seconds),
        run.seed,
        run.guarantee,
    );
    told += &format!(
        "  {:<28} {:>7} {:>9} {:>10} {:>6} {:>9}\n",
        "damage", "rounds", "repaired", "told lost", "wrong", "time"
    );
    for line in run.damages.iter().filter(|line| line.rounds > 0) {
        let note = match (line.broken, line.promised) {
            (0, 0) => "  not promised".to_string(),
            (0, all) if all == line.rounds => String::new(),
            (0, some) => format!("  promised in {some}"),
            _ => "  PROMISED, AND NOT KEPT".to_string(),
        };
        told += &format!(
            "  {:<28} {:>7} {:>9} {:>10} {:>6} {:>7.2} s{note}\n",
            line.what, line.rounds, line.repaired, line.told, line.wrong, line.seconds
        );
    }
    run.margins.iter().for_each(|margin| told += &margin_text(margin));
    run.reasons.iter().for_each(|reason| told += &format!("  {reason}\n"));
    told += "\n";
    for pack in &run.packs_damaged {
        told += &format!("Pack {pack} is damaged on the volume itself: run `cairn scrub {dir}`.\n");
    }
    if let Some(copies) = &run.copies {
        told += &format!("The copies are in {copies}: remove them when you are done.\n");
    }
    if run.kept {
        let rounds = run.damages.iter().map(|line| line.rounds).sum::<u64>();
        let beyond: u64 = run.margins.iter().map(|margin| margin.rounds).sum();
        told += &format!(
            "The promise was kept: in {rounds} rounds all that is promised came back, and in {beyond} more, beyond it, no wrong byte was returned.\n"
        );
    }
    told
}

/// `least to most`, or the one number that both read as.
fn range(range: DrillRangeReport) -> String {
    match (human(range.least), human(range.most)) {
        (least, most) if least == most => least,
        (least, most) => format!("{least} to {most}"),
    }
}

/// How much more a pack survived than is promised.
fn margin_text(margin: &DrillMarginReport) -> String {
    let repaired = match (margin.hole_repaired, margin.hole_lost) {
        (Some(repaired), Some(_)) => format!("{} came back, and not a sector more", range(repaired)),
        (Some(repaired), None) => format!("{} came back, which is to its end", range(repaired)),
        (None, _) => "did not come back".to_string(),
    };
    let numbers = |range: Option<DrillRangeReport>| match range {
        Some(range) => format!("median {}, least {}", range.median, range.least),
        None => "there was none".to_string(),
    };
    let promised = margin.sectors_promised;
    format!(
        "\n  measured on a {} pack of {}, {}:\n  {:<48} {repaired} (promised {})\n  {:<48} {} (promised {promised})\n  {:<48} {} (promised {promised})\n",
        margin.kind,
        human(margin.len),
        count(margin.runs, "run", "runs"),
        "a hole, from any place",
        human(margin.hole_promised),
        "random bad sectors until the first loss",
        numbers(margin.sectors_lost),
        "bad sectors in one column until the first loss",
        numbers(margin.column_lost),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::drill::{Damage, DrillLine, DrillMargin, DrillRange, DrillReport};
    use std::time::Duration;

    fn report(broken: u64, wrong: u64) -> DrillRunReport {
        let line = DrillLine {
            damage: Damage::LongestHole,
            rounds: 4,
            promised: 4,
            repaired: 4 - broken,
            told: broken,
            wrong,
            broken,
            took: Duration::from_millis(120),
        };
        let missing =
            DrillLine { damage: Damage::MissingPack, promised: 0, repaired: 0, told: 4, broken: 0, ..line };
        let of = |least, median, most| DrillRange { count: 3, least, median, most };
        let margin = DrillMargin {
            len: 72 << 20,
            runs: 3,
            hole_promised: 8 << 20,
            hole_repaired: of(8_400_000, 8_500_000, 9_000_000),
            hole_lost: of(8_404_096, 8_504_096, 9_004_096),
            sectors_promised: 2,
            sectors_lost: of(19, 47, 60),
            column_lost: of(3, 3, 3),
            rounds: 50,
            ..DrillMargin::default()
        };
        DrillRunReport::from(DrillReport {
            seed: 7,
            guarantee: "16+2: any 2 bad sectors".into(),
            packs: Vec::new(),
            packs_total: 9,
            damaged: Vec::new(),
            lines: vec![line, missing],
            margins: vec![margin],
            whys: Vec::new(),
            kept: None,
            took: Duration::from_secs(9),
        })
    }

    #[test]
    fn people_read_what_was_promised_and_what_was_measured() {
        let told = sentences("/v", &report(0, 0));
        for part in [
            "of 9 packs",
            "seed 7\npromised: 16+2: any 2 bad sectors\n",
            "missing                            4         0          4      0    0.12 s  not promised\n",
            "8.01 MiB to 8.58 MiB came back, and not a sector more (promised 8.00 MiB)\n",
            "median 47, least 19 (promised 2)\n",
            "The promise was kept: in 8 rounds",
        ] {
            assert!(told.contains(part), "'{part}' is not in: {told}");
        }
        assert!(verdict(Path::new("/v"), &report(0, 0)).is_ok());
    }

    #[test]
    fn a_promise_that_was_not_kept_is_a_failure_with_the_seed() {
        for run in [report(1, 0), report(0, 1)] {
            let failed = verdict(Path::new("/v"), &run).expect_err("not kept");
            assert!(failed.code == failure::PARTIAL && failed.message.contains("seed 7"), "{failed}");
            assert!(!sentences("/v", &run).contains("was kept"));
        }
        assert!(sentences("/v", &report(1, 0)).contains("PROMISED, AND NOT KEPT"));
    }

    #[test]
    fn copies_are_not_made_in_what_they_are_copies_of() {
        let place = Place { dir: "/srv/v".into(), mountpoint: Some("/".into()) };
        assert!(not_in_the_mount(&place, Path::new("/tmp")).is_err());
        let place = Place { mountpoint: None, ..place };
        assert!(not_in_the_mount(&place, Path::new("/tmp")).is_ok());
    }
}
