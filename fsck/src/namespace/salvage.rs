//! A base some of whose frames cannot be read: which keys are missing because of that.

use std::collections::HashSet;

use cairn_format::key::{self, tag};
use cairn_format::{FormatError, Ino, MetaRecords, PackId};
use cairn_store::Store;
use cairn_volume::ChainReadError;

/// Frames that are left out, by pack and number.
pub(crate) type Skip = HashSet<(PackId, u32)>;

/// Keys that may be missing: those between two that are not, both left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gap {
    after: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
}

impl Gap {
    /// Whether a key would be in it.
    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        self.after.as_ref().is_none_or(|after| after.as_slice() < key)
            && self.before.as_ref().is_none_or(|before| key < before.as_slice())
    }

    /// Whether extents of a file may be in it.
    pub(crate) fn touches(&self, ino: Ino) -> bool {
        let (first, end) = key::all_of(tag::EXTENT, ino);
        self.after.as_ref().is_none_or(|after| *after < end)
            && self.before.as_ref().is_none_or(|before| *before > first)
    }
}

/// The gaps that the frames in `skip` leave in a checkpoint's records.
pub(crate) fn gaps(store: &Store, parts: &[PackId], skip: &Skip) -> Result<Vec<Gap>, ChainReadError> {
    let mut gaps: Vec<Gap> = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    let mut open = false;
    for pack in parts {
        let reader = store.reader(*pack)?;
        for (number, entry) in reader.footer()?.frames.iter().enumerate() {
            if skip.contains(&(*pack, number as u32)) {
                if !open {
                    gaps.push(Gap { after: last.clone(), before: None });
                }
                open = true;
                continue;
            }
            let frame = reader.frame(entry)?;
            let wrong = |e: FormatError| ChainReadError::Wrong { pack: *pack, reason: e.to_string() };
            for record in MetaRecords::new(&frame.plain) {
                let (key, _) = record.map_err(wrong)?;
                if open && let Some(gap) = gaps.last_mut() {
                    gap.before = Some(key.to_vec());
                    open = false;
                }
                last = Some(key.to_vec());
            }
        }
    }
    Ok(gaps)
}
