//! The journal: the one point of durability. Every operation is a record here before it is answered;
//! `fsync` is one `fdatasync` shared by everyone who waits.
//!
//! Segments are files of a fixed size, zeroed when made and used again under a new number, so that
//! making a record certain commits no metadata of the filesystem below.

mod answers;
mod parity;
mod protect;
mod replay;
mod reread;
mod segment;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use cairn_format::{
    Answer, CheckpointRef, JournalRef, Lsn, Mutation, PAYLOAD_BLOCK, RECORD_ALIGN, RECORD_HEAD_LEN, Record,
    RecordHead, SEGMENT_DATA_START, Uuid, payload_sums,
};
use cairn_store::disk::{Disk, DiskFile};

use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) use answers::{Answers, Collected};
pub use protect::SegmentDamage;
pub(crate) use replay::scan_unrestored;
pub use replay::{Chain, ChainError, ScannedRecord, scan, scan_read_only, scan_read_only_from};
pub(crate) use reread::{BadBytes, reread};
pub(crate) use segment::make_segment;
use segment::{PREFIX_MAX, SegmentFile, write_header};

/// The directory of the segments.
pub const JOURNAL_DIR: &str = "journal";

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub lsn: Lsn,
    /// Its segment.
    pub segment: u64,
    /// Its position in the segment's file.
    pub offset: u32,
}

/// Why the journal did not take a record, or did not give its bytes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// No segment is free and none can be made.
    #[error("the journal is full")]
    Full,
    /// Something failed after which its state is unknown: nothing is written any more.
    #[error("the journal takes no more records: {0}")]
    Stopped(String),
    /// A segment was used again since: what was looked for is folded, or gone.
    #[error("segment {0} of the journal is gone")]
    Gone(u64),
    /// Journalled bytes are not those that were written.
    #[error("record {lsn} in segment {segment} of the journal is damaged: {reason}")]
    Damaged {
        /// The record.
        lsn: Lsn,
        /// Its segment.
        segment: u64,
        /// What is wrong.
        reason: String,
    },
}

/// How much room an operation must leave for those that make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Anything that adds.
    Grow,
    /// What frees space: works when the volume is full. The last segment is for folds and checkpoints.
    Shrink,
}

struct Log {
    epoch: u32,
    next: Lsn,
    /// The last record that is more than a mark.
    last_change: Lsn,
    /// The segments that hold records that may be needed; the last is the one being filled.
    live: VecDeque<SegmentFile>,
    /// Files that may be used again.
    free: Vec<(String, Arc<dyn DiskFile>)>,
    /// Files made so far, or being made.
    files: u32,
    /// Numbers of files that could not be made, below `files`.
    unmade: Vec<u32>,
    next_number: u64,
    /// Where the next record goes in the last live segment; its length where there is none.
    end: u32,
    synced: Lsn,
    checkpoint: CheckpointRef,
    floor: Lsn,
    stopped: Option<String>,
}

impl Log {
    /// The number of a file to be made; none where there are `limit` already.
    fn take_file_number(&mut self, limit: u32) -> Option<u32> {
        if let Some(number) = self.unmade.pop() {
            return Some(number);
        }
        (self.files < limit).then(|| {
            self.files += 1;
            self.files - 1
        })
    }
}

#[derive(Default)]
struct Commit {
    synced: Lsn,
    in_progress: bool,
}

/// What a journal is made of.
#[derive(Clone, Copy, Debug)]
pub struct JournalShape {
    /// The volume it belongs to.
    pub volume: Uuid,
    /// Bytes of a segment.
    pub segment: u32,
    /// The most segments it has.
    pub segments: u32,
}

/// The journal of a mounted volume.
pub struct Journal {
    disk: Arc<dyn Disk>,
    shape: JournalShape,
    log: Mutex<Log>,
    commit: Mutex<Commit>,
    committed: Condvar,
    answers: Answers,
    /// Held by whoever makes parity of a segment, mends one, or has segments be used again: so that none is while somebody works
    /// on it. Taken before the log's lock, and never by who appends.
    tending: Mutex<()>,
    /// Numbers of segments that damage was met in.
    damaged: Mutex<BTreeSet<u64>>,
    /// Whoever waits for room waits here; folds and trims notify.
    room: (Mutex<u64>, Condvar),
}

/// What a mount goes on with after replay.
pub struct Resume {
    /// The mount's epoch, already certain in the superblock.
    pub epoch: u32,
    /// The last record that counts.
    pub continues: Lsn,
    /// The checkpoint that replay began with, and the lowest LSN it needs.
    pub checkpoint: CheckpointRef,
    /// See `checkpoint`.
    pub floor: Lsn,
}

