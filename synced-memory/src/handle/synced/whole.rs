//! Reads of a part that are answered from the decoded whole.
//!
//! A view of a part knows the view that it was made by. If that one, or one further up, has decoded
//! what a read shows, the part is looked up in there: that takes as long in a large collection as
//! in a small one. Otherwise the text of the whole is parsed, and only the part is decoded.
//!
//! Both ways return the same. The decoded whole is asked only if the whole is stored and decodes.
//! If a part of it does not, or the type at hand cannot tell what the text says
//! ([`PartLookup::Unclear`]), the text is parsed.

use std::any::Any;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::lookup::read_key;
use super::{Memo, MemoState, Synced};
use crate::base::error::Result;
use crate::base::lock::assert_unlocked;
use crate::handle::key::Spec;
use crate::handle::reader::SlotsView;
use crate::handle::value::Value;
use crate::value::mutation::PathSegment;

/// What a view is a part of.
pub(super) trait WholeView<T>: Send + Sync + UnwindSafe + RefUnwindSafe {
    /// Calls `look` with the part in the decoded whole, if that is current and the backend need not
    /// be asked. Returns whether it did.
    fn look_local(&self, look: LookAtPart<'_, T>) -> bool;

    /// Calls `look` with the part in the decoded whole, if that is what the slots show. Returns
    /// whether it did.
    fn look_in(&self, slots: &SlotsView, look: LookAtPart<'_, T>) -> bool;
}

/// Gets the part, `None` if the whole has none, and what is known of the whole.
type LookAtPart<'a, T> = &'a mut dyn FnMut(&MemoState, Option<&T>);

/// What a decoded whole says of a part.
pub(super) enum PartLookup<'a, T> {
    Found(&'a T),
    Absent,
    /// Nothing: the text has to be parsed.
    Unclear,
}

impl<'a, T> From<Option<&'a T>> for PartLookup<'a, T> {
    fn from(found: Option<&'a T>) -> Self {
        found.map_or(Self::Absent, Self::Found)
    }
}

/// A view, and how a part is found in its value.
struct PartOf<C, F> {
    whole: Synced<C>,
    find: F,
}

// A look changes nothing but what is decoded, which is replaced as a whole: after a panic in it
// everything is as before.
impl<C, F> UnwindSafe for PartOf<C, F> {}
impl<C, F> RefUnwindSafe for PartOf<C, F> {}

impl<T, C, F> WholeView<T> for PartOf<C, F>
where
    C: Value,
    F: Fn(&C) -> PartLookup<'_, T> + Send + Sync,
{
    fn look_local(&self, look: LookAtPart<'_, T>) -> bool {
        let mut is_clear = false;
        self.whole.look_local(&mut |state, whole| {
            is_clear = self.look_at(state, whole, look);
        });
        is_clear
    }

    fn look_in(&self, slots: &SlotsView, look: LookAtPart<'_, T>) -> bool {
        let mut is_clear = false;
        self.whole.look_in(slots, &mut |state, whole| {
            is_clear = self.look_at(state, whole, look);
        });
        is_clear
    }
}

impl<C, F> PartOf<C, F> {
    fn look_at<T>(&self, state: &MemoState, whole: Option<&C>, look: LookAtPart<'_, T>) -> bool
    where
        F: Fn(&C) -> PartLookup<'_, T>,
    {
        // Below something that is missing there is nothing.
        match whole.map_or(PartLookup::Absent, &self.find) {
            PartLookup::Found(part) => look(state, Some(part)),
            PartLookup::Absent => look(state, None),
            PartLookup::Unclear => return false,
        }
        true
    }
}

/// The key of an entry, read from its name when it is first looked up.
pub(super) struct KeyOfEntry<K> {
    name: Box<str>,
    key: OnceLock<Option<K>>,
}

impl<K: Value> KeyOfEntry<K> {
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            key: OnceLock::new(),
        }
    }

    /// What `find` finds under the key.
    pub(super) fn find_by<'a, V>(
        &self,
        find: impl FnOnce(&K) -> Option<&'a V>,
    ) -> PartLookup<'a, V> {
        let key = self.key.get().unwrap_or_else(|| {
            // Not in the closure of `get_or_init`, under which other readers wait: code of the
            // user's reads it.
            let key = self.read();
            self.key.get_or_init(|| key)
        });
        match key {
            Some(key) => find(key).into(),
            None => PartLookup::Unclear,
        }
    }

    /// The key; `None` if its type cannot read what it writes.
    fn read(&self) -> Option<K> {
        let name = String::from(&*self.name);
        match (&name as &dyn Any).downcast_ref::<K>() {
            Some(key) => Some(key.clone()),
            None => read_key(&name),
        }
    }
}

