//! What the user meant: one value for the struct, one for each field, with the original tokens for
//! [`validate`](crate::validate) to underline. A model can be read from any input, mistaken ones
//! too, since the stubs are made from it.

use std::time::Duration;

use proc_macro2::Span;
use quote::format_ident;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprPath, Fields, Generics, Ident, LitStr, Meta, Path,
    Type, Visibility, parse_quote,
};

use crate::attr::{Arg, FieldAttrs, StructAttrs};
use crate::case::{self, Case};
use crate::diag::Diag;
use crate::kind::{self, Kind};
use crate::serde_attr::{SerdeDefault, SerdeField, SerdeStruct};
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
    /// A name for the type that a closure gives, which nothing in the struct has.
    pub(crate) answer: Ident,
    pub(crate) attrs: StructAttrs,
    pub(crate) serde: SerdeStruct,
}

pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) shape: Shape,
    pub(crate) wire: Wire,
    pub(crate) unset: Unset,
    pub(crate) inside: Inside,
    pub(crate) ttl: Option<Duration>,
    pub(crate) names: Names,
    /// The type stands on a parameter of the struct.
    pub(crate) generic: bool,
    pub(crate) notes: Notes,
    pub(crate) attrs: FieldAttrs,
    pub(crate) serde: SerdeField,
}

/// What a field's methods are for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Value,
    Float,
    Integer,
    /// Its getter is the view, whose methods change it part by part.
    Collection,
    /// Its getter is the handle of its own fields.
    Nested,
}

/// The field as a member of the object, in a handle inside a key.
pub(crate) struct Inside {
    pub(crate) wire: Wire,
    pub(crate) aliases: Vec<LitStr>,
    /// Where serde's derive says what a missing member is; else it is what the unset field is.
    pub(crate) unset: Option<Unset>,
}

/// The name in the backend, and where it was written.
pub(crate) struct Wire {
    pub(crate) name: String,
    pub(crate) span: Span,
}

/// What a read of an unset field gives.
pub(crate) enum Unset {
    Error,
    /// What its type is while it is empty, though no attribute says so.
    Empty,
    Default,
    Expr(Expr),
    /// What this function gives.
    Call(ExprPath),
    /// The field of the whole struct's default, or of what this function gives.
    OfStruct(Option<ExprPath>),
}

/// The names that are made for one field.
pub(crate) struct Names {
    /// That of a collection is its view.
    pub(crate) getter: Ident,
    pub(crate) setter: Ident,
    pub(crate) update: Ident,
    pub(crate) add: Option<Ident>,
    pub(crate) sub: Option<Ident>,
    pub(crate) view: Ident,
    pub(crate) constant: Ident,
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
        let serde = SerdeStruct::read(&input.attrs);
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
        let fields = named_fields(input, diag)
            .map(|field| Field::read(field, input, rename_all, &serde, &parameters, diag))
            .collect();
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
            answer: unused_parameter(input),
            attrs,
            serde,
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
        serde_struct: &SerdeStruct,
        parameters: &[String],
        diag: &Diag,
    ) -> Self {
        let attrs = FieldAttrs::read(&field.attrs, diag);
        let serde = SerdeField::read(&field.attrs);
        let ident = field.ident.clone().expect("only named fields are read");
        let plain = ident.unraw().to_string();
        let named = |rename: Option<&LitStr>, rename_all: Option<Case>| match rename {
            Some(rename) => Wire {
                name: rename.value(),
                span: rename.span(),
            },
            None => Wire {
                name: rename_all.map_or_else(|| plain.clone(), |case| case.apply(&plain)),
                span: ident.span(),
            },
        };
        let wire = named(
            attrs.rename.as_ref().map(|rename| &rename.value),
            rename_all,
        );
        let shape = Shape::of(&field.ty, &attrs);
        let accessor = attrs
            .accessor
            .as_ref()
            .and_then(|accessor| read_accessor(&accessor.value, diag))
            .unwrap_or_else(|| plain.clone());
        let spell_out = |expr: &Expr| self_type::spell_out(expr, &input.ident, &input.generics);
        let unset = match &attrs.default {
            Some(Arg {
                value: Some(expr), ..
            }) => Unset::Expr(spell_out(expr)),
            Some(Arg { value: None, .. }) => Unset::Default,
            None if is_empty_unset(&field.ty, shape) => Unset::Empty,
            None => Unset::Error,
        };
        let spell_out_path =
            |path: &ExprPath| self_type::spell_out(path, &input.ident, &input.generics);
        let inside_unset = match (&serde.default, &serde_struct.default) {
            (Some(SerdeDefault::Trait), _) => Some(Unset::Default),
            (Some(SerdeDefault::Path(path)), _) => Some(Unset::Call(spell_out_path(path))),
            (None, Some(SerdeDefault::Trait)) => Some(Unset::OfStruct(None)),
            (None, Some(SerdeDefault::Path(path))) => {
                Some(Unset::OfStruct(Some(spell_out_path(path))))
            }
            (None, None) => None,
        };
        let member = named(serde.rename.as_ref(), serde_struct.rename_all);
        // serde takes the name itself as an alias, too.
        let older = serde
            .aliases()
            .into_iter()
            .filter(|alias| alias.value() != member.name);
        let inside = Inside {
            aliases: older.cloned().collect(),
            wire: member,
            unset: inside_unset,
        };
        Self {
            names: Names::of(&accessor, shape, &ident),
            ty: self_type::spell_out(&field.ty, &input.ident, &input.generics),
            ttl: attrs
                .ttl
                .as_ref()
                .and_then(|ttl| read_ttl(&ttl.value, diag)),
            generic: kind::mentions(&field.ty, parameters) || has_self(field, parameters),
            notes: Notes::read(&field.attrs),
            ident,
            shape,
            wire,
            unset,
            inside,
            attrs,
            serde,
        }
    }

    pub(crate) fn is_skipped(&self) -> bool {
        self.attrs.skip.is_some()
    }
}

