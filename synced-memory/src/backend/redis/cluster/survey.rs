//! Asking nodes for the layout, over the connections of sessions or over others.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline};
use tokio::time::timeout;

use super::layout::{NodeAnswer, import_targets, is_moving, slot_ranges, vote};
use super::{Cluster, address_of};
use crate::backend::error::BackendError;
use crate::backend::layout::{ClusterLayout, LayoutQuery, Node};
use crate::backend::redis::line::{OpenStage, ServerLogin};
use crate::backend::redis::{ask, reply};
use crate::base::clock::Deadline;
use crate::base::lock::lock;

/// How many nodes are asked for a vote.
const VOTERS: usize = 5;

/// How many nodes are tried, one after the other, when one is to be asked.
const GLANCES: usize = 3;

/// How long the others are waited for once as many nodes have answered as are needed.
const GRACE: Duration = Duration::from_millis(100);

/// How the nodes of a cluster are asked.
pub(super) struct Survey {
    pub(super) login: Arc<ServerLogin>,
    /// The cluster, for messages.
    pub(super) target: String,
    /// How long it may take as a whole.
    pub(super) timeout: Duration,
    pub(super) cluster: Arc<Cluster>,
}

/// What some nodes answered.
#[derive(Default)]
struct Answers {
    /// In the order in which they arrived.
    answers: Vec<NodeAnswer>,
    errors: Vec<BackendError>,
}

/// What a node is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Slots,
    SlotsAndMoves,
}

/// How many answers are needed.
#[derive(Clone, Copy)]
enum Quorum {
    One,
    Most,
}

impl Survey {
    /// The layout by what nodes say. `known`: the primaries of the last one.
    ///
    /// # Errors
    ///
    /// `Rejected` if there is no cluster, or no right to ask; otherwise that nobody answers.
    pub(super) async fn layout(
        &self,
        known: Vec<Node>,
        query: LayoutQuery,
    ) -> Result<ClusterLayout, BackendError> {
        let end = Deadline::after(self.timeout);
        if !known.is_empty() {
            self.cluster.keep_lines_of(&known);
        }
        let mut errors = Vec::new();
        if query == LayoutQuery::Glance {
            match self.glance(&known, end).await {
                Ok(answer) => return self.decided(&[answer]),
                Err(of_nodes) => errors.extend(of_nodes),
            }
        } else {
            let question = match query {
                LayoutQuery::WithMoves => Question::SlotsAndMoves,
                _ => Question::Slots,
            };
            let asked = match query {
                LayoutQuery::WithMoves => known.clone(),
                _ => self.voters(&known),
            };
            let half = end.remaining() / 2;
            let half = Deadline::after(half);
            let found = self.ask_all(&asked, question, Quorum::Most, half).await;
            let layout = self.completed(found.answers, &asked, question, end).await;
            if let Some(layout) = layout {
                return layout;
            }
            errors.extend(found.errors);
        }

        // Nobody who was known answers.
        let seeds = &self.cluster.seeds;
        let found = self.ask_all(seeds, Question::Slots, Quorum::One, end).await;
        errors.extend(found.errors);
        let question = match query {
            LayoutQuery::WithMoves => Question::SlotsAndMoves,
            _ => Question::Slots,
        };
        match self.completed(found.answers, &[], question, end).await {
            Some(layout) => layout,
            None => Err(self.unanswered(&known, errors)),
        }
    }

    /// What was decided by these answers; `None` if there are none. If it is asked for moves, the
    /// primaries that were not `asked` are asked now.
    async fn completed(
        &self,
        mut answers: Vec<NodeAnswer>,
        asked: &[Node],
        question: Question,
        end: Deadline,
    ) -> Option<Result<ClusterLayout, BackendError>> {
        if answers.is_empty() {
            return None;
        }
        let layout = self.decided(&answers);
        let Ok(layout) = layout else {
            return Some(layout);
        };
        if question == Question::Slots {
            return Some(Ok(layout));
        }
        let others: Vec<_> = layout
            .nodes
            .iter()
            .filter(|node| !asked.contains(node))
            .cloned()
            .collect();
        let unanswered = asked.len().saturating_sub(answers.len());
        let of_others = self.ask_all(&others, question, Quorum::Most, end).await;
        let silent = unanswered + of_others.errors.len();
        answers.extend(of_others.answers);
        Some(self.decided(&answers).map(|layout| ClusterLayout {
            // Who does not answer may be moving slots.
            is_moving: layout.is_moving || silent > 0,
            ..layout
        }))
    }

    /// Asks one node, another one each time, and others if it does not answer.
    async fn glance(&self, known: &[Node], end: Deadline) -> Result<NodeAnswer, Vec<BackendError>> {
        let mut errors = Vec::new();
        let first = self.cluster.next_glance();
        for step in 0..GLANCES.min(known.len()) {
            let node = &known[(first + step) % known.len()];
            // So much that the others still have time.
            let limit = end.remaining() / 2;
            match self.ask_within(node, Question::Slots, limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => errors.push(error),
            }
        }
        Err(errors)
    }

