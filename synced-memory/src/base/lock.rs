//! Locks that a panic does not close for ever.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also after a thread panicked while it held the lock.
///
/// For data that a panic cannot leave half changed: no code of the user runs under a lock of this
/// library.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
}
