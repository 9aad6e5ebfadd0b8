//! The constants: a typed key for each field, with what the runtime must know of it.

use proc_macro2::TokenStream;
use quote::quote_spanned;

use super::{Context, docs};
use crate::model::{Field, Unset};

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    context.model.shared().map(|field| key(context, field)).collect()
}

fn key(context: &Context<'_>, field: &Field) -> TokenStream {
    let Context { model, private, .. } = context;
    let site = context.site;
    let vis = &model.vis;
    let constant = &field.names.constant;
    let ty = &field.ty;
    let wire = &field.wire.name;
    let docs = docs::constant(field);
    let spec = spec(context, field);
    let allows = &field.notes.allows;
    quote_spanned! {site=>
        #docs
        #(#allows)*
        #vis const #constant: #private::Key<#ty> = #private::Key::with_spec(#wire, #spec);
    }
}

fn spec(context: &Context<'_>, field: &Field) -> TokenStream {
    let Context { private, .. } = context;
    let site = context.site;
    let ty = &field.ty;
    let default = match &field.unset {
        Unset::Error => None,
        Unset::Default => Some(quote_spanned! {site=>
            .default(<#ty as ::std::default::Default>::default)
        }),
        Unset::Expr(expr) => Some(quote_spanned! {site=> .default(|| #expr) }),
    };
    let aliases = (!field.attrs.aliases.is_empty()).then(|| {
        let names = field.attrs.aliases.iter().map(|alias| &alias.value);
        quote_spanned! {site=> .aliases(&[#(#names),*]) }
    });
    let ttl = field.ttl.map(|ttl| {
        let (secs, nanos) = (ttl.as_secs(), ttl.subsec_nanos());
        quote_spanned! {site=> .ttl(::std::time::Duration::new(#secs, #nanos)) }
    });
    quote_spanned! {site=> #private::Spec::new() #default #aliases #ttl }
}