impl Shape {
    /// What the attributes say, where they can be right, else what the type looks like.
    fn of(ty: &Type, attrs: &FieldAttrs) -> Self {
        let alone = attrs.value.is_none() && attrs.collection.is_none();
        if attrs.nested.is_some()
            && alone
            && (kind::opaque(ty).is_none() || kind::is_bare_value(ty))
        {
            return Self::Nested;
        }
        if attrs.collection.is_some() {
            return Self::Collection;
        }
        match Kind::of(ty) {
            Kind::Float => Self::Float,
            Kind::Integer => Self::Integer,
            Kind::Collection if attrs.value.is_none() => Self::Collection,
            Kind::Plain | Kind::Option | Kind::Collection => Self::Value,
        }
    }
}

impl Names {
    fn of(accessor: &str, shape: Shape, field: &Ident) -> Self {
        // Each name leads an editor back to the field.
        let method = |name: &str| {
            let ident = syn::parse_str::<Ident>(name);
            let mut ident = ident.unwrap_or_else(|_| Ident::new_raw(name, field.span()));
            ident.set_span(field.span());
            ident
        };
        let getter = method(accessor);
        let view = match shape {
            Shape::Collection => getter.clone(),
            _ => method(&format!("synced_{accessor}")),
        };
        Self {
            getter,
            setter: method(&format!("set_{accessor}")),
            update: method(&format!("update_{accessor}")),
            add: matches!(shape, Shape::Float | Shape::Integer)
                .then(|| method(&format!("add_{accessor}"))),
            sub: (shape == Shape::Integer).then(|| method(&format!("sub_{accessor}"))),
            view,
            constant: method(&case::constant(accessor)),
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
fn named_fields<'a>(
    input: &'a DeriveInput,
    diag: &Diag,
) -> impl Iterator<Item = &'a syn::Field> + use<'a> {
    let name = &input.ident;
    let fields = match &input.data {
        Data::Struct(data) => {
            match &data.fields {
                Fields::Named(fields) => Some(&fields.named),
                Fields::Unnamed(fields) => {
                    diag.error(
                        fields,
                        format!(
                            "fields are shared by name: write `struct {name} {{ name: Type }}`"
                        ),
                    );
                    None
                }
                Fields::Unit => {
                    diag.error(name, format!("a unit struct has nothing to share: write `struct {name} {{ name: Type }}`"));
                    None
                }
            }
        }
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

/// Whether an unset field of this type is `None` or empty.
fn is_empty_unset(ty: &Type, shape: Shape) -> bool {
    match (shape, Kind::of(ty)) {
        (Shape::Collection, _) | (Shape::Value, Kind::Option) => true,
        // Of a `Value` that is no collection nothing is known.
        (Shape::Value, Kind::Collection) => !kind::is_bare_value(ty),
        _ => false,
    }
}

/// `R`, or a name like it that neither the parameters of the struct nor the types of its fields
/// use.
fn unused_parameter(input: &DeriveInput) -> Ident {
    let Data::Struct(data) = &input.data else {
        return format_ident!("R");
    };
    let used = |name: &String| {
        let name = std::slice::from_ref(name);
        kind::mentions(&input.ident, name)
            || kind::mentions(&input.generics, name)
            || data
                .fields
                .iter()
                .any(|field| kind::mentions(&field.ty, name))
    };
    let mut name = "R".to_owned();
    while used(&name) {
        name.push('R');
    }
    Ident::new(&name, Span::mixed_site())
}

/// `Self` stands for the struct with all its parameters.
fn has_self(field: &syn::Field, parameters: &[String]) -> bool {
    !parameters.is_empty() && kind::mentions(&field.ty, &["Self".to_owned()])
}

fn read_accessor(literal: &LitStr, diag: &Diag) -> Option<String> {
    let text = literal.value();
    let plain = text.strip_prefix("r#").unwrap_or(&text);
    let is_name = syn::parse_str::<Ident>(&format!("set_{plain}")).is_ok()
        && plain.starts_with(|c: char| !c.is_ascii_digit());
    if !is_name || matches!(plain, "_" | "self" | "Self" | "super" | "crate") {
        diag.error(
            literal,
            format!(
                "`{text}` cannot name a method: write an identifier, as in `accessor = \"name\"`"
            ),
        );
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
        None => format!(
            "`{rule}` is not a rule: the rules are {}",
            symbol::list(case::NAMES)
        ),
    }
}
