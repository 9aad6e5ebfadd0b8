//! Older forms of a part of a value, and other forms that its type reads as the same.

use super::forms::Tree;

fn text(text: &str) -> Tree {
    Tree::Text(text.to_owned())
}

fn member<'a>(tree: &'a Tree, name: &str) -> Option<&'a Tree> {
    let Tree::Object(members) = tree else {
        return None;
    };
    members
        .iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value)
}

fn is_empty(tree: Option<&Tree>) -> bool {
    tree.is_some_and(|tree| matches!(tree, Tree::List(items) if items.is_empty()))
}

/// Adds members that its type omits when it writes them.
pub(super) fn explicit(tree: &Tree) -> Option<Tree> {
    let Tree::Object(members) = tree else {
        return None;
    };
    let mut members = members.clone();
    let absent = [
        ("note", Tree::Literal("null")),
        ("list", Tree::List(vec![])),
        ("map", Tree::Object(vec![])),
    ];
    members.extend(
        [("old", Tree::List(vec![]))]
            .into_iter()
            .chain(absent)
            .filter_map(|(name, value)| {
                member(tree, name)
                    .is_none()
                    .then(|| (name.to_owned(), value))
            }),
    );
    Some(Tree::Object(members))
}

/// Changes members to forms that are normalised when they are read.
pub(super) fn loose(tree: &Tree) -> Option<Tree> {
    let Tree::Object(members) = tree else {
        return None;
    };
    let loosened = |(name, value): &(String, Tree)| {
        let value = match (name.as_str(), value) {
            ("name", Tree::Text(name)) => Tree::Text(name.to_uppercase()),
            ("items", Tree::List(items)) if items.len() == 1 => items[0].clone(),
            ("set", Tree::List(items)) if items.is_empty() => Tree::Literal("null"),
            _ => value.clone(),
        };
        (name.clone(), value)
    };
    Some(Tree::Object(members.iter().map(loosened).collect()))
}

pub(super) fn older_person(tree: &Tree) -> Option<Tree> {
    let (Tree::Text(first), Tree::Text(last)) = (member(tree, "first")?, member(tree, "last")?)
    else {
        return None;
    };
    let (tags, name) = (member(tree, "tags")?, Tree::Text(format!("{first}|{last}")));
    if is_empty(Some(tags)) {
        return Some(name);
    }
    Some(Tree::Object(vec![
        ("tags".to_owned(), tags.clone()),
        ("name".to_owned(), name),
    ]))
}

pub(super) fn older_variant(tree: &Tree) -> Option<Tree> {
    let Tree::Object(members) = tree else {
        return None;
    };
    let rename = |(name, value): &(String, Tree)| {
        let is_kind = name == "kind" && *value == text("renamed variant");
        (
            name.clone(),
            if is_kind {
                text("older")
            } else {
                value.clone()
            },
        )
    };
    Some(Tree::Object(members.iter().map(rename).collect()))
}

pub(super) fn other_variant(tree: &Tree) -> Option<Tree> {
    let is_other = member(tree, "op")
        .is_some_and(|op| !matches!(op, Tree::Text(op) if op == "start" || op == "stop"));
    let members = [("op", text("of tomorrow")), ("more", Tree::List(vec![]))];
    is_other.then(|| {
        Tree::Object(
            members
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
        )
    })
}

pub(super) fn older_version(tree: &Tree) -> Option<Tree> {
    if member(tree, "version") != Some(&text("3")) || !is_empty(member(tree, "tags")) {
        return None;
    }
    let (first, Tree::Object(counts)) = (member(tree, "first")?, member(tree, "counts")?) else {
        return None;
    };
    let pairs = counts
        .iter()
        .map(|(name, count)| Tree::List(vec![text(name), count.clone()]))
        .collect();
    let members = if counts.is_empty() {
        vec![("name", first.clone()), ("version", text("1"))]
    } else {
        vec![
            ("counts", Tree::List(pairs)),
            ("version", text("2")),
            ("first", first.clone()),
        ]
    };
    Some(Tree::Object(
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    ))
}

pub(super) fn cents(tree: &Tree) -> Option<Tree> {
    (member(tree, "currency")? == &text("")).then(|| member(tree, "cents").cloned())?
}

pub(super) fn lowest(tree: &Tree) -> Option<Tree> {
    (*tree == text("very_low")).then(|| text("lowest"))
}
