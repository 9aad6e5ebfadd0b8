//! What the model found, each as the shortest history that shows it.

use serde_json::{Value, json};

use super::super::promises::{Process, Server};
use super::super::server::{KEY, TOMBSTONE_TTL};
use super::document::encoded;
use crate::backend::commit::Outcome;
use crate::base::error::ErrorKind;
use crate::base::policy::WritePolicy;
use crate::client::state::{Accepted, Request};
use crate::pending::outbox::{Precondition, Written};
use crate::value::envelope;
use crate::value::mutation::{
    Action, Content, Edited, Json, MemberName, Mutation, ObservedValue, Operation, PathSegment,
    PathStep, diff, element, elements, locate,
};

fn text(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

/// A process calls something that is recorded on what it is shown.
fn call(
    process: &mut Process,
    origin: &str,
    places: &[PathSegment],
    exact: Option<Precondition>,
    action: Action,
) {
    let shown = value(process);
    let spot = locate(shown.as_deref(), Some(&text(origin)), places)
        .unwrap()
        .path;
    let operations = vec![Operation { path: spot, action }];
    let mutation = Mutation::new(Some(text(origin)), operations);
    let _accepted = process.write(Request::Mutate {
        mutation,
        ttl: None,
        exact,
        take: None,
    });
}

/// A process changes what it is shown by a closure; `None` is what is not there.
fn update(process: &mut Process, change: impl FnOnce(Option<Value>) -> Option<Value>) {
    let view = process.state.view("k", process.mono);
    let shown = view.value().expect("something is there");
    let before: Value = serde_json::from_str(shown.as_str()).unwrap();
    let operations = if let Some(after) = change(Some(before.clone())) {
        diff(
            shown.as_str(),
            &encoded("", &before),
            &encoded("", &after),
            &[],
        )
    } else {
        let seen = ObservedValue::Content(Content::of(shown.as_str()));
        vec![Operation {
            path: Vec::new(),
            action: Action::Remove { seen },
        }]
    };
    let mutation = Mutation::compared(Some(text("{}")), operations);
    let _accepted = process.write(Request::Mutate {
        mutation,
        ttl: None,
        exact: Some(Precondition::Whole(view.stored)),
        take: None,
    });
}

/// A closure that changes one part.
fn set(name: &'static str, to: Value) -> impl FnOnce(Option<Value>) -> Option<Value> {
    move |shown| {
        let mut shown = shown?;
        *shown.pointer_mut(name)? = to;
        Some(shown)
    }
}

/// What both of two processes know.
fn both_know(document: &str) -> (Server, Process, Process) {
    let (mut server, mut process, mut other) =
        (Server::new(), Process::connected(1), Process::connected(2));
    call(
        &mut process,
        "{}",
        &[],
        None,
        Action::Set {
            value: text(document),
            seen: ObservedValue::Absent,
        },
    );
    process.deliver(&mut server);
    other.now += 1_000_000_000;
    other.read(&mut server);
    (server, process, other)
}

fn stored(server: &mut Server) -> Option<String> {
    server
        .stored()
        .map(|stored| envelope::value_of(&stored).as_str().to_owned())
}

fn value(process: &Process) -> Option<String> {
    let value = process.state.view("k", std::time::Duration::ZERO).value();
    value.map(|value| value.as_str().to_owned())
}

fn member(name: &str) -> PathSegment {
    PathSegment::Member(MemberName::new(name))
}

/// Rule 5: a mutation starts from what a read of an unset key returns, and so does a removal.
#[test]
fn an_element_of_the_default_can_be_removed() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let default = "[1,2]";
    let first = element(&elements(default).unwrap(), 0).unwrap();
    let operations = vec![Operation {
        path: vec![PathStep::Element(first)],
        action: Action::Remove {
            seen: ObservedValue::Content(first.content),
        },
    }];
    let mutation = Mutation::new(Some(text(default)), operations);
    let _accepted = process.write(Request::Mutate {
        mutation,
        ttl: None,
        exact: Some(Precondition::Places),
        take: None,
    });
    assert_eq!(value(&process).as_deref(), Some("[2]"));
    process.deliver(&mut server);
    assert_eq!(
        envelope::value_of(&server.stored().unwrap()).as_str(),
        "[2]"
    );
}

