//! What a read shows: the last answer, with what was added to it since and with all calls that have
//! not ended on top.

use std::rc::Rc;

use bytes::Bytes;
use serde_json::Value;

use super::super::check::{RuleResult, ensure};
use super::super::document::value_of;
use super::super::server::KEY;
use super::history::AdditionHistory;
use super::history::MadeValue;
use crate::base::clock::Monotonic;
use crate::client::state::State;
use crate::value::document::Document;

impl AdditionHistory {
    /// What the state knows of the server must be what that has answered, byte for byte; nothing if
    /// its time to live is over.
    pub(super) fn known(&self, state: &State, mono: Monotonic) -> RuleResult<Option<&Bytes>> {
        let base = state.cache.base(KEY);
        let answered = &self.last_answer;
        let stored = base.stored.as_ref().map(Document::to_bytes);
        ensure!(
            base.ticket == answered.ticket && stored.as_ref() == answered.bytes(),
            "rule 1: it takes {stored:?} (ticket {}) for what is stored instead of {:?} (ticket {})",
            base.ticket,
            answered.bytes(),
            answered.ticket
        );
        if base.at(mono).is_some() {
            return Ok(answered.bytes());
        }
        let is_over = answered
            .held
            .as_ref()
            .is_none_or(|held| held.is_expired(mono));
        ensure!(is_over, "rule 1: it takes {stored:?} for expired");
        Ok(None)
    }

    /// Rule 1: a read shows all own additions that are not in the last answer, once.
    pub(super) fn check_view(
        &mut self,
        state: &State,
        version: u64,
        mono: Monotonic,
    ) -> RuleResult {
        let known = self.known(state, mono)?;
        let mut expected = known
            .and_then(|_| self.last_answer.value())
            .as_deref()
            .cloned();
        if expected.is_some() {
            let on_top = self.on_top.iter();
            expected = on_top.fold(expected, |below, added| {
                self.subject.with(below.as_ref(), &added.adds).or(below)
            });
        }
        for line in self.lines.iter().filter(|line| !line.is_confirmed) {
            let is_expired = line.is_expired(mono);
            if is_expired && line.replaces_nothing {
                expected = None;
            }
            if is_expired {
                continue;
            }
            expected = match line.write.made_of(expected.as_ref(), self.subject) {
                MadeValue::Stored(made) => Some(made),
                MadeValue::Removed => None,
                // What is assigned is shown without what does not apply to that.
                MadeValue::DoesNotApply => line.write.assignment.clone().unwrap_or(expected),
            };
        }
        let view = state.view(KEY, mono);
        let visible = value_of(view.bytes().as_ref());
        ensure!(
            visible.as_deref() == expected.as_ref(),
            "rule 1: a read returns {visible:?} instead of {expected:?}; the last answer is {:?}",
            self.last_answer
        );
        self.check_announced(visible, (version, view.expires), mono)
    }

    /// The version rises with every change, unless a time to live has ended.
    fn check_announced(
        &mut self,
        visible: Option<Rc<Value>>,
        (version, expires): (u64, Option<Monotonic>),
        mono: Monotonic,
    ) -> RuleResult {
        if let Some((before, last, ends)) = &self.last_view {
            let is_ended = ends.is_some_and(|at| at <= mono);
            ensure!(
                *before == visible || version > *last || is_ended,
                "a read returned {before:?}, and now {visible:?}, of the same version"
            );
        }
        self.last_view = Some((visible, version, expires));
        Ok(())
    }
}
