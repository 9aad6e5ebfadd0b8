//! `#[serde(…)]`: inside a key the members have serde's names, and its derive must be followed.
//! What is malformed is passed over: serde's own derive says so.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{Attribute, ExprPath, Ident, LitStr, Meta};

use crate::case::Case;
use crate::symbol;

/// What serde takes for a member that is missing.
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
    /// Words that give the struct another form than an object with these names.
    pub(crate) refused: Vec<Ident>,
}

#[derive(Default)]
pub(crate) struct SerdeField {
    pub(crate) rename: Option<LitStr>,
    aliases: Vec<LitStr>,
    pub(crate) default: Option<SerdeDefault>,
    /// Words that give the member another form than that of its type.
    pub(crate) refused: Vec<Ident>,
    /// Words by which the member is left out.
    pub(crate) skips: Vec<Ident>,
}

impl SerdeStruct {
    pub(crate) fn read(attrs: &[Attribute]) -> Self {
        let mut this = Self::default();
        for Word { word, given } in words(attrs) {
            match (word.to_string().as_str(), given) {
                (symbol::RENAME_ALL, Given::String(rule)) => {
                    this.rename_all = Case::named(&rule.value());
                }
                (symbol::RENAME_ALL, Given::List) => this.refused.push(word),
                (symbol::DEFAULT, given) => {
                    this.default = SerdeDefault::of(&given).or(this.default);
                }
                (name, _) if symbol::SERDE_STRUCT_REFUSED.contains(&name) => {
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
        for Word { word, given } in words(attrs) {
            match (word.to_string().as_str(), given) {
                (symbol::RENAME, Given::String(name)) => this.rename = Some(name),
                (symbol::RENAME, Given::List) => this.refused.push(word),
                (symbol::ALIAS, Given::String(name)) => this.aliases.push(name),
                (symbol::DEFAULT, given) => {
                    this.default = SerdeDefault::of(&given).or(this.default);
                }
                (name, _) if symbol::SERDE_SKIPS.contains(&name) => this.skips.push(word),
                (name, _) if symbol::SERDE_FIELD_REFUSED.contains(&name) => this.refused.push(word),
                _ => {}
            }
        }
        this
    }
}

impl SerdeField {
    /// The other names under which the member is read, each once: serde takes one that is repeated.
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
    fn of(given: &Given) -> Option<Self> {
        match given {
            Given::Nothing => Some(Self::Trait),
            Given::String(path) => path.parse().ok().map(Self::Path),
            Given::List | Given::Other => None,
        }
    }
}

struct Word {
    word: Ident,
    given: Given,
}

enum Given {
    Nothing,
    String(LitStr),
    /// `word(…)`
    List,
    Other,
}

fn words(attrs: &[Attribute]) -> Vec<Word> {
    let lists = attrs
        .iter()
        .filter(|attr| attr.path().is_ident(symbol::SERDE))
        .filter_map(|attr| match &attr.meta {
            Meta::List(list) => Some(list.tokens.clone()),
            _ => None,
        });
    lists.flat_map(split).filter_map(word).collect()
}

/// What stands between the commas.
fn split(tokens: TokenStream) -> Vec<TokenStream> {
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

fn word(tokens: TokenStream) -> Option<Word> {
    let mut tokens = tokens.into_iter();
    let TokenTree::Ident(word) = tokens.next()? else {
        return None;
    };
    let given = match tokens.next() {
        None => Given::Nothing,
        Some(TokenTree::Punct(equals)) if equals.as_char() == '=' => {
            // The literal that a macro was given stands in an invisible group.
            let string = syn::parse2::<LitStr>(tokens.collect());
            string.map_or(Given::Other, Given::String)
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => Given::List,
        Some(_) => Given::Other,
    };
    Some(Word { word, given })
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::{Attribute, parse_quote};

    #[test]
    fn the_words_that_name_members_are_read() {
        let attrs: Vec<Attribute> = vec![
            parse_quote!(#[serde(rename = "a", alias = "b", alias = "c", alias = "b", skip_serializing_if = "f")]),
            parse_quote!(#[serde(default = "some::path", bound(serialize = "T: X", deserialize = "T: Y"))]),
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
            parse_quote!(#[serde(,, = , "text", 5, rename, rename =, rename = 5, default = "not a path", alias("b"))]),
            parse_quote!(#[serde(rename_all = "sarcastic", default = 1, crate = "x", a::b = "c")]),
        ];
        let field = SerdeField::read(&attrs);
        assert!(field.rename.is_none() && field.aliases.is_empty() && field.default.is_none());
        let item = SerdeStruct::read(&attrs);
        assert!(item.rename_all.is_none() && item.default.is_none() && item.refused.is_empty());
    }
}
