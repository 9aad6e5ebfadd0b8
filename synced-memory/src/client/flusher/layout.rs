//! A cluster: which shards there are, and the loop of each.
//!
//! The layout is asked for when something hints that it has changed, and from time to time. Nobody
//! waits for that: requests go by what is known, and servers send them on.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;

use super::Connector;
use crate::backend::Backend;
use crate::backend::error::BackendError;
use crate::backend::layout::{ClusterLayout, LayoutQuery, Node, SLOTS};
use crate::backend::shards::Shard;
use crate::base::callback::call_out;
use crate::base::clock::{Clock, Monotonic};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::events::event;
use crate::client::route::Route;
use crate::client::shared::{LayoutCheck, LayoutWaiter, Routes, Shared};

/// How often the layout is asked for without a hint.
const INTERVAL: Duration = Duration::from_secs(30);

/// How often one server is asked for it if anything is read near or watched: it bounds how long a
/// near read is stale after its slot has moved without a word.
const GLANCE_INTERVAL: Duration = Duration::from_secs(1);

/// The time between two glances is at least so many times what one takes.
const GLANCE_SHARE: u32 = 20;

/// How often it is asked for if there are hints all the time.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// How often, while a shard is not connected: at first, and after [`OUTAGE`].
const OUTAGE_INTERVAL: Duration = Duration::from_millis(250);
const LONG_OUTAGE_INTERVAL: Duration = Duration::from_secs(2);
const OUTAGE: Duration = Duration::from_secs(30);

/// How often, while slots are being moved to a server without any; and how long such a server is
/// used after the last sign of that.
const IMPORT_INTERVAL: Duration = Duration::from_secs(10);
const IMPORTING: Duration = Duration::from_secs(25);

type Asking<'a> = Pin<Box<dyn Future<Output = Result<ClusterLayout, BackendError>> + Send + 'a>>;

/// Runs the loops of all shards of a cluster. `first` gets the outcome of the first try to connect
/// to each of them.
pub(super) async fn run(
    shared: &Shared,
    backend: &dyn Backend,
    first: oneshot::Sender<Result<()>>,
) {
    let mut cluster = ClusterLoops::new(shared, first);
    let mut loops = FuturesUnordered::new();
    let mut first_tries = FuturesUnordered::<oneshot::Receiver<Result<()>>>::new();
    let mut query = LayoutQuery::Vote;
    let mut asking = Some(cluster.ask(backend, query));
    loop {
        tokio::select! {
            Some(shard) = loops.next() => cluster.has_left(shard),
            Some(outcome) = first_tries.next() => {
                // One that left the cluster meanwhile has none.
                let outcome = outcome.unwrap_or(Ok(()));
                cluster.tried(outcome, first_tries.is_empty());
            }
            answer = ready(&mut asking) => {
                asking = None;
                for route in cluster.handle(query, answer) {
                    let (first, outcome) = oneshot::channel();
                    loops.push(Box::pin(run_shard(shared, backend, route, first)));
                    first_tries.push(outcome);
                }
            }
            next = cluster.next_query(), if asking.is_none() => {
                query = next;
                asking = Some(cluster.ask(backend, query));
            }
        }
    }
}

/// Keeps the connection to a shard until it leaves the cluster.
async fn run_shard(
    shared: &Shared,
    backend: &dyn Backend,
    route: Arc<Route>,
    first: oneshot::Sender<Result<()>>,
) -> Shard {
    {
        let mut connector = Connector::new(shared, backend, Arc::clone(&route), Some(first));
        tokio::select! {
            () = connector.keep_connected() => {}
            () = route.leaves.notified() => {}
        }
    }
    let left = BackendError::connection_lost("the server has left the cluster, or has no slots");
    if let Some(connection) = route.connection() {
        connection.end(left.clone());
    }
    let reason = Error::new(left.error_kind(), format!("{}: {left}", route.target));
    shared.lose_connection(&route, &reason);
    route.shard
}

