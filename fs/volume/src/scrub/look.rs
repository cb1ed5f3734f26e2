//! Looking through one pack.

use std::ops::Range;

use cairn_format::{Footer, MetaRecords, PackId, PackKind, ScrubOutcome};
use cairn_store::disk::Access;
use cairn_store::heal::{Examined, Margin, Mended, examine, examine_at, sectors};
use cairn_store::{DecodedFrame, Place, ReadError, Store, pack_path};

use super::SECTOR;

/// Places of one pack that are listed at most.
pub(super) const LEFT_MAX: usize = 1_000;

/// Bytes that are damaged still.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) at: Range<u64>,
    pub(super) reason: String,
}

/// What came of looking through a pack.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    pub(super) pack: PackId,
    /// Bytes that were held against their checksums.
    pub(super) bytes: u64,
    /// Sectors that were, that were written back, and that are damaged still.
    pub(super) checked: u64,
    pub(super) corrected: u64,
    pub(super) uncorrected: u64,
    pub(super) relocated: bool,
    /// Chunks that were held against their ids.
    pub(super) chunks: u64,
    /// What is damaged still; not all, where it is much.
    pub(super) left: Vec<Left>,
    /// Frames whose checksums are right, and what is in them is not.
    pub(super) wrong_frames: Vec<u32>,
    /// How much of its parity its damage took, or would take.
    pub(super) margin: Option<Margin>,
    /// Whether nothing was tried that might have helped.
    untried: bool,
}

impl Looked {
    /// Nothing yet.
    pub(super) fn of(pack: PackId) -> Looked {
        Looked {
            pack,
            bytes: 0,
            checked: 0,
            corrected: 0,
            uncorrected: 0,
            relocated: false,
            chunks: 0,
            left: Vec::new(),
            wrong_frames: Vec::new(),
            margin: None,
            untried: false,
        }
    }

    /// A pack that is not there.
    pub(super) fn lost(pack: PackId) -> Looked {
        Looked { uncorrected: 1, ..Looked::of(pack) }
    }

    pub(super) fn is_uncorrected(&self) -> bool {
        self.uncorrected > 0
    }

    pub(super) fn outcome(&self) -> ScrubOutcome {
        match (self.uncorrected, self.corrected) {
            (0, 0) => ScrubOutcome::Whole,
            (0, _) => ScrubOutcome::Corrected,
            _ if self.untried => ScrubOutcome::Damaged,
            _ => ScrubOutcome::Uncorrected,
        }
    }

    fn leave(&mut self, ranges: &[Range<u64>], reason: &str) {
        self.uncorrected += sectors(ranges);
        let room = LEFT_MAX.saturating_sub(self.left.len());
        let listed = joined(ranges);
        self.left.extend(listed.into_iter().take(room).map(|at| Left { at, reason: reason.to_string() }));
    }

