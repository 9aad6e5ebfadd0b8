//! The sentinels of a service: one light connection to each, over which it is asked, and says that
//! the primary was replaced. They outlive the sessions: in an outage they show the new primary.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{AsyncConnectionConfig, ConnectionAddr, Pipeline, PushInfo, PushKind, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::line::{Line, OpenStage, ServerLogin};
use super::super::{ask, ask_one, reply};
use super::answer::{self, SentinelAnswer};
use super::choice::{NamedPrimary, choose};
use crate::backend::error::BackendError;
use crate::backend::layout::Node;
use crate::base::address_map::AddressMap;
use crate::base::clock::Deadline;
use crate::base::lock::{LockGuard, lock};

/// What a sentinel tells everybody when it has another primary.
const CHANNEL: &str = "+switch-master";

/// The time between two signs of life of a sentinel, and between two tries to reach one.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// After how many of these it is asked again, in case that it told nothing.
const ASKED_AGAIN: u32 = 5;

/// How long others may take, once one sentinel has named a primary.
const WINDOW: Duration = Duration::from_millis(100);

/// How many sentinels are connected to at most. Those of the URL always are.
const MOST: usize = 16;

/// The sentinels, and what they say.
pub(super) struct Sentinels {
    service: String,
    login: ServerLogin,
    addresses: Option<AddressMap>,
    /// How long a sentinel may take to answer.
    limit: Duration,
    known: Mutex<Known>,
    /// Each round asks all sentinels once.
    rounds: watch::Sender<u64>,
    /// Something in `known` has changed.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    sentinels: Vec<KnownSentinel>,
    /// What connects to each of them.
    watchers: HashMap<Node, Watcher>,
}

struct KnownSentinel {
    node: Node,
    /// It is in the URL.
    is_seed: bool,
    /// What the connection waits for that is being opened.
    stage: Arc<OpenStage>,
    /// Of the last round that it answered, or did not.
    round: u64,
    /// What it says, as long as its connection is there.
    answer: Option<SentinelAnswer>,
    /// What it said last.
    last: Option<SentinelAnswer>,
    failure: Option<BackendError>,
}

/// It ends when this is dropped.
struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why there is no primary.
pub(super) struct NoPrimary {
    /// For each sentinel.
    pub(super) text: String,
    /// All of them have answered, and would answer the same.
    pub(super) is_for_good: bool,
    /// All of them have answered that they do not know the service.
    pub(super) is_unknown: bool,
}

/// A connection to a sentinel, and whether it has told us anything.
struct SentinelLine {
    line: Line,
    /// Counts what it told; `None` when the connection is closed.
    told: watch::Receiver<Option<u64>>,
}

impl KnownSentinel {
    fn new(node: Node, is_seed: bool) -> Self {
        Self {
            node,
            is_seed,
            stage: Arc::default(),
            round: 0,
            answer: None,
            last: None,
            failure: None,
        }
    }
}

impl Known {
    fn new(seeds: impl IntoIterator<Item = Node>) -> Self {
        let mut known = Self::default();
        for node in seeds {
            if known.sentinels.iter().all(|sentinel| sentinel.node != node) {
                known.sentinels.push(KnownSentinel::new(node, true));
            }
        }
        known
    }

    /// Takes in the sentinels that others name, and drops those that nobody names any more. One
    /// that is known by another address, by its id, is not taken in twice.
    fn learn(&mut self) {
        let seeds = self.sentinels.iter().filter(|sentinel| sentinel.is_seed);
        let mut nodes: HashSet<_> = seeds.clone().map(|seed| seed.node.clone()).collect();
        let last = seeds.filter_map(|seed| seed.last.as_ref()?.id.clone());
        let mut ids: HashSet<String> = last.collect();
        let mut learned = Vec::new();
        for last in self
            .sentinels
            .iter()
            .filter_map(|known| known.last.as_ref())
        {
            for peer in &last.peers {
                let has_room = nodes.len() < MOST;
                if has_room && ids.insert(peer.id.clone()) && nodes.insert(peer.node.clone()) {
                    learned.push(peer.node.clone());
                }
            }
        }
        self.sentinels
            .retain(|known| known.is_seed || learned.contains(&known.node));
        for node in learned {
            if self.sentinels.iter().all(|known| known.node != node) {
                self.sentinels.push(KnownSentinel::new(node, false));
            }
        }
        let sentinels = &self.sentinels;
        self.watchers
            .retain(|node, _| sentinels.iter().any(|known| known.node == *node));
    }

