//! `#[serde(…)]`: inside a key the members have the names that serde's derive gives them. What is
//! malformed is ignored here, since serde's own derive reports it.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{Attribute, ExprPath, Ident, LitStr, Meta};

use crate::case::Case;

pub(crate) const FLATTEN: &str = "flatten";
pub(crate) const RENAME: &str = "rename";
pub(crate) const RENAME_ALL: &str = "rename_all";
pub(crate) const TAG: &str = "tag";
pub(crate) const TRANSPARENT: &str = "transparent";

const ALIAS: &str = "alias";
const DEFAULT: &str = "default";

/// With one of these a struct is not an object, or an object with other members.
const REFUSED_ON_STRUCT: &[&str] = &[
    TAG,
    "content",
    "untagged",
    TRANSPARENT,
    "from",
    "into",
    "try_from",
    "remote",
];

/// With one of these a member has another form than its type.
const REFUSED_ON_FIELD: &[&str] = &[FLATTEN, "with", "serialize_with", "deserialize_with"];

/// With one of these a field is not a member, at least in one direction.
const SKIPS: &[&str] = &["skip", "skip_serializing", "skip_deserializing"];

/// What serde uses in place of a missing member.
pub(crate) enum SerdeDefault {
    /// `default`
    Trait,
    /// `default = "path"`
    Path(ExprPath),
}

#[derive(Default)]
pub(crate) struct SerdeStruct {
    pub(crate) rename_all: Option<Case>,
    pub(crate) default: Option<SerdeDefault>,
    /// Attributes that give the struct another form than an object with these members.
    pub(crate) refused: Vec<Ident>,
}

#[derive(Default)]
pub(crate) struct SerdeField {
    pub(crate) rename: Option<LitStr>,
    aliases: Vec<LitStr>,
    pub(crate) default: Option<SerdeDefault>,
    /// Attributes that give the member another form than its type has.
    pub(crate) refused: Vec<Ident>,
    /// Attributes that leave the member out.
    pub(crate) skips: Vec<Ident>,
}

impl SerdeStruct {
    pub(crate) fn read(attrs: &[Attribute]) -> Self {
        let mut this = Self::default();
        for SerdeWord { word, value } in serde_words(attrs) {
            match (word.to_string().as_str(), value) {
                (RENAME_ALL, SerdeValue::String(rule)) => {
                    this.rename_all = Case::named(&rule.value());
                }
                (RENAME_ALL, SerdeValue::List) => this.refused.push(word),
                (DEFAULT, value) => {
                    this.default = SerdeDefault::of(&value).or(this.default);
                }
                (name, _) if REFUSED_ON_STRUCT.contains(&name) => {
                    this.refused.push(word);
                }
                _ => {}
            }
        }
        this
    }
}

impl SerdeField {
    pub(crate) fn read(attrs: &[Attribute]) -> Self {
        let mut this = Self::default();
        for SerdeWord { word, value } in serde_words(attrs) {
            match (word.to_string().as_str(), value) {
                (RENAME, SerdeValue::String(name)) => this.rename = Some(name),
                (RENAME, SerdeValue::List) => this.refused.push(word),
                (ALIAS, SerdeValue::String(name)) => this.aliases.push(name),
                (DEFAULT, value) => {
                    this.default = SerdeDefault::of(&value).or(this.default);
                }
                (name, _) if SKIPS.contains(&name) => this.skips.push(word),
                (name, _) if REFUSED_ON_FIELD.contains(&name) => this.refused.push(word),
                _ => {}
            }
        }
        this
    }

    /// The other names under which the member is read, each once: serde accepts repeated ones.
    pub(crate) fn aliases(&self) -> Vec<&LitStr> {
        let mut aliases: Vec<&LitStr> = Vec::new();
        for alias in &self.aliases {
            let value = alias.value();
            if aliases.iter().all(|other| other.value() != value) {
                aliases.push(alias);
            }
        }
        aliases
    }
}

impl SerdeDefault {
    fn of(value: &SerdeValue) -> Option<Self> {
        match value {
            SerdeValue::Nothing => Some(Self::Trait),
            SerdeValue::String(path) => path.parse().ok().map(Self::Path),
            SerdeValue::List | SerdeValue::Other => None,
        }
    }
}

struct SerdeWord {
    word: Ident,
    value: SerdeValue,
}

enum SerdeValue {
    Nothing,
    String(LitStr),
    /// `word(…)`
    List,
    Other,
}

fn serde_words(attrs: &[Attribute]) -> Vec<SerdeWord> {
    let lists = attrs
        .iter()
        .filter(|attr| attr.path().is_ident("serde"))
        .filter_map(|attr| match &attr.meta {
            Meta::List(list) => Some(list.tokens.clone()),
            _ => None,
        });
    lists
        .flat_map(split_at_commas)
        .filter_map(serde_word)
        .collect()
}

fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let mut parts = vec![TokenStream::new()];
    for token in tokens {
        match &token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => parts.push(TokenStream::new()),
            _ => parts
                .last_mut()
                .expect("there is always one")
                .extend([token]),
        }
    }
    parts
}

fn serde_word(tokens: TokenStream) -> Option<SerdeWord> {
    let mut tokens = tokens.into_iter();
    let TokenTree::Ident(word) = tokens.next()? else {
        return None;
    };
    let value = match tokens.next() {
        None => SerdeValue::Nothing,
        Some(TokenTree::Punct(equals)) if equals.as_char() == '=' => {
            // A literal that was passed to a macro is in an invisible group.
            let string = syn::parse2::<LitStr>(tokens.collect());
            string.map_or(SerdeValue::Other, SerdeValue::String)
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
            SerdeValue::List
        }
        Some(_) => SerdeValue::Other,
    };
    Some(SerdeWord { word, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::{Attribute, parse_quote};

    #[test]
    fn the_attributes_that_name_members_are_read() {
        let attrs: Vec<Attribute> = vec![
            parse_quote!(#[serde(rename = "a", alias = "b", alias = "c", alias = "b")]),
            parse_quote!(#[serde(skip_serializing_if = "f", default = "some::path")]),
            parse_quote!(#[serde(bound(serialize = "T: X", deserialize = "T: Y"))]),
        ];
        let field = SerdeField::read(&attrs);
        assert_eq!(field.rename.as_ref().unwrap().value(), "a");
        assert_eq!(
            field
                .aliases()
                .into_iter()
                .map(LitStr::value)
                .collect::<Vec<_>>(),
            ["b", "c"]
        );
        assert!(matches!(field.default, Some(SerdeDefault::Path(_))));
        assert!(field.refused.is_empty() && field.skips.is_empty());
    }

    #[test]
    fn what_is_malformed_is_left_to_serde() {
        let attrs: Vec<Attribute> = vec![
            parse_quote!(#[serde]),
            parse_quote!(#[serde = "a"]),
            parse_quote!(#[serde()]),
            parse_quote!(#[serde(,, = , "text", 5, rename, rename =, rename = 5)]),
            parse_quote!(#[serde(default = "not a path", alias("b"))]),
            parse_quote!(#[serde(rename_all = "sarcastic", default = 1, crate = "x", a::b = "c")]),
        ];
        let field = SerdeField::read(&attrs);
        assert!(field.rename.is_none() && field.aliases.is_empty() && field.default.is_none());
        let item = SerdeStruct::read(&attrs);
        assert!(item.rename_all.is_none() && item.default.is_none() && item.refused.is_empty());
    }
}
