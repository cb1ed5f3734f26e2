//! Whole pages: that they are well-formed whatever is on them, and hold what they were given. With `CAIRN_PAGES=DIR` the samples
//! are written there, to be looked at in a browser.

mod samples;
mod wellformed;

use cairn_page::{Finding, Map, Pack, PackState, Page, STATES, Severity, Shown, render};
use proptest::prelude::*;
use samples::{clean, damaged, large, pack};
use wellformed::{number, parse};

#[test]
fn sample_pages_are_well_formed_and_need_nothing_else() {
    for (name, page) in [("clean", clean()), ("damaged", damaged()), ("large", large(20_000))] {
        let html = render(&page);
        let parsed = parse(&html).unwrap_or_else(|why| panic!("{name}: {why}"));
        for forbidden in ["script", "link", "img", "iframe", "object"] {
            assert!(
                !parsed.elements.iter().any(|(element, _)| element == forbidden),
                "{name}: <{forbidden}>"
            );
        }
        for (element, attributes) in &parsed.elements {
            for attribute in attributes.keys() {
                let runs =
                    attribute.starts_with("on") || ["src", "href", "srcset"].contains(&attribute.as_str());
                assert!(!runs, "{name}: <{element} {attribute}>");
            }
        }
        assert!(!html.contains("url(") && !html.contains("@import"), "{name}: fetches something");
        assert!(html.len() < 2 << 20, "{name}: {} bytes", html.len());
        if let Some(dir) = std::env::var_os("CAIRN_PAGES") {
            std::fs::write(std::path::Path::new(&dir).join(format!("{name}.html")), &html).unwrap();
        }
    }
}

#[test]
fn the_numbers_of_a_page_are_those_it_was_given() {
    let page = damaged();
    let map = page.map.as_ref().unwrap();
    let parsed = parse(&render(&page)).unwrap();
    assert_eq!(number(&parsed, "packs-all"), map.packs());
    for (state, id) in STATES.into_iter().zip(["whole", "unseen", "healed", "damaged", "lost"]) {
        assert_eq!(number(&parsed, &format!("packs-{id}")), map.count(state), "{id}");
    }
    let left = page.findings.iter().filter(|f| f.done.is_none()).count() as u64;
    assert_eq!(number(&parsed, "findings-left"), left);
    assert_eq!(number(&parsed, "findings-all"), page.findings.len() as u64);
    assert_eq!(number(&parsed, "stored"), page.savings.unwrap().stored);
}

#[test]
fn hostile_names_are_text_that_can_be_told_apart() {
    let parsed = parse(&render(&damaged())).unwrap();
    for shown in [
        "/<script>alert(1)</script>",
        "/\"><img src=x onerror=alert(1)>",
        "/invoice\\u{202e}gpj.exe",
        "/two\\nlines",
        "/not UTF-8 \\xff\\xfe",
        "/a\\\\xff",
    ] {
        assert!(parsed.text.contains(shown), "{shown} is not on the page");
    }
}

#[test]
fn a_page_without_a_map_and_one_without_packs_say_so() {
    let parsed = |map| parse(&render(&Page { map, ..clean() })).unwrap().text;
    assert!(parsed(None).contains("They were not come to"));
    assert!(parsed(Some(Map::of(Vec::new(), 0))).contains("There are none"));
}

#[test]
fn lists_end_and_say_that_they_do() {
    let finding = |n: u64| Finding { inode: Some(n), ..Finding::new(Severity::Damage, "lost-bytes", "gone") };
    let packs: Vec<Pack> = (0..3_000).map(|n| pack(n, PackState::Lost)).collect();
    let page =
        Page { findings: (0..6_000).map(finding).collect(), map: Some(Map::of(packs, 0)), ..damaged() };
    let parsed = parse(&render(&page)).unwrap();
    assert!(parsed.text.contains("1,000 more are not on this page"), "files");
    assert!(parsed.text.contains("And 2,000 packs more."), "packs");
    assert_eq!(number(&parsed, "files-listed"), 6_000);
}

fn any_finding() -> impl Strategy<Value = Finding> {
    let bytes =
        || prop_oneof![any::<Vec<u8>>(), "[<>&\"'/a\\\\\u{202e}\\n]{0,20}".prop_map(String::into_bytes)];
    (bytes(), any::<String>(), any::<Option<String>>(), prop::bool::ANY).prop_map(
        |(name, what, done, of_file)| {
            let mut finding = Finding::new(Severity::Damage, what.clone(), what);
            match of_file {
                true => finding.names = vec![Shown::new(&name)],
                false => finding.place = Some(String::from_utf8_lossy(&name).into_owned()),
            }
            Finding { pack: done.clone(), advice: done.clone(), done, ..finding }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_on_a_page_is_text(
        findings in prop::collection::vec(any_finding(), 0..4), text in any::<String>(), dir in any::<Vec<u8>>()
    ) {
        let empty = Page { findings: Vec::new(), ..damaged() };
        let shape = |page: &Page| {
            let parsed = parse(&render(page)).map_err(TestCaseError::fail)?;
            Ok::<_, TestCaseError>(parsed.elements.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        let page = Page {
            label: text.clone(), sentence: text.clone(), command: text.clone(), version: text.clone(),
            uuid: Some(text.clone()), guarantee: Some(text.clone()), notes: vec![text], dir: Shown::new(&dir), ..empty.clone()
        };
        // What it says changes nothing of what it is made of.
        prop_assert_eq!(shape(&page)?.len(), shape(&Page { notes: vec![String::new()], ..empty })?.len());
        shape(&Page { findings, ..page })?;
    }
}
