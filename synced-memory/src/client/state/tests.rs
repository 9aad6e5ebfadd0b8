//! Keys that go from one shard to another.

use std::sync::Arc;
use std::time::Duration;

use super::{Accepted, Link, Request, State};
use crate::backend::commit::{Attempt, KeyState, Outcome};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::{Node, Redirect, slot_of};
use crate::backend::shards::{Shard, ShardMap};
use crate::base::clock::{Moment, Monotonic};
use crate::base::error::{Error, ErrorKind};
use crate::base::policy::WritePolicy;
use crate::cache::Tracking;
use crate::pending::outbox::{Answer, Written};
use crate::value::document::Document;
use crate::value::envelope::Unsealed;

const START: Monotonic = Duration::from_secs(1_000);
const LATER: Monotonic = Duration::from_secs(2_000);
const NOW: u64 = 1_700_000_000_000_000_000;
const KEY: &str = "k";
const OF_KEY: Shard = Shard::numbered(1);
const OTHER: Shard = Shard::numbered(2);

fn node_of(shard: Shard) -> Node {
    Node {
        host: "shard".into(),
        port: u16::try_from(shard.index()).unwrap(),
    }
}

/// Of two shards that are connected; the first one has the key.
fn state() -> State {
    let state = State::new(1 << 20, Duration::MAX / 4, fastrand::Rng::with_seed(1));
    let mut state = state.with_map(&ShardMap::cluster());
    for shard in [OF_KEY, OTHER] {
        state.add_shard(shard, &node_of(shard));
        state.connected(shard, None);
    }
    state.map.assign(slot_of(KEY), OF_KEY);
    state
}

fn put(state: &mut State, value: &str) -> Accepted {
    let at = Moment {
        mono: START,
        now: NOW,
    };
    let value = Unsealed::of_text(value);
    let request = Request::Put { value, ttl: None };
    let policy = WritePolicy::Through;
    state.write(&KEY.into(), request, policy, at).unwrap()
}

/// What a flusher sends next, at this time.
fn send(state: &mut State, shard: Shard, mono: Monotonic) -> Option<Attempt> {
    let batch = state.next_batch(shard, 512, 1 << 20, mono);
    state.sent(&batch, 7, mono);
    batch.into_iter().next()
}

fn answer(state: &mut State, attempt: &Attempt, answer: Result<Outcome, BackendError>) {
    assert!(state.answered(attempt, 7, answer, START));
}

const APPLIED: Outcome = Outcome::Applied {
    existed: false,
    contended: None,
};

fn redirect(kind: BackendErrorKind, to: Shard) -> BackendError {
    let redirect = Redirect {
        slot: slot_of(KEY),
        node: node_of(to),
    };
    BackendError::redirected(kind, redirect, "on purpose")
}

fn redirected(kind: BackendErrorKind, to: Shard) -> Result<Outcome, BackendError> {
    Err(redirect(kind, to))
}

fn lose(state: &mut State, shard: Shard) {
    let lost = Error::new(ErrorKind::Unavailable, "on purpose");
    state.disconnected(shard, &lost, START);
}

fn written(accepted: &mut Accepted) -> Option<Written> {
    let answer: Result<Answer, Error> = accepted.answer.try_recv().ok()?;
    answer.ok().map(|answer| answer.written)
}

/// A write that the other shard is asked for.
fn asked_for(state: &mut State) -> (Accepted, Attempt) {
    let accepted = put(state, "1");
    let attempt = send(state, OF_KEY, START).unwrap();
    answer(state, &attempt, redirected(BackendErrorKind::Ask, OTHER));
    let asked = send(state, OTHER, START).unwrap();
    assert!(asked.asking);
    (accepted, asked)
}

