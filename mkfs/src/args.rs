//! The command line, and what its values look like.

use std::path::PathBuf;

use cairn_volume::{MakeOptions, Uuid};
use clap::Parser;

/// Make a cairn volume in a directory.
///
/// DIR is made if it does not exist; otherwise it has to be empty, or with -f to hold a volume that is not mounted. Mount
/// the volume with `cairn mount DIR MOUNTPOINT`. Sizes may have a unit: 8K, 1M, 2G. Exit codes: 0 made, 1 not made,
/// 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "mkfs.cairn", version)]
pub(crate) struct Args {
    /// The directory to make the volume in.
    pub(crate) dir: PathBuf,
    /// The volume's name, for people.
    #[arg(short = 'L', long, value_name = "NAME")]
    label: Option<String>,
    /// The volume's UUID; random if not given.
    #[arg(short = 'U', long, value_parser = parse_uuid)]
    uuid: Option<Uuid>,
    /// Replace the volume in DIR, and everything in it.
    #[arg(short, long)]
    force: bool,
    /// Print nothing.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    /// How long chunks are: the least, the average, the most.
    #[arg(long, value_name = "MIN/AVG/MAX", value_parser = parse_chunk_sizes)]
    chunk_size: Option<ChunkSizes>,
    /// Bytes that are compressed together.
    #[arg(long, value_name = "SIZE", value_parser = parse_size_u32)]
    frame_size: Option<u32>,
    /// zstd, zstd:LEVEL or none.
    #[arg(long, value_name = "METHOD", value_parser = parse_compression)]
    compress: Option<i32>,
    /// Parity: M units for each K of data, as in 16+2; none for none.
    #[arg(long, value_name = "K+M", value_parser = parse_parity)]
    parity: Option<Parity>,
    /// Directories on other disks, empty ones: every pack is to have a second copy in one of them, so that all that was
    /// checkpointed outlives the loss of DIR, or of them. It cannot be said later.
    #[arg(long, value_name = "DIR,DIR", value_delimiter = ',')]
    parity_across: Vec<PathBuf>,
    /// The most that the journal may take.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    journal_size: Option<u64>,
    /// The length of each of the journal's files.
    #[arg(long, value_name = "SIZE", value_parser = parse_size_u32)]
    segment_size: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChunkSizes {
    min: u32,
    avg: u32,
    max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parity {
    data: u8,
    extra: u8,
}

impl Args {
    /// What to make: the volume crate's defaults where nothing was said.
    pub(crate) fn to_options(&self) -> MakeOptions {
        let mut options = MakeOptions { uuid: self.uuid, force: self.force, ..MakeOptions::default() };
        if let Some(label) = &self.label {
            options.label.clone_from(label);
        }
        if let Some(sizes) = self.chunk_size {
            (options.chunk_min, options.chunk_avg, options.chunk_max) = (sizes.min, sizes.avg, sizes.max);
        }
        if let Some(parity) = self.parity {
            (options.parity_data, options.parity_extra) = (parity.data, parity.extra);
        }
        options.across.clone_from(&self.parity_across);
        options.frame = self.frame_size.unwrap_or(options.frame);
        options.zstd_level = self.compress.unwrap_or(options.zstd_level);
        options.journal_size = self.journal_size.unwrap_or(options.journal_size);
        options.segment_size = self.segment_size.unwrap_or(options.segment_size);
        options
    }
}

fn parse_uuid(text: &str) -> Result<Uuid, String> {
    let uuid = uuid::Uuid::parse_str(text).map_err(|e| e.to_string())?;
    match uuid.is_nil() {
        true => Err("a volume's UUID must not be all zeros".to_string()),
        false => Ok(Uuid(uuid.into_bytes())),
    }
}

/// `8K/32K/128K`.
fn parse_chunk_sizes(text: &str) -> Result<ChunkSizes, String> {
    let sizes: Vec<u32> = text.split('/').map(parse_size_u32).collect::<Result<_, _>>()?;
    match sizes[..] {
        [min, avg, max] => Ok(ChunkSizes { min, avg, max }),
        _ => Err("write three sizes, as in 8K/32K/128K".to_string()),
    }
}

/// The level of zstd; 0 stands for no compression.
fn parse_compression(text: &str) -> Result<i32, String> {
    match text.split_once(':').unwrap_or((text, "")) {
        _ if text == "none" => Ok(0),
        _ if text == "zstd" => Ok(MakeOptions::default().zstd_level),
        ("zstd", level) => match level.parse() {
            Ok(level @ 1..=22) => Ok(level),
            _ => Err(format!("zstd has levels 1 to 22, not '{level}'")),
        },
        _ => Err("write zstd, zstd:LEVEL or none".to_string()),
    }
}

/// `16+2`, or `none`.
fn parse_parity(text: &str) -> Result<Parity, String> {
    cairn_volume::parse_parity(text).map(|parity| Parity { data: parity.data, extra: parity.parity })
}

fn parse_size_u32(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| format!("'{text}' is more than 4 GiB"))
}

/// A number of bytes, or of powers of 1024 of them.
fn parse_size(text: &str) -> Result<u64, String> {
    let not_a_size =
        || format!("'{text}' is not a size: write a number of bytes, or one with K, M, G or T, as in 64M");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(not_a_size()),
    };
    let number: u64 = number.parse().map_err(|_| not_a_size())?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is more than 16 EiB"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let options = parse("mkfs.cairn /v").expect("enough").to_options();
        let default = MakeOptions::default();
        assert_eq!(
            (options.chunk_avg, options.frame, options.zstd_level),
            (default.chunk_avg, default.frame, default.zstd_level)
        );
        assert!(!options.force && options.uuid.is_none());
    }

    #[test]
    fn everything_said_arrives() {
        let line = "mkfs.cairn -q -f -L films -U 11111111-2222-3333-4444-555555555555 --chunk-size 4K/16K/64K \
                    --frame-size 64K --compress zstd:9 --parity 8+3 --journal-size 1G --segment-size 8M --parity-across /a,/b /v";
        let options =
            parse(&line.split_whitespace().collect::<Vec<_>>().join(" ")).expect("all known").to_options();
        assert_eq!((options.chunk_min, options.chunk_avg, options.chunk_max), (4096, 16384, 65536));
        assert_eq!((options.frame, options.zstd_level), (65536, 9));
        assert_eq!((options.parity_data, options.parity_extra), (8, 3));
        assert_eq!((options.journal_size, options.segment_size), (1 << 30, 8 << 20));
        assert_eq!(options.uuid.map(|u| u.0[0]), Some(0x11));
        assert_eq!(options.across, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert!(options.force && options.label == "films");
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for wrong in [
            "--chunk-size 8K/32K",
            "--chunk-size big",
            "--compress lz4",
            "--compress zstd:23",
            "--compress zstd:",
            "--parity 16",
            "--parity 300+2",
            "--frame-size 5G",
            "--journal-size -1",
            "-U not-a-uuid",
            "-U 00000000-0000-0000-0000-000000000000",
            "--colour blue",
        ] {
            let error = parse(&format!("mkfs.cairn {wrong} /v")).expect_err(wrong);
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
        assert_eq!(parse("mkfs.cairn --compress none /v").expect("known").to_options().zstd_level, 0);
    }
}
