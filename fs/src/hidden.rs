//! The documents that a mount has in files which nobody wrote, for those who may not ask its daemon.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::Failure;
use crate::places::cannot_reach;

/// What was done and how it stands.
pub(crate) const STATS: &str = ".stats";
/// What is in force.
pub(crate) const CONFIG: &str = ".config";

/// Reads `field` of a document in the mount's root, or with none all of it. It fails where a real file of that name hides
/// the document, and where an older version of cairn serves the mount.
pub(crate) fn read<T: DeserializeOwned>(
    mountpoint: &Path,
    name: &str,
    field: Option<&str>,
) -> Result<T, Failure> {
    let path = mountpoint.join(name);
    let text = fs::read(&path).map_err(|e| Failure::new(cannot_reach(&path, &e)))?;
    parse(&text, field).map_err(|why| {
        let at = path.display();
        Failure::new(format!(
            "{at} is not what it should be ({why}): is it a file of yours, or another version of cairn's?"
        ))
    })
}

fn parse<T: DeserializeOwned>(text: &[u8], field: Option<&str>) -> Result<T, serde_json::Error> {
    let mut document: Value = serde_json::from_slice(text)?;
    serde_json::from_value(match field {
        Some(field) => document.get_mut(field).map(Value::take).unwrap_or_default(),
        None => document,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_such_document_is_an_error() {
        assert_eq!(parse::<u64>(b"{\"a\": 7}   \n", Some("a")).expect("a document"), 7);
        for text in ["", "7", "[]", "{}", "{\"a\":\"x\"}", "a letter"] {
            assert!(parse::<u64>(text.as_bytes(), Some("a")).is_err(), "{text}");
        }
    }
}
