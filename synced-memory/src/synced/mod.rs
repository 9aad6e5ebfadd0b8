//! `Synced<T>`: a live view of a value, or of a part of it.

mod map;
mod number;
mod set;
mod update;
mod value;
mod vec;

pub use number::{Integer, Number};

pub use value::ValueIndex;

use crate::envelope::{self, Unsealed};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Spec};
use crate::memory::Memory;
use crate::mutation::{Action, Json, Member, Place, Spot};
use crate::outbox::Written;
use crate::part::{Change, How, Part, Policies, seen};
use crate::policy::{ReadPolicy, WritePolicy};
use crate::schema::SyncedMemory;
use crate::source::Shown;
use crate::state::Request;
use crate::value::Value;
use crate::wait::block_on;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A live view of the value under a key, or of a part of it. Clone it, keep it, send it to a thread: it never
/// goes stale, and never loses a write.
///
/// ```
/// use synced_memory::{Key, Memory};
///
/// let memory = Memory::open("memory:")?;
/// let theme = memory.synced(&Key::<String>::new("theme"));
/// theme.set("dark".to_string())?;
/// assert_eq!(theme.with(|theme| theme.len())?, 4);
///
/// let history = memory.synced(&Key::<Vec<String>>::new("history"));
/// history.push("hello".to_string())?;
/// history.at(0).update(|first| first.push('!'))?;
/// assert_eq!(history.to_vec()?, ["hello!"]);
/// # Ok::<(), synced_memory::Error>(())
/// ```
///
/// # Changing a part
///
#[doc = include_str!("../../collections.md")]
pub struct Synced<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    part: Part,
    default: Option<fn() -> T>,
    /// It may have some of its members only.
    nested: bool,
    memo: ArcSwapOption<Memo<T>>,
}

/// What was shown, decoded once for each change.
struct Memo<T> {
    version: u64,
    /// Nobody has to be asked for it while it is of this version.
    is_local: bool,
    expires: Option<Duration>,
    value: Option<Arc<T>>,
    /// It is there, and not only taken to be there.
    exists: bool,
}

impl Memory {
    /// A live view of the value under `key`.
    pub fn synced<T: Value>(&self, key: &Key<T>) -> Synced<T> {
        let spec = key.spec();
        let names = std::iter::once(key.name()).chain(spec.aliases.iter().copied());
        let slots = names.map(|name| self.slot(name)).collect();
        let near = spec.near || self.shared().settings.read_policy == ReadPolicy::Near;
        let behind = spec.behind || self.shared().settings.write_policy == WritePolicy::Behind;
        let how =
            Policies { ttl: spec.ttl, near, write: if behind { WritePolicy::Behind } else { WritePolicy::Through } };
        Synced::with_spec(Part::root(self, slots, move || spec.origin(), how), spec)
    }
}

impl<T: Value> Spec<T> {
    /// What an unset value is taken for.
    fn origin(&self) -> Option<Json> {
        match self.default {
            Some(default) => Json::encode(&default()).ok(),
            None => self.nested.then(|| Json::parse("{}".to_owned()).ok()).flatten(),
        }
    }
}

impl Part {
    /// The member that `key` names, as serde writes it.
    pub(crate) fn member<T: Value>(&self, key: &Key<T>) -> Synced<T> {
        let spec = key.spec();
        let also = spec.aliases.iter().map(|alias| Box::from(*alias)).collect();
        let member = Member { name: key.name().into(), also, origin: spec.origin() };
        Synced::with_spec(self.at(Place::Member(member)), spec)
    }
}

impl<T> Synced<T> {
    /// A part that has no default.
    fn of(part: Part) -> Self {
        Self::with_spec(part, Spec::new())
    }

    fn with_spec(part: Part, spec: Spec<T>) -> Self {
        let Spec { default, nested, .. } = spec;
        Self { inner: Arc::new(Inner { part, default, nested, memo: ArcSwapOption::empty() }) }
    }

    pub(crate) fn part(&self) -> &Part {
        &self.inner.part
    }

    /// Whether it may have some of its members only.
    pub(crate) fn is_nested(&self) -> bool {
        self.inner.nested
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
        match self.local(T::clone) {
            Some(value) => Ok(value),
            None => self.read().map(Arc::unwrap_or_clone),
        }
    }

