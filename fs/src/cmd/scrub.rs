//! `cairn scrub`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use cairn_page::Shown;
use cairn_volume::{ScrubOptions, ScrubProgress, guarantee};
use serde::Serialize;

use super::long_run::{self, Bar, ended};
use crate::args::ScrubArgs;
use crate::control::{Client, ScrubRequest};
use crate::failure::{self, Failure};
use crate::output::{count, duration, print, print_json};
use crate::places::{self, Place};
use crate::report::{About, ScrubFileReport, ScrubProgressReport, ScrubRunReport, UsageReport, scrub_page};
use crate::size::human;

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// Damaged places, and files, that people are told.
const LISTED: usize = 20;
/// Places of one file that people are told.
const RANGES: usize = 4;

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    dir: String,
    #[serde(flatten)]
    run: &'a ScrubRunReport,
}

/// Scrubs, in the daemon of a mounted volume, or here where nobody has it.
pub(crate) fn run(args: &ScrubArgs) -> Result<(), Failure> {
    let place = places::find(&args.path)?;
    let page = args.report.as_deref().map(cairn_page::Place::new).transpose().map_err(Failure::new)?;
    let request = ScrubRequest {
        deep: args.deep,
        path: args.only.as_deref().map(|path| within(&place, path)),
        errors_only: args.errors_only,
        rate: args.rate,
        max_seconds: args.max_duration.map(|most| most.as_secs_f64()),
        look_only: args.no_repair,
        each_pack: page.is_some(),
    };
    let bar = Bar::new(!args.json);
    let done = match Client::connect(&place.dir)? {
        Some(daemon) => there(daemon, &request, &bar),
        None => here(&place.dir, &request, &bar),
    };
    bar.finish();
    let Done { run, usage, interrupted } = done?;
    let drawn = match &page {
        Some(page) => page.put(&cairn_page::render(&scrub_page(&run, about(&place.dir, &request, usage)))),
        None => Ok(()),
    };
    if let Some(interrupted) = interrupted {
        told(drawn);
        return Err(interrupted);
    }
    let dir = place.dir.display().to_string();
    match args.json {
        true => print_json(&Document { message_type: "scrub", schema_version: SCHEMA, dir, run: &run })?,
        false => print(&sentences(&dir, &run))?,
    }
    match verdict(&place.dir, &run) {
        Ok(()) => drawn.map_err(Failure::new),
        // What is lost is worse than a page that cannot be written.
        lost => {
            told(drawn);
            lost
        }
    }
}

/// A run that came to an end.
struct Done {
    run: ScrubRunReport,
    usage: Option<UsageReport>,
    /// Whether whoever asked for it had enough.
    interrupted: Option<Failure>,
}

/// Says why there is no page, where something else decides how the command ends.
fn told(drawn: Result<(), String>) {
    if let Err(why) = drawn {
        eprintln!("cairn: {why}");
    }
}

/// What a page says of the volume.
fn about(dir: &Path, request: &ScrubRequest, usage: Option<UsageReport>) -> About {
    let mut command = "cairn scrub".to_string();
    let options = [
        ("--deep", request.deep),
        ("--errors-only", request.errors_only),
        ("--no-repair", request.look_only),
    ];
    options.iter().filter(|(_, given)| *given).for_each(|(option, _)| command += &format!(" {option}"));
    if let Some(path) = &request.path {
        command += &format!(" --path {}", Shown::new(path.as_os_str().as_bytes()));
    }
    let superblock = cairn_volume::superblock(dir).ok();
    let pack_size = cairn_volume::pack_size(dir).ok();
    About {
        command,
        dir: Shown::new(dir.as_os_str().as_bytes()),
        label: superblock.as_ref().map(|found| found.label.clone()).unwrap_or_default(),
        uuid: superblock.as_ref().map(|found| found.uuid.to_string()),
        usage,
        guarantee: superblock.zip(pack_size).map(|(found, size)| guarantee(found.geometry.parity, size)),
    }
}

/// A path as the volume has it: from its root.
fn within(place: &Place, path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let inside = place.mountpoint.as_ref().and_then(|at| full.strip_prefix(at).ok());
    inside.unwrap_or(path).to_path_buf()
}

