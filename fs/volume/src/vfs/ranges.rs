//! Ranges of files, changed without a byte being written: fallocate and copy_file_range.
//!
//! A hole is one record whatever its length. A copied range names what the source's names: chunks, holes, and journalled
//! bytes that are not folded yet, which both files then keep in the journal.

use cairn_format::{FileKind, Ino, Inode, Mutation, Piece, PieceKind};

use super::attributes::clear_privileges;
use super::{Allocate, Change, Error, FILE_MAX, now, split};
use crate::core::Core;
use crate::journal::Need;
use crate::namespace::FileRun;
use crate::request;

/// Bytes that one call copies at most, so that it is answered soon: copy_file_range(2) may do less than it is asked.
const COPY_MAX: u64 = 1 << 30;
/// Bytes whose places are looked up for one record of a copy.
const COPY_STEP: u64 = 16 << 20;
/// Pieces of a record, at most.
const PIECES_MAX: usize = 1 << 16;
/// Bytes of a piece in a record, at most.
const PIECE_BYTES: usize = 112;

impl Core {
    pub(crate) fn allocate(
        &self,
        ino: u64,
        offset: u64,
        len: u64,
        how: Allocate,
        clear: bool,
    ) -> Result<(), Error> {
        if request::answered().is_some() {
            return Ok(());
        }
        let ino = split(ino)?;
        let end = end_of(offset, len)?;
        let need = match how {
            Allocate::Reserve | Allocate::ReserveKeepSize => Need::Grow,
            Allocate::Zero | Allocate::ZeroKeepSize | Allocate::Punch => Need::Shrink,
        };
        self.reserve(need, 1024)?;
        let _lock = self.locks.write(&[ino]);
        let mut inode = self.regular(ino)?;
        let mut change = Change::new(self);
        match how {
            Allocate::Reserve | Allocate::ReserveKeepSize => self.check_room(ino, offset, len)?,
            Allocate::Zero | Allocate::ZeroKeepSize | Allocate::Punch => {
                // Behind the end there is nothing but a hole.
                let end = end.min(inode.size);
                if offset < end {
                    change.hole(ino, offset, end - offset);
                }
            }
        }
        if matches!(how, Allocate::Reserve | Allocate::Zero) {
            inode.size = inode.size.max(end);
        }
        self.touch_content(ino, &mut inode, clear, &mut change)?;
        self.conclude(&change.mutations, &[], 0)?;
        Ok(())
    }

    /// That the disk has room for what is not there yet of a range. What is written later is new data all the same, and
    /// takes what it takes: nothing is set aside.
    fn check_room(&self, ino: Ino, offset: u64, len: u64) -> Result<(), Error> {
        let room = self.room();
        if len <= room {
            return Ok(());
        }
        let mut holes = 0;
        const STEP: u64 = 256 << 20;
        let mut at = offset;
        while at < offset + len {
            let step = STEP.min(offset + len - at);
            let runs = self.runs(ino, at, step)?;
            holes +=
                runs.iter().filter(|(_, run)| run.kind == PieceKind::Hole).map(|(_, r)| r.len).sum::<u64>();
            if holes > room {
                return Err(Error::NoSpace);
            }
            at += step;
        }
        Ok(())
    }

