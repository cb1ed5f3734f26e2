//! The values of the namespace: inodes, names, extents.

use crate::wire::{Decoder, Encoder, FormatError};
use crate::{ChunkId, Ino, JournalRef, Lsn, PackId, View};

/// The bytes of a file that one extent key stands for.
pub const EXTENT_RANGE: u64 = 1 << 20;
/// The longest file: offsets are signed where the kernel counts them.
pub const FILE_MAX: u64 = i64::MAX as u64;
/// No chunk is longer: a volume's chunker is never told more.
const CHUNK_MAX: u32 = 16 << 20;

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FileKind {
    /// A file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl FileKind {
    /// The type bits of `st_mode`.
    pub const MODE_MASK: u32 = 0o170_000;

    /// From `st_mode`.
    pub fn from_mode(mode: u32) -> Option<FileKind> {
        Some(match mode & Self::MODE_MASK {
            0o100_000 => FileKind::Regular,
            0o040_000 => FileKind::Directory,
            0o120_000 => FileKind::Symlink,
            0o010_000 => FileKind::Fifo,
            0o140_000 => FileKind::Socket,
            0o020_000 => FileKind::CharDevice,
            0o060_000 => FileKind::BlockDevice,
            _ => return None,
        })
    }

    /// The type bits of `st_mode`.
    pub fn mode(self) -> u32 {
        match self {
            FileKind::Regular => 0o100_000,
            FileKind::Directory => 0o040_000,
            FileKind::Symlink => 0o120_000,
            FileKind::Fifo => 0o010_000,
            FileKind::Socket => 0o140_000,
            FileKind::CharDevice => 0o020_000,
            FileKind::BlockDevice => 0o060_000,
        }
    }

    fn code(self) -> u8 {
        (self.mode() >> 12) as u8
    }

    fn from_code(code: u8) -> Option<FileKind> {
        // The mask would hide bits that no kind has.
        if code > 0xf { None } else { FileKind::from_mode(u32::from(code) << 12) }
    }
}

/// A time: seconds since 1970 (negative before) and nanoseconds after that second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds, under 1,000,000,000.
    pub nanos: u32,
}

/// An inode: everything about a file but its names, its bytes and its extended attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that lead here; a directory's own `.` and its children's `..` count.
    pub nlink: u32,
    /// The device of a device node.
    pub rdev: u32,
    /// The epoch it was made in.
    pub generation: u32,
    /// Length in bytes.
    pub size: u64,
    /// The directory that a directory lies in; 0 for everything else.
    pub parent: Ino,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// When it was made.
    pub btime: Timestamp,
    /// Stored bytes of its chunks, its share of each frame. Kept by checkpoints; elsewhere the value
    /// that the last checkpoint left.
    pub stored: u64,
}

const INODE: &str = "inode";

impl Inode {
    /// Bytes of the encoded inode.
    pub const LEN: usize = 98;

    /// Its type.
    pub fn kind(&self) -> FileKind {
        // Decoding and making refuse modes without a type.
        FileKind::from_mode(self.mode).unwrap_or(FileKind::Regular)
    }

    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::after(Vec::with_capacity(Self::LEN));
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.u32("mode", self.mode);
        e.u32("uid", self.uid);
        e.u32("gid", self.gid);
        e.u32("nlink", self.nlink);
        e.u32("rdev", self.rdev);
        e.u32("generation", self.generation);
        e.u64("size", self.size);
        e.u64("parent", self.parent.0);
        for (secs, nanos, time) in [
            ("atime.secs", "atime.nanos", self.atime),
            ("mtime.secs", "mtime.nanos", self.mtime),
            ("ctime.secs", "ctime.nanos", self.ctime),
            ("btime.secs", "btime.nanos", self.btime),
        ] {
            e.i64(secs, time.secs);
            e.u32(nanos, time.nanos);
        }
        e.u64("stored", self.stored);
        e.u16("flags", 0);
    }

    /// Decodes the value.
    pub fn decode(bytes: &[u8]) -> Result<Inode, FormatError> {
        let mut d = Decoder::new(INODE, bytes);
        let time = |d: &mut Decoder<'_>| -> Result<Timestamp, FormatError> {
            let time = Timestamp { secs: d.i64("time.secs")?, nanos: d.u32("time.nanos")? };
            d.within("time.nanos", time.nanos.into(), 0..=999_999_999)?;
            Ok(time)
        };
        let inode = Inode {
            mode: d.u32("mode")?,
            uid: d.u32("uid")?,
            gid: d.u32("gid")?,
            nlink: d.u32("nlink")?,
            rdev: d.u32("rdev")?,
            generation: d.u32("generation")?,
            size: d.u64("size")?,
            parent: Ino(d.u64("parent")?),
            atime: time(&mut d)?,
            mtime: time(&mut d)?,
            ctime: time(&mut d)?,
            btime: time(&mut d)?,
            stored: d.u64("stored")?,
        };
        match d.u16("flags")? {
            0 => {}
            flags => return Err(d.bad("flags", flags.into())),
        }
        d.end()?;
        if FileKind::from_mode(inode.mode).is_none() || inode.mode >> 16 != 0 {
            return Err(d.bad("mode", inode.mode.into()));
        }
        d.within("size", inode.size, 0..=FILE_MAX)?;
        d.within("parent", inode.parent.0, 0..=Ino::MAX.0)?;
        Ok(inode)
    }
}

