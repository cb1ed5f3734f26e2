//! Another volume as what chunks are looked for in.

use crate::sync::Arc;
use std::io;
use std::ops::{ControlFlow, Range};

use cairn_format::FileKind;

use super::SourceFile;
use crate::vfs::{Error, SeekTo};
use crate::volume::Volume;

/// A file of another volume.
pub struct VolumeSource {
    volume: Arc<Volume>,
    ino: u64,
}

impl VolumeSource {
    /// The file at a path from the root; none where there is no such file, or it cannot be reached.
    pub fn open(volume: &Arc<Volume>, path: &[u8]) -> Option<VolumeSource> {
        let ino = path
            .split(|byte| *byte == b'/')
            .try_fold(1, |dir, name| volume.lookup(dir, name).ok().flatten().map(|attr| attr.ino))?;
        let is_file = volume.getattr(ino).is_ok_and(|attr| attr.kind == FileKind::Regular);
        is_file.then(|| VolumeSource { volume: volume.clone(), ino })
    }

    /// Calls `each` with every file. What cannot be reached is left out.
    pub fn each(
        volume: &Arc<Volume>,
        each: &mut dyn FnMut(VolumeSource) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut ahead = vec![1];
        while let Some(dir) = ahead.pop() {
            let mut files = Vec::new();
            // What was listed before an error counts.
            let _ = volume.readdir(dir, 0, &mut |item| {
                match item.kind {
                    FileKind::Directory if item.name != b"." && item.name != b".." => ahead.push(item.ino),
                    FileKind::Regular => files.push(item.ino),
                    _ => {}
                }
                true
            });
            for ino in files {
                each(VolumeSource { volume: volume.clone(), ino })?;
            }
        }
        ControlFlow::Continue(())
    }
}

impl SourceFile for VolumeSource {
    fn data(&mut self, from: u64) -> io::Result<Option<Range<u64>>> {
        let start = match self.volume.seek(self.ino, from, SeekTo::Data) {
            Err(Error::NoData) => return Ok(None),
            found => found.map_err(failed)?,
        };
        let end = self.volume.seek(self.ino, start, SeekTo::Hole).map_err(failed)?;
        Ok(Some(start..end))
    }

    fn read_at(&mut self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.volume.read(self.ino, offset, out.len() as u32).map_err(failed)?;
        let len = bytes.len().min(out.len());
        out[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }
}

fn failed(error: Error) -> io::Error {
    io::Error::other(format!("{error:?}"))
}
