//! The methods of each field: getter, setter, view.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::Index;

use super::{Context, docs, indexed};
use crate::model::Field;

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    indexed(context).map(|(place, field)| methods(context, &place, field)).collect()
}

fn methods(context: &Context<'_>, place: &Index, field: &Field) -> TokenStream {
    let Context { model, private, .. } = context;
    let site = context.site;
    let vis = &model.vis;
    let ty = &field.ty;
    let value = context.value(ty);
    let names = &field.names;
    let (getter, setter, view, constant) = (&names.getter, &names.setter, &names.view, &names.constant);
    let getter_docs = docs::getter(field);
    let setter_docs = docs::setter(field);
    let view_docs = docs::view(field);
    let allows = &field.notes.allows;
    let deprecated = &field.notes.deprecated;
    let marks = quote_spanned! {site=> #(#allows)* #deprecated };
    let (argument, given) = if field.attrs.into.is_some() {
        (
            quote_spanned! {site=> impl ::std::convert::Into<#ty> },
            quote_spanned! {site=> ::std::convert::Into::into(value) },
        )
    } else {
        (quote_spanned! {site=> #ty }, quote_spanned! {site=> value })
    };
    quote_spanned! {site=>
        #getter_docs
        #marks
        #vis fn #getter(&self) -> #private::Result<#ty> {
            #value::get(self.#view())
        }

        #setter_docs
        #marks
        #vis fn #setter(&self, value: #argument) -> #private::Result<#private::Written> {
            #value::set(self.#view(), #given)
        }

        #view_docs
        #marks
        #[must_use]
        #vis fn #view(&self) -> &#private::Synced<#ty> {
            #value::view(&self.inner.#place, &self.inner.0, &Self::#constant)
        }
    }
}
