//! The handle. Behind one `Arc` it has its root and the view of each field, made at its first use.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::ext::IdentExt;

use super::{Context, declaration, docs};
use crate::model::FieldKind;

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    let Context {
        model,
        support,
        schema,
        ..
    } = context;
    let site = context.site;
    let vis = &model.vis;
    let name = &model.handle;
    let text = name.unraw().to_string();
    let declared = declaration(&model.generics);
    let (impl_generics, arguments, bounds) = model.generics.split_for_impl();
    let docs = docs::handle(&model.schema, &model.copied);
    let allow = context.allow();
    let deprecated = &model.copied.deprecated;
    let fields = model.shared().map(|field| {
        let ty = &field.ty;
        let handle = (field.kind == FieldKind::Nested)
            .then(|| quote_spanned! {site=> #support::NestedHandle, });
        quote_spanned! {site=> #support::LazyView<#ty>, #handle }
    });
    quote_spanned! {site=>
        #docs
        #allow
        #deprecated
        #vis struct #name #declared #bounds {
            // The last element is for parameters that only skipped fields use.
            inner: ::std::sync::Arc<(
                #support::HandleRoot,
                #(#fields)*
                ::std::marker::PhantomData<fn() -> #schema>,
            )>,
        }

        #allow
        #[automatically_derived]
        impl #impl_generics ::std::clone::Clone for #name #arguments #bounds {
            fn clone(&self) -> Self {
                Self { inner: ::std::sync::Arc::clone(&self.inner) }
            }
        }

        #allow
        #[automatically_derived]
        impl #impl_generics ::std::fmt::Debug for #name #arguments #bounds {
            fn fmt(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Formatter::debug_struct(formatter, #text)
                    .field("memory", self.inner.0.memory())
                    .finish_non_exhaustive()
            }
        }
    }
}
