//! Tokens from a model without mistakes. Nothing here can fail.
//!
//! Three rules make the generated code compile without warnings in any crate: every path is
//! absolute; locals have the hygiene of `macro_rules`; and what needs a field's type to be a value
//! is called as `<T as macro_support::FieldType>::…` at the type's own tokens, so that rustc sees
//! the same mistake each time and reports it once.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Generics, Index, Type, WhereClause, WherePredicate, parse_quote};

use crate::model::{FieldKind, FieldModel, StructModel, WhenUnset};

mod accessors;
mod docs;
mod fallback;
mod handle;
mod keys;
mod schema;
mod whole;

pub(crate) use fallback::stubs;

pub(crate) fn expand(model: &StructModel) -> TokenStream {
    let context = Context::new(model);
    let handle = handle::expand(&context);
    let keys = keys::expand(&context);
    let accessors = accessors::expand(&context);
    let whole = whole::expand(&context);
    let schema = schema::expand(&context);
    let name = &model.handle;
    let (impl_generics, arguments, _) = model.generics.split_for_impl();
    let where_values = &context.where_values;
    let allow = context.allow();
    quote_spanned! {context.site=>
        #handle

        #allow
        #[automatically_derived]
        impl #impl_generics #name #arguments #where_values {
            #keys
            #accessors
            #whole
        }

        #schema
    }
}

/// What every part of the expansion needs.
struct Context<'a> {
    model: &'a StructModel,
    site: Span,
    /// `::synced_memory::macro_support`.
    support: TokenStream,
    /// The user's struct with its arguments.
    schema: TokenStream,
    /// The user's bounds, and that each shared type is a value.
    where_values: WhereClause,
}

impl<'a> Context<'a> {
    fn new(model: &'a StructModel) -> Self {
        let site = Span::mixed_site();
        let krate = &model.krate;
        let support = quote! { #krate::macro_support };
        let (_, arguments, _) = model.generics.split_for_impl();
        let schema = &model.schema;
        Self {
            model,
            site,
            schema: quote! { #schema #arguments },
            where_values: where_values(model, &support),
            support,
        }
    }

    /// `<T as macro_support::FieldType>`, at the type's own tokens.
    fn value(&self, ty: &Type) -> TokenStream {
        let support = respan(self.support.clone(), ty.span());
        quote_spanned! {ty.span()=> <#ty as #support::FieldType> }
    }

    /// `<T as macro_support::SyncedMemory>::item`, located at the type.
    fn nested(&self, ty: &Type, item: &str) -> TokenStream {
        let span = self.site.located_at(ty.span());
        let support = respan(self.support.clone(), span);
        let item = Ident::new(item, span);
        quote_spanned! {span=> <#ty as #support::SyncedMemory>::#item }
    }

    /// The function that lists the members of a nested field's type. All its tokens, the type's
    /// too, are spanned as generated code: so rustc takes a type that is not synced for the same
    /// mistake as in the getter.
    fn members(&self, ty: &Type) -> TokenStream {
        let span = self.site.located_at(ty.span());
        let spanned = |mut token: TokenTree| {
            token.set_span(span);
            token
        };
        self.nested(ty, "members")
            .into_iter()
            .map(spanned)
            .collect()
    }

    /// The lints that the user allowed. Of its own accord generated code allows nothing but the use
    /// of what the user deprecated: rustc refuses an `allow` of what the user's crate forbids.
    fn allow(&self) -> TokenStream {
        let allows = &self.model.copied.allows;
        let is_deprecated = self.model.copied.deprecated.is_some()
            || (self.model.fields.iter()).any(|field| field.copied.deprecated.is_some());
        let deprecated = is_deprecated.then(|| quote! { #[allow(deprecated)] });
        quote_spanned! {self.site=> #(#allows)* #deprecated }
    }

    /// The shared fields, and where they are in the handle's tuple, which starts with the root.
    fn indexed_fields(&self) -> impl Iterator<Item = (FieldIndices, &'a FieldModel)> {
        let mut next = 1;
        self.model.shared().map(move |field| {
            let view = Index::from(next);
            let handle = (field.kind == FieldKind::Nested).then(|| Index::from(next + 1));
            next += if handle.is_some() { 2 } else { 1 };
            (FieldIndices { view, handle }, field)
        })
    }
}

/// Where a field is in the handle's tuple.
struct FieldIndices {
    view: Index,
    /// The handle of a nested field's own fields.
    handle: Option<Index>,
}

fn where_values(model: &StructModel, support: &TokenStream) -> WhereClause {
    let mut predicates: Vec<WherePredicate> = Vec::new();
    for parameter in model.generics.type_params() {
        let ident = &parameter.ident;
        predicates.push(parse_quote! { #ident: 'static });
    }
    for field in model.shared().filter(|field| field.generic) {
        let ty = &field.ty;
        predicates.push(parse_quote! { #ty: #support::Value });
        if field.kind == FieldKind::Nested {
            predicates.push(parse_quote! { #ty: #support::SyncedMemory });
        }
        // serde infers this bound for its `default`, so this derive does so as well.
        if field
            .attrs
            .default
            .as_ref()
            .is_some_and(|default| default.value.is_none())
            || matches!(field.as_member.when_unset, Some(WhenUnset::Default))
        {
            predicates.push(parse_quote! { #ty: ::std::default::Default });
        }
    }
    if model.generics.type_params().next().is_some()
        && model
            .shared()
            .any(|field| matches!(field.as_member.when_unset, Some(WhenUnset::OfStruct(None))))
    {
        let schema = &model.schema;
        let (_, arguments, _) = model.generics.split_for_impl();
        predicates.push(parse_quote! { #schema #arguments: ::std::default::Default });
    }
    let mut clause = match &model.generics.where_clause {
        Some(clause) => clause.clone(),
        None => parse_quote! { where },
    };
    let mut added = Vec::new();
    for predicate in predicates {
        let text = predicate.to_token_stream().to_string();
        if !added.contains(&text) {
            clause.predicates.push(predicate);
            added.push(text);
        }
    }
    clause
}

/// The generics of the struct as declared, with their defaults.
fn declaration(generics: &Generics) -> TokenStream {
    let mut generics = generics.clone();
    generics.where_clause = None;
    for parameter in generics.type_params_mut() {
        parameter.attrs.clear();
    }
    generics.into_token_stream()
}

fn respan(tokens: TokenStream, span: Span) -> TokenStream {
    tokens
        .into_iter()
        .map(|mut token| {
            token.set_span(token.span().located_at(span));
            token
        })
        .collect()
}
