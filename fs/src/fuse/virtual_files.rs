//! `/.stats` and `/.config`: files that nobody wrote, for those who may not ask the daemon. They are found by name, not
//! listed, and a real file of the same name comes before them.
//!
//! Since opens are not told, the kernel keeps their page for as long as anyone has them open. So a document is filled up
//! with spaces to a length that stays, and the page is forgotten a little after it was read: not at once, for those who read
//! in pieces. What is read in one go is one document.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_volume::{Volume, parity_name};
use fuser::{FileAttr, FileType, INodeNo};
use serde::Serialize;
use serde_json::{Value, json};

use super::convert::no_such_name;
use crate::options::MountOptions;
use crate::report::{StatsTold, UsageReport, compression_name, dedup_name, heal_name};

const ROOT: u64 = 1;
/// Version of the JSON documents.
const SCHEMA: u32 = 1;
/// Documents are filled up to a multiple of this.
const PAGE: usize = 4096;

/// How long the kernel may show what was read to those who have the file open.
pub(super) const STAYS: Duration = Duration::from_secs(1);

/// One of the two. Their inode numbers are among those that a volume does not give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VirtualFile {
    Stats,
    Config,
}

impl VirtualFile {
    pub(super) fn named(parent: u64, name: &[u8]) -> Option<VirtualFile> {
        match (parent, name) {
            (ROOT, b".stats") => Some(VirtualFile::Stats),
            (ROOT, b".config") => Some(VirtualFile::Config),
            _ => None,
        }
    }

    pub(super) fn numbered(ino: u64) -> Option<VirtualFile> {
        [VirtualFile::Stats, VirtualFile::Config].into_iter().find(|file| file.ino() == ino)
    }

    pub(super) fn ino(self) -> u64 {
        match self {
            VirtualFile::Stats => 2,
            VirtualFile::Config => 3,
        }
    }
}

/// Their inode numbers.
pub(super) fn all() -> impl Iterator<Item = u64> {
    [VirtualFile::Stats, VirtualFile::Config].into_iter().map(VirtualFile::ino)
}

/// What `.stats` holds.
#[derive(Serialize)]
struct StatsDocument<'a> {
    message_type: &'static str,
    schema_version: u32,
    dir: &'a str,
    /// Seconds since 1970.
    time: f64,
    #[serde(flatten)]
    stats: StatsTold,
    usage: UsageReport,
}

/// The documents of one mount.
pub(super) struct VirtualFiles {
    volume: Arc<Volume>,
    dir: String,
    /// All of `.config` but for what can change.
    config: Value,
    /// What the last read from its begin saw, of each file: the reads behind it see the same.
    seen: [Mutex<Arc<Vec<u8>>>; 2],
}

impl VirtualFiles {
    pub(super) fn new(
        volume: Arc<Volume>,
        dir: &str,
        mountpoint: &str,
        options: &MountOptions,
    ) -> VirtualFiles {
        let config = configuration(&volume, dir, mountpoint, options);
        VirtualFiles { volume, dir: dir.to_string(), config, seen: Default::default() }
    }

    /// What was agreed on with the kernel.
    pub(super) fn set_kernel(&mut self, features: Value) {
        self.config["kernel"] = features;
    }

    /// What `stat` tells.
    pub(super) fn attr(&self, file: VirtualFile) -> FileAttr {
        let now = SystemTime::now();
        let size = self.document(file).len() as u64;
        FileAttr {
            ino: INodeNo(file.ino()),
            size,
            blocks: size / 512,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind: FileType::RegularFile,
            perm: 0o444,
            nlink: 1,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            ..no_such_name()
        }
    }

