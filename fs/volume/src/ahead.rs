//! Decoding ahead of whoever reads a tensor in order: the blocks that come next, on another core, into the cache.
//!
//! A stream is reads of 64 KiB or more of one file, each near to where the one before it ended: what the kernel asks for when a file is
//! read from one end to the other. (Several of its requests are answered at once, so they come out of order.) Shorter reads, and the first of a stream,
//! cost nothing here. Bounded: so many streams and jobs, a window for each stream, and what is decoded lies in the frames' cache.

use std::collections::VecDeque;

use cairn_format::{Ino, PieceKind};

use crate::core::Core;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What is read in shorter pieces is no stream.
const LEAST: u64 = 64 << 10;
/// How far from where a stream was a read may be.
const NEAR: u64 = 1 << 20;
/// How far ahead of a stream is decoded.
const WINDOW: u64 = 4 << 20;
/// Bytes that are decoded at a time.
const STEP: u64 = 512 << 10;
const STREAMS: usize = 8;
const JOBS: usize = 16;
/// A smaller cache would lose what is decoded before it is asked for.
const CACHE_LEAST: u64 = 2 * STREAMS as u64 * WINDOW;

#[derive(Clone, Copy)]
struct Stream {
    number: u64,
    ino: Ino,
    /// Where the next read is expected.
    next: u64,
    /// Up to where it was seen to.
    until: u64,
    /// There are no tensors here.
    idle: bool,
}

#[derive(Clone, Copy)]
struct Job {
    /// The stream it is for.
    stream: u64,
    ino: Ino,
    offset: u64,
}

#[derive(Default)]
struct State {
    /// The one that was met last is last.
    streams: Vec<Stream>,
    jobs: VecDeque<Job>,
    /// Streams that there were.
    count: u64,
}

/// What is to be decoded ahead.
pub(crate) struct Ahead {
    state: Mutex<State>,
    changed: Condvar,
    enabled: bool,
}

impl Ahead {
    /// For a cache of this size.
    pub(crate) fn new(cache_size: u64) -> Ahead {
        Ahead { state: Mutex::default(), changed: Condvar::new(), enabled: cache_size >= CACHE_LEAST }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody read so many bytes.
    pub(crate) fn note(&self, ino: Ino, offset: u64, len: u64) {
        if !self.enabled || len < LEAST {
            return;
        }
        let mut state = self.state();
        let end = offset + len;
        let near = |s: &Stream| s.ino == ino && offset + NEAR >= s.next && offset <= s.next + NEAR;
        let Some(at) = state.streams.iter().position(near) else {
            if state.streams.len() == STREAMS {
                state.streams.remove(0);
            }
            state.count += 1;
            let number = state.count;
            state.streams.push(Stream { number, ino, next: end, until: end, idle: false });
            return;
        };
        let mut stream = state.streams.remove(at);
        stream.next = stream.next.max(end);
        stream.until = stream.until.max(stream.next);
        let before = state.jobs.len();
        while !stream.idle && stream.until + STEP <= stream.next + WINDOW && state.jobs.len() < JOBS {
            state.jobs.push_back(Job { stream: stream.number, ino, offset: stream.until });
            stream.until += STEP;
        }
        state.streams.push(stream);
        if state.jobs.len() > before {
            self.changed.notify_all();
        }
    }

    /// The next that nobody has come to yet.
    fn next(state: &mut State) -> Option<Job> {
        loop {
            let job = state.jobs.pop_front()?;
            let passed = |s: &Stream| s.number == job.stream && s.next >= job.offset + STEP;
            if !state.streams.iter().any(passed) {
                return Some(job);
            }
        }
    }

    fn wait(&self, ended: impl Fn() -> bool) -> Option<Job> {
        let mut state = self.state();
        loop {
            if ended() {
                return None;
            }
            if let Some(job) = Self::next(&mut state) {
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// There is nothing to be decoded where this stream is.
    fn give_up(&self, job: Job) {
        let mut state = self.state();
        state.jobs.retain(|other| other.stream != job.stream);
        let streams = state.streams.iter_mut();
        streams.filter(|stream| stream.number == job.stream).for_each(|stream| stream.idle = true);
    }

    /// Has whoever waits look up.
    pub(crate) fn wake(&self) {
        // Under the lock, so that nobody is between looking and waiting.
        let _state = self.state();
        self.changed.notify_all();
    }
}

/// A thread that decodes.
pub(crate) fn run(core: &Arc<Core>) {
    while let Some(job) = core.ahead.wait(|| core.signal.is_stopping()) {
        // A panic is a bug in here; who reads decodes for himself.
        let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| core.decode_ahead(job)));
        if decoded.is_err() {
            tracing::error!("decoding ahead panicked: it is not done any more before the next mount");
            return;
        }
    }
}

impl Core {
    /// What threads do elsewhere.
    pub(crate) fn decode_all_ahead(&self) {
        loop {
            let Some(job) = Ahead::next(&mut self.ahead.state()) else { return };
            self.decode_ahead(job);
        }
    }

    fn decode_ahead(&self, job: Job) {
        let runs = {
            let _lock = self.locks.read(job.ino);
            let Ok(inode) = self.inode(job.ino) else { return };
            let len = inode.size.saturating_sub(job.offset).min(STEP);
            self.runs(job.ino, job.offset, len)
        };
        let mut tensors = false;
        for (_, run) in runs.unwrap_or_default() {
            if let PieceKind::Chunk(piece) = run.kind {
                // A run of bytes in a chunk is no longer than that.
                tensors |= self.store.decode_ahead(&piece, run.len as u32);
            }
        }
        if !tensors {
            self.ahead.give_up(job);
        }
    }
}
