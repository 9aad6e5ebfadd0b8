//! `Synced<T>`: a live view of a value, or of a part of it.

mod lookup;
mod map;
mod number;
mod set;
mod update;
mod value;
mod vec;

pub use number::{Integer, Number};

pub use value::ValueIndex;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::{ReadPolicy, WritePolicy};
use crate::base::waiting::block_on;
use crate::client::state::{KeyView, Request};
use crate::handle::key::{Key, Spec};
use crate::handle::memory::Memory;
use crate::handle::path::{How, PartChange, Policies, ValuePath, seen};
use crate::handle::reader::SlotsView;
use crate::handle::schema::SyncedMemory;
use crate::handle::value::Value;
use crate::pending::outbox::Written;
use crate::value::envelope::{self, Unsealed};
use crate::value::mutation::{Action, Json, Location, MemberName, PathSegment};
use crate::value::shape::Members;

/// A live view of the value under a key, or of a part of it. Clone it, keep it, send it to a
/// thread: it never goes stale, and never loses a write.
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
#[doc = include_str!("../../../collections.md")]
pub struct Synced<T> {
    inner: Arc<ViewInner<T>>,
}

struct ViewInner<T> {
    part: ValuePath,
    default: Option<fn() -> T>,
    /// Of what is not known the default says nothing.
    is_implied: bool,
    /// It is merged by field, and may have some of these members only.
    nested: Option<Members>,
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
    /// The backend has answered for it, or this process has assigned it.
    is_known: bool,
}

impl Memory {
    /// A live view of the value under `key`.
    pub fn synced<T: Value>(&self, key: &Key<T>) -> Synced<T> {
        let spec = key.spec();
        let names = std::iter::once(key.name()).chain(spec.aliases.iter().copied());
        let slots = names.map(|name| self.slot(name)).collect();
        let near = spec.near || self.shared().settings.read_policy == ReadPolicy::Near;
        let how = Policies {
            ttl: spec.ttl,
            near,
            write: spec.write.unwrap_or(self.shared().settings.write_policy),
        };
        let has_default = spec.default.is_some() && !spec.is_implied;
        Synced::with_spec(
            ValuePath::root(self, slots, (move || spec.origin(), has_default), how),
            spec,
        )
    }
}

impl<T: Value> Spec<T> {
    /// What an unset value is taken for.
    fn origin(&self) -> Option<Json> {
        match self.default {
            Some(default) => Json::encode(&default()).ok(),
            None if self.is_optional => None,
            None => self.nested.and_then(|_| Json::parse("{}".to_owned()).ok()),
        }
    }
}

impl ValuePath {
    /// The member that `key` names, as serde writes it.
    pub(crate) fn member<T: Value>(&self, key: &Key<T>) -> Synced<T> {
        let spec = key.spec();
        let member = MemberName {
            origin: spec.origin(),
            ..MemberName::aliased(key.name(), spec.aliases)
        };
        Synced::with_spec(self.at(PathSegment::Member(member)), spec)
    }
}

impl<T> Synced<T> {
    /// The same value, whose calls return facts: a write returns what has come of it, and a read
    /// what the backend has when it is asked, with nothing on top. See
    /// [`WritePolicy::Confirmed`](crate::WritePolicy::Confirmed).
    ///
    /// ```
    /// use synced_memory::{Key, Memory};
    /// use std::collections::HashSet;
    ///
    /// let memory = Memory::open("memory:")?;
    /// let claims = memory.synced(&Key::<HashSet<u64>>::new("claims"));
    /// if claims.confirmed().insert(17)? {
    ///     // Nobody else was told `true` for 17: it is ours.
    /// }
    /// # Ok::<(), synced_memory::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The calls of the view: also `Unavailable` where the backend does not answer within `timeout`
    /// (it was not made, and never will be), and `InDoubt` where it was made once, or never.
    #[must_use]
    pub fn confirmed(&self) -> Self {
        let ViewInner {
            default,
            nested,
            is_implied,
            ..
        } = *self.inner;
        Self::with_spec(
            self.part().confirmed(),
            Spec {
                default,
                nested,
                is_implied,
                ..Spec::new()
            },
        )
    }

