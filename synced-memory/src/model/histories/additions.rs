//! What the model found for additions, each as the shortest history that shows it.

use super::calls::{call, stored, text, value};
use super::{AN_HOUR, NOW, ScenarioProcess, ScenarioServer};
use crate::backend::commit::{Attempt, LONG, Outcome};
use crate::backend::shards::Shard;
use crate::base::clock::Stamp;
use crate::cache::{Generation, Ticket};
use crate::client::state::{Request, State};
use crate::value::document::Document;
use crate::value::envelope::Unsealed;
use crate::value::mutation::Action;

/// A process that knows a list, and for which values of at least so many bytes are long.
fn knows_a_list(seed: u64, long_from: usize) -> (ScenarioServer, ScenarioProcess) {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(seed));
    process.state = process.state.with_long_values_from(long_from);
    server.set_foreign(r#"{"value": [0],"last_modified": 5}"#);
    process.read(&mut server);
    (server, process)
}

fn push(process: &mut ScenarioProcess, item: &str) {
    let items = vec![text(item)];
    call(process, "[]", &[], None, Action::Append { items });
}

fn assign(process: &mut ScenarioProcess, list: &str) -> Stamp {
    let value = Unsealed::of_text(list);
    let _accepted = process.write(Request::Put { value, ttl: None });
    last_stamp(process)
}

fn last_stamp(process: &ScenarioProcess) -> Stamp {
    process.state.outbox.last("k").unwrap().write.stamp
}

fn set_foreign(server: &mut ScenarioServer, list: &str, stamp: u64) {
    server.set_foreign(format!(r#"{{"value": {list},"last_modified": {stamp}}}"#));
}

/// A push whose answer is lost, and behind it, during the outage, an assignment. Just below that
/// somebody else stores another list.
fn outage_behind_a_push(
    seed: u64,
    long_from: usize,
) -> (ScenarioServer, ScenarioProcess, Attempt, Stamp) {
    let (mut server, mut process) = knows_a_list(seed, long_from);
    push(&mut process, "1");
    let (attempt, _) = process.send().unwrap();
    assert_eq!(attempt.change.is_blind(), long_from == 0);
    process.disconnect();
    let assigned = assign(&mut process, "[2]");
    set_foreign(&mut server, "[7]", assigned.get() - 1);
    (server, process, attempt, assigned)
}

/// The assignment is stored, although the push before it has got a higher stamp.
fn ends_with_the_assignment(mut server: ScenarioServer, mut process: ScenarioProcess) {
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(stored(&mut server).as_deref(), Some("[2]"));
    assert_eq!(value(&process).as_deref(), Some("[2]"));
    assert_eq!(process.state.superseded, 0);
}

fn stamp_of(server: &mut ScenarioServer) -> Stamp {
    crate::value::envelope::stamp_of(&server.stored().unwrap())
}

#[test]
fn an_assignment_does_not_give_way_to_the_push_before_it() {
    for long_from in [0, LONG] {
        let (server, process, _lost, _) = outage_behind_a_push(1, long_from);
        ends_with_the_assignment(server, process);
    }
}

#[test]
fn an_assignment_does_not_give_way_to_the_push_before_it_whose_answer_was_lost() {
    let (mut server, process, late, assigned) = outage_behind_a_push(1, 0);
    let made = server.commit(&late);
    assert!(matches!(made, Outcome::Added { .. }), "{made:?}");
    assert!(stamp_of(&mut server) >= assigned);
    ends_with_the_assignment(server, process);
}

/// Whoever is newer by more than a step wins as ever.
#[test]
fn an_assignment_gives_way_to_what_others_store_after_the_push_before_it() {
    for is_late in [false, true] {
        let (mut server, mut process, late, assigned) = outage_behind_a_push(1, 0);
        if is_late {
            server.commit(&late);
        }
        set_foreign(&mut server, "[8]", assigned.get() + Stamp::STEP);
        process.state.connected(Shard::FIRST, None);
        process.deliver(&mut server);
        let left = if is_late { "[8]" } else { "[8,1]" };
        assert_eq!(stored(&mut server).as_deref(), Some(left));
        assert_eq!(process.state.superseded, 1);
    }
}

/// What was made of a value by a clock that is ahead has a stamp above that. What is written after
/// the answer is newer.
#[test]
fn an_assignment_does_not_give_way_to_a_push_that_was_answered_before_it() {
    for seed in 0..20 {
        let (mut server, mut process) = knows_a_list(seed, LONG);
        push(&mut process, "1");
        set_foreign(&mut server, "[7]", NOW + AN_HOUR);
        process.deliver(&mut server);
        assert_eq!(stored(&mut server).as_deref(), Some("[7,1]"));
        process.disconnect();
        assert!(
            assign(&mut process, "[2]") > stamp_of(&mut server),
            "{seed}"
        );
        ends_with_the_assignment(server, process);
    }
}

/// A large value is read apart: it takes effect some time after its ticket.
fn read_apart(state: &mut State, ticket: Ticket, server: &mut ScenarioServer) {
    let (key, generation, mono) = ("k".into(), Generation::default(), std::time::Duration::ZERO);
    let stored = server.stored().map(Document::of);
    state.read(&key, ticket, generation, stored, mono);
    state.read_apart(&key, ticket);
}

#[test]
fn a_push_during_the_read_of_a_large_value_is_seen_once() {
    let (mut server, mut process) = knows_a_list(1, 0);
    set_foreign(&mut server, "[0,7]", 6);
    process.tickets += 1;
    let ticket = process.tickets;
    push(&mut process, "1");
    process.deliver(&mut server);
    assert_eq!(value(&process).as_deref(), Some("[0,1]"));
    let before = server.stored();
    push(&mut process, "2");
    process.deliver(&mut server);
    // It has taken effect between the two.
    let after = server.stored();
    server.set_foreign(before.unwrap());
    read_apart(&mut process.state, ticket, &mut server);
    assert_eq!(value(&process).as_deref(), Some("[0,7,1,2]"));
    server.set_foreign(after.unwrap());
    read_apart(&mut process.state, ticket, &mut server);
    assert_eq!(value(&process).as_deref(), Some("[0,7,1,2]"));
}
