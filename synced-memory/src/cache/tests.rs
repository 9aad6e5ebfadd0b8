use super::*;
use crate::backend::shards::Shard;
use crate::base::error::Error;

fn base(stored: &'static str, ticket: Ticket) -> Base {
    Base::new(Some(Bytes::from_static(stored.as_bytes())), ticket, None)
}

#[test]
fn an_answer_to_an_earlier_request_does_not_replace_one_to_a_later_request() {
    let mut cache = Cache::default();
    let key: Arc<str> = "k".into();
    let version = cache.hold(&key);
    cache.answered(&key, base("new", 2));
    cache.answered(&key, base("old", 1));
    assert_eq!(
        cache.base(&key).at(Monotonic::ZERO).unwrap().to_bytes(),
        "new"
    );
    assert_eq!(version.load(Ordering::Relaxed), 1);
}

#[test]
fn the_version_stays_while_the_answers_stay_the_same() {
    let mut cache = Cache::default();
    let key: Arc<str> = "k".into();
    let version = cache.hold(&key);
    for ticket in 1..5 {
        cache.answered(&key, base("same", ticket));
    }
    assert_eq!(version.load(Ordering::Relaxed), 1);
}

#[test]
fn a_slot_goes_with_its_last_holder() {
    let mut cache = Cache::default();
    let key: Arc<str> = "k".into();
    cache.hold(&key);
    cache.hold(&key);
    cache.answered(&key, base("a", 1));
    cache.release(&key);
    assert!(cache.base(&key).is_known());
    cache.release(&key);
    assert!(!cache.base(&key).is_known());
}

/// A cache whose changes are tracked, with a near slot.
fn near() -> (Cache, Arc<str>) {
    let (mut cache, key) = (Cache::default(), Arc::from("k"));
    cache.hold(&key);
    cache.tracked(Shard::FIRST, Tracking::On, Monotonic::ZERO);
    cache.keep_near(&key);
    (cache, key)
}

fn read(
    cache: &mut Cache,
    key: &str,
    stored: &'static str,
    ticket: Ticket,
    generation: Generation,
) {
    let has_changed = cache.answered(key, base(stored, ticket));
    cache.was_read(key, generation, has_changed, Monotonic::ZERO);
}

fn is_current(cache: &Cache, key: &str) -> bool {
    cache.staleness(key, Duration::from_secs(9)) == Some(Duration::ZERO)
}

#[test]
fn what_was_read_before_a_slot_became_near_is_asked_for_again() {
    let (mut cache, key) = (Cache::default(), Arc::from("k"));
    cache.hold(&key);
    cache.tracked(Shard::FIRST, Tracking::On, Monotonic::ZERO);
    let before = cache.generation(&key);
    read(&mut cache, &key, "old", 1, before);
    cache.keep_near(&key);
    assert!(!cache.is_local(&key, true) && !is_current(&cache, &key));
    // One that was under way.
    read(&mut cache, &key, "older", 2, before);
    assert!(!cache.is_local(&key, true) && !is_current(&cache, &key));
    assert!(
        cache.is_local(&key, false),
        "it is all there is while nobody can be asked"
    );
    let now = cache.generation(&key);
    read(&mut cache, &key, "new", 3, now);
    assert!(cache.is_local(&key, true) && is_current(&cache, &key));
}

#[test]
fn a_reply_during_which_the_key_changed_is_visible_but_not_current() {
    let (mut cache, key) = near();
    let sent = cache.generation(&key);
    cache.invalidated(&key, Monotonic::ZERO);
    cache.invalidated(&key, Monotonic::ZERO);
    read(&mut cache, &key, "shown", 1, sent);
    assert_eq!(
        cache.base(&key).at(Monotonic::ZERO).unwrap().to_bytes(),
        "shown"
    );
    assert!(cache.is_local(&key, true) && !is_current(&cache, &key));
    assert_eq!(
        cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO),
        [Arc::clone(&key)],
        "it is read again, once"
    );
    let sent = cache.generation(&key);
    read(&mut cache, &key, "new", 2, sent);
    assert!(
        is_current(&cache, &key)
            && cache
                .take_stale(Shard::FIRST, 9, Monotonic::ZERO)
                .is_empty()
    );
}

