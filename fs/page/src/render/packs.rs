//! The packs: a map of all, those that something is to be said of, margins, ages.

use std::collections::BTreeMap;

use super::parts::{Bar, badge, bars, called, cell, class, end, figure, head, number, section};
use crate::html::Html;
use crate::words::{count, date, grouped, human, percent};
use crate::{Cell, Map, Margin, Pack, Page, STATES};

/// Up to so many cells they are large, up to so many of middle size.
const LARGE: usize = 260;
const MIDDLE: usize = 1_400;

const AGES: [&str; crate::AGES] = [
    "in this run",
    "less than a day ago",
    "less than a week ago",
    "less than 30 days ago",
    "less than 90 days ago",
    "less than a year ago",
    "a year ago and more",
    "never, as far as known",
];

pub(super) fn packs(html: &mut Html, page: &Page) {
    section(html, "packs", "Packs");
    match &page.map {
        Some(map) if map.packs() > 0 => {
            legend(html, map);
            cells(html, map);
            told(html, map);
        }
        Some(_) => {
            html.markup("<p>There are none: nothing was folded yet.</p>\n");
        }
        None => {
            html.markup("<p>They were not come to.</p>\n");
        }
    }
    html.markup("</section>\n");
}

/// What cells mean, with how many there are.
fn legend(html: &mut Html, map: &Map) {
    html.markup("<p>");
    number(html, &"packs-all", map.packs());
    html.text(if map.packs() == 1 { " pack with " } else { " packs with " });
    html.open("data", &[("id", &"packs-bytes"), ("value", &map.bytes)]).text(human(map.bytes)).close("data");
    html.markup(".</p>\n<ul class=\"legend\">\n");
    for state in STATES {
        let none = if map.count(state) == 0 { "none" } else { "some" };
        html.open("li", &[("class", &none)]);
        html.open("i", &[("class", &class(state)), ("aria-hidden", &"true")]).close("i");
        html.markup("<span><strong>");
        number(html, &format_args!("packs-{}", class(state)), map.count(state));
        html.markup("</strong> ").text(called(state)).markup("</span></li>\n");
    }
    html.markup("</ul>\n");
    if map.known > 0 {
        html.markup("<p class=\"note\">");
        number(html, &"packs-known", map.known);
        html.text(" of the damaged ones are known from a run before; this one did not look at them.")
            .markup("</p>\n");
    }
}

fn cells(html: &mut Html, map: &Map) {
    let size = match map.cells.len() {
        cells if cells <= LARGE => "map large",
        cells if cells <= MIDDLE => "map middle",
        _ => "map small",
    };
    html.open("div", &[("class", &size), ("role", &"img"), ("aria-label", &in_words(map))]).markup("\n");
    for cell in &map.cells {
        html.open("i", &[("class", &class(cell.worst())), ("title", &said(cell))]).close("i");
    }
    html.markup("\n</div>\n<p class=\"caption\">In the order in which they were written, the oldest first. ");
    match map.packs_a_cell() {
        1 => html.text("Each cell is a pack."),
        some => html.text(format_args!("Each cell is {some} packs, and shows the worst of them.")),
    };
    html.markup("</p>\n");
}

/// The map for who does not see it.
fn in_words(map: &Map) -> String {
    let there = STATES.iter().filter(|state| map.count(**state) > 0);
    let all: Vec<_> =
        there.map(|state| format!("{} {}", grouped(map.count(*state)), called(*state))).collect();
    format!("Map of {}: {}.", count(map.packs(), "pack", "packs"), all.join("; "))
}

fn said(cell: &Cell) -> String {
    let what = match cell.packs() {
        1 => format!("pack {}: {}", hex(&cell.first), called(cell.worst())),
        packs => {
            let there = STATES.iter().zip(cell.states).filter(|(_, count)| *count > 0);
            let all: Vec<_> = there.map(|(state, count)| format!("{count} {}", called(*state))).collect();
            format!("{packs} packs from {}: {}", hex(&cell.first), all.join("; "))
        }
    };
    let verified = match cell.verified {
        Some(verified) => format!("looked through {}", day(verified)),
        None => "never looked through".into(),
    };
    format!("{what}; {}; {verified}", human(cell.bytes))
}

fn told(html: &mut Html, map: &Map) {
    if map.told.is_empty() {
        return;
    }
    let columns =
        ["Pack", "State", "Size", "Sectors corrected", "Sectors damaged", "Parity taken", "Looked through"];
    head(html, "Packs that something was wrong with", &columns);
    for pack in &map.told {
        row(html, pack);
    }
    end(html);
    if map.untold > 0 {
        html.markup("<p class=\"note\">And ")
            .text(count(map.untold, "pack", "packs"))
            .text(" more.")
            .markup("</p>\n");
    }
}

