//! Forks: the child has copies of what its parent opened, but neither its threads, nor a say in its
//! connections, files and locks (rule 17).

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::clock::Deadline;
use super::lock::LockGuard;

/// The process that made something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnerProcess(u32);

impl OwnerProcess {
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    /// Whether it is the calling process. A system call.
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }
}

/// A static value of which each process has its own: the child of a fork makes a new one. It has no
/// lock that a parent could have held.
#[derive(Debug)]
pub(crate) struct PerProcess<T>(ArcSwapOption<(OwnerProcess, T)>);

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(ArcSwapOption::const_empty())
    }

    /// The value of this process, made by `init` if there is none yet. Of several threads that make
    /// it at once, one wins.
    pub(crate) fn get(&self, init: impl FnOnce() -> T) -> Arc<(OwnerProcess, T)> {
        let owner = OwnerProcess::current();
        let present = self.0.load_full();
        if let Some(present) = present.as_ref().filter(|present| present.0 == owner) {
            return Arc::clone(present);
        }
        let fresh = Arc::new((owner, init()));
        // Never dropped: a drop may notify a thread of the parent.
        std::mem::forget(present.clone());
        let before = self.0.compare_and_swap(&present, Some(Arc::clone(&fresh)));
        match before.as_ref().filter(|winner| winner.0 == owner) {
            Some(winner) => Arc::clone(winner),
            None => fresh,
        }
    }
}

/// Locks a mutex in the child of a fork; `None` if its parent seems to have held the lock at the
/// fork, since nobody will release it then.
pub(crate) fn try_lock_inherited<T: ?Sized>(mutex: &Mutex<T>) -> Option<LockGuard<'_, T>> {
    /// Another thread of the child holds the lock for a shorter time than so many yields.
    const TRIES: usize = 1_000;
    /// On a busy machine a yield may take as long as this.
    const LONGEST: Duration = Duration::from_millis(20);
    let end = Deadline::after(LONGEST);
    for _ in 0..TRIES {
        match mutex.try_lock() {
            Ok(guard) => return Some(LockGuard::of(guard)),
            Err(TryLockError::Poisoned(error)) => {
                return Some(LockGuard::of(PoisonError::into_inner(error)));
            }
            Err(TryLockError::WouldBlock) if end.remaining().is_zero() => break,
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_process_is_made_once_and_made_anew_in_another_process() {
        let value = PerProcess::new();
        assert_eq!((value.get(|| 1).1, value.get(|| 2).1), (1, 1));
        let of_parent = OwnerProcess(OwnerProcess::current().0.wrapping_add(1));
        value.0.store(Some(Arc::new((of_parent, 3))));
        assert_eq!((value.get(|| 4).1, value.get(|| 5).1), (4, 4));
    }

    #[test]
    fn a_lock_that_nobody_releases_is_not_waited_for() {
        let mutex = Mutex::new(1);
        let held = mutex.lock();
        assert!(try_lock_inherited(&mutex).is_none());
        drop(held);
        assert_eq!(try_lock_inherited(&mutex).map(|held| *held), Some(1));
    }
}
