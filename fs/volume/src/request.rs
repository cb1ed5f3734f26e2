//! On whose behalf a thread works: the kernel's request, so that the record that concludes it can say so.

use std::cell::Cell;

use cairn_format::Answer;

/// A request of the kernel's that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub(crate) number: u64,
    /// What it was answered by the process that was asked first, if that had concluded it.
    pub(crate) answered: Option<u64>,
}

impl Request {
    /// Whether an earlier process concluded it: then nothing is done, only answered.
    pub fn is_concluded(&self) -> bool {
        self.answered.is_some()
    }
}

#[derive(Clone, Copy)]
struct Current {
    request: Request,
    concluded: bool,
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

/// Runs `f` on behalf of `request`; gives what it gives, and whether a record concluded the request.
pub(crate) fn on_behalf_of<T>(request: Request, f: impl FnOnce() -> T) -> (T, bool) {
    /// Also where `f` panics.
    struct Nobody;
    impl Drop for Nobody {
        fn drop(&mut self) {
            CURRENT.set(None);
        }
    }
    let nobody = Nobody;
    CURRENT.set(Some(Current { request, concluded: false }));
    let done = f();
    let concluded = CURRENT.get().is_some_and(|current| current.concluded);
    drop(nobody);
    (done, concluded)
}

/// What the request that this thread works for was answered, if it was concluded before.
pub(crate) fn answered() -> Option<u64> {
    CURRENT.get().and_then(|current| current.request.answered)
}

/// What a record is to say that concludes the request that this thread works for, and from then on is thought to.
pub(crate) fn conclude(value: u64) -> Answer {
    match CURRENT.get() {
        Some(current) => {
            CURRENT.set(Some(Current { concluded: true, ..current }));
            Answer { request: current.request.number, value }
        }
        None => Answer::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_works_for_one_request_at_a_time_and_then_for_none() {
        let request = Request { number: 7, answered: Some(3) };
        let (seen, concluded) = on_behalf_of(request, || (answered(), conclude(5)));
        assert_eq!(seen, (Some(3), Answer { request: 7, value: 5 }));
        assert!(concluded);
        assert_eq!((answered(), conclude(5)), (None, Answer::default()));
        assert!(!on_behalf_of(request, answered).1);
        let panicked = std::panic::catch_unwind(|| on_behalf_of(request, || panic!("on purpose")).1);
        assert!(panicked.is_err() && answered().is_none());
    }
}
