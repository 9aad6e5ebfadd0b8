//! `Synced<T>`: a live view of a value.

use crate::core::Slot;
use crate::envelope::{self, Unsealed};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Spec};
use crate::memory::Memory;
use crate::outbox::Written;
use crate::state::{Request, View};
use crate::value::Value;
use arc_swap::ArcSwapOption;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A live view of the value under a key. Clone it, keep it, send it to a thread: it never goes stale.
///
/// ```
/// use synced_memory::{Key, Memory};
///
/// let memory = Memory::open("memory:")?;
/// let theme = memory.synced(&Key::<String>::new("theme"));
/// theme.set("dark".to_string())?;
/// assert_eq!(theme.with(|theme| theme.len())?, 4);
/// # Ok::<(), synced_memory::Error>(())
/// ```
pub struct Synced<T> {
    shown: Arc<Shown<T>>,
}

struct Shown<T> {
    memory: Memory,
    /// The slot of the key, then those of its older names; or why there are none.
    slots: Result<Vec<Arc<Slot>>>,
    spec: Spec<T>,
    memo: ArcSwapOption<Memo<T>>,
}

/// What a slot showed, decoded once for each change.
struct Memo<T> {
    version: u64,
    expires: Option<Duration>,
    value: Option<Arc<T>>,
}

impl Memory {
    /// A live view of the value under `key`.
    pub fn synced<T: Value>(&self, key: &Key<T>) -> Synced<T> {
        let spec = key.spec();
        let names = std::iter::once(key.name()).chain(spec.aliases.iter().copied());
        let slots = names.map(|name| self.slot(name)).collect();
        Synced { shown: Arc::new(Shown { memory: self.clone(), slots, spec, memo: ArcSwapOption::empty() }) }
    }
}

impl<T: Value> Synced<T> {
    /// The value. An unset one reads as its default.
    ///
    /// # Errors
    ///
    /// `Unset` where nothing is stored and there is no default, `Decode` where something else than a
    /// `T` is stored, `Rejected` where the server refuses this key.
    pub fn get(&self) -> Result<T> {
        self.read().map(Arc::unwrap_or_clone)
    }

    /// The value, or `None` where nothing is stored, whatever the default.
    ///
    /// # Errors
    ///
    /// `Decode` and `Rejected`, as [`get`](Synced::get).
    pub fn find(&self) -> Result<Option<T>> {
        self.load()?;
        Ok(self.shown()?.map(Arc::unwrap_or_clone))
    }

    /// The value, shared and not cloned.
    ///
    /// # Errors
    ///
    /// As [`get`](Synced::get).
    pub fn read(&self) -> Result<Arc<T>> {
        self.load()?;
        self.shown_or_default()
    }

    /// What `look` makes of the value, which is not cloned for it.
    ///
    /// # Errors
    ///
    /// As [`get`](Synced::get).
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> Result<R> {
        self.read().map(|value| look(&value))
    }

    /// Stores a value, whatever is there.
    ///
    /// # Errors
    ///
    /// `Serialize` for a value that JSON cannot hold, `OutboxFull`, `Rejected` where the server
    /// refuses. After an error nothing is changed.
    #[allow(clippy::needless_pass_by_value)] // the value is given away, as to a field
    pub fn set(&self, value: T) -> Result<Written> {
        let (key, request) = self.assignment(&value)?;
        Ok(self.core().write(&key, request)?.written)
    }

    /// Removes what is stored under the key and its older names; whether there was anything.
    ///
    /// # Errors
    ///
    /// `OutboxFull`, `Rejected` where the server refuses. After an error nothing is changed.
    pub fn delete(&self) -> Result<bool> {
        // The older names first: the key must not fall back to them in between.
        let deletes = self.slots()?.iter().rev().map(|slot| (Arc::clone(&slot.key), Request::Delete)).collect();
        let answers: Vec<_> = self.core().write_all(deletes)?.into_iter().collect::<Result<_>>()?;
        Ok(answers.iter().any(|answer| answer.existed))
    }

    /// When the value was last written, in ns since 1970; zero where that is not known, `None` where
    /// nothing is stored.
    ///
    /// # Errors
    ///
    /// `Rejected` where the server refuses this key.
    pub fn last_modified(&self) -> Result<Option<u64>> {
        self.load()?;
        Ok(self.view()?.1.stored.map(|stored| envelope::stamp_of(&stored).get()))
    }

    pub(crate) fn is_set(&self) -> Result<bool> {
        self.load()?;
        let set = self.view()?.1.stored.is_some();
        let slots = self.slots()?;
        let shared = self.shown.memory.shared();
        let known = set || {
            let state = shared.state();
            slots.iter().all(|slot| state.is_known(&slot.key))
        };
        if known { Ok(set) } else { Err(shared.unavailable()) }
    }