#[test]
fn a_late_reply_to_an_earlier_read_says_nothing_against_a_later_one() {
    let (mut cache, key) = near();
    let early = cache.generation(&key);
    cache.invalidated(&key, Monotonic::ZERO);
    cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO);
    let late = cache.generation(&key);
    read(&mut cache, &key, "new", 2, late);
    read(&mut cache, &key, "old", 1, early);
    assert_eq!(
        cache.base(&key).at(Monotonic::ZERO).unwrap().to_bytes(),
        "new"
    );
    assert!(is_current(&cache, &key));
}

/// Nobody cared for the invalidations in between.
#[test]
fn a_reply_to_a_read_of_a_slot_that_is_gone_says_nothing_of_one_that_was_made_since() {
    let (mut cache, key) = near();
    cache.invalidated(&key, Monotonic::ZERO);
    cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO);
    let sent = cache.generation(&key);
    cache.stop_near(&key);
    assert!(cache.release(&key));
    cache.invalidated(&key, Monotonic::ZERO);
    cache.hold(&key);
    cache.keep_near(&key);
    read(&mut cache, &key, "old", 1, sent);
    assert!(
        !cache.is_local(&key, true) && !is_current(&cache, &key),
        "its readers ask"
    );
    // No matter how often it has changed by then.
    cache.invalidated(&key, Monotonic::ZERO);
    assert_ne!(cache.generation(&key), sent);
}

#[test]
fn after_a_reconnect_every_slot_is_read_again_before_it_is_current() {
    let (mut cache, key) = near();
    let before = cache.generation(&key);
    read(&mut cache, &key, "old", 1, before);
    cache.tracked(Shard::FIRST, Tracking::Off, Monotonic::ZERO);
    assert!(!is_current(&cache, &key) && cache.is_local(&key, false));
    assert_eq!(cache.stale(), 1);
    cache.tracked(Shard::FIRST, Tracking::On, Monotonic::ZERO);
    // A late reply over the connection that was lost.
    read(&mut cache, &key, "late", 2, before);
    assert!(!is_current(&cache, &key) && cache.is_local(&key, true));
    assert_eq!(
        cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO),
        [Arc::clone(&key)]
    );
    let now = cache.generation(&key);
    read(&mut cache, &key, "new", 3, now);
    assert!(is_current(&cache, &key) && cache.stale() == 0);
}

#[test]
fn what_could_not_be_read_is_read_again_later_and_what_is_refused_is_asked_for_by_its_readers() {
    let (mut cache, key) = near();
    let now = cache.generation(&key);
    read(&mut cache, &key, "value", 1, now);
    cache.invalidated(&key, Monotonic::ZERO);
    cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO);
    cache.was_not_read(&key);
    cache.was_not_read(&key);
    assert!(
        cache
            .take_stale(Shard::FIRST, 9, Monotonic::ZERO)
            .is_empty()
            && cache.has_deferred(Shard::FIRST)
    );
    cache.queue_deferred(Shard::FIRST);
    assert_eq!(
        cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO),
        [Arc::clone(&key)]
    );
    cache.was_refused(&key, 1, Error::closed(), Monotonic::ZERO);
    assert!(!cache.is_local(&key, true));
    let now = cache.generation(&key);
    read(&mut cache, &key, "again", 2, now);
    assert!(cache.is_local(&key, true) && is_current(&cache, &key));
}

#[test]
fn a_watched_slot_that_is_refused_is_read_again_at_each_poll_until_it_is_answered() {
    let ((mut cache, key), watch) = (near(), Arc::new(Signal::default()));
    let refuse = |cache: &mut Cache, ticket| {
        cache.was_refused(&key, ticket, Error::closed(), Monotonic::ZERO);
    };
    cache.watch(&key, &watch);
    assert_eq!(cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO).len(), 1);
    for ticket in 1..4 {
        // By the refresher, and by readers who ask.
        refuse(&mut cache, ticket);
        refuse(&mut cache, ticket);
        assert!(
            cache
                .take_stale(Shard::FIRST, 9, Monotonic::ZERO)
                .is_empty()
        );
        cache.queue_polls(Shard::FIRST);
        assert_eq!(
            cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO),
            [Arc::clone(&key)]
        );
    }
    // An own write was answered in between: what is refused is still not current.
    cache.answered(&key, base("own", 6));
    refuse(&mut cache, 5);
    assert!(cache.refusal(&key).is_none() && !cache.is_local(&key, true));
    cache.queue_polls(Shard::FIRST);
    assert_eq!(cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO).len(), 1);
    let now = cache.generation(&key);
    read(&mut cache, &key, "value", 7, now);
    cache.queue_polls(Shard::FIRST);
    assert!(
        is_current(&cache, &key)
            && cache
                .take_stale(Shard::FIRST, 9, Monotonic::ZERO)
                .is_empty()
    );

    cache.unwatch(&key, &watch);
    refuse(&mut cache, 8);
    cache.queue_polls(Shard::FIRST);
    assert!(
        cache
            .take_stale(Shard::FIRST, 9, Monotonic::ZERO)
            .is_empty(),
        "its readers ask"
    );
}

