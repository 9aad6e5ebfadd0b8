//! Recording a change at a path: on what this process knows, or on what the backend has; and again
//! if something else turns out to be there.

use std::sync::Arc;
use std::time::Duration;

use super::ValuePath;
use crate::base::backoff::waits_of_read;
use crate::base::callback::is_io_thread;
use crate::base::clock::{Deadline, Monotonic};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::base::waiting::block_on;
use crate::client::reentrancy::ClosureTurn;
use crate::client::state::{KeyView, Request};
use crate::handle::reader::SlotsView;
use crate::pending::outbox::{Answer, Outdated, Precondition, Take, Written};
use crate::value::envelope::Text;
use crate::value::mutation::{
    self, ApplyError, Element, Json, Location, MemberName, Mutation, ObservedValue, Operation,
    PathSegment, PathStep, locate, within,
};

/// How fresh the value has to be on which a change is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// The change says the same whatever is there: the value of a key need not be looked at.
    Any,
    /// What this process knows.
    Known,
    /// What the backend has now.
    Latest,
}

/// What has to be there still when a change is applied. If it is not, the change is withdrawn and
/// recorded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing: it applies to whatever is there.
    Always,
    /// What it saw at the paths that it changes.
    SamePaths,
    /// The whole value that a closure of the user saw. While the backend is away the change is
    /// queued, and compared with what the closure saw when it is sent.
    Closure,
    /// The whole value, out of which an element is taken that the caller did not name. Such a call
    /// is confirmed under every policy.
    Take,
}

/// What is to be changed at a path, with paths from there.
pub(crate) enum PathChange {
    Nothing,
    Do(Vec<Operation>),
    /// Hands the item to the caller; `back` brings it back to where it came from.
    Take {
        operations: Vec<Operation>,
        item: Json,
        back: ReturnPath,
    },
}

/// How a taken element goes back.
pub(crate) enum ReturnPath {
    /// It cannot.
    Nowhere,
    /// To a list, whatever else is in there by then.
    Always(Operation),
    /// To a map, if its key is free.
    IfAbsent(Operation),
}

impl ReturnPath {
    fn mutation(self, origin: Option<Json>) -> Option<Mutation> {
        match self {
            Self::Nowhere => None,
            Self::Always(operation) => Some(Mutation::new(origin, vec![operation])),
            Self::IfAbsent(operation) => {
                // An entry that is there by then is somebody else's, even an equal one.
                let is_absent = Operation {
                    path: operation.path.clone(),
                    action: mutation::Action::Remove {
                        seen: ObservedValue::Absent,
                    },
                };
                Some(Mutation::compared(origin, vec![is_absent, operation]))
            }
        }
    }

    /// The same, with a path from the root.
    fn below(self, path: &[PathStep]) -> Self {
        match self {
            Self::Nowhere => Self::Nowhere,
            Self::Always(operation) => Self::Always(operation.below(path)),
            Self::IfAbsent(operation) => Self::IfAbsent(operation.below(path)),
        }
    }
}

impl PathChange {
    pub(crate) fn one(action: mutation::Action) -> Self {
        Self::Do(vec![Operation {
            path: Vec::new(),
            action,
        }])
    }

    fn operations(&self) -> &[Operation] {
        match self {
            Self::Nothing => &[],
            Self::Do(operations) | Self::Take { operations, .. } => operations,
        }
    }

    /// The same change, with paths from the root of `text`.
    fn below(self, text: &str, path: &[PathStep]) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Do(operations) => Self::Do(within(text, path, operations)),
            Self::Take {
                operations,
                item,
                back,
            } => Self::Take {
                operations: within(text, path, operations),
                item,
                back: back.below(path),
            },
        }
    }
}

/// One call that changes a value: how often it was recorded, on what, and how long that took.
struct Recorder<'a> {
    path: &'a ValuePath,
    freshness: Freshness,
    condition: Condition,
    policy: WritePolicy,
    empty: Option<Json>,
    segments: Arc<[PathSegment]>,
    /// It is recorded on what the backend has answered to this call.
    is_current: bool,
    /// How long it has waited. The time in the user's code does not count.
    waited: Duration,
    waiting_since: Monotonic,
    runs: u32,
    /// How often the backend has refused it.
    refusals: u32,
}

