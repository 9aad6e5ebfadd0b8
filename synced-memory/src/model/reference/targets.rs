//! Which element of a list an operation may mean that was recorded on an earlier state of the list.
//!
//! The library identifies an element by index and content, and equal ones by occurrence; if that is
//! not enough, by its neighbours. If it is enough, there is one target; otherwise there is one
//! for each answer that can be defended.

use serde_json::Value;

use super::edits::{Edit, EditAction, EditStep, ElementMark};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementTarget {
    /// This element; for an insertion, the one that it goes before.
    At(usize),
    /// It is gone, or the operation is on no element.
    Gone,
    /// Another element has replaced it.
    Other,
}

/// The elements that an operation may mean.
pub(super) fn targets(
    root: Option<&Value>,
    origin: Option<&Value>,
    edit: &Edit,
) -> Vec<ElementTarget> {
    let mut node = root.or(origin);
    for (depth, step) in edit.path.iter().enumerate() {
        match step {
            EditStep::Member(name, origin) => {
                node = node.and_then(|node| node.get(name)).or(origin.as_ref());
            }
            EditStep::Element(mark) => {
                let Some(list) = node.and_then(Value::as_array) else {
                    return vec![ElementTarget::Gone];
                };
                let is_removal = matches!(edit.action, EditAction::Remove { .. })
                    && edit.path.len() == depth + 1;
                return if is_removal {
                    mark.removed_from(list)
                } else {
                    mark.changed_in(list)
                };
            }
        }
    }
    match (&edit.action, node.and_then(Value::as_array)) {
        (EditAction::Insert(mark, _), Some(list)) => mark.inserted_before_in(list),
        _ => vec![ElementTarget::Gone],
    }
}

impl ElementMark {
    fn neighbours(list: &[Value], at: usize) -> (Option<&Value>, Option<&Value>) {
        (
            at.checked_sub(1).and_then(|before| list.get(before)),
            list.get(at + 1),
        )
    }

    fn is_same(&self, list: &[Value]) -> bool {
        list == self.list
    }

    /// Neither of its neighbours is a neighbour of that element.
    fn is_moved(&self, list: &[Value], at: usize) -> bool {
        let ((before, behind), (previous, next)) = (
            Self::neighbours(&self.list, self.index),
            Self::neighbours(list, at),
        );
        before != previous && behind != next
    }

    /// There is another element between its neighbours: it was changed.
    fn is_changed(&self, list: &[Value]) -> bool {
        let neighbours = Self::neighbours(&self.list, self.index);
        (0..list.len())
            .any(|at| list[at] != *self.content() && Self::neighbours(list, at) == neighbours)
    }

    /// The indices where it may be unchanged, and whether it may be gone.
    fn unchanged_in(&self, list: &[Value]) -> (Vec<usize>, bool) {
        let equal = |list: &[Value]| {
            (0..list.len())
                .filter(|at| list[*at] == *self.content())
                .collect::<Vec<_>>()
        };
        let (before, now) = (equal(&self.list), equal(list));
        let occurrence = before
            .iter()
            .position(|at| *at == self.index)
            .unwrap_or_default();
        let identified = now.get(occurrence).copied();
        match now.len().cmp(&before.len()) {
            std::cmp::Ordering::Less => (
                identified.into_iter().collect(),
                identified.is_none() || self.is_changed(list),
            ),
            // If there are as many equal elements as before, the occurrence identifies it.
            std::cmp::Ordering::Equal => (
                identified.into_iter().collect(),
                identified.is_some_and(|at| self.is_moved(list, at)),
            ),
            std::cmp::Ordering::Greater => {
                let is_moved = now.iter().all(|at| self.is_moved(list, *at));
                (now, is_moved)
            }
        }
    }

    fn removed_from(&self, list: &[Value]) -> Vec<ElementTarget> {
        if self.is_same(list) {
            return vec![ElementTarget::At(self.index)];
        }
        let (unchanged, may_be_gone) = self.unchanged_in(list);
        // In an empty list nothing can have replaced it.
        let may_be_other = may_be_gone && !list.is_empty();
        let gone = may_be_gone
            .then_some(ElementTarget::Gone)
            .into_iter()
            .chain(may_be_other.then_some(ElementTarget::Other));
        unchanged
            .into_iter()
            .map(ElementTarget::At)
            .chain(gone)
            .collect()
    }

    fn changed_in(&self, list: &[Value]) -> Vec<ElementTarget> {
        if self.is_same(list) {
            return vec![ElementTarget::At(self.index)];
        }
        // An element with an id is never mistaken for another.
        if let Some(id) = self.content().get("id") {
            let at = list
                .iter()
                .position(|element| element.get("id") == Some(id));
            return vec![at.map_or(ElementTarget::Gone, ElementTarget::At)];
        }
        let (unchanged, may_be_gone) = self.unchanged_in(list);
        let others = (0..list.len())
            .filter(|at| may_be_gone && !unchanged.contains(at))
            .collect::<Vec<_>>();
        unchanged
            .into_iter()
            .chain(others)
            .map(ElementTarget::At)
            .chain(may_be_gone.then_some(ElementTarget::Gone))
            .collect()
    }

    fn inserted_before_in(&self, list: &[Value]) -> Vec<ElementTarget> {
        if self.is_same(list) {
            return vec![ElementTarget::At(self.index)];
        }
        let (unchanged, may_be_gone) = self.unchanged_in(list);
        let all = 0..=list.len();
        if may_be_gone {
            all.map(ElementTarget::At).collect()
        } else {
            unchanged.into_iter().map(ElementTarget::At).collect()
        }
    }
}
