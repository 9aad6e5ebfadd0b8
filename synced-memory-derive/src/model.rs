//! What the user meant: one value for the struct and one for each field, with the original tokens
//! for [`validate`](crate::validate) to underline. Any input gives a model, mistaken input too,
//! since the stubs are made from it.

use std::time::Duration;

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprPath, Fields, Generics, Ident, LitStr, Meta, Path,
    Type, Visibility, parse_quote,
};

use crate::attr::{Arg, AttrTarget, Attrs};
use crate::case::{self, Case};
use crate::diag::{self, Diag};
use crate::self_type;
use crate::serde_attr::{SerdeDefault, SerdeField, SerdeStruct};
use crate::type_syntax::{self, TypeSyntax};

/// The handle's own methods, whose names no field's method may have.
pub(crate) const RESERVED_METHODS: &[&str] =
    &["memory", "snapshot", "restore", "watch", "clone", "fields"];

/// What the names of the library's own keys start with, as `SIDECARS` there says.
pub(crate) const RESERVED_PREFIX: &str = "synced-memory/";

/// Keywords of some edition that `syn` takes for names.
const KEYWORDS_BEYOND_SYN: &[&str] = &["gen"];

pub(crate) struct StructModel {
    pub(crate) schema: Ident,
    pub(crate) handle: Ident,
    pub(crate) vis: Visibility,
    pub(crate) generics: Generics,
    /// The path of `synced_memory` in the user's crate.
    pub(crate) krate: Path,
    pub(crate) copied: CopiedAttrs,
    pub(crate) fields: Vec<FieldModel>,
    /// The name of the type parameter for what a closure returns, which nothing in the struct uses.
    pub(crate) closure_output: Ident,
    pub(crate) attrs: Attrs,
    pub(crate) serde: SerdeStruct,
}

pub(crate) struct FieldModel {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) kind: FieldKind,
    pub(crate) wire: WireName,
    pub(crate) when_unset: WhenUnset,
    pub(crate) as_member: AsMember,
    pub(crate) ttl: Option<Duration>,
    pub(crate) names: Names,
    /// Whether the type depends on a parameter of the struct.
    pub(crate) generic: bool,
    pub(crate) copied: CopiedAttrs,
    pub(crate) attrs: Attrs,
    pub(crate) serde: SerdeField,
}

/// Which methods a field has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FieldKind {
    Value,
    Float,
    Integer,
    /// Its getter is the view, whose methods change one element at a time.
    Collection,
    /// Its getter is the handle of its own fields.
    Nested,
}

/// The field in a handle inside a key: a member of the JSON object in there.
pub(crate) struct AsMember {
    pub(crate) wire: WireName,
    pub(crate) aliases: Vec<LitStr>,
    /// `None` if serde's derive does not say what a missing member reads as: then it reads as the
    /// unset field.
    pub(crate) when_unset: Option<WhenUnset>,
}

/// The name in the backend, and where the user wrote it.
pub(crate) struct WireName {
    pub(crate) name: String,
    pub(crate) span: Span,
}

/// What a read of an unset field returns.
pub(crate) enum WhenUnset {
    Error,
    /// The type's `Default`, `None` or empty, though no attribute says so.
    Empty,
    Default,
    Expr(Expr),
    /// What this function returns.
    Call(ExprPath),
    /// This field of the struct's `Default`, or of what this function returns.
    OfStruct(Option<ExprPath>),
}

/// The names that are generated for one field. `None` is a method that it does not have: the
/// methods, their stubs and the search for clashes all follow this.
pub(crate) struct Names {
    pub(crate) getter: Option<Ident>,
    pub(crate) setter: Option<Ident>,
    pub(crate) update: Option<Ident>,
    pub(crate) add: Option<Ident>,
    pub(crate) sub: Option<Ident>,
    /// Every field has it, since the other methods go through it.
    pub(crate) view: Ident,
    pub(crate) constant: Ident,
}

/// One of a field's methods.
#[derive(Clone, Copy)]
pub(crate) enum FieldMethod {
    Getter,
    Setter,
    Update,
    View,
    Add,
    Sub,
}

/// The user's attributes that are copied to what is generated.
#[derive(Default)]
pub(crate) struct CopiedAttrs {
    pub(crate) docs: Vec<Attribute>,
    pub(crate) allows: Vec<Attribute>,
    pub(crate) deprecated: Option<Attribute>,
}

