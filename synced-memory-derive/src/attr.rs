//! `#[synced(…)]` as it was written: each word with its value, both with their tokens.
//! A mistake in one word does not hide the next one's.

use proc_macro2::TokenTree;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Expr, Ident, LitStr, Meta, Path, Token, token};

use crate::diag::Diag;
use crate::symbol;

/// A word and what stands behind its `=`.
pub(crate) struct Arg<T> {
    pub(crate) word: Ident,
    pub(crate) value: T,
}

/// A word that takes no value.
pub(crate) type Flag = Option<Arg<()>>;

#[derive(Default)]
pub(crate) struct StructAttrs {
    pub(crate) prefix: Option<Arg<LitStr>>,
    pub(crate) scope: Option<Arg<LitStr>>,
    pub(crate) rename_all: Option<Arg<LitStr>>,
    pub(crate) handle: Option<Arg<Ident>>,
    pub(crate) krate: Option<Arg<Path>>,
    pub(crate) near: Flag,
    pub(crate) behind: Flag,
    pub(crate) confirmed: Flag,
}

#[derive(Default)]
pub(crate) struct FieldAttrs {
    pub(crate) rename: Option<Arg<LitStr>>,
    pub(crate) aliases: Vec<Arg<LitStr>>,
    pub(crate) default: Option<Arg<Option<Expr>>>,
    pub(crate) ttl: Option<Arg<LitStr>>,
    pub(crate) into: Flag,
    pub(crate) accessor: Option<Arg<LitStr>>,
    pub(crate) skip: Flag,
    pub(crate) value: Flag,
    pub(crate) collection: Flag,
    pub(crate) nested: Flag,
    pub(crate) near: Flag,
    pub(crate) behind: Flag,
    pub(crate) confirmed: Flag,
}

impl StructAttrs {
    pub(crate) fn read(attrs: &[Attribute], diag: &Diag) -> Self {
        let mut this = Self::default();
        each_word(attrs, diag, |word, input| match word.to_string().as_str() {
            symbol::PREFIX => set(&mut this.prefix, word, string(word, input)?),
            symbol::SCOPE => set(&mut this.scope, word, string(word, input)?),
            symbol::RENAME_ALL => set(&mut this.rename_all, word, string(word, input)?),
            symbol::HANDLE => set(&mut this.handle, word, bare(word, input)?),
            symbol::CRATE => set(&mut this.krate, word, path(word, input)?),
            symbol::NEAR => set(&mut this.near, word, flag(word, input)?),
            symbol::BEHIND => set(&mut this.behind, word, flag(word, input)?),
            symbol::CONFIRMED => set(&mut this.confirmed, word, flag(word, input)?),
            _ => Err(unknown(
                word,
                "a struct",
                symbol::STRUCT_WORDS,
                "a field",
                symbol::FIELD_WORDS,
            )),
        });
        this
    }
}

impl FieldAttrs {
    pub(crate) fn read(attrs: &[Attribute], diag: &Diag) -> Self {
        let mut this = Self::default();
        each_word(attrs, diag, |word, input| match word.to_string().as_str() {
            symbol::RENAME => set(&mut this.rename, word, string(word, input)?),
            symbol::ALIAS => {
                let value = string(word, input)?;
                this.aliases.push(Arg {
                    word: word.clone(),
                    value,
                });
                Ok(())
            }
            symbol::DEFAULT => set(&mut this.default, word, optional_expr(word, input)?),
            symbol::TTL => set(&mut this.ttl, word, string(word, input)?),
            symbol::INTO => set(&mut this.into, word, flag(word, input)?),
            symbol::ACCESSOR => set(&mut this.accessor, word, string(word, input)?),
            symbol::SKIP => set(&mut this.skip, word, flag(word, input)?),
            symbol::VALUE => set(&mut this.value, word, flag(word, input)?),
            symbol::COLLECTION => set(&mut this.collection, word, flag(word, input)?),
            symbol::NESTED => set(&mut this.nested, word, flag(word, input)?),
            symbol::NEAR => set(&mut this.near, word, flag(word, input)?),
            symbol::BEHIND => set(&mut this.behind, word, flag(word, input)?),
            symbol::CONFIRMED => set(&mut this.confirmed, word, flag(word, input)?),
            _ => Err(unknown(
                word,
                "a field",
                symbol::FIELD_WORDS,
                "a struct",
                symbol::STRUCT_WORDS,
            )),
        });
        this
    }
}

