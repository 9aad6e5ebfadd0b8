//! `Synced<T>`: a live view of a value, or of a part of it.

mod followed;
mod lookup;
mod map;
mod number;
mod set;
mod update;
mod value;
mod vec;
mod whole;

pub use number::{Integer, Number};

pub use value::ValueIndex;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use self::whole::{PartReads, WholeView};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::{ReadPolicy, WritePolicy};
use crate::base::type_name::type_name;
use crate::base::waiting::block_on;
use crate::client::state::{KeyView, Request};
use crate::handle::follow::Follow;
use crate::handle::key::{DefaultValue, Key, Spec};
use crate::handle::memory::Memory;
use crate::handle::path::{Condition, Freshness, PathChange, Policies, ValuePath, seen};
use crate::handle::reader::SlotsView;
use crate::handle::schema::SyncedMemory;
use crate::handle::value::Value;
use crate::pending::outbox::Written;
use crate::value::document::Document;
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
    path: ValuePath,
    default: DefaultValue<T>,
    /// It is a struct that is merged by field, and may have only some of these members.
    nested: Option<Members>,
    /// What it is a part of, if that may be decoded.
    whole: Option<Box<dyn WholeView<T>>>,
    memo: ArcSwapOption<Memo<T>>,
    part_reads: PartReads,
    /// How decoded values follow what is stored, once that is known.
    follow: OnceLock<Follow<T>>,
    /// A thread has taken the memo to bring it up to date.
    is_taken: AtomicBool,
}

/// What a read shows, decoded once for each change.
struct Memo<T> {
    state: MemoState,
    value: Option<Arc<T>>,
    /// The value is stored, and not only a default of what it is a part of.
    exists: bool,
    /// Whether a part of what is stored decodes if the whole does; unset until a part is read.
    has_same_parts: OnceLock<bool>,
    /// What it was decoded from, if it can follow changes.
    document: Option<Document>,
}

/// Until when a value is what a read shows.
#[derive(Debug, Clone, Copy)]
struct MemoState {
    version: u64,
    /// While it is of this version, the backend need not be asked.
    is_local: bool,
    expires: Option<Monotonic>,
    /// The backend has answered for it, or this process has assigned it.
    is_known: bool,
}

impl MemoState {
    fn of(slots: &SlotsView) -> Self {
        Self {
            version: slots.version,
            is_local: slots.is_local,
            expires: slots.view.expires,
            is_known: slots.is_known,
        }
    }
}

impl<T> Memo<T> {
    fn new(state: MemoState, value: Option<T>, exists: bool) -> Self {
        Self {
            state,
            value: value.map(Arc::new),
            exists,
            has_same_parts: OnceLock::new(),
            document: None,
        }
    }

    /// Whether it is stored, and what the slots show.
    fn is_shown_by(&self, slots: &SlotsView) -> bool {
        // With older names another one may be shown once the first has expired, at one version.
        self.exists
            && self.state.version == slots.version
            && self.state.expires == slots.view.expires
    }

    /// Whether it is what the slots show, and what its parts say is what their texts say.
    fn is_of(&self, slots: &SlotsView) -> bool {
        self.is_shown_by(slots)
            && *self.has_same_parts.get_or_init(|| {
                // What the type skips may be no text, and then the text of the whole is none.
                let stored = slots.view.stored.as_ref();
                stored.is_some_and(Document::is_utf8)
            })
    }
}

impl Memory {
    /// A live view of the value under `key`.
    pub fn synced<T: Value>(&self, key: &Key<T>) -> Synced<T> {
        let spec = key.spec();
        let names = std::iter::once(key.name()).chain(spec.aliases.iter().copied());
        let slots = names.map(|name| self.slot(name)).collect();
        let near = spec.near || self.shared().settings.read_policy == ReadPolicy::Near;
        let policies = Policies {
            ttl: spec.ttl,
            near,
            write: spec.write.unwrap_or(self.shared().settings.write_policy),
        };
        let has_default = spec.default.explicit().is_some();
        Synced::with_spec(
            ValuePath::root(self, slots, (move || spec.origin(), has_default), policies),
            spec,
        )
    }
}