#[test]
fn a_write_that_a_server_sends_to_another_one_wakes_who_sends_there() {
    for kind in [BackendErrorKind::Moved, BackendErrorKind::Ask] {
        let mut state = state();
        let _accepted = put(&mut state, "1");
        let attempt = send(&mut state, OF_KEY, START).unwrap();
        assert!(!state.take_strayed());
        answer(&mut state, &attempt, redirected(kind, OTHER));
        assert!(state.take_strayed(), "{kind:?}");
        assert!(send(&mut state, OTHER, START).is_some(), "{kind:?}");
    }
}

#[test]
fn the_write_behind_one_that_another_shard_was_asked_for_wakes_who_sends_it() {
    let mut state = state();
    let (_first, asked) = asked_for(&mut state);
    let _second = put(&mut state, "2");
    state.take_strayed();
    answer(&mut state, &asked, Ok(APPLIED));
    assert!(state.take_strayed());
    assert!(send(&mut state, OF_KEY, START).is_some());
}

#[test]
fn a_write_that_is_lost_on_its_way_to_another_shard_wakes_who_sends_it_again() {
    let mut state = state();
    let (_accepted, _asked) = asked_for(&mut state);
    state.take_strayed();
    lose(&mut state, OTHER);
    assert!(state.take_strayed());
    let again = send(&mut state, OF_KEY, START).unwrap();
    assert!(again.retry.is_some());
}

#[test]
fn a_write_that_was_not_sent_to_another_shard_after_all_wakes_who_sends_it() {
    let mut state = state();
    let _accepted = put(&mut state, "1");
    let attempt = send(&mut state, OF_KEY, START).unwrap();
    let ask = redirected(BackendErrorKind::Ask, OTHER);
    answer(&mut state, &attempt, ask);
    state.take_strayed();
    let batch = state.next_batch(OTHER, 512, 1 << 20, START);
    assert_eq!(batch.len(), 1);
    state.requeue_batch(&batch);
    assert!(state.take_strayed());
    assert!(send(&mut state, OF_KEY, START).is_some());
}

