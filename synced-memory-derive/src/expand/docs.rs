//! The documentation of what is generated: the user's text if there is any, and a section on errors
//! for every call that can fail.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;

use crate::model::{CopiedAttrs, FieldKind, FieldModel};

/// Calls that fail for the same reasons. Each class has one section on errors.
#[derive(Clone, Copy)]
enum CallClass {
    Read,
    Write,
    Add,
    Closure,
    Snapshot,
    Restore,
}

/// An error kind, and when a call returns it.
type ErrorReason = (&'static str, &'static str);

const UNSET: ErrorReason = ("Unset", "the field is not set and has no default");
const UNKNOWN: ErrorReason = (
    "Unavailable",
    "the backend is away, and nothing is known of the field (it reads as its `default`, if it has \
     one)",
);
const WRONG_TYPE: ErrorReason = ("Decode", "what is stored is not of this type");
const REFUSED_KEY: ErrorReason = ("Rejected", "the server refuses the key");
const CLOSED: ErrorReason = ("Closed", "the memory was closed");
const NO_JSON: ErrorReason = ("Serialize", "JSON cannot hold the value");
const REFUSED_WRITE: ErrorReason = ("Rejected", "the server refuses the write for good");
const OUTBOX_FULL: ErrorReason = ("OutboxFull", "it can be neither sent nor queued");
const JOURNAL: ErrorReason = (
    "Journal",
    "it would be queued, and the journal cannot be written",
);
const NO_PARENT: ErrorReason = (
    "Unset",
    "the handle is that of an element, and the element is missing",
);
const WRONG_PARENT: ErrorReason = (
    "Decode",
    "the handle is inside a key, and something else is stored there",
);
const CONFLICT: ErrorReason = ("Conflict", "it does not apply to what others wrote");
const NOT_CONFIRMED: ErrorReason = (
    "Unavailable",
    "the field is confirmed, and the backend does not answer in time",
);
const IN_DOUBT: ErrorReason = (
    "InDoubt",
    "the field is confirmed, and the answer was lost: the change was made once, or never",
);

/// The kinds that no section lists, and why.
#[cfg(test)]
const UNLISTED: &[ErrorReason] = &[
    (
        "Config",
        "`Memory::scope` documents it: every call fails so if the scope is invalid",
    ),
    (
        "Timeout",
        "never returned by generated methods: `flush`, `close` and watches return it",
    ),
];

const UNCHANGED: &str = "After an error nothing is changed, except after `InDoubt`.";
const PARTLY_CHANGED: &str = "After `Serialize` nothing is changed. After another error, \
                              `Error::keys` says what became of each key.";

impl CallClass {
    fn reasons(self) -> &'static [ErrorReason] {
        match self {
            Self::Read | Self::Snapshot => &[UNSET, UNKNOWN, WRONG_TYPE, REFUSED_KEY, CLOSED],
            Self::Write | Self::Restore => &[
                NO_JSON,
                REFUSED_WRITE,
                OUTBOX_FULL,
                JOURNAL,
                CLOSED,
                NO_PARENT,
                WRONG_PARENT,
                CONFLICT,
                NOT_CONFIRMED,
                IN_DOUBT,
            ],
            Self::Add => &[
                (
                    "Conflict",
                    "the number would overflow, or what is stored is not a number",
                ),
                ("Serialize", "JSON cannot hold the amount"),
                REFUSED_WRITE,
                OUTBOX_FULL,
                JOURNAL,
                CLOSED,
                NO_PARENT,
                WRONG_PARENT,
                NOT_CONFIRMED,
                IN_DOUBT,
            ],
            Self::Closure => &[
                UNSET,
                (
                    "Unavailable",
                    "the backend is away, and nothing is known of the field or it is confirmed",
                ),
                WRONG_TYPE,
                (
                    "Conflict",
                    "the closure writes to the same key, or other processes change it again and \
                     again",
                ),
                NO_JSON,
                REFUSED_WRITE,
                OUTBOX_FULL,
                JOURNAL,
                CLOSED,
                IN_DOUBT,
            ],
        }
    }

    /// What is said before the list of reasons, and what after it.
    fn frame(self) -> (Option<&'static str>, Option<&'static str>) {
        match self {
            Self::Read => (None, None),
            Self::Write | Self::Add | Self::Closure => (None, Some(UNCHANGED)),
            Self::Snapshot => (Some("The first error that a getter would return:"), None),
            Self::Restore => (None, Some(PARTLY_CHANGED)),
        }
    }

    /// `own`, and then the section on errors.
    fn document(self, own: &TokenStream) -> TokenStream {
        let (before, after) = self.frame();
        let reasons = self.reasons().iter();
        let reasons = reasons.map(|(kind, when)| format!("- `{kind}` if {when}"));

        let mut lines = vec![String::new(), "# Errors".to_owned(), String::new()];
        lines.extend(
            before
                .into_iter()
                .flat_map(|text| [text.to_owned(), String::new()]),
        );
        lines.extend(reasons);
        lines.extend(
            after
                .into_iter()
                .flat_map(|text| [String::new(), text.to_owned()]),
        );

        let lines = lines.iter().map(|line| match line.as_str() {
            "" => String::new(),
            line => format!(" {line}"),
        });
        quote! { #own #(#[doc = #lines])* }
    }
}

