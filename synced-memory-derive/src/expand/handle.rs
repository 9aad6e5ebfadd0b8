//! The handle: a memory and a place for each field's view, behind one `Arc`.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::ext::IdentExt;

use super::{Context, declaration, docs};

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    let Context { model, private, schema, .. } = context;
    let site = context.site;
    let vis = &model.vis;
    let name = &model.handle;
    let text = name.unraw().to_string();
    let declared = declaration(&model.generics);
    let (impl_generics, arguments, bounds) = model.generics.split_for_impl();
    let docs = docs::handle(&model.schema, &model.notes);
    let allow = context.allow();
    let deprecated = &model.notes.deprecated;
    let types = model.shared().map(|field| &field.ty);
    quote_spanned! {site=>
        #docs
        #allow
        #deprecated
        #vis struct #name #declared #bounds {
            // The last place is for parameters that only skipped fields name.
            inner: ::std::sync::Arc<(
                #private::Memory,
                #(#private::Field<#types>,)*
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
                    .field("memory", &self.inner.0)
                    .finish_non_exhaustive()
            }
        }
    }
}
