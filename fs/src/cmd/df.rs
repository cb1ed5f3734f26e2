//! `cairn df`.

use serde::Serialize;
use serde_json::Value;

use crate::args::DfArgs;
use crate::control::Client;
use crate::failure::Failure;
use crate::hidden;
use crate::output::{percent, print, print_json};
use crate::places::{self, Place};
use crate::report::UsageReport;
use crate::size::human;

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    message_type: &'static str,
    schema_version: u32,
    dir: String,
    mountpoint: Option<String>,
    uuid: Option<String>,
    label: Option<String>,
    #[serde(flatten)]
    usage: UsageReport,
    /// Logical bytes to one of data, metadata and journal's backlog; `null` when there is nothing.
    ratio: Option<f64>,
}

/// Prints what a volume holds and what it takes, mounted or not.
pub(crate) fn run(args: &DfArgs) -> Result<(), Failure> {
    let document = measure(&places::find(&args.path)?)?;
    match args.json {
        true => print_json(&document),
        false => print(&table(&document)),
    }
}

/// Asks the daemon if there is one, and looks for itself otherwise.
fn measure(place: &Place) -> Result<Document, Failure> {
    let (usage, info) = match (Client::connect(&place.dir), &place.mountpoint) {
        (Ok(Some(mut daemon)), _) => (daemon.ask("usage", "usage")?, daemon.ask("info", "info")?),
        (Ok(None), _) => (UsageReport::from(cairn_volume::usage_offline(&place.dir)?), Value::Null),
        // The daemon answers its owner only, the mount whoever may enter it.
        (Err(_), Some(at)) => (hidden::read(at, hidden::STATS, Some("usage"))?, Value::Null),
        (Err(e), None) => return Err(e),
    };
    let text = |field: &str| info[field].as_str().map(str::to_string);
    Ok(Document {
        message_type: "df",
        schema_version: SCHEMA,
        dir: place.dir.display().to_string(),
        mountpoint: place.mountpoint.as_ref().map(|m| m.display().to_string()),
        uuid: text("uuid"),
        label: text("label"),
        ratio: ratio(&usage),
        usage,
    })
}

/// What everything takes for good: the journal's space is used again and again, so only its backlog counts.
fn takes(usage: &UsageReport) -> u64 {
    usage.stored + usage.metadata + usage.parity + usage.twins + usage.journal_used
}

fn ratio(usage: &UsageReport) -> Option<f64> {
    (takes(usage) > 0 && usage.logical > 0).then(|| usage.logical as f64 / takes(usage) as f64)
}

fn table(document: &Document) -> String {
    let usage = &document.usage;
    let mut text = document.dir.clone();
    if let Some(label) = document.label.as_ref().filter(|l| !l.is_empty()) {
        text += &format!(" ({label})");
    }
    text += &match &document.mountpoint {
        Some(mountpoint) => format!(", mounted at {mountpoint}"),
        None => ", not mounted".to_string(),
    };
    text += &format!("\n\n{:<20} {:>10}\n", "files", usage.files);
    let rows = [
        ("logical", usage.logical),
        ("after dedup", usage.unique),
        ("after compression", usage.stored),
        ("metadata", usage.metadata),
        ("parity", usage.parity),
        ("second copies", usage.twins),
        ("journal, in use", usage.journal_used),
    ];
    for (name, bytes) in rows {
        text += &format!("{name:<20} {:>10} {:>7}\n", human(bytes), percent(bytes, usage.logical));
    }
    if usage.reclaimable > 0 {
        text += &format!(
            "{:<20} {:>10} {:>7}\n",
            "reclaimable",
            human(usage.reclaimable),
            percent(usage.reclaimable, usage.logical)
        );
    }
    // Set aside once and used again and again: no share of what is stored.
    text += &format!("{:<20} {:>10}\n", "journal, on disk", human(usage.journal));
    if let Some(ratio) = document.ratio {
        text += &format!("\n{} hold {}: {ratio:.2} to 1\n", human(takes(usage)), human(usage.logical));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(usage: UsageReport) -> Document {
        Document {
            message_type: "df",
            schema_version: SCHEMA,
            dir: "/srv/v".into(),
            mountpoint: Some("/mnt".into()),
            uuid: None,
            label: Some("films".into()),
            ratio: ratio(&usage),
            usage,
        }
    }

    fn usage() -> UsageReport {
        UsageReport {
            files: 12,
            logical: 4 << 30,
            unique: 2 << 30,
            stored: 1 << 30,
            reclaimable: 0,
            metadata: 0,
            parity: 0,
            twins: 0,
            journal: 512 << 20,
            journal_used: 0,
        }
    }

    #[test]
    fn the_table_splits_what_is_saved() {
        let text = table(&document(usage()));
        assert!(text.starts_with("/srv/v (films), mounted at /mnt\n"), "{text}");
        assert!(text.contains("after dedup            2.00 GiB   50.0%"), "{text}");
        assert!(text.ends_with("1.00 GiB hold 4.00 GiB: 4.00 to 1\n"), "{text}");
    }

    #[test]
    fn what_can_be_had_back_is_told_where_there_is_some() {
        assert!(!table(&document(usage())).contains("reclaimable"));
        let text = table(&document(UsageReport { reclaimable: 512 << 20, ..usage() }));
        assert!(text.contains("reclaimable             512 MiB   12.5%\n"), "{text}");
    }

    #[test]
    fn an_empty_volume_has_no_ratio() {
        let empty = UsageReport { files: 0, logical: 0, unique: 0, stored: 0, ..usage() };
        assert_eq!(ratio(&empty), None);
        assert!(!table(&document(empty)).contains("to 1"));
    }

    #[test]
    fn the_document_names_its_schema() {
        let json = serde_json::to_value(document(usage())).expect("serializes");
        assert_eq!((json["schema_version"].as_u64(), json["message_type"].as_str()), (Some(1), Some("df")));
        assert_eq!(json["logical"].as_u64(), Some(4 << 30));
    }
}
