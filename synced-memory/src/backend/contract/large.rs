//! Large values, which a backend may store in parts, and values that become large or small.

use std::time::Duration;

use bytes::Bytes;

use super::parts::{append, edit};
use super::{DAY, SHORT, Subject, TestSession, delete, envelope, put, subjects, with_ttl};
use crate::backend::ReadKind;
use crate::backend::commit::{Attempt, Expects, KeyChange, Outcome, Sequence, TimeToLive, Writer};
use crate::base::clock::{Deadline, Stamp};
use crate::value::document::{ByteEdit, Document, DocumentRoot};

/// About where a backend may begin to store a value in another way.
const BORDERS: [usize; 4] = [4 << 10, 32 << 10, 64 << 10, 200 << 10];

fn item(random: &mut fastrand::Rng, length: usize) -> String {
    let letters = ["x", "é", "\u{20ac}", "\\\"", "],", "\\u0000"];
    let letter = letters[random.usize(0..letters.len())];
    format!("\"{}\"", letter.repeat(length / letter.len()))
}

/// The length of an item: most are short.
fn length(random: &mut fastrand::Rng) -> usize {
    match random.u8(0..20) {
        0 => random.usize(0..40_000),
        1..=4 => random.usize(0..3_000),
        _ => random.usize(0..100),
    }
}

fn items(random: &mut fastrand::Rng, bytes: usize) -> String {
    let mut items = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let length = length(random);
        items.push(item(random, length));
        left = left.saturating_sub(length + 3);
    }
    items.join(",")
}

fn store_value(key: &str, writer: Writer, number: Sequence, stamp: u64, value: &str) -> Attempt {
    let change = KeyChange::Put {
        envelope: envelope(value, stamp),
        ttl: TimeToLive::Keep,
    };
    Attempt {
        change,
        ..put(key, writer, number, stamp)
    }
}

/// Some elements are replaced, inserted or removed, in any part of the list.
fn edits(random: &mut fastrand::Rng, document: &Document) -> Vec<ByteEdit> {
    let DocumentRoot::List(count) = document.root() else {
        return Vec::new();
    };
    let mut edits = Vec::new();
    let mut at = 0;
    for _ in 0..random.usize(1..4) {
        at += random.usize(0..=count.saturating_sub(at));
        // A queue is emptied from its front.
        let at = if random.bool() { at } else { edits.len() };
        if at >= count || edits.len() > at {
            break;
        }
        let range = document.entry_range(at).unwrap();
        let length = length(random);
        edits.push(match random.u8(0..6) {
            0 if at > 0 => ByteEdit {
                start: range.start - 1,
                old_len: range.len() + 1,
                new: Bytes::new(),
            },
            1 => ByteEdit {
                start: range.end,
                old_len: 0,
                new: format!(",{}", item(random, length)).into(),
            },
            2 => ByteEdit {
                start: range.start,
                old_len: range.len(),
                new: format!("\"{}\"", "y".repeat(range.len() - 2)).into(),
            },
            _ => ByteEdit {
                start: range.start,
                old_len: range.len(),
                new: item(random, length).into(),
            },
        });
    }
    edits.sort_unstable_by_key(|edit| edit.start);
    edits.dedup_by(|next, edit| next.start < edit.start + edit.old_len + 1);
    edits
}

/// Random histories of a list that grows and shrinks, by two sessions and others that open later.
pub(super) fn any_history_of_large_values_is_answered_as_in_this_process(subject: &Subject) {
    for seed in 0..3 {
        let (reference, mut random) = (subjects::process(), fastrand::Rng::with_seed(seed));
        let (expected, first, second) = (reference.connect(), subject.connect(), subject.connect());
        let key = format!("large{seed}");
        let (mut known, mut reader): (Option<Document>, Option<Document>) = (None, None);
        for number in 1..=120 {
            let stamp = 1_000 * number;
            let attempt = match (random.u8(0..20), &known) {
                (0, _) => delete(&key, seed, number, stamp),
                (1 | 2, _) | (_, None) => {
                    let border = BORDERS[random.usize(0..BORDERS.len())];
                    let bytes = border - 600 + random.usize(0..1_200);
                    let items = items(&mut random, bytes);
                    store_value(&key, seed, number, stamp, &format!("[{items}]"))
                }
                (3..=9, _) => {
                    let bytes = random.usize(1..2_000);
                    let items = items(&mut random, bytes);
                    append(&key, seed, number, stamp, &items)
                }
                (_, Some(known)) => Attempt {
                    writer: seed,
                    ..edit(&key, number, known, edits(&mut random, known))
                },
            };
            let session = if random.bool() { &first } else { &second };
            let outcome = session.commit(&attempt);
            assert_eq!(outcome, expected.commit(&attempt), "{seed}/{number}");
            let there = expected.read(&key);
            assert!(first.read(&key) == there, "{seed}/{number}: {attempt:?}");
            // Somebody may know what was there a while ago.
            if random.u8(0..8) > 0 {
                known = there.clone().map(Document::of);
            }
            if random.u8(0..4) == 0 {
                let what = reader.as_ref().map(|reader| (reader, random.bool()));
                reader = first.read_known(&key, ReadKind::Through, what);
                assert!(reader == there.map(Document::of), "{seed}/{number}");
            }
        }
        let there = expected.read(&key);
        assert!(subject.connect().read(&key) == there, "{seed}");
    }
}

pub(super) fn a_large_value_expires_and_is_removed_as_a_whole(subject: &Subject) {
    let session = subject.connect();
    let mut random = fastrand::Rng::with_seed(5);
    let large = format!("[{}]", items(&mut random, 100_000));
    let short = TimeToLive::For(SHORT);
    let applied = |existed| Outcome::Applied {
        existed,
        contended: None,
    };
    let put = |number, stamp| store_value("whole", 1, number, stamp, &large);

    assert_eq!(session.commit(&with_ttl(put(1, 5), short)), applied(false));
    wait_until_it_is_gone(subject, &session, "whole");
    // A server stores it anew if it only begins to expire.
    let day = TimeToLive::For(DAY);
    assert_eq!(session.commit(&with_ttl(put(2, 6), day)), applied(false));
    let document = Document::of(session.read("whole").unwrap());
    let edited = edit("whole", 3, &document, edits(&mut random, &document));
    let edited = Attempt {
        change: edited.change.with_ttl(short),
        ..edited
    };
    assert_eq!(session.commit(&edited), applied(true));
    wait_until_it_is_gone(subject, &session, "whole");

    assert_eq!(session.commit(&put(4, 1_000)), applied(false));
    assert_eq!(session.commit(&delete("whole", 1, 5, 1_001)), applied(true));
    assert_eq!(session.read("whole"), None);
    // What is stored next has nothing of it.
    let small = store_value("whole", 1, 6, 1_002, "[1]");
    assert_eq!(session.commit(&small), applied(false));
    let stored = Some(envelope("[1]", 1_002));
    assert_eq!(session.read("whole"), stored);
    let other = Attempt {
        expects: Expects::Stamped {
            stamp: Stamp::new(1_000),
            length: document.len(),
        },
        ..put(7, 1_003)
    };
    assert!(matches!(session.commit(&other), Outcome::Refused(_)));
    assert_eq!(session.read("whole"), stored);
}

fn wait_until_it_is_gone(subject: &Subject, session: &TestSession<'_>, key: &str) {
    let end = Deadline::after(subject.deadline);
    while session.read(key).is_some() {
        assert!(!end.remaining().is_zero(), "{key} does not expire");
        std::thread::sleep(Duration::from_millis(2));
    }
}