    /// As [`get`](Synced::get), in async code: it runs on any executor.
    ///
    /// # Errors
    ///
    /// As [`get`](Synced::get).
    pub async fn get_async(&self) -> Result<T> {
        self.part().load_async().await?;
        self.shown_or_default().map(Arc::unwrap_or_clone)
    }

    /// The value, or `None` where nothing is stored, whatever the default.
    ///
    /// # Errors
    ///
    /// `Decode` and `Rejected`, as [`get`](Synced::get).
    pub fn find(&self) -> Result<Option<T>> {
        self.part().load()?;
        let memo = self.shown()?;
        Ok(memo.value.clone().filter(|_| memo.exists).map(Arc::unwrap_or_clone))
    }

    /// The value, shared and not cloned.
    ///
    /// # Errors
    ///
    /// As [`get`](Synced::get).
    pub fn read(&self) -> Result<Arc<T>> {
        self.part().load()?;
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

    /// How old what a near read shows may be: zero while the backend keeps it current, the time since then while it
    /// is away; `None` for what is not read near, or was not yet.
    pub fn staleness(&self) -> Option<Duration> {
        self.part().source().staleness().filter(|_| self.part().is_near())
    }

    /// What `take` makes of the value, where nobody has to be asked and nothing be decoded.
    fn local<R>(&self, take: impl FnOnce(&T) -> R) -> Option<R> {
        let memo = self.inner.memo.load();
        let memo = memo.as_ref().filter(|memo| memo.is_local && self.is_of_now(memo))?;
        memo.value.as_deref().map(take)
    }

    fn is_of_now(&self, memo: &Memo<T>) -> bool {
        let shared = self.part().memory().shared();
        self.part().version().is_ok_and(|version| version == memo.version)
            && memo.expires.is_none_or(|expires| expires > shared.clock.mono())
    }

    /// Stores a value, whatever is there.
    ///
    /// # Errors
    ///
    /// `Serialize` for a value that JSON cannot hold, `OutboxFull`, `Rejected` where the server
    /// refuses; of a part, `Unset` where what it is a part of is missing. After an error nothing is changed.
    pub fn set(&self, value: T) -> Result<Written> {
        block_on(self.set_async(value))
    }

    /// As [`set`](Synced::set), in async code: it runs on any executor. To drop the future does not take back a
    /// write that was queued.
    ///
    /// # Errors
    ///
    /// As [`set`](Synced::set).
    pub async fn set_async(&self, value: T) -> Result<Written> {
        if self.part().is_root() {
            let (key, request) = self.assignment(&value)?;
            return Ok(self.part().core().write(&key, request, self.part().write_policy()).await?.written);
        }
        let value = self.part().encode(&value)?;
        let set = |spot: &Spot<'_>| Action::Set { value: value.clone(), seen: seen(spot) };
        self.part().act_async(How::Blind, None, set).await
    }

    /// Removes what is stored under the key and its older names, or the part; whether there was anything.
    ///
    /// # Errors
    ///
    /// `OutboxFull`, `Rejected` where the server refuses. After an error nothing is changed.
    pub fn delete(&self) -> Result<bool> {
        if !self.part().is_root() {
            let remove = |spot: &Spot<'_>| match seen(spot) {
                _ if !spot.exists => Ok((Change::Nothing, false)),
                seen => Ok((Change::one(Action::Remove { seen }), true)),
            };
            return match self.part().record(How::Exact, None, remove) {
                Ok((existed, _)) => Ok(existed),
                Err(error) if error.kind() == ErrorKind::Unset => Ok(false),
                Err(error) => Err(error),
            };
        }
        // The older names first: the key must not fall back to them in between.
        let deletes = self.part().keys()?.into_iter().rev().map(|key| (key, Request::Delete)).collect();
        let answers: Vec<_> = block_on(self.part().core().write_all(deletes, self.part().write_policy()))?
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(answers.iter().any(|answer| answer.existed))
    }

    /// When the value, with all its parts, was last written, in ns since 1970; zero where that is not known,
    /// `None` where nothing is stored.
    ///
    /// # Errors
    ///
    /// `Rejected` where the server refuses this key.
    pub fn last_modified(&self) -> Result<Option<u64>> {
        self.part().load()?;
        Ok(self.part().shown()?.view.stored.map(|stored| envelope::stamp_of(&stored).get()))
    }

