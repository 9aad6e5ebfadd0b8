//! Closures that change a value: run on the caller's thread, and recorded as the difference that they made.

use super::Synced;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::memory::Memory;
use crate::mutation::{Action, Json, Operation, Spot, diff, diff_of_sets, elements};
use crate::outbox::Written;
use crate::part::{Change, How, seen};
use crate::updating::Updating;
use crate::value::Value;
use crate::wait::block_on;
use std::convert::Infallible;

impl<T: Value> Synced<T> {
    /// Changes the value by a closure, which gets what the backend has now, and returns what it returns.
    ///
    /// Only what differs afterwards is written. Where somebody else writes at the same time, the closure runs
    /// again on what they wrote. It holds no lock, may borrow from the caller, and may run more than once;
    /// one that panics changes nothing. While the backend is away it runs once, on what this process knows,
    /// and each path that it changed is compared when it is sent: what others have changed there since stays.
    ///
    /// # Errors
    ///
    /// `Unset` where nothing is stored and there is no default; `Conflict` for a closure that writes to its own
    /// key, and where others change it again and again for as long as `timeout`; `Serialize`, `Decode`,
    /// `OutboxFull`, `Rejected`. After an error nothing is changed.
    pub fn update<R>(&self, mut change: impl FnMut(&mut T) -> R) -> Result<R> {
        let changed = self.change(self.inner.default, |value| Ok::<R, Infallible>(change(value)))?;
        Ok(match changed.0 {
            Ok(result) => result,
        })
    }

    /// As [`update`](Synced::update), in async code: it runs on any executor. The closure runs while the future is
    /// polled; where the future is dropped, what the closure did is written or not, and never in part.
    ///
    /// # Errors
    ///
    /// As [`update`](Synced::update).
    pub async fn update_async<R>(&self, mut change: impl FnMut(&mut T) -> R) -> Result<R> {
        let change = |value: &mut T| Ok::<R, Infallible>(change(value));
        Ok(match self.change_async(self.inner.default, change).await?.0 {
            Ok(result) => result,
        })
    }

    /// As [`update`](Synced::update), for a closure that may fail: its `Err` is returned, and commits nothing.
    ///
    /// # Errors
    ///
    /// Those of the closure, and those of [`update`](Synced::update).
    pub fn try_update<R, E: From<Error>>(&self, change: impl FnMut(&mut T) -> Result<R, E>) -> Result<R, E> {
        self.change(self.inner.default, change).map_err(E::from)?.0
    }

    /// Changes the value, which is `default` where nothing is there.
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
        let record = |spot: &Spot<'_>| {
            let mut value = match (spot.found, default) {
                (Some(text), _) => self.decode(text)?,
                (None, Some(default)) => default(),
                (None, None) => return Err(self.unset()),
            };
            let before = self.part().encode(&value)?;
            let result = self.run(|| change(&mut value))?;
            if result.is_err() {
                return Ok((Change::Nothing, result));
            }
            let after = self.part().encode(&value)?;
            Ok((difference::<T>(spot, &before, after), result))
        };
        self.part().record_async(How::CurrentExact, None, record).await
    }

    /// Runs a closure of the user, which may not write to this key.
    fn run<R>(&self, closure: impl FnOnce() -> R) -> Result<R> {
        let updating = Updating::begin(self.part().memory().shared(), self.part().key()?);
        let result = closure();
        updating.end()?;
        Ok(result)
    }
}

impl Memory {
    /// Changes what is stored under `key` by a closure: `None` is what is not there, before and after. See
    /// [`Synced::update`]; a default does not count here.
    ///
    /// ```
    /// use synced_memory::{Key, Memory};
    ///
    /// const VISITORS: Key<Vec<String>> = Key::new("visitors");
    ///
    /// let memory = Memory::open("memory:")?;
    /// memory.update(&VISITORS, |visitors| visitors.get_or_insert_default().push("ada".to_string()))?;
    /// assert_eq!(memory.get(&VISITORS)?.unwrap(), ["ada"]);
    /// # Ok::<(), synced_memory::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Synced::update`], but for `Unset`.
    pub fn update<T: Value, R>(&self, key: &Key<T>, mut change: impl FnMut(&mut Option<T>) -> R) -> Result<R> {
        let view = self.synced(&key.without_default());
        let part = view.part();
        let mut is_deleted = false;
        let (result, _) = part.record(How::CurrentExact, None, |spot| {
            let mut value: Option<T> = spot.found.map(|text| part.decode(text)).transpose()?;
            let before = value.as_ref().map(|value| part.encode(value)).transpose()?;
            let result = view.run(|| change(&mut value))?;
            let after = value.as_ref().map(|value| part.encode(value)).transpose()?;
            is_deleted = before.is_some() && after.is_none();
            let change = match (before, after) {
                (None, None) => Change::Nothing,
                (Some(_), None) => Change::Withdraw,
                (Some(before), Some(after)) => difference::<T>(spot, &before, after),
                (None, Some(value)) => Change::one(Action::Set { value, seen: seen(spot) }),
            };
            Ok((change, result))
        })?;
        if is_deleted && !key.spec().aliases.is_empty() {
            view.delete()?;
        }
        Ok(result)
    }
}

/// What a closure changed at a place.
fn difference<T: Value>(spot: &Spot<'_>, before: &Json, after: Json) -> Change {
    let operations: Vec<Operation> = match spot.found {
        Some(_) if is_set::<T>(before) || is_set::<T>(&after) => diff_of_sets(before.as_str(), after.as_str()),
        Some(found) => diff(found, before.as_str(), after.as_str()),
        None if *before == after => Vec::new(),
        None => return Change::one(Action::Set { value: after, seen: seen(spot) }),
    };
    if operations.is_empty() { Change::Nothing } else { Change::Do(operations) }
}

/// Whether `T` is a set, as far as a value of it tells: it holds equal elements once.
fn is_set<T: Value>(value: &Json) -> bool {
    let first = elements(value.as_str()).ok().and_then(|elements| elements.first().copied());
    let Some(twice) = first.map(|first| format!("[{first},{first}]")) else { return false };
    let once = serde_json::from_str::<T>(&twice).ok().and_then(|value| Json::encode(&value).ok());
    once.is_some_and(|once| elements(once.as_str()).is_ok_and(|elements| elements.len() == 1))
}