/// How parts of a value have been read, which says whether it pays to decode all of it.
pub(super) struct PartReads {
    /// The version of which the last part was read.
    read: AtomicU64,
    /// The last version that did not decode.
    undecodable: AtomicU64,
}

impl PartReads {
    const NEVER: u64 = u64::MAX;

    pub(super) const fn new() -> Self {
        Self {
            read: AtomicU64::new(Self::NEVER),
            undecodable: AtomicU64::new(Self::NEVER),
        }
    }

    /// Notes the read of a part. Whether it pays to decode the whole: it is not the first one since
    /// the last change, so that more may follow.
    fn is_worth_decoding(&self, version: u64) -> bool {
        self.read.swap(version, Ordering::Relaxed) == version
            && self.undecodable.load(Ordering::Relaxed) != version
    }

    fn note_undecodable(&self, version: u64) {
        self.undecodable.store(version, Ordering::Relaxed);
    }
}

impl<T: Value> Synced<T> {
    /// The view of a part, which `find` finds in the decoded value.
    pub(super) fn part<U: Value>(
        &self,
        segment: PathSegment,
        find: impl Fn(&T) -> PartLookup<'_, U> + Send + Sync + 'static,
    ) -> Synced<U> {
        let path = self.path().at(segment);
        // What a confirmed read returns is not what the slots show.
        let whole = (!path.is_confirmed()).then(|| {
            let whole = self.clone();
            Box::new(PartOf { whole, find }) as Box<dyn WholeView<U>>
        });
        Synced::with_whole(path, Spec::new(), whole)
    }

    fn look_local(&self, look: LookAtPart<'_, T>) -> bool {
        // Not a guard of the swap: code of the user runs while it is held.
        if let Some(memo) = self.inner.memo.load_full()
            && memo.state.is_local
            && self.is_current(&memo)
            && memo.has_same_parts.get() == Some(&true)
        {
            assert_unlocked();
            look(&memo.state, memo.value.as_deref());
            return true;
        }
        let whole = self.inner.whole.as_ref();
        whole.is_some_and(|whole| whole.look_local(look))
    }

    fn look_in(&self, slots: &SlotsView, look: LookAtPart<'_, T>) -> bool {
        let memo = self.inner.memo.load_full();
        if let Some(memo) = memo.filter(|memo| memo.is_of(slots)) {
            assert_unlocked();
            look(&memo.state, memo.value.as_deref());
            return true;
        }
        let whole = self.inner.whole.as_ref();
        if whole.is_some_and(|whole| whole.look_in(slots, look)) {
            return true;
        }
        if !self.path().is_near() {
            return false;
        }
        if let Some(memo) = self.followed(slots)
            && memo.is_of(slots)
        {
            assert_unlocked();
            look(&memo.state, memo.value.as_deref());
            return true;
        }
        if !self.inner.part_reads.is_worth_decoding(slots.version) {
            return false;
        }

        assert_unlocked();
        match self.memo_in(slots) {
            Ok(memo) if memo.is_of(slots) => {
                look(&memo.state, memo.value.as_deref());
                true
            }
            Ok(_) | Err(_) => {
                self.inner.part_reads.note_undecodable(slots.version);
                false
            }
        }
    }

    /// The part in the decoded whole, if neither the backend has to be asked nor anything decoded.
    /// It is kept for the next read.
    pub(super) fn local_part(&self) -> Option<Arc<Memo<T>>> {
        let whole = self.inner.whole.as_ref()?;
        let mut memo = None;
        whole.look_local(&mut |state, part| {
            memo = part.map(|part| Arc::new(Memo::new(*state, Some(part.clone()), true)));
        });
        self.inner.memo.store(Some(Arc::clone(memo.as_ref()?)));
        memo
    }

    /// The part in the decoded whole that the slots show; `None` if no view has decoded it, else
    /// whether there is a part, and it.
    pub(super) fn part_in(&self, slots: &SlotsView) -> Option<(Option<T>, bool)> {
        let whole = self.inner.whole.as_ref()?;
        let mut found = None;
        whole.look_in(slots, &mut |_, part| {
            found = Some((part.cloned(), part.is_some()));
        });
        found
    }

    /// Calls `look` with the value or, if nothing is there, with its default or else `empty`. A
    /// part that is in a decoded whole is not copied for it.
    pub(super) fn look_or<R>(
        &self,
        empty: Option<fn() -> T>,
        look: impl FnOnce(&T) -> R,
    ) -> Result<R> {
        let (mut look, mut result) = (Some(look), None);
        if let Some(whole) = &self.inner.whole {
            whole.look_local(&mut |_, part| {
                result = part.and_then(|part| look.take().map(|look| look(part)));
            });
        }
        match (result, look) {
            (Some(result), _) => Ok(result),
            (None, look) => {
                let value = self.memo_or(&*self.current()?, empty)?;
                Ok(look.expect("it was not called")(&value))
            }
        }
    }
}
