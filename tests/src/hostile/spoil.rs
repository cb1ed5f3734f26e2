//! Spoiling a volume: bytes anywhere, or fields behind checksums, which are then made right again.

use cairn_codec::Compressor;
use cairn_format::{
    Answer, Checkpoint, CheckpointKind, CheckpointRef, Codec, Compression, Domain, Encoder, Footer,
    FrameEntry, FrameHead, IndexSnapshot, Lsn, Mutation, PACK_HEADER_LEN, PackHeader, PackId, PackKind,
    PackLayout, ParityGeometry, Record, RecordHead, SEGMENT_DATA_START, SEGMENT_HEADER_LEN, SUPERBLOCK_LEN,
    Seal, TRAILER_LEN, Trailer, payload_sums, push_meta_record,
};
use cairn_store::disk::{Disk, MemoryDisk};

use super::choices::Choices;
use super::images::{Image, Records};
use super::records;

/// The pack of a namespace that was made up: newer than the real ones.
const MADE_UP: PackId = PackId([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1]);

/// Spoils `image` as the choices say, in one way or in a few.
pub fn spoil(choices: &mut Choices<'_>, image: &mut Image) {
    for _ in 0..=choices.below(3) {
        match choices.below(16) {
            0 => superblock(choices, image),
            1 => store_superblock(choices, image),
            2 => segment_header(choices, image),
            3 => record(choices, image),
            4 | 5 => appended(choices, image),
            6 => header_or_trailer(choices, image),
            7 => footer(choices, image),
            8 => frame(choices, image),
            9 => index(choices, image),
            10 => file(choices, image),
            11 => chain(choices, image),
            _ => state(choices, image),
        }
    }
}

/// Puts a checksum into its place.
pub fn set_sum(bytes: &mut [u8], at: usize, sum: u64) {
    bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
}

/// Puts the right checksum behind all but the last eight bytes.
pub fn seal_last(bytes: &mut [u8], seal: &Seal) {
    if let Some(at) = bytes.len().checked_sub(8) {
        let sum = seal.sum(&bytes[..at]);
        set_sum(bytes, at, sum);
    }
}

fn superblock_bytes(choices: &mut Choices<'_>, image: &Image, path: &str, fields: usize) {
    let mut bytes = image.read(path);
    choices.edit(&mut bytes, 12, fields);
    if bytes.len() == SUPERBLOCK_LEN {
        seal_last(&mut bytes, &Seal::new(Domain::Superblock, &[0; 16], 0));
    }
    image.put(path, &bytes);
    if !choices.one_in(3) {
        image.put(&format!("{path}.backup"), &bytes);
    }
}

fn superblock(choices: &mut Choices<'_>, image: &mut Image) {
    superblock_bytes(choices, image, "superblock", 180);
}

fn store_superblock(choices: &mut Choices<'_>, image: &mut Image) {
    superblock_bytes(choices, image, "store/superblock", 90);
}

fn segments(image: &Image) -> Vec<String> {
    image.world.disk.files().into_iter().filter(|path| path.ends_with(".seg")).collect()
}

/// A segment, most likely one that holds records.
fn segment(choices: &mut Choices<'_>, image: &Image) -> Option<(String, Vec<u8>)> {
    let all = segments(image);
    let used: Vec<_> = all.iter().filter(|path| !records_of(&image.read(path)).is_empty()).cloned().collect();
    let from = if used.is_empty() || choices.one_in(8) { &all } else { &used };
    let path = choices.pick(from)?.clone();
    let bytes = image.read(&path);
    Some((path, bytes))
}

fn segment_header(choices: &mut Choices<'_>, image: &mut Image) {
    let Some((path, mut bytes)) = segment(choices, image) else { return };
    if bytes.len() < 2 * SEGMENT_HEADER_LEN {
        return;
    }
    choices.edit(&mut bytes, 12, 104);
    seal_last(&mut bytes[..SEGMENT_HEADER_LEN], &Seal::new(Domain::Segment, &image.superblock.uuid.0, 0));
    bytes.copy_within(..SEGMENT_HEADER_LEN, SEGMENT_HEADER_LEN);
    image.put(&path, &bytes);
}

