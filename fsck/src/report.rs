//! What a check found.

use cairn_format::{ChunkId, Ino, PackId};
use serde::Serialize;

use crate::picture::Picture;

/// Findings that are kept one by one; those behind them are counted.
const FINDINGS_MAX: usize = 10_000;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// In order, but worth knowing.
    Info,
    /// A cache is wrong: it can be thrown away and is rebuilt.
    Cache,
    /// Something is lost, or its spare copy is.
    Damage,
}

/// What was done about a finding. The words stay the same in all versions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// Written again from a copy that is whole.
    Rewritten,
    /// Counted anew, or made to say what the rest says.
    Corrected,
    /// Taken away: a cache, something left over, or what led nowhere.
    Removed,
    /// Made again from what is left of it.
    Rebuilt,
    /// Given a name in `lost+found`.
    Moved,
    /// What was journalled was folded, as a mount does.
    Folded,
    /// Lost for good: the volume goes on without it.
    GivenUp,
    /// The volume is what an older checkpoint says.
    FellBack,
    /// Bytes that are lost read as zeros from now on.
    Zeroed,
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of finding it is: a word that stays the same in all versions.
    pub kind: &'static str,
    /// The names of the file affected, from the volume's root, at most a few of them; bytes that are not
    /// UTF-8 are replaced.
    pub paths: Vec<String>,
    /// The same, byte for byte.
    #[serde(skip)]
    pub names: Vec<Vec<u8>>,
    /// The inode affected.
    pub inode: Option<u64>,
    /// Where in the file the affected bytes begin.
    pub offset: Option<u64>,
    /// How many they are.
    pub length: Option<u64>,
    /// The (first) chunk affected, in hexadecimal.
    pub chunk: Option<String>,
    /// The pack, in hexadecimal.
    pub pack: Option<String>,
    /// The file of the volume's directory that is wrong.
    pub file: Option<String>,
    /// Where in that file.
    pub file_offset: Option<u64>,
    /// What is wrong, in a sentence.
    pub what: String,
    /// What to do about it.
    pub advice: Option<&'static str>,
    /// What was done about it.
    pub done: Option<Done>,
}

impl Finding {
    /// A finding that names no place yet.
    pub fn new(severity: Severity, kind: &'static str, what: impl Into<String>) -> Finding {
        Finding {
            severity,
            kind,
            paths: Vec::new(),
            names: Vec::new(),
            inode: None,
            offset: None,
            length: None,
            chunk: None,
            pack: None,
            file: None,
            file_offset: None,
            what: what.into(),
            advice: None,
            done: None,
        }
    }

    /// Notes what was done about it: nobody else has to do anything.
    pub(crate) fn done(&mut self, done: Done) {
        (self.done, self.advice) = (Some(done), None);
    }

    /// Whether this is the same finding, whatever was done about it.
    fn is(&self, other: &Finding) -> bool {
        let place = |f: &Finding| (f.kind, f.inode, f.offset, f.length, f.file_offset);
        place(self) == place(other)
            && (&self.pack, &self.file, &self.chunk) == (&other.pack, &other.file, &other.chunk)
    }

    /// Something lost.
    pub(crate) fn damage(kind: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(Severity::Damage, kind, what)
    }

    /// Something worth knowing.
    pub(crate) fn info(kind: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(Severity::Info, kind, what)
    }

    /// A cache that is wrong.
    pub(crate) fn cache(kind: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(Severity::Cache, kind, what)
    }

    pub(crate) fn inode(mut self, ino: Ino) -> Finding {
        self.inode = Some(ino.0);
        self
    }

    pub(crate) fn run(mut self, offset: u64, length: u64) -> Finding {
        (self.offset, self.length) = (Some(offset), Some(length));
        self
    }

    pub(crate) fn chunk(mut self, chunk: ChunkId) -> Finding {
        self.chunk = Some(chunk.to_string());
        self
    }

    pub(crate) fn pack(mut self, pack: PackId) -> Finding {
        self.pack = Some(pack.to_string());
        self
    }

