//! The records of a namespace, spoilt one by one: each decodes, or nearly, and says what cannot be.

use cairn_format::key::Key;
use cairn_format::{
    CheckpointRef, ChunkId, ChunkPiece, ChunkPlace, DirEntry, FileKind, Ino, Inode, JournalRef, Lsn,
    Mutation, OrderedEntry, PackId, PackRefs, Piece, PieceKind, Timestamp, Totals, View, decode_pieces,
    encode_pieces,
};

use super::choices::Choices;
use super::images::{Image, Records};

const KINDS: [FileKind; 7] = [
    FileKind::Regular,
    FileKind::Directory,
    FileKind::Symlink,
    FileKind::Fifo,
    FileKind::Socket,
    FileKind::CharDevice,
    FileKind::BlockDevice,
];

/// An inode's number: one of the first that are given out, or any.
fn ino(choices: &mut Choices<'_>) -> Ino {
    match choices.below(4) {
        0 => Ino(choices.number()),
        1 => Ino::ROOT,
        _ => Ino(16 + choices.below(16) as u64),
    }
}

fn view(choices: &mut Choices<'_>) -> View {
    if choices.one_in(8) { View(choices.number() as u16) } else { View::LIVE }
}

fn lsn(choices: &mut Choices<'_>) -> Lsn {
    if choices.one_in(2) { Lsn(choices.number()) } else { Lsn(1 << 40 | choices.below(64) as u64) }
}

fn name(choices: &mut Choices<'_>) -> Vec<u8> {
    match choices.below(12) {
        0 => b".".to_vec(),
        1 => b"..".to_vec(),
        2 => b"a/b".to_vec(),
        3 => b"../../etc/passwd".to_vec(),
        4 => Vec::new(),
        5 => vec![b'x'; 250 + choices.below(100)],
        6 => b"nul\0inside".to_vec(),
        7 => b"\x1b[31mred\nline".to_vec(),
        8 => b"user.colour".to_vec(),
        9 => b"system.posix_acl_default".to_vec(),
        10 => b"sub".to_vec(),
        _ => choices.bytes(20),
    }
}

fn number32(choices: &mut Choices<'_>) -> u32 {
    choices.number() as u32
}

fn timestamp(choices: &mut Choices<'_>) -> Timestamp {
    Timestamp { secs: choices.number() as i64, nanos: number32(choices) }
}

fn kind(choices: &mut Choices<'_>) -> FileKind {
    *choices.pick(&KINDS).unwrap_or(&FileKind::Directory)
}

fn piece(choices: &mut Choices<'_>, image: &Image) -> Piece {
    let len = match choices.below(4) {
        0 => number32(choices),
        1 => 1 << 20,
        _ => 1 + choices.below(4096) as u32,
    };
    let kind = match choices.below(4) {
        0 => PieceKind::Hole,
        1 => PieceKind::Journal(JournalRef {
            lsn: lsn(choices),
            segment: choices.number(),
            record_offset: number32(choices),
            payload_offset: number32(choices),
        }),
        _ => {
            let footer = choices.pick(&image.footers);
            let chunk = footer.and_then(|footer| choices.pick(&footer.chunks)).copied();
            PieceKind::Chunk(ChunkPiece {
                chunk: chunk.map_or(ChunkId([3; 32]), |chunk| chunk.id),
                // Its own pack, one of metadata, or none.
                pack: footer.map_or(PackId([9; 16]), |footer| footer.pack),
                frame: if choices.one_in(3) { number32(choices) } else { choices.below(8) as u32 },
                slot: if choices.one_in(3) { number32(choices) } else { choices.below(8) as u32 },
                offset: if choices.one_in(3) { number32(choices) } else { 0 },
                chunk_len: chunk.filter(|_| !choices.one_in(3)).map_or_else(|| number32(choices), |c| c.len),
                stored: number32(choices),
                base: choices.one_in(4).then(|| ChunkPlace {
                    pack: choices.pick(&image.footers).map_or(PackId([9; 16]), |footer| footer.pack),
                    frame: choices.below(8) as u32,
                    slot: choices.below(2) as u32,
                }),
            })
        }
    };
    Piece { len, kind }
}