    fn find(&mut self, node: &Node) -> Option<&mut KnownSentinel> {
        self.sentinels.iter_mut().find(|known| known.node == *node)
    }

    fn choose(&self, current: Option<&NamedPrimary>) -> Option<NamedPrimary> {
        let answers = self.sentinels.iter().map(|known| known.answer.as_ref());
        let is_everyone_heard = answers.clone().all(|answer| answer.is_some());
        let named: Vec<_> = answers
            .flatten()
            .filter_map(|answer| answer.primary.clone())
            .collect();
        choose(&named, is_everyone_heard, current)
    }
}

impl Sentinels {
    pub(super) fn new(
        seeds: impl IntoIterator<Item = Node>,
        service: String,
        login: ServerLogin,
        addresses: Option<AddressMap>,
        limit: Duration,
    ) -> Self {
        Self {
            service,
            login,
            addresses,
            limit: limit.clamp(HEARTBEAT, 5 * HEARTBEAT),
            known: Mutex::new(Known::new(seeds)),
            rounds: watch::Sender::default(),
            changed: watch::Sender::default(),
        }
    }

    fn known(&self) -> LockGuard<'_, Known> {
        lock(&self.known)
    }

    pub(super) fn login(&self) -> &ServerLogin {
        &self.login
    }

    /// Ends all connections to sentinels.
    pub(super) fn end(&self) {
        let watchers = std::mem::take(&mut self.known().watchers);
        drop(watchers);
    }

    /// Asks all sentinels, and chooses among what they say. It takes at most `limit`. `current`: as
    /// for [`choose`].
    pub(super) async fn resolve(
        self: &Arc<Self>,
        current: Option<&NamedPrimary>,
        limit: Duration,
    ) -> Result<NamedPrimary, NoPrimary> {
        let mut changed = self.changed.subscribe();
        let mut round = 0;
        self.rounds.send_modify(|number| {
            *number += 1;
            round = *number;
        });
        self.connect_to_all();

        let end = Deadline::after(limit);
        let mut window = None;
        loop {
            let (is_anyone_missing, is_anything_named) = {
                let known = self.known();
                let mut answered = known.sentinels.iter().filter(|known| known.round >= round);
                (
                    answered.clone().count() < known.sentinels.len(),
                    answered.any(|known| {
                        let answer = known.answer.as_ref();
                        answer.is_some_and(|answer| answer.primary.is_some())
                    }),
                )
            };
            if is_anything_named && window.is_none() {
                window = Some(Deadline::after(WINDOW.min(end.remaining())));
            }
            let remaining = window.unwrap_or(end).remaining();
            if !is_anyone_missing
                || remaining.is_zero()
                || timeout(remaining, changed.changed()).await.is_err()
            {
                break;
            }
        }
        let chosen = self.known().choose(current);
        chosen.ok_or_else(|| self.no_primary(round, limit))
    }

    fn no_primary(&self, round: u64, limit: Duration) -> NoPrimary {
        let known = self.known();
        let (mut is_for_good, mut is_unknown) = (true, true);
        let mut said = Vec::new();
        for KnownSentinel {
            node,
            stage,
            round: answered,
            answer,
            failure,
            ..
        } in &known.sentinels
        {
            let has_answered = *answered >= round;
            let is_rejected = failure.as_ref().is_some_and(BackendError::is_rejected);
            is_unknown &= answer.is_some();
            is_for_good &= has_answered && (answer.is_some() || is_rejected);
            said.push(match (failure, answer) {
                (Some(failure), _) => format!("{node}: {failure}"),
                (None, Some(_)) => format!("{node}: no such service"),
                (None, None) => format!("{node}: {}", self.login.unanswered(stage, limit)),
            });
        }
        NoPrimary {
            text: said.join("; "),
            is_for_good,
            is_unknown,
        }
    }

    /// Ready when the sentinels name another primary than `current`.
    pub(super) async fn replaced(&self, current: Option<&NamedPrimary>) -> NamedPrimary {
        let mut changed = self.changed.subscribe();
        loop {
            let chosen = self.known().choose(current);
            if let Some(chosen) = chosen
                && current.is_none_or(|current| current.node != chosen.node)
            {
                return chosen;
            }
            // The sender is in here.
            let _ = changed.changed().await;
        }
    }

    /// Why no sentinel answers; `None` if any does, or it is not known yet.
    pub(super) fn silence(&self) -> Option<String> {
        let known = self.known();
        let failures = known.sentinels.iter().map(|known| {
            let failure = known.failure.as_ref()?;
            Some(format!("{}: {failure}", known.node))
        });
        let failures: Option<Vec<_>> = failures.collect();
        failures.map(|failures| failures.join("; "))
    }

    /// Starts what connects to the sentinels that nothing connects to.
    fn connect_to_all(self: &Arc<Self>) {
        let mut known = self.known();
        let nodes: Vec<_> = known.sentinels.iter().map(|known| &known.node).collect();
        let is_watched = |node: &Node| {
            let watcher = known.watchers.get(node);
            watcher.is_some_and(|watcher| !watcher.0.is_finished())
        };
        let unwatched = nodes.into_iter().filter(|node| !is_watched(node));
        let unwatched: Vec<_> = unwatched.cloned().collect();
        for node in unwatched {
            let watch = Arc::clone(self).watch(node.clone());
            let watcher = Watcher(tokio::spawn(watch));
            known.watchers.insert(node, watcher);
        }
    }

    /// Asks a sentinel whenever it is to be asked, over one connection after the other.
    async fn watch(self: Arc<Self>, node: Node) {
        let mut rounds = self.rounds.subscribe();
        loop {
            let mut round = *rounds.borrow_and_update();
            let failure = match self.use_connection(&node, &mut rounds, &mut round).await {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            self.note(&node, round, Err(failure));
            tokio::select! {
                () = sleep(HEARTBEAT) => {}
                _ = rounds.changed() => {}
            }
        }
    }

    async fn use_connection(
        self: &Arc<Self>,
        node: &Node,
        rounds: &mut watch::Receiver<u64>,
        round: &mut u64,
    ) -> Result<Infallible, BackendError> {
        let mut sentinel = self.open(node).await?;
        loop {
            sentinel.told.mark_unchanged();
            *round = *rounds.borrow_and_update();
            let answer = self.within_limit(self.ask(node, &sentinel)).await?;
            self.note(node, *round, Ok(answer));

            let mut heartbeats = 0;
            while heartbeats < ASKED_AGAIN {
                tokio::select! {
                    told = sentinel.told.changed() => {
                        if told.is_err() || sentinel.told.borrow().is_none() {
                            return Err(BackendError::connection_lost("the connection was closed"));
                        }
                        break;
                    }
                    _ = rounds.changed() => break,
                    () = sleep(HEARTBEAT) => {
                        heartbeats += 1;
                        let ping = ask_one(sentinel.line.requests.clone(), redis::cmd("PING"));
                        self.within_limit(ping).await?;
                    }
                }
            }
        }
    }

    async fn within_limit<T>(
        &self,
        answer: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let limit = self.limit;
        timeout(limit, answer).await.unwrap_or_else(|_| {
            Err(BackendError::connection_lost(format_args!(
                "no answer within {limit:?}"
            )))
        })
    }

    /// Connects to a sentinel, and subscribes to what it tells: before it is asked, so that nothing
    /// is missed in between.
    async fn open(&self, node: &Node) -> Result<SentinelLine, BackendError> {
        let (sender, told) = watch::channel(Some(0));
        let service = format!("{} ", self.service);
        let on_push = move |push: PushInfo| {
            match push.kind {
                PushKind::Disconnection => _ = sender.send_replace(None),
                PushKind::Message if is_about(&push.data, &service) => {
                    sender.send_modify(|count| *count = count.map(|count| count + 1));
                }
                _ => {}
            }
            Ok::<(), Infallible>(())
        };
        let config = AsyncConnectionConfig::new().set_push_sender(on_push);
        let address = ConnectionAddr::Tcp(node.host.to_string(), node.port);
        let stage = self
            .known()
            .find(node)
            .map(|known| Arc::clone(&known.stage));
        let stage = stage.unwrap_or_default();
        let opened = timeout(self.limit, self.login.open(&address, config, &stage)).await;
        let (line, _) =
            opened.unwrap_or_else(|_| Err(self.login.unanswered(&stage, self.limit)))?;
        let mut requests = line.requests.clone();
        let subscribed = async {
            match requests.subscribe(CHANNEL).await {
                // Without the right to it, what is asked has to do.
                Err(error) if error.code().is_none() => Err(reply::backend_error(&error)),
                Ok(()) | Err(_) => Ok(()),
            }
        };
        self.within_limit(subscribed).await?;
        Ok(SentinelLine { line, told })
    }

    async fn ask(
        &self,
        node: &Node,
        sentinel: &SentinelLine,
    ) -> Result<SentinelAnswer, BackendError> {
        let mut questions = Pipeline::with_capacity(4);
        answer::add_questions(&mut questions, &self.service);
        let answers = ask(sentinel.line.requests.clone(), questions).await?;
        answer::answer(answers, self.addresses.as_ref()).map_err(|error| {
            if !reply::is_unknown_command(&error) {
                return error;
            }
            BackendError::rejected(format_args!(
                "it is no sentinel; if it is the server that is meant, write redis://{node}"
            ))
        })
    }

    fn note(
        self: &Arc<Self>,
        node: &Node,
        round: u64,
        answered: Result<SentinelAnswer, BackendError>,
    ) {
        let mut locked = self.known();
        let Some(known) = locked.find(node) else {
            return;
        };
        known.round = round;
        match answered {
            Ok(answer) => {
                known.failure = None;
                known.last = Some(answer.clone());
                known.answer = Some(answer);
                locked.learn();
                drop(locked);
                self.connect_to_all();
            }
            Err(failure) => {
                known.answer = None;
                known.failure = Some(failure);
                drop(locked);
            }
        }
        self.changed.send_replace(());
    }
}

