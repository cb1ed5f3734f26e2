//! `cairn why`: the kernel lets whoever may read a file read its attribute `cairn.why`, so this needs no root.

use std::fs;
use std::path::Path;

use cairn_volume::{parity_name, parse_parity};
use rustix::io::Errno;
use serde::Serialize;

use crate::args::WhyArgs;
use crate::failure::{self, Failure};
use crate::mountinfo::{self, Mount};
use crate::output::{count, date, percent, print, print_json, rows};
use crate::places::cannot_reach;
use crate::report::WhyReport;
use crate::size::human;

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// Packs named to people.
const PACKS: usize = 3;
/// The longest value that the kernel hands out.
const MAX_VALUE: usize = 64 << 10;

/// What `--json` prints, a line for each path.
#[derive(Serialize)]
struct Document {
    message_type: &'static str,
    schema_version: u32,
    path: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum What {
    File(Box<WhyReport>),
    /// It takes nothing worth telling, but says how new files in it are stored.
    Directory {
        compression: Option<String>,
    },
}

/// Tells of each path what it takes, and why. Where only some could be told of, that is exit code 3.
pub(crate) fn run(args: &WhyArgs) -> Result<(), Failure> {
    let mounts = mountinfo::read().map_err(|e| Failure::new(format!("/proc/self/mountinfo: {e}")))?;
    let mut failures = Vec::new();
    for path in &args.paths {
        match explain(&mounts, path) {
            Ok(what) => tell(path, what, args.json)?,
            Err(failure) => failures.push(failure),
        }
    }
    failure::all_of(failures, args.paths.len())
}

fn explain(mounts: &[Mount], path: &Path) -> Result<What, Failure> {
    let at = path.display();
    let failed = |e: std::io::Error| Failure::new(cannot_reach(path, &e));
    let resolved = path.canonicalize().map_err(failed)?;
    if !mountinfo::containing(mounts, &resolved).is_some_and(Mount::is_cairn) {
        return Err(Failure::no_store(format!(
            "{at} is not on a cairn volume: name a file where one is mounted (`findmnt -t fuse.cairn` lists them)"
        )));
    }
    let found = fs::metadata(&resolved).map_err(failed)?;
    if found.is_dir() {
        let compression = attribute(&resolved, "cairn.compress").ok().flatten();
        return Ok(What::Directory { compression: compression.and_then(|v| String::from_utf8(v).ok()) });
    }
    if !found.is_file() {
        return Err(Failure::new(format!("{at} is neither a file nor a directory: it takes no room")));
    }
    let Some(value) = attribute(&resolved, "cairn.why").map_err(|e| failed(e.into()))? else {
        return Err(Failure::new(format!(
            "{at}: its mount does not answer this: it is served by another version of cairn; mount it again"
        )));
    };
    serde_json::from_slice(&value).map(What::File).map_err(|e| {
        Failure::new(format!(
            "{at}: its mount answered something else ({e}): is it served by another version of cairn?"
        ))
    })
}

/// An attribute's value; `None` where there is no such attribute.
fn attribute(path: &Path, name: &str) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; MAX_VALUE];
    match rustix::fs::getxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(e) => Err(e),
    }
}

fn tell(path: &Path, what: What, json: bool) -> Result<(), Failure> {
    let path = path.display().to_string();
    match json {
        true => print_json(&Document { message_type: "why", schema_version: SCHEMA, path, what }),
        false => print(&text(&path, &what)),
    }
}

fn text(path: &str, what: &What) -> String {
    match what {
        What::File(why) => format!("{path}\n{}{}", rows(lines(why)), tensors(why)),
        What::Directory { compression } => {
            let how = compression.as_deref().unwrap_or("as the volume's are");
            format!(
                "{path}\n{}",
                rows([("directory", "name files to see what they take".into()), ("new files", how.into())])
            )
        }
    }
}

fn lines(why: &WhyReport) -> Vec<(&'static str, String)> {
    let mut lines = vec![("size", human(why.size))];
    if why.holes > 0 {
        lines.push(("holes", format!("{} of it", human(why.holes))));
    }
    let ratio = why.ratio.map(|ratio| format!(", {ratio:.2} to 1")).unwrap_or_default();
    lines.push(("stored", format!("{}{ratio}", human(why.stored))));
    if why.journalled > 0 {
        lines.push((
            "not folded yet",
            format!("{}: neither deduplicated nor compressed so far", human(why.journalled)),
        ));
    }
    if why.chunked > 0 {
        let distinct = match why.chunks == why.pieces {
            true => count(why.chunks, "chunk", "chunks"),
            false => format!(
                "{} pieces of {}: {} of its own",
                why.pieces,
                count(why.chunks, "chunk", "chunks"),
                human(why.unique)
            ),
        };
        lines.push(("made of", distinct));
        lines.push(("shared", shared(why)));
        lines.push(("lies in", packs(why)));
        lines.push(("margin", margin(why)));
        lines.push(("scrubbed", scrubbed(why)));
    }
    if let Some(compression) = &why.compression {
        lines.push(("compression", compression.clone()));
    }
    lines
}

