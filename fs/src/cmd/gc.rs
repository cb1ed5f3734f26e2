//! `cairn gc`.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use cairn_volume::{GcOptions, GcProgress};
use serde::Serialize;

use super::long_run::{self, Bar, ended};
use crate::args::GcArgs;
use crate::control::{Client, GcRequest};
use crate::failure::Failure;
use crate::output::{count, print, print_json};
use crate::places;
use crate::report::{GcProgressReport, GcRunReport};
use crate::size::human;

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    dir: String,
    #[serde(flatten)]
    run: &'a GcRunReport,
}

/// Collects garbage, in the daemon of a mounted volume, or here where nobody has it.
pub(crate) fn run(args: &GcArgs) -> Result<(), Failure> {
    let place = places::find(&args.path)?;
    let request = GcRequest {
        threshold: args.threshold,
        max_seconds: args.max_duration.map(|most| most.as_secs_f64()),
    };
    let bar = Bar::new(!args.json);
    let run = match Client::connect(&place.dir)? {
        Some(mut daemon) => daemon.collect(&request, &mut |progress| show(&bar, progress)),
        None => here(&place.dir, &request, &bar),
    };
    bar.finish();
    let run = run?;
    let dir = place.dir.display().to_string();
    match args.json {
        true => print_json(&Document { message_type: "gc", schema_version: SCHEMA, dir, run: &run })?,
        false => print(&sentence(&dir, &run))?,
    }
    verdict(&place.dir, &run)
}

/// Collects in a volume that nobody has mounted.
fn here(dir: &Path, request: &GcRequest, bar: &Bar) -> Result<GcRunReport, Failure> {
    let interrupted = "interrupted: what was done is done, and the next run goes on";
    long_run::here(dir, false, interrupted, |volume, asked| {
        let mut tell = |progress: &GcProgress| {
            show(bar, &GcProgressReport::from(*progress));
            if asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let run = volume.gc(&request.options(), &mut tell).map_err(|e| failed(dir, &e))?;
        Ok(GcRunReport::from(run))
    })
}

fn show(bar: &Bar, progress: &GcProgressReport) {
    bar.show(&progress.step, progress.moved, progress.to_move);
}

fn failed(dir: &Path, error: &dyn std::fmt::Display) -> Failure {
    let dir = dir.display();
    Failure::new(format!("{dir}: garbage could not be collected: {error}; nothing is lost, see {dir}/log"))
}

/// What a run that could not do all it was asked exits with.
fn verdict(dir: &Path, run: &GcRunReport) -> Result<(), Failure> {
    let dir = dir.display();
    if run.stopped.as_deref() == Some("no-room") {
        return Err(Failure::new(format!(
            "{dir}: the disk has no room for a new pack beside the old ones: delete more, or free some room on the disk, and run it again"
        )));
    }
    if run.packs_unreadable > 0 {
        return Err(Failure::new(format!(
            "{dir}: {} could not be read and stay as they are: unmount, and `fsck.cairn -n {dir}` tells what is damaged",
            count(run.packs_unreadable, "pack", "packs")
        )));
    }
    Ok(())
}

fn sentence(dir: &str, run: &GcRunReport) -> String {
    let ended = ended(run.stopped.as_deref());
    format!(
        "{dir}: {} dropped, {} written in the place of {}; {} freed, packs take {} now.{ended}\n",
        count(run.packs_dropped, "pack", "packs"),
        run.packs_written,
        run.packs_compacted,
        human(run.bytes_freed),
        human(run.bytes_after),
    )
}

impl GcRequest {
    /// What the volume is asked.
    pub(crate) fn options(&self) -> GcOptions {
        let usual = GcOptions::default();
        GcOptions {
            threshold: self.threshold.unwrap_or(usual.threshold).clamp(1, 100),
            // Whoever speaks to the socket may say anything.
            max_duration: self.max_seconds.and_then(|most| Duration::try_from_secs_f64(most).ok()),
            ..usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::{GcReport, GcStop};

    #[test]
    fn a_sentence_tells_what_was_freed_and_whether_that_was_all() {
        let report = GcReport {
            packs_dropped: 3,
            packs_compacted: 2,
            packs_written: 1,
            bytes_dropped: 3 << 20,
            bytes_written: 1 << 20,
            bytes_after: 1 << 20,
            ..GcReport::default()
        };
        let run = GcRunReport::from(report);
        let told =
            "/v: 3 packs dropped, 1 written in the place of 2; 2.00 MiB freed, packs take 1.00 MiB now.\n";
        assert_eq!(sentence("/v", &run), told);
        assert!(verdict(Path::new("/v"), &run).is_ok());
        let stopped = |stop| GcRunReport::from(GcReport { stopped: Some(stop), ..report });
        assert!(sentence("/v", &stopped(GcStop::Time)).contains("the next run goes on"));
        assert!(verdict(Path::new("/v"), &stopped(GcStop::Time)).is_ok());
        assert_eq!(verdict(Path::new("/v"), &stopped(GcStop::NoRoom)).expect_err("full").code, 1);
    }

    #[test]
    fn whatever_is_asked_makes_options() {
        let of = |threshold, max_seconds| GcRequest { threshold, max_seconds }.options();
        assert_eq!(of(None, None), GcOptions::default());
        assert_eq!((of(Some(0), None).threshold, of(Some(255), None).threshold), (1, 100));
        assert_eq!(of(None, Some(f64::NAN)).max_duration, None);
        assert_eq!(of(None, Some(1.5)).max_duration, Some(Duration::from_millis(1500)));
    }
}
