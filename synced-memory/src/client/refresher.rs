//! Backend → cache: reads that ask the backend, and slots that are kept current.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::backend::error::{BackendError, BackendErrorKind, Recovery};
use crate::backend::layout::Node;
use crate::backend::shards::Shard;
use crate::backend::{Expiry, Invalidation, KeyRead, LARGE_VALUE, ReadKind, SizeHint, WithExpiry};
use crate::base::backoff::{Jitter, doubled};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, Result};
use crate::base::events::event;
use crate::base::random;
use crate::cache::{Base, Generation, Ticket, Tracking};
use crate::client::large_reads::{LargeAnswer, LargeRead};
use crate::client::route::{Connection, Route};
use crate::client::shared::Shared;
use crate::client::state::State;
use crate::value::document::Document;

/// How many slots are read again in one request.
const BATCH: usize = 256;

/// After a reconnect each stale slot delays the first batch by up to this, so that many processes
/// with many slots do not ask at the same time.
const SPREAD: Duration = Duration::from_micros(20);
const LONGEST_SPREAD: Duration = Duration::from_millis(200);
const JITTER: Jitter = Jitter::FULL;

/// How often watched slots are read if the backend does not notify of changes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How much later a slot is read again that could not be read (the server is loading, or a change
/// of its value is in doubt, its hash slot is being moved): at first, and at most if that goes on.
const RETRY_DELAY: Duration = Duration::from_millis(20);
const LONGEST_RETRY_DELAY: Duration = Duration::from_millis(500);

/// What a read of some keys has brought, one for each: `Err` if the server rejects the read of this
/// key.
pub(crate) type SlotAnswers = Vec<Result<()>>;

/// What one request has brought.
#[derive(Debug, Default)]
pub(crate) struct ReadAnswers {
    pub(crate) answers: SlotAnswers,
    pub(crate) large: LargeAnswers,
    /// What another shard has.
    pub(crate) redirected: Vec<Redirected>,
}

/// A key that was not read, since another shard has it.
#[derive(Debug)]
pub(crate) struct Redirected {
    /// The index of the key.
    pub(crate) index: usize,
    /// The server to ask, if the other one has named it.
    pub(crate) node: Option<Node>,
    /// Its shard; `None` if nothing is known of it so far.
    pub(crate) to: Option<Shard>,
    /// It is to answer although it does not have the slot yet.
    pub(crate) asking: bool,
}

/// The answers of a read that come later, each with the index of its key.
#[derive(Debug, Default)]
pub(crate) struct LargeAnswers(Vec<(usize, oneshot::Receiver<LargeAnswer>)>);