    pub(crate) fn file(mut self, file: impl Into<String>) -> Finding {
        self.file = Some(file.into());
        self
    }

    pub(crate) fn at(mut self, file_offset: u64) -> Finding {
        self.file_offset = Some(file_offset);
        self
    }

    pub(crate) fn advice(mut self, advice: &'static str) -> Finding {
        self.advice = Some(advice);
        self
    }

    /// Whether `next` is the same trouble, right behind this one in the same file.
    fn goes_on_in(&self, next: &Finding) -> bool {
        let end = self.offset.zip(self.length).map(|(offset, length)| offset + length);
        end.is_some()
            && end == next.offset
            && (self.kind, self.inode, &self.pack, &self.what)
                == (next.kind, next.inode, &next.pack, &next.what)
    }
}

/// Findings as they come in.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) list: Vec<Finding>,
    left_out: u64,
    left_out_damage: bool,
}

impl Findings {
    /// Adds one. Runs of a file that are affected in the same way become one finding.
    pub(crate) fn push(&mut self, finding: Finding) {
        if let Some(last) = self.list.last_mut()
            && last.goes_on_in(&finding)
        {
            last.length = last.length.zip(finding.length).map(|(a, b)| a + b);
            return;
        }
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.left_out += 1;
            self.left_out_damage |= finding.severity == Severity::Damage;
        }
    }

    /// All of them, the worst first, behind those that something was done about before.
    pub(crate) fn finish_after(mut self, mut done: Vec<Finding>) -> Vec<Finding> {
        // What is found again was not mended, whatever was tried.
        done.retain(|finding| !self.list.iter().any(|left| left.is(finding)));
        done.append(&mut self.list);
        self.list = done;
        self.finish()
    }

    /// All of them, the worst first.
    pub(crate) fn finish(mut self) -> Vec<Finding> {
        self.list.sort_by_key(|f| (f.done.is_none(), std::cmp::Reverse(f.severity)));
        if self.left_out > 0 {
            let severity = if self.left_out_damage { Severity::Damage } else { Severity::Info };
            let what = format!("{} more findings are not listed", self.left_out);
            self.list.push(Finding::new(severity, "more", what));
        }
        self.list
    }
}

/// What was gone through. All lengths are bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CheckTotals {
    /// Inodes, directories and all.
    pub inodes: u64,
    /// Files among them: what is neither a directory nor anything else special.
    pub files: u64,
    /// Directories among them.
    pub directories: u64,
    /// Bytes of all files, holes left out.
    pub logical: u64,
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Second copies of packs.
    pub twins: u64,
    /// Their bytes.
    pub twin_bytes: u64,
    /// Frames in them, each read, checked and decoded.
    pub frames: u64,
    /// Chunks in them, each hashed anew.
    pub chunks: u64,
    /// Plain bytes of those frames.
    pub plain_bytes: u64,
    /// Records in the journal.
    pub journal_records: u64,
    /// Bytes of the journal's segments that hold them.
    pub journal_bytes: u64,
    /// Records in the engine that were compared; none where it was not.
    pub engine_records: u64,
}

/// What a check found, and what it went through.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// The volume's UUID; none where its superblock cannot be read.
    pub volume: Option<String>,
    /// Its label.
    pub label: String,
    /// What was gone through.
    pub totals: CheckTotals,
    /// What was found: first what something was done about, each part with the worst first.
    pub findings: Vec<Finding>,
    /// Whether it was gone through at all: not where a volume says of itself that it is in order, and that was enough.
    pub checked: bool,
    /// What a page shows beside that, where it was asked for and there is a volume to draw.
    pub picture: Option<Picture>,
}

impl Report {
    /// Whether nothing is lost, or no longer: information and wrong caches do not count.
    pub fn is_clean(&self) -> bool {
        self.count(Severity::Damage) == 0
    }

    /// How many findings are as severe as that, and nothing was done about them.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity && f.done.is_none()).count()
    }

    /// How many findings something was done about.
    pub fn corrected(&self) -> usize {
        self.findings.iter().filter(|f| f.done.is_some()).count()
    }
}