#[test]
fn watches_that_come_and_go_leave_nothing_in_line_and_a_key_is_read_once() {
    let (mut cache, key) = (Cache::default(), Arc::from("k"));
    for _ in 0..10_000 {
        let watch = Arc::default();
        cache.hold(&key);
        cache.keep_near(&key);
        cache.watch(&key, &watch);
        cache.unwatch(&key, &watch);
        cache.stop_near(&key);
        cache.release(&key);
    }
    assert!(
        cache.queued_reads(Shard::FIRST) < 100,
        "{}",
        cache.queued_reads(Shard::FIRST)
    );
    cache.hold(&key);
    cache.keep_near(&key);
    cache.watch(&key, &Arc::default());
    cache.tracked(Shard::FIRST, Tracking::On, Monotonic::ZERO);
    assert_eq!(cache.take_stale(Shard::FIRST, 256, Monotonic::ZERO), [key]);
    assert_eq!(cache.queued_reads(Shard::FIRST), 0);
}

#[test]
fn an_expiry_is_visible_when_it_has_come_and_later_estimates_do_not_move_it() {
    let (mut cache, key) = near();
    let version = cache.hold(&key);
    let now = cache.generation(&key);
    read(&mut cache, &key, "value", 1, now);
    let before = version.load(Ordering::Relaxed);
    let second = Duration::from_secs(1);
    cache.ends(&key, 1, Some(second));
    assert!(
        version.load(Ordering::Relaxed) > before,
        "its readers learn when it expires"
    );
    let before = version.load(Ordering::Relaxed);
    cache.ends(&key, 1, Some(second + SAME_EXPIRY / 2));
    assert_eq!(
        (version.load(Ordering::Relaxed), cache.base(&key).expires),
        (before, Some(second))
    );
    assert!(cache.base(&key).at(second).is_none());
    cache.ends(&key, 0, Some(2 * second));
    assert!(
        cache.base(&key).at(second).is_none(),
        "that was about another answer"
    );
    cache.ends(&key, 1, None);
    assert!(cache.base(&key).at(second).is_some());
}

#[test]
fn whoever_watches_a_slot_is_woken_once_until_it_looks() {
    let ((mut cache, key), watch) = (near(), Arc::new(Signal::default()));
    cache.take_raised();
    cache.watch(&key, &watch);
    assert_eq!(
        cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO),
        [Arc::clone(&key)],
        "it is read even if nobody else asks"
    );
    let now = cache.generation(&key);
    read(&mut cache, &key, "value", 1, now);
    cache.touch(&key);
    assert_eq!(cache.take_raised().len(), 1);
    cache.touch(&key);
    assert!(cache.take_raised().is_empty(), "it was woken already");
    let context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(watch.poll(&context).is_ready());
    cache.answered(&key, base("other", 2));
    assert_eq!(cache.take_raised().len(), 1);
    cache.unwatch(&key, &watch);
    assert!(watch.poll(&context).is_ready());
    cache.touch(&key);
    assert!(cache.take_raised().is_empty());
    assert_eq!(Arc::strong_count(&watch), 1, "nothing holds it any more");
}

#[test]
fn a_slot_is_kept_current_until_the_last_one_that_wanted_it_is_gone() {
    let (mut cache, key) = near();
    cache.hold(&key);
    cache.keep_near(&key);
    let now = cache.generation(&key);
    read(&mut cache, &key, "value", 1, now);
    cache.stop_near(&key);
    cache.invalidated(&key, Monotonic::ZERO);
    assert_eq!(
        cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO),
        [Arc::clone(&key)]
    );
    cache.invalidated(&key, Monotonic::ZERO);
    cache.stop_near(&key);
    assert!(
        cache
            .take_stale(Shard::FIRST, 9, Monotonic::ZERO)
            .is_empty(),
        "nobody wants it any more"
    );
    cache.invalidated(&key, Monotonic::ZERO);
    assert!(
        cache
            .take_stale(Shard::FIRST, 9, Monotonic::ZERO)
            .is_empty()
            && !cache.is_local(&key, true)
            && cache.stale() == 0
    );
    // A later holder begins anew.
    cache.keep_near(&key);
    assert!(!cache.is_local(&key, true) && !cache.is_cell_visible(&key, true));
    read(&mut cache, &key, "late", 2, now);
    assert!(!cache.is_local(&key, true) && !cache.is_cell_visible(&key, true));
    let now = cache.generation(&key);
    read(&mut cache, &key, "new", 3, now);
    assert!(cache.is_local(&key, true) && cache.is_cell_visible(&key, true));
}

