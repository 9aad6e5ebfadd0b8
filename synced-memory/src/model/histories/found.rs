//! What the model found for assignments, each as the shortest history that shows it.

use std::sync::Arc;
use std::time::Duration;

use super::super::server::KEY;
use super::{NOW, ScenarioProcess, ScenarioServer, answer, value};
use crate::backend::commit::Outcome;
use crate::backend::shards::Shard;
use crate::pending::outbox::Written;

/// Rule 8: the stamps of one process rise. The first write was stamped again, above a clock that is
/// ahead; the second one, which was queued behind it, must not have an older stamp.
#[test]
fn a_write_is_not_superseded_by_an_earlier_one_of_its_own_process() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    server.set_foreign(r#"{"value": "ahead", "last_modified": 1800000000000000000}"#);
    let _first = process.set("first");
    let (attempt, ticket) = process.send().unwrap();
    let _second = process.set("second");
    let refused = server.commit(&attempt);
    process
        .state
        .answered(&attempt, ticket, Ok(refused), process.mono);
    let (again, ticket) = process.send().unwrap();
    let applied = server.commit(&again);
    process
        .state
        .answered(&again, ticket, Ok(applied), process.mono);
    // An outage before the second one is sent: it is not stamped again any more.
    process.disconnect();
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(process.state.superseded, 0);
    assert_eq!(server.value().as_deref(), Some("second"));
}

/// Rule 1: a process reads its own writes. A value that has expired must not end its successor,
/// which has no time to live.
#[test]
fn a_write_after_one_whose_time_to_live_is_over_is_seen() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let _for_a_while = process.put("for a while", Some(Duration::from_secs(1)));
    process.deliver(&mut server);
    process.mono += Duration::from_secs(2);
    let _for_ever = process.set("for ever");
    process.deliver(&mut server);
    assert_eq!(
        server
            .store
            .read(KEY, process.mono)
            .map(|stored| value(Some(stored.to_bytes()))),
        Some(Some("for ever".into()))
    );
    assert_eq!(process.visible().as_deref(), Some("for ever"));
    process.read(&mut server);
    assert_eq!(process.visible().as_deref(), Some("for ever"));
}

/// Rule 1: a read returns what the server answered. The time to live of a value that this process
/// once stored says nothing about the value that has replaced it since.
#[test]
fn a_time_to_live_ends_with_the_value_that_it_was_given_to() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let _for_a_while = process.put("for a while", Some(Duration::from_secs(10)));
    process.deliver(&mut server);
    let mut other = ScenarioProcess::connected(2);
    other.now += 5_000_000;
    let _longer = other.put("longer", Some(Duration::from_secs(3_600)));
    other.deliver(&mut server);
    process.now += 10_000_000;
    let _ours = process.set("ours");
    process.deliver(&mut server);
    process.mono += Duration::from_secs(20);
    process.read(&mut server);
    assert_eq!(process.visible().as_deref(), Some("ours"));
}

/// Rule 1: a read returns the writes that are not answered. An expired one does not hide the one
/// before it.
#[test]
fn a_queued_write_that_is_over_does_not_hide_the_one_before_it() {
    let mut process = ScenarioProcess::connected(1);
    let _first = process.set("first");
    let _on_its_way = process.send().unwrap();
    let _second = process.put("second", Some(Duration::from_secs(1)));
    assert_eq!(process.visible().as_deref(), Some("second"));
    process.mono += Duration::from_secs(2);
    assert_eq!(process.visible().as_deref(), Some("first"));
}

/// Rules 4 and 6: an attempt is applied once. A process that closes keeps its record if an attempt
/// in doubt may still arrive, even if a later write was answered.
#[test]
fn a_record_that_a_late_attempt_must_find_outlives_its_process() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let _first = process.set("first");
    let (_late, _) = process.send().unwrap();
    process.disconnect();
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    let _second = process.set("second");
    process.deliver(&mut server);
    assert!(process.is_done());
    assert!(process.state.take_recorded().is_empty());
}

