//! One of the processes: its state, what the rules say of that, and its clock.

use super::Check;
use super::rules::Rules;
use super::server::{Held, KEY, TOMBSTONE_TTL};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Ticket, Version};
use crate::client::state::{Link, State};

#[derive(Debug)]
pub(super) struct Process<R> {
    pub(super) state: State,
    pub(super) version: Version,
    pub(super) ledger: R,
    /// Its clock without the server's.
    pub(super) ahead: i64,
    pub(super) was_connected: bool,
    pub(super) wire: Option<usize>,
    /// Callers may use the connection: what was in doubt has been sent.
    pub(super) live: bool,
    pub(super) under_way: bool,
    pub(super) tickets: Ticket,
    pub(super) late: Vec<(Ticket, Option<Held>)>,
}

impl<R: Rules> Process<R> {
    pub(super) fn new(ahead: i64, random: &mut fastrand::Rng) -> Self {
        let limit = if random.u8(0..8) == 0 { 700 } else { 1 << 20 };
        let mut state = State::new(limit, TOMBSTONE_TTL, random.fork());
        state.letters_limit = usize::MAX;
        let version = state.cache.hold(&KEY.into());
        Self {
            state,
            version,
            ledger: R::new(),
            ahead,
            was_connected: false,
            wire: None,
            live: false,
            under_way: false,
            tickets: 0,
            late: Vec::new(),
        }
    }

    /// Whether everything is delivered, and handed out.
    pub(super) fn is_done(&self) -> bool {
        self.state.outbox.len() == 0 && self.ledger.is_idle()
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    pub(super) fn lost(&mut self, mono: Monotonic) -> Check {
        self.live = false;
        self.under_way = false;
        self.wire = None;
        self.state
            .lost(Error::new(ErrorKind::Unavailable, "lost"), mono);
        self.ledger.interrupted(Link::Down)
    }
}
