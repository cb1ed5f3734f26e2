//! What a scrub found, as a page.

use cairn_page::{Finding, Map, PackState, Page, Savings, Severity, Shown, Verdict};

use super::{ScrubFileReport, ScrubRunReport, UsageReport};
use crate::control::now;
use crate::output::count;

/// What a page says of a volume beside what was found.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// The command and its options.
    pub(crate) command: String,
    /// The volume's directory.
    pub(crate) dir: Shown,
    /// Its label.
    pub(crate) label: String,
    /// Its UUID.
    pub(crate) uuid: Option<String>,
    /// What it holds and takes.
    pub(crate) usage: Option<UsageReport>,
    /// What its parity is good for.
    pub(crate) guarantee: Option<String>,
}

/// What a run found, drawn.
pub(crate) fn scrub_page(run: &ScrubRunReport, about: About) -> Page {
    Page {
        command: about.command,
        version: env!("CARGO_PKG_VERSION").into(),
        dir: about.dir,
        label: about.label,
        uuid: about.uuid,
        made: now(),
        seconds: run.seconds,
        verdict: verdict(run),
        lost: is_lost(run),
        sentence: sentence(run),
        notes: notes(run),
        totals: vec![
            ("looked-through", "Packs looked through", run.packs),
            ("sectors-checked", "Sectors of 4 KiB checked", run.sectors_checked),
            ("sectors-corrected", "Corrected", run.sectors_corrected),
            ("sectors-uncorrected", "Damaged still", run.sectors_uncorrected),
            ("sectors-total", "Sectors in all", run.sectors_total),
            ("chunks", "Chunks held against their ids", run.chunks),
            ("journal-records", "Records of the journal", run.journal_records),
            ("engine-values", "Values of the engine", run.engine_values),
        ],
        findings: findings(run),
        more: run.more,
        savings: about.usage.map(savings),
        guarantee: about.guarantee,
        map: run.map.clone(),
    }
}

fn verdict(run: &ScrubRunReport) -> Verdict {
    match (run.sectors_uncorrected, run.sectors_corrected, run.packs) {
        (1.., ..) => Verdict::Damaged,
        (0, 1.., _) => Verdict::Corrected,
        (0, 0, 0) if run.packs_total > 0 => Verdict::NotLooked,
        (0, 0, _) => Verdict::Whole,
    }
}

/// Whether parity does not reach, or nothing stands by for it.
fn is_lost(run: &ScrubRunReport) -> bool {
    let packs = run.map.as_ref().map_or(run.sectors_uncorrected, |map| map.count(PackState::Lost));
    packs > 0 || !run.files.is_empty() || run.damage.iter().any(|damage| kind(&damage.file) == "journal")
}

fn sentence(run: &ScrubRunReport) -> String {
    let corrected = match run.sectors_corrected {
        0 => String::new(),
        n => format!("{} right again", count(n, "sector was damaged and is", "sectors were damaged and are")),
    };
    let packs = count(run.packs, "pack that was", "packs that were");
    match verdict(run) {
        Verdict::Damaged => {
            let files = match run.files.len() as u64 {
                0 => "no file is known to have lost anything".to_string(),
                n => count(n, "file has lost bytes", "files have lost bytes"),
            };
            let left = count(run.sectors_uncorrected, "sector is", "sectors are");
            let before = if corrected.is_empty() { corrected } else { format!("{corrected}; ") };
            format!("{before}{left} damaged still, {files}.")
        }
        Verdict::Corrected => format!("{corrected}; nothing is lost of the {packs} looked through."),
        Verdict::NotLooked => "The run ended before it had looked through any pack.".into(),
        Verdict::Whole => format!("Nothing is wrong with the {packs} looked through."),
    }
}

fn notes(run: &ScrubRunReport) -> Vec<String> {
    let mut notes = Vec::new();
    if run.packs < run.packs_total {
        let why = match run.stopped.as_deref() {
            Some("time") => ": its time was over",
            Some(_) => ": it was stopped",
            None => "",
        };
        notes.push(format!(
            "The run looked through {} of the {} that it was about{why}. The next run goes on.",
            run.packs,
            count(run.packs_total, "pack", "packs")
        ));
    }
    if run.packs_before > 0 {
        notes.push(format!(
            "A run before it, which did not come to its end, had looked through {} already.",
            count(run.packs_before, "pack", "packs")
        ));
    }
    notes
}

fn findings(run: &ScrubRunReport) -> Vec<Finding> {
    let lost = run.files.iter().map(lost);
    let left = run.damage.iter().map(|damage| Finding {
        place: Some(damage.file.clone()),
        at: Some(damage.offset),
        len: Some(damage.len),
        ..Finding::new(Severity::Damage, kind(&damage.file), damage.reason.as_str())
    });
    lost.chain(left).chain(run.map.iter().flat_map(|map| corrected(run, map))).collect()
}

fn kind(file: &str) -> &'static str {
    match file {
        _ if file.contains("superblock") => "superblock",
        _ if file.starts_with("journal") => "journal",
        _ => "pack",
    }
}

fn lost(file: &ScrubFileReport) -> Finding {
    let names = match file.shown.is_empty() {
        // A daemon of another version tells no more.
        true => file.paths.iter().map(|path| Shown::new(path.as_bytes())).collect(),
        false => file.shown.clone(),
    };
    Finding {
        names,
        inode: Some(file.inode),
        ranges: file.ranges.clone(),
        more_ranges: file.more_ranges,
        ..Finding::new(
            Severity::Damage,
            "lost-bytes",
            "what holds these bytes is damaged, and parity does not reach",
        )
    }
}

