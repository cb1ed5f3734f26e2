//! Reading a pack: its footer from either copy, and frames, each checked before it is decoded.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_codec::tensor::{Base, Kernel, add_base, base_len};
use cairn_format::{
    ChunkEntry, ChunkId, Codec, Element, Footer, FrameEntry, FrameHead, PACK_HEADER_LEN, PACK_LEN_MAX,
    PackHeader, PackId, PackLayout, PlanesHead, TRAILER_LEN, Trailer,
};

use crate::ReadError;
use crate::disk::{Access, Disk, DiskFile};
use crate::heal::Health;
use crate::twins::Place;

/// A sealed pack, open.
pub struct PackReader {
    pack: PackId,
    place: Place,
    file: Arc<dyn DiskFile>,
    /// Who answers from parity, and from other copies, what cannot be read; none where damage is to be seen.
    health: Option<(Arc<Health>, Arc<dyn Disk>)>,
}

/// A frame's plain bytes, and which chunks they are.
pub struct DecodedFrame {
    /// The bytes.
    pub plain: Vec<u8>,
    /// The chunks in them, one behind another; empty in a metadata pack.
    pub chunks: Vec<ChunkEntry>,
    /// What its numbers are, where it is stored as a run of such.
    pub element: Option<Element>,
    /// The chunk that it is stored as the differences from, where it is.
    pub base: Option<ChunkId>,
    /// What that one's elements are.
    of_base: Option<Element>,
    /// Whether that was added: until then `plain` are the differences, and it has no chunks.
    is_whole: bool,
    /// Where each chunk begins in the plain bytes.
    starts: Vec<u32>,
    /// Whether parity had to restore it, and nobody was told so.
    healed: AtomicBool,
}

impl DecodedFrame {
    fn new(
        plain: Vec<u8>,
        chunks: Vec<ChunkEntry>,
        element: Option<Element>,
        base: Option<(ChunkId, Element)>,
    ) -> DecodedFrame {
        let starts = chunks
            .iter()
            .scan(0u32, |next, chunk| {
                let start = *next;
                *next = next.saturating_add(chunk.len);
                Some(start)
            })
            .collect();
        DecodedFrame {
            plain,
            chunks,
            element,
            is_whole: base.is_none(),
            base: base.map(|(chunk, _)| chunk),
            of_base: base.map(|(_, element)| element),
            starts,
            healed: AtomicBool::new(false),
        }
    }

    /// What the elements are of the chunk that it is the differences from, where it is.
    pub fn of_base(&self) -> Option<Element> {
        self.of_base
    }

    /// How long the chunk is that it is the differences from, where it is.
    pub(crate) fn base_len(&self) -> Option<usize> {
        base_len(self.plain.len(), self.element?, self.of_base?)
    }

    /// The same with its base's bytes added; none where these are not as many, or it has none.
    pub(crate) fn with_base(mut self, bytes: &[u8]) -> Option<DecodedFrame> {
        let element = self.element.filter(|_| !self.is_whole)?;
        let base = Base { element: self.of_base?, bytes };
        self.is_whole = true;
        add_base(Kernel::best(), element, &mut self.plain, base).then_some(self)
    }

    /// Whether its bytes are those of its chunks, not differences from a base that was not added yet.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The same, restored from parity.
    pub(crate) fn healed(mut self) -> DecodedFrame {
        *self.healed.get_mut() = true;
        self
    }

    /// Whether parity had to restore it; so it is said to the first who asks.
    pub fn take_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed) && self.healed.swap(false, Ordering::Relaxed)
    }

    /// Chunk number `slot`: what it should be, and its bytes.
    pub fn chunk(&self, slot: u32) -> Option<(&ChunkEntry, &[u8])> {
        if !self.is_whole {
            return None;
        }
        let chunk = self.chunks.get(slot as usize)?;
        let start = *self.starts.get(slot as usize)? as usize;
        Some((chunk, self.plain.get(start..start + chunk.len as usize)?))
    }

    /// Bytes of memory it takes.
    pub fn size(&self) -> u64 {
        (self.plain.len() + self.chunks.len() * 40 + 64) as u64
    }
}

#[expect(clippy::len_without_is_empty, reason = "a pack is never empty")]
impl PackReader {
    /// Opens a pack.
    pub fn open(disk: &dyn Disk, pack: PackId) -> Result<PackReader, ReadError> {
        PackReader::open_at(disk, Place::Pack, pack)
    }

    /// Opens the copy of a pack that lies at a place.
    pub fn open_at(disk: &dyn Disk, place: Place, pack: PackId) -> Result<PackReader, ReadError> {
        match disk.open(&place.path(&pack), Access::Read) {
            Ok(file) => Ok(PackReader { pack, place, file, health: None }),
            Err(error) => Err(ReadError::io(pack, 0, error)),
        }
    }

    /// Opens a pack, or another copy of it where it cannot be opened.
    pub fn open_any(disk: &dyn Disk, pack: PackId) -> Result<PackReader, ReadError> {
        PackReader::open(disk, pack).or_else(|error| {
            let others = Place::all().filter(|place| *place != Place::Pack);
            others.map(|place| PackReader::open_at(disk, place, pack)).find_map(Result::ok).ok_or(error)
        })
    }

    /// Which of its copies this is.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Its name.
    pub(crate) fn pack(&self) -> PackId {
        self.pack
    }

    /// Its file.
    pub(crate) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// The length of its file; one that is longer than any pack is damaged.
    pub fn len(&self) -> Result<u64, ReadError> {
        match self.file.len() {
            Ok(len) if len > PACK_LEN_MAX => {
                Err(ReadError::damaged(self.pack, PACK_LEN_MAX, format!("the file is {len} bytes long")))
            }
            Ok(len) => Ok(len),
            Err(e) => Err(ReadError::io(self.pack, 0, e)),
        }
    }

