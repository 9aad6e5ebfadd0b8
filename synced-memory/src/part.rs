//! A place in what is stored under a key, whatever its type: reading it, and recording changes to it.

use crate::clock::Deadline;
use crate::core::{Core, Slot};
use crate::envelope::{self, Text};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Memory;
use crate::mutation::{
    self, Content, Json, Member, Misfit, Mutation, Operation, Place, Seen, Spot, Step, locate, look,
};
use crate::outbox::{Again, Exact, Written};
use crate::policy::WritePolicy;
use crate::shared::Shared;
use crate::state::{Request, State, View};
use crate::wait::block_on;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A place in what is stored under a key.
#[derive(Clone)]
pub struct Part {
    root: Arc<Root>,
    places: Arc<[Place]>,
}

struct Root {
    memory: Memory,
    /// The slot of the key, then those of its older names; or why there are none.
    slots: Result<Vec<Arc<Slot>>>,
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

/// What the slots of a place show.
#[derive(Default)]
pub(crate) struct Shown {
    /// Under which version.
    pub(crate) version: u64,
    /// Nobody has to be asked for it.
    pub(crate) is_local: bool,
    /// What is stored under the key itself.
    own: View,
    /// What a read shows: that, or what is stored under an older name.
    pub(crate) view: View,
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
        let root = Root { memory: memory.clone(), slots, origin: Box::new(origin), how };
        Self { root: Arc::new(root), places: Arc::default() }
    }

