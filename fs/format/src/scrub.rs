//! What a store's scrubs found, and when: a cache, without which the next one begins anew.

use crate::wire::{Decoder, Encoder, FormatError};
use crate::{Domain, FORMAT_VERSION, PackId, Seal, Uuid};

/// What came of looking through a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScrubOutcome {
    /// Nothing was wrong.
    Whole,
    /// What was wrong was written back.
    Corrected,
    /// Something is lost.
    Uncorrected,
    /// Something was wrong that nothing was done about.
    Damaged,
}

/// When a pack was last looked through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubEntry {
    /// The pack.
    pub pack: PackId,
    /// When that ended, in seconds since 1970; 0 where none did, and somebody else met damage in it.
    pub verified: u64,
    /// In which round.
    pub round: u32,
    /// What came of it.
    pub outcome: ScrubOutcome,
    /// Whether its chunks were held against their ids, too.
    pub deep: bool,
}

impl ScrubEntry {
    /// When it was last looked through, in seconds since 1970, if it was.
    pub fn verified_at(&self) -> Option<u64> {
        (self.verified != 0).then_some(self.verified)
    }
}

/// How far scrubs of a store are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScrubState {
    /// The store.
    pub store: Uuid,
    /// Counts times that all packs were gone through, the one under way included.
    pub round: u32,
    /// Whether that round is not over.
    pub unfinished: bool,
    /// The packs that were looked through.
    pub packs: Vec<ScrubEntry>,
}

const SCRUB: &str = "scrub state";
const ENTRY_LEN: usize = 16 + 8 + 4 + 1 + 1;

impl ScrubState {
    const MAGIC: &[u8; 8] = b"CAIRNSCR";

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::after(Vec::with_capacity(48 + self.packs.len() * ENTRY_LEN));
        self.encode_into(&mut e);
        e.finish()
    }

    /// Writes the fields.
    pub fn encode_into(&self, e: &mut Encoder) {
        e.bytes("magic", Self::MAGIC);
        e.u32("version", FORMAT_VERSION);
        e.bytes("store", &self.store.0);
        e.u32("round", self.round);
        e.u8("unfinished", self.unfinished.into());
        e.u32("packs", self.packs.len() as u32);
        for entry in &self.packs {
            e.bytes("pack.id", &entry.pack.0);
            e.u64("pack.verified", entry.verified);
            e.u32("pack.round", entry.round);
            e.u8("pack.outcome", entry.outcome.code());
            e.u8("pack.deep", entry.deep.into());
        }
        let sum = Self::seal(&self.store).sum(e.written());
        e.u64("checksum", sum);
    }

    /// Checks and decodes the file of `store`.
    pub fn decode(bytes: &[u8], store: &Uuid) -> Result<Self, FormatError> {
        let body = match bytes.split_last_chunk::<8>() {
            Some((body, sum)) if Self::seal(store).sum(body) == u64::from_le_bytes(*sum) => body,
            _ => return Err(FormatError::BadChecksum { what: SCRUB }),
        };
        let mut d = Decoder::new(SCRUB, body);
        d.magic(Self::MAGIC)?;
        d.version()?;
        let store = Uuid(d.array("store")?);
        let round = d.u32("round")?;
        let unfinished = flag(&mut d, "unfinished")?;
        let count = d.count("packs", ENTRY_LEN)?;
        let mut packs = Vec::with_capacity(count);
        for _ in 0..count {
            packs.push(ScrubEntry {
                pack: PackId(d.array("pack.id")?),
                verified: d.u64("pack.verified")?,
                round: d.u32("pack.round")?,
                outcome: match d.u8("pack.outcome")? {
                    0 => ScrubOutcome::Whole,
                    1 => ScrubOutcome::Corrected,
                    2 => ScrubOutcome::Uncorrected,
                    3 => ScrubOutcome::Damaged,
                    other => return Err(d.bad("pack.outcome", other.into())),
                },
                deep: flag(&mut d, "pack.deep")?,
            });
        }
        d.end()?;
        Ok(ScrubState { store, round, unfinished, packs })
    }

    fn seal(store: &Uuid) -> Seal {
        Seal::new(Domain::Scrub, &store.0, 0)
    }
}

impl ScrubOutcome {
    fn code(self) -> u8 {
        match self {
            ScrubOutcome::Whole => 0,
            ScrubOutcome::Corrected => 1,
            ScrubOutcome::Uncorrected => 2,
            ScrubOutcome::Damaged => 3,
        }
    }
}

fn flag(d: &mut Decoder<'_>, name: &'static str) -> Result<bool, FormatError> {
    match d.u8(name)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(d.bad(name, other.into())),
    }
}
