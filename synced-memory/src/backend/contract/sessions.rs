//! What a session does besides commits: order, notifications, expiry, and its end.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;

use super::{DAY, Loss, NEW, QUIET, REPLACED, Subject, delete, envelope, put, with_ttl};
use crate::backend::commit::{Attempt, KeyChange, Outcome, TimeToLive};
use crate::backend::error::BackendErrorKind;
use crate::backend::{Expiry, KeyRead, LARGE_VALUE, ReadKind, SizeHint};
use crate::base::clock::{self, Deadline};
use crate::value::document::Document;

/// What [`put`] stores for the writer 1.
fn own_envelope(sequence: u64) -> Bytes {
    envelope(&format!("\"1/{sequence}\""), sequence)
}

pub(super) fn requests_take_effect_in_the_order_of_their_first_polls(subject: &Subject) {
    let session = subject.connect();
    let key = "order".into();
    for sequence in 1..=20 {
        // Made in the other order, which does not matter.
        let read = session.inner.read(&[KeyRead::new(&key, ReadKind::Through)]);
        let attempt = put("order", 1, sequence, sequence);
        let commit = session.inner.commit(&[attempt], clock::wall());
        let (outcomes, stored) = subject.runtime.block_on(join(commit, read));

        assert!(matches!(
            outcomes.unwrap()[..],
            [Ok(Outcome::Applied { .. })]
        ));
        assert_eq!(
            stored.unwrap().remove(0).unwrap().0,
            Some(Document::of(own_envelope(sequence)))
        );
    }
}

pub(super) fn a_change_of_another_session_to_a_tracked_key_is_notified(subject: &Subject) {
    let (session, other) = (subject.connect(), subject.connect());
    session.track();
    let key = "tracked:a";
    let expiring = with_ttl(put(key, 1, 4, 4), TimeToLive::For(DAY));
    for (attempt, outcome) in [
        (put(key, 1, 1, 1), NEW),
        (put(key, 1, 2, 2), REPLACED),
        (delete(key, 1, 3, 3), REPLACED),
        (expiring, NEW),
    ] {
        session.read_tracked(key);
        session.drain();
        assert_eq!(other.commit(&attempt), outcome);
        assert!(session.is_notified_of(&[key]), "{attempt:?}");
    }
}

pub(super) fn every_tracked_read_leaves_its_keys_tracked(subject: &Subject) {
    let (session, other) = (subject.connect(), subject.connect());
    session.track();
    let (keys, untracked) = (["tracked:a", "tracked:b", "tracked:c"], "untracked:a");

    let mut sequence = 0;
    for round in 0..6 {
        // In one request, with a through read between them, and all in two ways.
        let size = [SizeHint::Small, SizeHint::Unknown][round % 2];
        let read = |(key, kind): (&str, _)| KeyRead {
            size,
            ..KeyRead::new(&key.into(), kind)
        };
        let [a, b, c] = keys.map(|key| read((key, ReadKind::Tracked)));
        let between = read((untracked, ReadKind::Through));
        let answers = session.wait(session.inner.read(&[a, between, b, c]));
        assert_eq!(answers.len(), 4);

        session.drain();
        for key in keys {
            sequence += 1;
            other.commit(&put(key, 1, sequence, sequence));
        }
        assert!(session.is_notified_of(&keys), "in round {round}");
    }
}

pub(super) fn what_is_read_through_is_not_notified_and_ends_no_tracking(subject: &Subject) {
    use ReadKind::{Through, Tracked};

    let (session, other) = (subject.connect(), subject.connect());
    session.track();
    let (tracked, through) = ("tracked:a", "through:a");
    for sequence in 1..=4 {
        if sequence % 2 == 0 {
            session.read_as([(tracked, Tracked), (through, Through)]);
        } else {
            session.read_as([(through, Through), (tracked, Tracked)]);
        }
        session.read_as([(tracked, Through)]);
        session.drain();
        other.commit(&put(through, 1, sequence, sequence));
        other.commit(&put(tracked, 1, sequence, sequence));
        assert!(session.is_notified_without(&[tracked], through));
    }
}

