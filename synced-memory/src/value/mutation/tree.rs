//! A value as text that is parsed only along the paths of operations.
//!
//! What was not parsed is kept as one piece, and the white space around what was parsed is kept
//! too: written again without a change, the text is the same byte for byte.

use std::borrow::Cow;
use std::collections::HashMap;

use super::text::{self, is_space, kind, mismatch, read_name, reads_as};
use super::{ApplyError, Content, Json, MemberName};

#[derive(Debug, Clone)]
pub(in crate::value) enum TreeNode<'a> {
    Text(Cow<'a, str>),
    /// A list, and items to append to it.
    Grown(&'a str, Vec<&'a str>),
    List(List<'a>),
    Object(Object<'a>),
}

#[derive(Debug, Clone)]
pub(in crate::value) struct List<'a> {
    slots: Vec<ListNode<'a>>,
    /// What is between the brackets as long as there is no element.
    inner: &'a str,
}

#[derive(Debug, Clone)]
struct ListNode<'a> {
    /// The white space before and after it.
    space: (&'a str, &'a str),
    node: TreeNode<'a>,
    content: Option<Content>,
}

#[derive(Debug, Clone)]
pub(in crate::value) struct Object<'a> {
    members: Vec<ObjectMember<'a>>,
    inner: &'a str,
    index: Index<'a>,
}

/// The index of each member by name, made only if it is used often.
#[derive(Debug, Clone)]
enum Index<'a> {
    /// How many lookups there were.
    Unmade(usize),
    Made(HashMap<Cow<'a, str>, usize>),
}

#[derive(Debug, Clone)]
struct ObjectMember<'a> {
    space: (&'a str, &'a str),
    /// With its quotes.
    name: Cow<'a, str>,
    colon: &'a str,
    node: TreeNode<'a>,
}

/// What is to become of a node.
#[derive(Debug)]
pub(in crate::value) enum NodeEdit<'a> {
    /// It stays, or was changed in place.
    Keep,
    Replace(TreeNode<'a>),
    Remove,
}

impl<'a> From<&'a Json> for TreeNode<'a> {
    fn from(value: &'a Json) -> Self {
        Self::from(value.as_str())
    }
}

impl<'a> From<&'a str> for TreeNode<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> TreeNode<'a> {
    /// The list that this is.
    pub(super) fn list(&mut self) -> Result<&mut List<'a>, ApplyError> {
        match self {
            Self::Text(Cow::Borrowed(text)) => *self = Self::List(List::parse(text)?),
            Self::Grown(text, items) => {
                let mut list = List::parse(text)?;
                list.slots.extend(items.drain(..).map(ListNode::new));
                *self = Self::List(list);
            }
            _ => {}
        }
        match self {
            Self::List(list) => Ok(list),
            other => Err(mismatch(&other.to_text(), text::LIST)),
        }
    }

    /// The object that this is.
    pub(super) fn object(&mut self) -> Result<&mut Object<'a>, ApplyError> {
        if let Self::Text(Cow::Borrowed(text)) = self {
            *self = Self::Object(Object::parse(text)?);
        }
        match self {
            Self::Object(object) => Ok(object),
            other => Err(mismatch(&other.to_text(), text::OBJECT)),
        }
    }

    /// Adds to the end of the list that this is, which need not be parsed for that.
    pub(super) fn append(&mut self, items: &'a [Json]) -> Result<(), ApplyError> {
        match self {
            Self::Text(Cow::Borrowed(text)) if kind(text) == text::LIST => {
                if text.len() < 2 || !text.ends_with(']') {
                    return Err(ApplyError::Invalid);
                }
                *self = Self::Grown(text, items.iter().map(Json::as_str).collect());
            }
            Self::Grown(_, grown) => grown.extend(items.iter().map(Json::as_str)),
            _ => self.list()?.insert(usize::MAX, items),
        }
        Ok(())
    }

    pub(in crate::value) fn content(&self) -> Content {
        Content::of(&self.to_text())
    }

    pub(in crate::value) fn to_text(&self) -> Cow<'_, str> {
        if let Self::Text(text) = self {
            return Cow::Borrowed(text);
        }
        let mut text = String::new();
        self.write(&mut text);
        Cow::Owned(text)
    }

    /// The text that it is, if nothing was changed in it.
    pub(in crate::value) fn unchanged(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Grown(..) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The list of which this is a longer version, and the items that it has more.
    pub(in crate::value) fn grown(&self) -> Option<(&'a str, &[&'a str])> {
        match self {
            Self::Grown(text, items) => Some((text, items)),
            Self::Text(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    pub(in crate::value) fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Grown(text, items) => {
                let own = &text[..text.len() - 1];
                out.push_str(own);
                let mut is_first = own[1..].trim_start_matches(is_space).is_empty();
                for item in items {
                    if !std::mem::take(&mut is_first) {
                        out.push(',');
                    }
                    out.push_str(item);
                }
                out.push(']');
            }
            Self::List(List { slots, inner }) => {
                write_all(out, ['[', ']'], inner, slots, |slot, out| {
                    out.push_str(slot.space.0);
                    slot.node.write(out);
                    out.push_str(slot.space.1);
                });
            }
            Self::Object(Object { members, inner, .. }) => {
                write_all(out, ['{', '}'], inner, members, |member, out| {
                    out.push_str(member.space.0);
                    out.push_str(&member.name);
                    out.push_str(member.colon);
                    member.node.write(out);
                    out.push_str(member.space.1);
                });
            }
        }
    }
}

