//! Writes that may be what breaks the connection: tried alone, and then apart from the rest.
//!
//! A write that is too large for the server or for something on the way makes it close the
//! connection, whatever else is under way. Who is to blame is not known, so that after [`BREAKS`]
//! breaks in a row with writes under way the largest of these is sent alone. If it passes, it was
//! not the cause. If the connection breaks again, its key is tried less and less often, each time
//! alone, and the others go on meanwhile (rule 16).

use std::sync::Arc;
use std::time::Duration;

use super::{LARGE, State};
use crate::backend::commit::Attempt;
use crate::backend::shards::Shard;
use crate::base::backoff::KeyPauses;
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::value::document::Document;

/// After so many breaks one write is sent alone.
const BREAKS: u32 = 2;

/// A write that is not [`LARGE`] is hardly ever the cause: it is the line that breaks again and
/// again. Its key pauses for a second at most, so that it gets through once the line holds.
const LONGEST_IF_SMALL: Duration = Duration::from_secs(1);

/// What is known of who breaks connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionBreaks {
    /// How many connections in a row broke with writes under way. An outbox that runs empty ends
    /// the row, and so does a verdict on one of the writes.
    in_a_row: u32,
    /// The key whose head is sent next, alone, or is being sent so.
    suspect: Option<Arc<str>>,
    /// The keys whose heads broke a connection alone.
    pauses: KeyPauses,
}

impl ConnectionBreaks {
    /// Whether nothing is known.
    fn is_none(&self) -> bool {
        self.in_a_row == 0 && self.suspect.is_none() && self.pauses.is_empty()
    }
}

impl State {
    /// The connection to a shard broke with the heads of these keys under way. Returns the key that
    /// did it, if that is known, with how long it is not tried.
    pub(super) fn connection_broke(
        &mut self,
        shard: Shard,
        under_way: &[Arc<str>],
        mono: Monotonic,
    ) -> Option<(Arc<str>, Duration)> {
        if under_way.is_empty() {
            return None;
        }
        let suspect = self.shard_mut(shard).breaks.suspect.take();

        if let Some(suspect) = suspect.filter(|suspect| under_way == [Arc::clone(suspect)]) {
            let is_small = self.size_to_send(&suspect) <= LARGE;
            let longest = if is_small {
                LONGEST_IF_SMALL
            } else {
                KeyPauses::LONGEST
            };
            let breaks = &mut self.shard_mut(shard).breaks;
            breaks.in_a_row = 0;
            let pause = breaks.pauses.failed(&suspect, longest, mono);
            return Some((suspect, pause));
        }
        let largest = under_way.iter().max_by_key(|key| self.size_to_send(key));
        let breaks = &mut self.shard_mut(shard).breaks;
        breaks.in_a_row += 1;
        if breaks.in_a_row >= BREAKS {
            breaks.suspect = largest.cloned();
        }
        None
    }

    /// About how many bytes the head of `key` is sent as.
    pub(super) fn size_to_send(&self, key: &str) -> usize {
        let base = self.cache.base(key).stored.as_ref();
        self.outbox.head(key).map_or(0, |head| {
            let of_base =
                base.filter(|_| head.write.mutation.is_some() && !self.is_sent_as_part(key, head));
            head.write.size() + of_base.map_or(0, Document::len)
        })
    }

    /// The head of `key` was answered for by a shard: it breaks no connection there.
    pub(super) fn connection_held(&mut self, shard: Shard, key: &str) {
        let breaks = &mut self.shard_mut(shard).breaks;
        let has_paused = breaks.pauses.passed(key);
        if breaks.suspect.as_deref() == Some(key) {
            breaks.suspect = None;
            breaks.in_a_row = 0;
        }
        if has_paused {
            self.outbox.end_parking(key);
        }
    }

    /// Whether nothing but the suspect may be sent to the shard.
    pub(super) fn is_trial(&self, shard: Shard) -> bool {
        self.breaks(shard).suspect.is_some()
    }

    /// Until when the head of `key` is not sent, since it broke a connection alone.
    pub(super) fn paused_until(&self, shard: Shard, key: &str) -> Option<Monotonic> {
        self.breaks(shard).pauses.until(key)
    }

