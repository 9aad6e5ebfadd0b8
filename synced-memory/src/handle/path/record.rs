//! Recording a change to a place: on what this process knows, or on what the backend has; and again
//! where that was not it.

use std::sync::Arc;
use std::time::Duration;

use super::ValuePath;
use crate::base::clock::{Deadline, Monotonic};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::base::waiting::block_on;
use crate::client::state::Request;
use crate::handle::reader::SlotsView;
use crate::pending::outbox::{Again, Answer, Precondition, Take, Written};
use crate::value::envelope::Text;
use crate::value::mutation::{
    self, Json, Location, MemberName, Mutation, ObservedValue, Operation, PathSegment, PathStep,
    locate, within,
};

/// On what a change is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// On anything: it says the same whatever is there, and of the whole nobody has to look.
    Plain,
    /// On what this process knows.
    Blind,
    /// On what the backend has now.
    Current,
    /// On what this process knows; where something else is there at its places, it is recorded
    /// anew.
    Exact,
    /// By a closure of the user, on what the backend has now, and for that alone: where anything
    /// else is there, it is recorded anew. While the backend is away, on what this process knows:
    /// then it is compared with that.
    Closure,
    /// On what the backend has now, and for that alone. It hands out an element that its caller has
    /// not named, and is confirmed.
    Take,
}

/// What is to be changed at a place, with paths from there.
pub(crate) enum PartChange {
    Nothing,
    Do(Vec<Operation>),
    /// Hands the item to the caller; `back` brings it back to where it came from.
    Take {
        operations: Vec<Operation>,
        item: Json,
        back: ReturnPath,
    },
}

/// How what was taken goes back.
pub(crate) enum ReturnPath {
    /// There is no such place.
    Nowhere,
    /// To a list, which takes it whatever else is in there.
    Anyway(Operation),
    /// To a place in a map that has to be free.
    WhereFree(Operation),
}

impl ReturnPath {
    fn mutation(self, origin: Option<Json>) -> Option<Mutation> {
        match self {
            Self::Nowhere => None,
            Self::Anyway(operation) => Some(Mutation::new(origin, vec![operation])),
            Self::WhereFree(operation) => {
                // What is there by then is somebody else's, also where it is the same.
                let is_free = mutation::Action::Remove {
                    seen: ObservedValue::Absent,
                };
                let is_free = Operation {
                    path: operation.path.clone(),
                    action: is_free,
                };
                Some(Mutation::compared(origin, vec![is_free, operation]))
            }
        }
    }
}

impl PartChange {
    pub(crate) fn one(action: mutation::Action) -> Self {
        Self::Do(vec![Operation {
            path: Vec::new(),
            action,
        }])
    }
}

/// A change on its way: how often it was recorded, on what, and how long that took.
struct Recorder<'a> {
    part: &'a ValuePath,
    how: How,
    policy: WritePolicy,
    empty: Option<Json>,
    places: Arc<[PathSegment]>,
    /// It is recorded on what the backend has answered to this call.
    is_current: bool,
    /// How long it has waited. The time in the code of the user does not count.
    waited: Duration,
    started: Monotonic,
    runs: u32,
}

/// On what a change is recorded first.
enum Start {
    /// On what is known, which is all there is to know: nobody is asked.
    Settled,
    /// On what is known, and anew where something else is there.
    OnWhatIsKnown,
    /// On what the backend answers.
    Ask,
}

/// What came of recording a change once.
enum Attempted<R> {
    /// There is nothing to change.
    Nothing(R),
    /// What it was recorded on may be out of date.
    Outdated,
    Request(Request, R),
}