fn write_all<T>(
    out: &mut String,
    brackets: [char; 2],
    inner: &str,
    parts: &[T],
    write: impl Fn(&T, &mut String),
) {
    out.push(brackets[0]);
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(part, out);
    }
    if parts.is_empty() {
        out.push_str(inner);
    }
    out.push(brackets[1]);
}

impl<'a> ListNode<'a> {
    fn content(&mut self) -> Content {
        *self.content.get_or_insert_with(|| self.node.content())
    }

    fn new(text: &'a str) -> Self {
        Self {
            space: ("", ""),
            node: text.into(),
            content: None,
        }
    }
}

impl<'a> List<'a> {
    fn parse(text: &'a str) -> Result<Self, ApplyError> {
        let elements = text::elements(text)?;
        let mut pieces = Pieces { text, at: 1 };
        let slots = elements
            .into_iter()
            .map(|element| {
                let (before, after) = pieces.around(element, element);
                ListNode {
                    space: (before, after),
                    node: element.into(),
                    content: None,
                }
            })
            .collect::<Vec<_>>();
        let inner = if slots.is_empty() {
            &text[1..text.len() - 1]
        } else {
            ""
        };
        Ok(Self { slots, inner })
    }

    pub(super) fn contents(&mut self) -> Vec<Content> {
        self.slots.iter_mut().map(ListNode::content).collect()
    }

    pub(super) fn content(&mut self, at: usize) -> Option<Content> {
        self.slots.get_mut(at).map(ListNode::content)
    }

    /// The element at an index that exists.
    pub(super) fn node(&mut self, at: usize) -> &mut TreeNode<'a> {
        let slot = &mut self.slots[at];
        slot.content = None;
        &mut slot.node
    }

    /// Applies an edit to the element at an index that exists.
    pub(super) fn apply_edit(&mut self, at: usize, edit: NodeEdit<'a>) {
        match edit {
            NodeEdit::Keep => {}
            NodeEdit::Replace(node) => *self.node(at) = node,
            NodeEdit::Remove => _ = self.slots.remove(at),
        }
    }

    /// Adds items before the element at `at`, or at the end.
    pub(super) fn insert(&mut self, at: usize, items: &'a [Json]) {
        let at = at.min(self.slots.len());
        self.slots.splice(
            at..at,
            items.iter().map(|item| ListNode::new(item.as_str())),
        );
    }

    pub(super) fn keyed_contents(&self) -> Vec<Content> {
        let texts = self.slots.iter().map(|slot| slot.node.to_text());
        texts.map(|text| Content::keyed(&text)).collect()
    }

    /// Keeps the elements for which `keeps`, in their order, is true.
    pub(super) fn retain(&mut self, mut keeps: impl Iterator<Item = bool>) {
        self.slots.retain(|_| keeps.next().unwrap_or(true));
    }
}

