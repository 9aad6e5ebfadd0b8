//! The methods of the whole struct.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use super::{Context, docs};

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    let snapshot = snapshot(context);
    let restore = restore(context);
    let watch = watch(context);
    let Context { model, support, .. } = context;
    let vis = &model.vis;
    let docs = docs::memory();
    quote_spanned! {context.site=>
        #snapshot
        #restore
        #watch

        #docs
        #[must_use]
        #vis fn memory(&self) -> &#support::Memory {
            self.inner.0.memory()
        }
    }
}

fn snapshot(context: &Context<'_>) -> TokenStream {
    let Context {
        model,
        support,
        schema,
        ..
    } = context;
    let vis = &model.vis;
    let docs = docs::snapshot();
    let views = views(context);
    let fields = model.fields.iter().map(|field| {
        let (ident, ty) = (&field.ident, &field.ty);
        let value = context.value(ty);
        let view = &field.names.view;
        if field.is_skipped() {
            quote_spanned! {context.site=> #ident: <#ty as ::std::default::Default>::default() }
        } else {
            quote_spanned! {context.site=> #ident: #value::loaded(&loaded, self.#view())? }
        }
    });
    let name = &model.schema;
    quote_spanned! {context.site=>
        #docs
        #vis fn snapshot(&self) -> #support::Result<#schema> {
            let loaded = #support::load(&self.inner.0, &[#(#views),*])?;
            ::std::result::Result::Ok(#name { #(#fields),* })
        }
    }
}

fn watch(context: &Context<'_>) -> TokenStream {
    let Context {
        model,
        support,
        schema,
        ..
    } = context;
    let vis = &model.vis;
    let docs = docs::watch();
    let views = views(context);
    quote_spanned! {context.site=>
        #docs
        #vis fn watch(
            &self,
        ) -> #support::Watch<::std::vec::Vec<&'static #support::std::primitive::str>> {
            #support::watch(
                &self.inner.0,
                &[#(#views),*],
                <#schema as #support::SyncedMemory>::NAMES,
            )
        }
    }
}

/// The views of all fields, whatever their types.
fn views(context: &Context<'_>) -> impl Iterator<Item = TokenStream> {
    context.model.shared().map(|field| {
        let value = context.value(&field.ty);
        let view = &field.names.view;
        quote_spanned! {context.site=> #value::as_view(self.#view()) }
    })
}

fn restore(context: &Context<'_>) -> TokenStream {
    let Context {
        model,
        support,
        schema,
        ..
    } = context;
    let vis = &model.vis;
    let docs = docs::restore();
    let sets = model.shared().map(|field| {
        let ident = &field.ident;
        let value = context.value(&field.ty);
        let view = &field.names.view;
        quote_spanned! {context.site=> #value::restore(&mut restore, self.#view(), value.#ident)?; }
    });
    let name = &model.schema;
    let (mutable, unused) = if model.shared().next().is_some() {
        (Some(quote! { mut }), None)
    } else {
        (
            None,
            Some(quote_spanned! {context.site=> let #name { .. } = value; }),
        )
    };
    quote_spanned! {context.site=>
        #docs
        #vis fn restore(&self, value: #schema) -> #support::Result<#support::Written> {
            #unused
            let #mutable restore = #support::Restore::new(&self.inner.0);
            #(#sets)*
            restore.commit()
        }
    }
}