/// Ready with what the future returns; never ready if there is none.
async fn ready(asking: &mut Option<Asking<'_>>) -> Result<ClusterLayout, BackendError> {
    match asking {
        Some(asking) => asking.await,
        None => pending().await,
    }
}

async fn sleep_until(clock: &Clock, until: Monotonic) {
    clock.sleep(until.saturating_sub(clock.mono())).await;
}

/// What is known of a cluster, and of the loops of its shards.
struct ClusterLoops<'a> {
    shared: &'a Shared,
    /// By the number of the shard. A number is used again when its loop has ended.
    numbers: Vec<Option<Node>>,
    /// The numbers of those that have left, and whose loops have not ended.
    leaving: HashSet<Shard>,
    /// The shard of each slot, as the client knows it; servers may have sent it elsewhere since.
    assigned: Vec<Shard>,
    layout: Option<ClusterLayout>,
    /// The servers that slots are being moved to and that have none yet, each with the last sign of
    /// that.
    importing: HashMap<Node, Monotonic>,
    /// How often the layout has changed.
    version: u64,
    /// When it was asked for last, and how long that took.
    asked_at: Monotonic,
    took: Duration,
    /// Since when a shard is not connected.
    outage_since: Option<Monotonic>,
    /// Why it could not be asked for, as it was logged.
    last_failure: Option<String>,
    first: Option<oneshot::Sender<Result<()>>>,
    /// Who waits for what is being asked.
    waiters: Vec<LayoutWaiter>,
}

impl<'a> ClusterLoops<'a> {
    fn new(shared: &'a Shared, first: oneshot::Sender<Result<()>>) -> Self {
        Self {
            shared,
            // That of the keys which nobody serves is never used.
            numbers: vec![None],
            leaving: HashSet::new(),
            assigned: vec![Shard::FIRST; SLOTS],
            layout: None,
            importing: HashMap::new(),
            version: 0,
            asked_at: Monotonic::ZERO,
            took: Duration::ZERO,
            outage_since: None,
            last_failure: None,
            first: Some(first),
            waiters: Vec::new(),
        }
    }

