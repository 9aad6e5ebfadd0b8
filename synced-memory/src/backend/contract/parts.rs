//! Changes of a part: an addition is made once, to whatever is there, or not at all; an edit is
//! made of what is expected.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{SHORT, Subject, TestSession, delete, envelope, put, subjects};
use crate::backend::commit::{
    Attempt, Expects, KeyChange, KeyState, Outcome, Sequence, TimeToLive, ValueId, Writer,
};
use crate::base::clock::{Deadline, Stamp};
use crate::value::addition::Addition;
use crate::value::document::{ByteEdit, Document, length_after};
use crate::value::mutation::Json;

const STEP: u64 = 7;

fn blind(attempt: Attempt, addition: Addition) -> Attempt {
    Attempt {
        change: KeyChange::Blind {
            addition,
            ttl: TimeToLive::Keep,
            step: STEP,
        },
        ..attempt
    }
}

pub(super) fn append(
    key: &str,
    writer: Writer,
    sequence: Sequence,
    stamp: u64,
    items: &str,
) -> Attempt {
    let items = serde_json::from_str::<Vec<Box<RawValue>>>(&format!("[{items}]")).unwrap();
    let items = items
        .iter()
        .map(|item| Json::parse(item.get().to_owned()).unwrap());
    let items = Addition::Items(items.collect());
    blind(put(key, writer, sequence, stamp), items)
}

fn add(key: &str, writer: Writer, sequence: Sequence, by: i64) -> Attempt {
    let integer = Addition::Integer {
        by,
        min: i64::MIN,
        max: i64::MAX,
    };
    blind(put(key, writer, sequence, 1), integer)
}

/// Stores this as it is.
pub(super) fn store(session: &TestSession<'_>, key: &str, stored: &str) {
    store_as(session, key, stored, TimeToLive::Keep);
}

fn store_as(session: &TestSession<'_>, key: &str, stored: &str, ttl: TimeToLive) {
    static STORED: AtomicU64 = AtomicU64::new(1);
    let sequence = STORED.fetch_add(1, Ordering::Relaxed);
    let there = session.read(key);
    let put = Attempt {
        change: KeyChange::Put {
            envelope: Bytes::from(stored.to_owned()),
            ttl,
        },
        expects: Expects::Anything,
        ..put(key, u64::MAX, sequence, 1 << 61)
    };
    assert_eq!(
        session.commit(&put),
        Outcome::Applied {
            existed: there.is_some(),
            contended: None
        }
    );
}

fn added(before: &Bytes, stamp: u64, sum: Option<i64>) -> Outcome {
    Outcome::Added {
        before: ValueId::of(&Document::of(before.clone())),
        stamp: Stamp::new(stamp),
        sum,
        contended: None,
    }
}

