//! The directories on other disks that have a second copy of every pack.

use crate::wire::{Decoder, Encoder, FormatError};
use crate::{Domain, FORMAT_VERSION, Seal, Uuid};

/// The most directories there are.
pub const ACROSS_MAX: usize = 8;
/// The longest of their paths, in bytes.
const PATH_MAX: usize = 4096;

const ACROSS: &str = "list of directories";

/// Which directories have second copies of a store's packs. It lies in the store, and in each of the directories, which it
/// tells from others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Across {
    /// The store.
    pub store: Uuid,
    /// 0 in the store; in a directory its own number, from 1.
    pub number: u16,
    /// Their paths, in the order of their numbers: 1 to 8.
    pub dirs: Vec<String>,
}

impl Across {
    const MAGIC: &[u8; 8] = b"CAIRNACR";

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.bytes("store", &self.store.0);
        e.u16("number", self.number);
        e.u16("directories", self.dirs.len() as u16);
        for dir in &self.dirs {
            e.u16("path_len", dir.len() as u16);
            e.bytes("path", dir.as_bytes());
        }
        let sum = seal().sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes the file.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let body = match bytes.split_last_chunk::<8>() {
            Some((body, sum)) if seal().sum(body) == u64::from_le_bytes(*sum) => body,
            _ => return Err(FormatError::BadChecksum { what: ACROSS }),
        };
        let mut d = Decoder::new(ACROSS, body);
        d.magic(Self::MAGIC)?;
        d.version()?;
        let store = Uuid(d.array("store")?);
        let number = d.u16("number")?;
        let count = d.u16("directories")?;
        d.within("directories", count.into(), 1..=ACROSS_MAX as u64)?;
        d.within("number", number.into(), 0..=count.into())?;
        let mut dirs = Vec::with_capacity(count.into());
        for _ in 0..count {
            let len = d.u16("path_len")?;
            d.within("path_len", len.into(), 1..=PATH_MAX as u64)?;
            let path = d.bytes("path", len.into())?.to_vec();
            dirs.push(String::from_utf8(path).map_err(|_| d.bad("path", len.into()))?);
        }
        d.end()?;
        Ok(Across { store, number, dirs })
    }
}

/// Whichever store it is of, so that another's is told from a damaged one.
fn seal() -> Seal {
    Seal::new(Domain::Across, &[0; 16], 0)
}
