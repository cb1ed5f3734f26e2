//! The libraries there are to choose from, and whose files are whose.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::{Checked, Engine, EngineError, RedbEngine, redb};

/// The directory of sled's files, and the file that says how sled was left.
pub(super) const SLED_FILES: &str = "sled";
pub(super) const SLED_SEAL: &str = "sled.seal";

/// Which library the engine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetaEngine {
    /// redb: a B+tree in one file. In every build.
    #[default]
    Redb,
    /// sled: a log-structured tree. In builds with the cargo feature `sled`.
    Sled,
}

impl MetaEngine {
    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        match self {
            MetaEngine::Redb => true,
            MetaEngine::Sled => cfg!(feature = "sled"),
        }
    }

    /// Whose files lie in `dir`, if anybody's.
    pub fn of_dir(dir: &Path) -> Option<MetaEngine> {
        let has = |kind: &MetaEngine| kind.files().iter().any(|name| dir.join(name).exists());
        [MetaEngine::Redb, MetaEngine::Sled].into_iter().find(has)
    }

    /// Whether an engine in `dir` may be usable: sled's is not, unless it was closed.
    pub fn was_closed(self, dir: &Path) -> bool {
        self == MetaEngine::Redb || !dir.join(SLED_FILES).exists() || dir.join(SLED_SEAL).exists()
    }

    /// Opens the engine in `dir`, with checksums around its values, or makes one if there is none; with
    /// `fresh` it is made anew whatever there is. Other engines' files are removed.
    pub fn open(self, dir: &Path, cache_bytes: usize, fresh: bool) -> Result<Arc<dyn Engine>, EngineError> {
        let failed = |e: io::Error| EngineError::Failed {
            engine: self.name(),
            reason: format!("{}: {e}", dir.display()),
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        self.keep_only(dir, fresh).map_err(failed)?;
        match self {
            MetaEngine::Redb => Ok(Arc::new(Checked::new(RedbEngine::open(dir, cache_bytes)?))),
            #[cfg(feature = "sled")]
            MetaEngine::Sled => Ok(Arc::new(Checked::new(super::SledEngine::open(dir, cache_bytes)?))),
            #[cfg(not(feature = "sled"))]
            MetaEngine::Sled => Err(EngineError::Failed {
                engine: self.name(),
                reason: "this build is without it; it takes the cargo feature `sled`".into(),
            }),
        }
    }

    /// Removes everything from `dir` that is not this engine's, and with `fresh` what is.
    fn keep_only(self, dir: &Path, fresh: bool) -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if !fresh && self.files().iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            // Not what a link leads to: the link.
            let removed = match entry.file_type()?.is_dir() {
                true => std::fs::remove_dir_all(entry.path()),
                false => std::fs::remove_file(entry.path()),
            };
            // An engine that failed may still be tidying up.
            removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        }
        Ok(())
    }

    fn files(self) -> &'static [&'static str] {
        match self {
            MetaEngine::Redb => &[redb::FILE],
            MetaEngine::Sled => &[SLED_FILES, SLED_SEAL],
        }
    }

    fn name(self) -> &'static str {
        match self {
            MetaEngine::Redb => "redb",
            MetaEngine::Sled => "sled",
        }
    }
}

impl fmt::Display for MetaEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MetaEngine {
    type Err = String;

    /// By the library's name. Whether this build has it is another question.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "redb" => Ok(MetaEngine::Redb),
            "sled" => Ok(MetaEngine::Sled),
            _ => Err(format!("there is no engine '{name}': redb and sled are known")),
        }
    }
}
