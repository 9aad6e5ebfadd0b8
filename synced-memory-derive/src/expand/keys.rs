//! The constants: a typed key for each field, with what the runtime must know of it.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{ExprPath, LitStr};

use super::{Context, docs};
use crate::model::{Field, Shape, Unset};

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    context
        .model
        .shared()
        .map(|field| key(context, field))
        .collect()
}

fn key(context: &Context<'_>, field: &Field) -> TokenStream {
    let Context { model, support, .. } = context;
    let site = context.site;
    let vis = &model.vis;
    let constant = &field.names.constant;
    let ty = &field.ty;
    let wire = &field.wire.name;
    let docs = docs::constant(field);
    let aliases: Vec<_> = field
        .attrs
        .aliases
        .iter()
        .map(|alias| alias.value.value())
        .collect();
    let spec = spec(context, field, &field.unset, &aliases);
    let ttl = field.ttl.map(|ttl| {
        let (secs, nanos) = (ttl.as_secs(), ttl.subsec_nanos());
        quote_spanned! {site=> .ttl(::std::time::Duration::new(#secs, #nanos)) }
    });
    let near = (model.attrs.near.is_some() || field.attrs.near.is_some())
        .then(|| quote_spanned! {site=> .near() });
    let (of_field, of_struct) = (&field.attrs, &model.attrs);
    // What the field says goes before what the struct says.
    let write = match (of_field.confirmed.is_some(), of_field.behind.is_some()) {
        (true, _) => Some(quote_spanned! {site=> .confirmed() }),
        (false, true) => Some(quote_spanned! {site=> .behind() }),
        (false, false) if of_struct.confirmed.is_some() => {
            Some(quote_spanned! {site=> .confirmed() })
        }
        (false, false) => of_struct
            .behind
            .is_some()
            .then(|| quote_spanned! {site=> .behind() }),
    };
    let allows = &field.notes.allows;
    quote_spanned! {site=>
        #docs
        #(#allows)*
        #vis const #constant: #support::Key<#ty> = #support::Key::with_spec(#wire, #spec #ttl #near #write);
    }
}

/// The key of the field as a member of the object in a handle inside a key.
pub(super) fn inside(context: &Context<'_>, field: &Field) -> TokenStream {
    let support = &context.support;
    let inside = &field.inside;
    let name = &inside.wire.name;
    let unset = inside.unset.as_ref().unwrap_or(&field.unset);
    let aliases: Vec<_> = inside.aliases.iter().map(LitStr::value).collect();
    let spec = spec(context, field, unset, &aliases);
    quote_spanned! {context.site=> #support::Key::with_spec(#name, #spec) }
}

fn spec(context: &Context<'_>, field: &Field, unset: &Unset, aliases: &[String]) -> TokenStream {
    let Context {
        support,
        schema,
        site,
        ..
    } = context;
    let site = *site;
    let (ty, ident) = (&field.ty, &field.ident);
    let default = match unset {
        Unset::Error => None,
        Unset::Empty => Some(quote_spanned! {site=>
            .empty(<#ty as ::std::default::Default>::default)
        }),
        Unset::Default => Some(quote_spanned! {site=>
            .default(<#ty as ::std::default::Default>::default)
        }),
        Unset::Expr(expr) => Some(quote_spanned! {site=> .default(|| #expr) }),
        Unset::Call(path) => {
            let call = call(path);
            Some(quote_spanned! {site=> .default(|| #call) })
        }
        Unset::OfStruct(None) => Some(quote_spanned! {site=>
            .default(|| <#schema as ::std::default::Default>::default().#ident)
        }),
        Unset::OfStruct(Some(path)) => {
            let call = call(path);
            Some(quote_spanned! {site=> .default(|| #call.#ident) })
        }
    };
    let aliases =
        (!aliases.is_empty()).then(|| quote_spanned! {site=> .aliases(&[#(#aliases),*]) });
    let nested = (field.shape == Shape::Nested).then(|| {
        let members = context.members(ty);
        quote_spanned! {site=> .nested(#members) }
    });
    quote_spanned! {site=> #support::Spec::new() #default #aliases #nested }
}

/// At the path, so that a function of another type is a mistake there.
fn call(path: &ExprPath) -> TokenStream {
    quote_spanned! {path.span()=> #path() }
}
