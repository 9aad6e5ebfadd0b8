//! What a commit does: the same as in this process, whatever the backend.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::{
    DAY, NEW, REPLACED, SHORT, Subject, TestSession, delete, envelope, put, subjects, with_ttl,
};
use crate::backend::ReadKind;
use crate::backend::commit::{Attempt, Expects, KeyChange, KeyState, Outcome, RECORDS, TimeToLive};
use crate::base::clock::{self, Stamp};
use crate::value::document::Document;

/// A thousand random requests. Many of them meet a tombstone, a newer stamp, something unexpected
/// or a record.
pub(super) fn any_history_is_answered_as_in_this_process(subject: &Subject) {
    for seed in 0..4 {
        let (reference, mut random) = (subjects::process(), fastrand::Rng::with_seed(seed));
        let (expected, first, second) = (reference.connect(), subject.connect(), subject.connect());
        let mut sequences = [0; 4];
        for round in 0..250 {
            let key = format!("history{seed}:{}", random.usize(0..3));
            let writer = random.usize(0..sequences.len());
            let is_new = random.u8(0..4) > 0;
            sequences[writer] += u64::from(is_new);
            let (id, stamp) = (
                u64::MAX - writer as u64 - 10 * seed,
                round / 3 + random.u64(0..5),
            );
            let mut attempt = match random.u8(0..4) {
                0 => delete(&key, id, sequences[writer], stamp),
                _ => put(&key, id, sequences[writer], stamp),
            };
            if let (KeyChange::Put { envelope, .. }, 0) = (&mut attempt.change, random.u8(0..6)) {
                // Another program may have stored no envelope.
                *envelope = Bytes::from_static(b"[1, 2]");
            }
            let stored = expected.read(&key);
            attempt.expects = match random.u8(0..8) {
                0 => Expects::Nothing,
                1 => Expects::Absent,
                2 | 3 => Expects::of(stored.as_ref()),
                4 => Expects::of(Some(&envelope("\"0/1\"", stamp))),
                _ => Expects::Anything,
            };
            attempt.retry = (!is_new || random.u8(0..8) == 0).then_some(Duration::ZERO);
            // Right or wrong, the hint changes nothing.
            attempt.recorded = random
                .bool()
                .then(|| sequences[writer].saturating_sub(random.u64(0..3)));
            // Both sessions are connected to the same backend.
            let session = if random.bool() { &first } else { &second };
            assert_eq!(
                session.commit(&attempt),
                expected.commit(&attempt),
                "{seed}/{round}: {attempt:?}"
            );
            assert_eq!(
                first.read(&key),
                expected.read(&key),
                "{seed}/{round}: {attempt:?}"
            );
            if random.u8(0..20) == 0 {
                for session in [&first, &expected] {
                    session.wait(session.inner.forget(id, &[key.as_str().into()]));
                }
            }
        }
    }
}

pub(super) fn a_batch_is_answered_in_its_order_each_key_for_itself(subject: &Subject) {
    let session = subject.connect();
    assert_eq!(session.commit(&put("batch:b", 1, 1, 9)), NEW);
    let batch = [
        put("batch:a", 1, 2, 5),
        put("batch:b", 1, 3, 5),
        delete("batch:c", 1, 4, 5),
        put("batch:d", 1, 5, 5),
    ];
    let answers = session.commit_all(&batch);
    let refused = KeyState {
        stored: Some(Document::of(envelope("\"1/1\"", 9))),
        tombstone: Stamp::ZERO,
    };
    assert_eq!(answers, [NEW, Outcome::Refused(refused), NEW, NEW]);
    let read = ["batch:d", "batch:x", "batch:a"].map(|key| (key, ReadKind::Through));
    let stored = session
        .read_as(read)
        .map(|(stored, _)| stored.map(|stored| stored.to_bytes()));
    assert_eq!(
        stored,
        [
            Some(envelope("\"1/5\"", 5)),
            None,
            Some(envelope("\"1/2\"", 5))
        ]
    );
    assert_eq!(session.commit_all(&[]), []);
    assert_eq!(session.wait(session.inner.read(&[])).len(), 0);
}

pub(super) fn a_delete_stays_and_an_older_write_does_not_bring_the_key_back(subject: &Subject) {
    let session = subject.connect();
    assert_eq!(session.commit(&put("deleted", 1, 1, 5)), NEW);
    assert_eq!(session.commit(&delete("deleted", 1, 2, 7)), REPLACED);
    for older in [6, 7] {
        let found = KeyState {
            stored: None,
            tombstone: Stamp::new(7),
        };
        assert_eq!(
            session.commit(&put("deleted", 2, older, older)),
            Outcome::Refused(found)
        );
    }
    assert_eq!(subject.connect().read("deleted"), None);
    assert_eq!(session.commit(&put("deleted", 2, 8, 8)), NEW);
}