    /// The value that the last answers show, or the default.
    pub(crate) fn shown_or_default(&self) -> Result<Arc<T>> {
        if let Some(value) = self.shown()? {
            return Ok(value);
        }
        match self.shown.spec.default {
            Some(default) => Ok(Arc::new(default())),
            None => Err(self.unset()),
        }
    }

    /// The full key and the request that stores `value` there.
    pub(crate) fn assignment(&self, value: &T) -> Result<(Arc<str>, Request)> {
        let key = &self.slots()?[0].key;
        let encoded = Unsealed::encode(value);
        let value =
            encoded.map_err(|error| Error::of_key(ErrorKind::Serialize, key, envelope::describe_refusal(&error)))?;
        Ok((Arc::clone(key), Request::Put { value, ttl: self.shown.spec.ttl }))
    }

    fn core(&self) -> &crate::core::Core {
        self.shown.memory.core()
    }

    fn slots(&self) -> Result<&[Arc<Slot>]> {
        self.shown.slots.as_deref().map_err(Clone::clone)
    }

    fn load(&self) -> Result<()> {
        self.core().load(&self.keys()?)
    }

    /// What the slots show together, under which version.
    fn view(&self) -> Result<(u64, View)> {
        let slots = self.slots()?;
        let shared = self.shown.memory.shared();
        let mono = shared.clock.mono();
        // Versions change under this lock alone: the view is the one of this version.
        let state = shared.state();
        let views = slots.iter().map(|slot| state.view(&slot.key, mono));
        let view = views.into_iter().find(|view| view.stored.is_some()).unwrap_or_default();
        Ok((version(slots), view))
    }

    fn shown(&self) -> Result<Option<Arc<T>>> {
        let slots = self.slots()?;
        let memo = self.shown.memo.load();
        if let Some(memo) = memo.as_ref().filter(|memo| memo.version == version(slots)) {
            let over = memo.expires.is_some_and(|expires| expires <= self.shown.memory.shared().clock.mono());
            if !over {
                return Ok(memo.value.clone());
            }
        }
        let (version, View { stored, expires }) = self.view()?;
        let value = stored.map(|stored| self.decode(&stored)).transpose()?.map(Arc::new);
        self.shown.memo.store(Some(Arc::new(Memo { version, expires, value: value.clone() })));
        Ok(value)
    }

    fn decode(&self, stored: &[u8]) -> Result<T> {
        envelope::decode(stored).map_err(|error| {
            let expected = std::any::type_name::<T>();
            let what = format_args!("what is stored is no `{expected}`: {}", envelope::describe(&error));
            self.error(ErrorKind::Decode, what)
        })
    }

    fn unset(&self) -> Error {
        let shared = self.shown.memory.shared();
        let known = self.slots().is_ok_and(|slots| {
            let state = shared.state();
            slots.iter().all(|slot| state.is_known(&slot.key))
        });
        let expected = std::any::type_name::<T>();
        if known {
            self.error(
                ErrorKind::Unset,
                format_args!("expected a value of type `{expected}`, but nothing is stored, and there is no default"),
            )
        } else {
            let what =
                format_args!("expected a value of type `{expected}`, but nothing is known: {}", shared.unavailable());
            self.error(ErrorKind::Unset, what)
        }
    }

    fn error(&self, kind: ErrorKind, what: impl fmt::Display) -> Error {
        match self.slots() {
            Ok(slots) => Error::of_key(kind, &slots[0].key, what),
            Err(error) => error,
        }
    }
}

/// Versions only rise, and so does their sum: it stands for all of them.
fn version(slots: &[Arc<Slot>]) -> u64 {
    slots.iter().map(|slot| slot.version.load(Ordering::Acquire)).sum()
}

/// A view whatever its type, for reading many in one round trip.
pub trait AnyView {
    #[doc(hidden)]
    fn keys(&self) -> Result<Vec<Arc<str>>>;
}

impl<T: Value> AnyView for Synced<T> {
    fn keys(&self) -> Result<Vec<Arc<str>>> {
        Ok(self.slots()?.iter().map(|slot| Arc::clone(&slot.key)).collect())
    }
}

impl<T> Clone for Synced<T> {
    fn clone(&self) -> Self {
        Self { shown: Arc::clone(&self.shown) }
    }
}

impl<T> fmt::Debug for Synced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.shown.slots.as_ref().map(|slots| &slots[0].key);
        f.debug_struct("Synced").field("key", &key).finish_non_exhaustive()
    }
}
