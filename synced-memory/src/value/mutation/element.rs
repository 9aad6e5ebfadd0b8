//! How a list element is named, so that an operation on it never hits another element.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::Content;

/// A list element, as a writer saw it: its index, its content, and its neighbours.
///
/// Equal elements are distinguished by occurrence: the second of them stays the second one,
/// wherever it is now, and is gone if only one is left. So if two processes name the first of two
/// equal elements and remove it, each removes one; if both name the second, they remove the same
/// one. If there are more equal ones than there were, it is the one with the same neighbours, if
/// there is one. If an equal element is away from both neighbours, with another one between them,
/// nobody knows whether it is the same.
///
/// An element whose content is found nowhere was removed, or was changed inside, and only its
/// neighbours show which. If both are there with one element in between, it is that one; otherwise
/// the one beside one of them; if neither is there any more, the one at the index. If a neighbour
/// is there with only known elements beside it, or the list is too short, the element is gone. What
/// was elsewhere in the list when the element was seen is never that element, changed.
///
/// What is added before an element that is gone, or of which that is not certain, goes behind its
/// previous neighbour or, if that is gone, before the next one. If neither is there, it goes to the
/// index, or as near to it as is behind what was before the element, and before what was behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Element {
    #[serde(deserialize_with = "index")]
    pub(crate) index: usize,
    pub(crate) content: Content,
    /// How many equal elements are before it.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "index")]
    occurrence: usize,
    /// How many equal elements there are besides it.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "index")]
    others: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Content>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Content>,
    /// What else was in the list, if that was not long: not what is named above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    elsewhere: Option<Box<Surroundings>>,
}

/// What is before an element and behind it, beyond its neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Surroundings {
    before: ContentFilter,
    behind: ContentFilter,
}

/// Some contents, as a Bloom filter: what is among them is always found, and at most one of 40
/// others is taken for one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct ContentFilter([u64; 8]);

impl Surroundings {
    /// How long the list may be.
    const ROOM: usize = 64;

    /// Those of the element at `index`, if there are any, and not too many.
    fn of(list: &[Content], index: usize) -> Option<Box<Self>> {
        let before = list.get(..index.saturating_sub(1)).unwrap_or_default();
        let behind = list.get(index + 2..).unwrap_or_default();
        let is_known = list.len() <= Self::ROOM && !(before.is_empty() && behind.is_empty());
        is_known.then(|| {
            Box::new(Self {
                before: ContentFilter::of(before),
                behind: ContentFilter::of(behind),
            })
        })
    }

    fn contains(&self, content: Content) -> bool {
        self.before.contains(content) || self.behind.contains(content)
    }

    /// The index nearest to this one that is behind what was before the element, and before what
    /// was behind it. If they have changed places, it is this one.
    fn nearest_gap(&self, list: &[Content], index: usize) -> usize {
        let is_only_in = |one: &ContentFilter, other: &ContentFilter, content: &Content| {
            one.contains(*content) && !other.contains(*content)
        };
        let mut all = list.iter();
        let before = all.rposition(|content| is_only_in(&self.before, &self.behind, content));
        let mut all = list.iter();
        let behind = all.position(|content| is_only_in(&self.behind, &self.before, content));
        let (lowest, highest) = (before.map_or(0, |at| at + 1), behind.unwrap_or(list.len()));
        if lowest <= highest {
            index.clamp(lowest, highest)
        } else {
            index
        }
    }
}

impl ContentFilter {
    fn of(list: &[Content]) -> Self {
        let mut filter = Self::default();
        for content in list {
            filter.insert(*content);
        }
        filter
    }

