//! What is known of the connection to each shard, and what becomes of keys that go from one to
//! another.

use std::sync::Arc;
use std::time::Duration;

use super::State;
use super::breaks::{ConnectionBreaks, broke_alone};
use crate::backend::error::{BackendError, BackendErrorKind, Recovery};
use crate::backend::layout::{Node, Redirect, SlotNumber, slot_of};
use crate::backend::shards::{Shard, ShardMap};
use crate::base::clock::Monotonic;
use crate::base::error::Error;
use crate::cache::Tracking;
use crate::pending::outbox::Selector;

/// Whether writes can be sent to a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// The backend is there, but takes no writes now (out of memory, read-only, loading).
    Paused,
    #[default]
    Down,
}

/// The connection to one shard.
#[derive(Debug, Default)]
pub(super) struct ShardState {
    /// Where it is; `None` if the backend knows.
    node: Option<Node>,
    link: Link,
    /// When the connection was lost, as long as there is no new one.
    lost_at: Option<Monotonic>,
    /// Why the shard takes no writes now, until the flusher has waited for it.
    refusal: Option<BackendError>,
    /// What went wrong last between this process and the shard.
    last_error: Option<Error>,
    pub(super) breaks: ConnectionBreaks,
    /// It refuses commands that changes of a part take.
    pub(super) refuses_parts: bool,
}

/// How long a key waits that was sent from server to server lately: they may send it to each other.
const HOP: Duration = Duration::from_millis(20);

impl State {
    /// The keys are shared out as `map` says, before any is used.
    pub(crate) fn with_map(mut self, map: &ShardMap) -> Self {
        self.map = map.clone();
        self.cache.set_map(map.clone());
        self.outbox.set_map(map.clone());
        self
    }

    pub(crate) fn link(&self, shard: Shard) -> Link {
        self.shards[shard].link
    }

    /// That of the shard of `key`.
    pub(crate) fn link_of(&self, key: &str) -> Link {
        self.link(self.map.shard_of(key))
    }

    /// Whether writes can be sent to every shard that has pending ones.
    pub(crate) fn is_all_up(&self) -> bool {
        let mut keys = self.outbox.entries().map(|(key, _)| key);
        keys.all(|key| self.link_of(key) == Link::Up)
    }

    /// The shards whose flushers have something to do.
    pub(crate) fn shards_with_work(&self) -> impl Iterator<Item = Shard> {
        let unused = self.unused.iter().map(|(shard, _)| shard);
        let unused = unused.filter(|shard| self.is_any_unused(*shard));
        self.outbox.ready_shards().chain(unused)
    }

    /// When the connection to the shard of `key` was lost, if there is no new one.
    pub(crate) fn lost_at(&self, key: &str) -> Option<Monotonic> {
        self.shards[self.map.shard_of(key)].lost_at
    }

    /// Whether it is not known yet if the shard can be connected to.
    pub(crate) fn is_untried(&self, shard: Shard) -> bool {
        let of_shard = &self.shards[shard];
        of_shard.link == Link::Down && of_shard.node.is_some() && of_shard.last_error.is_none()
    }

    /// Whether the backend's clock is known.
    pub(crate) fn knows_clock(&self) -> bool {
        !self.is_on_host_clock
    }

    pub(super) fn shard_mut(&mut self, shard: Shard) -> &mut ShardState {
        &mut self.shards[shard]
    }

    /// Whether a shard refuses what changes of a part take.
    pub(super) fn refuses_parts(&self, shard: Shard) -> bool {
        self.shards[shard].refuses_parts
    }

    pub(super) fn breaks(&self, shard: Shard) -> &ConnectionBreaks {
        &self.shards[shard].breaks
    }

    /// Makes room for the shard at `node`, which is not connected.
    pub(crate) fn add_shard(&mut self, shard: Shard, node: &Node) {
        self.shards[shard] = ShardState {
            node: Some(node.clone()),
            ..ShardState::default()
        };
        self.unused[shard].clear();
        self.outbox.add_shard(shard);
        self.cache.add_shard(shard);
    }

    /// The last error between this process and the backend.
    pub(crate) fn last_cause(&self) -> String {
        cause(self.last_error.as_ref())
    }