/// What a name leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The inode.
    pub ino: Ino,
    /// The inode's view.
    pub view: View,
    /// The inode's type.
    pub kind: FileKind,
    /// Where the name stands in the directory's order.
    pub cookie: u64,
}

impl DirEntry {
    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        target(e, self.ino, self.view, self.kind);
        e.u64("cookie", self.cookie);
    }

    /// Decodes the value.
    pub fn decode(bytes: &[u8]) -> Result<DirEntry, FormatError> {
        let mut d = Decoder::new("directory entry", bytes);
        let (ino, view, kind) = take_target(&mut d)?;
        let entry = DirEntry { ino, view, kind, cookie: d.u64("cookie")? };
        d.end()?;
        Ok(entry)
    }
}

/// A name in its directory's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderedEntry {
    /// The inode.
    pub ino: Ino,
    /// The inode's view.
    pub view: View,
    /// The inode's type.
    pub kind: FileKind,
    /// The name.
    pub name: Vec<u8>,
}

impl OrderedEntry {
    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        target(e, self.ino, self.view, self.kind);
        e.bytes("name", &self.name);
    }

    /// Decodes the value; names that no directory can hold are refused.
    pub fn decode(bytes: &[u8]) -> Result<OrderedEntry, FormatError> {
        let mut d = Decoder::new("ordered entry", bytes);
        let (ino, view, kind) = take_target(&mut d)?;
        let len = d.left();
        let name = d.bytes("name", len)?;
        if !crate::key::is_name(name) {
            return Err(d.bad("name (of this length)", len as u64));
        }
        Ok(OrderedEntry { ino, view, kind, name: name.to_vec() })
    }
}

fn target(e: &mut Encoder, ino: Ino, view: View, kind: FileKind) {
    e.u64("ino", ino.0);
    e.u16("view", view.0);
    e.u8("kind", kind.code());
}

fn take_target(d: &mut Decoder<'_>) -> Result<(Ino, View, FileKind), FormatError> {
    let ino = d.u64("ino")?;
    d.within("ino", ino, 1..=Ino::MAX.0)?;
    let view = View(d.u16("view")?);
    let code = d.u8("kind")?;
    let kind = FileKind::from_code(code).ok_or_else(|| d.bad("kind", code.into()))?;
    Ok((Ino(ino), view, kind))
}

/// A run of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its length.
    pub len: u32,
    /// Where its bytes are.
    pub kind: PieceKind,
}

/// Where a run of bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceKind {
    /// Nowhere: it reads as zeros.
    Hole,
    /// In the journal, not folded yet.
    Journal(JournalRef),
    /// In a chunk.
    Chunk(ChunkPiece),
}

/// Bytes of a chunk, and where the chunk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkPiece {
    /// The chunk.
    pub chunk: ChunkId,
    /// Its pack.
    pub pack: PackId,
    /// The frame's number in the pack.
    pub frame: u32,
    /// The chunk's number in the frame.
    pub slot: u32,
    /// The first byte meant, counted from the chunk's start.
    pub offset: u32,
    /// The whole chunk's length.
    pub chunk_len: u32,
    /// The whole chunk's share of its frame's stored bytes.
    pub stored: u32,
    /// Where the chunk lies that this one is stored as the differences from, where it is.
    pub base: Option<ChunkPlace>,
}

