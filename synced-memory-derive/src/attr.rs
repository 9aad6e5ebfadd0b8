//! `#[synced(…)]` as it was written: each attribute with its value, both with their tokens.
//! A mistake in one attribute does not hide the next one's.

use proc_macro2::TokenTree;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Expr, Ident, LitStr, Meta, Path, Token, token};

use crate::diag::{self, Diag};

/// What a `#[synced(…)]` is written on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum AttrTarget {
    Struct,
    Field,
}

/// One attribute of the language: a row of the table below.
pub(crate) struct Word {
    pub(crate) name: &'static str,
    pub(crate) targets: &'static [AttrTarget],
    /// How it is written, as messages and `attributes.md` show it.
    pub(crate) usage: &'static str,
}

/// Attributes of which a struct or a field has one at most.
pub(crate) struct Exclusion {
    pub(crate) words: &'static [&'static str],
    /// Why, for the message, if the words do not say so.
    pub(crate) reason: Option<&'static str>,
}

/// An attribute as the user wrote it.
pub(crate) struct Arg<T> {
    pub(crate) word: Ident,
    pub(crate) value: T,
}

/// An attribute that may be given once.
pub(crate) type Once<T> = Option<Arg<T>>;

/// An attribute that may be repeated.
pub(crate) type Repeated<T> = Vec<Arg<T>>;

/// An attribute without a value.
pub(crate) type Flag = Once<()>;

macro_rules! attributes {
    ($($holder:ident: $ty:ty, $name:literal on $($target:ident)|+, $usage:literal;)+) => {
        /// Every attribute of the language.
        pub(crate) const WORDS: &[Word] = &[$(Word {
            name: $name,
            targets: &[$(AttrTarget::$target),+],
            usage: $usage,
        }),+];

        /// The attributes of one struct or field. Those that belong on the other one are empty.
        #[derive(Default)]
        pub(crate) struct Attrs {
            $(pub(crate) $holder: $ty,)+
            /// The words above that were read, in the order in which they were written.
            pub(crate) words: Vec<Ident>,
        }

        impl Attrs {
            fn holder(&mut self, word: &Word) -> &mut dyn ArgHolder {
                match word.name {
                    $($name => &mut self.$holder,)+
                    name => unreachable!("`{name}` is not in the table"),
                }
            }
        }
    };
}

// A new row is parsed, listed and checked for its target by that alone. It needs an effect as well
// (in `model` or `expand`) and a line in `attributes.md`: tests of the pipeline fail without them.
attributes! {
    prefix:     Once<LitStr>,       "prefix"     on Struct,       r#"prefix = "myapp:""#;
    scope:      Once<LitStr>,       "scope"      on Struct,       r#"scope = "session_1""#;
    rename_all: Once<LitStr>,       "rename_all" on Struct,       r#"rename_all = "camelCase""#;
    handle:     Once<Ident>,        "handle"     on Struct,       "handle = MyHandle";
    krate:      Once<Path>,         "crate"      on Struct,       "crate = path";
    rename:     Once<LitStr>,       "rename"     on Field,        r#"rename = "name""#;
    aliases:    Repeated<LitStr>,   "alias"      on Field,        r#"alias = "old_name""#;
    default:    Once<Option<Expr>>, "default"    on Field,        "default = expression";
    ttl:        Once<LitStr>,       "ttl"        on Field,        r#"ttl = "30m""#;
    into:       Flag,               "into"       on Field,        "into";
    accessor:   Once<LitStr>,       "accessor"   on Field,        r#"accessor = "name""#;
    skip:       Flag,               "skip"       on Field,        "skip";
    value:      Flag,               "value"      on Field,        "value";
    collection: Flag,               "collection" on Field,        "collection";
    nested:     Flag,               "nested"     on Field,        "nested";
    near:       Flag,               "near"       on Struct|Field, "near";
    behind:     Flag,               "behind"     on Struct|Field, "behind";
    confirmed:  Flag,               "confirmed"  on Struct|Field, "confirmed";
}

/// Which attributes exclude each other. `skip` excludes all others, and is not listed.
pub(crate) const EXCLUSIONS: &[Exclusion] = &[
    Exclusion {
        words: &["value", "collection", "nested"],
        reason: None,
    },
    Exclusion {
        words: &["behind", "confirmed"],
        reason: Some(
            "a write returns once it is queued (`behind`), or once the backend has answered \
             (`confirmed`)",
        ),
    },
];

impl AttrTarget {
    fn article_and_name(self) -> &'static str {
        match self {
            Self::Struct => "a struct",
            Self::Field => "a field",
        }
    }
}

impl Word {
    /// The row that `ident` names, if the attribute belongs on `target`.
    fn find(ident: &Ident, target: AttrTarget) -> syn::Result<&'static Self> {
        let name = ident.to_string();
        match WORDS.iter().find(|word| word.name == name) {
            Some(word) if word.targets.contains(&target) => Ok(word),
            Some(word) => {
                let targets: Vec<_> = word.targets.iter().map(|t| t.article_and_name()).collect();
                let (right, wrong) = (targets.join(" or "), target.article_and_name());
                Err(error(
                    ident,
                    format!("`{name}` is for {right}, not for {wrong}"),
                ))
            }
            None => Err(error(ident, unknown(&name, target))),
        }
    }
}

