//! Which inodes somebody uses: the only state kept per inode, and only while it is open, or has lost its last
//! name.

use std::collections::{HashMap, HashSet};

use cairn_format::Ino;

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// When an inode that has lost its last name can go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Until {
    /// With its last handle: every open and close is told.
    #[default]
    Released,
    /// When it is forgotten: opens are not told, but that nobody can reach it any more is.
    Forgotten,
}

#[derive(Default)]
struct State {
    /// Open handles, of those that are told.
    open: HashMap<Ino, u32>,
    /// Inodes without a name that are kept.
    nameless: HashSet<Ino>,
    until: Until,
}

/// Open handles, and inodes kept without a name.
#[derive(Default)]
pub(crate) struct Handles(Mutex<State>);

impl Handles {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on inodes without a name stay until they are forgotten, since not every open is told.
    pub(crate) fn expect_forgets(&self) {
        self.state().until = Until::Forgotten;
    }

    /// One more handle.
    pub(crate) fn open(&self, ino: Ino) {
        *self.state().open.entry(ino).or_default() += 1;
    }

    /// One handle less; whether that makes it one that [`Handles::take_unused`] gives.
    pub(crate) fn close(&self, ino: Ino) -> bool {
        let mut state = self.state();
        match state.open.get_mut(&ino) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(state.open.remove(&ino)),
        }
        state.until == Until::Released && !state.open.contains_key(&ino) && state.nameless.contains(&ino)
    }

    /// Whether an inode that loses its last name now has to stay. From here on it counts as one without a name: a handle
    /// that is closed before the name is gone is the last as well.
    pub(crate) fn keep_if_reachable(&self, ino: Ino) -> bool {
        let mut state = self.state();
        let reachable = state.until == Until::Forgotten || state.open.contains_key(&ino);
        if reachable {
            state.nameless.insert(ino);
        }
        reachable
    }

    /// An inode that lost its last name under another process at this mount, and may be open since then.
    pub(crate) fn keep(&self, ino: Ino) {
        self.state().nameless.insert(ino);
    }

    /// Whether an inode that [`Handles::take_unused`] gave was opened since; if so it is kept again.
    pub(crate) fn keep_if_open(&self, ino: Ino) -> bool {
        let mut state = self.state();
        let open = state.open.contains_key(&ino);
        if open {
            state.nameless.insert(ino);
        }
        open
    }

    /// All that are kept without a name.
    pub(crate) fn all_nameless(&self) -> Vec<Ino> {
        self.state().nameless.iter().copied().collect()
    }

    /// Those of `inos` that are kept without a name.
    pub(crate) fn nameless(&self, inos: impl Iterator<Item = Ino>) -> Vec<Ino> {
        let state = self.state();
        inos.filter(|ino| state.nameless.contains(ino)).collect()
    }

    /// Those of `inos` that were kept without a name and that nobody has open, now no longer kept: whoever takes
    /// them removes them.
    pub(crate) fn take_unused(&self, inos: &[Ino]) -> Vec<Ino> {
        let mut state = self.state();
        let State { open, nameless, .. } = &mut *state;
        inos.iter().copied().filter(|ino| !open.contains_key(ino) && nameless.remove(ino)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(7);

    #[test]
    fn a_nameless_inode_goes_with_its_last_handle() {
        let handles = Handles::default();
        assert!(!handles.keep_if_reachable(INO));
        handles.open(INO);
        handles.open(INO);
        assert!(handles.keep_if_reachable(INO));
        assert!(!handles.close(INO));
        assert!(handles.take_unused(&[INO]).is_empty(), "open still");
        assert!(handles.close(INO));
        assert_eq!(handles.take_unused(&[INO]), [INO]);
        assert!(handles.take_unused(&[INO]).is_empty(), "only once");
    }

    #[test]
    fn where_opens_are_not_told_it_goes_when_it_is_forgotten() {
        let handles = Handles::default();
        handles.expect_forgets();
        handles.open(INO);
        assert!(handles.keep_if_reachable(INO));
        assert_eq!(handles.nameless([Ino(8), INO].into_iter()), [INO]);
        assert!(!handles.close(INO), "others may have it open");
        assert_eq!(handles.take_unused(&[Ino(8), INO]), [INO], "the one with names stays");
        assert!(handles.keep_if_reachable(INO), "nobody knows");
    }
}