impl<'a> Object<'a> {
    fn parse(text: &'a str) -> Result<Self, ApplyError> {
        let members = text::members(text)?;
        let mut pieces = Pieces { text, at: 1 };
        let members = members
            .into_iter()
            .map(|(name, value)| {
                let (before, after) = pieces.around(name, value);
                let colon = &text[pieces.offset(name) + name.len()..pieces.offset(value)];
                ObjectMember {
                    space: (before, after),
                    name: Cow::Borrowed(name),
                    colon,
                    node: value.into(),
                }
            })
            .collect::<Vec<_>>();
        let inner = if members.is_empty() {
            &text[1..text.len() - 1]
        } else {
            ""
        };
        Ok(Self {
            members,
            inner,
            index: Index::Unmade(0),
        })
    }

    /// The index of a member; of several with one name, that of the last one.
    pub(super) fn find(&mut self, member: &MemberName) -> Option<usize> {
        if let Index::Unmade(times) = &mut self.index {
            *times += 1;
            if *times < 8 {
                let last = |name: &str| {
                    self.members
                        .iter()
                        .rposition(|entry| reads_as(&entry.name, name))
                };
                return member.position(last);
            }
            let names = self.members.iter().map(|entry| match &entry.name {
                Cow::Borrowed(name) => read_name(name),
                Cow::Owned(name) => Cow::Owned(read_name(name).into_owned()),
            });
            self.index = Index::Made(names.zip(0..).collect());
        }
        match &self.index {
            Index::Made(index) => member.position(|name| index.get(name).copied()),
            Index::Unmade(_) => None,
        }
    }

    pub(super) fn node(&mut self, at: usize) -> &mut TreeNode<'a> {
        &mut self.members[at].node
    }

    /// Applies an edit to the member, which is at `at` if it exists.
    pub(super) fn apply_edit(
        &mut self,
        at: Option<usize>,
        member: &MemberName,
        edit: NodeEdit<'a>,
    ) {
        match (edit, at) {
            (NodeEdit::Keep, _) => {}
            (NodeEdit::Replace(node), Some(at)) => self.members[at].node = node,
            (NodeEdit::Replace(node), None) => {
                let name = serde_json::Value::from(&*member.name).to_string();
                if let Index::Made(index) = &mut self.index {
                    index.insert(Cow::Owned(member.name.to_string()), self.members.len());
                }
                self.members.push(ObjectMember {
                    space: ("", ""),
                    name: Cow::Owned(name),
                    colon: ":",
                    node,
                });
            }
            // All that have its name: an earlier one would count once the last one is gone.
            (NodeEdit::Remove, _) => {
                self.members
                    .retain(|entry| !member.names().any(|name| reads_as(&entry.name, name)));
                self.index = Index::Unmade(0);
            }
        }
    }
}

/// Cuts a list or an object into its parts and the white space around them.
struct Pieces<'a> {
    text: &'a str,
    /// Behind the last bracket or comma.
    at: usize,
}

impl<'a> Pieces<'a> {
    /// The white space before and after the part from `first` to `last`.
    fn around(&mut self, first: &str, last: &str) -> (&'a str, &'a str) {
        let before = &self.text[self.at..self.offset(first)];
        let end = self.offset(last) + last.len();
        let rest = &self.text[end..];
        let after = &rest[..rest.find(|letter| !is_space(letter)).unwrap_or_default()];
        self.at = end + after.len() + 1;
        (before, after)
    }

    /// Where a part of the text begins.
    fn offset(&self, part: &str) -> usize {
        part.as_ptr().addr() - self.text.as_ptr().addr()
    }
}