fn pieces(choices: &mut Choices<'_>, image: &Image) -> Vec<Piece> {
    let one = piece(choices, image);
    match choices.below(6) {
        // Many of them.
        0 => vec![one; 1 + choices.below(20_000)],
        n => (0..n).map(|_| piece(choices, image)).collect(),
    }
}

fn inode(choices: &mut Choices<'_>, inode: &mut Inode) {
    match choices.below(12) {
        0 => inode.mode = number32(choices),
        1 => inode.mode = kind(choices).mode() | inode.mode & 0o7777,
        2 => inode.nlink = number32(choices),
        3 => inode.size = choices.number(),
        4 => inode.parent = ino(choices),
        5 => inode.atime = timestamp(choices),
        6 => inode.mtime = timestamp(choices),
        7 => inode.stored = choices.number(),
        8 => inode.generation = number32(choices),
        9 => (inode.uid, inode.gid) = (number32(choices), number32(choices)),
        10 => inode.rdev = number32(choices),
        _ => inode.btime = timestamp(choices),
    }
}

/// A key and its value, as hostile as they come; none is a removal.
pub fn record(choices: &mut Choices<'_>, image: &Image) -> (Vec<u8>, Option<Vec<u8>>) {
    if choices.one_in(3)
        && let Some((key, value)) = nth(&image.records, choices)
    {
        return (key.clone(), changed(choices, image, &key, value));
    }
    let of = ino(choices);
    match choices.below(13) {
        0 | 1 => {
            let entry = DirEntry {
                ino: ino(choices),
                view: view(choices),
                kind: kind(choices),
                cookie: choices.number(),
            };
            (Key::Name(of, name(choices), view(choices)).encode(), Some(entry.encode()))
        }
        2 | 3 => {
            let entry = OrderedEntry {
                ino: ino(choices),
                view: view(choices),
                kind: kind(choices),
                name: name(choices),
            };
            (Key::Order(of, choices.number(), view(choices)).encode(), Some(entry.encode()))
        }
        4 | 5 => {
            let range = if choices.one_in(2) { choices.number() } else { choices.below(4) as u64 };
            let value = encode_pieces(&pieces(choices, image));
            (Key::Extent(of, range, view(choices)).encode(), Some(value))
        }
        6 => {
            let mut new = Inode {
                mode: kind(choices).mode() | 0o755,
                uid: 0,
                gid: 0,
                nlink: 1,
                rdev: 0,
                generation: 1,
                size: 100,
                parent: Ino(0),
                atime: Timestamp::default(),
                mtime: Timestamp::default(),
                ctime: Timestamp::default(),
                btime: Timestamp::default(),
                stored: 0,
            };
            (0..choices.below(4)).for_each(|_| inode(choices, &mut new));
            (Key::Inode(of, view(choices)).encode(), Some(new.encode()))
        }
        7 => (Key::Target(of, view(choices)).encode(), Some(name(choices).repeat(1 + choices.below(40)))),
        8 => (Key::NextInode.encode(), Some(choices.number().to_le_bytes().to_vec())),
        9 => {
            let totals = Totals { inodes: choices.number(), logical: choices.number() };
            (Key::Totals.encode(), Some(totals.encode()))
        }
        10 => {
            let pack = choices.pick(&image.footers).map_or(PackId([8; 16]), |footer| footer.pack);
            let refs = PackRefs { pieces: choices.number(), bytes: choices.number() };
            (Key::Pack(pack).encode(), Some(refs.encode()))
        }
        11 => (Key::Orphan(of, view(choices)).encode(), Some(choices.bytes(4))),
        _ => {
            let value = if choices.one_in(4) { vec![2; 100_000] } else { choices.bytes(60) };
            (Key::Xattr(of, name(choices), view(choices)).encode(), Some(value))
        }
    }
}

fn nth<'a>(records: &'a Records, choices: &mut Choices<'_>) -> Option<(Vec<u8>, &'a [u8])> {
    let at = choices.below(records.len());
    records.iter().nth(at).map(|(key, value)| (key.clone(), value.as_slice()))
}

