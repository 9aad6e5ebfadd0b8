//! What to do with a write, given what is stored: pure rules between the outbox and what is sent.
//!
//! An assignment competes with its stamp. A mutation is applied to what is stored, and sent on the
//! condition that it is still stored; if not, it is applied to what the refusal brought back
//! (rule 5).

use crate::backend::commit::{Expects, KeyChange, TimeToLive};
use crate::base::clock::{Monotonic, Stamp};
use crate::cache::Base;
use crate::pending::outbox::{Assignment, Entry, Precondition, Tried, Write};
use crate::value::addition::Addition;
use crate::value::document::{
    AppliedToDocument, ByteEdit, Document, DocumentEdit, apply_to, length_after,
};
use crate::value::envelope::{self, Text, Unsealed};
use crate::value::mutation::{Applied, ApplyError, ConflictRule, Edited, Mutation, apply};

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
    /// The backend has to be asked first for what is stored.
    Ask,
    /// It was recorded on something else than what is stored: its caller is to record it anew.
    Outdated,
    /// These calls do not apply to what is stored.
    Failed(Vec<(usize, ApplyError)>),
    /// It changes nothing; these of its calls are superseded.
    Done { superseded: Vec<usize> },
}

/// What is known of a key when its next attempt is planned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Basis<'a> {
    /// What the backend last answered.
    pub(crate) base: &'a Base,
    pub(crate) mono: Monotonic,
    /// This process has added something since, and does not know what to.
    pub(crate) is_behind: bool,
    /// How far the stamp of an addition is at least above that of what it is added to; `None` if
    /// additions are to be sent as what they make of what is stored.
    pub(crate) step: Option<u64>,
    /// A change to a long value can be sent without the rest of it.
    pub(crate) takes_edits: bool,
    /// From how many bytes on a value is long.
    pub(crate) long_from: usize,
}

/// Plans the next attempt of a write.
pub(crate) fn plan(entry: &Entry, basis: &Basis<'_>) -> Plan {
    let Basis {
        base,
        mono,
        is_behind,
        ..
    } = *basis;
    let write = &entry.write;
    // A confirmed write in doubt is asked for, and never made again.
    if write.is_confirmed && entry.attempt.tried == Tried::InDoubt {
        return Plan::Ask;
    }

    if let Some((change, stamp)) = blind_change(entry, basis) {
        return Plan::Send {
            change,
            stamp,
            expects: Expects::Anything,
            superseded: Vec::new(),
        };
    }

    let stored = base.at(mono);
    let is_current = entry.attempt.base_is_current;
    let must_ask = (!base.is_known() || is_behind) && !is_current;
    if let Some(Precondition::Whole(whole)) = &write.precondition {
        if must_ask {
            return Plan::Ask;
        }
        if !is_same_value(whole.as_ref(), stored) {
            return Plan::Outdated;
        }
    }

    match (&write.assignment, &write.mutation) {
        (None, None) => Plan::Done {
            superseded: Vec::new(),
        },
        (Some(assignment), None) => Plan::Send {
            change: assignment.change(),
            stamp: write.stamp,
            expects: if write.precondition.is_some() {
                Expects::of_document(stored)
            } else {
                Expects::Anything
            },
            superseded: Vec::new(),
        },
        (Some(assignment), Some(mutation)) => plan_changed_assignment(write, assignment, mutation),
        (None, Some(_)) if must_ask => Plan::Ask,
        (None, Some(mutation)) => plan_mutation(entry, mutation, basis, is_current),
    }
}

/// What the write adds to whatever is stored, if it does nothing else. A value that is not long is
/// sent as a whole, unless others change it all the time: that is faster.
fn blind_change(entry: &Entry, basis: &Basis<'_>) -> Option<(KeyChange, Stamp)> {
    let (write, attempt) = (&entry.write, &entry.attempt);
    let mutation = write.mutation.as_ref()?;
    let is_alone = write.assignment.is_none() && write.precondition.is_none();
    // What a first refusal has brought is most likely still there.
    let is_certain = attempt.base_is_current && attempt.refusals < 2;
    let is_refused = attempt.is_to_be_based || attempt.was_refused_as_part;
    let step = basis
        .step
        .filter(|_| is_alone && !is_refused && !is_certain)?;
    // There is nothing to add to.
    let is_unset = basis.base.is_known() && basis.base.at(basis.mono).is_none();
    if is_unset && !basis.is_behind {
        return None;
    }
    let change = KeyChange::Blind {
        addition: Addition::of(mutation)?,
        ttl: TimeToLive::Keep,
        step,
    };
    Some((change, write.latest))
}

