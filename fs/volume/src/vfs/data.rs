//! File bytes: open, read, write, seek, fsync, and the end of a file that nobody can reach any more.

use cairn_format::key::{self, Key, tag};
use cairn_format::{FileKind, Ino, Inode, Mutation, PackId, PieceKind};

use super::attributes::clear_privileges;
use super::{Change, Error, FILE_MAX, SeekTo, now, split, st_ino};
use crate::core::{BytesError, Core, journal_error};
use crate::journal::{JournalError, Need};
use crate::namespace::FileRun;
use crate::request;
use cairn_store::{ReadError, Served};

/// How often a read looks again where its bytes are: they move when a fold, a trim or a dropped pack passes
/// between looking and reading.
const READ_TRIES: usize = 8;
/// How many inodes one record removes.
const REMOVED_TOGETHER: usize = 64;
/// How many bytes such a record has before the next is begun.
const REMOVAL_MAX: usize = 1 << 20;

impl Core {
    pub(crate) fn open(&self, ino: u64) -> Result<(), Error> {
        let ino = split(ino)?;
        let _lock = self.locks.read(ino);
        self.inode(ino)?;
        self.handles.open(ino);
        Ok(())
    }

    pub(crate) fn release(&self, ino: u64) {
        let Ok(ino) = split(ino) else { return };
        if self.handles.close(ino) {
            self.remove_unused(&[ino]);
        }
    }

    pub(crate) fn forget(&self, inos: &[u64]) {
        let inos: Vec<Ino> = inos.iter().filter_map(|ino| split(*ino).ok()).collect();
        for some in inos.chunks(REMOVED_TOGETHER) {
            self.remove_unused(some);
        }
    }

    pub(crate) fn all_nameless(&self) -> Vec<u64> {
        self.handles.all_nameless().into_iter().map(|ino| st_ino(self.view, ino)).collect()
    }

    pub(crate) fn nameless(&self, inos: &[u64]) -> Vec<u64> {
        let inos = inos.iter().filter_map(|ino| split(*ino).ok());
        self.handles.nameless(inos).into_iter().map(|ino| st_ino(self.view, ino)).collect()
    }

    /// Removes those of `inos` that have no name and that nobody uses.
    fn remove_unused(&self, inos: &[Ino]) {
        let unused = self.handles.take_unused(inos);
        if unused.is_empty() || self.journal().is_err() {
            return;
        }
        if let Err(error) = self.remove_orphans(&unused) {
            // What fails here stays an orphan, and goes at the next mount.
            tracing::warn!("{} inodes without a name stay until the next mount: {error}", unused.len());
        }
    }

    /// Removes inodes that have no name and that nobody can reach any more, in one record.
    pub(crate) fn remove_orphans(&self, inos: &[Ino]) -> Result<(), Error> {
        self.reserve(Need::Shrink, 4096)?;
        let _lock = self.locks.write(inos);
        let most = (self.journal()?.record_max() as usize / 2).min(REMOVAL_MAX);
        let mut change = Change::new(self);
        let mut bytes = 0;
        let mut removed = Vec::with_capacity(inos.len());
        for ino in inos {
            // It may have a name still, where losing it failed, or was opened meanwhile.
            if self.get(&Key::Orphan(*ino, self.view))?.is_none() || self.handles.keep_if_open(*ino) {
                continue;
            }
            let inode = match self.inode(*ino) {
                Ok(inode) if inode.nlink == 0 => inode,
                // No operation leaves that. What has names is not removed for it, nor do others stay that are to go.
                Ok(_) | Err(Error::Stale) => {
                    tracing::warn!(
                        "inode {ino} is to be removed, and has names or is missing: fsck.cairn puts that right"
                    );
                    continue;
                }
                Err(error) => return Err(error),
            };
            removed.push(*ino);
            let from = change.mutations.len();
            change.delete(&Key::Orphan(*ino, self.view));
            self.erase(*ino, &inode, &mut change)?;
            bytes += Mutation::encode_all(&change.mutations[from..]).len();
            // Names of extended attributes can be many.
            if bytes > most {
                self.commit(&std::mem::take(&mut change.mutations), &[])?;
                bytes = 0;
            }
        }
        if !change.mutations.is_empty() {
            self.commit(&change.mutations, &[])?;
        }
        for ino in removed {
            self.dirty.forget((self.view, ino));
            self.losses.forget(ino);
        }
        Ok(())
    }

