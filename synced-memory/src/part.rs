//! A place in what is stored under a key, whatever its type: reading it, and recording changes to it.

use crate::clock::Deadline;
use crate::core::Core;
use crate::envelope::{self, Text};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Memory;
use crate::mutation::{
    self, Content, Json, Member, Misfit, Mutation, Operation, Place, Seen, Spot, Step, locate, look,
};
use crate::outbox::{Again, Exact, Written};
use crate::policy::WritePolicy;
use crate::slot::Slot;
use crate::source::{Shown, Source};
use crate::state::{Request, View};
use crate::wait::block_on;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A place in what is stored under a key.
#[derive(Clone)]
pub struct Part {
    root: Arc<Root>,
    source: Source,
}

struct Root {
    memory: Memory,
    /// What the whole is taken for while it is unset.
    origin: Box<dyn Fn() -> Option<Json> + Send + Sync>,
    how: Policies,
}

/// How what is under a key is read and written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Policies {
    /// How long a value lives, from its write.
    pub(crate) ttl: Option<Duration>,
    /// It is read from its slots, which are kept current.
    pub(crate) near: bool,
    pub(crate) write: WritePolicy,
}

/// On what a change is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// On anything: it says the same whatever is there, and of the whole nobody has to look.
    Plain,
    /// On what this process knows.
    Blind,
    /// On what the backend has now.
    Current,
    /// On what this process knows; where something else is there at its places, it is recorded anew.
    Exact,
    /// On what the backend has now, and for that alone: where anything else is there, it is recorded anew.
    CurrentExact,
}

/// What is to be changed at a place, with paths from there.
pub(crate) enum Change {
    Nothing,
    Do(Vec<Operation>),
    /// Removes the key. It is for the whole alone.
    Withdraw,
}

impl Change {
    pub(crate) fn one(action: mutation::Action) -> Self {
        Self::Do(vec![Operation { path: Vec::new(), action }])
    }
}

impl Part {
    pub(crate) fn root(
        memory: &Memory,
        slots: Result<Vec<Arc<Slot>>>,
        origin: impl Fn() -> Option<Json> + Send + Sync + 'static,
        how: Policies,
    ) -> Self {
        if let (true, Ok(slots)) = (how.near, &slots) {
            for slot in slots {
                slot.keep_near(memory.prefix());
            }
        }
        let root = Root { memory: memory.clone(), origin: Box::new(origin), how };
        Self { root: Arc::new(root), source: Source::root(memory.shared(), slots) }
    }

    /// A place in this one.
    pub(crate) fn at(&self, place: Place) -> Self {
        Self { root: Arc::clone(&self.root), source: self.source.at(place) }
    }

    /// A place of which nothing can be read or written, since its name made no sense.
    pub(crate) fn broken(&self, error: Error) -> Self {
        Self::root(self.memory(), Err(error), || None, Policies::default())
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.root.memory
    }

    pub(crate) fn core(&self) -> &Core {
        self.root.memory.core()
    }

