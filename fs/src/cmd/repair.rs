//! `cairn repair`.

use std::ops::ControlFlow;
use std::path::Path;
use std::thread::available_parallelism;

use cairn_volume::{Finds, RefillOptions, RefillProgress, Seeker, Wanted};
use serde::Serialize;

use super::long_run::{self, Bar};
use super::scrub::lost;
use crate::args::RepairArgs;
use crate::control::{Client, RepairRequest};
use crate::failure::{self, Failure};
use crate::output::{count, duration, print, print_json};
use crate::places;
use crate::report::{RepairProgressReport, RepairRunReport};
use crate::size::human;
use crate::sources::{self, Source};

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// Files that people are told.
const LISTED: usize = 20;

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    dir: String,
    #[serde(flatten)]
    run: &'a RepairRunReport,
}

/// Has lost data back: the daemon of a mounted volume stores what is found here, or this process does where nobody has it.
pub(crate) fn run(args: &RepairArgs) -> Result<(), Failure> {
    let place = places::find(&args.path)?;
    let request = RepairRequest { deep: args.deep, errors_only: args.errors_only, dry_run: args.dry_run };
    let sources = sources::find(&args.from, &place.dir)?;
    let bar = Bar::new(!args.json);
    let run = match Client::connect(&place.dir)? {
        Some(mut daemon) => daemon.repair(&request, &mut |at| show(&bar, at), &mut |wanted, send| {
            search(wanted, &sources, &bar, send)
        }),
        None => here(&place.dir, &request, &sources, &bar),
    };
    bar.finish();
    let run = run?;
    let dir = place.dir.display().to_string();
    match args.json {
        true => print_json(&Document { message_type: "repair", schema_version: SCHEMA, dir, run: &run })?,
        false => print(&sentences(&dir, &run))?,
    }
    verdict(&place.dir, &run)
}

/// Looks for what is wanted; each chunk that is found goes to `send`, which says whether to go on.
fn search(wanted: Wanted, sources: &[Source], bar: &Bar, send: &mut dyn FnMut(&[u8]) -> bool) {
    let mut seeker = Seeker::new(wanted);
    let mut found = Found { send, bar, of: seeker.left(), chunks: 0, bytes: 0 };
    found.show();
    // Who broke it off knows why.
    let _ = sources::look(sources, &mut seeker, &mut found);
}

struct Found<'a> {
    send: &'a mut dyn FnMut(&[u8]) -> bool,
    bar: &'a Bar,
    of: usize,
    chunks: usize,
    bytes: u64,
}

impl Found<'_> {
    fn show(&self) {
        let of = count(self.of as u64, "chunk", "chunks");
        self.bar.tell(&format!("{} of {of} found, {} looked through", self.chunks, human(self.bytes)));
    }

    fn go_on(more: bool) -> ControlFlow<()> {
        if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

impl Finds for Found<'_> {
    fn found(&mut self, plain: &[u8]) -> ControlFlow<()> {
        self.chunks += 1;
        self.show();
        Found::go_on((self.send)(plain))
    }

    fn looked(&mut self, bytes: u64) -> ControlFlow<()> {
        self.bytes += bytes;
        self.show();
        // An empty chunk is none: it is how it is asked whether to go on.
        Found::go_on((self.send)(&[]))
    }
}

/// Repairs a volume that nobody has mounted.
fn here(
    dir: &Path,
    request: &RepairRequest,
    sources: &[Source],
    bar: &Bar,
) -> Result<RepairRunReport, Failure> {
    let interrupted = "interrupted: what was found is stored, and the next run goes on";
    long_run::here(dir, request.dry_run, interrupted, |volume, asked| {
        let mut tell = |progress: &RefillProgress| {
            show(bar, &RepairProgressReport::from(*progress));
            true
        };
        let threads = available_parallelism().map_or(1, usize::from);
        let options = RefillOptions { threads, ..request.options() };
        let failed = |error| Failure::new(failed(dir, &error));
        let begun = volume.refill(&options, &mut |at| tell(at) && !asked());
        let mut refill = begun.map_err(failed)?;
        while let Some(wanted) = refill.next(&mut tell).map_err(failed)? {
            let mut refused = None;
            search(wanted, sources, bar, &mut |plain| {
                if !plain.is_empty()
                    && let Err(error) = refill.offer(plain)
                {
                    refused = Some(error);
                }
                refused.is_none() && !asked()
            });
            refused.map_or(Ok(()), Err).map_err(failed)?;
            if asked() {
                break;
            }
        }
        refill.finish(&mut tell).map(|report| RepairRunReport::of(report, request.dry_run)).map_err(failed)
    })
}

