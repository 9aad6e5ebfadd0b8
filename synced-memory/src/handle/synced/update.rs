//! Closures that change a value: run on the caller's thread, and recorded as the difference that
//! they made.

use std::convert::Infallible;

use super::Synced;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::waiting::block_on;
use crate::client::reentrancy::ReentrancyGuard;
use crate::handle::key::Key;
use crate::handle::memory::Memory;
use crate::handle::path::{Condition, Freshness, PathChange, ReturnPath, seen};
use crate::handle::value::Value;
use crate::pending::outbox::Written;
use crate::value::envelope;
use crate::value::mutation::{
    Action, ChildPath, ConflictRule, Edited, Encoded, Location, Mutation, Operation, apply, diff,
    first_difference,
};
use crate::value::shape::Members;

impl<T: Value> Synced<T> {
    /// Changes the value by a closure, which gets what the backend has now, and returns what it
    /// returns.
    ///
    /// Only what differs afterwards is written. If somebody else writes at the same time, the
    /// closure runs again on what they wrote. It blocks no other process, may borrow from the
    /// caller, and may run more than once; one that panics changes nothing. The call waits for the
    /// backend under every write policy, `Behind` too. Closures of one process on one key run one
    /// after the other.
    ///
    /// While the backend is away it runs once, on what this process knows, and what it changed is
    /// queued: by element, entry or member of std's collections, and by field of `nested` structs;
    /// everything else, a plain struct too, is one part. If a part that it changed is something
    /// else when that is sent, the whole call becomes a [dead letter](Memory::dead_letters). The
    /// result does not say whether the change was made or queued: if you have to know, say to take
    /// a job, call it on the [`confirmed`](Synced::confirmed) view.
    ///
    /// **Numbers that several processes change are counted by [`add`](Synced::add), never by
    /// `update`.**
    ///
    /// # Errors
    ///
    /// `Unset` if nothing is stored and there is no default; `Unavailable` if the backend is away
    /// and nothing is known of the value; `Conflict` for a closure that writes to its own key, if
    /// the code of another closure of this process on the key runs for longer than `timeout`, and
    /// if others change the value again and again for as long as `timeout` of waiting (the time in
    /// the closure does not count); `Serialize`, `Decode`, `OutboxFull`, `Rejected`. After an error
    /// nothing is changed, except after `InDoubt`, which only [`confirmed`](Synced::confirmed)
    /// calls return.
    pub fn update<R>(&self, mut change: impl FnMut(&mut T) -> R) -> Result<R> {
        let changed = self.change(self.inner.default.of_unset(), |value| {
            Ok::<R, Infallible>(change(value))
        })?;
        Ok(match changed.0 {
            Ok(result) => result,
        })
    }

    /// As [`update`](Synced::update), in async code: it runs on any executor. The closure runs
    /// while the future is polled. If the future is dropped, what the closure changed is written
    /// completely or not at all; what it returns is lost, so that an element that it removes may be
    /// gone.
    ///
    /// # Errors
    ///
    /// As [`update`](Synced::update).
    pub async fn update_async<R>(&self, mut change: impl FnMut(&mut T) -> R) -> Result<R> {
        let change = |value: &mut T| Ok::<R, Infallible>(change(value));
        Ok(
            match self
                .change_async(self.inner.default.of_unset(), change)
                .await?
                .0
            {
                Ok(result) => result,
            },
        )
    }

    /// As [`update`](Synced::update), for a closure that may fail: its `Err` is returned, and
    /// commits nothing.
    ///
    /// # Errors
    ///
    /// Those of the closure, and those of [`update`](Synced::update).
    pub fn try_update<R, E: From<Error>>(
        &self,
        change: impl FnMut(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        self.change(self.inner.default.of_unset(), change)
            .map_err(E::from)?
            .0
    }

    /// Changes the value, which is `default` if nothing is there.
    pub(super) fn change<R, E>(
        &self,
        default: Option<fn() -> T>,
        change: impl FnMut(&mut T) -> Result<R, E>,
    ) -> Result<(Result<R, E>, Written)> {
        block_on(self.change_async(default, change))
    }

    async fn change_async<R, E>(
        &self,
        default: Option<fn() -> T>,
        mut change: impl FnMut(&mut T) -> Result<R, E>,
    ) -> Result<(Result<R, E>, Written)> {
        let record = |location: &Location<'_>| {
            let mut value = self.value_at(location, default)?;
            let before = self.encoded(&value)?;
            let result = self.run(|| change(&mut value))?;
            if result.is_err() {
                return Ok((PathChange::Nothing, result));
            }
            Ok((
                self.change_between(location, Some(&before), Some(self.encoded_result(&value)?)),
                result,
            ))
        };
        self.path()
            .record_async(Freshness::Latest, Condition::Closure, None, record)
            .await
    }

