//! What a user asks to be written, before it has a stamp.

use std::time::Duration;

use super::view::KeyView;
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind, Result};
use crate::pending::outbox::{Assignment, Precondition, Take, Write};
use crate::pending::rebase;
use crate::value::document::Document;
use crate::value::envelope::Unsealed;
use crate::value::json::{self, LEVELS};
use crate::value::mutation::Mutation;

/// What a user asks to be written: a write that has no stamp yet.
#[derive(Debug)]
pub(crate) enum Request {
    Put {
        value: Unsealed,
        ttl: Option<Duration>,
    },
    Delete,
    /// Deletes this, which is stored; if anything else is, its caller asks anew.
    DeleteOf(Option<Document>),
    /// `exact`: what it was recorded on, if its caller records it anew on anything else.
    Mutate {
        mutation: Mutation,
        ttl: Option<Duration>,
        exact: Option<Precondition>,
        /// What it hands to its caller.
        take: Option<Take>,
    },
}

impl Request {
    pub(super) fn is_delete(&self) -> bool {
        matches!(self, Self::Delete | Self::DeleteOf(_))
    }

    /// Whether it was recorded on another whole value than the one in view.
    pub(super) fn is_outdated(&self, view: impl FnOnce() -> KeyView) -> bool {
        match self {
            Self::DeleteOf(whole)
            | Self::Mutate {
                exact: Some(Precondition::Whole(whole)),
                ..
            } => !rebase::is_same_value(whole.as_ref(), view().stored.as_ref()),
            Self::Put { .. } | Self::Delete | Self::Mutate { .. } => false,
        }
    }

    /// Refuses what would be stored with too many levels to be read. Every write passes this, be it
    /// new or the retry of a dead letter.
    pub(crate) fn check_levels(&self, key: &str) -> Result<()> {
        let is_too_deep = match self {
            Self::Put { value, .. } => json::is_deeper_than(LEVELS, value.json()),
            Self::Mutate { mutation, .. } => mutation.is_too_deep(),
            Self::Delete | Self::DeleteOf(_) => false,
        };
        if is_too_deep {
            let what = format!(
                "the value would have more than {LEVELS} levels of lists and objects, and nobody \
                 could read it"
            );
            return Err(Error::of_key(ErrorKind::Serialize, key, what));
        }
        Ok(())
    }

    /// The write of this request that is made at `mono` with this stamp.
    pub(super) fn stamp(self, stamp: Stamp, mono: Monotonic) -> Write {
        let write = Write::new(stamp, mono);
        match self {
            Self::Put { value, ttl } => Write {
                assignment: Some(Assignment::Put(value.seal(stamp))),
                expires: ttl.map(|ttl| mono.saturating_add(ttl)),
                ..write
            },
            Self::Delete => Write {
                assignment: Some(Assignment::Delete),
                ..write
            },
            Self::DeleteOf(whole) => Write {
                assignment: Some(Assignment::Delete),
                precondition: Some(Precondition::Whole(whole)),
                ..write
            },
            Self::Mutate {
                mut mutation,
                ttl,
                exact,
                mut take,
            } => {
                mutation.stamp(stamp);
                if let Some(back) = take.as_mut().and_then(|take| take.back.as_mut()) {
                    back.stamp(stamp);
                }
                Write {
                    mutation: Some(mutation),
                    precondition: exact,
                    take,
                    expires: ttl.map(|ttl| mono.saturating_add(ttl)),
                    ..write
                }
            }
        }
    }
}
