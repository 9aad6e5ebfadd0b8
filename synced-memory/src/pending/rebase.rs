//! What to do with a write, given what is there: pure rules between the outbox and what is sent.
//!
//! An assignment competes with its stamp. A mutation is applied to what is there, and sent on the
//! condition that it is still there; where it is not, on what the refusal brought back (rule
//! 5).

use bytes::Bytes;

use crate::backend::commit::{Expects, KeyChange, TimeToLive};
use crate::base::clock::{Monotonic, Stamp};
use crate::cache::Base;
use crate::pending::outbox::{Entry, Precondition, Tried};
use crate::value::envelope::{self, Text, Unsealed};
use crate::value::mutation::{Applied, ApplyError, ConflictRule, Edited, apply};

/// What is to be done with a write.
#[derive(Debug)]
pub(crate) enum Plan {
    /// It is sent like this; these of its calls are superseded.
    Send {
        change: KeyChange,
        stamp: Stamp,
        expects: Expects,
        superseded: Vec<usize>,
    },
    /// What is there has to be asked for first.
    Ask,
    /// It was recorded on something else than is there: its caller is to record it anew.
    Again,
    /// These calls do not apply to what is there.
    Failed(Vec<(usize, ApplyError)>),
    /// It changes nothing; these of its calls are superseded.
    Done { superseded: Vec<usize> },
}

/// Plans the next attempt of a write, given what the backend last answered for its key.
pub(crate) fn plan(entry: &Entry, base: &Base, mono: Monotonic) -> Plan {
    let stored = base.at(mono);
    // What is in doubt is asked for, and never made again.
    if entry.is_confirmed && entry.tried == Tried::InDoubt {
        return Plan::Ask;
    }
    // Nothing but a clean change is decided on what may be out of date.
    let is_current = entry.base_is_current;
    if let Some(Precondition::Whole(seen)) = &entry.exact {
        if !base.is_known() && !is_current {
            return Plan::Ask;
        }
        if !is_same_value(seen.as_ref(), stored) {
            return Plan::Again;
        }
    }
    let Some(mutation) = &entry.mutation else {
        let Some(change) = entry.assignment.clone() else {
            return Plan::Done {
                superseded: Vec::new(),
            };
        };
        let expects = if entry.exact.is_some() {
            Expects::of(stored)
        } else {
            Expects::Anything
        };
        return Plan::Send {
            change,
            stamp: entry.stamp,
            expects,
            superseded: Vec::new(),
        };
    };
    if let Some(assignment) = &entry.assignment {
        let own = assignment.own_value();
        let applied = apply(
            own.as_ref().map(Text::as_str),
            mutation,
            ConflictRule::Latest,
        );
        if !applied.failed.is_empty() {
            return Plan::Failed(applied.failed);
        }
        let change = match applied.made {
            Edited::Nothing => assignment.clone(),
            Edited::Text(text) => put(&text, entry.latest),
            Edited::Removed => KeyChange::Delete,
        };
        return Plan::Send {
            change,
            stamp: entry.stamp,
            expects: Expects::Anything,
            superseded: Vec::new(),
        };
    }
    if !base.is_known() && !is_current {
        return Plan::Ask;
    }
    let found = stored.map_or(Stamp::ZERO, |stored| envelope::stamp_of(stored));
    let Applied {
        made,
        superseded,
        failed,
    } = apply(base.value_at(mono), mutation, rule(entry, found));
    if !superseded.is_empty() && entry.exact.is_some() {
        return Plan::Again;
    }
    if !is_current && (made == Edited::Nothing || !superseded.is_empty() || !failed.is_empty()) {
        return Plan::Ask;
    }
    if !failed.is_empty() {
        return Plan::Failed(failed);
    }
    let stamp = entry.latest.max(found.next());
    let change = match made {
        Edited::Nothing => return Plan::Done { superseded },
        Edited::Text(text) => put(&text, stamp),
        Edited::Removed => KeyChange::Delete,
    };
    Plan::Send {
        change,
        stamp,
        expects: Expects::of(stored),
        superseded,
    }
}

/// Whether a write has nothing left to do where nothing is: it only removes.
pub(crate) fn is_done_where_nothing_is(entry: &Entry) -> bool {
    let is_done = |mutation| {
        let Applied { made, failed, .. } = apply(None, mutation, rule(entry, Stamp::ZERO));
        made == Edited::Nothing && failed.is_empty()
    };
    entry.assignment.is_none() && entry.mutation.as_ref().is_some_and(is_done)
}

/// What is stored, and the value in it as text.
pub(crate) type StoredText = (Option<Bytes>, Option<Text>);

/// What a read shows where this write waits on top of what is below.
pub(crate) fn visible(entry: &Entry, below: impl FnOnce() -> StoredText) -> StoredText {
    let (stored, value) = match &entry.assignment {
        Some(KeyChange::Put { envelope, .. }) => (
            Some(envelope.clone()),
            Some(envelope::own_value_of(envelope)),
        ),
        Some(KeyChange::Delete) => (None, None),
        None => below(),
    };
    let Some(mutation) = &entry.mutation else {
        return (stored, value);
    };
    let found = stored.as_deref().map_or(Stamp::ZERO, envelope::stamp_of);
    let is_latest = entry.assignment.is_some() || entry.fresh;
    let rule = if is_latest {
        ConflictRule::Latest
    } else {
        ConflictRule::NewerWins(found)
    };
    match apply(value.as_ref().map(Text::as_str), mutation, rule).made {
        Edited::Text(text) => {
            let sealed = Unsealed::of_text(&text).seal(entry.latest.max(found.next()));
            let value = envelope::own_value_of(&sealed);
            (Some(sealed), Some(value))
        }
        Edited::Removed => (None, None),
        Edited::Nothing => (stored, value),
    }
}

/// Whether two stored forms hold the same value, whatever their stamps.
pub(crate) fn is_same_value(one: Option<&Bytes>, other: Option<&Bytes>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one == other || envelope::value_of(one) == envelope::value_of(other)
        }
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// A write that no outage held up is the latest.
fn rule(entry: &Entry, found: Stamp) -> ConflictRule {
    match entry.exact {
        Some(Precondition::Places) => ConflictRule::Exact,
        _ if entry.fresh => ConflictRule::Latest,
        _ => ConflictRule::NewerWins(found),
    }
}

fn put(text: &str, stamp: Stamp) -> KeyChange {
    KeyChange::Put {
        envelope: Unsealed::of_text(text).seal(stamp),
        ttl: TimeToLive::Keep,
    }
}