/// A place of a chunk: which it is, its frame says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ChunkPlace {
    /// Its pack.
    pub pack: PackId,
    /// The frame's number in the pack.
    pub frame: u32,
    /// The chunk's number in the frame.
    pub slot: u32,
}

impl ChunkPiece {
    /// Where the chunk lies.
    pub fn place(&self) -> ChunkPlace {
        ChunkPlace { pack: self.pack, frame: self.frame, slot: self.slot }
    }

    /// The places that have to be read to have it: its own, and its base's.
    pub fn places(&self) -> impl Iterator<Item = ChunkPlace> {
        [Some(self.place()), self.base].into_iter().flatten()
    }
}

impl Piece {
    /// The part of this piece that begins `from` bytes after its start and is `len` long.
    pub fn part(&self, from: u32, len: u32) -> Piece {
        let mut kind = self.kind;
        match &mut kind {
            PieceKind::Hole => {}
            PieceKind::Journal(at) => at.payload_offset += from,
            PieceKind::Chunk(at) => at.offset += from,
        }
        Piece { len, kind }
    }

    /// Whether `next`, right behind this piece, goes on in the same place: both can be one piece.
    pub fn continues_in(&self, next: &Piece) -> bool {
        self.len.checked_add(next.len).is_some() && self.part(self.len, next.len).kind == next.kind
    }

    /// Bytes on disk that this piece answers for.
    pub fn stored(&self) -> u64 {
        match self.kind {
            PieceKind::Hole => 0,
            PieceKind::Journal(_) => self.len.into(),
            PieceKind::Chunk(c) => {
                (u64::from(c.stored) * u64::from(self.len)).div_ceil(u64::from(c.chunk_len.max(1)))
            }
        }
    }
}

/// An extent key's value, or a fold's result: pieces, one after another.
pub fn encode_pieces(pieces: &[Piece]) -> Vec<u8> {
    let mut e = Encoder::new();
    encode_pieces_into(&mut e, pieces);
    e.finish()
}

pub(crate) fn encode_pieces_into(e: &mut Encoder, pieces: &[Piece]) {
    e.u32("count", pieces.len() as u32);
    for piece in pieces {
        match &piece.kind {
            PieceKind::Hole => {
                e.u8("tag", 0);
                e.u32("len", piece.len);
            }
            PieceKind::Chunk(c) => {
                e.u8("tag", if c.base.is_some() { 3 } else { 1 });
                e.u32("len", piece.len);
                e.bytes("chunk", &c.chunk.0);
                e.bytes("pack", &c.pack.0);
                e.u32("frame", c.frame);
                e.u32("slot", c.slot);
                e.u32("offset", c.offset);
                e.u32("chunk_len", c.chunk_len);
                e.u32("stored", c.stored);
                if let Some(base) = &c.base {
                    e.bytes("base.pack", &base.pack.0);
                    e.u32("base.frame", base.frame);
                    e.u32("base.slot", base.slot);
                }
            }
            PieceKind::Journal(j) => {
                e.u8("tag", 2);
                e.u32("len", piece.len);
                e.u64("lsn", j.lsn.0);
                e.u64("segment", j.segment);
                e.u32("record_offset", j.record_offset);
                e.u32("payload_offset", j.payload_offset);
            }
        }
    }
}

/// Decodes an extent key's value.
pub fn decode_pieces(bytes: &[u8]) -> Result<Vec<Piece>, FormatError> {
    let mut d = Decoder::new("extent", bytes);
    let pieces = decode_pieces_from(&mut d)?;
    d.end()?;
    // More would lie over the next range's.
    d.within("length", pieces.iter().map(|p| u64::from(p.len)).sum(), 0..=EXTENT_RANGE)?;
    Ok(pieces)
}

