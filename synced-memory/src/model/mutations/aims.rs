//! Which element of a list an operation may mean that was recorded on an earlier form of the list.
//!
//! The library names an element by index and content, equal ones by occurrence, and looks at what
//! was beside it where that is not enough. Where it is enough, one aim is told; else all that are
//! defensible.

use serde_json::Value;

use super::reference::{Act, Edit, Mark, Step};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// This element; of an insertion the one before which it goes.
    At(usize),
    /// It is gone; or there is none to look for.
    Gone,
    /// Something else is in its place.
    Other,
}

/// What an operation may aim at.
pub(super) fn aims(root: Option<&Value>, origin: Option<&Value>, edit: &Edit) -> Vec<Aim> {
    let mut here = root.or(origin);
    for (depth, step) in edit.path.iter().enumerate() {
        match step {
            Step::Member(name, origin) => {
                here = here.and_then(|here| here.get(name)).or(origin.as_ref());
            }
            Step::Element(mark) => {
                let Some(list) = here.and_then(Value::as_array) else {
                    return vec![Aim::Gone];
                };
                let is_removal =
                    matches!(edit.act, Act::Remove { .. }) && edit.path.len() == depth + 1;
                return if is_removal {
                    mark.removed_from(list)
                } else {
                    mark.changed_in(list)
                };
            }
        }
    }
    match (&edit.act, here.and_then(Value::as_array)) {
        (Act::Insert(mark, _), Some(list)) => mark.inserted_before_in(list),
        _ => vec![Aim::Gone],
    }
}

impl Mark {
    pub(super) fn content(&self) -> &Value {
        &self.list[self.index]
    }

    fn beside(list: &[Value], at: usize) -> (Option<&Value>, Option<&Value>) {
        (
            at.checked_sub(1).and_then(|before| list.get(before)),
            list.get(at + 1),
        )
    }

    fn is_same(&self, list: &[Value]) -> bool {
        list == self.list
    }

    /// Neither of what was beside it is beside that.
    fn is_away(&self, list: &[Value], at: usize) -> bool {
        let ((before, behind), (previous, next)) =
            (Self::beside(&self.list, self.index), Self::beside(list, at));
        before != previous && behind != next
    }

    /// Something else is between what was beside it: it was changed there.
    fn is_changed(&self, list: &[Value]) -> bool {
        let seen = Self::beside(&self.list, self.index);
        (0..list.len()).any(|at| list[at] != *self.content() && Self::beside(list, at) == seen)
    }

    /// Where it is as it was, and whether it may be gone.
    fn same_in(&self, list: &[Value]) -> (Vec<usize>, bool) {
        let equal = |list: &[Value]| {
            (0..list.len())
                .filter(|at| list[*at] == *self.content())
                .collect::<Vec<_>>()
        };
        let (seen, now) = (equal(&self.list), equal(list));
        let occurrence = seen
            .iter()
            .position(|at| *at == self.index)
            .unwrap_or_default();
        let named = now.get(occurrence).copied();
        match now.len().cmp(&seen.len()) {
            std::cmp::Ordering::Less => (
                named.into_iter().collect(),
                named.is_none() || self.is_changed(list),
            ),
            // Where there are as many as there were, the occurrence names it.
            std::cmp::Ordering::Equal => (
                named.into_iter().collect(),
                named.is_some_and(|at| self.is_away(list, at)),
            ),
            std::cmp::Ordering::Greater => {
                let is_away = now.iter().all(|at| self.is_away(list, *at));
                (now, is_away)
            }
        }
    }

    fn removed_from(&self, list: &[Value]) -> Vec<Aim> {
        if self.is_same(list) {
            return vec![Aim::At(self.index)];
        }
        let (places, may_be_gone) = self.same_in(list);
        // Where there is nothing else, nothing else is in its place.
        let may_be_other = may_be_gone && !list.is_empty();
        let gone = may_be_gone
            .then_some(Aim::Gone)
            .into_iter()
            .chain(may_be_other.then_some(Aim::Other));
        places.into_iter().map(Aim::At).chain(gone).collect()
    }

    fn changed_in(&self, list: &[Value]) -> Vec<Aim> {
        if self.is_same(list) {
            return vec![Aim::At(self.index)];
        }
        // What has a name of its own is not taken for another.
        if let Some(id) = self.content().get("id") {
            let at = list
                .iter()
                .position(|element| element.get("id") == Some(id));
            return vec![at.map_or(Aim::Gone, Aim::At)];
        }
        let (places, may_be_gone) = self.same_in(list);
        let others = (0..list.len())
            .filter(|at| may_be_gone && !places.contains(at))
            .collect::<Vec<_>>();
        places
            .into_iter()
            .chain(others)
            .map(Aim::At)
            .chain(may_be_gone.then_some(Aim::Gone))
            .collect()
    }

    fn inserted_before_in(&self, list: &[Value]) -> Vec<Aim> {
        if self.is_same(list) {
            return vec![Aim::At(self.index)];
        }
        let (places, may_be_gone) = self.same_in(list);
        let all = 0..=list.len();
        if may_be_gone {
            all.map(Aim::At).collect()
        } else {
            places.into_iter().map(Aim::At).collect()
        }
    }
}
