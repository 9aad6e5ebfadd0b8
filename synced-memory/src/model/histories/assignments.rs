//! The rules for assignments by name, each as the shortest history that can break it.

use super::{AN_HOUR, ScenarioProcess, ScenarioServer, answer};
use crate::backend::commit::Outcome;
use crate::backend::error::BackendError;
use crate::backend::shards::Shard;
use crate::base::clock::Monotonic;
use crate::base::error::ErrorKind;
use crate::pending::outbox::Written;

#[test]
fn a_retry_never_erases_what_another_process_stored_meanwhile() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let _accepted = process.set("ours");
    let (first, _) = process.send().unwrap();
    assert!(matches!(server.commit(&first), Outcome::Applied { .. }));
    process.disconnect();
    // Without a stamp: by the stamps alone, the retry would be newer.
    server.set_foreign(r#""theirs""#);
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert!(process.is_done());
    assert_eq!(server.value().as_deref(), Some("theirs"));
    assert_eq!(process.visible().as_deref(), Some("theirs"));
}

#[test]
fn a_late_attempt_of_a_dead_connection_erases_nothing() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let _accepted = process.set("ours");
    let (late, _) = process.send().unwrap();
    process.disconnect();
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    server.set_foreign(r#""theirs""#);
    assert!(matches!(server.commit(&late), Outcome::AlreadyApplied(_)));
    assert_eq!(server.value().as_deref(), Some("theirs"));
}

#[test]
fn a_write_made_while_an_attempt_is_in_flight_is_neither_lost_nor_doubled() {
    for answer_is_lost in [false, true] {
        let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
        let _first = process.set("first");
        let (attempt, ticket) = process.send().unwrap();
        let mut second = process.set("second");
        assert!(
            process.send().is_none(),
            "the second one is not sent before the first is answered"
        );
        let outcome = server.commit(&attempt);
        if answer_is_lost {
            process.disconnect();
            process.state.connected(Shard::FIRST, None);
        } else {
            process
                .state
                .answered(&attempt, ticket, Ok(outcome), process.mono);
        }
        assert_eq!(process.visible().as_deref(), Some("second"));
        let mut applied = Vec::new();
        while let Some((attempt, ticket)) = process.send() {
            let outcome = server.commit(&attempt);
            if matches!(outcome, Outcome::Applied { .. }) {
                applied.push(attempt.sequence);
            }
            process
                .state
                .answered(&attempt, ticket, Ok(outcome), process.mono);
        }
        assert_eq!(applied, [second.id]);
        assert_eq!(server.value().as_deref(), Some("second"));
        let expected = if answer_is_lost {
            Written::Queued
        } else {
            Written::Stored
        };
        assert_eq!(answer(&mut second), Some(Ok(expected)));
    }
}

#[test]
fn a_slot_follows_the_server_backwards() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let _accepted = process.set("new");
    process.deliver(&mut server);
    server.set_foreign(r#"{"value": "old", "last_modified": 5}"#);
    process.read(&mut server);
    assert_eq!(process.visible().as_deref(), Some("old"));
    let mut flushed = ScenarioServer::new();
    process.read(&mut flushed);
    assert_eq!(process.visible(), None);
    // And a later write is stored, although the server once had a newer stamp.
    let mut accepted = process.set("again");
    process.deliver(&mut flushed);
    assert_eq!(answer(&mut accepted), Some(Ok(Written::Stored)));
    assert_eq!(flushed.value().as_deref(), Some("again"));
}

#[test]
fn an_online_write_wins_against_a_clock_that_is_ahead() {
    let (mut server, mut process, mut ahead) = (
        ScenarioServer::new(),
        ScenarioProcess::connected(1),
        ScenarioProcess::connected(2),
    );
    ahead.now += AN_HOUR;
    for their_last_is_a_delete in [false, true] {
        let _theirs = if their_last_is_a_delete {
            ahead.delete()
        } else {
            ahead.set("theirs")
        };
        ahead.deliver(&mut server);
        let mut accepted = process.set("ours");
        process.deliver(&mut server);
        assert_eq!(answer(&mut accepted), Some(Ok(Written::Stored)));
        assert_eq!(server.value().as_deref(), Some("ours"));
        ahead.now += AN_HOUR;
    }
}

#[test]
fn a_write_that_waited_out_an_outage_is_superseded_by_a_newer_one() {
    let (mut server, mut process, mut other) = (
        ScenarioServer::new(),
        ScenarioProcess::connected(1),
        ScenarioProcess::connected(2),
    );
    process.disconnect();
    let mut accepted = process.set("older");
    assert_eq!(answer(&mut accepted), Some(Ok(Written::Queued)));
    other.now += AN_HOUR;
    let _newer = other.set("newer");
    other.deliver(&mut server);
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert!(process.is_done());
    assert_eq!(process.state.superseded, 1);
    assert_eq!(process.visible().as_deref(), Some("newer"));
}

#[test]
fn an_older_queued_write_does_not_resurrect_a_deleted_key() {
    let (mut server, mut process, mut other) = (
        ScenarioServer::new(),
        ScenarioProcess::connected(1),
        ScenarioProcess::connected(2),
    );
    let _first = other.set("first");
    other.deliver(&mut server);
    process.disconnect();
    let _queued = process.set("queued");
    other.now += AN_HOUR;
    let _delete = other.delete();
    other.deliver(&mut server);
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(server.stored(), None);
    assert_eq!(process.visible(), None);
}

#[test]
fn an_error_means_that_the_write_was_withdrawn() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let _first = process.set("first");
    process.deliver(&mut server);
    let mut accepted = process.set("second");
    let (attempt, ticket) = process.send().unwrap();
    process.state.answered(
        &attempt,
        ticket,
        Err(BackendError::rejected("NOPERM")),
        process.mono,
    );
    assert_eq!(answer(&mut accepted), Some(Err(ErrorKind::Rejected)));
    assert_eq!(process.visible().as_deref(), Some("first"));
    process.disconnect();
    process.state.connected(Shard::FIRST, None);
    assert!(process.send().is_none());
}

#[test]
fn stamps_that_were_issued_before_the_first_connect_are_shifted() {
    let (mut server, mut process, mut other) = (
        ScenarioServer::new(),
        ScenarioProcess::offline(1),
        ScenarioProcess::connected(2),
    );
    process.now += AN_HOUR; // its clock is wrong
    let _older = process.set("older");
    other.now += AN_HOUR / 2;
    let _newer = other.set("newer");
    other.deliver(&mut server);
    process
        .state
        .connected(Shard::FIRST, Some(-AN_HOUR.cast_signed()));
    process.deliver(&mut server);
    assert_eq!(server.value().as_deref(), Some("newer"));
}

/// A batch is taken from the outbox before it is sent; meanwhile the connection may be abandoned.
#[test]
fn a_write_that_was_drawn_and_never_sent_is_not_lost() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let _accepted = process.set("ours");
    let batch = process
        .state
        .next_batch(Shard::FIRST, 512, 1 << 20, Monotonic::ZERO);
    process.state.requeue_batch(&batch);
    process.disconnect();
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(server.value().as_deref(), Some("ours"));
}