/// Where the records of a segment lie, as their heads say.
fn records_of(bytes: &[u8]) -> Vec<(usize, RecordHead)> {
    let mut found = Vec::new();
    let mut at = SEGMENT_DATA_START as usize;
    while let Some(head) = bytes.get(at..).and_then(|rest| RecordHead::peek(rest).ok()) {
        let len = head.record_len();
        if at as u64 + len > bytes.len() as u64 {
            break;
        }
        found.push((at, head));
        at += len.next_multiple_of(8) as usize;
    }
    found
}

/// Changes a record that is there.
fn record(choices: &mut Choices<'_>, image: &mut Image) {
    let Some((path, mut bytes)) = segment(choices, image) else { return };
    let all = records_of(&bytes);
    let Some((at, head)) = choices.pick(&all).copied() else { return };
    let prefix = head.prefix_len() as usize;
    if choices.one_in(3) {
        choices.edit(&mut bytes, at + 4, at + 40);
    } else {
        choices.edit(&mut bytes, at + 48, at + prefix);
    }
    // By what it says now, if that is anywhere near.
    let Ok(head) = RecordHead::peek(&bytes[at..]) else { return };
    let Some(whole) = bytes.get(at..at.saturating_add(head.prefix_len().min(1 << 20) as usize)) else {
        return;
    };
    let seal = Seal::new(Domain::Record, &image.superblock.uuid.0, head.lsn.0);
    let sum = seal.sum_parts(&[&whole[..40], &whole[48..]]);
    set_sum(&mut bytes, at + 40, sum);
    image.put(&path, &bytes);
}

/// Appends records that the volume never wrote.
fn appended(choices: &mut Choices<'_>, image: &mut Image) {
    let last = segments(image).into_iter().filter_map(|path| {
        let bytes = image.read(&path);
        let (at, head) = *records_of(&bytes).last()?;
        Some((head.lsn, path, at, head))
    });
    let Some((mut lsn, path, at, head)) = last.max_by_key(|(lsn, ..)| *lsn) else { return };
    let mut bytes = image.read(&path);
    let mut at = at + head.record_len().next_multiple_of(8) as usize;
    for _ in 0..=choices.below(4) {
        let mutations: Vec<_> = (0..=choices.below(5)).map(|_| records::mutation(choices, image)).collect();
        let body = Mutation::encode_all(&mutations);
        lsn = if choices.one_in(8) { Lsn(choices.number()) } else { Lsn(lsn.0.wrapping_add(1)) };
        let payload = vec![b'p'; choices.below(5000)];
        let head = RecordHead {
            lsn,
            segment: if choices.one_in(16) { choices.number() } else { head.segment },
            synced: if choices.one_in(4) { Lsn(choices.number()) } else { head.synced },
            body_len: body.len() as u32,
            payload_len: payload.len() as u32,
            owed: if choices.one_in(2) { choices.number() as u32 } else { head.owed },
            answer: if choices.one_in(2) {
                Answer { request: choices.number(), value: choices.number() }
            } else {
                head.answer
            },
        };
        let volume = &image.superblock.uuid;
        let mut whole = Record::encode_prefix(volume, &head, &body, &payload_sums(volume, &payload));
        whole.extend_from_slice(&payload);
        whole.resize(whole.len().next_multiple_of(8), 0);
        let Some(room) = bytes.get_mut(at..at + whole.len()) else { break };
        room.copy_from_slice(&whole);
        at += whole.len();
    }
    image.put(&path, &bytes);
}

fn pack(choices: &mut Choices<'_>, image: &Image) -> Option<(Footer, String, Vec<u8>)> {
    let footer = choices.pick(&image.footers)?.clone();
    let path = Image::pack_path(&footer.pack);
    let bytes = image.read(&path);
    (bytes.len() > PACK_HEADER_LEN + TRAILER_LEN).then_some((footer, path, bytes))
}

