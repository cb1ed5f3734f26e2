//! What stands between us and an engine's library.
//!
//! Everything a library does is done inside [`Guarded`], which turns its panics into errors and refuses
//! what follows the first of either: a library that has failed once is not asked again. What of it
//! does work when dropped, closing a damaged database for one, is [`Contained`].

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use super::EngineError;

/// Stands between us and a library whose errors are `E`s.
pub(super) struct Guarded<E> {
    engine: &'static str,
    /// The first failure's reason.
    failed: OnceLock<String>,
    errors: PhantomData<fn() -> E>,
}

impl<E: Display> Guarded<E> {
    /// For the library called `engine`, which has not failed yet.
    pub(super) fn new(engine: &'static str) -> Self {
        Guarded { engine, failed: OnceLock::new(), errors: PhantomData }
    }

    /// Calls the library, unless it failed before.
    pub(super) fn call<T>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, EngineError> {
        if let Some(reason) = self.failed.get() {
            return Err(self.failure(format!("it failed before: {reason}")));
        }
        // Unwind safety: after a panic, `failed` keeps everyone from what the panic left behind.
        let reason = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(e)) => e.to_string(),
            Err(panic) => {
                let message = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                format!("it panicked: {}", message.unwrap_or("with no message"))
            }
        };
        // Where another thread was first, its reason stays.
        let _ = self.failed.set(reason.clone());
        Err(self.failure(reason))
    }

    /// The library's failure, for this reason.
    pub(super) fn failure(&self, reason: String) -> EngineError {
        EngineError::Failed { engine: self.engine, reason }
    }
}

/// Something of a library's whose drop is not trusted not to panic.
pub(super) struct Contained<T> {
    /// `None` only once it was taken, by value or by the drop.
    inside: Option<T>,
}

impl<T> Contained<T> {
    /// Contains it.
    pub(super) fn new(inside: T) -> Self {
        Contained { inside: Some(inside) }
    }

    /// What is inside, to be used up. Nothing else may be done with the container afterwards.
    pub(super) fn take(&mut self) -> T {
        self.inside.take().expect("taken once")
    }
}

impl<T> Deref for Contained<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inside.as_ref().expect("not taken yet")
    }
}

impl<T> DerefMut for Contained<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inside.as_mut().expect("not taken yet")
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        // Nothing is lost with the panic: what was committed is, and whatever else is wrong will show when
        // the file is opened. Unwind safety: nobody can reach what is dropped here.
        let inside = self.inside.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(inside)));
    }
}