/// Rule 6: a record is dropped with the last use of its key, but not while a later write is queued,
/// and not if an attempt in doubt may still arrive.
#[test]
fn a_record_is_dropped_with_the_last_use_of_its_key_and_not_under_a_write_that_came_since() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    let _first = process.set("first");
    process.deliver(&mut server);
    process.state.release(KEY);
    assert_eq!(process.state.take_unused(Shard::FIRST), [Arc::from(KEY)]);
    for is_sent in [false, true] {
        process.state.cache.hold(&process.key);
        let _second = process.set("second");
        process.deliver(&mut server);
        process.state.release(KEY);
        process.state.cache.hold(&process.key);
        let _third = process.set("third");
        if is_sent {
            process.deliver(&mut server);
        }
        assert!(process.state.take_unused(Shard::FIRST).is_empty());
        process.deliver(&mut server);
        process.state.release(KEY);
        assert_eq!(process.state.take_unused(Shard::FIRST), [Arc::from(KEY)]);
    }
    process.state.cache.hold(&process.key);
    let _fourth = process.set("fourth");
    let _late = process.send().unwrap();
    process.disconnect();
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    process.state.release(KEY);
    assert!(process.state.take_unused(Shard::FIRST).is_empty());
}

/// Rules 3 and 15: the result of the writes of one process is the same whether they are merged or
/// not. A value that is set after a delete is new, without the time to live of the deleted one.
#[test]
fn a_write_after_a_queued_delete_has_no_time_to_live_of_before() {
    let (mut server, mut process, mut other) = (
        ScenarioServer::new(),
        ScenarioProcess::connected(1),
        ScenarioProcess::connected(2),
    );
    let _for_a_while = other.put("for a while", Some(Duration::from_secs(10)));
    other.deliver(&mut server);
    process.disconnect();
    process.now += 5_000_000;
    let _delete = process.delete();
    let _for_ever = process.set("for ever");
    process.state.connected(Shard::FIRST, None);
    process.deliver(&mut server);
    assert_eq!(server.value().as_deref(), Some("for ever"));
    let stored = server.store.read(KEY, Duration::from_secs(20)).unwrap();
    assert_eq!(value(Some(stored.to_bytes())).as_deref(), Some("for ever"));
}

/// Rule 10: the limit of the outbox counts what is in it, also after the first connect has shifted
/// the stamps of a host whose clock was never set, and they have become longer.
#[test]
fn what_the_outbox_holds_is_counted_also_after_the_stamps_were_shifted() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::offline(1));
    process.now = 0;
    let _first = process.set("first");
    process
        .state
        .connected(Shard::FIRST, Some(NOW.cast_signed()));
    process.now += NOW;
    process.deliver(&mut server);
    let mut second = process.set("second");
    process.deliver(&mut server);
    assert_eq!(answer(&mut second), Some(Ok(Written::Stored)));
}

/// Rule 8: stamps above 2^62 count as 0, those of tombstones too. Otherwise a write that such a
/// stamp refuses could be stamped again for ever.
#[test]
fn a_tombstone_beyond_2_to_62_counts_as_zero() {
    let (mut server, mut process) = (ScenarioServer::new(), ScenarioProcess::connected(1));
    server.set_foreign(r#"{"value": "theirs", "last_modified": 4611686018427387904}"#);
    let _delete = process.delete();
    process.deliver(&mut server);
    assert_eq!(server.stored(), None);
    let mut other = ScenarioProcess::connected(2);
    let mut accepted = other.set("ours");
    let (attempt, ticket) = other.send().unwrap();
    let outcome = server.commit(&attempt);
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    other
        .state
        .answered(&attempt, ticket, Ok(outcome), other.mono);
    assert_eq!(answer(&mut accepted), Some(Ok(Written::Stored)));
}
