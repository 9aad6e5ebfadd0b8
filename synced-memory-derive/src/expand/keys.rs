//! The constants: for each field a typed key that carries its default, aliases, ttl and policies.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{ExprPath, Ident, LitStr};

use super::{Context, docs};
use crate::model::{FieldKind, FieldModel, StructModel, WhenUnset};

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    context
        .model
        .shared()
        .map(|field| key(context, field))
        .collect()
}

fn key(context: &Context<'_>, field: &FieldModel) -> TokenStream {
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
    let spec = spec(context, field, &field.when_unset, &aliases);
    let ttl = field.ttl.map(|ttl| {
        let (secs, nanos) = (ttl.as_secs(), ttl.subsec_nanos());
        quote_spanned! {site=> .ttl(::std::time::Duration::new(#secs, #nanos)) }
    });
    let policies = policies(model, field).map(|policy| {
        let policy = Ident::new(policy, site);
        quote_spanned! {site=> .#policy() }
    });
    let allows = &field.copied.allows;
    quote_spanned! {site=>
        #docs
        #(#allows)*
        #vis const #constant: #support::Key<#ty> = {
            use #support::FollowNothing as _;
            #support::Key::following(
                #wire,
                #spec #ttl #(#policies)*,
                <#support::Spec<#ty>>::FOLLOW
            )
        };
    }
}

/// The methods of `Spec` for how the field is read and written. For writes, the field's own
/// attribute goes before the struct's.
fn policies(model: &StructModel, field: &FieldModel) -> impl Iterator<Item = &'static str> {
    let near = model.attrs.near.is_some() || field.attrs.near.is_some();
    let write = [&field.attrs, &model.attrs].into_iter().find_map(|attrs| {
        let confirmed = attrs.confirmed.as_ref().map(|_| "confirmed");
        confirmed.or_else(|| attrs.behind.as_ref().map(|_| "behind"))
    });
    near.then_some("near").into_iter().chain(write)
}

/// The key of the field as a member of the object in a handle inside a key.
pub(super) fn member(context: &Context<'_>, field: &FieldModel) -> TokenStream {
    let support = &context.support;
    let member = &field.as_member;
    let name = &member.wire.name;
    let unset = member.when_unset.as_ref().unwrap_or(&field.when_unset);
    let aliases: Vec<_> = member.aliases.iter().map(LitStr::value).collect();
    let spec = spec(context, field, unset, &aliases);
    quote_spanned! {context.site=> #support::Key::with_spec(#name, #spec) }
}

fn spec(
    context: &Context<'_>,
    field: &FieldModel,
    unset: &WhenUnset,
    aliases: &[String],
) -> TokenStream {
    let Context {
        support,
        schema,
        site,
        ..
    } = context;
    let site = *site;
    let (ty, ident) = (&field.ty, &field.ident);
    let default = match unset {
        WhenUnset::Error => None,
        WhenUnset::Empty => Some(quote_spanned! {site=>
            .empty(<#ty as ::std::default::Default>::default)
        }),
        WhenUnset::Default => Some(quote_spanned! {site=>
            .default(<#ty as ::std::default::Default>::default)
        }),
        WhenUnset::Expr(expr) => Some(quote_spanned! {site=> .default(|| #expr) }),
        WhenUnset::Call(path) => {
            let call = call(path);
            Some(quote_spanned! {site=> .default(|| #call) })
        }
        WhenUnset::OfStruct(None) => Some(quote_spanned! {site=>
            .default(|| <#schema as ::std::default::Default>::default().#ident)
        }),
        WhenUnset::OfStruct(Some(path)) => {
            let call = call(path);
            Some(quote_spanned! {site=> .default(|| #call.#ident) })
        }
    };
    let aliases =
        (!aliases.is_empty()).then(|| quote_spanned! {site=> .aliases(&[#(#aliases),*]) });
    let nested = (field.kind == FieldKind::Nested).then(|| {
        let members = context.members(ty);
        quote_spanned! {site=> .nested(#members) }
    });
    quote_spanned! {site=> #support::Spec::new() #default #aliases #nested }
}

/// At the span of the path, where rustc then reports a function of another type.
fn call(path: &ExprPath) -> TokenStream {
    quote_spanned! {path.span()=> #path() }
}