    pub(crate) fn is_set(&self) -> Result<bool> {
        self.part().load()?;
        let set = self.part().shown()?.view.stored.is_some();
        if set || self.part().is_known() { Ok(set) } else { Err(self.part().memory().shared().unavailable()) }
    }

    /// The value that the last answers show, or the default.
    pub(crate) fn shown_or_default(&self) -> Result<Arc<T>> {
        self.shown_or(self.inner.default)
    }

    /// The value; where nothing is there, its default, or what a value of this type is without one.
    fn read_or(&self, empty: fn() -> T) -> Result<Arc<T>> {
        self.part().load()?;
        self.shown_or(self.inner.default.or(Some(empty)))
    }

    fn shown_or(&self, default: Option<fn() -> T>) -> Result<Arc<T>> {
        if let Some(value) = &self.shown()?.value {
            return Ok(Arc::clone(value));
        }
        default.map(|default| Arc::new(default())).ok_or_else(|| self.unset())
    }

    /// The full key and the request that stores `value` there.
    fn assignment(&self, value: &T) -> Result<(Arc<str>, Request)> {
        let encoded = Unsealed::encode(value);
        let value =
            encoded.map_err(|error| self.part().error(ErrorKind::Serialize, envelope::describe_refusal(&error)))?;
        Ok((Arc::clone(self.part().key()?), Request::Put { value, ttl: self.part().ttl() }))
    }

    /// The request that stores `value`, for many at a time.
    pub(crate) fn request(&self, value: &T) -> Result<(Arc<str>, Request)> {
        if self.part().is_root() { self.assignment(value) } else { self.part().assignment(self.part().encode(value)?) }
    }

    fn shown(&self) -> Result<Arc<Memo<T>>> {
        let part = self.part();
        if let Some(memo) = &*self.inner.memo.load()
            && self.is_of_now(memo)
        {
            return Ok(Arc::clone(memo));
        }
        let Shown { version, is_local, view, .. } = part.shown()?;
        let (value, exists) = match &view.stored {
            stored if part.is_root() => {
                let decode = |stored: &Bytes| {
                    envelope::decode(stored)
                        .map_err(|error| self.undecoded(&error, envelope::value_of(stored).as_str()))
                };
                (stored.as_ref().map(decode).transpose()?, stored.is_some())
            }
            _ => part.look_at(&view, |found, exists| {
                let decode = |text| self.decode(text);
                Ok((found.map(decode).transpose()?, exists))
            })?,
        };
        let memo = Arc::new(Memo { version, is_local, expires: view.expires, value: value.map(Arc::new), exists });
        self.inner.memo.store(Some(Arc::clone(&memo)));
        Ok(memo)
    }

    fn decode(&self, text: &str) -> Result<T> {
        self.part().source().decode(text, self.inner.nested)
    }

    fn undecoded(&self, error: &serde_json::Error, text: &str) -> Error {
        self.part().source().undecoded::<T>(error, text, self.inner.nested)
    }

    fn unset(&self) -> Error {
        let expected = std::any::type_name::<T>();
        if self.part().is_known() {
            let what = format!("expected a value of type `{expected}`, but nothing is stored, and there is no default");
            self.part().error(ErrorKind::Unset, what)
        } else {
            let cause = self.part().memory().shared().unavailable();
            let what = format!("expected a value of type `{expected}`, but nothing is known: {cause}");
            self.part().error(ErrorKind::Unset, what)
        }
    }
}

impl<T: SyncedMemory> Synced<T> {
    /// The handle of the struct that is stored here: each of its fields is a part of the value.
    pub fn fields(&self) -> T::Handle {
        T::inside(self.part())
    }
}

/// A view whatever its type, for reading many in one round trip.
pub trait AnyView {
    #[doc(hidden)]
    /// Those of which the backend has to be asked.
    fn keys(&self) -> Result<Vec<Arc<str>>>;
    #[doc(hidden)]
    fn as_part(&self) -> &Part;
}

impl<T: Value> AnyView for Synced<T> {
    fn keys(&self) -> Result<Vec<Arc<str>>> {
        if self.part().is_local() { Ok(Vec::new()) } else { self.part().keys() }
    }

    fn as_part(&self) -> &Part {
        self.part()
    }
}

impl<T> Clone for Synced<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> fmt::Debug for Synced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Synced").field("part", self.part()).finish_non_exhaustive()
    }
}