/// The tensors in it, a line for each; nothing where there are none.
fn tensors(why: &WhyReport) -> String {
    if why.tensors.is_empty() {
        return String::new();
    }
    let named: Vec<(String, String)> = why
        .tensors
        .iter()
        .map(|tensor| {
            let dimensions: Vec<_> = tensor.shape.iter().map(u64::to_string).collect();
            let kind = format!("{} [{}]", tensor.dtype.escape_debug(), dimensions.join(", "));
            let takes =
                if tensor.bytes > 0 { percent(tensor.stored, tensor.bytes) } else { "nothing".into() };
            let takes = format!("{} stored as {takes}", human(tensor.bytes));
            let name = tensor.name.escape_debug().to_string();
            let codecs = if tensor.codecs.is_empty() {
                String::new()
            } else {
                format!(" by {}", tensor.codecs.join(", "))
            };
            let base = tensor.base.as_ref().map(|base| format!(" from base {base}")).unwrap_or_default();
            (
                if name.is_empty() { "(no name)".into() } else { name },
                format!("{kind}  {takes}{codecs}{base}"),
            )
        })
        .collect();
    let width = named.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(60);
    let lines: String = named.iter().map(|(name, what)| format!("    {name:<width$}  {what}\n")).collect();
    let more = match why.tensor_count.saturating_sub(why.tensors.len() as u64) {
        0 => String::new(),
        more => format!("    and {more} more\n"),
    };
    format!("  {}\n{lines}{more}", count(why.tensor_count, "tensor", "tensors"))
}

fn shared(why: &WhyReport) -> String {
    let incomplete =
        if why.complete { "" } else { " or more: the volume was too large to look at all of it" };
    match (why.sharers, why.complete) {
        (0, true) => "with no other file".to_string(),
        (0, false) => "not known: the volume was too large to look at all of it".to_string(),
        (sharers, _) => format!(
            "{} of {} ({}) with {}{incomplete}",
            human(why.shared),
            human(why.chunked),
            percent(why.shared, why.chunked),
            count(sharers, "other file", "other files")
        ),
    }
}

/// What of its packs may be damaged before bytes of it are lost.
fn margin(why: &WhyReport) -> String {
    let known: Vec<_> =
        why.packs.iter().filter_map(|share| parse_parity(share.parity.as_deref()?).ok()).collect();
    let unread = why.packs.len() - known.len();
    let weakest = known.into_iter().min_by_key(|parity| parity.parity);
    let margin = match weakest {
        None => return "not known: its packs cannot be read".to_string(),
        Some(parity) if parity.is_none() => "none: what is damaged is lost".to_string(),
        Some(parity) => format!(
            "parity {}: any {} of each pack",
            parity_name(parity),
            count(parity.parity.into(), "bad sector", "bad sectors")
        ),
    };
    let twice = why.packs.iter().filter(|share| share.copies > 0).count();
    let missing = match twice {
        0 => String::new(),
        all if all == why.packs.len() => "; any pack missing: they are there twice".to_string(),
        some => format!("; {} there twice", count(some as u64, "pack is", "packs are")),
    };
    match unread {
        0 => format!("{margin}{missing}"),
        unread => format!("{margin}{missing}; {} not read", count(unread as u64, "pack was", "packs were")),
    }
}

/// When all of its packs had been.
fn scrubbed(why: &WhyReport) -> String {
    let oldest = why.packs.iter().map(|share| share.verified).min().flatten();
    oldest.map_or("not yet".to_string(), |when| date(i64::try_from(when).unwrap_or(i64::MAX)))
}

