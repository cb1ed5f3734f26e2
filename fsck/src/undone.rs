//! What was put back of a repair, for people and for scripts.

use fsck_cairn::{PutBack, UNDO_DIR};
use serde::Serialize;

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// Files that people are told.
const LISTED: usize = 20;

#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    dir: &'a str,
    /// Of which repair: its directory in `fsck-undo/`.
    time: &'a str,
    /// Files that are as they were before it.
    put_back: &'a [String],
    /// Files that it made, and that lie in its directory now.
    moved_away: &'a [String],
}

/// One document, on a line.
pub(crate) fn json(dir: &str, done: &PutBack) -> Result<String, String> {
    let PutBack { time, put_back, moved_away } = done;
    let document =
        Document { message_type: "fsck-undo", schema_version: SCHEMA, dir, time, put_back, moved_away };
    Ok(serde_json::to_string(&document).map_err(|e| e.to_string())? + "\n")
}

/// A sentence, and the files.
pub(crate) fn text(dir: &str, done: &PutBack) -> String {
    let mut text = format!(
        "{dir}: the repair of {} was undone: {} files are as they were before it, {} that it made are in {UNDO_DIR}/{}\n",
        done.time,
        done.put_back.len(),
        done.moved_away.len(),
        done.time,
    );
    let lines = done.put_back.iter().map(|path| format!("  put back: {path}\n"));
    let lines = lines.chain(done.moved_away.iter().map(|path| format!("  moved away: {path}\n")));
    text.extend(lines.clone().take(LISTED));
    match lines.count().saturating_sub(LISTED) {
        0 => text,
        more => text + &format!("  and {more} more: see --json\n"),
    }
}
