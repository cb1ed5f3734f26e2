//! Each decoder of `cairn-format`, on any bytes; where a checksum would keep all but a few out, on bytes that carry the
//! right one. What decodes says the same when it is encoded again.

use std::collections::HashMap;

use cairn_codec::Compressor;
use cairn_format::key::Key;
use cairn_format::*;
use cairn_store::disk::{Access, Disk, MemoryDisk};
use cairn_store::testing::FingerprintTable;
use cairn_store::{REPLICA_PATHS, read_replicas};

use super::choices::Choices;

const OWNER: Uuid = Uuid(*b"owner of hostile");
const PACK: PackId = PackId([0x5a; 16]);
/// A frame that says it holds more is decoded no further here: it would only be slow.
const PLAIN_MAX: u32 = 4 << 20;

/// `body` at its full length, with magic and version in front where they are wanted, and its checksum behind.
fn sealed(body: &[u8], magic: &[u8], len: usize, seal: &Seal) -> Vec<u8> {
    let mut bytes = [magic, &FORMAT_VERSION.to_le_bytes(), body].concat();
    bytes.resize(len - 8, 0);
    let sum = seal.sum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// As [`sealed`], but as long as it comes.
fn sealed_as_long(body: &[u8], magic: &[u8], seal: &Seal) -> Vec<u8> {
    sealed(body, magic, magic.len() + 4 + body.len() + 8, seal)
}

fn pack_seal(position: u64) -> Seal {
    Seal::new(Domain::Pack, &PACK.0, position)
}

/// Superblocks of both kinds, the choice between replicas, the index's snapshot.
pub fn superblocks(input: &[u8]) {
    let mut choices = Choices::new(input);
    let seal = Seal::new(Domain::Superblock, &[0; 16], 0);
    match choices.byte() % 7 {
        0 => {
            let rest = choices.rest();
            let _ = VolumeSuperblock::decode(rest);
            let _ = StoreSuperblock::decode(rest);
            let _ = IndexSnapshot::decode(rest, &OWNER);
            let _ = ScrubState::decode(rest, &OWNER);
            let _ = BaseTable::decode(rest, &OWNER);
        }
        1 => {
            let body = choices.rest();
            let bytes = sealed(&body[..body.len().min(4000)], b"CAIRNVOL", SUPERBLOCK_LEN, &seal);
            if let Ok(found) = VolumeSuperblock::decode(&bytes) {
                assert_eq!(VolumeSuperblock::decode(&found.encode()).as_ref(), Ok(&found));
            }
        }
        2 => {
            let body = choices.rest();
            let bytes = sealed(&body[..body.len().min(4000)], b"CAIRNSTO", SUPERBLOCK_LEN, &seal);
            if let Ok(found) = StoreSuperblock::decode(&bytes) {
                assert_eq!(StoreSuperblock::decode(&found.encode()), Ok(found));
            }
        }
        3 => replicas(&mut choices, &seal),
        4 => {
            let seal = Seal::new(Domain::Scrub, &OWNER.0, 0);
            let bytes = sealed_as_long(choices.rest(), b"CAIRNSCR", &seal);
            if let Ok(found) = ScrubState::decode(&bytes, &OWNER) {
                let again = found.encode();
                assert_eq!(again[..again.len() - 8], bytes[..bytes.len() - 8]);
            }
            let seal = Seal::new(Domain::Bases, &OWNER.0, 0);
            let bytes = sealed_as_long(&bytes[12..bytes.len() - 8], b"CAIRNBAS", &seal);
            if let Ok(found) = BaseTable::decode(&bytes, &OWNER) {
                let again = found.encode();
                assert_eq!(again[..again.len() - 8], bytes[..bytes.len() - 8]);
            }
        }
        _ => {
            let seal = Seal::new(Domain::Index, &OWNER.0, 0);
            let bytes = sealed_as_long(choices.rest(), b"CAIRNIDX", &seal);
            if let Ok(found) = IndexSnapshot::decode(&bytes, &OWNER) {
                let again = found.encode();
                // The store that a snapshot names may be another than the one it is sealed to.
                assert_eq!(again[..again.len() - 8], bytes[..bytes.len() - 8]);
            }
        }
    }
}

/// Of two replicas the newest that decodes is taken, whatever the other is.
fn replicas(choices: &mut Choices<'_>, seal: &Seal) {
    let disk = MemoryDisk::new();
    let mut newest: Option<u64> = None;
    for path in REPLICA_PATHS {
        let cut = [choices.byte(), choices.byte()];
        let body: Vec<u8> = (0..96).map(|_| choices.byte()).collect();
        let mut bytes = sealed(&body, b"CAIRNSTO", SUPERBLOCK_LEN, seal);
        if cut[0].is_multiple_of(4) {
            bytes.truncate(usize::from(cut[1]) * 17);
        }
        if let Ok(found) = StoreSuperblock::decode(&bytes) {
            newest = newest.max(Some(found.generation));
        }
        let file = disk.open(path, Access::CreateNew).expect("a new file");
        file.write_at(&bytes, 0).expect("room");
    }
    let read = read_replicas(&disk, StoreSuperblock::decode, |s| s.generation);
    assert_eq!(read.ok().map(|replicas| replicas.newest.generation), newest);
}

/// Headers, footers and trailers of packs; frames, decompressed.
pub fn packs(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.byte() % 7 {
        0 => {
            let rest = choices.rest();
            let _ = PackHeader::decode(rest, &PACK);
            let _ = Footer::decode(rest, &PACK);
            let _ = Trailer::decode(rest, &PACK);
            let _ = FrameHead::decode(rest, &PACK, 256);
        }
        1 => {
            let body = choices.rest();
            let body = &body[..body.len().min(236)];
            let _ = PackHeader::decode(&sealed(body, b"CAIRNPAK", PACK_HEADER_LEN, &pack_seal(0)), &PACK);
        }
        2 => {
            let bytes = sealed_as_long(choices.rest(), b"CAIRNFTR", &pack_seal(1));
            if let Ok(found) = Footer::decode(&bytes, &PACK) {
                let same = Footer { pack: PACK, ..found };
                assert_eq!(Footer::decode(&same.encode(), &PACK).as_ref(), Ok(&same));
            }
        }
        3 => {
            let mut bytes = choices.rest().to_vec();
            bytes.resize(TRAILER_LEN - 16, 0);
            bytes.extend_from_slice(b"CAIRNEND");
            bytes.extend_from_slice(&pack_seal(2).sum(&bytes).to_le_bytes());
            if let Ok(found) = Trailer::decode(&bytes, &PACK) {
                assert_eq!(found.encode(&PACK)[..14], bytes[..14]);
            }
        }
        4 => {
            let plain = choices.rest();
            let (codec, stored) = Compressor::new(Compression::Zstd(3)).encode(plain);
            let head = FrameHead {
                codec,
                plain_len: plain.len() as u32,
                stored_len: stored.len() as u32,
                bases: Vec::new(),
                chunks: vec![ChunkEntry { id: ChunkId([7; 32]), len: plain.len() as u32 }],
            };
            let bytes = [head.encode(&PACK, 256, &stored), stored].concat();
            let (found, stored) = FrameHead::decode(&bytes, &PACK, 256).expect("just encoded");
            assert_eq!(found, head);
            let decoded = cairn_codec::decode(found.codec, stored, found.plain_len as usize, &found.chunks);
            assert_eq!(decoded.expect("just encoded"), plain);
        }
        // A frame around hostile stored bytes, and a hostile head with the right checksum.
        _ => frame(&mut choices),
    }
}

fn frame(choices: &mut Choices<'_>) {
    let raw = choices.one_in(4);
    let plain_len = (choices.number() as u32) % PLAIN_MAX;
    let edits = choices.one_in(2);
    let mut head_edits = Choices::new(choices.rest());
    let stored = if edits { head_edits.bytes(64) } else { head_edits.rest().to_vec() };
    let codec = if raw { Codec::Raw } else { Codec::Zstd };
    let head = FrameHead {
        codec,
        plain_len,
        stored_len: stored.len() as u32,
        bases: Vec::new(),
        chunks: Vec::new(),
    };
    let mut bytes = [head.encode(&PACK, 256, &stored), stored].concat();
    if edits {
        head_edits.edit(&mut bytes, 4, 24);
        bytes.extend_from_slice(head_edits.rest());
        let len = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let head_len = 32 + u64::from(bytes[5]) * 32 + u64::from(len(16)) * 36;
        if let Some((head, stored)) = usize::try_from(head_len).ok().and_then(|at| bytes.split_at_checked(at))
        {
            let seal = Seal::new(Domain::Frame, &PACK.0, 256);
            let sum = seal.sum_parts(&[&head[..24], &head[32..], stored]);
            bytes[24..32].copy_from_slice(&sum.to_le_bytes());
        }
    }
    if let Ok((head, stored)) = FrameHead::decode(&bytes, &PACK, 256)
        && head.plain_len <= PLAIN_MAX
        && let Ok(plain) = cairn_codec::decode(head.codec, stored, head.plain_len as usize, &head.chunks)
    {
        assert_eq!(plain.len(), head.plain_len as usize);
    }
}

/// Segment headers and records.
pub fn journal(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.byte() % 5 {
        0 => {
            let rest = choices.rest();
            let _ = SegmentHeader::decode(rest, &OWNER);
            let _ = Record::decode_prefix(&OWNER, rest);
            if let Ok(head) = RecordHead::peek(rest) {
                let _ = (head.record_len(), head.prefix_len());
            }
        }
        1 => {
            let body = choices.rest();
            let seal = Seal::new(Domain::Segment, &OWNER.0, 0);
            let bytes = sealed(&body[..body.len().min(4000)], b"CAIRNSEG", SEGMENT_HEADER_LEN, &seal);
            if let Ok(found) = SegmentHeader::decode(&bytes, &OWNER) {
                let _ = (found.first.next(), found.continues.next());
                let same = SegmentHeader { volume: OWNER, ..found };
                assert_eq!(SegmentHeader::decode(&same.encode(), &OWNER), Ok(same));
            }
        }
        2 => {
            let body = choices.rest();
            if let Ok(found) = Mutation::decode_all(body) {
                assert_eq!(Mutation::encode_all(&found), body, "mutations have one encoding");
                found.iter().for_each(look_at);
            }
        }
        _ => {
            let head = RecordHead {
                lsn: Lsn(choices.number()),
                segment: choices.number(),
                synced: Lsn(choices.number()),
                payload_len: choices.number() as u32 & 0xf_ffff,
                body_len: 0,
                owed: choices.number() as u32,
                answer: Answer { request: choices.number(), value: choices.number() },
            };
            let body = choices.rest();
            let head = RecordHead { body_len: body.len() as u32, ..head };
            let sums = vec![7; head.sums() as usize];
            let bytes = Record::encode_prefix(&OWNER, &head, body, &sums);
            if let Ok(found) = Record::decode_prefix(&OWNER, &bytes) {
                let _ = (found.head.lsn.next(), Lsn(found.head.lsn.0 - 1));
                let body = Mutation::encode_all(&found.mutations);
                assert_eq!(Record::encode_prefix(&OWNER, &found.head, &body, &found.sums), bytes);
                for mutation in &found.mutations {
                    look_at(mutation);
                    if let Mutation::Data { len, payload_offset, .. } = mutation {
                        assert!(payload_offset.checked_add(*len).is_some_and(|end| end <= head.payload_len));
                    }
                }
            }
        }
    }
}

/// What everybody does with what decoded: no part of it overflows.
fn look_at(mutation: &Mutation) {
    match mutation {
        Mutation::Data { offset, len, payload_offset, .. } => {
            let _ = (offset + u64::from(*len), payload_offset + len);
        }
        Mutation::Hole { offset, len, .. } => {
            let _ = offset + len;
        }
        Mutation::Map { offset, pieces, .. } => {
            let _ = pieces.iter().fold(*offset, |at, piece| at + u64::from(piece.len));
            pieces.iter().for_each(parts_of);
        }
        Mutation::Put { key, .. } | Mutation::Delete { key } => drop(Key::decode(key)),
        Mutation::Epoch { .. } | Mutation::Checkpoint { .. } => {}
    }
}

fn parts_of(piece: &Piece) {
    let half = piece.len / 2;
    let (front, back) = (piece.part(0, half), piece.part(half, piece.len - half));
    assert!(half == 0 || piece.kind == PieceKind::Hole || front.continues_in(&back));
    let _ = (piece.stored(), piece.part(piece.len - 1, 1));
}

/// Keys and values, and the records they come in.
pub fn namespace(input: &[u8]) {
    let mut choices = Choices::new(input);
    let which = choices.byte() % 9;
    let bytes = choices.rest();
    match which {
        0 => {
            if let Some(key) = Key::decode(bytes) {
                assert_eq!(key.encode(), bytes);
            }
        }
        1 => same(Inode::decode(bytes).map(|inode| inode.encode()), bytes),
        2 => same(DirEntry::decode(bytes).map(|entry| entry.encode()), bytes),
        3 => same(OrderedEntry::decode(bytes).map(|entry| entry.encode()), bytes),
        4 => {
            let pieces = decode_pieces(bytes);
            pieces.iter().flatten().for_each(parts_of);
            let len: u64 = pieces.iter().flatten().map(|piece| u64::from(piece.len)).sum();
            assert!(len <= EXTENT_RANGE, "an extent stands for no more than its range");
            same(pieces.map(|pieces| encode_pieces(&pieces)), bytes);
        }
        5 => same(PackRefs::decode(bytes).map(|refs| refs.encode()), bytes),
        6 => same(Totals::decode(bytes).map(|totals| totals.encode()), bytes),
        7 => {
            let mut again = Encoder::new();
            let all = MetaRecords::new(bytes)
                .all(|record| record.map(|(key, value)| push_meta_record(&mut again, key, value)).is_ok());
            assert!(!all || again.finish() == bytes);
        }
        _ => {
            if let Ok(name) = std::str::from_utf8(bytes)
                && let Some(pack) = PackId::parse(name)
            {
                assert_eq!(pack.to_string(), name);
            }
        }
    }
}

fn same(encoded: Result<Vec<u8>, FormatError>, bytes: &[u8]) {
    if let Ok(encoded) = encoded {
        assert_eq!(encoded, bytes, "values have one encoding");
    }
}

/// The table of the chunk index against a map that forgets nothing.
pub fn index(input: &[u8]) {
    let mut choices = Choices::new(input);
    let limit = 1u64 << (6 + choices.below(14));
    let mut table = FingerprintTable::new(limit);
    let mut all: HashMap<u64, Vec<IndexSlot>> = HashMap::new();
    let mut dead = [false; 8];
    let mut lost = false;
    while !choices.is_empty() {
        let what = choices.byte();
        let pack = u32::from(what & 7) + 1;
        let fingerprint = match what >> 3 & 3 {
            // Few that meet in their buckets, or any.
            0 => u64::from(choices.byte()) << 31,
            1 => u64::from(choices.byte()),
            _ => choices.word(),
        };
        if what >> 5 == 7 {
            dead[pack as usize - 1] = true;
            continue;
        }
        let slot = IndexSlot { fingerprint, pack, chunk: choices.byte().into() };
        if dead[pack as usize - 1] {
            continue;
        }
        let before = table.bytes();
        table.insert(slot, &|pack| !dead[pack as usize - 1]);
        assert!(table.bytes() >= before && table.bytes() <= limit.max(64), "within its limit");
        assert!(table.len() as u64 * 16 <= table.bytes());
        assert!(table.find(fingerprint).any(|found| found == slot), "what was put in last is there");
        let known = all.entry(fingerprint).or_default();
        if !known.contains(&slot) {
            known.push(slot);
        }
        lost |= table.bytes() * 2 > limit;
    }
    let live = |slot: &IndexSlot| !dead[slot.pack as usize - 1];
    for (fingerprint, slots) in &all {
        let found: Vec<_> = table.find(*fingerprint).collect();
        assert!(found.iter().all(|slot| slots.contains(slot)), "nothing is found that was not put in");
        assert!(
            lost || slots.iter().filter(|s| live(s)).all(|s| found.contains(s)),
            "nothing live is forgotten"
        );
    }
    assert!(table.iter().count() == table.len());
}
