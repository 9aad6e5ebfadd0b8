//! What the model found for closures, each as the shortest history that shows it.

use serde_json::json;

use super::super::document::encoded;
use super::super::server::TOMBSTONE_TTL;
use super::calls::{both_know, call, member, set, stored, text, update};
use crate::backend::shards::Shard;
use crate::value::mutation::{Action, Edited, Mutation, ObservedValue, diff};

/// `update` writes the difference, also if the closure has removed something of the default.
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

/// Two closures that change a number to the same value have not done the same: both may have
/// counted.
#[test]
fn a_number_that_two_closures_change_is_never_wrong_in_silence() {
    let (mut server, mut process, mut other) = both_know(r#"{"map":{"c":1}}"#);
    process.disconnect();
    update(&mut process, set("/map/c", json!(2)));
    update(&mut other, set("/map/c", json!(2)));
    other.deliver(&mut server);
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(stored(&mut server).as_deref(), Some(r#"{"map":{"c":2}}"#));
    assert_eq!(
        (process.state.letters.len(), process.state.superseded),
        (1, 0)
    );
}

/// A closure that was made on a closure that was not applied is not applied either, even if another
/// process has written the same.
#[test]
fn a_closure_on_what_was_not_made_is_not_made_either() {
    let (mut server, mut process, mut other) = both_know(r#"{"map":{"c":1}}"#);
    process.disconnect();
    update(&mut process, set("/map/c", json!(2)));
    process.state.connected(Shard::FIRST, None);
    assert!(
        process.send().is_some(),
        "from its first attempt it is frozen"
    );
    process.disconnect();
    update(&mut process, set("/map/c", json!(3)));
    update(&mut other, set("/map/c", json!(2)));
    other.deliver(&mut server);
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(stored(&mut server).as_deref(), Some(r#"{"map":{"c":2}}"#));
    assert_eq!(process.dead_changes(), [1, 1]);
}

/// If nothing is left of an entry, it does not become a dead letter once more.
#[test]
fn what_waited_too_long_becomes_a_dead_letter_once() {
    let (mut server, mut process, _other) = both_know(r#"{"map":{"c":1}}"#);
    process.disconnect();
    update(&mut process, set("/map/c", json!(2)));
    process.state.connected(Shard::FIRST, None);
    assert!(
        process.send().is_some(),
        "from its first attempt it is frozen"
    );
    process.disconnect();
    update(&mut process, set("/map/c", json!(3)));
    process.mono += TOMBSTONE_TTL;
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(process.dead_changes(), [1, 1]);
    assert_eq!(process.state.outbox.len(), 0);
}

/// A removal of what is gone already has nothing to do, also of the whole value.
#[test]
fn a_closure_that_deletes_what_another_one_has_deleted_since_is_done() {
    let (mut server, mut process, mut other) = both_know(r#"{"map":{"c":1}}"#);
    process.disconnect();
    update(&mut process, |_| None);
    update(&mut other, |_| None);
    other.deliver(&mut server);
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(stored(&mut server), None);
    assert_eq!(
        (process.state.letters.len(), process.state.superseded),
        (0, 0)
    );
}

/// Of two closures that are one call, the later one must not add elements before the earlier one
/// has identified its own: it could mistake an added one for one that it observed.
#[test]
fn of_two_closures_on_a_list_each_names_its_elements_in_what_it_saw() {
    let (mut server, mut process, mut other) = both_know(r#"{"list":["a","b","a"]}"#);
    process.disconnect();
    update(&mut process, set("/list", json!(["a", "a", "b"])));
    update(&mut process, set("/list", json!(["a", "a", "b", "b"])));
    let theirs = Action::Set {
        value: text(r#"["b",20,"a","a"]"#),
        seen: ObservedValue::Absent,
    };
    call(&mut other, "{}", &[member("list")], None, theirs);
    other.deliver(&mut server);
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(
        stored(&mut server).as_deref(),
        Some(r#"{"list":[20,"a","a","b","b"]}"#)
    );
}
