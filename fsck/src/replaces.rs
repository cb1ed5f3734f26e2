//! What a pack's footer says it replaces: each chunk of it that is listed was one of a pack that was compacted. Those packs
//! are gone as a rule; one that a crash left is compared.

use std::collections::{BTreeMap, HashSet};

use cairn_format::{ChunkId, Footer, PackId, PackKind, Replaced};
use cairn_store::PackReader;
use cairn_store::disk::Disk;

/// What is wrong with a footer's list, in words.
pub(crate) fn check_replaces(disk: &dyn Disk, footer: &Footer, there: &HashSet<PackId>) -> Vec<String> {
    let mut wrong = Vec::new();
    if footer.kind == PackKind::Metadata && !footer.replaces.is_empty() {
        wrong.push("a metadata pack says that it replaces others".to_owned());
    }
    let mut places = HashSet::with_capacity(footer.replaces.len());
    let mut by_pack: BTreeMap<PackId, Vec<Replaced>> = BTreeMap::new();
    for replaced in &footer.replaces {
        let Replaced { pack, frame, slot, .. } = *replaced;
        if pack == footer.pack {
            wrong.push(format!("it says that frame {frame}, slot {slot} of itself is replaced"));
        } else if !places.insert((pack, frame, slot)) {
            wrong.push(format!("it replaces frame {frame}, slot {slot} of pack {pack} twice"));
        } else if there.contains(&pack) {
            by_pack.entry(pack).or_default().push(*replaced);
        }
    }
    for (pack, replaced) in by_pack {
        // One that cannot be read is a finding of its own.
        if let Ok(old) = PackReader::open(disk, pack).and_then(|reader| reader.footer()) {
            wrong.extend(replaced.iter().filter_map(|replaced| compare(footer, &old, replaced)));
        }
    }
    wrong
}

fn compare(footer: &Footer, old: &Footer, replaced: &Replaced) -> Option<String> {
    let Replaced { pack, frame, slot, chunk } = *replaced;
    let new = footer.chunks.get(chunk as usize)?;
    let was = chunk_at(old, frame, slot);
    (was != Some(new.id)).then(|| {
        let was = was.map_or("no chunk".to_owned(), |id| format!("chunk {id}"));
        format!("its chunk {chunk} is {}, but in frame {frame}, slot {slot} of pack {pack}, which it replaces, is {was}", new.id)
    })
}

fn chunk_at(footer: &Footer, frame: u32, slot: u32) -> Option<ChunkId> {
    footer.frames.get(frame as usize).filter(|entry| slot < entry.chunks)?;
    let before: u64 = footer.frames[..frame as usize].iter().map(|f| u64::from(f.chunks)).sum();
    footer.chunks.get((before + u64::from(slot)) as usize).map(|chunk| chunk.id)
}