impl StructModel {
    pub(crate) fn read(input: &DeriveInput, diag: &Diag) -> Self {
        let attrs = Attrs::read(&input.attrs, AttrTarget::Struct, diag);
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
            .map(|field| FieldModel::read(field, input, rename_all, &serde, &parameters, diag))
            .collect();
        let handle = match &attrs.handle {
            Some(handle) => as_generated(handle.value.clone()),
            None => as_generated(format_ident!(
                "Synced{}",
                input.ident.unraw(),
                span = input.ident.span()
            )),
        };
        let krate = match &attrs.krate {
            Some(krate) => krate.value.clone(),
            None => parse_quote!(::synced_memory),
        };
        Self {
            schema: input.ident.clone(),
            handle,
            vis: visibility(&input.vis),
            generics: input.generics.clone(),
            krate,
            copied: CopiedAttrs::read(&input.attrs),
            fields,
            closure_output: unused_parameter(input),
            attrs,
            serde,
        }
    }

    /// The fields that are not skipped.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &FieldModel> {
        self.fields.iter().filter(|field| !field.is_skipped())
    }
}

impl FieldModel {
    fn read(
        field: &syn::Field,
        input: &DeriveInput,
        rename_all: Option<Case>,
        serde_struct: &SerdeStruct,
        parameters: &[String],
        diag: &Diag,
    ) -> Self {
        let attrs = Attrs::read(&field.attrs, AttrTarget::Field, diag);
        let serde = SerdeField::read(&field.attrs);
        let ident = field.ident.clone().expect("only named fields are read");
        let rename = attrs.rename.as_ref().map(|rename| &rename.value);
        let kind = FieldKind::of(&field.ty, &attrs);
        let accessor = attrs
            .accessor
            .as_ref()
            .and_then(|accessor| read_accessor(&accessor.value, diag))
            .unwrap_or_else(|| ident.unraw().to_string());

        Self {
            names: Names::of(&accessor, kind, &ident),
            wire: WireName::of(&ident, rename, rename_all),
            when_unset: WhenUnset::of_attrs(&attrs, &field.ty, kind, input),
            as_member: AsMember::of(&ident, &serde, serde_struct, input),
            ty: self_type::spell_out(&field.ty, &input.ident, &input.generics),
            ttl: attrs
                .ttl
                .as_ref()
                .and_then(|ttl| read_ttl(&ttl.value, diag)),
            generic: type_syntax::mentions(&field.ty, parameters) || has_self(field, parameters),
            copied: CopiedAttrs::read(&field.attrs),
            ident,
            kind,
            attrs,
            serde,
        }
    }

    pub(crate) fn is_skipped(&self) -> bool {
        self.attrs.skip.is_some()
    }
}

impl WireName {
    fn of(field: &Ident, rename: Option<&LitStr>, rename_all: Option<Case>) -> Self {
        if let Some(rename) = rename {
            return Self {
                name: rename.value(),
                span: rename.span(),
            };
        }
        let name = field.unraw().to_string();
        Self {
            name: rename_all.map_or(name.clone(), |case| case.apply(&name)),
            span: field.span(),
        }
    }
}

impl WhenUnset {
    fn of_attrs(attrs: &Attrs, ty: &Type, kind: FieldKind, input: &DeriveInput) -> Self {
        match &attrs.default {
            Some(Arg {
                value: Some(expr), ..
            }) => Self::Expr(self_type::spell_out(expr, &input.ident, &input.generics)),
            Some(Arg { value: None, .. }) => Self::Default,
            None if is_empty_when_unset(ty, kind) => Self::Empty,
            None => Self::Error,
        }
    }

    /// What serde's derive says of a missing member: the field's attribute goes before the
    /// struct's.
    fn of_serde(
        field: Option<&SerdeDefault>,
        of_struct: Option<&SerdeDefault>,
        input: &DeriveInput,
    ) -> Option<Self> {
        let spell_out = |path| self_type::spell_out(path, &input.ident, &input.generics);
        match (field, of_struct) {
            (Some(SerdeDefault::Trait), _) => Some(Self::Default),
            (Some(SerdeDefault::Path(path)), _) => Some(Self::Call(spell_out(path))),
            (None, Some(SerdeDefault::Trait)) => Some(Self::OfStruct(None)),
            (None, Some(SerdeDefault::Path(path))) => Some(Self::OfStruct(Some(spell_out(path)))),
            (None, None) => None,
        }
    }
}