fn unknown(name: &str, target: AttrTarget) -> String {
    let words = || WORDS.iter().filter(|word| word.targets.contains(&target));
    let names: Vec<_> = words().map(|word| word.name).collect();
    let nearest = diag::nearest(name, &names);
    match words().find(|word| Some(word.name) == nearest) {
        Some(word) => format!("unknown attribute `{name}`: did you mean `{}`?", word.usage),
        None => format!(
            "unknown attribute `{name}`: {} takes {}",
            target.article_and_name(),
            diag::list(&names)
        ),
    }
}

impl Attrs {
    pub(crate) fn read(attrs: &[Attribute], target: AttrTarget, diag: &Diag) -> Self {
        let mut this = Self::default();
        for attr in attrs {
            if !attr.path().is_ident("synced") {
                continue;
            }
            let Meta::List(list) = &attr.meta else {
                diag.error(
                    &attr.meta,
                    "expected a list in parentheses: write `#[synced(…)]`",
                );
                continue;
            };

            let read_list = |input: ParseStream<'_>| this.read_list(input, target, diag);
            if let Err(error) = read_list.parse2(list.tokens.clone()) {
                diag.push(error);
            }
        }
        this
    }

    /// Reads what is between the parentheses. After a mistake it continues at the next comma.
    fn read_list(
        &mut self,
        input: ParseStream<'_>,
        target: AttrTarget,
        diag: &Diag,
    ) -> syn::Result<()> {
        while !input.is_empty() {
            if let Err(error) = self.read_one(input, target) {
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
    }

    fn read_one(&mut self, input: ParseStream<'_>, target: AttrTarget) -> syn::Result<()> {
        // `crate` is a keyword.
        let ident = input
            .call(Ident::parse_any)
            .map_err(|error| syn::Error::new(error.span(), "expected the name of an attribute"))?;
        let word = Word::find(&ident, target)?;
        self.holder(word).read(&ident, word, input)?;
        if !input.is_empty() && !input.peek(Token![,]) {
            return Err(input.error(format!("expected a comma after `{ident}`")));
        }
        self.words.push(ident);
        Ok(())
    }
}

/// What an attribute is read into, which decides whether the attribute may be repeated.
trait ArgHolder {
    fn read(&mut self, ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<()>;
}

impl<T: ArgValue> ArgHolder for Once<T> {
    fn read(&mut self, ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<()> {
        let arg = Arg::parse(ident, word, input)?;
        if self.is_some() {
            return Err(error(ident, format!("`{ident}` is given twice: keep one")));
        }
        *self = Some(arg);
        Ok(())
    }
}

impl<T: ArgValue> ArgHolder for Repeated<T> {
    fn read(&mut self, ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<()> {
        self.push(Arg::parse(ident, word, input)?);
        Ok(())
    }
}

impl<T: ArgValue> Arg<T> {
    fn parse(ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<Self> {
        Ok(Self {
            value: T::parse(ident, word, input)?,
            word: ident.clone(),
        })
    }
}

/// What is written behind the name of an attribute.
pub(crate) trait ArgValue: Sized {
    fn parse(ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<Self>;
}

impl ArgValue for () {
    fn parse(ident: &Ident, _: &Word, input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(Token![=]) || input.peek(token::Paren) {
            return Err(error(
                ident,
                format!("`{ident}` takes no value: write `{ident}` alone"),
            ));
        }
        Ok(())
    }
}

impl ArgValue for LitStr {
    fn parse(ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<Self> {
        equals(ident, word, input)?;
        let string = input.parse();
        string.map_err(|error| expected("a string in quotes", word, &error))
    }
}

impl ArgValue for Ident {
    fn parse(ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<Self> {
        equals(ident, word, input)?;
        let name = input.parse();
        name.map_err(|error| expected("a name without quotes", word, &error))
    }
}

impl ArgValue for Path {
    fn parse(ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<Self> {
        equals(ident, word, input)?;
        let path = input.call(Path::parse_mod_style);
        path.map_err(|error| expected("a name without quotes", word, &error))
    }
}

impl ArgValue for Option<Expr> {
    fn parse(ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<Self> {
        if input.is_empty() || input.peek(Token![,]) {
            return Ok(None);
        }
        equals(ident, word, input)?;
        input.parse().map(Some)
    }
}

fn equals(ident: &Ident, word: &Word, input: ParseStream<'_>) -> syn::Result<()> {
    if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        if !input.is_empty() && !input.peek(Token![,]) {
            return Ok(());
        }
    }
    Err(error(
        ident,
        format!("`{ident}` needs a value: write `{}`", word.usage),
    ))
}

fn expected(what: &str, word: &Word, error: &syn::Error) -> syn::Error {
    syn::Error::new(
        error.span(),
        format!("expected {what}: write `{}`", word.usage),
    )
}

fn error(ident: &Ident, message: String) -> syn::Error {
    syn::Error::new(ident.span(), message)
}