pub(super) fn a_change_while_a_read_is_on_its_way_is_in_the_answer_or_notified(subject: &Subject) {
    let (session, other) = (subject.connect(), subject.connect());
    session.track();
    for sequence in 1..=10 {
        session.drain();
        let read = KeyRead::new(&"race:a".into(), ReadKind::Tracked);
        let read = session.inner.read(&[read]);
        let attempt = put("race:a", 1, sequence, sequence);
        let commit = other.inner.commit(&[attempt], clock::wall());

        let (answers, _) = if sequence % 2 == 0 {
            subject.runtime.block_on(join(read, commit))
        } else {
            let (outcomes, answers) = subject.runtime.block_on(join(commit, read));
            (answers, outcomes)
        };
        let (stored, _) = answers.unwrap().remove(0).unwrap();
        let is_in_the_answer = stored == Some(Document::of(own_envelope(sequence)));
        assert!(is_in_the_answer || session.is_notified_of(&["race:a"]));
    }
}

pub(super) fn a_read_says_when_a_key_expires_or_its_expiry_is_notified(subject: &Subject) {
    const TTL: Duration = Duration::from_millis(400);
    let (session, other) = (subject.connect(), subject.connect());
    session.track();

    other.commit(&put("expiring:never", 1, 1, 1));
    let (_, expiry) = session.read_tracked("expiring:never");
    assert!(!matches!(expiry, Expiry::For(_)), "{expiry:?}");

    let key = "expiring:soon";
    let expiry = (2..).find_map(|sequence| {
        let attempt = put(key, 1, sequence, sequence);
        other.commit(&with_ttl(attempt, TimeToLive::For(TTL)));
        session.drain();
        // On a slow machine it may have expired already.
        let (stored, expiry) = session.read_tracked(key);
        stored.map(|_| expiry)
    });
    match expiry.unwrap() {
        Expiry::Forever => panic!("it expires"),
        Expiry::For(left) => assert!(left <= TTL, "{left:?}"),
        Expiry::Tracked => {
            assert!(session.is_notified_of(&[key]));
            assert_eq!(session.read(key), None);
        }
    }
}

pub(super) fn a_large_value_is_read_whole_beside_others_and_leaves_its_key_tracked(
    subject: &Subject,
) {
    let (session, other) = (subject.connect(), subject.connect());
    session.track();
    other.commit(&put("large:beside", 1, 1, 1));
    let keys = ["large:beside", "large:a"];
    // Small at first and at last, and large in between: a session may remember what was large.
    for (sequence, length) in (2..).zip([1, LARGE_VALUE, LARGE_VALUE + 100, 1, 1]) {
        let value = envelope(&format!("\"{}\"", "x".repeat(length)), sequence);
        let attempt = Attempt {
            change: KeyChange::Put {
                envelope: value.clone(),
                ttl: TimeToLive::Keep,
            },
            ..put("large:a", 1, sequence, sequence)
        };
        other.commit(&attempt);
        let was_read = sequence > 2;
        assert!(!was_read || session.is_notified_of(&["large:a"]));
        for kind in [ReadKind::Through, ReadKind::Tracked] {
            session.drain();
            let keys = keys.map(Into::into);
            let reads = keys.each_ref().map(|key| KeyRead::new(key, kind));
            let answers = session.wait(session.inner.read(&reads));
            let [beside, large] = answers.try_into().expect("two answers");
            assert_eq!(beside.unwrap().0, Some(Document::of(own_envelope(1))));
            let stored = match large {
                Err(error) if error.kind == BackendErrorKind::TooLarge => {
                    session.wait(session.inner.read_apart(&keys[1], false)).0
                }
                answer => answer.unwrap().0,
            };
            assert!(
                stored.is_some_and(|stored| stored.to_bytes() == value),
                "{length}"
            );
        }
    }
}

pub(super) fn a_lost_connection_ends_its_session_and_nothing_else_does(subject: &Subject) {
    let (session, other) = (subject.connect(), subject.connect());
    let ended = session.inner.ended();
    assert!(!subject.is_ready_within(QUIET, session.inner.ended()));
    session.wait(session.inner.now());

    match &subject.loss {
        Loss::Never => return,
        Loss::Removed(remove) => remove(),
        Loss::Closed(close) => {
            close();
            assert!(subject.is_ready_within(subject.deadline, ended));
        }
    }

    let end = Deadline::after(subject.deadline);
    loop {
        match subject.runtime.block_on(other.inner.now()) {
            Err(error) if error.is_connection_lost() => return,
            answer => assert!(!end.remaining().is_zero(), "{answer:?}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
