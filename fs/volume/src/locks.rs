//! Locks by inode number, in a table of fixed size: no heap for an inode that was only looked up.

use cairn_format::Ino;

use crate::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

// Under a test's scheduler few, so that inodes share them.
const SHARDS: u64 = if cfg!(feature = "schedules") { 4 } else { 1024 };

/// An operation locks the inodes whose keys it reads until its record is applied. A directory's lock covers
/// its names, a file's lock its extents and attributes.
pub(crate) struct InodeLocks(Vec<RwLock<()>>);

/// Inodes locked for a change.
pub(crate) struct Locked<'a>(#[expect(dead_code, reason = "held, not read")] Vec<RwLockWriteGuard<'a, ()>>);

impl InodeLocks {
    pub(crate) fn new() -> InodeLocks {
        InodeLocks((0..SHARDS).map(|_| RwLock::new(())).collect())
    }

    fn shard(ino: Ino) -> usize {
        (ino.0 % SHARDS) as usize
    }

    /// For reading one inode's keys.
    pub(crate) fn read(&self, ino: Ino) -> RwLockReadGuard<'_, ()> {
        // The locks guard no data of their own that a panic could leave half changed.
        self.0[Self::shard(ino)].read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For changing keys of some inodes: all at once, in the order of the table, so that no two operations
    /// wait for each other.
    pub(crate) fn write(&self, inos: &[Ino]) -> Locked<'_> {
        let mut shards: Vec<_> = inos.iter().map(|ino| Self::shard(*ino)).collect();
        shards.sort_unstable();
        shards.dedup();
        let lock = |shard: usize| self.0[shard].write().unwrap_or_else(PoisonError::into_inner);
        Locked(shards.into_iter().map(lock).collect())
    }
}
