//! A write whose caller waits for what comes of it: until the deadline, or until nobody waits any
//! more.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::backend::commit::Sequence;
use crate::base::clock::Deadline;
use crate::base::error::Result;
use crate::base::policy::WritePolicy;
use crate::base::waiting::until;
use crate::client::shared::Shared;
use crate::client::state::Accepted;
use crate::pending::outbox::{Answer, Written};

/// A write whose caller waits for what comes of it.
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
        let Accepted {
            sequence: id,
            answer,
        } = accepted;
        Self {
            shared,
            key,
            id,
            answer,
            policy,
            is_over: false,
        }
    }

    /// What has come of it, if that is known. What was taken is the caller's from then on.
    pub(super) fn answer(&mut self) -> Option<Result<Answer>> {
        let answer = self.answer.try_recv().ok()?;
        Some(self.hand_out(answer))
    }

    /// Takes in that its caller gets the answer.
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

    /// Waits for what comes of it until the deadline; then it is promised, or withdrawn, or in
    /// doubt.
    pub(super) async fn wait(mut self, deadline: Deadline) -> Result<Answer> {
        let shared = self.shared;
        if let Some(Ok(answer)) = until(shared.told.wakes(&mut self.answer), deadline).await {
            return self.hand_out(answer);
        }
        if self.policy == WritePolicy::Confirmed {
            return self.give_up();
        }
        // From here on it is promised; the answer may have come at the last moment.
        shared.state().report_queued(self.key, self.id);
        self.is_over = true;
        self.answer
            .try_recv()
            .unwrap_or(Ok(Answer::new(Written::Queued, false)))
    }

    /// The time of a confirmed write is over: it is withdrawn, or in doubt. The answer may have
    /// come at the last moment.
    fn give_up(&mut self) -> Result<Answer> {
        let mut state = self.shared.state();
        self.answer.close();
        if let Ok(answer) = self.answer.try_recv() {
            drop(state);
            return self.hand_out(answer);
        }
        self.is_over = true;
        let error = match self.shared.check_open() {
            Err(closed) => closed,
            Ok(()) => state.not_made(self.key, self.id),
        };
        let error = state
            .withdraw(self.key, self.id, error.clone())
            .unwrap_or(error);
        drop(state);
        self.go_on();
        Err(error)
    }

    /// What waited behind it may go, and what is withdrawn is waited for by nobody.
    fn go_on(&self) {
        let is_anything_ready = self.shared.state().outbox.is_anything_ready();
        if is_anything_ready {
            self.shared.wake.notify_one();
        }
        self.shared.tell_delivered();
    }
}

impl Drop for Pending<'_> {
    /// A confirmed write that nobody waits for any more is withdrawn, or in doubt; what it has
    /// taken goes back.
    fn drop(&mut self) {
        if self.is_over || self.policy != WritePolicy::Confirmed {
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
        self.go_on();
    }
}
