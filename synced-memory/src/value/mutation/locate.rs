//! Making the path of an operation: where its writer means, in what its writer sees.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use super::{ApplyError, Content, Element, Json, MemberName, PathStep, text};

/// One step as a user says it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PathSegment {
    Member(MemberName),
    /// An entry of a map whose keys have more than one spelling.
    Entry(MemberName, OwnSpelling),
    Index(usize),
}

/// Whether the type of a key reads the same one from two names.
pub(crate) type Spelling = fn(&str, &str) -> bool;

/// A [`Spelling`]. Two are never told apart: those at one place are of one type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnSpelling(pub(crate) Spelling);

impl PartialEq for OwnSpelling {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A place in a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Location<'a> {
    /// The path for operations at this place.
    pub(crate) path: Vec<PathStep>,
    /// What is there; of a missing member, what it is taken for. `None` where there is neither.
    pub(crate) found: Option<&'a str>,
    /// Whether it is there, and not only taken for something.
    pub(crate) exists: bool,
    /// Whoever records on it was told what is there now.
    pub(crate) is_current: bool,
}

/// Goes to a place in what a read shows; `None` is an unset key, and `origin` what it is taken for.
///
/// # Errors
///
/// `Unset` below something that is missing, `Gone` for an index that is out of range.
pub(crate) fn locate<'a>(
    value: Option<&'a str>,
    origin: Option<&'a Json>,
    places: &'a [PathSegment],
) -> Result<Location<'a>, ApplyError> {
    let mut spot = Location {
        path: Vec::with_capacity(places.len()),
        found: value
            .map(|value| value.trim_matches(text::is_space))
            .or(origin.map(Json::as_str)),
        exists: value.is_some(),
        is_current: false,
    };
    for place in places {
        let parent = spot.found.ok_or(ApplyError::Unset)?;
        match place {
            PathSegment::Member(member) => {
                spot.step_into(parent, member, None)?;
                spot.path.push(PathStep::Member(member.clone()));
            }
            PathSegment::Entry(member, OwnSpelling(spelling)) => {
                let mut member_there = member.clone();
                if let Some(name) = spot.step_into(parent, member, Some(*spelling))? {
                    // Where it is looked for again, it is under the one name or the other.
                    member_there.also = member_there.also.iter().cloned().chain([name]).collect();
                }
                spot.path.push(PathStep::Member(member_there));
            }
            PathSegment::Index(index) => {
                let elements = text::elements(parent)?;
                let contents: Vec<Content> = elements
                    .iter()
                    .map(|element| Content::of(element))
                    .collect();
                spot.path.push(PathStep::Element(
                    Element::of(&contents, *index).ok_or(ApplyError::Gone)?,
                ));
                spot.found = Some(elements[*index]);
            }
        }
    }
    Ok(spot)
}

/// What is at a place, and whether it is there and not only taken for something; `None` where there
/// is nothing.
///
/// # Errors
///
/// `Type` and `Invalid` where something else than a parent of the place is there.
pub(crate) fn look<'a>(
    value: Option<&'a str>,
    origin: Option<&'a Json>,
    places: &'a [PathSegment],
) -> Result<(Option<&'a str>, bool), ApplyError> {
    let mut spot = locate(value, origin, &[])?;
    for place in places {
        let Some(parent) = spot.found else {
            return Ok((None, false));
        };
        match place {
            PathSegment::Member(member) => _ = spot.step_into(parent, member, None)?,
            PathSegment::Entry(member, OwnSpelling(spelling)) => {
                _ = spot.step_into(parent, member, Some(*spelling))?;
            }
            PathSegment::Index(index) => {
                spot.found = text::elements(parent)?.get(*index).copied();
                spot.exists &= spot.found.is_some();
            }
        }
    }
    Ok((spot.found, spot.exists))
}

impl<'a> Location<'a> {
    /// Returns the name under which it was found, where that is none of its own.
    fn step_into(
        &mut self,
        parent: &'a str,
        member: &'a MemberName,
        spelling: Option<Spelling>,
    ) -> Result<Option<Box<str>>, ApplyError> {
        let members = text::members(parent)?;
        let by_name = |name: &str| {
            members
                .iter()
                .rfind(|(quoted, _)| text::reads_as(quoted, name))
        };
        let is_it =
            |quoted: &str, spelling: Spelling| spelling(&member.name, &text::read_name(quoted));
        let by_value = || {
            members
                .iter()
                .rfind(|(quoted, _)| spelling.is_some_and(|spelling| is_it(quoted, spelling)))
        };
        let (found, spelled) = match member.names().find_map(by_name) {
            Some(found) => (Some(found), None),
            None => by_value().map_or((None, None), |found| {
                (Some(found), Some(text::read_name(found.0).into()))
            }),
        };
        self.exists &= found.is_some();
        self.found = found
            .map(|(_, value)| *value)
            .or(member.origin.as_ref().map(Json::as_str));
        Ok(spelled)
    }
}

impl PathStep {
    pub(super) fn place(&self) -> PathSegment {
        match self {
            Self::Member(member) => PathSegment::Member(member.clone()),
            Self::Element(element) => PathSegment::Index(element.index),
        }
    }
}

/// The elements of a list.
pub(crate) fn elements(list: &str) -> Result<Vec<&str>, ApplyError> {
    text::elements(list)
}

/// The element at `index` of these, as an operation names it; `None` where the index is out of
/// range.
pub(crate) fn element(elements: &[&str], index: usize) -> Option<Element> {
    let contents: Vec<Content> = elements
        .iter()
        .map(|element| Content::of(element))
        .collect();
    Element::of(&contents, index)
}

/// The members of an object, with the names as they read; of those with one name the last one
/// alone.
pub(crate) fn members(object: &str) -> Result<Vec<(Cow<'_, str>, &str)>, ApplyError> {
    let mut members: Vec<(Cow<'_, str>, &str)> = Vec::new();
    let mut at: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for (name, value) in text::members(object)? {
        let name = text::read_name(name);
        match at.entry(name.clone()) {
            Occupied(place) => members[*place.get()].1 = value,
            Vacant(place) => {
                place.insert(members.len());
                members.push((name, value));
            }
        }
    }
    Ok(members)
}

/// What is at the member of an object that has this name.
pub(crate) fn member<'a>(object: &'a str, name: &str) -> Result<Option<&'a str>, ApplyError> {
    let members = text::members(object)?;
    Ok(members
        .into_iter()
        .rev()
        .find(|(quoted, _)| text::reads_as(quoted, name))
        .map(|(_, value)| value))
}
