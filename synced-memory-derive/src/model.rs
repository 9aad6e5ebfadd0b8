//! What the user meant: one value for the struct, one for each field, with the original tokens for
//! [`validate`](crate::validate) to underline. A model can be read from any input, mistaken ones
//! too, since the stubs are made from it.

use std::time::Duration;

use proc_macro2::Span;
use quote::{ToTokens, format_ident};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Expr, Fields, Generics, Ident, LitStr, Meta, Path, Type, Visibility, parse_quote,
};

use crate::attr::{Arg, FieldAttrs, StructAttrs};
use crate::case::{self, Case};
use crate::diag::Diag;
use crate::kind::{self, Kind};
use crate::{self_type, symbol};

pub(crate) struct Model {
    pub(crate) schema: Ident,
    pub(crate) handle: Ident,
    pub(crate) vis: Visibility,
    pub(crate) generics: Generics,
    /// The path of `synced_memory` in the user's crate.
    pub(crate) krate: Path,
    pub(crate) notes: Notes,
    pub(crate) fields: Vec<Field>,
    pub(crate) attrs: StructAttrs,
}

pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) wire: Wire,
    pub(crate) unset: Unset,
    pub(crate) ttl: Option<Duration>,
    pub(crate) names: Names,
    /// The type stands on a parameter of the struct.
    pub(crate) generic: bool,
    pub(crate) notes: Notes,
    pub(crate) attrs: FieldAttrs,
}

/// The name in the backend, and where it was written.
pub(crate) struct Wire {
    pub(crate) name: String,
    pub(crate) span: Span,
}

/// What a read of an unset field gives.
pub(crate) enum Unset {
    Error,
    Default,
    Expr(Expr),
}

/// The names that are made for one field.
pub(crate) struct Names {
    pub(crate) getter: Ident,
    pub(crate) setter: Ident,
    pub(crate) view: Ident,
    pub(crate) constant: Ident,
    /// Names of methods that later versions will add: taken already, so that adding them breaks nobody.
    pub(crate) kept: Vec<String>,
}

/// Attributes of the user's that go on what is made for the item.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) docs: Vec<Attribute>,
    pub(crate) allows: Vec<Attribute>,
    pub(crate) deprecated: Option<Attribute>,
}

impl Model {
    pub(crate) fn read(input: &DeriveInput, diag: &Diag) -> Self {
        let attrs = StructAttrs::read(&input.attrs, diag);
        let rename_all = attrs.rename_all.as_ref().and_then(|rule| {
            let case = Case::named(&rule.value.value());
            if case.is_none() {
                diag.error(&rule.value, unknown_case(&rule.value.value()));
            }
            case
        });
        let parameters: Vec<String> = (input.generics.type_params().map(|p| &p.ident))
            .chain(input.generics.const_params().map(|p| &p.ident))
            .map(Ident::to_string)
            .collect();
        let fields =
            named_fields(input, diag).map(|field| Field::read(field, input, rename_all, &parameters, diag)).collect();
        let handle = match &attrs.handle {
            Some(handle) => handle.value.clone(),
            None => format_ident!("Synced{}", input.ident.unraw(), span = input.ident.span()),
        };
        let krate = match &attrs.krate {
            Some(krate) => krate.value.clone(),
            None => parse_quote!(::synced_memory),
        };
        Self {
            schema: input.ident.clone(),
            handle,
            vis: input.vis.clone(),
            generics: input.generics.clone(),
            krate,
            notes: Notes::read(&input.attrs),
            fields,
            attrs,
        }
    }

    /// The fields that are not skipped.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.is_skipped())
    }
}

impl Field {
    fn read(
        field: &syn::Field,
        input: &DeriveInput,
        rename_all: Option<Case>,
        parameters: &[String],
        diag: &Diag,
    ) -> Self {
        let attrs = FieldAttrs::read(&field.attrs, diag);
        let ident = field.ident.clone().expect("only named fields are read");
        let plain = ident.unraw().to_string();
        let wire = match &attrs.rename {
            Some(rename) => Wire { name: rename.value.value(), span: rename.value.span() },
            None => {
                Wire { name: rename_all.map_or_else(|| plain.clone(), |case| case.apply(&plain)), span: ident.span() }
            }
        };
        let syntax = Kind::of(&field.ty);
        let kind = if attrs.collection.is_some() {
            Kind::Collection
        } else if attrs.value.is_some() && syntax == Kind::Collection && !is_std(&field.ty) {
            // A `Value` that may be the user's own type.
            Kind::Plain
        } else {
            syntax
        };
        let accessor = attrs
            .accessor
            .as_ref()
            .and_then(|accessor| read_accessor(&accessor.value, diag))
            .unwrap_or_else(|| plain.clone());
        let spell_out = |expr: &Expr| self_type::spell_out(expr, &input.ident, &input.generics);
        let unset = match &attrs.default {
            Some(Arg { value: Some(expr), .. }) => Unset::Expr(spell_out(expr)),
            Some(Arg { value: None, .. }) => Unset::Default,
            None if matches!(kind, Kind::Option | Kind::Collection) => Unset::Default,
            None => Unset::Error,
        };
        Self {
            names: Names::of(&accessor, kind, &ident),
            ty: self_type::spell_out(&field.ty, &input.ident, &input.generics),
            ttl: attrs.ttl.as_ref().and_then(|ttl| read_ttl(&ttl.value, diag)),
            generic: kind::mentions(&field.ty, parameters) || has_self(field, parameters),
            notes: Notes::read(&field.attrs),
            ident,
            wire,
            unset,
            attrs,
        }
    }

