//! The rules of documents, one by one, and what a call costs.

use super::chunks::ChunkSizes;
use super::*;
use crate::value::mutation::{
    Action, Amount, ConflictRule, Json, MemberName, Mutation, ObservedValue, Operation,
    PathSegment, locate,
};

fn sealed(value: &str, stamp: u64) -> Document {
    Document::of(envelope::Unsealed::of_text(value).seal(Stamp::new(stamp)))
}

fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

fn text_of(document: &Document) -> String {
    String::from_utf8(document.to_bytes().to_vec()).unwrap()
}

/// `a.b` for members, `2` for an index.
fn segments(path: &str) -> Vec<PathSegment> {
    let segment = |step: &str| match step.parse() {
        Ok(index) => PathSegment::Index(index),
        Err(_) => PathSegment::Member(MemberName::new(step)),
    };
    let steps = path.split('.').filter(|step| !step.is_empty());
    steps.map(segment).collect()
}

/// An action at a path of a value.
fn mutation(value: &str, path: &str, action: Action) -> Mutation {
    let segments = segments(path);
    let path = locate(Some(value), None, &segments).unwrap().path;
    Mutation::new(None, vec![Operation { path, action }])
}

fn set(text: &str) -> Action {
    Action::Set {
        value: json(text),
        seen: ObservedValue::Absent,
    }
}

fn append(item: &str) -> Action {
    Action::Append {
        items: vec![json(item)],
    }
}

fn insert(value: &str, at: usize, item: &str) -> Action {
    let elements = crate::value::mutation::elements(value).unwrap();
    Action::InsertAt {
        before: crate::value::mutation::element(&elements, at).unwrap(),
        items: vec![json(item)],
    }
}

const REMOVE: Action = Action::Remove {
    seen: ObservedValue::Absent,
};

fn add(by: i128) -> Action {
    Action::Add {
        amount: Amount::Integer {
            by,
            min: i64::MIN.into(),
            max: i64::MAX.into(),
        },
    }
}

/// The edits of a mutation, as `offset in the value, removed bytes, added text`.
fn edits_of(value: &str, mutation: &Mutation) -> Vec<(usize, usize, String)> {
    let document = sealed(value, 7);
    let applied = apply::apply_to_entries(&document.parsed(), mutation, ConflictRule::Latest);
    let applied = applied.expect("it is applied to the entries alone");
    let edits = match applied.made {
        DocumentEdit::Edits(edits) => edits,
        _ => Vec::new(),
    };
    let start = envelope::PREFIX.len();
    let edit = |edit: ByteEdit| {
        let new = String::from_utf8(edit.new.to_vec()).unwrap();
        (edit.start - start, edit.old_len, new)
    };
    edits.into_iter().map(edit).collect()
}

#[test]
fn a_mutation_of_a_few_entries_is_an_edit_of_these() {
    let list = "[10, 20 ,30]";
    let object = r#"{"a":1, "b" : [1] ,"c":{"d":"x"},"a":2}"#;
    for (value, path, action, expected) in [
        (list, "", append("40"), (11, 0, ",40")),
        ("[]", "", append("40"), (1, 0, "40")),
        (list, "", insert(list, 0, "5"), (1, 0, "5,")),
        (list, "", insert(list, 1, "5"), (3, 0, ",5")),
        (list, "0", REMOVE, (1, 3, "")),
        (list, "1", REMOVE, (3, 5, "")),
        (list, "2", REMOVE, (8, 3, "")),
        ("[ 1 ]", "0", REMOVE, (1, 3, "")),
        (list, "1", set("25"), (6, 1, "5")),
        (list, "1", set("\"ü\""), (5, 2, "\"ü\"")),
        (list, "1", add(-21), (5, 2, "-1")),
        (object, "b", set("3"), (14, 3, "3")),
        (object, "b", append("2"), (16, 0, ",2")),
        (object, "b.0", REMOVE, (15, 1, "")),
        (object, "c.d", set("\"y\""), (29, 1, "y")),
        (object, "a", set("3"), (37, 1, "3")),
        (object, "e", set("3"), (38, 0, ",\"e\":3")),
        ("{}", "e", set("3"), (1, 0, "\"e\":3")),
        (object, "c", REMOVE, (18, 14, "")),
    ] {
        let mutation = mutation(value, path, action);
        let (at, removed, added) = expected;
        assert_eq!(
            edits_of(value, &mutation),
            [(at, removed, added.to_owned())],
            "{path} of {value}: {mutation:?}"
        );
    }
    // All members with the name, and the comma of the one that is first then.
    assert_eq!(
        edits_of(object, &mutation(object, "a", REMOVE)),
        [(1, 6, String::new()), (32, 6, String::new())]
    );
}