pub(super) fn a_time_to_live_is_kept_set_and_taken_away(subject: &Subject) {
    let session = subject.connect();
    let short = TimeToLive::For(Duration::from_millis(300));
    for (key, sequence, second) in [("kept", 1, TimeToLive::Keep), ("shortened", 2, short)] {
        let first = TimeToLive::For(if key == "kept" {
            Duration::from_millis(300)
        } else {
            DAY
        });
        assert_eq!(
            session.commit(&with_ttl(put(key, 1, 10 * sequence, 5), first)),
            NEW
        );
        assert_eq!(
            session.commit(&with_ttl(put(key, 1, 10 * sequence + 1, 6), second)),
            REPLACED
        );
        let end = clock::Deadline::after(subject.deadline);
        while session.read(key).is_some() {
            assert!(!end.remaining().is_zero(), "{key} does not expire");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!session.names(key).contains(&key.to_owned()));
        // Nothing of it is left, its time to live included.
        assert_eq!(session.commit(&put(key, 1, 10 * sequence + 2, 7)), NEW);
        assert!(session.read(key).is_some());
    }
    let ends = clock::Deadline::after(Duration::from_millis(310));
    assert_eq!(session.commit(&with_ttl(put("freed", 1, 1, 5), short)), NEW);
    assert_eq!(
        session.commit(&with_ttl(put("freed", 1, 2, 6), TimeToLive::Never)),
        REPLACED
    );
    while !ends.remaining().is_zero() {
        std::thread::sleep(ends.remaining());
    }
    assert!(session.read("freed").is_some() && session.read("kept").is_some());
}

pub(super) fn names_come_page_by_page_and_their_prefix_is_meant_literally(subject: &Subject) {
    let session = subject.connect();
    let odd = ["a*b?[c]\\%_^'\"", "é", "é%", "\u{10ffff}", "x y", "a\0b"];
    for (number, prefix) in odd.iter().enumerate() {
        let number = 10 * number as u64;
        for (index, name) in ["", ":", "n", "ü"].iter().enumerate() {
            session.commit(&put(
                &format!("odd:{prefix}{name}"),
                1,
                number + index as u64 + 1,
                5,
            ));
        }
        session.commit(&delete(&format!("odd:{prefix}n"), 1, number + 9, 6));
    }
    for prefix in odd {
        let expected: BTreeSet<String> = odd
            .iter()
            .flat_map(|other| ["", ":", "ü"].map(|name| format!("odd:{other}{name}")))
            .collect();
        let expected: Vec<String> = expected
            .into_iter()
            .filter(|name| name.starts_with(&format!("odd:{prefix}")))
            .collect();
        assert_eq!(session.names(&format!("odd:{prefix}")), expected);
        assert_eq!(session.read(&format!("odd:{prefix}n")), None);
        assert!(session.read(&format!("odd:{prefix}ü")).is_some());
    }
    let many: Vec<_> = (0..2_500)
        .map(|number| put(&format!("many:{number:04}"), 1, number + 1, 5))
        .collect();
    for batch in many.chunks(500) {
        session.commit_all(batch);
    }
    session.commit(&put("many;", 1, 1, 5));
    assert_eq!(
        session.names("many:"),
        many.iter()
            .map(|put| put.key.to_string())
            .collect::<Vec<_>>()
    );
    assert_eq!(session.names("many:2499"), ["many:2499"]);
    assert_eq!(session.names("nothing"), [""; 0]);
}

pub(super) fn what_is_recorded_is_not_made_again_and_what_was_dropped_is_not_guessed(
    subject: &Subject,
) {
    let session = subject.connect();
    let retry = |attempt: Attempt| Attempt {
        retry: Some(Duration::from_secs(1)),
        ..attempt
    };
    let most = RECORDS as u64;
    for writer in 1..=most + 1 {
        let existed = writer > 1;
        assert_eq!(
            session.commit(&put("busy", writer, 1, writer)),
            Outcome::Applied {
                existed,
                contended: None
            }
        );
    }
    let last = put("busy", most + 1, 1, most + 1);
    let found = || KeyState {
        stored: session.read("busy").map(Document::of),
        tombstone: Stamp::ZERO,
    };
    assert_eq!(
        session.commit(&retry(last)),
        Outcome::AlreadyApplied(found())
    );
    assert_eq!(
        session.commit(&retry(put("busy", 1, 1, 9_999))),
        Outcome::RecordExpired(found())
    );
    // A first try needs no record.
    assert_eq!(session.commit(&put("busy", 2, 2, 9_999)), REPLACED);
}