/// Calls `read` at each word of each `#[synced(…)]`; `read` consumes the word's value.
fn each_word(
    attrs: &[Attribute],
    diag: &Diag,
    mut read: impl FnMut(&Ident, ParseStream<'_>) -> syn::Result<()>,
) {
    for attr in attrs {
        if !attr.path().is_ident(symbol::SYNCED) {
            continue;
        }
        let Meta::List(list) = &attr.meta else {
            diag.error(&attr.meta, "write the words in brackets: `#[synced(…)]`");
            continue;
        };
        let words = |input: ParseStream<'_>| {
            while !input.is_empty() {
                if let Err(error) = one_word(input, &mut read) {
                    diag.push(error);
                    while !input.is_empty() && !input.peek(Token![,]) {
                        input.parse::<TokenTree>()?;
                    }
                }
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        };
        if let Err(error) = words.parse2(list.tokens.clone()) {
            diag.push(error);
        }
    }
}

fn one_word(
    input: ParseStream<'_>,
    read: &mut impl FnMut(&Ident, ParseStream<'_>) -> syn::Result<()>,
) -> syn::Result<()> {
    let word = input
        .call(Ident::parse_any)
        .map_err(|error| syn::Error::new(error.span(), "expected a word of `#[synced(…)]`"))?;
    read(&word, input)?;
    if input.is_empty() || input.peek(Token![,]) {
        Ok(())
    } else {
        Err(input.error(format!("expected a comma after `{word}`")))
    }
}

fn set<T>(slot: &mut Option<Arg<T>>, word: &Ident, value: T) -> syn::Result<()> {
    if slot.is_some() {
        return Err(error(word, format!("`{word}` is given twice: keep one")));
    }
    *slot = Some(Arg {
        word: word.clone(),
        value,
    });
    Ok(())
}

fn flag(word: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
    if input.peek(Token![=]) || input.peek(token::Paren) {
        return Err(error(
            word,
            format!("`{word}` takes no value: write `{word}` alone"),
        ));
    }
    Ok(())
}

fn equals(word: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
    if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        if !input.is_empty() && !input.peek(Token![,]) {
            return Ok(());
        }
    }
    let usage = symbol::usage(&word.to_string()).to_owned();
    Err(error(
        word,
        format!("`{word}` needs a value: write `{usage}`"),
    ))
}

fn string(word: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    equals(word, input)?;
    input.parse().map_err(|error| {
        let usage = symbol::usage(&word.to_string()).to_owned();
        syn::Error::new(
            error.span(),
            format!("expected a string in quotes: write `{usage}`"),
        )
    })
}

fn bare(word: &Ident, input: ParseStream<'_>) -> syn::Result<Ident> {
    equals(word, input)?;
    input.parse().map_err(|error| without_quotes(word, &error))
}

fn path(word: &Ident, input: ParseStream<'_>) -> syn::Result<Path> {
    equals(word, input)?;
    input
        .call(Path::parse_mod_style)
        .map_err(|error| without_quotes(word, &error))
}

fn without_quotes(word: &Ident, error: &syn::Error) -> syn::Error {
    let usage = symbol::usage(&word.to_string()).to_owned();
    syn::Error::new(
        error.span(),
        format!("expected a name without quotes: write `{usage}`"),
    )
}

fn optional_expr(word: &Ident, input: ParseStream<'_>) -> syn::Result<Option<Expr>> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(None);
    }
    equals(word, input)?;
    input.parse().map(Some)
}

fn unknown(
    word: &Ident,
    here: &str,
    here_words: &[&str],
    there: &str,
    there_words: &[&str],
) -> syn::Error {
    let name = word.to_string();
    if there_words.contains(&name.as_str()) {
        return error(word, format!("`{name}` is for {there}, not for {here}"));
    }
    if let Some(nearest) = symbol::nearest(&name, here_words) {
        let usage = symbol::usage(nearest);
        return error(
            word,
            format!("`{name}` is not known here: did you mean `{usage}`?"),
        );
    }
    let words = here_words
        .iter()
        .filter(|word| !symbol::LATER.contains(word));
    let words: Vec<&str> = words.copied().collect();
    error(
        word,
        format!(
            "`{name}` is not known here: {here} takes {}",
            symbol::list(&words)
        ),
    )
}

fn error(word: &Ident, message: String) -> syn::Error {
    syn::Error::new(word.span(), message)
}
