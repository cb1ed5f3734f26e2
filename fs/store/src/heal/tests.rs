//! Damage within the guarantee is found and mended, whatever it is; the guarantee is computed here by itself, byte by byte.

use std::ops::Range;
use std::sync::Arc;

use cairn_format::{
    ChunkEntry, ChunkId, Codec, PackId, PackKind, PackLayout, ParityGeometry, SECTOR, TRAILER_LEN, Uuid,
};
use proptest::prelude::*;

use super::{examine, footer, frame, mend};
use crate::disk::{Access, Disk, MemoryDisk};
use crate::pack::{PackReader, PackWriter, SealedPack, pack_path};

const PACK: PackId = PackId([7; 16]);

/// A pack with frames of these lengths, on a disk of its own.
fn sealed(frames: &[usize], parity: ParityGeometry) -> (Arc<MemoryDisk>, SealedPack) {
    let disk = Arc::new(MemoryDisk::new());
    disk.create_dir("packs").unwrap();
    disk.create_dir(&format!("packs/{}", PACK.directory())).unwrap();
    let (store, volume) = (Uuid([1; 16]), Uuid([2; 16]));
    let mut writer = PackWriter::begin(disk.clone(), PACK, PackKind::Data, store, volume, parity).unwrap();
    let mut state = 1u64;
    for len in frames {
        let noise = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        let bytes: Vec<u8> = (0..*len).map(noise).collect();
        let chunk = ChunkEntry { id: ChunkId([*len as u8; 32]), len: *len as u32 };
        writer.append(Codec::Raw, &bytes, *len as u32, vec![chunk]).unwrap();
    }
    let sealed = writer.seal(None).unwrap();
    (disk, sealed)
}

fn contents(disk: &MemoryDisk) -> Vec<u8> {
    let file = disk.open(&pack_path(&PACK), Access::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The same, where some of it may not be readable: that is as in `left`.
fn contents_or(disk: &MemoryDisk, left: &[u8]) -> Vec<u8> {
    let file = disk.open(&pack_path(&PACK), Access::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    for (number, sector) in bytes.chunks_mut(SECTOR as usize).enumerate() {
        let start = number * SECTOR as usize;
        if file.read_exact_at(sector, start as u64).is_err() {
            let left = left.get(start..).unwrap_or_default();
            sector.iter_mut().enumerate().for_each(|(n, byte)| *byte = left.get(n).copied().unwrap_or(0));
        }
    }
    bytes
}

fn overwrite(disk: &MemoryDisk, bytes: &[u8]) {
    let file = disk.open(&pack_path(&PACK), Access::Write).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_at(bytes, 0).unwrap();
}

/// Something that happens to a pack's file.
#[derive(Clone, Debug)]
enum Fault {
    Flip(prop::sample::Index, u8),
    Zeros(prop::sample::Index, u64),
    Noise(prop::sample::Index, u64),
    Swap(prop::sample::Index, prop::sample::Index),
    Cut(u64),
    Garbage(u64),
}

impl Fault {
    fn inflict(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        let sectors = len.div_ceil(SECTOR as usize);
        let run = |at: &prop::sample::Index, count: u64| {
            let start = at.index(sectors.max(1)) * SECTOR as usize;
            start..(start + (count * SECTOR) as usize).min(len)
        };
        match self {
            Fault::Flip(..) if len == 0 => {}
            Fault::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Fault::Zeros(at, count) => bytes[run(at, *count)].fill(0),
            Fault::Noise(at, count) => {
                bytes[run(at, *count)].iter_mut().for_each(|b| *b = b.wrapping_mul(37) ^ 0x5a)
            }
            Fault::Swap(a, b) => {
                let (a, b) = (run(a, 1), run(b, 1));
                let (first, second) = (bytes[a.clone()].to_vec(), bytes[b.clone()].to_vec());
                if first.len() == second.len() {
                    bytes[a].copy_from_slice(&second);
                    bytes[b].copy_from_slice(&first);
                }
            }
            Fault::Cut(by) => bytes.truncate(len.saturating_sub(*by as usize)),
            Fault::Garbage(by) => bytes.resize(len + *by as usize, 0xaa),
        }
    }
}

fn faults() -> impl Strategy<Value = Fault> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 0u8..8).prop_map(|(at, bit)| Fault::Flip(at, bit)),
        (at(), 1u64..40).prop_map(|(at, count)| Fault::Zeros(at, count)),
        (at(), 1u64..40).prop_map(|(at, count)| Fault::Noise(at, count)),
        (at(), at()).prop_map(|(a, b)| Fault::Swap(a, b)),
        (1u64..100_000).prop_map(Fault::Cut),
        (1u64..9_000).prop_map(Fault::Garbage),
    ]
}