#[test]
fn while_changes_are_not_tracked_watched_slots_are_read_again_and_no_others() {
    let ((mut cache, key), watch, unwatched) =
        (near(), Arc::new(Signal::default()), Arc::from("other"));
    cache.hold(&unwatched);
    cache.keep_near(&unwatched);
    cache.watch(&key, &watch);
    cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO);
    cache.queue_polls(Shard::FIRST);
    assert!(
        cache
            .take_stale(Shard::FIRST, 9, Monotonic::ZERO)
            .is_empty()
    );
    cache.tracked(Shard::FIRST, Tracking::Off, Monotonic::ZERO);
    cache.queue_polls(Shard::FIRST);
    cache.queue_polls(Shard::FIRST);
    assert_eq!(
        cache.take_stale(Shard::FIRST, 9, Monotonic::ZERO),
        [Arc::clone(&key)]
    );
    let now = cache.generation(&key);
    read(&mut cache, &key, "value", 1, now);
    assert!(cache.is_cell_visible(&key, true) && !cache.is_local(&key, true));
}

const SECOND: Monotonic = Duration::from_secs(1);

/// Another process writes `stored`, and what is to be read again by then is read.
fn foreign_write(cache: &mut Cache, key: &Arc<str>, stored: &'static str, mono: Monotonic) -> bool {
    cache.invalidated(key, mono);
    let stale = cache.take_stale(Shard::FIRST, 9, mono);
    let generation = cache.generation(key);
    for key in &stale {
        let ticket = cache.base(key).ticket + 1;
        let has_changed = cache.answered(key, base(stored, ticket));
        cache.was_read(key, generation, has_changed, mono);
    }
    cache.stale_were_read(&stale, mono);
    !stale.is_empty()
}

#[test]
fn a_slot_that_nobody_looks_at_is_left_to_its_next_reader_unless_it_is_watched() {
    let ((mut cache, key), watch) = (near(), Arc::new(Signal::default()));
    let version = cache.hold(&key);
    let now = cache.generation(&key);
    read(&mut cache, &key, "0", 1, now);
    cache.used(&key);

    assert!(foreign_write(&mut cache, &key, "1", SECOND));
    assert!(foreign_write(&mut cache, &key, "2", SECOND + SECOND / 2));
    assert!(cache.is_local(&key, true) && is_current(&cache, &key));
    let before = version.load(Ordering::Relaxed);
    assert!(!foreign_write(&mut cache, &key, "3", 2 * SECOND));
    assert!(
        version.load(Ordering::Relaxed) > before,
        "who has read it looks again"
    );
    assert!(!cache.is_local(&key, true), "and asks");
    assert!(cache.is_local(&key, false), "if there is somebody to ask");
    assert_eq!(cache.stale(), 0);
    assert_eq!(cache.staleness(&key, 5 * SECOND), Some(3 * SECOND));

    // Its next reader, and what follows.
    let now = cache.generation(&key);
    read(&mut cache, &key, "4", 9, now);
    cache.used(&key);
    assert!(cache.is_local(&key, true) && is_current(&cache, &key));
    assert!(foreign_write(&mut cache, &key, "5", 9 * SECOND));

    // While it is left to its reader, it becomes watched.
    assert!(!foreign_write(&mut cache, &key, "6", 20 * SECOND));
    cache.watch(&key, &watch);
    assert_eq!(
        cache.take_stale(Shard::FIRST, 9, 20 * SECOND),
        [Arc::clone(&key)]
    );
    let now = cache.generation(&key);
    read(&mut cache, &key, "7", 19, now);
    assert!(foreign_write(&mut cache, &key, "8", 40 * SECOND));
}