/// On what a change is recorded first.
enum Start {
    /// On what is known, which is all there is to know: the backend is not asked.
    Settled,
    /// On what is known, and again if something else turns out to be there.
    Known,
    /// On what the backend answers.
    Ask,
}

/// What a change is recorded on.
struct Snapshot {
    /// What is stored under the key itself.
    own: KeyView,
    /// The value in it, or what stands for it; none of it if an element is.
    text: Option<Text>,
    /// The element of a long list that the change is in.
    element: Option<(Element, Text)>,
    /// What the value is taken for if there is none.
    origin: Option<Json>,
}

impl Snapshot {
    /// Where a path leads to.
    fn locate<'a>(&'a self, segments: &'a [PathSegment]) -> Result<Location<'a>, ApplyError> {
        let Some((element, text)) = &self.element else {
            let text = self.text.as_ref().map(Text::as_str);
            return locate(text, self.origin.as_ref(), segments);
        };
        let mut location = locate(Some(text.as_str()), None, &segments[1..])?;
        location.path.insert(0, PathStep::Element(element.clone()));
        Ok(location)
    }

    /// A change at a path, as one of the value.
    fn below(&self, change: PathChange, path: &[PathStep]) -> PathChange {
        let text = match (&self.element, &self.own.stored) {
            // To name an element after the first of several operations, all have to be known.
            (Some(_), Some(stored)) if change.operations().len() > 1 => Some(stored.value()),
            _ => self.text.clone(),
        };
        let text = text.as_ref().map(Text::as_str);
        let base = text.or(self.origin.as_ref().map(Json::as_str));
        change.below(base.unwrap_or_default(), path)
    }
}

/// What came of recording a change on a snapshot.
enum PlanOutcome<R> {
    /// There is nothing to change.
    Nothing(R),
    /// The snapshot may be out of date, and has to be taken again.
    Stale,
    Change {
        operations: Vec<Operation>,
        take: Option<Take>,
        result: R,
    },
}