    /// The nodes that are asked for a vote: not always the same.
    fn voters(&self, known: &[Node]) -> Vec<Node> {
        let first = if known.len() > VOTERS {
            self.cluster.next_glance()
        } else {
            0
        };
        let places = (0..VOTERS.min(known.len())).map(|step| (first + step) % known.len());
        places.map(|place| known[place].clone()).collect()
    }

    fn decided(&self, answers: &[NodeAnswer]) -> Result<ClusterLayout, BackendError> {
        let layout = vote(answers, &self.cluster.moved_lately());
        if layout.nodes.is_empty() {
            return Err(BackendError::unavailable(format_args!(
                "no server of {} has any slot: is the cluster being made?",
                self.target
            )));
        }
        Ok(layout)
    }

    /// Asks all these nodes at once. It ends when all have answered or failed, shortly after as
    /// many have answered as are needed, or at `end`: a server that hangs is not waited for.
    async fn ask_all(
        &self,
        nodes: &[Node],
        question: Question,
        quorum: Quorum,
        end: Deadline,
    ) -> Answers {
        let needed = match quorum {
            Quorum::One => 1,
            Quorum::Most => nodes.len() / 2 + 1,
        };
        let limit = end.remaining();
        let mut asked: FuturesUnordered<_> = nodes
            .iter()
            .map(|node| self.ask_within(node, question, limit))
            .collect();
        let mut found = Answers::default();
        let mut wait = end;
        while let Ok(Some(answer)) = timeout(wait.remaining(), asked.next()).await {
            match answer {
                Ok(answer) => {
                    found.answers.push(answer);
                    if found.answers.len() == needed {
                        wait = Deadline::after(GRACE.min(end.remaining()));
                    }
                }
                Err(error) => found.errors.push(error),
            }
        }
        found
    }

    async fn ask_within(
        &self,
        node: &Node,
        question: Question,
        limit: Duration,
    ) -> Result<NodeAnswer, BackendError> {
        let stage = OpenStage::default();
        let answer = timeout(limit, self.ask_node(node, question, &stage)).await;
        answer.unwrap_or_else(|_| Err(self.login.unanswered(&stage, limit)))
    }

    async fn ask_node(
        &self,
        node: &Node,
        question: Question,
        stage: &OpenStage,
    ) -> Result<NodeAnswer, BackendError> {
        if let Some(line) = self.cluster.line(node) {
            match self.ask_over(line, node, question).await {
                Err(error) if error.is_connection_lost() => {
                    lock(&self.cluster.lines).remove(node);
                }
                answer => return answer,
            }
        }
        let config = AsyncConnectionConfig::new();
        let (line, _) = self.login.open(&address_of(node), config, stage).await?;
        self.ask_over(line.requests.clone(), node, question).await
    }

    async fn ask_over(
        &self,
        line: MultiplexedConnection,
        node: &Node,
        question: Question,
    ) -> Result<NodeAnswer, BackendError> {
        let mut commands = Pipeline::with_capacity(2);
        commands.cmd("CLUSTER").arg("SLOTS");
        if question == Question::SlotsAndMoves {
            commands.cmd("CLUSTER").arg("NODES");
        }
        let mut answers = ask(line, commands).await?.into_iter();
        let mut ranges = slot_ranges(answers.next().unwrap_or_default(), &node.host)?;
        let named: Vec<_> = ranges.iter().map(|of| Arc::clone(&of.node.host)).collect();
        for range in &mut ranges {
            range.node = self.cluster.reached_at(range.node.clone())?;
        }
        let Some(nodes) = answers.next() else {
            return Ok(NodeAnswer {
                ranges,
                is_moving: false,
                importing: Vec::new(),
            });
        };
        // Who does not say it may be moving slots.
        let nodes = reply::checked(nodes).and_then(reply::text).ok();
        let targets = |nodes| import_targets(nodes, &named, &node.host);
        let importing = nodes.as_deref().map(targets);
        let importing = importing.into_iter().flatten();
        let importing = importing.map(|node| self.cluster.reached_at(node));
        Ok(NodeAnswer {
            ranges,
            is_moving: nodes.as_deref().is_none_or(is_moving),
            importing: importing.collect::<Result<_, _>>()?,
        })
    }

    /// The error if nobody answers.
    fn unanswered(&self, known: &[Node], errors: Vec<BackendError>) -> BackendError {
        let seeds = &self.cluster.seeds;
        if known.is_empty()
            && let Some(error) = errors.iter().find(|error| reply::is_no_cluster(error))
        {
            return BackendError::rejected(format_args!(
                "{} is no cluster: write {} ({error})",
                self.target,
                self.login.url_of_one_server(),
            ));
        }
        let count = seeds.iter().filter(|seed| !known.contains(seed)).count() + known.len();
        let mut errors = errors;
        let refusal = errors.iter().position(BackendError::is_rejected);
        let last = match refusal {
            Some(place) => Some(errors.swap_remove(place)),
            None => errors.pop(),
        };
        match last {
            Some(refusal) if refusal.is_rejected() => refusal,
            Some(last) => BackendError::connection_lost(format_args!(
                "none of the {count} servers of {} answers: {last}",
                self.target
            )),
            None => BackendError::connection_lost(format_args!(
                "none of the {count} servers of {} answers within {:?}",
                self.target, self.timeout
            )),
        }
    }
}
