//! The figures as tables for people and as JSON.

use std::fmt::Write;
use std::time::Duration;

use cairn_format::{Footer, FrameEntry, PackId, PackKind, Uuid};

use crate::index::Load;
use crate::tally::{ChunkFigures, FrameFigures, READS, ReadFigures, SetFigures};

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;
const GIB: f64 = 1024.0 * MIB;
const TIB: f64 = 1024.0 * GIB;
/// The index's default limit.
const INDEX_MEMORY: f64 = 128.0 * MIB;
/// What mkfs.cairn takes where nothing is said: speeds and sizes are told beside it.
const USUAL_CHUNK: u32 = 16 << 10;
const USUAL_FRAME: u32 = 256 << 10;

pub(crate) struct Report {
    pub(crate) load: Load,
    pub(crate) level: i8,
    pub(crate) sets: Vec<(String, SetFigures)>,
}

impl Report {
    fn total(&self) -> SetFigures {
        let mut total = SetFigures::default();
        self.sets.iter().for_each(|(_, set)| total.add(set));
        total
    }

    /// Everything that is printed.
    pub(crate) fn tables(&self) -> String {
        let mut out = String::new();
        let total = self.total();
        self.duplicates(&total, &mut out);
        self.chunk_costs(&total, &mut out);
        self.stored_a_set(&total, &mut out);
        let mib = |_: &SetFigures, chunk: &ChunkFigures, frame: &FrameFigures| {
            format!("{:.0}", stored(chunk, Some(frame)) / MIB)
        };
        pairs(&total, "The same, all data sets, in MiB; columns are frame sizes", mib, &mut out);
        for (i, len) in READS.iter().enumerate() {
            let title =
                format!("A random {} KiB read, cold: stored / plain bytes for each byte wanted", len >> 10);
            pairs(&total, &title, |_, _, frame| amplification(&frame.reads[i]), &mut out);
        }
        let pass = |set: &SetFigures, _: &ChunkFigures, frame: &FrameFigures| {
            format!("{:.2}", frame.pass as f64 / set.logical as f64)
        };
        pairs(
            &total,
            "One pass over all files with 16 MiB of frames in memory: plain bytes decoded a byte",
            pass,
            &mut out,
        );
        if let Some(usual) = usual(&total.chunks, |c| c.avg, USUAL_CHUNK) {
            self.frames(usual, &mut out);
        }
        out
    }

    fn duplicates(&self, total: &SetFigures, out: &mut String) {
        let mut table = Table::new("Duplicate bytes, % of all; columns are averages asked of the chunker");
        let mut head =
            vec!["data set".to_owned(), "files".to_owned(), "MiB".to_owned(), "whole files".to_owned()];
        head.extend(total.chunks.iter().map(|c| kib(c.avg)));
        table.row(head);
        for (name, set) in self.rows(total) {
            let mut row = vec![name, set.files.to_string(), format!("{:.0}", set.logical as f64 / MIB)];
            row.push(percent(set.whole_file_duplicates, set.logical));
            row.extend(set.chunks.iter().map(|c| percent(set.logical - c.unique, set.logical)));
            table.row(row);
        }
        table.end(out);
    }

    fn chunk_costs(&self, total: &SetFigures, out: &mut String) {
        let mut table = Table::new("What chunks cost, all data sets");
        table.row(
            [
                "average asked",
                "mean",
                "distinct",
                "index, GiB a TiB",
                "128 MiB hold, GiB",
                "extents, MiB a GiB",
                "written down",
                "pack lists, MiB a GiB",
                "a byte's chunk, KiB",
                "cut",
                "hash",
                "both",
            ]
            .map(str::to_owned)
            .to_vec(),
        );
        let speed = |time: Duration| total.logical as f64 / time.as_secs_f64();
        let usual = usual(&total.chunks, |c| c.avg, USUAL_CHUNK);
        let ratio = |of: fn(&ChunkFigures) -> Duration, chunk: &ChunkFigures| match usual {
            Some(usual) => format!("{:.2}", speed(of(chunk)) / speed(of(usual))),
            None => format!("{:.0} MB/s", speed(of(chunk)) / 1e6),
        };
        let logical = total.logical as f64;
        for chunk in &total.chunks {
            let (mean, slot) = (mean(chunk), self.load.bytes_a_chunk());
            table.row(vec![
                kib(chunk.avg),
                format!("{:.1}", mean / KIB),
                chunk.distinct.to_string(),
                format!("{:.2}", TIB / mean * slot / GIB),
                format!("{:.0}", INDEX_MEMORY / slot * mean / GIB),
                format!("{:.2}", chunk.extents as f64 / logical * KIB),
                format!("{:.2}", chunk.extents_stored as f64 / logical * KIB),
                format!("{:.2}", pack_lists(chunk, usual_frame(chunk)) / chunk.unique as f64 * KIB),
                format!("{:.0}", chunk.squares / logical / KIB),
                ratio(|c| c.cut, chunk),
                ratio(|c| c.hash, chunk),
                ratio(|c| c.cut + c.hash, chunk),
            ]);
        }
        table.end(out);
        let _ = writeln!(
            out,
            "The index is {:.0}% full when it has forgotten one chunk in a hundred at its limit; below that it grew at {:.0}%.{}\n",
            self.load.full * 100.0,
            self.load.growing * 100.0,
            usual.map_or(String::new(), |usual| format!(
                " Speeds are beside those at {}: cut {:.0}, hash {:.0}, both {:.0} MB/s in this run.",
                kib(usual.avg),
                speed(usual.cut) / 1e6,
                speed(usual.hash) / 1e6,
                speed(usual.cut + usual.hash) / 1e6
            ))
        );
    }

