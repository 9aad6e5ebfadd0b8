//! The documentation of what is generated: the user's words where there are some, and a section on
//! errors for everything that can fail.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;

use crate::model::{Field, Notes, Shape};

const READ: &str = "\n# Errors\n\n\
    `Unset` if the field has no value and no default; `Decode` if what is stored is not of this \
    type; `Unavailable` if the backend cannot be asked and nothing is known of the field.";

const WRITE: &str = "\n# Errors\n\n\
    `Serialize` if the value has no JSON form; `Rejected` if the server refuses it for good; \
    `OutboxFull` if it can be neither sent nor queued. After an error nothing is changed.";

const UPDATE: &str = "\nThe closure runs on this thread, and again where somebody wrote in between; one that panics \
    changes nothing.\n\
    \n# Errors\n\n\
    `Unset` if the field has no value and no default; `Unavailable` if nothing is known of the field \
    and the backend cannot be asked; `Decode` if what is stored is not of this type; `Conflict` if \
    the closure writes to the same key, or others change it again and again; `Serialize`, `Rejected` and \
    `OutboxFull` as for a write. After an error nothing is changed.";

const ADD: &str = "\n# Errors\n\n\
    `Conflict` if the number would overflow, or if what is stored is none; `Serialize` if the \
    amount is no JSON number; `Rejected` if the server refuses it for good; `OutboxFull` if it can \
    be neither sent nor queued. After an error nothing is changed.";

const SNAPSHOT: &str = "\n# Errors\n\n\
    The first error that the getter of a field would give.";

/// The field's own text, or one that names it.
pub(super) fn getter(field: &Field) -> TokenStream {
    let name = field.ident.unraw();
    match field.shape {
        Shape::Value | Shape::Float | Shape::Integer => lines(
            &own_or(&field.notes, &format!("The value of `{name}`.")),
            READ,
        ),
        Shape::Nested => own_or(
            &field.notes,
            &format!("The fields of `{name}`, each to read and set alone."),
        ),
        Shape::Collection => own_or(
            &field.notes,
            &format!("A live view of `{name}`, to read and change part by part."),
        ),
    }
}

pub(super) fn setter(field: &Field) -> TokenStream {
    let text = format!(
        "Sets `{}` for every process that shares it.",
        field.ident.unraw()
    );
    lines(&after(&text, &field.notes), WRITE)
}

pub(super) fn update(field: &Field) -> TokenStream {
    let text = format!(
        "Changes `{}` by a closure; see `Synced::update`.",
        field.ident.unraw()
    );
    lines(&after(&text, &field.notes), UPDATE)
}

pub(super) fn add(field: &Field) -> TokenStream {
    let text = format!(
        "Adds to `{}`, together with what others add.",
        field.ident.unraw()
    );
    lines(&after(&text, &field.notes), ADD)
}

pub(super) fn sub(field: &Field) -> TokenStream {
    let text = format!(
        "Subtracts from `{}`, together with what others add and subtract.",
        field.ident.unraw()
    );
    lines(&after(&text, &field.notes), ADD)
}

/// Of a collection, the view is the getter.
pub(super) fn view(field: &Field) -> TokenStream {
    if field.shape == Shape::Collection {
        return getter(field);
    }
    let text = format!(
        "A live view of `{}`, to clone, keep and send to other threads.",
        field.ident.unraw()
    );
    after(&text, &field.notes)
}

pub(super) fn constant(field: &Field) -> TokenStream {
    let text = format!(
        "The key of `{}` where the struct is at the root of a memory, and not inside a key.",
        field.ident.unraw()
    );
    quote! { #[doc = #text] }
}

pub(super) fn handle(schema: &syn::Ident, notes: &Notes) -> TokenStream {
    let text = format!(
        "The live handle of a shared `{}`: clones share everything.",
        schema.unraw()
    );
    after(&text, notes)
}

pub(super) fn snapshot() -> TokenStream {
    lines(
        &quote! { #[doc = "The values of all fields, in one round trip."] },
        SNAPSHOT,
    )
}

pub(super) fn restore() -> TokenStream {
    lines(
        &quote! { #[doc = "Sets all fields, in one round trip, and answers for the one that fared worst."] },
        WRITE,
    )
}

pub(super) fn watch() -> TokenStream {
    quote! { #[doc = "Tells which fields have changed, by their names in `NAMES`; at first all of them."] }
}

pub(super) fn memory() -> TokenStream {
    quote! { #[doc = "The memory that the fields are in, with this struct's prefix and scope applied."] }
}

fn own_or(notes: &Notes, text: &str) -> TokenStream {
    let docs = &notes.docs;
    if notes.has_text() {
        quote! { #(#docs)* }
    } else {
        quote! { #[doc = #text] #(#docs)* }
    }
}

fn after(text: &str, notes: &Notes) -> TokenStream {
    let docs = &notes.docs;
    let gap = notes.has_text().then(|| quote! { #[doc = ""] });
    quote! { #[doc = #text] #gap #(#docs)* }
}

fn lines(own: &TokenStream, section: &str) -> TokenStream {
    let section = section.lines().map(|line| {
        if line.is_empty() {
            String::new()
        } else {
            format!(" {line}")
        }
    });
    quote! { #own #(#[doc = #section])* }
}