    /// All that an inode is, taken away. A file of any length is one hole: its extents are cleared by the
    /// checkpoint that comes to it.
    pub(super) fn erase(&self, ino: Ino, inode: &Inode, change: &mut Change) -> Result<(), Error> {
        change.delete(&Key::Inode(ino, self.view));
        match inode.kind() {
            FileKind::Regular => change.hole(ino, 0, u64::MAX),
            FileKind::Symlink => change.delete(&Key::Target(ino, self.view)),
            _ => {}
        }
        let (from, to) = key::all_of(tag::XATTR, ino);
        let mut names = Vec::new();
        self.for_each(&from, &to, |key, _| {
            names.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        })?;
        change.mutations.extend(names.into_iter().map(|key| Mutation::Delete { key }));
        Ok(())
    }

    pub(crate) fn read(&self, ino: u64, offset: u64, len: u32) -> Result<Vec<u8>, Error> {
        let ino = split(ino)?;
        let mut before: Option<Vec<FileRun>> = None;
        for _ in 0..READ_TRIES {
            let (len, runs) = {
                let _lock = self.locks.read(ino);
                let inode = self.inode(ino)?;
                let len = inode.size.saturating_sub(offset).min(len.into());
                (len, self.runs(ino, offset, len)?)
            };
            let mut out = vec![0; len as usize];
            match self.read_runs(&runs, offset, &mut out) {
                Ok(healed) => {
                    if let Some((at, pack)) = healed {
                        let file = self.called(ino);
                        tracing::warn!("{file} is damaged at {at}, in pack {pack}: what was read is whole");
                    }
                    self.ahead.note(ino, offset, out.len() as u64);
                    self.counters.reads.add(1);
                    self.counters.read_bytes.add(out.len() as u64);
                    return Ok(out);
                }
                Err((at, error)) => {
                    // The same places again: they did not move, they are damaged.
                    if before.as_ref() == Some(&runs) {
                        // `read_runs` named one of the runs.
                        if let Some(run) = runs.iter().find(|run| run.0 == at) {
                            self.note_lost((self.view, ino), *run, &error);
                        }
                        self.counters.io_errors.add(1);
                        return Err(Error::Io);
                    }
                    before = Some(runs);
                }
            }
        }
        tracing::error!("inode {ino} was changed {READ_TRIES} times while {len} bytes at {offset} were read");
        Err(Error::Io)
    }

    /// Reads runs that follow each other from `offset` on. Gives the first that parity restored,
    /// by its offset. An error comes with its offset, too.
    pub(crate) fn read_runs(
        &self,
        runs: &[FileRun],
        offset: u64,
        out: &mut [u8],
    ) -> Result<Option<(u64, PackId)>, (u64, BytesError)> {
        let mut healed = None;
        for (at, run) in runs {
            let start = (at - offset) as usize;
            let part = &mut out[start..start + run.len as usize];
            let result = match &run.kind {
                PieceKind::Hole => {
                    part.fill(0);
                    Ok(())
                }
                PieceKind::Journal(place) => self.read_journalled(place, part).map_err(BytesError::from),
                PieceKind::Chunk(piece) => match self.store.read(piece, 0, part) {
                    Ok(served) => {
                        if served == Served::Healed {
                            healed.get_or_insert((*at, piece.pack));
                        }
                        Ok(())
                    }
                    Err(error) => Err(error.into()),
                },
            };
            result.map_err(|error| (*at, error))?;
        }
        Ok(healed)
    }