    /// The key whose pause is over is sent next, alone.
    pub(super) fn suspect(&mut self, shard: Shard, key: &Arc<str>) {
        self.shard_mut(shard).breaks.suspect = Some(Arc::clone(key));
    }

    /// The attempt of the suspect, if there is one and nothing else is under way.
    pub(super) fn suspects_attempt(&mut self, shard: Shard, mono: Monotonic) -> Option<Attempt> {
        let suspect = self.breaks(shard).suspect.clone()?;
        if self.outbox.is_any_drawn(shard) {
            return None;
        }
        let is_here = self.outbox.shard_of_head(&suspect) == shard;
        let is_ready = is_here && self.outbox.take_ready(&suspect);
        let attempt = is_ready.then(|| self.attempt(Arc::clone(&suspect), shard, mono));
        let attempt = attempt.flatten();
        if attempt.is_none() {
            // It was settled or withdrawn meanwhile, or has gone to another shard.
            self.connection_held(shard, &suspect);
        }
        attempt
    }

    /// Nothing is queued for the shard: the breaks before say nothing of what comes.
    pub(super) fn forget_breaks(&mut self, shard: Shard) {
        if !self.breaks(shard).is_none() && self.outbox.keys_of(shard).next().is_none() {
            self.shard_mut(shard).breaks = ConnectionBreaks::default();
        }
    }
}

