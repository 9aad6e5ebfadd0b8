//! The methods of each field: getter, setter, update, addition, view.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::spanned::Spanned;

use super::{Context, FieldIndices, docs, keys};
use crate::model::{FieldKind, FieldModel};

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    context
        .indexed_fields()
        .map(|(indices, field)| methods(context, &indices, field))
        .collect()
}

fn methods(context: &Context<'_>, indices: &FieldIndices, field: &FieldModel) -> TokenStream {
    let getter = getter(context, indices, field);
    let setter = setter(context, field);
    let update = update(context, field);
    let arithmetic = arithmetic(context, field);
    let view = view(context, indices, field);
    quote_spanned! {context.site=> #getter #setter #update #arithmetic #view }
}

/// The user's attributes that each method of the field has as well.
fn copied_attrs(context: &Context<'_>, field: &FieldModel) -> TokenStream {
    let allows = &field.copied.allows;
    let deprecated = &field.copied.deprecated;
    quote_spanned! {context.site=> #(#allows)* #deprecated }
}

fn getter(
    context: &Context<'_>,
    indices: &FieldIndices,
    field: &FieldModel,
) -> Option<TokenStream> {
    let Context { model, support, .. } = context;
    let vis = &model.vis;
    let ty = &field.ty;
    let value = context.value(ty);
    let (getter, view) = (&field.names.getter, &field.names.view);
    let attrs = copied_attrs(context, field);
    let docs = docs::getter(field);
    match field.kind {
        FieldKind::Value | FieldKind::Float | FieldKind::Integer => {
            Some(quote_spanned! {context.site=>
                #docs
                #attrs
                #vis fn #getter(&self) -> #support::Result<#ty> {
                    #value::get(self.#view())
                }
            })
        }
        FieldKind::Nested => {
            let (handle, nested) = (context.nested(ty, "Handle"), context.nested(ty, "nested"));
            let index = &indices.handle;
            // If the type is not synced, rustc reports that at the signature and in the body. All
            // tokens have the span of the type, so that it reports it once.
            Some(quote_spanned! {context.site.located_at(ty.span())=>
                #docs
                #attrs
                #[must_use]
                #vis fn #getter(&self) -> &#handle {
                    #nested(&self.inner.#index, || #value::part(self.#view()))
                }
            })
        }
        FieldKind::Collection => None,
    }
}

fn setter(context: &Context<'_>, field: &FieldModel) -> TokenStream {
    let Context {
        model,
        support,
        site,
        ..
    } = context;
    let (site, vis, ty) = (*site, &model.vis, &field.ty);
    let value = context.value(ty);
    let (setter, view) = (&field.names.setter, &field.names.view);
    let attrs = copied_attrs(context, field);
    let docs = docs::setter(field);
    let (argument, converted) = if field.attrs.into.is_some() {
        (
            quote_spanned! {site=> impl ::std::convert::Into<#ty> },
            quote_spanned! {site=> ::std::convert::Into::into(value) },
        )
    } else {
        (quote_spanned! {site=> #ty }, quote_spanned! {site=> value })
    };
    quote_spanned! {site=>
        #docs
        #attrs
        #vis fn #setter(&self, value: #argument) -> #support::Result<#support::Written> {
            #value::set(self.#view(), #converted)
        }
    }
}

fn update(context: &Context<'_>, field: &FieldModel) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty, output) = (&model.vis, &field.ty, &model.closure_output);
    let value = context.value(ty);
    let (update, view) = (&field.names.update, &field.names.view);
    let attrs = copied_attrs(context, field);
    let docs = docs::update(field);
    quote_spanned! {context.site=>
        #docs
        #attrs
        #vis fn #update<#output>(
            &self,
            change: impl ::std::ops::FnMut(&mut #ty) -> #output,
        ) -> #support::Result<#output> {
            #value::update(self.#view(), change)
        }
    }
}

fn arithmetic(context: &Context<'_>, field: &FieldModel) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty, view) = (&model.vis, &field.ty, &field.names.view);
    let attrs = copied_attrs(context, field);
    let add = field.names.add.as_ref().map(|add| {
        let docs = docs::add(field);
        quote_spanned! {context.site=>
            #docs
            #attrs
            #vis fn #add(&self, amount: #ty) -> #support::Result<#support::Written> {
                <#ty as #support::AddableField>::add(self.#view(), amount)
            }
        }
    });
    let sub = field.names.sub.as_ref().map(|sub| {
        let docs = docs::sub(field);
        quote_spanned! {context.site=>
            #docs
            #attrs
            #vis fn #sub(&self, amount: #ty) -> #support::Result<#support::Written> {
                <#ty as #support::IntegerField>::sub(self.#view(), amount)
            }
        }
    });
    quote_spanned! {context.site=> #add #sub }
}

fn view(context: &Context<'_>, indices: &FieldIndices, field: &FieldModel) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty) = (&model.vis, &field.ty);
    let value = context.value(ty);
    let (view, constant) = (&field.names.view, &field.names.constant);
    let attrs = copied_attrs(context, field);
    let docs = docs::view(field);
    let member = keys::member(context, field);
    let index = &indices.view;
    // The keys are references to constants, so that no read has to build them.
    quote_spanned! {context.site=>
        #docs
        #attrs
        #[must_use]
        #vis fn #view(&self) -> &#support::Synced<#ty> {
            #value::view(
                &self.inner.#index,
                &self.inner.0,
                const { &Self::#constant },
                const { &#member },
            )
        }
    }
}