/// The field's own text, or one that names it.
pub(super) fn getter(field: &FieldModel) -> TokenStream {
    let name = field.ident.unraw();
    if field.kind == FieldKind::Nested {
        let text =
            format!("The handle of the fields of `{name}`, which are read and set one by one.");
        own_or(&field.copied, &text)
    } else {
        let text = format!("The value of `{name}`.");
        CallClass::Read.document(&own_or(&field.copied, &text))
    }
}

pub(super) fn setter(field: &FieldModel) -> TokenStream {
    let text = format!(
        "Sets `{}` for every process that shares it.",
        field.ident.unraw()
    );
    CallClass::Write.document(&before(&text, &field.copied))
}

pub(super) fn update(field: &FieldModel) -> TokenStream {
    let text = format!(
        "Changes `{}` by a closure; see `Synced::update`. The closure runs on this thread, and \
         again if another process wrote in between; one that panics changes nothing.",
        field.ident.unraw()
    );
    CallClass::Closure.document(&before(&text, &field.copied))
}

pub(super) fn add(field: &FieldModel) -> TokenStream {
    let text = format!(
        "Adds to `{}`. Nothing that other processes add is lost.",
        field.ident.unraw()
    );
    CallClass::Add.document(&before(&text, &field.copied))
}

pub(super) fn sub(field: &FieldModel) -> TokenStream {
    let text = format!(
        "Subtracts from `{}`. Nothing that other processes add or subtract is lost.",
        field.ident.unraw()
    );
    CallClass::Add.document(&before(&text, &field.copied))
}

/// The view of a collection stands in for its getter, and is documented like one.
pub(super) fn view(field: &FieldModel) -> TokenStream {
    let name = field.ident.unraw();
    if field.kind == FieldKind::Collection {
        let text =
            format!("A live view of `{name}`, whose elements can be read and changed one by one.");
        return own_or(&field.copied, &text);
    }
    let text = format!("A live view of `{name}`, to clone, keep and send to other threads.");
    before(&text, &field.copied)
}

pub(super) fn constant(field: &FieldModel) -> TokenStream {
    let text = format!(
        "The key of `{}` in the handle's memory. It is not for a handle inside a key.",
        field.ident.unraw()
    );
    quote! { #[doc = #text] }
}

pub(super) fn handle(schema: &syn::Ident, copied: &CopiedAttrs) -> TokenStream {
    let text = format!(
        "The live handle of a shared `{}`: clones share everything.",
        schema.unraw()
    );
    before(&text, copied)
}

pub(super) fn snapshot() -> TokenStream {
    CallClass::Snapshot.document(&quote! {
        #[doc = "The values of all fields, in one round trip."]
    })
}

pub(super) fn restore() -> TokenStream {
    CallClass::Restore.document(&quote! {
        #[doc = "Sets all fields in one round trip, and returns the weakest of their results."]
    })
}

pub(super) fn watch() -> TokenStream {
    let text = "Yields the fields that have changed, by their names in `NAMES`: first all of \
                them. `Watch::recv` says when it fails.";
    quote! { #[doc = #text] }
}

pub(super) fn memory() -> TokenStream {
    quote! {
        #[doc = "The memory that the fields are in, with this struct's prefix and scope applied."]
    }
}

fn own_or(copied: &CopiedAttrs, text: &str) -> TokenStream {
    let docs = &copied.docs;
    if copied.has_text() {
        quote! { #(#docs)* }
    } else {
        quote! { #[doc = #text] #(#docs)* }
    }
}

/// `text`, and then the user's.
fn before(text: &str, copied: &CopiedAttrs) -> TokenStream {
    let docs = &copied.docs;
    let gap = copied.has_text().then(|| quote! { #[doc = ""] });
    quote! { #[doc = #text] #gap #(#docs)* }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The README's table of errors, which has all kinds: a test of the library sees to that.
    fn kinds() -> BTreeSet<&'static str> {
        let readme = include_str!("../../../README.md");
        let (_, table) = readme.split_once("\n| kind | when |\n").expect("a table");
        let rows = table.lines().skip(1);
        rows.take_while(|line| line.starts_with('|'))
            .map(|row| row.split('`').nth(1).expect("a kind"))
            .collect()
    }

    #[test]
    fn every_kind_of_error_is_documented_or_listed_as_not_returned() {
        let classes = [
            CallClass::Read,
            CallClass::Write,
            CallClass::Add,
            CallClass::Closure,
            CallClass::Snapshot,
            CallClass::Restore,
        ];
        let documented = classes.into_iter().flat_map(CallClass::reasons);
        let documented: BTreeSet<_> = documented.map(|(kind, _)| *kind).collect();
        let unlisted: BTreeSet<_> = UNLISTED.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(&documented | &unlisted, kinds());
        assert!(documented.is_disjoint(&unlisted), "{unlisted:?}");
    }
}