fn packs(why: &WhyReport) -> String {
    let named = why.packs.iter().take(PACKS).map(|share| format!("{} ({})", share.pack, human(share.bytes)));
    let named: Vec<_> = named.collect();
    let more = why.pack_count.saturating_sub(named.len() as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {}{more}", if why.pack_count == 1 { "pack" } else { "packs" }, named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{PackReport, TensorReport};

    fn why() -> WhyReport {
        WhyReport {
            size: 10 << 20,
            holes: 0,
            journalled: 0,
            chunked: 10 << 20,
            pieces: 300,
            chunks: 300,
            unique: 10 << 20,
            stored: 5 << 20,
            shared: 4 << 20,
            sharers: 2,
            complete: true,
            compression: Some("zstd:3".into()),
            ratio: Some(2.0),
            pack_count: 5,
            packs: (0..5)
                .map(|n| PackReport {
                    pack: format!("p{n}"),
                    bytes: 2 << 20,
                    parity: Some("16+2".into()),
                    verified: None,
                    copies: 0,
                })
                .collect(),
            tensor_count: 0,
            tensors: Vec::new(),
        }
    }

    #[test]
    fn tensors_are_listed_with_what_they_take() {
        let tensor = TensorReport {
            name: "model.embed\n".into(),
            dtype: "BF16".into(),
            shape: vec![32000, 64],
            offset: 100,
            bytes: 4 << 20,
            stored: 2 << 20,
            ratio: Some(2.0),
            differences: 2,
            base: Some("c0ffee".into()),
            codecs: vec!["planes".into(), "zstd".into()],
        };
        let why = WhyReport { tensor_count: 3, tensors: vec![tensor], ..why() };
        let told = text("f", &What::File(Box::new(why)));
        let expected = "  3 tensors\n    model.embed\\n  BF16 [32000, 64]  4.00 MiB stored as 50.0% by planes, zstd from base c0ffee\n    and 2 more\n";
        assert!(told.ends_with(expected), "{told}");
    }

    #[test]
    fn people_are_told_what_it_takes_and_why() {
        let text = text("/mnt/f", &What::File(Box::new(why())));
        assert!(text.starts_with("/mnt/f\n  size           10.0 MiB\n"), "{text}");
        assert!(text.contains("stored         5.00 MiB, 2.00 to 1\n"), "{text}");
        assert!(text.contains("4.00 MiB of 10.0 MiB (40.0%) with 2 other files\n"), "{text}");
        assert!(text.contains("packs p0 (2.00 MiB), p1 (2.00 MiB), p2 (2.00 MiB) and 2 more\n"), "{text}");
        assert!(!text.contains("holes") && !text.contains("not folded"), "{text}");
    }

    #[test]
    fn the_margin_is_that_of_the_weakest_pack() {
        assert_eq!(margin(&why()), "parity 16+2: any 2 bad sectors of each pack");
        let mut mixed = why();
        mixed.packs[3].parity = Some("none".into());
        assert_eq!(margin(&mixed), "none: what is damaged is lost");
        mixed.packs[3].parity = None;
        assert_eq!(margin(&mixed), "parity 16+2: any 2 bad sectors of each pack; 1 pack was not read");
        mixed.packs[0].copies = 1;
        assert!(
            margin(&mixed).ends_with("; 1 pack is there twice; 1 pack was not read"),
            "{}",
            margin(&mixed)
        );
        let mut twice = why();
        twice.packs.iter_mut().for_each(|share| share.copies = 1);
        assert!(margin(&twice).ends_with("each pack; any pack missing: they are there twice"));
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        assert!(shared(&WhyReport { complete: false, ..why() }).contains("or more"));
        assert!(shared(&WhyReport { complete: false, sharers: 0, shared: 0, ..why() }).contains("not known"));
        assert_eq!(shared(&WhyReport { sharers: 0, shared: 0, ..why() }), "with no other file");
        let fresh =
            WhyReport { chunked: 0, chunks: 0, pieces: 0, journalled: 10 << 20, ratio: None, ..why() };
        let text = text("f", &What::File(Box::new(fresh)));
        assert!(
            text.contains("not folded yet") && !text.contains("shared") && !text.contains("to 1"),
            "{text}"
        );
    }

    #[test]
    fn each_document_says_what_it_is_of() {
        let of = |what| {
            let document =
                Document { message_type: "why", schema_version: SCHEMA, path: "/mnt/f".into(), what };
            serde_json::to_value(document).expect("serializes")
        };
        let file = of(What::File(Box::new(why())));
        assert_eq!((file["kind"].as_str(), file["shared"].as_u64()), (Some("file"), Some(4 << 20)));
        let directory = of(What::Directory { compression: None });
        assert_eq!(
            (directory["kind"].as_str(), directory["path"].as_str()),
            (Some("directory"), Some("/mnt/f"))
        );
    }
}