    /// Has what cannot be read be answered from parity, and from other copies on `disk`.
    pub(crate) fn healed_by(self, health: Arc<Health>, disk: Arc<dyn Disk>) -> PackReader {
        PackReader { health: Some((health, disk)), ..self }
    }

    /// Its footer: the copy that the trailer leads to, or the one that the header does.
    pub fn footer(&self) -> Result<Footer, ReadError> {
        let by_trailer = match self.footer_by_trailer() {
            Ok(footer) => return Ok(footer),
            Err(error) => error,
        };
        match (self.footer_by_header(), &self.health) {
            (Ok(footer), health) => {
                health.iter().for_each(|(health, _)| health.suspect(self.pack));
                Ok(footer)
            }
            (Err(_), Some((health, disk))) => health.footer(&**disk, self, by_trailer),
            (Err(_), None) => Err(by_trailer),
        }
    }

    /// The second copy of the footer, found from the file's end.
    pub fn footer_by_trailer(&self) -> Result<Footer, ReadError> {
        self.footer_at(self.layout_by_trailer()?.second_footer())
    }

    /// The first copy of the footer, found from the file's start.
    pub fn footer_by_header(&self) -> Result<Footer, ReadError> {
        self.footer_at(self.layout_by_header()?.footer())
    }

    /// Where its parts lie, as its last bytes say.
    pub fn layout_by_trailer(&self) -> Result<PackLayout, ReadError> {
        let len = self.len()?;
        let at = len.saturating_sub(TRAILER_LEN as u64);
        let trailer = Trailer::decode(&self.read(at, (len - at) as usize)?, &self.pack)
            .map_err(|e| ReadError::damaged(self.pack, at, e))?;
        match trailer.layout.file_len() {
            expected if expected == len => Ok(trailer.layout),
            expected => Err(ReadError::damaged(
                self.pack,
                at,
                format!("{expected} bytes by its trailer, {len} are there"),
            )),
        }
    }

    /// Where its parts lie, as its first bytes say.
    pub fn layout_by_header(&self) -> Result<PackLayout, ReadError> {
        PackHeader::decode(&self.read(0, PACK_HEADER_LEN)?, &self.pack)
            .map(|header| header.layout)
            .map_err(|e| ReadError::damaged(self.pack, 0, e))
    }

    fn footer_at(&self, at: Range<u64>) -> Result<Footer, ReadError> {
        // What is read is allocated for: no more than there is.
        if !self.len().is_ok_and(|len| at.end <= len) {
            let reason = format!("the file ends before its footer does, at {}", at.end);
            return Err(ReadError::damaged(self.pack, at.start, reason));
        }
        Footer::decode(&self.read(at.start, (at.end - at.start) as usize)?, &self.pack)
            .map_err(|e| ReadError::damaged(self.pack, at.start, e))
    }

    /// A frame's bytes as they are stored, head and all, not checked.
    pub fn raw_frame(&self, entry: &FrameEntry) -> Result<Vec<u8>, ReadError> {
        let end = entry.offset.checked_add(entry.len.into());
        if entry.len > 1 << 20 && self.len().is_ok_and(|len| end.is_none_or(|end| end > len)) {
            return Err(ReadError::damaged(self.pack, entry.offset, "the file ends before"));
        }
        self.read(entry.offset, entry.len as usize)
    }

    /// A frame, checked and decoded.
    pub fn frame(&self, entry: &FrameEntry) -> Result<DecodedFrame, ReadError> {
        match (self.raw_frame(entry).and_then(|bytes| self.decode(entry, &bytes)), &self.health) {
            (Err(error), Some((health, disk))) => health.frame(&**disk, self, entry, error),
            (result, _) => result,
        }
    }

    /// A frame that cannot be read, where parity, or another copy on its disk if that is given, restores it; nothing is written.
    pub fn restored_frame(&self, disk: Option<&dyn Disk>, entry: &FrameEntry) -> Option<DecodedFrame> {
        crate::heal::frame(disk, self, entry).and_then(|bytes| self.decode(entry, &bytes).ok())
    }

    /// As [`PackReader::restored_frame`], a footer of which no copy in this file can be read.
    pub fn restored_footer(&self, disk: Option<&dyn Disk>) -> Option<Footer> {
        crate::heal::footer(disk, self)
    }

    /// A frame from its stored bytes, head and all.
    pub(crate) fn decode(&self, entry: &FrameEntry, bytes: &[u8]) -> Result<DecodedFrame, ReadError> {
        let damaged = |e: String| ReadError::Damaged { pack: self.pack, offset: entry.offset, reason: e };
        let (head, stored) =
            FrameHead::decode(bytes, &self.pack, entry.offset).map_err(|e| damaged(e.to_string()))?;
        if head.plain_len != entry.plain_len {
            return Err(damaged(format!(
                "{} plain bytes, {} by the footer",
                head.plain_len, entry.plain_len
            )));
        }
        let plain = head.plain_len as usize;
        let (plain, of_base) = cairn_codec::decode_without_base(head.codec, stored, plain, &head.chunks)
            .map_err(|e| damaged(e.to_string()))?;
        let base = head.bases.first().copied().zip(of_base);
        if of_base.is_some() && base.is_none() {
            return Err(damaged("it is the differences from a chunk that it does not name".into()));
        }
        let element = (head.codec == Codec::Planes).then(|| PlanesHead::element_of(stored)).flatten();
        Ok(DecodedFrame::new(plain, head.chunks, element, base))
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| ReadError::io(self.pack, offset, e))?;
        Ok(bytes)
    }
}