    /// Bytes of a document: from its begin on those of a new one.
    pub(super) fn read(&self, file: VirtualFile, offset: u64, len: u32) -> Vec<u8> {
        let mut seen = self.seen[file as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if offset == 0 || seen.is_empty() {
            *seen = Arc::new(self.document(file));
        }
        let document = seen.clone();
        drop(seen);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(document.len());
        document[from..].iter().copied().take(len as usize).collect()
    }

    fn document(&self, file: VirtualFile) -> Vec<u8> {
        let text = match file {
            VirtualFile::Stats => serde_json::to_string(&self.stats()),
            VirtualFile::Config => serde_json::to_string(&self.config()),
        };
        // Numbers and names: what cannot be written is not among them.
        filled(text.unwrap_or_default().into_bytes())
    }

    fn stats(&self) -> StatsDocument<'_> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        StatsDocument {
            message_type: "stats",
            schema_version: SCHEMA,
            dir: &self.dir,
            time: now.as_secs_f64(),
            stats: StatsTold::of(&self.volume),
            usage: self.volume.usage().into(),
        }
    }

    fn config(&self) -> Value {
        let mut config = self.config.clone();
        config["options"]["heal"] = heal_name(self.volume.heal_mode()).into();
        config["label"] = self.volume.label().into();
        config["takes_writes"] = (!self.volume.is_read_only()).into();
        config
    }
}

/// Spaces up to a page's end, which is a newline.
fn filled(mut document: Vec<u8>) -> Vec<u8> {
    document.resize((document.len() + 1).next_multiple_of(PAGE) - 1, b' ');
    document.push(b'\n');
    document
}

fn configuration(volume: &Volume, dir: &str, mountpoint: &str, options: &MountOptions) -> Value {
    let (geometry, (compression, dedup)) = (volume.geometry(), volume.writes());
    let open = options.to_open();
    json!({
        "message_type": "config",
        "schema_version": SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "dir": dir,
        "mountpoint": mountpoint,
        "uuid": volume.uuid().to_string(),
        "options": {
            "ro": options.read_only,
            "suid": options.suid,
            "dev": options.dev,
            "noexec": options.noexec,
            "noatime": options.noatime,
            "allow_other": options.allow_other,
            "cache_size": open.cache_size,
            "index_mem": open.index_mem,
            "compress": compression_name(compression),
            "dedup": dedup_name(dedup),
            "heal": heal_name(volume.heal_mode()),
            "parity": parity_name(volume.new_parity().0),
            "meta_engine": open.meta_engine.to_string(),
            "log_format": options.log_format.unwrap_or_default().name(),
            "metrics": options.metrics.map(|address| address.to_string()),
        },
        "geometry": {
            "chunk_min": geometry.chunks.min,
            "chunk_avg": geometry.chunks.avg,
            "chunk_max": geometry.chunks.max,
            "frame": geometry.frame,
            "compression": compression_name(geometry.compression),
            "parity_data": geometry.parity.data,
            "parity_extra": geometry.parity.parity,
            "segment": geometry.segment,
            "segments": geometry.segments,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_filled_up_to_whole_pages_and_stays_json() {
        for len in [0, 1, PAGE - 2, PAGE - 1, PAGE, 2 * PAGE] {
            let text = format!("\"{}\"", "x".repeat(len));
            let document = filled(text.clone().into_bytes());
            assert!(document.len().is_multiple_of(PAGE) && document.len() < text.len() + 1 + PAGE, "{len}");
            assert_eq!(document.last(), Some(&b'\n'));
            serde_json::from_slice::<Value>(&document).expect("JSON still");
        }
    }

    #[test]
    fn they_lie_in_the_root_and_have_numbers_of_their_own() {
        assert_eq!(VirtualFile::named(1, b".stats"), Some(VirtualFile::Stats));
        assert_eq!(VirtualFile::named(1, b".config"), Some(VirtualFile::Config));
        assert_eq!(VirtualFile::named(17, b".stats"), None);
        assert_eq!(VirtualFile::named(1, b"stats"), None);
        for file in [VirtualFile::Stats, VirtualFile::Config] {
            assert_eq!(VirtualFile::numbered(file.ino()), Some(file));
        }
        assert_eq!(VirtualFile::numbered(ROOT), None);
    }
}