impl ValuePath {
    /// Records a change, and brings it to the backend. `empty`: what the place is taken for where
    /// nothing is there, and nothing else is said. `record` may be called more than once, and holds
    /// no lock.
    pub(crate) fn record<R>(
        &self,
        how: How,
        empty: Option<&str>,
        record: impl FnMut(&Location<'_>) -> Result<(PartChange, R)>,
    ) -> Result<(R, Written)> {
        block_on(self.record_async(how, empty, record))
    }

    pub(crate) async fn record_async<R>(
        &self,
        how: How,
        empty: Option<&str>,
        mut record: impl FnMut(&Location<'_>) -> Result<(PartChange, R)>,
    ) -> Result<(R, Written)> {
        let timeout = self.memory().shared().settings.timeout;
        let key = self.key()?;
        // Closures of this process go one after the other: each would find that another one was
        // made before it.
        let _turn = if how == How::Closure {
            self.core().closures().enter(key, timeout).await
        } else {
            None
        };
        let mut recorder = Recorder::begin(self, how, empty).await?;
        loop {
            match recorder.record(&mut record)? {
                Attempted::Nothing(result) => return Ok((result, Written::Stored)),
                Attempted::Outdated => recorder.ask().await?,
                Attempted::Request(request, result) => {
                    let answer = recorder.send(request, timeout).await?;
                    match answer.again {
                        None => return Ok((result, answer.written)),
                        Some(_) if recorder.runs > 1 && recorder.waited() >= timeout => {
                            let what =
                                format!("others have changed it again and again, for {timeout:?}");
                            return Err(Error::of_key(ErrorKind::Conflict, key, what));
                        }
                        Some(Again::Answered) => recorder.is_current = true,
                        Some(Again::Shown) => {}
                    }
                }
            }
        }
    }

    /// Records one action that says the same whatever is there.
    pub(crate) fn act(
        &self,
        how: How,
        empty: Option<&str>,
        action: impl FnMut(&Location<'_>) -> mutation::Action,
    ) -> Result<Written> {
        block_on(self.act_async(how, empty, action))
    }

    pub(crate) async fn act_async(
        &self,
        how: How,
        empty: Option<&str>,
        mut action: impl FnMut(&Location<'_>) -> mutation::Action,
    ) -> Result<Written> {
        Ok(self
            .record_async(how, empty, |spot| Ok((PartChange::one(action(spot)), ())))
            .await?
            .1)
    }

    /// Whether what is shown has writes of this process in it that the backend has not answered
    /// for.
    fn is_anything_on_top(&self) -> Result<bool> {
        let state = self.memory().shared().state();
        Ok(self.source.slots()?.iter().any(|slot| {
            state
                .outbox
                .of(&slot.key)
                .any(|entry| !entry.write.is_confirmed)
        }))
    }

    /// Removes what is stored under the key and its older names, of which nothing is taken for what
    /// it was; whether there was anything.
    pub(crate) async fn delete_now(&self) -> Result<bool> {
        let shared = self.memory().shared();
        let (started, timeout) = (shared.clock.mono(), shared.settings.timeout);
        let mut existed = false;
        loop {
            self.refresh_now().await?;
            // The older names first: the key must not fall back to them in between.
            let deletes = self.source.stored()?.into_iter().rev();
            let deletes: Vec<_> = deletes
                .map(|(key, stored)| (key, Request::DeleteOf(stored)))
                .collect();
            let answers = self
                .core()
                .write_together(deletes, WritePolicy::Confirmed)
                .await?;
            existed |= answers
                .iter()
                .any(|answer| answer.again.is_none() && answer.existed);
            let is_any_made = answers.iter().any(|answer| answer.again.is_none());
            if answers.iter().all(|answer| answer.again.is_none()) {
                return Ok(existed);
            }
            if shared.clock.mono().saturating_sub(started) >= timeout {
                let kind = if is_any_made {
                    ErrorKind::InDoubt
                } else {
                    ErrorKind::Conflict
                };
                return Err(self.error(
                    kind,
                    format_args!("others have changed it again and again, for {timeout:?}"),
                ));
            }
        }
    }

    /// The places, where the last one is taken for `empty` if nothing else is said.
    fn places_with(&self, empty: Option<&Json>) -> Arc<[PathSegment]> {
        match (self.source.places().split_last(), empty) {
            (
                Some((
                    last @ (PathSegment::Member(member) | PathSegment::Entry(member, _)),
                    before,
                )),
                Some(empty),
            ) if member.origin.is_none() => {
                let member = MemberName {
                    origin: Some(empty.clone()),
                    ..member.clone()
                };
                let last = match last {
                    PathSegment::Entry(_, spelling) => PathSegment::Entry(member, *spelling),
                    PathSegment::Member(_) | PathSegment::Index(_) => PathSegment::Member(member),
                };
                before.iter().cloned().chain([last]).collect()
            }
            _ => Arc::clone(self.source.places()),
        }
    }
}

impl<'a> Recorder<'a> {
    async fn begin(part: &'a ValuePath, how: How, empty: Option<&str>) -> Result<Self> {
        // A closure is told what has come of it, whatever the policy: it may have to run again.
        let policy = match (how, part.write_policy()) {
            (How::Take, _) | (_, WritePolicy::Confirmed) => WritePolicy::Confirmed,
            (How::Closure, _) => WritePolicy::Through,
            (_, policy) => policy,
        };
        let empty = empty.and_then(|empty| Json::parse(empty.to_owned()).ok());
        let places = part.places_with(empty.as_ref());
        let (is_current, waited, started, runs) =
            (true, Duration::ZERO, part.memory().shared().clock.mono(), 0);
        let mut recorder = Self {
            part,
            how,
            policy,
            empty,
            places,
            is_current,
            waited,
            started,
            runs,
        };
        match recorder.start()? {
            Start::Settled => {}
            Start::OnWhatIsKnown => recorder.is_current = false,
            Start::Ask => recorder.ask().await?,
        }
        Ok(recorder)
    }

    fn start(&self) -> Result<Start> {
        let (part, is_behind) = (self.part, self.part.write_policy() == WritePolicy::Behind);
        Ok(match (self.how, self.policy) {
            // It says the same whatever is there, and nothing comes of it that is to be known.
            (How::Plain, WritePolicy::Confirmed) if !self.names_what_is_there()? => {
                Start::OnWhatIsKnown
            }
            (_, WritePolicy::Confirmed) if part.is_known() && !self.names_what_is_there()? => {
                Start::OnWhatIsKnown
            }
            (_, WritePolicy::Confirmed) => Start::Ask,
            // Earlier writes behind go before it, and it is recorded on what they make.
            (How::Closure, _) if part.is_local() || is_behind && part.is_known() => {
                Start::OnWhatIsKnown
            }
            (_, WritePolicy::Behind) if part.is_known() => Start::Settled,
            (How::Closure | How::Take, _) => Start::Ask,
            _ if self.names_what_is_there()? => Start::Ask,
            _ => Start::OnWhatIsKnown,
        })
    }

    /// Whether it names a place by what is there now.
    fn names_what_is_there(&self) -> Result<bool> {
        let names_elements = self
            .places
            .iter()
            .any(|place| matches!(place, PathSegment::Index(_)));
        // Where nothing is under the key, it starts from what is under an older name by now.
        let may_be_older = || {
            Ok(self.part.source().slots()?.len() > 1 && self.part.visible()?.own.stored.is_none())
        };
        Ok(names_elements || self.how == How::Current || may_be_older()?)
    }

    /// Asks the backend; for a confirmed call it has to answer.
    async fn ask(&mut self) -> Result<()> {
        match self.policy {
            WritePolicy::Confirmed => self.part.refresh_now().await?,
            WritePolicy::Through | WritePolicy::Behind => self.part.refresh().await?,
        }
        self.is_current = true;
        Ok(())
    }

    fn record<R>(
        &mut self,
        record: &mut impl FnMut(&Location<'_>) -> Result<(PartChange, R)>,
    ) -> Result<Attempted<R>> {
        let part = self.part;
        if self.how == How::Closure && !part.is_known() {
            return Err(part.unknown());
        }
        // Of many pushes in a row that wait, none has to look at those before it.
        let is_anything =
            self.how == How::Plain && part.is_root() && part.source().slots()?.len() == 1;
        let SlotsView { own, view, .. } = if is_anything {
            SlotsView::default()
        } else {
            part.visible()?
        };
        let text = own.value();
        let origin = match &own.stored {
            None if view.stored.is_some() => view
                .value()
                .and_then(|older| Json::parse(older.as_str().to_owned()).ok()),
            _ => (part.root.origin)().or_else(|| self.empty.clone().filter(|_| part.is_root())),
        };
        let spot = locate(
            text.as_ref().map(Text::as_str),
            origin.as_ref(),
            &self.places,
        );
        let clock = &part.memory().shared().clock;
        self.waited += clock.mono().saturating_sub(self.started);
        let has_spellings = self
            .places
            .iter()
            .any(|place| matches!(place, PathSegment::Entry(..)));
        if has_spellings && !self.is_current && spot.as_ref().is_ok_and(|spot| !spot.exists) {
            // Another program may have stored it since, under another spelling of its key.
            return Ok(Attempted::Outdated);
        }
        let recorded = spot
            .map_err(|error| part.apply_error(error))
            .and_then(|mut spot| {
                spot.is_current = self.is_current;
                let (change, result) = record(&spot)?;
                let base = text
                    .as_ref()
                    .map(Text::as_str)
                    .or(origin.as_ref().map(Json::as_str));
                Ok((below(base.unwrap_or_default(), &spot.path, change), result))
            });
        (self.started, self.runs) = (clock.mono(), self.runs + 1);
        let (change, result) = match recorded {
            Err(error) if self.is_current => return Err(error),
            Err(_) => return Ok(Attempted::Outdated),
            Ok(recorded) => recorded,
        };
        let (operations, take) = match change {
            PartChange::Nothing if !self.is_current => return Ok(Attempted::Outdated),
            // What waits here may yet be superseded: it is a fact once that was answered for, and
            // nothing has changed.
            PartChange::Nothing
                if self.policy == WritePolicy::Confirmed && part.is_anything_on_top()? =>
            {
                (Vec::new(), None)
            }
            PartChange::Nothing => return Ok(Attempted::Nothing(result)),
            PartChange::Do(operations) => (operations, None),
            PartChange::Take {
                operations,
                item,
                back,
            } => (
                operations,
                Some(Take {
                    item,
                    back: back.mutation(origin.clone()),
                }),
            ),
        };
        let (mutation, exact) = match self.how {
            _ if operations.is_empty() => (
                Mutation::new(origin, operations),
                Some(Precondition::Whole(own.stored)),
            ),
            How::Closure => (
                Mutation::compared(origin, operations),
                Some(Precondition::Whole(own.stored)),
            ),
            How::Take => (
                Mutation::new(origin, operations),
                Some(Precondition::Whole(own.stored)),
            ),
            How::Exact => (
                Mutation::new(origin, operations),
                Some(Precondition::Places),
            ),
            How::Plain | How::Blind | How::Current => (Mutation::new(origin, operations), None),
        };
        Ok(Attempted::Request(
            Request::Mutate {
                mutation,
                ttl: part.ttl(),
                exact,
                take,
            },
            result,
        ))
    }

    async fn send(&self, request: Request, timeout: Duration) -> Result<Answer> {
        let key = self.part.key()?;
        if self.policy == WritePolicy::Confirmed {
            let deadline = Deadline::after(timeout.saturating_sub(self.waited()));
            return self
                .part
                .core()
                .write_within(key, request, self.policy, deadline)
                .await;
        }
        self.part.core().write(key, request, self.policy).await
    }

    fn waited(&self) -> Duration {
        self.waited
            + self
                .part
                .memory()
                .shared()
                .clock
                .mono()
                .saturating_sub(self.started)
    }
}

/// The same change, with paths from the root of `text`.
fn below(text: &str, path: &[PathStep], change: PartChange) -> PartChange {
    match change {
        PartChange::Do(operations) => PartChange::Do(within(text, path, operations)),
        PartChange::Take {
            operations,
            item,
            back,
        } => {
            let back = match back {
                ReturnPath::Nowhere => ReturnPath::Nowhere,
                ReturnPath::Anyway(operation) => ReturnPath::Anyway(operation.below(path)),
                ReturnPath::WhereFree(operation) => ReturnPath::WhereFree(operation.below(path)),
            };
            PartChange::Take {
                operations: within(text, path, operations),
                item,
                back,
            }
        }
        PartChange::Nothing => PartChange::Nothing,
    }
}
