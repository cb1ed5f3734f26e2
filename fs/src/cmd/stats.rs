//! `cairn stats`.

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::args::StatsArgs;
use crate::control::Client;
use crate::failure::Failure;
use crate::hidden;
use crate::output::{count, date, duration, percent, print, print_json, rows};
use crate::places::{self, Place};
use crate::report::{HealEventReport, StatsReport, StatsTold};
use crate::size::human;

/// Version of the JSON documents.
const SCHEMA: u32 = 1;
/// Lines between two headings.
const HEADING_EVERY: u64 = 20;
/// Up to the line's begin, and clear what is below.
const CLEAR: &str = "\x1b[J";

/// What `--json` prints, once or a line for each interval.
#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    dir: &'a str,
    /// Seconds since 1970.
    time: f64,
    #[serde(flatten)]
    stats: &'a StatsReport,
    /// What was healed last, and could not be.
    heal_events: &'a [HealEventReport],
    /// `null` where nothing is known to compare with.
    per_second: Option<Rates>,
}

/// What was done in a second, on the average of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Rates {
    read_bytes: f64,
    written_bytes: f64,
    copied_bytes: f64,
    new_bytes: f64,
    deduped_bytes: f64,
    stored_bytes: f64,
    /// Of the look-ups in this interval, those that found theirs; `null` where there were none.
    cache_hit_ratio: Option<f64>,
}

/// Prints what a mounted volume did since it was mounted, once, or again and again with what it did in between.
pub(crate) fn run(args: &StatsArgs) -> Result<(), Failure> {
    let place = places::find(&args.path)?;
    let mut source = Source::of(&place)?;
    let dir = place.dir.display().to_string();
    let first = source.ask()?;
    let Some(interval) = args.interval else {
        return match args.json {
            true => print_json(&document(&dir, &first, None)),
            false => print(&(table(&dir, &first.stats, None) + &events(&first.heal_events))),
        };
    };
    let mut shown =
        Shown { dir: &dir, json: args.json, in_place: stdout().is_terminal(), lines: 0, times: 0 };
    let (mut last, mut since) = (first, Instant::now());
    while args.count.is_none_or(|count| shown.times < count) {
        thread::sleep(interval);
        let stats = source.ask()?;
        let now = Instant::now();
        let rates = Rates::between(&last.stats, &stats.stats, now - since);
        shown.show(&stats, rates)?;
        (last, since) = (stats, now);
    }
    Ok(())
}

/// Where the figures come from.
enum Source {
    Daemon(Client),
    /// The mount's own document, for those who may not ask the daemon.
    File(PathBuf),
}

impl Source {
    fn of(place: &Place) -> Result<Source, Failure> {
        match (Client::connect(&place.dir), &place.mountpoint) {
            (Ok(Some(daemon)), _) => Ok(Source::Daemon(daemon)),
            (Err(_), Some(mountpoint)) => Ok(Source::File(mountpoint.clone())),
            (Err(e), None) => Err(e),
            (Ok(None), Some(_)) => {
                Err(Failure::new(format!("the daemon of {} has died: mount it again", place.dir.display())))
            }
            (Ok(None), None) => {
                let hint = "nothing is done with it; `cairn df` and `cairn info` work without a mount";
                Err(places::not_mounted(&place.dir, hint))
            }
        }
    }

    fn ask(&mut self) -> Result<StatsTold, Failure> {
        match self {
            Source::Daemon(daemon) => daemon.ask("stats", "stats"),
            Source::File(mountpoint) => hidden::read(mountpoint, hidden::STATS, None),
        }
    }
}

impl Rates {
    fn between(before: &StatsReport, after: &StatsReport, time: Duration) -> Rates {
        // A daemon that was started anew counts from nothing.
        let grown = |of: fn(&StatsReport) -> u64| of(after).saturating_sub(of(before));
        let rate = |of| grown(of) as f64 / time.as_secs_f64().max(0.001);
        let (hits, misses) = (grown(|s| s.cache_hits), grown(|s| s.cache_misses));
        Rates {
            read_bytes: rate(|s| s.read_bytes),
            written_bytes: rate(|s| s.written_bytes),
            copied_bytes: rate(|s| s.copied_bytes),
            new_bytes: rate(|s| s.new_bytes),
            deduped_bytes: rate(|s| s.deduped_bytes),
            stored_bytes: rate(|s| s.stored_bytes),
            cache_hit_ratio: (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64),
        }
    }
}

fn document<'a>(dir: &'a str, told: &'a StatsTold, per_second: Option<Rates>) -> Document<'a> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
    let StatsTold { stats, heal_events } = told;
    Document { message_type: "stats", schema_version: SCHEMA, dir, time, stats, heal_events, per_second }
}

