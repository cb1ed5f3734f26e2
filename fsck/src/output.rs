//! A report, for people and for scripts.

use std::fmt::Write;
use std::time::Duration;

use fsck_cairn::{CheckTotals, Done, Finding, Report, Severity};
use serde::Serialize;

/// Version of the JSON document.
const SCHEMA: u32 = 2;

#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    dir: &'a str,
    volume: Option<&'a str>,
    label: &'a str,
    totals: &'a CheckTotals,
    findings: &'a [Finding],
    seconds: f64,
    /// Whether it was gone through: not where a volume says of itself that it is in order, and -f was not given.
    checked: bool,
    /// How many findings something was done about.
    corrected: usize,
    /// `clean`, `corrected` or `damaged`: whether nothing is wrong, nothing is any more, or something is still.
    result: &'static str,
}

/// One document, on a line.
pub(crate) fn json(dir: &str, report: &Report, took: Duration) -> Result<String, String> {
    let document = Document {
        message_type: "fsck",
        schema_version: SCHEMA,
        dir,
        volume: report.volume.as_deref(),
        label: &report.label,
        totals: &report.totals,
        findings: &report.findings,
        seconds: took.as_secs_f64(),
        checked: report.checked,
        corrected: report.corrected(),
        result: match (report.is_clean(), report.corrected()) {
            (false, _) => "damaged",
            (true, 0) => "clean",
            (true, _) => "corrected",
        },
    };
    Ok(serde_json::to_string(&document).map_err(|e| e.to_string())? + "\n")
}

/// A line for each finding, and one for the whole.
pub(crate) fn text(dir: &str, report: &Report, took: Duration, verbose: bool) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        out += &line(finding);
    }
    if verbose {
        out += &totals(&report.totals);
    }
    let t = &report.totals;
    let seconds = took.as_secs_f64();
    let corrected = match report.corrected() {
        0 => String::new(),
        n => format!("{} corrected, ", counted(n as u64, "finding")),
    };
    // Writing to a string does not fail.
    let _ = match report.count(Severity::Damage) {
        0 if !report.checked => {
            writeln!(out, "{dir}: clean: it was unmounted in order, and not gone through (-f does)")
        }
        0 => writeln!(
            out,
            "{dir}: {corrected}clean, {} files, {} in {}, checked in {seconds:.1} s",
            t.files,
            size(t.pack_bytes),
            counted(t.packs, "pack"),
        ),
        damaged => writeln!(out, "{dir}: {corrected}DAMAGED: {} left", counted(damaged as u64, "finding")),
    };
    out
}

fn line(finding: &Finding) -> String {
    let mut out = String::new();
    match finding.severity {
        Severity::Damage => {}
        Severity::Cache => out += "cache: ",
        Severity::Info => out += "note: ",
    }
    match (&finding.paths[..], finding.inode, &finding.file) {
        ([], Some(ino), _) => out += &format!("inode {ino}: "),
        ([], None, Some(file)) => {
            out += &printable(file);
            if let Some(at) = finding.file_offset {
                out += &format!(" at {at}");
            }
            out += ": ";
        }
        ([], None, None) => {}
        ([path], ..) => out += &format!("{}: ", printable(path)),
        ([path, others @ ..], ..) => {
            let others: Vec<_> = others.iter().map(|path| printable(path)).collect();
            out += &format!("{} (also {}): ", printable(path), others.join(", "));
        }
    }
    if let (Some(offset), Some(length)) = (finding.offset, finding.length) {
        out += &format!("{offset}..{}: ", offset.saturating_add(length));
    }
    out += &printable(&finding.what);
    let places: Vec<String> = [("chunk", &finding.chunk), ("pack", &finding.pack)]
        .into_iter()
        .filter_map(|(what, id)| Some(format!("{what} {}", id.as_ref()?)))
        .collect();
    if !places.is_empty() {
        out += &format!(" ({})", places.join(", "));
    }
    if let Some(advice) = finding.advice {
        out += &format!("; {advice}");
    }
    if let Some(done) = finding.done {
        out += &format!(": {}", said(done));
    }
    out.push('\n');
    out
}

/// What was done about a finding, in words.
pub(crate) fn said(done: Done) -> &'static str {
    match done {
        Done::Rewritten => "WRITTEN AGAIN",
        Done::Corrected => "CORRECTED",
        Done::Removed => "REMOVED",
        Done::Rebuilt => "MADE AGAIN",
        Done::Moved => "MOVED TO lost+found",
        Done::Folded => "FOLDED",
        Done::GivenUp => "GIVEN UP",
        Done::FellBack => "FELL BACK",
        Done::Zeroed => "ZEROED",
    }
}

fn totals(t: &CheckTotals) -> String {
    format!(
        "{} inodes: {} files with {}, {} directories\n\
         {} frames, {} chunks, {} plain, in {} of {}\n\
         {} of packs, {}\n\
         {} in the journal, {}\n\
         {} of the engine compared\n",
        t.inodes,
        t.files,
        size(t.logical),
        t.directories,
        t.frames,
        t.chunks,
        size(t.plain_bytes),
        counted(t.packs, "pack"),
        size(t.pack_bytes),
        if t.twins == 1 { "1 second copy".to_string() } else { format!("{} second copies", t.twins) },
        size(t.twin_bytes),
        counted(t.journal_records, "record"),
        size(t.journal_bytes),
        counted(t.engine_records, "record"),
    )
}

/// Names may hold anything, but a terminal must not obey them.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// `1 pack`, `2 packs`.
pub(crate) fn counted(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// As people read sizes: three digits, powers of 1000.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "bytes" || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}