    pub(crate) fn is_root(&self) -> bool {
        self.source.is_root()
    }

    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.root.how.ttl
    }

    /// Where it is read from.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The full key.
    pub(crate) fn key(&self) -> Result<&Arc<str>> {
        self.source.key()
    }

    pub(crate) fn keys(&self) -> Result<Vec<Arc<str>>> {
        self.source.keys()
    }

    /// Asks the backend, where it is there and has to be asked.
    pub(crate) fn load(&self) -> Result<()> {
        block_on(self.load_async())
    }

    pub(crate) async fn load_async(&self) -> Result<()> {
        if self.is_local() { Ok(()) } else { self.refresh().await }
    }

    /// Asks the backend, where it is there.
    async fn refresh(&self) -> Result<()> {
        self.core().load(&self.keys()?).await
    }

    pub(crate) fn is_near(&self) -> bool {
        self.root.how.near
    }

    /// Whether the slots show what is there without anybody being asked.
    pub(crate) fn is_local(&self) -> bool {
        self.root.how.near && self.source.is_local()
    }

    pub(crate) fn version(&self) -> Result<u64> {
        self.source.version()
    }

    pub(crate) fn write_policy(&self) -> WritePolicy {
        self.root.how.write
    }

    pub(crate) fn is_known(&self) -> bool {
        self.source.is_known()
    }

    /// What the slots show together.
    pub(crate) fn shown(&self) -> Result<Shown> {
        let shown = self.source.shown()?;
        Ok(Shown { is_local: shown.is_local && self.root.how.near, ..shown })
    }

    /// Hands the text at the place to `look`: what is there, or taken to be there, and whether it is.
    pub(crate) fn look_at<R>(&self, view: &View, look_at: impl FnOnce(Option<&str>, bool) -> Result<R>) -> Result<R> {
        let text = view.value();
        let origin = if text.is_none() { (self.root.origin)() } else { None };
        let found = look(text.as_ref().map(Text::as_str), origin.as_ref(), self.source.places());
        let (found, exists) = found.map_err(|misfit| self.misfit(misfit))?;
        look_at(found, exists)
    }

    /// Records a change, and brings it to the backend. `empty`: what the place is taken for where nothing is
    /// there, and nothing else is said. `record` may be called more than once, and holds no lock.
    pub(crate) fn record<R>(
        &self,
        how: How,
        empty: Option<&str>,
        record: impl FnMut(&Spot<'_>) -> Result<(Change, R)>,
    ) -> Result<(R, Written)> {
        block_on(self.record_async(how, empty, record))
    }

    pub(crate) async fn record_async<R>(
        &self,
        how: How,
        empty: Option<&str>,
        mut record: impl FnMut(&Spot<'_>) -> Result<(Change, R)>,
    ) -> Result<(R, Written)> {
        let timeout = self.root.memory.shared().settings.timeout;
        let deadline = Deadline::after(timeout);
        let key = self.key()?;
        let empty = empty.and_then(|empty| Json::parse(empty.to_owned()).ok());
        let places = self.places_with(empty.as_ref());
        let names_elements = places.iter().any(|place| matches!(place, Place::Index(_)));
        // Where nothing is under the key, it starts from what is under an older name by now.
        let may_be_older = self.source.slots()?.len() > 1 && self.shown()?.own.stored.is_none();
        let mut is_current = names_elements || may_be_older || matches!(how, How::Current | How::CurrentExact);
        if self.write_policy() == WritePolicy::Behind && self.is_known() {
            // It does not ask: as when nobody can be asked.
            is_current = true;
        } else if is_current {
            self.refresh().await?;
        }
        loop {
            // Of many pushes in a row that wait, none has to look at those before it.
            let is_anything = how == How::Plain && self.is_root() && self.source.slots()?.len() == 1;
            let Shown { own, view, .. } = if is_anything { Shown::default() } else { self.shown()? };
            let text = own.value();
            let origin = match &own.stored {
                None if view.stored.is_some() => {
                    view.value().and_then(|older| Json::parse(older.as_str().to_owned()).ok())
                }
                _ => (self.root.origin)().or_else(|| empty.clone().filter(|_| self.is_root())),
            };
            let spot = locate(text.as_ref().map(Text::as_str), origin.as_ref(), &places);
            let recorded = spot.map_err(|misfit| self.misfit(misfit)).and_then(|spot| {
                let (change, result) = record(&spot)?;
                Ok((below(&spot.path, change), result))
            });
            let is_final = |change: &Change| is_current || !matches!(change, Change::Nothing);
            let (change, result) = match recorded {
                Ok((change, result)) if is_final(&change) => (change, result),
                Err(error) if is_current => return Err(error),
                // What is known may be out of date.
                Ok(_) | Err(_) => {
                    self.refresh().await?;
                    is_current = true;
                    continue;
                }
            };
            let request = match change {
                Change::Nothing => return Ok((result, Written::Stored)),
                Change::Withdraw => Request::Withdraw(own.stored),
                Change::Do(operations) => Request::Mutate {
                    mutation: Mutation::new(origin, operations),
                    ttl: self.root.how.ttl,
                    exact: match how {
                        How::Exact => Some(Exact::Places),
                        How::CurrentExact => Some(Exact::Whole(own.stored)),
                        How::Plain | How::Blind | How::Current => None,
                    },
                },
            };
            let answer = self.core().write(key, request, self.write_policy()).await?;
            match answer.again {
                None => return Ok((result, answer.written)),
                Some(_) if deadline.remaining().is_zero() => {
                    let what = format!("others have changed it again and again, for {timeout:?}");
                    return Err(Error::of_key(ErrorKind::Conflict, key, what));
                }
                Some(Again::Answered) => is_current = true,
                Some(Again::Shown) => {}
            }
        }
    }

    /// Records one action that says the same whatever is there.
    pub(crate) fn act(
        &self,
        how: How,
        empty: Option<&str>,
        action: impl FnMut(&Spot<'_>) -> mutation::Action,
    ) -> Result<Written> {
        block_on(self.act_async(how, empty, action))
    }

    pub(crate) async fn act_async(
        &self,
        how: How,
        empty: Option<&str>,
        mut action: impl FnMut(&Spot<'_>) -> mutation::Action,
    ) -> Result<Written> {
        Ok(self.record_async(how, empty, |spot| Ok((Change::one(action(spot)), ()))).await?.1)
    }

    /// The request that stores `value` here, as a mutation of its own.
    pub(crate) fn assignment(&self, value: Json) -> Result<(Arc<str>, Request)> {
        let text = self.shown()?.view.value();
        let origin = (self.root.origin)();
        let spot = locate(text.as_ref().map(Text::as_str), origin.as_ref(), self.source.places());
        let spot = spot.map_err(|misfit| self.misfit(misfit))?;
        let set = mutation::Action::Set { value, seen: seen(&spot) };
        let operations = vec![Operation { path: spot.path, action: set }];
        let mutation = Mutation::new(origin, operations);
        Ok((Arc::clone(self.key()?), Request::Mutate { mutation, ttl: self.root.how.ttl, exact: None }))
    }

    /// The places, where the last one is taken for `empty` if nothing else is said.
    fn places_with(&self, empty: Option<&Json>) -> Arc<[Place]> {
        match (self.source.places().split_last(), empty) {
            (Some((Place::Member(last), before)), Some(empty)) if last.origin.is_none() => {
                let last = Member { origin: Some(empty.clone()), ..last.clone() };
                before.iter().cloned().chain([Place::Member(last)]).collect()
            }
            _ => Arc::clone(self.source.places()),
        }
    }

    pub(crate) fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Json> {
        Json::encode(value).map_err(|error| self.error(ErrorKind::Serialize, envelope::describe_refusal(&error)))
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, text: &str) -> Result<T> {
        self.source.decode(text, false)
    }

    pub(crate) fn misfit(&self, misfit: Misfit) -> Error {
        self.source.misfit(misfit)
    }

    /// An error that names the place.
    pub(crate) fn error(&self, kind: ErrorKind, what: impl fmt::Display) -> Error {
        self.source.error(kind, what)
    }
}

/// The same change, with paths from the root.
fn below(path: &[Step], change: Change) -> Change {
    match change {
        Change::Do(operations) => Change::Do(
            operations
                .into_iter()
                .map(|operation| Operation { path: [path, &operation.path[..]].concat(), ..operation })
                .collect(),
        ),
        change => change,
    }
}

/// What is at a place, or is taken to be there, as an assignment or a removal remembers it.
pub(crate) fn seen(spot: &Spot<'_>) -> Seen {
    spot.found.map(Content::of).into()
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Part").field(&self.source).finish()
    }
}
