//! A picture of a volume: what `fsck.cairn --report` and `cairn scrub --report` found, as one HTML page that needs nothing
//! else.
//!
//! [`Page`] is what is shown, filled by whoever looked; [`render`] makes the page of it; [`Place`] puts it where it was asked for.
//! A package of its own, because both commands make the same page and nothing below them, nor `mkfs.cairn`, should carry it.
//!
//! Architecture Invariant: markup comes from the program's text only, by type (`html.rs`): what comes from a volume is
//! escaped on its way into the page, and there is no script that could run.

mod file;
mod html;
mod map;
mod next;
mod page;
mod render;
mod shown;
mod words;

pub use file::Place;
pub use map::{AGES, Cell, Map, Margin, Pack, PackState, STATES};
pub use page::{Finding, Page, Savings, Severity, Verdict};
pub use render::render;
pub use shown::Shown;
pub use words::{date, human};
