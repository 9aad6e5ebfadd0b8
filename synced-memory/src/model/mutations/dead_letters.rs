//! Dead letters must hold all that was not applied.

use serde_json::{Value, json};

use super::super::calls::kinds::CallKind;
use super::super::check::{RuleResult, ensure};
use super::history::{History, HistoryLine};
use crate::client::state::State;
use crate::pending::outbox::Assignment;

impl History {
    /// The next dead letter must hold these calls of an entry.
    pub(super) fn check_dead_letter(
        &mut self,
        line: &HistoryLine,
        state: &State,
        calls: &[usize],
    ) -> RuleResult {
        let letter = state
            .letters
            .get(self.dead_letters)
            .ok_or_else(|| format!("(5) {} is lost", self.describe(line)))?;
        self.dead_letters += 1;
        ensure!(
            line.returns.is_none() || letter.taken == line.returns,
            "(5) what was taken is not in the dead letter {letter:?}"
        );

        let changes = json!(letter.changes()).to_string();
        for call in calls {
            let CallKind::Log(items) = &self.calls[*call].kind else {
                continue;
            };
            ensure!(
                items.iter().all(|item| changes.contains(&item.to_string())),
                "(5) {items:?} is not in the dead letter {letter:?}"
            );
        }
        if let Some((assigned, call)) = &line.assignment
            && calls.contains(call)
        {
            let own = letter.assignment.as_ref().and_then(Assignment::own_value);
            let own =
                own.map(|own| serde_json::from_str::<Value>(own.as_str()).expect("it is JSON"));
            ensure!(
                *assigned == own,
                "(5) what was assigned is not in the dead letter {letter:?}"
            );
        }
        Ok(())
    }
}