    /// A part that has no default.
    fn of(part: ValuePath) -> Self {
        Self::with_spec(part, Spec::new())
    }

    fn with_spec(part: ValuePath, spec: Spec<T>) -> Self {
        let Spec {
            default,
            is_implied,
            nested,
            ..
        } = spec;
        Self {
            inner: Arc::new(ViewInner {
                part,
                default,
                is_implied,
                nested,
                memo: ArcSwapOption::empty(),
            }),
        }
    }

    pub(crate) fn part(&self) -> &ValuePath {
        &self.inner.part
    }

    /// Whether it may have some of its members only.
    pub(crate) fn is_nested(&self) -> bool {
        self.inner.nested.is_some()
    }
}

impl<T: Value> Synced<T> {
    /// The value. An unset one reads as its default.
    ///
    /// # Errors
    ///
    /// `Unset` where nothing is stored and there is no default, `Unavailable` where the backend is
    /// away and nothing is known of the key (an explicit `default` is read then), `Decode` where
    /// something else than a `T` is stored, `Rejected` where the server refuses this key.
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
        if self.part().is_confirmed() {
            return self
                .memo_or(&*self.memo_now().await?, None)
                .map(Arc::unwrap_or_clone);
        }
        self.part().load_async().await?;
        self.cached_or_default().map(Arc::unwrap_or_clone)
    }

    /// The value, or `None` where nothing is stored, whatever the default.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Decode` and `Rejected`, as [`get`](Synced::get).
    pub fn find(&self) -> Result<Option<T>> {
        Ok(self.found()?.map(Arc::unwrap_or_clone))
    }

    /// What is there by what a read of it says.
    fn current(&self) -> Result<Arc<Memo<T>>> {
        if self.part().is_confirmed() {
            return block_on(self.memo_now());
        }
        self.part().load()?;
        self.memo()
    }

    /// What the backend has now, with nothing on top.
    async fn memo_now(&self) -> Result<Arc<Memo<T>>> {
        self.memo_of(&self.part().view_now().await?)
    }

    /// What the backend has answered.
    fn memo_of(&self, view: &KeyView) -> Result<Arc<Memo<T>>> {
        let (value, exists) = self.decoded(view)?;
        let value = value.map(Arc::new);
        Ok(Arc::new(Memo {
            version: 0,
            is_local: false,
            expires: None,
            value,
            exists,
            is_known: true,
        }))
    }

    /// The value in what the backend has answered, or the default.
    pub(crate) fn value_in(&self, view: &KeyView) -> Result<Arc<T>> {
        self.memo_or(&*self.memo_of(view)?, None)
    }

    fn found(&self) -> Result<Option<Arc<T>>> {
        let memo = self.current()?;
        match memo.value.clone().filter(|_| memo.exists) {
            None if !memo.is_known => Err(self.part().unknown()),
            found => Ok(found),
        }
    }

    /// The default that somebody has asked for: what is not known is taken for it too.
    fn explicit_default(&self) -> Option<fn() -> T> {
        self.inner.default.filter(|_| !self.inner.is_implied)
    }

    /// The value; where nothing is stored, its default.
    pub(crate) fn find_or_default(&self) -> Result<Option<T>> {
        match (self.found(), self.explicit_default()) {
            (Err(error), Some(default)) if error.kind() == ErrorKind::Unavailable => {
                Ok(Some(default()))
            }
            (found, _) => {
                let default = || self.inner.default.map(|default| default());
                Ok(found?.map(Arc::unwrap_or_clone).or_else(default))
            }
        }
    }

    /// The value, shared and not cloned.
    ///
    /// # Errors
    ///
    /// As [`get`](Synced::get).
    pub fn read(&self) -> Result<Arc<T>> {
        self.memo_or(&*self.current()?, None)
    }

    /// What `look` makes of the value, which is not cloned for it.
    ///
    /// # Errors
    ///
    /// As [`get`](Synced::get).
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> Result<R> {
        self.read().map(|value| look(&value))
    }

    /// How old what a near read shows may be: zero while the backend keeps it current, the time
    /// since then while it is away; `None` for what is not read near, or was not yet.
    pub fn staleness(&self) -> Option<Duration> {
        self.part()
            .source()
            .staleness()
            .filter(|_| self.part().is_near())
    }

    /// What `take` makes of the value, where nobody has to be asked and nothing be decoded.
    fn local<R>(&self, take: impl FnOnce(&T) -> R) -> Option<R> {
        let memo = self.inner.memo.load();
        let memo = memo
            .as_ref()
            .filter(|memo| memo.is_local && self.is_of_now(memo))?;
        memo.value.as_deref().map(take)
    }

    fn is_of_now(&self, memo: &Memo<T>) -> bool {
        let shared = self.part().memory().shared();
        self.part()
            .version()
            .is_ok_and(|version| version == memo.version)
            && memo
                .expires
                .is_none_or(|expires| expires > shared.clock.mono())
    }

    /// Stores a value, whatever is there.
    ///
    /// # Errors
    ///
    /// `Serialize` for a value that JSON cannot hold, `OutboxFull`, `Rejected` where the server
    /// refuses; of a part, `Unset` where what it is a part of is missing. After an error nothing is
    /// changed.
    pub fn set(&self, value: T) -> Result<Written> {
        block_on(self.set_async(value))
    }

    /// As [`set`](Synced::set), in async code: it runs on any executor. To drop the future does not
    /// take back a write that was queued.
    ///
    /// # Errors
    ///
    /// As [`set`](Synced::set).
    pub async fn set_async(&self, value: T) -> Result<Written> {
        if self.part().is_root() {
            let (key, request) = self.assignment(&value)?;
            return Ok(self
                .part()
                .core()
                .write(&key, request, self.part().write_policy())
                .await?
                .written);
        }
        let value = self.part().encode(&value)?;
        let set = |spot: &Location<'_>| Action::Set {
            value: value.clone(),
            seen: seen(spot),
        };
        self.part().act_async(How::Blind, None, set).await
    }

    /// Removes what is stored under the key and its older names, or the part; whether there was
    /// anything.
    ///
    /// # Errors
    ///
    /// `OutboxFull`, `Rejected` where the server refuses. After an error nothing is changed.
    pub fn delete(&self) -> Result<bool> {
        if !self.part().is_root() {
            let remove = |spot: &Location<'_>| match seen(spot) {
                _ if !spot.exists => Ok((PartChange::Nothing, false)),
                seen => Ok((PartChange::one(Action::Remove { seen }), true)),
            };
            return match self.part().record(How::Exact, None, remove) {
                Ok((existed, _)) => Ok(existed),
                Err(error) if error.kind() == ErrorKind::Unset => Ok(false),
                Err(error) => Err(error),
            };
        }
        if self.part().write_policy() == WritePolicy::Confirmed {
            return block_on(self.part().delete_now());
        }
        // The older names first: the key must not fall back to them in between.
        let deletes = self
            .part()
            .keys()?
            .into_iter()
            .rev()
            .map(|key| (key, Request::Delete))
            .collect();
        let answers = block_on(
            self.part()
                .core()
                .write_together(deletes, self.part().write_policy()),
        )?;
        Ok(answers.iter().any(|answer| answer.existed))
    }

    /// When the value, with all its parts, was last written, in ns since 1970; zero where that is
    /// not known, `None` where nothing is stored.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the backend is away and nothing is known of the key, `Rejected` where
    /// the server refuses it.
    pub fn last_modified(&self) -> Result<Option<u64>> {
        let (view, is_known) = if self.part().is_confirmed() {
            (block_on(self.part().view_now())?, true)
        } else {
            self.part().load()?;
            let SlotsView { view, is_known, .. } = self.part().visible()?;
            (view, is_known)
        };
        match view.stored {
            None if !is_known => Err(self.part().unknown()),
            stored => Ok(stored.map(|stored| envelope::stamp_of(&stored).get())),
        }
    }

    pub(crate) fn is_set(&self) -> Result<bool> {
        Ok(self.last_modified()?.is_some())
    }

    /// The value that the last answers show, or the default.
    pub(crate) fn cached_or_default(&self) -> Result<Arc<T>> {
        self.memo_or(&*self.memo()?, None)
    }

    /// The value; where nothing is there, its default, or what a value of this type is without one.
    fn read_or(&self, empty: fn() -> T) -> Result<Arc<T>> {
        self.memo_or(&*self.current()?, Some(empty))
    }

    fn memo_or(&self, memo: &Memo<T>, empty: Option<fn() -> T>) -> Result<Arc<T>> {
        let explicit = self.explicit_default();
        match (&memo.value, explicit, self.inner.default.or(empty)) {
            // What is only taken to be there is an implied default.
            (Some(value), _, _)
                if memo.is_known
                    || memo.exists
                    || explicit.is_some()
                    || self.part().has_default() =>
            {
                Ok(Arc::clone(value))
            }
            (None, Some(default), _) => Ok(Arc::new(default())),
            _ if !memo.is_known => Err(self.part().unknown()),
            (None, None, Some(default)) => Ok(Arc::new(default())),
            (None | Some(_), None | Some(_), _) => Err(self.unset()),
        }
    }

    /// The full key and the request that stores `value` there.
    fn assignment(&self, value: &T) -> Result<(Arc<str>, Request)> {
        let encoded = Unsealed::encode(value);
        let value = encoded.map_err(|error| {
            self.part()
                .error(ErrorKind::Serialize, envelope::describe_refusal(&error))
        })?;
        Ok((
            Arc::clone(self.part().key()?),
            Request::Put {
                value,
                ttl: self.part().ttl(),
            },
        ))
    }

    /// The request that stores `value`, for many at a time.
    pub(crate) fn request(&self, value: &T) -> Result<(Arc<str>, Request)> {
        if self.part().is_root() {
            self.assignment(value)
        } else {
            self.part().assignment(self.part().encode(value)?)
        }
    }

    fn memo(&self) -> Result<Arc<Memo<T>>> {
        let part = self.part();
        if let Some(memo) = &*self.inner.memo.load()
            && self.is_of_now(memo)
        {
            return Ok(Arc::clone(memo));
        }
        let SlotsView {
            version,
            is_local,
            is_known,
            view,
            ..
        } = part.visible()?;
        let is_unknown = !is_known && !part.has_default() && view.stored.is_none();
        let (value, exists) = if is_unknown {
            (None, false)
        } else {
            self.decoded(&view)?
        };
        let memo = Arc::new(Memo {
            version,
            is_local,
            expires: view.expires,
            value: value.map(Arc::new),
            exists,
            is_known,
        });
        self.inner.memo.store(Some(Arc::clone(&memo)));
        Ok(memo)
    }

    /// The value in this, and whether it is there and not only taken to be there.
    fn decoded(&self, view: &KeyView) -> Result<(Option<T>, bool)> {
        let part = self.part();
        match &view.stored {
            stored if part.is_root() => {
                let decode = |stored: &Bytes| {
                    envelope::decode(stored).map_err(|error| {
                        self.undecoded(&error, envelope::value_of(stored).as_str())
                    })
                };
                Ok((stored.as_ref().map(decode).transpose()?, stored.is_some()))
            }
            _ => part.look_at(view, |found, exists| {
                let decode = |text| self.decode(text);
                Ok((found.map(decode).transpose()?, exists))
            }),
        }
    }

    fn decode(&self, text: &str) -> Result<T> {
        self.part().source().decode(text, self.is_nested())
    }

    fn undecoded(&self, error: &serde_json::Error, text: &str) -> Error {
        self.part()
            .source()
            .undecoded::<T>(error, text, self.is_nested())
    }

    fn unset(&self) -> Error {
        let expected = std::any::type_name::<T>();
        let what = format!(
            "expected a value of type `{expected}`, but nothing is stored, and there is no default"
        );
        self.part().error(ErrorKind::Unset, what)
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
    fn as_part(&self) -> &ValuePath;
}

impl<T: Value> AnyView for Synced<T> {
    fn keys(&self) -> Result<Vec<Arc<str>>> {
        if self.part().is_local() {
            Ok(Vec::new())
        } else {
            self.part().keys()
        }
    }

    fn as_part(&self) -> &ValuePath {
        self.part()
    }
}

impl<T> Clone for Synced<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<T> fmt::Debug for Synced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Synced")
            .field("part", self.part())
            .finish_non_exhaustive()
    }
}
