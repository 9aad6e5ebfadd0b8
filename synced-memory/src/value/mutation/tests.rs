//! The rules of mutations, one by one.

use super::*;
use crate::value::shape::{Children, Shape, ShapeField};

fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

fn items(list: &str) -> Vec<Json> {
    text::elements(list)
        .unwrap()
        .into_iter()
        .map(json)
        .collect()
}

/// `a.b` with the members' origins, `2` an index, `?` behind a name for an object that is made.
fn segments(path: &str) -> Vec<PathSegment> {
    let segment = |step: &str| match (step.parse(), step.strip_suffix('?')) {
        (Ok(index), _) => PathSegment::Index(index),
        (_, Some(name)) => PathSegment::Member(MemberName {
            origin: Some(json("{}")),
            ..MemberName::new(name)
        }),
        _ => PathSegment::Member(MemberName::new(step)),
    };
    path.split('.')
        .filter(|step| !step.is_empty())
        .map(segment)
        .collect()
}

fn path(seen: &str, path: &str) -> Vec<PathStep> {
    locate(Some(seen), None, &segments(path)).unwrap().path
}

fn operation(seen: &str, at: &str, action: Action) -> Operation {
    Operation {
        path: path(seen, at),
        action,
    }
}

fn seen_at(seen: &str, at: &str) -> ObservedValue {
    let segments = segments(at);
    let location = locate(Some(seen), None, &segments).unwrap();
    location
        .found
        .filter(|_| location.exists)
        .map(Content::of)
        .into()
}

fn set(seen: &str, at: &str, value: &str) -> Operation {
    operation(
        seen,
        at,
        Action::Set {
            value: json(value),
            seen: seen_at(seen, at),
        },
    )
}

fn remove(seen: &str, at: &str) -> Operation {
    operation(
        seen,
        at,
        Action::Remove {
            seen: seen_at(seen, at),
        },
    )
}

fn append(seen: &str, at: &str, list: &str) -> Operation {
    operation(seen, at, Action::Append { items: items(list) })
}

fn add(seen: &str, at: &str, by: i128) -> Operation {
    operation(
        seen,
        at,
        Action::Add {
            amount: integer(by),
        },
    )
}

fn integer(by: i128) -> Amount {
    Amount::Integer {
        by,
        min: i64::MIN.into(),
        max: i64::MAX.into(),
    }
}

fn insert_at(seen: &str, at: &str, index: usize, list: &str) -> Operation {
    let list_path = segments(at);
    let found = locate(Some(seen), None, &list_path).unwrap().found.unwrap();
    let before = element(&elements(found).unwrap(), index).unwrap();
    operation(
        seen,
        at,
        Action::InsertAt {
            before,
            items: items(list),
        },
    )
}

/// What a closure makes of a `serde_json::Value` that was read from this text.
pub(super) fn diff_of(stored: &str, before: &str, after: &str) -> Vec<Operation> {
    let [before, after] = [before, after].map(|text| Encoded::shaped(json(text), Shape::Json));
    diff(stored, &before, &after, &[])
}

fn one(operation: Operation) -> Mutation {
    Mutation::new(None, vec![operation])
}

/// What becomes of a value; nothing may be skipped.
fn applied(value: &str, operation: Operation) -> String {
    let applied = apply(Some(value), &one(operation), ConflictRule::Latest);
    assert_eq!(
        (&applied.superseded[..], &applied.failed[..]),
        (&[][..], &[][..])
    );
    applied.text().unwrap_or(value).to_owned()
}

fn error(value: &str, operation: Operation) -> ApplyError {
    let applied = apply(Some(value), &one(operation), ConflictRule::Latest);
    assert_eq!(
        (&applied.made, &applied.superseded[..]),
        (&Edited::Nothing, &[][..])
    );
    applied.failed[0].1
}

fn superseded(value: &str, operation: Operation) -> bool {
    let applied = apply(
        Some(value),
        &one(operation),
        ConflictRule::NewerWins(Stamp::MAX),
    );
    assert_eq!(applied.failed, []);
    applied.superseded == [0]
}

