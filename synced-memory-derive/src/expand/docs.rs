//! The documentation of what is generated: the user's words where there are some, and a section on
//! errors for everything that can fail.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;

use crate::model::{Field, Notes};

const READ: &str = "\n# Errors\n\n\
    `Unset` if the field has no value and no default; `Decode` if what is stored is not of this \
    type; `Unavailable` if the backend cannot be asked and nothing is known of the field.";

const WRITE: &str = "\n# Errors\n\n\
    `Serialize` if the value has no JSON form; `Rejected` if the server refuses it for good; \
    `OutboxFull` if it can be neither sent nor queued. After an error nothing is changed.";

const SNAPSHOT: &str = "\n# Errors\n\n\
    The first error that the getter of a field would give.";

/// The field's own text, or one that names it.
pub(super) fn getter(field: &Field) -> TokenStream {
    let text = format!("The value of `{}`.", field.ident.unraw());
    let own = own_or(&field.notes, &text);
    lines(&own, READ)
}

pub(super) fn setter(field: &Field) -> TokenStream {
    let text = format!("Sets `{}` for every process that shares it.", field.ident.unraw());
    lines(&after(&text, &field.notes), WRITE)
}

pub(super) fn view(field: &Field) -> TokenStream {
    let text = format!("A live view of `{}`, to clone, keep and send to other threads.", field.ident.unraw());
    after(&text, &field.notes)
}

pub(super) fn constant(field: &Field) -> TokenStream {
    let text = format!("The key of `{}` in this handle's memory.", field.ident.unraw());
    quote! { #[doc = #text] }
}

pub(super) fn handle(schema: &syn::Ident, notes: &Notes) -> TokenStream {
    let text = format!("The live handle of a shared `{}`: clones share everything.", schema.unraw());
    after(&text, notes)
}

pub(super) fn snapshot() -> TokenStream {
    lines(&quote! { #[doc = "The values of all fields, in one round trip."] }, SNAPSHOT)
}

pub(super) fn restore() -> TokenStream {
    lines(&quote! { #[doc = "Sets all fields, in one round trip, and answers for the one that fared worst."] }, WRITE)
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
    let section = section.lines().map(|line| if line.is_empty() { String::new() } else { format!(" {line}") });
    quote! { #own #(#[doc = #section])* }
}
