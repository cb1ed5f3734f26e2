//! What `cairn repair --from` looks through: files, the trees below directories, and other volumes. It is read by the
//! command, never by a daemon: with the rights and in the namespace of whoever asked.

use std::collections::HashSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_volume::{Finds, Seeker, SourceFile, Volume, VolumeSource};
use nix::fcntl::OFlag;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::places;

/// What could not be read is told so many times.
const TOLD: usize = 20;

/// Something to look through.
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// A directory, with all below it on the same filesystem.
    Tree(PathBuf),
    /// A volume that nobody has mounted, and its directory.
    Volume(Arc<Volume>, PathBuf),
}

/// Finds out what is to be looked through. `own` is the volume that it is for.
pub(crate) fn find(paths: &[PathBuf], own: &Path) -> Result<Vec<Source>, Failure> {
    paths.iter().map(|path| source(path, own)).collect()
}

fn source(path: &Path, own: &Path) -> Result<Source, Failure> {
    let full = path.canonicalize().map_err(|e| Failure::new(places::cannot_reach(path, &e)))?;
    let kind = fs::metadata(&full).map_err(|e| Failure::new(places::cannot_reach(path, &e)))?;
    if kind.is_file() {
        return Ok(Source::File(full));
    }
    if !kind.is_dir() {
        return Err(Failure::usage(format!("{} is neither a file nor a directory", path.display())));
    }
    if full == own || cairn_volume::superblock(&full).is_err() {
        return Ok(Source::Tree(full));
    }
    if let Some(mountpoint) = places::find(&full)?.mountpoint {
        return Ok(Source::Tree(mountpoint));
    }
    let options =
        cairn_volume::OpenOptions { read_only: true, collect: false, ..cairn_volume::OpenOptions::default() };
    match cairn_volume::open(&full, options) {
        Ok(volume) => Ok(Source::Volume(volume, full)),
        Err(error) => {
            eprintln!("cairn: {}: only its packs are looked into, not its files: {error}", path.display());
            Ok(Source::Tree(full))
        }
    }
}

/// Looks through all sources, until everything is found or `to` breaks.
pub(crate) fn look(sources: &[Source], seeker: &mut Seeker, to: &mut dyn Finds) -> ControlFlow<()> {
    let mut walk = Walk::default();
    // Where things should be first: that is quick.
    for source in sources {
        match source {
            Source::File(path) => match open(path) {
                Ok((mut file, _)) => seeker.in_any_place(&mut file, to)?,
                Err(e) => walk.tell(path, &e),
            },
            Source::Tree(dir) => seeker.in_copy(&mut |path| in_tree(dir, path), to)?,
            Source::Volume(volume, _) => {
                let mut open = |path: &[u8]| -> Option<Box<dyn SourceFile>> {
                    VolumeSource::open(volume, path).map(|file| Box::new(file) as _)
                };
                seeker.in_copy(&mut open, to)?;
            }
        }
    }
    for source in sources {
        match source {
            Source::File(path) => walk.file(path, seeker, to)?,
            Source::Tree(dir) => walk.tree(dir, seeker, to)?,
            Source::Volume(volume, dir) => {
                let mut each = |mut file: VolumeSource| match seeker.left() {
                    0 => ControlFlow::Break(None),
                    _ => seeker.through(&mut file, to).map_break(Some),
                };
                if let ControlFlow::Break(Some(())) = each_file(volume, &mut each) {
                    return ControlFlow::Break(());
                }
                // What no file of it names any more.
                walk.tree(&dir.join(cairn_volume::STORE_DIR), seeker, to)?;
            }
        }
    }
    walk.sum_up();
    ControlFlow::Continue(())
}