/// Has the daemon scrub.
fn there(mut daemon: Client, request: &ScrubRequest, bar: &Bar) -> Result<Done, Failure> {
    let run = daemon.scrub(request, &mut |progress| show(bar, progress))?;
    // A page without it is a page all the same.
    let usage = request.each_pack.then(|| daemon.ask("usage", "usage").ok()).flatten();
    Ok(Done { run, usage, interrupted: None })
}

/// Scrubs a volume that nobody has mounted.
fn here(dir: &Path, request: &ScrubRequest, bar: &Bar) -> Result<Done, Failure> {
    let interrupted = "interrupted: what was looked through is noted, and the next run goes on";
    let mut found = None;
    let ended = long_run::here(dir, request.look_only, interrupted, |volume, asked| {
        let mut tell = |progress: &ScrubProgress| {
            show(bar, &ScrubProgressReport::from(*progress));
            !asked()
        };
        let threads = available_parallelism().map_or(1, usize::from);
        let run = volume.scrub(&ScrubOptions { threads, ..request.options() }, &mut tell);
        let run = run.map(ScrubRunReport::from).map_err(|e| Failure::new(failed(dir, &e)))?;
        found = Some((run, UsageReport::from(volume.usage())));
        Ok(())
    });
    match (ended, found) {
        (Ok(()), Some((run, usage))) => Ok(Done { run, usage: Some(usage), interrupted: None }),
        (Err(e), Some((run, usage))) if e.code == failure::INTERRUPTED => {
            Ok(Done { run, usage: Some(usage), interrupted: Some(e) })
        }
        (Err(e), _) => Err(e),
        (Ok(()), None) => Err(Failure::new(failed(dir, &"nothing came of it"))),
    }
}

fn show(bar: &Bar, progress: &ScrubProgressReport) {
    bar.show(&progress.step, progress.bytes, progress.bytes_total);
}

/// That scrubbing itself failed.
pub(crate) fn failed(dir: &Path, error: &dyn std::fmt::Display) -> String {
    let dir = dir.display();
    format!("{dir}: it could not be scrubbed: {error}; see {dir}/log")
}

/// What a run that found what it could not correct exits with.
fn verdict(dir: &Path, run: &ScrubRunReport) -> Result<(), Failure> {
    if run.sectors_uncorrected == 0 {
        return Ok(());
    }
    let what = match run.files.len() {
        0 => "no file is known to have lost anything".to_string(),
        n => format!("{} lost bytes", count(n as u64, "file has", "files have")),
    };
    let dir = dir.display();
    Err(Failure {
        code: failure::PARTIAL,
        message: format!(
            "{dir}: {} damaged still, {what}: copy what can be read, and restore the rest; `fsck.cairn -n {dir}` (unmounted) tells more",
            count(run.sectors_uncorrected, "sector is", "sectors are"),
        ),
    })
}

fn sentences(dir: &str, run: &ScrubRunReport) -> String {
    let ended = ended(run.stopped.as_deref());
    let before = match run.packs_before {
        0 => String::new(),
        n => format!(" ({n} more by the run before)"),
    };
    let mut told = format!(
        "{dir}: {} of {} looked through{before}: {} in {}, {}/s.{ended}\n",
        run.packs,
        count(run.packs_total, "pack", "packs"),
        human(run.bytes),
        duration(run.seconds),
        human((run.bytes as f64 / run.seconds.max(0.001)) as u64),
    );
    told += &format!(
        "  {:<16} {:>12} {:>12} {:>12} {:>12}\n",
        "", "checked", "corrected", "uncorrected", "total"
    );
    told += &format!(
        "  {:<16} {:>12} {:>12} {:>12} {:>12}\n",
        "sectors of 4 KiB",
        run.sectors_checked,
        run.sectors_corrected,
        run.sectors_uncorrected,
        run.sectors_total
    );
    for damage in run.damage.iter().take(LISTED) {
        told += &format!(
            "  {}: {} at {}: {}\n",
            damage.file,
            count(damage.len, "byte", "bytes"),
            damage.offset,
            damage.reason
        );
    }
    run.files.iter().take(LISTED).for_each(|file| told += &lost(file));
    if run.more || run.damage.len() > LISTED || run.files.len() > LISTED {
        told += "  and more: see --json\n";
    }
    told
}