impl<T: Value> Spec<T> {
    /// What a change of an unset value starts from.
    fn origin(&self) -> Option<Json> {
        match self.default.of_unset() {
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
    /// The same value, with calls that return facts: a write waits until it was made, and a read
    /// returns what the backend has then, without queued writes of this process on top. See
    /// [`WritePolicy::Confirmed`](crate::WritePolicy::Confirmed).
    ///
    /// ```
    /// use synced_memory::{Key, Memory};
    /// use std::collections::HashSet;
    ///
    /// let memory = Memory::open("memory:")?;
    /// let claims = memory.synced(&Key::<HashSet<u64>>::new("claims"));
    /// if claims.confirmed().insert(17)? {
    ///     // Nobody else got `true` for 17: it is ours.
    /// }
    /// # Ok::<(), synced_memory::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The calls of the view also return `Unavailable` if the backend does not answer within
    /// `timeout` (the call was not made, and never will be), and `InDoubt` if the call was made
    /// once, or never.
    #[must_use]
    pub fn confirmed(&self) -> Self {
        let ViewInner {
            default, nested, ..
        } = *self.inner;
        Self::with_spec(
            self.path().confirmed(),
            Spec {
                default,
                nested,
                ..Spec::new()
            },
        )
    }

    /// The view of a part that has no default.
    fn of(path: ValuePath) -> Self {
        Self::with_spec(path, Spec::new())
    }

    fn with_spec(path: ValuePath, spec: Spec<T>) -> Self {
        Self::with_whole(path, spec, None)
    }

    fn with_whole(path: ValuePath, spec: Spec<T>, whole: Option<Box<dyn WholeView<T>>>) -> Self {
        let Spec {
            default,
            nested,
            follow,
            ..
        } = spec;
        Self {
            inner: Arc::new(ViewInner {
                path,
                default,
                nested,
                whole,
                memo: ArcSwapOption::empty(),
                part_reads: PartReads::new(),
                follow: follow.map_or_else(OnceLock::new, OnceLock::from),
                is_taken: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn path(&self) -> &ValuePath {
        &self.inner.path
    }

    /// Whether it may have only some of its members.
    pub(crate) fn is_nested(&self) -> bool {
        self.inner.nested.is_some()
    }
}

impl<T: Value> Synced<T> {
    /// The value. An unset one reads as its default.
    ///
    /// # Errors
    ///
    /// `Unset` if nothing is stored and there is no default; `Unavailable` if the backend is away
    /// and nothing is known of the key (an explicit `default` is returned instead); `Decode` if
    /// something other than a `T` is stored; `Rejected` if the server refuses this key.
    pub fn get(&self) -> Result<T> {
        if let Some(value) = self.local(T::clone) {
            return Ok(value);
        }
        let part = self.local_part().and_then(|memo| memo.value.clone());
        part.map_or_else(|| self.read(), Ok)
            .map(Arc::unwrap_or_clone)
    }

    /// As [`get`](Synced::get), in async code: it runs on any executor.
    ///
    /// # Errors
    ///
    /// As [`get`](Synced::get).
    pub async fn get_async(&self) -> Result<T> {
        if self.path().is_confirmed() {
            return self
                .memo_or(&*self.memo_now().await?, None)
                .map(Arc::unwrap_or_clone);
        }
        self.path().load_async().await?;
        self.cached_or_default().map(Arc::unwrap_or_clone)
    }

    /// The value, or `None` if nothing is stored, whatever the default.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Decode` and `Rejected`, as [`get`](Synced::get).
    pub fn find(&self) -> Result<Option<T>> {
        Ok(self.stored()?.map(Arc::unwrap_or_clone))
    }

    /// What a read shows, after asking the backend if that is needed.
    fn current(&self) -> Result<Arc<Memo<T>>> {
        if self.path().is_confirmed() {
            return block_on(self.memo_now());
        }
        self.path().load()?;
        self.memo()
    }

    /// What the backend has now, without queued writes on top.
    async fn memo_now(&self) -> Result<Arc<Memo<T>>> {
        self.memo_of(&self.path().view_now().await?)
    }

    /// What the backend has answered.
    fn memo_of(&self, view: &KeyView) -> Result<Arc<Memo<T>>> {
        let (value, exists) = self.decoded(view)?;
        let state = MemoState {
            version: 0,
            is_local: false,
            expires: None,
            is_known: true,
        };
        Ok(Arc::new(Memo::new(state, value, exists)))
    }

    /// The value in what the backend has answered, or the default.
    pub(crate) fn value_in(&self, view: &KeyView) -> Result<Arc<T>> {
        self.memo_or(&*self.memo_of(view)?, None)
    }

    fn stored(&self) -> Result<Option<Arc<T>>> {
        let memo = self.current()?;
        match memo.value.clone().filter(|_| memo.exists) {
            None if !memo.state.is_known => Err(self.path().unknown()),
            stored => Ok(stored),
        }
    }

    /// The value, or its default if nothing is stored.
    pub(crate) fn find_or_default(&self) -> Result<Option<T>> {
        let default = self.inner.default;
        match (self.stored(), default.explicit()) {
            (Err(error), Some(explicit)) if error.kind() == ErrorKind::Unavailable => {
                Ok(Some(explicit()))
            }
            (stored, _) => Ok(stored?
                .map(Arc::unwrap_or_clone)
                .or_else(|| default.of_unset().map(|default| default()))),
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

    /// Calls `look` with the value, which is not cloned for it, and returns what it returns.
    ///
    /// If a near value is a part of a collection of which the view has been decoded, it is looked
    /// at in there.
    ///
    /// After a change of a long collection, what has changed is decoded, and put into the value
    /// that was decoded before, unless somebody holds that: then into a clone. The collections are
    /// `Vec`, `VecDeque`, maps and sets of the standard library, and `serde_json::Value`, if the
    /// view is one of a key, and belongs to a field of a struct that derives `SyncedMemory`, or was
    /// read by a method of its collection before, as `len`, or has numbers, strings or JSON as
    /// elements.
    ///
    /// # Errors
    ///
    /// As [`get`](Synced::get).
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> Result<R> {
        self.look_or(None, look)
    }

    /// How old the value of a near read may be: zero while the backend keeps it current, and the
    /// time since then while the backend is away. `None` for a value that is not read near, or was
    /// not yet read.
    pub fn staleness(&self) -> Option<Duration> {
        self.path()
            .reader()
            .staleness()
            .filter(|_| self.path().is_near())
    }

    /// What `look` makes of the value, if neither the backend has to be asked nor the value
    /// decoded.
    fn local<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        let memo = self.inner.memo.load();
        let memo = memo
            .as_ref()
            .filter(|memo| memo.state.is_local && self.is_current(memo))?;
        memo.value.as_deref().map(look)
    }

    fn is_current(&self, memo: &Memo<T>) -> bool {
        let shared = self.path().memory().shared();
        self.path()
            .version()
            .is_ok_and(|version| version == memo.state.version)
            && memo
                .state
                .expires
                .is_none_or(|expires| expires > shared.clock.mono())
    }

    /// Stores a value, whatever is there.
    ///
    /// # Errors
    ///
    /// `Serialize` for a value that JSON cannot hold, `OutboxFull`, `Rejected` if the server
    /// refuses it; for a part of a value, `Unset` if what contains it is missing. After an error
    /// nothing is changed.
    pub fn set(&self, value: T) -> Result<Written> {
        block_on(self.set_async(value))
    }

    /// As [`set`](Synced::set), in async code: it runs on any executor. Dropping the future does
    /// not undo a write that was queued.
    ///
    /// # Errors
    ///
    /// As [`set`](Synced::set).
    pub async fn set_async(&self, value: T) -> Result<Written> {
        if self.path().is_root() {
            let (key, request) = self.assignment(&value)?;
            return Ok(self
                .path()
                .core()
                .write(&key, request, self.path().write_policy())
                .await?
                .written);
        }
        let value = self.path().encode(&value)?;
        let set = |location: &Location<'_>| Action::Set {
            value: value.clone(),
            seen: seen(location),
        };
        self.path().act_async(Freshness::Known, None, set).await
    }

    /// Removes what is stored under the key and its older names, or the part of a value that this
    /// is; returns whether there was anything.
    ///
    /// # Errors
    ///
    /// `OutboxFull`, `Rejected` if the server refuses it. After an error nothing is changed.
    pub fn delete(&self) -> Result<bool> {
        if !self.path().is_root() {
            let remove = |location: &Location<'_>| match seen(location) {
                _ if !location.exists => Ok((PathChange::Nothing, false)),
                seen => Ok((PathChange::one(Action::Remove { seen }), true)),
            };
            return match self
                .path()
                .record(Freshness::Known, Condition::SamePaths, None, remove)
            {
                Ok((existed, _)) => Ok(existed),
                Err(error) if error.kind() == ErrorKind::Unset => Ok(false),
                Err(error) => Err(error),
            };
        }
        if self.path().write_policy() == WritePolicy::Confirmed {
            return block_on(self.path().delete_now());
        }
        // The older names first: the key must not fall back to them in between.
        let deletes = self
            .path()
            .keys()?
            .into_iter()
            .rev()
            .map(|key| (key, Request::Delete))
            .collect();
        let answers = block_on(
            self.path()
                .core()
                .write_together(deletes, self.path().write_policy()),
        )?;
        Ok(answers.iter().any(|answer| answer.existed))
    }

    /// When the value, with all its parts, was last written, in ns since 1970; zero if that is not
    /// known, `None` if nothing is stored.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the backend is away and nothing is known of the key, `Rejected` if the
    /// server refuses it.
    pub fn last_modified(&self) -> Result<Option<u64>> {
        let (view, is_known) = if self.path().is_confirmed() {
            (block_on(self.path().view_now())?, true)
        } else {
            self.path().load()?;
            let SlotsView { view, is_known, .. } = self.path().visible()?;
            (view, is_known)
        };
        match view.stored {
            None if !is_known => Err(self.path().unknown()),
            stored => Ok(stored.map(|stored| stored.stamp().get())),
        }
    }

    pub(crate) fn is_set(&self) -> Result<bool> {
        Ok(self.last_modified()?.is_some())
    }

    /// The value according to the last answers, or the default.
    pub(crate) fn cached_or_default(&self) -> Result<Arc<T>> {
        self.memo_or(&*self.memo()?, None)
    }

    /// The value; if nothing is there, its default, or else `empty`.
    fn read_or(&self, empty: fn() -> T) -> Result<Arc<T>> {
        self.memo_or(&*self.current()?, Some(empty))
    }

    fn memo_or(&self, memo: &Memo<T>, empty: Option<fn() -> T>) -> Result<Arc<T>> {
        let explicit = self.inner.default.explicit();
        // A value that is not stored comes from the default of what it is a part of: while nothing
        // is known, only an explicit one counts.
        let is_said =
            memo.state.is_known || memo.exists || explicit.is_some() || self.path().has_default();
        if let Some(value) = memo.value.as_ref().filter(|_| is_said) {
            return Ok(Arc::clone(value));
        }

        let default = if memo.state.is_known {
            self.inner.default.of_unset().or(empty)
        } else {
            explicit
        };
        match (&memo.value, default) {
            (None, Some(default)) => Ok(Arc::new(default())),
            _ if memo.state.is_known => Err(self.unset()),
            _ => Err(self.path().unknown()),
        }
    }

    /// The full key and the request that stores `value` there.
    fn assignment(&self, value: &T) -> Result<(Arc<str>, Request)> {
        let encoded = Unsealed::encode(value);
        let value = encoded.map_err(|error| {
            self.path()
                .error(ErrorKind::Serialize, envelope::describe_refusal(&error))
        })?;
        self.path().check_is_read_back::<T>(value.json())?;
        Ok((
            Arc::clone(self.path().key()?),
            Request::Put {
                value,
                ttl: self.path().ttl(),
            },
        ))
    }

    /// The request that stores `value`, for many at a time.
    pub(crate) fn request(&self, value: &T) -> Result<(Arc<str>, Request)> {
        if self.path().is_root() {
            self.assignment(value)
        } else {
            self.path().assignment(self.path().encode(value)?)
        }
    }

    fn memo(&self) -> Result<Arc<Memo<T>>> {
        let path = self.path();
        if let Some(memo) = &*self.inner.memo.load()
            && self.is_current(memo)
        {
            return Ok(Arc::clone(memo));
        }
        self.memo_in(&path.visible()?)
    }

    /// What the slots show, which is kept for the next read.
    fn memo_in(&self, slots: &SlotsView) -> Result<Arc<Memo<T>>> {
        if let Some(memo) = self.followed(slots) {
            return Ok(memo);
        }
        let is_set = slots.view.stored.is_some();
        let is_unknown = !slots.is_known && !self.path().has_default() && !is_set;
        let (value, exists) = if is_unknown {
            (None, false)
        } else if let Some(part) = is_set.then(|| self.part_in(slots)).flatten() {
            part
        } else {
            self.decoded(&slots.view)?
        };
        let mut memo = Memo::new(MemoState::of(slots), value, exists);
        memo.document = self
            .can_follow()
            .then(|| slots.view.stored.clone())
            .flatten();
        let memo = Arc::new(memo);
        self.inner.memo.store(Some(Arc::clone(&memo)));
        Ok(memo)
    }

    /// The value in `view`, and whether it is stored and not only a default.
    fn decoded(&self, view: &KeyView) -> Result<(Option<T>, bool)> {
        let path = self.path();
        match &view.stored {
            stored if path.is_root() => {
                let decode = |stored: &Document| {
                    envelope::decode(&stored.to_bytes())
                        .map_err(|error| self.undecoded(&error, stored.value().as_str()))
                };
                Ok((stored.as_ref().map(decode).transpose()?, stored.is_some()))
            }
            _ => path.read_in(view, |text, exists| {
                let decode = |text| self.decode(text);
                Ok((text.map(decode).transpose()?, exists))
            }),
        }
    }

    fn decode(&self, text: &str) -> Result<T> {
        self.path().reader().decode(text, self.is_nested())
    }

    fn undecoded(&self, error: &serde_json::Error, text: &str) -> Error {
        self.path()
            .reader()
            .undecoded::<T>(error, text, self.is_nested())
    }

    fn unset(&self) -> Error {
        let expected = type_name::<T>();
        let what = format!(
            "expected a value of type `{expected}`, but nothing is stored, and there is no default"
        );
        self.path().error(ErrorKind::Unset, what)
    }
}

impl<T: SyncedMemory> Synced<T> {
    /// The handle of the struct that is stored here: each of its fields is a part of the value.
    pub fn fields(&self) -> T::Handle {
        T::inside(self.path())
    }
}

/// A view of a value of any type, for reading many in one round trip.
pub trait AnyView {
    /// The keys of which the backend has to be asked.
    #[doc(hidden)]
    fn keys(&self) -> Result<Vec<Arc<str>>>;
    #[doc(hidden)]
    fn as_path(&self) -> &ValuePath;
}

impl<T: Value> AnyView for Synced<T> {
    fn keys(&self) -> Result<Vec<Arc<str>>> {
        if self.path().is_local() {
            Ok(Vec::new())
        } else {
            self.path().keys()
        }
    }

    fn as_path(&self) -> &ValuePath {
        self.path()
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
            .field("path", self.path())
            .finish_non_exhaustive()
    }
}