    fn stored_a_set(&self, total: &SetFigures, out: &mut String) {
        let Some(frame) = total.chunks.first().and_then(usual_frame).map(|f| f.size) else { return };
        let mut table = Table::new(&format!(
            "Stored MiB in frames of {} at level {}: packs with their lists, and extents written down",
            kib(frame),
            self.level
        ));
        let mut head = vec!["data set".to_owned(), "MiB".to_owned()];
        head.extend(total.chunks.iter().map(|c| kib(c.avg)));
        table.row(head);
        for (name, set) in self.rows(total) {
            let mut row = vec![name, format!("{:.0}", set.logical as f64 / MIB)];
            row.extend(set.chunks.iter().map(|c| format!("{:.1}", stored(c, usual_frame(c)) / MIB)));
            table.row(row);
        }
        table.end(out);
    }

    fn frames(&self, chunk: &ChunkFigures, out: &mut String) {
        let mut table = Table::new(&format!("Frames of chunks of {}, all data sets", kib(chunk.avg)));
        table.row(["frame", "mean plain, KiB", "ratio", "encode", "decode"].map(str::to_owned).to_vec());
        let usual = usual_frame(chunk);
        let ratio = |of: fn(&FrameFigures) -> Duration, frame: &FrameFigures| match usual {
            Some(usual) => format!("{:.2}", of(usual).as_secs_f64() / of(frame).as_secs_f64()),
            None => String::new(),
        };
        for frame in &chunk.frames {
            table.row(vec![
                kib(frame.size),
                format!("{:.0}", chunk.unique as f64 / frame.frames as f64 / KIB),
                format!("{:.2}", chunk.unique as f64 / frame.stored as f64),
                ratio(|f| f.encode, frame),
                ratio(|f| f.decode, frame),
            ]);
        }
        table.end(out);
        if let Some(usual) = usual {
            let speed = |time: Duration| chunk.unique as f64 / time.as_secs_f64() / 1e6;
            let (encode, decode) = (speed(usual.encode), speed(usual.decode));
            let _ = writeln!(
                out,
                "Speeds are beside those at {}: encode {encode:.0}, decode {decode:.0} MB/s in this run.\n",
                kib(usual.size),
            );
        }
    }

    fn rows<'a>(&'a self, total: &'a SetFigures) -> impl Iterator<Item = (String, &'a SetFigures)> {
        let all = ("all".to_owned(), total);
        self.sets.iter().map(|(name, set)| (name.clone(), set)).chain([all])
    }

    /// One document: bytes, and seconds.
    pub(crate) fn json(&self) -> String {
        let mut out = format!(
            "{{\"message_type\":\"chunks\",\"schema_version\":1,\"level\":{},\"index_load_growing\":{:.4},\
             \"index_load_full\":{:.4},\"index_bytes_a_chunk\":{:.2},\"sets\":[",
            self.level,
            self.load.growing,
            self.load.full,
            self.load.bytes_a_chunk()
        );
        for (i, (name, set)) in self.sets.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let _ = write!(
                out,
                "{comma}\n{{\"name\":\"{name}\",\"files\":{},\"logical\":{},\"whole_file_duplicates\":{},\"chunks\":[",
                set.files, set.logical, set.whole_file_duplicates
            );
            let chunks: Vec<_> = set.chunks.iter().map(|c| chunk_json(c, set.logical)).collect();
            let _ = write!(out, "{}]}}", chunks.join(","));
        }
        out.push_str("\n]}\n");
        out
    }
}

fn chunk_json(chunk: &ChunkFigures, logical: u64) -> String {
    let frames: Vec<_> = chunk.frames.iter().map(|f| frame_json(chunk, f)).collect();
    format!(
        "\n {{\"avg\":{},\"chunks\":{},\"distinct\":{},\"unique\":{},\"duplicates\":{},\"byte_chunk\":{:.0},\
         \"extents\":{},\"extents_stored\":{},\"cut_seconds\":{:.4},\"hash_seconds\":{:.4},\"frames\":[{}]}}",
        chunk.avg,
        chunk.chunks,
        chunk.distinct,
        chunk.unique,
        logical - chunk.unique,
        chunk.squares / (logical.max(1)) as f64,
        chunk.extents,
        chunk.extents_stored,
        chunk.cut.as_secs_f64(),
        chunk.hash.as_secs_f64(),
        frames.join(",")
    )
}