/// A value there is, changed in a way that goes with its kind, or in any.
fn changed(choices: &mut Choices<'_>, image: &Image, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = value.to_vec();
    match (choices.below(6), Key::decode(key)) {
        (0, _) => return None,
        (1, _) => {
            let len = bytes.len();
            choices.edit(&mut bytes, 0, len);
        }
        (2, _) => {
            bytes.truncate(choices.below(value.len() + 1));
            bytes.extend(choices.bytes(30));
        }
        (_, Some(Key::Inode(..))) => {
            if let Ok(mut decoded) = Inode::decode(value) {
                inode(choices, &mut decoded);
                bytes = decoded.encode();
            }
        }
        (_, Some(Key::Name(..))) => {
            if let Ok(mut entry) = DirEntry::decode(value) {
                match choices.below(3) {
                    0 => entry.kind = kind(choices),
                    1 => entry.cookie = choices.number(),
                    _ => entry.ino = ino(choices),
                }
                bytes = entry.encode();
            }
        }
        (_, Some(Key::Order(..))) => {
            if let Ok(mut entry) = OrderedEntry::decode(value) {
                match choices.below(3) {
                    0 => entry.kind = kind(choices),
                    1 => entry.name = name(choices),
                    _ => entry.ino = ino(choices),
                }
                bytes = entry.encode();
            }
        }
        (_, Some(Key::Extent(..))) => {
            let mut decoded = decode_pieces(value).unwrap_or_default();
            let at = choices.below(decoded.len() + 1);
            decoded.insert(at, piece(choices, image));
            bytes = encode_pieces(&decoded);
        }
        _ => {
            let len = bytes.len();
            choices.edit(&mut bytes, 0, len);
        }
    }
    Some(bytes)
}

/// Two directories that name each other and nobody else.
pub fn cycle(choices: &mut Choices<'_>, records: &mut Records) {
    let dirs: Vec<Ino> = records
        .iter()
        .filter_map(|(key, value)| match (Key::decode(key), Inode::decode(value)) {
            (Some(Key::Inode(ino, _)), Ok(inode)) if inode.kind() == FileKind::Directory => Some(ino),
            _ => None,
        })
        .collect();
    let (Some(a), Some(b)) = (choices.pick(&dirs).copied(), choices.pick(&dirs).copied()) else { return };
    for (dir, to, cookie) in [(a, b, 1 << 41 | 5), (b, a, 1 << 41 | 6)] {
        let entry = DirEntry { ino: to, view: View::LIVE, kind: FileKind::Directory, cookie };
        let ordered =
            OrderedEntry { ino: to, view: View::LIVE, kind: FileKind::Directory, name: b"round".to_vec() };
        records.insert(Key::Name(dir, b"round".to_vec(), View::LIVE).encode(), entry.encode());
        records.insert(Key::Order(dir, cookie, View::LIVE).encode(), ordered.encode());
        let key = Key::Inode(dir, View::LIVE).encode();
        if let Some(value) = records.get_mut(&key)
            && let Ok(inode) = Inode::decode(value)
        {
            *value = Inode { parent: to, ..inode }.encode();
        }
    }
}

/// A change as a journal's record has it.
pub fn mutation(choices: &mut Choices<'_>, image: &Image) -> Mutation {
    let (view, of) = (view(choices), ino(choices));
    let offset = if choices.one_in(3) { choices.number() } else { choices.below(1 << 16) as u64 };
    match choices.below(8) {
        0..=2 => match record(choices, image) {
            (key, Some(value)) => Mutation::Put { key, value },
            (key, None) => Mutation::Delete { key },
        },
        3 => Mutation::Data {
            view,
            ino: of,
            offset,
            len: number32(choices),
            payload_offset: if choices.one_in(2) { number32(choices) } else { 0 },
        },
        4 => Mutation::Hole { view, ino: of, offset, len: choices.number() },
        5 => Mutation::Map { view, ino: of, offset, pieces: pieces(choices, image) },
        6 => Mutation::Epoch { continues: lsn(choices) },
        _ => {
            let pack = choices.pick(&image.footers).map_or(PackId([8; 16]), |footer| footer.pack);
            Mutation::Checkpoint { at: CheckpointRef { lsn: lsn(choices), pack }, floor: lsn(choices) }
        }
    }
}