    /// Looks through a pack's twin. What cannot be restored there cannot be in the pack, and is told of that. Whether it came to
    /// the end.
    fn look_at_twin(
        &mut self,
        store: &Store,
        place: Place,
        repair: bool,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> bool {
        let examined = match examine_at(store.disk().as_ref(), place, self.pack, go_on) {
            Ok(None) => return false,
            Ok(Some(examined)) => examined,
            // Both are gone: dropped, or told of the pack.
            Err(_) => return true,
        };
        self.bytes += examined.checked;
        self.checked += examined.layout.file_len().div_ceil(SECTOR);
        if !examined.is_whole() && !self.is_uncorrected() {
            self.settle(store, &examined, repair);
        }
        true
    }

    fn mended(&mut self, examined: &Examined, mended: &Mended) {
        self.corrected += sectors(&mended.restored);
        let reason = match examined.place {
            Place::Pack => "lost: parity does not reach",
            Place::Twin | Place::Across(_) => "lost in the pack's second copy: parity does not reach",
        };
        let cut = examined.wrong_len.unwrap_or(0).saturating_sub(examined.layout.file_len());
        self.corrected += cut.div_ceil(SECTOR);
        self.relocated = mended.relocated;
        self.leave(&mended.lost, reason);
    }
}

/// Looks through a pack, past the page cache, and writes back what can be restored where it is to `repair`. `go_on` is told
/// of bytes that were read. `None` where it was stopped, or the pack was dropped meanwhile.
pub(super) fn look(
    store: &Store,
    pack: PackId,
    (repair, deep): (bool, bool),
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Option<Looked> {
    let mut looked = Looked::of(pack);
    let disk = store.disk();
    let file = disk.open(&pack_path(&pack), Access::Read);
    let len = file.as_ref().ok().and_then(|file| file.len().ok()).unwrap_or(0);
    match examine(disk.as_ref(), pack, go_on) {
        Ok(None) => return None,
        Ok(Some(examined)) => {
            looked.bytes = examined.checked;
            looked.checked = examined.layout.file_len().div_ceil(SECTOR);
            if !looked.settle(store, &examined, repair) {
                return None;
            }
        }
        // Dropped since it was listed; or missing, which is looked for at the end.
        Err(ReadError::Missing { .. }) => return None,
        Err(error) => {
            looked.checked = len.div_ceil(SECTOR);
            let all = 0..len.max(1);
            looked.leave(std::slice::from_ref(&all), &format!("nothing of it can be used: {error}"));
        }
    }
    for (place, _) in store.twins_of(&pack) {
        if !looked.look_at_twin(store, place, repair, go_on) {
            return None;
        }
    }
    if deep && !looked.is_uncorrected() && !looked.look_deeper(store, go_on) {
        return None;
    }
    if let Ok(file) = file {
        // What is read once is not to displace what is read often.
        file.forget(0..len);
    }
    Some(looked)
}

impl Looked {
    /// Has what is damaged written back; whether the pack is still there.
    fn settle(&mut self, store: &Store, examined: &Examined, repair: bool) -> bool {
        if examined.is_whole() {
            return true;
        }
        self.margin = examined.margin();
        if !repair {
            self.untried = true;
            let behind = examined.layout.file_len()..examined.wrong_len.unwrap_or(0);
            let behind = (behind.start < behind.end).then_some(behind);
            let ranges: Vec<_> = examined.damaged.iter().cloned().chain(behind).collect();
            self.leave(&ranges, "damaged: nothing is written back here");
            return true;
        }
        match store.mend(examined) {
            Ok(mended) => self.mended(examined, &mended),
            Err(_) if is_gone(store, &examined.pack) => return false,
            Err(error) => {
                self.untried = true;
                self.leave(&examined.damaged, &format!("it could not be written back: {error}"));
                self.uncorrected = self.uncorrected.max(1);
            }
        }
        true
    }

    /// Decodes every frame, and holds what is in it against the footer, and against the chunks' ids. Whether it came to
    /// the end.
    fn look_deeper(&mut self, store: &Store, go_on: &mut dyn FnMut(u64) -> bool) -> bool {
        let read = store.reader(self.pack).and_then(|reader| Ok((reader.footer()?, reader)));
        let (footer, reader) = match read {
            Ok(found) => found,
            Err(error) => {
                let start = 0..1;
                self.leave(std::slice::from_ref(&start), &error.to_string());
                return true;
            }
        };
        if let (Ok(first), Ok(second)) = (reader.footer_by_header(), reader.footer_by_trailer())
            && first != second
        {
            let at = first.layout().second_footer();
            self.leave(&[at], "its two footers list other things");
        }
        let mut chunks = footer.chunks.iter();
        for (number, entry) in footer.frames.iter().enumerate() {
            let listed: Vec<_> = chunks.by_ref().take(entry.chunks as usize).copied().collect();
            let wrong = match reader.frame(entry) {
                Ok(frame) if frame.chunks != listed || frame.base != footer.base_of(number as u32) => {
                    Some("it holds other chunks than the footer lists".into())
                }
                Ok(frame) => {
                    self.chunks += listed.len() as u64;
                    // Without its base there is no more to hold against what it should be: who lacks that is told of it elsewhere.
                    let whole = store.with_base_found(frame);
                    whole.and_then(|frame| wrong_in(&frame, &footer, store.chunk_key()))
                }
                Err(error) => Some(error.to_string()),
            };
            if let Some(wrong) = wrong {
                self.wrong_frames.push(number as u32);
                let at = entry.offset..entry.offset + u64::from(entry.len);
                self.leave(&[at], &format!("its checksum is right, what is in it is not: {wrong}"));
            }
            if !go_on(0) {
                return false;
            }
        }
        true
    }
}

/// Whether a pack has no file.
fn is_gone(store: &Store, pack: &PackId) -> bool {
    let opened = store.disk().open(&pack_path(pack), Access::Read);
    opened.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// What of a frame is not what it should be.
fn wrong_in(frame: &DecodedFrame, footer: &Footer, key: &[u8; 32]) -> Option<String> {
    if footer.kind == PackKind::Metadata {
        let wrong = MetaRecords::new(&frame.plain).find_map(Result::err);
        return wrong.map(|error| error.to_string());
    }
    (0..frame.chunks.len() as u32).find_map(|slot| match frame.chunk(slot) {
        Some((chunk, bytes)) if cairn_codec::chunk_id(key, bytes) == chunk.id => None,
        Some((chunk, _)) => Some(format!("the bytes of chunk {} are others", chunk.id)),
        None => Some(format!("it ends before its slot {slot}")),
    })
}

/// Ranges, in ascending order, with those that touch made one.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cairn_format::{ChunkEntry, ChunkId, Codec, ParityGeometry, StoreSuperblock, Uuid};
    use cairn_store::StoreOptions;
    use cairn_store::disk::{Disk, MemoryDisk};

    use super::*;

    const PACK: PackId = PackId([7; 16]);

    /// A store with one pack, of which a byte is wrong.
    fn with_a_damaged_pack() -> (MemoryDisk, Store) {
        let disk = MemoryDisk::new();
        let superblock = StoreSuperblock {
            uuid: Uuid([3; 16]),
            chunk_key: [5; 32],
            generation: 1,
            created: 0,
            pack_size: 1 << 20,
        };
        Store::make(&disk, &superblock).expect("made");
        let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: false };
        let store = Store::open(Arc::new(disk.clone()), options).expect("opened");
        let parity = ParityGeometry::new(4, 1);
        let mut writer = store.begin_pack(PACK, PackKind::Data, Uuid([4; 16]), parity).expect("begun");
        let chunk = ChunkEntry { id: ChunkId([1; 32]), len: 20_000 };
        writer.append(Codec::Raw, &[9; 20_000], 20_000, vec![chunk]).expect("appended");
        writer.seal(None).expect("sealed");
        disk.corrupt(&pack_path(&PACK), 5_000, 1).expect("there");
        (disk, store)
    }

    #[test]
    fn a_pack_that_is_dropped_before_it_could_be_mended_counts_as_none() {
        let (disk, store) = with_a_damaged_pack();
        let looked = look(&store, PACK, (true, false), &mut |_| {
            let _ = disk.remove(&pack_path(&PACK));
            true
        });
        assert!(looked.is_none(), "{looked:?}");
        let (_, store) = with_a_damaged_pack();
        let looked = look(&store, PACK, (true, false), &mut |_| true).expect("there");
        assert_eq!((looked.corrected, looked.uncorrected), (1, 0), "{looked:?}");
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(joined(&[0..4, 4..8, 9..10]), [0..8, 9..10]);
    }
}
