//! Which attempts of a batch go into one call of the script, and which calls go out together.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::backend::commit::Attempt;
use crate::backend::layout::{SlotNumber, slot_of};
use crate::base::clock::Deadline;
use crate::base::lock::lock;

/// Which attempts of a batch go into which call.
pub(super) struct CallPlan {
    /// The places of the attempts in the batch, one call after the other; `None` if that is the
    /// order of the batch.
    order: Option<Vec<usize>>,
    pub(super) calls: Vec<ScriptCall>,
}

/// A call for some attempts.
pub(super) struct ScriptCall {
    pub(super) size: usize,
    /// Behind ASKING.
    pub(super) asking: bool,
    /// At a node of a cluster: the slot of its keys.
    pub(super) slot: Option<SlotNumber>,
}

/// Slots that seem to be on the move: a call for many of their keys was refused, as long as one of
/// the keys is only half at this node, or at another one.
#[derive(Debug, Default)]
pub(super) struct OpenSlots(Mutex<HashMap<SlotNumber, Deadline>>);

impl OpenSlots {
    /// How long after the last refusal the keys of a slot go one by one.
    const SETTLED_AFTER: Duration = Duration::from_secs(1);

    /// A call for several of its keys was refused because of a move.
    pub(super) fn note(&self, slot: SlotNumber) {
        let end = Deadline::after(Self::SETTLED_AFTER);
        lock(&self.0).insert(slot, end);
    }

    /// Those that are not known to be settled.
    pub(super) fn current(&self) -> Vec<SlotNumber> {
        let mut slots = lock(&self.0);
        slots.retain(|_, end| !end.remaining().is_zero());
        slots.keys().copied().collect()
    }
}

impl CallPlan {
    /// Calls for `most` attempts each.
    pub(super) fn in_order(attempts: usize, most: usize) -> Self {
        let starts = (0..attempts).step_by(most);
        let calls = starts.map(|start| ScriptCall {
            size: most.min(attempts - start),
            asking: false,
            slot: None,
        });
        Self {
            order: None,
            calls: calls.collect(),
        }
    }

    /// Calls with keys of one slot each. What another node has sent here is a call of its own:
    /// ASKING holds for one command, and what is sent with it may be answered otherwise.
    pub(super) fn by_slot(batch: &[Attempt], most: usize, open: &[SlotNumber]) -> Self {
        let slots: Vec<_> = batch.iter().map(|attempt| slot_of(&attempt.key)).collect();
        let mut order: Vec<_> = (0..batch.len()).collect();
        order.sort_by_key(|place| slots[*place]);

        let mut calls = Vec::new();
        for of_slot in order.chunk_by(|one, next| {
            let is_alone = |place: usize| batch[place].asking || open.contains(&slots[place]);
            slots[*one] == slots[*next] && !is_alone(*one) && !is_alone(*next)
        }) {
            calls.extend(of_slot.chunks(most).map(|places| ScriptCall {
                size: places.len(),
                asking: batch[places[0]].asking,
                slot: Some(slots[places[0]]),
            }));
        }
        Self {
            order: Some(order),
            calls,
        }
    }

    /// The attempts, one call after the other.
    pub(super) fn attempts<'a>(&self, batch: &'a [Attempt]) -> Vec<&'a Attempt> {
        match &self.order {
            None => batch.iter().collect(),
            Some(order) => order.iter().map(|place| &batch[*place]).collect(),
        }
    }

    /// What was answered one call after the other, in the order of the batch.
    pub(super) fn in_order_of_batch<T>(self, answers: Vec<T>) -> Vec<T> {
        let Some(order) = self.order else {
            return answers;
        };
        let mut placed: Vec<_> = order.into_iter().zip(answers).collect();
        placed.sort_by_key(|(place, _)| *place);
        placed.into_iter().map(|(_, answer)| answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::commit::{Expects, KeyChange};
    use crate::base::clock::Stamp;

    fn attempt(key: &str, asking: bool) -> Attempt {
        Attempt {
            key: key.into(),
            writer: 1,
            sequence: 1,
            stamp: Stamp::new(1),
            change: KeyChange::Delete,
            expects: Expects::Anything,
            retry: None,
            recorded: None,
            asking,
        }
    }

    /// The keys of each call, and whether it is behind ASKING.
    fn planned(batch: &[Attempt], most: usize, open: &[SlotNumber]) -> Vec<(Vec<String>, bool)> {
        let plan = CallPlan::by_slot(batch, most, open);
        let mut attempts = plan.attempts(batch).into_iter();
        let of_call = |call: &ScriptCall| {
            let keys = attempts.by_ref().take(call.size);
            (keys.map(|of| of.key.to_string()).collect(), call.asking)
        };
        plan.calls.iter().map(of_call).collect()
    }

    #[test]
    fn a_call_has_keys_of_one_slot_and_each_answer_goes_to_its_attempt() {
        let keys = ["{a}1", "{b}1", "{a}2", "{b}2", "{a}3"];
        let mut batch: Vec<_> = keys.map(|key| attempt(key, false)).to_vec();
        let texts = |keys: &[&str]| keys.iter().copied().map(str::to_owned).collect::<Vec<_>>();
        let (of_a, of_b) = (slot_of("{a}"), slot_of("{b}"));
        assert!(of_b < of_a);

        let calls = planned(&batch, 2, &[]);
        let expected = [&["{b}1", "{b}2"][..], &["{a}1", "{a}2"], &["{a}3"]];
        assert_eq!(calls, expected.map(|keys| (texts(keys), false)));

        // An open slot, and an asked attempt.
        batch[1].asking = true;
        let expected = [
            (&["{b}1"][..], true),
            (&["{b}2"], false),
            (&["{a}1"], false),
            (&["{a}2"], false),
            (&["{a}3"], false),
        ];
        let calls = planned(&batch, 2, &[of_a]);
        assert_eq!(calls, expected.map(|(keys, asking)| (texts(keys), asking)));

        let plan = CallPlan::by_slot(&batch, 2, &[]);
        let answers: Vec<_> = plan
            .attempts(&batch)
            .iter()
            .map(|of| of.key.clone())
            .collect();
        let placed = plan.in_order_of_batch(answers);
        assert!(placed.iter().map(|key| &**key).eq(keys));
    }

    #[test]
    fn a_slot_is_open_from_a_refusal_on() {
        let open = OpenSlots::default();
        assert!(open.current().is_empty());
        open.note(7);
        open.note(7);
        assert_eq!(open.current(), [7]);
    }
}
