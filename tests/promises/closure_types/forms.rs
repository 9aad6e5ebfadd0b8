//! Stored forms: the JSON of a value as another program may have written it.

use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

use fastrand::Rng;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

/// JSON with its members in order, and its numbers as text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Literal(&'static str),
    Number(String),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// Rewrites a node into the form of an older version or another program; `None` if it does not
/// apply.
pub(super) type Older = fn(&Tree) -> Option<Tree>;

/// Names of members, each with an alias that the type reads too.
pub(super) type Aliases = &'static [(&'static str, &'static str)];

/// A random form of the JSON of a value that decodes to the same value, as `is_equal` checks.
pub(super) fn form(
    json: &str,
    aliases: Aliases,
    older: &[Older],
    is_equal: &dyn Fn(&str) -> bool,
    rng: &mut Rng,
) -> String {
    assert!(is_equal(json), "a value decodes to itself: {json}");
    if rng.u8(..6) == 0 {
        return json.to_owned();
    }
    let mut tree: Tree = serde_json::from_str(json).expect("it is JSON");
    let accept = |tree: &mut Tree, change: &mut dyn FnMut(&mut Tree)| {
        let mut changed = tree.clone();
        change(&mut changed);
        if is_equal(&changed.written(None)) {
            *tree = changed;
        }
    };
    accept(&mut tree, &mut |tree| {
        tree.each(&mut |node| node.shuffle_members(rng));
    });
    accept(&mut tree, &mut |tree| {
        tree.each(&mut |node| node.shuffle_items(rng));
    });
    accept(&mut tree, &mut |tree| {
        tree.each(&mut |node| node.respell(rng));
    });
    for _ in 0..8 {
        let mut at = rng.usize(..tree.len());
        accept(&mut tree, &mut |tree| {
            if let Some(node) = tree.nth(&mut at) {
                node.rewrite(aliases, older, rng);
            }
        });
    }
    let text = tree.written(Some(rng));
    if is_equal(&text) {
        text
    } else {
        json.to_owned()
    }
}

impl Tree {
    /// How many nodes there are.
    fn len(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::len).sum::<usize>(),
            Self::Object(members) => {
                1 + members.iter().map(|(_, value)| value.len()).sum::<usize>()
            }
            _ => 1,
        }
    }

    fn nth(&mut self, at: &mut usize) -> Option<&mut Self> {
        if *at == 0 {
            return Some(self);
        }
        *at -= 1;
        match self {
            Self::List(items) => items.iter_mut().find_map(|item| item.nth(at)),
            Self::Object(members) => members.iter_mut().find_map(|(_, value)| value.nth(at)),
            _ => None,
        }
    }

    fn each(&mut self, action: &mut dyn FnMut(&mut Self)) {
        action(self);
        match self {
            Self::List(items) => items.iter_mut().for_each(|item| item.each(action)),
            Self::Object(members) => members.iter_mut().for_each(|(_, value)| value.each(action)),
            _ => {}
        }
    }

    fn shuffle_members(&mut self, rng: &mut Rng) {
        if let Self::Object(members) = self {
            rng.shuffle(members);
        }
    }

    fn shuffle_items(&mut self, rng: &mut Rng) {
        if let Self::List(items) = self {
            rng.shuffle(items);
        }
    }

    /// Changes numbers, names and texts to other spellings.
    fn respell(&mut self, rng: &mut Rng) {
        match self {
            Self::Number(number) => {
                if let Some(other) = other_number(number, rng) {
                    *number = other;
                }
            }
            Self::Text(text) => {
                if let Some(other) = other_text(text, rng) {
                    *text = other;
                }
            }
            Self::Object(members) => {
                for (name, _) in members {
                    if let Some(other) = other_text(name, rng).or_else(|| other_number(name, rng)) {
                        *name = other;
                    }
                }
            }
            _ => {}
        }
    }

    fn rewrite(&mut self, aliases: Aliases, older: &[Older], rng: &mut Rng) {
        if rng.bool()
            && let Some(other) = rng.choice(older).and_then(|older| older(self))
        {
            *self = other;
            return;
        }
        match self {
            Self::Object(members) => {
                let alias = rng
                    .choice(aliases)
                    .filter(|(name, _)| members.iter().any(|(other, _)| other == name));
                match (rng.u8(..6), alias) {
                    (0..=3, Some((name, alias))) => {
                        let named = members.iter_mut().find(|(other, _)| other == name);
                        (*alias).clone_into(&mut named.expect("it is there").0);
                    }
                    (0, None) => self.shuffle_members(rng),
                    // A member that the type does not know, or that it reads into a flattened map.
                    (1 | 4, _) => {
                        members.insert(
                            rng.usize(..=members.len()),
                            ("unknown".to_owned(), Self::Number("7".to_owned())),
                        );
                    }
                    (2, None) if !members.is_empty() => {
                        _ = members.remove(rng.usize(..members.len()));
                    }
                    _ => self.respell(rng),
                }
            }
            Self::List(items) if rng.u8(..4) == 0 && !items.is_empty() => {
                let twice = items[rng.usize(..items.len())].clone();
                items.push(twice);
            }
            Self::List(_) => self.shuffle_items(rng),
            _ => self.respell(rng),
        }
    }

    /// The tree as text: compact, or in a random style.
    pub(super) fn written(&self, style: Option<&mut Rng>) -> String {
        let mut writer = Writer {
            text: String::new(),
            comma: ",",
            colon: ":",
            escapes: 0,
            rng: Rng::with_seed(0),
        };
        if let Some(rng) = style {
            (writer.comma, writer.colon) = *rng
                .choice(&[(", ", ": "), (", ", ": "), (",", ":"), (" ,\n  ", " :\t")])
                .expect("there are some");
            writer.escapes = rng.u8(..3);
            writer.rng = rng.fork();
        }
        writer.tree(self);
        writer.text
    }
}

