//! The damages of a drill: each changes a pack, and what is said to be promised is what parity reaches, by an account that asks
//! nothing of the code that heals.

use std::sync::Arc;

use cairn_format::{
    ChunkEntry, ChunkId, Codec, PackId, PackKind, PackLayout, ParityGeometry, StoreSuperblock, Uuid,
};
use cairn_store::disk::{Access, Disk, MemoryDisk};
use cairn_store::{Store, StoreOptions, pack_path};
use cairn_tests::dice::noise;
use cairn_tests::reach::Reach;
use cairn_volume::drill::{Damage, Dice, Edit};

const PACK: PackId = PackId([7; 16]);

/// A pack with frames of these lengths, and where its parts lie.
fn sealed(frames: &[usize], parity: ParityGeometry) -> (Arc<MemoryDisk>, PackLayout) {
    let disk = Arc::new(MemoryDisk::new());
    let superblock = StoreSuperblock {
        uuid: Uuid([1; 16]),
        generation: 1,
        created: 0,
        pack_size: 64 << 20,
        chunk_key: [3; 32],
    };
    Store::make(&*disk, &superblock).expect("laid out");
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 0, read_only: false };
    let store = Store::open(disk.clone(), options).expect("opens");
    let mut writer = store.begin_pack(PACK, PackKind::Data, Uuid([2; 16]), parity).expect("begins");
    for len in frames {
        let chunk = ChunkEntry { id: ChunkId([*len as u8; 32]), len: *len as u32 };
        let bytes = noise(*len as u64, *len);
        writer.append(Codec::Raw, &bytes, *len as u32, vec![chunk]).expect("appends");
    }
    let layout = writer.seal(None).expect("seals").footer.layout();
    (disk, layout)
}

/// What edits make of a pack; what cannot be read is as good as another byte.
fn damaged(whole: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for edit in edits {
        match edit {
            Edit::Cut(to) => bytes.truncate(*to as usize),
            Edit::Remove => bytes.clear(),
            Edit::Unreadable { range, .. } => {
                bytes[range.start as usize..range.end as usize].iter_mut().for_each(|byte| *byte = !*byte);
            }
            edit => edit.apply(0, &mut bytes),
        }
    }
    bytes
}

#[test]
fn what_a_drill_says_is_promised_is_what_parity_reaches() {
    let shapes: [&[usize]; 4] = [&[700], &[3_000, 90_000], &[150_000; 10], &[200_000; 40]];
    let parities = [(16, 2), (16, 4), (4, 1), (3, 5), (0, 0)].map(|(k, m)| match k {
        0 => ParityGeometry::default(),
        _ => ParityGeometry::new(k, m),
    });
    for (frames, parity) in shapes.into_iter().flat_map(|frames| parities.map(|parity| (frames, parity))) {
        let (disk, layout) = sealed(frames, parity);
        let file = disk.open(&pack_path(&PACK), Access::Read).expect("there");
        let mut whole = vec![0; file.len().expect("a length") as usize];
        file.read_exact_at(&mut whole, 0).expect("whole");
        for damage in Damage::ALL {
            let (mut done, mut changed, mut promised) = (0, 0, 0);
            for seed in 0..12 {
                let planned = damage.plan(&layout, &*file, &mut Dice::new(seed)).expect("readable");
                let Some(planned) = planned else { continue };
                let after = damaged(&whole, &planned.edits);
                done += 1;
                changed += u64::from(after != whole);
                promised += u64::from(planned.promised);
                let within = Reach::of(&layout, &whole, &after).is_within();
                assert!(
                    within || !planned.promised,
                    "{damage:?}, seed {seed}, {parity:?}: {:?}",
                    planned.edits
                );
                if after.is_empty() {
                    assert!(!planned.promised, "{damage:?} leaves nothing");
                }
            }
            // Zeros may be written where there are zeros.
            assert!(
                changed > 0 || done == 0,
                "{damage:?} of {frames:?} with {parity:?}: {changed} of {done}"
            );
            let gone = matches!(damage, Damage::EmptyPack | Damage::MissingPack);
            if parity.is_none() || gone {
                assert_eq!(promised, 0, "{damage:?}");
            } else if parity.parity > 1 {
                // A mebibyte is more than a small pack's parity reaches.
                let long = [Damage::MebibyteHole, Damage::Footer, Damage::Sums].contains(&damage);
                assert!(promised > 0 || done == 0 || long, "{damage:?} is never promised with {parity:?}");
            }
        }
    }
}

#[test]
fn damages_have_names_of_their_own() {
    let mut names: Vec<_> =
        Damage::ALL.iter().flat_map(|damage| [damage.names().0, damage.names().1]).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 2 * Damage::ALL.len());
}
