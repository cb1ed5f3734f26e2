//! Healing, as far as it is a volume's: what waits to be mended is mended behind the callers' backs, and the log says which
//! files it was about. Whoever mends makes second copies of packs, too (`twins.rs`).

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cairn_format::key::{self, Key, tag};
use cairn_format::{DirEntry, Ino};
use cairn_store::heal::HealMode;

use crate::core::Core;
use crate::sync::{Arc, Mutex, PoisonError};

/// So many packs are mended before an unmount; of more each takes a while, and the next mount meets them again.
const LITTLE: u64 = 4;
/// A segment gets parity where the disk has so many times the room to spare.
const ROOM_FOR_PARITY: u64 = 16;
/// How much nicer mending is than what answers requests.
const NICENESS: i32 = 10;
/// Names are looked for not more often than this,
const NAMED_EVERY: Duration = Duration::from_secs(5);
/// …and for so long.
const NAMED_WITHIN: Duration = Duration::from_millis(100);

/// The inode whose name was looked for last, and when: damage comes in runs.
#[derive(Default)]
pub(crate) struct LastNamed(Mutex<Option<(Instant, Ino, String)>>);

/// The thread that mends.
pub(crate) fn run(core: &Arc<Core>) {
    if !cfg!(feature = "schedules")
        && let Err(error) = rustix::process::nice(NICENESS)
    {
        tracing::debug!("mending has the priority of everything else: {error}");
    }
    let ended = || core.signal.is_stopping();
    while core.store.health().wait_for_work(ended, || core.store.has_twins_to_make()) {
        if core.is_stopped() {
            return;
        }
        // A panic is a bug in here; what was damaged stays so, and is answered from parity.
        let mended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if !core.mend_one() {
                core.make_twin();
            }
        }));
        if mended.is_err() {
            tracing::error!(
                "mending panicked: what is damaged is mended no more, and no second copies are made, before the next mount"
            );
            return;
        }
    }
}

impl Core {
    /// Mends a pack that waits for it, where that may be done; whether one did. What cannot be mended is logged.
    fn mend_one(&self) -> bool {
        let health = self.store.health();
        if health.mode() != HealMode::On || self.is_stopped() {
            return false;
        }
        self.store.mend_next().unwrap_or_else(|error| {
            tracing::error!(
                "what is damaged was not written back, it is tried again when it is met again: {error}"
            );
            true
        })
    }

    /// Mends the journal's segments that damage was met in, where that may be done; whether there were any.
    pub(crate) fn mend_journal(&self) -> bool {
        let health = self.store.health();
        self.journal().is_ok_and(|journal| {
            health.mode() == HealMode::On && journal.stopped().is_none() && journal.mend(health)
        })
    }

    /// Gives parity to a segment of the journal that was closed `age` ago or longer; whether there was one. Under load there is
    /// none: a checkpoint soon takes what it would be for.
    pub(crate) fn protect_journal(&self, age: Duration) -> bool {
        let Ok(journal) = self.journal() else { return false };
        let room = if self.has_room_for_spares() { self.room() } else { 0 };
        journal.protect_next(self.writing.metadata_parity(), age, room / ROOM_FOR_PARITY)
    }

    /// Mends what waits for it; whether there was anything.
    pub(crate) fn mend_all(&self) -> bool {
        // Who reads meanwhile may add to it, and has it done by the next.
        let waiting = self.store.health().counts().waiting;
        let mended = self.mend_journal();
        (0..waiting).take_while(|_| self.mend_one()).count() > 0 || mended
    }

    /// Mends what waits for it before the volume is closed, if that is little.
    pub(crate) fn mend_little(&self) {
        self.mend_journal();
        match self.store.health().counts().waiting {
            0 => {}
            waiting if waiting <= LITTLE => drop(self.mend_all()),
            waiting => {
                tracing::warn!("{waiting} packs are damaged still: they are mended when they are read again")
            }
        }
    }

    /// An inode, for people: with its path, where that is found at once.
    pub(crate) fn called(&self, ino: Ino) -> String {
        let mut last = self.last_named.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, named, called)) if at.elapsed() < NAMED_EVERY => {
                return if *named == ino { called.clone() } else { format!("inode {ino}") };
            }
            _ => {}
        }
        let called = match self.path_of(ino, Instant::now() + NAMED_WITHIN) {
            Some(path) => format!("inode {ino} ({path})"),
            None => format!("inode {ino}"),
        };
        *last = Some((Instant::now(), ino, called.clone()));
        called
    }

    /// A path of an inode in the volume, as of the last checkpoint; none where looking for it takes too long.
    fn path_of(&self, ino: Ino, until: Instant) -> Option<String> {
        let mut path = String::new();
        let mut below = ino;
        while below != Ino::ROOT {
            let (dir, name) = self.entry_of(below, until)?;
            path = format!("/{}{path}", String::from_utf8_lossy(&name).escape_debug());
            below = dir;
            // Only a hostile volume has directories in a circle.
            if path.len() > 4096 {
                return None;
            }
        }
        Some(path)
    }

    /// A directory that an inode has a name in, and the name.
    fn entry_of(&self, ino: Ino, until: Instant) -> Option<(Ino, Vec<u8>)> {
        let (from, to) = key::all_tagged(tag::NAME);
        let mut found = None;
        let mut seen = 0u32;
        let engine = self.ns.engine();
        let scanned = engine.scan(&from, &to, &mut |key, value| {
            seen = seen.wrapping_add(1);
            if seen.is_multiple_of(256) && Instant::now() > until {
                return ControlFlow::Break(());
            }
            if let (Some(Key::Name(dir, name, _)), Ok(entry)) = (Key::decode(key), DirEntry::decode(value))
                && entry.ino == ino
            {
                found = Some((dir, name));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        scanned.ok()?;
        found
    }
}