impl ValuePath {
    /// Records a change, and brings it to the backend. `empty`: what the path is taken for if
    /// nothing is there and there is no default. `record` may be called more than once, and is
    /// called without a lock.
    pub(crate) fn record<R>(
        &self,
        freshness: Freshness,
        condition: Condition,
        empty: Option<&str>,
        record: impl FnMut(&Location<'_>) -> Result<(PathChange, R)>,
    ) -> Result<(R, Written)> {
        block_on(self.record_async(freshness, condition, empty, record))
    }

    pub(crate) async fn record_async<R>(
        &self,
        freshness: Freshness,
        condition: Condition,
        empty: Option<&str>,
        mut record: impl FnMut(&Location<'_>) -> Result<(PathChange, R)>,
    ) -> Result<(R, Written)> {
        self.memory().shared().check_open()?;
        let policy = self.policy_here(condition)?;
        // Closures of this process on one key go one after the other: otherwise each would find
        // that another one was made before it.
        let turn = if condition == Condition::Closure {
            let timeout = self.memory().shared().settings.timeout;
            self.core().closures().enter(self.key()?, timeout).await?
        } else {
            None
        };

        let mut recorder = Recorder::begin(self, freshness, (condition, policy), empty).await?;
        loop {
            let snapshot = recorder.snapshot()?;
            let is_running = turn.as_ref().map(ClosureTurn::running);
            let plan = recorder.plan(&snapshot, &mut record)?;
            drop(is_running);
            match plan {
                PlanOutcome::Nothing(result) => return Ok((result, Written::Stored)),
                PlanOutcome::Stale => recorder.ask().await?,
                PlanOutcome::Change {
                    operations,
                    take,
                    result,
                } => {
                    if let Some(written) = recorder.submit(snapshot, operations, take).await? {
                        return Ok((result, written));
                    }
                }
            }
        }
    }

    /// What the change waits for on this thread.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it has to wait, and cannot: on an I/O thread.
    fn policy_here(&self, condition: Condition) -> Result<WritePolicy> {
        // A closure waits for the answer whatever the policy: it may have to run again.
        let policy = match (condition, self.write_policy()) {
            (Condition::Take, _) | (_, WritePolicy::Confirmed) => WritePolicy::Confirmed,
            (Condition::Closure, _) if is_io_thread() => WritePolicy::Confirmed,
            (Condition::Closure, _) => WritePolicy::Through,
            (_, policy) => policy,
        };
        self.core().policy_here(self.key()?, policy)
    }

    /// Records one action.
    pub(crate) fn act(
        &self,
        freshness: Freshness,
        empty: Option<&str>,
        action: impl FnMut(&Location<'_>) -> mutation::Action,
    ) -> Result<Written> {
        block_on(self.act_async(freshness, empty, action))
    }

    pub(crate) async fn act_async(
        &self,
        freshness: Freshness,
        empty: Option<&str>,
        mut action: impl FnMut(&Location<'_>) -> mutation::Action,
    ) -> Result<Written> {
        let record = |location: &Location<'_>| Ok((PathChange::one(action(location)), ()));
        let recorded = self.record_async(freshness, Condition::Always, empty, record);
        Ok(recorded.await?.1)
    }

    /// Whether a read shows writes of this process that the backend has not answered for.
    fn has_queued_writes(&self) -> Result<bool> {
        let state = self.memory().shared().state();
        Ok(self.reader.slots()?.iter().any(|slot| {
            state
                .outbox
                .of(&slot.key)
                .any(|entry| !entry.write.is_confirmed)
        }))
    }

    /// Removes exactly what the backend has under the key and its older names; whether there was
    /// anything. If others change it meanwhile, it looks again.
    pub(crate) async fn delete_now(&self) -> Result<bool> {
        let shared = self.memory().shared();
        let (started, timeout) = (shared.clock.mono(), shared.settings.timeout);
        let mut existed = false;
        loop {
            self.refresh_now().await?;
            // The older names first: the key must not fall back to them in between.
            let deletes = self.reader.stored_by_key()?.into_iter().rev();
            let deletes: Vec<_> = deletes
                .map(|(key, stored)| (key, Request::DeleteOf(stored)))
                .collect();
            let answers = self
                .core()
                .write_together(deletes, WritePolicy::Confirmed)
                .await?;
            let is_made = |answer: &&Answer| answer.outdated.is_none();
            existed |= answers.iter().filter(is_made).any(|made| made.existed);
            let made = answers.iter().filter(is_made).count();
            if made == answers.len() {
                return Ok(existed);
            }

            if shared.clock.mono().saturating_sub(started) >= timeout {
                let kind = if made > 0 {
                    ErrorKind::InDoubt
                } else {
                    ErrorKind::Conflict
                };
                return Err(self.error(kind, changed_again_and_again(timeout)));
            }
        }
    }

    /// The segments, of which the last one is taken for `empty` if it has no default.
    fn segments_with(&self, empty: Option<&Json>) -> Arc<[PathSegment]> {
        match (self.reader.segments().split_last(), empty) {
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
            _ => Arc::clone(self.reader.segments()),
        }
    }
}

impl<'a> Recorder<'a> {
    async fn begin(
        path: &'a ValuePath,
        freshness: Freshness,
        (condition, policy): (Condition, WritePolicy),
        empty: Option<&str>,
    ) -> Result<Self> {
        let empty = empty.and_then(|empty| Json::parse(empty.to_owned()).ok());
        let segments = path.segments_with(empty.as_ref());
        let mut recorder = Self {
            path,
            freshness,
            condition,
            policy,
            empty,
            segments,
            is_current: true,
            waited: Duration::ZERO,
            waiting_since: path.memory().shared().clock.mono(),
            runs: 0,
            refusals: 0,
        };

        match recorder.start()? {
            Start::Settled => {}
            Start::Known => recorder.is_current = false,
            Start::Ask => recorder.ask().await?,
        }
        Ok(recorder)
    }

    fn start(&self) -> Result<Start> {
        let path = self.path;
        if self.policy == WritePolicy::Confirmed && self.condition == Condition::Closure {
            // Code of the user's may rely on what a confirmed read has just said.
            return Ok(Start::Ask);
        }
        if self.policy == WritePolicy::Confirmed {
            // What is known may be out of date: then the answer says so, and it is recorded again.
            let is_enough = self.freshness == Freshness::Any || path.is_known();
            return Ok(if is_enough && !self.must_ask()? {
                Start::Known
            } else {
                Start::Ask
            });
        }
        if self.condition == Condition::Closure {
            // Earlier behind writes go before it, and it is recorded on what they make.
            let is_behind = path.write_policy() == WritePolicy::Behind;
            return Ok(if path.is_local() || is_behind && path.is_known() {
                Start::Known
            } else {
                Start::Ask
            });
        }
        Ok(if self.policy == WritePolicy::Behind && path.is_known() {
            Start::Settled
        } else if self.must_ask()? {
            Start::Ask
        } else {
            Start::Known
        })
    }

    /// Whether nothing would notice that what is known is out of date: the change names what is
    /// there now, and what it names is not compared.
    fn must_ask(&self) -> Result<bool> {
        let names_elements = self
            .segments
            .iter()
            .any(|segment| matches!(segment, PathSegment::Index(_)));
        let is_unchecked =
            self.freshness == Freshness::Latest && self.condition == Condition::Always;
        Ok(names_elements || is_unchecked || self.may_start_from_older_name()?)
    }

    /// Whether nothing is known under the key itself: the change starts from what is under an older
    /// name by now.
    fn may_start_from_older_name(&self) -> Result<bool> {
        let has_older_names = self.path.reader().slots()?.len() > 1;
        Ok(has_older_names && self.path.visible()?.own.stored.is_none())
    }

    /// Asks the backend; for a confirmed call it has to answer.
    async fn ask(&mut self) -> Result<()> {
        match self.policy {
            WritePolicy::Confirmed => self.path.refresh_now().await?,
            WritePolicy::Through | WritePolicy::Behind => self.path.refresh_checked().await?,
        }
        self.is_current = true;
        Ok(())
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let path = self.path;
        if self.condition == Condition::Closure && !path.is_known() {
            return Err(path.unknown());
        }

        // Of many queued pushes in a row, none has to apply those before it.
        let is_any =
            self.freshness == Freshness::Any && path.is_root() && path.reader().slots()?.len() == 1;
        let SlotsView { own, view, .. } = if is_any {
            SlotsView::default()
        } else {
            path.visible()?
        };

        let origin = match &own.stored {
            // What is stored under an older name.
            None if view.stored.is_some() => view
                .value()
                .and_then(|older| Json::parse(older.as_str().to_owned()).ok()),
            _ => (path.root.origin)().or_else(|| self.empty.clone().filter(|_| path.is_root())),
        };
        let element = match (self.segments.first(), &own.stored) {
            (Some(PathSegment::Index(index)), Some(stored)) => stored.named_element(*index),
            _ => None,
        };
        let looked_at = own.stored.as_ref().filter(|_| element.is_none());
        Ok(Snapshot {
            text: looked_at.map(|stored| path.looked_at(stored)),
            element,
            own,
            origin,
        })
    }

    /// Has `record` say what is to be changed in the snapshot.
    fn plan<R>(
        &mut self,
        snapshot: &Snapshot,
        record: &mut impl FnMut(&Location<'_>) -> Result<(PathChange, R)>,
    ) -> Result<PlanOutcome<R>> {
        let location = snapshot.locate(&self.segments);
        if !self.is_current
            && location
                .as_ref()
                .is_ok_and(|location| self.may_miss(location))
        {
            return Ok(PlanOutcome::Stale);
        }

        let clock = &self.path.memory().shared().clock;
        self.waited += clock.mono().saturating_sub(self.waiting_since);
        let planned = location
            .map_err(|error| self.path.apply_error(error))
            .and_then(|mut location| {
                location.is_current = self.is_current;
                let (change, result) = record(&location)?;
                Ok((snapshot.below(change, &location.path), result))
            });
        (self.waiting_since, self.runs) = (clock.mono(), self.runs + 1);

        let (change, result) = match planned {
            Err(error) if self.is_current => return Err(error),
            Err(_) => return Ok(PlanOutcome::Stale),
            Ok(planned) => planned,
        };
        let (operations, take) = match change {
            PathChange::Nothing if !self.is_current => return Ok(PlanOutcome::Stale),
            // What is queued here may yet be superseded. That nothing is to be changed is a fact
            // only if the value is still the same once the backend has answered for that.
            PathChange::Nothing
                if self.policy == WritePolicy::Confirmed && self.path.has_queued_writes()? =>
            {
                (Vec::new(), None)
            }
            PathChange::Nothing => return Ok(PlanOutcome::Nothing(result)),
            PathChange::Do(operations) => (operations, None),
            PathChange::Take {
                operations,
                item,
                back,
            } => {
                let back = back.mutation(snapshot.origin.clone());
                (operations, Some(Take { item, back }))
            }
        };
        Ok(PlanOutcome::Change {
            operations,
            take,
            result,
        })
    }

    /// Whether another program may have stored what is not found here, under another spelling of
    /// its key.
    fn may_miss(&self, location: &Location<'_>) -> bool {
        let has_spellings = |segment: &PathSegment| matches!(segment, PathSegment::Entry(..));
        !location.exists && self.segments.iter().any(has_spellings)
    }

    /// Sends a planned change. `None` if something else was there: it is to be recorded again.
    async fn submit(
        &mut self,
        snapshot: Snapshot,
        operations: Vec<Operation>,
        take: Option<Take>,
    ) -> Result<Option<Written>> {
        let answer = self.send(self.request(snapshot, operations, take)).await?;
        let shared = self.path.memory().shared();
        let timeout = shared.settings.timeout;
        match answer.outdated {
            None => return Ok(Some(answer.written)),
            Some(_) if self.runs > 1 && self.waited() >= timeout => {
                let what = format!(
                    "{}, and refused {} runs",
                    changed_again_and_again(timeout),
                    self.runs
                );
                return Err(Error::of_key(ErrorKind::Conflict, self.path.key()?, what));
            }
            Some(Outdated::ByAnswer) => {
                self.is_current = true;
                self.refusals += 1;
                if let Some(waits) = waits_of_read(self.refusals) {
                    let took = shared.clock.mono().saturating_sub(self.waiting_since);
                    self.path.core().retreat(waits, took).await;
                    // What the answer brought is out of date by now.
                    self.ask().await?;
                }
            }
            Some(Outdated::InView) => {}
        }
        Ok(None)
    }

    fn request(
        &self,
        snapshot: Snapshot,
        operations: Vec<Operation>,
        take: Option<Take>,
    ) -> Request {
        let Snapshot { own, origin, .. } = snapshot;
        let exact = match self.condition {
            // It changes nothing, and confirms that the value is the same.
            _ if operations.is_empty() => Some(Precondition::Whole(own.stored)),
            Condition::Closure | Condition::Take => Some(Precondition::Whole(own.stored)),
            Condition::SamePaths => Some(Precondition::Paths),
            Condition::Always => None,
        };
        let is_compared = self.condition == Condition::Closure && !operations.is_empty();
        let mutation = if is_compared {
            Mutation::compared(origin, operations)
        } else {
            Mutation::new(origin, operations)
        };
        Request::Mutate {
            mutation,
            ttl: self.path.ttl(),
            exact,
            take,
        }
    }

    async fn send(&self, request: Request) -> Result<Answer> {
        let (key, core) = (self.path.key()?, self.path.core());
        if self.policy != WritePolicy::Confirmed {
            return core.write(key, request, self.policy).await;
        }
        let timeout = self.path.memory().shared().settings.timeout;
        let deadline = Deadline::after(timeout.saturating_sub(self.waited()));
        core.write_within(key, request, self.policy, deadline).await
    }

    fn waited(&self) -> Duration {
        let now = self.path.memory().shared().clock.mono();
        self.waited + now.saturating_sub(self.waiting_since)
    }
}

fn changed_again_and_again(timeout: Duration) -> String {
    format!("others have changed it again and again, for {timeout:?}")
}
