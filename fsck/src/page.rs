//! A report, as a page.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_page::{Map, PackState, Page, Shown, Verdict};
use fsck_cairn::{Finding, Report, Severity};

use crate::output::{counted, said};

/// Findings that `-p` does away with: nothing is lost by them.
const MENDABLE: [&str; 12] = [
    "superblock-replica",
    "link-count",
    "parent",
    "beyond-end",
    "stored",
    "stored-share",
    "totals",
    "pack-count",
    "next-inode",
    "order",
    "directory-names",
    "name-kind",
];

/// What was found, drawn.
pub(crate) fn page(command: String, dir: &Path, report: &Report, took: Duration) -> Page {
    let made = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // As it was said it may mean another place to whoever reads it later.
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let picture = report.picture.clone().unwrap_or_default();
    let map = report.picture.is_some().then(|| Map::of(picture.packs, made));
    let verdict = match (report.is_clean(), report.corrected()) {
        (false, _) => Verdict::Damaged,
        (true, 1..) => Verdict::Corrected,
        (true, 0) if !report.checked => Verdict::NotLooked,
        (true, 0) => Verdict::Whole,
    };
    Page {
        command,
        version: env!("CARGO_PKG_VERSION").into(),
        dir: Shown::new(dir.as_os_str().as_bytes()),
        label: report.label.clone(),
        uuid: report.volume.clone(),
        made,
        seconds: took.as_secs_f64(),
        verdict,
        lost: report.findings.iter().any(|finding| is_lost(finding, map.as_ref())),
        sentence: sentence(verdict, report),
        notes: Vec::new(),
        totals: totals(report),
        findings: report.findings.iter().map(finding).collect(),
        more: report.findings.iter().any(|finding| finding.kind == "more"),
        savings: picture.savings,
        guarantee: picture.guarantee,
        map,
    }
}

/// Whether nothing brings it back by itself.
fn is_lost(finding: &Finding, map: Option<&Map>) -> bool {
    if finding.severity != Severity::Damage || finding.done.is_some() {
        return false;
    }
    let state = map.into_iter().flat_map(|map| &map.told).find(|pack| finding.pack == Some(pack.name()));
    let mendable =
        MENDABLE.contains(&finding.kind) || state.is_some_and(|pack| pack.state == PackState::Damaged);
    !mendable
}

fn sentence(verdict: Verdict, report: &Report) -> String {
    let files = counted(report.totals.files, "file");
    let packs = counted(report.totals.packs, "pack");
    let corrected = counted(report.corrected() as u64, "finding");
    match verdict {
        Verdict::Whole => {
            format!("Nothing is wrong with the volume: {files} in {packs}, each byte of them read.")
        }
        Verdict::Corrected => {
            format!("{corrected} corrected, and nothing is wrong any more: {files} in {packs}.")
        }
        Verdict::NotLooked => {
            "The volume was unmounted in order, and nobody noted damage: it was not gone through.".into()
        }
        Verdict::Damaged => {
            let left: Vec<_> = report
                .findings
                .iter()
                .filter(|finding| finding.severity == Severity::Damage && finding.done.is_none())
                .collect();
            let mut lost: Vec<_> =
                left.iter().filter(|finding| finding.kind == "lost-bytes").filter_map(|f| f.inode).collect();
            lost.sort_unstable();
            lost.dedup();
            let bytes = match lost.len() as u64 {
                0 => "no file is known to have lost bytes".to_string(),
                n => format!("bytes of {} are lost", counted(n, "file")),
            };
            let before = match report.corrected() {
                0 => String::new(),
                _ => format!("{corrected} corrected; "),
            };
            format!("{before}{} left, and {bytes}.", counted(left.len() as u64, "finding"))
        }
    }
}

fn totals(report: &Report) -> Vec<(&'static str, &'static str, u64)> {
    let t = &report.totals;
    match report.checked {
        false => Vec::new(),
        true => vec![
            ("inodes", "Inodes", t.inodes),
            ("files-gone-through", "Files among them", t.files),
            ("directories", "Directories", t.directories),
            ("pack-bytes", "Bytes of packs", t.pack_bytes),
            ("frames", "Frames decoded", t.frames),
            ("chunks", "Chunks held against their ids", t.chunks),
            ("journal-records", "Records of the journal", t.journal_records),
            ("engine-records", "Records of the engine", t.engine_records),
        ],
    }
}

fn finding(found: &Finding) -> cairn_page::Finding {
    let severity = match found.severity {
        Severity::Damage => cairn_page::Severity::Damage,
        Severity::Cache => cairn_page::Severity::Cache,
        Severity::Info => cairn_page::Severity::Note,
    };
    cairn_page::Finding {
        names: found.names.iter().map(|name| Shown::new(name)).collect(),
        inode: found.inode,
        ranges: found.offset.zip(found.length).into_iter().collect(),
        place: found.file.clone(),
        at: found.file_offset,
        pack: found.pack.clone(),
        advice: found.advice.map(str::to_string),
        done: found.done.map(|done| said(done).to_lowercase()),
        ..cairn_page::Finding::new(severity, found.kind, found.what.as_str())
    }
}