    /// The last one between this process and the shard of `key`.
    pub(super) fn last_cause_of(&self, key: &str) -> String {
        let of_shard = self.last_error_of(self.map.shard_of(key));
        cause(of_shard.or(self.last_error.as_ref()))
    }

    /// What went wrong last between this process and a shard.
    pub(crate) fn last_error_of(&self, shard: Shard) -> Option<&Error> {
        self.shards[shard].last_error.as_ref()
    }

    /// Something went wrong between this process and a shard.
    pub(crate) fn failed(&mut self, shard: Shard, error: Error) {
        self.shards[shard].last_error = Some(error.clone());
        self.last_error = Some(error);
    }

    /// The shard is there. `shift`: by how much the first answer of the backend's clock moved ours;
    /// stamps issued before are moved as well (rule 8).
    pub(crate) fn connected(&mut self, shard: Shard, shift: Option<i64>) {
        // Another server may be there, and rights may have been given.
        self.shards[shard].refuses_parts = false;
        if let Some(by) = shift {
            self.outbox.shift(by);
            self.cache.shift(by);
            self.rewrite_journal();
        }
        self.is_on_host_clock = false;
        self.shards[shard].link = Link::Up;
    }

    /// The connection to a shard is gone: what was under way has an unknown outcome. Returns why,
    /// if it was a write of this process that broke it.
    pub(crate) fn disconnected(
        &mut self,
        shard: Shard,
        error: &Error,
        mono: Monotonic,
    ) -> Option<Error> {
        let of_shard = &mut self.shards[shard];
        if of_shard.link != Link::Down {
            of_shard.lost_at = Some(mono);
        }
        of_shard.link = Link::Down;
        self.is_layout_wanted |= self.map.is_cluster();
        self.failed(shard, error.clone());
        self.forget_numbers(|map, key| map.shard_of(key) == shard);
        self.cache.tracked(shard, Tracking::Off, mono);
        // Before anybody is notified that a write is queued.
        self.journal_rest();
        let under_way = self.outbox.disconnected(shard);
        let (key, pause) = self.connection_broke(shard, &under_way, mono)?;
        let broken = broke_alone(&key, self.size_to_send(&key), pause, error);
        self.failed(shard, broken.clone());
        Some(broken)
    }

    /// What the backend has on record at these keys is not known any more.
    fn forget_numbers(&mut self, is_forgotten: impl Fn(&ShardMap, &str) -> bool) {
        for (key, recorded) in &mut self.recorded {
            if is_forgotten(&self.map, key) {
                recorded.number = None;
            }
        }
    }

    /// The shard is there but takes no writes now, since it has `refused` one.
    pub(crate) fn paused(&mut self, shard: Shard, error: Error, refusal: Option<BackendError>) {
        self.shards[shard].link = Link::Paused;
        self.shards[shard].refusal = refusal;
        self.is_layout_wanted |= self.map.is_cluster();
        self.failed(shard, error);
        self.journal_rest();
        self.outbox.pause(shard);
        for (key, id) in self.outbox.withdrawable(shard) {
            let error = self.unavailable_error(&key);
            self.withdraw(&key, id, error);
        }
    }

    /// Why the shard takes no writes now, if the flusher has not waited for it yet.
    pub(crate) fn take_refusal(&mut self, shard: Shard) -> Option<BackendError> {
        self.shards[shard].refusal.take()
    }

    /// The shard takes writes. Returns whether it did not before.
    pub(crate) fn resumed(&mut self, shard: Shard) -> bool {
        let of_shard = &mut self.shards[shard];
        of_shard.refusal = None;
        let was_paused = of_shard.link == Link::Paused;
        if was_paused {
            of_shard.link = Link::Up;
        }
        was_paused
    }

    /// The server of a shard has left: nothing is sent there any more.
    pub(crate) fn leaves(&mut self, shard: Shard) {
        self.shards[shard].node = None;
    }

    /// The shard is not used any more.
    pub(crate) fn remove_shard(&mut self, shard: Shard) {
        self.shards[shard] = ShardState::default();
        self.cache.remove_shard(shard);
    }

