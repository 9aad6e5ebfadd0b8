//! How a list element is named, so that an operation on it never hits another's.

use super::Content;
use serde::{Deserialize, Serialize};

/// A list element, as a writer saw it: by index and content, with what was beside it.
///
/// Equal elements are told apart by occurrence: the second of them is the second one still, wherever
/// it is now, and is gone when there is only one left. So of two equal elements two processes remove
/// one each where both name the first, and the same one where both name the second.
///
/// An element that is found nowhere was removed, or was changed inside, and only its neighbours say
/// which. Where both are there with one element in between, it is that one; else the element beside
/// one of them; where neither is there any more, the one at the index. Where a neighbour is there and
/// has only known elements beside it, or the list is too short, the element is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Element {
    pub(crate) index: usize,
    pub(crate) content: Content,
    /// How many equal ones are before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    occurrence: usize,
    /// How many equal ones there are besides it.
    #[serde(default, skip_serializing_if = "is_zero")]
    others: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Content>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Content>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Where an element is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// As it was.
    Same(usize),
    /// With another content.
    Changed(usize),
}

impl Element {
    /// The element at `index` of a list with these contents.
    pub(super) fn of(list: &[Content], index: usize) -> Option<Self> {
        let content = *list.get(index)?;
        let equal = |list: &[Content]| list.iter().filter(|other| **other == content).count();
        Some(Self {
            index,
            content,
            occurrence: equal(&list[..index]),
            others: equal(list) - 1,
            previous: index.checked_sub(1).map(|previous| list[previous]),
            next: list.get(index + 1).copied(),
        })
    }

    pub(super) fn find(&self, list: &[Content]) -> Option<Found> {
        let is_same = |at: &usize| list[*at] == self.content;
        let same = (0..list.len()).filter(is_same).nth(self.occurrence);
        if same.is_some() && (self.others == 0 || (0..list.len()).filter(is_same).count() > self.others) {
            return same.map(Found::Same);
        }
        // One of the equal ones is gone, or was changed; where it was this one, its neighbours say so.
        self.find_between(list)
            .or(same.map(Found::Same))
            .or_else(|| self.find_beside(list))
            .or_else(|| self.find_by_index(list))
    }

    fn find_between(&self, list: &[Content]) -> Option<Found> {
        let neighbours = usize::from(self.previous.is_some()) + usize::from(self.next.is_some());
        let fits = |at: &usize| {
            (at.checked_sub(1).map(|previous| list[previous]), list.get(at + 1).copied()) == (self.previous, self.next)
        };
        self.nearest((0..list.len()).filter(fits))
            .filter(|at| neighbours > 0 && list[*at] != self.content)
            .map(Found::Changed)
    }

    fn find_beside(&self, list: &[Content]) -> Option<Found> {
        if list.contains(&self.content) {
            return None;
        }
        let fits = |at: &usize| {
            let known = [self.previous, self.next].contains(&Some(list[*at]));
            let behind = self.previous.is_some() && at.checked_sub(1).map(|previous| list[previous]) == self.previous;
            let before = self.next.is_some() && list.get(at + 1).copied() == self.next;
            !known && (behind || before)
        };
        self.nearest((0..list.len()).filter(fits)).map(Found::Changed)
    }

    fn find_by_index(&self, list: &[Content]) -> Option<Found> {
        let known = [Some(self.content), self.previous, self.next];
        let moved = list.iter().any(|content| known.contains(&Some(*content)));
        (self.index < list.len() && !moved).then_some(Found::Changed(self.index))
    }

    fn nearest(&self, places: impl Iterator<Item = usize>) -> Option<usize> {
        places.min_by_key(|at| at.abs_diff(self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(list: &str) -> Vec<Content> {
        list.split_whitespace().map(|element| Content::of(&format!("\"{element}\""))).collect()
    }

    #[test]
    fn an_element_is_found_where_it_is_now() {
        use Found::{Changed, Same};
        for (seen, index, now, found) in [
            ("a b c", 1, "a b c", Some(Same(1))),
            ("a b c", 1, "b c", Some(Same(0))),
            ("a b c", 1, "x y a b c", Some(Same(3))),
            // Changed inside.
            ("a b c", 1, "a B c", Some(Changed(1))),
            ("a b c", 1, "x a B c", Some(Changed(2))),
            ("a b c", 1, "A B c", Some(Changed(1))),
            ("a b c", 1, "A B C", Some(Changed(1))),
            ("a", 0, "A", Some(Changed(0))),
            ("a", 0, "A x", Some(Changed(0))),
            ("a b", 1, "a B x", Some(Changed(1))),
            // Gone.
            ("a b c", 1, "a c", None),
            ("a b c", 0, "b c", None),
            ("a b c", 2, "a b", None),
            ("a b", 0, "", None),
            ("a b c", 2, "A B", None),
            // Equal ones, by occurrence.
            ("a a", 0, "a", Some(Same(0))),
            ("a a", 1, "a", None),
            ("a b a", 2, "b x a", None),
            ("a b a", 2, "a x b a", Some(Same(3))),
            ("a a", 1, "x a a", Some(Same(2))),
            // The first of two equal ones was changed, and the second is another.
            ("a a", 0, "A a", Some(Changed(0))),
            ("a a b", 1, "a A b", Some(Changed(1))),
        ] {
            let element = Element::of(&contents(seen), index).unwrap();
            assert_eq!(element.find(&contents(now)), found, "{index} of {seen:?} in {now:?}");
        }
    }
}
