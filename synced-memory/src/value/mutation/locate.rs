//! Making the path of an operation, in what its writer sees.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use super::{ApplyError, Content, Element, Json, MemberName, PathStep, text};

/// One step of a path as a caller names it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PathSegment {
    Member(MemberName),
    /// An entry of a map whose keys have more than one spelling.
    Entry(MemberName, OwnSpelling),
    Index(usize),
}

/// Whether the type of a key reads two names as the same key.
pub(crate) type Spelling = fn(&str, &str) -> bool;

/// A [`Spelling`]. All are equal: those at one path are of one type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnSpelling(pub(crate) Spelling);

impl PartialEq for OwnSpelling {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A location in a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Location<'a> {
    /// The path for operations on it.
    pub(crate) path: Vec<PathStep>,
    /// What is there or, for a missing member, its origin. `None` if there is neither.
    pub(crate) found: Option<&'a str>,
    /// Whether it is there, and not only its origin.
    pub(crate) exists: bool,
    /// Whoever records on it knows from the backend what is there now.
    pub(crate) is_current: bool,
}

/// Finds a location in what a read shows; `None` is an unset key, which counts as `origin`.
///
/// # Errors
///
/// `Unset` below something that is missing, `Gone` for an index that is out of range.
pub(crate) fn locate<'a>(
    value: Option<&'a str>,
    origin: Option<&'a Json>,
    segments: &'a [PathSegment],
) -> Result<Location<'a>, ApplyError> {
    let mut location = Location {
        path: Vec::with_capacity(segments.len()),
        found: value
            .map(|value| value.trim_matches(text::is_space))
            .or(origin.map(Json::as_str)),
        exists: value.is_some(),
        is_current: false,
    };
    for segment in segments {
        let parent = location.found.ok_or(ApplyError::Unset)?;
        match segment {
            PathSegment::Member(member) => {
                location.step_into(parent, member, None)?;
                location.path.push(PathStep::Member(member.clone()));
            }
            PathSegment::Entry(member, OwnSpelling(spelling)) => {
                let mut member_there = member.clone();
                if let Some(name) = location.step_into(parent, member, Some(*spelling))? {
                    // Later it may be under the one name or the other.
                    member_there.also = member_there.also.iter().cloned().chain([name]).collect();
                }
                location.path.push(PathStep::Member(member_there));
            }
            PathSegment::Index(index) => {
                let elements = text::elements(parent)?;
                let contents: Vec<Content> = elements
                    .iter()
                    .map(|element| Content::of(element))
                    .collect();
                location.path.push(PathStep::Element(
                    Element::of(&contents, *index).ok_or(ApplyError::Gone)?,
                ));
                location.found = Some(elements[*index]);
            }
        }
    }
    Ok(location)
}

/// What is at a path, and whether it is there and not only its origin; `None` if there is nothing.
///
/// # Errors
///
/// `Type` and `Invalid` if a parent on the path is of another type, or no JSON.
pub(crate) fn look<'a>(
    value: Option<&'a str>,
    origin: Option<&'a Json>,
    segments: &'a [PathSegment],
) -> Result<(Option<&'a str>, bool), ApplyError> {
    let mut location = locate(value, origin, &[])?;
    for segment in segments {
        let Some(parent) = location.found else {
            return Ok((None, false));
        };
        match segment {
            PathSegment::Member(member) => _ = location.step_into(parent, member, None)?,
            PathSegment::Entry(member, OwnSpelling(spelling)) => {
                _ = location.step_into(parent, member, Some(*spelling))?;
            }
            PathSegment::Index(index) => {
                location.found = text::elements(parent)?.get(*index).copied();
                location.exists &= location.found.is_some();
            }
        }
    }
    Ok((location.found, location.exists))
}

impl<'a> Location<'a> {
    /// Goes on to a member. Returns the name under which it was found, if that is none of its own.
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
        let is_spelled_so = |quoted: &str| {
            spelling.is_some_and(|is_same| is_same(&member.name, &text::read_name(quoted)))
        };
        let by_value = || members.iter().rfind(|(quoted, _)| is_spelled_so(quoted));
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
    pub(super) fn segment(&self) -> PathSegment {
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

/// The element at `index` of these, as an operation names it; `None` if the index is out of range.
pub(crate) fn element(elements: &[&str], index: usize) -> Option<Element> {
    let contents: Vec<Content> = elements
        .iter()
        .map(|element| Content::of(element))
        .collect();
    Element::of(&contents, index)
}

/// The members of an object, with names as they read; of several with one name, only the last one.
pub(crate) fn members(object: &str) -> Result<Vec<(Cow<'_, str>, &str)>, ApplyError> {
    let mut members: Vec<(Cow<'_, str>, &str)> = Vec::new();
    let mut at: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for (name, value) in text::members(object)? {
        let name = text::read_name(name);
        match at.entry(name.clone()) {
            Occupied(index) => members[*index.get()].1 = value,
            Vacant(index) => {
                index.insert(members.len());
                members.push((name, value));
            }
        }
    }
    Ok(members)
}

/// The value of the member of an object that has this name.
pub(crate) fn member<'a>(object: &'a str, name: &str) -> Result<Option<&'a str>, ApplyError> {
    let members = text::members(object)?;
    Ok(members
        .into_iter()
        .rev()
        .find(|(quoted, _)| text::reads_as(quoted, name))
        .map(|(_, value)| value))
}