#[test]
fn each_action_does_what_it_says() {
    let action =
        |value: &str, at: &str, action: Action| applied(value, operation(value, at, action));
    for (value, operation, result) in [
        // Members.
        ("{}", set("{}", "a", "1"), r#"{"a":1}"#),
        (
            r#"{"a": 1, "b" : 2 }"#,
            set(r#"{"a":1}"#, "a", "[3]"),
            r#"{"a": [3], "b" : 2 }"#,
        ),
        (
            r#"{"a": 1, "b" : 2 }"#,
            set("{}", "c", "3"),
            r#"{"a": 1, "b" : 2 ,"c":3}"#,
        ),
        (
            r#"{"a": 1, "a": 2}"#,
            set("{}", "a", "3"),
            r#"{"a": 1, "a": 3}"#,
        ),
        (r#"{"\u0041": 1}"#, set("{}", "A", "2"), r#"{"\u0041": 2}"#),
        ("{}", set("{}", "\"", "1"), r#"{"\"":1}"#),
        ("{}", set("{}", "a?.b?.c", "1"), r#"{"a":{"b":{"c":1}}}"#),
        (
            r#"{"a": {"x": 0}}"#,
            set("{}", "a?.b", "1"),
            r#"{"a": {"x": 0,"b":1}}"#,
        ),
        (
            r#"{"a": 1, "b": 2}"#,
            remove(r#"{"a":1}"#, "a"),
            r#"{ "b": 2}"#,
        ),
        (r#"{"a": 1, "a": 2}"#, remove(r#"{"a":1}"#, "a"), "{}"),
        ("{ }", remove(r#"{"a":1}"#, "a"), "{ }"),
        ("{}", remove(r#"{"a":{"b":1}}"#, "a.b"), "{}"),
        // Elements.
        ("[1, 2, 3]", set("[1,2,3]", "1", "9"), "[1, 9, 3]"),
        ("[1, 2, 3]", remove("[1,2,3]", "1"), "[1, 3]"),
        ("[1]", remove("[1]", "0"), "[]"),
        ("[1]", remove("[2]", "0"), "[1]"),
        // Lists.
        ("[]", append("[]", "", "[1,2]"), "[1,2]"),
        ("[ ]", append("[]", "", "[1]"), "[ 1]"),
        ("[0]", append("[]", "", "[1]"), "[0,1]"),
        (" [0, 0]\n", append("[]", "", "[1]"), " [0, 0,1]\n"),
        (
            r#"{"a": [0]}"#,
            append(r#"{"a":[]}"#, "a", "[1]"),
            r#"{"a": [0,1]}"#,
        ),
        ("[0]", append("[]", "", "[]"), "[0]"),
        ("[1, 2]", insert_at("[1,2]", "", 1, "[8,9]"), "[1,8,9, 2]"),
        ("[0, 1, 2]", insert_at("[1,2]", "", 1, "[9]"), "[0, 1,9, 2]"),
        ("[5, 6]", insert_at("[1,2,3]", "", 2, "[9]"), "[5, 6,9]"),
        ("[]", insert_at("[1]", "", 0, "[9]"), "[9]"),
        // The root.
        ("1", set("1", "", "2"), "2"),
        (" 1 ", set("1", "", "2"), " 2 "),
    ] {
        assert_eq!(applied(value, operation.clone()), result, "{operation:?}");
    }
    assert_eq!(
        action("{}", "a", Action::SetIfAbsent { value: json("1") }),
        r#"{"a":1}"#
    );
    assert_eq!(
        action(
            r#"{"a":null}"#,
            "a",
            Action::SetIfAbsent { value: json("1") }
        ),
        r#"{"a":null}"#
    );
    assert_eq!(
        action(
            "[1, 2]",
            "",
            Action::Include {
                items: items("[2, 3, 3]")
            }
        ),
        "[1, 2,3]"
    );
    assert_eq!(
        action(
            "[1, 2, 1]",
            "",
            Action::Exclude {
                items: items("[1, 7]")
            }
        ),
        "[ 2]"
    );
}

#[test]
fn what_does_not_apply_says_why_and_changes_nothing() {
    let type_of = |expected, found| ApplyError::Type { expected, found };
    for (value, operation, expected) in [
        ("[1]", set("{}", "a", "1"), type_of("an object", "a list")),
        ("null", append("[]", "", "[1]"), type_of("a list", "null")),
        (
            r#"{"a": null}"#,
            set("{}", "a?.b", "1"),
            type_of("an object", "null"),
        ),
        ("\"1\"", add("1", "", 1), type_of("a number", "a string")),
        ("true", add("1", "", 1), type_of("a number", "a boolean")),
        ("1.0", add("1", "", 1), type_of("an integer", "a float")),
        ("{}", add(r#"{"a":1}"#, "a", 1), ApplyError::Unset),
        ("{}", set(r#"{"a":{"b":1}}"#, "a.b", "1"), ApplyError::Unset),
        ("[]", set("[1]", "0", "2"), ApplyError::Gone),
        ("[1]", set("[1,2]", "1", "3"), ApplyError::Gone),
        ("[]", append("[[1]]", "0", "[2]"), ApplyError::Gone),
        ("9223372036854775807", add("1", "", 1), ApplyError::Overflow),
        (
            "-9223372036854775808",
            add("1", "", -1),
            ApplyError::Overflow,
        ),
        (
            "1180591620717411303424",
            add("1", "", 1),
            ApplyError::Overflow,
        ),
        (&"9".repeat(60), add("1", "", 1), ApplyError::Overflow),
        ("", set("{}", "a", "1"), ApplyError::Invalid),
        ("nonsense", append("[]", "", "[1]"), ApplyError::Invalid),
        ("[1, 2", append("[]", "", "[1]"), ApplyError::Invalid),
        ("[", append("[]", "", "[1]"), ApplyError::Invalid),
        (r#"{"a" 1}"#, set("{}", "a", "1"), ApplyError::Invalid),
        ("-", add("1", "", 1), ApplyError::Invalid),
    ] {
        assert_eq!(
            error(value, operation.clone()),
            expected,
            "{value}: {operation:?}"
        );
    }
}

#[test]
fn an_unset_key_is_taken_for_its_origin() {
    let on_unset = |origin: Option<&str>, operation: Operation| {
        apply(
            None,
            &Mutation::new(origin.map(json), vec![operation]),
            ConflictRule::NewerWins(Stamp::MAX),
        )
    };
    assert_eq!(
        on_unset(Some("[]"), append("[]", "", "[1]"))
            .text()
            .unwrap(),
        "[1]"
    );
    assert_eq!(on_unset(Some("0"), add("0", "", 5)).text().unwrap(), "5");
    assert_eq!(
        on_unset(Some(r#"{"a": 1}"#), set(r#"{"a": 1}"#, "a", "2"))
            .text()
            .unwrap(),
        r#"{"a": 2}"#
    );
    assert_eq!(on_unset(Some("5"), set("5", "", "6")).text().unwrap(), "6");
    assert_eq!(
        on_unset(None, append("[]", "", "[1]")).failed,
        [(0, ApplyError::Unset)]
    );
    // What changes nothing stores nothing.
    assert_eq!(
        on_unset(Some("{}"), remove(r#"{"a":1}"#, "a")),
        Applied::default()
    );
    let root = Operation {
        path: Vec::new(),
        action: Action::Set {
            value: json("1"),
            seen: ObservedValue::Absent,
        },
    };
    assert_eq!(on_unset(None, root).text().unwrap(), "1");
}

#[test]
fn a_missing_member_is_taken_for_its_origin() {
    let tags = MemberName {
        origin: Some(json(r#"["x"]"#)),
        ..MemberName::new("tags")
    };
    let operation = Operation {
        path: vec![PathStep::Member(tags)],
        action: Action::Append {
            items: items("[1]"),
        },
    };
    assert_eq!(applied("{}", operation.clone()), r#"{"tags":["x",1]}"#);
    assert_eq!(applied(r#"{"tags":[]}"#, operation), r#"{"tags":[1]}"#);
}

#[test]
fn a_member_that_is_there_under_an_older_name_stays_one_member() {
    let colour = MemberName {
        also: Box::new(["color".into()]),
        ..MemberName::new("colour")
    };
    let at = |action| Operation {
        path: vec![PathStep::Member(colour.clone())],
        action,
    };
    let set = at(Action::Set {
        value: json("2"),
        seen: ObservedValue::Absent,
    });
    assert_eq!(applied(r#"{"color": 1}"#, set.clone()), r#"{"color": 2}"#);
    assert_eq!(applied("{}", set), r#"{"colour":2}"#);
    assert_eq!(
        applied(
            r#"{"color": 1}"#,
            at(Action::Remove {
                seen: ObservedValue::Absent
            })
        ),
        "{}"
    );
}

#[test]
fn of_several_spellings_of_a_key_the_one_that_is_stored_last_is_the_entry() {
    let at = |action| Operation {
        path: vec![PathStep::Member(MemberName::spelled(
            "::1",
            ["::0:1", "::1"].into_iter(),
        ))],
        action,
    };
    let add = at(Action::Add { amount: integer(5) });
    let own_last = r#"{"::0:1": 1, "::1": 2}"#;
    let own_first = r#"{"::1": 1, "::0:1": 2}"#;
    assert_eq!(applied(own_last, add.clone()), r#"{"::0:1": 1, "::1": 7}"#);
    assert_eq!(applied(own_first, add.clone()), r#"{"::1": 1, "::0:1": 7}"#);
    assert_eq!(applied(r#"{"::0:1": 1}"#, add), r#"{"::0:1": 6}"#);
    let remove = at(Action::Remove {
        seen: ObservedValue::Content(Content::of("2")),
    });
    for text in [own_last, own_first] {
        assert_eq!(applied(text, remove.clone()), "{}");
    }
}

#[test]
fn calls_that_become_one_know_all_spellings_that_one_of_them_knows() {
    let base = r#"{"::1": 1, "::0:1": 2}"#;
    let at = |member, action| Operation {
        path: vec![PathStep::Member(member)],
        action,
    };
    let removal = at(
        MemberName::spelled("::1", ["::1", "::0:1"].into_iter()),
        Action::Remove {
            seen: ObservedValue::Content(Content::of("2")),
        },
    );
    let insertion = at(
        MemberName::new("::1"),
        Action::Set {
            value: json("9"),
            seen: ObservedValue::Absent,
        },
    );
    let mut queue = one(removal);
    coalesce(&mut queue, one(insertion), Since::Unchanged(Some(base))).unwrap();
    assert_eq!(queue.calls().len(), 1);
    let made = apply(Some(base), &queue, ConflictRule::Latest);
    assert_eq!(made.text(), Some(r#"{"::1": 1, "::0:1": 9}"#));
    let size = Mutation::from(Journalled {
        origin: queue.origin.clone(),
        calls: queue.calls.clone(),
    });
    assert_eq!(queue.size(), size.size());
}

#[test]
fn sums_are_exact() {
    let sum =
        |text: &str, amount: Amount| applied(text, operation(text, "", Action::Add { amount }));
    let unsigned = |by| Amount::Integer {
        by,
        min: 0,
        max: u64::MAX.into(),
    };
    assert_eq!(
        sum("18446744073709551614", unsigned(1)),
        "18446744073709551615"
    );
    assert_eq!(
        sum(
            "18446744073709551615",
            unsigned(-18_446_744_073_709_551_615)
        ),
        "0"
    );
    assert_eq!(sum("-9223372036854775808", integer(i64::MAX.into())), "-1");
    assert_eq!(sum("-0", integer(1)), "1");
    let float = |by, single| Amount::Float { by, single };
    assert_eq!(sum("0.1", float(0.2, false)), "0.30000000000000004");
    assert_eq!(sum("5", float(0.5, false)), "5.5");
    assert_eq!(sum("1", float(1.0, false)), "2.0");
    assert_eq!(sum("0.2", float(0.1_f32.into(), true)), "0.3");
    for (text, by, single) in [
        ("1e308", f64::MAX, false),
        ("1.0e400", 0.0, false),
        ("3e38", 3e38, true),
        ("1", f64::NAN, false),
    ] {
        let add = operation(
            text,
            "",
            Action::Add {
                amount: float(by, single),
            },
        );
        assert_eq!(error(text, add), ApplyError::Overflow, "{text} + {by}");
    }
    let wide = Amount::Integer {
        by: 1,
        min: i128::MIN,
        max: i128::MAX,
    };
    assert_eq!(
        error(
            "18446744073709551615",
            operation("0", "", Action::Add { amount: wide })
        ),
        ApplyError::Overflow
    );
}

#[test]
fn an_operation_on_an_element_never_hits_another() {
    let list = r#"[{"id": 1, "done": false}, {"id": 2, "done": false}, {"id": 3, "done": false}]"#;
    let done = |at: &str| set(list, at, "true");
    // Moved by an insert, by a removal.
    assert_eq!(
        applied(
            r#"[{"id":0,"done":false},{"id":1,"done":false},{"id":2,"done":false}]"#,
            done("1.done")
        ),
        r#"[{"id":0,"done":false},{"id":1,"done":false},{"id":2,"done":true}]"#
    );
    assert_eq!(
        applied(r#"[{"id":3,"done":false}]"#, done("2.done")),
        r#"[{"id":3,"done":true}]"#
    );
    // Gone, and others at its index look the same at the path.
    for (now, at) in [
        (
            r#"[{"id": 2, "done": false}, {"id": 3, "done": false}]"#,
            "0.done",
        ),
        (
            r#"[{"id": 1, "done": false}, {"id": 3, "done": false}]"#,
            "1.done",
        ),
        (
            r#"[{"id": 1, "done": false}, {"id": 2, "done": false}]"#,
            "2.done",
        ),
    ] {
        assert_eq!(error(now, done(at)), ApplyError::Gone);
        assert_eq!(
            error(
                now,
                operation(
                    list,
                    at.trim_end_matches(".done"),
                    Action::Set {
                        value: json("0"),
                        seen: ObservedValue::Absent
                    }
                )
            ),
            ApplyError::Gone
        );
        assert_eq!(
            applied(now, remove(list, at.trim_end_matches(".done"))),
            now
        );
    }
    // Changed elsewhere inside: only the touched path is compared.
    assert_eq!(
        applied(
            r#"[{"id":1,"done":false},{"id":2,"done":false,"who":"x"},{"id":3,"done":false}]"#,
            done("1.done")
        ),
        r#"[{"id":1,"done":false},{"id":2,"done":true,"who":"x"},{"id":3,"done":false}]"#
    );
    let touched = r#"[{"id":1,"done":false},{"id":2,"done":7},{"id":3,"done":false}]"#;
    assert!(superseded(touched, done("1.done")));
    assert!(!superseded(
        r#"[{"id":1,"done":0},{"id":2,"done":false},{"id":3,"done":0}]"#,
        done("1.done")
    ));
    // The only element, changed elsewhere inside, and others behind it.
    let only = r#"[{"a": 1, "b": 1}]"#;
    assert_eq!(
        applied(r#"[{"a": 1, "b": 5}, {"c": 0}]"#, set(only, "0.a", "2")),
        r#"[{"a": 2, "b": 5}, {"c": 0}]"#
    );
    // The first of two equal ones was changed: the second is another.
    let equal = r#"[{"x": 0}, {"x": 0}]"#;
    assert!(superseded(
        r#"[{"x": 1}, {"x": 0}]"#,
        set(equal, "0.x", "2")
    ));
    assert_eq!(
        applied(r#"[{"x": 1}, {"x": 0}]"#, remove(equal, "0")),
        r#"[{"x": 1}, {"x": 0}]"#
    );
}

#[test]
fn of_two_equal_elements_two_processes_remove_one_each_or_the_same_one() {
    let list = r#"["a", "a"]"#;
    // Both name the first: one each.
    let now = applied(list, remove(list, "0"));
    assert_eq!(applied(&now, remove(list, "0")), "[]");
    // Both name the second, as two that drop duplicates do: the same one.
    let now = applied(list, remove(list, "1"));
    assert_eq!(applied(&now, remove(list, "1")), r#"["a"]"#);
}

#[test]
fn pushes_into_one_element_all_survive() {
    let matrix = "[[1], [1], [1]]";
    let mut now = matrix.to_owned();
    for item in ["[5]", "[6]", "[7]"] {
        now = applied(&now, append(matrix, "1", item));
    }
    assert_eq!(now, "[[1], [1,5,6,7], [1]]");
}

#[test]
fn an_integer_of_2_to_70_and_the_key_order_survive_a_push_beside_them() {
    let state = r#"{"z": 1180591620717411303424, "list": [1.0e400, {"b": 1, "a": 2}], "a": 1.10}"#;
    assert_eq!(
        applied(state, append(r#"{"list": []}"#, "list", r#"["x"]"#)),
        r#"{"z": 1180591620717411303424, "list": [1.0e400, {"b": 1, "a": 2},"x"], "a": 1.10}"#
    );
    assert_eq!(
        applied(state, set(state, "list.1.b", "5")),
        r#"{"z": 1180591620717411303424, "list": [1.0e400, {"b": 5, "a": 2}], "a": 1.10}"#
    );
}

#[test]
fn one_calls_operations_apply_together_or_not_at_all() {
    let state = r#"{"a": 10, "b": 0}"#;
    let transfer = Mutation::new(None, vec![add(state, "a", -5), add(state, "b", 5)]);
    assert_eq!(
        apply(Some(state), &transfer, ConflictRule::NewerWins(Stamp::MAX))
            .text()
            .unwrap(),
        r#"{"a": 5, "b": 5}"#
    );
    for broken in [
        r#"{"a": 10}"#,
        r#"{"a": 10, "b": "x"}"#,
        r#"{"a": 10, "b": 9223372036854775807}"#,
    ] {
        let applied = apply(Some(broken), &transfer, ConflictRule::Latest);
        assert_eq!((applied.text(), applied.failed.len()), (None, 1));
    }
    // As an update records it: the one path in conflict takes the other with it.
    let update = Mutation::new(None, diff_of(state, state, r#"{"a": 5, "b": 5}"#));
    let newer = r#"{"a": 10, "b": 1}"#;
    assert_eq!(
        apply(Some(newer), &update, ConflictRule::NewerWins(Stamp::MAX)),
        Applied {
            superseded: vec![0],
            ..Applied::default()
        }
    );
    assert_eq!(
        apply(Some(newer), &update, ConflictRule::Latest)
            .text()
            .unwrap(),
        r#"{"a": 5, "b": 5}"#
    );
    // Calls do not depend on each other.
    let mut calls = transfer.clone();
    coalesce(&mut calls, one(set(state, "c", "1")), Since::Moved).unwrap();
    let applied = apply(Some(r#"{"a": 10}"#), &calls, ConflictRule::Latest);
    assert_eq!(
        (applied.text(), applied.failed.clone()),
        (Some(r#"{"a": 10,"c":1}"#), vec![(0, ApplyError::Unset)])
    );
    assert_eq!(calls.withdraw(&[0]), transfer);
    assert_eq!(calls.calls().len(), 1);
}

#[test]
fn inside_a_value_too_the_newest_wins() {
    let seen = r#"{"a": 1}"#;
    for (now, operation, is_superseded) in [
        (r#"{"a": 1, "b": 2}"#, set(seen, "a", "5"), false),
        (r#"{"a": 1.0}"#, set(seen, "a", "5"), true),
        (r#"{"a": 2}"#, set(seen, "a", "5"), true),
        (r#"{"a": 5}"#, set(seen, "a", "5"), false),
        ("{}", set(seen, "a", "5"), true),
        (r#"{"b": 3}"#, set(seen, "b", "5"), true),
        (r#"{"a": 2}"#, remove(seen, "a"), true),
        (r#"{"a": 1}"#, remove(seen, "a"), false),
        ("{}", remove(seen, "a"), false),
        (r#"{"b": 2}"#, remove(seen, "b"), true),
        ("[2]", set("[1]", "0", "5"), true),
        ("[[2]]", append("[[1]]", "0", "[5]"), false),
    ] {
        assert_eq!(
            superseded(now, operation.clone()),
            is_superseded,
            "{now}: {operation:?}"
        );
    }
}

#[test]
fn ten_thousand_writes_to_one_place_are_one_operation() {
    let base = r#"{"list": [], "n": 0, "set": []}"#;
    let mut queue: Option<Mutation> = None;
    for number in 0..10_000 {
        for operation in [
            append(base, "list", &format!("[{number}]")),
            add(base, "n", if number % 3 == 0 { -1 } else { 2 }),
            operation(
                base,
                "set",
                Action::Include {
                    items: items(&format!("[{}]", number % 7)),
                },
            ),
            operation(
                base,
                "set",
                Action::Exclude {
                    items: items(&format!("[{}]", number % 5)),
                },
            ),
            set("{}", "last", &number.to_string()),
        ] {
            match &mut queue {
                None => queue = Some(one(operation)),
                Some(queue) => {
                    coalesce(queue, one(operation), Since::Unchanged(Some(base))).unwrap();
                }
            }
        }
    }
    let queue = queue.unwrap();
    assert_eq!(queue.calls().len(), 5);
    let text = apply(Some(base), &queue, ConflictRule::NewerWins(Stamp::MAX))
        .text()
        .unwrap()
        .to_owned();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["list"].as_array().unwrap().len(), 10_000);
    assert_eq!(
        (&value["n"], &value["last"]),
        (&9_998.into(), &9_999.into())
    );
}

#[test]
fn what_is_assigned_later_replaces_what_was_changed_below() {
    let base = r#"{"a": {"list": [1]}, "b": 0}"#;
    let after_push = r#"{"a": {"list": [1,2]}, "b": 0}"#;
    let mut queue = one(append(base, "a.list", "[2]"));
    for later in [set(base, "b", "1"), set(after_push, "a", "{}")] {
        coalesce(&mut queue, one(later), Since::Unchanged(Some(base))).unwrap();
    }
    let operations: Vec<_> = queue
        .calls()
        .iter()
        .map(|call| &call.operations[..])
        .collect();
    assert_eq!(operations, [[set(base, "b", "1")], [set(base, "a", "{}")]]);
    // When others may have written meanwhile, what it saw is not known, and all is kept.
    let mut queue = one(append(base, "a.list", "[2]"));
    coalesce(&mut queue, one(set(after_push, "a", "{}")), Since::Moved).unwrap();
    assert_eq!(queue.calls().len(), 2);
}

#[test]
fn a_call_of_several_operations_is_not_torn_apart() {
    let base = r#"{"a": 0, "b": 0}"#;
    let both = || Mutation::new(None, vec![add(base, "a", -5), add(base, "b", 5)]);
    let mut queue = one(add(base, "a", 1));
    for later in [both(), one(add(base, "a", 1)), both()] {
        coalesce(&mut queue, later, Since::Unchanged(Some(base))).unwrap();
    }
    assert_eq!(queue.calls().len(), 4);
}

#[test]
fn what_takes_an_unset_key_for_something_else_is_not_coalesced() {
    let mut queue = Mutation::new(Some(json("[]")), vec![append("[]", "", "[1]")]);
    let other = Mutation::new(None, vec![append("[]", "", "[2]")]);
    assert_eq!(
        coalesce(&mut queue, other.clone(), Since::Moved),
        Err(other)
    );
}

#[test]
fn a_difference_is_as_small_as_it_can_be() {
    let kinds = |before: &str, after: &str| -> Vec<String> {
        let name = |operation: &Operation| {
            let action = serde_json::to_value(&operation.action).unwrap();
            format!(
                "{}:{}",
                operation.path.len(),
                action.as_object().unwrap().keys().next().unwrap()
            )
        };
        diff_of(before, before, after).iter().map(name).collect()
    };
    for (before, after, expected) in [
        ("1", "2", &["0:set"][..]),
        ("[1, 2]", "[1,2]", &[]),
        (r#"{"a": 1, "b": 2}"#, r#"{"b": 2, "a": 1}"#, &[]),
        (
            r#"{"a": {"x": 1, "y": 1}}"#,
            r#"{"a": {"x": 2, "y": 1}}"#,
            &["2:set"],
        ),
        (r#"{"a": 1}"#, r#"{"b": 1}"#, &["1:remove", "1:set"]),
        ("[1, 2]", "[1, 2, 3, 4]", &["0:append"]),
        ("[1, 2]", "[0, 1, 2]", &["0:insert_at"]),
        ("[1, 2, 3, 1]", "[2, 1]", &["1:remove", "1:remove"]),
        ("[1, 2, 3]", "[1, 9, 3]", &["1:set"]),
        (
            r#"[{"x": 1, "y": 1}, 2]"#,
            r#"[{"x": 5, "y": 1}, 2, 3]"#,
            &["2:set", "0:append"],
        ),
        ("[1, 2, 3, 4]", "[2, 3, 4, 1]", &["1:remove", "0:append"]),
        ("[3, 2, 1, 0]", "[0, 1, 2, 3]", &["0:set"]),
        ("[1, 2]", "[]", &["1:remove", "1:remove"]),
        ("[]", "[1, 2]", &["0:append"]),
        ("[1, 2]", "[7, 8, 9]", &["0:set"]),
        ("[1]", "{}", &["0:set"]),
    ] {
        assert_eq!(kinds(before, after), expected, "{before} to {after}");
    }
    let sets = |before: &str, after: &str| {
        let [old, new] = [before, after]
            .map(|text| Encoded::shaped(json(text), Shape::Set(Children::default())));
        diff(before, &old, &new, &[]).len()
    };
    assert_eq!(
        [
            sets("[1,2]", "[2,1]"),
            sets("[1]", "[2]"),
            sets("[1]", "[2,1]")
        ],
        [0, 2, 1]
    );
}

#[test]
fn what_the_type_does_not_know_is_left_alone() {
    let stored =
        r#"{"theirs": 1180591620717411303424, "users": [{"name": "a", "extra": 1}], "n": 1}"#;
    let field = |name| ShapeField { name, aliases: &[] };
    let fields = || {
        Shape::Fields(vec![
            (field("users"), Shape::List(Children::default())),
            (field("n"), Shape::default()),
        ])
    };
    let before = Encoded::shaped(json(r#"{"users":[{"name":"a","age":0}],"n":1}"#), fields());
    let after = Encoded::shaped(
        json(r#"{"users":[{"name":"a","age":0},{"name":"b","age":5}],"n":2}"#),
        fields(),
    );
    let mutation = Mutation::new(None, diff(stored, &before, &after, &[]));
    assert_eq!(
        apply(Some(stored), &mutation, ConflictRule::NewerWins(Stamp::MAX))
            .text()
            .unwrap(),
        r#"{"theirs": 1180591620717411303424, "users": [{"name": "a", "extra": 1},{"name":"b","age":5}], "n": 2}"#
    );
}

#[test]
fn the_journals_form_stays_what_it_is() {
    let base = r#"{"a": {}, "l": [[0]], "n": null}"#;
    let mut mutation = Mutation::new(
        Some(json("null")),
        vec![
            set(base, "a?.b", "1.50"),
            append(base, "l.0", "[1]"),
            add(base, "n", 1),
            remove(base, "n"),
        ],
    );
    mutation.calls.push(RecordedCall {
        stamp: Stamp::new(7),
        is_compared: true,
        operations: vec![insert_at("[1,2]", "", 1, "[5]")],
    });
    let text = concat!(
        r#"{"origin":[null],"calls":[{"stamp":0,"operations":[{"path":[{"member":{"name":"a","origin":[{}]}},{"member":{"name":"b"}}],"#,
        r#""do":{"set":{"value":1.50,"seen":null}}},"#,
        r#"{"path":[{"member":{"name":"l"}},{"element":{"index":0,"content":CONTENT}}],"do":{"append":{"items":[1]}}},"#,
        r#"{"path":[{"member":{"name":"n"}}],"#,
        r#""do":{"add":{"amount":{"integer":{"by":1,"min":-9223372036854775808,"max":9223372036854775807}}}}},"#,
        r#"{"path":[{"member":{"name":"n"}}],"do":{"remove":{"seen":NULL}}}]},{"stamp":7,"compared":true,"operations":"#,
        r#"[{"path":[],"do":{"insert_at":{"before":{"index":1,"content":TWO,"previous":ONE},"items":[5]}}}]}]}"#
    );
    let number = |text: &str| serde_json::to_string(&Content::of(text)).unwrap();
    let text = text
        .replace("CONTENT", &number("[0]"))
        .replace("NULL", &number("null"));
    let text = text
        .replace("TWO", &number("2"))
        .replace("ONE", &number("1"));
    assert_eq!(serde_json::to_string(&mutation).unwrap(), text);
    assert_eq!(
        serde_json::from_str::<Mutation>(&text).unwrap().calls,
        mutation.calls
    );
}

#[test]
fn deep_values_do_not_overflow_the_stack() {
    let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(20_000), "]".repeat(20_000));
    let (one, two) = (deep("1"), deep("2"));
    let stack = std::thread::Builder::new().stack_size(1024 * 1024);
    let walk = move || {
        assert_ne!(Content::of(&one), Content::of(&two));
        let mutation = Mutation::new(None, diff_of(&one, &one, &two));
        assert!(
            apply(Some(&one), &mutation, ConflictRule::NewerWins(Stamp::MAX))
                .text()
                .is_some()
        );
        // A path as deep as `serde_json` reads.
        let nested = format!("{}1{}", "[".repeat(127), "]".repeat(127));
        let step = |index| locate(Some(&nested), None, index).unwrap();
        let segments = vec![PathSegment::Index(0); 127];
        let location = step(&segments);
        let add = Operation {
            path: location.path,
            action: Action::Add { amount: integer(1) },
        };
        assert_eq!(applied(&nested, add), nested.replace('1', "2"));
    };
    stack.spawn(walk).unwrap().join().unwrap();
}

#[test]
fn a_push_looks_at_the_ends_of_a_list_only() {
    // Whatever is in it: it was not read.
    assert_eq!(
        applied("[1, nonsense]", append("[]", "", "[2]")),
        "[1, nonsense,2]"
    );
}

/// Closures of one process on one list: a later one becomes a part of the earlier one that wrote
/// what it changes, past others in the same list.
#[test]
fn closures_in_a_row_on_equal_elements_come_to_what_the_last_of_them_left() {
    let histories: &[&[&[u8]]] = &[
        &[&[0], &[0, 1], &[1, 1], &[1, 2]],
        &[&[0], &[0, 1], &[0, 1, 1], &[1, 1, 1], &[1, 2, 1]],
        &[&[2, 3], &[2, 3, 1], &[3, 3, 1], &[3, 1, 3]],
        &[&[1], &[1, 1], &[1, 3], &[1, 3, 1]],
    ];
    for lists in histories {
        let of = |list: &[u8]| Encoded::of(&list.to_vec(), None).unwrap();
        let base = format!("{:?}", lists[0]);
        let mut queue = Mutation::new(None, Vec::new());
        let mut shown = base.clone();
        for pair in lists.windows(2) {
            let later = Mutation::compared(None, diff(&shown, &of(pair[0]), &of(pair[1]), &[]));
            coalesce(&mut queue, later, Since::Unchanged(Some(&base))).unwrap();
            let applied = apply(Some(&base), &queue, ConflictRule::NewerWins(Stamp::MAX));
            assert!(applied.failed.is_empty(), "{pair:?}: {queue:?}");
            applied.text().unwrap_or(&base).clone_into(&mut shown);
            assert_eq!(
                Content::of(&shown),
                Content::of(of(pair[1]).text()),
                "{pair:?}: {shown}"
            );
        }
    }
}

/// However often each element is changed, one after the other.
#[test]
fn closures_on_each_element_of_a_list_are_one_call_for_each() {
    let of = |list: &Vec<u64>| Encoded::of(list, None).unwrap();
    let mut list: Vec<u64> = (0..20).collect();
    let base = of(&list).text().to_owned();
    let mut queue = Mutation::new(None, Vec::new());
    for round in 0..200 {
        let before = of(&list);
        // Numbers that others have, and had, too.
        list[round * 7 % 20] += 1;
        let later = Mutation::compared(None, diff(before.text(), &before, &of(&list), &[]));
        coalesce(&mut queue, later, Since::Unchanged(Some(&base))).unwrap();
    }
    let applied = apply(Some(&base), &queue, ConflictRule::NewerWins(Stamp::MAX));
    assert_eq!(applied.text(), Some(of(&list).text()));
    assert!(queue.calls().len() <= 21, "{} calls", queue.calls().len());
}

/// Closures that become one call apply to what others have left as one by one. If a call between
/// the two moves the elements of their list, an equal one must not be taken for the one that each
/// named.
#[test]
fn a_closure_keeps_the_element_that_it_named_whatever_is_moved_in_between() {
    let histories: [&[&str]; 3] = [
        // The second of two equal elements, which the removal of another one has moved.
        &["[0,1,0]", "[1,0,0]", "-0", "[0]"],
        // Made earlier, the closure would move the elements that the removal names.
        &["[5,0,0,8]", "[5,0,0,9]", "-1", "[0,9]"],
        // With a closure on another part, which joins the last one.
        &["[0,1,0]", "[1,0,0]", "-0", "[0]", "m"],
    ];
    let rule = ConflictRule::NewerWins(Stamp::MAX);
    let document = |list: &str, m: usize| format!(r#"{{"list":{list},"m":{m}}}"#);
    for history in histories {
        let base = document(history[0], 0);
        let (mut shown, mut m) = (base.clone(), 0);
        let mut calls = Vec::new();
        for step in &history[1..] {
            let call = if let Some(at) = step.strip_prefix('-') {
                one(remove(&shown, &format!("list.{at}")))
            } else if *step == "m" {
                Mutation::compared(None, vec![set(&shown, "m", "7")])
            } else {
                m += 1;
                Mutation::compared(None, diff_of(&shown, &shown, &document(step, m)))
            };
            shown = apply(Some(&shown), &call, rule).text().unwrap().to_owned();
            calls.push(call);
        }
        let mut queue = calls[0].clone();
        for call in &calls[1..] {
            coalesce(&mut queue, call.clone(), Since::Unchanged(Some(&base))).unwrap();
        }

        assert_eq!(apply(Some(&base), &queue, rule).text(), Some(&*shown));
        let list: Vec<u8> = serde_json::from_str(history[0]).unwrap();
        for gone in 0..list.len() {
            let mut theirs = list.clone();
            theirs.remove(gone);
            let theirs = document(&format!("{theirs:?}"), 0);
            let mut expected = theirs.clone();
            for call in &calls {
                let applied = apply(Some(&expected), call, rule);
                expected = applied.text().unwrap_or(&expected).to_owned();
            }
            let applied = apply(Some(&theirs), &queue, rule);
            assert_eq!(
                applied.text().unwrap_or(&theirs),
                expected,
                "{theirs}: {queue:?}"
            );
        }
    }
}

/// A call that may not go past another one in its list is still one with the one right before it.
#[test]
fn a_closure_that_may_not_go_past_others_joins_the_one_before_it() {
    let remove = |text: &str, at: &str| {
        let seen = seen_at(text, at);
        operation(text, at, Action::Remove { seen })
    };
    let mut queue = Mutation::new(None, Vec::new());
    // What others wrote is unknown: elements cannot be named anew.
    let mut add = |later: Mutation| coalesce(&mut queue, later, Since::Moved).unwrap();
    let seen = r#"{"list":[1,0,0,9],"m":0}"#;
    add(Mutation::compared(None, vec![remove(seen, "list.0")]));
    let seen = r#"{"list":[0,0,9],"m":0}"#;
    add(Mutation::new(None, vec![append(seen, "list", "[7]")]));
    for (seen, m) in [
        (r#"{"list":[0,0,9,7],"m":0}"#, "1"),
        (r#"{"list":[0,9,7],"m":1}"#, "2"),
    ] {
        let operations = vec![remove(seen, "list.0"), set(seen, "m", m)];
        add(Mutation::compared(None, operations));
    }
    // Nor by way of the one that it joins.
    let seen = r#"{"list":[9,7],"m":2}"#;
    add(Mutation::compared(None, vec![set(seen, "m", "3")]));
    let compared = queue.calls().iter().filter(|call| call.is_compared);
    assert_eq!(compared.count(), 2, "{queue:?}");
}

/// A closure that moved an element is not made if another process has removed that: what it adds is
/// not taken for what it removes.
#[test]
fn a_move_of_an_element_that_is_gone_does_not_fit_whatever_else_moves() {
    let of = |list: &[u8]| Encoded::of(&list.to_vec(), None).unwrap();
    let before = [1, 2, 3, 4];
    for after in [
        &[2, 1, 4, 5, 3][..],
        &[2, 1, 3, 4],
        &[3, 2, 1, 4],
        &[1, 3, 2, 4],
        &[4, 1, 2, 3],
        &[2, 3, 4, 1],
        &[1, 2, 4, 3, 9],
    ] {
        let (shown, left) = (of(&before), of(after));
        let operations = diff(shown.text(), &shown, &left, &[]);
        let call = Mutation::compared(None, operations);
        let rule = ConflictRule::NewerWins(Stamp::MAX);
        let made = apply(Some(shown.text()), &call, rule);
        assert_eq!(made.text().map(Content::of), Some(Content::of(left.text())));
        for gone in before {
            let theirs: Vec<u8> = before.into_iter().filter(|item| *item != gone).collect();
            let applied = apply(Some(of(&theirs).text()), &call, rule);
            let end: Vec<u8> = applied.text().map_or(theirs, |text| {
                serde_json::from_str(text).expect("it is a list of numbers")
            });
            let expected: Vec<u8> = if applied.failed.is_empty() {
                after.iter().copied().filter(|item| *item != gone).collect()
            } else {
                before.into_iter().filter(|item| *item != gone).collect()
            };
            assert_eq!(end, expected, "{after:?} without {gone}: {call:?}");
        }
    }
}

/// Whatever other processes have removed from a list, a closure that sorts it leaves it in order,
/// or is not made.
#[test]
fn a_list_that_was_sorted_is_in_order_whatever_others_removed() {
    let of = |list: &[u8]| Encoded::of(&list.to_vec(), None).unwrap();
    let sorted = of(&[1, 2, 3, 4, 5]);
    for before in permutations(&[1, 2, 3, 4, 5]) {
        let shown = of(&before);
        let call = Mutation::compared(None, diff(shown.text(), &shown, &sorted, &[]));
        for gone in 0..1_u8 << before.len() {
            let stays = |at: &usize| gone >> at & 1 == 0;
            let mut left: Vec<u8> = (0..5).filter(stays).map(|at| before[at]).collect();
            let theirs = of(&left);
            let rule = ConflictRule::NewerWins(Stamp::MAX);
            let applied = apply(Some(theirs.text()), &call, rule);
            if applied.failed.is_empty() {
                left.sort_unstable();
            }
            let end = applied.text().unwrap_or(theirs.text());
            assert_eq!(
                Content::of(end),
                Content::of(of(&left).text()),
                "{before:?}, then {}: {end}",
                theirs.text()
            );
        }
    }
}

/// All orders of these items.
fn permutations(items: &[u8]) -> Vec<Vec<u8>> {
    let Some((first, rest)) = items.split_first() else {
        return vec![Vec::new()];
    };
    let with_first = |rest: Vec<u8>| {
        (0..=rest.len()).map(move |at| [&rest[..at], &[*first], &rest[at..]].concat())
    };
    permutations(rest)
        .into_iter()
        .flat_map(with_first)
        .collect()
}