/// Sectors of the whole pack that are not what they were.
fn spoilt(whole: &[u8], damaged: &[u8]) -> Vec<bool> {
    whole
        .chunks(SECTOR as usize)
        .enumerate()
        .map(|(n, sector)| {
            damaged.get(n * SECTOR as usize..n * SECTOR as usize + sector.len()) != Some(sector)
        })
        .collect()
}

/// Whether parity reaches: no column has lost more than M bytes, and one of the three places that say where things lie is whole.
fn within(layout: &PackLayout, spoilt: &[bool], found: bool) -> bool {
    let Some(stripe) = layout.stripe() else { return false };
    let bad = |at: u64| spoilt.get((at / SECTOR) as usize).copied().unwrap_or(false);
    let lost_at = |column: u64| {
        let data = (0..stripe.filled()).filter(|n| {
            let unit = stripe.data_unit(*n);
            unit.start + column < unit.end && bad(unit.start + column)
        });
        let parity =
            (0..usize::from(stripe.geometry().parity)).filter(|n| bad(layout.parity_unit(*n).start + column));
        data.count() + parity.count()
    };
    // What is lost changes only at the edges of sectors, which lie at every 64th column at most.
    let columns = (0..stripe.unit()).step_by(64);
    found && columns.map(lost_at).all(|lost| lost <= usize::from(stripe.geometry().parity))
}

/// Whether the layout can be found: header, trailer at the very end, or its copy before the parity.
fn layout_is_there(whole: &[u8], damaged: &[u8], layout: &PackLayout) -> bool {
    let same = |at: Range<u64>| {
        let at = at.start as usize..at.end as usize;
        damaged.get(at.clone()) == Some(&whole[at])
    };
    let len = whole.len() as u64;
    let copy = layout.parity_area().start;
    same(0..256)
        || (damaged.len() == whole.len() && same(len - TRAILER_LEN as u64..len))
        || same(copy..copy + TRAILER_LEN as u64)
}

fn geometry() -> impl Strategy<Value = ParityGeometry> {
    prop_oneof![
        4 => Just(ParityGeometry::new(16, 2)),
        1 => Just(ParityGeometry::new(16, 4)),
        1 => (1u8..20, 1u8..6).prop_map(|(k, m)| ParityGeometry::new(k, m)),
    ]
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(1usize..3_000, 1..4),
        prop::collection::vec(1usize..60_000, 1..12),
        prop::collection::vec(100_000usize..200_000, 8..24),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn what_is_within_the_guarantee_is_mended_and_what_is_beyond_is_named(
        frames in shape(),
        parity in geometry(),
        faults in prop::collection::vec(faults(), 0..5),
        unreadable in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let (disk, sealed) = sealed(&frames, parity);
        let whole = contents(&disk);
        let layout = sealed.footer.layout();
        prop_assert_eq!(layout.file_len(), whole.len() as u64);
        let mut damaged = whole.clone();
        faults.iter().for_each(|fault| fault.inflict(&mut damaged));
        overwrite(&disk, &damaged);
        let len = damaged.len();
        for at in unreadable.iter().filter(|_| len > 0) {
            let start = at.index(len) / SECTOR as usize * SECTOR as usize;
            let end = len.min(start + SECTOR as usize);
            disk.lose(&pack_path(&PACK), start as u64..end as u64, false).unwrap();
            // What cannot be read is as good as other bytes; where it lay behind the end it is cut off again.
            (start..end).for_each(|at| damaged[at] = whole.get(at).map_or(0xaa, |byte| !byte));
        }

        let within = within(&layout, &spoilt(&whole, &damaged), layout_is_there(&whole, &damaged, &layout));
        let reader = PackReader::open(&*disk, PACK).unwrap();
        for entry in &sealed.footer.frames {
            let at = entry.offset as usize..entry.offset as usize + entry.len as usize;
            match frame(Some(&*disk), &reader, entry) {
                Some(bytes) => prop_assert_eq!(&bytes, &whole[at], "other bytes"),
                None => prop_assert!(!within, "a frame is not restored"),
            }
        }
        if let Some(found) = footer(Some(&*disk), &reader) {
            prop_assert_eq!(&found, &sealed.footer);
        } else {
            prop_assert!(!within, "the footer is not restored");
        }

        match examine(&*disk, PACK, &mut |_| true) {
            Ok(examined) => {
                let examined = examined.expect("nobody stops it");
                prop_assert_eq!(examined.is_whole(), damaged == whole, "{:?}", examined);
                let mended = mend(&*disk, &examined).unwrap();
                let left = |at: usize| damaged.get(at).copied().unwrap_or(0);
                let found = contents_or(&disk, &damaged);
                let invented = (0..found.len().min(whole.len()))
                    .find(|at| found[*at] != whole[*at] && found[*at] != left(*at));
                prop_assert_eq!(invented, None, "a byte that neither was there nor belongs there");
                if within {
                    prop_assert_eq!(&mended.lost, &Vec::new());
                    prop_assert!(contents(&disk) == whole, "mended, and other bytes");
                }
                if mended.lost.is_empty() {
                    prop_assert!(contents(&disk) == whole, "nothing is said to be lost, and other bytes");
                    let again = examine(&*disk, PACK, &mut |_| true).unwrap().expect("nobody stops it");
                    prop_assert!(again.is_whole());
                }
            }
            Err(_) => prop_assert!(!within),
        }
    }
}

