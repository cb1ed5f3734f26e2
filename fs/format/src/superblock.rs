//! Superblocks: what a volume and a store are, beside what they hold.

use crate::wire::{Decoder, Encoder, FormatError};
use crate::{CheckpointRef, Domain, FORMAT_VERSION, Lsn, Seal, Uuid};

/// The length of a superblock's file. The last eight bytes are its checksum.
pub const SUPERBLOCK_LEN: usize = 4096;
const SUM_AT: usize = SUPERBLOCK_LEN - 8;
const LABEL_MAX: usize = 64;
const STORE_PATH_MAX: usize = 1024;

/// How files are cut into chunks, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkSizes {
    /// No chunk is shorter, but a file's last.
    pub min: u32,
    /// The average asked of FastCDC; the mean it makes is about 1.35 times that.
    pub avg: u32,
    /// No chunk is longer.
    pub max: u32,
}

/// How frames are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd at this level, raw where that does not pay.
    Zstd(i8),
}

/// K data units and M parity units to a stripe; 0+0 is no parity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ParityGeometry {
    /// K.
    pub data: u8,
    /// M.
    pub parity: u8,
}

impl ParityGeometry {
    /// K data units and M parity units.
    pub fn new(data: u8, parity: u8) -> ParityGeometry {
        ParityGeometry { data, parity }
    }

    /// Whether there is no parity.
    pub fn is_none(&self) -> bool {
        self.parity == 0
    }

    /// Whether it is one that can be computed.
    pub fn is_sound(&self) -> bool {
        matches!((self.data, self.parity), (0, 0) | (1..=128, 1..=64))
    }

    pub(crate) fn decode(d: &mut Decoder<'_>) -> Result<ParityGeometry, FormatError> {
        let geometry = ParityGeometry { data: d.u8("parity_data")?, parity: d.u8("parity_extra")? };
        if geometry.is_sound() { Ok(geometry) } else { Err(d.bad("parity_data", geometry.data.into())) }
    }
}

/// What `mkfs` chose for a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Chunk sizes; the chunker is FastCDC v2020 (id 1).
    pub chunks: ChunkSizes,
    /// Plain bytes to a frame.
    pub frame: u32,
    /// How frames are compressed.
    pub compression: Compression,
    /// The parity that packs are to have.
    pub parity: ParityGeometry,
    /// Bytes of a journal segment.
    pub segment: u32,
    /// The most segments the journal has.
    pub segments: u32,
}

/// Whether the volume was left in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VolumeState {
    /// A mount has begun; its first record may not be certain yet.
    Mounting,
    /// Unmounted with everything folded: the checkpoint named holds it all.
    Clean,
    /// A mount has it, or had it and did not end cleanly: the journal holds records of its epoch.
    Mounted,
}

impl VolumeState {
    fn code(self) -> u8 {
        match self {
            VolumeState::Mounting => 0,
            VolumeState::Clean => 1,
            VolumeState::Mounted => 2,
        }
    }
}

/// A volume's superblock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeSuperblock {
    /// The volume.
    pub uuid: Uuid,
    /// The store that holds its chunks.
    pub store: Uuid,
    /// Counts rewrites: of two intact replicas the higher one holds.
    pub generation: u64,
    /// The number of the mount that wrote this last.
    pub epoch: u32,
    /// Whether it was left in order.
    pub state: VolumeState,
    /// The checkpoint a clean volume stands at; of one in use, one it cannot be older than.
    pub checkpoint: CheckpointRef,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// What `mkfs` chose.
    pub geometry: Geometry,
    /// A name for people, at most 64 bytes.
    pub label: String,
    /// Where its store is, if not in `store/` beside it.
    pub store_path: String,
}

/// A store's superblock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreSuperblock {
    /// The store.
    pub uuid: Uuid,
    /// Counts rewrites.
    pub generation: u64,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Stored bytes at which a pack is sealed.
    pub pack_size: u32,
    /// The key of the chunk ids: chunks dedup among volumes that share it.
    pub chunk_key: [u8; 32],
}