    pub(crate) fn copy_range(
        &self,
        (from, from_offset): (u64, u64),
        (to, to_offset): (u64, u64),
        len: u64,
        clear: bool,
    ) -> Result<u64, Error> {
        if let Some(copied) = request::answered() {
            return Ok(copied);
        }
        let (from, to) = (split(from)?, split(to)?);
        // What a copy within one file adds behind its end is not part of what is copied.
        let len = {
            let _lock = self.locks.read(from);
            len.min(COPY_MAX).min(self.regular(from)?.size.saturating_sub(from_offset))
        };
        if len == 0 {
            return Ok(0);
        }
        let (from_end, to_end) = (end_of(from_offset, len)?, end_of(to_offset, len)?);
        if from == to && from_offset < to_end && to_offset < from_end {
            return Err(Error::Invalid);
        }
        let mut copied = 0;
        while copied < len {
            let step = COPY_STEP.min(len - copied);
            let (source, target) = ((from, from_offset + copied), (to, to_offset + copied));
            let part = self.copy_step(source, target, step, clear, (copied, len));
            match part {
                Ok(0) => break,
                Ok(part) => copied += part,
                // What was copied is copied; the caller hears of the error when it asks for the rest.
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(copied)
    }

    /// Copies one record's worth; gives how much that was, nothing at the source's end.
    fn copy_step(
        &self,
        (from, from_offset): (Ino, u64),
        (to, to_offset): (Ino, u64),
        len: u64,
        clear: bool,
        (before, total): (u64, u64),
    ) -> Result<u64, Error> {
        let most = (self.journal()?.record_max() as usize / 2 / PIECE_BYTES).clamp(1, PIECES_MAX);
        self.reserve(Need::Grow, (most * PIECE_BYTES) as u64)?;
        let _lock = self.locks.write(&[from, to]);
        let source = self.regular(from)?;
        let mut inode = self.regular(to)?;
        let len = len.min(source.size.saturating_sub(from_offset));
        if len == 0 {
            return Ok(0);
        }
        let runs = self.runs(from, from_offset, len)?;
        let mut change = Change::new(self);
        let mut at = to_offset;
        for (start, run) in runs.into_iter().take(most) {
            let offset = to_offset + (start - from_offset);
            change.copy(to, offset, &(start, run));
            at = offset + run.len;
        }
        inode.size = inode.size.max(at);
        self.touch_content(to, &mut inode, clear, &mut change)?;
        // A copy that ends sooner is made again if nobody was told: that changes nothing.
        match before + (at - to_offset) == total {
            true => self.conclude(&change.mutations, &[], total)?,
            false => self.commit(&change.mutations, &[])?,
        };
        self.counters.copied_bytes.add(at - to_offset);
        Ok(at - to_offset)
    }

    /// A file that must be there.
    fn regular(&self, ino: Ino) -> Result<Inode, Error> {
        let inode = self.inode(ino)?;
        match inode.kind() {
            FileKind::Regular => Ok(inode),
            FileKind::Directory => Err(Error::IsDirectory),
            _ => Err(Error::Invalid),
        }
    }

    /// A file's content changes: so do its times, and, where asked, its privileges go.
    fn touch_content(
        &self,
        ino: Ino,
        inode: &mut Inode,
        clear: bool,
        change: &mut Change,
    ) -> Result<(), Error> {
        inode.mtime = now();
        inode.ctime = inode.mtime;
        if clear {
            clear_privileges(inode);
        }
        self.remove_capability(ino, change)?;
        change.put_inode(ino, inode);
        Ok(())
    }
}

impl Change {
    /// Has `offset` of a file name what `run` names.
    fn copy(&mut self, ino: Ino, offset: u64, (_, run): &FileRun) {
        if run.kind == PieceKind::Hole {
            return self.hole(ino, offset, run.len);
        }
        // Runs that are no holes are never longer than a piece can be.
        let piece = Piece { len: run.len as u32, kind: run.kind };
        let view = self.view;
        match self.mutations.last_mut() {
            Some(Mutation::Map { offset: start, pieces, .. })
                if *start + pieces.iter().map(|p| u64::from(p.len)).sum::<u64>() == offset =>
            {
                pieces.push(piece);
            }
            _ => self.mutations.push(Mutation::Map { view, ino, offset, pieces: vec![piece] }),
        }
    }
}

/// Where a range ends, if a file can reach there.
fn end_of(offset: u64, len: u64) -> Result<u64, Error> {
    if len == 0 {
        return Err(Error::Invalid);
    }
    offset.checked_add(len).filter(|end| *end <= FILE_MAX).ok_or(Error::TooBig)
}
