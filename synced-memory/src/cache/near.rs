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
    /// Since when what the slot shows has changed without anybody looking at it.
    unread_since: Option<Monotonic>,
}

/// A slot that nobody has looked at for so long since it last changed is not read again when its
/// key changes once more: its next reader asks the backend. A reader who looks more often never
/// waits.
const UNUSED_AFTER: Duration = Duration::from_secs(1);

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
    /// It is not, and is stale: its next reader asks the backend.
    OnDemand,
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
        let reread = match self.reread {
            Reread::Queued => Reread::Queued,
            Reread::Idle | Reread::OnDemand => Reread::Idle,
        };
        *self = Self {
            generation: self.generation,
            reread,
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
        let is_current = is_tracked && generation == self.generation;
        if is_current {
            self.currency = Currency::Current;
            if self.reread == Reread::OnDemand {
                self.reread = Reread::Idle;
            }
        }

        // An answer that an invalidation has overtaken is shown until the slot is read again, which
        // nobody does unless it is in line: the key is notified once for each time that it is read.
        let is_kept = is_current || is_tracked && self.reread == Reread::Queued;
        let visibility = if is_kept {
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

    /// The backend refused a read: readers ask again, and get the refusal. Whether the key is
    /// tracked is not known.
    pub(super) fn refused(&mut self, mono: Monotonic) {
        self.visibility = self.visibility.min(Visibility::Once);
        self.became_stale(mono);
    }

    /// What is there may have changed: the backend notified us of a change.
    pub(super) fn invalidated(&mut self, generation: Generation, mono: Monotonic) {
        self.generation = generation;
        self.became_stale(mono);
    }

    fn became_stale(&mut self, mono: Monotonic) {
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
        std::mem::replace(&mut self.reread, Reread::Queued) != Reread::Queued
    }

    /// The slot is not read again before somebody reads it, unless it is in line: readers ask.
    /// Returns whether they need not have asked before.
    pub(super) fn left_to_readers(&mut self) -> bool {
        if self.reread == Reread::Queued {
            return false;
        }
        self.reread = Reread::OnDemand;
        let was_kept_current = self.is_kept_current();
        self.visibility = self.visibility.min(Visibility::Once);
        was_kept_current
    }

    pub(super) fn is_left_to_readers(&self) -> bool {
        self.reread == Reread::OnDemand
    }

    /// What the slot shows has changed, or is to be looked at again.
    pub(super) fn changed(&mut self, mono: Monotonic) {
        self.unread_since.get_or_insert(mono);
    }

    /// Somebody has looked at the slot.
    pub(super) fn used(&mut self) {
        self.unread_since = None;
    }

    /// Whether nobody has looked at the slot for long since it last changed.
    pub(super) fn is_unused(&self, mono: Monotonic) -> bool {
        self.unread_since
            .is_some_and(|since| mono.saturating_sub(since) >= UNUSED_AFTER)
    }

    pub(super) fn is_queued(&self) -> bool {
        self.reread == Reread::Queued
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
        assert!(freshness.queued());

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
        freshness.refused(SECOND);
        assert!(freshness.is_visible() && !freshness.is_kept_current());
        assert_eq!(freshness.staleness(2 * SECOND), Some(SECOND));
        assert!(freshness.answered(freshness.generation(), true) && freshness.is_kept_current());
    }

    #[test]
    fn an_answer_that_was_overtaken_is_not_shown_unless_the_slot_is_in_line() {
        let (mut freshness, mut generations) = near();
        let early = freshness.generation();
        freshness.invalidated(generations.next(), SECOND);
        freshness.left_to_readers();
        freshness.answered(early, true);
        assert!(!freshness.is_kept_current() && freshness.is_left_to_readers());

        assert!(freshness.answered(freshness.generation(), true));
        assert!(freshness.is_kept_current() && !freshness.is_left_to_readers());
    }

    #[test]
    fn a_slot_is_left_to_its_readers_if_nobody_looked_for_long_and_it_is_not_in_line() {
        let (mut freshness, _) = near();
        freshness.answered(freshness.generation(), true);
        assert!(!freshness.is_unused(9 * SECOND));
        freshness.changed(SECOND);
        freshness.changed(2 * SECOND);
        assert!(!freshness.is_unused(SECOND) && freshness.is_unused(SECOND + UNUSED_AFTER));
        freshness.used();
        assert!(!freshness.is_unused(9 * SECOND));

        assert!(freshness.queued() && !freshness.left_to_readers());
        assert!(freshness.is_kept_current());
        freshness.dequeued();
        assert!(freshness.left_to_readers() && !freshness.left_to_readers());
        assert!(freshness.is_visible() && !freshness.is_kept_current());
        assert!(freshness.queued(), "it is put in line again");
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