fn header_or_trailer(choices: &mut Choices<'_>, image: &mut Image) {
    let Some((footer, path, mut bytes)) = pack(choices, image) else { return };
    let seal = |position| Seal::new(Domain::Pack, &footer.pack.0, position);
    let trailer = bytes.len() - TRAILER_LEN;
    if choices.one_in(2) {
        choices.edit(&mut bytes, 12, 80);
        seal_last(&mut bytes[..PACK_HEADER_LEN], &seal(0));
    } else {
        choices.edit(&mut bytes, trailer, trailer + 16);
        seal_last(&mut bytes[trailer..], &seal(2));
    }
    image.put(&path, &bytes);
}

/// A whole pack: `data` behind its header, and what describes it.
fn packed(footer: &Footer, data: &[u8]) -> Vec<u8> {
    let footer = Footer { parity: ParityGeometry::default(), ..footer.clone() };
    let described = footer.encode();
    let layout = PackLayout {
        footer_offset: (PACK_HEADER_LEN + data.len()) as u64,
        footer_len: described.len() as u32,
        parity: footer.parity,
    };
    let Footer { pack, store, volume, kind, .. } = footer;
    let header = PackHeader { pack, store, volume, kind, layout };
    let trailer = Trailer { layout };
    [&header.encode()[..], data, &described, &described, &trailer.encode(&footer.pack)].concat()
}

fn footer(choices: &mut Choices<'_>, image: &mut Image) {
    let Some((mut footer, path, bytes)) = pack(choices, image) else { return };
    let end =
        footer.frames.iter().map(|frame| frame.offset + u64::from(frame.len)).max().unwrap_or(256) as usize;
    for _ in 0..=choices.below(3) {
        let at = choices.below(footer.frames.len());
        match (choices.below(9), footer.frames.get_mut(at)) {
            (0, Some(frame)) => frame.offset = choices.number(),
            (1, Some(frame)) => frame.len = choices.number() as u32,
            (2, Some(frame)) => frame.plain_len = choices.number() as u32,
            (3, Some(frame)) => frame.chunks = choices.number() as u32,
            (4, _) => {
                let at = choices.below(footer.chunks.len());
                let value = choices.number() as u32;
                footer.chunks.iter_mut().skip(at).take(1).for_each(|chunk| chunk.len = value);
            }
            (5, _) => {
                footer.kind = if footer.kind == PackKind::Data { PackKind::Metadata } else { PackKind::Data };
            }
            (6, _) => footer.frames.extend_from_within(..),
            (7, _) => footer.volume = footer.store,
            _ => {
                if let Some(checkpoint) = &mut footer.checkpoint {
                    hostile_checkpoint(choices, checkpoint);
                }
            }
        }
    }
    let mut new = packed(&footer, bytes.get(PACK_HEADER_LEN..end).unwrap_or_default());
    if choices.one_in(4) {
        // Any field of the footer, unknown sections too; in both copies.
        let described = footer.encode().len();
        let (start, second) = (new.len() - TRAILER_LEN - 2 * described, new.len() - TRAILER_LEN - described);
        choices.edit(&mut new, start + 12, second);
        seal_last(&mut new[start..second], &Seal::new(Domain::Pack, &footer.pack.0, 1));
        new.copy_within(start..second, second);
    }
    image.put(&path, &new);
}

fn hostile_checkpoint(choices: &mut Choices<'_>, checkpoint: &mut Checkpoint) {
    match choices.below(5) {
        0 => checkpoint.lsn = Lsn(choices.number()),
        1 => checkpoint.floor = Lsn(choices.number()),
        2 => checkpoint.previous.lsn = Lsn(choices.number()),
        3 => checkpoint.kind = CheckpointKind::Delta,
        _ => {
            let Some(last) = checkpoint.parts.last().copied() else { return };
            checkpoint.parts.extend(vec![last; choices.below(30_000)]);
        }
    }
}

