//! What a page shows.

use crate::{Map, Shown};

/// How it stands with the volume, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing is wrong.
    Whole,
    /// Something was, and is no longer.
    Corrected,
    /// Something is damaged, or lost.
    Damaged,
    /// Nobody looked.
    NotLooked,
}

/// Everything a page shows. Times are in seconds since 1970, lengths in bytes.
#[derive(Clone, Debug)]
pub struct Page {
    /// What was run, as in `fsck.cairn -p`.
    pub command: String,
    /// Its version.
    pub version: String,
    /// The volume's directory.
    pub dir: Shown,
    /// Its label; may be empty.
    pub label: String,
    /// Its UUID; none where its superblock cannot be read.
    pub uuid: Option<String>,
    /// When the run ended.
    pub made: u64,
    /// How many seconds it took.
    pub seconds: f64,
    /// How it stands.
    pub verdict: Verdict,
    /// Whether something is wrong that nothing brings back by itself: it decides what to do next.
    pub lost: bool,
    /// How it stands, in a sentence.
    pub sentence: String,
    /// What else is to be known of the run, in sentences.
    pub notes: Vec<String>,
    /// The packs; none where they were not come to.
    pub map: Option<Map>,
    /// What was gone through: a name that stays the same, what people call it, and how much.
    pub totals: Vec<(&'static str, &'static str, u64)>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// Whether there is more.
    pub more: bool,
    /// What deduplication and compression saved, where that is known.
    pub savings: Option<Savings>,
    /// What the volume's parity is good for, in words, where that is known.
    pub guarantee: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// A cache is wrong.
    Cache,
    /// Something is lost, or its spare copy is.
    Damage,
}

/// One thing that was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of finding it is, in a word.
    pub kind: String,
    /// What the file affected is called.
    pub names: Vec<Shown>,
    /// Its inode.
    pub inode: Option<u64>,
    /// Offset and length of what is affected of it.
    pub ranges: Vec<(u64, u64)>,
    /// How many such places there are beyond those.
    pub more_ranges: u64,
    /// The file of the volume's directory that is wrong.
    pub place: Option<String>,
    /// Where in that file.
    pub at: Option<u64>,
    /// How many bytes there.
    pub len: Option<u64>,
    /// The pack, in hexadecimal.
    pub pack: Option<String>,
    /// What is wrong, in a sentence.
    pub what: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// What was done about it.
    pub done: Option<String>,
}

impl Finding {
    /// A finding that names no place yet.
    pub fn new(severity: Severity, kind: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding {
            severity,
            kind: kind.into(),
            names: Vec::new(),
            inode: None,
            ranges: Vec::new(),
            more_ranges: 0,
            place: None,
            at: None,
            len: None,
            pack: None,
            what: what.into(),
            advice: None,
            done: None,
        }
    }

    /// Whether it is about a file of the volume's users, and not one of the volume's own.
    pub(crate) fn is_of_a_file(&self) -> bool {
        self.inode.is_some() || !self.names.is_empty()
    }
}

/// What a volume's files take. All in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Savings {
    /// The files, holes left out.
    pub logical: u64,
    /// Each chunk once.
    pub unique: u64,
    /// Those compressed, in packs.
    pub stored: u64,
    /// Names, inodes, where everything lies; caches of that, where they were counted.
    pub metadata: u64,
    /// What is there to mend the others: parity, checksums, second copies.
    pub parity: u64,
    /// What waits in the journal.
    pub journal: u64,
}

impl Savings {
    /// All that is taken for good.
    pub fn taken(&self) -> u64 {
        [self.stored, self.metadata, self.parity, self.journal].into_iter().fold(0, u64::saturating_add)
    }
}