/// What was written back, by pack; and what was beside packs.
fn corrected(run: &ScrubRunReport, map: &Map) -> Vec<Finding> {
    let finding = |kind: &str, sectors: u64| Finding {
        done: Some("written again".into()),
        ..Finding::new(
            Severity::Damage,
            kind,
            format!("{} damaged", count(sectors, "sector was", "sectors were")),
        )
    };
    let packs = map.told.iter().filter(|pack| pack.corrected > 0 && pack.state >= PackState::Healed);
    let in_packs: u64 = packs.clone().map(|pack| pack.corrected).sum();
    let mut all: Vec<_> = packs
        .map(|pack| Finding {
            place: Some(format!("store/packs/{:02x}/{}.pack", pack.id[15], pack.name())),
            pack: Some(pack.name()),
            ..finding("pack", pack.corrected)
        })
        .collect();
    let beside = run.sectors_corrected.saturating_sub(in_packs);
    if beside > 0 {
        let what = if map.untold == 0 { "beside-packs" } else { "more" };
        all.push(finding(what, beside));
    }
    all
}

fn savings(usage: UsageReport) -> Savings {
    let UsageReport { logical, unique, stored, metadata, parity, journal_used, .. } = usage;
    Savings { logical, unique, stored, metadata, parity, journal: journal_used }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::{
        Margin, PackId, ParityGeometry, ScrubDamage, ScrubFile, ScrubOutcome, ScrubPack, ScrubReport,
    };

    fn pack(number: u32, outcome: Option<ScrubOutcome>, seen: bool) -> ScrubPack {
        let margin = Margin { parity: ParityGeometry::new(16, 2), used: 1 };
        ScrubPack {
            pack: PackId::new(1, 1, number),
            len: 1 << 20,
            seen,
            outcome,
            verified: Some(1_795_000_000),
            corrected: u64::from(seen && outcome == Some(ScrubOutcome::Corrected)) * 3,
            uncorrected: u64::from(seen && outcome == Some(ScrubOutcome::Uncorrected)) * 5,
            margin: outcome.filter(|o| *o != ScrubOutcome::Whole).map(|_| margin),
        }
    }

    fn report() -> ScrubReport {
        let each_pack = vec![
            pack(1, Some(ScrubOutcome::Whole), true),
            pack(2, Some(ScrubOutcome::Corrected), true),
            pack(3, Some(ScrubOutcome::Uncorrected), true),
            pack(4, Some(ScrubOutcome::Damaged), false),
            pack(5, Some(ScrubOutcome::Whole), false),
            pack(6, None, false),
        ];
        ScrubReport {
            packs: 3,
            packs_total: 6,
            checked: 768,
            corrected: 4,
            uncorrected: 5,
            damage: vec![ScrubDamage {
                file: "store/packs/03/x.pack".into(),
                offset: 8192,
                len: 20_480,
                reason: "lost: parity does not reach".into(),
            }],
            files: vec![ScrubFile {
                inode: 9,
                paths: vec!["/a\u{fffd}".into()],
                names: vec![b"/a\xff".to_vec()],
                ranges: vec![(0, 4096)],
            }],
            each_pack,
            stopped: Some(cairn_volume::ScrubStop::Time),
            ..ScrubReport::default()
        }
    }

    #[test]
    fn a_page_says_what_the_report_says() {
        let page = scrub_page(&ScrubRunReport::from(report()), About::default());
        assert_eq!(page.verdict, Verdict::Damaged);
        assert_eq!(
            page.sentence,
            "4 sectors were damaged and are right again; 5 sectors are damaged still, 1 file has lost bytes."
        );
        assert_eq!(page.notes.len(), 1, "{:?}", page.notes);
        let map = page.map.as_ref().expect("packs were told");
        let counts =
            [PackState::Whole, PackState::Healed, PackState::Lost, PackState::Damaged, PackState::Unseen];
        assert_eq!(counts.map(|state| map.count(state)), [1, 1, 1, 1, 2]);
        assert_eq!((map.known, map.ages[0]), (1, 3));
        let kinds: Vec<_> = page.findings.iter().map(|f| (f.kind.as_str(), f.done.is_some())).collect();
        assert_eq!(kinds, [("lost-bytes", false), ("pack", false), ("pack", true), ("beside-packs", true)]);
        assert_eq!(page.findings[0].names[0].as_str(), r"/a\xff");
        let html = cairn_page::render(&page);
        assert!(html.contains(r"/a\xff") && html.contains("1 of 2"), "{html}");
    }

    #[test]
    fn a_run_that_found_nothing_is_whole_and_one_that_did_not_begin_is_not() {
        let whole = ScrubReport { packs: 2, packs_total: 2, ..ScrubReport::default() };
        assert_eq!(verdict(&whole.clone().into()), Verdict::Whole);
        assert_eq!(verdict(&ScrubReport { corrected: 1, ..whole.clone() }.into()), Verdict::Corrected);
        assert_eq!(verdict(&ScrubReport { packs: 0, ..whole }.into()), Verdict::NotLooked);
        assert_eq!(verdict(&ScrubReport::default().into()), Verdict::Whole);
    }
}