/// What of a file is lost.
pub(super) fn lost(file: &ScrubFileReport) -> String {
    // Names may hold anything, but a terminal must not obey them.
    let name = file.paths.first().map(|path| Shown::new(path.as_bytes()).to_string());
    let name = name.unwrap_or_else(|| format!("inode {}, without a name", file.inode));
    let mut ranges: Vec<_> =
        file.ranges.iter().take(RANGES).map(|(offset, len)| format!("{len} at {offset}")).collect();
    if file.more_ranges > 0 || file.ranges.len() > RANGES {
        ranges.push("and more".into());
    }
    format!("  lost: {name}: bytes {}\n", ranges.join(", "))
}

impl ScrubRequest {
    /// What the volume is asked.
    pub(crate) fn options(&self) -> ScrubOptions {
        ScrubOptions {
            deep: self.deep,
            path: self.path.as_ref().map(|path| path.as_os_str().as_bytes().to_vec()),
            errors_only: self.errors_only,
            // Whoever speaks to the socket may say anything.
            rate: self.rate.map(|megabytes| megabytes.clamp(1, 1 << 40).saturating_mul(1_000_000)),
            max_duration: self.max_seconds.and_then(|most| Duration::try_from_secs_f64(most).ok()),
            repair: !self.look_only,
            each_pack: self.each_pack,
            ..ScrubOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::{ScrubDamage, ScrubFile, ScrubReport, ScrubStop};

    #[test]
    fn sentences_tell_what_was_corrected_and_what_is_lost() {
        let report = ScrubReport {
            packs: 2,
            packs_total: 3,
            packs_before: 1,
            bytes: 5 << 20,
            checked: 1280,
            corrected: 7,
            uncorrected: 1,
            total: 2000,
            damage: vec![ScrubDamage {
                file: "store/packs/aa/x.pack".into(),
                offset: 4096,
                len: 4096,
                reason: "lost".into(),
            }],
            files: vec![ScrubFile {
                inode: 17,
                paths: vec!["/a/b\x1b[2J".into()],
                names: vec![b"/a/b\x1b[2J".to_vec()],
                ranges: vec![(10, 20), (50, 1)],
            }],
            took: Duration::from_secs(2),
            stopped: Some(ScrubStop::Time),
            ..ScrubReport::default()
        };
        let run = ScrubRunReport::from(report.clone());
        let told = sentences("/v", &run);
        for part in [
            "/v: 2 of 3 packs looked through (1 more by the run before): 5.00 MiB in 2.0 s, 2.50 MiB/s. The time is over",
            "checked    corrected  uncorrected        total",
            "1280            7            1         2000",
            "store/packs/aa/x.pack: 4096 bytes at 4096: lost",
            r"lost: /a/b\u{1b}[2J: bytes 20 at 10, 1 at 50",
        ] {
            assert!(told.contains(part), "'{part}' is not in: {told}");
        }
        let failed = verdict(Path::new("/v"), &run).expect_err("something is lost");
        assert_eq!(failed.code, failure::PARTIAL);
        assert!(failed.message.contains("1 file has lost bytes"), "{failed}");
        let whole = ScrubRunReport::from(ScrubReport { uncorrected: 0, ..report });
        assert!(verdict(Path::new("/v"), &whole).is_ok());
    }

    #[test]
    fn whatever_is_asked_makes_options() {
        let of = |rate, max_seconds| ScrubRequest { rate, max_seconds, ..ScrubRequest::default() }.options();
        assert_eq!(of(None, None), ScrubOptions::default());
        assert_eq!(of(Some(0), None).rate, Some(1_000_000));
        assert!(of(Some(u64::MAX), None).rate.is_some());
        assert_eq!(of(None, Some(f64::NAN)).max_duration, None);
        assert_eq!(of(None, Some(-1.0)).max_duration, None);
    }

    #[test]
    fn a_path_below_the_mountpoint_is_one_of_the_volume() {
        let place = Place { dir: "/srv/v".into(), mountpoint: Some("/mnt/v".into()) };
        assert_eq!(within(&place, Path::new("/mnt/v/a/b")), Path::new("a/b"));
        assert_eq!(within(&place, Path::new("/a/b")), Path::new("/a/b"));
        assert_eq!(within(&place, Path::new("no/such/place")), Path::new("no/such/place"));
    }
}
