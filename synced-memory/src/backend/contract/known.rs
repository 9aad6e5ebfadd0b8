//! Who names what it knows is answered as if it knew nothing.

use std::sync::Arc;
use std::time::Duration;

use super::parts::{append, edit, store};
use super::{Subject, TestSession, delete, envelope};
use crate::backend::commit::{Attempt, KeyChange, Outcome, Sequence, Writer};
use crate::backend::{KeyRead, KnownValue, ReadKind};
use crate::value::document::{ByteEdit, Document};

impl TestSession<'_> {
    pub(super) fn read_known(
        &self,
        key: &str,
        kind: ReadKind,
        known: Option<(&Document, bool)>,
    ) -> Option<Document> {
        let known = known.map(|(document, trusts_stamp)| KnownValue {
            document: document.clone(),
            trusts_stamp,
        });
        let read = KeyRead {
            known,
            ..KeyRead::new(&Arc::from(key), kind)
        };
        self.wait(self.inner.read(&[read])).remove(0).unwrap().0
    }
}

/// Some change of a long value by a writer who knows what is there.
fn change(
    (session, key): (&TestSession<'_>, &str),
    random: &mut fastrand::Rng,
    number: u64,
) -> Option<Attempt> {
    let there = session.read(key).map(Document::of)?;
    let text = |length: usize| format!("\"{number}{}\"", "x".repeat(length));
    let short = text(random.usize(0..60));
    let entries = 1 + random.usize(0..3);
    let mut edits = Vec::new();
    for at in 0..entries {
        let Some(range) = there.entry_range(at * 7 + random.usize(0..7)) else {
            break;
        };
        edits.push(ByteEdit {
            start: range.start,
            old_len: range.len(),
            new: if random.u8(0..20) == 0 {
                text(4_000).into()
            } else {
                short.clone().into()
            },
        });
    }
    match random.u8(0..3) {
        0 => Some(edit(key, number, &there, edits)),
        _ => Some(append(key, 1, number, 1, &short)),
    }
}

/// Readers that are behind by more and more, others who store what they like, and what is edited by
/// hand.
pub(super) fn a_read_of_what_is_known_returns_what_is_stored(subject: &Subject) {
    const KEY: &str = "known";
    let (session, other) = (subject.connect(), subject.connect());
    session.track();
    let mut random = fastrand::Rng::with_seed(11);
    let mut known: [Option<Document>; 4] = Default::default();
    for number in 1..=600 {
        let is_long = random.u8(0..8) > 0;
        let whole = || {
            let items = (0..if is_long { 400 } else { 3 }).map(|n| format!("\"é{n} {number}\""));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        };
        let made = match random.u8(0..100) {
            0 => session.read(KEY).map(|stored| Attempt {
                stamp: Document::of(stored).stamp().next(),
                ..delete(KEY, 1, number, 0)
            }),
            1 => {
                let stored = envelope(&whole(), 1_000 * number);
                store(&other, KEY, std::str::from_utf8(&stored).unwrap());
                None
            }
            2 => {
                let stored = whole();
                let stored = format!("{{\"value\": {stored}, \"last_modified\": {number}000}}");
                store(&other, KEY, &stored);
                None
            }
            _ => change((&other, KEY), &mut random, number),
        };
        if let Some(attempt) = made {
            other.commit(&attempt);
        }
        let stored = session.read(KEY).map(Document::of);
        for (behind, known) in (1..).zip(&mut known) {
            // The last one is behind by more than a log has.
            if random.u64(0..behind * behind * behind * 2) > 0 {
                continue;
            }
            let kind = [ReadKind::Through, ReadKind::Tracked][random.usize(0..2)];
            let what = known.as_ref().map(|known| (known, random.bool()));
            let found = session.read_known(KEY, kind, what);
            assert_eq!(found, stored, "{number}: {behind}, {known:?}");
            *known = found;
        }
    }
}

/// Somebody who edits by hand may keep stamp and length.
pub(super) fn what_was_edited_by_hand_is_found_if_the_stamp_is_not_trusted(subject: &Subject) {
    const KEY: &str = "known by hand";
    let session = subject.connect();
    session.track();
    let value = format!("[{}]", vec!["\"text\""; 1_000].join(","));
    let by_hand = value.replacen("text", "xtet", 1);
    let [known, stored] = [value, by_hand].map(|value| Document::of(envelope(&value, 5)));
    store(
        &session,
        KEY,
        std::str::from_utf8(&stored.to_bytes()).unwrap(),
    );
    for kind in [ReadKind::Through, ReadKind::Tracked] {
        let found = session.read_known(KEY, kind, Some((&known, false)));
        assert_eq!(found.as_ref(), Some(&stored));
        // Who trusts it may find what it knows.
        let found = session.read_known(KEY, kind, Some((&known, true)));
        assert!(found == Some(stored.clone()) || found == Some(known.clone()));
    }
}

/// The attempt to add a member at the end of an object.
fn add_member(
    (key, writer, number): (&str, Writer, Sequence),
    base: &Document,
    (name, value): (&str, &str),
) -> Attempt {
    let name = serde_json::to_string(name).unwrap();
    let edits = vec![ByteEdit {
        start: base.len() - format!(r#"}},"last_modified": {}}}"#, base.stamp()).len(),
        old_len: 0,
        new: format!(",{name}: {value}").into(),
    }];
    let mut attempt = edit(key, number, base, edits);
    attempt.writer = writer;
    if let KeyChange::Edit { step, .. } = &mut attempt.change {
        *step = Some(3);
    }
    attempt
}

/// Others add members, or change something else, before an edit arrives that adds one.
pub(super) fn a_member_goes_behind_others_or_is_refused(subject: &Subject) {
    const KEY: &str = "members";
    let (session, other) = (subject.connect(), subject.connect());
    let members: Vec<_> = (0..400).map(|n| format!("\"é{n}\": \"text\"")).collect();
    let value = format!("{{{}}}", members.join(","));
    let mut random = fastrand::Rng::with_seed(12);
    for number in 1..=40 {
        let stored = envelope(&value, 5);
        store(&session, KEY, std::str::from_utf8(&stored).unwrap());
        let base = Document::of(stored);
        let own = ["mine", "é 😀", "a \"b\" \\", "\u{1}"][random.usize(0..4)];
        let late = add_member((KEY, 9, number), &base, (own, "1"));
        let own_name = serde_json::to_string(own).unwrap();
        let (mut is_named, mut is_by_hand) = (false, false);
        for more in 0..random.u64(1..40) {
            let there = Document::of(session.read(KEY).unwrap());
            let at = (KEY, 1, 100 * number + more);
            let attempt = match random.u8(0..200) {
                0..4 => {
                    is_named = true;
                    add_member(at, &there, (own, "2"))
                }
                4..8 => add_member(at, &there, (&format!("k{more}"), &format!("[{own_name}]"))),
                8..12 => {
                    let range = there.entry_range(random.usize(0..400)).unwrap();
                    let edits = vec![ByteEdit {
                        start: range.start,
                        old_len: range.len(),
                        new: more.to_string().into(),
                    }];
                    edit(KEY, at.2, &there, edits)
                }
                12..14 => {
                    let text = String::from_utf8(there.to_bytes().to_vec()).unwrap();
                    is_by_hand = true;
                    store(&session, KEY, &text.replacen("text", "by x", 1));
                    continue;
                }
                _ => add_member(at, &there, (&format!("k{more}"), "[1, {}]")),
            };
            assert!(other.commit(&attempt).is_made_now(), "{attempt:?}");
        }
        let there = Document::of(session.read(KEY).unwrap());
        match session.commit(&late) {
            Outcome::AddedBehind { before, made, .. } => {
                assert!(!is_named, "{own} was there");
                assert_eq!(before, there.stamp());
                assert!(made.stamp() > before && made.stamp() >= late.stamp);
                let stored = session.read(KEY).map(Document::of).unwrap();
                let (was, value) = (there.value(), stored.value());
                let (was, _) = was.as_str().rsplit_once('}').unwrap();
                assert!(
                    value.as_str() == format!("{was},{own_name}: 1}}"),
                    "{value:?}"
                );
                // What was edited by hand is not in the log.
                assert!(stored == made || is_by_hand);
                let again = Attempt {
                    retry: Some(Duration::ZERO),
                    ..late
                };
                assert!(matches!(session.commit(&again), Outcome::AlreadyApplied(_)));
                let known = session.read_known(KEY, ReadKind::Through, Some((&there, false)));
                assert!(known == Some(stored));
            }
            Outcome::Refused(found) => assert!(found.stored == Some(there) || is_by_hand),
            made => assert!(there == base, "{made:?}"),
        }
    }
}

pub(super) fn a_refused_edit_finds_what_is_stored(subject: &Subject) {
    const KEY: &str = "refused";
    let (session, other) = (subject.connect(), subject.connect());
    let value = format!("[{}]", vec!["\"text\""; 1_000].join(","));
    let mut random = fastrand::Rng::with_seed(11);
    for number in 1..=60 {
        store(
            &session,
            KEY,
            std::str::from_utf8(&envelope(&value, 5)).unwrap(),
        );
        let base = Document::of(session.read(KEY).unwrap());
        let range = base.entry_range(1).unwrap();
        let edits = vec![ByteEdit {
            start: range.start,
            old_len: range.len(),
            new: "7".into(),
        }];
        let late = Attempt {
            writer: 9,
            ..edit(KEY, number, &base, edits)
        };
        for more in 0..random.u64(1..80) {
            let attempt = change((&other, KEY), &mut random, 100 * number + more).unwrap();
            assert!(other.commit(&attempt).is_made_now(), "{attempt:?}");
        }
        let Outcome::Refused(found) = session.commit(&late) else {
            panic!("it is not refused");
        };
        assert_eq!(found.stored, session.read(KEY).map(Document::of));
    }
}