fn frame(choices: &mut Choices<'_>, image: &mut Image) {
    let Some((footer, path, mut bytes)) = pack(choices, image) else { return };
    let Some(entry) = choices.pick(&footer.frames).copied() else { return };
    let start = entry.offset as usize;
    let Some(whole) = bytes.get_mut(start..start + entry.len as usize) else { return };
    if choices.one_in(2) {
        choices.edit(whole, 4, 32);
    } else {
        choices.edit(whole, 32, entry.len as usize);
    }
    let len =
        |at: usize| u64::from(u32::from_le_bytes([whole[at], whole[at + 1], whole[at + 2], whole[at + 3]]));
    let head_len = 32 + u64::from(whole[5]) * 32 + len(16) * 36;
    if head_len <= whole.len() as u64 {
        let (head, stored) = whole.split_at(head_len as usize);
        let seal = Seal::new(Domain::Frame, &footer.pack.0, entry.offset);
        let sum = seal.sum_parts(&[&head[..24], &head[32..], stored]);
        set_sum(whole, 24, sum);
    }
    image.put(&path, &bytes);
}

fn index(choices: &mut Choices<'_>, image: &mut Image) {
    let mut bytes = image.read("store/index");
    let store = image.superblock.store;
    if choices.one_in(2) {
        let len = bytes.len();
        choices.edit(&mut bytes, 8, len);
        seal_last(&mut bytes, &Seal::new(Domain::Index, &store.0, 0));
    } else if let Ok(mut snapshot) = IndexSnapshot::decode(&bytes, &store) {
        for _ in 0..=choices.below(3) {
            let at = choices.below(snapshot.packs.len());
            match (choices.below(5), snapshot.packs.get_mut(at)) {
                (0, Some(pack)) => pack.file_len = choices.number(),
                (1, Some(pack)) => pack.plain_len = choices.number(),
                (2, Some(pack)) => pack.kind = PackKind::Metadata,
                (3, Some(_)) => snapshot.packs.extend_from_within(..),
                _ => {
                    let chunk = choices.number() as u32;
                    snapshot.slots.iter_mut().for_each(|slot| slot.chunk ^= chunk);
                }
            }
        }
        bytes = snapshot.encode();
    }
    image.put("store/index", &bytes);
}

/// Whole files: cut, grown, missing, in each other's place, under names of edges.
fn file(choices: &mut Choices<'_>, image: &mut Image) {
    let files = image.world.disk.files();
    let Some(path) = choices.pick(&files).cloned() else { return };
    let disk: &MemoryDisk = &image.world.disk;
    match choices.below(9) {
        0 => drop(disk.remove(&path)),
        1 => drop(disk.truncate_file(&path, choices.below(9000) as u64)),
        2 => drop(disk.truncate_file(&path, choices.number() % (20 << 30))),
        3 => {
            let Some(from) = choices.pick(&files) else { return };
            image.put(&path, &image.read(from));
        }
        4 => {
            let mut bytes = image.read(&path);
            let len = bytes.len();
            choices.edit(&mut bytes, 0, len);
            image.put(&path, &bytes);
        }
        5 => image.put(&path, &choices.bytes(600)),
        6 => {
            let names = [
                "journal/ffffffff.seg",
                "journal/fffffffe.seg",
                "journal/x.seg",
                "reserve",
                "store/index.new",
            ];
            let Some(name) = choices.pick(&names) else { return };
            image.put(name, &image.read(&path));
        }
        7 => {
            let _ = disk.remove(&path);
            let _ = disk.create_dir(&path);
        }
        _ => {
            // A real pack under another name, its seals made for that.
            let Some(mut footer) = choices.pick(&image.footers).cloned() else { return };
            let bytes = image.read(&Image::pack_path(&footer.pack));
            footer.pack =
                PackId(std::array::from_fn(|_| if choices.one_in(2) { 0xff } else { choices.byte() }));
            let new = packed(&footer, bytes.get(PACK_HEADER_LEN..).unwrap_or_default());
            image.put(&Image::pack_path(&footer.pack), &new);
        }
    }
}