impl AsMember {
    fn of(
        field: &Ident,
        serde: &SerdeField,
        serde_struct: &SerdeStruct,
        input: &DeriveInput,
    ) -> Self {
        let wire = WireName::of(field, serde.rename.as_ref(), serde_struct.rename_all);
        // serde accepts the name itself as an alias, too.
        let aliases = serde.aliases().into_iter();
        let older = aliases.filter(|alias| alias.value() != wire.name);
        Self {
            aliases: older.cloned().collect(),
            wire,
            when_unset: WhenUnset::of_serde(
                serde.default.as_ref(),
                serde_struct.default.as_ref(),
                input,
            ),
        }
    }
}

impl FieldKind {
    /// What the attributes say if they can be right, else what the type looks like.
    fn of(ty: &Type, attrs: &Attrs) -> Self {
        let is_exclusive = attrs.value.is_none() && attrs.collection.is_none();
        if attrs.nested.is_some()
            && is_exclusive
            && (type_syntax::opaque(ty).is_none() || type_syntax::is_bare_value(ty))
        {
            return Self::Nested;
        }
        if attrs.collection.is_some() {
            return Self::Collection;
        }
        match TypeSyntax::of(ty) {
            TypeSyntax::Float => Self::Float,
            TypeSyntax::Integer => Self::Integer,
            TypeSyntax::Collection if attrs.value.is_none() => Self::Collection,
            TypeSyntax::Plain | TypeSyntax::Option | TypeSyntax::Collection => Self::Value,
        }
    }
}

impl Names {
    fn of(accessor: &str, kind: FieldKind, field: &Ident) -> Self {
        // With the field's span an editor finds the field from each of the names.
        let span = field.span();
        let method = |name: &str| match syn::parse_str::<Ident>(name) {
            Ok(_) if !KEYWORDS_BEYOND_SYN.contains(&name) => as_generated(Ident::new(name, span)),
            _ => as_generated(Ident::new_raw(name, span)),
        };
        // Of `_id` it is `set_id`: two underscores in a row are not snake case.
        let bare = accessor.trim_start_matches('_');
        let prefixed = |verb: &str| method(&format!("{verb}_{bare}"));
        // The view of a collection stands in for the getter, and has its name.
        let (getter, view) = match kind {
            FieldKind::Collection => (None, method(accessor)),
            _ => (Some(method(accessor)), prefixed("synced")),
        };
        Self {
            getter,
            setter: Some(prefixed("set")),
            update: Some(prefixed("update")),
            add: matches!(kind, FieldKind::Float | FieldKind::Integer).then(|| prefixed("add")),
            sub: (kind == FieldKind::Integer).then(|| prefixed("sub")),
            view,
            constant: method(&case::constant(accessor)),
        }
    }

    /// The methods that the field has.
    pub(crate) fn methods(&self) -> impl Iterator<Item = (FieldMethod, &Ident)> {
        // In full, so that a new name has to be listed.
        let Self {
            getter,
            setter,
            update,
            add,
            sub,
            view,
            constant: _,
        } = self;
        [
            (FieldMethod::Getter, getter.as_ref()),
            (FieldMethod::Setter, setter.as_ref()),
            (FieldMethod::Update, update.as_ref()),
            (FieldMethod::View, Some(view)),
            (FieldMethod::Add, add.as_ref()),
            (FieldMethod::Sub, sub.as_ref()),
        ]
        .into_iter()
        .filter_map(|(method, name)| Some((method, name?)))
    }
}

impl FieldMethod {
    /// What messages call it.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Getter => "the getter",
            Self::Setter => "the setter",
            Self::Update => "the update",
            Self::View => "the view",
            Self::Add => "the addition",
            Self::Sub => "the subtraction",
        }
    }
}

impl CopiedAttrs {
    fn read(attrs: &[Attribute]) -> Self {
        let mut copied = Self::default();
        for attr in attrs {
            if attr.path().is_ident("doc") {
                copied.docs.push(attr.clone());
            } else if attr.path().is_ident("allow") {
                copied.allows.push(attr.clone());
            } else if attr.path().is_ident("deprecated") {
                copied.deprecated = Some(attr.clone());
            }
        }
        copied
    }

