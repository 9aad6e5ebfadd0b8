//! A dead letter: a queued write that was not made, or may have been, or a taken element that could
//! not be returned.

use std::sync::Arc;
use std::time::Duration;

use super::entry::Assignment;
use crate::base::clock::Stamp;
use crate::base::error::Error;
use crate::value::envelope::Text;
use crate::value::mutation::{ConflictRule, Edited, Json, Mutation, RecordedCall, apply};

/// A dead letter, until it is retried or forgotten.
#[derive(Debug, Clone)]
pub(crate) struct LetterRecord {
    pub(crate) id: u64,
    pub(crate) key: Arc<str>,
    /// What was to replace the value.
    pub(crate) assignment: Option<Assignment>,
    /// What was to change it.
    pub(crate) mutation: Option<Mutation>,
    /// What was taken, and handed to nobody; the mutation returns it.
    pub(crate) taken: Option<Json>,
    pub(crate) stamp: Stamp,
    pub(crate) ttl: Option<Duration>,
    pub(crate) reason: Error,
    pub(crate) may_have_been_made: bool,
}

impl LetterRecord {
    /// About how many bytes it takes in memory.
    pub(crate) fn size(&self) -> usize {
        let assigned = self.assignment.as_ref().map_or(0, Assignment::size);
        let changed = self.mutation.as_ref().map_or(0, Mutation::size);
        let taken = self.taken.as_ref().map_or(0, |taken| taken.as_str().len());
        size_of::<Self>() + self.key.len() + assigned + changed + taken
    }

    /// The value that was assigned, with the changes that were made to it since.
    pub(crate) fn value(&self) -> Option<String> {
        let own = self.assignment.as_ref().and_then(Assignment::own_value)?;
        let text = own.as_str().to_owned();
        let Some(mutation) = &self.mutation else {
            return Some(text);
        };
        match apply(Some(Text::as_str(&own)), mutation, ConflictRule::Latest).made {
            Edited::Text(made) => Some(made),
            Edited::Nothing => Some(text),
            Edited::Removed => None,
        }
    }

    /// The changes to a part of the value, or of what was assigned, as JSON: one element for each
    /// call, a list of operations.
    pub(crate) fn changes(&self) -> Vec<serde_json::Value> {
        self.mutation
            .iter()
            .flat_map(Mutation::calls)
            .filter_map(operations_as_json)
            .collect()
    }

    /// Whether it is a taken element that cannot be returned.
    pub(crate) fn is_unreturnable(&self) -> bool {
        self.taken.is_some() && self.mutation.is_none()
    }
}

/// Serialized and parsed, since a number may be of any length in text.
fn operations_as_json(call: &RecordedCall) -> Option<serde_json::Value> {
    let text = serde_json::to_string(&call.operations).ok()?;
    serde_json::from_str(&text).ok()
}
