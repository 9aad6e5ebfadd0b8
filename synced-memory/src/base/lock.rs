//! Locks that a panic does not close for ever, and under which no code of the user runs (rule 18).

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock that is held. Debug builds count those of each thread, for [`assert_unlocked`].
#[derive(Debug)]
pub(crate) struct LockGuard<'a, T: ?Sized> {
    // In this order: it is counted until it is released.
    guard: MutexGuard<'a, T>,
    _held: HeldLock,
}

/// Locks `mutex`, also after a thread panicked while it held the lock.
///
/// For data that a panic cannot leave half changed: no code of the user runs under a lock of this
/// library.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> LockGuard<'_, T> {
    LockGuard::of(mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Checks in debug builds that this thread holds no lock of this library: code of the user is about
/// to run, and may make any call.
#[track_caller]
pub(crate) fn assert_unlocked() {
    debug_assert_eq!(HELD.get(), 0, "code of the user would run under a lock");
}

impl<'a, T: ?Sized> LockGuard<'a, T> {
    pub(super) fn of(guard: MutexGuard<'a, T>) -> Self {
        Self {
            guard,
            _held: HeldLock::new(),
        }
    }
}

impl<T: ?Sized> Deref for LockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T: ?Sized> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

thread_local! {
    // Without a destructor, so that it is there in the destructors of other locals.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Counts a lock that is held, in debug builds.
#[derive(Debug)]
struct HeldLock(());

impl HeldLock {
    fn new() -> Self {
        if cfg!(debug_assertions) {
            HELD.set(HELD.get() + 1);
        }
        Self(())
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            HELD.set(HELD.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_lock_that_was_held_by_a_panicking_thread_can_be_taken() {
        let mutex = Arc::new(Mutex::new(7));
        let held = Arc::clone(&mutex);
        let panicked = std::thread::spawn(move || {
            let _guard = lock(&held);
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(*lock(&mutex), 7);
    }

    #[test]
    fn code_of_the_user_under_a_lock_is_noticed() {
        let (outer, inner) = (Mutex::new(1), Mutex::new(2));
        assert_unlocked();
        let guard = lock(&outer);
        drop(lock(&inner));
        assert!(std::panic::catch_unwind(assert_unlocked).is_err());
        drop(guard);
        assert_unlocked();
    }
}
