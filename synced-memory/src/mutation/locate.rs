//! Making the path of an operation: where its writer means, in what its writer sees.

use super::{Content, Element, Json, Member, Misfit, Step, text};
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};

/// One step as a user says it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    Member(Member),
    Index(usize),
}

/// A place in a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spot<'a> {
    /// The path for operations at this place.
    pub(crate) path: Vec<Step>,
    /// What is there; of a missing member, what it is taken for. `None` where there is neither.
    pub(crate) found: Option<&'a str>,
    /// Whether it is there, and not only taken for something.
    pub(crate) exists: bool,
}

/// Goes to a place in what a read shows; `None` is an unset key, and `origin` what it is taken for.
///
/// # Errors
///
/// `Unset` below something that is missing, `Gone` for an index that is out of range.
pub(crate) fn locate<'a>(
    value: Option<&'a str>,
    origin: Option<&'a Json>,
    places: &'a [Place],
) -> Result<Spot<'a>, Misfit> {
    let mut spot = Spot {
        path: Vec::with_capacity(places.len()),
        found: value.map(|value| value.trim_matches(text::is_space)).or(origin.map(Json::as_str)),
        exists: value.is_some(),
    };
    for place in places {
        let parent = spot.found.ok_or(Misfit::Unset)?;
        match place {
            Place::Member(member) => {
                spot.step_into(parent, member)?;
                spot.path.push(Step::Member(member.clone()));
            }
            Place::Index(index) => {
                let elements = text::elements(parent)?;
                let contents: Vec<Content> = elements.iter().map(|element| Content::of(element)).collect();
                spot.path.push(Step::Element(Element::of(&contents, *index).ok_or(Misfit::Gone)?));
                spot.found = Some(elements[*index]);
            }
        }
    }
    Ok(spot)
}

/// What is at a place, and whether it is there and not only taken for something; `None` where there is
/// nothing.
///
/// # Errors
///
/// `Type` and `Invalid` where something else than a parent of the place is there.
pub(crate) fn look<'a>(
    value: Option<&'a str>,
    origin: Option<&'a Json>,
    places: &'a [Place],
) -> Result<(Option<&'a str>, bool), Misfit> {
    let mut spot = locate(value, origin, &[])?;
    for place in places {
        let Some(parent) = spot.found else { return Ok((None, false)) };
        match place {
            Place::Member(member) => spot.step_into(parent, member)?,
            Place::Index(index) => {
                spot.found = text::elements(parent)?.get(*index).copied();
                spot.exists &= spot.found.is_some();
            }
        }
    }
    Ok((spot.found, spot.exists))
}

impl<'a> Spot<'a> {
    fn step_into(&mut self, parent: &'a str, member: &'a Member) -> Result<(), Misfit> {
        let found = member_of(parent, member)?;
        self.exists &= found.is_some();
        self.found = found.or(member.origin.as_ref().map(Json::as_str));
        Ok(())
    }
}

fn member_of<'a>(object: &'a str, member: &Member) -> Result<Option<&'a str>, Misfit> {
    let members = text::members(object)?;
    let find = |name: &str| members.iter().rev().find(|(quoted, _)| text::reads_as(quoted, name));
    Ok(member.names().find_map(find).map(|(_, value)| *value))
}

impl Step {
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Member(member) => Place::Member(member.clone()),
            Self::Element(element) => Place::Index(element.index),
        }
    }
}

/// The elements of a list.
pub(crate) fn elements(list: &str) -> Result<Vec<&str>, Misfit> {
    text::elements(list)
}

/// The element at `index` of these, as an operation names it; `None` where the index is out of range.
pub(crate) fn element(elements: &[&str], index: usize) -> Option<Element> {
    let contents: Vec<Content> = elements.iter().map(|element| Content::of(element)).collect();
    Element::of(&contents, index)
}

/// The members of an object, with the names as they read; of those with one name the last one alone.
pub(crate) fn members(object: &str) -> Result<Vec<(Cow<'_, str>, &str)>, Misfit> {
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
pub(crate) fn member<'a>(object: &'a str, name: &str) -> Result<Option<&'a str>, Misfit> {
    let members = text::members(object)?;
    Ok(members.into_iter().rev().find(|(quoted, _)| text::reads_as(quoted, name)).map(|(_, value)| value))
}
