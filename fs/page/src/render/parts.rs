//! What several parts of the page are made of.

use std::fmt::Display;

use crate::PackState;
use crate::html::Html;
use crate::words::grouped;

/// Opens a section; its end is whoever's who fills it.
pub(super) fn section(html: &mut Html, id: &'static str, title: &'static str) {
    let heading = format!("{id}-heading");
    html.open("section", &[("id", &id), ("aria-labelledby", &heading)]);
    html.open("h2", &[("id", &heading)]).text(title).close("h2").markup("\n");
}

/// A number that programs find by `id`.
pub(super) fn number(html: &mut Html, id: &dyn Display, value: u64) {
    html.open("data", &[("id", id), ("value", &value)]).text(grouped(value)).close("data");
}

/// The head of a list: what it is, and what its columns are called.
pub(super) fn head(html: &mut Html, caption: &'static str, columns: &[&'static str]) {
    html.markup("<div class=\"wide\"><table class=\"list\">")
        .element("caption", caption)
        .markup("\n<thead><tr>");
    for name in columns {
        html.open("th", &[("scope", &"col")]).text(name).close("th");
    }
    html.markup("</tr></thead>\n<tbody>\n");
}

/// Ends what [`head`] began.
pub(super) fn end(html: &mut Html) {
    html.markup("</tbody></table></div>\n");
}

/// A cell of a list, under the column `name`; on a narrow page that stands before it.
pub(super) fn cell(html: &mut Html, name: &'static str, fill: impl FnOnce(&mut Html)) {
    html.open("td", &[("data-name", &name)]).markup("<div>");
    fill(html);
    html.markup("</div></td>");
}

/// One that holds a number.
pub(super) fn figure(html: &mut Html, name: &'static str, value: impl Display) {
    html.open("td", &[("data-name", &name), ("class", &"n")]).element("div", value).close("td");
}

/// What people call a state.
pub(super) fn called(state: PackState) -> &'static str {
    match state {
        PackState::Whole => "healthy",
        PackState::Unseen => "not looked at",
        PackState::Healed => "healed",
        PackState::Damaged => "damaged, nothing lost",
        PackState::Lost => "lost bytes",
    }
}

/// The class that draws it, and part of ids.
pub(super) fn class(state: PackState) -> &'static str {
    match state {
        PackState::Whole => "whole",
        PackState::Unseen => "unseen",
        PackState::Healed => "healed",
        PackState::Damaged => "damaged",
        PackState::Lost => "lost",
    }
}

/// A state's sign and its name.
pub(super) fn badge(html: &mut Html, state: PackState) {
    html.markup("<span class=\"badge\">");
    html.open("i", &[("class", &class(state)), ("aria-hidden", &"true")]).close("i");
    html.text(called(state)).markup("</span>");
}

/// A row of bars: what it is called, its share of the longest in percent, how it is drawn, what is said behind it.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) share: f64,
    pub(super) class: &'static str,
    pub(super) said: String,
}

/// Bars below each other: a table, so that it reads without them.
pub(super) fn bars(html: &mut Html, caption: &'static str, bars: &[Bar]) {
    html.markup("<table class=\"bars\">").element("caption", caption).markup("<tbody>\n");
    for bar in bars {
        html.markup("<tr>").open("th", &[("scope", &"row")]).text(&bar.name).close("th");
        let width = format!("width:{:.2}%", bar.share.clamp(0.0, 100.0));
        html.markup("<td class=\"bar\" aria-hidden=\"true\">");
        if bar.share > 0.0 {
            html.open("i", &[("class", &bar.class), ("style", &width)]).close("i");
        }
        html.markup("</td>");
        html.element("td", &bar.said).markup("</tr>\n");
    }
    html.markup("</tbody></table>\n");
}

/// `12.3 s`, `5 min 10 s`, `3 h 20 min`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}