#[test]
fn after_a_reconnect_only_slots_that_somebody_looks_at_are_read_again() {
    let (mut cache, key) = near();
    let now = cache.generation(&key);
    read(&mut cache, &key, "0", 1, now);
    for is_used in [true, false] {
        cache.used(&key);
        assert!(foreign_write(
            &mut cache,
            &key,
            ["1", "2"][usize::from(is_used)],
            SECOND
        ));
        if is_used {
            cache.used(&key);
        }
        cache.tracked(Shard::FIRST, Tracking::Off, 5 * SECOND);
        assert_eq!(cache.stale(), 1);
        cache.tracked(Shard::FIRST, Tracking::On, 5 * SECOND);
        assert_eq!(
            cache.take_stale(Shard::FIRST, 9, 5 * SECOND).len(),
            usize::from(is_used)
        );
        assert_eq!(cache.stale(), usize::from(is_used));
        assert_eq!(cache.is_local(&key, true), is_used);
        let (now, ticket) = (cache.generation(&key), cache.base(&key).ticket + 1);
        read(&mut cache, &key, "current", ticket, now);
        assert_eq!(cache.stale(), 0);
    }
}

#[test]
fn an_answer_to_a_through_read_makes_no_near_slot_current_or_visible() {
    let (mut cache, key) = near();
    assert!(cache.is_to_be_tracked(&key));
    read(&mut cache, &key, "through", 1, Generation::default());
    assert!(!cache.is_local(&key, true) && !is_current(&cache, &key));
    let now = cache.generation(&key);
    read(&mut cache, &key, "tracked", 2, now);
    assert!(cache.is_local(&key, true) && is_current(&cache, &key));
    cache.tracked(Shard::FIRST, Tracking::Refused, SECOND);
    assert!(!cache.is_to_be_tracked(&key) && !cache.is_local(&key, true));
}

#[test]
fn a_slot_that_may_not_be_read_yet_keeps_no_other_slot_from_being_read() {
    let ((mut cache, hot), calm) = (near(), Arc::from("calm"));
    cache.hold(&calm);
    cache.keep_near(&calm);
    // It changes while it is being read, and again.
    cache.invalidated(&hot, SECOND);
    for _ in 0..2 {
        assert_eq!(
            cache.take_stale(Shard::FIRST, 9, SECOND),
            [Arc::clone(&hot)]
        );
        cache.invalidated(&hot, SECOND);
        cache.stale_were_read(&[Arc::clone(&hot)], SECOND + SECOND / 2);
    }
    cache.invalidated(&calm, SECOND + SECOND / 2);

    let stale = cache.take_stale(Shard::FIRST, 1, SECOND + SECOND / 2);
    assert_eq!(stale, [Arc::clone(&calm)]);
    let due = cache.next_paced(Shard::FIRST).unwrap();
    assert_eq!(due, 2 * SECOND, "twice what the read took");
    assert!(cache.take_stale(Shard::FIRST, 9, 7 * SECOND / 4).is_empty());
    assert_eq!(cache.take_stale(Shard::FIRST, 9, due), [Arc::clone(&hot)]);
    assert_eq!(cache.next_paced(Shard::FIRST), None);
}

#[test]
fn keys_that_are_reported_without_a_change_are_said_once_and_read_less_and_less_often() {
    let (mut cache, key) = near();
    let now = cache.generation(&key);
    read(&mut cache, &key, "same", 1, now);
    let (mut reads, mut alarms, mut mono) = (0, 0, SECOND);
    while mono < 11 * SECOND {
        cache.used(&key);
        if is_current(&cache, &key) {
            reads += u32::from(foreign_write(&mut cache, &key, "same", mono));
        } else if !cache.take_stale(Shard::FIRST, 9, mono).is_empty() {
            let (now, ticket) = (cache.generation(&key), cache.base(&key).ticket + 1);
            let has_changed = cache.answered(&key, base("same", ticket));
            cache.was_read(&key, now, has_changed, mono);
            cache.stale_were_read(&[Arc::clone(&key)], mono);
            reads += 1;
        }
        alarms += u32::from(cache.take_overflow_alarm("k"));
        mono += SECOND / 1000;
    }
    assert_eq!(cache.tracking(mono), Tracking::Overflowing);
    assert!((10..30).contains(&reads), "{reads}");
    assert_eq!(alarms, 1);
    assert_eq!(cache.tracking(mono + 9 * SECOND), Tracking::On);
}
