//! Making the path of an operation, in what its writer sees.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::{ApplyError, Content, Element, Json, MemberName, PathStep, text};

/// One step of a path as a caller names it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PathSegment {
    Member(MemberName),
    /// An entry of a map whose keys have more than one spelling.
    Entry(MemberName, OwnSpelling),
    Index(usize),
}

/// For each name the index of the first one that the type of a key reads as the same key.
pub(crate) type Spelling = fn(&[&str]) -> Vec<usize>;

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
                location.step_into(parent, member)?;
                location.path.push(PathStep::Member(member.clone()));
            }
            PathSegment::Entry(member, OwnSpelling(spelling)) => {
                let member = location.step_into_entry(parent, member, *spelling)?;
                location.path.push(PathStep::Member(member));
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
            PathSegment::Member(member) => location.step_into(parent, member)?,
            PathSegment::Entry(member, OwnSpelling(spelling)) => {
                location.step_into_entry(parent, member, *spelling)?;
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
    /// Goes on to a member.
    fn step_into(&mut self, parent: &'a str, member: &'a MemberName) -> Result<(), ApplyError> {
        let members = text::members(parent)?;
        let last = |name: &str| {
            members
                .iter()
                .rposition(|(quoted, _)| text::reads_as(quoted, name))
        };
        let found = member.position(last).map(|at| members[at].1);
        self.arrive(found, member);
        Ok(())
    }

    /// Goes on to an entry of a map. Returns it with all the names that it has there.
    fn step_into_entry(
        &mut self,
        parent: &'a str,
        member: &'a MemberName,
        spelling: Spelling,
    ) -> Result<MemberName, ApplyError> {
        let members = members(parent)?;
        let (at, spelled) = locate_spelled(&member.name, &members, spelling);
        self.arrive(at.map(|at| members[at].1), member);
        Ok(MemberName {
            origin: member.origin.clone(),
            ..spelled
        })
    }

    fn arrive(&mut self, found: Option<&'a str>, member: &'a MemberName) {
        self.exists &= found.is_some();
        self.found = found.or(member.origin.as_ref().map(Json::as_str));
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
    let all = text::members(object)?;
    let mut names = HashSet::with_capacity(all.len());
    let mut members: Vec<_> = all
        .into_iter()
        .rev()
        .map(|(name, value)| (text::read_name(name), value))
        .filter(|(name, _)| names.insert(name.clone()))
        .collect();
    members.reverse();
    Ok(members)
}

/// Where the entry with a key is among these members, and as which member it is changed. Of several
/// spellings of the key the last one is the entry, as in a map that is read.
pub(crate) fn locate_spelled(
    own: &str,
    members: &[(Cow<'_, str>, &str)],
    spelling: Spelling,
) -> (Option<usize>, MemberName) {
    let mut located = locate_all_spelled([own].into_iter(), members, spelling);
    located.pop().expect("one for each key")
}

/// The same for several keys.
pub(crate) fn locate_all_spelled<'k>(
    keys: impl Iterator<Item = &'k str>,
    members: &'k [(Cow<'_, str>, &str)],
    spelling: Spelling,
) -> Vec<(Option<usize>, MemberName)> {
    let names: Vec<&str> = members
        .iter()
        .map(|(name, _)| &**name)
        .chain(keys)
        .collect();
    let (stored, keys) = names.split_at(members.len());
    let first = spelling(&names);
    let (first_of_stored, first_of_keys) = first.split_at(members.len());
    let mut positions: HashMap<usize, Vec<usize>> = first_of_keys
        .iter()
        .map(|first| (*first, Vec::new()))
        .collect();
    for (at, first) in first_of_stored.iter().enumerate() {
        if let Some(positions) = positions.get_mut(first) {
            positions.push(at);
        }
    }
    keys.iter()
        .zip(first_of_keys)
        .map(|(key, first)| {
            let positions = &positions[first];
            let spellings = positions.iter().map(|at| stored[*at]);
            (
                positions.last().copied(),
                MemberName::spelled(key, spellings),
            )
        })
        .collect()
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