    /// A server has sent us to another one. Returns the shard to go to, and whether it is to answer
    /// although it does not have the slot yet; `None` if nothing is known of it so far.
    pub(crate) fn redirected(&mut self, error: &BackendError) -> Option<(Shard, bool)> {
        let Some(Redirect { slot, node }) = error.redirect.as_deref() else {
            // The server did not say where to.
            self.is_layout_wanted |= error.recovery() == Recovery::Redirect;
            return None;
        };
        let mut shards = self.shards.iter();
        let to = shards.find(|(_, of_shard)| of_shard.node.as_ref() == Some(node));
        let to = to.map(|(shard, _)| shard);
        let asking = error.kind == BackendErrorKind::Ask;
        if asking && !self.importing.contains(node) {
            self.importing.push(node.clone());
        }
        self.is_layout_wanted |= !asking || to.is_none();
        if let Some(to) = to.filter(|_| !asking) {
            if self.map.shard_of_slot(*slot) != to {
                self.reassigned.insert(*slot);
            }
            self.map.assign(*slot, to);
        }
        Some((to?, asking))
    }

    /// A layout gives each of these slots to the second of its shards; the first is that of the
    /// layout before, and servers may have sent the slot elsewhere since. Returns whether any has
    /// moved.
    pub(crate) fn lay_out(
        &mut self,
        slots: impl IntoIterator<Item = (SlotNumber, Shard, Shard)>,
        mono: Monotonic,
    ) -> bool {
        // One that went elsewhere and came back has moved: it may have come back in silence.
        let mut moved = std::mem::take(&mut self.reassigned);
        for (slot, before, now) in slots {
            if now != before || moved.contains(&slot) {
                self.map.assign(slot, now);
                moved.insert(slot);
            }
        }
        let has_moved = !moved.is_empty();
        if has_moved {
            self.slots_moved(|slot| moved.contains(&slot), mono);
        }
        has_moved
    }

    /// The servers to which others have sent us although they do not have the slots yet, since the
    /// last call. They may have no slot at all, and be in no layout.
    pub(crate) fn take_importing(&mut self) -> Vec<Node> {
        std::mem::take(&mut self.importing)
    }

    /// Whether slots may have moved, since the last call.
    pub(crate) fn take_layout_wanted(&mut self) -> bool {
        std::mem::take(&mut self.is_layout_wanted)
    }

    /// Whether anything turned out to be in line at another shard, since the last call.
    pub(crate) fn take_strayed(&mut self) -> bool {
        let of_writes = self.outbox.take_strayed();
        self.cache.take_strayed() || of_writes
    }

    /// Slots have gone to other shards: their keys are sent and read there from now on.
    fn slots_moved(&mut self, moved: impl Fn(SlotNumber) -> bool, mono: Monotonic) {
        let has_moved = |key: &str| moved(slot_of(key));
        self.forget_numbers(|_, key| has_moved(key));
        self.outbox.share_out();
        self.cache.slots_moved(&has_moved, mono);
        let unused = std::mem::take(&mut self.unused).into_all();
        for key in unused.flat_map(|(_, keys)| keys) {
            self.unused[self.map.shard_of(&key)].push(key);
        }
    }

    /// The head of `key` is at another server. If that is to answer although it does not have the
    /// slot yet, the head is sent there once; else to the shard that has the slot now.
    pub(super) fn send_elsewhere(&mut self, key: &Arc<str>, error: &BackendError, mono: Monotonic) {
        let to = self.redirected(error);
        let asks = to.and_then(|(shard, asking)| asking.then_some(shard));
        // It does not wait there for a server that may never come back: its own says the next time
        // where the slot is going then.
        let asks = asks.filter(|shard| self.link(*shard) != Link::Down);
        let has_just_moved = self.outbox.edit(key, Selector::Head, |head| {
            head.attempt.asks = asks;
            let before = head.attempt.moved_at.replace(mono);
            before.is_some_and(|before| mono.saturating_sub(before) < 2 * HOP)
        });
        if asks.is_some() {
            return;
        }
        if error.redirect.is_none() {
            let waits = Error::of_key(error.error_kind(), key, error);
            self.failed(self.map.shard_of(key), waits);
        }
        if error.redirect.is_none() || error.kind == BackendErrorKind::Ask {
            self.wait_for_slot(key, mono);
        } else if has_just_moved == Some(true) {
            self.hold_for(key, HOP, HOP, mono);
        }
    }
}

