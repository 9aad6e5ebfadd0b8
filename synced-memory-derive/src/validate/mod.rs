//! Every rule that a model can break. No tokens are made here: each mistake underlines the user's
//! own.

use std::time::Duration;

use proc_macro2::Span;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::visit::Visit;
use syn::{Lifetime, Type, TypeReference};

use crate::attr::{Attrs, EXCLUSIONS};
use crate::diag::Diag;
use crate::model::{FieldModel, StructModel};
use crate::{serde_attr, type_syntax};

mod kind;
mod names;

pub(crate) fn model(model: &StructModel, diag: &Diag) {
    structure(model, diag);
    for field in &model.fields {
        if field.is_skipped() {
            skipped(field, diag);
        } else {
            exclusions(&field.attrs, diag);
            kind::fitting(field, diag);
            field_type(field, diag);
            serde_field(field, diag);
            names::wire_names(field, diag);
            ttl(field, diag);
        }
    }
    names::unique_wire_names(model, diag);
    names::unique_members(model, diag);
    names::unique_methods(model, diag);
}

fn structure(model: &StructModel, diag: &Diag) {
    for parameter in model.generics.lifetimes() {
        diag.error(
            &parameter.lifetime,
            "a shared value cannot borrow: write owned types, such as `String` for `&str`, and \
             remove the lifetime",
        );
    }
    if let Some(given) = &model.attrs.prefix {
        names::prefix(&given.value, diag);
    }
    if let Some(given) = &model.attrs.scope {
        names::scope(&given.value, diag);
    }
    exclusions(&model.attrs, diag);
    serde_struct(model, diag);
    check_handle_name(model, diag);
}

fn check_handle_name(model: &StructModel, diag: &Diag) {
    let given = model.attrs.handle.as_ref();
    let at = given.map_or(&model.schema, |given| &given.value);
    if model.handle == model.schema {
        diag.error(
            at,
            "the handle cannot have the name of the struct: choose another",
        );
    } else if model.handle.unraw() == "SyncedMemory" {
        let fix = match given {
            Some(_) => "choose another name",
            None => "name it, as in `#[synced(handle = MyHandle)]`",
        };
        diag.error(
            at,
            format!("the handle would hide the trait `SyncedMemory`: {fix}"),
        );
    }
}

/// Attributes that exclude each other: every one but the first of the table is a mistake.
fn exclusions(attrs: &Attrs, diag: &Diag) {
    for exclusion in EXCLUSIONS {
        let given = |name| attrs.words.iter().find(|word| *word == name);
        let mut given = exclusion.words.iter().filter_map(given);
        let Some(first) = given.next() else {
            continue;
        };
        for other in given {
            diag.error(
                other,
                match exclusion.reason {
                    Some(reason) => format!("{reason}: remove one"),
                    None => format!("`{first}` and `{other}` exclude each other: keep one"),
                },
            );
        }
    }
}

/// A skipped field is not shared, so no other attribute has an effect.
fn skipped(field: &FieldModel, diag: &Diag) {
    for word in field.attrs.words.iter().filter(|word| *word != "skip") {
        diag.error(
            word,
            format!("a skipped field is not shared: remove `{word}` or `skip`"),
        );
    }
}

/// Inside a key the struct must be an object whose members are the fields.
fn serde_struct(model: &StructModel, diag: &Diag) {
    for word in &model.serde.refused {
        let name = word.to_string();
        diag.error(
            word,
            match name.as_str() {
                serde_attr::RENAME_ALL => "a field is written and read under one name: write \
                     `rename_all = \"…\"`"
                    .to_owned(),
                serde_attr::TAG => "`tag` adds a member that is not a field: remove it, and \
                     declare the member as a field"
                    .to_owned(),
                serde_attr::TRANSPARENT => "a transparent struct has no members to set one by \
                     one: remove `transparent`, or share the type inside"
                    .to_owned(),
                _ => format!(
                    "`{name}` gives the struct another form than its fields have: remove it, or \
                     derive `SyncedMemory` for a struct that has that form"
                ),
            },
        );
    }
}

fn serde_field(field: &FieldModel, diag: &Diag) {
    for word in &field.serde.refused {
        let name = word.to_string();
        diag.error(
            word,
            match name.as_str() {
                serde_attr::RENAME => "a field is written and read under one name: write \
                     `rename = \"…\"`, and the other name as an `alias`"
                    .to_owned(),
                serde_attr::FLATTEN => "a field is one member, and `flatten` makes it many: \
                     remove `flatten`, or add `#[synced(skip)]`"
                    .to_owned(),
                _ => format!(
                    "`{name}` gives the field another form than its type has: write a type with \
                     that form, or add `#[synced(skip)]`"
                ),
            },
        );
    }
    // One mistake for each field: they all have the same fix.
    if let Some(word) = field.serde.skips.first() {
        diag.error(
            word,
            format!(
                "a field that serde skips cannot be shared: add `#[synced(skip)]`, or remove \
                 `{word}`"
            ),
        );
    }
}

fn field_type(field: &FieldModel, diag: &Diag) {
    if let Some(inner) = type_syntax::inside_synced(&field.ty) {
        let inner = spelling(inner);
        diag.error(
            &field.ty,
            format!(
                "the struct declares plain values, and its handle has the `Synced`: write `{inner}`"
            ),
        );
    }
    // One mistake for each field, at the first borrow.
    if let Some(span) = FirstBorrow::find(field) {
        diag.push(syn::Error::new(
            span,
            "a shared value cannot borrow: write an owned type, such as `String` for `&str`",
        ));
    }
}

/// The type as a user would write it: without spaces between the tokens.
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

/// Where a type borrows first.
#[derive(Default)]
struct FirstBorrow(Option<Span>);

impl FirstBorrow {
    fn find(field: &FieldModel) -> Option<Span> {
        let mut this = Self::default();
        this.visit_type(&field.ty);
        this.0
    }
}

impl<'ast> Visit<'ast> for FirstBorrow {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        self.0.get_or_insert(reference.and_token.span);
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        // A `Cow<'static, str>` is owned when it is read back.
        if lifetime.ident != "static" {
            self.0.get_or_insert(lifetime.span());
        }
    }
}

fn ttl(field: &FieldModel, diag: &Diag) {
    // Redis counts in milliseconds, and refuses what its clock cannot represent.
    const LONGEST: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);
    let (Some(arg), Some(ttl)) = (&field.attrs.ttl, field.ttl) else {
        return;
    };
    if ttl < Duration::from_millis(1) {
        diag.error(
            &arg.value,
            "a `ttl` is at least one millisecond: write `1ms` or more",
        );
    } else if ttl > LONGEST {
        diag.error(
            &arg.value,
            "a `ttl` is at most a thousand years: remove it to keep the value for good",
        );
    }
}