/// Of an assignment that was changed since, the result is sent.
fn plan_changed_assignment(write: &Write, assignment: &Assignment, mutation: &Mutation) -> Plan {
    let own = assignment.own_value();
    let applied = apply(
        own.as_ref().map(Text::as_str),
        mutation,
        ConflictRule::Latest,
    );
    if !applied.failed.is_empty() {
        return Plan::Failed(applied.failed);
    }
    Plan::Send {
        change: match applied.made {
            Edited::Nothing => assignment.change(),
            Edited::Text(text) => put(&text, write.latest),
            Edited::Removed => KeyChange::Delete,
        },
        stamp: write.stamp,
        expects: Expects::Anything,
        superseded: Vec::new(),
    }
}

/// A mutation is sent as what it makes of what is stored. If that may be out of date, nothing but a
/// clean change is decided on it.
fn plan_mutation(entry: &Entry, mutation: &Mutation, basis: &Basis<'_>, is_current: bool) -> Plan {
    let write = &entry.write;
    let stored = basis.base.at(basis.mono);
    let found = stored.map_or(Stamp::ZERO, Document::stamp);
    let stamp = write.latest.above(found);
    // Others add members all the time: it goes behind theirs.
    let step = basis.step.filter(|_| adds_member(entry, mutation));
    let long_from = step.map_or(basis.long_from, |_| 0);
    let MadeOf {
        made,
        edits,
        superseded,
        failed,
    } = made_of(
        (stored, long_from),
        mutation,
        conflict_rule(write, found),
        stamp,
    );
    if !superseded.is_empty() && write.precondition.is_some() {
        return Plan::Outdated;
    }
    let is_clean = made != Made::Nothing && superseded.is_empty() && failed.is_empty();
    if !is_current && !is_clean {
        return Plan::Ask;
    }
    if !failed.is_empty() {
        return Plan::Failed(failed);
    }

    let change = match made {
        Made::Nothing => return Plan::Done { superseded },
        Made::Document(made) => {
            let takes_edits = basis.takes_edits && !entry.attempt.was_refused_as_part;
            let edits = edits.filter(|_| takes_edits && found != Stamp::ZERO);
            stored_by(made, stored.zip(edits), step)
        }
        Made::Removed => KeyChange::Delete,
    };
    Plan::Send {
        change,
        stamp,
        expects: Expects::of_document(stored),
        superseded,
    }
}

/// What a mutation makes of what is stored.
struct MadeOf {
    made: Made,
    /// The edits that make it of a long value.
    edits: Option<Vec<ByteEdit>>,
    /// The calls that met something newer, by index, and were skipped.
    superseded: Vec<usize>,
    /// The calls that do not apply, by index, and were skipped.
    failed: Vec<(usize, ApplyError)>,
}

#[derive(PartialEq, Eq)]
enum Made {
    Nothing,
    Document(Document),
    Removed,
}

/// What a mutation makes of what is stored, with this stamp. Of a value of at least `long_from`
/// bytes only the parts are looked at that it changes.
fn made_of(
    (stored, long_from): (Option<&Document>, usize),
    mutation: &Mutation,
    rule: ConflictRule,
    stamp: Stamp,
) -> MadeOf {
    let edited = stored
        .filter(|stored| stored.len() >= long_from)
        .and_then(|stored| edited(stored, mutation, rule, stamp));
    if let Some(edited) = edited {
        return edited;
    }
    let value = stored.map(Document::value);
    let Applied {
        made,
        superseded,
        failed,
    } = apply(value.as_ref().map(Text::as_str), mutation, rule);
    let made = match made {
        Edited::Nothing => Made::Nothing,
        Edited::Text(text) => {
            Made::Document(Document::of_sealed(Unsealed::of_text(&text).seal(stamp)))
        }
        Edited::Removed => Made::Removed,
    };
    MadeOf {
        made,
        edits: None,
        superseded,
        failed,
    }
}

/// Whether all that a write does is to set one member, whatever the others are.
fn adds_member(entry: &Entry, mutation: &Mutation) -> bool {
    let write = &entry.write;
    let [call] = mutation.calls() else {
        return false;
    };
    let [operation] = &call.operations[..] else {
        return false;
    };
    let is_of_member = match &write.precondition {
        None => write.fresh,
        Some(Precondition::Paths) => true,
        Some(Precondition::Whole(_)) => false,
    };
    is_of_member && !call.is_compared && operation.sets_one_member()
}

