//! Answers that may not have been given yet: what the next process says again if this one dies before it could.
//!
//! A record that concludes a request names it (its [`Answer`]), so the journal holds what is to be said again. This holds
//! which of those are still of interest: a record says how far back the oldest of them lies, and what trimming would take
//! is repeated before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_format::{Answer, Lsn, RecordHead};

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Repeated requests come before all others: once another came, whoever took one from the kernel has asked for its answer
/// long before this.
const REPEATED_BY_THEN: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    /// Requests that this process concluded and has not answered, and where.
    owed: Vec<(Answer, Lsn)>,
    /// Those that one before this may have left unanswered, and where they are said last.
    carried: HashMap<u64, (Answer, Lsn)>,
    /// When the first request came that was none of those.
    others_since: Option<Instant>,
}

/// The answers of one open volume.
#[derive(Default)]
pub(crate) struct Answers {
    state: Mutex<State>,
    others: AtomicBool,
    /// Answers may not arrive any more.
    leaving: AtomicBool,
}

impl Answers {
    /// What a process before this one may not have answered, by the records that say so.
    pub(crate) fn carry(&self, answers: impl IntoIterator<Item = (Answer, Lsn)>) {
        self.state().carried.extend(answers.into_iter().map(|(answer, lsn)| (answer.request, (answer, lsn))));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between operations.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a request was answered by a process before this one, if that concluded it.
    pub(crate) fn recorded(&self, request: u64) -> Option<u64> {
        self.state().carried.get(&request).map(|(answer, _)| answer.value)
    }

    /// A request came that was not sent before.
    pub(crate) fn note_other(&self) {
        if !self.others.load(Ordering::Relaxed) && !self.others.swap(true, Ordering::Relaxed) {
            self.state().others_since = Some(Instant::now());
        }
    }

    /// A request is concluded by a record; the caller holds the journal's lock.
    pub(super) fn owe(&self, answer: Answer, lsn: Lsn) {
        self.state().owed.push((answer, lsn));
    }

    /// From here on what is answered may not reach whoever asked: it is still owed.
    pub(crate) fn keep_all(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// A request was answered.
    pub(crate) fn settle(&self, request: u64) {
        if self.leaving.load(Ordering::SeqCst) {
            return;
        }
        let mut state = self.state();
        state.owed.retain(|(answer, _)| answer.request != request);
        state.carried.remove(&request);
    }

    /// How far before record `lsn` the oldest lies that is of interest.
    pub(super) fn reach(&self, lsn: Lsn) -> u32 {
        let mut state = self.state();
        state.drop_old();
        let lowest = state.all().map(|(_, at)| *at).min().unwrap_or(lsn);
        // Those of an epoch before lie further back than can be said.
        u32::try_from(lsn.0.saturating_sub(lowest.0)).unwrap_or(RecordHead::OWED_ALL)
    }

    /// The first record that says one.
    pub(super) fn lowest(&self) -> Option<Lsn> {
        self.state().all().map(|(_, at)| *at).min()
    }

    /// Those that are said in records below `floor` only.
    pub(super) fn below(&self, floor: Lsn) -> Vec<Answer> {
        let mut state = self.state();
        state.drop_old();
        state.all().filter(|(_, at)| *at < floor).map(|(answer, _)| *answer).collect()
    }

    /// An answer was said again; the caller holds the journal's lock.
    pub(super) fn repeated(&self, answer: Answer, lsn: Lsn) {
        let mut state = self.state();
        let State { owed, carried, .. } = &mut *state;
        let all = owed.iter_mut().chain(carried.values_mut());
        all.filter(|(known, _)| known.request == answer.request).for_each(|(_, at)| *at = lsn);
    }
}

impl State {
    fn all(&self) -> impl Iterator<Item = &(Answer, Lsn)> {
        self.owed.iter().chain(self.carried.values())
    }

    /// Nobody asks for the answers of earlier processes any more.
    fn drop_old(&mut self) {
        if !self.carried.is_empty() && self.others_since.is_some_and(|at| at.elapsed() > REPEATED_BY_THEN) {
            self.carried.clear();
        }
    }
}

/// What a replay finds of answers that may not have been given.
pub(crate) struct Collected {
    first_epoch: u32,
    answers: std::collections::VecDeque<(Answer, Lsn)>,
}

impl Collected {
    /// Of the records of `first_epoch` and those behind it; those before answered another mount's requests.
    pub(crate) fn since(first_epoch: u32) -> Collected {
        Collected { first_epoch, answers: Default::default() }
    }

    /// The next record.
    pub(crate) fn add(&mut self, lsn: Lsn, owed: u32, answer: Answer) {
        if lsn.epoch() < self.first_epoch {
            return;
        }
        if owed != RecordHead::OWED_ALL {
            let from = lsn.0.saturating_sub(owed.into());
            while self.answers.front().is_some_and(|(_, at)| at.0 < from) {
                self.answers.pop_front();
            }
        }
        if answer.request != 0 {
            self.answers.push_back((answer, lsn));
        }
    }

    /// What was found, the later record last.
    pub(crate) fn finish(self) -> impl Iterator<Item = (Answer, Lsn)> {
        self.answers.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: u64) -> Answer {
        Answer { request, value: request * 10 }
    }

    fn lsn(epoch: u32, count: u64) -> Lsn {
        Lsn(Lsn::first_of(epoch).0 + count - 1)
    }

    #[test]
    fn a_replay_finds_what_was_not_settled_and_little_else() {
        let answers = Answers::default();
        let mut found = Collected::since(3);
        let mut write = |count: u64, request: u64| {
            let at = lsn(3, count);
            if request != 0 {
                answers.owe(answer(request), at);
            }
            found.add(at, answers.reach(at), if request == 0 { Answer::default() } else { answer(request) });
        };
        write(1, 0);
        write(2, 2);
        write(3, 4);
        answers.settle(2);
        for n in 4..1000 {
            write(n, 2 * n);
            answers.settle(2 * n);
        }
        let left: Vec<_> = found.finish().collect();
        assert!(left.contains(&(answer(4), lsn(3, 3))), "never answered");
        assert!(!left.iter().any(|(a, _)| a.request == 2), "answered before the last records");
    }

    #[test]
    fn what_is_answered_when_nobody_may_hear_it_stays_owed() {
        let answers = Answers::default();
        answers.owe(answer(2), lsn(1, 1));
        answers.keep_all();
        answers.settle(2);
        assert_eq!(answers.below(lsn(2, 1)), [answer(2)]);
    }

    #[test]
    fn what_another_mount_was_asked_is_not_answered() {
        let mut found = Collected::since(4);
        found.add(lsn(3, 9), 0, answer(2));
        found.add(lsn(4, 1), RecordHead::OWED_ALL, answer(2));
        assert_eq!(found.finish().collect::<Vec<_>>(), [(answer(2), lsn(4, 1))]);
    }

    #[test]
    fn what_a_trim_would_take_is_told_until_it_is_repeated_or_settled() {
        let answers = Answers::default();
        answers.carry([(answer(2), lsn(1, 5)), (answer(4), lsn(1, 6))]);
        assert_eq!(answers.recorded(2), Some(20));
        assert_eq!(answers.reach(lsn(2, 1)), RecordHead::OWED_ALL, "of an epoch before");
        assert_eq!(answers.below(lsn(2, 1)).len(), 2);
        answers.repeated(answer(2), lsn(2, 1));
        answers.settle(4);
        assert_eq!((answers.below(lsn(2, 1)).len(), answers.reach(lsn(2, 8))), (0, 7));
        assert_eq!((answers.recorded(2), answers.recorded(4)), (Some(20), None));
    }
}