fn frame_json(chunk: &ChunkFigures, frame: &FrameFigures) -> String {
    let reads: Vec<_> = READS
        .iter()
        .zip(&frame.reads)
        .map(|(len, r)| {
            format!(
                "{{\"len\":{len},\"reads\":{},\"wanted\":{},\"frames\":{},\"stored\":{},\"plain\":{}}}",
                r.reads, r.wanted, r.frames, r.stored, r.plain
            )
        })
        .collect();
    format!(
        "\n  {{\"size\":{},\"frames\":{},\"stored\":{},\"pack_lists\":{:.0},\"encode_seconds\":{:.4},\
         \"decode_seconds\":{:.4},\"pass\":{},\"reads\":[{}]}}",
        frame.size,
        frame.frames,
        frame.stored,
        pack_lists(chunk, Some(frame)),
        frame.encode.as_secs_f64(),
        frame.decode.as_secs_f64(),
        frame.pass,
        reads.join(",")
    )
}

/// A row for each chunk size, a column for each frame size.
fn pairs(
    total: &SetFigures,
    title: &str,
    cell: impl Fn(&SetFigures, &ChunkFigures, &FrameFigures) -> String,
    out: &mut String,
) {
    let mut table = Table::new(title);
    let mut head = vec!["average asked".to_owned()];
    head.extend(total.chunks.first().into_iter().flat_map(|c| &c.frames).map(|f| kib(f.size)));
    table.row(head);
    for chunk in &total.chunks {
        let mut row = vec![kib(chunk.avg)];
        row.extend(chunk.frames.iter().map(|frame| cell(total, chunk, frame)));
        table.row(row);
    }
    table.end(out);
}

fn amplification(read: &ReadFigures) -> String {
    let each = |bytes: u64| bytes as f64 / read.wanted.max(1) as f64;
    format!("{:.1} / {:.1}", each(read.stored), each(read.plain))
}

/// The one of the usual size.
fn usual<T>(of: &[T], size: fn(&T) -> u32, usual: u32) -> Option<&T> {
    of.iter().find(|t| size(t) == usual)
}

/// The frames of the usual size, else the last there are.
fn usual_frame(chunk: &ChunkFigures) -> Option<&FrameFigures> {
    usual(&chunk.frames, |f| f.size, USUAL_FRAME).or(chunk.frames.last())
}

/// The mean of the distinct chunks.
fn mean(chunk: &ChunkFigures) -> f64 {
    chunk.unique as f64 / chunk.distinct.max(1) as f64
}

/// What packs hold beside frames and their heads: both footers, by the bytes that encoding one takes.
fn pack_lists(chunk: &ChunkFigures, frame: Option<&FrameFigures>) -> f64 {
    let len = |frames: usize, chunks: usize| {
        let entry = FrameEntry { offset: 0, len: 0, plain_len: 0, chunks: 0 };
        let footer = Footer {
            parity: cairn_format::ParityGeometry::default(),
            pack: PackId::default(),
            store: Uuid::default(),
            volume: Uuid::default(),
            kind: PackKind::Data,
            frames: vec![entry; frames],
            chunks: vec![cairn_format::ChunkEntry { id: cairn_format::ChunkId::default(), len: 0 }; chunks],
            bases: Vec::new(),
            replaces: Vec::new(),
            checkpoint: None,
        };
        footer.encode().len() as f64
    };
    let (a_frame, a_chunk) = (len(1, 0) - len(0, 0), len(0, 1) - len(0, 0));
    2.0 * (a_frame * frame.map_or(0, |f| f.frames) as f64 + a_chunk * chunk.distinct as f64)
}

/// Everything on disk but names and attributes.
fn stored(chunk: &ChunkFigures, frame: Option<&FrameFigures>) -> f64 {
    frame.map_or(0, |f| f.stored) as f64 + pack_lists(chunk, frame) + chunk.extents_stored as f64
}

fn kib(bytes: u32) -> String {
    format!("{} KiB", bytes >> 10)
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1}", part as f64 * 100.0 / whole.max(1) as f64)
}

/// Rows of cells, as Markdown has them.
struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(title: &str) -> Table {
        Table { title: title.to_owned(), rows: Vec::new() }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn end(self, out: &mut String) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, c: usize| row.get(c).map_or(0, |text| text.chars().count());
        let widths: Vec<usize> =
            (0..columns).map(|c| self.rows.iter().map(|row| cell(row, c)).max().unwrap_or(0)).collect();
        let _ = writeln!(out, "{}:\n", self.title);
        for (i, row) in self.rows.iter().enumerate() {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(
                    |(c, (text, width))| {
                        if c == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
                    },
                )
                .collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
            if i == 0 {
                let rule = |(c, w): (usize, &usize)| {
                    if c == 0 {
                        format!(":{}", "-".repeat(w.max(&2) - 1))
                    } else {
                        format!("{}:", "-".repeat(w.max(&2) - 1))
                    }
                };
                let rules: Vec<_> = widths.iter().enumerate().map(rule).collect();
                let _ = writeln!(out, "| {} |", rules.join(" | "));
            }
        }
        out.push('\n');
    }
}