/// What stores a document: the edits that make it of what is stored, if they are much shorter.
/// `step`: as for [`KeyChange::Edit`], if these edits are such.
fn stored_by(
    made: Document,
    edits: Option<(&Document, Vec<ByteEdit>)>,
    step: Option<u64>,
) -> KeyChange {
    let ttl = TimeToLive::Keep;
    if let Some((stored, edits)) = edits {
        let is_short = edits.iter().map(|edit| edit.new.len()).sum::<usize>() < made.len() / 4;
        if is_short {
            let step = step.filter(|_| stored.is_added_to_by(&edits));
            return KeyChange::Edit {
                base: stored.clone(),
                ranges: stored.guarded(edits),
                made,
                ttl,
                step,
            };
        }
    }
    if made.padding() > 0 {
        let envelope = Unsealed::of_text(&made.compacted()).seal(made.stamp());
        return KeyChange::Put { envelope, ttl };
    }
    let whole = made.to_bytes();
    // What others have stored may be laid out in another way, and what is put is laid out as ours.
    let is_as_ours = envelope::own_value_of(&whole) == made.value();
    let envelope = if is_as_ours {
        whole
    } else {
        Unsealed::of_text(made.value().as_str()).seal(made.stamp())
    };
    KeyChange::Put { envelope, ttl }
}

/// The same by edits; `None` if what is stored is no envelope.
fn edited(
    stored: &Document,
    mutation: &Mutation,
    rule: ConflictRule,
    stamp: Stamp,
) -> Option<MadeOf> {
    let AppliedToDocument {
        made,
        superseded,
        failed,
    } = apply_to(stored, mutation, rule);
    let mut made_by = None;
    let made = match made {
        DocumentEdit::Nothing => Made::Nothing,
        DocumentEdit::Removed => Made::Removed,
        DocumentEdit::Whole(_) => return None,
        DocumentEdit::Edits(edits) => {
            let padded = stored.padded(edits.clone());
            let is_whole = padded.is_none();
            let mut edits = padded.unwrap_or(edits);
            edits.push(stored.stamp_edit(stamp)?);
            let length = length_after(stored.len(), &edits)?;
            let made = stored.edited(&edits, stamp, length)?;
            made_by = Some(edits).filter(|_| !is_whole);
            Made::Document(made)
        }
    };
    Some(MadeOf {
        made,
        edits: made_by,
        superseded,
        failed,
    })
}

/// Whether a write has nothing to do at an unset key: it only removes.
pub(crate) fn is_done_if_unset(write: &Write) -> bool {
    if write.assignment.is_some() {
        return false;
    }
    write.mutation.as_ref().is_some_and(|mutation| {
        let applied = apply(None, mutation, conflict_rule(write, Stamp::ZERO));
        applied.made == Edited::Nothing && applied.failed.is_empty()
    })
}

/// What a read shows if this write is pending on top of what is `below`. A value is long from
/// `long_from` bytes on.
pub(crate) fn visible(
    write: &Write,
    below: Option<Document>,
    long_from: usize,
) -> Option<Document> {
    let stored = match &write.assignment {
        Some(Assignment::Put(envelope)) => Some(Document::of_sealed(envelope.clone())),
        Some(Assignment::Delete) => None,
        None => below,
    };
    let Some(mutation) = &write.mutation else {
        return stored;
    };

    let found = stored.as_ref().map_or(Stamp::ZERO, Document::stamp);
    let is_latest = write.assignment.is_some() || write.fresh;
    let rule = if is_latest {
        ConflictRule::Latest
    } else {
        ConflictRule::NewerWins(found)
    };
    // The least one: what this process has written later is newer than what is shown below it.
    let stamp = write.latest.max(found.next());
    match made_of((stored.as_ref(), long_from), mutation, rule, stamp).made {
        Made::Document(document) => Some(document),
        Made::Removed => None,
        Made::Nothing => stored,
    }
}

/// Whether two stored forms hold the same value, whatever their stamps.
pub(crate) fn is_same_value(one: Option<&Document>, other: Option<&Document>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other || one.value() == other.value(),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// A write that no outage has delayed is the latest.
fn conflict_rule(write: &Write, found: Stamp) -> ConflictRule {
    match write.precondition {
        Some(Precondition::Paths) => ConflictRule::Exact,
        _ if write.fresh => ConflictRule::Latest,
        _ => ConflictRule::NewerWins(found),
    }
}

fn put(text: &str, stamp: Stamp) -> KeyChange {
    KeyChange::Put {
        envelope: Unsealed::of_text(text).seal(stamp),
        ttl: TimeToLive::Keep,
    }
}