    fn insert(&mut self, content: Content) {
        for bit in Self::bits(content) {
            self.0[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn contains(&self, content: Content) -> bool {
        Self::bits(content).all(|bit| self.0[bit / 64] & (1 << (bit % 64)) != 0)
    }

    fn bits(content: Content) -> impl Iterator<Item = usize> {
        content
            .parts()
            .into_iter()
            .map(|part| usize::from(part % 512))
    }
}

/// No list has as many elements as `usize` can count: that number and the next ones are no index.
fn index<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let index = usize::deserialize(deserializer)?;
    if isize::try_from(index).is_ok() {
        Ok(index)
    } else {
        Err(D::Error::custom("no list has this index"))
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Where an element is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementMatch {
    /// As it was.
    Same(usize),
    /// With another content, between what was beside it.
    Changed(usize),
    /// With another content, and only its place says that it is the one.
    Guessed(usize),
    /// An equal one is there, which may be another: it is away from its neighbours, and something
    /// else is between them.
    Unclear,
}

impl Element {
    /// The element at `index` of a list in which nothing equals it.
    pub(super) fn unique(list: &[Content], index: usize) -> Option<Self> {
        Some(Self {
            index,
            content: *list.get(index)?,
            occurrence: 0,
            others: 0,
            previous: index.checked_sub(1).map(|previous| list[previous]),
            next: list.get(index + 1).copied(),
            elsewhere: Surroundings::of(list, index),
        })
    }

    /// The element at an index of a list of so many; `equal`: how many elements with its content
    /// are before it, and how many there are; `beside`: what is before and behind it.
    ///
    /// `None` if the list is short, so that more of it belongs to the name.
    pub(in crate::value) fn in_long_list(
        (index, length): (usize, usize),
        content: Content,
        equal: (usize, usize),
        beside: [Option<Content>; 2],
    ) -> Option<Self> {
        let [previous, next] = beside;
        let (occurrence, all) = equal;
        (length > Surroundings::ROOM).then(|| Self {
            index,
            content,
            occurrence,
            others: all - 1,
            previous,
            next,
            elsewhere: None,
        })
    }

    /// Whether it is where it was, and its neighbours too. This needs no look at the whole list, as
    /// [`find`](Self::find) does.
    pub(in crate::value) fn has_stayed(
        &self,
        mut content: impl FnMut(usize) -> Option<Content>,
    ) -> bool {
        self.others == 0 && self.is_at_its_index(&mut content)
    }

    /// The same of one that has equal ones. `equal`: how many elements with a content are before an
    /// index, and how many there are.
    pub(in crate::value) fn has_stayed_among_equals(
        &self,
        mut content: impl FnMut(usize) -> Option<Content>,
        equal: impl FnOnce(Content, usize) -> (usize, usize),
    ) -> bool {
        self.others > 0
            && self.is_at_its_index(&mut content)
            && equal(self.content, self.index) == (self.occurrence, self.others + 1)
    }

    fn is_at_its_index(&self, content: &mut impl FnMut(usize) -> Option<Content>) -> bool {
        let previous = self.index.checked_sub(1);
        content(self.index) == Some(self.content)
            && previous.and_then(&mut *content) == self.previous
            && content(self.index + 1) == self.next
    }

    /// The element at `index` of a list with these contents.
    pub(super) fn of(list: &[Content], index: usize) -> Option<Self> {
        let content = *list.get(index)?;
        let equal = |list: &[Content]| list.iter().filter(|other| **other == content).count();
        Some(Self {
            occurrence: equal(&list[..index]),
            others: equal(list) - 1,
            ..Self::unique(list, index)?
        })
    }

    /// How many bytes it owns beside itself.
    pub(super) fn owned_size(&self) -> usize {
        self.elsewhere.as_deref().map_or(0, size_of_val)
    }

    /// Whether it is the one element with this content.
    pub(super) fn is_the_only(&self, content: Content) -> bool {
        self.content == content && self.others == 0
    }

    pub(super) fn find(&self, list: &[Content]) -> Option<ElementMatch> {
        let same: Vec<usize> = (0..list.len())
            .filter(|at| list[*at] == self.content)
            .collect();
        let named = same.get(self.occurrence).copied();
        if same.len() <= self.others {
            // One of the equal ones is gone, or was changed; if it was this one, its neighbours
            // show it.
            let same = || named.map(ElementMatch::Same);
            let beside = || self.find_beside(list).or_else(|| self.find_by_index(list));
            return self.find_between(list).or_else(same).or_else(beside);
        }
        // If one of several equal ones is new, it is the one with the same neighbours.
        let is_equal_in_number = same.len() == self.others + 1;
        let closeness = |at: &usize| (self.closeness(list, *at), Some(*at) == named);
        let found = if is_equal_in_number {
            named
        } else {
            same.into_iter().rev().max_by_key(closeness)
        }?;
        // If it is away from its neighbours and another one is between them, it may have become
        // equal since.
        let is_away = self.closeness(list, found) == 0 && self.find_between(list).is_some();
        Some(if is_away {
            ElementMatch::Unclear
        } else {
            ElementMatch::Same(found)
        })
    }

    /// Whether what is before and behind `at` are its neighbours; an end of the list counts as one.
    fn neighbours_at(&self, list: &[Content], at: usize) -> (bool, bool) {
        let previous = at.checked_sub(1).map(|previous| list[previous]);
        (
            previous == self.previous,
            list.get(at + 1).copied() == self.next,
        )
    }

    /// A neighbour counts more than an end of the list, at which many elements may have been.
    fn closeness(&self, list: &[Content], at: usize) -> usize {
        let (previous, next) = self.neighbours_at(list, at);
        let weight = |neighbour: Option<Content>| if neighbour.is_some() { 2 } else { 1 };
        usize::from(previous) * weight(self.previous) + usize::from(next) * weight(self.next)
    }

    /// Whether this is no other element of the list that was seen.
    fn may_have_become(&self, content: Content) -> bool {
        let is_elsewhere = |elsewhere: &Surroundings| elsewhere.contains(content);
        !self.is_named(content) && !self.elsewhere.as_deref().is_some_and(is_elsewhere)
    }

    /// Whether this is its content, or that of a neighbour.
    fn is_named(&self, content: Content) -> bool {
        [Some(self.content), self.previous, self.next].contains(&Some(content))
    }

    fn find_between(&self, list: &[Content]) -> Option<ElementMatch> {
        let has_neighbours = self.previous.is_some() || self.next.is_some();
        let fits = |at: &usize| {
            self.may_have_become(list[*at]) && self.neighbours_at(list, *at) == (true, true)
        };
        self.nearest((0..list.len()).filter(fits))
            .filter(|_| has_neighbours)
            .map(ElementMatch::Changed)
    }

    fn find_beside(&self, list: &[Content]) -> Option<ElementMatch> {
        if list.contains(&self.content) {
            return None;
        }
        let fits = |at: &usize| self.closeness(list, *at) > 1 && self.may_have_become(list[*at]);
        self.nearest((0..list.len()).filter(fits))
            .map(|at| self.guess(list, at))
    }

    /// The only element of a list is still the one that was the only one.
    fn guess(&self, list: &[Content], at: usize) -> ElementMatch {
        let was_alone = self.previous.is_none() && self.next.is_none();
        if was_alone && list.len() == 1 {
            ElementMatch::Changed(at)
        } else {
            ElementMatch::Guessed(at)
        }
    }

    fn find_by_index(&self, list: &[Content]) -> Option<ElementMatch> {
        let moved = list.iter().any(|content| self.is_named(*content));
        let found = list
            .get(self.index)
            .filter(|found| self.may_have_become(**found));
        (found.is_some() && !moved).then(|| self.guess(list, self.index))
    }

    /// The index at which it would be if it is gone.
    pub(super) fn find_gap(&self, list: &[Content]) -> usize {
        let indexes_of = |neighbour: Option<Content>| {
            (0..list.len()).filter(move |at| Some(list[*at]) == neighbour)
        };
        let is_apart = |at: &usize| list.get(*at).copied() != self.next;
        let behind_previous = indexes_of(self.previous)
            .map(|previous| previous + 1)
            .min_by_key(|at| (is_apart(at), at.abs_diff(self.index)));
        // The one before the next neighbour may be the element, with another content, unless it is
        // where only elements before that were.
        let before_next = || {
            let next = self.nearest(indexes_of(self.next))?;
            Some(next - usize::from(next > self.index))
        };
        behind_previous.or_else(before_next).unwrap_or_else(|| {
            let index = self.index.min(list.len());
            match self.elsewhere.as_deref() {
                Some(elsewhere) => elsewhere.nearest_gap(list, index),
                None => index,
            }
        })
    }

    fn nearest(&self, indexes: impl Iterator<Item = usize>) -> Option<usize> {
        indexes.min_by_key(|at| at.abs_diff(self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(list: &str) -> Vec<Content> {
        list.split_whitespace()
            .map(|element| Content::of(&format!("\"{element}\"")))
            .collect()
    }

    #[test]
    fn an_element_is_found_where_it_is_now() {
        use ElementMatch::{Changed, Guessed, Same, Unclear};
        for (seen, index, now, found) in [
            ("a b c", 1, "a b c", Some(Same(1))),
            ("a b c", 1, "b c", Some(Same(0))),
            ("a b c", 1, "x y a b c", Some(Same(3))),
            // Changed inside.
            ("a b c", 1, "a B c", Some(Changed(1))),
            ("a b c", 1, "x a B c", Some(Changed(2))),
            ("a b c", 1, "A B c", Some(Guessed(1))),
            ("a b c", 1, "A B C", Some(Guessed(1))),
            ("a", 0, "A", Some(Changed(0))),
            ("a", 0, "A x", Some(Guessed(0))),
            ("a b", 1, "a B x", Some(Guessed(1))),
            // Gone.
            ("a b c", 1, "a c", None),
            ("a b c", 0, "b c", None),
            ("a b c", 2, "a b", None),
            ("a b", 0, "", None),
            ("a b c", 2, "A B", None),
            // Another one is in its place.
            ("a b c", 2, "b a", None),
            ("a p e n", 2, "p a n", None),
            ("a b c d", 2, "b a", None),
            ("a b c d", 3, "d x c a", Some(Same(0))),
            ("a b c d e f", 2, "f", None),
            // Equal ones, by occurrence.
            ("a a", 0, "a", Some(Same(0))),
            ("a a", 1, "a", None),
            ("a b a", 2, "b x a", None),
            ("a b a", 2, "a x b a", Some(Same(3))),
            ("a a", 1, "x a a", Some(Same(2))),
            ("a x", 0, "a a x", Some(Same(1))),
            ("a x", 0, "a y a", Some(Same(0))),
            // Moved away and replaced, or changed while another became equal: nobody knows.
            ("a b c", 1, "a x c b", Some(Unclear)),
            ("a b c", 1, "a x b y c", Some(Same(2))),
            // The first of two equal ones was changed, and the second is another.
            ("a a", 0, "A a", Some(Changed(0))),
            ("a a b", 1, "a A b", Some(Changed(1))),
        ] {
            let element = Element::of(&contents(seen), index).unwrap();
            assert_eq!(
                element.find(&contents(now)),
                found,
                "{index} of {seen:?} in {now:?}"
            );
        }
    }

    /// What is added before it, whatever becomes of it, stays between its neighbours.
    #[test]
    fn what_is_added_before_an_element_that_is_gone_goes_beside_its_neighbours() {
        for (seen, index, now, gap) in [
            ("a b c", 1, "a c", 1),
            ("a b c", 1, "x y a c", 3),
            ("a b c", 1, "a x y c", 1),
            // Of two equal neighbours it is the one with the other neighbour behind it.
            ("a b c", 1, "a x a c", 3),
            ("a b", 1, "a x y a", 4),
            // One neighbour is gone too.
            ("a b c", 1, "x a", 2),
            ("a b c", 0, "x b c", 0),
            ("a b c d", 2, "a d", 1),
            ("a b c d", 2, "x a", 2),
            // It may be the one before the next neighbour.
            ("a b c", 1, "A B c", 1),
            ("a b c", 1, "x y", 1),
            ("a b c", 2, "x", 1),
            // Both are, and something else is there.
            ("a b c d e", 1, "x y", 1),
            ("a b c d e", 1, "e", 0),
            ("a b c d e", 1, "x d", 1),
            ("a b c d e", 1, "d x", 0),
            ("a b c d e", 3, "a", 1),
            ("a b c d e", 3, "x y z b a w", 5),
            ("a b c d e f", 2, "f a x", 2),
            ("a", 0, "", 0),
        ] {
            let element = Element::of(&contents(seen), index).unwrap();
            let found = element.find_gap(&contents(now));
            assert_eq!(found, gap, "{index} of {seen:?} in {now:?}");
        }
    }
}