    /// Changes the value by a closure of ours that takes elements out of it, and hands them to this
    /// caller alone.
    pub(super) fn take_by<I: Value>(
        &self,
        default: Option<fn() -> T>,
        mut take: impl FnMut(&mut T) -> Vec<I>,
    ) -> Result<Vec<I>> {
        let record = |location: &Location<'_>| {
            let mut value = self.value_at(location, default)?;
            let before = self.encoded(&value)?;
            let taken = take(&mut value);
            let item = self.path().encode_unread(&taken)?;
            let change = match self.change_between(
                location,
                Some(&before),
                Some(self.encoded_result(&value)?),
            ) {
                PathChange::Do(operations) if !taken.is_empty() => PathChange::Take {
                    operations,
                    item,
                    back: ReturnPath::Nowhere,
                },
                change => change,
            };
            Ok((change, taken))
        };
        Ok(self
            .path()
            .record(Freshness::Latest, Condition::Take, None, record)?
            .0)
    }

    /// The value that a closure gets.
    fn value_at(&self, location: &Location<'_>, default: Option<fn() -> T>) -> Result<T> {
        match (location.found, default) {
            (Some(text), _) => self.decode(text),
            (None, Some(default)) => Ok(default()),
            (None, None) => Err(self.unset()),
        }
    }

    /// What a closure has left.
    fn encoded_result(&self, value: &T) -> Result<Encoded> {
        let encoded = self.encoded(value)?;
        self.path()
            .check_is_read_back::<T>(encoded.text().as_bytes())?;
        Ok(encoded)
    }

    fn encoded(&self, value: &T) -> Result<Encoded> {
        let encoded = Encoded::of(value, self.inner.nested);
        encoded.map_err(|error| {
            self.path()
                .error(ErrorKind::Serialize, envelope::describe_refusal(&error))
        })
    }

    /// What a closure changed at a location; `None` is a value that is not there.
    fn change_between(
        &self,
        location: &Location<'_>,
        before: Option<&Encoded>,
        after: Option<Encoded>,
    ) -> PathChange {
        let seen = seen(location);
        match (before, after, location.found) {
            (None, None, _) => PathChange::Nothing,
            (Some(before), Some(after), Some(found)) => {
                difference::<T>(found, before, &after, self.inner.nested)
            }
            (Some(before), Some(after), None) if before.content() == after.content() => {
                PathChange::Nothing
            }
            (_, Some(after), _) => PathChange::one(Action::Set {
                value: after.into_text(),
                seen,
            }),
            (Some(_), None, _) => PathChange::one(Action::Remove { seen }),
        }
    }

    /// Runs a closure of the user, which may not write to this key.
    fn run<R>(&self, closure: impl FnOnce() -> R) -> Result<R> {
        let guard = ReentrancyGuard::begin(self.path().memory().shared(), self.path().key()?);
        let result = closure();
        guard.end()?;
        Ok(result)
    }
}

impl Memory {
    /// Changes what is stored under `key` by a closure. It gets `None` if nothing is stored, and
    /// leaves `None` to delete it; a default does not count here. See [`Synced::update`].
    ///
    /// ```
    /// use synced_memory::{Key, Memory};
    ///
    /// const VISITORS: Key<Vec<String>> = Key::new("visitors");
    ///
    /// let memory = Memory::open("memory:")?;
    /// memory.update(&VISITORS, |visitors| {
    ///     visitors.get_or_insert_default().push("ada".to_string());
    /// })?;
    /// assert_eq!(memory.get(&VISITORS)?.unwrap(), ["ada"]);
    /// # Ok::<(), synced_memory::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Synced::update`], except `Unset`.
    pub fn update<T: Value, R>(
        &self,
        key: &Key<T>,
        mut change: impl FnMut(&mut Option<T>) -> R,
    ) -> Result<R> {
        let view = self.synced(&key.without_default());
        let path = view.path();
        let mut is_deleted = false;
        let (result, _) = path.record(Freshness::Latest, Condition::Closure, None, |location| {
            let mut value: Option<T> = location.found.map(|text| path.decode(text)).transpose()?;
            let before = value
                .as_ref()
                .map(|value| view.encoded(value))
                .transpose()?;
            let result = view.run(|| change(&mut value))?;
            let after = value
                .as_ref()
                .map(|value| view.encoded_result(value))
                .transpose()?;
            is_deleted = before.is_some() && after.is_none();
            Ok((
                view.change_between(location, before.as_ref(), after),
                result,
            ))
        })?;
        if is_deleted && !key.spec().aliases.is_empty() {
            view.delete()?;
        }
        Ok(result)
    }
}

/// How many times a difference is cut more coarsely before it is the whole value.
const CUTS: usize = 8;

/// What a closure changed from `before` to `after`, if `found` is stored.
fn difference<T: Value>(
    found: &str,
    before: &Encoded,
    after: &Encoded,
    nested: Option<Members>,
) -> PathChange {
    let mut whole = Vec::new();
    let is_as_written = before.is_as_written_in(found);
    for _ in 0..CUTS {
        let operations = diff(found, before, after, &whole);
        if operations.is_empty() {
            return PathChange::Nothing;
        }
        if is_as_written {
            return PathChange::Do(operations);
        }
        // What is stored may be another text for the same value: the result of the operations has
        // to be what the closure left.
        let Some(applied) = applied::<T>(found, &operations, nested) else {
            break;
        };
        let Some(mut location) = first_difference(&applied, after) else {
            return PathChange::Do(operations);
        };
        // If that is inside what is replaced as a whole already, what contains both is replaced.
        while let Some(at) = whole
            .iter()
            .position(|whole: &ChildPath| location.starts_with(whole))
        {
            location = whole.swap_remove(at);
            location.pop();
        }
        if location.is_empty() {
            break;
        }
        whole.push(location);
    }
    PathChange::Do(diff(found, before, after, &[ChildPath::new()]))
}

/// What the type reads after these operations.
fn applied<T: Value>(
    found: &str,
    operations: &[Operation],
    nested: Option<Members>,
) -> Option<Encoded> {
    let applied = apply(
        Some(found),
        &Mutation::new(None, operations.to_vec()),
        ConflictRule::Latest,
    );
    let text = match &applied.made {
        Edited::Text(text) => text,
        Edited::Nothing | Edited::Removed => found,
    };
    Encoded::of(&serde_json::from_str::<T>(text).ok()?, nested).ok()
}
