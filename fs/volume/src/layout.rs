//! A volume's directory: what lies where, and who has it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_store::disk::{Disk, FileDisk};
use cairn_store::join_across;
use nix::fcntl::OFlag;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The store's directory, where the superblock names no other.
pub const STORE_DIR: &str = "store";
/// The engine's directory.
pub const ENGINE_DIR: &str = "engine";
/// The lock's file.
pub const LOCK_PATH: &str = "lock";
/// The socket by which commands reach the daemon of a mount.
pub const CONTROL_SOCKET: &str = "control.sock";
/// A note that something is wrong with the volume, which a mount makes that met damage: `fsck.cairn -p` does not take the
/// volume for whole then.
pub const SUSPECT_PATH: &str = "suspect";
/// A page for people who find the directory.
pub const README_PATH: &str = "README";

/// How long a mount or a check waits for one that still folds.
const WAIT: Duration = Duration::from_secs(60);

pub(crate) const README: &str = "\
This directory is a cairn volume: a filesystem that deduplicates and compresses what is written to it.
Mount it to see its files:    cairn mount THIS-DIRECTORY MOUNTPOINT
Check it while unmounted:     fsck.cairn THIS-DIRECTORY

  superblock, superblock.backup   what the volume is; two copies, keep both
  journal/                        what was written last and not folded yet: NEVER delete it
  store/packs/                    the files' bytes and the directory tree: NEVER delete them
  store/superblock*               what the store is; two copies
  store/twins/                    second copies of some packs: made again if they are missing
  store/across.list               which other directories have second copies of all packs
  store/index, engine/            caches: rebuilt at the next mount if they are missing
  store/scrub                     when each pack was last scrubbed: a cache
  reserve                         room for a full disk; may be deleted
  lock, control.sock              who has it mounted, and how commands reach the mount
  log                             what the mount's daemon had to say
  suspect                         that a mount met damage: fsck.cairn looks closer, and removes it
  fsck-undo/                      what fsck.cairn overwrote or took away; may be deleted

To copy a volume, copy the whole directory while it is not mounted.
";

/// What the holder of a lock does with the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockHolder {
    /// It is mounted there, or about to be.
    Mount(PathBuf),
    /// It is being made, checked or looked at.
    Other(&'static str),
}

/// A volume that nobody else can take, for as long as this, or a copy of its descriptor, is there.
pub struct VolumeLock {
    file: File,
}

impl VolumeLock {
    /// Takes over a lock that somebody else holds by the same open file.
    pub(crate) fn take_over(dir: &Path, file: OwnedFd, holder: &LockHolder) -> Result<VolumeLock, LockError> {
        let path = dir.join(LOCK_PATH).display().to_string();
        let io = |error: io::Error| LockError::Io { path: path.clone(), error };
        let mut file = File::from(file);
        // Held already, unless whoever held it gave it up.
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| io(e.into()))?;
        describe(&mut file, holder).map_err(io)?;
        Ok(VolumeLock { file })
    }

    /// Another descriptor that holds it.
    pub(crate) fn copy(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Gives it up, whoever else has a descriptor that holds it.
    pub(crate) fn release(self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!("the lock's file cannot be unlocked: {error}");
        }
    }
}

/// Why a volume's lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it.
    #[error("{dir} is in use: {holder}")]
    Held {
        /// The volume's directory.
        dir: String,
        /// By whom, as far as the lock's file tells.
        holder: String,
    },
    /// The lock's file cannot be opened.
    #[error("{path}: {error}")]
    Io {
        /// The lock's file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
}

/// Takes a volume's lock. Where `wait` is set and its holder is not a mount that people see, but one
/// that still folds, waits up to a minute; `on_wait` is told.
pub fn lock_volume(
    dir: &Path,
    holder: &LockHolder,
    wait: bool,
    on_wait: &dyn Fn(&str),
) -> Result<VolumeLock, LockError> {
    let path = dir.join(LOCK_PATH);
    let io = |error: io::Error| LockError::Io { path: path.display().to_string(), error };
    let mut file = open_lock(&path).map_err(io)?;
    let since = Instant::now();
    let mut told = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                describe(&mut file, holder).map_err(io)?;
                return Ok(VolumeLock { file });
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => return Err(io(errno.into())),
        }
        let mut text = String::new();
        // What it says is for people only, and may be half written.
        let _ = file.seek(io::SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text));
        let held = Held::parse(&text);
        let visible = held.mountpoint.as_deref().is_some_and(is_mounted_at);
        if !wait || visible || since.elapsed() > WAIT {
            return Err(LockError::Held { dir: dir.display().to_string(), holder: held.describe(visible) });
        }
        if !told {
            on_wait(&format!(
                "waiting up to {} s for {}: {}",
                WAIT.as_secs(),
                dir.display(),
                held.describe(visible)
            ));
            told = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Opens the lock's file, which is none of somebody else's: whoever can write into the volume's directory cannot have
/// another file emptied by a link in its place.
fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(flags.bits());
    let file = options.open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
    }
}

fn describe(file: &mut File, holder: &LockHolder) -> io::Result<()> {
    let text = match holder {
        LockHolder::Mount(at) => format!("pid {}\nmount {}\n", std::process::id(), at.display()),
        LockHolder::Other(what) => format!("pid {}\n{what}\n", std::process::id()),
    };
    file.set_len(0)?;
    file.seek(io::SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())
}

#[derive(Default)]
struct Held {
    pid: Option<String>,
    mountpoint: Option<String>,
    what: Option<String>,
}

impl Held {
    fn parse(text: &str) -> Held {
        let mut held = Held::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("pid", pid)) => held.pid = Some(pid.to_owned()),
                Some(("mount", at)) => held.mountpoint = Some(at.to_owned()),
                _ => held.what = Some(line.to_owned()),
            }
        }
        held
    }

    fn describe(&self, visible: bool) -> String {
        let pid = self.pid.as_deref().map_or("another process".to_owned(), |pid| format!("process {pid}"));
        match (&self.mountpoint, &self.what) {
            (Some(at), _) if visible => format!("{pid} has it mounted at {at}"),
            (Some(at), _) => format!("{pid} had it mounted at {at} and is still folding what was written"),
            (None, Some(what)) => format!("{pid} is {what}"),
            (None, None) => format!("{pid} has it"),
        }
    }
}

/// Whether a cairn filesystem is mounted there, as the kernel sees it.
fn is_mounted_at(mountpoint: &str) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return true };
    // Blanks and the like are written as octal escapes there.
    let escaped: String = mountpoint
        .chars()
        .map(|c| match c {
            ' ' => "\\040".to_owned(),
            '\t' => "\\011".to_owned(),
            '\n' => "\\012".to_owned(),
            '\\' => "\\134".to_owned(),
            c => c.to_string(),
        })
        .collect();
    table.lines().any(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        fields.get(4) == Some(&escaped.as_str()) && line.contains(" - fuse.cairn ")
    })
}

/// The disk of a volume's store.
pub fn store_disk(dir: &Path, store_path: &str) -> io::Result<Arc<dyn Disk>> {
    let path = if store_path.is_empty() { dir.join(STORE_DIR) } else { PathBuf::from(store_path) };
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let store: Arc<dyn Disk> = Arc::new(FileDisk::open(&path).map_err(named)?);
    Ok(join_across(store, |dir| Ok(Arc::new(FileDisk::open(Path::new(dir))?))))
}