fn show(bar: &Bar, progress: &RepairProgressReport) {
    bar.show(&progress.step, progress.bytes, progress.bytes_total);
}

/// That having lost data back itself failed.
pub(crate) fn failed(dir: &Path, error: &dyn std::fmt::Display) -> String {
    let dir = dir.display();
    format!("{dir}: it could not be repaired: {error}; what was found before is kept; see {dir}/log")
}

/// What a run after which something is lost exits with.
fn verdict(dir: &Path, run: &RepairRunReport) -> Result<(), Failure> {
    if run.files.is_empty() && !run.more {
        return Ok(());
    }
    let dir = dir.display();
    let what = match run.dry_run {
        true => "would still be lost",
        false => "is still lost",
    };
    let files = count(run.files.len() as u64, "file", "files");
    Err(Failure {
        code: failure::PARTIAL,
        message: format!(
            "{dir}: something of {files} {what}: name more copies with --from; what is nowhere, `fsck.cairn -y` tells what to do about"
        ),
    })
}

fn sentences(dir: &str, run: &RepairRunReport) -> String {
    let took = duration(run.seconds);
    if run.chunks_lost == 0 && run.packs_damaged == 0 {
        return format!("{dir}: nothing is lost; looked through in {took}.\n");
    }
    let mut told = format!(
        "{dir}: {} of {} lost, {} in {}; {} damaged or missing; {took}.\n",
        count(run.chunks_lost, "chunk", "chunks"),
        count(run.files_lost, "file was", "files were"),
        human(run.bytes_lost),
        count(run.places_lost, "place", "places"),
        count(run.packs_damaged, "pack", "packs"),
    );
    let found = run.chunks_found + run.chunks_known;
    told += &format!("  found     {} of {}", found, run.chunks_lost);
    if run.chunks_known > 0 {
        told += &format!(", {} in the store itself", run.chunks_known);
    }
    told.push('\n');
    if run.dry_run {
        told += "  nothing was changed\n";
    } else {
        told += &format!(
            "  stored    {}, {} in {}\n",
            count(run.chunks_stored, "chunk", "chunks"),
            human(run.bytes_stored),
            count(run.packs_written, "pack", "packs"),
        );
        told += &format!(
            "  refilled  {}; {} dropped\n",
            count(run.places_refilled, "place", "places"),
            count(run.packs_dropped, "damaged pack", "damaged packs"),
        );
    }
    run.files.iter().take(LISTED).for_each(|file| told += &lost(file));
    if run.more || run.files.len() > LISTED {
        told += "  and more: see --json\n";
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::{RefillReport, ScrubFile};
    use std::time::Duration;

    #[test]
    fn sentences_tell_what_was_lost_what_is_back_and_what_is_not() {
        let report = RefillReport {
            packs_damaged: 1,
            chunks_lost: 5,
            places_lost: 7,
            bytes_lost: 3 << 20,
            files_lost: 2,
            chunks_known: 1,
            chunks_found: 3,
            chunks_stored: 3,
            bytes_stored: 2 << 20,
            packs_written: 1,
            places_refilled: 6,
            files: vec![ScrubFile {
                inode: 9,
                paths: vec!["/a/b".into()],
                names: vec![b"/a/b".to_vec()],
                ranges: vec![(10, 20)],
            }],
            took: Duration::from_secs(2),
            ..RefillReport::default()
        };
        let run = RepairRunReport::of(report.clone(), false);
        let told = sentences("/v", &run);
        for part in [
            "/v: 5 chunks of 2 files were lost, 3.00 MiB in 7 places; 1 pack damaged or missing; 2.0 s.",
            "found     4 of 5, 1 in the store itself",
            "stored    3 chunks, 2.00 MiB in 1 pack",
            "refilled  6 places; 0 damaged packs dropped",
            "lost: /a/b: bytes 20 at 10",
        ] {
            assert!(told.contains(part), "'{part}' is not in: {told}");
        }
        let failed = verdict(Path::new("/v"), &run).expect_err("something is lost");
        assert_eq!(failed.code, failure::PARTIAL);
        assert!(failed.message.contains("1 file is still lost"), "{failed}");
        let looked = sentences("/v", &RepairRunReport::of(report.clone(), true));
        assert!(looked.contains("nothing was changed") && !looked.contains("stored  "), "{looked}");
        let whole = RepairRunReport::of(RefillReport { files: Vec::new(), ..report }, false);
        assert!(verdict(Path::new("/v"), &whole).is_ok());
        let nothing = sentences("/v", &RepairRunReport::of(RefillReport::default(), false));
        assert!(nothing.contains("nothing is lost"), "{nothing}");
    }
}