fn each_file(
    volume: &Arc<Volume>,
    each: &mut dyn FnMut(VolumeSource) -> ControlFlow<Option<()>>,
) -> ControlFlow<Option<()>> {
    let mut ended = ControlFlow::Continue(());
    let _ = VolumeSource::each(volume, &mut |file| {
        ended = each(file);
        if ended.is_break() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    ended
}

/// A file of a copy: `path` has no slash at its front. Not one that a link leads to.
fn in_tree(dir: &Path, path: &[u8]) -> Option<Box<dyn SourceFile>> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let mut above = path.ancestors().skip(1).map(|part| dir.join(part));
    let linked = above.any(|part| fs::symlink_metadata(part).is_ok_and(|found| found.is_symlink()));
    match plain && !linked {
        true => open(&dir.join(path)).ok().map(|(file, _)| Box::new(file) as _),
        false => None,
    }
}

/// A regular file, open for reading.
struct Opened(File);

fn open(path: &Path) -> io::Result<(Opened, Metadata)> {
    // What takes the place of a file meanwhile neither leads elsewhere nor has us wait.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    match found.is_file() {
        true => Ok((Opened(file), found)),
        false => Err(io::Error::other("not a regular file")),
    }
}

impl SourceFile for Opened {
    fn data(&mut self, from: u64) -> io::Result<Option<Range<u64>>> {
        let len = self.0.metadata()?.len();
        if from >= len {
            return Ok(None);
        }
        let start = match seek(&self.0, SeekFrom::Data(from)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // Where nobody tells of holes there are none.
            Err(_) => return Ok(Some(from..len)),
        };
        let end = seek(&self.0, SeekFrom::Hole(start)).unwrap_or(len);
        Ok(Some(start..end))
    }

    fn read_at(&mut self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < out.len() {
            match self.0.read_at(&mut out[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // What was read before it counts.
                Err(_) if read > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }
}

/// Going through trees.
#[derive(Default)]
struct Walk {
    /// Files with several names that were looked through.
    seen: HashSet<(u64, u64)>,
    /// What could not be read.
    unread: usize,
}

impl Walk {
    fn tree(&mut self, root: &Path, seeker: &mut Seeker, to: &mut dyn Finds) -> ControlFlow<()> {
        let device = match fs::symlink_metadata(root) {
            Ok(found) => found.dev(),
            Err(e) => {
                self.tell(root, &e);
                return ControlFlow::Continue(());
            }
        };
        let mut ahead = vec![root.to_path_buf()];
        while let Some(dir) = ahead.pop() {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) => {
                    self.tell(&dir, &e);
                    continue;
                }
            };
            for entry in entries {
                if seeker.left() == 0 {
                    return ControlFlow::Continue(());
                }
                let found = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)));
                let (path, found) = match found {
                    Ok(found) => found,
                    Err(e) => {
                        self.tell(&dir, &e);
                        continue;
                    }
                };
                if found.dev() != device {
                    continue;
                }
                if found.is_dir() {
                    ahead.push(path);
                } else if found.is_file() {
                    self.file(&path, seeker, to)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn file(&mut self, path: &Path, seeker: &mut Seeker, to: &mut dyn Finds) -> ControlFlow<()> {
        if seeker.left() == 0 {
            return ControlFlow::Continue(());
        }
        let (mut file, found) = match open(path) {
            Ok(opened) => opened,
            Err(e) => {
                self.tell(path, &e);
                return ControlFlow::Continue(());
            }
        };
        if found.nlink() > 1 && !self.seen.insert((found.dev(), found.ino())) {
            return ControlFlow::Continue(());
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Ok(copy) = file.0.try_clone()
            && seeker.in_pack_file(name, copy, to)?
        {
            return ControlFlow::Continue(());
        }
        seeker.through(&mut file, to)
    }

    fn tell(&mut self, path: &Path, error: &io::Error) {
        self.unread += 1;
        if self.unread <= TOLD {
            eprintln!("cairn: {} is not looked into: {error}", path.display());
        }
    }

    fn sum_up(&self) {
        if self.unread > TOLD {
            eprintln!("cairn: {} more files and directories could not be looked into", self.unread - TOLD);
        }
    }
}
