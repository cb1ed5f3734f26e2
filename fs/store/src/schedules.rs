//! Properties that hold whichever thread goes on when: see docs/TESTING.md, "Schedules".

use std::sync::{Arc, Mutex};

use cairn_format::{
    ChunkEntry, ChunkId, ChunkPiece, Codec, PackId, PackKind, ParityGeometry, StoreSuperblock, Uuid,
};

use crate::caches::ByteLru;
use crate::disk::{Disk, MemoryDisk};
use crate::sync::{Slow, draw, explore, pause, thread};
use crate::{Located, PackReader, Pins, Store, StoreOptions};

const PLAIN: [u8; 600] = [7; 600];
const ID: ChunkId = ChunkId([3; 32]);

fn pack(n: u32) -> PackId {
    PackId::new(1, 1, n)
}

/// A disk with a store in which packs 0 and 1 hold the same chunk.
fn made() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let superblock = StoreSuperblock {
        uuid: Uuid([1; 16]),
        generation: 1,
        created: 0,
        pack_size: 1 << 16,
        chunk_key: [2; 32],
    };
    Store::make(&disk, &superblock).expect("made");
    let made = disk.clone();
    crate::sync::once(move || {
        let store = open(&made);
        (0..2).for_each(|n| drop(fill(&store, pack(n))));
    });
    disk.fork()
}

fn open(disk: &MemoryDisk) -> Store {
    let options = StoreOptions { index_mem: 1 << 16, cache_size: 1 << 16, read_only: false };
    Store::open(Arc::new(Slow(disk.clone())), options).expect("opened")
}

/// Writes a pack with the chunk.
fn fill(store: &Store, pack: PackId) -> crate::SealedPack {
    let mut writer =
        store.begin_pack(pack, PackKind::Data, Uuid([4; 16]), ParityGeometry::new(4, 1)).expect("begun");
    let chunk = ChunkEntry { id: ID, len: PLAIN.len() as u32 };
    writer.append(Codec::Raw, &PLAIN, chunk.len, vec![chunk]).expect("appended");
    writer.seal(None).expect("sealed")
}

fn read(store: &Store, at: &Located) -> Result<(), crate::ReadError> {
    let piece = ChunkPiece {
        chunk: ID,
        pack: at.pack,
        frame: at.frame,
        slot: at.slot,
        offset: 0,
        chunk_len: at.len,
        stored: at.stored,
        base: at.base,
    };
    let mut bytes = [0; PLAIN.len()];
    store.read(&piece, 0, &mut bytes)?;
    assert_eq!(bytes, PLAIN);
    Ok(())
}

#[test]
fn a_pack_that_a_hit_pinned_is_not_dropped_before_the_pin_is_given_back() {
    let disk = made();
    explore(2500, move || {
        let store = Arc::new(open(&disk.fork()));
        let finders = (0..2).map(|_| {
            let store = store.clone();
            thread::spawn(move || {
                let mut pins = Pins::default();
                let found = store.lookup_pin(&ID, &mut pins);
                pause();
                if let Some(at) = &found {
                    read(&store, at).expect("it is pinned");
                    // Nor by what the cache has.
                    PackReader::open(&**store.disk(), at.pack).expect("it is pinned");
                }
                store.release(pins);
            })
        });
        let collectors = (0..2).map(|n| {
            let store = store.clone();
            thread::spawn(move || {
                let condemned = store.condemn(&pack(n));
                if condemned {
                    store.drop_pack(&pack(n)).expect("dropped");
                }
                condemned
            })
        });
        let (finders, collectors): (Vec<_>, Vec<_>) = (finders.collect(), collectors.collect());
        // A pack that is made meanwhile, and pinned as it becomes known.
        let mut pins = Pins::default();
        store.publish(&fill(&store, pack(2)), Some(&mut pins));
        assert!(!store.condemn(&pack(2)), "pinned");
        let found = store.lookup_pin(&ID, &mut pins).expect("pack 2 has it");
        read(&store, &found).expect("it is pinned");
        finders.into_iter().for_each(|t| t.join().expect("no panic"));
        let condemned: Vec<_> = collectors.into_iter().map(|t| t.join().expect("no panic")).collect();
        store.release(pins);
        for (n, condemned) in condemned.into_iter().enumerate() {
            assert_eq!(store.data_summaries().iter().any(|known| known.pack == pack(n as u32)), !condemned);
        }
        assert!(store.condemn(&pack(2)), "nobody pins it any more");
    });
}

#[test]
fn a_pack_that_was_dropped_gives_its_room_back_whoever_reads_meanwhile() {
    let disk = made();
    explore(1500, move || {
        let disk = disk.fork();
        let store = Arc::new(open(&disk));
        let free = |disk: &MemoryDisk| disk.space().expect("told").available;
        let before = free(&disk);
        let mut pins = Pins::default();
        let at = store.lookup_pin(&ID, &mut pins).expect("it is there");
        store.release(pins);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let store = store.clone();
                // As one that looked up where its bytes are before they were written somewhere else.
                thread::spawn(move || drop(read(&store, &at)))
            })
            .collect();
        assert!(store.condemn(&at.pack));
        store.drop_pack(&at.pack).expect("dropped");
        readers.into_iter().for_each(|t| t.join().expect("no panic"));
        assert!(free(&disk) > before, "somebody has the file open");
    });
}

#[test]
fn a_cache_gives_what_was_put_there_and_counts_its_bytes() {
    explore(1000, || {
        let cache: Arc<ByteLru<usize, usize>> = Arc::new(ByteLru::new(100, 2));
        let put: Arc<Mutex<Vec<bool>>> = Arc::new(Mutex::new(vec![false; 6]));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (cache, put) = (cache.clone(), put.clone());
                thread::spawn(move || {
                    for _ in 0..4 {
                        let key = draw(6);
                        match draw(4) {
                            0 | 1 => {
                                put.lock().expect("whole")[key] = true;
                                cache.put(key, key, key, 10 + draw(30) as u64);
                            }
                            2 => cache.remove(key, &key),
                            _ => {
                                if let Some(found) = cache.get(key, &key) {
                                    assert_eq!(found, key);
                                    assert!(put.lock().expect("whole")[key], "nobody put it");
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
        cache.check();
    });
}