impl LargeAnswers {
    /// Waits for the large values among the keys of a read. Returns what another shard has.
    ///
    /// # Errors
    ///
    /// The connection was lost.
    pub(crate) async fn arrive(
        self,
        shared: &Shared,
        keys: &[Arc<str>],
        answers: &mut SlotAnswers,
    ) -> Result<Vec<Redirected>, BackendError> {
        let mut redirected = Vec::new();
        for (index, answer) in self.0 {
            let lost = |_| BackendError::connection_lost("the connection was closed");
            match answer.await.map_err(lost)? {
                Err(error) if error.is_rejected() => {
                    let reason = Error::of_key(error.error_kind(), &keys[index], error);
                    answers[index] = Err(reason);
                }
                Err(error) if error.recovery() == Recovery::Redirect => {
                    redirected.push(Redirected::of(&mut shared.state(), index, &error));
                }
                // What else went wrong is in the status, and the slot shows what is known.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(redirected)
    }
}

impl Redirected {
    fn of(state: &mut State, index: usize, error: &BackendError) -> Self {
        let to = state.redirected(error);
        let redirect = error.redirect.as_deref();
        Self {
            index,
            node: redirect.map(|redirect| redirect.node.clone()),
            to: to.map(|(shard, _)| shard),
            asking: error.kind == BackendErrorKind::Ask,
        }
    }
}

/// Asks a shard for keys in one round trip, and keeps the answers in their slots. Large values are
/// asked for, and kept when they arrive. `asking`: the shard is to answer although it does not have
/// the slots yet.
pub(crate) async fn load(
    shared: &Shared,
    connection: &Connection,
    keys: &[Arc<str>],
    asking: bool,
) -> Result<ReadAnswers, BackendError> {
    loop {
        match load_once(shared, connection, keys, asking).await {
            // From here on no slot is to be tracked, so that the next try is not refused for that.
            Err(error) if error.recovery() == Recovery::ReadUntracked => {
                tracking_was_refused(shared, connection, error);
            }
            // From here on nothing is known of them.
            Err(error) if error.recovery() == Recovery::ReadWhole => {
                changes_were_refused(shared, connection, keys, &error);
            }
            answers => return answers,
        }
    }
}

async fn load_once(
    shared: &Shared,
    connection: &Connection,
    keys: &[Arc<str>],
    asking: bool,
) -> Result<ReadAnswers, BackendError> {
    let reads: Vec<_> = {
        let (state, mono) = (shared.state(), shared.clock.mono());
        keys.iter()
            .map(|key| read_of(&state, key, asking, mono))
            .collect()
    };
    let read = connection.session.read(&reads);
    let mut ticket = 0;
    let mut generations = Vec::new();
    let request = shared.issue(connection, read, |sent_as| {
        ticket = sent_as;
        let (mut state, mono) = (shared.state(), shared.clock.mono());
        for key in keys {
            state.cache.asked(key, ticket, mono);
        }
        let generation = |read| generation_of(&state, read);
        generations = reads.iter().map(generation).collect();
    });
    let answers = request.await?;
    let mono = shared.clock.mono();

    mutations_settled(shared, keys, ticket).await;

    let mut loaded = ReadAnswers::default();
    let mut state = shared.state();
    if let Some(ended) = connection.end_reason() {
        // What was sent since over another connection may be in this answer, whatever its ticket.
        return Err(ended.clone());
    }
    for (index, ((read, answer), generation)) in
        reads.iter().zip(answers).zip(generations).enumerate()
    {
        let key = &read.key;
        if let Err(error) = &answer {
            if error.recovery() == Recovery::Redirect {
                let redirected = Redirected::of(&mut state, index, error);
                loaded.redirected.push(redirected);
                loaded.answers.push(Ok(()));
                // It is read there; a near slot is, a little later.
                state.cache.was_not_read(key);
                continue;
            } else if error.recovery() == Recovery::ReadApart
                && let Some(route) = shared.route(connection.shard)
            {
                let answer = route.large_reads.ask(key, ticket, generation, asking);
                loaded.large.0.push((index, answer));
                loaded.answers.push(Ok(()));
                continue;
            }
        }
        let is_whole = read.known.is_none();
        let stored = store_answer(
            &mut state,
            key,
            (ticket, generation),
            is_whole,
            answer,
            mono,
        );
        loaded.answers.push(stored);
    }
    if state.cache.has_deferred(connection.shard) || !loaded.large.0.is_empty() {
        shared.wake_refresher();
    }
    Ok(loaded)
}

fn read_of(state: &State, key: &Arc<str>, asking: bool, mono: Monotonic) -> KeyRead {
    // What is read where its slot is not yet, is not tracked there.
    let kind = if state.cache.is_to_be_tracked(key) && !asking {
        ReadKind::Tracked
    } else {
        ReadKind::Through
    };
    KeyRead {
        key: Arc::clone(key),
        kind,
        size: size_hint(state.cache.base(key)),
        asking,
        known: state.known(key, kind, mono),
    }
}

/// The generation under which a read is sent now. That of a through read of a slot which is to be
/// tracked (it has only just become near) makes nothing current: its key is not tracked.
fn generation_of(state: &State, read: &KeyRead) -> Generation {
    match read.kind {
        ReadKind::Through if state.cache.is_to_be_tracked(&read.key) => Generation::default(),
        ReadKind::Through | ReadKind::Tracked => state.cache.generation(&read.key),
    }
}

fn size_hint(base: &Base) -> SizeHint {
    let length = base.stored.as_ref().map_or(0, Document::len);
    if base.is_known() && length <= LARGE_VALUE {
        SizeHint::Small
    } else {
        SizeHint::Unknown
    }
}

/// Reads a large value, and keeps it in its slot.
async fn read_large(shared: &Shared, route: &Route, connection: &Connection, read: LargeRead) {
    let key = Arc::clone(&read.key);
    let answer = connection.session.read_apart(&key, read.asking).await;
    let mono = shared.clock.mono();

    // It took effect at some time after its ticket: any mutation under way may be in it. Once that
    // was answered for, its answer is newer than this one.
    mutations_settled(shared, std::slice::from_ref(&key), Ticket::MAX).await;

    match &answer {
        Ok(_) => route.large_reads.arrived(&key),
        // It is read elsewhere.
        Err(error) if error.recovery() == Recovery::Redirect => {}
        Err(_) => route.large_reads.failed(&key, mono),
    }
    {
        let mut state = shared.state();
        let stored = answer.clone();
        // A refusal is told to those who wait, below, and to later readers by the slot.
        let sent_as = (read.ticket, read.generation);
        let _ = store_answer(&mut state, &key, sent_as, true, stored, mono);
        state.read_apart(&key, read.ticket);
    }
    read.answer(&answer);
}

/// Keeps the answer to the read `ticket`, which came at `mono`, in the slot of `key`. `is_whole`:
/// nothing was known of it.
fn store_answer(
    state: &mut State,
    key: &Arc<str>,
    (ticket, generation): (Ticket, Generation),
    is_whole: bool,
    answer: Result<WithExpiry, BackendError>,
    mono: Monotonic,
) -> Result<()> {
    match answer {
        Ok((stored, expiry)) => {
            let is_there = stored.is_some();
            state.read(key, ticket, generation, stored, mono);
            if is_whole {
                state.cache.was_read_whole(key, ticket, mono);
            } else {
                state.cache.was_read_in_part(key);
            }
            match expiry {
                Expiry::Tracked => {}
                Expiry::For(remaining) if is_there => {
                    state.cache.ends(key, ticket, Some(mono + remaining));
                }
                Expiry::For(_) | Expiry::Forever => state.cache.ends(key, ticket, None),
            }
            Ok(())
        }
        Err(error) => {
            let recovery = error.recovery();
            let error = Error::of_key(error.error_kind(), key, error);
            match recovery {
                Recovery::GiveUp => {
                    state.cache.was_refused(key, ticket, error.clone(), mono);
                    Err(error)
                }
                // The read is made again after a delay. Until then the slot shows what is known.
                Recovery::RetryNow
                | Recovery::Redirect
                | Recovery::ParkKey
                | Recovery::Confirm
                | Recovery::ReadApart
                | Recovery::ReadUntracked
                | Recovery::ReadWhole
                | Recovery::Pause
                | Recovery::PauseThenReconnect
                | Recovery::Reconnect
                | Recovery::ReconnectNow => {
                    state.cache.was_not_read(key);
                    state.failed(state.map.shard_of(key), error);
                    Ok(())
                }
            }
        }
    }
}

/// Ready when no mutation of these keys is under way that was sent before the request `ticket`: the
/// answer to such a mutation says whether the answer to the request contains it.
async fn mutations_settled(shared: &Shared, keys: &[Arc<str>], ticket: Ticket) {
    let settled: Vec<_> = {
        let mut state = shared.state();
        keys.iter()
            .filter_map(|key| state.when_settled(key, ticket))
            .collect()
    };
    for settled in settled {
        // A mutation that ends without an answer is over as well.
        let _ = shared.deferred_wakes.run(settled).await;
    }
}

/// Makes the backend notify of changes of the keys whose slots are read locally, if there may be
/// any. Returns whether it was asked to.
///
/// # Errors
///
/// The connection cannot be used. If the backend rejects tracking, near reads ask it each time.
pub(crate) async fn track(shared: &Shared, connection: &Connection) -> Result<bool, BackendError> {
    if !shared.is_tracking_wanted() {
        return Ok(false);
    }
    match connection.session.track().await {
        Ok(()) => {
            let mono = shared.clock.mono();
            let mut state = shared.state();
            state.cache.tracked(connection.shard, Tracking::On, mono);
        }
        Err(error) if error.is_rejected() => tracking_was_refused(shared, connection, error),
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// Records that the backend does not notify of changes, and says so once.
fn tracking_was_refused(shared: &Shared, connection: &Connection, error: BackendError) {
    let mono = shared.clock.mono();
    let is_to_be_said = {
        let mut state = shared.state();
        // Under the lock: a refusal over a connection that was given up says nothing about the next
        // one, whose tracking is recorded later.
        !connection.is_ended() && state.tracking_was_refused(connection.shard, mono)
    };
    if is_to_be_said {
        shared.emit(|target| {
            event!(
                WARN,
                target = &*target,
                error = %error,
                "the backend does not notify of changes: near reads ask it each time, and what is \
                 watched is read once a second"
            )
        });
    }
}

/// Records that the backend cannot say what has changed: of each key all is read. If it refuses
/// that for good, it is not asked again.
fn changes_were_refused(
    shared: &Shared,
    connection: &Connection,
    keys: &[Arc<str>],
    error: &BackendError,
) {
    {
        let mut state = shared.state();
        for key in keys {
            state.cache.forget_known(key);
        }
        if let Some(key) = keys.first()
            && !connection.is_ended()
        {
            state.command_refused(connection.shard, key, error);
        }
    }
    if error.kind == BackendErrorKind::ChangesWrong {
        let error = error.clone();
        shared.emit(|target| {
            event!(
                WARN,
                target = &*target,
                error = %error,
                "the log of changes beside a value is wrong: all of the value is read"
            )
        });
    }
}

/// Keeps the slots current that are read locally, until the connection cannot be used any more.
/// `has_asked`: whether the backend was asked to notify of changes.
pub(crate) async fn run(
    shared: &Shared,
    route: &Route,
    connection: &Connection,
    has_asked: bool,
) -> BackendError {
    match keep_current(shared, route, connection, has_asked).await {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// One read is under way at a time, and with it one read of each key: what changes meanwhile is
/// read again after it.
async fn keep_current(
    shared: &Shared,
    route: &Route,
    connection: &Connection,
    mut has_asked: bool,
) -> Result<Infallible, BackendError> {
    let shard = route.shard;
    let stale = shared.state().cache.queued_reads(shard);
    let mut spread = first_batch_delay(stale, &mut random::rng())
        .map(|delay| Box::pin(shared.clock.sleep(delay)));
    let (mut retry, mut retry_delay, mut last_retry) = (None, RETRY_DELAY, Monotonic::ZERO);
    let (mut invalidation, mut reading, mut reading_large) = (None, None, None);
    let mut asking = None;
    let mut poll = Some(Box::pin(shared.clock.sleep(Duration::ZERO)));
    loop {
        // Before the first read: the backend notifies of what changes after that.
        if !has_asked {
            has_asked = track(shared, connection).await?;
        }
        // A request for invalidations may cost something, and is of no use while nothing is
        // tracked.
        if invalidation.is_none() && has_asked {
            invalidation = Some(connection.session.invalidations());
        }
        if reading.is_none() && spread.is_none() {
            let mono = shared.clock.mono();
            let stale = shared.state().cache.take_stale(shard, BATCH, mono);
            reading = (!stale.is_empty()).then(|| Box::pin(read_again(shared, connection, stale)));
        }
        if reading_large.is_none() {
            let large = route.large_reads.take(shared.clock.mono());
            let read = |large| Box::pin(read_large(shared, route, connection, large));
            reading_large = large.map(read);
        }
        if asking.is_none() {
            let asked = shared.state().cache.take_asked(shard);
            asking = (!asked.is_empty()).then(|| Box::pin(read_asked(shared, connection, asked)));
        }
        if retry.is_none() && shared.state().cache.has_deferred(shard) {
            let since = shared.clock.mono().saturating_sub(last_retry);
            retry_delay = if since < RETRY_DELAY {
                // It has just been tried in vain.
                doubled(retry_delay, 1, LONGEST_RETRY_DELAY)
            } else {
                RETRY_DELAY
            };
            retry = Some(Box::pin(shared.clock.sleep(retry_delay)));
        }

        tokio::select! {
            // Invalidations go first: they may say that an answer is stale.
            biased;
            changed = take_ready(&mut invalidation) => {
                handle_invalidation(shared, shard, changed?);
            }
            read = take_ready(&mut reading) => read?,
            read = take_ready(&mut asking) => read?,
            () = take_ready(&mut reading_large) => {}
            () = large_read_due(shared, route), if reading_large.is_none() => {}
            () = reread_due(shared, shard), if reading.is_none() && spread.is_none() => {}
            () = take_ready(&mut spread) => {}
            () = take_ready(&mut retry) => {
                last_retry = shared.clock.mono();
                shared.state().cache.queue_deferred(shard);
            }
            () = route.refresher_wake.notified() => {}
            () = take_ready(&mut poll) => {
                // It looks at every slot. Without this, none of them is near.
                if has_asked {
                    let (mut state, mono) = (shared.state(), shared.clock.mono());
                    state.cache.queue_polls(shard);
                    state.cache.queue_unchecked(shard, mono);
                }
                poll = Some(Box::pin(shared.clock.sleep(POLL_INTERVAL)));
            }
        }
    }
}

/// How long the first batch waits after a reconnect, given how many slots are to be read; `None`
/// if there are none.
fn first_batch_delay(stale: usize, random: &mut fastrand::Rng) -> Option<Duration> {
    let stale = u32::try_from(stale).unwrap_or(u32::MAX);
    let longest = SPREAD.saturating_mul(stale).min(LONGEST_SPREAD);
    (stale > 0).then(|| JITTER.draw(longest, random))
}

/// Ready with the output of the future, which is then removed; never ready if there is none.
async fn take_ready<F: Future + ?Sized>(slot: &mut Option<Pin<Box<F>>>) -> F::Output {
    let Some(future) = slot else {
        return pending().await;
    };
    let output = future.as_mut().await;
    *slot = None;
    output
}

/// Ready when a large value that could not be read may be tried again.
async fn large_read_due(shared: &Shared, route: &Route) {
    due(shared, route.large_reads.next()).await;
}

/// Ready when a slot may be read again that was read too often.
async fn reread_due(shared: &Shared, shard: Shard) {
    let next = shared.state().cache.next_paced(shard);
    due(shared, next).await;
}

async fn due(shared: &Shared, due: Option<Monotonic>) {
    match due {
        Some(due) => {
            let wait = due.saturating_sub(shared.clock.mono());
            shared.clock.sleep(wait).await;
        }
        None => pending().await,
    }
}

async fn read_again(
    shared: &Shared,
    connection: &Connection,
    keys: Vec<Arc<str>>,
) -> Result<(), BackendError> {
    // Large values are stored when they arrive. Nothing here waits for them.
    let loaded = load(shared, connection, &keys, false).await;
    let (mut state, mono) = (shared.state(), shared.clock.mono());
    state.cache.stale_were_read(&keys, mono);
    match loaded {
        Err(error) if error.is_connection_lost() => Err(error),
        Err(_) => {
            for key in &keys {
                state.cache.was_not_read(key);
            }
            Ok(())
        }
        // The slot of a key that was rejected shows the error to its readers. One that is at
        // another shard is read there a little later; and as long as that does not have its slot,
        // each time it is read, what is there is shown, and is not current.
        Ok(loaded) => {
            let asked = loaded
                .redirected
                .iter()
                .filter(|redirected| redirected.asking);
            for (shard, at) in asked.filter_map(|asked| Some((asked.to?, asked.index))) {
                state.cache.ask_at(shard, &keys[at]);
            }
            drop(state);
            if !loaded.redirected.is_empty() {
                shared.wake_refresher();
            }
            Ok(())
        }
    }
}

/// Shows what a shard has of slots that it does not have yet.
async fn read_asked(
    shared: &Shared,
    connection: &Connection,
    keys: Vec<Arc<str>>,
) -> Result<(), BackendError> {
    match load(shared, connection, &keys, true).await {
        Err(error) if error.is_connection_lost() => Err(error),
        // They are read again in any case.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn handle_invalidation(shared: &Shared, shard: Shard, invalidation: Invalidation) {
    let mono = shared.clock.mono();
    let mut state = shared.state();
    match invalidation {
        Invalidation::All => state.cache.all_changed(shard, mono),
        Invalidation::Keys(keys) => keys
            .iter()
            .for_each(|key| state.cache.invalidated(key, mono)),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::backend::Backend;
    use crate::backend::process::ProcessBackend;
    use crate::base::settings::Settings;

    #[test]
    fn a_late_refusal_over_a_connection_that_was_given_up_says_nothing_about_the_next_one() {
        let backend = ProcessBackend::open("", Duration::from_secs(60));
        let shared = Shared::new(Settings::default(), "test", None).unwrap();
        let now = Monotonic::ZERO;
        let connect = || {
            let session = backend.connect(&Node::only()).now_or_never();
            Connection::new(session.unwrap().unwrap(), Shard::FIRST)
        };
        let refused = || BackendError::rejected("on purpose");
        let (given_up, next) = (connect(), connect());
        given_up.end(BackendError::connection_lost("on purpose"));
        shared
            .state()
            .cache
            .tracked(Shard::FIRST, Tracking::On, now);

        tracking_was_refused(&shared, &given_up, refused());
        assert_eq!(shared.state().cache.tracking(now), Tracking::On);
        tracking_was_refused(&shared, &next, refused());
        assert_eq!(shared.state().cache.tracking(now), Tracking::Refused);
    }

    #[test]
    fn the_first_reads_of_many_processes_after_a_reconnect_are_spread() {
        assert_eq!(first_batch_delay(0, &mut random::rng()), None);
        for (stale, longest) in [(100, 100 * SPREAD), (usize::MAX, LONGEST_SPREAD)] {
            let delay = |seed| first_batch_delay(stale, &mut fastrand::Rng::with_seed(seed));
            let delays: Vec<Duration> = (0..100).filter_map(delay).collect();
            let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
            assert!(
                *least < longest / 4 && *most > longest * 3 / 4 && *most <= longest,
                "{stale}: {least:?} to {most:?}"
            );
        }
    }
}