/// Why a write that breaks connections is not sent.
pub(super) fn broke_alone(key: &str, bytes: usize, pause: Duration, cause: &Error) -> Error {
    let what = format!(
        "the connection broke each time a write of {bytes} bytes was on its way, at last alone; it \
         is tried again in {pause:?}, apart from the others: {cause}"
    );
    Error::of_key(ErrorKind::Unavailable, key, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::commit::{Outcome, Sequence};
    use crate::base::clock::Moment;
    use crate::base::policy::WritePolicy;
    use crate::client::state::Request;
    use crate::value::envelope::Unsealed;

    const START: Monotonic = Duration::from_secs(1_000);

    /// What is queued has these lengths.
    fn state(lengths: &[(&str, usize)]) -> State {
        let mut state = State::new(1 << 20, Duration::MAX / 4, fastrand::Rng::with_seed(1));
        state.connected(Shard::FIRST, None);
        for (key, length) in lengths {
            write(&mut state, key, *length);
        }
        state
    }

    fn write(state: &mut State, key: &str, length: usize) {
        let at = Moment {
            mono: START,
            now: 1_700_000_000_000_000_000,
        };
        let value = Unsealed::of_text(&format!("\"{}\"", "x".repeat(length)));
        let request = Request::Put { value, ttl: None };
        let policy = WritePolicy::Behind;
        state.write(&key.into(), request, policy, at).unwrap();
    }

    /// Sends the next batch, and returns it.
    fn send(state: &mut State, mono: Monotonic) -> Vec<Attempt> {
        let batch = state.next_batch(Shard::FIRST, 512, 1 << 20, mono);
        state.sent(&batch, 7, mono);
        batch
    }

    fn keys(batch: &[Attempt]) -> Vec<&str> {
        let mut keys: Vec<_> = batch.iter().map(|attempt| &*attempt.key).collect();
        keys.sort_unstable();
        keys
    }

    fn lose(state: &mut State, mono: Monotonic) -> Option<String> {
        let error = Error::new(ErrorKind::Unavailable, "on purpose");
        let broken_by = state.disconnected(Shard::FIRST, &error, mono);
        state.connected(Shard::FIRST, None);
        broken_by.map(|error| error.to_string())
    }

    fn answer(state: &mut State, attempt: &Attempt) {
        let applied = Outcome::Applied {
            existed: false,
            contended: None,
        };
        assert!(state.answered(attempt, 7, Ok(applied), START));
    }

    #[test]
    fn after_two_breaks_the_largest_goes_alone_and_after_a_third_the_others_go_without_it() {
        let mut state = state(&[("a", 10), ("large", 1_000), ("b", 10)]);
        for _ in 0..BREAKS {
            assert_eq!(keys(&send(&mut state, START)), ["a", "b", "large"]);
            assert_eq!(lose(&mut state, START), None);
        }
        assert_eq!(keys(&send(&mut state, START)), ["large"]);
        assert_eq!(
            keys(&send(&mut state, START)),
            [""; 0],
            "nothing goes with it"
        );
        let error = lose(&mut state, START).unwrap();
        assert!(error.starts_with("`large`: "), "{error}");
        assert_eq!(state.last_error.as_ref().unwrap().to_string(), error);

        let others = send(&mut state, START);
        assert_eq!(keys(&others), ["a", "b"]);
        for other in &others {
            answer(&mut state, other);
        }
        assert_eq!(keys(&send(&mut state, START)), [""; 0]);

        // It is tried alone, less and less often.
        let mut mono = START;
        let mut pauses = Vec::new();
        for _ in 0..3 {
            let due = state.held_until(Shard::FIRST).unwrap();
            pauses.push(due.saturating_sub(mono));
            mono = due;
            let name = format!("c{}", pauses.len());
            write(&mut state, &name, 10);
            let other = loop {
                let batch = send(&mut state, mono);
                if !batch.is_empty() {
                    break batch;
                }
            };
            let batch = if keys(&other) == ["large"] {
                other
            } else {
                assert_eq!(keys(&other), [name.as_str()]);
                assert_eq!(keys(&send(&mut state, mono)), [""; 0], "it is waited for");
                answer(&mut state, &other[0]);
                send(&mut state, mono)
            };
            assert_eq!(keys(&batch), ["large"]);
            assert!(lose(&mut state, mono).is_some());
        }
        assert!(
            pauses.windows(2).all(|pair| pair[1] == 2 * pair[0]),
            "{pauses:?}"
        );
    }

    #[test]
    fn one_that_passes_alone_was_not_the_cause() {
        let mut state = state(&[("a", 10), ("large", 1_000)]);
        for _ in 0..BREAKS {
            send(&mut state, START);
            lose(&mut state, START);
        }
        let alone = send(&mut state, START);
        assert_eq!(keys(&alone), ["large"]);
        answer(&mut state, &alone[0]);
        let rest = send(&mut state, START);
        assert_eq!(keys(&rest), ["a"]);
        answer(&mut state, &rest[0]);
        write(&mut state, "b", 10);
        send(&mut state, START);
        assert_eq!(lose(&mut state, START), None, "the row has ended");
        assert!(!state.is_trial(Shard::FIRST));
    }

    fn write_confirmed(state: &mut State, key: &Arc<str>) -> Sequence {
        let at = Moment {
            mono: START,
            now: 1_700_000_000_000_000_000,
        };
        let value = Unsealed::of_text("1");
        let request = Request::Put { value, ttl: None };
        let accepted = state.write(key, request, WritePolicy::Confirmed, at);
        accepted.unwrap().id
    }

    fn withdraw(state: &mut State, key: &Arc<str>, id: Sequence) {
        let error = Error::new(ErrorKind::Unavailable, "on purpose");
        assert!(state.withdraw(key, id, error).is_some());
    }

    #[test]
    fn a_write_behind_the_one_that_breaks_connections_does_not_set_it_free_if_it_is_withdrawn() {
        let (mut state, key) = (state(&[("large", 1_000)]), Arc::from("large"));
        for _ in 0..=BREAKS {
            send(&mut state, START);
            lose(&mut state, START);
        }
        let paused = state.paused_until(Shard::FIRST, &key);
        assert!(paused.is_some());
        let id = write_confirmed(&mut state, &key);
        withdraw(&mut state, &key, id);
        assert_eq!(state.paused_until(Shard::FIRST, &key), paused);
        assert_eq!(keys(&send(&mut state, START)), [""; 0]);
    }

    #[test]
    fn a_write_that_is_withdrawn_leaves_no_pause_to_the_next_one_of_its_key() {
        let (mut state, key) = (state(&[]), Arc::from("k"));
        let id = write_confirmed(&mut state, &key);
        // It has broken connections alone.
        state
            .shard_mut(Shard::FIRST)
            .breaks
            .pauses
            .failed(&key, KeyPauses::LONGEST, START);
        state.suspect(Shard::FIRST, &key);
        withdraw(&mut state, &key, id);
        assert!(!state.is_trial(Shard::FIRST));
        assert_eq!(state.paused_until(Shard::FIRST, &key), None);
        write(&mut state, &key, 10);
        write(&mut state, "other", 10);
        assert_eq!(keys(&send(&mut state, START)), ["k", "other"]);
    }
}
