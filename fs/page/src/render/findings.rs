//! What was found: the files affected, and everything by kind.

use std::collections::BTreeMap;

use super::parts::{cell, end, figure, head, number, section};
use crate::html::Html;
use crate::words::{count, grouped};
use crate::{Finding, Page, Severity};

/// Rows of a table at most.
const ROWS_MAX: usize = 5_000;
/// Places of a file that a row names.
const RANGES: usize = 6;

/// The files that something is, or was, wrong with.
pub(super) fn files(html: &mut Html, page: &Page) {
    let affected: Vec<&Finding> = page.findings.iter().filter(|f| f.is_of_a_file()).collect();
    section(html, "files", "Affected files");
    if affected.is_empty() {
        html.markup("<p>None.</p>\n</section>\n");
        return;
    }
    html.markup("<p>");
    number(html, &"files-listed", affected.len() as u64);
    html.text(if affected.len() == 1 { " entry. " } else { " entries. " });
    html.prose(
        "In a path `\\` begins what cannot be shown as it is: `\\xff` is a byte, `\\u{202e}` a character.",
    );
    html.markup("</p>\n");
    let columns = ["Path", "Offset", "Length", "Why", "What was done"];
    head(html, "Files, with what is affected of them", &columns);
    affected.iter().take(ROWS_MAX).for_each(|finding| file(html, finding));
    end(html);
    more(html, affected.len().saturating_sub(ROWS_MAX), page.more);
    html.markup("</section>\n");
}

fn file(html: &mut Html, finding: &Finding) {
    html.markup("<tr>").open("th", &[("scope", &"row"), ("class", &"path")]);
    match (&finding.names[..], finding.inode) {
        ([], inode) => drop(html.text("inode ").text(inode.unwrap_or(0)).text(", without a name")),
        ([name, others @ ..], _) => {
            html.open("bdi", &[("dir", &"ltr")]).text(name).close("bdi");
            for other in others {
                html.markup("<br><span class=\"also\">also ").open("bdi", &[("dir", &"ltr")]).text(other);
                html.markup("</bdi></span>");
            }
        }
    }
    html.markup("</th>");
    let shown = finding.ranges.len().min(RANGES);
    let left = (finding.ranges.len() - shown) as u64 + finding.more_ranges;
    let lines = |html: &mut Html, of: fn(&(u64, u64)) -> u64| {
        for (at, range) in finding.ranges[..shown].iter().enumerate() {
            if at > 0 {
                html.markup("<br>");
            }
            html.text(of(range));
        }
        if finding.ranges.is_empty() {
            html.text("–");
        }
    };
    cell(html, "Offset", |html| lines(html, |range| range.0));
    cell(html, "Length", |html| {
        lines(html, |range| range.1);
        if left > 0 {
            html.markup("<br>").text(format_args!("and {}", count(left, "place more", "places more")));
        }
    });
    cell(html, "Why", |html| {
        html.text(&finding.what);
        if let Some(pack) = &finding.pack {
            html.markup(" <span class=\"id\">pack ").text(pack).markup("</span>");
        }
    });
    done(html, finding);
    html.markup("</tr>\n");
}

fn done(html: &mut Html, finding: &Finding) {
    cell(html, "What was done", |html| {
        match (&finding.done, &finding.advice) {
            (Some(done), _) => html.text(done),
            (None, Some(advice)) => html.text("nothing yet: ").text(advice),
            (None, None) => html.text("nothing"),
        };
    });
}

fn more(html: &mut Html, left_out: usize, beyond: bool) {
    if left_out > 0 || beyond {
        html.markup("<p class=\"note\">");
        if left_out > 0 {
            html.text(count(left_out as u64, "more is", "more are")).text(" not on this page: ");
        } else {
            html.text("There is more than was kept: ");
        }
        html.prose("see `--json`.").markup("</p>\n");
    }
}

/// Findings of a kind.
#[derive(Default)]
struct Kind {
    found: u64,
    done: u64,
    worst: Option<Severity>,
}

/// All findings: how many of each kind, and those that are about no file.
pub(super) fn kinds(html: &mut Html, page: &Page) {
    section(html, "findings", "Findings by kind");
    let mut kinds: BTreeMap<&str, Kind> = BTreeMap::new();
    for finding in &page.findings {
        let kind = kinds.entry(&finding.kind).or_default();
        kind.found += 1;
        kind.done += u64::from(finding.done.is_some());
        kind.worst = kind.worst.max(Some(finding.severity));
    }
    if kinds.is_empty() {
        html.markup("<p>Nothing was found.</p>\n</section>\n");
        return;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, kind)| std::cmp::Reverse((kind.found > kind.done, kind.worst, kind.found)));
    head(html, "How many of each kind", &["Kind", "How bad", "Found", "Corrected", "Left"]);
    let (mut found, mut done) = (0, 0);
    for (name, kind) in &kinds {
        html.markup("<tr>").open("th", &[("scope", &"row")]).text(name).close("th");
        cell(html, "How bad", |html| {
            html.text(severity(kind.worst));
        });
        figure(html, "Found", grouped(kind.found));
        figure(html, "Corrected", grouped(kind.done));
        figure(html, "Left", grouped(kind.found - kind.done));
        html.markup("</tr>\n");
        (found, done) = (found + kind.found, done + kind.done);
    }
    html.markup("</tbody>\n<tfoot><tr><th scope=\"row\">all</th><td></td>");
    for (name, id, n) in [
        ("Found", "findings-all", found),
        ("Corrected", "findings-corrected", done),
        ("Left", "findings-left", found - done),
    ] {
        cell(html, name, |html| number(html, &id, n));
    }
    html.markup("</tr></tfoot></table></div>\n");
    places(html, page);
    html.markup("</section>\n");
}

fn severity(severity: Option<Severity>) -> &'static str {
    match severity {
        Some(Severity::Damage) => "damage",
        Some(Severity::Cache) => "a cache",
        Some(Severity::Note) | None => "a note",
    }
}

/// Where in the volume's own files.
fn places(html: &mut Html, page: &Page) {
    let places: Vec<&Finding> = page.findings.iter().filter(|f| !f.is_of_a_file()).collect();
    if places.is_empty() {
        return;
    }
    head(html, "Places in the volume's own files", &["File", "Offset", "What", "What was done"]);
    for finding in places.iter().take(ROWS_MAX) {
        let place = finding.place.as_deref().unwrap_or("–");
        html.markup("<tr>").open("th", &[("scope", &"row"), ("class", &"path")]).text(place).close("th");
        match finding.at {
            Some(at) => figure(html, "Offset", at),
            None => figure(html, "Offset", "–"),
        }
        cell(html, "What", |html| {
            if let Some(len) = finding.len {
                html.text(count(len, "byte", "bytes")).text(": ");
            }
            html.text(&finding.what);
        });
        done(html, finding);
        html.markup("</tr>\n");
    }
    end(html);
    more(html, places.len().saturating_sub(ROWS_MAX), page.more);
}