    pub(crate) fn is_skipped(&self) -> bool {
        self.attrs.skip.is_some()
    }
}

impl Names {
    fn of(accessor: &str, kind: Kind, field: &Ident) -> Self {
        // Each name leads an editor back to the field.
        let method = |name: &str| {
            let ident = syn::parse_str::<Ident>(name);
            let mut ident = ident.unwrap_or_else(|_| Ident::new_raw(name, field.span()));
            ident.set_span(field.span());
            ident
        };
        let mut kept = vec![format!("update_{accessor}")];
        if kind.is_number() {
            kept.push(format!("add_{accessor}"));
        }
        if kind == Kind::Integer {
            kept.push(format!("sub_{accessor}"));
        }
        Self {
            getter: method(accessor),
            setter: method(&format!("set_{accessor}")),
            view: method(&format!("synced_{accessor}")),
            constant: method(&case::constant(accessor)),
            kept,
        }
    }
}

impl Notes {
    fn read(attrs: &[Attribute]) -> Self {
        let mut notes = Self::default();
        for attr in attrs {
            if attr.path().is_ident("doc") {
                notes.docs.push(attr.clone());
            } else if attr.path().is_ident("allow") {
                notes.allows.push(attr.clone());
            } else if attr.path().is_ident("deprecated") {
                notes.deprecated = Some(attr.clone());
            }
        }
        notes
    }

    /// Whether there is a text, not only a `#[doc(hidden)]`.
    pub(crate) fn has_text(&self) -> bool {
        (self.docs.iter()).any(|doc| matches!(doc.meta, Meta::NameValue(_)))
    }
}

/// The fields of a struct with named fields; for all else a mistake, and no fields.
fn named_fields<'a>(input: &'a DeriveInput, diag: &Diag) -> impl Iterator<Item = &'a syn::Field> + use<'a> {
    let name = &input.ident;
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Some(&fields.named),
            Fields::Unnamed(fields) => {
                diag.error(fields, format!("fields are shared by name: write `struct {name} {{ name: Type }}`"));
                None
            }
            Fields::Unit => {
                diag.error(name, format!("a unit struct has nothing to share: write `struct {name} {{ name: Type }}`"));
                None
            }
        },
        Data::Enum(data) => {
            diag.push(syn::Error::new(
                data.enum_token.span(),
                format!("an enum has no fields to share: make it the type of a field, as in `struct State {{ value: {name} }}`"),
            ));
            None
        }
        Data::Union(data) => {
            diag.push(syn::Error::new(
                data.union_token.span(),
                format!("a union cannot be stored: write `struct {name} {{ name: Type }}`"),
            ));
            None
        }
    };
    fields.into_iter().flatten()
}

/// Whether `Value` is spelled out, or one of the standard library's collections.
fn is_std(ty: &Type) -> bool {
    ty.to_token_stream().to_string() != "Value"
}

/// `Self` stands for the struct with all its parameters.
fn has_self(field: &syn::Field, parameters: &[String]) -> bool {
    !parameters.is_empty() && kind::mentions(&field.ty, &["Self".to_owned()])
}

fn read_accessor(literal: &LitStr, diag: &Diag) -> Option<String> {
    let text = literal.value();
    let plain = text.strip_prefix("r#").unwrap_or(&text);
    let is_name =
        syn::parse_str::<Ident>(&format!("set_{plain}")).is_ok() && plain.starts_with(|c: char| !c.is_ascii_digit());
    if !is_name || matches!(plain, "_" | "self" | "Self" | "super" | "crate") {
        diag.error(literal, format!("`{text}` cannot name a method: write an identifier, as in `accessor = \"name\"`"));
        return None;
    }
    Some(plain.to_owned())
}

fn read_ttl(literal: &LitStr, diag: &Diag) -> Option<Duration> {
    match humantime::parse_duration(&literal.value()) {
        Ok(ttl) => Some(ttl),
        Err(error) => {
            diag.error(
                literal,
                format!("not a duration ({error}): write a number with a unit, as in `ttl = \"30m\"` or `\"1h 30s\"`"),
            );
            None
        }
    }
}

fn unknown_case(rule: &str) -> String {
    match symbol::nearest(rule, case::NAMES) {
        Some(nearest) => format!("`{rule}` is not a rule: did you mean `{nearest}`?"),
        None => format!("`{rule}` is not a rule: the rules are {}", symbol::list(case::NAMES)),
    }
}