pub(super) fn a_record_is_kept_for_as_long_as_its_own_writer_needs_it(subject: &Subject) {
    let pass = |time| {
        let end = clock::Deadline::after(time);
        while !end.remaining().is_zero() {
            std::thread::sleep(end.remaining());
        }
    };
    let own = |key| put(key, 1, 1, 5);
    let begun = clock::wall();
    let session = subject.connect();
    for key in ["replaced", "replaced later", "deleted", "pruned", "refused"] {
        session.commit(&own(key));
    }
    session.commit(&with_ttl(own("expired"), TimeToLive::For(SHORT)));

    let forgetful = subject.connect_forgetful();
    forgetful.commit(&put("replaced", 2, 1, 6));
    forgetful.commit(&delete("deleted", 2, 1, 6));
    let refusal = Attempt {
        retry: Some(Duration::ZERO),
        ..put("refused", 2, 1, 4)
    };
    assert!(matches!(forgetful.commit(&refusal), Outcome::Refused(_)));
    forgetful.commit(&put("refused", 2, 2, 6));
    for writer in 2..=RECORDS as u64 + 1 {
        forgetful.commit(&put("pruned", writer, 1, 5 + writer));
    }
    pass(2 * SHORT);
    forgetful.commit(&put("replaced later", 2, 1, 6));
    pass(2 * SHORT);
    // What is over is removed when a session is new, or when there is much of it.
    let forgetful = subject.connect_forgetful();
    let many: Vec<_> = (0..2_500)
        .map(|number| delete(&format!("gone:{number}"), 2, 1, 6))
        .collect();
    forgetful.commit_all(&many);

    let retry = |key| {
        let age = Duration::from_nanos(clock::wall().saturating_sub(begun));
        let again = Attempt {
            retry: Some(age + Duration::from_secs(1)),
            stamp: Stamp::new(9_999),
            ..own(key)
        };
        session.commit(&again)
    };
    for key in [
        "replaced",
        "replaced later",
        "deleted",
        "refused",
        "expired",
    ] {
        let outcome = retry(key);
        assert!(
            matches!(outcome, Outcome::AlreadyApplied(_)),
            "{key}: {outcome:?}"
        );
    }
    // Of what was dropped nobody can say more.
    let outcome = retry("pruned");
    assert!(matches!(outcome, Outcome::RecordExpired(_)), "{outcome:?}");
}

/// A server's record may have an older time than the last number in it, by as much as its own
/// writer allows.
pub(super) fn a_record_that_lags_is_not_dropped_as_if_it_were_old(subject: &Subject) {
    let (session, forgetful) = (subject.connect(), subject.connect_forgetful());
    let begun = clock::wall();
    let commit_at = |session: &TestSession<'_>, attempt: Attempt, seconds: u64| {
        let now = begun + seconds * 1_000_000_000;
        let mut outcomes = session.wait(session.inner.commit(&[attempt], now));
        outcomes.remove(0).unwrap()
    };
    commit_at(&session, put("lags", 1, 1, 5), 0);
    let again = Attempt {
        recorded: Some(1),
        ..put("lags", 1, 2, 6)
    };
    commit_at(&session, again, 30);
    for writer in 2..=RECORDS as u64 + 2 {
        let seconds = if writer < 200 { 10 } else { 31 };
        commit_at(&forgetful, put("lags", writer, 1, 5 + writer), seconds);
    }
    // Some backends have a clock of their own.
    let took = Duration::from_nanos(clock::wall().saturating_sub(begun));
    let retry = Attempt {
        retry: Some(took + Duration::from_secs(2)),
        ..put("lags", 1, 2, 9_999)
    };
    let outcome = commit_at(&session, retry, 32);
    assert!(matches!(outcome, Outcome::RecordExpired(_)), "{outcome:?}");
}

pub(super) fn a_large_value_comes_back_byte_for_byte(subject: &Subject) {
    let session = subject.connect();
    let value = format!("\"{}\"", "é\\u0000".repeat(500_000));
    let large = envelope(&value, 5);
    let change = KeyChange::Put {
        envelope: large.clone(),
        ttl: TimeToLive::Keep,
    };
    assert_eq!(
        session.commit(&Attempt {
            change,
            ..put("large", 1, 1, 5)
        }),
        NEW
    );
    assert_eq!(session.read("large"), Some(large.clone()));
    let edited = Attempt {
        expects: Expects::of(Some(&large)),
        ..put("large", 1, 2, 6)
    };
    assert_eq!(session.commit(&edited), REPLACED);
}

pub(super) fn the_clock_runs(subject: &Subject) {
    let session = subject.connect();
    let (before, after) = (clock::wall(), session.wait(session.inner.now()));
    assert!(after.abs_diff(before) < 60_000_000_000, "{before} {after}");
    assert_eq!(
        session.wait(session.inner.eviction_policy()).is_some(),
        subject.backend.target().contains("redis")
    );
}
