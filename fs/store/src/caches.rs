//! What was read from packs and may be wanted again, each with a limit in bytes.

use lru::LruCache;

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// An LRU whose entries have sizes, in shards so that readers seldom meet.
pub(crate) struct ByteLru<K, V> {
    shards: Vec<Mutex<Shard<K, V>>>,
    limit: u64,
}

struct Shard<K, V> {
    entries: LruCache<K, (V, u64)>,
    bytes: u64,
}

impl<K: std::hash::Hash + Eq + Copy, V: Clone> ByteLru<K, V> {
    /// One that holds up to `limit` bytes in `shards` parts.
    pub(crate) fn new(limit: u64, shards: usize) -> Self {
        let shard = || Mutex::new(Shard { entries: LruCache::unbounded(), bytes: 0 });
        ByteLru { shards: (0..shards).map(|_| shard()).collect(), limit: limit / shards as u64 }
    }

    fn shard(&self, hint: usize) -> MutexGuard<'_, Shard<K, V>> {
        // A panic while the lock was held cannot leave the LRU half changed in a way that matters:
        // what it holds was checked before it came in.
        self.shards[hint % self.shards.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry, now the most recently used of its shard. `hint` picks the shard.
    pub(crate) fn get(&self, hint: usize, key: &K) -> Option<V> {
        self.shard(hint).entries.get(key).map(|(value, _)| value.clone())
    }

    /// Adds an entry of `size` bytes and drops the least recently used ones that it displaces.
    pub(crate) fn put(&self, hint: usize, key: K, value: V, size: u64) {
        let mut shard = self.shard(hint);
        if let Some((_, (_, old))) = shard.entries.push(key, (value, size)) {
            shard.bytes -= old;
        }
        shard.bytes += size;
        while shard.bytes > self.limit && shard.entries.len() > 1 {
            match shard.entries.pop_lru() {
                Some((_, (_, size))) => shard.bytes -= size,
                None => break,
            }
        }
    }

    /// That each shard's bytes are those of its entries, and within the limit where it has more than one.
    #[cfg(all(test, feature = "schedules"))]
    pub(crate) fn check(&self) {
        for hint in 0..self.shards.len() {
            let shard = self.shard(hint);
            assert_eq!(shard.bytes, shard.entries.iter().map(|(_, (_, size))| size).sum::<u64>());
            assert!(shard.bytes <= self.limit || shard.entries.len() == 1);
        }
    }

    /// Forgets an entry.
    pub(crate) fn remove(&self, hint: usize, key: &K) {
        let mut shard = self.shard(hint);
        if let Some((_, size)) = shard.entries.pop(key) {
            shard.bytes -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_bytes_add_up() {
        let cache: ByteLru<u32, u32> = ByteLru::new(100, 1);
        (0..10).for_each(|n| cache.put(0, n, n, 10));
        assert!(cache.get(0, &0).is_some());
        cache.put(0, 10, 10, 10);
        assert!(cache.get(0, &0).is_some(), "used last");
        assert!(cache.get(0, &1).is_none(), "used longest ago");
        cache.put(0, 0, 0, 50);
        {
            let shard = cache.shard(0);
            assert_eq!(shard.bytes, shard.entries.iter().map(|(_, (_, size))| size).sum::<u64>());
        }
        cache.remove(0, &0);
        assert!(cache.get(0, &0).is_none());
    }
}