    /// Whether the docs have text, and not only a `#[doc(hidden)]`.
    pub(crate) fn has_text(&self) -> bool {
        (self.docs.iter()).any(|doc| matches!(doc.meta, Meta::NameValue(_)))
    }
}

/// The fields of a struct with named fields. Anything else is a mistake, and has none.
fn named_fields<'a>(
    input: &'a DeriveInput,
    diag: &Diag,
) -> impl Iterator<Item = &'a syn::Field> + use<'a> {
    let name = &input.ident;
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Some(&fields.named),
            Fields::Unnamed(fields) => {
                diag.error(
                    fields,
                    format!("fields are shared by name: write `struct {name} {{ name: Type }}`"),
                );
                None
            }
            Fields::Unit => {
                diag.error(
                    name,
                    format!(
                        "a unit struct has nothing to share: write `struct {name} {{ name: \
                             Type }}`"
                    ),
                );
                None
            }
        },
        Data::Enum(data) => {
            diag.push(syn::Error::new(
                data.enum_token.span(),
                format!(
                    "an enum has no fields to share: make it the type of a field, as in `struct \
                     State {{ value: {name} }}`"
                ),
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

/// Whether an unset field of this type reads as `None` or empty.
fn is_empty_when_unset(ty: &Type, kind: FieldKind) -> bool {
    match (kind, TypeSyntax::of(ty)) {
        (FieldKind::Collection, _) | (FieldKind::Value, TypeSyntax::Option) => true,
        // A bare `Value` that is one value may be any type, without an empty value.
        (FieldKind::Value, TypeSyntax::Collection) => !type_syntax::is_bare_value(ty),
        _ => false,
    }
}

/// The name at the same place, as one of generated code: rustc does not warn of it if nobody uses
/// it, or it is unusual. An `allow` would not compile in a crate that forbids the lint.
fn as_generated(mut name: Ident) -> Ident {
    name.set_span(Span::mixed_site().located_at(name.span()));
    name
}

/// The visibility as one of generated code, for the same reason: for rustc an item is where its
/// visibility is.
fn visibility(vis: &Visibility) -> Visibility {
    fn respan(tokens: TokenStream) -> TokenStream {
        let respan_one = |mut token: TokenTree| {
            if let TokenTree::Group(group) = &token {
                token = Group::new(group.delimiter(), respan(group.stream())).into();
            }
            token.set_span(Span::mixed_site().located_at(token.span()));
            token
        };
        tokens.into_iter().map(respan_one).collect()
    }
    syn::parse2(respan(vis.to_token_stream())).unwrap_or_else(|_| vis.clone())
}

/// `R`, or `RR` and so on if the struct, its parameters or the types of its fields use that name.
fn unused_parameter(input: &DeriveInput) -> Ident {
    let Data::Struct(data) = &input.data else {
        return format_ident!("R");
    };
    let used = |name: &String| {
        let name = std::slice::from_ref(name);
        type_syntax::mentions(&input.ident, name)
            || type_syntax::mentions(&input.generics, name)
            || data
                .fields
                .iter()
                .any(|field| type_syntax::mentions(&field.ty, name))
    };
    let mut name = "R".to_owned();
    while used(&name) {
        name.push('R');
    }
    Ident::new(&name, Span::mixed_site())
}

/// `Self` means the struct with all its parameters.
fn has_self(field: &syn::Field, parameters: &[String]) -> bool {
    !parameters.is_empty() && type_syntax::mentions(&field.ty, &["Self".to_owned()])
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
                format!(
                    "not a duration ({error}): write a number with a unit, as in `ttl = \"30m\"` \
                     or `\"1h 30s\"`"
                ),
            );
            None
        }
    }
}

fn unknown_case(rule: &str) -> String {
    let rules = Case::names();
    match diag::nearest(rule, &rules) {
        Some(nearest) => {
            format!("`{rule}` is not a rule of `rename_all`: did you mean `{nearest}`?")
        }
        None => format!(
            "`{rule}` is not a rule of `rename_all`: the rules are {}",
            diag::list(&rules)
        ),
    }
}
