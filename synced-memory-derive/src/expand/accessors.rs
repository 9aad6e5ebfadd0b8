//! The methods of each field: getter, setter, update, addition, view.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::spanned::Spanned;

use super::{Context, Place, docs, keys, placed};
use crate::model::{Field, Shape};

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    placed(context)
        .map(|(place, field)| methods(context, &place, field))
        .collect()
}

fn methods(context: &Context<'_>, place: &Place, field: &Field) -> TokenStream {
    let getter = getter(context, place, field);
    let setter = setter(context, field);
    let update = update(context, field);
    let arithmetic = arithmetic(context, field);
    let view = view(context, place, field);
    quote_spanned! {context.site=> #getter #setter #update #arithmetic #view }
}

/// The user's attributes that go on each method of the field.
fn marks(context: &Context<'_>, field: &Field) -> TokenStream {
    let allows = &field.notes.allows;
    let deprecated = &field.notes.deprecated;
    quote_spanned! {context.site=> #(#allows)* #deprecated }
}

fn getter(context: &Context<'_>, place: &Place, field: &Field) -> Option<TokenStream> {
    let Context { model, support, .. } = context;
    let vis = &model.vis;
    let ty = &field.ty;
    let value = context.value(ty);
    let (getter, view) = (&field.names.getter, &field.names.view);
    let marks = marks(context, field);
    let docs = docs::getter(field);
    match field.shape {
        Shape::Value | Shape::Float | Shape::Integer => Some(quote_spanned! {context.site=>
            #docs
            #marks
            #vis fn #getter(&self) -> #support::Result<#ty> {
                #value::get(self.#view())
            }
        }),
        Shape::Nested => {
            let (handle, nested) = (context.nested(ty, "Handle"), context.nested(ty, "nested"));
            let place = &place.handle;
            // Where the type is not synced, rustc says so at the signature and the body too: all
            // are put at the type, so that it says it once.
            Some(quote_spanned! {context.site.located_at(ty.span())=>
                #docs
                #marks
                #[must_use]
                #vis fn #getter(&self) -> &#handle {
                    #nested(&self.inner.#place, || #value::part(self.#view()))
                }
            })
        }
        Shape::Collection => None,
    }
}

fn setter(context: &Context<'_>, field: &Field) -> TokenStream {
    let Context {
        model,
        support,
        site,
        ..
    } = context;
    let (site, vis, ty) = (*site, &model.vis, &field.ty);
    let value = context.value(ty);
    let (setter, view) = (&field.names.setter, &field.names.view);
    let marks = marks(context, field);
    let docs = docs::setter(field);
    let (argument, given) = if field.attrs.into.is_some() {
        (
            quote_spanned! {site=> impl ::std::convert::Into<#ty> },
            quote_spanned! {site=> ::std::convert::Into::into(value) },
        )
    } else {
        (quote_spanned! {site=> #ty }, quote_spanned! {site=> value })
    };
    quote_spanned! {site=>
        #docs
        #marks
        #vis fn #setter(&self, value: #argument) -> #support::Result<#support::Written> {
            #value::set(self.#view(), #given)
        }
    }
}

fn update(context: &Context<'_>, field: &Field) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty, answer) = (&model.vis, &field.ty, &model.answer);
    let value = context.value(ty);
    let (update, view) = (&field.names.update, &field.names.view);
    let marks = marks(context, field);
    let docs = docs::update(field);
    quote_spanned! {context.site=>
        #docs
        #marks
        #vis fn #update<#answer>(
            &self,
            change: impl ::std::ops::FnMut(&mut #ty) -> #answer,
        ) -> #support::Result<#answer> {
            #value::update(self.#view(), change)
        }
    }
}

fn arithmetic(context: &Context<'_>, field: &Field) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty, view) = (&model.vis, &field.ty, &field.names.view);
    let marks = marks(context, field);
    let add = field.names.add.as_ref().map(|add| {
        let docs = docs::add(field);
        quote_spanned! {context.site=>
            #docs
            #marks
            #vis fn #add(&self, amount: #ty) -> #support::Result<#support::Written> {
                <#ty as #support::AddableField>::add(self.#view(), amount)
            }
        }
    });
    let sub = field.names.sub.as_ref().map(|sub| {
        let docs = docs::sub(field);
        quote_spanned! {context.site=>
            #docs
            #marks
            #vis fn #sub(&self, amount: #ty) -> #support::Result<#support::Written> {
                <#ty as #support::IntegerField>::sub(self.#view(), amount)
            }
        }
    });
    quote_spanned! {context.site=> #add #sub }
}

fn view(context: &Context<'_>, place: &Place, field: &Field) -> TokenStream {
    let Context { model, support, .. } = context;
    let (vis, ty) = (&model.vis, &field.ty);
    let value = context.value(ty);
    let (view, constant) = (&field.names.view, &field.names.constant);
    let marks = marks(context, field);
    let docs = docs::view(field);
    let inside = keys::inside(context, field);
    let field = &place.view;
    // The keys are constants by reference: a read makes neither.
    quote_spanned! {context.site=>
        #docs
        #marks
        #[must_use]
        #vis fn #view(&self) -> &#support::Synced<#ty> {
            #value::view(&self.inner.#field, &self.inner.0, const { &Self::#constant }, const { &#inside })
        }
    }
}
