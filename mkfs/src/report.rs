//! What was made, for people and for scripts.

use std::path::Path;

use cairn_volume::{AcrossDir, Made, ParityGeometry, guarantee, guarantee_across};
use serde::Serialize;

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// A volume that was made. Sizes are bytes.
#[derive(Serialize)]
pub(crate) struct Report {
    message_type: &'static str,
    schema_version: u32,
    dir: String,
    uuid: String,
    store_uuid: String,
    label: String,
    chunk_min: u32,
    chunk_avg: u32,
    chunk_max: u32,
    frame_size: u32,
    /// 0: not compressed.
    zstd_level: i32,
    parity_data: u8,
    parity_extra: u8,
    /// What that is good for, in words.
    parity_guarantee: String,
    /// Directories that have a second copy of every pack.
    parity_across: Vec<String>,
    pack_size: u64,
    journal_size: u64,
    segment_size: u32,
}

impl Report {
    /// What is told of `made` in `dir`.
    pub(crate) fn new(dir: &Path, made: &Made) -> Report {
        let options = &made.options;
        Report {
            message_type: "mkfs",
            schema_version: SCHEMA,
            dir: dir.display().to_string(),
            uuid: made.uuid.to_string(),
            store_uuid: made.store_uuid.to_string(),
            label: options.label.clone(),
            chunk_min: options.chunk_min,
            chunk_avg: options.chunk_avg,
            chunk_max: options.chunk_max,
            frame_size: options.frame,
            zstd_level: options.zstd_level,
            parity_data: options.parity_data,
            parity_extra: options.parity_extra,
            parity_guarantee: guarantee(
                ParityGeometry::new(options.parity_data, options.parity_extra),
                options.pack_size.into(),
            ),
            parity_across: options.across.iter().map(|dir| dir.display().to_string()).collect(),
            pack_size: options.pack_size.into(),
            journal_size: options.journal_size,
            segment_size: options.segment_size,
        }
    }

    /// One document, on a line.
    pub(crate) fn json(&self) -> Result<String, String> {
        Ok(serde_json::to_string(self).map_err(|e| e.to_string())? + "\n")
    }

    /// A line for each thing.
    pub(crate) fn text(&self) -> String {
        let label = if self.label.is_empty() { "none" } else { &self.label };
        let compression = match self.zstd_level {
            0 => "none".to_string(),
            level => format!("zstd, level {level}, in frames of {}", human(u64::from(self.frame_size))),
        };
        let chunks = [self.chunk_min, self.chunk_avg, self.chunk_max].map(|size| human(u64::from(size)));
        let across: Vec<AcrossDir> =
            self.parity_across.iter().map(|path| AcrossDir { path: path.clone(), missing: None }).collect();
        let across = guarantee_across(&across).map(|text| ("across", text));
        let rows = [
            ("UUID", self.uuid.clone()),
            ("store's UUID", self.store_uuid.clone()),
            ("label", label.to_string()),
            ("chunks", chunks.join(" / ")),
            ("compression", compression),
            ("parity", self.parity_guarantee.clone()),
            (
                "journal",
                format!(
                    "{} in segments of {}",
                    human(self.journal_size),
                    human(u64::from(self.segment_size))
                ),
            ),
        ];
        let mut text = format!("{}: a new cairn volume\n", self.dir);
        for (name, value) in rows.into_iter().chain(across) {
            text += &format!("  {name:<13} {value}\n");
        }
        text + &format!("Mount it with: cairn mount {} MOUNTPOINT\n", self.dir)
    }
}

/// In the largest unit that leaves a whole number: `32 KiB`, `512 MiB`, `1000 B`.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024 && value.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::{MakeOptions, Uuid};

    fn report() -> Report {
        let made = Made { uuid: Uuid([1; 16]), store_uuid: Uuid([2; 16]), options: MakeOptions::default() };
        Report::new(Path::new("/srv/v"), &made)
    }

    #[test]
    fn people_are_told_what_was_made() {
        let text = report().text();
        assert!(text.starts_with("/srv/v: a new cairn volume\n"), "{text}");
        assert!(text.contains("01010101-0101-0101-0101-010101010101"), "{text}");
        assert!(text.contains("KiB / "), "{text}");
        assert!(
            text.contains("parity        16+2: any 2 bad sectors of a pack; any hole up to 7.9 MiB"),
            "{text}"
        );
    }

    #[test]
    fn scripts_are_told_in_one_line_of_json() {
        let json = report().json().expect("serializes");
        assert_eq!(json.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            (value["schema_version"].as_u64(), value["message_type"].as_str()),
            (Some(1), Some("mkfs"))
        );
    }

    #[test]
    fn sizes_stay_exact() {
        assert_eq!(human(1000), "1000 B");
        assert_eq!(human(32 << 10), "32 KiB");
        assert_eq!(human(1536 << 10), "1536 KiB");
        assert_eq!(human(2 << 40), "2048 GiB");
    }
}