fn other_number(number: &str, rng: &mut Rng) -> Option<String> {
    let (whole, fraction) = number
        .split_once('.')
        .filter(|_| !number.contains(['e', 'E']))?;
    whole.parse::<i64>().ok()?;
    Some(match rng.u8(..4) {
        0 => format!("{number}0"),
        1 => format!("{number}e0"),
        _ if fraction == "0" && whole != "-0" => whole.to_owned(),
        _ => return None,
    })
}

fn other_text(text: &str, rng: &mut Rng) -> Option<String> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        let long = address
            .segments()
            .map(|segment| format!("{segment:04x}"))
            .join(":");
        return Some(if rng.bool() {
            long
        } else {
            text.to_uppercase()
        });
    }
    if let Ok(id) = Uuid::parse_str(text) {
        let other = [
            text.to_uppercase(),
            id.simple().to_string(),
            id.braced().to_string(),
            id.urn().to_string(),
        ];
        return rng.choice(other);
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let offset = UtcOffset::from_hms(rng.i8(-11..12), 0, 0).ok()?;
    moment.to_offset(offset).format(&Rfc3339).ok()
}

struct Writer {
    text: String,
    comma: &'static str,
    colon: &'static str,
    /// Which characters are escaped without need: none (0), those beyond ASCII (1), or any (2).
    escapes: u8,
    rng: Rng,
}

impl Writer {
    fn tree(&mut self, tree: &Tree) {
        match tree {
            Tree::Literal(text) => self.text.push_str(text),
            Tree::Number(text) => self.text.push_str(text),
            Tree::Text(text) => self.string(text),
            Tree::List(items) => {
                self.text.push('[');
                for (at, item) in items.iter().enumerate() {
                    self.text.push_str(if at > 0 { self.comma } else { "" });
                    self.tree(item);
                }
                self.text.push(']');
            }
            Tree::Object(members) => {
                self.text.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    self.text.push_str(if at > 0 { self.comma } else { "" });
                    self.string(name);
                    self.text.push_str(self.colon);
                    self.tree(value);
                }
                self.text.push('}');
            }
        }
    }

    fn string(&mut self, text: &str) {
        if self.escapes == 0 {
            self.text
                .push_str(&serde_json::to_string(text).expect("text is JSON"));
            return;
        }
        self.text.push('"');
        for character in text.chars() {
            let is_plain = character.is_ascii_graphic() && !matches!(character, '"' | '\\')
                || character == ' ';
            if is_plain && (self.escapes == 1 || self.rng.bool()) {
                self.text.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(self.text, "\\u{unit:04x}").expect("there is room");
            }
        }
        self.text.push('"');
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

fn number(number: impl Serialize) -> Tree {
    Tree::Number(serde_json::to_string(&number).expect("a number is JSON"))
}

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Literal("null"))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Literal(if value { "true" } else { "false" }))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(number(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(number(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Object(members))
    }
}
