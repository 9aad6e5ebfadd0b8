//! Names in the backend, in JSON and of methods: which are valid, and that no two fields share one.

use std::collections::HashMap;

use proc_macro2::Span;
use syn::LitStr;
use syn::ext::IdentExt;

use crate::diag::Diag;
use crate::model::{FieldModel, RESERVED_METHODS, RESERVED_PREFIX, StructModel};

pub(super) fn wire_names(field: &FieldModel, diag: &Diag) {
    let aliases = field.attrs.aliases.iter();
    for arg in field.attrs.rename.iter().chain(aliases) {
        let name = arg.value.value();
        if name.is_empty() {
            diag.error(&arg.value, "a name in the backend cannot be empty");
        } else if let Some(c) = name.chars().find(|c| matches!(c, ':' | '{' | '}')) {
            diag.error(
                &arg.value,
                format!(
                    "a name in the backend cannot contain `{c}`: colons separate scopes, and \
                     braces choose the cluster slot"
                ),
            );
        }
    }
}

/// Colons separate nested scopes, each of which has a name.
pub(super) fn scope(literal: &LitStr, diag: &Diag) {
    let text = literal.value();
    if text.is_empty() {
        diag.error(literal, "a scope cannot be empty: remove `scope` for none");
    } else if text.split(':').any(str::is_empty) {
        diag.error(
            literal,
            "a scope cannot have an empty part: write a name before and after each colon",
        );
    }
    if text.contains(['{', '}']) {
        diag.error(
            literal,
            "a scope cannot contain braces: they choose the cluster slot, and belong in the prefix",
        );
    }
}

/// A prefix may contain one hash tag, which puts all keys in one cluster slot.
pub(super) fn prefix(literal: &LitStr, diag: &Diag) {
    let text = literal.value();
    let braces = text.matches(['{', '}']).collect::<String>();
    if !braces.is_empty() && (braces != "{}" || text.contains("{}")) {
        diag.error(
            literal,
            "a prefix can contain one hash tag and no other braces, as in `prefix = \"{myapp}:\"`",
        );
    }
    if text.starts_with(RESERVED_PREFIX) {
        diag.error(
            literal,
            format!(
                "prefixes that start with `{RESERVED_PREFIX}` are reserved for the library: \
                 choose another"
            ),
        );
    } else if !text.is_empty() && RESERVED_PREFIX.starts_with(&text) {
        diag.error(
            literal,
            format!(
                "`{RESERVED_PREFIX}`, which is reserved for the library, starts with this prefix: \
                 end it with a colon, as in `prefix = \"{}:\"`",
                text.trim_end_matches(['/', '-'])
            ),
        );
    }
}

pub(super) fn unique_wire_names(model: &StructModel, diag: &Diag) {
    // Names before aliases, so that a clash is reported at the alias, whichever comes first.
    let names = model
        .shared()
        .map(|f| (f, f.wire.name.clone(), f.wire.span));
    let aliases = model.shared().flat_map(|field| {
        (field.attrs.aliases.iter()).map(move |a| (field, a.value.value(), a.value.span()))
    });
    unique(names.chain(aliases), "in the backend", diag);
}

/// serde would write both fields under that name, and could read neither.
pub(super) fn unique_members(model: &StructModel, diag: &Diag) {
    let names = model
        .shared()
        .map(|f| (f, f.as_member.wire.name.clone(), f.as_member.wire.span));
    let aliases = model.shared().flat_map(|field| {
        (field.as_member.aliases.iter()).map(move |alias| (field, alias.value(), alias.span()))
    });
    unique(names.chain(aliases), "in JSON", diag);
}

fn unique<'a>(
    names: impl Iterator<Item = (&'a FieldModel, String, Span)>,
    namespace: &str,
    diag: &Diag,
) {
    let mut owners: HashMap<String, String> = HashMap::new();
    for (field, name, span) in names {
        let ident = field.ident.unraw().to_string();
        match owners.get(&name) {
            Some(owner) => diag.push(syn::Error::new(
                span,
                if *owner == ident {
                    format!("`{name}` is a name of this field already: remove one")
                } else {
                    format!(
                        "`{name}` is already the name of the field `{owner}` {namespace}: choose \
                         another"
                    )
                },
            )),
            None => {
                owners.insert(name, ident);
            }
        }
    }
}

/// At most one mistake for each field: `accessor` fixes all of them.
pub(super) fn unique_methods(model: &StructModel, diag: &Diag) {
    let mut owners: HashMap<String, (String, &str)> = HashMap::new();
    for field in model.shared() {
        let ident = field.ident.unraw().to_string();
        let taken = generated_names(field).into_iter().find_map(|(name, role)| {
            if RESERVED_METHODS.contains(&name.as_str()) {
                return Some(format!("`{name}` is a method that every handle has"));
            }
            let previous = owners.get(&name).map(|(owner, their_role)| {
                if *owner == ident {
                    format!("`{name}` would be both {their_role} and {role} of this field")
                } else {
                    format!(
                        "`{name}` would be both {their_role} of `{owner}` and {role} of `{ident}`"
                    )
                }
            });
            if previous.is_none() {
                owners.insert(name, (ident.clone(), role));
            }
            previous
        });
        if let Some(taken) = taken {
            match &field.attrs.accessor {
                Some(given) => {
                    diag.error(&given.value, format!("{taken}: choose another accessor"));
                }
                None => diag.error(
                    &field.ident,
                    format!(
                        "{taken}: name this field's methods with `#[synced(accessor = \"…\")]`"
                    ),
                ),
            }
        }
    }
}

fn generated_names(field: &FieldModel) -> Vec<(String, &'static str)> {
    let names = &field.names;
    let methods = names
        .methods()
        .map(|(method, name)| (name, method.description()));
    methods
        .chain([(&names.constant, "the constant")])
        .map(|(name, role)| (name.unraw().to_string(), role))
        .collect()
}