    pub(crate) fn write(&self, ino: u64, offset: u64, data: &[u8], clear: bool) -> Result<(), Error> {
        if request::answered().is_some() {
            return Ok(());
        }
        let ino = split(ino)?;
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > FILE_MAX) {
            return Err(Error::TooBig);
        }
        // A record has to fit its segment several times over; longer writes are several records.
        let most = self.journal()?.record_max() as usize / 2;
        let mut at = offset;
        for part in data.chunks(most.max(1)) {
            // Done when the last is; to write the ones before it once more changes nothing.
            let last = at + part.len() as u64 == offset + data.len() as u64;
            self.write_record(ino, at, part, clear, last)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_record(&self, ino: Ino, offset: u64, data: &[u8], clear: bool, last: bool) -> Result<(), Error> {
        self.reserve(Need::Grow, data.len() as u64 + 512)?;
        let _lock = self.locks.write(&[ino]);
        let mut inode = self.inode(ino)?;
        if inode.kind() != FileKind::Regular {
            return Err(Error::Invalid);
        }
        let mut change = Change::new(self);
        inode.size = inode.size.max(offset + data.len() as u64);
        inode.mtime = now();
        inode.ctime = inode.mtime;
        if clear {
            clear_privileges(&mut inode);
        }
        // Whoever writes: what the file may do was said of what it held before.
        self.remove_capability(ino, &mut change)?;
        change.put_inode(ino, &inode);
        let len = data.len() as u32;
        change.mutations.push(Mutation::Data { view: self.view, ino, offset, len, payload_offset: 0 });
        match last {
            true => self.conclude(&change.mutations, data, 0)?,
            false => self.commit(&change.mutations, data)?,
        };
        self.counters.writes.add(1);
        self.counters.written_bytes.add(data.len() as u64);
        Ok(())
    }

    /// Everything acknowledged so far survives a power cut when this returns.
    pub(crate) fn make_certain(&self) -> Result<(), Error> {
        let Ok(journal) = self.journal() else { return Ok(()) };
        self.counters.fsyncs.add(1);
        journal.sync_all().map_err(journal_error)
    }

    pub(crate) fn seek(&self, ino: u64, offset: u64, to: SeekTo) -> Result<u64, Error> {
        let ino = split(ino)?;
        let _lock = self.locks.read(ino);
        let size = self.inode(ino)?.size;
        if offset >= size {
            return Err(Error::NoData);
        }
        const STEP: u64 = 64 << 20;
        let mut from = offset;
        while from < size {
            if to == SeekTo::Data {
                // A hole may be as long as a file can be.
                let next = self.checked(self.look(|ns| ns.next_bytes(self.view, ino, from)))?;
                from = next.filter(|at| *at < size).ok_or(Error::NoData)?;
            }
            let len = STEP.min(size - from);
            for (at, run) in self.runs(ino, from, len)? {
                let hole = run.kind == PieceKind::Hole;
                if hole == (to == SeekTo::Hole) {
                    return Ok(at);
                }
            }
            from += len;
        }
        match to {
            SeekTo::Hole => Ok(size),
            SeekTo::Data => Err(Error::NoData),
        }
    }

    pub(crate) fn extents(&self, ino: u64) -> Result<Vec<(u64, u64, PieceKind)>, Error> {
        let ino = split(ino)?;
        let _lock = self.locks.read(ino);
        let size = self.inode(ino)?.size;
        let runs = self.runs(ino, 0, size)?;
        Ok(runs.into_iter().map(|(at, run)| (at, run.len, run.kind)).collect())
    }
}

impl BytesError {
    /// Whether the bytes may have moved since they were looked up, rather than being damaged.
    pub(crate) fn may_have_moved(&self) -> bool {
        matches!(
            self,
            BytesError::Chunk(ReadError::Missing { .. })
                | BytesError::Journal(JournalError::Gone(_) | JournalError::Damaged { .. })
        )
    }
}