#[test]
fn what_comes_to_the_same_text_changes_nothing() {
    for (value, operations) in [
        ("[1, 2]", vec![("1", set("2"))]),
        ("[1,1,1]", vec![("", append("1")), ("0", REMOVE)]),
        (r#"{"a":1}"#, vec![("a", set("1"))]),
        (r#"{"a":1}"#, vec![("b", REMOVE)]),
        (r#"{"a":1}"#, vec![("a", REMOVE), ("a", set("1"))]),
    ] {
        let mut all = Vec::new();
        let mut now = sealed(value, 7);
        for (path, action) in operations {
            let one = mutation(now.value().as_str(), path, action);
            all.extend(one.calls()[0].operations.clone());
            now = applied(&now, &one).unwrap_or(now);
        }
        let together = Mutation::new(None, all);
        let document = sealed(value, 7);
        let applied = apply_to(&document, &together, ConflictRule::Latest);
        assert_eq!(applied.made, DocumentEdit::Nothing, "{value} {together:?}");
    }
}

/// Elements that were named in lists without their equals.
#[test]
fn what_is_removed_at_one_end_and_added_at_the_other_may_come_to_the_same_text() {
    let mut operations = Vec::new();
    for (seen, path, action) in [
        ("[1,2,3]", "0", REMOVE),
        ("[2,1]", "0", REMOVE),
        ("[1,2]", "", append("1")),
        ("[1,2,1]", "", append("2")),
    ] {
        operations.extend(mutation(seen, path, action).calls()[0].operations.clone());
    }
    let together = Mutation::new(None, operations);
    for (value, changed) in [("[1,2,1,2]", None), ("[1,2,1,3]", Some("[1,3,1,2]"))] {
        let document = sealed(value, 7);
        let outline = document.parsed();
        assert!(apply::apply_to_entries(&outline, &together, ConflictRule::Latest).is_some());
        let now = applied(&document, &together).map(|now| now.value());
        assert_eq!(now.as_ref().map(Text::as_str), changed);
    }
}

/// The document after a mutation; `None` if that changes nothing.
fn applied(document: &Document, mutation: &Mutation) -> Option<Document> {
    let applied = apply_to(document, mutation, ConflictRule::Latest);
    assert_eq!(applied.failed, []);
    let DocumentEdit::Edits(mut edits) = applied.made else {
        return None;
    };
    let stamp = document.stamp().next();
    edits.extend(document.stamp_edit(stamp));
    let length = length_after(document.len(), &edits).unwrap();
    Some(document.edited(&edits, stamp, length).expect("it is JSON"))
}

#[test]
fn items_are_added_to_an_envelope_of_ours_alone() {
    let after = |stored: &str, items: &[&str]| {
        let document = Document::of(stored.to_owned().into());
        let appended = document.appended(items, Stamp::new(8));
        // The same once the entries were looked at.
        document.root();
        assert_eq!(
            document.appended(items, Stamp::new(8)),
            appended,
            "{stored}"
        );
        appended.map(|appended| text_of(&appended))
    };
    for (stored, items, expected) in [
        (
            r#"{"value": [1],"last_modified": 7}"#,
            &["2", "[3]"][..],
            r#"{"value": [1,2,[3]],"last_modified": 8}"#,
        ),
        (
            r#"{"value": [],"last_modified": 7}"#,
            &["2", "3"],
            r#"{"value": [2,3],"last_modified": 8}"#,
        ),
        (
            r#"{"value": ["["],"last_modified": 7}"#,
            &["2"],
            r#"{"value": ["[",2],"last_modified": 8}"#,
        ),
        (
            r#"{"value": [1],"last_modified": 7}"#,
            &[],
            r#"{"value": [1],"last_modified": 8}"#,
        ),
    ] {
        assert_eq!(after(stored, items).as_deref(), Some(expected));
    }
    for stored in [
        r#"{"value": [1], "last_modified": 7}"#,
        r#"{"value": [1 ],"last_modified": 7}"#,
        r#"{"value": [ ],"last_modified": 7}"#,
        r#"{"value": [1],"last_modified": 07}"#,
        r#"{"value": [1],"last_modified":7}"#,
        r#"{"value": {},"last_modified": 7}"#,
        r#"{"value": "]","last_modified": 7}"#,
        "{\"value\": [1],\"last_modified\": 7}\n",
        "[1]",
        "[]",
        "",
    ] {
        assert_eq!(after(stored, &["2"]), None, "{stored}");
    }
}

/// So an edit that another process has logged for its append is applied.
#[test]
fn an_edit_may_write_the_end_of_the_root_and_the_stamp_anew() {
    for (value, expected) in [("[1,2]", "[1,2,3]"), ("[]", "[,3]")] {
        let document = sealed(value, 7);
        document.root();
        let tail = r#"],"last_modified": 7}"#;
        let new = r#",3],"last_modified": 1234}"#;
        let edit = ByteEdit {
            start: document.len() - tail.len(),
            old_len: tail.len(),
            new: new.into(),
        };
        let length = document.len() - tail.len() + new.len();
        let edited = document.edited(&[edit], Stamp::new(1234), length);
        let value = edited.as_ref().map(Document::value);
        let expected = Some(expected).filter(|expected| json::is_valid(expected));
        assert_eq!(value.as_ref().map(Text::as_str), expected);
    }
}

mod json {
    pub(super) fn is_valid(text: &str) -> bool {
        crate::value::envelope::is_json(text)
    }
}

#[test]
fn no_edit_is_made_that_does_not_fit() {
    let document = sealed("[1,2,3]", 7);
    let edit = |start, old_len, new: &'static str| ByteEdit {
        start,
        old_len,
        new: new.into(),
    };
    let made = |edits: &[ByteEdit], length| document.edited(edits, Stamp::new(7), length);
    let length = document.len();
    assert!(made(&[], length).is_some());
    assert!(made(&[edit(11, 1, "5"), edit(13, 1, "6")], length).is_some());
    for edits in [
        vec![edit(13, 1, "6"), edit(11, 1, "5")],
        vec![edit(11, 3, "6,7"), edit(13, 1, "5")],
        vec![edit(length, 1, "5")],
        vec![edit(usize::MAX, 1, "5")],
        vec![edit(11, usize::MAX, "5")],
        vec![edit(11, 1, "x")],
        vec![edit(11, 1, ",")],
        vec![edit(12, 1, " ")],
    ] {
        assert_eq!(made(&edits, length), None, "{edits:?}");
    }
    assert_eq!(made(&[edit(11, 1, "50")], length), None);
    // What is left begins or ends with a comma.
    assert_eq!(made(&[edit(11, 1, "")], length - 1), None);
    assert_eq!(made(&[edit(11, 3, "")], length - 3), None);
    assert_eq!(made(&[edit(15, 1, "")], length - 1), None);
    assert_eq!(document.edited(&[], Stamp::new(8), length), None);
}

#[test]
fn an_edit_may_make_an_envelope_of_what_is_none() {
    let document = Document::of(r#"{"value": [1], "last_modified": "5"}"#.into());
    assert_eq!(document.root(), DocumentRoot::Object(2));
    let edit = ByteEdit {
        start: 32,
        old_len: 3,
        new: "5".into(),
    };
    let edited = document.edited(&[edit], Stamp::new(5), document.len() - 2);
    let edited = edited.expect("it is JSON");
    assert_eq!(edited.root(), DocumentRoot::List(1));
    assert_eq!(edited.value().as_str(), "[1]");
}

#[test]
fn the_text_that_was_read_is_kept_no_longer_than_half_of_it_is_in_use() {
    let value = list_of(4_000);
    let stored = envelope::Unsealed::of_text(&value).seal(Stamp::new(7));
    let mut document = Document::of(stored.clone());
    for at in 0..4_000 {
        let range = document.entry_range(at).unwrap();
        let edit = ByteEdit {
            start: range.start,
            old_len: range.len(),
            new: "\"another\"".into(),
        };
        let length = length_after(document.len(), std::slice::from_ref(&edit)).unwrap();
        document = document.edited(&[edit], document.stamp(), length).unwrap();
        if stored.is_unique() {
            assert!((1_000..3_000).contains(&at), "after {at}");
            return;
        }
    }
    panic!("it is kept");
}

/// What the chunks are cut from when the text is wanted in one piece is kept once.
#[test]
fn a_text_that_is_put_together_is_not_kept_twice() {
    let mut document = sealed(&list_of(4_000), 7);
    document = document.appended(&["1"], Stamp::new(8)).unwrap();
    document.root();
    document = document.appended(&["2"], Stamp::new(9)).unwrap();
    let whole = document.to_bytes();
    let range = whole.as_ptr_range();
    let element = document.element(2_000).unwrap();
    assert!(range.contains(&element.as_bytes().as_ptr()));
    assert_eq!(document.to_bytes().as_ptr(), whole.as_ptr());
    assert_eq!(
        element.as_str(),
        "\"message 2000 of a list that has many of them\""
    );
}

fn list_of(count: usize) -> String {
    let elements: Vec<String> = (0..count)
        .map(|at| format!("\"message {at} of a list that has many of them\""))
        .collect();
    format!("[{}]", elements.join(","))
}

fn object_of(count: usize) -> String {
    let members: Vec<String> = (0..count)
        .map(|at| format!("\"key {at}\":{{\"name\":\"member {at} of many\",\"count\":{at}}}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// How many bytes a call looks at or copies.
fn cost(call: impl FnOnce()) -> usize {
    LOOKED_AT.set(0);
    call();
    LOOKED_AT.take()
}

/// What each call costs on a list of this many elements.
fn costs_of_list(count: usize) -> Vec<(&'static str, usize)> {
    let value = list_of(count);
    let document = sealed(&value, 7);
    let middle = (count / 2).to_string();
    let unseen = cost(|| _ = document.appended(&["1"], Stamp::new(8)).unwrap());
    document.root();
    let mut costs = vec![
        ("append to what was not looked at", unseen),
        ("clone", cost(|| drop(document.clone()))),
        ("length", cost(|| _ = document.root())),
        ("element", cost(|| _ = document.element(count / 2).unwrap())),
        (
            "append",
            cost(|| _ = document.appended(&["1"], Stamp::new(8)).unwrap()),
        ),
    ];
    for (what, mutation) in [
        ("append by a mutation", mutation(&value, "", append("1"))),
        (
            "insert",
            mutation(&value, "", insert(&value, count / 2, "1")),
        ),
        ("remove the first", mutation(&value, "0", REMOVE)),
        ("remove", mutation(&value, &middle, REMOVE)),
        ("replace", mutation(&value, &middle, set("1"))),
    ] {
        costs.push((what, cost(|| _ = applied(&document, &mutation).unwrap())));
    }
    costs
}

/// The same for an object.
fn costs_of_object(count: usize) -> Vec<(&'static str, usize)> {
    let value = object_of(count);
    let document = sealed(&value, 7);
    let middle = format!("key {}", count / 2);
    document.member(&middle);
    let mut costs = vec![
        ("member", cost(|| _ = document.member(&middle).unwrap())),
        (
            "no member",
            cost(|| assert_eq!(document.member("key"), None)),
        ),
    ];
    for (what, mutation) in [
        ("new member", mutation(&value, "new", set("1"))),
        ("replace member", mutation(&value, &middle, set("1"))),
        ("remove member", mutation(&value, &middle, REMOVE)),
        (
            "add in member",
            mutation(&value, &format!("{middle}.count"), add(1)),
        ),
        (
            "set in member",
            mutation(&value, &format!("{middle}.name"), set("1")),
        ),
    ] {
        costs.push((what, cost(|| _ = applied(&document, &mutation).unwrap())));
    }
    costs
}

#[test]
fn a_call_looks_at_no_more_of_a_long_list_or_object_than_of_a_short_one() {
    let at_most = 4 * ChunkSizes::USUAL.chunk;
    for costs in [costs_of_list, costs_of_object] {
        for ((what, short), (_, long)) in costs(1_000).into_iter().zip(costs(100_000)) {
            assert!(
                long <= short + at_most && long <= 2 * at_most,
                "{what}: {long} instead of {short} bytes"
            );
        }
    }
}

/// Documents of the usual sizes of chunks and groups, with a `Vec` beside them.
#[test]
fn a_long_document_follows_many_changes() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut list: Vec<String> = (0..30_000)
        .map(|at| format!("\"element {at:0>60}\""))
        .collect();
    let mut document = sealed(&format!("[{}]", list.join(",")), 7);
    document.root();
    for turn in 0..3_000 {
        let element = format!("\"{}\"", "x".repeat(random.usize(0..400)));
        let at = random.usize(0..list.len());
        let range = document.entry_range(at).unwrap();
        let stamp = document.stamp().next();
        let (start, old_len, new) = match random.u8(0..8) {
            0..2 => {
                document = document.appended(&[&element], stamp).unwrap();
                list.push(element);
                continue;
            }
            2..4 => {
                list.insert(at, element.clone());
                (range.start, 0, format!("{element},"))
            }
            // Queues are emptied from the front.
            4 => {
                list.remove(0);
                let next = document.entry_range(1).unwrap().start;
                let first = document.entry_range(0).unwrap().start;
                (first, next - first, String::new())
            }
            5 if at > 0 => {
                let count = random.usize(1..60).min(list.len() - at);
                list.drain(at..at + count);
                let end = document.entry_range(at + count - 1).unwrap().end;
                (range.start - 1, end - range.start + 1, String::new())
            }
            _ => {
                list[at].clone_from(&element);
                (range.start, range.len(), element)
            }
        };
        let new = new.into();
        let edits = [
            Some(ByteEdit {
                start,
                old_len,
                new,
            }),
            document.stamp_edit(stamp),
        ];
        let edits = edits.map(Option::unwrap);
        let length = length_after(document.len(), &edits).unwrap();
        document = document.edited(&edits, stamp, length).unwrap();
        if turn % 500 == 0 {
            assert_eq!(document.value().as_str(), format!("[{}]", list.join(",")));
        }
    }
    assert_eq!(document.root(), DocumentRoot::List(list.len()));
    for (at, element) in list.iter().enumerate() {
        assert_eq!(document.element(at).unwrap().as_str(), element);
    }
}

#[test]
fn members_are_found_while_their_object_grows_and_shrinks() {
    let mut random = fastrand::Rng::with_seed(8);
    let mut members: std::collections::BTreeMap<usize, usize> =
        (0..5_000).map(|at| (at, at)).collect();
    let value: Vec<String> = members
        .iter()
        .map(|(at, to)| format!("\"key \\u0061 {at}\":{to}"))
        .collect();
    let mut document = sealed(&format!("{{{}}}", value.join(",")), 7);
    for turn in 0..4_000 {
        let key = random.usize(0..8_000);
        let name = format!("key a {key}");
        assert_eq!(
            document
                .member(&name)
                .map(|value| value.as_str().to_owned()),
            members.get(&key).map(ToString::to_string),
        );
        let path = vec![crate::value::mutation::PathStep::Member(MemberName::new(
            &name,
        ))];
        let action = if random.bool() {
            members.insert(key, turn);
            set(&turn.to_string())
        } else {
            members.remove(&key);
            REMOVE
        };
        let mutation = Mutation::new(None, vec![Operation { path, action }]);
        document = applied(&document, &mutation).unwrap_or(document);
    }
    assert_eq!(document.root(), DocumentRoot::Object(members.len()));
    for (key, value) in &members {
        let found = document.member(&format!("key a {key}")).unwrap();
        assert_eq!(found.as_str(), value.to_string());
    }
}

/// A quote ends a name where it is stored, and is a letter of the name that is asked for.
#[test]
fn a_name_with_quotes_is_no_member_that_its_beginning_names() {
    let stored = r#"{"a":"b","a\"c":1,"d\\":2,"":{"e":"f"}}"#;
    for (name, found) in [
        ("a", Some(r#""b""#)),
        (r#"a":"b"#, None),
        (r#"a":"#, None),
        (r#"a":"b","a\"c"#, None),
        (r#"a"c"#, Some("1")),
        (r#"a\"c"#, None),
        (r"d\", Some("2")),
        (r"d\\", None),
        ("", Some(r#"{"e":"f"}"#)),
        (r#"":{"e"#, None),
    ] {
        let document = sealed(stored, 7);
        let member = document.member(name);
        assert_eq!(member.as_ref().map(Text::as_str), found, "{name}");

        let path = vec![crate::value::mutation::PathStep::Member(MemberName::new(
            name,
        ))];
        let mutation = Mutation::new(
            None,
            vec![Operation {
                path,
                action: set("0"),
            }],
        );
        let changed = applied(&document, &mutation).unwrap();
        let count = 4 + usize::from(found.is_none());
        assert_eq!(changed.root(), DocumentRoot::Object(count), "{name}");
    }
}

#[test]
fn documents_are_equal_by_their_text() {
    let one = sealed("[1,2]", 7).appended(&["3"], Stamp::new(8)).unwrap();
    let other = sealed("[1,2,3]", 8);
    assert_eq!(one, other);
    other.root();
    assert_eq!(one, other);
    assert_ne!(one, sealed("[1,2,4]", 8));
    assert_ne!(one, sealed("[1,2,3]", 9));
    assert_ne!(one, sealed("[1,2]", 8));
    assert_eq!(Document::of_sealed(other.to_bytes()).value(), other.value());
}