#[test]
fn a_hole_of_all_parity_units_comes_back_wherever_it_begins() {
    let (disk, sealed) = sealed(&[150_000; 20], ParityGeometry::new(16, 2));
    let whole = contents(&disk);
    let layout = sealed.footer.layout();
    // The sectors at both ends of a hole are lost with it.
    let hole = (2 * layout.stripe().unwrap().unit() / SECTOR - 1) * SECTOR;
    for start in (0..layout.parity_area().end - hole).step_by(23 * SECTOR as usize) {
        let mut damaged = whole.clone();
        damaged[start as usize..(start + hole) as usize].fill(0);
        overwrite(&disk, &damaged);
        let examined = examine(&*disk, PACK, &mut |_| true).unwrap().unwrap();
        assert_eq!(mend(&*disk, &examined).unwrap().lost, []);
        assert!(contents(&disk) == whole, "a hole at {start}");
    }
}

#[test]
fn only_what_is_damaged_is_written() {
    let (disk, _) = sealed(&[150_000; 20], ParityGeometry::new(16, 2));
    let mut damaged = contents(&disk);
    damaged[100_000] ^= 1;
    overwrite(&disk, &damaged);
    let examined = examine(&*disk, PACK, &mut |_| true).unwrap().unwrap();
    let sector = 100_000 / SECTOR * SECTOR;
    assert_eq!(examined.damaged, vec![sector..sector + SECTOR; 1]);
    assert_eq!(mend(&*disk, &examined).unwrap().restored, examined.damaged);
}

/// Parity made of sectors that nothing speaks for any more would call whatever lies there right.
#[test]
fn regression_parity_is_not_computed_from_data_that_nothing_speaks_for() {
    let (disk, sealed) = sealed(&[150_000; 20], ParityGeometry::new(16, 2));
    let whole = contents(&disk);
    let layout = sealed.footer.layout();
    let mut damaged = whole.clone();
    let spoil = |damaged: &mut Vec<u8>, at: Range<u64>| {
        damaged[at.start as usize..at.end as usize].iter_mut().for_each(|b| *b ^= 0x55);
    };
    // All checksums, the parity that could restore them, and a sector of data.
    let first = layout.sums().start % layout.stripe().unwrap().unit();
    for unit in [0, 1] {
        let start = layout.parity_unit(unit).start + first;
        spoil(&mut damaged, start..start + layout.sums().end - layout.sums().start);
    }
    for table in [layout.sums(), layout.second_sums(), layout.parity_sums(), 5 * SECTOR..6 * SECTOR] {
        spoil(&mut damaged, table);
    }
    overwrite(&disk, &damaged);
    let examined = examine(&*disk, PACK, &mut |_| true).unwrap().unwrap();
    assert_ne!(mend(&*disk, &examined).unwrap().lost, []);
    let found = contents(&disk);
    let area = layout.parity_area();
    let wrong = (area.start..area.end).find(|at| {
        found[*at as usize] != whole[*at as usize] && found[*at as usize] != damaged[*at as usize]
    });
    assert_eq!(wrong, None, "parity of what is damaged");
}