/// What was printed so far.
struct Shown<'a> {
    dir: &'a str,
    json: bool,
    /// On a terminal: one table that changes, instead of a line each time.
    in_place: bool,
    /// Lines that the table on the terminal has.
    lines: usize,
    times: u64,
}

impl Shown<'_> {
    fn show(&mut self, told: &StatsTold, rates: Rates) -> Result<(), Failure> {
        let first = self.times == 0;
        let heading = self.times.is_multiple_of(HEADING_EVERY);
        self.times += 1;
        if self.json {
            return print_json(&document(self.dir, told, Some(rates)));
        }
        let stats = &told.stats;
        if !self.in_place {
            return print(&format!(
                "{}{}",
                if heading { heading_line() } else { String::new() },
                line(stats, &rates)
            ));
        }
        let table = table(self.dir, stats, Some(&rates));
        let up = if first { String::new() } else { format!("\x1b[{}A{CLEAR}", self.lines) };
        self.lines = table.lines().count();
        print(&format!("{up}{table}"))
    }
}

fn heading_line() -> String {
    format!(
        "{:>12} {:>12} {:>12} {:>12} {:>12} {:>10} {:>7} {:>7} {:>6} {:>6}\n",
        "written/s",
        "read/s",
        "new/s",
        "deduped/s",
        "stored/s",
        "waiting",
        "journal",
        "overlay",
        "cache",
        "errors"
    )
}

fn line(stats: &StatsReport, rates: &Rates) -> String {
    let of = |rate: f64| human(rate as u64);
    let cache = rates.cache_hit_ratio.map_or("-".to_string(), |ratio| format!("{:.0}%", ratio * 100.0));
    format!(
        "{:>12} {:>12} {:>12} {:>12} {:>12} {:>10} {:>7} {:>7} {cache:>6} {:>6}\n",
        of(rates.written_bytes),
        of(rates.read_bytes),
        of(rates.new_bytes),
        of(rates.deduped_bytes),
        of(rates.stored_bytes),
        human(stats.backlog),
        percent(stats.journal_used, stats.journal_limit),
        percent(stats.overlay, stats.overlay_limit),
        stats.io_errors + stats.fold_errors
    )
}

fn table(dir: &str, stats: &StatsReport, rates: Option<&Rates>) -> String {
    let bytes = |total: u64, rate: fn(&Rates) -> f64| match rates {
        Some(rates) => format!("{:>10} {:>10}/s", human(total), human(rate(rates) as u64)),
        None => format!("{:>10}", human(total)),
    };
    let of = |part, whole| format!("{:>10} of {}", human(part), human(whole));
    let lookups = stats.cache_hits + stats.cache_misses;
    let lines = [
        (
            "written",
            format!(
                "{}  in {}",
                bytes(stats.written_bytes, |r| r.written_bytes),
                count(stats.writes, "write", "writes")
            ),
        ),
        (
            "read",
            format!(
                "{}  in {}",
                bytes(stats.read_bytes, |r| r.read_bytes),
                count(stats.reads, "read", "reads")
            ),
        ),
        ("copied", format!("{}  by reference", bytes(stats.copied_bytes, |r| r.copied_bytes))),
        ("folded, new", bytes(stats.new_bytes, |r| r.new_bytes)),
        ("folded, known", bytes(stats.deduped_bytes, |r| r.deduped_bytes)),
        (
            "stored",
            format!(
                "{}  in {}",
                bytes(stats.stored_bytes, |r| r.stored_bytes),
                count(stats.packs_written, "pack", "packs")
            ),
        ),
        ("waiting", format!("{:>10}  for {}", human(stats.backlog), duration(stats.backlog_age_seconds))),
        ("journal", of(stats.journal_used, stats.journal_limit)),
        ("overlay", of(stats.overlay, stats.overlay_limit)),
        (
            "cache",
            format!(
                "{:>10} of {} found",
                percent(stats.cache_hits, lookups),
                count(lookups, "look-up", "look-ups")
            ),
        ),
        (
            "read of packs",
            format!("{:>10}  decoded to {}", human(stats.chunk_bytes_read), human(stats.chunk_bytes_decoded)),
        ),
        (
            "index",
            format!("{:>10}  for {}", human(stats.index_mem), count(stats.index_chunks, "chunk", "chunks")),
        ),
        ("packs", format!("{:>10}", stats.packs)),
        ("fsyncs", format!("{:>10}", stats.fsyncs)),
        ("checkpoints", format!("{:>10}", stats.checkpoints)),
        (
            "collected",
            format!(
                "{:>10}  in {}, {} written for it",
                human(stats.dropped_bytes),
                count(stats.packs_dropped, "pack", "packs"),
                human(stats.compacted_bytes)
            ),
        ),
        (
            "errors",
            format!(
                "{:>10}  of reads and writes, {} of folds, {}",
                stats.io_errors,
                stats.fold_errors,
                count(stats.engine_rebuilds, "engine rebuilt", "engines rebuilt")
            ),
        ),
        (
            "damage",
            format!(
                "{:>10}  answered from parity, {} written back, {} to another place; {} lost; {} to be mended",
                count(stats.heals_answered, "read", "reads"),
                stats.heals_rewritten,
                count(stats.heals_relocated, "pack", "packs"),
                count(stats.heals_lost, "read", "reads"),
                count(stats.packs_waiting, "pack", "packs")
            ),
        ),
        (
            "twins",
            format!(
                "{:>10}  in {} of packs; {} to be made",
                human(stats.twin_bytes),
                count(stats.twins, "second copy", "second copies"),
                stats.twins_waiting
            ),
        ),
    ];
    format!("{dir}, since it was mounted\n{}", rows(lines))
}

