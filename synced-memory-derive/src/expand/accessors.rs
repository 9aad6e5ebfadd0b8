//! The methods of each field: getter, setter, update, addition, view.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::Ident;
use syn::spanned::Spanned;

use super::{Context, FieldIndices, docs, keys};
use crate::model::{FieldKind, FieldModel, Names};

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    context
        .indexed_fields()
        .map(|(indices, field)| methods(context, &indices, field))
        .collect()
}

fn methods(context: &Context<'_>, indices: &FieldIndices, field: &FieldModel) -> TokenStream {
    // In full, so that a new name has to be expanded; `keys` expands the constant.
    let Names {
        getter,
        setter,
        update,
        add,
        sub,
        view: _,
        constant: _,
    } = &field.names;
    let getter = getter
        .as_ref()
        .map(|name| self::getter(context, indices, field, name));
    let setter = setter
        .as_ref()
        .map(|name| self::setter(context, field, name));
    let update = update
        .as_ref()
        .map(|name| self::update(context, field, name));
    let add = add.as_ref().map(|name| self::add(context, field, name));
    let sub = sub.as_ref().map(|name| self::sub(context, field, name));
    let view = view(context, indices, field);
    quote_spanned! {context.site=> #getter #setter #update #add #sub #view }
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
    getter: &Ident,
) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty, view) = (&model.vis, &field.ty, &field.names.view);
    let value = context.value(ty);
    let attrs = copied_attrs(context, field);
    let docs = docs::getter(field);
    if field.kind == FieldKind::Nested {
        let (handle, nested) = (context.nested(ty, "Handle"), context.nested(ty, "nested"));
        let index = &indices.handle;
        // If the type is not synced, rustc reports that at the signature and in the body. All
        // tokens have the span of the type, so that it reports it once.
        quote_spanned! {context.site.located_at(ty.span())=>
            #docs
            #attrs
            #[must_use]
            #vis fn #getter(&self) -> &#handle {
                #nested(&self.inner.#index, || #value::part(self.#view()))
            }
        }
    } else {
        quote_spanned! {context.site=>
            #docs
            #attrs
            #vis fn #getter(&self) -> #support::Result<#ty> {
                #value::get(self.#view())
            }
        }
    }
}

fn setter(context: &Context<'_>, field: &FieldModel, setter: &Ident) -> TokenStream {
    let Context {
        model,
        support,
        site,
        ..
    } = context;
    let (site, vis, ty) = (*site, &model.vis, &field.ty);
    let value = context.value(ty);
    let view = &field.names.view;
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

fn update(context: &Context<'_>, field: &FieldModel, update: &Ident) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty, output) = (&model.vis, &field.ty, &model.closure_output);
    let value = context.value(ty);
    let view = &field.names.view;
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

fn add(context: &Context<'_>, field: &FieldModel, add: &Ident) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty, view) = (&model.vis, &field.ty, &field.names.view);
    let attrs = copied_attrs(context, field);
    let docs = docs::add(field);
    quote_spanned! {context.site=>
        #docs
        #attrs
        #vis fn #add(&self, amount: #ty) -> #support::Result<#support::Written> {
            <#ty as #support::AddableField>::add(self.#view(), amount)
        }
    }
}

fn sub(context: &Context<'_>, field: &FieldModel, sub: &Ident) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty, view) = (&model.vis, &field.ty, &field.names.view);
    let attrs = copied_attrs(context, field);
    let docs = docs::sub(field);
    quote_spanned! {context.site=>
        #docs
        #attrs
        #vis fn #sub(&self, amount: #ty) -> #support::Result<#support::Written> {
            <#ty as #support::IntegerField>::sub(self.#view(), amount)
        }
    }
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
