//! What could not be restored, and is not tried again at once. An attempt reads a stripe and, where checksums are lost with what they
//! speak for, computes it again and again; and who reads a file asks for each of its pages.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cairn_format::PackId;

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// So many times as long as an attempt took, no other is made: a hundredth of the time at most goes into what fails.
const REST: u32 = 100;
/// No longer than this, since what parity needs may come back: a disk, a copy.
const REST_MAX: Duration = Duration::from_secs(10);
/// So many are remembered.
const REMEMBERED: usize = 1 << 16;

/// What a reader wants of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Part {
    Footer,
    /// By where it begins.
    Frame(u64),
}

/// Parts that could not be restored when that was last tried, and until when it is not tried again.
#[derive(Default)]
pub(super) struct Hopeless {
    rests: Mutex<HashMap<(PackId, Part), Instant>>,
}

impl Hopeless {
    /// What `attempt` restores of a pack; none, and no attempt, where the last one failed a short while ago.
    pub(super) fn attempt<T>(
        &self,
        pack: PackId,
        part: Part,
        attempt: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let since = Instant::now();
        if self.rests(pack, part, since) {
            return None;
        }
        let restored = attempt();
        match restored {
            Some(_) => {
                self.all().remove(&(pack, part));
            }
            None => self.failed(pack, part, since, Instant::now()),
        }
        restored
    }

    /// Nothing that is known of a pack holds any longer: some of it was written.
    pub(super) fn forget(&self, pack: PackId) {
        self.all().retain(|(of, _), _| *of != pack);
    }

    fn rests(&self, pack: PackId, part: Part, now: Instant) -> bool {
        self.all().get(&(pack, part)).is_some_and(|until| now < *until)
    }

    fn failed(&self, pack: PackId, part: Part, since: Instant, now: Instant) {
        let rest = now.saturating_duration_since(since).saturating_mul(REST).min(REST_MAX);
        let mut all = self.all();
        if all.len() >= REMEMBERED {
            all.retain(|_, until| now < *until);
        }
        if all.len() < REMEMBERED {
            all.insert((pack, part), now + rest);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(PackId, Part), Instant>> {
        self.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACK: PackId = PackId([1; 16]);
    const OTHER: PackId = PackId([2; 16]);

    #[test]
    fn what_failed_rests_for_as_long_as_it_took_a_hundred_times() {
        let (hopeless, begun) = (Hopeless::default(), Instant::now());
        let after = |millis| begun + Duration::from_millis(millis);
        hopeless.failed(PACK, Part::Frame(5), begun, after(20));
        hopeless.failed(OTHER, Part::Footer, begun, after(500));
        assert!(hopeless.rests(PACK, Part::Frame(5), after(2_019)));
        assert!(!hopeless.rests(PACK, Part::Frame(5), after(2_020)));
        assert!(hopeless.rests(OTHER, Part::Footer, after(10_499)));
        assert!(!hopeless.rests(OTHER, Part::Footer, after(10_500)), "however long it took");
        assert!(!hopeless.rests(PACK, Part::Footer, after(20)), "of which nothing is known");
    }

    #[test]
    fn a_pack_that_was_written_to_is_tried_at_once() {
        let (hopeless, now) = (Hopeless::default(), Instant::now());
        let long_ago = now.checked_sub(Duration::from_secs(60)).unwrap_or(now);
        for pack in [PACK, OTHER] {
            hopeless.failed(pack, Part::Frame(5), long_ago, now);
        }
        hopeless.forget(PACK);
        assert_eq!(hopeless.attempt(PACK, Part::Frame(5), || Some(7)), Some(7));
        assert!(hopeless.rests(OTHER, Part::Frame(5), now));
        assert_eq!(hopeless.attempt(OTHER, Part::Frame(5), || Some(7)), None);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for_and_those_that_rest_stay() {
        let (hopeless, now) = (Hopeless::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        hopeless.failed(PACK, Part::Footer, now, later);
        for at in 0..2 * REMEMBERED as u64 {
            hopeless.failed(OTHER, Part::Frame(at), now, now);
        }
        assert!(hopeless.all().len() <= REMEMBERED);
        assert!(hopeless.rests(PACK, Part::Footer, later));
    }
}