/// Rule 4: a retry is never stamped again, whichever shard it was lost at.
#[test]
fn a_write_that_is_lost_on_its_way_to_another_shard_is_queued_and_never_stamped_again() {
    let mut state = state();
    let (mut accepted, asked) = asked_for(&mut state);
    lose(&mut state, OTHER);
    assert_eq!(written(&mut accepted), Some(Written::Queued));

    let again = send(&mut state, OF_KEY, START).unwrap();
    assert_eq!(again.stamp, asked.stamp);
    let newer = again.stamp.get() + 1;
    let newer = format!(r#"{{"value": 0,"last_modified": {newer}}}"#);
    let found = KeyState {
        stored: Some(Document::of(newer.into())),
        ..KeyState::default()
    };
    answer(&mut state, &again, Ok(Outcome::Refused(found)));
    assert_eq!((state.superseded, state.outbox.len()), (1, 0));
}

/// The same of one that is in doubt since too few replicas have it.
#[test]
fn a_write_that_another_shard_has_on_too_few_replicas_is_queued_and_sent_again_as_it_is() {
    let mut state = state();
    let (mut accepted, asked) = asked_for(&mut state);
    let error = BackendError::new(BackendErrorKind::UnderReplicated, "on purpose");
    answer(&mut state, &asked, Err(error.clone()));
    let reason = Error::of_key(ErrorKind::Unavailable, KEY, &error);
    state.paused(OTHER, reason, Some(error));
    assert_eq!(written(&mut accepted), Some(Written::Queued));
    let head = state.outbox.head(KEY).unwrap();
    assert!(!head.write.fresh, "it would be stamped again");
}

#[test]
fn a_write_that_was_to_go_to_a_shard_that_is_lost_goes_by_the_map_again() {
    let mut state = state();
    let _accepted = put(&mut state, "1");
    let attempt = send(&mut state, OF_KEY, START).unwrap();
    answer(
        &mut state,
        &attempt,
        redirected(BackendErrorKind::Ask, OTHER),
    );
    // It is in line there, and was not sent.
    lose(&mut state, OTHER);
    let again = send(&mut state, OF_KEY, LATER).expect("nobody else can send it");
    assert!(!again.asking);

    // And it does not wait there, either.
    answer(&mut state, &again, redirected(BackendErrorKind::Ask, OTHER));
    assert!(send(&mut state, OF_KEY, START).is_none(), "not at once");
    assert!(state.held_until(OF_KEY).is_some());
    assert!(send(&mut state, OF_KEY, LATER).is_some());
}

#[test]
fn a_caller_sends_its_write_to_the_shard_that_it_is_connected_to_or_not_at_all() {
    let mut state = state();
    let key: Arc<str> = KEY.into();
    let _accepted = put(&mut state, "1");
    assert!(state.take_small(&key, OTHER, 1 << 10, START).is_none());
    let attempt = state.take_small(&key, OF_KEY, 1 << 10, START).unwrap();
    state.sent(std::slice::from_ref(&attempt), 7, START);

    // The caller that tries again would send it over the connection that it has.
    let moved = redirected(BackendErrorKind::Moved, OTHER);
    answer(&mut state, &attempt, moved);
    assert!(state.take_small(&key, OF_KEY, 1 << 10, START).is_none());
    assert!(send(&mut state, OTHER, START).is_some());
}

#[test]
fn a_caller_does_not_send_what_waits_for_its_slot() {
    let mut state = state();
    let key: Arc<str> = KEY.into();
    let _accepted = put(&mut state, "1");
    let attempt = state.take_small(&key, OF_KEY, 1 << 10, START).unwrap();
    state.sent(std::slice::from_ref(&attempt), 7, START);
    let half = BackendError::new(BackendErrorKind::TryAgain, "on purpose");
    answer(&mut state, &attempt, Err(half));
    assert!(state.take_small(&key, OF_KEY, 1 << 10, START).is_none());
    assert!(send(&mut state, OF_KEY, START).is_none());
    let due = state.held_until(OF_KEY).unwrap();
    assert!(send(&mut state, OF_KEY, due).is_some());
}

/// Between two looks at the layout a server has sent the slot away, and it came back in silence,
/// or another request has learned that it did.
#[test]
fn a_slot_that_came_back_between_two_looks_at_the_layout_has_moved() {
    for is_sent_back in [false, true] {
        let (mut state, slot, key) = (state(), slot_of(KEY), Arc::from(KEY));
        state.cache.hold(&key);
        state.cache.keep_near(&key);
        for shard in [OF_KEY, OTHER] {
            state.cache.tracked(shard, Tracking::On, START);
        }
        let lay_out = |state: &mut State| state.lay_out([(slot, OF_KEY, OF_KEY)], START);
        assert!(!lay_out(&mut state), "nothing has moved");

        state.redirected(&redirect(BackendErrorKind::Moved, OTHER));
        let generation = state.cache.generation(KEY);
        state.read(&key, 1, generation, Some(Document::of("1".into())), START);
        let staleness = state.cache.staleness(KEY, START);
        assert_eq!(staleness, Some(Duration::ZERO));
        if is_sent_back {
            state.redirected(&redirect(BackendErrorKind::Moved, OF_KEY));
        }
        assert!(lay_out(&mut state));
        assert_eq!(state.map.shard_of(KEY), OF_KEY);
        assert!(state.cache.stale() > 0, "nobody notifies of its changes");
        assert!(!lay_out(&mut state), "it is known now");
    }
}

/// The shard is lost at which keys are in line that the map gives to another one.
#[test]
fn what_is_in_line_at_a_shard_that_is_lost_is_sent_where_it_belongs() {
    let mut state = state();
    let _accepted = put(&mut state, "1");
    state.redirected(&redirect(BackendErrorKind::Moved, OTHER));
    lose(&mut state, OF_KEY);
    assert_eq!(state.link_of(KEY), Link::Up);
    assert!(state.take_strayed());
    assert!(send(&mut state, OTHER, START).is_some());
}
