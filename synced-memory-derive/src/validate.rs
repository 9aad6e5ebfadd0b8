//! Every rule that a model can break. No tokens are made here: each mistake is put at the user's own.

use std::collections::HashMap;
use std::time::Duration;

use proc_macro2::Span;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::visit::Visit;
use syn::{Lifetime, LitStr, Type, TypeReference};

use crate::attr::Arg;
use crate::diag::Diag;
use crate::kind::{self, Kind};
use crate::model::{Field, Model};
use crate::symbol;

pub(crate) fn model(model: &Model, diag: &Diag) {
    structure(model, diag);
    for field in &model.fields {
        if field.is_skipped() {
            skipped(field, diag);
        } else {
            not_yet(field, diag);
            conflicts(field, diag);
            field_type(field, diag);
            wire_names(field, diag);
            ttl(field, diag);
        }
    }
    unique_wire_names(model, diag);
    unique_methods(model, diag);
}

fn structure(model: &Model, diag: &Diag) {
    for parameter in model.generics.lifetimes() {
        diag.error(
            &parameter.lifetime,
            "what is shared outlives every borrow: own the data, as in `String` for `&str`, and \
             remove the lifetime",
        );
    }
    for word in [&model.attrs.near, &model.attrs.behind].into_iter().flatten() {
        later(word, diag);
    }
    if let Some(given) = &model.attrs.prefix {
        prefix(&given.value, diag);
    }
    if let Some(given) = &model.attrs.scope {
        scope(&given.value, diag);
    }
    let handle = model.handle.unraw().to_string();
    let given = model.attrs.handle.is_some();
    if model.handle == model.schema {
        diag.error(&model.handle, "the handle is a struct of its own: give it another name than the struct's");
    } else if handle == "SyncedMemory" {
        diag.error(
            &model.handle,
            format!(
                "the handle would hide the trait `SyncedMemory`: {}",
                if given { "give it another name" } else { "name it, as in `#[synced(handle = MyHandle)]`" }
            ),
        );
    }
}

fn later<T>(word: &Arg<T>, diag: &Diag) {
    let name = &word.word;
    diag.error(name, format!("this version of synced-memory does not have `{name}` yet: remove it"));
}

fn not_yet(field: &Field, diag: &Diag) {
    let attrs = &field.attrs;
    for word in [&attrs.nested, &attrs.near, &attrs.behind].into_iter().flatten() {
        later(word, diag);
    }
}

/// A skipped field is not shared, so all other words are without effect.
fn skipped(field: &Field, diag: &Diag) {
    for word in words(field) {
        diag.error(word, format!("a skipped field is not shared: remove `{word}` or `skip`"));
    }
}

/// The words of the field, but for `skip`.
fn words(field: &Field) -> impl Iterator<Item = &syn::Ident> {
    fn word<T>(arg: Option<&Arg<T>>) -> Option<&syn::Ident> {
        arg.map(|arg| &arg.word)
    }
    let attrs = &field.attrs;
    let single = [
        word(attrs.rename.as_ref()),
        word(attrs.default.as_ref()),
        word(attrs.ttl.as_ref()),
        word(attrs.into.as_ref()),
        word(attrs.accessor.as_ref()),
        word(attrs.value.as_ref()),
        word(attrs.collection.as_ref()),
        word(attrs.nested.as_ref()),
        word(attrs.near.as_ref()),
        word(attrs.behind.as_ref()),
    ];
    let aliases = attrs.aliases.iter().map(|alias| &alias.word);
    single.into_iter().flatten().chain(aliases)
}

fn conflicts(field: &Field, diag: &Diag) {
    let attrs = &field.attrs;
    let Some(collection) = &attrs.collection else {
        return;
    };
    if attrs.value.is_some() {
        diag.error(&collection.word, "`value` and `collection` exclude each other: keep one");
    }
    let syntax = Kind::of(&field.ty);
    if syntax == Kind::Option {
        diag.error(
            &collection.word,
            "an `Option` is one value, whatever is in it: remove `collection`, or the `Option` \
             (an unset collection is empty)",
        );
    } else if syntax.is_number() {
        diag.error(&collection.word, "a number is not a collection: remove `collection`");
    }
}

fn field_type(field: &Field, diag: &Diag) {
    if let Some(inner) = kind::inside_synced(&field.ty) {
        let inner = spelling(inner);
        diag.error(
            &field.ty,
            format!("the struct holds plain values, and the handle makes the `Synced`: write `{inner}`"),
        );
    }
    // One mistake a field, at the first borrow.
    if let Some(span) = Borrow::find(field) {
        diag.push(syn::Error::new(
            span,
            "what is shared outlives every borrow: own the data, as in `String` for `&str`",
        ));
    }
}

/// The type as a user would write it: without the blanks between tokens.
fn spelling(ty: &Type) -> String {
    let mut text = ty.to_token_stream().to_string();
    for (spaced, written) in [(" :: ", "::"), (" <", "<"), ("< ", "<"), (" >", ">"), (" ,", ",")] {
        text = text.replace(spaced, written);
    }
    text
}

#[derive(Default)]
struct Borrow(Option<Span>);