    /// A place in this one.
    pub(crate) fn at(&self, place: Place) -> Self {
        let places = self.places.iter().cloned().chain([place]).collect();
        Self { root: Arc::clone(&self.root), places }
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
        self.places.is_empty()
    }

    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.root.how.ttl
    }

    pub(crate) fn slots(&self) -> Result<&[Arc<Slot>]> {
        self.root.slots.as_deref().map_err(Clone::clone)
    }

    /// The full key.
    pub(crate) fn key(&self) -> Result<&Arc<str>> {
        Ok(&self.slots()?[0].key)
    }

    pub(crate) fn keys(&self) -> Result<Vec<Arc<str>>> {
        Ok(self.slots()?.iter().map(|slot| Arc::clone(&slot.key)).collect())
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
        let shared = self.root.memory.shared();
        self.root.how.near && self.slots().is_ok_and(|slots| is_local(shared, &shared.state(), slots))
    }

    /// How old what the slots show may be.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        let shared = self.root.memory.shared();
        let mono = shared.clock.mono();
        let state = shared.state();
        let slots = self.slots().ok()?.iter();
        slots
            .map(|slot| state.cache.staleness(&slot.key, mono))
            .try_fold(Duration::ZERO, |most, one| Some(most.max(one?)))
    }

    /// Versions only rise, and so does their sum: it stands for all of them.
    pub(crate) fn version(&self) -> Result<u64> {
        Ok(self.slots()?.iter().map(|slot| slot.version.load(Ordering::Acquire)).sum())
    }

    pub(crate) fn write_policy(&self) -> WritePolicy {
        self.root.how.write
    }

    /// Whether anything is known of the key and its older names.
    pub(crate) fn is_known(&self) -> bool {
        let shared = self.root.memory.shared();
        self.slots().is_ok_and(|slots| {
            let state = shared.state();
            slots.iter().all(|slot| state.is_known(&slot.key))
        })
    }

    /// What the slots show together.
    pub(crate) fn shown(&self) -> Result<Shown> {
        let slots = self.slots()?;
        let shared = self.root.memory.shared();
        let mono = shared.clock.mono();
        // Versions change under this lock alone: the view is the one of this version.
        let state = shared.state();
        let mut views = slots.iter().map(|slot| state.view(&slot.key, mono));
        let first = views.next().unwrap_or_default();
        let own = first.clone();
        let is_set = |view: &View| view.stored.is_some();
        let view = if is_set(&own) { first } else { views.find(is_set).unwrap_or_default() };
        let is_local = self.root.how.near && is_local(shared, &state, slots);
        Ok(Shown { version: self.version()?, is_local, own, view })
    }

    /// Hands the text at the place to `look`: what is there, or taken to be there, and whether it is.
    pub(crate) fn look_at<R>(&self, view: &View, look_at: impl FnOnce(Option<&str>, bool) -> Result<R>) -> Result<R> {
        let text = view.value();
        let origin = if text.is_none() { (self.root.origin)() } else { None };
        let found = look(text.as_ref().map(Text::as_str), origin.as_ref(), &self.places);
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
        let may_be_older = self.slots()?.len() > 1 && self.shown()?.own.stored.is_none();
        let mut is_current = names_elements || may_be_older || matches!(how, How::Current | How::CurrentExact);
        if self.write_policy() == WritePolicy::Behind && self.is_known() {
            // It does not ask: as when nobody can be asked.
            is_current = true;
        } else if is_current {
            self.refresh().await?;
        }
        loop {
            // Of many pushes in a row that wait, none has to look at those before it.
            let is_anything = how == How::Plain && self.is_root() && self.slots()?.len() == 1;
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
        let spot = locate(text.as_ref().map(Text::as_str), origin.as_ref(), &self.places);
        let spot = spot.map_err(|misfit| self.misfit(misfit))?;
        let set = mutation::Action::Set { value, seen: seen(&spot) };
        let operations = vec![Operation { path: spot.path, action: set }];
        let mutation = Mutation::new(origin, operations);
        Ok((Arc::clone(self.key()?), Request::Mutate { mutation, ttl: self.root.how.ttl, exact: None }))
    }

    /// The places, where the last one is taken for `empty` if nothing else is said.
    fn places_with(&self, empty: Option<&Json>) -> Arc<[Place]> {
        match (self.places.split_last(), empty) {
            (Some((Place::Member(last), before)), Some(empty)) if last.origin.is_none() => {
                let last = Member { origin: Some(empty.clone()), ..last.clone() };
                before.iter().cloned().chain([Place::Member(last)]).collect()
            }
            _ => Arc::clone(&self.places),
        }
    }

    pub(crate) fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Json> {
        Json::encode(value).map_err(|error| self.error(ErrorKind::Serialize, envelope::describe_refusal(&error)))
    }

    pub(crate) fn decode<'a, T: serde::Deserialize<'a>>(&self, text: &'a str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.undecoded::<T>(&error))
    }

    pub(crate) fn undecoded<T>(&self, error: &serde_json::Error) -> Error {
        let expected = std::any::type_name::<T>();
        let what = format!("what is stored is no `{expected}`: {}", envelope::describe(error));
        self.error(ErrorKind::Decode, what)
    }

    pub(crate) fn misfit(&self, misfit: Misfit) -> Error {
        let kind = match misfit {
            Misfit::Unset | Misfit::Gone => ErrorKind::Unset,
            Misfit::Type { .. } | Misfit::Invalid => ErrorKind::Decode,
            Misfit::Overflow => ErrorKind::Conflict,
        };
        self.error(kind, misfit)
    }

    /// An error that names the place.
    pub(crate) fn error(&self, kind: ErrorKind, what: impl fmt::Display) -> Error {
        match self.key() {
            Ok(key) => Error::of_key(kind, &format!("{key}{}", Path(&self.places)), what),
            Err(error) => error,
        }
    }
}

fn is_local(shared: &Shared, state: &State, slots: &[Arc<Slot>]) -> bool {
    shared.check_open().is_ok() && state.is_local(slots.iter().map(|slot| &*slot.key))
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

/// Places in messages: `.name` for a member, `[1]` for an element.
struct Path<'a>(&'a [Place]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|place| match place {
            Place::Member(member) => write!(f, ".{}", member.name),
            Place::Index(index) => write!(f, "[{index}]"),
        })
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key() {
            Ok(key) => write!(f, "Part(\"{key}{}\")", Path(&self.places)),
            Err(error) => write!(f, "Part({error})"),
        }
    }
}
