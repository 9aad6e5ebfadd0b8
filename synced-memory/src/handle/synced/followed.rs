//! Decoded values that follow what is stored, instead of being decoded anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Memo, MemoState, Synced};
use crate::base::lock::assert_unlocked;
use crate::handle::follow::{Entries, Follow};
use crate::handle::reader::SlotsView;
use crate::handle::value::Value;

/// Another thread takes a memo, or looks at it, for a shorter time than so many yields, unless it
/// runs code of the user's.
const TRIES: usize = 200;

impl<T: Entries> Synced<T> {
    /// The same view. From now on it is known how its values follow what is stored.
    pub(super) fn following(&self) -> &Self {
        self.inner.follow.get_or_init(|| Follow::OF_ENTRIES);
        self
    }
}

impl<T: Value> Synced<T> {
    /// Whether decoded values can follow what is stored.
    pub(super) fn can_follow(&self) -> bool {
        self.follow().is_some()
    }

    fn follow(&self) -> Option<Follow<T>> {
        if !self.path().is_root() {
            return None;
        }
        let known = self.inner.follow.get().copied();
        known.or_else(Follow::known)
    }

    /// What the slots show, made of what was decoded last: only what differs is decoded. It is kept
    /// for the next read. `None` if it has to be decoded from the text.
    ///
    /// The value is changed in place unless somebody still holds it; then a copy is.
    pub(super) fn followed(&self, slots: &SlotsView) -> Option<Arc<Memo<T>>> {
        let follow = self.follow()?;
        let newer = slots.view.stored.as_ref()?;
        let taken = &self.inner.is_taken;
        for _ in 0..TRIES {
            if !taken.load(Ordering::Acquire) {
                break;
            }
            thread::yield_now();
        }
        let memo = self.inner.memo.load_full()?;
        if memo.is_shown_by(slots) && memo.state.is_local == slots.is_local {
            return Some(memo);
        }
        let older = memo.document.as_ref()?;
        if older.is_same(newer) {
            // Something else has changed: the time to live, or whether it is current.
            let has_same_parts = memo.has_same_parts.get() == Some(&true);
            return Some(self.keep(memo.value.clone()?, slots, has_same_parts));
        }
        assert_unlocked();
        let differences = follow.differences(older, newer)?;

        if taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        let _release = Release(taken);
        let mut memo = self.take(memo)?;
        let has_same_parts = memo.has_same_parts.get() == Some(&true) && differences.are_utf8;
        let mut value = match unshared(&mut memo) {
            Some(memo) => memo.value.take(),
            None => memo.value.clone(),
        }?;
        drop(memo);
        if !follow.apply(differences, Arc::make_mut(&mut value)) {
            return None;
        }
        Some(self.keep(value, slots, has_same_parts))
    }

    /// Keeps the value of what the slots show for the next read.
    fn keep(&self, value: Arc<T>, slots: &SlotsView, has_same_parts: bool) -> Arc<Memo<T>> {
        let memo = Memo {
            value: Some(value),
            document: slots.view.stored.clone(),
            ..Memo::new(MemoState::of(slots), None, true)
        };
        if has_same_parts {
            _ = memo.has_same_parts.set(true);
        }
        let memo = Arc::new(memo);
        self.inner.memo.store(Some(Arc::clone(&memo)));
        memo
    }

    /// Takes this memo out of the view, unless another one is there by now.
    fn take(&self, memo: Arc<Memo<T>>) -> Option<Arc<Memo<T>>> {
        let there = self.inner.memo.compare_and_swap(&memo, None);
        let is_there = there
            .as_ref()
            .is_some_and(|there| Arc::ptr_eq(there, &memo));
        is_there.then_some(memo)
    }
}

/// The memo to be changed, once no other thread looks at it.
fn unshared<T>(memo: &mut Arc<Memo<T>>) -> Option<&mut Memo<T>> {
    for _ in 0..TRIES {
        if Arc::get_mut(memo).is_some() {
            break;
        }
        thread::yield_now();
    }
    Arc::get_mut(memo)
}

/// The memo is there again, or a newer one will be decoded.
struct Release<'a>(&'a AtomicBool);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