fn cause(error: Option<&Error>) -> String {
    error.map_or_else(|| "it has not answered yet".to_owned(), Error::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::commit::{Attempt, Outcome};
    use crate::backend::layout::SLOTS;
    use crate::base::clock::Moment;
    use crate::base::error::ErrorKind;
    use crate::base::policy::WritePolicy;
    use crate::client::state::Request;
    use crate::value::envelope::Unsealed;

    const START: Monotonic = Duration::from_secs(1_000);
    const MILLI: Duration = Duration::from_millis(1);

    fn node(port: u16) -> Node {
        Node {
            host: Arc::from("127.0.0.1"),
            port,
        }
    }

    /// Two servers, each of which has every second slot, with their shards.
    fn two_shards() -> (State, [Shard; 2]) {
        let map = ShardMap::cluster();
        let state = State::new(1 << 20, Duration::MAX / 4, fastrand::Rng::with_seed(1));
        let mut state = state.with_map(&map);
        let shards = [1, 2].map(Shard::of_index);
        for (shard, port) in shards.into_iter().zip(1..) {
            state.add_shard(shard, &node(port));
            state.connected(shard, None);
        }
        for slot in 0..SLOTS {
            let number = u16::try_from(slot).unwrap();
            map.assign(number, shards[slot % 2]);
        }
        (state, shards)
    }

    /// A key of this shard.
    fn key_of(state: &State, shard: Shard) -> Arc<str> {
        let mut keys = (0..).map(|n| Arc::from(format!("k{n}")));
        keys.find(|key: &Arc<str>| state.map.shard_of(key) == shard)
            .unwrap()
    }

    fn write(state: &mut State, key: &Arc<str>, policy: WritePolicy) {
        let at = Moment {
            mono: START,
            now: 1_700_000_000_000_000_000,
        };
        let value = Unsealed::of_text("1");
        let request = Request::Put { value, ttl: None };
        // Somebody waits for its answer as long as the test lasts.
        std::mem::forget(state.write(key, request, policy, at).unwrap());
    }

    fn send(state: &mut State, shard: Shard, mono: Monotonic) -> Vec<Attempt> {
        let batch = state.next_batch(shard, 512, 1 << 20, mono);
        state.sent(&batch, 7, mono);
        batch
    }

    fn redirected(kind: BackendErrorKind, key: &str, port: u16) -> BackendError {
        let redirect = Redirect {
            slot: slot_of(key),
            node: node(port),
        };
        BackendError::redirected(kind, redirect, "on purpose")
    }

    fn answer(state: &mut State, attempt: &Attempt, error: BackendError, mono: Monotonic) {
        assert!(state.answered(attempt, 7, Err(error), mono));
    }

    #[test]
    fn a_write_that_is_moved_is_sent_to_the_other_shard_which_is_woken() {
        let (mut state, [one, two]) = two_shards();
        let key = key_of(&state, one);
        write(&mut state, &key, WritePolicy::Behind);
        let batch = send(&mut state, one, START);
        let moved = redirected(BackendErrorKind::Moved, &key, 2);
        answer(&mut state, &batch[0], moved, START);
        assert!(state.take_strayed() && state.take_layout_wanted());
        assert_eq!(send(&mut state, one, START), []);
        let batch = send(&mut state, two, START);
        assert!(batch.len() == 1 && !batch[0].asking);
        assert_eq!(state.map.shard_of(&key), two);
    }

    #[test]
    fn a_write_is_asked_for_once_and_then_goes_where_its_slot_is() {
        let (mut state, [one, two]) = two_shards();
        let key = key_of(&state, one);
        write(&mut state, &key, WritePolicy::Behind);
        let batch = send(&mut state, one, START);
        let ask = redirected(BackendErrorKind::Ask, &key, 2);
        answer(&mut state, &batch[0], ask, START);
        let batch = send(&mut state, two, START);
        assert!(batch[0].asking);
        let again = BackendError::new(BackendErrorKind::TryAgain, "TRYAGAIN on purpose");
        answer(&mut state, &batch[0], again, START);
        assert_eq!(state.map.shard_of(&key), one);
        assert_eq!(send(&mut state, one, START), [], "it waits");
        let due = state.held_until(one).expect("it is parked there");
        assert!(!send(&mut state, one, due)[0].asking);
    }

    #[test]
    fn a_key_that_is_half_here_and_half_there_waits_longer_each_time_and_alone() {
        let (mut state, [one, _]) = two_shards();
        let (key, mut mono) = (key_of(&state, one), START);
        write(&mut state, &key, WritePolicy::Behind);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let batch = send(&mut state, one, mono);
            let again = BackendError::new(BackendErrorKind::TryAgain, "TRYAGAIN on purpose");
            answer(&mut state, &batch[0], again, mono);
            assert_eq!(state.link(one), Link::Up, "others go on");
            assert_eq!(send(&mut state, one, mono), []);
            let due = state.held_until(one).unwrap();
            waits.push(due.saturating_sub(mono).as_millis());
            mono = due;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 500, 500]);
    }

    #[test]
    fn servers_that_send_a_key_to_each_other_get_it_once_in_a_while() {
        let (mut state, shards) = two_shards();
        let (key, mut mono) = (key_of(&state, shards[0]), START);
        write(&mut state, &key, WritePolicy::Behind);
        let mut hops = 0;
        while mono < START + 200 * MILLI {
            for (at, port) in [(0, 2), (1, 1)] {
                for attempt in send(&mut state, shards[at], mono) {
                    let moved = redirected(BackendErrorKind::Moved, &key, port);
                    answer(&mut state, &attempt, moved, mono);
                    hops += 1;
                }
            }
            mono += MILLI;
        }
        assert!((8..=14).contains(&hops), "{hops} hops in 200 ms");
    }

    /// A caller chose the connection of the shard that had the key then.
    #[test]
    fn no_caller_sends_a_write_to_a_shard_that_has_its_key_no_more() {
        let (mut state, [one, two]) = two_shards();
        let key = key_of(&state, one);
        write(&mut state, &key, WritePolicy::Through);
        state.map.assign(slot_of(&key), two);
        assert_eq!(state.take_small(&key, one, 1 << 10, START), None);
        state.slots_moved(|slot| slot == slot_of(&key), START);
        assert!(state.take_small(&key, two, 1 << 10, START).is_some());
    }

    #[test]
    fn a_lost_shard_leaves_what_is_under_way_to_the_other_one_alone() {
        let (mut state, [one, two]) = two_shards();
        let keys = [one, two].map(|shard| key_of(&state, shard));
        for key in &keys {
            write(&mut state, key, WritePolicy::Through);
        }
        let (_lost, kept) = (send(&mut state, one, START), send(&mut state, two, START));
        let error = Error::new(ErrorKind::Unavailable, "on purpose");
        state.disconnected(one, &error, START);
        assert_eq!((state.link(one), state.link(two)), (Link::Down, Link::Up));
        let [lost_head, kept_head] = keys.each_ref().map(|key| state.outbox.head(key).unwrap());
        assert!(!lost_head.is_awaited() && kept_head.is_awaited());
        let applied = Outcome::Applied {
            existed: false,
            contended: None,
        };
        assert!(state.answered(&kept[0], 7, Ok(applied), START));
        assert_eq!(state.outbox.len(), 1);
    }

    /// What is under way to a shard whose slot moves is in doubt when that shard is lost, and goes
    /// to the other one.
    #[test]
    fn what_was_under_way_to_a_shard_that_is_gone_goes_to_the_one_that_has_its_slot() {
        let (mut state, [one, two]) = two_shards();
        let key = key_of(&state, one);
        write(&mut state, &key, WritePolicy::Behind);
        assert_eq!(send(&mut state, one, START).len(), 1);
        state.map.assign(slot_of(&key), two);
        state.slots_moved(|slot| slot == slot_of(&key), START);
        assert_eq!(send(&mut state, two, START), [], "it is under way");
        let error = Error::new(ErrorKind::Unavailable, "on purpose");
        state.disconnected(one, &error, START);
        state.remove_shard(one);
        assert!(state.take_strayed());
        let again = send(&mut state, two, START);
        assert!(again[0].retry.is_some(), "it may have been made");
    }
}
