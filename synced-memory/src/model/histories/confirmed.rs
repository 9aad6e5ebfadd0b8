//! What the model found for confirmed calls, each as the shortest history that shows it.

use super::super::server::KEY;
use super::calls::{both_know, call, member, stored, text};
use super::{ScenarioProcess, ScenarioServer};
use crate::backend::commit::{Attempt, Outcome};
use crate::backend::shards::Shard;
use crate::base::error::ErrorKind;
use crate::base::policy::WritePolicy;
use crate::client::state::{Accepted, Request};
use crate::pending::outbox::Written;
use crate::value::mutation::{Action, Mutation, Operation, locate};

/// A process adds to a list of which it does not know the latest value, and is refused.
fn push(
    process: &mut ScenarioProcess,
    server: &mut ScenarioServer,
    policy: WritePolicy,
) -> Accepted {
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
    process
        .state
        .answered(&first, ticket, Ok(refused), process.mono);
    accepted
}

/// Two processes have read a list, and a third one, whose clock is ahead, has added 2 to it since.
fn a_newer_list() -> (ScenarioServer, ScenarioProcess, ScenarioProcess) {
    let (mut server, process, other) = both_know(r#"{"list":[1]}"#);
    let mut ahead = ScenarioProcess::connected(3);
    ahead.now += 1_000_000_000_000;
    ahead.read(&mut server);
    let theirs = Action::Append {
        items: vec![text("2")],
    };
    call(&mut ahead, "{}", &[member("list")], None, theirs);
    ahead.deliver(&mut server);
    (server, process, other)
}

/// A stamp does not say whether a confirmed call in doubt was applied: two processes that are
/// refused for the same newer value may draw the same one, and write the same. Only the server's
/// record says so.
#[test]
fn a_confirmed_call_in_doubt_was_not_made_by_another_one_that_stored_the_same() {
    let (mut server, mut process, mut other) = a_newer_list();
    let mut accepted = push(&mut process, &mut server, WritePolicy::Confirmed);
    let (lost, _) = process.send().unwrap();
    process.disconnect();
    let _accepted = push(&mut other, &mut server, WritePolicy::Through);
    let (theirs, ticket) = other.send().unwrap();
    let theirs = Attempt {
        stamp: lost.stamp,
        change: lost.change.clone(),
        ..theirs
    };
    let made = server.commit(&theirs);
    other.state.answered(&theirs, ticket, Ok(made), other.mono);

    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(
        stored(&mut server).as_deref(),
        Some(r#"{"list":[1,2,3,3]}"#)
    );
    let answer = accepted.answer.try_recv().unwrap().unwrap();
    assert!(
        answer.written == Written::Stored && answer.outdated.is_none(),
        "{answer:?}"
    );
}

/// Contention: the timeout of a confirmed call is over, and it was not applied because other writes
/// always came first.
#[test]
fn a_confirmed_call_that_was_refused_until_its_time_was_over_is_a_conflict() {
    let (mut server, mut process, _other) = a_newer_list();
    let accepted = push(&mut process, &mut server, WritePolicy::Confirmed);
    let not_made = |process: &ScenarioProcess| process.state.not_made(KEY, accepted.id).kind();
    assert_eq!(not_made(&process), ErrorKind::Conflict);
    process.disconnect();
    assert_eq!(not_made(&process), ErrorKind::Unavailable);
}
