//! Making the path of an operation: where its writer means, in what its writer sees.

use super::{Content, Element, Json, Member, Misfit, Step, text};

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
                let found = member_of(parent, member)?;
                spot.exists &= found.is_some();
                spot.found = found.or(member.origin.as_ref().map(Json::as_str));
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

/// The element at `index` of a list, as an operation names it; `None` where the index is out of range.
pub(crate) fn element(list: &str, index: usize) -> Result<Option<Element>, Misfit> {
    let contents: Vec<Content> = text::elements(list)?.into_iter().map(Content::of).collect();
    Ok(Element::of(&contents, index))
}