/// What was healed last, for people; nothing where nothing was.
fn events(events: &[HealEventReport]) -> String {
    let line = |event: &HealEventReport| {
        let HealEventReport { time, pack, segment, offset, outcome, what } = event;
        let place = segment.clone().unwrap_or_else(|| format!("pack {pack}"));
        format!("  {}  {outcome:<9}  {place} at {offset}: {what}\n", date(*time as i64))
    };
    let lines: String = events.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\ndamage, the last of it\n{lines}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::Statistics;

    fn stats() -> StatsReport {
        let statistics = Statistics {
            writes: 1,
            written_bytes: 10 << 20,
            deduped_bytes: 4 << 20,
            cache_hits: 9,
            cache_misses: 1,
            journal_used: 1 << 20,
            journal_limit: 4 << 20,
            ..Statistics::default()
        };
        StatsReport::from(statistics)
    }

    #[test]
    fn rates_are_what_was_added_in_the_time_between() {
        let before = stats();
        let after = StatsReport { written_bytes: before.written_bytes + 1000, cache_hits: 12, ..before };
        let rates = Rates::between(&before, &after, Duration::from_millis(500));
        assert_eq!((rates.written_bytes, rates.read_bytes), (2000.0, 0.0));
        assert_eq!(rates.cache_hit_ratio, Some(1.0));
        // No time at all, and counts that began anew.
        let backwards = Rates::between(&after, &before, Duration::ZERO);
        assert_eq!((backwards.written_bytes, backwards.cache_hit_ratio), (0.0, None));
    }

    #[test]
    fn the_table_has_totals_and_in_time_rates() {
        let once = table("/v", &stats(), None);
        assert!(once.contains("written          10.0 MiB  in 1 write\n"), "{once}");
        assert!(once.contains("90.0% of 10 look-ups found\n") && !once.contains("/s"), "{once}");
        let rates = Rates::between(&stats(), &stats(), Duration::from_secs(1));
        let live = table("/v", &stats(), Some(&rates));
        assert!(live.contains("0 B/s") && live.lines().count() == once.lines().count(), "{live}");
    }

    #[test]
    fn a_line_lines_up_with_its_heading() {
        let rates = Rates::between(&stats(), &stats(), Duration::from_secs(1));
        assert_eq!(line(&stats(), &rates).len(), heading_line().len());
        assert!(line(&stats(), &rates).contains("25.0%"));
    }

    #[test]
    fn the_document_names_its_schema() {
        let event = HealEventReport {
            time: 1.5,
            pack: "p".into(),
            segment: None,
            offset: 7,
            outcome: "lost".into(),
            what: "bytes".into(),
        };
        let told = StatsTold { stats: stats(), heal_events: vec![event] };
        let json = serde_json::to_value(document("/srv/v", &told, None)).expect("serializes");
        assert_eq!(json["heal_events"][0]["outcome"].as_str(), Some("lost"));
        assert!(events(&told.heal_events).contains("lost       pack p at 7: bytes\n"));
        assert_eq!(events(&[]), "");
        let read: StatsTold = serde_json::from_value(json.clone()).expect("reads");
        assert_eq!(read, told);
        assert_eq!(
            (json["schema_version"].as_u64(), json["message_type"].as_str()),
            (Some(1), Some("stats"))
        );
        assert_eq!(json["deduped_bytes"].as_u64(), Some(4 << 20));
        assert!(json["per_second"].is_null());
    }
}