const VOLUME: &str = "volume superblock";
const STORE: &str = "store superblock";

impl VolumeSuperblock {
    const MAGIC: &[u8; 8] = b"CAIRNVOL";

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the superblock's fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        let g = &self.geometry;
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.u32("epoch", self.epoch);
        e.u64("required_features", 0);
        e.bytes("volume", &self.uuid.0);
        e.bytes("store", &self.store.0);
        e.u64("generation", self.generation);
        self.checkpoint.encode(e);
        e.i64("created", self.created);
        e.u8("state", self.state.code());
        e.u8("chunker", 1);
        let (codec, level) = match g.compression {
            Compression::None => (0, 0),
            Compression::Zstd(level) => (1, level),
        };
        e.u8("codec", codec);
        e.u8("level", level as u8);
        e.u8("parity_data", g.parity.data);
        e.u8("parity_extra", g.parity.parity);
        e.u8("encryption", 0);
        e.u8("reserved", 0);
        e.u32("chunk_min", g.chunks.min);
        e.u32("chunk_avg", g.chunks.avg);
        e.u32("chunk_max", g.chunks.max);
        e.u32("frame_size", g.frame);
        e.u32("segment_size", g.segment);
        e.u32("segments", g.segments);
        text(e, "label_len", "label", &self.label, LABEL_MAX);
        text(e, "store_path_len", "store_path", &self.store_path, STORE_PATH_MAX);
        finish(e);
    }

    /// Checks and decodes the file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut d = checked(VOLUME, bytes, Self::MAGIC)?;
        let epoch = d.u32("epoch")?;
        let epoch = d.within("epoch", epoch.into(), 0..=Lsn::EPOCH_MAX.into())? as u32;
        match d.u64("required_features")? {
            0 => {}
            features => return Err(d.bad("required_features", features)),
        }
        let uuid = Uuid(d.array("volume")?);
        let store = Uuid(d.array("store")?);
        let generation = d.u64("generation")?;
        let checkpoint = CheckpointRef::decode(&mut d)?;
        let created = d.i64("created")?;
        let state = match d.u8("state")? {
            0 => VolumeState::Mounting,
            1 => VolumeState::Clean,
            2 => VolumeState::Mounted,
            other => return Err(d.bad("state", other.into())),
        };
        match d.u8("chunker")? {
            1 => {}
            other => return Err(d.bad("chunker", other.into())),
        }
        let compression = match (d.u8("codec")?, d.u8("level")? as i8) {
            (0, _) => Compression::None,
            (1, level @ -7..=22) => Compression::Zstd(level),
            (other, _) => return Err(d.bad("codec", other.into())),
        };
        let parity = ParityGeometry { data: d.u8("parity_data")?, parity: d.u8("parity_extra")? };
        match d.u8("encryption")? {
            0 => {}
            other => return Err(d.bad("encryption", other.into())),
        }
        d.u8("reserved")?;
        let chunks =
            ChunkSizes { min: d.u32("chunk_min")?, avg: d.u32("chunk_avg")?, max: d.u32("chunk_max")? };
        let geometry = Geometry {
            chunks,
            frame: d.u32("frame_size")?,
            compression,
            parity,
            segment: d.u32("segment_size")?,
            segments: d.u32("segments")?,
        };
        geometry.check().map_err(|(field, value)| d.bad(field, value))?;
        let label = take_text(&mut d, "label", LABEL_MAX)?;
        let store_path = take_text(&mut d, "store_path", STORE_PATH_MAX)?;
        Ok(VolumeSuperblock {
            uuid,
            store,
            generation,
            epoch,
            state,
            checkpoint,
            created,
            geometry,
            label,
            store_path,
        })
    }
}