/// A copy of the footer that is whole counts, whatever else of its sectors is lost and whatever led to it.
#[test]
fn a_footer_is_read_wherever_a_copy_of_it_is_whole() {
    let (disk, sealed) = sealed(&[9_000, 9_000], ParityGeometry::new(16, 2));
    let layout = sealed.footer.layout();
    let len = layout.file_len();
    for copy in [layout.footer(), layout.second_footer()] {
        let middle = layout.parity_area().start;
        let kept = [middle..middle + TRAILER_LEN as u64, copy];
        let whole = contents(&disk);
        let spoil = |at: u64| if kept.iter().any(|kept| kept.contains(&at)) { 0 } else { 0x55 };
        let damaged: Vec<u8> = (0..len).map(|at| whole[at as usize] ^ spoil(at)).collect();
        overwrite(&disk, &damaged);
        let reader = PackReader::open(&*disk, PACK).unwrap();
        assert_eq!(footer(Some(&*disk), &reader).as_ref(), Some(&sealed.footer));
        overwrite(&disk, &whole);
    }
}

/// Otherwise who opens the pack meets a damaged footer each time, and has all of the pack looked through.
#[test]
fn regression_a_second_footer_is_written_again_from_the_first_whatever_else_is_lost() {
    let (disk, sealed) = sealed(&[9_000, 9_000], ParityGeometry::new(16, 2));
    let layout = sealed.footer.layout();
    let whole = contents(&disk);
    let trailer = layout.second_footer().end..layout.file_len();
    let kept = [layout.footer(), trailer];
    let spoil = |at: u64| if kept.iter().any(|kept| kept.contains(&at)) { 0 } else { 0x55 };
    let damaged: Vec<u8> = (0..layout.file_len()).map(|at| whole[at as usize] ^ spoil(at)).collect();
    overwrite(&disk, &damaged);
    let examined = examine(&*disk, PACK, &mut |_| true).unwrap().unwrap();
    mend(&*disk, &examined).unwrap();
    let at = layout.second_footer();
    let at = at.start as usize..at.end as usize;
    assert!(contents(&disk)[at.clone()] == whole[at]);
}

/// The checksums of the parity lost, and of each of its units another part.
#[test]
fn regression_parity_units_that_are_wrong_in_different_columns_restore_what_lies_in_both() {
    let (disk, sealed) = sealed(&[2_667, 814], ParityGeometry::new(16, 2));
    let whole = contents(&disk);
    let layout = sealed.footer.layout();
    let mut damaged = whole.clone();
    let (first, second) = (layout.parity_unit(0).start, layout.parity_unit(1).start + 4_050);
    let at = [0, first, second, layout.parity_sums().start];
    at.into_iter().for_each(|at| damaged[at as usize] ^= 1);
    overwrite(&disk, &damaged);
    let examined = examine(&*disk, PACK, &mut |_| true).unwrap().unwrap();
    assert_eq!(mend(&*disk, &examined).unwrap().lost, []);
    assert!(contents(&disk) == whole);
}

/// A copy in another place has what can be read of the last sector.
#[test]
fn regression_a_pack_that_ends_early_and_has_a_bad_sector_comes_back_in_another_place() {
    let (disk, sealed) = sealed(&[2_667, 814], ParityGeometry::new(16, 2));
    let whole = contents(&disk);
    let second = sealed.footer.layout().parity_unit(1).start / SECTOR * SECTOR;
    overwrite(&disk, &whole[..whole.len() - 147]);
    disk.lose(&pack_path(&PACK), second..second + SECTOR, true).unwrap();
    let examined = examine(&*disk, PACK, &mut |_| true).unwrap().unwrap();
    let mended = mend(&*disk, &examined).unwrap();
    assert_eq!((mended.lost, mended.relocated), (Vec::new(), true));
    assert!(contents(&disk) == whole);
}

/// Two menders may have found the same. What came since the first was done is for whoever looks next.
#[test]
fn what_was_mended_since_it_was_found_is_not_lost_because_of_what_came_since() {
    let (disk, sealed) = sealed(&[9_000; 20], ParityGeometry::new(4, 1));
    let whole = contents(&disk);
    let unit = sealed.footer.layout().stripe().unwrap().unit();
    let spoil = |at: u64| {
        let mut damaged = whole.clone();
        damaged[at as usize..(at + SECTOR) as usize].fill(0x55);
        overwrite(&disk, &damaged);
        examine(&*disk, PACK, &mut |_| true).unwrap().unwrap()
    };
    let found = spoil(2 * SECTOR);
    spoil(2 * SECTOR + unit);
    let mended = mend(&*disk, &found).unwrap();
    assert_eq!((mended.lost, mended.relocated), (Vec::new(), false));
    let left = examine(&*disk, PACK, &mut |_| true).unwrap().unwrap();
    assert_eq!(mend(&*disk, &left).unwrap().lost, []);
    assert!(contents(&disk) == whole);
}
