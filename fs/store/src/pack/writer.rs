//! Writing a pack: frames, footer, parity, footer and trailer, then sync, then its name.

use std::sync::Arc;

use cairn_format::{
    Checkpoint, ChunkEntry, ChunkId, Codec, Footer, FrameBase, FrameEntry, FrameHead, PACK_HEADER_LEN,
    PackHeader, PackId, PackKind, PackLayout, ParityGeometry, Replaced, SECTOR, SumTable, Trailer, Uuid,
    sector_sum,
};

use crate::StoreError;
use crate::disk::{Access, Disk, DiskFile};
use crate::pack::parity::write_parity;
use crate::pack::sums::SectorSums;
use crate::pack::{pack_path, unsealed_path};
use crate::store::PACKS_DIR;

/// A pack that is being filled.
pub struct PackWriter {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    end: u64,
    footer: Footer,
    /// Of all that was written behind the header. (Of the first sector, once the header is known.)
    sums: SectorSums,
    /// What follows the header in its sector.
    beside_header: Vec<u8>,
}

/// A pack that is written, synced and named.
pub struct SealedPack {
    /// What describes it.
    pub footer: Footer,
    /// The length of its file.
    pub file_len: u64,
}

impl PackWriter {
    /// Begins a pack under a name that was never used, in a directory that is there and certain.
    pub(crate) fn begin(
        disk: Arc<dyn Disk>,
        pack: PackId,
        kind: PackKind,
        store: Uuid,
        volume: Uuid,
        parity: ParityGeometry,
    ) -> Result<PackWriter, StoreError> {
        let path = unsealed_path(&pack);
        let file = disk.open(&path, Access::CreateNew).map_err(StoreError::io(path))?;
        let footer = Footer {
            pack,
            store,
            volume,
            kind,
            parity,
            frames: Vec::new(),
            chunks: Vec::new(),
            bases: Vec::new(),
            replaces: Vec::new(),
            checkpoint: None,
        };
        let sums = SectorSums::new(&pack, 1);
        Ok(PackWriter { disk, file, end: PACK_HEADER_LEN as u64, footer, sums, beside_header: Vec::new() })
    }

    /// The pack's name.
    pub fn pack(&self) -> PackId {
        self.footer.pack
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether no frame was written yet.
    pub fn is_empty(&self) -> bool {
        self.footer.frames.is_empty()
    }

    /// Appends a frame; its number is the count of frames before it.
    pub fn append(
        &mut self,
        codec: Codec,
        stored: &[u8],
        plain_len: u32,
        chunks: Vec<ChunkEntry>,
    ) -> Result<FrameEntry, StoreError> {
        self.append_from(None, codec, stored, plain_len, chunks)
    }

    /// The same of a frame that is the differences from the chunk `base`, where there is one.
    pub fn append_from(
        &mut self,
        base: Option<ChunkId>,
        codec: Codec,
        stored: &[u8],
        plain_len: u32,
        chunks: Vec<ChunkEntry>,
    ) -> Result<FrameEntry, StoreError> {
        let bases = base.into_iter().collect();
        let head = FrameHead { codec, plain_len, stored_len: stored.len() as u32, bases, chunks };
        let mut bytes = head.encode(&self.footer.pack, self.end, stored);
        bytes.extend_from_slice(stored);
        self.write(&bytes)?;
        let entry = FrameEntry {
            offset: self.end - bytes.len() as u64,
            len: bytes.len() as u32,
            plain_len,
            chunks: head.chunks.len() as u32,
        };
        let frame = self.footer.frames.len() as u32;
        self.footer.bases.extend(base.map(|base| FrameBase { frame, base }));
        self.footer.frames.push(entry);
        self.footer.chunks.extend(head.chunks);
        Ok(entry)
    }

    /// Has the footer say which chunks of other packs those of this one take the place of.
    pub fn replace(&mut self, replaces: Vec<Replaced>) {
        self.footer.replaces = replaces;
    }

    /// Writes what describes the pack, makes it certain, and gives it its name. Only then may anything
    /// refer to it. Where that fails nothing is left of it: a full disk needs the room.
    pub fn seal(mut self, checkpoint: Option<Checkpoint>) -> Result<SealedPack, StoreError> {
        self.footer.checkpoint = checkpoint;
        match self.write_end().and_then(|()| self.name()) {
            Ok(()) => Ok(SealedPack { footer: self.footer, file_len: self.end }),
            Err(error) => {
                // It may have its name already, though nobody knows for certain; nothing refers to it.
                let _ = self.disk.remove(&pack_path(&self.footer.pack));
                self.abandon();
                Err(error)
            }
        }
    }

    fn write_end(&mut self) -> Result<(), StoreError> {
        let pack = self.footer.pack;
        let footer = self.footer.encode();
        let (footer_offset, footer_len) = (self.end, footer.len() as u32);
        let layout = PackLayout { footer_offset, footer_len, parity: self.footer.parity };
        self.note(&footer);
        let header = self.header(layout);
        let trailer = Trailer { layout }.encode(&pack);
        let sums = match layout.stripe() {
            Some(_) => SumTable { owner: &pack.0, first: 0 }.encode(&self.sums_behind(&header)),
            None => Vec::new(),
        };
        self.put(&[&footer[..], &sums[..]].concat(), footer_offset)?;
        self.put(&header, 0)?;
        let parity_sums = write_parity(&*self.file, &pack, &layout, &trailer)
            .map_err(StoreError::io(unsealed_path(&pack)))?;
        self.put(&[parity_sums, sums, footer, trailer].concat(), layout.parity_sums().start)?;
        self.end = layout.file_len();
        self.file.sync().map_err(StoreError::io(unsealed_path(&pack)))
    }

    fn header(&self, layout: PackLayout) -> Vec<u8> {
        let Footer { pack, store, volume, kind, .. } = self.footer;
        PackHeader { pack, store, volume, kind, layout }.encode()
    }

    /// The checksums of all sectors up to the end of the footer, once the header is known.
    fn sums_behind(&mut self, header: &[u8]) -> Vec<u64> {
        let pack = self.footer.pack;
        let first = [header, &self.beside_header[..]].concat();
        let behind = std::mem::replace(&mut self.sums, SectorSums::new(&pack, 1)).finish();
        [vec![sector_sum(&pack.0, 0, &first)], behind].concat()
    }

    /// Gives it its name, for certain.
    fn name(&self) -> Result<(), StoreError> {
        let (new, path) = (unsealed_path(&self.footer.pack), pack_path(&self.footer.pack));
        let dir = format!("{PACKS_DIR}/{}", self.footer.pack.directory());
        self.disk.rename(&new, &path).map_err(StoreError::io(path))?;
        self.disk.sync_dir(&dir).map_err(StoreError::io(dir))
    }

    /// Gives the pack up; nothing refers to it.
    pub fn abandon(self) {
        // What cannot be removed now is removed at the next mount.
        let _ = self.disk.remove(&unsealed_path(&self.footer.pack));
    }

    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.put(bytes, self.end)?;
        self.note(bytes);
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Takes the checksums of bytes that come next.
    fn note(&mut self, bytes: &[u8]) {
        let room = SECTOR as usize - PACK_HEADER_LEN - self.beside_header.len();
        let (beside, behind) = bytes.split_at(room.min(bytes.len()));
        self.beside_header.extend_from_slice(beside);
        self.sums.take(behind);
    }

    fn put(&self, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        self.file.write_at(bytes, at).map_err(|e| StoreError::io(unsealed_path(&self.footer.pack))(e))
    }
}
