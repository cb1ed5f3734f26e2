//! Listing directories, in the order their names were made: neighbours in a listing are neighbours in packs.

use std::ops::ControlFlow;

use cairn_format::key::{self, Key, tag};
use cairn_format::{FileKind, Ino, OrderedEntry};

use super::{DirItem, Error, split, st_ino};
use crate::core::Core;

/// Cookies of `.` and `..`; those of names are LSNs, all higher.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

impl Core {
    pub(crate) fn readdir(
        &self,
        ino: u64,
        after: u64,
        each: &mut dyn FnMut(&DirItem<'_>) -> bool,
    ) -> Result<(), Error> {
        let ino = split(ino)?;
        let _lock = self.locks.read(ino);
        let inode = self.directory(ino)?;
        let own = |name: &'static [u8], ino: Ino, cookie: u64| DirItem {
            name,
            ino: st_ino(self.view, ino),
            kind: FileKind::Directory,
            cookie,
        };
        if after < DOT && !each(&own(b".", ino, DOT)) {
            return Ok(());
        }
        if after < DOT_DOT && !each(&own(b"..", inode.parent, DOT_DOT)) {
            return Ok(());
        }
        let Some(first) = after.max(DOT_DOT).checked_add(1) else { return Ok(()) };
        let (_, to) = key::all_of(tag::ORDER, ino);
        let from = Key::Order(ino, first, self.view).encode();
        let mut damage = Ok(());
        self.for_each(&from, &to, |key, value| {
            let cookie = match Key::decode(key) {
                Some(Key::Order(_, cookie, view)) if view == self.view => cookie,
                _ => return ControlFlow::Continue(()),
            };
            let entry = match self.checked(OrderedEntry::decode(value).map_err(Into::into)) {
                Ok(entry) => entry,
                Err(error) => {
                    damage = Err(error);
                    return ControlFlow::Break(());
                }
            };
            let ino = st_ino(entry.view, entry.ino);
            match each(&DirItem { name: &entry.name, ino, kind: entry.kind, cookie }) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        damage
    }

    /// Whether a directory holds no name.
    pub(super) fn is_empty(&self, dir: Ino) -> Result<bool, Error> {
        let (from, to) = key::all_of(tag::ORDER, dir);
        let mut empty = true;
        self.for_each(&from, &to, |_, _| {
            empty = false;
            ControlFlow::Break(())
        })?;
        Ok(empty)
    }
}