impl Geometry {
    /// The first field that makes no sense, with its value.
    pub fn check(&self) -> Result<(), (&'static str, u64)> {
        let ChunkSizes { min, avg, max } = self.chunks;
        let field = |name, value: u32, ok: bool| if ok { Ok(()) } else { Err((name, u64::from(value))) };
        // FastCDC v2020 looks at pairs of bytes: odd sizes would shift its cuts.
        let even = |size: u32| size.is_multiple_of(2);
        // The bounds of FastCDC v2020, and those that the fold's buffers are made for.
        field("chunk_min", min, (64..=1 << 20).contains(&min) && even(min))?;
        field("chunk_avg", avg, (256..=4 << 20).contains(&avg) && avg > min && even(avg))?;
        field("chunk_max", max, (1024..=16 << 20).contains(&max) && max > avg && even(max))?;
        field("frame_size", self.frame, (4096..=16 << 20).contains(&self.frame))?;
        field(
            "segment_size",
            self.segment,
            (64 << 10..=1 << 30).contains(&self.segment) && self.segment.is_multiple_of(4096),
        )?;
        field("segments", self.segments, (4..=1 << 16).contains(&self.segments))?;
        field("parity_data", self.parity.data.into(), self.parity.is_sound())
    }
}

impl StoreSuperblock {
    const MAGIC: &[u8; 8] = b"CAIRNSTO";

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the superblock's fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.u32("pack_size", self.pack_size);
        e.u64("required_features", 0);
        e.bytes("store", &self.uuid.0);
        e.u64("generation", self.generation);
        e.i64("created", self.created);
        e.bytes("chunk_key", &self.chunk_key);
        finish(e);
    }

    /// Checks and decodes the file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut d = checked(STORE, bytes, Self::MAGIC)?;
        let pack_size = d.u32("pack_size")?;
        d.within("pack_size", pack_size.into(), 64 << 10..=1 << 30)?;
        match d.u64("required_features")? {
            0 => {}
            features => return Err(d.bad("required_features", features)),
        }
        Ok(StoreSuperblock {
            pack_size,
            uuid: Uuid(d.array("store")?),
            generation: d.u64("generation")?,
            created: d.i64("created")?,
            chunk_key: d.array("chunk_key")?,
        })
    }
}

fn seal() -> Seal {
    Seal::new(Domain::Superblock, &[0; 16], 0)
}

fn finish(e: &mut Encoder) {
    e.zeros_to("zeros", SUM_AT);
    let sum = seal().sum(e.written());
    e.u64("checksum", sum);
}

/// The decoder after magic and version. A superblock of any version is as long as this and sealed in the same way: damage
/// can flip a version as well, and a newer one is told from that by being whole.
fn checked<'a>(what: &'static str, bytes: &'a [u8], magic: &[u8; 8]) -> Result<Decoder<'a>, FormatError> {
    let mut d = Decoder::new(what, bytes);
    d.magic(magic)?;
    let intact =
        bytes.len() == SUPERBLOCK_LEN && seal().sum(&bytes[..SUM_AT]).to_le_bytes() == bytes[SUM_AT..];
    match (intact, d.version()) {
        (true, version) => version.map(|_| d),
        (false, _) if bytes.len() < SUPERBLOCK_LEN => Err(FormatError::Truncated {
            what,
            field: "superblock",
            need: SUPERBLOCK_LEN as u64,
            have: bytes.len() as u64,
        }),
        (false, _) => Err(FormatError::BadChecksum { what }),
    }
}

fn text(e: &mut Encoder, len_name: &'static str, name: &'static str, value: &str, max: usize) {
    // Callers check lengths against what they were given; a longer text here would be cut at a
    // character's boundary rather than spill into the next field.
    let mut cut = value.len().min(max);
    while !value.is_char_boundary(cut) {
        cut -= 1;
    }
    e.u16(len_name, cut as u16);
    e.bytes(name, &value.as_bytes()[..cut]);
}

fn take_text(d: &mut Decoder<'_>, field: &'static str, max: usize) -> Result<String, FormatError> {
    let len = d.u16(field)?;
    d.within(field, len.into(), 0..=max as u64)?;
    let bytes = d.bytes(field, len.into())?;
    String::from_utf8(bytes.to_vec()).map_err(|_| d.bad(field, len.into()))
}
