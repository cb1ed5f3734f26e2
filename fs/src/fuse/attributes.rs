//! The read-only attributes `cairn.*`: what is known of a file, for whoever may read it. They are not listed, so that
//! nothing copies them along.

use std::time::Duration;

use cairn_volume::{Error, Volume};
use serde::Serialize;

use crate::report::WhyReport;

/// How long a look for those who share a file's chunks may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A JSON document of all that follows, and more.
    Why,
    /// Stored bytes that it answers for.
    Stored,
    /// Its bytes to one stored.
    Ratio,
    /// Distinct chunks that it is made of.
    Chunks,
    /// Bytes in chunks that other files have, too.
    Shared,
}

#[derive(Serialize)]
struct Document {
    message_type: &'static str,
    schema_version: u32,
    #[serde(flatten)]
    why: WhyReport,
}

impl Told {
    pub(super) fn named(name: &[u8]) -> Option<Told> {
        match name {
            b"cairn.why" => Some(Told::Why),
            b"cairn.stored" => Some(Told::Stored),
            b"cairn.ratio" => Some(Told::Ratio),
            b"cairn.chunks" => Some(Told::Chunks),
            b"cairn.shared" => Some(Told::Shared),
            _ => None,
        }
    }

    /// Its value for a regular file; others have none.
    pub(super) fn of(self, volume: &Volume, ino: u64) -> Result<Vec<u8>, Error> {
        let patience = match self {
            Told::Why | Told::Shared => PATIENCE,
            // Nobody is looked for.
            Told::Stored | Told::Ratio | Told::Chunks => Duration::ZERO,
        };
        let explanation = volume.explain(ino, patience).map_err(|error| match error {
            Error::Invalid => Error::NoAttribute,
            other => other,
        })?;
        let why = WhyReport::from(explanation);
        let text = match self {
            Told::Why => document(why)?,
            Told::Stored => why.stored.to_string(),
            Told::Ratio => format!("{:.2}", why.ratio.ok_or(Error::NoAttribute)?),
            Told::Chunks => why.chunks.to_string(),
            Told::Shared => why.shared.to_string(),
        };
        Ok(text.into_bytes())
    }
}

fn document(why: WhyReport) -> Result<String, Error> {
    serde_json::to_string(&Document { message_type: "why", schema_version: SCHEMA, why }).map_err(|error| {
        // Numbers and names: it does not come to this.
        tracing::error!("a document could not be written: {error}");
        Error::Io
    })
}
