//! The chunk index's snapshot, compared with the footers it was made from.

use std::collections::HashMap;
use std::io;

use cairn_format::{Footer, IndexSlot, IndexSnapshot, PackId, PackKind, PackSummary, Uuid};
use cairn_store::INDEX_PATH;
use cairn_store::disk::{Disk, read_small};

use crate::CheckError;
use crate::report::{Finding, Findings};

/// The longest snapshot that is read: that of 12 M chunks.
const INDEX_MAX: u64 = 192 << 20;
const FILE: &str = "store/index";
const REBUILD: &str = "delete store/index while the volume is not mounted: the next mount rebuilds it";

/// The snapshot, or nothing where there is none that can be used.
#[derive(Default)]
pub(crate) struct Index {
    /// In the order of their packs.
    slots: Vec<IndexSlot>,
    /// Each pack's part of them.
    parts: HashMap<PackId, std::ops::Range<usize>>,
}

impl Index {
    /// Reads the snapshot of `store`.
    pub(crate) fn load(disk: &dyn Disk, store: &Uuid, findings: &mut Findings) -> Result<Index, CheckError> {
        let bytes = match read_small(disk, INDEX_PATH, INDEX_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = "there is no chunk index; the next mount rebuilds it";
                findings.push(Finding::info("index", what).file(FILE));
                return Ok(Index::default());
            }
            Err(error) if error.kind() == io::ErrorKind::Other => {
                let what = format!("the chunk index was not compared with the packs: {error}");
                findings.push(Finding::info("index", what).file(FILE));
                return Ok(Index::default());
            }
            Err(error) => return Err(CheckError::Io { path: FILE.into(), error }),
        };
        match IndexSnapshot::decode(&bytes, store) {
            Ok(snapshot) if snapshot.store == *store => Ok(Index::new(snapshot)),
            Ok(snapshot) => {
                let what =
                    format!("the chunk index is of store {}; the next mount rebuilds it", snapshot.store);
                findings.push(Finding::info("index", what).file(FILE));
                Ok(Index::default())
            }
            Err(error) => {
                let what = format!("the chunk index cannot be used, the next mount rebuilds it: {error}");
                findings.push(Finding::info("index", what).file(FILE));
                Ok(Index::default())
            }
        }
    }

    fn new(snapshot: IndexSnapshot) -> Index {
        let IndexSnapshot { packs, mut slots, .. } = snapshot;
        slots.sort_unstable_by_key(|slot| (slot.pack, slot.chunk));
        let mut parts = HashMap::new();
        let mut from = 0;
        while let Some(first) = slots.get(from) {
            let to = from + slots[from..].partition_point(|slot| slot.pack == first.pack);
            if let Some(PackSummary { pack, .. }) = packs.get((first.pack as usize).wrapping_sub(1)) {
                parts.insert(*pack, from..to);
            }
            from = to;
        }
        Index { slots, parts }
    }

    /// What it says of a pack's chunks. Packs that are gone are never asked for: they may linger in it.
    pub(crate) fn slots_of(&self, pack: &PackId) -> &[IndexSlot] {
        self.parts.get(pack).and_then(|part| self.slots.get(part.clone())).unwrap_or_default()
    }
}

/// The slots that do not say what the pack's footer does.
pub(crate) fn check_slots(pack: PackId, footer: &Footer, slots: &[IndexSlot]) -> Option<Finding> {
    let fits = |slot: &&IndexSlot| {
        let chunk = footer.chunks.get(slot.chunk as usize);
        footer.kind == PackKind::Data && chunk.is_some_and(|c| c.id.fingerprint() == slot.fingerprint)
    };
    let wrong = slots.iter().filter(|slot| !fits(slot)).count();
    (wrong > 0).then(|| {
        let what = format!("{wrong} slots of the chunk index do not fit the pack's footer");
        Finding::cache("index-slot", what).file(FILE).pack(pack).advice(REBUILD)
    })
}
