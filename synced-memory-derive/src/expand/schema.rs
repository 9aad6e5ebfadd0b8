//! `impl SyncedMemory` for the user's struct, and `impl Handle` for its handle.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::LitStr;

use super::Context;
use crate::model::{FieldKind, FieldModel};

pub(super) fn expand(context: &Context<'_>) -> TokenStream {
    let Context {
        model,
        support,
        schema,
        where_values,
        ..
    } = context;
    let handle = &model.handle;
    let (impl_generics, arguments, _) = model.generics.split_for_impl();
    let names = model.shared().map(|field| &field.wire.name);
    let fields: Vec<_> = model
        .shared()
        .map(|field| {
            let value = context.value(&field.ty);
            let handle = (field.kind == FieldKind::Nested).then(|| {
                quote_spanned! {context.site=> #support::NestedHandle::new(), }
            });
            quote_spanned! {context.site=> #value::field(), #handle }
        })
        .collect();
    let members: Vec<_> = model.shared().map(|field| member(context, field)).collect();
    let prefix = option(
        context,
        model.attrs.prefix.as_ref().map(|prefix| &prefix.value),
    );
    let scope = option(
        context,
        model.attrs.scope.as_ref().map(|scope| &scope.value),
    );
    let allow = context.allow();
    quote_spanned! {context.site=>
        #allow
        #[automatically_derived]
        impl #impl_generics #support::SyncedMemory for #schema #where_values {
            type Handle = #handle #arguments;

            const NAMES: &'static [&'static #support::std::primitive::str] = &[#(#names),*];

            fn members() -> &'static [#support::Member] {
                const { &[#(#members),*] }
            }

            fn attach(memory: &#support::Memory) -> Self::Handle {
                // These make the struct and read its fields: without a use, rustc would call the
                // fields of a private struct dead.
                let _ = (Self::Handle::snapshot, Self::Handle::restore);
                #handle {
                    inner: ::std::sync::Arc::new((
                        #support::HandleRoot::root(memory, #prefix, #scope),
                        #(#fields)*
                        ::std::marker::PhantomData,
                    )),
                }
            }

            fn inside(path: &#support::ValuePath) -> Self::Handle {
                #handle {
                    inner: ::std::sync::Arc::new((
                        #support::HandleRoot::inside(path),
                        #(#fields)*
                        ::std::marker::PhantomData,
                    )),
                }
            }
        }

        #allow
        #[automatically_derived]
        impl #impl_generics #support::Handle for #handle #arguments #where_values {
            type Schema = #schema;
        }
    }
}

/// The field as a member of the object that serde writes.
fn member(context: &Context<'_>, field: &FieldModel) -> TokenStream {
    let support = &context.support;
    let name = &field.as_member.wire.name;
    let aliases = field.as_member.aliases.iter().map(LitStr::value);
    let nested = if field.kind == FieldKind::Nested {
        let members = context.members(&field.ty);
        quote_spanned! {context.site=> ::std::option::Option::Some(#members) }
    } else {
        quote_spanned! {context.site=> ::std::option::Option::None }
    };
    quote_spanned! {context.site=>
        #support::Member { name: #name, aliases: &[#(#aliases),*], nested: #nested }
    }
}

fn option(context: &Context<'_>, literal: Option<&LitStr>) -> TokenStream {
    literal.map_or_else(
        || quote_spanned! {context.site=> ::std::option::Option::None },
        |literal| quote_spanned! {context.site=> ::std::option::Option::Some(#literal) },
    )
}
