//! Every rule that a model can break. No tokens are made here: each mistake is put at the user's
//! own.

use std::time::Duration;

use proc_macro2::Span;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::visit::Visit;
use syn::{Lifetime, Type, TypeReference};

use crate::attr::{Arg, Flag};
use crate::diag::Diag;
use crate::kind;
use crate::model::{Field, Model};
use crate::symbol;

mod names;
mod shape;

pub(crate) fn model(model: &Model, diag: &Diag) {
    structure(model, diag);
    for field in &model.fields {
        if field.is_skipped() {
            skipped(field, diag);
        } else {
            shape::check(field, diag);
            field_type(field, diag);
            one_write_policy(&field.attrs.behind, &field.attrs.confirmed, diag);
            serde_field(field, diag);
            names::wire_names(field, diag);
            ttl(field, diag);
        }
    }
    names::unique_wire_names(model, diag);
    names::unique_members(model, diag);
    names::unique_methods(model, diag);
}

fn structure(model: &Model, diag: &Diag) {
    for parameter in model.generics.lifetimes() {
        diag.error(
            &parameter.lifetime,
            "what is shared outlives every borrow: own the data, as in `String` for `&str`, and \
             remove the lifetime",
        );
    }
    if let Some(given) = &model.attrs.prefix {
        names::prefix(&given.value, diag);
    }
    if let Some(given) = &model.attrs.scope {
        names::scope(&given.value, diag);
    }
    one_write_policy(&model.attrs.behind, &model.attrs.confirmed, diag);
    serde_struct(model, diag);
    let handle = model.handle.unraw().to_string();
    let given = model.attrs.handle.is_some();
    if model.handle == model.schema {
        diag.error(
            &model.handle,
            "the handle is a struct of its own: give it another name than the struct's",
        );
    } else if handle == "SyncedMemory" {
        diag.error(
            &model.handle,
            format!(
                "the handle would hide the trait `SyncedMemory`: {}",
                if given {
                    "give it another name"
                } else {
                    "name it, as in `#[synced(handle = MyHandle)]`"
                }
            ),
        );
    }
}

/// A write returns once it is queued, or with what has come of it.
fn one_write_policy(behind: &Flag, confirmed: &Flag, diag: &Diag) {
    if let (Some(_), Some(confirmed)) = (behind, confirmed) {
        diag.error(
            &confirmed.word,
            "a write returns once it is queued (`behind`), or once the backend has answered (`confirmed`): remove one",
        );
    }
}

/// A skipped field is not shared, so all other words are without effect.
fn skipped(field: &Field, diag: &Diag) {
    for word in words(field) {
        diag.error(
            word,
            format!("a skipped field is not shared: remove `{word}` or `skip`"),
        );
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
        word(attrs.confirmed.as_ref()),
    ];
    let aliases = attrs.aliases.iter().map(|alias| &alias.word);
    single.into_iter().flatten().chain(aliases)
}

/// Inside a key the struct is what serde makes of it: an object whose members are the fields.
fn serde_struct(model: &Model, diag: &Diag) {
    for word in &model.serde.refused {
        let name = word.to_string();
        diag.error(
            word,
            match name.as_str() {
                symbol::RENAME_ALL => {
                    "a field is written and read under one name: write `rename_all = \"…\"`".to_owned()
                }
                symbol::TAG => "`tag` adds a member that is no field: remove it, and write it as a field".to_owned(),
                symbol::TRANSPARENT => "a transparent struct has no members to set one by one: remove `transparent`, \
                     or share the type inside"
                    .to_owned(),
                _ => format!(
                    "`{name}` gives the struct another form than its fields: remove it, or derive `SyncedMemory` for \
                     a struct that has that form"
                ),
            },
        );
    }
}

fn serde_field(field: &Field, diag: &Diag) {
    for word in &field.serde.refused {
        let name = word.to_string();
        diag.error(
            word,
            match name.as_str() {
                symbol::RENAME => "a field is written and read under one name: write `rename = \"…\"`, with the other \
                     name as an `alias`"
                    .to_owned(),
                symbol::FLATTEN => "a field is one member, and `flatten` makes it many: remove `flatten`, or write \
                     `#[synced(skip)]` beside it"
                    .to_owned(),
                _ => format!(
                    "`{name}` gives the field another form than its type: give it a type with that form, or write \
                     `#[synced(skip)]` beside it"
                ),
            },
        );
    }
    // One mistake a field: they all need the same.
    if let Some(word) = field.serde.skips.first() {
        diag.error(
            word,
            format!("what serde leaves out cannot be shared: write `#[synced(skip)]` beside it, or remove `{word}`"),
        );
    }
}

fn field_type(field: &Field, diag: &Diag) {
    if let Some(inner) = kind::inside_synced(&field.ty) {
        let inner = spelling(inner);
        diag.error(
            &field.ty,
            format!(
                "the struct holds plain values, and the handle makes the `Synced`: write `{inner}`"
            ),
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
    for (spaced, written) in [
        (" :: ", "::"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
    ] {
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

fn ttl(field: &Field, diag: &Diag) {
    // Redis counts in milliseconds, and what passes its clock's end is refused there.
    const LONGEST: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);
    let (Some(arg), Some(ttl)) = (&field.attrs.ttl, field.ttl) else {
        return;
    };
    if ttl < Duration::from_millis(1) {
        diag.error(
            &arg.value,
            "a value lives for at least a millisecond: `1ms`",
        );
    } else if ttl > LONGEST {
        diag.error(
            &arg.value,
            "more than a thousand years: remove `ttl`, and the value stays",
        );
    }
}