/// Whether a message of the channel is about a service: it begins with its name.
fn is_about(message: &[Value], service: &str) -> bool {
    match message.last() {
        Some(Value::BulkString(text)) => text.starts_with(service.as_bytes()),
        Some(Value::SimpleString(text)) => text.starts_with(service),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Peer;
    use super::*;

    fn at(port: u16) -> Node {
        Node {
            host: "h".into(),
            port,
        }
    }

    fn answer_of(id: &str, peers: &[(&str, u16)]) -> SentinelAnswer {
        let peers = peers.iter().map(|(id, port)| Peer {
            id: (*id).to_owned(),
            node: at(*port),
        });
        SentinelAnswer {
            primary: None,
            id: Some(id.to_owned()),
            peers: peers.collect(),
        }
    }

    fn hear(known: &mut Known, port: u16, answer: SentinelAnswer) {
        let sentinel = known.find(&at(port)).unwrap();
        sentinel.last = Some(answer.clone());
        sentinel.answer = Some(answer);
        known.learn();
    }

    fn ports(known: &Known) -> Vec<u16> {
        known
            .sentinels
            .iter()
            .map(|known| known.node.port)
            .collect()
    }

    #[test]
    fn sentinels_that_others_name_are_taken_in_once_and_dropped_when_nobody_names_them() {
        // One is there by a name, and others call it by its address.
        let mut known = Known::new([at(1), at(2), at(1)]);
        assert_eq!(ports(&known), [1, 2]);
        hear(&mut known, 1, answer_of("a", &[("b", 20), ("c", 30)]));
        assert_eq!(ports(&known), [1, 2, 20, 30]);
        hear(&mut known, 2, answer_of("b", &[("a", 10), ("c", 30)]));
        assert_eq!(ports(&known), [1, 2, 30], "the second is `b`");
        hear(
            &mut known,
            30,
            answer_of("c", &[("a", 10), ("b", 20), ("d", 40)]),
        );
        assert_eq!(ports(&known), [1, 2, 30, 40]);
        hear(&mut known, 30, answer_of("c", &[("a", 10), ("b", 20)]));
        assert_eq!(ports(&known), [1, 2, 30]);
    }

    #[test]
    fn there_is_a_bound_to_how_many_are_taken_in() {
        let mut known = Known::new([at(1)]);
        let names: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        let peers: Vec<_> = names.iter().map(String::as_str).zip(100..).collect();
        hear(&mut known, 1, answer_of("a", &peers));
        assert_eq!(ports(&known).len(), MOST);
    }

    #[test]
    fn a_message_is_about_the_service_that_it_begins_with() {
        let message = |text: &str| {
            vec![
                Value::BulkString(b"+switch-master".to_vec()),
                Value::BulkString(text.into()),
            ]
        };
        assert!(is_about(&message("m 10.0.0.1 1 10.0.0.2 2"), "m "));
        assert!(!is_about(&message("m2 10.0.0.1 1 10.0.0.2 2"), "m "));
        assert!(!is_about(&[], "m "));
    }
}