fn row(html: &mut Html, pack: &Pack) {
    html.markup("<tr>").open("th", &[("scope", &"row"), ("class", &"id")]).text(pack.name()).close("th");
    cell(html, "State", |html| {
        badge(html, pack.state);
        if !pack.seen {
            html.text(" (known from before)");
        }
    });
    figure(html, "Size", if pack.len == 0 { "missing".into() } else { human(pack.len) });
    figure(html, "Sectors corrected", grouped(pack.corrected));
    figure(html, "Sectors damaged", grouped(pack.uncorrected));
    cell(html, "Parity taken", |html| match &pack.margin {
        Some(margin) => units(html, margin),
        None => {
            html.text("–");
        }
    });
    figure(html, "Looked through", pack.verified.map_or_else(|| "never".into(), day));
    html.markup("</tr>\n");
}

/// What the parity is good for, and how near it was.
pub(super) fn margins(html: &mut Html, page: &Page) {
    section(html, "margins", "Margins");
    match &page.guarantee {
        Some(guarantee) => html.markup("<p id=\"guarantee\">Parity ").text(guarantee).markup(".</p>\n"),
        None => html.markup("<p>What the volume's parity is good for is not known.</p>\n"),
    };
    let told = page.map.iter().flat_map(|map| &map.told);
    let mut needed: BTreeMap<(u8, u8, u16), u64> = BTreeMap::new();
    for margin in told.filter_map(|pack| pack.margin) {
        let most = u16::from(margin.parity) + 1;
        *needed.entry((margin.data, margin.parity, margin.used.min(most))).or_default() += 1;
    }
    if needed.is_empty() {
        html.markup("<p>None of it was needed.</p>\n</section>\n");
        return;
    }
    let most = needed.values().copied().max().unwrap_or(0);
    let rows: Vec<_> = needed
        .iter()
        .map(|((data, parity, used), packs)| Bar {
            name: match *used > u16::from(*parity) {
                true => format!("{data}+{parity}: more than {parity}"),
                false => format!("{data}+{parity}: {used} of {parity}"),
            },
            share: percent(*packs, most).unwrap_or(0.0),
            class: if *used > u16::from(*parity) { "b5" } else { "b3" },
            said: count(*packs, "pack", "packs"),
        })
        .collect();
    bars(html, "Units of parity that damage took of a pack, where most of it meets", &rows);
    html.markup("</section>\n");
}

/// A box for each unit of parity, those that are taken filled; and the same in words.
fn units(html: &mut Html, margin: &Margin) {
    let (parity, used) = (u16::from(margin.parity), margin.used);
    html.markup("<span class=\"units\" aria-hidden=\"true\">");
    for unit in 0..parity.min(8) {
        let taken = match unit < used {
            true if used > parity => "over",
            true => "taken",
            false => "left",
        };
        html.open("i", &[("class", &taken)]).close("i");
    }
    html.markup("</span> ");
    match used > parity {
        true => html.text(format_args!("{used} where there are {parity}")),
        false => html.text(format_args!("{used} of {parity}")),
    };
}

/// When packs were last looked through.
pub(super) fn ages(html: &mut Html, page: &Page) {
    let Some(map) = page.map.as_ref().filter(|map| map.packs() > 0) else { return };
    section(html, "ages", "When packs were last looked through");
    let most = map.ages.iter().copied().max().unwrap_or(0);
    let rows: Vec<_> = AGES
        .iter()
        .zip(map.ages)
        .map(|(name, packs)| Bar {
            name: (*name).into(),
            share: percent(packs, most).unwrap_or(0.0),
            class: if *name == AGES[crate::AGES - 1] { "b4" } else { "b1" },
            said: count(packs, "pack", "packs"),
        })
        .collect();
    bars(html, "Packs by the time of their last whole check", &rows);
    html.markup("</section>\n");
}

fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `2026-11-21`
fn day(seconds: u64) -> String {
    let date = date(i64::try_from(seconds).unwrap_or(i64::MAX));
    date.split(' ').next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PackState;

    #[test]
    fn states_are_told_apart_by_word_and_class() {
        let of = |name: fn(PackState) -> &'static str| -> std::collections::BTreeSet<_> {
            STATES.into_iter().map(name).collect()
        };
        assert_eq!((of(called).len(), of(class).len()), (STATES.len(), STATES.len()));
        assert_eq!(day(1_795_237_998), "2026-11-21");
    }
}