pub(super) fn items_are_appended_to_whatever_list_is_there(subject: &Subject) {
    const KEY: &str = "appended";
    let (session, other) = (subject.connect(), subject.connect());
    store(&session, KEY, r#"{"value": [],"last_modified": 5}"#);
    // Its own stamp, or one above what is there if that is newer.
    for (number, (writer, stamp, items, expected)) in (1..).zip([
        (1, 9, "1", r#"{"value": [1],"last_modified": 12}"#),
        (
            2,
            4,
            r#"[],"[""#,
            r#"{"value": [1,[],"["],"last_modified": 19}"#,
        ),
        (
            1,
            16,
            "{}",
            r#"{"value": [1,[],"[",{}],"last_modified": 26}"#,
        ),
        (
            3,
            1_999_999_999_999_999_999,
            "4",
            r#"{"value": [1,[],"[",{},4],"last_modified": 1999999999999999999}"#,
        ),
        (
            3,
            2,
            "5",
            r#"{"value": [1,[],"[",{},4,5],"last_modified": 2000000000000000006}"#,
        ),
    ]) {
        let before = session.read(KEY).unwrap();
        let session = if writer == 2 { &other } else { &session };
        let outcome = session.commit(&append(KEY, writer, number, stamp, items));
        let after = session.read(KEY).unwrap();
        assert_eq!(after, expected);
        assert_eq!(
            outcome,
            added(&before, Document::of(after.clone()).stamp().get(), None)
        );
    }
    let long = format!("\"{}\"", "é\\u0000".repeat(50_000));
    session.commit(&append(KEY, 4, 1, 1, &long));
    session.commit(&append(KEY, 4, 2, 1, "6"));
    let expected = format!("[1,[],\"[\",{{}},4,5,{long},6]");
    assert_eq!(
        session.read(KEY),
        Some(envelope(&expected, 2_000_000_000_000_000_020))
    );
}

/// Others may have any layout, and what looks like the end of a list may be something else.
pub(super) fn items_are_appended_to_nothing_but_a_list_whose_end_is_known(subject: &Subject) {
    let session = subject.connect();
    let nothing = KeyState {
        stored: None,
        tombstone: Stamp::ZERO,
    };
    let missing = session.commit(&append("not a list", 1, 1, 9, "1"));
    assert_eq!(missing, Outcome::Refused(nothing));
    session.commit(&put("removed", 1, 1, 5));
    session.commit(&delete("removed", 1, 2, 7));
    let removed = KeyState {
        stored: None,
        tombstone: Stamp::new(7),
    };
    let outcome = session.commit(&append("removed", 1, 3, 9, "1"));
    assert_eq!(outcome, Outcome::Refused(removed));

    for (number, stored) in (10..).zip([
        r#"{"value": {"a": [1]},"last_modified": 5}"#,
        r#"{"value": "],","last_modified": 5}"#,
        r#"{"value": [1 ],"last_modified": 5}"#,
        r#"{"value": [ ],"last_modified": 5}"#,
        r#"{"value": [1], "last_modified": 5}"#,
        r#"{"value": [1] ,"last_modified": 5}"#,
        r#"{"value": [1],"last_modified": 5} "#,
        r#"{"value": [1],"last_modified":5}"#,
        r#"{"x": 1,"value": {"b": [1]},"last_modified": 5}"#,
        "[1]",
        "7",
        "",
        "garbage",
    ]) {
        store(&session, "not a list", stored);
        let outcome = session.commit(&append("not a list", 1, number, 9_999, "1"));
        let found = KeyState {
            stored: Some(Document::of(Bytes::from(stored))),
            tombstone: Stamp::ZERO,
        };
        assert_eq!(outcome, Outcome::Refused(found), "{stored}");
        assert_eq!(session.read("not a list").unwrap(), stored);
    }
}

pub(super) fn an_integer_is_added_exactly_or_not_at_all(subject: &Subject) {
    const KEY: &str = "sum";
    let session = subject.connect();
    let (least, most) = (i64::MIN, i64::MAX);
    let mut number = 0;
    for (stored, by, sum) in [
        ("5", 3, Some(8)),
        ("5", -5, Some(0)),
        ("-5", 3, Some(-2)),
        ("0", 0, Some(0)),
        ("999999999999999", 1, Some(1_000_000_000_000_000)),
        ("9007199254740993", 1, Some(9_007_199_254_740_994)),
        ("9223372036854775806", 1, Some(most)),
        ("9223372036854775807", 1, None),
        ("-9223372036854775808", most, Some(-1)),
        ("-9223372036854775808", -1, None),
        ("0", least, Some(least)),
        ("9223372036854775807", least, Some(-1)),
        ("18446744073709551615", -1, None),
        ("18446744073709551616", -1, None),
        ("5.0", 1, None),
        ("1e3", 1, None),
        ("-0", 1, None),
        ("\"5\"", 1, None),
        ("null", 1, None),
        ("[5]", 1, None),
    ] {
        number += 1;
        let before = format!(
            "{{\"value\": {stored},\"last_modified\": {}}}",
            1_000 * number
        );
        store(&session, KEY, &before);
        let before = Bytes::from(before);
        let outcome = session.commit(&add(KEY, 1, number, by));
        let stamp = 1_000 * number + STEP;
        match sum {
            Some(_) => assert_eq!(outcome, added(&before, stamp, sum), "{stored} + {by}"),
            None => assert!(
                matches!(outcome, Outcome::Refused(_)),
                "{stored} + {by}: {outcome:?}"
            ),
        }
        let expected = sum.map_or(before, |sum| envelope(&sum.to_string(), stamp));
        assert_eq!(session.read(KEY), Some(expected), "{stored} + {by}");
    }

    // As others write it, and what is too long to be looked at.
    for (stored, is_made) in [
        (
            " { \"value\" : 5 ,\n\"last_modified\": 3 } ".to_owned(),
            true,
        ),
        ("{\"value\": 5, \"last_modified\": 3}".to_owned(), true),
        (
            format!("{{\"value\": 5,{}\"last_modified\": 3}}", " ".repeat(128)),
            false,
        ),
        (
            "{\"x\": 1, \"value\": 5, \"last_modified\": 3}".to_owned(),
            false,
        ),
        ("5".to_owned(), false),
    ] {
        number += 1;
        store(&session, KEY, &stored);
        let outcome = session.commit(&add(KEY, 1, number, 1));
        assert_eq!(
            matches!(outcome, Outcome::Added { .. }),
            is_made,
            "{stored}"
        );
        let after = if is_made {
            envelope("6", 3 + STEP)
        } else {
            stored.into()
        };
        assert_eq!(session.read(KEY), Some(after));
        session.commit(&delete(KEY, u64::MAX - 1, number, 1_000_000 + number));
    }

    let bounded = |by| {
        let bounds = Addition::Integer {
            by,
            min: 0,
            max: 255,
        };
        blind(put("bounded", 1, 1, 9), bounds)
    };
    store(&session, "bounded", r#"{"value": 250,"last_modified": 3}"#);
    for (by, is_made) in [(6, false), (-251, false), (5, true), (-255, true)] {
        number += 1;
        let attempt = Attempt {
            sequence: number,
            ..bounded(by)
        };
        let outcome = session.commit(&attempt);
        assert_eq!(
            matches!(outcome, Outcome::Added { .. }),
            is_made,
            "{by}: {outcome:?}"
        );
    }
}

pub(super) fn an_addition_is_made_once_however_often_it_arrives(subject: &Subject) {
    let (session, other) = (subject.connect(), subject.connect());
    for (key, first, addition) in [
        ("once: items", "[1]", append("once: items", 1, 5, 9, "2")),
        ("once: integer", "1", add("once: integer", 1, 5, 1)),
    ] {
        store(
            &session,
            key,
            &format!("{{\"value\": {first},\"last_modified\": 5}}"),
        );
        assert!(matches!(session.commit(&addition), Outcome::Added { .. }));
        // Whatever others have written since.
        let next = Attempt {
            writer: 2,
            sequence: 1,
            ..addition.clone()
        };
        assert!(matches!(other.commit(&next), Outcome::Added { .. }));
        for again in [
            addition.clone(),
            Attempt {
                retry: Some(Duration::from_secs(1)),
                ..addition.clone()
            },
        ] {
            let found = KeyState {
                stored: session.read(key).map(Document::of),
                tombstone: Stamp::ZERO,
            };
            assert_eq!(other.commit(&again), Outcome::AlreadyApplied(found.clone()));
            assert_eq!(session.read(key).map(Document::of), found.stored);
        }
        // A refused retry is refused for ever.
        session.commit(&delete(key, 3, 1, 4_000));
        let retry = Attempt {
            sequence: 6,
            retry: Some(Duration::ZERO),
            ..addition.clone()
        };
        assert!(matches!(session.commit(&retry), Outcome::Refused(_)));
        store(
            &session,
            key,
            &format!("{{\"value\": {first},\"last_modified\": 5000}}"),
        );
        let late = Attempt {
            retry: None,
            ..retry
        };
        assert!(matches!(session.commit(&late), Outcome::Refused(_)));
    }
}

pub(super) fn an_addition_keeps_or_sets_the_time_to_live(subject: &Subject) {
    let session = subject.connect();
    let long = TimeToLive::For(Duration::from_secs(3600));
    for (name, first, addition) in [
        ("items", "[1]", append("", 1, 1, 9, "2")),
        ("integer", "1", add("", 1, 1, 1)),
    ] {
        let store_then_add = |key: &str, stored, ttl| {
            let text = format!("{{\"value\": {first},\"last_modified\": 5}}");
            store_as(&session, key, &text, stored);
            session.commit(&Attempt {
                key: key.into(),
                change: addition.change.clone().with_ttl(ttl),
                ..addition.clone()
            })
        };
        for (how, stored, ttl) in [
            ("kept", TimeToLive::For(SHORT), TimeToLive::Keep),
            ("set", long, TimeToLive::For(SHORT)),
        ] {
            let key = format!("{how}: {name}");
            let outcome = store_then_add(&key, stored, ttl);
            assert!(
                matches!(outcome, Outcome::Added { .. }),
                "{key}: {outcome:?}"
            );
            let end = Deadline::after(subject.deadline);
            while session.read(&key).is_some() {
                assert!(!end.remaining().is_zero(), "{key} does not expire");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        // A backend may refuse to give a time to live to what has none, or to take it away.
        for (how, stored, ttl) in [
            ("given", TimeToLive::Never, TimeToLive::For(SHORT)),
            ("freed", TimeToLive::For(3 * SHORT), TimeToLive::Never),
        ] {
            let key = format!("{how}: {name}");
            let is_made = matches!(store_then_add(&key, stored, ttl), Outcome::Added { .. });
            let end = Deadline::after(4 * SHORT);
            while !end.remaining().is_zero() {
                std::thread::sleep(end.remaining());
            }
            let is_there = session.read(&key).is_some();
            let is_expiring = (how == "freed") ^ is_made;
            assert_eq!(is_there, !is_expiring, "{key}: {is_made}");
        }
    }
}

/// Random histories of lists and integers, in which others store and remove them.
pub(super) fn any_history_of_additions_is_answered_as_in_this_process(subject: &Subject) {
    for seed in 0..4 {
        let (reference, mut random) = (subjects::process(), fastrand::Rng::with_seed(seed));
        let (expected, first, second) = (reference.connect(), subject.connect(), subject.connect());
        let mut sequences = [0; 3];
        for round in 0..200 {
            let key = format!("additions{seed}:{}", random.usize(0..2));
            let writer = random.usize(0..sequences.len());
            let is_new = random.u8(0..5) > 0;
            sequences[writer] += u64::from(is_new);
            let (id, number) = (1_000 * seed + writer as u64, sequences[writer]);
            let stamp = round / 2 + random.u64(1..30);
            let mut attempt = match random.u8(0..10) {
                0 => delete(&key, id, number, stamp),
                1 | 2 => {
                    let values = ["[]", "[1,2]", "7", "{}", "9223372036854775800"];
                    let value = values[random.usize(0..values.len())];
                    let change = KeyChange::Put {
                        envelope: envelope(value, stamp),
                        ttl: TimeToLive::Keep,
                    };
                    Attempt {
                        change,
                        ..put(&key, id, number, stamp)
                    }
                }
                3..=6 => append(&key, id, number, stamp, &format!("{round},[{writer}]")),
                _ => add(&key, id, number, random.i64(-3..9)),
            };
            attempt.retry = (!is_new || random.u8(0..8) == 0).then_some(Duration::ZERO);
            let session = if random.bool() { &first } else { &second };
            let outcome = session.commit(&attempt);
            assert_eq!(
                outcome,
                expected.commit(&attempt),
                "{seed}/{round}: {attempt:?}"
            );
            assert_eq!(
                first.read(&key),
                expected.read(&key),
                "{seed}/{round}: {attempt:?}"
            );
        }
    }
}

pub(super) fn an_addition_is_notified_like_any_change(subject: &Subject) {
    let (session, other) = (subject.connect(), subject.connect());
    store(&session, "told", r#"{"value": [1],"last_modified": 5}"#);
    session.track();
    session.read_tracked("told");
    session.drain();
    session.read_tracked("told");
    let outcome = other.commit(&append("told", 1, 1, 9, "2"));
    assert!(matches!(outcome, Outcome::Added { .. }));
    assert!(session.is_notified_of(&["told"]));
}

/// What an edit of this document makes of it, and the attempt to make it.
pub(super) fn edit(
    key: &str,
    number: Sequence,
    document: &Document,
    edits: Vec<ByteEdit>,
) -> Attempt {
    let stamp = Stamp::new(document.stamp().get() + 5);
    let edits: Vec<_> = edits
        .into_iter()
        .chain(document.stamp_edit(stamp))
        .collect();
    let length = length_after(document.len(), &edits).unwrap();
    let made = document.edited(&edits, stamp, length).unwrap();
    Attempt {
        stamp,
        change: KeyChange::Edit {
            base: document.clone(),
            ranges: document.guarded(edits),
            made,
            ttl: TimeToLive::Keep,
            step: None,
        },
        expects: Expects::of_document(Some(document)),
        ..put(key, 1, number, 0)
    }
}

pub(super) fn made_by(attempt: &Attempt) -> Document {
    match &attempt.change {
        KeyChange::Edit { made, .. } => made.clone(),
        other => panic!("{other:?} is no edit"),
    }
}

/// Ranges that become longer, shorter, or as long as they were, near each other and far apart.
pub(super) fn an_edit_makes_what_its_writer_has_made(subject: &Subject) {
    const KEY: &str = "edited";
    let session = subject.connect();
    let mut random = fastrand::Rng::with_seed(7);
    for number in 1..=60 {
        let items: Vec<_> = (0..random.usize(1..300))
            .map(|n| format!("\"é{n}{}\"", "x".repeat(random.usize(0..40))))
            .collect();
        let value = format!("[{}]", items.join(","));
        let space = [" ", "  ", "\n"][random.usize(0..3)];
        let layout = [
            format!("{{\"value\": {value},\"last_modified\": {number}}}"),
            format!(
                "{{\"value\":{space}{value}{space},{space}\"last_modified\": {number}{space}}}"
            ),
            format!("{{\"x\": [1], \"value\": {value}, \"last_modified\": {number}}}"),
        ];
        store(&session, KEY, &layout[random.usize(0..3)]);
        let document = Document::of(session.read(KEY).unwrap());
        let mut edits = Vec::new();
        let mut at = 0;
        for _ in 0..random.usize(1..5) {
            at += random.usize(0..=items.len() - at.min(items.len()));
            let Some(item) = items.get(at) else { break };
            let range = document.entry_range(at).unwrap();
            let new = match random.u8(0..4) {
                0 => "y".repeat(item.len() - 2),
                1 => String::new(),
                2 => "z".repeat(item.len() + random.usize(0..90)),
                _ => "w".repeat(random.usize(0..item.len())),
            };
            edits.push(ByteEdit {
                start: range.start,
                old_len: range.len(),
                new: format!("\"{new}\"").into(),
            });
            at += 1;
        }
        let attempt = edit(KEY, number, &document, edits);
        let made = made_by(&attempt);
        // Somebody else was faster, and is longer, or newer.
        for expects in [
            Expects::Stamped {
                stamp: Stamp::new(number + 1),
                length: document.len(),
            },
            Expects::Stamped {
                stamp: document.stamp(),
                length: document.len() + 1,
            },
        ] {
            let other = Attempt {
                expects,
                ..attempt.clone()
            };
            assert!(matches!(session.commit(&other), Outcome::Refused(_)));
        }
        let applied = Outcome::Applied {
            existed: true,
            contended: None,
        };
        assert_eq!(session.commit(&attempt), applied, "{attempt:?}");
        assert_eq!(session.read(KEY), Some(made.to_bytes()));
        let again = Attempt {
            retry: Some(Duration::ZERO),
            ..attempt
        };
        assert!(matches!(session.commit(&again), Outcome::AlreadyApplied(_)));
        // What it has made of a list of ours is appended to.
        let outcome = session.commit(&append(KEY, 2, number, 1, "7"));
        if made.is_own_list() {
            assert!(matches!(outcome, Outcome::Added { .. }), "{outcome:?}");
        } else {
            assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
    }
}

/// Who edits by hand may keep stamp and length. Nothing is mixed with what they wrote.
pub(super) fn an_edit_does_not_damage_what_was_edited_by_hand(subject: &Subject) {
    const KEY: &str = "by hand";
    let session = subject.connect();
    let long = "x".repeat(100);
    let value = format!(r#"["{long}","b","c","d"]"#);
    for (number, (at, by_hand)) in (1..).zip([
        (0, value.replace("xx\"", "yx\"")),
        (0, value.replace("\"xx", "\"yx")),
        (1, value.replace("\"b\"", "\"e\"")),
        (2, value.replace("\"b\",\"c\"", "\"\",\"bc\"")),
        (3, value.replace("\"c\",\"d\"", "\"c, d\" ")),
    ]) {
        let stored = envelope(&value, 5);
        store(&session, KEY, std::str::from_utf8(&stored).unwrap());
        let document = Document::of(stored);
        let range = document.entry_range(at).unwrap();
        let edits = vec![ByteEdit {
            start: range.start,
            old_len: range.len(),
            new: "\"new\"".into(),
        }];
        let attempt = edit(KEY, number, &document, edits);
        let other = envelope(&by_hand, 5);
        assert_eq!(other.len(), document.len());
        store(&session, KEY, std::str::from_utf8(&other).unwrap());
        match session.commit(&attempt) {
            Outcome::Refused(_) => assert_eq!(session.read(KEY), Some(other)),
            // A backend may replace the whole.
            _ => assert_eq!(session.read(KEY), Some(made_by(&attempt).to_bytes())),
        }
    }
}
