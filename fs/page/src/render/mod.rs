//! The page: what to know first comes first.

mod findings;
mod packs;
mod parts;
mod savings;

use crate::html::Html;
use crate::next;
use crate::words::{date, grouped};
use crate::{Page, Verdict};
use parts::section;

/// The page as HTML.
pub fn render(page: &Page) -> String {
    let mut html = Html::new();
    html.markup("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    // Nothing is fetched and nothing runs, whatever is on the page.
    html.markup(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
    );
    html.markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.markup("<meta name=\"color-scheme\" content=\"light dark\">\n");
    html.open("title", &[]).text(name(page)).text(": ").text(word(page.verdict)).close("title");
    html.markup("\n<style>\n").markup(include_str!("../style.css")).markup("</style>\n</head>\n<body>\n");
    head(&mut html, page);
    html.markup("<main>\n");
    what_to_do(&mut html, page);
    findings::files(&mut html, page);
    packs::packs(&mut html, page);
    findings::kinds(&mut html, page);
    packs::margins(&mut html, page);
    packs::ages(&mut html, page);
    savings::savings(&mut html, page);
    gone_through(&mut html, page);
    html.markup("</main>\n<footer>Made by ").text(&page.command).text(", cairn ").text(&page.version);
    html.markup(". This page needs no other file and no network.</footer>\n</body>\n</html>\n");
    html.finish()
}

/// The label, or where there is none the directory.
fn name(page: &Page) -> &str {
    match page.label.is_empty() {
        true => page.dir.as_str(),
        false => &page.label,
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Whole => "whole",
        Verdict::Corrected => "corrected",
        Verdict::Damaged => "damaged",
        Verdict::NotLooked => "not looked at",
    }
}

fn head(html: &mut Html, page: &Page) {
    html.markup("<header>\n");
    html.markup("<p class=\"eyebrow\">")
        .text(&page.command)
        .markup("</p>\n<h1>")
        .text(name(page))
        .markup("</h1>\n");
    let (class, sign) = match page.verdict {
        Verdict::Whole => ("verdict whole", "✓"),
        Verdict::Corrected => ("verdict healed", "+"),
        Verdict::Damaged => ("verdict lost", "×"),
        Verdict::NotLooked => ("verdict unseen", "?"),
    };
    html.open("div", &[("class", &class)]);
    html.open("span", &[("class", &"sign"), ("aria-hidden", &"true")]).text(sign).close("span");
    html.open("p", &[("id", &"verdict")]).element("strong", word(page.verdict)).markup("<br>");
    html.text(&page.sentence).markup("</p></div>\n");
    for note in &page.notes {
        html.markup("<p class=\"note\">").text(note).markup("</p>\n");
    }
    html.markup("<dl class=\"facts\">\n");
    let mut fact = |name: &'static str, value: String| {
        html.markup("<div>").element("dt", name).element("dd", value).markup("</div>\n");
    };
    fact("Directory", page.dir.to_string());
    fact("UUID", page.uuid.clone().unwrap_or_else(|| "cannot be read".into()));
    fact("Date", date(i64::try_from(page.made).unwrap_or(i64::MAX)));
    fact("Took", parts::duration(page.seconds));
    fact("Version", format!("cairn {}", page.version));
    html.markup("</dl>\n</header>\n");
}

fn what_to_do(html: &mut Html, page: &Page) {
    section(html, "next", "What to do next");
    let steps = next::steps(page);
    if let [step] = steps {
        html.markup("<p>").prose(step).markup("</p>\n");
    } else {
        html.markup("<ol>\n");
        for step in steps {
            html.markup("<li>").prose(step).markup("</li>\n");
        }
        html.markup("</ol>\n");
    }
    html.markup("</section>\n");
}

fn gone_through(html: &mut Html, page: &Page) {
    if page.totals.is_empty() {
        return;
    }
    section(html, "totals", "What was gone through");
    html.markup("<dl class=\"facts\">\n");
    for (id, name, value) in &page.totals {
        html.markup("<div>").element("dt", name).markup("<dd>");
        html.open("data", &[("id", id), ("value", value)]).text(grouped(*value)).close("data");
        html.markup("</dd></div>\n");
    }
    html.markup("</dl>\n</section>\n");
}
