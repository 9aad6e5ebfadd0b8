//! How current one slot is: a state machine that knows nothing of slots, queues or connections.

use std::time::Duration;

use crate::base::clock::Monotonic;

/// Which invalidations of a key came before a read of it was sent. Later ones are larger, whatever
/// slot they belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(u64);

impl Generation {
    pub(super) fn next(&mut self) -> Self {
        self.0 += 1;
        *self
    }
}

/// How current a slot is, and what its readers may see of it.
///
/// ```text
///             answered, under the current generation
///   Stale  ───────────────────────────────────────────▶  Current
///     ▲                                                     │
///     └──────────────── invalidated, disconnected ──────────┘
/// ```
#[derive(Debug, Default)]
pub(super) struct SlotFreshness {
    /// Rises with each invalidation. A read that was sent under another generation says nothing
    /// about what is there now (rule 14).
    generation: Generation,
    /// The generation from which on a read may be shown to near readers: before it the slot was not
    /// near, and its invalidations were ignored.
    near_since: Generation,
    currency: Currency,
    visibility: Visibility,
    reread: Reread,
}

/// Whether what a slot holds is what the backend holds.
#[derive(Debug, Clone, Copy, Default)]
enum Currency {
    /// It never was current.
    #[default]
    Unknown,
    /// Nothing was invalidated since it was read.
    Current,
    /// It was current until then.
    StaleSince(Monotonic),
}

/// What near readers may see of a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Visibility {
    /// Nothing: it was not read since it became near.
    #[default]
    Nothing,
    /// What was read while changes were not tracked, or before the backend refused a read. Readers
    /// ask the backend first.
    Once,
    /// What is kept current: readers need not ask.
    Tracked,
}

/// Whether the slot is in line to be read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Reread {
    #[default]
    Idle,
    Queued,
}

impl SlotFreshness {
    /// The slot became near. What is known of it, or is being read, may have changed unnoticed.
    pub(super) fn became_near(&mut self, generation: Generation) {
        self.generation = generation;
        self.near_since = generation;
    }

    /// The slot is not near any more. Reads that are under way, and its place in the queue, stay
    /// what they are.
    pub(super) fn ceased_to_be_near(&mut self) {
        *self = Self {
            generation: self.generation,
            reread: self.reread,
            ..Self::default()
        };
    }

    /// The generation under which a read is sent now. Its answer comes to
    /// [`answered`](Self::answered) with it.
    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// A read that was sent under `generation` was answered. Returns whether near readers see more
    /// than before.
    pub(super) fn answered(&mut self, generation: Generation, is_tracked: bool) -> bool {
        // A late answer says nothing against the answer to a later read.
        if is_tracked && generation == self.generation {
            self.currency = Currency::Current;
        }

        let visibility = if is_tracked {
            Visibility::Tracked
        } else {
            Visibility::Once
        };
        let is_more = generation >= self.near_since && self.visibility < visibility;
        if is_more {
            self.visibility = visibility;
        }
        is_more
    }

    /// The backend refused a read: readers ask again, and get the refusal.
    pub(super) fn refused(&mut self) {
        self.visibility = self.visibility.min(Visibility::Once);
    }

    /// What is there may have changed: the backend notified us of a change.
    pub(super) fn invalidated(&mut self, generation: Generation, mono: Monotonic) {
        self.generation = generation;
        if self.is_current() {
            self.currency = Currency::StaleSince(mono);
        }
    }

    /// The connection is gone, or changes are not tracked any more: what happens from now on is not
    /// notified.
    pub(super) fn disconnected(&mut self, generation: Generation, mono: Monotonic) {
        self.invalidated(generation, mono);
    }

    /// Changes are tracked again. Those in between were not notified, so that the slot has to be
    /// read again before it counts as current.
    pub(super) fn reconnected(&mut self, generation: Generation, mono: Monotonic) {
        self.invalidated(generation, mono);
    }

    /// Puts the slot in line to be read again; whether it was not in line before.
    pub(super) fn queued(&mut self) -> bool {
        std::mem::replace(&mut self.reread, Reread::Queued) == Reread::Idle
    }

    /// The slot was taken out of the line.
    pub(super) fn dequeued(&mut self) {
        self.reread = Reread::Idle;
    }

    pub(super) fn is_current(&self) -> bool {
        matches!(self.currency, Currency::Current)
    }

    /// Whether readers may see what the slot holds after they have asked, or while nobody can be
    /// asked.
    pub(super) fn is_visible(&self) -> bool {
        self.visibility > Visibility::Nothing
    }

    /// Whether readers need not ask, as long as changes are tracked.
    pub(super) fn is_kept_current(&self) -> bool {
        self.visibility == Visibility::Tracked
    }

    /// How old what the slot holds may be; `None` if it never was current.
    pub(super) fn staleness(&self, mono: Monotonic) -> Option<Duration> {
        match self.currency {
            Currency::Unknown => None,
            Currency::Current => Some(Duration::ZERO),
            Currency::StaleSince(since) => Some(mono.saturating_sub(since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Monotonic = Duration::from_secs(1);

    /// A near slot whose changes are tracked, and the source of its generations.
    fn near() -> (SlotFreshness, Generation) {
        let mut generations = Generation::default();
        let mut freshness = SlotFreshness::default();
        freshness.became_near(generations.next());
        (freshness, generations)
    }

    #[test]
    fn only_an_answer_to_a_read_that_was_sent_after_the_last_invalidation_makes_a_slot_current() {
        let (mut freshness, mut generations) = near();
        let early = freshness.generation();
        freshness.invalidated(generations.next(), SECOND);

        assert!(freshness.answered(early, true), "it is visible now");
        assert!(!freshness.is_current() && freshness.is_kept_current());
        assert_eq!(freshness.staleness(SECOND), None, "it never was current");

        assert!(!freshness.answered(freshness.generation(), true));
        assert_eq!(freshness.staleness(2 * SECOND), Some(Duration::ZERO));

        freshness.disconnected(generations.next(), 2 * SECOND);
        freshness.reconnected(generations.next(), 5 * SECOND);
        assert_eq!(freshness.staleness(3 * SECOND), Some(SECOND));
    }

    #[test]
    fn an_answer_to_a_read_from_before_the_slot_became_near_is_not_visible() {
        let (mut freshness, mut generations) = (SlotFreshness::default(), Generation::default());
        let before = freshness.generation();
        freshness.became_near(generations.next());
        assert!(!freshness.answered(before, true) && !freshness.is_visible());

        assert!(freshness.answered(freshness.generation(), false));
        assert!(freshness.is_visible() && !freshness.is_kept_current());

        freshness.ceased_to_be_near();
        assert!(!freshness.is_visible());
    }

    #[test]
    fn a_refusal_sends_readers_to_the_backend_until_the_next_answer() {
        let (mut freshness, _) = near();
        freshness.answered(freshness.generation(), true);
        freshness.refused();
        assert!(freshness.is_visible() && !freshness.is_kept_current());
        assert!(freshness.answered(freshness.generation(), true) && freshness.is_kept_current());
    }

    #[test]
    fn a_slot_is_in_line_once() {
        let (mut freshness, _) = near();
        assert!(freshness.queued() && !freshness.queued());
        freshness.ceased_to_be_near();
        assert!(!freshness.queued(), "it keeps its place");
        freshness.dequeued();
        assert!(freshness.queued());
    }
}