pub(crate) fn decode_pieces_from(d: &mut Decoder<'_>) -> Result<Vec<Piece>, FormatError> {
    let count = d.count("count", 5)?;
    let mut pieces = Vec::with_capacity(count);
    for _ in 0..count {
        let tag = d.u8("tag")?;
        let len = d.u32("len")?;
        if len == 0 {
            return Err(d.bad("len", 0));
        }
        let kind = match tag {
            0 => PieceKind::Hole,
            1 | 3 => {
                let mut c = ChunkPiece {
                    chunk: ChunkId(d.array("chunk")?),
                    pack: PackId(d.array("pack")?),
                    frame: d.u32("frame")?,
                    slot: d.u32("slot")?,
                    offset: d.u32("offset")?,
                    chunk_len: d.u32("chunk_len")?,
                    stored: d.u32("stored")?,
                    base: None,
                };
                if tag == 3 {
                    let pack = PackId(d.array("base.pack")?);
                    c.base =
                        Some(ChunkPlace { pack, frame: d.u32("base.frame")?, slot: d.u32("base.slot")? });
                }
                d.within("chunk_len", c.chunk_len.into(), 1..=CHUNK_MAX.into())?;
                if u64::from(c.offset) + u64::from(len) > c.chunk_len.into() {
                    return Err(d.bad("offset", c.offset.into()));
                }
                PieceKind::Chunk(c)
            }
            2 => {
                let j = JournalRef {
                    lsn: Lsn(d.u64("lsn")?),
                    segment: d.u64("segment")?,
                    record_offset: d.u32("record_offset")?,
                    payload_offset: d.u32("payload_offset")?,
                };
                if j.payload_offset.checked_add(len).is_none() {
                    return Err(d.bad("payload_offset", j.payload_offset.into()));
                }
                PieceKind::Journal(j)
            }
            other => return Err(d.bad("tag", other.into())),
        };
        pieces.push(Piece { len, kind });
    }
    Ok(pieces)
}

/// How much of a pack the namespace refers to. Dropped packs have no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PackRefs {
    /// Pieces of extents that lie in the pack.
    pub pieces: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl PackRefs {
    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.u64("pieces", self.pieces);
        e.u64("bytes", self.bytes);
    }

    /// Decodes the value.
    pub fn decode(bytes: &[u8]) -> Result<PackRefs, FormatError> {
        let mut d = Decoder::new("pack reference count", bytes);
        let refs = PackRefs { pieces: d.u64("pieces")?, bytes: d.u64("bytes")? };
        d.end()?;
        Ok(refs)
    }
}

/// What a checkpoint's state adds up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Inodes, directories and all.
    pub inodes: u64,
    /// Bytes of all files, holes left out.
    pub logical: u64,
}

impl Totals {
    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.u64("inodes", self.inodes);
        e.u64("logical", self.logical);
    }

    /// Decodes the value.
    pub fn decode(bytes: &[u8]) -> Result<Totals, FormatError> {
        let mut d = Decoder::new("totals", bytes);
        let totals = Totals { inodes: d.u64("inodes")?, logical: d.u64("logical")? };
        d.end()?;
        Ok(totals)
    }
}

const TOMBSTONE: u32 = u32::MAX;

/// Appends a record of a metadata frame: a key with its value, or (in a delta) its removal.
pub fn push_meta_record(e: &mut Encoder, key: &[u8], value: Option<&[u8]>) {
    e.u16("key_len", key.len() as u16);
    e.u32("value_len", value.map_or(TOMBSTONE, |v| v.len() as u32));
    e.bytes("key", key);
    e.bytes("value", value.unwrap_or_default());
}

/// The records of a metadata frame, in ascending order of their keys.
pub struct MetaRecords<'a> {
    d: Decoder<'a>,
}

impl<'a> MetaRecords<'a> {
    /// Over a frame's plain bytes.
    pub fn new(plain: &'a [u8]) -> Self {
        MetaRecords { d: Decoder::new("metadata record", plain) }
    }

    fn take(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), FormatError> {
        let key_len = self.d.u16("key_len")?.into();
        let value_len = self.d.u32("value_len")?;
        let key = self.d.bytes("key", key_len)?;
        let value = match value_len {
            TOMBSTONE => None,
            len => Some(self.d.bytes("value", len as usize)?),
        };
        Ok((key, value))
    }
}

impl<'a> Iterator for MetaRecords<'a> {
    type Item = Result<(&'a [u8], Option<&'a [u8]>), FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.d.left() == 0 {
            return None;
        }
        let item = self.take();
        if item.is_err() {
            self.d = Decoder::new("metadata record", &[]);
        }
        Some(item)
    }
}
