//! What the model found for mutations, each as the shortest history that shows it.

use super::calls::{call, member, text, value};
use super::{KEY, ScenarioProcess, ScenarioServer};
use crate::backend::commit::{LONG, Outcome};
use crate::backend::shards::Shard;
use crate::client::state::Request;
use crate::pending::outbox::Precondition;
use crate::value::envelope;
use crate::value::mutation::{
    Action, Content, MemberName, Mutation, ObservedValue, Operation, PathSegment, PathStep,
    element, elements,
};

/// Rule 5: a mutation, also a removal, starts from what a read of an unset key returns.
#[test]
fn an_element_of_the_default_can_be_removed() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let default = "[1,2]";
    let first = element(&elements(default).unwrap(), 0).unwrap();
    let seen = ObservedValue::Content(first.content);
    let operations = vec![Operation {
        path: vec![PathStep::Element(first)],
        action: Action::Remove { seen },
    }];
    let mutation = Mutation::new(Some(text(default)), operations);
    let _accepted = process.write(Request::Mutate {
        mutation,
        ttl: None,
        exact: Some(Precondition::Paths),
        take: None,
    });
    assert_eq!(value(&process).as_deref(), Some("[2]"));
    process.deliver(&mut server);
    assert_eq!(
        envelope::value_of(&server.stored().unwrap()).as_str(),
        "[2]"
    );
}

/// Of two queued assignments to one element only the later one is kept, and is of the element that
/// the first one observed: also if that was in a default, and another process has since stored the
/// first value in another element.
#[test]
fn of_two_assignments_to_an_element_of_the_default_the_later_one_follows_that_element() {
    let (mut server, mut process, mut other) = (
        ScenarioServer::new(),
        ScenarioProcess::connected(1),
        ScenarioProcess::connected(2),
    );
    let set = |value: &str, observed: &str| Action::Set {
        value: text(value),
        seen: ObservedValue::Content(Content::of(observed)),
    };
    let default = r#"["a","b","a"]"#;
    process.disconnect();
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
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(
        envelope::value_of(&server.stored().unwrap()).as_str(),
        r#"["b",30,"c","a"]"#
    );
}

/// What is made of a newer value has a stamp above that, by a random step. It is not above what
/// this process has written later: that would give way to this process's own change.
#[test]
fn what_was_written_later_does_not_give_way_to_a_change_made_on_a_newer_value() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let first = Action::Append {
        items: vec![text("1")],
    };
    call(&mut process, "{}", &[member("list")], None, first);
    process.send().unwrap();
    process.disconnect();
    let second = Action::Set {
        value: text("5"),
        seen: ObservedValue::Absent,
    };
    call(&mut process, "{}", &[member("n")], None, second);
    let written = process.state.outbox.last(KEY).unwrap().write.latest;
    let stamp = written.get() - 1;
    server.set_foreign(format!(
        r#"{{"value": {{"list":[7],"n":1}},"last_modified": {stamp}}}"#
    ));

    process.state.connected(Shard::FIRST, None);
    let (retry, ticket) = process.send().unwrap();
    let refused = server.commit(&retry);
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
    let mono = process.mono;
    process.state.answered(&retry, ticket, Ok(refused), mono);
    let both = r#"{"list":[7,1],"n":5}"#;
    assert_eq!(value(&process).as_deref(), Some(both));
    process.deliver(&mut server);
    assert_eq!(envelope::value_of(&server.stored().unwrap()).as_str(), both);
}

/// If that element is gone by then, the one call that is kept becomes a dead letter.
#[test]
fn of_two_assignments_to_an_element_that_is_gone_by_then_the_later_one_becomes_a_dead_letter() {
    let (mut server, mut process, mut other) = (
        ScenarioServer::new(),
        ScenarioProcess::connected(1),
        ScenarioProcess::connected(2),
    );
    let set = |value: &str, observed: &str| Action::Set {
        value: text(value),
        seen: ObservedValue::Content(Content::of(observed)),
    };
    let list = || {
        PathSegment::Member(MemberName {
            origin: Some(text(r#"["a","b","a"]"#)),
            ..MemberName::new("list")
        })
    };
    process.disconnect();
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
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(process.dead_changes().iter().sum::<usize>(), 1);
    assert_eq!(
        envelope::value_of(&server.stored().unwrap()).as_str(),
        r#"{"list":["x","c","b","a","c"]}"#
    );
}

/// A call that a later one of the process replaces is not sent, unless a call in between is based
/// on it: here that one changes the map that the first call has created.
#[test]
fn a_change_that_made_what_another_one_changes_is_not_replaced() {
    let mut process = ScenarioProcess::connected(1);
    process.disconnect();
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
    let visible: serde_json::Value = serde_json::from_str(&value(&process).unwrap()).unwrap();
    assert_eq!(visible, serde_json::json!({"map": {"k": 2, "l": 3}}));
}

/// Of two processes that remove one entry, only one has removed it: also if the other one removed
/// it with the whole key.
#[test]
fn an_entry_that_went_with_its_key_was_removed_by_nobody_else() {
    let (mut server, mut process, mut other) = (
        ScenarioServer::new(),
        ScenarioProcess::connected(1),
        ScenarioProcess::connected(2),
    );
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
        exact: Some(Precondition::Paths),
        take: None,
    });
    process.deliver(&mut server);
    let answer = accepted.answer.try_recv().unwrap().unwrap();
    assert!(
        answer.outdated.is_some(),
        "it returns an entry that it did not remove: {answer:?}"
    );
}

/// Rule 5: a newer write wins only where it wrote, and here nobody wrote.
#[test]
fn a_queued_assignment_that_finds_the_default_that_it_saw_is_not_superseded() {
    let (mut server, mut process, mut other) = (
        ScenarioServer::new(),
        ScenarioProcess::offline(1),
        ScenarioProcess::connected(2),
    );
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
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(process.state.superseded, 0);
    assert_eq!(
        envelope::value_of(&server.stored().unwrap()).as_str(),
        r#"{"age":2,"name":"bob"}"#
    );
}

/// A long value that others have laid out in another way is put as a whole: a read shows it as it
/// is stored.
#[test]
fn a_long_value_of_another_layout_is_read_after_it_was_put_as_a_whole() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let long = "x".repeat(2 * LONG);
    let stamp = super::NOW;
    let theirs = format!(r#"{{"value": ["{long}"], "last_modified": {stamp}}}"#);
    server.set_foreign(theirs);
    process.read(&mut server);
    let action = Action::InsertAt {
        before: element(&elements(&format!(r#"["{long}"]"#)).unwrap(), 0).unwrap(),
        items: vec![text(&format!(r#""{long}""#))],
    };
    call(&mut process, "[]", &[], None, action);
    process.deliver(&mut server);
    let expected = format!(r#"["{long}","{long}"]"#);
    assert_eq!(value(&process), Some(expected));
    let stored = server.stored().unwrap();
    assert_eq!(
        value(&process).unwrap(),
        envelope::value_of(&stored).as_str()
    );
}
