//! Listing directories, in the order their names were made: neighbours in a listing are neighbours in packs.

use cairn_format::key::{self, Key, tag};
use cairn_format::{FileKind, Ino, OrderedEntry};

use super::{DirItem, Error, split, st_ino};
use crate::core::Core;

/// Cookies of `.` and `..`; those of names are LSNs, all higher.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
const PAGE: usize = 256;

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
        let mut next = Some(Key::Order(ino, first, self.view).encode());
        while let Some(from) = next {
            let (page, rest) = self.checked(self.ns.page(&from, &to, PAGE))?;
            for (key, value) in &page {
                let Some(Key::Order(_, cookie, view)) = Key::decode(key) else { continue };
                if view != self.view {
                    continue;
                }
                let entry = self.checked(OrderedEntry::decode(value).map_err(Into::into))?;
                let item = DirItem {
                    name: &entry.name,
                    ino: st_ino(entry.view, entry.ino),
                    kind: entry.kind,
                    cookie,
                };
                if !each(&item) {
                    return Ok(());
                }
            }
            next = rest;
        }
        Ok(())
    }

    /// Whether a directory holds no name.
    pub(super) fn is_empty(&self, dir: Ino) -> Result<bool, Error> {
        let (from, to) = key::all_of(tag::ORDER, dir);
        let mut empty = true;
        self.checked(self.ns.for_each(&from, &to, |_, _| {
            empty = false;
            std::ops::ControlFlow::Break(())
        }))?;
        Ok(empty)
    }
}