/// A pack of metadata around these plain bytes.
fn metadata_pack(
    image: &Image,
    pack: PackId,
    plain: &[u8],
    codec: Codec,
    said: u32,
    checkpoint: Checkpoint,
) -> Vec<u8> {
    let stored = match codec {
        // None is: what says so is refused.
        Codec::Raw | Codec::Planes => plain.to_vec(),
        Codec::Zstd => Compressor::new(Compression::Zstd(3)).encode(plain).1,
    };
    let head = FrameHead {
        codec,
        plain_len: said,
        stored_len: stored.len() as u32,
        bases: Vec::new(),
        chunks: Vec::new(),
    };
    let data = [head.encode(&pack, PACK_HEADER_LEN as u64, &stored), stored].concat();
    let footer = Footer {
        parity: ParityGeometry::default(),
        pack,
        store: image.superblock.store,
        volume: image.superblock.uuid,
        kind: PackKind::Metadata,
        frames: vec![FrameEntry {
            offset: PACK_HEADER_LEN as u64,
            len: data.len() as u32,
            plain_len: said,
            chunks: 0,
        }],
        chunks: Vec::new(),
        bases: Vec::new(),
        replaces: Vec::new(),
        checkpoint: Some(checkpoint),
    };
    packed(&footer, &data)
}

/// Has the superblock name a checkpoint.
fn point(image: &mut Image, at: CheckpointRef) {
    image.superblock.checkpoint = at;
    image.superblock.generation += 1;
    let bytes = image.superblock.encode();
    image.put("superblock", &bytes);
    image.put("superblock.backup", &bytes);
}

/// A namespace that says what cannot be, in the place of the newest checkpoint's.
fn state(choices: &mut Choices<'_>, image: &mut Image) {
    let mut all = Records::clone(&image.records);
    for _ in 0..=choices.below(6) {
        if choices.one_in(10) {
            records::cycle(choices, &mut all);
            continue;
        }
        match records::record(choices, image) {
            (key, Some(value)) => all.insert(key, value),
            (key, None) => all.remove(&key),
        };
    }
    let mut frame = Encoder::new();
    all.iter().for_each(|(key, value)| push_meta_record(&mut frame, key, Some(value)));
    let mut plain = frame.finish();
    if choices.one_in(16) {
        let len = plain.len();
        choices.edit(&mut plain, 0, len);
    }
    let lsn = image.superblock.checkpoint.lsn.max(Lsn(1 << 40 | 1));
    let lsn = if choices.one_in(12) { Lsn(choices.number()) } else { lsn };
    let floor = if choices.one_in(8) { Lsn(choices.number()) } else { Lsn(lsn.0.wrapping_add(1)) };
    let said = if choices.one_in(12) { choices.number() as u32 } else { plain.len() as u32 };
    let codec = if choices.one_in(2) { Codec::Zstd } else { Codec::Raw };
    let mut pack = MADE_UP;
    if choices.one_in(16) {
        pack.0[8..12].fill(0xff);
    }
    let checkpoint = Checkpoint {
        kind: CheckpointKind::Base,
        lsn,
        previous: CheckpointRef::NONE,
        floor,
        parts: vec![pack],
    };
    let bytes = metadata_pack(image, pack, &plain, codec, said, checkpoint);
    image.put(&Image::pack_path(&pack), &bytes);
    point(image, CheckpointRef { lsn, pack });
}

/// A chain of checkpoints that leads nowhere, or round.
fn chain(choices: &mut Choices<'_>, image: &mut Image) {
    let length = 1 + choices.below(12) as u32;
    let top = Lsn(1 << 40 | 100);
    let at =
        |n: u32| CheckpointRef { lsn: Lsn(top.0 - u64::from(n)), pack: PackId::new(u64::MAX, 1, 10 + n) };
    for n in 0..length {
        let here = at(n);
        let previous = match choices.below(4) {
            // Round, to itself, to nothing.
            0 => CheckpointRef { lsn: Lsn(here.lsn.0 - 1), pack: at(0).pack },
            1 => here,
            _ => at(n + 1),
        };
        let mut parts = vec![here.pack; 1 + if choices.one_in(4) { choices.below(20_000) } else { 0 }];
        if choices.one_in(4) {
            parts.insert(0, at(n + 1).pack);
        }
        let checkpoint =
            Checkpoint { kind: CheckpointKind::Delta, lsn: here.lsn, previous, floor: Lsn::ZERO, parts };
        let bytes = metadata_pack(image, here.pack, &[], Codec::Raw, 0, checkpoint);
        image.put(&Image::pack_path(&here.pack), &bytes);
    }
    point(image, at(0));
}