impl Borrow {
    fn find(field: &Field) -> Option<Span> {
        let mut this = Self::default();
        this.visit_type(&field.ty);
        this.0
    }
}

impl<'ast> Visit<'ast> for Borrow {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        self.0.get_or_insert(reference.and_token.span);
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        // A `Cow<'static, str>` is read back as an owned one.
        if lifetime.ident != "static" {
            self.0.get_or_insert(lifetime.span());
        }
    }
}

fn wire_names(field: &Field, diag: &Diag) {
    let aliases = field.attrs.aliases.iter();
    for arg in field.attrs.rename.iter().chain(aliases) {
        let name = arg.value.value();
        if name.is_empty() {
            diag.error(&arg.value, "a name in the backend cannot be empty");
        } else if let Some(c) = name.chars().find(|c| matches!(c, ':' | '{' | '}')) {
            diag.error(
                &arg.value,
                format!("a name in the backend cannot contain `{c}`: colons separate scopes, and braces choose cluster slots"),
            );
        }
    }
}

/// Scopes may nest, with colons; every part has a name.
fn scope(literal: &LitStr, diag: &Diag) {
    let text = literal.value();
    if text.is_empty() {
        diag.error(literal, "a scope needs a name: leave `scope` out for none");
    } else if text.split(':').any(str::is_empty) {
        diag.error(literal, "a part of this scope has no name: write one between, before and after the colons");
    }
    if text.contains(['{', '}']) {
        diag.error(literal, "a scope cannot contain braces: they choose cluster slots, and belong in the prefix");
    }
}

/// A prefix may hold one hash tag, so that all keys are in one cluster slot.
fn prefix(literal: &LitStr, diag: &Diag) {
    let text = literal.value();
    let braces = text.matches(['{', '}']).collect::<String>();
    if !braces.is_empty() && (braces != "{}" || text.contains("{}")) {
        diag.error(literal, "a prefix can contain one hash tag and no other braces, as in `prefix = \"{myapp}:\"`");
    }
    if text.starts_with("synced-memory/") {
        diag.error(literal, "prefixes that start with `synced-memory/` are the library's own: choose another");
    }
}

fn ttl(field: &Field, diag: &Diag) {
    // Redis counts in milliseconds, and what passes its clock's end is refused there.
    const LONGEST: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);
    let (Some(arg), Some(ttl)) = (&field.attrs.ttl, field.ttl) else {
        return;
    };
    if ttl < Duration::from_millis(1) {
        diag.error(&arg.value, "a value lives for at least a millisecond: `1ms`");
    } else if ttl > LONGEST {
        diag.error(&arg.value, "more than a thousand years: remove `ttl`, and the value stays");
    }
}

fn unique_wire_names(model: &Model, diag: &Diag) {
    let mut owners: HashMap<String, String> = HashMap::new();
    // Names before aliases, so that the alias is at fault wherever it stands.
    let names = model.shared().map(|f| (f, f.wire.name.clone(), f.wire.span));
    let aliases = model
        .shared()
        .flat_map(|field| (field.attrs.aliases.iter()).map(move |a| (field, a.value.value(), a.value.span())));
    for (field, name, span) in names.chain(aliases) {
        let ident = field.ident.unraw().to_string();
        match owners.get(&name) {
            Some(owner) => diag.push(syn::Error::new(
                span,
                if *owner == ident {
                    format!("`{name}` is a name of this field already: remove one")
                } else {
                    format!("`{name}` is the name of the field `{owner}` in the backend already: give each its own")
                },
            )),
            None => {
                owners.insert(name, ident);
            }
        }
    }
}

/// One mistake a field at most: `accessor` mends all of them.
fn unique_methods(model: &Model, diag: &Diag) {
    let mut owners: HashMap<String, (String, &str)> = HashMap::new();
    for field in model.shared() {
        let ident = field.ident.unraw().to_string();
        let taken = made_for(field).into_iter().find_map(|(name, role)| {
            if symbol::RESERVED_METHODS.contains(&name.as_str()) {
                return Some(format!("`{name}` is a method that every handle has"));
            }
            let previous = owners.get(&name).map(|(owner, their_role)| {
                if *owner == ident {
                    format!("`{name}` would be both {their_role} and {role} of this field")
                } else {
                    format!("`{name}` would be both {their_role} of `{owner}` and {role} of `{ident}`")
                }
            });
            if previous.is_none() {
                owners.insert(name, (ident.clone(), role));
            }
            previous
        });
        if let Some(taken) = taken {
            match &field.attrs.accessor {
                Some(given) => diag.error(&given.value, format!("{taken}: choose another accessor")),
                None => diag.error(
                    &field.ident,
                    format!("{taken}: name this field's methods with `#[synced(accessor = \"…\")]`"),
                ),
            }
        }
    }
}

fn made_for(field: &Field) -> Vec<(String, &'static str)> {
    let names = &field.names;
    let mut made = vec![
        (names.getter.unraw().to_string(), "the getter"),
        (names.setter.unraw().to_string(), "the setter"),
        (names.view.unraw().to_string(), "the view"),
        (names.constant.unraw().to_string(), "the constant"),
    ];
    made.extend(names.kept.iter().map(|name| (name.clone(), "a method")));
    made
}