impl Journal {
    /// Goes on behind what was scanned, in a new segment; its first record names the one it continues, so
    /// that nothing behind that is ever read again. Certain when this returns. Requests that are `unanswered` are
    /// said again behind it.
    pub fn resume(
        disk: Arc<dyn Disk>,
        shape: JournalShape,
        chain: Chain,
        resume: &Resume,
        first: &[Mutation],
        unanswered: impl IntoIterator<Item = (Answer, Lsn)>,
    ) -> Result<(Journal, Appended), JournalError> {
        let Chain { mut segments, unused, files, highest_number, synced, .. } = chain;
        for segment in &mut segments {
            // Of records that were given up, nothing is to say that they were certain.
            let last = segment.last;
            segment.parity.take_if(|parity| parity.header().last != last || last < resume.floor);
        }
        let (keep, free): (Vec<_>, Vec<_>) = segments.into_iter().partition(|s| s.last >= resume.floor);
        let free = free.into_iter().map(|s| (s.path, s.file)).chain(unused).collect();
        let log = Log {
            epoch: resume.epoch,
            next: Lsn::first_of(resume.epoch),
            last_change: resume.continues,
            live: keep.into(),
            free,
            files,
            unmade: Vec::new(),
            next_number: highest_number + 1,
            end: shape.segment,
            synced: resume.continues,
            checkpoint: resume.checkpoint,
            floor: resume.floor,
            stopped: None,
        };
        let journal = Journal {
            disk,
            shape,
            log: Mutex::new(log),
            commit: Mutex::new(Commit::default()),
            committed: Condvar::new(),
            answers: Answers::default(),
            tending: Mutex::new(()),
            damaged: Mutex::default(),
            room: (Mutex::new(0), Condvar::new()),
        };
        // For certain below, before any of their segments is used again.
        journal.remove_strays();
        // Replayed records may have been in the page cache only: they are made certain before anything
        // builds on them. Where the mount before this one failed to, the system took the pages for written from then
        // on, and syncs nothing: so they are written once more.
        // Not under the log's lock: a sync that fails stops the journal, which takes it.
        let live: Vec<_> = journal.log().live.iter().cloned().collect();
        for unsynced in live.iter().filter(|segment| segment.last > synced) {
            if let Err(error) = segment::write_again(&*unsynced.file, shape.segment) {
                let why = format!("writing {} again: {error}", unsynced.path);
                return Err(journal.stop(&mut journal.log(), why));
            }
        }
        journal.sync_files(&live)?;
        // A file that a mount was making when it was killed is found here, and its name may be in memory only: what is
        // written to it would be synced, and gone with the name.
        if let Err(error) = journal.disk.sync_dir(JOURNAL_DIR) {
            return Err(journal.stop(&mut journal.log(), format!("syncing {JOURNAL_DIR}: {error}")));
        }
        let mut mutations = vec![Mutation::Epoch { continues: resume.continues }];
        mutations.extend_from_slice(first);
        journal.answers.carry(unanswered);
        let at = journal.append_continuing(&mutations, &[], Answer::default(), Some(resume.continues))?;
        journal.sync(at.lsn)?;
        journal.repeat_answers(at.lsn)?;
        Ok((journal, at))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // A panic in here would have come before the record counted; the log is still in order.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the longest record that a caller may append.
    pub fn record_max(&self) -> u32 {
        self.shape.segment / 4
    }

    /// Appends one operation's record: when this returns it survives the death of this process.
    pub fn append(&self, mutations: &[Mutation], payload: &[u8]) -> Result<Appended, JournalError> {
        self.append_continuing(mutations, payload, Answer::default(), None)
    }

    /// The same for a record that concludes a request, which counts as unanswered until it is settled.
    pub(crate) fn append_answer(
        &self,
        mutations: &[Mutation],
        payload: &[u8],
        answer: Answer,
    ) -> Result<Appended, JournalError> {
        self.append_continuing(mutations, payload, answer, None)
    }

    /// What requests were answered.
    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Says again, in marks, the answers that are said below `floor` only.
    fn repeat_answers(&self, floor: Lsn) -> Result<(), JournalError> {
        for answer in self.answers.below(floor) {
            self.append_encoded(&[], &[], &[], answer, None)?;
        }
        Ok(())
    }

    fn append_continuing(
        &self,
        mutations: &[Mutation],
        payload: &[u8],
        answer: Answer,
        continues: Option<Lsn>,
    ) -> Result<Appended, JournalError> {
        let body = Mutation::encode_all(mutations);
        let sums = payload_sums(&self.shape.volume, payload);
        self.append_encoded(&body, &sums, payload, answer, continues)
    }

    fn append_encoded(
        &self,
        body: &[u8],
        sums: &[u64],
        payload: &[u8],
        answer: Answer,
        continues: Option<Lsn>,
    ) -> Result<Appended, JournalError> {
        let mut log = self.log();
        if let Some(why) = &log.stopped {
            return Err(JournalError::Stopped(why.clone()));
        }
        let len = RECORD_HEAD_LEN as u64 + body.len() as u64 + sums.len() as u64 * 8;
        if len > PREFIX_MAX {
            // Nobody could read it back.
            return Err(JournalError::Full);
        }
        let len = len + payload.len() as u64;
        let len = len.next_multiple_of(RECORD_ALIGN.into());
        if u64::from(log.end) + len > self.shape.segment.into() {
            self.begin_segment(&mut log, continues, len)?;
        }
        // `begin_segment` pushed one where there was none.
        let Some(segment) = log.live.back() else { return Err(JournalError::Full) };
        let at = Appended { lsn: log.next, segment: segment.number, offset: log.end };
        let head = RecordHead {
            lsn: at.lsn,
            segment: at.segment,
            synced: log.synced,
            body_len: body.len() as u32,
            payload_len: payload.len() as u32,
            owed: self.answers.reach(at.lsn),
            answer,
        };
        let mut prefix = Record::encode_prefix(&self.shape.volume, &head, body, sums);
        let start = u64::from(at.offset);
        // What makes the record count is written last.
        let written = if payload.len() <= 32 << 10 {
            prefix.extend_from_slice(payload);
            segment.file.write_at(&prefix, start)
        } else {
            let behind = start + prefix.len() as u64;
            segment.file.write_at(payload, behind).and_then(|()| segment.file.write_at(&prefix, start))
        };
        if let Err(error) = written {
            return Err(self.stop(&mut log, format!("writing to {}: {error}", log_path(&at))));
        }
        log.next = log.next.next();
        match answer.request {
            0 => {}
            // A mark says again what another record said.
            _ if body.is_empty() => self.answers.repeated(answer, at.lsn),
            _ => self.answers.owe(answer, at.lsn),
        }
        if !body.is_empty() {
            log.last_change = at.lsn;
        }
        log.end += len as u32;
        if let Some(segment) = log.live.back_mut() {
            segment.last = at.lsn;
        }
        Ok(at)
    }

    /// Closes the segment being filled and goes on in a free one, or in a new one.
    fn begin_segment(&self, log: &mut Log, continues: Option<Lsn>, len: u64) -> Result<(), JournalError> {
        if u64::from(SEGMENT_DATA_START) + len > self.shape.segment.into() {
            // Callers keep to `record_max`.
            return Err(JournalError::Full);
        }
        let (path, file) = match log.free.pop() {
            Some(free) => free,
            // A mount's first record finds room even where a crash left all segments in use.
            None => {
                let limit = if continues.is_some() { u32::MAX } else { self.shape.segments };
                let number = log.take_file_number(limit).ok_or(JournalError::Full)?;
                make_segment(&*self.disk, number, self.shape.segment).map_err(|error| {
                    log.unmade.push(number);
                    self.cannot_grow(log, &error)
                })?
            }
        };
        let last = log.live.back().map_or(log.floor, |s| s.last);
        let header = cairn_format::SegmentHeader {
            volume: self.shape.volume,
            epoch: log.epoch,
            len: self.shape.segment,
            number: log.next_number,
            first: log.next,
            continues: continues.unwrap_or(last),
            checkpoint: log.checkpoint,
            floor: log.floor,
        };
        if let Err(error) = write_header(&*file, &header) {
            return Err(self.stop(log, format!("writing to {path}: {error}")));
        }
        let end = log.end;
        if let Some(closed) = log.live.back_mut().filter(|segment| segment.closed.is_none()) {
            (closed.closed, closed.end) = (Some(Instant::now()), end);
        }
        log.live.push_back(SegmentFile::new(path, file, &header));
        log.next_number += 1;
        log.end = SEGMENT_DATA_START;
        Ok(())
    }

    fn cannot_grow(&self, log: &mut Log, error: &io::Error) -> JournalError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::Full,
            _ => self.stop(log, format!("making a segment: {error}")),
        }
    }

    /// From here on nothing is written: what is on the disk may not be what was acknowledged.
    fn stop(&self, log: &mut Log, why: String) -> JournalError {
        tracing::error!("the volume takes no more writes: {why}");
        log.stopped = Some(why.clone());
        self.notify_room();
        JournalError::Stopped(why)
    }

    /// Stops the journal for a reason outside it.
    pub fn stop_because(&self, why: String) {
        let mut log = self.log();
        if log.stopped.is_none() {
            self.stop(&mut log, why);
        }
    }

    /// Takes no more records: the volume is closed.
    pub fn close(&self) {
        self.log().stopped = Some("the volume is closed".into());
        self.notify_room();
    }

    /// Why nothing is written any more, if so.
    pub fn stopped(&self) -> Option<String> {
        self.log().stopped.clone()
    }

    /// The last record.
    pub fn last(&self) -> Lsn {
        Lsn(self.log().next.0 - 1)
    }

    /// Returns when everything appended so far survives a power cut.
    pub fn sync_all(&self) -> Result<(), JournalError> {
        // A mark behind the last change need not: it would make every idle fsync a real one.
        let last = self.log().last_change;
        self.sync(last)
    }

    /// Returns when record `lsn` and all before it survive a power cut. Whoever comes while another's
    /// `fdatasync` runs shares the next one.
    pub fn sync(&self, lsn: Lsn) -> Result<(), JournalError> {
        let mut commit = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if commit.synced >= lsn {
                return Ok(());
            }
            if let Some(why) = self.stopped() {
                return Err(JournalError::Stopped(why));
            }
            if !commit.in_progress {
                break;
            }
            commit = self.committed.wait(commit).unwrap_or_else(PoisonError::into_inner);
        }
        commit.in_progress = true;
        drop(commit);
        let result = self.commit_all();
        let mut commit = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        commit.in_progress = false;
        if let Ok(synced) = result {
            commit.synced = commit.synced.max(synced);
        }
        self.committed.notify_all();
        result.map(|_| ())
    }

    fn commit_all(&self) -> Result<Lsn, JournalError> {
        let (dirty, last) = {
            let log = self.log();
            if let Some(why) = &log.stopped {
                return Err(JournalError::Stopped(why.clone()));
            }
            let dirty: Vec<_> = log.live.iter().filter(|s| s.synced < s.last).cloned().collect();
            (dirty, Lsn(log.next.0 - 1))
        };
        self.sync_files(&dirty)?;
        {
            let mut log = self.log();
            for synced in &dirty {
                if let Some(live) = log.live.iter_mut().find(|s| s.number == synced.number) {
                    live.synced = synced.last;
                }
            }
            log.synced = log.synced.max(last);
        }
        // A mark, unsynced: a record that says how far the disk is known to be whole. Where there is no
        // room for it the next record says so.
        let _ = self.append_encoded(&[], &[], &[], Answer::default(), None);
        Ok(last)
    }

    fn sync_files<'a>(&self, files: impl IntoIterator<Item = &'a SegmentFile>) -> Result<(), JournalError> {
        for segment in files {
            if let Err(error) = segment.file.sync() {
                // After a failed fdatasync the kernel may have dropped the pages: trying again would lie.
                return Err(self.stop(&mut self.log(), format!("syncing {}: {error}", segment.path)));
            }
        }
        Ok(())
    }

    /// Reads `out.len()` journalled bytes from `from` bytes behind where `at` points, and checks them.
    pub fn read(&self, at: &JournalRef, from: u32, out: &mut [u8]) -> Result<(), JournalError> {
        self.read_healing((at, from), out, true).map(|_| ())
    }

    /// The same, from parity only where it is to `heal`: then the file that is damaged comes with it, which waits to be mended
    /// from then on.
    pub(crate) fn read_healing(
        &self,
        (at, from): (&JournalRef, u32),
        out: &mut [u8],
        heal: bool,
    ) -> Result<Option<String>, JournalError> {
        let gone = || JournalError::Gone(at.segment);
        let segment = self.live_segment(at.segment).ok_or_else(gone)?;
        if !segment.read(&self.shape, (at, from), out, heal)? {
            return Ok(None);
        }
        // One that was used again meanwhile is not damaged.
        self.live_segment(at.segment).ok_or_else(gone)?;
        self.note_damaged(at.segment);
        Ok(Some(segment.path))
    }

    fn live_segment(&self, number: u64) -> Option<SegmentFile> {
        self.log().live.iter().find(|segment| segment.number == number).cloned()
    }

    /// Recycles what a checkpoint has made superfluous: segments with no record at or above `floor`.
    /// The checkpoint's record must be synced.
    pub fn trim(&self, checkpoint: CheckpointRef, floor: Lsn) {
        // Where there is no room for a mark, what would be said again stays where it is said.
        let keep = match self.repeat_answers(floor) {
            Ok(()) => floor,
            Err(_) => floor.min(self.answers.lowest().unwrap_or(floor)),
        };
        let tending = self.tending();
        let mut superfluous = Vec::new();
        {
            let mut log = self.log();
            log.checkpoint = checkpoint;
            log.floor = floor;
            while log.live.len() > 1 && log.live.front().is_some_and(|s| s.last < keep) {
                superfluous.extend(log.live.pop_front());
            }
        }
        // Before they are used again: or what is said of their earlier life might be taken for what they hold.
        self.remove_parity_of(&superfluous);
        self.log().free.extend(superfluous.into_iter().map(|old| (old.path, old.file)));
        drop(tending);
        self.notify_room();
    }

    /// Whether a higher floor than it has would let go of a segment.
    pub fn would_trim(&self, floor: Lsn) -> bool {
        let log = self.log();
        floor > log.floor && log.live.len() > 1 && log.live.front().is_some_and(|oldest| oldest.last < floor)
    }

    /// Wakes those who wait for room.
    pub fn notify_room(&self) {
        *self.room.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.room.1.notify_all();
    }

    /// How often something may have made room so far: for [`Journal::wait_room`], taken before looking whether there is any.
    pub fn room_notices(&self) -> u64 {
        *self.room.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something may have made room since `seen`, or `timeout`.
    pub fn wait_room(&self, seen: u64, timeout: Duration) {
        let now = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Spurious wake-ups only make the caller look again.
        let _ = self.room.1.wait_timeout_while(now, timeout, |now| *now == seen);
    }

    /// Whether an operation that appends `len` bytes may begin. `may_grow` tells whether the disk has room for
    /// segments that were not made yet.
    pub fn has_room(&self, len: u64, need: Need, may_grow: bool) -> bool {
        let log = self.log();
        let segment = u64::from(self.shape.segment);
        let makeable = if may_grow { self.shape.segments.saturating_sub(log.files) } else { 0 };
        let unused =
            log.free.len() as u64 + log.unmade.len() as u64 * u64::from(may_grow) + u64::from(makeable);
        let left = unused * segment + (segment - u64::from(log.end));
        let keep = match need {
            Need::Grow => 2 * segment,
            Need::Shrink => segment,
        };
        // A record that does not fit the rest of a segment leaves that rest unused.
        left >= keep + 2 * len
    }

    /// Bytes of segments in use, and of all segments made.
    pub fn usage(&self) -> (u64, u64) {
        let log = self.log();
        let segment = u64::from(self.shape.segment);
        let used = (log.live.len() as u64).saturating_sub(1) * segment + u64::from(log.end);
        (used, u64::from(log.files) * segment)
    }

    /// The share of the journal's cap in use, in percent.
    pub fn pressure(&self) -> u64 {
        self.usage().0 * 100 / (u64::from(self.shape.segments) * u64::from(self.shape.segment))
    }

    /// Makes a segment ahead of need, so that no writer waits for its zeros.
    pub fn prepare_spare(&self) {
        let number = {
            let mut log = self.log();
            if !log.free.is_empty() || log.stopped.is_some() {
                return;
            }
            match log.take_file_number(self.shape.segments) {
                Some(number) => number,
                None => return,
            }
        };
        let made = make_segment(&*self.disk, number, self.shape.segment);
        let mut log = self.log();
        match made {
            Ok(made) => log.free.push(made),
            // Whoever needs it tries again, and says why it cannot be.
            Err(_) => log.unmade.push(number),
        }
    }
}

fn log_path(at: &Appended) -> String {
    format!("segment {} of the journal", at.segment)
}

/// Blocks of payload that hold bytes `from..from + len`, as (first block, start of its bytes, end).
fn blocks(from: u32, len: usize, payload_len: u32) -> (usize, u64, u64) {
    let first = from as usize / PAYLOAD_BLOCK;
    let end = (from as usize + len).next_multiple_of(PAYLOAD_BLOCK).min(payload_len as usize);
    (first, (first * PAYLOAD_BLOCK) as u64, end as u64)
}
