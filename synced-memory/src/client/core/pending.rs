//! A write whose caller waits for the answer: until the deadline, or until the caller's future is
//! dropped.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::writes::forward;
use crate::backend::commit::Sequence;
use crate::base::clock::Deadline;
use crate::base::error::Result;
use crate::base::policy::WritePolicy;
use crate::base::waiting::until;
use crate::client::shared::Shared;
use crate::client::state::Accepted;
use crate::pending::outbox::{Answer, Written};

/// A write whose caller waits for the answer.
pub(super) struct Pending<'a> {
    shared: &'a Shared,
    key: &'a Arc<str>,
    id: Sequence,
    answer: oneshot::Receiver<Result<Answer>>,
    policy: WritePolicy,
    is_over: bool,
}

impl<'a> Pending<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        key: &'a Arc<str>,
        accepted: Accepted,
        policy: WritePolicy,
    ) -> Self {
        let Accepted { id, answer } = accepted;
        Self {
            shared,
            key,
            id,
            answer,
            policy,
            is_over: false,
        }
    }

    /// The answer, if it is there. An element that was taken is the caller's from then on.
    pub(super) fn answer(&mut self) -> Option<Result<Answer>> {
        let answer = self.answer.try_recv().ok()?;
        Some(self.hand_out(answer))
    }

    /// Notes that the caller gets the answer.
    fn hand_out(&mut self, answer: Result<Answer>) -> Result<Answer> {
        self.is_over = true;
        if let Ok(Answer {
            taken: Some(name), ..
        }) = &answer
        {
            self.shared.state().handed(*name);
        }
        answer
    }

    /// Waits for the answer until the deadline. Then the write is reported as queued; a confirmed
    /// one is withdrawn or in doubt.
    pub(super) async fn wait(mut self, deadline: Deadline) -> Result<Answer> {
        let shared = self.shared;
        let answer = shared.deferred_wakes.run(&mut self.answer);
        if let Some(Ok(answer)) = until(answer, deadline).await {
            return self.hand_out(answer);
        }
        if self.policy == WritePolicy::Confirmed {
            return self.give_up();
        }
        // Reported as queued from here on. The answer may have come at the last moment.
        shared.state().report_queued(self.key, self.id);
        self.is_over = true;
        self.answer
            .try_recv()
            .unwrap_or(Ok(Answer::new(Written::Queued, false)))
    }

    /// The time of a confirmed write is over: it is withdrawn or in doubt, unless the answer has
    /// come at the last moment.
    fn give_up(&mut self) -> Result<Answer> {
        let mut state = self.shared.state();
        self.answer.close();
        if let Ok(answer) = self.answer.try_recv() {
            drop(state);
            return self.hand_out(answer);
        }
        self.is_over = true;
        let error = match self.shared.check_not_closed() {
            Err(closed) => closed,
            Ok(()) => state.not_made(self.key, self.id),
        };
        let error = state
            .withdraw(self.key, self.id, error.clone())
            .unwrap_or(error);
        drop(state);
        self.withdrawn();
        Err(error)
    }

    /// The writes behind this one may be sent now, and `flush` does not wait for it any more.
    fn withdrawn(&self) {
        forward(self.shared);
    }
}

impl Drop for Pending<'_> {
    /// A confirmed write whose caller is gone is withdrawn or in doubt; an element that it has
    /// taken goes back.
    fn drop(&mut self) {
        let is_settled = self.is_over || self.policy != WritePolicy::Confirmed;
        if is_settled || self.shared.is_inherited() {
            return;
        }
        let mut state = self.shared.state();
        self.answer.close();
        match self.answer.try_recv() {
            Ok(Ok(Answer {
                taken: Some(name), ..
            })) => state.not_handed(name),
            Ok(_) => {}
            Err(_) => {
                let error = state.not_made(self.key, self.id);
                state.withdraw(self.key, self.id, error);
            }
        }
        drop(state);
        self.withdrawn();
    }
}