/// Of two assignments to one element that wait, the later one is left, and is of the element that
/// the first one saw: also where that was in a default, and somebody has stored what the first one
/// assigned elsewhere.
#[test]
fn of_two_assignments_to_an_element_of_the_default_the_later_one_follows_that_element() {
    let (mut server, mut process, mut other) =
        (Server::new(), Process::connected(1), Process::connected(2));
    let set = |value: &str, saw: &str| Action::Set {
        value: text(value),
        seen: ObservedValue::Content(Content::of(saw)),
    };
    let default = r#"["a","b","a"]"#;
    process.lose_the_connection();
    call(
        &mut process,
        default,
        &[PathSegment::Index(0)],
        None,
        set(r#""b""#, r#""a""#),
    );
    call(
        &mut process,
        default,
        &[PathSegment::Index(0)],
        None,
        set(r#""c""#, r#""b""#),
    );
    assert_eq!(value(&process).as_deref(), Some(r#"["c","b","a"]"#));
    let theirs = Action::Set {
        value: text(r#"["b",30,"a","a"]"#),
        seen: ObservedValue::Absent,
    };
    call(&mut other, "[]", &[], None, theirs);
    other.deliver(&mut server);
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(
        envelope::value_of(&server.stored().unwrap()).as_str(),
        r#"["b",30,"c","a"]"#
    );
}

/// And where that element is gone by then, the one call that is left of both is set aside.
#[test]
fn of_two_assignments_to_an_element_that_is_gone_by_then_the_later_one_is_set_aside() {
    let (mut server, mut process, mut other) =
        (Server::new(), Process::connected(1), Process::connected(2));
    let set = |value: &str, saw: &str| Action::Set {
        value: text(value),
        seen: ObservedValue::Content(Content::of(saw)),
    };
    let list = || {
        PathSegment::Member(MemberName {
            origin: Some(text(r#"["a","b","a"]"#)),
            ..MemberName::new("list")
        })
    };
    process.lose_the_connection();
    call(
        &mut process,
        "{}",
        &[list(), PathSegment::Index(2)],
        None,
        set(r#""c""#, r#""a""#),
    );
    call(
        &mut process,
        "{}",
        &[list(), PathSegment::Index(2)],
        None,
        set(r#""d""#, r#""c""#),
    );
    let theirs = Action::Set {
        value: text(r#"["x","c","b","a","c"]"#),
        seen: ObservedValue::Absent,
    };
    call(&mut other, "{}", &[member("list")], None, theirs);
    other.deliver(&mut server);
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(
        process
            .state
            .letters
            .iter()
            .map(|record| record.changes().len())
            .sum::<usize>(),
        1
    );
    assert_eq!(
        envelope::value_of(&server.stored().unwrap()).as_str(),
        r#"{"list":["x","c","b","a","c"]}"#
    );
}

/// What a later call of the process replaces is not made, unless one in between rests on it: it
/// changes the map that the first one has made.
#[test]
fn a_change_that_made_what_another_one_changes_is_not_replaced() {
    let mut process = Process::connected(1);
    process.lose_the_connection();
    let map = || {
        PathSegment::Member(MemberName {
            origin: Some(text("{}")),
            ..MemberName::new("map")
        })
    };
    call(
        &mut process,
        "{}",
        &[map(), member("l")],
        None,
        Action::SetIfAbsent { value: text("1") },
    );
    let path = ["map", "k"]
        .map(|name| PathStep::Member(MemberName::new(name)))
        .to_vec();
    let update = Operation {
        path,
        action: Action::Set {
            value: text("2"),
            seen: ObservedValue::Absent,
        },
    };
    let mutation = Mutation::new(Some(text("{}")), vec![update]);
    let _accepted = process.write(Request::Mutate {
        mutation,
        ttl: None,
        exact: None,
        take: None,
    });
    let seen = ObservedValue::Content(Content::of("1"));
    call(
        &mut process,
        "{}",
        &[map(), member("l")],
        None,
        Action::Set {
            value: text("3"),
            seen,
        },
    );
    let shown: serde_json::Value = serde_json::from_str(&value(&process).unwrap()).unwrap();
    assert_eq!(shown, serde_json::json!({"map": {"k": 2, "l": 3}}));
}

/// Of two that remove one entry, one did: also where the other removed it with everything around
/// it.
#[test]
fn an_entry_that_went_with_its_key_was_removed_by_nobody_else() {
    let (mut server, mut process, mut other) =
        (Server::new(), Process::connected(1), Process::connected(2));
    let set = Action::Set {
        value: text("1"),
        seen: ObservedValue::Absent,
    };
    call(&mut process, "{}", &[member("a")], None, set);
    process.deliver(&mut server);
    let _delete = other.write(Request::Delete);
    other.deliver(&mut server);
    let remove = Action::Remove {
        seen: ObservedValue::Content(Content::of("1")),
    };
    let operations = vec![Operation {
        path: vec![PathStep::Member(MemberName::new("a"))],
        action: remove,
    }];
    let mutation = Mutation::new(Some(text("{}")), operations);
    let mut accepted = process.write(Request::Mutate {
        mutation,
        ttl: None,
        exact: Some(Precondition::Places),
        take: None,
    });
    process.deliver(&mut server);
    let answer = accepted.answer.try_recv().unwrap().unwrap();
    assert!(
        answer.again.is_some(),
        "it returns an entry that it did not remove: {answer:?}"
    );
}

/// Rule 5: the newer one wins where it wrote; nobody wrote here.
#[test]
fn a_queued_assignment_that_finds_the_default_that_it_saw_is_not_superseded() {
    let (mut server, mut process, mut other) =
        (Server::new(), Process::offline(1), Process::connected(2));
    let origin = r#"{"age":1,"name":"ada"}"#;
    let set = Action::Set {
        value: text("\"bob\""),
        seen: Some(Content::of("\"ada\"")).into(),
    };
    call(&mut process, origin, &[member("name")], None, set);
    other.now += 3_600_000_000_000;
    let add = Action::Add {
        amount: crate::value::mutation::Amount::Integer {
            by: 1,
            min: 0,
            max: 99,
        },
    };
    call(&mut other, origin, &[member("age")], None, add);
    other.deliver(&mut server);
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(process.state.superseded, 0);
    assert_eq!(
        envelope::value_of(&server.stored().unwrap()).as_str(),
        r#"{"age":2,"name":"bob"}"#
    );
}

/// `update` writes what differs afterwards, also where that is gone from what was the default.
#[test]
fn what_a_closure_removes_from_a_default_is_removed() {
    let stored = r#"{"deep":{}}"#;
    let [before, after] = [json!({"age": 1, "name": "ada"}), json!({"age": 1})]
        .map(|user| encoded("", &json!({"deep": {"user": user}})));
    let mutation = Mutation::compared(None, diff(stored, &before, &after, &[]));
    let applied = crate::value::mutation::apply(
        Some(stored),
        &mutation,
        crate::value::mutation::ConflictRule::Latest,
    );
    assert_eq!(
        applied.made,
        Edited::Text(r#"{"deep":{"user":{"age":1}}}"#.to_owned())
    );
}

/// A number that two have changed to the same is not what both have done.
#[test]
fn a_number_that_two_closures_change_is_never_wrong_in_silence() {
    let (mut server, mut process, mut other) = both_know(r#"{"map":{"c":1}}"#);
    process.lose_the_connection();
    update(&mut process, set("/map/c", json!(2)));
    update(&mut other, set("/map/c", json!(2)));
    other.deliver(&mut server);
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(stored(&mut server).as_deref(), Some(r#"{"map":{"c":2}}"#));
    assert_eq!(
        (process.state.letters.len(), process.state.superseded),
        (1, 0)
    );
}

/// What a closure was made on, and that was not made, is not there for it, whoever has written the
/// same.
#[test]
fn a_closure_on_what_was_not_made_is_not_made_either() {
    let (mut server, mut process, mut other) = both_know(r#"{"map":{"c":1}}"#);
    process.lose_the_connection();
    update(&mut process, set("/map/c", json!(2)));
    process.state.connected(None);
    assert!(
        process.send().is_some(),
        "from its first attempt it is frozen"
    );
    process.lose_the_connection();
    update(&mut process, set("/map/c", json!(3)));
    update(&mut other, set("/map/c", json!(2)));
    other.deliver(&mut server);
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(stored(&mut server).as_deref(), Some(r#"{"map":{"c":2}}"#));
    assert_eq!(
        process
            .state
            .letters
            .iter()
            .map(|record| record.changes().len())
            .collect::<Vec<_>>(),
        [1, 1]
    );
}

/// And what is left of an entry then, which is nothing, is not set aside once more.
#[test]
fn of_what_waited_too_long_nothing_is_set_aside_that_was_already() {
    let (mut server, mut process, _other) = both_know(r#"{"map":{"c":1}}"#);
    process.lose_the_connection();
    update(&mut process, set("/map/c", json!(2)));
    process.state.connected(None);
    assert!(
        process.send().is_some(),
        "from its first attempt it is frozen"
    );
    process.lose_the_connection();
    update(&mut process, set("/map/c", json!(3)));
    process.mono += TOMBSTONE_TTL;
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(
        process
            .state
            .letters
            .iter()
            .map(|record| record.changes().len())
            .collect::<Vec<_>>(),
        [1, 1]
    );
    assert_eq!(process.state.outbox.len(), 0);
}

/// A removal of what is gone is done, also of the whole.
#[test]
fn a_closure_that_deletes_what_another_one_has_deleted_since_is_done() {
    let (mut server, mut process, mut other) = both_know(r#"{"map":{"c":1}}"#);
    process.lose_the_connection();
    update(&mut process, |_| None);
    update(&mut other, |_| None);
    other.deliver(&mut server);
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(stored(&mut server), None);
    assert_eq!(
        (process.state.letters.len(), process.state.superseded),
        (0, 0)
    );
}

/// Of two closures that are one call, the later one adds nothing before the earlier one has found
/// its elements: that would take one of these for one that it saw.
#[test]
fn of_two_closures_on_a_list_each_names_its_elements_in_what_it_saw() {
    let (mut server, mut process, mut other) = both_know(r#"{"list":["a","b","a"]}"#);
    process.lose_the_connection();
    update(&mut process, set("/list", json!(["a", "a", "b"])));
    update(&mut process, set("/list", json!(["a", "a", "b", "b"])));
    let theirs = Action::Set {
        value: text(r#"["b",20,"a","a"]"#),
        seen: ObservedValue::Absent,
    };
    call(&mut other, "{}", &[member("list")], None, theirs);
    other.deliver(&mut server);
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(
        stored(&mut server).as_deref(),
        Some(r#"{"list":[20,"a","a","b","b"]}"#)
    );
}

/// A process adds to a list whose latest value it does not know, and is refused by that.
fn push(process: &mut Process, server: &mut Server, policy: WritePolicy) -> Accepted {
    let path = locate(
        Some(r#"{"list":[1]}"#),
        Some(&text("{}")),
        &[member("list")],
    )
    .unwrap()
    .path;
    let operations = vec![Operation {
        path,
        action: Action::Append {
            items: vec![text("3")],
        },
    }];
    let mutation = Mutation::new(Some(text("{}")), operations);
    let accepted = process.write_as(
        Request::Mutate {
            mutation,
            ttl: None,
            exact: None,
            take: None,
        },
        policy,
    );
    let (first, ticket) = process.send().unwrap();
    let refused = server.commit(&first);
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
    process.state.answered(&first, ticket, Ok(refused));
    accepted
}

/// Two processes know a list, and a third one, whose clock is ahead, has added 2 to it since.
fn a_newer_list() -> (Server, Process, Process) {
    let (mut server, process, other) = both_know(r#"{"list":[1]}"#);
    let mut ahead = Process::connected(3);
    ahead.now += 1_000_000_000_000;
    ahead.read(&mut server);
    let theirs = Action::Append {
        items: vec![text("2")],
    };
    call(&mut ahead, "{}", &[member("list")], None, theirs);
    ahead.deliver(&mut server);
    (server, process, other)
}

/// The stamp says nothing of a confirmed call in doubt: of two processes that are refused by the
/// same newer value each sends the next stamp, and both may write the same. The server's record
/// says what has become of it.
#[test]
fn a_confirmed_call_in_doubt_was_not_made_by_another_one_that_stored_the_same() {
    let (mut server, mut process, mut other) = a_newer_list();
    let mut accepted = push(&mut process, &mut server, WritePolicy::Confirmed);
    let (lost, _) = process.send().unwrap();
    process.lose_the_connection();
    let _accepted = push(&mut other, &mut server, WritePolicy::Through);
    let (theirs, ticket) = other.send().unwrap();
    assert_eq!(
        (lost.stamp, &lost.change),
        (theirs.stamp, &theirs.change),
        "both are to store the same"
    );
    let made = server.commit(&theirs);
    other.state.answered(&theirs, ticket, Ok(made));

    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(
        stored(&mut server).as_deref(),
        Some(r#"{"list":[1,2,3,3]}"#)
    );
    let answer = accepted.answer.try_recv().unwrap().unwrap();
    assert!(
        answer.written == Written::Stored && answer.again.is_none(),
        "{answer:?}"
    );
}

/// Rule 4.2.3: the time of a confirmed call is over, and why it was not made is that others were
/// always ahead of it.
#[test]
fn a_confirmed_call_that_was_refused_until_its_time_was_over_is_a_conflict() {
    let (mut server, mut process, _other) = a_newer_list();
    let accepted = push(&mut process, &mut server, WritePolicy::Confirmed);
    let not_made = |process: &Process| process.state.not_made(KEY, accepted.sequence).kind();
    assert_eq!(not_made(&process), ErrorKind::Conflict);
    process.lose_the_connection();
    assert_eq!(not_made(&process), ErrorKind::Unavailable);
}
