//! What deduplication and compression saved, and what protecting it takes.

use super::parts::{Bar, bars, section};
use crate::html::Html;
use crate::words::{human, percent, ratio};
use crate::{Page, Savings};

pub(super) fn savings(html: &mut Html, page: &Page) {
    let Some(savings) = &page.savings else { return };
    section(html, "savings", "Savings");
    html.markup("<dl class=\"tiles\">\n");
    let overhead = match percent(savings.parity, savings.stored.saturating_add(savings.metadata)) {
        Some(percent) => format!("{percent:.1}%"),
        None => "–".into(),
    };
    for (name, value) in [
        ("Deduplication", ratio(savings.logical, savings.unique)),
        ("Compression", ratio(savings.unique, savings.stored)),
        ("In all", ratio(savings.logical, savings.taken())),
        ("Parity, on top of what it protects", overhead),
    ] {
        html.markup("<div>").element("dt", name).element("dd", value).markup("</div>\n");
    }
    html.markup("</dl>\n");
    let rows = rows(savings);
    let most = rows.iter().map(|(.., bytes)| *bytes).max().unwrap_or(0);
    let drawn: Vec<_> = rows
        .iter()
        .map(|(name, class, bytes)| Bar {
            name: (*name).into(),
            share: percent(*bytes, most).unwrap_or(0.0),
            class,
            said: match percent(*bytes, savings.logical) {
                Some(percent) => format!("{}, {percent:.1}%", human(*bytes)),
                None => human(*bytes),
            },
        })
        .collect();
    bars(html, "Bytes, and their share of what the files hold", &drawn);
    html.markup("<p class=\"caption\">");
    for (id, bytes) in [
        ("logical", savings.logical),
        ("unique", savings.unique),
        ("stored", savings.stored),
        ("metadata", savings.metadata),
        ("parity", savings.parity),
        ("journal", savings.journal),
    ] {
        html.open("data", &[("id", &id), ("value", &bytes)]).close("data");
    }
    html.text(format_args!("{} hold {}.", human(savings.taken()), human(savings.logical)))
        .markup("</p>\n</section>\n");
}

fn rows(savings: &Savings) -> [(&'static str, &'static str, u64); 6] {
    [
        ("What the files hold", "b1", savings.logical),
        ("After deduplication", "b1", savings.unique),
        ("After compression", "b1", savings.stored),
        ("Metadata", "b2", savings.metadata),
        ("Parity", "b3", savings.parity),
        ("Waiting in the journal", "b4", savings.journal),
    ]
}