    fn ask(&mut self, backend: &dyn Backend, query: LayoutQuery) -> Asking<'a> {
        self.asked_at = self.shared.clock.mono();
        if query == LayoutQuery::WithMoves {
            self.waiters = self.shared.take_layout_waiters();
        }
        let known = self.layout.as_ref().map_or(&[][..], |layout| &layout.nodes);
        let (asked, limit) = (backend.layout(known, query), self.shared.settings.timeout);
        let clock = &self.shared.clock;
        Box::pin(async move {
            let silent = || {
                BackendError::connection_lost(format_args!(
                    "nobody says within {limit:?} which servers the cluster has"
                ))
            };
            clock
                .timeout(limit, asked)
                .await
                .unwrap_or_else(|| Err(silent()))
        })
    }

    /// What to ask next, when it is time for that.
    async fn next_query(&self) -> LayoutQuery {
        let (shared, clock) = (self.shared, &self.shared.clock);
        sleep_until(clock, self.asked_at + SHORTEST_INTERVAL).await;
        let is_outage = self.outage_since.is_some() || self.layout.is_none();
        let (is_tracking, is_importing) = (shared.is_tracking_wanted(), !self.importing.is_empty());
        let query = if is_tracking && !is_outage && !is_importing {
            LayoutQuery::Glance
        } else {
            LayoutQuery::Vote
        };
        let interval = match self.outage_since {
            Some(since) if clock.mono().saturating_sub(since) > OUTAGE => LONG_OUTAGE_INTERVAL,
            _ if is_outage => OUTAGE_INTERVAL,
            _ if query == LayoutQuery::Glance => GLANCE_INTERVAL.max(self.took * GLANCE_SHARE),
            _ if is_importing && is_tracking => GLANCE_INTERVAL,
            _ if is_importing => IMPORT_INTERVAL,
            _ => INTERVAL,
        };
        tokio::select! {
            () = shared.layout_wanted.notified() => {
                if shared.has_layout_waiters() {
                    LayoutQuery::WithMoves
                } else {
                    LayoutQuery::Vote
                }
            }
            () = sleep_until(clock, self.asked_at + interval) => query,
        }
    }

    /// Handles what was answered to a query. Returns the ways to the new shards.
    fn handle(
        &mut self,
        query: LayoutQuery,
        answer: Result<ClusterLayout, BackendError>,
    ) -> Vec<Arc<Route>> {
        self.took = self.shared.clock.mono().saturating_sub(self.asked_at);
        match answer {
            Err(error) => {
                self.failed(&error);
                Vec::new()
            }
            Ok(seen) if query == LayoutQuery::Glance => {
                // One server may be wrong, or cut off: all of them are asked.
                if self
                    .layout
                    .as_ref()
                    .is_none_or(|known| !known.says_the_same(&seen))
                {
                    self.shared.layout_wanted.notify_one();
                }
                Vec::new()
            }
            Ok(layout) => self.apply(layout),
        }
    }

    fn failed(&mut self, error: &BackendError) {
        let shared = self.shared;
        let failure = Error::new(error.error_kind(), format!("{}: {error}", shared.target));
        shared.state().failed(Shard::FIRST, failure.clone());
        let what = error.to_string();
        if self.last_failure.as_ref() != Some(&what) {
            self.last_failure = Some(what.clone());
            shared.emit(|target| {
                event!(WARN, target = &*target, error = %what, "the layout of the cluster is not known")
            });
        }
        for waiter in std::mem::take(&mut self.waiters) {
            call_out(|| _ = waiter.send(Err(error.clone())));
        }
        if self.layout.is_none() {
            self.report_first(Err(failure));
        }
    }

    fn apply(&mut self, layout: ClusterLayout) -> Vec<Arc<Route>> {
        let shared = self.shared;
        self.last_failure = None;
        let known = self.layout.as_ref();
        if known.is_none_or(|known| !known.says_the_same(&layout)) {
            self.version += 1;
        }

        let mut nodes = layout.nodes.clone();
        nodes.extend(self.importing(&layout));
        let (added, shards) = self.number(&nodes);
        let assigned: Vec<Shard> = (0..SLOTS)
            .map(|slot| layout.shard_of_slot(slot, &shards))
            .collect();
        let before = shared.routes();
        let left: Vec<_> = before
            .iter()
            .filter(|route| !shards.contains(&route.shard) && !self.leaving.contains(&route.shard))
            .cloned()
            .collect();
        let new: Vec<_> = added
            .iter()
            .map(|(shard, node)| {
                let target = format!("{} at {node}", shared.target);
                Arc::new(Route::new(*shard, node.clone(), target.into()))
            })
            .collect();
        let kept = before.iter().chain(&new).cloned().collect();
        let mut in_order: Vec<Shard> = Vec::new();
        for shard in assigned.iter().filter(|shard| **shard != Shard::FIRST) {
            // Slots come in ranges.
            if in_order.last() != Some(shard) && !in_order.contains(shard) {
                in_order.push(*shard);
            }
        }
        let is_complete = !assigned.contains(&Shard::FIRST);
        let importing = shards[layout.nodes.len()..].to_vec();
        let routes = Routes::new(kept, in_order, is_complete);
        shared.set_routes(routes.with_importing(importing));
        let has_moved = {
            let mut state = shared.state();
            for (shard, node) in &added {
                state.add_shard(*shard, node);
            }
            let known = self.assigned.iter().zip(&assigned);
            let slots = (0..)
                .zip(known)
                .map(|(slot, (before, now))| (slot, *before, *now));
            let has_moved = state.lay_out(slots, shared.clock.mono());
            for route in &left {
                state.leaves(route.shard);
            }
            has_moved
        };
        for route in left {
            self.leaving.insert(route.shard);
            route.leaves.notify_one();
        }
        if has_moved {
            shared.wake_all();
        }
        self.assigned = assigned;
        let check = LayoutCheck {
            version: self.version,
            is_moving: layout.is_moving,
        };
        for waiter in std::mem::take(&mut self.waiters) {
            call_out(|| _ = waiter.send(Ok(check)));
        }
        self.layout = Some(layout);
        self.note_outage();
        if new.is_empty() && self.numbers.iter().flatten().next().is_none() {
            let reason = "the cluster has no server with slots";
            self.report_first(Err(Error::new(ErrorKind::Unavailable, reason)));
        }
        new
    }

    /// The servers without slots that have keys of slots which are being moved there: their first
    /// ones.
    fn importing(&mut self, layout: &ClusterLayout) -> Vec<Node> {
        let mono = self.shared.clock.mono();
        let asked = self.shared.state().take_importing();
        for node in asked.into_iter().chain(layout.importing.iter().cloned()) {
            self.importing.insert(node, mono);
        }
        self.importing.retain(|node, last| {
            !layout.nodes.contains(node) && mono.saturating_sub(*last) < IMPORTING
        });
        self.importing.keys().cloned().collect()
    }

    /// Numbers the servers. Returns those that have a new number, and the shard of each.
    fn number(&mut self, nodes: &[Node]) -> (Vec<(Shard, Node)>, Vec<Shard>) {
        let mut added = Vec::new();
        let mut shards = Vec::with_capacity(nodes.len());
        for node in nodes {
            let is_it = |(number, known): (usize, &Option<Node>)| {
                known.as_ref() == Some(node) && !self.leaving.contains(&Shard::of_index(number))
            };
            let known = self.numbers.iter().enumerate().position(is_it);
            let number = known.unwrap_or_else(|| {
                let is_free = |known: &Option<Node>| known.is_none();
                let free = self.numbers.iter().skip(1).position(is_free);
                let number = free.map_or(self.numbers.len(), |at| at + 1);
                if number == self.numbers.len() {
                    self.numbers.push(None);
                }
                self.numbers[number] = Some(node.clone());
                added.push((Shard::of_index(number), node.clone()));
                number
            });
            shards.push(Shard::of_index(number));
        }
        (added, shards)
    }

    /// The loop of a shard has ended.
    fn has_left(&mut self, shard: Shard) {
        self.shared.state().remove_shard(shard);
        let routes = self.shared.routes().without(shard);
        self.shared.set_routes(routes);
        self.leaving.remove(&shard);
        if let Some(node) = self.numbers.get_mut(shard.index()) {
            *node = None;
        }
        // What it was to be sent goes elsewhere.
        self.shared.wake_all();
    }

    /// One more of the first tries to connect is over.
    fn tried(&mut self, outcome: Result<()>, is_last: bool) {
        self.note_outage();
        match outcome {
            Err(error) if error.kind() == ErrorKind::Rejected => self.report_first(Err(error)),
            outcome if is_last => self.report_first(outcome),
            _ => {}
        }
    }

    fn report_first(&mut self, outcome: Result<()>) {
        if let Some(first) = self.first.take() {
            let _ = first.send(outcome);
        }
    }

    fn note_outage(&mut self) {
        if self.shared.is_connected() {
            self.outage_since = None;
        } else {
            let mono = self.shared.clock.mono();
            self.outage_since.get_or_insert(mono);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::error::BackendErrorKind;
    use crate::backend::layout::{Redirect, slot_of};
    use crate::backend::shards::ShardMap;
    use crate::base::policy::WritePolicy;
    use crate::base::settings::Settings;
    use crate::cache::Tracking;
    use crate::client::state::Request;
    use crate::value::envelope::Unsealed;

    fn shared() -> Shared {
        let (settings, map) = (Settings::default(), ShardMap::cluster());
        Shared::with_clock(settings, "test", map, None, Clock::mock()).unwrap()
    }

    fn node(host: &str) -> Node {
        let host = host.into();
        Node { host, port: 1 }
    }

    /// The slots are at these hosts, in turn.
    fn layout(hosts: &[&str]) -> ClusterLayout {
        let index = |slot| u16::try_from(slot % hosts.len()).ok();
        ClusterLayout {
            nodes: hosts.iter().map(|host| node(host)).collect(),
            slots: (0..SLOTS).map(index).collect(),
            is_moving: false,
            importing: Vec::new(),
        }
    }

    /// A server sends us elsewhere with a request for `key`.
    fn redirect(shared: &Shared, key: &str, to: &str) -> Option<Shard> {
        let redirect = Redirect {
            slot: slot_of(key),
            node: node(to),
        };
        let error = BackendError::redirected(BackendErrorKind::Moved, redirect, "MOVED");
        let to = shared.state().redirected(&error);
        to.map(|(shard, _)| shard)
    }

    fn write(shared: &Shared, key: &str) {
        let value = Unsealed::of_text("1");
        let request = Request::Put { value, ttl: None };
        let at = shared.clock.at();
        let mut state = shared.state();
        state
            .write(&key.into(), request, WritePolicy::Behind, at)
            .unwrap();
    }

    #[test]
    fn what_is_in_line_at_a_server_that_has_its_slot_no_more_is_in_line_where_the_slot_is() {
        let shared = shared();
        let (first, _outcome) = oneshot::channel();
        let mut cluster = ClusterLoops::new(&shared, first);
        cluster.apply(layout(&["a", "b"]));
        let home = shared.map.shard_of("k");
        let mut elsewhere = ["a", "b"]
            .map(|host| redirect(&shared, "k", host))
            .into_iter();
        let other = elsewhere.find(|shard| *shard != Some(home)).flatten();
        shared.map.assign(slot_of("k"), other.unwrap());
        write(&shared, "k");

        // The layout says the same as before: the other server was wrong, or has lost the slot.
        cluster.apply(layout(&["a", "b"]));
        assert_eq!(shared.map.shard_of("k"), home);
        let ready: Vec<_> = shared.state().outbox.ready_shards().collect();
        assert_eq!(ready, [home]);
    }

    #[test]
    fn nobody_is_sent_to_a_server_that_leaves() {
        let shared = shared();
        let (first, _outcome) = oneshot::channel();
        let mut cluster = ClusterLoops::new(&shared, first);
        cluster.apply(layout(&["a", "b"]));
        assert!(redirect(&shared, "k", "b").is_some());
        cluster.apply(layout(&["a"]));
        assert_eq!(redirect(&shared, "k", "b"), None);
        // It comes back before the loop of its shard has ended.
        cluster.apply(layout(&["a", "b"]));
        let leaving: Vec<_> = cluster.leaving.iter().copied().collect();
        let again = redirect(&shared, "k", "b").unwrap();
        assert!(!leaving.contains(&again) && !leaving.is_empty());
        cluster.has_left(leaving[0]);
        assert_eq!(redirect(&shared, "k", "b"), Some(again));
    }

    #[test]
    fn a_server_that_has_left_says_nothing_of_whether_changes_are_tracked() {
        let shared = shared();
        let (first, _outcome) = oneshot::channel();
        let mut cluster = ClusterLoops::new(&shared, first);
        let mono = shared.clock.mono();
        let shards = cluster.apply(layout(&["a", "b"]));
        for route in &shards {
            shared
                .state()
                .cache
                .tracked(route.shard, Tracking::On, mono);
        }
        cluster.apply(layout(&["a"]));
        let left = &shards[1];
        let reason = Error::new(ErrorKind::Unavailable, "on purpose");
        shared.lose_connection(left, &reason);
        cluster.has_left(left.shard);
        assert_eq!(shared.state().cache.tracking(mono), Tracking::On);
        cluster.apply(layout(&["a", "b"]));
        assert_eq!(shared.state().cache.tracking(mono), Tracking::Off);
    }
}
